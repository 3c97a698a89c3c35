"""Several runs of the VAE at once: the same class, each network with one more batch dimension.

A step on a few hundred numbers costs what its operations cost to call, so ten runs in one take little more time than
one. They do not touch each other: the loss is the sum of theirs, and Adam treats each parameter by itself. What comes
out is what each run would give alone, with its own data, split and initial weights, but for the noise of the sampler.
"""

import math
import os
import sys
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.importance import vectorized_importance_weights
from pyro.nn import pyro_method

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist

sys.path.insert(0, str(Path(__file__).parent.parent))
import hyperbolic_vae

SAMPLES = 5 if "SMOKE_TEST" in os.environ else 500
STEP = 5  # test points scored at once, with all their samples


class AsPublished(hyperbolic_vae.VAE):
    """The VAE of the paper's code, which adds a volume to the density of the guide, in training too."""

    @pyro_method
    def guide(self, x):
        with pyro.plate_stack("data", x.shape[:-1]):
            z = pyro.sample("z", self.posterior(x))
            pyro.factor("volume", volume_counted_twice(self, z), has_rsample=True)


class FlatCode(hyperbolic_vae.VAE):
    """A flat code and its Euclidean posterior, with the decoder of a curved one: gyroplanes, at exp_o of the code.

    Under the prior the points that are decoded have the distribution that they have in the H-VAE. So what tells the two
    apart is the posterior, and what tells this one from the N-VAE is the decoder's first layer.
    """

    def __init__(self, data_dim, dim, manifold, coupling=None, **options):
        super().__init__(data_dim, dim, manifold, coupling, gyroplanes=True, **options)
        self.space, self.manifold = manifold, geoopt.Euclidean(1)

    @pyro_method
    def model(self, x):
        with pyro.plate_stack("data", x.shape[:-1]):
            z = pyro.sample("z", hdist.WrappedNormal(ph.geometry.origin(self.manifold, self.dim), 1.0, self.manifold))
            output = self.decoder(ph.geometry.exp0(self.space, z))
            pyro.sample("x", dist.Normal(output, 1.0).to_event(1), obs=x)


def volume_counted_twice(vae, z):
    """Returns (n - 1) (log R + log(sinh r / r)), where R is the radius of curvature and r R the distance of z from o.

    The log-determinant of log_o, which the density of a wrapped normal has already; nothing where space is flat.
    """
    if not hasattr(vae.manifold, "k"):
        return torch.zeros(z.shape[:-1])
    volume = ph.geometry.log_volume(vae.manifold, ph.geometry.log0(vae.manifold, z))
    return volume + (vae.dim - 1) * vae.manifold.k.log() / 2


class Linears(torch.nn.Module):
    """A linear layer of each run: ``(*, runs, batch, in)`` to ``(*, runs, batch, out)``."""

    def __init__(self, layers):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.stack([layer.weight.detach().mT for layer in layers]))
        self.bias = torch.nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]).unsqueeze(-2))

    def forward(self, x):
        if x.dim() == 3:
            return torch.baddbmm(self.bias, x, self.weight)
        folded = x.movedim(-3, 0)  # samples beside the points of their run: one product for each run
        y = torch.baddbmm(self.bias, folded.flatten(1, -2), self.weight)
        return y.unflatten(1, folded.shape[1:-1]).movedim(0, -3)


def together(make, manifold, seeds):
    """Returns the VAE that holds one run for each seed: ``make(manifold)`` after that seed has been set."""
    vaes = []
    for seed in seeds:
        pyro.set_rng_seed(seed)
        vaes.append(make(manifold))
    merged = vaes[0]
    for path, module in list(merged.named_modules()):
        same = [vae.get_submodule(path) for vae in vaes]
        if isinstance(module, torch.nn.Linear):
            parent, _, name = path.rpartition(".")
            setattr(merged.get_submodule(parent), name, Linears(same))
        elif isinstance(module, ph.nn.Gyroplanes):
            module.weight, module.offset = (
                torch.nn.Parameter(torch.stack([getattr(layer, name).detach() for layer in same]))
                for name in ("weight", "offset")
            )
    return merged


def data_of(seeds):
    """Returns a function that yields the batches of all runs, each shuffled by its own seed, and their test data."""
    loaded = [hyperbolic_vae.load(seed) for seed in seeds]

    def batches():
        for several in zip(*(batches() for batches, *_ in loaded), strict=True):
            yield torch.stack(several)

    return batches, torch.stack([test for _, test, *_ in loaded])


@torch.no_grad()
@pyro.validation_enabled(False)  # the samples are the guide's own, and a run that has failed is to be reported
def score(vae, data, num_samples=SAMPLES):
    """Returns for each run the ELBO, the importance-weighted log-likelihood, its standard error, the paper's estimate.

    ``published`` is the estimator of the paper's code: :func:`volume_counted_twice` at each sample is subtracted from
    the logarithm of its weight.
    """
    nesting = data.dim() - 1
    kept = {"elbo": [], "likelihood": [], "published": []}
    for x in data.split(STEP, dim=-2):
        _, model, guide = vectorized_importance_weights(
            vae.model, vae.guide, x, num_samples=num_samples, max_plate_nesting=nesting
        )
        z = model.nodes["z"]["value"]
        log_w = model.nodes["z"]["log_prob"] + model.nodes["x"]["log_prob"] - guide.nodes["z"]["log_prob"]
        extra = volume_counted_twice(vae, z)
        kept["elbo"].append(log_w.mean(0))
        for name, weights in (("likelihood", log_w), ("published", log_w - extra)):
            kept[name].append(weights.logsumexp(0) - math.log(num_samples))
    kept = {name: torch.cat(parts, -1) for name, parts in kept.items()}
    scores = {name: value.mean(-1) for name, value in kept.items()}
    scores["error"] = kept["likelihood"].std(-1) / data.size(-2) ** 0.5
    return scores


def curvature_of(vae):
    """Returns the curvature of the space of what is decoded, of each run if there are several."""
    space = getattr(vae, "space", vae.manifold)
    return space.curvature.detach().squeeze(-1) if hasattr(space, "k") else torch.zeros(())
