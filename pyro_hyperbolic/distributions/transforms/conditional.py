r"""The base class of conditional transforms, which raises a helpful error if one is applied without a context."""

from abc import abstractmethod
from typing import Any, NoReturn

import torch
from geoopt.manifolds.base import Manifold
from pyro.distributions.conditional import ConditionalTransformModule
from pyro.nn import PyroModule
from torch.distributions import Transform
from torch.distributions.constraints import Constraint

from pyro_hyperbolic.distributions.constraints import on_manifold
from pyro_hyperbolic.manifolds import PyroABCMeta

from .saved_space import SavesSpace

__all__ = ["NeedsContext"]


class _PyroConditional(ConditionalTransformModule, PyroModule, metaclass=PyroABCMeta):
    """``PyroModule[ConditionalTransformModule]``, which Pyro cannot make or copy: an ABC has another metaclass."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        state = getattr(self, "__getstate__", self.__dict__.copy)()  # Python 3.10 has no object.__getstate__
        return _new_instance, (type(self).__mro__[1],), state


def _new_instance(module: type) -> Any:
    cls: Any = PyroModule[module]
    return cls.__new__(cls)


type(PyroModule)._pyro_mixin_cache.setdefault(ConditionalTransformModule, _PyroConditional)


class NeedsContext(SavesSpace, ConditionalTransformModule, Transform, metaclass=PyroABCMeta):
    """Abstract base of conditional transforms, whose ``condition(context)`` returns a transform.

    It is a ``Transform``, so that ``TransformedDistribution`` asks for its shapes and gets the error of ``forward``.
    For any other class, torch's own error does not say which argument is wrong, or why.
    """

    @property
    @abstractmethod
    def manifold(self) -> Manifold:
        """The geoopt manifold on which the conditioned transform acts."""

    @property
    def domain(self) -> Constraint:  # type: ignore[override]
        """The manifold."""
        return on_manifold(self.manifold)

    codomain = domain

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises: a conditional transform cannot be applied without a context."""
        raise TypeError(
            f"{type(self).__name__} is conditional and has no context; call .condition(context) before applying it, or "
            f"use pyro.distributions.ConditionalTransformedDistribution."
        )

    forward_shape = inverse_shape = log_abs_det_jacobian = forward

    __hash__ = object.__hash__  # Transform sets it to None
    __repr__ = torch.nn.Module.__repr__
