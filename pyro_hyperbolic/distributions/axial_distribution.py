r"""Distributions on the sphere that depend on the angle to an axis alone."""

from abc import abstractmethod
from typing import Any

import geoopt
import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_hyperbolic.distributions.concentrated_distribution import ConcentratedDistribution
from pyro_hyperbolic.numerics import householder, norm, reflect

__all__ = ["AxialDistribution"]

_SPHERE = geoopt.Sphere()


class AxialDistribution(ConcentratedDistribution):
    """Abstract base: the direction orthogonal to ``loc`` is uniform, and the angle has a law of its own.

    A subclass implements ``_half_angle``, ``_log_prob`` and ``_divergence_from_uniform``.
    """

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.dependent(is_discrete=False, event_dim=1),
        "concentration": constraints.positive,
    }

    def __init__(self, loc: Tensor, concentration: Tensor | float, validate_args: bool | None) -> None:
        super().__init__(_SPHERE, loc, concentration, validate_args)

    @property
    def mean(self) -> Tensor:
        """The Fréchet mean, a copy of ``loc``: the density falls with the distance from it."""
        return self.loc.clone()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Returns points of shape ``sample_shape + batch_shape + event_shape``, differentiable in the parameters."""
        loc = self.loc
        shape = torch.Size(sample_shape) + self.batch_shape
        sin, cos = (each.unsqueeze(-1) for each in self._half_angle(shape))
        across = torch.randn(*shape, self.dim, dtype=loc.dtype, device=loc.device)
        x = torch.cat([(cos - sin) * (cos + sin), 2 * sin * cos * (across / norm(across))], -1)
        # No frame is continuous in loc on the whole sphere. The draw is made in one at the value of loc, and then
        # carried along by the shortest rotation, which is smooth.
        at = loc.detach()
        return _carry(at, loc, reflect(householder(at), x))

    @abstractmethod
    def _half_angle(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Returns draws of sine and cosine of half the angle to ``loc``, differentiable in the concentration."""


def _carry(start: Tensor, end: Tensor, x: Tensor) -> Tensor:
    """Returns the image of ``x`` under the rotation along the geodesic from ``start`` to ``end``, both unit vectors."""
    middle = start + end
    along, ahead = (middle * x).sum(-1, keepdim=True), (start * x).sum(-1, keepdim=True)
    return x + 2 * ahead * end - along / (1 + (start * end).sum(-1, keepdim=True)) * middle
