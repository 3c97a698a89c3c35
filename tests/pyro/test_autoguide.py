"""The autoguides of infer: a wrapped normal where the latent is, whatever its distance from the origin.

Their evidence and moments are held to quadrature in inference_guides.py, on other manifolds in test_manifolds.py.
"""

import copy
import math
import pickle
from functools import partial
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
    autoguide,
    config_enumerate,
)
from pyro.infer.autoguide import (
    AutoGuideList,
    AutoNormal,
    init_to_feasible,
    init_to_mean,
    init_to_sample,
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

G, M = ph.geometry, lorentz(2.0)
ORIGIN = G.origin(M, 2, dtype=torch.float64)
DATA = torch.tensor([[1.1, -0.7], [0.8, -0.9], [1.4, -0.2]], dtype=torch.float64)
each_guide = pytest.mark.parametrize("guide", [AutoWrappedNormal, AutoWrappedMultivariateNormal])


pytestmark = pytest.mark.usefixtures("float64")


def train(model, guide, steps, *args, lr=0.1, elbo=None) -> None:
    elbo = elbo or Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=0)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": lr, "lrd": 0.05 ** (1 / steps)}), elbo)
    for _ in range(steps):
        svi.step(*args)


@torch.no_grad()
def weighted(model, guide) -> tuple[Tensor, dict[str, Tensor]]:
    """Log importance weights of 4000 draws, and the draws."""
    weights, trace, _ = vectorized_importance_weights(
        model, guide, num_samples=4000, max_plate_nesting=0, normalized=False
    )
    return weights, {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"}


def effective(model, guide) -> float:
    """The effective sample size over the number of draws."""
    weights, _ = weighted(model, guide)
    return float(1 / weights.softmax(0).square().sum() / len(weights))


@torch.no_grad()
def disturb(guide, size=0.3) -> None:
    for value in guide.parameters():
        value.sub_(size * torch.rand_like(value))


def far_model(radius):
    """A location at a distance from the origin, seen in noise."""
    seen = G.exp0(M, radius * torch.tensor([0.6, -0.8]))

    def model():
        z = pyro.sample("z", hdist.WrappedNormal(ORIGIN, torch.tensor(3.0), M))
        pyro.sample("x", hdist.WrappedNormal(z, torch.tensor(0.3), M), obs=seen)

    return model


def pair_model(data, manifold=M):
    """Two latents and a parameter, data in a plate; then a latent on which nothing depends."""
    noise = pyro.param("noise", torch.tensor(0.5), constraint=constraints.positive)
    s = pyro.sample("s", dist.LogNormal(0.0, 0.3))
    z = pyro.sample(
        "z", hdist.WrappedNormal(G.origin(manifold, 2, dtype=s.dtype), s.unsqueeze(-1) * torch.ones(2), manifold)
    )
    with pyro.plate("data", len(data)):
        pyro.sample("x", dist.Normal(G.log0(manifold, z), noise).to_event(1), obs=data)
    pyro.sample("last", dist.Normal(0.0, 1.0))


LATENT = ["s", "z", "last"]


def local_model(data, size=None):
    """A latent for each datum, in a plate that the model subsamples; a global one."""
    centre = pyro.sample("centre", hdist.WrappedNormal(ORIGIN, torch.ones(2), M))
    with pyro.plate("data", len(data), subsample_size=size) as batch:
        z = pyro.sample("z", hdist.WrappedNormal(centre, torch.ones(2), M))
        pyro.sample("x", dist.Normal(G.log0(M, z), 0.1).to_event(1), obs=data[batch])


def hierarchy(data, batch=None):
    """Groups with a location, members about it, in a plate whose subsample is given."""
    with pyro.plate("groups", 2, dim=-2):
        centre = pyro.sample("centre", hdist.WrappedNormal(ORIGIN, torch.ones(2), M))
        with pyro.plate("members", data.size(-2), subsample=batch, dim=-1):
            z = pyro.sample("z", hdist.WrappedNormal(centre, 0.5 * torch.ones(2), M))
            rows = data if batch is None else data[:, batch]
            pyro.sample("x", dist.Normal(G.log0(M, z), 0.1).to_event(1), obs=rows)


def of_members(k, batch):
    """A latent on a manifold of its own for each of a batch of members."""
    manifold = lorentz(1.0)
    manifold.k = torch.nn.Parameter(k[batch], requires_grad=False)
    pyro.sample("z", hdist.WrappedNormal(G.origin(manifold, 2), torch.ones(2), manifold))


# Where the latent is


def test_far_from_the_origin():
    """At distance 10 from a start at the origin; the chart's guide fails at 6, though it starts at the truth."""
    start = init_to_value(values={"z": G.exp0(M, torch.tensor([3.6, -4.8]))})
    model, near = far_model(10.0), far_model(6.0)
    guide, chart = AutoWrappedNormal(model), AutoNormal(near, init_loc_fn=start)
    train(model, guide, 120, lr=0.3)
    assert effective(model, guide) > 0.7
    pyro.clear_param_store()
    train(near, chart, 60)
    assert effective(near, chart) < 0.07


def test_full_covariance():
    """Of a posterior that is a tilted ellipse about a far location the full guide is exact, the diagonal one not."""
    covariance = torch.tensor([[0.5, 0.4], [0.4, 0.5]])
    target = hdist.WrappedMultivariateNormal(G.exp0(M, torch.tensor([4.0, 3.0])), covariance, manifold=M)
    model = partial(pyro.sample, "z", target)
    full, diagonal = AutoWrappedMultivariateNormal(model), AutoWrappedNormal(model)
    train(model, full, 120)
    assert effective(model, full) > 0.9
    pyro.clear_param_store()
    train(model, diagonal, 50)
    assert effective(model, diagonal) < 0.3


@pytest.mark.parametrize("radius", [0.0, 10.0])
def test_a_step_is_as_long_as_the_learning_rate(radius):
    """Adam's first step moves each coordinate by lr, and the location by its norm."""
    model = far_model(radius + 2.0)
    start = G.exp0(M, radius * torch.tensor([0.8, 0.6]))
    guide = AutoWrappedNormal(model, init_loc_fn=init_to_value(values={"z": start}))
    guide()
    SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step()
    assert G.distance(M, guide.median()["z"], start) == pytest.approx(0.01 * 2**0.5)


@pytest.mark.parametrize(("size", "follows"), [(0.9, False), (1.1, True)])
def test_an_anchor_follows_past_sqrt_k_and_nothing_moves(size, follows):
    """Once a step, not in each of its runs: the graph of the first survives the second."""
    model = far_model(1.0)
    guide = AutoWrappedNormal(model)
    guide()
    with torch.no_grad():
        guide.locs.z_unconstrained.copy_(torch.tensor([0.6, 0.8]) * size * 2**0.5)
    before, start = guide.median()["z"], guide.locs.z.detach().clone()
    assert torch.equal(guide.locs.z, start)  # to look moves nothing
    losses = [Trace_ELBO().differentiable_loss(model, guide) for _ in range(2)]
    assert torch.equal(guide.locs.z, 0 * start if follows else start)
    assert G.distance(M, guide.median()["z"], before) < 1e-14
    sum(losses).backward()
    assert guide.locs.z_unconstrained.grad.isfinite().all()


# Median and quantiles


@pytest.mark.parametrize("dim", [1, 2, 5])
@each_guide
def test_quantiles_are_geodesic_balls(guide, dim):
    """The ball about the median holds that part of the draws, for each member of a plate."""
    manifold = lorentz(0.5)

    def model():
        with pyro.plate("points", 3):
            pyro.sample("z", hdist.WrappedNormal(G.origin(manifold, dim), torch.ones(dim), manifold))

    g = guide(model)
    g()
    disturb(g, 2.0)
    levels = torch.tensor([0.05, 0.5, 0.95])
    ball = g.quantiles(levels)["z"]
    assert isinstance(ball, GeodesicBall)
    assert ball.radius.shape == (3, 3)
    with poutine.trace() as trace:  # a summary makes no statement that handlers could see
        assert torch.equal(ball.center, g.median()["z"])
    assert not list(trace.trace.stochastic_nodes)
    with torch.no_grad(), pyro.plate("draws", 20_000, dim=-2):
        z = g()["z"]
    inside = G.distance(manifold, z, ball.center).unsqueeze(0) <= ball.radius.unsqueeze(1)
    assert (inside.double().mean(1) - levels[:, None]).abs().max() < 0.002 + 4.3 * 0.5 / 20_000**0.5


@pytest.mark.parametrize(("default", "dtype"), [(torch.float32, torch.float64), (torch.float64, torch.float32)])
@each_guide
def test_quantiles_are_exact_in_the_dtype_of_the_guide(guide, default, dtype):
    manifold = geoopt.Lorentz(torch.tensor(2.0, dtype=dtype))

    def model():
        one = torch.ones(1, dtype=dtype)
        pyro.sample("s", dist.LogNormal(0 * one, one).to_event(1))
        pyro.sample("z", hdist.WrappedNormal(G.origin(manifold, 1, dtype=dtype), one, manifold))

    levels = [0.95, 1 - 2.0**-30]
    torch.set_default_dtype(default)
    found = guide(model, init_scale=0.7).quantiles(levels)
    ball, interval = found["z"], found["s"]
    assert ball.center.dtype == ball.radius.dtype == interval.dtype == dtype
    exact = torch.tensor([NormalDist(0.5, 0.7).inv_cdf(level) for level in levels], dtype=torch.float64)
    error = 16 * torch.finfo(dtype).eps + 1e-12
    torch.testing.assert_close(interval.double().log(), exact.unsqueeze(-1), rtol=error, atol=1e-8)
    assert abs(float(ball.radius[0]) - 0.7 * NormalDist().inv_cdf(0.975)) < 0.01


@each_guide
def test_summaries_are_copies(guide):
    """What median and quantiles return does not change as training goes on."""
    g = guide(partial(pair_model, DATA))
    found = [*g.median().values(), *g.quantiles([0.5])["z"]]
    before = [value.clone() for value in found]
    disturb(g)
    assert all(map(torch.equal, found, before))
    assert not any(value.requires_grad for value in found)


# Plates


@each_guide
def test_hierarchical_and_subsampled_plates(guide):
    """Each member has parameters of its own, those of a batch move, and a draw has the batch's shape."""
    data = torch.linspace(-1.5, 1.5, 24).reshape(2, 6, 2)
    g = guide(hierarchy)
    assert g(data, torch.tensor([1, 4]))["z"].shape == (2, 2, 3)
    before = g.median(data)["z"]
    svi = SVI(hierarchy, g, pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.97}), TraceMeanField_ELBO())
    svi.step(data, torch.tensor([1, 4]))
    moved = G.distance(M, before, g.median(data)["z"]) > 1e-3
    assert torch.equal(moved, torch.isin(torch.arange(6), torch.tensor([1, 4])).expand(2, 6))
    for step in range(60):
        svi.step(data, torch.tensor([step % 3, 3 + step % 3]))
    assert (G.log0(M, g.median(data)["z"]) - data).abs().max() < 0.2
    assert len(g.anchors.z_unconstrained.flatten(0, 1).unique(dim=0)) > 1
    assert g.quantiles([0.5], data)["z"].radius.shape == (1, 2, 6)
    assert g.quantiles([0.5], data)["centre"].radius.shape == (1, 2, 1)


