r"""The Poincaré ball :math:`\{p : |p| < R\}`, :math:`R = 1/\sqrt c`, curvature :math:`-c` (``geoopt.PoincareBall``).

The maps use Möbius addition, rearranged so that only the difference :math:`\delta` of two points can cancel:

.. math:: p \oplus x = \frac{|\delta|^2 p + \alpha \delta}{|\delta|^2 + \alpha\beta}, \qquad
    \sinh^2 \tfrac{d(-p, x)}{2} = \frac{|\delta|^2}{\alpha\beta}, \qquad
    \delta = p + x,\ \alpha = 1 - |p|^2,\ \beta = 1 - |x|^2

in units of R. Tangent coordinates at the origin are the same as on the hyperboloid of the same curvature.

Precision: with unit roundoff u, rounding moves a point at scaled radius r by ``u exp(r)`` radii. Beyond r = 36 (16 in
float32) coordinates round to the boundary, and ``exp0`` and ``translate`` return infinity.

References:
    *Hyperbolic Neural Networks*, O.-E. Ganea, G. Bécigneul, T. Hofmann, 2018, arXiv:1805.09112.
"""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import geoopt
import torch
from torch import Tensor

from pyro_hyperbolic.numerics import asinh, asinhc, log_sinhc, norm, reflect, sinhc

from .base import Nested
from .hyperboloid import Hyperboloid, square_norm
from .pairs import by_rows, length, square_distances

__all__ = ["PoincareBall"]


class _Ball(geoopt.PoincareBall):
    """A ball of exactly this ``c``. Geoopt's stores its inverse softplus, over the tensor that it is given."""

    def __init__(self, c: Tensor) -> None:
        super().__init__()
        del self.isp_c
        self.register_buffer("_c", c)

    @property
    def c(self) -> Any:
        return self._c


