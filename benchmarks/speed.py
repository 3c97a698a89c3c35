"""Speed relative to a Euclidean floor: interleaved rounds in one process and thread, medians of per-round ratios.

Absolute times drift with the machine; the ratio of two calls a millisecond apart does not. The floor is a hand-written
affine coupling flow with the same networks. Everything runs forward and backward, in float32, without validation.
Prints a table, and writes ``speed.json`` and ``speed.png`` to ``--out``. ``SMOKE_TEST=1`` runs a few cells for two
rounds.
"""

import argparse
import json
import os
import sys
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import continuous
import measure
import pyro
import subjects
import torch
import vaes
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

SMOKE_TEST = os.environ.get("SMOKE_TEST") == "1"
OURS, PLAIN = ("TC", "WHC"), "floor"
PYRO = "Pyro affine_coupling"

# (part, subject, baseline, where, must, stretch). Ratios of times, but "operations" counts extra operations, per flow
# (TC) or per layer (WHC).
GOALS = (
    ("sample + log q", "TC", PLAIN, {"batch": [128]}, 1.40, 1.20),
    ("sample + log q", "TC", PLAIN, {"batch": [2048]}, 1.12, 1.05),
    ("sample + log q", "WHC", PLAIN, {"n": [2], "batch": [128]}, 1.5, 1.25),
    ("sample + log q", "WHC", PLAIN, {"n": [2], "batch": [2048]}, 1.15, 1.1),
    ("sample + log q", "WHC", PLAIN, {"n": [6, 64], "batch": [128]}, 2.5, 1.9),
    ("sample + log q", "WHC", PLAIN, {"n": [6, 64], "batch": [2048]}, 1.5, 1.3),
    ("sample + log q", "TC", PYRO, {}, 0.97, 0.8),
    ("compiled", "TC, compiled", "floor, compiled", {}, 1.1, 1.05),
    ("compiled", "WHC, compiled", "floor, compiled", {}, 1.4, 1.2),
    ("distribution", "WrappedNormal, own sample", "Normal", {}, 3.5, 2.3),
    ("distribution", "WrappedNormal, stored point", "Normal", {}, 5.0, 3.3),
    ("SVI step", "VAE, WrappedNormal", "VAE, Normal", {}, 1.15, 1.08),
    ("SVI step", "VAE, WrappedNormal + 2 TC", "VAE, WrappedNormal", {}, 1.35, 1.25),
    ("continuous", "ContinuousFlow", "RK4 by hand", {"n": [2]}, 1.3, 1.0),
    ("operations", "TC", PLAIN, {}, 60, 45),
    ("operations", "WHC", "TC", {"n": [6, 64]}, 130, 90),
    ("flatness", "TC", PLAIN, {}, 1.1, 1.05),
    ("flatness", "WHC", PLAIN, {}, 1.1, 1.05),
)


@dataclass
class Row:
    """One comparison: ``value`` is a median ratio of times with its quartiles, or a number of operations."""

    part: str
    where: dict
    subject: str
    over: str
    value: float
    low: float | None = None
    high: float | None = None
    operations: int | None = None
    syncs: int | None = None
    saved_bytes_per_sample: float | None = None
    must: float | None = None
    stretch: float | None = None

    def __post_init__(self):
        for part, subject, over, where, must, stretch in GOALS:
            here = all(self.where.get(key) in values for key, values in where.items())
            if here and (part, subject, over) == (self.part, self.subject, self.over):
                self.must, self.stretch = must, stretch

    @property
    def verdict(self):
        if self.must is None:
            return ""
        return "stretch" if self.value <= self.stretch else "met" if self.value <= self.must else "NOT MET"


@dataclass
class Cell:
    """Subjects that are measured together, and the pairs to compare (by default, each with the first)."""

    part: str
    where: dict
    make: object
    pairs: list = field(default_factory=list)


