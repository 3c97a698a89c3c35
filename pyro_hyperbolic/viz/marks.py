r"""Points, geodesics and trees."""

from typing import Any

import numpy as np
import torch
from geoopt.manifolds.base import Manifold
from matplotlib.axes import Axes
from matplotlib.cbook import normalize_kwargs
from matplotlib.collections import LineCollection, PathCollection

from pyro_hyperbolic.geometry import checks

from .choice import axes, picture
from .pictures import Array, Z, tensor_of

__all__ = ["geodesics", "points", "tree"]


def points(ax: Axes | None, manifold: Manifold, x: Array, **kwargs: Any) -> PathCollection:
    r"""Draws points at :math:`p = x_s / (1 + x_0/\sqrt k)` in the disk, or in the plane.

    Args:
        ax: Axes to draw on; None is pyplot's current axes.
        manifold: ``geoopt.Lorentz``, ``PoincareBall``, ``Euclidean(1)`` or ``Sphere``, or ``ph.manifolds.Torus(2)``.
        x: Points, shape ``(*, 3)`` on ``Lorentz`` and ``Sphere``, else ``(*, 2)``; batch dimensions are flattened.
        **kwargs: For ``ax.scatter``.

    Returns:
        The PathCollection.

    Raises:
        TypeError: If the manifold is none of these, or ``x`` is not an array of floating point numbers.
        ValueError: If ``n`` is not 2 or, while validating, a point is off the manifold.

    Example:
        >>> from matplotlib.figure import Figure
        >>> M = geoopt.Lorentz()
        >>> artist = points(Figure().subplots(), M, torch.tensor([1.25, 0.75, 0.0]))
        >>> torch.tensor(artist.get_offsets())
        tensor([[0.3333, 0.0000]], dtype=torch.float64)
    """
    ax = axes(ax)
    drawn = picture(ax, manifold)
    p = drawn.place(drawn.checked(x, "x")).reshape(-1, 2).numpy()
    kwargs = normalize_kwargs(kwargs, PathCollection)
    # No outline, unless one is requested or the marker may be nothing else, such as "x".
    outline = {} if {"linewidth", "edgecolor", "marker"} & kwargs.keys() else {"linewidth": 0.0}
    return ax.scatter(p[:, 0], p[:, 1], **{"s": 12.0, "zorder": Z.POINTS, **outline, **kwargs})


def geodesics(
    ax: Axes | None, manifold: Manifold, x: Array, y: Array, *, samples: int = 65, **kwargs: Any
) -> LineCollection:
    r"""Draws the geodesics from each ``x`` to each ``y``: in the disk, circular arcs orthogonal to the boundary.

    Their vertices are evenly spaced in the picture within a factor of two, even if an end rounds to the boundary.

    Args:
        ax: Axes to draw on; None is pyplot's current axes.
        manifold: ``geoopt.Lorentz``, ``PoincareBall``, ``Euclidean(1)`` or ``Sphere``, or ``ph.manifolds.Torus(2)``.
        x: Points, shape ``(*, 3)`` on ``Lorentz`` and ``Sphere``, else ``(*, 2)``.
        y: Points of a shape that broadcasts with that of ``x``.
        samples: Number of vertices of each arc, at least 2.
        **kwargs: For the LineCollection.

    Returns:
        The LineCollection, one polyline for each pair.

    Raises:
        TypeError: If the manifold is none of these, or a point is not an array of floating point numbers.
        ValueError: If ``n`` is not 2 or, while validating, a point is off the manifold.

    Example:
        The arc between points at 0 and 90 degrees near the boundary is a quarter of the unit circle around (1, 1), at
        distance :math:`\sqrt 2 - 1` from the origin:

        >>> from matplotlib.figure import Figure
        >>> M = geoopt.Lorentz()
        >>> x, y = geometry.exp0(M, 15 * torch.eye(2))
        >>> arc = torch.tensor(geodesics(Figure().subplots(), M, x, y).get_segments()[0])
        >>> arc.norm(dim=-1).min()
        tensor(0.4142, dtype=torch.float64)
    """
    checks.check_count("samples", samples, 2, "an arc has at least its 2 end points")
    ax = axes(ax)
    drawn = picture(ax, manifold)
    ends = torch.broadcast_tensors(drawn.checked(x, "x"), drawn.checked(y, "y"))
    start, stop = (end.reshape(-1, end.size(-1)) for end in ends)
    return draw_lines(ax, drawn.polylines(start, stop, samples), **kwargs)


def draw_lines(ax: Axes, lines: list[np.ndarray], **kwargs: Any) -> LineCollection:
    """Draws polylines in coordinates of the picture."""
    artist = LineCollection(lines, linewidth=1.0, zorder=Z.GEODESICS, capstyle="round")
    if kwargs.get("array") is None:  # a fixed colour would override the mapping of the array to colours
        artist.set(color="0.5")
    artist.set(**kwargs)
    ax.add_collection(artist, autolim=ax.name != "mollweide")  # which has fixed limits
    ax.autoscale_view()
    return artist


def tree(ax: Axes | None, manifold: Manifold, x: Array, edges: Array, **kwargs: Any) -> LineCollection:
    r"""Draws the edges of a tree, or of any graph, as geodesics between its embedded nodes.

    Args:
        ax: Axes to draw on; None is pyplot's current axes.
        manifold: ``geoopt.Lorentz``, ``PoincareBall``, ``Euclidean(1)`` or ``Sphere``, or ``ph.manifolds.Torus(2)``.
        x: Nodes, shape ``(N, 3)`` on ``Lorentz`` and ``Sphere``, else ``(N, 2)``.
        edges: Pairs of indices into ``x``, shape ``(E, 2)``, integers.
        **kwargs: For :func:`geodesics`.

    Returns:
        The LineCollection, one polyline for each edge. Draw the nodes with :func:`points`.

    Raises:
        TypeError: If the manifold is none of these, or ``x`` is not an array of floating point numbers.
        ValueError: If ``n`` is not 2, ``edges`` are not pairs of indices or, while validating, a node is off the
            manifold.

    Example:
        >>> from matplotlib.figure import Figure
        >>> M = geoopt.Lorentz()
        >>> x = geometry.exp0(M, torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
        >>> len(tree(Figure().subplots(), M, x, torch.tensor([[0, 1], [0, 2]])).get_segments())
        2
    """
    x, edges = tensor_of(x, "x"), tensor_of(edges, "edges")
    if edges.dim() != 2 or edges.size(-1) != 2 or edges.is_floating_point() or edges.dtype == torch.bool:
        raise ValueError(
            f"edges are {edges.dtype} of shape {tuple(edges.shape)}, but must be integer pairs (E, 2); "
            f"transpose a (2, E) edge_index."
        )
    edges = edges.long()  # bytes would be a mask
    if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < len(x):
        raise ValueError(
            f"edges name the nodes {int(edges.min())}..{int(edges.max())}, but x has {len(x)}, numbered from 0."
        )
    start, end = edges.to(x.device).unbind(-1)
    return geodesics(ax, manifold, x[start], x[end], **kwargs)
