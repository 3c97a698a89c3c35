r"""Trees from distances, distances from trees, and matrices of distances with missing entries."""

import numpy as np
import torch
from torch import Tensor

from pyro_hyperbolic.geometry import checks
from pyro_hyperbolic.geometry.checks import Array

from .rooted import edges_of, lengths_of, rooted

__all__ = ["complete_distances", "neighbour_joining", "path_lengths"]


def neighbour_joining(D: Array) -> tuple[Tensor, Tensor]:
    r"""Returns the tree that joins the pair of least :math:`(m - 2) D_{ij} - \sum_k D_{ik} - \sum_k D_{jk}` in turn.

    With m nodes left, the pair is joined to a new node, at distances :math:`\tfrac12 D_{ij} \pm \tfrac{1}{2 (m - 2)}
    \sum_k (D_{ik} - D_{jk})`. The distance from the new node to k is :math:`(D_{ik} + D_{jk} - D_{ij}) / 2`. If D are
    the path lengths of a tree, this is that tree.

    A negative length is set to 0, and its sibling gets :math:`D_{ij}`, so that the path between the pair keeps its
    length, if that is not negative itself. Takes time :math:`O(n^3)`: 0.01 s for n = 200, 2 s for n = 1000.

    Args:
        D: Distances, shape ``(n, n)``, symmetric with a zero diagonal.

    Returns:
        Edges ``(2n - 3, 2)``, long, each from a node to one that it was joined from: leaves are 0 to n - 1, in the
        order of ``D``, inner nodes n to 2n - 3. And their lengths ``(2n - 3,)``, float64. For n = 2 one edge.

    Raises:
        TypeError: If ``D`` is not a matrix of real numbers.
        ValueError: If its shape is not ``(n, n)`` with n >= 2, an entry is negative or not finite, it is not symmetric,
            or its diagonal is not zero.

    References:
        N. Saitou, M. Nei, *The Neighbor-joining Method: A New Method for Reconstructing Phylogenetic Trees*, 1987.
        J. A. Studier, K. J. Keppler, *A Note on the Neighbor-Joining Algorithm of Saitou and Nei*, 1988.
        M. K. Kuhner, J. Felsenstein, *A Simulation Comparison of Phylogeny Algorithms under Equal and Unequal
        Evolutionary Rates*, 1994 (negative lengths).

    Example:
        Leaves 0, 1 and 2, 3 are cherries, with an edge of length 4 between them:

        >>> D = torch.tensor([[0.0, 3.0, 6.0, 7.0], [3.0, 0.0, 7.0, 8.0], [6.0, 7.0, 0.0, 3.0], [7.0, 8.0, 3.0, 0.0]])
        >>> edges, lengths = neighbour_joining(D)
        >>> edges.tolist()
        [[4, 0], [4, 1], [5, 4], [5, 3], [5, 2]]
        >>> lengths
        tensor([1., 2., 4., 2., 1.], dtype=torch.float64)
    """
    D = _distances(*_square(D), "fill in missing ones with complete_distances(D, observed)")
    n = len(D)
    nodes = np.arange(n)
    edges: list[tuple[int, int]] = []
    lengths: list[float] = []
    if n == 2:
        edges, lengths = [(0, 1)], [D[0, 1]]
    while (m := len(D)) > 3:
        totals = D.sum(0)
        criterion = (m - 2) * D - totals - totals[:, None]
        np.fill_diagonal(criterion, np.inf)
        i, j = sorted(divmod(int(criterion.argmin()), m))
        path = max(D[i, j], 0.0)
        length = min(max(D[i, j] / 2 + (totals[i] - totals[j]) / (2 * (m - 2)), 0.0), path)
        new = 2 * n - m
        edges += [(new, nodes[i]), (new, nodes[j])]
        lengths += [length, path - length]
        # The new node takes the place of i, the last node that of j.
        D[i] = D[:, i] = (D[i] + D[j] - D[i, j]) / 2
        D[i, i], nodes[i] = 0.0, new
        D[j], D[:, j], nodes[j] = D[-1], D[:, -1], nodes[-1]
        D[j, j] = 0.0
        D, nodes = D[:-1, :-1], nodes[:-1]
    if m == 3:
        edges += [(2 * n - 3, int(node)) for node in nodes]
        lengths += [max(D[i, j] + D[i, k] - D[j, k], 0.0) / 2 for i, j, k in ((0, 1, 2), (1, 0, 2), (2, 0, 1))]
    return torch.tensor(np.array(edges)), torch.tensor(np.array(lengths))


def path_lengths(edges: Array, lengths: Array | None = None) -> Tensor:
    r"""Returns the lengths of the paths between all nodes of a tree, :math:`D_{ij} = \sum_{e \in i - j} l_e`.

    The path lengths of ``neighbour_joining(complete_distances(D))`` predict missing distances without any model. They
    are more accurate than the completed matrix, if distances are measured with noise.

    Args:
        edges: Pairs of nodes, numbered from 0, shape ``(N - 1, 2)``, integers.
        lengths: Lengths of edges, shape ``(N - 1,)``; 1 by default.

    Returns:
        Tensor of shape ``(N, N)``, float64. In the order of :func:`neighbour_joining` the leaves are first.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the edges are not those of one tree on the nodes 0 to N - 1, or a length is negative or not
            finite.

    Example:
        >>> path_lengths([[0, 1], [2, 1]], [1.0, 2.5])
        tensor([[0.0000, 1.0000, 3.5000],
                [1.0000, 0.0000, 2.5000],
                [3.5000, 2.5000, 0.0000]], dtype=torch.float64)
    """
    pairs = edges_of(edges)
    tree = rooted(pairs, lengths_of(lengths, len(pairs)), 0)
    found = np.zeros((len(tree.order), len(tree.order)))
    for rank in range(1, len(tree.order)):
        above = tree.parent[rank]
        found[rank, :rank] = found[:rank, rank] = found[above, :rank] + tree.length[rank]
    back = np.argsort(tree.order)
    return torch.from_numpy(found[np.ix_(back, back)])


