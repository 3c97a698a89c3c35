r"""Symmetric positive definite matrices with the affine-invariant metric (``geoopt.SymmetricPositiveDefinite``).

Points are ``(*, m, m)``, in :math:`n = m (m + 1) / 2` dimensions; the origin is the identity. Tangent coordinates are
the diagonal of a symmetric matrix V, followed by :math:`\sqrt 2` times the entries below it (an orthonormal basis).

.. math:: \exp_o(V) = e^V, \qquad T_P X = P^{1/2} X P^{1/2}, \qquad
    \log |\det d\exp_o| = \sum_{i < j} \log \operatorname{sinhc} \frac{\lambda_i(V) - \lambda_j(V)}{2}

Matrix functions have first and second derivatives, in reverse and forward mode, by divided differences. These stay
finite at equal eigenvalues.

References:
    *Geometry Processing and Medical Imaging by Riemannian Tensor Computing*, X. Pennec, P. Fillard, N. Ayache, 2006.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyro_hyperbolic.numerics import asinhc, log_sinhc, norm, sinhc

from .autocast import matmul
from .base import Hadamard

__all__ = ["SymmetricPositiveDefinite"]


#: How often `velocity` doubles its argument: eigenvalues 128 apart, a spread of exp(128), are halved to 1.
_DOUBLINGS = 6


class SymmetricPositiveDefinite(Hadamard):
    """Symmetric positive definite matrices: points ``(*, m, m)``."""

    name = "SymmetricPositiveDefinite"
    event_dim = 2
    coordinates = "(*, m, m) with n = m (m + 1) / 2"
    projectable = "the symmetric part must have positive eigenvalues"

    def event_shape(self, n: int) -> torch.Size:
        m = math.isqrt(2 * n)
        if m * (m + 1) // 2 != n:
            raise ValueError(f"n = {n}, but m x m matrices have m (m + 1) / 2 dimensions; choose 1, 3, 6, 10, ...")
        return torch.Size((m, m))

    def dim(self, shape: Sequence[int]) -> int:
        return shape[-1] * (shape[-1] + 1) // 2 if len(shape) > 1 and shape[-1] == shape[-2] else 0

    def check_settings(self) -> None:
        if self.manifold.default_metric.value != "AIM":
            raise ValueError(
                f"the metric is {self.manifold.default_metric.value}, but must be AIM (affine-invariant); use "
                f"geoopt.SymmetricPositiveDefinite()."
            )

    def contains(self, x: Tensor) -> Tensor:
        finite = x.isfinite().all(-1).all(-1)
        safe = torch.where(finite[..., None, None], x, torch.eye(x.size(-1), dtype=x.dtype, device=x.device))
        skew = (safe - safe.mT).abs().amax((-2, -1)) <= 64 * torch.finfo(x.dtype).eps * safe.abs().amax((-2, -1))
        return finite & skew & (torch.linalg.eigvalsh(safe)[..., 0] > 0)

    def explain(self, outside: Tensor, where: Tensor) -> tuple[str, str]:
        first = outside[0].double()
        least = torch.linalg.eigvalsh((first + first.mT) / 2)[0].item() if bool(first.isfinite().all()) else math.nan
        skew = (first - first.mT).abs().max().item()
        return (
            f" with least eigenvalue {least:.6g} and max |x - x.mT| = {skew:.2g}",
            "map tangent coordinates with exp0(M, v), and symmetrise matrices with (x + x.mT) / 2",
        )

    def project(self, x: Tensor) -> Tensor:
        """Returns the symmetric parts of matrices."""
        return (x + x.mT) / 2

    def exp0(self, v: Tensor) -> tuple[Tensor, Tensor]:
        V = _matrix(v)
        return _matrix_function(V, "exp"), _log_volume(V)

    def log0(self, x: Tensor) -> tuple[Tensor, Tensor]:
        V = _matrix_function(x, "log")
        return _vector(V), _log_volume(V)

    def translate(self, p: Tensor, x: Tensor, inverse: bool = False) -> Tensor:
        root = _matrix_function(p, "rsqrt" if inverse else "sqrt")
        moved = matmul(root, x, root)
        return (moved + moved.mT) / 2

    def velocity(self, s: Tensor, u: Tensor) -> Tensor:
        r"""Returns :math:`u_{ij} / \operatorname{sinhc} \frac{\lambda_i - \lambda_j}{2}` in an eigenbasis of ``s``.

        Computed as :math:`\operatorname{sinhc}(\operatorname{ad}_s / 2)^{-1} u`, whose derivatives need no eigenbasis:
        of the squares of :math:`\operatorname{ad}_s V = sV - Vs`, in tangent coordinates, and by doubling,
        :math:`\operatorname{sinhc} 2x = \operatorname{sinhc} x \cosh x`.
        """
        basis = _matrix(torch.eye(s.size(-1), dtype=s.dtype, device=s.device))
        V = _matrix(s).unsqueeze(-3)
        commutators = (matmul(V, basis) - matmul(basis, V)).flatten(-2)
        z = matmul(commutators, commutators.mT) / 4 ** (_DOUBLINGS + 1)
        eye = torch.eye(z.size(-1), dtype=s.dtype, device=s.device)
        power, rise, ratio = z, z / 2, eye + z / 6  # cosh - 1, where nothing cancels, and sinhc
        for j in range(2, 10):
            power = matmul(power, z)
            rise = rise + power / math.factorial(2 * j)
            ratio = ratio + power / math.factorial(2 * j + 1)
        for _ in range(_DOUBLINGS):
            ratio = ratio + matmul(ratio, rise)
            rise = 2 * (2 * rise + matmul(rise, rise))
        # Not linalg.solve, whose forward-mode derivatives are wrong under two vmaps (torch 2.13).
        return matmul(torch.linalg.inv(ratio), u.unsqueeze(-1)).squeeze(-1)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return norm(_log_ratios(x, y)).squeeze(-1)

    def squared_distance(self, x: Tensor, y: Tensor) -> Tensor:
        return _log_ratios(x, y).square().sum(-1)


def _matrix(v: Tensor) -> Tensor:
    m = math.isqrt(2 * v.size(-1))
    if m * (m + 1) // 2 != v.size(-1):
        raise ValueError(
            f"tangent coordinates have shape {tuple(v.shape)}, but m x m matrices have m (m + 1) / 2 dimensions; use a "
            f"last dimension of 1, 3, 6, 10, ..."
        )
    i, j = torch.tril_indices(m, m, -1, device=v.device)
    place = torch.diag(torch.arange(m, device=v.device))
    place[i, j] = place[j, i] = torch.arange(m, v.size(-1), device=v.device)
    scale = torch.eye(m, dtype=v.dtype, device=v.device) * (1 - math.sqrt(0.5)) + math.sqrt(0.5)
    return v[..., place] * scale


def _vector(V: Tensor) -> Tensor:
    i, j = torch.tril_indices(V.size(-1), V.size(-1), -1, device=V.device)
    return torch.cat([V.diagonal(dim1=-2, dim2=-1), math.sqrt(2) * V[..., i, j]], dim=-1)


def _log_volume(V: Tensor) -> Tensor:
    i, j = torch.tril_indices(V.size(-1), V.size(-1), -1, device=V.device)
    values = torch.linalg.eigvalsh(V)
    return log_sinhc(((values[..., i] - values[..., j]) / 2) ** 2).sum(-1)


def _log_ratios(x: Tensor, y: Tensor) -> Tensor:
    """Returns the logarithms of the eigenvalues of ``x^-1 y``."""
    factor = torch.linalg.cholesky(x)
    half = torch.linalg.solve_triangular(factor, y, upper=False)
    return torch.linalg.eigvalsh(torch.linalg.solve_triangular(factor, half.mT, upper=False)).log()


def _log_slope(a: Tensor, b: Tensor) -> Tensor:
    return asinhc((a - b) ** 2 / (4 * a * b)) / (a * b).sqrt()  # log(a / b) = 2 asinh((a - b) / sqrt(4 a b))


#: Nodes of Gauss and Legendre's rule on [0, 1]: exact to rounding in :func:`_exp_curvature` for a spread of exp(40).
_NODES, _WEIGHTS = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(24))


def _exp_slope(a: Tensor, b: Tensor) -> Tensor:
    return ((a + b) / 2).exp() * sinhc(((a - b) / 2) ** 2)


def _exp_curvature(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    r"""Returns :math:`\int_0^1 e^{(1 - t) c} \int_0^t e^{(t - r) b + r a}\, dr\, dt`, positive terms alone."""
    a, b, c = (each.unsqueeze(-1) for each in torch.broadcast_tensors(a, b, c))
    t, weight = ((_NODES + 1) / 2).to(a), (_WEIGHTS / 2).to(a)
    return (weight * ((1 - t) * c).exp() * t * _exp_slope(t * a, t * b)).sum(-1)


def _log_curvature(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Returns that of the inverse function of exp."""
    return -_exp_curvature(a.log(), b.log(), c.log()) * _log_slope(a, b) * _log_slope(b, c) * _log_slope(a, c)


