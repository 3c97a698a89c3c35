"""Matrices of distances for the tutorial and the experiment: read from a file, or made by a seed."""

import csv
import re

import numpy as np
import scipy.sparse.csgraph
import torch

import pyro_hyperbolic as ph


def newick(text):
    """Returns the distances between the leaves of a tree in Newick's format, and their names."""
    edges, names, parents, node = [], {}, [0], 0
    for mark, name, length in re.findall(r"([(),])|'?([^(),:;'\s][^(),:;']*)'?|:\s*([^(),:;\s]+)", text):
        if mark and mark in "(,":
            parents += [node] if mark == "(" else []
            node = max((child for _, child, _ in edges), default=0) + 1
            edges.append([parents[-1], node, 0.0])
        elif mark:
            node = parents.pop()
        elif length:
            edges[node - 1][2] = float(length)
        else:
            names[node] = name
    start, end, lengths = np.array(edges).T
    size = len(edges) + 1
    graph = scipy.sparse.coo_matrix((lengths, (start.astype(int), end.astype(int))), (size, size))
    leaves = [node for node in range(1, size) if node not in start]
    distances = scipy.sparse.csgraph.shortest_path(graph, directed=False, indices=leaves)[:, leaves]
    return distances, [names.get(node, str(node)) for node in leaves]


def made_by(seed, n=40):
    """Returns noisy distances between the leaves of a random tree."""
    generator = np.random.default_rng(seed)
    D, depth, lineages = np.zeros((n, n)), 0.0, [[i] for i in range(n)]
    while len(lineages) > 1:
        depth += generator.exponential(1 / len(lineages))
        first, second = (lineages.pop(generator.integers(len(lineages))) for _ in range(2))
        D[np.ix_(first, second)] = depth
        lineages.append(first + second)
    noise = np.exp(0.03 * np.triu(generator.standard_normal((n, n)), 1))
    return (D + D.T) * noise * noise.T, [f"species {i}" for i in range(n)]


def read(path, seed=0):
    """Returns a matrix of distances, NaN where one is missing, and the names; without a path one made by the seed."""
    if path is None:
        return made_by(seed)
    if path.suffix == ".npz":
        with np.load(path) as file:
            return file["distances"].astype(float), [str(name).strip() for name in file["names"]]
    if path.suffix == ".csv":
        head, *rows = csv.reader(path.open())
        rows = [row[-len(rows) :] for row in rows]  # a first column may repeat the names
        return np.array([[float(cell or "nan") for cell in row] for row in rows]), head[-len(rows) :]
    return newick(path.read_text())


def hide(D, share, seed):
    """Returns which pairs ``i < j``, in the order of ``triu_indices``, are seen, and which of the known are hidden.

    A distance of zero has no logarithm; it counts as missing.
    """
    known = np.flatnonzero(D[np.triu_indices(len(D), 1)] > 0)
    hidden = np.random.default_rng(seed).permutation(known)[: round(share * len(known))]
    seen, held_out = np.zeros((2, len(D) * (len(D) - 1) // 2), bool)
    seen[known], seen[hidden], held_out[hidden] = True, False, True
    return seen, held_out


def completed(D):
    """Returns the matrix with its gaps (NaN) filled by four points, or the shortest path where four are not known."""
    paths = scipy.sparse.csgraph.shortest_path(np.nan_to_num(D), directed=False)
    full = D.copy()
    np.fill_diagonal(full, 0.0)
    for i, j in np.argwhere(np.isnan(D)):
        k = np.flatnonzero(~np.isnan(D[i] + D[j]))
        one = D[i, k][:, None] + D[j, k]
        bounds = np.maximum(one, one.T) - D[np.ix_(k, k)]
        if i < j:
            full[i, j] = full[j, i] = min(np.nanmin(bounds, initial=np.inf), paths[i, j])
    return full


def start_of(D, tree, spread=2.0):
    """Returns initial latents from classical scaling of a completed matrix of mean one."""
    a = np.sort(D + 2 * D.max() * np.eye(len(D)), 1)[:, 0] / 2 * (0.8 if tree.pendant else 0.0)
    rest = (D - a - a[:, None]) * (1 - np.eye(len(D)))
    centre = np.eye(len(D)) - 1 / len(D)
    values, vectors = np.linalg.eigh(-centre @ rest**2 @ centre / 2)
    v = torch.tensor(vectors[:, -tree.dim :] * np.sqrt(np.maximum(values[-tree.dim :], 1e-3)))
    c = v.std() / spread
    start = {"z": ph.geometry.exp0(tree.M, v / c), "c": c, "s": (v / c).square().mean().sqrt()}
    return {**start, "sigma": torch.tensor(0.1), **({"a": torch.tensor(a).clamp(min=0.01)} if tree.pendant else {})}