@each_guide
def test_amortized_plates(guide):
    """One posterior for all members of the plate."""
    data = torch.linspace(-1.5, 1.5, 24).reshape(2, 6, 2)
    g = guide(hierarchy, amortized_plates="members")
    z = g(data)["z"]
    assert g.locs.z.shape == (2, 1, 2)
    assert z.flatten(0, -2).unique(dim=0).shape == (12, 3)


@each_guide
def test_a_first_run_among_particles(guide):
    """Parameters are those of the model's sites, not of each particle."""
    model = far_model(1.0)
    g = guide(model)
    Trace_ELBO(num_particles=7, vectorize_particles=True, max_plate_nesting=0).loss(model, g)
    assert g.locs.z.shape == g.anchors.z.shape == g.scales.z.shape == (2,)


@pytest.mark.parametrize("start", [{}, {"init_loc_fn": init_to_feasible}], ids=["mean", "feasible"])
@each_guide
def test_to_event(guide, start):
    """A site of several points that are independent, or of one with a mixture or a flow for a prior."""
    base = hdist.WrappedNormal(ORIGIN, torch.ones(3, 2), M)
    flow = ph.flows.coupling_flow(2, 2, hidden_dims=[4], manifold=M).double()

    def model():
        pyro.sample("three", base.to_event(1))
        pyro.sample("mixed", dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), base))
        pyro.sample("pushed", dist.TransformedDistribution(base.expand([3]), [flow]).to_event(1))

    g = guide(model, **start)
    trace = poutine.trace(g).get_trace()
    trace.compute_log_prob()
    for name, shape in {"three": (3, 3), "mixed": (3,), "pushed": (3, 3)}.items():
        assert trace.nodes[name]["value"].shape == trace.nodes[name]["fn"].event_shape == shape
        assert trace.nodes[name]["log_prob"].shape == ()
        assert g.quantiles([0.5, 0.9])[name].radius.shape == (2, *shape[:-1])


