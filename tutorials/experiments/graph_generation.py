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
import os
import platform
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import growth
import pyro
import torch
from graph_scores import score
from records import missing, write
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions.transforms as HT

SMOKE = bool(os.environ.get("SMOKE_TEST"))
HERE = Path(__file__).resolve().parent
SEEDS = (101, 102, 103, 104, 105)  # declared before any run of the table
GRAPHS, TRAIN = 100, 80
SAMPLES = 4 if SMOKE else 1000
CHUNK = 500  # graphs that grow at once
ORDERS = 1 if SMOKE else 8  # orders of growth for each training graph
STEPS = {"policy": 5, "flow": 5, "edges": 5} if SMOKE else {"policy": 1000, "flow": 400, "edges": 300}

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


# ---- Rows: each returns a sampler, ``sample(wanted) -> graphs`` ----


def galton_watson(train, data, seed, report):
    """Returns trees of Poisson(1) offspring, conditioned on their size; for lobsters, those of the policy alone."""
    if data == "trees":  # uniform labelled trees are these trees
        return lambda wanted: [
            (n, ph.datasets.random_trees(int(torch.randint(2**31, ())), 1, nodes=(n, n))[0]) for n in wanted.tolist()
        ]
    return grown(train, data, seed, report)


class Grow(NamedTuple):
    """Settings of a growth model: the space of codes is flat or curved, with a coupling of its flow."""

    curved: bool
    coupling: object
    dim: int | None = None  # by default 5, and 8 for nodes of high degree
    random: bool = False


def grown(train, data, seed, report, settings=None):
    """Trains a growth model and returns its sampler; without settings, one that has no codes."""
    generator = torch.Generator().manual_seed(seed)
    orders = [growth.order_of(graph, generator) for _ in range(ORDERS) for graph in train]
    wide = data == "lobsters-geometric"
    dim, children = (8, 48) if wide else (5, 8)
    space = coupling = None
    if settings:
        dim = settings.dim or dim
        space, coupling = growth.space(settings.curved, dim, children, random=settings.random), settings.coupling
    model = growth.Growth(space, coupling)
    growth.fit_policy(model, orders, STEPS["policy"])
    report(0.3)
    if settings:
        growth.fit_flow(model, STEPS["flow"])
        report(0.6)
        growth.fit_edges(model, orders[:6], STEPS["edges"])
    report(0.7)

    def sample(wanted, watch=None):
        graphs = []
        for part in wanted.split(CHUNK):
            graphs += model.sample(part, watch)
            report(0.7 + 0.3 * len(graphs) / len(wanted))
        return graphs

    sample.model = model
    return sample


GROWTH = {
    "growth-euclidean": Grow(False, HT.tangent_coupling),
    "growth-tc": Grow(True, HT.tangent_coupling),
    "growth-whc": Grow(True, HT.wrapped_hyperboloid_coupling),
    "growth-euclidean-32": Grow(False, HT.tangent_coupling, 32, random=True),
}
ROWS = ["floor", "galton-watson", *GROWTH]


def generate(row, data, seed, count, report=lambda share: None):
    """Trains the model of a row on the data of a seed; returns its graphs and the sizes asked for."""
    train = load(data, seed)[0]
    pyro.set_rng_seed(seed)
    if row == "floor":
        return train, [nodes for nodes, _ in train]
    if row in GROWTH:
        sample = grown(train, data, seed, report, GROWTH[row])
    else:
        sample = galton_watson(train, data, seed, report)
    wanted = sizes(train, count)
    return sample(wanted), wanted.tolist()


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


def prepare():
    """Settings of a process that trains: one thread, no checks of values."""
    torch.set_num_threads(1)
    pyro.enable_validation(False)


def perform(run, folder, state):
    """Trains and scores one row, and writes its record."""
    prepare()
    start = time.perf_counter()
    graphs, wanted = generate(run.row, run.data, run.seed, run.samples, lambda share: state.update({run.name: share}))
    seconds = time.perf_counter() - start
    train, test = load(run.data, run.seed)
    scores = score(graphs, train, test, run.data, wanted)
    if run.row == "floor":
        del scores["novel"], scores["vun"]  # the training set itself
    record = {**run._asdict(), "scores": scores, "seconds": round(seconds)}
    write(folder, run.name, {**record, "torch": torch.__version__, "machine": platform.machine()})
    state.pop(run.name, None)


def perform_all(runs, folder, processes):
    """Performs the runs that have no record yet, with progress."""
    absent = missing(folder, {run.name: run._asdict() for run in runs})
    left = [run for run in runs if run.name in absent]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(processes, context) as pool,
        Progress(*columns, TextColumn("{task.fields[now]}")) as progress,
    ):
        state = manager.dict()
        bar = progress.add_task("runs", total=len(runs), completed=len(runs) - len(left), now="")
        waiting = {pool.submit(perform, run, folder, state) for run in left}
        while waiting:
            done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            now = ", ".join(f"{name} {share:.0%}" for name, share in state.items())
            progress.update(bar, advance=len(done), now=now)


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
        graphs, _ = generate(args.row, args.data[0], args.seed[0], args.samples)
        args.out.mkdir(parents=True, exist_ok=True)
        samples = [{"nodes": nodes, "edges": edges.tolist()} for nodes, edges in graphs]
        (args.out / "samples.json").write_text(json.dumps(samples))
        return
    runs = [Run(row, data, seed, args.samples) for row in args.rows for seed in args.seed for data in args.data]
    perform_all(runs, args.out, args.processes)


if __name__ == "__main__":
    main()
