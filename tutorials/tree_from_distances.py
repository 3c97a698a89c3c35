# %% [markdown]
# # A tree with error bars, from a matrix with holes
#
# $$z_i \sim \mathrm{WN}(o, s), \quad a_i \sim \mathrm{LogNormal}, \qquad
#   \log D_{ij} \sim \mathrm{StudentT}_4\big(\log(c\, d(z_i, z_j) + a_i + a_j),\ \sigma\big)$$
#
# Evolutionary distances are nearly those of a tree, and trees fit into the hyperbolic plane. Each species hangs from a
# point of it by a pendant branch of length $a_i$. Their posterior predicts the distances that are missing. The manifold
# is an argument: `geoopt.Euclidean(1)` gives the Euclidean twin.
#
#     python tutorials/tree_from_distances.py                     # four models, of a tree that is made by the seed
#     python tutorials/tree_from_distances.py --data D.npz --manifold hyperbolic --pendant --missing 0.5 --seed 3
#
# `tutorials/experiments/distances.py` has tables over many data sets and splits.
#
# ## Your own distances
#
#     python tutorials/tree_from_distances.py --data D.csv --manifold hyperbolic --missing 0 --species Lynx --known 99
#
# `--data` is a file: a square csv with the names in its first row, and perhaps in its first column; a tree in Newick's
# format; or an npz with `distances` and `names`. Empty cells, `NA` and zeros are missing, and one triangle is enough.
# With `--missing 0` all known distances are used. Otherwise a share of them is hidden, to measure how well a model
# predicts. It writes to `--out`, in the file's units:
#
# - `predictions.csv`: the distances that are missing or hidden, by number (from 0) and by name: medians, 90% intervals,
#   and the value where the file has one.
# - `points.csv`: for each species its place, the radius of a ball about it with 90% of the posterior, and its pendant
#   branch.
# - `tree.png`: dots are draws of the posterior, coloured lines pendant branches, and grey is the neighbour-joining tree
#   of the predictions. The species in bold is treated as known by `--known` of its distances only. `points.csv` is of
#   the same fit. Distances tell places only up to a motion of the whole plane.

# %%
import argparse
import os
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from phylogeny import (
    STARTS,
    completed,
    few,
    hide,
    one_of,
    picture,
    posterior,
    read,
    scores,
    start_of,
    write,
    write_points,
)
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import init_to_median, init_to_value
from rich.console import Console
from rich.progress import track
from rich.table import Table

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist

SMOKE_TEST = "SMOKE_TEST" in os.environ
pyro.settings.set(module_local_params=True)

# %% [markdown]
# ## The model
#
# Several runs, from different starts, train at once, in hyperbolic spaces of different squared radii `k`.


# %%
class Tree:
    def __init__(self, n, manifold, pendant=True, dim=2, runs=1, df=4.0):
        self.n, self.M, self.pendant, self.dim, self.runs, self.df = n, manifold, pendant, dim, runs, df
        self.pairs = torch.triu_indices(n, n, 1)

    def latents(self, *_):
        with pyro.plate("runs", self.runs, dim=-2):
            c = pyro.sample("c", dist.LogNormal(torch.tensor(-2.0), 0.7))
            s = pyro.sample("s", dist.LogNormal(torch.tensor(1.0), 0.5))
            sigma = pyro.sample("sigma", dist.LogNormal(torch.tensor(-2.0), 1.0))
            with pyro.plate("taxa", self.n, dim=-1):
                z = pyro.sample("z", hdist.WrappedNormal(ph.geometry.origin(self.M, self.dim), s.unsqueeze(-1), self.M))
                a = pyro.sample("a", dist.LogNormal(torch.tensor(-2.0), 1.0)) if self.pendant else torch.zeros(self.n)
        return c, sigma, z, a

    def model(self, log_D, seen):
        c, sigma, z, a = self.latents()
        i, j = self.pairs
        d = c * ph.geometry.distance_matrix(self.M, z)[..., i, j] + a[..., i] + a[..., j]
        with pyro.plate("data", self.runs, dim=-2), pyro.plate("pairs", len(i), dim=-1), poutine.mask(mask=seen):
            log_d = pyro.deterministic("log d", d.log())
            pyro.sample("log D", dist.StudentT(self.df, log_d, sigma), obs=log_D)


# %% [markdown]
# ## Training and prediction
#
# With all points at the origin, every distance has gradient zero. So runs start at layouts of the neighbour-joining
# tree, after four-point conditions have filled the gaps. The run with the best ELBO counts.


