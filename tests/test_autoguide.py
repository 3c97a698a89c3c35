"""The autoguides of infer: a wrapped normal where the latent is, whatever its distance from the origin."""

import copy
import importlib.util
import io
import math
import pickle
from functools import cache, partial
from statistics import NormalDist

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer import (
    SVI,
    JitTrace_ELBO,
    JitTraceEnum_ELBO,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import (
    AutoGuideList,
    AutoNormal,
    AutoNormalMessenger,
    init_to_feasible,
    init_to_generated,
    init_to_mean,
    init_to_median,
    init_to_sample,
    init_to_uniform,
    init_to_value,
)
from pyro.infer.importance import vectorized_importance_weights
from pyro.infer.reparam import LocScaleReparam
from pyro.nn import PyroModule, PyroSample
from torch import Tensor
from torch.distributions import constraints

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from pyro_hyperbolic.infer import AutoWrappedMultivariateNormal, AutoWrappedNormal, GeodesicBall
from tests.cases import lorentz
from tests.inference_truth import BEACON, POSTERIORS, mixture_model, moments

G = ph.geometry
M = lorentz(2.0)
GUIDES = [AutoWrappedNormal, AutoWrappedMultivariateNormal]
each_guide = pytest.mark.parametrize("guide", GUIDES)


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def train(model, guide, steps, lr=0.05, particles=4, elbo=Trace_ELBO, **kwargs) -> None:
    optimiser = pyro.optim.ClippedAdam({"lr": lr, "lrd": 0.05 ** (1 / steps)})
    svi = SVI(
        model,
        guide,
        optimiser,
        elbo(num_particles=particles, vectorize_particles=True, max_plate_nesting=kwargs.pop("nesting", 0)),
    )
    for _ in range(steps):
        svi.step()


@torch.no_grad()
def weighted(model, guide, number=4000, nesting=0) -> tuple[Tensor, dict[str, Tensor]]:
    """Log importance weights, and the draws that they weigh."""
    weights, trace, _ = vectorized_importance_weights(
        model, guide, num_samples=number, max_plate_nesting=nesting, normalized=False
    )
    return weights, {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"}


def effective(weights: Tensor) -> float:
    """The effective sample size over the number of draws."""
    return float(1 / weights.softmax(0).square().sum() / len(weights))


def far_model(radius: float):
    """A location at a distance from the origin, seen in noise; the posterior is round, about it."""
    seen = G.exp0(M, radius * torch.tensor([0.6, -0.8]))

    def model():
        z = pyro.sample("z", hdist.WrappedNormal(G.origin(M, 2), torch.tensor(3.0), M))
        pyro.sample("x", hdist.WrappedNormal(z, torch.tensor(0.3), M), obs=seen)

    return model


# Where the latent is


def test_far_from_the_origin():
    """At distance 6 ten times the effective sample size of the chart's autoguide; at distance 10 still a guide."""
    sizes = {}
    for radius, cls in ((6.0, AutoNormal), (6.0, AutoWrappedNormal), (10.0, AutoWrappedNormal)):
        pyro.clear_param_store()
        pyro.set_rng_seed(1)
        model = far_model(radius)
        guide = cls(model)
        train(model, guide, 120 * int(radius) // 2)
        sizes[radius, cls] = effective(weighted(model, guide)[0])
    assert sizes[6.0, AutoWrappedNormal] > 0.7 > 10 * sizes[6.0, AutoNormal], sizes
    assert sizes[10.0, AutoWrappedNormal] > 0.7, sizes


@pytest.mark.parametrize("posterior", ["coordinates", "scale"])
@each_guide
def test_evidence_and_moments(guide, posterior):
    """Importance-weighted, they are those of quadrature on H^2."""
    truth = POSTERIORS[posterior]
    g = guide(truth.model)
    train(truth.model, g, 150)
    weights, draws = weighted(truth.model, g, 20_000)
    relative = (weights - weights.max()).exp()
    error = float(relative.std() / relative.mean() / len(weights) ** 0.5)
    assert error < 0.05
    assert abs(weights.logsumexp(0) - math.log(len(weights)) - truth.log_evidence) < 4.3 * error
    share, value = weights.softmax(0).unsqueeze(-1), moments(draws["z"])
    mean = (share * value).sum(0)
    spread = (share.square() * (value - mean).square()).sum(0).sqrt()
    assert ((mean - truth.mean(moments)).abs() < 4.3 * spread).all()


def test_full_covariance():
    """A posterior that is a tilted ellipse about a far location: the full guide is exact, the diagonal one is not."""
    loc = G.exp0(M, torch.tensor([4.0, 3.0]))
    target = hdist.WrappedMultivariateNormal(loc, torch.tensor([[0.5, 0.4], [0.4, 0.5]]), manifold=M)

    def model():
        pyro.sample("z", target)

    sizes = []
    for cls in GUIDES:
        pyro.clear_param_store()
        guide = cls(model)
        train(model, guide, 400)
        sizes.append(effective(weighted(model, guide)[0]))
    assert sizes[1] > 0.9 > 0.3 > sizes[0], sizes


# The anchor


def test_a_step_is_as_long_as_the_learning_rate():
    """At distance 10 as at the origin: Adam's first step moves each coordinate by lr, and the location by its norm."""
    for radius in (0.0, 10.0):
        pyro.clear_param_store()
        model = far_model(radius + 2.0)
        start = G.exp0(M, radius * torch.tensor([0.8, 0.6]))
        guide = AutoWrappedNormal(model, init_loc_fn=init_to_value(values={"z": start}))
        guide()
        SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step()
        moved = G.distance(M, guide.median()["z"], start)
        assert torch.allclose(moved, torch.tensor(0.01 * 2**0.5), rtol=1e-6)


def test_an_anchor_follows_and_nothing_moves():
    """Past a distance sqrt(k) the anchor goes to the location; not before, and never without gradients."""
    model = far_model(1.0)
    guide = AutoWrappedNormal(model)
    guide()
    v, anchor = guide.locs.z_unconstrained, guide.anchors.z_unconstrained
    for size, follows in ((0.9, False), (1.1, True)):
        with torch.no_grad():
            v.copy_(torch.tensor([0.6, 0.8]) * size * 2**0.5)
        before, start = guide.median()["z"], anchor.clone()
        assert torch.equal(anchor, start)
        guide()
        assert torch.equal(anchor, start) is not follows
        assert bool((v == 0).all()) is follows
        assert G.distance(M, guide.median()["z"], before) < 1e-14
    assert not anchor.requires_grad


def test_an_anchor_follows_once_a_step():
    """Two runs of a step share their parameters: the graph of the first survives the second."""
    model = far_model(1.0)
    guide = AutoWrappedNormal(model)
    guide()
    with torch.no_grad():
        guide.locs.z_unconstrained.fill_(3.0)
    losses = [Trace_ELBO().differentiable_loss(model, guide) for _ in range(2)]
    sum(losses).backward()
    assert guide.locs.z_unconstrained.grad.isfinite().all()


# Median and quantiles


@pytest.mark.parametrize("dim", [1, 2, 5])
@each_guide
def test_quantiles_are_geodesic_balls(guide, dim):
    """The ball about the median holds that part of the draws, for each member of a plate."""
    manifold = lorentz(0.5)

    def model():
        pyro.sample("s", dist.LogNormal(0.0, 1.0))
        with pyro.plate("points", 3):
            pyro.sample("z", hdist.WrappedNormal(G.origin(manifold, dim), torch.ones(dim), manifold))

    g = guide(model)
    g()
    with torch.no_grad():
        g.scales.z_unconstrained.copy_(torch.linspace(-2.0, 0.5, 3 * dim).reshape(3, dim))
        g.locs.z_unconstrained.copy_(torch.linspace(-0.3, 0.5, 3 * dim).reshape(3, dim))
        g.scales.s_unconstrained.fill_(math.log(0.7))
    levels = [0.05, 0.5, 0.95]
    found = g.quantiles(levels)
    assert set(found) == {"s", "z"}
    ball, interval = found["z"], found["s"]
    assert isinstance(ball, GeodesicBall)
    assert ball.center.shape == (3, dim + 1)
    assert ball.radius.shape == (3, 3)
    assert torch.equal(ball.center, g.median()["z"])
    with torch.no_grad(), pyro.plate("draws", 20_000, dim=-2):
        z = g()["z"]
    inside = G.distance(manifold, z, ball.center).unsqueeze(0) <= ball.radius.unsqueeze(1)
    assert (inside.double().mean(1) - torch.tensor(levels)[:, None]).abs().max() < 0.002 + 4.3 * 0.5 / 20_000**0.5
    assert torch.allclose(interval.log(), 0.5 + 0.7 * dist.Normal(0.0, 1.0).icdf(torch.tensor(levels)))
    for bad in ([0.0], [1.0], [float("nan")], [0.5, 1.2]):
        with pytest.raises(ValueError, match=r"quantiles = .* must be in \(0, 1\)"):
            g.quantiles(bad)


@each_guide
def test_on_flat_space_it_is_auto_normal(guide):
    """On Euclidean(1) the same parameters give the same posterior."""
    flat = geoopt.Euclidean(1)

    def model():
        pyro.sample("z", hdist.WrappedNormal(torch.tensor([0.3, -2.0]), torch.tensor([1.0, 2.0]), flat))

    drawn = []
    for cls in (guide, AutoNormalMessenger):
        pyro.clear_param_store()  # the names of their parameters are the same
        pyro.set_rng_seed(2)
        drawn.append(cls(model, init_scale=0.3)()["z"])
    assert torch.allclose(*drawn)


# Plates


def hierarchy(data: Tensor, batch: Tensor | None = None):
    """Groups with a location, members about it, in a plate that may be subsampled."""
    with pyro.plate("groups", 2, dim=-2):
        centre = pyro.sample("centre", hdist.WrappedNormal(G.origin(M, 2), torch.ones(2), M))
        with pyro.plate("members", data.size(-2), subsample=batch, dim=-1):
            z = pyro.sample("z", hdist.WrappedNormal(centre, 0.5 * torch.ones(2), M))
            rows = data if batch is None else data[:, batch]
            pyro.sample("x", dist.Normal(G.log0(M, z), 0.1).to_event(1), obs=rows)
    return z


@each_guide
def test_hierarchical_and_subsampled_plates(guide):
    """Each member has parameters of its own, those of a batch move, and a draw has the batch's shape."""
    data = torch.linspace(-1.5, 1.5, 24).reshape(2, 6, 2)
    batch = torch.tensor([1, 4])
    g = guide(hierarchy)
    assert g(data, batch)["z"].shape == (2, 2, 3)
    before = g.median(data)
    svi = SVI(hierarchy, g, pyro.optim.Adam({"lr": 0.02}), TraceMeanField_ELBO())
    svi.step(data, batch)
    after = g.median(data)
    assert before["z"].shape == (2, 6, 3)
    moved = G.distance(M, before["z"], after["z"]) > 1e-3
    assert torch.equal(moved, torch.isin(torch.arange(6), batch).expand(2, 6))
    for step in range(300):
        svi.step(data, torch.tensor([step % 3, 3 + step % 3]))
    assert (G.log0(M, g.median(data)["z"]) - data).abs().max() < 0.15
    assert g.quantiles([0.5], data)["z"].radius.shape == (1, 2, 6)
    assert g.quantiles([0.5], data)["centre"].radius.shape == (1, 2, 1)


@each_guide
def test_amortized_plates(guide):
    """One posterior for all members of the plate."""
    data = torch.linspace(-1.5, 1.5, 24).reshape(2, 6, 2)
    g = guide(hierarchy, amortized_plates="members")
    z = g(data)["z"]
    assert z.shape == (2, 6, 3)
    assert g.locs.z.shape == (2, 1, 2)
    assert z.flatten(0, -2).unique(dim=0).size(0) == 12


@each_guide
def test_a_first_run_among_particles(guide):
    """Parameters are those of the model's sites, not of each particle."""
    truth = POSTERIORS["scale"]
    g = guide(truth.model)
    Trace_ELBO(num_particles=7, vectorize_particles=True, max_plate_nesting=0).loss(truth.model, g)
    assert {name: tuple(value.shape) for name, value in g.named_parameters()}.items() >= {
        ("locs.z_unconstrained", (2,)),
        ("anchors.z_unconstrained", (2,)),
        ("scales.s_unconstrained", ()),
    }


@each_guide
def test_to_event(guide):
    """A site of several points that are independent, or of one with a mixture or a flow for a prior."""
    base = hdist.WrappedNormal(G.origin(M, 2), torch.ones(3, 2), M)
    flow = ph.flows.coupling_flow(2, 2, hidden_dims=[4], manifold=M).double()

    def model():
        pyro.sample("three", base.to_event(1))
        pyro.sample("mixed", dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), base))
        pyro.sample("pushed", dist.TransformedDistribution(base.expand([3]), [flow]).to_event(1))

    g = guide(model)
    trace = pyro.poutine.trace(g).get_trace()
    trace.compute_log_prob()
    for name, shape in {"three": (3, 3), "mixed": (3,), "pushed": (3, 3)}.items():
        assert trace.nodes[name]["value"].shape == shape
        assert trace.nodes[name]["log_prob"].shape == ()
        assert trace.nodes[name]["fn"].event_shape == shape
    assert g.quantiles([0.5, 0.9])["three"].radius.shape == (2, 3)
    assert g.quantiles([0.5, 0.9])["mixed"].radius.shape == (2,)


# Curvature


class Curved(PyroModule):
    """A location under a latent curvature, its coordinates seen in noise: the posterior of k is its prior's, nearly."""

    def __init__(self) -> None:
        super().__init__()
        self.manifold = ph.manifolds.Lorentz()
        self.manifold.k = PyroSample(dist.LogNormal(torch.tensor(0.5), 0.3))

    def forward(self):
        z = pyro.sample("z", hdist.WrappedNormal(G.origin(self.manifold, 2), torch.ones(2), self.manifold))
        seen = torch.tensor([1.1, -0.7])
        pyro.sample("x", dist.Normal(G.log0(self.manifold, z), 0.3).to_event(1), obs=seen)


@each_guide
def test_a_latent_curvature(guide):
    """Each draw is on the manifold of its own k; the evidence is that of the tangent normal, which k does not enter."""
    model = Curved()
    g = guide(model)
    train(model, g, 150, particles=8)
    weights, draws = weighted(model, g, 20_000)
    k = draws["manifold.k"]
    assert k.unique().numel() == 20_000
    # In tangent coordinates the model is N(v; 0, 1) N(x; v, 0.3): that k drops out is the change of variables.
    exact = dist.Normal(torch.zeros(2), 1.09**0.5).log_prob(torch.tensor([1.1, -0.7])).sum()
    relative = (weights - weights.max()).exp()
    error = float(relative.std() / relative.mean() / len(weights) ** 0.5)
    assert error < 0.05
    assert abs(weights.logsumexp(0) - math.log(len(weights)) - exact) < 4.3 * error
    each = lorentz(1.0)
    each.k = torch.nn.Parameter(k, requires_grad=False)
    assert hdist.constraints.on_manifold(each).check(draws["z"]).all()
    assert set(g.quantiles([0.5])) == {"manifold.k", "z"}


@pytest.mark.parametrize("local", [False, True])
def test_a_learned_curvature(local):
    """Model and guide see the same k at each step, as it moves; the anchor is no parameter of the optimiser's."""
    with pyro.settings.context(module_local_params=local):
        manifold = ph.manifolds.Lorentz(torch.tensor(1.0), learnable=True)

        class Beside(PyroModule):  # two points at coordinates that are known: their distance tells k
            def __init__(self) -> None:
                super().__init__()
                self.manifold = manifold

            def forward(self):
                z = pyro.sample("z", hdist.WrappedNormal(G.origin(manifold, 2), torch.ones(2), manifold))
                pyro.sample("v", dist.Normal(G.log0(manifold, z), 0.01).to_event(1), obs=torch.tensor([2.0, 0.0]))
                other = G.exp0(manifold, torch.tensor([0.0, 2.0]))
                pyro.sample("d", dist.Normal(G.distance(manifold, z, other), 0.01), obs=torch.tensor(3.2))

        model = Beside()
        guide = AutoWrappedNormal(model)
        elbo = Trace_ELBO()(model, guide)
        elbo()
        optimiser = torch.optim.Adam([p for p in elbo.parameters() if p.requires_grad], lr=0.03)
        for _ in range(400):
            optimiser.zero_grad()
            elbo().backward()
            optimiser.step()
        # cosh(3.2 / R) = cosh(2 / R)^2: the law of cosines with a right angle.
        radius = float(manifold.k.detach()) ** 0.5
        assert abs(math.cosh(3.2 / radius) - math.cosh(2 / radius) ** 2) < 0.05
        assert hdist.constraints.on_manifold(manifold).check(guide()["z"])
        assert not any(value is guide.anchors.z_unconstrained for value in optimiser.param_groups[0]["params"])


# Life of a guide


@each_guide
def test_copies_and_stores(guide):
    """Deepcopy, pickle, state_dict and the param store each carry the whole posterior, anchors among it."""
    model = far_model(3.0)
    g = guide(model)
    train(model, g, 60)
    expected = g.median()["z"]
    assert G.distance(M, expected, G.origin(M, 2)) > 1.0
    assert torch.equal(copy.deepcopy(g).median()["z"], expected)
    file = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:  # a model that is a closure is no business of pickle's
        patch.setattr(g, "_model", (None,))
        pickle.dump(g, file)
    state, store = g.state_dict(), copy.deepcopy(pyro.get_param_store().get_state())
    other = guide(model)
    pyro.clear_param_store()
    other()
    assert not torch.allclose(other.median()["z"], expected)
    other.load_state_dict(state)
    assert torch.equal(other.median()["z"], expected)
    again = guide(model)
    pyro.get_param_store().set_state(store)
    again()
    assert torch.equal(again.median()["z"], expected)


@each_guide
def test_jit(guide):
    """JitTrace_ELBO traces it, and trains it; its anchors stay."""
    truth = POSTERIORS["coordinates"]
    g = guide(truth.model)
    g()
    svi = SVI(truth.model, g, pyro.optim.Adam({"lr": 0.05}), JitTrace_ELBO(ignore_jit_warnings=True))
    for _ in range(150):
        svi.step()
    assert effective(weighted(truth.model, g)[0]) > 0.5


@each_guide
def test_predictive(guide):
    """Draws from the guide condition the model."""
    truth = POSTERIORS["coordinates"]
    g = guide(truth.model)
    train(truth.model, g, 100)
    for parallel in (False, True):
        draws = Predictive(truth.model, guide=g, num_samples=200, return_sites=["z"], parallel=parallel)()["z"]
        assert draws.shape == (200, 3)
        assert abs(G.distance(M, draws, BEACON).mean() - truth.mean(moments)[-1]) < 0.15


# Idioms of Pyro


LATENT = ["s", "z", "last"]
DATA = torch.tensor([[1.1, -0.7], [0.8, -0.9], [1.4, -0.2]], dtype=torch.float64)


def pair_model(data: Tensor, manifold: geoopt.manifolds.base.Manifold = M) -> None:
    """Two latents and a parameter of the model, data in a plate; then a latent on which nothing depends."""
    noise = pyro.param("noise", torch.tensor(0.5), constraint=constraints.positive)
    s = pyro.sample("s", dist.LogNormal(0.0, 0.3))
    z = pyro.sample("z", hdist.WrappedNormal(G.origin(manifold, 2), s.unsqueeze(-1) * torch.ones(2), manifold))
    with pyro.plate("data", len(data)):
        pyro.sample("x", dist.Normal(G.log0(manifold, z), noise).to_event(1), obs=data)
    pyro.sample("last", dist.Normal(0.0, 1.0))


#: Handlers in which Pyro's tutorials, or users, wrap the model of an autoguide.
HANDLERS = {
    "none": lambda model: model,
    "block(expose)": lambda model: poutine.block(model, expose=LATENT),
    "block(expose) of some": lambda model: poutine.block(model, expose=["s", "z"]),
    "block(hide)": lambda model: poutine.block(model, hide=["last"]),
    "block(hide_types)": lambda model: poutine.block(model, hide_types=["param"]),
    "block(expose_types)": lambda model: poutine.block(model, expose_types=["sample"]),
    "block(hide_fn)": lambda model: poutine.block(model, hide_fn=lambda msg: msg["name"] not in LATENT),
    "mask": lambda model: poutine.mask(model, mask=True),
    "scale": lambda model: poutine.scale(model, scale=0.1),
    "condition": lambda model: poutine.condition(model, data={"last": torch.tensor(0.3)}),
    "do": lambda model: poutine.do(model, data={"last": torch.tensor(0.3)}),
    "lift": lambda model: poutine.lift(model, prior=dist.LogNormal(0.0, 0.1)),
    "lift by name": lambda model: poutine.lift(model, prior={"noise": dist.LogNormal(0.0, 0.1)}),
    "reparam": lambda model: poutine.reparam(model, config={"last": LocScaleReparam(0.0)}),
    "infer_config": lambda model: poutine.infer_config(model, lambda site: {"enumerate": "parallel"}),
    "config_enumerate": config_enumerate,
    "config_enumerate(num_samples)": lambda model: config_enumerate(model, num_samples=3),
    "trace": lambda model: poutine.trace(model).get_trace,
    "replay": lambda model: poutine.replay(model, trace=poutine.trace(model).get_trace(DATA)),
}


@pytest.mark.filterwarnings("ignore:Found vars in model but not guide")
@pytest.mark.parametrize("handler", HANDLERS)
def test_handlers_of_the_model(handler):
    """On Euclidean(1) the guide of a handled model has the loss and the gradient that Pyro's AutoNormal has."""
    model = HANDLERS[handler](partial(pair_model, manifold=geoopt.Euclidean(1)))
    losses, gradients = [], []
    for cls in (AutoWrappedNormal, AutoNormal):
        pyro.clear_param_store()
        guide = cls(model, init_loc_fn=init_to_mean(fallback=init_to_feasible), init_scale=0.3)
        guide(DATA)
        pyro.set_rng_seed(3)
        losses.append(Trace_ELBO().loss_and_grads(model, guide, DATA))
        gradients.append(guide.locs.z_unconstrained.grad)
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    assert torch.allclose(*gradients)
    assert gradients[0].norm() > 0.01


def of(*parts):
    """A list of guides, each of some sites; or of lists."""

    def make(model):
        guides = AutoGuideList(model)
        for cls, *names in parts:
            guides.append(cls(poutine.block(model, expose=names)) if names else cls(model))
        return guides

    return make


class Easy(EasyGuide):
    def __init__(self, model):
        super().__init__(model)
        self.part = AutoWrappedNormal(model)

    def guide(self, data):
        return self.part(data)


def plain_function(model):
    guide = AutoWrappedNormal(model)
    return lambda data: guide(data)


LISTS = {
    "one": of([AutoWrappedNormal]),
    "beside AutoNormal": of([AutoNormal, "s", "last"], [AutoWrappedNormal, "z"]),
    "two": of([AutoWrappedNormal, "z"], [AutoWrappedMultivariateNormal, "s", "last"]),
    "nested": of([of([AutoWrappedNormal, "z"])], [of([AutoWrappedNormal, "last"], [AutoNormal, "s"])]),
}
#: Ways of making and of training a guide: each ends where the plain one does.
IDIOMS = {
    "plain": (AutoWrappedNormal, Trace_ELBO),
    **{
        elbo.__name__: (AutoWrappedNormal, elbo)
        for elbo in (TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO, JitTrace_ELBO, JitTraceEnum_ELBO)
    },
    "expose": (lambda model: AutoWrappedNormal(poutine.block(model, expose=LATENT)), Trace_ELBO),
    "create_plates": (
        lambda model: AutoWrappedNormal(model, create_plates=lambda data: pyro.plate("data", 3)),
        Trace_ELBO,
    ),
    "function": (plain_function, TraceEnum_ELBO),
    "EasyGuide": (Easy, Trace_ELBO),
    **{f"list: {name}": (make, TraceEnum_ELBO if name == "nested" else Trace_ELBO) for name, make in LISTS.items()},
}


@cache
def trained(idiom: str) -> tuple[float, float, dict[str, Tensor]]:
    """Returns the losses before and after a few steps, and the medians."""
    make, elbo = IDIOMS[idiom]
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    options = {"num_particles": 16, "vectorize_particles": True, "max_plate_nesting": 1}
    guide = make(pair_model)
    guide(DATA)
    loss = partial(Trace_ELBO(**{**options, "num_particles": 1000}).loss, pair_model, guide, DATA)
    start = loss()
    if "Jit" in elbo.__name__:
        options["ignore_jit_warnings"] = True
    svi = SVI(pair_model, guide, pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.94}), elbo(**options))
    for _ in range(50):
        svi.step(DATA)
    return start, loss(), {name: value for name, value in pyro.get_param_store().items() if name.endswith("locs.z")}


