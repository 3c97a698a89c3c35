r"""Builders that stack coupling layers into one transform."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions import transforms as HT
from pyro_hyperbolic.distributions.transforms import ConditionalCoupling, Coupling, TangentModule
from pyro_hyperbolic.distributions.transforms.base import with_batch
from pyro_hyperbolic.distributions.transforms.conditional import NeedsContext
from pyro_hyperbolic.distributions.transforms.coupling import join
from pyro_hyperbolic.distributions.transforms.networks import check_dim, check_split
from pyro_hyperbolic.geometry import Nested, checks
from pyro_hyperbolic.manifolds import STANDARD

__all__ = ["ConditionalCouplingFlow", "CouplingFlow", "coupling_flow"]


class CouplingFlow(TangentModule):
    r"""Stacks coupling layers that take turns in moving two blocks, :math:`\exp_o \circ f_L \cdots f_1 \circ \log_o`.

    Between layers tangent coordinates pass, so the chart is entered and left once for the flow, and its volume stretch
    is counted once: the same transform as the layers one after another with the halves swapped between them, faster.

    Args:
        layers: Couplings on one manifold. Those at even places move the second block given the first; those at odd
            places the first given the second, so that their ``split_dim`` is the size of the second.
        cache_size: 1 (default) to remember the last pair, 0 not to.

    Raises:
        ValueError: If there is no layer, the layers' manifolds differ, or their blocks do not fit together; on a call,
            while validating, if a point is off the manifold.
    """

    def __init__(self, layers: Sequence[Coupling], *, cache_size: int = 1) -> None:
        layers = _checked(layers, Coupling)
        super().__init__(layers[0].manifold, cache_size=cache_size)
        self.layers = torch.nn.ModuleList(layers)
        self._sizes = tuple(layer.split_dim for layer in layers[:2])

    def _tangent_forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        return self._run(v, inverse=False)

    def _tangent_backward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        return self._run(w, inverse=True)

    @property
    def _couplings(self) -> list[Coupling]:
        layers: Any = self._modules["layers"]
        return list(layers._modules.values())  # past __getattr__, which is slow

    def _run(self, v: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        check_dim(self._couplings[0].network, v.size(-1))
        check_split(self._sizes[0], v.size(-1))
        first, second = v[..., : self._sizes[0]], v[..., self._sizes[0] :]
        space = self._geometry
        log_dets: list[Tensor] = []
        layers = list(enumerate(self._couplings))
        for i, layer in reversed(layers) if inverse else layers:
            step = layer.inverse_block if inverse else layer.forward_block
            if i % 2 == 0:
                second, log_det = step(space, first, second)
            else:
                first, log_det = step(space, second, first)
            log_dets.append(log_det)
        return join(first, second), sum(log_dets[1:], log_dets[0])

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Returns the shape of ``y`` for an ``x`` of that shape."""
        contexts = [batch for layer in self._couplings for batch in layer.batch_shapes_of_conditions()]
        space = self._geometry
        return with_batch(shape, *space.batch_shapes(), *contexts, event_dim=space.event_dim)

    inverse_shape = forward_shape


