r"""Kullback-Leibler divergences, registered on import."""

import pyro.distributions as dist
import torch
from pyro.distributions.distribution import Distribution
from torch import Tensor
from torch.distributions import kl_divergence, register_kl

from pyro_hyperbolic.distributions import WrappedDistribution

__all__: list[str] = []


@register_kl(dist.Delta, Distribution)
def _kl_delta(p: dist.Delta, q: Distribution) -> Tensor:
    # In place of Pyro's own rule for this pair, which drops p.log_density: where chart autoguides keep the density of
    # their auxiliary variable. TraceMeanField_ELBO would be wrong without a warning, and not at our sites only: a
    # masked, independent or transformed prior is a class of Pyro's, and a LogNormal scale beside a wrapped normal has
    # the same trouble. Where there is no log_density, the values are those of Pyro's rule.
    return p.log_density - q.log_prob(p.v)


@register_kl(WrappedDistribution, WrappedDistribution)
def _kl_wrapped(p: WrappedDistribution, q: WrappedDistribution) -> Tensor:
    # The divergence is that of the two normals where one map makes both.
    if p.transforms == q.transforms and type(p.base_dist) is type(q.base_dist):
        if 0 in p.batch_shape + q.batch_shape:  # Pyro cannot reshape an empty batch
            return p.loc.new_zeros(torch.broadcast_shapes(p.batch_shape, q.batch_shape))
        return kl_divergence(p.base_dist, q.base_dist)
    raise NotImplementedError(
        f"KL({p} || {q}) has no closed form, only that of two of one class at one loc and k; estimate it: "
        f"x = p.rsample((1000,)); (p.log_prob(x) - q.log_prob(x)).mean(0)."
    )
