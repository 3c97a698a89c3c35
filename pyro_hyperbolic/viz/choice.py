r"""Which picture shows a manifold."""

from typing import Any
from weakref import WeakKeyDictionary

import geoopt
from geoopt.manifolds.base import Manifold
from matplotlib.axes import Axes

from pyro_hyperbolic.geometry import Hadamard, bind, checks
from pyro_hyperbolic.manifolds import Torus

from .compact import Hemispheres, Mollweide, Square
from .pictures import Disk, Native, Picture

__all__ = ["axes", "picture", "set_native"]

#: Radii of the axes that show the distance from the origin as it is.
_NATIVE: WeakKeyDictionary[Axes, float] = WeakKeyDictionary()


def set_native(ax: Axes, radius: float) -> None:
    """Makes hyperbolic planes appear on these axes in normal coordinates, up to a radius."""
    _NATIVE[ax] = radius


def axes(ax: Axes | None) -> Axes:
    """Returns the given axes, or the current ones of pyplot for None."""
    if isinstance(ax, Axes):
        return ax
    if ax is not None:
        raise TypeError(
            f"ax is of type {type(ax).__name__}, but the first argument is matplotlib's Axes, or None for pyplot's "
            f"current ones."
        )
    from matplotlib import pyplot  # only here: pyplot chooses a backend

    return pyplot.gca()


def picture(ax: Axes, manifold: Manifold) -> Picture:
    """Returns the picture of a manifold on these axes.

    The plane if it is flat with a global chart, the disk if its curvature is a negative constant, in normal coordinates
    after ``native_disk``, two hemispheres for the sphere, or longitude and latitude on axes of the Mollweide
    projection, and the square of a torus.
    """
    geometry: Any = checks.check_manifold(manifold)
    if isinstance(geometry.manifold, geoopt.Sphere):
        return Mollweide(geometry) if ax.name == "mollweide" else Hemispheres(geometry)
    if isinstance(geometry.manifold, Torus):
        return Square(geometry)
    curvature = geometry.curvature()
    if curvature is None or not isinstance(geometry, Hadamard):
        raise TypeError(
            f"viz draws surfaces of constant curvature, but the manifold is {manifold!r}; "
            f"draw the factors of a product one by one."
        )
    if curvature.numel() != 1:
        raise ValueError(f"the curvature has shape {tuple(curvature.shape)}, but a picture shows one curvature.")
    values = {name: value.detach().cpu().double().reshape(()) for name, value in geometry.parameters().items()}
    drawn: Any = bind(geometry.with_parameters(values))
    value = drawn.curvature().item()
    return Native(drawn, value, _NATIVE[ax]) if value and ax in _NATIVE else Disk(drawn, value)
