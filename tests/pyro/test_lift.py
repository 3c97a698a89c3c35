"""LiftReparam: the density and the draws of lifted latents, and the kinds of sites it changes or leaves."""

import math

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import InitMessenger, init_to_value

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from tests.cases import TEST_FAILURE_RATE, lorentz, point
from tests.pyro.inference_checks import mean_is
from tests.pyro.inference_truth import log_joint

pytestmark = pytest.mark.usefixtures("float64")

G = ph.geometry
SPHERE, TORUS, ROTATIONS = geoopt.Sphere(), ph.manifolds.Torus(2), ph.manifolds.Rotations()
#: The number and size of the vectors above a point.
SHAPES = {"s1": (1, 2), "s2": (1, 3), "s4": (1, 5), "t2": (2, 2), "so3": (1, 4)}
COMPACT = {"s1": (SPHERE, 1), "s2": (SPHERE, 2), "s4": (SPHERE, 4), "t2": (TORUS, 2), "so3": (ROTATIONS, 3)}
normal = dist.Normal(0.0, 1.0)


def lifted(model):
    return poutine.reparam(model, config=lambda site: ph.infer.LiftReparam())


def trace_of(model):
    trace = poutine.trace(lifted(model)).get_trace()
    trace.compute_log_prob()
    return {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", COMPACT)
def test_uniform_points_are_the_directions_of_normal_vectors(name, mixed):
    manifold, n = COMPACT[name]
    uniform = hdist.Uniform(manifold, n, (20_000, 2) if mixed else (20_000,))
    prior = dist.MixtureSameFamily(dist.Categorical(torch.ones(20_000, 2)), uniform) if mixed else uniform
    sites = trace_of(lambda: pyro.sample("x", prior))
    assert [name for name, site in sites.items() if not site["is_observed"]] == ["x_lift"]
    z = sites["x_lift"]["value"]
    vectors = z.unflatten(-1, SHAPES[name])
    m, length = vectors.size(-1), vectors.norm(dim=-1)
    log_area = math.log(2) + m / 2 * math.log(math.pi) - math.lgamma(m / 2) + (m - 1) * length.log()
    log_prob = torch.tensor(scipy.stats.chi(m + 2).logpdf(length)) - log_area
    assert torch.allclose(sites["x_lift"]["log_prob"], log_prob.sum(-1), atol=1e-12)
    assert scipy.stats.kstest(length.flatten(), scipy.stats.chi(m + 2).cdf).pvalue > TEST_FAILURE_RATE
    unit = (vectors / length.unsqueeze(-1)).flatten(1)
    mean_is(unit, 0.0)
    mean_is((unit.unsqueeze(-1) * unit.unsqueeze(-2)).flatten(1), torch.eye(unit.size(-1)).flatten() / m)

    space = G.complete(manifold)
    x = space.lifted(normal.sample(z.shape))[0]
    assert hdist.constraints.on_manifold(manifold).check(x).all()
    features = space.features(x)
    size = {SPHERE: n + 1, TORUS: 2, ROTATIONS: 3}[manifold]  # features are coordinates of uniform unit vectors
    mean_is(features, 0.0)
    mean_is(features.square(), 1 / size)


@pytest.mark.parametrize("name", COMPACT)
def test_an_initial_value_is_kept(name):
    manifold, n = COMPACT[name]
    start = hdist.Uniform(manifold, n, (50,)).sample()
    with InitMessenger(init_to_value(values={"x": start})):
        sites = trace_of(lambda: pyro.sample("x", hdist.Uniform(manifold, n, (50,))))
    assert torch.equal(sites["x"]["value"], start)
    again = G.complete(manifold).lifted(sites["x_lift"]["value"])[0]
    assert G.complete(manifold).squared_distance(again, start).max() < 1e-28


def test_other_sites_are_left_unchanged():
    def model():
        pyro.sample("real", normal)
        pyro.sample("hyperbolic", hdist.WrappedNormal(point(2.0, 1.0, 0.5), torch.tensor(0.5), lorentz(2.0)))
        pyro.sample("seen", hdist.Uniform(SPHERE, 2), obs=torch.tensor([0.6, 0.0, 0.8]))

    sites = trace_of(model)
    assert sites.keys() == {"real", "hyperbolic", "seen"}
    assert sites["seen"]["log_prob"] == hdist.Uniform(SPHERE, 2).log_prob(torch.eye(3)[0])


@pytest.mark.parametrize("name", COMPACT)
def test_plates_events_masks(name):
    manifold, n = COMPACT[name]
    mask = torch.tensor([True, False, True])

    def model():
        with pyro.plate("rows", 3):
            pyro.sample("x", hdist.Uniform(manifold, n, (4, 1)).to_event(2).mask(mask))
            pyro.sample("y", hdist.Uniform(manifold, n))

    sites = trace_of(model)
    q = G.complete(manifold).lift_size(n)
    assert sites["x"]["value"].shape == (3, 4, 1, *G.complete(manifold).event_shape(n))
    assert sites["x_lift"]["value"].shape == (3, 4, 1, q)
    assert sites["y_lift"]["value"].shape == (3, q)
    each = log_joint(lifted(lambda: pyro.sample("x", hdist.Uniform(manifold, n))), x_lift=sites["x_lift"]["value"])
    assert torch.allclose(sites["x_lift"]["log_prob"], each.sum((-2, -1)) * mask)
    assert not sites["x"]["log_prob"].any()


def test_a_geometry_without_a_lift_says_what_to_implement():
    class Cube(geoopt.Sphere):
        pass

    class Unlifted(type(G.bind(SPHERE))):
        lift_shape = G.Embedded.lift_shape

    G.register(Cube, Unlifted)
    with pytest.raises(NotImplementedError, match=r"implement lift_shape.*Unlifted"):
        trace_of(lambda: pyro.sample("x", hdist.Uniform(Cube(), 2)))


def test_a_product_is_lifted_factor_by_factor():
    H = lorentz(2.0)
    M = geoopt.ProductManifold((SPHERE, 3), (H, 3), (TORUS, 2))
    parts = [hdist.Uniform(SPHERE, 2), hdist.WrappedNormal(point(2.0, 1.0, 0.5), 0.5, H), hdist.Uniform(TORUS)]
    product = hdist.ProductDistribution(M, parts).expand((5,))
    sites = trace_of(lambda: pyro.sample("x", product))
    z, x = sites["x_lift"]["value"], sites["x"]["value"]
    sizes = [3, 2, 4]
    assert z.shape == (5, sum(sizes))
    pieces = [G.complete(each).lifted(part) for each, part in zip((SPHERE, H, TORUS), z.split(sizes, -1), strict=True)]
    torch.testing.assert_close(x, torch.cat([piece for piece, _ in pieces], -1))
    expected = product.log_prob(x) + sum(log_w for _, log_w in pieces)
    torch.testing.assert_close(sites["x_lift"]["log_prob"], expected)
    torch.testing.assert_close(G.complete(M).lifted(G.complete(M).lift(x))[0], x)


def test_a_projection_in_a_distribution_keeps_its_cache():
    project = torch.distributions.transform_to(hdist.constraints.on_manifold(SPHERE))
    d = dist.TransformedDistribution(normal.expand((3,)).to_event(1), [project.with_cache()])
    x = d.sample()
    assert hdist.constraints.on_manifold(SPHERE).check(x)
    assert d.transforms[0] == project != torch.distributions.transform_to(hdist.constraints.on_manifold(TORUS))
