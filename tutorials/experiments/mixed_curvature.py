"""Products of curved spaces: is the product that distances came from found, with its curvatures?

    python tutorials/experiments/mixed_curvature.py                 # the table; resumes where it stopped
    python tutorials/experiments/mixed_curvature.py --data planted --spaces "H2 x S2" E4 --out DIR
    python tutorials/experiments/report.py                          # writes README.md from the records

Noisy distances of all pairs of 32 points, a fifth of them held out. The model puts the points into a product,

    D_ij ~ Normal(d(x_i, x_j), sigma),   d^2 = sum of the squared distances of the factors,

with the points, the radius of each curved factor and sigma as Pyro parameters, by maximum likelihood. The question
was asked by "Learning Mixed-Curvature Representations in Product Spaces" (Gu, Sala, Gunel, Re, ICLR 2019).
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import geoopt
import pyro
import pyro.distributions as dist
import scipy.sparse.csgraph
import scipy.stats
import torch
from matplotlib.figure import Figure
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule, PyroParam
from records import missing, perform_all, read, write
from torch.distributions import constraints

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from pyro_hyperbolic import geometry

pyro.settings.set(module_local_params=True)
SMOKE = "SMOKE_TEST" in os.environ
HERE = Path(__file__).resolve().parent


class Setting(NamedTuple):
    """What all runs share. Of ``restarts`` runs ``kept`` go on after the first of two numbers of steps."""

    seeds: tuple[int, ...] = tuple(range(101, 109))  # declared before any run; settings were chosen on seeds 0 to 5
    points: int = 32
    noise: float = 0.1
    held_out: float = 0.2
    restarts: int = 10
    kept: int = 2
    steps: tuple[int, int] = (100, 150)
    rate: float = 0.3


SETTING = Setting(seeds=(101, 102), points=8, restarts=3, kept=2, steps=(3, 4)) if SMOKE else Setting()

#: More restarts, for the spaces that gain by them on data of trees.
LONGER = SETTING._replace(restarts=40, kept=4)

# ---- Data ----


class Data(NamedTuple):
    """How to draw distances, the space that they came from, and the radii of its curved factors, if it has them."""

    draw: Callable[..., torch.Tensor]
    title: str
    space: str
    radii: tuple[float | None, ...] = ()


def hyperboloid(radius):
    return geoopt.Lorentz(torch.tensor(radius, dtype=torch.float64) ** 2)


def total(*distances):
    """Returns distances in a product."""
    return reduce(torch.hypot, distances)


def planted(points, seed, radii):
    """Points of H2 x S2: wrapped normal, and uniform."""
    M = hyperboloid(radii[0])
    x = geometry.exp0(M, torch.randn(points, 2, dtype=torch.float64))
    y = geometry.project(geoopt.Sphere(), torch.randn(points, 3, dtype=torch.float64))
    return total(geometry.distance_matrix(M, x), radii[1] * geometry.distance_matrix(geoopt.Sphere(), y))


def two_trees(points, seed, radii):
    """Two random walks that branch, each in its hyperbolic plane: a child is one unit away from a random parent."""
    planes = [hyperboloid(radius) for radius in radii]
    return total(*(geometry.distance_matrix(M, branching_walk(M, points)) for M in planes))


def branching_walk(M, points):
    x = geometry.exp0(M, torch.zeros(1, 2, dtype=torch.float64))
    while len(x) < points:
        parent = x[torch.randint(len(x), (1,))]
        step = torch.randn(1, 2, dtype=torch.float64)
        x = torch.cat([x, geometry.exp_at(M, parent, step / step.norm())])
    return x[torch.randperm(points)]


def tree_and_cycle(points, seed, radii):
    """Pairs of a node of a random tree of 10 and a node of a cycle of 8; the distance is that of the product."""
    (edges,) = ph.datasets.random_trees(seed, 1, nodes=(10, 10))
    nodes = torch.arange(8)
    cycle = torch.stack([nodes, (nodes + 1) % 8], -1)
    chosen = torch.randperm(80)[:points]
    u, v = chosen // 8, chosen % 8
    return total(steps(edges, 10)[u][:, u], steps(cycle, 8)[v][:, v])


def ring_of_trees(points, seed, radii):
    """A cycle with a third of the nodes; each other node hangs on a random earlier one. The distance is in steps."""
    nodes = torch.arange(points)
    ring = max(points // 3, 3)
    parents = [(i + 1) % ring if i < ring else int(torch.randint(i, (1,))) for i in range(points)]
    return steps(torch.stack([nodes, torch.tensor(parents)], -1), points)


def steps(edges, nodes):
    """Returns the numbers of steps between nodes of a graph."""
    graph = scipy.sparse.coo_matrix((torch.ones(len(edges)), edges.T.numpy()), shape=(nodes, nodes))
    return torch.from_numpy(scipy.sparse.csgraph.shortest_path(graph, directed=False))


def flat(points, seed, radii):
    """Normal points of E4."""
    return geometry.distance_matrix(geoopt.Euclidean(1), torch.randn(points, 4, dtype=torch.float64))


DATA = {
    "planted": Data(planted, "Points of H2 x S2", "H2 x S2", (1.0, 1.2)),
    "two trees": Data(two_trees, "Trees in H2 x H2", "H2 x H2", (0.5, 1.5)),
    "tree and cycle": Data(tree_and_cycle, "Tree x cycle", "H2 x S2", (None, 8 / (2 * math.pi))),
    "flat": Data(flat, "Points of E4", "E4"),
    "ring of trees": Data(ring_of_trees, "Ring of trees", ""),
}


def pairs(points):
    """Returns the indices of all pairs."""
    return torch.triu_indices(points, points, 1)


def observed(name, seed, setting=SETTING):
    """Returns noisy distances of all pairs, and which of them are for training."""
    pyro.set_rng_seed(seed)
    data = DATA[name]
    i, j = pairs(setting.points)
    D = data.draw(setting.points, seed, data.radii)[i, j]
    D = D + setting.noise * torch.randn(len(D), dtype=torch.float64)
    return D, torch.rand(len(D)) >= setting.held_out


# ---- The model ----

SPACES = ("E4", "H2 x E2", "E2 x S2", "H2 x H2", "H2 x S2", "S2 x S2", "H4", "E6")


def factors_of(space):
    """Returns the factors of a space, as pairs of a letter and a dimension."""
    return [(part[0], int(part[1:])) for part in space.split(" x ")]


def flat_sizes(space):
    """Returns the dimension of the flat space that each factor starts from: a sphere lies in one more dimension."""
    return [n + (kind == "S") for kind, n in factors_of(space)]


class Embedding(PyroModule):
    """``D ~ Normal(d(x_i, x_j), sigma)`` for points of a product, for many runs at once.

    Args:
        space: For example "H2 x S2".
        v: Where the points start: tangent coordinates, and on a sphere directions, shape ``(runs, points, n)``.
        radius: The radius of each curved factor at the start, shape ``(runs, 1)``.
        sigma: The standard deviation at the start, shape ``(runs, 1)``.
    """

    def __init__(self, space, v, radius, sigma):
        super().__init__()
        self.space = space
        factors, parts = [], []
        for (kind, _), part in zip(factors_of(space), v.split(flat_sizes(space), -1), strict=True):
            if kind == "E":
                M, x = geoopt.Euclidean(1), part
            elif kind == "H":
                M = ph.manifolds.Lorentz(radius**2, learnable=True)
                x = geometry.exp0(M, part)
            else:
                M = geoopt.Sphere()
                x = geometry.project(M, part)
            factors.append((M, x.size(-1)))
            parts.append(x.detach())
        self.manifold = ph.manifolds.Product(*factors)
        self.x = PyroParam(torch.cat(parts, -1), hdist.constraints.on_manifold(self.manifold), event_dim=1)
        # geoopt's sphere has radius 1, so the model has the radii of spheres.
        self.sphere_radii = PyroParam(radius.repeat(1, space.count("S")), constraints.positive)
        self.sigma = PyroParam(sigma, constraints.positive)

    def distances(self):
        """Returns the distances of all pairs, shape ``(runs, pairs)``."""
        x, parts, radii = self.x, [], iter(self.sphere_radii.unbind(-1))
        i, j = pairs(x.size(-2))
        for index, factor in enumerate(self.manifold.manifolds):
            apart = geometry.distance_matrix(factor, self.manifold.take_submanifold_value(x, index))[..., i, j]
            parts.append(next(radii).unsqueeze(-1) * apart if isinstance(factor, geoopt.Sphere) else apart)
        return total(*parts)

    def forward(self, D, observed):
        likelihood = dist.Normal(self.distances(), self.sigma)
        with pyro.plate("runs", len(D), dim=-2), pyro.plate("pairs", D.size(-1), dim=-1), poutine.mask(mask=observed):
            pyro.sample("D", likelihood, obs=D)

    def log_radii(self):
        """Returns the logarithms of the radii of curved factors, shape ``(runs, curved factors)``."""
        k = [factor.k for factor in self.manifold.manifolds if isinstance(factor, ph.manifolds.Lorentz)]
        return torch.cat([value.log() / 2 for value in k] + [self.sphere_radii.log()], -1)


def scaled(D, train, points, n):
    """Returns coordinates ``(points, n)`` by classical scaling of the training pairs, and shortest paths elsewhere."""
    full = torch.full((points, points), math.inf, dtype=D.dtype)
    i, j = pairs(points)
    full[i[train], j[train]] = D[train].clamp(min=0)
    full = torch.minimum(full, full.mT).fill_diagonal_(0)
    for k in range(points):
        full = torch.minimum(full, full[:, k : k + 1] + full[k : k + 1])
    centre = torch.eye(points, dtype=D.dtype) - 1 / points
    values, vectors = torch.linalg.eigh(-0.5 * centre @ full**2 @ centre)
    return vectors[:, -n:] * values[-n:].clamp(min=0).sqrt()


def fit(space, D, train, setting=SETTING, report=lambda share: None):
    """Returns the best model of each row of ``D``, the log-likelihoods of its distances, and how many runs agree.

    ``restarts`` runs start from classical scaling, turned at random, with radii of a quarter of the largest distance.
    After some steps the best on the training pairs go on, and of those the best counts.
    """
    n = sum(flat_sizes(space))
    v = torch.stack([scaled(*row, setting.points, n) for row in zip(D, train, strict=True)])
    runs, count = setting.restarts, sum(setting.steps)
    v = v.unsqueeze(1) @ torch.linalg.qr(torch.randn(runs, n, n, dtype=D.dtype))[0]
    if len(factors_of(space)) == 1:  # then a turn is no other start
        v = v + 0.5 * v.std((1, 2, 3), keepdim=True) * torch.randn_like(v)
    radius = (D * train).amax(-1, keepdim=True) / 4
    model = Embedding(space, v.flatten(0, 1), *(x.repeat_interleave(runs, 0) for x in (radius, 0.0 * radius + 0.3)))
    done = 0
    for steps, kept in zip(setting.steps, (setting.kept, 1), strict=True):
        data = [value.repeat_interleave(runs, 0) for value in (D, train)]
        maximise(model, *data, steps, setting.rate, lambda step, done=done: report((done + step) / count))
        with torch.no_grad():
            log_prob = dist.Normal(model.distances(), model.sigma).log_prob(data[0])
        likelihood = ((log_prob * data[1]).sum(-1) / data[1].sum(-1)).nan_to_num(-math.inf).view(len(D), runs)
        best = likelihood.topk(kept).indices
        model = take(model, (best + runs * torch.arange(len(D)).unsqueeze(-1)).flatten())
        runs, done = kept, done + steps
    agree = (likelihood > likelihood.amax(-1, keepdim=True) - 0.03).sum(-1)
    with torch.no_grad():
        return model, dist.Normal(model.distances(), model.sigma).log_prob(D), agree


def maximise(model, D, train, steps, rate, report):
    """Maximises the likelihood of the training pairs, by Adam with one cycle of the rate."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.95, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
    elbo = Trace_ELBO()(model, lambda *_: None)  # nothing is latent, so this is minus the log-likelihood
    for step in range(steps):
        with pyro.validation_enabled(step == 0):
            loss = elbo(D, train)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        report(step + 1)


