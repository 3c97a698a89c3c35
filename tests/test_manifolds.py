"""What works on every Hadamard manifold: guides, samplers, parameters, state, own samples, errors, means."""

import copy
import importlib
import math
import pickle
import re
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch.distributions import biject_to, kl_divergence

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic.geometry import Hadamard
from tests.cases import MANIFOLDS, ball, lorentz, shaken

G = ph.geometry
on_manifold = hdist.constraints.on_manifold


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=MANIFOLDS)
def space(request):
    make, n = MANIFOLDS[request.param]
    return make(), n


def conjugate(space):
    """A latent seen once through its distance from a beacon: the posterior stays within its noise of the beacon."""
    M, n = space
    beacon = G.exp0(M, torch.linspace(1.0, -0.6, n))

    def model():
        z = pyro.sample("z", hdist.WrappedNormal(G.origin(M, n), 1.0, M))
        pyro.sample("x", hdist.WrappedNormal(z, 0.2, M), obs=beacon)

    return model, beacon


@pytest.mark.parametrize("make", [AutoNormal, AutoDelta, ph.infer.AutoWrappedNormal])
def test_autoguides_find_the_posterior(space, make):
    model, beacon = conjugate(space)
    guide = make(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(100):
        svi.step()
    z = guide.median()["z"]
    assert G.contains(space[0], z).all()
    assert G.distance(space[0], z, beacon) < 0.3
    if make is ph.infer.AutoWrappedNormal:
        assert G.distance(space[0], guide.quantiles([0.9])["z"].center, beacon) < 0.3


def test_nuts_samples_the_posterior(space):
    model, beacon = conjugate(space)
    mcmc = MCMC(NUTS(model), num_samples=40, warmup_steps=40, disable_progbar=True)
    mcmc.run()
    z = mcmc.get_samples()["z"]
    assert G.contains(space[0], z).all()
    assert G.distance(space[0], G.frechet_mean(space[0], z), beacon) < 0.2


def test_parameters_stay_on_the_manifold(space):
    M, n = space
    goal = G.exp0(M, torch.linspace(0.5, -1.0, n))
    start = G.exp0(M, torch.full((n,), 0.4))
    optimiser = pyro.optim.Adam({"lr": 0.1})
    svi = SVI(
        lambda: pyro.factor("f", -G.squared_distance(M, pyro.param("p", start, constraint=on_manifold(M)), goal)),
        lambda: None,
        optimiser,
        Trace_ELBO(),
    )
    for _ in range(80):
        svi.step()
    assert G.contains(M, pyro.param("p")).all()
    assert G.distance(M, pyro.param("p"), goal) < 0.05


def test_own_samples_score_as_stored_ones_after_every_change(space):
    M, n = space
    flow = shaken(ph.flows.coupling_flow(n, 2, manifold=M), 0.3)
    base = hdist.WrappedNormal(G.exp0(M, 0.3 * torch.ones(n)), 0.5, M)
    q = dist.TransformedDistribution(base, [flow])
    for _ in range(3):
        x = q.rsample((4,))
        assert torch.allclose(q.log_prob(x), q.log_prob(x.detach().clone()), atol=1e-8)
        with torch.no_grad():
            for value in flow.parameters():
                value.add_(0.01)
        assert torch.allclose(q.log_prob(x), q.log_prob(x.detach().clone()), atol=1e-8)


def test_copies_and_state(space):
    M, n = space
    flow = shaken(ph.flows.coupling_flow(n, 2, manifold=M), 0.3)
    x = G.exp0(M, torch.randn(3, n))
    for other in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(other(x), flow(x))
    # TC's weights fit in every space of that dimension.
    mine, same, flat = (
        ph.flows.coupling_flow(n, 2, HT.tangent_coupling, manifold=manifold).double()
        for manifold in (M, copy.deepcopy(M), geoopt.Euclidean(1))
    )
    mine.load_state_dict(same.state_dict())
    with pytest.raises(ValueError, match="Euclidean"):
        mine.load_state_dict(flat.state_dict())


def test_empty_batches_and_broadcasting(space):
    M, n = space
    d = hdist.WrappedNormal(G.exp0(M, torch.randn(4, 1, n)), torch.ones(3, n), M)
    assert d.batch_shape == (4, 3)
    x = d.rsample((2,))
    assert x.shape == (2, 4, 3, *d.event_shape)
    assert d.log_prob(x).shape == (2, 4, 3)
    empty = hdist.WrappedNormal(G.exp0(M, torch.zeros(0, n)), 1.0, M)
    assert empty.log_prob(empty.sample()).shape == (0,)
    assert d.expand((5, 4, 3)).rsample().shape == (5, 4, 3, *d.event_shape)


def test_one_map_makes_the_divergence_of_normals(space):
    M, n = space
    loc = G.exp0(M, torch.ones(n) / 3)
    p, q = (hdist.WrappedNormal(loc, scale, M) for scale in (0.5, 0.8))
    flat = [dist.Normal(torch.zeros(n), scale).to_event(1) for scale in (0.5, 0.8)]
    assert torch.allclose(kl_divergence(p, q), kl_divergence(*flat))


def test_events_off_the_manifold_are_refused(space):
    M, n = space
    x = G.exp0(M, torch.ones(n))
    for bad in (x + 30 * torch.randn_like(x), x * math.nan):
        with pytest.raises(ValueError, match="is not on"):
            G.log0(M, bad)
    with pytest.raises(ValueError, match="shape"):
        G.log0(M, torch.tensor(0.0))
    with pytest.raises(ValueError, match="is not on"):
        hdist.WrappedNormal(x, 1.0, M).log_prob(x * math.nan)


def test_geodesics_and_means(space):
    M, n = space
    x, y = G.exp0(M, torch.randn(2, 5, n))
    d = G.distance(M, x, y)
    for t in (0.0, 0.3, 1.0, torch.linspace(-0.5, 1.5, 5)):
        z = G.geodesic(M, x, y, t)
        t = torch.as_tensor(t)
        assert torch.allclose(G.distance(M, x, z), t.abs() * d, atol=1e-7)
        assert torch.allclose(G.distance(M, y, z), (1 - t).abs() * d, atol=1e-7)
    points = torch.stack([x, y])
    middle = G.frechet_mean(M, points)
    assert (G.distance(M, middle, G.geodesic(M, x, y, 0.5)) < 1e-7).all()
    assert (G.distance(M, G.frechet_mean(M, points, torch.tensor([1.0, 0.0])), x) < 1e-7).all()
    v, w = torch.randn(3, n, requires_grad=True), torch.rand(3).requires_grad_()
    mean = lambda v, w: G.log0(M, G.frechet_mean(M, G.exp0(M, v), w))  # noqa: E731
    assert torch.autograd.gradcheck(mean, (v, w), atol=1e-6, fast_mode=True)
    pull = (w[:, None] * G.log_at(M, G.frechet_mean(M, G.exp0(M, v), w), G.exp0(M, v))).sum(0)
    assert pull.abs().max() < 1e-9


def test_a_mean_that_is_not_defined():
    for bad in ({"dim": 2}, {"dim": -2}, {"weights": -torch.ones(3)}, {"weights": torch.zeros(3)}):
        with pytest.raises(ValueError, match=r"dim = |weights"):
            G.frechet_mean(ball(), torch.zeros(3, 2), **bad)
    with pytest.raises(ValueError, match="no points"):
        G.frechet_mean(ball(), torch.zeros(0, 2))


def test_a_mean_of_far_points_and_of_one_point():
    M = lorentz()
    x = G.exp0(M, torch.tensor([[200.0, 0.0], [-100.0, 0.0]]))
    assert torch.allclose(G.log0(M, G.frechet_mean(M, x)), torch.tensor([50.0, 0.0]), atol=1e-6)
    x = G.exp0(M, torch.tensor([1.0, 2.0])).expand(4, 3)
    assert torch.allclose(G.frechet_mean(M, x), x[0])
    single = G.frechet_mean(geoopt.Lorentz(), x.float())
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), x[0], atol=1e-6)


