"""Beyond the laws: inference, parameters, means and errors on every manifold, and what each manifold promises."""

import copy
import math
import pickle

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroSample
from torch.distributions import biject_to, kl_divergence

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from tests.cases import MANIFOLDS, UNCHARTED, ball, base_on, lorentz, shaken
from tests.half_space import HalfSpace, HalfSpaceGeometry

G = ph.geometry
on_manifold = hdist.constraints.on_manifold
SPD = geoopt.SymmetricPositiveDefinite()


pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(params=MANIFOLDS)
def space(request):
    make, n = MANIFOLDS[request.param]
    return make(), n


def conjugate(M, n):
    """A latent seen once, exactly to 0.2: the posterior stays that close to what is seen."""
    seen = G.exp0(M, torch.linspace(1.0, -0.6, n))

    def model():
        z = pyro.sample("z", hdist.WrappedNormal(G.origin(M, n), 1.0, M))
        pyro.sample("x", hdist.WrappedNormal(z, 0.2, M), obs=seen)

    return model, seen


def trained(model, guide):
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.2}), Trace_ELBO())
    for _ in range(30):
        svi.step()
    return guide


# ---- Every Hadamard manifold ----


@pytest.mark.parametrize("make", [AutoNormal, ph.infer.AutoWrappedNormal])
def test_autoguides_find_the_posterior(space, make):
    model, seen = conjugate(*space)
    z = trained(model, make(model)).median()["z"]
    assert G.contains(space[0], z)
    assert G.distance(space[0], z, seen) < 0.4


@pytest.mark.parametrize("space", ["h2xh2xr", "spd"], indirect=True)
def test_nuts_samples_the_posterior(space):
    M, _ = space
    model, seen = conjugate(*space)
    mcmc = MCMC(NUTS(model, max_tree_depth=4), num_samples=10, warmup_steps=10, disable_progbar=True)
    mcmc.run()
    z = mcmc.get_samples()["z"]
    assert G.contains(M, z).all()
    assert G.distance(M, G.frechet_mean(M, z), seen) < 0.3


def test_parameters_stay_on_the_manifold(space):
    M, n = space
    goal, start = G.exp0(M, torch.linspace(0.5, -1.0, n)), G.exp0(M, torch.full((n,), 0.4))

    def model():
        pyro.factor("f", -G.squared_distance(M, pyro.param("p", start, constraint=on_manifold(M)), goal))

    trained(model, lambda: None)
    assert G.contains(M, pyro.param("p"))
    assert G.distance(M, pyro.param("p"), goal) < 0.25


def test_weights_of_flat_space_are_refused(space):
    M, n = space
    mine, flat = (ph.flows.coupling_flow(n, 2, HT.tangent_coupling, manifold=each) for each in (M, geoopt.Euclidean(1)))
    with pytest.raises(ValueError, match="Euclidean"):
        mine.load_state_dict(flat.state_dict())


def test_batches(space):
    """Locations and scales broadcast; a batch may be empty; the divergence is that of the normals behind."""
    M, n = space
    d = hdist.WrappedNormal(G.exp0(M, torch.randn(4, 1, n)), torch.ones(3, n), M)
    x = d.rsample((2,))
    assert x.shape == (2, 4, 3, *d.event_shape)
    assert d.log_prob(x).shape == (2, 4, 3)
    assert d.expand((5, 4, 3)).rsample().shape == (5, 4, 3, *d.event_shape)
    empty = hdist.WrappedNormal(G.exp0(M, torch.zeros(0, n)), 1.0, M)
    assert empty.log_prob(empty.sample()).shape == (0,)
    loc = d.loc[0, 0]
    narrow, wide = (hdist.WrappedNormal(loc, scale, M) for scale in (0.5, 0.8))
    flat = [dist.Normal(torch.zeros(n), scale).to_event(1) for scale in (0.5, 0.8)]
    assert torch.allclose(kl_divergence(narrow, wide), kl_divergence(*flat))


def test_events_off_the_manifold_are_refused(space):
    M, n = space
    x = G.exp0(M, torch.ones(n))
    for bad in (x + 30 * torch.randn_like(x), x * math.nan):
        with pytest.raises(ValueError, match="is not on"):
            G.log0(M, bad)
        with pytest.raises(ValueError, match="is not on"):
            hdist.WrappedNormal(x, 1.0, M).log_prob(bad)
    with pytest.raises(ValueError, match="shape"):
        G.log0(M, torch.tensor(0.0))


