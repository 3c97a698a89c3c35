r"""Pictures in the Poincaré disk, and in the plane for ``geoopt.Euclidean(1)``.

Every function draws on the ``ax`` it is given and returns the artists; none shows a figure or touches global settings,
and all dispatch on the manifold, so that one script draws hyperbolic and Euclidean models alike. The disk has radius
:math:`\sqrt k` in data coordinates. Drawing is on the CPU in float64, and nothing keeps a gradient.

Needs matplotlib: ``pip install pyro-hyperbolic[viz]``.
"""

import cmath
import math
from collections.abc import Callable
from typing import Any

import geoopt
import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic import charts, geometry
from pyro_hyperbolic.geometry import checks

try:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.collections import LineCollection, PathCollection, QuadMesh
    from matplotlib.patches import Circle
except ImportError as error:
    raise ImportError("pyro_hyperbolic.viz needs matplotlib: pip install pyro-hyperbolic[viz]") from error

__all__ = ["density", "frame", "geodesics", "plane", "poincare_disk", "points", "tree"]

# From back to front. Matplotlib's own patches are at 1 and lines at 2.
_DENSITY, _TILING, _GEODESICS, _POINTS, _BOUNDARY = 0.5, 0.7, 1.5, 2.5, 3.0


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
    return poincare_disk(ax, manifold, **kwargs) if _is_disk(manifold) else plane(ax, **kwargs)


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
    if not _is_disk(manifold):
        raise TypeError(
            f"the Poincaré disk shows geoopt.Lorentz, but the manifold is {manifold!r}; use plane or frame."
        )
    drawn = _drawn(manifold)
    radius = drawn.k.sqrt().item()
    circle = Circle((0.0, 0.0), radius, facecolor="none", edgecolor="0.25", linewidth=1.0, zorder=_BOUNDARY)
    circle.set(**kwargs)
    artists: list[Artist] = [ax.add_patch(circle)]
    if tiling is not None:
        x, y = (charts.from_poincare_ball(drawn, radius * ends) for ends in _tiling(*tiling))
        artists.append(geodesics(ax, drawn, x, y, samples=16, color="0.87", linewidth=0.5, zorder=_TILING))
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


def points(ax: Axes, manifold: Manifold, x: Tensor, **kwargs: Any) -> PathCollection:
    r"""Draws points of the hyperbolic plane at :math:`p = x_s / (1 + x_0/\sqrt k)`, or of the Euclidean plane.

    Args:
        ax: Axes to draw on.
        manifold: ``geoopt.Lorentz`` or ``geoopt.Euclidean(1)``.
        x: Points, shape ``(*, 3)``, or ``(*, 2)`` in the plane; batch dimensions are flattened.
        **kwargs: For ``ax.scatter``.

    Returns:
        The PathCollection.

    Raises:
        TypeError: If the manifold is neither, or ``x`` is not a floating point tensor.
        ValueError: If ``n`` is not 2 or, while validating, a point is off the manifold.

    Example:
        >>> from matplotlib.figure import Figure
        >>> M = geoopt.Lorentz()
        >>> artist = points(Figure().subplots(), M, torch.tensor([1.25, 0.75, 0.0]))
        >>> torch.tensor(artist.get_offsets())
        tensor([[0.3333, 0.0000]], dtype=torch.float64)
    """
    p = _picture(manifold, _points(manifold, x, "x")).reshape(-1, 2).numpy()
    kwargs = normalize_kwargs(kwargs, PathCollection)
    # Dots without an outline, unless one is asked for or the marker is nothing but outline, as "x" is.
    outline = {} if {"linewidth", "edgecolor", "marker"} & kwargs.keys() else {"linewidth": 0.0}
    return ax.scatter(p[:, 0], p[:, 1], **{"s": 12.0, "zorder": _POINTS, **outline, **kwargs})