# The Poincaré ball.


@pytest.mark.parametrize("c", [0.3, 1.0, 4.0])
def test_the_ball_is_the_hyperboloid(c):
    B = ball(c)
    M = lorentz(1 / B.c.item())
    v, w = torch.randn(2, 100, 3)
    for r in (1e-8, 1.0, 5.0, 10.0):
        p, q = (G.exp0(B, r * u / (u.norm(dim=-1, keepdim=True) * c**0.5)) for u in (v, w))
        x, y = (ph.charts.from_poincare_ball(M, each) for each in (p, q))
        # What rounding of the coordinates near the rim says.
        bound = 1e-15 * (1 + math.exp(r)) / c**0.5
        assert (G.distance(B, p, q) - G.distance(M, x, y)).abs().max() <= 20 * bound
        assert (G.log0(B, p) - G.log0(M, x)).abs().max() <= 20 * bound
        assert (G.log_at(B, p, q) - G.log_at(M, x, y)).norm(dim=-1).max() <= 20 * bound * (1 + math.exp(r))
        assert (G.translate(B, p, q) - ph.charts.to_poincare_ball(M, G.translate(M, x, y))).abs().max() <= 20 * bound
    far = G.exp0(B, torch.tensor([[0.0, 10.0], [0.0, -10.0]]) / c**0.5)
    assert G.distance(B, far[0], far[1]).item() == pytest.approx(20 / c**0.5, rel=1e-11)


