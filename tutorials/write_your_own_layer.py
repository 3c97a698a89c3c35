# %% [markdown]
# # Write your own layer, and let the laws find your mistakes
#
# We write a spiral layer on the hyperbolic plane. In tangent coordinates at the origin it stretches by $e^s$ and
# rotates by an angle that grows with the distance from the origin,
#
# $$y = \exp_o\big(e^s \, \mathrm{Rot}(a\,|v|)\, v\big), \qquad v = \log_o x.$$
#
# The first version has a mistake. `assert_transform_laws` finds it. We fix it and use the layer in a guide.

# %%
import argparse
import os
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro.infer import SVI, Trace_ELBO

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic import viz
from pyro_hyperbolic.testing import LawViolation, assert_transform_laws

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=20 if "SMOKE_TEST" in os.environ else 1000)
parser.add_argument("--out", type=Path, default=Path("results/write_your_own_layer"))
args, _ = parser.parse_known_args()
torch.set_default_dtype(torch.float64)
M = geoopt.Lorentz(k=2.0)  # not k = 1, which would hide mistakes with the radius


def turned(v, angle):
    c, s = angle.cos(), angle.sin()
    return torch.stack([c * v[..., 0] - s * v[..., 1], s * v[..., 0] + c * v[..., 1]], -1)


# %% [markdown]
# ## First try
#
# Rotation preserves areas. Stretching a plane by $e^s$ multiplies them by $e^{2s}$. So is the log-determinant $2s$?


# %%
class Spiral(dist.TransformModule):
    bijective = True
    domain = codomain = hdist.constraints.on_manifold(M)

    def __init__(self, log_scale=0.1, twist=0.3):
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.tensor(log_scale))
        self.twist = torch.nn.Parameter(torch.tensor(twist))

    def _call(self, x):
        v = ph.geometry.log0(M, x)
        return ph.geometry.exp0(M, self.log_scale.exp() * turned(v, self.twist * v.norm(dim=-1)))

    def _inverse(self, y):
        w = ph.geometry.log0(M, y) * (-self.log_scale).exp()
        return ph.geometry.exp0(M, turned(w, -self.twist * w.norm(dim=-1)))

    def log_abs_det_jacobian(self, x, y):
        return (2 * self.log_scale).expand(x.shape[:-1])


x = ph.geometry.exp0(M, torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))  # at several radii
try:
    assert_transform_laws(Spiral(), x)
except LawViolation as violation:
    print(violation)

# %% [markdown]
# The message says that the volume terms of the chart are missing. $2s$ is the log-determinant with respect to Lebesgue
# measure of tangent coordinates, but densities on a manifold are with respect to Riemannian volume.


# %%
class SpiralWithVolume(Spiral):
    def log_abs_det_jacobian(self, x, y):
        v, w = ph.geometry.log0(M, x), ph.geometry.log0(M, y)
        return 2 * self.log_scale + ph.geometry.log_volume(M, w) - ph.geometry.log_volume(M, v)


# %% [markdown]
# ## The same in fewer lines
#
# The base class `TangentModule` handles charts, volumes, copies, any manifold and curvature, and a safe cache, so that
# the layer scores its own samples without an inverse. A subclass has the map of the tangent space and its
# log-determinant there. We also replace $|v|$, which is not smooth at the origin, by $|v|^2$, which is.


# %%
class SmoothSpiral(HT.TangentModule):
    def __init__(self, manifold, log_scale=0.1, twist=0.3):
        super().__init__(manifold)
        self.log_scale = torch.nn.Parameter(torch.tensor(log_scale))
        self.twist = torch.nn.Parameter(torch.tensor(twist))

    def _tangent_forward(self, v):
        angle = self.twist * v.square().sum(-1)
        return self.log_scale.exp() * turned(v, angle), (2 * self.log_scale).expand(v.shape[:-1])

    def _tangent_backward(self, w):
        v = w * (-self.log_scale).exp()
        return turned(v, -self.twist * v.square().sum(-1)), (2 * self.log_scale).expand(w.shape[:-1])


for layer in (SpiralWithVolume(), SmoothSpiral(M)):
    assert_transform_laws(layer, x)
    print(f"{type(layer).__name__}: every law holds")

# %% [markdown]
# ## In a guide
#
# The plane was wound around the origin after we observed one coordinate of a point. The posterior of the wound point
# lies along a spiral. (Winding preserves the prior, so the evidence is known: $\log N(0; 0, 1 + 0.2^2) = -0.94$.)


# %%
def model():
    z = pyro.sample("z", hdist.WrappedNormal(ph.geometry.origin(M, 2), 1.0, M))
    v = ph.geometry.log0(M, z)
    unwound = turned(v, -0.6 * v.square().sum(-1))
    pyro.sample("observed", dist.Normal(unwound[..., 1], 0.2), obs=torch.tensor(0.0))


def posterior(layers):
    loc, scale = pyro.param("loc", torch.zeros(2)), pyro.param("scale", torch.ones(2), dist.constraints.positive)
    base = hdist.WrappedNormal(ph.geometry.exp0(M, loc), scale, M)
    return dist.TransformedDistribution(base, [pyro.module("layer", layer) for layer in layers])


figure, elbo = Figure(figsize=(9, 4.6), layout="constrained"), Trace_ELBO(10, 0, vectorize_particles=True)
panels = {"(a) wrapped normal": [], "(b) with a spiral layer": [SmoothSpiral(M)]}
for ax, (title, layers) in zip(figure.subplots(1, 2), panels.items(), strict=True):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = SVI(model, lambda layers=layers: pyro.sample("z", posterior(layers)), pyro.optim.Adam({"lr": 1e-2}), elbo)
    losses = torch.tensor([svi.step() for _ in range(args.steps)])
    viz.frame(ax, M)
    viz.scale_bar(ax, M, angle=180.0)
    viz.density(ax, M, posterior(layers).log_prob)
    ax.set_title(f"{title}: ELBO {-losses[-100:].mean():.2f}")
args.out.mkdir(parents=True, exist_ok=True)
figure.savefig(args.out / "posterior.png", dpi=150)
