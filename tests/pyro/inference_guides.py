"""Guides and ELBOs in the inference matrix: what each gives, compared with quadrature on H^2."""

import contextlib
import re
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch
from pyro import infer, poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer import autoguide as AG
from pyro.nn import DenseNN
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import softplus

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic.distributions.constraints import on_manifold
from tests import textbook
from tests.cases import point, shaken
from tests.pyro.inference_cell import Section
from tests.pyro.inference_checks import fitted, importance_weights, mean_is, posterior_by, posterior_is
from tests.pyro.inference_truth import (
    POSTERIORS,
    PRIOR_LOC,
    PRIOR_SCALE,
    SEEN_COORDINATES,
    G,
    M,
    Model,
    Posterior,
    components_model,
    coordinates_model,
    log_joint,
    log_stretch,
    mixture_model,
    moments,
    wrapped_prior,
)

AUTOGUIDES = Section("Autoguides")
HAND_WRITTEN = Section("Hand-written guides")
ELBOS = Section("ELBOs")

MakeGuide = Callable[[Model], Model]


def trained(make: MakeGuide, which: str = "coordinates", efficiency: float = 0.8, **training: Any) -> None:
    """Weighted draws of a trained guide have the evidence and the moments, and are worth so many equal ones."""
    posterior = POSTERIORS[which]
    posterior_by(fitted(posterior.model, make(posterior.model), **training), posterior, efficiency)


def raises(kind: type[Exception], words: str, make: MakeGuide, model: Model = coordinates_model) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        fitted(model, make(model), steps=1, particles=1)


@cache
def modes() -> tuple[Tensor, Tensor]:
    """The largest joint density on a grid of the chart, w.r.t. Riemannian volume and w.r.t. Lebesgue measure."""
    side = torch.linspace(-0.15, 0.15, 151)
    v = POSTERIORS["coordinates"].mean(moments)[:2] + torch.cartesian_prod(side, side)
    by_volume = log_joint(coordinates_model, z=G.exp0(M, v))
    return v[by_volume.argmax()], v[(by_volume + log_stretch(v)).argmax()]


TOLERANCE = 0.003  # 0.001 of it half a step of that grid


def settled(guide: Model) -> Model:
    """A guide whose ELBO is deterministic, trained until it stands still."""
    return fitted(coordinates_model, guide, 150, 0.2, particles=1, decay=1e-2)


def finds_the_mode(make: MakeGuide) -> None:
    guide = settled(make(coordinates_model))
    by_volume, by_lebesgue = modes()
    assert (by_volume - by_lebesgue).norm() > 0.01  # the two questions have different answers here
    assert (G.log0(M, guide()["z"].detach()) - by_volume).abs().max() < TOLERANCE


# Autoguides


def guide_list(model: Model) -> Model:
    """A normal in the chart for z, probabilities for the discrete c."""
    guide = AG.AutoGuideList(model)
    guide.append(AG.AutoNormal(poutine.block(model, hide=["c"])))
    guide.append(AG.AutoDiscreteParallel(poutine.block(model, expose=["c"])))
    return guide


def list_by_site(model: Model) -> Model:
    """A wrapped normal for z, a normal in the chart for the scale s."""
    guide = AG.AutoGuideList(model)
    guide.append(ph.infer.AutoWrappedNormal(poutine.block(model, expose=["z"])))
    guide.append(AG.AutoNormal(poutine.block(model, expose=["s"])))
    return guide


class EasyWrapped(EasyGuide):
    def guide(self) -> None:
        wrapped_guide()


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


def pyro_flow(model: Model) -> Model:
    return AG.AutoNormalizingFlow(model, lambda dim: T.spline_coupling(dim, 1))


def manifold_flow(model: Model) -> Model:
    return AG.AutoNormalizingFlow(model, lambda dim: ph.flows.coupling_flow(dim, 2, manifold=M))


