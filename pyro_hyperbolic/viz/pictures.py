r"""Where a point of a manifold is in its picture."""

import reprlib
from typing import Any

import geoopt
import numpy as np
import torch
from geoopt.manifolds.base import Manifold
from numpy.typing import ArrayLike
from torch import Tensor

from pyro_hyperbolic import charts, geometry
from pyro_hyperbolic.geometry import checks

__all__ = ["Array", "Z", "checked", "is_ball", "is_disk", "lift", "on_cpu", "picture", "tensor_of"]

#: What is drawn: tensors, NumPy arrays, and nested lists of either or of numbers.
Array = Tensor | ArrayLike


class Z:
    """The order of drawing, from back to front. Matplotlib's own patches are at 1 and lines at 2."""

    DENSITY, TILING, GEODESICS, REGIONS, POINTS, BOUNDARY = 0.5, 0.7, 1.5, 2.2, 2.5, 3.0


def is_disk(manifold: Manifold) -> bool:
    """Returns whether the picture is a disk; False for the plane, an error for what has neither."""
    if not isinstance(manifold, geoopt.Lorentz | geoopt.PoincareBall | geoopt.Euclidean):
        raise TypeError(
            f"viz draws geoopt.Lorentz, geoopt.PoincareBall and geoopt.Euclidean(1), but the manifold is {manifold!r}; "
            f"draw the factors of a product one by one."
        )
    checks.check_manifold(manifold)
    return not isinstance(manifold, geoopt.Euclidean)


def is_ball(manifold: Manifold) -> bool:
    """Returns whether points are those of the picture itself."""
    return isinstance(manifold, geoopt.PoincareBall)


def on_cpu(manifold: Manifold) -> Manifold:
    """Returns the manifold on the CPU, in float64; for a ball the hyperboloid of its curvature."""
    if not is_disk(manifold):
        return manifold
    k = 1 / manifold.c if is_ball(manifold) else manifold.k
    if k.numel() != 1:
        raise ValueError(f"k has shape {tuple(k.shape)}, but one picture shows one curvature; draw one by one.")
    return geoopt.Lorentz(k=k.detach().cpu().double().reshape(()))


def tensor_of(x: Array, name: str) -> Tensor:
    """Returns an array-like as a tensor; numbers of Python, which have no dtype, in the default one."""
    if isinstance(x, Tensor):
        return x
    values: Any = x
    first = values
    while isinstance(first, list | tuple) and first:
        first = first[0]
    try:
        if isinstance(first, Tensor):
            return torch.stack([tensor_of(item, name) for item in values])
        if type(first) in (int, float):
            return torch.as_tensor(x)
        array = np.asarray(x)
        # A copy: torch takes no view that is read-only, reversed or big-endian.
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} is {reprlib.repr(x)}, but must be a torch.Tensor, a NumPy array, or lists of one length of either."
        ) from error


def checked(manifold: Manifold, x: Array, name: str) -> Tensor:
    """Returns checked points of a two-dimensional manifold on the CPU, in float64; of a ball on the hyperboloid."""
    disk, x = is_disk(manifold), tensor_of(x, name)
    checks.check_points(manifold, x, name)
    n = geometry.bind(manifold).dim(x.shape)
    if n != 2:
        remedy = (
            "geometry.exp0(M, geometry.log0(M, x)[..., :2]), two of the tangent coordinates"
            if n > 2 and disk
            else f"{name}[..., :2]"
            if n > 2
            else "a histogram of geometry.log0(M, x)"
        )
        raise ValueError(f"{name} has n = {n} dimensions, but a picture shows n = 2; draw {remedy}.")
    x = x.detach().cpu().double()
    if is_ball(manifold):
        return charts.from_poincare_ball(on_cpu(manifold), x)
    return lift(manifold, x[..., 1:]) if disk else x


def lift(manifold: Manifold, space: Tensor) -> Tensor:
    """Returns the points with that spatial part: what is stored in float32 is not on the manifold to float64."""
    k = on_cpu(manifold).k
    return torch.cat([torch.hypot(k.sqrt(), space.norm(dim=-1, keepdim=True)), space], dim=-1)


def picture(manifold: Manifold, x: Tensor) -> Tensor:
    """Returns where points are on the axes, shape ``(*, 2)``."""
    return charts.to_poincare_ball(on_cpu(manifold), x) if is_disk(manifold) else x
