"""Rooted trees as arrays, in breadth-first order."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order

from pyro_hyperbolic.geometry import checks
from pyro_hyperbolic.geometry.checks import Array

__all__ = ["Rooted", "adjacency", "centre", "edges_of", "lengths_of", "rooted"]


def edges_of(edges: Array) -> np.ndarray:
    """Returns edges as an integer array, after a check."""
    remedy = "pass integer pairs (E, 2), of networkx list(nx.convert_node_labels_to_integers(graph).edges)"
    pairs = checks.as_real("edges", edges, remedy)
    if pairs.numel() == 0:
        pairs = pairs.reshape(-1, 2).long()
    if pairs.dim() != 2 or pairs.size(-1) != 2 or pairs.is_floating_point():
        remedy = "use edges.long()" if pairs.is_floating_point() else "transpose a (2, E) edge_index"
        raise ValueError(
            f"edges are {pairs.dtype} of shape {tuple(pairs.shape)}, but must be integer pairs (E, 2); {remedy}."
        )
    found: np.ndarray = pairs.detach().cpu().numpy().astype(np.int64)
    return found


def lengths_of(lengths: Array | None, number: int) -> np.ndarray:
    """Returns lengths of edges in float64, after a check; 1 by default."""
    if lengths is None:
        return np.ones(number)
    found = checks.as_real("lengths", lengths, "give each edge its length").detach().cpu().double()
    if found.shape != (number,):
        raise ValueError(f"lengths has shape {tuple(found.shape)}, but there are {number} edges; give each its length.")
    wrong = ~((found >= 0) & found.isfinite())
    if bool(wrong.any()):
        raise ValueError(f"lengths holds {found[wrong][0].item():.6g}, but must be >= 0 and finite; replace it by 0.")
    values: np.ndarray = found.numpy()
    return values


class Rooted(NamedTuple):
    """A rooted tree, its nodes in breadth-first order: the children of a node are neighbours in that order.

    Attributes:
        order: The node at each rank, shape ``(N,)``.
        parent: Ranks of parents; the root's is 0.
        length: Lengths of the edges to parents; the root's is 0.
        children: Numbers of children.
        first: Ranks of the first child.
        levels: Ranks ``(start, stop)`` of the nodes at each depth.
    """

    order: np.ndarray
    parent: np.ndarray
    length: np.ndarray
    children: np.ndarray
    first: np.ndarray
    levels: list[tuple[int, int]]

    def sums_behind(self, values: np.ndarray) -> np.ndarray:
        """Returns the sums over each node and its descendants."""
        sums = values.copy()
        for start, stop in self.levels[:0:-1]:
            np.add.at(sums, self.parent[start:stop], sums[start:stop])
        return sums

    def depths(self) -> np.ndarray:
        """Returns the lengths of the paths from the root."""
        depth = np.zeros(len(self.order))
        for start, stop in self.levels[1:]:
            depth[start:stop] = depth[self.parent[start:stop]] + self.length[start:stop]
        return depth


def rooted(edges: np.ndarray, lengths: np.ndarray, root: int) -> Rooted:
    """Returns the tree of the edges, or raises."""
    size = len(edges) + 1
    if len(edges) and not 0 <= edges.min() <= edges.max() < size:
        raise ValueError(
            f"edges name the nodes {edges.min()} to {edges.max()}, but {len(edges)} edges of a tree have the nodes 0 "
            f"to {size - 1}; number them from 0, and leave no cycle and no gap."
        )
    order, before = breadth_first_order(adjacency(edges, size), root)
    if len(order) < size:
        raise ValueError(
            f"edges join {len(order)} of {size} nodes to node {root}, so they hold a cycle, a loop or an edge twice; "
            f"pass the N - 1 edges of a tree, such as a spanning tree."
        )
    rank = np.empty(size, int)
    rank[order] = np.arange(size)
    parent = rank[np.maximum(before, 0)][order]
    parent[0] = 0
    lower = rank[edges].max(-1)  # the child of each edge
    length = np.zeros(size)
    length[lower] = lengths
    count = np.bincount(parent[1:], minlength=size)
    levels, stop = [(0, 1)], 1
    while stop < size:
        start, stop = stop, stop + int(count[slice(*levels[-1])].sum())
        levels.append((start, stop))
    return Rooted(order, parent, length, count, 1 + np.cumsum(count) - count, levels)


def adjacency(edges: np.ndarray, size: int) -> csr_array:
    """Returns the symmetric adjacency matrix of a graph."""
    ends = np.concatenate([edges, edges[:, ::-1]]).T
    return coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(size, size)).tocsr()


def centre(edges: np.ndarray, lengths: np.ndarray) -> int:
    """Returns the node nearest to the middle of the longest path."""
    tree = rooted(edges, lengths, 0)
    tree = rooted(edges, lengths, int(tree.order[tree.depths().argmax()]))  # one end of the longest path
    depth = tree.depths()
    path = [int(depth.argmax())]
    while path[-1]:
        path.append(int(tree.parent[path[-1]]))
    return int(tree.order[path[np.abs(depth[path] - depth[path[0]] / 2).argmin()]])