def test_the_origin_has_the_dtype_that_is_asked_for(space):
    M, n = space
    assert G.origin(M, n).dtype == torch.float64
    assert G.origin(M, n, dtype=torch.float32).dtype == torch.float32


def test_geodesics_and_means(space):
    M, n = space
    x, y = G.exp0(M, torch.randn(2, 3, n))
    d = G.distance(M, x, y)
    for t in (torch.tensor(0.3), torch.linspace(-0.5, 1.5, 3)):
        z = G.geodesic(M, x, y, t)
        assert torch.allclose(G.distance(M, x, z), t.abs() * d, atol=1e-7)
        assert torch.allclose(G.distance(M, y, z), (1 - t).abs() * d, atol=1e-7)
    points = torch.stack([x, y])
    assert (G.distance(M, G.frechet_mean(M, points), G.geodesic(M, x, y, 0.5)) < 1e-7).all()
    assert (G.distance(M, G.frechet_mean(M, points, torch.tensor([1.0, 0.0])), x) < 1e-7).all()


@pytest.mark.parametrize("space", ["ball", "spd"], indirect=True)
def test_a_mean_is_a_minimiser_and_differentiable(space):
    M, n = space
    v, w = torch.randn(3, n, requires_grad=True), torch.rand(3).requires_grad_()

    def mean(v, w):
        return G.log0(M, G.frechet_mean(M, G.exp0(M, v), w))

    assert torch.autograd.gradcheck(mean, (v, w), atol=1e-6, fast_mode=True)
    assert (w[:, None] * G.log_at(M, G.exp0(M, mean(v, w)), G.exp0(M, v))).sum(0).abs().max() < 1e-9


def test_means_of_a_batch_are_those_of_its_members(space):
    M, n = space
    x = G.exp0(M, torch.randn(2, 5, 2, n))
    found = G.frechet_mean(M, x, dim=1)
    for i in range(2):
        for j in range(2):
            assert torch.allclose(found[i, j], G.frechet_mean(M, x[i, :, j]), atol=1e-9)
    w = torch.rand(2, 5, 2)
    assert torch.allclose(G.frechet_mean(M, x, w, dim=1)[1, 0], G.frechet_mean(M, x[1, :, 0], w[1, :, 0]), atol=1e-9)


@pytest.mark.parametrize("radius", [3.0, 12.0])
def test_a_mean_of_far_points_is_where_their_logarithms_cancel(space, radius, request):
    """Far out frames turn along a triangle, and a Hessian in a turned frame sends Newton's method away."""
    M, n = space
    v = torch.randn(6, 3, n)
    x = G.exp0(M, radius * v / v.norm(dim=-1, keepdim=True))
    assert G.log_at(M, G.frechet_mean(M, x, dim=1).unsqueeze(1), x).mean(1).abs().max() < 1e-8 * radius
    pair = G.frechet_mean(M, x[:, :2], dim=1)
    rounding = 1e-6 * radius
    if "spd" in request.node.callspec.id:  # the eigenvalues of a far matrix span exp(2 r)
        rounding += 1e-14 * math.exp(2 * radius)
    assert (G.distance(M, pair, G.geodesic(M, x[:, 0], x[:, 1], 0.5)) < rounding).all()


def test_far_points_of_no_weight_do_not_count():
    M = lorentz()
    x = G.exp0(M, torch.tensor([[300.0, 300.0], [1.0, 0.0], [0.0, 1.0]]))
    for least in (0.0, 1e-300):
        found = G.frechet_mean(M, x, torch.tensor([least, 1.0, 1.0]))
        assert torch.allclose(found, G.frechet_mean(M, x[1:]))