def take(model, runs):
    """Returns a copy with these runs, any of them several times."""
    copy = deepcopy(model)
    for parameter in copy.parameters():
        parameter.data, parameter.grad = parameter.data[runs], None
    return copy


def intervals(model, run, D, train):
    """Returns 95% intervals of the radii of a run, shape ``(curved factors, 2)``.

    They are Wald's of nonlinear regression in the logarithm of the radius: the points are nuisance parameters, and the
    error counts degrees of freedom. Isometries leave directions without information, which the rank leaves out.
    """
    rows = train.nonzero().squeeze(-1)
    copy = take(model, torch.full_like(rows, run))  # as many runs as pairs: each differentiates its own distance
    distances = copy.distances()[torch.arange(len(rows)), rows]
    distances.sum().backward()
    # The positive parameters are exponentials: of log k = 2 log R, and of log R.
    J = [2 * M.k_unconstrained.grad for M in copy.manifold.manifolds if isinstance(M, ph.manifolds.Lorentz)]
    J = torch.cat([*J, copy.sphere_radii_unconstrained.grad] if "S" in model.space else J, -1)
    U, size, _ = torch.linalg.svd(copy.x_unconstrained.grad.flatten(1), full_matrices=False)
    U = U[:, size > 1e-8 * size[0]]
    freedom = len(rows) - U.size(-1) - J.size(-1)
    variance = (D[rows] - distances.detach()).square().sum() / freedom
    J = J - U @ (U.mT @ J)
    half = scipy.stats.t.ppf(0.975, freedom) * (variance * torch.linalg.inv(J.mT @ J).diagonal()).sqrt()
    middle = model.log_radii()[run].detach()
    return torch.stack([middle - half, middle + half], -1).exp()


