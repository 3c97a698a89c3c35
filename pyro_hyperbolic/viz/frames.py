r"""Backgrounds: the disk with its boundary and a tiling, or the plane."""

import cmath
import math
from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from torch import Tensor

from .marks import draw_arcs
from .pictures import Extent, Z, picture

__all__ = ["frame", "plane", "poincare_disk"]


def frame(ax: Axes, manifold: Manifold, **kwargs: Any) -> list[Artist]:
    r"""Draws the background of a picture of the manifold: :func:`poincare_disk` or :func:`plane`.

    Args:
        ax: Axes to draw on.
        manifold: ``geoopt.Lorentz``, ``geoopt.PoincareBall`` or ``geoopt.Euclidean(1)``.
        **kwargs: For that function.

    Returns:
        The artists.

    Raises:
        TypeError: If the manifold is none of these.

    Example:
        >>> from matplotlib.figure import Figure
        >>> [frame(Figure().subplots(), M)[0].axes.get_aspect() for M in (geoopt.Lorentz(), geoopt.Euclidean(1))]
        [1.0, 1.0]
    """
    return poincare_disk(ax, manifold, **kwargs) if math.isfinite(picture(manifold).radius) else plane(ax, **kwargs)


def poincare_disk(
    ax: Axes, manifold: Manifold, *, tiling: tuple[int, int] | None = None, **kwargs: Any
) -> list[Artist]:
    r"""Draws the boundary circle of radius :math:`\sqrt k` on axes of equal aspect without ticks.

    Args:
        ax: Axes to draw on; their limits are set.
        manifold: ``geoopt.Lorentz`` or ``geoopt.PoincareBall``.
        tiling: A pair ``(p, q)`` with ``1/p + 1/q < 1/2`` adds the tiling by regular p-gons, q at each vertex, in light
            grey. (3, 7), (4, 5), (5, 4) and (7, 3) look good.
        **kwargs: For the boundary, a ``matplotlib.patches.Circle``.

    Returns:
        The circle and the LineCollection of the tiling, if any.

    Raises:
        TypeError: If the manifold is neither.
        ValueError: If ``k`` is not one positive number, or the tiling is not hyperbolic.

    Example:
        >>> from matplotlib.figure import Figure
        >>> circle, grid = poincare_disk(Figure().subplots(), geoopt.Lorentz(k=4.0), tiling=(4, 5))
        >>> circle.radius
        2.0
    """
    drawn = picture(manifold)
    if not math.isfinite(radius := drawn.radius):
        raise TypeError(f"the disk shows hyperbolic planes, but the manifold is {manifold!r}; use plane or frame.")
    circle = Circle((0.0, 0.0), radius, facecolor="none", edgecolor="0.25", linewidth=1.0, zorder=Z.BOUNDARY)
    circle.set(**kwargs)
    artists: list[Artist] = [ax.add_patch(circle)]
    if tiling is not None:
        p, q = (radius * ends for ends in _tiling(*tiling))
        artists.append(draw_arcs(ax, drawn, p, q, 16, color="0.87", linewidth=0.5, zorder=Z.TILING))
    # The margin holds half of the boundary line.
    ax.set(xlim=(-1.01 * radius, 1.01 * radius), ylim=(-1.01 * radius, 1.01 * radius), aspect="equal")
    ax.set_axis_off()
    return artists


def plane(ax: Axes, *, extent: Extent | None = None) -> list[Artist]:
    r"""Gives axes equal aspect and a light frame without ticks; the counterpart of :func:`poincare_disk` for the plane.

    Args:
        ax: Axes to draw on.
        extent: Limits ``(left, right, bottom, top)``; by default they follow the data.

    Returns:
        The four spines.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax = Figure().subplots()
        >>> spines = plane(ax, extent=(-3, 3, -2, 2))
        >>> tuple(float(limit) for limit in ax.get_xlim())
        (-3.0, 3.0)
    """
    if extent is not None:
        ax.set(xlim=extent[:2], ylim=extent[2:])
    ax.set(xticks=[], yticks=[], aspect="equal")
    spines: list[Artist] = list(ax.spines.values())
    for spine in spines:
        spine.set(edgecolor="0.75", linewidth=0.8)
    return spines


def _tiling(p: int, q: int) -> tuple[Tensor, Tensor]:
    """Returns the ends of the visible edges of the tiling {p, q} in the unit disk, ``(E, 2)`` each."""
    if p < 3 or q < 3 or (p - 2) * (q - 2) <= 4:
        raise ValueError(f"tiling = {(p, q)}, but {{p, q}} tiles the hyperbolic plane if 1/p + 1/q < 1/2; try (3, 7).")

    def around(cosh: float, offset: float) -> list[complex]:
        tanh = math.sqrt((cosh - 1) / (cosh + 1))  # of half the distance from the centre
        return [cmath.rect(tanh, 2 * math.pi * (j + offset) / p + math.pi / 2) for j in range(p)]

    def key(z: complex) -> tuple[int, int]:
        return round(1e6 * z.real), round(1e6 * z.imag)

    corners = around(1 / (math.tan(math.pi / p) * math.tan(math.pi / q)), 0.0)
    middles = around(math.cos(math.pi / q) / math.sin(math.pi / p), 0.5)
    # A tile is stored as (a, b), the isometry z -> (a z + b) / (b* z + a*) that carries the central tile to it.
    # Half-turns about the middles of the edges carry a tile to its neighbours.
    half_turns = [(1j * (1 + abs(m) ** 2) / (1 - abs(m) ** 2), -2j * m / (1 - abs(m) ** 2)) for m in middles]
    tiles, edges, queue = {key(0j)}, {}, [(1 + 0j, 0j)]
    while queue:
        a, b = queue.pop()
        ends = [(a * z + b) / (b.conjugate() * z + a.conjugate()) for z in (*corners, corners[0])]
        for j, (s, t) in enumerate(half_turns):
            a2, b2 = a * s + b * t.conjugate(), a * t + b * s.conjugate()
            edges[key((a * middles[j] + b) / (b.conjugate() * middles[j] + a.conjugate()))] = ends[j], ends[j + 1]
            centre = b2 / a2.conjugate()
            # Further out, tiles are smaller than the line width.
            if abs(centre) < 0.98 and key(centre) not in tiles:
                tiles.add(key(centre))
                queue.append((a2, b2))
    x, y = torch.view_as_real(torch.tensor(list(edges.values()), dtype=torch.complex128)).unbind(1)
    return x, y
