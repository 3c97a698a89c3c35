"""Argument checks, whose errors name the value, the domain and the remedy.

Shapes and dtypes are always checked. Values are only checked while validation is on (``pyro.enable_validation``, on by
default in Pyro), because reading a value is a host-device sync, and cannot be traced, compiled or vmapped.
"""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np
import torch
from geoopt.manifolds.base import Manifold
from numpy.typing import ArrayLike
from torch import Tensor

from .base import Complete, Geometry, Hadamard
from .origins import known_tangent
from .registry import bind, chart, complete
from .remedies import shown, tensor_remedy

__all__ = [
    "OVERFLOW_REMEDY",
    "Array",
    "all_hold",
    "as_floating",
    "as_real",
    "as_tensor",
    "as_tensor_like",
    "check_batches",
    "check_callable",
    "check_chart",
    "check_complete",
    "check_count",
    "check_finite_result",
    "check_fit",
    "check_floating",
    "check_list",
    "check_manifold",
    "check_nearest",
    "check_number",
    "check_pair",
    "check_points",
    "check_positive",
    "check_same_dtype",
    "check_same_size",
    "check_set",
    "check_shape",
    "check_tangent",
    "check_vectors",
    "describe",
    "describe_values",
    "floating_dtype",
    "is_positive",
    "same_value",
    "shown",
    "tracing",
    "validating",
]


#: Numbers that are read and not differentiated: tensors, NumPy arrays, DataFrames, nested lists.
Array = Tensor | ArrayLike

#: The default remedy for an overflow.
OVERFLOW_REMEDY = "use float64, a smaller scale, or a larger k"

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# Torch has few operations for these.
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, *_UNSIGNED)

# Below this norm a NaN cannot be infinity minus infinity, so it has another cause than overflow.
_SAFE_NORM = {dtype: torch.finfo(dtype).max ** 0.25 for dtype in _DTYPES}


def tracing() -> bool:
    """Returns whether ``torch.jit.trace`` is recording."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


def validating(setting: bool | None = None) -> bool:
    """Returns ``setting``, or Pyro's if it is None; False while tracing, compiling or vmapping."""
    return bool(
        (torch.distributions.Distribution._validate_args if setting is None else setting)
        and not torch.compiler.is_compiling()
        and not tracing()
        and not torch._C._are_functorch_transforms_active()
    )


def describe(manifold: Manifold | Geometry) -> str:
    """Returns the name and parameters of the manifold, for example ``Lorentz(k=1)``."""
    geometry = bind(manifold)
    values = geometry.parameters().items()
    return f"{geometry.name}({', '.join(f'{key}={describe_values(value)}' for key, value in values)})"


