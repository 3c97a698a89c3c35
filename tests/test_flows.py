"""What couplings and flows promise beyond the laws: special cases that coincide, starts near the identity, stacks."""

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
from tests.cases import lorentz, shaken

G = ph.geometry


def outputs(k2, shift, log_scale):
    """A network of the first block with the given outputs, nonlinear in it."""
    return lambda x1: (
        shift * x1.sum(-1, keepdim=True).cos().expand((*x1.shape[:-1], k2)),
        log_scale * x1.sum(-1, keepdim=True).sin().expand((*x1.shape[:-1], k2)),
    )


@pytest.mark.parametrize("k", [1.0, 4.0, 0.25])
def test_whc_is_tc_with_asinh_where_the_moving_block_is_a_line(k):
    M = lorentz(k)
    net = outputs(1, 2.0, 0.7)
    whc = HT.WrappedHyperboloidCoupling(2, net, M)
    tc = HT.TangentCoupling(2, lambda x1: (k**0.5 * (net(x1)[0] / k**0.5).asinh(), net(x1)[1]), M)
    x = G.exp0(M, torch.randn(20, 3, dtype=torch.float64))
    assert torch.allclose(whc(x), tc(x), rtol=1e-12)
    assert torch.allclose(whc.log_abs_det_jacobian(x, whc(x)), tc.log_abs_det_jacobian(x, tc(x)), atol=1e-12)


def test_whc_is_not_tc_where_the_moving_block_is_a_plane():
    """The moving block is curved from two dimensions on: there the two are different flows."""
    M = lorentz()
    net = outputs(2, 1.0, 0.3)
    x = G.exp0(M, torch.randn(20, 3, dtype=torch.float64))
    pointwise = HT.TangentCoupling(1, lambda x1: (net(x1)[0].asinh(), net(x1)[1]), M)
    assert not torch.allclose(HT.WrappedHyperboloidCoupling(1, net, M)(x), pointwise(x), rtol=1e-3)


@pytest.mark.parametrize("coupling", [HT.TangentCoupling, HT.WrappedHyperboloidCoupling])
def test_on_euclidean_space_both_are_affine_coupling(coupling):
    net = outputs(2, 2.0, 0.7)
    ours = coupling(1, net, geoopt.Euclidean(1))
    pyros = dist.transforms.AffineCoupling(1, net)
    x = torch.randn(20, 3, dtype=torch.float64)
    assert torch.allclose(ours(x), pyros(x), rtol=1e-14)
    assert torch.allclose(ours.log_abs_det_jacobian(x, ours(x)), pyros.log_abs_det_jacobian(x, pyros(x)), atol=1e-14)


@pytest.mark.parametrize("coupling", [HT.tangent_coupling, HT.wrapped_hyperboloid_coupling])
@pytest.mark.parametrize("dim", [2, 3, 6])
def test_a_flow_starts_near_the_identity_and_not_at_it(coupling, dim):
    M = lorentz()
    flow = ph.flows.coupling_flow(dim, 4, coupling, manifold=M).double()
    x = G.exp0(M, torch.randn(50, dim, dtype=torch.float64))
    moved = (G.log0(M, flow(x)) - G.log0(M, x)).norm(dim=-1)
    assert 0 < moved.max() < 0.1
    flow.log_abs_det_jacobian(x, flow(x)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in flow.parameters() if p.dim() > 1)


@pytest.mark.parametrize("dim", [2, 3, 5])
@pytest.mark.parametrize("coupling", [HT.tangent_coupling, HT.wrapped_hyperboloid_coupling])
def test_a_flow_is_its_layers_one_after_another(dim, coupling):
    """One transform through the chart once, against single layers on the manifold with the halves swapped between."""
    M = lorentz(4.0)
    flow = shaken(ph.flows.coupling_flow(dim, 3, coupling, manifold=M))
    x = G.exp0(M, torch.randn(10, dim, dtype=torch.float64))
    y, log_det, split = x, 0.0, dim // 2

    def swapped(point, size):
        return torch.cat([point[..., :1], point[..., 1 + size :], point[..., 1 : 1 + size]], -1)

    for i, layer in enumerate(flow.layers):
        before = swapped(y, split) if i % 2 else y
        after = layer(before)
        log_det = log_det + layer.log_abs_det_jacobian(before, after)
        y = swapped(after, dim - split) if i % 2 else after
    assert torch.allclose(flow(x), y, rtol=1e-10)
    assert torch.allclose(flow.log_abs_det_jacobian(x, flow(x)), log_det, atol=1e-10)


