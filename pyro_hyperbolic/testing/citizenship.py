r"""Laws of a transform as an object: copies, caches, dtypes, memory, conditioning."""

import copy
import pickle
import types
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform

from pyro_hyperbolic import geometry

from .frames import manifold_of
from .laws import scalars_agree, tolerance, vectors_agree
from .violations import LawViolation, event_text, smallest

__all__ = [
    "cache_survives_an_optimiser_step",
    "conditioning_is_respected",
    "deepcopy_pickle_state_dict",
    "does_not_alias_its_input",
    "float32_agrees_with_float64",
]


def does_not_alias_its_input(transform: Transform, x: Tensor) -> None:
    """Checks that no result shares memory with its argument: optimisers edit parameters in place."""
    given = x.clone()
    y = transform(x).detach().clone()
    if not torch.equal(x, given):
        law, cause = "does_not_alias_its_input", "the argument is edited in place: an operation that ends in _"
        at = smallest(given, (x != given).any(-1))
        raise LawViolation(law, "t(x) leaves x as it is", f"x = {event_text(given, at)}", "x", event_text(x, at), cause)
    for formula, argument, value in (("t(x)", x, transform(x)), ("t.inv(y)", y, transform.inv(y))):
        if value.numel() and value.untyped_storage().data_ptr() == argument.untyped_storage().data_ptr():
            raise LawViolation(
                "does_not_alias_its_input",
                f"{formula} has memory of its own",
                f"x of shape {tuple(x.shape)}",
                "a fresh tensor",
                "the argument, or a view of it",
                "a slice or an identity is returned: a parameter made by it is corrupted by its optimiser; clone it",
            )


def deepcopy_pickle_state_dict(transform: Transform, x: Tensor) -> None:
    """Checks that copies made after a forward pass are possible, and agree with the original."""
    y = transform(x.clone().requires_grad_())
    ways: dict[str, Callable[[], Any]] = {
        "copy.deepcopy": lambda: copy.deepcopy(transform),
        "pickle": lambda: pickle.loads(pickle.dumps(transform)),
        "with_cache": lambda: transform.with_cache(1 - transform._cache_size),
    }
    if isinstance(transform, torch.nn.Module):
        ways["state_dict"] = lambda: _reloaded(transform)
    for name, make in ways.items():
        try:
            other = make()(x.clone())
        except Exception as error:
            if name == "with_cache" and isinstance(error, NotImplementedError):
                continue  # optional in torch, and missing in most of Pyro's modules
            raise LawViolation(
                "deepcopy_pickle_state_dict",
                f"{name} copies the transform after a forward pass",
                f"x of shape {tuple(x.shape)}",
                "a copy",
                f"{type(error).__name__}: {error}",
                "a cached graph or a local function is part of the state: drop caches in __getstate__",
            ) from error
        if not torch.allclose(other, y, rtol=1e-5, atol=1e-6):
            raise LawViolation(
                "deepcopy_pickle_state_dict",
                f"the transform after {name} is the same map",
                f"x = {event_text(x, 0)}",
                event_text(y, 0),
                event_text(other, 0),
                "with_cache does not pass on an argument of the constructor"
                if name == "with_cache"
                else "a tensor is neither a parameter nor a buffer, so state_dict misses it",
            )


def cache_survives_an_optimiser_step(transform: Transform, x: Tensor) -> None:
    """Checks that with the same ``y`` in every training step, each step sees the parameters of that step.

    Parameters are moved as Adam does, in place, and as Pyro's ClippedAdam does, through ``.data``. A copy of the
    transform is trained; without parameters there is nothing to check.
    """
    if not isinstance(transform, torch.nn.Module):
        return
    try:
        trained = copy.deepcopy(transform)
    except Exception:
        return  # deepcopy_pickle_state_dict says so
    parameters = [value for value in trained.parameters() if value.requires_grad]
    y = trained(x).detach().clone()
    generator = torch.Generator().manual_seed(0)
    for through_data in (False, True):
        for _ in range(2 if parameters else 0):
            found = _scored(trained, y)
            expected = _scored(copy.deepcopy(trained), y.clone())
            bound = tolerance(transform, x, y, power=1)
            cause = "a stale cache: it is keyed on the identity of its argument alone"
            law, formula = (
                "cache_survives_an_optimiser_step",
                "t.inv(y) and its log-det use the parameters of this step",
            )
            vectors_agree(law, formula, expected[0], found[0], x, bound, cause)
            scalars_agree(law, formula, expected[1], found[1], x, bound, cause)
            try:
                gradients = torch.autograd.grad(found[0].sum() + found[1].sum(), parameters, allow_unused=True)
            except RuntimeError as error:
                text = str(error).splitlines()[0]
                raise LawViolation(law, formula, f"x of shape {tuple(x.shape)}", "a gradient", text, cause) from error
            for value, gradient in zip(parameters, gradients, strict=True):
                if gradient is None:
                    continue
                step = 1e-2 * torch.randn(value.shape, generator=generator).to(value)
                if through_data:
                    value.data.add_(step)
                else:
                    with torch.no_grad():
                        value.add_(step)


