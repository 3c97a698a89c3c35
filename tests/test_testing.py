"""The property-test kit on trial: it must kill and name the mistakes users make, and pass every correct object.

The classes below are textbook transforms and distributions, written apart from the library as a user would write them;
each mutant is a subclass with one mistake. "Defect" numbers are those of published code that the kit was made against.
"""

import math

import geoopt
import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.distributions.torch_transform import TransformModule
from torch import nn
from torch.distributions import Transform, constraints

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic.distributions.constraints import on_manifold
from pyro_hyperbolic.testing import LawViolation, citizenship, strategies
from tests.cases import DISTRIBUTIONS, TRANSFORMS, lorentz, points

N = 3


def sinhc(r2):
    r = torch.where(r2 < 1e-6, 1.0, r2).sqrt()
    return torch.where(r2 < 1e-6, 1 + r2 / 6, r.sinh() / r)


def asinhc(s2):
    s = torch.where(s2 < 1e-6, 1.0, s2).sqrt()
    return torch.where(s2 < 1e-6, 1 - s2 / 6, s.asinh() / s)


def exp(v, R):
    space = v * sinhc(v.square().sum(-1, keepdim=True) / R**2)
    return torch.cat([(R**2 + space.square().sum(-1, keepdim=True)).sqrt(), space], -1)


def log(x, R):
    return x[..., 1:] * asinhc(x[..., 1:].square().sum(-1, keepdim=True) / R**2)


def volume(v, R):
    return (v.size(-1) - 1) * sinhc(v.square().sum(-1) / R**2).log()


def boost(p, x, R):
    """Carries the origin to p: the Lorentz boost, with the time coordinate from the constraint."""
    p = p / R
    product = (p[..., 1:] * x[..., 1:]).sum(-1, keepdim=True)
    space = x[..., 1:] + p[..., 1:] * (product / (1 + p[..., :1]) + x[..., :1])
    return torch.cat([(R**2 + space.square().sum(-1, keepdim=True)).sqrt(), space], -1)


def opposite(p):
    return torch.cat([p[..., :1], -p[..., 1:]], -1)


# Charts: R^n to the hyperboloid.


class Chart(Transform):
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


class NForNMinusOne(Chart):
    def log_abs_det_jacobian(self, v, x):
        return v.size(-1) * sinhc(v.square().sum(-1) / self.k).log()


class DropsTheLogDet(Chart):
    def log_abs_det_jacobian(self, v, x):
        return torch.zeros_like(v[..., 0])


class ForgetsTheRadius(Chart):
    def _call(self, v):
        return exp(v, 1.0)

    def _inverse(self, x):
        return log(x, 1.0)


class ForgetsTheRadiusInTheVolume(Chart):
    def log_abs_det_jacobian(self, v, x):
        return volume(v, 1.0)


class RadiusInverted(Chart):
    def _call(self, v):
        return exp(v, 1 / self.R)


class ExtraLogR(Chart):
    """Defect 3."""

    def log_abs_det_jacobian(self, v, x):
        return volume(v, self.R) + (v.size(-1) - 1) * math.log(self.R)


class ExtraLogMapJacobian(Chart):
    """Defect 5."""

    def log_abs_det_jacobian(self, v, x):
        return 2 * volume(v, self.R)


class LogTwice(Chart):
    """Defect 6."""

    def _inverse(self, x):
        v = log(x, self.R)
        return log(torch.cat([torch.zeros_like(v[..., :1]), v], -1), self.R)


class SilentClamp(Chart):
    """Defect 9."""

    def _call(self, v):
        space = exp(v, self.R)[..., 1:].clamp(-10, 10)
        return torch.cat([(self.k + space.square().sum(-1, keepdim=True)).sqrt(), space], -1)


class TangentVectorForPoint(Chart):
    """Defect 4: a vector whose time coordinate is zero is taken for a point."""

    def _call(self, v):
        return torch.cat([torch.zeros_like(v[..., :1]), exp(v, self.R)[..., 1:]], -1)


class LowerSheet(Chart):
    def _call(self, v):
        x = exp(v, self.R)
        return torch.cat([-x[..., :1], x[..., 1:]], -1)


