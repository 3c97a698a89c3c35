r"""Tangent vectors and vector fields."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from geoopt.manifolds.base import Manifold
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.quiver import Quiver
from torch import Tensor

from pyro_hyperbolic.geometry import checks

from .choice import axes, picture
from .pictures import Array, Extent, Picture, Z, tensor_of

__all__ = ["vector_field", "vectors"]

#: Viridis without its yellows, which are hard to see on white.
_COLOURS = ListedColormap(colormaps["viridis"](np.linspace(0, 0.85, 256)))


def vectors(ax: Axes | None, manifold: Manifold, x: Array, u: Array, **kwargs: Any) -> Quiver:
    r"""Draws tangent vectors as arrows :math:`dp = \frac{\partial p}{\partial x} u`, the differential of the picture.

    In the disk and the plane angles are true; pictures of the sphere keep areas instead. In the disk an arrow has
    :math:`(1 - |p|^2/k) / 2` times the length of its vector. ``scale=0.1`` draws arrows ten times as long.

    Args:
        ax: Axes to draw on; None is pyplot's current axes.
        manifold: ``geoopt.Lorentz``, ``PoincareBall``, ``Euclidean(1)`` or ``Sphere``, or ``ph.manifolds.Torus(2)``.
        x: Points, shape ``(*, 3)`` on ``Lorentz`` and ``Sphere``, else ``(*, 2)``.
        u: Tangent vectors at ``x`` in ambient coordinates (:math:`\langle x, u \rangle = 0` on ``Lorentz`` and
            ``Sphere``), same shape.
        **kwargs: For ``ax.quiver``.

    Returns:
        The Quiver.

    Raises:
        TypeError: If the manifold is none of these, or ``x`` or ``u`` is not an array of floating point numbers.
        ValueError: If ``n`` is not 2, the shapes differ, a vector is not tangent or, while validating, a point is off
            the manifold.

    Example:
        At the centre the disk halves lengths:

        >>> from matplotlib.figure import Figure
        >>> M = geoopt.Lorentz()
        >>> arrows = vectors(Figure().subplots(), M, geometry.origin(M, 2), torch.tensor([0.0, 1.0, 0.0]))
        >>> arrows.U.tolist(), arrows.V.tolist()
        ([0.5], [0.0])
    """
    ax = axes(ax)
    drawn = picture(ax, manifold)
    ends, arrows = drawn.push(*_checked(drawn, x, u))
    return _draw(ax, ends, arrows, **{"color": "0.3", "width": 0.003, **kwargs})


def vector_field(
    ax: Axes | None,
    manifold: Manifold,
    field: Callable[[Tensor], Array],
    *,
    extent: Extent | None = None,
    resolution: int = 21,
    dtype: torch.dtype | None = None,
    **kwargs: Any,
) -> Quiver:
    r"""Draws a vector field :math:`x \mapsto u(x) \in T_x M` on a square grid of the picture, :math:`|u|` as colour.

    All arrows have the length of a grid cell, so they show directions and never overlap. Their colour is the
    Riemannian length of the vector: ``figure.colorbar(arrows, label=arrows.get_label())``. With ``scale``, the arrows
    are those of :func:`vectors`: ``scale=1`` draws velocities of the picture.

    Args:
        ax: Axes to draw on; None is pyplot's current axes.
        manifold: ``geoopt.Lorentz``, ``PoincareBall``, ``Euclidean(1)`` or ``Sphere``, or ``ph.manifolds.Torus(2)``.
        field: Maps points, shape ``(B, 3)`` on ``Lorentz`` and ``Sphere``, else ``(B, 2)``, to tangent vectors of the
            same shape as :func:`vectors` takes them; for example a Riemannian gradient.
        extent: ``(left, right, bottom, top)``; by default the whole picture, in the plane the current limits of ``ax``.
        resolution: Number of arrows upwards and across; twice as many across on the sphere. Those that could
            cross the boundary of a disk are left out.
        dtype: Of the points; the default dtype if not given.
        **kwargs: For ``ax.quiver``, such as ``cmap``, ``norm`` or ``clim``; one ``color`` for all arrows.

    Returns:
        The Quiver.

    Raises:
        TypeError: If the manifold is none of these.
        ValueError: As :func:`vectors`.

    Example:
        Rotation about the origin, with speed :math:`\sinh r`, which is 2.4 at :math:`|p| = 2/3`:

        >>> from matplotlib.figure import Figure
        >>> turn = lambda x: torch.stack([0 * x[:, 0], -x[:, 2], x[:, 1]], dim=-1)
        >>> arrows = vector_field(Figure().subplots(), geoopt.Lorentz(), turn, resolution=3)
        >>> arrows.get_label(), torch.tensor(arrows.get_array())
        ('length of the vector', tensor([2.4000, 2.4000, 0.0000, 2.4000, 2.4000], dtype=torch.float64))
    """
    ax = axes(ax)
    drawn = picture(ax, manifold)
    borders = drawn.borders(ax, extent, resolution)
    cell = min(abs(float(border[1] - border[0])) for border in borders)
    p = torch.cartesian_prod(*((border[1:] + border[:-1]) / 2 for border in borders))
    p = p[drawn.in_disk(p)[1].squeeze(-1) < drawn.radius - 0.4 * cell]
    x = drawn.points(p).to(dtype or torch.get_default_dtype())
    points, vector = _checked(drawn, x, field(x))
    ends, arrows = drawn.push(points, vector)
    if "scale" in kwargs:
        return _draw(ax, ends, arrows, **{"color": "0.3", "width": 0.003, **kwargs})
    size = arrows.norm(dim=-1, keepdim=True)
    arrows = 0.8 * cell * arrows / torch.where(size > 0, size, 1.0)
    style: dict[str, Any] = {"pivot": "mid", "units": "xy", "width": 0.07 * cell}
    style |= {"cmap": _COLOURS, "label": "length of the vector"}
    colours = () if {"color", "facecolor"} & kwargs.keys() else (drawn.lengths(points, vector).numpy(),)
    return _draw(ax, ends, arrows, *colours, **{**style, **kwargs})


def _checked(drawn: Picture, x: Array, u: Array) -> tuple[Tensor, Tensor]:
    """Returns checked points and tangent vectors in ambient coordinates, on the CPU in float64."""
    given, vector = tensor_of(x, "x"), tensor_of(u, "u")
    checks.check_floating("u", vector)
    points = drawn.checked(given, "x")
    if vector.shape != given.shape:
        raise ValueError(f"u has shape {tuple(vector.shape)} and x {tuple(given.shape)}; give each point its vector.")
    eps, vector = max(torch.finfo(value.dtype).eps for value in (given, vector)), vector.detach().cpu().double()
    # The projection moves a tangent vector only by rounding errors, up to |x|^2 / R^2 of them.
    error = (drawn.geometry.manifold.proju(points, vector) - vector).norm(dim=-1)
    wrong = error > 64 * eps * vector.norm(dim=-1) * (1 + (points.norm(dim=-1) / drawn.unit) ** 2)
    if bool(wrong.any()):
        raise ValueError(
            f"{int(wrong.sum())} of {wrong.numel()} vectors are not tangent, first {vector[wrong][0].tolist()} at "
            f"{points[wrong][0].tolist()}; project them with manifold.proju(x, u)."
        )
    return points, vector


def _draw(ax: Axes, ends: Tensor, arrows: Tensor, *colours: Any, **kwargs: Any) -> Quiver:
    (x, y), (u, v) = (value.reshape(-1, 2).unbind(-1) for value in (ends, arrows))
    style = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "zorder": Z.GEODESICS}
    return ax.quiver(x.numpy(), y.numpy(), u.numpy(), v.numpy(), *colours, **{**style, **kwargs})
