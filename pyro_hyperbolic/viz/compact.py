r"""Pictures of compact surfaces, which are cut open: two hemispheres, Mollweide's map, the square of a torus."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from .pictures import Extent, Picture

__all__ = ["Cut", "Hemispheres", "Mollweide", "Square"]


class Cut(Picture):
    """A picture that is cut open along seams. A subclass implements ``crosses`` instead of ``polylines``."""

    def crosses(self, p: Tensor, q: Tensor) -> Tensor:
        """Returns whether the short way between two places leads through a seam, ``(*)``."""
        raise NotImplementedError

    def polylines(self, x: Tensor, y: Tensor, samples: int) -> list[np.ndarray]:
        u = self.geometry.log(x, y)
        return self.curves(lambda i, f: self.geometry.exp(x[i], f * u[i]), len(x), samples)

    def curves(self, curve: Callable[[Tensor, Tensor], Tensor], number: int, samples: int) -> list[np.ndarray]:
        """Returns the polylines of curves, which end on one side of a seam, and go on after a NaN on the other.

        Args:
            curve: Maps indices of curves ``(B)`` and fractions of them ``(B, 1)`` to points.
            number: Number of curves.
            samples: Number of points on each.
        """
        index = torch.arange(number).repeat_interleave(samples)
        f = torch.linspace(0, 1, samples, dtype=torch.float64).repeat(number).unsqueeze(-1)
        p = self.place(curve(index, f))
        cut = (self.crosses(p[:-1], p[1:]) & (index[:-1] == index[1:])).nonzero().squeeze(-1)
        # The fraction just before and just after the seam, by bisection.
        before, after = f[cut], f[cut + 1]
        for _ in range(40):
            middle = (before + after) / 2
            beyond = self.crosses(p[cut], self.place(curve(index[cut], middle))).unsqueeze(-1)
            before, after = torch.where(beyond, before, middle), torch.where(beyond, middle, after)
        end, start = (self.place(curve(index[cut], f)) for f in (before, after))
        # Through a corner of the torus there is a second seam.
        start[self.crosses(start, p[cut + 1])] = math.nan
        gaps = torch.stack([end, torch.full_like(end, math.nan), start], dim=1).reshape(-1, 2)
        vertices = np.insert(p.numpy(), np.repeat(cut.numpy() + 1, 3), gaps.numpy(), axis=0)
        stops = samples * np.arange(number + 1) + 3 * np.searchsorted(cut.numpy(), samples * np.arange(number + 1) - 1)
        return [vertices[start:stop] for start, stop in pairwise(stops.tolist())]


class Hemispheres(Cut):
    r"""Two hemispheres side by side, :math:`p = \sqrt{2 / (1 + |x_1|)}\, (-\operatorname{sign}(x_1) x_0, x_2)`.

    Each is Lambert's equal-area map about a point of the equator, with north, :math:`x_2`, upwards. The left one is of
    western longitudes, :math:`x_1 < 0`. They nearly touch at :math:`x_0 = 1`, of longitude 0.
    """

    radius = math.sqrt(2)
    centres = torch.tensor([[-1.03 * radius, 0.0], [1.03 * radius, 0.0]], dtype=torch.float64)
    equal_area = True
    aspect = 2
    remedy = "geometry.project(M, x[..., :3])"

    def place(self, x: Tensor) -> Tensor:
        first, depth, north = x.unbind(-1)
        side = torch.where(depth < 0, -1.0, 1.0).to(x)
        p = torch.stack([-side * first, north], dim=-1) * (2 / (1 + depth.abs())).sqrt().unsqueeze(-1)
        return p + self.centres[(depth >= 0).long()]

    def points(self, p: Tensor) -> Tensor:
        centre, distance = self.in_disk(p)
        across, north = ((p - centre) * (1 - distance**2 / 4).clamp(min=0).sqrt()).unbind(-1)
        side = torch.where(centre.unbind(-1)[0] < 0, -1.0, 1.0).to(p)
        return torch.stack([-side * across, side * (1 - distance.squeeze(-1) ** 2 / 2), north], dim=-1)

    def crosses(self, p: Tensor, q: Tensor) -> Tensor:
        return (p.unbind(-1)[0] < 0) != (q.unbind(-1)[0] < 0)

    def extent(self, ax: Axes) -> Extent:
        return (-2.03 * self.radius, 2.03 * self.radius, -self.radius, self.radius)


class Mollweide(Cut):
    """Longitude and latitude, for matplotlib's axes of the Mollweide projection, which is equal-area."""

    equal_area = True
    aspect = 2
    remedy = Hemispheres.remedy

    def place(self, x: Tensor) -> Tensor:
        first, second, north = x.unbind(-1)
        return torch.stack([torch.atan2(second, first), torch.atan2(north, torch.hypot(first, second))], dim=-1)

    def points(self, p: Tensor) -> Tensor:
        longitude, latitude = p.unbind(-1)
        c = latitude.cos()
        return torch.stack([c * longitude.cos(), c * longitude.sin(), latitude.sin()], dim=-1)

    def log_volume(self, p: Tensor) -> Tensor:
        return p.unbind(-1)[1].cos().log()

    def crosses(self, p: Tensor, q: Tensor) -> Tensor:
        return (p - q).unbind(-1)[0].abs() > math.pi

    def extent(self, ax: Axes) -> Extent:
        return (-math.pi, math.pi, -math.pi / 2, math.pi / 2)


class Square(Cut):
    """The two angles of a torus, in a square with opposite sides glued."""

    equal_area = True
    remedy = "two of the angles, on Torus(2)"

    def place(self, x: Tensor) -> Tensor:
        return x

    def points(self, p: Tensor) -> Tensor:
        return p

    def crosses(self, p: Tensor, q: Tensor) -> Tensor:
        return ((p - q).abs() > math.pi).any(-1)

    def extent(self, ax: Axes) -> Extent:
        return (-math.pi, math.pi, -math.pi, math.pi)
