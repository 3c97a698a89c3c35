"""What does not vary of speed: numbers of operations, forward and backward, and no wait for a device."""

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT

M, FLAT = ph.manifolds.Lorentz(), geoopt.Euclidean(1)
WAITS = {"aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::equal", "aten::is_nonzero"}


class Operations(TorchDispatchMode):
    """The names of the operations that run, those of a backward pass too."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name())
        return function(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _without_validation():
    with pyro.validation_enabled(False):
        yield


def operations(run):
    run()  # what is made once and kept
    with Operations() as found:
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

    def run():
        loc, scale = base.clone().requires_grad_(), torch.ones_like(base).requires_grad_()
        d = hdist.WrappedNormal(ph.geometry.exp0(M, loc), scale, M)
        x = d.rsample()
        d.log_prob(x.clone() if stored else x).sum().backward()

    return operations(run)


def normal(dim):
    def run():
        loc, scale = torch.zeros(5, dim, requires_grad=True), torch.ones(5, dim, requires_grad=True)
        d = dist.Normal(loc, scale).to_event(1)
        d.log_prob(d.rsample()).sum().backward()

    return operations(run)


@pytest.mark.parametrize("inverse", [False, True])
def test_a_tangent_flow_costs_the_chart_once(inverse):
    """However many layers: over the same flow of Euclidean space, `log0`, `exp0` and their volumes."""
    for layers in (1, 4):
        curved, flat = (len(flow(HT.tangent_coupling, space, 6, layers, inverse)) for space in (M, FLAT))
        assert curved - flat <= 130


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("dim", [4, 6, 64])
def test_a_wrapped_layer_costs_the_same_in_every_dimension(dim, inverse):
    """Over a tangent coupling, where the moving block is a plane or more."""
    few, many = (
        len(flow(HT.wrapped_hyperboloid_coupling, M, dim, layers, inverse))
        - len(flow(HT.tangent_coupling, M, dim, layers, inverse))
        for layers in (1, 4)
    )
    assert few <= 230
    assert many - few <= 3 * 170  # the stretches of all layers are evaluated together


@pytest.mark.parametrize("inverse", [False, True])
def test_a_wrapped_layer_is_a_shift_where_the_moving_block_is_a_line(inverse):
    wrapped, tangent = (
        len(flow(coupling, M, 2, 4, inverse)) for coupling in (HT.wrapped_hyperboloid_coupling, HT.tangent_coupling)
    )
    assert wrapped - tangent <= 4 * 15


@pytest.mark.parametrize("dim", [2, 6])
@pytest.mark.parametrize(("stored", "most"), [(False, 160), (True, 500)])
def test_a_wrapped_normal_over_a_normal(dim, stored, most):
    assert len(wrapped_normal(dim, stored)) - len(normal(dim)) <= most


@pytest.mark.parametrize("coupling", [HT.tangent_coupling, HT.wrapped_hyperboloid_coupling])
@pytest.mark.parametrize("dim", [2, 6])
def test_nothing_waits_for_a_device(coupling, dim):
    for inverse in (False, True):
        assert not WAITS & set(flow(coupling, M, dim, 2, inverse))
    for stored in (False, True):
        assert not WAITS & set(wrapped_normal(dim, stored))


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
