"""Writes README.md: the tables of Bose et al., 2020, beside what the scripts of this folder have found.

python tutorials/experiments/report.py
"""

import argparse
import math
import statistics
from pathlib import Path

import density_estimation
import scipy.stats
from records import read

HERE = Path(__file__).parent

#: Tables 1 and 2 of the paper: test log-likelihood and its spread over five runs.
PUBLISHED = {
    "BDP": {
        "N-VAE": {2: "-55.4 ± .2", 4: "-55.2 ± .3", 6: "-56.1 ± .2"},
        "H-VAE": {2: "-54.9 ± .3", 4: "-55.4 ± .2", 6: "-58.0 ± .2"},
        "RealNVP": {2: "-55.4 ± .4", 4: "-54.7 ± .1", 6: "-55.2 ± .3"},
        "TC": {2: "-54.9 ± .1", 4: "-55.4 ± .1", 6: "-57.5 ± .2"},
        "WHC": {2: "-55.1 ± .4", 4: "-55.2 ± .2", 6: "-56.9 ± .4"},
    },
    "MNIST": {
        "N-VAE": {2: "-139.5 ± 1.0", 6: "-100.0 ± .02"},
        "H-VAE": {2: "unstable", 6: "-99.8 ± .2"},
        "RealNVP": {2: "-139.2 ± .4", 6: "-98.7 (.3)"},
        "TC": {2: "unstable", 6: "-99.3 ± .2"},
        "WHC": {2: "-136.5 ± 2.1", 6: "-99.4 ± .2"},
    },
}


def interval(values):
    """Returns the mean and the half-width of its 95% interval, by Student's t."""
    values = list(values)
    if len(values) < 2:
        return statistics.fmean(values), math.nan
    quantile = float(scipy.stats.t.ppf(0.975, len(values) - 1))
    return statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(len(values))


def text_of(values):
    """Returns the interval as text; of the finite values, with a count of the others."""
    finite = [value for value in values if math.isfinite(value)]
    failed = len(values) - len(finite)
    if not finite:
        return f"{failed} failed"
    mean, half = interval(finite)
    return f"{mean:.2f}" + ("" if math.isnan(half) else f" ± {half:.2f}") + (f" ({failed} failed)" if failed else "")


def paired(ours, theirs):
    """Returns the differences of runs of the same seeds."""
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def table(head, rows):
    """Returns a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def bdp(records):
    """Returns the section on the branching diffusion process."""
    dims = sorted({record["dim"] for record in records.values()})
    epochs = sorted({int(epoch) for record in records.values() for epoch in record["scores"]})
    seeds = max((record["seeds"] for record in records.values()), key=len)
    found = {
        (record["model"], record["dim"], int(epoch)): scores
        for record in records.values()
        for epoch, scores in record["scores"].items()
    }
    models = list(dict.fromkeys([*PUBLISHED["BDP"], *(record["model"] for record in records.values())]))
    failed = sum(not math.isfinite(value) for scores in found.values() for value in scores["likelihood"])
    parts = [BDP_HEAD.format(seeds=len(seeds), epochs=" and ".join(map(str, epochs)), failed=failed, runs=len(records))]
    for dim in dims:
        rows = []
        for model in models:
            if (model, dim, epochs[-1]) not in found:
                continue
            scores = [found[model, dim, epoch] for epoch in epochs]
            control = "N-VAE, hyperplanes" if "planes" in model else "N-VAE"
            base = found.get((control, dim, epochs[-1]))
            rows.append(
                [
                    model,
                    PUBLISHED["BDP"].get(model, {}).get(dim, ""),
                    *(text_of(score["likelihood"]) for score in scores),
                    ""
                    if model == control or base is None
                    else text_of(paired(scores[-1]["likelihood"], base["likelihood"])),
                    text_of(scores[-1]["published"]),
                    text_of(scores[-1]["curvature"]) if scores[-1]["curvature"][0] else "",
                ]
            )
        head = ["model", "published", *(f"{epoch} epochs" for epoch in epochs)]
        head += ["minus Euclidean", "published estimator", "curvature"]
        parts += [f"### Dimension {dim}\n", table(head, rows), ""]
    return "\n".join([*parts, BDP_NOTES])


def mnist(records):
    """Returns the section on MNIST."""
    runs = list(records.values())
    if not runs:
        return MNIST_NONE
    dims, seeds = (sorted({run[key] for run in runs}) for key in ("dim", "seed"))
    epochs = sorted({run["epochs"] for run in runs})
    failed = sum(not math.isfinite(run["likelihood"]) for run in runs)
    parts = [MNIST_HEAD.format(seeds=len(seeds), epochs=", ".join(map(str, epochs)), failed=failed, runs=len(runs))]
    for dim in dims:
        rows = []
        for model, published in PUBLISHED["MNIST"].items():
            mine = {run["seed"]: run for run in runs if (run["model"], run["dim"]) == (model, dim)}
            base = {run["seed"]: run for run in runs if (run["model"], run["dim"]) == ("N-VAE", dim)}
            if not mine:
                continue
            both = [seed for seed in mine if seed in base]
            differences = [mine[seed]["likelihood"] - base[seed]["likelihood"] for seed in both]
            rows.append(
                [
                    model,
                    published[dim],
                    text_of([run["likelihood"] for run in mine.values()]),
                    text_of(differences) if model != "N-VAE" and both else "",
                    text_of([run["published"] for run in mine.values()]),
                    text_of([run["curvature"] for run in mine.values()]) if model in ("H-VAE", "TC", "WHC") else "",
                    str(len(mine)),
                    f"{statistics.fmean(run['seconds'] for run in mine.values()):.0f}",
                ]
            )
        head = ["model", "published", "ours", "minus Euclidean", "published estimator", "curvature", "seeds", "seconds"]
        parts += [f"### Dimension {dim}\n", table(head, rows), ""]
    return "\n".join([*parts, MNIST_NOTES])


HEAD = """# The paper's experiments, again

