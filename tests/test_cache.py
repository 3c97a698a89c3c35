"""The cache is never seen: every value is that of a fresh copy of the transform, and own samples cost no inverse."""

import contextlib
import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import NamedTuple

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, JitTrace_ELBO, Trace_ELBO
from pyro.nn import PyroModule
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from tests.cases import lorentz, point, shaken

DIM, K = 3, 4.0
M = lorentz(K)
CONTEXT = torch.tensor([0.3, -0.8], dtype=torch.float64)


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

    @property
    def distribution(self) -> dist.TransformedDistribution:
        return dist.TransformedDistribution(self.base, [self.transform])

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


def _conditioned(make: Callable[[], torch.nn.Module]) -> Callable[[], Case]:
    def case() -> Case:
        owner = Held(_condition, network=shaken(make()))
        return Case(owner, owner.transform, _base())

    return case


def _condition(network: torch.nn.Module) -> dist.transforms.Transform:
    return network.condition(CONTEXT)


def _translation(loc: Tensor) -> HT.Translation:
    return HT.Translation(M, loc)


def _translated() -> Case:
    owner = Held(_translation, loc=geoopt.ManifoldParameter(point(K, 1.0, -0.5, 0.3), manifold=M))
    return Case(owner, owner.transform, _base())


def _curved() -> Case:
    curved = ph.manifolds.Lorentz(torch.tensor(K, dtype=torch.float64), learnable=True)
    owner = Held(HT.ExponentialMap, manifold=curved)
    return Case(owner, owner.transform, _flat())


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
CASES = {**MODULES, **CONDITIONED, "translation": _translated, "exponential map, learnable k": _curved}
OPTIMISERS = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.05),
    "ClippedAdam, which edits .data": lambda parameters: ClippedAdam(parameters, lr=0.05),
    "RiemannianAdam": lambda parameters: geoopt.optim.RiemannianAdam(parameters, lr=0.05),
}


V = torch.randn(5, DIM, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
X = ph.geometry.exp0(M, V)


def observed(case: Case) -> Tensor:
    """Points of the codomain: one tensor, again and again, unless the curvature moves and they must follow."""
    manifold = case.transform.manifold
    return X if manifold is M else ph.geometry.exp0(manifold, V).detach()


def inputs(case: Case) -> Tensor:
    return V.clone() if isinstance(case.transform, HT.ExponentialMap) else X.clone()


def nudge(case: Case, scale: float = 0.05) -> None:
    """Moves the parameters through .data, as ClippedAdam does: it leaves no version. Points stay on their manifold."""
    for value in case.parameters:
        if isinstance(value, geoopt.ManifoldParameter):
            value.data = ph.geometry.translate(M, point(K, scale, scale, scale), value.data)
        else:
            value.data.add_(scale)


def nudge_in_place(case: Case, scale: float = 0.05) -> None:
    """The same into the same memory, behind autograd's back."""
    for value in case.parameters:
        moved = value.data + scale
        if isinstance(value, geoopt.ManifoldParameter):
            moved = ph.geometry.translate(M, point(K, scale, scale, scale), value.data)
        value.data.copy_(moved)


def flat_gradients(loss: Tensor, case: Case) -> Tensor:
    grads = torch.autograd.grad(loss, case.parameters, allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for g, p in zip(grads, case.parameters, strict=True)
        ]
    )


def stays_on_manifold(case: Case, optimiser: str) -> bool:
    return optimiser == "RiemannianAdam" or not any(isinstance(p, geoopt.ManifoldParameter) for p in case.parameters)


@contextlib.contextmanager
def calls(monkeypatch: pytest.MonkeyPatch, transform: object, method: str) -> Iterator[list[int]]:
    """Counts the calls of a transform's method, also those of its copies, but of no other of its class."""
    counted: list[int] = []
    original = getattr(type(transform), method)

    def counting(self, *args, **kwargs):
        if [id(value) for value in self._dependencies()] == [id(value) for value in transform._dependencies()]:
            counted.append(1)
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(type(transform), method, counting)
        yield counted


