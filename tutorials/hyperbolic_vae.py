# %% [markdown]
# # A hyperbolic VAE is just a model and a guide
#
# $$\begin{gathered}
#   z \sim \mathrm{WN}(o, I), \qquad x \mid z \sim p(x \mid \mathrm{dec}(\log_o z)), \\
#   q(z \mid x) = f_\# \, \mathrm{WN}(\exp_o \mu(x), \sigma(x))
# \end{gathered}$$
#
# The latent manifold, the flow $f$ and whether curvature is learned are arguments of one class. With
# `geoopt.Euclidean(1)` the same code is the ordinary VAE and RealNVP.
#
#     python tutorials/hyperbolic_vae.py                       # five models on a branching diffusion, some minutes
#     python tutorials/hyperbolic_vae.py --data MNIST_DIR --dim 6 --models WHC --epochs 5
#     python tutorials/hyperbolic_vae.py --manifold h2,h2,e2
#
# Models and data are those of Bose et al., 2020 (arXiv:2002.06336). `tutorials/experiments` has their tables, over many
# seeds, and `tutorials/product_vae.py` has products with spheres.

# %%
import argparse
import math
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.nn import DenseNN, PyroModule, pyro_method
from rich.console import Console
from rich.progress import track
from torch.nn.functional import softplus
from vae_data import latent, load, picture  # in this folder

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT

# Parameters live in modules, where torch's optimisers look for them, not in Pyro's global store.
pyro.settings.set(module_local_params=True)

# %% [markdown]
# ## The model and the guide
#
# The decoder reads the tangent vector $\log_o z$. `ph.nn.Gyroplanes` as its first layer would read the point.


# %%
class VAE(PyroModule):
    def __init__(self, data_dim, dim, manifold, coupling=None, hidden_dim=200, likelihood="normal"):
        super().__init__()
        self.dim, self.manifold, self.likelihood = dim, manifold, likelihood
        self.encoder = DenseNN(data_dim, [hidden_dim], [dim, dim])
        self.decoder = DenseNN(dim, [hidden_dim], [data_dim])
        self.flow = ph.flows.coupling_flow(dim, 2, coupling, [128], manifold) if coupling else None

    @pyro_method
    def model(self, x):
        with pyro.plate_stack("data", x.shape[:-1]):
            z = pyro.sample("z", hdist.WrappedNormal(ph.geometry.origin(self.manifold, self.dim), 1.0, self.manifold))
            output = self.decode(z)
            p = dist.Normal(output, 1.0) if self.likelihood == "normal" else dist.Bernoulli(logits=output)
            pyro.sample("x", p.to_event(1), obs=x)

    def decode(self, z):
        return self.decoder(ph.geometry.log0(self.manifold, z))

    @pyro_method
    def guide(self, x):
        with pyro.plate_stack("data", x.shape[:-1]):
            pyro.sample("z", self.posterior(x))

    def posterior(self, x):
        loc, scale = (value.to(x.dtype) for value in self.encoder(x))  # bfloat16 in mixed precision
        base = hdist.WrappedNormal(ph.geometry.exp0(self.manifold, loc), softplus(scale), self.manifold)
        return dist.TransformedDistribution(base, [self.flow]) if self.flow else base


# %% [markdown]
# ## Training and scoring
#
# Both bounds come from importance weights $w_{si} = p(x_i, z_{si}) / q(z_{si} \mid x_i)$: the ELBO is the mean of
# $\log w_{si}$, the log-likelihood estimate the mean over $i$ of $\log \frac 1 S \sum_s w_{si}$.


# %%
def train(vae, batches, epochs):
    """Trains, and yields the mean ELBO of each epoch."""
    elbo, optimizer = Trace_ELBO()(vae.model, vae.guide), torch.optim.Adam(vae.parameters(), lr=1e-3, fused=True)
    for epoch in range(epochs):
        total = count = 0
        for x in batches():
            with pyro.validation_enabled(epoch == 0):  # it takes a sixth of a step
                loss = elbo(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, count = total - loss.item(), count + x[..., 0].numel()
        yield total / count


def score(vae, data, num_samples=500):
    """Returns the test ELBO, and the importance-weighted log-likelihood with its standard error over data points."""
    parts = [ph.infer.log_weights(vae.model, vae.guide, x, num_samples=num_samples) for x in data.split(20)]
    weights = torch.cat(parts, dim=1)
    likelihood = weights.logsumexp(0) - math.log(num_samples)
    return weights.mean().item(), likelihood.mean().item(), likelihood.std().item() / len(likelihood) ** 0.5


# %% [markdown]
# ## Five models
#
# The picture shows means of posteriors of test points, and the true tree, which no model sees.

# %%
MODELS = {  # the latent space, and the layers of the flow
    "Euclidean": ("e", None),
    "hyperbolic": ("h", None),
    "RealNVP": ("e", HT.tangent_coupling),
    "TC": ("h", HT.tangent_coupling),
    "WHC": ("h", HT.wrapped_hyperboloid_coupling),
}


def fit(name, args):
    """Returns a trained model of a name, or with a product such as h2,h2,e2 as latent space, and its scores."""
    pyro.set_rng_seed(args.seed)
    space, coupling = MODELS.get(name, ("", None))
    M, dim = latent(space + str(args.dim) if space else name)
    batches, test_x, options = load(args.seed, args.data)
    vae = VAE(test_x.size(-1), dim, M, coupling, **options)
    list(train(vae, batches, args.epochs))
    return vae, score(vae, test_x)


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the four MNIST idx files, instead of the diffusion")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--manifold", help="latent space of one other model instead, such as h2,h2,e2")
    parser.add_argument("--dim", type=int, default=2, help="dimension of the latent space of the models")
    parser.add_argument("--epochs", type=int, default=2 if "SMOKE_TEST" in os.environ else 1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="models that train side by side")
    parser.add_argument("--out", type=Path, default=Path("results/hyperbolic_vae"), help="where results are written")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    vaes, names = {}, [args.manifold] if args.manifold else args.models
    with ProcessPoolExecutor(args.processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        fits = (pool.map if args.processes > 1 else map)(partial(fit, args=args), names)
        progress = track(fits, "models", len(names), console=Console(stderr=True))
        for name, (vae, scores) in zip(names, progress, strict=True):
            vaes[name] = vae
            torch.save(vae.state_dict(), args.out / f"{name}.pt")
            curvatures = [f"{M.curvature:.2f}" for M in vae.manifold.modules() if hasattr(M, "curvature")]
            learned = f", curvature {', '.join(curvatures)}" if curvatures else ""
            print("{:10} test ELBO {:.2f}, log-likelihood {:.2f} ± {:.2f}{}".format(name, *scores, learned))
    shown = {name: vae for name, vae in vaes.items() if vae.dim == 2 and not vae.flow}
    if shown and args.data is None:
        picture(shown, args.seed).savefig(args.out / "embedding.png", dpi=150)


if __name__ == "__main__":
    main()
