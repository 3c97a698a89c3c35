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
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import scipy.optimize
import torch
from pyro import poutine
from records import missing, perform_all, read, write

import pyro_hyperbolic as ph

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import phylogeny
from tree_from_distances import MANIFOLDS, Tree, scores, train

SMOKE = "SMOKE_TEST" in os.environ
HERE = Path(__file__).resolve().parent

# ---- What is run ----


class Data(NamedTuple):
    """A data set: what its distances are, the number of splits, the dimensions and the noises."""

    kind: str
    title: str
    splits: int
    dims: tuple[int, ...] = (2, 3, 5)
    noises: tuple[str, ...] = ("student", "normal")


MEASURED, EXACT = "measured", "exact"
DATA = {
    "carnivores": Data(MEASURED, "62 carnivores", 20),
    "raccoon": Data(MEASURED, "raccoon rabies", 20),
    "laurasia": Data(MEASURED, "47 mammals", 20),
    "dengue": Data(MEASURED, "dengue", 20),
    "woodmouse": Data(MEASURED, "wood mice", 20),
    "h3n2": Data(MEASURED, "influenza H3N2", 20),
    "anoles": Data(EXACT, "anoles", 10, (2, 3)),
    "bonyfish": Data(EXACT, "bony fish", 10, (2, 3)),
    "hiv": Data(EXACT, "HIV-1", 4, (2, 3)),
    "wordnet_carnivores": Data(EXACT, "WordNet carnivores", 3, (2, 3), ("student",)),
    "made": Data(MEASURED, "made by the seed", 5, (2,), ("student",)),
}
FIRST_SEED = 100  # of the splits; settings were chosen on splits 0 to 9 of the measured data sets
DF = {"student": 4.0, "normal": 1e6}  # degrees of freedom: a normal has infinitely many


class Setting(NamedTuple):
    """How a model is trained. Each start is a layout with its argument; the best ELBO counts."""

    starts: tuple[tuple[str, float], ...]
    steps: int = 600
    rate: float = 0.2
    draws: int = 200


SETTINGS = {
    "hyperbolic": Setting((("scaling", 0.3), ("layout", 8.0))),
    "euclidean": Setting((("scaling", 1.0), ("layout", 3.0))),
}
if SMOKE:
    SETTINGS = {name: setting._replace(steps=3, draws=3) for name, setting in SETTINGS.items()}
    DATA["made"] = DATA["made"]._replace(splits=2)
#: Pairs of points in one call: larger blocks are computed twice.
PAIRS = 2**18


def name_of(manifold, pendant):
    """Returns the name of a model."""
    return manifold + (", pendants" if pendant else "")


def jobs_of(names):
    """Returns the records of the data sets, ``{name: what it must agree with}``."""
    jobs = {}
    for name in names:
        data = DATA[name]
        seeds = list(range(FIRST_SEED, FIRST_SEED + data.splits))
        jobs[f"{name}-anchors"] = {"data": name, "model": "anchors", "seeds": seeds}
        for dim, manifold, pendant in itertools.product(data.dims, MANIFOLDS, (True, False)):
            if pendant or dim == 2:
                fields = {"data": name, "model": name_of(manifold, pendant), "dim": dim, "seeds": seeds}
                setting = SETTINGS[manifold]._asdict() | {"starts": [list(start) for start in SETTINGS[manifold].starts]}
                jobs[f"{name}-{name_of(manifold, pendant)}-{dim}"] = {**fields, "setting": setting}
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


def evaluate(tree, guide, log_D, seen, hidden, draws):
    """Returns the scores of each run: the mean of each over its hidden pairs, and the ELBO."""
    elbo, log_d, sigma = 0.0, [], []
    for _ in range(draws):
        q = poutine.trace(guide).get_trace()
        p = poutine.trace(poutine.replay(tree.model, trace=q)).get_trace(log_D, seen)
        for trace, sign in ((p, 1), (q, -1)):
            trace.compute_log_prob()
            elbo += sum(sign * site["log_prob"].sum(-1) for site in random_sites(trace)) / draws
        log_d.append(p.nodes["log d"]["value"].gather(-1, hidden))
        sigma.append(p.nodes["sigma"]["value"])
    log_d, sigma = torch.stack(log_d), torch.stack(sigma)
    predicted = dist.StudentT(tree.df, log_d, sigma).sample((5,)).flatten(0, 1)
    found = scores((log_d, sigma, predicted), log_D.gather(-1, hidden), tree.df)
    means = (values.mean(-1) for values in found)
    return dict(zip(("error", "score", "coverage", "elbo"), (*means, elbo), strict=True))


def random_sites(trace):
    """Returns the sites with a density."""
    return [site for site in trace.nodes.values() if site["type"] == "sample" and hasattr(site["fn"], "log_prob")]


def run(D, manifold, pendant, dim, noises, seeds, report):
    """Returns the scores of the best start by its ELBO, ``{noise: {score: [one for each seed]}}``."""
    setting, (M, _) = SETTINGS[manifold], MANIFOLDS[manifold]
    n, pairs = len(D), tuple(torch.triu_indices(len(D), len(D), 1))
    begin, inputs = [], []
    for seed in seeds:
        seen, hidden = phylogeny.hide(D, 0.5, seed)
        unit = D[pairs][seen].mean()
        for place, argument in setting.starts:
            start = phylogeny.start_of(place, argument, M, D / unit, seen, pendant, dim)
            begin += [(start, D[pairs] / unit, seen, hidden.nonzero().squeeze(-1))]
    rows = [(noise, *each) for noise in noises for each in begin]
    chunk = max(PAIRS // n**2, 1)
    for first in range(0, len(rows), chunk):
        part = rows[first : first + chunk]
        df = torch.tensor([[DF[noise]] for noise, *_ in part])
        tree = Tree(n, M, pendant, dim, df, (len(part),))
        starts, log_D, seen, hidden = ([row[k] for row in part] for k in range(1, 5))
        start = {site: torch.stack([each[site] for each in starts]) for site in starts[0]}
        start = {site: value.unsqueeze(-1) if value.dim() == 1 else value for site, value in start.items()}
        log_D, seen, hidden = torch.stack(log_D).log(), torch.stack(seen), torch.stack(hidden)
        pyro.set_rng_seed(first)
        guide = train(tree, log_D, seen, start, setting.steps, setting.rate)
        with torch.no_grad():
            inputs.append(evaluate(tree, guide, log_D, seen, hidden, setting.draws))
        report((first + len(part)) / len(rows))
    found = {key: torch.cat([each[key] for each in inputs]).view(len(noises), len(seeds), -1) for key in inputs[0]}
    best = found["elbo"].argmax(-1, keepdim=True)
    found = {key: value.gather(-1, best).squeeze(-1) for key, value in found.items()} | {"start": best.squeeze(-1)}
    return {noise: {key: value[k].tolist() for key, value in found.items()} for k, noise in enumerate(noises)}


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
        found = run(D, manifold, bool(pendant), fields["dim"], DATA[data].noises, fields["seeds"], report)
    write(folder, name, {**fields, "rows": found, "seconds": round(time.process_time() - begin, 1)})
    state.pop(name, None)
