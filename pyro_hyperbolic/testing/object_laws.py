r"""Laws of an object: copies, caches, dtypes, memory, conditioning, arguments."""

import copy
import pickle
import types
import warnings
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.utils import lazy_property

from .agreement import scalars_agree, tolerance, vectors_agree
from .diagnosis import LawViolation, event_text, not_checked
from .oracles import Space, base_of, fixed_noise, leaves_of

__all__ = [
    "arguments_satisfy_their_constraints",
    "cache_survives_an_optimiser_step",
    "conditioning_is_respected",
    "deepcopy_pickle_state_dict",
    "does_not_alias_its_input",
    "float32_agrees_with_float64",
]


def does_not_alias_its_input(transform: Transform, x: Tensor) -> None:
    """Checks that results do not share memory with the argument, which optimisers edit in place."""
    given = x.clone()
    y = transform(x).detach().clone()
    law, cause = "does_not_alias_its_input", "the argument is edited in place: an operation that ends in _"
    domain = Space(transform.domain)
    vectors_agree(law, "t(x) does not change x", domain.flat(given), domain.flat(x), given, 0.0, cause, at=domain)
    for formula, argument, value in (("t(x)", x, transform(x)), ("t.inv(y)", y, transform.inv(y))):
        if value.untyped_storage().data_ptr() == argument.untyped_storage().data_ptr():
            raise LawViolation(
                law,
                f"{formula} has its own memory",
                f"x of shape {tuple(x.shape)}",
                "a fresh tensor",
                "the argument, or a view of it",
                "a slice or the argument is returned, which an optimiser would corrupt in place; clone it",
            )


def possible_copies(transform: Transform) -> dict[str, str]:
    """Returns for each way of copying the transform why it fails, or an empty text."""
    errors = {}
    for name, make in _COPIES.items():
        try:
            make(transform)
            errors[name] = ""
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}"
    return errors


def deepcopy_pickle_state_dict(transform: Transform, x: Tensor, *, possible: dict[str, str] | None = None) -> None:
    """Checks that a forward pass does not prevent copies of a transform, and that copies are the same map.

    A transform that holds a lambda, or has a local class, cannot be pickled but may be correct: the law warns that
    this was not checked.

    Args:
        transform: A transform, before its first forward pass: a cached graph may already prevent copies.
        x: Points of its domain.
        possible: The result of ``possible_copies`` before the first forward pass; by default it is called now.
    """
    law, possible = "deepcopy_pickle_state_dict", possible_copies(transform) if possible is None else possible
    y = transform(x.clone().requires_grad_())
    ways = {**_COPIES, "with_cache": lambda transform: transform.with_cache(1 - transform._cache_size)}
    if isinstance(transform, torch.nn.Module) and not possible["copy.deepcopy"]:
        ways["state_dict"] = _via_state_dict
    for name, make in ways.items():
        if possible.get(name):
            not_checked(law, f"{name} cannot copy the transform ({possible[name]})")
            continue
        lost = "with_cache does not pass on an argument of the constructor" if name == "with_cache" else ""
        try:
            other = make(transform)(x.clone())
        except Exception as error:
            if name == "with_cache" and isinstance(error, NotImplementedError):
                continue  # optional in torch, missing in most of Pyro's modules
            raise LawViolation(
                law,
                f"{name} copies the transform after a forward pass",
                f"x of shape {tuple(x.shape)}",
                "a copy",
                f"{type(error).__name__}: {error}",
                lost or "a cached graph or a local function is part of the state: drop caches in __getstate__",
            ) from error
        cause = lost or "a tensor is neither a parameter nor a buffer, so state_dict misses it"
        same = f"the transform after {name} is the same map"
        vectors_agree(law, same, y, other, x, 1e-6, cause, of=Space(transform.codomain), at=Space(transform.domain))


_COPIES: dict[str, Callable[[Any], Any]] = {
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda transform: pickle.loads(pickle.dumps(transform)),
}


