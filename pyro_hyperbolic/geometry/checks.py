"""Errors that name the value, the domain and the remedy.

Shapes and dtypes are always checked. Values are checked while validation is on (``pyro.enable_validation``, on by
default as in Pyro): reading a value makes a GPU wait, and cannot be traced, compiled or mapped over.
"""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import geoopt
import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from .guesses import shown, tensor_remedy
from .origins import known_tangent
from .registry import kernels, name_of

__all__ = [
    "OVERFLOW_REMEDY",
    "as_real",
    "check_batch_of_k",
    "check_batches",
    "check_callable",
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


def describe(manifold: Manifold) -> str:
    """Returns the manifold's name and parameters, ``Lorentz(k=1)``."""
    values = kernels(manifold).parameters(manifold)
    return f"{name_of(manifold)}({', '.join(f'{key}={describe_values(value)}' for key, value in values.items())})"


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


def check_positive(name: str, value: Tensor, remedy: str, *, validate: bool | None = None) -> None:
    if not validating(validate):
        return
    inside = (value > 0) & value.isfinite()
    if not bool(inside.all()):
        count = "" if inside.numel() == 1 else f" (at {int((~inside).sum())} of {inside.numel()} places)"
        raise ValueError(
            f"{name} = {value[~inside][0].item():.6g}{count}, but must be > 0 and finite (not NaN); {remedy}"
        )


def check_shape(manifold: Manifold, x: Tensor, name: str = "x") -> None:
    """Raises unless ``x`` has the dtype and the last dimension of points; never reads values."""
    check_floating(name, x)
    if x.dim() == 0 or kernels(manifold).dim(x.size(-1)) < 1:
        ambient = "n + 1" if kernels(manifold).dim(1) == 0 else "n"
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}, but a point of {describe(manifold)} in n >= 1 dimensions is a vector "
            f"(*, {ambient}); tangent coordinates (*, n) become points by exp0."
        )


def check_points(
    manifold: Manifold, x: Tensor, name: str = "x", *, validate: bool | None = None, advice: str = ""
) -> None:
    """Raises unless every event of ``x`` is a point of the manifold; ``advice`` ends the message.

    Raises:
        TypeError: If ``x`` is not a floating point tensor.
        ValueError: If its last dimension is too small or (while validating) an event is off the manifold or not finite.
    """
    check_shape(manifold, x, name)
    if not validating(validate):
        return
    check_batch_of_k(manifold, x, name)
    inside = kernels(manifold).contains(manifold, x)
    if bool(inside.all()) or _is_out_of_range(x, inside):
        return
    # With a batch of k there are more events than x has.
    outside = x.detach().expand(*inside.shape, x.size(-1))[~inside].cpu()
    example, residual, ball = outside[0], "", ""
    if hasattr(manifold, "k"):
        k = manifold.k.detach().cpu().double().expand(inside.shape)[~inside.cpu()]
        residual = _residual(example, k[0])
        if bool((outside.double().square().sum(-1) < k).all()):  # points are longer, those of the ball are not
            ball = ", points of the Poincaré ball with charts.from_poincare_ball(M, p)"
    remedy = (
        "it holds NaN or infinity: look for a division by zero or an overflow before this point"
        if not bool(example.isfinite().all())
        else f"map tangent coordinates with exp0(M, v){ball}, derive the time coordinate with M.projx(x), and use one "
        f"manifold (one k) and one dtype all along" + (advice and f"; {advice}")
    )
    raise ValueError(
        f"{name} is not on {describe(manifold)}: {len(outside)} of {inside.numel()} events fail, the first is "
        f"{_short(example)}{residual}; {remedy}."
    )


def check_batch_of_k(manifold: Manifold, x: Tensor, name: str) -> None:
    """Raises if the manifold's parameters have a batch shape that does not broadcast with that of ``x``."""
    for parameter, value in kernels(manifold).parameters(manifold).items():
        if value.dim():
            check_batches(**{name: x.shape[:-1], f"{parameter} of the manifold": value.shape})


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
        f"{name} (norm up to {norm.item():.6g}) is mapped to coordinates that exceed "
        f"{limit:.3g}, the largest {result.dtype}; {remedy}."
    )


def check_manifold(manifold: Manifold, *, validate: bool | None = None) -> None:
    """Raises unless ``manifold`` has a geometry and its parameters are in their domain (``k > 0``, ``ndim == 1``).

    Raises:
        TypeError: If no geometry is registered for its type.
        ValueError: If ``k`` is not positive, or a Euclidean manifold does not treat the last dimension as the vector.
    """
    found = kernels(manifold)
    if validating(validate):  # asked before k is read: where k is a Pyro parameter that is slow
        for name, value in found.parameters(manifold).items():
            remedy = (
                "on Lorentz it is the squared radius, curvature is -1/k; learn it with constraint=constraints.positive."
            )
            check_positive(f"{name} of {name_of(manifold)}", value, remedy, validate=validate)
    if isinstance(manifold, geoopt.Euclidean) and manifold.ndim != 1:
        raise ValueError(
            f"geoopt.Euclidean has ndim = {manifold.ndim}, but points are vectors; use geoopt.Euclidean(1)."
        )


def check_vectors(manifold: Manifold, v: Tensor, name: str, *, validate: bool | None = None) -> None:
    check_manifold(manifold, validate=validate)
    check_floating(name, v)
    if v.dim() == 0 or v.size(-1) < 1:
        raise ValueError(f"{name} has shape {tuple(v.shape)}, but tangent coordinates are (*, n) with n >= 1.")
    if validating(validate):
        check_batch_of_k(manifold, v, name)


def check_pair(manifold: Manifold, **points: Tensor) -> None:
    check_manifold(manifold)
    for name, value in points.items():
        check_points(manifold, value, name)
    check_same_dtype(**points)
    check_same_size(**points)
    check_batches(**{name: value.shape[:-1] for name, value in points.items()})


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


def check_fit(loc: Tensor, value: Tensor, size: int) -> None:
    """Raises unless ``loc`` has the dtype of ``value``, and as many coordinates as its points, ``size``."""
    check_same_dtype(loc=loc, value=value)
    if not tracing() and size != loc.size(-1):
        raise ValueError(
            f"the last dimensions differ: loc is {tuple(loc.shape)}, and the argument {tuple(value.shape)}; points of "
            f"one manifold have n + 1 coordinates on the hyperboloid, and their tangent coordinates n."
        )


def _is_out_of_range(x: Tensor, inside: Tensor) -> bool:
    """Returns whether all that is not on the manifold has overflown, and its tangent vectors are known and finite."""
    known = known_tangent(x)
    return known is not None and bool((inside | (x.isinf().any(-1) & known[0].isfinite().all(-1))).all())


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


def _residual(event: Tensor, k: Tensor) -> str:
    if not bool(event.isfinite().all()):
        return ""
    # In double: this is a message, and the form cancels.
    time, squares = event[0].double(), event[1:].double().square().sum()
    needed = (k + squares).sqrt()
    sheet = "; this is the lower sheet, and x_0 > 0 is needed" if time < 0 else ""
    return (
        f" with <x, x> = {(squares - time**2).item():.6g} where -k = {-k.item():.6g} is needed (the time coordinate is "
        f"off by {((time.abs() - needed) / needed).item():.2g} of itself{sheet})"
    )