def test_the_gradient_at_coincident_points_of_the_ball():
    p = torch.tensor([0.3, -0.2], requires_grad=True)
    hessian = torch.autograd.functional.hessian(lambda q: G.squared_distance(ball(1.0), q, p.detach()) / 2, p.detach())
    metric = (2 / (1 - p.detach().square().sum())) ** 2
    assert torch.allclose(hessian, metric * torch.eye(2))
    (gradient,) = torch.autograd.grad(G.distance(ball(1.0), p, p.detach()), p)
    assert gradient.abs().max() == 0


@pytest.mark.parametrize(("dtype", "r"), [(torch.float32, 20.0), (torch.float64, 40.0)])
def test_no_point_is_on_the_rim(dtype, r):
    """What is rounded to it is an error, and not a point."""
    v = torch.tensor([r / 0.5**0.5, 0.0], dtype=dtype)
    with pytest.raises(ValueError, match=r"boundary.*float64"):
        G.exp0(ball(), v)
    p = G.exp0(ball(), 0.7 * v)
    with pytest.raises(ValueError, match="boundary"):
        G.translate(ball(), p, p)


@pytest.mark.parametrize("name", ["ball", "product"])
@pytest.mark.parametrize("validate", [True, False])
def test_data_are_scored_where_their_base_point_is_out_of_range(name, validate):
    """As on the hyperboloid of the same curvature, and with its gradients."""
    B, H = ball(), lorentz(2.0)
    if name == "product":
        B, H = (geoopt.ProductManifold((M, n), (geoopt.Euclidean(1), 1)) for M, n in ((B, 2), (H, 3)))
    n = 3 if name == "product" else 2
    w = torch.tensor([[1.5, 0.4, 0.1][:n], [0.1, 0.0, 0.2][:n]])
    found = []
    for M in (B, H):
        scale = torch.tensor(0.02, requires_grad=True)
        flow = HT.TangentTransform(dist.transforms.AffineTransform(0.0, scale, event_dim=0), M)
        for loc in (G.origin(M, n, dtype=torch.float64), G.exp0(M, torch.full((n,), 0.3))):
            with pyro.validation_enabled(validate):
                base = hdist.WrappedNormal(loc, 1.0, M)
                value = dist.TransformedDistribution(base, [flow]).log_prob(G.exp0(M, w))
            found.append((value.detach(), torch.autograd.grad(value.sum(), scale)[0]))
    for one, other in zip(found[:2], found[2:], strict=True):
        assert torch.allclose(one[0], other[0], rtol=1e-6)
        assert torch.allclose(one[1], other[1], rtol=1e-6)


