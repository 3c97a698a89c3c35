"""Samplers, reparametrisations, effects, and what Pyro itself gets wrong: the second half of the inference matrix.

Most samplers run on a plate of copies of one posterior. The copies are independent, so means over a short chain scatter
about the truth by an error that is seen across copies, whatever the autocorrelation; one copy would need a long chain.
"""

import io
import itertools
import math
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro import poutine
from pyro.infer import (
    HMC,
    MCMC,
    NUTS,
    SVGD,
    SVI,
    EmpiricalMarginal,
    Importance,
    IMQSteinKernel,
    Predictive,
    RandomWalkKernel,
    RBFSteinKernel,
    SMCFilter,
    Trace_ELBO,
    WeighedPredictive,
    infer_discrete,
)
from pyro.infer import autoguide as AG
from pyro.infer.autoguide import initialization as init
from pyro.infer.autoguide.effect import AutoNormalMessenger
from pyro.infer.importance import psis_diagnostic, vectorized_importance_weights
from pyro.infer.mcmc import StreamingMCMC
from pyro.infer.reparam import AutoReparam, LocScaleReparam, MinimalReparam, NeuTraReparam, TransformReparam
from pyro.nn import PyroModule, PyroSample
from pyro.ops.stats import effective_sample_size
from torch import Tensor

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from tests import textbook
from tests.cases import TEST_FAILURE_RATE, point
from tests.inference_cell import Cell
from tests.inference_truth import (
    BEACON,
    POSTERIORS,
    PRIOR_LOC,
    PRIOR_SCALE,
    SEEN_COORDINATES,
    G,
    M,
    Posterior,
    coordinates_model,
    moments,
)

STANDARD_ERRORS = float(scipy.stats.norm.isf(TEST_FAILURE_RATE / 2))  # 4.3
on_manifold = hdist.constraints.on_manifold
Model = Callable[..., object]

FAR_LOC = point(2.0, 2.5, 1.5)
POINTS = torch.stack([point(2.0, 1.0, 0.2), point(2.0, -0.5, 0.4), point(2.0, 0.3, -1.0)])


def far_model() -> None:
    """A wide posterior far from the origin, where the chart stretches volume by 1.9: its log-determinant is seen."""
    z = pyro.sample("z", hdist.WrappedNormal(FAR_LOC, PRIOR_SCALE, M))
    pyro.sample("x", dist.Normal(G.distance(M, z, BEACON), 0.8), obs=torch.tensor(3.0, dtype=torch.float64))


FAR = Posterior(far_model, centre=FAR_LOC)
CONTINUOUS = {**{name: POSTERIORS[name] for name in ("coordinates", "distance", "scale")}, "far": FAR}


# Helpers


def near(found: Tensor, error: Tensor | float, truth: Tensor | float) -> None:
    """Asserts that an estimate is the truth within 4.3 of its standard errors."""
    away = float(((torch.as_tensor(found) - truth) / error).abs().max().detach())
    assert away < STANDARD_ERRORS, f"{away:.1f} standard errors from the truth"


def mean_is(values: Tensor, truth: Tensor | float) -> None:
    """Asserts the mean of independent values."""
    near(values.mean(0), values.std(0) / len(values) ** 0.5, truth)


def one_chain_is(values: Tensor, truth: Tensor) -> None:
    """Asserts the mean of a Markov chain."""
    size = effective_sample_size(values.unsqueeze(0))
    assert size.min() > 30
    near(values.mean(0), values.std(0) / size.sqrt(), truth)


def evidence_is(log_weights: Tensor, truth: float) -> None:
    """Asserts the log of the mean of importance weights, which must scatter little for the error to be one."""
    weights = (log_weights - truth).detach().exp()
    assert weights.std() / len(weights) ** 0.5 < 0.1
    mean_is(weights, 1.0)


def importance_weights(model: Model, guide: Model, number: int = 3000) -> Tensor:
    guide = poutine.block(guide, hide_types=["observe"])  # guides that are effects also run the model
    with torch.no_grad():
        return vectorized_importance_weights(model, guide, num_samples=number, max_plate_nesting=1, normalized=False)[0]


def copies(model: Model, number: int = 100) -> Model:
    def replicated() -> None:
        with pyro.plate("copies", number):
            model()

    return replicated


def chain(kernel: object, draws: int = 40, warmup: int = 40, *args: object) -> dict[str, Tensor]:
    mcmc = MCMC(kernel, num_samples=draws, warmup_steps=warmup, disable_progbar=True)
    mcmc.run(*args)
    return mcmc.get_samples()


def fitted(model: Model, guide: Model, steps: int = 150, lr: float = 0.03, particles: int = 8) -> Model:
    elbo = Trace_ELBO(num_particles=particles, vectorize_particles=True, max_plate_nesting=1)
    guide()  # some guides take the shapes of their parameters from the first run, which must be of one particle
    svi = SVI(model, guide, pyro.optim.Adam({"lr": lr}), elbo)
    for _ in range(steps):
        svi.step()
    return guide


def book_density(loc: tuple[float, ...], scale: Tensor, z: Tensor) -> Tensor:
    """The log-density of a wrapped normal at k = 2, without the library."""
    return textbook.Wrapped(2.0, loc, tuple(scale.tolist())).log_prob(z).detach()


# Samplers


def copies_agree(kernel: Callable[[Model], object], posteriors: dict[str, Posterior] = CONTINUOUS) -> None:
    """Moments over copies of each posterior."""
    for posterior in posteriors.values():
        mean_is(moments(**chain(kernel(copies(posterior.model)))).mean(0), posterior.mean(moments))


def one_chain_agrees(kernel: Callable[[Model], object], draws: int = 200, warmup: int = 100) -> None:
    """As users run it: one chain, the error from its effective sample size."""
    found = moments(**chain(kernel(coordinates_model), draws, warmup))
    one_chain_is(found, POSTERIORS["coordinates"].mean(moments))


