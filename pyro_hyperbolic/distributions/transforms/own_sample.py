"""The last pair of points that a transform made, remembered until anything that the map depends on changes.

A map depends on everything its transform holds, at any depth: tensors, settings and parts. Only objects that are known
to keep their whole state in attributes are searched. A closure, or a network of an unknown class, can depend on
anything, so nothing is remembered.
"""

import types
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache, partial
from itertools import chain
from operator import attrgetter, is_
from typing import Any

import torch
from pyro.poutine.lift_messenger import LiftMessenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.substitute_messenger import SubstituteMessenger
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from pyro_hyperbolic.geometry import checks
from pyro_hyperbolic.manifolds import STANDARD, OneParameter

__all__ = ["OwnSample"]

#: Packages whose objects keep their whole state in attributes.
_KNOWN = (
    "pyro_hyperbolic.",
    "torch.nn.",
    "torch.distributions.",
    "pyro.nn.",
    "pyro.distributions.",
    "geoopt.",
    "zuko.",
)
_STATE = attrgetter("_version", "requires_grad")


class OwnSample:
    """What a transform remembers of its last call. A copy of the transform starts empty."""

    __slots__ = ("__weakref__", "pair", "parts")

    def __init__(self) -> None:
        self.pair: _Pair | None = None
        self.parts: _Parts | None = None

    def remember(self, transform: Any, x: Tensor, y: Tensor, log_det: Tensor, *, forward: bool) -> None:
        """Remembers the pair if every change of the map would be noticed."""
        self.pair = None
        try:
            if self.parts is None or not self.parts.are_unchanged(transform):
                self.parts = _Parts(transform)
            self.pair = _Pair(self.parts, x, y, log_det, forward, transform._validate_args)
        except RuntimeError:  # unknown parts, or tensors that count no edits
            return
        # A backward pass frees the graph. The graph must not hold the transform, which holds the graph.
        drop = partial(_drop_pair, weakref.ref(self))
        for node in {(y if forward else x).grad_fn, log_det.grad_fn} - {None}:
            node.register_prehook(drop)  # type: ignore[union-attr]

    def recall(self, transform: Any, x: Tensor | None = None, y: Tensor | None = None) -> "_Pair | None":
        """Returns the pair, if ``x`` or ``y`` is the very tensor that the transform made, or both are its tensors."""
        pair = self.pair
        if (
            pair is not None
            and (x is pair.x or (x is None and pair.forward))
            and (y is pair.y or (y is None and not pair.forward))
            and pair.is_valid(transform)
        ):
            return pair
        return None


def _drop_pair(found: "weakref.ref[OwnSample]", _: Any) -> None:
    own = found()
    if own is not None:
        own.pair = None


class _Pair:
    """Two points with their log-determinant, and the state of the map when they were made."""

    def __init__(
        self, parts: "_Parts", x: Tensor, y: Tensor, log_det: Tensor, forward: bool, validate: bool | None
    ) -> None:
        self.x, self.y, self.log_det, self.forward = x, y, log_det, forward
        self._mode = _mode(x)
        if self._mode is None:
            raise RuntimeError("nothing is remembered in function transforms and compiled graphs")
        self._parts = parts
        self._tensors = [x, y, *parts.tensors]
        self._states = list(map(_STATE, self._tensors))
        self._memory = [x.detach(), y.detach()]
        # An edit in place through .data leaves no other trace. Comparing values syncs, so it is part of validation.
        self._values = [each.detach().clone() for each in self._tensors] if checks.validating(validate) else []

    def is_valid(self, transform: Any) -> bool:
        """Returns whether nothing has changed since."""
        return (
            self._mode == _mode(self.x)
            and self._parts.are_unchanged(transform)
            and self._states == list(map(_STATE, self._tensors))
            and all(map(Tensor.is_set_to, (self.x, self.y), self._memory))
            and (not checks.validating(transform._validate_args) or self._has_its_values())
        )

    def _has_its_values(self) -> bool:
        equal = [(a == b).all() for a, b in zip(self._tensors, self._values, strict=False)]
        return bool(equal) and checks.all_hold(equal)