class NaNGradientAtOrigin(Chart):
    def _call(self, v):
        r = v.norm(dim=-1, keepdim=True)
        space = torch.where(r > 0, self.R * (r / self.R).sinh() * v / r, 0.0)
        return torch.cat([(self.k + space.square().sum(-1, keepdim=True)).sqrt(), space], -1)


class EditsItsInput(Chart):
    def _call(self, v):
        return exp(v.mul_(2), self.R)

    def _inverse(self, x):
        return log(x, self.R) / 2

    def log_abs_det_jacobian(self, v, x):
        return volume(2 * v, self.R) + v.size(-1) * math.log(2)


class Graph(Chart):
    """Spatial coordinates as a chart."""

    def _call(self, v):
        return torch.cat([(self.k + v.square().sum(-1, keepdim=True)).sqrt(), v], -1)

    def _inverse(self, x):
        return x[..., 1:].clone()

    def log_abs_det_jacobian(self, v, x):
        return math.log(self.R) - (self.k + v.square().sum(-1)).log() / 2


class InverseIsAView(Graph):
    def _inverse(self, x):
        return x[..., 1:]


# Automorphisms: dilations, translations and swirls of the hyperboloid.


class Dilation(Transform):
    bijective = True

    def __init__(self, k=4.0, log_scale=(0.3, -0.5, 0.4), cache_size=0):
        super().__init__(cache_size)
        self.k, self.R, self.domain = k, math.sqrt(k), on_manifold(lorentz(k))
        self.codomain = self.domain
        self.log_scale = torch.as_tensor(log_scale, dtype=torch.float64)

    def _call(self, x):
        return exp(self.log_scale.exp() * log(x, self.R), self.R)

    def _inverse(self, y):
        return exp((-self.log_scale).exp() * log(y, self.R), self.R)

    def log_abs_det_jacobian(self, x, y):
        return self.log_scale.sum() + self.stretch(x, y)

    def stretch(self, x, y):
        return volume(log(y, self.R), self.R) - volume(log(x, self.R), self.R)

    def with_cache(self, cache_size=1):
        return type(self)(self.k, self.log_scale, cache_size=cache_size)


class WrongSignOfChartTerms(Dilation):
    """Defect 1."""

    def log_abs_det_jacobian(self, x, y):
        return self.log_scale.sum() - self.stretch(x, y)


class ChartTermsDropped(Dilation):
    def log_abs_det_jacobian(self, x, y):
        return self.log_scale.sum() + torch.zeros_like(x[..., 0])


class ArgumentsVolumeDropped(Dilation):
    def log_abs_det_jacobian(self, x, y):
        return self.log_scale.sum() + volume(log(y, self.R), self.R)


class ScaleLogDetDropped(Dilation):
    def log_abs_det_jacobian(self, x, y):
        return self.stretch(x, y)


class LogDetOfTheInverse(Dilation):
    def log_abs_det_jacobian(self, x, y):
        return -super().log_abs_det_jacobian(x, y)


class MeanInPlaceOfSum(Dilation):
    def log_abs_det_jacobian(self, x, y):
        return self.log_scale.mean() + self.stretch(x, y)


class NotSummedOverTheEvent(Dilation):
    def log_abs_det_jacobian(self, x, y):
        return self.log_scale + self.stretch(x, y)[..., None]


class SummedOverTheBatch(Dilation):
    def log_abs_det_jacobian(self, x, y):
        return super().log_abs_det_jacobian(x, y).sum()


class ScaleNotInverted(Dilation):
    def _inverse(self, y):
        return exp(self.log_scale.exp() * log(y, self.R), self.R)


class InverseIsTheIdentity(Dilation):
    def _inverse(self, y):
        return y.clone()


class OneCoordinateNotUndone(Dilation):
    def _inverse(self, y):
        scale = torch.cat([torch.zeros(1, dtype=y.dtype), -self.log_scale[1:]])
        return exp(scale.exp() * log(y, self.R), self.R)


class ThroughTheKleinModel(Dilation):
    """Digits are lost far out, where |x_s| / x_0 rounds to one: in float32 at r = 9."""

    def _call(self, x):
        s2 = x[..., 1:].square().sum(-1, keepdim=True) / x[..., :1] ** 2
        s = torch.where(s2 < 1e-6, 0.5, s2).sqrt()
        v = self.R * x[..., 1:] / x[..., :1] * torch.where(s2 < 1e-6, 1 + s2 / 3, s.atanh() / s)
        return exp(self.log_scale.exp() * v, self.R)


