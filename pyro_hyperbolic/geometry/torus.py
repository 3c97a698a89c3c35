r"""The flat torus :math:`T^n = (\mathbb{R} / 2 \pi)^n`, in angles."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic.numerics import norm

from .base import Embedded

__all__ = ["FlatTorus", "Torus"]


class Torus(Manifold):
    r"""The flat torus :math:`T^n`: points are ``n`` angles in :math:`[-\pi, \pi]`, a geoopt manifold.

    Args:
        n: Number of angles.
    """

    name = "Torus"
    ndim = 1
    reversible = True

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def projx(self, x: Tensor) -> Tensor:
        return wrap(x)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u.expand(torch.broadcast_shapes(x.shape, u.shape))

    egrad2rgrad = proju

    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        return wrap(x + u)

    expmap = retr

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return wrap(y - x)

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return v.expand(torch.broadcast_shapes(x.shape, y.shape, v.shape))

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        found = (u * (u if v is None else v)).sum(-1, keepdim=keepdim)
        return found.expand(torch.broadcast_shapes(x.shape[:-1] + (1,) * keepdim, found.shape))

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        return wrap(y - x).norm(dim=-1, keepdim=keepdim)

    def random_uniform(self, *size: int, dtype: Any = None, device: Any = None) -> Tensor:
        return math.pi * (2 * torch.rand(*size, dtype=dtype, device=device) - 1)

    random = random_uniform

    def _check_point_on_manifold(self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5) -> tuple[bool, str | None]:
        ok = bool((x.abs() <= math.pi * (1 + rtol) + atol).all()) and x.size(-1) == self.n
        return ok, None if ok else f"points must be {self.n} angles in [-pi, pi]"

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        return True, None

    def extra_repr(self) -> str:
        return str(self.n)


class FlatTorus(Embedded):
    """The flat torus: points are ``n`` angles, tangent vectors their velocities."""

    name = "Torus"
    coordinates = "(*, n), angles in [-pi, pi]"

    def event_shape(self, n: int) -> torch.Size:
        if n != self.manifold.n:
            raise ValueError(f"Torus({self.manifold.n}) has {self.manifold.n} dimensions, but {n} were requested.")
        return torch.Size((n,))

    def dim(self, shape: Sequence[int]) -> int:
        return shape[-1] if len(shape) and shape[-1] == self.manifold.n else 0

    def settings(self) -> dict[str, Any]:
        return {"n": self.manifold.n}

    def only_dim(self) -> int:
        n: int = self.manifold.n
        return n

    def curvature(self) -> Tensor:
        return torch.zeros(())

    def contains(self, x: Tensor) -> Tensor:
        return (x.abs() <= math.pi * (1 + 64 * torch.finfo(x.dtype).eps)).all(-1)

    def explain(self, outside: Tensor, where: Tensor) -> tuple[str, str]:
        return ", with an angle outside [-pi, pi]", "wrap angles with geometry.project(M, x)"

    def project(self, x: Tensor) -> Tensor:
        return wrap(x)

    def ambient(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return wrap(x + u)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return wrap(y - x)

    def towards(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        apart = y - x
        return apart.sin(), (4 * (apart / 2).sin() ** 2).sum(-1)

    def features(self, x: Tensor) -> Tensor:
        return torch.cat([x.cos(), x.sin()], -1)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return norm(wrap(y - x)).squeeze(-1)

    def squared_distance(self, x: Tensor, y: Tensor) -> Tensor:
        return (wrap(y - x) ** 2).sum(-1)

    def frame_at(self, x: Tensor) -> Tensor:
        return torch.eye(x.size(-1), dtype=x.dtype, device=x.device).expand(*x.shape, x.size(-1))

    def components_at(self, x: Tensor, velocity: Tensor) -> Tensor:
        return velocity

    def difference(self, s: Tensor, target: Tensor) -> Tensor:
        return wrap(target - s)

    def log_total_volume(self, n: int) -> float:
        return n * math.log(2 * math.pi)

    def uniform(self, shape: torch.Size, n: int, like: Tensor) -> Tensor:
        return math.pi * (2 * torch.rand(*shape, n, dtype=like.dtype, device=like.device) - 1)

    def lift_shape(self, n: int) -> tuple[int, int]:
        return n, 2

    def of_directions(self, z: Tensor) -> Tensor:
        z = z.unflatten(-1, (-1, 2))
        return torch.atan2(z[..., 1], z[..., 0])

    def directions(self, x: Tensor) -> Tensor:
        return torch.stack([x.cos(), x.sin()], -1)


def wrap(x: Tensor) -> Tensor:
    """Returns the angles in [-pi, pi]."""
    return x - 2 * math.pi * (x.detach() / (2 * math.pi)).round()
