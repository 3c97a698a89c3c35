# %% [markdown]
# # Bring your own manifold: from zero to a trained flow
#
# The upper half-plane, points $(x, y)$ with $y > 0$ and the metric
#
# $$ds^2 = \frac{dx^2 + dy^2}{y^2},$$
#
# is a model of the hyperbolic plane that geoopt does not have. We teach it to the library in six methods. The laws of
# `ph.testing` check them, and then distributions, flows, Pyro and pictures work on it unchanged.

# %%
import argparse
import os
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic import geometry, numerics, viz
from pyro_hyperbolic.testing import assert_distribution_laws, assert_transform_laws

torch.set_default_dtype(torch.float64)
SMOKE = "SMOKE_TEST" in os.environ

# %% [markdown]
# ## The manifold
#
# From geoopt's object the laws read the metric only, an oracle that knows nothing of our maps.


# %%
class HalfPlane(geoopt.manifolds.base.Manifold):
    name, reversible, ndim = "HalfPlane", False, 1

    def inner(self, x, u, v=None, *, keepdim=False):
        return (u * (u if v is None else v)).sum(-1, keepdim=keepdim) / x[..., -1:].square().sum(-1, keepdim=keepdim)

    def _unused(self, *args, **kwargs):
        raise NotImplementedError

    _check_point_on_manifold = _check_vector_on_tangent = _unused
    proju = projx = expmap = logmap = transp = retr = egrad2rgrad = dist = _unused


# %% [markdown]
# The geometry has the maps. The origin is $(0, 1)$. Translating it to $p$ is a dilation and a shift, an isometry. With
# $r = |v|$ the exponential map there is
#
# $$\exp_o(v) = \frac{(v_1 \sinh r / r,\ 1)}{\cosh r - v_2 \sinh r / r}, \qquad
#   \log|\det d\exp_o| = \log \frac{\sinh r}{r}.$$
#
# `sinhc` and `log_sinhc` take $r^2$: nothing divides by zero at the origin.


# %%
class HalfPlaneGeometry(geometry.Hadamard):
    name = "HalfPlane"

    def event_shape(self, n):
        return torch.Size((n,))

    def dim(self, shape):
        return shape[-1]

    def curvature(self):  # optional: pictures need it
        return -torch.ones(())

    def contains(self, x):
        return x.isfinite().all(-1) & (x[..., -1] > 0)

    def exp0(self, v):
        r2 = v.square().sum(-1, keepdim=True)
        sinhc = numerics.sinhc(r2)
        y = 1 / (1 + r2 * numerics.sinhc(r2 / 4).square() / 2 - v[..., -1:] * sinhc)
        return torch.cat([v[..., :-1] * sinhc * y, y], -1), (v.size(-1) - 1) * numerics.log_sinhc(r2[..., 0])

    def log0(self, x):
        flat, y = x[..., :-1], x[..., -1:]
        w = torch.cat([flat / y, (flat.square().sum(-1, keepdim=True) + (y - 1) * (y + 1)) / (2 * y)], -1)
        v = w * numerics.asinhc(w.square().sum(-1, keepdim=True))
        return v, (v.size(-1) - 1) * numerics.log_sinhc(v.square().sum(-1))

    def translate(self, p, x, inverse=False):
        shift, y = torch.cat([p[..., :-1], torch.zeros_like(p[..., -1:])], -1), p[..., -1:]
        return (x - shift) / y if inverse else y * x + shift


geometry.register(HalfPlane, HalfPlaneGeometry)
M = HalfPlane()


# %% [markdown]
# ## Under the laws, then a flow
#
# The laws compare log-determinants with Gram determinants in the metric, densities with quadrature, samples with
# densities. Data are draws of the target `tree`, carried from the hyperboloid by $\exp_o \circ \log_o$, an isometry, so
# that the divergence of the flow, four layers of splines of angle and radius, is known.


# %%
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=5 if SMOKE else 1000)
    parser.add_argument("--out", type=Path, default=Path("results/bring_your_own_manifold"))
    args = parser.parse_args()
    pyro.set_rng_seed(0)
    x = ph.geometry.exp0(M, torch.randn(6, 2))
    assert_distribution_laws(hdist.WrappedNormal(x[0], torch.tensor([0.5, 1.0]), M))
    assert_transform_laws(ph.flows.coupling_flow(2, 2, HT.tangent_coupling, [16], M), x)
    print("every law holds, of a wrapped normal and a coupling flow")
    target = ph.datasets.density_target("tree")
    carry = lambda x: ph.geometry.exp0(M, ph.geometry.log0(geoopt.Lorentz(), x))  # noqa: E731
    data = carry(target.sample((600,)))
    layers = [HT.polar_coupling([64, 64], 64, 12.0, 2.4 * i, M, None if i else data) for i in range(4)]
    base = hdist.WrappedNormal(ph.geometry.origin(M, 2), 1.0, M)
    model = dist.TransformedDistribution(base, [layer.inv for layer in reversed(layers)])
    optimizer = torch.optim.Adam(torch.nn.ModuleList(layers).parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, args.steps)
    for _ in range(args.steps):
        optimizer.zero_grad()
        (-model.log_prob(carry(target.sample((256,)))).mean()).backward()
        optimizer.step()
        schedule.step()
    x = target.sample((50 if SMOKE else 5000,))
    difference = (target.log_prob(x) - model.log_prob(carry(x))).detach()
    print(f"KL divergence {difference.mean():.3f} ± {difference.std() / len(x) ** 0.5:.3f}")

    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    plane, disk = figure.subplots(1, 2)
    plane.scatter(*carry(x).T.numpy(), s=2, linewidth=0, color="#0072B2")
    plane.set(xlim=(-3, 3), ylim=(0, 2.5), aspect="equal", xlabel="$x$", ylabel="$y$", title="(a) data")
    viz.frame(disk, M)
    shown = {"resolution": 20 if SMOKE else 250, "vmax": target.log_prob(x).max().exp().item()}
    viz.density(disk, M, model.log_prob, dtype=torch.float64, **shown)
    viz.scale_bar(disk, M)
    disk.set_title(f"(b) learned density: KL {difference.mean():.2f}")
    args.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out / "half_plane.png", dpi=150)


if __name__ == "__main__":
    main()