@pytest.mark.filterwarnings("ignore:TraceEnum_ELBO found no sample sites")
@pytest.mark.parametrize("idiom", IDIOMS)
def test_idioms(idiom):
    """After a few steps of each, the loss and the location are those of the plain guide."""
    start, loss, locations = trained(idiom)
    _, plain_loss, plain_locations = trained("plain")
    assert loss == pytest.approx(plain_loss, abs=0.15)
    assert loss < start - 0.5
    assert torch.allclose(*locations.values(), *plain_locations.values(), atol=0.05)


@pytest.mark.parametrize("name", LISTS)
def test_guide_lists(name):
    """Every site is in the draws, medians and quantiles of a list, which is saved, loaded, copied and moved whole."""
    guide = LISTS[name](pair_model)
    assert set(guide(DATA)) == set(guide.median(DATA)) == set(guide.quantiles([0.1, 0.9], DATA)) == set(LATENT)
    assert isinstance(guide.quantiles([0.1, 0.9], DATA)["z"], GeodesicBall)
    with torch.no_grad():
        for value in guide.parameters():
            value.sub_(0.3)
    expected, state = guide.median(DATA), copy.deepcopy(guide.state_dict())
    assert G.distance(M, expected["z"], G.origin(M, 2)) > 0.4
    copied = copy.deepcopy(guide)
    pyro.clear_param_store()
    loaded = LISTS[name](pair_model)
    loaded(DATA)
    loaded.load_state_dict(state)
    for other in (guide, copied, loaded):
        pyro.clear_param_store()
        found = other.median(DATA)
        assert all(torch.equal(found[site], expected[site]) for site in LATENT)
        assert set(other(DATA)) == set(LATENT)
    assert all(not value.requires_grad for value in guide.requires_grad_(False).parameters())
    assert {value.dtype for value in copied.to(torch.float32).parameters()} == {torch.float32}


