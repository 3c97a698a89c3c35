r"""Targets for density estimation on the hyperbolic plane, each a distribution with its exact density."""

import math
from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions import WrappedNormal
from pyro_hyperbolic.distributions.transforms import ExponentialMap
from pyro_hyperbolic.geometry import checks
from pyro_hyperbolic.manifolds import STANDARD

from .planar import Checkerboard, TwoSpirals

__all__ = ["DENSITY_TARGETS", "binary_tree", "density_target"]


def density_target(name: str, dtype: torch.dtype | None = None) -> dist.TorchDistribution:
    r"""Returns a target distribution on :math:`\mathbb H^2` with exact log-density, by name.

    The density is with respect to Riemannian volume, at curvature -1. Four targets are from Bose et al.: ``wrapped``,
    ``mixture`` (of four normals), ``spirals``, ``checkerboard``. Four are from Lou et al.: ``one_wrapped``,
    ``five_gaussians``, ``big_checkerboard``, ``four_wrapped``. On ``tree`` geometry matters: it is an equal mixture of
    31 wrapped normals of standard deviation 0.3 at the nodes of :func:`binary_tree`.

    ``mixture``, ``spirals``, ``five_gaussians`` and both boards are planar densities pushed through ``exp0``. The KL
    divergence of a flow from them equals that of the planar flow from the planar density.

    Args:
        name: One of ``DENSITY_TARGETS``.
        dtype: Of the samples; the default dtype if not given. Use float64 to score: in float32 a stored point at
            radius 6 has lost 1e-4 of its log-density.

    Returns:
        A distribution over points ``(3,)`` with ``sample`` and ``log_prob``, on the manifold ``Lorentz(k=1)``.

    Raises:
        ValueError: If there is no target of that name.

    References:
        Avishek Joey Bose, Ariella Smofsky, Renjie Liao, Prakash Panangaden, William L. Hamilton, *Latent Variable
        Modelling with Hyperbolic Normalizing Flows*, 2020, arXiv:2002.06336.
        Aaron Lou, Derek Lim, Isay Katsman, Leo Huang, Qingxuan Jiang, Ser-Nam Lim, Christopher De Sa, *Neural Manifold
        Ordinary Differential Equations*, 2020, arXiv:2006.10254.

    Example:
        At the origin ``exp0`` preserves volume, and the central of five Gaussians of variance 1/4 has 1/5 of the mass:

        >>> target = density_target("five_gaussians")
        >>> target.log_prob(torch.tensor([1.0, 0.0, 0.0])).exp()  # 1 / (5 pi / 2)
        tensor(0.1273)
        >>> target.sample((4,)).shape, target.support
        (torch.Size([4, 3]), on_manifold(Lorentz(k=1)))
    """
    if not isinstance(name, str) or name not in DENSITY_TARGETS:
        raise ValueError(f"name = {checks.shown(name)}, but must be one of {', '.join(DENSITY_TARGETS)}.")
    return DENSITY_TARGETS[name](checks.floating_dtype(dtype))


