r"""Random trees and lobsters.

An edge list is a long tensor ``(E, 2)`` of an undirected graph without loops: ``u < v`` in each row, rows sorted and
distinct, nodes numbered from 0.
"""

import heapq

import torch
from torch import Tensor

from pyro_hyperbolic.geometry import checks

__all__ = ["lobsters", "random_trees"]

#: Expected backbone, and least and largest number of nodes, of the lobsters of GRAN.
_BACKBONE, _SMALLEST, _LARGEST = 80, 10, 100
#: Lobsters rejected in a row before giving up. By default 75% ("one") or 94% ("geometric") are rejected.
_TRIES = 4_000


def random_trees(seed: int, count: int, nodes: tuple[int, int] = (20, 99)) -> list[Tensor]:
    r"""Draws trees uniformly among the :math:`n^{n-2}` labelled trees of ``n`` nodes, by Prüfer sequences.

    The size ``n`` of each tree is uniform in ``nodes``. The first trees are the same for every ``count``. Without its
    labels such a tree is a Galton-Watson tree with Poisson offspring, conditioned on ``n``.

    Args:
        seed: Seed of the generator.
        count: Number of trees.
        nodes: Least and largest number of nodes, both inclusive, at least 2.

    Returns:
        A list of edge lists, long tensors ``(n - 1, 2)``.

    Raises:
        TypeError: If an argument is not an integer, or ``nodes`` not a pair of them.
        ValueError: If an argument is out of its range.

    References:
        Heinz Prüfer, *Neuer Beweis eines Satzes über Permutationen*, Archiv der Mathematik und Physik 27, 1918.

    Example:
        >>> [tree.tolist() for tree in random_trees(seed=0, count=2, nodes=(2, 4))]
        [[[0, 3], [1, 2], [1, 3]], [[0, 1]]]
        >>> max(len(tree) + 1 for tree in random_trees(seed=0, count=300))
        99
    """
    generator = generator_of(seed, count)
    if not isinstance(nodes, (tuple, list)) or len(nodes) != 2:
        raise TypeError(f"nodes = {checks.shown(nodes)}, but must be a pair (least, largest); pass (20, 99).")
    least, largest = nodes
    checks.check_count("the least number of nodes", least, 2, "a tree with an edge has 2 nodes")
    checks.check_count("the largest number of nodes", largest, least, f"the least number is {least}")
    trees = []
    for _ in range(count):
        n = int(torch.randint(least, largest + 1, (), generator=generator))
        trees.append(_decoded(torch.randint(n, (n - 2,), generator=generator).tolist()))
    return trees


def _decoded(sequence: list[int]) -> Tensor:
    """Returns the tree of a Prüfer sequence: each entry is the neighbour of the least leaf that is left."""
    degrees = [1] * (len(sequence) + 2)
    for node in sequence:
        degrees[node] += 1
    leaves, edges = [node for node, degree in enumerate(degrees) if degree == 1], []  # sorted, hence a heap
    for node in sequence:
        edges.append((heapq.heappop(leaves), node))
        degrees[node] -= 1
        if degrees[node] == 1:
            heapq.heappush(leaves, node)
    return sorted_edges(torch.tensor([*edges, tuple(leaves)]))


