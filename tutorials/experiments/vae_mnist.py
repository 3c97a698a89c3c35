"""Table 2 of Bose et al., 2020: VAEs on MNIST, the correct estimator over the whole test set.

    python tutorials/experiments/vae_mnist.py --data FOLDER   # the four idx files; resumes where it was interrupted
    python tutorials/experiments/report.py                    # writes README.md from what the scripts have written

One run per process, two at a time. By default 80 epochs and 500 samples, as in the paper; see `--epochs`, `--samples`.
"""

import argparse
import math
import os
import platform
import time
from pathlib import Path

import geoopt
import pyro
import torch
from records import missing, run_all, write
from runs_together import SAMPLES, curvature_of, hyperbolic_vae, score, vae_data
from vae_bdp import MODELS

import pyro_hyperbolic as ph

SMOKE = "SMOKE_TEST" in os.environ
SEEDS = (0,) if SMOKE else (0, 1, 2)  # declared before any run
DIMS = (2,) if SMOKE else (2, 6, 4)


def run(name, dim, seed, args, report):
    """Trains one model from one seed and writes its scores."""
    hyperbolic, coupling, model = MODELS[name]
    pyro.set_rng_seed(seed)
    batches, test, options = vae_data.load(seed, args.data)
    manifold = ph.manifolds.Lorentz(learnable=True) if hyperbolic else geoopt.Euclidean(1)
    vae = model(test.size(-1), dim, manifold, coupling, **options)
    start, elbo = time.process_time(), math.nan
    for epoch, elbo in enumerate(hyperbolic_vae.train(vae, batches, args.epochs), start=1):
        report(epoch, elbo)
    seconds = time.process_time() - start
    scores = {**score(vae, test, args.samples), "curvature": curvature_of(vae)}
    record = {
        "model": name,
        "dim": dim,
        "seed": seed,
        "epochs": args.epochs,
        "samples": args.samples,
        "train_elbo": elbo,
        **{key: value.item() for key, value in scores.items()},
        "seconds": round(seconds),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    write(args.out, job_name(name, dim, seed, args.epochs), record)


def job_name(name, dim, seed, epochs):
    """Returns the name of the record; runs with other budgets have other names."""
    return f"{name}-{dim}-{seed}-{epochs}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the four idx files")
    parser.add_argument("--epochs", type=int, default=1 if SMOKE else 80)
    parser.add_argument("--samples", type=int, default=SAMPLES, help="importance samples for each test image")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "runs" / "vae_mnist")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    jobs = {
        job_name(name, dim, seed, args.epochs): (name, dim, seed, args)
        for dim in DIMS
        for seed in SEEDS
        for name in list(MODELS)[: 2 if SMOKE else 5]
    }
    budget = {"epochs": args.epochs, "samples": args.samples}
    fields = {job: {"model": name, "dim": dim, "seed": seed, **budget} for job, (name, dim, seed, _) in jobs.items()}
    waiting = {job: jobs[job] for job in missing(args.out, fields)}
    run_all(run, waiting, args.epochs, args.processes)


if __name__ == "__main__":
    main()