def test_the_gradient_of_a_mean_on_a_line_is_exact():
    v = torch.tensor([[-1.0], [0.5], [3.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(G.log0(lorentz(), G.frechet_mean(lorentz(), G.exp0(lorentz(), v))).sum(), v)
    assert torch.allclose(gradient, torch.full((3, 1), 1 / 3), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("shape", "bad"),
    [
        ((3, 2), {"dim": 2}),
        ((3, 2), {"weights": torch.tensor(1.0)}),
        ((2, 2), {"weights": -torch.ones(2)}),
        ((2, 2), {"weights": torch.zeros(2)}),
        ((0, 2), {}),
    ],
)
def test_a_mean_that_is_not_defined(shape, bad):
    with pytest.raises(ValueError, match=r"dim = 2|weights|no points"):
        G.frechet_mean(geoopt.PoincareBall(), torch.zeros(shape, dtype=torch.float32), **bad)


def test_a_mean_of_far_points_and_of_one_point():
    M = lorentz()
    x = G.exp0(M, torch.tensor([[200.0, 0.0], [-100.0, 0.0]]))
    assert torch.allclose(G.log0(M, G.frechet_mean(M, x)), torch.tensor([50.0, 0.0]), atol=1e-6)
    x = G.exp0(M, torch.tensor([1.0, 2.0])).expand(4, 3)
    assert torch.allclose(G.frechet_mean(M, x), x[0])
    single = G.frechet_mean(geoopt.Lorentz(), x.float())
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), x[0], atol=1e-6)


# ---- The Poincaré ball ----


@pytest.mark.parametrize("c", [0.3, 4.0])
def test_the_ball_is_the_hyperboloid(c):
    B, M = ball(c), lorentz(1 / c)
    v, w = torch.randn(2, 100, 3)
    for r in (1e-8, 1.0, 5.0, 10.0):
        p, q = (G.exp0(B, r * u / (u.norm(dim=-1, keepdim=True) * c**0.5)) for u in (v, w))
        x, y = (ph.charts.from_poincare_ball(M, each) for each in (p, q))
        bound = 2e-14 * (1 + math.exp(r)) / c**0.5  # by rounding of coordinates near the rim
        assert (G.distance(B, p, q) - G.distance(M, x, y)).abs().max() <= bound
        assert (G.log0(B, p) - G.log0(M, x)).abs().max() <= bound
        assert (G.log_at(B, p, q) - G.log_at(M, x, y)).norm(dim=-1).max() <= bound * (1 + math.exp(r))
        assert (G.translate(B, p, q) - ph.charts.to_poincare_ball(M, G.translate(M, x, y))).abs().max() <= bound
    far = G.exp0(B, torch.tensor([[0.0, 10.0], [0.0, -10.0]]) / c**0.5)
    assert G.distance(B, far[0], far[1]).item() == pytest.approx(20 / c**0.5, rel=1e-11)


def test_the_gradient_at_coincident_points_of_the_ball():
    B, p = ball(1.0), torch.tensor([0.3, -0.2])
    hessian = torch.autograd.functional.hessian(lambda q: G.squared_distance(B, q, p) / 2, p)
    assert torch.allclose(hessian, (2 / (1 - p.square().sum())) ** 2 * torch.eye(2))  # the metric
    assert torch.autograd.functional.jacobian(lambda q: G.distance(B, q, p), p).abs().max() == 0


@pytest.mark.parametrize(("dtype", "r"), [(torch.float32, 20.0), (torch.float64, 40.0)])
def test_a_point_rounded_to_the_rim_is_an_error(dtype, r):
    v = torch.tensor([r / 0.5**0.5, 0.0], dtype=dtype)
    with pytest.raises(ValueError, match=r"boundary.*float64"):
        G.exp0(ball(), v)
    p = G.exp0(ball(), 0.7 * v)
    with pytest.raises(ValueError, match="boundary"):
        G.translate(ball(), p, p)


@pytest.mark.parametrize("flat", [[], [(geoopt.Euclidean(1), 1)]], ids=["ball", "product"])
@pytest.mark.parametrize("validate", [True, False])
def test_data_are_scored_where_their_base_point_is_out_of_range(flat, validate):
    """As on the hyperboloid of the same curvature, and with its gradients."""
    n = 2 + len(flat)
    w = torch.tensor([[1.5, 0.4, 0.1], [0.1, 0.0, 0.2]])[:, :n]
    found = []
    for M in (geoopt.ProductManifold((ball(), 2), *flat), geoopt.ProductManifold((lorentz(2.0), 3), *flat)):
        M = M if flat else M.manifolds[0]
        scale = torch.tensor(0.02, requires_grad=True)
        flow = HT.TangentTransform(dist.transforms.AffineTransform(0.0, scale, event_dim=0), M)
        for loc in (G.origin(M, n, dtype=torch.float64), G.exp0(M, torch.full((n,), 0.3))):
            with pyro.validation_enabled(validate):
                base = hdist.WrappedNormal(loc, 1.0, M)
                value = dist.TransformedDistribution(base, [flow]).log_prob(G.exp0(M, w))
            found += [value.detach(), torch.autograd.grad(value.sum(), scale)[0]]
    for one, other in zip(found[:4], found[4:], strict=True):
        assert torch.allclose(one, other, rtol=1e-6)


def test_balls_are_modules():
    B, other = ph.manifolds.PoincareBall(0.25, learnable=True), ph.manifolds.PoincareBall(0.25)
    assert [name for name, _ in B.named_parameters()] == ["c_unconstrained"]
    assert list(other.state_dict()) == ["c"]
    assert all(G.same(B, each) for each in (other, copy.deepcopy(B), pickle.loads(pickle.dumps(B))))
    with pytest.raises(ValueError, match=r"c=0.5.*c=0.25.*fixed"):
        other.load_state_dict(ph.manifolds.PoincareBall(0.5).state_dict())
    other.c = torch.tensor(3.0)
    assert other.curvature == -3.0
    assert "(c=3.0)" in repr(other)
    other.c = PyroSample(dist.LogNormal(0.0, 1.0))
    assert "(c: latent)" in repr(other)
    assert not hasattr(other, "nothing")
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="c = "):
            ph.manifolds.PoincareBall(bad)


