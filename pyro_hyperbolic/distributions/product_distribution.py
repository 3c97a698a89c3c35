r"""The product of independent distributions on the factors of a product manifold."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import pyro.distributions as dist
import torch
from geoopt import ProductManifold
from torch import Tensor

from pyro_hyperbolic.distributions.constraints import OnManifold
from pyro_hyperbolic.distributions.manifold_distribution import ManifoldDistribution
from pyro_hyperbolic.geometry import Geometry, bind, checks, same
from pyro_hyperbolic.geometry.euclidean import Euclidean
from pyro_hyperbolic.geometry.sphere import Sphere
from pyro_hyperbolic.geometry.torus import FlatTorus
from pyro_hyperbolic.manifolds import with_sampled_parameters

__all__ = ["ProductDistribution"]


class ProductDistribution(ManifoldDistribution):
    r"""Independent points of the factors of a product manifold, :math:`p(x) = \prod_i p_i(x_i)`.

    The density is with respect to Riemannian volume of the product. Events are the events of the factors, flattened and
    concatenated as points of ``geoopt.ProductManifold`` are.

    Shapes: the batch shapes of the factors broadcast to ``batch_shape``; events are ``(sum of the factors' sizes,)``.

    Args:
        manifold: A ``geoopt.ProductManifold``.
        factors: One distribution for each factor of the manifold, in order: with this manifold as support, or over real
            vectors if the factor is Euclidean. Pyro's own on spheres and circles, such as ``VonMises``, are accepted.
        validate_args: Whether to check values; Pyro's global setting by default.

    Raises:
        TypeError: If the manifold is not a product, or a factor is not a distribution.
        ValueError: If there are more or fewer distributions than factors, or one is on another space or has other
            shapes.

    Example:
        >>> P = geoopt.ProductManifold((geoopt.Lorentz(), 3), (geoopt.Sphere(), 3), (geoopt.Euclidean(1), 1))
        >>> plane = hdist.WrappedNormal(torch.tensor([1.0, 0.0, 0.0]), 1.0)
        >>> line = dist.Normal(torch.zeros(1), 1.0).to_event(1)
        >>> d = ProductDistribution(P, [plane, hdist.Uniform(geoopt.Sphere(), 2), line])
        >>> d.sample((5,)).shape
        torch.Size([5, 7])
        >>> d.log_prob(torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]))  # -log(2 pi) - log(4 pi) - log(2 pi) / 2
        tensor(-5.2878)
    """

    def __init__(
        self,
        manifold: ProductManifold,
        factors: Sequence[dist.TorchDistribution],
        *,
        validate_args: bool | None = None,
    ) -> None:
        manifold = with_sampled_parameters(manifold)
        space = checks.check_manifold(manifold, validate=validate_args)
        if not isinstance(manifold, ProductManifold):
            raise TypeError(
                f"the manifold is {checks.describe(space)}, but must be a product; pass geoopt.ProductManifold((M, "
                f"size), ...), or use the distribution itself."
            )
        remedy = "pass one distribution for each factor of the manifold, in order"
        factors = checks.check_list("factors", factors, remedy)
        if len(factors) != len(space.factors):
            raise ValueError(
                f"{len(factors)} distributions for {space.name}, of {len(space.factors)} factors; {remedy}."
            )
        for i, factor in enumerate(factors):
            _check_factor(space, i, factor)
        batch_shape = checks.check_batches(**{f"factor {i}": factor.batch_shape for i, factor in enumerate(factors)})
        #: The distributions of the factors, all of one batch shape.
        self.factors: list[dist.TorchDistribution] = [_expand(factor, batch_shape) for factor in factors]
        self._finish(manifold, batch_shape, torch.Size((manifold.n_elements,)), validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether all factors have reparameterised samples."""
        return all(factor.has_rsample for factor in self.factors)

    def split(self, value: Tensor) -> list[Tensor]:
        """Returns the points of the factors, each of its own event shape."""
        return bind(self.manifold).split(value)

    def _log_prob(self, value: Tensor) -> Tensor:
        parts = zip(self.factors, self.split(value), strict=True)
        return reduce(torch.add, [factor.log_prob(part) for factor, part in parts])

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Returns points of shape ``sample_shape + batch_shape + event_shape``, without gradients."""
        with torch.no_grad():
            return bind(self.manifold).join([factor.sample(torch.Size(sample_shape)) for factor in self.factors])

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Returns points of shape ``sample_shape + batch_shape + event_shape``, differentiable in the parameters.

        Raises:
            NotImplementedError: If a factor has no reparameterised samples.
        """
        return bind(self.manifold).join([factor.rsample(torch.Size(sample_shape)) for factor in self.factors])

    def entropy(self) -> Tensor:
        """Returns the sum of the entropies of the factors, shape ``(*)``.

        Raises:
            NotImplementedError: If the entropy of a factor has no closed form.
        """
        return reduce(torch.add, [factor.entropy() for factor in self.factors])

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> "ProductDistribution":
        """Returns a distribution of the same class, expanded to ``batch_shape``."""
        new: ProductDistribution = super().expand(batch_shape, _instance)
        new.factors = [_expand(factor, torch.Size(batch_shape)) for factor in self.factors]
        return new

    def __repr__(self) -> str:
        return f"ProductDistribution({', '.join(repr(factor) for factor in self.factors)})"


def _expand(factor: dist.TorchDistribution, batch_shape: torch.Size) -> dist.TorchDistribution:
    return factor if factor.batch_shape == batch_shape else factor.expand(batch_shape)


def _check_factor(space: Geometry, i: int, factor: Any) -> None:
    """Raises unless the distribution is one on factor ``i`` of the manifold."""
    own, shape = space.factors[i], tuple(space.manifold.shapes[i])
    if not isinstance(factor, torch.distributions.Distribution):
        raise TypeError(f"factor {i} is {checks.shown(factor)}, but must be a distribution on {checks.describe(own)}.")
    if tuple(factor.event_shape) != shape:
        raise ValueError(
            f"factor {i} is {factor} with events of shape {tuple(factor.event_shape)}, but points of factor {i} of the "
            f"manifold, {checks.describe(own)}, have shape {shape}; use .to_event(1), or another order or dimension."
        )
    support: Any = factor.support
    if isinstance(support, OnManifold):
        if not same(support.manifold, own):
            raise ValueError(
                f"factor {i} is on {checks.describe(support.manifold)}, but factor {i} of the manifold is "
                f"{checks.describe(own)}; pass the same manifold object to both."
            )
    elif support.is_discrete or not isinstance(own, _space_of(factor)):
        raise ValueError(
            f"factor {i} is {factor} on {support}, but must have a density with respect to the volume of factor {i} of "
            f"the manifold, {checks.describe(own)}; use one whose support is on_manifold of it."
        )


#: Pyro's distributions on compact spaces. Torch calls the support of some real.
_COMPACT: dict[type[Geometry], tuple[type, ...]] = {
    Sphere: (dist.ProjectedNormal, dist.VonMises3D),
    FlatTorus: (dist.SineBivariateVonMises, dist.SineSkewed, dist.VonMises),
}


def _space_of(factor: Any) -> type[Geometry]:
    """Returns the space with whose volume a distribution of Pyro has its density, looking into wrappers."""
    while isinstance(factor, (torch.distributions.Independent, dist.MaskedDistribution, dist.ExpandedDistribution)):
        factor = factor.base_dist
    return next((space for space, laws in _COMPACT.items() if isinstance(factor, laws)), Euclidean)
