# %% [markdown]
# # Single cells: scVI with a hyperbolic latent space
#
# $$\begin{gathered}
#   z_n \sim \mathrm{WN}(o, I), \qquad \rho_n = \operatorname{softmax} f(z_n, s_n), \\
#   x_{ng} \sim \mathrm{NegativeBinomial}(\text{mean } \ell_n \rho_{ng},\ \text{dispersion } \theta_g), \\
#   q(z_n \mid x_n, s_n) = \mathrm{WN}(\exp_o \mu_n, \sigma_n)
# \end{gathered}$$
#
# Cell $n$ has counts $x_n$, batch $s_n$ and library size $\ell_n = \sum_g x_{ng}$. Differentiating cells branch, and
# trees fit into the hyperbolic plane. The manifold is an argument, so the Euclidean twin is the same code. By default
# the data are simulated along a known tree; `tutorials/experiments/single_cells.py` has the table over fresh seeds.
# Names are those of scvi-tools.
#
#     python tutorials/single_cell.py                             # both models, principal components, and the picture
#     python tutorials/single_cell.py --data cells.h5ad --layer counts --batch-key batch --label-key cell_type

# %%
import argparse
import os
from pathlib import Path

import cells  # in this folder
import geoopt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.nn import DenseNN, PyroModule, PyroParam, pyro_method
from rich.console import Console
from rich.progress import track
from torch.nn.functional import one_hot, softplus

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist

pyro.settings.set(module_local_params=True)
SMOKE = "SMOKE_TEST" in os.environ
MANIFOLDS = {"euclidean": lambda: geoopt.Euclidean(1), "hyperbolic": lambda: ph.manifolds.Lorentz(learnable=True)}

# %% [markdown]
# ## The model and the guide
#
# The decoder's first layer is `ph.nn.Gyroplanes`, distances of the point to learned hyperplanes, because a decoder of
# $\log_o z$ would see no curvature. On Euclidean space the layer is `torch.nn.Linear`.


# %%
class CellVAE(PyroModule):
    """A variational autoencoder of counts, with latents on a manifold."""

    def __init__(self, n_input, n_batch, manifold, n_latent=2, n_hidden=128):
        super().__init__()
        self.n_batch, self.manifold, self.n_latent = n_batch, manifold, n_latent
        self.z_encoder = DenseNN(n_input + n_batch, [n_hidden], [n_latent, n_latent])
        self.planes = ph.nn.Gyroplanes(n_latent, n_hidden, manifold)
        self.decoder = DenseNN(n_hidden + n_batch, [n_hidden], [n_input])
        self.px_r = PyroParam(torch.ones(n_input), constraint=dist.constraints.positive)

    def with_batch(self, x, batch):
        return torch.cat([x, one_hot(batch, self.n_batch).to(x).expand(*x.shape[:-1], -1)], -1)

    @pyro_method
    def model(self, x, x_log, batch):
        origin = ph.geometry.origin(self.manifold, self.n_latent)
        with pyro.plate("cells", len(x)):
            z = pyro.sample("z", hdist.WrappedNormal(origin, 1.0, self.manifold))
            log_px_scale = self.decoder(self.with_batch(self.planes(z).relu(), batch)).log_softmax(-1)
            logits = x.sum(-1, keepdim=True).log() + log_px_scale - self.px_r.log()
            pyro.sample("x", dist.NegativeBinomial(self.px_r, logits=logits).to_event(1), obs=x)

    @pyro_method
    def guide(self, x, x_log, batch):
        loc, scale = self.z_encoder(self.with_batch(x_log, batch))
        posterior = hdist.WrappedNormal(ph.geometry.exp0(self.manifold, loc), softplus(scale), self.manifold)
        with pyro.plate("cells", len(x)):
            pyro.sample("z", posterior)

    @torch.no_grad()
    def get_latent_representation(self, x_log, batch):
        """Returns the locations of the posteriors."""
        return ph.geometry.exp0(self.manifold, self.z_encoder(self.with_batch(x_log, batch))[0])


# %% [markdown]
# ## Training and scoring
#
# A model is scored by the held-out log-likelihood $\log \frac 1 S \sum_s p(x, z_s) / q(z_s \mid x)$ of each cell.


# %%
def train(vae, data, epochs=150, batch_size=256, lr=3e-3):
    """Trains on random minibatches."""
    elbo, optimizer = Trace_ELBO()(vae.model, vae.guide), torch.optim.Adam(vae.parameters(), lr, fused=True)
    for epoch in track(range(epochs), "training", console=Console(stderr=True)):
        for batch in data.batches(data.train[torch.randperm(len(data.train))], batch_size):
            with pyro.validation_enabled(epoch == 0):
                loss = elbo(*batch) / len(batch[0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def log_likelihood(vae, data, num_samples=5 if SMOKE else 100):
    """Returns the importance-weighted estimate for each held-out cell."""
    batches = data.batches(data.test, 20)
    found = [ph.infer.log_weights(vae.model, vae.guide, *batch, num_samples=num_samples) for batch in batches]
    return torch.cat(found, 1).logsumexp(0) - np.log(num_samples)


# %% [markdown]
# ## The table and the picture
#
# The simplest rival is principal components of log-normalised counts, less the means of batches. Accuracy is that of
# labels from 5 neighbours, correlation that of distances with the lineage's (Spearman), and mixing the share of
# neighbours from other batches, 1 if batches do not matter. No model sees the lineage or its branches.


# %%
def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, help="AnnData file (h5ad) of counts; simulated by default")
    parser.add_argument("--layer", help="layer of the counts; X by default")
    for key in ("--batch-key", "--label-key"):
        parser.add_argument(key, help="column of obs")
    parser.add_argument("--manifold", choices=MANIFOLDS, help="one model instead of both")
    parser.add_argument("--n-latent", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1 if SMOKE else 150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/single_cell"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data, latents = cells.load(args.data, args.seed, args.batch_key, args.label_key, args.layer), {}
    for name in [args.manifold] if args.manifold else MANIFOLDS:
        pyro.set_rng_seed(args.seed)
        vae = CellVAE(data.counts.size(1), data.n_batch, MANIFOLDS[name](), args.n_latent)
        train(vae, data, args.epochs)
        z = vae.get_latent_representation(data.log_normalised, data.batch)
        np.savetxt(args.out / f"{name}.csv", z, delimiter=",")  # a row for each cell, in the order of the file
        latents[name] = vae.manifold, z, log_likelihood(vae, data).mean()
    Console().print(cells.table(latents, data, args.n_latent))
    if args.n_latent == 2:
        cells.pictures(latents, data).savefig(args.out / "cells.png", dpi=150)


if __name__ == "__main__":
    main()
