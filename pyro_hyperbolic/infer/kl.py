r"""Kullback-Leibler divergences, registered on import."""

import pyro.distributions as dist
from pyro.distributions.distribution import Distribution
from torch import Tensor
from torch.distributions import register_kl

__all__: list[str] = []


@register_kl(dist.Delta, Distribution)
def _kl_delta(p: dist.Delta, q: Distribution) -> Tensor:
    # In place of Pyro's own rule for this pair, which drops p.log_density: where chart autoguides keep the density of
    # their auxiliary variable. TraceMeanField_ELBO would be wrong without a warning, and not at our sites only: a
    # masked, independent or transformed prior is a class of Pyro's, and a LogNormal scale beside a wrapped normal has
    # the same trouble. Where there is no log_density, the values are those of Pyro's rule.
    return p.log_density - q.log_prob(p.v)
