r"""Backgrounds: the disk with its boundary and a tiling, the plane, the globe, the square of a torus."""

import cmath
import math
from typing import Any

import numpy as np
import torch
from geoopt.manifolds.base import Manifold
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyro_hyperbolic.geometry import checks

from .choice import axes, picture, set_native
from .compact import Cut, Hemispheres, Mollweide, Square
from .marks import draw_lines
from .pictures import Disk, Extent, Native, Z

__all__ = ["frame", "globe", "native_disk", "plane", "poincare_disk", "torus_square"]


#: Tilings, meridians and parallels.
_GRID: dict[str, Any] = {"color": "0.87", "linewidth": 0.5, "zorder": Z.TILING}


def frame(ax: Axes | None, manifold: Manifold, **kwargs: Any) -> list[Artist]:
    r"""Draws the background: :func:`poincare_disk`, :func:`plane`, :func:`globe` or :func:`torus_square`.

    Args:
        ax: Axes to draw on; None is pyplot's current axes.
        manifold: ``geoopt.Lorentz``, ``PoincareBall``, ``Euclidean(1)`` or ``Sphere``, or ``ph.manifolds.Torus(2)``.
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
    ax = axes(ax)
    drawn = picture(ax, manifold)
    if isinstance(drawn, (Hemispheres, Mollweide)):
        return globe(ax, manifold, **kwargs)
    if isinstance(drawn, Square):
        return torus_square(ax, manifold, **kwargs)
    return poincare_disk(ax, manifold, **kwargs) if math.isfinite(drawn.radius) else plane(ax, **kwargs)


def poincare_disk(
    ax: Axes | None, manifold: Manifold, *, tiling: tuple[int, int] | None = None, **kwargs: Any
) -> list[Artist]:
    r"""Draws the boundary circle of radius :math:`\sqrt k` on axes of equal aspect without ticks.

    Args:
        ax: Axes to draw on; their limits are set. None is pyplot's current axes.
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
    ax = axes(ax)
    drawn = picture(ax, manifold)
    if not isinstance(drawn, Disk) or not math.isfinite(radius := drawn.radius):
        raise TypeError(f"the disk shows hyperbolic planes, but the manifold is {manifold!r}; use plane or frame.")
    circle = Circle((0.0, 0.0), radius, facecolor="none", edgecolor="0.25", linewidth=1.0, zorder=Z.BOUNDARY)
    circle.set(**kwargs)
    artists: list[Artist] = [ax.add_patch(circle)]
    if tiling is not None:
        p, q = (radius * ends for ends in _tiling(*tiling))
        artists.append(draw_lines(ax, list(drawn.arcs(p, q, 16).numpy()), **_GRID))
    # The margin holds half of the boundary line.
    ax.set(xlim=(-1.01 * radius, 1.01 * radius), ylim=(-1.01 * radius, 1.01 * radius), aspect="equal")
    ax.set_axis_off()
    return artists


