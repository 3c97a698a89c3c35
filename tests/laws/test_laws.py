"""Every law over every named case: style.md's rule that tests are laws over tables."""

import pyro.distributions as dist
import pytest

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
