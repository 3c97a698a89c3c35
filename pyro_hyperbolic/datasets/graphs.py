r"""Graphs for link prediction and generation: random trees and lobsters, files of edges, and splits of edges.

An edge list is a long tensor ``(E, 2)`` of an undirected graph without loops: ``u < v`` in each row, rows sorted and
distinct, nodes numbered from 0.
"""

import heapq
import os
import re
from math import floor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_hyperbolic.geometry import checks

__all__ = ["EdgeSplit", "edge_list", "lobsters", "random_trees", "split_edges"]

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
    generator = _generator(seed, count)
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
    return _sorted(torch.tensor([*edges, tuple(leaves)]))


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
    generator = _generator(seed, count)
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
    return _sorted(torch.stack([parents, node[1:]], dim=-1))


def _counts(number: int, p: float, one: bool, generator: torch.Generator) -> Tensor:
    """Draws counts with ``P(L >= l) = p^l``, or the smaller of such a count and one."""
    uniform = torch.rand(number, generator=generator, dtype=torch.float64)
    counts = (torch.log1p(-uniform) / torch.tensor(p, dtype=torch.float64).log()).floor()
    return counts.clamp(max=1 if one else _LARGEST + 1).long()  # more are rejected in any case


def edge_list(path: str | os.PathLike[str]) -> Tensor:
    r"""Reads the edges :math:`u < v` of an undirected graph from a csv file, one ``u,v`` in each line.

    A first line of two names, such as ``source,target``, is skipped, and so are blank lines. An edge may be listed in
    either order or in both, and more than once; it is returned once. A loop is an error, because no model of edges
    here has loops.

    Args:
        path: Path of the file.

    Returns:
        The edges, sorted, a long tensor ``(E, 2)``.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If ``path`` is not a path.
        ValueError: If a line is not two nodes, integers from 0, or is a loop; or the file has no edges.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "graph.csv"
        ...     _ = path.write_text("source,target\n2,0\n0,1\n1,0\n")
        ...     edge_list(path)
        tensor([[0, 1],
                [0, 2]])
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path = {checks.shown(path)}, but must be a string or a pathlib.Path.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file; give the path of a csv file of edges u,v.")
    edges = []
    # Undecodable bytes make a line that is refused below, with its number.
    for number, line in enumerate(Path(path).read_text("utf-8-sig", errors="replace").splitlines(), 1):
        names = [field.strip("\"'# ")[:1].isalpha() for field in line.split(",")]
        if not line.strip() or (number == 1 and len(names) > 1 and all(names)):
            continue
        match = re.fullmatch(r"\s*(\d{1,18})\s*,\s*(\d{1,18})\s*", line)
        if match is None or int(match[1]) == int(match[2]):
            fault = "two nodes u,v, integers from 0; number the nodes" if match is None else "a loop; remove it"
            raise ValueError(f"line {number} of {path} is {checks.shown(line)}, {'not ' * (match is None)}{fault}.")
        edges.append((int(match[1]), int(match[2])))
    if not edges:
        raise ValueError(f"{path} has no edges; it must have lines u,v.")
    return _sorted(torch.tensor(edges))


class EdgeSplit(NamedTuple):
    r"""Edges to train, validate and test a model of links, and pairs without an edge; made by :func:`split_edges`.

    Each is a long tensor ``(*, 2)`` of pairs :math:`u < v`.

    Attributes:
        train: Edges to learn from, sorted.
        val: Edges to select a model by, in random order.
        test: Edges to test on, in random order.
        val_negatives: As many pairs without an edge as ``val`` has edges.
        test_negatives: As many pairs without an edge as ``test`` has edges, other ones.
    """

    train: Tensor
    val: Tensor
    test: Tensor
    val_negatives: Tensor
    test_negatives: Tensor


def split_edges(
    edges: Tensor, num_nodes: int, seed: int, val: float = 0.05, test: float = 0.1, matched: bool = False
) -> EdgeSplit:
    r"""Splits E edges at random: :math:`\lfloor v E \rfloor` to validate, :math:`\lfloor t E \rfloor` to test on.

    Negatives are pairs :math:`i \ne j` without an edge in the whole graph, none of them twice. By default they are
    uniform among all such pairs. On graphs with many leaves the degrees alone then tell most edges from negatives. With
    ``matched=True`` row ``i`` of ``val_negatives`` and ``test_negatives`` is made from edge ``i`` of ``val`` and
    ``test``: the end of the larger *training* degree (a coin decides ties) is replaced by a random node of the same
    training degree; if no such node is free, of the nearest degree with a free node. The edges of a split are the same
    with and without matching, and depend on the set of edges, not on their order.

    Args:
        edges: Edges in either order, integers ``(E, 2)``.
        num_nodes: Number of nodes of the graph.
        seed: Seed of the generator.
        val: Fraction of edges to validate on; their number is rounded down.
        test: Fraction of edges to test on; their number is rounded down.
        matched: Whether negatives have the training degrees of the edges that are held out.

    Returns:
        An :class:`EdgeSplit`.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If a node is not below ``num_nodes``, an edge is a loop or listed twice, the fractions are negative
            or leave no edge to train on, or there are too few pairs without an edge.

    References:
        Thomas N. Kipf, Max Welling, *Variational Graph Auto-Encoders*, 2016, arXiv:1611.07308.

    Example:
        >>> ring = torch.stack([torch.arange(40), (torch.arange(40) + 1) % 40], dim=-1)
        >>> split = split_edges(ring, 40, seed=0)
        >>> [len(part) for part in split]
        [34, 2, 4, 2, 4]
    """
    generator = _generator(seed)
    checks.check_count("num_nodes", num_nodes, 2, "it is the number of nodes of the graph")
    if not isinstance(matched, bool):
        raise TypeError(f"matched = {checks.shown(matched)}, but must be True or False.")
    edges = _checked(edges, num_nodes)
    held_out = {}
    for name, share in (("val", val), ("test", test)):
        share = checks.check_number(name, share, "it is a fraction of the edges")
        if share < 0:
            raise ValueError(f"{name} = {share}, but must be at least 0; it is a fraction of the edges.")
        # Rounded before floor: 0.29 * 100 is 28.999999999999996.
        held_out[name] = floor(round(share * len(edges), 6))
    number = sum(held_out.values())
    if number >= len(edges):
        raise ValueError(
            f"val = {val} and test = {test} hold out {number} of {len(edges)} edges, but at least one must be left to "
            f"train on; use smaller fractions."
        )
    free = num_nodes * (num_nodes - 1) // 2 - len(edges)
    if number > free:
        raise ValueError(
            f"val = {val} and test = {test} need {number} pairs without an edge, but the graph has {free}; use smaller "
            f"fractions."
        )
    order = torch.randperm(len(edges), generator=generator)
    out, train = edges[order[:number]], edges[order[number:].sort()[0]]
    if matched:
        negatives = _matched_negatives(out, edges, train.flatten().bincount(minlength=num_nodes), generator)
    else:
        negatives = _uniform_negatives(number, edges, num_nodes, generator)
    n = held_out["val"]
    return EdgeSplit(train, out[:n], out[n:], negatives[:n], negatives[n:])


def _uniform_negatives(number: int, edges: Tensor, num_nodes: int, generator: torch.Generator) -> Tensor:
    """Draws distinct pairs without an edge, in random order."""
    node = torch.arange(num_nodes)
    first = node * (node - 1) // 2  # pair (u, v) has the number first[v] + u, from 0
    taken = (first[edges[:, 1]] + edges[:, 0]).sort()[0]
    ranks = _distinct(number, int(first[-1]) + num_nodes - 1 - len(edges), generator)
    # The rank of a pair among those without an edge is its number minus the edges before it.
    pairs = ranks + torch.searchsorted(taken - torch.arange(len(taken)), ranks, right=True)
    v = torch.searchsorted(first, pairs, right=True) - 1
    return torch.stack([pairs - first[v], v], dim=-1)


def _distinct(number: int, below: int, generator: torch.Generator) -> Tensor:
    """Draws distinct integers in ``[0, below)``, in random order, without memory for all of them."""
    if below < 4 * number:
        return torch.randperm(below, generator=generator)[:number]
    found = torch.empty(0, dtype=torch.long)
    while len(found) < number:
        found = torch.cat([found, torch.randint(below, (2 * number,), generator=generator)]).unique()
    return found[torch.randperm(len(found), generator=generator)[:number]]


def _matched_negatives(held_out: Tensor, edges: Tensor, degrees: Tensor, generator: torch.Generator) -> Tensor:
    """Draws, for each edge, a pair without an edge whose better connected end is another node of that degree."""
    taken: list[list[int]] = [[node] for node in range(len(degrees))]  # what a node cannot be paired with
    for u, v in edges.tolist():
        taken[u].append(v)
        taken[v].append(u)
    negatives = []
    coins = torch.randint(2, (len(held_out), 1), generator=generator).bool()
    for u, v in torch.where(coins, held_out, held_out.flip(-1)).tolist():
        kept, replaced = (u, v) if degrees[u] <= degrees[v] else (v, u)
        off = (degrees - degrees[replaced]).abs()
        off[taken[kept]] = len(degrees)  # more than any difference
        if bool((off == len(degrees)).all()):
            raise ValueError(
                f"node {kept} has no pair without an edge left to match its edge with node {replaced}; use smaller "
                f"fractions or matched=False."
            )
        nearest = (off == off.min()).nonzero()[:, 0]
        other = int(nearest[torch.randint(len(nearest), (), generator=generator)])
        taken[kept].append(other)
        taken[other].append(kept)
        negatives.append((min(kept, other), max(kept, other)))
    return torch.tensor(negatives, dtype=torch.long).reshape(-1, 2)


def _checked(edges: Tensor, num_nodes: int) -> Tensor:
    """Returns the edges, sorted, after a check."""
    if not isinstance(edges, Tensor) or edges.dtype not in (torch.int16, torch.int32, torch.int64):
        raise TypeError(
            f"edges is {checks.shown(edges)}, but must be an int64 tensor of integers (E, 2), or int32 or int16; use "
            f"edges.long() or edge_list(path)."
        )
    if edges.dim() != 2 or edges.size(-1) != 2 or len(edges) == 0:
        raise ValueError(f"edges has shape {tuple(edges.shape)}, but must be (E, 2) with E >= 1.")
    for fault, domain, remedy in (
        (
            (edges < 0) | (edges >= num_nodes),
            f"nodes are 0 to {num_nodes - 1}",
            "number nodes from 0, or pass a larger num_nodes",
        ),
        (edges[:, :1] == edges[:, 1:], "loops are not edges", "remove it"),
    ):
        if bool(fault.any()):
            u, v = edges[fault.any(-1)][0].tolist()
            raise ValueError(f"edges holds ({u}, {v}), but {domain} (num_nodes = {num_nodes}); {remedy}.")
    once = _sorted(edges.long().cpu())
    if len(once) < len(edges):
        raise ValueError(
            f"edges lists {len(edges) - len(once)} of {len(edges)} edges again, in the same or the other order, so an "
            f"edge could be trained on and tested; list each edge once."
        )
    return once


def _sorted(edges: Tensor) -> Tensor:
    """Returns distinct edges with ``u < v``, sorted."""
    return edges.sort(-1)[0].unique(dim=0)


def _generator(seed: int, count: int = 0) -> torch.Generator:
    checks.check_count("seed", seed, -(2**63), "it is the seed of the generator")
    if seed >= 2**64:
        raise ValueError(f"seed = {seed}, but must be at most {2**64 - 1}; take it modulo 2**64.")
    checks.check_count("count", count, 0, "it is the number of graphs")
    return torch.Generator().manual_seed(seed)
