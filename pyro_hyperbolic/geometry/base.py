r"""Abstract base classes of geometries, one class per capability of a manifold.

A geometry is bound to one geoopt manifold object for the duration of one call. It reads each parameter of the object,
such as ``k``, at most once. The formulas of a manifold are in its own file and nowhere else.

Shapes: ``n`` is the intrinsic dimension. Tangent coordinates at the origin are ``(*, n)``, points ``(*, *event)``,
where ``event`` is ``event_shape(n)``, for example ``(n + 1,)`` on the hyperboloid.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, ClassVar

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic.numerics import inverse_sinhc, norm

from .autocast import matmul
from .origins import known_tangent

__all__ = ["Complete", "Embedded", "Geometry", "Hadamard", "Nested"]


class Geometry(ABC):
    """Any manifold: sizes, parameters, membership, distance, and parts of error messages.

    Args:
        manifold: The geoopt manifold object.
    """

    #: The name of the geoopt class, used in messages and in saved files.
    name: ClassVar[str]
    #: The number of dimensions of an event.
    event_dim: ClassVar[int] = 1
    #: The shape of points, for error messages.
    coordinates: ClassVar[str] = "(*, n)"
    #: The end of the error message about an invalid parameter.
    parameter_remedy: ClassVar[str] = ""
    #: How to make points, for error messages.
    remedy: ClassVar[str] = "pass coordinates of points"
    #: Which coordinates have a nearest point, for error messages.
    projectable: ClassVar[str] = "coordinates must be finite"

    def __init__(self, manifold: Manifold) -> None:
        self.manifold: Any = manifold

    @abstractmethod
    def event_shape(self, n: int) -> torch.Size:
        """Returns the shape of one point in ``n`` dimensions."""

    @abstractmethod
    def dim(self, shape: Sequence[int]) -> int:
        """Returns the intrinsic dimension of points of this shape; less than 1 if points cannot have it."""

    def only_dim(self) -> int | None:
        """Returns the intrinsic dimension if the manifold object fixes it, or None (default)."""
        return None

    @property
    def factors(self) -> list[Any]:
        """The geometries of the factors of a product; a manifold that is no product is its own only factor."""
        return [self]

    def dims(self, n: int) -> list[int]:
        """Returns the intrinsic dimensions of the factors, which add up to ``n``."""
        return [n]

    def split(self, x: Tensor) -> list[Tensor]:
        """Returns the points of the factors, each of its own event shape."""
        return [x]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Returns the points whose factors are ``parts``, of batch shapes that broadcast."""
        return parts[0]

    def parameters(self) -> dict[str, Tensor]:
        """Returns the positive tensors that distinguish manifolds of this kind; none by default."""
        return {}

    def curvature(self) -> Tensor | None:
        """Returns the sectional curvature, shape ``()`` or a batch shape, or None (default) if it is not constant."""
        return None

    def check_settings(self) -> None:  # noqa: B027 - most manifolds need no check
        """Raises a ValueError if the geoopt object has settings that this geometry does not support."""

    @abstractmethod
    def contains(self, x: Tensor) -> Tensor:
        """Returns whether each event is a point of the manifold, up to rounding, shape ``(*)``."""

    @abstractmethod
    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the geodesic distance, shape ``(*)``."""

    @abstractmethod
    def squared_distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the square of the distance, smooth at ``x = y``, shape ``(*)``."""

    def distance_matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the distances of all pairs, shape ``(*, N, m)``, of points ``(*, N, *event)`` and ``(*, m, *event)``.

        Zero where points are equal, and symmetric if ``y is x``. Derived from :meth:`distance`; override it to compute
        what belongs to one point once per point.
        """
        node = -1 - self.event_dim
        pairs = torch.broadcast_tensors(x.unsqueeze(node), y.unsqueeze(node - 1))
        # In one dimension, because a batch of parameters broadcasts with the batch and the points.
        flat = self.distance(*(points.flatten(node - 1, node) for points in pairs))
        apart = flat.unflatten(-1, (x.size(node), y.size(node)))
        apart = apart.masked_fill((pairs[0] == pairs[1]).flatten(node + 1).all(-1), 0.0)
        return (apart + apart.mT) / 2 if y is x else apart

    def midpoint(self, x: Tensor, weights: Tensor) -> Tensor:
        """Returns the normalised weighted sum of points ``(N, *, *event)`` over the first dimension, ``(*, *event)``.

        Weights ``(N, *)`` sum to one. Implement it if it is a closed form.
        """
        raise TypeError(f"{self.name} has no midpoint in closed form; use frechet_mean.")

    def explain(self, outside: Tensor, where: Tensor) -> tuple[str, str]:
        """Returns what is wrong with the first event off the manifold, and the remedy, for an error message.

        Args:
            outside: The events off the manifold, shape ``(N, *event)``, on the CPU.
            where: Boolean mask of these events in the batch.
        """
        return "", f"{self.remedy}, and use the same manifold and dtype everywhere"

    def mistake(self, event: Tensor) -> str:
        """Returns the likely mistake that put a finite event off the manifold, or "unclear"."""
        return "unclear"

    def with_parameters(self, parameters: dict[str, Tensor]) -> Manifold:
        """Returns a manifold of this kind with the given parameters."""
        if parameters:
            raise NotImplementedError(f"{type(self).__name__} has parameters; override with_parameters")
        manifold: Manifold = self.manifold
        return manifold

    def parameters_are_positive(self) -> list[Tensor]:
        """Returns whether each parameter is positive and finite, as boolean tensors, without a host-device sync."""
        return [((value > 0) & value.isfinite()).all() for value in self.parameters().values()]

    def batch_of(self, shape: torch.Size) -> torch.Size:
        """Returns the batch part of the shape of points."""
        return shape[: len(shape) - self.event_dim]

    def batch_shapes(self) -> list[torch.Size]:
        """Returns the shapes of the parameters, which broadcast with batch shapes."""
        return [value.shape for value in self.parameters().values()]

    def __eq__(self, other: object) -> bool:
        """Returns whether two geometries are of the same kind and have the same parameters."""
        if not isinstance(other, Geometry) or type(self) is not type(other):
            return False
        if self.manifold is other.manifold:
            return True
        if self.name != other.name or self.only_dim() != other.only_dim():
            return False
        theirs = other.parameters()
        return theirs.keys() == (ours := self.parameters()).keys() and all(
            value is theirs[name]
            or (value.shape == theirs[name].shape and bool((value == theirs[name].to(value.device)).all()))
            for name, value in ours.items()
        )

    __hash__ = None  # type: ignore[assignment]


class Complete(Geometry):
    r"""A manifold whose geodesics never end: tangent vectors, and the state of a continuous flow.

    A tangent vector at ``x`` is ``m = vector_size(n)`` numbers, whose dot products are inner products. They are either
    components in an orthonormal frame, ``m = n``, or the coordinates of an isometric embedding in R^m, where
    :meth:`tangent` projects.

    The state ``s`` of a continuous flow is ``p`` numbers: tangent coordinates where there is a global chart, otherwise
    the coordinates of the point.
    """

    def vector_size(self, n: int) -> int:
        """Returns the number ``m`` of components of a tangent vector."""
        return n

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        """Returns the tangent vector at ``x`` that is closest to ``u``, both ``(*, m)``."""
        return u

    @abstractmethod
    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        r"""Returns :math:`\exp_x(u)` for tangent vectors ``(*, m)``."""

    @abstractmethod
    def log(self, x: Tensor, y: Tensor) -> Tensor:
        r"""Returns the shortest ``u``, shape ``(*, m)``, with :math:`\exp_x(u) = y`; jumps at the cut locus."""

    def towards(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns a vector ``(*, m)`` at ``x`` that points to ``y``, and a squared distance ``(*)``, both smooth.

        ``log(x, y)`` with its squared length, unless that is not smooth at the cut locus.
        """
        u = self.log(x, y)
        return u, (u * u).sum(-1)

    def project(self, x: Tensor) -> Tensor:
        """Returns new tensors, the points nearest to ``x`` in the space of coordinates; coordinates are points here."""
        return x.clone()

    def attraction(self, x: Tensor, y: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        r"""Returns the squared distances of :meth:`towards`, ``(J, *)``, and the map from weights to vectors
        :math:`w \mapsto \sum_j w_j \operatorname{towards}(x, y_j)`, from ``(J, *)`` to ``(*, m)``.

        Override it to avoid the vectors ``(J, *, m)``: on most manifolds they are linear in ``y``.

        Args:
            x: Points, shape ``(*, *event)``.
            y: A list of points, shape ``(J, *, *event)``.
        """
        u, square = self.towards(x, y)
        return square, lambda weights: (weights.unsqueeze(-1) * u).sum(0)

    def path(self, x0: Tensor, x1: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the point at time ``t`` on the way from ``x0`` to ``x1`` that flow matching takes, and its velocity.

        Here it is the geodesic.

        Args:
            x0: Points, shape ``(*, *event)``.
            x1: Points of the same shape.
            t: Times in [0, 1], shape ``(*)``.

        Returns:
            Points ``(*, *event)`` and tangent vectors ``(*, m)`` there.
        """
        x = self.exp(x1, (1 - t).unsqueeze(-1) * self.log(x1, x0))
        return x, self._geodesic_velocity(x, x0, x1, t)

    def _geodesic_velocity(self, x: Tensor, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """Returns the velocity at ``x``, the point at ``t`` of the geodesic from ``x0`` to ``x1``."""
        # From the end that is further away: at the other it is 0 / 0.
        early = t < 0.5
        further = torch.where(early.reshape(early.shape + (1,) * self.event_dim), x1, x0)
        return self.log(x, further) / torch.where(early, 1 - t, -t).unsqueeze(-1)

    def guidance(self, x: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]:
        r"""Returns the way from ``x`` to the targets at time ``t`` of paths that end at states ``s``.

        These are the squared distances of :meth:`towards`, ``(J, *)``; the log-volumes of exp at the targets on the way
        to ``x``; and the map from weights and gains, ``(J, *)``, to vectors ``(*, m)``,
        :math:`w, g \mapsto \sum_j w_j (k_j + g_j u_j)`. Here :math:`u_j` points to the target, as :meth:`towards` has
        it, and :math:`k_j` is the velocity of the isometries that carry the target. By default targets are the ends of
        paths, which do not move, and log-volumes are zero.

        Args:
            x: Points, shape ``(*, *event)``.
            s: A list of states, shape ``(J, *, p)``.
            t: Times, shape ``(*)``.
        """
        square, combine = self.attraction(x, self.point(s)[0])
        return square, square.new_zeros(()), lambda weights, gains: combine(weights * gains)

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Returns numbers ``(*, f)`` that determine the point and depend smoothly on it, for a network to read."""

    def state_size(self, n: int) -> int:
        """Returns the number ``p`` of coordinates of a state."""
        return n

    @abstractmethod
    def state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the state ``(*, p)`` of points, and the log-volume of :meth:`point` there."""

    @abstractmethod
    def point(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the points of states ``(*, p)``, and the log-volume of this map."""

    @abstractmethod
    def velocity(self, s: Tensor, u: Tensor) -> Tensor:
        """Returns the velocity ``(*, p)`` of the state of a point that moves with the tangent vector ``u``."""

    def retract(self, s: Tensor) -> Tensor:
        """Returns the state closest to any ``p`` numbers."""
        return s

    def difference(self, s: Tensor, target: Tensor) -> Tensor:
        """Returns the velocity ``(*, p)`` that leads from a state to one nearby in unit time, to first order."""
        return target - s

    def away_from_zero(self, s: Tensor) -> Tensor:
        """Returns ``p`` numbers unchanged, except zeros that are equally far from many states."""
        return s

    def frame(self, s: Tensor) -> Tensor:
        """Returns an orthonormal basis ``(*, n, p)`` of the velocities of states, of one orientation.

        The rows are orthogonal in R^p too. It may jump as ``s`` moves.
        """
        return torch.eye(s.size(-1), dtype=s.dtype, device=s.device).expand(*s.shape, s.size(-1))

    def lift_size(self, n: int) -> int:
        """Returns the number ``q`` of unconstrained coordinates in :meth:`lifted`."""
        return n

    def lifted(self, z: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns the points ``x`` of any vectors ``(*, q)``, and :math:`\log w`, shape ``(*)``.

        If ``z`` has the density :math:`w(z)\, p(x(z))`, then ``x`` has the density ``p`` with respect to volume.
        """
        return self.point(z)

    def lift(self, x: Tensor, random: bool = False) -> Tensor:
        """Returns vectors ``z`` of points, ``x(z) = x``; if ``random``, drawn from ``w`` given ``x``."""
        return self.state(x)[0]


def mixed(weights: Tensor, y: Tensor) -> Tensor:
    """Returns ``sum_j w_j y_j``, shape ``(*, m)``, of weights ``(J, *)`` and vectors ``(J, *, m)``."""
    if y.shape[1:-1].numel() > 1:  # of a batch of manifolds
        return (weights.unsqueeze(-1) * y).sum(0)
    return matmul(weights.movedim(0, -1), y.reshape(len(y), -1))


def products(x: Tensor, y: Tensor) -> Tensor:
    """Returns ``x . y_j``, shape ``(J, *)``, of vectors ``(*, m)`` and ``(J, 1, ..., 1, m)``."""
    return matmul(x, y.reshape(len(y), -1).mT).movedim(-1, 0)


def sum_of_squares(x: Tensor, y: Tensor) -> Tensor:
    """Returns ``|x - y_j|^2``, shape ``(J, *)``, of vectors ``(*, m)`` and ``(J, *, m)``."""
    # Coordinate by coordinate: the vectors are short, and loops over a short last dimension are slow.
    columns = zip(x.unbind(-1), y.unbind(-1), strict=True)
    return reduce(torch.add, ((a - b).square() for a, b in columns))


def mean_or_nan(x: Tensor, weights: Tensor, event_dim: int) -> Tensor:
    """Returns the weighted mean of unit vectors or rotations ``(N, *, *event)``; NaN where only rounding is left."""
    found = (weights.reshape(weights.shape + (1,) * event_dim) * x).sum(0)
    size = found.detach().abs().amax(tuple(range(-event_dim, 0)), keepdim=True)
    return found.masked_fill(size <= 64 * torch.finfo(x.dtype).eps, math.nan)


class Embedded(Complete):
    r"""A compact manifold in a flat space, without a global chart: sphere, torus, rotations.

    Implement ``project``, ``exp``, ``log``, ``features``, ``uniform`` and ``log_total_volume``. Where velocities are
    not all of R^p, implement ``frame``; for inference ``lift_shape``, ``of_directions`` and ``directions``.
    """

    remedy = "move coordinates to the manifold with geometry.project(M, x)"

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """Returns the points nearest to ``x``, an event of the flat space."""

    def midpoint(self, x: Tensor, weights: Tensor) -> Tensor:
        return self.project(mean_or_nan(x, weights, self.event_dim))

    @abstractmethod
    def log_total_volume(self, n: int) -> float:
        """Returns the logarithm of the volume of the manifold."""

    @abstractmethod
    def uniform(self, shape: torch.Size, n: int, like: Tensor) -> Tensor:
        """Returns points ``(*shape, *event)``, uniform with respect to volume, of the dtype and device of ``like``."""

    def state_size(self, n: int) -> int:
        return self.event_shape(n).numel()

    # The state is the point, of one dimension. Override these methods together if it is not.

    def state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(()).expand(x.shape[:-1])

    def point(self, s: Tensor) -> tuple[Tensor, Tensor]:
        return s, s.new_zeros(()).expand(s.shape[:-1])

    def velocity(self, s: Tensor, u: Tensor) -> Tensor:
        return u

    def retract(self, s: Tensor) -> Tensor:
        return self.project(s)

    def away_from_zero(self, s: Tensor) -> Tensor:
        return torch.where((s == 0).all(-1, keepdim=True), 1.0, s)

    def lift_shape(self, n: int) -> tuple[int, int]:
        """Returns the number and the size of the vectors whose directions determine a point."""
        raise NotImplementedError(
            f"{self.name} has no lift; implement lift_shape, of_directions and directions in {type(self).__name__}."
        )

    def of_directions(self, z: Tensor) -> Tensor:
        """Returns the points of vectors ``(*, q)``; uniform if their directions are, whatever their lengths."""
        raise NotImplementedError

    def directions(self, x: Tensor) -> Tensor:
        """Returns unit vectors of points, shape ``(*, *lift_shape)``."""
        raise NotImplementedError

    # Each vector has the density |z|^2 N(z; 0, I) / m. With N(z; 0, I) alone the shortest of many vectors, of which
    # small steps turn the direction, sets the step size of NUTS: on 400 circles it needed 15 times as many gradients.

    def lift_size(self, n: int) -> int:
        return math.prod(self.lift_shape(n))

    def lifted(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x = self.of_directions(z)
        n = self.dim(x.shape)
        _, m = shape = self.lift_shape(n)
        squares = (z * z).unflatten(-1, shape).sum(-1)
        log_density = (squares / m).log() - (squares + m * math.log(2 * math.pi)) / 2
        return x, log_density.sum(-1) + self.log_total_volume(n)

    def lift(self, x: Tensor, random: bool = False) -> Tensor:
        z = self.directions(x)
        if random:
            length = norm(torch.randn(*z.shape[:-1], z.size(-1) + 2, dtype=z.dtype, device=z.device))
        return (z * (length if random else math.sqrt(2))).flatten(-2)  # the latter is at the mode


class Hadamard(Complete):
    r"""A manifold on which ``exp0`` is a global chart and an isometry :math:`T_p` carries the origin to ``p``.

    Implement ``exp0``, ``log0`` and ``translate``. The other maps follow from these; override one if that is faster or
    more accurate. :math:`T_p` must move along the geodesic from the origin, :math:`T_p \circ \exp_o = \exp_p \circ
    \mathrm{PT}_{o \to p}`. Log-volumes are with respect to Riemannian volume and have shape ``(*)``.
    """

    remedy = "map tangent coordinates (*, n) to points with exp0(M, v)"

    @abstractmethod
    def exp0(self, v: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`\exp_o(v)`, a new tensor, and the log-volume :math:`\log |\det d\exp_o|` at ``v``."""

    @abstractmethod
    def log0(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`v = \log_o(x)`, a new tensor, and the log-volume at ``v``."""

    @abstractmethod
    def translate(self, p: Tensor, x: Tensor, inverse: bool = False) -> Tensor:
        r"""Returns :math:`T_p\, x`, or :math:`T_p^{-1} x`."""

    def origin(self, n: int, dtype: torch.dtype | None, device: torch.device | None) -> Tensor:
        """Returns the origin, with the batch shape of the parameters and gradients to them."""
        values = list(self.parameters().values())
        like = values[0] if values else torch.empty(())
        return self.exp0(like.new_zeros(n, dtype=dtype or like.dtype, device=device or like.device))[0]

    def exp_at(self, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`T_p \exp_o(v)` and the log-volume there."""
        x, log_volume = self.exp0(v)
        return self.translate(p, x), log_volume

    def log_at(self, p: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`v = \log_o(T_p^{-1} x)` and the log-volume there."""
        return self.log0(self.translate(p, x, inverse=True))

    def log_volume(self, v: Tensor) -> Tensor:
        r"""Returns :math:`\log |\det d\exp_o|` at ``v``, with respect to Riemannian volume."""
        return self.exp0(v)[1]

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return norm(self.log_at(y, x)[0]).squeeze(-1)

    def squared_distance(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.log_at(y, x)[0] ** 2).sum(-1)

    def log_at_of_tangent(self, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns ``log_at(p, exp0(v))``; override it if it can be computed where ``exp0(v)`` overflows."""
        return self.log_at(p, self.exp0(v)[0])

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return self.exp_at(x, u)[0]

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return self.log_at(x, y)[0]

    def path(self, x0: Tensor, x1: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`x_t = T_{\gamma(t)} \exp_o((1 - t) v_0)` and its velocity, :math:`\gamma(t) = \exp_o(t v_1)`.

        With :math:`v_i = \log_o(x_i)`. In flat space this is the geodesic. If ``x0`` has a wrapped normal distribution
        of scale ``s`` about the origin, then ``x_t`` has one of scale ``(1 - t) s`` about :math:`\gamma(t)`. Geodesics
        would pass between the ends through a waist of a width that falls exponentially with their length.
        """
        v0, v1 = self.state(x0)[0], self.state(x1)[0]
        target = self.exp0(t.unsqueeze(-1) * v1)[0]
        x = self.exp_at(target, (1 - t).unsqueeze(-1) * v0)[0]
        return x, self._geodesic_velocity(x, self.translate(target, x0), target, t) + self.drift(x, v1)

    def drift(self, x: Tensor, v: Tensor) -> Tensor:
        r"""Returns the velocity ``(*, n)`` of translations, :math:`\frac{d}{d\epsilon} T_{\exp_o(\epsilon v)} x`.

        It is linear in ``v``, shape ``(*, n)``.
        """
        v = v.expand(torch.broadcast_shapes(v.shape, (*self.batch_of(x.shape), 1)))
        zero = torch.zeros_like(v)
        found: Tensor = torch.func.jvp(lambda v: self.log(x, self.translate(self.exp0(v)[0], x)), (zero,), (v,))[1]
        return found

    def guidance(self, x: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]:
        targets = self.exp0(t.unsqueeze(-1) * s)[0]
        square, combine = self.attraction(x, targets)
        log_volume = self.log_at(targets, x)[1]

        def guide(weights: Tensor, gains: Tensor) -> Tensor:
            return self.drift(x, mixed(weights, s)) + combine(weights * gains)

        return square, log_volume, guide

    def features(self, x: Tensor) -> Tensor:
        return self.log0(x)[0]

    def state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.overflow_safe_log(x)

    def point(self, s: Tensor) -> tuple[Tensor, Tensor]:
        return self.exp0(s)

    def velocity(self, s: Tensor, u: Tensor) -> Tensor:
        r"""Returns :math:`\frac{d}{d\epsilon} \log_o \exp_x(\epsilon u)` at :math:`x = \exp_o(s)`."""
        x = self.exp0(s)[0]
        s, u = torch.broadcast_tensors(s, u)
        zero = torch.zeros_like(u)
        found: Tensor = torch.func.jvp(lambda v: self.log0(self.exp_at(x, v)[0])[0], (zero,), (u,))[1]
        return found

    def overflow_safe_log(self, x: Tensor, loc: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns ``log0(x)`` or ``log_at(loc, x)``, from the known tangent vector of ``x`` where ``x`` overflowed."""
        known = known_tangent(x)
        if known is None:
            return self.log0(x) if loc is None else self.log_at(loc, x)
        lost = ~x.isfinite().flatten(x.dim() - self.event_dim).all(-1)
        event = lost.reshape(lost.shape + (1,) * self.event_dim)
        origin = self.origin(self.dim(x.shape), x.dtype, x.device).detach()
        x = torch.where(event, origin, x)
        v, log_volume = self.log0(x) if loc is None else self.log_at(loc, x)
        if loc is not None:
            known = self.log_at_of_tangent(loc, torch.where(lost.unsqueeze(-1), known[0], 0.0))
        return torch.where(lost.unsqueeze(-1), known[0], v), torch.where(lost, known[1], log_volume)


class Nested(Hadamard):
    """A Hadamard manifold whose coordinate subspaces through the origin are manifolds of the same kind and parameters.

    A block of tangent coordinates is then a point of a smaller manifold of this kind, and has isometries of its own.
    Such manifolds have constant curvature: every reflection of the tangent space at the origin extends to an isometry.
    """

    def velocity(self, s: Tensor, u: Tensor) -> Tensor:
        r"""Returns :math:`u_\parallel + \frac{r}{\sinh r} u_\perp`, :math:`r = \sqrt{-K} |s|`: a Jacobi field."""
        curvature = self.curvature()
        if curvature is None:
            return super().velocity(s, u)
        size = -curvature.to(s.dtype)
        size = size.unsqueeze(-1) if size.dim() else size
        across, along = inverse_sinhc(size * (s * s).sum(-1, keepdim=True))
        return across * u + size * along * (s * u).sum(-1, keepdim=True) * s

    def blur(self, p: Tensor, radius: Tensor) -> Tensor:
        r"""Returns the error of a distance ``radius`` from ``p``, in units of rounding, shape ``(*)``.

        By default that is how far rounding moves points at :math:`\rho = |\log_o p| + radius`: :math:`\sinh \rho` at
        curvature -1.
        """
        return self._log_circle(self._farthest(p, radius)).exp()

    def _farthest(self, p: Tensor, radius: Tensor) -> Tensor:
        return norm(self.log0(p)[0]).squeeze(-1) + radius

    def _log_circle(self, radius: Tensor) -> Tensor:
        r"""Returns :math:`\log\sinh` of a radius, that of a circle over :math:`2 \pi`, at curvature -1."""
        return radius.log() + self.log_volume(torch.stack([radius, torch.zeros_like(radius)], -1))

    @abstractmethod
    def translate_tangent(
        self, t: Tensor, v: Tensor, inverse: bool = False, bound: float | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`w = \log_o(T_t \exp_o(v))` and :math:`\log |\det dw/dv|` with respect to Lebesgue measure.

        Args:
            t: Spatial coordinates of the image of the origin, any vector ``(*, n)``.
            v: Tangent coordinates, shape ``(*, n)``.
            inverse: Whether to apply the inverse.
            bound: If given and ``n > 1``, ``t`` is shortened smoothly so that the isometry is well-conditioned.
        """

    @abstractmethod
    def reflect(self, u: Tensor, x: Tensor) -> Tensor:
        r"""Returns :math:`\exp_o(v - 2 (u \cdot v) u)` at :math:`v = \log_o(x)`, an isometry.

        Args:
            u: Unit normal of the mirror in tangent coordinates, shape ``(*, n)``; zero for the identity.
            x: Points.
        """