"Latent Variable Modelling with Hyperbolic Normalizing Flows" (Bose, Smofsky, Liao, Panangaden, Hamilton, ICML 2020,
[arXiv:2002.06336](https://arxiv.org/abs/2002.06336)), with the densities that are right: same data, split, initial
weights, activation, width and number of epochs for every model; seeds declared before the first run, all of them
reported, with 95% intervals by Student's t. This page is written by `python tutorials/experiments/report.py` from
what the scripts leave in `runs/`.
"""

BDP_HEAD = """## VAEs on the branching diffusion process (table 1)

`python tutorials/experiments/vae_bdp.py`. {seeds} seeds, each with its own data, split and initial weights, which the
models share; scored after {epochs} epochs (the paper's text, and its scripts) by the importance-weighted estimate with
500 samples over the whole test set. Curvature is learned. The ten runs of a model and dimension are trained in one
process, as a plate of runs, and do not touch each other. Runs that failed numerically: {failed}, of {runs} models and
dimensions. "Minus Euclidean" is the paired difference over seeds, at the last epoch, from the N-VAE (for decoders of
hyperplanes, from the Euclidean one); "published estimator" is what the paper's code would have printed for our models:
with (n - 1)(log R + log(sinh r / r)) subtracted from each log-weight.
"""

MNIST_HEAD = """## VAEs on MNIST (table 2)

`python tutorials/experiments/vae_mnist.py --data FOLDER --epochs {epochs}`. {seeds} seeds, {epochs} epochs where the
paper has 80: these models are far from trained, so compare columns with each other and not with the paper's. The
importance-weighted estimate with 500 samples over all 10,000 test images (the paper's code stops after the first 128).
Runs that failed numerically: {failed} of {runs}. Seconds are of training, on one core of a busy machine.
"""

MNIST_NONE = """## VAEs on MNIST (table 2)

Not run yet: `python tutorials/experiments/vae_mnist.py --data FOLDER`.
"""

BDP_NOTES = ""
MNIST_NOTES = ""


def page(runs):
    """Returns the page, from the records in a folder."""
    parts = [HEAD, density_estimation.section(runs), bdp(read(runs / "vae_bdp")), mnist(read(runs / "vae_mnist"))]
    return "\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=HERE / "runs")
    parser.add_argument("--out", type=Path, default=HERE / "README.md")
    args = parser.parse_args()
    args.out.write_text(page(args.runs))


if __name__ == "__main__":
    main()