def mixture(data: Tensor) -> None:
    """The mixture of Pyro's tutorial, on H^2."""
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((2,), 0.5)))
    scale = pyro.sample("scale", dist.LogNormal(-1.0, 0.5))
    with pyro.plate("components", 2):
        locs = pyro.sample("locs", hdist.WrappedNormal(G.origin(M, 2), torch.tensor(2.0), M))
    with pyro.plate("data", len(data)):
        assignment = pyro.sample("assignment", dist.Categorical(weights))
        pyro.sample(
            "obs",
            hdist.WrappedNormal(locs[assignment], scale.unsqueeze(-1) * torch.ones(2), M),
            obs=data,
        )


def test_the_mixture_tutorial():
    """TraceEnum_ELBO, config_enumerate, expose: losses, weights and locations are those of a chart guide."""
    truth = G.exp0(M, torch.tensor([[1.5, 0.5], [-1.0, -1.2]]))
    pyro.set_rng_seed(4)
    data = hdist.WrappedNormal(truth[(torch.arange(40) < 12).long()], torch.tensor(0.3), M).sample()
    start = init_to_value(values={"locs": data[[39, 0]]}, fallback=init_to_feasible)
    model, found = config_enumerate(mixture), []
    for cls in (AutoWrappedNormal, AutoNormal):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        guide = cls(poutine.block(model, expose=["weights", "locs", "scale"]), init_loc_fn=start)
        svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.97}), TraceEnum_ELBO(max_plate_nesting=1))
        for _ in range(100):
            svi.step(data)
        loss = TraceEnum_ELBO(40, 1).loss(model, guide, data)
        found.append((loss, guide.median(data)))
    (loss, median), (chart_loss, chart_median) = found
    assert loss == pytest.approx(chart_loss, abs=0.5)
    assert (G.distance(M, median["locs"], truth) < 0.25).all()
    assert (G.distance(M, median["locs"], chart_median["locs"]) < 0.09).all()  # a posterior deviation
    assert torch.allclose(median["weights"], chart_median["weights"], atol=0.03)
    assert abs(float(median["weights"][1]) - 0.3) < 0.1


