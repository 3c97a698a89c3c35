r"""Oracles of the laws: volumes :math:`\frac12 \log \det \langle \partial_a f, \partial_b f \rangle` by ``inner``.

``f`` is any chart, differentiated by autograd, and ``inner`` is geoopt's metric. The kit takes charts from a geometry
but never volumes or frames, and only in this file. Without a global chart, each point has its own,
:math:`v \mapsto \exp_x(\sum_i v_i E_i)`, where ``E`` is any basis of the tangent space at ``x``.
"""

import math
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
from pyro_hyperbolic.geometry import Complete, Hadamard

__all__ = ["Space", "base_of", "fixed_noise", "gradient_of", "leaves_of"]

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
        self._geometry: Any = geometry.complete(self.manifold)
        #: Whether exp0 is a global chart.
        self.charted: bool = isinstance(self._geometry, Hadamard)
        #: The sectional curvature, the most negative of a batch; None if it is unknown, positive or not constant.
        self.curvature: float | None = None
        curvature = self._geometry.curvature()
        if curvature is not None and bool((curvature <= 0).all()):
            self.curvature = float(curvature.detach().min())

    @property
    def length(self) -> float:
        """The radius of curvature ``R``; 1 if the space is flat or its curvature unknown."""
        return (-self.curvature) ** -0.5 if self.curvature else 1.0

    def dim(self, x: Tensor) -> int:
        """Returns the intrinsic dimension of points."""
        return int(self._geometry.dim(x.shape))

    def event(self, n: int) -> torch.Size:
        """Returns the shape of a point in ``n`` dimensions."""
        shape: torch.Size = self._geometry.event_shape(n)
        return shape

    def special_point(self, n: int, like: Tensor) -> Tensor:
        """Returns the origin or, of factors without one, the point closest to the first axis or the identity matrix."""
        return _special_point(self._geometry, n, like)

    def chart(self, x: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """Returns a chart of events ``(N, *event)`` and their coordinates ``(N, n)``.

        The global one, or else for each event one about it.
        """
        if self.charted:
            return self.exp0, self._geometry.log0(x)[0].detach()
        centre = x.detach().clone()
        return lambda v: self.exp_at(centre, v), centre.new_zeros(len(centre), self.dim(x))

    def exp0(self, v: Tensor) -> Tensor:
        """Returns points at tangent coordinates at the origin, shape ``(*, n)``; requires a global chart."""
        x: Tensor = self._geometry.exp0(v)[0]
        return x

    def state(self, x: Tensor) -> Tensor:
        """Returns tangent coordinates at the origin if there is a global chart, else the coordinates of the points."""
        s: Tensor = self._geometry.state(x)[0]
        return s

    def point(self, s: Tensor) -> Tensor:
        """Returns the points of states, or of the states closest to ``s``."""
        x: Tensor = self._geometry.point(self._geometry.retract(s))[0]
        return x

    def features(self, x: Tensor) -> Tensor:
        """Returns numbers that determine the points and depend smoothly on them."""
        found: Tensor = self._geometry.features(x)
        return found

    def comparable(self, x: Tensor) -> Tensor:
        """Returns numbers in which equal points are equal: the coordinates, unless several belong to one point."""
        return self.flat(x) if self.charted else self.features(x)

    def exp_at(self, centre: Tensor, v: Tensor) -> Tensor:
        """Returns points at normal coordinates ``v`` about ``centre``."""
        if not self.charted:
            v = (v.unsqueeze(-2) @ self._basis(centre).to(v)).squeeze(-2)
        x: Tensor = self._geometry.exp_at(centre, v)[0] if self.charted else self._geometry.exp(centre, v)
        return x

    def log_at(self, centre: Tensor, x: Tensor) -> Tensor:
        """Returns normal coordinates about ``centre``, the shortest if there are several."""
        v: Tensor = self._geometry.log_at(centre, x)[0] if self.charted else self._geometry.log(centre, x)
        return v if self.charted else (self._basis(centre) @ v.unsqueeze(-1)).squeeze(-1)

    def _basis(self, x: Tensor) -> Tensor:
        """Returns orthonormal tangent vectors ``(*, n, m)``: the left singular vectors of the projection."""
        n = self.dim(x)
        m = self._geometry.vector_size(n)
        eye = torch.eye(m, dtype=x.dtype, device=x.device)
        if m == n:
            return eye
        with torch.no_grad():
            projection = self._geometry.tangent(x.unsqueeze(-1 - self.event_dim), eye)
            basis: Tensor = torch.linalg.svd(projection)[2][..., :n, :]
        return basis

    def centre(self, samples: Tensor) -> Tensor:
        """Returns a point in the middle of samples ``(N, *, *event)``, shape ``(*, *event)``.

        The median of tangent coordinates at the origin, since heavy tails have no mean. Without a global chart, the
        sample among 16 with the least mean distance from the others.
        """
        samples = samples.detach()
        if self.charted:
            return self.exp0(self._geometry.log0(samples)[0].median(0).values)
        some = samples[:: max(1, len(samples) // 16)][:16]
        apart: Tensor = self._geometry.distance(some.unsqueeze(1), samples[:500].unsqueeze(0))
        best = apart.mean(1).argmin(0, keepdim=True)
        best = best.reshape(*best.shape, *(1,) * self.event_dim).expand(1, *samples.shape[1:])
        return some.gather(0, best).squeeze(0)

    def beyond_the_cut(self, centre: Tensor, v: Tensor) -> Tensor:
        """Returns whether a shorter geodesic than that of ``v`` leads to ``exp_at(centre, v)``, shape ``(N,)``."""
        if self.charted:
            return torch.zeros_like(v[:, 0], dtype=torch.bool)
        back = self.log_at(centre, self.exp_at(centre, v))
        return back.norm(dim=-1) < v.norm(dim=-1) * (1 - 1e-9)

    def cut_distance(self, centre: Tensor, directions: Tensor, most: float) -> Tensor:
        """Returns how far geodesics from ``centre`` are shortest, by bisection, but at most ``most``; shape ``(N,)``.

        Args:
            centre: A point.
            directions: Unit vectors, shape ``(N, n)``.
            most: A distance.
        """
        low, high = torch.zeros_like(directions[:, 0]), torch.full_like(directions[:, 0], most)
        if self.charted:
            return high
        for _ in range(40):
            r = (low + high) / 2
            cut = self.beyond_the_cut(centre, r[:, None] * directions)
            low, high = torch.where(cut, low, r), torch.where(cut, r, high)
        return high

    def factors(self, x: Tensor) -> list[tuple["Space", Tensor]]:
        """Returns the spaces of the factors of a product, with the points of each.

        Raises:
            TypeError: If the space is not a product of at least two.
        """
        if len(self._geometry.factors) < 2:
            raise TypeError(f"the law needs a product of manifolds, but its points are on {self._geometry.name}.")
        spaces = [Space(on_manifold(factor.manifold)) for factor in self._geometry.factors]
        return list(zip(spaces, self._geometry.split(x), strict=True))

    def exchange_factor(self, x: Tensor, other: Tensor, i: int) -> Tensor:
        """Returns points with factor ``i`` of ``x`` and the other factors of ``other``."""
        pairs = enumerate(zip(self._geometry.split(x), self._geometry.split(other), strict=True))
        moved: Tensor = self._geometry.join([one if j == i else two for j, (one, two) in pairs])
        return moved

    def radius(self, x: Tensor) -> Tensor:
        """Returns the distance from the origin, shape ``(*)``: of the factors that have one; else zero."""
        return _radius(self._geometry, x.detach())

    def scaled_radius(self, x: Tensor) -> Tensor:
        """Returns the distance from the origin over ``R``, shape ``(*)``; zero on flat space and without an origin."""
        radius = self.radius(x) / self.length
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
        columns = self.events(x).flatten(1).T
        gradients = [gradient_of(column.sum(), v) for column in columns]
        # In float64: squares of coordinates overflow in float32 before the coordinates do.
        jacobian = torch.stack(gradients, -1).double()
        point = self.events(x).detach().double()
        event = point.shape[1:]
        tangent = jacobian.reshape(*v.shape, *event)
        gram = self.inner(point[:, None, None], tangent[:, :, None], tangent[:, None, :])
        axes = torch.eye(len(columns), dtype=torch.float64, device=x.device).reshape(-1, *event)
        squares = self.inner(point[:, None], axes, axes).abs()
        loss = (jacobian.square() @ squares[..., None]).squeeze(-1) / gram.diagonal(dim1=-2, dim2=-1).abs()
        return x.detach(), torch.linalg.slogdet(gram).logabsdet / 2, loss.amax(-1)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Returns geoopt's inner product (on its ball the shape is wrong without ``keepdim``)."""
        x, u, v = torch.broadcast_tensors(x, u, v)
        return self.manifold.inner(x, u, v, keepdim=True).detach().reshape(x.shape[: x.dim() - self.event_dim])


def _special_point(geometry: Complete, n: int, like: Tensor) -> Tensor:
    if isinstance(geometry, Hadamard):
        return geometry.origin(n, like.dtype, like.device)
    if len(geometry.factors) > 1:
        pairs = zip(geometry.factors, geometry.dims(n), strict=True)
        return geometry.join([_special_point(factor, m, like) for factor, m in pairs])
    event = geometry.event_shape(n)
    axes = torch.eye(math.prod(event[:-1]), event[-1], dtype=like.dtype, device=like.device)
    return geometry.project(axes.reshape(event))


def _radius(geometry: Complete, x: Tensor) -> Tensor:
    if isinstance(geometry, Hadamard):
        return geometry.log0(x)[0].detach().norm(dim=-1)
    if len(geometry.factors) > 1:
        parts = [_radius(factor, part) for factor, part in zip(geometry.factors, geometry.split(x), strict=True)]
        return torch.stack(torch.broadcast_tensors(*parts)).norm(dim=0)
    return x.new_zeros(geometry.batch_of(x.shape))


def gradient_of(output: Tensor, v: Tensor) -> Tensor:
    """Returns the gradient, zero if ``output`` does not depend on ``v``."""
    if not output.requires_grad:
        return torch.zeros_like(v)
    (gradient,) = torch.autograd.grad(output, v, retain_graph=True, materialize_grads=True)
    return gradient


def fixed_noise(*like: Tensor) -> list[Tensor]:
    """Returns standard normal numbers for each tensor, the same at each call, in any dtype."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(each.shape, generator=generator, dtype=torch.float64).to(each) for each in like]


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
