"""The cache is never seen: an own sample scores as its clone, whatever happened since, and costs no inverse."""

import contextlib
import copy
import gc
import os
import pickle
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from pyro.infer import SVI, JitTrace_ELBO, Trace_ELBO
from pyro.nn import DenseNN, PyroModule, PyroParam
from pyro.nn.module import to_pyro_module_
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from tests.cases import lorentz, point, shaken

DIM, K = 3, 4.0
M = lorentz(K)
CONTEXT = torch.tensor([0.3, -0.8], dtype=torch.float64)
V = torch.randn(5, DIM, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
X = ph.geometry.exp0(M, V)


class Held(torch.nn.Module):
    """A module that holds what a transform is made of, and makes it once: as a user's model does."""

    def __init__(self, make: Callable[..., dist.transforms.Transform], **parts: torch.nn.Module | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.make = make
        self.transform = make(**parts)

    def __deepcopy__(self, memo: dict) -> "Held":
        """A fresh copy: the same parts, and a transform made of them now."""
        return Held(self.make, **{name: copy.deepcopy(getattr(self, name)) for name in self._parts()})

    def _parts(self) -> Iterator[str]:
        yield from (name for name in [*self._modules, *self._parameters] if name != "transform")


class Case(NamedTuple):
    """A module with parameters, the transform in it, and the distribution of R^n or M that it pushes forward."""

    owner: torch.nn.Module
    transform: dist.transforms.Transform
    base: dist.TorchDistribution
    whole: dist.TorchDistribution | None = None

    @property
    def distribution(self) -> dist.TorchDistribution:
        return self.whole or dist.TransformedDistribution(self.base, [self.transform])

    def fresh(self) -> "Case":
        owner = copy.deepcopy(self.owner)
        return Case(owner, _transform(owner), self.base)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return [value for value in self.owner.parameters() if value.requires_grad]


def _transform(owner: torch.nn.Module) -> dist.transforms.Transform:
    return owner.transform if isinstance(owner, Held) else owner


def _base() -> dist.TorchDistribution:
    return hdist.WrappedNormal(point(K, 0.4, -0.3, 0.2), torch.full((DIM,), 0.7, dtype=torch.float64), M)


def _flat() -> dist.TorchDistribution:
    return dist.Normal(torch.zeros(DIM, dtype=torch.float64), 0.7).to_event(1)


def _module(make: Callable[[], torch.nn.Module]) -> Callable[[], Case]:
    def case() -> Case:
        module = shaken(make())
        return Case(module, module, _base())

    return case


def _held(make: Callable[..., dist.transforms.Transform], **parts: torch.nn.Module | Tensor) -> Case:
    owner = Held(make, **parts)
    return Case(owner, owner.transform, _base())


def _conditioned(make: Callable[[], torch.nn.Module], context: Tensor = CONTEXT) -> Callable[[], Case]:
    return lambda: _held(_condition, network=shaken(make()), context=torch.nn.Parameter(context.clone()))


def _condition(network: torch.nn.Module, context: Tensor) -> dist.transforms.Transform:
    return network.condition(context)


def _translation(loc: Tensor) -> HT.Translation:
    return HT.Translation(M, loc)


def _placed(make: Callable[[Tensor], dist.transforms.Transform]) -> Case:
    return _held(make, loc=geoopt.ManifoldParameter(point(K, 1.0, -0.5, 0.3), manifold=M))


def _curved(learnable: bool) -> Case:
    manifold = ph.manifolds.Lorentz(torch.tensor(K, dtype=torch.float64), learnable=learnable)
    return _held(HT.ExponentialMap, manifold=manifold)._replace(base=_flat())


def _wrapped(make: Callable[[Tensor], hdist.WrappedNormal], value: Tensor) -> Case:
    owner = torch.nn.ParameterDict({"value": torch.nn.Parameter(value)})
    d = make(owner["value"])
    return Case(owner, d.transforms[0], d.base_dist, d)


def _closure(weight: Tensor) -> HT.TangentCoupling:
    return HT.TangentCoupling(1, lambda x1: (x1 * weight, (x1 * weight).sin()), M)


def _from_store() -> Case:
    def network(x1: Tensor) -> tuple[Tensor, Tensor]:
        weight = pyro.param("weight", torch.nn.Parameter(torch.tensor([0.4, -0.3], dtype=torch.float64)))
        return x1 * weight, (x1 * weight).sin()

    network(V[:, :1])
    owner = Held(lambda: HT.TangentCoupling(1, network, M))
    owner.register_parameter("weight", pyro.get_param_store()._params["weight"])
    return Case(owner, owner.transform, _base())


def _planar(module: torch.nn.Module) -> Case:
    module.register_module("no child", None)
    return Case(module, shaken(module), hdist.WrappedNormal(point(K, 0.4, -0.3), 0.7, M))


def _normalised() -> HT.TangentCoupling:
    """Its network has buffers, and a mode: batch normalisation."""
    return HT.TangentCoupling(1, DenseNN(1, [8], [2, 2], nonlinearity=torch.nn.BatchNorm1d(8)), M)


class OwnNetwork(torch.nn.Linear):
    """A class that the package does not know, and that says that it may be trusted."""

    is_self_contained = True

    def __init__(self, factor: Tensor) -> None:
        super().__init__(1, 4)
        self.factor = factor

    def forward(self, x1: Tensor) -> tuple[Tensor, Tensor]:
        return (self.factor * super().forward(x1)).chunk(2, -1)


MODULES = {
    "tangent coupling": _module(lambda: HT.tangent_coupling(DIM, [8], manifold=M)),
    "wrapped coupling": _module(lambda: HT.wrapped_hyperboloid_coupling(DIM, [8], manifold=M)),
    "coupling flow": _module(lambda: ph.flows.coupling_flow(DIM, 3, hidden_dims=[8], manifold=M)),
    "lifted spline": _module(lambda: HT.TangentTransform(dist.transforms.spline_coupling(DIM, 1, [8], 4), M)),
    "lifted stack": _module(
        lambda: HT.TangentTransform(
            dist.transforms.ComposeTransformModule(
                [dist.transforms.affine_coupling(DIM, [8]), dist.transforms.affine_coupling(DIM, [8])]
            ),
            M,
        )
    ),
}
CONDITIONED = {
    "conditioned coupling": _conditioned(lambda: HT.conditional_tangent_coupling(DIM, 2, [8], manifold=M)),
    "conditioned flow": _conditioned(
        lambda: ph.flows.coupling_flow(DIM, 2, hidden_dims=[8], manifold=M, context_dim=2)
    ),
}
CASES = {
    **MODULES,
    **CONDITIONED,
    "translation": lambda: _placed(_translation),
    "exponential map, learnable k": lambda: _curved(True),
}
EYE = torch.eye(DIM, dtype=torch.float64)
#: Maps that depend on what no module owns, or that say little to the laws of the others.
FURTHER = {
    "exponential map, fixed k": lambda: _curved(False),
    "exponential map at a location": lambda: _placed(lambda loc: HT.ExponentialMap(M, loc))._replace(base=_flat()),
    "wrapped normal": lambda: _wrapped(lambda s: hdist.WrappedNormal(point(K, 0.4, -0.3, 0.2), s, M), 0.7 * EYE[0] + 1),
    "wrapped multivariate normal": lambda: _wrapped(
        lambda s: hdist.WrappedMultivariateNormal(point(K, 0.4, -0.3, 0.2), scale_tril=s, manifold=M), 0.7 * EYE
    ),
    "lifted affine map of a plain tensor": lambda: _held(
        lambda loc: HT.TangentTransform(dist.transforms.AffineTransform(loc, 1.0, 1), M),
        loc=torch.nn.Parameter(V[0].clone()),
    ),
    "closure over a parameter": lambda: _held(_closure, weight=torch.nn.Parameter(V[0, :2].clone())),
    "network that reads pyro.param": _from_store,
    "network with batch normalisation": _module(_normalised),
    "network of an own class": _module(lambda: HT.TangentCoupling(1, OwnNetwork(torch.ones(4, dtype=V.dtype)), M)),
    "one layer twice": lambda: _planar(ph.flows.CouplingFlow(2 * [HT.tangent_coupling(2, [8], manifold=M)])),
    "conditioned on 2 x 5 contexts": _conditioned(
        lambda: HT.conditional_tangent_coupling(DIM, 2, [8], manifold=M), V[:, :2].expand(2, 5, 2)
    ),
    "polar coupling": lambda: _planar(HT.polar_coupling([8], 4, 2.5, manifold=M)),
}


def observed(case: Case) -> Tensor:
    """Points of the codomain: one tensor, again and again, unless the curvature moves and they must follow."""
    manifold = case.transform.manifold
    return X if manifold is M else ph.geometry.exp0(manifold, V).detach()


def inputs(case: Case) -> Tensor:
    return V.clone() if isinstance(case.transform, HT.ExponentialMap) else X.clone()


def flat_gradients(loss: Tensor, case: Case) -> Tensor:
    grads = torch.autograd.grad(loss, case.parameters, allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for g, p in zip(grads, case.parameters, strict=True)
        ]
    )


def same(actual: Tensor, expected: Tensor, atol: float = 1e-12) -> bool:
    return torch.allclose(actual, expected, rtol=1e-9, atol=atol)


#: Pyro's splines index by a mask, which does not vmap, and hold float32 constants in a trace.
PYRO_CANNOT = {"lifted spline"}
each_case = pytest.mark.parametrize("name", CASES)


def moved(value: Tensor, size: float = 0.1) -> Tensor:
    """Another value of a parameter, on its manifold if it has one."""
    if isinstance(value, geoopt.ManifoldParameter):
        return ph.geometry.translate(M, point(K, size, size, size), M.projx(value.detach()))
    return (1 + size) * value.detach() + size / 2


class OwnSample(RuleBasedStateMachine):
    """Draws, changes what it can, and scores: what was drawn scores as its clone, which no transform has made."""

    def __init__(self, make: Callable[[], Case], validate: bool) -> None:
        super().__init__()
        self.default = torch.distributions.Distribution._validate_args
        torch.distributions.Distribution.set_default_validate_args(validate)
        pyro.set_rng_seed(0)
        self.case = make()
        self.owner, self.t, self.d = self.case.owner, self.case.transform, self.case.distribution
        self.validate, self.grad, self.inverse = validate, True, False
        self.draw()

    def teardown(self) -> None:
        torch.distributions.Distribution.set_default_validate_args(self.default)

    @property
    def tensors(self) -> list[Tensor]:
        return [v for v in [*self.owner.parameters(), *self.owner.buffers()] if v.is_floating_point()]

    def draw(self) -> None:
        with torch.set_grad_enabled(self.grad):
            self.image = self.d.rsample(() if self.d.batch_shape else (5,))
            self.sample = self.t.inv(self.image.detach().clone()) if self.inverse else self.image

    def scores(self, value: Tensor) -> list[Tensor | type[Exception]]:
        functions = [self.d.log_prob, self.t.inv, lambda y: self.t.log_abs_det_jacobian(self.t.inv(y), y)]
        if self.inverse:
            functions = [self.t, lambda x: self.t.log_abs_det_jacobian(x, self.image)]
        results: list[Tensor | type[Exception]] = []
        for function in functions:
            try:
                results.append(function(value))
            except (ValueError, RuntimeError, AssertionError) as error:  # off the manifold of another k
                results.append(type(error))
        return results

    def check(self) -> None:
        for own, fresh in zip(self.scores(self.sample), self.scores(self.sample.detach().clone()), strict=True):
            if isinstance(fresh, Tensor):
                torch.testing.assert_close(own, fresh, rtol=1e-8, atol=1e-8, equal_nan=True)
            else:
                assert own is fresh

    @rule(data=st.data(), grad=st.booleans(), inverse=st.booleans())
    def change(self, data: st.DataObject, grad: bool, inverse: bool) -> None:
        for way in data.draw(st.lists(st.sampled_from(WAYS + self.validate * WAYS_WHILE_VALIDATING), max_size=2)):
            way(self)
        with torch.set_grad_enabled(grad):
            self.check()
        self.grad, self.inverse = grad, inverse
        self.draw()


def step(optimiser: type[torch.optim.Optimizer], through_the_sample: bool) -> Callable[[OwnSample], None]:
    def way(own: OwnSample) -> None:
        wanted = [value for value in own.tensors if value.requires_grad]
        loss = sum(((value * value).sum() for value in wanted), torch.zeros(()))
        score = own.scores(own.sample)[0] if through_the_sample else None
        with contextlib.suppress(RuntimeError):  # the graph of a sample may be spent, or its parameters edited
            (loss + score.sum() if isinstance(score, Tensor) else loss).backward()
        if wanted:
            steps = optimiser(wanted, lr=0.05)
            steps.step()
            steps.zero_grad()

    return way


def each(edit: Callable[[Tensor], object]) -> Callable[[OwnSample], None]:
    return lambda own: [edit(value) for value in own.tensors]


def edit_in_place(value: Tensor) -> None:
    with torch.no_grad():
        value.copy_(moved(value))


def assign(value: Tensor) -> None:
    value.data = moved(value)


def edit_in_place_through_data(value: Tensor) -> None:
    value.data.copy_(moved(value))


def average_through_data(value: Tensor) -> None:
    value.data.mul_(0.9).add_(0.1 * moved(value))


def freeze_or_thaw(own: OwnSample) -> None:
    for value in own.owner.parameters():
        value.requires_grad_(not value.requires_grad)


def write_from_a_vector(own: OwnSample) -> None:
    torch.nn.utils.vector_to_parameters(torch.cat([moved(value).flatten() for value in own.tensors]), own.tensors)


def swap(own: OwnSample) -> None:
    for value in own.tensors:
        if type(value) is torch.nn.Parameter:
            with contextlib.suppress(RuntimeError):  # torch swaps no tensor of which a graph exists
                torch.utils.swap_tensors(value, torch.nn.Parameter(moved(value), value.requires_grad))


def load(assign: bool) -> Callable[[OwnSample], None]:
    def way(own: OwnSample) -> None:
        values = {name: moved(value).clone() for name, value in own.owner.named_parameters()}
        own.owner.load_state_dict({**own.owner.state_dict(), **values}, assign=assign)

    return way


class Scope(torch.nn.Module):
    """Calls a function: ``functional_call`` swaps parameters meanwhile."""

    def __init__(self, owner: torch.nn.Module) -> None:
        super().__init__()
        self.owner = owner

    def forward(self, function: Callable[[], None]) -> None:
        function()


def call_with_other_parameters(own: OwnSample) -> None:
    swapped = {f"owner.{name}": moved(value) for name, value in own.owner.named_parameters()}
    torch.func.functional_call(Scope(own.owner), swapped, (own.check,))


def replace_parts(own: OwnSample) -> None:
    for module in [module for module in own.owner.modules() if isinstance(module, DenseNN)]:
        module.layers[0] = copy.deepcopy(module.layers[0])
        module.layers[-1].bias = torch.nn.Parameter(moved(module.layers[-1].bias))


def set_attributes(own: OwnSample) -> None:
    own.owner.train(not own.owner.training)
    for module in own.owner.modules():
        if isinstance(module, HT.Coupling):
            module.log_scale_bound = 0.3
        if isinstance(module, DenseNN):
            module.f = torch.nn.Tanh() if isinstance(module.f, torch.nn.ReLU) else module.f


def hook(own: OwnSample) -> None:
    for module in own.owner.modules():
        if type(module) is torch.nn.Linear and not module._forward_hooks:
            module.register_forward_hook(lambda _, inputs, output: 0.9 * output)


def draw_in_threads(own: OwnSample) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: own.d.log_prob(own.d.sample((3,))), range(4)))