def float32_agrees_with_float64(transform: Transform, x: Tensor) -> None:
    """Checks that in float32 the value and the log-determinant are those of float64, up to float32 rounding."""
    single, double = _cast(transform, torch.float32), _cast(transform, torch.float64)
    domain = manifold_of(transform.domain)
    kernels = geometry.kernels(domain)
    # The same point in both: its tangent coordinates in float32. (A point rounded to float32 is off the manifold.)
    flat = kernels.event_size(1) == 1
    v = (x if flat else kernels.log0(domain, x)[0]).detach().float()
    x32, x64 = (v, v.double()) if flat else (kernels.exp0(domain, v)[0], kernels.exp0(domain, v.double())[0])
    y32, y64 = single(x32), double(x64)
    law, bound = "float32_agrees_with_float64", tolerance(transform, x32, y32, power=1)
    if y32.dtype != torch.float32:
        cause = "a constant of float64 among its tensors, or a call of .double()"
        raise LawViolation(law, "t(x).dtype = x.dtype", "x of float32", "float32", str(y32.dtype), cause)
    cause = "digits are lost to cancellation, or an operation overflows in float32"
    vectors_agree(law, "t(x.float()) = t(x)", y64, y32.double(), x64, bound, cause)
    found, expected = single.log_abs_det_jacobian(x32, y32).double(), double.log_abs_det_jacobian(x64, y64)
    scalars_agree(law, "the same for the log-det", expected, found, x64, bound, cause)


def conditioning_is_respected(conditional: Any, x: Tensor, contexts: Tensor) -> None:
    """Checks that ``condition(context)`` depends on the context, and a batch of contexts on each member's own.

    Args:
        conditional: A conditional transform.
        x: One point for each context, shape ``(B, n + 1)``.
        contexts: Two different contexts or more, shape ``(B, c)``.
    """
    law, together = "conditioning_is_respected", conditional.condition(contexts)(x)
    first = conditional.condition(contexts[0])(x)
    if torch.allclose(first[1:], together[1:], rtol=1e-9, atol=1e-9):
        cause = "the context is not passed to the network, or only its first row is"
        raise LawViolation(
            law, "t depends on its context", f"x = {event_text(x, 1)}", "another image", "the same", cause
        )
    alone = torch.cat([conditional.condition(c)(point[None]) for c, point in zip(contexts, x, strict=True)])
    bound = tolerance(conditional.condition(contexts[0]), x, together, power=1)
    cause = "the contexts of a batch are mixed: averaged, or broadcast over the wrong dimension"
    vectors_agree(law, "t.condition(c)(x)[i] = t.condition(c[i])(x[i])", alone, together, x, bound, cause)


def _scored(transform: Transform, y: Tensor) -> tuple[Tensor, Tensor]:
    x = transform.inv(y)
    return x, transform.log_abs_det_jacobian(x, y)


def _reloaded(transform: Any) -> Any:
    loaded = copy.deepcopy(transform)
    for value in loaded.parameters():
        value.data.zero_()
    loaded.load_state_dict(transform.state_dict())
    return loaded


def _cast(transform: Transform, dtype: torch.dtype) -> Any:
    """Returns a copy with every floating point tensor of that dtype, constants in plain attributes too."""
    try:
        new = copy.deepcopy(transform)
    except Exception:
        new = copy.copy(transform)  # deepcopy_pickle_state_dict says so
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
