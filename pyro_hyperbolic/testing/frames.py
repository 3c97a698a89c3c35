r"""Textbook geometry for oracles: orthonormal tangent frames and metrics, written apart from the library's kernels."""

import geoopt
import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor
from torch.distributions.constraints import Constraint

from pyro_hyperbolic.distributions.constraints import OnManifold

__all__ = ["base_of", "frame", "leaves_of", "manifold_of", "metric", "scaled_radius"]


def base_of(constraint: Constraint) -> Constraint:
    """Returns the constraint of the components of a mixture, or of independent coordinates; others as they are."""
    while not isinstance(constraint, OnManifold):
        # Of Pyro's MaskedMixture there are two.
        inner = getattr(constraint, "base_constraint", getattr(constraint, "constraint0", None))
        if inner is None:
            break
        constraint = inner
    return constraint


def manifold_of(constraint: Constraint) -> Manifold:
    """Returns the manifold of a domain, codomain or support: that of ``on_manifold``, or Euclidean space."""
    constraint = base_of(constraint)
    return constraint.manifold if isinstance(constraint, OnManifold) else geoopt.Euclidean(1)


def metric(manifold: Manifold, size: int, like: Tensor) -> Tensor:
    """Returns the ambient bilinear form, ``diag(-1, 1, ..., 1)`` on the hyperboloid, shape ``(size, size)``."""
    form = torch.eye(size, dtype=like.dtype, device=like.device)
    if isinstance(manifold, geoopt.Lorentz):
        form[0, 0] = -1
    return form


def frame(manifold: Manifold, x: Tensor) -> Tensor:
    r"""Returns an orthonormal basis of the tangent space at one point, as columns, shape ``(n + 1, n)``.

    On the hyperboloid the boosted unit vectors, :math:`(x_i/R,\ e_i + x_i x_s / (R^2 (1 + x_0/R)))`.
    """
    if not isinstance(manifold, geoopt.Lorentz):
        return torch.eye(x.size(-1), dtype=x.dtype, device=x.device)
    space = x[1:] / manifold.k.to(x.dtype).sqrt()
    time = (1 + space @ space).sqrt()
    block = torch.eye(len(space), dtype=x.dtype, device=x.device) + torch.outer(space, space) / (1 + time)
    return torch.cat([space[None], block])


def scaled_radius(manifold: Manifold, x: Tensor) -> Tensor:
    """Returns the distance from the origin over the radius of each event, shape ``(*)``; zero on Euclidean space."""
    if not isinstance(manifold, geoopt.Lorentz):
        return x.new_zeros(x.shape[:-1])
    return (x[..., 1:].detach().norm(dim=-1) / manifold.k.detach().to(x.dtype).sqrt()).asinh()


def leaves_of(output: Tensor) -> list[Tensor]:
    """Returns the leaves that require a gradient and on which ``output`` depends."""
    stack, seen, leaves = [output.grad_fn], set(), []
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        stack.extend(parent for parent, _ in node.next_functions)
    return leaves
