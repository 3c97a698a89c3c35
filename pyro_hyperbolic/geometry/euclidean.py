r"""Euclidean space :math:`\mathbb{R}^n` (``geoopt.Euclidean(1)``)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_hyperbolic.numerics import norm, reflect

from .base import Nested, mixed, sum_of_squares
from .pairs import by_rows, length, power_of_two, square_distances

__all__ = ["Euclidean"]


class Euclidean(Nested):
    """Euclidean space: points ``(*, n)``.

    ``exp0`` and ``log0`` return copies, because an optimiser's in-place update would corrupt a parameter that aliases
    its own constrained value.
    """

    name = "Euclidean"

    def event_shape(self, n: int) -> torch.Size:
        return torch.Size((n,))

    def dim(self, shape: Sequence[int]) -> int:
        return shape[-1] if len(shape) else 0

    def curvature(self) -> Tensor:
        return torch.zeros(())

    def check_settings(self) -> None:
        if self.manifold.ndim != 1:
            raise ValueError(
                f"geoopt.Euclidean has ndim = {self.manifold.ndim}, but points are vectors; use geoopt.Euclidean(1)."
            )

    def contains(self, x: Tensor) -> Tensor:
        return x.isfinite().all(-1)

    def origin(self, n: int, dtype: torch.dtype | None, device: torch.device | None) -> Tensor:
        return torch.zeros(n, dtype=dtype, device=device)

    def exp0(self, v: Tensor) -> tuple[Tensor, Tensor]:
        return v.clone(), _zero(v)

    def log0(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.clone(), _zero(x)

    def translate(self, p: Tensor, x: Tensor, inverse: bool = False) -> Tensor:
        return x - p if inverse else x + p

    def log_volume(self, v: Tensor) -> Tensor:
        return _zero(v)

    def exp_at(self, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        x = v + p
        return x, _zero(x)

    def log_at(self, p: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        v = x - p
        return v, _zero(v)

    def attraction(self, x: Tensor, y: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        square = sum_of_squares(x, y)
        return square, lambda weights: mixed(weights, y) - x * weights.sum(0).unsqueeze(-1)

    def drift(self, x: Tensor, v: Tensor) -> Tensor:
        return v.expand(torch.broadcast_shapes(x.shape, v.shape))

    def velocity(self, s: Tensor, u: Tensor) -> Tensor:
        return u.expand(torch.broadcast_shapes(s.shape, u.shape))

    def midpoint(self, x: Tensor, weights: Tensor) -> Tensor:
        return (weights.unsqueeze(-1) * x).sum(0)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return norm(x - y).squeeze(-1)

    def distance_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        if not x.size(-2) or not y.size(-2):
            return super().distance_matrix(x, y)
        # Squares would leave the range, so divide by the size first: by a power of two, which loses no digit.
        largest = torch.maximum(*(v.detach().abs().amax((-2, -1), keepdim=True) for v in (x, y)))
        largest = largest.masked_fill(largest == 0, 1.0)
        scale = power_of_two(largest)
        return by_rows(lambda x: scale * length(square_distances(x, y / scale)), y.size(-2), x / scale)

    def translate_tangent(
        self, t: Tensor, v: Tensor, inverse: bool = False, bound: float | None = None
    ) -> tuple[Tensor, Tensor]:
        # The bound is ignored: translations of flat space are always well-conditioned.
        w = v - t if inverse else v + t
        return w, _zero(w)

    def reflect(self, u: Tensor, x: Tensor) -> Tensor:
        return reflect(u, x)


def _zero(v: Tensor) -> Tensor:
    return v.new_zeros(()).expand(v.shape[:-1])
