"""Curvature as a modelling choice: batches of curvatures, extreme ones, learned ones."""

import math

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch.distributions import kl_divergence

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from tests.cases import TEST_FAILURE_RATE, shaken

G, charts = ph.geometry, ph.charts


pytestmark = pytest.mark.usefixtures("float64")


# A batch of curvatures in one tensor


def wrapped(M, v, scale=0.5):
    return hdist.WrappedNormal(G.exp0(M, 0.3 * v), scale, M)


def multivariate(M, v):
    return hdist.WrappedMultivariateNormal(G.exp0(M, 0.3 * v), torch.eye(v.size(-1)), manifold=M)


def side_by_side(vectors, numbers):
    return torch.cat([vectors, numbers.unsqueeze(-1)], -1)


def image_and_back(t, x):
    y = t(x)
    return torch.cat([y, side_by_side(t.inv(y.clone()), t.log_abs_det_jacobian(x, y))], -1)


def on_points(make):
    return lambda M, v: image_and_back(make(M, v), G.exp0(M, v))


def in_the_ball(to, back, log_volume):
    def call(M, v):
        p = to(M, G.exp0(M, v))
        return torch.cat([p, back(M, p), log_volume(M, p).unsqueeze(-1)], -1)

    return call


def on_a_ball(M, v):
    B = geoopt.PoincareBall(1 / M.k)
    x, y = G.exp0(B, v), G.exp0(B, -0.4 * v)
    return side_by_side(torch.cat([x, G.log0(B, x), G.translate(B, y, x), G.log_at(B, y, x)], -1), G.distance(B, x, y))


POINCARE = charts.to_poincare_ball, charts.from_poincare_ball, charts.poincare_ball_log_volume
KLEIN = charts.to_klein, charts.from_klein, charts.klein_log_volume


def shaken_flow(make):
    return on_points(lambda M, v: shaken(make(v.size(-1), manifold=M)))


def conditional_flow(dim, manifold):
    return ph.flows.coupling_flow(dim, 2, manifold=manifold, context_dim=2)


LINES, PLANES = (1, 2, 3), (2, 3)
#: Functions of a manifold and of tangent coordinates, of one k or of many alike, and the dimensions to try.
OF_ONE_K = {
    "origin": (LINES, lambda M, v: G.origin(M, v.size(-1)) + 0 * G.exp0(M, v)),
    "exp0": (LINES, G.exp0),
    "log0": (LINES, lambda M, v: G.log0(M, G.exp0(M, v))),
    "log_volume": (LINES, lambda M, v: G.log_volume(M, v).unsqueeze(-1)),
    "contains": (LINES, lambda M, v: G.contains(M, G.exp0(M, v)).unsqueeze(-1)),
    "translate": (LINES, lambda M, v: G.translate(M, G.exp0(M, -0.4 * v), G.exp0(M, v))),
    "translate, inverse": (LINES, lambda M, v: G.translate(M, G.exp0(M, 0.4 * v), G.exp0(M, v), inverse=True)),
    "distance": (LINES, lambda M, v: G.distance(M, G.exp0(M, v), G.origin(M, v.size(-1))).unsqueeze(-1)),
    "translate_tangent": (LINES, lambda M, v: side_by_side(*G.translate_tangent(M, v, v))),
    "from_normal_coordinates": (LINES, lambda M, v: charts.from_normal_coordinates(M, v, G.exp0(M, 0.4 * v))),
    "to_normal_coordinates": (LINES, lambda M, v: charts.to_normal_coordinates(M, G.exp0(M, v), G.exp0(M, 0.4 * v))),
    "geoopt.PoincareBall": (LINES, on_a_ball),
    "Poincaré ball": (LINES, in_the_ball(*POINCARE)),
    "Klein ball": (LINES, in_the_ball(*KLEIN)),
    "their log-volume": (LINES, lambda M, v: charts.normal_coordinates_log_volume(M, v).unsqueeze(-1)),
    "WrappedNormal": (LINES, lambda M, v: side_by_side(wrapped(M, v).mean, wrapped(M, v).log_prob(G.exp0(M, v)))),
    "WrappedNormal, rsample": (LINES, lambda M, v: 0 * wrapped(M, v).rsample() + wrapped(M, v).mode),
    "WrappedMultivariateNormal": (LINES, lambda M, v: multivariate(M, v).log_prob(G.exp0(M, v)).unsqueeze(-1)),
    "kl": (LINES, lambda M, v: kl_divergence(wrapped(M, v), wrapped(M, v, 0.7)).unsqueeze(-1)),
    "ExponentialMap": (LINES, lambda M, v: image_and_back(HT.ExponentialMap(M), v)),
    "ExponentialMap at": (LINES, lambda M, v: image_and_back(HT.ExponentialMap(M, G.exp0(M, 0.4 * v)), v)),
    "Translation": (LINES, on_points(lambda M, v: HT.Translation(M, G.exp0(M, 0.4 * v)))),
    "Reflection": (LINES, on_points(HT.Reflection)),
    "lifted": (LINES, on_points(lambda M, v: HT.TangentTransform(dist.transforms.AffineTransform(0.1, 1.2), M))),
    "tangent_coupling": (PLANES, shaken_flow(HT.tangent_coupling)),
    "wrapped_hyperboloid_coupling": (PLANES, shaken_flow(HT.wrapped_hyperboloid_coupling)),
    "coupling_flow": (PLANES, shaken_flow(lambda n, manifold: ph.flows.coupling_flow(n, 3, manifold=manifold))),
    "conditional flow": (
        PLANES,
        on_points(lambda M, v: shaken(conditional_flow(v.size(-1), M)).condition(torch.ones(2))),
    ),
    "polar_coupling": ((2,), shaken_flow(lambda n, manifold: HT.polar_coupling(count_bins=4, manifold=manifold))),
}


