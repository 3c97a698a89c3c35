r"""Symmetric positive definite matrices with the affine-invariant metric (``geoopt.SymmetricPositiveDefinite``).

Points are ``(*, m, m)``, in :math:`n = m (m + 1) / 2` dimensions; the origin is the identity. Tangent coordinates are
the diagonal of a symmetric matrix V, followed by :math:`\sqrt 2` times the entries below it (an orthonormal basis).

.. math:: \exp_o(V) = e^V, \qquad T_P X = P^{1/2} X P^{1/2}, \qquad
    \log |\det d\exp_o| = \sum_{i < j} \log \operatorname{sinhc} \frac{\lambda_i(V) - \lambda_j(V)}{2}

References:
    *Geometry Processing and Medical Imaging by Riemannian Tensor Computing*, X. Pennec, P. Fillard, N. Ayache, 2006.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_hyperbolic.numerics import norm

from .autocast import matmul
from .base import Hadamard
from .matrix_functions import log_volume, matrix_function

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
        return matrix_function(V, "exp"), log_volume(V)

    def log0(self, x: Tensor) -> tuple[Tensor, Tensor]:
        V = matrix_function(x, "log")
        return _vector(V), log_volume(V)

    def translate(self, p: Tensor, x: Tensor, inverse: bool = False) -> Tensor:
        root = matrix_function(p, "rsqrt" if inverse else "sqrt")
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
        return norm(torch.linalg.eigvalsh(_ratio(x, y)).log()).squeeze(-1)

    def squared_distance(self, x: Tensor, y: Tensor) -> Tensor:
        # Not by eigenvalues, whose second derivatives are infinite where they are equal, as at y = x.
        return matrix_function(_ratio(x, y), "log").square().sum((-2, -1))


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


def _ratio(x: Tensor, y: Tensor) -> Tensor:
    """Returns ``L^-1 y L^-T``, ``x = L L^T``; its eigenvalues are those of ``x^-1 y``, of far points too."""
    factor = torch.linalg.cholesky(x)
    half = torch.linalg.solve_triangular(factor, y, upper=False)
    return torch.linalg.solve_triangular(factor, half.mT, upper=False)
