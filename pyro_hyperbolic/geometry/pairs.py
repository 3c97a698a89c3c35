"""Euclidean distances of all pairs of vectors, coordinate by coordinate, in blocks of rows.

A matrix product, ``|x|^2 + |y|^2 - 2 x . y``, would lose every digit of a small distance by cancellation. Differences
lose none, and are exactly zero for equal vectors.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["by_rows", "length", "power_of_two", "square_distances"]

#: The number of pairs of a block. Larger temporaries leave the cache, and are mapped and zeroed page by page.
_BLOCK = 2**18


def by_rows(function: Callable[..., Tensor], m: int, *x: Tensor) -> Tensor:
    """Returns ``function(*x)``, shape ``(*, N, m)``, of tensors ``(*, N, n)``: one block of rows after another.

    A backward pass computes each block again. It is three times as fast as one that keeps a dozen matrices of all
    pairs, with a tenth of the memory (N = 2665).
    """
    *batch, N, _ = x[0].shape
    rows = max(_BLOCK // max(m * math.prod(batch), 1), 1)
    tracing = torch.jit.is_tracing() or torch._C._are_functorch_transforms_active()  # type: ignore[attr-defined]
    if tracing or rows >= N:
        return function(*x)
    blocks = zip(*(value.split(rows, -2) for value in x), strict=True)
    results = [checkpoint(function, *block, use_reentrant=False, preserve_rng_state=False) for block in blocks]
    return torch.cat(results, -2)


def square_distances(x: Tensor, y: Tensor) -> Tensor:
    """Returns ``|x_i - y_j|^2``, shape ``(*, N, m)``, of vectors ``(*, N, n)`` and ``(*, m, n)``."""
    # A column of y is made contiguous once, since the kernels of all pairs read it N times.
    columns = zip(x.unbind(-1), y.mT.contiguous().unbind(-2), strict=True)
    apart = (a.unsqueeze(-1) - b.unsqueeze(-2) for a, b in columns)
    first = next(apart)
    total = first * first
    for difference in apart:
        total = torch.addcmul(total, difference, difference)
    return total


def length(square: Tensor) -> Tensor:
    """Returns the square root; its derivatives at zero are zero."""
    zero = square == 0
    return square.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def power_of_two(x: Tensor) -> Tensor:
    """Returns the largest power of two up to each positive number; dividing by it loses no digit."""
    return x / (2 * torch.frexp(x).mantissa)
