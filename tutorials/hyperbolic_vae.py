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
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.importance import vectorized_importance_weights
from pyro.nn import DenseNN, PyroModule, pyro_method
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic import viz

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
def train(vae, batches, epochs):
    """Trains with SVI, and yields the epoch and the mean ELBO so far in it after each step."""
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    for epoch in range(1, epochs + 1):
        total, count = 0.0, 0
        for x in batches():
            total, count = total - svi.step(x), count + len(x)
            yield epoch, total / count


@torch.no_grad()
def score(vae, data, num_samples=500, batch_size=20):
    """Returns the test ELBO, and the importance-weighted log-likelihood with its standard error over data points."""
    elbos, likelihoods = [], []
    for x in data.split(batch_size):
        _, model, guide = vectorized_importance_weights(
            vae.model, vae.guide, x, num_samples=num_samples, max_plate_nesting=1
        )
        # That function sums the weights over data; the traces it returns hold them for each data point.
        log_p = model.nodes["z"]["log_prob"] + model.nodes["x"]["log_prob"]
        log_w = log_p - guide.nodes["z"]["log_prob"]
        elbos.append(log_w.mean(0))
        likelihoods.append(log_w.logsumexp(0) - math.log(num_samples))
    likelihood = torch.cat(likelihoods)
    return torch.cat(elbos).mean().item(), likelihood.mean().item(), (likelihood.std() / len(likelihood) ** 0.5).item()


# %% [markdown]
# ## Data: a branching diffusion, of which the tree is known, or MNIST

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
    """Returns a function that yields training batches, the test data with their colours, and options of the model."""
    generator = torch.Generator().manual_seed(args.seed)
    if args.data is None:
        data = ph.datasets.branching_diffusion(args.seed)
        train_x, test_x, colours = data.x[data.train], data.x[data.test], data.depth[data.test]
        batch_size, options = 100, {"hidden_dim": 200}
    else:
        data = ph.datasets.load_mnist(args.data)
        train_x, test_x, colours = data.train_images, (data.test_images > 0.5).float(), data.test_labels
        batch_size, options = 128, {"hidden_dim": 600, "likelihood": "bernoulli"}

    def batches():
        for index in torch.randperm(len(train_x), generator=generator).split(batch_size):
            x = train_x[index]
            if args.data is not None:
                x = (x > torch.rand(x.shape, generator=generator)).float()  # binarised anew in each epoch
            yield x.to(args.device)

    return batches, test_x.to(args.device), colours, options


# %% [markdown]
# ## One model, from data to a row of the table


# %%
def run(args, manifold_name, posterior, state):
    """Trains one model, saves it, and returns a row of the table; ``state`` is where it reports its progress."""
    name = NAMES.get((manifold_name, posterior), f"{manifold_name} {posterior}")
    pyro.set_rng_seed(args.seed)
    pyro.clear_param_store()
    batches, test_x, _, options = load(args)
    manifold = geoopt.Euclidean(1) if manifold_name == "euclidean" else ph.manifolds.Lorentz(learnable=args.learn_k)
    vae = VAE(test_x.size(-1), args.dim, manifold, COUPLINGS[posterior], **options).to(args.device)
    start = reported = time.perf_counter()
    for progress in train(vae, batches, args.epochs):
        if progress[0] == args.epochs or time.perf_counter() > reported + 0.5:
            state[name], reported = progress, time.perf_counter()
    seconds = time.perf_counter() - start
    elbo, likelihood, error = score(vae, test_x)
    torch.save(vae, args.out / f"{name}.pt")
    curvature = 0.0 if manifold_name == "euclidean" else manifold.curvature.item()
    row = {"model": name, "elbo": elbo, "likelihood": likelihood, "error": error, "curvature": curvature}
    return {**row, "seconds": seconds}


def run_all(args, chosen):
    """Runs the models in two processes, with a progress bar for each model."""
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(2 if args.device == "cpu" else 1, context) as pool,
        Progress(*columns, TextColumn("ELBO {task.fields[elbo]:.2f}")) as progress,
    ):
        state = manager.dict()
        tasks = {NAMES[model]: progress.add_task(NAMES[model], total=args.epochs, elbo=math.nan) for model in chosen}
        rows = [pool.submit(run, args, *model, state) for model in chosen]
        while not all(row.done() for row in rows):
            for name, (epoch, elbo) in state.items():
                progress.update(tasks[name], completed=epoch, elbo=elbo)
            time.sleep(0.2)
        return [row.result() for row in rows]


# %% [markdown]
# ## The picture: test points where their posterior is, on the Poincaré disk, with the edges of the true tree


# %%
def picture(args, rows):
    _, test_x, colours, _ = load(args)
    figure = Figure(figsize=(5.2 * len(rows) + 0.4, 5.6), layout="constrained")
    for ax, row in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
        vae = torch.load(args.out / f"{row['model']}.pt", weights_only=False)
        options = {"tiling": (3, 7)} if row["curvature"] else {}
        viz.frame(ax, vae.manifold, **options)
        colour = {"cmap": "viridis_r" if args.data is None else "tab10", "clim": (0, 5 if args.data is None else 9)}
        if args.data is None:
            tree = ph.datasets.branching_diffusion(args.seed)
            depth = tree.node_depth[tree.edges[:, 1]].numpy()
            viz.tree(
                ax, vae.manifold, vae.embed(tree.nodes), tree.edges, array=depth, linewidth=1.2, alpha=0.6, **colour
            )
        size = 26 if args.data is None else 2
        artist = viz.points(ax, vae.manifold, vae.embed(test_x).cpu(), c=colours, s=size, cmap=colour["cmap"])
        artist.set_clim(colour["clim"])
        curvature = f", curvature {row['curvature']:.2f}" if row["curvature"] else ""
        ax.set_title(f"{row['model']}{curvature}\ntest log-likelihood {row['likelihood']:.2f} ± {row['error']:.2f}")
    figure.colorbar(artist, ax=figure.axes, shrink=0.6, label="depth in the tree" if args.data is None else "digit")
    figure.savefig(args.out / "embedding.png", dpi=150)


def main():
    parser = argparse.ArgumentParser(description=main.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the four MNIST idx files, in place of the diffusion")
    parser.add_argument("--manifold", choices=["euclidean", "hyperbolic"], help="one of them, in place of both")
    parser.add_argument("--posterior", choices=list(COUPLINGS), help="one of them, in place of the paper's five models")
    parser.add_argument("--fixed-curvature", dest="learn_k", action="store_false", help="keep the curvature at -1")
    parser.add_argument("--dim", type=int, default=2, help="dimension of the latent space")
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("results/hyperbolic_vae"), help="where results are written")
    args = parser.parse_args()
    chosen = [model for model in NAMES if args.manifold in (None, model[0]) and args.posterior in (None, model[1])]
    args.out.mkdir(parents=True, exist_ok=True)
    rows = run_all(args, chosen)
    (args.out / "results.json").write_text(json.dumps(rows, indent=2))
    table = Table("model", "test ELBO", "test log-likelihood", "curvature", "seconds")
    for row in rows:
        likelihood = f"{row['likelihood']:.2f} ± {row['error']:.2f}"
        table.add_row(
            row["model"], f"{row['elbo']:.2f}", likelihood, f"{row['curvature']:.2f}", f"{row['seconds']:.0f}"
        )
    Console().print(table)
    if args.dim == 2:
        shown = [row for row in rows if row["model"] in ("Euclidean", "hyperbolic")] or rows
        picture(args, shown)
        print(f"embedding of the test data: {args.out / 'embedding.png'}")


if __name__ == "__main__":
    main()
