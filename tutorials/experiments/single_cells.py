"""Single cells on a known lineage: does a hyperbolic latent space help a VAE of counts?

    python tutorials/experiments/single_cells.py        # the table; resumes where it stopped
    python tutorials/experiments/report.py              # writes README.md from the records

The model and the data are those of `tutorials/single_cell.py`, whose settings were chosen on seed 0.
"""

import argparse
import functools
import os
import statistics
import sys
import time
from pathlib import Path

import geoopt
import pyro
import scipy.stats
from records import missing, perform_all, read, write

import pyro_hyperbolic as ph

sys.path.insert(0, str(Path(__file__).parent.parent))
import cells
import single_cell

SMOKE = "SMOKE_TEST" in os.environ
HERE = Path(__file__).resolve().parent
SEEDS = (11,) if SMOKE else (11, 12, 13, 14, 15)  # declared before any run
SETTING = {"epochs": 1 if SMOKE else 150, "n_latent": 2, "samples": 2 if SMOKE else 100}
TITLES = {
    "2 components": "2 principal components",
    "20 components": "20 principal components",
    "euclidean": "Euclidean",
    "gyroplanes": "Euclidean, curved decoder",
    "hyperbolic": "hyperbolic",
}
load = functools.cache(cells.load)


class Gyroplanes(ph.nn.Gyroplanes):
    """Gyroplanes of ``exp0`` of a Euclidean latent: the decoder of the hyperbolic model without its latents."""

    def forward(self, z):
        return super().forward(ph.geometry.exp0(self.manifold, z))


def trained(model, data):
    """Returns a model of this name."""
    M = single_cell.MANIFOLDS["hyperbolic" if model == "hyperbolic" else "euclidean"]()
    vae = single_cell.CellVAE(data.counts.size(1), data.n_batch, M, SETTING["n_latent"])
    if model == "gyroplanes":
        vae.planes = Gyroplanes(SETTING["n_latent"], len(vae.planes.weight), single_cell.MANIFOLDS["hyperbolic"]())
    single_cell.train(vae, data, SETTING["epochs"])
    return vae


def perform(name, fields, folder, state):
    """Writes the record of a model on the data of a seed."""
    state[name], start = 0.0, time.process_time()
    seed, model = fields["seed"], fields["model"]
    data = load(seed=seed)
    pyro.set_rng_seed(seed)
    if model.endswith("components"):
        M, z, scores = geoopt.Euclidean(1), cells.pca(data, int(model.split()[0])), {}
    else:
        vae = trained(model, data)
        M, z = vae.manifold, vae.get_latent_representation(data.log_normalised, data.batch)
        scores = {"likelihood": single_cell.log_likelihood(vae, data, SETTING["samples"]).mean().item()}
        scores |= {"curvature": M.curvature.item()} if model == "hyperbolic" else {}
    scores |= cells.latent_scores(M, z, data) | {"truth": data.true_log_prob[data.test].mean().item()}
    write(folder, name, {**fields, "scores": scores, "seconds": time.process_time() - start})
    del state[name]


# ---- The table ----

FIELDS = ("model", "seed", "setting", "scores", "seconds")
COLUMNS = {"likelihood": 2, "accuracy": 3, "correlation": 3, "mixing": 2, "curvature": 2}  # and their digits


def text(values, digits, sign=""):
    """Returns the mean with its 95% interval, by Student's t."""
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):{sign}.{digits}f} ± {half:.{digits}f}"


def section(runs):
    """Returns the results as Markdown; ``runs`` is the folder of all experiments."""
    found = sorted(read(Path(runs) / "single_cells", FIELDS).values(), key=lambda record: record["seed"])
    if {record["model"] for record in found} != TITLES.keys():
        return TITLE + "\nNot run yet: `python tutorials/experiments/single_cells.py`.\n"
    rows = {model: [record["scores"] for record in found if record["model"] == model] for model in TITLES}
    lines = ["| | log-likelihood | minus Euclidean | label accuracy | minus Euclidean | correlation |"]
    lines = [lines[0] + " minus Euclidean | batch mixing | curvature | seconds |", "|---" * 10 + "|"]
    for model, title in TITLES.items():
        line = [title]
        for name, digits in COLUMNS.items():
            mine, twin = ([scores[name] for scores in rows[key] if name in scores] for key in (model, "euclidean"))
            line.append(text(mine, digits) if mine else "")
            if name in ("likelihood", "accuracy", "correlation"):
                less = [a - b for a, b in zip(mine, twin, strict=True)] if mine and model != "euclidean" else []
                line.append(text(less, digits, "+") if less else "")
        seconds = statistics.median(record["seconds"] for record in found if record["model"] == model)
        lines.append(f"| {' | '.join([*line, f'{seconds:.0f}'])} |")
    words = {"minutes": sum(record["seconds"] for record in found) / 60}
    words["truth"] = text([scores["truth"] for scores in rows["euclidean"]], 2)
    words["seeds"] = ", ".join(str(record["seed"]) for record in found if record["model"] == "euclidean")
    return "\n".join([TITLE, HEAD.format(**words), *lines, "", NOTES])


TITLE = "## Single cells\n"
HEAD = """`python tutorials/experiments/single_cells.py`. {minutes:.0f} minutes of one core in total. Settings were
chosen on seed 0; the seeds of the table are {seeds}.
"""
NOTES = ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "runs" / "single_cells", help="folder of results")
    args = parser.parse_args()
    jobs = {
        f"{model}, {seed}": {"model": model, "seed": seed, "setting": SETTING} for seed in SEEDS for model in TITLES
    }
    todo = missing(args.out, jobs)
    perform_all(perform, [(*job, args.out) for job in todo.items()], "models", len(jobs), args.processes)


if __name__ == "__main__":
    main()
