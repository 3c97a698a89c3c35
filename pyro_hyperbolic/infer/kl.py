r"""Kullback-Leibler divergences, registered on import."""

import pyro.distributions as dist
from torch import Tensor
from torch.distributions import register_kl

from pyro_hyperbolic.distributions import WrappedDistribution

__all__: list[str] = []


@register_kl(dist.Delta, WrappedDistribution)
def _kl_delta_wrapped(p: dist.Delta, q: WrappedDistribution) -> Tensor:
    # Pyro's own rule for (Delta, Distribution) drops p.log_density, which is where chart autoguides keep the density of
    # their auxiliary variable: TraceMeanField_ELBO would be wrong without a warning.
    return p.log_density - q.log_prob(p.v)
