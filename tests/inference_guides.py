"""Guides and ELBOs in the inference matrix: what each gives, against quadrature on H^2."""

import contextlib
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer import (
    SVI,
    EnergyDistance,
    JitTrace_ELBO,
    JitTraceEnum_ELBO,
    JitTraceGraph_ELBO,
    JitTraceMeanField_ELBO,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
    TraceTMC_ELBO,
    autoguide,
)
from pyro.infer.importance import vectorized_importance_weights
from pyro.nn import DenseNN
from pyro.poutine.guide import GuideMessenger
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import softplus

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic.distributions.constraints import on_manifold
from tests.cases import point, shaken
from tests.inference_cell import Cell
from tests.inference_truth import (
    BEACON,
    POSTERIORS,
    PRIOR_LOC,
    PRIOR_SCALE,
    SEEN_COORDINATES,
    SEEN_DISTANCE,
    G,
    M,
    Posterior,
    components_model,
    coordinates_model,
    distance_model,
    mixture_model,
    moments,
)

#: Errors beyond which a mean is wrong: TEST_FAILURE_RATE, two-sided.
ERRORS = 4.3

# Importance weights


def log_weights(model: Callable, guide: Callable, number: int, nesting: int = 0) -> tuple[Tensor, Tensor]:
    """Returns log p(x, z) - log q(z) of draws of the guide, and the draws of z."""
    with torch.no_grad():
        if not isinstance(guide, GuideMessenger):
            options = {"num_samples": number, "max_plate_nesting": nesting}
            weights, trace, _ = vectorized_importance_weights(model, guide, **options)
            return weights, trace.nodes["z"]["value"]
        # Pyro's function wraps the guide in a closure, does not see that it is a messenger, and counts x as its site.
        with pyro.plate("draws", number, dim=-1 - nesting):
            guide()
        traces = [poutine.util.prune_subsample_sites(trace) for trace in guide.get_traces()]
        for trace in traces:
            trace.compute_log_prob()
        p, q = (sum(s["log_prob"] for s in t.nodes.values() if s["type"] == "sample") for t in traces)
        return p - q, traces[0].nodes["z"]["value"]


def assert_weights(weights: Tensor, z: Tensor, log_evidence: float, means: Tensor, ess: float) -> None:
    """The evidence and the means of moments(z) that the weights give are those of quadrature, and ESS / N > ess."""
    w = (weights - weights.max()).exp()
    error = w.std() / w.mean() / len(w) ** 0.5
    assert error < 0.1, f"standard error {error:.3g} of the evidence"
    deviation = (w.mean().log() + weights.max() - log_evidence) / error
    assert deviation.abs() < ERRORS, f"evidence off by {deviation:.1f} errors of {error:.2g}"
    w = w / w.sum()
    f = moments(z).flatten(1)
    estimate = w @ f
    errors = (w.square() @ (f - estimate).square()).sqrt()
    deviations = (estimate - means.flatten()) / errors
    assert (deviations.abs() < ERRORS).all(), f"moments off by {deviations.tolist()} errors"
    fraction = float(1 / w.square().sum() / len(w))
    assert fraction > ess, f"effective sample size {fraction:.3f}"


def train(model: Callable, guide: Callable, steps: int, lr: float, elbo: Any) -> None:
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": lr, "lrd": 0.1 ** (1 / steps)}), elbo)
    for _ in range(steps):
        svi.step()


def weighed(
    make: Callable[[Callable], Callable],
    which: str = "coordinates",
    ess: float = 0.9,
    steps: int = 150,
    lr: float = 0.05,
    elbo: Callable[..., Any] = Trace_ELBO,
    particles: int = 10,
) -> Callable[[], None]:
    """Returns a check: train the guide, and hold its importance weights to quadrature."""

    def check() -> None:
        posterior = POSTERIORS[which]
        guide = make(posterior.model)
        guide()  # messenger guides take the shapes of their parameters from their first run: outside particles
        options = {"num_particles": particles, "vectorize_particles": True, "max_plate_nesting": 0}
        train(posterior.model, guide, steps, lr, elbo(**options))
        weights, z = log_weights(posterior.model, guide, 4000)
        assert_weights(weights, z, posterior.log_evidence, posterior.mean(moments), ess)

    return check


# Autoguides


def found_by(guide: Callable, steps: int = 400) -> None:
    """Trains a guide whose ELBO is deterministic until it stands still."""
    svi = SVI(coordinates_model, guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 1e-3 ** (1 / steps)}), Trace_ELBO())
    for _ in range(steps):
        svi.step()


