r"""The measure of the laws: volumes by geoopt's own ``inner``, and all that the kit asks of a geometry.

Of a geometry it takes charts, which may be any, and no volume: that of a map ``f`` of coordinates is
:math:`\frac12 \log \det G`, where :math:`G_{ab} = \langle \partial_a f, \partial_b f \rangle` in geoopt's metric, with
the derivatives of autograd. No other file of the kit asks a geometry for anything.
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

# Open subsets of R^n, which have its volume; a simplex, say, has not.
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
    """Returns the constraint of the components of a mixture, or of independent coordinates; others as they are."""
    while not hasattr(constraint, "manifold"):
        # Of Pyro's MaskedMixture there are two.
        inner = getattr(constraint, "base_constraint", getattr(constraint, "constraint0", None))
        if inner is None:
            break
        constraint = inner
    return constraint


class Space:
    """The manifold of a domain, codomain or support, and the dimension of its events.

    Raises:
        TypeError: If nothing is known of the geometry: a manifold that is not registered, or a constraint that neither
            has a manifold nor holds vectors of R^n.
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
        #: The sectional curvature, the strongest of a batch; None where it is not constant, or the geometry cannot say.
        self.curvature: float | None = None
        curvature = self._geometry.curvature()
        if curvature is not None and bool((curvature <= 0).all()):
            self.curvature = float(curvature.detach().min())

    @property
    def length(self) -> float:
        """The unit of length of the curvature, ``R``; 1 where there is none."""
        return (-self.curvature) ** -0.5 if self.curvature else 1.0

    def exp0(self, v: Tensor) -> Tensor:
        """Returns points at tangent coordinates, shape ``(*, n)``."""
        x: Tensor = self._geometry.exp0(v)[0]
        return x

    def log0(self, x: Tensor) -> Tensor:
        """Returns tangent coordinates, whose length is the distance from the origin."""
        v: Tensor = self._geometry.log0(x)[0]
        return v

    def exp_at(self, centre: Tensor, v: Tensor) -> Tensor:
        """Returns points at normal coordinates about a point."""
        x: Tensor = self._geometry.exp_at(centre, v)[0]
        return x

    def log_at(self, centre: Tensor, x: Tensor) -> Tensor:
        """Returns normal coordinates about a point, whose length is the distance from it."""
        v: Tensor = self._geometry.log_at(centre, x)[0]
        return v

    def scaled_radius(self, x: Tensor) -> Tensor:
        """Returns the distance from the origin over ``R`` of each event, shape ``(*)``; zero on flat space."""
        radius = self.log0(x.detach()).detach().norm(dim=-1) / self.length
        return torch.zeros_like(radius) if self.curvature == 0 else radius

    def off_manifold_mistake(self, event: Tensor) -> str:
        """Returns what an event that is off the manifold looks like, in the words of its geometry."""
        if not bool(event.isfinite().all()):
            return "NaN or infinity: an overflow, or a division by zero"
        return str(self._geometry.mistake(event))

    def member(self, index: int, batch_shape: torch.Size) -> Constraint | None:
        """Returns the constraint of one member of a batch of manifolds (of ``k``), or None: there is only one."""
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
        r"""Returns the points of a chart of this space, :math:`\frac12 \log \det G` there, and how much is lost.

        What is lost is the part of its squares that an entry of ``G`` may cancel to, over the entry: ``cosh(2 r)`` on
        the hyperboloid, 1 for a positive definite form of the coordinates.

        Args:
            chart: A map of a batch, of which no member depends on another.
            v: Coordinates, shape ``(N, n)``.
        """
        v = v.detach().clone().requires_grad_()
        with torch.enable_grad():
            x = chart(v)
        columns = self.events(x).flatten(1).unbind(-1)
        gradients = [_gradient(column.sum(), v) for column in columns]
        # In double: the squares in a Gram matrix overflow in float32 where the points do not.
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
        """Returns geoopt's inner product; that of the Poincare ball has a wrong shape unless dimensions are kept."""
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
