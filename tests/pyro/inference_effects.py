"""Effects, parameters, and what Pyro itself gets wrong: the last part of the inference matrix."""

import io
import itertools
import math
import tempfile
from collections.abc import Callable
from functools import partial

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import infer, poutine
from pyro.infer import NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer import autoguide as AG
from pyro.infer.autoguide import initialization as init
from pyro.infer.reparam import TransformReparam
from pyro.nn import PyroModule, PyroSample
from torch import Tensor

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from tests import textbook
from tests.cases import point
from tests.pyro.inference_cell import Section
from tests.pyro.inference_checks import (
    book_density,
    chain,
    copies,
    evidence_by,
    evidence_is,
    fitted,
    importance_weights,
    mean_is,
    one_chain_is,
)
from tests.pyro.inference_samplers import JIT, KERNELS, stein_particles
from tests.pyro.inference_truth import (
    BEACON,
    FAR_LOC,
    POINTS,
    POSTERIORS,
    PRIOR_LOC,
    PRIOR_SCALE,
    SEEN_COORDINATES,
    G,
    M,
    Model,
    Posterior,
    coordinates_model,
    log_joint,
    moments,
    wide_guide,
    wrapped_prior,
)

on_manifold = hdist.constraints.on_manifold
EFFECTS = Section("Effects and parameters")
PITFALLS = Section("What Pyro gets wrong")
EVIDENCE = "evidence by quadrature"
BY_COSINES = "evidence by the law of cosines"
COORDINATES = POSTERIORS["coordinates"]
prior_density = partial(book_density, (0.5, 0.3), PRIOR_SCALE)
same = partial(torch.allclose, atol=1e-9)


