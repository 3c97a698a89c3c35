"""Every geometry function against mpmath on random inputs: rays, axes, opposite and coincident points, both dtypes.

For each quantity and order of derivative, prints the number of errors beyond ten units and the worst case with its
seed. The unit is the change of the exact result under one unit roundoff in the inputs, plus one rounding of the result.
Writes ``accuracy_sweep.json`` and ``accuracy_sweep.png`` to ``--out``. Resumes from the records in ``--out``;
``--case 123`` shows one case.

Usage: ``python benchmarks/accuracy_sweep.py --cases 20000 --out results/bench`` (20 min on two cores).
"""

import argparse
import json
import math
import multiprocessing
import os
import random
import sys
from collections import defaultdict
from pathlib import Path

import pyro
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests import random_cases

SMOKE_TEST = os.environ.get("SMOKE_TEST") == "1"
WITHIN = 10
ORDERS = ("value", "first derivative", "second derivative")
COLORS = ("#0072B2", "#E69F00", "#009E73")  # Okabe-Ito
DASHES = ("-", "--", ":")


def record_of(seed):
    """Returns the record of one case."""
    case = random_cases.random_case(random.Random(seed))
    facts = {"seed": seed, "quantity": case.quantity, "arrangement": case.arrangement, "dtype": case.dtype}
    facts |= {"n": len(case.inputs[0]), "k": case.k, "radii": case.radii}
    return facts | {"ratio": [figure.ratio for figure in random_cases.figures(case)]}


def start_worker():
    torch.set_num_threads(1)
    pyro.enable_validation(False)


def sweep(seeds, path):
    """Yields a record for each seed: those on disk first, then new ones, written as they finish."""
    done = {}
    if path.exists():
        for line in path.read_text().splitlines():
            record = json.loads(line)
            done[record["seed"]] = record
    yield from (done[seed] for seed in seeds if seed in done)
    missing = [seed for seed in seeds if seed not in done]
    with multiprocessing.Pool(min(2, os.cpu_count() or 1), start_worker) as pool, path.open("a") as file:
        found = pool.imap_unordered(record_of, missing)
        for record in track(found, "cases", len(missing), console=Console(stderr=True), transient=True):
            print(json.dumps(record), file=file, flush=True)
            yield record


def cells(records):
    """Returns ``{(quantity, order): records}``, worst first."""
    found = defaultdict(list)
    for record in records:
        for order in range(len(record["ratio"])):
            found[record["quantity"], order].append(record)
    return {key: sorted(found[key], key=lambda record: -record["ratio"][key[1]]) for key in sorted(found)}


def report(found, console):
    table = Table("quantity", "order", "cases", f"over {WITHIN}", "worst", "where", "seed")
    for (quantity, order), records in found.items():
        worst, figures = records[0], [record["ratio"][order] for record in records]
        over = sum(not figure <= WITHIN for figure in figures)
        r, s = worst["radii"]
        where = (
            f"{worst['arrangement']}, {worst['dtype']}, n = {worst['n']}, k = {worst['k']:.2g}, r = {r:.3g}, {s:.3g}"
        )
        facts = (quantity, str(order), str(len(records)), str(over), f"{figures[0]:.3g}", where, str(worst["seed"]))
        table.add_row(*facts)
    console.print(table)


def picture(found):
    """Returns a figure of the fraction of cases whose error exceeds a multiple of the limit, for each order."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    for order, name in enumerate(ORDERS):
        figures = sorted(
            max(record["ratio"][order], 1e-3) for key, records in found.items() if key[1] == order for record in records
        )
        shares = [1 - i / len(figures) for i in range(len(figures))]
        ax.step(figures, shares, DASHES[order], color=COLORS[order], where="post", label=name, linewidth=2)
    ax.axvline(WITHIN, color="0.6", linewidth=1)
    ax.set(xscale="log", yscale="log", xlabel="error over limit plus rounding", ylabel="fraction of cases beyond")
    ax.legend(frameon=False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=20 if SMOKE_TEST else 20_000)
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="seed of the first case")
    parser.add_argument("--case", type=int, metavar="SEED", help="show one case and its inputs")
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    args = parser.parse_args()
    console = Console(width=150)
    if args.case is not None:
        start_worker()
        console.print(record_of(args.case))
        case = random_cases.random_case(random.Random(args.case))
        for a, direction in zip(case.inputs, case.directions, strict=True):
            console.print([float(x) for x in a], "along", [float(x) for x in direction])
        for figure in random_cases.figures(case):
            console.print(figure)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    seeds = range(args.first, args.first + args.cases)
    found = cells(list(sweep(seeds, args.out / "accuracy_sweep.jsonl")))
    report(found, console)
    orders = [[r["ratio"][order] for key, rs in found.items() if key[1] == order for r in rs] for order in range(3)]
    facts = {
        name: {
            "cases": len(figures),
            "over": sum(not figure <= WITHIN for figure in figures),
            "worst": max(figures, default=math.nan),
        }
        for name, figures in zip(ORDERS, orders, strict=True)
    }
    console.print(facts)
    (args.out / "accuracy_sweep.json").write_text(json.dumps({"orders": facts}, indent=1))
    picture(found).savefig(args.out / "accuracy_sweep.png", dpi=150)


if __name__ == "__main__":
    main()
