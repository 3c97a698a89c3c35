r"""The flat torus :math:`T^n = (\mathbb{R} / 2 \pi)^n`, in angles."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic.numerics import norm

from .base import Embedded, mean_or_nan, mixed, products
from .remedies import shown

__all__ = ["FlatTorus", "Torus"]


class Torus(Manifold):
    r"""The flat torus :math:`T^n = (\mathbb{R} / 2\pi\mathbb{Z})^n`, a geoopt manifold.

    Points are ``n`` angles in :math:`[-\pi, \pi]`, shape ``(*, n)``; both ends are the same angle. Tangent vectors are
    their velocities, the metric is :math:`u \cdot v`, the volume :math:`(2 \pi)^n`.

    Args:
        n: The number of angles.

    Raises:
        TypeError: If ``n`` is not an integer.
        ValueError: If ``n < 1``.

    Example:
        >>> M = Torus(2)
        >>> M.dist(torch.tensor([3.0, 0.0]), torch.tensor([-3.0, 0.0]))  # 2 pi - 6
        tensor(0.2832)
    """

    name = "Torus"
    ndim = 1
    reversible = True

    def __init__(self, n: int) -> None:
        super().__init__()
        if not isinstance(n, int) or isinstance(n, bool):
            raise TypeError(f"n = {shown(n)}, but must be an integer, at least 1; it is the number of angles.")
        if n < 1:
            raise ValueError(f"n = {n}, but must be at least 1; it is the number of angles.")
        self.n = n

    def projx(self, x: Tensor) -> Tensor:
        """Returns the angles in [-pi, pi]."""
        return wrap(x)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Returns ``u``: every vector is tangent."""
        return u.expand(torch.broadcast_shapes(x.shape, u.shape))

    egrad2rgrad = proju

    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """Returns the end points of geodesics with initial velocities ``u``."""
        return wrap(x + u)

    expmap = retr

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the shortest vectors from ``x`` to ``y``."""
        return wrap(y - x)

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Returns ``v``: parallel vectors have the same components."""
        return v.expand(torch.broadcast_shapes(x.shape, y.shape, v.shape))

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """Returns the dot product."""
        found = (u * (u if v is None else v)).sum(-1, keepdim=keepdim)
        return found.expand(torch.broadcast_shapes(x.shape[:-1] + (1,) * keepdim, found.shape))

    def component_inner(self, x: Tensor, u: Tensor, v: Tensor | None = None) -> Tensor:
        """Returns the products of components, because the torus is a product of circles."""
        return self.proju(x, u * (u if v is None else v))

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Returns the lengths of shortest geodesics."""
        found = norm(wrap(y - x))
        return found if keepdim else found.squeeze(-1)

    def random_uniform(self, *size: int, dtype: Any = None, device: Any = None) -> Tensor:
        """Returns uniform points, ``size`` ending in ``n``."""
        self._assert_check_shape(size, "size")
        return math.pi * (2 * torch.rand(*size, dtype=dtype, device=device) - 1)

    random = random_uniform

    def origin(self, *size: int, dtype: Any = None, device: Any = None, seed: Any = 42) -> Tensor:
        """Returns zeros, ``size`` ending in ``n``."""
        self._assert_check_shape(size, "size")
        return torch.zeros(*size, dtype=dtype, device=device)

    def _check_shape(self, shape: Any, name: str) -> Any:
        ok = len(shape) > 0 and shape[-1] == self.n
        return ok, None if ok else f"`{name}` must have shape (*, {self.n}), but has {tuple(shape)}"

    def _check_point_on_manifold(self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5) -> tuple[bool, str | None]:
        ok = bool((x.abs() <= math.pi * (1 + rtol) + atol).all())
        return ok, None if ok else "`x` must be angles in [-pi, pi]"

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        return True, None

    def extra_repr(self) -> str:
        return str(self.n)


class FlatTorus(Embedded):
    """The flat torus: points are ``n`` angles, tangent vectors their velocities."""

    name = "Torus"
    projectable = "angles must be finite"

    @property
    def coordinates(self) -> str:  # type: ignore[override]
        return f"(*, {self.manifold.n}), angles in [-pi, pi]"

    def event_shape(self, n: int) -> torch.Size:
        if n != self.manifold.n:
            raise ValueError(f"Torus({self.manifold.n}) has {self.manifold.n} dimensions, but {n} were requested.")
        return torch.Size((n,))

    def dim(self, shape: Sequence[int]) -> int:
        return shape[-1] if len(shape) and shape[-1] == self.manifold.n else 0

    def only_dim(self) -> int:
        n: int = self.manifold.n
        return n

    def curvature(self) -> Tensor:
        return torch.zeros(())

    def contains(self, x: Tensor) -> Tensor:
        return (x.abs() <= math.pi * (1 + 64 * torch.finfo(x.dtype).eps)).all(-1)

    def explain(self, outside: Tensor, where: Tensor) -> tuple[str, str]:
        return " with an angle outside [-pi, pi]", "wrap angles with geometry.project(M, x)"

    def project(self, x: Tensor) -> Tensor:
        return wrap(x)

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return wrap(x + u)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return wrap(y - x)

    def towards(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        apart = y - x
        return apart.sin(), (4 * (apart / 2).sin() ** 2).sum(-1)

    def attraction(self, x: Tensor, y: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        square = 2 * x.size(-1) - 2 * products(self.features(x), self.features(y))
        return square, lambda weights: x.cos() * mixed(weights, y.sin()) - x.sin() * mixed(weights, y.cos())

    def features(self, x: Tensor) -> Tensor:
        return torch.cat([x.cos(), x.sin()], -1)

    def midpoint(self, x: Tensor, weights: Tensor) -> Tensor:
        cos, sin = mean_or_nan(self.directions(x), weights.unsqueeze(-1), 1).unbind(-1)
        return torch.atan2(sin, cos)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return norm(wrap(y - x)).squeeze(-1)

    def squared_distance(self, x: Tensor, y: Tensor) -> Tensor:
        return (wrap(y - x) ** 2).sum(-1)

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
    x = x.fmod(2 * math.pi)  # exact; the product below is rounded, for many turns by more than a turn's end allows
    return x - 2 * math.pi * (x.detach() / (2 * math.pi)).round()