def learn(model: Model, steps: int = 200, optimiser: object = None) -> None:
    """Trains parameters of a model without latents."""
    svi = SVI(model, lambda: None, optimiser or pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(steps):
        svi.step()


def unobserved_model() -> None:
    z = pyro.sample("z", wrapped_prior())
    pyro.sample("x", dist.Normal(G.log0(M, z), 0.3).to_event(1))


# Effects and parameters


@EFFECTS.cell("`Predictive`, prior", "moments of the prior")
def prior_draws() -> None:
    for parallel, number in ((True, 5000), (False, 200)):
        draws = Predictive(copies(coordinates_model, 3), num_samples=number, parallel=parallel)()
        v = textbook.Wrapped(2.0, (0.5, 0.3), (0.8, 1.1)).tangent(draws["z"]).detach()
        assert v.shape == (number, 3, 2)
        mean_is(v.mean(1), 0.0)
        mean_is(v.square().mean(1), PRIOR_SCALE.square())


@EFFECTS.cell("`Predictive`, posterior", "moments by quadrature")
def posterior_predictions() -> None:
    """New observations have the posterior's means, and its variances plus that of the noise."""
    truth = COORDINATES.mean(moments)
    for parallel, number in ((True, 5000), (False, 200)):
        cells = dist.Categorical(logits=COORDINATES.log_joint + COORDINATES.log_measure).sample((number,))
        draws = COORDINATES.grid["z"][cells]  # of the posterior, without any inference
        x = Predictive(unobserved_model, {"z": draws}, parallel=parallel)()["x"]
        mean_is(x, truth[:2])
        mean_is(x.square(), truth[2:4] + 0.09)


@EFFECTS.cell("`WeighedPredictive`", EVIDENCE)
def weighed_predictions() -> None:
    weighed = infer.WeighedPredictive(unobserved_model, guide=wide_guide, num_samples=10_000, parallel=True)
    evidence_is(weighed(model_guide=coordinates_model).log_weights, COORDINATES.log_evidence)


@EFFECTS.cell("`condition`, `uncondition`, `do`", "densities by the textbook")
def conditioning() -> None:
    z = POINTS[0]
    conditioned = pyro.condition(coordinates_model, {"z": z})
    likelihood = dist.Normal(textbook.log(z, 2**0.5), 0.3).log_prob(SEEN_COORDINATES).sum()
    assert same(log_joint(conditioned), likelihood + prior_density(z))
    assert same(log_joint(poutine.block(pyro.do(coordinates_model, {"z": z}), hide=["z"])), likelihood)
    assert not torch.equal(poutine.trace(poutine.uncondition(conditioned)).get_trace().nodes["z"]["value"], z)
    with pytest.raises(ValueError, match=r"not on Lorentz\(k=2\).*exp0"):
        log_joint(coordinates_model, z=z + 0.01)


SEEN = torch.tensor([True, False, True])


@EFFECTS.cell("`poutine.mask`, `.mask()`", EVIDENCE)
def masks() -> None:
    """Of three copies two are kept: twice the evidence."""
    model, guide = (copies(poutine.mask(m, mask=SEEN), 3) for m in (coordinates_model, wide_guide))
    evidence_by(model, guide, 2 * COORDINATES.log_evidence)
    assert same(wrapped_prior().expand([3]).mask(SEEN).log_prob(POINTS), prior_density(POINTS) * SEEN)


def imputing_model() -> None:
    """Three points, one of which is missing; each also has noisy coordinates."""
    with pyro.plate("points", 3):
        z = pyro.sample("z", wrapped_prior(), obs=POINTS, obs_mask=SEEN)
        pyro.sample("x", dist.Normal(G.log0(M, z), 0.3).to_event(1), obs=SEEN_COORDINATES)


def imputing_evidence() -> float:
    """Densities of what was seen, by the textbook, and the evidence of one posterior for the missing point."""
    likelihood = dist.Normal(textbook.log(POINTS[SEEN], 2**0.5), 0.3).log_prob(SEEN_COORDINATES).sum()
    return float(prior_density(POINTS[SEEN]).sum() + likelihood) + COORDINATES.log_evidence


@EFFECTS.cell("`obs_mask`", f"{EVIDENCE}, law of the imputed")
def imputing() -> None:
    def guide() -> None:
        with pyro.plate("points", 3), poutine.mask(mask=~SEEN):
            pyro.sample("z_unobserved", hdist.WrappedNormal(point(2.0, 1.0, -0.5), torch.tensor([0.45, 0.5]), M))

    evidence_by(imputing_model, guide, imputing_evidence())
    draws = torch.stack([poutine.trace(imputing_model).get_trace().nodes["z"]["value"] for _ in range(100)])
    assert torch.equal(draws[:, SEEN], POINTS[SEEN].expand(100, 2, 3))
    v = textbook.Wrapped(2.0, (0.5, 0.3), (0.8, 1.1)).tangent(draws[:, 1]).detach()
    mean_is(torch.cat([v, v.square()], -1), torch.cat([torch.zeros(2), PRIOR_SCALE.square()]))


EFFECTS.note("Mask the guide's site too.")


@EFFECTS.cell("`obs_mask`, `AutoNormalMessenger`, `AutoWrappedNormal`", EVIDENCE)
def imputing_by_guides_that_run_the_model() -> None:
    for make in (AG.AutoNormalMessenger, ph.infer.AutoWrappedNormal):
        pyro.clear_param_store()
        evidence_by(imputing_model, fitted(imputing_model, make(imputing_model), 60), imputing_evidence())


@EFFECTS.cell("subsampled plates", "all subsamples average to the whole")
def subsamples() -> None:
    data = torch.cat([POINTS, FAR_LOC.unsqueeze(0)])

    def model(subsample: Tensor | None = None, size: int | None = None) -> None:
        z = pyro.sample("z", wrapped_prior())
        with pyro.plate("data", 4, subsample_size=size, subsample=subsample) as chosen:
            pyro.sample("x", hdist.WrappedNormal(z, PRIOR_SCALE, M), obs=data[chosen])

    fixed = pyro.condition(model, {"z": PRIOR_LOC})
    truth = prior_density(torch.cat([data, PRIOR_LOC.unsqueeze(0)])).sum()
    pairs = [torch.tensor(pair) for pair in itertools.combinations(range(4), 2)]
    scores = torch.stack([poutine.trace(fixed).get_trace(pair).log_prob_sum() for pair in pairs])
    assert same(scores.mean(), truth)
    assert scores.std() > 0.1
    mean_is(torch.tensor([Trace_ELBO().loss(fixed, lambda **_: None, size=2) for _ in range(200)]), -truth)


@EFFECTS.cell("`scale`, `to_event`, `replay`, `block`", "densities by the textbook")
def small_handlers() -> None:
    density = prior_density(POINTS).sum()
    model = copies(partial(pyro.sample, "z", wrapped_prior()), 3)
    whole = partial(pyro.sample, "z", wrapped_prior().expand([3]).to_event(1))
    assert same(log_joint(poutine.scale(model, 0.25), z=POINTS).sum(), density / 4)
    assert log_joint(whole, z=POINTS).shape == ()
    assert same(log_joint(whole, z=POINTS), density)
    drawn = poutine.trace(model).get_trace()
    again, z = poutine.trace(poutine.replay(model, drawn)).get_trace(), drawn.nodes["z"]["value"]
    assert torch.equal(again.nodes["z"]["value"], z)
    assert same(again.log_prob_sum(), prior_density(z).sum())
    assert "z" not in poutine.trace(poutine.block(model, hide=["z"])).get_trace().nodes


@EFFECTS.cell("`poutine.lift`", EVIDENCE)
def lifting() -> None:
    """A location that was a parameter becomes a latent with a prior."""

    def model() -> None:
        z = pyro.param("z", point(2.0, 1.0, 1.0), constraint=on_manifold(M))
        pyro.sample("x", dist.Normal(G.distance(M, z, BEACON), 0.8), obs=torch.tensor(3.0))

    lifted = poutine.lift(model, prior={"z": hdist.WrappedNormal(FAR_LOC, PRIOR_SCALE, M)})
    guide = partial(pyro.sample, "z", hdist.WrappedNormal(FAR_LOC, 1.2 * PRIOR_SCALE, M))
    evidence_is(-torch.tensor([Trace_ELBO().loss(lifted, guide) for _ in range(150)]), POSTERIORS["far"].log_evidence)


@EFFECTS.cell("`poutine.equalize`", EVIDENCE)
def equalizing() -> None:
    """Two sites forced to one value, both densities kept: the posterior of one given the other's density."""

    def two() -> None:
        pyro.sample("z", wrapped_prior())
        pyro.sample("w", hdist.WrappedNormal(FAR_LOC, PRIOR_SCALE, M))

    def density_of_both() -> None:
        pyro.factor("w", book_density((2.5, 1.5), PRIOR_SCALE, pyro.sample("z", wrapped_prior())))

    equal = poutine.equalize(two, ["z", "w"], keep_dist=True)
    guide = partial(pyro.sample, "z", hdist.WrappedNormal(point(2.0, 1.4, 0.9), torch.tensor([0.7, 0.8]), M))
    weights = -torch.tensor([Trace_ELBO().loss(equal, guide) for _ in range(150)])
    evidence_is(weights, Posterior(density_of_both).log_evidence)


@EFFECTS.cell("`pyro.param(constraint=on_manifold(M))`", "the midpoint, by geoopt's distances")
def parameter_on_the_manifold() -> None:
    """The maximum-likelihood location of two points."""
    data = torch.stack([POINTS[1], FAR_LOC])

    def model() -> None:
        loc = pyro.param("loc", lambda: point(2.0, -1.0, -1.0), constraint=on_manifold(M))
        with pyro.plate("data", 2):
            pyro.sample("x", hdist.WrappedNormal(loc, 0.8, M), obs=data)

    learn(model)
    assert (M.dist(pyro.param("loc"), data) - M.dist(*data) / 2).abs().max() < 1e-3


@EFFECTS.cell("a plate of manifolds", f"{EVIDENCE}, rescaled")
def plate_of_manifolds() -> None:
    """Planes of k = 0.5, 2, 8, each the same model in other units of length."""
    k = torch.tensor([0.5, 2.0, 8.0])
    unit, manifold = (k / 2).sqrt().unsqueeze(-1), geoopt.Lorentz(k)

    def model() -> None:
        with pyro.plate("planes", 3):
            z = pyro.sample("z", hdist.WrappedNormal(unit * PRIOR_LOC, unit * PRIOR_SCALE, manifold))
            pyro.sample("x", dist.Normal(G.log0(manifold, z), 0.3 * unit).to_event(1), obs=unit * SEEN_COORDINATES)

    truth = 3 * COORDINATES.log_evidence - float((k / 2).log().sum())
    evidence_by(model, fitted(model, AG.AutoNormal(model, init_scale=0.2)), truth)


class Located(PyroModule):
    """A module with a latent location."""

    def __init__(self) -> None:
        super().__init__()
        self.z = PyroSample(wrapped_prior())

    def forward(self) -> None:
        pyro.sample("x", dist.Normal(G.log0(M, self.z), 0.3).to_event(1), obs=SEEN_COORDINATES)


@EFFECTS.cell("`PyroSample`", EVIDENCE)
def pyro_sample() -> None:
    evidence_by(Located(), wide_guide, COORDINATES.log_evidence)


@EFFECTS.cell("`infer_discrete`", "Bayes' rule by the textbook")
def discrete_posterior() -> None:
    """The component of a mixture given its point."""
    mixing, locs, x = torch.tensor([0.5, 0.3, 0.2]), ((1.0, 0.2), (-0.5, 0.4), (0.3, -1.0)), point(2.0, 0.3, 0.1)

    def model() -> Tensor:
        with pyro.plate("draws", 1500):
            c = pyro.sample("c", dist.Categorical(mixing), infer={"enumerate": "parallel"})
            pyro.sample("x", hdist.WrappedNormal(POINTS[c], PRIOR_SCALE, M), obs=x)
        return c

    truth = (mixing.log() + torch.stack([book_density(loc, PRIOR_SCALE, x) for loc in locs])).softmax(0)
    drawn = infer.infer_discrete(model, first_available_dim=-2, temperature=1)()
    mean_is(torch.nn.functional.one_hot(drawn, 3).double(), truth)
    assert (infer.infer_discrete(model, first_available_dim=-2, temperature=0)() == truth.argmax()).all()


@EFFECTS.cell("`ParamStore.save`, `.load`", "values, constraints, later steps")
def param_store() -> None:
    """A parameter that is loaded still moves along the manifold."""
    pyro.param("loc", POINTS[0].clone(), constraint=on_manifold(M))
    with tempfile.NamedTemporaryFile() as file:
        pyro.get_param_store().save(file.name)
        pyro.clear_param_store()
        pyro.get_param_store().load(file.name)
    assert same(pyro.param("loc"), POINTS[0])
    learn(lambda: pyro.sample("x", hdist.WrappedNormal(pyro.param("loc"), 0.8, M), obs=FAR_LOC))
    assert M.dist(pyro.param("loc"), FAR_LOC) < 1e-3


@EFFECTS.cell("`torch.save` of a guide, `state_dict`", "the same draws, and the evidence")
def saved_guides() -> None:
    """A whole guide, and its state_dict in a new one."""
    guide, file = fitted(coordinates_model, AG.AutoMultivariateNormal(coordinates_model), 60), io.BytesIO()
    torch.save(guide, file)
    with pytest.raises(Exception, match="weights_only"):
        torch.load(io.BytesIO(file.getvalue()))
    whole = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    state = guide.state_dict()
    pyro.clear_param_store()
    other = AG.AutoMultivariateNormal(coordinates_model)
    other()
    other.load_state_dict(state)
    runs = []
    for each in (guide, whole, other):
        pyro.set_rng_seed(5)
        runs.append(importance_weights(coordinates_model, each)[0])
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2])
    evidence_is(runs[0], COORDINATES.log_evidence)


