r"""The rotation group :math:`SO(3)`, with the metric :math:`\frac12 \operatorname{tr} A^\top B`: lengths are angles."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic.numerics import asinc, norm, sinc

from .autocast import matmul
from .base import Embedded, mixed, products

__all__ = ["RotationGroup", "Rotations"]


class Rotations(Manifold):
    r"""The rotation group :math:`SO(3) = \{X : X^\top X = I,\ \det X = 1\}`, a geoopt manifold.

    Points are matrices ``(*, 3, 3)``. Tangent vectors are :math:`U = X \hat u` with a skew matrix :math:`\hat u`, as in
    every geoopt manifold; in ``pyro_hyperbolic.geometry`` they are ``u``, the angular velocity in the body frame,
    ``(*, 3)``. The metric is :math:`\frac12 \operatorname{tr} U^\top V = u \cdot v`, so lengths are angles: the longest
    distance is :math:`\pi`, and the volume :math:`8 \pi^2`.

    Example:
        >>> M = Rotations()
        >>> x = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # a quarter turn
        >>> M.dist(torch.eye(3), x), geometry.log_at(M, torch.eye(3), x)
        (tensor(1.5708), tensor([0.0000, 0.0000, 1.5708]))
    """

    name = "Rotations"
    ndim = 2
    reversible = True

    def projx(self, x: Tensor) -> Tensor:
        """Returns the nearest rotations in Frobenius norm."""
        return _nearest(x)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Returns the nearest tangent matrices at ``x``."""
        return matmul(x, _skew(matmul(x.mT, u)))

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        """Returns the gradient from derivatives by matrix entries: twice ``proju``, by the half in the metric."""
        return 2 * self.proju(x, u)

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """Returns the end points of geodesics with initial velocities ``u``, tangent matrices."""
        return _exp_at(x, _vee(matmul(x.mT, u)))

    retr = expmap

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the shortest tangent matrices at ``x`` that reach ``y``."""
        return matmul(x, _hat(_log(x, y)))

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Returns tangent matrices at ``y``, parallel to ``v`` along the shortest geodesic from ``x``."""
        half = _exp(_log(x, y) / 2)
        return matmul(x, half, x.mT, v, half)

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """Returns half the trace of ``u^T v``."""
        found = (u * (u if v is None else v)).sum((-2, -1), keepdim=keepdim) / 2
        return found.expand(torch.broadcast_shapes(x.shape[:-2] + (1, 1) * keepdim, found.shape))

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Returns the angles between rotations."""
        found = _angle(x, y)
        return found.unsqueeze(-1) if keepdim else found.squeeze(-1)

    def random_uniform(self, *size: int, dtype: Any = None, device: Any = None) -> Tensor:
        """Returns uniform rotations, ``size`` ending in ``3, 3``."""
        self._assert_check_shape(size, "size")
        return _of_quaternion(torch.randn(*size[:-2], 4, dtype=dtype, device=device))

    random = random_uniform

    def origin(self, *size: int, dtype: Any = None, device: Any = None, seed: Any = 42) -> Tensor:
        """Returns identity matrices, ``size`` ending in ``3, 3``."""
        self._assert_check_shape(size, "size")
        return torch.eye(3, dtype=dtype, device=device).expand(*size).clone()

    def _check_shape(self, shape: Any, name: str) -> Any:
        ok = tuple(shape[-2:]) == (3, 3)
        return ok, None if ok else f"`{name}` must have shape (*, 3, 3), but has {tuple(shape)}"

    def _check_point_on_manifold(self, x: Tensor, *, atol: float, rtol: float) -> tuple[bool, str | None]:
        eye = torch.eye(3, dtype=x.dtype, device=x.device)
        ok = torch.allclose(matmul(x.mT, x), eye.expand(x.shape), atol=atol, rtol=rtol)
        ok = ok and bool((torch.linalg.det(x) > 0).all())
        return ok, None if ok else "`x` is not a rotation: x^T x = I and det x = 1 do not hold"

    def _check_vector_on_tangent(self, x: Tensor, u: Tensor, *, atol: float, rtol: float) -> tuple[bool, str | None]:
        a = matmul(x.mT, u)
        ok = torch.allclose(a, -a.mT, atol=atol, rtol=rtol)
        return ok, None if ok else "`x^T u` is not skew-symmetric"


class RotationGroup(Embedded):
    """Rotations: points ``(*, 3, 3)``; tangent vectors are angular velocities ``(*, 3)`` in the body frame."""

    name = "Rotations"
    event_dim = 2
    coordinates = "(*, 3, 3)"
    projectable = "matrices need s2 + s3 > 0, of their singular values s1 >= s2 >= s3, with s3 negative if det < 0"

    def event_shape(self, n: int) -> torch.Size:
        if n != 3:
            raise ValueError(f"rotations have 3 dimensions, but {n} were requested.")
        return torch.Size((3, 3))

    def dim(self, shape: Sequence[int]) -> int:
        return 3 if tuple(shape[-2:]) == (3, 3) else 0

    def only_dim(self) -> int:
        return 3

    def contains(self, x: Tensor) -> Tensor:
        eye = torch.eye(3, dtype=x.dtype, device=x.device)
        near = (matmul(x.mT, x) - eye).abs().amax((-2, -1)) <= 64 * torch.finfo(x.dtype).eps
        return near & (torch.linalg.cross(x[..., 0], x[..., 1]) * x[..., 2]).sum(-1).gt(0)

    def explain(self, outside: Tensor, where: Tensor) -> tuple[str, str]:
        x = outside[0].double()
        off = (x.mT @ x - torch.eye(3, dtype=x.dtype)).abs().max().item()
        return (
            f" with |X^T X - I| = {off:.3g} and determinant {torch.linalg.det(x).item():.6g}",
            "project matrices with geometry.project(M, x)",
        )

    def project(self, x: Tensor) -> Tensor:
        return _nearest(x)

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return _exp_at(x, u)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return _log(x, y)

    def towards(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        chord = y - x
        return _vee(matmul(x.mT, chord)), (chord * chord).sum((-2, -1)) / 2

    def attraction(self, x: Tensor, y: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        flat = y.flatten(-2)
        square = 3 - products(x.flatten(-2), flat)
        return square, lambda weights: _vee(matmul(x.mT, mixed(weights, flat).unflatten(-1, (3, 3))))

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(-2)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return _angle(x, y).squeeze(-1)

    def squared_distance(self, x: Tensor, y: Tensor) -> Tensor:
        sin2 = ((y - x) ** 2).sum((-2, -1)) / 8  # of half the angle
        near = sin2 < 0.5
        cos, sin = _quaternion(x, y).split([1, 3], -1)
        far = torch.atan2(torch.linalg.vector_norm(sin.masked_fill(near.unsqueeze(-1), 1.0), dim=-1), cos[..., 0].abs())
        sin2 = sin2.masked_fill(~near, 0.0)
        return 4 * torch.where(near, sin2 * asinc(sin2) ** 2, far**2)

    def state_size(self, n: int) -> int:
        return 4

    def state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns unit quaternions, of either sign: what a flow computes changes sign with them."""
        s = _quaternion(torch.eye(3, dtype=x.dtype, device=x.device), x)
        return s, s.new_zeros(()).expand(s.shape[:-1])

    def point(self, s: Tensor) -> tuple[Tensor, Tensor]:
        return _of_unit_quaternion(s), s.new_zeros(()).expand(s.shape[:-1])

    def velocity(self, s: Tensor, u: Tensor) -> Tensor:
        """Returns half the quaternion product ``s (0, u)``."""
        w, q = s[..., :1], s[..., 1:]
        real = -(q * u).sum(-1, keepdim=True)
        return torch.cat([real, w * u + _cross(q, u)], -1) / 2

    def retract(self, s: Tensor) -> Tensor:
        return s / norm(s)

    def frame(self, s: Tensor) -> Tensor:
        """Returns velocities of unit angular velocity, which move the quaternion by half."""
        return self.velocity(s.unsqueeze(-2), torch.eye(3, dtype=s.dtype, device=s.device))

    def log_total_volume(self, n: int) -> float:
        return math.log(8 * math.pi**2)

    def uniform(self, shape: torch.Size, n: int, like: Tensor) -> Tensor:
        return _of_quaternion(torch.randn(*shape, 4, dtype=like.dtype, device=like.device))

    def lift_shape(self, n: int) -> tuple[int, int]:
        return 1, 4

    def of_directions(self, z: Tensor) -> Tensor:
        return _of_quaternion(z)

    def directions(self, x: Tensor) -> Tensor:
        return self.state(x)[0].unsqueeze(-2)

    def lift(self, x: Tensor, random: bool = False) -> Tensor:
        z = super().lift(x, random)
        # Quaternions q and -q are one rotation.
        return z * (2 * torch.randint(2, (*z.shape[:-1], 1), device=z.device) - 1) if random else z