def lobsters(seed: int, count: int, p1: float = 0.7, p2: float = 0.7, legs: str = "one") -> list[Tensor]:
    r"""Draws lobsters: a path of :math:`\lfloor 160\,U + 1/2 \rfloor` nodes, legs on it, leaves on the legs.

    U is uniform on [0, 1). Lobsters outside 10 to 100 nodes are rejected, as in GRAN's data. A lobster is a tree that
    becomes a path if its leaves are removed twice. The two laws of ``legs`` are those of two versions of networkx:

    - ``"one"``: networkx 2.4, the law of the paper and of GRAN. A node of the path has a leg with probability ``p1``,
      and a leg a leaf with probability ``p2``. The largest degree is 3.
    - ``"geometric"``: networkx 3. Legs and leaves are added *while* a coin of that probability shows heads, so that
      :math:`P(L \ge l) = p^l`. Paths are shorter, and the largest degree is about 10, in a hundred lobsters 20.

    The laws are networkx's, the random numbers are not: a seed draws other lobsters. Nodes of the path come first,
    in its order, then legs, then leaves. The first lobsters are the same for every ``count``.

    Args:
        seed: Seed of the generator.
        count: Number of lobsters.
        p1: Probability of a (further) leg of a node of the path, in [0, 1).
        p2: Probability of a (further) leaf of a leg, in [0, 1).
        legs: ``"one"`` or ``"geometric"``.

    Returns:
        A list of edge lists, long tensors ``(E, 2)``; each lobster has ``E + 1`` nodes.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If an argument is out of its range, or nearly every lobster is rejected.

    References:
        Renjie Liao, Yujia Li, Yang Song, Shenlong Wang, William L. Hamilton, David Duvenaud, Raquel Urtasun, Richard
        Zemel, *Efficient Graph Generation with Graph Recurrent Attention Networks*, 2019, arXiv:1910.00760.

    Example:
        >>> for legs in ("one", "geometric"):
        ...     max(int(lobster.flatten().bincount().max()) for lobster in lobsters(seed=0, count=100, legs=legs))
        3
        18
    """
    generator = generator_of(seed, count)
    p1, p2 = (checks.check_number(name, p, "it is a probability") for name, p in (("p1", p1), ("p2", p2)))
    for name, p in (("p1", p1), ("p2", p2)):
        if not 0 <= p < 1:
            raise ValueError(f"{name} = {p}, but must be at least 0 and below 1; the paper has 0.7.")
    if not isinstance(legs, str) or legs not in ("one", "geometric"):
        raise ValueError(f'legs = {checks.shown(legs)}, but must be "one" (networkx 2.4) or "geometric" (networkx 3).')
    found: list[Tensor] = []
    rejected = 0
    while len(found) < count:
        lobster = _lobster(p1, p2, legs == "one", generator)
        if lobster is not None:
            found.append(lobster)
        rejected = 0 if lobster is not None else rejected + 1
        if rejected == _TRIES:
            raise ValueError(
                f"p1 = {p1} and p2 = {p2} have drawn {_TRIES} lobsters outside {_SMALLEST} to {_LARGEST} nodes; use "
                f"smaller probabilities."
            )
    return found


def _lobster(p1: float, p2: float, one: bool, generator: torch.Generator) -> Tensor | None:
    """Draws a lobster, or returns None if it has too few or too many nodes."""
    spine = int(2 * _BACKBONE * torch.rand((), generator=generator, dtype=torch.float64).item() + 0.5)
    legs = _counts(spine, p1, one, generator)
    if spine + legs.sum() > _LARGEST:  # before leaves are drawn, of which there could be too many for memory
        return None
    leaves = _counts(int(legs.sum()), p2, one, generator)
    size = spine + len(leaves) + int(leaves.sum())
    if not _SMALLEST <= size <= _LARGEST:
        return None
    node = torch.arange(size)
    parents = torch.cat(
        [node[: spine - 1], node[:spine].repeat_interleave(legs), node[spine:][: len(leaves)].repeat_interleave(leaves)]
    )
    return sorted_edges(torch.stack([parents, node[1:]], dim=-1))


def _counts(number: int, p: float, one: bool, generator: torch.Generator) -> Tensor:
    """Draws counts with ``P(L >= l) = p^l``, or the smaller of such a count and one."""
    uniform = torch.rand(number, generator=generator, dtype=torch.float64)
    counts = (torch.log1p(-uniform) / torch.tensor(p, dtype=torch.float64).log()).floor()
    return counts.clamp(max=1 if one else _LARGEST + 1).long()  # more are rejected in any case


def sorted_edges(edges: Tensor) -> Tensor:
    """Returns distinct edges with ``u < v``, sorted."""
    return edges.sort(-1)[0].unique(dim=0)


def generator_of(seed: int, count: int = 0) -> torch.Generator:
    checks.check_count("seed", seed, -(2**63), "it is the seed of the generator")
    if seed >= 2**64:
        raise ValueError(f"seed = {seed}, but must be at most {2**64 - 1}; take it modulo 2**64.")
    checks.check_count("count", count, 0, "it is the number of graphs")
    return torch.Generator().manual_seed(seed)