def of(*parts):
    """A list of guides, each of some sites; or of lists."""

    def make(model):
        guides = AutoGuideList(model)
        for cls, *names in parts:
            guides.append(cls(poutine.block(model, expose=names)) if names else cls(model))
        return guides

    return make


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
    disturb(guide)
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


# Curvature


class Curved(PyroModule):
    """A location on a manifold with a k to be found, its coordinates seen in noise, and its distance to another."""

    def __init__(self, manifold, seen, noise, distance=None) -> None:
        super().__init__()
        self.manifold, self.seen, self.noise, self.distance = manifold, seen, noise, distance

    def forward(self):
        manifold = self.manifold
        z = pyro.sample("z", hdist.WrappedNormal(G.origin(manifold, 2), torch.ones(2), manifold))
        pyro.sample("x", dist.Normal(G.log0(manifold, z), self.noise).to_event(1), obs=self.seen)
        if self.distance is not None:
            other = G.exp0(manifold, torch.tensor([0.0, 2.0]))
            pyro.sample("d", dist.Normal(G.distance(manifold, z, other), self.noise), obs=self.distance)


@each_guide
def test_a_latent_curvature(guide):
    """Each draw is on the manifold of its own k; the evidence is that of the tangent normal, which k does not enter."""
    model = Curved(ph.manifolds.Lorentz(), DATA[0], 0.3)
    model.manifold.k = PyroSample(dist.LogNormal(torch.tensor(0.5), 0.3))
    g = guide(model)
    train(model, g, 80)
    weights, draws = weighted(model, g)
    each = lorentz(1.0)
    each.k = torch.nn.Parameter(draws["manifold.k"], requires_grad=False)
    assert each.k.unique().numel() == len(weights)
    assert hdist.constraints.on_manifold(each).check(draws["z"]).all()
    assert set(g.quantiles([0.5])) == {"manifold.k", "z"}
    # In tangent coordinates the model is N(v; 0, 1) N(x; v, 0.3).
    exact = dist.Normal(0.0, 1.09**0.5).log_prob(DATA[0]).sum()
    relative = (weights - exact).exp()
    error = float(relative.std() / len(weights) ** 0.5)
    assert error < 0.05
    assert abs(relative.mean() - 1) < 4.3 * error


