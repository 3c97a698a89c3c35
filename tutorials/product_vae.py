# %% [markdown]
# # A product VAE: a tree and a cycle
#
# Each observation has two causes, a node of a branching diffusion and a phase of a cycle. A tree fits into the
# hyperbolic plane and a cycle on the sphere, so we take the product as latent space,
#
# $$\begin{gathered}
#   z = (z_1, z_2) \in H^2 \times S^2, \qquad z_1 \sim \mathrm{WN}(o, I), \qquad z_2 \sim \mathrm{Uniform}(S^2), \\
#   x \mid z \sim \mathcal N(\mathrm{dec}(z), \tfrac12 I).
# \end{gathered}$$
#
# The posterior is a wrapped normal times a von Mises-Fisher distribution. Beside it, `e4` is the ordinary VAE. Other
# products have their names: `--spaces h2,h2,e2 e6`.

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
from pyro.infer import Trace_ELBO
from pyro.nn import DenseNN, PyroModule, pyro_method
from torch.nn.functional import normalize, softplus

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from pyro_hyperbolic import viz

torch.set_default_dtype(torch.float64)
pyro.settings.set(module_local_params=True)
SMOKE = "SMOKE_TEST" in os.environ
NOISE = 0.5**0.5

# %% [markdown]
# ## The factors
#
# The encoder gives a location and a scale for each dimension, or a direction and a concentration. Curvature is learned.


# %%
class Factor(PyroModule):
    def __init__(self, name):
        super().__init__()
        self.kind, self.dim = name[0], int(name[1:])
        kinds = {"h": ph.manifolds.Lorentz(learnable=True), "e": geoopt.Euclidean(1), "s": geoopt.Sphere()}
        self.manifold = kinds[self.kind]

    def prior(self):
        if self.kind == "s":
            return hdist.Uniform(self.manifold, self.dim)
        return hdist.WrappedNormal(ph.geometry.origin(self.manifold, self.dim), 1.0, self.manifold)

    def posterior(self, parameters):
        if self.kind == "s":
            return hdist.VonMisesFisher(normalize(parameters[..., :-1], dim=-1), 1 + softplus(parameters[..., -1]))
        loc, scale = parameters.split(self.dim, -1)
        return hdist.WrappedNormal(ph.geometry.exp0(self.manifold, loc), softplus(scale), self.manifold)


class VAE(PyroModule):
    def __init__(self, data_dim, spaces):
        super().__init__()
        self.factors = torch.nn.ModuleList(Factor(name) for name in spaces.split(","))
        self.manifold = ph.manifolds.Product(*((f.manifold, f.dim + (f.kind != "e")) for f in self.factors))
        self.sizes = [f.dim + 2 if f.kind == "s" else 2 * f.dim for f in self.factors]
        self.encoder = DenseNN(data_dim, [128], [sum(self.sizes)])
        self.decoder = DenseNN(sum(f.dim + (f.kind == "s") for f in self.factors), [128], [data_dim])

    def likelihood(self, z):
        # The decoder reads tangent coordinates of hyperbolic factors, and points of spheres.
        return dist.Normal(self.decoder(ph.geometry.complete(self.manifold).features(z)), NOISE).to_event(1)

    def prior(self):
        return hdist.ProductDistribution(self.manifold, [factor.prior() for factor in self.factors])

    def posterior(self, x):
        parts = zip(self.factors, self.encoder(x).split(self.sizes, -1), strict=True)
        return hdist.ProductDistribution(self.manifold, [factor.posterior(part) for factor, part in parts])

    @pyro_method
    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(z), obs=x)

    @pyro_method
    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(x))


# %% [markdown]
# ## Data, training, and a picture
#
# Nothing tells the model which cause belongs to which factor. With these seeds the phase goes to the hyperbolic plane
# and the tree to the sphere, not as we meant, and the likelihood is that of `e4` up to the errors.


# %%
def simulate(observations):
    tree, generator = ph.datasets.branching_diffusion(0, dim=20, observations=observations), torch.Generator()
    phase = 2 * math.pi * torch.rand(len(tree.x), generator=generator.manual_seed(0))
    waves = torch.stack([phase.cos(), phase.sin(), (2 * phase).cos(), (2 * phase).sin()], -1)
    cycle = 1.5 * waves @ torch.randn(4, 10, generator=generator)
    return torch.cat([tree.x, cycle + NOISE * torch.randn(cycle.shape, generator=generator)], -1), tree.depth, phase


def fit(spaces, x, held_out, epochs):
    pyro.set_rng_seed(0)
    vae, train = VAE(x.size(-1), spaces), x[~held_out]
    elbo, optimizer = Trace_ELBO()(vae.model, vae.guide), torch.optim.Adam(vae.parameters(), 2e-3)
    for _ in range(epochs):
        for batch in train[torch.randperm(len(train))].split(128):
            optimizer.zero_grad()
            elbo(batch).backward()
            optimizer.step()
    samples = 10 if SMOKE else 300
    each = ph.infer.log_weights(vae.model, vae.guide, x[held_out], num_samples=samples).logsumexp(0) - math.log(samples)
    curvatures = [round(f.manifold.curvature.item(), 2) for f in vae.factors if f.kind == "h"]
    print(f"{spaces:6} test log-likelihood {each.mean():.2f} ± {each.std() / len(each) ** 0.5:.2f}, {curvatures = }")
    return vae


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=1 if SMOKE else 200)
    parser.add_argument("--spaces", nargs="+", default=["h2,s2", "e4"])
    parser.add_argument("--out", type=Path, default=Path("results/product_vae"))
    args = parser.parse_args()
    x, depth, phase = simulate(2 if SMOKE else 20)
    vae, *_ = [fit(spaces, x, torch.arange(len(x)) % 5 == 0, args.epochs) for spaces in args.spaces]
    z, number, letters = vae.posterior(x), len(vae.factors), iter("abcdefgh")
    z, figure = z.split(z.sample()), Figure(figsize=(4.5 * number, 6.8), layout="constrained")
    looks = (("depth in the tree", depth, "viridis_r"), ("phase of the cycle", phase, "twilight_shifted"))
    for row, (label, c, cmap) in zip(figure.subplots(2, number, squeeze=False), looks, strict=True):
        for ax, factor, part in zip(row, vae.factors, z, strict=True):
            viz.frame(ax, factor.manifold)
            artist = viz.points(ax, factor.manifold, part, c=c, cmap=cmap, s=8, edgecolor="0.4", linewidth=0.2)
            ax.set_title(f"({next(letters)}) ${factor.kind.upper()}^{factor.dim}$")
        figure.colorbar(artist, ax=row, shrink=0.8, label=label)
    args.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out / "product_vae.png", dpi=150)


if __name__ == "__main__":
    main()