def check_floating(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is {shown(value)}, but must be a torch.Tensor; {tensor_remedy(value)}.")
    if value.dtype not in _DTYPES:
        remedy = ".real" if value.is_complex() else ".to(torch.get_default_dtype()) or .double()"
        raise TypeError(
            f"{name} has dtype {value.dtype}, but coordinates must be floating point, 16 to 64 bits; use {remedy}."
        )


def as_tensor(value: Any) -> Tensor | None:
    """Returns a tensor, a number, a nested list, a NumPy array or a DataFrame as a tensor; None if it is none of them.

    Arrays are copied where torch cannot read them: read-only ones, and those of another byte order. Lists are read as
    float64, which their numbers are. A sparse tensor is none of them: what a matrix of distances leaves out is not 0.
    """
    if isinstance(value, Tensor) and value.layout != torch.strided:
        return None
    if not isinstance(value, (Tensor, int, float)) and hasattr(value, "__array__"):
        value = np.asarray(value)
        value = value.astype(value.dtype.newbyteorder("="), copy=not value.flags.writeable)
    try:
        tensor = torch.as_tensor(value)
        is_plain = tensor.is_floating_point() and not isinstance(value, (Tensor, np.ndarray))
        return torch.as_tensor(value, dtype=torch.float64) if is_plain else tensor
    except (TypeError, ValueError, RuntimeError):
        return None


def as_real(name: str, value: Any, remedy: str) -> Tensor:
    """Returns a number, a nested list, an array or a tensor as a real tensor, or raises."""
    tensor = as_tensor(value)
    full = [method for method in ("toarray", "to_dense") if hasattr(value, method)]  # of scipy, of torch
    if tensor is None and full:
        remedy = f"a sparse matrix has to be full: use {name}.{full[0]}()"
    if tensor is None or tensor.dtype not in (*_DTYPES, *_INTEGERS):
        raise TypeError(f"{name} = {shown(value)}, but must be a real number or a tensor of them; {remedy}.")
    # Of the largest, beyond int64, only the order would matter; they are refused.
    if tensor.dtype in _UNSIGNED:
        tensor = tensor.long()
        if bool((tensor < 0).any()):
            raise TypeError(f"{name} = {shown(value)}, with integers above {2**63 - 1}; use floats.")
    return tensor


def as_floating(name: str, value: Any, remedy: str) -> Tensor:
    """Returns real numbers as a floating point tensor: in their own dtype, or the default one of Python numbers."""
    real = as_real(name, value, remedy)
    has_own = hasattr(value, "dtype") and real.is_floating_point()
    return real if has_own else real.to(torch.get_default_dtype())


def as_tensor_like(value: Any, like: Tensor) -> Any:
    """Returns a Python number as a tensor of the dtype and device of ``like``, and anything else as it is."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return torch.as_tensor(float(value), dtype=like.dtype, device=like.device) if is_number else value


def floating_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """Returns ``dtype``, or the default dtype if it is None; raises if it is not floating point."""
    if dtype is None:
        return torch.get_default_dtype()
    if not isinstance(dtype, torch.dtype) or dtype not in _DTYPES:
        raise TypeError(f"dtype = {shown(dtype)}, but must be a floating point dtype; pass torch.float64 or None.")
    return dtype


def check_same_dtype(**tensors: Tensor) -> None:
    if len({value.dtype for value in tensors.values()}) > 1:
        found = ", ".join(f"{name} is {value.dtype}" for name, value in tensors.items())
        raise TypeError(f"mixed dtypes: {found}; convert to one dtype with .to(...), float64 far from the origin.")


def is_positive(value: Tensor) -> Tensor:
    """Returns whether each number is positive and finite."""
    return (value > 0) & value.isfinite()


def all_hold(conditions: list[Tensor]) -> bool:
    """Returns whether all boolean tensors of no dimension are true, in one host-device sync."""
    return bool(torch.stack([each.to(conditions[0].device) for each in conditions]).all())


def check_positive(name: str, value: Tensor, remedy: str, *, validate: bool | None = None) -> None:
    if not validating(validate):
        return
    inside = is_positive(value)
    if not bool(inside.all()):
        count = "" if inside.numel() == 1 else f" (at {int((~inside).sum())} of {inside.numel()} places)"
        raise ValueError(
            f"{name} = {value[~inside][0].item():.6g}{count}, but must be > 0 and finite (not NaN); {remedy}"
        )


def check_shape(manifold: Manifold | Geometry, x: Tensor, name: str = "x") -> None:
    """Raises unless ``x`` has the dtype and shape of points. Does not read values."""
    check_floating(name, x)
    geometry = bind(manifold)
    if geometry.dim(x.shape) < 1:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}, but points of {describe(geometry)} in n >= 1 dimensions are "
            f"{geometry.coordinates}; {geometry.remedy}."
        )


def check_points(
    manifold: Manifold | Geometry, x: Tensor, name: str = "x", *, validate: bool | None = None, advice: str = ""
) -> None:
    """Raises unless every event of ``x`` is a point of the manifold; ``advice`` is appended to the message.

    Raises:
        TypeError: If ``x`` is not a floating point tensor.
        ValueError: If points cannot have this shape or, while validating, an event is off the manifold or not finite.
    """
    geometry = bind(manifold)
    check_shape(geometry, x, name)
    if not validating(validate):
        return
    check_batch_of_parameters(geometry, name, geometry.batch_of(x.shape))
    inside = geometry.contains(x)
    if bool(inside.all()) or _is_known_overflow(x, inside, geometry.event_dim):
        return
    outside = _events(x, ~inside, geometry.event_dim)
    defect, remedy = geometry.explain(outside, ~inside)
    if not bool(outside[0].isfinite().all()):
        defect, remedy = ", with NaN or infinity", "look for a division by zero or an overflow before this point"
    elif advice:
        remedy += f"; {advice}"
    raise ValueError(
        f"{name} is not on {describe(geometry)}: {len(outside)} of {inside.numel()} events are off, the first is "
        f"{_short(outside[0].flatten())}{defect}; {remedy}."
    )


def check_set(geometry: Geometry, x: Tensor, name: str, *, validate: bool | None = None) -> None:
    """Raises unless ``x`` holds sets of points ``(*, N, *event)``, each on one manifold."""
    check_shape(geometry, x, name)
    if x.dim() == geometry.event_dim:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}, which is one point, but must be sets of points, (*, N, event); use "
            f"{name}.unsqueeze(0)."
        )
    for parameter, value in geometry.parameters().items():
        if value.dim() and value.size(-1) != 1:
            raise ValueError(
                f"{parameter} of the manifold has shape {tuple(value.shape)}, but all points of a set must be on one "
                f"manifold; end its shape with 1, as in {parameter}.unsqueeze(-1)."
            )
    check_points(geometry, x, name, validate=validate)


def check_batch_of_parameters(geometry: Geometry, name: str, batch: torch.Size) -> None:
    """Raises if the batch shapes of the parameters do not broadcast with ``batch``, the batch shape of ``name``."""
    for parameter, value in geometry.parameters().items():
        if value.dim():
            check_batches(**{name: batch, f"{parameter} of the manifold": value.shape})


def check_finite_result(
    name: str,
    argument: Tensor,
    result: Tensor,
    *,
    validate: bool | None = None,
    remedy: str = OVERFLOW_REMEDY,
) -> None:
    """Raises if the result is not finite; ``remedy`` is for an overflow."""
    if not validating(validate) or bool(result.isfinite().all()):
        return
    if not bool(argument.isfinite().all()):
        raise ValueError(f"{name} holds NaN or infinity, but must be finite; look for the operation that made it.")
    size = argument.detach().abs().max()
    norm = size * (argument.detach() / size).norm(dim=-1).max()  # scaled first, since squares of far points overflow
    if not bool(result.isinf().any()) and norm < _SAFE_NORM[result.dtype]:
        raise ValueError(
            f"{name} (norm up to {norm.item():.6g}) is mapped to NaN, but a finite point has a finite image; look for "
            f"NaN in the parameters of the transform (a network, its context, a scale), or for an overflow inside it."
        )
    limit = torch.finfo(result.dtype).max
    raise ValueError(
        f"{name} (norm up to {norm.item():.6g}) is mapped too far out: coordinates exceed {limit:.3g}, the largest "
        f"{result.dtype}, or round to the boundary; {remedy}."
    )


def check_manifold(manifold: Manifold | Geometry, *, validate: bool | None = None) -> Geometry:
    """Returns the geometry of ``manifold``, after a check of its parameters and settings.

    Raises:
        TypeError: If no geometry is registered for its type.
        ValueError: If a parameter, such as ``k``, is not positive (while validating), or a setting is not supported.
    """
    geometry = bind(manifold)
    if validating(validate):  # checked here because reading a Pyro parameter is slow
        for name, value in geometry.parameters().items():
            check_positive(f"{name} of {geometry.name}", value, geometry.parameter_remedy, validate=validate)
    geometry.check_settings()
    return geometry


def check_chart(manifold: Manifold | Geometry, *, validate: bool | None = None) -> Hadamard:
    """Like :func:`check_manifold`, but also raises a TypeError if the manifold has no global chart."""
    check_manifold(geometry := chart(manifold), validate=validate)
    return geometry


def check_vectors(manifold: Manifold | Geometry, v: Tensor, name: str, *, validate: bool | None = None) -> Hadamard:
    """Returns the geometry of ``manifold``; raises unless ``v`` has the dtype and shape of tangent coordinates."""
    geometry = check_chart(manifold, validate=validate)
    check_floating(name, v)
    if v.dim() == 0 or v.size(-1) < 1:
        raise ValueError(f"{name} has shape {tuple(v.shape)}, but tangent coordinates must be (*, n) with n >= 1.")
    if validating(validate):
        check_batch_of_parameters(geometry, name, v.shape[:-1])
    return geometry


def check_complete(manifold: Manifold | Geometry, *, validate: bool | None = None) -> Complete:
    """Like :func:`check_manifold`, but also raises a TypeError if the manifold has no exponential map."""
    check_manifold(geometry := complete(manifold), validate=validate)
    return geometry


def check_tangent(geometry: Complete, x: Tensor, u: Tensor, name: str) -> None:
    """Raises unless ``u`` has the dtype and shape of tangent vectors at points ``x`` and, while validating, is tangent.

    The tolerance of the part that is not tangent is absolute up to length 1, since it moves points at second order.
    """
    check_floating(name, u)
    check_same_dtype(**{"points": x, name: u})
    size = geometry.vector_size(geometry.dim(x.shape))
    if not tracing() and (u.dim() == 0 or u.size(-1) != size):
        raise ValueError(
            f"the dimensions differ: {name} has shape {tuple(u.shape)}, but tangent vectors at points "
            f"{tuple(x.shape)} of {describe(geometry)}, in n >= 1 dimensions, are (*, {size})."
        )
    check_batches(points=geometry.batch_of(x.shape), **{name: u.shape[:-1]})
    if not validating():
        return
    off = (u - geometry.tangent(x, u)).detach().abs().amax(-1)
    bound = 64 * torch.finfo(u.dtype).eps * u.detach().abs().amax(-1).clamp(min=1.0)
    if bool((off > bound).any()):
        raise ValueError(
            f"{name} is not tangent to {describe(geometry)} at the points: its normal part is up to "
            f"{off.max().item():.3g}; use vectors of log_at, or remove it with geometry.bind(M).tangent(x, {name})."
        )


def check_nearest(geometry: Complete, x: Tensor, y: Tensor, remedy: str, event_dim: int | None = None) -> None:
    """Raises, while validating, unless the events ``y``, meant as the points nearest to ``x``, are on the manifold."""
    if not validating():
        return
    lost = ~geometry.contains(y)
    if bool(lost.any()):
        events = _events(x, lost, geometry.event_dim if event_dim is None else event_dim)
        raise ValueError(
            f"x has no nearest point on {describe(geometry)}: {len(events)} of {lost.numel()} events, the first is "
            f"{_short(events[0].flatten())}; {remedy}."
        )


def check_pair(manifold: Manifold | Geometry, **points: Tensor) -> Geometry:
    """Returns the geometry of ``manifold``; raises unless all others are points of it with one dtype and dimension."""
    geometry = check_manifold(manifold)
    for name, value in points.items():
        check_points(geometry, value, name)
    check_same_dtype(**points)
    check_same_size(**points)
    check_batches(**{name: geometry.batch_of(value.shape) for name, value in points.items()})
    return geometry


def check_batches(**shapes: torch.Size) -> torch.Size:
    """Returns the broadcast shape of batch shapes, or raises."""
    different = {shape for shape in shapes.values() if len(shape) > 0}
    if len(different) < 2:  # torch.broadcast_shapes is slow
        return different.pop() if different else torch.Size()
    try:
        return torch.broadcast_shapes(*different)
    except RuntimeError as error:
        found = " and ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items() if len(shape) > 0)
        raise ValueError(
            f"the batch shapes of {found} do not broadcast; make each size equal, or 1, from the right (unsqueeze one)."
        ) from error


def check_count(name: str, value: int, least: int, remedy: str) -> None:
    """Raises unless ``value`` is an integer and at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} = {shown(value)}, but must be an integer, at least {least}; {remedy}, use int(...).")
    if value < least:
        raise ValueError(f"{name} = {value}, but must be at least {least}; {remedy}.")


