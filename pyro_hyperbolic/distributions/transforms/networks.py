"""Networks of coupling layers, and checks of their sizes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.nn import ConditionalDenseNN, DenseNN
from torch import Tensor

from pyro_hyperbolic.geometry import checks

__all__ = [
    "AttentionNN",
    "ConditionalCouplingNN",
    "Conditioned",
    "CouplingNN",
    "build",
    "call",
    "check_context",
    "check_dim",
    "check_hypernet",
    "check_split",
    "start_near_zero",
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


class AttentionNN(torch.nn.Module):
    r"""Attends over a set of points, :math:`h_i \leftarrow h_i + \sum_j \operatorname{softmax}_j(q_i \cdot k_j) v_j`.

    A hypernet of couplings in a :class:`~.SetTransform`: the points of a set are along dimension -2. Pre-norm blocks of
    multi-head self-attention without positions, so permuted points give permuted outputs. Padded points are not
    attended to. The outputs start near zero, so a flow starts near the identity. A call costs ``N ** 2`` per set.

    Shapes: ``x`` is ``(*, N, input_dim)``, the outputs are ``(*, N, p)`` for ``p`` in ``param_dims``.

    Args:
        input_dim: Size of the first block of coordinates.
        param_dims: Sizes of the outputs.
        hidden_dim: Width, a multiple of ``heads``.
        heads: Number of attention heads.
        layers: Number of blocks.
        context_dim: Length of a context vector, 0 for none. A context is ``(*, N, context_dim)``, one for each point,
            or ``(*, 1, context_dim)``, one for each set.

    Raises:
        TypeError: If a size is not an integer, or ``param_dims`` not a list of them.
        ValueError: If a size is out of range; on a call, if ``x`` has no dimension of points, or ``x`` or the context
            another size.

    References:
        *Set Transformer*, J. Lee, Y. Lee, J. Kim, A. R. Kosiorek, S. Choi, Y. W. Teh, 2019, arXiv:1810.00825.
        *On Layer Normalization in the Transformer Architecture*, R. Xiong et al., 2020, arXiv:2002.04745.

    Example:
        >>> network = AttentionNN(2, [3, 3])
        >>> x = torch.randn(5, 2)
        >>> shift, log_scale = network(x)
        >>> torch.allclose(network(x.flip(0))[0], shift.flip(0), atol=1e-6)
        True
    """

    def __init__(
        self,
        input_dim: int,
        param_dims: Sequence[int],
        hidden_dim: int = 32,
        heads: int = 4,
        layers: int = 2,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (("input_dim", input_dim, 1), ("hidden_dim", hidden_dim, 1), ("heads", heads, 1)):
            checks.check_count(name, value, least, "it is a size of the network")
        checks.check_count("layers", layers, 1, "it is a number of attention blocks")
        checks.check_count("context_dim", context_dim, 0, "it is the length of a context vector, 0 for none")
        if hidden_dim % heads:
            raise ValueError(f"hidden_dim = {hidden_dim} is not a multiple of heads = {heads}; choose one that is.")
        param_dims = checks.check_list("param_dims", param_dims, "it holds the sizes of the outputs, as [3, 3]")
        for size in param_dims:
            checks.check_count("one of param_dims", size, 1, "it is the size of an output")
        self.input_dim, self.param_dims, self.context_dim = input_dim, param_dims, context_dim
        self.first = torch.nn.Linear(input_dim + context_dim, hidden_dim)
        self.blocks = torch.nn.ModuleList([_AttentionBlock(hidden_dim, heads) for _ in range(layers)])
        self.norm = torch.nn.LayerNorm(hidden_dim)
        self.last = torch.nn.Linear(hidden_dim, sum(self.param_dims))
        start_near_zero(self.last)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Returns one tensor for each of ``param_dims``; ``mask`` ``(*, N)`` is True for points to attend to."""
        if x.dim() < 2:
            raise ValueError(
                f"the network attends over the points of a set, (*, N, {self.input_dim}), but got a tensor of shape "
                f"{tuple(x.shape)}; put the flow in HT.SetTransform."
            )
        found = 0 if context is None else context.size(-1)
        if not checks.tracing() and (x.size(-1), found) != (self.input_dim, self.context_dim):
            raise ValueError(
                f"x has shape {tuple(x.shape)} and the context {found} coordinates, but the network was built for "
                f"input_dim = {self.input_dim} and context_dim = {self.context_dim}; build it for these."
            )
        if context is not None:
            x = torch.cat([x, context.expand(*x.shape[:-1], context.size(-1))], -1)
        if mask is not None:
            # A set without points would give softmax nothing to attend to, and NaN.
            mask = (mask | ~mask.any(-1, keepdim=True))[..., None, None, :]
        x = self.first(x)
        for block in self.blocks:
            x = block(x, mask)
        return self.last(self.norm(x)).split_with_sizes(self.param_dims, -1)