def same(actual: Tensor, expected: Tensor, atol: float = 1e-12) -> bool:
    return torch.allclose(actual, expected, rtol=1e-9, atol=atol)


#: Pyro's splines index by a mask, which does not vmap, and hold float32 constants in a trace.
PYRO_CANNOT = {"lifted spline"}
each_case = pytest.mark.parametrize("name", CASES)
each_optimiser = pytest.mark.parametrize("optimiser", OPTIMISERS)


@each_optimiser
@each_case
def test_the_same_observation_at_each_training_step(name, optimiser):
    """Each step scores one tensor with one transform: the value of a fresh copy, and no second backward pass."""
    case = CASES[name]()
    if not stays_on_manifold(case, optimiser):
        pytest.skip("a plain optimiser takes a point off its manifold")
    step = OPTIMISERS[optimiser](case.parameters)
    for _ in range(4):
        obs = observed(case)
        log_prob = case.distribution.log_prob(obs)
        assert same(log_prob, case.fresh().distribution.log_prob(obs.clone()))
        step.zero_grad()
        (-log_prob.mean()).backward()
        step.step()


@each_optimiser
@each_case
def test_one_sample_at_each_training_step(name, optimiser):
    """An ELBO scores its own sample, steps, and scores a replayed one: each value is that of a fresh copy."""
    case = CASES[name]()
    if not stays_on_manifold(case, optimiser):
        pytest.skip("a plain optimiser takes a point off its manifold")
    step, replayed = OPTIMISERS[optimiser](case.parameters), None
    for _ in range(3):
        if replayed is not None and case.transform.manifold is M:  # else the curvature has left it behind
            stored = replayed.detach().clone()
            assert same(case.distribution.log_prob(replayed), case.fresh().distribution.log_prob(stored), 1e-9)
        d = case.distribution
        replayed = d.rsample((4,))
        log_prob = d.log_prob(replayed)
        assert same(log_prob, case.fresh().distribution.log_prob(replayed.detach().clone()), 1e-9)
        step.zero_grad()
        (log_prob.mean() + replayed.mean()).backward()
        step.step()


@pytest.mark.parametrize("edit", [nudge, nudge_in_place])
@each_case
def test_nothing_stale_without_gradients(name, edit):
    """Under no_grad, after parameters were edited through .data, t(x), t.inv(y) and log_prob are those of a copy."""
    case = CASES[name]()
    t, x = case.transform, inputs(case)
    with torch.no_grad():
        t(x), case.distribution.log_prob(observed(case))
        back = t.inv(observed(case))
        edit(case)
        fresh = case.fresh()
        assert same(t(back), fresh.transform(back.clone()))
        y = t(x)
        assert same(y, fresh.transform(x.clone()))
        if t.manifold is M:
            edit(case)
            fresh = case.fresh()
            assert same(t.inv(y), fresh.transform.inv(y.clone()))
        obs = observed(case)
        assert same(case.distribution.log_prob(obs), fresh.distribution.log_prob(obs.clone()))


@each_case
def test_nothing_stale_after_an_edit_with_gradients(name):
    """With gradients, an edit of a parameter in place (as torch's optimisers make) is seen without a backward pass."""
    case = CASES[name]()
    t, x = case.transform, inputs(case)
    y = t(x)
    with torch.no_grad():
        for value in case.parameters:
            if isinstance(value, geoopt.ManifoldParameter):
                value.copy_(ph.geometry.translate(M, point(K, 0.1, 0.1, 0.1), value))
            else:
                value.add_(0.05)
    fresh = case.fresh().transform
    if t.manifold is M:
        assert same(t.inv(y), fresh.inv(y.detach().clone()))
    assert same(t.log_abs_det_jacobian(x, y), fresh.log_abs_det_jacobian(x, y.detach().clone()))


