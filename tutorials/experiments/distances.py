"""Distances with holes: hyperbolic space or Euclidean space, with and without pendant branches.

    python tutorials/experiments/distances.py --data FOLDER     # the tables; resumes where it stopped
    python tutorials/experiments/report.py                      # writes README.md from the records

The model is that of `tutorials/tree_from_distances.py`. Half of the distances are hidden; models predict them from the
others. All splits of a data set, with all starts, train together. FOLDER has one npz with `distances` for each data
set; without it a tree that is made by the seed is the only one.
"""

import argparse
import itertools
import math
import os
import sys
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
import pyro
import scipy.optimize
import scipy.stats
import torch
from records import missing, perform_all, read, write

import pyro_hyperbolic as ph

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import phylogeny
from phylogeny import STARTS
from tree_from_distances import Tree, posterior, train

SMOKE = "SMOKE_TEST" in os.environ
HERE = Path(__file__).resolve().parent

# ---- What is run ----


class Data(NamedTuple):
    """A data set: what its distances are, and the splits, dimensions and noises of the models with pendant branches.

    Models without are run in two dimensions, with Student-t noise.
    """

    kind: str
    title: str
    splits: int
    dims: tuple[int, ...] = (2, 3, 5)
    noises: tuple[str, ...] = ("student",)


MEASURED, EXACT = "measured", "exact"
BOTH = ("student", "normal")
DATA = {
    "carnivores": Data(MEASURED, "62 carnivores", 20, (2, 3, 5), BOTH),
    "raccoon": Data(MEASURED, "raccoon rabies", 20, (2, 3, 5), BOTH),
    "laurasia": Data(MEASURED, "47 mammals", 20, (2, 3, 5), BOTH),
    "dengue": Data(MEASURED, "dengue", 20, (2, 3, 5), BOTH),
    "woodmouse": Data(MEASURED, "wood mice", 20, (2, 3, 5), BOTH),
    "h3n2": Data(MEASURED, "influenza H3N2", 20, (2, 3, 5), BOTH),
    "anoles": Data(EXACT, "anoles", 10, (2, 3)),
    "bonyfish": Data(EXACT, "bony fish", 10, (2, 3)),
    "hiv": Data(EXACT, "HIV-1", 3, (2, 3)),
    "wordnet_carnivores": Data(EXACT, "WordNet carnivores", 3, (2, 3)),
    "made": Data(MEASURED, "made by the seed", 5, (2,)),
}
FIRST_SEED = 100  # of the splits; settings were chosen on splits 0 to 9 of the measured data sets
DF = {"student": 4.0, "normal": 1e6}  # degrees of freedom: a normal has infinitely many


STEPS, RATE, DRAWS = (3, 0.2, 3) if SMOKE else (600, 0.2, 100)
if SMOKE:
    DATA["made"] = DATA["made"]._replace(splits=2)
#: The same for both geometries; starts are those of the tutorial.
SETTING = {"steps": STEPS, "rate": RATE, "draws": DRAWS}
#: Pairs of points in one call: larger blocks are computed twice.
PAIRS = 2**18


def name_of(manifold, pendant):
    """Returns the name of a model."""
    return manifold + (", pendants" if pendant else "")


def starts_of(manifold):
    """Returns the starts as a record stores them; no k in Euclidean space."""
    return [[place.__name__, size, k if math.isfinite(k) else None] for place, size, k in STARTS[manifold]]


def jobs_of(names):
    """Returns the records of the data sets, ``{name: what it must agree with}``."""
    jobs = {}
    for name in names:
        data = DATA[name]
        seeds = list(range(FIRST_SEED, FIRST_SEED + data.splits))
        jobs[f"{name}-anchors"] = {"data": name, "model": "anchors", "seeds": seeds}
        for dim, manifold, pendant in itertools.product(data.dims, STARTS, (True, False)):
            if pendant or dim == 2:
                fields = {"data": name, "model": name_of(manifold, pendant), "dim": dim, "seeds": seeds}
                fields["setting"] = {**SETTING, "starts": starts_of(manifold)}
                jobs[f"{name}-{manifold}{'-pendants' * pendant}-{dim}"] = fields
    return jobs


# ---- Rivals without a model ----