@pytest.mark.parametrize("local", [False, True])
def test_a_learned_curvature(local):
    """Model and guide see the same k at each step, as it moves; the anchor is no parameter of the optimiser's."""
    with pyro.settings.context(module_local_params=local):
        manifold = ph.manifolds.Lorentz(torch.tensor(1.0), learnable=True)
        model = Curved(manifold, torch.tensor([2.0, 0.0]), 0.01, torch.tensor(3.2))
        start = init_to_value(values={"z": G.exp0(manifold, torch.tensor([1.8, 0.2])).detach()})
        guide = AutoWrappedNormal(model, init_loc_fn=start, init_scale=0.01)
        elbo = Trace_ELBO()(model, guide)
        elbo()
        learned = [value for value in elbo.parameters() if value.requires_grad]
        assert not any(value is guide.anchors.z_unconstrained for value in learned)
        optimiser = torch.optim.Adam(learned, lr=0.04)
        for _ in range(70):
            optimiser.zero_grad()
            elbo().backward()
            optimiser.step()
        assert hdist.constraints.on_manifold(manifold).check(guide()["z"])
    # cosh(3.2 / R) = cosh(2 / R)^2: the law of cosines with a right angle.
    radius = float(manifold.k.detach()) ** 0.5
    assert abs(math.cosh(3.2 / radius) - math.cosh(2 / radius) ** 2) < 0.05


