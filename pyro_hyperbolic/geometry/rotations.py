r"""The rotation group :math:`SO(3)`, with the metric :math:`\frac12 \operatorname{tr} A^\top B`: lengths are angles."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic.numerics import asinc, norm, sinc

from .base import Embedded

__all__ = ["RotationGroup", "Rotations"]


class Rotations(Manifold):
    r"""The rotation group :math:`SO(3)`, a geoopt manifold: points are matrices ``(*, 3, 3)``, lengths are angles."""

    name = "Rotations"
    ndim = 2
    reversible = True

    def projx(self, x: Tensor) -> Tensor:
        u, _, vh = torch.linalg.svd(x)
        sign = torch.linalg.det(u @ vh)
        return torch.cat([u[..., :2], u[..., 2:] * sign[..., None, None]], -1) @ vh

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return x @ _skew(x.mT @ u)

    egrad2rgrad = proju

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return x @ _exp(_vee(x.mT @ u))

    retr = expmap

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ _hat(_log(x.mT @ y))

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return y @ x.mT @ v

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        found = (u * (u if v is None else v)).sum((-2, -1), keepdim=keepdim) / 2
        return found.expand(torch.broadcast_shapes(x.shape[:-2] + (1, 1) * keepdim, found.shape))

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        found = _log(x.mT @ y).norm(dim=-1)
        return found[..., None, None] if keepdim else found

    def random_uniform(self, *size: int, dtype: Any = None, device: Any = None) -> Tensor:
        return _of_quaternion(torch.randn(*size[:-2], 4, dtype=dtype, device=device))

    random = random_uniform

    def _check_shape(self, shape: Any, name: str) -> Any:
        ok = tuple(shape[-2:]) == (3, 3)
        return ok, None if ok else f"`{name}` must have shape (*, 3, 3), but has {tuple(shape)}"

    def _check_point_on_manifold(self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5) -> tuple[bool, str | None]:
        eye = torch.eye(3, dtype=x.dtype, device=x.device)
        ok = torch.allclose((x.mT @ x).expand(x.shape), eye.expand(x.shape), atol=atol, rtol=rtol)
        ok = ok and bool((torch.linalg.det(x) > 0).all())
        return ok, None if ok else "`x` is not a rotation"

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        a = x.mT @ u
        ok = torch.allclose(a, -a.mT, atol=atol, rtol=rtol)
        return ok, None if ok else "`x^T u` is not skew-symmetric"


class RotationGroup(Embedded):
    """Rotations: points ``(*, 3, 3)``; tangent vectors are angular velocities ``(*, 3)`` in the body frame."""

    name = "Rotations"
    event_dim = 2
    coordinates = "(*, 3, 3)"

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
        near = (x.mT @ x - eye).abs().amax((-2, -1)) <= 64 * torch.finfo(x.dtype).eps
        return near & (torch.linalg.cross(x[..., 0], x[..., 1]) * x[..., 2]).sum(-1).gt(0)

    def explain(self, outside: Tensor, where: Tensor) -> tuple[str, str]:
        x = outside[0].double()
        off = (x.mT @ x - torch.eye(3, dtype=x.dtype)).abs().max().item()
        return (
            f", with |X^T X - I| = {off:.3g} and determinant {torch.linalg.det(x).item():.6g}",
            "project matrices with geometry.project(M, x)",
        )

    def project(self, x: Tensor) -> Tensor:
        # Newton-Schulz steps towards the polar factor: quadratic, for matrices that are nearly rotations.
        eye = torch.eye(3, dtype=x.dtype, device=x.device)
        for _ in range(2):
            x = x @ (3 * eye - x.mT @ x) / 2
        return x

    def ambient(self, x: Tensor, u: Tensor) -> Tensor:
        return x @ _hat(u)

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return x @ _exp(u)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return _log(x.mT @ y)

    def towards(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return _vee(x.mT @ y), ((x - y) ** 2).sum((-2, -1)) / 2

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(-2)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return norm(self.log(x, y)).squeeze(-1)

    def squared_distance(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.log(x, y) ** 2).sum(-1)

    def frame_at(self, x: Tensor) -> Tensor:
        return x.unsqueeze(-3) @ _hat(torch.eye(3, dtype=x.dtype, device=x.device))

    def components_at(self, x: Tensor, velocity: Tensor) -> Tensor:
        return _vee(x.mT @ velocity)

    def points_of(self, s: Tensor) -> Tensor:
        return s.unflatten(-1, (3, 3))

    def log_total_volume(self, n: int) -> float:
        return math.log(8 * math.pi**2)

    def uniform(self, shape: torch.Size, n: int, like: Tensor) -> Tensor:
        return _of_quaternion(torch.randn(*shape, 4, dtype=like.dtype, device=like.device))

    def lift_size(self, n: int) -> int:
        return 4

    def of_directions(self, z: Tensor) -> Tensor:
        return _of_quaternion(z)

    def directions(self, x: Tensor) -> Tensor:
        return _quaternion(x).unsqueeze(-2)

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
    return eye + sinc(z) * hat + sinc(z / 4) ** 2 / 2 * (hat @ hat)


def _log(x: Tensor) -> Tensor:
    """Returns the rotation vector, of length at most pi, from the quaternion ``(w, q)``."""
    q = _quaternion(x)
    w, q = q[..., :1], q[..., 1:]
    q = torch.where(w < 0, -q, q)
    w = w.abs()
    sin2 = (q * q).sum(-1, keepdim=True)
    near = sin2 < 0.5
    far = torch.atan2(sin2.masked_fill(near, 1.0).sqrt(), w) / sin2.masked_fill(near, 1.0).sqrt()
    return 2 * q * torch.where(near, asinc(sin2.masked_fill(~near, 0.0)), far)


def _quaternion(x: Tensor) -> Tensor:
    """Returns the unit quaternion of a rotation, from the row of ``4 q q^T`` with the largest diagonal entry."""
    trace = x.diagonal(dim1=-2, dim2=-1).sum(-1)
    a, b, c = x[..., 2, 1] - x[..., 1, 2], x[..., 0, 2] - x[..., 2, 0], x[..., 1, 0] - x[..., 0, 1]
    d, e, f = x[..., 0, 1] + x[..., 1, 0], x[..., 0, 2] + x[..., 2, 0], x[..., 1, 2] + x[..., 2, 1]
    xx, yy, zz = x[..., 0, 0], x[..., 1, 1], x[..., 2, 2]
    diagonal = torch.stack([1 + trace, 1 + 2 * xx - trace, 1 + 2 * yy - trace, 1 + 2 * zz - trace], -1)
    rows = torch.stack(
        [
            torch.stack([diagonal[..., 0], a, b, c], -1),
            torch.stack([a, diagonal[..., 1], d, e], -1),
            torch.stack([b, d, diagonal[..., 2], f], -1),
            torch.stack([c, e, f, diagonal[..., 3]], -1),
        ],
        -2,
    )
    best = diagonal.detach().argmax(-1)[..., None, None].expand(*diagonal.shape[:-1], 1, 4)
    row = rows.gather(-2, best).squeeze(-2)
    return row / norm(row)


def _of_quaternion(q: Tensor) -> Tensor:
    """Returns the rotation of a quaternion of any length but zero."""
    q = q / norm(q)
    w, hat = q[..., :1, None], _hat(q[..., 1:])
    eye = torch.eye(3, dtype=q.dtype, device=q.device)
    return eye + 2 * w * hat + 2 * hat @ hat
