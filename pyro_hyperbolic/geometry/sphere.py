r"""The unit sphere :math:`S^n` (``geoopt.Sphere``), with maps that are accurate from coincident to antipodal points."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_hyperbolic.numerics import asinc, norm, sinc

from .base import Embedded, mixed, products

__all__ = ["Sphere"]


class Sphere(Embedded):
    """The unit sphere: points ``(*, n + 1)``; tangent vectors are ambient, orthogonal to the point."""

    name = "Sphere"
    coordinates = "(*, n + 1)"
    projectable = "vectors must be finite and not zero"

    def event_shape(self, n: int) -> torch.Size:
        return torch.Size((n + 1,))

    def dim(self, shape: Sequence[int]) -> int:
        return shape[-1] - 1 if len(shape) else 0

    def curvature(self) -> Tensor:
        return torch.ones(())

    def check_settings(self) -> None:
        if self.manifold.projector is not None:
            raise ValueError(
                "geoopt.Sphere has an intersection or a complement, but only whole spheres are supported; use "
                "geoopt.Sphere()."
            )

    def contains(self, x: Tensor) -> Tensor:
        return (norm(x).squeeze(-1) - 1).abs() <= 64 * torch.finfo(x.dtype).eps

    def explain(self, outside: Tensor, where: Tensor) -> tuple[str, str]:
        return f" with norm {norm(outside[0]).item():.6g}", "normalise points with geometry.project(M, x)"

    def vector_size(self, n: int) -> int:
        return n + 1

    def project(self, x: Tensor) -> Tensor:
        return x / norm(x)

    def retract(self, s: Tensor) -> Tensor:
        return s / torch.linalg.vector_norm(s, dim=-1, keepdim=True)  # faster, for vectors of ordinary size

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return u - (x * u).sum(-1, keepdim=True) * x

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        z = (u * u).sum(-1, keepdim=True)
        # cos r = 1 - 2 sin(r / 2)^2
        return self.retract((1 - z / 2 * sinc(z / 4) ** 2) * x + sinc(z) * u)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the part of ``y`` orthogonal to ``x``, of length ``sin(r)``, times ``r / sin(r)``."""
        near, square, root, chord = _half_angle(x, y)
        side = self.tangent(x, chord)  # from the shorter one of y - x and y + x, so that nothing cancels
        # Next to the antipode the chord is mostly rounding error along x, so it is removed twice, and of the side only
        # the direction is used. If there is none, every direction is a shortest one.
        side = torch.where(near, side, self.tangent(x, side))
        antipodal = ~near & (side == 0).all(-1, keepdim=True)
        length = torch.linalg.vector_norm(side.masked_fill(near | antipodal, 1.0), dim=-1, keepdim=True)
        u = side * torch.where(
            near, asinc(square) / (1 - square).sqrt(), (torch.pi - 2 * root * asinc(root**2)) / length
        )
        return torch.where(antipodal, torch.pi * self.frame(x)[..., 0, :], u)

    def towards(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        chord = y - x
        return self.tangent(x, chord), (chord * chord).sum(-1)

    def attraction(self, x: Tensor, y: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return 2 - 2 * products(x, y), lambda weights: self.tangent(x, mixed(weights, y))

    def features(self, x: Tensor) -> Tensor:
        return x

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return 2 * torch.atan2(norm(y - x), norm(y + x)).squeeze(-1)

    def squared_distance(self, x: Tensor, y: Tensor) -> Tensor:
        near, square, root, _ = _half_angle(x, y)
        far = torch.pi - (2 * root * asinc(root**2)).masked_fill(square == 0, 0.0)
        return torch.where(near, 4 * square * asinc(square) ** 2, far**2).squeeze(-1)

    def frame(self, s: Tensor) -> Tensor:
        """Returns all but the first column of the mirror that carries the first axis to ``s`` or ``-s``.

        The last one is reversed where it is ``s``, for one orientation everywhere.
        """
        sign = torch.where(s[..., :1] < 0, -1.0, 1.0).to(s)
        normal = torch.cat([s[..., :1] + sign, s[..., 1:]], -1)
        normal = normal / torch.linalg.vector_norm(normal, dim=-1, keepdim=True)
        eye = torch.eye(s.size(-1), dtype=s.dtype, device=s.device)[1:]
        frame = eye - 2 * normal[..., 1:, None] * normal[..., None, :]
        return torch.cat([frame[..., :-1, :], sign.unsqueeze(-1) * frame[..., -1:, :]], -2)

    def log_total_volume(self, n: int) -> float:
        return math.log(2) + (n + 1) / 2 * math.log(math.pi) - math.lgamma((n + 1) / 2)

    def uniform(self, shape: torch.Size, n: int, like: Tensor) -> Tensor:
        return self.project(torch.randn(*shape, n + 1, dtype=like.dtype, device=like.device))

    def lift_shape(self, n: int) -> tuple[int, int]:
        return 1, n + 1

    def of_directions(self, z: Tensor) -> Tensor:
        return self.project(z)

    def directions(self, x: Tensor) -> Tensor:
        return x.unsqueeze(-2)


def _half_angle(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns whether the angle is acute, and the square of the smaller one of sine and cosine of its half.

    Also the root of the square, 0.5 where the angle is acute or the points are antipodal, so that it is
    differentiable; and the chord that it is half of, ``y - x`` or ``y + x``.
    """
    near = (x * y).sum(-1, keepdim=True) >= 0
    chord = torch.where(near, y - x, y + x)
    square = (chord * chord).sum(-1, keepdim=True) / 4
    return near, square, square.masked_fill(near | (square == 0), 0.25).sqrt(), chord
