r"""Continuous flows: the exact map of :math:`N` Runge-Kutta steps along a vector field, on every complete manifold."""

from collections.abc import Sequence
from typing import Any, overload

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions.constraints import on_manifold
from pyro_hyperbolic.geometry import Complete, checks
from pyro_hyperbolic.geometry.autocast import without_autocast
from pyro_hyperbolic.manifolds import or_standard

from .base import ModuleTransform, register_if_learnable, with_batch
from .conditional import NeedsContext
from .fields import AnchorField, DenseField, MixtureField, VectorField, farthest_points
from .networks import check_context
from .runge_kutta import Field, Steps

__all__ = ["ConditionalContinuousFlow", "ConditionedField", "ContinuousFlow", "continuous_flow"]

_DIRECTIONS = ("forward", "inverse")


class ConditionedField:
    """A field with its context bound, a function of points and times that broadcasts with the context."""

    def __init__(self, field: Field, context: Tensor) -> None:
        check_context(context, field)
        self.field, self.context = field, context
        self.batch_shape = context.shape[:-1]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns the tangent vectors."""
        return self.field(x, t, self.context.expand(*t.shape, self.context.size(-1)))


class ContinuousFlow(ModuleTransform):
    r"""Follows a vector field from time 0 to 1 in :math:`N` steps, :math:`s_{i+1} = R(s_i + h\, \mathrm{RK4}(V, s_i))`.

    The transform *is* the map of the steps, not an ODE that they approximate, so its log-determinant and inverse are
    exact at any number of steps. The state ``s`` is tangent coordinates on a manifold with a global chart, and the
    point itself on compact manifolds, where ``R`` projects. With the Jacobian of each step in orthonormal frames of
    states, and the log-volume :math:`\ell` of the map from states to points,

    .. math:: \log |\det dy/dx| = \textstyle\sum_i \log |\det d s_{i+1} / d s_i| + \ell(s_N) - \ell(s_0)

    with respect to Riemannian volume. The other direction solves each step by Newton's method, and its gradients come
    from the implicit function theorem. A density costs ``4 N`` evaluations of the field with their Jacobian, the
    other direction about four times as much. A batch member's result does not depend on the others.

    Shapes: ``x`` and ``y`` are ``(*, *event)``, the log-determinant is ``(*)``.

    Args:
        field: Called as ``field(x, t)`` with points ``(*, *event)`` and times ``(*)``; returns tangent vectors
            ``(*, m)``, as :class:`~pyro_hyperbolic.geometry.Complete` has them. It must be smooth and map each point by
            itself.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        steps: The number ``N`` of steps. Each must be injective; a reversal of orientation is noticed.
        explicit: The direction without Newton's method: ``"forward"`` (base to data) for guides, ``"inverse"`` (data to
            base) to train by likelihood and to score data.
        hutchinson_terms: 0 (default) for the exact log-determinant. A number ``K`` for an estimate above 16 dimensions,
            in the explicit direction: the trace of the first ``K`` terms of the series of each step's
            :math:`\log(1 + B)`, by a normal vector for each point and step. It costs ``K`` products with Jacobians
            instead of ``n``, and every call draws new vectors. Terms left out are of size :math:`\|B\|^{K + 1}`, with
            :math:`\|B\|` like one over ``steps``. To train, not to report.
        cache_size: 1 (default) to cache the last pair, 0 to cache nothing.

    Raises:
        TypeError: If the field is not a function, or the manifold is not complete.
        ValueError: If ``steps``, ``explicit`` or ``hutchinson_terms`` is out of range, or the field is on another
            manifold; on a call, if an estimate is asked for in few dimensions, and while validating, if a point is off
            the manifold, or a step is not injective there or runs away.

    References:
        *Riemannian Continuous Normalizing Flows*, E. Mathieu, M. Nickel, 2020, arXiv:2006.10605.
        *Neural Manifold Ordinary Differential Equations*, A. Lou et al., 2020, arXiv:2006.10254.
        *Invertible Residual Networks*, J. Behrmann et al., 2019, arXiv:1811.00995 (the series and its estimate).

    Example:
        A field that points away from the origin of the line, :math:`\dot x = x`: Runge-Kutta's factor for one step is
        1 + 1 + 1/2 + 1/6 + 1/24 = 2.7083.

        >>> flow = ContinuousFlow(lambda x, t: x, geoopt.Euclidean(1), steps=1)
        >>> y = flow(torch.tensor([2.0]))
        >>> y, flow.inv(y.clone()), flow.log_abs_det_jacobian(torch.tensor([2.0]), y).exp()
        (tensor([5.4167]), tensor([2.]), tensor(2.7083))
    """

    _needs_chart = False
    _overflow_remedy = (
        "the field is too large there: use more steps=, a lower learning rate, or float64; a field must stay bounded "
        "where the base distribution has mass"
    )

    def __init__(
        self,
        field: Field,
        manifold: Manifold | None = None,
        *,
        steps: int = 16,
        explicit: str = "forward",
        hutchinson_terms: int = 0,
        cache_size: int = 1,
    ) -> None:
        super().__init__(manifold, cache_size=cache_size)
        checks.check_callable("field", field, "give a module that is called as field(x, t), such as HT.AnchorField")
        checks.check_count("steps", steps, 1, "it is the number of Runge-Kutta steps, 16 by default")
        if not isinstance(explicit, str) or explicit not in _DIRECTIONS:
            raise ValueError(f"explicit = {checks.shown(explicit)}, but must be one of {', '.join(_DIRECTIONS)}.")
        checks.check_count("hutchinson_terms", hutchinson_terms, 0, "it is a number of terms, 0 for an exact density")
        inner = field.field if isinstance(field, ConditionedField) else field
        if isinstance(inner, VectorField) and not geometry.same(inner.manifold, self.manifold):
            raise ValueError(
                f"the field is on {checks.describe(inner.manifold)} and the flow on {checks.describe(self.manifold)}; "
                f"build both on one manifold."
            )
        self.field, self.steps, self.explicit, self.hutchinson_terms = field, steps, explicit, hutchinson_terms

    @property
    def _space(self) -> Complete:
        return geometry.complete(self.manifold)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._follow(x, explicit=self.explicit == "forward")

    def _backward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self._follow(y, explicit=self.explicit == "inverse")
        return x, -log_det

    def _settings(self) -> dict[str, Tensor]:
        return _settings(self.steps, self.explicit)

    def _log_det_at(self, x: Tensor, y: Tensor) -> Tensor:
        return self._forward(x)[1] if self.explicit == "forward" else self._backward(y)[1]

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the field with ``torch.compile``, in place; the steps are not unrolled, which would take minutes.

        For sampling and scoring under ``torch.no_grad`` and for flow matching. A density that needs gradients raises,
        because torch cannot differentiate compiled functions twice.

        Args:
            *args: For ``torch.compile``.
            **kwargs: For ``torch.compile``.

        Raises:
            TypeError: If the field is not a module.
        """
        field = self.field.field if isinstance(self.field, ConditionedField) else self.field
        if not isinstance(field, torch.nn.Module):
            raise TypeError(f"field = {checks.shown(field)}, but only a module can be compiled.")
        field.compile(*args, **kwargs)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns the field at points ``(*, *event)`` and times ``(*)``, tangent vectors ``(*, m)``."""
        return self.field(x, t)

    def _follow(self, x: Tensor, *, explicit: bool) -> tuple[Tensor, Tensor]:
        """Returns the end of the path from ``x``, and the log-determinant of the map from ``x`` to it."""
        with without_autocast(x):
            space = self._space
            batch = self.batch_shape(space, space.batch_of(x.shape))
            x = x.expand(batch + x.shape[x.dim() - space.event_dim :])
            s, volume = space.state(x)
            s = space.retract(s)
            steps = Steps(space, self.field, self.steps, reverse=self.explicit == "inverse")
            # The steps make leaves of their own, so whether anything else needs gradients is asked first.
            with torch.set_grad_enabled(torch.is_grad_enabled() and steps.need_grad(s)):
                s, log_det = steps.explicit(s, self.hutchinson_terms) if explicit else steps.implicit(s)
            y, end = space.point(s)
            return y, log_det + end - volume

    def batch_shape(self, space: Complete, *batches: torch.Size) -> torch.Size:
        """Returns what batch shapes broadcast to with those of the manifold and the context, or raises."""
        shapes = {f"points {i}" if i else "points": batch for i, batch in enumerate(batches)}
        shapes |= {f"{name} of the manifold": value.shape for name, value in space.parameters().items()}
        if isinstance(self.field, ConditionedField):
            shapes["context"] = self.field.batch_shape
        return checks.check_batches(**shapes)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Returns ``shape``, with its batch part broadcast with the batch shapes of ``k`` and the context."""
        space = self._space
        return with_batch(shape, self.batch_shape(space), event_dim=space.event_dim)

    inverse_shape = forward_shape