@pytest.mark.parametrize("size", [1, 2, 6])
def test_curvatures_of_members(size):
    """In a plate of manifolds a subsample's curvatures move no location of others, whom they do not fit."""
    k = torch.linspace(0.3, 3.0, 6)

    def model(batch):
        with pyro.plate("members", 6, subsample=batch):
            of_members(k, batch)

    everyone = torch.arange(6)
    guide = AutoWrappedNormal(model)
    guide(everyone)
    with torch.no_grad():
        guide.locs.z_unconstrained.copy_(torch.linspace(3.0, -2.0, 12).reshape(6, 2))
    guide(everyone)
    assert len(guide.anchors.z_unconstrained.unique(dim=0)) > 1  # apart now
    with torch.no_grad():
        guide.locs.z_unconstrained.copy_(torch.linspace(1.0, -2.0, 12).reshape(6, 2))
    before = guide.median(everyone)["z"]
    assert guide(everyone[-size:])["z"].shape == (size, 3)
    assert torch.allclose(guide.median(everyone)["z"], before, rtol=1e-12)
    assert torch.allclose(guide.median(everyone[-size:])["z"], before[-size:], rtol=1e-12)


def test_curvatures_of_hidden_members():
    """In a list whose plate a part hides, the part cannot know the curvatures of the subsample, and says so."""

    def model():
        with pyro.plate("members", 50, subsample_size=2) as batch:
            pyro.sample("u", dist.Normal(0.0, 1.0))
            of_members(torch.linspace(0.3, 3.0, 50), batch)

    with pytest.raises(ValueError, match=r"'members'.*expose"):
        of([AutoWrappedNormal, "u", "z"])(model)()
    assert of([AutoWrappedNormal, "u", "z", "members"])(model)()["z"].shape == (2, 3)


# Idioms of Pyro

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


class Easy(EasyGuide):
    def __init__(self, model, cls):
        super().__init__(model)
        self.part = cls(model)

    def guide(self, data):
        return self.part(data)


#: Ways to make a guide of guides of a class.
COMPOSED = {
    "EasyGuide": lambda cls: partial(Easy, cls=cls),
    "list": lambda cls: of([cls, "z"], [cls, "s", "last"]),
    "nested list": lambda cls: of([of([cls, "z"])], [of([cls, "last"], [AutoNormal, "s"])]),
}
ELBOS = {elbo.__name__: elbo for elbo in (TraceEnum_ELBO, TraceGraph_ELBO, JitTrace_ELBO, JitTraceEnum_ELBO)}