def log_joint(z: Tensor, model: Callable = coordinates_model) -> Tensor:
    trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace()
    trace.compute_log_prob()
    return sum(site["log_prob"] for site in trace.nodes.values() if site["type"] == "sample")


def log_stretch(v: Tensor) -> Tensor:
    """The textbook's log sinh(r) / r, between Lebesgue measure in the chart and Riemannian volume, n = 2 and k = 2."""
    r = v.norm(dim=-1).clamp_min(1e-12) / math.sqrt(2.0)
    return (r.sinh() / r).log()


def modes() -> tuple[Tensor, Tensor]:
    """Returns, in the chart, the maxima of the joint density w.r.t. Riemannian volume and w.r.t. Lebesgue measure.

    The largest of a grid of step 0.002 about the posterior mean.
    """
    mean = POSTERIORS["coordinates"].mean(moments)[:2]
    side = torch.linspace(-0.3, 0.3, 301, dtype=torch.float64)
    v = mean + torch.cartesian_prod(side, side)
    by_volume = log_joint(G.exp0(M, v))
    return v[by_volume.argmax()], v[(by_volume + log_stretch(v)).argmax()]


def check_delta(make: Callable[[Callable], Callable]) -> None:
    guide = make(coordinates_model)
    found_by(guide)
    found = G.log0(M, guide()["z"].detach())
    by_volume, by_lebesgue = modes()
    assert (by_volume - by_lebesgue).norm() > 0.01  # the two questions have different answers here
    assert (found - by_volume).abs().max() < 0.0011  # half a step of the grid


def check_laplace() -> None:
    delta = autoguide.AutoLaplaceApproximation(coordinates_model)
    found_by(delta)
    guide = delta.laplace_approximation()
    assert (guide.loc - modes()[1]).abs().max() < 0.0011
    # Richardson's second differences of the density in the chart: not autograd, not the library's log-determinant.
    h = torch.tensor([[0.02], [0.04]])
    e = torch.eye(2)
    hessian = torch.zeros(2, 2)
    for i in range(2):
        for j in range(2):
            corners = [(1, 1, 1), (-1, 1, -1), (-1, -1, 1), (1, -1, -1)]
            terms = []
            for sign, a, b in corners:
                v = guide.loc + h * (a * e[i] + b * e[j])
                terms.append(sign * (log_joint(G.exp0(M, v)) + log_stretch(v)))
            fine, coarse = sum(terms) / (4 * h.squeeze(-1) ** 2)
            hessian[i, j] = (4 * fine - coarse) / 3
    covariance = guide.get_posterior().covariance_matrix
    assert torch.allclose(covariance, (-hessian).inverse(), rtol=1e-4, atol=1e-7)
    weights, z = log_weights(coordinates_model, guide, 4000)
    posterior = POSTERIORS["coordinates"]
    assert_weights(weights, z, posterior.log_evidence, posterior.mean(moments), 0.9)


def guide_list(model: Callable) -> Callable:
    """A normal in the chart for z, probabilities for the discrete c."""
    guide = autoguide.AutoGuideList(model)
    guide.append(autoguide.AutoNormal(poutine.block(model, hide=["c"])))
    guide.append(autoguide.AutoDiscreteParallel(poutine.block(model, expose=["c"])))
    return guide


def list_by_site(model: Callable) -> Callable:
    """A wrapped normal for z, a normal in the chart for the scale s."""
    guide = autoguide.AutoGuideList(model)
    guide.append(ph.infer.AutoWrappedNormal(poutine.block(model, expose=["z"])))
    guide.append(autoguide.AutoNormal(poutine.block(model, expose=["s"])))
    return guide


class EasyWrapped(EasyGuide):
    def guide(self) -> None:
        wrapped_guide(None)()


class EasyMap(EasyGuide):
    def guide(self) -> dict[str, Tensor]:
        return {"z": self.map_estimate("z")}


class EasyMapGroup(EasyGuide):
    def guide(self) -> dict[str, Tensor]:
        return self.group().map_estimate()


class EasyGroup(EasyGuide):
    def guide(self) -> None:
        group = self.group()
        group.sample("latent", dist.Normal(torch.zeros(group.event_shape), 1.0).to_event(1))


def raises(
    kind: type[Exception], words: str, make: Callable[[Callable], Callable], model: Callable = coordinates_model
) -> Callable[[], None]:
    """Returns a check: the first step with that guide raises an error that says so."""

    def check() -> None:
        with pytest.raises(kind, match=re.escape(words)):
            train(model, make(model), 1, 0.01, Trace_ELBO())

    return check


