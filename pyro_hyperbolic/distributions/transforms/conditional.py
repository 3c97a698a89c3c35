r"""What conditional transforms share: each is a transform only at a context, and says so to whoever applies it."""

from abc import abstractmethod
from typing import Any, NoReturn

import torch
from geoopt.manifolds.base import Manifold
from pyro.distributions.conditional import ConditionalTransformModule
from torch.distributions import Transform
from torch.distributions.constraints import Constraint

from pyro_hyperbolic.distributions.constraints import on_manifold

__all__ = ["NeedsContext"]


class NeedsContext(ConditionalTransformModule, Transform):
    """Abstract base of conditional transforms, whose ``condition(context)`` returns a transform.

    It is a ``Transform`` for the sake of the error below: ``TransformedDistribution`` takes it, asks for its shapes,
    and learns what to do. What is no ``Transform`` it refuses without a word about which one, or why.
    """

    @property
    @abstractmethod
    def manifold(self) -> Manifold:
        """The geoopt manifold on which the conditioned transform acts."""

    @property
    def domain(self) -> Constraint:  # type: ignore[override]
        """The manifold."""
        return on_manifold(self.manifold)

    codomain = domain

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises: there is no transform without a context."""
        raise TypeError(
            f"{type(self).__name__} is conditional, and has no context yet; call .condition(context) before applying "
            f"it, or use pyro.distributions.ConditionalTransformedDistribution."
        )

    forward_shape = inverse_shape = log_abs_det_jacobian = forward

    __hash__ = object.__hash__  # Transform has none
    __repr__ = torch.nn.Module.__repr__
