"""What couplings and flows promise beyond the laws: special cases that coincide, starts near the identity, stacks."""

import copy
import math
from functools import partial

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from tests.cases import continuous, lorentz, shaken

G = ph.geometry
FLAT = geoopt.Euclidean(1)
each_coupling = pytest.mark.parametrize("coupling", [HT.TangentCoupling, HT.WrappedHyperboloidCoupling])
each_builder = pytest.mark.parametrize("builder", [HT.tangent_coupling, HT.wrapped_hyperboloid_coupling])


def outputs(size, shift, log_scale):
    """A network of the first block with outputs of that size, nonlinear in it."""

    def network(x1):
        total = x1.sum(-1, keepdim=True).expand(*x1.shape[:-1], size)
        return shift * total.cos(), log_scale * total.sin()

    return network


def points(M, *batch, dim=3):
    return G.exp0(M, torch.randn(*batch, dim, dtype=torch.float64))


def assert_same_map(t, other, x, tolerance=1e-12):
    torch.testing.assert_close(t(x), other(x), rtol=tolerance, atol=tolerance)
    log_dets = [each.log_abs_det_jacobian(x, each(x)) for each in (t, other)]
    torch.testing.assert_close(*log_dets, rtol=tolerance, atol=tolerance)


# Special cases


@pytest.mark.parametrize("k", [1.0, 4.0, 0.25])
def test_whc_is_tc_with_asinh_where_the_moving_block_is_a_line(k):
    M, net = lorentz(k), outputs(1, 2.0, 0.7)
    tc = HT.TangentCoupling(2, lambda x1: (k**0.5 * (net(x1)[0] / k**0.5).asinh(), net(x1)[1]), M)
    assert_same_map(HT.WrappedHyperboloidCoupling(2, net, M), tc, points(M, 20))


def test_whc_is_not_tc_where_the_moving_block_is_a_plane():
    M, net = lorentz(), outputs(2, 1.0, 0.3)
    x, tc = points(M, 20), HT.TangentCoupling(1, lambda x1: (net(x1)[0].asinh(), net(x1)[1]), M)
    assert not torch.allclose(HT.WrappedHyperboloidCoupling(1, net, M)(x), tc(x), rtol=1e-3)


@each_coupling
def test_on_euclidean_space_both_are_affine_coupling(coupling):
    net = outputs(2, 2.0, 0.7)
    assert_same_map(coupling(1, net, FLAT), dist.transforms.AffineCoupling(1, net), points(FLAT, 20), 1e-14)


def test_tc_is_real_nvp_pushed_through_the_exponential_map():
    M = lorentz()
    curved, flat = (shaken(ph.flows.coupling_flow(2, 4, HT.tangent_coupling, manifold=N), 0.4) for N in (M, FLAT))
    chart = HT.ExponentialMap(M)
    assert_same_map(curved, dist.transforms.ComposeTransform([chart.inv, flat, chart]), points(M, 20, dim=2))


# Stacks


@each_builder
@pytest.mark.parametrize("dim", [2, 3, 6])
def test_a_flow_starts_near_the_identity_and_not_at_it(builder, dim):
    """Two layers move every coordinate, and each weight has a gradient."""
    M = lorentz()
    flow = ph.flows.coupling_flow(dim, 2, builder, manifold=M).double()
    x = points(M, 50, dim=dim)
    moved = (G.log0(M, flow(x)) - G.log0(M, x)).abs().amax(0)
    assert (moved > 0).all()
    assert (moved < 0.1).all()
    flow.log_abs_det_jacobian(x, flow(x)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in flow.parameters() if p.dim() > 1)


