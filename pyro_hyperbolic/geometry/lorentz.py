r"""Kernels of the hyperboloid :math:`\{x : -x_0^2 + |x_s|^2 = -k,\ x_0 > 0\}`, curvature :math:`-1/k`.

Only the spatial part :math:`x_s` of a point is read; the time coordinate is derived from it. Reading both and forming
:math:`-x_0 y_0 + x_s \cdot y_s` loses a factor :math:`e^{2r}`, the main defect of ``geoopt.Lorentz``, whose manifold
object these functions take. The internal coordinate is the *half-vector* :math:`h = \sqrt k \sinh(r/2)\, \hat v`,
where ``r`` is the distance from the origin over :math:`\sqrt k`: with it

.. math:: x_s = 2 h \sqrt{1 + |h|^2/k}, \qquad x_0/\sqrt k = 1 + 2|h|^2/k, \qquad
          \log_o x = 2 h \operatorname{asinhc}(|h|^2/k),

none of which cancels, or overflows before the point itself does.

Shapes: points ``(*, n + 1)``, tangent coordinates ``(*, n)``, ``k`` ``()`` or any batch shape that broadcasts with
``(*)``. The functions are pure and free of data-dependent branches; arguments are checked in the package's
dispatching functions.
"""

import torch
from geoopt import Lorentz
from torch import Tensor

from pyro_hyperbolic.numerics import asinhc, log_sinhc, sinhc

