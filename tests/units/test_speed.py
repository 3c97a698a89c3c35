"""What does not vary of speed: numbers of operations, forward and backward, and no wait for a device."""

import importlib.util
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT

M, FLAT = ph.manifolds.Lorentz(), geoopt.Euclidean(1)
# The benchmark's own counter, so that the page and these bounds mean the same.
_SPEC = importlib.util.spec_from_file_location("measure", Path(__file__).parents[2] / "benchmarks" / "measure.py")
measure = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(measure)


@pytest.fixture(autouse=True)
def _without_validation():
    with pyro.validation_enabled(False):
        yield


def operations(run):
    run()  # what is made once and kept
    with measure.Operations() as found:
        run()
    assert found.names
    return found.names


def flow(coupling, manifold, dim, layers, inverse=False):
    transform = ph.flows.coupling_flow(dim, layers, coupling, [8], manifold)
    points = torch.randn(5, dim) if manifold is FLAT else ph.geometry.exp0(manifold, torch.randn(5, dim))

    def run():
        x = points.detach()
        y = transform.inv(x) if inverse else transform(x)
        log_det = transform.log_abs_det_jacobian(y, x) if inverse else transform.log_abs_det_jacobian(x, y)
        (y.sum() + log_det.sum()).backward()

    return operations(run)


def wrapped_normal(dim, stored):
    base = torch.randn(5, dim)
    point = ph.geometry.exp0(M, base)

    def run():
        loc, scale = point.clone().requires_grad_(), torch.ones_like(base).requires_grad_()
        d = hdist.WrappedNormal(loc, scale, M)
        x = d.rsample()
        d.log_prob(x.clone() if stored else x).sum().backward()

    return operations(run)


def normal(dim):
    def run():
        loc, scale = torch.zeros(5, dim, requires_grad=True), torch.ones(5, dim, requires_grad=True)
        d = dist.Normal(loc, scale).to_event(1)
        d.log_prob(d.rsample()).sum().backward()

    return operations(run)


