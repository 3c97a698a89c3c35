r"""Charts of the hyperboloid: Poincaré ball, Klein ball and normal coordinates, each with its log-volume.

Convention: both balls have radius :math:`\sqrt k`, so that the curvature is :math:`-1/k` in every chart and the
Poincaré ball is ``geoopt.PoincareBall(c=1 / k)``. Points are ``(*, n + 1)``, chart coordinates ``(*, n)``, and only
the spatial part of a point is read. The log-volume :math:`\ell` of a chart is the log-density of Riemannian volume in
its coordinates, :math:`d\mathrm{vol} = e^{\ell(p)}\, dp`. Add it to a log-density with respect to Riemannian volume to
get the log-density with respect to Lebesgue measure of the coordinates.

Precision: with unit roundoff ``u``, rounding ``p`` moves a point at scaled radius ``r`` by ``u exp(r)`` in the
Poincaré ball and by ``u exp(2 r)`` in the Klein ball. Beyond ``r`` = 36 and 18 (16 and 8 in float32) the coordinates
round to the boundary sphere: fine for a picture, but no longer a point. Normal coordinates are accurate at any radius.
"""

import geoopt
import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic import geometry
from pyro_hyperbolic.geometry import checks, hyperboloid

__all__ = [
    "from_klein",
    "from_normal_coordinates",
    "from_poincare_ball",
    "klein_log_volume",
    "normal_coordinates_log_volume",
    "poincare_ball_log_volume",
    "to_klein",
    "to_normal_coordinates",
    "to_poincare_ball",
]


def to_poincare_ball(manifold: geoopt.Lorentz, x: Tensor) -> Tensor:
    r"""Maps points to the Poincaré ball of radius :math:`\sqrt k`, :math:`p = x_s / (1 + x_0/\sqrt k)`.

    The stereographic projection from :math:`(-\sqrt k, 0)`. It is conformal, geodesics become circular arcs orthogonal
    to the boundary, and :math:`|p| = \sqrt k \tanh(r/2)` at scaled radius ``r``.

    Args:
        manifold: A ``geoopt.Lorentz``.
        x: Points, shape ``(*, n + 1)``.

    Returns:
        Coordinates, shape ``(*, n)``, in units of distance.

    Raises:
        TypeError: If the manifold is not a ``geoopt.Lorentz``, or ``x`` is not a floating point tensor.
        ValueError: While validating, if a point is off the manifold.

    Example:
        >>> to_poincare_ball(geoopt.Lorentz(), torch.tensor([1.25, 0.75]))  # 0.75 / 2.25
        tensor([0.3333])
    """
    space, radius = _space_and_radius(manifold, x)
    return space / (1 + hyperboloid.time_of(space / radius))


def from_poincare_ball(manifold: geoopt.Lorentz, p: Tensor) -> Tensor:
    r"""Maps the Poincaré ball to points, :math:`x = \big(\sqrt k\,(1 + s),\ 2 p\big) / (1 - s)`, :math:`s = |p|^2/k`.

    Args:
        manifold: A ``geoopt.Lorentz``.
        p: Coordinates in the open ball of radius :math:`\sqrt k`, shape ``(*, n)``, in units of distance.

    Returns:
        Points, shape ``(*, n + 1)``.

    Raises:
        TypeError: If the manifold is not a ``geoopt.Lorentz``, or ``p`` is not a floating point tensor.
        ValueError: While validating, if ``p`` is outside the open ball or not finite.

    Example:
        >>> from_poincare_ball(geoopt.Lorentz(k=4.0), torch.tensor([1.0, 0.0]))  # halfway to the boundary
        tensor([3.3333, 2.6667, 0.0000])
    """
    s, radius = _square_and_radius(manifold, p, "p", "Poincaré")
    return torch.cat([radius * (1 + s), 2 * p.expand(*s.shape[:-1], -1)], dim=-1) / (1 - s)


def poincare_ball_log_volume(manifold: geoopt.Lorentz, p: Tensor) -> Tensor:
    r"""Returns :math:`\ell(p) = n \log \frac{2}{1 - |p|^2/k}`, the log-density of Riemannian volume in the chart.

    Args:
        manifold: A ``geoopt.Lorentz``.
        p: Coordinates in the open ball of radius :math:`\sqrt k`, shape ``(*, n)``, in units of distance.

    Returns:
        Tensor of shape ``(*)``.

    Raises:
        TypeError: If the manifold is not a ``geoopt.Lorentz``, or ``p`` is not a floating point tensor.
        ValueError: While validating, if ``p`` is outside the open ball or not finite.

    Example:
        At the centre the chart halves lengths, so in two dimensions the log-volume is log 4:

        >>> poincare_ball_log_volume(geoopt.Lorentz(), torch.zeros(2))
        tensor(1.3863)
    """
    s, _ = _square_and_radius(manifold, p, "p", "Poincaré")
    return -p.size(-1) * torch.log((1 - s) / 2).squeeze(-1)


