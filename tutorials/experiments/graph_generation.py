"""Table 4 of Bose et al., 2020: trees and lobsters, generated as whole graphs.

    python tutorials/experiments/graph_generation.py                  # the table; resumes where it was interrupted
    python tutorials/experiments/graph_generation.py --row growth-whc --data trees --seed 101 --samples 200 --out DIR
    python tutorials/experiments/graph_generation.py --pictures docs/images
    python tutorials/experiments/report.py                            # writes README.md from the records

With `--row` it trains one model on 80 graphs of a seed and writes `DIR/samples.json`: a list of
`{"nodes": N, "edges": [[u, v], ...]}`. Growth was tuned on seeds 0 to 4; the table has seeds 101 to 105.
"""

import argparse
import json
import multiprocessing
import platform
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import geoopt
import growth
import pyro
import set_flows
import torch
from graph_scores import score
from records import missing, write
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions.transforms as HT

HERE = Path(__file__).resolve().parent
SEEDS = (101, 102, 103, 104, 105)  # declared before any run of the table
GRAPHS, TRAIN = 100, 80
FRESH = 1_000_000  # added to the seed of the data
SAMPLES = 1000
CHUNK = 500  # graphs that grow at once
ORDERS = 4  # orders of growth for each training graph
STEPS = {"policy": 1000, "flow": 400, "edges": 200, "one-shot": 600}

# ---- Data ----

DATA = {
    "trees": ph.datasets.random_trees,
    "lobsters": lambda seed, count: ph.datasets.lobsters(seed, count, legs="one"),
    "lobsters-geometric": lambda seed, count: ph.datasets.lobsters(seed, count, legs="geometric"),
}


def load(data, seed):
    """Returns 80 graphs for training and 20 for testing."""
    graphs = [(len(edges) + 1, edges) for edges in DATA[data](seed, GRAPHS)]
    return graphs[:TRAIN], graphs[TRAIN:]


def sizes(train, count):
    """Draws numbers of nodes from those of the training graphs."""
    known = torch.tensor([nodes for nodes, _ in train])
    return known[torch.randint(len(known), (count,))]


# ---- Rows: each is a sampler, ``sample(wanted) -> graphs`` ----


def conditioned_tree(nodes):
    """Returns a Galton-Watson tree of Poisson(1) offspring, conditioned on its size: a uniform labelled tree."""
    return nodes, ph.datasets.random_trees(int(torch.randint(2**31, ())), 1, nodes=(nodes, nodes))[0]


class Grow(NamedTuple):
    """Settings of a growth model: flat or curved codes, and the coupling of their flow."""

    curved: bool
    coupling: Callable
    dim: int | None = None  # by default 5, and 8 for nodes of high degree
    random: bool = False


def grown(data, seed, settings=None, report=lambda share: None):
    """Trains a growth model and returns its sampler; without settings, one that has no codes."""
    train, _ = load(data, seed)
    generator = torch.Generator().manual_seed(seed)
    orders = [growth.order_of(graph, generator) for _ in range(ORDERS) for graph in train]
    dim, children = (8, 48) if data == "lobsters-geometric" else (5, 8)
    space = coupling = None
    if settings:
        space = growth.space(settings.curved, settings.dim or dim, children, random=settings.random)
        coupling = settings.coupling
    model = growth.Growth(space, coupling)
    growth.fit_policy(model, orders, STEPS["policy"])
    report(0.3)
    if settings:
        growth.fit_flow(model, STEPS["flow"])
        report(0.6)
        growth.fit_edges(model, orders[:3], STEPS["edges"])
    report(0.7)

    def sample(wanted, row=None):
        graphs = []
        for part in wanted.split(CHUNK):
            graphs += model.sample(part)
            report(0.7 + 0.3 * len(graphs) / len(wanted))
        return graphs

    return sample


GROWTH = {
    "growth-euclidean": Grow(False, HT.tangent_coupling),
    "growth-tc": Grow(True, HT.tangent_coupling),
    "growth-whc": Grow(True, HT.wrapped_hyperboloid_coupling),
    "growth-euclidean-32": Grow(False, HT.tangent_coupling, 32, random=True),
}
ONE_SHOT = {
    "realnvp": (False, HT.tangent_coupling),
    "tc": (True, HT.tangent_coupling),
    "whc": (True, HT.wrapped_hyperboloid_coupling),
}
DECODERS = {"oneshot": "edges", "nearest": "nearest"}
ROWS = ["floor", "galton-watson", *GROWTH, *(f"{row}-{name}" for row in DECODERS for name in ONE_SHOT)]


