"""When a remembered pair may still answer: all that the map depends on is as it was.

A map depends on what its transform holds, at any depth: tensors, flags (``eval()`` switches dropout off) and the parts
themselves, which can be replaced. Only objects known to keep all of it in their attributes are searched. A closure or a
user's own network may depend on anything, and then nothing is remembered.
"""

import types
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from operator import attrgetter, is_, itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from pyro_hyperbolic.geometry import checks
from pyro_hyperbolic.manifolds import STANDARD, OneParameter

__all__ = ["Contents", "Remembered", "Stamp"]

#: Packages whose objects keep what they depend on in their attributes.
_KNOWN = ("pyro_hyperbolic.", "torch.nn.", "torch.distributions.", "pyro.nn.", "pyro.distributions.", "geoopt.")
#: Where a module keeps its parts. Of its other dictionaries none matters to its output.
_GROUPS = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
_TRAINING, _END = itemgetter("training"), object()
_VERSION, _REQUIRES_GRAD = attrgetter("_version"), attrgetter("requires_grad")


class Remembered:
    """What a transform remembers of its last call. It is no part of the map, and copies have their own."""

    __slots__ = ("__weakref__", "contents", "inverse", "pair")

    def __init__(self) -> None:
        self.pair: Any = None
        self.inverse: weakref.ref[Any] | None = None
        self.contents: Contents | None = None


#: Types of values without parts. The context is that of a PyroModule's current call.
_PLAIN = {
    *(bool, int, float, str, slice, type(None), torch.Size, torch.dtype, torch.device, types.BuiltinFunctionType),
    *(dict, OrderedDict, set, weakref.ref, Remembered, type(STANDARD._pyro_context)),
}


class Contents:
    """What a transform holds at any depth, and the tensors in it.

    A flow holds hundreds of things, and is asked three times for each batch that it draws and scores. So it is searched
    once, and then live views of what it holds are compared: 15 microseconds where a search takes 100.
    """

    def __init__(self, transform: Any) -> None:
        """Raises: RuntimeError, if something else may matter too."""
        self.tensors: list[Tensor] = []
        self._views: list[Iterable[Any]] = []
        self._empty: list[dict[str, Any]] = []
        self._layers: list[dict[str, Any]] = []  # those of torch itself, whose other attributes are sizes
        seen, stack = set(), [transform]
        while stack:
            each = stack.pop()
            if isinstance(each, Tensor):
                self.tensors.append(each)
            elif id(each) not in seen:
                seen.add(id(each))
                views = self._views_of(each)
                stack += [item for item in chain.from_iterable(views) if item.__class__ not in _PLAIN]
                self._views += views[1:] if each is transform else views  # it holds this, and would be in a cycle
        self._items = [*self._all(transform), _END]
        # Held, so that nothing else can come to lie there. A trace would record it, and moves no tensor.
        self._memory = [] if checks.tracing() else list(map(Tensor.detach, self.tensors))
        if not all(map(Tensor.is_set_to, self.tensors, self._memory)):
            raise RuntimeError("a tensor has no memory of its own")

    def _views_of(self, each: Any) -> list[Iterable[Any]]:
        kind: Any = type(each)
        if kind in (list, tuple):
            return [each]
        if kind in (types.FunctionType, types.MethodType) and _is_of_known_package(each):
            return []
        state = getattr(each, "__dict__", None)
        if state is None or not _is_known(kind) or _asks_handlers(each, state):
            raise RuntimeError(f"what a {kind.__name__} depends on is not known")
        if "_modules" not in state:
            return [state.values()]
        groups = [state[name].values() for name in _GROUPS if state[name]]
        self._empty += [state[name] for name in _GROUPS if not state[name]]
        if not kind.__module__.startswith("torch.nn"):
            return [state.values(), *groups]
        self._layers.append(state)
        return groups

    def _all(self, transform: Any) -> Iterable[Any]:
        own = [value for value in transform.__dict__.values() if value.__class__ is not Remembered]
        return chain(own, map(_TRAINING, self._layers), *self._views)

    def are_still_those_of(self, transform: Any) -> bool:
        """Returns whether the transform holds the same things, in the same places."""
        return (
            not any(self._empty)
            and all(map(is_, chain(self._all(transform), (_END,)), self._items))
            and (checks.tracing() or all(map(Tensor.is_set_to, self.tensors, self._memory)))
        )


class Stamp:
    """All that a map depends on, as it was at one time.

    It holds the tensors and their memory: while it lives, nothing else can be taken for them.
    """

    def __init__(self, transform: Any, x: Tensor, y: Tensor, *, validate: bool | None) -> None:
        """Raises: RuntimeError, if a change could go unnoticed."""
        self._mode = _mode(x)
        if self._mode is None:
            raise RuntimeError("no pair is kept in function transforms and compiled graphs")
        remembered = transform.__dict__["_remembered"]
        contents = remembered.contents
        if contents is None or not contents.are_still_those_of(transform):
            contents = Contents(transform)
            remembered.contents = None if checks.tracing() else contents
        self._contents = contents
        self._tensors = [x, y, *contents.tensors]
        self._versions = list(map(_VERSION, self._tensors))  # raises for tensors of inference mode, which have none
        self._wanted = list(map(_REQUIRES_GRAD, self._tensors))
        self._memory = [] if checks.tracing() else [x.detach(), y.detach()]
        self._values = [value.detach().clone() for value in self._tensors] if checks.validating(validate) else []

    def holds(self, transform: Any, *, validate: bool | None) -> bool:
        """Returns whether nothing has changed."""
        return (
            self._mode == _mode(self._tensors[0])
            and self._contents.are_still_those_of(transform)
            and self._versions == list(map(_VERSION, self._tensors))
            and self._wanted == list(map(_REQUIRES_GRAD, self._tensors))
            and all(map(Tensor.is_set_to, self._tensors, self._memory))  # those of x and y
            and (not checks.validating(validate) or self._has_its_values())
        )

    def _has_its_values(self) -> bool:
        # Edits in place through .data leave no other trace. To read values makes a GPU wait.
        return bool(self._values) and all(map(torch.equal, self._tensors, self._values))


def _asks_handlers(each: Any, state: dict[str, Any]) -> bool:
    """Returns whether a PyroModule reads what effect handlers can replace; of a learnable curvature they do not."""
    return bool(state.get("_pyro_samples") or (state.get("_pyro_params") and not isinstance(each, OneParameter)))


@lru_cache(maxsize=512)
def _is_known(kind: type) -> bool:
    if kind.__module__ == "builtins":
        return False  # a function among others
    bases = [base for base in kind.__mro__ if base.__module__ not in ("builtins", "abc", "typing")]
    return all(_is_of_known_package(base) or vars(base).get("is_self_contained", False) for base in bases)


def _is_of_known_package(value: Any) -> bool:
    return f"{value.__module__}.".startswith(_KNOWN)


def _mode(x: Tensor) -> tuple[Any, ...] | None:
    """Returns what a result depends on besides the transform and a point, or None where tensors are not ordinary."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return None
    device = x.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    trace = torch._C._get_tracing_state() if checks.tracing() else None
    return torch.is_grad_enabled(), autocast, trace, _last_step


#: Another object after each step of any optimiser: some, as Pyro's ClippedAdam, edit parameters through ``.data``.
_last_step = object()


def _stepped(*_: Any) -> None:
    global _last_step
    _last_step = object()


register_optimizer_step_post_hook(_stepped)
