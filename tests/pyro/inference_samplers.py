"""Samplers and reparametrisations in the inference matrix.

Most samplers run on a plate of copies of one posterior. The copies are independent, so means over a short chain scatter
about the truth by an error that is seen across copies, whatever the autocorrelation; one copy would need a long chain.
"""

import itertools
import math
from collections.abc import Callable
from functools import partial

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import infer, poutine
from pyro.infer import HMC, MCMC, NUTS
from pyro.infer import autoguide as AG
from pyro.infer.importance import psis_diagnostic
from pyro.infer.mcmc import StreamingMCMC
from pyro.infer.reparam import AutoReparam, LocScaleReparam, MinimalReparam, NeuTraReparam, TransformReparam
from torch import Tensor

import pyro_hyperbolic.distributions as hdist
from tests import textbook
from tests.cases import point
from tests.pyro.inference_cell import Section
from tests.pyro.inference_checks import book_density, chain, copies, fitted, mean_is, near, one_chain_is, posterior_is
from tests.pyro.inference_truth import (
    BEACON,
    FAR_LOC,
    POINTS,
    POSTERIORS,
    PRIOR_LOC,
    PRIOR_SCALE,
    G,
    M,
    Model,
    Posterior,
    coordinates_model,
    far_model,
    log_joint,
    moments,
    wide_guide,
    wrapped_prior,
)

on_manifold = hdist.constraints.on_manifold
SAMPLERS = Section("Samplers")
REPARAMETRISATION = Section("Reparametrisation")
BY_QUADRATURE = "moments by quadrature"

Kernel = Callable[..., object]
JIT = {"jit_compile": True, "ignore_jit_warnings": True}
KERNELS: dict[str, Kernel] = {
    "`NUTS`": NUTS,
    "`NUTS(jit_compile=True)`": partial(NUTS, **JIT),
    "`HMC`": partial(HMC, trajectory_length=1.5),
    "`HMC(jit_compile=True)`": partial(HMC, trajectory_length=1.5, **JIT),
}


def one_chain(kernel: Kernel, draws: int, warmup: int) -> None:
    """As users run it: the standard error is from the effective sample size."""
    found = moments(**chain(kernel(coordinates_model), draws, warmup))
    one_chain_is(found, POSTERIORS["coordinates"].mean(moments))


def on_a_plate(kernel: Kernel, *names: str) -> None:
    for name in names:
        samples = chain(kernel(copies(POSTERIORS[name].model)))
        mean_is(moments(**samples).mean(0), POSTERIORS[name].mean(moments))


def averages_to_the_prior(kernel: Kernel, number: int = 1000) -> None:
    """Simulation-based calibration: posterior draws, averaged over data sets of the prior, are draws of the prior.

    One chain over a plate of data sets starts from the truths, which are draws of their posteriors, and stays there.
    """
    scale = torch.tensor([1.5, 2.0, 1.7])

    def model(x: Tensor | None = None) -> Tensor:
        with pyro.plate("data sets", number):
            s = pyro.sample("s", dist.LogNormal(-0.3, 0.4))
            z = pyro.sample("z", hdist.WrappedNormal(point(2.0, 1.6, -1.0, 0.8), s.unsqueeze(-1) * scale, M))
            return pyro.sample("x", dist.Normal(G.log0(M, z), 1.2).to_event(1), obs=x)

    trace = poutine.trace(model).get_trace()
    start = AG.init_to_value(values={name: trace.nodes[name]["value"] for name in ("z", "s")})
    samples = chain(kernel(model, init_strategy=start), 10, 15, trace.nodes["x"]["value"])
    s = samples["s"].unsqueeze(-1)
    v = textbook.Wrapped(2.0, (1.6, -1.0, 0.8)).tangent(samples["z"]).detach()
    noise = torch.cat([v / (s * scale), (s.log() + 0.3) / 0.4], -1)
    mean_is(noise.mean(0), 0.0)
    mean_is(noise.square().mean(0), 1.0)


for name, kernel in KERNELS.items():
    sizes = (80, 40) if "NUTS" in name else (120, 50)
    SAMPLERS.add(name, BY_QUADRATURE, one_chain, kernel, *sizes, slow=name == "`HMC`")
