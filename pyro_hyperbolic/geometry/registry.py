"""The registry of geometries by type of manifold."""

from collections.abc import Callable

import geoopt
from geoopt.manifolds.base import Manifold

from .base import Complete, Embedded, Geometry, Hadamard
from .euclidean import Euclidean
from .hyperboloid import Hyperboloid
from .poincare_ball import PoincareBall
from .product import CompactProduct, MixedProduct, Product
from .remedies import manifold_remedy, shown
from .rotations import RotationGroup, Rotations
from .spd import SymmetricPositiveDefinite
from .sphere import Sphere
from .torus import FlatTorus, Torus

__all__ = ["bind", "chart", "complete", "register", "same"]

_GEOMETRIES: dict[type, Callable[[Manifold], Geometry]] = {}


def register(manifold_type: type, geometry: Callable[[Manifold], Geometry]) -> None:
    """Registers a geometry, a class or a function of the manifold, for ``manifold_type`` and its subclasses."""
    _GEOMETRIES[manifold_type] = geometry


register(geoopt.Lorentz, Hyperboloid)
register(geoopt.Euclidean, Euclidean)
register(geoopt.PoincareBall, PoincareBall)
register(geoopt.SymmetricPositiveDefinite, SymmetricPositiveDefinite)
register(geoopt.Sphere, Sphere)
register(Torus, FlatTorus)
register(Rotations, RotationGroup)


def bind(manifold: Manifold | Geometry) -> Geometry:
    """Returns the geometry bound to this manifold object; a geometry is returned unchanged.

    The class is the one registered for the nearest base class of the manifold. The geometry reads each parameter of the
    manifold at most once, so bind the manifold in each call.

    Raises:
        TypeError: If no geometry is registered for the type of the manifold.

    Example:
        >>> G = bind(geoopt.Lorentz(k=4.0))
        >>> G.name, G.event_shape(2), G.curvature().item()
        ('Lorentz', torch.Size([3]), -0.25)
    """
    if isinstance(manifold, Geometry):
        return manifold
    for base in type(manifold).__mro__:
        if base in _GEOMETRIES:
            return _GEOMETRIES[base](manifold)
    known = " or ".join(f"{base.__module__.split('.')[0]}.{base.__name__}" for base in _GEOMETRIES)
    remedy = manifold_remedy(manifold) or "use one of these, such as geoopt.Lorentz(), or register a geometry for it"
    raise TypeError(f"the manifold is {shown(manifold)}, but must be a {known}; {remedy}.")


def chart(manifold: Manifold | Geometry) -> Hadamard:
    """Returns the geometry bound to this manifold object, like :func:`bind`, if it has a global chart.

    Raises:
        TypeError: If no geometry is registered for the type of the manifold, or it has no global chart.
    """
    found = bind(manifold)
    if not isinstance(found, Hadamard):
        kinds = (kind for kind, space in _GEOMETRIES.items() if isinstance(space, type) and issubclass(space, Hadamard))
        known = ", ".join(kind.__name__ for kind in kinds)
        raise TypeError(
            f"{found.name} has no global chart: no map of R^n is a bijection onto it, so exp0, biject_to, wrapped "
            f"normals and couplings are not defined; for flows use continuous_flow, for NUTS and autoguides "
            f"LiftReparam, for pyro.param transform_to, or a manifold with a global chart ({known})."
        )
    return found


def complete(manifold: Manifold | Geometry) -> Complete:
    """Returns the geometry bound to this manifold object, like :func:`bind`, if it has tangent vectors.

    Raises:
        TypeError: If no geometry is registered for the type of the manifold, or it is not complete.
    """
    found = bind(manifold)
    if not isinstance(found, Complete):
        raise TypeError(f"{found.name} has no exponential map; subclass geometry.Hadamard or geometry.Embedded.")
    return found


def same(a: Manifold | Geometry, b: Manifold | Geometry) -> bool:
    """Returns whether two manifold objects have the same geometry and the same parameters."""
    return a is b or bind(a) == bind(b)


def _product(manifold: geoopt.ProductManifold) -> Geometry:
    """Returns the geometry of a product, with the capabilities that all factors have."""
    factors = [bind(factor) for factor in manifold.manifolds]
    for capability, kind in ((Hadamard, Product), (Embedded, CompactProduct)):
        if all(isinstance(factor, capability) for factor in factors):
            return kind(manifold)
    return MixedProduct(manifold)


register(geoopt.ProductManifold, _product)
MixedProduct.bind = staticmethod(complete)