def cells(device):
    grid = [(6, 128)] if SMOKE_TEST else [(n, batch) for n in (2, 6, 64) for batch in (128, 2048)]
    names = list(subjects.FLOWS)
    for n, batch in grid:
        where = {"n": n, "batch": batch, "layers": 4}
        yield Cell("flow", where, lambda n=n, batch=batch: subjects.flows(names, n, 4, batch, device))
    for n, batch in grid:
        where = {"n": n, "batch": batch, "layers": 4}
        pairs = [*((name, PLAIN) for name in (PLAIN, *OURS, PYRO)), ("TC", PYRO)]
        yield Cell("sample + log q", where, lambda n=n, batch=batch: subjects.samples(n, 4, batch, device), pairs)
        # In a cell of their own: the slow ones evict their neighbours' data from the CPU caches.
        yield Cell("peers", where, lambda n=n, batch=batch: subjects.peers(n, 4, batch, device))
    where = {"n": 6, "batch": 128, "layers": 4}
    yield Cell("anatomy", where, lambda: subjects.anatomy(6, 4, 128, device))
    yield Cell("kernel", {"n": 6, "batch": 128}, lambda: subjects.maps(6, 128, device))
    for n in (6,) if SMOKE_TEST else (2, 6, 64):
        yield Cell("distribution", {"n": n, "batch": 128}, lambda n=n: subjects.distributions(n, 128, device))
    where = {"n": vaes.LATENT_DIM, "batch": 128}
    pairs = [(f"VAE, WrappedNormal + 2 {name}", "VAE, WrappedNormal") for name in OURS]
    pairs = [("VAE, WrappedNormal", "VAE, Normal"), *pairs]
    yield Cell("SVI step", where, lambda: vaes.posteriors(128, device), pairs)
    yield Cell("SVI idiom", where, lambda: vaes.idioms(128, device))
    sizes = [(2, 2, 64)] if SMOKE_TEST else [(2, 4, 4096), (2, 8, 512), (2, 16, 512), (4, 8, 512), (8, 8, 512)]
    for n, steps, batch in sizes:
        where = {"n": n, "steps": steps, "batch": batch}
        yield Cell("continuous", where, lambda where=where: continuous.densities(*where.values(), device))
    if not SMOKE_TEST:
        where = {"n": 2, "steps": 2, "batch": 1000}
        pairs = [("ContinuousFlow, compiled", "ContinuousFlow")]
        yield Cell("continuous", where, lambda where=where: continuous.densities(*where.values(), device, True), pairs)
    for where in growth():
        yield Cell("growth", where, lambda where=where: subjects.flows([PLAIN, *OURS], *where.values(), device))
    if not SMOKE_TEST:
        for n, batch in ((6, 128), (6, 2048)):
            where = {"n": n, "batch": batch, "layers": 4}
            pairs = [("floor, compiled", PLAIN), *((f"{name}, compiled", "floor, compiled") for name in OURS)]
            yield Cell("compiled", where, lambda n=n, batch=batch: subjects.compiled(n, 4, batch, device), pairs)


def growth():
    if SMOKE_TEST:
        return [{"n": n, "layers": 4, "batch": 128} for n in (6, 8)]
    dims = [{"n": n, "layers": 4, "batch": 128} for n in (2, 8, 32, 128, 512)]
    batches = [{"n": 6, "layers": 4, "batch": batch} for batch in (1, 8, 64, 512, 8192)]
    return [*dims, *batches, *({"n": 6, "layers": layers, "batch": 128} for layers in (1, 2, 4, 8, 16))]


def rows_of(cell, rounds, device, report):
    """Measures a cell, and yields a row for each of its pairs."""
    functions = cell.make()
    times = measure.interleaved(functions, rounds, device, report)
    counts = {name: measure.operations(function) for name, function in functions.items() if "ompiled" not in name}
    first = next(iter(functions))
    for name, over in cell.pairs or [(name, first) for name in functions]:
        if name not in functions:
            continue  # not installed
        kept, subject = None, functions[name]
        if cell.part in ("flow", "sample + log q", "peers", "distribution"):
            kept = measure.saved_bytes(subject, subject.parameters) / cell.where["batch"]
        figures = measure.ratio(times, name, over)
        yield Row(cell.part, cell.where, name, over, *figures, *counts.get(name, (None, None)), kept)


def derived(rows):
    """Yields rows computed from others: operations over the floor, and growth of the ratio with n."""
    for row in rows:
        if row.part == "flow" and row.subject in OURS and row.over == PLAIN:
            # The chart of a flow is counted once, with TC: a WHC layer counts the operations beyond a TC layer.
            base = PLAIN if row.subject == "TC" else "TC"
            counted = next(other for other in rows if other.where == row.where and other.subject == base)
            extra = (row.operations - counted.operations) / (1 if row.subject == "TC" else row.where["layers"])
            yield Row("operations", row.where, row.subject, base, extra)
    for name in OURS:
        along = {row.where["n"]: row for row in rows if row.part == "growth" and row.subject == name}
        along = {n: row for n, row in along.items() if row.where["batch"] == 128 and row.where["layers"] == 4}
        if {8, 512} <= along.keys():  # where the moving block has two dimensions or more
            yield Row("flatness", {"n": "8 to 512"}, name, PLAIN, along[512].value / along[8].value)