@pytest.mark.parametrize("name", OF_ONE_K)
def test_many_curvatures_are_each_of_them(name):
    """k of any batch shape, an empty one too, and a vector that has a batch or has none: the rows of single k."""
    dims, call = OF_ONE_K[name]
    for n, shape, batch in [(dims[0], (2,), ()), (dims[-1], (3, 1), (3, 2)), (dims[-1], (0,), ())]:
        k, v = torch.linspace(0.5, 3.0, math.prod(shape)).reshape(shape), 0.1 * torch.randn(*batch, n)
        found, both = call(geoopt.Lorentz(k), v), torch.broadcast_shapes(shape, batch)
        assert found.shape[:-1] == both
        ks, vs = k.expand(both).flatten(), v.expand(*both, n).reshape(-1, n)
        single = [call(geoopt.Lorentz(ks[i]), vs[i]).double() for i in range(len(ks))]
        rows = found.double().reshape(len(ks), found.size(-1))
        torch.testing.assert_close(list(rows), single, rtol=1e-12, atol=1e-14)


# Learned curvatures


@pytest.mark.parametrize("log_k", [-3.0, 0.0, 10.0, 60.0])
def test_gradients_are_finite_far_from_a_plausible_curvature(log_k):
    """A sampler that tries a nearly flat space, or a strongly curved one, gets a finite energy and gradient."""
    M = ph.manifolds.Lorentz(torch.tensor(math.exp(log_k)), learnable=True)
    z = G.exp0(M, 1.5 * torch.randn(6, 2))
    energy = G.distance(M, z[:3], z[3:]).sum() + hdist.WrappedNormal(G.origin(M, 2), 1.5, M).log_prob(z).sum()
    (gradient,) = torch.autograd.grad(energy, M.k_unconstrained)
    assert energy.isfinite()
    assert gradient.isfinite()
    if log_k == 60.0:  # flat: nothing depends on it
        assert gradient.abs() < 1e-12


def test_a_curvature_for_each_group():
    """k of shape (groups, 1) in a plate of groups: each comes to the maximum of its own likelihood, near the truth."""
    truth, loc, number = torch.tensor([[0.3], [4.0]]), torch.tensor([1.2, 0.9]), 400
    M = ph.manifolds.Lorentz(torch.ones(2, 1), learnable=True)

    def coordinates(manifold):  # what stays the same while k moves are coordinates, with respect to Lebesgue measure
        d = hdist.WrappedNormal(G.exp0(manifold, loc), 0.8, manifold)
        return dist.TransformedDistribution(d, [HT.ExponentialMap(manifold).inv])

    def model(v):
        pyro.module("manifold", M)
        with pyro.plate("groups", 2, dim=-2), pyro.plate("members", number, dim=-1):
            pyro.sample("v", coordinates(M), obs=v)

    v = coordinates(geoopt.Lorentz(truth)).sample((number,)).squeeze(-2).transpose(0, 1)
    svi = SVI(model, lambda v: None, pyro.optim.ClippedAdam({"lr": 0.2, "lrd": 0.95}), Trace_ELBO())
    for _ in range(80):
        svi.step(v)

    grid = torch.linspace(-3, 3, 301)
    for log_k, members, target in zip(M.k.detach().log(), v, truth.log(), strict=True):
        likelihood = coordinates(geoopt.Lorentz(grid.exp().unsqueeze(-1))).log_prob(members).sum(-1)
        assert (log_k - grid[likelihood.argmax()]).abs() < 0.011  # half a step of the grid
        error = (-likelihood.diff(n=2)[likelihood.argmax() - 1] / 0.02**2) ** -0.5
        assert (log_k - target).abs() < 4.3 * error  # TEST_FAILURE_RATE


assert TEST_FAILURE_RATE == 2e-5  # 4.3 standard errors are exceeded so often
