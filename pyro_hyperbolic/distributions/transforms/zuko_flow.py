r"""Flows of zuko as transforms on manifolds."""

from collections.abc import Iterator
from typing import Any, overload

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor
from torch.distributions import Transform

from pyro_hyperbolic import geometry
from pyro_hyperbolic.geometry import checks
from pyro_hyperbolic.geometry.autocast import without_autocast
from pyro_hyperbolic.manifolds import or_standard

from .base import TangentModule, register_if_learnable, with_batch
from .conditional import NeedsContext
from .networks import check_context
from .tangent import is_real_vector

__all__ = ["ConditionalZukoFlow", "ZukoFlow", "from_zuko"]


class ZukoFlow(TangentModule):
    r"""Lifts a flow of zuko, :math:`y = \exp_o(f^{-1}(\log_o x))`, where zuko's :math:`f` maps data to noise.

    Made by :func:`from_zuko`. The parameters are those of the flow, and shared with it. Points ``y`` are scored by one
    pass of ``f``. Samples take its inverse: of autoregressive flows one pass for each dimension, of neural, polynomial
    and Gaussianization flows a bisection to 1e-6, of ``CNF`` an ODE to 1e-4, and own samples are scored without it.
    zuko clips the inverse of Gaussianization flows at 10, which is an error here.
    ``zuko.lazy.Flow(flow.transform.inv, flow.base)`` exchanges the two directions.

    Args:
        flow: A ``zuko.lazy.Flow``. Its base is not used.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        context: A context ``(*, context)`` of the flow, if it has one.
        cache_size: 1 (default) to cache the last pair, 0 to cache nothing.

    Raises:
        TypeError: If ``flow`` is not a flow of zuko.
        ValueError: If it is not a bijection of R^n; on a call, if points have another dimension and, while validating,
            if a point is off the manifold.
    """

    def __init__(
        self, flow: Any, manifold: Manifold | None = None, *, context: Tensor | None = None, cache_size: int = 1
    ) -> None:
        super().__init__(manifold, cache_size=cache_size)
        _check_zuko(flow)
        self.transform, self.context = flow.transform, context
        base = flow.base(context)
        self._dim = base.event_shape.numel()
        parts = list(_parts(self._f()))
        #: Gaussianization flows have no inverse beyond a bound, and zuko clips it.
        self._clips = any(hasattr(getattr(part, "base", part), "bound") for part in parts)
        sides = [side for part in parts for side in (part.domain, part.codomain)]
        for side in (base.support, *sides):
            if not is_real_vector(side):
                raise ValueError(
                    f"the flow has {side} inside, but tangent coordinates are all of R^n; use a flow without bounds, "
                    f"such as zuko.flows.NSF(features={self._dim})."
                )

    def _f(self) -> Any:
        return self.transform(self.context)

    def _tangent_forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        w, log_det = self._mapped(self._f().inv, v)
        if self._clips and checks.validating(True):  # whatever the setting: zuko's import turns validation off
            lost = ((self._f()(w) - v).abs() > 1e-3 * (1 + v.abs())).any(-1)
            if bool(lost.any()):
                raise ValueError(
                    f"{int(lost.sum())} of {lost.numel()} draws are beyond 10 within the flow, where zuko clips the "
                    f"inverse of Gaussianization flows; train it on data of about unit variance first, or use "
                    f"zuko.flows.NSF(features={self._dim})."
                )
        return w, log_det

    def _tangent_backward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        v, log_det = self._mapped(self._f(), w)
        return v, -log_det

    def _mapped(self, f: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.size(-1) != self._dim:
            raise ValueError(
                f"points have n = {x.size(-1)} dimensions, but the flow was built for {self._dim}; build it with "
                f"features={x.size(-1)}, the intrinsic dimension."
            )
        if self.context is not None:
            x = x.expand(*torch.broadcast_shapes(x.shape[:-1], self.context.shape[:-1]), x.size(-1))
        if x.numel() == 0:  # zuko cannot reshape an empty batch
            return x.clone(), x.sum(-1)
        with without_autocast(x):
            try:
                y, log_det = f.call_and_ladj(x)
            except RuntimeError as error:
                if "mat1 and mat2" not in str(error):
                    raise
                context = "no context" if self.context is None else f"a context of {self.context.size(-1)} numbers"
                raise ValueError(
                    f"the flow cannot read {x.dtype} points of n = {self._dim} dimensions with {context} ({error}); "
                    f"build it with context=0, or with the context_dim of from_zuko, and convert it with .to(...)."
                ) from error
        return y, (log_det if f.domain.event_dim else log_det.sum(-1)).expand(y.shape[:-1])

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Returns ``shape``, with its batch part broadcast with the batch shapes of ``k`` and the context."""
        space = self._geometry
        contexts = [] if self.context is None else [self.context.shape[:-1]]
        return with_batch(shape, *space.batch_shapes(), *contexts, event_dim=space.event_dim)

    inverse_shape = forward_shape


class ConditionalZukoFlow(NeedsContext):
    r"""Lifts a flow of zuko that has a context; ``condition(context)`` returns a :class:`ZukoFlow` that shares it.

    Made by :func:`from_zuko` with ``context_dim``.

    Args:
        flow: A ``zuko.lazy.Flow``, built with ``context=context_dim``. Its base is not used.
        context_dim: Length of a context vector.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.

    Raises:
        TypeError: If ``flow`` is not a flow of zuko.
        ValueError: From ``condition``, if a context has another length or the flow is not a bijection of R^n.
    """

    def __init__(self, flow: Any, context_dim: int, manifold: Manifold | None = None) -> None:
        super().__init__()
        _check_zuko(flow)
        checks.check_count("context_dim", context_dim, 1, "it is the length of a context vector")
        self.flow, self.context_dim = flow, context_dim
        self._manifold = or_standard(manifold)
        geometry.chart(self._manifold)
        register_if_learnable(self, self._manifold)

    @property
    def manifold(self) -> Manifold:
        """The geoopt manifold on which the flow acts."""
        return self._manifold

    def condition(self, context: Tensor) -> ZukoFlow:
        """Returns the flow at ``context``, a tensor ``(*, context_dim)`` that broadcasts with points."""
        checks.check_floating("context", context)
        check_context(context, self)
        return ZukoFlow(self.flow, self._manifold, context=context)


@overload
def from_zuko(flow: Any, manifold: Manifold | None = None, context_dim: None = None) -> ZukoFlow: ...
@overload
def from_zuko(flow: Any, manifold: Manifold | None = None, *, context_dim: int) -> ConditionalZukoFlow: ...
def from_zuko(
    flow: Any, manifold: Manifold | None = None, context_dim: int | None = None
) -> ZukoFlow | ConditionalZukoFlow:
    r"""Lifts a flow of zuko to a manifold, :math:`y = \exp_o(f^{-1}(\log_o x))`, to sample and to score.

    The result is a transform from a base distribution on the manifold to data, as Pyro has it, for models and guides
    alike. zuko's own ``f`` maps data to noise. Only ``flow.transform`` is used: the base is yours, a
    ``WrappedNormal`` at the origin. ``pyro.module("flow", lifted)`` trains it.

    Importing zuko turns off the validation of all distributions; ``pyro.enable_validation(True)`` turns it on again.

    Args:
        flow: A ``zuko.lazy.Flow`` of ``features=n``, the intrinsic dimension, such as ``zuko.flows.NSF(2)``.
        manifold: A geoopt manifold with a global chart; the hyperboloid of curvature -1 by default.
        context_dim: The ``context=`` of the flow. If given, the result is conditional.

    Returns:
        A :class:`ZukoFlow`, or a :class:`ConditionalZukoFlow` if ``context_dim`` is given.

    Raises:
        TypeError: If ``flow`` is not a flow of zuko.
        ValueError: If it is not a bijection of R^n, such as circular and sum-of-squares flows.

    References:
        *Zuko: Normalizing flows in PyTorch*, F. Rozet et al., 2022, https://zuko.readthedocs.io.

    Example:
        >>> import zuko
        >>> flow = from_zuko(zuko.flows.NSF(features=2), geoopt.Lorentz())
        >>> base = hdist.WrappedNormal(torch.tensor([1.0, 0.0, 0.0]), torch.ones(2))
        >>> d = dist.TransformedDistribution(base, [flow])
        >>> d.rsample((5,)).shape, d.support
        (torch.Size([5, 3]), on_manifold(Lorentz(k=1)))
    """
    return ZukoFlow(flow, manifold) if context_dim is None else ConditionalZukoFlow(flow, context_dim, manifold)


def _check_zuko(flow: Any) -> None:
    if not (isinstance(flow, torch.nn.Module) and hasattr(flow, "transform") and callable(getattr(flow, "base", None))):
        remedy = "build one with features=n, such as zuko.flows.NSF(features=2)"
        if isinstance(flow, Transform):
            remedy = "lift a transform with HT.TangentTransform"
        raise TypeError(f"flow = {checks.shown(flow)}, but must be a zuko.lazy.Flow; {remedy}.")


def _parts(transform: Any) -> Iterator[Any]:
    """Yields the transform, or those that it composes: zuko's own bounds are those of the first and the last."""
    if hasattr(transform, "transforms"):
        for part in transform.transforms:
            yield from _parts(part)
    else:
        yield transform
