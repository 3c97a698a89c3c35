r"""Kullback-Leibler divergences, registered on import."""

from collections.abc import Iterable
from functools import reduce

import pyro.distributions as dist
import torch
from pyro.distributions.distribution import Distribution
from torch import Tensor
from torch.distributions import kl_divergence, register_kl

from pyro_hyperbolic.distributions import (
    PowerSpherical,
    ProductDistribution,
    RotationFisher,
    Uniform,
    VonMisesFisher,
    WrappedDistribution,
)

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


@register_kl(VonMisesFisher, Uniform)
@register_kl(PowerSpherical, Uniform)
@register_kl(RotationFisher, Uniform)
def _kl_from_uniform(p: VonMisesFisher | PowerSpherical | RotationFisher, q: Uniform) -> Tensor:
    _check_same_manifold(p, q)
    divergence = p.divergence_from_uniform()
    return divergence.expand(torch.broadcast_shapes(divergence.shape, q.batch_shape))


@register_kl(Uniform, Uniform)
def _kl_uniforms(p: Uniform, q: Uniform) -> Tensor:
    _check_same_manifold(p, q)
    return p.entropy() - q.entropy()


@register_kl(ProductDistribution, Uniform)
def _kl_product_uniform(p: ProductDistribution, q: Uniform) -> Tensor:
    _check_same_manifold(p, q)
    return _sum(kl_divergence(one, other) for one, other in zip(p.factors, q.factors(), strict=True))


@register_kl(VonMisesFisher, VonMisesFisher)
def _kl_von_mises_fisher(p: VonMisesFisher, q: VonMisesFisher) -> Tensor:
    # The expectation of c |x - loc|^2 / 2 under p is c (1 - E[cos] p.loc * q.loc).
    versine, chord = p.mean_versine(), p.loc - q.loc
    peaks = p.log_prob(p.mode) - q.log_prob(q.mode)
    apart = (1 - versine) * (chord * chord).sum(-1) / 2
    return peaks + (q.concentration - p.concentration) * versine + q.concentration * apart


@register_kl(ProductDistribution, ProductDistribution)
def _kl_product(p: ProductDistribution, q: ProductDistribution) -> Tensor:
    _check_same_manifold(p, q)
    return _sum(kl_divergence(one, other) for one, other in zip(p.factors, q.factors, strict=True))


def _sum(values: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, values)


def _check_same_manifold(p: Distribution, q: Distribution) -> None:
    """Raises unless the supports are one manifold: otherwise the divergence is infinite or means nothing."""
    if p.support != q.support or p.event_shape != q.event_shape:
        raise ValueError(
            f"KL({p} || {q}): the supports are {p.support} and {q.support}, of events {tuple(p.event_shape)} and "
            f"{tuple(q.event_shape)}, but must be one manifold; pass the same manifold to both."
        )
