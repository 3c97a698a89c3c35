"""Every law over every named case: style.md's rule that tests are laws over tables."""

import inspect

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic.testing import density_laws, map_laws, suites
from tests.cases import (
    AUTOMORPHISMS,
    DISTRIBUTIONS,
    MANIFOLDS,
    TRANSFORMS,
    UNCHARTED,
    base_on,
    continuous,
    lorentz,
    points,
)

# Pyro's autoregressive inverse makes tensors of the default dtype.
pytestmark = pytest.mark.usefixtures("float64")


# Networks far from the origin put out large scales, and a stack of them leaves the range of float64, with an error.
SINGLE = [case for case in AUTOMORPHISMS if "flow" not in case.name and "unbounded" not in case.name]


@pytest.mark.parametrize("case", TRANSFORMS, ids=lambda case: case.name)
def test_transform_laws(case):
    suites.assert_transform_laws(case.make(), points(case))


@pytest.mark.parametrize("case", AUTOMORPHISMS, ids=lambda case: case.name)
def test_log_det_far_out(case):
    """At r = 5, where a lost e^{2r} would show; the tolerance of the laws grows with the radius they are given."""
    map_laws.log_det_matches_autograd(case.make(), points(case, radius=5.0, number=3))


@pytest.mark.parametrize("case", SINGLE, ids=lambda case: case.name)
def test_round_trip_at_r_15(case):
    map_laws.round_trip(case.make(), points(case, radius=15.0))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*UNCHARTED, "h2", "h3", "h2xh2xr"])
def test_continuous_flow_laws(name):
    """With the default field on every kind of manifold, and its density: 10 to 60 seconds each."""
    make, n = {**UNCHARTED, **MANIFOLDS, "h2": (lambda: lorentz(4.0), 2), "h3": (lorentz, 3)}[name]
    M = make()
    flow, base = continuous(M, n, num_anchors=4, steps=3), base_on(M, n)
    suites.assert_transform_laws(flow, base.sample((8,)))
    density_laws.total_mass_is_one(dist.TransformedDistribution(base, [flow]))


@pytest.mark.parametrize("case", DISTRIBUTIONS, ids=lambda case: case.name)
def test_distribution_laws(case):
    suites.assert_distribution_laws(case.make())


# Batches of every rank: what holds of a batch (2, 3) holds of its members, alone or in a row.

PARTS = [(1, 2), 0, (slice(1, 2), slice(2, 3))]  # of rank 0, 1 and 2


@pytest.mark.parametrize("case", TRANSFORMS, ids=lambda case: case.name)
def test_points_are_mapped_alike_in_batches_of_every_rank(case):
    t, x = case.make(), points(case)
    x = x[torch.arange(6) % len(x)].unflatten(0, (2, 3))

    @torch.no_grad()
    def call(x):
        y = t(x)
        return y, t.log_abs_det_jacobian(x, y).expand(y.shape[: y.dim() - t.codomain.event_dim]), t.inv(y.clone())

    batch = call(x)
    for at in PARTS:
        for one, many in zip(call(x[at].clone()), batch, strict=True):
            torch.testing.assert_close(one, many[at], rtol=1e-8, atol=1e-8)


def with_many_arguments(d, at=...):
    """Laws like ``d`` of arguments (2, 3) of their own, or those of some of them."""
    if isinstance(d, hdist.ProductDistribution):
        return hdist.ProductDistribution(d.manifold, [with_many_arguments(factor, at) for factor in d.factors])
    if type(d) is dist.TransformedDistribution:
        return dist.TransformedDistribution(with_many_arguments(d.base_dist, at), d.transforms)
    if isinstance(d, hdist.Uniform):
        return d.expand(torch.empty(2, 3)[at].shape)
    names, arguments = inspect.signature(type(d)).parameters, {}
    for name in ("loc", "scale", "scale_tril", "concentration", "radius"):
        if name in names:
            value, event = getattr(d, name), d.event_dim if name == "loc" else d.arg_constraints[name].event_dim
            many = d.sample((6,)) if name == "loc" else torch.linspace(0.6, 1.4, 6).view(6, *value.dim() * [1]) * value
            arguments[name] = many.reshape(2, 3, -1, *value.shape[value.dim() - event :])[:, :, -1][at]
    return type(d)(**arguments, **({"manifold": d.manifold} if "manifold" in names else {}))


@pytest.mark.parametrize("case", DISTRIBUTIONS, ids=lambda case: case.name)
def test_laws_are_alike_in_batches_of_every_rank(case):
    def law(at=...):
        pyro.set_rng_seed(0)
        return with_many_arguments(case.make(), at)

    def features(d, x):
        found = [d.log_prob(x)]
        for name in ("mean", "mode", "entropy"):
            try:
                value = getattr(d, name)
                found.append(value() if callable(value) else value)
            except NotImplementedError:
                pass
        return found

    many = law()
    assert many.batch_shape == (2, 3)
    x = many.sample().clone()
    batch, of_one_point = features(many, x), many.log_prob(x[1, 1].clone())
    for at in PARTS:
        one = law(at)
        for found, expected in zip(features(one, x[at].clone()), batch, strict=True):
            torch.testing.assert_close(found, expected[at], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(one.log_prob(x[1, 1].clone()), of_one_point[at], rtol=1e-9, atol=1e-9)
        if one.batch_shape != (3,):
            torch.testing.assert_close(one.log_prob(x)[at], batch[0][at], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", UNCHARTED)
def test_projections_are_alike_in_batches_of_every_rank(name):
    make, n = UNCHARTED[name]
    M = make()
    t, y = HT.Projection(M), base_on(M, n).sample((2, 3))
    x = t.inv(y) + 0.1
    assert (t.forward_shape(x.shape), t.inverse_shape(y.shape)) == (y.shape, x.shape)
    for at in PARTS:
        torch.testing.assert_close(t(x[at]), t(x)[at], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(t.inv(y[at]), t.inv(y)[at], rtol=1e-9, atol=1e-9)
    assert t(x) is not t(x)
    cached = t.with_cache()
    assert cached(x) is cached(x)
