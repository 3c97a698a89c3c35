# %% [markdown]
# # A hyperbolic VAE is just a model and a guide
#
# $$z \sim \mathrm{WN}(o, I), \qquad x \mid z \sim p(x \mid \mathrm{dec}(\log_o z)), \qquad
#   q(z \mid x) = f_\# \, \mathrm{WN}(\exp_o \mu(x), \sigma(x))$$
#
# The latent manifold, the flow $f$ and whether curvature is learned are arguments of one class; with
# `geoopt.Euclidean(1)` the same code is the ordinary VAE and RealNVP. Run it:
#
#     python tutorials/hyperbolic_vae.py                                      # five models on a branching diffusion
#     python tutorials/hyperbolic_vae.py --data MNIST_DIR --dim 6 --posterior whc --epochs 5
#
# The models and the data are those of Bose et al., 2020 (arXiv:2002.06336); the likelihood is the importance-weighted
# estimate over the whole test set.

# %%
import argparse
import json
import math
import time
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.importance import vectorized_importance_weights
from pyro.nn import DenseNN, PyroModule, pyro_method
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT

# %% [markdown]
# ## The model and the guide


# %%
class VAE(PyroModule):
    """A variational autoencoder with its latent code on a manifold, and a wrapped normal or a flow as posterior."""

    def __init__(self, data_dim, dim, manifold, coupling=None, hidden_dim=200, likelihood="normal"):
        super().__init__()
        self.dim, self.manifold, self.likelihood = dim, manifold, likelihood
        self.encoder = DenseNN(data_dim, [hidden_dim], [dim, dim])
        self.decoder = DenseNN(dim, [hidden_dim], [data_dim])
        self.flow = ph.flows.coupling_flow(dim, 2, coupling, [128], manifold) if coupling else None

    @pyro_method
    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", hdist.WrappedNormal(ph.geometry.origin(self.manifold, self.dim), 1.0, self.manifold))
            output = self.decoder(ph.geometry.log0(self.manifold, z))
            if self.likelihood == "normal":
                pyro.sample("x", dist.Normal(output, 1.0).to_event(1), obs=x)
            else:
                pyro.sample("x", dist.Bernoulli(logits=output).to_event(1), obs=x)

    @pyro_method
    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(x))

    def posterior(self, x):
        loc, log_scale = self.encoder(x)
        scale = torch.nn.functional.softplus(log_scale)
        posterior = hdist.WrappedNormal(ph.geometry.exp0(self.manifold, loc), scale, self.manifold)
        return dist.TransformedDistribution(posterior, [self.flow]) if self.flow else posterior

    @torch.no_grad()
    def embed(self, x):
        """Returns the location of the posterior, moved by the flow."""
        loc = ph.geometry.exp0(self.manifold, self.encoder(x)[0])
        return self.flow(loc) if self.flow else loc


# %% [markdown]
# ## Training and scoring
#
# Both bounds come from Pyro's own importance weights $w_{si} = p(x_i, z_{si}) / q(z_{si} \mid x_i)$: the ELBO is the
# mean of $\log w_{si}$, the log-likelihood estimate the mean over $i$ of $\log \frac 1 S \sum_s w_{si}$.


# %%
def train(vae, batches, epochs, name):
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("train ELBO {task.fields[elbo]:.2f}")) as progress:
        task = progress.add_task(name, total=epochs, elbo=math.nan)
        for _ in range(epochs):
            total, count = 0.0, 0
            for x in batches():
                total, count = total - svi.step(x), count + len(x)
            progress.update(task, advance=1, elbo=total / count)


@torch.no_grad()
def score(vae, data, num_samples=500, batch_size=20):
    """Returns the test ELBO, and the importance-weighted log-likelihood with its standard error over data points."""
    elbos, likelihoods = [], []
    for x in data.split(batch_size):
        _, model, guide = vectorized_importance_weights(
            vae.model, vae.guide, x, num_samples=num_samples, max_plate_nesting=1
        )
        # That function sums the weights over data; the traces it returns hold them for each data point.
        log_p = sum(model.nodes[site]["log_prob"] for site in ("z", "x"))
        log_w = log_p - guide.nodes["z"]["log_prob"]
        elbos.append(log_w.mean(0))
        likelihoods.append(log_w.logsumexp(0) - math.log(num_samples))
    likelihood = torch.cat(likelihoods)
    return torch.cat(elbos).mean().item(), likelihood.mean().item(), (likelihood.std() / len(likelihood) ** 0.5).item()


