"""The property-test kit on trial: it must find and name the mistakes that users make, and pass every correct object."""

import contextlib
import math
import re
import threading

import geoopt
import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from scipy import stats

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic.testing import (
    LawViolation,
    NotChecked,
    agreement,
    density_laws,
    gradient_laws,
    map_laws,
    noise,
    object_laws,
    strategies,
)
from tests.cases import NOT_EUCLIDEAN, TRANSFORMS, UNCHARTED_FLOWS, base_on, euclidean, lorentz
from tests.half_space import HalfSpace, HalfSpaceGeometry
from tests.textbook import (
    Batch,
    Boost,
    Chart,
    ConditionalDilation,
    Dilation,
    Scaling,
    TangentStretch,
    Wrapped,
    boost,
    exp,
    log,
    volume,
    with_time,
)

G = ph.geometry
M4, POINTS = lorentz(4.0), torch.tensor([[1.0, -0.5], [-1.5, 0.2], [0.3, 0.0]], dtype=torch.float64)
DTYPES = [torch.float64, torch.float32]


def points(least=0.1):
    """Eight tangent vectors up to scaled radius 3, of k = 4."""
    v = torch.randn(8, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return 2 * torch.linspace(least, 3.0, 8, dtype=torch.float64)[:, None] * v / v.norm(dim=-1, keepdim=True)


def assert_laws(made, v=None):
    """What a user calls, for a distribution, or for a transform at points of these tangent coordinates."""
    v = points() if v is None else v
    if isinstance(made, torch.distributions.Distribution):
        ph.testing.assert_distribution_laws(made)
    elif isinstance(made, ConditionalDilation):
        contexts = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(8, 2)
        ph.testing.conditioning_is_respected(made, exp(v, 2.0), contexts)
    else:
        M = getattr(made.domain, "manifold", None)
        ph.testing.assert_transform_laws(made, v if M is None else G.exp0(M, v))


@contextlib.contextmanager
def default_dtype(dtype):
    """Pyro's autoregressive inverse makes tensors of the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# ---- Mistakes: a class by the book with one of its methods wrong, the law that finds it, and the cause it names ----

MASS, FOLLOW, UNBIASED = "total_mass_is_one", "samples_follow_the_density", "rsample_gradient_is_unbiased"
LOG_DET, ON, NOISE = "log_det_matches_autograd", "stays_on_manifold", "batch_members_have_own_noise"
ALONE, F32 = "batch_members_are_independent", "float32_agrees_with_float64"
COPIES, ARGUMENTS = "deepcopy_pickle_state_dict", "arguments_satisfy_their_constraints"
SHORT = {"forward": "_call", "inverse": "_inverse", "log_det": "log_abs_det_jacobian", "init": "__init__"}
UNCLEAR = "unclear"


def mutant(base, law, cause, **methods):
    return type(f"Wrong{base.__name__}", (base,), {SHORT.get(name, name): f for name, f in methods.items()}), law, cause


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def by_the_norm(self, v):
    r = v.norm(dim=-1, keepdim=True)
    return with_time(torch.where(r > 0, self.R * (r / self.R).sinh() * v / r, 0.0), self.R)


def guarded_by_zero_in_float32(self, v):
    r = v.square().sum(-1, keepdim=True).clamp_min(1e-60).sqrt() / self.R
    return with_time(r.sinh() / r * v, self.R)


def boost_to_a_point_off_the_manifold(self, x):
    """The textbook boost with inner products, which trusts the target's time coordinate."""
    o, form = exp(torch.zeros_like(self.p[1:]), self.R), double(-1, 1, 1, 1)
    p = torch.cat([with_time(self.p[1:-1], self.R)[:1], self.p[1:]])
    with_o, with_both = (o * form * x).sum(-1, keepdim=True), ((p + o) * form * x).sum(-1, keepdim=True)
    return x - 2 * p * with_o / self.k + (p + o) * with_both / (self.k + self.R * p[0])


def normalised(self, x):
    v = log(x, self.R)
    return exp(v / (1 + v.square().reshape(-1, v.size(-1)).mean(0)), self.R)


def kept(self, x):
    self._last = self.log_scale.exp() * x
    return self._last


def cached_scale(self):
    """It knows the value that it is of, but not that a step has freed its graph."""
    if not torch.equal(self.__dict__.get("at", torch.zeros(0)), self.log_scale):
        self.__dict__.update(at=self.log_scale.detach().clone(), scale=self.log_scale.exp())
    return self.scale


def without_scale(self):
    return {name: value for name, value in Scaling.__getstate__(self).items() if name not in ("at", "scale")}


def stale(self):
    return {**Scaling.__getstate__(self), "_cached_x_y": (None, None)}


def first_and_last_share_a_coordinate(self, shape):
    draw = torch.randn(shape, dtype=torch.float64)
    return torch.cat([draw[..., :-1, :], torch.cat([draw[..., :1, :1], draw[..., -1:, 1:]], -1)], -2)


def shared_by_neighbours(self, shape):
    return torch.randn(*shape[:-2], shape[-2] // 2, shape[-1], dtype=torch.float64).repeat_interleave(2, -2)


def half_mirrored(self, shape):
    draw = torch.randn(shape, dtype=torch.float64)
    return torch.cat([draw[..., :-1, :], 0.7 * (draw[..., -1:, :] - draw[..., :1, :])], -2)


def distance_shared(self, shape):
    draw = torch.randn(shape, dtype=torch.float64)
    return draw * draw[..., :1, :].norm(dim=-1, keepdim=True) / draw.norm(dim=-1, keepdim=True)


def mirrored_draws(self, shape):
    half = torch.randn(-(-shape[0] // 2) if len(shape) > 2 else 1, *shape[1:], dtype=torch.float64)
    return torch.cat([half, -half])[: shape[0]] if len(shape) > 2 else torch.randn(shape, dtype=torch.float64)


def repeated_draws(self, shape):
    draws = torch.randn(shape, dtype=torch.float64)
    return draws[..., ::2, :, :].repeat_interleave(2, -3)[..., : shape[-3], :, :] if len(shape) > 2 else draws


def by_halves(self, shape):
    if len(shape) < 3:
        return torch.randn(shape, dtype=torch.float64)
    draws = torch.randn(shape, dtype=torch.float64)
    draws[..., 2, 1] = torch.cat([draws[..., : -(-shape[-3] // 2), 2, 1]] * 2, -1)[..., : shape[-3]]
    return draws


def one_coordinate_for_all_draws(self, shape):
    draws = torch.randn(shape, dtype=torch.float64)
    return torch.cat([draws[..., :1, :, :1].expand_as(draws[..., :1]), draws[..., 1:]], -1) if len(shape) > 2 else draws


def narrow_rsample(self, shape=()):
    return self.loc + self.scale * torch.randn(*shape, 1, 2, dtype=torch.float64)


class Broadcast(Batch):
    """An expanded batch that draws for one of its batches and repeats it."""

    def noise(self, shape):
        return torch.randn(*shape[:-3], 1, *shape[-2:], dtype=torch.float64).expand(shape)


def own_draw_remembered(self, value):
    return Batch.log_prob(self, value) + (1e-3 if value is self.__dict__.get("last") else 0.0)


def remembering(self, shape=()):
    self.last = Batch.sample(self, shape)
    return self.last


# fmt: off
MUTANTS = {
    # Charts, and maps of the hyperboloid to itself. "Defect" numbers are those of the published code.
    "n for n - 1": mutant(Chart, LOG_DET, "power", log_det=lambda self, v, x: 1.5 * volume(v, self.R)),
    "no radius": mutant(Chart, ON, "radius", forward=lambda self, v: exp(v, 1.0), inverse=lambda self, x: log(x, 1.0)),
    "no radius in the volume": mutant(Chart, LOG_DET, "radius is", log_det=lambda self, v, x: volume(v, 1.0)),
    "radius inverted": mutant(Chart, ON, "squared radius", forward=lambda self, v: exp(v, 1 / self.R)),
    "defect 3: extra log R": mutant(
        Chart, LOG_DET, "log R", log_det=lambda self, v, x: volume(v, self.R) + 2 * math.log(self.R)),
    "defect 5: extra volume": mutant(Chart, LOG_DET, "twice", log_det=lambda self, v, x: 2 * volume(v, self.R)),
    "defect 9: a clamp": mutant(
        Chart, "round_trip", "clamp", forward=lambda self, v: with_time(exp(v, self.R)[..., 1:].clamp(-9, 9), self.R)),
    "defect 4: a tangent vector": mutant(
        Chart, ON, "tangent vector", forward=lambda self, v: exp(v, self.R) * double(0, 1, 1, 1)),
    "a scaled point": mutant(
        Chart, ON, "^unclear: <x, x> is -4.84, not -4$", forward=lambda self, v: 1.1 * exp(v, self.R)),
    "lower sheet": mutant(Chart, ON, "sign", forward=lambda self, v: exp(v, self.R) * double(-1, 1, 1, 1)),
    "NaN at the origin": mutant(Chart, "gradients_are_finite", "origin", forward=by_the_norm),
    "guard lost in float32": mutant(Chart, F32, "digits|NaN", forward=guarded_by_zero_in_float32, least_radius=0.0),
    "overflow": mutant(
        Chart, ON, "NaN or infinity", forward=lambda self, v: exp(v, self.R) / (v.norm(dim=-1, keepdim=True) < 5)),
    "inverse overflows": mutant(
        Chart, "round_trip", "infinite", inverse=lambda self, x: log(x, self.R) / (x[..., :1] < 9)),
    "a coordinate less": mutant(Chart, "round_trip", "shape", inverse=lambda self, x: log(x, self.R)[..., :2]),
    "NaN where it meets a point": mutant(Boost, "gradients_are_finite", "origin", inverse=lambda self, y: (
        Boost._inverse(self, y) + 0 * (y - self.p)[..., 1:].square().sum(-1, keepdim=True).sqrt())),
    "gradient of a branch not taken": mutant(Chart, "gradients_are_finite", "where", log_det=lambda self, v, x: (
        volume(v, self.R) * torch.where(v[..., 0] < 99, 1.0, (0.01 - v.square().sum(-1)).sqrt()))),
    "another forward_shape": mutant(Chart, "shapes_broadcast", UNCLEAR, forward_shape=lambda self, shape: shape),
    "another inverse_shape": mutant(Chart, "shapes_broadcast", UNCLEAR, inverse_shape=lambda self, shape: shape),
    "input edited": mutant(
        Chart, "does_not_alias_its_input", "edited", forward=lambda self, v: exp(v.mul_(2), self.R)),
    "a view": mutant(Scaling, "does_not_alias_its_input", "clone", inverse=lambda self, y: y[..., :]),
    "defect 1: sign of the volumes": mutant(
        Dilation, LOG_DET, "sign.*volume", log_det=lambda self, x, y: self.log_scale.sum() - self.stretch(x, y)),
    "log-det dropped": mutant(Dilation, LOG_DET, "dropped", log_det=lambda self, x, y: 0 * x[..., 0]),
    "volumes dropped": mutant(
        Dilation, LOG_DET, "Lebesgue", log_det=lambda self, x, y: self.log_scale.sum() + 0 * x[..., 0]),
    "volume of the argument dropped": mutant(Dilation, LOG_DET, "argument.*dropped", log_det=lambda self, x, y: (
        self.log_scale.sum() + volume(log(y, self.R), self.R))),
    "infinite log-det": mutant(Dilation, LOG_DET, "NaN or infinity", log_det=lambda self, x, y: (
        Dilation.log_abs_det_jacobian(self, x, y) / (y[..., 0] < 9))),
    "no empty batch of points": mutant(Dilation, "shapes_broadcast", "empty", forward=lambda self, x: (
        Dilation._call(self, x) + 0 * x.reshape(-1, 4)[0])),
    "log-det of the inverse": mutant(
        Dilation, LOG_DET, "inverse map", log_det=lambda self, x, y: -Dilation.log_abs_det_jacobian(self, x, y)),
    "scale dropped": mutant(Dilation, LOG_DET, "constant", log_det=lambda self, x, y: self.stretch(x, y)),
    "not summed over the event": mutant(Dilation, "shapes_broadcast", "event", log_det=lambda self, x, y: (
        self.log_scale + self.stretch(x, y)[..., None])),
    "inverse is forward": mutant(Dilation, "round_trip", "forward", inverse=lambda self, y: self._call(y)),
    "inverse is the identity": mutant(Dilation, "round_trip", "argument", inverse=lambda self, y: y.clone()),
    "tenth digit of the inverse": mutant(Dilation, "round_trip", "digits", inverse=lambda self, y: (
        Dilation._inverse(self, with_time((1 + 1e-10) * y[..., 1:], self.R)))),
    "one coordinate not inverted": mutant(Dilation, "round_trip", r"coordinates \[1, 2\]", inverse=lambda self, y: (
        exp((double(0, 1, 1) * -self.log_scale).exp() * log(y, self.R), self.R))),
    "a float64 constant": mutant(
        Dilation, F32, "float64", forward=lambda self, x: Dilation._call(self, x) * double(1, 1, 1, 1)),
    "batch normalised": mutant(Dilation, ALONE, "batch", forward=normalised),
    "argument lost by with_cache": mutant(
        Dilation, COPIES, "with_cache", init=lambda self: Dilation.__init__(self, log_scale=(0.1, 0.1, 0.1)),
        with_cache=lambda self, cache_size=1: Dilation(cache_size=cache_size)),
    "with_cache that fails": mutant(
        Dilation, COPIES, "with_cache", with_cache=lambda self, cache_size=1: Dilation(unknown=cache_size)),
    "defect 2: target off the manifold": mutant(Boost, ON, UNCLEAR, forward=boost_to_a_point_off_the_manifold),
    # Modules.
    "a graph kept": mutant(Scaling, COPIES, "cache", forward=kept),
    "a scale kept with its graph": mutant(
        Scaling, "cache_survives_an_optimiser_step", "graph", __getstate__=without_scale,
        forward=lambda self, x: cached_scale(self) * x, inverse=lambda self, y: y / cached_scale(self)),
    "no gradients": mutant(
        Scaling, LOG_DET, "without gradients", forward=torch.no_grad()(lambda self, x: Scaling._call(self, x))),
    "a stale cache": mutant(
        Scaling, "cache_survives_an_optimiser_step", "stale", __getstate__=stale,
        init=lambda self, cache_size=1: Scaling.__init__(self, cache_size)),
    "a state_dict that is not loaded": mutant(
        TangentStretch, COPIES, "state_dict", load_state_dict=lambda self, state: None,
        with_cache=torch.distributions.Transform.with_cache),
    "no gradient of a parameter": mutant(
        TangentStretch, "gradients_are_finite", "", _tangent_forward=lambda self, v: (
            self.log_scale.exp() * v + (self.log_scale[0] - 0.3).abs().sqrt(), self.log_scale.sum() + 0 * v[..., 0])),
    "a hundredth of the log-det detached": mutant(
        TangentStretch, "gradients_match_differences", "no_grad", _tangent_forward=lambda self, v: (
            self.log_scale.exp() * v, self.log_scale.lerp(self.log_scale.detach(), 0.01).sum() + 0 * v[..., 0])),
    "half of the target detached": mutant(
        Boost, "gradients_match_differences", "no_grad", forward=lambda self, x: (
            boost(self.p.requires_grad_().lerp(self.p.detach(), 0.5), x, self.R))),
    "no gradients of the inverse": mutant(
        Scaling, "gradients_match_differences", "no_grad",
        inverse=torch.no_grad()(lambda self, y: Scaling._inverse(self, y))),
    "log-det of the way back": mutant(
        TangentStretch, "inverse_log_det_is_negative", "constant",
        _tangent_backward=lambda self, w: ((-self.log_scale).exp() * w, -self.log_scale.sum().expand(w.shape[:-1]))),
    # Densities and samples.
    "no log-det in the density": mutant(
        Wrapped, MASS, UNCLEAR, log_prob=lambda self, x: self.normal(self.tangent(x))),
    "defect 3: extra log R in the density": mutant(
        Wrapped, MASS, "log R", log_prob=lambda self, x: Wrapped.log_prob(self, x) - math.log(self.R)),
    "normal constant forgotten": mutant(
        Wrapped, MASS, "log 2 pi", normal=lambda self, v: Wrapped.normal(self, v) + math.log(2 * math.pi)),
    "defect 6: log twice in the density": mutant(Wrapped, UNBIASED, "sample and log_prob", tangent=lambda self, x: (
        log(with_time(Wrapped.tangent(self, x), self.R), self.R))),
    "defect 7: log-variance": mutant(Wrapped, UNBIASED, "different", normal=lambda self, v: (
        torch.distributions.Normal(0, (self.scale / 2).exp()).log_prob(v).sum(-1))),
    "defect 9: samples clamped": mutant(Wrapped, FOLLOW, UNCLEAR, move=lambda self, x: (
        with_time(boost(self.loc, x, self.R)[..., 1:].clamp(-2, 2), self.R))),
    "NaN gradient of a draw": mutant(Wrapped, UNBIASED, "", spread=lambda self: (
        self.scale + 0 * (self.scale - self.scale.detach()).square().sqrt())),
    "half of the scale detached": mutant(Wrapped, UNBIASED, "detached", spread=lambda self: (
        torch.stack([self.scale[0], self.scale[1].detach()]))),
    "all of the scale detached": mutant(Wrapped, UNBIASED, "detached", spread=lambda self: self.scale.detach()),
    "all detached": mutant(Wrapped, UNBIASED, "detached", rsample=torch.no_grad()(Wrapped.rsample)),
    "samples off the manifold": mutant(Wrapped, ON, "tangent vector", move=lambda self, x: (
        boost(self.loc, x, self.R) * double(0, 1, 1))),
    "one coordinate NaN": mutant(
        Batch, ON, "NaN", support=dist.constraints.real, log_prob=lambda self, value: value.sum(-1),
        sample=lambda self, shape=(): Batch.sample(self, shape) * double(1, math.nan)),
    "sample_shape ignored": mutant(
        Batch, "shapes_broadcast", UNCLEAR, sample=lambda self, shape=(): Batch.sample(self)),
    "sample_shape ignored by rsample": mutant(
        Batch, "shapes_broadcast", UNCLEAR, rsample=lambda self, shape=(): Batch.sample(self)),
    "summed over the batch": mutant(Batch, "shapes_broadcast", "batch too", log_prob=lambda self, value: (
        Batch.log_prob(self, value).sum(-1))),
    "no empty batch": mutant(Batch, "shapes_broadcast", "empty", log_prob=lambda self, value: (
        Batch.log_prob(self, value) + 0 * value.reshape(len(value), -1)[0, 0])),
    "own draws score otherwise": mutant(
        Batch, "own_samples_score_as_stored_points", "cache", rsample=remembering, log_prob=own_draw_remembered),
    # Noise: all members obey their densities.
    "one draw for all members": mutant(
        Batch, NOISE, "expanded", noise=lambda self, shape: torch.randn(*shape[:-2], 1, 2).double().expand(shape)),
    "of rsample alone": mutant(Batch, NOISE, "expanded", rsample=narrow_rsample),
    "of sample alone": mutant(Batch, NOISE, "expanded", sample=narrow_rsample),
    "one coordinate shared": mutant(Batch, NOISE, "expanded", noise=first_and_last_share_a_coordinate),
    "distance shared": mutant(Batch, NOISE, UNCLEAR, noise=distance_shared),
    "half mirrored": mutant(Batch, NOISE, UNCLEAR, noise=half_mirrored),
    "one draw for all of sample_shape": mutant(Batch, NOISE, "sample_shape", noise=lambda self, shape: (
        torch.randn(shape[-2:]).double().expand(shape))),
    "draws mirrored": mutant(Batch, NOISE, "antithetic", noise=mirrored_draws),
    "draws of another dimension shared": mutant(Batch, NOISE, "expanded", noise=lambda self, shape: (
        torch.randn(shape[-3:]).double().expand(shape) if len(shape) > 3 else torch.randn(shape).double())),
    "one coordinate for all draws": mutant(Batch, NOISE, "sample_shape", noise=one_coordinate_for_all_draws),
    "draws repeated by halves": mutant(Batch, NOISE, "expanded", noise=by_halves),
    "draws repeated": mutant(Batch, NOISE, UNCLEAR, noise=repeated_draws),
    "expanded after it is drawn": mutant(Batch, NOISE, "expanded", expand=lambda self, shape, _instance=None: (
        Broadcast(self.loc.expand(*shape, 2), self.scale.expand(*shape, 2)))),
    # Arguments and contexts.
    "log-scale kept": mutant(Batch, ARGUMENTS, "parametrisation", init=lambda self, loc=None, scale=None: (
        Batch.__init__(self, loc, scale), setattr(self, "scale", self.scale.log()))[0]),
    "an argument that is no attribute": mutant(
        Batch, ARGUMENTS, "missing attribute", arg_constraints={"rate": dist.constraints.dependent},
        rate=property(lambda self: self.nothing)),
    "contexts averaged": mutant(ConditionalDilation, "conditioning_is_respected", "mixed", read=lambda self, c: (
        c + c.reshape(-1, 2).mean(0))),
    "context ignored": mutant(
        ConditionalDilation, "conditioning_is_respected", "not passed", read=lambda self, c: torch.zeros_like(c)),
}
# fmt: on


@pytest.mark.filterwarnings("ignore::pyro_hyperbolic.testing.NotChecked")  # a class made here cannot be pickled
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_is_found_and_named(name):
    kind, law, cause = MUTANTS[name]
    with pytest.raises(LawViolation) as caught:
        assert_laws(kind(), points(getattr(kind, "least_radius", 0.1)))
    assert caught.value.law == law
    assert re.search(cause, caught.value.cause)
    assert caught.value.expected != caught.value.found
    assert law != UNBIASED or not float(caught.value.found.split()[1]) < 5.5  # standard errors


@pytest.mark.filterwarnings("ignore::pyro_hyperbolic.testing.NotChecked")
@pytest.mark.parametrize(
    ("name", "whose", "number"),
    [
        ("distance shared", "batch members of sample()", "distance"),
        ("one coordinate shared", "batch members of sample()", "coordinate 0"),
        ("draws of another dimension shared", "draws of sample(sample_shape)", "coordinate"),
        ("draws repeated by halves", "draws of sample(sample_shape)", "coordinate 1"),
        ("of rsample alone", "batch members of rsample()", "coordinate"),
        ("expanded after it is drawn", "batch members of expand((3, 40)).sample()", "coordinate"),
    ],
)
def test_numbers_that_share_noise_are_named(name, whose, number):
    with pytest.raises(LawViolation) as caught:
        assert_laws(MUTANTS[name][0](), points(0.1))
    assert whose in caught.value.formula
    assert number in caught.value.found
    halves = name == "draws repeated by halves"  # which are 250 pairs, not 500
    below = float(re.search(r"below (.*)$", caught.value.expected)[1]) / (2**0.5 if halves else 1)
    assert 5 <= below * 499**0.5 <= 7  # standard errors
    assert ("draws 250 apart, batch member (2,)" in caught.value.at) == halves


#: Log-determinants of a dilation of H^3 by mistake: of the sum ``s`` of its log-scales, the log-volumes ``a`` at the
#: argument and ``b`` at the result, the same on the unit hyperboloid, and log R.
LOG_DETS = {
    "^the log-determinant is dropped": lambda s, a, b, a1, b1, log_r: 0 * b,
    "inverse map": lambda s, a, b, a1, b1, log_r: a - b - s,
    "^the log-determinant is counted twice": lambda s, a, b, a1, b1, log_r: 2 * (s + b - a),
    "Lebesgue": lambda s, a, b, a1, b1, log_r: s + 0 * b,
    "wrong sign of the volume terms": lambda s, a, b, a1, b1, log_r: s - b + a,
    "volume terms are counted twice": lambda s, a, b, a1, b1, log_r: s + 2 * (b - a),
    "n instead of n - 1": lambda s, a, b, a1, b1, log_r: s + 1.5 * (b - a),
    "n - 2 instead of n - 1": lambda s, a, b, a1, b1, log_r: s + 0.5 * (b - a),
    "result is dropped": lambda s, a, b, a1, b1, log_r: s - a,
    "argument is dropped": lambda s, a, b, a1, b1, log_r: s + b,
    "result has the wrong sign": lambda s, a, b, a1, b1, log_r: s - b - a,
    "argument has the wrong sign": lambda s, a, b, a1, b1, log_r: s + b + a,
    "radius is forgotten": lambda s, a, b, a1, b1, log_r: s + b1 - a1,
    r"by \(n - 1\) log R": lambda s, a, b, a1, b1, log_r: s + b - a + 2 * log_r,
    r"by -\(n - 1\) log R": lambda s, a, b, a1, b1, log_r: s + b - a - 2 * log_r,
    "by n log R": lambda s, a, b, a1, b1, log_r: s + b - a + 3 * log_r,
    "by -n log R": lambda s, a, b, a1, b1, log_r: s + b - a - 3 * log_r,
}


@pytest.mark.parametrize("cause", LOG_DETS)
def test_every_known_mistake_of_a_log_det_is_named(cause):
    class Wrong(Dilation):
        def log_abs_det_jacobian(self, x, y):
            v, w = log(x, self.R), log(y, self.R)
            volumes = volume(v, self.R), volume(w, self.R), volume(v, 1.0), volume(w, 1.0)
            return LOG_DETS[cause](self.log_scale.sum(), *volumes, math.log(self.R))

    with pytest.raises(LawViolation) as caught:
        map_laws.log_det_matches_autograd(Wrong(), exp(points(0.0), 2.0))
    assert re.search(cause, caught.value.cause)
    assert "unclear" not in caught.value.cause


def test_mistakes_that_are_the_same_are_named_together():
    """On H^2, Lebesgue measure lacks the only power of sinh r / r."""
    lebesgue = wrong(Dilation, log_abs_det_jacobian=lambda self, x, y: self.log_scale.sum().expand(len(x)))
    with pytest.raises(LawViolation) as caught:
        map_laws.log_det_matches_autograd(lebesgue(log_scale=(0.3, -0.5)), exp(points()[:, :2], 2.0))
    assert re.fullmatch(
        r"the chart's volume.*\(here the same as: off by one power of sinh r / r: n - 2.*\)", caught.value.cause
    )


def text_of(event):
    return f"x = ({', '.join(f'{number:.8g}' for number in event)})"


def test_the_failing_point_nearest_to_the_origin_is_named():
    def far(self, x, y):
        return Dilation.log_abs_det_jacobian(self, x, y) + 0.1 * (x[..., 0] > 9)

    x = exp(points(), 2.0).flip(0)
    with pytest.raises(LawViolation) as caught:
        map_laws.log_det_matches_autograd(wrong(Dilation, log_abs_det_jacobian=far)(), x)
    assert caught.value.at == text_of(min(event for event in x.tolist() if event[0] > 9))
    edited = wrong(Chart, _call=lambda self, v: exp(v.add_(v.norm(dim=-1, keepdim=True) > 3), self.R))
    with pytest.raises(LawViolation) as caught:
        object_laws.does_not_alias_its_input(edited(), points().flip(0))
    assert caught.value.at == text_of(next(v for v in points().tolist() if math.hypot(*v) > 3))
    with pytest.raises(LawViolation) as caught:  # the first event has the context of all
        assert_laws(MUTANTS["context ignored"][0]())
    assert caught.value.at == text_of(exp(points(), 2.0)[1].tolist())


@pytest.mark.parametrize(
    ("cause", "error", "number"),
    [
        ("constant factor, every log-determinant is off by 0.123", lambda r, right: torch.full_like(r, 0.123), 8),
        ("correct only at some points", lambda r, right: 0.123 * (r > r.median()), 8),
        ("no known mistake", lambda r, right: 0.1 + 0.02 * (5 * r).sin(), 8),
        ("cannot distinguish: the log-determinant is dropped.*; .*volume terms.*dropped", lambda r, right: -right, 3),
        ("three points", lambda r, right: -right, 2),
    ],
)
def test_what_is_known_of_other_mistakes_is_said(cause, error, number):
    class Wrong(Dilation):
        def log_abs_det_jacobian(self, x, y):
            right = Dilation.log_abs_det_jacobian(self, x, y)
            return right + error(log(x, self.R).norm(dim=-1), right)

    wrong = Wrong() if number > 3 else Wrong(log_scale=(0.3, -0.5, 0.2 + 1e-6))
    with pytest.raises(LawViolation) as caught:
        map_laws.log_det_matches_autograd(wrong, exp(points()[-number:], 2.0))
    assert re.search(f"unclear.*{cause}", caught.value.cause)


def test_the_gradient_that_is_not_finite_is_shown():
    class Wrong(Chart):
        def parameters(self):
            return [double(1.0).requires_grad_()]  # on which it does not depend

        _call = by_the_norm

    with pytest.raises(LawViolation) as caught:
        gradient_laws.gradients_are_finite(Wrong(), torch.zeros(3, 3, dtype=torch.float64))
    assert caught.value.at == "x = (0, 0, 0)"
    assert "nan" in caught.value.found


def test_a_weak_context_is_seen():
    class Weak(ConditionalDilation):
        def read(self, context):
            return 1e-3 * context

    two = exp(points()[:2], 2.0), torch.eye(2).double()
    ph.testing.conditioning_is_respected(Weak(), *two)


def test_a_large_batch_is_sampled_to_its_last_member():
    loc, scale = torch.zeros(700, 2, dtype=torch.float64), torch.ones(700, 2, dtype=torch.float64)
    noise.batch_members_have_own_noise(Batch(loc, scale))
    with pytest.raises(LawViolation, match=r"\(0,\), \(699,\)"):
        noise.batch_members_have_own_noise(MUTANTS["one coordinate shared"][0](loc, scale))
    with pytest.raises(LawViolation, match=NOISE):
        noise.batch_members_have_own_noise(wrong(Batch, noise=shared_by_neighbours)(loc, scale))
    with pytest.raises(LawViolation, match=r"\(0,\), \(1,\)"):
        noise.batch_members_have_own_noise(MUTANTS["one draw for all members"][0](loc[:2], scale[:2]))


@pytest.mark.parametrize("name", ["samples", "NaN samples"])
def test_samples_are_judged_by_the_accuracy_of_the_integrals(name):
    """Integrals off by 0.07 where they claim to be right to 0.03, and samples off by much more."""
    d = Wrapped()
    nodes = density_laws.Nodes.of(d, 150, 0)
    most, more, nodes = (nodes._replace(weights=c * nodes.weights, least_error=0.03) for c in (1.15, 1.2, 1.1))
    density_laws.samples_follow_the_density(d, num_samples=40_000, nodes=most)  # 3.9 errors in one of 48 waves
    with pytest.raises(LawViolation, match=FOLLOW):  # 5.2, where one wave in 50,000 / 48 is beyond 5.1
        density_laws.samples_follow_the_density(d, num_samples=40_000, nodes=more)
    spread = {"samples": lambda self: 1.5 * self.scale, "NaN samples": one_nan}[name]
    with pytest.raises(LawViolation, match=FOLLOW):
        density_laws.samples_follow_the_density(wrong(Wrapped, spread=spread)(), nodes=nodes)


def one_nan(self):
    scale = self.scale.repeat(10_000, 1)
    scale[-1, -1] = math.nan
    return scale


#: The curvature, dimension, mass and its error, and what the law says: nothing, that it cannot tell, or the cause.
MASSES = [
    (9.0, 2, 1.19, 0.039, ""),
    (9.0, 2, 0.81, 0.039, ""),
    (9.0, 2, 1.21, 0.039, "."),
    (9.0, 2, 0.5, 0.041, "not checked"),
    (9.0, 2, 0.5, 0.039, "."),
    (9.0, 2, 4.0, 0.159, "."),
    (9.0, 2, 4.0, 0.161, "not checked"),
    (9.0, 2, 1 / 3, 0.0, r"off by \(n - 1\) log R: a radius counted twice"),
    (9.0, 2, 9.0, 0.0, "off by n log R: units of the radius"),
    (9.0, 2, 2 * math.pi, 0.0, "off by n/2 log 2 pi: the normal's constant"),
    (9.0, 2, 2.0, 0.0, "a constant factor: off by log 2"),
    (9.0, 2, 0.25, 0.0, "a constant factor: off by n log 2"),
    (9.0, 2, 2 * math.exp(0.0028), 0.0, "a constant factor: off by log 2"),
    (9.0, 2, 2 * math.exp(0.0032), 0.0, "unclear: not by a known constant.*"),
    (1.0, 2, 1.002, 0.0, "unclear: not by a known constant.*"),
    (4.0, 1, 2.0, 0.0, "unclear: a constant factor: off by log 2; a.* n log 2; off by n log R: units of the radius"),
    (None, 2, 2.0, 0.0, "a constant factor: off by log 2"),
]


@pytest.mark.parametrize(("k", "dim", "mass", "error", "cause"), MASSES)
def test_a_mass_is_judged_by_its_error_and_named(k, dim, mass, error, cause):
    M = geoopt.Euclidean(1) if k is None else lorentz(k)
    d = hdist.WrappedNormal(G.origin(M, dim, dtype=torch.float64), torch.ones(dim).double(), M)
    nodes = density_laws.Nodes(d.loc, torch.full((4,), mass / 4).double(), d.loc, dim, 2, error)
    law = pytest.raises(LawViolation) if cause else contextlib.nullcontext()
    with pytest.warns(NotChecked) if cause == "not checked" else law as caught:
        ph.testing.total_mass_is_one(d, nodes=nodes)
    if cause not in ("", "not checked"):
        assert re.search(cause if cause == "." else f"^{cause}$", caught.value.cause)
        assert float(caught.value.found) == pytest.approx(mass, rel=1e-5)
        assert caught.value.expected == f"1, to {5 * max(error, 2e-4):.2g}"


@pytest.mark.parametrize("rate", [1e-3, 2e-5, 1e-9])
def test_quantiles_agree_with_scipy(rate):
    assert density_laws.normal_quantile(rate) == pytest.approx(stats.norm.isf(rate / 2))
    assert density_laws._student_quantile(rate, 49) == pytest.approx(stats.t.isf(rate / 2, 49), rel=1e-3)


@pytest.mark.parametrize("member", [1, 2])
def test_two_members_are_checked_or_all_if_thorough(member):
    class Wrong(Batch):
        def log_prob(self, value):
            return Batch.log_prob(self, value) + 0.1 * (torch.arange(self.batch_shape[-1]) == member)

    steps = torch.ones(3, 2).double()
    if member == 2:
        ph.testing.assert_distribution_laws(Wrong(steps, steps))
    with pytest.raises(LawViolation, match=f"{MASS}(.|\n)*member {member} of"):
        ph.testing.assert_distribution_laws(Wrong(steps, steps), thorough=member == 2)


# ---- Mistakes on manifolds of which the kit knows nothing but geoopt's metric ----


class KnownHalfSpace(HalfSpace):
    """One whose geometry says its curvature."""


class KnownHalfSpaceGeometry(HalfSpaceGeometry):
    def curvature(self):
        return -torch.ones(())


G.register(KnownHalfSpace, KnownHalfSpaceGeometry)
THIRD = {"half-space": HalfSpace, "matrices": geoopt.SymmetricPositiveDefinite, "known curvature": KnownHalfSpace}


def wrong(base, **methods):
    return type(f"Wrong{base.__name__}", (base,), methods)


def chart(log_det):
    return lambda M: wrong(HT.ExponentialMap, log_abs_det_jacobian=lambda self, v, x: log_det(G.log_volume(M, v)))(M)


def dilation(log_det):
    scale = double(1.5, 0.6, 0.8)

    def of(M, x, y):
        return log_det(scale.log().sum(), G.log_volume(M, G.log0(M, y)) - G.log_volume(M, G.log0(M, x)))

    layer = wrong(HT.TangentTransform, log_abs_det_jacobian=lambda self, x, y: of(self.manifold, x, y))
    return lambda M: layer(T.AffineTransform(0.0, scale, event_dim=1), M)


def normal(**methods):
    kind = wrong(hdist.WrappedNormal, **methods)
    return lambda M: kind(G.exp0(M, double(0.8, 0.2, -0.5)), double(0.7, 0.5, 0.4), M)


#: Mistakes that are named only where the curvature is known.
CURVED = ("volumes dropped", "density twice")
THIRD_MUTANTS = {  # what is made on a manifold, the law, and the cause
    "volume dropped": (chart(lambda volume: 0 * volume), LOG_DET, "dropped"),
    "volume twice": (chart(lambda volume: 2 * volume), LOG_DET, "twice"),
    "volumes dropped": (dilation(lambda scale, stretch: scale + 0 * stretch), LOG_DET, "Lebesgue"),
    "log-det of the inverse": (dilation(lambda scale, stretch: -scale - stretch), LOG_DET, "inverse map"),
    "density twice": (
        normal(log_prob=lambda self, x: hdist.WrappedNormal.log_prob(self, x) + math.log(2)),
        MASS,
        "log 2",
    ),
    "samples wider": (
        normal(rsample=lambda self, n=(): hdist.WrappedNormal(self.loc, 1.4 * self.scale, self.manifold).rsample(n)),
        FOLLOW,
        UNCLEAR,
    ),
}


@pytest.mark.parametrize("space", THIRD)
@pytest.mark.parametrize("name", THIRD_MUTANTS)
def test_a_mistake_on_a_third_manifold_is_found_and_no_curvature_is_guessed(name, space):
    (make, law, cause), M = THIRD_MUTANTS[name], THIRD[space]()
    with pytest.raises(LawViolation) as caught:
        assert_laws(make(M), points() / 2.4)
    assert caught.value.law == law
    assert re.search(cause if space == "known curvature" or name not in CURVED else UNCLEAR, caught.value.cause)
    assert space == "known curvature" or "volume" not in caught.value.cause


# ---- Correct objects pass ----


@pytest.mark.parametrize(
    "kind", [Chart, Dilation, Boost, Scaling, TangentStretch, Wrapped, Batch, ConditionalDilation], ids=str
)
def test_a_textbook_class_passes(kind):
    assert_laws(kind())


class GeooptChart(Chart):
    """What a user of geoopt writes."""

    def _call(self, v):
        return self.codomain.manifold.expmap0(torch.cat([torch.zeros_like(v[..., :1]), v], -1))

    def _inverse(self, x):
        return self.codomain.manifold.logmap0(x)[..., 1:].clone()


class WithoutCache(Scaling):
    with_cache = torch.distributions.Transform.with_cache  # optional in torch


def affine():
    return T.AffineTransform(torch.tensor([1.0, -2.0, 0.5]), torch.tensor([2.0, 0.5, 1.5]), event_dim=1)


def permute():
    # Without a cache, whose graph makes it impossible to copy.
    return T.Permute(torch.tensor([2, 0, 1]), cache_size=0)


CORRECT = {
    "lifted affine": lambda: HT.TangentTransform(affine(), M4),
    "lifted permutation": lambda: HT.TangentTransform(permute(), M4),
    "lifted coupling": lambda: HT.TangentTransform(T.affine_coupling(3, [8]), M4),
    "lifted autoregressive": lambda: HT.TangentTransform(T.affine_autoregressive(3, [8]), M4),
    "lifted spline": lambda: HT.TangentTransform(T.spline_coupling(3, 1, [8], count_bins=4), M4),
    "lifted householder": lambda: HT.TangentTransform(T.householder(3, 2), M4),
    "geoopt's chart": GeooptChart,
    "affine": affine,
    "permutation": permute,
    "stack": lambda: T.ComposeTransform([affine(), permute()]),
    "of numbers": T.TanhTransform,
    "with a kink": T.LeakyReLUTransform,
    "affine of numbers": lambda: T.AffineTransform(0.5, torch.tensor([2.0, 0.5, 1.5])),
    "without with_cache": lambda: WithoutCache(),
    "with a parameter": lambda: T.AffineTransform(torch.nn.Parameter(torch.zeros(3)), 2.0, event_dim=1),
}
LIBRARY = {case.name: case.make for case in TRANSFORMS}
DIMS = {case.name: case.dim for case in TRANSFORMS}
BASES = {case.name: base_on(case.manifold, case.dim) for case in UNCHARTED_FLOWS}


def assert_correct(name, seed, dtype):
    """All laws of a correct transform, with parameters and points that depend on the seed."""
    with default_dtype(dtype):
        torch.manual_seed(seed)
        transform = object_laws._cast((CORRECT | LIBRARY)[name](), dtype)
        for value in getattr(transform, "parameters", list)():
            value.data += 0.1 * torch.randn_like(value)
        if name in BASES:
            ph.testing.assert_transform_laws(transform, BASES[name].sample((6,)).to(dtype))
            return
        v = torch.randn(6, DIMS.get(name, 3), dtype=dtype)
        radii = torch.linspace(0.1, 1 + seed % 3 / 2, 6, dtype=dtype)[:, None]
        assert_laws(transform, radii * v / v.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize(("seed", "name"), list(enumerate(CORRECT)), ids=list(CORRECT))
def test_a_correct_transform_passes(seed, name):
    assert_correct(name, seed, DTYPES[seed % 2])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("seed", range(200))
def test_no_false_alarm(seed, dtype):
    for name in list(CORRECT | LIBRARY)[seed % 8 :: 8]:
        assert_correct(name, 100 + seed, dtype)


def test_every_distribution_of_torch_and_pyro_is_tried_or_excused():
    classes = {
        name
        for module in (torch.distributions, dist)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, torch.distributions.Distribution)
    }
    excused = {name for names in NOT_EUCLIDEAN.values() for name in names.split()}
    assert classes - excused - set(euclidean(torch.float64)) == set()
    assert not excused & set(euclidean(torch.float64))


@pytest.mark.parametrize(("seed", "name"), [*enumerate(euclidean(torch.float64))], ids=[*euclidean(torch.float64)])
def test_a_distribution_of_torch_or_pyro_passes(seed, name):
    """As it is, and one of four pushed to the hyperboloid; in either precision."""
    dtype = DTYPES[seed % 2]
    with default_dtype(dtype):
        d = euclidean(dtype)[name]()
        if seed % 8 < 2:
            M = geoopt.Lorentz(torch.tensor(4.0, dtype=dtype))
            loc = G.exp0(M, torch.linspace(1.0, -0.5, d.event_shape[0], dtype=dtype))
            d = dist.TransformedDistribution(d, [HT.ExponentialMap(M, loc)])
        ph.testing.assert_distribution_laws(d)


def wrapped(v, M=M4):
    return hdist.WrappedNormal(G.exp0(M, v), double(0.7, 0.4).to(v).requires_grad_(), M)


BATCHES = {
    "float32": lambda: wrapped(POINTS[0].float(), geoopt.Lorentz(4.0)),
    "batch of k": lambda: wrapped(POINTS[:2], geoopt.Lorentz(double(1.0, 4.0))),
    "expanded batch": lambda: wrapped(POINTS).expand([1, 3]),
    "product of a batch of k": lambda: wrapped(
        POINTS[:2], geoopt.ProductManifold((geoopt.Lorentz(double(1.0, 4.0)), 2), (geoopt.Euclidean(1), 1))
    ),
    "mixture": lambda: dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), wrapped(POINTS)),
    "batched loc over an unbatched base": lambda: dist.TransformedDistribution(
        dist.Normal(POINTS[0], 0.5).to_event(1), [HT.ExponentialMap(M4, G.exp0(M4, POINTS))]
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_correct_batch_or_mixture_passes(name):
    ph.testing.assert_distribution_laws(BATCHES[name]())


# ---- What cannot be checked, and what is refused ----


@pytest.mark.parametrize("log_density", [-math.inf, math.nan, math.inf])
def test_a_mass_that_is_no_positive_number_is_named(log_density):
    broken = wrong(Wrapped, log_prob=lambda self, x: 0 * x[..., 0] + log_density)()
    with pytest.raises(LawViolation, match="NaN or infinity in log_prob"):
        ph.testing.total_mass_is_one(broken)


def test_the_last_digit_of_a_score_that_is_large_or_far_out_is_no_mistake():
    """Two ways to the same score, of 1e10: it has eleven digits before the comma, so the paths differ by 1e-5."""
    large = wrong(Wrapped, log_prob=lambda self, x: Wrapped.log_prob(self, x) + 1e10 + 1e-5 * x.requires_grad)()
    ph.testing.own_samples_score_as_stored_points(large)
    ph.testing.own_samples_score_as_stored_points(wrapped(20 * POINTS[0]))  # far out, a point has fewer digits


def test_a_kink_nearby_is_no_mistake():
    x, leaky = points(), torch.distributions.transforms.IndependentTransform(T.LeakyReLUTransform(), 1)
    x[:, 0] = 1e-6
    gradient_laws.gradients_match_differences(leaky, x)


def test_a_mass_that_is_not_known_is_said():
    """The ridges of a product of two Cauchy densities reach to infinity along the axes."""
    with pytest.warns(NotChecked) as warned:
        ph.testing.assert_distribution_laws(dist.Cauchy(torch.zeros(2), 1.0).to_event(1))
    assert {str(warning.message).split()[0] for warning in warned} == {MASS, FOLLOW}
    errors = {re.search(r"known only to (\S+)", str(warning.message))[1] for warning in warned}
    assert len(errors) == 1
    assert float(errors.pop()) > 0.2


class ByFunction(Scaling):
    """Its scale is a function, which may close over tensors that no cast or copy reaches."""

    def __init__(self, log_scale, cache_size=0):
        super().__init__(cache_size)
        del self.log_scale
        self.log_scale_of = log_scale

    def __getattr__(self, name):
        return self.log_scale_of() if name == "log_scale" else super().__getattr__(name)

    def with_cache(self, cache_size=1):
        return type(self)(self.log_scale_of, cache_size)


class Locked(Scaling):
    """It holds a lock, as a logger or a data loader does, and can neither be pickled nor deep-copied."""

    def __init__(self, cache_size=0):
        super().__init__(cache_size)
        self.lock = threading.Lock()


LEAF = torch.tensor([0.3, -0.5, 0.4], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    ("make", "unchecked", "dtype"),
    [
        (lambda: ByFunction(lambda: LEAF), ["pickle", "float32_agrees"], torch.float64),
        (Locked, ["copy.deepcopy", "pickle", "cache_survives", "float32_agrees"], torch.float64),
        (lambda: Locked().float(), ["copy.deepcopy", "pickle", "cache_survives", "float32_agrees"], torch.float32),
    ],
)
def test_a_correct_transform_that_cannot_be_copied_passes_with_a_warning(make, unchecked, dtype):
    before = LEAF.detach().clone()
    with pytest.warns(NotChecked) as warned:
        assert_laws(make(), points().to(dtype))
    assert len(warned) == len(unchecked)
    assert all(word in str(warning.message) for word, warning in zip(unchecked, warned, strict=True))
    assert torch.equal(LEAF, before)


@pytest.mark.filterwarnings("ignore::pyro_hyperbolic.testing.NotChecked")
@pytest.mark.parametrize(
    ("wrong", "law"), [({"_call": kept}, COPIES), ({"__getstate__": stale}, "cache_survives_an_optimiser_step")]
)
def test_mistakes_are_found_in_leaves_that_are_not_registered(wrong, law):
    kind = type("WrongByFunction", (ByFunction,), wrong)
    with pytest.raises(LawViolation) as caught:
        assert_laws(kind(lambda: LEAF, 1 if "cache" in law else 0))
    assert caught.value.law == law


SPHERE = hdist.constraints.on_manifold(geoopt.Sphere())
REFUSED = {  # and at which points, if those are to blame
    "no points": (Chart(), r"\(0, 3\).*give 8", points()[:0]),
    "NaN among the points": (Chart(), r"geometry\.exp0", points().where(points() > -1, math.nan)),
    "points off the sphere": (wrong(T.ExpTransform, domain=SPHERE, codomain=SPHERE)(), r"geometry\.project", points()),
    "no support": (wrong(Wrapped, support=torch.distributions.Distribution.support)(), "no support.*define"),
    "no members": (dist.Normal(POINTS[:0], 1.0).to_event(1), r"\(0,\).*batch of two"),
    "a number": (dist.Normal(0.0, 1.0), "call .to_event"),
    "a matrix": (dist.Normal(torch.zeros(3, 2), 1.0).to_event(2), "before .to_event"),
    "positive numbers": (dist.Gamma(torch.ones(2), 1.0).to_event(1), "biject_to"),
    "a batch of transforms": (HT.Translation(M4, G.exp0(M4, POINTS)), r"\(3,\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_laws_is_refused_with_the_remedy(name):
    value, remedy, *x = REFUSED[name]
    with pytest.raises(ValueError, match=remedy):
        ph.testing.assert_transform_laws(value, *x) if x else assert_laws(value, POINTS)


class OnUnknown(dist.constraints.Constraint):
    """A user's own constraint of a manifold for which no geometry is registered."""

    is_discrete, event_dim, manifold = False, 1, geoopt.BirkhoffPolytope()

    def check(self, value):
        return value[..., -1] > 0


def test_a_manifold_without_a_geometry_is_refused_by_name():
    unknown = T.ExpTransform()
    unknown.domain = unknown.codomain = OnUnknown()
    with pytest.raises(TypeError, match="BirkhoffPolytope"):
        ph.testing.assert_transform_laws(unknown, torch.ones(8, 3))
    with pytest.raises(TypeError, match="Simplex"):
        ph.testing.assert_transform_laws(T.StickBreakingTransform(), torch.randn(8, 3))


def failing(method, when):
    def own(self, value, *args):
        return 1 / 0 if when(value) else method(self, value, *args)

    return own


FAILING = {
    "a batch of points": wrong(Dilation, _call=failing(Dilation._call, lambda x: x.dim() > 1)),
    "draws": wrong(Batch, log_prob=failing(Batch.log_prob, lambda x: x.dim() == 3)),
    "draws in two dimensions": wrong(Batch, log_prob=failing(Batch.log_prob, lambda x: x.dim() == 4)),
    "expand": wrong(Batch, expand=failing(Batch.expand, lambda shape: True)),
}


@pytest.mark.parametrize("name", FAILING)
def test_an_error_of_the_users_own_code_is_passed_on(name):
    with pytest.raises(ZeroDivisionError):
        assert_laws(FAILING[name]())


@pytest.mark.parametrize("expand", [Batch.__mro__[2].expand, lambda self, shape: dist.Normal(0.0, -1.0).expand(shape)])
def test_what_a_library_cannot_expand_need_not_be(expand):
    noise.batch_members_have_own_noise(wrong(Batch, expand=expand)())


def test_no_arguments_need_be_declared():
    undeclared = wrong(Wrapped, arg_constraints=torch.distributions.Distribution.arg_constraints)
    object_laws.arguments_satisfy_their_constraints(undeclared())


# ---- Single laws ----


@pytest.mark.parametrize("digit", [1e-3, 1e-12, 3e-16])
def test_two_numbers_that_differ_are_printed_so(digit):
    one = double(1.0, 2.0)[None]
    agreement.vectors_agree("law", "formula", 1e6 * one, 1e6 * (one + 1e-10), one, 1e-9)  # large numbers have fewer
    with pytest.raises(LawViolation) as caught:
        agreement.vectors_agree("law", "formula", one, one * (1 + digit), one, 1e-17)
    assert caught.value.expected != caught.value.found
    assert "1" in caught.value.expected


@pytest.mark.parametrize("found", [math.nan, math.inf, 1.0])
@pytest.mark.parametrize("expected", [math.nan, math.inf])
def test_numbers_that_are_not_finite_never_agree(expected, found):
    one, other = torch.tensor([[1.0, expected]]), torch.tensor([[1.0, found]])
    with pytest.raises(LawViolation) as caught:
        agreement.vectors_agree("law", "formula", one, other, one, 1.0)
    assert caught.value.expected != caught.value.found == f"(1, {found:g})"


def test_an_infinite_score_agrees_with_none():
    infinite = torch.where(torch.arange(20) == 3, math.inf, 0.0)

    class Wrong(Wrapped):
        def log_prob(self, value):
            return Wrapped.log_prob(self, value) - (0.0 if value.requires_grad else infinite)

    with pytest.raises(LawViolation, match="own_samples_score_as_stored_points") as caught:
        ph.testing.own_samples_score_as_stored_points(Wrong())
    assert caught.value.expected == "-inf"
    assert math.isfinite(float(caught.value.found))


@pytest.mark.parametrize("found", [True, False])
def test_a_constraint_that_cannot_tell_is_refused(found):
    class Blind(type(hdist.constraints.on_manifold(M4))):
        def check(self, value):
            return torch.full(value.shape[:-1], found) & value.isfinite().all(-1)

    x = G.exp0(M4, torch.randn(5, 2).double())
    with pytest.raises(LawViolation, match="outside" if found else "inside") as caught:
        ph.testing.assert_constraint_laws(Blind(M4), x, 1.01 * x)
    assert (caught.value.expected, caught.value.found) == (str(not found), str(found))
    assert caught.value.at == str((1.01 * x if found else x)[0].tolist())


@pytest.mark.parametrize(
    ("check", "cause"),
    [
        (lambda self, value, inside: inside.all(), "one boolean for the whole batch"),
        (lambda self, value, inside: inside.unsqueeze(-1).expand_as(value), "one for each coordinate"),
        (lambda self, value, inside: inside | value.isnan().any(-1), "NaN"),
    ],
)
def test_a_check_of_another_shape_or_that_passes_nan_is_named(check, cause):
    on = hdist.constraints.on_manifold(M4)
    kind = wrong(type(on), check=lambda self, value: check(self, value, on.check(value)))
    x = G.exp0(M4, torch.randn(5, 2).double())
    with pytest.raises(LawViolation, match=cause):
        ph.testing.assert_constraint_laws(kind(M4), x, 1.01 * x)


@pytest.mark.filterwarnings("ignore::pyro_hyperbolic.testing.NotChecked")
@pytest.mark.parametrize(("least", "most"), [(0.04, 0.09), (5.9, 6.1), (3.001, 3.01)])
def test_a_thorough_check_finds_what_shows_nearer_and_farther_and_at_more_points(least, most):
    class Wrong(Chart):
        def log_abs_det_jacobian(self, v, x):
            r = v.norm(dim=-1) / self.R
            return volume(v, self.R) + 1e-3 * ((r > least) & (r < most))

    v = torch.cat([points(), 3.005 / 3 * points()[-1:]])
    ph.testing.assert_transform_laws(Wrong(), v)
    with pytest.raises(LawViolation, match=LOG_DET):
        ph.testing.assert_transform_laws(Wrong(), v, thorough=True)


def test_an_inverse_off_the_manifold_is_named():
    off = wrong(Dilation, _inverse=lambda self, y: 1.1 * Dilation._inverse(self, y))
    with pytest.raises(LawViolation, match="leaves the domain"):
        map_laws.round_trip(off(), exp(points(), 2.0))
    stretched = wrong(Scaling, _inverse=lambda self, y: (1 + 1e-6) * Scaling._inverse(self, y))
    with pytest.raises(LawViolation, match="round_trip"):  # rounding does not grow in flat space
        map_laws.round_trip(stretched(), 40 * points())
    doubled = wrong(Chart, _call=lambda self, v: exp(2 * v, self.R))
    with pytest.raises(LawViolation, match="another map"):
        map_laws.round_trip(doubled().inv, exp(points(), 2.0))


@pytest.mark.parametrize("manifold", [geoopt.Sphere(), ph.manifolds.Rotations()], ids=str)
def test_a_constraint_without_a_bijection_passes(manifold):
    x = hdist.Uniform(manifold, 3, dtype=torch.float64).sample((5,))
    ph.testing.assert_constraint_laws(hdist.constraints.on_manifold(manifold), x, 1.01 * x)


def test_a_transform_to_the_whole_of_which_the_constraint_is_a_part_is_refused():
    class Cap(type(hdist.constraints.on_manifold(geoopt.Sphere()))):
        def check(self, value):
            return super().check(value) & (value[..., -1] > 0.99)

    pole, whole = double(0, 0, 1)[None], torch.distributions.transform_to
    whole.register(Cap, lambda part: whole(hdist.constraints.on_manifold(part.manifold)))
    with pytest.raises(LawViolation, match="stays_on_manifold") as caught:
        ph.testing.assert_constraint_laws(Cap(geoopt.Sphere()), pole, -pole)
    assert float(caught.value.found.strip("()").split(", ")[-1]) <= 0.99  # a point outside the cap


@pytest.mark.parametrize(
    ("matrix", "broken"),
    [
        ((1.0, 0.5 + 1e-16, 0.5, 1.0), False),
        ((1.0, 0.501, 0.5, 1.0), True),
        ((1.69e6, 3.9e5, 3.9e5, 9e4), False),
        ((1.0, 1.01, 1.01, 1.0), True),
        ((-1.0, 0.0, 0.0, -1.0), True),
    ],
)
def test_a_matrix_is_positive_definite_up_to_rounding(matrix, broken):
    class Given(hdist.WrappedMultivariateNormal):
        @property
        def covariance_matrix(self):
            return double(*matrix).view(2, 2)

    d = Given(G.origin(M4, 2), scale_tril=double(1.0, 0.0, 0.3, 0.7).view(2, 2), manifold=M4)
    with pytest.raises(LawViolation, match="covariance_matrix") if broken else contextlib.nullcontext():
        object_laws.arguments_satisfy_their_constraints(d)


def test_the_member_whose_draws_are_equal_is_named():
    class Stuck(Batch):
        def noise(self, shape):
            draws = super().noise(shape)
            draws[..., (2, 5), 1] = 0.0
            return draws

    with pytest.raises(LawViolation, match=r"\(2,\)"):
        noise.batch_members_have_own_noise(Stuck())


# ---- Strategies ----

SEARCH = settings(max_examples=1000, database=None, derandomize=True, phases=[Phase.generate])


@pytest.mark.parametrize("radius", [0.0, 1e-8, 10.0])
def test_points_appear_at_the_radii_where_formulas_fail(radius):
    def there(x):
        r = float(x[1:].norm()) / 2
        return abs(r - math.sinh(radius)) <= 1e-9 * math.sinh(radius) and bool((x[1:] <= 0).all())

    assert G.contains(M4, find(strategies.points(M4, dim=2), there, settings=SEARCH))


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["coincident", "antipodal"])
@pytest.mark.parametrize("apart", [0.0, 1e-8])
def test_pairs_that_formulas_fail_on_appear(sign, apart):
    def related(pair):
        one, difference = float(pair[0][1:].norm()), float((pair[1][1:] - sign * pair[0][1:]).norm())
        return one > 1 and 0.01 * apart * one <= difference <= 100 * apart * one

    find(strategies.point_pairs(M4, dim=2), related, settings=SEARCH)


UNCHARTED = (geoopt.Sphere(), ph.manifolds.Torus(2), ph.manifolds.Rotations())
APART = [(M, apart) for M in UNCHARTED for apart in (1e-8, math.pi)]


@pytest.mark.parametrize(("manifold", "apart"), [*APART, (geoopt.Sphere(), math.pi * (1 - 1e-4))], ids=str)
def test_pairs_without_a_chart_coincide_or_lie_at_the_cut_locus(manifold, apart):
    dim = 3 if manifold.ndim == 2 else 2

    def related(pair):
        found = float(G.distance(manifold, *pair))
        return found >= apart * (1 - 1e-8) if apart == math.pi else abs(found - apart) <= 1e-6 * apart

    assert G.contains(manifold, find(strategies.point_pairs(manifold, dim=dim), related, settings=SEARCH)[1])


def test_points_of_a_product_appear_at_its_origins_and_axes():
    M = geoopt.ProductManifold((geoopt.Sphere(), 3), (M4, 3), (ph.manifolds.Rotations(), (3, 3)))
    special = torch.cat([double(1, 0, 0, 2, 0, 0), torch.eye(3).double().flatten()])
    find(strategies.points(M, dim=7), lambda x: torch.allclose(x, special, atol=1e-12), settings=SEARCH)


def test_examples_shrink_to_round_numbers():
    shrink = settings(SEARCH, phases=[Phase.generate, Phase.shrink])
    assert find(strategies.manifolds(min_k=0.5), lambda M: hasattr(M, "k"), settings=shrink).k == 1
    v = strategies.tangent_vectors(M4, dim=2)
    assert find(v, lambda v: True, settings=shrink).tolist() == [0, 0]
    assert find(v, lambda v: v.norm() > 0.1, settings=shrink).tolist() == [2, 0]
    find(v, lambda v: v.max() < -0.1, settings=SEARCH)
    assert find(strategies.scales(dim=2), lambda scale: True, settings=shrink).tolist() == [1, 1]


@pytest.mark.parametrize("kind", [HT.Translation, HT.TangentTransform, HT.Coupling, ph.flows.CouplingFlow])
def test_every_kind_of_transform_appears(kind):
    find(strategies.transforms(M4, dim=2), lambda transform: isinstance(transform, kind), settings=SEARCH)


@pytest.mark.parametrize(("least", "most"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan, 1.0)])
def test_a_range_of_curvatures_that_is_none_is_refused(least, most):
    with pytest.raises(ValueError, match=f"min_k = {least} and max_k = {most}"):
        strategies.manifolds(min_k=least, max_k=most)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data(), dtype=st.sampled_from(DTYPES))
def test_what_is_generated_is_in_its_range(data, dtype):
    M = data.draw(strategies.manifolds(min_k=2.0, max_k=3.0, dtype=dtype))
    k = float(getattr(M, "k", 1.0))
    assert k == 1 if isinstance(M, geoopt.Euclidean) else 2 <= k <= 3
    v = data.draw(strategies.tangent_vectors(M, dim=2, max_radius=0.5, batch_shape=(2, 3), dtype=dtype))
    assert v.shape == (2, 3, 2)
    assert v.norm(dim=-1).max() <= 0.5001 * k**0.5
    assert data.draw(strategies.tangent_vectors(M, dim=2, batch_shape=(0,), dtype=dtype)).shape == (0, 2)
    d = data.draw(strategies.wrapped_normals(M, dim=3, max_radius=0.5, min_scale=2.0, max_scale=3.0, dtype=dtype))
    assert G.distance(M, d.loc, G.origin(M, 3, dtype=dtype)) <= 0.5001 * k**0.5
    widths = d.scale if isinstance(d, hdist.WrappedNormal) else d.scale_tril.diagonal()
    assert ((widths >= 2) & (widths <= 3)).all()
    assert v.dtype == d.loc.dtype == widths.dtype == dtype
    origin, t = G.origin(M, 1, dtype=dtype), data.draw(strategies.transforms(M, dim=1, max_radius=0.5, dtype=dtype))
    assert G.distance(M, t(origin), origin) <= 0.5001 * k**0.5


@settings(max_examples=3, deadline=None, derandomize=True)
@given(data=st.data())
def test_what_is_generated_obeys_its_laws(data):
    M = data.draw(strategies.manifolds())
    dim = data.draw(st.integers(1, 3))
    x = data.draw(strategies.points(M, dim=dim, max_radius=2.0, batch_shape=(4,)))
    ph.testing.assert_transform_laws(data.draw(strategies.transforms(M, dim=dim, max_radius=2.0)), x)
    d = data.draw(strategies.wrapped_normals(M, dim=dim, max_radius=2.0, min_scale=0.1, max_scale=1.0))
    ph.testing.assert_distribution_laws(d)


def test_at_half_the_length_every_pair_of_draws_counts_twice():
    half = torch.randn(1, 32, dtype=torch.float64)
    row = torch.cat([half, half], -1)
    row = row - row.mean()
    found = noise._between_draws(row / row.norm())
    assert found.where == (0, 32)
    assert found.errors == pytest.approx((63 / 2) ** 0.5)


def test_nan_in_a_batch_is_not_the_zero_of_a_single_point():
    def log_det(self, x, y):
        return x.new_full(x.shape[:-1], math.nan if len(x) > 1 and x.dim() > 1 else 0.0)

    isometry = wrong(Boost, log_abs_det_jacobian=log_det)()
    with pytest.raises(LawViolation) as caught:
        map_laws.batch_members_are_independent(isometry, exp(points(), 2.0))
    assert caught.value.law == "batch_members_are_independent"
    assert "nan" in caught.value.found