@pytest.mark.filterwarnings("ignore:Found vars in model but not guide", "ignore:TraceEnum_ELBO found no sample sites")
@pytest.mark.parametrize("idiom", [*HANDLERS, *COMPOSED, *ELBOS])
def test_idioms(idiom):
    """On Euclidean(1) each has the loss and the gradient that it has with Pyro's AutoNormal."""
    model = HANDLERS.get(idiom, HANDLERS["none"])(partial(pair_model, manifold=geoopt.Euclidean(1)))
    compose = COMPOSED.get(idiom, lambda cls: cls)
    # Lists draw in another order: of 200 draws, hardly apart, only the mean log-density varies.
    scale, particles, atol = (1e-4, 200, 0.5) if "list" in idiom else (0.3, 2, 1e-8)
    options = {"ignore_jit_warnings": True} if "Jit" in idiom else {}
    if idiom not in HANDLERS:
        options |= {"num_particles": particles, "vectorize_particles": True, "max_plate_nesting": 1}
    elbo = ELBOS.get(idiom, Trace_ELBO)

    def found(cls):
        pyro.clear_param_store()
        guide = compose(partial(cls, init_loc_fn=init_to_mean(fallback=init_to_feasible), init_scale=scale))(model)
        guide(DATA)
        pyro.set_rng_seed(3)
        loss = elbo(**options).loss_and_grads(model, guide, DATA)
        (loc,) = (value for name, value in pyro.get_param_store().items() if name.endswith("locs.z"))
        return torch.cat([torch.tensor([loss]), loc.unconstrained().grad])

    expected = found(AutoNormal)
    assert expected[1:].norm() > 0.01
    assert torch.allclose(found(AutoWrappedNormal), expected, atol=atol)
    assert torch.allclose(found(AutoWrappedMultivariateNormal), expected, atol=atol)


@each_guide
def test_jit(guide):
    """JitTrace_ELBO trains it, though its anchor stays."""
    model = far_model(1.0)
    g = guide(model)
    g()
    options = {"num_particles": 4, "vectorize_particles": True, "max_plate_nesting": 0, "ignore_jit_warnings": True}
    train(model, g, 60, elbo=JitTrace_ELBO(**options))
    assert effective(model, g) > 0.5


LISTS = {
    "beside AutoNormal": of([AutoNormal, "s", "last"], [AutoWrappedNormal, "z"]),
    "nested": of([of([AutoWrappedNormal, "z"])], [of([AutoWrappedMultivariateNormal, "last"], [AutoNormal, "s"])]),
}
GUIDES = {"diagonal": AutoWrappedNormal, "full": AutoWrappedMultivariateNormal, **LISTS}


@pytest.mark.parametrize("name", GUIDES)
def test_copies_and_stores(name):
    """A guide, or a list, has all sites in its summaries, and is copied, saved, loaded and moved whole."""
    guide = GUIDES[name](pair_model)
    assert set(guide(DATA)) == set(guide.median(DATA)) == set(guide.quantiles([0.1, 0.9], DATA)) == set(LATENT)
    disturb(guide)
    expected, state = guide.median(DATA), copy.deepcopy(guide.state_dict())
    store = copy.deepcopy(pyro.get_param_store().get_state())
    others = [guide, copy.deepcopy(guide), GUIDES[name](pair_model), GUIDES[name](pair_model)]
    if name not in LISTS:  # whose parts hold a closure
        others.append(pickle.loads(pickle.dumps(guide)))
    pyro.clear_param_store()
    others[2](DATA)
    assert not torch.allclose(others[2].median(DATA)["z"], expected["z"])
    others[2].load_state_dict(state)
    pyro.get_param_store().set_state(store)
    others[3](DATA)
    for other in others:
        found = other.median(DATA)
        assert all(torch.equal(found[site], expected[site]) for site in LATENT)
        assert set(other(DATA)) == set(LATENT)
    assert all(not value.requires_grad for value in guide.requires_grad_(False).parameters())
    single = others[1].to(torch.float32)
    torch.set_default_dtype(torch.float32)
    assert {value.dtype for value in single.parameters()} == {torch.float32}
    assert torch.allclose(single.median(DATA.float())["z"].double(), expected["z"], rtol=1e-5)
    assert single(DATA.float())["z"].dtype == torch.float32


def test_a_guide_of_a_prior_that_is_learned_is_copied():
    """The guide keeps the sites of the first run, but not the graph from them to the prior's parameters."""

    def model(data):
        scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
        z = pyro.sample("z", hdist.WrappedNormal(ORIGIN, scale, M))
        pyro.sample("x", dist.Normal(G.log0(M, z), 0.5).to_event(1), obs=data)

    guide = AutoWrappedNormal(model)
    train(model, guide, 1, DATA[0])
    assert torch.equal(copy.deepcopy(guide).median(DATA[0])["z"], guide.median(DATA[0])["z"])