EVIDENCE, MODE = "evidence and moments by quadrature", "the mode on a grid"
auto = AUTOGUIDES.add
auto("`AutoNormal`", EVIDENCE, trained, AG.AutoNormal)
auto("`AutoDiagonalNormal`", EVIDENCE, trained, AG.AutoDiagonalNormal)
auto("`AutoMultivariateNormal`", EVIDENCE, trained, AG.AutoMultivariateNormal)
auto(
    "`AutoLowRankMultivariateNormal`",
    EVIDENCE,
    trained,
    AG.AutoLowRankMultivariateNormal,
    steps=100,
    lr=0.05,
    slow=True,
)
auto("`AutoIAFNormal`", EVIDENCE, trained, partial(AG.AutoIAFNormal, hidden_dim=[16]))
auto("`AutoNormalizingFlow`", EVIDENCE, trained, pyro_flow, efficiency=0.6)
AUTOGUIDES.note("Its transform acts on the chart, R^n, so it takes any flow of Pyro, but no flow of the manifold.")
NO_POINT = (ValueError, "the argument of CouplingFlow is not on Lorentz(k=2)", manifold_flow)
auto("`AutoNormalizingFlow` with a flow of the manifold", "the error", raises, *NO_POINT, status="not in Pyro")
AUTOGUIDES.note(
    "It passes vectors of R^n to its transform, but the flow needs points. Use it in a hand-written guide: "
    "`TransformedDistribution(WrappedNormal(...), [flow])`."
)
auto("`AutoStructured`", EVIDENCE, trained, AG.AutoStructured, "scale", 0.5)
auto("`AutoGaussian`", EVIDENCE, trained, AG.AutoGaussian, "scale", 0.5)
auto("`AutoDelta`", MODE, finds_the_mode, AG.AutoDelta)
AUTOGUIDES.note("It finds the mode of the density with respect to Riemannian volume, which no chart moves.")


@AUTOGUIDES.cell(
    "`AutoLaplaceApproximation`", "mode on a grid, Hessian by the textbook; evidence and moments by quadrature"
)
def laplace_agrees() -> None:
    guide = settled(AG.AutoLaplaceApproximation(coordinates_model)).laplace_approximation()
    assert (guide.loc - modes()[1]).abs().max() < TOLERANCE

    def by_the_book(v: Tensor) -> Tensor:
        prior = textbook.Wrapped(2.0, (0.5, 0.3), (0.8, 1.1)).log_prob(textbook.exp(v, 2**0.5))
        return prior + dist.Normal(v, 0.3).log_prob(SEEN_COORDINATES).sum() + log_stretch(v)

    hessian = torch.autograd.functional.hessian(by_the_book, guide.loc)
    assert torch.allclose(guide.get_posterior().covariance_matrix, (-hessian).inverse(), rtol=1e-4, atol=1e-7)
    posterior_by(guide, POSTERIORS["coordinates"], 0.9)


AUTOGUIDES.note(
    "It finds the mode of the density with respect to Lebesgue measure in the chart, which is not `AutoDelta`'s; "
    "its covariance is that in the chart."
)
auto("`AutoNormalMessenger`", EVIDENCE, trained, AG.AutoNormalMessenger, "scale", 0.3)
AUTOGUIDES.note(
    "Run a messenger guide once before vectorised particles: Pyro would keep a parameter for each particle. Weigh its "
    "draws by `poutine.block(guide, hide_types=['observe'])`: `vectorized_importance_weights` counts observed sites as "
    "its own. `poutine.block(model, expose=...)` hides its parameters from the optimiser. `TraceEnum_ELBO` rejects it."
)
auto(
    "`AutoHierarchicalNormalMessenger`", EVIDENCE, trained, AG.AutoHierarchicalNormalMessenger, "scale", 0.3, slow=True
)
AUTOGUIDES.note("It reads `.mean`, the Fréchet mean, in the chart.")
auto("`AutoRegressiveMessenger`", EVIDENCE, trained, AG.AutoRegressiveMessenger)
auto("`ph.infer.AutoWrappedNormal`", EVIDENCE, trained, ph.infer.AutoWrappedNormal, "scale", 0.3)
AUTOGUIDES.note(
    "For latents far from the origin, and for latent curvatures. It is used like `AutoNormal`, also under "
    "`block(expose=)`, with `TraceEnum_ELBO` and in an `AutoGuideList`. If latents of one prior are observed "
    "through distances only, the prior's mean is a saddle: pass `init_loc_fn=init_to_sample` or `init_to_value`."
)
auto("`ph.infer.AutoWrappedMultivariateNormal`", EVIDENCE, trained, ph.infer.AutoWrappedMultivariateNormal)
AUTOGUIDES.note("The same with full covariances.")
enumerating = partial(trained, elbo=infer.TraceEnum_ELBO, steps=130)
SUMMED = ", summed over the components"
auto("`AutoGuideList`, `AutoDiscreteParallel`", EVIDENCE + SUMMED, enumerating, guide_list, "components", 0.3)
AUTOGUIDES.note("For a model whose discrete latent chooses the component.")
auto("`AutoGuideList`, `ph.infer.AutoWrappedNormal`", EVIDENCE, trained, list_by_site, "scale", 0.3)
AUTOGUIDES.note("Its medians and quantiles have every site.")
NO_BIJECTION = (NotImplementedError, "Cannot transform MixtureSameFamilyConstraint", AG.AutoNormal, mixture_model)
auto("a `MixtureSameFamily` prior", "the error", raises, *NO_BIJECTION, status="not in Pyro")
AUTOGUIDES.note(
    "torch registers no bijection for the support of a mixture, of normals either. Use a discrete latent for the "
    "component, a hand-written guide, or `ph.infer.AutoWrappedNormal`."
)
auto("`EasyGuide`", EVIDENCE, trained, EasyWrapped)
auto("`EasyGuide.map_estimate`", MODE, finds_the_mode, EasyMap)
AUTOGUIDES.note("As `AutoDelta`.")
auto("`EasyGuide.group(...).map_estimate`", MODE, finds_the_mode, EasyMapGroup, slow=True)
GROUP_SIZES = (ValueError, "shapes disagree at site 'z': torch.Size([3]) vs torch.Size([4])", EasyGroup)
auto("`EasyGuide.group(...).sample`", "the error", raises, *GROUP_SIZES, status="not in Pyro")
AUTOGUIDES.note(
    "It passes n + 1 constrained coordinates to the bijection, which takes n (also for Pyro's simplex). Sample the "
    "site itself in `guide`."
)

