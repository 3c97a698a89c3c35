r"""Pictures of surfaces of constant curvature, the disk and the plane, on the CPU in float64.

They show any two-dimensional manifold with a global chart and constant curvature: of a point they read only the normal
coordinates at the origin.
"""

import math
import reprlib
from typing import Any

import numpy as np
import torch
from geoopt.manifolds.base import Manifold
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from torch import Tensor

from pyro_hyperbolic.geometry import Hadamard, bind, checks

__all__ = ["Array", "Extent", "Picture", "Z", "picture", "tensor_of"]

#: What can be drawn: tensors, NumPy arrays, and nested lists of these or of numbers.
Array = Tensor | ArrayLike

#: ``(left, right, bottom, top)``.
Extent = tuple[float, float, float, float]


class Z:
    """The drawing order, from back to front. Matplotlib draws patches at 1 and lines at 2."""

    DENSITY, TILING, GEODESICS, REGIONS, POINTS, BOUNDARY = 0.5, 0.7, 1.5, 2.2, 2.5, 3.0


class Picture:
    r"""The disk :math:`p = \tanh(r/2)\, v / r` with :math:`r = |v| / R`, or its flat limit, the plane :math:`p = v`.

    Here ``v`` are normal coordinates at the origin and ``p`` coordinates on the axes, both ``(*, 2)``.

    Args:
        geometry: The geometry of the surface, on the CPU in float64.
        curvature: Its sectional curvature, :math:`-1 / R^2`.
    """

    def __init__(self, geometry: Hadamard, curvature: float) -> None:
        self.geometry = geometry
        self.radius = (-curvature) ** -0.5 if curvature else math.inf
        self._scale = 0.5 if curvature else 1.0

    def checked(self, x: Array, name: str) -> Tensor:
        """Returns checked points on the CPU in float64."""
        x = tensor_of(x, name)
        checks.check_points(self.geometry, x, name)
        n = self.geometry.dim(x.shape)
        if n != 2:
            v = "geometry.log0(M, x)"
            remedy = f"geometry.exp0(M, {v}[..., :2]), two tangent coordinates" if n > 2 else f"a histogram of {v}"
            raise ValueError(f"{name} has n = {n} dimensions, but a picture shows n = 2; draw {remedy}.")
        return x.detach().cpu().double()

    def place(self, x: Tensor) -> Tensor:
        """Maps points to the picture."""
        v = self.geometry.log0(x)[0]
        half = _length(v / (2 * self.radius))
        return self._scale * v * (half.tanh() / half)

    def points(self, p: Tensor) -> Tensor:
        """Maps the picture to points."""
        length = _length(p / self.radius)
        return self.geometry.exp0(p / self._scale * (length.atanh() / length))[0]

    def push(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Maps points and tangent vectors there, in ambient coordinates, to the picture."""
        x = x.clone().requires_grad_()
        p = self.place(x)
        rows = [torch.autograd.grad(part.sum(), x, retain_graph=True)[0] for part in p.unbind(-1)]
        return p.detach(), torch.stack([(row * u).sum(-1) for row in rows], dim=-1)

    def log_volume(self, p: Tensor) -> Tensor:
        """Returns the log-density of Riemannian volume with respect to Lebesgue measure of the picture, ``(*)``."""
        return -2 * (self._scale * _gap(p / self.radius)).log().squeeze(-1)

    def arcs(self, p: Tensor, q: Tensor, f: Tensor) -> Tensor:
        r"""Returns the points ``z`` of the geodesics with :math:`|z - p| : |z - q| = f : 1 - f`.

        In units of R, with :math:`\alpha = 1 - |p|^2`, :math:`\beta = 1 - |q|^2`,
        :math:`h^2 = \alpha\beta + |p - q|^2` and :math:`w^2 = (a \alpha + b \beta)^2 + 4 a b |p - q|^2`,

        .. math:: z = 2 (a p + b q) / (a (2 - \alpha) + b (2 - \beta) + w)

        is on the geodesic for all positive a and b, and its ratio is :math:`(w + b \beta - a \alpha) : 2 a h`. So f
        gives the a and b below. No term is negative, so nothing cancels, not even for ends on the boundary.
        """
        alpha, beta = _gap(p / self.radius), _gap(q / self.radius)
        square = ((p - q) / self.radius).square().sum(-1, keepdim=True)
        h = (alpha * beta + square).sqrt()
        h = h.masked_fill(h == 0, 1.0)  # the same point of the boundary twice
        a, b = (1 - f) * ((1 - f) * h + f * beta), f * (f * h + (1 - f) * alpha)
        w = ((a * alpha + b * beta) ** 2 + 4 * a * b * square).sqrt()
        return 2 * (a * p + b * q) / (a * (2 - alpha) + b * (2 - beta) + w)

    def borders(self, ax: Axes, extent: Extent | None, resolution: int) -> list[Tensor]:
        """Returns the borders of ``resolution`` cells along each axis, by default over the disk or the current axes."""
        if extent is None:
            radius = self.radius
            extent = (-radius, radius) * 2 if math.isfinite(radius) else (*ax.get_xlim(), *ax.get_ylim())
        return [torch.linspace(*side, resolution + 1, dtype=torch.float64) for side in (extent[:2], extent[2:])]


def picture(manifold: Manifold) -> Picture:
    """Returns the picture of a manifold: the plane if it is flat, the disk if its curvature is a negative constant."""
    geometry = checks.check_manifold(manifold)
    curvature = geometry.curvature()
    if curvature is None or not isinstance(geometry, Hadamard):
        raise TypeError(
            f"viz draws surfaces of constant curvature, but the manifold is {manifold!r}; "
            f"draw the factors of a product one by one."
        )
    if curvature.numel() != 1:
        raise ValueError(f"the curvature has shape {tuple(curvature.shape)}, but a picture shows one curvature.")
    values = {name: value.detach().cpu().double().reshape(()) for name, value in geometry.parameters().items()}
    drawn: Any = bind(geometry.with_parameters(values))
    return Picture(drawn, drawn.curvature().item())


def tensor_of(x: Array, name: str) -> Tensor:
    """Returns an array-like as a tensor; Python numbers get the default dtype."""
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
        # A copy: torch takes no read-only, reversed or big-endian arrays.
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} is {reprlib.repr(x)}, but must be a torch.Tensor, a NumPy array, or lists of equal length."
        ) from error


def _length(v: Tensor) -> Tensor:
    """Returns the norm, ``(*, 1)``; eps keeps it positive and is far below rounding error."""
    return (v.square().sum(-1, keepdim=True) + torch.finfo(v.dtype).eps ** 2).sqrt()


def _gap(p: Tensor) -> Tensor:
    """Returns ``1 - |p|^2`` for ``|p| <= 1`` up to rounding, ``(*, 1)``."""
    length = p.norm(dim=-1, keepdim=True)
    return ((1 - length) * (1 + length)).clamp(min=0.0)