def local_model(data: Tensor, size: int | None = None) -> None:
    """A latent for each datum, in a plate that the model subsamples; a global one."""
    centre = pyro.sample("centre", hdist.WrappedNormal(G.origin(M, 2), torch.ones(2), M))
    with pyro.plate("data", len(data), subsample_size=size) as batch:
        z = pyro.sample("z", hdist.WrappedNormal(centre, torch.ones(2), M))
        pyro.sample("x", dist.Normal(G.log0(M, z), 0.1).to_event(1), obs=data[batch])


SUBSAMPLED = {
    "alone": AutoWrappedNormal,
    "expose": lambda model: AutoWrappedNormal(poutine.block(model, expose=["centre", "z"])),
    "create_plates": lambda model: AutoWrappedNormal(model, create_plates=lambda data, size: pyro.plate("data", 6, 2)),
    "list": of([AutoWrappedNormal, "centre"], [AutoWrappedNormal, "z"]),
    "list, with the plate": of([AutoWrappedNormal, "centre"], [AutoWrappedNormal, "z", "data"]),
    "list, AutoNormal": of([AutoNormal, "centre"], [AutoWrappedNormal, "z"]),
}


@pytest.mark.parametrize("name", SUBSAMPLED)
def test_random_subsamples(name):
    """Guide and model see one subsample, each member has its own posterior, and medians are of all members."""
    data = torch.linspace(-1.5, 1.5, 12).reshape(6, 2)
    guide = SUBSAMPLED[name](local_model)
    guide(data, 2)
    with torch.no_grad():
        for value in guide.parameters():
            value.add_(0.3 * torch.randn_like(value))
    median, ball = guide.median(data, 2)["z"], guide.quantiles([0.5, 0.9], data, 2)["z"]
    assert median.unique(dim=0).shape == (6, 3)
    assert torch.equal(ball.center, median)
    assert ball.radius.shape == (2, 6)
    seen = set()
    for _ in range(8):
        trace = poutine.trace(guide).get_trace(data, 2)
        replayed = poutine.trace(poutine.replay(local_model, trace=trace)).get_trace(data, 2)
        members = trace.nodes["data"]["value"]
        assert torch.equal(replayed.nodes["data"]["value"], members)
        assert torch.allclose(trace.nodes["z"]["fn"].mean, median[members])
        assert trace.nodes["z"]["scale"] == replayed.nodes["z"]["scale"] == 3.0
        assert set(guide.median(data, 2)) == {"centre", "z"}
        seen |= set(members.tolist())
    assert len(seen) > 3
    twice = poutine.trace(poutine.replay(guide, trace=trace)).get_trace(data, 2)
    assert torch.equal(twice.nodes["z"]["value"], trace.nodes["z"]["value"])
    assert torch.allclose(twice.nodes["z"]["fn"].mean, median[members])