def geodesics(
    ax: Axes, manifold: Manifold, x: Tensor, y: Tensor, *, samples: int = 65, **kwargs: Any
) -> LineCollection:
    r"""Draws the geodesic arcs from each ``x`` to each ``y``, circular arcs orthogonal to the boundary of the disk.

    Their vertices are evenly spaced in the picture within a factor of two, wherever the end points lie: on the
    boundary too, as far as the dtype tells it from the inside.

    Args:
        ax: Axes to draw on.
        manifold: ``geoopt.Lorentz`` or ``geoopt.Euclidean(1)``.
        x: Points, shape ``(*, 3)``, or ``(*, 2)`` in the plane.
        y: Points of a shape that broadcasts with it.
        samples: Vertices of each arc, at least 2.
        **kwargs: For the LineCollection.

    Returns:
        The LineCollection, one polyline for each pair.

    Raises:
        TypeError: If the manifold is neither, or a point is not a floating point tensor.
        ValueError: If ``n`` is not 2 or, while validating, a point is off the manifold.

    Example:
        The arc between the points at 0 and 90 degrees near the boundary keeps away from the origin by
        :math:`\sqrt 2 - 1`, since it is a quarter of the unit circle around (1, 1):

        >>> from matplotlib.figure import Figure
        >>> M = geoopt.Lorentz()
        >>> x, y = geometry.exp0(M, 15 * torch.eye(2))
        >>> arc = torch.tensor(geodesics(Figure().subplots(), M, x, y).get_segments()[0])
        >>> arc.norm(dim=-1).min()
        tensor(0.4142, dtype=torch.float64)
    """
    if samples < 2:
        raise ValueError(f"samples = {samples}, but an arc has at least its 2 end points.")
    x, y = torch.broadcast_tensors(_points(manifold, x, "x"), _points(manifold, y, "y"))
    lines = _picture(manifold, _arcs(manifold, x, y, samples)).reshape(-1, samples, 2).numpy()
    artist = LineCollection(list(lines), linewidth=1.0, zorder=_GEODESICS, capstyle="round")
    if kwargs.get("array") is None:  # a colour of its own would keep the collection from mapping the array to colours
        artist.set(color="0.5")
    artist.set(**kwargs)
    ax.add_collection(artist)
    ax.autoscale_view()
    return artist


def tree(ax: Axes, manifold: Manifold, x: Tensor, edges: Tensor, **kwargs: Any) -> LineCollection:
    r"""Draws the edges of a tree, or of any graph, as geodesics between its embedded nodes.

    Args:
        ax: Axes to draw on.
        manifold: ``geoopt.Lorentz`` or ``geoopt.Euclidean(1)``.
        x: Nodes, shape ``(N, 3)``, or ``(N, 2)`` in the plane.
        edges: Pairs of indices into ``x``, shape ``(E, 2)``, an integer tensor.
        **kwargs: For :func:`geodesics`.

    Returns:
        The LineCollection, one polyline for each edge. Draw the nodes with :func:`points`.

    Raises:
        TypeError: If the manifold is neither, or ``x`` is not a floating point tensor.
        ValueError: If ``n`` is not 2, ``edges`` are not pairs of indices or, while validating, a node is off the
            manifold.

    Example:
        >>> from matplotlib.figure import Figure
        >>> M = geoopt.Lorentz()
        >>> x = geometry.exp0(M, torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
        >>> len(tree(Figure().subplots(), M, x, torch.tensor([[0, 1], [0, 2]])).get_segments())
        2
    """
    if edges.dim() != 2 or edges.size(-1) != 2 or edges.is_floating_point() or edges.dtype == torch.bool:
        raise ValueError(
            f"edges are {edges.dtype} of shape {tuple(edges.shape)}, but must be integer pairs (E, 2); "
            f"transpose a (2, E) edge_index."
        )
    if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < len(x):
        raise ValueError(
            f"edges name the nodes {int(edges.min())}..{int(edges.max())}, but x has {len(x)}, numbered from 0."
        )
    start, end = edges.to(x.device).unbind(-1)
    return geodesics(ax, manifold, x[start], x[end], **kwargs)