# Hand-written guides


def wrapped_guide() -> None:
    loc = pyro.param("loc", PRIOR_LOC.clone(), constraint=on_manifold(M))
    scale = pyro.param("scale", torch.full((2,), 0.3), constraint=constraints.positive)
    pyro.sample("z", hdist.WrappedNormal(loc, scale, M))


def wrapped_multivariate_guide() -> None:
    loc = pyro.param("loc", PRIOR_LOC.clone(), constraint=on_manifold(M))
    scale_tril = pyro.param("scale_tril", 0.3 * torch.eye(2), constraint=constraints.lower_cholesky)
    pyro.sample("z", hdist.WrappedMultivariateNormal(loc, scale_tril=scale_tril, manifold=M))


def flow_guide(flow: torch.nn.Module) -> Model:
    def guide() -> None:
        pyro.module("flow", flow)
        loc = pyro.param("loc", PRIOR_LOC.clone(), constraint=on_manifold(M))
        scale = pyro.param("scale", torch.ones(2), constraint=constraints.positive)
        pyro.sample("z", dist.TransformedDistribution(hdist.WrappedNormal(loc, scale, M), [flow]))

    return guide


def coupling_guide(_: Model, coupling: Callable = HT.tangent_coupling) -> Model:
    return flow_guide(ph.flows.coupling_flow(2, 4, coupling, hidden_dims=[32], manifold=M))


def spline_guide(_: Model) -> Model:
    return flow_guide(HT.TangentTransform(T.spline_coupling(2, 1, hidden_dims=[32], count_bins=8, bound=4.0), M))


def conditional_flow_guide(_: Model) -> Model:
    """A flow that sees the latent s before it: the hierarchy's own structure."""
    flow = ph.flows.coupling_flow(2, 2, hidden_dims=[16], manifold=M, context_dim=1)
    conditional = dist.conditional.ConditionalTransformedDistribution(hdist.WrappedNormal(PRIOR_LOC, 0.4, M), [flow])

    def guide() -> None:
        pyro.module("flow", flow)
        loc = pyro.param("s_loc", torch.tensor(-0.3))
        s = pyro.sample("s", dist.LogNormal(loc, pyro.param("s_scale", torch.tensor(0.4), constraints.positive)))
        pyro.sample("z", conditional.condition(s.log().unsqueeze(-1)))

    return guide


