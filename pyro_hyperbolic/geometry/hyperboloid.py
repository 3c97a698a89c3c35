r"""The hyperboloid :math:`\{x : -x_0^2 + |x_s|^2 = -k,\ x_0 > 0\}`, curvature :math:`-1/k`.

Only the spatial part :math:`x_s` of a point is read; the time coordinate is derived from it. The usual inner product
:math:`-x_0 y_0 + x_s \cdot y_s`, as in ``geoopt.Lorentz``, loses a factor :math:`e^{2r}` of precision.

- Lengths are in units of :math:`R = \sqrt k`: arguments are divided by it, results multiplied.
- Radii, one for each event, are computed in float64 and floored below rounding error (:func:`_floor`).
- Translations are computed in the Poincaré ball, ``b = t / (1 + t_0)``, where only the sum of two points can cancel:

.. math:: \sinh^2 \tfrac{d(x, -t)}{2} = \tfrac{1 + x_0}{2} \tfrac{1 + t_0}{2}
    \left| \frac{x_s}{1 + x_0} + \frac{t_s}{1 + t_0} \right|^2.

Shapes: points ``(*, n + 1)``, tangent coordinates ``(*, n)``, ``k`` ``()`` or any batch shape that broadcasts with
``(*)``. The methods are pure and have no data-dependent branches.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from geoopt import Lorentz
from torch import Tensor
from torch.nn.functional import pad

from pyro_hyperbolic.numerics import asinh, asinhc, log_sinhc, near_log_sinhc, norm, reflect, sinhc

from .base import Nested, mixed, sum_of_squares
from .pairs import by_rows, length, power_of_two, square_distances

__all__ = ["Hyperboloid", "square_norm", "time_of"]

#: The half radius at which ``cosh(r / 2)**-2`` is clamped, close to underflow.
_FAR = 350.0

#: The radius beyond which ``cosh`` overflows.
_REACH = {torch.float16: 11.7, torch.bfloat16: 89.0, torch.float32: 89.0, torch.float64: 710.0}


class Hyperboloid(Nested):
    """The hyperboloid of squared radius ``k``: points ``(*, n + 1)``, time coordinate first."""

    name = "Lorentz"
    coordinates = "(*, n + 1)"
    parameter_remedy = (
        "on Lorentz it is the squared radius, and the curvature is -1/k; learn it with constraint=constraints.positive."
    )

    # Caches, in the dtype of the call.
    _k: Tensor | None = None
    _radius: Tensor | None = None
    _twice: Tensor | None = None

    @property
    def k(self) -> Tensor:
        """The squared radius, read once because reading a Pyro parameter is slow."""
        if self._k is None:
            self._k = self.manifold.k
        return self._k

    def radius(self, like: Tensor) -> Tensor:
        """Returns ``sqrt(k)`` in the dtype of ``like``, ``()`` or ``(*, 1)``."""
        if self._radius is None or self._radius.dtype != like.dtype:
            radius = self.k.to(like.dtype).sqrt()
            # A 0-dim k stays 0-dim, since torch allows it on another device than the points.
            self._radius = radius.unsqueeze(-1) if radius.dim() else radius
        return self._radius

    def _diameter(self, like: Tensor) -> Tensor:
        if self._twice is None or self._twice.dtype != like.dtype:
            self._twice = 2 * self.radius(like)
        return self._twice

    def event_shape(self, n: int) -> torch.Size:
        return torch.Size((n + 1,))

    def dim(self, shape: Sequence[int]) -> int:
        return shape[-1] - 1 if len(shape) else 0

    def parameters(self) -> dict[str, Tensor]:
        return {"k": self.k}

    def curvature(self) -> Tensor:
        return -1 / self.k

    def explain(self, outside: Tensor, where: Tensor) -> tuple[str, str]:
        k = self.k.detach().cpu().double().expand(where.shape)[where.cpu()]
        event, space = outside[0], outside[:, 1:].double()
        time, squares = event[0].double(), space[0].square().sum()  # in float64, because <x, x> cancels
        needed = (k[0] + squares).sqrt()
        sheet = "; this is the lower sheet, and x_0 > 0 is needed" if time < 0 else ""
        # Points of the hyperboloid have norm at least sqrt(k), points of the ball less.
        in_ball = bool((outside.double().square().sum(-1) < k).all())
        ball = ", points of the Poincaré ball with charts.from_poincare_ball(M, p)" if in_ball else ""
        return (
            f" with <x, x> = {(squares - time**2).item():.6g} where -k = {-k[0].item():.6g} is needed (the time "
            f"coordinate is off by {((time.abs() - needed) / needed).item():.2g} of itself{sheet})",
            f"map tangent coordinates with exp0(M, v){ball}, derive the time coordinate with M.projx(x), and use one "
            f"manifold (one k) and one dtype everywhere",
        )

    def mistake(self, event: Tensor) -> str:
        if self.k.numel() > 1:
            return "unclear"
        squares = event.double().square()
        k, value, close = float(self.k.detach()), float(squares[1:].sum() - squares[0]), 1e-6 * float(1 + squares.sum())
        if event[0] < 0:
            return "the lower sheet: the sign of the time coordinate is wrong"
        if event[0] == 0:
            return "a tangent vector, not a point: its time coordinate is zero"
        if abs(value + 1) < close:
            return "a point of the unit hyperboloid: the radius sqrt(k) is forgotten"
        if abs(value + k * k) < close or abs(value + 1 / k) < close:
            return "a point of another hyperboloid: k is the squared radius, and the curvature is -1/k"
        return f"unclear: <x, x> is {value:.6g}, not {-k:.6g}"

    def with_parameters(self, parameters: dict[str, Tensor]) -> Lorentz:
        return Lorentz(parameters["k"])

    def origin(self, n: int, dtype: torch.dtype | None, device: torch.device | None) -> Tensor:
        k = self.k.to(dtype=dtype, device=device).unsqueeze(-1)
        return torch.cat([k.sqrt(), k.new_zeros((*k.shape[:-1], n))], dim=-1)

    def contains(self, x: Tensor) -> Tensor:
        time, space = x[..., :1], x[..., 1:]
        # Dividing by the time coordinate first avoids overflow and makes the tolerance relative. A correctly rounded
        # point is within a few eps; 64 eps leaves room for long sums.
        norm = torch.sqrt((self.radius(x) / time) ** 2 + square_norm(space / time))
        inside = (time > 0) & ((norm - 1).abs() <= 64 * torch.finfo(x.dtype).eps)
        return inside.squeeze(-1)

    def project(self, x: Tensor) -> Tensor:
        """Returns the points with the same spatial coordinates."""
        radius, space = self.radius(x), x[..., 1:]
        time = radius * time_of(space / radius)
        return torch.cat([time, space.expand(*time.shape[:-1], -1)], dim=-1)

    def exp0(self, v: Tensor) -> tuple[Tensor, Tensor]:
        radius = self.radius(v)
        r = (_sum_of_squares(v / radius) + _floor(v) ** 2).sqrt()
        # Beyond reach the point is infinite with zero derivatives; the log-volume is still accurate.
        reach = _REACH[v.dtype]
        beyond, within = r > reach, r.clamp(max=reach)
        ratio = _near(lambda: r * r, sinhc, r, lambda r: within.sinh() / r, v)
        x = torch.cat([radius * within.cosh().to(v.dtype), v * ratio.to(v.dtype)], dim=-1).masked_fill(beyond, math.inf)
        if v.dtype == _wide(v):
            return x, (v.size(-1) - 1) * log_sinhc(r * r).squeeze(-1)
        return x, (v.size(-1) - 1) * (ratio.log() + (r - within)).squeeze(-1).to(v.dtype)

    def log0(self, x: Tensor) -> tuple[Tensor, Tensor]:
        space = x[..., 1:]
        scaled, scale = _scaled(space / self.radius(x), x)
        length = _norm_with(scaled, _floor(x), x)
        r = _asinh(length if scale is None else scale * length, x)
        ratio = _near(lambda: length * length, asinhc, length, lambda length: r / length, x)
        if scale is not None:
            ratio = ratio / scale
        return space * ratio.to(x.dtype), (1 - space.size(-1)) * _log_ratio(ratio, r, x, inverse=True)

    def log_volume(self, v: Tensor) -> Tensor:
        # Unlike the log-volume that exp0 returns, this one has small relative error near the origin.
        v = v / self.radius(v)
        near = (v.detach().abs() < 1).all(-1, keepdim=True)
        r = norm(v.masked_fill(near, 1.0).to(_wide(v)))
        far = r + torch.log1p(-torch.exp(-2 * r)) - torch.log(2 * r)
        stretch = torch.where(near, log_sinhc(square_norm(v.masked_fill(~near, 0.0))).to(far.dtype), far)
        return (v.size(-1) - 1) * stretch.squeeze(-1).to(v.dtype)

    def exp_at(self, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        radius = self.radius(v)
        if v.size(-1) == 1:
            space = _shifted(_widened(p[..., 1:] / radius), _widened(v / radius))
            log_volume_ = space.new_zeros(()).expand(space.shape[:-1]).to(v.dtype)
        else:
            diameter = self._diameter(v)
            ball_t, half_t, inverse_t = _in_ball(_widened(p[..., 1:] / diameter), v)
            tangent = _widened(v / diameter)
            eta = _norm_with(tangent, _floor(v), v)
            cosh, tanh = eta.cosh(), eta.tanh()
            shrink = _near(lambda: eta * eta, lambda z: sinhc(z) / cosh, eta, lambda eta: tanh / eta, v)
            half_x = cosh * cosh
            total = _meet(_along(tangent, eta, tanh, shrink, v), half_x.reciprocal(), ball_t, inverse_t)
            space = (total + ball_t * (square_norm(total) * half_t)) * (2 * half_x)
            log_volume_ = (v.size(-1) - 1) * _log_ratio(shrink * half_x, eta, v, half=True)
        # The time coordinate comes from the rounded spatial part, so that the point is on the manifold.
        space = space.to(v.dtype)
        return radius * torch.cat([time_of(space), space], dim=-1), log_volume_

    def log_at(self, p: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        radius = self.radius(x)
        target, space = -p[..., 1:], x[..., 1:]
        if space.size(-1) == 1:
            v = radius * _signed_sum(_widened(target / radius), _widened(space / radius)).to(x.dtype)
            return v, torch.zeros_like(v).squeeze(-1)
        diameter = self._diameter(x)
        ball_t, half_t, inverse_t = _in_ball(_widened(target / diameter), x)
        ball_x, half_x, inverse_x = _in_ball(_widened(space / diameter), x)
        total = _meet(ball_x, inverse_x, ball_t, inverse_t)
        # sinh(r / 2)**2 of the image is the height times half_x.
        square = square_norm(total) * half_t
        height = torch.add(square, inverse_x, alpha=_floor(x) ** 2)
        root, root_x = height.sqrt(), half_x.sqrt()
        eta = _asinh(root * root_x, x)
        # Divide by one factor at a time: derivatives divide by it again, and a product would leave the range.
        cosh = (height + inverse_x).sqrt()
        unwrap = _near(
            lambda: (root * root_x) ** 2,
            lambda sinh2: asinhc(sinh2) * half_x / (1 + sinh2).sqrt(),
            root,
            lambda root: eta / cosh / root,
            x,
        )
        outward = _outward(unwrap * square, eta, inverse_x, height, x)
        v = (total * unwrap + ball_t * outward).to(x.dtype)
        return v * diameter, (1 - v.size(-1)) * _log_ratio(unwrap * inverse_x, eta, x, half=True, inverse=True)

    def translate(self, p: Tensor, x: Tensor, inverse: bool = False) -> Tensor:
        radius = self.radius(x)
        target, space = -p[..., 1:] if inverse else p[..., 1:], x[..., 1:]
        if space.size(-1) == 1:
            moved = _boost_on_a_line(_widened(target / radius), _widened(space / radius))
        else:
            ball_t, half_t, inverse_t = _in_ball(_widened(target / self._diameter(x)), x)
            ball_x, half_x, inverse_x = _in_ball(_widened(space / self._diameter(x)), x)
            total = _meet(ball_x, inverse_x, ball_t, inverse_t)
            moved = (total + ball_t * (square_norm(total) * half_t)) * (2 * half_x)
        # The time coordinate comes from the rounded spatial part, so that the point is on the manifold.
        moved = moved.to(x.dtype)
        return radius * torch.cat([time_of(moved), moved], dim=-1)

    def midpoint(self, x: Tensor, weights: Tensor) -> Tensor:
        like, x = x, _widened(x)
        radius, weights = self.radius(x), _widened(weights).unsqueeze(-1)

        def centroid(at: Tensor) -> tuple[Tensor, Tensor]:
            """Returns the centroid, and the mean of cosh of distances from ``at``, computed in the frame of ``at``."""
            near = self.translate(at, x, inverse=True)[..., 1:] / radius
            time = (weights * time_of(near)).sum(0)
            flat = (weights * near).sum(0) / time
            # The square is lost to rounding if the centroid is 18 radii from `at`; then this is a step towards it.
            square = (1 - square_norm(flat)).clamp(min=torch.finfo(x.dtype).eps)
            moved = radius * flat * square.rsqrt()
            return self.translate(at, self.project(torch.cat([time, moved], -1))), time

        with torch.no_grad():
            starts = torch.zeros_like(x[0]), x[0]
            (a, cost_a), (b, cost_b) = (centroid(self.project(start)) for start in starts)
            at = torch.where(cost_b < cost_a, b, a)
            at = centroid(centroid(at)[0])[0]
        return self.project(centroid(at)[0].to(like.dtype))

    def attraction(self, x: Tensor, y: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        like, wide = x, _wide(x)
        x, y = x.to(wide), y.to(wide)
        radius = self.radius(x)
        a, b = x[..., 1:] / radius, y[..., 1:] / radius
        at, to = time_of(a), time_of(b)
        half, length, inward = _pull(at.squeeze(-1), to.squeeze(-1), sum_of_squares(a / at, b / to))

        def combine(weights: Tensor) -> Tensor:
            weights = weights * length
            found = radius * (mixed(weights, b) - a * (weights * inward).sum(0).unsqueeze(-1))
            return found.to(like.dtype)

        distance = 2 * half * (radius.squeeze(-1) if radius.dim() else radius)
        return distance.square().to(like.dtype), combine

    def guidance(self, x: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]:
        # As attraction, without the coordinates of the targets, which are many: their directions do not move.
        like, wide = x, _wide(x)
        x, s, t = x.to(wide), s.to(wide), t.to(wide)
        radius = self.radius(x)
        a, v = x[..., 1:] / radius, s / radius
        at = time_of(a)
        size = (square_norm(v).squeeze(-1) + _floor(x) ** 2).sqrt()
        to, stretch = (t * size).cosh(), (t * size).sinh() / size
        flat = stretch / to
        columns = zip((a / at).unbind(-1), v.unbind(-1), strict=True)
        apart = reduce(torch.add, ((p - flat * q).square() for p, q in columns))
        half, length, inward = _pull(at.squeeze(-1), to, apart)

        def guide(weights: Tensor, gains: Tensor) -> Tensor:
            pull = weights * gains * length
            found = radius * (mixed(pull * stretch, v) - a * (pull * inward).sum(0).unsqueeze(-1))
            return (found + self.drift(x, mixed(weights.to(wide), s))).to(like.dtype)

        distance = 2 * half * (radius.squeeze(-1) if radius.dim() else radius)
        return distance.square().to(like.dtype), ((1 - v.size(-1)) * length.log()).to(like.dtype), guide

    def drift(self, x: Tensor, v: Tensor) -> Tensor:
        # The part along x is moved by v, the part across by x_0 v. Written so, neither cancels.
        space = _widened(x[..., 1:] / self.radius(x))
        square = square_norm(space)
        unit = space / (square + _floor(x) ** 2).sqrt()
        across = v - unit * (unit * v).sum(-1, keepdim=True)
        return (v + square / (1 + time_of(space)) * across).to(x.dtype)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        if x.size(-1) == 2:
            apart = self.log_at(y, x)[0].abs()
        else:
            radius, chord = self._chord(x, y)
            apart = (radius * (2 * _asinh(norm(chord), x))).to(x.dtype)
        return apart.squeeze(-1)

    def distance_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        if x.size(-1) == 2 or not x.size(-2) or not y.size(-2):
            return super().distance_matrix(x, y)
        # A sum of squares has no cancellation to correct, as the difference of points in the ball has:
        #     4 sinh^2(d / 2) = x_0 y_0 |x_s / x_0 - y_s / y_0|^2 + (x_0 - y_0)^2 / (x_0 y_0).
        radius, per_x, single = self.radius(x), self._klein(x), x.dtype != _wide(x)
        flat_y, time_y, height_y = per_x if y is x else self._klein(y)

        def apart_in_wide(flat_x: Tensor, time_x: Tensor, height_x: Tensor) -> Tensor:
            weight, rise = time_x * time_y.mT, height_x - height_y.mT
            chord = length(torch.addcmul(weight * square_distances(flat_x, flat_y), rise, rise / weight))
            return (2 * radius * chord.asinh()).to(x.dtype)

        if single:
            return by_rows(apart_in_wide, y.size(-2), *per_x)
        # Squares of float64 points would leave the range, so a root of x_0 y_0 is taken out. Far out on a ray the flat
        # coordinates are equal; scaled up, their squares have a derivative in range.
        flat_x, root_x, height_x = per_x
        scale = power_of_two((root_x.detach().amax(-2, keepdim=True) * time_y.detach().amax(-2, keepdim=True)).sqrt())
        flat_x, flat_y = scale * flat_x, scale * flat_y

        def apart(flat_x: Tensor, root_x: Tensor, height_x: Tensor) -> Tensor:
            half = root_x * time_y.mT
            root = half.sqrt()
            slope = (height_x - height_y.mT) / half / root
            square = half / scale**2 * square_distances(flat_x, flat_y)
            return 2 * radius * _asinh_of_length(root * length(torch.addcmul(square, slope, slope)))

        return by_rows(apart, y.size(-2), flat_x, root_x, height_x)

    def squared_distance(self, x: Tensor, y: Tensor) -> Tensor:
        if x.size(-1) == 2:
            square = self.log_at(y, x)[0] ** 2
        else:
            radius, chord = self._chord(x, y)
            near = (chord.detach().abs() < 1).all(-1, keepdim=True)
            sinh2 = square_norm(chord.masked_fill(~near, 0.0))
            far = 2 * _asinh(norm(chord.masked_fill(near, 1.0)), x)
            square = (radius * (radius * torch.where(near, 4 * sinh2 * asinhc(sinh2) ** 2, far**2))).to(x.dtype)
        return square.squeeze(-1)

    def translate_tangent(
        self, t: Tensor, v: Tensor, inverse: bool = False, bound: float | None = None
    ) -> tuple[Tensor, Tensor]:
        radius = self.radius(v)
        if inverse:
            t = -t
        if v.size(-1) == 1:
            # H^1 is flat, so the boost is a shift by the distance to the target.
            w = v + radius * _asinh((t / radius).to(_wide(v)), v).to(v.dtype)
            return w, w.new_zeros(()).expand(w.shape[:-1])
        diameter = self._diameter(v)
        v = v / diameter
        eta = _norm_with(v, _floor(v), v)
        tanh, single = eta.tanh(), v.dtype != _wide(v)
        sech2: Any = None if single and bound is not None else eta.clamp(max=_FAR).cosh() ** -2  # else not needed
        if single:
            tanh2 = tanh * tanh
        else:
            # tanh**2 with the derivatives of 1 - sech2. torch differentiates tanh as 1 - tanh**2, which far out is
            # rounding error; a second derivative multiplies it by eta**2, to 600 u at eta = 19.
            tanh = tanh.detach()
            tanh2 = torch.addcmul(sech2.detach() - sech2, tanh, tanh)
            tanh = tanh2.sqrt()
        shrink = _near(lambda: eta * eta, lambda z: sinhc(z) * sech2.sqrt(), eta, lambda eta: tanh / eta, v)
        # With r the radius of the image, root = sinh(r / 2) / cosh(eta) and root_w = cosh(r / 2) / cosh(eta).
        if bound is None:
            ball, half_t, inverse_t = _in_ball(_widened(t / diameter), t)
            total = _meet(_along(_widened(v), eta, tanh, shrink, v), sech2, ball, inverse_t)
            height = torch.add(square_norm(total) * half_t, sech2, alpha=_floor(v) ** 2)
            total, ball_t = total.to(v.dtype), ball.to(v.dtype)
        else:  # a bounded target is near, and its radius is not lost in the ball
            ball, inverse_t = _in_ball_to(bound, t, diameter)
            ball_t = ball.to(v.dtype)
            total = v * shrink.to(v.dtype) + ball_t
            height = _sum_of_squares(total) / inverse_t + _floor(v) ** 2
        excess = height - tanh2
        root, root_w = height.sqrt(), (1 + excess if sech2 is None else height + sech2).sqrt()
        # The difference of the radii is computed directly: it is at most the target's radius, however far v and w are.
        eta_w = eta + (excess / (root + tanh * root_w)).asinh()
        if sech2 is None:
            unwrap = eta_w / (root * root_w)
        else:
            near = height < 1e-2 * sech2
            height_0, sech2_0 = height.masked_fill(~near, 0.0), sech2.masked_fill(~near, 1.0)
            unwrap = _near(
                lambda: (height_0 / sech2_0).masked_fill(~near, 1.0),
                lambda sinh2: asinhc(sinh2) / sech2_0 / (1 + sinh2).sqrt(),
                root,
                lambda root: eta_w / root_w / root,
                v,
            )
        if bound is not None:  # then the height is bounded too
            w = (total + ball_t * height.to(v.dtype)) * (unwrap * diameter).to(v.dtype)
        else:
            outward = _outward(unwrap * height, eta_w, sech2, height, v)
            w = (total * unwrap.to(v.dtype) + ball_t * outward.to(v.dtype)) * diameter
        if single:
            # The cosh factors of shrink and unwrap cancel.
            return w, ((v.size(-1) - 1) * (shrink * unwrap).log()).squeeze(-1).to(v.dtype)
        # Near the origin use the series: in one dtype, the log of the rounded ratio has no accurate derivative there.
        eta_w = unwrap * root_w * root
        near, near_w = eta < 0.7, eta_w < 0.7
        series = near_log_sinhc(4 * (eta**2).masked_fill(~near, 0.0))
        series = series - near_log_sinhc(4 * (eta_w**2).masked_fill(~near_w, 0.0))
        far = (shrink.masked_fill(near, 1.0) * unwrap.masked_fill(near_w, 1.0)).log()
        stretch = series + far + (near.to(v.dtype) - near_w.to(v.dtype)) * sech2.log()
        return w, (v.size(-1) - 1) * stretch.squeeze(-1)

    def blur(self, p: Tensor, radius: Tensor) -> Tensor:
        # Rounding moves points across the rays from the origin. Seen from p, those far away are moved across, too: by
        # the law of sines the angle between is at most that of sine sinh(|p|) / sinh(radius).
        farthest = self._farthest(p, radius)
        if p.size(-1) == 2:
            return farthest
        sine = (self._log_circle(farthest - radius) - self._log_circle(radius)).clamp(max=0.0)
        return farthest + (self._log_circle(farthest) + sine).exp()

    def reflect(self, u: Tensor, x: Tensor) -> Tensor:
        space = reflect(u, x[..., 1:])
        return torch.cat([x[..., :1].expand(*space.shape[:-1], 1), space], dim=-1)

    def log_at_of_tangent(self, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        w, _ = self.translate_tangent(p[..., 1:], v, inverse=True)
        return w, self.log_volume(w)

    def _klein(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns ``x_s / x_0``, ``x_0 / 2`` (of float64 points its root) and ``(x_0 - 1) / 4``, at ``k = 1``."""
        space, scale = _scaled(_widened(x[..., 1:] / self.radius(x)), x)
        if scale is None:
            time = _norm_with(space, 1.0, x)
            return space / time, time / 2, square_norm(space) / (4 * (time + 1))
        unit = 1 / scale
        time = torch.linalg.vector_norm(torch.cat([space, unit], -1), dim=-1, keepdim=True)
        return space / time, scale.sqrt() * (time / 2).sqrt(), scale * (square_norm(space) / (4 * (time + unit)))

    def _chord(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ``sqrt(k)`` and a vector of length ``sinh(d(x, y) / 2)``, with ``d`` in radii; zero at ``x = y``."""
        radius = self.radius(x)
        ball_x, half_x, inverse_x = _in_ball(_widened(x[..., 1:] / self._diameter(x)), x)
        ball_y, half_y, inverse_y = _in_ball(_widened(-y[..., 1:] / self._diameter(x)), y)
        return radius, _meet(ball_x, inverse_x, ball_y, inverse_y) * half_x.sqrt() * half_y.sqrt()


def _pull(time: Tensor, times: Tensor, flat_square: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns half the distance, and factors of the vectors to points, from the square of ``x_s / x_0 - y_s / y_0``.

    With q = sinh^2(d / 2), from the sum of squares in distance_matrix, log_x(y) is in the direction of
    y_s - x_s - x_s (y_0 - x_0 + 2 q) / (1 + x_0), whose length is sinh(d). In single precision, near points at r = 15
    would lose two digits of it, and products leave the range at 45.
    """
    rise, product = time - times, time * times / 4
    # The floor is lost in rounding, and saves the Taylor branch of asinhc.
    q = product * flat_square + rise * rise / (16 * product) + torch.finfo(time.dtype).eps
    root = q.sqrt()
    half = root.asinh()
    return half, half / (root * (1 + q).sqrt()), 1 + (2 * q - rise) / (1 + time)


def _meet(ball_x: Tensor, inverse_x: Tensor, ball_t: Tensor, inverse_t: Tensor) -> Tensor:
    """Returns the sum ``c = b_x + b_t`` of two points of the Poincaré ball, accurate even on opposite rays.

    Far points on opposite rays have coordinates near 1 and -1, so their rounded sum loses both radii. With
    ``z = b_x - b_t`` the product ``c . z = |b_x|^2 - |b_t|^2 = 2 / (1 + t_0) - 2 / (1 + x_0)`` keeps them, and corrects
    ``c`` along ``z``. The divisor 4 is ``|z|^2`` on opposite rays; elsewhere the correction vanishes. ``inverse_x`` is
    ``2 / (1 + x_0)``, and ``inverse_t`` likewise.
    """
    total, between = ball_x + ball_t, ball_x - ball_t
    excess = (total * between).sum(-1, keepdim=True) - (inverse_t - inverse_x)
    return torch.addcmul(total, between, excess, value=-0.25)


def _along(v: Tensor, eta: Tensor, tanh: Tensor, shrink: Tensor, like: Tensor) -> Tensor:
    """Returns ``v * shrink``, a point of the ball; far out it normalises ``v`` first, which is exact on an axis.

    In float32 it normalises by the true length, because the floor of ``eta`` exceeds the rounding of float64.
    """
    far = eta > 1
    length = eta
    if like.dtype != _wide(like):
        length = torch.linalg.vector_norm(v.masked_fill(~far, 1.0), dim=-1, keepdim=True)
    return torch.where(far, v / length * tanh, v * shrink)


def _near(
    square: Callable[[], Tensor],
    series: Callable[[Tensor], Tensor],
    divisor: Tensor,
    far: Callable[[Tensor], Tensor],
    like: Tensor,
) -> Tensor:
    """Returns ``far(divisor)``, or ``series(square())`` near zero, where a float64 ratio has no second derivative.

    For float32 points the radii are float64, and ``far`` is accurate enough for both derivatives.
    """
    if like.dtype != _wide(like):
        return far(divisor)
    z = square()
    near = z < 1e-2
    return torch.where(near, series(z.masked_fill(~near, 0.0)), far(divisor.masked_fill(near, 1.0)))


def _outward(product: Tensor, eta: Tensor, sech2: Tensor, height: Tensor, like: Tensor) -> Tensor:
    """Returns ``eta * tanh(eta)``, equal to ``product``, from ``tanh(eta)**-2 = 1 + sech2 / height`` away from zero.

    Where a point at radius ``r`` passes behind a far target, the factors of the product change by ``exp(2 r)``, and
    terms as large as that cancel in its second derivative. For float32 points float64 has room for them.
    """
    if like.dtype != _wide(like):
        return product
    return torch.where(eta < 0.1, product, eta * (1 + sech2 / height).rsqrt())


def _asinh(x: Tensor, like: Tensor) -> Tensor:
    """Returns asinh; ``torch.asinh`` cubes ``x`` in its derivatives, which is in range for float32 points."""
    return x.asinh() if like.dtype != _wide(like) else asinh(x)


def _asinh_of_length(x: Tensor) -> Tensor:
    """Returns asinh of nonnegative numbers, in half the operations of the function for both signs."""
    return torch.log1p(x * (1 + x / (1 + torch.hypot(x, x.new_ones(())))))


# ---- the hyperbolic line, where translations add signed radii ----


def _growth(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns two factors of ``exp(asinh(|x|))``, both at least one; the first is constant under autograd."""
    scale = x.detach().abs().clamp(min=1.0)
    x = x / scale
    return scale, torch.hypot(x, 1 / scale) + x.abs()


def _signed_growth(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns ``exp(asinh(x))`` and its inverse, both without cancellation, for ``|x| >= 1``."""
    scale, growth = _growth(x)
    up, down = scale * growth, (1 / scale) / growth
    return torch.where(x > 0, up, down), torch.where(x > 0, down, up)


def _boost_on_a_line(t: Tensor, x: Tensor) -> Tensor:
    """Returns ``sinh(asinh(t) + asinh(x))``."""
    near = (t.abs() < 1) | (x.abs() < 1)
    (up_t, down_t), (up_x, down_x), one = _signed_growth(t), _signed_growth(x), x.new_ones(())
    far = (up_t * up_x - down_t * down_x) / 2
    t, x = t.masked_fill(~near, 0.0), x.masked_fill(~near, 0.0)
    return torch.where(near, t * torch.hypot(x, one) + x * torch.hypot(t, one), far)


def _signed_sum(t: Tensor, x: Tensor) -> Tensor:
    """Returns ``asinh(t) + asinh(x)``."""
    near, opposite = (t.abs() < 1) | (x.abs() < 1), (t > 0) != (x > 0)
    (scale_t, growth_t), (scale_x, growth_x) = _growth(t), _growth(x)
    apart = ((scale_t / scale_x) * (growth_t / growth_x)).log()  # exactly zero for a point and itself
    together = (scale_t.log() + growth_t.log()) + (scale_x.log() + growth_x.log())
    far = t.sign() * torch.where(opposite, apart, together)
    return torch.where(near, asinh(_boost_on_a_line(t.masked_fill(~near, 0.0), x.masked_fill(~near, 0.0))), far)


def _shifted(t: Tensor, v: Tensor) -> Tensor:
    """Returns ``sinh(asinh(t) + v)``."""
    near = t.abs() < 1
    up, down = _signed_growth(t)
    far = (up * v.exp() - down * (-v).exp()) / 2
    t, v = t.masked_fill(~near, 0.0), v.masked_fill(~near, 0.0)
    return torch.where(near, t * v.cosh() + torch.hypot(t, t.new_ones(())) * v.sinh(), far)


def _in_ball(t: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns ``b = t / (1 + t_0)`` in the Poincaré ball, ``(1 + t_0) / 2`` and its inverse, from ``t / 2``."""
    t, scale = _scaled(t, like)
    if scale is None:
        half = _norm_with(t, 0.5, like) + 0.5
        inverse = half.reciprocal()
        return t * inverse, half, inverse
    half = torch.linalg.vector_norm(torch.cat([t, 0.5 / scale], -1), dim=-1, keepdim=True) + 0.5 / scale
    inverse = half.reciprocal()
    return t * inverse, scale * half, inverse / scale


def _in_ball_to(bound: float, t: Tensor, diameter: Tensor) -> tuple[Tensor, Tensor]:
    """Returns ``b = (t / 2) / sqrt(1 + |t / 2|^2 / c^2)``, shorter than ``c``, and the ``2 / (1 + t_0)`` of ``b``.

    Here ``c`` is ``|b|`` of :func:`_in_ball` at ``|t| = bound``. Bounding ``b`` changes near targets less than bounding
    ``t``, and takes fewer operations.
    """
    longest = bound / (1 + math.sqrt(1 + bound**2))
    # In float64, because the derivatives of float32 targets up to r = 88 overflow float32.
    half = _widened(t / (diameter * longest))
    shrink = longest * _norm_with(half, 1.0, t).reciprocal()
    return half * shrink, (1 - longest**2) + shrink * shrink


def _widened(x: Tensor) -> Tensor:
    """Returns ``x`` in float64, where squares and inverses of float32 points, out to r = 88, are in range."""
    return x.to(_wide(x))


def _scaled(space: Tensor, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """Returns a vector over its size, and the size, a constant of at least one; a float32 vector as it is, and None.

    Without scaling, second derivatives of a point at radius ``r`` are of size ``exp(-2 r)`` with intermediate values
    of size ``exp(-3 r)``, which underflow beyond ``r = 240``.
    """
    if like.dtype != _wide(like):
        return space, None
    scale = torch.linalg.vector_norm(space.detach(), math.inf, dim=-1, keepdim=True).clamp(min=1.0)
    return space / scale, scale


def square_norm(v: Tensor) -> Tensor:
    return (v * v).sum(-1, keepdim=True)


def _sum_of_squares(v: Tensor) -> Tensor:
    """Returns :func:`square_norm`, converted to float64."""
    return square_norm(v).to(_wide(v))  # summing with dtype=float64 would copy the whole vectors first


def time_of(space: Tensor) -> Tensor:
    """Returns the time coordinate, ``sqrt(1 + |space|^2)``, of a point with the given spatial part."""
    return _norm_with(space, 1.0, space).to(space.dtype)


def _norm_with(space: Tensor, coordinate: float, like: Tensor) -> Tensor:
    """Returns the norm of a vector extended by one coordinate, in float64."""
    # A positive norm is smooth, and takes fewer kernels than a square, a sum and a root. It is computed in float64
    # because the square of a float32 point at r > 44 overflows; float64 vectors are scaled for the same reason.
    extended = pad(space, (0, 1), value=coordinate)
    if like.dtype == _wide(like):
        return norm(extended)
    return torch.linalg.vector_norm(extended, dim=-1, keepdim=True, dtype=_wide(space))


def _floor(x: Tensor) -> float:
    """Returns the floor of a radius, added in quadrature: small enough to be lost in rounding.

    With it ``sinh(r) / r`` needs no Taylor branch for float32 points, whose radii are float64. Near zero its derivative
    is noise of size ``u / r``, with ``u`` the unit roundoff, but it is multiplied by vectors of size ``r``.
    """
    return float(2.0**-26 if x.dtype == _wide(x) == torch.float64 else 2.0**-12)


def _log_ratio(ratio: Tensor, eta: Tensor, like: Tensor, *, half: bool = False, inverse: bool = False) -> Tensor:
    """Returns the logarithm of ``ratio = sinh(r) / r`` or its inverse, shape ``(*)``; ``eta`` is ``r`` or ``r / 2``.

    It is differentiable in ``r^2``, and accurate to the rounding of ``like``.
    """
    if like.dtype != _wide(like):
        return ratio.squeeze(-1).log().to(like.dtype)
    # No vector multiplies this derivative, and in one dtype the log of the rounded ratio has none at the origin.
    log_ratio = log_sinhc((4 if half else 1) * eta * eta).squeeze(-1)
    return -log_ratio if inverse else log_ratio


def _wide(x: Tensor) -> torch.dtype:
    """Returns the dtype of norms: float64, or the dtype of ``x`` on Apple GPUs, which lack float64."""
    return x.dtype if x.device.type == "mps" else torch.float64
