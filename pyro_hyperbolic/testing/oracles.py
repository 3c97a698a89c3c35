r"""Oracles of the laws: volumes :math:`\frac12 \log \det \langle \partial_a f, \partial_b f \rangle` by ``inner``.

``f`` is any chart, differentiated by autograd, and ``inner`` is geoopt's metric. The kit takes charts from a geometry
but never volumes, and only in this file.
"""

from collections.abc import Callable
from typing import Any

import geoopt
import torch
from geoopt.manifolds.base import Manifold
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions.constraints import Constraint

from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions.constraints import on_manifold

__all__ = ["Space", "base_of", "leaves_of"]

# Open subsets of R^n, with its volume (unlike a simplex).
_FLAT = tuple(
    type(constraint)
    for constraint in (
        constraints.real,
        constraints.positive,
        constraints.nonnegative,
        constraints.less_than(0.0),
        constraints.unit_interval,
        constraints.half_open_interval(0.0, 1.0),
        constraints.ordered_vector,
        constraints.positive_ordered_vector,
    )
)


def base_of(constraint: Constraint) -> Constraint:
    """Returns the constraint behind an independent or masked-mixture constraint; others unchanged."""
    while not hasattr(constraint, "manifold"):
        # Pyro's MaskedMixture has constraint0 and constraint1.
        inner = getattr(constraint, "base_constraint", getattr(constraint, "constraint0", None))
        if inner is None:
            break
        constraint = inner
    return constraint


class Space:
    """The manifold of a domain, codomain or support, and the dimension of its events.

    Raises:
        TypeError: If the geometry is unknown: the manifold is not registered, or the constraint has no manifold and
            does not describe vectors of R^n.
    """

    def __init__(self, constraint: Constraint) -> None:
        base = base_of(constraint)
        if not hasattr(base, "manifold") and (not isinstance(base, _FLAT) or constraint.event_dim > 1):
            raise TypeError(
                f"the laws need a geometry, but none is known for {constraint}; use on_manifold(M) with a registered "
                f"manifold, or vectors of R^n."
            )
        self.manifold: Manifold = getattr(base, "manifold", None) or geoopt.Euclidean(1)
        self.event_dim: int = max(1, constraint.event_dim)
        self._geometry: Any = geometry.bind(self.manifold)
        #: The sectional curvature, the most negative of a batch; None if it is unknown or not constant.
        self.curvature: float | None = None
        curvature = self._geometry.curvature()
        if curvature is not None and bool((curvature <= 0).all()):
            self.curvature = float(curvature.detach().min())

    @property
    def length(self) -> float:
        """The radius of curvature ``R``; 1 if the space is flat or its curvature unknown."""
        return (-self.curvature) ** -0.5 if self.curvature else 1.0

    def exp0(self, v: Tensor) -> Tensor:
        """Returns points at tangent coordinates, shape ``(*, n)``."""
        x: Tensor = self._geometry.exp0(v)[0]
        return x

    def log0(self, x: Tensor) -> Tensor:
        """Returns tangent coordinates at the origin, shape ``(*, n)``."""
        v: Tensor = self._geometry.log0(x)[0]
        return v

    def exp_at(self, centre: Tensor, v: Tensor) -> Tensor:
        """Returns points at normal coordinates ``v`` about ``centre``."""
        x: Tensor = self._geometry.exp_at(centre, v)[0]
        return x

    def log_at(self, centre: Tensor, x: Tensor) -> Tensor:
        """Returns normal coordinates about ``centre``."""
        v: Tensor = self._geometry.log_at(centre, x)[0]
        return v

    def scaled_radius(self, x: Tensor) -> Tensor:
        """Returns the distance from the origin over ``R``, shape ``(*)``; zero on flat space."""
        radius = self.log0(x.detach()).detach().norm(dim=-1) / self.length
        return torch.zeros_like(radius) if self.curvature == 0 else radius

    def off_manifold_mistake(self, event: Tensor) -> str:
        """Returns the known mistake that an event off the manifold looks like, according to its geometry."""
        if not bool(event.isfinite().all()):
            return "NaN or infinity: an overflow, or a division by zero"
        return str(self._geometry.mistake(event))

    def member(self, index: int, batch_shape: torch.Size) -> Constraint | None:
        """Returns the constraint of one member of a batch of manifolds (of ``k``), or None if there is only one."""
        parameters = self._geometry.parameters()
        if all(value.numel() == 1 for value in parameters.values()):
            return None
        chosen = {name: value.detach().expand(batch_shape).reshape(-1)[index] for name, value in parameters.items()}
        return on_manifold(self._geometry.with_parameters(chosen))

    def batch_of(self, x: Tensor) -> torch.Size:
        """Returns the batch shape of events."""
        return x.shape[: x.dim() - self.event_dim]

    def events(self, x: Tensor) -> Tensor:
        """Returns events with one batch dimension."""
        return x.reshape(-1, *x.shape[x.dim() - self.event_dim :])

    def flat(self, x: Tensor) -> Tensor:
        """Returns events as vectors."""
        return x.flatten(x.dim() - self.event_dim)

    def log_volume(self, chart: Callable[[Tensor], Tensor], v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns the points of a chart, :math:`\frac12 \log \det G` there, and the loss to cancellation.

        ``G`` is the Gram matrix of the chart in geoopt's metric. The loss is the sum of the absolute terms of one of
        its diagonal entries over the entry: ``cosh(2 r)`` on the hyperboloid, 1 for a positive definite metric.

        Args:
            chart: A map of batches whose members are independent.
            v: Coordinates, shape ``(N, n)``.
        """
        v = v.detach().clone().requires_grad_()
        with torch.enable_grad():
            x = chart(v)
        columns = self.events(x).flatten(1).unbind(-1)
        gradients = [_gradient(column.sum(), v) for column in columns]
        # In float64: squares of coordinates overflow in float32 before the coordinates do.
        jacobian = torch.stack(gradients, -1).double()
        point = self.events(x).detach().double()
        event = point.shape[1:]
        tangent = jacobian.reshape(*v.shape, *event)
        gram = self._inner(point[:, None, None], tangent[:, :, None], tangent[:, None, :])
        axes = torch.eye(len(columns), dtype=torch.float64, device=x.device).reshape(-1, *event)
        squares = self._inner(point[:, None], axes, axes).abs()
        loss = (jacobian.square() @ squares[..., None]).squeeze(-1) / gram.diagonal(dim1=-2, dim2=-1).abs()
        return x.detach(), torch.linalg.slogdet(gram).logabsdet / 2, loss.amax(-1)

    def _inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Returns geoopt's inner product (on its ball the shape is wrong without ``keepdim``)."""
        x, u, v = torch.broadcast_tensors(x, u, v)
        return self.manifold.inner(x, u, v, keepdim=True).detach().reshape(x.shape[: x.dim() - self.event_dim])


def _gradient(output: Tensor, v: Tensor) -> Tensor:
    if not output.requires_grad:
        return torch.zeros_like(v)
    (gradient,) = torch.autograd.grad(output, v, retain_graph=True, allow_unused=True, materialize_grads=True)
    return gradient


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