def test_balls_and_products_are_pyro_modules():
    B, other = ph.manifolds.PoincareBall(0.25, learnable=True), ph.manifolds.PoincareBall(0.25)
    assert [name for name, _ in B.named_parameters()] == ["c_unconstrained"]
    assert list(other.state_dict()) == ["c"]
    assert G.same(B, other)
    assert all(G.same(B, again) for again in (copy.deepcopy(B), pickle.loads(pickle.dumps(B))))
    with pytest.raises(ValueError, match=r"c=0.5.*c=0.25.*fixed"):
        other.load_state_dict(ph.manifolds.PoincareBall(0.5).state_dict())
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="c = "):
            ph.manifolds.PoincareBall(bad)
    M = ph.manifolds.Product((ph.manifolds.Lorentz(), 3), (ph.manifolds.PoincareBall(), 2))

    class Model(pyro.nn.PyroModule):
        def __init__(self):
            super().__init__()
            self.space = M
            M.manifolds[0].k = pyro.nn.PyroSample(dist.LogNormal(0.0, 0.3))
            M.manifolds[1].c = pyro.nn.PyroSample(dist.LogNormal(0.0, 0.3))

        def forward(self):
            return pyro.sample("z", hdist.WrappedNormal(G.origin(M, 4), 1.0, M))

    trace = pyro.poutine.trace(Model()).get_trace()
    assert {"space.manifolds.0.k", "space.manifolds.1.c"} < set(trace.nodes)
    site = trace.nodes["z"]
    assert site["fn"].support.check(site["value"])
    assert math.isfinite(trace.log_prob_sum().item())


# Products.


def product(*ks):
    return geoopt.ProductManifold(*((ph.manifolds.Lorentz(k), 3) for k in ks), (geoopt.Euclidean(1), 2))


def test_a_product_is_its_factors():
    M, (a, b) = product(2.0, 0.5), (lorentz(2.0), lorentz(0.5))
    v, w = torch.randn(2, 4, 6)
    x, y = G.exp0(M, v), G.exp0(M, w)
    parts = [
        (a, slice(0, 3), slice(0, 2)),
        (b, slice(3, 6), slice(2, 4)),
        (geoopt.Euclidean(1), slice(6, 8), slice(4, 6)),
    ]
    for factor, at, tangent in parts:
        assert torch.equal(x[:, at], G.exp0(factor, v[:, tangent]))
        assert torch.allclose(G.log_at(M, x, y)[:, tangent], G.log_at(factor, x[:, at], y[:, at]))
        assert torch.equal(G.translate(M, x, y)[:, at], G.translate(factor, x[:, at], y[:, at]))
    squares = sum(G.squared_distance(factor, x[:, at], y[:, at]) for factor, at, _ in parts)
    assert torch.allclose(G.squared_distance(M, x, y), squares)
    assert torch.allclose(G.distance(M, x, y), squares.sqrt())
    assert torch.allclose(G.log_volume(M, v), sum(G.log_volume(f, v[:, t]) for f, _, t in parts))


def test_an_error_names_the_factor():
    M = product(2.0, 0.5)
    x = G.exp0(M, torch.randn(6))
    x[3] += 1
    with pytest.raises(ValueError, match=r"factor 1, Lorentz.*-k = -0.5.*exp0\(M, v\)"):
        G.log0(M, x)
    with pytest.raises(ValueError, match=r"6 dimensions.*5"):
        G.exp0(M, torch.randn(5))
    with pytest.raises(ValueError, match=r"k of factor 0.*= -1"):
        G.exp0(geoopt.ProductManifold((geoopt.Lorentz(k=-1.0), 3)), torch.randn(2))
    with pytest.raises(ValueError, match="factor 1"):
        G.exp0(geoopt.ProductManifold((lorentz(), 3), (lorentz(), 1)), torch.randn(2))
    with pytest.raises(TypeError, match="Sphere"):
        G.exp0(geoopt.ProductManifold((lorentz(), 3), (geoopt.Sphere(), 3)), torch.randn(4))
    assert G.same(product(2.0, 0.5), product(2.0, 0.5))
    assert not G.same(product(2.0, 0.5), product(0.5, 2.0))


def test_factor_couplings_move_their_factor_only():
    M = product(2.0, 0.5)
    x = G.exp0(M, torch.randn(7, 6))
    for i, moved in enumerate((slice(0, 3), slice(3, 6), slice(6, 8))):
        y = shaken(HT.factor_coupling(6, i, manifold=M))(x)
        stays = torch.ones(8, dtype=torch.bool)
        stays[moved] = False
        assert torch.allclose(y[:, stays], x[:, stays], atol=1e-12)
        assert not torch.isclose(y[:, moved], x[:, moved]).any()
    stack = dist.transforms.ComposeTransformModule([HT.factor_coupling(6, i, manifold=M).double() for i in range(3)])
    assert torch.allclose(stack.inv(stack(x).clone()), x)
    for bad, error in (
        (lambda: HT.factor_coupling(6, 3, manifold=M), ValueError),
        (lambda: HT.factor_coupling(5, 0, manifold=M), ValueError),
        (lambda: HT.factor_coupling(2, 0, manifold=lorentz()), TypeError),
        (lambda: HT.factor_coupling(2, 0, manifold=geoopt.ProductManifold((lorentz(), 3))), ValueError),
    ):
        with pytest.raises(error, match=r"factor|dimensions"):
            bad()


