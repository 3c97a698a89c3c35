"""Matrices of distances, from files or made by a seed; where their models start; the picture of a tree."""

import csv
import math
import re

import geoopt
import numpy as np
import scipy.cluster.hierarchy
import scipy.sparse
import torch

import pyro_hyperbolic as ph

# ---- Data ----


def read(path, seed=0):
    """Returns a matrix of distances, NaN where one is missing, and the names; without a path one made by the seed."""
    if path is None:
        return made_by(seed)
    if path.suffix == ".npz":
        with np.load(path) as file:
            return torch.from_numpy(file["distances"].astype(float)), [str(name).strip() for name in file["names"]]
    if path.suffix != ".csv":
        return newick(path.read_text())
    with path.open() as file:
        head, *rows = csv.reader(file)
    rows = [[float(cell or "nan") for cell in row[-len(rows) :]] for row in rows]  # a first column may have the names
    return torch.tensor(rows, dtype=torch.float64), head[-len(rows) :]


def newick(text):
    """Returns the distances between the leaves of a tree in Newick's format, and their names."""
    parents, node, edges, lengths, names = [], 0, [], [], {}
    for mark, name, length in re.findall(r"([(),])|'?([^(),:;'\s][^(),:;']*)'?|:\s*([^(),:;\s]+)", text):
        if mark == ")":
            node = parents.pop()
        elif mark:
            parents += [node] if mark == "(" else []
            node = len(edges) + 1
            edges.append((parents[-1], node))
            lengths.append(0.0)
        elif name:
            names[node] = name
        elif node:
            lengths[node - 1] = float(length)
    leaves = sorted({child for _, child in edges} - {parent for parent, _ in edges})
    return ph.embeddings.path_lengths(edges, lengths)[leaves][:, leaves], [names.get(i, str(i)) for i in leaves]


def made_by(seed, n=40, noise=0.03):
    """Returns distances between the leaves of a random tree with log-normal noise: lineages merge in random pairs."""
    generator = np.random.default_rng(seed)
    D, depth, lineages = np.zeros((n, n)), 0.0, [[i] for i in range(n)]
    while len(lineages) > 1:
        depth += generator.exponential(1 / len(lineages))
        first, second = (lineages.pop(generator.integers(len(lineages))) for _ in range(2))
        D[np.ix_(first, second)] = 2 * depth
        lineages.append(first + second)
    error = np.exp(noise * np.triu(generator.standard_normal((n, n)), 1))
    return torch.from_numpy((D + D.T) * error * error.T), [f"species {i}" for i in range(n)]


def hide(D, share, seed):
    """Returns which pairs ``i < j`` are seen, and which of the known ones are hidden.

    A distance of zero has no logarithm, and counts as missing.
    """
    known = (D[tuple(torch.triu_indices(len(D), len(D), 1))] > 0).nonzero().squeeze(-1)
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
    seen, hidden = torch.zeros(2, len(D) * (len(D) - 1) // 2, dtype=torch.bool)
    count = round(share * len(known))
    hidden[known[order[:count]]], seen[known[order[count:]]] = True, True
    return seen, hidden


# ---- Starts ----


def completed(D, seen):
    """Returns the matrix with all pairs filled in that are not seen."""
    i, j = torch.triu_indices(len(D), len(D), 1)[:, seen]
    gaps = torch.full_like(D, math.nan).fill_diagonal_(0.0)
    gaps[i, j] = gaps[j, i] = D[i, j]
    return ph.embeddings.complete_distances(gaps)


def layout(edges, lengths, n, dim, radius=10.0):
    """Returns a layout of a tree in hyperbolic space, and the length of a unit; the longest path is ``2 radius``."""
    unit = ph.embeddings.path_lengths(edges, lengths).max() / (2 * radius)
    return ph.embeddings.tree(geoopt.Lorentz(), edges, lengths, dim=dim, scale=1 / unit.item())[:n], unit


def scaling(edges, lengths, n, dim):
    """Returns a layout of a tree in Euclidean space, by classical scaling, and the length of a unit."""
    squares = ph.embeddings.path_lengths(edges, lengths)[:n, :n].square()
    squares = squares - squares.mean(0) - squares.mean(1, keepdim=True) + squares.mean()
    values, vectors = torch.linalg.eigh(-squares / 2)
    points = vectors[:, -dim:] * values[-dim:].clamp(min=1e-6).sqrt()
    return points / points.std(), points.std()


def start_of(place, M, D, seen, pendant, dim):
    """Returns initial latents: a layout of the tree of neighbour joining, without its pendant branches if these are."""
    n = len(D)
    edges, lengths = ph.embeddings.neighbour_joining(completed(D, seen))
    leaves = edges[:, 1] < n
    a = torch.zeros(n, dtype=torch.float64).index_put((edges[leaves, 1],), lengths[leaves])
    z, unit = place(edges, lengths * ~(leaves & pendant), n, dim)
    spread = ph.geometry.log0(M, z).square().mean().sqrt()
    start = {"z": z, "c": unit, "s": spread, "sigma": torch.tensor(0.1)}
    return start | ({"a": a.clamp(min=0.02)} if pendant else {})


# ---- The picture ----

COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999", "#000000"]  # Okabe and Ito


def picture(ax, M, D, names, guide, star):
    """Draws the posterior, with radius = distance from the origin.

    Clouds are draws of the points, lines outwards pendant branches. Clusters of the completed matrix have colours.
    """
    pairs = tuple(torch.triu_indices(len(D), len(D), 1))
    tree = scipy.cluster.hierarchy.linkage(completed(D, D[pairs] > 0)[pairs], "average")
    groups = scipy.cluster.hierarchy.fcluster(tree, len(COLOURS), "maxclust") - 1
    median = guide.median()
    v = ph.geometry.log0(M, median["z"])
    clouds = ph.geometry.log0(M, torch.stack([guide()["z"] for _ in range(200)])).detach()
    ends = v * (1 + (median.get("a", torch.zeros(len(D))) / median["c"] / v.norm(dim=-1)).unsqueeze(-1))
    reach = 1.08 * ends.norm(dim=-1).max()
    order = torch.atan2(v[:, 1], v[:, 0]).argsort()
    turn = torch.atan2(*v[order[0]].flip(0)).item()
    ax.set_aspect("equal")
    ax.axis("off")
    for rank, node in enumerate(order.tolist()):
        angle = turn + 2 * math.pi * rank / len(D)
        place = reach * torch.tensor([math.cos(angle), math.sin(angle)])
        colour, flip = COLOURS[groups[node]], math.cos(angle) < 0
        style = {"alpha": 0.5, "markersize": 4} if node == star else {"alpha": 0.05, "markersize": 3}
        ax.plot(*clouds[:, node].T, ".", color=colour, markeredgewidth=0, **style)
        ax.plot(*torch.stack([v[node], ends[node]]).T, color=colour, linewidth=1.2)
        ax.plot(*torch.stack([ends[node], 0.98 * place]).T, color=colour, linewidth=0.4, linestyle=":")
        style = {"fontsize": 9, "weight": "bold"} if node == star else {"fontsize": 6.5}
        style |= {"rotation": math.degrees(angle) + 180 * flip, "rotation_mode": "anchor", "va": "center"}
        ax.text(*place, names[node], color=colour, ha="right" if flip else "left", **style)
