"""Euclidean distances of all pairs of vectors, coordinate by coordinate.

A matrix product, ``|x|^2 + |y|^2 - 2 x . y``, would lose every digit of a small distance by cancellation. Differences
lose none, and are exactly zero for equal vectors.
"""

import torch
from torch import Tensor

__all__ = ["length", "square_distances"]


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
