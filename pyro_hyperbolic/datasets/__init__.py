r"""Data for experiments: seeded processes that are pure functions of their seed, exact densities, loaders of files.

Random data come from a ``torch.Generator`` of their own, never from the global one. They are drawn in float64 on the
CPU, so they are the same numbers in every default dtype. Density targets are distributions, and draw as those do.
"""

from .diffusion import BranchingDiffusion, branching_diffusion
from .mnist import MNIST, load_idx, load_mnist
from .planar import Checkerboard, TwoSpirals
from .targets import DENSITY_TARGETS, binary_tree, density_target

__all__ = [
    "DENSITY_TARGETS",
    "MNIST",
    "BranchingDiffusion",
    "Checkerboard",
    "TwoSpirals",
    "binary_tree",
    "branching_diffusion",
    "density_target",
    "load_idx",
    "load_mnist",
]