def flow_in_autoguide(model: Callable) -> Callable:
    return autoguide.AutoNormalizingFlow(model, lambda dim: ph.flows.coupling_flow(dim, 2, manifold=M))


# Hand-written guides


def wrapped_guide(_: Any, scale: float = 0.3) -> Callable:
    def guide() -> None:
        loc = pyro.param("loc", PRIOR_LOC.clone(), constraint=on_manifold(M))
        spread = pyro.param("scale", torch.full((2,), scale), constraint=constraints.positive)
        pyro.sample("z", hdist.WrappedNormal(loc, spread, M))

    return guide


def wrapped_multivariate_guide(_: Any) -> Callable:
    def guide() -> None:
        loc = pyro.param("loc", PRIOR_LOC.clone(), constraint=on_manifold(M))
        scale_tril = pyro.param("scale_tril", 0.3 * torch.eye(2), constraint=constraints.lower_cholesky)
        pyro.sample("z", hdist.WrappedMultivariateNormal(loc, scale_tril=scale_tril, manifold=M))

    return guide


def flow_guide(make_flow: Callable[[], torch.nn.Module]) -> Callable[[Callable], Callable]:
    def make(_: Any) -> Callable:
        flow = make_flow()

        def guide() -> None:
            pyro.module("flow", flow)
            loc = pyro.param("loc", PRIOR_LOC.clone(), constraint=on_manifold(M))
            scale = pyro.param("scale", torch.ones(2), constraint=constraints.positive)
            pyro.sample("z", dist.TransformedDistribution(hdist.WrappedNormal(loc, scale, M), [flow]))

        return guide

    return make


def couplings(coupling: Callable) -> Callable[[Callable], Callable]:
    return flow_guide(lambda: ph.flows.coupling_flow(2, 4, coupling, hidden_dims=[32], manifold=M))


def lifted_spline() -> torch.nn.Module:
    return HT.TangentTransform(T.spline_coupling(2, 1, hidden_dims=[32], count_bins=8, bound=4.0), M)


def conditional_flow_guide(_: Any) -> Callable:
    """A flow that sees the latent s before it: the hierarchy's own structure."""
    flow = ph.flows.coupling_flow(2, 2, hidden_dims=[16], manifold=M, context_dim=1)
    base = hdist.WrappedNormal(PRIOR_LOC, 0.4, M)

    def guide() -> None:
        pyro.module("flow", flow)
        loc = pyro.param("s_loc", torch.tensor(-0.3))
        scale = pyro.param("s_scale", torch.tensor(0.4), constraint=constraints.positive)
        s = pyro.sample("s", dist.LogNormal(loc, scale))
        conditional = dist.conditional.ConditionalTransformedDistribution(base, [flow])
        pyro.sample("z", conditional.condition(s.log().unsqueeze(-1)))

    return guide


def check_amortised() -> None:
    """One network for six observations; their evidence together, the moments of each."""
    seen = torch.tensor([[1.1, -0.7], [0.2, 0.9], [-0.8, 0.1], [1.9, 0.6], [0.0, -1.1], [0.6, 0.3]])
    network = DenseNN(2, [24], param_dims=[2, 2], nonlinearity=torch.nn.Tanh())

    def model() -> None:
        with pyro.plate("data", len(seen)):
            coordinates_model(seen)

    def guide() -> None:
        pyro.module("network", network)
        v, scale = network(seen)
        with pyro.plate("data", len(seen)):
            pyro.sample("z", hdist.WrappedNormal(G.exp0(M, v), softplus(scale), M))

    elbo = Trace_ELBO(num_particles=10, vectorize_particles=True, max_plate_nesting=1)
    train(model, guide, 300, 0.02, elbo)
    weights, z = log_weights(model, guide, 4000, nesting=1)
    posteriors = [Posterior(partial(coordinates_model, x), reach=5.0, number=161) for x in seen]
    means = torch.stack([posterior.mean(moments) for posterior in posteriors])
    assert_weights(weights, z, sum(posterior.log_evidence for posterior in posteriors), means, 0.6)


# ELBOs

GUIDE_LOC, GUIDE_SCALE = point(2.0, 0.9, -0.5), torch.tensor([0.35, 0.4], dtype=torch.float64)


class Score(hdist.WrappedNormal):
    """A wrapped normal without reparameterisation: gradients by the score function."""

    has_rsample = False


