# %% [markdown]
# # The posterior of a hyperbolic location, three ways
#
# This tutorial assumes Pyro but no geometry. A point $z$ of the hyperbolic plane is unknown. We have three sightings of
# it, each with normal error in a random direction, and a measurement of its distance to a lighthouse:
#
# $$z \sim \mathrm{WN}(o, 2), \qquad x_i \sim \mathrm{WN}(z, 1.5), \qquad t \sim N(d(z, \text{lighthouse}), 0.3).$$
#
# To sample a wrapped normal $\mathrm{WN}(\mu, s)$, follow a normal vector of standard deviation $s$ from $\mu$ along a
# straight line. The rest is ordinary Pyro. We compare a hand-written guide, an autoguide and NUTS with the exact
# posterior, a sum over a grid.

# %%
import argparse
import math
import os
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from pyro_hyperbolic import viz

SMOKE_TEST = "SMOKE_TEST" in os.environ
parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=50 if SMOKE_TEST else 600, help="SVI steps for each guide")
parser.add_argument("--samples", type=int, default=20 if SMOKE_TEST else 600, help="draws of NUTS")
parser.add_argument("--out", type=Path, default=Path("results/location"), help="where the picture goes")
args, _ = parser.parse_known_args()
torch.set_default_dtype(torch.float64)
pyro.set_rng_seed(3)

# %% [markdown]
# ## The model
#
# `exp0` makes a point $(\cosh r, \sinh r \cos\theta, \sinh r \sin\theta)$ of a vector of length $r$ and angle $\theta$.

# %%
M = geoopt.Lorentz()
origin = ph.geometry.origin(M, 2)
lighthouse = ph.geometry.exp0(M, torch.tensor([-0.4, 0.5]))
truth = ph.geometry.exp0(M, torch.tensor([1.2, -0.5]))
sightings = hdist.WrappedNormal(truth, 1.5, M).sample((3,))
measured = dist.Normal(ph.geometry.distance(M, truth, lighthouse), 0.3).sample()


def model():
    z = pyro.sample("z", hdist.WrappedNormal(origin, 2.0, M))
    with pyro.plate("sightings", len(sightings)):
        pyro.sample("x", hdist.WrappedNormal(z, 1.5, M), obs=sightings)
    pyro.sample("t", dist.Normal(ph.geometry.distance(M, z, lighthouse), 0.3), obs=measured)


# %% [markdown]
# ## With a hand-written guide
#
# `constraint=on_manifold(M)` keeps the location on the plane under any optimiser.


# %%
def guide():
    loc = pyro.param("loc", origin, constraint=hdist.constraints.on_manifold(M))
    tril = pyro.param("tril", 0.3 * torch.eye(2), constraint=dist.constraints.lower_cholesky)
    pyro.sample("z", hdist.WrappedMultivariateNormal(loc, scale_tril=tril, manifold=M))


def train(guide):
    optimiser = pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.05 ** (1 / args.steps)})
    elbo = Trace_ELBO(num_particles=8, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(model, guide, optimiser, elbo)
    for _ in range(args.steps):
        svi.step()


train(guide)
by_hand = pyro.poutine.trace(guide).get_trace().nodes["z"]["fn"]

# %% [markdown]
# ## With an autoguide, and by NUTS
#
# All of Pyro's autoguides work on this model unmodified. The quantiles of this one are discs. NUTS needs no guide.

# %%
autoguide = ph.infer.AutoWrappedNormal(model)
train(autoguide)
ball = autoguide.quantiles([0.95])["z"]
auto = hdist.WrappedNormal(ball.center, autoguide.scales.z.detach(), M)
print(f"95% disc of radius {ball.radius.item():.2f}")

mcmc = MCMC(NUTS(model), num_samples=args.samples, warmup_steps=args.samples // 2)
mcmc.run()
samples = mcmc.get_samples()["z"]

# %% [markdown]
# ## Comparison with the exact posterior
#
# Weights, of points on a grid or of draws from a guide, sum to the evidence, and give the mean distance to the
# lighthouse. The better the guide, the more of its draws count.


# %%
def log_joint(z):
    """Returns the log-density of the model at points z of shape (N, 3)."""
    trace = pyro.poutine.trace(pyro.poutine.condition(model, {"z": z.unsqueeze(-2)})).get_trace()
    trace.compute_log_prob()
    return sum(trace.nodes[name]["log_prob"].sum(-1) for name in ("z", "x", "t"))


side = torch.linspace(-6.0, 6.0, 241)
v = torch.cartesian_prod(side, side)  # volume is sinh(r) / r times the area in the plane of vectors
grid, log_volume = ph.geometry.exp0(M, v), ph.geometry.log_volume(M, v) + 2 * math.log(side[1] - side[0])
weighted = {"summation": (grid, log_joint(grid) + log_volume)}
for name, q in (("by hand", by_hand), ("autoguide", auto)):
    z = q.sample((4000,))
    weighted[name] = z, log_joint(z) - q.log_prob(z) - math.log(4000)
for name, (z, log_weight) in weighted.items():
    share, evidence = log_weight.softmax(0), log_weight.logsumexp(0)
    mean, effective = (share * ph.geometry.distance(M, z, lighthouse)).sum(), 1 / share.square().sum()
    print(f"{name:10} evidence {evidence:.3f}  distance {mean:.3f}  effective points {effective:.0f} of {len(z)}")
print(f"NUTS                         distance {ph.geometry.distance(M, samples, lighthouse).mean():.3f}")

# %% [markdown]
# ## Three densities on one disk
#
# Lines enclose 50% and 95% of each guide. The exact posterior is grey, and bends around the lighthouse. Maximising the
# ELBO makes both guides too narrow, and the autoguide cannot tilt.

# %%
figure = Figure(figsize=(6.0, 6.6), layout="constrained")
ax = figure.subplots()
viz.frame(ax, M)
viz.scale_bar(ax, M, angle=180.0)
viz.density(ax, M, lambda z: log_joint(z) - log_joint(grid).max(), cmap="Greys", resolution=200, alpha=0.6)
viz.points(ax, M, samples, color="#CC79A7", s=9, linewidth=0, label="NUTS")
for name, q, colour, line in (("by hand", by_hand, "#0072B2", "-"), ("autoguide", auto, "#D55E00", "--")):
    viz.regions(ax, M, q.log_prob, resolution=200, colors=colour, linestyles=line)
    ax.plot([], [], color=colour, linestyle=line, label=name)
viz.points(ax, M, sightings, color="0.2", marker="s", s=18, label="sightings")
viz.points(ax, M, lighthouse, color="#E69F00", marker="^", s=60, label="lighthouse")
viz.points(ax, M, truth, color="black", marker="*", s=90, label="truth")
figure.legend(loc="outside lower center", ncols=3, frameon=False)
args.out.mkdir(parents=True, exist_ok=True)
figure.savefig(args.out / "location.png", dpi=160)