def trained(row, data, seed, report=lambda share: None):
    """Trains the model of a row on the data of a seed; returns ``sample(wanted, row)``, for all rows of that model."""
    pyro.set_rng_seed(seed)
    kind, _, name = row.partition("-")
    if kind in DECODERS:
        curved, coupling = ONE_SHOT[name]
        manifold = geoopt.Lorentz(torch.ones((), dtype=torch.float64)) if curved else geoopt.Euclidean(1)
        model = set_flows.fit(load(data, seed)[0], manifold, 2, coupling, seed, STEPS["one-shot"], report)
        return lambda wanted, row: model.sample(wanted, decoder=DECODERS[row.partition("-")[0]])
    if row == "floor":  # new draws from the law of the data
        return lambda wanted, row: [(len(edges) + 1, edges) for edges in DATA[data](seed + FRESH, len(wanted))]
    if row == "galton-watson" and data == "trees":
        return lambda wanted, row: [conditioned_tree(nodes) for nodes in wanted.tolist()]
    return grown(data, seed, GROWTH.get(row), report)


def draw(sample, row, data, seed, count):
    """Returns graphs of a row, and the numbers of nodes that were asked for."""
    pyro.set_rng_seed(seed)
    wanted = sizes(load(data, seed)[0], count)
    graphs = sample(wanted, row)
    return graphs, [nodes for nodes, _ in graphs] if row == "floor" else wanted.tolist()


# ---- The table ----


class Run(NamedTuple):
    """One row on the data of one seed."""

    row: str
    data: str
    seed: int
    samples: int

    @property
    def name(self):
        """The name of its record."""
        return f"{self.data}-{self.row}-{self.seed}"

    @property
    def model(self):
        """What runs have in common that need one training."""
        kind, _, name = self.row.partition("-")
        return (name if kind in DECODERS else self.row), self.data, self.seed


def prepare():
    """Settings of a process that trains: one thread, no checks of values."""
    torch.set_num_threads(1)
    pyro.enable_validation(False)


def perform(runs, folder, state):
    """Trains one model, scores the rows that need it, and writes their records."""
    prepare()
    start = time.perf_counter()
    first = runs[0]
    sample = trained(first.row, first.data, first.seed, lambda share: state.update({first.name: share}))
    for run in runs:
        graphs, wanted = draw(sample, run.row, run.data, run.seed, run.samples)
        seconds = round(time.perf_counter() - start)
        scores = score(graphs, *load(run.data, run.seed), run.data, wanted)
        record = {**run._asdict(), "scores": scores, "seconds": seconds}
        write(folder, run.name, {**record, "torch": torch.__version__, "machine": platform.machine()})
    state.pop(first.name, None)


def perform_all(runs, folder, processes):
    """Performs the runs that have no record yet, with progress."""
    absent = missing(folder, {run.name: run._asdict() for run in runs})
    left = {}
    for run in runs:
        if run.name in absent:
            left.setdefault(run.model, []).append(run)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(processes, context) as pool,
        Progress(*columns, TextColumn("{task.fields[now]}")) as progress,
    ):
        state = manager.dict()
        bar = progress.add_task("runs", total=len(runs), completed=len(runs) - len(absent), now="")
        waiting = {pool.submit(perform, group, folder, state): len(group) for group in left.values()}
        while waiting:
            done, _ = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                progress.advance(bar, waiting.pop(future))
            progress.update(bar, now=", ".join(f"{name} {share:.0%}" for name, share in state.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", choices=ROWS, help="sample from one row instead of making the table")
    parser.add_argument("--data", choices=list(DATA), nargs="+", default=list(DATA))
    parser.add_argument("--seed", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--rows", choices=ROWS, nargs="+", default=ROWS, help="rows of the table")
    parser.add_argument("--out", type=Path, default=HERE / "runs" / "graph_generation")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    if args.row:
        if len(args.data) != 1 or len(args.seed) != 1:
            parser.error("--row writes one file of samples; give one --data and one --seed.")
        prepare()
        job = args.row, args.data[0], args.seed[0]
        graphs, _ = draw(trained(*job), *job, args.samples)
        args.out.mkdir(parents=True, exist_ok=True)
        samples = [{"nodes": nodes, "edges": edges.tolist()} for nodes, edges in graphs]
        (args.out / "samples.json").write_text(json.dumps(samples))
        return
    runs = [Run(row, data, seed, args.samples) for row in args.rows for seed in args.seed for data in args.data]
    perform_all(runs, args.out, args.processes)


if __name__ == "__main__":
    main()