EFFECTS.note("Whole objects need `torch.load(weights_only=False)`.")


@EFFECTS.cell("`pyro.set_rng_seed`", "equal to the last bit")
def seeds() -> None:
    def run(seed: int) -> Tensor:
        pyro.clear_param_store()
        pyro.set_rng_seed(seed)
        guide = fitted(coordinates_model, AG.AutoNormal(coordinates_model), 5)
        return torch.cat([guide()["z"].detach(), chain(NUTS(coordinates_model), 3, 3)["z"].flatten()])

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


# What Pyro gets wrong


class Curved(PyroModule):
    """A plane of latent or learnable curvature: a point seen from the origin, and its distance from a beacon."""

    beacon = torch.tensor([2.5, 0.0], dtype=torch.float64)
    seen_place = torch.tensor([0.4, 2.0], dtype=torch.float64)
    seen_distance = torch.tensor(3.6, dtype=torch.float64)

    def __init__(self, learnable_k: float | None = None) -> None:
        super().__init__()
        if learnable_k is None:
            self.manifold = ph.manifolds.Lorentz()
            self.manifold.k = PyroSample(dist.LogNormal(torch.tensor(0.0, dtype=torch.float64), 0.7))
        else:
            self.manifold = ph.manifolds.Lorentz(torch.tensor(learnable_k), learnable=True)

    def forward(self) -> None:
        manifold = self.manifold
        z = pyro.sample("z", hdist.WrappedNormal(G.origin(manifold, 2), 1.5, manifold))
        apart = G.distance(manifold, z, G.exp0(manifold, self.beacon))
        pyro.sample("place", dist.Normal(G.log0(manifold, z), 0.2).to_event(1), obs=self.seen_place)
        pyro.sample("distance", dist.Normal(apart, 0.3), obs=self.seen_distance)


