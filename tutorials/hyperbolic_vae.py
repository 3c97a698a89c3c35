# %% [markdown]
# # A hyperbolic VAE is just a model and a guide
#
# $$z \sim \mathrm{WN}(o, I), \qquad x \mid z \sim p(x \mid \mathrm{dec}(\log_o z)), \qquad
#   q(z \mid x) = f_\# \, \mathrm{WN}(\exp_o \mu(x), \sigma(x))$$
#
# The latent manifold, the flow $f$ and whether curvature is learned are arguments of one class. With
# `geoopt.Euclidean(1)` the same code is the ordinary VAE and RealNVP. Run it:
#
#     python tutorials/hyperbolic_vae.py                                      # five models on a branching diffusion
#     python tutorials/hyperbolic_vae.py --data MNIST_DIR --dim 6 --posterior whc --epochs 5
#     python tutorials/hyperbolic_vae.py --manifold h2,h2,e2                   # mixed curvature, one of each factor
#
# The models and the data are those of Bose et al., 2020 (arXiv:2002.06336). The likelihood is the importance-weighted
# estimate over the whole test set. `tutorials/experiments` has their tables, over many seeds.

# %%
import argparse
import functools
import json
import math
import os
import string
import time
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from mnist import load_mnist  # in this folder
from pyro.infer import Trace_ELBO
from pyro.infer.importance import vectorized_importance_weights
from pyro.nn import DenseNN, PyroModule, pyro_method
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from workers import workers  # in this folder

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic import viz

# Parameters live in modules, where torch's optimisers look for them, not in Pyro's global store.
pyro.settings.set(module_local_params=True)

# %% [markdown]
# ## The model and the guide
#
# By default the decoder reads only the tangent vector $\log_o z$. With `gyroplanes` its first layer is
# `ph.nn.Gyroplanes`: the distances of the point to learned hyperplanes.


# %%
class VAE(PyroModule):
    """A variational autoencoder with latents on a manifold, and a wrapped normal or a flow as posterior."""

    def __init__(self, data_dim, dim, manifold, coupling=None, hidden_dim=200, likelihood="normal", gyroplanes=False):
        super().__init__()
        self.dim, self.manifold, self.likelihood, self.gyroplanes = dim, manifold, likelihood, gyroplanes
        self.encoder = DenseNN(data_dim, [hidden_dim], [dim, dim])
        self.decoder = DenseNN(dim, [hidden_dim], [data_dim])
        if gyroplanes:
            self.decoder.layers[0] = ph.nn.Gyroplanes(dim, hidden_dim, manifold)
        self.flow = ph.flows.coupling_flow(dim, 2, coupling, [128], manifold) if coupling else None

    @pyro_method
    def model(self, x):
        with pyro.plate_stack("data", x.shape[:-1]):
            z = pyro.sample("z", hdist.WrappedNormal(ph.geometry.origin(self.manifold, self.dim), 1.0, self.manifold))
            output = self.decoder(z if self.gyroplanes else ph.geometry.log0(self.manifold, z))
            if self.likelihood == "normal":
                pyro.sample("x", dist.Normal(output, 1.0).to_event(1), obs=x)
            else:
                pyro.sample("x", dist.Bernoulli(logits=output).to_event(1), obs=x)

    @pyro_method
    def guide(self, x):
        with pyro.plate_stack("data", x.shape[:-1]):
            pyro.sample("z", self.posterior(x))

    def posterior(self, x):
        loc, log_scale = (value.to(x.dtype) for value in self.encoder(x))  # bfloat16 in mixed precision
        scale = torch.nn.functional.softplus(log_scale)
        posterior = hdist.WrappedNormal(ph.geometry.exp0(self.manifold, loc), scale, self.manifold)
        return dist.TransformedDistribution(posterior, [self.flow]) if self.flow else posterior

    @torch.no_grad()
    def embed(self, x):
        """Returns the location of the posterior, mapped by the flow."""
        loc = ph.geometry.exp0(self.manifold, self.encoder(x)[0])
        return self.flow(loc) if self.flow else loc


# %% [markdown]
# ## Training and scoring
#
# Both bounds come from Pyro's own importance weights $w_{si} = p(x_i, z_{si}) / q(z_{si} \mid x_i)$: the ELBO is the
# mean of $\log w_{si}$, the log-likelihood estimate the mean over $i$ of $\log \frac 1 S \sum_s w_{si}$.


