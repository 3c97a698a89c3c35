# %% [markdown]
# # Density estimation with the exact divergence
#
# $$\mathrm{KL}(p \,\|\, q) = \mathbb E_{x \sim p} [\log p(x) - \log q(x)]$$
#
# Nine targets on the hyperbolic plane with exact log-density, from `pyro_hyperbolic.datasets`, and the flows of the
# library. Each flow is trained by maximum likelihood on fresh samples, with the same budget. Earlier papers compare
# pictures; here are numbers. An interrupted run resumes where it stopped.
#
#     python tutorials/experiments/density_estimation.py --processes 2        # the table, longer runs, the picture
#     python tutorials/experiments/density_estimation.py --runs table --targets tree spirals
#
# `SMOKE_TEST=1` runs everything briefly in a temporary folder.

# %%
import argparse
import functools
import itertools
import math
import os
import string
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import geoopt
import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import torch
from matplotlib.figure import Figure
from pyro.nn import DenseNN
from records import missing, perform_all, read, write
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic import viz

SMOKE = bool(os.environ.get("SMOKE_TEST"))
HERE = Path(__file__).resolve().parent
M, PLANE = geoopt.Lorentz(), geoopt.Euclidean(1)
TARGETS = list(ph.datasets.DENSITY_TARGETS)
SEEDS = (0, 1, 2)

# %% [markdown]
# ## The flows
#
# Each ends with an affine map of the tangent space, fixed to the mean and standard deviations of a first batch. Lifted
# stacks map from data to noise, the direction in which training evaluates them.


# %%
def standardiser(x):
    v = ph.geometry.log0(M, x)
    return T.AffineTransform(v.mean(0), v.std(0), event_dim=1, cache_size=1)


def real_nvp(x):
    flow = ph.flows.coupling_flow(2, 8, HT.tangent_coupling, [64, 64], PLANE)
    return [flow, standardiser(x), HT.ExponentialMap(M)]


def couplings(coupling):
    return lambda x: [
        ph.flows.coupling_flow(2, 8, coupling, [64, 64], M),
        HT.TangentTransform(standardiser(x), M),
    ]


def lifted(layer, layers):
    def build(x):
        parts = [standardiser(x).inv]
        for _ in range(layers):
            parts += [layer(), T.permute(2, torch.tensor([1, 0]))]
        return [HT.TangentTransform(T.ComposeTransformModule(parts), M).inv]

    return build


def spline_coupling(bins):
    """Returns a rational-quadratic coupling that starts near the identity; Pyro's builder offers neither."""
    network = DenseNN(1, [64, 64], [bins, bins, bins - 1])
    layer = T.SplineCoupling(2, 1, network, bins, bound=4.0, order="quadratic")
    with torch.no_grad():
        network.layers[-1].weight.mul_(0.1)
        for sizes in (network.layers[-1].bias[: 2 * bins], *list(layer.lower_spline.parameters())[:2]):
            sizes.zero_()
        for slopes in (network.layers[-1].bias[2 * bins :], layer.lower_spline.unnormalized_derivatives):
            slopes.fill_(math.log(math.e - 1))  # its softplus is one
    return layer


def polar(layers, bins):
    def build(x):
        reach = 1.3 * ph.geometry.log0(M, x).norm(dim=-1).max().item()
        parts = []
        for i in range(layers):  # offset by the golden angle; the first layer starts from the data
            parts.append(HT.polar_coupling([64, 64], bins, reach, math.pi + 2.4 * i, M, None if i else x))
        return [part.inv for part in reversed(parts)]

    return build


class Budget(NamedTuple):
    steps: int
    batch: int
    learning_rate: float = 5e-3


FLOWS = {
    "RealNVP": real_nvp,
    "TC": couplings(HT.tangent_coupling),
    "WHC": couplings(HT.wrapped_hyperboloid_coupling),
    "autoregressive": lifted(lambda: T.affine_autoregressive(2, [64, 64]), 8),
    "spline": lifted(lambda: spline_coupling(16), 4),
    "polar": polar(4, 64),
}
BUDGETS = {"table": Budget(2000, 256), "long": Budget(6000, 512)}
LONG = {"tree": "polar"}
if SMOKE:
    TARGETS, SEEDS, BUDGETS = ["tree"], (0,), {name: Budget(4, 64) for name in BUDGETS}