def test_curvatures_of_factors_are_learned():
    factors = [ph.manifolds.Lorentz(1.0, learnable=True) for _ in range(2)]
    M = geoopt.ProductManifold((factors[0], 3), (factors[1], 3))
    flow = ph.flows.coupling_flow(4, 2, manifold=M)
    assert sum("k_unconstrained" in name for name, _ in flow.named_parameters()) == 2
    x = hdist.WrappedNormal(G.origin(M, 4), 1.0, M).rsample((5,))
    (flow(x).square().sum() + G.distance(M, x[0], x[1])).backward()
    assert all(factor.k_unconstrained.grad is not None for factor in factors)


def test_latent_and_batched_curvatures_of_factors():
    class Model(pyro.nn.PyroModule):
        def __init__(self):
            super().__init__()
            self.first = ph.manifolds.Lorentz()
            self.first.k = pyro.nn.PyroSample(dist.LogNormal(0.0, 0.5))

        def forward(self):
            M = geoopt.ProductManifold((self.first, 3), (geoopt.Euclidean(1), 1))
            z = pyro.sample("z", hdist.WrappedNormal(G.origin(M, 3), 1.0, M))
            return G.log0(M, z), self.first.k

    model = Model()
    trace = pyro.poutine.trace(model).get_trace()
    site, k = trace.nodes["z"], trace.nodes["first.k"]["value"]
    assert torch.isclose(G.bind(site["fn"].manifold).parameters()["k of factor 0"], k)
    assert site["fn"].support.check(site["value"])
    assert math.isfinite(trace.log_prob_sum().item())
    k = torch.tensor([0.5, 1.0, 3.0])
    M = geoopt.ProductManifold((geoopt.Lorentz(k), 3), (geoopt.Euclidean(1), 1))
    d = hdist.WrappedNormal(G.origin(M, 3), 0.7, M)
    x = d.rsample()
    assert d.batch_shape == (3,)
    for i in range(3):
        one = geoopt.ProductManifold((lorentz(k[i].item()), 3), (geoopt.Euclidean(1), 1))
        alone = hdist.WrappedNormal(G.origin(one, 3), torch.tensor(0.7), one)
        assert torch.allclose(alone.log_prob(x[i]), d.log_prob(x)[i])