class _Parts:
    """Everything that a transform holds, at any depth.

    A flow holds hundreds of objects and is asked three times a batch. It is searched once; after that, live views of
    the containers are compared, which takes a fifth of the time.
    """

    def __init__(self, transform: Any) -> None:
        self.tensors: list[Tensor] = []
        self._views: list[Any] = []
        self._empty: list[Any] = []
        seen, stack = {id(transform)}, [*transform.__dict__.values(), *_GLOBAL_HOOKS]
        while stack:
            each = stack.pop()
            if isinstance(each, Tensor):
                self.tensors.append(each)
            elif type(each) not in _PLAIN and id(each) not in seen:
                seen.add(id(each))
                for view in _views_of(each):
                    stack += view
                    (self._views if view else self._empty).append(view)
        self._items, self._sizes = [*self._all(transform)], self._sizes_now(transform)
        self._memory = list(map(Tensor.detach, self.tensors))
        if not all(map(Tensor.is_set_to, self.tensors, self._memory)):
            raise RuntimeError("a tensor has no memory of its own")

    def _all(self, transform: Any) -> Iterable[Any]:
        # The transform holds this object, so to hold its attributes too would be a reference cycle.
        own = [value for value in transform.__dict__.values() if type(value) is not OwnSample]
        return chain(own, *self._views)

    def _sizes_now(self, transform: Any) -> list[int]:
        return [len(transform.__dict__), *map(len, self._views)]

    def are_unchanged(self, transform: Any) -> bool:
        """Returns whether the transform holds the same objects by the same names, with the same memory in tensors."""
        return (
            self._sizes == self._sizes_now(transform)
            and not any(self._empty)
            and all(map(is_, self._all(transform), self._items))
            and all(map(Tensor.is_set_to, self.tensors, self._memory))
        )


#: Hooks of all modules, which can change what any network returns.
_GLOBAL_HOOKS = (torch.nn.modules.module._global_forward_hooks, torch.nn.modules.module._global_forward_pre_hooks)
#: Types whose values have no parts. The context is that of a PyroModule's current call.
_PLAIN = {
    *(bool, int, float, str, slice, type(None), torch.Size, torch.dtype, torch.device),
    *(weakref.ref, OwnSample, type(STANDARD._pyro_context)),
}


def _views_of(each: Any) -> tuple[Any, ...]:
    """Returns live views of what an object holds; raises a RuntimeError if its output can depend on more."""
    kind: Any = type(each)
    if kind in (list, tuple, set):
        return (each,)
    if kind in (dict, OrderedDict):
        return each.keys(), each.values()
    each = getattr(each, "_torchdynamo_orig_callable", each)  # a compiled method
    owner = getattr(each, "__self__", None)
    if isinstance(each, types.MethodType) and _is_plain(each.__func__):
        return ((owner,),)
    if isinstance(each, types.BuiltinFunctionType) and (owner is None or isinstance(owner, (types.ModuleType, type))):
        return ()
    if isinstance(each, (type, types.FunctionType)) and _is_plain(each):
        return ()
    if kind is partial:
        return (each.func,), each.args, each.keywords.values()
    state = getattr(each, "__dict__", None)
    if state is None or not _is_known(kind) or _asks_handlers(each, state):
        raise RuntimeError(f"what a {kind.__name__} depends on is not known")
    # Names of attributes are stable in the known packages. To compare them too would take twice the time.
    return (state.values(),) if f"{kind.__module__}.".startswith(_KNOWN) else (state.keys(), state.values())


def _is_plain(function: Any) -> bool:
    """Returns whether a class or a function is a known package's own, and closes over nothing."""
    if isinstance(function, type):
        return f"{function.__module__}.".startswith(_KNOWN)
    return (
        isinstance(function, types.FunctionType)
        and function.__closure__ is None
        and f"{function.__globals__['__name__']}.".startswith(_KNOWN)
    )


def _asks_handlers(each: Any, state: dict[str, Any]) -> bool:
    """Returns whether a PyroModule reads values that effect handlers replace; for a curvature, :func:`_mode` tells."""
    return bool(state.get("_pyro_samples") or (state.get("_pyro_params") and not isinstance(each, OneParameter)))


@lru_cache(maxsize=512)
def _is_known(kind: type) -> bool:
    if kind.__module__ == "builtins":
        return False  # a function, for example
    bases = [base for base in kind.__mro__ if base.__module__ not in ("builtins", "abc", "typing")]
    return all(f"{base.__module__}.".startswith(_KNOWN) or vars(base).get("is_self_contained", False) for base in bases)


def _mode(x: Tensor) -> tuple[Any, ...] | None:
    """Returns what a result depends on besides the transform and the point; None where that cannot be compared."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return None
    if any(isinstance(handler, _REPLACING) for handler in _PYRO_STACK):
        return None
    device = x.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    # Pyro's compiled ELBOs replay parameters around the whole model, where own samples are scored too.
    replays = tuple(each for each in _PYRO_STACK if isinstance(each, ReplayMessenger) and each.params is not None)
    return torch.is_grad_enabled(), autocast, torch._C._get_tracing_state(), replays, _last_step


#: Effect handlers that give parameters, such as a learnable curvature, other values.
_REPLACING = (LiftMessenger, SubstituteMessenger)

#: A new object after each step of any optimiser: some, such as Pyro's ClippedAdam, edit parameters through ``.data``.
_last_step = object()


def _stepped(*_: Any) -> None:
    global _last_step
    _last_step = object()


register_optimizer_step_post_hook(_stepped)