def binary_tree(depth: int = 4, edge_length: float = 1.8) -> tuple[Tensor, Tensor]:
    r"""Embeds the binary tree in :math:`\mathbb H^2` with edges that meet at :math:`120^\circ`.

    Nodes are numbered level by level from the root, which is at the origin and has two neighbours. In the Euclidean
    plane the branches of such a tree would collide; here they never do if the edge length is at least log 3.

    Args:
        depth: Number of edges from the root to each leaf.
        edge_length: In units of distance, at curvature -1.

    Raises:
        TypeError: If ``depth`` is not an integer, or ``edge_length`` not a number.
        ValueError: If one of them is out of range.

    Returns:
        Nodes, points of shape ``(2^(depth + 1) - 1, 3)`` in float64, and edges, pairs (parent, child).

    Example:
        >>> nodes, edges = binary_tree()
        >>> parent, child = nodes[edges].unbind(1)
        >>> geometry.distance(geoopt.Lorentz(), parent, child).aminmax()
        torch.return_types.aminmax(
        min=tensor(1.8000, dtype=torch.float64),
        max=tensor(1.8000, dtype=torch.float64))
    """
    checks.check_count("depth", depth, 0, "it counts edges from the root to each leaf")
    checks.check_number("edge_length", edge_length, "it is in units of distance", above=0)
    angles = torch.tensor([-2 * math.pi / 3, 2 * math.pi / 3], dtype=torch.float64)
    turns = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], dim=-1).view(2, 1, 2, 2)
    level = geometry.origin(STANDARD, 2, dtype=torch.float64).unsqueeze(0)
    back = torch.tensor([[0.0, -1.0]], dtype=torch.float64)  # towards the parent, in the frame at the node
    levels = [level]
    for _ in range(depth):
        steps = edge_length * (turns @ back.unsqueeze(-1)).squeeze(-1)
        parents = level.expand(2, *level.shape).transpose(0, 1).reshape(-1, 3)
        level = geometry.translate(STANDARD, parents, geometry.exp0(STANDARD, steps.transpose(0, 1).reshape(-1, 2)))
        back = geometry.log0(STANDARD, geometry.translate(STANDARD, level, parents, inverse=True)) / edge_length
        levels.append(level)
    child = torch.arange(1, 2 ** (depth + 1) - 1)
    return torch.cat(levels), torch.stack([(child - 1) // 2, child], dim=-1)


def _lifted(planar: dist.TorchDistribution) -> dist.TorchDistribution:
    return dist.TransformedDistribution(planar, [ExponentialMap(STANDARD)])


def _equal_mixture(components: dist.TorchDistribution) -> dist.TorchDistribution:
    weights = torch.ones(components.batch_shape, dtype=components.sample().dtype)
    return dist.MixtureSameFamily(dist.Categorical(weights), components)


def _wrapped(v: list[float], scale: list[float], dtype: torch.dtype) -> dist.TorchDistribution:
    return WrappedNormal(geometry.exp0(STANDARD, torch.tensor(v, dtype=dtype)), torch.tensor(scale, dtype=dtype))


def _normals(loc: Tensor, scale: float) -> dist.TorchDistribution:
    return _lifted(_equal_mixture(dist.Normal(loc, torch.full_like(loc, scale)).to_event(1)))


_COMPASS = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)


def _four_wrapped(dtype: torch.dtype) -> dist.TorchDistribution:
    space = 1.3 * torch.tensor([[1.0, 1.0], [-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    loc = torch.cat([(1 + space.square().sum(-1, keepdim=True)).sqrt(), space], dim=-1)
    scale = torch.tensor([[0.3, 1.5], [0.3, 1.5], [1.5, 0.3], [1.5, 0.3]], dtype=dtype)
    return _equal_mixture(WrappedNormal(loc.to(dtype), scale))


def _tree(dtype: torch.dtype) -> dist.TorchDistribution:
    nodes = binary_tree()[0].to(dtype)
    return _equal_mixture(WrappedNormal(nodes, nodes.new_tensor(0.3)))


#: Builders of the targets, functions of a dtype.
DENSITY_TARGETS: dict[str, Callable[[torch.dtype], dist.TorchDistribution]] = {
    "wrapped": lambda dtype: _wrapped([-1.0, 1.0], [1.0, 0.25], dtype),
    # Centres c / sqrt(2), scale 1 / (8 sqrt(2)).
    "mixture": lambda dtype: _normals((_COMPASS / math.sqrt(2)).to(dtype), 0.125 / math.sqrt(2)),
    "spirals": lambda dtype: _lifted(TwoSpirals(dtype)),
    "checkerboard": lambda dtype: _lifted(Checkerboard(torch.tensor(0.25, dtype=dtype))),
    "one_wrapped": lambda dtype: _wrapped([-1.0, 1.0], [0.75, 0.75], dtype),
    "five_gaussians": lambda dtype: _normals(torch.cat([3 * _COMPASS, torch.zeros(1, 2)]).to(dtype), 0.5),
    "big_checkerboard": lambda dtype: _lifted(Checkerboard(torch.tensor(1.5, dtype=dtype))),
    "four_wrapped": _four_wrapped,
    "tree": _tree,
}