def fixed(family: type[hdist.WrappedNormal] = hdist.WrappedNormal) -> hdist.WrappedNormal:
    loc = pyro.param("loc", GUIDE_LOC.clone(), constraint=on_manifold(M))
    return family(loc, pyro.param("scale", GUIDE_SCALE.clone(), constraint=constraints.positive), M)


def at_the_prior() -> hdist.WrappedNormal:
    return hdist.WrappedNormal(PRIOR_LOC, pyro.param("scale", GUIDE_SCALE, constraint=constraints.positive), M)


def parameters() -> list[Tensor]:
    return [value for _, value in pyro.get_param_store().named_parameters()]


def exactly(value: Tensor) -> Tensor:
    """Returns a value and its gradient in the guide's unconstrained parameters, as one vector."""
    gradients = torch.autograd.grad(value, parameters())
    return torch.cat([value.detach().reshape(1), *(g.flatten() for g in gradients)])


def estimated(elbo: Any, model: Callable, guide: Callable, blocks: int) -> Tensor:
    """Returns losses and gradients of so many calls of ``loss_and_grads``."""
    rows = []
    for _ in range(blocks):
        for value in parameters():
            value.grad = None
        loss = elbo.loss_and_grads(model, guide)
        loss = loss[1] if isinstance(loss, tuple) else loss  # wake-sleep: that of the guide
        rows.append(torch.cat([torch.tensor([loss]), *(value.grad.flatten() for value in parameters())]))
    return torch.stack(rows)


def assert_agree(rows: Tensor, expected: Tensor, precision: float = 0.05) -> None:
    """The means of the columns are those expected, to 4.3 errors that are themselves small."""
    errors = rows.std(0) / len(rows) ** 0.5
    assert (errors < precision * (1 + expected.abs())).all(), f"errors {errors.tolist()} of {expected.tolist()}"
    deviations = (rows.mean(0) - expected) / (errors + 1e-9)
    assert (deviations.abs() < ERRORS).all(), f"off by {deviations.tolist()} errors of {errors.tolist()}"


def lawful(
    elbo: Callable[[], Any],
    model: Callable = coordinates_model,
    which: str = "coordinates",
    q: Callable[[], Any] = fixed,
    blocks: int = 60,
    precision: float = 0.05,
) -> Callable[[], None]:
    """Returns a check: the mean loss and gradient of a fixed guide are those of minus the ELBO by quadrature."""

    def check() -> None:
        posterior = POSTERIORS[which]
        expected = exactly(-posterior.elbo(q().log_prob(posterior.grid["z"])))
        assert_agree(estimated(elbo(), model, lambda: pyro.sample("z", q()), blocks), expected, precision)

    return check


def vectorised(elbo: Callable, particles: int = 100, nesting: int = 0, **options: Any) -> Callable[[], Any]:
    return lambda: elbo(num_particles=particles, vectorize_particles=True, max_plate_nesting=nesting, **options)


jitted = partial(vectorised, ignore_jit_warnings=True)


def expected_of_pairs(f: Callable[..., Tensor], model: Callable = coordinates_model) -> Tensor:
    """Returns E f(log w, log w', z, z') over two independent draws of the fixed guide, by quadrature over their noise.

    The log-density of the guide is the textbook's; ``f`` sees columns of the first draw and rows of the second.
    """
    q = fixed()
    side = torch.linspace(-6, 6, 45)
    noise = torch.cartesian_prod(side, side)
    log_phi = dist.Normal(0.0, 1.0).log_prob(noise).sum(-1)
    mass = (log_phi + 2 * math.log(12 / 44)).exp()
    z = G.translate(M, q.loc, G.exp0(M, q.scale * noise))
    weights = log_joint(z, model) - (log_phi - q.scale.log().sum() - log_stretch(q.scale * noise))
    value = f(weights.unsqueeze(1), weights.unsqueeze(0), z.unsqueeze(1), z.unsqueeze(0))
    return mass @ (value @ mass)


def lawful_in_pairs(
    elbo: Callable[[], Any],
    f: Callable[..., Tensor],
    model: Callable = coordinates_model,
    infer: dict[str, Any] | None = None,
    blocks: int = 600,
    loss: bool = True,
) -> Callable[[], None]:
    """Returns a check of an objective of two particles, with its gradient, against quadrature over both."""

    def guide(observations: dict[str, Tensor] | None = None) -> None:
        pyro.sample("z", fixed(), infer=infer)

    def check() -> None:
        expected = exactly(expected_of_pairs(f, model))
        rows = estimated(elbo(), model, guide, blocks)
        first = 0 if loss else 1
        assert_agree(rows[:, first:], expected[first:], precision=0.12)

    return check


