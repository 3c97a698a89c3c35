r"""Tangent vectors and vector fields."""

from collections.abc import Callable
from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from matplotlib.axes import Axes
from matplotlib.quiver import Quiver
from torch import Tensor

from pyro_hyperbolic.geometry import checks

from .choice import picture
from .pictures import Array, Extent, Z, tensor_of

__all__ = ["vector_field", "vectors"]


def vectors(ax: Axes, manifold: Manifold, x: Array, u: Array, **kwargs: Any) -> Quiver:
    r"""Draws tangent vectors as arrows :math:`dp = \frac{\partial p}{\partial x} u`, the differential of the picture.

    In the disk and the plane angles are true; pictures of the sphere keep areas instead. In the disk an arrow has
    :math:`(1 - |p|^2/k) / 2` times the length of its vector. ``scale=0.1`` draws arrows ten times as long.

    Args:
        ax: Axes to draw on.
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
    drawn, given, vector = picture(ax, manifold), tensor_of(x, "x"), tensor_of(u, "u")
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
    ends, arrows = (value.reshape(-1, 2).numpy() for value in drawn.push(points, vector))
    style = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "color": "0.3", "width": 0.003, "zorder": Z.GEODESICS}
    return ax.quiver(ends[:, 0], ends[:, 1], arrows[:, 0], arrows[:, 1], **{**style, **kwargs})


def vector_field(
    ax: Axes,
    manifold: Manifold,
    field: Callable[[Tensor], Array],
    *,
    extent: Extent | None = None,
    resolution: int = 21,
    dtype: torch.dtype | None = None,
    **kwargs: Any,
) -> Quiver:
    r"""Draws a vector field :math:`x \mapsto u(x) \in T_x M` on a square grid of the picture.

    Args:
        ax: Axes to draw on.
        manifold: ``geoopt.Lorentz``, ``PoincareBall``, ``Euclidean(1)`` or ``Sphere``, or ``ph.manifolds.Torus(2)``.
        field: Maps points, shape ``(B, 3)`` on ``Lorentz`` and ``Sphere``, else ``(B, 2)``, to tangent vectors of the
            same shape as :func:`vectors` takes them; for example a Riemannian gradient.
        extent: ``(left, right, bottom, top)``; by default the whole picture, in the plane the current limits of ``ax``.
        resolution: Number of arrows upwards and across; twice as many across on the sphere. Those beyond 98% of a
            disk's radius are left out.
        dtype: Of the points; the default dtype if not given.
        **kwargs: For :func:`vectors`.

    Returns:
        The Quiver.

    Raises:
        TypeError: If the manifold is none of these.
        ValueError: As :func:`vectors`.

    Example:
        Rotation about the origin:

        >>> from matplotlib.figure import Figure
        >>> turn = lambda x: torch.stack([0 * x[:, 0], -x[:, 2], x[:, 1]], dim=-1)
        >>> arrows = vector_field(Figure().subplots(), geoopt.Lorentz(), turn, resolution=3)
        >>> arrows.N  # including the corners, at 0.94 of the radius
        9
    """
    drawn = picture(ax, manifold)
    p = torch.cartesian_prod(*((b[1:] + b[:-1]) / 2 for b in drawn.borders(ax, extent, resolution)))
    p = p[drawn.in_disk(p)[1].squeeze(-1) < 0.98 * drawn.radius]
    x = drawn.points(p).to(dtype or torch.get_default_dtype())
    return vectors(ax, manifold, x, field(x), **kwargs)