def test_two_layers_move_every_coordinate():
    M = lorentz()
    for dim in (2, 3, 5):
        flow = shaken(ph.flows.coupling_flow(dim, 2, manifold=M))
        v = torch.randn(1, dim, dtype=torch.float64)
        assert (G.log0(M, flow(G.exp0(M, v))) - v).abs().min() > 1e-6


def test_a_context_gives_each_member_of_the_batch_its_own_flow_and_noise():
    M = lorentz()
    flow = shaken(ph.flows.coupling_flow(2, 2, manifold=M, context_dim=3))
    context = torch.randn(5, 3, dtype=torch.float64)
    base = hdist.WrappedNormal(G.origin(M, 2), 1.0, M)
    d = dist.conditional.ConditionalTransformedDistribution(base, [flow]).condition(context)
    x = d.rsample()
    assert x.shape == (5, 3)
    assert d.batch_shape == (5,)
    unflowed = flow.condition(context).inv(x.detach())
    assert (G.distance(M, unflowed[0], unflowed[1:]) > 1e-6).all()
    together = flow.condition(context)(x.detach())
    alone = torch.stack([flow.condition(c)(point) for c, point in zip(context, x.detach(), strict=True)])
    assert torch.allclose(together, alone, rtol=1e-12)


def test_builder_arguments_are_bound_by_partial():
    builder = partial(HT.wrapped_hyperboloid_coupling, shift_bound=0.5, log_scale_bound=1.0)
    for flow in (
        ph.flows.coupling_flow(4, 2, builder),
        ph.flows.coupling_flow(4, 2, builder, context_dim=3).condition(torch.zeros(3)),
    ):
        assert all(layer.shift_bound == 0.5 and layer.log_scale_bound == 1.0 for layer in flow.layers)


@pytest.mark.parametrize("size", [0.0, 1e-6, 1.0, 30.0, 1e3])
def test_bounds_hold_whatever_the_network_says(size):
    """A block at zero goes to the target, shortened to |t| < b sqrt(k) in the Poincare ball."""
    M, bound = lorentz(4.0), 3.0
    t = HT.WrappedHyperboloidCoupling(1, outputs(2, size, size), M, log_scale_bound=bound, shift_bound=bound)
    v = G.log0(M, t(G.exp0(M, torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64))))
    raw = torch.full((2,), size * math.cos(0.5), dtype=torch.float64)
    half, longest = raw.norm() / 4, math.tanh(math.asinh(bound) / 2)  # over 2 sqrt(k), and that of the bound
    distance = 4 * (half / (1 + (half / longest) ** 2).sqrt()).atanh()
    assert torch.allclose(v[1:].norm(), distance, rtol=1e-12, atol=0)
    assert v[1:].norm() < 2 * math.asinh(bound)
    _, log_scale = t._outputs(torch.ones(7, 1, dtype=torch.float64), torch.ones(7, 2, dtype=torch.float64))
    assert log_scale.abs().max() <= bound


def test_a_learnable_curvature_is_among_the_parameters_of_what_is_built_on_it():
    for M, expected in ((ph.manifolds.Lorentz(learnable=True), 1), (ph.manifolds.Lorentz(), 0), (geoopt.Lorentz(), 0)):
        flow = ph.flows.coupling_flow(2, 2, manifold=M)
        names = [name for name, _ in flow.named_parameters() if "manifold" in name]
        assert len(names) == expected
    x = G.exp0(ph.manifolds.Lorentz(), torch.ones(2))
    M = ph.manifolds.Lorentz(learnable=True)
    flow = ph.flows.coupling_flow(2, 2, manifold=M)
    flow(x).sum().backward()
    assert M.k_unconstrained.grad.abs() > 0


