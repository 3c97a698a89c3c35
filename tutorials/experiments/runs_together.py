"""Several runs of the VAE at once: the same class, each network with one more batch dimension.

A step on so few numbers takes the time of calling its operations, so ten runs at once take little more time than one.
The runs are independent: the loss is the sum of theirs, and Adam updates each parameter separately. Except for the
noise of the sampler, results are those of separate runs, each with its own data, split and initial weights.
"""

import math
import os
import sys
from pathlib import Path

import geoopt
import pyro
import torch
from pyro.infer.importance import vectorized_importance_weights
from pyro.nn import pyro_method

import pyro_hyperbolic as ph

sys.path.insert(0, str(Path(__file__).parent.parent))
import hyperbolic_vae
import vae_data

SAMPLES = 5 if "SMOKE_TEST" in os.environ else 500
STEP = 5  # test points to score at once, with all their samples


class AsPublished(hyperbolic_vae.VAE):
    """The VAE of the paper's code, which adds a volume term to the density of the guide, also in training."""

    @pyro_method
    def guide(self, x):
        with pyro.plate_stack("data", x.shape[:-1]):
            z = pyro.sample("z", self.posterior(x))
            pyro.factor("volume", volume_counted_twice(self, z), has_rsample=True)


class PlanesVAE(hyperbolic_vae.VAE):
    """The VAE whose decoder reads the point: gyroplanes, on Euclidean space hyperplanes."""

    def __init__(self, data_dim, dim, manifold, coupling=None, hidden_dim=200, **options):
        super().__init__(data_dim, dim, manifold, coupling, hidden_dim, **options)
        self.decoder.layers[0] = ph.nn.Gyroplanes(dim, hidden_dim, manifold)

    def decode(self, z):
        return self.decoder(z)


class FlatCode(PlanesVAE):
    """The N-VAE with the decoder of the H-VAE: gyroplanes, applied to exp_o of the Euclidean latent.

    Under the prior the decoded points have the same distribution as in the H-VAE. So the H-VAE differs only in the
    posterior, and the N-VAE only in the first layer of the decoder.
    """

    def __init__(self, data_dim, dim, manifold, coupling=None, **options):
        super().__init__(data_dim, dim, manifold, coupling, **options)
        self.space, self.manifold = manifold, geoopt.Euclidean(1)

    def decode(self, z):
        return self.decoder(ph.geometry.exp0(self.space, z))


def volume_counted_twice(vae, z):
    """Returns (n - 1) (log R + log(sinh r / r)), where R is the radius of curvature and r R the distance of z from o.

    The density of a wrapped normal already contains it. Zero on flat space.
    """
    if not hasattr(vae.manifold, "k"):
        return torch.zeros(z.shape[:-1])
    volume = ph.geometry.log_volume(vae.manifold, ph.geometry.log0(vae.manifold, z))
    return volume + (vae.dim - 1) * vae.manifold.k.log() / 2


class Linears(torch.nn.Module):
    """One linear layer per run: maps ``(*, runs, batch, in)`` to ``(*, runs, batch, out)``."""

    def __init__(self, layers):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.stack([layer.weight.detach().mT for layer in layers]))
        self.bias = torch.nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]).unsqueeze(-2))

    def forward(self, x):
        if x.dim() == 3:
            return torch.baddbmm(self.bias, x, self.weight)
        folded = x.movedim(-3, 0)  # one matrix product per run, over all samples
        y = torch.baddbmm(self.bias, folded.flatten(1, -2), self.weight)
        return y.unflatten(1, folded.shape[1:-1]).movedim(0, -3)


def together(make, manifold, seeds):
    """Returns a VAE that holds one run per seed: ``make(manifold)`` after setting that seed."""
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
    loaded = [vae_data.load(seed) for seed in seeds]

    def batches():
        for several in zip(*(batches() for batches, *_ in loaded), strict=True):
            yield torch.stack(several)

    return batches, torch.stack([test for _, test, *_ in loaded])


@torch.no_grad()
@pyro.validation_enabled(False)  # so that a failed run gives NaN instead of an error
def score(vae, data, num_samples=SAMPLES):
    """Returns for each run the ELBO, the importance-weighted log-likelihood, its standard error, the paper's estimate.

    ``published`` is the estimator of the paper's code: it subtracts :func:`volume_counted_twice` from each log-weight.
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
    """Returns the curvature of the space that the decoder reads, one value per run."""
    space = getattr(vae, "space", vae.manifold)
    return space.curvature.detach().squeeze(-1) if hasattr(space, "k") else torch.zeros(())
