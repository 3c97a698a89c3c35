# %% [markdown]
# # A graph VAE predicts hidden edges
#
# $$\begin{gathered}
#   z_i \sim \mathrm{WN}(o, \sigma), \qquad p(A_{ij} = 1 \mid z) = \operatorname{sigmoid} \frac{r - d(z_i, z_j)}{t}, \\
#   q(z_i \mid A) = \mathrm{WN}(\exp_o \mu_i(A), \sigma_i(A))
# \end{gathered}$$
#
# Nodes are points of a manifold, and near points are joined. We join close relatives in a random tree, hide a tenth of
# the edges, and train a model and guide with codes on the hyperbolic plane. The manifold is an argument.
#
#     python tutorials/graph_vae.py
#
# `tutorials/experiments/link_prediction.py` has real graphs, flows, and 20 splits.

# %%
import argparse
import os
from pathlib import Path

import geoopt
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule, PyroParam, pyro_method
from torch.nn.functional import softplus

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from pyro_hyperbolic import viz

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=20 if "SMOKE_TEST" in os.environ else 300)
parser.add_argument("--out", type=Path, default=Path("results/graph_vae"), help="where the picture goes")
args, _ = parser.parse_known_args()
pyro.settings.set(module_local_params=True)
pyro.set_rng_seed(0)

# %% [markdown]
# ## A graph that is nearly a tree
#
# Nodes are joined to their parents, children, siblings, grandparents and grandchildren. `split_edges` hides a tenth of
# the edges, and as many pairs without an edge. The model may use all other pairs.

# %%
N, M = 100, geoopt.Lorentz()
(tree,) = ph.datasets.random_trees(seed=0, count=1, nodes=(N, N))
steps = torch.zeros(N, N).index_put((tree[:, 0], tree[:, 1]), torch.tensor(1.0))
steps = steps + steps.T
A = (steps + steps @ steps).clamp(max=1).fill_diagonal_(0)
edges = A.triu().nonzero()
split = ph.datasets.split_edges(edges, N, seed=0, val=0.0)
hidden = torch.cat([split.test, split.test_negatives])
labels = A[hidden[:, 0], hidden[:, 1]]
visible = torch.ones(N, N).triu(1)  # each pair once
visible[hidden[:, 0], hidden[:, 1]] = 0.0
print(f"{N} nodes, {len(edges)} edges, {len(split.test)} of them hidden")

# %% [markdown]
# ## The model and the guide
#
# The encoder is a graph convolution, $A W x$, whose matrix averages over a node and its neighbours in the training
# graph. Nodes have no features: $x$ is the identity.

# %%
known = A * (visible + visible.T) + torch.eye(N)
messages = known / known.sum(0).outer(known.sum(1)).sqrt()


class GraphVAE(PyroModule):
    def __init__(self, manifold):
        super().__init__()
        self.manifold = manifold
        self.hidden, self.heads = torch.nn.Linear(N, 64), torch.nn.Linear(64, 4)
        for name in ("radius", "temperature", "scale"):
            setattr(self, name, PyroParam(torch.tensor(1.0), constraint=dist.constraints.positive))

    @pyro_method
    def model(self):
        with pyro.plate("nodes", N):
            origin = ph.geometry.origin(self.manifold, 2)
            z = pyro.sample("z", hdist.WrappedNormal(origin, self.scale, self.manifold))
        edges = dist.Bernoulli(logits=self.graph(z).logits).mask(visible.bool()).to_event(2)
        pyro.sample("edges", edges, obs=A)

    def graph(self, z):
        return hdist.SoftGeometricGraph(z, self.radius, self.temperature, self.manifold)

    @pyro_method
    def guide(self):
        with pyro.plate("nodes", N):
            pyro.sample("z", self.posterior())

    def posterior(self):
        loc, scale = (messages @ self.heads((messages @ self.hidden(torch.eye(N))).relu())).chunk(2, -1)
        return hdist.WrappedNormal(ph.geometry.exp0(self.manifold, loc), softplus(scale - 2), self.manifold)


# %% [markdown]
# ## Training, and the score of the hidden pairs
#
# Predictions are averages over draws of the codes. The area under the ROC curve is the probability that a hidden edge
# has a higher prediction than a hidden pair without one.


# %%
def train(vae):
    optimizer, elbo = torch.optim.Adam(vae.parameters(), lr=0.05), Trace_ELBO()(vae.model, vae.guide)
    for _ in range(args.steps):
        optimizer.zero_grad()
        elbo().backward()
        optimizer.step()
    return vae


@torch.no_grad()
def auc(graph):
    return ph.metrics.roc_auc(graph.edge_logits(hidden).sigmoid().flatten(0, -2).mean(0), labels).item()


vae = train(GraphVAE(M))
score = auc(vae.graph(vae.posterior().sample((32,))))
print(f"AUC of hidden edges {score:.3f}")

# %% [markdown]
# ## The picture: the codes, with the edges of the tree
#
# The model sees neither the tree nor which edges are its own, and finds its branches. Colours count the neighbours of a
# node in the tree.

# %%
figure = Figure(figsize=(6.0, 5.2), layout="constrained")
ax, z = figure.subplots(), vae.posterior().mean.detach()
viz.frame(ax, M)
viz.tree(ax, M, z, tree, linewidth=0.8, color="0.6")
degree = viz.points(ax, M, z, c=steps.sum(0), s=20, cmap="viridis_r")
viz.scale_bar(ax, M, angle=90.0)
figure.colorbar(degree, ax=ax, shrink=0.6, ticks=MaxNLocator(integer=True), label="neighbours in the tree")
ax.set_title(f"AUC of hidden edges {score:.3f}", pad=16)
args.out.mkdir(parents=True, exist_ok=True)
figure.savefig(args.out / "graph_vae.png", dpi=150)