def to_klein(manifold: geoopt.Lorentz, x: Tensor) -> Tensor:
    r"""Maps points to the Klein ball of radius :math:`\sqrt k`, :math:`q = \sqrt k\, x_s / x_0`.

    The gnomonic projection. Geodesics become straight lines, and :math:`|q| = \sqrt k \tanh r` at scaled radius ``r``.

    Args:
        manifold: A ``geoopt.Lorentz``.
        x: Points, shape ``(*, n + 1)``.

    Returns:
        Coordinates, shape ``(*, n)``, in units of distance.

    Raises:
        TypeError: If the manifold is not a ``geoopt.Lorentz``, or ``x`` is not a floating point tensor.
        ValueError: While validating, if a point is off the manifold.

    Example:
        >>> to_klein(geoopt.Lorentz(), torch.tensor([1.25, 0.75]))  # 0.75 / 1.25
        tensor([0.6000])
    """
    space, radius = _space_and_radius(manifold, x)
    return space / hyperboloid.time_of(space / radius)


def from_klein(manifold: geoopt.Lorentz, q: Tensor) -> Tensor:
    r"""Maps the Klein ball to points, :math:`x = (\sqrt k,\ q) / \sqrt{1 - |q|^2/k}`.

    Args:
        manifold: A ``geoopt.Lorentz``.
        q: Coordinates in the open ball of radius :math:`\sqrt k`, shape ``(*, n)``, in units of distance.

    Returns:
        Points, shape ``(*, n + 1)``.

    Raises:
        TypeError: If the manifold is not a ``geoopt.Lorentz``, or ``q`` is not a floating point tensor.
        ValueError: While validating, if ``q`` is outside the open ball or not finite.

    Example:
        >>> from_klein(geoopt.Lorentz(), torch.tensor([0.6, 0.0]))
        tensor([1.2500, 0.7500, 0.0000])
    """
    s, radius = _square_and_radius(manifold, q, "q", "Klein")
    return torch.cat([radius.expand_as(s), q.expand(*s.shape[:-1], -1)], dim=-1) / (1 - s).sqrt()


def klein_log_volume(manifold: geoopt.Lorentz, q: Tensor) -> Tensor:
    r"""Returns :math:`\ell(q) = -\frac{n + 1}{2} \log(1 - |q|^2/k)`, the log-density of Riemannian volume in the chart.

    Args:
        manifold: A ``geoopt.Lorentz``.
        q: Coordinates in the open ball of radius :math:`\sqrt k`, shape ``(*, n)``, in units of distance.

    Returns:
        Tensor of shape ``(*)``.

    Raises:
        TypeError: If the manifold is not a ``geoopt.Lorentz``, or ``q`` is not a floating point tensor.
        ValueError: While validating, if ``q`` is outside the open ball or not finite.

    Example:
        On a line :math:`q = \tanh r`, with derivative :math:`1 - q^2`, here 0.64:

        >>> klein_log_volume(geoopt.Lorentz(), torch.tensor([0.6])).exp()
        tensor(1.5625)
    """
    s, _ = _square_and_radius(manifold, q, "q", "Klein")
    return -(q.size(-1) + 1) / 2 * torch.log1p(-s).squeeze(-1)


def to_normal_coordinates(manifold: Manifold, x: Tensor, loc: Tensor | None = None) -> Tensor:
    r"""Maps points to normal coordinates at ``loc``, :math:`v = \log_o(T_{loc}^{-1} x)`.

    A global chart in which geodesics through ``loc`` are straight lines and ``|v|`` is the distance from ``loc``. The
    axes are those of the origin, transported to ``loc`` along the geodesic.

    Args:
        manifold: A manifold with a global chart, such as ``geoopt.Lorentz``.
        x: Points, shape ``(*, n + 1)``.
        loc: The centre of the chart, shape ``(*, n + 1)``; the origin by default.

    Returns:
        Coordinates, shape ``(*, n)``, in units of distance.

    Raises:
        TypeError: If an argument is not a floating point tensor, or the dtypes differ.
        ValueError: If the last dimensions differ or, while validating, a point is off the manifold.

    Example:
        >>> M = geoopt.Lorentz()
        >>> loc = torch.tensor([1.25, 0.75])
        >>> to_normal_coordinates(M, torch.tensor([1.0, 0.0]), loc)  # minus log 2
        tensor([-0.6931])
    """
    if loc is None:
        return geometry.log0(manifold, x)
    return geometry.log_at(manifold, loc, x)