hand = HAND_WRITTEN.add
ring = partial(trained, which="distance", steps=150, lr=0.05, elbo=partial(infer.RenyiELBO, alpha=0.5), particles=100)
whc_guide = partial(coupling_guide, coupling=HT.wrapped_hyperboloid_coupling)
hand("`WrappedNormal`, `pyro.param(constraint=on_manifold(M))`", EVIDENCE, trained, lambda _: wrapped_guide)
hand("`WrappedMultivariateNormal`", EVIDENCE, trained, lambda _: wrapped_multivariate_guide)
hand("`coupling_flow` of tangent couplings, a ring", EVIDENCE, ring, coupling_guide, efficiency=0.4, slow=True)
HAND_WRITTEN.note(
    "Trained by `RenyiELBO(alpha=0.5)`: under `Trace_ELBO` it leaves out the thin side of the ring, at a good "
    "effective sample size."
)
hand("`coupling_flow` of wrapped hyperboloid couplings, a ring", EVIDENCE, ring, whc_guide, efficiency=0.4)
HAND_WRITTEN.note("Trained the same way.")
hand("`TangentTransform(spline_coupling)`", EVIDENCE, trained, spline_guide, efficiency=0.6, steps=100, lr=0.05)
hand("`TangentTransform(spline_coupling)`, a ring", EVIDENCE, ring, spline_guide, efficiency=0.2, slow=True)
hand("a conditional flow given another latent", EVIDENCE, trained, conditional_flow_guide, "scale", 0.5)
HAND_WRITTEN.note("`ConditionalTransformedDistribution(base, [flow]).condition(s)`.")


@HAND_WRITTEN.cell(
    "amortised: a network gives `loc` and `scale`", "evidence of six observations, moments of each, by quadrature"
)
def one_network_serves_six_observations() -> None:
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

    log_weights, trace = importance_weights(model, fitted(model, guide, 110))
    posteriors = [Posterior(partial(coordinates_model, x)) for x in seen]
    means = torch.stack([posterior.mean(moments) for posterior in posteriors])
    evidence = sum(posterior.log_evidence for posterior in posteriors)
    posterior_is(log_weights, trace.nodes["z"]["value"], evidence, means, 0.5)


HAND_WRITTEN.note("The network's output is a tangent vector: `loc = exp0(M, v)`.")

# ELBOs, of guides that are not trained


class Book(textbook.Wrapped):
    """A wrapped normal on the same manifold by the textbook, which makes of the same noise the same points."""

    def __init__(self, loc: Tensor, scale: Tensor, _: object) -> None:
        self.R, self.loc, self.scale, self._support = 2**0.5, loc, scale, on_manifold(M)
        dist.TorchDistribution.__init__(self, event_shape=loc.shape[-1:], validate_args=False)


class Score(hdist.WrappedNormal):
    """A wrapped normal without reparameterisation: gradients by the score function."""

    has_rsample = False


class BookScore(Book):
    has_rsample = False


GUIDE_LOC, GUIDE_SCALE = point(2.0, 0.9, -0.5), torch.tensor([0.35, 0.4], dtype=torch.float64)


def fixed(family: Callable = hdist.WrappedNormal) -> Any:
    loc = pyro.param("loc", GUIDE_LOC.clone(), constraint=on_manifold(M))
    return family(loc, pyro.param("scale", GUIDE_SCALE.clone(), constraint=constraints.positive), M)


def at_the_prior() -> hdist.WrappedNormal:
    return hdist.WrappedNormal(PRIOR_LOC, pyro.param("scale", GUIDE_SCALE.clone(), constraints.positive), M)


def losses(elbo: Any, model: Model, guide: Model, calls: int = 2) -> Tensor:
    """The loss and its gradient by each of some calls of ``loss_and_grads``, from one seed."""
    guide()
    pyro.set_rng_seed(1)
    parameters = [value for _, value in pyro.get_param_store().named_parameters()]
    rows = []
    for _ in range(calls):
        for value in parameters:
            value.grad = None
        loss = elbo.loss_and_grads(model, guide)
        loss = loss[1] if isinstance(loss, tuple) else loss  # wake-sleep: that of the guide
        rows.append(torch.cat([torch.tensor([loss]), *(value.grad.flatten() for value in parameters)]))
    return torch.stack(rows)


def losses_are(expected: Tensor, elbo: Any, model: Model, guide: Model, precision: float = 0.05) -> None:
    """The mean loss and the mean gradient are an expected loss and its gradient, to a small standard error."""
    gradients = torch.autograd.grad(expected, [value for _, value in pyro.get_param_store().named_parameters()])
    expected = torch.cat([expected.detach().reshape(1), *(g.flatten() for g in gradients)])
    found = losses(elbo, model, guide, 60)
    errors = found.std(0) / len(found) ** 0.5
    assert (errors < precision * (1 + expected.abs())).all(), f"errors {errors.tolist()} of {expected.tolist()}"
    mean_is(found, expected)