# %%
def train(vae, batches, epochs):
    """Trains, and after each step yields the epoch and its mean ELBO so far."""
    elbo, optimizer = Trace_ELBO()(vae.model, vae.guide), torch.optim.Adam(vae.parameters(), lr=1e-3, fused=True)
    for epoch in range(1, epochs + 1):
        total, count = 0.0, 0
        for x in batches():
            # Validation takes a sixth of a step, so only the first epoch runs it.
            with pyro.validation_enabled(epoch == 1):
                loss = elbo(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, count = total - loss.item(), count + x[..., 0].numel()
            yield epoch, total / count


@torch.no_grad()
def log_weights(vae, x, num_samples):
    """Returns the log importance weights, shape ``(num_samples, len(x))``, and their samples."""
    _, model, guide = vectorized_importance_weights(
        vae.model, vae.guide, x, num_samples=num_samples, max_plate_nesting=1
    )
    # The returned weights are summed over the data; the traces have one for each data point.
    log_p = model.nodes["z"]["log_prob"] + model.nodes["x"]["log_prob"]
    return log_p - guide.nodes["z"]["log_prob"], model.nodes["z"]["value"]


def score(vae, data, num_samples=500, batch_size=20):
    """Returns the test ELBO, and the importance-weighted log-likelihood with its standard error over data points."""
    weights = torch.cat([log_weights(vae, x, num_samples)[0] for x in data.split(batch_size)], dim=1)
    likelihood = weights.logsumexp(0) - math.log(num_samples)
    return weights.mean().item(), likelihood.mean().item(), (likelihood.std() / len(likelihood) ** 0.5).item()


# %% [markdown]
# ## Data: a branching diffusion with a known tree, or MNIST

# %%
COUPLINGS = {"normal": None, "tc": HT.tangent_coupling, "whc": HT.wrapped_hyperboloid_coupling}
NAMES = {
    ("euclidean", "normal"): "Euclidean",
    ("hyperbolic", "normal"): "hyperbolic",
    ("euclidean", "tc"): "RealNVP",
    ("hyperbolic", "tc"): "TC",
    ("hyperbolic", "whc"): "WHC",
}


def name_of(manifold, posterior):
    """Returns the name of a model in the table."""
    return NAMES.get((manifold, posterior), f"{manifold} {posterior}")


def numbers(value):
    """Returns one curvature or several as text."""
    return ", ".join(f"{each:.2f}" for each in (value if isinstance(value, list) else [value]))


read_mnist = functools.cache(load_mnist)


def load(seed, path=None, device="cpu"):
    """Returns a function that yields training batches, the test data with their colours, and options of the model."""
    generator = torch.Generator().manual_seed(seed)
    if path is None:
        data = ph.datasets.branching_diffusion(seed)
        train_x, test_x, colours = data.x[data.train], data.x[data.test], data.depth[data.test]
        batch_size, options = 100, {"hidden_dim": 200}
    else:
        data = read_mnist(path)
        train_x, test_x, colours = data.train_images, (data.test_images > 0.5).float(), data.test_labels
        batch_size, options = 128, {"hidden_dim": 600, "likelihood": "bernoulli"}

    def batches():
        for index in torch.randperm(len(train_x), generator=generator).split(batch_size):
            x = train_x[index]
            if path is not None:
                x = (x > torch.rand(x.shape, generator=generator)).float()  # binarised again in each epoch
            yield x.to(device)

    return batches, test_x.to(device), colours, options


# %% [markdown]
# ## One model, from data to a row of the table
#
# A product is written as its factors with their dimensions: `h2,h2,e2` is two hyperbolic planes, each with its own
# curvature, and a Euclidean plane; `b2` is a Poincaré disk.


# %%
def space(name, dim, learn_k):
    """Returns the manifold of that name and its dimension."""
    if name == "euclidean":
        return geoopt.Euclidean(1), dim
    if name == "hyperbolic":
        return ph.manifolds.Lorentz(learnable=learn_k), dim
    factors = []
    for part in name.split(","):
        kind, n = part[0], int(part[1:])
        if kind == "e":
            factors.append((geoopt.Euclidean(1), n))
        else:
            hyperbolic = {"h": ph.manifolds.Lorentz, "b": ph.manifolds.PoincareBall}[kind]
            factors.append((hyperbolic(learnable=learn_k), n + 1 if kind == "h" else n))
    M = ph.manifolds.Product(*factors)
    return M, sum(ph.geometry.bind(M).dims)


def run(args, manifold_name, posterior, report):
    """Trains one model, saves it, and returns a row of the table; calls ``report`` with its progress."""
    name = name_of(manifold_name, posterior)
    pyro.set_rng_seed(args.seed)
    batches, test_x, _, options = load(args.seed, args.data, args.device)
    manifold, dim = space(manifold_name, args.dim, args.learn_k)
    options["gyroplanes"] = args.gyroplanes
    vae = VAE(test_x.size(-1), dim, manifold, COUPLINGS[posterior], **options).to(args.device)
    start = time.perf_counter()
    for progress in train(vae, batches, args.epochs):
        report(*progress)
    seconds = time.perf_counter() - start
    elbo, likelihood, error = score(vae, test_x)
    torch.save(vae, args.out / f"{name}.pt")
    curvatures = [value.item() for value in (M.curvature for M in vae.modules() if hasattr(M, "curvature"))]
    curvature = curvatures[0] if len(curvatures) == 1 else curvatures or 0.0
    row = {"model": name, "elbo": elbo, "likelihood": likelihood, "error": error, "curvature": curvature}
    return {**row, "seconds": seconds}


class Report:
    """Reports the progress of a job to another process, twice a second."""

    def __init__(self, state, name, total):
        self.state, self.name, self.total, self.last = state, name, total, 0.0

    def __call__(self, epoch, elbo):
        if epoch == self.total or time.perf_counter() > self.last + 0.5:
            self.state[self.name], self.last = (epoch, elbo), time.perf_counter()


def run_all(function, jobs, epochs, processes=2):
    """Returns ``function(*arguments, report)`` for each of ``{name: arguments}``, in processes, with progress bars."""
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        workers(min(processes, len(jobs) or 1)) as (pool, state),
        Progress(*columns, TextColumn("ELBO {task.fields[elbo]:.2f}")) as progress,
    ):
        tasks = {name: progress.add_task(name, total=epochs, elbo=math.nan) for name in jobs}
        results = [pool.submit(function, *jobs[name], Report(state, name, epochs)) for name in jobs]
        done = False
        while not done:
            done = all(result.done() for result in results)  # before the update, to show the last state
            for name, (epoch, elbo) in dict(state).items():
                progress.update(tasks[name], completed=epoch, elbo=elbo)
            time.sleep(0.2)
        return [result.result() for result in results]