for name, kernel in KERNELS.items():
    jit = "jit" in name
    names = ("far",) if jit else ("scale", "far", "coordinates", "distance")
    truth = BY_QUADRATURE if jit else f"{BY_QUADRATURE}, four models"
    SAMPLERS.add(f"{name} on a plate", truth, on_a_plate, kernel, *names, slow=name != "`NUTS(jit_compile=True)`")
for name, kernel in KERNELS.items():
    truth = "calibration: posteriors average to the prior"
    SAMPLERS.add(f"{name}, a hierarchy on H^3", truth, averages_to_the_prior, kernel, slow=True)
enumerating = partial(NUTS, max_plate_nesting=1, **JIT)
SAMPLERS.add("`NUTS`, a discrete latent summed out", BY_QUADRATURE, on_a_plate, enumerating, "components", slow=True)


@SAMPLERS.cell("`MCMC(num_chains=2)`", BY_QUADRATURE)
def in_processes() -> None:
    """Two processes, and a model that is a closure; also on a machine where Pyro would count too few cores."""
    options = {"num_samples": 8, "warmup_steps": 12, "num_chains": 2, "disable_progbar": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.multiprocessing, "cpu_count", lambda: 3)
        mcmc = MCMC(NUTS(copies(coordinates_model, 100)), **options)
        mcmc.run()
    z = mcmc.get_samples(group_by_chain=True)["z"]
    assert not torch.equal(z[0], z[1])
    mean_is(moments(z).mean(1).flatten(0, 1), POSTERIORS["coordinates"].mean(moments))


@SAMPLERS.cell("`StreamingMCMC`", "ambient mean by quadrature")
def streaming() -> None:
    """Running means of points of the ambient space, which are what Pyro streams."""
    means = pyro.ops.streaming.StatsOfDict(default=pyro.ops.streaming.CountMeanStats)
    options = {"num_samples": 12, "warmup_steps": 20, "statistics": means, "disable_progbar": True}
    mcmc = StreamingMCMC(NUTS(copies(coordinates_model), **JIT), **options)
    mcmc.run()
    (found,) = [value["mean"] for (_, name), value in mcmc.get_statistics(group_by_chain=True).items() if name == "z"]
    mean_is(found, POSTERIORS["coordinates"].mean(lambda z: z))


SAMPLERS.add("`RandomWalkKernel`", BY_QUADRATURE, one_chain, infer.RandomWalkKernel, 1000, 300, slow=True)


def stein_particles(model: Model, kernel: object, steps: int) -> Tensor:
    svgd = infer.SVGD(model, kernel, pyro.optim.Adam({"lr": 0.2}), num_particles=60, max_plate_nesting=0)
    for _ in range(steps):
        svgd.step()
    return svgd.get_named_particles()["z"].detach()


def svgd(kernel: Callable[[], object], name: str) -> None:
    """Particles are no sample, so there is no standard error: they are within 0.15 posterior standard deviations."""
    z = stein_particles(POSTERIORS[name].model, kernel(), 120)
    assert on_manifold(M).check(z).all()
    v, truth = G.log0(M, z), POSTERIORS[name].mean(moments)
    spread = (truth[2:4] - truth[:2].square()).sqrt()
    away, ratio = (v.mean(0) - truth[:2]) / spread, v.std(0) / spread
    assert away.abs().max() < 0.15, f"means {away.tolist()} standard deviations away"
    assert (ratio - 1).abs().max() < 0.15, f"standard deviations {ratio.tolist()} times too large"


for stein_kernel, name in {infer.RBFSteinKernel: "far", infer.IMQSteinKernel: "coordinates"}.items():
    SAMPLERS.add(f"`SVGD`, `{stein_kernel.__name__}`", BY_QUADRATURE, svgd, stein_kernel, name)


@SAMPLERS.cell("`Importance`, `EmpiricalMarginal`", f"evidence and {BY_QUADRATURE}")
def importance() -> None:
    posterior = POSTERIORS["coordinates"]
    weighted = infer.Importance(coordinates_model, wide_guide, num_samples=300).run()
    log_weights = torch.stack(weighted.log_weights)
    assert torch.allclose(weighted.get_log_normalizer(), log_weights.logsumexp(0) - math.log(300))
    marginal = infer.EmpiricalMarginal(weighted, sites="z")
    z, weights = marginal.enumerate_support(), log_weights.softmax(0)
    posterior_is(log_weights, z, posterior.log_evidence, posterior.mean(moments))
    assert torch.allclose(marginal.mean, weights @ z)
    mean_is(moments(marginal.sample((500,))), weights @ moments(z))


