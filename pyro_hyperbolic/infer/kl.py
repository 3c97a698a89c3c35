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
    # Replaces Pyro's rule for every q. Pyro drops p.log_density, in which autoguides store the density of their
    # auxiliary variable, so TraceMeanField_ELBO is silently wrong. If log_density is 0, the two rules agree.
    return p.log_density - q.log_prob(p.v)


@register_kl(WrappedDistribution, WrappedDistribution)
def _kl_wrapped(p: WrappedDistribution, q: WrappedDistribution) -> Tensor:
    # A divergence is invariant under a common bijection: this is the divergence of the two normals.
    if p.transforms == q.transforms and type(p.base_dist) is type(q.base_dist):
        if 0 in p.batch_shape + q.batch_shape:  # Pyro cannot reshape an empty batch
            return p.loc.new_zeros(torch.broadcast_shapes(p.batch_shape, q.batch_shape))
        return kl_divergence(p.base_dist, q.base_dist)
    raise NotImplementedError(
        f"KL({p} || {q}) has no closed form, since the two differ in class, loc or k; estimate it: "
        f"x = p.rsample((1000,)); (p.log_prob(x) - q.log_prob(x)).mean(0)."
    )