class WithCacheForgetsAnArgument(Dilation):
    def with_cache(self, cache_size=1):
        return type(self)(self.k, cache_size=cache_size)


class Float64Constant(Dilation):
    def _call(self, x):
        return exp(torch.tensor([0.3, -0.5, 0.4], dtype=torch.float64).exp() * log(x, self.R), self.R)


class BatchNormalised(Dilation):
    def _call(self, x):
        v = log(x, self.R)
        return exp(self.log_scale.exp() * v / (1 + v.square().reshape(-1, N).mean(0)), self.R)


class LogDetOfTheFirstMember(Dilation):
    def log_abs_det_jacobian(self, x, y):
        value = super().log_abs_det_jacobian(x, y)
        return value.reshape(-1)[:1].expand_as(value.reshape(-1)).reshape(value.shape)


class Boost(Transform):
    bijective = True

    def __init__(self, k=4.0, cache_size=0):
        super().__init__(cache_size)
        self.k, self.R, self.domain = k, math.sqrt(k), on_manifold(lorentz(k))
        self.codomain, self.p = self.domain, exp(torch.tensor([0.8, -1.1, 0.5], dtype=torch.float64), self.R)

    def _call(self, x):
        return boost(self.p, x, self.R)

    def _inverse(self, y):
        return boost(opposite(self.p), y, self.R)

    def log_abs_det_jacobian(self, x, y):
        return torch.zeros_like(x[..., 0])

    def with_cache(self, cache_size=1):
        return type(self)(self.k, cache_size=cache_size)


class TransportSkipped(Boost):
    def _call(self, x):
        return exp(log(x, self.R) + log(self.p, self.R), self.R)

    def _inverse(self, y):
        return exp(log(y, self.R) - log(self.p, self.R), self.R)


class TargetOffTheManifold(Boost):
    """Defect 2: the time coordinate of the target belongs to a vector of another size; 4: or is zero."""

    def _call(self, x):
        p = torch.cat([(self.k + self.p[1:-1].square().sum(-1, keepdim=True)).sqrt(), self.p[1:]])
        form = torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=x.dtype)
        o = torch.tensor([self.R, 0.0, 0.0, 0.0], dtype=x.dtype)
        return x + 2 * p * -(o * form * x).sum(-1, keepdim=True) / self.k - (p + o) * (
            -((p + o) * form * x).sum(-1, keepdim=True) / (self.k + self.R * p[0])
        )


class InverseIsForward(Boost):
    def _inverse(self, y):
        return self._call(y)


class Swirl(Boost):
    """A rotation of the first two axes by the distance from the origin; it keeps volume."""

    def _turn(self, x, sign):
        angle = sign * self._angle(x)
        c, s = angle.cos(), angle.sin()
        return torch.stack([x[..., 0], c * x[..., 1] - s * x[..., 2], s * x[..., 1] + c * x[..., 2], x[..., 3]], -1)

    def _angle(self, x):
        return x[..., 0] / 10

    def _call(self, x):
        return self._turn(x, 1)

    def _inverse(self, y):
        return self._turn(y, -1)


class NormWithoutDim(Swirl):
    def _angle(self, x):
        return x[..., 0].norm() / 10


# Modules with parameters.


class Scaling(TransformModule):
    """Without a cache."""

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


class GraphInTheCache(Scaling):
    def _call(self, x):
        self._last = self.log_scale.exp() * x
        return self._last


class StaleCache(Scaling):
    def __init__(self, cache_size=1):
        super().__init__(cache_size)

    def __getstate__(self):
        return {**super().__getstate__(), "_cached_x_y": (None, None)}


class TangentStretch(HT.TangentModule):
    def __init__(self, manifold=None, *, cache_size=1):
        super().__init__(manifold, cache_size=cache_size)
        self.log_scale = nn.Parameter(torch.tensor([0.3, -0.5, 0.4], dtype=torch.float64))

    def _tangent_forward(self, v):
        return self.log_scale.exp() * v, self.log_scale.sum().expand(v.shape[:-1])

    def _tangent_backward(self, w):
        return (-self.log_scale).exp() * w, self.log_scale.sum().expand(w.shape[:-1])


