r"""Wrapped hyperboloid coupling: an isometry moves the second block as a point of a smaller hyperboloid."""

from collections.abc import Callable, Sequence
from typing import Any

from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic import geometry
from pyro_hyperbolic.geometry import Hadamard, Nested, checks

from .coupling import LOG_SCALE_BOUND, SHIFT_BOUND, ConditionalCoupling, Coupling, Hypernet, check_bound
from .networks import build

__all__ = [
    "ConditionalWrappedHyperboloidCoupling",
    "WrappedHyperboloidCoupling",
    "conditional_wrapped_hyperboloid_coupling",
    "wrapped_hyperboloid_coupling",
]


class WrappedHyperboloidCoupling(Coupling):
    r"""Couples by an isometry, :math:`w = (v_1,\ \log_o T_{t(v_1)} \exp_o(v_2 \odot e^{s(v_1)}))`, between log and exp.

    The second block is scaled, mapped to the hyperboloid of dimension ``m = n - d``, moved by the isometry :math:`T_t`
    that carries the origin to ``t``, and mapped back. With :math:`u = v_2 \odot e^s`, with respect to Riemannian volume
    (at ``k = 1``)

    .. math:: \log |\det dy/dx| = \textstyle\sum s
        + (m - 1) [\log \operatorname{sinhc} |u| - \log \operatorname{sinhc} |w_2|]
        + (n - 1) [\log \operatorname{sinhc} |w| - \log \operatorname{sinhc} |v|].

    A hyperbolic line is flat: for ``m = 1`` (so for ``n = 2``) this is :class:`TangentCoupling` with the shift
    :math:`\sqrt k \operatorname{asinh}(t / \sqrt k)`. The curvature matters for ``m >= 2``.

    Shapes: ``x`` and ``y`` are ``(*, n + 1)``, the log-determinant is ``(*)``.

    Args:
        split_dim: Number ``d`` of unchanged tangent coordinates, ``1 <= d < n``.
        hypernet: Maps the first block ``(*, d)`` to ``(shift, log_scale)``, each ``(*, n - d)``. ``shift`` holds the
            *spatial* coordinates of ``t``, so every output is a point of the hyperboloid.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default. On ``geoopt.Euclidean(1)`` this is
            RealNVP's affine coupling.
        log_scale_bound: If given, ``log_scale`` becomes ``b tanh(log_scale / b)``; no bound by default (the builder
            sets one).
        shift_bound: If given and ``m >= 2``, ``shift`` is shortened smoothly to ``|t| < b sqrt(k)``, since the inverse
            is ill-conditioned for distant ``t`` (unless ``m = 1``). No bound by default (the builder sets one).
        cache_size: 1 (default) to cache the last pair, 0 to cache nothing.

    Raises:
        ValueError: If ``split_dim`` is out of range, the network's outputs have the wrong size or, while validating,
            a point is off the manifold.

    References:
        *Latent Variable Modelling with Hyperbolic Normalizing Flows*, A. J. Bose, A. Smofsky, R. Liao, P. Panangaden,
        W. L. Hamilton, 2020, arXiv:2002.06336, eq. (13-15). The exponent ``m`` in eq. (15) is a misprint of ``m - 1``.

    Example:
        >>> M = geoopt.Lorentz()
        >>> t = WrappedHyperboloidCoupling(1, lambda v1: (torch.tensor([0.75]), torch.tensor([0.0])), M)
        >>> geometry.log0(M, t(geometry.exp0(M, torch.tensor([3.0, 1.0]))))  # 1 + asinh(0.75)
        tensor([3.0000, 1.6931])
    """

    def __init__(
        self,
        split_dim: int,
        hypernet: Hypernet,
        manifold: Manifold | None = None,
        *,
        log_scale_bound: float | None = None,
        shift_bound: float | None = None,
        cache_size: int = 1,
    ) -> None:
        super().__init__(split_dim, hypernet, manifold, log_scale_bound=log_scale_bound, cache_size=cache_size)
        check_bound("shift_bound", shift_bound)
        if not isinstance(geometry.bind(self.manifold), Nested):
            raise TypeError(
                f"the manifold is {checks.describe(self.manifold)}, but a wrapped coupling needs one whose blocks of "
                f"tangent coordinates are points of a smaller manifold of its kind; use HT.tangent_coupling."
            )
        self.shift_bound = shift_bound

    def _move(self, space: Hadamard, x2: Tensor, shift: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        nested: Any = space  # checked in the constructor
        y2, log_det = nested.translate_tangent(shift, x2 * log_scale.exp(), bound=self.shift_bound)  # eq. (14)
        return y2, log_scale.sum(-1) + log_det

    def _move_back(self, space: Hadamard, y2: Tensor, shift: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        nested: Any = space
        u, log_det = nested.translate_tangent(shift, y2, inverse=True, bound=self.shift_bound)
        return u * (-log_scale).exp(), log_scale.sum(-1) - log_det


class ConditionalWrappedHyperboloidCoupling(ConditionalCoupling):
    r"""Couples by an isometry given a context, :math:`w = (v_1, \log_o T_{t(v_1, c)} \exp_o(v_2 \odot e^{s(v_1, c)}))`.

    ``condition(context)`` returns a :class:`WrappedHyperboloidCoupling`. The arguments are the same, but the network
    also takes ``context=``, as Pyro's ``ConditionalDenseNN`` does.

    Example:
        >>> cond = conditional_wrapped_hyperboloid_coupling(3, context_dim=2)
        >>> cond.condition(torch.ones(5, 2))(torch.tensor([1.0, 0.0, 0.0, 0.0])).shape
        torch.Size([5, 4])
    """

    transform_type = WrappedHyperboloidCoupling


def wrapped_hyperboloid_coupling(
    dim: int,
    hidden_dims: Sequence[int] | None = None,
    split_dim: int | None = None,
    manifold: Manifold | None = None,
    *,
    log_scale_bound: float | None = LOG_SCALE_BOUND,
    shift_bound: float | None = SHIFT_BOUND,
    hypernet: Callable[..., Any] | None = None,
) -> WrappedHyperboloidCoupling:
    """Builds a :class:`WrappedHyperboloidCoupling` with a dense network; it starts near the identity.

    Args:
        dim: Intrinsic dimension ``n >= 2``.
        hidden_dims: Widths of the hidden layers; ``[10 * dim]`` by default.
        split_dim: Number of unchanged coordinates; ``dim // 2`` by default.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        log_scale_bound: Bound of the absolute log-scale, approached smoothly; 3 by default, so one layer stretches by
            at most ``exp(3) = 20``. ``None`` for no bound.
        shift_bound: Bound of ``|t| / sqrt(k)``, approached smoothly, if the moving block has two dimensions or more;
            3 by default, so one layer translates by at most ``1.8 sqrt(k)``. ``None`` for no bound.
        hypernet: A function of ``(input_dim, param_dims)`` that makes the network, as :class:`~.AttentionNN`; dense by
            default.

    Raises:
        ValueError: If ``dim`` or ``split_dim`` is out of range.
    """
    split_dim, network = build(dim, None, hidden_dims, split_dim, hypernet)
    bounds: dict[str, Any] = {"log_scale_bound": log_scale_bound, "shift_bound": shift_bound}
    return WrappedHyperboloidCoupling(split_dim, network, manifold, **bounds)


def conditional_wrapped_hyperboloid_coupling(
    dim: int,
    context_dim: int,
    hidden_dims: Sequence[int] | None = None,
    split_dim: int | None = None,
    manifold: Manifold | None = None,
    *,
    log_scale_bound: float | None = LOG_SCALE_BOUND,
    shift_bound: float | None = SHIFT_BOUND,
    hypernet: Callable[..., Any] | None = None,
) -> ConditionalWrappedHyperboloidCoupling:
    """Builds a :class:`ConditionalWrappedHyperboloidCoupling` with a dense network; it starts near the identity.

    Args:
        dim: Intrinsic dimension ``n >= 2``.
        context_dim: Length of the context vector.
        hidden_dims: Widths of the hidden layers; ``[10 * dim]`` by default.
        split_dim: Number of unchanged coordinates; ``dim // 2`` by default.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        log_scale_bound: Bound of the absolute log-scale, approached smoothly; 3 by default. ``None`` for no bound.
        shift_bound: Bound of ``|t| / sqrt(k)``, if the moving block has two dimensions or more; 3 by default. ``None``
            for no bound.
        hypernet: A function of ``(input_dim, param_dims, context_dim=)`` that makes the network, as
            :class:`~.AttentionNN`; dense by default.

    Raises:
        ValueError: If ``dim`` or ``split_dim`` is out of range.
    """
    split_dim, network = build(dim, context_dim, hidden_dims, split_dim, hypernet)
    bounds: dict[str, Any] = {"log_scale_bound": log_scale_bound, "shift_bound": shift_bound}
    return ConditionalWrappedHyperboloidCoupling(split_dim, network, manifold, **bounds)