def density(
    ax: Axes,
    manifold: Manifold,
    log_prob: Callable[[Tensor], Tensor],
    *,
    extent: tuple[float, float, float, float] | None = None,
    resolution: int = 300,
    batch_size: int = 16384,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **kwargs: Any,
) -> QuadMesh:
    r"""Draws :math:`\exp(\texttt{log\_prob}(x))`, the density with respect to Riemannian volume, as a coloured mesh.

    Equal colours mean equal density on the manifold: a distribution far from the origin has the colours that it would
    have there, and only looks smaller. Cells outside of the disk are left blank; those cut by the boundary show the
    density just inside.

    Args:
        ax: Axes to draw on.
        manifold: ``geoopt.Lorentz`` or ``geoopt.Euclidean(1)``.
        log_prob: Maps points ``(B, 3)``, or ``(B, 2)`` in the plane, to ``(B)``; called without gradients.
        extent: ``(left, right, bottom, top)``; the whole disk, or the present limits of ``ax`` in the plane.
        resolution: Cells along each side.
        batch_size: Points in one call of ``log_prob``.
        dtype: Of the points; the default dtype if not given.
        device: Of the points.
        **kwargs: For ``ax.pcolormesh``, such as ``cmap``, ``vmax`` or ``norm``.

    Returns:
        The QuadMesh, which ``figure.colorbar`` takes.

    Raises:
        TypeError: If the manifold is neither.
        ValueError: If ``log_prob`` returns another shape, or NaN.

    Example:
        >>> from matplotlib.figure import Figure
        >>> M = geoopt.Lorentz()
        >>> normal = hdist.WrappedNormal(geometry.origin(M, 2), torch.ones(2), manifold=M)
        >>> mesh = density(Figure().subplots(), M, normal.log_prob, resolution=51)
        >>> torch.tensor(mesh.get_array().max())  # 1 / (2 pi) in the middle
        tensor(0.1592, dtype=torch.float64)
    """
    disk, drawn = _is_disk(manifold), _drawn(manifold)
    radius = drawn.k.sqrt().item() if disk else math.inf
    if extent is None:
        extent = (-radius, radius, -radius, radius) if disk else (*ax.get_xlim(), *ax.get_ylim())
    borders = [torch.linspace(*side, resolution + 1, dtype=torch.float64) for side in (extent[:2], extent[2:])]
    cell = max(float(border[1] - border[0]) for border in borders)
    centres = torch.stack(torch.meshgrid(*((b[1:] + b[:-1]) / 2 for b in borders), indexing="xy"), dim=-1)
    norms = centres.norm(dim=-1, keepdim=True)
    shown = norms.squeeze(-1) < radius + cell
    if disk:
        # A quarter of a cell inside, the time coordinate is finite in every dtype; the clip below cuts what sticks out.
        centres = centres * (radius * (1 - cell / radius / 4) / norms).clamp(max=1.0)
    x = charts.from_poincare_ball(drawn, centres[shown]) if disk else centres[shown]
    x = x.to(device=device, dtype=dtype or torch.get_default_dtype())
    values = torch.full(centres.shape[:-1], math.nan, dtype=torch.float64)
    with torch.no_grad():
        values[shown] = torch.cat([_log_density(log_prob, batch) for batch in x.split(batch_size)]).exp()
    style = {"cmap": "Blues", "zorder": _DENSITY, "rasterized": True} | ({} if "norm" in kwargs else {"vmin": 0.0})
    artist = ax.pcolormesh(*(border.numpy() for border in borders), values.numpy(), **{**style, **kwargs})
    if disk:
        artist.set_clip_path(Circle((0.0, 0.0), radius, transform=ax.transData))
    return artist


def _is_disk(manifold: Manifold) -> bool:
    if not isinstance(manifold, geoopt.Lorentz | geoopt.Euclidean):
        raise TypeError(f"viz draws geoopt.Lorentz and geoopt.Euclidean(1), but the manifold is {manifold!r}.")
    checks.check_manifold(manifold)
    return isinstance(manifold, geoopt.Lorentz)