def _hat(u: Tensor) -> Tensor:
    """Returns the skew matrix of the cross product with ``u``."""
    a, b, c = u.unbind(-1)
    zero = torch.zeros_like(a)
    return torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], -1).unflatten(-1, (3, 3))


def _skew(x: Tensor) -> Tensor:
    return (x - x.mT) / 2


def _vee(x: Tensor) -> Tensor:
    """Returns the vector of the skew part of a matrix."""
    return torch.stack([x[..., 2, 1] - x[..., 1, 2], x[..., 0, 2] - x[..., 2, 0], x[..., 1, 0] - x[..., 0, 1]], -1) / 2


def _exp(u: Tensor) -> Tensor:
    """Returns the rotation by the angle ``|u|`` about ``u`` (Rodrigues)."""
    z = (u * u).sum(-1)[..., None, None]
    hat = _hat(u)
    eye = torch.eye(3, dtype=u.dtype, device=u.device)
    return eye + sinc(z) * hat + sinc(z / 4) ** 2 / 2 * matmul(hat, hat)


def _exp_at(x: Tensor, u: Tensor) -> Tensor:
    y = matmul(x, _exp(u))
    # A Newton-Schulz step towards the polar factor, so that rounding does not add up over many steps.
    return (3 * y - matmul(y, y.mT, y)) / 2