def anchors(D, seen, hidden):
    """Returns the relative errors of four-point completion, of its neighbour-joining tree, and of that tree with
    branch lengths by nonnegative least squares of the relative errors on the pairs that are seen."""
    n = len(D)
    full = phylogeny.completed(D, seen)
    edges, lengths = ph.embeddings.neighbour_joining(full)
    i, j = torch.triu_indices(n, n, 1)
    nodes = ph.embeddings.path_lengths(edges)
    side = nodes[:n, edges[:, 0]] > nodes[:n, edges[:, 1]]  # of each edge
    crossed, truth = (side[i] ^ side[j]).double(), D[i, j]
    fitted, _ = scipy.optimize.nnls((crossed[seen] / truth[seen, None]).numpy(), np.ones(int(seen.sum())))
    found = {
        "four points": full[i, j],
        "neighbour joining": ph.embeddings.path_lengths(edges, lengths)[i, j],
        "least squares": crossed @ torch.from_numpy(fitted),
    }
    return {name: (value[hidden] / truth[hidden] - 1).abs().mean().item() for name, value in found.items()}


# ---- Models ----


def run(D, manifold, pendant, dim, noises, seeds, report):
    """Returns the scores of the run with the best ELBO, ``{noise: {score: [one for each seed]}}``."""
    n, pairs = len(D), tuple(torch.triu_indices(len(D), len(D), 1))
    splits = [phylogeny.hide(D, 0.5, seed) for seed in seeds]
    units = [D[pairs][seen].mean() for seen, _ in splits]
    logs = [(D[pairs].where(D[pairs] > 0, unit) / unit).log() for unit in units]
    begins = [
        phylogeny.start_of(manifold, D / unit, seen, pendant, dim)
        for unit, (seen, _) in zip(units, splits, strict=True)
    ]
    # A job is one run: a noise, a split and a start. As many as fit train at once.
    jobs = list(itertools.product(noises, range(len(seeds)), range(len(STARTS[manifold]))))
    rows, size = [], max(PAIRS // n**2, 1)
    for first in range(0, len(jobs), size):
        part = jobs[first : first + size]
        log_D, seen, hidden = (torch.stack(x) for x in zip(*((logs[i], *splits[i]) for _, i, _ in part), strict=True))
        start = {site: torch.stack([begins[i][1][site][k] for _, i, k in part]) for site in begins[0][1]}
        M = begins[0][0]
        if hasattr(M, "k"):
            M = type(M)(torch.stack([M.k[k] for *_, k in part]))
        tree = Tree(n, M, pendant, dim, len(part), torch.tensor([[DF[noise]] for noise, *_ in part]))
        pyro.set_rng_seed(first)
        for step, guide in enumerate(train(tree, log_D, seen, start, STEPS, RATE)):  # noqa: B007
            report((first + len(part) * step / STEPS) / len(jobs))
        elbo, log_d, sigma = posterior(tree, guide, log_D, seen, DRAWS)
        at = hidden.nonzero()[:, 1].view(len(part), -1)
        found = phylogeny.scores((log_d.gather(-1, at.expand(DRAWS, -1, -1)), sigma), log_D.gather(-1, at), tree.df)
        fit = torch.distributions.StudentT(tree.df, log_d, sigma).log_prob(log_D).mean(0).mul(seen).sum(-1)
        error, score, covered = (values.mean(-1) for values in found)
        rows.append({"error": error, "score": score, "coverage": covered, "elbo": elbo, "fit": fit / seen.sum(-1)})
    found = {key: torch.cat([row[key] for row in rows]).view(len(noises), len(seeds), -1) for key in rows[0]}
    best = found["elbo"].argmax(-1, keepdim=True)
    found = {key: value.gather(-1, best) for key, value in found.items()} | {"start": best}
    return {noise: {key: value[k, :, 0].tolist() for key, value in found.items()} for k, noise in enumerate(noises)}


def perform(name, fields, path, folder, state):
    """Writes one record."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    begin, data = time.process_time(), fields["data"]
    D, _ = phylogeny.read(None if data == "made" else path / f"{data}.npz")

    def report(share):
        state[name] = share

    report(0.0)
    if fields["model"] == "anchors":
        rows = [anchors(D, *phylogeny.hide(D, 0.5, seed)) for seed in fields["seeds"]]
        found = {key: [row[key] for row in rows] for key in rows[0]}
    else:
        manifold, _, pendant = fields["model"].partition(", ")
        noises = DATA[data].noises if pendant else BOTH[:1]
        found = run(D, manifold, bool(pendant), fields["dim"], noises, fields["seeds"], report)
    write(folder, name, {**fields, "rows": found, "seconds": round(time.process_time() - begin, 1)})
    state.pop(name, None)


# ---- The page ----

NOISES = {"student": "Student-t noise", "normal": "Log-normal noise"}
PENDANTS = ["euclidean, pendants", "hyperbolic, pendants"]
PLAIN = ["euclidean", "hyperbolic"]
FIELDS = ("data", "model", "seeds", "rows", "seconds")


def section(runs):
    """Returns the section of README.md."""
    records = read(runs / "distances", FIELDS)
    planned = jobs_of([name for name in DATA if name != "made"])
    found = {(r["data"], r.get("dim"), r["model"]): r["rows"] for r in records.values()}
    minutes = sum(record["seconds"] for record in records.values()) / 60
    waiting = ", ".join(sorted(set(planned) - set(records))) or "none"
    parts = [
        HEAD.format(
            steps=STEPS, minutes=minutes, done=len(set(planned) & set(records)), planned=len(planned), waiting=waiting
        )
    ]
    for noise, title in NOISES.items():
        parts.append(f"### {title}\n")
        for dim, models in ((2, PENDANTS), (3, PENDANTS), (5, PENDANTS), (2, PLAIN)):
            rows = [pair_row(name, dim, noise, found, models) for name in DATA]
            if any(rows):
                parts += [ABOUT[models == PENDANTS].format(dim=dim), table(PAIR_COLUMNS, filter(None, rows)), ""]
    rows = [deeper_row(name, found) for name in DATA if 3 in DATA[name].dims]
    parts += [DEEPER, table(DEEPER_COLUMNS, filter(None, rows)), ""]
    parts += [WITHOUT, table(ANCHOR_COLUMNS, filter(None, (anchor_row(name, found) for name in DATA))), ""]
    return "\n".join([*parts, notes(found)])


PAIR_COLUMNS = ["", "splits", "error R", "error H", "difference", "log score R", "log score H", "difference"]
PAIR_COLUMNS += ["ELBO, difference", "coverage R, H"]
ANCHOR_COLUMNS = [
    "",
    "four-point completion",
    "its neighbour-joining tree",
    "that tree, least squares",
    "H² + pendants",
]


def pair_row(name, dim, noise, found, models):
    """Returns a row: Euclidean and hyperbolic models on the same splits; None without both."""
    both = [found.get((name, dim, model), {}).get(noise) for model in models]
    if None in both:
        return None
    R, H = both
    cells = [label(name), str(len(R["error"]))]
    for key, digits in (("error", 4), ("score", 2)):
        cells += [f"{fmean(row[key]):.{digits}f}" for row in both]
        cells.append(bold(difference(R, H, key), digits))
    cells.append(bold(difference(R, H, "elbo"), 0))
    return [*cells, ", ".join(f"{fmean(row['coverage']):.2f}" for row in both)]


def deeper_row(name, found):
    """Returns what a third dimension adds in each geometry."""
    cells = [label(name)]
    for model in PENDANTS:
        flat, deep = (found.get((name, dim, model), {}).get("student") for dim in (2, 3))
        if flat is None or deep is None:
            return None
        cells += [bold(difference(flat, deep, key), 2) for key in ("fit", "score")]
    return cells


def difference(R, H, key):
    """Returns paired differences, hyperbolic minus Euclidean."""
    return [h - r for r, h in zip(R[key], H[key], strict=True)]


def bold(values, digits):
    """Returns an interval as text, in bold if it excludes zero."""
    mean, half = interval(values)
    return f"**{text(values, digits, '+')}**" if abs(mean) > half else text(values, digits, "+")


def interval(values):
    """Returns the mean and the half-width of its 95% interval, by Student's t."""
    quantile = float(scipy.stats.t.ppf(0.975, len(values) - 1))
    return fmean(values), quantile * stdev(values) / math.sqrt(len(values))


def table(head, rows):
    """Returns a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def text(values, digits, sign=""):
    """Returns the mean with its 95% interval."""
    mean, half = interval(values)
    return f"{mean:{sign}.{digits}f} ± {half:.{digits}f}"


def label(name):
    return DATA[name].title + ("" if DATA[name].kind == MEASURED else " (exact)")


def anchor_row(name, found):
    """Returns the errors of predictions without a model, and of the best model."""
    rows = found.get((name, None, "anchors"))
    best = found.get((name, 2, PENDANTS[1]), {}).get("student")
    if rows is None or best is None:
        return None
    return [label(name), *(text(values, 4) for values in rows.values()), text(best["error"], 4)]


HEAD = """## Distances with holes

    python tutorials/experiments/distances.py --data FOLDER

Half of the distances of a data set are hidden, and predicted from the others by the model of
`tutorials/tree_from_distances.py`: $\\log D_{{ij}} \\sim t_4(\\log(c\\, d(z_i, z_j) + a_i + a_j), \\sigma)$, with
points in hyperbolic (H) or Euclidean (R) space, with or without pendant branches $a$; or with log-normal noise.
*Measured* distances are those of alignments. *Exact* ones are path lengths, in published trees, and in WordNet's
carnivores, where inner nodes are seen too. The user supplies the files.

Both geometries have the same budget: {steps} steps of Adam, all pairs in each, one setting for all data sets and
dimensions, and two runs, of which the one with the better ELBO counts. One starts at classical scaling (H with k = 10),
one at a layout of the neighbour-joining tree of the completed matrix. Steps, rate and starts were chosen on splits 0 to
3 of carnivores, raccoon rabies and mammals, with Student-t noise and pendant branches in 2 and 3 dimensions. Splits
here are 100 to 119, or the first of them, declared before the first run. Means with 95% intervals over splits, of one
data set each; differences are H minus R, paired by split, in bold if the interval excludes zero. "Error" is the mean
relative error of the posterior median, "log score" the log-density of $\\log D$ in nats per hidden pair, coverage that
of 90% intervals. {minutes:.0f} minutes of one core. Records that are missing: {waiting}.
"""
ABOUT = {True: "Dimension {dim}, with pendant branches:\n", False: "Dimension {dim}, without pendant branches:\n"}
DEEPER_COLUMNS = ["", "R, seen pairs", "R, log score", "H, seen pairs", "H, log score"]
DEEPER = """### Three dimensions minus two

Student-t noise, pendant branches. "Seen pairs" is the posterior mean of the log-likelihood, in nats per pair that is
seen: a third dimension should not lower it.
"""
WITHOUT = """### Without a model

Relative errors of three predictions that have no intervals: the completed matrix, path lengths in its neighbour-joining
tree, and in that tree with branches fitted to the pairs that are seen, by nonnegative least squares of relative errors.
"""


def notes(found):
    """Returns what the results support."""
    lines = []
    for noise, dim in itertools.product(NOISES, (2, 3, 5)):
        won, lost, rows = 0, 0, 0
        for name in DATA:
            both = [found.get((name, dim, model), {}).get(noise) for model in PENDANTS]
            if DATA[name].kind == MEASURED and None not in both:
                mean, half = interval(difference(*both, "score"))
                won, lost, rows = won + (mean > half), lost + (mean < -half), rows + 1
        if rows:
            lines.append(
                f"- {NOISES[noise]}, dimension {dim}: of {rows} measured data sets H has the better held-out log score "
                f"on {won}, R on {lost}; the others are ties."
            )
    return "\n".join(["**Counts, both with pendant branches.**\n", *lines, ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets; without it a made one is the only one")
    parser.add_argument("--names", nargs="+", choices=list(DATA), help="some of the data sets")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "runs" / "distances", help="folder of results")
    args = parser.parse_args()
    names = args.names or [name for name in DATA if (name == "made") == (args.data is None)]
    jobs = jobs_of(names)
    todo = missing(args.out, jobs)
    perform_all(perform, [(*job, args.data, args.out) for job in todo.items()], "records", len(jobs), args.processes)


if __name__ == "__main__":
    main()