@SAMPLERS.cell("`psis_diagnostic`", "the exact tail index of a narrow guide")
def tail_index() -> None:
    """Where p is wrapped normal and q is s times narrower, weights on a plane are exactly Pareto with k = 1 - s^2."""
    for ratio in (0.5, 0.7, 0.9):
        p, q = (partial(pyro.sample, "z", hdist.WrappedNormal(FAR_LOC, c * PRIOR_SCALE, M)) for c in (1.0, ratio))
        number, truth = 100_000, 1 - ratio**2
        error = (1 + truth) / (3 * number**0.5) ** 0.5  # of the tail's 3 sqrt(number) weights
        near(torch.as_tensor(psis_diagnostic(p, q, num_particles=number, max_plate_nesting=0)), error, truth)


STEP, SEEN_RANGES = 0.5, torch.tensor([1.3, 1.0, 1.6], dtype=torch.float64)


class Walk:
    """A random walk on H^2, whose distance from a beacon is seen at each step; the guide's steps are longer."""

    def __init__(self, is_model: bool) -> None:
        self.is_model, self.stretch = is_model, 1.0 if is_model else 1.2

    def init(self, state: dict[str, Tensor]) -> None:
        z = pyro.sample("z_0", hdist.WrappedNormal(PRIOR_LOC, self.stretch * PRIOR_SCALE, M))
        if self.is_model:
            state["z"], state["t"] = z, torch.zeros(len(z))

    def step(self, state: dict[str, Tensor]) -> None:
        t = int(state["t"][0])
        z = pyro.sample(f"z_{t + 1}", hdist.WrappedNormal(state["z"], STEP * self.stretch, M))
        if self.is_model:
            pyro.sample(f"x_{t + 1}", dist.Normal(G.distance(M, z, BEACON), 0.3), obs=SEEN_RANGES[t])
            state["z"], state["t"] = z, state["t"] + 1


@SAMPLERS.cell("`SMCFilter`", "the forward algorithm on a grid")
def particle_filter() -> None:
    grid = Posterior(coordinates_model, reach=5.0, number=35)
    z = grid.grid["z"]
    log_filtered = book_density((0.5, 0.3), PRIOR_SCALE, z)
    log_step = hdist.WrappedNormal(z, STEP, M).log_prob(z.unsqueeze(1))
    for seen in SEEN_RANGES:
        log_filtered = (log_step + log_filtered + grid.log_measure).logsumexp(-1)
        log_filtered = log_filtered + dist.Normal(G.distance(M, z, BEACON), 0.3).log_prob(seen)
    found = []
    for _ in range(20):
        smc = infer.SMCFilter(Walk(True), Walk(False), num_particles=1000, max_plate_nesting=0)
        smc.init()
        for _ in SEEN_RANGES:
            smc.step()
        found.append(smc.get_empirical()["z"].mean)
    mean_is(torch.stack(found), (log_filtered + grid.log_measure).softmax(0) @ z)


# Reparametrisation


def reparametrised(config: Callable[[], object], site: str) -> None:
    """NUTS samples the auxiliary site, and the latents that it makes have the moments."""
    model = poutine.reparam(copies(POSTERIORS["scale"].model), config())
    samples = chain(NUTS(model, **JIT))
    assert samples.keys() & {"z", "z_base", "z_base_decentered"} == {site}
    z = infer.Predictive(model, samples, return_sites=["z"])()["z"]
    mean_is(moments(z).mean(0), POSTERIORS["scale"].mean(moments))


reparam = REPARAMETRISATION.add
reparam("`TransformReparam`", BY_QUADRATURE, reparametrised, lambda: {"z": TransformReparam()}, "z_base")
reparam(
    "`AutoReparam(centered=0.0)`",
    BY_QUADRATURE,
    reparametrised,
    partial(AutoReparam, centered=0.0),
    "z_base_decentered",
    slow=True,
)
REPARAMETRISATION.note("It applies `TransformReparam`, then `LocScaleReparam` on the normal base.")
reparam("`MinimalReparam`", BY_QUADRATURE, reparametrised, MinimalReparam, "z", slow=True)
REPARAMETRISATION.note("It leaves the sites unchanged.")