# %% [markdown]
# ## Training and scoring
#
# We score the average of the weights over the last steps, in float64, on 100 000 fresh draws that all flows of a target
# share, and compute its mass by quadrature.


# %%
def distribution(transforms):
    """Returns the distribution of standard normal noise after the transforms."""
    manifold = PLANE if isinstance(transforms[-1], HT.ExponentialMap) else M
    base = hdist.WrappedNormal(ph.geometry.origin(manifold, 2, dtype=torch.float64), 1.0, manifold)
    return dist.TransformedDistribution(base, transforms)


def modules(transforms):
    """Returns the transforms with parameters, those behind inverses included."""
    parts = [t if isinstance(t, torch.nn.Module) else t.inv for t in transforms]
    return torch.nn.ModuleList(part for part in parts if isinstance(part, torch.nn.Module))


def train(transforms, target, budget):
    """Trains by maximum likelihood, yields the number of points lost so far after each step, and averages weights."""
    learned, model = modules(transforms), distribution(transforms)
    average = AveragedModel(learned, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    optimizer = torch.optim.Adam(learned.parameters(), budget.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, budget.learning_rate, budget.steps, pct_start=0.1, cycle_momentum=False
    )
    lost = 0
    for _ in range(budget.steps):
        x = target.sample((budget.batch,))
        log_q = model.log_prob(x)
        # Noise farther than 710 from the origin, of likelihood exp(-250 000), overflows.
        inside = log_q.detach().isfinite()
        if not bool(inside.all()):
            lost += int((~inside).sum())
            log_q = model.log_prob(x[inside])
        loss = -log_q.mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(learned)
        yield lost
    learned.load_state_dict(average.module.state_dict())


@functools.cache
def evaluation(name):
    """Returns fresh samples of a target and their exact log-density."""
    target = ph.datasets.density_target(name)
    pyro.set_rng_seed(1_000_000)
    x = target.sample((1000 if SMOKE else 100_000,))
    return x, target.log_prob(x)


def square(reach, cells):
    """Returns the centres of square cells in tangent coordinates, as points, and the areas of the cells."""
    number = round(math.sqrt(cells))
    middles = reach * (2 * (torch.arange(number) + 0.5) / number - 1)
    v = torch.cartesian_prod(middles, middles)
    return ph.geometry.exp0(M, v), (2 * reach / number) ** 2 * ph.geometry.log_volume(M, v).exp()


def rings(reach, cells):
    """Returns the centres of nearly square cells of equal area on rings about the origin, and their areas."""
    spacing = math.sqrt(2 * math.pi * (math.cosh(reach) - 1) / cells)
    borders = torch.linspace(0, reach, math.ceil(reach / spacing) + 1)
    points, areas = [], []
    for i, (inner, outer) in enumerate(itertools.pairwise(borders)):
        radius = (inner + outer) / 2
        number = math.ceil(2 * math.pi * radius.sinh() / spacing)
        angle = 2 * math.pi * (torch.arange(number) / number + 0.618 * i)
        points.append(radius * torch.stack([angle.cos(), angle.sin()], dim=-1))
        areas.append((2 * math.pi * (outer.cosh() - inner.cosh()) / number).expand(number))
    return ph.geometry.exp0(M, torch.cat(points)), torch.cat(areas)


def log_prob(model, x):
    """Returns the log-density, minus infinity where the noise overflows."""
    log_q = torch.cat([model.log_prob(part) for part in x.split(4096)])
    return torch.where(log_q.isnan(), -math.inf, log_q)


@torch.no_grad()
def score(transforms, name):
    """Returns the divergence with its standard error, and the mass with its change from a grid half as fine.

    The mass is an integral over a disk that holds all draws of the target, plus the fraction of its own draws beyond.
    """
    model, (x, log_p) = distribution(transforms), evaluation(name)
    terms = log_p - log_prob(model, x)
    # Cells are equal in the tangent space or on the manifold, wherever the target spreads its detail evenly.
    grid, cells = (rings, 800_000) if name in ("four_wrapped", "tree") else (square, 200_000)
    pyro.set_rng_seed(2_000_000)
    reach = 1.1 * ph.geometry.log0(M, x).norm(dim=-1).max().item()
    near = ph.geometry.log0(M, model.sample((10_000,))).norm(dim=-1) < reach  # False if the point overflows
    masses = []
    for number in (1000, 500) if SMOKE else (cells, cells // 4):
        points, areas = grid(reach, number)
        inside = ph.geometry.log0(M, points).norm(dim=-1) < reach  # a square has corners
        masses.append((log_prob(model, points).exp() * areas)[inside].sum().item())
    shares = {}
    if name == "tree":  # the contributions to the divergence by the depth of the nearest node
        nearest = ph.geometry.distance(M, x[:, None], ph.datasets.binary_tree()[0]).argmin(-1)
        depth = (nearest + 1).log2().floor()
        shares["kl_by_depth"] = [(terms * (depth == level)).mean().item() for level in range(5)]
    return {
        **shares,
        "kl": terms.mean().item(),
        "kl_error": (terms.std() / len(terms) ** 0.5).item(),
        "entropy": -log_p.mean().item(),
        "mass": masses[0] + (~near).double().mean().item(),
        "mass_error": abs(masses[0] - masses[1]),
    }


# %% [markdown]
# ## One run, all runs


# %%
class Run(NamedTuple):
    target: str
    flow: str
    budget: str
    seed: int

    @property
    def name(self):
        return f"{self.target}-{self.flow}-{self.budget}-{self.seed}"


def planned(args):
    seeds, targets = SEEDS, args.targets
    table = [
        Run(target, flow, "table", seed)
        for seed in seeds
        for target in targets
        for flow in args.flows
        if flow != "polar" or target == "tree"
    ]
    longer = [Run(target, flow, "long", seed) for target, flow in LONG.items() if target in targets for seed in seeds]
    return {"table": table, "long": longer, "all": table + longer}[args.runs]


def fitted(run, state):
    """Returns the trained transforms of a run, and how many points were lost."""
    pyro.enable_validation(False)
    budget, target, lost = BUDGETS[run.budget], ph.datasets.density_target(run.target), 0
    pyro.set_rng_seed(run.seed)
    transforms = FLOWS[run.flow](target.sample((4096,)))
    for step, lost in enumerate(train(transforms, target, budget), 1):  # noqa: B007
        if step % 50 == 0:
            state[run.name] = step / budget.steps
    return transforms, lost


def perform(run, folder, state):
    """Trains and scores one flow, and writes its results and transforms."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    start = time.perf_counter()
    transforms, lost = fitted(run, state)
    seconds, budget = time.perf_counter() - start, BUDGETS[run.budget]
    count = sum(value.numel() for value in modules(transforms).parameters())
    row = {**run._asdict(), **budget._asdict(), "parameters": count, "seconds": seconds, "lost": lost}
    row |= score(transforms, run.target)
    torch.save(transforms, folder / f"{run.name}.pt")
    write(folder, run.name, row)
    state.pop(run.name, None)


def perform_missing(runs, folder, processes):
    absent = missing(folder, {run.name: {**run._asdict(), **BUDGETS[run.budget]._asdict()} for run in runs})
    jobs = [(run, folder) for run in runs if run.name in absent]
    perform_all(perform, jobs, "runs", len(runs), processes)


# %% [markdown]
# ## The pictures
#
# Densities with respect to Riemannian volume, on the part of the Poincaré disk where the target is. Each column has one
# colour scale, up to a high quantile of the target. The leaves of the tree are too near the rim to be visible from the
# root, so a second column shows the tree from one of their parents. Trained flows are not in the repository: those of
# the pictures are trained again if they are missing, and KL is that of the flow as it is drawn.


# %%
def picture(runs, folder, file):
    """Draws the density of each target, samples of the best flow, and the densities of that flow and of TC.

    There are two pictures of five columns; the name of the second ends in ``-2``.
    """
    rows = [row for row in results(folder) if row["seed"] == 0]
    views = [(target, None) for target in TARGETS if any(run.target == target for run in runs)]
    if ("tree", None) in views:
        views.append(("tree", 7))
    views = [(letter, *view) for letter, view in zip(string.ascii_lowercase, views, strict=False)]
    for part, name in ((views[:5], file), (views[5:], file.with_stem(f"{file.stem}-2"))):
        if part:
            sheet(part, rows, folder).savefig(name, dpi=150)


def sheet(views, rows, folder):
    """Returns a figure with a column for each view of a target."""
    figure = Figure(figsize=(1.75 * len(views) + 0.3, 8.4), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.04, wspace=0.0, hspace=0.0)
    axes = figure.subplots(4, len(views), squeeze=False)
    for column, (letter, target, node) in zip(axes.T, views, strict=True):
        mine = [row for row in rows if row["target"] == target]
        shown = [min(mine, key=lambda row: row["kl"]), next(row for row in mine if row["flow"] == "TC")]
        flows = [load(row, folder) for row in shown]
        draw(column, ph.datasets.density_target(target), flows, target, node)
        name = target.replace("_", " ") if node is None else f"{target}, node {node}"
        column[0].set_title(f"({letter}) {name}", fontsize=11)
        for ax, row, flow in zip(column[2:], shown, flows, strict=True):
            x, log_p = evaluation(target)
            with torch.no_grad():
                kl = (log_p - log_prob(flow, x)).mean().item()
            ax.text(0.5, -0.02, f"{row['flow']}\nKL {kl:.4f}", transform=ax.transAxes, ha="center", va="top")
    for ax, label in zip(axes[:, 0], ("target", "samples of the best", "best flow", "TC"), strict=True):
        ax.text(-0.06, 0.5, label, transform=ax.transAxes, rotation=90, va="center", ha="right")
    return figure


def load(row, folder):
    """Returns the distribution of a run, which is trained again if only its record was kept."""
    run = Run(row["target"], row["flow"], row["budget"], row["seed"])
    file = folder / f"{run.name}.pt"
    if not file.exists():
        torch.save(fitted(run, {})[0], file)
    return distribution(torch.load(file, weights_only=False))


@torch.no_grad()
def draw(column, target, flows, name, node):
    nodes, edges = ph.datasets.binary_tree()
    centre = ph.geometry.origin(M, 2, dtype=torch.float64) if node is None else nodes[node]

    def seen(x):
        """Moves points by the isometry that carries the centre of the view to the origin."""
        return ph.geometry.translate(M, centre, x, inverse=True)

    x = target.sample((20_000,))
    half = min(1.01, 1.1 * ph.charts.to_poincare_ball(M, seen(x)).norm(dim=-1).quantile(0.9999).item())
    extent = (-half, half, -half, half)
    options = {"extent": extent, "resolution": 60 if SMOKE else 200}
    options["vmax"] = target.log_prob(x).exp().quantile(0.98).item()
    for ax in column:
        viz.poincare_disk(ax, M, linewidth=0.8)
        ax.set(xlim=extent[:2], ylim=extent[2:])
    for ax, law in zip(column[[0, 2, 3]], (target, *flows), strict=True):
        viz.density(ax, M, lambda y, law=law: log_prob(law, ph.geometry.translate(M, centre, y)), **options)
    drawn = flows[0].sample((4000,))
    viz.points(column[1], M, seen(drawn[drawn.isfinite().all(-1)]), s=1.0, c="0.15", linewidth=0)
    if name == "tree":
        viz.tree(column[1], M, seen(nodes), edges, linewidth=0.8, linestyle="--", color="#D55E00")


# %% [markdown]
# ## The table

# %%
#: 97.5% quantiles of Student's t by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}


def results(folder):
    """Returns the results so far, in planned order."""
    rows = read(folder, ("target", "flow", "budget", "seed", "kl", "kl_error", "entropy", "mass", "seconds")).values()
    plan = [TARGETS, list(FLOWS), list(BUDGETS), list(SEEDS)]
    return sorted(rows, key=lambda row: [p.index(row[key]) for p, key in zip(plan, Run._fields, strict=True)])


def interval(values, digits=4):
    """Returns the mean over seeds with its 95% interval."""
    values = torch.tensor(values, dtype=torch.float64)
    if len(values) == 0:
        return ""
    if not bool(values.isfinite().all()):
        return f"infinite for {int((~values.isfinite()).sum())} of {len(values)} seeds"
    if len(values) == 1:
        return f"{values.item():.{digits}f}"
    return f"{values.mean():.{digits}f} ± {STUDENT[len(values) - 1] * values.std() / len(values) ** 0.5:.{digits}f}"


HEAD = """## Density estimation

    python tutorials/experiments/density_estimation.py --processes 2 --picture docs/images/density_estimation.png

KL(target || flow) in nats, mean over {seeds} seeds with a 95% t-interval. All flows have the same budget: maximum
likelihood on fresh samples, {steps} steps of {batch}, Adam with one cycle of the rate up to {rate}. The average of the
weights is scored on 100 000 fresh draws, with the exact density of the target. Affine flows have 8 layers, spline
couplings 4 with 16 bins, polar couplings 4 with 64; all networks are [64, 64]. Bose et al. and Lou et al. show pictures
of these targets and no numbers.
"""

NOTES = """
**Which flow suits which target.**

- Every flow can fit a single wrapped normal. Affine flows come closest, since their tails are normal. A spline coupling
  is the identity outside its box, and slow to learn the slanted tails of `wrapped`.
- Separate modes and jumps need splines. Affine layers leave bridges between the modes of `mixture` and
  `five gaussians`, and cannot cut out the squares of the boards. Rational-quadratic couplings that start near the
  identity can, in the same number of steps, for about three times the seconds.
- **RealNVP, TC and WHC are one family of densities here.** TC *is* RealNVP pushed through `exp0` (a test states it):
  from one seed both start as the same density, and differ in the table only by rounding that training magnifies. In
  two dimensions WHC is TC with its shift passed through asinh. On the five targets that are planar densities pushed
  through `exp0` (`mixture`, `spirals`, both boards, `five gaussians`) every flow in the table solves a planar problem:
  these rows measure nothing hyperbolic.
- **On `tree` geometry matters.** Its 16 leaves hold half of the mass, at distances 6.1 to 6.5 from the root, where a
  blob of standard deviation 0.3 has an angular width of 0.001: Cartesian layers must cut out slices that thin in both
  coordinates. `polar` is `HT.polar_coupling`, splines of angle and radius in geodesic polar coordinates; the knots of
  the first are quantiles of the data. It also has four times the parameters of TC, and takes ten times the seconds. The
  contribution of the leaves (draws nearest to a leaf) to KL: {leaves}.
  The remaining KL of `polar` is spread over the tree, including filaments near the root, and still falls with the
  budget.
- TC, WHC and lifted flows pass their noise through the manifold, and overflow where it is farther than 710 from the
  origin. Such points, of likelihood below exp(-250 000), were left out of their steps: {lost}.
  RealNVP, whose noise stays in the plane, has no such limit.

![Five targets, samples, learned densities](../../docs/images/density_estimation.png)

![Five targets that reach farther, samples, learned densities](../../docs/images/density_estimation-2.png)

Columns have one colour scale each, up to a high quantile of the target's density. Samples are of the best flow.
"""


def section(runs):
    """Returns the results as Markdown; ``runs`` is the folder given as ``--out``."""
    rows = results(Path(runs) / "density_estimation")
    table, longer = ([row for row in rows if row["budget"] == budget] for budget in ("table", "long"))
    budget = BUDGETS["table"]
    lines = [HEAD.format(seeds=len(SEEDS), steps=budget.steps, batch=budget.batch, rate=budget.learning_rate)]
    lines += [f"| target | entropy | {' | '.join(FLOWS)} |", "|---" * (len(FLOWS) + 2) + "|"]
    for target in dict.fromkeys(row["target"] for row in table):
        mine = [row for row in table if row["target"] == target]
        cells = [interval([row["kl"] for row in mine if row["flow"] == flow]) or "-" for flow in FLOWS]
        lines.append(f"| {target.replace('_', ' ')} | {mine[0]['entropy']:.3f} | {' | '.join(cells)} |")
    lines += [
        "\nMass is the integral of the learned density by quadrature over a disk that holds all draws of the target,",
        "plus the fraction of its own draws beyond. Its error is the change from a grid with a quarter of the cells.",
        "The error of KL is the standard error over draws. Seconds are training time on one core of a busy machine.\n",
        "| flow | parameters | seconds, median | error of KL, median | mass farthest from 1 |",
        "|---|---|---|---|---|",
    ]
    for flow in dict.fromkeys(row["flow"] for row in sorted(table, key=lambda row: list(FLOWS).index(row["flow"]))):
        mine = [row for row in table if row["flow"] == flow]
        worst = max(mine, key=lambda row: abs(row["mass"] - 1))
        seconds, error = (torch.tensor([row[key] for row in mine]).median() for key in ("seconds", "kl_error"))
        mass = f"{worst['mass']:.4f} ± {worst['mass_error']:.4f} on {worst['target'].replace('_', ' ')}"
        lines.append(f"| {flow} | {mine[0]['parameters']} | {seconds:.0f} | {error:.4f} | {mass} |")
    if longer:
        lines += [
            f"\nLonger runs, {BUDGETS['long'].steps} steps of {BUDGETS['long'].batch}:\n",
            "| target | flow | seeds | KL | mass | seconds, mean |",
            "|---|---|---|---|---|---|",
        ]
    for target, flow in dict.fromkeys((row["target"], row["flow"]) for row in longer):
        mine = [row for row in longer if (row["target"], row["flow"]) == (target, flow)]
        kl, mass, seconds = ([row[key] for row in mine] for key in ("kl", "mass", "seconds"))
        cells = f"{len(mine)} | {interval(kl)} | {interval(mass, 3)} | {sum(seconds) / len(seconds):.0f}"
        lines.append(f"| {target.replace('_', ' ')} | {flow} | {cells} |")
    lost = [f"{row['lost']} of {row['flow']} on {row['target']}, seed {row['seed']}" for row in rows if row["lost"]]
    leaves = []
    for flow, budget in dict.fromkeys((row["flow"], row["budget"]) for row in rows if row["target"] == "tree"):
        mine = [row for row in rows if (row["target"], row["flow"], row["budget"]) == ("tree", flow, budget)]
        part = sum(row["kl_by_depth"][-1] for row in mine) / len(mine)
        whole = sum(row["kl"] for row in mine) / len(mine)
        leaves.append(f"{flow}{', longer' if budget == 'long' else ''} {part:.2f} of {whole:.2f}")
    return "\n".join(lines) + "\n" + NOTES.format(lost="; ".join(lost) or "none", leaves="; ".join(leaves))


def main():
    parser = argparse.ArgumentParser(description="Density estimation with the exact divergence.")
    parser.add_argument("--runs", choices=["table", "long", "all"], default="all")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS, metavar="TARGET")
    parser.add_argument("--flows", nargs="+", choices=list(FLOWS), default=list(FLOWS), metavar="FLOW")
    parser.add_argument("--processes", type=int, default=2, help="one run in each")
    parser.add_argument("--out", type=Path, help="folder of results", default=HERE / "runs")
    parser.add_argument("--picture", type=Path, help="where to write the two pictures; needs all runs of seed 0")
    args = parser.parse_args()
    if SMOKE:
        args.out = Path(tempfile.mkdtemp())
        args.picture = args.out / "density_estimation.png"
    folder = args.out / "density_estimation"
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_default_dtype(torch.float64)
    runs = planned(args)
    perform_missing(runs, folder, args.processes)
    if args.picture:
        picture(runs, folder, args.picture)
    print(section(args.out))


if __name__ == "__main__":
    main()
