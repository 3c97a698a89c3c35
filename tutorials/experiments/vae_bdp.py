"""Table 1 of Bose et al., 2020: VAEs on the branching diffusion process, ten seeds, the correct estimator.

    python tutorials/experiments/vae_bdp.py             # half an hour on 2 cores; resumes where it was interrupted
    python tutorials/experiments/report.py              # writes README.md from what the scripts have written

Each seed has its own data, split and initial weights, shared by the models. The ten runs of one model and dimension
train together in one process (`runs_together.py`), two models at a time: on so few data ten runs take little more time
than one. They are scored after 80 epochs, as in the paper's text, and after 3000, as in its scripts.
"""

import argparse
import os
import platform
import time
from functools import partial
from pathlib import Path

import geoopt
import pyro
import torch
from records import missing, run_all, write
from runs_together import AsPublished, FlatCode, PlanesVAE, curvature_of, data_of, hyperbolic_vae, score, together

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions.transforms as HT

SMOKE = "SMOKE_TEST" in os.environ
SEEDS = list(range(2 if SMOKE else 10))  # declared before any run
EPOCHS = (1, 2) if SMOKE else (80, 3000)
DIMS = (2,) if SMOKE else (6, 2, 4)
VAE = hyperbolic_vae.VAE
MODELS = {  # name: (hyperbolic, coupling, class)
    "N-VAE": (False, None, VAE),
    "H-VAE": (True, None, VAE),
    "RealNVP": (False, HT.tangent_coupling, VAE),
    "TC": (True, HT.tangent_coupling, VAE),
    "WHC": (True, HT.wrapped_hyperboloid_coupling, VAE),
    "N-VAE, hyperplanes": (False, None, PlanesVAE),
    "N-VAE, gyroplanes": (True, None, FlatCode),
    "H-VAE, gyroplanes": (True, None, PlanesVAE),
    "WHC, gyroplanes": (True, HT.wrapped_hyperboloid_coupling, PlanesVAE),
    "H-VAE, as published": (True, None, AsPublished),
    "TC, as published": (True, HT.tangent_coupling, AsPublished),
    "WHC, as published": (True, HT.wrapped_hyperboloid_coupling, AsPublished),
}
GROUPS = [(list(MODELS)[:5], DIMS), (list(MODELS)[5:9], DIMS), (list(MODELS)[9:], DIMS[:1])]


def run(name, dim, folder, report):
    """Trains all seeds of a model and writes their scores."""
    hyperbolic, coupling, model = MODELS[name]
    manifold = ph.manifolds.Lorentz(torch.ones(len(SEEDS), 1), learnable=True) if hyperbolic else geoopt.Euclidean(1)
    vae = together(partial(model, 50, dim, coupling=coupling, hidden_dim=200), manifold, SEEDS)
    batches, test = data_of(SEEDS)
    pyro.set_rng_seed(dim)
    scores, start = {}, time.perf_counter()
    for epoch, elbo in enumerate(hyperbolic_vae.train(vae, batches, EPOCHS[-1]), start=1):
        report(epoch, elbo)
        if epoch in EPOCHS:
            found = {**score(vae, test), "curvature": curvature_of(vae).expand(len(SEEDS))}
            scores[epoch] = {key: value.tolist() for key, value in found.items()}
    record = {
        "model": name,
        "dim": dim,
        "seeds": SEEDS,
        "scores": scores,
        "seconds": round(time.perf_counter() - start),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    write(folder, f"{name}-{dim}", record)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "runs" / "vae_bdp")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    jobs = {f"{name}-{dim}": (name, dim, args.out) for names, dims in GROUPS for dim in dims for name in names}
    fields = {job: {"model": name, "dim": dim, "seeds": SEEDS} for job, (name, dim, _) in jobs.items()}
    waiting = {job: jobs[job] for job in missing(args.out, fields)}
    run_all(run, waiting, EPOCHS[-1], args.processes)


if __name__ == "__main__":
    main()
