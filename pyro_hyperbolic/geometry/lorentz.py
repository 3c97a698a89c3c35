r"""Kernels of the hyperboloid :math:`\{x : -x_0^2 + |x_s|^2 = -k,\ x_0 > 0\}`, curvature :math:`-1/k`.

Only the spatial part :math:`x_s` of a point is read; the time coordinate is derived from it. Reading both and forming
:math:`-x_0 y_0 + x_s \cdot y_s` loses a factor :math:`e^{2r}`, the main defect of ``geoopt.Lorentz``, whose manifold
object these functions take. Inside, lengths are in units of :math:`R = \sqrt k`, so that the curvature enters twice, on
the way in and on the way out; radii are kept from zero by what is lost in rounding, and computed in float64, one for
each event; and what is moved by an isometry meets its target in the Poincare ball, as ``b = t / (1 + t_0)``, where the
two may cancel and nothing else can:

.. math:: \sinh^2 \tfrac{d(x, -t)}{2} = \tfrac{1 + x_0}{2} \tfrac{1 + t_0}{2}
    \left| \frac{x_s}{1 + x_0} + \frac{t_s}{1 + t_0} \right|^2.

Shapes: points ``(*, n + 1)``, tangent coordinates ``(*, n)``, ``k`` ``()`` or any batch shape that broadcasts with
``(*)``. The functions are pure and free of data-dependent branches; arguments are checked in the package's
dispatching functions.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from geoopt import Lorentz
from torch import Tensor
from torch.nn.functional import pad

from pyro_hyperbolic.numerics import log_sinhc, near_log_sinhc


class Stretch(NamedTuple):
    """What a translation in the chart stretches volume by, per dimension: the product of ``factors``.

    These are ``sinh(r) / r`` before it and ``r / sinh(r)`` after, shape ``(*, 2)``, with the squares of half the radii.
    Where they are of a wider dtype than the points, shape ``(*, 1)`` and no squares: there the logarithm is exact.
    """

    factors: Tensor
    squares: Tensor | None


__all__ = [
    "Stretch",
    "contains",
    "dim",
    "distance",
    "event_size",
    "exp0",
    "exp_at",
    "log0",
    "log_at",
    "log_stretch",
    "log_volume",
    "origin",
    "parameters",
    "radius_of",
    "square_norm",
    "time_of",
    "translate",
    "translate_tangent",
]


def event_size(n: int) -> int:
    """Returns ``n + 1``, the length of the coordinate vector of a point in ``n`` dimensions."""
    return n + 1


def dim(event_size: int) -> int:
    """Returns ``event_size - 1``, the intrinsic dimension of points with that many coordinates."""
    return event_size - 1


def parameters(manifold: Lorentz) -> dict[str, Tensor]:
    """Returns the tensors that tell one hyperboloid from another, all positive."""
    return {"k": manifold.k}


def origin(manifold: Lorentz, n: int, dtype: torch.dtype | None, device: torch.device | None) -> Tensor:
    k = manifold.k.to(dtype=dtype, device=device).unsqueeze(-1)
    return torch.cat([k.sqrt(), k.new_zeros((*k.shape[:-1], n))], dim=-1)


def contains(manifold: Lorentz, x: Tensor) -> Tensor:
    time, space = x[..., :1], x[..., 1:]
    # Divided by the time coordinate first: no square overflows, and the tolerance is relative, as rounding is. A
    # correctly rounded point is within a few eps; 64 eps leaves room for long sums and rejects a 0.1% error at any r.
    norm = torch.sqrt((radius_of(manifold, x) / time) ** 2 + square_norm(space / time))
    inside = (time > 0) & ((norm - 1).abs() <= 64 * torch.finfo(x.dtype).eps)
    return inside.squeeze(-1)


def exp0(manifold: Lorentz, v: Tensor) -> tuple[Tensor, Tensor]:
    radius = radius_of(manifold, v)
    r = (_sum_of_squares(v / radius) + _floor(v) ** 2).sqrt()
    ratio = r.sinh() / r
    x = torch.cat([radius * r.cosh().to(v.dtype), v * ratio.to(v.dtype)], dim=-1)
    return x, (v.size(-1) - 1) * _log_ratio(ratio, r, v)


def log0(manifold: Lorentz, x: Tensor) -> tuple[Tensor, Tensor]:
    space = x[..., 1:]
    norm = _norm_with(space / radius_of(manifold, x), _floor(x))
    r = norm.asinh()
    ratio = r / norm
    return space * ratio.to(x.dtype), (1 - space.size(-1)) * _log_ratio(ratio, r, x, inverse=True)


def log_volume(manifold: Lorentz, v: Tensor) -> Tensor:
    # Not the by-product of exp0: this one is accurate relative to its own size near the origin, and never overflows.
    return (v.size(-1) - 1) * log_sinhc(square_norm(v / radius_of(manifold, v))).squeeze(-1)


def exp_at(manifold: Lorentz, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    radius = radius_of(manifold, v)
    target = p[..., 1:]
    if v.size(-1) == 1:
        moved = (target / radius).asinh() + v / radius
        return radius * torch.cat([moved.cosh(), moved.sinh()], -1), torch.zeros_like(moved).squeeze(-1)
    diameter = 2 * radius
    ball_t, half_t = _in_ball(target, diameter)
    start, total, height = _carried(ball_t, half_t, v / diameter)
    space = 2 * (total * start.cosh.to(v.dtype) + ball_t * height.to(v.dtype))
    # The time coordinate is that of the spatial part as it was rounded: the point must be on the manifold.
    x = radius * torch.cat([time_of(space), space], dim=-1)
    return x, (v.size(-1) - 1) * _log_ratio(start.ratio * start.cosh, start.eta, v, half=True)


def log_at(manifold: Lorentz, p: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    radius = radius_of(manifold, x)
    target, space = -p[..., 1:], x[..., 1:]
    if space.size(-1) == 1:
        target, space = target / radius, space / radius
        v = radius * _boost_on_a_line(target, time_of(target), space, time_of(space)).asinh()
        return v, torch.zeros_like(v).squeeze(-1)
    diameter = 2 * radius
    (ball_t, half_t), (ball_x, half_x) = _in_ball(target, diameter), _in_ball(space, diameter)
    total = ball_x + ball_t
    height = _sum_of_squares(total) * (half_t * half_x) + _floor(x) ** 2
    eta, unwrap = _unwrap(height)
    w = total * (half_x * unwrap).to(x.dtype) + ball_t * (height * unwrap).to(x.dtype)
    return w * diameter, (1 - space.size(-1)) * _log_ratio(unwrap, eta, x, half=True, inverse=True)


def translate(manifold: Lorentz, p: Tensor, x: Tensor, inverse: bool) -> Tensor:
    radius = radius_of(manifold, x)
    target, space = p[..., 1:] / radius, x[..., 1:] / radius
    if inverse:
        target = -target
    if space.size(-1) == 1:
        moved = _boost_on_a_line(target, time_of(target), space, time_of(space))
    else:
        moved = _boost(target, 1 + time_of(target), space, 1 + time_of(space))
    # From the spatial part as it was rounded, not from the boost: the point must be on the manifold.
    return radius * torch.cat([time_of(moved), moved], dim=-1)


def distance(manifold: Lorentz, x: Tensor, y: Tensor) -> Tensor:
    radius = radius_of(manifold, x)
    xs, ys = x[..., 1:] / radius, y[..., 1:] / radius
    if xs.size(-1) == 1:
        apart = _boost_on_a_line(-ys, time_of(ys), xs, time_of(xs)).abs().asinh()
    else:
        # |x / X - y / Y| sqrt(X Y) = 2 sinh(d / 2): exactly zero at x = y, where vector_norm has subgradient 0.
        one_plus_x0, one_plus_y0 = 1 + time_of(xs), 1 + time_of(ys)
        chord = torch.linalg.vector_norm(xs / one_plus_x0 - ys / one_plus_y0, dim=-1, keepdim=True)
        apart = 2 * (chord / 2 * one_plus_x0.sqrt() * one_plus_y0.sqrt()).asinh()
    return (radius * apart).squeeze(-1)


def translate_tangent(
    manifold: Lorentz, t: Tensor, v: Tensor, inverse: bool, bound: float | None = None
) -> tuple[Tensor, Stretch | None]:
    radius = radius_of(manifold, v)
    if inverse:
        t = -t
    if v.size(-1) == 1:
        # H^1 is flat: the boost is a shift by the distance to the target.
        return v + radius * (t / radius).asinh(), None
    diameter = 2 * radius
    ball_t, half_t = _in_ball(t, diameter, bound)
    start, total, height = _carried(ball_t, half_t, v / diameter)
    eta, unwrap = _unwrap(height)
    stretch = start.cosh * unwrap
    w = (total * stretch.to(v.dtype) + ball_t * (height * unwrap).to(v.dtype)) * diameter
    if unwrap.dtype != v.dtype:
        return w, Stretch(start.ratio * stretch, None)
    return w, Stretch(torch.cat([start.ratio * start.cosh, unwrap], -1), torch.cat([start.eta**2, eta**2], -1))


class _Start(NamedTuple):
    """Functions of half the distance ``eta`` from the origin of what is carried along."""

    eta: Tensor
    ratio: Tensor  # sinh(eta) / eta
    cosh: Tensor


def _carried(ball_t: Tensor, half_t: Tensor, v: Tensor) -> tuple[_Start, Tensor, Tensor]:
    """Returns what :func:`_boost` calls ``c``, times ``cosh(eta)``, and the height of the image of ``exp_o(2 v)``.

    The height is ``sinh(r / 2) ** 2`` at distance ``r`` from the origin, kept from zero; it is free of cancellation.
    """
    eta = (_sum_of_squares(v) + _floor(v) ** 2).sqrt()
    start = _Start(eta, eta.sinh() / eta, eta.cosh())
    total = v * start.ratio.to(v.dtype) + ball_t * start.cosh.to(v.dtype)
    return start, total, _sum_of_squares(total) * half_t + _floor(v) ** 2


def _unwrap(height: Tensor) -> tuple[Tensor, Tensor]:
    """Returns half the radius ``r`` and ``r / sinh(r)``, both from ``sinh(r / 2) ** 2``, which is kept from zero."""
    eta = height.sqrt().asinh()
    return eta, eta * (height * (height + 1)).rsqrt()


def _in_ball(t: Tensor, diameter: Tensor, bound: float | None = None) -> tuple[Tensor, Tensor]:
    """Returns ``b = t / (1 + t_0)``, the point in the Poincare ball, and ``(1 + t_0) / 2``, for lengths in radii.

    With a bound, ``b = (t / 2) / sqrt(1 + |t / 2|^2 / c^2)``, shorter than the ``c`` of a ``t`` of that length. It is
    closer to the point meant than if ``t`` were shortened so, and fewer operations; no distance to the border is lost.
    """
    t = t / diameter
    if bound is None:
        half = _norm_with(t, 0.5) + 0.5
        return t / half.to(t.dtype), half
    longest = bound / (1 + math.sqrt(1 + bound**2))
    square = square_norm(t)
    growth = 1 + square / longest**2
    return t * growth.rsqrt(), growth / (growth - square)


def log_stretch(n: int, stretches: Sequence[Stretch]) -> Tensor:
    if stretches[0].squares is None:
        return (n - 1) * reduce(torch.mul, [stretch.factors for stretch in stretches]).squeeze(-1).log()
    parts = torch.stack(torch.broadcast_tensors(*(part for stretch in stretches for part in stretch)))
    factors, squares = parts[0::2], parts[1::2]
    # Far out, one logarithm of the product of both factors: their own logarithms are large and cancel. Near the
    # origin, where that product is 1 up to rounding, the series, small and accurate.
    near = near_log_sinhc(4 * squares.masked_fill(squares >= 0.5, 0.0))
    far = factors.masked_fill(squares < 0.5, 1.0)
    return (n - 1) * (far.prod(-1).log() + near[..., 0] - near[..., 1]).sum(0)


def radius_of(manifold: Lorentz, like: Tensor) -> Tensor:
    radius = manifold.k.to(like.dtype).sqrt()
    # A 0-dim k stays 0-dim: torch lets it live on another device than the points.
    return radius.unsqueeze(-1) if radius.dim() else radius


def square_norm(v: Tensor) -> Tensor:
    return (v * v).sum(-1, keepdim=True)


def _sum_of_squares(v: Tensor) -> Tensor:
    """Returns :func:`square_norm` in float64, for functions of it."""
    return square_norm(v).to(_wide(v))  # not summed in it: torch would copy the whole vectors first


def time_of(space: Tensor) -> Tensor:
    """Returns the time coordinate, ``sqrt(1 + |space|^2)``, of a point with the given spatial part."""
    return _norm_with(space, 1.0).to(space.dtype)


def _norm_with(space: Tensor, coordinate: float) -> Tensor:
    """Returns the norm of a vector with one more coordinate, in float64."""
    # A norm that is positive is smooth, and takes fewer kernels than a square, a sum and a root. In float64, since the
    # square of a float32 point at r > 44 overflows. (Float64 itself reaches r = 354 so.)
    extended = pad(space, (0, 1), value=coordinate)
    return torch.linalg.vector_norm(extended, dim=-1, keepdim=True, dtype=_wide(space))


def _floor(x: Tensor) -> float:
    """Returns what a radius is kept from zero by, through the root of a sum of squares: what is lost in rounding.

    Then ``sinh(r) / r`` needs no Taylor branch: its derivative is noise of size u / r near zero, but what multiplies it
    is a vector times the derivative of the radius, ``v / r``. (Second derivatives are off by u / r, at most 1e-8: where
    points are of float32, radii are of float64, one for each event, and kept from zero by more.)
    """
    return float(2.0**-26 if x.dtype == _wide(x) == torch.float64 else 2.0**-12)


def _log_ratio(ratio: Tensor, eta: Tensor, like: Tensor, *, half: bool = False, inverse: bool = False) -> Tensor:
    """Returns the logarithm of ``ratio = sinh(r) / r``, or of its inverse, shape ``(*)``; ``eta`` is r or half of it.

    It has derivatives in ``r^2``, and is accurate to the rounding of ``like``.
    """
    if like.dtype != _wide(like):
        return ratio.squeeze(-1).log().to(like.dtype)
    # No vector multiplies this derivative: in one and the same dtype the logarithm of the ratio has none at the origin.
    log_ratio = log_sinhc((4 if half else 1) * eta * eta).squeeze(-1)
    return -log_ratio if inverse else log_ratio


def _wide(x: Tensor) -> torch.dtype:
    """Returns float64, in which norms are computed whatever the dtype; on Apple's GPUs, which have none, the dtype."""
    return x.dtype if x.device.type == "mps" else torch.float64