def test_hidden_plates_beside_exposed_ones():
    """A plate that the guide's model hides comes first; the model sees the subsamples of both."""

    def model():
        for name, plate in (("u", "first"), ("w", "second")):
            with pyro.plate(plate, 50, subsample_size=5):
                pyro.sample(name, dist.Normal(0.0, 1.0))

    guide = AutoWrappedNormal(poutine.block(model, expose=["u", "w", "second"]))
    trace = poutine.trace(guide).get_trace()
    replayed = poutine.trace(poutine.replay(model, trace=trace)).get_trace()
    for plate in ("first", "second"):
        assert torch.equal(replayed.nodes[plate]["value"], trace.nodes[plate]["value"])


def test_easy_guide_in_a_subsampled_plate():
    """Maximum a posteriori estimates of groups: points for all members, of which a step moves those of its batch."""

    class Modes(EasyGuide):
        def guide(self, data, size):
            found = self.group("centre").map_estimate()
            with self.plate("data", len(data), subsample_size=size):
                return {**found, **self.group("z").map_estimate()}

    data = torch.linspace(-1.5, 1.5, 12).reshape(6, 2)
    guide = Modes(local_model)
    guide(data, 2)
    before = guide.z.detach().clone()
    SVI(local_model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO()).step(data, 2)
    assert before.shape == (6, 3)
    assert int((G.distance(M, guide.z, before) > 0.01).sum()) == 2
    trace = poutine.trace(guide).get_trace(data, 2)
    assert torch.equal(trace.nodes["z"]["value"], guide.z[trace.nodes["data"]["value"]])
    assert hdist.constraints.on_manifold(M).check(guide.z).all()


