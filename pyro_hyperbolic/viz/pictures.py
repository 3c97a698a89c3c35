r"""Pictures of surfaces of constant curvature, on the CPU in float64: what they share, the disk and the plane."""

import math
import reprlib
from typing import Any

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.path import Path
from numpy.typing import ArrayLike
from torch import Tensor

from pyro_hyperbolic.geometry import Complete, Hadamard, checks
from pyro_hyperbolic.numerics import norm, sinhc

__all__ = ["Array", "Disk", "Extent", "Native", "Picture", "Z", "tensor_of"]

#: What can be drawn: tensors, NumPy arrays, and nested lists of these or of numbers.
Array = Tensor | ArrayLike

#: ``(left, right, bottom, top)``.
Extent = tuple[float, float, float, float]


class Z:
    """The drawing order, from back to front. Matplotlib draws patches at 1 and lines at 2."""

    DENSITY, TILING, GEODESICS, REGIONS, POINTS, BOUNDARY = 0.5, 0.7, 1.5, 2.2, 2.5, 3.0


class Picture:
    r"""A map between a surface and coordinates ``p`` on the axes, ``(*, 2)``.

    A subclass implements ``place``, ``points``, ``polylines`` and ``extent``. The picture fills disks of one radius, or
    a rectangle.

    Args:
        geometry: The geometry of the surface, on the CPU in float64.
    """

    #: Radius of the disks, and their centres ``(D, 2)``.
    radius = math.inf
    centres = torch.zeros(1, 2, dtype=torch.float64)
    #: Whether areas are those of the surface, though coordinates ``p`` may be others than those of the page.
    equal_area = False
    #: Number of cells across for each cell upwards.
    aspect = 1
    #: What to draw of points in more than two dimensions.
    remedy = "two of them"

    def __init__(self, geometry: Complete) -> None:
        self.geometry = geometry

    @property
    def unit(self) -> float:
        """The length at which curvature is felt, and points lose digits."""
        return self.radius

    def place(self, x: Tensor) -> Tensor:
        """Maps points to the picture."""
        raise NotImplementedError

    def points(self, p: Tensor) -> Tensor:
        """Maps the picture to points."""
        raise NotImplementedError

    def polylines(self, x: Tensor, y: Tensor, samples: int) -> list[np.ndarray]:
        """Returns the geodesics from points ``x`` to ``y``, both ``(B, *event)``, as polylines ``(V, 2)``."""
        raise NotImplementedError

    def extent(self, ax: Axes) -> Extent:
        """Returns the rectangle that holds the picture."""
        raise NotImplementedError

    def log_volume(self, p: Tensor) -> Tensor:
        """Returns the log-density of Riemannian volume with respect to Lebesgue measure of ``p``, ``(*)``."""
        return p.new_zeros(p.shape[:-1])

    def checked(self, x: Array, name: str) -> Tensor:
        """Returns checked points on the CPU in float64."""
        x = tensor_of(x, name)
        checks.check_points(self.geometry, x, name)
        n = self.geometry.dim(x.shape)
        if n != 2:
            remedy = self.remedy if n > 2 else "a histogram of their coordinate"
            raise ValueError(f"{name} has n = {n} dimensions, but a picture shows n = 2; draw {remedy}.")
        return x.detach().cpu().double()

    def push(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Maps points and tangent vectors there, in ambient coordinates, to the picture."""
        x = x.clone().requires_grad_()
        p = self.place(x)
        rows = [torch.autograd.grad(part.sum(), x, retain_graph=True)[0] for part in p.unbind(-1)]
        return p.detach(), torch.stack([(row * u).sum(-1) for row in rows], dim=-1)

    def lengths(self, x: Tensor, u: Tensor) -> Tensor:
        """Returns the Riemannian lengths of tangent vectors in ambient coordinates; here these are isometric."""
        return u.norm(dim=-1)

    def borders(self, ax: Axes, extent: Extent | None, resolution: int) -> list[Tensor]:
        """Returns the borders of ``resolution`` cells upwards, and of cells across, by default of the whole picture."""
        checks.check_count("resolution", resolution, 1, "it is the number of cells upwards")
        extent = self.extent(ax) if extent is None else extent
        sizes = (self.aspect * resolution, resolution)
        sides = zip((extent[:2], extent[2:]), sizes, strict=True)
        return [torch.linspace(*side, size + 1, dtype=torch.float64) for side, size in sides]

    def in_disk(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the centre of the disk that is closest, ``(*, 2)``, and the distance from it, ``(*, 1)``."""
        apart = (p.unsqueeze(-2) - self.centres).norm(dim=-1)
        distance, nearest = apart.min(-1, keepdim=True)
        return self.centres[nearest.squeeze(-1)], distance

    def clip(self, artist: Artist, ax: Axes) -> None:
        """Clips an artist to the disks."""
        if math.isfinite(self.radius):
            disks = [Path.circle(tuple(centre), self.radius) for centre in self.centres.tolist()]
            artist.set_clip_path(Path.make_compound_path(*disks), transform=ax.transData)


class Disk(Picture):
    r"""The disk :math:`p = \tanh(r/2)\, v / r` with :math:`r = |v| / R`, or its flat limit, the plane :math:`p = v`.

    Here ``v`` are normal coordinates at the origin. Of a point the picture reads nothing else.

    Args:
        geometry: The geometry of the surface, on the CPU in float64.
        curvature: Its sectional curvature, :math:`-1 / R^2`.
    """

    geometry: Hadamard
    remedy = "geometry.exp0(M, geometry.log0(M, x)[..., :2]), two tangent coordinates"

    def __init__(self, geometry: Hadamard, curvature: float) -> None:
        super().__init__(geometry)
        self.radius = (-curvature) ** -0.5 if curvature else math.inf
        self._scale = 0.5 if curvature else 1.0

    def place(self, x: Tensor) -> Tensor:
        """Maps points to the picture."""
        v = self.geometry.log0(x)[0]
        half = _length(v / (2 * self.radius))
        return self._scale * v * (half.tanh() / half)

    def points(self, p: Tensor) -> Tensor:
        """Maps the picture to points."""
        length = _length(p / self.radius)
        return self.geometry.exp0(p / self._scale * (length.atanh() / length))[0]

    def log_volume(self, p: Tensor) -> Tensor:
        """Returns the log-density of Riemannian volume with respect to Lebesgue measure of the picture, ``(*)``."""
        return -2 * (self._scale * _gap(p / self.radius)).log().squeeze(-1)

    def lengths(self, x: Tensor, u: Tensor) -> Tensor:
        p, arrow = self.push(x, u)
        return arrow.norm(dim=-1) * (self.log_volume(p) / 2).exp()  # the picture is conformal

    def polylines(self, x: Tensor, y: Tensor, samples: int) -> list[np.ndarray]:
        return list(self.arcs(self.place(x), self.place(y), samples).numpy())

    def arcs(self, p: Tensor, q: Tensor, samples: int) -> Tensor:
        r"""Returns points ``z`` of geodesics with :math:`|z - p| : |z - q| = f : 1 - f`, at evenly spaced ``f``.

        In units of R, with :math:`\alpha = 1 - |p|^2`, :math:`\beta = 1 - |q|^2`,
        :math:`h^2 = \alpha\beta + |p - q|^2` and :math:`w^2 = (a \alpha + b \beta)^2 + 4 a b |p - q|^2`,

        .. math:: z = 2 (a p + b q) / (a (2 - \alpha) + b (2 - \beta) + w)

        is on the geodesic for all positive a and b, and its ratio is :math:`(w + b \beta - a \alpha) : 2 a h`. So f
        gives the a and b below. No term is negative, so nothing cancels, not even for ends on the boundary.
        """
        f = torch.linspace(0, 1, samples, dtype=torch.float64).unsqueeze(-1)
        p, q = p.unsqueeze(-2), q.unsqueeze(-2)
        alpha, beta = _gap(p / self.radius), _gap(q / self.radius)
        square = ((p - q) / self.radius).square().sum(-1, keepdim=True)
        h = (alpha * beta + square).sqrt()
        h = h.masked_fill(h == 0, 1.0)  # the same point of the boundary twice
        a, b = (1 - f) * ((1 - f) * h + f * beta), f * (f * h + (1 - f) * alpha)
        w = ((a * alpha + b * beta) ** 2 + 4 * a * b * square).sqrt()
        return 2 * (a * p + b * q) / (a * (2 - alpha) + b * (2 - beta) + w)

    def extent(self, ax: Axes) -> Extent:
        r = self.radius
        return (-r, r, -r, r) if math.isfinite(r) else (*ax.get_xlim(), *ax.get_ylim())


class Native(Picture):
    r"""Normal coordinates at the origin, :math:`p = v`: the radius is the distance from the origin.

    Args:
        geometry: The geometry of a surface of negative curvature, on the CPU in float64.
        curvature: Its sectional curvature, :math:`-1 / R^2`.
        radius: The distance up to which the picture reaches.
    """

    geometry: Hadamard
    remedy = Disk.remedy

    def __init__(self, geometry: Hadamard, curvature: float, radius: float) -> None:
        super().__init__(geometry)
        self.radius, self._disk = radius, Disk(geometry, curvature)

    @property
    def unit(self) -> float:
        return self._disk.unit

    def lengths(self, x: Tensor, u: Tensor) -> Tensor:
        return self._disk.lengths(x, u)

    def place(self, x: Tensor) -> Tensor:
        return self.geometry.log0(x)[0]

    def points(self, p: Tensor) -> Tensor:
        return self.geometry.exp0(p)[0]

    def log_volume(self, p: Tensor) -> Tensor:
        return self.geometry.log_volume(p)

    def polylines(self, x: Tensor, y: Tensor, samples: int) -> list[np.ndarray]:
        v, w = (self.place(ends).unsqueeze(-2) / self.unit for ends in (x, y))
        apart = self.geometry.distance(x, y).reshape(-1, 1, 1) / self.unit
        f = torch.linspace(0, 1, samples, dtype=torch.float64).unsqueeze(-1)
        # x sinh((1 - f) d) / sinh(d) + y sinh(f d) / sinh(d), of v sinh(r) / r for each point.
        a, b = (_sinh_ratio(t, apart) * sinhc(u.square().sum(-1, keepdim=True)) * u for t, u in ((1 - f, v), (f, w)))
        space = a + b
        length = norm(space)
        ratio = torch.where(length > 0, length.asinh() / length.masked_fill(length == 0, 1.0), 1.0)
        return list((self.unit * ratio * space).numpy())

    def extent(self, ax: Axes) -> Extent:
        return (-self.radius, self.radius, -self.radius, self.radius)


def _sinh_ratio(t: Tensor, d: Tensor) -> Tensor:
    """Returns ``sinh(t d) / sinh(d)`` for ``0 <= t <= 1``, without overflow; t at ``d = 0``."""
    d = d.clamp(min=torch.finfo(d.dtype).tiny)  # expm1 is linear there, and the ratio t
    return torch.exp((t - 1) * d) * (torch.expm1(-2 * t * d) / torch.expm1(-2 * d))


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
