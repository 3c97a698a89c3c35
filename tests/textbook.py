"""Maps and distributions on the hyperboloid by textbook formulas, independent of the library, as a user writes them."""

import math

import pyro.distributions as dist
import torch
from pyro.distributions.torch_transform import TransformModule
from torch import nn
from torch.distributions import Transform, constraints

import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic.distributions.constraints import on_manifold
from tests.cases import lorentz


def sinhc(r2):
    r = torch.where(r2 < 1e-6, 1.0, r2).sqrt()
    return torch.where(r2 < 1e-6, 1 + r2 / 6, r.sinh() / r)


def asinhc(s2):
    s = torch.where(s2 < 1e-6, 1.0, s2).sqrt()
    return torch.where(s2 < 1e-6, 1 - s2 / 6, s.asinh() / s)


def with_time(space, R):
    return torch.cat([(R**2 + space.square().sum(-1, keepdim=True)).sqrt(), space], -1)


def exp(v, R):
    return with_time(v * sinhc(v.square().sum(-1, keepdim=True) / R**2), R)


def log(x, R):
    return x[..., 1:] * asinhc(x[..., 1:].square().sum(-1, keepdim=True) / R**2)


def volume(v, R):
    return (v.size(-1) - 1) * sinhc(v.square().sum(-1) / R**2).log()


def boost(p, x, R):
    """Carries the origin to p: the Lorentz boost, with the time coordinate from the constraint."""
    p = p / R
    product = (p[..., 1:] * x[..., 1:]).sum(-1, keepdim=True)
    return with_time(x[..., 1:] + p[..., 1:] * (product / (1 + p[..., :1]) + x[..., :1]), R)


def opposite(p):
    return torch.cat([p[..., :1], -p[..., 1:]], -1)


class Chart(Transform):
    """The exponential map at the origin."""

    domain, bijective = constraints.real_vector, True

    def __init__(self, k=4.0, cache_size=0):
        super().__init__(cache_size)
        self.k, self.R, self.codomain = k, math.sqrt(k), on_manifold(lorentz(k))

    def _call(self, v):
        return exp(v, self.R)

    def _inverse(self, x):
        return log(x, self.R)

    def log_abs_det_jacobian(self, v, x):
        return volume(v, self.R)

    def forward_shape(self, shape):
        return torch.Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape):
        return torch.Size((*shape[:-1], shape[-1] - 1))

    def with_cache(self, cache_size=1):
        return type(self)(self.k, cache_size=cache_size)


class Boost(Chart):
    """The isometry that carries the origin to a point."""

    forward_shape, inverse_shape = Transform.forward_shape, Transform.inverse_shape

    def __init__(self, k=4.0, cache_size=0):
        super().__init__(k, cache_size)
        self.domain, self.p = self.codomain, exp(torch.tensor([0.8, -1.1, 0.5], dtype=torch.float64), self.R)

    def _call(self, x):
        return boost(self.p, x, self.R)

    def _inverse(self, y):
        return boost(opposite(self.p), y, self.R)

    def log_abs_det_jacobian(self, x, y):
        return torch.zeros_like(x[..., 0])


class Dilation(Boost):
    """A scaling of tangent coordinates at the origin."""

    def __init__(self, k=4.0, log_scale=(0.3, -0.5, 0.4), cache_size=0):
        super().__init__(k, cache_size)
        self.log_scale = torch.as_tensor(log_scale, dtype=torch.float64)

    def _call(self, x):
        return exp(self.log_scale.exp() * log(x, self.R), self.R)

    def _inverse(self, y):
        return exp((-self.log_scale).exp() * log(y, self.R), self.R)

    def log_abs_det_jacobian(self, x, y):
        return self.log_scale.sum(-1) + self.stretch(x, y)

    def stretch(self, x, y):
        return volume(log(y, self.R), self.R) - volume(log(x, self.R), self.R)

    def with_cache(self, cache_size=1):
        return type(self)(self.k, self.log_scale, cache_size=cache_size)


