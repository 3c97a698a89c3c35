r"""The branching diffusion process, :math:`\mathrm{child} = \mathrm{parent} + \mathcal N(0, I)` on a tree."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_hyperbolic.geometry import checks

__all__ = ["BranchingDiffusion", "branching_diffusion"]


@dataclass(frozen=True, eq=False)
class BranchingDiffusion:
    r"""Noisy observations of a random walk on a tree, with the tree; made by :func:`branching_diffusion`.

    Nodes are numbered level by level; the root is 0. With ``N`` nodes and ``B`` observations:

    Attributes:
        x: Standardised observations, shape ``(B, dim)``.
        node: The observed node of each observation, shape ``(B,)``.
        train: Indices of the training observations, a random subset in random order.
        test: Indices of the other observations.
        nodes: Coordinates of the nodes without noise, standardised like ``x``, shape ``(N, dim)``.
        node_depth: Distance of each node from the root, in edges, shape ``(N,)``.
        parent: The parent of each node, -1 for the root, shape ``(N,)``.
        mean: Mean of the raw observations, shape ``(dim,)``.
        scale: Their standard deviation, shape ``(dim,)``: the raw observations are ``scale * x + mean``.
    """

    x: Tensor
    node: Tensor
    train: Tensor
    test: Tensor
    nodes: Tensor
    node_depth: Tensor
    parent: Tensor
    mean: Tensor
    scale: Tensor

    @property
    def depth(self) -> Tensor:
        """The depth of each observed node, shape ``(B,)``."""
        return self.node_depth[self.node]

    @property
    def edges(self) -> Tensor:
        """Pairs (parent, child), shape ``(N - 1, 2)``, for :func:`pyro_hyperbolic.viz.tree`."""
        child = torch.arange(1, len(self.parent))
        return torch.stack([self.parent[1:], child], dim=-1)


def branching_diffusion(
    seed: int = 0,
    *,
    dim: int = 50,
    depth: int = 5,
    branching: int = 2,
    observations: int = 5,
    noise_variance: float = 0.1,
    test_fraction: float = 0.3,
) -> BranchingDiffusion:
    r"""Draws the branching diffusion process, :math:`\mathrm{child} = \mathrm{parent} + \mathcal N(0, I)`, root at 0.

    Each node is observed several times with Gaussian noise. The nodes themselves are not part of the data. The
    defaults are those of the paper: 63 nodes and 315 observations, 220 for training and 95 for testing.

    Each coordinate is standardised by its mean and its standard deviation (without Bessel's correction) over all
    observations, including test observations, as in the paper.

    Args:
        seed: Seed of the generator, which draws the nodes, then the noise, then the split.
        dim: Dimension of the observations.
        depth: Number of edges from the root to each leaf.
        branching: Number of children of each inner node.
        observations: Number of noisy observations of each node.
        noise_variance: Variance of the noise in each coordinate.
        test_fraction: Fraction of observations to test on; their number is rounded up.

    Returns:
        A :class:`BranchingDiffusion` with floats in the default dtype.

    Raises:
        ValueError: If an argument is out of its range, or a coordinate has no variance.

    References:
        Emile Mathieu, Charline Le Lan, Chris J. Maddison, Ryota Tomioka, Yee Whye Teh, *Continuous Hierarchical
        Representations with Poincaré Variational Auto-Encoders*, 2019, arXiv:1901.06033.
        Avishek Joey Bose, Ariella Smofsky, Renjie Liao, Prakash Panangaden, William L. Hamilton, *Latent Variable
        Modelling with Hyperbolic Normalizing Flows*, 2020, arXiv:2002.06336.

    Example:
        >>> data = branching_diffusion(seed=0)
        >>> data.x.shape, len(data.nodes), len(data.train), len(data.test)
        (torch.Size([315, 50]), 63, 220, 95)
        >>> data.parent[:7]
        tensor([-1,  0,  0,  1,  1,  2,  2])
    """
    for name, value, least in (
        ("seed", seed, -(2**63)),
        ("dim", dim, 1),
        ("depth", depth, 0),
        ("branching", branching, 1),
        ("observations", observations, 1),
    ):
        checks.check_count(name, value, least, "the defaults are those of the paper")
    noise_variance, test_fraction = (
        checks.check_number(name, value, "the defaults are those of the paper")
        for name, value in {"noise_variance": noise_variance, "test_fraction": test_fraction}.items()
    )
    if noise_variance < 0:
        raise ValueError(f"noise_variance = {noise_variance}, but must be at least 0.")
    if not 0 <= test_fraction <= 1:
        raise ValueError(f"test_fraction = {test_fraction}, but must be between 0 and 1.")
    generator = torch.Generator().manual_seed(seed)

    def normal(rows: int) -> Tensor:
        return torch.randn(rows, dim, generator=generator, dtype=torch.float64)

    levels, parents = [torch.zeros(1, dim, dtype=torch.float64)], [torch.tensor([-1])]
    for _ in range(depth):
        first = sum(len(level) for level in levels[:-1])  # index of the first node of the last level
        above = torch.arange(len(levels[-1])).repeat_interleave(branching)
        levels.append(levels[-1][above] + normal(len(above)))
        parents.append(first + above)
    nodes, node = torch.cat(levels), torch.arange(sum(map(len, levels))).repeat_interleave(observations)
    x = nodes[node] + math.sqrt(noise_variance) * normal(len(node))
    mean, scale = x.mean(0), x.std(0, correction=0)
    if not bool((scale > 0).all()):
        raise ValueError("a coordinate has zero variance; use more nodes, observations or noise.")

    order = torch.randperm(len(x), generator=generator)
    # Rounded before ceil: 0.07 * 100 is 7.000000000000001.
    held_out = math.ceil(round(test_fraction * len(x), 6))
    dtype = torch.get_default_dtype()
    return BranchingDiffusion(
        x=((x - mean) / scale).to(dtype),
        node=node,
        train=order[held_out:],
        test=order[:held_out],
        nodes=((nodes - mean) / scale).to(dtype),
        node_depth=torch.arange(depth + 1).repeat_interleave(torch.tensor([len(level) for level in levels])),
        parent=torch.cat(parents),
        mean=mean.to(dtype),
        scale=scale.to(dtype),
    )
