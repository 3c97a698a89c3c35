"""Matrix products at full precision: under ``torch.autocast`` points would be rounded to 8 bits."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = ["autocasts", "matmul", "without_autocast"]


def autocasts(x: Tensor) -> bool:
    """Returns whether matrix products with ``x`` are computed in a lower precision."""
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Returns a context that turns autocast off for ``x``."""
    return torch.autocast(x.device.type, enabled=False) if autocasts(x) else nullcontext()


def matmul(a: Tensor, b: Tensor, *others: Tensor) -> Tensor:
    """Returns the product of matrices, from the left, in their dtype."""
    with without_autocast(a):
        product = a @ b
        for each in others:
            product = product @ each
        return product