@each_case
def test_scoring_an_own_sample_calls_no_inverse_and_no_second_network(name, monkeypatch):
    """One forward pass of the map and of each network, no inverse; nor through expand, mask and a Pyro trace."""
    case = CASES[name]()
    passes: list[int] = []
    for module in case.owner.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda *_: passes.append(1))
    linear = sum(isinstance(module, torch.nn.Linear) for module in case.owner.modules())

    def model():
        with pyro.plate("points", 4):
            return pyro.sample("x", case.distribution.mask(True))

    with (
        calls(monkeypatch, case.transform, "_backward") as inverses,
        calls(monkeypatch, case.transform, "_forward") as f,
    ):
        d = case.distribution.expand([3])
        d.log_prob(d.rsample())
        assert inverses == []
        assert len(f) == 1
        assert len(passes) == linear
        trace = pyro.poutine.trace(model).get_trace()
        trace.compute_log_prob()
        assert inverses == []


@pytest.mark.parametrize("kind", ["WrappedNormal", "WrappedMultivariateNormal"])
def test_scoring_an_own_sample_of_a_wrapped_normal_calls_no_inverse(kind, monkeypatch):
    """Neither with gradients nor without, for parameters that need gradients or not."""
    eye = torch.eye(DIM, dtype=torch.float64)
    scale = eye.diagonal() if kind == "WrappedNormal" else eye
    for manifold in (M, ph.manifolds.Lorentz(M.k.detach())):
        d = getattr(hdist, kind)(point(K, 0.4, -0.3, 0.2), scale, manifold=manifold)
        with calls(monkeypatch, d.transforms[0], "_backward") as inverses:
            d.log_prob(d.rsample((4,)))
            x = d.sample()
            with torch.no_grad():
                d.log_prob(x)
            assert not inverses


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


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
@each_case
def test_copies_after_a_forward_pass(name, way):
    """A used transform is copied and stored, without warnings, and the copy is independent of the original."""
    case = CASES[name]()
    t, x = case.transform, inputs(case)
    y = t(x)
    t.log_abs_det_jacobian(x, y)
    t.inv(observed(case))
    if way == "deepcopy":
        other = copy.deepcopy(t)
    elif way == "pickle":
        other = pickle.loads(pickle.dumps(t))
    else:
        buffer = io.BytesIO()
        torch.save(t, buffer)
        buffer.seek(0)
        other = torch.load(buffer, weights_only=False)
    assert same(other(x), y)
    nudge(case)
    assert same(other(x.clone()), y)
    assert not same(t(x.clone()), y)


@each_case
def test_with_cache_shares_parameters(name, monkeypatch):
    """with_cache(0) and with_cache(1) are the same map of the same parameters; with_cache(0) remembers nothing."""
    case = CASES[name]()
    t, x = case.transform, inputs(case)
    off = t.with_cache(0)
    on = off.with_cache(1)
    assert t.with_cache(1) is t
    assert [id(value) for value in off._dependencies()] == [id(value) for value in t._dependencies()]
    nudge(case)
    fresh = case.fresh().transform
    for other in (off, on):
        assert same(other(x), fresh(x))
        y = other(x)
        assert same(other.inv(y), x, 1e-9)
        loss = other.log_abs_det_jacobian(x, y).sum() + y.sum()
        assert same(
            flat_gradients(loss, case), flat_gradients(t(x).sum() + t.log_abs_det_jacobian(x, t(x)).sum(), case)
        )
    with calls(monkeypatch, t, "_backward") as inverses:
        off.inv(off(x))
        assert len(inverses) == 1
        on.inv(on(x))
        assert len(inverses) == 1


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
    """Values are the same there; before, within and after."""
    case = CASES[name]()
    t, x, obs = case.transform, inputs(case), observed(case)
    y, scored = t(x), case.distribution.log_prob(obs)
    with torch.inference_mode():
        assert same(t(x), y)
        assert same(t.inv(y), x, 1e-9)
        assert same(case.distribution.log_prob(obs), scored)
        sample = case.distribution.sample((4,))
        within = case.distribution.log_prob(sample)
    assert same(case.distribution.log_prob(sample.clone()), within, 1e-9)
    case.distribution.log_prob(obs).sum().backward()
    nudge_in_place(case)
    with torch.inference_mode():
        assert same(t(x), case.fresh().transform(x))
        assert same(t.inv(observed(case)), case.fresh().transform.inv(observed(case)))


