"""LiftReparam: the density and the draws of lifted latents, and the kinds of sites it changes or leaves."""

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import InitMessenger, init_to_value

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from tests.cases import lorentz, point
from tests.pyro.inference_checks import mean_is

pytestmark = pytest.mark.usefixtures("float64")

G = ph.geometry
SPHERE, TORUS, ROTATIONS = geoopt.Sphere(), ph.manifolds.Torus(2), ph.manifolds.Rotations()
COMPACT = {"s1": (SPHERE, 1), "s2": (SPHERE, 2), "s4": (SPHERE, 4), "t2": (TORUS, 2), "so3": (ROTATIONS, 3)}
normal = dist.Normal(0.0, 1.0)


def trace_of(model):
    trace = poutine.trace(poutine.reparam(model, config=lambda site: ph.infer.LiftReparam())).get_trace()
    trace.compute_log_prob()
    return {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}


@pytest.mark.parametrize("name", COMPACT)
def test_uniform_points_are_the_directions_of_normal_vectors(name):
    manifold, n = COMPACT[name]
    sites = trace_of(lambda: pyro.sample("x", hdist.Uniform(manifold, n, (20_000,))))
    z = sites["x_lift"]["value"]
    assert torch.allclose(sites["x_lift"]["log_prob"], normal.log_prob(z).sum(-1), atol=1e-12)
    mean_is((z.unsqueeze(-1) * z.unsqueeze(-2)).flatten(1), torch.eye(z.size(-1)).flatten())
    mean_is(torch.cat([z, z**4], -1), torch.tensor([0.0, 3.0]).repeat_interleave(z.size(-1)))

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
    log_prob = normal.log_prob(sites["x_lift"]["value"]).sum((-3, -2, -1))
    assert torch.allclose(sites["x_lift"]["log_prob"], log_prob * mask)
    assert not sites["x"]["log_prob"].any()


def test_a_geometry_without_a_lift_says_what_to_implement():
    class Cube(geoopt.Sphere):
        pass

    class Unlifted(type(G.bind(SPHERE))):
        lift_size = G.Embedded.lift_size

    G.register(Cube, Unlifted)
    with pytest.raises(NotImplementedError, match=r"implement lift_size.*Unlifted"):
        trace_of(lambda: pyro.sample("x", hdist.Uniform(Cube(), 2)))
