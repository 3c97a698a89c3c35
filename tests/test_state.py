"""A state_dict knows its space: weights of one curvature are not those of another, however well they fit."""

import copy
import io

import geoopt
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from pyro.nn.module import to_pyro_module_

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions.transforms as HT
from tests.cases import lorentz

MODULES = {
    "flow": lambda M: ph.flows.coupling_flow(3, 2, hidden_dims=[4], manifold=M),
    "conditional flow": lambda M: ph.flows.coupling_flow(3, 2, hidden_dims=[4], manifold=M, context_dim=2),
    "tangent coupling": lambda M: HT.tangent_coupling(3, [4], manifold=M),
    "wrapped coupling": lambda M: HT.wrapped_hyperboloid_coupling(3, [4], manifold=M),
    "conditional coupling": lambda M: HT.conditional_tangent_coupling(3, 2, [4], manifold=M),
    "lifted spline": lambda M: HT.TangentTransform(dist.transforms.spline_coupling(3, 1, [4], 4), M),
    "polar coupling": lambda M: HT.polar_coupling([4], 4, manifold=M),
    "inside of a user's module": lambda M: torch.nn.ModuleDict({"flow": HT.tangent_coupling(3, [4], manifold=M)}),
}
MODULES["manifold"] = lambda M: ph.manifolds.Lorentz(M.k.detach().clone())
FLOWS = {name: make for name, make in MODULES.items() if name != "manifold"}
SPACES = {
    "Lorentz(k=2)": lambda: lorentz(2.0),
    "Lorentz(k=1)": geoopt.Lorentz,
    "Lorentz(k=1..2": lambda: geoopt.Lorentz(torch.tensor([1.0, 2.0])),
    "Euclidean": lambda: geoopt.Euclidean(1),
    "learnable": lambda: ph.manifolds.Lorentz(3.0, learnable=True),
}


def saved(module):
    """Through a file, as it is safe to load one."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("make", MODULES.values(), ids=list(MODULES))
def test_loading_into_another_space_names_both(make):
    for name, space in SPACES.items():
        for other_name, other in SPACES.items():
            if make is MODULES["manifold"] and {name, other_name} & {"Euclidean", "learnable"}:
                continue
            module, into = make(space()), make(other())
            before = copy.deepcopy(dict(into.named_parameters()))
            if name == other_name:
                assert into.load_state_dict(saved(module)) == ([], [])
                continue
            with pytest.raises(ValueError, match=r"state_dict") as error:
                into.load_state_dict(saved(module))
            assert name in str(error.value)
            assert other_name in str(error.value)
            assert all(torch.equal(value, before[key]) for key, value in into.named_parameters())


@pytest.mark.parametrize("make", FLOWS.values(), ids=list(FLOWS))
def test_a_file_without_a_space_loads_with_a_warning(make):
    module, into = make(lorentz(2.0)), make(lorentz(2.0))
    old = {key: value for key, value in saved(module).items() if not key.endswith("_extra_state")}
    with pytest.warns(UserWarning, match=r"Lorentz\(k=2\)"):
        assert into.load_state_dict(old) == ([], [])
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), into.parameters(), strict=True))


@pytest.mark.parametrize("make", MODULES.values(), ids=list(MODULES))
def test_dtypes_and_devices_are_no_spaces(make):
    """The same k in float32 and float64 is one space; a module keeps its own."""
    double, single = make(geoopt.Lorentz(torch.tensor(0.3, dtype=torch.float64))), make(geoopt.Lorentz(0.3))
    for module, into in ((double, single.double()), (single.float(), double)):
        before = [value.clone() for value in into.buffers()]
        into.load_state_dict(saved(module))
        assert all(torch.equal(a, b) for a, b in zip(before, into.buffers(), strict=True))


def test_a_learnable_curvature_loads_as_a_parameter():
    module = MODULES["flow"](ph.manifolds.Lorentz(2.0, learnable=True))
    into = MODULES["flow"](ph.manifolds.Lorentz(5.0, learnable=True))
    into.load_state_dict(saved(module))
    assert into.manifold.k.item() == pytest.approx(2.0)


@pytest.mark.parametrize("make", FLOWS.values(), ids=list(FLOWS))
def test_pyro_modules_take_flows(make):
    """In both ways in which Pyro makes its modules of torch's: the same parameters, map, copies and states."""
    M, x = geoopt.Lorentz(2.0), torch.randn(5, 2 if make is MODULES["polar coupling"] else 3)
    module = make(M)
    owner = torch.nn.Sequential(copy.deepcopy(module))
    to_pyro_module_(owner)
    made = owner[0]
    assert isinstance(made, PyroModule)
    assert made.load_state_dict(saved(module)) == ([], [])

    def image(flow):
        flow = flow["flow"] if isinstance(flow, torch.nn.ModuleDict) else flow
        flow = flow.condition(torch.ones(2)) if hasattr(flow, "condition") else flow
        y = flow(ph.geometry.exp0(M, x))
        return flow.inv(y.clone()), y, flow.log_abs_det_jacobian(ph.geometry.exp0(M, x), y)

    for other in (made, copy.deepcopy(made)):
        assert [name for name, _ in other.named_parameters()] == [name for name, _ in module.named_parameters()]
        for ours, expected in zip(image(other), image(module), strict=True):
            assert torch.allclose(ours, expected, atol=1e-5)


def test_a_class_of_flows_can_be_a_pyro_module():
    layers = [HT.tangent_coupling(2, [4]), HT.tangent_coupling(2, [4])]
    flow = PyroModule[ph.flows.CouplingFlow](layers)
    x = ph.geometry.exp0(flow.manifold, torch.randn(5, 2))
    assert torch.allclose(flow.inv(flow(x).clone()), x, atol=1e-5)


@pytest.mark.parametrize("make", [make for name, make in FLOWS.items() if name != "lifted spline"])
def test_a_pyro_module_changes_no_other_network(make):
    """Pyro's DenseNN has one activation for all networks by default."""
    to_pyro_module_(make(lorentz(1.0)))
    for module in make(lorentz(1.0)).modules():
        assert not isinstance(module, PyroModule)