def from_normal_coordinates(manifold: Manifold, v: Tensor, loc: Tensor | None = None) -> Tensor:
    r"""Maps normal coordinates at ``loc`` to points, :math:`x = T_{loc} \exp_o(v)`.

    Args:
        manifold: A manifold with a global chart, such as ``geoopt.Lorentz``.
        v: Coordinates, shape ``(*, n)``, in units of distance.
        loc: The centre of the chart, shape ``(*, n + 1)``; the origin by default.

    Returns:
        Points, shape ``(*, n + 1)``.

    Raises:
        TypeError: If an argument is not a floating point tensor, or the dtypes differ.
        ValueError: If the last dimensions differ or, while validating, ``loc`` is off the manifold, ``v`` is not
            finite, or the result overflows.

    Example:
        >>> M = geoopt.Lorentz()
        >>> loc = torch.tensor([1.25, 0.75])
        >>> from_normal_coordinates(M, torch.tensor([0.6931]), loc)  # cosh and sinh of log 4
        tensor([2.1249, 1.8749])
    """
    if loc is None:
        return geometry.exp0(manifold, v)
    return geometry.exp_at(manifold, loc, v)


def normal_coordinates_log_volume(manifold: Manifold, v: Tensor) -> Tensor:
    r"""Returns :math:`\ell(v) = (n - 1) \log \frac{\sinh r}{r}`, :math:`r = |v|/\sqrt k`: the same at every centre.

    An alias of :func:`pyro_hyperbolic.geometry.log_volume`.

    Args:
        manifold: A manifold with a global chart, such as ``geoopt.Lorentz``.
        v: Coordinates, shape ``(*, n)``, in units of distance.

    Returns:
        Tensor of shape ``(*)``.

    Raises:
        TypeError: If ``v`` is not a floating point tensor.
        ValueError: While validating, if ``v`` is not finite or ``k <= 0``.

    Example:
        A circle of radius one is longer than :math:`2 \pi` by the factor sinh 1:

        >>> normal_coordinates_log_volume(geoopt.Lorentz(), torch.tensor([1.0, 0.0])).exp()
        tensor(1.1752)
    """
    return geometry.log_volume(manifold, v)


def _check_lorentz(manifold: geoopt.Lorentz) -> None:
    checks.check_manifold(manifold)
    if not isinstance(manifold, geoopt.Lorentz):
        raise TypeError(
            f"the manifold is {checks.shown(manifold)}, but the Poincaré and Klein balls are charts of geoopt.Lorentz; "
            f"use normal coordinates on other manifolds."
        )


def _space_and_radius(manifold: geoopt.Lorentz, x: Tensor) -> tuple[Tensor, Tensor]:
    """Checks the points; returns their spatial part and ``sqrt(k)``."""
    _check_lorentz(manifold)
    checks.check_points(manifold, x)
    return x[..., 1:], hyperboloid.Hyperboloid(manifold).radius(x)


def _square_and_radius(manifold: geoopt.Lorentz, p: Tensor, name: str, ball: str) -> tuple[Tensor, Tensor]:
    """Checks that ``p`` is in the open ball; returns ``|p|^2 / k`` and ``sqrt(k)``, both ``(*, 1)``."""
    _check_lorentz(manifold)
    checks.check_vectors(manifold, p, name)
    checks.check_finite_result(name, p, p)
    radius = hyperboloid.Hyperboloid(manifold).radius(p)
    s = hyperboloid.square_norm(p / radius)
    if checks.validating() and not bool((s < 1).all()):
        farthest, outside = s.detach().max().sqrt().item(), int((s >= 1).sum())
        raise ValueError(
            f"{name} reaches |{name}| / sqrt(k) = {farthest:.9g}: {outside} of {s.numel()} points are not in the open "
            f"{ball} ball of {checks.describe(manifold)}, which has radius sqrt(k); rescale {name} if it comes from "
            f"another k; near the boundary, which {p.dtype} cannot tell from {name}, use x or normal coordinates."
        )
    return s, radius
