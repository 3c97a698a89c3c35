"""Rivals without a flow, on any manifold of the tables: kernel densities and mixtures of bumps."""

import itertools
import math
import time

import geoopt
import pyro.distributions as dist
import torch
from torch.nn.functional import log_softmax

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from pyro_hyperbolic import geometry

#: Share of the uniform distribution in kernel densities on the sphere: no point has density zero.
UNIFORM = 0.02


def bump(manifold, loc, precision):
    r"""Returns a distribution about ``loc``, :math:`p(x) \approx e^{-c\, d(x, \mathrm{loc})^2 / 2}` for large c.

    Von Mises-Fisher on the sphere, von Mises on the torus, isotropic Fisher on rotations, wrapped normal on the
    hyperboloid, normal on the line, and their product.
    """
    if isinstance(manifold, geoopt.ProductManifold):
        sizes = [math.prod(shape) for shape in manifold.shapes]
        parts = zip(manifold.manifolds, loc.split(sizes, -1), strict=True)
        return hdist.ProductDistribution(manifold, [bump(factor, part, precision) for factor, part in parts])
    if isinstance(manifold, geoopt.Sphere):
        return hdist.VonMisesFisher(loc, precision)
    if isinstance(manifold, ph.manifolds.Torus):
        return dist.VonMises(loc, precision.unsqueeze(-1).expand(loc.shape)).to_event(1)
    if isinstance(manifold, ph.manifolds.Rotations):
        return hdist.RotationFisher(loc, precision / 2)
    if isinstance(manifold, geoopt.Euclidean):
        return dist.Normal(loc, precision.rsqrt().unsqueeze(-1).expand(loc.shape)).to_event(1)
    return hdist.WrappedNormal(loc, precision.rsqrt().unsqueeze(-1), manifold)


class Mixture:
    r"""The mixture :math:`q(x) = \sum_j w_j\, p_j(x)` of bumps, with a share of the uniform distribution if given."""

    def __init__(self, manifold, loc, precision, logits=None, uniform=0.0):
        self.manifold, self.loc, self.uniform = manifold, loc, uniform
        self.precision = precision.expand(len(loc))
        logits = loc.new_zeros(len(loc)) if logits is None else logits
        self.log_weights = log_softmax(logits, -1)

    def log_prob(self, x):
        """Returns the log-density of points ``(N, *event)`` with respect to Riemannian volume."""
        space = geometry.complete(self.manifold)
        bumps = bump(self.manifold, self.loc, self.precision)
        log_q = torch.logsumexp(self.log_weights + bumps.log_prob(x.unsqueeze(-1 - space.event_dim)), -1)
        if not self.uniform:
            return log_q
        level = math.log(self.uniform) - space.log_total_volume(space.dim(x.shape))
        return torch.logaddexp(log_q + math.log1p(-self.uniform), torch.full_like(log_q, level))

    def sample(self, size):
        """Returns draws ``(size, *event)``."""
        space = geometry.complete(self.manifold)
        chosen = self.log_weights.exp().multinomial(size, replacement=True)
        x = bump(self.manifold, self.loc[chosen], self.precision[chosen]).sample()
        if self.uniform:
            anywhere = torch.rand(size) < self.uniform
            x[anywhere] = hdist.Uniform(self.manifold, space.dim(x.shape)).sample((int(anywhere.sum()),)).to(x)
        return x


@torch.no_grad()
def log_prob(model, x, size=256):
    """Returns the log-density of many points, in parts that fit into memory."""
    return torch.cat([model.log_prob(part) for part in x.split(size)])


def kernel_density(manifold, train, valid, uniform=0.0):
    """Returns the kernel density of ``train`` whose precision has the greatest likelihood on ``valid``."""

    def best(tenths):
        precisions = [train.new_tensor(10 ** (tenth / 10)) for tenth in tenths]
        models = [Mixture(manifold, train, precision, uniform=uniform) for precision in precisions]
        return most_likely(models, valid)

    near = round(10 * best(range(5, 70, 5)).precision[0].log10().item())
    return best(range(near - 4, near + 5, 2))


#: The greatest precision of an adaptive kernel: 1e-3 radians, 6 km. Repeated places would have an infinite one.
SHARPEST = 1e6


def adaptive_kernel_density(manifold, train, valid, uniform=0.0):
    """Returns the kernel density with a precision for each point, inverse to the squared distance to a neighbour.

    The neighbour, and then the factor and the share of the uniform distribution (``uniform`` or a tenth of it), are
    those with the greatest likelihood on ``valid``.
    """
    neighbours = (2, 3, 5, 8, 12, 20)
    nearest = torch.cat([torch.cdist(part, train).topk(21, largest=False).values for part in train.split(256)])

    def made(neighbour, factor, share=uniform):
        precision = (factor / nearest[:, neighbour].square()).clamp(1.0, SHARPEST)
        return Mixture(manifold, train, precision, uniform=share)

    first = [made(neighbour, 2.0) for neighbour in neighbours]
    neighbour = neighbours[first.index(most_likely(first, valid))]
    rest = itertools.product((0.5, 1.0, 2.0, 4.0, 8.0), (uniform, uniform / 10))
    return most_likely([made(neighbour, *values) for values in rest], valid)


def most_likely(models, x):
    """Returns the model with the greatest likelihood on points."""
    return max(models, key=lambda model: log_prob(model, x).mean().item())


def fitted_mixture(target, manifold, number, seconds, rate=0.02, batch=512):
    """Fits a mixture of bumps by maximum likelihood on fresh draws, from ``number`` draws far apart.

    Returns:
        The mixture in float64, and the number of steps.
    """
    start, space, x = time.process_time(), geometry.complete(manifold), target.sample((2048,))
    chosen, gap = [0], space.squared_distance(x, x[:1])
    for _ in range(number - 1):
        chosen.append(int(gap.argmax()))
        gap = torch.minimum(gap, space.squared_distance(x, x[chosen[-1:]]))
    state = space.state(x[chosen])[0].clone()
    values = [state, torch.full((number,), math.log(10.0)), torch.zeros(number)]
    values = [value.requires_grad_() for value in values]
    optimizer = torch.optim.Adam(values, rate)

    def model(state, log_precision, logits):
        return Mixture(manifold, space.point(space.retract(state))[0], log_precision.exp(), logits)

    steps = 0
    while (share := (time.process_time() - start) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = rate * (0.5 + 0.5 * math.cos(math.pi * share))
        loss = -model(*values).log_prob(target.sample((batch,))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    with torch.no_grad():
        return model(*(value.double() for value in values)), steps