def _settings(steps: int, explicit: str) -> dict[str, Tensor]:
    """Returns what a file of a flow says besides its weights: other steps are another map."""
    return {"steps": torch.tensor(float(steps)), "forward explicit": torch.tensor(float(explicit == "forward"))}


class ConditionalContinuousFlow(NeedsContext):
    r"""A :class:`ContinuousFlow` along a field that depends on a context; ``condition(context)`` returns the flow.

    Args:
        field: A module called as ``field(x, t, context)``, contexts ``(*, context_dim)``.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        **kwargs: Further arguments of :class:`ContinuousFlow`.
    """

    def __init__(self, field: torch.nn.Module, manifold: Manifold | None = None, **kwargs: Any) -> None:
        super().__init__()
        # Errors in the arguments should come now, not at the first context.
        ContinuousFlow(field, manifold, **kwargs)
        self.field = field
        self._on_manifold = on_manifold(or_standard(manifold))
        self.kwargs = kwargs
        register_if_learnable(self, self.manifold)

    @property
    def manifold(self) -> Manifold:
        """The geoopt manifold on which the flow acts."""
        return self._on_manifold.manifold

    def _settings(self) -> dict[str, Tensor]:
        flow = ContinuousFlow(self.field, self.manifold, **self.kwargs)
        return _settings(flow.steps, flow.explicit)

    def condition(self, context: Tensor) -> ContinuousFlow:
        """Returns the flow at ``context``, a tensor ``(*, context_dim)`` that broadcasts with points."""
        return ContinuousFlow(ConditionedField(self.field, context), self.manifold, **self.kwargs)


