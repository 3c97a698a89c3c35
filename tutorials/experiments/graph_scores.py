"""Scores of generated graphs: validity of whole graphs first, then novelty, counts and distances of statistics.

A graph is a pair ``(num_nodes, edges)``, edges a long tensor ``(E, 2)``. The three distances are squared maximum mean
discrepancies (MMD) as in "Efficient Graph Generation with Graph Recurrent Attention Networks" (Liao et al., NeurIPS
2019): histograms of degrees, clustering coefficients and Laplacian spectra under a Gaussian kernel of their total
variation, all pairs of the two samples, each with itself too.
"""

import numpy as np

ROUNDS = 6  # of colour refinement, as in networkx's hash of graphs


def adjacency(graph):
    """Returns the 0/1 matrix of a graph."""
    nodes, edges = graph
    matrix = np.zeros((nodes, nodes))
    u, v = np.asarray(edges).reshape(-1, 2).T
    matrix[u, v] = matrix[v, u] = 1
    return matrix


def components(matrix):
    """Returns the components of a graph, the largest first, as arrays of nodes."""
    left, found = np.ones(len(matrix), dtype=bool), []
    for start in range(len(matrix)):
        if left[start]:
            reached = np.zeros(len(matrix), dtype=bool)
            edge = reached.copy()
            edge[start] = True
            while edge.any():
                reached |= edge
                edge = matrix[edge].any(0) & ~reached
            left &= ~reached
            found.append(np.flatnonzero(reached))
    return sorted(found, key=len, reverse=True)


def is_tree(matrix):
    """Tells whether a graph is connected and has one edge fewer than nodes."""
    return matrix.sum() == 2 * (len(matrix) - 1) and len(components(matrix)) == 1


def is_lobster(matrix):
    """Tells whether a graph is a tree that becomes a path when its leaves are taken away twice."""
    if not is_tree(matrix):
        return False
    for _ in range(2):
        kept = matrix.sum(0) > 1
        matrix = matrix[kept][:, kept]
    return not len(matrix) or matrix.sum(0).max() <= 2


VALID = {"trees": is_tree, "lobsters": is_lobster, "lobsters-geometric": is_lobster}


def signatures(matrices):
    """Returns the colours of each graph's nodes after rounds of Weisfeiler-Lehman refinement, sorted.

    Isomorphic graphs have equal signatures; of trees, others have different ones unless they agree in all
    neighbourhoods of radius :data:`ROUNDS`.
    """
    names, found = {}, []
    for matrix in matrices:
        near = [np.flatnonzero(row).tolist() for row in matrix]
        colours = [0] * len(matrix)
        for _ in range(ROUNDS):
            seen = [(colours[i], *sorted(colours[j] for j in near[i])) for i in range(len(matrix))]
            colours = [names.setdefault(each, len(names) + 1) for each in seen]
        found.append(tuple(sorted(colours)))
    return found


def triangles(matrix):
    """Returns the number of triangles."""
    return round(((matrix @ matrix) * matrix).sum() / 6)


def degrees(matrix):
    """Returns the histogram of degrees."""
    return np.bincount(matrix.sum(0).astype(int)) / len(matrix)


def clustering(matrix):
    """Returns the histogram of clustering coefficients, 100 bins on [0, 1]."""
    degree = matrix.sum(0)
    pairs = degree * (degree - 1)
    closed = ((matrix @ matrix) * matrix).sum(0)
    values = np.divide(closed, pairs, out=np.zeros(len(matrix)), where=pairs > 0)
    return np.histogram(values, bins=100, range=(0, 1))[0] / len(matrix)


def spectrum(matrix):
    """Returns the histogram of the normalised Laplacian's eigenvalues, 200 bins on [-1e-5, 2]."""
    degree = matrix.sum(0)
    scale = np.divide(1, np.sqrt(degree), out=np.zeros(len(matrix)), where=degree > 0)
    laplacian = np.diag((degree > 0).astype(float)) - scale[:, None] * matrix * scale
    values = np.linalg.eigvalsh(laplacian)
    return np.histogram(values.clip(-1e-5, 2), bins=200, range=(-1e-5, 2))[0] / len(matrix)


STATISTICS = {"degree": (degrees, 1.0), "clustering": (clustering, 0.1), "spectrum": (spectrum, 1.0)}  # with sigma


def mmd(ours, theirs, sigma):
    """Returns the squared MMD of two lists of histograms, padded with zeros to one length."""
    width = max(map(len, [*ours, *theirs]))
    a, b = (np.array([np.pad(row, (0, width - len(row))) for row in rows]) for rows in (ours, theirs))

    def kernel(x, y):  # row by row, to keep memory small
        variation = np.array([np.abs(row - y).sum(1) / 2 for row in x])
        return np.exp(-(variation**2) / (2 * sigma**2)).mean()

    return float(kernel(a, a) + kernel(b, b) - 2 * kernel(a, b))


def mmds(ours, theirs):
    """Returns the three MMDs of two lists of matrices."""
    return {
        name: mmd([statistic(m) for m in ours], [statistic(m) for m in theirs], sigma)
        for name, (statistic, sigma) in STATISTICS.items()
    }


def score(graphs, train, test, data, wanted=None):
    """Returns the scores of generated graphs; rates are fractions, counts means over graphs.

    ``wanted`` are the numbers of nodes that were asked for. ``vun`` is the rate of graphs that are valid, new to the
    training set, and the first of their kind among the samples.
    """
    ours, train, test = ([adjacency(graph) for graph in each] for each in (graphs, train, test))
    valid = [VALID[data](m) for m in ours]
    all_signatures = signatures([*train, *ours])
    known, found = set(all_signatures[: len(train)]), all_signatures[len(train) :]
    first = [found.index(signature) == i for i, signature in enumerate(found)]
    novel = [signature not in known for signature in found]
    parts = [components(m) for m in ours]
    largest = [m[np.ix_(part[0], part[0])] for m, part in zip(ours, parts, strict=True)]
    mean = lambda values: float(np.mean(values))  # noqa: E731
    return {
        "graphs": len(ours),
        "valid": mean(valid),
        "tree": mean([is_tree(m) for m in ours]),
        "vun": mean([all(each) for each in zip(valid, first, novel, strict=True)]),
        "unique": mean(first),
        "novel": mean(novel),
        "components": mean([len(part) for part in parts]),
        "disconnected": mean([len(part) > 1 for part in parts]),
        "cyclic": mean([m.sum() / 2 > len(m) - len(part) for m, part in zip(ours, parts, strict=True)]),
        "nodes": mean([len(m) for m in ours]),
        "wanted": mean(wanted if wanted is not None else [len(m) for m in ours]),
        "triangles": mean([triangles(m) for m in ours]),
        "largest_valid": mean([VALID[data](m) for m in largest]),
        "largest_nodes": mean([len(m) for m in largest]),
        "mmd": mmds(ours, test),
        "floor": mmds(train, test),
    }
