r"""Data for experiments: seeded random data and graphs, and targets with exact densities.

Random data are pure functions of their seed: they are drawn from their own ``torch.Generator``, in float64 on the CPU.
Density targets are distributions, and sample from the global generator.
"""

from .diffusion import BranchingDiffusion, branching_diffusion
from .graphs import EdgeSplit, edge_list, lobsters, random_trees, split_edges
from .planar import Checkerboard, TwoSpirals
from .targets import DENSITY_TARGETS, binary_tree, density_target

__all__ = [
    "DENSITY_TARGETS",
    "BranchingDiffusion",
    "Checkerboard",
    "EdgeSplit",
    "TwoSpirals",
    "binary_tree",
    "branching_diffusion",
    "density_target",
    "edge_list",
    "lobsters",
    "random_trees",
    "split_edges",
]