@each_case
def test_tensors_of_inference_mode_outside_of_it(name):
    """A sample drawn in inference mode is an ordinary value afterwards: it is scored, moved, and moved back."""
    case = CASES[name]()
    with torch.inference_mode():
        x = inputs(case) + 0
        obs = observed(case) + 0
    with torch.no_grad():
        assert same(case.transform(x), case.transform(x.clone()))
        assert same(case.transform.inv(obs), case.transform.inv(obs.clone()))
        assert same(case.distribution.log_prob(obs), case.distribution.log_prob(obs.clone()))


def test_a_location_of_inference_mode_outside_of_it():
    """As a decoder's output that was computed in inference mode and is sampled around later."""
    with torch.inference_mode():
        loc = point(K, 0.4, -0.3, 0.2)
    d, x = hdist.WrappedNormal(loc, 1.0, M), point(K, 0.1, 0.2, 0.3)
    assert same(d.log_prob(x), hdist.WrappedNormal(loc.clone(), 1.0, M).log_prob(x))
    assert d.log_prob(d.rsample((4,))).shape == (4,)


@pytest.mark.parametrize("name", MODULES)
def test_functional_call(name):
    """With parameters swapped in, the map is that of the swapped ones; afterwards that of its own."""
    case = MODULES[name]()
    t, x = case.transform, inputs(case)
    y = t(x)
    swapped = {name: value.detach() * 0.5 for name, value in t.named_parameters()}
    other = copy.deepcopy(t)
    other.load_state_dict({**other.state_dict(), **swapped})
    moved = torch.func.functional_call(t, swapped, (x,))
    assert same(moved, other(x))
    assert same(t.inv(moved), case.fresh().transform.inv(moved.clone()))
    assert same(t.inv(y), x, 1e-9)
    assert same(t(x), y)
    gradient = torch.func.grad(lambda p: torch.func.functional_call(t, p, (x,)).sum())(swapped)
    assert all(value.isfinite().all() for value in gradient.values())


@pytest.mark.parametrize("kept", ["nothing", "the image"])
@each_case
def test_a_used_transform_is_freed_at_once(name, kept):
    """By its reference count, while its image lives too: no cycle of graph, hook and cache waits for a collection."""
    case = CASES[name]()
    t, x = _remade(case), inputs(case)
    alive = weakref.ref(t)
    y = t(x)
    t.log_abs_det_jacobian(x, y)
    gc.disable()
    try:
        del t
        if kept == "nothing":
            del y
        assert alive() is None
    finally:
        gc.enable()


@each_case
def test_a_scored_transform_is_freed_at_once(name):
    """After its inverse was used too: else scored batches pile up until a collection, of which Python sees no need."""
    case = CASES[name]()
    t = _remade(case)
    alive = weakref.ref(t)
    gc.disable()
    try:
        with torch.no_grad():
            dist.TransformedDistribution(case.base, [t]).log_prob(observed(case))
        x = t.inv(observed(case))
        assert t.inv.inv is t
        del t
        assert alive() is None
        assert x.requires_grad
    finally:
        gc.enable()


def _remade(case: Case) -> dist.transforms.Transform:
    """The transform anew, referred to by nothing else, of the same parameters."""
    if isinstance(case.owner, Held):
        return case.owner.make(**{name: getattr(case.owner, name) for name in case.owner._parts()})
    return copy.copy(case.transform)


@pytest.mark.parametrize("gradients", [True, False])
@each_case
def test_an_edit_in_place_between_forward_and_inverse(name, gradients):
    """Of y: its inverse is that of the new y. Of x: the inverse of y is the old x."""
    case = CASES[name]()
    t, x = case.transform, inputs(case)
    old = x.clone()
    with torch.set_grad_enabled(gradients):
        y = t(x)
        x.copy_(inputs(case).flip(0))
        assert same(t.inv(y), old, 1e-9)
        assert same(t(x), case.fresh().transform(x.clone()))
        y = t(x)
        with torch.no_grad():
            y.copy_(observed(case).flip(0))
        assert same(t.inv(y), case.fresh().transform.inv(observed(case).flip(0)))
        assert same(t.log_abs_det_jacobian(x, y), case.fresh().transform.log_abs_det_jacobian(x, y))