def log_evidence_given(log_k: Tensor) -> Tensor:
    """The evidence of the curved model given log k: over a grid of v = log0(z), by the law of cosines."""
    side = torch.linspace(-1.5, 1.5, 61)
    v = torch.cartesian_prod(side, side) + Curved.seen_place
    radius = log_k.exp().sqrt().unsqueeze(-1)
    a, b = v.norm(dim=-1), Curved.beacon.norm()
    cosine = (v @ Curved.beacon) / (a * b)
    a, b = a / radius, b / radius
    apart = radius * (a.cosh() * b.cosh() - a.sinh() * b.sinh() * cosine).clamp_min(1.0).acosh()
    log_joint = dist.Normal(0.0, 1.5).log_prob(v).sum(-1) + dist.Normal(v, 0.2).log_prob(Curved.seen_place).sum(-1)
    log_joint = log_joint + dist.Normal(apart, 0.3).log_prob(Curved.seen_distance)
    return log_joint.logsumexp(-1) + 2 * (side[1] - side[0]).log()


def log_k_posterior() -> tuple[Tensor, Tensor]:
    """A grid of log k, and the log of the joint density of k and the data times the width of a cell."""
    log_k = torch.linspace(-4.0, 4.0, 81)
    return log_k, log_evidence_given(log_k) + dist.Normal(0.0, 0.7).log_prob(log_k) + math.log(0.1)