def check_number(name: str, value: float, remedy: str, *, above: float = -math.inf) -> float:
    """Returns ``value`` (a number, or a tensor of one element) as a float; raises unless finite and above ``above``."""
    number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if not isinstance(number, Real) or isinstance(number, bool):
        raise TypeError(f"{name} = {shown(value)}, but must be a number; {remedy}.")
    if not above < number < math.inf:
        domain = "finite" if above == -math.inf else f"> {above:g} and finite"
        raise ValueError(f"{name} = {number}, but must be {domain}; {remedy}.")
    return float(number)


def check_callable(name: str, value: Any, remedy: str) -> None:
    """Raises unless ``value`` is callable, and neither a class nor a manifold."""
    if isinstance(value, (type, Manifold)) or not callable(value):
        raise TypeError(f"{name} = {shown(value)}, but must be a function or a network; {remedy}.")


def check_list(name: str, value: Iterable[Any], remedy: str, length: int | None = None) -> list[Any]:
    """Returns ``value`` as a list, or raises."""
    if isinstance(value, (str, dict, set, Tensor)) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name} = {shown(value)}, but must be a list; {remedy}.")
    found = list(value)
    if length is not None and len(found) != length:
        raise ValueError(f"{name} has {len(found)} entries, but must have {length}; {remedy}.")
    return found


