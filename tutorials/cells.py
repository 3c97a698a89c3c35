"""Counts of single cells, from an AnnData file or simulated on a lineage; scores of their latents; the picture."""

from typing import NamedTuple

import geoopt
import numpy as np
import scipy.stats
import torch
from matplotlib.figure import Figure
from rich.table import Table

import pyro_hyperbolic as ph
from pyro_hyperbolic import viz


class Lineage(NamedTuple):
    """A tree that cells differentiate along, and where each cell is: between node ``child`` and its parent."""

    tree: ph.datasets.BranchingDiffusion
    child: torch.Tensor
    time: torch.Tensor  # distance from the root, in edges

    def distances(self, others):
        """Returns the path lengths between these places and others, in edges."""
        parents = self.tree.parent.tolist()
        above = torch.eye(len(parents))  # the ancestors of each node, with itself
        for node, parent in enumerate(parents[1:], 1):
            above[node] += above[parent]
        meet = (above @ above.T - 1)[self.child][:, others.child]
        s, t = self.time.unsqueeze(-1), others.time
        return s + t - 2 * meet.minimum(s).minimum(t)


class Cells(NamedTuple):
    """Counts of N cells, shape ``(N, genes)``, with batches and labels as integers, and what is known of the truth."""

    counts: torch.Tensor
    log_normalised: torch.Tensor
    batch: torch.Tensor
    label: torch.Tensor | None
    names: list[str]  # of the labels
    train: torch.Tensor
    test: torch.Tensor
    lineage: Lineage | None = None
    true_log_prob: torch.Tensor | None = None  # of each cell, under the parameters that its counts were drawn with

    @property
    def n_batch(self):
        return int(self.batch.max()) + 1

    def batches(self, index, size):
        """Yields the counts, log-normalised counts and batches of these cells, by ``size``."""
        for part in index.split(size):
            yield self.counts[part], self.log_normalised[part], self.batch[part]


# ---- Data ----


def load(path=None, seed=0, batch_key=None, label_key=None, layer=None):
    """Returns the cells of an AnnData file (h5ad), or simulated ones; a fifth is held out by the seed."""
    counts, *rest = simulated(seed) if path is None else read(path, batch_key, label_key, layer)
    order = torch.randperm(len(counts), generator=torch.Generator().manual_seed(seed))
    held_out, library = len(counts) // 5, counts.sum(-1, keepdim=True)
    log_normalised = (counts * (library.median() / library)).log1p()  # as in Scanpy's recipe for PCA
    batch, label, names, *truth = rest
    return Cells(counts, log_normalised, batch, label, names, order[held_out:], order[:held_out], *truth)


def read(path, batch_key, label_key, layer):
    """Returns the counts, batches, labels and their names of a file."""
    try:
        import anndata
    except ImportError as error:
        raise ImportError(f'{error}; to read {path}, pip install "pyro-hyperbolic[anndata]"') from error
    data = anndata.read_h5ad(path)
    counts = data.layers[layer] if layer else data.X
    counts = torch.from_numpy(np.asarray(counts.toarray() if hasattr(counts, "toarray") else counts)).float()
    if not bool(((counts >= 0) & (counts == counts.round())).all()):
        raise ValueError(f"{layer or 'X'} of {path} is no matrix of counts; name a layer of counts with --layer.")
    if not bool(counts.sum(-1).all()):
        raise ValueError(f"{path} has cells without counts; remove them, for example by scanpy.pp.filter_cells.")
    batch, label, names = torch.zeros(len(counts), dtype=torch.long), None, []
    if batch_key:
        batch = torch.from_numpy(data.obs[batch_key].astype("category").cat.codes.to_numpy(int))
    if label_key:
        label = data.obs[label_key].astype("category")
        label, names = torch.from_numpy(label.cat.codes.to_numpy(int)), [str(name) for name in label.cat.categories]
    return counts, batch, label, names


def simulated(seed, n=2000, genes=200, depth=4):
    """Returns cells of two batches at uniform places of a binary tree along which log-expression drifts.

    Labels are the edges of the tree. Counts are negative binomial.
    """
    rng, tree = np.random.default_rng(seed), ph.datasets.branching_diffusion(seed, dim=genes, depth=depth)
    nodes = (tree.nodes * tree.scale + tree.mean).numpy()  # a child is its parent plus a standard normal step
    child, t, batch = rng.integers(1, len(nodes), n), rng.uniform(size=(n, 1)), rng.integers(0, 2, n)
    drift = (1 - t) * nodes[tree.parent[child]] + t * nodes[child]
    log_expression = rng.normal(size=genes) + 0.5 * drift + rng.normal(scale=0.3, size=(2, genes))[batch]
    px_scale = torch.tensor(log_expression).softmax(-1).numpy()
    library, px_r = rng.lognormal(np.log(1000), 0.4, (n, 1)), rng.lognormal(np.log(2), 0.5, genes)
    rate = library * px_scale
    counts = rng.poisson(rate * rng.gamma(px_r, size=rate.shape) / px_r)
    log_prob = scipy.stats.nbinom.logpmf(counts, px_r, px_r / (px_r + rate)).sum(-1)
    time = tree.node_depth[child] - 1 + torch.tensor(t).squeeze(-1)
    lineage = Lineage(tree, torch.tensor(child), time.float())
    counts, batch = torch.from_numpy(counts).float(), torch.from_numpy(batch)
    return counts, batch, lineage.child - 1, [], lineage, torch.from_numpy(log_prob)