def cache_survives_an_optimiser_step(transform: Transform, x: Tensor) -> None:
    """Checks that each training step scores the same ``y`` with the parameters of that step.

    ``y`` is data, or the transform's own image from before the step. The law steps every leaf on which the values
    depend, registered as a parameter or not, and restores it. It steps in place, as Adam does, and through ``.data``
    after a backward pass, as Pyro's ClippedAdam does.
    """
    try:
        trained = copy.deepcopy(transform)
    except Exception as error:
        not_checked("cache_survives_an_optimiser_step", f"the transform cannot be deep-copied ({error})")
        return
    made = trained(x.clone())
    leaves = leaves_of(made.sum() + trained.log_abs_det_jacobian(x.clone(), made).sum())
    if not leaves:
        return
    data, kept = made.detach().clone(), [leaf.detach().clone() for leaf in leaves]
    fresh = copy.deepcopy(trained)
    try:
        for through_data in (False, True):
            for _ in range(2):
                _check_scores(trained, fresh, x, data, leaves)
                made = trained(x.clone())
                if through_data:
                    _check_backward(made, x, leaves)
                for leaf, noise in zip(leaves, fixed_noise(*leaves), strict=True):
                    if through_data:
                        leaf.data.add_(1e-2 * noise)
                    else:
                        with torch.no_grad():
                            leaf.add_(1e-2 * noise)
                fresh = copy.deepcopy(trained)
                _check_scores(trained, fresh, x, made, [])
    finally:
        with torch.no_grad():
            for leaf, value in zip(leaves, kept, strict=True):
                leaf.copy_(value)


def _check_scores(trained: Any, fresh: Any, x: Tensor, y: Tensor, leaves: list[Tensor]) -> None:
    """Checks the score of ``y`` against that of a clone by a fresh copy, and that its gradients exist."""
    law, cause = "cache_survives_an_optimiser_step", "a stale cache: it is keyed on the identity of its argument only"
    formula = "t.inv(y) and its log-det use the parameters of this step"
    found, expected = _score(trained, y), _score(fresh, y.detach().clone())
    bound, domain = tolerance(trained, x, y), Space(trained.domain)
    vectors_agree(law, formula, expected[0], found[0], x, bound, cause, of=domain, at=domain)
    scalars_agree(law, formula, expected[1], found[1], x, bound, cause, at=domain)
    if leaves:
        _check_backward(torch.cat([value.reshape(-1) for value in found]), x, leaves)


def _check_backward(output: Tensor, x: Tensor, leaves: list[Tensor]) -> None:
    try:
        torch.autograd.grad(output.sum(), leaves, allow_unused=True)
    except RuntimeError as error:
        law, text = "cache_survives_an_optimiser_step", str(error).splitlines()[0]
        formula, cause = "each step has gradients of its own", "a cached graph, which the step before has freed"
        raise LawViolation(law, formula, f"x of shape {tuple(x.shape)}", "a gradient", text, cause) from error


def float32_agrees_with_float64(transform: Transform, x: Tensor) -> None:
    """Checks that value and log-determinant in float32 equal those in float64, up to float32 rounding.

    The law casts all tensors of a copy. A transform that cannot be copied, or computes with tensors that a cast does
    not reach, such as those of a closure, may be correct: the law warns that this was not checked.
    """
    law, domain, codomain = "float32_agrees_with_float64", Space(transform.domain), Space(transform.codomain)
    # Both start from a state in float32: a point that is rounded to float32 is off the manifold.
    s = domain.state(x).detach().float()
    results = []
    for dtype in (torch.float32, torch.float64):
        try:
            cast = _cast(transform, dtype)
            point = domain.point(s.to(dtype))
            image = cast(point)
            results.append((point, image, cast.log_abs_det_jacobian(point, image)))
        except Exception as error:
            not_checked(law, f"the transform cannot be cast to {dtype} ({type(error).__name__}: {error})")
            return
        if any(leaf.dtype != dtype for leaf in leaves_of(image)):
            not_checked(law, f"the transform cannot be cast to {dtype}: it depends on a leaf that is not registered")
            return
    (x32, y32, found), (x64, y64, expected) = results
    bound = tolerance(transform, x32, y32)
    if y32.dtype != torch.float32:
        cause = "a constant of float64 among its tensors, or a call of .double()"
        raise LawViolation(law, "t(x).dtype = x.dtype", "x in float32", "float32", str(y32.dtype), cause)
    cause = "digits are lost to cancellation, or an operation overflows in float32"
    vectors_agree(law, "t(x.float()) = t(x)", y64, y32.double(), x64, bound, cause, of=codomain, at=domain)
    scalars_agree(law, "the same for the log-det", expected, found.double(), x64, bound, cause, at=domain)


