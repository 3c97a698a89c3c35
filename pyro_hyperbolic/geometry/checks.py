"""Errors that name the value, the domain and the remedy.

Shapes and dtypes are always checked. Values are checked while validation is on (``pyro.enable_validation``, on by
default as in Pyro): reading a value makes a GPU wait, and cannot be traced, compiled or mapped over.
"""

import geoopt
import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from .registry import kernels, name_of

__all__ = [
    "check_batches",
    "check_count",
    "check_finite_result",
    "check_fit",
    "check_floating",
    "check_manifold",
    "check_pair",
    "check_points",
    "check_positive",
    "check_same_dtype",
    "check_same_size",
    "check_shape",
    "check_vectors",
    "describe",
    "tracing",
    "validating",
]


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
    return f"{name_of(manifold)}({', '.join(f'{key}={_values(value)}' for key, value in values.items())})"


def check_floating(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is {value!r}, but must be a torch.Tensor; wrap it in torch.as_tensor(...).")
    if not value.is_floating_point():
        raise TypeError(
            f"{name} has dtype {value.dtype}, but coordinates are real numbers; "
            f"convert it with .to(torch.get_default_dtype()) or .double()."
        )


def check_same_dtype(**tensors: Tensor) -> None:
    if len({value.dtype for value in tensors.values()}) > 1:
        found = ", ".join(f"{name} is {value.dtype}" for name, value in tensors.items())
        raise TypeError(f"mixed dtypes: {found}; convert them to one dtype with .to(...), float64 far from the origin.")


def check_positive(name: str, value: Tensor, remedy: str, *, validate: bool | None = None) -> None:
    if validating(validate) and not bool(((value > 0) & value.isfinite()).all()):
        raise ValueError(f"{name} = {_values(value)}, but must be > 0 and finite (not NaN); {remedy}")


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
    inside = kernels(manifold).contains(manifold, x)
    if bool(inside.all()):
        return
    outside = x[~inside].detach()
    example = outside[0]
    remedy = (
        "it holds NaN or infinity: look for a division by zero or an overflow before this point"
        if not bool(example.isfinite().all())
        else "map tangent coordinates with exp0(M, v), derive the time coordinate with M.projx(x), and use one "
        "manifold (one k) and one dtype all along" + (advice and f"; {advice}")
    )
    raise ValueError(
        f"{name} is not on {describe(manifold)}: {len(outside)} of {inside.numel()} events fail, the first is "
        f"{_short(example)}{_residual(example, manifold)}; {remedy}."
    )


def check_finite_result(name: str, argument: Tensor, result: Tensor, *, validate: bool | None = None) -> None:
    """Raises if a finite argument was mapped to a result that is not, or the argument was not finite."""
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
        f"{limit:.3g}, the largest {result.dtype}; use float64, a smaller scale, or a larger k."
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


def check_vectors(manifold: Manifold, v: Tensor, name: str) -> None:
    check_manifold(manifold)
    check_floating(name, v)
    if v.dim() == 0 or v.size(-1) < 1:
        raise ValueError(f"{name} has shape {tuple(v.shape)}, but tangent coordinates are (*, n) with n >= 1.")


def check_pair(manifold: Manifold, **points: Tensor) -> None:
    check_manifold(manifold)
    for name, value in points.items():
        check_points(manifold, value, name)
    check_same_dtype(**points)
    check_same_size(**points)
    check_batches(**{name: value.shape[:-1] for name, value in points.items()})


def check_batches(**shapes: torch.Size) -> None:
    if len(set(shapes.values())) == 1:  # torch.broadcast_shapes is slow
        return
    try:
        torch.broadcast_shapes(*shapes.values())
    except RuntimeError as error:
        found = " and ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(
            f"the batch shapes of {found} do not broadcast; make them equal, or 1, from the right (unsqueeze one)."
        ) from error


def check_count(name: str, value: int, least: int, remedy: str) -> None:
    """Raises unless ``value`` is an integer of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} = {value!r}, but must be an integer of at least {least}; {remedy}.")
    if value < least:
        raise ValueError(f"{name} = {value}, but must be at least {least}; {remedy}.")


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


def _values(value: Tensor) -> str:
    if torch.compiler.is_compiling() or tracing() or torch._C._are_functorch_transforms_active():
        return f"<{value.dtype} of shape {tuple(value.shape)}>"
    if value.numel() == 1:
        return f"{value.item():.6g}"
    if value.numel() == 0:
        return f"<empty of shape {tuple(value.shape)}>"
    return f"{value.min().item():.6g}..{value.max().item():.6g} of shape {tuple(value.shape)}"


def _short(event: Tensor) -> str:
    values = [f"{value:.6g}" for value in event[:6].tolist()]
    return "(" + ", ".join(values + (["..."] if event.numel() > 6 else [])) + ")"


def _residual(event: Tensor, manifold: Manifold) -> str:
    k = getattr(manifold, "k", None)
    if k is None or k.dim() > 0 or not bool(event.isfinite().all()):
        return ""
    # In double: this is a message, and the form cancels.
    time, squares = event[0].double(), event[1:].double().square().sum()
    needed = (k.detach().double() + squares).sqrt()
    sheet = "; this is the lower sheet, and x_0 > 0 is needed" if time < 0 else ""
    return (
        f" with <x, x> = {(squares - time**2).item():.6g} where -k = {-k.item():.6g} is needed (the time coordinate is "
        f"off by {((time.abs() - needed) / needed).item():.2g} of itself{sheet})"
    )