class TangentLogDetDropped(TangentStretch):
    def _tangent_forward(self, v):
        return self.log_scale.exp() * v, v.new_zeros(v.shape[:-1])


class LogDetOfTheBackwardMap(TangentStretch):
    def _tangent_backward(self, w):
        return (-self.log_scale).exp() * w, -self.log_scale.sum().expand(w.shape[:-1])


class VolumeAddedAgain(TangentStretch):
    def _tangent_forward(self, v):
        w, log_det = super()._tangent_forward(v)
        R = self.manifold.k.sqrt()
        return w, log_det + volume(w, R) - volume(v, R)


# Distributions.


class Wrapped(dist.TorchDistribution):
    """A wrapped normal by the book."""

    arg_constraints, has_rsample = {}, True  # noqa: RUF012

    def __init__(self, k=4.0, loc=(0.8, -1.1), scale=(0.9, 0.5)):
        self.k, self.R, self.support = k, math.sqrt(k), on_manifold(lorentz(k))
        self.loc = exp(torch.tensor(loc, dtype=torch.float64), self.R)
        self.scale = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
        super().__init__(event_shape=self.loc.shape, validate_args=False)

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


class DensityOfNForNMinusOne(Wrapped):
    def log_prob(self, value):
        v = self.tangent(value)
        return self.normal(v) - 2 * volume(v, self.R)


class DensityWithoutLogDet(Wrapped):
    def log_prob(self, value):
        return self.normal(self.tangent(value))


class SamplesWithoutTransport(Wrapped):
    def move(self, x):
        return exp(log(x, self.R) + log(self.loc, self.R), self.R)


class NoTransportAtAll(SamplesWithoutTransport):
    def tangent(self, x):
        return log(x, self.R) - log(self.loc, self.R)


class SamplesOfUnitRadius(Wrapped):
    def move(self, x):
        return boost(self.loc / self.R, x / self.R, 1.0)


class DensityForgetsTheRadius(Wrapped):
    def log_prob(self, value):
        v = self.tangent(value)
        return self.normal(v) - volume(v, 1.0)


class DensityWithExtraLogR(Wrapped):
    """Defect 3: the density integrates to R^-(n-1)."""

    def log_prob(self, value):
        return super().log_prob(value) - (len(self.scale) - 1) * math.log(self.R)


class ZeroVectorAsLocation(Wrapped):
    """Defect 4."""

    def move(self, x):
        return boost(torch.zeros_like(self.loc), x, self.R) * 0 + torch.cat([x[..., :1] * 0, x[..., 1:]], -1)


class DensityWithExtraJacobian(Wrapped):
    """Defect 5: the log-map's Jacobian is added again."""

    def log_prob(self, value):
        return super().log_prob(value) - volume(self.tangent(value), self.R)


class DensityOfLogTwice(Wrapped):
    """Defect 6."""

    def tangent(self, x):
        v = super().tangent(x)
        return log(torch.cat([v[..., :1] * 0, v], -1), self.R)


class StandardDeviationReadAsLogVariance(Wrapped):
    """Defect 7."""

    def normal(self, v):
        return torch.distributions.Normal(0, (self.scale / 2).exp()).log_prob(v).sum(-1)


class ClampedSamples(Wrapped):
    """Defect 9."""

    def move(self, x):
        space = boost(self.loc, x, self.R)[..., 1:].clamp(-2, 2)
        return torch.cat([(self.k + space.square().sum(-1, keepdim=True)).sqrt(), space], -1)


class NormalConstantForgotten(Wrapped):
    def normal(self, v):
        return -(v / self.scale).square().sum(-1) / 2 - self.scale.log().sum()


class SamplesWiderByRootTwo(Wrapped):
    def spread(self):
        return math.sqrt(2) * self.scale


class DetachedScale(Wrapped):
    def spread(self):
        return self.scale.detach()


class HalfDetachedScale(Wrapped):
    def spread(self):
        return torch.stack([self.scale[0], self.scale[1].detach()])


class DensityNotSummed(Wrapped):
    def normal(self, v):
        return torch.distributions.Normal(0, self.scale).log_prob(v)

    def log_prob(self, value):
        v = self.tangent(value)
        return self.normal(v) - volume(v, self.R)[..., None]


class NoLogScale(Wrapped):
    def normal(self, v):
        return super().normal(v) + self.scale.log().sum()
