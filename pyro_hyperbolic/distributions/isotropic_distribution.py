r"""Distributions around a point of a space of constant curvature that depend on the distance alone."""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic.distributions.manifold_distribution import ManifoldDistribution, check_latent_k, checked_number
from pyro_hyperbolic.distributions.radial_law import RadialLaw
from pyro_hyperbolic.distributions.transforms import ExponentialMap
from pyro_hyperbolic.distributions.transforms.base import LEARN_LOC_HINT
from pyro_hyperbolic.geometry import chart, checks
from pyro_hyperbolic.manifolds import or_standard, with_sampled_parameters
from pyro_hyperbolic.numerics import norm

__all__ = ["IsotropicDistribution"]


class IsotropicDistribution(ManifoldDistribution):
    r"""Abstract base: :math:`x = \exp_{loc}(s\, y\, u)` with ``u`` a uniform direction and ``s`` a size.

    The density of ``y`` is proportional to :math:`e^{\kappa(y)} (\sinh(s y) / s)^{n-1}` if the curvature is -1, where a
    subclass defines :math:`\kappa`. A sample is scored by the tangent vector that it was made from.
    """

    #: The name of the argument ``s``, and what to do if it is not positive.
    _size_name: ClassVar[str]
    _size_remedy: ClassVar[str]

    def __init__(
        self, loc: Tensor, size: Tensor | float, manifold: Manifold | None, validate_args: bool | None
    ) -> None:
        manifold = with_sampled_parameters(or_standard(manifold))
        space = checks.check_chart(manifold, validate=validate_args)
        if space.curvature() is None:
            raise TypeError(
                f"{checks.describe(space)} has no constant curvature, but {type(self).__name__} needs a space where "
                f"all directions are alike; use WrappedNormal, or a ProductDistribution of the factors."
            )
        checks.check_points(space, loc, "loc", validate=validate_args, advice=LEARN_LOC_HINT)
        self._size = checked_number(self._size_name, size, loc, self._size_remedy, validate_args)
        checks.check_same_dtype(**{"loc": loc, self._size_name: self._size})
        batches = {"loc": space.batch_of(loc.shape), self._size_name: self._size.shape}
        batches |= {f"{name} of the manifold": value.shape for name, value in space.parameters().items()}
        #: The intrinsic dimension.
        self.dim = space.dim(loc.shape)
        self._chart = ExponentialMap(manifold, loc, validate_args=False)  # its arguments have been checked
        self._finish(manifold, checks.check_batches(**batches), space.event_shape(self.dim), validate_args)

    @property
    def loc(self) -> Tensor:
        """The location, shape ``(*, n + 1)``."""
        loc: Any = self._chart.loc
        return loc.expand(self.batch_shape + self.event_shape)

    @property
    def mean(self) -> Tensor:
        """The Fréchet mean, a copy of ``loc``: the density is symmetric under the geodesic reflection at ``loc``."""
        return self.loc.clone()

    def _log_prob(self, value: Tensor) -> Tensor:
        if not self._validate_args:
            check_latent_k(self, self.manifold, value, self.loc)
        v, _ = self._chart.inverse_and_log_det(value)
        return self._log_kernel_at(v) - self._log_normaliser().to(v.dtype)

    def _log_normaliser(self) -> Tensor:
        n, size = self.dim, self._size.double()
        log_area = math.log(2) + n / 2 * math.log(math.pi) - math.lgamma(n / 2)  # of the unit sphere
        return log_area + n * size.log() + self._law(size).log_normaliser()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Returns points of shape ``sample_shape + batch_shape + event_shape``, differentiable in the parameters."""
        sample_shape, loc = torch.Size(sample_shape), self.loc
        size = self._size.double().expand(self.batch_shape)
        u = torch.rand(*self.batch_shape, sample_shape.numel(), dtype=torch.float64, device=size.device)
        y = self._law(size).quantile(u).movedim(-1, 0).reshape(sample_shape + self.batch_shape)
        direction = torch.randn(*y.shape, self.dim, dtype=loc.dtype, device=loc.device)
        radius = (size * y).to(loc.dtype).unsqueeze(-1)
        x: Tensor = self._chart(radius * (direction / norm(direction)))
        checks.check_finite_result(self._size_name, radius, x, validate=self._validate_args)
        return x

    def _law(self, size: Tensor) -> RadialLaw:
        """Returns the law of ``y``, with the batch shape of ``size`` and the curvature."""
        space, n = chart(self.manifold), self.dim
        curvature: Any = space.curvature()
        size = size.expand(torch.broadcast_shapes(size.shape, curvature.shape))

        def log_density(y: Tensor) -> Tensor:
            if n == 1:
                return self._log_kernel(y)
            # The stretch of one of the n - 1 directions orthogonal to the ray; parameters have no dimension of nodes.
            radius = (size.unsqueeze(-1) * y).movedim(-1, 0)
            stretch = space.log_volume(torch.stack([radius, torch.zeros_like(radius)], -1)).movedim(0, -1)
            return self._log_kernel(y) + (n - 1) * (y.log() + stretch)

        with torch.no_grad():
            # Where the nodes are has no effect on the integral, so the curvature can be rounded, and zero excluded.
            scaled = (size * (-curvature.to(size)).sqrt()).clamp_min(1e-8)
            lower, upper = self._interval(scaled)
        return RadialLaw(log_density, lower, upper)

    @abstractmethod
    def _log_kernel(self, y: Tensor) -> Tensor:
        r"""Returns :math:`\kappa(y)`."""

    @abstractmethod
    def _log_kernel_at(self, v: Tensor) -> Tensor:
        r"""Returns :math:`\kappa` at normal coordinates."""

    @abstractmethod
    def _interval(self, size: Tensor) -> tuple[Tensor, Tensor]:
        """Returns between which ``y`` all but 1e-16 of the mass is, for sizes in units of the radius of curvature."""
