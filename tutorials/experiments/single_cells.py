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
    """Returns the mean with its 95% interval, by Student's t; empty for less than two values."""
    if len(values) < 2:
        return ""
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):{sign}.{digits}f} ± {half:.{digits}f}"


def section(runs):
    """Returns the results as Markdown; ``runs`` is the folder of all experiments."""
    found = sorted(read(Path(runs) / "single_cells", FIELDS).values(), key=lambda record: record["seed"])
    rows = {name: {r["seed"]: r["scores"] for r in found if r["model"] == name} for name in TITLES}
    if not all(rows.values()):
        return TITLE + "\nNot run yet: `python tutorials/experiments/single_cells.py`.\n"
    lines = ["| | log-likelihood | minus Euclidean | label accuracy | minus Euclidean | correlation |"]
    lines = [lines[0] + " minus Euclidean | batch mixing | curvature | seeds | seconds |", "|---" * 11 + "|"]
    for model, title in TITLES.items():
        line, mine, twin = [title], rows[model], rows["euclidean"]
        for name, digits in COLUMNS.items():
            line.append(text([scores[name] for scores in mine.values() if name in scores], digits))
            if name in ("likelihood", "accuracy", "correlation"):
                both = [seed for seed in mine if seed in twin and name in mine[seed] and model != "euclidean"]
                line.append(text([mine[seed][name] - twin[seed][name] for seed in both], digits, "+"))
        seconds = statistics.median(record["seconds"] for record in found if record["model"] == model)
        lines.append(f"| {' | '.join([*line, str(len(mine)), f'{seconds:.0f}'])} |")
    words = {"minutes": sum(record["seconds"] for record in found) / 60, "seeds": ", ".join(map(str, twin))}
    words["truth"] = text([scores["truth"] for scores in twin.values()], 2)
    return "\n".join([TITLE, HEAD.format(**words), *lines, "", NOTES])


TITLE = "## Single cells\n"
HEAD = """`python tutorials/experiments/single_cells.py`. {minutes:.0f} minutes of one core in total. Settings were
chosen on seed 0; the table has seeds {seeds}.

2000 cells differentiate along a binary tree of 30 edges, in two batches; log-expression of 200 genes drifts by a normal
step of scale 0.5 an edge, and counts are negative binomial. The models are VAEs with two latent dimensions, by
`tutorials/single_cell.py`: one class, with the manifold as its argument. Scores are of a fifth of the cells, held out.

- The log-likelihood is in nats per cell, importance-weighted with 100 draws. The parameters that the counts were drawn
  with have {truth}.
- Accuracy is that of the edge, one of 30, by a vote of the 5 nearest training cells.
- Correlation is Spearman's, of distances between cells with path lengths in the tree.
- Mixing is the share of neighbours from the other batch, 1 if batches do not matter.
- "Euclidean, curved decoder" decodes exp0 of a Euclidean latent by the same gyroplanes as the hyperbolic model. We
  added this row after the others.
- Principal components are of log-normalised counts, less the means of batches. They are no model of counts.

Means with 95% intervals by Student's t; differences are paired by seed. Seconds are those of a processor.
"""
NOTES = """**What the results support.**

- **The likelihoods tie**: +0.15 ± 0.45 nats a cell. Both models are 8 nats below the true parameters: two dimensions do
  not hold the tree.
- **A small gain in geometry, perhaps of the decoder.** Distances of the hyperbolic model follow the lineage better for
  all five seeds, by .035 ± .029, and labels for four of five, by .041 ± .046. The Euclidean model with the curved
  decoder, run on three seeds so far, has its correlation on two (.815 and .773, against .820 and .777), and that of the
  Euclidean model on the third (.753, against .799). So how much is due to hyperbolic latents is open. On the seed of
  development the sign changed with the learning rate and the size of batches.
- **Principal components are hard to beat.** Two of them, in a second, follow the lineage better on average than either
  VAE with two dimensions, and 20 are best in both scores. At two dimensions the VAEs are right about labels twice as
  often.
- Not supported: any claim about real cells, more latent dimensions, or deeper trees. One kind of simulation, one size.

![Latents of one seed](../../docs/images/single_cell.png)

Latents of seed 0 in the plane and in the Poincaré disk, in the colours of the four main branches. The tree, which no
model sees, joins the middles of the cells nearest to its nodes; the dot is the root.
"""


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
