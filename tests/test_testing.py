"""The property-test kit on trial: it must kill and name the mistakes users make, and pass every correct object.

Each mutant is a textbook class of tests/textbook.py with one mistake, whose law and cause stand with it. "Defect"
numbers are those of the published code that the kit was made against.
"""

import contextlib
import math
import pathlib
import re
import threading

import geoopt
import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic.geometry import registry
from pyro_hyperbolic.testing import LawViolation, NotChecked, map_laws, noise, object_laws, strategies
from tests import third_manifolds as third
from tests.cases import NOT_EUCLIDEAN, TRANSFORMS, euclidean, lorentz, shaken
from tests.textbook import (
    Batch,
    Boost,
    Chart,
    ConditionalDilation,
    Dilation,
    Graph,
    Scaling,
    Swirl,
    TangentStretch,
    Wrapped,
    boost,
    exp,
    log,
    volume,
    with_time,
)

# The mistakes that take more than an expression.


def clamped_chart(self, v):
    return with_time(exp(v, self.R)[..., 1:].clamp(-10, 10), self.R)


def chart_by_the_norm(self, v):
    r = v.norm(dim=-1, keepdim=True)
    return with_time(torch.where(r > 0, self.R * (r / self.R).sinh() * v / r, 0.0), self.R)


def chart_guarded(self, v):
    """The guard is zero in float32."""
    r = v.square().sum(-1, keepdim=True).clamp_min(1e-60).sqrt() / self.R
    return with_time(r.sinh() / r * v, self.R)


def boost_to_a_target_off_the_manifold(self, x):
    """The textbook boost with inner products, which trusts the target's time coordinate."""
    o, form = exp(torch.zeros_like(self.p[1:]), self.R), torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=x.dtype)
    p = torch.cat([with_time(self.p[1:-1], self.R)[:1], self.p[1:]])
    with_o, with_both = (o * form * x).sum(-1, keepdim=True), ((p + o) * form * x).sum(-1, keepdim=True)
    return x - 2 * p * with_o / self.k + (p + o) * with_both / (self.k + self.R * p[0])


def batch_normalised(self, x):
    v = log(x, self.R)
    return exp(self.log_scale.exp() * v / (1 + v.square().reshape(-1, v.size(-1)).mean(0)), self.R)


def one_coordinate_not_undone(self, y):
    return exp(torch.cat([torch.zeros(1, dtype=y.dtype), -self.log_scale[1:]]).exp() * log(y, self.R), self.R)


def kept_image(self, x):
    self._last = self.log_scale.exp() * x
    return self._last


def volume_added_again(self, v):
    w, log_det = TangentStretch._tangent_forward(self, v)
    return w, log_det + volume(w, self.manifold.k.sqrt()) - volume(v, self.manifold.k.sqrt())


def one_coordinate_shared(self, shape):
    """Of the first and the last member."""
    noise = torch.randn(shape, dtype=torch.float64)
    last = torch.cat([noise[..., :1, :1], noise[..., -1:, 1:]], -1)
    return torch.cat([noise[..., :-1, :], last], -2)


def radius_shared(self, shape):
    """The distance from the mean is that of the first member; directions are independent."""
    noise = torch.randn(shape, dtype=torch.float64)
    return noise * noise[..., :1, :].norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)


def half_of_the_variance_shared(self, shape):
    return (torch.randn(shape).double() + torch.randn(*shape[:-2], 1, 2).double()) / 2**0.5


def one_draw_for_each_of_the_first(self, shape):
    """Of the sample dimensions; the others share it."""
    few = [size if i in (0, len(shape) - 2, len(shape) - 1) else 1 for i, size in enumerate(shape)]
    return torch.randn(few, dtype=torch.float64).expand(shape)


