r"""Kernels of Euclidean space :math:`\mathbb{R}^n` (``geoopt.Euclidean(1)``): the flat limit of every other file.

``exp0`` and ``log0`` return fresh tensors, never their argument: a parameter that aliases its own constrained value
is corrupted by the optimiser's in-place update.
"""

from collections.abc import Sequence
from typing import Any

import torch
from geoopt import Euclidean
from torch import Tensor

from pyro_hyperbolic.numerics import norm

__all__ = [
    "contains",
    "curvature",
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
    "squared_distance",
    "translate",
    "translate_tangent",
]


def event_size(n: int) -> int:
    return n


def dim(event_size: int) -> int:
    return event_size


def parameters(manifold: Euclidean) -> dict[str, Tensor]:
    return {}


def curvature(manifold: Euclidean) -> Tensor:
    return torch.zeros(())


def origin(manifold: Euclidean, n: int, dtype: torch.dtype | None, device: torch.device | None) -> Tensor:
    return torch.zeros(n, dtype=dtype, device=device)


def contains(manifold: Euclidean, x: Tensor) -> Tensor:
    return x.isfinite().all(-1)


def exp0(manifold: Euclidean, v: Tensor) -> tuple[Tensor, Tensor]:
    return v.clone(), _zero(v)


def log0(manifold: Euclidean, x: Tensor) -> tuple[Tensor, Tensor]:
    return x.clone(), _zero(x)


def exp_at(manifold: Euclidean, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    x = v + p
    return x, _zero(x)


def log_at(manifold: Euclidean, p: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    v = x - p
    return v, _zero(v)


def log_volume(manifold: Euclidean, v: Tensor) -> Tensor:
    return _zero(v)


def translate(manifold: Euclidean, p: Tensor, x: Tensor, inverse: bool) -> Tensor:
    return x - p if inverse else x + p


def distance(manifold: Euclidean, x: Tensor, y: Tensor) -> Tensor:
    return norm(x - y).squeeze(-1)


def squared_distance(manifold: Euclidean, x: Tensor, y: Tensor) -> Tensor:
    return ((x - y) ** 2).sum(-1)


def translate_tangent(
    manifold: Euclidean, t: Tensor, v: Tensor, inverse: bool, bound: float | None = None
) -> tuple[Tensor, None]:
    # No bound: flat space has no radius to count lengths in, and is well-conditioned everywhere.
    return (v - t if inverse else v + t), None


def log_stretch(n: int, stretches: Sequence[Any]) -> Tensor:
    raise NotImplementedError("no translation of Euclidean space has a stretch")


def _zero(v: Tensor) -> Tensor:
    return v.new_zeros(()).expand(v.shape[:-1])
