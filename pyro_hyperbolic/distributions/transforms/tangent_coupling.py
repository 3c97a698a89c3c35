r"""Tangent coupling: an affine coupling of the tangent space at the origin."""

from collections.abc import Callable, Sequence
from typing import Any

from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic.geometry import Hadamard

from .coupling import LOG_SCALE_BOUND, ConditionalCoupling, Coupling
from .networks import build

__all__ = ["ConditionalTangentCoupling", "TangentCoupling", "conditional_tangent_coupling", "tangent_coupling"]


class TangentCoupling(Coupling):
    r"""Couples tangent coordinates affinely, :math:`w = (v_1,\ v_2 \odot e^{s(v_1)} + t(v_1))`, between log and exp.

    With :math:`v = \log_o x` and :math:`y = \exp_o w`, with respect to Riemannian volume (at ``k = 1``)

    .. math:: \log |\det dy/dx| = \textstyle\sum s
        + (n - 1) [\log \operatorname{sinhc} |w| - \log \operatorname{sinhc} |v|].

    Shapes: ``x`` and ``y`` are ``(*, n + 1)``, the log-determinant is ``(*)``.

    Args:
        split_dim: Number ``d`` of unchanged tangent coordinates, ``1 <= d < n``.
        hypernet: Maps the first block ``(*, d)`` to ``(shift, log_scale)``, each ``(*, n - d)``. Shifts have the unit
            of distance.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default. On ``geoopt.Euclidean(1)`` this is
            RealNVP's affine coupling.
        log_scale_bound: If given, ``log_scale`` becomes ``b tanh(log_scale / b)``, so that a layer stretches by at most
            ``exp(b)``; no bound by default (the builder sets one).
        cache_size: 1 (default) to cache the last pair, 0 to cache nothing.

    Raises:
        ValueError: If ``split_dim`` is out of range, the network's outputs have the wrong size or, while validating,
            a point is off the manifold.

    References:
        *Latent Variable Modelling with Hyperbolic Normalizing Flows*, A. J. Bose, A. Smofsky, R. Liao, P. Panangaden,
        W. L. Hamilton, 2020, arXiv:2002.06336, eq. (11-12).

    Example:
        >>> t = TangentCoupling(1, lambda v1: (v1, 0 * v1), geoopt.Lorentz())  # v2 is shifted by v1
        >>> x = geometry.exp0(t.manifold, torch.tensor([3.0, 1.0]))
        >>> geometry.log0(t.manifold, t(x)).round(decimals=4)
        tensor([3., 4.])
    """

    def _move(self, space: Hadamard, x2: Tensor, shift: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        return x2 * log_scale.exp() + shift, log_scale.sum(-1)  # eq. (11)

    def _move_back(self, space: Hadamard, y2: Tensor, shift: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        return (y2 - shift) * (-log_scale).exp(), log_scale.sum(-1)


class ConditionalTangentCoupling(ConditionalCoupling):
    r"""Couples tangent coordinates affinely given a context, :math:`w = (v_1, v_2 \odot e^{s(v_1, c)} + t(v_1, c))`.

    ``condition(context)`` returns a :class:`TangentCoupling`. The arguments are the same, but the network also takes
    ``context=``, as Pyro's ``ConditionalDenseNN`` does.

    Example:
        >>> cond = conditional_tangent_coupling(2, context_dim=3)
        >>> cond.condition(torch.ones(5, 3))(torch.tensor([1.0, 0.0, 0.0])).shape
        torch.Size([5, 3])
    """

    transform_type = TangentCoupling


def tangent_coupling(
    dim: int,
    hidden_dims: Sequence[int] | None = None,
    split_dim: int | None = None,
    manifold: Manifold | None = None,
    *,
    log_scale_bound: float | None = LOG_SCALE_BOUND,
    hypernet: Callable[..., Any] | None = None,
) -> TangentCoupling:
    """Builds a :class:`TangentCoupling` with a dense network; it starts near the identity.

    Args:
        dim: Intrinsic dimension ``n >= 2``.
        hidden_dims: Widths of the hidden layers; ``[10 * dim]`` by default.
        split_dim: Number of unchanged coordinates; ``dim // 2`` by default.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        log_scale_bound: Bound of the absolute log-scale, approached smoothly; 3 by default, so one layer stretches by
            at most ``exp(3) = 20``. ``None`` for no bound.
        hypernet: A function of ``(input_dim, param_dims)`` that makes the network, as :class:`~.AttentionNN`; dense by
            default.

    Raises:
        ValueError: If ``dim`` or ``split_dim`` is out of range.
    """
    split_dim, network = build(dim, None, hidden_dims, split_dim, hypernet)
    return TangentCoupling(split_dim, network, manifold, log_scale_bound=log_scale_bound)


def conditional_tangent_coupling(
    dim: int,
    context_dim: int,
    hidden_dims: Sequence[int] | None = None,
    split_dim: int | None = None,
    manifold: Manifold | None = None,
    *,
    log_scale_bound: float | None = LOG_SCALE_BOUND,
    hypernet: Callable[..., Any] | None = None,
) -> ConditionalTangentCoupling:
    """Builds a :class:`ConditionalTangentCoupling` with a dense network; it starts near the identity.

    Args:
        dim: Intrinsic dimension ``n >= 2``.
        context_dim: Length of the context vector.
        hidden_dims: Widths of the hidden layers; ``[10 * dim]`` by default.
        split_dim: Number of unchanged coordinates; ``dim // 2`` by default.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        log_scale_bound: Bound of the absolute log-scale, approached smoothly; 3 by default. ``None`` for no bound.
        hypernet: A function of ``(input_dim, param_dims, context_dim=)`` that makes the network, as
            :class:`~.AttentionNN`; dense by default.

    Raises:
        ValueError: If ``dim`` or ``split_dim`` is out of range.
    """
    split_dim, network = build(dim, context_dim, hidden_dims, split_dim, hypernet)
    return ConditionalTangentCoupling(split_dim, network, manifold, log_scale_bound=log_scale_bound)