def by_quadrature(elbo: Callable, model: Model = coordinates_model, which="coordinates", q: Callable = fixed) -> None:
    posterior = POSTERIORS[which]
    expected = -posterior.elbo(q().log_prob(posterior.grid["z"]))
    losses_are(expected, elbo(), model, lambda: pyro.sample("z", q()))


def by_the_book(elbo: Callable, families: tuple = (hdist.WrappedNormal, Book), **site: Any) -> None:
    """Draw for draw, losses and gradients are those of a model and a guide without the library."""

    def of(family: Callable) -> Tensor:
        def model() -> None:
            z = pyro.sample("z", family(PRIOR_LOC, PRIOR_SCALE, M))
            pyro.sample("x", dist.Normal(textbook.log(z, 2**0.5), 0.3).to_event(1), obs=SEEN_COORDINATES)

        def guide(observations: dict[str, Tensor] | None = None) -> None:
            pyro.sample("z", fixed(family), infer=site)

        return losses(elbo(), model, guide)

    ours, theirs = map(of, families)
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    assert not torch.equal(ours[0], ours[1])


def as_trace_elbo(elbo: Callable, reference: Callable, make: Callable, calls: int = 2) -> None:
    """Draw for draw, losses and gradients are those of Trace_ELBO."""
    ours, theirs = (losses(each(), *make(), calls) for each in (elbo, reference))
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def by_hand() -> tuple[Model, Model]:
    return coordinates_model, lambda: pyro.sample("z", fixed())


def by_autonormal(prior: Callable = wrapped_prior, copies: int = 0) -> tuple[Model, Model]:
    def model() -> None:
        d = prior()
        with pyro.plate("copies", copies) if d.batch_shape else contextlib.nullcontext():
            z = pyro.sample("z", d)
            seen = SEEN_COORDINATES.expand((*z.shape[:-1], 2))
            pyro.sample("x", dist.Normal(G.log0(M, z), 0.3).to_event(d.event_dim), obs=seen)

    return model, AG.AutoNormal(model)


class Energy(infer.EnergyDistance):
    def loss_and_grads(self, model: Model, guide: Model) -> float:
        loss = self(model, guide)
        loss.backward()
        return loss.item()


def vectorised(elbo: Callable, particles: int = 400, nesting: int = 1, **options: Any) -> Callable:
    return partial(elbo, num_particles=particles, vectorize_particles=True, max_plate_nesting=nesting, **options)


FLOW = shaken(ph.flows.coupling_flow(2, 2, manifold=M), 0.4).requires_grad_(False)
BOOK, TRACE = "value and gradient by the textbook, draw for draw", "value and gradient of `Trace_ELBO`, draw for draw"
QUADRATURE = "value and gradient by quadrature"
law, jitted = ELBOS.add, partial(vectorised, ignore_jit_warnings=True)
trace_elbo, mean_field = vectorised(infer.Trace_ELBO), vectorised(infer.TraceMeanField_ELBO)
graph_elbo, scores = vectorised(infer.TraceGraph_ELBO), (Score, BookScore)
jit_pair = jitted(infer.JitTraceMeanField_ELBO), jitted(infer.JitTrace_ELBO)
law("`Trace_ELBO`", BOOK, by_the_book, partial(infer.Trace_ELBO, num_particles=3))
law("`Trace_ELBO(vectorize_particles=True)`", QUADRATURE, by_quadrature, trace_elbo)
law("`Trace_ELBO`, score-function gradients", BOOK, by_the_book, trace_elbo, scores)
law("`JitTrace_ELBO`", BOOK, by_the_book, jit_pair[1])
law("`TraceGraph_ELBO`", BOOK, by_the_book, vectorised(infer.TraceGraph_ELBO))
law(
    "`TraceGraph_ELBO`, score-function gradients",
    BOOK,
    by_the_book,
    vectorised(infer.TraceGraph_ELBO),
    (Score, BookScore),
)
law("`JitTraceGraph_ELBO`", BOOK, by_the_book, jitted(infer.JitTraceGraph_ELBO))
law("`TraceMeanField_ELBO`", TRACE, as_trace_elbo, mean_field, trace_elbo, by_hand)
law("`TraceMeanField_ELBO`, guide at the prior's location", QUADRATURE, by_quadrature, mean_field, q=at_the_prior)
ELBOS.note("There the Kullback-Leibler divergence is in closed form, that of the normals.")
law("`JitTraceMeanField_ELBO`", TRACE, as_trace_elbo, *jit_pair, by_hand, calls=1)
ELBOS.note("Pyro 1.9.2 compiles it again at each step.")
for what, *prior in [
    ("`WrappedNormal` prior",),
    ("prior in a plate", lambda: wrapped_prior().expand([2]), 2),
    ("prior `.to_event(1)`", lambda: wrapped_prior().expand([2]).to_event(1)),
    ("prior `.mask(True)`", lambda: wrapped_prior().mask(True)),
    ("flow prior", lambda: dist.TransformedDistribution(wrapped_prior(), [FLOW])),
]:
    make = partial(by_autonormal, *prior)
    law(f"`TraceMeanField_ELBO`, `AutoNormal`, {what}", TRACE, as_trace_elbo, mean_field, trace_elbo, make)
