"""A vector field that starts as the optimum of flow matching to a mixture of bumps."""

import math
from itertools import pairwise

import torch
from torch import nn

import pyro_hyperbolic.distributions as hdist
from pyro_hyperbolic import geometry
from pyro_hyperbolic.geometry import Hadamard
from pyro_hyperbolic.geometry.product import MixedProduct

TIMES = 4  # frequencies of the time features


class BumpField(nn.Module):
    r"""The velocity of a point between a base of scale s and bumps about anchors :math:`a_j` of scale :math:`\sigma_j`,

    .. math:: V(x, t) = \sum_j w_j \frac{(1 - t) s^2 \log_x a_j - t \sigma_j^2 \log_x c}{v_j},
        \quad w_j \propto \pi_j v_j^{-n/2} e^{-d(x, m_j)^2 / 2 v_j},
        \quad v_j = (1 - t)^2 s^2 + t^2 \sigma_j^2,

    with :math:`m_j` the point at ``t`` of the geodesic from the centre ``c`` of the base to the anchor. In flat space
    this is the optimum of flow matching if the data are such a mixture. A network of the point and the time corrects
    the weights and the gains, and adds a free vector. On compact factors the base is uniform: there is no centre, and
    :math:`m_j = a_j`.

    Args:
        dim: Intrinsic dimension.
        manifold: A complete manifold.
        x: Data, whose clusters (farthest points, then Lloyd's algorithm) start anchors, weights and scales.
        anchors: The number of anchors.
        base: The base distribution, from which the centre and the scale of non-compact factors are read.
        hidden_dims: Widths of the network.
    """

    def __init__(self, dim, manifold, x, anchors, base, hidden_dims=(128, 128)):
        super().__init__()
        self.__dict__["manifold"] = manifold
        space = geometry.complete(manifold)
        with torch.no_grad():
            points, weights, scales = clusters(manifold, x, anchors)
            state = space.state(points)[0]
            size = space.features(points[:1]).size(-1)
        self.anchors = nn.Parameter(state.float())
        self.log_weights = nn.Parameter(weights.log().float())
        self.log_scales = nn.Parameter(scales.log().float())
        bases = base.factors if isinstance(base, hdist.ProductDistribution) else [base]
        centres, spreads = zip(*map(_centre_of, bases), strict=True)
        self.log_spread = nn.Parameter(torch.tensor(spreads).log())
        self.centres = [None if point is None else point.float() for point in centres]
        self._outputs = [len(points), len(points), space.vector_size(dim)]
        inputs = size + (1 + space.vector_size(dim)) * len(points) + 2 * TIMES + 1
        widths, layers = [inputs, *hidden_dims], []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.SiLU()]
        last = nn.Linear(widths[-1], sum(self._outputs))
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()
        self.network = nn.Sequential(*layers, last)

    def forward(self, x, t):
        """Returns the tangent vectors."""
        space = geometry.complete(self.manifold)
        anchors = space.point(space.retract(self.anchors))[0]
        t = t.expand(space.batch_of(x.shape)).unsqueeze(-1)
        found, total, logits = [], 0.0, self.log_weights
        spreads, scales = (2 * self.log_spread).exp(), (2 * self.log_scales).exp()
        for i, (factor, here, there) in enumerate(parts(space, x, anchors)):
            n, far = factor.dim(here.shape), here.unsqueeze(-1 - factor.event_dim)
            u, square = factor.towards(far, there)
            base, own = (1 - t) ** 2 * spreads[i], scales[:, i]
            if isinstance(factor, Hadamard):
                centre = self.centres[i].to(x)
                # Gradients to the anchors through these distances cost as much as all others.
                line = factor.log(centre, there.detach())
                middle = factor.exp(centre, t.unsqueeze(-1) * line)
                variance, apart = base + t**2 * own, factor.towards(far, middle)[1]
                back = factor.towards(here, centre)[0].unsqueeze(-2) * (t * own / variance).unsqueeze(-1)
            else:
                variance, apart, back = base + own, square, 0.0
            logits = logits - apart / (2 * variance) - n / 2 * variance.log()
            found.append((u, (1 - t) * spreads[i] / variance, back))
            total = total + square
        phases = math.pi * torch.arange(1, TIMES + 1, dtype=t.dtype) * t
        lengths, us = (1 + total).sqrt(), torch.cat([u for u, *_ in found], -1)
        directions = (us / lengths.unsqueeze(-1)).flatten(-2)
        features = torch.cat([space.features(x), lengths, directions, t, phases.cos(), phases.sin()], -1)
        change, gains, free = self.network(features).split(self._outputs, -1)
        weights = (logits + change).softmax(-1).unsqueeze(-2)
        vectors = [((1 + gains) * gain).unsqueeze(-1) * u - back for u, gain, back in found]
        return space.tangent(x, (weights @ torch.cat(vectors, -1)).squeeze(-2) + free)


def parts(space, *points):
    """Returns each factor with its part of each argument."""
    if not isinstance(space, MixedProduct):
        return [(space, *points)]
    return list(zip(space.factors, *map(space.split, points), strict=True))


def _centre_of(base):
    """Returns the location and the scale of a base; no location if it is uniform."""
    if isinstance(base, hdist.Uniform):
        return None, 1.5
    normal = base if isinstance(base, hdist.WrappedNormal) else base.base_dist
    return normal.loc, normal.scale.square().mean().sqrt().item()


def clusters(manifold, x, count, rounds=3):
    """Returns centres, shares and scales ``(count, factors)`` of clusters: farthest points, then Lloyd's algorithm."""
    space = geometry.complete(manifold)
    chosen, gap = [0], space.squared_distance(x, x[:1])
    for _ in range(count - 1):
        chosen.append(int(gap.argmax()))
        gap = torch.minimum(gap, space.squared_distance(x, x[chosen[-1:]]))
    centres = x[chosen]
    for _ in range(rounds + 1):
        nearest = space.squared_distance(x.unsqueeze(-1 - space.event_dim), centres).argmin(-1)
        members = [x[nearest == j] for j in range(count)]
        members = [own if len(own) else centres[j : j + 1] for j, own in enumerate(members)]
        last, centres = centres, torch.stack([_mean(space, own) for own in members])
    scales = []
    for own, centre in zip(members, last, strict=True):
        pairs = parts(space, own, centre.unsqueeze(0))
        scales.append([factor.squared_distance(a, b).mean() / factor.dim(a.shape) for factor, a, b in pairs])
    scales = torch.tensor(scales, dtype=x.dtype).sqrt()
    # A cluster of one place has no scale of its own.
    middle = scales.median(0).values
    scales = torch.where(scales > 0.05 * middle, scales, middle)
    return last, torch.tensor([float(len(own)) for own in members], dtype=x.dtype) / len(x), scales


def _mean(space, x):
    """Returns the mean of points, by three steps of its fixed-point iteration."""
    mean = x[:1]
    for _ in range(3):
        mean = space.exp(mean, space.log(mean, x).mean(0, keepdim=True))
    return mean[0]