def renyi_loss(alpha: float) -> Callable[..., Tensor]:
    def f(a: Tensor, b: Tensor, *_: Tensor) -> Tensor:
        return (math.log(2) - torch.logaddexp((1 - alpha) * a, (1 - alpha) * b)) / (1 - alpha)

    return f


def tail_adaptive_loss(a: Tensor, b: Tensor, *_: Tensor) -> Tensor:
    """Weights rank^-1, as Pyro ranks: the smaller of two importance weights counts double; all of it halved again."""
    return -(torch.minimum(a, b) + torch.maximum(a, b) / 2) / 1.5 / 2


def wake_sleep_loss(a: Tensor, b: Tensor, z: Tensor, z2: Tensor) -> Tensor:
    """Half the wake phase, self-normalised weights of the pair, half the sleep phase, draws of the prior."""
    q, w = fixed(), (a - b).sigmoid().detach()
    wake = -(w * q.log_prob(z.detach()) + (1 - w) * q.log_prob(z2.detach()))
    posterior = POSTERIORS["coordinates"]
    prior = wrapped_prior().log_prob(posterior.grid["z"]) + posterior.log_measure
    return (wake - (prior.exp() * q.log_prob(posterior.grid["z"])).sum()) / 2


def folded(mean: Tensor, deviation: float) -> Tensor:
    """The mean of the absolute value of a normal variable."""
    z = mean / deviation
    return deviation * math.sqrt(2 / math.pi) * (-z.square() / 2).exp() + mean * torch.erf(z / math.sqrt(2))


def energy_loss(_a: Tensor, _b: Tensor, z: Tensor, z2: Tensor) -> Tensor:
    d, d2 = G.distance(M, z, BEACON), G.distance(M, z2, BEACON)
    prior = wrapped_prior()
    error = folded(d - SEEN_DISTANCE, 0.3) + folded(d2 - SEEN_DISTANCE, 0.3)
    regulariser = prior.log_prob(z) + prior.log_prob(z2)  # Pyro sums it over the particles
    return (error - folded(d - d2, 0.3 * math.sqrt(2))) / 2 - 0.2 * regulariser


class Energy(EnergyDistance):
    def loss_and_grads(self, model: Callable, guide: Callable) -> float:
        loss = self(model, guide)
        loss.backward()
        return loss.item()


def wrapped_prior() -> hdist.WrappedNormal:
    return hdist.WrappedNormal(PRIOR_LOC, PRIOR_SCALE, M)


def mean_field(
    elbo: Callable[[], Any],
    prior: Callable[[], Any] = wrapped_prior,
    copies: int = 0,
) -> Callable[[], None]:
    """Returns a check of a fixed normal in the chart: its loss and gradient are those of the ELBO by quadrature."""

    def model() -> None:
        d = prior()
        with pyro.plate("copies", copies) if d.batch_shape else contextlib.nullcontext():
            z = pyro.sample("z", d)
            seen = SEEN_COORDINATES.expand((*z.shape[:-1], 2))
            pyro.sample("x", dist.Normal(G.log0(M, z), 0.3).to_event(d.event_dim), obs=seen)

    def check() -> None:
        values = {"z": GUIDE_LOC.expand((copies, 3)) if copies else GUIDE_LOC}
        guide = autoguide.AutoNormal(model, init_loc_fn=autoguide.init_to_value(values=values), init_scale=0.4)
        guide()
        posterior = POSTERIORS["coordinates"] if copies else Posterior(model)
        v = G.log0(M, posterior.grid["z"])
        expected: Any = 0.0
        for loc, scale in zip(guide.locs.z.reshape(-1, 2), guide.scales.z.reshape(-1, 2), strict=True):
            expected = expected - posterior.elbo(dist.Normal(loc, scale).log_prob(v).sum(-1) - log_stretch(v))
        assert_agree(estimated(elbo(), model, guide, 60), exactly(expected))

    return check


