r"""What belongs behind a picture: the disk with its boundary and a tiling, or the plane."""

import cmath
import math
from typing import Any

import geoopt
import torch
from geoopt.manifolds.base import Manifold
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from torch import Tensor

from pyro_hyperbolic import charts

from .marks import geodesics
from .pictures import Z, is_disk, on_cpu

__all__ = ["frame", "plane", "poincare_disk"]


def frame(ax: Axes, manifold: Manifold, **kwargs: Any) -> list[Artist]:
    r"""Draws what belongs behind a picture of the manifold: :func:`poincare_disk` or :func:`plane`.

    Args:
        ax: Axes to draw on.
        manifold: ``geoopt.Lorentz`` or ``geoopt.Euclidean(1)``.
        **kwargs: Passed on.

    Returns:
        The artists.

    Raises:
        TypeError: If the manifold is neither.

    Example:
        >>> from matplotlib.figure import Figure
        >>> [frame(Figure().subplots(), M)[0].axes.get_aspect() for M in (geoopt.Lorentz(), geoopt.Euclidean(1))]
        [1.0, 1.0]
    """
    return poincare_disk(ax, manifold, **kwargs) if is_disk(manifold) else plane(ax, **kwargs)


def poincare_disk(
    ax: Axes, manifold: geoopt.Lorentz, *, tiling: tuple[int, int] | None = None, **kwargs: Any
) -> list[Artist]:
    r"""Draws the boundary circle of radius :math:`\sqrt k` on axes of equal aspect without ticks.

    Args:
        ax: Axes to draw on; its limits are set.
        manifold: A ``geoopt.Lorentz``.
        tiling: A pair ``(p, q)`` for a light background of geodesics, the tiling by regular p-gons of which q meet in
            each vertex: (3, 7), (4, 5), (5, 4), (7, 3) are coarse to fine enough. ``1/p + 1/q < 1/2``.
        **kwargs: For the boundary, a ``matplotlib.patches.Circle``.

    Returns:
        The circle and, if there is a tiling, its LineCollection.

    Raises:
        TypeError: If the manifold is not a ``geoopt.Lorentz``.
        ValueError: If ``k`` is not one positive number, or the tiling is not hyperbolic.

    Example:
        >>> from matplotlib.figure import Figure
        >>> circle, grid = poincare_disk(Figure().subplots(), geoopt.Lorentz(k=4.0), tiling=(4, 5))
        >>> circle.radius
        2.0
    """
    if not is_disk(manifold):
        raise TypeError(
            f"the Poincaré disk shows geoopt.Lorentz, but the manifold is {manifold!r}; use plane or frame."
        )
    drawn = on_cpu(manifold)
    radius = drawn.k.sqrt().item()
    circle = Circle((0.0, 0.0), radius, facecolor="none", edgecolor="0.25", linewidth=1.0, zorder=Z.BOUNDARY)
    circle.set(**kwargs)
    artists: list[Artist] = [ax.add_patch(circle)]
    if tiling is not None:
        x, y = (charts.from_poincare_ball(drawn, radius * ends) for ends in _tiling(*tiling))
        artists.append(geodesics(ax, drawn, x, y, samples=16, color="0.87", linewidth=0.5, zorder=Z.TILING))
    # Room for the width of the boundary line.
    ax.set(xlim=(-1.01 * radius, 1.01 * radius), ylim=(-1.01 * radius, 1.01 * radius), aspect="equal")
    ax.set_axis_off()
    return artists


def plane(ax: Axes, *, extent: tuple[float, float, float, float] | None = None) -> list[Artist]:
    r"""Gives axes equal aspect and a light frame without ticks, the plane's counterpart of :func:`poincare_disk`.

    Args:
        ax: Axes to draw on.
        extent: Limits ``(left, right, bottom, top)``; they follow the data by default.

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
    """Returns the ends of the edges of {p, q} in the unit disk, ``(E, 2)`` each, as far out as they are visible."""
    if p < 3 or q < 3 or (p - 2) * (q - 2) <= 4:
        raise ValueError(f"tiling = {(p, q)}, but {{p, q}} tiles the hyperbolic plane if 1/p + 1/q < 1/2; try (3, 7).")

    def around(cosh: float, offset: float) -> list[complex]:
        tanh = math.sqrt((cosh - 1) / (cosh + 1))  # of half the distance from the centre
        return [cmath.rect(tanh, 2 * math.pi * (j + offset) / p + math.pi / 2) for j in range(p)]

    def key(z: complex) -> tuple[int, int]:
        return round(1e6 * z.real), round(1e6 * z.imag)

    corners = around(1 / (math.tan(math.pi / p) * math.tan(math.pi / q)), 0.0)
    middles = around(math.cos(math.pi / q) / math.sin(math.pi / p), 0.5)
    # A tile is the isometry z -> (a z + b) / (b* z + a*) that carries the central tile to it, as (a, b); the half-turns
    # about the middles of the edges carry it to its neighbours.
    half_turns = [(1j * (1 + abs(m) ** 2) / (1 - abs(m) ** 2), -2j * m / (1 - abs(m) ** 2)) for m in middles]
    tiles, edges, queue = {key(0j)}, {}, [(1 + 0j, 0j)]
    while queue:
        a, b = queue.pop()
        ends = [(a * z + b) / (b.conjugate() * z + a.conjugate()) for z in (*corners, corners[0])]
        for j, (s, t) in enumerate(half_turns):
            a2, b2 = a * s + b * t.conjugate(), a * t + b * s.conjugate()
            edges[key((a * middles[j] + b) / (b.conjugate() * middles[j] + a.conjugate()))] = ends[j], ends[j + 1]
            centre = b2 / a2.conjugate()
            # Further out, tiles are smaller than the lines that draw them.
            if abs(centre) < 0.98 and key(centre) not in tiles:
                tiles.add(key(centre))
                queue.append((a2, b2))
    x, y = torch.view_as_real(torch.tensor(list(edges.values()), dtype=torch.complex128)).unbind(1)
    return x, y
