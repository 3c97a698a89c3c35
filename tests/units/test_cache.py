"""The cache is never seen: an own sample scores as its clone, whatever happened since, and costs no inverse."""

import contextlib
import copy
import functools
import gc
import os
import pickle
import signal
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from typing import NamedTuple

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, JitTrace_ELBO, Trace_ELBO
from pyro.nn import DenseNN, PyroModule, PyroParam
from pyro.nn.module import to_pyro_module_
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor
from torch.nn.utils import vector_to_parameters
from torch.utils._python_dispatch import TorchDispatchMode

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic.testing.oracles import leaves_of
from tests.cases import TRANSFORMS, lorentz, point, points, shaken

G, M = ph.geometry, lorentz(4.0)
V = torch.randn(5, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
X, H2 = G.exp0(M, V), G.exp0(lorentz(1.0), V[:, :2])


class Case(NamedTuple):
    """A transform, points of its domain, a law that it pushes forward, and a module of all that they depend on."""

    transform: dist.transforms.Transform
    x: Tensor
    law: dist.TorchDistribution
    owner: torch.nn.Module


def case(transform: dist.transforms.Transform, *beside: torch.nn.Module, x: Tensor = X) -> Case:
    """A map, with modules that a user's model holds beside it."""
    space = transform.manifold
    base = dist.Normal(0 * V[0], 0.7).to_event(1)
    if isinstance(transform, HT.ExponentialMap):
        x = V
    else:
        base = hdist.WrappedNormal(G.exp0(space, 0.4 + 0 * G.log0(space, x[0])), 0.7, space)
    return of_law(dist.TransformedDistribution(base, transform), *beside, x=x)


def of_law(law: dist.TorchDistribution, *beside: torch.nn.Module, x: Tensor = V) -> Case:
    transform = law.transforms[0]
    owner = torch.nn.ModuleList(each for each in (*beside, transform) if isinstance(each, torch.nn.Module))
    known = {id(value) for value in owner.parameters()}
    leaves = leaves_of(law.log_prob(transform(x).detach().clone()))
    owner.leaves = torch.nn.ParameterList([value for value in leaves if id(value) not in known])
    return Case(transform, x, law, owner)


def of_table(name: str) -> Case:
    found = next(each for each in TRANSFORMS if each.name == name)
    return case(found.make(), x=points(found, radius=2.0)[2:])


def conditioned(context: Tensor) -> Case:
    flow = shaken(ph.flows.coupling_flow(3, 2, hidden_dims=[8], manifold=M, context_dim=2))
    return case(flow.condition(torch.nn.Parameter(context)), flow)


def curved(**kwargs: bool) -> Case:
    manifold = ph.manifolds.Lorentz(M.k.detach().clone(), **kwargs)
    return case(HT.ExponentialMap(manifold), manifold)


def coupling(network: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Case:
    return case(shaken(HT.TangentCoupling(1, network, M)))


def closure(weight: Callable[[], Tensor]) -> Case:
    return coupling(lambda x1: (x1 * weight(), (x1 * weight()).sin()))


def pyro_module() -> torch.nn.Module:
    module = torch.nn.Sequential(of_table("tc-n3-k4").transform)
    to_pyro_module_(module)
    return module


class Slow(dist.transforms.Spline):
    """As Pyro's: it keeps the log-determinant of its last call, while other threads make theirs."""

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        time.sleep(1e-3)
        return super().log_abs_det_jacobian(x, y)


class Own(DenseNN):
    """A class that the package does not know, and that says that it may be trusted."""

    is_self_contained = True


LOC = geoopt.ManifoldParameter(point(4.0, 1.0, -0.5, 0.3), manifold=M)
WEIGHT, EYE = torch.nn.Parameter(V[0, :2]), torch.nn.Parameter(torch.eye(3, dtype=torch.float64))
#: Those that every test runs over.
CASES = {
    **{name: partial(of_table, name) for name in ("tc-n3-k4", "flow-tc-n3-k4", "lifted-spline-n2-k4")},
    "conditioned": lambda: conditioned(V[0, :2].clone()),
    "translation": lambda: case(HT.Translation(M, copy.deepcopy(LOC))),
    "learnable k": lambda: curved(learnable=True),
}
KNOWN = {
    **CASES,
    **{name: partial(of_table, name) for name in ("whc-n3-k4", "polar-n2-k4", "lifted-stack-n3-k1")},
    "plain tensor": lambda: case(
        HT.TangentTransform(dist.transforms.AffineTransform(torch.nn.Parameter(V[0].clone()), 1.0, 1), M)
    ),
    "own class of networks": lambda: coupling(Own(1, [8], [2, 2])),
    "PyroModule": lambda: case(pyro_module()[0]),
    "one layer twice": lambda: case(ph.flows.CouplingFlow(2 * [of_table("tc-n2-k1").transform]), x=H2),
    "2 x 5 contexts": lambda: conditioned(V[:, :2].expand(2, 5, 2).clone()),
    "fixed k": curved,
    "exponential map at a location": lambda: case(HT.ExponentialMap(M, copy.deepcopy(LOC))),
    "wrapped normal": lambda: of_law(hdist.WrappedNormal(copy.deepcopy(LOC), 0.7, M)),
    "wrapped multivariate normal": lambda: of_law(
        hdist.WrappedMultivariateNormal(X[0], scale_tril=copy.deepcopy(EYE), manifold=M)
    ),
}
#: Nobody can know what these depend on, or it moves with each call.
UNKNOWN = {
    "closure": lambda: closure(partial(torch.mul, copy.deepcopy(WEIGHT), 1.0)),
    "param store": lambda: closure(partial(pyro.param, "weight", copy.deepcopy(WEIGHT))),
    "slow spline": lambda: case(shaken(HT.TangentTransform(Slow(3, 4), M))),
    "batch normalisation": lambda: coupling(DenseNN(1, [8], [2, 2], nonlinearity=torch.nn.BatchNorm1d(8))),
}
ALL = {**KNOWN, **UNKNOWN}
each_case = pytest.mark.parametrize("name", CASES)


def same(actual: Tensor, expected: Tensor, atol: float = 1e-9) -> bool:
    return torch.allclose(actual, expected, rtol=1e-9, atol=atol)


def gradients(loss: Tensor, owner: torch.nn.Module) -> Tensor:
    wanted = [value for value in owner.parameters() if value.requires_grad]
    found = torch.autograd.grad(loss.sum(), wanted, allow_unused=True, materialize_grads=True)
    return torch.cat([each.flatten() for each in found])


def moved(value: Tensor) -> Tensor:
    """Another value of a parameter, on its manifold if it has one."""
    if isinstance(value, geoopt.ManifoldParameter):
        return G.translate(M, point(4.0, 0.1, 0.1, 0.1), M.projx(value.detach()))
    return 1.1 * value.detach() + 0.05


@torch.no_grad()
def edit(value: Tensor) -> None:
    value.copy_(moved(value))


# An own sample scores as its clone


class OwnSample:
    """Draws, changes what it can, and scores: what was drawn scores as its clone, which no transform has made."""

    def __init__(self, make: Callable[[], Case], validate: bool) -> None:
        self.default = torch.distributions.Distribution._validate_args
        torch.distributions.Distribution.set_default_validate_args(validate)
        pyro.set_rng_seed(0)
        self.t, _, self.law, self.owner = make()
        self.ways = [*WAYS.values(), *(WAYS_WHILE_VALIDATING.values() if validate else [])]
        self.grad, self.inverse = True, False
        self.draw()

    def teardown(self) -> None:
        torch.distributions.Distribution.set_default_validate_args(self.default)

    @property
    def tensors(self) -> list[Tensor]:
        return [v for v in [*self.owner.parameters(), *self.owner.buffers()] if v.is_floating_point()]

    def draw(self) -> None:
        with torch.set_grad_enabled(self.grad):
            self.image = self.law.rsample(() if self.law.batch_shape else (5,))
            self.sample = self.t.inv(self.image.detach().clone()) if self.inverse else self.image

    def scores(self, value: Tensor) -> list[Tensor | type[Exception]]:
        functions = [self.law.log_prob, self.t.inv, lambda y: self.t.log_abs_det_jacobian(self.t.inv(y), y)]
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

    def change(self, random: Random) -> None:
        for way in random.sample(self.ways, random.randrange(3)):
            way(self)
        check_grad, self.grad, self.inverse = random.choices((False, True), k=3)
        with torch.set_grad_enabled(check_grad):
            self.check()
        self.draw()


def step(own: OwnSample, optimiser: type[torch.optim.Optimizer], through_the_sample: bool = False) -> None:
    wanted = [value for value in own.tensors if value.requires_grad]
    loss = sum(((value * value).sum() for value in wanted), torch.zeros(()))
    score = own.scores(own.sample)[0] if through_the_sample else None
    with contextlib.suppress(RuntimeError):  # the graph of a sample may be spent, or its parameters edited
        (loss + score.sum() if isinstance(score, Tensor) else loss).backward()
    if wanted:
        torch.nn.utils.clip_grad_norm_(wanted, 1.0)  # a large step would stretch points to infinity
        steps = optimiser(wanted, lr=0.05)
        steps.step()
        steps.zero_grad()


def each(change: Callable[[Tensor], object]) -> Callable[[OwnSample], object]:
    return lambda own: [change(value) for value in own.tensors]


def swap(value: Tensor) -> None:
    if type(value) is torch.nn.Parameter:
        with contextlib.suppress(RuntimeError):  # torch swaps no tensor of which a graph exists
            torch.utils.swap_tensors(value, torch.nn.Parameter(moved(value), value.requires_grad))


def load(own: OwnSample, assign: bool) -> None:
    values = {name: moved(value).clone() for name, value in own.owner.named_parameters()}
    own.owner.load_state_dict({**own.owner.state_dict(), **values}, assign=assign)


def call_with_other_parameters(own: OwnSample) -> None:
    scope = torch.nn.Module()  # functional_call swaps its parameters meanwhile
    scope.owner, scope.forward = own.owner, own.check
    torch.func.functional_call(scope, {f"owner.{name}": moved(v) for name, v in own.owner.named_parameters()}, ())


def freeze_or_thaw(own: OwnSample) -> None:
    for value in own.owner.parameters():
        value.requires_grad_(not value.requires_grad)


def replace_parts(own: OwnSample) -> None:
    for module in [module for module in own.owner.modules() if type(module) is DenseNN]:
        module.layers[0] = copy.deepcopy(module.layers[0])
        module.layers[-1].bias = torch.nn.Parameter(moved(module.layers[-1].bias))


def set_attributes(own: OwnSample) -> None:
    own.owner.train(not own.owner.training)
    for module in own.owner.modules():
        if isinstance(module, HT.Coupling):
            module.log_scale_bound = 0.3
        if isinstance(module, DenseNN) and isinstance(module.f, torch.nn.ReLU):
            module.f = torch.nn.Tanh()


def hook(own: OwnSample) -> None:
    for module in own.owner.modules():
        if type(module) is torch.nn.Linear:
            module.register_forward_hook(lambda _, inputs, output: 0.9 * output)


def draw_in_threads(own: OwnSample) -> None:
    def score(_: int) -> None:
        sample = own.law.sample((3,))
        torch.testing.assert_close(own.law.log_prob(sample), own.law.log_prob(sample.clone()))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(score, range(8)))


def use_elsewhere(own: OwnSample, where: Callable[[], contextlib.AbstractContextManager], batched: Callable) -> None:
    with where(), contextlib.suppress(ValueError, RuntimeError):  # off the manifold; Pyro's splines do not vmap
        y = own.image.detach().clone()
        x = batched(own.t.inv)(y)
        own.image, own.sample = (y, x) if own.inverse else (own.t(x), own.t(x))
        each(edit)(own)


def copy_and_pickle(own: OwnSample) -> None:
    other = copy.deepcopy(own.t)
    with contextlib.suppress(AttributeError, pickle.PicklingError):  # closures
        other = pickle.loads(pickle.dumps(other))
    with contextlib.suppress(ValueError):  # off the manifold of another k
        torch.testing.assert_close(other.inv(own.image.detach()), other.inv(own.image.detach().clone()))


OPTIMISERS = (torch.optim.Adam, torch.optim.SGD, ClippedAdam, geoopt.optim.RiemannianAdam)
#: Ways to change what a score depends on.
WAYS = {
    **{kind.__name__: partial(step, optimiser=kind) for kind in OPTIMISERS},
    **{f"{kind.__name__}, trained": partial(step, optimiser=kind, through_the_sample=True) for kind in OPTIMISERS},
    "in place": each(edit),
    "assigned .data": each(lambda value: setattr(value, "data", moved(value))),
    "swap_tensors": each(swap),
    "vector_to_parameters": lambda own: vector_to_parameters(
        torch.cat([torch.zeros(0), *[moved(value).flatten() for value in own.tensors]]), own.tensors
    ),
    "load_state_dict": partial(load, assign=False),
    "load_state_dict(assign=True)": partial(load, assign=True),
    "functional_call": call_with_other_parameters,
    "requires_grad": freeze_or_thaw,
    "replaced parts": replace_parts,
    "attributes": set_attributes,
    "hooks": hook,
    "threads": draw_in_threads,
    "inference mode": partial(use_elsewhere, where=torch.inference_mode, batched=lambda f: f),
    "vmap": partial(use_elsewhere, where=contextlib.nullcontext, batched=torch.func.vmap),
    "copies": copy_and_pickle,
    "the sample in place": lambda own: edit(own.sample),
    "the sample's .data": lambda own: setattr(own.sample, "data", moved(own.sample)),
}
#: Those that leave no trace but the values.
WAYS_WHILE_VALIDATING = {
    "in place through .data": each(lambda value: value.data.copy_(moved(value))),
    "moving average": each(lambda value: value.data.mul_(0.9).add_(0.1 * moved(value))),
    "the sample through .data": lambda own: own.sample.data.copy_(moved(own.sample)),
}


@pytest.mark.filterwarnings("ignore:.*grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize(("name", "validate"), [(name, i % 2 == 0) for i, name in enumerate(ALL)])
def test_an_own_sample_scores_as_its_clone_whatever_happened_since(name, validate):
    random = Random(name)
    for _ in range(2):
        own = OwnSample(ALL[name], validate)
        try:
            for _ in range(4):
                own.change(random)
        finally:
            own.teardown()


#: Each change alone: of a flow, and of what another case is there for.
CHANGES = {
    **{name: ("flow-tc-n3-k4", way) for name, way in (WAYS | WAYS_WHILE_VALIDATING).items()},
    **{f"{name}, in place": (name, WAYS["in place"]) for name in ("plain tensor", "closure", "param store")},
    "context": ("conditioned", lambda own: [context.data.mul_(1.1) for context in own.owner.leaves]),
    "mode": ("batch normalisation", lambda own: own.t.eval()),
    "slow threads": ("slow spline", draw_in_threads),
    "removed layer": ("flow-tc-n3-k4", lambda own: own.t.layers.__delitem__(slice(1, None))),
    "added part": (
        "lifted-stack-n3-k1",
        lambda own: own.t.transform.parts.append(dist.transforms.AffineTransform(0.1, 1.1, 1)),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_alone_is_noticed(change):
    name, way = CHANGES[change]
    own = OwnSample(ALL[name], validate=change not in WAYS)
    try:
        way(own)
        own.check()
    finally:
        own.teardown()


def test_a_handler_may_replace_a_parameter_of_a_pyro_module():
    module = pyro_module()
    flow, first = module[0], module[0].nn.layers[0]
    first.bias = PyroParam(first.bias.detach().exp(), dist.constraints.positive)
    y = pyro.poutine.substitute(module, {"0.nn.layers.0.bias": torch.zeros_like(first.bias)})(X)
    assert same(flow.inv(y), flow.inv(y.clone()))


# It costs no inverse, and holds nothing


class Kernels(TorchDispatchMode):
    """Counts the operations that run."""

    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", KNOWN)
def test_scoring_an_own_sample_costs_no_inverse(name):
    """Nor through expand, mask and a trace, with gradients and without: less than half of what its clone costs."""
    law = KNOWN[name]().law
    law = law.expand(law.batch_shape or (4,)).mask(True)
    for grad in (True, False):
        with pyro.validation_enabled(False), torch.set_grad_enabled(grad):
            trace = pyro.poutine.trace(lambda: pyro.sample("x", law)).get_trace()
            with Kernels() as own:
                trace.compute_log_prob()
            with Kernels() as stored:
                law.log_prob(trace.nodes["x"]["value"].clone())
        assert own.number < stored.number / 2


@each_case
def test_with_cache_shares_parameters(name):
    """Both sizes are one map, also after a step; 0 remembers nothing."""
    t, x, _, owner = CASES[name]()
    off = t.with_cache(0)
    on = off.with_cache(1)
    assert t.with_cache(1) is t
    for value in owner.parameters():
        edit(value)
    assert same(off(x), on(x))
    assert same(off(x), t(x))
    assert on.inv(on(x)) is x
    assert off.inv(off(x)) is not x


@pytest.mark.parametrize("use", ["sampled", "scored", "trained", "only its image lives"])
@each_case
def test_a_used_transform_is_freed_at_once(name, use):
    """By its reference count: no cycle waits for a collection."""
    gc.disable()
    try:
        t, given, law, owner = CASES[name]()
        x, obs = given.clone(), t(given).detach().clone()
        y = t(x)
        log_det = t.log_abs_det_jacobian(x, y)
        if use == "scored":
            law.log_prob(obs)
        elif use == "trained":
            (y.sum() + log_det.sum()).backward()
        assert t.inv.inv is t
        held = [t, obs, *t.layers] if isinstance(t, ph.flows.CouplingFlow) else [t, obs]
        if use != "only its image lives":
            held += [x, y, log_det]
            del x, y, log_det
        held = [weakref.ref(each) for each in held]
        del t, owner, law, obs
        assert [each() for each in held if each() is not None] == []
    finally:
        gc.enable()


# Gradients


@each_case
def test_gradients_of_a_sample_that_was_drawn_without(name):
    """Those of the stored value; and none the other way round."""
    t, x, law, owner = CASES[name]()
    drawn = law.sample((4,))
    stored = gradients(law.log_prob(drawn.clone()), owner)
    assert stored.abs().max() > 1e-3
    assert same(gradients(law.log_prob(drawn), owner), stored)
    y = t(x)
    with torch.no_grad():
        assert not t.inv(y).requires_grad
        assert not t.log_abs_det_jacobian(x, y).requires_grad


@pytest.mark.parametrize("inverse", [False, True])
@each_case
def test_gradients_asked_for_afterwards(name, inverse):
    """requires_grad_() on what a transform has made, as NUTS does with its first point."""
    t, x, _, owner = CASES[name]()
    owner.requires_grad_(False)
    source = (t.inv(t(x).clone()) if inverse else t(x)).requires_grad_()
    fresh = source.detach().clone().requires_grad_()
    found, expected = (torch.autograd.grad((t if inverse else t.inv)(v).sum(), v)[0] for v in (source, fresh))
    assert same(found, expected)


@pytest.mark.parametrize("through", ["value", "log-determinant"])
@pytest.mark.parametrize("name", [name for name in CASES if name != "translation"])  # its log-det has no gradient
def test_a_second_backward_pass(name, through):
    """What is asked for after the first is computed again, and has a graph."""
    t, x, *_ = CASES[name]()
    y = t(x)
    (y if through == "value" else t.log_abs_det_jacobian(x, y)).sum().backward()
    log_det = t.log_abs_det_jacobian(x, y)
    assert same(log_det, t.log_abs_det_jacobian(x.clone(), y.detach().clone()))
    log_det.sum().backward()


# Traces, function transforms, inference mode


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["flow-tc-n3-k4", "conditioned", "translation"])
def test_jit_trace(name):
    """It gives the values at other arguments and other parameters: nothing in it is remembered from before."""
    t, x, law, owner = CASES[name]()
    owner.requires_grad_(False)  # a trace holds them as constants
    y = t(x)

    def values(x: Tensor, obs: Tensor) -> tuple[Tensor, ...]:
        return t(x), t.inv(obs), law.log_prob(obs), t.inv(y) + 0 * x

    traced = torch.jit.trace(values, (x, y.clone()), check_trace=False)
    for value in owner.parameters():
        edit(value)
    arguments = x.flip(0), t(x)
    for found, expected in zip(traced(*arguments), values(*arguments), strict=True):
        assert same(found, expected)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_jit_elbo():
    """Steps with JitTrace_ELBO are those with Trace_ELBO, of a flow in the model and in the guide."""

    def train(elbo):
        pyro.clear_param_store()
        _, x, law, owner = of_table("flow-tc-n3-k4")

        def model():
            pyro.sample("z", hdist.WrappedNormal(X[0], 0.7, M))
            pyro.module("flow", owner)
            with pyro.plate("data", len(x)):
                pyro.sample("x", law, obs=x)

        def guide():
            pyro.sample("z", law)

        elbo.loss_and_grads(model, guide)  # compiles, and draws meanwhile
        owner.zero_grad()
        pyro.set_rng_seed(1)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
        return torch.tensor([svi.step() for _ in range(3)])

    with torch.jit.optimized_execution(False):  # which is slow to start
        losses = train(JitTrace_ELBO())
    assert losses.unique().numel() == 3
    assert torch.allclose(losses, train(Trace_ELBO()), rtol=1e-9)


@pytest.mark.parametrize("name", [name for name in CASES if "spline" not in name])  # Pyro's do not vmap
def test_function_transforms(name):
    """vmap, jacrev, jacfwd and dual tensors go through, and leave nothing behind."""
    t, x, law, _ = CASES[name]()
    obs = t(x).detach().clone()
    y, scored, tangent = t(x), law.log_prob(obs), torch.ones_like(x)
    assert same(torch.func.vmap(t)(x), y)
    assert same(torch.func.vmap(lambda x: t.inv(t(x)))(x), x)
    assert same(torch.func.vmap(law.log_prob)(obs), scored)
    for f, at in ((t, x[0]), (law.log_prob, obs[0])):
        jacobian = torch.autograd.functional.jacobian(f, at.clone())
        assert same(torch.func.jacrev(f)(at), jacobian)
        assert same(torch.func.jacfwd(f)(at), jacobian)
    expected = torch.func.jvp(t, (x,), (tangent,))[1]
    with torch.autograd.forward_ad.dual_level():
        dual = t(torch.autograd.forward_ad.make_dual(x, tangent))
        assert same(torch.autograd.forward_ad.unpack_dual(dual).tangent, expected)
    assert same(t(x), y)
    assert same(law.log_prob(obs), scored)


@each_case
def test_inference_mode(name):
    """Values are the same there, and what was made there is an ordinary value afterwards."""
    t, x, law, _ = CASES[name]()
    obs = t(x).detach().clone()
    y, scored = t(x), law.log_prob(obs)
    with torch.inference_mode():
        assert same(t(x), y)
        assert same(t.inv(y), x)
        assert same(law.log_prob(obs), scored)
        sample = law.sample((4,))
        within = law.log_prob(sample)
    with torch.no_grad():
        assert same(law.log_prob(sample), within)
        assert same(t.inv(sample), t.inv(sample.clone()))


def test_a_location_of_inference_mode_outside_of_it():
    """As a decoder's output that was computed there and is sampled around later."""
    with torch.inference_mode():
        law = hdist.WrappedNormal(X[0].clone(), 1.0, M)
    assert same(law.log_prob(X), hdist.WrappedNormal(X[0], 1.0, M).log_prob(X))
    assert law.log_prob(law.rsample((4,))).shape == (4,)


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


def tangent_coupling(network):
    return HT.TangentCoupling(1, network, M2)


def moved_by(change, network, *args):
    """How far the score of an own sample is from its clone's after a change."""
    base = hdist.WrappedNormal(ph.geometry.exp0(M2, torch.tensor([0.3, 0.3])), 0.7, M2)
    d = dist.TransformedDistribution(base, [tangent_coupling(network)])
    with torch.no_grad():
        x = d.rsample((4,))
        change(*args)
        return (d.log_prob(x) - d.log_prob(x.clone())).abs().max().item()


M2 = geoopt.Lorentz()


def test_networks_given_as_functions():
    """Bound methods, bound builtins and decorated closures depend on more than their name."""
    net, other, factor = DenseNN(1, [8], [1, 1]), DenseNN(1, [8], [1, 1]), torch.ones(1)

    def scale():
        with torch.no_grad():
            for value in net.parameters():
                value.mul_(1.3).add_(0.2)

    assert moved_by(scale, net.forward) == 0
    assert moved_by(scale, functools.wraps(net.forward)(lambda x: net(x))) == 0
    assert moved_by(factor.fill_, DenseNN(1, [8], [1, 1], nonlinearity=factor.mul), 3.0) == 0
    assert moved_by(setattr, net, net, "forward", other.forward) == 0


class Holder(torch.nn.Module):
    is_self_contained = True

    def __init__(self):
        super().__init__()
        self.a, self.b, self.parts = torch.tensor([0.3]), torch.tensor([-0.8]), {"a": 0.2, "b": 1.0}
        self.pre, self.post, self.signs = [torch.tensor([0.1])], [torch.tensor([2.0])], {1.0}

    def forward(self, x):
        shift = self.a * x + self.parts["a"] + sum(self.pre) * x + sum(self.signs)
        return shift, self.b * x + self.parts["b"] - sum(self.post)

    def exchange(self):
        a, b = self.a, self.b
        del self.a, self.b
        self.b, self.a = a, b

    def exchange_parts(self):
        a, b = self.parts.pop("a"), self.parts.pop("b")
        self.parts.update(b=a, a=b)


def test_parts_that_change_places():
    for change in (
        Holder.exchange,
        Holder.exchange_parts,
        lambda holder: holder.post.append(holder.pre.pop()),
        lambda holder: holder.pre.insert(0, holder.post.pop()),
        lambda holder: holder.signs.add(5.0),
    ):
        holder = Holder()
        assert moved_by(change, holder, holder) == 0


def test_hooks_of_all_modules():
    handles = []

    def triple(module, x, y):
        return 3 * y if isinstance(y, torch.Tensor) else y

    def register():
        handles.append(torch.nn.modules.module.register_module_forward_hook(triple))

    try:
        assert moved_by(register, DenseNN(1, [8], [1, 1])) == 0
    finally:
        handles[0].remove()


def test_a_learnable_curvature_under_handlers():
    manifold = ph.manifolds.Lorentz(2.0, learnable=True)

    class Owner(PyroModule):
        def __init__(self):
            super().__init__()
            self.manifold = manifold
            self.map = HT.ExponentialMap(manifold)

        def forward(self, y=None):
            return self.map(torch.ones(2)) if y is None else self.map.inv(y)

    owner = Owner()
    with torch.no_grad(), pyro.validation_enabled(False):
        five, unconstrained = {"manifold.k": torch.tensor(5.0)}, torch.tensor(5.0).log()
        five["manifold.k"].unconstrained = weakref.ref(unconstrained)  # as Pyro's compiled ELBOs give it
        for handler in (pyro.poutine.substitute(data=five), pyro.poutine.replay(params=five)):
            y = owner()
            with handler:
                assert torch.equal(owner(y), owner(y.clone()))
                y = owner()
            assert torch.equal(owner(y), owner(y.clone()))


def test_a_point_that_is_detached_has_no_graph():
    flow = ph.flows.coupling_flow(2, 2, HT.tangent_coupling, [4], M2)
    x = flow.inv(ph.geometry.exp0(M2, torch.tensor([0.5, 0.2])))
    x.detach_()
    base = hdist.WrappedNormal(ph.geometry.origin(M2, 2), 1.0, M2)
    assert not base.log_prob(x).requires_grad


def test_an_origin_of_another_manifold_is_a_point():
    o = ph.geometry.origin(M2, 2)
    for other in (geoopt.Euclidean(1), geoopt.PoincareBall(0.25)):
        x = ph.geometry.exp0(other, torch.tensor([0.3, 0.2, 0.1]))
        assert torch.equal(*(hdist.WrappedNormal(loc, 1.0, other).log_prob(x) for loc in (o, o.clone())))


def test_the_manifold_of_a_module_is_fixed():
    for module in (ph.flows.coupling_flow(2, 2), ph.nn.Gyroplanes(2, 1), HT.conditional_tangent_coupling(2, 1)):
        with pytest.raises(AttributeError, match="build another"):
            module.manifold = M2
