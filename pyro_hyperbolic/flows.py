r"""Flows of coupling layers as one transform, flows of zuko, and the loss that trains continuous flows."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, overload

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
from pyro_hyperbolic.distributions.transforms.zuko_flow import ConditionalZukoFlow, ZukoFlow, from_zuko
from pyro_hyperbolic.geometry import Nested, checks
from pyro_hyperbolic.manifolds import or_standard

__all__ = [
    "ConditionalCouplingFlow",
    "ConditionalZukoFlow",
    "CouplingFlow",
    "ZukoFlow",
    "coupling_flow",
    "flow_matching_loss",
    "from_zuko",
]


class CouplingFlow(TangentModule):
    r"""Stacks coupling layers that move two blocks in turn, :math:`\exp_o \circ f_L \cdots f_1 \circ \log_o`.

    The flow equals its layers one after another, with the halves swapped in between. It is faster, since tangent
    coordinates pass between layers: it maps from and to the manifold only once.

    Args:
        layers: Couplings on one manifold. Layers 0, 2, ... move the second block given the first. Layers 1, 3, ... move
            the first given the second, so their ``split_dim`` is the size of the second.
        cache_size: 1 (default) to cache the last pair, 0 to cache nothing.

    Raises:
        TypeError: If a layer is not a :class:`~.transforms.Coupling`.
        ValueError: If there is no layer, or the manifolds or block sizes of layers differ; on a call, while validating,
            if a point is off the manifold.
    """

    takes_mask = True

    def __init__(self, layers: Sequence[Coupling], *, cache_size: int = 1) -> None:
        layers = _checked(layers, Coupling)
        super().__init__(layers[0].manifold, cache_size=cache_size)
        self.layers = torch.nn.ModuleList(layers)
        self._sizes = tuple(layer.split_dim for layer in layers[:2])

    def _tangent_forward(self, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_layers(v, mask, inverse=False)

    def _tangent_backward(self, w: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_layers(w, mask, inverse=True)

    @property
    def _couplings(self) -> list[Coupling]:
        layers: Any = self._modules["layers"]
        return list(layers._modules.values())  # avoids __getattr__, which is slow

    def _apply_layers(self, v: Tensor, mask: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        check_dim(self._couplings[0].network, v.size(-1))
        check_split(self._sizes[0], v.size(-1))
        first, second = v[..., : self._sizes[0]], v[..., self._sizes[0] :]
        space = self._geometry
        log_dets: list[Tensor] = []
        layers = list(enumerate(self._couplings))
        for i, layer in reversed(layers) if inverse else layers:
            step = layer.inverse_block if inverse else layer.forward_block
            if i % 2 == 0:
                second, log_det = step(space, first, second, mask)
            else:
                first, log_det = step(space, second, first, mask)
            log_dets.append(log_det)
        return join(first, second), sum(log_dets[1:], log_dets[0])

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Returns ``shape``, with its batch part broadcast with the batch shapes of ``k`` and the contexts."""
        contexts = [batch for layer in self._couplings for batch in layer.context_batch_shapes()]
        space = self._geometry
        return with_batch(shape, *space.batch_shapes(), *contexts, event_dim=space.event_dim)

    inverse_shape = forward_shape


