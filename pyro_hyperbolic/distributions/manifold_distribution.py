r"""What distributions on a manifold share: arguments that broadcast, the support, checks of values, ``expand``."""

from typing import TYPE_CHECKING, Any, ClassVar

import pyro.distributions as dist
import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyro_hyperbolic.distributions.constraints import on_manifold
from pyro_hyperbolic.geometry import checks
from pyro_hyperbolic.manifolds import has_sampled_parameters

__all__ = ["ManifoldDistribution", "check_latent_k", "check_value", "checked_number", "inferred_shapes", "initialise"]

#: Pyro's autoguides and MCMC store the supports of their first run, with the k of that run.
_LATENT_K_HINT = (
    "k is latent, so a support stored in an earlier run has another k: reparametrise the site with TransformReparam, "
    "or use the autoguides of pyro_hyperbolic.infer, which store no supports"
)


class ManifoldDistribution(dist.TorchDistribution):
    """Abstract base of distributions with points as events and densities with respect to Riemannian volume.

    A subclass implements ``_log_prob`` and ``rsample``. Its arguments are the tensors ``_<name>`` for each name in
    ``arg_constraints``, of any batch shapes that broadcast; the property ``<name>`` expands them.
    """

    has_rsample = True
    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    manifold: Manifold
    _validate_args: Any

    if TYPE_CHECKING:  # Pyro's own are untyped

        def sample(self, sample_shape: Any = ()) -> Tensor:
            """Returns points, shape ``sample_shape + batch_shape + event_shape``."""

    def _finish(
        self, manifold: Manifold, batch_shape: torch.Size, event_shape: torch.Size, validate_args: bool | None
    ) -> None:
        self.manifold = manifold
        initialise(self, batch_shape, event_shape, validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Constraint:
        """The manifold."""
        return on_manifold(self.manifold, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Raises NotImplementedError; a subclass returns the Fréchet mean if it is known."""
        raise NotImplementedError(
            f"the Fréchet mean of {type(self).__name__} is not known, or not unique; take a mode, or a mean of "
            f"samples, ph.infer.summary(x, M, group_by_chain=False)."
        )

    @property
    def variance(self) -> Tensor:
        """Raises NotImplementedError, because the variance of coordinates means nothing on a manifold."""
        raise NotImplementedError(
            f"{type(self).__name__} has no variance, since points of a manifold have no linear coordinates; estimate "
            f"the mean of geometry.squared_distance(M, x, center) over samples x."
        )

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Returns :math:`\log p` with respect to Riemannian volume, shape ``(*)``."""
        if self._validate_args:
            self._validate_sample(value)
        found = self._log_prob(value)
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))

    def _log_prob(self, value: Tensor) -> Tensor:
        raise NotImplementedError

    def _expanded(self, name: str) -> Tensor:
        """Returns an argument, expanded to the batch shape."""
        value: Tensor = getattr(self, f"_{name}")
        event = value.shape[value.dim() - self.arg_constraints[name].event_dim :]
        return value.expand(self.batch_shape + event)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> "ManifoldDistribution":
        """Returns a distribution of the same class, expanded to ``batch_shape``, with gradients to the arguments."""
        new = self._get_checked_instance(type(self), _instance)
        # The arguments stay as they are, so that what depends on them is computed once for all members.
        new.__dict__.update({name: value for name, value in self.__dict__.items() if name != "_validate_args"})
        new._finish(self.manifold, torch.Size(batch_shape), self.event_shape, self.__dict__.get("_validate_args"))
        return new

    @classmethod
    def infer_shapes(cls, **arg_shapes: Any) -> tuple[torch.Size, torch.Size]:
        """Returns ``batch_shape`` and ``event_shape`` for arguments of those shapes."""
        return inferred_shapes(cls.arg_constraints, arg_shapes)

    def _validate_sample(self, value: Tensor) -> None:
        check_value(self, self.manifold, value)

    def __repr__(self) -> str:
        shapes = "".join(f"{name}: {tuple(getattr(self, name).shape)}, " for name in self.arg_constraints)
        return f"{type(self).__name__}({shapes}{checks.describe(self.manifold)})"


def initialise(distribution: Any, batch_shape: torch.Size, event_shape: torch.Size, validate_args: bool | None) -> None:
    """Calls torch's constructor. With ``validate_args=None`` Pyro's global setting applies, also after construction."""
    # The arguments are already checked, and torch's checks fail on empty batches.
    torch.distributions.Distribution.__init__(distribution, batch_shape, event_shape, validate_args=False)
    if validate_args is None:
        del distribution._validate_args
    else:
        distribution._validate_args = validate_args


def inferred_shapes(
    arg_constraints: dict[str, Constraint], arg_shapes: dict[str, Any]
) -> tuple[torch.Size, torch.Size]:
    """Returns the batch shape and the event shape, that of ``loc``, for arguments of those shapes."""
    events = {name: constraint.event_dim for name, constraint in arg_constraints.items()}
    shapes = {name: torch.Size(shape) for name, shape in arg_shapes.items() if name in events}
    batches = [shape[: len(shape) - events[name]] for name, shape in shapes.items()]
    return torch.broadcast_shapes(*batches), shapes["loc"][len(shapes["loc"]) - events["loc"] :]


def check_value(distribution: dist.TorchDistribution, manifold: Manifold, value: Tensor) -> None:
    """Raises unless ``value`` holds points of the manifold, of shapes that fit the distribution."""
    # Our checks of the support and of batch shapes say more than torch's.
    advice = _LATENT_K_HINT if has_sampled_parameters(manifold) else ""
    checks.check_points(manifold, value, "value", validate=distribution._validate_args, advice=advice)
    event_dim, event_shape = distribution.event_dim, distribution.event_shape
    if value.shape[value.dim() - event_dim :] != event_shape:
        raise ValueError(f"The right-most size of value must match event_shape: {value.size()} vs {event_shape}.")
    checks.check_batches(value=value.shape[: value.dim() - event_dim], distribution=distribution.batch_shape)


def check_latent_k(distribution: dist.TorchDistribution, manifold: Manifold, value: Tensor, loc: Tensor) -> None:
    """Raises if ``k`` is latent and ``value`` holds points of a manifold with another ``k``.

    MCMC turns validation off and stores the support of its first run, whose points are off this manifold.
    """
    if not has_sampled_parameters(manifold):
        return
    if checks.tracing():  # while tracing, k is still that of the first run, so the check would pass
        raise ValueError(f"a compiled sampler cannot score {type(distribution).__name__}: {_LATENT_K_HINT}.")
    finite = torch.where(value.isfinite().all(-1, keepdim=True), value, loc)
    checks.check_points(manifold, finite, "value", validate=True, advice=_LATENT_K_HINT)


def checked_number(name: str, value: Any, like: Tensor, remedy: str, validate: bool | None) -> Tensor:
    """Returns a positive argument as a tensor of the dtype and device of ``like`` if it is a number, or raises."""
    number: Tensor = checks.as_tensor_like(value, like)
    checks.check_floating(name, number)
    checks.check_positive(name, number, remedy, validate=validate)
    return number