class PoincareBall(Nested):
    """The open ball of radius ``1 / sqrt(c)``: points ``(*, n)``."""

    name = "PoincareBall"
    projectable = "coordinates must be inside the ball"
    parameter_remedy = (
        "the curvature of PoincareBall is -c, so c = 1 / k of Lorentz; above c = 88 geoopt's overflows in float32, but "
        "manifolds.PoincareBall does not."
    )

    _c: Tensor | None = None

    @property
    def c(self) -> Tensor:
        """Minus the curvature, read once because it may be a Pyro parameter."""
        if self._c is None:
            self._c = self.manifold.c
        return self._c

    def _hyperboloid(self) -> Hyperboloid:
        return Hyperboloid(SimpleNamespace(k=1 / self.c))

    def event_shape(self, n: int) -> torch.Size:
        return torch.Size((n,))

    def dim(self, shape: Sequence[int]) -> int:
        return shape[-1] if len(shape) else 0

    def parameters(self) -> dict[str, Tensor]:
        return {"c": self.c}

    def curvature(self) -> Tensor:
        return -self.c

    def with_parameters(self, parameters: dict[str, Tensor]) -> geoopt.PoincareBall:
        return _Ball(parameters["c"])

    def contains(self, x: Tensor) -> Tensor:
        return norm(x / self._radius(x)).squeeze(-1) < 1

    def explain(self, outside: Tensor, where: Tensor) -> tuple[str, str]:
        radius = (1 / self.c.detach().cpu().double().sqrt()).expand(where.shape)[where.cpu()][0]
        return (
            f" with |p| = {outside[0].double().norm().item():.9g}, but the open ball has radius 1/sqrt(c) = "
            f"{radius.item():.9g}",
            "map tangent coordinates with exp0(M, v), and points of the hyperboloid with "
            "charts.to_poincare_ball(M, x); near the boundary use float64 or geoopt.Lorentz",
        )

    def exp0(self, v: Tensor) -> tuple[Tensor, Tensor]:
        half = square_norm(v / (2 * self._radius(v)))
        # Near zero tanh(r) / r is computed from sinhc, which is smooth at the origin.
        near = half < 1
        safe = half.masked_fill(~near, 0.0)
        r = half.masked_fill(near, 1.0).sqrt()
        ratio = torch.where(near, sinhc(safe) / (1 + safe * sinhc(safe) ** 2).sqrt(), r.tanh() / r)
        return self._rim_to_infinity(v * ratio / 2), (v.size(-1) - 1) * log_sinhc(4 * half).squeeze(-1)

    def log0(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.log_at(torch.zeros_like(x), x)

    def translate(self, p: Tensor, x: Tensor, inverse: bool = False) -> Tensor:
        radius = self._radius(x)
        p, x = (-p if inverse else p) / radius, x / radius
        delta, alpha, beta = p + x, _gap(p), _gap(x)
        square = square_norm(delta)
        moved = radius * (square * p + alpha * delta) / (square + alpha * beta)
        return self._rim_to_infinity(moved).masked_fill(x.isinf(), math.inf)

    def log_at(self, p: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        radius = self._radius(x)
        p, x = -p / radius, x / radius
        delta, alpha, beta = p + x, _gap(p), _gap(x)
        square = square_norm(delta)
        sinh2 = square / (alpha * beta)  # sinh^2 of half the distance
        ratio = asinhc(sinh2)
        # The direction comes from the Möbius sum, the length from sinh2, which does not cancel.
        v = (square * p + alpha * delta) * (2 * radius * ratio / (alpha * beta * (square + alpha * beta)).sqrt())
        return v, (v.size(-1) - 1) * log_sinhc(4 * sinh2 * ratio * ratio).squeeze(-1)

    def log_at_of_tangent(self, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        w, _ = self.translate_tangent(2 * p / _gap(p / self._radius(p)), v, inverse=True)
        return w, self.log_volume(w)

    def midpoint(self, x: Tensor, weights: Tensor) -> Tensor:
        radius, dtype, p = self._radius(x).double(), x.dtype, x.double()
        space = 2 * p / _gap(p / radius)  # of the points of the hyperboloid
        hyperboloid = self._hyperboloid()
        m = hyperboloid.midpoint(hyperboloid.project(torch.nn.functional.pad(space, (1, 0))), weights.double())
        return self._rim_to_infinity((m[..., 1:] / (1 + m[..., :1] / radius)).to(dtype))

    def drift(self, x: Tensor, v: Tensor) -> Tensor:
        # The same components as on the hyperboloid, whose time coordinate is 1 + 2 |x|^2 / (1 - |x|^2).
        x = x / self._radius(x)
        return v + 2 * (v * square_norm(x) - x * (x * v).sum(-1, keepdim=True)) / _gap(x)

    def log_volume(self, v: Tensor) -> Tensor:
        return self._hyperboloid().log_volume(v)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return (2 * self._radius(x) * asinh(norm(self._chord(x, y)))).squeeze(-1)

    def distance_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        radius = self._radius(x)
        x, y = x / radius, y / radius
        factor_y = _gap(y).rsqrt().mT

        def apart(x: Tensor, factor_x: Tensor) -> Tensor:
            chord = length(square_distances(x, y)) * (factor_x * factor_y)
            return 2 * radius * chord.asinh()  # at most 1 / eps, whose cube is in range

        return by_rows(apart, y.size(-2), x, _gap(x).rsqrt())

    def squared_distance(self, x: Tensor, y: Tensor) -> Tensor:
        sinh2 = square_norm(self._chord(x, y))
        return ((2 * self._radius(x) * asinhc(sinh2)) ** 2 * sinh2).squeeze(-1)

    def translate_tangent(
        self, t: Tensor, v: Tensor, inverse: bool = False, bound: float | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._hyperboloid().translate_tangent(t, v, inverse, bound)

    def reflect(self, u: Tensor, x: Tensor) -> Tensor:
        return reflect(u, x)

    def _chord(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns a vector of length ``sinh(d(x, y) / 2)``, with ``d`` in radii."""
        x, y = x / self._radius(x), y / self._radius(y)
        return (x - y) / (_gap(x) * _gap(y)).sqrt()

    def _rim_to_infinity(self, x: Tensor) -> Tensor:
        """Returns the points, with those within rounding error of the boundary replaced by infinity."""
        # |x| = 1 - 2 exp(-r), so r is lost to rounding beyond -log(eps): 36 radii, or 16 in float32.
        return x.masked_fill(norm(x.detach() / self._radius(x)) > 1 - 2 * torch.finfo(x.dtype).eps, math.inf)

    def _radius(self, like: Tensor) -> Tensor:
        radius = self.c.to(like.dtype).rsqrt()
        return radius.unsqueeze(-1) if radius.dim() else radius


def _gap(p: Tensor) -> Tensor:
    """Returns ``1 - |p|^2``, shape ``(*, 1)``."""
    return 1 - square_norm(p)