__all__ = [
    "contains",
    "dim",
    "distance",
    "event_size",
    "exp0",
    "log0",
    "log_volume",
    "origin",
    "parameters",
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
    radius = _squared_radius(manifold, x).sqrt()
    norm = torch.sqrt((radius / time) ** 2 + _square(space / time))
    inside = (time > 0) & ((norm - 1).abs() <= 64 * torch.finfo(x.dtype).eps)
    return inside.squeeze(-1)


def exp0(manifold: Lorentz, v: Tensor) -> tuple[Tensor, Tensor]:
    k = _squared_radius(manifold, v)
    stretch, half = _stretch(_square(v) / (4 * k))
    time = k.sqrt() * (1 + 2 * half)
    return torch.cat([time, v * stretch], dim=-1), (v.size(-1) - 1) * stretch.squeeze(-1).log()


def log0(manifold: Lorentz, x: Tensor) -> tuple[Tensor, Tensor]:
    k = _squared_radius(manifold, x)
    space = x[..., 1:]
    h = space / (2 * (1 + _time(space, k))).sqrt()
    half = _square(h) / k
    ratio = asinhc(half)
    return 2 * h * ratio, (space.size(-1) - 1) * (torch.log1p(half) / 2 - ratio.log()).squeeze(-1)


def log_volume(manifold: Lorentz, v: Tensor) -> Tensor:
    # Not the by-product of exp0: this one is accurate relative to its own size near the origin, and never overflows.
    k = _squared_radius(manifold, v)
    return (v.size(-1) - 1) * log_sinhc(_square(v) / k).squeeze(-1)


def translate(manifold: Lorentz, p: Tensor, x: Tensor, inverse: bool) -> Tensor:
    k = _squared_radius(manifold, x)
    target, space = p[..., 1:], x[..., 1:]
    target = -target if inverse else target
    if space.size(-1) == 1:
        moved = _boost_on_a_line(target, _time(target, k), space, _time(space, k))
    else:
        moved, _ = _boost(target, 1 + _time(target, k), space, 1 + _time(space, k), k)
    # From the spatial part as it was rounded, not from the boost: the point must be on the manifold.
    return torch.cat([k.sqrt() * _time(moved, k), moved], dim=-1)


def distance(manifold: Lorentz, x: Tensor, y: Tensor) -> Tensor:
    k = _squared_radius(manifold, x)
    xs, ys = x[..., 1:], y[..., 1:]
    if xs.size(-1) == 1:
        apart = _boost_on_a_line(-ys, _time(ys, k), xs, _time(xs, k))
        return (k.sqrt() * (apart.abs() / k.sqrt()).asinh()).squeeze(-1)
    rho = ((1 + _time(ys, k)) / (1 + _time(xs, k))).sqrt()
    # |rho x - y / rho| = 2 sqrt(k) sinh(d / (2 sqrt k)): exactly zero at x = y, where vector_norm has subgradient 0.
    chord = torch.linalg.vector_norm(rho * xs - ys / rho, dim=-1, keepdim=True)
    diameter = 2 * k.sqrt()
    return (diameter * (chord / diameter).asinh()).squeeze(-1)


def translate_tangent(manifold: Lorentz, t: Tensor, v: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    k = _squared_radius(manifold, v)
    t = -t if inverse else t
    if v.size(-1) == 1:
        # H^1 is flat: the boost is a shift by the distance to the target.
        radius = k.sqrt()
        moved = v + radius * (t / radius).asinh()
        return moved, moved.new_zeros(()).expand(moved.shape[:-1])
    quarter = _square(v) / (4 * k)
    stretch, half = _stretch(quarter)
    moved, height = _boost(t, 1 + _time(t, k), v * stretch, 2 * (1 + half), k)
    # height = x0 - 1 of the moved point, free of cancellation; only the direction-carrying vector is divided by it.
    h = moved / (2 * (2 + height)).sqrt()
    half_w = _square(h) / k
    ratio = asinhc(half_w)
    # Far out, one logarithm of the ratio of both stretches: their own logarithms are large and cancel. Near the origin
    # the ratio is 1 up to rounding, and the logarithms are small and accurate.
    z_v, z_w = 4 * quarter, 4 * half_w * ratio * ratio
    near = log_sinhc(torch.stack([z_v, z_w]))
    far = (stretch * ratio / (1 + half_w).sqrt()).log()
    volume = torch.where((z_v < 1) & (z_w < 1), near[0] - near[1], far)
    return 2 * h * ratio, (v.size(-1) - 1) * volume.squeeze(-1)


def _squared_radius(manifold: Lorentz, like: Tensor) -> Tensor:
    k = manifold.k.to(like.dtype)
    # A 0-dim k stays 0-dim: torch lets it live on another device than the points.
    return k.unsqueeze(-1) if k.dim() else k


def _square(v: Tensor) -> Tensor:
    return (v * v).sum(-1, keepdim=True)


def _time(space: Tensor, k: Tensor) -> Tensor:
    """Returns the time coordinate over the radius, ``sqrt(1 + |space|^2 / k)``, without overflow of the square."""
    # The result does not depend on the scale, so its derivative is exact with the scale held constant. Without it a
    # float32 point at r > 44 gets an infinite time coordinate and its logarithm is silently zero.
    scale = torch.maximum(
        torch.linalg.vector_norm(space.detach(), float("inf"), dim=-1, keepdim=True), k.detach().sqrt()
    )
    return scale * (1 / scale**2 + _square(space / scale) / k).sqrt()


def _stretch(quarter: Tensor) -> tuple[Tensor, Tensor]:
    """Returns ``sinh(r)/r`` and ``sinh(r/2)^2`` for ``quarter = (r/2)^2``."""
    ratio = sinhc(quarter)
    half = quarter * ratio * ratio
    return ratio * (1 + half).sqrt(), half


def _boost(p: Tensor, one_plus_p0: Tensor, x: Tensor, one_plus_x0: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the spatial part of ``T_p x`` and its time coordinate over the radius, minus one.

    ``T_p x = x + p (X + a) / P`` with ``a = |rho x + p / rho|^2 / (2 k) = cosh(d(x, -p)) - 1``, ``rho = sqrt(P / X)``:
    no term cancels in ``a``, and the result is exactly zero at ``x = -p``.
    """
    rho = (one_plus_p0 / one_plus_x0).sqrt()
    height = _square(rho * x + p / rho) / (2 * k)
    return x + p * ((one_plus_x0 + height) / one_plus_p0), height


def _boost_on_a_line(p: Tensor, p0: Tensor, x: Tensor, x0: Tensor) -> Tensor:
    """Returns the spatial part of ``T_p x`` in one dimension, ``x p0 + p x0``, times over the radius.

    Nearly opposite points cancel there, but ``(x p0 + p x0) (x p0 - p x0) = x^2 - p^2`` does not in factored form.
    """
    opposite = x * p < 0
    conjugate = torch.where(opposite, x * p0 - p * x0, 1.0)
    return torch.where(opposite, (x + p) * ((x - p) / conjugate), x * p0 + p * x0)