def results(name, space, setting=SETTING, report=lambda share: None):
    """Returns the scores of a space on a data set, by seed."""
    D, train = map(torch.stack, zip(*(observed(name, seed, setting) for seed in setting.seeds), strict=True))
    pyro.set_rng_seed(0)
    model, log_prob, agree = fit(space, D, train, setting, report)
    radii, error = model.log_radii().detach().exp(), D - model.distances().detach()
    rows = {}
    for i, seed in enumerate(setting.seeds):
        row = {"train": log_prob[i, train[i]].mean().item(), "held_out": log_prob[i, ~train[i]].mean().item()}
        row |= {"rmse": error[i, ~train[i]].square().mean().sqrt().item(), "sigma": model.sigma[i].item()}
        row |= {"radii": radii[i].tolist(), "agree": int(agree[i])}
        if space == DATA[name].space and row["radii"]:
            row["intervals"] = intervals(model, i, D[i], train[i]).tolist()
        rows[str(seed)] = row
    return rows


# ---- The table ----

FIELDS = ("data", "space", "setting", "rows")


def jobs_of(names, spaces, setting=SETTING):
    """Returns the names of records with their fields."""
    fields, end = {"setting": json.loads(json.dumps(setting._asdict()))}, ", longer" if setting == LONGER else ""
    return {f"{name}, {space}{end}": {"data": name, "space": space, **fields} for name in names for space in spaces}