@each_builder
@pytest.mark.parametrize("dim", [2, 5])
def test_a_flow_is_its_layers_one_after_another(dim, builder):
    """With the blocks swapped between them."""
    M = lorentz(4.0)
    flow = shaken(ph.flows.coupling_flow(dim, 3, builder, manifold=M))
    y = x = points(M, 10, dim=dim)
    log_det, sizes = 0.0, (dim // 2, dim - dim // 2)

    def swapped(point, size):
        return torch.cat([point[..., :1], point[..., 1 + size :], point[..., 1 : 1 + size]], -1)

    for i, layer in enumerate(flow.layers):
        before = swapped(y, sizes[0]) if i % 2 else y
        after = layer(before)
        log_det = log_det + layer.log_abs_det_jacobian(before, after)
        y = swapped(after, sizes[1]) if i % 2 else after
    torch.testing.assert_close(flow(x), y, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(flow.log_abs_det_jacobian(x, flow(x)), log_det, rtol=1e-10, atol=1e-10)


def test_a_context_gives_each_member_of_the_batch_its_own_flow_and_noise():
    M = lorentz()
    flow = shaken(ph.flows.coupling_flow(2, 2, manifold=M, context_dim=3), 0.4)
    d = dist.conditional.ConditionalTransformedDistribution(hdist.WrappedNormal(G.origin(M, 2), 1.0, M), [flow])
    same = d.condition(torch.zeros(4, 3, dtype=torch.float64))
    with pyro.plate("draws", 6, dim=-2), pyro.plate("data", 4, dim=-1):
        assert pyro.sample("x", same).unique(dim=0).shape == (6, 4, 3)  # shared noise would show
    contexts = torch.randn(4, 3, dtype=torch.float64)
    together, x = d.condition(contexts), same.rsample().detach()
    alone = torch.stack([d.condition(c).log_prob(y) for c, y in zip(contexts, x, strict=True)])
    assert together.batch_shape == same.batch_shape == (4,)
    torch.testing.assert_close(together.log_prob(x), alone, rtol=0, atol=1e-9)
    assert not torch.allclose(alone, same.log_prob(x.clone()), atol=1e-3)


def test_builder_arguments_are_bound_by_partial():
    builder = partial(HT.wrapped_hyperboloid_coupling, shift_bound=0.5, log_scale_bound=1.0)
    conditional = ph.flows.coupling_flow(4, 2, builder, context_dim=3)
    for flow in (ph.flows.coupling_flow(4, 2, builder), conditional.condition(torch.zeros(3))):
        assert all((layer.shift_bound, layer.log_scale_bound) == (0.5, 1.0) for layer in flow.layers)


@pytest.mark.parametrize("size", [0.0, 1e-6, 1.0, 30.0, 1e3])
def test_bounds_hold_whatever_the_network_says(size):
    """A block at zero goes to the target, shortened to |t| < b sqrt(k) in the Poincare ball; scales are within e^b."""
    M, bound = lorentz(4.0), 3.0
    t = HT.WrappedHyperboloidCoupling(1, outputs(2, size, size), M, log_scale_bound=bound, shift_bound=bound)
    v = G.log0(M, t(G.exp0(M, torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64))))
    half = size * math.cos(0.5) * 2**0.5 / 4  # over 2 sqrt(k)
    longest = math.tanh(math.asinh(bound) / 2)
    assert v[1:].norm().item() == pytest.approx(4 * math.atanh(half / math.hypot(1, half / longest)), rel=1e-12)
    flat, x = HT.TangentCoupling(1, outputs(2, 0.0, size), FLAT, log_scale_bound=bound), points(FLAT, 7)
    assert (flat.log_abs_det_jacobian(x, flat(x)).abs() <= 2 * bound).all()


def test_parameters_are_those_of_what_is_lifted_and_of_a_learnable_curvature():
    spline = dist.transforms.spline_coupling(2, 1)
    names = {name for name, _ in HT.TangentTransform(spline).named_parameters()}
    assert names == {f"transform.{name}" for name, _ in spline.named_parameters()}
    assert not list(HT.TangentTransform(dist.transforms.AffineTransform(0.0, 2.0)).parameters())
    for M, number in ((ph.manifolds.Lorentz(learnable=True), 1), (ph.manifolds.Lorentz(), 0), (geoopt.Lorentz(), 0)):
        flow = ph.flows.coupling_flow(2, 2, manifold=M)
        assert sum("manifold" in name for name, _ in flow.named_parameters()) == number


# Shapes, far points, precision

NUMBERS = torch.linspace(-1.5, 1.6, 30, dtype=torch.float64).reshape(2, 5, 3)
LOCATIONS, CONTEXTS, CURVATURES = G.exp0(lorentz(), NUMBERS), NUMBERS[..., :2], torch.ones(2, 5)
#: What a map depends on, of batch shape (2, 5), and how the map is made.
BATCHED = {
    "translation": (LOCATIONS, lambda loc: HT.Translation(lorentz(), loc)),
    "exponential map": (LOCATIONS, lambda loc: HT.ExponentialMap(lorentz(), loc)),
    "reflection": (NUMBERS, lambda direction: HT.Reflection(lorentz(), direction)),
    "reflection, curvatures": (CURVATURES, lambda k: HT.Reflection(geoopt.Lorentz(k), NUMBERS[0, 0])),
    "lifted": (NUMBERS, lambda v: HT.TangentTransform(dist.transforms.AffineTransform(v, 1.3, event_dim=1))),
    "coupling": (CONTEXTS, lambda c: shaken(HT.conditional_tangent_coupling(3, 2)).condition(c)),
    "flow": (CONTEXTS, lambda c: shaken(ph.flows.coupling_flow(3, 2, context_dim=2), 0.4).condition(c)),
    "second layer": (
        CONTEXTS,
        lambda c: ph.flows.CouplingFlow(
            [shaken(HT.tangent_coupling(3)), shaken(HT.conditional_tangent_coupling(3, 2, split_dim=2)).condition(c)]
        ),
    ),
    "continuous flow": (CONTEXTS, lambda c: continuous(lorentz(), 3, context_dim=2, steps=1).condition(c)),
    "curvatures": (CURVATURES, lambda k: shaken(HT.tangent_coupling(3, manifold=geoopt.Lorentz(k)))),
}


@pytest.mark.parametrize("batch", [(), (3, 2, 1)])
@pytest.mark.parametrize("name", BATCHED)
def test_what_a_map_depends_on_enlarges_the_batch(name, batch):
    """By its own batch shape (2, 5), as its shapes say beforehand, and back; each member has the map of its own."""
    given, make = BATCHED[name]
    t = make(given)
    x = torch.randn(*batch, 3, dtype=torch.float64) if name == "exponential map" else points(lorentz(), *batch)
    y = t(x)
    assert y.shape == t.forward_shape(x.shape) == (*torch.broadcast_shapes(batch, (2, 5)), 4)
    log_det = t.log_abs_det_jacobian(x, y)
    assert torch.broadcast_shapes(log_det.shape, y.shape[:-1]) == y.shape[:-1]
    back = t.inv(y.clone())
    assert back.shape == t.inverse_shape(y.shape) == (*y.shape[:-1], x.size(-1))
    x, log_det = x.expand_as(back), log_det.expand(y.shape[:-1])
    torch.testing.assert_close(back, x, rtol=0, atol=1e-7)
    for i, j in ((0, 0), (1, 3)):
        own, alone = x[..., i, j, :], make(given[i, j])
        torch.testing.assert_close(alone(own), y[..., i, j, :], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(alone.log_abs_det_jacobian(own, alone(own)), log_det[..., i, j], rtol=0, atol=1e-9)


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize(("dtype", "k"), [(torch.float32, 1.0), (torch.float64, 4.0)])
@each_coupling
def test_data_are_scored_where_their_base_point_is_out_of_range(coupling, dtype, k, validate):
    """The density needs tangent vectors only: here 6000 from the origin, about -r^2 / 2; its gradient is finite too."""
    M, shrink = lorentz(k), torch.tensor(-8.0, dtype=dtype, requires_grad=True)
    layers = [coupling(2, lambda v1: (torch.zeros_like(v1), shrink.expand_as(v1)), M) for _ in range(2)]
    flow = ph.flows.CouplingFlow(layers)
    w = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.5, -1.0, 2.0], [0.1, 0.0, 0.0, 0.0]], dtype=dtype)
    y, v = G.exp0(M, w), w.double() * math.exp(8)
    exact = dist.Normal(0.0, 1.0).log_prob(v).sum(-1) + 32 - G.log_volume(M, w.double())

    def score(base, *transforms):
        return dist.TransformedDistribution(base, list(transforms)).log_prob(y).double()

    origin, accuracy = G.origin(M, 4, dtype=dtype), 1e-4 if dtype == torch.float32 else 1e-12
    with pyro.validation_enabled(validate):
        found = score(hdist.WrappedNormal(origin.clone(), 1.0, M), flow)
        torch.testing.assert_close(found, exact, rtol=accuracy, atol=0)
        (gradient,) = torch.autograd.grad(found.sum(), shrink)
        assert gradient.item() == pytest.approx((v**2).sum().item() - 12, rel=1e-3)
        full = hdist.WrappedMultivariateNormal(origin, torch.eye(4, dtype=dtype), manifold=M)
        torch.testing.assert_close(score(full, flow), exact, rtol=1e-4, atol=0)
        moved = hdist.WrappedNormal(G.exp0(M, torch.eye(4, dtype=dtype)[0] * 2), 1.0, M)
        torch.testing.assert_close(score(moved, flow)[1], exact[1], rtol=1e-2, atol=0)
        assert score(hdist.WrappedNormal(origin, 1.0, M), flow, flow).isfinite().all()