def native_disk(
    ax: Axes | None, manifold: Manifold, radius: float = 10.0, *, step: float | None = None, **kwargs: Any
) -> list[Artist]:
    r"""Draws circles :math:`d(o, x) = j \cdot \text{step}` of normal coordinates, in which radius is distance.

    In the Poincaré disk all points farther than a few radii are on the rim. Here depth is seen as it is, and angles at
    the origin too; elsewhere lengths across are shortened, by the factor :math:`\sinh(r) / r`. Geodesics between far
    points run towards the origin, and back. Points, trees, geodesics, densities and arrows that are drawn on these axes
    afterwards follow.

    Args:
        ax: Axes to draw on; their limits are set. None is pyplot's current axes.
        manifold: ``geoopt.Lorentz``, ``geoopt.PoincareBall`` or ``geoopt.Euclidean(1)``, where it is the plane.
        radius: The distance from the origin that is shown.
        step: Distance between circles; by default a round number, about a quarter of the radius.
        **kwargs: For the circles, a LineCollection.

    Returns:
        The LineCollection of circles, and their labels.

    Raises:
        TypeError: If the manifold is none of these.
        ValueError: If ``radius`` or ``step`` is not positive.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax, M = Figure().subplots(), geoopt.Lorentz()
        >>> circles, *labels = native_disk(ax, M, 10.0)
        >>> [label.get_text() for label in labels]
        ['2', '4', '6', '8', '10']
        >>> from pyro_hyperbolic.viz import points
        >>> torch.tensor(points(ax, M, geometry.exp0(M, torch.tensor([3.0, 4.0]))).get_offsets())
        tensor([[3.0000, 4.0000]], dtype=torch.float64)
    """
    ax = axes(ax)
    radius = checks.check_number("radius", radius, "it is the distance from the origin that is shown", above=0)
    if step is None:
        levels = np.asarray(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, radius))
    else:
        step = checks.check_number("step", step, "it is a distance", above=0)
        levels = step * np.arange(1, radius / step + 1)
    if not isinstance(picture(ax, manifold), Disk | Native):
        raise TypeError(f"the disk shows hyperbolic planes, but the manifold is {manifold!r}; use frame.")
    set_native(ax, radius)
    # 3 * 0.1 rounds to more than 0.3.
    levels = levels[(levels > 0) & (levels <= radius * (1 + 64 * np.finfo(float).eps))]
    turn = np.linspace(0, 2 * math.pi, 361)
    unit = np.stack([np.cos(turn), np.sin(turn)], -1)
    circles: list[Artist] = [draw_lines(ax, [level * unit for level in levels], **{**_GRID, **kwargs})]
    style: dict[str, Any] = {"color": "0.5", "fontsize": "x-small", "ha": "center", "va": "center", "zorder": Z.TILING}
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    labels = [ax.text(0, level, f"{level:g}", bbox=box, **style) for level in levels]
    ax.set(xlim=(-1.03 * radius, 1.03 * radius), ylim=(-1.03 * radius, 1.03 * radius), aspect="equal")
    ax.set_axis_off()
    return circles + labels