@pytest.mark.parametrize("kind", ["x of the inverse", "y of the forward pass", "the parameters"])
@each_case
def test_gradients_asked_for_afterwards(name, kind):
    """requires_grad_() on a tensor that the cache knows (as NUTS does with its first point) brings its gradient."""
    case = CASES[name]()
    t = case.transform
    case.owner.requires_grad_(False)
    obs = observed(case)
    y = t(inputs(case))
    if kind == "x of the inverse":
        source = t.inv(obs).requires_grad_()
        result, expected = t(source), case.fresh().transform(fresh := source.detach().clone().requires_grad_())
    elif kind == "y of the forward pass":
        source = y.requires_grad_()
        result, expected = t.inv(source), case.fresh().transform.inv(fresh := source.detach().clone().requires_grad_())
    else:
        other = case.fresh()
        for value in [*case.owner.parameters(), *other.owner.parameters()]:
            value.requires_grad_()
        if t.manifold is not M:
            pytest.skip("its parameter moves the manifold away from y")
        source, fresh = next(iter(case.owner.parameters())), next(iter(other.owner.parameters()))
        result, expected = t.inv(y), other.transform.inv(y.clone())
    assert (
        torch.autograd.grad(result.sum(), source)[0].sub(torch.autograd.grad(expected.sum(), fresh)[0]).abs().max()
        < 1e-8
    )


@each_case
def test_returned_tensors_are_the_callers(name):
    """Editing what an inverse returned changes no later result: nothing of it is kept, and nothing aliases."""
    case = CASES[name]()
    t = case.transform
    with torch.no_grad():
        obs = observed(case)
        x = t.inv(obs)
        x.copy_(inputs(case).flip(0))
        assert same(t.inv(obs), case.fresh().transform.inv(obs.clone()))
        assert same(t(x), case.fresh().transform(x.clone()))


@pytest.mark.parametrize("optimiser", ["Adam", "ClippedAdam, which edits .data"])
def test_wrapped_normal_of_learnt_parameters(optimiser):
    """A WrappedNormal made once of leaf parameters, scored each step, has the value of one made anew."""
    scale = torch.full((DIM,), 0.7, dtype=torch.float64, requires_grad=True)
    loc = point(K, 0.4, -0.3, 0.2)
    d = hdist.WrappedNormal(loc, scale, M)
    step = OPTIMISERS[optimiser]([scale])
    for _ in range(4):
        log_prob = d.log_prob(X)
        assert same(log_prob, hdist.WrappedNormal(loc, scale.detach().clone(), M).log_prob(X.clone()))
        step.zero_grad()
        (-log_prob.sum()).backward()
        step.step()


@pytest.mark.parametrize("name", MODULES)
def test_pyro_module_and_param_store(name):
    """A PyroModule that holds the flow trains through SVI on the same observation at each step, without warnings."""
    case = MODULES[name]()
    obs = observed(case)

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.flow = case.owner

        def forward(self):
            with pyro.plate("data", len(obs)):
                pyro.sample("obs", dist.TransformedDistribution(case.base, [self.flow]), obs=obs)

    model = Model()
    svi = SVI(model, lambda: None, pyro.optim.ClippedAdam({"lr": 0.01}), Trace_ELBO())
    for _ in range(3):
        expected = -case.fresh().distribution.log_prob(obs.clone()).sum()
        assert same(torch.tensor(svi.step(), dtype=torch.float64), expected)


def _replace_a_layer(flow):
    flow.layers[1] = ph.flows.coupling_flow(DIM, 2, manifold=M).double().layers[1]


def _replace_a_network(flow):
    flow.layers[1].nn = ph.flows.coupling_flow(DIM, 2, manifold=M).double().layers[1].nn


def _take_two_layers(flow):
    del flow.layers[2:]


def _replace_a_parameter(flow):
    flow.layers[1].nn.layers[-1].bias = torch.nn.Parameter(torch.full_like(flow.layers[1].nn.layers[-1].bias, 0.3))


