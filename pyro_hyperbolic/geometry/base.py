r"""What a manifold can do: the capabilities that every other part of the package asks for, and what follows from them.

A geometry is bound to one geoopt manifold object for the length of one call: it reads the parameters of the object,
such as ``k``, at most once. Nothing outside of a manifold's own file knows its formulas.

Shapes: ``n`` is the intrinsic dimension; tangent coordinates at the origin are ``(*, n)``, points ``(*, *event)`` with
the event shape that the geometry says, ``(n + 1,)`` on the hyperboloid.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic.numerics import norm

from .origins import known_tangent

__all__ = ["Geometry", "Hadamard", "Nested"]


class Geometry(ABC):
    """Any manifold: sizes, parameters, membership, distance, and its own words for errors.

    Args:
        manifold: The geoopt manifold object.
    """

    #: The name of the geoopt class, in messages and in saved files.
    name: ClassVar[str]
    #: Number of dimensions of an event.
    event_dim: ClassVar[int] = 1
    #: The event shape in words.
    coordinates: ClassVar[str] = "(*, n)"
    #: What a parameter is, for the error that one is out of its domain.
    parameter_remedy: ClassVar[str] = ""

    def __init__(self, manifold: Manifold) -> None:
        self.manifold: Any = manifold

    @abstractmethod
    def event_shape(self, n: int) -> torch.Size:
        """Returns the shape of one point in ``n`` dimensions."""

    @abstractmethod
    def dim(self, shape: Sequence[int]) -> int:
        """Returns the intrinsic dimension of points of that shape, or less than 1 if no point has it."""

    def parameters(self) -> dict[str, Tensor]:
        """Returns the positive tensors that tell one manifold of this kind from another; none by default."""
        return {}

    def curvature(self) -> Tensor | None:
        """Returns the sectional curvature where it is constant, shape ``()`` or a batch; None (default) elsewhere."""
        return None

    def check_settings(self) -> None:  # noqa: B027 - most have none
        """Raises a ValueError if the geoopt object has settings under which points are something else."""

    @abstractmethod
    def contains(self, x: Tensor) -> Tensor:
        """Returns whether each event is a point of the manifold, up to rounding, shape ``(*)``."""

    @abstractmethod
    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the geodesic distance, shape ``(*)``."""

    @abstractmethod
    def squared_distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the square of the distance, smooth at ``x = y``, shape ``(*)``."""

    def explain(self, outside: Tensor, where: Tensor) -> tuple[str, str]:
        """Returns words for events off the manifold: what is wrong with the first, and how points are made.

        Args:
            outside: The events, shape ``(N, *event)``, on the CPU.
            where: Which of the batch they are, boolean.
        """
        return "", "map tangent coordinates with exp0(M, v), and use one manifold and one dtype all along"

    def mistake(self, event: Tensor) -> str:
        """Returns what one finite event that is off the manifold looks like, a known mistake or "unclear"."""
        return "unclear"

    def with_parameters(self, parameters: dict[str, Tensor]) -> Manifold:
        """Returns a manifold of this kind with other values of its parameters."""
        if parameters:
            raise NotImplementedError(f"{type(self).__name__} does not say how to make one of its manifolds")
        manifold: Manifold = self.manifold
        return manifold

    def parameters_are_positive(self) -> list[Tensor]:
        """Returns whether they are, and finite, each as a boolean tensor; nothing waits for their values."""
        return [((value > 0) & value.isfinite()).all() for value in self.parameters().values()]

    def batch_of(self, shape: torch.Size) -> torch.Size:
        """Returns the batch part of the shape of points."""
        return shape[: len(shape) - self.event_dim]

    def batch_shapes(self) -> list[torch.Size]:
        """Returns the shapes of the parameters, which broadcast with batch shapes."""
        return [value.shape for value in self.parameters().values()]

    def __eq__(self, other: object) -> bool:
        """Whether two geometries are the same space: of one kind, with the same parameters."""
        if not isinstance(other, Geometry) or type(self) is not type(other):
            return False
        if self.manifold is other.manifold:
            return True
        theirs = other.parameters()
        return theirs.keys() == (ours := self.parameters()).keys() and all(
            value is theirs[name]
            or (value.shape == theirs[name].shape and bool((value == theirs[name].to(value.device)).all()))
            for name, value in ours.items()
        )

    __hash__ = None  # type: ignore[assignment]


class Hadamard(Geometry):
    r"""A manifold on which ``exp0`` is a global chart and an isometry :math:`T_p` carries the origin to ``p``.

    Of an implementation three functions are asked for, ``exp0``, ``log0`` and ``translate``; the rest follows, and may
    be overridden where that is faster or more accurate. :math:`T_p` must move along the geodesic from the origin:
    :math:`T_p \circ \exp_o = \exp_p \circ \mathrm{PT}_{o \to p}`.
    """

    @abstractmethod
    def exp0(self, v: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`\exp_o(v)` and :math:`\log |\det d\exp_o|` there, with respect to Riemannian volume."""

    @abstractmethod
    def log0(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`v = \log_o(x)`, a fresh tensor, and :math:`\log |\det d\exp_o|` at ``v``."""

    @abstractmethod
    def translate(self, p: Tensor, x: Tensor, inverse: bool = False) -> Tensor:
        r"""Returns :math:`T_p\, x`, or :math:`T_p^{-1} x`."""

    def origin(self, n: int, dtype: torch.dtype | None, device: torch.device | None) -> Tensor:
        """Returns the origin, with the batch shape of the parameters and a gradient to them."""
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
        r"""Returns :math:`\log |\det d\exp_o|` at ``v``, with respect to Riemannian volume, shape ``(*)``."""
        return self.exp0(v)[1]

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the geodesic distance, shape ``(*)``."""
        return norm(self.log_at(y, x)[0]).squeeze(-1)

    def squared_distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the square of the distance, smooth at ``x = y``, shape ``(*)``."""
        return (self.log_at(y, x)[0] ** 2).sum(-1)

    def log_at_of_tangent(self, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns ``log_at(p, exp0(v))``, where it can also if that point is out of range."""
        return self.log_at(p, self.exp0(v)[0])

    def recalled(self, x: Tensor, loc: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns ``log0(x)`` or ``log_at(loc, x)``, by the vector of which ``x`` was made where it is out of range."""
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
    """A Hadamard manifold whose coordinate subspaces through the origin are manifolds of its own kind and parameters.

    So a block of tangent coordinates is a point of a smaller such manifold, which an isometry can move.
    """

    @abstractmethod
    def translate_tangent(
        self, t: Tensor, v: Tensor, inverse: bool = False, bound: float | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`w = \log_o(T_t \exp_o(v))` and :math:`\log |\det dw/dv|`, of Lebesgue measure.

        Args:
            t: The target of the translation, any vector ``(*, n)``.
            v: Tangent coordinates, shape ``(*, n)``.
            inverse: Whether to apply the inverse.
            bound: If given and ``n > 1``, ``t`` is shortened smoothly so that the isometry is well-conditioned.
        """