def refuses_a_latent_curvature(run: Callable[[Model], object]) -> None:
    with pytest.raises((ValueError, UserWarning), match=r"TransformReparam|is not on Lorentz\(k="):
        run(Curved())


#: What keeps the support of its first run.
FROZEN: dict[str, Callable[[Model], object]] = {
    **{
        f"`{guide.__name__}`": lambda model, guide=guide: fitted(model, guide(model), 5, particles=1)
        for guide in (
            *(AG.AutoNormal, AG.AutoDiagonalNormal, AG.AutoMultivariateNormal, AG.AutoLowRankMultivariateNormal),
            *(AG.AutoIAFNormal, AG.AutoDelta, AG.AutoLaplaceApproximation, AG.AutoStructured, AG.AutoGaussian),
        )
    },
    **{name: lambda model, kernel=kernel: chain(kernel(model), 5, 5) for name, kernel in KERNELS.items()},
    "`SVGD`": lambda model: stein_particles(model, infer.RBFSteinKernel(), 3),
}
for name, run in FROZEN.items():
    PITFALLS.add(f"{name}, `k` latent", "the message", refuses_a_latent_curvature, run, status="refused")
    PITFALLS.note("It would freeze one `k`: use `TransformReparam`, `AutoNormalMessenger` or `AutoWrappedNormal`.")