def test_riemannian_optimisers_move_points_of_products():
    M = product(2.0, 0.5)
    goal = G.exp0(M, torch.randn(6))
    p = geoopt.ManifoldParameter(G.exp0(M, torch.randn(6)), manifold=M)
    optimiser = geoopt.optim.RiemannianAdam([p], lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        G.squared_distance(M, p, goal).backward()
        optimiser.step()
    assert G.distance(M, p, goal) < 0.05


# Matrices.


def test_the_distance_of_matrices_is_that_of_geoopt_and_its_gradients_are_finite():
    M = geoopt.SymmetricPositiveDefinite()
    x, y = G.exp0(M, torch.randn(2, 20, 6))
    assert torch.allclose(G.distance(M, x, y), M.dist(x, y))
    assert torch.allclose(G.distance(M, x, y), G.log_at(M, x, y).norm(dim=-1))
    eye = torch.eye(3, requires_grad=True)
    for value in (G.log0(M, eye).sum(), G.distance(M, eye, 2 * torch.eye(3)), G.distance(M, eye, torch.eye(3))):
        (gradient,) = torch.autograd.grad(value, eye)
        assert gradient.isfinite().all()
    v = torch.zeros(6, requires_grad=True)
    (gradient,) = torch.autograd.grad(G.exp0(M, v).sum() + G.log_volume(M, v), v)
    assert gradient.isfinite().all()
    for function in (lambda v: G.exp0(M, v), lambda v: G.log_at(M, x[0], G.exp0(M, v)), lambda v: G.log_volume(M, v)):
        assert torch.autograd.gradcheck(function, torch.randn(6, requires_grad=True))


def test_matrices_of_two_rows_are_a_line_times_a_plane():
    """SPD(2) is R x H^2(k = 2), isometrically: distances from the identity add up from trace and traceless part."""
    M, H = geoopt.SymmetricPositiveDefinite(), lorentz(2.0)
    v, w = torch.randn(2, 30, 3)
    split = lambda v: ((v[..., 0] + v[..., 1]) / 2**0.5, torch.stack([(v[..., 0] - v[..., 1]) / 2**0.5, v[..., 2]], -1))  # noqa: E731
    (a, p), (b, q) = split(v), split(w)
    expected = ((a - b) ** 2 + G.squared_distance(H, G.exp0(H, p), G.exp0(H, q))).sqrt()
    assert torch.allclose(G.distance(M, G.exp0(M, v), G.exp0(M, w)), expected)
    assert torch.allclose(G.log_volume(M, v), G.log_volume(H, p))


def test_sizes_that_no_matrix_has():
    M = geoopt.SymmetricPositiveDefinite()
    with pytest.raises(ValueError, match=r"m \(m \+ 1\) / 2"):
        G.exp0(M, torch.randn(4))
    with pytest.raises(ValueError, match="shape"):
        G.log0(M, torch.randn(2, 3))
    with pytest.warns(UserWarning, match="not fully implemented"):
        other = geoopt.SymmetricPositiveDefinite("LEM")
    with pytest.raises(ValueError, match="affine-invariant"):
        G.exp0(other, torch.randn(3))


# What has no global chart.


def test_a_sphere_has_no_chart():
    S, x = geoopt.Sphere(), torch.tensor([1.0, 0.0, 0.0])
    for call in (
        lambda: biject_to(on_manifold(S)),
        lambda: HT.ExponentialMap(S),
        lambda: hdist.WrappedNormal(x, torch.ones(2), S),
        lambda: ph.flows.coupling_flow(2, 2, manifold=S),
    ):
        with pytest.raises(TypeError, match=r"Sphere.*no map of R\^n.*geoopt.Lorentz\(\)"):
            call()


def test_what_is_only_a_geometry_has_no_chart(monkeypatch):
    class Circle(geoopt.Sphere):
        pass

    class CircleGeometry(G.Geometry):
        name = "Circle"
        event_shape = dim = contains = distance = squared_distance = lambda self, *args: torch.Size((2,))

    monkeypatch.setitem(G.registry._GEOMETRIES, Circle, CircleGeometry)
    assert not isinstance(G.bind(Circle()), Hadamard)
    for call in (
        lambda: biject_to(on_manifold(Circle())),
        lambda: HT.ExponentialMap(Circle()),
        lambda: G.chart(Circle()),
    ):
        with pytest.raises(TypeError, match=r"Circle has no global chart.*Lorentz"):
            call()


# A manifold of one's own.


def test_the_worked_example_of_a_manifold_passes_every_law(monkeypatch, tmp_path):
    """As written in CONTRIBUTING, with guides and flows; its distances are those of the hyperboloid."""
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "HalfSpaceGeometry" in block]
    monkeypatch.setattr(G.registry, "_GEOMETRIES", dict(G.registry._GEOMETRIES))
    (tmp_path / "worked_example.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    M, n = importlib.import_module("worked_example").HalfSpace(), 3
    v = torch.randn(8, n)
    ph.testing.assert_constraint_laws(on_manifold(M), G.exp0(M, v), -G.exp0(M, v))
    ph.testing.assert_transform_laws(HT.ExponentialMap(M, G.exp0(M, v[0])), v)
    ph.testing.assert_transform_laws(shaken(ph.flows.coupling_flow(n, 2, manifold=M), 0.3), G.exp0(M, v))
    ph.testing.assert_distribution_laws(hdist.WrappedNormal(G.exp0(M, v[0]), 0.5, M))
    H = lorentz()
    assert torch.allclose(G.distance(M, G.exp0(M, v), G.exp0(M, v[:1])), G.distance(H, G.exp0(H, v), G.exp0(H, v[:1])))
    model, beacon = conjugate((M, n))
    guide = ph.infer.AutoWrappedNormal(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(150):
        svi.step()
    assert G.distance(M, guide.median()["z"], beacon) < 0.3