def check_same_size(**tensors: Tensor) -> None:
    # While tracing, sizes are tensors, which a set never finds equal.
    if not tracing() and len({value.size(-1) for value in tensors.values()}) > 1:
        found = ", ".join(f"{name} is {tuple(value.shape)}" for name, value in tensors.items())
        raise ValueError(f"the last dimensions differ: {found}; all must belong to one manifold of one dimension.")


def check_fit(geometry: Geometry, loc: Tensor, value: Tensor, dim: int) -> None:
    """Raises unless ``loc`` has the dtype of ``value`` and the shape of a point in ``dim`` dimensions."""
    check_same_dtype(loc=loc, value=value)
    if not tracing() and geometry.dim(loc.shape) != dim:
        raise ValueError(
            f"the dimensions differ: loc is {tuple(loc.shape)}, but the argument {tuple(value.shape)}; points of "
            f"{describe(geometry)} must be {geometry.coordinates}, tangent coordinates (*, n)."
        )


def _is_known_overflow(x: Tensor, inside: Tensor, event_dim: int) -> bool:
    """Returns whether all events off the manifold have overflowed, with known finite tangent vectors."""
    known = known_tangent(x)
    lost = x.isinf().flatten(x.dim() - event_dim).any(-1)
    return known is not None and bool((inside | (lost & known[0].isfinite().all(-1))).all())