def _boost(p: Tensor, one_plus_p0: Tensor, x: Tensor, one_plus_x0: Tensor) -> Tensor:
    """Returns the spatial part of ``T_p x``.

    ``T_p x = X (c + b |c|^2 P / 2)`` with ``b = p / P`` and ``c = x / X + b``, where capitals are time coordinates plus
    one (so that ``b`` is the point of the Poincare ball). No term cancels: ``X P |c|^2 / 2 = cosh(d(x, -p)) - 1``, and
    the result is exactly zero at ``x = -p``.
    """
    ball_p = p / one_plus_p0
    total = x / one_plus_x0 + ball_p
    return (total + ball_p * (square_norm(total) * (one_plus_p0 / 2))) * one_plus_x0


def _boost_on_a_line(p: Tensor, p0: Tensor, x: Tensor, x0: Tensor) -> Tensor:
    """Returns the spatial part of ``T_p x`` in one dimension, ``x p0 + p x0``.

    Nearly opposite points cancel there, but ``(x p0 + p x0) (x p0 - p x0) = x^2 - p^2`` does not in factored form.
    """
    opposite = x * p < 0
    conjugate = (x * p0 - p * x0).masked_fill(~opposite, 1.0)
    return torch.where(opposite, (x + p) * ((x - p) / conjugate), x * p0 + p * x0)
