# %% [markdown]
# # A tree with error bars, from a matrix with holes
#
# $$\begin{gathered}
#   z_i \sim \mathrm{WN}(o, s), \qquad a_i \sim \mathrm{LogNormal}, \\
#   \log D_{ij} \sim \mathrm{StudentT}_4\big(\log(c\, d(z_i, z_j) + a_i + a_j),\ \sigma\big)
# \end{gathered}$$
#
# Evolutionary distances are nearly those of a tree, and trees fit into the hyperbolic plane. Each species hangs from a
# point of it by a pendant branch of length $a_i$. Their posterior predicts the distances that are missing.
#
#     python tutorials/tree_from_distances.py                     # four models, of a tree that is made by the seed
#     python tutorials/tree_from_distances.py --data D.csv --manifold hyperbolic --missing 0 --species Lynx --known 99
#
# `--data` is a square csv with the names in its first row, and perhaps in its first column; a tree in Newick's format;
# or an npz with `distances` and `names`. Empty cells, `NA` and zeros are missing, and one triangle is enough. A share
# `--missing` of the known distances is hidden, to measure how well models predict. A second run resumes. In `--out` are
#
# - `predictions.csv`: missing and hidden distances, by number (from 0) and by name: medians and 90% intervals.
# - `points.csv`: places of species, radii of balls with 90% of the posterior, and pendant branches.
# - `tree.png`: draws, and the neighbour-joining tree of predictions. The species in bold has `--known` distances only.

# %%
import argparse
import os
from pathlib import Path

import phylogeny  # in this folder
import pyro
import pyro.distributions as dist
import torch
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
        with pyro.plate("data", self.runs, dim=-2), pyro.plate("pairs", len(i), dim=-1), pyro.poutine.mask(mask=seen):
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


def fit(D, seen, name, pendant, dim, steps, num_samples, run=None):
    """Returns the manifold of a run, by default the best, its medians, and draws of ``z``, ``log d`` and ``sigma``."""
    M, start = phylogeny.start_of(name, D, seen, pendant, dim)
    tree = Tree(len(D), M, pendant, dim, runs=len(start["c"]))
    log_D = D[tuple(tree.pairs)].where(seen, 1.0).log()
    *_, guide = track(train(tree, log_D, seen, start, steps), name, steps, console=Console(stderr=True))
    elbo, log_d, sigma = phylogeny.posterior(tree, guide, log_D, seen, num_samples)
    run = int(elbo.argmax()) if run is None else run
    z = torch.stack([guide()["z"][run] for _ in range(num_samples)]).detach()
    median = {site: value[run].detach() for site, value in guide.median().items()}
    return phylogeny.one_of(M, run), median, z, log_d[:, run], sigma[:, run]


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, help="file: npz, csv or Newick; by default a tree made by the seed")
    parser.add_argument("--manifold", choices=phylogeny.STARTS, help="one model instead of all four")
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
    D, names, star = phylogeny.read_arguments(parser)
    i, j = torch.triu_indices(len(D), len(D), 1)
    seen, hidden = phylogeny.hide(D, args.missing, args.seed)
    unit, settings = D[i, j][seen].mean(), (args.dim, args.steps, 10 if SMOKE_TEST else 200)
    table = Table("model", "pendants", "relative error", "log score", "coverage")
    models = [(name, pendant) for pendant in (False, True) for name in phylogeny.STARTS]
    for name, pendant in [(args.manifold, args.pendant)] if args.manifold else models:
        *_, log_d, sigma = phylogeny.once(args.out, args.seed, fit, D / unit, seen, name, pendant, *settings)
        found = phylogeny.scores((log_d[:, hidden], sigma), (D[i, j][hidden] / unit).log())
        table.add_row(name, "yes" if pendant else "no", *(f"{values.mean():.3f}" for values in found))
    error = (phylogeny.completed(D, seen) / D - 1)[i, j][hidden].abs().mean()
    table.add_row("four-point completion", "", f"{error:.3f}")
    if hidden.any():
        Console().print(table)
    phylogeny.write(args.out / "predictions.csv", names, D, ~seen, (log_d + unit.log(), sigma))
    if args.dim == 2:  # the last model, from the widest layout, with all distances but of one species
        seen = phylogeny.few(D, D[i, j] > 0, star, args.known)
        M, median, z, log_d, _ = phylogeny.once(args.out, args.seed, fit, D / unit, seen, name, pendant, *settings, -1)
        phylogeny.write_points(args.out / "points.csv", M, names, median, z, unit)
        phylogeny.picture(args.out / "tree.png", M, D, names, median, z, log_d, star)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