def same_value(a: Tensor, b: Tensor) -> bool:
    """Returns whether two parameters are equal up to float32 rounding, since modules can be cast and moved."""
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    return a.shape == b.shape and torch.allclose(a, b, rtol=4 * torch.finfo(torch.float32).eps, atol=0.0)


def describe_values(value: Tensor) -> str:
    """Returns a short description of a tensor: its value, or its range and shape."""
    if torch.compiler.is_compiling() or tracing() or torch._C._are_functorch_transforms_active():
        return f"<{value.dtype} of shape {tuple(value.shape)}>"
    if value.numel() == 1:
        return f"{value.item():.6g}"
    if value.numel() == 0:
        return f"<empty of shape {tuple(value.shape)}>"
    least, most = value.min().item(), value.max().item()
    return f"{least:.6g}{'' if least == most else f'..{most:.6g}'} of shape {tuple(value.shape)}"


def _events(x: Tensor, where: Tensor, event_dim: int) -> Tensor:
    """Returns the events at ``where``, on the CPU; a batch of parameters broadcasts ``x`` to more events."""
    return x.detach().expand(*where.shape, *x.shape[x.dim() - event_dim :])[where].cpu()


def _short(event: Tensor) -> str:
    values = [f"{value:.6g}" for value in event[:6].tolist()]
    return "(" + ", ".join(values + (["..."] if event.numel() > 6 else [])) + ")"