class Floor(torch.nn.Module):
    """RealNVP by hand, with the networks and the bounds of ours."""

    def __init__(self, dim, layers):
        super().__init__()
        self.flow = ph.flows.coupling_flow(dim, layers, HT.tangent_coupling, [8], FLAT)

    def forward(self, v, inverse):
        halves, total = list(v.tensor_split([v.size(-1) // 2], -1)), 0.0
        layers = list(enumerate(self.flow.layers))
        for i, layer in reversed(layers) if inverse else layers:
            moving = 1 - i % 2
            shift, log_scale = layer.nn(halves[1 - moving])
            log_scale = 3.0 * torch.tanh(log_scale / 3.0)
            block = halves[moving]
            halves[moving] = (block - shift) * (-log_scale).exp() if inverse else block * log_scale.exp() + shift
            total = total + log_scale.sum(-1)
        return torch.cat(halves, -1), total


def floor(dim, layers, inverse=False):
    module, points = Floor(dim, layers), torch.randn(5, dim)

    def run():
        y, log_det = module(points.detach(), inverse)
        (y.sum() + log_det.sum()).backward()

    return operations(run)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("dim", [2, 6, 64])
def test_a_tangent_flow_costs_the_chart_once(dim, inverse):
    """Over a flow of Euclidean space written by hand, however many layers: `log0`, `exp0` and their volumes."""
    for layers in (1, 4, 8):
        extra = len(flow(HT.tangent_coupling, M, dim, layers, inverse)) - len(floor(dim, layers, inverse))
        assert extra <= 72


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("dim", [4, 6, 64])
def test_a_wrapped_layer_costs_the_same_in_every_dimension(dim, inverse):
    """Over a tangent coupling, where the moving block is a plane or more."""
    for layers in (1, 4, 8):
        wrapped, tangent = (
            len(flow(coupling, M, dim, layers, inverse))
            for coupling in (HT.wrapped_hyperboloid_coupling, HT.tangent_coupling)
        )
        assert wrapped - tangent <= 145 * layers + 15


@pytest.mark.parametrize("inverse", [False, True])
def test_a_wrapped_layer_is_a_shift_where_the_moving_block_is_a_line(inverse):
    wrapped, tangent = (
        len(flow(coupling, M, 2, 4, inverse)) for coupling in (HT.wrapped_hyperboloid_coupling, HT.tangent_coupling)
    )
    assert wrapped - tangent <= 4 * 17


@pytest.mark.parametrize("dim", [2, 6])
@pytest.mark.parametrize(("stored", "most"), [(False, 72), (True, 300)])
def test_a_wrapped_normal_over_a_normal(dim, stored, most):
    assert len(wrapped_normal(dim, stored)) - len(normal(dim)) <= most


def prior(dim, loc):
    point = ph.geometry.exp0(M, torch.randn(5, dim))

    def run():
        z = point.clone().requires_grad_()
        hdist.WrappedNormal(loc(dim), 1.0, M).log_prob(z).sum().backward()

    return operations(run)


@pytest.mark.parametrize("dim", [2, 6])
def test_a_prior_at_the_origin_needs_no_isometry(dim):
    """Half of what it costs where it is not known to be there."""
    known = len(prior(dim, lambda n: ph.geometry.origin(M, n)))
    unknown = len(prior(dim, lambda n: ph.geometry.origin(M, n).clone()))
    assert known <= 62
    assert known < unknown / 2 + 1


@pytest.mark.parametrize("coupling", [HT.tangent_coupling, HT.wrapped_hyperboloid_coupling])
@pytest.mark.parametrize("dim", [2, 6])
def test_nothing_waits_for_a_device(coupling, dim):
    for inverse in (False, True):
        assert not measure.SYNCS & set(flow(coupling, M, dim, 2, inverse))
    for stored in (False, True):
        assert not measure.SYNCS & set(wrapped_normal(dim, stored))


@pytest.mark.parametrize("shapes", [((5, 3), (3,)), ((3,), (5, 3)), ((4, 1, 3), (5, 3))])
def test_a_translation_broadcasts(shapes):
    """The two scalars of which the log-determinant is made are evaluated together, whatever their shapes."""
    t, v = (torch.randn(shape) for shape in shapes)
    for found, expected in zip(
        ph.geometry.translate_tangent(M, t, v),
        ph.geometry.translate_tangent(M, *torch.broadcast_tensors(t, v)),
        strict=True,
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("coupling", "learnable"), [(HT.tangent_coupling, False), (HT.wrapped_hyperboloid_coupling, True)]
)
def test_nothing_is_left_on_the_cpu(coupling, learnable):
    """On torch's meta device, which refuses other devices (but numbers) and to read a value: as a GPU, without one."""
    manifold = ph.manifolds.Lorentz(2.0, learnable=learnable)
    flow = ph.flows.coupling_flow(4, 2, coupling, [8], manifold).to("meta")
    conditional = ph.flows.coupling_flow(4, 2, coupling, [8], manifold, context_dim=3).to("meta")
    for transform in (flow, conditional.condition(torch.randn(3, device="meta"))):
        loc = ph.geometry.exp0(manifold, torch.randn(5, 4, device="meta"))
        base = hdist.WrappedNormal(loc, torch.ones(4, device="meta"), manifold)
        prior = hdist.WrappedNormal(ph.geometry.origin(manifold, 4, device="meta"), 1.0, manifold)
        full = hdist.WrappedMultivariateNormal(loc, torch.eye(4, device="meta"), manifold=manifold)
        q = dist.TransformedDistribution(base, [transform])
        z = q.rsample()
        total = q.log_prob(z) + q.log_prob(z.clone()) + prior.log_prob(z) + full.log_prob(z)
        total = total + ph.geometry.distance(manifold, z, loc) + ph.geometry.log0(manifold, z).sum(-1)
        assert total.device.type == "meta"
        total.sum().backward()


@pytest.mark.parametrize("coupling", [HT.tangent_coupling, HT.wrapped_hyperboloid_coupling])
def test_a_validated_call_waits_once(coupling):
    """All that must be true of a call is looked at together."""
    transform = ph.flows.coupling_flow(4, 2, coupling, [8], M)
    x = ph.geometry.exp0(M, torch.randn(5, 4))
    v, translation, chart = torch.randn(5, 4), HT.Translation(M, x), HT.ExponentialMap(M)
    with pyro.validation_enabled(True):
        for call in (
            lambda: transform(x.detach()),
            lambda: transform.inv(x.detach()),
            lambda: translation(x.detach()),
            lambda: chart(v.detach()),
            lambda: chart.inv(x.detach()),
        ):
            assert len([name for name in operations(call) if name in measure.SYNCS]) == 1
