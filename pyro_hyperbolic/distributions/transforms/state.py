r"""What a map depends on, and whether that has changed: the tensors of a module, and their versions.

A transform asks this three times for each batch that it draws and scores, and a flow has dozens of tensors whose memory
the batch has just pushed out of the processor's caches: hence the loops inside of ``map``, and no tree walked anew.
"""

from collections.abc import ValuesView
from itertools import chain
from operator import attrgetter, is_, itemgetter
from typing import Any

import torch
from torch import Tensor

__all__ = ["State", "Tensors", "tensors_of"]

_VERSION, _REQUIRES_GRAD = attrgetter("_version"), attrgetter("requires_grad")
_CHILDREN = itemgetter("_modules")
_GROUPS = ("_parameters", "_buffers")


class Tensors:
    """Finds the parameters and buffers of a module, those that it has when it is called.

    Where to look is remembered as views of dictionaries, which show what is in them at the time. The module itself is
    not kept, nor its ``__dict__``: it owns this object, and a cycle would keep every flow until it is collected.
    """

    def __init__(self) -> None:
        self._states: list[dict[str, Any]] = []  # those of the modules below
        self._below: list[dict[str, Any]] = []
        self._children: list[Any] = []
        self._views: list[ValuesView[Any]] = []
        self._views_below: list[ValuesView[Any]] = []

    def __call__(self, module: torch.nn.Module) -> list[Tensor]:
        """Returns the tensors of ``module``, always the same one."""
        # A ModuleList takes another dictionary when it loses an element.
        below = [module.__dict__["_modules"], *map(_CHILDREN, self._states)]
        children = list(chain.from_iterable(self._views_below))
        if not _identical(below, self._below) or not _identical(children, self._children):
            self._read(module)
        return [value for value in chain.from_iterable(self._views) if value is not None]

    def _read(self, module: torch.nn.Module) -> None:
        states = [each.__dict__ for each in _modules(module)]
        self._states = states[1:]
        self._below = [state["_modules"] for state in states]
        self._views_below = [below.values() for below in self._below]
        self._children = list(chain.from_iterable(self._views_below))
        self._views = [state[name].values() for state in states for name in _GROUPS]


def tensors_of(module: torch.nn.Module) -> list[Tensor]:
    """Returns the parameters and buffers of a module; ``Module.parameters()`` without its bookkeeping, at a tenth."""
    groups = (each.__dict__[name] for each in _modules(module) for name in _GROUPS)
    return [value for group in groups for value in group.values() if value is not None]


class State:
    """Tensors as they were at one time: which they were, and how often they had been edited.

    It holds the tensors: while it lives, no other object can be taken for one of them.
    """

    __slots__ = ("_grad", "_tensors", "_trace", "_versions", "_wanted")

    def __init__(self, tensors: list[Tensor], trace: Any) -> None:
        self._tensors = tensors
        self._trace = trace
        self._grad = torch.is_grad_enabled()
        self._versions = _versions(tensors)
        # Whether gradients are wanted counts too: it can be switched on for a tensor later.
        self._wanted = list(map(_REQUIRES_GRAD, tensors))

    def is_that_of(self, tensors: list[Tensor], trace: Any) -> bool:
        """Returns whether these are the same tensors, unchanged, in the same trace and with gradients on or off."""
        return (
            _identical(self._tensors, tensors)
            and self._grad is torch.is_grad_enabled()
            and self._trace is trace
            and self._versions == _versions(tensors)
            and self._wanted == list(map(_REQUIRES_GRAD, tensors))
        )


def _modules(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Returns the module and those below it, each once."""
    found = {id(module): module}
    stack = [module]
    while stack:
        for child in stack.pop().__dict__["_modules"].values():
            if child is not None and id(child) not in found:
                found[id(child)] = child
                stack.append(child)
    return list(found.values())


def _identical(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(map(is_, a, b))


def _versions(tensors: list[Tensor]) -> list[int]:
    try:
        return list(map(_VERSION, tensors))
    except RuntimeError:  # tensors of inference mode count none
        return [-1 if value.is_inference() else value._version for value in tensors]