def of_curvature(k):
    return ph.manifolds.Lorentz.from_curvature(-1 / k)


@pytest.mark.parametrize("make", [ph.manifolds.Lorentz, ph.manifolds.PoincareBall, of_curvature])
@pytest.mark.parametrize("value", [1e-12, 2.0, 1e3])
def test_a_manifold_with_the_same_parameter_has_it_exactly_and_leaves_the_first_alone(make, value):
    """geoopt.PoincareBall rounds a small c and overflows at a large one, and writes into the tensor it is given."""
    start = torch.tensor(value, dtype=torch.float64)
    M = make(start)
    start.fill_(7.0)
    other = G.bind(M).with_parameters(G.bind(M).parameters())
    for each in (M, other):
        assert [float(parameter) for parameter in G.bind(each).parameters().values()] == [value]
    assert G.same(M, other)
    assert M.curvature == G.bind(M).curvature()


@pytest.mark.parametrize("make", [geoopt.Lorentz, ph.manifolds.Lorentz])
def test_a_learnable_parameter_starts_from_a_saved_fixed_one(make):
    owner = torch.nn.ModuleDict({"M": ph.manifolds.Lorentz(learnable=True)})
    owner.load_state_dict(torch.nn.ModuleDict({"M": make(2.0)}).state_dict())
    assert owner["M"].k.item() == pytest.approx(2.0)
    assert owner["M"].k.requires_grad


# ---- Products ----


def product(*ks):
    return geoopt.ProductManifold(*((ph.manifolds.Lorentz(k), 3) for k in ks), (geoopt.Euclidean(1), 2))


