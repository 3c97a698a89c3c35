# %% [markdown]
# # A continuous flow beside a coupling flow
#
# A coupling moves one coordinate given the others. A continuous flow moves points along a learned vector field,
#
# $$\dot x = V(x, t), \quad t \in [0, 1], \qquad
#   V(x, t) = \textstyle\sum_j w_j(x, t)\, V_j(x, t) + f(x, t).$$
#
# In `HT.MixtureField`, $V_j$ carries a wrapped normal at the origin to one at $a_j$ by isometries, in closed form, and
# the weights $w_j$ are the probabilities of these components given $x_t = x$. They start at clusters of the data and
# are learned; a network corrects the weights and adds $f$. The flow *is* the map of its solver's steps, so its
# log-determinant is exact and it has an inverse: a transform like any other.
#
#     python tutorials/continuous_flow.py                # two flows on `tree`, a mixture at the 31 nodes of a tree
#     python tutorials/continuous_flow.py --target checkerboard --seconds 300

# %%
import argparse
import math
import os
import time
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic import viz

torch.set_default_dtype(torch.float64)
SMOKE = "SMOKE_TEST" in os.environ
M = geoopt.Lorentz()


def wrapped_normal(scale):
    return hdist.WrappedNormal(ph.geometry.origin(M, 2), scale, M)


# %% [markdown]
# ## Two ways to train
#
# The coupling flow maximises the likelihood of the data. The continuous flow can do that too, but solves no steps if it
# is matched to paths instead: on the way $x_t$ from noise $x_0$ to data $x_1$ the field should be the velocity,
#
# $$\min_V\; \mathbb E\, \big| V(x_t, t) - \dot x_t \big|^2.$$
#
# `explicit="inverse"` makes the direction from data to noise the one without Newton's method, to score data fast.


# %%
def polar_flow(x):
    """Four layers of splines of angle and radius, from data to noise."""
    reach = 1.3 * ph.geometry.log0(M, x).norm(dim=-1).max().item()
    layers = [HT.polar_coupling([64, 64], 64, reach, math.pi + 2.4 * i, M, None if i else x) for i in range(4)]
    model = dist.TransformedDistribution(wrapped_normal(1.0), [layer.inv for layer in reversed(layers)])
    return torch.nn.ModuleList(layers), model, lambda x: -model.log_prob(x)


def continuous_flow(x):
    """A field with 48 components, followed in 32 steps, from noise to data."""
    flow = HT.continuous_flow(2, M, anchors=x, steps=32, field="mixture", explicit="inverse")
    base = wrapped_normal(1.0)
    loss = lambda x: ph.flows.flow_matching_loss(flow, base.sample((len(x),)), x)  # noqa: E731
    return flow, dist.TransformedDistribution(base, [flow]), loss


def train(flow, loss, target, seconds):
    """Takes steps for so many seconds of a processor, at a rate that falls to zero; returns their number."""
    optimizer = torch.optim.Adam(flow.parameters(), 5e-3)
    start = time.process_time()
    step, left = 0, 1.0
    while left > 0 or step < 2:
        step += 1
        left = 1 - (time.process_time() - start) / seconds
        optimizer.param_groups[0]["lr"] = 5e-3 * max(left, 0.0)
        optimizer.zero_grad()
        loss(target.sample((256,))).mean().backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        optimizer.step()
    return step


# %% [markdown]
# ## The divergence and the picture
#
# The target has an exact density $p$, so $\mathrm{KL}(p \,\|\, q) = \mathbb E[\log p(x) - \log q(x)]$ over fresh draws.


# %%
@torch.no_grad()
def divergence(target, model, number):
    """Returns the Kullback-Leibler divergence and its standard error."""
    x = target.sample((number,))
    difference = target.log_prob(x) - model.log_prob(x)
    return difference.mean().item(), difference.std().item() / number**0.5


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", default="tree", choices=list(ph.datasets.DENSITY_TARGETS))
    parser.add_argument(
        "--seconds", type=float, default=0.0 if SMOKE else 120.0, help="of a processor, to train each flow"
    )
    parser.add_argument("--out", type=Path, default=Path("results/continuous_flow"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    target = ph.datasets.density_target(args.target)
    figure = Figure(figsize=(12.0, 4.4), layout="constrained")
    axes, shown = iter(figure.subplots(1, 3)), {"dtype": torch.float64, "resolution": 20 if SMOKE else 120}
    ax = next(axes)
    viz.frame(ax, M)
    limit = viz.density(ax, M, target.log_prob, **shown).get_array().max()
    viz.scale_bar(ax, M)
    ax.set_title(f"(a) target: {args.target}")
    builders = {"polar": polar_flow, "continuous": continuous_flow}
    for ax, letter, (name, build) in zip(axes, "bc", builders.items(), strict=True):
        pyro.set_rng_seed(0)
        flow, model, loss = build(target.sample((600,)))
        steps = train(flow, loss, target, max(args.seconds, 1e-9))
        kl, error = divergence(target, model, 50 if SMOKE else 4000)
        parameters = sum(parameter.numel() for parameter in flow.parameters())
        print(f"{name:10}  {steps} steps, {parameters} parameters: KL {kl:.3f} ± {error:.3f}")
        viz.frame(ax, M)
        with pyro.validation_enabled(False):  # a step may fold far from the data, between two blobs; draw no density
            viz.density(ax, M, lambda x, q=model: q.log_prob(x).nan_to_num(nan=-math.inf), vmax=limit, **shown)
        viz.scale_bar(ax, M)
        ax.set_title(f"({letter}) {name}: KL {kl:.2f}")
    figure.savefig(args.out / "continuous_flow.png", dpi=150)


if __name__ == "__main__":
    main()
