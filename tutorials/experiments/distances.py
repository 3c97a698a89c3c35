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
from collections import Counter
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
from phylogeny import STARTS, posterior
from tree_from_distances import Tree, train

SMOKE = "SMOKE_TEST" in os.environ
HERE = Path(__file__).resolve().parent

# ---- What is run ----


class Data(NamedTuple):
    """A data set: what its distances are, and the number of splits.

    ``kinds`` are the dimension, noise and pendant branches of its models.
    """

    kind: str
    title: str
    splits: int
    kinds: tuple


MEASURED, EXACT = "measured", "exact"
FEW = ((2, "student", True), (2, "student", False), (3, "student", True))
ALL = (*FEW, (5, "student", True), (2, "normal", True))
DATA = {
    "carnivores": Data(MEASURED, "62 carnivores", 20, ALL),
    "raccoon": Data(MEASURED, "raccoon rabies", 20, ALL),
    "laurasia": Data(MEASURED, "47 mammals", 20, ALL),
    "dengue": Data(MEASURED, "dengue", 20, ALL),
    "woodmouse": Data(MEASURED, "wood mice", 20, ALL),
    "h3n2": Data(MEASURED, "influenza H3N2", 20, ALL),
    "anoles": Data(EXACT, "anoles", 10, FEW),
    "bonyfish": Data(EXACT, "bony fish", 10, FEW),
    "hiv": Data(EXACT, "HIV-1", 3, FEW),
    "wordnet_carnivores": Data(EXACT, "WordNet carnivores", 3, FEW[::2]),
    "made": Data(MEASURED, "made by the seed", 5, FEW[:1]),
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


def starts_of(manifold):
    """Returns the starts as a record stores them; no k in Euclidean space."""
    return [[place.__name__, size, k if math.isfinite(k) else None] for place, size, k in STARTS[manifold]]


def jobs_of(names):
    """Returns the records of the data sets, ``{name: what it must agree with}``; of all, the first kind comes first."""
    seeds = {name: list(range(FIRST_SEED, FIRST_SEED + DATA[name].splits)) for name in names}
    jobs = {f"{name}-anchors": {"data": name, "model": "anchors", "seeds": seeds[name]} for name in names}
    for (dim, noise, pendant), name, manifold in itertools.product(ALL, names, STARTS):
        if (dim, noise, pendant) in DATA[name].kinds:
            fields = {"data": name, "model": manifold, "dim": dim, "noise": noise, "pendant": pendant}
            fields |= {"seeds": seeds[name], "setting": {**SETTING, "starts": starts_of(manifold)}}
            jobs[f"{name}-{manifold}{'-pendants' * pendant}-{dim}-{noise}"] = fields
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


def run(D, manifold, pendant, dim, noise, seeds, report):
    """Returns the scores of the run with the best ELBO, ``{score: [one for each seed]}``."""
    n, pairs, starts = len(D), tuple(torch.triu_indices(len(D), len(D), 1)), len(STARTS[manifold])
    splits = [phylogeny.hide(D, 0.5, seed) for seed in seeds]
    units = [D[pairs][seen].mean() for seen, _ in splits]
    logs = [(D[pairs].where(D[pairs] > 0, unit) / unit).log() for unit in units]
    seens = [seen for seen, _ in splits]
    begins = [phylogeny.start_of(manifold, D / unit, seens[i], pendant, dim) for i, unit in enumerate(units)]
    # A job is a split and a start. As many as fit train at once.
    jobs = list(itertools.product(range(len(seeds)), range(starts)))
    rows, size = [], max(PAIRS // n**2, 1)
    for first in range(0, len(jobs), size):
        part = jobs[first : first + size]
        log_D, seen, hidden = (torch.stack(x) for x in zip(*((logs[i], *splits[i]) for i, _ in part), strict=True))
        start = {site: torch.stack([begins[i][1][site][k] for i, k in part]) for site in begins[0][1]}
        M = begins[0][0]
        if hasattr(M, "k"):
            M = type(M)(torch.stack([M.k[k] for _, k in part]))
        tree = Tree(n, M, pendant, dim, len(part), DF[noise])
        pyro.set_rng_seed(first)
        for step, guide in enumerate(train(tree, log_D, seen, start, STEPS, RATE)):  # noqa: B007
            report((first + len(part) * step / STEPS) / len(jobs))
        elbo, log_d, sigma = posterior(tree, guide, log_D, seen, DRAWS)
        at = hidden.nonzero()[:, 1].view(len(part), -1)
        found = phylogeny.scores((log_d.gather(-1, at.expand(DRAWS, -1, -1)), sigma), log_D.gather(-1, at), tree.df)
        fit = torch.distributions.StudentT(tree.df, log_d, sigma).log_prob(log_D).mean(0).mul(seen).sum(-1)
        error, score, covered = (values.mean(-1) for values in found)
        rows.append({"error": error, "score": score, "coverage": covered, "elbo": elbo, "fit": fit / seen.sum(-1)})
    found = {key: torch.cat([row[key] for row in rows]).view(len(seeds), starts) for key in rows[0]}
    best = found["elbo"].argmax(-1, keepdim=True)
    found = {key: value.gather(-1, best) for key, value in found.items()} | {"start": best}
    return {key: value[:, 0].tolist() for key, value in found.items()}


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
        found = run(D, *(fields[key] for key in ("model", "pendant", "dim", "noise", "seeds")), report)
    write(folder, name, {**fields, "rows": found, "seconds": round(time.process_time() - begin, 1)})
    state.pop(name, None)


# ---- The page ----

FIELDS = ("data", "model", "seeds", "rows", "seconds")
TITLES = {
    (2, "student", True): "Two dimensions, pendant branches",
    (3, "student", True): "Three dimensions, pendant branches",
    (5, "student", True): "Five dimensions, pendant branches",
    (2, "student", False): "Two dimensions, no pendant branches",
    (2, "normal", True): "Two dimensions, pendant branches, log-normal noise",
}


def section(runs):
    """Returns the section of README.md."""
    records = read(runs / "distances", FIELDS)
    planned = jobs_of([name for name in DATA if name != "made"])
    keys = ("data", "dim", "noise", "pendant", "model")
    found = {tuple(r.get(key) for key in keys): r["rows"] for r in records.values()}
    minutes = sum(record["seconds"] for record in records.values()) / 60
    left = [fields["data"] for name, fields in planned.items() if name not in records]
    waiting = ", ".join(f"{count} of {label(name)}" for name, count in Counter(left).items()) or "none"
    parts = [HEAD.format(steps=STEPS, minutes=minutes, waiting=waiting)]
    for kind, title in TITLES.items():
        rows = [row for row in (pair_row(found, name, kind) for name in DATA) if row]
        if rows:
            parts += [f"### {title}\n", table(PAIR_COLUMNS, rows), ""]
    for text_before, columns, row_of in ((DEEPER, DEEPER_COLUMNS, deeper_row), (WITHOUT, ANCHOR_COLUMNS, anchor_row)):
        rows = [row for row in (row_of(found, name) for name in DATA) if row]
        parts += [text_before, table(columns, rows), ""] if rows else []
    return "\n".join([*parts, notes(found)])


def both(found, name, kind):
    """Returns the scores of the Euclidean and of the hyperbolic model, or None."""
    rows = [found.get((name, *kind, manifold)) for manifold in ("euclidean", "hyperbolic")]
    return None if None in rows else rows


PAIR_COLUMNS = ["", "splits", "error R", "error H", "difference", "log score R", "log score H", "difference"]
PAIR_COLUMNS += ["ELBO, difference", "coverage R, H"]
ANCHOR_COLUMNS = [
    "",
    "four-point completion",
    "its neighbour-joining tree",
    "that tree, least squares",
    "H² + pendants",
]


def pair_row(found, name, kind):
    """Returns a row: Euclidean and hyperbolic models on the same splits; None without both."""
    rows = both(found, name, kind)
    if rows is None:
        return None
    cells = [label(name), str(len(rows[0]["error"]))]
    for key, digits in (("error", 4), ("score", 2)):
        cells += [f"{fmean(row[key]):.{digits}f}" for row in rows]
        cells.append(bold(difference(*rows, key), digits))
    cells.append(bold(difference(*rows, "elbo"), 0))
    return [*cells, ", ".join(f"{fmean(row['coverage']):.2f}" for row in rows)]


def deeper_row(found, name):
    """Returns what a third dimension adds in each geometry."""
    flat, deep = (both(found, name, (dim, "student", True)) for dim in (2, 3))
    if flat is None or deep is None:
        return None
    pairs = [(*pair, key) for pair in zip(flat, deep, strict=True) for key in ("fit", "score")]
    return [label(name), *(bold(difference(*pair), 2) for pair in pairs)]


def anchor_row(found, name):
    """Returns the errors of predictions without a model, and of the best model."""
    rows, models = found.get((name, None, None, None, "anchors")), both(found, name, (2, "student", True))
    if rows is None or models is None:
        return None
    return [label(name), *(text(values, 4) for values in rows.values()), text(models[1]["error"], 4)]


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


HEAD = """## Distances with holes

    python tutorials/experiments/distances.py --data FOLDER

Half of the distances of a data set are hidden, and predicted from the others by the model of
`tutorials/tree_from_distances.py`: $\\log D_{{ij}} \\sim t_4(\\log(c\\, d(z_i, z_j) + a_i + a_j), \\sigma)$, with
points in hyperbolic (H) or Euclidean (R) space, with or without pendant branches $a$; or with log-normal noise.
*Measured* distances are those of alignments. *Exact* ones are path lengths, in published trees, and in WordNet's
carnivores, where inner nodes are seen too. The user supplies the files.

Both geometries have the same budget: {steps} steps of Adam, all pairs in each, one setting for all data sets and
dimensions, and three runs, of which the one with the best ELBO counts. One starts at classical scaling (H with k = 10),
two at layouts of the neighbour-joining tree of the completed matrix: of radius 3 (H with k = 100), and of radius 10
(H with k = 1).
Steps, rate, priors and starts were chosen on splits 0 to 9 of the measured data, mostly for H, since any of its starts
served R. Splits here are 100 to 119, or the first of them, declared before the first run. Means with 95% intervals over
splits, of one data set each; differences are H minus R, paired by split, in bold if the interval excludes zero. "Error"
is the mean relative error of the posterior median, "log score" the log-density of $\\log D$ in nats per hidden pair,
coverage that of 90% intervals. {minutes:.0f} minutes of one core. Records that are missing: {waiting}.
"""
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
    """Returns on how many measured data sets each geometry has the better held-out log score."""
    lines = []
    for kind, title in TITLES.items():
        rows = [both(found, name, kind) for name in DATA if DATA[name].kind == MEASURED]
        means = [interval(difference(*row, "score")) for row in rows if row]
        won, lost = (sum(sign * mean > half for mean, half in means) for sign in (1, -1))
        if means:
            lines.append(f"- {title}: H is ahead on {won} of {len(means)}, R on {lost}; the others are ties.")
    return "\n".join(["**Held-out log score on measured data.**\n", *lines, ""])


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
