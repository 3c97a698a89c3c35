"""What the inference matrix asserts: that an estimate is the truth within its standard errors."""

from collections.abc import Callable
from typing import Any

import pyro
import scipy.stats
import torch
from pyro import poutine
from pyro.infer import MCMC, SVI, Trace_ELBO
from pyro.infer.importance import vectorized_importance_weights
from pyro.ops.stats import effective_sample_size
from torch import Tensor

from tests import textbook
from tests.cases import TEST_FAILURE_RATE
from tests.pyro.inference_truth import Model, Posterior, moments

Moments = Callable[[Tensor], Tensor]
STANDARD_ERRORS = float(scipy.stats.norm.isf(TEST_FAILURE_RATE / 2))  # 4.3


def near(found: Tensor, error: Tensor | float, truth: Tensor | float) -> None:
    """An estimate is the truth within 4.3 of its standard errors."""
    away = (found - truth) / error
    assert away.abs().max() < STANDARD_ERRORS, f"{away.tolist()} standard errors from the truth"


def mean_is(values: Tensor, truth: Tensor | float) -> None:
    """The mean of independent values."""
    near(values.mean(0), values.std(0) / len(values) ** 0.5 + 1e-9, truth)


def one_chain_is(values: Tensor, truth: Tensor) -> None:
    """The mean of a Markov chain."""
    size = effective_sample_size(values.unsqueeze(0))
    assert size.min() > 30
    near(values.mean(0), values.std(0) / size.sqrt(), truth)


def evidence_is(log_weights: Tensor, truth: float) -> None:
    """The log of the mean of importance weights, which must scatter little for the standard error to be one."""
    weights = (log_weights - truth).detach().exp()
    assert weights.std() / len(weights) ** 0.5 < 0.1
    mean_is(weights, 1.0)


def posterior_is(
    log_weights: Tensor, z: Tensor, evidence: float, truth: Tensor, efficiency: float = 0.0, moments: Moments = moments
) -> None:
    """The evidence and the means of moments(z) by weighted draws, and how many equal weights these are worth."""
    evidence_is(log_weights, evidence)
    weights, values = log_weights.softmax(0), moments(z).flatten(1)
    mean = weights @ values
    near(mean, (weights.square() @ (values - mean).square()).sqrt(), truth.flatten())
    found = float(1 / weights.square().sum() / len(weights))
    assert found > efficiency, f"effective sample size {found:.3f}"


def importance_weights(model: Model, guide: Model, number: int = 10_000) -> tuple[Tensor, Any]:
    """The log-weights of draws of a guide, and the traces of the model."""
    guide = poutine.block(guide, hide_types=["observe"])  # guides that are effects also run the model
    with torch.no_grad():
        return vectorized_importance_weights(model, guide, num_samples=number, max_plate_nesting=1)[:2]


def evidence_by(model: Model, guide: Model, truth: float) -> None:
    """The evidence by importance weights of a guide."""
    evidence_is(importance_weights(model, guide)[0], truth)


def posterior_by(guide: Model, posterior: Posterior, efficiency: float = 0.0) -> None:
    """The evidence and moments by importance weights of a guide."""
    log_weights, trace = importance_weights(posterior.model, guide)
    truth = posterior.log_evidence, posterior.mean(moments)
    posterior_is(log_weights, trace.nodes["z"]["value"], *truth, efficiency)


def fitted(
    model: Model,
    guide: Model,
    steps: int = 70,
    lr: float = 0.07,
    elbo: Any = Trace_ELBO,
    particles: int = 8,
    decay: float = 0.1,
) -> Model:
    """A guide, trained by SVI with a falling learning rate."""
    guide()  # some guides take the shapes of their parameters from the first run, which must be of one particle
    objective = elbo(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": lr, "lrd": decay ** (1 / steps)}), objective)
    for _ in range(steps):
        svi.step()
    return guide


def chain(kernel: object, draws: int = 15, warmup: int = 25, *args: object) -> dict[str, Tensor]:
    mcmc = MCMC(kernel, num_samples=draws, warmup_steps=warmup, disable_progbar=True)
    mcmc.run(*args)
    return mcmc.get_samples()


def copies(model: Model, number: int = 400) -> Model:
    """A model in a plate: as many independent posteriors."""

    def replicated() -> None:
        with pyro.plate("copies", number):
            model()

    return replicated


def book_density(loc: tuple[float, ...], scale: Tensor, z: Tensor) -> Tensor:
    """The log-density of a wrapped normal at k = 2, without the library."""
    return textbook.Wrapped(2.0, loc, tuple(scale.tolist())).log_prob(z).detach()