# %%
def train(tree, log_D, seen, start, steps, rate=0.2):
    """Trains a guide, and yields it after each step."""
    # A guide runs the model that it is given, so it is given the latents only.
    guide = ph.infer.AutoWrappedNormal(tree.latents, init_loc_fn=init_to_value(values=start, fallback=init_to_median))
    guide()  # makes its parameters
    optimizer = torch.optim.Adam([each for each in guide.parameters() if each.requires_grad], rate, (0.8, 0.95))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        with pyro.validation_enabled(step == 0):
            loss = Trace_ELBO().differentiable_loss(tree.model, guide, log_D, seen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cosine.step()
        yield guide


def fit(D, seen, name, pendant, dim, steps, num_samples=200, run=None):
    """Returns a model of seen pairs, its guide, a run of it, by default the best, and draws of ``log d``, ``sigma``."""
    M, start = start_of(name, D, seen, pendant, dim)
    tree = Tree(len(D), M, pendant, dim, runs=len(start["c"]))
    log_D = D[tuple(tree.pairs)].where(seen, 1.0).log()
    *_, guide = track(train(tree, log_D, seen, start, steps), name, steps, transient=True)
    elbo, log_d, sigma = posterior(tree, guide, log_D, seen, num_samples)
    run = int(elbo.argmax()) if run is None else run
    return tree, guide, run, log_d[:, run], sigma[:, run]


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, help="file: npz, csv or Newick; by default a tree made by the seed")
    parser.add_argument("--manifold", choices=STARTS, help="one model instead of all four")
    parser.add_argument("--pendant", action=argparse.BooleanOptionalAction, default=True, help="pendant branches")
    parser.add_argument("--dim", type=int, default=2)
    parser.add_argument("--missing", type=float, default=0.5, help="share of the known distances to hide")
    parser.add_argument("--species", help="the one drawn as known by a few distances; by default the first")
    parser.add_argument("--known", type=int, default=4, help="number of its distances that are used")
    parser.add_argument("--steps", type=int, default=10 if SMOKE_TEST else 600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/tree_from_distances"))
    args = parser.parse_args()
    torch.set_default_dtype(torch.float64)  # relatives 20 units from the origin are one point in float32
    pyro.set_rng_seed(args.seed)
    try:
        D, names = read(args.data, args.seed)
    except (OSError, ValueError) as error:
        parser.error(f"--data {args.data}: {error}")
    if not (D > 0).any():
        parser.error("no distance is greater than zero: has the tree branch lengths?")
    if args.species not in (None, *names):
        parser.error(f"--species {args.species} is not among {', '.join(names)}")
    args.out.mkdir(parents=True, exist_ok=True)
    i, j = torch.triu_indices(len(D), len(D), 1)
    seen, hidden = hide(D, args.missing, args.seed)
    unit, draws = D[i, j][seen].mean(), 10 if SMOKE_TEST else 200
    table = Table("model", "pendants", "relative error", "log score", "coverage")
    models = [(name, pendant) for pendant in (False, True) for name in STARTS]
    for name, pendant in [(args.manifold, args.pendant)] if args.manifold else models:
        tree, _, _, log_d, sigma = fit(D / unit, seen, name, pendant, args.dim, args.steps, draws)
        found = scores((log_d[:, hidden], sigma), (D[i, j][hidden] / unit).log(), tree.df)
        table.add_row(name, "yes" if pendant else "no", *(f"{values.mean():.3f}" for values in found))
    table.add_row("four-point completion", "", f"{(completed(D, seen) / D - 1)[i, j][hidden].abs().mean():.3f}")
    if hidden.any():
        Console().print(table)
    unseen, draws_of_d = torch.stack([i, j])[:, ~seen], (log_d[:, ~seen] + unit.log(), sigma)
    write(args.out / "predictions.csv", names, unseen, D, draws_of_d, tree.df)
    if args.dim == 2:  # the last model, from the widest layout, with all distances but of one species
        star = names.index(args.species) if args.species else 0
        seen = few(D, D[i, j] > 0, star, args.known)
        tree, guide, run, log_d, _ = fit(D / unit, seen, name, pendant, 2, args.steps, draws, run=-1)
        clouds = torch.stack([guide()["z"][run] for _ in range(draws)]).detach()
        median = {site: value[run] for site, value in guide.median().items()}
        M = one_of(tree.M, run)
        write_points(args.out / "points.csv", M, names, median, clouds, unit)
        picture(args.out / "tree.png", M, D, names, median, clouds, log_d, star)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
