"""A state_dict knows its space: weights of one curvature are not those of another, however well they fit."""

import copy
import io
import pickle
import re
from functools import partial

import geoopt
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from pyro.nn.module import to_pyro_module_

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions.transforms as HT
from tests.cases import lorentz

FLOWS = {
    "flow": lambda M: ph.flows.coupling_flow(2, 2, hidden_dims=[4], manifold=M),
    "conditional flow": lambda M: ph.flows.coupling_flow(2, 2, hidden_dims=[4], manifold=M, context_dim=2),
    "tangent coupling": lambda M: HT.tangent_coupling(2, [4], manifold=M),
    "conditional coupling": lambda M: HT.conditional_tangent_coupling(2, 2, [4], manifold=M),
    "lifted spline": lambda M: HT.TangentTransform(dist.transforms.spline_coupling(2, 1, [4], 4), M),
    "polar coupling": lambda M: HT.polar_coupling([4], 4, manifold=M),
    "inside of a user's module": lambda M: torch.nn.Sequential(HT.tangent_coupling(2, [4], manifold=M)),
}
SPACES = {
    "Lorentz(k=2)": lambda: lorentz(2.0),
    "Lorentz(k=1)": geoopt.Lorentz,
    "Lorentz(k=1..2": lambda: geoopt.Lorentz(torch.tensor([1.0, 2.0])),
    "Euclidean": lambda: geoopt.Euclidean(1),
    "learnable": lambda: ph.manifolds.Lorentz(3.0, learnable=True),
}
each_flow = pytest.mark.parametrize("make", FLOWS.values(), ids=list(FLOWS))


def saved(module):
    """Through a file, as it is safe to load one."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def are_equal(module, other):
    return all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))


PAIRS = [*zip(SPACES, [*SPACES][1:], strict=False), ("learnable", "Euclidean"), ("Euclidean", "Lorentz(k=2)")]


@pytest.mark.parametrize(("name", "spaces"), list(zip(FLOWS, [*PAIRS, PAIRS[0]], strict=True)))
def test_loading_into_another_space_names_both_and_loads_nothing(name, spaces):
    module, same, into = (FLOWS[name](SPACES[space]()) for space in (spaces[0], *spaces))
    assert same.load_state_dict(saved(module)) == ([], [])
    assert are_equal(module, same)
    before = copy.deepcopy(into)
    with pytest.raises(ValueError, match="state_dict") as error:
        into.load_state_dict(saved(module))
    assert all(space in str(error.value) for space in spaces)
    assert are_equal(before, into)


def test_a_manifold_of_fixed_curvature_knows_it_and_a_learnable_one_loads_it():
    fixed, other, learnable = ph.manifolds.Lorentz(2.0), ph.manifolds.Lorentz(1.0), ph.manifolds.Lorentz(5.0, True)
    with pytest.raises(ValueError, match=r"(?s)Lorentz\(k=2\).*Lorentz\(k=1\)"):
        other.load_state_dict(saved(fixed))
    learnable.load_state_dict(saved(ph.manifolds.Lorentz(2.0, learnable=True)))
    assert learnable.k.item() == pytest.approx(2.0)


@pytest.mark.parametrize("name", [*FLOWS, "continuous flow"])
def test_a_learnable_curvature_may_start_at_the_fixed_one_of_a_file(name):
    make = FLOWS.get(name, lambda M: HT.continuous_flow(2, M, field="dense", hidden_dims=[4], steps=2))
    fixed = make(ph.manifolds.Lorentz(3.0))
    into, other = make(SPACES["learnable"]()), make(ph.manifolds.Lorentz(2.0, learnable=True))
    assert into.load_state_dict(saved(fixed)) == ([], [])
    assert set(map(id, fixed.parameters())).isdisjoint(map(id, into.parameters()))
    theirs = dict(into.named_parameters())
    assert all(torch.equal(value, theirs[name]) for name, value in fixed.named_parameters())
    with pytest.raises(ValueError, match="may start at a fixed one"):
        other.load_state_dict(saved(fixed))


@pytest.mark.parametrize("foreign", [7, {"version": 1}])
def test_the_state_of_another_class_is_refused_and_shown(foreign):
    module = FLOWS["lifted spline"](lorentz(2.0))
    state = {key: foreign if key.endswith("_extra_state") else value for key, value in saved(module).items()}
    with pytest.raises(ValueError, match=re.escape(f"on {foreign}, but")):
        module.load_state_dict(state)


@each_flow
def test_a_file_without_a_space_loads_with_a_warning(make):
    module, into = make(lorentz(2.0)), make(lorentz(2.0))
    old = {key: value for key, value in saved(module).items() if not key.endswith("_extra_state")}
    part = "0" if make is FLOWS["inside of a user's module"] else r"(it|layers\.\d)"
    with pytest.warns(UserWarning, match=rf"which manifold {part} was .*Lorentz\(k=2\)"):
        assert into.load_state_dict(old) == ([], [])
    assert are_equal(module, into)


@pytest.mark.parametrize("name", [*FLOWS, "manifold"])
def test_the_same_k_in_another_dtype_is_the_same_space(name):
    """A module keeps its own."""
    make = FLOWS.get(name, lambda M: ph.manifolds.Lorentz(M.k.detach().clone()))
    double, single = make(lorentz(0.3)), make(geoopt.Lorentz(0.3))
    for module, into in ((double, single.double()), (single.float(), double)):
        before = copy.deepcopy(list(into.buffers()))
        into.load_state_dict(saved(module))
        assert all(torch.equal(a, b) for a, b in zip(before, into.buffers(), strict=True))


@each_flow
def test_pyro_modules_of_flows(make):
    """Made in place by Pyro: the same parameters, map, copies and states; other networks stay as they are."""
    M = geoopt.Lorentz(2.0)
    module, x = make(M), ph.geometry.exp0(M, torch.randn(5, 2))
    owner = torch.nn.Sequential(copy.deepcopy(module))
    to_pyro_module_(owner)
    made = owner[0]
    assert isinstance(made, PyroModule)
    assert made.load_state_dict(saved(module)) == ([], [])
    assert not any(isinstance(part, PyroModule) for part in make(M).modules()) or make is FLOWS["lifted spline"]

    def image(flow):
        flow = flow[0] if isinstance(flow, torch.nn.Sequential) else flow
        flow = flow.condition(torch.ones(2)) if hasattr(flow, "condition") else flow
        y = flow(x)
        return flow.inv(y.clone()), y, flow.log_abs_det_jacobian(x, y)

    for other in (made, copy.deepcopy(made)):
        assert [name for name, _ in other.named_parameters()] == [name for name, _ in module.named_parameters()]
        torch.testing.assert_close(image(other), image(module), rtol=1e-5, atol=1e-5)


def test_both_directions_are_compiled_and_copies_are_not(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: partial(function) if options else function)
    compiled = FLOWS["flow"](lorentz(2.0))
    compiled.compile(fullgraph=True)
    for other in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
        found, own = ([type(each) is partial for each in (t._forward, t._backward)] for t in (compiled, other))
        assert (found, own) == ([True, True], [False, False])


def test_a_class_of_flows_can_be_a_pyro_module():
    flow = PyroModule[ph.flows.CouplingFlow]([HT.tangent_coupling(2, [4]), HT.tangent_coupling(2, [4])])
    x = ph.geometry.exp0(flow.manifold, torch.randn(5, 2))
    assert torch.allclose(flow.inv(flow(x).clone()), x, atol=1e-5)