def reparametrised() -> Model:
    return poutine.reparam(Curved(), {"z": TransformReparam()})


@PITFALLS.cell("`NUTS` with `TransformReparam`, `k` latent", "moments by the law of cosines")
def latent_curvature_by_nuts() -> None:
    kernel = NUTS(reparametrised(), init_strategy=init.init_to_median, **JIT)
    log_k, log_weight = log_k_posterior()
    powers = torch.stack([log_k, log_k**2], -1)
    found = chain(kernel, 80, 50)["manifold.k"].log()
    one_chain_is(torch.stack([found, found**2], -1), log_weight.softmax(0) @ powers)


def latent_curvature(make: Callable[[Model], Model], make_model: Callable[[], Model] = Curved) -> None:
    model = make_model()
    evidence_by(model, fitted(model, make(model), 100), float(log_k_posterior()[1].logsumexp(0)))


def learned_curvature(make: Callable[[Model], Model]) -> None:
    """After k has moved, the importance-weighted evidence is that of the new k, which is near its optimum."""
    model = Curved(8.0)
    guide = fitted(model, make(model), 140)
    log_k = model.manifold.k.detach().log()
    assert (log_k - math.log(8.0)).abs() > 0.5
    truth = float(log_evidence_given(log_k.unsqueeze(0)))
    evidence_by(model, guide, truth)
    assert log_evidence_given(torch.linspace(-4.0, 4.0, 81)).max() - truth < 0.1


mvn = AG.AutoMultivariateNormal
by_reparam = "`AutoMultivariateNormal` with `TransformReparam`, `k` latent"
PITFALLS.add(by_reparam, BY_COSINES, latent_curvature, mvn, reparametrised)
PITFALLS.add("`AutoNormalMessenger`, `k` latent", BY_COSINES, latent_curvature, AG.AutoNormalMessenger)
for make in (AG.AutoNormal, mvn, AG.AutoIAFNormal, AG.AutoStructured, AG.AutoGaussian):
    PITFALLS.add(f"`{make.__name__}`, `k` learned", BY_COSINES, learned_curvature, make, slow=make is not AG.AutoNormal)