def mixture(data):
    """The mixture of Pyro's tutorial, on H^2."""
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((2,), 0.5)))
    scale = pyro.sample("scale", dist.LogNormal(-1.0, 0.5))
    with pyro.plate("components", 2):
        locs = pyro.sample("locs", hdist.WrappedNormal(ORIGIN, torch.tensor(2.0), M))
    with pyro.plate("data", len(data)):
        assignment = pyro.sample("assignment", dist.Categorical(weights))
        pyro.sample("obs", hdist.WrappedNormal(locs[assignment], scale.unsqueeze(-1) * torch.ones(2), M), obs=data)


def test_the_mixture_tutorial():
    """TraceEnum_ELBO, config_enumerate, expose: they find the weights and locations."""
    truth = G.exp0(M, torch.tensor([[1.5, 0.5], [-1.0, -1.2]]))
    pyro.set_rng_seed(4)
    data = hdist.WrappedNormal(truth[(torch.arange(40) < 12).long()], torch.tensor(0.3), M).sample()
    start = init_to_value(values={"locs": data[[39, 0]]}, fallback=init_to_feasible)
    model = config_enumerate(mixture)
    guide = AutoWrappedNormal(poutine.block(model, expose=["weights", "locs", "scale"]), init_loc_fn=start)
    train(model, guide, 50, data, elbo=TraceEnum_ELBO(max_plate_nesting=1))
    median = guide.median(data)
    assert (G.distance(M, median["locs"], truth) < 0.25).all()
    assert abs(float(median["weights"][1]) - 0.3) < 0.1


def test_easy_guide_in_a_subsampled_plate():
    """Maximum a posteriori estimates: points for all members, of which a step moves those of its batch."""

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
    assert hdist.constraints.on_manifold(M).check(guide.z).all()


@pytest.mark.parametrize("parallel", [False, True])
def test_what_it_does_not_guide(parallel):
    """Data that are missing in a run are the model's to draw: Predictive gives their law given the latents."""

    def model(seen):
        z = pyro.sample("z", hdist.WrappedNormal(ORIGIN, torch.ones(2), M))
        pyro.sample("x", dist.Normal(G.log0(M, z), 0.3).to_event(1), obs=seen)

    guide = AutoWrappedNormal(model, init_scale=1e-3)
    guide(DATA[0])
    before = len(list(guide.parameters()))
    drawn = Predictive(model, guide=guide, num_samples=150, parallel=parallel)(None)["x"]
    assert torch.allclose(drawn.std(0), torch.tensor(0.3), atol=4.3 * 0.3 / 300**0.5)
    assert len(list(guide.parameters())) == before
    other = AutoWrappedNormal(model)
    assert set(other(None)) == {"z", "x"}
    assert set(other(DATA[0])) == set(other.median(DATA[0])) == {"z"}  # known now, and none of the guide's


@each_guide
def test_global_latents_are_drawn_in_parallel(guide):
    """Also where no latent is in the plate of the data: then nothing in the guide's trace tells of its dimension."""

    def model(data):
        z = pyro.sample("z", hdist.WrappedNormal(ORIGIN, torch.ones(2), M))
        s = pyro.sample("s", dist.LogNormal(0.0, 0.3))
        with pyro.plate("data", len(data), dim=-1):
            pyro.sample("x", dist.Normal(G.distance(M, z, ORIGIN) + data, s), obs=data)

    g = guide(model)
    drawn = Predictive(g, num_samples=7, parallel=True)(DATA[0])  # of a model Pyro takes events for plates
    assert {name: value.unique(dim=0).shape for name, value in drawn.items()} == {"z": (7, 3), "s": (7,)}


