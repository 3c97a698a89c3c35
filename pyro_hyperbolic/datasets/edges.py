r"""Files of edges, and splits of edges into those to train, validate and test on.

An edge list is a long tensor ``(E, 2)`` of an undirected graph without loops: ``u < v`` in each row, rows sorted and
distinct, nodes numbered from 0.
"""

import os
import re
from math import floor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_hyperbolic.geometry import checks

from .graphs import generator_of, sorted_edges

__all__ = ["EdgeSplit", "edge_list", "split_edges"]


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
            fault = "a loop; remove it"
            if match is None:
                fault = "not two nodes u,v, integers from 0; number the nodes, and keep these two columns alone"
            raise ValueError(f"line {number} of {path} is {checks.shown(line)}, {fault}.")
        edges.append((int(match[1]), int(match[2])))
    if not edges:
        raise ValueError(f"{path} has no edges; it must have lines u,v.")
    return sorted_edges(torch.tensor(edges))


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
    generator = generator_of(seed)
    checks.check_count("num_nodes", num_nodes, 2, "it is the number of nodes of the graph")
    if not isinstance(matched, bool):
        raise TypeError(f"matched = {checks.shown(matched)}, but must be True or False.")
    edges = checked_edges(edges, num_nodes)
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


class NonEdges:
    """The pairs of nodes that are not among the sorted ``edges``, numbered from 0, without memory for all of them."""

    def __init__(self, edges: Tensor, num_nodes: int) -> None:
        node = torch.arange(num_nodes)
        self.first = node * (node - 1) // 2  # pair (u, v) has the number first[v] + u, from 0
        taken = (self.first[edges[:, 1]] + edges[:, 0]).sort()[0]
        # The rank of a pair among those without an edge is its number minus the edges before it.
        self.gaps = taken - torch.arange(len(taken))

    def __len__(self) -> int:
        return int(self.first[-1]) + len(self.first) - 1 - len(self.gaps)

    def __getitem__(self, ranks: Tensor) -> Tensor:
        pairs = ranks + torch.searchsorted(self.gaps, ranks, right=True)
        v = torch.searchsorted(self.first, pairs, right=True) - 1
        return torch.stack([pairs - self.first[v], v], dim=-1)


def _uniform_negatives(number: int, edges: Tensor, num_nodes: int, generator: torch.Generator) -> Tensor:
    """Draws distinct pairs without an edge, in random order."""
    free = NonEdges(edges, num_nodes)
    return free[_distinct(number, len(free), generator)]


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


def checked_edges(edges: Tensor, num_nodes: int, name: str = "edges") -> Tensor:
    """Returns the edges, sorted, after a check."""
    if not isinstance(edges, Tensor) or edges.dtype not in (torch.int16, torch.int32, torch.int64):
        raise TypeError(
            f"{name} is {checks.shown(edges)}, but must be an int64 tensor of integers (E, 2), or int32 or int16; use "
            f"{name}.long() or edge_list(path)."
        )
    if edges.dim() != 2 or edges.size(-1) != 2 or len(edges) == 0:
        raise ValueError(f"{name} has shape {tuple(edges.shape)}, but must be (E, 2) with E >= 1.")
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
            raise ValueError(f"{name} holds ({u}, {v}), but {domain} (num_nodes = {num_nodes}); {remedy}.")
    once = sorted_edges(edges.long().cpu())
    if len(once) < len(edges):
        raise ValueError(
            f"{name} lists {len(edges) - len(once)} of {len(edges)} edges again, in the same or the other order, so an "
            f"edge could be trained on and tested; list each edge once."
        )
    return once