law("`JitTraceMeanField_ELBO`, `AutoNormal`", TRACE, as_trace_elbo, *jit_pair, by_autonormal, calls=1)


@ELBOS.cell("`TraceMeanField_ELBO`, `AutoNormal`, with a `LogNormal` latent", QUADRATURE)
def mean_field_beside_a_scale() -> None:
    """Pyro's own latent has a log-determinant in its autoguide too: E log q(s) includes -E log s."""
    posterior = POSTERIORS["scale"]
    start = AG.init_to_value(values={"s": torch.tensor(0.6), "z": GUIDE_LOC})
    guide = AG.AutoNormal(posterior.model, init_loc_fn=start, init_scale=0.4)
    guide()
    v, log_s = G.log0(M, posterior.grid["z"]), posterior.log_s.unsqueeze(-1)
    log_q = dist.Normal(guide.locs.z, guide.scales.z).log_prob(v).sum(-1) - log_stretch(v)
    log_q = log_q + dist.Normal(guide.locs.s, guide.scales.s).log_prob(log_s) - log_s
    losses_are(-posterior.elbo(log_q), mean_field(), posterior.model, guide, precision=0.1)
    as_trace_elbo(mean_field, trace_elbo, lambda: (posterior.model, guide))


ELBOS.note(
    "Pyro's `kl(Delta, ...)` drops `Delta.log_density`, in which autoguides keep the log-determinant of a "
    "constrained site, and the loss is wrong without a warning. Importing this package replaces the rule by the "
    "right one, for every prior."
)
law("`RenyiELBO(alpha=0)`, the IWAE", BOOK, by_the_book, vectorised(infer.RenyiELBO))
law("`RenyiELBO(alpha=0.5)`", BOOK, by_the_book, vectorised(infer.RenyiELBO, alpha=0.5))
law("`TraceEnum_ELBO`", QUADRATURE, by_quadrature, vectorised(infer.TraceEnum_ELBO), components_model, "components")
law("`JitTraceEnum_ELBO`", QUADRATURE, by_quadrature, jitted(infer.JitTraceEnum_ELBO), components_model, "components")
mixture = (by_quadrature, trace_elbo, mixture_model, "components")
law("`Trace_ELBO`, `MixtureSameFamily` prior", QUADRATURE + SUMMED, *mixture)
law("`TraceTailAdaptive_ELBO`", BOOK, by_the_book, vectorised(infer.TraceTailAdaptive_ELBO))
two_values = {"enumerate": "parallel", "num_samples": 2, "expand": False}
law("`TraceTMC_ELBO`", BOOK, by_the_book, vectorised(infer.TraceTMC_ELBO, 1), **two_values)
wake_sleep = vectorised(infer.ReweightedWakeSleep, insomnia=0.5, model_has_params=False)
law("`ReweightedWakeSleep(insomnia=0.5)`", BOOK, by_the_book, wake_sleep)
ELBOS.note("Wake and sleep phase together; the guide takes `observations`.")
law("`EnergyDistance`", BOOK, by_the_book, partial(Energy, prior_scale=0.2, num_particles=2, max_plate_nesting=1))
ELBOS.note("Observed numbers only: of observed points it would take ambient differences, not distances.")