@each_guide
def test_its_density_is_of_its_latents_alone(guide):
    """Traced by anyone, a guide has the density of its posteriors, without a factor of what is observed."""
    g = guide(partial(pair_model, DATA))
    g()
    disturb(g)
    trace = poutine.trace(g).get_trace()
    values = {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"}
    assert set(values) == set(LATENT) == set(poutine.block(g, hide=["z"])())
    s = dist.LogNormal(g.locs.s, g.scales.s).log_prob(values["s"])
    last = dist.Normal(g.locs.last, g.scales.last).log_prob(values["last"])
    tril = g.scale_trils.z if guide is AutoWrappedMultivariateNormal else torch.eye(2)
    posterior = hdist.WrappedMultivariateNormal(g.median()["z"], scale_tril=g.scales.z.diag() @ tril, manifold=M)
    assert torch.allclose(trace.log_prob_sum(), s + last + posterior.log_prob(values["z"].clone()))


# Initialisation

VALUES = {"z": G.exp0(M, torch.linspace(-2.0, 2.0, 12, dtype=torch.float64).reshape(6, 2))}
STRATEGIES = {
    **{f"init_to_{name}": getattr(autoguide, f"init_to_{name}") for name in ("feasible", "mean", "median", "uniform")},
    "init_to_sample": init_to_sample,
    "init_to_value": init_to_value(values=VALUES, fallback=init_to_sample),
    "init_to_generated": autoguide.init_to_generated(generate=lambda: init_to_value(values=VALUES)),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@each_guide
def test_initialisation(guide, strategy):
    """Each strategy starts the guide at the value that it gives, on the manifold, also in a subsampled plate."""
    starts = {}

    def recorded(site):
        starts[site["name"]] = STRATEGIES[strategy](site).clone()
        return starts[site["name"]]

    g = guide(local_model, init_loc_fn=recorded)
    g(DATA.repeat(2, 1))
    found = g.median(DATA.repeat(2, 1))
    for name, start in starts.items():
        assert hdist.constraints.on_manifold(M).check(found[name]).all()
        assert torch.allclose(found[name], start.expand_as(found[name]), atol=1e-12)


def one_point():
    return pyro.sample("z", hdist.WrappedNormal(ORIGIN, torch.ones(2), M))


def starting_at(*z):
    return AutoWrappedNormal(one_point, init_loc_fn=init_to_value(values={"z": torch.tensor(z)}))


def of_fewer_members():
    def model(size):
        with pyro.plate("members", size):
            of_members(torch.ones(6), slice(size))

    guide = AutoWrappedNormal(model)
    guide(6)
    disturb(guide)
    return guide(4)


REFUSED = {
    **{
        f"scale {scale}": (partial(AutoWrappedNormal, one_point, init_scale=scale), "init_scale")
        for scale in (0.0, -1.0, math.inf, math.nan)
    },
    **{
        f"quantile {q}": (lambda q=q: starting_at(2**0.5, 0.0, 0.0).quantiles([0.5, q]), r"must be in \(0, 1\)")
        for q in (0.0, 1.0, 1.2, math.nan)
    },
    "a seeded model": (
        lambda: AutoWrappedNormal(poutine.block(poutine.seed(one_point, 0), hide=["x"])),
        r"poutine.seed.*set_rng_seed",
    ),
    "a start of another shape": (lambda: starting_at(0.0, 0.0)(), r"'z'.*\(2,\).*\(3,\).*exp0"),
    "a start that is a list": (
        lambda: AutoWrappedNormal(one_point, init_loc_fn=init_to_value(values={"z": [2**0.5, 0.0, 0.0]}))(),
        r"'z' is \[.*torch.as_tensor",
    ),
    "a plate that shrinks": (of_fewer_members, r"members, 4.*\[6, 2\]"),
    "a start off the manifold": (lambda: starting_at(1.0, 1.0, 1.0)(), r"Lorentz\(k=2\).*exp0"),
    "a discrete latent": (
        lambda: AutoWrappedNormal(lambda: pyro.sample("c", dist.Bernoulli(0.5)))(),
        r"discrete.*'c'.*hide",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_refuses(case):
    call, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_what_it_refuses_again_in_the_same_words():
    guide = starting_at(0.0, 0.0)
    for _ in range(2):
        with pytest.raises(ValueError, match="initial value of 'z'"):
            guide()