def table(rows):
    shown = Table("", "what", "over", "ratio", "quartiles", "goal", "", "operations", "kept, B/sample")
    previous = None
    for row in rows:
        here = f"{row.part}, " + ", ".join(f"{key} = {value}" for key, value in row.where.items())
        if row.part == "growth":
            continue  # shown in the picture
        goal = "" if row.must is None else f"{row.must:g} / {row.stretch:g}"
        verdict = f"[red]{row.verdict}" if row.verdict == "NOT MET" else f"[green]{row.verdict}"
        quartiles = "" if row.low is None else f"{row.low:.2f}-{row.high:.2f}"
        kept = "" if row.saved_bytes_per_sample is None else f"{row.saved_bytes_per_sample:.0f}"
        count = "" if row.operations is None else f"{row.operations}" + (f" ({row.syncs} syncs)" if row.syncs else "")
        shown.add_row(
            *(here if here != previous else "", row.subject, row.over, f"{row.value:.2f}", quartiles),
            *(goal, verdict, count, kept),
            end_section=False,
        )
        previous = here
    return shown


#: Colours of Okabe and Ito, markers and dashes beside them.
STYLES = {
    "TC": {"color": "#0072B2", "marker": "o"},
    "WHC": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
}


def picture(rows, path):
    """Draws the ratios as the flow grows, and those of other libraries, with their quartiles."""
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.4])
    fixed = {"n": 6, "layers": 4, "batch": 128}
    labels = {"n": "dimension n", "batch": "batch size B", "layers": "layers"}
    for ax, key in zip(axes, labels, strict=False):
        if ax is not axes[0]:
            ax.sharey(axes[0])
            ax.tick_params(labelleft=False)
        for name, style in STYLES.items():
            line = [row for row in rows if row.part == "growth" and row.subject == name]
            line = [row for row in line if all(row.where[k] == v for k, v in fixed.items() if k not in (key, "n"))]
            line = [row for row in line if (row.where["n"] == fixed["n"]) != (key == "n")]
            if not line:
                continue  # the part was not requested
            line.sort(key=lambda row: row.where[key])
            x = [row.where[key] for row in line]
            ax.set_xscale("log", base=2)
            ax.plot(x, [row.value for row in line], label=name, markersize=5, **style)
            bounds = ([row.low for row in line], [row.high for row in line])
            ax.fill_between(x, *bounds, color=style["color"], alpha=0.2, linewidth=0)
            ax.xaxis.set_major_formatter("{x:g}")
        ax.set_xlabel(labels[key])
    axes[0].set_ylim(bottom=0)  # of all three
    axes[0].set_ylabel("time over the floor")
    dots = [row for row in rows if row.part in ("sample + log q", "peers") and row.over == PLAIN]
    dots = [row for row in dots if (row.where["n"], row.where["batch"]) == (6, 128)]
    dots = list({row.subject: row for row in dots}.values())  # both parts have the floor
    for i, row in enumerate(dots):
        style = {"color": "0.3", "marker": "D", **STYLES.get(row.subject, {}), "linestyle": "none"}
        spread = [[row.value - row.low], [row.high - row.value]] if row.low is not None else None
        axes[3].errorbar(row.value, i, xerr=spread, capsize=3, markersize=6, **style)
    axes[3].set_yticks(range(len(dots)), [row.subject for row in dots])
    if dots:
        axes[3].set_xscale("log", base=2)
        axes[3].set(ylim=(len(dots) - 0.5, -0.5), xticks=[1, 2, 4, 8], xticklabels=["1", "2", "4", "8"])
        axes[3].axvline(1, color="0.5", linestyle=":")
    axes[3].set_xlabel("time over the floor, sample + log q")
    for ax, letter in zip(axes, "abcd", strict=True):
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_title(f"({letter})", loc="left", fontsize=11)
    for ax in axes[:3]:
        ax.axhline(1, color="0.5", linestyle=":")
    if axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=2 if SMOKE_TEST else 60)
    parser.add_argument("--parts", nargs="*", help="some of: flow, distribution, 'SVI step', 'SVI idiom', growth, ...")
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pyro.enable_validation(False)
    warnings.simplefilter("ignore", torch.jit.TracerWarning)
    rows = []
    chosen = [cell for cell in cells(args.device) if not args.parts or cell.part in args.parts]
    with Progress(transient=True) as progress:
        task = progress.add_task("", total=len(chosen) * args.rounds)
        for cell in chosen:
            progress.update(task, description=f"{cell.part} {cell.where}")
            try:
                rows += rows_of(cell, args.rounds, args.device, lambda _: progress.advance(task))
            except torch._inductor.exc.InductorError as error:
                progress.console.print(f"{cell.part} is skipped, since the compiler failed: {error}")
    rows += derived(rows)
    Console(width=None if sys.stdout.isatty() else 170).print(table(rows))
    args.out.mkdir(parents=True, exist_ok=True)
    facts = {"machine": measure.machine(args.device), "rounds": args.rounds, "rows": [asdict(row) for row in rows]}
    (args.out / "speed.json").write_text(json.dumps(facts, indent=2))
    picture(rows, args.out / "speed.png")
    print(f"figures: {args.out / 'speed.json'}; picture: {args.out / 'speed.png'}")


if __name__ == "__main__":
    main()
