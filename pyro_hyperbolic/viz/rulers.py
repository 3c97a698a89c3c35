r"""Rulers: what a length is in a picture, and which points its rim hides."""

import math
from typing import Any

import numpy as np
import torch
from geoopt.manifolds.base import Manifold
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from pyro_hyperbolic.geometry import checks

from .choice import axes, picture
from .marks import draw_lines
from .pictures import Array, Disk, Native, Z

__all__ = ["rim_ticks", "scale_bar"]

#: Half of the length of a tick, over the radius of the disk; also the least distance between ticks and from the rim.
_TICK = 0.018
#: Points that are drawn farther out, over the radius, look as if they were on the boundary: those beyond 6 radii.
_RIM = 0.995


def scale_bar(
    ax: Axes | None, manifold: Manifold, length: float = 1.0, *, angle: float = -90.0, **kwargs: Any
) -> list[Artist]:
    r"""Draws a geodesic from the origin to the rim with ticks at distances :math:`j \cdot \text{length}`.

    It shows how long a distance is anywhere in the disk, and that the rim, labelled ∞, is infinitely far. In the plane
    it is one bar of this length, at the lower left of the current limits.

    Args:
        ax: Axes to draw on; None is pyplot's current axes.
        manifold: ``geoopt.Lorentz``, ``geoopt.PoincareBall`` or ``geoopt.Euclidean(1)``.
        length: Distance between ticks.
        angle: Direction of the geodesic in degrees, anticlockwise; 0 is to the right.
        **kwargs: For the LineCollection.

    Returns:
        The LineCollection of the geodesic and its ticks, and their labels.

    Raises:
        TypeError: If the manifold is none of these; the globe and the torus show their scales.
        ValueError: If ``length`` is not positive, or makes hundreds of ticks.

    Example:
        At distance 1 the disk has radius tanh(1/2), and beyond 3 no room for a tick:

        >>> from matplotlib.figure import Figure
        >>> ax, M = Figure().subplots(), geoopt.Lorentz()
        >>> lines, *labels = scale_bar(ax, M, angle=0.0)
        >>> [label.get_text() for label in labels]
        ['1', '2', '3', '∞']
        >>> torch.tensor(lines.get_segments()[1]).mean(0)  # the first tick
        tensor([0.4621, 0.0000], dtype=torch.float64)
    """
    ax = axes(ax)
    drawn = picture(ax, manifold)
    length = checks.check_number("length", length, "it is a distance", above=0)
    if not isinstance(drawn, Disk | Native):
        raise TypeError(
            f"a scale bar needs a disk or a plane, but the manifold is {manifold!r}; frame draws its scale."
        )
    style: dict[str, Any] = {"color": "0.35", "linewidth": 1.0, "zorder": Z.REGIONS, "label": "_scale", **kwargs}
    text: dict[str, Any] = {"color": "0.35", "fontsize": "x-small", "ha": "center", "va": "center", "zorder": Z.REGIONS}
    if not math.isfinite(drawn.radius):
        left, right, bottom, top = drawn.extent(ax)
        side = _TICK * (top - bottom)
        start = np.array([left + 3 * _TICK * (right - left), bottom + 3 * side])
        end, up = start + np.array([length, 0.0]), np.array([0.0, side])
        lines = [np.stack(pair) for pair in ((start, end), (start - up, start + up), (end - up, end + up))]
        x, y = (start + end) / 2 + 2 * up
        label = ax.text(x, y, f"{length:g}", **{**text, "va": "bottom"})
        return [draw_lines(ax, lines, **style), label]
    turn = math.radians(angle)
    along, across = np.array([math.cos(turn), math.sin(turn)]), np.array([-math.sin(turn), math.cos(turn)])
    # In the disk |p| = R tanh(r / 2 R), otherwise r; the last tick is before the rim.
    native = isinstance(drawn, Native)
    last = drawn.radius * (1.0 if native else 2 * math.atanh(1 - 2 * _TICK))
    if last / length > 200:
        raise ValueError(f"length = {length:g} makes {last / length:.0f} ticks; choose a larger one.")
    distances = length * np.arange(1, math.floor(last / length * (1 + 4 * np.finfo(float).eps)) + 1)
    at = distances if native else drawn.radius * np.tanh(distances / (2 * drawn.radius))
    side = _TICK * drawn.radius
    ticks = [np.stack([r * along - side * across, r * along + side * across]) for r in at]
    line = np.stack([0 * along, drawn.radius * along])
    places = [r * along + 3 * side * across for r in at]
    words = [f"{r:g}" for r in distances]
    if not native:
        places, words = [*places, (drawn.radius + 3 * side) * along], [*words, "∞"]
    labels = [ax.text(x, y, word, **text) for (x, y), word in zip(places, words, strict=True)]
    return [draw_lines(ax, [line, *ticks], **style), *labels]


def rim_ticks(ax: Axes | None, manifold: Manifold, x: Array, **kwargs: Any) -> LineCollection:
    r"""Draws a tick outside the boundary for each point that is drawn on it, beyond 99.5% of the radius.

    In the Poincaré disk these are the points farther than :math:`6 \sqrt k` from the origin: they look alike, whether
    at 6 or at 60. :func:`native_disk` shows them apart, and there ticks are those of points beyond its radius.

    Args:
        ax: Axes to draw on; None is pyplot's current axes.
        manifold: ``geoopt.Lorentz`` or ``geoopt.PoincareBall``.
        x: Points, shape ``(*, 3)`` on ``Lorentz``, else ``(*, 2)``.
        **kwargs: For the LineCollection.

    Returns:
        The LineCollection, one line for each such point.

    Raises:
        TypeError: If the manifold is neither.
        ValueError: If ``n`` is not 2 or, while validating, a point is off the manifold.

    Example:
        >>> from matplotlib.figure import Figure
        >>> M = geoopt.Lorentz()
        >>> x = geometry.exp0(M, torch.tensor([[1.0, 0.0], [5.0, 0.0], [8.0, 0.0]]))
        >>> len(rim_ticks(Figure().subplots(), M, x).get_segments())
        1
    """
    ax = axes(ax)
    drawn = picture(ax, manifold)
    if not isinstance(drawn, Disk | Native) or not math.isfinite(drawn.radius):
        raise TypeError(f"only disks have a rim that hides points, but the manifold is {manifold!r}.")
    p = drawn.place(drawn.checked(x, "x")).reshape(-1, 2)
    r = p.norm(dim=-1, keepdim=True)
    beyond = r.squeeze(-1) >= _RIM * drawn.radius
    outwards = (p / r)[beyond]
    ticks = torch.stack([f * drawn.radius * outwards for f in (1 + _TICK / 2, 1 + 2 * _TICK)], dim=1)
    style = {"color": "0.2", "linewidth": 1.2, "clip_on": False, "zorder": Z.POINTS, **kwargs}
    return draw_lines(ax, list(ticks.numpy()), **style)