def _drawn(manifold: Manifold) -> Manifold:
    """Returns the manifold on the CPU, in float64."""
    if not _is_disk(manifold):
        return manifold
    if manifold.k.numel() != 1:
        raise ValueError(
            f"k has shape {tuple(manifold.k.shape)}, but one picture shows one curvature; draw one by one."
        )
    return geoopt.Lorentz(k=manifold.k.detach().cpu().double().reshape(()))


def _points(manifold: Manifold, x: Tensor, name: str) -> Tensor:
    """Returns checked points of a two-dimensional manifold on the CPU, in float64."""
    disk = _is_disk(manifold)
    checks.check_points(manifold, x, name)
    n = x.size(-1) - 1 if disk else x.size(-1)
    if n != 2:
        remedy = (
            "geometry.exp0(M, geometry.log0(M, x)[..., :2]), two of the tangent coordinates"
            if n > 2 and disk
            else f"{name}[..., :2]"
            if n > 2
            else "a histogram of geometry.log0(M, x)"
        )
        raise ValueError(f"{name} has n = {n} dimensions, but a picture shows n = 2; draw {remedy}.")
    x = x.detach().cpu().double()
    return _lift(manifold, x[..., 1:]) if disk else x


def _lift(manifold: Manifold, space: Tensor) -> Tensor:
    """Returns the points with that spatial part: what is stored in float32 is not on the manifold to float64."""
    k = _drawn(manifold).k
    return torch.cat([torch.hypot(k.sqrt(), space.norm(dim=-1, keepdim=True)), space], dim=-1)


def _picture(manifold: Manifold, x: Tensor) -> Tensor:
    return charts.to_poincare_ball(_drawn(manifold), x) if _is_disk(manifold) else x


def _arcs(manifold: Manifold, x: Tensor, y: Tensor, samples: int) -> Tensor:
    r"""Returns points ``(*, samples, n + 1)`` on the geodesics, evenly spaced in the picture within a factor of 2.

    A point at distance s from x and L - s from y is a x + b y, a = sinh(L - s) / sinh(L), b = sinh(s) / sinh(L) (at
    k = 1). a and b are positive and the time coordinates add up, so the error is of the order of u times the time
    coordinate, and of u in the disk, at every radius. (T_x exp_o(t v) misses y by u exp(r), 0.02 at r = 32: the
    direction at x would need more digits.)

    The Euclidean distance of the points in the disk is 2 sinh(d/2) / sqrt((1 + x0) (1 + y0)). Asking of the distances
    to x and to y a ratio of f : 1 - f gives tanh(s/2) = beta S / (alpha + beta C) with S, C = sinh, cosh(L/2),
    alpha = (1 - f) sqrt(1 + y0), beta = f sqrt(1 + x0), and a, b as below. Exactly x and y at f = 0 and 1.
    """
    f = torch.linspace(0, 1, samples, dtype=torch.float64).unsqueeze(-1)
    x, y = x.unsqueeze(-2), y.unsqueeze(-2)
    if not _is_disk(manifold):
        return (1 - f) * x + f * y
    drawn = _drawn(manifold)
    radius = drawn.k.sqrt()
    sech = 1 / (geometry.distance(drawn, x, y) / (2 * radius)).cosh().unsqueeze(-1)
    alpha, beta = (1 - f) * (1 + y[..., :1] / radius).sqrt(), f * (1 + x[..., :1] / radius).sqrt()
    total = sech * (alpha**2 + beta**2) + 2 * alpha * beta
    a, b = sech * alpha * (alpha + beta * sech) / total, sech * beta * (beta + alpha * sech) / total
    return _lift(drawn, a * x[..., 1:] + b * y[..., 1:])


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


def _log_density(log_prob: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    value = log_prob(x)
    if value.shape != x.shape[:-1]:
        raise ValueError(
            f"log_prob maps points {tuple(x.shape)} to {tuple(value.shape)}, but must return {tuple(x.shape[:-1])}; "
            f"draw a batch of distributions one at a time."
        )
    if bool(value.isnan().any()):
        raise ValueError(
            f"log_prob is NaN at {int(value.isnan().sum())} points, first at {x[value.isnan()][0].tolist()}."
        )
    return value.detach().cpu().double()
