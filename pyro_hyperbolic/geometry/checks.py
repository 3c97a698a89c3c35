"""Errors that name the value, the domain and the remedy.

Shapes and dtypes are always checked. Values are checked while validation is on (``pyro.enable_validation``, on by
default as in Pyro): reading a value makes a GPU wait, and cannot be traced, compiled or mapped over.
"""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from .base import Geometry, Hadamard
from .guesses import shown, tensor_remedy
from .origins import known_tangent
from .registry import bind, chart

__all__ = [
    "OVERFLOW_REMEDY",
    "all_hold",
    "as_real",
    "check_batches",
    "check_callable",
    "check_chart",
    "check_count",
    "check_finite_result",
    "check_fit",
    "check_floating",
    "check_list",
    "check_manifold",
    "check_number",
    "check_pair",
    "check_points",
    "check_positive",
    "check_same_dtype",
    "check_same_size",
    "check_shape",
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


#: What to do where the result of a finite argument is too far out.
OVERFLOW_REMEDY = "use float64, a smaller scale, or a larger k"

# Points so far out can be mapped to infinity minus infinity; nearer ones are mapped to NaN by something else.
_FAR = {
    dtype: torch.finfo(dtype).max ** 0.25 for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
}


def tracing() -> bool:
    """Returns whether ``torch.jit.trace`` is recording."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


def validating(setting: bool | None = None) -> bool:
    """Returns whether values are checked: ``setting``, or Pyro's, unless tracing, compiling or mapping prevent it."""
    return bool(
        (torch.distributions.Distribution._validate_args if setting is None else setting)
        and not torch.compiler.is_compiling()
        and not tracing()
        and not torch._C._are_functorch_transforms_active()
    )


def describe(manifold: Manifold | Geometry) -> str:
    """Returns the manifold's name and parameters, ``Lorentz(k=1)``."""
    geometry = bind(manifold)
    values = geometry.parameters().items()
    return f"{geometry.name}({', '.join(f'{key}={describe_values(value)}' for key, value in values)})"


def check_floating(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is {shown(value)}, but must be a torch.Tensor; {tensor_remedy(value)}.")
    if value.dtype not in _FAR:
        remedy = "take .real" if value.is_complex() else ".to(torch.get_default_dtype()) or .double()"
        raise TypeError(
            f"{name} has dtype {value.dtype}, but coordinates are real numbers, in 16 to 64 bits; use {remedy}."
        )


def as_real(name: str, value: Any, remedy: str) -> Tensor:
    """Returns a number, numbers, or a tensor as a tensor of real numbers, or raises."""
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        tensor = None
    if tensor is None or tensor.dtype == torch.bool or (tensor.dtype not in _FAR and _is_inexact(tensor)):
        raise TypeError(f"{name} = {shown(value)}, but must be a real number or a tensor of them; {remedy}.")
    return tensor


def _is_inexact(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def floating_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """Returns ``dtype``, or the default one for None, or raises."""
    if dtype is None:
        return torch.get_default_dtype()
    if not isinstance(dtype, torch.dtype) or dtype not in _FAR:
        raise TypeError(f"dtype = {shown(dtype)}, but must be a floating point dtype; give torch.float64 or None.")
    return dtype


def check_same_dtype(**tensors: Tensor) -> None:
    if len({value.dtype for value in tensors.values()}) > 1:
        found = ", ".join(f"{name} is {value.dtype}" for name, value in tensors.items())
        raise TypeError(f"mixed dtypes: {found}; convert them to one dtype with .to(...), float64 far from the origin.")


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
    """Raises unless ``x`` has the dtype and the last dimensions of points; never reads values."""
    check_floating(name, x)
    geometry = bind(manifold)
    if geometry.dim(x.shape) < 1:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}, but points of {describe(geometry)} in n >= 1 dimensions are "
            f"{geometry.coordinates}; tangent coordinates (*, n) become points by exp0."
        )


def check_points(
    manifold: Manifold | Geometry, x: Tensor, name: str = "x", *, validate: bool | None = None, advice: str = ""
) -> None:
    """Raises unless every event of ``x`` is a point of the manifold; ``advice`` ends the message.

    Raises:
        TypeError: If ``x`` is not a floating point tensor.
        ValueError: If its last dimension is too small or (while validating) an event is off the manifold or not finite.
    """
    geometry = bind(manifold)
    check_shape(geometry, x, name)
    if not validating(validate):
        return
    check_batch_of_parameters(geometry, name, geometry.batch_of(x.shape))
    inside = geometry.contains(x)
    if bool(inside.all()) or _is_out_of_range(x, inside, geometry.event_dim):
        return
    # With a batch of parameters there are more events than x has.
    event = x.shape[x.dim() - geometry.event_dim :]
    outside = x.detach().expand(*inside.shape, *event)[~inside].cpu()
    defect, remedy = geometry.explain(outside, ~inside)
    if not bool(outside[0].isfinite().all()):
        defect, remedy = "", "it holds NaN or infinity: look for a division by zero or an overflow before this point"
    elif advice:
        remedy += f"; {advice}"
    raise ValueError(
        f"{name} is not on {describe(geometry)}: {len(outside)} of {inside.numel()} events fail, the first is "
        f"{_short(outside[0].flatten())}{defect}; {remedy}."
    )


def check_batch_of_parameters(geometry: Geometry, name: str, batch: torch.Size) -> None:
    """Raises if the manifold's parameters have a batch shape that does not broadcast with that of a tensor."""
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
    """Raises if a finite argument was mapped to a result that is not, or the argument was not finite.

    ``remedy`` is what to do about an overflow.
    """
    if not validating(validate) or bool(result.isfinite().all()):
        return
    if not bool(argument.isfinite().all()):
        raise ValueError(f"{name} holds NaN or infinity, but coordinates are finite; look for the operation before it.")
    size = argument.detach().abs().max()
    norm = size * (argument.detach() / size).norm(dim=-1).max()  # the square of a far point overflows
    if not bool(result.isinf().any()) and norm < _FAR[result.dtype]:
        raise ValueError(
            f"{name} (norm up to {norm.item():.6g}) is mapped to NaN, but a finite point has a finite image; look for "
            f"NaN in the parameters of the transform (a network, its context, a scale), or for an overflow on the way."
        )
    limit = torch.finfo(result.dtype).max
    raise ValueError(
        f"{name} (norm up to {norm.item():.6g}) is mapped to a point that it cannot hold (coordinates exceed "
        f"{limit:.3g}, the largest {result.dtype}, or are rounded to a boundary); {remedy}."
    )


def check_manifold(manifold: Manifold | Geometry, *, validate: bool | None = None) -> Geometry:
    """Returns the geometry of ``manifold``, or raises if it has none or its parameters are out of their domain.

    Raises:
        TypeError: If no geometry is registered for its type.
        ValueError: If a parameter, such as ``k``, is not positive, or a setting makes points something else.
    """
    geometry = bind(manifold)
    if validating(validate):  # asked before k is read: where k is a Pyro parameter that is slow
        for name, value in geometry.parameters().items():
            check_positive(f"{name} of {geometry.name}", value, geometry.parameter_remedy, validate=validate)
    geometry.check_settings()
    return geometry


def check_chart(manifold: Manifold | Geometry, *, validate: bool | None = None) -> Hadamard:
    """Returns the geometry of ``manifold``, which has a global chart, or raises; see :func:`check_manifold`."""
    check_manifold(geometry := chart(manifold), validate=validate)
    return geometry


def check_vectors(manifold: Manifold | Geometry, v: Tensor, name: str, *, validate: bool | None = None) -> Hadamard:
    """Returns the geometry of ``manifold``, or raises unless ``v`` has the dtype and shape of tangent coordinates."""
    geometry = check_chart(manifold, validate=validate)
    check_floating(name, v)
    if v.dim() == 0 or v.size(-1) < 1:
        raise ValueError(f"{name} has shape {tuple(v.shape)}, but tangent coordinates are (*, n) with n >= 1.")
    if validating(validate):
        check_batch_of_parameters(geometry, name, v.shape[:-1])
    return geometry


def check_pair(manifold: Manifold | Geometry, **points: Tensor) -> Geometry:
    """Returns the geometry of ``manifold``, or raises unless all are points of it, of one dtype and one dimension."""
    geometry = check_manifold(manifold)
    for name, value in points.items():
        check_points(geometry, value, name)
    check_same_dtype(**points)
    check_same_size(**points)
    check_batches(**{name: geometry.batch_of(value.shape) for name, value in points.items()})
    return geometry


def check_batches(**shapes: torch.Size) -> torch.Size:
    """Returns what batch shapes broadcast to, or raises."""
    different = {shape for shape in shapes.values() if len(shape) > 0}
    if len(different) < 2:  # torch.broadcast_shapes is slow
        return different.pop() if different else torch.Size()
    try:
        return torch.broadcast_shapes(*different)
    except RuntimeError as error:
        found = " and ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items() if len(shape) > 0)
        raise ValueError(
            f"the batch shapes of {found} do not broadcast; make them equal, or 1, from the right (unsqueeze one)."
        ) from error


def check_count(name: str, value: int, least: int, remedy: str) -> None:
    """Raises unless ``value`` is an integer of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} = {shown(value)}, but must be an integer of at least {least}; {remedy}.")
    if value < least:
        raise ValueError(f"{name} = {value}, but must be at least {least}; {remedy}.")


def check_number(name: str, value: float, remedy: str, *, above: float = -math.inf) -> float:
    """Returns ``value`` as a Python number, or raises unless it is finite and greater than ``above``."""
    # Tensors of one element are numbers too.
    number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if not isinstance(number, Real) or isinstance(number, bool):
        raise TypeError(f"{name} = {shown(value)}, but must be a number; {remedy}.")
    if not above < number < math.inf:
        domain = "finite" if above == -math.inf else f"> {above:g} and finite"
        raise ValueError(f"{name} = {number}, but must be {domain}; {remedy}.")
    return float(number)


def check_callable(name: str, value: Any, remedy: str) -> None:
    """Raises unless ``value`` can be called, and is neither a class nor a manifold."""
    if isinstance(value, (type, Manifold)) or not callable(value):
        raise TypeError(f"{name} = {shown(value)}, but must be a function or a network; {remedy}.")


def check_list(name: str, value: Iterable[Any], remedy: str) -> list[Any]:
    """Returns ``value`` as a list, or raises."""
    if isinstance(value, (str, dict, set, Tensor)) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name} = {shown(value)}, but must be a list; {remedy}.")
    return list(value)


def check_same_size(**tensors: Tensor) -> None:
    # While tracing sizes are tensors, of which no two are equal.
    if not tracing() and len({value.size(-1) for value in tensors.values()}) > 1:
        found = ", ".join(f"{name} is {tuple(value.shape)}" for name, value in tensors.items())
        raise ValueError(f"the last dimensions differ: {found}; all arguments live on one manifold of one dimension.")


def check_fit(geometry: Geometry, loc: Tensor, value: Tensor, dim: int) -> None:
    """Raises unless ``loc`` has the dtype of ``value``, and is a point in ``dim`` dimensions."""
    check_same_dtype(loc=loc, value=value)
    if not tracing() and geometry.dim(loc.shape) != dim:
        raise ValueError(
            f"the dimensions differ: loc is {tuple(loc.shape)}, and the argument {tuple(value.shape)}; points of "
            f"{describe(geometry)} are {geometry.coordinates}, and their tangent coordinates (*, n)."
        )


def _is_out_of_range(x: Tensor, inside: Tensor, event_dim: int) -> bool:
    """Returns whether all that is not on the manifold has overflown, and its tangent vectors are known and finite."""
    known = known_tangent(x)
    lost = x.isinf().flatten(x.dim() - event_dim).any(-1)
    return known is not None and bool((inside | (lost & known[0].isfinite().all(-1))).all())


def same_value(a: Tensor, b: Tensor) -> bool:
    """Returns whether two parameters of manifolds are equal up to float32 rounding: modules are cast, and moved."""
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    return a.shape == b.shape and torch.allclose(a, b, rtol=4 * torch.finfo(torch.float32).eps, atol=0.0)


def describe_values(value: Tensor) -> str:
    """Returns a number, or what a tensor holds, in few words."""
    if torch.compiler.is_compiling() or tracing() or torch._C._are_functorch_transforms_active():
        return f"<{value.dtype} of shape {tuple(value.shape)}>"
    if value.numel() == 1:
        return f"{value.item():.6g}"
    if value.numel() == 0:
        return f"<empty of shape {tuple(value.shape)}>"
    least, most = value.min().item(), value.max().item()
    return f"{least:.6g}{'' if least == most else f'..{most:.6g}'} of shape {tuple(value.shape)}"


def _short(event: Tensor) -> str:
    values = [f"{value:.6g}" for value in event[:6].tolist()]
    return "(" + ", ".join(values + (["..."] if event.numel() > 6 else [])) + ")"
