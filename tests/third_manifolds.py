"""A manifold that the library does not know, upper half-space by textbook formulas, and maps by the book on any one.

`Chart`, `Dilation` and `Wrapped` are what a user would write on top of a geometry.
"""

import geoopt
import pyro.distributions as dist
import torch
from torch.distributions import Transform, constraints

from pyro_hyperbolic.geometry import Hadamard, bind
from tests.textbook import asinhc, sinhc


class HalfSpace(geoopt.manifolds.base.Manifold):
    """Points ``(x, y)`` with ``y > 0``; the metric is ``(|dx|^2 + dy^2) / y^2``."""

    name, reversible, ndim = "HalfSpace", False, 1

    def inner(self, x, u, v=None, *, keepdim=False):
        return (u * (u if v is None else v)).sum(-1, keepdim=keepdim) / (
            x[..., -1:].square() if keepdim else x[..., -1].square()
        )

    def _check_point_on_manifold(self, x, *, atol=1e-5, rtol=1e-5):
        return bool((x[..., -1] > 0).all()), None

    def _check_vector_on_tangent(self, x, u, *, atol=1e-5, rtol=1e-5):
        return True, None

    def _unused(self, *args, **kwargs):
        raise NotImplementedError

    proju = projx = expmap = logmap = transp = retr = egrad2rgrad = dist = _unused


class HalfSpaceGeometry(Hadamard):
    """The origin is ``(0, 1)``; the isometry that carries it to a point is a dilation and a shift."""

    name = "HalfSpace"

    def event_shape(self, n):
        return torch.Size((n,))

    def dim(self, shape):
        return shape[-1]

    def contains(self, x):
        return x.isfinite().all(-1) & (x[..., -1] > 0)

    def exp0(self, v):
        r2 = v.square().sum(-1, keepdim=True)
        y = 1 / ((1 + r2 * sinhc(r2 / 4).square() / 2) - v[..., -1:] * sinhc(r2))
        return torch.cat([v[..., :-1] * sinhc(r2) * y, y], -1), (v.size(-1) - 1) * sinhc(r2[..., 0]).log()

    def log0(self, x):
        horizontal, y = x[..., :-1], x[..., -1:]
        up = (horizontal.square().sum(-1, keepdim=True) + (y - 1) * (y + 1)) / (2 * y)
        w = torch.cat([horizontal / y, up], -1)
        v = w * asinhc(w.square().sum(-1, keepdim=True))
        return v, (v.size(-1) - 1) * sinhc(v.square().sum(-1)).log()

    def translate(self, p, x, inverse=False):
        shift = torch.cat([p[..., :-1], torch.zeros_like(p[..., -1:])], -1)
        return (x - shift) / p[..., -1:] if inverse else p[..., -1:] * x + shift


class KnownHalfSpaceGeometry(HalfSpaceGeometry):
    """It says its curvature."""

    def curvature(self):
        return -torch.ones(())


class Chart(Transform):
    """The exponential map at the origin."""

    domain, bijective = constraints.real_vector, True

    def __init__(self, constraint, dim, cache_size=0):
        super().__init__(cache_size)
        self.codomain, self.dim = constraint, dim

    @property
    def space(self):
        return bind(self.codomain.manifold)

    def _call(self, v):
        return self.space.exp0(v)[0]

    def _inverse(self, x):
        return self.space.log0(x)[0]

    def log_abs_det_jacobian(self, v, x):
        return self.space.log_volume(v)

    def forward_shape(self, shape):
        return torch.Size((*shape[:-1], *self.space.event_shape(self.dim)))

    def inverse_shape(self, shape):
        return torch.Size((*shape[: -self.codomain.event_dim], self.dim))

    def with_cache(self, cache_size=1):
        return type(self)(self.codomain, self.dim, cache_size)


class Dilation(Chart):
    """It scales the coordinates of the chart."""

    def __init__(self, constraint, dim, cache_size=0):
        super().__init__(constraint, dim, cache_size)
        self.domain, self.log_scale = constraint, torch.linspace(0.3, -0.5, dim, dtype=torch.float64)

    def _call(self, x):
        return self.space.exp0(self.log_scale.exp() * self.space.log0(x)[0])[0]

    def _inverse(self, y):
        return self.space.exp0((-self.log_scale).exp() * self.space.log0(y)[0])[0]

    def log_abs_det_jacobian(self, x, y):
        before, after = self.space.log0(x)[1], self.space.log0(y)[1]
        return self.log_scale.sum() + after - before

    def forward_shape(self, shape):
        return shape

    inverse_shape = forward_shape


class Wrapped(dist.TorchDistribution):
    """A wrapped normal."""

    arg_constraints, has_rsample = {}, True

    def __init__(self, constraint, dim):
        self._support = constraint
        self.scale = torch.linspace(0.7, 0.4, dim, dtype=torch.float64, requires_grad=True)
        loc = torch.linspace(0.8, -0.5, dim, dtype=torch.float64)
        self.loc = bind(constraint.manifold).exp0(loc)[0]
        super().__init__(event_shape=self.loc.shape, validate_args=False)

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        return self._support

    def sample(self, sample_shape=()):
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape=()):
        noise = torch.randn((*sample_shape, len(self.scale)), dtype=self.scale.dtype)
        return bind(self._support.manifold).exp_at(self.loc, self.spread() * noise)[0]

    def spread(self):
        return self.scale

    def log_prob(self, value):
        v, log_volume = bind(self._support.manifold).log_at(self.loc, value)
        return torch.distributions.Normal(0, self.scale).log_prob(v).sum(-1) - log_volume