def _log(x: Tensor, y: Tensor) -> Tensor:
    """Returns the rotation vector of ``x^T y``, of length at most pi, exactly zero at ``x = y``."""
    q = _quaternion(x, y)
    w, q = q[..., :1], q[..., 1:]
    q = torch.where(w < 0, -q, q)
    sin2 = (q * q).sum(-1, keepdim=True)
    near = sin2 < 0.5
    sin = sin2.masked_fill(near, 1.0).sqrt()
    return 2 * q * torch.where(near, asinc(sin2.masked_fill(~near, 0.0)), torch.atan2(sin, w.abs()) / sin)


def _angle(x: Tensor, y: Tensor) -> Tensor:
    """Returns the angle of ``x^T y``, shape ``(*, 1)``, from ``|y - x| = sqrt(8) sin(angle / 2)``."""
    sin = norm((y - x).flatten(-2)) / math.sqrt(8)
    return 2 * torch.atan2(sin, _quaternion(x, y)[..., :1].abs())


def _of_quaternion(q: Tensor) -> Tensor:
    """Returns the rotation of a quaternion of any length but zero."""
    return _of_unit_quaternion(q / norm(q))


def _of_unit_quaternion(q: Tensor) -> Tensor:
    w, hat = q[..., :1, None], _hat(q[..., 1:])
    eye = torch.eye(3, dtype=q.dtype, device=q.device)
    return eye + 2 * (w * hat + matmul(hat, hat))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.cross(*torch.broadcast_tensors(a, b))


def _correlations(x: Tensor) -> Tensor:
    """Returns the symmetric ``K`` with ``q^T K q = tr(R(q)^T x)`` for unit quaternions ``q`` (Davenport)."""
    trace = x.diagonal(dim1=-2, dim2=-1).sum(-1)
    a, b, c = x[..., 2, 1] - x[..., 1, 2], x[..., 0, 2] - x[..., 2, 0], x[..., 1, 0] - x[..., 0, 1]
    d, e, f = x[..., 0, 1] + x[..., 1, 0], x[..., 0, 2] + x[..., 2, 0], x[..., 1, 2] + x[..., 2, 1]
    xx, yy, zz = (2 * x[..., i, i] - trace for i in range(3))
    return torch.stack([trace, a, b, c, a, xx, d, e, b, d, yy, f, c, e, f, zz], -1).unflatten(-1, (4, 4))


def _quaternion(x: Tensor, y: Tensor) -> Tensor:
    """Returns the unit quaternion ``q`` of ``x^T y``, from the row of ``4 q q^T`` with the largest diagonal entry.

    From differences, because those of near rotations are exact: ``x^T y = I + x^T (y - x)``.
    """
    first = torch.zeros(4, 4, dtype=x.dtype, device=x.device)
    first[0, 0] = 4
    squares = first + _correlations(matmul(x.mT, y - x))
    best = squares.diagonal(dim1=-2, dim2=-1).detach().argmax(-1)[..., None, None]
    row = squares.gather(-2, best.expand(*best.shape[:-1], 4)).squeeze(-2)
    return row / torch.linalg.vector_norm(row, dim=-1, keepdim=True)


def _nearest(x: Tensor) -> Tensor:
    """Returns the rotation nearest to a matrix in Frobenius norm; NaN where there is more than one.

    Its quaternion is the first eigenvector of :func:`_correlations`, whose first eigenvalue exceeds the second by
    ``2 (s2 + s3)``. Two steps of Newton's method, on ``R^T x = P`` with a symmetric ``P``, give it the derivatives of
    the nearest point: the first step is right to second order, since it converges cubically.
    """
    # It is that of every multiple of the matrix. Of one that is not finite eigh raises; zero has more than one.
    size = x.detach().abs().amax((-2, -1), keepdim=True)
    unknown = ~size.isfinite() | (size == 0)
    x = x.masked_fill(unknown, 0.0) / size.masked_fill(unknown, 1.0)
    values, vectors = torch.linalg.eigh(_correlations(x.detach()))
    R = _of_quaternion(vectors[..., 3])
    eye = torch.eye(3, dtype=x.dtype, device=x.device)
    for _ in range(2):
        P = matmul(R.mT, x)
        trace = P.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        S = trace * eye - (P + P.mT) / 2
        adjugate = torch.linalg.cross(S[..., [1, 2, 0], :], S[..., [2, 0, 1], :])  # of a symmetric matrix
        determinant = (S[..., 0, :] * adjugate[..., 0, :]).sum(-1)[..., None]
        R = matmul(R, _exp(2 * matmul(adjugate, _vee(P).unsqueeze(-1)).squeeze(-1) / determinant))
    many = values[..., 3] - values[..., 2] <= 64 * torch.finfo(x.dtype).eps * values[..., 3].abs()
    return R.masked_fill(many[..., None, None], math.nan)