def test_tc_is_real_nvp_pushed_through_the_exponential_map():
    """So on a target that is a pushed planar density, or on any other, TC can do what RealNVP can, and nothing else."""
    M, plane = lorentz(), geoopt.Euclidean(1)
    flow = shaken(ph.flows.coupling_flow(2, 4, HT.tangent_coupling, manifold=M), 0.4)
    flat = shaken(ph.flows.coupling_flow(2, 4, HT.tangent_coupling, manifold=plane), 0.4)
    base = hdist.WrappedNormal(G.origin(M, 2, dtype=torch.float64), 1.0, M)
    pushed = dist.TransformedDistribution(
        hdist.WrappedNormal(torch.zeros(2, dtype=torch.float64), 1.0, plane), [flat, HT.ExponentialMap(M)]
    )
    x = G.exp0(M, torch.randn(20, 2, dtype=torch.float64))
    log_probs = [d.log_prob(x) for d in (dist.TransformedDistribution(base, [flow]), pushed)]
    torch.testing.assert_close(*log_probs, rtol=1e-12, atol=1e-12)


LOCATIONS = G.exp0(lorentz(), torch.ones(2, 5, 3, dtype=torch.float64))
CONTEXTS = torch.ones(2, 5, 2, dtype=torch.float64)
BATCHED = {
    "translation": lambda: HT.Translation(lorentz(), LOCATIONS),
    "exponential map": lambda: HT.ExponentialMap(lorentz(), LOCATIONS),
    "coupling": lambda: HT.conditional_tangent_coupling(3, 2).double().condition(CONTEXTS),
    "flow": lambda: ph.flows.coupling_flow(3, 2, context_dim=2).double().condition(CONTEXTS),
    "curvatures": lambda: HT.tangent_coupling(3, manifold=geoopt.Lorentz(torch.ones(2, 5))).double(),
}


@pytest.mark.parametrize("batch", [(), (5,), (2, 1), (3, 1, 1)])
@pytest.mark.parametrize("name", BATCHED)
def test_what_a_map_depends_on_enlarges_the_batch(name, batch):
    """By its own batch shape of two dimensions, as its shapes say beforehand, and back."""
    t = BATCHED[name]()
    v = torch.randn(*batch, 3, dtype=torch.float64)
    x = v if name == "exponential map" else G.exp0(lorentz(), v)
    y = t(x)
    assert y.shape == t.forward_shape(x.shape) == (*torch.broadcast_shapes(batch, (2, 5)), 4)
    assert torch.broadcast_shapes(t.log_abs_det_jacobian(x, y).shape, y.shape[:-1]) == y.shape[:-1]
    assert t.inv(y.clone()).shape == t.inverse_shape(y.shape) == (*y.shape[:-1], x.size(-1))


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize("k", [1.0, 4.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("coupling", [HT.TangentCoupling, HT.WrappedHyperboloidCoupling])
def test_data_are_scored_where_their_base_point_is_out_of_range(coupling, dtype, k, validate):
    """The density needs tangent vectors only: here 6000 from the origin, about -r^2 / 2; its gradient is finite too."""
    M = lorentz(k)
    shrink = torch.tensor(-8.0, dtype=dtype, requires_grad=True)
    layers = [coupling(2, lambda v1: (torch.zeros_like(v1), shrink.expand_as(v1)), M) for _ in range(2)]
    stacked = ph.flows.CouplingFlow(layers)
    w = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.5, -1.0, 2.0], [0.1, 0.0, 0.0, 0.0]], dtype=dtype)
    y, v = ph.geometry.exp0(M, w), w.double() * math.exp(8)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(v).sum(-1)
    exact = normal + 32 - ph.geometry.log_volume(M, w.double())
    with pyro.validation_enabled(validate):
        origin = ph.geometry.origin(M, 4, dtype=dtype)
        for loc in (origin, origin.clone()):
            base = hdist.WrappedNormal(loc, torch.ones((), dtype=dtype), M)
            found = dist.TransformedDistribution(base, [stacked]).log_prob(y)
            assert torch.allclose(found.double(), exact, rtol=1e-4 if dtype == torch.float32 else 1e-12)
            (gradient,) = torch.autograd.grad(found.sum(), shrink)
            assert gradient.item() == pytest.approx((v**2).sum().item() - 12, rel=1e-3)
        full = hdist.WrappedMultivariateNormal(origin, torch.eye(4, dtype=dtype), manifold=M)
        found = dist.TransformedDistribution(full, [stacked]).log_prob(y)
        assert torch.allclose(found.double(), exact, rtol=1e-4)
        loc = ph.geometry.exp0(M, torch.tensor([2.0, 0.0, 0.0, 0.0], dtype=dtype))
        moved = dist.TransformedDistribution(hdist.WrappedNormal(loc, 1.0, M), [stacked]).log_prob(y)
        assert torch.allclose(moved[1].double(), exact[1], rtol=1e-2)
        twice = dist.TransformedDistribution(hdist.WrappedNormal(origin, 1.0, M), [stacked, stacked]).log_prob(y)
        assert bool(twice.isfinite().all())
    if validate:
        with pytest.raises(ValueError, match="infinity"):
            ph.geometry.log0(M, stacked.inv(y).clone())


