r"""What distributions with a mode and a concentration share, on manifolds of finite volume."""

from abc import abstractmethod

from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic.distributions.manifold_distribution import ManifoldDistribution, checked_number
from pyro_hyperbolic.distributions.transforms.base import LEARN_LOC_HINT
from pyro_hyperbolic.geometry import Embedded, bind, checks

__all__ = ["ConcentratedDistribution"]


class ConcentratedDistribution(ManifoldDistribution):
    """Abstract base: ``loc`` is the mode, and the concentration is positive; in its limit 0 points are uniform.

    A subclass implements ``_log_prob``, ``rsample`` and ``_divergence_from_uniform``.
    """

    def __init__(
        self, manifold: Manifold, loc: Tensor, concentration: Tensor | float, validate_args: bool | None
    ) -> None:
        checks.check_points(manifold, loc, "loc", validate=validate_args, advice=LEARN_LOC_HINT)
        remedy = "its limit at 0 is Uniform; pass a network's output through softplus or exp."
        self._loc = loc
        self._concentration = checked_number("concentration", concentration, loc, remedy, validate_args)
        checks.check_same_dtype(loc=loc, concentration=self._concentration)
        space = bind(manifold)
        #: The intrinsic dimension.
        self.dim = space.dim(loc.shape)
        batch_shape = checks.check_batches(loc=space.batch_of(loc.shape), concentration=self._concentration.shape)
        self._finish(manifold, batch_shape, space.event_shape(self.dim), validate_args)

    @property
    def loc(self) -> Tensor:
        """The mode, shape ``(*, *event)``."""
        return self._expanded("loc")

    @property
    def concentration(self) -> Tensor:
        """The concentration, shape ``(*)``."""
        return self._expanded("concentration")

    @property
    def mode(self) -> Tensor:
        """The mode, a copy of ``loc``."""
        return self.loc.clone()

    def entropy(self) -> Tensor:
        """Returns the entropy, the logarithm of the volume less the divergence from the uniform, shape ``(*)``."""
        space: Embedded = bind(self.manifold)  # type: ignore[assignment]
        return space.log_total_volume(self.dim) - self.divergence_from_uniform()

    def divergence_from_uniform(self) -> Tensor:
        """Returns the Kullback-Leibler divergence from the uniform distribution, shape ``(*)``."""
        found = self._divergence_from_uniform().to(self._concentration.dtype)
        return found.expand(self.batch_shape)

    @abstractmethod
    def _divergence_from_uniform(self) -> Tensor:
        """Returns the Kullback-Leibler divergence from the uniform distribution."""