# %% [markdown]
# ## The five models of the paper

# %%
COUPLINGS = {"normal": None, "tc": HT.tangent_coupling, "whc": HT.wrapped_hyperboloid_coupling}
NAMES = {
    ("euclidean", "normal"): "Euclidean",
    ("hyperbolic", "normal"): "hyperbolic",
    ("euclidean", "tc"): "RealNVP",
    ("hyperbolic", "tc"): "TC",
    ("hyperbolic", "whc"): "WHC",
}


def load(args):
    """Returns a function that yields training batches, the test data, and arguments of the model."""
    generator = torch.Generator().manual_seed(args.seed)
    if args.data is None:
        data = ph.datasets.branching_diffusion(seed=args.seed)
        train_x, test_x, options = data.x[data.train], data.x[data.test], {"hidden_dim": 200}
        binarise, batch_size = (lambda x: x), 100
    else:
        mnist = ph.datasets.load_mnist(args.data)
        train_x, test_x = mnist.train_images, (mnist.test_images > 0.5).float()
        options, batch_size = {"hidden_dim": 600, "likelihood": "bernoulli"}, 128
        binarise = lambda x: (x > torch.rand(x.shape, generator=generator)).float()  # noqa: E731  # anew each epoch

    def batches():
        for index in torch.randperm(len(train_x), generator=generator).split(batch_size):
            yield binarise(train_x[index]).to(args.device)

    return batches, test_x.to(args.device), options


def run(args, manifold_name, posterior):
    pyro.set_rng_seed(args.seed)
    pyro.clear_param_store()
    batches, test_x, options = load(args)
    manifold = geoopt.Euclidean(1) if manifold_name == "euclidean" else ph.manifolds.Lorentz(learnable=args.learn_k)
    vae = VAE(test_x.size(-1), args.dim, manifold, COUPLINGS[posterior], **options).to(args.device)
    start = time.perf_counter()
    train(vae, batches, args.epochs, name := NAMES.get((manifold_name, posterior), f"{manifold_name} {posterior}"))
    seconds = time.perf_counter() - start
    elbo, likelihood, error = score(vae, test_x, batch_size=20 if args.data else 95)
    curvature = 0.0 if manifold_name == "euclidean" else manifold.curvature.item()
    return vae, dict(model=name, elbo=elbo, likelihood=likelihood, error=error, curvature=curvature, seconds=seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the four MNIST idx files; default: branching diffusion")
    parser.add_argument("--manifold", choices=["euclidean", "hyperbolic"], help="default: the five models of the paper")
    parser.add_argument("--posterior", choices=sorted(COUPLINGS), help="default: the five models of the paper")
    parser.add_argument("--fixed-curvature", dest="learn_k", action="store_false", help="keep the curvature at -1")
    parser.add_argument("--dim", type=int, default=2, help="dimension of the latent space")
    parser.add_argument("--epochs", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("results/hyperbolic_vae"))
    args = parser.parse_args()
    chosen = [
        (manifold, posterior)
        for manifold, posterior in NAMES
        if args.manifold in (None, manifold) and args.posterior in (None, posterior)
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    table = Table("model", "ELBO", "test log-likelihood", "curvature", "seconds")
    vaes, rows = {}, []
    for manifold, posterior in chosen:
        vae, row = run(args, manifold, posterior)
        vaes[row["model"]] = vae
        rows.append(row)
        table.add_row(
            row["model"],
            f"{row['elbo']:.2f}",
            f"{row['likelihood']:.2f} ± {row['error']:.2f}",
            f"{row['curvature']:.3f}",
            f"{row['seconds']:.0f}",
        )
    Console().print(table)
    (args.out / "results.json").write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
