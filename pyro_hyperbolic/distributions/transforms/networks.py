"""Networks of coupling layers, and checks of their sizes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.nn import ConditionalDenseNN, DenseNN
from torch import Tensor

from pyro_hyperbolic.geometry import checks

__all__ = [
    "ConditionalCouplingNN",
    "Conditioned",
    "CouplingNN",
    "build",
    "check_dim",
    "check_hypernet",
    "check_split",
    "widths_of",
]


class _FastDense:
    """Pyro's dense networks, with the same parameters and values, in two thirds of the time when small.

    The output is split in one operation, which has one gradient, and the list of layers is not copied.
    """

    layers: Any
    f: Any
    param_dims: list[int]

    def _forward(self, x: Tensor) -> tuple[Tensor, ...]:
        *hidden, last = self.layers._modules.values()
        for layer in hidden:
            x = self.f(layer(x))
        return last(x).split_with_sizes(self.param_dims, -1)


class CouplingNN(_FastDense, DenseNN):
    """A faster ``DenseNN`` that returns one tensor for each of ``param_dims``."""


class ConditionalCouplingNN(_FastDense, ConditionalDenseNN):
    """A faster ``ConditionalDenseNN`` that returns one tensor for each of ``param_dims``."""


class Conditioned:
    """A network with its context bound: a function of the first block, which broadcasts with the context."""

    def __init__(self, network: Callable[..., tuple[Tensor, Tensor]], context: Tensor) -> None:
        # Integers and booleans, such as one-hot vectors, are promoted to the dtype of the points.
        if not isinstance(context, Tensor) or context.is_floating_point() or context.is_complex():
            checks.check_floating("context", context)
        size = getattr(network, "context_dim", None)
        if size is not None and (context.dim() == 0 or context.size(-1) != size):
            raise ValueError(
                f"context has shape {tuple(context.shape)}, but the network was built for context_dim = {size}; give a "
                f"tensor (*, {size})."
            )
        self.network = network
        self.context = context
        self.batch_shape = context.shape[:-1]

    def __call__(self, x1: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the shift and the log-scale."""
        # Pyro's ConditionalDenseNN expands the context to the batch of points, but not points to the batch of contexts.
        batch = torch.broadcast_shapes(x1.shape[:-1], self.batch_shape)
        return self.network(x1.expand((*batch, x1.size(-1))), context=self.context)


def build(
    dim: int, context_dim: int | None, hidden_dims: Sequence[int] | None, split_dim: int | None
) -> tuple[int, Any]:
    """Returns ``split_dim`` and a dense network for a coupling layer that starts near the identity."""
    remedy = "a coupling splits the intrinsic dimensions in two; in one dimension lift a spline with TangentTransform"
    checks.check_count("dim", dim, 2, remedy)
    if context_dim is not None:
        checks.check_count("context_dim", context_dim, 1, "it is the length of a context vector")
    split_dim = dim // 2 if split_dim is None else split_dim
    check_split(split_dim, dim)
    widths = widths_of(hidden_dims, [10 * dim])
    moving = dim - split_dim
    # Pyro's default is one object, shared by all networks: to_pyro_module_ on one of them would change them all.
    activation = torch.nn.ReLU()
    network = (
        CouplingNN(split_dim, widths, [moving, moving], activation)
        if context_dim is None
        else ConditionalCouplingNN(split_dim, context_dim, widths, [moving, moving], activation)
    )
    with torch.no_grad():
        # Near the identity, but not at it: with zero weights the hidden layers would get no gradient at first.
        last: Any = network.layers[-1]
        last.weight.mul_(1e-2)
        last.bias.zero_()
    return split_dim, network


def widths_of(hidden_dims: Sequence[int] | None, default: list[int]) -> list[int]:
    """Returns the widths of hidden layers as a list, or raises."""
    if hidden_dims is None:
        return default
    remedy = f"it holds the widths of one hidden layer or more, as {default}"
    widths = [] if isinstance(hidden_dims, int) else checks.check_list("hidden_dims", hidden_dims, remedy)
    if not widths:
        raise ValueError(f"hidden_dims = {checks.shown(hidden_dims)}, but must be a non-empty list; {remedy}.")
    for width in widths:
        checks.check_count("a hidden_dim", width, 1, "it is the width of a hidden layer")
    return widths


def check_hypernet(hypernet: Any) -> None:
    """Raises unless ``hypernet`` is a function or a network."""
    checks.check_callable("hypernet", hypernet, "give a network that returns (shift, log_scale), as Pyro's DenseNN")


def check_split(split_dim: int, dim: int | None = None) -> None:
    """Raises unless both blocks have at least one coordinate."""
    if not isinstance(split_dim, int) or isinstance(split_dim, bool):
        raise TypeError(f"split_dim = {checks.shown(split_dim)}, but must be an integer number of coordinates.")
    if split_dim < 1 or (dim is not None and split_dim >= dim):
        bound = "" if dim is None else f" (dim = {dim})"
        raise ValueError(
            f"split_dim = {split_dim}, but must be at least 1 and less than the intrinsic dimension{bound}, so that "
            f"both blocks have a coordinate."
        )


def check_dim(hypernet: Any, dim: int) -> None:
    """Raises if a network of known sizes (Pyro's DenseNN) was built for another dimension."""
    inputs, outputs = getattr(hypernet, "input_dim", None), getattr(hypernet, "param_dims", None)
    if isinstance(inputs, int) and isinstance(outputs, Sequence) and inputs + outputs[0] != dim:
        raise ValueError(
            f"points have n = {dim} dimensions, but the layer was built for dim = {inputs + outputs[0]} (its network "
            f"maps {inputs} to {outputs[0]} coordinates); build it with dim = {dim} (intrinsic) and split_dim < {dim}."
        )