def perform(name, fields, folder, state):
    """Writes the record of a space on a data set."""
    torch.set_num_threads(1)

    def report(share):
        state[name] = share

    start = time.process_time()
    rows = results(fields["data"], fields["space"], Setting(**fields["setting"]), report)
    seconds = round(time.process_time() - start, 1)
    write(folder, name, {**fields, "seconds": seconds, "torch": torch.__version__, "rows": rows})
    state.pop(name, None)


def mean_and_half(values):
    """Returns the mean and the half-width of its 95% interval, by Student's t."""
    values = torch.tensor(values, dtype=torch.float64)
    quantile = scipy.stats.t.ppf(0.975, len(values) - 1)
    return values.mean().item(), quantile * values.std().item() / len(values) ** 0.5


def text(values, sign="", digits=2):
    return "{:{sign}.{digits}f} ± {:.{digits}f}".format(*mean_and_half(values), sign=sign, digits=digits)


def pretty(text):
    """Returns "H² × S²" for "H2 x S2"."""
    for digit, power in zip("246", "²⁴⁶", strict=True):
        for kind in "EHS":
            text = text.replace(kind + digit, kind + power)
    return text.replace(" x ", " × ")


def by_data(folder, longer=False):
    """Returns the records of a folder, by data set and space, in their order."""
    records = [record for name, record in read(folder, FIELDS).items() if name.endswith("-longer") == longer]
    found = {(record["data"], record["space"]): record for record in records}
    rows = {name: {space: found[name, space] for space in SPACES if (name, space) in found} for name in DATA}
    return {name: row for name, row in rows.items() if row}