@REPARAMETRISATION.cell("`TransformReparam`, density", "change of variables by the textbook")
def density_of_the_base() -> None:
    v = torch.tensor([1.3, -0.7])
    for model, loc in ((coordinates_model, PRIOR_LOC), (far_model, FAR_LOC)):
        z = textbook.boost(loc, textbook.exp(v, 2**0.5), 2**0.5)
        of_base = log_joint(poutine.reparam(model, {"z": TransformReparam()}), z_base=v)
        assert torch.allclose(of_base, log_joint(model, z=z) + textbook.volume(v, 2**0.5), atol=1e-9)
    # From a value of z, as an init strategy gives it, the base is recovered.
    with poutine.trace() as tracer, poutine.reparam(config={"z": TransformReparam()}):
        pyro.sample("z", hdist.WrappedNormal(FAR_LOC, PRIOR_SCALE, M), obs=z)
    assert torch.allclose(tracer.trace.nodes["z_base"]["value"], v, atol=1e-9)


def neutra(make: Callable[[Model], Model], sampled: bool) -> None:
    """The density in a trained guide's coordinates by the change of variables; one chain there, mapped back."""
    guide = fitted(far_model, make(far_model), 100, 0.05)
    reparam = NeuTraReparam(guide)
    model = reparam.reparam(far_model)
    ((site, latent),) = chain(NUTS(model), *((100, 40) if sampled else (3, 3))).items()
    if sampled:
        one_chain_is(moments(reparam.transform_sample(latent)["z"]), POSTERIORS["far"].mean(moments))

    forward = guide.get_transform()
    for w in latent[:3]:
        u = forward(w).detach()
        stretch = torch.autograd.functional.jacobian(forward, w).det().abs().log() + textbook.volume(u, 2**0.5)
        of_z = log_joint(far_model, z=textbook.exp(u, 2**0.5))
        assert torch.allclose(log_joint(model, **{site: w}), of_z + stretch, atol=1e-9)


for make in (AG.AutoMultivariateNormal, AG.AutoIAFNormal):
    reparam(f"`NeuTraReparam({make.__name__})`", BY_QUADRATURE, neutra, make, True, slow=True)
    name, truth = f"`NeuTraReparam({make.__name__})`, density", "change of variables by the textbook"
    reparam(name, truth, neutra, make, False, slow=make is not AG.AutoIAFNormal)

PRIORS = {
    "plane": wrapped_prior,
    "line": lambda: hdist.WrappedNormal(point(2.0, 0.5), torch.tensor([0.8]), M),
    "batch": lambda: hdist.WrappedNormal(POINTS, PRIOR_SCALE, M).to_event(1),
    "flat": lambda: hdist.WrappedNormal(torch.tensor([0.3, 0.2]), PRIOR_SCALE, geoopt.Euclidean(1)),
    "full": lambda: hdist.WrappedMultivariateNormal(PRIOR_LOC, torch.eye(2), manifold=M),
}


def loc_scale_is_refused(names: tuple[str, ...], centerings: tuple[float | None, ...], mcmc: bool = False) -> None:
    """MCMC turns validation off: there nothing would be checked."""
    for name, centered in itertools.product(names, centerings):
        model = poutine.reparam(partial(pyro.sample, "z", PRIORS[name]()), {"z": LocScaleReparam(centered)})
        with pytest.raises((ValueError, NotImplementedError), match="TransformReparam"):
            chain(NUTS(model), 3, 3) if mcmc else model()
    # Fully centered is no reparametrisation, and is let through.
    trace = poutine.trace(poutine.reparam(coordinates_model, {"z": LocScaleReparam(1.0)})).get_trace()
    assert trace.nodes["z"]["fn"].support == on_manifold(M)


for name, arguments in {
    "`LocScaleReparam(0.5)`": (("plane", "line", "batch"), (0.0, 0.5)),
    "`LocScaleReparam()`, learned": (tuple(PRIORS), (None,)),
    "`LocScaleReparam` of other families": (("flat", "full"), (0.5,)),
    "`LocScaleReparam` in `NUTS`": (tuple(PRIORS), (None, 0.0, 0.5), True),
}.items():
    reparam(name, "the message", loc_scale_is_refused, *arguments, status="refused")
    REPARAMETRISATION.note("A point cannot be scaled: use `TransformReparam`.")
