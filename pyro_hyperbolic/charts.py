r"""Charts of the hyperboloid: Poincaré ball, Klein ball and normal coordinates, each with its log-volume.

Convention: both balls have radius :math:`\sqrt k`, the unit ball at ``k = 1``, so that the curvature is :math:`-1/k` in
every chart and the Poincaré ball is ``geoopt.PoincareBall(c=1 / k)``. Points are ``(*, n + 1)``, chart coordinates
``(*, n)``, and only the spatial part of a point is read. The log-volume of a chart is the log-density of Riemannian
volume in its coordinates, :math:`d\mathrm{vol} = e^{\ell(p)}\, dp`: a log-density with respect to Riemannian volume
plus :math:`\ell` is the one with respect to Lebesgue measure of the coordinates.

A ball squeezes what is far into its rim: with ``u`` the unit roundoff, rounding ``p`` moves a point at scaled radius
``r`` by ``u exp(r)`` in the Poincaré ball and by ``u exp(2 r)`` in the Klein ball. Beyond ``r`` = 36 and 18 (in float32
16 and 8) the nearest representable coordinates are *on* the sphere: right for a picture, but no longer a point.
Normal coordinates lose nothing at any radius.
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

    The stereographic projection from :math:`(-\sqrt k, 0)`: conformal, geodesics become circular arcs orthogonal to
    the boundary, and :math:`|p| = \sqrt k \tanh(r/2)` at scaled radius ``r``.

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
    space, radius = _space(manifold, x)
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
        >>> from_poincare_ball(geoopt.Lorentz(k=4.0), torch.tensor([1.0, 0.0]))  # half way to the boundary
        tensor([3.3333, 2.6667, 0.0000])
    """
    s, radius = _inside(manifold, p, "p", "Poincaré")
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
        At the centre the chart halves lengths, in two dimensions the volume is log 4:

        >>> poincare_ball_log_volume(geoopt.Lorentz(), torch.zeros(2))
        tensor(1.3863)
    """
    s, _ = _inside(manifold, p, "p", "Poincaré")
    return -p.size(-1) * torch.log((1 - s) / 2).squeeze(-1)


def to_klein(manifold: geoopt.Lorentz, x: Tensor) -> Tensor:
    r"""Maps points to the Klein ball of radius :math:`\sqrt k`, :math:`q = \sqrt k\, x_s / x_0`.

    The gnomonic projection: geodesics become straight lines, and :math:`|q| = \sqrt k \tanh r` at scaled radius ``r``.

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
    space, radius = _space(manifold, x)
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
    s, radius = _inside(manifold, q, "q", "Klein")
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
        On a line the chart is tanh, with derivative :math:`1 - q^2`, here 0.64:

        >>> klein_log_volume(geoopt.Lorentz(), torch.tensor([0.6])).exp()
        tensor(1.5625)
    """
    s, _ = _inside(manifold, q, "q", "Klein")
    return -(q.size(-1) + 1) / 2 * torch.log1p(-s).squeeze(-1)


def to_normal_coordinates(manifold: Manifold, x: Tensor, loc: Tensor | None = None) -> Tensor:
    r"""Maps points to normal coordinates at ``loc``, :math:`v = \log_o(T_{loc}^{-1} x)`, in the frame that T carries.

    A global chart in which geodesics through ``loc`` are straight and ``|v|`` is the distance from it.

    Args:
        manifold: A manifold with a geometry, ``geoopt.Lorentz`` or ``geoopt.Euclidean(1)``.
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
        manifold: A manifold with a geometry, ``geoopt.Lorentz`` or ``geoopt.Euclidean(1)``.
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

    :func:`pyro_hyperbolic.geometry.log_volume` under the name it has among the charts.

    Args:
        manifold: A manifold with a geometry, ``geoopt.Lorentz`` or ``geoopt.Euclidean(1)``.
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
            f"on a manifold that has none use normal coordinates."
        )


def _space(manifold: geoopt.Lorentz, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the spatial part of a checked point and the radius."""
    _check_lorentz(manifold)
    checks.check_points(manifold, x)
    return x[..., 1:], hyperboloid.Hyperboloid(manifold).radius(x)


def _inside(manifold: geoopt.Lorentz, p: Tensor, name: str, ball: str) -> tuple[Tensor, Tensor]:
    """Returns ``|p|^2 / k``, below one, and the radius, both ``(*, 1)``, or raises."""
    _check_lorentz(manifold)
    checks.check_vectors(manifold, p, name)
    checks.check_finite_result(name, p, p)
    radius = hyperboloid.Hyperboloid(manifold).radius(p)
    s = hyperboloid.square_norm(p / radius)
    if checks.validating() and not bool((s < 1).all()):
        outside = int((s >= 1).sum())
        raise ValueError(
            f"{name} reaches |{name}| / sqrt(k) = {s.detach().max().sqrt().item():.9g}, and {outside} of {s.numel()} "
            f"points have 1 or more, but the open {ball} ball of {checks.describe(manifold)} has radius sqrt(k); "
            f"rescale {name} if it comes from another k, and keep points near the boundary as x or in normal "
            f"coordinates: {p.dtype} cannot tell them from the boundary itself."
        )
    return s, radius