def _sqrt_curvature(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    a, b, c = a.sqrt(), b.sqrt(), c.sqrt()
    return -1 / ((a + b) * (b + c) * (a + c))


def _rsqrt_curvature(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    a, b, c = a.sqrt(), b.sqrt(), c.sqrt()
    return (a + b + c) / (a * b * c * (a + b) * (b + c) * (a + c))


#: Functions ``f`` with their divided differences ``f[a, b] = (f(a) - f(b)) / (a - b)`` and
#: ``f[a, b, c] = (f[a, b] - f[b, c]) / (a - c)``, in forms without cancellation.
_FUNCTIONS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[..., Tensor]]] = {
    "exp": (torch.exp, _exp_slope, _exp_curvature),
    "log": (torch.log, _log_slope, _log_curvature),
    "sqrt": (torch.sqrt, lambda a, b: 1 / (a.sqrt() + b.sqrt()), _sqrt_curvature),
    "rsqrt": (torch.rsqrt, lambda a, b: -1 / ((a * b).sqrt() * (a.sqrt() + b.sqrt())), _rsqrt_curvature),
}


class _MatrixFunction(torch.autograd.Function):
    """Applies a scalar function to the eigenvalues of symmetric matrices."""

    generate_vmap_rule = True

    @staticmethod
    def forward(X: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(X)
        return _symmetric(matmul(vectors, _FUNCTIONS[name][0](values).unsqueeze(-1) * vectors.mT)), values, vectors

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        X, ctx.name = inputs
        ctx.save_for_backward(X, *output[1:])
        ctx.save_for_forward(X, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, None]:
        X, values, vectors = ctx.saved_tensors
        return _Differential.apply(X, gradient, values, vectors, ctx.name), None  # it is its own adjoint

    @staticmethod
    def jvp(ctx: Any, dX: Tensor, _: None) -> tuple[Tensor, None, None]:
        X, values, vectors = ctx.saved_tensors
        return _Differential.apply(X, dX, values, vectors, ctx.name), None, None


class _Differential(torch.autograd.Function):
    """The derivative of a matrix function at ``X`` along ``dX``, with derivatives of its own in both."""

    generate_vmap_rule = True

    @staticmethod
    def forward(X: Tensor, dX: Tensor, values: Tensor, vectors: Tensor, name: str) -> Tensor:
        return _first(values, vectors, name, dX)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.name = inputs[-1]
        ctx.save_for_backward(*inputs[1:4])
        ctx.save_for_forward(*inputs[1:4])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        dX, values, vectors = ctx.saved_tensors
        along_X = _second(values, vectors, ctx.name, dX, gradient)
        return along_X, _first(values, vectors, ctx.name, gradient), None, None, None

    @staticmethod
    def jvp(ctx: Any, X: Tensor, ddX: Tensor, *_: Any) -> Tensor:
        dX, values, vectors = ctx.saved_tensors
        return _second(values, vectors, ctx.name, dX, X) + _first(values, vectors, ctx.name, ddX)


def _first(values: Tensor, vectors: Tensor, name: str, dX: Tensor) -> Tensor:
    slopes = _FUNCTIONS[name][1](values.unsqueeze(-1), values.unsqueeze(-2))
    return matmul(vectors, slopes * matmul(vectors.mT, _symmetric(dX), vectors), vectors.mT)


def _second(values: Tensor, vectors: Tensor, name: str, dX: Tensor, dY: Tensor) -> Tensor:
    """Returns the second derivative, ``sum_k f[i, k, j] (A_ik B_kj + B_ik A_kj)`` in the eigenbasis."""
    A, B = (matmul(vectors.mT, _symmetric(each), vectors) for each in (dX, dY))
    curvatures = _FUNCTIONS[name][2](values[..., :, None, None], values[..., None, :, None], values[..., None, None, :])
    pairs = A.unsqueeze(-1) * B.unsqueeze(-3) + B.unsqueeze(-1) * A.unsqueeze(-3)  # (*, i, k, j)
    return matmul(vectors, (curvatures * pairs).sum(-2), vectors.mT)


def _symmetric(X: Tensor) -> Tensor:
    return (X + X.mT) / 2


def _matrix_function(X: Tensor, name: str) -> Tensor:
    Y: Tensor = _MatrixFunction.apply(X, name)[0]
    return Y
