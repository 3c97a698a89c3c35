r"""Distributions on the sphere that depend on the angle to an axis alone."""

from abc import abstractmethod
from typing import Any

import geoopt
import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_hyperbolic.distributions.manifold_distribution import ManifoldDistribution, checked_number
from pyro_hyperbolic.distributions.transforms.base import LEARN_LOC_HINT
from pyro_hyperbolic.geometry import checks
from pyro_hyperbolic.geometry.sphere import Sphere
from pyro_hyperbolic.numerics import householder, norm, reflect

__all__ = ["CONCENTRATION_REMEDY", "AxialDistribution"]

_SPHERE = geoopt.Sphere()
CONCENTRATION_REMEDY = "its limit at 0 is Uniform; pass a network's output through softplus or exp."


class AxialDistribution(ManifoldDistribution):
    """Abstract base: the direction orthogonal to ``loc`` is uniform, and the angle has a law of its own.

    A subclass implements ``_half_angle``, ``_log_prob`` and ``_divergence_from_uniform``.
    """

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.dependent(is_discrete=False, event_dim=1),
        "concentration": constraints.positive,
    }

    def __init__(self, loc: Tensor, concentration: Tensor | float, validate_args: bool | None) -> None:
        checks.check_points(_SPHERE, loc, "loc", validate=validate_args, advice=LEARN_LOC_HINT)
        self._loc = loc
        self._concentration = checked_number("concentration", concentration, loc, CONCENTRATION_REMEDY, validate_args)
        checks.check_same_dtype(loc=loc, concentration=self._concentration)
        #: The intrinsic dimension of the sphere.
        self.dim = loc.size(-1) - 1
        batch_shape = checks.check_batches(loc=loc.shape[:-1], concentration=self._concentration.shape)
        self._finish(_SPHERE, batch_shape, loc.shape[-1:], validate_args)

    @property
    def loc(self) -> Tensor:
        """The axis, shape ``(*, n + 1)``."""
        return self._expanded("loc")

    @property
    def concentration(self) -> Tensor:
        """The concentration, shape ``(*)``."""
        return self._expanded("concentration")

    @property
    def mean(self) -> Tensor:
        """The Fréchet mean, a copy of ``loc``: the density falls with the distance from it."""
        return self.loc.clone()

    @property
    def mode(self) -> Tensor:
        """The mode, a copy of ``loc``."""
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

    def entropy(self) -> Tensor:
        """Returns the entropy, the logarithm of the area less the divergence from the uniform, shape ``(*)``."""
        volume = Sphere(_SPHERE).log_total_volume(self.dim)
        return volume - self.divergence_from_uniform()

    def divergence_from_uniform(self) -> Tensor:
        """Returns the Kullback-Leibler divergence from the uniform distribution, shape ``(*)``."""
        return self._divergence_from_uniform().expand(self.batch_shape)

    @abstractmethod
    def _half_angle(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Returns draws of sine and cosine of half the angle to ``loc``, differentiable in the concentration."""

    @abstractmethod
    def _divergence_from_uniform(self) -> Tensor:
        """Returns the Kullback-Leibler divergence from the uniform distribution."""


def _carry(start: Tensor, end: Tensor, x: Tensor) -> Tensor:
    """Returns the image of ``x`` under the rotation along the geodesic from ``start`` to ``end``, both unit vectors."""
    middle = start + end
    along, ahead = (middle * x).sum(-1, keepdim=True), (start * x).sum(-1, keepdim=True)
    return x + 2 * ahead * end - along / (1 + (start * end).sum(-1, keepdim=True)) * middle