def plane(ax: Axes | None, *, extent: Extent | None = None) -> list[Artist]:
    r"""Gives axes equal aspect and a light frame without ticks; the counterpart of :func:`poincare_disk` for the plane.

    Args:
        ax: Axes to draw on; None is pyplot's current axes.
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
    ax = axes(ax)
    if extent is not None:
        ax.set(xlim=extent[:2], ylim=extent[2:])
    ax.set(xticks=[], yticks=[], aspect="equal")
    spines: list[Artist] = list(ax.spines.values())
    for spine in spines:
        spine.set(edgecolor="0.75", linewidth=0.8)
    return spines


def globe(ax: Axes | None, manifold: Manifold, *, step: float = 30.0, **kwargs: Any) -> list[Artist]:
    r"""Draws the boundary and the meridians and parallels of the sphere :math:`S^2`, in an equal-area map.

    Two hemispheres side by side, western longitudes on the left, each Lambert's map :math:`\sqrt{2 / (1 + |x_1|)}` of
    the other two coordinates. They meet at :math:`x_0 = 1`, longitude 0; north, :math:`x_2`, is up. On axes of
    matplotlib's Mollweide projection, made by ``figure.add_subplot(projection="mollweide")``, one ellipse instead.
    Points, densities, geodesics and arrows follow the axes.

    Args:
        ax: Axes to draw on; their limits are set. None is pyplot's current axes.
        manifold: ``geoopt.Sphere``.
        step: Degrees between meridians and between parallels.
        **kwargs: For the boundary, a patch.

    Returns:
        The boundary circles, or the ellipse, and the LineCollection of meridians and parallels.

    Raises:
        TypeError: If the manifold is not the sphere.
        ValueError: If ``step`` is not positive.

    Example:
        Areas are true: each circle has half of 4 pi.

        >>> from matplotlib.figure import Figure
        >>> west, east, grid = globe(Figure().subplots(), geoopt.Sphere())
        >>> round(west.radius**2, 4)
        2.0
    """
    ax = axes(ax)
    drawn = picture(ax, manifold)
    if not isinstance(drawn, (Hemispheres, Mollweide)):
        raise TypeError(f"the globe shows the sphere, but the manifold is {manifold!r}; use frame.")
    checks.check_number("step", step, "it is in degrees", above=0)
    if isinstance(drawn, Mollweide):
        ax.set(xticks=[], yticks=[])
        boundary: list[Any] = [ax.spines["geo"]]
    else:
        boundary = [ax.add_patch(Circle(tuple(centre), drawn.radius)) for centre in drawn.centres.tolist()]
        left, right, bottom, top = (1.01 * side for side in drawn.extent(ax))  # the margin holds half of the line
        ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
        ax.set_axis_off()
    for patch in boundary:
        patch.set(**{"facecolor": "none", "edgecolor": "0.25", "linewidth": 1.0, "zorder": Z.BOUNDARY, **kwargs})
    return [*boundary, draw_lines(ax, _graticule(drawn, math.radians(step)), **_GRID)]


def _graticule(drawn: Cut, step: float) -> list[np.ndarray]:
    """Returns meridians, which avoid the seams, and parallels."""
    # NumPy's arange is empty where a step leads beyond the end.
    ends = (math.pi, math.pi / 2)
    longitude, latitude = (torch.from_numpy(np.arange(step, end - step / 2, step)) for end in ends)
    latitude = torch.cat([-latitude, latitude.new_zeros(1), latitude])
    fixed = torch.cat([longitude, -longitude, longitude.new_zeros(1), latitude]).unsqueeze(-1)
    upwards = (torch.arange(len(fixed)) < len(fixed) - len(latitude)).unsqueeze(-1)

    def curve(i: Tensor, f: Tensor) -> Tensor:
        # Parallels start and end just inside of the far seam.
        turn = torch.where(upwards[i], fixed[i], (2 * f - 1) * (math.pi - 1e-9))
        phi = torch.where(upwards[i], (f - 0.5) * math.pi, fixed[i])
        return torch.cat([phi.cos() * turn.cos(), phi.cos() * turn.sin(), phi.sin()], dim=-1)

    return drawn.curves(curve, len(fixed), 65)


def torus_square(ax: Axes | None, manifold: Manifold, **kwargs: Any) -> list[Artist]:
    r"""Draws the square :math:`[-\pi, \pi]^2` of the angles of a torus, with marks on the sides that are glued.

    Sides with one arrowhead are the same line, and so are those with two.

    Args:
        ax: Axes to draw on; their limits and ticks are set. None is pyplot's current axes.
        manifold: ``ph.manifolds.Torus(2)``.
        **kwargs: For the spines.

    Returns:
        The four spines, the marks, and the LineCollection of grid lines at multiples of pi / 2.

    Raises:
        TypeError: If the manifold is not a torus.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax = Figure().subplots()
        >>> _ = torus_square(ax, ph.manifolds.Torus(2))
        >>> [label.get_text() for label in ax.get_xticklabels()]
        ['−π', '0', 'π']
    """
    ax = axes(ax)
    if not isinstance(picture(ax, manifold), Square):
        raise TypeError(f"the square shows a torus, but the manifold is {manifold!r}; use frame.")
    ticks, labels = [-math.pi, 0.0, math.pi], ["−π", "0", "π"]
    side = (-math.pi, math.pi)
    ax.set(xlim=side, ylim=side, aspect="equal", xticks=ticks, yticks=ticks, xticklabels=labels, yticklabels=labels)
    for spine in ax.spines.values():
        spine.set(**{"edgecolor": "0.25", "linewidth": 1.0, "zorder": Z.BOUNDARY, **kwargs})
    middle = math.pi / 2
    marks = {">": [(middle, end) for end in side], "^": [(end, middle + off) for end in side for off in (-0.13, 0.13)]}
    style: dict[str, Any] = {
        "linestyle": "none",
        "color": "0.25",
        "clip_on": False,
        "zorder": Z.BOUNDARY,
    }
    heads = [ax.plot(*np.transpose(places), marker=shape, **style)[0] for shape, places in marks.items()]
    ups = [np.array([(at, -math.pi), (at, math.pi)]) for at in (-middle, 0.0, middle)]
    lines = ups + [up[:, ::-1] for up in ups]
    return [*ax.spines.values(), *heads, draw_lines(ax, lines, **_GRID)]


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
