r"""Wrapped normal distributions: a normal on the tangent space at the origin, mapped to the manifold around ``loc``."""

import math
from typing import TYPE_CHECKING, Any

import pyro.distributions as dist
import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyro_hyperbolic.distributions.manifold_distribution import (
    check_latent_k,
    check_value,
    inferred_shapes,
    initialise,
)
from pyro_hyperbolic.distributions.transforms import ExponentialMap
from pyro_hyperbolic.distributions.transforms.base import LEARN_LOC_HINT, broadcast
from pyro_hyperbolic.geometry import Hadamard, checks
from pyro_hyperbolic.geometry.autocast import without_autocast
from pyro_hyperbolic.manifolds import or_standard, with_sampled_parameters

__all__ = ["WrappedDistribution", "WrappedMultivariateNormal", "WrappedNormal"]

_LOG_SQRT_2_PI = math.log(2 * math.pi) / 2


class WrappedDistribution(dist.TransformedDistribution):
    r"""Abstract base: the push-forward of a centred distribution on R^n by :math:`T_{loc} \circ \exp_o`.

    It is a ``TransformedDistribution`` with one transform, so Pyro's TransformReparam, AutoReparam and KL rules work.
    """

    if TYPE_CHECKING:  # Pyro's own are untyped

        def sample(self, sample_shape: Any = ()) -> Tensor:
            """Returns points, shape ``sample_shape + batch_shape + event_shape``."""

        def rsample(self, sample_shape: Any = ()) -> Tensor:
            """Returns points with pathwise gradients."""

    def __init__(self, base: dist.TorchDistribution, loc: Tensor, space: Hadamard, validate_args: bool | None) -> None:
        self.manifold: Manifold = space.manifold
        chart = ExponentialMap(self.manifold, loc, validate_args=False)  # its arguments have been checked
        chart._validate_args = validate_args
        # torch's constructor asks the transform for shapes three times, which doubles the cost.
        batch = space.batch_of(loc.shape)
        batch_shape = broadcast(base.batch_shape, batch, *space.batch_shapes())
        self.base_dist = base if base.batch_shape == batch_shape else base.expand(batch_shape)
        self.transforms = [chart]
        initialise(self, batch_shape, loc.shape[len(batch) :], validate_args)

    @property
    def loc(self) -> Tensor:
        """The location, shape ``(*, n + 1)``."""
        loc: Any = self.transforms[0].loc
        return loc.expand(self.batch_shape + self.event_shape)

    @property
    def mean(self) -> Tensor:
        """The Fréchet mean, a copy of ``loc``: the density is symmetric under the geodesic reflection at ``loc``."""
        return self.loc.clone()

    @property
    def mode(self) -> Tensor:
        """The mode with respect to Riemannian volume, a copy of ``loc``."""
        return self.loc.clone()

    @property
    def variance(self) -> Tensor:
        """Raises NotImplementedError, because the variance of coordinates means nothing on a manifold."""
        raise NotImplementedError(
            f"{type(self).__name__} has no variance, since points of a manifold have no linear coordinates; its scale "
            f"describes the normal coordinates log0(M, translate(M, loc, x, inverse=True))."
        )

    def entropy(self) -> Tensor:
        """Raises: the entropy has no closed form on a curved manifold."""
        raise NotImplementedError(
            f"the entropy of {type(self).__name__} has no closed form; estimate it: "
            f"-d.log_prob(d.rsample((1000,))).mean(0)."
        )

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Returns :math:`\log p` with respect to Riemannian volume, shape ``(*)``."""
        if self._validate_args:
            self._validate_sample(value)
        else:
            check_latent_k(self, self.manifold, value, self.loc)
        v, log_det = self.transforms[0].inverse_and_log_det(value)
        return self._tangent_log_prob(v) - log_det

    def _tangent_log_prob(self, v: Tensor) -> Tensor:
        raise NotImplementedError

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Constraint:
        """The manifold."""
        return self.transforms[0].codomain

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> "WrappedDistribution":
        """Returns a distribution of the same class, expanded to ``batch_shape``."""
        new = self._get_checked_instance(type(self), _instance)
        new.manifold = self.manifold
        new.base_dist = self.base_dist.expand(batch_shape)
        new.transforms = self.transforms
        initialise(new, torch.Size(batch_shape), self.event_shape, self.__dict__.get("_validate_args"))
        return new

    def _validate_sample(self, value: Tensor) -> None:
        check_value(self, self.manifold, value)

    @classmethod
    def infer_shapes(cls, **arg_shapes: Any) -> tuple[torch.Size, torch.Size]:
        """Returns ``batch_shape`` and ``event_shape`` for arguments of those shapes."""
        return inferred_shapes(cls.arg_constraints, arg_shapes)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {tuple(getattr(self, name).shape)}" for name in self._repr_names)
        return f"{type(self).__name__}({shapes}, {checks.describe(self.manifold)})"

    _repr_names: tuple[str, ...] = ("loc",)


class WrappedNormal(WrappedDistribution):
    r"""Normal wrapped onto a manifold, :math:`x = T_{loc} \exp_o(v),\ v \sim N(0, \operatorname{diag} s^2)`.

    .. math:: \log p(x) = \sum_i \log N(v_i; 0, s_i^2) - (n - 1) \log \frac{\sinh r}{r},
        \qquad v = \log_o T_{loc}^{-1} x, \quad r = |v| / \sqrt k

    with respect to Riemannian volume. The axes of ``scale`` are the coordinate axes at the origin, parallel-transported
    to ``loc``. On ``geoopt.Euclidean(1)`` this is ``Normal(loc, scale).to_event(1)``.

    A sample of this distribution is scored by the tangent vector it was made from, exactly at any distance. The score
    of a *stored* point is limited by its rounded coordinates: to 1e-3 at ``r = 27`` in float64, ``r = 8`` in float32.

    Shapes: ``loc`` and ``scale`` broadcast to ``batch_shape``; events are ``(n + 1,)``.

    Args:
        loc: Location, a point of the manifold, shape ``(*, n + 1)``.
        scale: Standard deviations in tangent coordinates, shape ``(*, n)``, or ``(*, 1)`` or a number if isotropic;
            positive, in units of distance.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        validate_args: Whether to check arguments and values; Pyro's global setting by default.

    Raises:
        TypeError: If ``loc`` and ``scale`` are not floating point tensors of one dtype.
        ValueError: If the last dimensions do not fit or, while validating, ``loc`` is off the manifold, or ``scale`` or
            ``k`` is not positive.

    References:
        *A Wrapped Normal Distribution on Hyperbolic Space for Gradient-Based Learning*, Y. Nagano, S. Yamaguchi,
        Y. Fujita, M. Koyama, 2019, arXiv:1902.02992.

    Example:
        >>> loc = torch.tensor([1.25, 0.75, 0.0])
        >>> d = WrappedNormal(loc, torch.ones(2))
        >>> d, d.log_prob(loc)  # at its mode: -log(2 pi)
        (WrappedNormal(loc: (3,), scale: (2,), Lorentz(k=1)), tensor(-1.8379))
    """

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.dependent(is_discrete=False, event_dim=1),
        "scale": constraints.independent(constraints.positive, 1),
    }
    _repr_names = ("loc", "scale")

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor | float,
        manifold: Manifold | None = None,
        validate_args: bool | None = None,
    ) -> None:
        manifold = with_sampled_parameters(or_standard(manifold))
        space = _checked_geometry(manifold, loc)
        scale = _checked_scale(space, checks.as_tensor_like(scale, loc), loc)
        checks.check_batches(loc=space.batch_of(loc.shape), scale=scale.shape[:-1])
        _check_values(space, loc, scale, validate_args)
        base = dist.Normal(scale.new_zeros(()), scale, validate_args=False).to_event(1)
        super().__init__(base, loc, space, validate_args)

    def _tangent_log_prob(self, v: Tensor) -> Tensor:
        # base_dist.log_prob takes twice as many operations, and squares the scale, which can underflow.
        scale = self.scale
        z = v / scale
        # The constant is added per coordinate: n times it would be float32 in a trace, where n is a tensor.
        return torch.sub(-(scale.log() + _LOG_SQRT_2_PI).sum(-1), (z * z).sum(-1), alpha=0.5)

    @property
    def scale(self) -> Tensor:
        """Standard deviations in tangent coordinates, shape ``(*, n)``."""
        return self.base_dist.base_dist.scale


class WrappedMultivariateNormal(WrappedDistribution):
    r"""Normal with full covariance wrapped onto a manifold, :math:`x = T_{loc} \exp_o(v),\ v \sim N(0, \Sigma)`.

    .. math:: \log p(x) = \log N(v; 0, \Sigma) - (n - 1) \log \frac{\sinh r}{r},
        \qquad v = \log_o T_{loc}^{-1} x, \quad r = |v| / \sqrt k

    with respect to Riemannian volume. The axes of :math:`\Sigma` are the coordinate axes at the origin,
    parallel-transported to ``loc``.

    Shapes: ``loc`` and the matrix broadcast to ``batch_shape``; events are ``(n + 1,)``.

    Args:
        loc: Location, a point of the manifold, shape ``(*, n + 1)``.
        covariance_matrix: Positive definite, shape ``(*, n, n)``, in units of squared distance.
        precision_matrix: The inverse of the covariance; give one of the three.
        scale_tril: The lower Cholesky factor of the covariance, with positive diagonal.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        validate_args: Whether to check arguments and values; Pyro's global setting by default.

    Raises:
        TypeError: If the arguments are not floating point tensors of one dtype.
        ValueError: If no matrix or more than one is given, shapes do not fit or, while validating, ``loc`` is off the
            manifold, ``k`` is not positive or the matrix is not positive definite.

    References:
        Y. Nagano et al., 2019, arXiv:1902.02992.

    Example:
        >>> loc = torch.tensor([1.25, 0.75, 0.0])
        >>> WrappedMultivariateNormal(loc, torch.eye(2)).log_prob(loc)
        tensor(-1.8379)
    """

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.dependent(is_discrete=False, event_dim=1),
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    _repr_names = ("loc", "scale_tril")

    def __init__(
        self,
        loc: Tensor,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        manifold: Manifold | None = None,
        validate_args: bool | None = None,
    ) -> None:
        manifold = with_sampled_parameters(or_standard(manifold))
        space = _checked_geometry(manifold, loc)
        dim = space.dim(loc.shape)
        matrices = {
            "covariance_matrix": covariance_matrix,
            "precision_matrix": precision_matrix,
            "scale_tril": scale_tril,
        }
        given = {name: value for name, value in matrices.items() if value is not None}
        for name, value in given.items():
            checks.check_floating(name, value)
        if len(given) != 1:
            raise ValueError(
                f"{sorted(given) or 'no matrix'} given, but exactly one of {', '.join(matrices)} is needed."
            )
        ((name, matrix),) = given.items()
        checks.check_same_dtype(loc=loc, **given)
        if matrix.shape[-2:] != (dim, dim):
            raise ValueError(
                f"{name} has shape {tuple(matrix.shape)}, but loc of shape {tuple(loc.shape)} has n = {dim} "
                f"dimensions; give a matrix (*, {dim}, {dim})."
            )
        checks.check_batches(loc=space.batch_of(loc.shape), **{name: matrix.shape[:-2]})
        _check_values(space, loc, None, validate_args)
        # torch's check cannot reshape an empty batch, nor read values under vmap.
        validate = validate_args if matrix.numel() and checks.validating(validate_args) else False
        base = dist.MultivariateNormal(matrix.new_zeros(dim), **given, validate_args=validate)
        super().__init__(base, loc, space, validate_args)

    def _tangent_log_prob(self, v: Tensor) -> Tensor:
        if v.numel() == 0 or 0 in self.batch_shape:  # torch's MultivariateNormal cannot reshape an empty batch
            return v.new_zeros(torch.broadcast_shapes(v.shape[:-1], self.batch_shape))
        return self.base_dist.log_prob(v)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Returns points of shape ``sample_shape + batch_shape + event_shape``, without gradients."""
        with without_autocast(self.loc):  # which would round the covariance to bfloat16
            return super().sample(torch.Size(sample_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Returns points of shape ``sample_shape + batch_shape + event_shape``, differentiable in the parameters."""
        with without_autocast(self.loc):
            return super().rsample(torch.Size(sample_shape))

    @property
    def covariance_matrix(self) -> Tensor:
        """The covariance in tangent coordinates, shape ``(*, n, n)``."""
        with without_autocast(self.loc):
            return self.base_dist.covariance_matrix

    @property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance, shape ``(*, n, n)``."""
        with without_autocast(self.loc):
            return self.base_dist.precision_matrix

    @property
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance, shape ``(*, n, n)``."""
        return self.base_dist.scale_tril


def _checked_geometry(manifold: Manifold, loc: Tensor) -> Hadamard:
    space = checks.check_chart(manifold, validate=False)
    checks.check_shape(space, loc, "loc")
    return space


def _check_values(space: Hadamard, loc: Tensor, scale: Tensor | None, validate: bool | None) -> None:
    """Raises unless ``k`` and ``scale`` are positive and ``loc`` is a point; valid arguments cost one sync."""
    if not checks.validating(validate):
        return
    checks.check_batch_of_parameters(space, "loc", space.batch_of(loc.shape))
    conditions = [space.contains(loc).all(), *space.parameters_are_positive()]
    if scale is not None:
        conditions.append(checks.is_positive(scale).all())
    if checks.all_hold(conditions):
        return
    checks.check_manifold(space, validate=True)
    checks.check_points(space, loc, "loc", validate=True, advice=LEARN_LOC_HINT)
    if scale is not None:
        remedy = "these are standard deviations; pass a network's output through softplus or exp."
        checks.check_positive("scale", scale, remedy, validate=True)


def _checked_scale(space: Hadamard, scale: Tensor, loc: Tensor) -> Tensor:
    """Returns the scale expanded to ``(*, n)``, or raises."""
    dim = space.dim(loc.shape)
    checks.check_floating("scale", scale)
    checks.check_same_dtype(loc=loc, scale=scale)
    if scale.dim() == 0:
        return scale.expand(dim)
    size = scale.size(-1)
    if size in (1, dim):
        return scale.expand((*scale.shape[:-1], dim))
    shapes = f"loc has shape {tuple(loc.shape)} and scale has shape {tuple(scale.shape)}"
    points = f"points of {checks.describe(space)} are {space.coordinates} and standard deviations (*, n)"
    if space.dim(scale.shape) == loc.size(-1):
        raise ValueError(f"{shapes}, but {points}; swap them.")
    if size == loc.size(-1) and not (checks.validating(True) and bool(space.contains(loc).all())):
        raise ValueError(f"{shapes}, but {points}; if loc holds tangent coordinates, give exp0(M, loc).")
    raise ValueError(
        f"{shapes}, but loc has n = {dim} dimensions; give standard deviations of the tangent coordinates, shape "
        f"(*, {dim}), or (*, 1) if isotropic."
    )