def arguments_satisfy_their_constraints(distribution: dist.TorchDistribution) -> None:
    """Checks that each name in ``arg_constraints`` is an attribute, and that its value satisfies its constraint.

    Pyro and torch read arguments by these names. Values that are None or lazy, or have dependent constraints, must
    only exist.
    """
    try:
        declared = distribution.arg_constraints
    except NotImplementedError:
        return  # torch warns about it
    law = "arguments_satisfy_their_constraints"
    for name, constraint in declared.items():
        lazy = isinstance(getattr(type(distribution), name, None), lazy_property)
        try:
            value = getattr(distribution, name)
        except Exception as error:
            formula, found = f"d.{name} is an argument of d", f"{type(error).__name__}: {error}"
            cause = "arg_constraints names a missing attribute; Pyro's reparametrisations and torch's repr read it"
            raise LawViolation(law, formula, type(distribution).__name__, "a tensor", found, cause) from error
        if value is None or lazy or constraints.is_dependent(base_of(constraint)):
            continue
        if not _satisfies(constraint, torch.as_tensor(value)):
            formula, cause = f"d.{name} satisfies {constraint}", "a parametrisation other than arg_constraints says"
            raise LawViolation(law, formula, str(distribution), f"a value in {constraint}", str(value), cause)


def _satisfies(constraint: Constraint, value: Tensor) -> bool:
    if bool(constraint.check(value).all()):
        return True
    if constraint is not constraints.positive_definite:
        return False
    # Products and inverses of triangular factors are symmetric and positive up to rounding.
    rounding, value = 64 * torch.finfo(value.dtype).eps, value.detach().double()
    skew, least = torch.linalg.matrix_norm(value - value.mT), torch.linalg.eigvalsh(value)[..., 0]
    return bool((torch.maximum(skew, -least) <= rounding * torch.linalg.matrix_norm(value)).all())


def conditioning_is_respected(conditional: Any, x: Tensor, contexts: Tensor) -> None:
    """Checks that ``condition(context)`` depends on the context, and each batch member only on its own.

    Args:
        conditional: A conditional transform.
        x: One point for each context, shape ``(B, *event)``.
        contexts: At least two different contexts, shape ``(B, c)``.
    """
    law, together = "conditioning_is_respected", conditional.condition(contexts)(x)
    transform = conditional.condition(contexts[0])
    first, domain, codomain = transform(x), Space(transform.domain), Space(transform.codomain)
    if torch.allclose(first[1:], together[1:], rtol=1e-9, atol=1e-9):
        cause = "the context is not passed to the network, or only its first row is"
        raise LawViolation(
            law, "t depends on its context", f"x = {event_text(domain.flat(x), 1)}", "another image", "the same", cause
        )
    alone = torch.cat([conditional.condition(c)(point[None]) for c, point in zip(contexts, x, strict=True)])
    bound = tolerance(transform, x, together)
    cause = "the contexts of a batch are mixed: averaged, or broadcast over the wrong dimension"
    formula = "t.condition(c)(x)[i] = t.condition(c[i])(x[i])"
    vectors_agree(law, formula, alone, together, x, bound, cause, of=codomain, at=domain)


def _score(transform: Transform, y: Tensor) -> tuple[Tensor, Tensor]:
    x = transform.inv(y)
    return x, transform.log_abs_det_jacobian(x, y)


def _via_state_dict(transform: Any) -> Any:
    loaded = copy.deepcopy(transform)
    for value in loaded.parameters():
        value.data.zero_()
    loaded.load_state_dict(transform.state_dict())
    return loaded


def _cast(transform: Transform, dtype: torch.dtype) -> Any:
    """Returns a copy with every floating point tensor cast, including plain attributes."""
    new = copy.deepcopy(transform)
    stack: list[Any] = [new]
    seen: set[int] = set()
    while stack:
        item = stack.pop()
        if id(item) in seen or not hasattr(item, "__dict__"):
            continue
        seen.add(id(item))
        if isinstance(item, torch.nn.Module):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                item.to(dtype)
        for name, value in list(vars(item).items()):
            if isinstance(value, Tensor) and value.is_floating_point():
                setattr(item, name, value.detach().to(dtype))
            elif isinstance(value, list | tuple):
                stack.extend(value)
            elif isinstance(value, dict):
                stack.extend(value.values())
            elif not isinstance(value, type | types.FunctionType | types.ModuleType):
                stack.append(value)
    return new