def calibrated(kernel: Callable[..., object], number: int = 400, draws: int = 15, thin: int = 3) -> None:
    """Simulation-based calibration: the rank of each data set's truth among posterior draws is uniform.

    One chain over a plate of data sets, that starts from the truths, which are draws of their posteriors.
    """
    loc, scale, beacon = point(2.0, 1.6, -1.0, 0.8), torch.tensor([1.5, 2.0, 1.7]), point(2.0, -0.4, 0.3, 0.5)

    def model(x: Tensor | None = None) -> Tensor:
        with pyro.plate("data sets", number):
            s = pyro.sample("s", dist.LogNormal(-0.3, 0.4))
            z = pyro.sample("z", hdist.WrappedNormal(loc, s.unsqueeze(-1) * scale, M))
            return pyro.sample("x", dist.Normal(G.log0(M, z), 1.2).to_event(1), obs=x)

    def statistics(z: Tensor, s: Tensor) -> Tensor:
        v = G.log0(M, z)
        return torch.cat([v, torch.stack([v.norm(dim=-1), G.distance(M, z, beacon), s], -1)], -1)

    trace = poutine.trace(model).get_trace()
    truth = {name: trace.nodes[name]["value"] for name in ("z", "s")}
    start = init.init_to_value(values=truth)
    samples = chain(kernel(model, init_strategy=start), draws * thin, 50, trace.nodes["x"]["value"])
    ranks = (statistics(**samples)[::thin] < statistics(**truth)).sum(0)
    for rank in ranks.T:
        counts = (rank // 2).bincount(minlength=(draws + 1) // 2)
        p_value = scipy.stats.chisquare(counts.numpy()).pvalue
        assert p_value > TEST_FAILURE_RATE / ranks.size(-1), f"ranks of a statistic fall into bins {counts.tolist()}"


jit = {"jit_compile": True, "ignore_jit_warnings": True}
HMC_ = partial(HMC, trajectory_length=1.5)
KERNELS = {
    "`NUTS`": NUTS,
    "`NUTS(jit_compile=True)`": partial(NUTS, **jit),
    "`HMC`": HMC_,
    "`HMC(jit_compile=True)`": partial(HMC_, **jit),
}


def chains_in_processes() -> None:
    """Two processes, and a model that is a closure; also on a machine where Pyro would count too few cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.multiprocessing, "cpu_count", lambda: 3)
        number = 2
        mcmc = MCMC(
            NUTS(copies(coordinates_model, 50)),
            num_samples=30,
            warmup_steps=30,
            num_chains=number,
            disable_progbar=True,
        )
        mcmc.run()
    z = mcmc.get_samples(group_by_chain=True)["z"]
    assert z.shape == (number, 30, 50, 3)
    assert not torch.equal(z[0], z[1])
    mean_is(moments(z).mean(1).flatten(0, 1), POSTERIORS["coordinates"].mean(moments))


def streaming_agrees() -> None:
    """Running means of points of the ambient space, which are what Pyro streams."""
    mcmc = StreamingMCMC(
        NUTS(copies(coordinates_model), **jit),
        num_samples=40,
        warmup_steps=40,
        statistics=pyro.ops.streaming.StatsOfDict(default=pyro.ops.streaming.CountMeanStats),
        disable_progbar=True,
    )
    mcmc.run()
    (found,) = [value["mean"] for (_, name), value in mcmc.get_statistics(group_by_chain=True).items() if name == "z"]
    mean_is(found, POSTERIORS["coordinates"].mean(lambda z: z))


def svgd_agrees(kernel: Callable[[], object]) -> None:
    """Means of 60 particles within 0.15 posterior standard deviations: no sample, so there is no standard error."""
    for posterior in (POSTERIORS["coordinates"], FAR):
        pyro.clear_param_store()
        svgd = SVGD(posterior.model, kernel(), pyro.optim.Adam({"lr": 0.1}), num_particles=60, max_plate_nesting=0)
        for _ in range(250):
            svgd.step()
        z = svgd.get_named_particles()["z"].detach()
        assert on_manifold(M).check(z).all()
        truth = posterior.mean(moments)
        spread = (truth[2:4] - truth[:2].square()).sqrt()
        away = (G.log0(M, z).mean(0) - truth[:2]) / spread
        assert away.abs().max() < 0.15, f"means {away.tolist()} standard deviations away"
        narrow = G.log0(M, z).std(0) / spread
        assert (narrow - 1).abs().max() < 0.15, f"standard deviations {narrow.tolist()} times too large"


def wide_guide() -> None:
    """A proposal that covers the posterior of coordinates_model, elsewhere than the prior."""
    pyro.sample("z", hdist.WrappedNormal(point(2.0, 1.0, -0.5), torch.tensor([0.45, 0.5]), M))


def importance_agrees() -> None:
    """Evidence, effective size and moments from weighted traces."""
    posterior, number = POSTERIORS["coordinates"], 1500
    importance = Importance(coordinates_model, wide_guide, num_samples=number).run()
    log_weights = torch.stack(importance.log_weights)
    evidence_is(log_weights, posterior.log_evidence)
    assert torch.allclose(importance.get_log_normalizer(), log_weights.logsumexp(0) - math.log(number))
    marginal = EmpiricalMarginal(importance, sites="z")
    found = moments(marginal.enumerate_support())
    weights = log_weights.softmax(0).unsqueeze(-1)
    mean, truth = (weights * found).sum(0), posterior.mean(moments)
    near(mean, (weights * (found - mean)).square().sum(0).sqrt(), truth)
    assert torch.allclose(marginal.mean, (weights * marginal.enumerate_support()).sum(0))
    mean_is(moments(marginal.sample((2000,))), mean)


def psis_knows_the_tail() -> None:
    """Where p is wrapped normal and q is s times narrower, weights on a plane are exactly Pareto with k = 1 - s^2."""
    for ratio in (0.5, 0.7, 0.9):
        p, q = (partial(pyro.sample, "z", hdist.WrappedNormal(FAR_LOC, c * PRIOR_SCALE, M)) for c in (1.0, ratio))
        number, truth = 200_000, 1 - ratio**2
        error = (1 + truth) / (3 * number**0.5) ** 0.5  # of the tail's 3 sqrt(number) weights
        near(torch.as_tensor(psis_diagnostic(p, q, num_particles=number, max_plate_nesting=0)), error, truth)


SEEN_RANGES = torch.tensor([1.3, 1.0, 1.6], dtype=torch.float64)
STRIDE = 0.5


class Walk:
    """A random walk on H^2, whose distance from a beacon is seen at each step."""

    def __init__(self, stretch: float | None = None) -> None:
        self.stretch = stretch  # of the guide's steps; None for the model

    def init(self, state: dict[str, Tensor]) -> None:
        z = pyro.sample("z_0", hdist.WrappedNormal(PRIOR_LOC, (self.stretch or 1.0) * PRIOR_SCALE, M))
        if self.stretch is None:
            state["z"], state["t"] = z, torch.zeros(len(z))

    def step(self, state: dict[str, Tensor]) -> None:
        t = int(state["t"][0])
        z = pyro.sample(f"z_{t + 1}", hdist.WrappedNormal(state["z"], STRIDE * (self.stretch or 1.0), M))
        if self.stretch is None:
            pyro.sample(f"x_{t + 1}", dist.Normal(G.distance(M, z, BEACON), 0.3), obs=SEEN_RANGES[t])
            state["z"], state["t"] = z, state["t"] + 1


def filter_agrees() -> None:
    """Filtered means of 25 filters against the forward algorithm on a grid."""
    grid = Posterior(coordinates_model, reach=5.0, number=45)
    z = grid.grid["z"]
    log_filtered = book_density((0.5, 0.3), PRIOR_SCALE, z)
    log_step = hdist.WrappedNormal(z, STRIDE, M).log_prob(z.unsqueeze(1))
    for seen in SEEN_RANGES:
        log_filtered = (log_step + log_filtered + grid.log_measure).logsumexp(-1)
        log_filtered = log_filtered + dist.Normal(G.distance(M, z, BEACON), 0.3).log_prob(seen)
    truth = ((log_filtered + grid.log_measure).softmax(0).unsqueeze(-1) * z).sum(0)
    found = []
    for _ in range(25):
        smc = SMCFilter(Walk(), Walk(stretch=1.2), num_particles=1000, max_plate_nesting=0)
        smc.init()
        for _ in SEEN_RANGES:
            smc.step()
        found.append(smc.get_empirical()["z"].mean)
    mean_is(torch.stack(found), truth)


# Reparametrisation


def with_reparam_agree(config: Callable[[], object], sites: set[str]) -> None:
    """NUTS on reparametrised copies samples the auxiliary sites, and the latents that they make have the moments."""
    for posterior in (POSTERIORS["scale"], FAR):
        pyro.clear_param_store()
        model = poutine.reparam(copies(posterior.model), config())
        samples = chain(NUTS(model, **jit), 40, 40)
        assert set(samples) & {"z", "z_base", "z_base_decentered"} == sites
        latents = Predictive(model, samples, return_sites=["z", "s"])()
        mean_is(moments(latents["z"]).mean(0), posterior.mean(moments))


def transform_reparam_moves_the_density() -> None:
    """The joint density of the base is that of z times the volume stretch at it, by the book."""
    v = torch.tensor([1.3, -0.7])
    for model, loc in ((coordinates_model, PRIOR_LOC), (far_model, FAR_LOC)):
        z = textbook.boost(loc, textbook.exp(v, 2**0.5), 2**0.5)
        reparametrised = poutine.reparam(model, {"z": TransformReparam()})
        of_z = poutine.trace(poutine.condition(model, {"z": z})).get_trace().log_prob_sum()
        of_base = poutine.trace(poutine.condition(reparametrised, {"z_base": v})).get_trace().log_prob_sum()
        assert torch.allclose(of_base, of_z + textbook.volume(v, 2**0.5), atol=1e-9)
    # From a value of z, as an init strategy gives it, the base is recovered.
    with poutine.trace() as tracer, poutine.reparam(config={"z": TransformReparam()}):
        pyro.sample("z", hdist.WrappedNormal(FAR_LOC, PRIOR_SCALE, M), obs=z)
    assert torch.allclose(tracer.trace.nodes["z_base"]["value"], v, atol=1e-9)


def neutra_agrees(make: Callable[[Model], Model]) -> None:
    """The density in a trained guide's coordinates is by the change of variables; one chain there, mapped back."""
    guide = fitted(far_model, make(far_model), 150)
    neutra = NeuTraReparam(guide)
    model = neutra.reparam(far_model)
    ((site, latent),) = chain(NUTS(model), 150, 60).items()
    z = neutra.transform_sample(latent)["z"]
    one_chain_is(moments(z), FAR.mean(moments))

    forward = guide.get_transform()
    for w in latent[:3]:
        u = forward(w).detach()
        trace = poutine.trace(poutine.condition(model, {site: w})).get_trace()
        of_z = poutine.trace(poutine.condition(far_model, {"z": textbook.exp(u, 2**0.5)})).get_trace().log_prob_sum()
        stretch = torch.autograd.functional.jacobian(forward, w).det().abs().log()
        assert torch.allclose(trace.log_prob_sum(), of_z + textbook.volume(u, 2**0.5) + stretch, atol=1e-9)


PRIORS = {
    "plane": lambda: hdist.WrappedNormal(PRIOR_LOC, PRIOR_SCALE, M),
    "line": lambda: hdist.WrappedNormal(point(2.0, 0.5), torch.tensor([0.8]), M),
    "batch": lambda: hdist.WrappedNormal(POINTS, PRIOR_SCALE, M).to_event(1),
    "flat": lambda: hdist.WrappedNormal(torch.tensor([0.3, 0.2]), PRIOR_SCALE, geoopt.Euclidean(1)),
    "full": lambda: hdist.WrappedMultivariateNormal(PRIOR_LOC, torch.eye(2), manifold=M),
}


def loc_scale_is_refused(names: tuple[str, ...], centerings: tuple[float | None, ...], mcmc: bool) -> None:
    """Whatever the centering, geometry and family. MCMC turns validation off: there nothing would be checked."""
    for name, centered in itertools.product(names, centerings):
        pyro.clear_param_store()
        model = poutine.reparam(partial(pyro.sample, "z", PRIORS[name]()), {"z": LocScaleReparam(centered)})
        with pytest.raises((ValueError, NotImplementedError)) as error:
            chain(NUTS(model), 3, 3) if mcmc else poutine.trace(model).get_trace()
        assert "TransformReparam" in str(error.value), f"{name}, centered={centered}: {error.value}"
    # Fully centered is no reparametrisation, and is let through.
    trace = poutine.trace(poutine.reparam(coordinates_model, {"z": LocScaleReparam(1.0)})).get_trace()
    assert trace.nodes["z"]["fn"].support == on_manifold(M)


# Effects and parameters


def prior_draws_agree() -> None:
    """Predictive without samples: means and squares of the coordinates at loc are those of the normal."""
    for parallel, number in ((True, 5000), (False, 300)):
        draws = Predictive(copies(coordinates_model, 3), num_samples=number, parallel=parallel)()
        v = textbook.Wrapped(2.0, (0.5, 0.3), (0.8, 1.1)).tangent(draws["z"]).detach()
        assert v.shape == (number, 3, 2)
        mean_is(v.mean(1), 0.0)
        mean_is(v.square().mean(1), PRIOR_SCALE.square())


def posterior_draws(number: int) -> Tensor:
    """Draws of z from the grid of the posterior: its law without any inference."""
    posterior = POSTERIORS["coordinates"]
    cells = dist.Categorical(logits=posterior.log_joint + posterior.log_measure).sample((number,))
    return posterior.grid["z"][cells]


def unobserved_model() -> None:
    z = pyro.sample("z", hdist.WrappedNormal(PRIOR_LOC, PRIOR_SCALE, M))
    pyro.sample("x", dist.Normal(G.log0(M, z), 0.3).to_event(1))


def posterior_predictions_agree() -> None:
    """New observations have the posterior's means, and its variances plus that of the noise."""
    truth = POSTERIORS["coordinates"].mean(moments)
    for parallel, number in ((True, 5000), (False, 400)):
        x = Predictive(unobserved_model, {"z": posterior_draws(number)}, parallel=parallel)()["x"]
        mean_is(x, truth[:2])
        mean_is(x.square(), truth[2:4] + 0.09)


def weighed_predictions_agree() -> None:
    """The weights of a guide's draws have the evidence for their mean."""
    weighed = WeighedPredictive(unobserved_model, guide=wide_guide, num_samples=3000, parallel=True)
    log_weights = weighed(model_guide=coordinates_model).log_weights
    evidence_is(log_weights, POSTERIORS["coordinates"].log_evidence)


def condition_and_do_agree() -> None:
    """Conditioning scores z by the density of the book; intervening leaves only the likelihood."""
    z = POINTS[0]
    likelihood = dist.Normal(textbook.log(z, 2**0.5), 0.3).log_prob(SEEN_COORDINATES).sum()
    conditioned = poutine.trace(pyro.condition(coordinates_model, {"z": z})).get_trace()
    assert torch.allclose(conditioned.log_prob_sum(), likelihood + book_density((0.5, 0.3), PRIOR_SCALE, z), atol=1e-9)
    done = poutine.trace(poutine.block(pyro.do(coordinates_model, {"z": z}), hide=["z"])).get_trace()
    assert torch.allclose(done.log_prob_sum(), likelihood, atol=1e-9)
    free = poutine.trace(poutine.uncondition(pyro.condition(coordinates_model, {"z": z}))).get_trace()
    assert not torch.equal(free.nodes["z"]["value"], z)
    with pytest.raises(ValueError, match=r"not on Lorentz\(k=2\).*exp0"):
        poutine.trace(pyro.condition(coordinates_model, {"z": z + 0.01})).get_trace().log_prob_sum()


def masks_agree() -> None:
    """Of three copies two are kept: twice the evidence, whatever the third one's value is."""
    keep = torch.tensor([True, False, True])

    def by_handler(model: Model) -> Model:
        def masked() -> None:
            with pyro.plate("copies", 3), poutine.mask(mask=keep):
                model()

        return masked

    weights = importance_weights(by_handler(coordinates_model), by_handler(wide_guide))
    evidence_is(weights, 2 * POSTERIORS["coordinates"].log_evidence)
    density = book_density((0.5, 0.3), PRIOR_SCALE, POINTS)
    masked = hdist.WrappedNormal(PRIOR_LOC, PRIOR_SCALE, M).expand([3]).mask(keep)
    assert torch.allclose(masked.log_prob(POINTS), density * keep, atol=1e-9)


SEEN = torch.tensor([True, False, True])


def imputing_model(downstream: bool = True) -> None:
    """Three points, one of which is missing; each also has noisy coordinates."""
    with pyro.plate("points", 3):
        z = pyro.sample("z", hdist.WrappedNormal(PRIOR_LOC, PRIOR_SCALE, M), obs=POINTS, obs_mask=SEEN)
        if downstream:
            pyro.sample("x", dist.Normal(G.log0(M, z), 0.3).to_event(1), obs=SEEN_COORDINATES)


def imputing_truth() -> float:
    """The evidence: densities of what was seen by the book, and the evidence of one posterior for the missing point."""
    seen = book_density((0.5, 0.3), PRIOR_SCALE, POINTS[SEEN]).sum()
    likelihood = dist.Normal(textbook.log(POINTS[SEEN], 2**0.5), 0.3).log_prob(SEEN_COORDINATES).sum()
    return float(seen + likelihood) + POSTERIORS["coordinates"].log_evidence


def obs_mask_agrees() -> None:
    """Missing points are imputed from their law, the others are as they are; the evidence is right."""

    def guide() -> None:
        with pyro.plate("points", 3), poutine.mask(mask=~SEEN):
            pyro.sample("z_unobserved", hdist.WrappedNormal(point(2.0, 1.0, -0.5), torch.tensor([0.45, 0.5]), M))

    evidence_is(importance_weights(imputing_model, guide), imputing_truth())
    draws = torch.stack([poutine.trace(imputing_model).get_trace(False).nodes["z"]["value"] for _ in range(200)])
    assert torch.equal(draws[:, SEEN], POINTS[SEEN].expand(200, 2, 3))
    v = textbook.Wrapped(2.0, (0.5, 0.3), (0.8, 1.1)).tangent(draws[:, 1]).detach()
    mean_is(torch.cat([v, v.square()], -1), torch.cat([torch.zeros(2), PRIOR_SCALE.square()]))


def obs_mask_by_messengers() -> None:
    """Guides that run the model see its mask."""
    for make in (AutoNormalMessenger, ph.infer.AutoWrappedNormal):
        pyro.clear_param_store()
        guide = fitted(imputing_model, make(imputing_model))
        evidence_is(importance_weights(imputing_model, guide), imputing_truth())


def obs_mask_by_other_guides() -> None:
    """They score what they draw for points that were seen, and the model does not: an ELBO far above the evidence."""

    def normals() -> None:
        with pyro.plate("points", 3):
            pyro.sample("z", dist.Normal(0.0, 1.0), obs=torch.zeros(3), obs_mask=SEEN)

    for model, truth in ((imputing_model, imputing_truth()), (normals, -math.log(2 * math.pi))):
        pyro.clear_param_store()
        guide = fitted(model, AG.AutoNormal(model), 300, 0.05, particles=1)
        assert -Trace_ELBO(num_particles=50).loss(model, guide) > truth + 2


def subsampling_is_unbiased() -> None:
    """Over all pairs of four data, the scaled log-likelihood averages to the whole; random pairs do so in the mean."""
    data = torch.cat([POINTS, FAR_LOC.unsqueeze(0)])

    def model(subsample: Tensor | None = None, size: int | None = None) -> None:
        z = pyro.sample("z", hdist.WrappedNormal(PRIOR_LOC, PRIOR_SCALE, M))
        with pyro.plate("data", 4, subsample_size=size, subsample=subsample) as chosen:
            pyro.sample("x", hdist.WrappedNormal(z, PRIOR_SCALE, M), obs=data[chosen])

    fixed = pyro.condition(model, {"z": PRIOR_LOC})
    truth = book_density((0.5, 0.3), PRIOR_SCALE, torch.cat([data, PRIOR_LOC.unsqueeze(0)])).sum()
    pairs = [torch.tensor(pair) for pair in itertools.combinations(range(4), 2)]
    scores = torch.stack([poutine.trace(fixed).get_trace(subsample=pair).log_prob_sum() for pair in pairs])
    assert torch.allclose(scores.mean(), truth, atol=1e-9)
    assert scores.std() > 0.1
    losses = torch.tensor([Trace_ELBO().loss(fixed, lambda **_: None, size=2) for _ in range(400)])
    mean_is(losses, -truth)


def small_handlers_agree() -> None:
    """Each handler's score from densities of the book."""
    density = book_density((0.5, 0.3), PRIOR_SCALE, POINTS)

    def model() -> None:
        with pyro.plate("points", 3):
            pyro.sample("z", hdist.WrappedNormal(PRIOR_LOC, PRIOR_SCALE, M))

    def score(model: Model) -> Tensor:
        return poutine.trace(pyro.condition(model, {"z": POINTS})).get_trace().log_prob_sum()

    assert torch.allclose(score(poutine.scale(model, 0.25)), density.sum() / 4, atol=1e-9)
    whole = partial(pyro.sample, "z", hdist.WrappedNormal(PRIOR_LOC, PRIOR_SCALE, M).expand([3]).to_event(1))
    trace = poutine.trace(pyro.condition(whole, {"z": POINTS})).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["z"]["log_prob"].shape == ()
    assert torch.allclose(trace.log_prob_sum(), density.sum(), atol=1e-9)
    drawn = poutine.trace(model).get_trace()
    again = poutine.trace(poutine.replay(model, drawn)).get_trace()
    assert torch.equal(again.nodes["z"]["value"], drawn.nodes["z"]["value"])
    assert torch.allclose(
        again.log_prob_sum(), book_density((0.5, 0.3), PRIOR_SCALE, drawn.nodes["z"]["value"]).sum(), atol=1e-9
    )
    assert "z" not in poutine.trace(poutine.block(model, hide=["z"])).get_trace().nodes


def lifting_agrees() -> None:
    """A location that was a parameter becomes a latent with a prior: its posterior is sampled, its evidence found."""

    def model() -> None:
        z = pyro.param("z", point(2.0, 1.0, 1.0), constraint=on_manifold(M))
        pyro.sample("x", dist.Normal(G.distance(M, z, BEACON), 0.8), obs=torch.tensor(3.0))

    prior = hdist.WrappedNormal(FAR_LOC, PRIOR_SCALE, M)
    lifted = poutine.lift(model, prior={"z": prior})
    guide = partial(pyro.sample, "z", hdist.WrappedNormal(FAR_LOC, 1.2 * PRIOR_SCALE, M))
    weights = [Trace_ELBO().loss(lifted, guide) for _ in range(400)]
    evidence_is(-torch.tensor(weights), FAR.log_evidence)


def equalizing_agrees() -> None:
    """Two sites forced to one value, both densities kept: the posterior of one given the other's density."""

    def two() -> None:
        pyro.sample("z", hdist.WrappedNormal(PRIOR_LOC, PRIOR_SCALE, M))
        pyro.sample("w", hdist.WrappedNormal(FAR_LOC, PRIOR_SCALE, M))

    def density_of_both() -> None:
        z = pyro.sample("z", hdist.WrappedNormal(PRIOR_LOC, PRIOR_SCALE, M))
        pyro.factor("w", textbook.Wrapped(2.0, (2.5, 1.5), (0.8, 1.1)).log_prob(z).detach())

    equal = poutine.equalize(two, ["z", "w"], keep_dist=True)
    centre = point(2.0, 1.4, 0.9)
    guide = partial(pyro.sample, "z", hdist.WrappedNormal(centre, torch.tensor([0.7, 0.8]), M))
    weights = -torch.tensor([Trace_ELBO().loss(equal, guide) for _ in range(400)])
    evidence_is(weights, Posterior(density_of_both).log_evidence)


def parameter_finds_the_optimum() -> None:
    """The maximum-likelihood location, a Frechet mean of sorts, as geoopt's descent with geoopt's distance has it."""
    data, s = torch.cat([POINTS, FAR_LOC.unsqueeze(0)]), 0.8

    def model() -> None:
        loc = pyro.param("loc", lambda: point(2.0, -1.0, -1.0), constraint=on_manifold(M))
        with pyro.plate("data", 4):
            pyro.sample("x", hdist.WrappedNormal(loc, s, M), obs=data)

    svi = SVI(model, lambda: None, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(200):
        svi.step()
    own = geoopt.ManifoldParameter(point(2.0, 0.1, 0.1), manifold=M)
    optimiser = geoopt.optim.RiemannianAdam([own], lr=0.05)
    for _ in range(250):
        optimiser.zero_grad()
        d = M.dist(own, data)
        (d.square() / (2 * s**2) + (d / 2**0.5).sinh().div(d).log()).sum().backward()
        optimiser.step()
    assert M.dist(pyro.param("loc"), own) < 1e-3


def batched_manifolds_agree() -> None:
    """A plate of planes of k = 0.5, 2, 8, each the same model in other units of length: evidence by quadrature."""
    k = torch.tensor([0.5, 2.0, 8.0])
    unit = (k / 2).sqrt().unsqueeze(-1)
    manifold = geoopt.Lorentz(k)

    def model() -> None:
        with pyro.plate("planes", 3):
            z = pyro.sample("z", hdist.WrappedNormal(unit * PRIOR_LOC, unit * PRIOR_SCALE, manifold))
            pyro.sample("x", dist.Normal(G.log0(manifold, z), 0.3 * unit).to_event(1), obs=unit * SEEN_COORDINATES)

    guide = fitted(model, AG.AutoNormal(model, init_scale=0.2))
    truth = 3 * POSTERIORS["coordinates"].log_evidence - float((k / 2).log().sum())
    evidence_is(importance_weights(model, guide), truth)


class Located(PyroModule):
    """A module with a latent location."""

    def __init__(self) -> None:
        super().__init__()
        self.z = PyroSample(hdist.WrappedNormal(PRIOR_LOC, PRIOR_SCALE, M))

    def forward(self) -> None:
        pyro.sample("x", dist.Normal(G.log0(M, self.z), 0.3).to_event(1), obs=SEEN_COORDINATES)


def pyro_sample_agrees() -> None:
    """A wrapped normal as the prior of a module's attribute."""
    weights = importance_weights(Located(), wide_guide)
    evidence_is(weights, POSTERIORS["coordinates"].log_evidence)


def discrete_posterior_agrees() -> None:
    """The component of a mixture given its point, by Bayes' rule."""
    mixing, locs = torch.tensor([0.5, 0.3, 0.2]), ((1.0, 0.2), (-0.5, 0.4), (0.3, -1.0))
    number, x = 1500, point(2.0, 0.3, 0.1)

    def model() -> Tensor:
        with pyro.plate("draws", number):
            c = pyro.sample("c", dist.Categorical(mixing), infer={"enumerate": "parallel"})
            pyro.sample("x", hdist.WrappedNormal(POINTS[c], PRIOR_SCALE, M), obs=x)
        return c

    truth = (mixing.log() + torch.stack([book_density(loc, PRIOR_SCALE, x) for loc in locs])).softmax(0)
    drawn = infer_discrete(model, first_available_dim=-2, temperature=1)()
    mean_is(torch.nn.functional.one_hot(drawn, 3).double(), truth)
    assert (infer_discrete(model, first_available_dim=-2, temperature=0)() == truth.argmax()).all()


def param_store_comes_back() -> None:
    """Values and constraints, through a file; a parameter that is loaded still moves along the manifold."""
    kept = point(2.0, 1.0, 0.2)
    pyro.param("loc", kept.clone(), constraint=on_manifold(M))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "params"
        pyro.get_param_store().save(str(file))
        pyro.clear_param_store()
        pyro.get_param_store().load(str(file))
    assert torch.allclose(pyro.param("loc"), kept, atol=1e-12)
    model = lambda: pyro.sample("x", hdist.WrappedNormal(pyro.param("loc"), 0.8, M), obs=FAR_LOC)  # noqa: E731
    svi = SVI(model, lambda: None, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(200):
        svi.step()
    assert on_manifold(M).check(pyro.param("loc").detach())
    assert M.dist(pyro.param("loc"), FAR_LOC) < 1e-3


def guides_come_back() -> None:
    """A whole guide, and its state_dict in a new one: the same evidence, draw by draw."""
    guide = fitted(coordinates_model, AG.AutoMultivariateNormal(coordinates_model), 60)
    buffer = io.BytesIO()
    torch.save(guide, buffer)
    buffer.seek(0)
    with pytest.raises(Exception, match="weights_only"):
        torch.load(buffer)
    buffer.seek(0)
    whole = torch.load(buffer, weights_only=False)
    state = guide.state_dict()
    pyro.clear_param_store()
    other = AG.AutoMultivariateNormal(coordinates_model)
    other()
    other.load_state_dict(state)
    runs = []
    for each in (guide, whole, other):
        pyro.set_rng_seed(5)
        runs.append(importance_weights(coordinates_model, each))
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2])
    evidence_is(runs[0], POSTERIORS["coordinates"].log_evidence)


def seeds_fix_everything() -> None:
    """Two runs of SVI and of NUTS from one seed are the same to the last bit; another seed is not."""

    def run(seed: int) -> Tensor:
        pyro.clear_param_store()
        pyro.set_rng_seed(seed)
        guide = fitted(coordinates_model, AG.AutoNormal(coordinates_model), 5)
        return torch.cat([guide()["z"].detach(), chain(NUTS(coordinates_model), 3, 3)["z"].flatten()])

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


# What Pyro gets wrong


class Curved(PyroModule):
    """A plane of latent curvature: a point seen from the origin, and its distance from a beacon."""

    beacon = torch.tensor([2.5, 0.0], dtype=torch.float64)
    seen_place = torch.tensor([0.4, 2.0], dtype=torch.float64)
    seen_distance = torch.tensor(3.6, dtype=torch.float64)

    def __init__(self, k: Tensor | None = None) -> None:
        super().__init__()
        if k is None:
            self.manifold = ph.manifolds.Lorentz()
            self.manifold.k = PyroSample(dist.LogNormal(torch.tensor(0.0, dtype=torch.float64), 0.7))
        else:
            self.manifold = ph.manifolds.Lorentz(k, learnable=True)

    def forward(self) -> None:
        manifold = self.manifold
        z = pyro.sample("z", hdist.WrappedNormal(G.origin(manifold, 2), 1.5, manifold))
        apart = G.distance(manifold, z, G.exp0(manifold, self.beacon))
        pyro.sample("place", dist.Normal(G.log0(manifold, z), 0.2).to_event(1), obs=self.seen_place)
        pyro.sample("distance", dist.Normal(apart, 0.3), obs=self.seen_distance)


def curved_log_joint(log_k: Tensor) -> tuple[Tensor, Tensor]:
    """Log joint densities of the data with v = log0(z) on a grid, by the law of cosines, given log k; and the grid."""
    side = torch.linspace(-1.0, 1.0, 121) * 1.5
    v = torch.cartesian_prod(side, side) + Curved.seen_place
    radius = log_k.exp().sqrt().unsqueeze(-1)
    a, b = v.norm(dim=-1), Curved.beacon.norm()
    cosine = (v @ Curved.beacon) / (a * b)
    a, b = a / radius, b / radius
    apart = radius * (a.cosh() * b.cosh() - a.sinh() * b.sinh() * cosine).clamp_min(1.0).acosh()
    log_joint = dist.Normal(0.0, 1.5).log_prob(v).sum(-1) + dist.Normal(v, 0.2).log_prob(Curved.seen_place).sum(-1)
    return log_joint + dist.Normal(apart, 0.3).log_prob(Curved.seen_distance) + 2 * (side[1] - side[0]).log(), v


def curved_truth() -> tuple[float, Tensor]:
    """Evidence, and posterior means of log k and its square, of a latent curvature."""
    log_k = torch.linspace(-4.0, 4.0, 161)
    log_weight = curved_log_joint(log_k)[0].logsumexp(-1) + dist.Normal(0.0, 0.7).log_prob(log_k) + math.log(0.05)
    weight = log_weight.softmax(0)
    return float(log_weight.logsumexp(0)), torch.stack([(weight * log_k).sum(), (weight * log_k**2).sum()])


MOVED = r"TransformReparam|is not on Lorentz\(k="


def latent_curvature_is_refused(run: Callable[[Model], object]) -> None:
    with pytest.raises((ValueError, UserWarning), match=MOVED):
        run(Curved())


def svi_steps(make: Callable[[Model], Model], model: Model) -> None:
    svi = SVI(model, make(model), pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    for _ in range(5):
        svi.step()


def svgd_steps(model: Model) -> None:
    svgd = SVGD(model, RBFSteinKernel(), pyro.optim.Adam({"lr": 0.02}), num_particles=8, max_plate_nesting=0)
    for _ in range(3):
        svgd.step()


def latent_curvature_by_nuts() -> None:
    """TransformReparam: the posterior of k from one chain."""
    model = poutine.reparam(Curved(), {"z": TransformReparam()})
    log_k = chain(NUTS(model, init_strategy=init.init_to_median, **jit), 200, 80)["manifold.k"].log()
    one_chain_is(torch.stack([log_k, log_k**2], -1), curved_truth()[1])


def latent_curvature_by_guides(make: Callable[[Model], Model], reparametrised: bool) -> None:
    model = poutine.reparam(Curved(), {"z": TransformReparam()}) if reparametrised else Curved()
    guide = fitted(model, make(model), 300)
    evidence_is(importance_weights(model, guide, 5000), curved_truth()[0])


def learned_curvature_agrees(make: Callable[[Model], Model]) -> None:
    """After k has moved, the guide's importance-weighted evidence is that of the new k, which is near its optimum."""
    model = Curved(torch.tensor(8.0, dtype=torch.float64))
    guide = fitted(model, make(model), 400)
    log_k = model.manifold.k.detach().log()
    assert (log_k - math.log(8.0)).abs() > 0.5
    grid = torch.linspace(-4.0, 4.0, 161)
    evidences = curved_log_joint(grid)[0].logsumexp(-1)
    truth = float(curved_log_joint(log_k.unsqueeze(0))[0].logsumexp(-1))
    evidence_is(importance_weights(model, guide), truth)
    assert evidences.max() - truth < 0.1


class OwnLocation(PyroModule):
    """A module whose location is a geoopt parameter, which only a Riemannian optimiser keeps on the manifold."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = geoopt.ManifoldParameter(point(2.0, -1.0, -1.0), manifold=M)

    def forward(self) -> None:
        pyro.sample("x", hdist.WrappedNormal(self.loc, PRIOR_SCALE, M), obs=FAR_LOC)


def adam_off_the_manifold_is_refused() -> None:
    for optimiser in (pyro.optim.Adam, pyro.optim.ClippedAdam, pyro.optim.SGD):
        pyro.clear_param_store()
        svi = SVI(OwnLocation(), lambda: None, optimiser({"lr": 0.05}), Trace_ELBO())
        svi.step()
        with pytest.raises(ValueError, match=r"loc is not on Lorentz\(k=2\)") as error:
            svi.step()
        assert "RiemannianAdam" in str(error.value)
        assert "on_manifold" in str(error.value)


def riemannian_adam_agrees() -> None:
    """It finds the one observation, which is the mode."""
    model = OwnLocation()
    svi = SVI(model, lambda: None, pyro.optim.PyroOptim(geoopt.optim.RiemannianAdam, {"lr": 0.1}), Trace_ELBO())
    for _ in range(200):
        svi.step()
    assert M.dist(model.loc, FAR_LOC) < 1e-3


def nothing_is_aliased() -> None:
    """Optimisers edit parameters in place; neither the prior's location nor an initial value is one of them."""
    flat = geoopt.Euclidean(1)
    for manifold, loc, start in ((M, PRIOR_LOC, POINTS[0]), (flat, torch.ones(2), torch.zeros(2))):
        prior, loc_before, start_before = hdist.WrappedNormal(loc, 1.0, manifold), loc.clone(), start.clone()
        model = partial(pyro.sample, "z", prior)
        for strategy in (init.init_to_mean, init.init_to_value(values={"z": start})):
            pyro.clear_param_store()
            guide = AG.AutoDelta(model, init_loc_fn=strategy)
            guide()
            for parameter in guide.parameters():
                parameter.data.add_(1.0)
            assert G.distance(manifold, guide.median()["z"], start if strategy is not init.init_to_mean else loc) > 0.5
        pyro.param("loc", start, constraint=on_manifold(manifold))
        pyro.param("loc").unconstrained().data.add_(1.0)
        assert G.distance(manifold, pyro.param("loc"), start) > 0.5
        assert torch.equal(loc, loc_before)
        assert torch.equal(start, start_before)


def strategies_start_on_the_manifold() -> None:
    """Each gives a point of the manifold: the mean, the value and the origin that it promises, draws of the prior."""
    origin, far = G.origin(M, 2), POINTS[1]
    strategies = {
        init.init_to_mean: FAR_LOC,
        init.init_to_feasible: origin,
        init.init_to_median: origin,  # Pyro: no median of several coordinates, so a feasible point
        init.init_to_value(values={"z": far}): far,
        init.init_to_generated(generate=lambda: init.init_to_value(values={"z": far})): far,
        init.init_to_sample: None,
        init.init_to_uniform(radius=4.0): None,
    }
    site = {"name": "z", "fn": hdist.WrappedNormal(FAR_LOC, PRIOR_SCALE, M).expand([50]), "is_observed": False}
    for strategy, expected in strategies.items():
        z = strategy(site)
        assert on_manifold(M).check(z).all()
        if expected is not None:
            assert torch.allclose(z, expected.expand_as(z), atol=1e-9)
    mean_is(textbook.Wrapped(2.0, (2.5, 1.5), (0.8, 1.1)).tangent(init.init_to_sample(site)).detach(), 0.0)
    square = textbook.log(init.init_to_uniform(dict(site), radius=4.0), 2**0.5)
    assert square.abs().max() < 4.0
    mean_is(square.square(), 16 / 3)


BY_QUADRATURE = "moments by quadrature"
EVIDENCE = "evidence by quadrature"
BY_COSINES = "evidence by the law of cosines"
NO_MULTIPLES = "A point cannot be scaled: use `TransformReparam`."
FROZEN_NOTE = "It would freeze one `k`: use `TransformReparam`, `AutoNormalMessenger` or `AutoWrappedNormal`."
#: What keeps the support of its first run.
FROZEN: dict[str, Callable[[Model], object]] = {
    **{
        f"`{guide.__name__}`": partial(svi_steps, guide)
        for guide in (
            *(AG.AutoNormal, AG.AutoDiagonalNormal, AG.AutoMultivariateNormal, AG.AutoLowRankMultivariateNormal),
            *(AG.AutoIAFNormal, AG.AutoDelta, AG.AutoLaplaceApproximation, AG.AutoStructured, AG.AutoGaussian),
        )
    },
    **{name: lambda model, kernel=kernel: chain(kernel(model), 5, 5) for name, kernel in KERNELS.items()},
    "`SVGD`": svgd_steps,
}
IMPUTED = "they draw and score the observed points as well: use `AutoNormalMessenger` or `AutoWrappedNormal`"
SUMMED = {"components": POSTERIORS["components"]}


def rows(section: str, *cells: tuple[object, ...]) -> list[Cell]:
    return [Cell(section, *cell) for cell in cells]


CELLS: list[Cell] = [
    *rows(
        "Samplers",
        *[(name, "works", BY_QUADRATURE, partial(one_chain_agrees, kernel)) for name, kernel in KERNELS.items()],
        *[
            (
                f"{name} on a plate",
                "works",
                f"{BY_QUADRATURE}, four models",
                partial(copies_agree, kernel),
                "",
                not fast,
            )
            for name, kernel in KERNELS.items()
            for fast in ["jit" in name]
        ],
        *[
            (f"{name}, a hierarchy on H^3", "works", "calibration of ranks", partial(calibrated, kernel), "", not fast)
            for name, kernel in KERNELS.items()
            for fast in ["jit" in name]
        ],
        (
            "`NUTS`, a discrete latent summed out",
            "works",
            BY_QUADRATURE,
            partial(copies_agree, partial(NUTS, max_plate_nesting=1, **jit), SUMMED),
            "",
            True,
        ),
        ("`MCMC(num_chains=2)`", "works", BY_QUADRATURE, chains_in_processes),
        ("`StreamingMCMC`", "works", "ambient mean by quadrature", streaming_agrees),
        ("`RandomWalkKernel`", "works", BY_QUADRATURE, partial(one_chain_agrees, RandomWalkKernel, 1500, 500)),
        *[
            (f"`SVGD`, `{kernel.__name__}`", "works", BY_QUADRATURE, partial(svgd_agrees, kernel))
            for kernel in (RBFSteinKernel, IMQSteinKernel)
        ],
        ("`Importance`, `EmpiricalMarginal`", "works", f"evidence and {BY_QUADRATURE}", importance_agrees),
        ("`psis_diagnostic`", "works", "the exact tail index of a narrow guide", psis_knows_the_tail),
        ("`SMCFilter`", "works", "the forward algorithm on a grid", filter_agrees),
    ),
    *rows(
        "Reparametrisation",
        *[
            (name, "works", BY_QUADRATURE, partial(with_reparam_agree, make, {site}), note)
            for name, make, site, note in (
                ("`TransformReparam`", lambda: {"z": TransformReparam()}, "z_base", ""),
                (
                    "`AutoReparam(centered=0.0)`",
                    lambda: AutoReparam(centered=0.0),
                    "z_base_decentered",
                    "It applies `TransformReparam`, then `LocScaleReparam` on the normal base.",
                ),
                ("`MinimalReparam`", MinimalReparam, "z", "It leaves the sites unchanged."),
            )
        ],
        (
            "`TransformReparam`, density",
            "works",
            "change of variables by the book",
            transform_reparam_moves_the_density,
        ),
        *[
            (f"`NeuTraReparam({make.__name__})`", "works", BY_QUADRATURE, partial(neutra_agrees, make))
            for make in (AG.AutoMultivariateNormal, AG.AutoIAFNormal)
        ],
        *[
            (name, "refused", "the message", partial(loc_scale_is_refused, *arguments), NO_MULTIPLES)
            for name, arguments in {
                "`LocScaleReparam(0.5)`": (("plane", "line", "batch"), (0.0, 0.5), False),
                "`LocScaleReparam()`, learned": (tuple(PRIORS), (None,), False),
                "`LocScaleReparam` of other families": (("flat", "full"), (0.5,), False),
                "`LocScaleReparam` in `NUTS`": (tuple(PRIORS), (None, 0.0, 0.5), True),
            }.items()
        ],
    ),
    *rows(
        "Effects and parameters",
        ("`Predictive`, prior", "works", "moments of the prior", prior_draws_agree),
        ("`Predictive`, posterior", "works", BY_QUADRATURE, posterior_predictions_agree),
        ("`WeighedPredictive`", "works", EVIDENCE, weighed_predictions_agree),
        ("`condition`, `uncondition`, `do`", "works", "densities by the book", condition_and_do_agree),
        ("`poutine.mask`, `.mask()`", "works", EVIDENCE, masks_agree),
        ("`obs_mask`", "works", f"{EVIDENCE}, law of the imputed", obs_mask_agrees, "mask the guide's site too"),
        ("`obs_mask`, `AutoNormalMessenger`, `AutoWrappedNormal`", "works", EVIDENCE, obs_mask_by_messengers),
        ("subsampled plates", "works", "all subsamples average to the whole", subsampling_is_unbiased),
        ("`scale`, `to_event`, `replay`, `block`", "works", "densities by the book", small_handlers_agree),
        ("`poutine.lift`", "works", EVIDENCE, lifting_agrees),
        ("`poutine.equalize`", "works", EVIDENCE, equalizing_agrees),
        ("`pyro.param(constraint=on_manifold(M))`", "works", "geoopt's own optimum", parameter_finds_the_optimum),
        ("a plate of manifolds", "works", f"{EVIDENCE}, rescaled", batched_manifolds_agree),
        ("`PyroSample`", "works", EVIDENCE, pyro_sample_agrees),
        ("`infer_discrete`", "works", "Bayes' rule by the book", discrete_posterior_agrees),
        ("`ParamStore.save`, `.load`", "works", "values, constraints, later steps", param_store_comes_back),
        (
            "`torch.save` of a guide, `state_dict`",
            "works",
            "the same draws, and the evidence",
            guides_come_back,
            "whole objects need `torch.load(weights_only=False)`",
        ),
        ("`pyro.set_rng_seed`", "works", "equal to the last bit", seeds_fix_everything),
    ),
    *rows(
        "What Pyro gets wrong",
        *[
            (f"{name}, `k` latent", "refused", "the message", partial(latent_curvature_is_refused, run), FROZEN_NOTE)
            for name, run in FROZEN.items()
        ],
        (
            "`NUTS` with `TransformReparam`, `k` latent",
            "works",
            "moments by the law of cosines",
            latent_curvature_by_nuts,
        ),
        *[
            (f"{name}, `k` latent", "works", BY_COSINES, partial(latent_curvature_by_guides, make, reparametrised))
            for name, make, reparametrised in (
                ("`AutoMultivariateNormal` with `TransformReparam`", AG.AutoMultivariateNormal, True),
                ("`AutoNormalMessenger`", AutoNormalMessenger, False),
            )
        ],
        *[
            (f"`{make.__name__}`, `k` learned", "works", BY_COSINES, partial(learned_curvature_agrees, make), "", slow)
            for make, slow in (
                (AG.AutoNormal, False),
                (AG.AutoMultivariateNormal, False),
                (AG.AutoIAFNormal, False),
                (AG.AutoStructured, True),
                (AG.AutoGaussian, True),
            )
        ],
        (
            "`geoopt.ManifoldParameter` and `Adam`",
            "refused",
            "the message",
            adam_off_the_manifold_is_refused,
            "use `pyro.param(constraint=on_manifold(M))`, or the optimiser below",
        ),
        ("`PyroOptim(geoopt.optim.RiemannianAdam)`", "works", "the known optimum", riemannian_adam_agrees),
        ("`obs_mask`, other autoguides", "not in Pyro", "an ELBO too high", obs_mask_by_other_guides, IMPUTED),
        ("optimisers that edit in place", "works", "nothing moves", nothing_is_aliased),
        (
            "`init_to_*`",
            "works",
            "the points that they promise",
            strategies_start_on_the_manifold,
            "`init_to_median` is `init_to_feasible`: Pyro has no median of several coordinates",
        ),
    ),
]
