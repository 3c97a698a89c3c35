# %% [markdown]
# # Inferring curvature, as a parameter and as a latent variable
#
# We survey eight places in a hyperbolic plane. A base station measures the bearing and range of each place, and we also
# measure the distance of each pair, all with noise. Bearings and ranges alone are consistent with every curvature. With
# the distances, the law of cosines identifies it. On `Lorentz(k)`, with curvature $-1/k$ and radius $R = \sqrt k$,
#
# $$\cosh \tfrac{d}{R} = \cosh \tfrac{r}{R} \cosh \tfrac{s}{R} - \sinh \tfrac{r}{R} \sinh \tfrac{s}{R} \cos \theta.$$

# %%
import argparse
import os
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, init_to_value
from pyro.infer.reparam import TransformReparam
from pyro.nn import PyroModule, PyroSample

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist

SMOKE_TEST = "SMOKE_TEST" in os.environ
parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
parser.add_argument("--steps", type=int, default=30 if SMOKE_TEST else 800, help="SVI steps for each guide")
parser.add_argument("--samples", type=int, default=10 if SMOKE_TEST else 300, help="draws of NUTS")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path("results/curvature"), help="where the picture goes")
args, _ = parser.parse_known_args()
torch.set_default_dtype(torch.float64)
pyro.set_rng_seed(args.seed)

# %% [markdown]
# ## The model
#
# The manifold is a submodule of the model. Below, only the declaration of its `k` changes.

# %%
PLACES, NOISE = 8, 0.1
FIRST, SECOND = torch.triu_indices(PLACES, PLACES, 1)
PRIOR = dist.LogNormal(0.0, 0.7)


class Survey(PyroModule):
    def __init__(self, manifold):
        super().__init__()
        self.manifold = manifold

    def forward(self, seen=None, apart=None):
        M, G = self.manifold, ph.geometry
        M.k  # noqa: B018  # if k is a site, it is sampled at its first read: here, outside the plate of places
        with pyro.plate("places", PLACES):
            z = pyro.sample("z", hdist.WrappedNormal(G.origin(M, 2), 1.5, M))
            pyro.sample("seen", dist.Normal(G.log0(M, z), NOISE).to_event(1), obs=seen)
        with pyro.plate("pairs", len(FIRST)):
            distance = G.distance(M, z[..., FIRST, :], z[..., SECOND, :])
            pyro.sample("apart", dist.Normal(distance, NOISE), obs=apart)


truth = ph.manifolds.Lorentz.from_curvature(-2.0)
simulated = Predictive(Survey(truth), num_samples=1)()
data = {name: simulated[name][0] for name in ("seen", "apart")}

# %% [markdown]
# ## A parameter, by maximising the ELBO
#
# `learnable=True` makes `k` a positive `PyroParam` (as `M.k = PyroParam(tensor, constraint=positive)` does). SVI trains
# it with the guide's parameters, and the supports of autoguides follow. Initialise the places where they were seen:
# initialised at one point, they get stuck in a wrong arrangement.


# %%
def train(model, guide):
    optimiser = pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.02 ** (1 / args.steps)})
    elbo = Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(model, guide, optimiser, elbo)
    for _ in range(args.steps):
        svi.step(**data)


learned = Survey(ph.manifolds.Lorentz.from_curvature(-1.0, learnable=True))
start = {"manifold.k": torch.tensor(1.0), "z": ph.geometry.exp0(geoopt.Lorentz(), data["seen"])}
train(learned, AutoMultivariateNormal(learned, init_loc_fn=init_to_value(values=start), init_scale=0.1))
estimate = learned.manifold.curvature.item()
print(f"maximum of the ELBO  {estimate:.2f}  (true curvature {truth.curvature.item():.2f})")

# %% [markdown]
# ## A latent, by SVI
#
# `PyroSample` makes `k` a site of the model. Each value of `k` has its own hyperboloid, so a guide cannot store points.
# `TransformReparam` lets it store their tangent vectors instead, which do not depend on `k`; without it an error says
# so. (The autoguides of `ph.infer` need no reparametrisation, but treat sites as independent; here `k` and the places
# are not.)

# %%
latent = Survey(ph.manifolds.Lorentz())
latent.manifold.k = PyroSample(PRIOR)
model = pyro.poutine.reparam(latent, {"z": TransformReparam()})
pyro.clear_param_store()
guide = AutoMultivariateNormal(model, init_loc_fn=init_to_value(values=start), init_scale=0.1)
train(model, guide)
with torch.no_grad():
    predictive = Predictive(model, guide=guide, num_samples=2000, parallel=True, return_sites=["manifold.k"])
    by_svi = -1 / predictive(**data)["manifold.k"].flatten()

# %% [markdown]
# ## A latent, by NUTS
#
# NUTS runs on the same model.

# %%
kernel = NUTS(model, init_strategy=init_to_value(values=start), max_tree_depth=6)
mcmc = MCMC(kernel, num_samples=args.samples, warmup_steps=max(args.samples // 3, 5))
mcmc.run(**data)
by_nuts = -1 / mcmc.get_samples()["manifold.k"].flatten()

# %%
QUANTILES = torch.tensor([0.025, 0.5, 0.975])
for name, draws in (("SVI", by_svi), ("NUTS", by_nuts)):
    low, middle, high = draws.quantile(QUANTILES).tolist()
    print(f"posterior by {name:4}    {middle:.2f}, 95% in [{low:.2f}, {high:.2f}]")

figure = Figure(figsize=(6.0, 3.2), layout="constrained")
ax = figure.subplots()
curvature = torch.linspace(-4.0, -0.05, 400)
prior = (PRIOR.log_prob(-1 / curvature) - 2 * curvature.abs().log()).exp()  # dk = dK / K^2
bins = torch.linspace(-4.0, 0.0, 61).tolist()
ax.hist(by_svi.tolist(), bins, density=True, color="#56B4E9", alpha=0.6, label="posterior by SVI")
ax.hist(by_nuts.tolist(), bins, density=True, histtype="step", linewidth=1.5, color="#D55E00", label="by NUTS")
ax.plot(curvature, prior, color="0.6", label="prior")
ax.axvline(estimate, color="#0072B2", linestyle=":", linewidth=2, label="maximum of the ELBO")
ax.axvline(truth.curvature.item(), color="black", linestyle="--", label="truth")
ax.set(xlabel="sectional curvature", ylabel="density", xlim=(-4, 0))
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, fontsize=8)
args.out.mkdir(parents=True, exist_ok=True)
figure.savefig(args.out / "curvature.png", dpi=160)
