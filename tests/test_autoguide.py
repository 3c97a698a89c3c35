"""The autoguides of infer: a wrapped normal where the latent is, whatever its distance from the origin."""

import copy
import io
import math
import pickle

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, JitTrace_ELBO, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal, AutoNormalMessenger, init_to_value
from pyro.infer.importance import vectorized_importance_weights
from pyro.nn import PyroModule, PyroSample
from torch import Tensor

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from pyro_hyperbolic.infer import AutoWrappedMultivariateNormal, AutoWrappedNormal, GeodesicBall
from tests.cases import lorentz
from tests.inference_truth import BEACON, POSTERIORS, moments

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
    g = guide(hierarchy, amortized_plates=("members",))
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
