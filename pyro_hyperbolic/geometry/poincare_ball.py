r"""The Poincaré ball :math:`\{p : |p| < R\}`, :math:`R = 1/\sqrt c`, curvature :math:`-c` (``geoopt.PoincareBall``).

Two points meet in their difference :math:`\delta`, where alone they may cancel (Möbius addition, rearranged):

.. math:: p \oplus x = \frac{|\delta|^2 p + \alpha \delta}{|\delta|^2 + \alpha\beta}, \qquad
    \sinh^2 \tfrac{d(-p, x)}{2} = \frac{|\delta|^2}{\alpha\beta}, \qquad
    \delta = p + x,\ \alpha = 1 - |p|^2,\ \beta = 1 - |x|^2

in units of R. Tangent coordinates at the origin are those of the hyperboloid of the same curvature. A ball squeezes
what is far into its rim: with the unit roundoff u, rounding moves a point at scaled radius r by ``u exp(r)`` radii, and
from r = 36 on (16 in float32) the nearest coordinates are no point.

References:
    *Hyperbolic Neural Networks*, O.-E. Ganea, G. Bécigneul, T. Hofmann, 2018, arXiv:1805.09112.
"""

import math
from collections.abc import Sequence
from types import SimpleNamespace

import geoopt
import torch
from torch import Tensor

from pyro_hyperbolic.numerics import asinh, asinhc, log_sinhc, norm, sinhc

from .base import Nested
from .hyperboloid import Hyperboloid, square_norm

__all__ = ["PoincareBall"]


class PoincareBall(Nested):
    """The open ball of radius ``1 / sqrt(c)``: points ``(*, n)``."""

    name = "PoincareBall"
    parameter_remedy = "on PoincareBall the curvature is -c, and c = 1 / k on Lorentz."

    _c: Tensor | None = None

    @property
    def c(self) -> Tensor:
        """Minus the curvature, read once."""
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
        return geoopt.PoincareBall(parameters["c"])

    def contains(self, x: Tensor) -> Tensor:
        return norm(x / self._radius(x)).squeeze(-1) < 1

    def explain(self, outside: Tensor, where: Tensor) -> tuple[str, str]:
        radius = (1 / self.c.detach().cpu().double().sqrt()).expand(where.shape)[where.cpu()][0]
        return (
            f" with |p| = {outside[0].double().norm().item():.9g}, but the open ball has radius 1/sqrt(c) = "
            f"{radius.item():.9g}",
            "map tangent coordinates with exp0(M, v), and points of the hyperboloid with "
            "charts.to_poincare_ball(M, x); near the boundary use geoopt.Lorentz, or float64",
        )

    def exp0(self, v: Tensor) -> tuple[Tensor, Tensor]:
        half = square_norm(v / (2 * self._radius(v)))
        # tanh(r / 2) / r, by sinh and cosh of r / 2 where these are in range.
        near = half < 1
        safe = half.masked_fill(~near, 0.0)
        r = half.masked_fill(near, 1.0).sqrt()
        ratio = torch.where(near, sinhc(safe) / (1 + safe * sinhc(safe) ** 2).sqrt(), r.tanh() / r)
        return self._or_infinite(v * ratio / 2), (v.size(-1) - 1) * log_sinhc(4 * half).squeeze(-1)

    def log0(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.log_at(torch.zeros_like(x), x)

    def translate(self, p: Tensor, x: Tensor, inverse: bool = False) -> Tensor:
        radius = self._radius(x)
        p, x = (-p if inverse else p) / radius, x / radius
        delta, alpha, beta = p + x, _gap(p), _gap(x)
        square = square_norm(delta)
        return self._or_infinite(radius * (square * p + alpha * delta) / (square + alpha * beta))

    def log_at(self, p: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        radius = self._radius(x)
        p, x = -p / radius, x / radius
        delta, alpha, beta = p + x, _gap(p), _gap(x)
        square = square_norm(delta)
        sinh2 = square / (alpha * beta)  # of half the distance
        ratio = asinhc(sinh2)
        # The direction of the Möbius sum, and the distance from what did not cancel.
        v = (square * p + alpha * delta) * (2 * radius * ratio / (alpha * beta * (square + alpha * beta)).sqrt())
        return v, (v.size(-1) - 1) * log_sinhc(4 * sinh2 * ratio * ratio).squeeze(-1)

    def log_at_of_tangent(self, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        w, _ = self.translate_tangent(2 * p / _gap(p / self._radius(p)), v, inverse=True)
        return w, self.log_volume(w)

    def log_volume(self, v: Tensor) -> Tensor:
        return self._hyperboloid().log_volume(v)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return (2 * self._radius(x) * asinh(norm(self._chord(x, y)))).squeeze(-1)

    def squared_distance(self, x: Tensor, y: Tensor) -> Tensor:
        sinh2 = square_norm(self._chord(x, y))
        return ((2 * self._radius(x) * asinhc(sinh2)) ** 2 * sinh2).squeeze(-1)

    def translate_tangent(
        self, t: Tensor, v: Tensor, inverse: bool = False, bound: float | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._hyperboloid().translate_tangent(t, v, inverse, bound)

    def _chord(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns a vector of length ``sinh(d(x, y) / 2)``, ``d`` in radii."""
        x, y = x / self._radius(x), y / self._radius(y)
        return (x - y) / (_gap(x) * _gap(y)).sqrt()

    def _or_infinite(self, x: Tensor) -> Tensor:
        """Returns points, infinite where what is far was rounded to the rim, or to the last numbers before it."""
        # From r = -log(eps) on, 36 radii and 16 in float32: |x| is 1 - 2 exp(-r), and no number tells r any more.
        return x.masked_fill(norm(x.detach() / self._radius(x)) > 1 - 2 * torch.finfo(x.dtype).eps, math.inf)

    def _radius(self, like: Tensor) -> Tensor:
        radius = self.c.to(like.dtype).rsqrt()
        return radius.unsqueeze(-1) if radius.dim() else radius


def _gap(p: Tensor) -> Tensor:
    """Returns ``1 - |p|^2``, shape ``(*, 1)``."""
    length = norm(p)
    return (1 - length) * (1 + length)