class OwnLocation(PyroModule):
    """A module whose location is a geoopt parameter, which only a Riemannian optimiser keeps on the manifold."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = geoopt.ManifoldParameter(point(2.0, -1.0, -1.0), manifold=M)

    def forward(self) -> None:
        pyro.sample("x", hdist.WrappedNormal(self.loc, PRIOR_SCALE, M), obs=FAR_LOC)


@PITFALLS.cell("`geoopt.ManifoldParameter` and `Adam`", "the message", status="refused")
def optimisers_off_the_manifold() -> None:
    for optimiser in (pyro.optim.Adam, pyro.optim.ClippedAdam, pyro.optim.SGD):
        pyro.clear_param_store()
        with pytest.raises(ValueError, match=r"loc is not on Lorentz\(k=2\)") as error:
            learn(OwnLocation(), 2, optimiser({"lr": 0.05}))
        assert "RiemannianAdam" in str(error.value)
        assert "on_manifold" in str(error.value)


PITFALLS.note("Use `pyro.param(constraint=on_manifold(M))`, or the optimiser below.")


@PITFALLS.cell("`PyroOptim(geoopt.optim.RiemannianAdam)`", "the known optimum")
def riemannian_adam() -> None:
    model = OwnLocation()
    learn(model, optimiser=pyro.optim.PyroOptim(geoopt.optim.RiemannianAdam, {"lr": 0.1}))
    assert M.dist(model.loc, FAR_LOC) < 1e-3  # the one observation, which is the mode


@PITFALLS.cell("`obs_mask`, other autoguides", "an ELBO too high", status="not in Pyro")
def imputing_by_other_guides() -> None:
    """They score what they draw for points that were seen, and the model does not."""

    def normals() -> None:
        with pyro.plate("points", 3):
            pyro.sample("z", dist.Normal(0.0, 1.0), obs=torch.zeros(3), obs_mask=SEEN)

    for model, evidence in ((imputing_model, imputing_evidence()), (normals, -math.log(2 * math.pi))):
        pyro.clear_param_store()
        guide = fitted(model, AG.AutoNormal(model), 80, 0.15, particles=1)
        assert -Trace_ELBO(num_particles=50).loss(model, guide) > evidence + 2


PITFALLS.note("They draw and score the observed points as well: use `AutoNormalMessenger` or `AutoWrappedNormal`.")


@PITFALLS.cell("optimisers that edit in place", "nothing moves")
def nothing_is_aliased() -> None:
    """Neither the prior's location nor an initial value is a parameter that an optimiser edits."""
    for manifold, loc, start in ((M, PRIOR_LOC, POINTS[0]), (geoopt.Euclidean(1), torch.ones(2), torch.zeros(2))):
        before = loc.clone(), start.clone()
        model = partial(pyro.sample, "z", hdist.WrappedNormal(loc, 1.0, manifold))
        for strategy, value in ((init.init_to_mean, loc), (init.init_to_value(values={"z": start}), start)):
            pyro.clear_param_store()
            guide = AG.AutoDelta(model, init_loc_fn=strategy)
            guide()
            for parameter in guide.parameters():
                parameter.data.add_(1.0)
            assert G.distance(manifold, guide.median()["z"], value) > 0.5
        pyro.param("loc", start, constraint=on_manifold(manifold))
        pyro.param("loc").unconstrained().data.add_(1.0)
        assert G.distance(manifold, pyro.param("loc"), start) > 0.5
        assert torch.equal(loc, before[0])
        assert torch.equal(start, before[1])


@PITFALLS.cell("`init_to_*`", "the points that they promise")
def initial_points() -> None:
    origin, to_a_point = G.origin(M, 2), init.init_to_value(values={"z": POINTS[1]})
    strategies = {
        init.init_to_mean: FAR_LOC,
        init.init_to_feasible: origin,
        init.init_to_median: origin,
        to_a_point: POINTS[1],
        init.init_to_generated(generate=lambda: to_a_point): POINTS[1],
        init.init_to_sample: None,
        init.init_to_uniform(radius=4.0): None,
    }
    site = {"name": "z", "fn": hdist.WrappedNormal(FAR_LOC, PRIOR_SCALE, M).expand([50]), "is_observed": False}
    for strategy, expected in strategies.items():
        z = strategy(site)
        assert on_manifold(M).check(z).all()
        assert expected is None or same(z, expected.expand_as(z))
    mean_is(textbook.Wrapped(2.0, (2.5, 1.5), (0.8, 1.1)).tangent(init.init_to_sample(site)).detach(), 0.0)
    square = textbook.log(init.init_to_uniform(dict(site), radius=4.0), 2**0.5)
    assert square.abs().max() < 4.0
    mean_is(square.square(), 16 / 3)


PITFALLS.note("`init_to_median` is `init_to_feasible`: Pyro has no median of several coordinates.")
