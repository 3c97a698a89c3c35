r"""Functions of symmetric matrices, :math:`f(X) = Q f(\Lambda) Q^T`, for exp, log, the root and its inverse,
and the log-volume of exp.

They have first and second derivatives, in reverse and forward mode, by divided differences. These stay finite at equal
eigenvalues, where the derivatives of eigenvectors do not.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyro_hyperbolic.numerics import asinhc, inverse_sinhc, log_sinhc, sinhc

from .autocast import matmul

__all__ = ["log_volume", "matrix_function"]


def matrix_function(X: Tensor, name: str) -> Tensor:
    """Returns ``exp``, ``log``, ``sqrt`` or ``rsqrt`` of symmetric matrices ``(*, m, m)``."""
    Y: Tensor = _MatrixFunction.apply(X, name)[0]
    return Y


def log_volume(X: Tensor) -> Tensor:
    r"""Returns :math:`\sum_{i < j} h(\lambda_i - \lambda_j)`, :math:`h(s) = \log \operatorname{sinhc}(s / 2)`."""
    total: Tensor = _LogVolume.apply(X)[0].sum((-2, -1))
    return total


def _log_slope(a: Tensor, b: Tensor) -> Tensor:
    return asinhc((a - b) ** 2 / (4 * a * b)) / (a * b).sqrt()  # log(a / b) = 2 asinh((a - b) / sqrt(4 a b))


def _gauss(count: int) -> tuple[Tensor, Tensor]:
    """Returns the nodes and weights of Gauss and Legendre's rule on [0, 1]."""
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(count))
    return (nodes + 1) / 2, weights / 2


#: Exact to rounding in :func:`_exp_curvature` for a spread of exp(40).
_NODES, _WEIGHTS = _gauss(24)

#: Exact to rounding for the mean of :func:`_bend` over a segment of length 1.
_FEW_NODES, _FEW_WEIGHTS = _gauss(6)


def _exp_slope(a: Tensor, b: Tensor) -> Tensor:
    return ((a + b) / 2).exp() * sinhc(((a - b) / 2) ** 2)


def _exp_curvature(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    r"""Returns :math:`\int_0^1 e^{(1 - t) c} \int_0^t e^{(t - r) b + r a}\, dr\, dt`, positive terms alone."""
    a, b, c = (each.unsqueeze(-1) for each in torch.broadcast_tensors(a, b, c))
    t, weight = _NODES.to(a), _WEIGHTS.to(a)
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


class _LogVolume(torch.autograd.Function):
    """Returns a matrix whose entries sum to the log-volume. Its differential is entrywise, so it is its own adjoint.

    A sum in ``jvp`` itself would drop tangents of an outer forward mode.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(X)
        i, j = torch.tril_indices(X.size(-1), X.size(-1), -1, device=X.device)
        total = log_sinhc((values[..., i] - values[..., j]) ** 2 / 4).sum(-1)[..., None, None]
        return torch.nn.functional.pad(total, (0, X.size(-1) - 1) * 2), values, vectors

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs, *output[1:])
        ctx.save_for_forward(*inputs, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Tensor:
        X, values, vectors = ctx.saved_tensors
        return _Entries.apply(X, gradient, values, vectors)

    @staticmethod
    def jvp(ctx: Any, dX: Tensor) -> tuple[Tensor, None, None]:
        X, values, vectors = ctx.saved_tensors
        return _Entries.apply(X, dX, values, vectors), None, None


class _Entries(torch.autograd.Function):
    """The entries of ``dX`` times those of the gradient of the log-volume."""

    generate_vmap_rule = True

    @staticmethod
    def forward(X: Tensor, dX: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
        return _gradient(values, vectors) * dX

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        dX, values, vectors = ctx.saved_tensors
        return _hessian(values, vectors, dX * gradient), _gradient(values, vectors) * gradient, None, None

    @staticmethod
    def jvp(ctx: Any, X: Tensor, ddX: Tensor, *_: Any) -> Tensor:
        dX, values, vectors = ctx.saved_tensors
        return _hessian(values, vectors, X) * dX + _gradient(values, vectors) * ddX


def _gradient(values: Tensor, vectors: Tensor) -> Tensor:
    return matmul(vectors, _pull(values).unsqueeze(-1) * vectors.mT)


def _hessian(values: Tensor, vectors: Tensor, dX: Tensor) -> Tensor:
    """Returns ``A_kl (g_k - g_l) / (l_k - l_l)`` in the eigenbasis, and on the diagonal the change of ``g``.

    Quotients of near eigenvalues are means over the segment from one to the other.
    """
    A, g, s = matmul(vectors.mT, _symmetric(dX), vectors), _pull(values), _differences(values)
    steps = s[..., None] * _FEW_NODES.to(s)
    means = (_bend(steps.unsqueeze(-2) + s[..., None, :, :, None]).sum(-2) * _FEW_WEIGHTS.to(s)).sum(-1)
    far = s.abs() > 1
    slopes = torch.where(far, _differences(g) / s.masked_fill(~far, 1.0), means)
    others = matmul(_bend(s), A.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)).squeeze(-1)
    return matmul(vectors, slopes * A - torch.diag_embed(others), vectors.mT)


def _differences(values: Tensor) -> Tensor:
    return values.unsqueeze(-1) - values.unsqueeze(-2)


def _pull(values: Tensor) -> Tensor:
    r"""Returns :math:`\sum_j h'(\lambda_k - \lambda_j)`, from :math:`\coth x = \tanh(x / 2) + 1 / \sinh x`."""
    s = _differences(values)
    return (torch.tanh(s / 4) / 2 - s / 4 * inverse_sinhc(s**2 / 4)[1]).sum(-1)


def _bend(s: Tensor) -> Tensor:
    r"""Returns :math:`h''(s) = (1 - c^2) / s^2`, where :math:`c = x / \sinh x` at :math:`x = s / 2`."""
    c, rest = inverse_sinhc(s**2 / 4)
    return (1 + c) * rest / 4


def _symmetric(X: Tensor) -> Tensor:
    return (X + X.mT) / 2