# %% [markdown]
# ## The picture: posterior locations of test points on the Poincaré disk, with the edges of the true tree


# %%
def picture(args, rows):
    _, test_x, colours, _ = load(args.seed, args.data, args.device)
    figure = Figure(figsize=(5.2 * len(rows) + 0.4, 5.6), layout="constrained")
    axes = figure.subplots(1, len(rows), squeeze=False)[0]
    for ax, letter, row in zip(axes, string.ascii_lowercase, rows, strict=False):
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
        title = f"({letter}) {row['model']}{curvature}"
        ax.set_title(f"{title}\ntest log-likelihood {row['likelihood']:.2f} ± {row['error']:.2f}")
        if not row["curvature"]:  # a square, as high as the disk beside it
            sides = (*ax.get_xlim(), *ax.get_ylim())
            ax.set(xlim=(min(sides), max(sides)), ylim=(min(sides), max(sides)))
    figure.colorbar(artist, ax=figure.axes, shrink=0.6, label="depth in the tree" if args.data is None else "digit")
    figure.savefig(args.out / "embedding.png", dpi=150)


def main():
    parser = argparse.ArgumentParser(description=main.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the four MNIST idx files, instead of the diffusion")
    parser.add_argument(
        "--manifold", help="euclidean, hyperbolic, or a product such as h2,h2,e2; instead of the first two"
    )
    parser.add_argument("--posterior", choices=list(COUPLINGS), help="one of them, instead of the paper's five models")
    parser.add_argument("--fixed-curvature", dest="learn_k", action="store_false", help="keep the curvature at -1")
    parser.add_argument("--dim", type=int, default=2, help="dimension of the latent space")
    parser.add_argument("--gyroplanes", action="store_true", help="decode from the point itself, not from log0 of it")
    parser.add_argument("--epochs", type=int, default=2 if "SMOKE_TEST" in os.environ else 1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=2, help="models trained side by side; one on a GPU")
    parser.add_argument("--out", type=Path, default=Path("results/hyperbolic_vae"), help="where results are written")
    args = parser.parse_args()
    models = [(args.manifold, posterior) for posterior in ("normal", "tc")] if "," in (args.manifold or "") else NAMES
    chosen = [model for model in models if args.manifold in (None, model[0]) and args.posterior in (None, model[1])]
    args.out.mkdir(parents=True, exist_ok=True)
    jobs = {name_of(*model): (args, *model) for model in chosen}
    rows = run_all(run, jobs, args.epochs, args.processes if args.device == "cpu" else 1)
    (args.out / "results.json").write_text(json.dumps(rows, indent=2))
    table = Table("model", "test ELBO", "test log-likelihood", "curvature", "seconds")
    for row in rows:
        likelihood = f"{row['likelihood']:.2f} ± {row['error']:.2f}"
        table.add_row(
            row["model"], f"{row['elbo']:.2f}", likelihood, numbers(row["curvature"]), f"{row['seconds']:.0f}"
        )
    Console().print(table)
    if args.dim == 2 and "," not in (args.manifold or ""):
        shown = [row for row in rows if row["model"] in ("Euclidean", "hyperbolic")] or rows
        picture(args, shown)
        print(f"embedding of the test data: {args.out / 'embedding.png'}")


if __name__ == "__main__":
    main()