def complete_distances(D: Array, observed: Array | None = None) -> Tensor:
    r"""Fills in :math:`\min_{k, l} \max(D_{ik} + D_{jl}, D_{il} + D_{jk}) - D_{kl}`, from four-point conditions.

    On a tree no distance is larger than this bound, and it is equal if the paths i - j and k - l meet. Here k and l run
    over the nodes with all five distances, k = l included, which is the triangle inequality. What has no such nodes is
    filled in a next round, from what was filled in before. A negative bound is set to 0.

    Args:
        D: Distances, shape ``(n, n)``, symmetric with a zero diagonal. Missing entries may have any value; those of the
            diagonal are 0.
        observed: Which entries are observed, shape ``(n, n)``, booleans, symmetric; by default those that are not NaN.

    Returns:
        The matrix without holes, shape ``(n, n)``, float64; observed entries are unchanged.

    Raises:
        TypeError: If ``D`` is not a matrix of real numbers, or ``observed`` not of booleans.
        ValueError: If the shapes differ, observed entries are not symmetric distances, or the graph of observed pairs
            is not connected.

    References:
        Peter Buneman, *A Note on the Metric Properties of Trees*, 1974 (the four-point condition).

    Example:
        Leaves 0, 1 and 2, 3 are cherries, with an edge of length 4 between them:

        >>> D = torch.tensor([[0.0, 3.0, 6.0, torch.nan], [3.0, 0.0, 7.0, 8.0], [6.0, 7.0, 0.0, 3.0],
        ...                   [torch.nan, 8.0, 3.0, 0.0]])
        >>> complete_distances(D)[0]
        tensor([0., 3., 6., 7.], dtype=torch.float64)
    """
    values, eps = _square(D)
    if observed is None:
        known = ~np.isnan(values)
    else:
        mask = checks.as_tensor(observed)
        if mask is None or mask.dtype != torch.bool:
            raise TypeError(f"observed = {checks.shown(observed)}, but must be booleans; compare it with 0.")
        if mask.shape != values.shape:
            raise ValueError(f"observed has shape {tuple(mask.shape)}, but must have that of D, {values.shape}.")
        known = mask.cpu().numpy().copy()
    if bool((known != known.T).any()):
        raise ValueError("observed is not symmetric, but distances are; pass observed & observed.T.")
    values = _distances(np.where(known, values, 0.0), eps, "of what is missing set observed to False")
    np.fill_diagonal(known, True)
    while not known.all():
        # What is missing is 0 here, which bounds no better than the triangle inequality does.
        subtracted = values.copy()
        filled = known.copy()
        for i, j in np.argwhere(np.triu(~known)):
            both = np.flatnonzero(known[i] & known[j])
            if len(both):
                sums = values[i, both, None] + values[j, both]
                bound = np.maximum(sums, sums.T) - subtracted[np.ix_(both, both)]
                values[i, j] = values[j, i] = max(bound.min(), 0.0)
                filled[i, j] = filled[j, i] = True
        if bool((filled == known).all()):
            i, j = np.argwhere(~known)[0]
            raise ValueError(
                f"no chain of observed distances joins {i} and {j}, so the distance between them can be anything; "
                f"observe one between their groups, or complete each group by itself."
            )
        known = filled
    return torch.from_numpy(values)


def _square(D: Array) -> tuple[np.ndarray, float]:
    """Returns a square matrix in float64, a copy, and the rounding error of its numbers."""
    given = checks.as_real("D", D, "pass a matrix of distances (n, n)").detach().cpu()
    eps, values = torch.finfo(given.dtype if given.is_floating_point() else torch.float64).eps, given.double()
    if values.dim() != 2 or not values.size(0) == values.size(1) > 1:
        raise ValueError(f"D has shape {tuple(values.shape)}, but must be distances (n, n) with n >= 2.")
    copy: np.ndarray = values.numpy().copy()
    return copy, eps


def _distances(values: np.ndarray, eps: float, remedy: str) -> np.ndarray:
    """Returns distances that are exactly symmetric, after a check to that rounding error."""
    wrong = ~((values >= 0) & np.isfinite(values))
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        raise ValueError(f"D[{i}, {j}] = {values[i, j]:.6g}, but distances must be >= 0 and finite; {remedy}.")
    bound = 64 * eps * values.max()  # the two halves may have been rounded differently
    if np.abs(values.diagonal()).max() > bound:
        raise ValueError(f"D has {np.abs(values.diagonal()).max():.6g} on its diagonal, but d(x, x) = 0; set it to 0.")
    skew = np.abs(values - values.T)
    if skew.max() > bound:
        i, j = np.unravel_index(skew.argmax(), skew.shape)
        raise ValueError(
            f"D[{i}, {j}] = {values[i, j]:.6g} and D[{j}, {i}] = {values[j, i]:.6g}, but distances are symmetric; "
            f"pass (D + D.T) / 2."
        )
    values = (values + values.T) / 2
    np.fill_diagonal(values, 0.0)
    return values