def section(runs):
    """Returns the results as Markdown; ``runs`` is the folder of all experiments."""
    found, longer = (by_data(Path(runs) / "mixed_curvature", flag) for flag in (False, True))
    if not found:
        return TITLE + "\nNot run yet: `python tutorials/experiments/mixed_curvature.py`.\n"
    everything = [record for part in (found, longer) for row in part.values() for record in row.values()]
    setting = everything[0]["setting"]
    words = {"minutes": sum(record["seconds"] for record in everything) / 60, "count": len(setting["seeds"])}
    words |= {"first": setting["seeds"][0], "last": setting["seeds"][-1], "limit": limit(setting["noise"])}
    lines = [TITLE, HEAD.format(**setting, **words)]
    for name, row in found.items():
        lines += [f"### {pretty(DATA[name].title)}\n", ABOUT[name], table(DATA[name], row), ""]
        if name in longer:
            lines += [LONGER_HEAD.format(**LONGER._asdict()), table(DATA[name], longer[name]), ""]
    lines += ["### Radii of curvature\n", RADII_HEAD, radii_table(found, longer), "", NOTES]
    return "\n".join(lines)


def limit(noise):
    """Returns the mean log-likelihood of a pair under its true distance."""
    return -math.log(noise * math.sqrt(2 * math.pi * math.e))


def column(record, field):
    return [row[field] for row in record["rows"].values()]


def reference(data):
    """Returns the space that others are compared with: the one that the data came from."""
    return data.space or "H2 x S2"


