"""Which kernels serve which manifold."""

from collections.abc import Sequence
from typing import Any, Protocol, cast

import geoopt
import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from . import euclidean, lorentz
from .guesses import manifold_remedy, shown

__all__ = ["Kernels", "curvature", "kernels", "register", "same", "with_parameters"]


class Kernels(Protocol):
    """What a module must hold to serve a manifold: pure functions of checked arguments.

    ``exp0`` and ``log0`` return the value together with ``log |det d exp0|`` at the tangent vector, shape ``(*)``; so
    do ``exp_at``, ``exp0`` followed by the translation to ``p``, and its inverse ``log_at``.
    ``translate_tangent`` takes the spatial part of its target (if ``bound`` is given and the space is no line, it is
    shortened smoothly to less than ``bound`` radii), and returns the value and its stretch, or None where it preserves
    Lebesgue measure; of any number of stretches ``log_stretch`` makes the sum of their log-determinants, for the price
    of one.

    Two are optional. ``curvature`` returns the sectional curvature, a tensor of the batch shape of the parameters (zero
    is flat), of a space where it is constant; without it the kit of :mod:`pyro_hyperbolic.testing` names no mistake.
    ``off_manifold_mistake`` says of one event that is off the manifold what it looks like.
    """

    def event_size(self, n: int) -> int: ...
    def dim(self, event_size: int) -> int: ...
    def parameters(self, manifold: Manifold) -> dict[str, Tensor]: ...
    def origin(self, manifold: Manifold, n: int, dtype: torch.dtype | None, device: torch.device | None) -> Tensor: ...
    def contains(self, manifold: Manifold, x: Tensor) -> Tensor: ...
    def exp0(self, manifold: Manifold, v: Tensor) -> tuple[Tensor, Tensor]: ...
    def log0(self, manifold: Manifold, x: Tensor) -> tuple[Tensor, Tensor]: ...
    def exp_at(self, manifold: Manifold, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]: ...
    def log_at(self, manifold: Manifold, p: Tensor, x: Tensor) -> tuple[Tensor, Tensor]: ...
    def log_volume(self, manifold: Manifold, v: Tensor) -> Tensor: ...
    def translate(self, manifold: Manifold, p: Tensor, x: Tensor, inverse: bool) -> Tensor: ...
    def distance(self, manifold: Manifold, x: Tensor, y: Tensor) -> Tensor: ...
    def squared_distance(self, manifold: Manifold, x: Tensor, y: Tensor) -> Tensor: ...
    def translate_tangent(
        self, manifold: Manifold, t: Tensor, v: Tensor, inverse: bool, bound: float | None = None
    ) -> tuple[Tensor, Any]: ...
    def log_stretch(self, n: int, stretches: Sequence[Any]) -> Tensor: ...


_KERNELS: dict[type, Kernels] = {}


def register(manifold_type: type, kernels: Kernels) -> None:
    """Makes ``kernels`` (usually a module) serve ``manifold_type`` and its subclasses."""
    _KERNELS[manifold_type] = kernels


register(geoopt.Lorentz, cast(Kernels, lorentz))
register(geoopt.Euclidean, cast(Kernels, euclidean))


def kernels(manifold: Manifold) -> Kernels:
    """Returns the kernels that serve ``manifold``, those of the nearest registered base class.

    Raises:
        TypeError: If none is registered for its type.
    """
    return _KERNELS[_registered(manifold)]


def curvature(manifold: Manifold) -> Tensor | None:
    """Returns the constant sectional curvature, or None where it is not constant, or the kernels do not say."""
    say = getattr(kernels(manifold), "curvature", None)
    return None if say is None else say(manifold)


def with_parameters(manifold: Manifold, parameters: dict[str, Tensor]) -> Manifold:
    """Returns a manifold of the registered class of ``manifold``, with other values of its parameters."""
    new: Manifold = _registered(manifold)(**parameters)
    return new


def name_of(manifold: Manifold) -> str:
    """Returns the name of the registered class, ``Lorentz`` for every subclass of it."""
    return _registered(manifold).__name__


def _registered(manifold: Manifold) -> type:
    for base in type(manifold).__mro__:
        if base in _KERNELS:
            return base
    known = " or ".join(f"geoopt.{base.__name__}" for base in _KERNELS)
    remedy = manifold_remedy(manifold) or "use one of these, as geoopt.Lorentz(), or register kernels for it"
    raise TypeError(f"the manifold is {shown(manifold)}, but must be a {known}; {remedy}.")


def same(a: Manifold, b: Manifold) -> bool:
    """Returns whether two manifold objects are the same space: the same geometry with the same parameters."""
    if a is b:
        return True
    ours, theirs = kernels(a), kernels(b)
    if ours is not theirs:
        return False
    other = theirs.parameters(b)
    return all(
        value is other[name]
        or (value.shape == other[name].shape and bool((value == other[name].to(value.device)).all()))
        for name, value in ours.parameters(a).items()
    )