def test_what_it_does_not_guide():
    """Data that are missing in a run are the model's to draw: Predictive gives their law given the latents."""

    def model(seen: Tensor | None):
        z = pyro.sample("z", hdist.WrappedNormal(G.origin(M, 2), torch.ones(2), M))
        pyro.sample("x", dist.Normal(G.log0(M, z), 0.3).to_event(1), obs=seen)

    guide = AutoWrappedNormal(model, init_scale=1e-3)
    guide(DATA[0])
    before = len(list(guide.parameters()))
    drawn = Predictive(model, guide=guide, num_samples=1000, parallel=True)(None)["x"]
    assert torch.allclose(drawn.std(0), torch.tensor(0.3), atol=4.3 * 0.3 / 2000**0.5)
    assert len(list(guide.parameters())) == before
    other = AutoWrappedNormal(model)
    assert set(other(None)) == {"z", "x"}
    assert set(other(DATA[0])) == set(other.median(DATA[0])) == {"z"}  # known now, and none of the guide's


@each_guide
def test_summaries_are_copies(guide):
    """What median and quantiles return does not change as training goes on."""
    g = guide(partial(pair_model, DATA))
    found = {**g.median(), **{f"{name} ball": value for name, value in g.quantiles([0.5])["z"]._asdict().items()}}
    before = {name: value.clone() for name, value in found.items()}
    with torch.no_grad():
        for value in g.parameters():
            value.add_(1.0)
    assert all(torch.equal(found[name], before[name]) and not found[name].requires_grad for name in found)


