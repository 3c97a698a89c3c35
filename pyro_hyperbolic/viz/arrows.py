r"""Tangent vectors at points, and fields of them."""

from collections.abc import Callable
from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from matplotlib.axes import Axes
from matplotlib.quiver import Quiver
from torch import Tensor

from pyro_hyperbolic import charts
from pyro_hyperbolic.geometry import checks

from .pictures import Array, Z, checked, is_ball, is_disk, on_cpu, picture, tensor_of

__all__ = ["vector_field", "vectors"]


def vectors(ax: Axes, manifold: Manifold, x: Array, u: Array, **kwargs: Any) -> Quiver:
    r"""Draws tangent vectors as arrows, :math:`dp = \big(u_s - p\, u_0 / \sqrt k\big) / (1 + x_0 / \sqrt k)`.

    The differential of the picture: angles are right, since it is conformal, and an arrow has the length of the vector
    times :math:`(1 - |p|^2/k) / 2`, as every small thing there. ``scale=0.1`` draws them ten times as long.

    Args:
        ax: Axes to draw on.
        manifold: ``geoopt.Lorentz`` or ``geoopt.Euclidean(1)``.
        x: Points, shape ``(*, 3)``, or ``(*, 2)`` in the plane.
        u: Tangent vectors there in ambient coordinates, :math:`\langle x, u \rangle = 0`, of that shape.
        **kwargs: For ``ax.quiver``.

    Returns:
        The Quiver.

    Raises:
        TypeError: If the manifold is neither, or ``x`` or ``u`` is not an array of floating point numbers.
        ValueError: If ``n`` is not 2, the shapes differ, a vector is not tangent or, while validating, a point is off
            the manifold.

    Example:
        At the centre the picture halves lengths:

        >>> from matplotlib.figure import Figure
        >>> M = geoopt.Lorentz()
        >>> arrows = vectors(Figure().subplots(), M, geometry.origin(M, 2), torch.tensor([0.0, 1.0, 0.0]))
        >>> arrows.U.tolist(), arrows.V.tolist()
        ([0.5], [0.0])
    """
    given, vector = tensor_of(x, "x"), tensor_of(u, "u")
    checks.check_floating("u", vector)
    if vector.shape != given.shape:
        raise ValueError(f"u has shape {tuple(vector.shape)} and x {tuple(given.shape)}; give each point its vector.")
    points = checked(manifold, given, "x")
    tolerance = 64 * max(torch.finfo(given.dtype).eps, torch.finfo(vector.dtype).eps)
    vector = vector.detach().cpu().double()
    p = picture(manifold, points)
    if is_disk(manifold) and not is_ball(manifold):
        radius = on_cpu(manifold).k.sqrt()
        time, size = points[..., :1] / radius, vector.norm(dim=-1, keepdim=True)
        slope = (points[..., 1:] * vector[..., 1:]).sum(-1, keepdim=True) / radius
        # Of the two terms of <x, u>, which cancel to rounding.
        wrong = ((time * vector[..., :1] - slope).abs() > tolerance * time * size).squeeze(-1)
        if bool(wrong.any()):
            raise ValueError(
                f"{int(wrong.sum())} of {wrong.numel()} vectors are not tangent, first {vector[wrong][0].tolist()} at "
                f"{points[wrong][0].tolist()}; project them with manifold.proju(x, u)."
            )
        vector = (vector[..., 1:] - p * (slope / time) / radius) / (1 + time)
    ends, arrows = p.reshape(-1, 2).numpy(), vector.reshape(-1, 2).numpy()
    style = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "color": "0.3", "width": 0.003, "zorder": Z.GEODESICS}
    return ax.quiver(ends[:, 0], ends[:, 1], arrows[:, 0], arrows[:, 1], **{**style, **kwargs})


def vector_field(
    ax: Axes,
    manifold: Manifold,
    field: Callable[[Tensor], Array],
    *,
    extent: tuple[float, float, float, float] | None = None,
    resolution: int = 21,
    dtype: torch.dtype | None = None,
    **kwargs: Any,
) -> Quiver:
    r"""Draws a vector field, :math:`x \mapsto u(x) \in T_x M`, on a square grid of the picture.

    Args:
        ax: Axes to draw on.
        manifold: ``geoopt.Lorentz`` or ``geoopt.Euclidean(1)``.
        field: Maps points ``(B, 3)``, or ``(B, 2)`` in the plane, to tangent vectors of that shape, as :func:`vectors`
            takes them; a Riemannian gradient, for one.
        extent: ``(left, right, bottom, top)``; the whole disk, or the present limits of ``ax`` in the plane.
        resolution: Arrows along each side; those within 98% of the disk's radius are drawn.
        dtype: Of the points; the default dtype if not given.
        **kwargs: For :func:`vectors`.

    Returns:
        The Quiver.

    Raises:
        TypeError: If the manifold is neither.
        ValueError: As :func:`vectors`.

    Example:
        Of the rotations about the origin:

        >>> from matplotlib.figure import Figure
        >>> turn = lambda x: torch.stack([0 * x[:, 0], -x[:, 2], x[:, 1]], dim=-1)
        >>> arrows = vector_field(Figure().subplots(), geoopt.Lorentz(), turn, resolution=3)
        >>> arrows.N  # the corners, at 0.94 of the radius, too
        9
    """
    radius = on_cpu(manifold).k.sqrt().item() if is_disk(manifold) else None
    if extent is None:
        extent = (*ax.get_xlim(), *ax.get_ylim()) if radius is None else (-radius, radius, -radius, radius)
    sides = []
    for low, high in (extent[:2], extent[2:]):
        borders = torch.linspace(low, high, resolution + 1, dtype=torch.float64)
        sides.append((borders[1:] + borders[:-1]) / 2)
    p = torch.cartesian_prod(*sides)
    if radius is not None:
        p = p[p.norm(dim=-1) < 0.98 * radius]
    x = p if radius is None or is_ball(manifold) else charts.from_poincare_ball(on_cpu(manifold), p)
    x = x.to(dtype or torch.get_default_dtype())
    return vectors(ax, manifold, x, field(x), **kwargs)
