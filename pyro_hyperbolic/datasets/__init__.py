r"""Data for experiments: seeded random data and graphs, and targets with exact densities.

Random data and splits are pure functions of their seed: they have their own ``torch.Generator``, in float64 on the CPU.
Density targets are distributions, and sample from the global generator.
"""

from .diffusion import BranchingDiffusion, branching_diffusion
from .dyads import Dyads, DyadSampler
from .earth import PointSplit, earth, split_points
from .edges import EdgeSplit, edge_list, split_edges
from .graphs import lobsters, random_trees
from .manifold_targets import MANIFOLD_TARGETS, Board, ManifoldTarget, manifold_target
from .planar import Checkerboard, TwoSpirals
from .targets import DENSITY_TARGETS, binary_tree, density_target

__all__ = [
    "DENSITY_TARGETS",
    "MANIFOLD_TARGETS",
    "Board",
    "BranchingDiffusion",
    "Checkerboard",
    "DyadSampler",
    "Dyads",
    "EdgeSplit",
    "ManifoldTarget",
    "PointSplit",
    "TwoSpirals",
    "binary_tree",
    "branching_diffusion",
    "density_target",
    "earth",
    "edge_list",
    "lobsters",
    "manifold_target",
    "random_trees",
    "split_edges",
    "split_points",
]