@each_guide
def test_its_density_is_of_its_latents_alone(guide):
    """Traced by anyone, a guide has the density of its posteriors, without a factor of what is observed."""
    g = guide(partial(pair_model, DATA))
    g()
    trace = poutine.trace(g).get_trace()
    values = {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"}
    assert set(values) == set(LATENT) == set(poutine.block(g, hide=["z"])())
    book = dist.LogNormal(g.locs.s, g.scales.s).log_prob(values["s"]) + dist.Normal(0.0, 0.1).log_prob(values["last"])
    z = hdist.WrappedNormal(g.median()["z"], g.scales.z, M).log_prob(values["z"].clone())
    assert torch.allclose(trace.log_prob_sum(), book + z)


# Initialisation


@pytest.mark.parametrize(
    "strategy",
    [init_to_feasible, init_to_mean, init_to_median, init_to_sample, init_to_uniform, init_to_generated, init_to_value],
)
@each_guide
def test_initialisation(guide, strategy):
    """Each strategy starts the guide at the value that it gives, on the manifold, also in a subsampled plate."""
    values = {"z": G.exp0(M, torch.linspace(-2.0, 2.0, 12).reshape(6, 2))}
    if strategy is init_to_value:
        strategy = init_to_value(values=values, fallback=init_to_sample)
    elif strategy is init_to_generated:
        strategy = init_to_generated(generate=lambda: init_to_value(values=values))
    starts = {}

    def recorded(site):
        starts[site["name"]] = strategy(site).clone()
        return starts[site["name"]]

    g = guide(local_model, init_loc_fn=recorded)
    g(DATA.repeat(2, 1))
    found = g.median(DATA.repeat(2, 1))
    for name, start in starts.items():
        assert hdist.constraints.on_manifold(M).check(found[name]).all()
        assert torch.allclose(found[name], start.expand_as(found[name]), atol=1e-12)
    assert torch.equal(g.locs.z, torch.zeros(6, 2))


def test_the_prior_mean_is_a_saddle():
    """Latents of one prior, known by distances: at its mean no gradient; from draws of it they find the distances."""
    i, j = torch.triu_indices(4, 4, 1)
    places = G.exp0(M, torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]))
    seen = G.distance(M, places[i], places[j])

    def model():
        with pyro.plate("points", 4):
            z = pyro.sample("z", hdist.WrappedNormal(G.origin(M, 2), torch.ones(2), M))
        pyro.sample("d", dist.Normal(G.distance(M, z[i], z[j]), 0.1).to_event(1), obs=seen)

    norms = []
    for strategy in (init_to_mean, init_to_sample):
        pyro.clear_param_store()
        guide = AutoWrappedNormal(model, init_loc_fn=strategy)
        median = guide.median()["z"]
        density = (
            poutine.trace(poutine.condition(model, data={"z": median.requires_grad_()})).get_trace().log_prob_sum()
        )
        norms.append(float(torch.autograd.grad(density, median)[0].norm()))
    assert norms[0] == 0.0
    assert norms[1] > 10.0


def test_what_it_refuses():
    """A scale that is none, a seeded model, a start of another shape or off the manifold."""
    for scale in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="init_scale"):
            AutoWrappedNormal(pair_model, init_scale=scale)
    with pytest.raises(ValueError, match=r"poutine.seed.*set_rng_seed"):
        AutoWrappedNormal(poutine.block(poutine.seed(pair_model, 0), hide=["x"]))
    model = lambda: pyro.sample("z", hdist.WrappedNormal(G.origin(M, 2), torch.ones(2), M))  # noqa: E731
    for start, message in ((torch.zeros(2), r"'z'.*\(2,\).*\(3,\).*exp0"), (torch.ones(3), r"Lorentz\(k=2\).*exp0")):
        with pytest.raises(ValueError, match=message):
            AutoWrappedNormal(model, init_loc_fn=init_to_value(values={"z": start}))()
    with pytest.raises(ValueError, match=r"discrete.*'c'.*hide"):
        AutoWrappedNormal(lambda: pyro.sample("c", dist.Bernoulli(0.5)))()
    guide = AutoWrappedNormal(model, init_loc_fn=init_to_value(values={"z": torch.zeros(2)}))
    for _ in range(2):  # again, with the same words
        with pytest.raises(ValueError, match="initial value of 'z'"):
            guide()