class ConditionalCouplingFlow(NeedsContext):
    r"""Stacks conditional coupling layers; ``condition(context)`` returns a :class:`CouplingFlow` that shares them.

    Args:
        layers: Conditional couplings on one manifold, in the order of :class:`CouplingFlow`.

    Raises:
        ValueError: As :class:`CouplingFlow`.
    """

    def __init__(self, layers: Sequence[ConditionalCoupling]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(_checked(layers, ConditionalCoupling))

    @property
    def manifold(self) -> Manifold:
        """The geoopt manifold on which the flow acts."""
        return self.layers[0].manifold

    def condition(self, context: Tensor) -> CouplingFlow:
        """Returns the flow at ``context``, a tensor ``(*, context_dim)`` that broadcasts with points."""
        return CouplingFlow([layer.condition(context) for layer in self.layers])  # type: ignore[operator]


_CONDITIONAL: dict[Callable[..., Coupling], Callable[..., ConditionalCoupling]] = {
    HT.tangent_coupling: HT.conditional_tangent_coupling,
    HT.wrapped_hyperboloid_coupling: HT.conditional_wrapped_hyperboloid_coupling,
}


def coupling_flow(
    dim: int,
    layers: int,
    coupling: Callable[..., Coupling] | None = None,
    hidden_dims: Sequence[int] | None = None,
    manifold: Manifold | None = None,
    context_dim: int | None = None,
) -> CouplingFlow | ConditionalCouplingFlow:
    r"""Builds a flow of coupling layers as one transform, :math:`y = \exp_o(f_L(\cdots f_1(\log_o x)))`.

    Successive layers swap halves, so two layers move every coordinate. The flow starts near the identity.

    Args:
        dim: Intrinsic dimension ``n >= 2``.
        layers: Number of coupling layers, at least 1.
        coupling: The builder of a layer: ``HT.tangent_coupling``, ``HT.wrapped_hyperboloid_coupling``, either with
            further arguments bound by ``functools.partial``, or a function of
            ``(dim, hidden_dims=, split_dim=, manifold=)`` that returns a :class:`~.transforms.Coupling`. By default
            the wrapped one where blocks of coordinates are points of a smaller manifold of the same kind (hyperbolic
            and Euclidean space), else the tangent one (products, matrices).
        hidden_dims: Widths of the hidden layers of each network; ``[10 * dim]`` by default.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default. With ``geoopt.Euclidean(1)`` this is
            RealNVP.
        context_dim: Length of a context vector. If given, the result is conditional.

    Returns:
        A :class:`CouplingFlow`, or a :class:`ConditionalCouplingFlow` if ``context_dim`` is given.

    Raises:
        ValueError: If ``dim`` or ``layers`` is out of range, or ``context_dim`` is given with a builder of which no
            conditional counterpart is known.

    Example:
        >>> flow = coupling_flow(dim=2, layers=4, hidden_dims=[32])
        >>> base = hdist.WrappedNormal(torch.tensor([1.0, 0.0, 0.0]), torch.ones(2))
        >>> d = dist.TransformedDistribution(base, [flow])
        >>> d.rsample((5,)).shape, d.support
        (torch.Size([5, 3]), on_manifold(Lorentz(k=1)))
    """
    checks.check_count("layers", layers, 1, "2 move every coordinate")
    checks.check_count("dim", dim, 2, "in one dimension lift a transform of R with HT.TangentTransform")
    if coupling is None:
        nested = isinstance(geometry.chart(STANDARD if manifold is None else manifold), Nested)
        coupling = HT.wrapped_hyperboloid_coupling if nested else HT.tangent_coupling
    if not callable(coupling) or isinstance(coupling, (type, torch.nn.Module)):
        raise TypeError(
            f"coupling = {checks.shown(coupling)}, but must build a layer: HT.tangent_coupling, "
            f"HT.wrapped_hyperboloid_coupling or a function of (dim, hidden_dims=, split_dim=, manifold=)."
        )
    options: dict[str, Any] = {}
    while isinstance(coupling, partial):
        options = {**coupling.keywords, **options}
        coupling = coupling.func
    split = dim // 2
    splits = [split if i % 2 == 0 else dim - split for i in range(layers)]
    options = {**options, "hidden_dims": hidden_dims, "manifold": manifold}
    if context_dim is None:
        return CouplingFlow([coupling(dim, split_dim=split_dim, **options) for split_dim in splits])
    if coupling not in _CONDITIONAL:
        known = ", ".join(builder.__name__ for builder in _CONDITIONAL)
        raise ValueError(
            f"no conditional counterpart of {coupling} is known, only of {known}; build the layers yourself and stack "
            f"them with ConditionalCouplingFlow."
        )
    options["context_dim"] = context_dim
    return ConditionalCouplingFlow([_CONDITIONAL[coupling](dim, split_dim=size, **options) for size in splits])


def _checked(layers: Sequence[Any], kind: type[Any]) -> list[Any]:
    """Returns the layers as a list, or raises."""
    layers = checks.check_list("layers", layers, f"a coupling flow stacks {kind.__name__}s, one or more")
    if not layers:
        raise ValueError("no layers given, but a flow has at least 1; 2 move every coordinate.")
    for i, layer in enumerate(layers):
        if not isinstance(layer, kind):
            remedy = (
                "call .condition(context) on each, or stack them in a ConditionalCouplingFlow"
                if isinstance(layer, ConditionalCoupling)
                else "stack these in a CouplingFlow, or build them as conditional ones"
                if isinstance(layer, Coupling)
                else "compose others with pyro.distributions.transforms.ComposeTransformModule"
            )
            raise TypeError(
                f"layer {i} is {checks.shown(layer)}, but a coupling flow stacks {kind.__name__}s here; {remedy}."
            )
        if not geometry.same(layer.manifold, layers[0].manifold):
            raise ValueError(
                f"layer {i} acts on {checks.describe(layer.manifold)} and layer 0 on "
                f"{checks.describe(layers[0].manifold)}; give all layers one manifold."
            )
        if layer.split_dim != layers[i % 2].split_dim:
            raise ValueError(
                f"layer {i} has split_dim = {layer.split_dim} and layer {i % 2} {layers[i % 2].split_dim}; layers take "
                f"turns, so those at even places have split_dim = d and those at odd places n - d."
            )
    return layers
