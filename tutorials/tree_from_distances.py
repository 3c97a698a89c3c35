# %% [markdown]
# # A tree with error bars, from a matrix with holes
#
# $$z_i \sim \mathrm{WN}(o, s), \quad a_i \sim \mathrm{LogNormal}, \qquad
#   \log D_{ij} \sim \mathrm{StudentT}_4\big(\log(c\, d(z_i, z_j) + a_i + a_j),\ \sigma\big)$$
#
# Evolutionary distances are nearly those of a tree, and trees fit into the hyperbolic plane. Each species is a point of
# it, at the end of a pendant branch of length $a_i$. Their posterior predicts the distances that are missing. The
# manifold is an argument: `geoopt.Euclidean(1)` gives the Euclidean twin.
#
#     python tutorials/tree_from_distances.py                     # four models, of a tree that is made by the seed
#     python tutorials/tree_from_distances.py --data D.npz --manifold hyperbolic --pendant --missing 0.5 --seed 3
#
# `--data` is an npz with `distances` and `names`, a square csv whose header has the names (empty cells are missing), or
# a tree in Newick's format. `tutorials/experiments/distances.py` has tables over many data sets and splits.

# %%
import argparse
import csv
import math
import os
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from phylogeny import hide, layout, picture, read, scaling, start_of  # in this folder
from pyro import poutine
from pyro.infer import Predictive, Trace_ELBO
from pyro.infer.autoguide import init_to_median, init_to_value
from rich.console import Console
from rich.progress import track
from rich.table import Table

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist

torch.set_default_dtype(torch.float64)  # relatives 20 units from the origin are one point in float32
pyro.settings.set(module_local_params=True)

# %% [markdown]
# ## The model


# %%
class Tree:
    """Distances between points of a manifold with pendant branches; ``runs`` are independent fits, trained at once."""

    def __init__(self, n, manifold, pendant=True, dim=2, df=4.0, runs=()):
        self.n, self.M, self.pendant, self.dim, self.df, self.runs = n, manifold, pendant, dim, df, runs
        self.pairs = torch.triu_indices(n, n, 1)

    def latents(self, *_):
        with pyro.plate_stack("runs", self.runs, rightmost_dim=-2):
            c = pyro.sample("c", dist.LogNormal(torch.tensor(-2.0), 2.0))
            s = pyro.sample("s", dist.LogNormal(torch.tensor(1.0), 1.0))
            sigma = pyro.sample("sigma", dist.LogNormal(torch.tensor(-2.0), 1.0))
            with pyro.plate("taxa", self.n):
                z = pyro.sample("z", hdist.WrappedNormal(ph.geometry.origin(self.M, self.dim), s.unsqueeze(-1), self.M))
                a = pyro.sample("a", dist.LogNormal(torch.tensor(-2.0), 1.0)) if self.pendant else torch.zeros(self.n)
        return c, sigma, z, a

    def model(self, log_D=None, seen=True):
        c, sigma, z, a = self.latents()
        i, j = self.pairs
        d = c * ph.geometry.distance_matrix(self.M, z)[..., i, j] + a[..., i] + a[..., j]
        runs, pairs = pyro.plate_stack("data", self.runs, rightmost_dim=-2), pyro.plate("pairs", len(i))
        with runs, pairs, poutine.mask(mask=seen):
            pyro.deterministic("log d", d.log())
            pyro.sample("log D", dist.StudentT(self.df, d.log(), sigma), obs=log_D)


# %% [markdown]
# ## Training and prediction
#
# With all points at the origin, every distance has gradient zero. So the points start at a layout of the tree of
# neighbour joining, after four-point conditions have filled the gaps, and Euclidean points at classical scaling.

# %%
MANIFOLDS = {"euclidean": (geoopt.Euclidean(1), scaling), "hyperbolic": (geoopt.Lorentz(), layout)}