class Scaling(TransformModule):
    """A scaling of R^3 with a parameter, without a cache."""

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, cache_size=0):
        super().__init__(cache_size)
        self.log_scale = nn.Parameter(torch.tensor([0.3, -0.5, 0.4], dtype=torch.float64))

    def _call(self, x):
        return self.log_scale.exp() * x

    def _inverse(self, y):
        return (-self.log_scale).exp() * y

    def log_abs_det_jacobian(self, x, y):
        return self.log_scale.sum().expand(x.shape[:-1])

    def with_cache(self, cache_size=1):
        new = type(self)(cache_size)
        new.load_state_dict(self.state_dict())
        return new


class TangentStretch(HT.TangentModule):
    """A scaling of tangent coordinates, as a layer of the library."""

    is_self_contained = True  # so that the pair of its inverse is remembered

    def __init__(self, manifold=None, *, cache_size=1):
        super().__init__(lorentz(4.0) if manifold is None else manifold, cache_size=cache_size)
        self.log_scale = nn.Parameter(torch.tensor([0.3, -0.5, 0.4], dtype=torch.float64))

    def _tangent_forward(self, v):
        return self.log_scale.exp() * v, self.log_scale.sum().expand(v.shape[:-1])

    def _tangent_backward(self, w):
        return (-self.log_scale).exp() * w, self.log_scale.sum().expand(w.shape[:-1])


class ConditionalDilation:
    """A dilation whose scales are a function of a context of two numbers."""

    def read(self, context):
        return context

    def condition(self, context):
        return Dilation(log_scale=torch.cat([self.read(context), 0.2 - self.read(context)[..., :1]], -1).tanh())


class Wrapped(dist.TorchDistribution):
    """A wrapped normal."""

    arg_constraints, has_rsample = {}, True

    def __init__(self, k=4.0, loc=(0.8, -1.1), scale=(0.9, 0.5)):
        self.k, self.R, self._support = k, math.sqrt(k), on_manifold(lorentz(k))
        self.loc = exp(torch.tensor(loc, dtype=torch.float64, requires_grad=True), self.R)
        self.scale = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
        super().__init__(event_shape=self.loc.shape, validate_args=False)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self):
        return self._support

    def sample(self, sample_shape=()):
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape=()):
        v = self.spread() * torch.randn((*sample_shape, len(self.scale)), dtype=self.scale.dtype)
        return self.move(exp(v, self.R))

    def log_prob(self, value):
        v = self.tangent(value)
        return self.normal(v) - volume(v, self.R)

    def spread(self):
        return self.scale

    def move(self, x):
        return boost(self.loc, x, self.R)

    def tangent(self, x):
        return log(boost(opposite(self.loc), x, self.R), self.R)

    def normal(self, v):
        return torch.distributions.Normal(0, self.scale).log_prob(v).sum(-1)


class Batch(dist.TorchDistribution):
    """Normals of R^2, of batch shape (40,), each with a location and a scale of its own."""

    has_rsample, support = True, constraints.real_vector
    arg_constraints = {  # noqa: RUF012
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }

    def __init__(self, loc=None, scale=None):
        steps = torch.linspace(0.0, 1.0, 40, dtype=torch.float64)[:, None]
        self.loc = torch.cat([steps, -steps], -1) if loc is None else loc
        self.scale = (0.3 + torch.cat([steps, steps.square()], -1)) if scale is None else scale
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:])

    def expand(self, batch_shape, _instance=None):
        shape = torch.Size((*batch_shape, 2))
        return type(self)(self.loc.expand(shape), self.scale.expand(shape))

    def sample(self, sample_shape=()):
        return self.loc + self.scale * self.noise(self._extended_shape(sample_shape))

    rsample = sample

    def noise(self, shape):
        return torch.randn(shape, dtype=torch.float64)

    def log_prob(self, value):
        return torch.distributions.Normal(self.loc, self.scale).log_prob(value).sum(-1)
