r"""Which picture shows a manifold."""

from typing import Any

import geoopt
from geoopt.manifolds.base import Manifold
from matplotlib.axes import Axes

from pyro_hyperbolic.geometry import Hadamard, bind, checks
from pyro_hyperbolic.manifolds import Torus

from .compact import Hemispheres, Mollweide, Square
from .pictures import Disk, Picture

__all__ = ["picture"]


def picture(ax: Axes, manifold: Manifold) -> Picture:
    """Returns the picture of a manifold on these axes.

    The plane if it is flat with a global chart, the disk if its curvature is a negative constant, two hemispheres for
    the sphere, or longitude and latitude on axes of the Mollweide projection, and the square of a torus.
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
    return Disk(drawn, drawn.curvature().item())
