"""Two manifolds that the library does not know, by textbook formulas: upper half-space, and SPD matrices of size two.

Each class of kernels holds what the kit and the library's own classes ask of a geometry; `Chart`, `Dilation` and
`Wrapped` are what a user would write on top of it.
"""

import geoopt
import pyro.distributions as dist
import torch
from torch.distributions import Transform, constraints
from torch.distributions.constraints import Constraint

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


class Matrices(geoopt.SymmetricPositiveDefinite):
    """Symmetric positive definite matrices of size two; the metric is ``tr(x^-1 u x^-1 v)``."""


class HalfSpaceKernels:
    """The origin is ``(0, 1)``; the isometry that carries it to a point is a dilation and a shift."""

    def event_size(self, n):
        return n

    def dim(self, event_size):
        return event_size

    def parameters(self, manifold):
        return {}

    def origin(self, manifold, n, dtype, device):
        return torch.eye(n, dtype=dtype, device=device)[-1].clone()

    def contains(self, manifold, x):
        return x.isfinite().all(-1) & (x[..., -1] > 0)

    def exp0(self, manifold, v):
        r2 = v.square().sum(-1, keepdim=True)
        y = 1 / ((1 + r2 * sinhc(r2 / 4).square() / 2) - v[..., -1:] * sinhc(r2))
        return torch.cat([v[..., :-1] * sinhc(r2) * y, y], -1), self.log_volume(manifold, v)

    def log0(self, manifold, x):
        horizontal, y = x[..., :-1], x[..., -1:]
        up = (horizontal.square().sum(-1, keepdim=True) + (y - 1) * (y + 1)) / (2 * y)
        w = torch.cat([horizontal / y, up], -1)
        v = w * asinhc(w.square().sum(-1, keepdim=True))
        return v, self.log_volume(manifold, v)

    def log_volume(self, manifold, v):
        return (v.size(-1) - 1) * sinhc(v.square().sum(-1)).log()

    def translate(self, manifold, p, x, inverse):
        shift = torch.cat([p[..., :-1], torch.zeros_like(p[..., -1:])], -1)
        return (x - shift) / p[..., -1:] if inverse else p[..., -1:] * x + shift

    def exp_at(self, manifold, p, v):
        x, log_volume = self.exp0(manifold, v)
        return self.translate(manifold, p, x, False), log_volume

    def log_at(self, manifold, p, x):
        return self.log0(manifold, self.translate(manifold, p, x, True))


class KnownHalfSpaceKernels(HalfSpaceKernels):
    """It says its curvature."""

    def curvature(self, manifold):
        return -torch.ones(())


class MatrixKernels:
    """Coordinates ``(m, a, b)`` of ``m I + [[a, b], [b, -a]]``, over the root of two; the origin is the identity."""

    def parameters(self, manifold):
        return {}

    def exp0(self, manifold, v):
        v = v / 2**0.5
        m, d = v[..., 0, None, None], self._traceless(v[..., 1], v[..., 2])
        delta = v[..., 1:].square().sum(-1)[..., None, None]
        cosh = 1 + delta * sinhc(delta / 4).square() / 2
        x = m.exp() * (cosh * torch.eye(2, dtype=v.dtype) + sinhc(delta) * d)
        return x, self.log_volume(manifold, 2**0.5 * v)

    def log0(self, manifold, x):
        m = (x[..., 0, 0] * x[..., 1, 1] - x[..., 0, 1] * x[..., 1, 0]).log() / 2
        t = torch.stack([(x[..., 0, 0] - x[..., 1, 1]) / 2, (x[..., 0, 1] + x[..., 1, 0]) / 2], -1)
        t = t * (-m).exp()[..., None]
        v = 2**0.5 * torch.cat([m[..., None], t * asinhc(t.square().sum(-1, keepdim=True))], -1)
        return v, self.log_volume(manifold, v)

    def log_volume(self, manifold, v):
        return sinhc(v[..., 1:].square().sum(-1) / 2).log()

    def exp_at(self, manifold, p, v):
        x, log_volume = self.exp0(manifold, v)
        factor = torch.linalg.cholesky(p)
        return factor @ x @ factor.mT, log_volume

    def log_at(self, manifold, p, x):
        inverse = torch.linalg.inv(torch.linalg.cholesky(p))
        return self.log0(manifold, inverse @ x @ inverse.mT)

    def _traceless(self, a, b):
        return torch.stack([torch.stack([a, b], -1), torch.stack([b, -a], -1)], -2)