def draws_mirrored(self, shape):
    """Antithetic sampling: the second half of the draws is the first with the opposite sign."""
    half = torch.randn(-(-shape[0] // 2) if len(shape) > 2 else 1, *shape[1:], dtype=torch.float64)
    return torch.cat([half, -half])[: shape[0]] if len(shape) > 2 else torch.randn(shape, dtype=torch.float64)


def mutant(name, base, law, cause, **methods):
    """A subclass with one mistake; in the module, for pickle to find it."""
    kind = type(name, (base,), {"__module__": __name__, **methods})
    globals()[name] = kind
    return kind, law, cause


def _normal(scale, v):
    return torch.distributions.Normal(0, scale).log_prob(v).sum(-1)


class Broadcast(Batch):
    """A batch that draws for fewer members than it has."""

    def __init__(self, base, batch_shape):
        super().__init__(base.loc.expand(*batch_shape, 2), base.scale.expand(*batch_shape, 2))
        self.base = base

    def noise(self, shape):
        few = self.base.batch_shape
        return self.base.noise(
            (*shape[: -len(self.batch_shape) - 1], *(1 for _ in self.batch_shape[len(few) :]), *few, 2)
        )


LOG_DET, NOISE = "log_det_matches_autograd", "batch_members_have_own_noise"
# fmt: off
MUTANTS = [
    # Charts.
    mutant("NForNMinusOne", Chart, LOG_DET, "n instead of n - 1",
           log_abs_det_jacobian=lambda self, v, x: volume(v, self.R) * v.size(-1) / (v.size(-1) - 1)),
    mutant("DropsTheLogDetOfAChart", Chart, LOG_DET, "log-determinant is dropped.*volume term of the result is dropped",
           log_abs_det_jacobian=lambda self, v, x: torch.zeros_like(v[..., 0])),
    mutant("ForgetsTheRadius", Chart, "stays_on_manifold", r"radius sqrt\(k\) is forgotten",
           _call=lambda self, v: exp(v, 1.0), _inverse=lambda self, x: log(x, 1.0)),
    mutant("ForgetsTheRadiusInTheVolume", Chart, LOG_DET, "radius is forgotten in the volume terms",
           log_abs_det_jacobian=lambda self, v, x: volume(v, 1.0)),
    mutant("RadiusInverted", Chart, "stays_on_manifold", "k is the squared radius",
           _call=lambda self, v: exp(v, 1 / self.R)),
    mutant("ExtraLogR", Chart, LOG_DET, r"\(n - 1\) log R: a radius counted twice",  # defect 3
           log_abs_det_jacobian=lambda self, v, x: volume(v, self.R) + (v.size(-1) - 1) * math.log(self.R)),
    mutant("ExtraJacobian", Chart, LOG_DET, "volume terms are counted twice",  # defect 5
           log_abs_det_jacobian=lambda self, v, x: 2 * volume(v, self.R)),
    mutant("LogTwice", Chart, "round_trip", "unclear",  # defect 6
           _inverse=lambda self, x: log(with_time(log(x, self.R), self.R), self.R)),
    mutant("SilentClamp", Chart, "round_trip", "far out .*: a clamp", _call=clamped_chart),  # defect 9
    mutant("TangentVectorForPoint", Chart, "stays_on_manifold", "a tangent vector, not a point",  # defect 4
           _call=lambda self, v: exp(v, self.R) * torch.tensor([0.0, 1, 1, 1], dtype=v.dtype)),
    mutant("LowerSheet", Chart, "stays_on_manifold", "sign of the time coordinate",
           _call=lambda self, v: exp(v, self.R) * torch.tensor([-1.0, 1, 1, 1], dtype=v.dtype)),
    mutant("NaNGradientAtOrigin", Chart, "gradients_are_finite", "a norm, or a division by one, at the origin",
           _call=chart_by_the_norm),
    mutant("GuardUnderflowsInFloat32", Chart, "float32_agrees_with_float64", "digits are lost|NaN", _call=chart_guarded,
           radii=(0.0, 3.0)),
    mutant("EditsItsInput", Chart, "does_not_alias_its_input", "edited in place",
           _call=lambda self, v: exp(v.mul_(2), self.R), _inverse=lambda self, x: log(x, self.R) / 2,
           log_abs_det_jacobian=lambda self, v, x: volume(2 * v, self.R) + v.size(-1) * math.log(2)),
    mutant("InverseIsAView", Graph, "does_not_alias_its_input", "clone it", _inverse=lambda self, x: x[..., 1:]),
    # Maps of the hyperboloid.
    mutant("WrongSignOfChartTerms", Dilation, LOG_DET, "wrong sign of the volume terms",  # defect 1
           log_abs_det_jacobian=lambda self, x, y: self.log_scale.sum(-1) - self.stretch(x, y)),
    mutant("DropsTheLogDet", Dilation, LOG_DET, "the log-determinant is dropped",
           log_abs_det_jacobian=lambda self, x, y: torch.zeros_like(x[..., 0])),
    mutant("ChartTermsDropped", Dilation, LOG_DET, "Lebesgue measure of tangent coordinates",
           log_abs_det_jacobian=lambda self, x, y: self.log_scale.sum(-1) + torch.zeros_like(x[..., 0])),
    mutant("ArgumentsVolumeDropped", Dilation, LOG_DET, "volume term of the argument is dropped",
           log_abs_det_jacobian=lambda self, x, y: self.log_scale.sum(-1) + volume(log(y, self.R), self.R)),
    mutant("LogDetOfTheInverse", Dilation, LOG_DET, "log-determinant of the inverse map is returned",
           log_abs_det_jacobian=lambda self, x, y: -Dilation.log_abs_det_jacobian(self, x, y)),
    mutant("ScaleLogDetDropped", Dilation, LOG_DET, "unclear: a constant factor",
           log_abs_det_jacobian=lambda self, x, y: self.stretch(x, y)),
    mutant("NotSummedOverTheEvent", Dilation, "shapes_broadcast", "not summed over the event dimension",
           log_abs_det_jacobian=lambda self, x, y: self.log_scale + self.stretch(x, y)[..., None]),
    mutant("SummedOverTheBatch", Dilation, "shapes_broadcast", "or is summed over the batch too",
           log_abs_det_jacobian=lambda self, x, y: Dilation.log_abs_det_jacobian(self, x, y).sum()),
    mutant("ScaleNotNegatedInTheInverse", Dilation, "round_trip", "the inverse applies the forward map",
           _inverse=lambda self, y: exp(self.log_scale.exp() * log(y, self.R), self.R)),
    mutant("InverseIsTheIdentity", Dilation, "round_trip", "the inverse returns its argument",
           _inverse=lambda self, y: y.clone()),
    mutant("InverseOffInTheTenthDigit", Dilation, "round_trip", "lost digits",
           _inverse=lambda self, y: Dilation._inverse(self, with_time((1 + 1e-10) * y[..., 1:], self.R))),
    mutant("OneCoordinateNotUndone", Dilation, "round_trip", "one block is not inverted",
           _inverse=one_coordinate_not_undone),
    mutant("Float64Constant", Dilation, "float32_agrees_with_float64", "a constant of float64",
           _call=lambda self, x: Dilation._call(self, x) * torch.ones(4, dtype=torch.float64)),
    mutant("BatchNormalised", Dilation, "batch_members_are_independent",
           "statistic over the batch", _call=batch_normalised),
    mutant("WithCacheForgetsAnArgument", Dilation, "deepcopy_pickle_state_dict", "with_cache does not pass on",
           __init__=lambda self, log_scale=(0.1, 0.1, 0.1): Dilation.__init__(self, log_scale=log_scale),
           with_cache=lambda self, cache_size=1: Dilation(cache_size=cache_size)),
    mutant("TransportSkipped", Boost, LOG_DET, "the log-determinant is dropped.*the chart's volume terms are dropped",
           _call=lambda self, x: exp(log(x, self.R) + log(self.p, self.R), self.R),
           _inverse=lambda self, y: exp(log(y, self.R) - log(self.p, self.R), self.R)),
    mutant("TargetOffTheManifold", Boost, "stays_on_manifold", "unclear: <x, x> is",  # defect 2
           _call=boost_to_a_target_off_the_manifold),
    mutant("InverseIsForward", Boost, "round_trip", "the inverse applies the forward map",
           _inverse=lambda self, y: self._call(y)),
    mutant("NormWithoutDim", Swirl, "batch_members_are_independent", "without dim=-1",
           _angle=lambda self, x: x[..., 0].norm() / 10),
    # Modules.
    mutant("KeepsAGraph", Scaling, "deepcopy_pickle_state_dict", "a cached graph", _call=kept_image),
    mutant("StaleCache", Scaling, "cache_survives_an_optimiser_step", "keyed on the identity of its argument",
           __init__=lambda self, cache_size=1: Scaling.__init__(self, cache_size),
           __getstate__=lambda self: {**Scaling.__getstate__(self), "_cached_x_y": (None, None)}),
    mutant("LogDetDetached", TangentStretch, "gradients_match_differences", "no_grad",
           _tangent_forward=lambda self, v: (
               self.log_scale.exp() * v, self.log_scale.detach().sum().expand(v.shape[:-1]))),
    mutant("InverseWithoutGradients", Scaling, "gradients_match_differences", "no_grad",
           _inverse=torch.no_grad()(lambda self, y: Scaling._inverse(self, y))),
    mutant("LogDetOfTheBackwardMap", TangentStretch, "inverse_log_det_is_negative", "unclear: a constant factor",
           is_self_contained=True,  # so that the pair of its inverse is remembered
           _tangent_backward=lambda self, w: ((-self.log_scale).exp() * w, -self.log_scale.sum().expand(w.shape[:-1]))),
    mutant("VolumeAddedAgain", TangentStretch, LOG_DET, "the volume terms are counted twice",
           _tangent_forward=volume_added_again),
    # Distributions.
    mutant("DensityWithoutLogDet", Wrapped, "total_mass_is_one", "unclear",
           log_prob=lambda self, x: self.normal(self.tangent(x))),
    mutant("NoTransport", Wrapped, "total_mass_is_one", "unclear",
           move=lambda self, x: exp(log(x, self.R) + log(self.loc, self.R), self.R),
           tangent=lambda self, x: log(x, self.R) - log(self.loc, self.R)),
    mutant("SamplesOfUnitRadius", Wrapped, "stays_on_manifold", "radius .* is forgotten",
           move=lambda self, x: boost(self.loc / self.R, x / self.R, 1.0)),
    mutant("DensityForgetsTheRadius", Wrapped, "total_mass_is_one", "unclear",
           log_prob=lambda self, x: self.normal(self.tangent(x)) - volume(self.tangent(x), 1.0)),
    mutant("DensityWithExtraLogR", Wrapped, "total_mass_is_one", r"\(n - 1\) log R",  # defect 3
           log_prob=lambda self, x: Wrapped.log_prob(self, x) - math.log(self.R)),
    mutant("ZeroVectorAsLocation", Wrapped, "stays_on_manifold", "a tangent vector",  # defect 4
           move=lambda self, x: x - x[..., :1] * torch.tensor([1.0, 0, 0], dtype=x.dtype)),
    mutant("DensityWithExtraJacobian", Wrapped, "total_mass_is_one", "unclear",  # defect 5
           log_prob=lambda self, x: Wrapped.log_prob(self, x) - volume(self.tangent(x), self.R)),
    mutant("DensityOfLogTwice", Wrapped, "rsample_gradient_is_unbiased", "sample and log_prob",  # defect 6
           tangent=lambda self, x: log(with_time(Wrapped.tangent(self, x), self.R), self.R)),
    mutant("StandardDeviationReadAsLogVariance", Wrapped, "rsample_gradient_is_unbiased", "different ways",  # defect 7
           normal=lambda self, v: _normal((self.scale / 2).exp(), v)),
    mutant("ClampedSamples", Wrapped, "samples_follow_the_density", "unclear",  # defect 9
           move=lambda self, x: with_time(boost(self.loc, x, self.R)[..., 1:].clamp(-2, 2), self.R)),
    mutant("NormalConstantForgotten", Wrapped, "total_mass_is_one", "n/2 log 2 pi",
           normal=lambda self, v: -(v / self.scale).square().sum(-1) / 2 - self.scale.log().sum()),
    mutant("SamplesWiderByRootTwo", Wrapped, "rsample_gradient_is_unbiased", "in different ways",
           spread=lambda self: math.sqrt(2) * self.scale),
    mutant("DetachedScale", Wrapped, "rsample_gradient_is_unbiased", "a detached tensor",
           spread=lambda self: self.scale.detach()),
    mutant("HalfDetachedScale", Wrapped, "rsample_gradient_is_unbiased", "a detached tensor",
           spread=lambda self: torch.stack([self.scale[0], self.scale[1].detach()])),
    mutant("DensityNotSummed", Wrapped, "shapes_broadcast", "not summed over the event",
           log_prob=lambda self, x: torch.distributions.Normal(0, self.scale).log_prob(self.tangent(x))),
    # Noise. All members obey their density.
    mutant("NoiseOfOneForAll", Batch, NOISE, "one draw of noise is expanded",
           noise=lambda self, shape: torch.randn(*shape[:-2], 1, 2, dtype=torch.float64).expand(shape)),
    mutant("NoiseSharedInSamplesOnly", Batch, NOISE, "one draw of noise is expanded",
           sample=lambda self, shape=(): self.loc + self.scale * torch.randn(*shape, 1, 2, dtype=torch.float64)),
    mutant("NoiseSharedInRsamplesOnly", Batch, NOISE, "one draw of noise is expanded",
           rsample=lambda self, shape=(): self.loc + self.scale * torch.randn(*shape, 1, 2, dtype=torch.float64)),
    mutant("OneCoordinateShared", Batch, NOISE, "one draw of noise is expanded", noise=one_coordinate_shared),
    mutant("MembersMirrored", Batch, NOISE, "antithetic", noise=lambda self, shape: torch.cat(2 * [torch.randn(
           *shape[:-2], (shape[-2] + 1) // 2, 2, dtype=torch.float64)], -2)[..., : shape[-2], :] * torch.where(
           torch.arange(shape[-2]) < (shape[-2] + 1) // 2, 1.0, -1.0).double()[:, None]),
    mutant("RadiusShared", Batch, NOISE, "unclear: they share some of their noise", noise=radius_shared),
    mutant("HalfOfTheVarianceShared", Batch, NOISE, "unclear", noise=half_of_the_variance_shared),
    mutant("OneDrawForAll", Batch, NOISE, "expanded over sample_shape",
           noise=lambda self, shape: torch.randn(shape[-2:], dtype=torch.float64).expand(shape)),
    mutant("OneDrawForEachOfTheFirst", Batch, NOISE, "expanded over sample_shape",
           noise=one_draw_for_each_of_the_first),
    mutant("OneDrawForEachOfTheLast", Batch, NOISE, "one draw of noise is expanded",
           noise=lambda self, shape: torch.randn(shape[-3:], dtype=torch.float64).expand(shape)),
    mutant("DrawsMirrored", Batch, NOISE, "antithetic", noise=draws_mirrored),
    mutant("ExpandedAfterItIsDrawn", Batch, NOISE, "one draw of noise is expanded",
           expand=lambda self, batch_shape, _instance=None: Broadcast(self, batch_shape)),
    mutant("RsamplesAreWider", Batch, "samples_follow_the_density", "unclear",
           rsample=lambda self, shape=(): self.loc + 1.2 * self.scale * self.noise(self._extended_shape(shape))),
    # Arguments.
    mutant("NoAttribute", Batch, "arguments_satisfy_their_constraints", "missing attribute",
           arg_constraints={**Batch.arg_constraints, "decentered": dist.constraints.dependent}),
    mutant("LogScaleKept", Batch, "arguments_satisfy_their_constraints", "parametrisation other",
           __init__=lambda self, loc=None, scale=None: (
               Batch.__init__(self, loc, scale), setattr(self, "scale", self.scale.log()))[0]),
    mutant("NoEmptyBatch", Batch, "shapes_broadcast", "an empty tensor",
           log_prob=lambda self, value: Batch.log_prob(self, value) + 0 * value.reshape(len(value), -1)[0, 0]),
    # Conditional transforms.
    mutant("ContextIgnored", ConditionalDilation, "conditioning_is_respected", "context is not passed",
           read=lambda self, context: torch.zeros_like(context)),
    mutant("ContextsAveraged", ConditionalDilation, "conditioning_is_respected", "contexts of a batch are mixed",
           read=lambda self, context: context.reshape(-1, 2).mean(0).expand_as(context)),
]
# fmt: on
CONTROLS = [Chart, Graph, Dilation, Boost, Swirl, Scaling, TangentStretch, Wrapped, Batch, ConditionalDilation]


def check(kind):
    """What a user would call, with a class or a function that makes a transform of R^3."""
    generator = torch.Generator().manual_seed(3)
    v = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    radii = torch.linspace(*getattr(kind, "radii", (0.1, 3.0)), 8, dtype=torch.float64)[:, None]
    v = 2 * radii * v / v.norm(dim=-1, keepdim=True)
    if not isinstance(kind, type):
        ph.testing.assert_transform_laws(kind(), v)
    elif issubclass(kind, Wrapped | Batch):
        ph.testing.assert_distribution_laws(kind())
    elif issubclass(kind, ConditionalDilation):
        contexts = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(8, 2)
        ph.testing.conditioning_is_respected(kind(), exp(v, 2.0), contexts)
    else:
        transform = kind(lorentz(4.0)) if issubclass(kind, TangentStretch) else kind()
        curved = issubclass(kind, Dilation | Boost | TangentStretch)
        ph.testing.assert_transform_laws(transform, exp(v, 2.0) if curved else v)


@pytest.mark.parametrize("kind", CONTROLS, ids=lambda kind: kind.__name__)
def test_a_textbook_class_passes(kind):
    check(kind)


@pytest.mark.parametrize(("kind", "law", "cause"), MUTANTS, ids=[m[0].__name__ for m in MUTANTS])
def test_a_mutant_is_killed_and_named(kind, law, cause):
    with pytest.raises(LawViolation) as caught:
        check(kind)
    assert re.fullmatch(law, caught.value.law)
    assert re.search(cause, caught.value.cause)
    assert caught.value.expected != caught.value.found


class GeooptChart(Chart):
    """What a user of geoopt writes."""

    def _call(self, v):
        return self.codomain.manifold.expmap0(torch.cat([torch.zeros_like(v[..., :1]), v], -1))

    def _inverse(self, x):
        return self.codomain.manifold.logmap0(x)[..., 1:].clone()


def affine():
    return T.AffineTransform(torch.tensor([1.0, -2.0, 0.5]), torch.tensor([2.0, 0.5, 1.5]), event_dim=1)


DTYPES = [torch.float64, torch.float32]
LIFTED = {
    "affine": affine,
    "permute": lambda: T.Permute(torch.tensor([2, 0, 1])),
    "affine_coupling": lambda: T.affine_coupling(3, [8]),
    "affine_autoregressive": lambda: T.affine_autoregressive(3, [8]),
    "spline_coupling": lambda: T.spline_coupling(3, 1, [8], count_bins=4),
    "householder": lambda: T.householder(3, 2),
}
# Pyro's transforms without their cache, whose graph makes them impossible to copy, as a law says.
CORRECT = {
    **{case.name: case.make for case in TRANSFORMS},
    **{
        f"lifted-{name}-k{k:g}": lambda make=make, k=k: HT.TangentTransform(make(), lorentz(k))
        for name, make in LIFTED.items()
        for k in (0.25, 4.0)
    },
    "pyro-affine": affine,
    "pyro-permute": lambda: T.Permute(torch.tensor([2, 0, 1]), cache_size=0),
    "pyro-stack": lambda: T.ComposeTransform([affine(), T.Permute(torch.tensor([2, 0, 1]), cache_size=0)]),
    **{f"geoopt-k{k:g}": lambda k=k: GeooptChart(k) for k in (0.25, 1.0, 4.0)},
}
DIMS = {case.name: case.dim for case in TRANSFORMS}


def assert_correct(name, seed, dtype):
    """All laws of a correct transform, with parameters and points that depend on the seed."""
    torch.set_default_dtype(dtype)  # Pyro's autoregressive inverse makes tensors of the default dtype.
    try:
        torch.manual_seed(seed)
        transform = object_laws._cast(CORRECT[name](), dtype)
        for value in getattr(transform, "parameters", list)():
            value.data += 0.1 * torch.randn_like(value)
        v = torch.randn(6, DIMS.get(name, 3), dtype=dtype)
        v = v / v.norm(dim=-1, keepdim=True) * torch.linspace(0.1, 1 + seed % 3 / 2, 6, dtype=dtype)[:, None]
        manifold = getattr(transform.domain, "manifold", geoopt.Euclidean(1))
        curvature = ph.geometry.bind(manifold).curvature()
        length = 1.0 if curvature is None or curvature == 0 else (-curvature).rsqrt().to(dtype)
        x = ph.geometry.exp0(manifold, v * length)
        ph.testing.assert_transform_laws(transform, x)
    finally:
        torch.set_default_dtype(torch.float32)


def random_distribution(seed, dtype):
    """A wrapped normal or a flow over one, of random size, place, scale, curvature and batch shape."""
    torch.manual_seed(seed)
    n, k = 1 + seed % 3, (0.25, 1.0, 4.0)[seed // 3 % 3]
    M = geoopt.Lorentz(torch.tensor(k, dtype=dtype))
    loc = ph.geometry.exp0(M, 0.7 * k**0.5 * torch.randn(n, dtype=dtype))
    scale = (k**0.5 * (0.2 + 0.7 * torch.rand(n, dtype=dtype))).requires_grad_()
    if seed % 5 == 0:
        return hdist.WrappedNormal(torch.stack([loc, ph.geometry.origin(M, n)]), scale, M)
    d = hdist.WrappedNormal(loc, scale, M)
    if seed % 2 or n == 1:
        return d
    return dist.TransformedDistribution(d, [HT.wrapped_hyperboloid_coupling(n, manifold=M).to(dtype)])


def test_every_distribution_of_torch_and_pyro_is_tried_or_has_no_place():
    classes = {
        name
        for module in (torch.distributions, dist)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, torch.distributions.Distribution)
    }
    excused = {name for names in NOT_EUCLIDEAN.values() for name in names.split()}
    assert classes - excused - set(euclidean(torch.float64)) == set()
    assert not excused & set(euclidean(torch.float64))


@pytest.mark.parametrize(
    ("seed", "name"), list(enumerate(euclidean(torch.float64))), ids=list(euclidean(torch.float64))
)
def test_a_distribution_of_torch_or_pyro_passes(seed, name):
    """As it is in one precision, and pushed to the hyperboloid in the other, at the origin or elsewhere."""
    for i, dtype in enumerate(DTYPES):
        torch.set_default_dtype(dtype)  # Pyro's autoregressive inverse makes tensors of the default dtype.
        try:
            d = euclidean(dtype)[name]()
            if i == seed % 2:
                M = geoopt.Lorentz(torch.tensor(4.0, dtype=dtype))
                loc = ph.geometry.exp0(M, torch.linspace(1.0, -0.5, d.event_shape[0], dtype=dtype))
                d = dist.TransformedDistribution(d, [HT.ExponentialMap(M, loc if seed % 3 else None)])
            if i != seed % 2 or name != "Cauchy":  # some of its distances overflow: ExponentialMap says so
                ph.testing.assert_distribution_laws(d)
        finally:
            torch.set_default_dtype(torch.float32)


M4, POINTS = lorentz(4.0), torch.tensor([[1.0, -0.5], [-1.5, 0.2], [0.3, 0.0]], dtype=torch.float64)


def wrapped(v):
    return hdist.WrappedNormal(ph.geometry.exp0(M4, v), torch.tensor([0.7, 0.4], dtype=torch.float64), M4)


WRAPPED = {
    "expanded": lambda: wrapped(POINTS[0]).expand([3]),
    "batch": lambda: wrapped(POINTS),
    "expanded batch": lambda: wrapped(POINTS).expand([2, 3]),
    "mixture": lambda: dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), wrapped(POINTS)),
    "batched loc over an unbatched base": lambda: dist.TransformedDistribution(
        dist.Normal(POINTS[0], 0.5).to_event(1), [HT.ExponentialMap(M4, ph.geometry.exp0(M4, POINTS))]
    ),
    "batch of k": lambda: hdist.WrappedNormal(
        ph.geometry.origin(geoopt.Lorentz(torch.tensor([1.0, 4.0], dtype=torch.float64)), 2),
        torch.tensor([0.7, 0.4], dtype=torch.float64),
        geoopt.Lorentz(torch.tensor([1.0, 4.0], dtype=torch.float64)),
    ),
    "target": lambda: ph.datasets.density_target("mixture", torch.float64),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_correct_batch_or_mixture_passes(name):
    ph.testing.assert_distribution_laws(WRAPPED[name]())


def test_what_is_not_known_is_said():
    """The integral of a product of two Cauchy densities by polar quadrature: ridges along the axes, to infinity."""
    with pytest.warns(NotChecked) as warned:
        ph.testing.assert_distribution_laws(dist.Cauchy(torch.zeros(2), 1.0).to_event(1))
    assert {str(warning.message).split()[0] for warning in warned} == {
        "total_mass_is_one",
        "samples_follow_the_density",
    }


@pytest.mark.parametrize(
    ("d", "word"),
    [
        (dist.Normal(0.0, 1.0), "to_event"),
        (dist.Normal(torch.zeros(3, 2), 1.0).to_event(2), "to_event"),
        (dist.Gamma(torch.ones(2), 1.0).to_event(1), "biject_to"),
    ],
)
def test_what_has_no_laws_is_refused_with_the_remedy(d, word):
    with pytest.raises(ValueError, match=word):
        ph.testing.assert_distribution_laws(d)


# Copies, leaves that are not registered, and digits.


def local_class():
    class Local(Scaling):
        pass

    return Local()


class ByFunction(Scaling):
    """Its scale is a function, which may close over tensors that no cast or copy reaches."""

    def __init__(self, log_scale, cache_size=0):
        super().__init__(cache_size)
        del self.log_scale
        self.log_scale_of = log_scale

    def _call(self, x):
        return self.log_scale_of().exp() * x

    def _inverse(self, y):
        return (-self.log_scale_of()).exp() * y

    def log_abs_det_jacobian(self, x, y):
        return self.log_scale_of().sum().expand(x.shape[:-1])

    def with_cache(self, cache_size=1):
        return type(self)(self.log_scale_of, cache_size)


class ByFunctionWithAGraph(ByFunction):
    def _call(self, x):
        self._last = super()._call(x)
        return self._last


class StaleByFunction(ByFunction):
    def __getstate__(self):
        return {**super().__getstate__(), "_cached_x_y": (None, None)}


class Locked(Scaling):
    """Neither pickled nor deep-copied: a lock, as a logger or a data loader has."""

    def __init__(self, cache_size=0):
        super().__init__(cache_size)
        self.lock = threading.Lock()


LEAF = torch.tensor([0.3, -0.5, 0.4], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    ("make", "unchecked"),
    [
        (local_class, {"pickle"}),
        (lambda: ByFunction(lambda: LEAF), {"pickle", "float32_agrees"}),
        (Locked, {"pickle", "copy.deepcopy", "cache_survives", "float32_agrees"}),
    ],
)
def test_a_correct_transform_that_cannot_be_copied_passes_with_a_warning(make, unchecked):
    before = LEAF.detach().clone()
    with pytest.warns(NotChecked) as warned:
        check(make)
    texts = [str(warning.message) for warning in warned]
    assert len(texts) == len(unchecked)
    assert all(any(word in text for text in texts) for word in unchecked), texts
    assert torch.equal(LEAF, before)


def test_a_graph_that_is_kept_is_found_in_what_cannot_be_pickled():
    with pytest.raises(LawViolation, match="after a forward pass"):
        check(lambda: ByFunctionWithAGraph(lambda: LEAF))


def test_a_stale_image_is_found_in_leaves_that_are_not_registered():
    """torch's own cache of the last pair: it survives a step of what the function closes over."""
    with pytest.warns(NotChecked), pytest.raises(LawViolation) as caught:
        check(lambda: StaleByFunction(lambda: LEAF, cache_size=1))
    assert caught.value.law == "cache_survives_an_optimiser_step"


@pytest.mark.parametrize(
    "make",
    [
        T.TanhTransform,
        T.LeakyReLUTransform,
        lambda: T.AffineTransform(0.5, torch.tensor([2.0, 0.5, 1.5])),
        lambda: T.AffineTransform(torch.nn.Parameter(torch.zeros(3)), 2.0, event_dim=1),
        lambda: T.Permute(torch.tensor([2, 0, 1]), cache_size=0),
    ],
)
def test_a_transform_of_numbers_or_vectors_passes_as_it_is(make):
    ph.testing.assert_transform_laws(make(), torch.randn(8, 3))


def test_a_transform_with_a_batch_is_refused():
    loc = ph.geometry.exp0(M4, POINTS)
    with pytest.raises(ValueError, match=r"batch shape \(3,\)"):
        ph.testing.assert_transform_laws(HT.Translation(M4, loc), loc)


@pytest.mark.parametrize("digit", [1e-3, 1e-9, 1e-12, 3e-16])
def test_two_numbers_that_differ_are_printed_so(digit):
    one = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    with pytest.raises(LawViolation) as caught:
        map_laws.vectors_agree("law", "formula", one, one * (1 + digit), one, 1e-17)
    assert caught.value.expected != caught.value.found
    assert "1" in caught.value.expected


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_none_are_not_what_is_expected(value):
    one = torch.tensor([[1.0, value]])
    with pytest.raises(LawViolation) as caught:
        map_laws.vectors_agree("law", "formula", one, one.clone(), one, 1.0)
    assert (caught.value.expected, str(value) in caught.value.found) == ("finite numbers", True)


SEARCH = settings(max_examples=1000, database=None, derandomize=True, phases=[Phase.generate])


@pytest.mark.parametrize(("seed", "name"), list(enumerate(CORRECT)), ids=list(CORRECT))
def test_a_correct_transform_passes(seed, name):
    assert_correct(name, seed, DTYPES[seed % 2])


@pytest.mark.parametrize("seed", range(8))
def test_a_correct_distribution_passes(seed):
    ph.testing.assert_distribution_laws(random_distribution(seed, DTYPES[seed % 2]))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("seed", range(200))
def test_no_false_alarm(seed, dtype):
    for name in list(CORRECT)[seed % 8 :: 8]:
        assert_correct(name, 100 + seed, dtype)
    ph.testing.assert_distribution_laws(random_distribution(100 + seed, dtype))


# Strategies.


@pytest.mark.parametrize("radius", [0.0, 1e-8, 10.0])
def test_points_appear_at_the_radii_where_formulas_fail(radius):
    M = lorentz(4.0)

    def there(x):
        return abs(float(x[1:].norm()) / 2 - math.sinh(radius)) <= 1e-9 * math.sinh(radius)

    x = find(strategies.points(M, dim=2), there, settings=SEARCH)
    assert ph.geometry.contains(M, x)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["coincident", "antipodal"])
def test_pairs_that_formulas_fail_on_appear(sign):
    def related(pair):
        x, y = pair
        return float(x[1:].norm()) > 1 and torch.equal(y[1:], sign * x[1:])

    pairs = strategies.point_pairs(lorentz(4.0), dim=2)
    find(pairs, related, settings=SEARCH)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(data=st.data())
def test_what_is_generated_obeys_its_laws(data):
    M = data.draw(strategies.manifolds())
    dim = data.draw(st.integers(1, 3))
    x = data.draw(strategies.points(M, dim=dim, max_radius=2.0, batch_shape=(4,)))
    ph.testing.assert_transform_laws(data.draw(strategies.transforms(M, dim=dim, max_radius=2.0)), x)
    d = data.draw(strategies.wrapped_normals(M, dim=dim, max_radius=2.0, min_scale=0.1, max_scale=1.0))
    ph.testing.assert_distribution_laws(d)


# Manifolds of which the kit knows nothing but geoopt's metric.

THIRD = {"half-space": third.HalfSpace, "matrices": geoopt.SymmetricPositiveDefinite}


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(registry._GEOMETRIES, third.HalfSpace, third.HalfSpaceGeometry)


def check_third(kind, space, dim=3):
    constraint = hdist.constraints.on_manifold(THIRD[space]())
    generator = torch.Generator().manual_seed(3)
    v = torch.randn(8, dim, generator=generator, dtype=torch.float64)
    v = torch.linspace(0.1, 2.5, 8, dtype=torch.float64)[:, None] * v / v.norm(dim=-1, keepdim=True)
    made = kind(constraint, dim)
    if isinstance(made, torch.distributions.Distribution):
        ph.testing.assert_distribution_laws(made)
    else:
        vectors = made.domain is dist.constraints.real_vector
        ph.testing.assert_transform_laws(made, v if vectors else ph.geometry.exp0(constraint.manifold, v))


LIBRARY = {
    "exponential map": lambda constraint, dim: HT.ExponentialMap(constraint.manifold),
    "exponential map elsewhere": lambda constraint, dim: HT.ExponentialMap(
        constraint.manifold, ph.geometry.exp0(constraint.manifold, torch.linspace(1, -1, dim).double())
    ),
    "translation": lambda constraint, dim: HT.Translation(
        constraint.manifold, ph.geometry.exp0(constraint.manifold, torch.linspace(1, -1, dim).double())
    ),
    "tangent coupling": lambda constraint, dim: shaken(HT.tangent_coupling(dim, manifold=constraint.manifold)),
    "lifted affine map": lambda constraint, dim: HT.TangentTransform(affine(), constraint.manifold),
    "wrapped normal": lambda constraint, dim: hdist.WrappedNormal(
        ph.geometry.exp0(constraint.manifold, torch.linspace(1, -1, dim).double()),
        torch.linspace(0.4, 0.7, dim).double().requires_grad_(),
        constraint.manifold,
    ),
}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("space", THIRD)
@pytest.mark.parametrize("kind", [third.Chart, third.Dilation, third.Wrapped], ids=lambda kind: kind.__name__)
def test_correct_code_on_a_third_manifold_passes(kind, space):
    check_third(kind, space)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("space", THIRD)
@pytest.mark.parametrize("name", LIBRARY)
def test_the_library_on_a_third_manifold_passes(name, space):
    check_third(LIBRARY[name], space)


# fmt: off
THIRD_MUTANTS = [
    mutant("ThirdChartWithoutVolume", third.Chart, LOG_DET, "unclear",
           log_abs_det_jacobian=lambda self, v, x: 0 * v[..., 0]),
    mutant("ThirdVolumeCountedTwice", third.Chart, LOG_DET, "unclear",
           log_abs_det_jacobian=lambda self, v, x: 2 * third.Chart.log_abs_det_jacobian(self, v, x)),
    mutant("ThirdLogDetDropped", third.Dilation, LOG_DET, "unclear",
           log_abs_det_jacobian=lambda self, x, y: 0 * third.Dilation.log_abs_det_jacobian(self, x, y)),
    mutant("ThirdVolumesDropped", third.Dilation, LOG_DET, "unclear",
           log_abs_det_jacobian=lambda self, x, y: (
               self.log_scale.sum() + 0 * third.Dilation.log_abs_det_jacobian(self, x, y))),
    mutant("ThirdLogDetOfTheInverse", third.Dilation, LOG_DET, "unclear",
           log_abs_det_jacobian=lambda self, x, y: -third.Dilation.log_abs_det_jacobian(self, x, y)),
    mutant("ThirdInverseIsForward", third.Dilation, "round_trip", "the inverse applies the forward map",
           _inverse=third.Dilation._call),
    mutant("ThirdDensityWithoutVolume", third.Wrapped, "total_mass_is_one", "unclear",
           log_prob=lambda self, x: torch.distributions.Normal(0, self.scale).log_prob(
               ph.geometry.log_at(self._support.manifold, self.loc, x)).sum(-1)),
    mutant("ThirdDensityTwice", third.Wrapped, "total_mass_is_one", "unclear",
           log_prob=lambda self, x: third.Wrapped.log_prob(self, x) + math.log(2)),
    mutant("ThirdSamplesWider", third.Wrapped, "samples_follow_the_density", "unclear",
           spread=lambda self: 2**0.5 * self.scale),
]
# fmt: on


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("space", THIRD)
@pytest.mark.parametrize(("kind", "law", "cause"), THIRD_MUTANTS, ids=[m[0].__name__ for m in THIRD_MUTANTS])
def test_a_mutant_on_a_third_manifold_is_killed_and_no_curvature_is_guessed(kind, law, cause, space):
    with pytest.raises(LawViolation) as caught:
        check_third(kind, space)
    assert caught.value.law == law
    assert re.search(cause, caught.value.cause)


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (0, "log-determinant is dropped.*volume term of the result is dropped"),
        (1, "volume terms are counted twice"),
        (2, "log-determinant is dropped"),
        (3, "Lebesgue measure of tangent coordinates"),
        (4, "log-determinant of the inverse map"),
        (7, "off by log 2"),
    ],
)
def test_a_geometry_that_says_its_curvature_has_its_mistakes_named(kind, cause, monkeypatch):
    monkeypatch.setitem(registry._GEOMETRIES, third.HalfSpace, third.KnownHalfSpaceGeometry)
    with pytest.raises(LawViolation) as caught:
        check_third(THIRD_MUTANTS[kind][0], "half-space")
    assert re.search(cause, caught.value.cause)


class OnUnknown(dist.constraints.Constraint):
    """A user's own constraint of a manifold for which no geometry is registered."""

    is_discrete, event_dim, manifold = False, 1, third.HalfSpace()

    def check(self, value):
        return value[..., -1] > 0


def test_a_manifold_without_a_geometry_is_refused_by_name():
    with pytest.raises(TypeError, match="HalfSpace"):
        hdist.constraints.on_manifold(third.HalfSpace())
    t = T.ExpTransform()
    t.domain = t.codomain = OnUnknown()
    with pytest.raises(TypeError, match="HalfSpace"):
        ph.testing.assert_transform_laws(t, torch.ones(8, 3))
    with pytest.raises(TypeError, match="Simplex"):
        ph.testing.assert_transform_laws(T.StickBreakingTransform(), torch.randn(8, 3))


def test_the_kit_asks_no_manifold_what_it_is():
    """A fact about a manifold stands in the file of that manifold; examples and strategies name one."""
    folder = pathlib.Path(ph.testing.__file__).parent
    for path in folder.glob("*.py"):
        code = re.sub(r'r?"""(.|\n)*?"""', "", path.read_text())
        found = re.findall(r"isinstance\([^)]*geoopt.*|isinstance\([^)]*Lorentz.*|\[\.\.\., :?1:?\]|event\[\d", code)
        if path.name != "strategies.py":
            found += re.findall(r".*Lorentz.*", code)
        assert not found, (path.name, found)


@pytest.mark.parametrize(("found", "law"), [(True, "is False outside"), (False, "is True inside")])
def test_a_constraint_that_cannot_tell_is_refused(found, law):
    M = lorentz(4.0)

    class Blind(type(hdist.constraints.on_manifold(M))):
        def check(self, value):
            return torch.full(value.shape[:-1], found) & value.isfinite().all(-1)

    x = ph.geometry.exp0(M, torch.randn(5, 2).double())
    with pytest.raises(LawViolation, match=law) as caught:
        ph.testing.assert_constraint_laws(Blind(M), x, 1.01 * x)
    assert (caught.value.expected, caught.value.found) == (str(not found), str(found))


@pytest.mark.parametrize(("skew", "broken"), [(1e-16, False), (1e-3, True)])
def test_a_matrix_is_positive_definite_up_to_rounding(skew, broken):
    class Skewed(hdist.WrappedMultivariateNormal):
        @property
        def covariance_matrix(self):
            return super().covariance_matrix + torch.tensor([[0.0, skew], [0.0, 0.0]], dtype=torch.float64)

    factor = torch.tensor([[1.0, 0.0], [0.3, 0.7]], dtype=torch.float64)
    M = lorentz(1.0)
    d = Skewed(ph.geometry.origin(M, 2), scale_tril=factor, manifold=M)
    with pytest.raises(LawViolation, match="covariance_matrix satisfies") if broken else contextlib.nullcontext():
        object_laws.arguments_satisfy_their_constraints(d)


def test_every_parameter_has_a_finite_gradient():
    class SecondIsLost(HT.TangentModule):
        def __init__(self):
            super().__init__(lorentz(4.0))
            self.first = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
            self.second = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

        def scale(self):
            return self.first + self.second.abs().sqrt()  # no derivative at zero

        def _tangent_forward(self, v):
            return v * self.scale().exp(), v.size(-1) * self.scale().expand(v.shape[:-1])

        def _tangent_backward(self, w):
            return w * (-self.scale()).exp(), w.size(-1) * self.scale().expand(w.shape[:-1])

    x = ph.geometry.exp0(lorentz(4.0), torch.randn(4, 2).double())
    with pytest.raises(LawViolation, match="gradients_are_finite"):
        map_laws.gradients_are_finite(SecondIsLost(), x)


def test_the_member_whose_draws_are_equal_is_named():
    class Stuck(hdist.WrappedNormal):
        def rsample(self, sample_shape=()):
            x = super().rsample(sample_shape)
            x[..., 2, :] = x.reshape(-1, *x.shape[-2:])[0, 2]
            return x

    d = Stuck(ph.geometry.exp0(lorentz(1.0), torch.randn(3, 2).double()), 0.5, lorentz(1.0))
    with pytest.raises(LawViolation, match=r"batch member \(2,\)"):
        noise.batch_members_have_own_noise(d)