def test_a_product_is_its_factors():
    M = product(2.0, 0.5)
    v, w = torch.randn(2, 4, 6)
    x, y = G.exp0(M, v), G.exp0(M, w)
    parts = [
        (lorentz(2.0), slice(0, 3), slice(0, 2)),
        (lorentz(0.5), slice(3, 6), slice(2, 4)),
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
    assert G.same(M, product(2.0, 0.5))
    assert not G.same(M, product(0.5, 2.0))


def test_an_error_names_the_factor():
    M = product(2.0, 0.5)
    x = G.exp0(M, torch.randn(6))
    x[3] += 1
    with pytest.raises(ValueError, match=r"factor 1, Lorentz.*-0.5.*exp0"):
        G.log0(M, x)
    with pytest.raises(ValueError, match=r"6 dimensions.*5"):
        G.exp0(M, torch.randn(5))
    for factors, error, words in (
        ([(geoopt.Lorentz(k=-1.0), 3)], ValueError, r"k of factor 0.*= -1"),
        ([(lorentz(), 3), (lorentz(), 1)], ValueError, "factor 1"),
        ([(lorentz(), 3), (geoopt.Sphere(), 3)], TypeError, "Sphere"),
    ):
        with pytest.raises(error, match=words):
            G.exp0(geoopt.ProductManifold(*factors), torch.randn(2 * len(factors)))


def test_factor_couplings_move_their_factor_only():
    M = product(2.0, 0.5)
    x = G.exp0(M, torch.randn(7, 6))
    for i, moved in enumerate((slice(0, 3), slice(3, 6), slice(6, 8))):
        y = shaken(HT.factor_coupling(6, i, manifold=M))(x)
        stays = torch.ones(8, dtype=torch.bool)
        stays[moved] = False
        assert torch.allclose(y[:, stays], x[:, stays], atol=1e-12)
        assert not torch.isclose(y[:, moved], x[:, moved]).any()
    M = geoopt.ProductManifold((lorentz(), 3), (geoopt.Euclidean(1), 1), (geoopt.Euclidean(1), 5))
    assert [HT.factor_coupling(8, i, manifold=M).split_dim for i in range(3)] == [6, 7, 3]  # of the other factors


@pytest.mark.parametrize("nested", [True, False])
def test_factor_couplings_move_no_farther_than_their_bound(nested):
    """In units of sqrt(k). On a nested manifold a shift is the point itself, and its ball point is bounded."""
    factor, unit = ((lorentz(4.0), 4), 2.0) if nested else ((geoopt.SymmetricPositiveDefinite(), (2, 2)), 1.0)
    M = geoopt.ProductManifold(factor, (geoopt.Euclidean(1), 1))
    length, moved = 5 * 3**0.5 / unit, []
    for bound in (1.5, None):
        layer = HT.FactorCoupling(0, lambda x: (torch.full((3,), 5.0), torch.zeros(3)), M, shift_bound=bound)
        moved.append(float(G.distance(M, G.origin(M, 4), layer(G.origin(M, 4)))) / unit)
    if nested:
        half, longest = length / 2, 1.5 / (1 + math.hypot(1, 1.5))
        expected = [2 * math.atanh(half / math.hypot(1, half / longest)), math.asinh(length)]
    else:
        expected = [length / math.hypot(1, length / 1.5), length]
    assert moved == pytest.approx(expected)
    assert moved[0] < (math.asinh(1.5) if nested else 1.5)


def test_factor_couplings_need_a_factor_and_another():
    for dim, index in ((6, 3), (5, 0), (7, 0)):
        with pytest.raises(ValueError, match=r"factors|dimensions"):
            HT.factor_coupling(dim, index, manifold=product(2.0, 0.5))
    for M in (product(), lorentz()):
        with pytest.raises(TypeError, match="ProductManifold"):
            HT.factor_coupling(2, 0, manifold=M)


def test_curvatures_of_factors_are_learned():
    factors = [ph.manifolds.Lorentz(1.0, learnable=True) for _ in range(2)]
    M = geoopt.ProductManifold((factors[0], 3), (factors[1], 3))
    flow = ph.flows.coupling_flow(4, 2, manifold=M)
    assert sum("k_unconstrained" in name for name, _ in flow.named_parameters()) == 2
    x = hdist.WrappedNormal(G.origin(M, 4), 1.0, M).rsample((5,))
    (flow(x).square().sum() + G.distance(M, x[0], x[1])).backward()
    assert all(factor.k_unconstrained.grad is not None for factor in factors)


def test_latent_curvatures_of_factors():
    class Model(pyro.nn.PyroModule):
        def __init__(self):
            super().__init__()
            self.space = ph.manifolds.Product((ph.manifolds.Lorentz(), 3), (ph.manifolds.PoincareBall(), 2))
            self.space.manifolds[0].k = pyro.nn.PyroSample(dist.LogNormal(0.0, 0.3))
            self.space.manifolds[1].c = pyro.nn.PyroSample(dist.LogNormal(0.0, 0.3))

        def forward(self):
            return pyro.sample("z", hdist.WrappedNormal(G.origin(self.space, 4), 1.0, self.space))

    trace = pyro.poutine.trace(Model()).get_trace()
    site = trace.nodes["z"]
    parameters = G.bind(site["fn"].manifold).parameters()
    assert torch.isclose(parameters["k of factor 0"], trace.nodes["space.manifolds.0.k"]["value"])
    assert torch.isclose(parameters["c of factor 1"], trace.nodes["space.manifolds.1.c"]["value"])
    assert site["fn"].support.check(site["value"])
    assert math.isfinite(trace.log_prob_sum().item())


def test_batched_curvatures_of_factors():
    def normal(k):
        M = geoopt.ProductManifold((geoopt.Lorentz(k), 3), (geoopt.Euclidean(1), 1))
        return hdist.WrappedNormal(G.origin(M, 3), torch.tensor(0.7), M)

    k = torch.tensor([0.5, 1.0, 3.0])
    d = normal(k)
    x = d.rsample()
    assert d.batch_shape == (3,)
    for i in range(3):
        assert torch.allclose(normal(k[i]).log_prob(x[i]), d.log_prob(x)[i])


def test_riemannian_optimisers_move_points_of_products():
    M = product(2.0, 0.5)
    goal = G.exp0(M, torch.randn(6))
    p = geoopt.ManifoldParameter(G.exp0(M, torch.randn(6)), manifold=M)
    optimiser = geoopt.optim.RiemannianAdam([p], lr=0.2)
    for _ in range(80):
        optimiser.zero_grad()
        G.squared_distance(M, p, goal).backward()
        optimiser.step()
    assert G.distance(M, p, goal) < 0.1


# ---- Matrices ----


def test_the_distance_of_matrices_is_that_of_geoopt():
    x, y = G.exp0(SPD, torch.randn(2, 20, 6))
    assert torch.allclose(G.distance(SPD, x, y), SPD.dist(x, y))
    assert torch.allclose(G.distance(SPD, x, y), G.log_at(SPD, x, y).norm(dim=-1))


def test_gradients_are_finite_at_equal_eigenvalues():
    eye = torch.eye(3, requires_grad=True)
    for value in (G.log0(SPD, eye).sum(), G.distance(SPD, eye, 2 * torch.eye(3)), G.distance(SPD, eye, torch.eye(3))):
        assert torch.autograd.grad(value, eye)[0].isfinite().all()
    v = torch.zeros(6, requires_grad=True)
    assert torch.autograd.grad(G.exp0(SPD, v).sum() + G.log_volume(SPD, v), v)[0].isfinite().all()


def test_log_volumes_bend_by_a_third_of_the_ricci_curvature():
    """At equal eigenvalues that is -m / 4 for matrices without trace, and zero along the identity."""
    trace = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    for v in (0 * trace, 7 * trace):
        hessian = torch.autograd.functional.hessian(lambda v: G.log_volume(SPD, v), v)
        assert torch.allclose(hessian, (torch.eye(6) - trace.outer(trace) / 3) / 4)


def test_matrices_of_two_rows_are_a_line_times_a_plane():
    """SPD(2) is R x H^2(k = 2), isometrically: distances from the identity add up from trace and traceless part."""
    H, (v, w) = lorentz(2.0), torch.randn(2, 30, 3)

    def split(v):
        trace, difference = v[..., 0] + v[..., 1], v[..., 0] - v[..., 1]
        return trace / 2**0.5, torch.stack([difference / 2**0.5, v[..., 2]], -1)

    (a, p), (b, q) = split(v), split(w)
    expected = ((a - b) ** 2 + G.squared_distance(H, G.exp0(H, p), G.exp0(H, q))).sqrt()
    assert torch.allclose(G.distance(SPD, G.exp0(SPD, v), G.exp0(SPD, w)), expected)
    assert torch.allclose(G.log_volume(SPD, v), G.log_volume(H, p))


def test_sizes_and_metrics_that_no_matrix_has():
    with pytest.raises(ValueError, match=r"m \(m \+ 1\) / 2"):
        G.exp0(SPD, torch.randn(4))
    with pytest.raises(ValueError, match="shape"):
        G.log0(SPD, torch.randn(2, 3))
    with pytest.warns(UserWarning, match="not fully implemented"):
        other = geoopt.SymmetricPositiveDefinite("LEM")
    with pytest.raises(ValueError, match=r"LEM.*SymmetricPositiveDefinite\(\)"):
        G.exp0(other, torch.randn(3))


# ---- What has no global chart ----


class Circle(geoopt.Sphere):
    """A manifold that is registered, with a geometry that is not Hadamard."""


class CircleGeometry(G.Geometry):
    name = "Circle"
    event_shape = dim = contains = distance = squared_distance = lambda self, *args: torch.Size((2,))


G.register(Circle, CircleGeometry)


@pytest.mark.parametrize("kind", [geoopt.Sphere, Circle])
@pytest.mark.parametrize(
    "call",
    [
        lambda M: biject_to(on_manifold(M)),
        lambda M: HT.ExponentialMap(M),
        lambda M: hdist.WrappedNormal(torch.tensor([1.0, 0.0, 0.0]), torch.ones(2), M),
        lambda M: ph.flows.coupling_flow(2, 2, manifold=M),
        lambda M: G.chart(M),
    ],
)
def test_what_needs_a_chart_names_the_manifold_and_one_that_has_one(call, kind):
    with pytest.raises(TypeError, match=rf"{kind.__name__}.*Lorentz"):
        call(kind())


# ---- A manifold of one's own ----


def test_the_worked_example_of_contributing_passes_every_law():
    """With guides and flows; its distances are those of the hyperboloid."""
    M, n, H = HalfSpace(), 3, lorentz()
    v = torch.randn(8, n)
    x = G.exp0(M, v)
    ph.testing.assert_constraint_laws(on_manifold(M), x, -x)
    ph.testing.assert_transform_laws(HT.ExponentialMap(M, x[0]), v)
    ph.testing.assert_transform_laws(shaken(ph.flows.coupling_flow(n, 2, manifold=M), 0.3), x)
    ph.testing.assert_distribution_laws(hdist.WrappedNormal(x[0], 0.5, M))
    assert torch.allclose(G.distance(M, x, x[:1]), G.distance(H, G.exp0(H, v), G.exp0(H, v[:1])))
    model, seen = conjugate(M, n)
    assert G.distance(M, trained(model, ph.infer.AutoWrappedNormal(model)).median()["z"], seen) < 0.4


@pytest.mark.parametrize("missing", ["event_shape", "dim", "contains", "exp0", "log0", "translate"])
def test_a_geometry_without_one_of_its_six_methods_cannot_be_made(missing):
    parts = {name: value for name, value in vars(HalfSpaceGeometry).items() if not name.startswith("_")}
    type("Whole", (G.Hadamard,), parts)(HalfSpace())
    del parts[missing]
    with pytest.raises(TypeError, match=missing):
        type("Partial", (G.Hadamard,), parts)(HalfSpace())


def test_dimensions_of_matrices():
    shapes = [(3, 3), (2, 2), (1, 1), (2, 3), (3,), ()]
    assert [G.bind(SPD).dim(shape) for shape in shapes] == [6, 3, 1, 0, 0, 0]


def test_matrices_are_projected_to_their_symmetric_parts():
    x = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    assert torch.equal(G.project(geoopt.SymmetricPositiveDefinite(), x), torch.tensor([[2.0, 0.5], [0.5, 3.0]]))


def test_singular_matrices_are_not_positive_definite():
    x = torch.stack([torch.diag(torch.tensor([1.0, least])) for least in (1.0, 0.0, -1.0)])
    assert G.contains(geoopt.SymmetricPositiveDefinite(), x).tolist() == [True, False, False]


@pytest.mark.parametrize("name", [*MANIFOLDS, *UNCHARTED])
def test_autocast_does_not_round_points(name):
    make, n = {**MANIFOLDS, **UNCHARTED}[name]
    M = make()
    x, y, z = (G.project(M, point.float()) for point in base_on(M, n).sample((3,)))

    def results():
        torch.manual_seed(0)
        lifted = G.bind(M).lifted(G.bind(M).lift(x, random=True))
        return [G.geodesic(M, x, y, 0.3), G.distance_matrix(M, torch.stack([x, y, z])), *lifted]

    expected = results()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(results(), expected, rtol=0, atol=0)
