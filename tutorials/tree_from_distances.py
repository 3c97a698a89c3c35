# %% [markdown]
# # A tree with error bars, from a matrix with holes
#
# $$z_i \sim \mathrm{WN}(o, s), \quad a_i \sim \mathrm{LogNormal}, \qquad
#   \log D_{ij} \sim \mathrm{StudentT}_4\big(\log(c\, d(z_i, z_j) + a_i + a_j),\ \sigma\big)$$
#
# Evolutionary distances between species are almost those of a tree, and trees fit into the hyperbolic plane. Each
# species is a point of it plus a pendant branch of length $a_i$, whose posterior predicts the distances that are
# missing. The manifold is an argument: with `geoopt.Euclidean(1)` the same code is the Euclidean twin.
#
#     python tutorials/tree_from_distances.py                       # four models of a tree that is made by the seed
#     python tutorials/tree_from_distances.py --data D.npz --manifold hyperbolic --pendant --missing 0.5 --seed 3
#
# `--data` is an npz with `distances` and `names`, a square csv whose header has the names (empty cells are missing), or
# a tree in Newick's format. `tutorials/experiments/distances.py` has the tables, over many data sets and splits.

# %%
import argparse
import csv
import math
import os
from pathlib import Path

import geoopt
import numpy as np
import pyro
import pyro.distributions as dist
import scipy.cluster.hierarchy
import scipy.sparse.csgraph
import torch
from distance_data import completed, hide, read, start_of
from matplotlib.figure import Figure
from pyro import poutine
from pyro.infer import Predictive, Trace_ELBO
from pyro.infer.autoguide import init_to_median, init_to_value
from rich.console import Console
from rich.progress import track
from rich.table import Table

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist

torch.set_default_dtype(torch.float64)  # the plane is wide: 20 units out, float32 cannot tell two species apart
pyro.settings.set(module_local_params=True)

# %% [markdown]
# ## The model


# %%
class Tree:
    """Distances between points of a manifold, each with a pendant branch. ``runs`` are independent fits in one."""

    def __init__(self, n, manifold, pendant=True, dim=2, df=4.0, runs=()):
        self.n, self.M, self.pendant, self.dim, self.df, self.runs = n, manifold, pendant, dim, df, runs
        self.pairs = torch.triu_indices(n, n, 1)

    def latents(self, *args):
        with pyro.plate_stack("runs", self.runs, rightmost_dim=-2):
            c = pyro.sample("c", dist.LogNormal(torch.tensor(-2.0), 2.0))
            s = pyro.sample("s", dist.LogNormal(torch.tensor(1.0), 1.0))
            sigma = pyro.sample("sigma", dist.LogNormal(torch.tensor(-2.0), 1.0))
            with pyro.plate("taxa", self.n):
                z = pyro.sample("z", hdist.WrappedNormal(ph.geometry.origin(self.M, self.dim), s.unsqueeze(-1), self.M))
                a = pyro.sample("a", dist.LogNormal(torch.tensor(-2.0), 1.0)) if self.pendant else torch.zeros(self.n)
        return c, sigma, z, a

    def model(self, log_D=None, observed=True):
        c, sigma, z, a = self.latents()
        i, j = self.pairs
        d = c * ph.geometry.distance_matrix(self.M, z)[..., i, j] + a[..., i] + a[..., j]
        runs, pairs = pyro.plate_stack("data", self.runs, rightmost_dim=-2), pyro.plate("pairs", len(i))
        with runs, pairs, poutine.mask(mask=observed):
            pyro.deterministic("log d", d.log())
            pyro.sample("log D", dist.StudentT(self.df, d.log(), sigma), obs=log_D)