@overload
def continuous_flow(
    dim: int,
    manifold: Manifold | None = None,
    anchors: Tensor | None = None,
    num_anchors: int = 48,
    hidden_dims: Sequence[int] | None = None,
    steps: int = 16,
    field: str | torch.nn.Module | None = None,
    context_dim: None = None,
    explicit: str = "forward",
    hutchinson_terms: int = 0,
) -> ContinuousFlow: ...
@overload
def continuous_flow(
    dim: int,
    manifold: Manifold | None = None,
    anchors: Tensor | None = None,
    num_anchors: int = 48,
    hidden_dims: Sequence[int] | None = None,
    steps: int = 16,
    field: str | torch.nn.Module | None = None,
    *,
    context_dim: int,
    explicit: str = "forward",
    hutchinson_terms: int = 0,
) -> ConditionalContinuousFlow: ...
def continuous_flow(
    dim: int,
    manifold: Manifold | None = None,
    anchors: Tensor | None = None,
    num_anchors: int = 48,
    hidden_dims: Sequence[int] | None = None,
    steps: int = 16,
    field: str | torch.nn.Module | None = None,
    context_dim: int | None = None,
    explicit: str = "forward",
    hutchinson_terms: int = 0,
) -> ContinuousFlow | ConditionalContinuousFlow:
    r"""Builds a flow along a learned field, on every complete manifold; it starts near the identity.

    Args:
        dim: Intrinsic dimension ``n``.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        anchors: Data, points ``(N, *event)``: anchors start at at most ``num_anchors`` of them, far from each other
            (:func:`farthest_points`), and components of a mixture at their clusters. Anchors are random by default.
        num_anchors: The number of anchors or components.
        hidden_dims: Widths of the hidden layers; ``[128, 128]`` by default.
        steps: The number of Runge-Kutta steps.
        field: ``"anchor"`` (default) for an :class:`~.AnchorField`, ``"mixture"`` for a :class:`~.MixtureField`, which
            needs ``anchors`` and does not start near the identity, ``"dense"`` for a :class:`~.DenseField`, or a
            module, called as ``field(x, t)`` or ``field(x, t, context)``.
        context_dim: Length of a context vector. If given, the result is conditional.
        explicit: The direction without Newton's method, ``"forward"`` or ``"inverse"``; see :class:`ContinuousFlow`.
        hutchinson_terms: 0 for exact log-determinants; see :class:`ContinuousFlow`.

    Returns:
        A :class:`ContinuousFlow`, or a :class:`ConditionalContinuousFlow` if ``context_dim`` is given.

    Raises:
        TypeError: If ``field`` is neither a module nor a name, or a size not an integer.
        ValueError: If an argument is out of range, or an anchor off the manifold.

    Example:
        >>> flow = continuous_flow(2, geoopt.Sphere(), field="dense", steps=4)
        >>> x = torch.tensor([0.0, 0.6, 0.8])
        >>> y = flow(x).detach()
        >>> y.norm().round(decimals=4), (flow.inv(y) - x).abs().max() < 1e-6
        (tensor(1.), tensor(True))
    """
    manifold = or_standard(manifold)
    checks.check_count("num_anchors", num_anchors, 1, "it is the number of points that the field points to")
    kind = "anchor" if field is None else field if isinstance(field, str) else ""
    if kind == "anchor":
        chosen = num_anchors if anchors is None else farthest_points(manifold, anchors, num_anchors)
        field = AnchorField(dim, manifold, chosen, hidden_dims, context_dim)
    elif kind == "dense":
        field = DenseField(dim, manifold, hidden_dims, context_dim)
    elif kind == "mixture":
        if anchors is None:
            raise ValueError("field = 'mixture' starts at clusters of data; give points of them as anchors=.")
        field = MixtureField(dim, manifold, anchors, num_anchors, hidden_dims=hidden_dims, context_dim=context_dim)
    if not isinstance(field, torch.nn.Module):
        raise TypeError(f"field = {checks.shown(field)}, but must be 'anchor', 'mixture', 'dense' or a module.")
    options: dict[str, Any] = {"steps": steps, "explicit": explicit, "hutchinson_terms": hutchinson_terms}
    if context_dim is None:
        return ContinuousFlow(field, manifold, **options)
    return ConditionalContinuousFlow(field, manifold, **options)
