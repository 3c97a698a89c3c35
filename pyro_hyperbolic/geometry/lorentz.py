r"""Kernels of the hyperboloid :math:`\{x : -x_0^2 + |x_s|^2 = -k,\ x_0 > 0\}`, curvature :math:`-1/k`.

Only the spatial part :math:`x_s` of a point is read; the time coordinate is derived from it. Reading both and forming
:math:`-x_0 y_0 + x_s \cdot y_s` loses a factor :math:`e^{2r}`, the main defect of ``geoopt.Lorentz``, whose manifold
object these functions take. Inside, lengths are in units of :math:`R = \sqrt k`, so that the curvature enters twice, on
the way in and on the way out; and the internal coordinate is the *half-vector* :math:`h = \sinh(r/2)\, \hat v`, where
``r`` is the distance from the origin: with it

.. math:: x_s = 2 h \sqrt{1 + |h|^2}, \qquad x_0 = 1 + 2|h|^2, \qquad \log_o x = 2 h \operatorname{asinhc}(|h|^2),

none of which cancels, or overflows before the point itself does.

Shapes: points ``(*, n + 1)``, tangent coordinates ``(*, n)``, ``k`` ``()`` or any batch shape that broadcasts with
``(*)``. The functions are pure and free of data-dependent branches; arguments are checked in the package's
dispatching functions.
"""

from collections.abc import Sequence

import torch
from geoopt import Lorentz
from torch import Tensor
from torch.nn.functional import pad

from pyro_hyperbolic.numerics import asinhc, log_sinhc, near_log_sinhc, sinhc

# Before and after a translation in the chart: the square of half the radius, kept from zero, and sinhc of the radius,
# or its inverse; shape ``(*, 2)`` each.
Stretch = tuple[Tensor, Tensor]

__all__ = [
    "Stretch",
    "contains",
    "dim",
    "distance",
    "event_size",
    "exp0",
    "log0",
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
    v = v / radius
    stretch, half = _stretch(square_norm(v) / 4)
    x = radius * torch.cat([1 + 2 * half, v * stretch], dim=-1)
    return x, (v.size(-1) - 1) * stretch.squeeze(-1).log()


def log0(manifold: Lorentz, x: Tensor) -> tuple[Tensor, Tensor]:
    radius = radius_of(manifold, x)
    space = x[..., 1:] / radius
    h = space / (2 + 2 * time_of(space)).sqrt()
    half = square_norm(h)
    ratio = asinhc(half)
    volume = (torch.log1p(half) / 2 - ratio.log()).squeeze(-1)
    return (2 * radius) * (h * ratio), (space.size(-1) - 1) * volume


def log_volume(manifold: Lorentz, v: Tensor) -> Tensor:
    # Not the by-product of exp0: this one is accurate relative to its own size near the origin, and never overflows.
    return (v.size(-1) - 1) * log_sinhc(square_norm(v / radius_of(manifold, v))).squeeze(-1)


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


def translate_tangent(manifold: Lorentz, t: Tensor, v: Tensor, inverse: bool) -> tuple[Tensor, Stretch | None]:
    radius = radius_of(manifold, v)
    if inverse:
        t = -t
    if v.size(-1) == 1:
        # H^1 is flat: the boost is a shift by the distance to the target.
        return v + radius * (t / radius).asinh(), None
    # As _boost, but eta is half the distance from the origin, and v is half of itself.
    diameter = 2 * radius
    t, v = t / radius, v / diameter
    # Kept from zero, by what is lost in rounding. Then tanh(eta) / eta needs no Taylor branch: its derivative is noise
    # of size u / eta^2 near zero, but what multiplies it is v times the derivative of |v|^2, of size eta^2. (The second
    # derivatives are off by u / eta, at most sqrt(u).) The same goes for `unwrap`.
    eps = torch.finfo(v.dtype).eps
    square = square_norm(v) + eps
    eta = square.sqrt()
    tanhc, half_x = eta.tanh() / eta, eta.cosh() ** 2
    one_plus_t0 = 1 + time_of(t)
    ball_t = t / one_plus_t0
    total = v * tanhc + ball_t
    rise = square_norm(total) * (one_plus_t0 / 2)
    height = rise * half_x + eps  # sinh^2 of half the distance of the moved point, kept from zero too
    sinh = height.sqrt()
    moved_eta = sinh.asinh()
    unwrap = moved_eta / (sinh * (1 + height).sqrt())
    w = (total + rise * ball_t) * (half_x * unwrap * diameter)
    return w, (torch.cat([square, half_x * tanhc], -1), torch.cat([moved_eta * moved_eta, unwrap], -1))


def log_stretch(n: int, stretches: Sequence[Stretch]) -> Tensor:
    parts = torch.stack(torch.broadcast_tensors(*(part for stretch in stretches for part in stretch)))
    squares, factors = parts.unbind(-1)
    # Far out, one logarithm of the product of both factors: their own logarithms are large and cancel. Near the
    # origin, where that product is 1 up to rounding, the series, small and accurate.
    near = near_log_sinhc(4 * squares.masked_fill(squares >= 0.5, 0.0))
    far = factors.masked_fill(squares < 0.5, 1.0)
    return (n - 1) * ((far[0::2] * far[1::2]).log() + (near[0::2] - near[1::2])).sum(0)


def radius_of(manifold: Lorentz, like: Tensor) -> Tensor:
    radius = manifold.k.to(like.dtype).sqrt()
    # A 0-dim k stays 0-dim: torch lets it live on another device than the points.
    return radius.unsqueeze(-1) if radius.dim() else radius


def square_norm(v: Tensor) -> Tensor:
    return (v * v).sum(-1, keepdim=True)


def time_of(space: Tensor) -> Tensor:
    """Returns the time coordinate, ``sqrt(1 + |space|^2)``, of a point with the given spatial part."""
    # In float64 whatever the dtype: the square of a float32 point at r > 44 overflows, and an infinite time coordinate
    # makes its logarithm silently zero. (Float64 itself reaches r = 354 so. Apple's GPUs have none.)
    wide = space if space.device.type == "mps" else space.double()
    # A norm that is at least 1 is smooth, and takes fewer kernels than a square, a sum and a root.
    return torch.linalg.vector_norm(pad(wide, (0, 1), value=1.0), dim=-1, keepdim=True).to(space.dtype)


def _stretch(quarter: Tensor) -> tuple[Tensor, Tensor]:
    """Returns ``sinh(r)/r`` and ``sinh(r/2)^2`` for ``quarter = (r/2)^2``."""
    ratio = sinhc(quarter)
    half = quarter * ratio * ratio
    return ratio * (1 + half).sqrt(), half


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
