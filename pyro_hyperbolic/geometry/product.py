r"""Products of manifolds, :math:`M_1 \times \dots \times M_m` (``geoopt.ProductManifold``).

Points and tangent vectors of the factors are concatenated. Every map acts on each factor separately; log-volumes and
squared distances add up. Each factor has its own curvature, which can be learnable, latent or a batch. A product can do
what all its factors can: it has a global chart if they all have one, and a finite volume if they are all compact.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any

import torch
from geoopt import ProductManifold
from torch import Tensor

from pyro_hyperbolic.numerics import norm

from .base import Complete, Embedded, Hadamard

__all__ = ["CompactProduct", "MixedProduct", "Product"]


class MixedProduct(Complete):
    """A product of complete manifolds: points ``(*, sum of the factors' sizes)``."""

    #: Returns the geometry of a factor. The registry sets it, to avoid a circular import.
    bind: Callable[..., Any]

    manifold: ProductManifold
    remedy = "concatenate points of the factors"

    def __init__(self, manifold: ProductManifold) -> None:
        super().__init__(manifold)
        self._factors = [type(self).bind(factor) for factor in manifold.manifolds]
        self._dims = [factor.dim(shape) for factor, shape in self._zip(manifold.shapes)]

    @property
    def factors(self) -> list[Any]:
        return self._factors

    def dims(self, n: int) -> list[int]:
        self.event_shape(n)
        return self._dims

    def split(self, x: Tensor) -> list[Tensor]:
        parts = x.split([math.prod(shape) for shape in self.manifold.shapes], -1)
        return [part.unflatten(-1, tuple(shape)) for part, shape in zip(parts, self.manifold.shapes, strict=True)]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        return _cat([part.flatten(part.dim() - factor.event_dim) for factor, part in self._zip(parts)])

    def _zip(self, *parts: Iterable[Any]) -> Iterable[Any]:
        return zip(self._factors, *parts, strict=True)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The factors with their dimensions, for example ``Lorentz(2) x Euclidean(3)``."""
        return " x ".join(f"{factor.name}({n})" for factor, n in self._zip(self._dims))

    @property
    def coordinates(self) -> str:  # type: ignore[override]
        return f"(*, {self.manifold.n_elements})"

    @property
    def projectable(self) -> str:  # type: ignore[override]
        return "; ".join(f"factor {i}, {factor.name}: {factor.projectable}" for i, factor in enumerate(self._factors))

    @property
    def parameter_remedy(self) -> str:  # type: ignore[override]
        return " ".join(dict.fromkeys(factor.parameter_remedy for factor in self._factors))

    def event_shape(self, n: int) -> torch.Size:
        if n != sum(self._dims):
            raise ValueError(
                f"{self.name} has {sum(self._dims)} dimensions, but {n} were requested; the sizes passed to "
                f"geoopt.ProductManifold fix them."
            )
        return torch.Size((self.manifold.n_elements,))

    def dim(self, shape: Sequence[int]) -> int:
        return sum(self._dims) if len(shape) and shape[-1] == self.manifold.n_elements else 0

    def only_dim(self) -> int:
        return sum(self._dims)

    def parameters(self) -> dict[str, Tensor]:
        return {
            f"{name} of factor {i}": value
            for i, factor in enumerate(self._factors)
            for name, value in factor.parameters().items()
        }

    def with_parameters(self, parameters: dict[str, Tensor]) -> ProductManifold:
        new = []
        for i, factor in enumerate(self._factors):
            own = {name: parameters[f"{name} of factor {i}"] for name in factor.parameters()}
            new.append(factor.with_parameters(own))
        return ProductManifold(*zip(new, self.manifold.shapes, strict=True))

    def check_settings(self) -> None:
        for i, (factor, n, shape) in enumerate(self._zip(self._dims, self.manifold.shapes)):
            factor.check_settings()
            if n < 1 or tuple(factor.event_shape(n)) != tuple(shape):
                raise ValueError(
                    f"factor {i} of the product, {factor.name}, has size {tuple(shape)}, but its points in n >= 1 "
                    f"dimensions are {factor.coordinates}; pass such a size to geoopt.ProductManifold."
                )

    def contains(self, x: Tensor) -> Tensor:
        return reduce(torch.logical_and, [factor.contains(part) for factor, part in self._zip(self.split(x))])

    def explain(self, outside: Tensor, where: Tensor) -> tuple[str, str]:
        where = where.cpu()
        own = {name: value.detach().cpu().expand(where.shape)[where][:1] for name, value in self.parameters().items()}
        first = type(self)(self.with_parameters(own))
        for i, (factor, part) in enumerate(first._zip(first.split(outside[:1]))):
            if not bool(factor.contains(part)):
                defect, remedy = factor.explain(part, torch.ones(1, dtype=torch.bool))
                return f": factor {i}, {factor.name},{defect}", remedy
        return super().explain(outside, where)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return _length([f.distance(a, b) for f, a, b in self._zip(self.split(x), self.split(y))])

    def distance_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        xs = self.split(x)
        ys = xs if y is x else self.split(y)
        return _length([f.distance_matrix(a, b) for f, a, b in self._zip(xs, ys)])

    def squared_distance(self, x: Tensor, y: Tensor) -> Tensor:
        return _sum(f.squared_distance(a, b) for f, a, b in self._zip(self.split(x), self.split(y)))

    def project(self, x: Tensor) -> Tensor:
        return self.join([factor.project(part) for factor, part in self._zip(self.split(x))])

    def vector_size(self, n: int) -> int:
        return sum(self._sizes("vector_size"))

    def state_size(self, n: int) -> int:
        return sum(self._sizes("state_size"))

    def lift_size(self, n: int) -> int:
        return sum(self._sizes("lift_size"))

    def _sizes(self, kind: str) -> list[int]:
        """Returns ``vector_size``, ``state_size`` or ``lift_size`` of each factor."""
        return [getattr(factor, kind)(n) for factor, n in self._zip(self._dims)]

    def _vectors(self, u: Tensor) -> tuple[Tensor, ...]:
        """Returns the tangent vectors of the factors."""
        return u.split(self._sizes("vector_size"), -1)

    def _states(self, s: Tensor) -> tuple[Tensor, ...]:
        """Returns the states of the factors, or their velocities."""
        return s.split(self._sizes("state_size"), -1)

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return _cat([f.tangent(a, b) for f, a, b in self._zip(self.split(x), self._vectors(u))])

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return self.join([f.exp(a, b) for f, a, b in self._zip(self.split(x), self._vectors(u))])

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return _cat([f.log(a, b) for f, a, b in self._zip(self.split(x), self.split(y))])

    def towards(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return _cat_pairs(f.towards(a, b) for f, a, b in self._zip(self.split(x), self.split(y)))

    def attraction(self, x: Tensor, y: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        parts = [f.attraction(a, b) for f, a, b in self._zip(self.split(x), self.split(y))]
        return _sum(square for square, _ in parts), lambda weights: _cat([mix(weights) for _, mix in parts])

    def path(self, x0: Tensor, x1: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        points, vectors = zip(*(f.path(a, b, t) for f, a, b in self._zip(self.split(x0), self.split(x1))), strict=True)
        return self.join(points), _cat(vectors)

    def guidance(self, x: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]:
        parts = [f.guidance(a, b, t) for f, a, b in self._zip(self.split(x), self._states(s))]
        squares, log_volumes, guides = zip(*parts, strict=True)
        return _sum(squares), _sum(log_volumes), lambda weights, gains: _cat([each(weights, gains) for each in guides])

    def features(self, x: Tensor) -> Tensor:
        return _cat([f.features(part) for f, part in self._zip(self.split(x))])

    def state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return _cat_pairs(f.state(part) for f, part in self._zip(self.split(x)))

    def point(self, s: Tensor) -> tuple[Tensor, Tensor]:
        return self._join_pairs(f.point(part) for f, part in self._zip(self._states(s)))

    def velocity(self, s: Tensor, u: Tensor) -> Tensor:
        return _cat([f.velocity(a, b) for f, a, b in self._zip(self._states(s), self._vectors(u))])

    def retract(self, s: Tensor) -> Tensor:
        return _cat([f.retract(part) for f, part in self._zip(self._states(s))])

    def difference(self, s: Tensor, target: Tensor) -> Tensor:
        return _cat([f.difference(a, b) for f, a, b in self._zip(self._states(s), self._states(target))])

    def away_from_zero(self, s: Tensor) -> Tensor:
        return _cat([f.away_from_zero(part) for f, part in self._zip(self._states(s))])

    def midpoint(self, x: Tensor, weights: Tensor) -> Tensor:
        return self.join([f.midpoint(part, weights) for f, part in self._zip(self.split(x))])

    def frame(self, s: Tensor) -> Tensor:
        """Returns the block-diagonal basis of the frames of the factors."""
        blocks, before = [], 0
        for f, part in self._zip(self._states(s)):
            block = f.frame(part)
            blocks.append(torch.nn.functional.pad(block, (before, s.size(-1) - before - block.size(-1))))
            before += block.size(-1)
        return torch.cat(blocks, -2)

    def lifted(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self._join_pairs(f.lifted(part) for f, part in self._zip(z.split(self._sizes("lift_size"), -1)))

    def lift(self, x: Tensor, random: bool = False) -> Tensor:
        return _cat([f.lift(part, random) for f, part in self._zip(self.split(x))])

    def _join_pairs(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        points, volumes = zip(*pairs, strict=True)
        return self.join(points), _sum(volumes)


class Product(MixedProduct, Hadamard):
    """A product of Hadamard manifolds, with the product of their charts."""

    remedy = Hadamard.remedy

    def origin(self, n: int, dtype: torch.dtype | None, device: torch.device | None) -> Tensor:
        return self.join([factor.origin(m, dtype, device) for factor, m in self._zip(self.dims(n))])

    def exp0(self, v: Tensor) -> tuple[Tensor, Tensor]:
        return self._join_pairs(f.exp0(part) for f, part in self._zip(self.split_tangent(v)))

    def log0(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return _cat_pairs(f.log0(part) for f, part in self._zip(self.split(x)))

    def exp_at(self, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self._join_pairs(f.exp_at(a, b) for f, a, b in self._zip(self.split(p), self.split_tangent(v)))

    def log_at(self, p: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return _cat_pairs(f.log_at(a, b) for f, a, b in self._zip(self.split(p), self.split(x)))

    def log_at_of_tangent(self, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return _cat_pairs(f.log_at_of_tangent(a, b) for f, a, b in self._zip(self.split(p), self.split_tangent(v)))

    def log_volume(self, v: Tensor) -> Tensor:
        return _sum(f.log_volume(part) for f, part in self._zip(self.split_tangent(v)))

    def drift(self, x: Tensor, v: Tensor) -> Tensor:
        return _cat([f.drift(a, b) for f, a, b in self._zip(self.split(x), self.split_tangent(v))])

    def translate(self, p: Tensor, x: Tensor, inverse: bool = False) -> Tensor:
        return self.join([f.translate(a, b, inverse) for f, a, b in self._zip(self.split(p), self.split(x))])

    def split_tangent(self, v: Tensor) -> tuple[Tensor, ...]:
        """Returns the tangent coordinates of the factors."""
        return v.split(self.dims(v.size(-1)), -1)


class CompactProduct(MixedProduct, Embedded):
    """A product of compact manifolds; volumes multiply."""

    def log_total_volume(self, n: int) -> float:
        return sum(factor.log_total_volume(m) for factor, m in self._zip(self.dims(n)))

    def uniform(self, shape: torch.Size, n: int, like: Tensor) -> Tensor:
        return self.join([factor.uniform(shape, m, like) for factor, m in self._zip(self.dims(n))])


def _cat_pairs(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    vectors, volumes = zip(*pairs, strict=True)
    return _cat(vectors), _sum(volumes)


def _length(parts: Sequence[Tensor]) -> Tensor:
    return norm(torch.stack(torch.broadcast_tensors(*parts), -1)).squeeze(-1)


def _sum(values: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, values)


def _cat(parts: Sequence[Tensor]) -> Tensor:
    batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*batch, part.size(-1)) for part in parts], dim=-1)
