r"""The map of any numbers to the nearest point of a manifold without a global chart."""

from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.distributions.constraints import Constraint

from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions.constraints import OnManifold, on_manifold
from pyro_hyperbolic.geometry import checks

from .base import with_batch

__all__ = ["Projection"]


class Projection(Transform):
    r"""Maps any numbers to the nearest point, :math:`y = \pi(x)`, as :math:`x / |x|` on a sphere; not injective.

    ``transform_to(on_manifold(M))`` returns it where there is no global chart, so that any optimiser can move a
    ``pyro.param``. It has no log-determinant. On ``Torus`` it wraps angles; on ``Rotations`` ``x`` is a quaternion of
    any length; on a product it acts on each factor, by ``ExponentialMap`` where the factor has a chart. Zero,
    which has no nearest point on a sphere, goes to a fixed point.

    Shapes: ``x`` is ``(*, p)``, for example ``p = n + 1`` on the sphere S^n; ``y`` are points.

    Args:
        manifold: A geoopt manifold.
        cache_size: 0 (default) or 1.

    Raises:
        TypeError: If no geometry is registered for the manifold.
        ValueError: While validating, if an argument has no nearest point, or is off the manifold.

    Example:
        >>> HT.Projection(geoopt.Sphere())(torch.tensor([3.0, 4.0]))
        tensor([0.6000, 0.8000])
    """

    bijective = False

    def __init__(self, manifold: Manifold, *, cache_size: int = 0) -> None:
        self.codomain: OnManifold = on_manifold(manifold)
        super().__init__(cache_size=cache_size)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def domain(self) -> Constraint:
        """Vectors of R^p."""
        return constraints.real_vector

    @property
    def manifold(self) -> Manifold:
        """The geoopt manifold."""
        return self.codomain.manifold

    def _call(self, x: Tensor) -> Tensor:
        space = geometry.complete(self.manifold)
        checks.check_floating("the argument of Projection", x)
        # Pyro's init_to_feasible takes the image of zero for a point, whichever it is.
        y = space.point(space.retract(space.away_from_zero(x)))[0]
        remedy = f"{checks.describe(space)} needs finite numbers"
        checks.check_nearest(space, x, y, remedy, event_dim=1)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        space = geometry.complete(self.manifold)
        checks.check_points(space, y, "the argument of Projection.inv")
        return space.state(y)[0].clone()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Raises, because the map is not injective."""
        raise NotImplementedError(
            f"Projection to {checks.describe(self.manifold)} is not injective, so it has no log-determinant; use "
            f"LiftReparam for inference."
        )

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Returns the shape of points for ``(*, p)``."""
        space = geometry.complete(self.manifold)
        point = space.point(space.retract(torch.ones(shape[-1])))[0]
        event = point.shape[point.dim() - space.event_dim :]
        return with_batch(shape[:-1] + event, *space.batch_shapes(), event_dim=space.event_dim)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Returns ``(*, p)`` for the shape of points."""
        space = geometry.complete(self.manifold)
        size = space.state_size(space.dim(shape))
        return with_batch(torch.Size((*space.batch_of(shape), size)), *space.batch_shapes())

    def with_cache(self, cache_size: int = 1) -> "Projection":
        """Returns this transform with that cache size."""
        return self if cache_size == self._cache_size else Projection(self.manifold, cache_size=cache_size)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Projection) and geometry.same(self.manifold, other.manifold)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Projection({checks.describe(self.manifold)})"
