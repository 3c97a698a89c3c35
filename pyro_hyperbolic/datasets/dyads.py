"""Minibatches of pairs of nodes: edges and sampled non-edges, with the weights that keep sums unbiased."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_hyperbolic.geometry import checks

from .edges import NonEdges, checked_edges
from .graphs import generator_of

__all__ = ["DyadSampler", "Dyads"]


class Dyads(NamedTuple):
    r"""A minibatch of pairs of nodes, made by :class:`DyadSampler`.

    Attributes:
        pairs: Pairs of nodes, int64 ``(B, 2)``.
        labels: 1 for edges, 0 for others, shape ``(B,)``.
        weights: One over the expected number of times that the pair is drawn, shape ``(B,)``.
        nodes: The distinct nodes of the pairs, int64 ``(n,)``, sorted: the subsample of a plate of nodes.
        rows: The pairs as rows of ``nodes``, int64 ``(B, 2)``.
        node_weights: One over the probability that the node is in a batch, shape ``(n,)``.
    """

    pairs: Tensor
    labels: Tensor
    weights: Tensor
    nodes: Tensor
    rows: Tensor
    node_weights: Tensor


class DyadSampler:
    r"""Draws pairs so that :math:`\mathbb E \sum_{b} w_b f(i_b, j_b, A_{i_b j_b}) = \sum_{i < j} f(i, j, A_{ij})`.

    A graph of N nodes has :math:`N (N - 1) / 2` pairs, nearly all without an edge. A likelihood over all of them is
    estimated without bias from edges and a few non-edges (case-control sampling), in any proportion. Time and memory
    of a batch do not grow with N; the sampler keeps a few numbers for each edge and node.

    In a model the weights scale the likelihood, and :func:`~pyro_hyperbolic.infer.scale_sites` the latents of nodes::

        with pyro.plate("nodes", N, subsample=batch.nodes):
            z = pyro.sample("z", ...)
        d = geometry.distance(M, *z[batch.rows].unbind(-2))
        with pyro.plate("dyads", len(d)), poutine.scale(scale=batch.weights):
            pyro.sample("edge", dist.Bernoulli(logits=(R - d) / T), obs=batch.labels)

    Endpoints of edges are not uniform: hubs are in every batch, leaves in few, while the plate counts each node N / n
    times. The right count of a node is one over the probability that it is in a batch, which is ``node_weights``.

    In several processes give each sampler a seed of its own: the mean of their gradients, which DDP takes, is that of
    one process with the batches joined.

    Instead of weighting pairs one can model the labels of those that were drawn: add ``offset`` to the logits and drop
    the weights. This conditional likelihood has its optimum at the same parameters if the model holds, but it has the
    information of the drawn pairs only, so posteriors are wider.

    Args:
        edges: Edges in either order, integers ``(E, 2)``.
        num_nodes: Number of nodes of the graph.
        num_edges: Edges in a batch, drawn with replacement; by default each edge once.
        num_non_edges: Non-edges in a batch, drawn with replacement; by default each non-edge once.
        missing: Pairs of which nothing is known, integers ``(H, 2)``: neither edges nor non-edges. Pairs of a test set
            belong here.
        seed: Seed of the generator.

    Attributes:
        offset: :math:`-\log w`, where a non-edge is drawn w times as often as an edge.
        node_probabilities: Probabilities that nodes are in a batch, float64 ``(N,)``.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If a node is not below ``num_nodes``, a pair is a loop or listed twice, there are no edges, or no
            non-edges to draw.

    References:
        Adrian E. Raftery, Xiaoyue Niu, Peter D. Hoff, Ka Yee Yeung, *Fast Inference for the Latent Space Network Model
        Using a Case-Control Approximate Likelihood*, 2012 (weights).
        Gary King, Langche Zeng, *Logistic Regression in Rare Events Data*, 2001 (the offset).

    Example:
        A star of 1000 nodes. The hub is in each batch; a leaf rarely as the end of one of 7 edges, but by the 500
        non-edges in :math:`1 - (1 - 7/999) e^{-1}` of them. The weights sum to the numbers of pairs.

        >>> edges = torch.stack([torch.zeros(999, dtype=torch.long), torch.arange(1, 1000)], -1)
        >>> sampler = DyadSampler(edges, 1000, num_edges=7, num_non_edges=500)
        >>> sampler.node_probabilities[:2]
        tensor([1.0000, 0.6354], dtype=torch.float64)
        >>> batch = sampler.sample()
        >>> batch.weights[batch.labels == 1].sum(), batch.weights[batch.labels == 0].sum()  # 999 and 498 501
        (tensor(999.), tensor(498501.))
    """

    def __init__(
        self,
        edges: Tensor,
        num_nodes: int,
        num_edges: int | None = None,
        num_non_edges: int | None = None,
        *,
        missing: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        self._generator = generator_of(seed)
        checks.check_count("num_nodes", num_nodes, 2, "it is the number of nodes of the graph")
        for name, number in (("num_edges", num_edges), ("num_non_edges", num_non_edges)):
            if number is not None:
                checks.check_count(name, number, 1, "it is how many are in a batch, or None for all")
        self.num_nodes = num_nodes
        self._edges = checked_edges(edges, num_nodes)
        known = self._edges
        if missing is not None and not (isinstance(missing, Tensor) and missing.numel() == 0):
            missing = checked_edges(missing, num_nodes, "missing")
            known = checked_edges(torch.cat([known, missing]), num_nodes, "edges with missing")
        self._free = NonEdges(known, num_nodes)
        if not len(self._free):
            raise ValueError(f"a graph of {num_nodes} nodes with {len(known)} edges and missing pairs has no non-edge.")
        self._sizes = (num_edges, num_non_edges)
        degree, touched = (each.flatten().bincount(minlength=num_nodes).double() for each in (self._edges, known))
        shares = (degree / len(self._edges), (num_nodes - 1 - touched) / len(self._free))
        # With all pairs of a kind, a node is out if it has none of them.
        never = [
            torch.where(share > 0, -torch.inf, 0.0 * share) if size is None else size * torch.log1p(-share)
            for share, size in zip(shares, self._sizes, strict=True)
        ]
        self.node_probabilities = -torch.expm1(never[0] + never[1])
        self._rates = [1.0 if s is None else s / n for s, n in zip(self._sizes, self._counts, strict=True)]
        self.offset = math.log(self._rates[0] / self._rates[1])

    @property
    def _counts(self) -> tuple[int, int]:
        return len(self._edges), len(self._free)

    def sample(self) -> Dyads:
        """Returns a batch, edges first, on the CPU, with weights of the default dtype."""
        drawn = [
            torch.arange(count) if size is None else torch.randint(count, (size,), generator=self._generator)
            for count, size in zip(self._counts, self._sizes, strict=True)
        ]
        pairs = torch.cat([self._edges[drawn[0]], self._free[drawn[1]]])
        numbers = torch.tensor([len(each) for each in drawn])
        nodes, index = pairs.unique(return_inverse=True)
        weights = 1 / torch.tensor(self._rates)
        return Dyads(
            pairs,
            torch.tensor([1.0, 0.0]).repeat_interleave(numbers),
            weights.repeat_interleave(numbers),
            nodes,
            index,
            (1 / self.node_probabilities[nodes]).to(weights),
        )