def use_elsewhere(own: OwnSample) -> None:
    """In inference mode and in a function transform, where no pair is kept that could answer for an edited tensor."""
    for where in (torch.inference_mode(), contextlib.nullcontext()):
        with where, contextlib.suppress(ValueError, RuntimeError):  # off the manifold; Pyro's splines do not vmap
            y = own.image.detach().clone()
            x = own.t.inv(y) if torch.is_inference_mode_enabled() else torch.func.vmap(own.t.inv)(y)
            own.image, own.sample = (y, x) if own.inverse else (own.t(x), own.t(x))
            each(edit_in_place)(own)


def copy_and_pickle(own: OwnSample) -> None:
    other = copy.deepcopy(own.t)
    with contextlib.suppress(AttributeError, pickle.PicklingError):  # closures
        other = pickle.loads(pickle.dumps(other))
    with contextlib.suppress(ValueError):  # off the manifold of another k
        y = own.image.detach()
        y, x = other.inv(y), other.inv(y.clone())
        torch.testing.assert_close(y, x)


OPTIMISERS = (torch.optim.Adam, torch.optim.SGD, ClippedAdam, geoopt.optim.RiemannianAdam)
#: Ways to change what a score depends on.
WAYS = [
    *[step(optimiser, through) for optimiser in OPTIMISERS for through in (True, False)],
    *[each(edit_in_place), each(assign), freeze_or_thaw, write_from_a_vector, swap, load(False), load(True)],
    *[call_with_other_parameters, replace_parts, set_attributes, hook, draw_in_threads, use_elsewhere],
    *[copy_and_pickle, lambda own: edit_in_place(own.sample), lambda own: assign(own.sample)],
]
#: Those that leave no trace but the values.
WAYS_WHILE_VALIDATING = [
    *[each(edit_in_place_through_data), each(average_through_data)],
    lambda own: edit_in_place_through_data(own.sample),
]


