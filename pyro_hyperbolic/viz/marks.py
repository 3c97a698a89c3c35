r"""Points, geodesics, and trees of them."""

from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from matplotlib.axes import Axes
from matplotlib.cbook import normalize_kwargs
from matplotlib.collections import LineCollection, PathCollection
from torch import Tensor

from pyro_hyperbolic import geometry

from .pictures import Array, Z, checked, is_disk, lift, on_cpu, picture, tensor_of

__all__ = ["geodesics", "points", "tree"]


def points(ax: Axes, manifold: Manifold, x: Array, **kwargs: Any) -> PathCollection:
    r"""Draws points of the hyperbolic plane at :math:`p = x_s / (1 + x_0/\sqrt k)`, or of the Euclidean plane.

    Args:
        ax: Axes to draw on.
        manifold: ``geoopt.Lorentz`` or ``geoopt.Euclidean(1)``.
        x: Points, shape ``(*, 3)``, or ``(*, 2)`` in the plane; batch dimensions are flattened.
        **kwargs: For ``ax.scatter``.

    Returns:
        The PathCollection.

    Raises:
        TypeError: If the manifold is neither, or ``x`` is not an array of floating point numbers.
        ValueError: If ``n`` is not 2 or, while validating, a point is off the manifold.

    Example:
        >>> from matplotlib.figure import Figure
        >>> M = geoopt.Lorentz()
        >>> artist = points(Figure().subplots(), M, torch.tensor([1.25, 0.75, 0.0]))
        >>> torch.tensor(artist.get_offsets())
        tensor([[0.3333, 0.0000]], dtype=torch.float64)
    """
    p = picture(manifold, checked(manifold, x, "x")).reshape(-1, 2).numpy()
    kwargs = normalize_kwargs(kwargs, PathCollection)
    # Dots without an outline, unless one is asked for or the marker is nothing but outline, as "x" is.
    outline = {} if {"linewidth", "edgecolor", "marker"} & kwargs.keys() else {"linewidth": 0.0}
    return ax.scatter(p[:, 0], p[:, 1], **{"s": 12.0, "zorder": Z.POINTS, **outline, **kwargs})


def geodesics(ax: Axes, manifold: Manifold, x: Array, y: Array, *, samples: int = 65, **kwargs: Any) -> LineCollection:
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
        TypeError: If the manifold is neither, or a point is not an array of floating point numbers.
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
    start, end = torch.broadcast_tensors(checked(manifold, x, "x"), checked(manifold, y, "y"))
    lines = picture(manifold, _arcs(manifold, start, end, samples)).reshape(-1, samples, 2).numpy()
    artist = LineCollection(list(lines), linewidth=1.0, zorder=Z.GEODESICS, capstyle="round")
    if kwargs.get("array") is None:  # a colour of its own would keep the collection from mapping the array to colours
        artist.set(color="0.5")
    artist.set(**kwargs)
    ax.add_collection(artist)
    ax.autoscale_view()
    return artist


def tree(ax: Axes, manifold: Manifold, x: Array, edges: Array, **kwargs: Any) -> LineCollection:
    r"""Draws the edges of a tree, or of any graph, as geodesics between its embedded nodes.

    Args:
        ax: Axes to draw on.
        manifold: ``geoopt.Lorentz`` or ``geoopt.Euclidean(1)``.
        x: Nodes, shape ``(N, 3)``, or ``(N, 2)`` in the plane.
        edges: Pairs of indices into ``x``, shape ``(E, 2)``, integers.
        **kwargs: For :func:`geodesics`.

    Returns:
        The LineCollection, one polyline for each edge. Draw the nodes with :func:`points`.

    Raises:
        TypeError: If the manifold is neither, or ``x`` is not an array of floating point numbers.
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
    if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < len(x):
        raise ValueError(
            f"edges name the nodes {int(edges.min())}..{int(edges.max())}, but x has {len(x)}, numbered from 0."
        )
    start, end = edges.to(x.device).unbind(-1)
    return geodesics(ax, manifold, x[start], x[end], **kwargs)


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
    if not is_disk(manifold):
        return (1 - f) * x + f * y
    drawn = on_cpu(manifold)
    radius = drawn.k.sqrt()
    sech = 1 / (geometry.distance(drawn, x, y) / (2 * radius)).cosh().unsqueeze(-1)
    alpha, beta = (1 - f) * (1 + y[..., :1] / radius).sqrt(), f * (1 + x[..., :1] / radius).sqrt()
    total = sech * (alpha**2 + beta**2) + 2 * alpha * beta
    a, b = sech * alpha * (alpha + beta * sech) / total, sech * beta * (beta + alpha * sech) / total
    return lift(drawn, a * x[..., 1:] + b * y[..., 1:])
