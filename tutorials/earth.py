# %% [markdown]
# # The earth: a density of events on the sphere
#
# Where will the next earthquake be? We learn a density on the sphere from a file of latitudes and longitudes,
#
# $$q(x) = \frac{1}{4\pi} \Big|\det \frac{\partial\, \mathrm{flow}^{-1}}{\partial x}\Big|,$$
#
# a uniform base carried by a continuous flow, and compare it with the simplest rival, a kernel density: an equal
# mixture of von Mises-Fisher distributions at the training points, of a concentration chosen by validation.
#
#     python tutorials/earth.py earthquakes.csv       # lines latitude,longitude in degrees; no such file is shipped
#     python tutorials/earth.py                       # synthetic events along the borders of plates, made by a seed
#
# On the files of the literature the kernel density is hard to beat. Print it before you believe in a flow.

# %%
import argparse
import os
import time
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import torch
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic import viz

torch.set_default_dtype(torch.float64)
SMOKE = "SMOKE_TEST" in os.environ
M = geoopt.Sphere()
UNIFORM = hdist.Uniform(M, 2)

# %% [markdown]
# ## Data
#
# Places repeat in such files: 82% of a random test split of the volcanoes are training points, and a density of spikes
# would win. `--distinct` keeps all events of a place in one part.


# %%
def plates(number):
    """Returns events scattered about the geodesics between random places."""
    start, end = UNIFORM.sample((2, 7))
    border = torch.randint(7, (number,))
    x = ph.geometry.geodesic(M, start[border], end[border], torch.rand(number))
    return hdist.VonMisesFisher(x, 800.0).sample()


# %% [markdown]
# ## The rival


# %%
def kernel_density(centres, concentration):
    """Returns the log-density of vMF kernels at the centres, with 2% of a uniform density."""
    kernels = hdist.VonMisesFisher(centres, concentration)
    shares = torch.tensor([0.98, 0.02]).log()

    def log_prob(x):
        parts = [kernels.log_prob(chunk.unsqueeze(-2)).logsumexp(-1) for chunk in x.split(256)]
        mixture = torch.cat(parts) - torch.tensor(float(len(centres))).log()
        return torch.logaddexp(shares[0] + mixture, shares[1] + UNIFORM.log_prob(x))

    return log_prob


# %% [markdown]
# ## The flow
#
# Its field, a dense network, is matched to geodesics from uniform noise to events.


# %%
def train(flow, x, seconds):
    """Takes steps for so many seconds of a processor, at a rate that falls to zero."""
    optimizer = torch.optim.Adam(flow.parameters(), 1e-3)
    start = time.process_time()
    left = 1.0
    while left > 0:
        left = 1 - (time.process_time() - start) / seconds
        optimizer.param_groups[0]["lr"] = 1e-3 * max(left, 0.0)
        data = x[torch.randint(len(x), (512,))]
        loss = ph.flows.flow_matching_loss(flow, UNIFORM.sample((len(data),)), data).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path, nargs="?", help="csv file of latitude,longitude")
    parser.add_argument("--distinct", action="store_true", help="split by place, not by event")
    parser.add_argument(
        "--seconds", type=float, default=1e-9 if SMOKE else 120.0, help="of a processor, to train the flow"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/earth"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pyro.set_rng_seed(args.seed)
    x = ph.datasets.earth(args.path) if args.path else plates(200 if SMOKE else 5000)
    split = ph.datasets.split_points(x, args.seed, distinct=args.distinct)
    print(f"{len(x)} events at {len(x.unique(dim=0))} places")

    grid = [kernel_density(split.train, torch.tensor(k)) for k in torch.logspace(1, 5, 5 if SMOKE else 25).tolist()]
    kernel = max(grid, key=lambda log_prob: log_prob(split.val).mean())
    hidden_dims, steps = ([8], 2) if SMOKE else (3 * [192], 32)
    flow = HT.continuous_flow(2, M, hidden_dims=hidden_dims, steps=steps, field="dense", explicit="inverse")
    train(flow, split.train, args.seconds)
    model = dist.TransformedDistribution(UNIFORM, [flow])
    densities = {"uniform": UNIFORM.log_prob, "kernel density": kernel, "continuous flow": model.log_prob}
    for name, log_prob in densities.items():
        with torch.no_grad():
            loss = -log_prob(split.test)
        print(f"{name:15}  test NLL {loss.mean():.3f} ± {loss.std() / len(loss) ** 0.5:.3f} nats")
    picture(densities, split, args.out / "earth.png")


# %% [markdown]
# ## The picture
#
# Two hemispheres in an equal-area map, with the test points: the colour is a density that one can integrate by eye.


# %%
def picture(densities, split, path):
    figure = Figure(figsize=(7.0, 7.0), layout="constrained")
    axes = figure.subplots(2, 1)
    for ax, name in zip(axes, ["kernel density", "continuous flow"], strict=True):
        viz.frame(ax, M)
        mesh = viz.density(
            ax, M, densities[name], norm=PowerNorm(0.4, 0.0, 3.0), resolution=12 if SMOKE else 100, dtype=torch.float64
        )
        viz.points(ax, M, split.test, s=2, c="#D55E00")
        ax.set_title(name)
    figure.colorbar(mesh, ax=axes, shrink=0.5, label="density on the unit sphere")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