@pytest.mark.filterwarnings("ignore:.*grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("name", [*CASES, *FURTHER])
def test_an_own_sample_scores_as_its_clone_whatever_happened_since(name, validate):
    make = {**CASES, **FURTHER}[name]
    machine = seed(2 * [*CASES, *FURTHER].index(name) + validate)(lambda: OwnSample(make, validate))
    options = {"phases": [Phase.generate], "deadline": None, "database": None}
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=2, stateful_step_count=12, suppress_health_check=list(HealthCheck), **options),
    )


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("lifted affine map of a plain tensor", step(torch.optim.Adam, False)),
        ("closure over a parameter", step(torch.optim.Adam, False)),
        ("network that reads pyro.param", step(torch.optim.Adam, False)),
        ("coupling flow", write_from_a_vector),
        ("coupling flow", each(assign)),
        ("coupling flow", lambda own: (freeze_or_thaw(own), own.draw(), each(average_through_data)(own))),
        ("conditioned coupling", lambda own: edit_in_place_through_data(own.owner.context)),
        ("network with batch normalisation", lambda own: own.owner.nn.f.eval()),
        ("tangent coupling", lambda own: setattr(own.t, "log_scale_bound", 0.1)),
        ("coupling flow", hook),
        ("coupling flow", lambda own: own.t.layers.__delitem__(slice(1, None))),
        ("lifted stack", lambda own: own.t.transform.parts.append(dist.transforms.AffineTransform(0.1, 1.1, 1))),
    ],
)
def test_a_change_that_no_backward_pass_announces(name, way):
    own = OwnSample({**CASES, **FURTHER}[name], validate=True)
    way(own)
    own.check()