def check_mean_field_beside() -> None:
    """Beside a latent of Pyro's own, whose autoguide has a log-determinant too: E log q(s) includes -E log s."""
    posterior = POSTERIORS["scale"]
    values = {"s": torch.tensor(0.6), "z": GUIDE_LOC}
    guide = autoguide.AutoNormal(posterior.model, init_loc_fn=autoguide.init_to_value(values=values), init_scale=0.4)
    guide()
    v, log_s = G.log0(M, posterior.grid["z"]), posterior.log_s.unsqueeze(-1)
    log_q = dist.Normal(guide.locs.z, guide.scales.z).log_prob(v).sum(-1) - log_stretch(v)
    log_q = log_q + dist.Normal(guide.locs.s, guide.scales.s).log_prob(log_s) - log_s
    right = exactly(-posterior.elbo(log_q))
    for elbo in (Trace_ELBO, TraceMeanField_ELBO):
        assert_agree(estimated(vectorised(elbo)(), posterior.model, guide, 60), right, 0.1)


FLOW = shaken(ph.flows.coupling_flow(2, 2, manifold=M), 0.4).requires_grad_(False)


EVIDENCE = "evidence and moments by quadrature"
LAW = "value and gradient by quadrature"
auto = partial(Cell, "Autoguides")
hand = partial(Cell, "Hand-written guides")
objective = partial(Cell, "ELBOs")
iwae = renyi_loss(0.0)
per_copy = vectorised(TraceMeanField_ELBO, nesting=1)
two = partial(vectorised, particles=2)
ring = partial(weighed, which="distance", steps=300, lr=0.02, elbo=partial(RenyiELBO, alpha=0.5), particles=256)