def train(tree, log_D, seen, start, steps, rate=0.2):
    """Returns a trained guide."""
    # A guide runs the model that it is given, so it is given the latents only.
    guide = ph.infer.AutoWrappedNormal(tree.latents, init_loc_fn=init_to_value(values=start, fallback=init_to_median))
    guide()  # makes its parameters
    optimizer = torch.optim.Adam([each for each in guide.parameters() if each.requires_grad], rate, (0.8, 0.95))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in track(range(steps), "training", transient=True):
        with pyro.validation_enabled(step == 0):
            loss = Trace_ELBO().differentiable_loss(tree.model, guide, log_D, seen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cosine.step()
    return guide


@torch.no_grad()
def predict(tree, guide, num_samples=1000):
    """Returns draws of ``log d``, ``sigma`` and ``log D``, the latter with the errors of measurement."""
    sites = ("log d", "sigma", "log D")
    draws = Predictive(tree.model, guide=guide, num_samples=num_samples, parallel=True, return_sites=sites)()
    return [draws[site].reshape(num_samples, *tree.runs, -1) for site in sites]


def scores(draws, log_D, df):
    """Returns the relative error of the median, log score in nats, and coverage of the 90% interval, of each pair."""
    log_d, sigma, predicted = draws
    lower, median, upper = predicted.quantile(torch.tensor([0.05, 0.5, 0.95]), dim=0)
    density = dist.StudentT(df, log_d, sigma).log_prob(log_D).logsumexp(0) - math.log(len(log_d))
    return torch.expm1(median - log_D).abs(), density, ((lower <= log_D) & (log_D <= upper)).to(log_D)


def fit(D, seen, name, pendant, dim, steps, seed=0):
    """Returns a model of the pairs that are seen, and its guide."""
    pyro.set_rng_seed(seed)
    M, place = MANIFOLDS[name]
    tree = Tree(len(D), M, pendant, dim)
    return tree, train(tree, D[tuple(tree.pairs)].log(), seen, start_of(place, M, D, seen, pendant, dim), steps)


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, help="npz, csv or Newick; by default a tree that is made by the seed")
    parser.add_argument("--manifold", choices=MANIFOLDS, help="one model instead of all four")
    parser.add_argument("--pendant", action=argparse.BooleanOptionalAction, default=True, help="pendant branches")
    parser.add_argument("--dim", type=int, default=2)
    parser.add_argument("--missing", type=float, default=0.5, help="share of the known distances to hide")
    parser.add_argument("--species", help="the one drawn as known by four distances; by default the first")
    parser.add_argument("--steps", type=int, default=20 if "SMOKE_TEST" in os.environ else 600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/tree_from_distances"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    D, names = read(args.data, args.seed)
    seen, hidden = hide(D, args.missing, args.seed)
    unit = D[tuple(torch.triu_indices(len(D), len(D), 1))][seen].mean()
    every = [(name, pendant) for pendant in (False, True) for name in MANIFOLDS]
    table = Table("model", "pendants", "relative error", "log score", "coverage")
    for name, pendant in [(args.manifold, args.pendant)] if args.manifold else every:
        tree, guide = fit(D / unit, seen, name, pendant, args.dim, args.steps, args.seed)
        i, j = tree.pairs[:, hidden]
        log_d, sigma, log_D = predict(tree, guide)
        draws = log_d[:, hidden], sigma, log_D[:, hidden]
        means = [values.mean().item() for values in scores(draws, (D / unit)[i, j].log(), tree.df)]
        table.add_row(name, "yes" if pendant else "no", *(f"{mean:.3f}" for mean in means))
    Console().print(table)
    quantiles = unit * draws[2].quantile(torch.tensor([0.5, 0.05, 0.95]), dim=0).exp()
    with (args.out / "predictions.csv").open("w") as file:
        rows = zip(i.tolist(), j.tolist(), *quantiles.tolist(), strict=True)
        csv.writer(file).writerows([("i", "j", "median", "lower", "upper"), *rows])
    if args.dim == 2:  # one species with four distances
        star = names.index(args.species) if args.species else 0
        i, j = tree.pairs
        others = (seen & ((i == star) | (j == star))).nonzero().squeeze(-1)
        seen[others[torch.randperm(len(others))[4:]]] = False
        tree, guide = fit(D / unit, seen, name, pendant, 2, args.steps, args.seed)
        figure = Figure(figsize=(8.0, 8.0), layout="constrained")
        picture(figure.subplots(), tree.M, D / unit, names, guide, star)
        figure.savefig(args.out / "tree.png", dpi=150)


if __name__ == "__main__":
    main()
