r"""Factor coupling: an isometry moves one factor of a product manifold, given the others."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic import geometry
from pyro_hyperbolic.geometry import Hadamard, Nested, checks

from .coupling import LOG_SCALE_BOUND, SHIFT_BOUND, Coupling, Hypernet, check_bound
from .networks import build

__all__ = ["FactorCoupling", "factor_coupling"]


class FactorCoupling(Coupling):
    r"""Couples by an isometry of one factor, :math:`w_i = \log_o T_p \exp_o(v_i \odot e^s)`, given the others.

    On :math:`M_1 \times \dots \times M_m`, in tangent coordinates :math:`(v_1, \dots, v_m)`; the other factors are
    unchanged. With :math:`u = v_i \odot e^s` and the log-volume :math:`\ell` of the exponential map of each space, with
    respect to Riemannian volume

    .. math:: \log |\det dy/dx| = \textstyle\sum s + \ell_i(u) - \ell_i(w_i) + \ell(w) - \ell(v).

    Shapes: ``x`` and ``y`` are points ``(*, sum of sizes)``, the log-determinant is ``(*)``.

    Args:
        index: Index of the factor that moves, from 0.
        hypernet: Maps the tangent coordinates of the other factors ``(*, n - n_i)`` to ``(shift, log_scale)``, each
            ``(*, n_i)``. On a hyperboloid, a ball or Euclidean space ``shift`` defines ``p`` as in
            :class:`WrappedHyperboloidCoupling`; on other factors it holds the tangent coordinates of ``p``.
        manifold: A ``geoopt.ProductManifold`` of at least two factors.
        log_scale_bound: If given, ``log_scale`` becomes ``b tanh(log_scale / b)``.
        shift_bound: If given, ``shift`` is shortened smoothly to less than this, in units of the factor's ``sqrt(k)``.
        cache_size: 1 (default) to cache the last pair, 0 to cache nothing.

    Raises:
        TypeError: If the manifold is not a product of at least two factors with global charts.
        ValueError: If it has no factor ``index``; on a call, if the network's outputs have the wrong size.

    Example:
        >>> M = geoopt.ProductManifold((geoopt.Lorentz(), 3), (geoopt.Euclidean(1), 2))
        >>> t = FactorCoupling(1, lambda v: (2 * v, 0 * v), M)  # the plane is shifted by the hyperbolic coordinates
        >>> x = geometry.exp0(M, torch.tensor([1.0, 0.0, 5.0, 5.0]))
        >>> geometry.log0(M, t(x)).round(decimals=4)
        tensor([1., 0., 7., 5.])
    """

    def __init__(
        self,
        index: int,
        hypernet: Hypernet,
        manifold: Manifold,
        *,
        log_scale_bound: float | None = None,
        shift_bound: float | None = None,
        cache_size: int = 1,
    ) -> None:
        dims = _factor_dims(manifold, index)
        split_dim = sum(dims) - dims[index]
        super().__init__(split_dim, hypernet, manifold, log_scale_bound=log_scale_bound, cache_size=cache_size)
        check_bound("shift_bound", shift_bound)
        self.factor_index = index
        self.shift_bound = shift_bound
        self._sizes = [sum(dims[:index]), dims[index], sum(dims[index + 1 :])]

    def _tangent_forward(self, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        before, v2, after = v.split(self._sizes, -1)
        w2, log_det = self.forward_block(self._geometry, torch.cat([before, after], -1), v2, mask)
        return torch.cat([before, w2, after], -1), log_det

    def _tangent_backward(self, w: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        before, w2, after = w.split(self._sizes, -1)
        v2, log_det = self.inverse_block(self._geometry, torch.cat([before, after], -1), w2, mask)
        return torch.cat([before, v2, after], -1), log_det

    def _move(self, space: Hadamard, x2: Tensor, shift: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        w2, log_det = self._translate(space, shift, x2 * log_scale.exp(), inverse=False)
        return w2, log_scale.sum(-1) + log_det

    def _move_back(self, space: Hadamard, y2: Tensor, shift: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        u, log_det = self._translate(space, shift, y2, inverse=True)
        return u * (-log_scale).exp(), log_scale.sum(-1) - log_det

    def _translate(self, space: Any, shift: Tensor, v: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Returns the factor's tangent coordinates after the isometry or its inverse, and that map's ``log |det|``."""
        factor = space.factors[self.factor_index]
        if isinstance(factor, Nested):
            return factor.translate_tangent(shift, v, inverse, self.shift_bound)
        if self.shift_bound is not None:
            shift = shift / (1 + (shift / self.shift_bound).square().sum(-1, keepdim=True)).sqrt()
        x, volume = factor.exp0(v)
        w, new_volume = factor.log0(factor.translate(factor.exp0(shift)[0], x, inverse))
        return w, volume - new_volume


def factor_coupling(
    dim: int,
    index: int,
    hidden_dims: Sequence[int] | None = None,
    manifold: Any = None,
    *,
    log_scale_bound: float | None = LOG_SCALE_BOUND,
    shift_bound: float | None = SHIFT_BOUND,
    hypernet: Callable[..., Any] | None = None,
) -> FactorCoupling:
    """Builds a :class:`FactorCoupling` with a dense network; it starts near the identity.

    One layer for each factor moves every coordinate:
    ``ComposeTransformModule([factor_coupling(n, i, manifold=M) for i in range(m)])``.

    Args:
        dim: Intrinsic dimension ``n`` of the product.
        index: Index of the factor that moves, from 0.
        hidden_dims: Widths of the hidden layers; ``[10 * dim]`` by default.
        manifold: A ``geoopt.ProductManifold`` of at least two factors.
        log_scale_bound: Bound of the absolute log-scale, approached smoothly; 3 by default. ``None`` for no bound.
        shift_bound: Bound of the shift, in units of the factor's ``sqrt(k)``; 3 by default. ``None`` for no bound.
        hypernet: A function of ``(input_dim, param_dims)`` that makes the network, as :class:`~.AttentionNN`; dense by
            default.

    Raises:
        TypeError: If the manifold is not a product of at least two factors with global charts.
        ValueError: If it has no factor ``index``, or another dimension than ``dim``.
    """
    dims = _factor_dims(manifold, index)
    checks.check_count("dim", dim, 2, "it is the intrinsic dimension of the product")
    if dim != sum(dims):
        raise ValueError(
            f"dim = {dim}, but {geometry.bind(manifold).name} has n = {sum(dims)} dimensions; give dim = {sum(dims)}."
        )
    _, network = build(dim, None, hidden_dims, dim - dims[index], hypernet)
    return FactorCoupling(index, network, manifold, log_scale_bound=log_scale_bound, shift_bound=shift_bound)


def _factor_dims(manifold: Any, index: int) -> list[int]:
    """Returns the dimensions of the factors; raises unless the manifold is a product with that factor and another."""
    space: Any = geometry.chart(manifold)
    if len(space.factors) < 2:
        raise TypeError(
            f"the manifold is {checks.describe(space)}, but a factor coupling moves one factor of a "
            f"geoopt.ProductManifold, given the others; use HT.tangent_coupling or HT.wrapped_hyperboloid_coupling."
        )
    checks.check_count("index", index, 0, "it is the index of a factor")
    dims = space.dims(space.only_dim())
    if index >= len(dims):
        raise ValueError(f"index = {index}, but {space.name} has {len(dims)} factors; give the index of one, from 0.")
    return dims