class _AttentionBlock(torch.nn.Module):
    """A block of a transformer: attention, then a dense layer, each added to its normalised argument.

    Not ``torch.nn.TransformerEncoderLayer``, whose attention has no second derivative on the CPU (Laplace
    approximations take it), takes one batch dimension only, and is no faster at 100 points.
    """

    def __init__(self, hidden_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = torch.nn.LayerNorm(hidden_dim)
        self.query_key_value = torch.nn.Linear(hidden_dim, 3 * hidden_dim)
        self.joined = torch.nn.Linear(hidden_dim, hidden_dim)
        self.dense_norm = torch.nn.LayerNorm(hidden_dim)
        self.wide = torch.nn.Linear(hidden_dim, 2 * hidden_dim)
        self.narrow = torch.nn.Linear(2 * hidden_dim, hidden_dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        parts = self.query_key_value(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.movedim(-4, -2).unbind(-4)  # each (*, heads, N, width of a head)
        scores = query @ key.mT / query.size(-1) ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        x = x + self.joined((scores.softmax(-1) @ value).movedim(-3, -2).flatten(-2))
        return x + self.narrow(torch.nn.functional.gelu(self.wide(self.dense_norm(x))))


class Conditioned:
    """A network with its context bound: a function of the first block, which broadcasts with the context."""

    def __init__(self, network: Callable[..., tuple[Tensor, Tensor]], context: Tensor) -> None:
        check_context(context, network)
        self.network = network
        self.context = context
        self.batch_shape = context.shape[:-1]

    def __call__(self, x1: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the shift and the log-scale."""
        context = self.context
        if mask is not None:  # the contexts of padded points may be anything, as the points
            context = torch.where(mask.unsqueeze(-1), context, 0)
        # Pyro's ConditionalDenseNN expands the context to the batch of points, but not points to the batch of contexts.
        batch = torch.broadcast_shapes(x1.shape[:-1], self.batch_shape)
        return call(self.network, x1.expand((*batch, x1.size(-1))), mask, context=context)


#: The methods of Pyro's networks that map each point by itself.
_POINTWISE = (DenseNN.forward, ConditionalDenseNN.forward)


def call(network: Callable[..., Any], x: Tensor, mask: Tensor | None, **context: Tensor) -> Any:
    """Returns the outputs of a network; one that may mix the points of a set is told which of them are real."""
    if mask is None or getattr(type(network), "forward", None) in _POINTWISE:
        return network(x, **context)
    try:
        return network(x, mask=mask, **context)
    except TypeError as error:
        if "unexpected keyword argument 'mask'" not in str(error):
            raise
        raise TypeError(
            f"the network {checks.shown(network)} takes no mask=, but SetTransform passes its mask, so that padded "
            f"points are not seen; add an argument mask=None, and leave it unused if the network maps each point by "
            f"itself."
        ) from error


def build(
    dim: int,
    context_dim: int | None,
    hidden_dims: Sequence[int] | None,
    split_dim: int | None,
    hypernet: Callable[..., Any] | None = None,
) -> tuple[int, Any]:
    """Returns ``split_dim`` and a network, dense by default, for a coupling layer that starts near the identity."""
    remedy = "a coupling splits the intrinsic dimensions in two; in one dimension lift a spline with TangentTransform"
    checks.check_count("dim", dim, 2, remedy)
    if context_dim is not None:
        checks.check_count("context_dim", context_dim, 1, "it is the length of a context vector")
    split_dim = dim // 2 if split_dim is None else split_dim
    check_split(split_dim, dim)
    moving = dim - split_dim
    if hypernet is not None:
        remedy = "give a function of (input_dim, param_dims) that returns a network, as HT.AttentionNN"
        if not callable(hypernet) or isinstance(hypernet, torch.nn.Module):
            raise TypeError(f"hypernet = {checks.shown(hypernet)}, but must make a network; {remedy}.")
        if hidden_dims is not None:
            raise ValueError(f"hidden_dims = {hidden_dims} is of dense networks, but hypernet is given too; drop one.")
        options = {} if context_dim is None else {"context_dim": context_dim}
        return split_dim, hypernet(split_dim, [moving, moving], **options)
    widths = widths_of(hidden_dims, [10 * dim])
    # Pyro's default is one object, shared by all networks: to_pyro_module_ on one of them would change them all.
    activation = torch.nn.ReLU()
    network = (
        CouplingNN(split_dim, widths, [moving, moving], activation)
        if context_dim is None
        else ConditionalCouplingNN(split_dim, context_dim, widths, [moving, moving], activation)
    )
    start_near_zero(network.layers[-1])
    return split_dim, network


@torch.no_grad()
def start_near_zero(last: Any) -> None:
    """Makes the output near zero, but not zero: else the hidden layers would get no gradient at first."""
    last.weight.mul_(1e-2)
    last.bias.zero_()


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


def check_context(context: Any, network: Any) -> None:
    """Raises unless a context is a real tensor, of the size ``network.context_dim`` if there is one."""
    # Integers and booleans, such as one-hot vectors, are promoted to the dtype of the points.
    if not isinstance(context, Tensor) or context.is_floating_point() or context.is_complex():
        checks.check_floating("context", context)
    size = getattr(network, "context_dim", None)
    if size is not None and context.shape[-1:] != (size,):
        raise ValueError(
            f"context has shape {tuple(context.shape)}, but the {type(network).__name__} was built for context_dim = "
            f"{size}; give a tensor (*, {size})."
        )


def check_dim(hypernet: Any, dim: int) -> None:
    """Raises if a network of known sizes (Pyro's DenseNN) was built for another dimension."""
    inputs, outputs = getattr(hypernet, "input_dim", None), getattr(hypernet, "param_dims", None)
    if isinstance(inputs, int) and isinstance(outputs, Sequence) and (built := inputs + outputs[0]) != dim:
        raise ValueError(
            f"points have n = {dim} dimensions, but the layer was built for dim = {built} (its network maps {inputs} "
            f"to {built - inputs} coordinates); build it with dim = {dim} (intrinsic) and split_dim < {dim}."
        )