@pytest.mark.parametrize("constrained", [False, True])
def test_a_pyro_module_may_read_what_handlers_say(constrained, monkeypatch):
    """Of its constrained parameters and samples. Without any, own samples are remembered, as of other modules."""

    class Model(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.flow = shaken(HT.tangent_coupling(DIM, [8], manifold=M))

        def forward(self) -> Tensor:
            return dist.TransformedDistribution(_base(), [self.flow]).rsample((5,))

    model = Model()
    to_pyro_module_(model)
    first = model.flow.nn.layers[0]
    if constrained:
        first.bias = PyroParam(first.bias.detach().exp(), dist.constraints.positive)
    inverse = count(monkeypatch, HT.TangentCoupling, "_backward")
    y = pyro.poutine.substitute(model, {"flow.nn.layers.0.bias": torch.ones(8, dtype=torch.float64)})()
    x = model.flow.inv(y)
    assert len(inverse) == constrained
    assert same(x, model.flow.inv(y.clone()))


class Slow(dist.transforms.Spline):
    """As Pyro's: it keeps the log-determinant of its last call, while other threads make theirs."""

    def _call(self, x: Tensor) -> Tensor:
        y = super()._call(x)
        time.sleep(2e-3)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x = super()._inverse(y)
        time.sleep(2e-3)
        return x


@pytest.mark.parametrize("inverse", [False, True])
def test_threads_share_a_lifted_transform(inverse):
    t = shaken(HT.TangentTransform(Slow(DIM, 4), M))
    t = t.inv if inverse else t
    points = [ph.geometry.exp0(M, V / i) for i in range(1, 9)]
    expected = [t.log_abs_det_jacobian(x, t(x)) for x in points]
    with ThreadPoolExecutor(4) as pool:
        for found, value in zip(pool.map(lambda x: t.log_abs_det_jacobian(x, t(x)), points), expected, strict=True):
            assert same(found, value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_amid_a_lifted_transform_of_another_thread():
    """The child must not wait for a thread that it does not have."""
    entered, leave = threading.Event(), threading.Event()

    class Waiting(dist.transforms.AffineTransform):
        def _call(self, x: Tensor) -> Tensor:
            entered.set()
            leave.wait()
            return super()._call(x)

    slow, t = (HT.TangentTransform(kind(0.0, 2.0, 1), M) for kind in (Waiting, dist.transforms.AffineTransform))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(slow, X)
        entered.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            t(X)
            os._exit(0)
        leave.set()
    assert os.waitpid(child, 0)[1] == 0


def count(monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> list[int]:
    """Counts the calls of a method."""
    counted: list[int] = []
    original = getattr(owner, method)

    def counting(*args: object, **kwargs: object) -> object:
        counted.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, method, counting)
    return counted


@each_case
def test_scoring_an_own_sample_calls_no_inverse_and_no_second_network(name, monkeypatch):
    """One forward pass of the map and of each network, no inverse; nor through expand, mask and a Pyro trace."""
    case = CASES[name]()
    linear = sum(isinstance(module, torch.nn.Linear) for module in case.owner.modules())

    def model():
        with pyro.plate("points", 4):
            return pyro.sample("x", case.distribution.mask(True))

    d = case.distribution.expand([3])
    passes = count(monkeypatch, torch.nn.Linear, "forward")
    forward, inverse = (count(monkeypatch, type(case.transform), method) for method in ("_forward", "_backward"))
    d.log_prob(d.rsample())
    assert (len(forward), len(inverse), len(passes)) == (1, 0, linear)
    with torch.no_grad():
        d.log_prob(d.rsample())
    pyro.poutine.trace(model).get_trace().compute_log_prob()
    assert not inverse


@pytest.mark.parametrize("kind", ["WrappedNormal", "WrappedMultivariateNormal"])
def test_scoring_an_own_sample_of_a_wrapped_normal_calls_no_inverse(kind, monkeypatch):
    """Neither with gradients nor without, for parameters that need gradients or not."""
    eye = torch.eye(DIM, dtype=torch.float64)
    scale = eye.diagonal() if kind == "WrappedNormal" else eye
    inverse = count(monkeypatch, HT.ExponentialMap, "_backward")
    for manifold in (M, ph.manifolds.Lorentz(M.k.detach())):
        d = getattr(hdist, kind)(point(K, 0.4, -0.3, 0.2), scale, manifold=manifold)
        d.log_prob(d.rsample((4,)))
        x = d.sample()
        with torch.no_grad():
            d.log_prob(x)
    assert not inverse


@each_case
def test_gradients_after_a_change_of_grad_mode(name):
    """Drawn under no_grad and scored with gradients: the gradients of the stored value. And nothing the other way."""
    case = CASES[name]()
    d, t, x = case.distribution, case.transform, inputs(case)
    drawn = d.sample((4,))
    actual = flat_gradients(d.log_prob(drawn).sum(), case)
    stored = flat_gradients(d.log_prob(drawn.clone()).sum(), case)
    assert stored.abs().max() > 1e-3
    assert same(actual, stored, 1e-8)
    y = t(x)
    with torch.no_grad():
        assert not t.inv(y).requires_grad
    y = t(x)
    with torch.no_grad():
        assert not t.log_abs_det_jacobian(x, y).requires_grad


@each_case
def test_with_cache_shares_parameters(name, monkeypatch):
    """with_cache(0) and with_cache(1) are the same map of the same parameters; with_cache(0) remembers nothing."""
    case = CASES[name]()
    t = case.transform
    off = t.with_cache(0)
    on = off.with_cache(1)
    assert t.with_cache(1) is t
    for value in case.parameters:
        edit_in_place(value)
    fresh, x = case.fresh().transform, inputs(case)
    for other in (off, on):
        y = other(x)
        assert same(y, fresh(x))
        assert same(other.inv(y), x, 1e-9)
        loss = other.log_abs_det_jacobian(x, y).sum() + y.sum()
        expected = t(x).sum() + t.log_abs_det_jacobian(x, t(x)).sum()
        assert same(flat_gradients(loss, case), flat_gradients(expected, case))
    inverse = count(monkeypatch, type(t), "_backward")
    on.inv(on(x))
    assert not inverse
    off.inv(off(x))
    assert len(inverse) == 1


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", [name for name in CASES if name not in PYRO_CANNOT])
def test_jit_trace(name):
    """A trace (of a function: torch traces no module that is a transform) gives the values, and leaves nothing."""
    case = CASES[name]()
    case.owner.requires_grad_(False)  # a trace holds them as constants; for others see the next test
    x, obs = inputs(case), observed(case)

    def values(x: Tensor, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return case.transform(x), case.transform.inv(obs), case.distribution.log_prob(obs)

    values(x, obs)
    traced = torch.jit.trace(values, (x, obs), check_trace=False)
    for arguments in ((x, obs), (x.flip(0), obs.flip(0))):
        for first, second in zip(traced(*arguments), values(*arguments), strict=True):
            assert same(first, second)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", [name for name in MODULES if name not in PYRO_CANNOT])
def test_jit_elbo(name):
    """Steps of SVI with JitTrace_ELBO are those with Trace_ELBO: the same losses, step after step."""

    def train(elbo):
        pyro.clear_param_store()
        case = MODULES[name]()

        def model():
            pyro.module("flow", case.owner)
            with pyro.plate("data", len(X)):
                pyro.sample("x", case.distribution, obs=X)

        svi = SVI(model, lambda: None, pyro.optim.Adam({"lr": 0.01}), elbo)
        return torch.tensor([svi.step() for _ in range(4)])

    losses = train(JitTrace_ELBO())
    assert losses.unique().numel() == 4
    assert torch.allclose(losses, train(Trace_ELBO()), rtol=1e-9)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_jit_elbo_of_a_latent():
    """The ELBO of a latent with a flow for a guide is, on average, that without JIT."""
    case = MODULES["tangent coupling"]()

    def model():
        z = pyro.sample("z", _base())
        with pyro.plate("data", len(X)):
            pyro.sample("x", hdist.WrappedNormal(z, 2.0, M), obs=X)

    def guide():
        pyro.module("flow", case.owner)
        pyro.sample("z", case.distribution)

    jit, eager = (
        torch.tensor([elbo.loss_and_grads(model, guide) for _ in range(200)], dtype=torch.float64)
        for elbo in (JitTrace_ELBO(), Trace_ELBO())
    )
    error = ((jit.var() + eager.var()) / 200).sqrt()
    assert jit.unique().numel() == 200
    assert (jit.mean() - eager.mean()).abs() < 4.3 * error


@pytest.mark.parametrize("name", [name for name in CASES if name not in PYRO_CANNOT])
def test_function_transforms(name):
    """vmap, jacrev and jvp go through t, t.inv and log_prob, after ordinary calls on the same tensors too."""
    case = CASES[name]()
    t, x, obs = case.transform, inputs(case), observed(case)
    score = case.distribution.log_prob
    y, scored = t(x), score(obs)
    assert same(torch.func.vmap(t)(x), y)
    assert same(torch.func.vmap(t.inv)(obs), t.inv(obs))
    assert same(torch.func.vmap(lambda x: t.inv(t(x)))(x), x, 1e-9)
    assert same(torch.func.vmap(score)(obs), scored)
    for f, point_ in ((t, x[0]), (score, obs[0])):
        jacobian = torch.autograd.functional.jacobian(f, point_.clone())
        assert same(torch.func.jacrev(f)(point_), jacobian, 1e-9)
        assert same(torch.func.jacfwd(f)(point_), jacobian, 1e-9)
        tangent = torch.ones_like(point_)
        assert same(torch.func.jvp(f, (point_,), (tangent,))[1], jacobian @ tangent, 1e-9)
    assert same(t(x), y)
    assert same(score(obs), scored)


@each_case
def test_forward_mode_differentiation(name):
    """Dual tensors go through, and leave no tangent behind."""
    case = CASES[name]()
    t, x = case.transform, inputs(case)
    expected = torch.func.jvp(t, (x,), (torch.ones_like(x),))[1]
    with torch.autograd.forward_ad.dual_level():
        y = t(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))
        assert same(torch.autograd.forward_ad.unpack_dual(y).tangent, expected)
    assert same(t(x), case.fresh().transform(x))


@each_case
def test_inference_mode(name):
    """Values are the same there, and what was made there is an ordinary value afterwards."""
    case = CASES[name]()
    t, x, obs, d = case.transform, inputs(case), observed(case), case.distribution
    y, scored = t(x), d.log_prob(obs)
    with torch.inference_mode():
        assert same(t(x), y)
        assert same(t.inv(y), x, 1e-9)
        assert same(d.log_prob(obs), scored)
        sample = d.sample((4,))
        within, x = d.log_prob(sample), x + 0
    with torch.no_grad():
        assert same(d.log_prob(sample), within, 1e-9)
        assert same(t.inv(sample), t.inv(sample.clone()))
        assert same(t(x), y)


def test_a_location_of_inference_mode_outside_of_it():
    """As a decoder's output that was computed in inference mode and is sampled around later."""
    with torch.inference_mode():
        loc = point(K, 0.4, -0.3, 0.2)
    d, x = hdist.WrappedNormal(loc, 1.0, M), point(K, 0.1, 0.2, 0.3)
    assert same(d.log_prob(x), hdist.WrappedNormal(loc.clone(), 1.0, M).log_prob(x))
    assert d.log_prob(d.rsample((4,))).shape == (4,)


@pytest.mark.parametrize("use", ["sampled", "scored", "trained", "only its image lives"])
@each_case
def test_a_used_transform_is_freed_at_once(name, use):
    """By its reference count: no cycle of graph, hook and cache waits for a collection."""
    case = CASES[name]()
    owner = case.owner
    t = owner.make(**{name: getattr(owner, name) for name in owner._parts()}) if isinstance(owner, Held) else owner
    x, obs, base = inputs(case), observed(case), case.base
    del case, owner
    parts = [weakref.ref(value) for value in [t, *(t.layers if isinstance(t, ph.flows.CouplingFlow) else [])]]
    parts.append(weakref.ref(t._own_sample))
    gc.collect()
    gc.disable()
    try:
        y = t(x)
        log_det = t.log_abs_det_jacobian(x, y)
        if use == "scored":
            t.inv(obs)
            dist.TransformedDistribution(base, [t]).log_prob(obs)
        elif use == "trained":
            (y.sum() + log_det.sum()).backward()
        assert t.inv.inv is t
        if use != "only its image lives":
            del y, log_det
        del t
        assert [part() for part in parts if part() is not None] == []
    finally:
        gc.enable()


@pytest.mark.parametrize("inverse", [False, True])
@each_case
def test_gradients_asked_for_afterwards(name, inverse):
    """requires_grad_() on a tensor that the cache knows (as NUTS does with its first point) brings its gradient."""
    case = CASES[name]()
    t = case.transform
    case.owner.requires_grad_(False)
    source = (t.inv(observed(case)) if inverse else t(inputs(case))).requires_grad_()
    fresh = source.detach().clone().requires_grad_()
    back = t if inverse else t.inv
    (found,), (expected,) = (torch.autograd.grad(back(value).sum(), value) for value in (source, fresh))
    assert same(found, expected, 1e-8)


@pytest.mark.parametrize("through", ["the value", "the log-determinant"])
# Not a translation, whose log-determinant depends on nothing.
@pytest.mark.parametrize("name", [name for name in CASES if name != "translation"])
def test_a_backward_pass_through_one_of_both_drops_the_pair(name, through):
    """Its graph is freed in part, and so what is asked for next is computed again, and has a graph."""
    case = CASES[name]()
    t, x = case.transform, inputs(case)
    y = t(x)
    log_det = t.log_abs_det_jacobian(x, y)
    (y if through == "the value" else log_det).sum().backward()
    log_det = t.log_abs_det_jacobian(x, y)
    assert same(log_det, case.fresh().transform.log_abs_det_jacobian(x, y.detach().clone()))
    log_det.sum().backward()


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_takes_nothing_from_before_it():
    """What was remembered outside would be a constant of it: the trace has to read the parameters."""
    flow = ph.flows.coupling_flow(DIM, 2, manifold=M).double().requires_grad_(False)
    x = ph.geometry.exp0(M, torch.randn(5, DIM, dtype=torch.float64))
    y = flow(x)

    def undone(shift: Tensor) -> Tensor:
        return flow.inv(y) + shift

    traced = torch.jit.trace(undone, torch.zeros((), dtype=torch.float64), check_trace=False)
    assert "linear" in str(traced.graph)