AUTOCAST = {
    "tc": lambda M: HT.tangent_coupling(3, manifold=M),
    "whc": lambda M: HT.wrapped_hyperboloid_coupling(3, manifold=M),
    "flow": lambda M: ph.flows.coupling_flow(3, 3, manifold=M),
    "conditional flow": lambda M: ph.flows.coupling_flow(3, 2, manifold=M, context_dim=2),
    "lifted coupling": lambda M: HT.TangentTransform(dist.transforms.affine_coupling(3, [8]), M),
    "lifted spline": lambda M: HT.TangentTransform(dist.transforms.spline_coupling(3, 1, [8], 4), M),
    "polar": lambda M: HT.polar_coupling([8], 4, manifold=M),
}


@pytest.mark.parametrize("M", [geoopt.Lorentz(4.0), FLAT], ids=["k4", "flat"])
@pytest.mark.parametrize("name", AUTOCAST)
def test_under_autocast_only_networks_are_of_low_precision(name, M):
    """Points, log-determinants and round trips are as accurate as ever, for the map that the networks say."""
    module = shaken(AUTOCAST[name](M)).float()
    t = module.condition(torch.ones(2)) if name == "conditional flow" else module
    x = points(M, 50, dim=2 if name == "polar" else 3).float()
    x = G.exp0(M, G.log0(M, x))  # on the manifold in float32
    plain = t(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = t(x)
        log_det = t.log_abs_det_jacobian(x, y)
        assert y.dtype == log_det.dtype == x.dtype
        assert G.contains(M, y).all()
        torch.testing.assert_close(t.inv(y.detach().clone()), x, rtol=2e-3, atol=2e-3)
        jacobian = torch.autograd.functional.jacobian(lambda v: G.log0(M, t(G.exp0(M, v))).sum(0), G.log0(M, x))
    volumes = G.log_volume(M, G.log0(M, y)) - G.log_volume(M, G.log0(M, x))
    torch.testing.assert_close(log_det, jacobian.movedim(1, 0).slogdet()[1] + volumes, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(y, plain, rtol=0.1, atol=0.1)
    (y.sum() + log_det.sum()).backward()
    assert all(value.grad.isfinite().all() and value.grad.any() for value in module.parameters())


@pytest.mark.parametrize("name", ["scale_tril", "covariance_matrix", "precision_matrix"])
def test_under_autocast_samples_and_matrices_are_at_full_precision(name):
    M, factor = geoopt.Lorentz(), torch.eye(3) + 0.3 * torch.ones(3, 3).tril(-1)
    matrix = factor if name == "scale_tril" else factor @ factor.mT
    d = hdist.WrappedMultivariateNormal(G.exp0(M, torch.ones(3)), manifold=M, **{name: matrix})

    def results():
        torch.manual_seed(0)
        return [d.sample((9,)), d.rsample((9,)), d.scale_tril, d.covariance_matrix, d.precision_matrix]

    expected = results()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(results(), expected)

    def score(scale):  # a matrix that vmap hides is not validated
        return hdist.WrappedMultivariateNormal(d.loc, manifold=M, **{name: scale * matrix}).log_prob(expected[0])

    scales = torch.tensor([0.5, 2.0])
    torch.testing.assert_close(torch.vmap(score)(scales), torch.stack(list(map(score, scales))))


#: What a subclass has to give; one that lacks any of it cannot be made.
ABSTRACT = {
    HT.ManifoldTransform: {"_forward", "_backward"},
    HT.TangentModule: {"_tangent_forward", "_tangent_backward"},
    HT.Coupling: {"_move", "_move_back"},
    ph.geometry.Geometry: {"event_shape", "dim", "contains", "distance", "squared_distance"},
    ph.geometry.Complete: {
        *("event_shape", "dim", "contains", "distance", "squared_distance", "exp", "log", "features"),
        *("point", "state", "velocity"),
    },
    ph.geometry.Embedded: {
        *("event_shape", "dim", "contains", "distance", "squared_distance", "exp", "log", "features"),
        *("log_total_volume", "project", "uniform"),
    },
    ph.geometry.Hadamard: {"event_shape", "dim", "contains", "exp0", "log0", "translate"},
    ph.geometry.Nested: {
        *("event_shape", "dim", "contains", "exp0", "log0", "translate"),
        *("translate_tangent", "reflect"),
    },
}


@pytest.mark.parametrize("kind", ABSTRACT)
def test_a_subclass_has_to_give_all_that_is_abstract(kind):
    assert kind.__abstractmethods__ == ABSTRACT[kind]
    for missing in ABSTRACT[kind]:
        parts = dict.fromkeys(ABSTRACT[kind] - {missing}, lambda *args: args)
        with pytest.raises(TypeError, match=missing):
            type("Partial", (kind,), parts)(None)


@pytest.mark.parametrize("kind", [HT.TangentCoupling, HT.WrappedHyperboloidCoupling])
def test_couplings_take_every_argument_by_name(kind):
    layer = kind(split_dim=1, hypernet=lambda x1: (x1, x1), manifold=lorentz(), log_scale_bound=2.0, cache_size=0)
    x = ph.geometry.exp0(lorentz(), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(layer.inv(layer(x)), x)


#: The widths of hidden layers by default, as the docstrings say.
WIDTHS = {
    HT.tangent_coupling: [30],
    HT.wrapped_hyperboloid_coupling: [30],
    HT.polar_coupling: [64, 64],
    partial(HT.factor_coupling, manifold=geoopt.ProductManifold((geoopt.Lorentz(), 3), (FLAT, 1)), index=0): [30],
    HT.DenseField: [128, 128],
    HT.AnchorField: [128, 128],
    partial(HT.MixtureField, manifold=FLAT, data=torch.randn(60, 3)): [128, 128],
}


@pytest.mark.parametrize("builder", WIDTHS)
def test_widths_by_default(builder):
    dim = {} if builder is HT.polar_coupling else {"dim": 3}
    made = [builder(**dim), builder(**dim, hidden_dims=WIDTHS[builder])]
    assert len({tuple((name, value.shape) for name, value in each.named_parameters()) for each in made}) == 1


def test_a_layer_of_your_own_remembers_its_samples_unless_told_otherwise():
    kind = type("Layer", (HT.TangentModule,), dict.fromkeys(["_tangent_forward", "_tangent_backward"]))
    assert [kind(M)._cache_size for M in (None, geoopt.Lorentz(2.0))] == [1, 1]


def test_a_lifted_map_with_a_part_twice_is_copied_after_use():
    """Caches of all parts are cleared: those of Pyro's splines are of a graph, which cannot be copied."""
    first, twice = dist.transforms.spline(2), dist.transforms.spline(2)
    lifted = HT.TangentTransform(dist.transforms.ComposeTransform([first, twice, twice]), lorentz())
    x = G.exp0(lorentz(), torch.randn(5, 2))
    assert torch.equal(copy.deepcopy(lifted)(x), lifted(x))
    assert torch.equal(copy.deepcopy(lifted)(x), lifted(x))


def test_numbers_of_a_hypernet_are_cast_under_autocast_only():
    layer = HT.TangentCoupling(1, lambda v: (v.double(), v.double()), lorentz())
    x = ph.geometry.exp0(lorentz(), torch.ones(3, 2))
    with pytest.raises(TypeError, match="float64"):
        layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.float32