def table(data, row):
    """Returns the table of a data set."""
    base = reference(data)
    train, held, error = (
        {space: column(row[space], field) for space in row} for field in ("train", "held_out", "rmse")
    )
    count = len(next(iter(held.values())))
    won = [[max(row, key=lambda space: scores[space][i]) for i in range(count)] for scores in (train, held)]
    less = f"minus {pretty(base)}"
    lines = [
        f"| space | training | held out | {less} | error | {less} | seeds won | runs that agree |",
        "|---" * 8 + "|",
    ]
    for space, record in row.items():
        cells = [f"**{pretty(space)}**" if space == data.space else pretty(space), text(train[space])]
        for scores, digits in ((held, 2), (error, 3)):
            cells.append(text(scores[space], digits=digits))
            differs = space != base and base in row
            pairs = zip(scores[space], scores[base], strict=True) if differs else ()
            cells.append(text([a - b for a, b in pairs], "+", digits) if differs else "")
        agree = statistics.fmean(column(record, "agree")) / record["setting"]["kept"]
        cells += [" / ".join(str(names.count(space)) for names in won), f"{agree:.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def radii_table(found, longer):
    """Returns the table of the radii of data that have true ones."""
    lines = ["| data | factor | true radius | estimate | one seed's interval | intervals with the truth |"]
    lines.append("|---" * 6 + "|")
    sources = [(name, part) for name in DATA for part in (found, longer)]
    for name, part in sources:
        data = DATA[name]
        rows = sorted_rows(part[name][data.space]) if data.radii and data.space in part.get(name, ()) else []
        for i, truth in enumerate(data.radii if rows else ()):
            if truth is None:
                continue
            low, high = zip(*(row["intervals"][i] for row in rows), strict=True)
            middle, half = mean_and_half([math.log(row["radii"][i]) for row in rows])
            ends = (math.exp(middle + sign * half) for sign in (0, -1, 1))
            held = sum(a <= truth <= b for a, b in zip(low, high, strict=True))
            title = pretty(data.title) + (", longer search" if part is longer else "")
            cells = [
                title,
                pretty(data.space.split(" x ")[i]),
                f"{truth:.3f}",
                "{:.3f} ({:.3f} to {:.3f})".format(*ends),
            ]
            cells.append(f"{statistics.median(low):.3f} to {statistics.median(high):.3f}")
            lines.append(f"| {' | '.join([*cells, f'{held} of {len(rows)}'])} |")
    return "\n".join(lines)


def sorted_rows(record):
    """Returns radii and intervals by seed. Equal factors have no order, so the smaller radius comes first."""
    rows = []
    for row in record["rows"].values():
        pairs = list(zip(row["radii"], row["intervals"], strict=True))
        if len(set(factors_of(record["space"]))) == 1:
            pairs.sort()
        rows.append(dict(zip(("radii", "intervals"), zip(*pairs, strict=True), strict=True)))
    return rows


# ---- The picture ----


def picture(folder, file):
    """Draws held-out scores of all spaces less those of the true one: seeds as ticks, means with 95% intervals."""
    found = by_data(folder)
    figure = Figure(figsize=(9.0, 6.6), layout="constrained")
    axes = figure.subplots(2, 3, sharey=True).flatten()
    for ax, (name, row) in zip(axes, found.items(), strict=False):
        base = reference(DATA[name])
        ax.axvline(0, color="#000000", linestyle="--", linewidth=1.2)
        for space in row if base in row else ():
            pairs = zip(column(row[space], "held_out"), column(row[base], "held_out"), strict=True)
            height, difference = SPACES.index(space), [a - b for a, b in pairs]
            middle, half = mean_and_half(difference)
            ax.plot(difference, [height + 0.28] * len(difference), "|", color="#999999", markersize=8)
            if space == DATA[name].space:
                ax.plot(0, height, "s", color="#D55E00", markersize=9)
            else:
                ax.errorbar(middle, height, xerr=half, fmt="o", color="#0072B2", markersize=6, capsize=4, linewidth=2)
        ax.set_title(pretty(DATA[name].title), fontsize=15)
        ax.set_yticks(range(len(SPACES)), [pretty(space) for space in SPACES], fontsize=14)
        ax.tick_params(axis="x", labelsize=13)
        ax.set_ylim(len(SPACES) - 0.4, -0.6)
    for ax in axes[len(found) :]:
        ax.axis("off")
    figure.supxlabel("held out, nats per pair, less those of the true space", fontsize=14)
    figure.savefig(file, dpi=130)


TITLE = "## Products of curved spaces\n"
HEAD = """`python tutorials/experiments/mixed_curvature.py --picture docs/images/mixed_curvature.png` makes the tables
of all spaces, and the same with `--longer --data "two trees" "tree and cycle" --spaces "H2 x E2" "E2 x S2" "H2 x H2"
"H2 x S2"` the longer searches. {minutes:.0f} minutes of one core in total.

"Learning Mixed-Curvature Representations in Product Spaces" (Gu, Sala, Gunel, Ré, ICLR 2019) embeds graphs in products
of curved spaces. Here we ask whether a likelihood finds the product that distances came from, and its curvatures. The
data are the distances of all pairs of {points} points, with normal errors of {noise}. The model is

$$D_{{ij}} \\sim N(d(x_i, x_j), \\sigma^2), \\qquad d(x, y)^2 = \\sum_f d_f(x, y)^2,$$

with the points on `ph.manifolds.Product`, the radius $R$ of each curved factor (curvature $-1/R^2$ or $1/R^2$) and
$\\sigma$ as Pyro parameters. It is fitted by maximum likelihood; a fifth of the pairs is held out. All spaces but E⁶
have four dimensions. {restarts} runs start from classical scaling, turned at random (spaces with one factor, where a
turn changes nothing, with noise of half the spread), with each radius a quarter of the largest distance. After
{steps[0]} steps of Adam the {kept} best go on for {steps[1]}, and the best on the training pairs counts.

{count} seeds, {first} to {last}, were declared before the first run, each with its own data; settings were chosen on
seeds 0 to 5. Scores are means over pairs of the log-likelihood, in nats, with 95% intervals over seeds; true distances
have {limit:.2f}. "Error" is the root mean square on held-out pairs. Differences are paired by seed. "Seeds won" counts
the seeds with the best likelihood in training / held out. "Runs that agree" are those within .03 nats of the best in
training, among those that went on.
"""
ABOUT = {
    "planted": """In H² of radius 1 wrapped-normal points of scale 1, in S² of radius 1.2 uniform ones.
""",
    "two trees": """A random walk that branches in H² of radius 0.5, and another in H² of radius 1.5: a child is one
unit away from a random parent. Each point has a node in both.
""",
    "tree and cycle": """32 of the 80 pairs of a node of a random tree of 10 nodes and a node of a cycle of 8. The
distance is that of the product. A great circle of radius 8 / 2π holds the cycle exactly; no plane holds such a tree.
""",
    "flat": """A control: standard normal points of E⁴, which the other spaces hold in the limit of large radii.
""",
    "ring of trees": """A cycle of 10 nodes; each of the 22 others hangs on a random earlier one. The distance is the
number of steps. This is no product, so no space here is true; differences are from H² × S².
""",
}
LONGER_HEAD = """The same with {restarts} restarts, of which {kept} go on:
"""
RADII_HEAD = """Under the space that the data came from. Estimates are geometric means over seeds, with 95% intervals.
Each seed also has an interval of its own, of which the table gives the median ends: Wald's, of nonlinear regression in
log R, with the points as nuisance parameters (no prior, no bootstrap).
"""
NOTES = """**What the results support.**

- **The likelihood finds the product.** H² × S² has the best training likelihood for every seed on its own points and on
  tree × cycle, and the smallest error by a margin that is clear of zero against each other space. H² × H² has both on
  trees, once the search is long enough to leave local optima; its closest rival is H² × E², since the tree in the plane
  of radius 1.5 is only a few units wide. On flat points E⁴ loses to no space of four dimensions.
- **Two more coordinates do not make up for curvature.** E⁶ has 64 more parameters. It fits better than E⁴ and predicts
  with larger errors than the true space everywhere.
- **Curvatures are recovered**, both of H² × H² and of H² × S², and the circumference of the cycle. Where there is no
  curvature the radius grows: on points of H² × S² one factor of H² × H² ends with a radius above 60 for every seed. A
  radius of 1.5 is known to a fifth only, since at distances of a few units so little curvature hardly shows.
- **Intervals are somewhat too short.** Of 40, with the longer searches, 35 hold the truth, all of the wide ones. A run
  in a local optimum has an interval too, about the wrong place.
- **Held-out likelihood is harsh on maximum likelihood.** About 130 parameters fit 400 pairs, so $\\sigma$ is
  too small, and a pair whose ends the others hardly fix costs many nats. On tree × cycle two seeds of eight do this to
  H² × S², in the longer search too. Its lead is clear in error and in training, but not in held-out nats. A posterior
  would price such pairs; we did not run one.
- **Local optima are the limit.** Restarts on trees disagree. The longer search raises the training likelihood of
  H² × H² from 0.99 to 1.08, and brings the radii closer. Two seeds of the control are stuck with a factor of H².
- Two decisions came after the first full table. All runs of a space with one factor had started at one point, and E⁴
  was stuck on two seeds of the control: we added the noise to these starts and ran these rows again. We added the
  longer search for the data on which restarts disagreed (for lack of time only of the rows shown). The start of
  spheres, from one more coordinate of the scaling, was chosen before: with two coordinates all 16 restarts were stuck
  on three of six seeds.
- Not supported: that a product suits graphs which are none. On the ring of trees H² × S² has the best training
  likelihood for seven seeds of eight, but no lead in held-out nats, and every error is above four times the noise.

![Held-out scores by space](../../docs/images/mixed_curvature.png)

Held-out log-likelihood of each space less that of the true one (square; for the ring of H² × S²): seeds, and means with
95% intervals.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=SPACES)
    parser.add_argument("--longer", action="store_true", help="with more restarts")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "runs" / "mixed_curvature", help="folder of results")
    parser.add_argument("--picture", type=Path, help="where to draw the scores")
    args = parser.parse_args()
    jobs = jobs_of(args.data, args.spaces, LONGER if args.longer else SETTING)
    todo = missing(args.out, jobs)
    perform_all(perform, [(*job, args.out) for job in todo.items()], "spaces", len(jobs), args.processes)
    if args.picture:
        picture(args.out, args.picture)


if __name__ == "__main__":
    main()