# ---- Scores of latents ----

SCORES = ("accuracy", "correlation", "mixing")


def pca(data, dim):
    """Returns principal components of log-normalised counts, fitted on training cells, less the means of batches."""
    onehot = torch.nn.functional.one_hot(data.batch).float()
    x = data.log_normalised - onehot @ torch.linalg.lstsq(onehot[data.train], data.log_normalised[data.train]).solution
    directions = torch.pca_lowrank(x[data.train], min(dim + 20, *x.shape), center=False, niter=10)[2]
    return x @ directions[:, :dim]


@torch.no_grad()
def latent_scores(M, z, data, k=5):
    """Returns label accuracy and batch mixing of k neighbours, and the rank correlation with distances of the lineage.

    Each held-out cell has its neighbours among the training cells. Mixing is the share of neighbours from other
    batches, relative to that of two random cells.
    """
    test, train = z[data.test], z[data.train]
    near = [ph.geometry.distance_matrix(M, part, train).topk(k, largest=False).indices for part in test.split(256)]
    near, scores = data.train[torch.cat(near)], {}
    if data.label is not None:
        guess = data.label[near].mode(-1).values
        scores["accuracy"] = (guess == data.label[data.test]).float().mean().item()
    if data.lineage is not None:
        child, time = data.lineage.child[data.test], data.lineage.time[data.test]
        places = data.lineage._replace(child=child, time=time)
        i, j = torch.triu_indices(len(test), len(test), 1)
        pairs = ph.geometry.distance_matrix(M, test, test)[i, j], places.distances(places)[i, j]
        scores["correlation"] = scipy.stats.spearmanr(*pairs).statistic.item()
    chance = 1 - data.batch.bincount().div(len(data.batch)).square().sum()
    if chance > 0:
        scores["mixing"] = ((data.batch[near] != data.batch[data.test, None]).float().mean() / chance).item()
    return scores


def table(latents, data, dim):
    """Returns a table of the scores of ``{model: (manifold, latents, log-likelihood)}`` and of principal components."""
    found = {f"{d} components": (geoopt.Euclidean(1), pca(data, d), None) for d in sorted({dim, 20})} | latents
    result = Table("model", "test log-likelihood", *SCORES)
    for name, (M, z, likelihood) in found.items():
        scores = latent_scores(M, z, data)
        likelihood = "" if likelihood is None else f"{likelihood:.2f}"
        result.add_row(name, likelihood, *(f"{scores[key]:.3f}" if key in scores else "" for key in SCORES))
    return result


# ---- The picture ----

#: Okabe and Ito, with a marker each.
STYLES = [("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "^"), ("#D55E00", "D"), ("#CC79A7", "v"), ("#56B4E9", "P")]
STYLES += [("#000000", "X"), ("#F0E442", "<")]


def pictures(latents, data):
    """Returns a figure of the latents of all cells, in the disk or the plane."""
    figure = Figure(figsize=(4.6 * len(latents), 5.4), layout="constrained")
    axes = figure.subplots(1, len(latents), squeeze=False)[0]
    for ax, letter, (name, (M, z, likelihood)) in zip(axes, "abc", latents.items(), strict=False):
        picture(ax, M, z, data)
        ax.set_title(f"({letter}) {name}: log-likelihood {likelihood:.2f}")
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        columns = min(len(handles), 7)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, markerscale=2)
    return figure


def picture(ax, M, z, data):
    """Draws cells with a colour for each label, or with the lineage they come from and its four main branches."""
    viz.frame(ax, M)
    ax.set(adjustable="datalim", box_aspect=1)  # planes as large as disks
    groups, names = torch.full_like(data.batch, -1) if data.label is None else data.label, data.names
    if data.lineage is not None:
        parents = data.lineage.tree.parent.tolist()
        branch = [-1, -1, -1, 0, 1, 2, 3]  # of the root and its children, and of their children
        for parent in parents[len(branch) :]:
            branch.append(branch[parent])
        groups = torch.tensor(branch)[data.lineage.child]
        names = ["branch 1", "2", "3", "4"]
    for group in groups.unique().tolist():
        colour, marker = STYLES[group % len(STYLES)] if group >= 0 else ("0.6", ".")
        label = names[group] if group >= 0 else "stem" if data.lineage else None
        viz.points(ax, M, z[groups == group], c=colour, marker=marker, s=9, alpha=0.6, linewidth=0, label=label)
    if data.lineage is not None:
        # A node of the tree is drawn at the middle of the ten cells that are nearest to it on the lineage.
        tree = data.lineage.tree
        nodes = Lineage(tree, torch.arange(len(tree.parent)), tree.node_depth.float())
        near = nodes.distances(data.lineage).topk(10, largest=False).indices
        places = ph.geometry.midpoint(M, z[near], dim=1).detach()
        viz.tree(ax, M, places, tree.edges, color="black", linewidth=1.2, label="lineage")
        viz.points(ax, M, places[:1], c="black", s=30, label="root")
    viz.scale_bar(ax, M)