class OnMatrices(Constraint):
    is_discrete, event_dim = False, 2

    def __init__(self, manifold):
        self.manifold = manifold

    def check(self, value):
        det = value[..., 0, 0] * value[..., 1, 1] - value[..., 0, 1] * value[..., 1, 0]
        scale = value.abs().amax((-1, -2))
        symmetric = (value - value.mT).abs().amax((-1, -2)) <= 64 * torch.finfo(value.dtype).eps * scale
        return symmetric & (value[..., 0, 0] > 0) & (det > 0)


class Chart(Transform):
    """The exponential map at the origin."""

    domain, bijective = constraints.real_vector, True

    def __init__(self, kernels, constraint, dim, cache_size=0):
        super().__init__(cache_size)
        self.kernels, self.codomain, self.dim = kernels, constraint, dim

    @property
    def manifold(self):
        return self.codomain.manifold

    def _call(self, v):
        return self.kernels.exp0(self.manifold, v)[0]

    def _inverse(self, x):
        return self.kernels.log0(self.manifold, x)[0]

    def log_abs_det_jacobian(self, v, x):
        return self.kernels.log_volume(self.manifold, v)

    def forward_shape(self, shape):
        return torch.Size((*shape[:-1], *((self.dim,) if self.codomain.event_dim == 1 else (2, 2))))

    def inverse_shape(self, shape):
        return torch.Size((*shape[: -self.codomain.event_dim], self.dim))

    def with_cache(self, cache_size=1):
        return type(self)(self.kernels, self.codomain, self.dim, cache_size)


class Dilation(Chart):
    """It scales the coordinates of the chart."""

    def __init__(self, kernels, constraint, dim, cache_size=0):
        super().__init__(kernels, constraint, dim, cache_size)
        self.domain, self.log_scale = constraint, torch.linspace(0.3, -0.5, dim, dtype=torch.float64)

    def _call(self, x):
        return self.kernels.exp0(self.manifold, self.log_scale.exp() * self.kernels.log0(self.manifold, x)[0])[0]

    def _inverse(self, y):
        return self.kernels.exp0(self.manifold, (-self.log_scale).exp() * self.kernels.log0(self.manifold, y)[0])[0]

    def log_abs_det_jacobian(self, x, y):
        before, after = self.kernels.log0(self.manifold, x)[1], self.kernels.log0(self.manifold, y)[1]
        return self.log_scale.sum() + after - before

    def forward_shape(self, shape):
        return shape

    inverse_shape = forward_shape


class Wrapped(dist.TorchDistribution):
    """A wrapped normal."""

    arg_constraints, has_rsample = {}, True

    def __init__(self, kernels, constraint, dim):
        self.kernels, self._support = kernels, constraint
        self.scale = torch.linspace(0.7, 0.4, dim, dtype=torch.float64, requires_grad=True)
        loc = torch.linspace(0.8, -0.5, dim, dtype=torch.float64)
        self.loc = kernels.exp0(constraint.manifold, loc)[0]
        super().__init__(event_shape=self.loc.shape, validate_args=False)

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        return self._support

    def sample(self, sample_shape=()):
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape=()):
        noise = torch.randn((*sample_shape, len(self.scale)), dtype=self.scale.dtype)
        return self.kernels.exp_at(self._support.manifold, self.loc, self.spread() * noise)[0]

    def spread(self):
        return self.scale

    def log_prob(self, value):
        v, log_volume = self.kernels.log_at(self._support.manifold, self.loc, value)
        return torch.distributions.Normal(0, self.scale).log_prob(v).sum(-1) - log_volume