def train(tree, log_D, observed, start, steps, rate=0.2):
    """Returns a trained guide and the mean ELBO of the last tenth of the steps."""
    # The guide runs the model that it is given; the latents are enough, and cheaper.
    guide = ph.infer.AutoWrappedNormal(tree.latents, init_loc_fn=init_to_value(values=start, fallback=init_to_median))
    guide()
    optimizer = torch.optim.Adam([value for value in guide.parameters() if value.requires_grad], rate, (0.8, 0.95))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    elbo, last = Trace_ELBO(), []
    for step in track(range(steps), "training", transient=True):
        with pyro.validation_enabled(step == 0):
            loss = elbo.differentiable_loss(tree.model, guide, log_D, observed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cosine.step()
        last.append(-loss.item())
    return guide, sum(last[-steps // 10 :]) / len(last[-steps // 10 :])


# %% [markdown]
# ## Predictions, and their scores


# %%
@torch.no_grad()
def predict(tree, guide, num_samples=1000):
    """Returns draws of ``log d``, of ``sigma`` and of ``log D``, which has the error of measurement."""
    sites = ("log d", "sigma", "log D")
    draws = Predictive(tree.model, guide=guide, num_samples=num_samples, parallel=True, return_sites=sites)()
    return [draws[site].reshape(num_samples, *tree.runs, -1) for site in sites]


def scores(draws, log_D, df):
    """Returns the relative error of the median, the log score in nats, and the coverage of 90% intervals, per pair."""
    log_d, sigma, predicted = draws
    lower, median, upper = predicted.quantile(torch.tensor([0.05, 0.5, 0.95]), dim=0)
    density = dist.StudentT(df, log_d, sigma).log_prob(log_D).logsumexp(0) - math.log(len(log_d))
    return torch.expm1(median - log_D).abs(), density, ((lower <= log_D) & (log_D <= upper)).to(log_D)


# %% [markdown]
# ## One model


# %%
MODELS = {
    (f"{name}, pendants" if pendant else name): (M, pendant)
    for pendant in (False, True)
    for name, M in (("Euclidean", geoopt.Euclidean(1)), ("hyperbolic", geoopt.Lorentz()))
}


def fit(args, name, D, seen):
    """Trains a model on the pairs that are seen; returns it with its guide and its ELBO."""
    pyro.set_rng_seed(args.seed)
    manifold, pendant = MODELS[name]
    tree = Tree(len(D), manifold, pendant, args.dim)
    i, j = tree.pairs
    unit = D[i, j][seen].mean()
    gaps = np.full(D.shape, np.nan)
    gaps[i[seen], j[seen]] = gaps[j[seen], i[seen]] = D[i, j][seen] / unit
    start = start_of(completed(gaps), tree)
    guide, elbo = train(tree, torch.tensor(D[i, j] / unit).log(), torch.tensor(seen), start, args.steps)
    return tree, guide, elbo, unit


# %% [markdown]
# ## The picture: a species known by four distances
#
# The radius is the distance from the origin. A line outwards is a pendant branch, a cloud draws from the posterior.

# %%
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999", "#000000"]  # Okabe and Ito


@torch.no_grad()
def picture(args, name, D, labels, seen):
    star = labels.index(args.species) if args.species else 0
    i, j = np.triu_indices(len(D), 1)
    of_star = np.flatnonzero(seen & ((i == star) | (j == star)))
    seen = seen.copy()
    seen[np.random.default_rng(args.seed).permutation(of_star)[4:]] = False
    with torch.enable_grad():
        tree, guide, *_ = fit(args, name, D, seen)
    clusters = scipy.cluster.hierarchy.linkage(completed(D)[i, j], "average")
    groups = scipy.cluster.hierarchy.fcluster(clusters, len(COLOURS), "maxclust") - 1
    median = guide.median()
    v = ph.geometry.log0(tree.M, median["z"])
    clouds = ph.geometry.log0(tree.M, torch.stack([guide()["z"] for _ in range(200)]))
    figure = Figure(figsize=(7.0, 7.0), layout="constrained")
    ax = figure.subplots()
    ax.set_aspect("equal")
    ax.axis("off")
    for node, (label, group) in enumerate(zip(labels, groups, strict=True)):
        colour, big = COLOURS[group], node == star
        ax.plot(*clouds[:, node].T, ".", color=colour, alpha=0.5 if big else 0.05, markersize=3, markeredgewidth=0)
        length = v[node].norm()
        end = v[node] * (1 + (median["a"][node] / median["c"] / length if tree.pendant else 0.0))
        ax.plot(*torch.stack([v[node], end]).T, color=colour, linewidth=1.0)
        x, y = v[node] / length
        angle = math.degrees(math.atan2(y, x))
        flip = 180 if abs(angle) > 90 else 0
        style = {"rotation": angle + flip, "rotation_mode": "anchor", "va": "center", "ha": "right" if flip else "left"}
        style |= {"color": colour, "fontsize": 9 if big else 6, "weight": "bold" if big else None}
        ax.text(*(end + 0.2 * v[node] / length), label, **style)
    figure.savefig(args.out / "tree.png", dpi=160)


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, help="npz, csv or Newick; by default a tree that is made by the seed")
    parser.add_argument("--manifold", choices=("euclidean", "hyperbolic"), help="one model instead of all four")
    parser.add_argument("--pendant", action=argparse.BooleanOptionalAction, default=True, help="pendant branches")
    parser.add_argument("--dim", type=int, default=2)
    parser.add_argument("--missing", type=float, default=0.5, help="share of the known distances to hide")
    parser.add_argument("--species", help="the name of the species to show by four distances; the first by default")
    parser.add_argument("--steps", type=int, default=20 if "SMOKE_TEST" in os.environ else 600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/tree_from_distances"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    D, labels = read(args.data, args.seed)
    seen, hidden = hide(D, args.missing, args.seed)
    one = args.manifold and next(
        k for k in MODELS if k.lower().startswith(args.manifold) and ("," in k) == args.pendant
    )
    table = Table("model", "error", "log score", "coverage", "ELBO")
    for name in [one] if one else MODELS:
        tree, guide, elbo, unit = fit(args, name, D, seen)
        i, j = tree.pairs[:, hidden]
        draws = [draw[:, hidden] if draw.shape[1] > 1 else draw for draw in predict(tree, guide)]
        error, score, covered = (values.mean() for values in scores(draws, torch.tensor(D / unit)[i, j].log(), tree.df))
        table.add_row(name, f"{error:.3f}", f"{score:.2f}", f"{covered:.2f}", f"{elbo:.0f}")
    quantiles = unit * draws[2].quantile(torch.tensor([0.5, 0.05, 0.95]), dim=0).exp()
    with (args.out / "predictions.csv").open("w") as file:
        rows = zip(i.tolist(), j.tolist(), *quantiles.tolist(), strict=True)
        csv.writer(file).writerows([("i", "j", "median", "lower", "upper"), *rows])
    Console().print(table)
    if args.dim == 2:
        picture(args, name, D, labels, seen)


if __name__ == "__main__":
    main()