class ConditionalCouplingFlow(NeedsContext):
    r"""Stacks conditional coupling layers; ``condition(context)`` returns a :class:`CouplingFlow` that shares them.

    Args:
        layers: Conditional couplings on one manifold, in the order of :class:`CouplingFlow`.

    Raises:
        TypeError: If a layer is not a :class:`~.transforms.ConditionalCoupling`.
        ValueError: If there is no layer, or the manifolds or block sizes of layers differ.
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


_CONDITIONAL_BUILDERS: dict[Callable[..., Coupling], Callable[..., ConditionalCoupling]] = {
    HT.tangent_coupling: HT.conditional_tangent_coupling,
    HT.wrapped_hyperboloid_coupling: HT.conditional_wrapped_hyperboloid_coupling,
}


@overload
def coupling_flow(
    dim: int,
    layers: int,
    coupling: Callable[..., Coupling] | None = None,
    hidden_dims: Sequence[int] | None = None,
    manifold: Manifold | None = None,
    context_dim: None = None,
) -> CouplingFlow: ...
@overload
def coupling_flow(
    dim: int,
    layers: int,
    coupling: Callable[..., Coupling] | None = None,
    hidden_dims: Sequence[int] | None = None,
    manifold: Manifold | None = None,
    *,
    context_dim: int,
) -> ConditionalCouplingFlow: ...
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
        coupling: The builder of a layer: ``HT.tangent_coupling`` or ``HT.wrapped_hyperboloid_coupling``, possibly with
            arguments bound by ``functools.partial``, or a function of ``(dim, hidden_dims=, split_dim=, manifold=)``
            that returns a :class:`~.transforms.Coupling`. By default the wrapped one on hyperbolic and Euclidean space,
            the tangent one elsewhere (products, matrices).
        hidden_dims: Widths of the hidden layers of each network; ``[10 * dim]`` by default.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default. With ``geoopt.Euclidean(1)`` this is
            RealNVP.
        context_dim: Length of a context vector. If given, the result is conditional.

    Returns:
        A :class:`CouplingFlow`, or a :class:`ConditionalCouplingFlow` if ``context_dim`` is given.

    Raises:
        TypeError: If ``coupling`` is not a function.
        ValueError: If ``dim`` or ``layers`` is out of range, or ``context_dim`` is given with a builder that has no
            conditional counterpart.

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
        nested = isinstance(geometry.chart(or_standard(manifold)), Nested)
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
    if coupling not in _CONDITIONAL_BUILDERS:
        known = ", ".join(builder.__name__ for builder in _CONDITIONAL_BUILDERS)
        raise ValueError(
            f"{coupling} has no conditional counterpart, unlike {known}; build conditional layers yourself and stack "
            f"them in a ConditionalCouplingFlow."
        )
    options["context_dim"] = context_dim
    build = _CONDITIONAL_BUILDERS[coupling]
    return ConditionalCouplingFlow([build(dim, split_dim=split_dim, **options) for split_dim in splits])


def flow_matching_loss(flow: HT.ContinuousFlow, x0: Tensor, x1: Tensor, t: Tensor | float | None = None) -> Tensor:
    r"""Returns :math:`|V(x_t, t) - \dot x_t|^2` on the path :math:`x_t` from ``x0`` to ``x1``, for each pair.

    .. math:: x_t = T_{\gamma(t)} \exp_o((1 - t) \log_o x_0), \quad \gamma(t) = \exp_o(t \log_o x_1)
        \qquad \text{or} \qquad x_t = \exp_{x_1}((1 - t) \log_{x_1} x_0)

    The first on manifolds with a global chart, where :math:`T_p` is the isometry that carries the origin to p: given
    ``x1``, a wrapped normal about the origin shrinks as it moves to ``x1``. Geodesics, the second, would bundle to a
    width that is exponentially small halfway; they are taken on compact manifolds. In flat space both are straight.
    Isometries move points by more the further they are from the axis, so the base should be about the origin and, on
    hyperbolic space, hardly wider than :math:`\sqrt k`.

    Over independent samples ``x0`` of the base and ``x1`` of the data, and uniform ``t``, the minimiser of the mean is
    a field that carries the base to the data. No step is solved, so an update costs one evaluation of the field. The
    loss does not tend to zero.

    Shapes: points ``(*, *event)`` that broadcast, the loss is ``(*)``, in units of squared distance.

    Args:
        flow: A flow on any complete manifold, products and conditioned flows included.
        x0: Samples of the base.
        x1: Samples of the data. Pairs are the caller's coupling.
        t: Times in [0, 1], a number or ``(*)``; uniform by default. Any density of them has the same minimiser; one
            that is higher near 1 learns details faster.

    Raises:
        TypeError: If ``flow`` is not a :class:`~.transforms.ContinuousFlow`, or the dtypes differ.
        ValueError: If, while validating, a point is off the manifold or a time out of [0, 1].

    References:
        *Flow Matching on General Geometries*, R. T. Q. Chen, Y. Lipman, 2024, arXiv:2302.03660.

    Example:
        On a line from 0 to 3, a field that is zero misses the velocity 3:

        >>> flow = HT.ContinuousFlow(lambda x, t: 0 * x, geoopt.Euclidean(1))
        >>> flow_matching_loss(flow, torch.tensor([0.0]), torch.tensor([3.0]))
        tensor(9.)
    """
    if not isinstance(flow, HT.ContinuousFlow):
        remedy = (
            "call .condition(context) first"
            if isinstance(flow, HT.ConditionalContinuousFlow)
            else "couplings are trained by likelihood"
        )
        raise TypeError(f"flow = {checks.shown(flow)}, but must be an HT.ContinuousFlow; {remedy}.")
    space: Any = checks.check_pair(geometry.complete(flow.manifold), x0=x0, x1=x1)
    batch = flow.batch_shape(space, space.batch_of(x0.shape), space.batch_of(x1.shape))
    if t is None:
        t = torch.rand(batch, dtype=x1.dtype, device=x1.device)
    checks.as_real("t", t, "give times in [0, 1], or None")
    t = torch.as_tensor(t, dtype=x1.dtype, device=x1.device)
    if checks.validating() and not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(f"t reaches from {t.min().item():.6g} to {t.max().item():.6g}, but must be in [0, 1].")
    t = t.expand(checks.check_batches(points=batch, t=t.shape))
    event = x1.shape[x1.dim() - space.event_dim :]
    x0, x1 = x0.expand(t.shape + event), x1.expand(t.shape + event)
    x, velocity = space.path(x0, x1, t)
    return (flow.velocity(x, t) - velocity).square().sum(-1)


def _checked(layers: Sequence[Any], kind: type[Any]) -> list[Any]:
    """Returns the layers as a list, or raises."""
    layers = checks.check_list("layers", layers, f"a coupling flow stacks {kind.__name__}s, one or more")
    if not layers:
        raise ValueError("no layers given, but a flow needs at least 1; 2 move every coordinate.")
    for i, layer in enumerate(layers):
        if not isinstance(layer, kind):
            remedy = (
                "call .condition(context) on each, or stack them in a ConditionalCouplingFlow"
                if isinstance(layer, ConditionalCoupling)
                else "stack them in a CouplingFlow, or build conditional layers"
                if isinstance(layer, Coupling)
                else "compose other transforms with pyro.distributions.transforms.ComposeTransformModule"
            )
            raise TypeError(f"layer {i} is {checks.shown(layer)}, but this flow stacks {kind.__name__}s; {remedy}.")
        if not geometry.same(layer.manifold, layers[0].manifold):
            raise ValueError(
                f"layer {i} acts on {checks.describe(layer.manifold)} and layer 0 on "
                f"{checks.describe(layers[0].manifold)}; give all layers one manifold."
            )
        if layer.split_dim != layers[i % 2].split_dim:
            raise ValueError(
                f"layer {i} has split_dim = {layer.split_dim} and layer {i % 2} has {layers[i % 2].split_dim}; layers "
                f"take turns, so give even places split_dim = d and odd places n - d."
            )
    return layers
