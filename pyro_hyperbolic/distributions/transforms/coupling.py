r"""Base classes of coupling layers: how coordinates are split, and what a network may return."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic.distributions.constraints import on_manifold
from pyro_hyperbolic.geometry import Hadamard, checks
from pyro_hyperbolic.geometry.autocast import autocasts
from pyro_hyperbolic.manifolds import or_standard

from .base import TangentModule, register_if_learnable, with_batch
from .conditional import NeedsContext
from .networks import Conditioned, call, check_dim, check_hypernet, check_split

__all__ = ["ConditionalCoupling", "Coupling"]

#: Default bounds of the builders: |log_scale|, and |t| / sqrt(k) where ``t`` is the target of a translation.
LOG_SCALE_BOUND = 3.0
SHIFT_BOUND = 3.0

Hypernet = Callable[..., tuple[Tensor, Tensor]]


class Coupling(TangentModule):
    """Abstract base of coupling layers: a network of one block of tangent coordinates moves the other block.

    A subclass implements ``_move`` and ``_move_back``. A flow calls :meth:`forward_block` and
    :meth:`inverse_block`, so it splits and joins blocks, and maps to the manifold, only once.

    The network receives all points of a batch, and may mix them along dimension -2: see :class:`SetTransform`, whose
    mask it takes as ``mask=``, of the shape of the points without the last dimension. Only Pyro's dense networks, which
    map each point by itself, are called without.

    Args:
        split_dim: Number ``d`` of unchanged tangent coordinates, ``1 <= d < n``.
        hypernet: Maps the first block ``(*, d)`` to ``(shift, log_scale)``, each ``(*, n - d)``.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        log_scale_bound: If given, ``log_scale`` becomes ``b tanh(log_scale / b)``.
        cache_size: 1 (default) to cache the last pair, 0 to cache nothing.
    """

    takes_mask = True

    def __init__(
        self,
        split_dim: int,
        hypernet: Hypernet,
        manifold: Manifold | None = None,
        *,
        log_scale_bound: float | None = None,
        cache_size: int = 1,
    ) -> None:
        super().__init__(manifold, cache_size=cache_size)
        check_split(split_dim)
        check_hypernet(hypernet)
        check_bound("log_scale_bound", log_scale_bound)
        self.split_dim = split_dim
        self.nn = hypernet
        self.log_scale_bound = log_scale_bound

    @abstractmethod
    def _move(self, space: Hadamard, x2: Tensor, shift: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the moved second block and ``log |det|`` with respect to Lebesgue measure."""

    @abstractmethod
    def _move_back(self, space: Hadamard, y2: Tensor, shift: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the original second block and ``log |det|`` of the *forward* map."""

    def forward_block(
        self, space: Hadamard, x1: Tensor, x2: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the moved second block ``(*, n - d)`` and ``log |det|`` with respect to Lebesgue measure."""
        return self._move(space, x2, *self._outputs(x1, x2, mask))

    def inverse_block(
        self, space: Hadamard, y1: Tensor, y2: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the original second block and ``log |det|`` of the *forward* map."""
        return self._move_back(space, y2, *self._outputs(y1, y2, mask))

    def _outputs(self, x1: Tensor, x2: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        try:
            outputs = self.nn(x1, mask) if isinstance(self.nn, Conditioned) else call(self.nn, x1, mask)
        except RuntimeError:  # checked only on failure: the checks cost as much as a layer of the network
            if isinstance(self.network, torch.nn.Module):
                parameter = next((value for value in self.network.parameters() if value.is_floating_point()), x1)
                checks.check_same_dtype(network=parameter, points=x1)
                if isinstance(self.nn, Conditioned):
                    checks.check_same_dtype(network=parameter, context=self.nn.context)
                    checks.check_batches(points=x1.shape[:-1], context=self.nn.batch_shape)
            raise
        if not isinstance(outputs, (tuple, list)) or [isinstance(each, Tensor) for each in outputs] != [True, True]:
            raise TypeError(
                f"hypernet returned {checks.shown(outputs)}, but must return a pair (shift, log_scale): give DenseNN "
                f"param_dims=[n - split_dim, n - split_dim]."
            )
        shift, log_scale = outputs
        size, dtype = x2.size(-1), x2.dtype
        if {shift.dtype, log_scale.dtype} != {dtype} and autocasts(x2):
            shift, log_scale = shift.to(dtype), log_scale.to(dtype)
        if not (shift.size(-1) == log_scale.size(-1) == size and shift.dtype == log_scale.dtype == dtype):
            _raise_mismatch(x2, shift=shift, log_scale=log_scale)
        if self.log_scale_bound is not None:
            log_scale = self.log_scale_bound * torch.tanh(log_scale / self.log_scale_bound)
        return shift, log_scale

    @property
    def network(self) -> Any:
        """The network, without the context of a conditioned layer."""
        return self.nn.network if isinstance(self.nn, Conditioned) else self.nn

    def _tangent_forward(self, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        v1, v2 = self._split(v)
        w2, log_det = self.forward_block(self._geometry, v1, v2, mask)
        return join(v1, w2), log_det

    def _tangent_backward(self, w: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        w1, w2 = self._split(w)
        v2, log_det = self.inverse_block(self._geometry, w1, w2, mask)
        return join(w1, v2), log_det

    def _split(self, v: Tensor) -> tuple[Tensor, Tensor]:
        check_dim(self.network, v.size(-1))
        check_split(self.split_dim, v.size(-1))
        return v[..., : self.split_dim], v[..., self.split_dim :]

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Returns ``shape``, with its batch part broadcast with the batch shapes of ``k`` and the context."""
        space = self._geometry
        batches = [*space.batch_shapes(), *self.context_batch_shapes()]
        return with_batch(shape, *batches, event_dim=space.event_dim)

    inverse_shape = forward_shape

    def context_batch_shapes(self) -> list[torch.Size]:
        """Returns a list of the context's batch shape, or an empty list without a context."""
        network = self.__dict__.get("nn")
        return [network.batch_shape] if isinstance(network, Conditioned) else []


class ConditionalCoupling(NeedsContext):
    """Abstract base of conditional coupling layers: a network of the first block *and* a context moves the second.

    ``condition(context)`` returns the coupling layer at ``context``, with the same network.

    Args:
        split_dim: Number ``d`` of unchanged tangent coordinates, ``1 <= d < n``.
        hypernet: Maps the first block ``(*, d)`` and ``context=`` to ``(shift, log_scale)``, each ``(*, n - d)``.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        **kwargs: Further arguments of the coupling layer.
    """

    transform_type: type[Coupling]

    def __init__(
        self, split_dim: int, hypernet: torch.nn.Module, manifold: Manifold | None = None, **kwargs: Any
    ) -> None:
        super().__init__()
        check_split(split_dim)
        check_hypernet(hypernet)
        self.split_dim = split_dim
        self.nn = hypernet
        self._on_manifold = on_manifold(or_standard(manifold))
        self.kwargs = kwargs
        register_if_learnable(self, self.manifold)
        # Errors in the arguments should come now, not at the first context.
        self.transform_type(split_dim, hypernet, self.manifold, **kwargs)

    @property
    def manifold(self) -> Manifold:
        """The geoopt manifold on which the conditioned transform acts."""
        return self._on_manifold.manifold

    def condition(self, context: Tensor) -> Coupling:
        """Returns the coupling layer at ``context``, a tensor ``(*, context_dim)`` that broadcasts with points."""
        return self.transform_type(self.split_dim, Conditioned(self.nn, context), self.manifold, **self.kwargs)


def _raise_mismatch(x2: Tensor, **outputs: Tensor) -> None:
    """Raises an error that names the network's output that does not fit the moving block."""
    for name, value in outputs.items():
        checks.check_same_dtype(network=value, points=x2)
        if value.size(-1) != x2.size(-1):
            raise ValueError(
                f"hypernet returned a {name} of shape {tuple(value.shape)}, but the moving block has n - split_dim = "
                f"{x2.size(-1)} coordinates; shift and log_scale need one output for each (DenseNN's param_dims)."
            )


def check_bound(name: str, bound: float | None) -> None:
    """Raises unless the bound is None or positive."""
    if bound is not None:
        checks.check_number(name, bound, "give a positive number, or None for no bound", above=0)


def join(first: Tensor, second: Tensor) -> Tensor:
    """Concatenates both blocks, after broadcasting their batch shapes (a context enlarges only one of them)."""
    if not checks.tracing() and first.shape[:-1] == second.shape[:-1]:  # torch.broadcast_shapes is slow
        return torch.cat([first, second], dim=-1)
    batch = torch.broadcast_shapes(first.shape[:-1], second.shape[:-1])
    return torch.cat([first.expand((*batch, first.size(-1))), second.expand((*batch, second.size(-1)))], dim=-1)