# dtypes, curvatures of members, versions of torch


@pytest.mark.parametrize(("default", "dtype"), [(torch.float32, torch.float64), (torch.float64, torch.float32)])
@each_guide
def test_quantiles_of_another_dtype(guide, default, dtype):
    """Quantiles are as exact as the guide, whatever the default dtype; close to 1 too."""
    manifold = geoopt.Lorentz(torch.tensor(2.0, dtype=dtype))

    def model():
        one = torch.ones(1, dtype=dtype)
        pyro.sample("s", dist.Normal(0 * one, one).to_event(1))
        pyro.sample("z", hdist.WrappedNormal(G.origin(manifold, 1, dtype=dtype), one, manifold))

    levels = [0.95, 1 - 2.0**-30]
    torch.set_default_dtype(default)
    found = guide(model, init_scale=0.7).quantiles(levels)
    ball, interval = found["z"], found["s"]
    assert ball.center.dtype == ball.radius.dtype == interval.dtype == dtype
    exact = 0.7 * torch.tensor([NormalDist().inv_cdf(level) for level in levels], dtype=torch.float64)
    assert torch.allclose(interval.squeeze(-1).double(), exact, rtol=4 * torch.finfo(dtype).eps + 1e-12)
    assert abs(float(ball.radius[0]) - 0.7 * NormalDist().inv_cdf(0.975)) < 0.01


@pytest.mark.parametrize("size", [1, 2, 6])
def test_curvatures_of_members(size):
    """In a plate of manifolds a subsample's curvatures move no anchor, whose neighbours they do not fit."""
    k = torch.linspace(0.3, 3.0, 6)

    def model(batch: Tensor):
        with pyro.plate("members", 6, subsample=batch):
            manifold = lorentz(1.0)
            manifold.k = torch.nn.Parameter(k[batch], requires_grad=False)
            pyro.sample("z", hdist.WrappedNormal(G.origin(manifold, 2), torch.ones(2), manifold))

    everyone = torch.arange(6)
    guide = AutoWrappedNormal(model)
    guide(everyone)
    with torch.no_grad():
        guide.anchors.z_unconstrained.copy_(torch.linspace(-1.0, 1.0, 12).reshape(6, 2))
        guide.locs.z_unconstrained.copy_(torch.linspace(1.0, -2.0, 12).reshape(6, 2))
    before = guide.median(everyone)["z"]
    assert guide(everyone[-size:])["z"].shape == (size, 3)
    assert bool((guide.locs.z == 0).any()) is (size == 6)
    assert torch.allclose(guide.median(everyone)["z"], before, rtol=1e-12)
    assert torch.allclose(guide.median(everyone[-size:])["z"], before[-size:], rtol=1e-12)


def test_curvatures_of_hidden_members():
    """In a list whose plate a part hides, the part cannot know the curvatures of the subsample, and says so."""
    k = torch.linspace(0.3, 3.0, 50)

    def model():
        with pyro.plate("members", 50, subsample_size=2) as batch:
            pyro.sample("u", dist.Normal(0.0, 1.0))
            manifold = lorentz(1.0)
            manifold.k = torch.nn.Parameter(k[batch], requires_grad=False)
            pyro.sample("z", hdist.WrappedNormal(G.origin(manifold, 2), torch.ones(2), manifold))

    with pytest.raises(ValueError, match=r"'members'.*expose"):
        of([AutoWrappedNormal, "u", "z"])(model)()
    assert of([AutoWrappedNormal, "u", "z", "members"])(model)()["z"].shape == (2, 3)


def test_it_moves_to_another_dtype():
    """A guide that has been trained goes on in another dtype, its location where it was."""

    def model():
        one = torch.tensor(1.0)
        pyro.sample("z", hdist.WrappedNormal(G.origin(M, 2, dtype=one.dtype), one, M))

    guide = AutoWrappedNormal(model, init_loc_fn=init_to_sample)
    guide()
    before = guide.median()["z"]
    guide.float()
    torch.set_default_dtype(torch.float32)
    assert guide()["z"].dtype == guide.median()["z"].dtype == torch.float32
    assert torch.allclose(guide.median()["z"].double(), before, rtol=1e-6)
    SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step()
    assert not torch.allclose(guide.median()["z"].double(), before, rtol=1e-3)


def test_a_mixture_before_torch_2_8(monkeypatch):
    """There is no constraint of mixtures then: their support is that of their components."""
    monkeypatch.delattr(torch.distributions.constraints, "MixtureSameFamilyConstraint", raising=False)
    monkeypatch.delattr(pyro.distributions.constraints, "MixtureSameFamilyConstraint", raising=False)
    monkeypatch.setattr(dist.MixtureSameFamily, "support", property(lambda self: self.component_distribution.support))
    spec = importlib.util.spec_from_file_location("older", ph.infer.autoguide.__file__)
    older = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(older)
    guide = older.AutoWrappedNormal(mixture_model)
    assert set(guide.quantiles([0.5])) == {"z"}
    assert guide.quantiles([0.5])["z"].radius.shape == (1,)