def _lifted(transform):
    return lambda M: HT.TangentTransform(transform(), M)


AUTOCAST = {
    "tc": lambda M: HT.tangent_coupling(3, manifold=M),
    "whc": lambda M: HT.wrapped_hyperboloid_coupling(3, manifold=M),
    "flow": lambda M: ph.flows.coupling_flow(3, 3, manifold=M),
    "conditional flow": lambda M: ph.flows.coupling_flow(3, 2, manifold=M, context_dim=2).condition(torch.ones(2)),
    "lifted coupling": _lifted(lambda: dist.transforms.affine_coupling(3, [8])),
    "lifted spline": _lifted(lambda: dist.transforms.spline_coupling(3, 1, [8], 4)),
    "polar": lambda M: HT.polar_coupling([8], 4, manifold=M),
}


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", AUTOCAST)
def test_under_autocast_only_networks_are_of_low_precision(name, flat):
    """Points, log-determinants and round trips are as accurate as ever, for the map that the networks say."""
    M = geoopt.Euclidean(1) if flat else geoopt.Lorentz(4.0)
    t = AUTOCAST[name](M)
    module = t if list(t.parameters()) else torch.nn.ModuleList([layer.nn.network for layer in t.layers])
    shaken(module).float()
    x = G.exp0(M, torch.randn(50, 2 if name == "polar" else 3))
    plain, volume = t(x), t.log_abs_det_jacobian(x, t(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = t(x)
        log_det = t.log_abs_det_jacobian(x, y)
        assert y.dtype == log_det.dtype == x.dtype
        assert G.contains(M, y).all()
        torch.testing.assert_close(t.inv(y.detach().clone()), x, rtol=2e-3, atol=2e-3)
        jacobian = torch.autograd.functional.jacobian(lambda v: G.log0(M, t(G.exp0(M, v))).sum(0), G.log0(M, x))
        volumes = G.log_volume(M, G.log0(M, y)) - G.log_volume(M, G.log0(M, x))
        expected = jacobian.movedim(1, 0).slogdet()[1] + volumes
        y = t(x)
    torch.testing.assert_close(log_det, expected, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(y, plain, rtol=0.1, atol=0.1)
    torch.testing.assert_close(t.log_abs_det_jacobian(x, y), volume, rtol=1e-5, atol=1e-5)  # outside, at full precision
    (y.sum() + log_det.sum()).backward()
    assert all(value.grad.isfinite().all() and value.grad.any() for value in module.parameters())


@pytest.mark.parametrize("name", ["scale_tril", "covariance_matrix", "precision_matrix"])
def test_under_autocast_samples_and_matrices_are_at_full_precision(name):
    M, matrix = geoopt.Lorentz(), torch.eye(3) + 0.3 * torch.ones(3, 3).tril(-1)
    matrix = matrix if name == "scale_tril" else matrix @ matrix.mT
    d = hdist.WrappedMultivariateNormal(G.exp0(M, torch.ones(3)), manifold=M, **{name: matrix})

    def results():
        torch.manual_seed(0)
        return [d.sample((9,)), d.rsample((9,)), d.scale_tril, d.covariance_matrix, d.precision_matrix]

    expected = results()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for found, value in zip(results(), expected, strict=True):
            torch.testing.assert_close(found, value)


def test_dtypes_that_are_mixed_without_autocast_are_refused():
    flow = ph.flows.coupling_flow(3, 2)
    x = G.exp0(flow.manifold, torch.ones(3, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"float64.*float32|float32.*float64"):
        flow(x)