CELLS: list[Cell] = [
    auto("`AutoNormal`", "works", EVIDENCE, weighed(autoguide.AutoNormal)),
    auto("`AutoDiagonalNormal`", "works", EVIDENCE, weighed(autoguide.AutoDiagonalNormal)),
    auto("`AutoMultivariateNormal`", "works", EVIDENCE, weighed(autoguide.AutoMultivariateNormal)),
    auto("`AutoLowRankMultivariateNormal`", "works", EVIDENCE, weighed(autoguide.AutoLowRankMultivariateNormal)),
    auto("`AutoIAFNormal`", "works", EVIDENCE, weighed(lambda model: autoguide.AutoIAFNormal(model, hidden_dim=[16]))),
    auto(
        "`AutoNormalizingFlow`",
        "works",
        EVIDENCE,
        weighed(lambda model: autoguide.AutoNormalizingFlow(model, lambda dim: T.spline_coupling(dim, 1)), ess=0.7),
        "Its transform acts on the chart, R^n, so it takes any flow of Pyro, but no flow of the manifold.",
    ),
    auto(
        "`AutoNormalizingFlow` with a flow of the manifold",
        "not in Pyro",
        "the error",
        raises(ValueError, "the argument of CouplingFlow is not on Lorentz(k=2)", flow_in_autoguide),
        "It passes vectors of R^n to its transform, but the flow needs points. Use it in a hand-written guide: "
        "`TransformedDistribution(WrappedNormal(...), [flow])`.",
    ),
    auto("`AutoStructured`", "works", EVIDENCE, weighed(autoguide.AutoStructured, "scale", ess=0.5)),
    auto("`AutoGaussian`", "works", EVIDENCE, weighed(autoguide.AutoGaussian, "scale", ess=0.5)),
    auto(
        "`AutoDelta`",
        "works",
        "the mode on a grid",
        partial(check_delta, autoguide.AutoDelta),
        "It finds the mode of the density with respect to Riemannian volume, which no chart moves.",
    ),
    auto(
        "`AutoLaplaceApproximation`",
        "works",
        "mode on a grid, Hessian by differences; " + EVIDENCE,
        check_laplace,
        "It finds the mode of the density with respect to Lebesgue measure in the chart, which is not `AutoDelta`'s; "
        "its covariance is that in the chart.",
    ),
    auto(
        "`AutoNormalMessenger`",
        "works",
        EVIDENCE,
        weighed(autoguide.AutoNormalMessenger, "scale", ess=0.3),
        "Run a messenger guide once before vectorised particles (Pyro would keep a parameter for each particle), and "
        "weigh its draws with `guide.get_traces()`: `vectorized_importance_weights` counts observed sites as its own. "
        "`poutine.block(model, expose=...)` hides its parameters from the optimiser. `TraceEnum_ELBO` rejects it.",
    ),
    auto(
        "`AutoHierarchicalNormalMessenger`",
        "works",
        EVIDENCE,
        weighed(autoguide.AutoHierarchicalNormalMessenger, "scale", ess=0.3),
        "It reads `.mean`, the Fréchet mean, in the chart.",
    ),
    auto("`AutoRegressiveMessenger`", "works", EVIDENCE, weighed(autoguide.AutoRegressiveMessenger)),
    auto(
        "`ph.infer.AutoWrappedNormal`",
        "works",
        EVIDENCE,
        weighed(ph.infer.AutoWrappedNormal, "scale", ess=0.3),
        "For latents far from the origin, and for latent curvatures. It is used like `AutoNormal`, also under "
        "`block(expose=)`, with `TraceEnum_ELBO` and in an `AutoGuideList`. If latents of one prior are observed "
        "through distances only, the prior's mean is a saddle: pass `init_loc_fn=init_to_sample` or `init_to_value`.",
    ),
    auto(
        "`ph.infer.AutoWrappedMultivariateNormal`",
        "works",
        EVIDENCE,
        weighed(ph.infer.AutoWrappedMultivariateNormal),
        "The same with full covariances.",
    ),
    auto(
        "`AutoGuideList`, `AutoDiscreteParallel`",
        "works",
        EVIDENCE + ", summed over the components",
        weighed(guide_list, "components", ess=0.3, elbo=TraceEnum_ELBO),
        "For a model whose discrete latent chooses the component.",
    ),
    auto(
        "`AutoGuideList`, `ph.infer.AutoWrappedNormal`",
        "works",
        EVIDENCE,
        weighed(list_by_site, "scale", ess=0.3),
        "Its medians and quantiles have every site.",
    ),
    auto(
        "a `MixtureSameFamily` prior",
        "not in Pyro",
        "the error",
        raises(
            NotImplementedError,
            "Cannot transform MixtureSameFamilyConstraint constraints",
            autoguide.AutoNormal,
            mixture_model,
        ),
        "torch registers no bijection for the support of a mixture, of normals either. Use a discrete latent for the "
        "component, a hand-written guide, or `ph.infer.AutoWrappedNormal`.",
    ),
    auto("`EasyGuide`", "works", EVIDENCE, weighed(EasyWrapped)),
    auto("`EasyGuide.map_estimate`", "works", "the mode on a grid", partial(check_delta, EasyMap), "As `AutoDelta`."),
    auto("`EasyGuide.group(...).map_estimate`", "works", "the mode on a grid", partial(check_delta, EasyMapGroup)),
    auto(
        "`EasyGuide.group(...).sample`",
        "not in Pyro",
        "the error",
        raises(ValueError, "shapes disagree at site 'z': torch.Size([3]) vs torch.Size([4])", EasyGroup),
        "It passes n + 1 constrained coordinates to the bijection, which takes n (also for Pyro's simplex). Sample the "
        "site itself in `guide`.",
    ),
    hand("`WrappedNormal`, `pyro.param(constraint=on_manifold(M))`", "works", EVIDENCE, weighed(wrapped_guide)),
    hand("`WrappedMultivariateNormal`", "works", EVIDENCE, weighed(wrapped_multivariate_guide)),
    hand(
        "`coupling_flow` of tangent couplings, a ring",
        "works",
        EVIDENCE,
        ring(couplings(HT.tangent_coupling), ess=0.6),
        "Trained by `RenyiELBO(alpha=0.5)`: under `Trace_ELBO` it leaves out the thin side of the ring, at a good "
        "effective sample size.",
    ),
    hand(
        "`coupling_flow` of wrapped hyperboloid couplings, a ring",
        "works",
        EVIDENCE,
        ring(couplings(HT.wrapped_hyperboloid_coupling), ess=0.6),
        "Trained the same way.",
    ),
    hand("`TangentTransform(spline_coupling)`", "works", EVIDENCE, weighed(flow_guide(lifted_spline), ess=0.7)),
    hand("`TangentTransform(spline_coupling)`, a ring", "works", EVIDENCE, ring(flow_guide(lifted_spline), ess=0.4)),
    hand(
        "a conditional flow given another latent",
        "works",
        EVIDENCE,
        weighed(conditional_flow_guide, "scale", ess=0.5),
        "`ConditionalTransformedDistribution(base, [flow]).condition(s)`.",
    ),
    hand(
        "amortised: a network gives `loc` and `scale`",
        "works",
        "evidence of six observations, moments of each, by quadrature",
        check_amortised,
        "The network's output is a tangent vector: `loc = exp0(M, v)`.",
    ),
    objective("`Trace_ELBO`", "works", LAW, lawful(partial(Trace_ELBO, num_particles=12), precision=0.1)),
    objective("`Trace_ELBO(vectorize_particles=True)`", "works", LAW, lawful(vectorised(Trace_ELBO))),
    objective(
        "`Trace_ELBO`, score-function gradients",
        "works",
        LAW,
        lawful(vectorised(Trace_ELBO, 1000), q=partial(fixed, Score), blocks=200),
    ),
    objective("`JitTrace_ELBO`", "works", LAW, lawful(jitted(JitTrace_ELBO))),
    objective("`TraceGraph_ELBO`", "works", LAW, lawful(vectorised(TraceGraph_ELBO))),
    objective(
        "`TraceGraph_ELBO`, score-function gradients",
        "works",
        LAW,
        lawful(vectorised(TraceGraph_ELBO, 1000), q=partial(fixed, Score), blocks=200),
    ),
    objective("`JitTraceGraph_ELBO`", "works", LAW, lawful(jitted(JitTraceGraph_ELBO))),
    objective("`TraceMeanField_ELBO`", "works", LAW, lawful(vectorised(TraceMeanField_ELBO))),
    objective(
        "`TraceMeanField_ELBO`, guide at the prior's location",
        "works",
        LAW,
        lawful(vectorised(TraceMeanField_ELBO), q=at_the_prior),
        "There the Kullback-Leibler divergence is in closed form, that of the normals.",
    ),
    objective("`JitTraceMeanField_ELBO`", "works", LAW, lawful(jitted(JitTraceMeanField_ELBO))),
    *[
        objective(f"`TraceMeanField_ELBO`, `AutoNormal`, {what}", "works", LAW, mean_field(per_copy, *prior))
        for what, *prior in [
            ("`WrappedNormal` prior",),
            ("prior in a plate", lambda: wrapped_prior().expand([2]), 2),
            ("prior `.to_event(1)`", lambda: wrapped_prior().expand([2]).to_event(1), 2),
            ("prior `.mask(True)`", lambda: wrapped_prior().mask(True)),
            ("flow prior", lambda: dist.TransformedDistribution(wrapped_prior(), [FLOW])),
        ]
    ],
    objective(
        "`JitTraceMeanField_ELBO`, `AutoNormal`", "works", LAW, mean_field(jitted(JitTraceMeanField_ELBO, nesting=1))
    ),
    objective(
        "`TraceMeanField_ELBO`, `AutoNormal`, with a `LogNormal` latent",
        "works",
        LAW,
        check_mean_field_beside,
        "Pyro's `kl(Delta, ...)` drops `Delta.log_density`, in which autoguides keep the log-determinant of a "
        "constrained site, and the loss is wrong without a warning. Importing this package replaces the rule by the "
        "right one, for every prior.",
    ),
    objective("`RenyiELBO(alpha=0)`, the IWAE", "works", LAW, lawful_in_pairs(two(RenyiELBO), iwae)),
    objective("`RenyiELBO(alpha=0.5)`", "works", LAW, lawful_in_pairs(two(RenyiELBO, alpha=0.5), renyi_loss(0.5))),
    objective("`TraceEnum_ELBO`", "works", LAW, lawful(vectorised(TraceEnum_ELBO), components_model, "components")),
    objective("`JitTraceEnum_ELBO`", "works", LAW, lawful(jitted(JitTraceEnum_ELBO), components_model, "components")),
    objective(
        "`Trace_ELBO`, `MixtureSameFamily` prior",
        "works",
        LAW + ", summed over the components",
        lawful(vectorised(Trace_ELBO), mixture_model, "components"),
    ),
    objective(
        "`TraceTailAdaptive_ELBO`",
        "works",
        "gradient by quadrature",
        lawful_in_pairs(two(TraceTailAdaptive_ELBO), tail_adaptive_loss, loss=False),
        "Held to its definition in Pyro, with two particles.",
    ),
    objective(
        "`TraceTMC_ELBO`",
        "works",
        LAW,
        lawful_in_pairs(
            vectorised(TraceTMC_ELBO, 1), iwae, infer={"enumerate": "parallel", "num_samples": 2, "expand": False}
        ),
    ),
    objective(
        "`ReweightedWakeSleep(insomnia=0.5)`",
        "works",
        LAW,
        lawful_in_pairs(two(ReweightedWakeSleep, insomnia=0.5, model_has_params=False), wake_sleep_loss),
        "Wake and sleep phase together; the guide takes `observations`.",
    ),
    objective(
        "`EnergyDistance`",
        "works",
        LAW,
        lawful_in_pairs(
            partial(Energy, prior_scale=0.2, num_particles=2, max_plate_nesting=1), energy_loss, distance_model
        ),
        "Observed numbers only: of observed points it would take ambient differences, not distances.",
    ),
]
