r"""The exponential map from R^n to the manifold, at the origin or at any other point."""

from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints, transform_to
from torch.distributions.constraints import Constraint

from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions.constraints import OnManifold
from pyro_hyperbolic.geometry import Hadamard, checks

from .base import LEARN_LOC_HINT, ManifoldTransform, with_batch
from .projection import Projection

__all__ = ["ExponentialMap"]


class ExponentialMap(ManifoldTransform):
    r"""Maps tangent coordinates to the manifold bijectively, :math:`y = T_{loc} \exp_o(x)`.

    .. math:: \log |\det dy/dx| = (n - 1) \log \frac{\sinh r}{r}, \qquad r = |x| / \sqrt k

    from Lebesgue measure to Riemannian volume. ``biject_to(on_manifold(M))`` and ``transform_to`` return
    ``ExponentialMap(M)``, so autoguides, HMC and NUTS use it. With ``loc`` it is followed by ``Translation(M, loc)``:
    :math:`T_{loc} \circ \exp_o = \exp_{loc} \circ \mathrm{PT}_{o \to loc}`, and ``x`` is in normal coordinates at
    ``loc``.

    Shapes: ``x`` is ``(*, n)``, ``y`` is ``(*, n + 1)``, the log-determinant is ``(*)``.

    Args:
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        loc: The image of the origin of R^n, shape ``(*, n + 1)``; the origin of the manifold by default.
        cache_size: 1 (default) to cache the last pair, 0 to cache nothing.
        validate_args: Whether to check arguments; Pyro's global setting by default.

    Raises:
        TypeError: If ``loc`` is not a floating point tensor; on a call, if the dtypes differ.
        ValueError: If ``k <= 0`` or, while validating, ``loc`` is off the manifold; on a call, while validating, if a
            point is off the manifold or the result overflows.

    Example:
        >>> t = ExponentialMap()
        >>> v = torch.tensor([1.0, 0.0])
        >>> x = t(v)
        >>> x, t.log_abs_det_jacobian(v, x)  # log sinh(1)
        (tensor([1.5431, 1.1752, 0.0000]), tensor(0.1614))
    """

    def __init__(
        self,
        manifold: Manifold | None = None,
        loc: Tensor | None = None,
        *,
        cache_size: int = 1,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(manifold, cache_size=cache_size, validate_args=validate_args)
        if loc is not None:
            checks.check_points(self.manifold, loc, "loc", validate=validate_args, advice=LEARN_LOC_HINT)
        self.loc = loc

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def domain(self) -> Constraint:
        """Vectors of R^n."""
        return constraints.real_vector

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        space = self._geometry
        if self.loc is not None:
            checks.check_fit(space, self.loc, x, x.size(-1))
            if not _is_at_the_origin(space, self.loc):
                return space.exp_at(self.loc, x)
        return space.exp0(x)

    def _backward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        space = self._geometry
        if self.loc is not None:
            checks.check_fit(space, self.loc, y, space.dim(y.shape))
            if not _is_at_the_origin(space, self.loc):
                return space.overflow_safe_log(y, self.loc)
        return space.overflow_safe_log(y)

    def _check_domain(self, x: Tensor, *, validate: bool) -> None:
        checks.check_vectors(self.manifold, x, "the argument of ExponentialMap", validate=validate)

    def _batch_shapes(self) -> list[torch.Size]:
        space = self._geometry
        loc = [] if self.loc is None else [space.batch_of(self.loc.shape)]
        return loc + space.batch_shapes()

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Returns ``(*, n + 1)`` for ``(*, n)``."""
        event = self._geometry.event_shape(shape[-1])
        return with_batch(shape[:-1] + event, *self._batch_shapes(), event_dim=len(event))

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Returns ``(*, n)`` for ``(*, n + 1)``."""
        space = self._geometry
        return with_batch(torch.Size((*space.batch_of(shape), space.dim(shape))), *self._batch_shapes())

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, ExponentialMap) or not geometry.same(self.manifold, other.manifold):
            return False
        if self.loc is None or other.loc is None:
            return self.loc is other.loc
        return self.loc is other.loc or torch.equal(self.loc, other.loc)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        loc = "" if self.loc is None else f", loc: {tuple(self.loc.shape)}"
        return f"ExponentialMap({checks.describe(self.manifold)}{loc})"


def _is_at_the_origin(space: Hadamard, loc: Tensor) -> bool:
    # The origin of another manifold may carry a batch of k, whose shape the result must have too.
    shapes = (torch.Size(), *space.batch_shapes())
    return geometry.is_known_origin(loc, space.name) and space.batch_of(loc.shape) in shapes


@biject_to.register(OnManifold)
def _bijection(constraint: OnManifold) -> ExponentialMap:
    return ExponentialMap(constraint.manifold)


@transform_to.register(OnManifold)
def _surjection(constraint: OnManifold) -> Transform:
    has_chart = isinstance(geometry.bind(constraint.manifold), Hadamard)
    return ExponentialMap(constraint.manifold) if has_chart else Projection(constraint.manifold)
