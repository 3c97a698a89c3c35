r"""Maps of sets of N points as maps of points of the product :math:`M^N`, so that every law of one event applies."""

from typing import Any

import geoopt
import torch
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.distributions.constraints import Constraint

from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions.constraints import OnManifold, on_manifold

__all__ = ["SideBySide", "is_of_sets"]


def is_of_sets(transform: Transform) -> bool:
    """Returns whether the domain is that of sets of points of a manifold."""
    domain = transform.domain
    return isinstance(domain, constraints.independent) and isinstance(domain.base_constraint, OnManifold)


class SideBySide(TransformModule):
    r"""The map of a product :math:`M^N` that moves the points of a set, side by side.

    Args:
        transform: A map of sets of points of a manifold to itself.
        shape: The shape ``(N, *event)`` of a set.
    """

    bijective = True

    def __init__(self, transform: Any, shape: torch.Size) -> None:
        super().__init__(cache_size=0)
        self.transform, self.shape = transform, shape
        space = geometry.bind(transform.domain.base_constraint.manifold)
        pairs = zip(space.factors, space.dims(space.dim(shape[1:])), strict=True)
        factors = [(factor.manifold, factor.event_shape(n)) for factor, n in pairs]
        self._on_product = on_manifold(geoopt.ProductManifold(*factors * shape[0]))

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def domain(self) -> Constraint:
        """The product."""
        return self._on_product

    codomain = domain

    def __call__(self, x: Tensor) -> Tensor:
        """Returns the images, side by side."""
        return self._call(x)

    def _call(self, x: Tensor) -> Tensor:
        return self.transform(x.unflatten(-1, self.shape)).flatten(-len(self.shape))

    def _inverse(self, y: Tensor) -> Tensor:
        return self.transform.inv(y.unflatten(-1, self.shape)).flatten(-len(self.shape))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the log-determinant of the map of sets, shape ``(*)``."""
        return self.transform.log_abs_det_jacobian(*(each.unflatten(-1, self.shape) for each in (x, y)))

    def with_cache(self, cache_size: int = 1) -> "SideBySide":
        """Returns the same map, with that cache size of the map of sets."""
        return SideBySide(self.transform.with_cache(cache_size), self.shape)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Returns the shape of ``y`` for an ``x`` of that shape."""
        found = self.transform.forward_shape(torch.Size((*shape[:-1], *self.shape)))
        return torch.Size((*found[: len(found) - len(self.shape)], shape[-1]))

    inverse_shape = forward_shape