@pytest.mark.parametrize("change", [_replace_a_layer, _replace_a_network, _take_two_layers, _replace_a_parameter])
def test_what_a_flow_is_made_of_can_be_replaced(change):
    """Between a forward pass and the inverse, at any depth of the tree of modules."""
    flow = ph.flows.coupling_flow(DIM, 4, manifold=M).double()
    x = ph.geometry.exp0(M, torch.randn(5, DIM, dtype=torch.float64))
    y = flow(x)
    assert flow.inv(y) is x
    change(flow)
    fresh = copy.deepcopy(flow)
    assert same(flow.inv(y), fresh.inv(y.detach().clone()))
    y = flow(x)
    assert flow.inv(y) is x
    assert same(y, fresh(x))


@pytest.mark.parametrize("conditional", [False, True])
def test_a_used_flow_is_in_no_cycle(conditional):
    """What it is made of is freed with it, and needs no collector: a conditional flow is made anew in each step."""
    context_dim = 2 if conditional else None
    made = ph.flows.coupling_flow(DIM, 2, manifold=M, context_dim=context_dim).double()
    flow = made.condition(CONTEXT) if conditional else made
    x = ph.geometry.exp0(M, torch.randn(5, DIM, dtype=torch.float64))
    gc.collect()
    gc.disable()
    try:
        y = flow(x)
        assert flow.inv(y) is x
        flow.log_abs_det_jacobian(x, y).sum().backward()
        with torch.no_grad():
            flow(x)
        parts = [weakref.ref(value) for value in (flow, *flow.layers, *(() if conditional else flow.parameters()))]
        parts.append(weakref.ref(flow._tensors))
        del flow, made, y
        assert [part() for part in parts if part() is not None] == []
    finally:
        gc.enable()


class _Scaled(torch.nn.Module):
    """A network of which a buffer is a part."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(0.5, dtype=torch.float64))

    def forward(self, x1: Tensor) -> tuple[Tensor, Tensor]:
        total = self.factor * x1.sum(-1, keepdim=True)
        return total.expand(*x1.shape[:-1], 2), (0.1 * total).expand(*x1.shape[:-1], 2)


def test_a_buffer_counts_as_a_parameter_does():
    t = HT.TangentCoupling(1, _Scaled(), M)
    x = ph.geometry.exp0(M, torch.randn(5, 3, dtype=torch.float64))
    y = t(x)
    assert t.inv(y) is x
    t.nn.factor.mul_(2)
    assert same(t.inv(y), copy.deepcopy(t).inv(y.clone()))


@pytest.mark.parametrize("through", ["the value", "the log-determinant"])
@pytest.mark.parametrize("inverse", [False, True])
# Not a translation, whose log-determinant depends on nothing, nor where an edit of k moves points off the manifold.
@pytest.mark.parametrize(
    "name", [name for name in CASES if name not in ("translation", "exponential map, learnable k")]
)
def test_a_backward_pass_through_one_of_both_drops_the_pair(name, inverse, through):
    """Its graph is freed in part, and an optimiser that edits ``.data`` leaves no version behind."""
    case = CASES[name]()
    t, x = case.transform, inputs(case)
    given = t(x).detach().clone() if inverse else x
    made = t.inv(given) if inverse else t(given)
    pair = (made, given) if inverse else (given, made)
    log_det = t.log_abs_det_jacobian(*pair)
    wanted = made if through == "the value" else log_det
    assert wanted.requires_grad
    wanted.sum().backward()
    for value in case.parameters:
        value.data.add_(0.05)
    fresh = case.fresh().transform
    expected = fresh.log_abs_det_jacobian(*(value.detach().clone() for value in pair))
    found = t.log_abs_det_jacobian(*pair)
    assert same(found, expected)
    if found.requires_grad and not inverse:  # the graph of what an inverse made is spent
        found.sum().backward()
    back = t(made) if inverse else t.inv(made)
    assert same(back, fresh(made.detach().clone()) if inverse else fresh.inv(made.detach().clone()))


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
