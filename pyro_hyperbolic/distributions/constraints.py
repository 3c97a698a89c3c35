r"""The constraint that events are points of a manifold."""

from typing import Any

from geoopt.manifolds.base import Manifold
from torch import Tensor
from torch.distributions.constraints import Constraint

from pyro_hyperbolic import geometry
from pyro_hyperbolic.geometry import checks

__all__ = ["OnManifold", "on_manifold"]


class OnManifold(Constraint):
    r"""Constrains events to a manifold; on the hyperboloid :math:`x_0 > 0,\ |(\sqrt k, x_s)/x_0| = 1` up to rounding.

    Two constraints are equal if their manifolds have the same geometry and the same ``k``. ``biject_to`` and
    ``transform_to`` return :class:`~pyro_hyperbolic.distributions.transforms.ExponentialMap`, so autoguides, HMC and
    ``pyro.param(constraint=...)`` work, with densities with respect to Riemannian volume.

    Compact manifolds, such as a sphere, and products with them have no bijection from R^n: ``biject_to`` raises a
    TypeError. ``transform_to`` returns :class:`~pyro_hyperbolic.distributions.transforms.Projection`, so
    ``pyro.param(constraint=...)`` and point estimates work. For NUTS and other autoguides use
    :class:`~pyro_hyperbolic.infer.LiftReparam`.

    Args:
        manifold: A geoopt manifold.
        validate_args: Whether to check ``k``; Pyro's global setting by default.

    Raises:
        TypeError: If no geometry is registered for the manifold.
        ValueError: If ``k`` is not positive.

    Example:
        >>> on_manifold(geoopt.Lorentz()).check(torch.tensor([[1.25, 0.75], [1.0, 0.75]]))
        tensor([ True, False])
        >>> on_manifold(geoopt.Lorentz(k=2.0)) == on_manifold(geoopt.Lorentz(k=1.0))
        False
    """

    is_discrete = False

    def __init__(self, manifold: Manifold, *, validate_args: bool | None = None) -> None:
        space = checks.check_manifold(manifold, validate=validate_args)
        self.manifold = manifold
        self.event_dim = space.event_dim

    def check(self, value: Tensor) -> Tensor:
        """Returns whether each event of ``value`` is on the manifold, shape ``(*)``; ``False`` for NaN."""
        return geometry.contains(self.manifold, value)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, OnManifold) and geometry.same(self.manifold, other.manifold)

    def __hash__(self) -> int:
        # k is left out, since it can be a parameter: equal constraints must hash alike.
        return hash((OnManifold, geometry.bind(self.manifold).name))

    def __repr__(self) -> str:
        return f"on_manifold({checks.describe(self.manifold)})"


on_manifold = OnManifold
