r"""Densities and their highest-density regions."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from geoopt.manifolds.base import Manifold
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.contour import QuadContourSet
from torch import Tensor

from pyro_hyperbolic.geometry import checks

from .choice import axes, picture
from .pictures import Array, Extent, Picture, Z, tensor_of

__all__ = ["density", "regions"]

_LABELS = {
    "riemannian": "density with respect to Riemannian volume",
    "lebesgue": "density with respect to Lebesgue measure of the picture",
}


def density(
    ax: Axes | None,
    manifold: Manifold,
    log_prob: Callable[[Tensor], Array],
    *,
    measure: str = "riemannian",
    extent: Extent | None = None,
    resolution: int = 300,
    batch_size: int = 16384,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **kwargs: Any,
) -> QuadMesh:
    r"""Draws :math:`\exp(\texttt{log_prob}(x))`, the density with respect to Riemannian volume, as a coloured mesh.

    Equal colours mean equal density on the manifold: moving a distribution away from the origin makes it look smaller,
    but does not change its colours. Cells outside a disk are blank; cells cut by the boundary show the density just
    inside.

    ``measure="lebesgue"`` draws the density with respect to area in the picture instead, larger by the factor
    :math:`4 / (1 - |p|^2/k)^2`: how densely samples cover the picture. It has a different mode. Pictures of the sphere
    and the torus keep areas, so both are the same there. The label of the mesh names the measure:
    ``figure.colorbar(mesh, label=mesh.get_label())``.

    Args:
        ax: Axes to draw on; None is pyplot's current axes.
        manifold: ``geoopt.Lorentz``, ``PoincareBall``, ``Euclidean(1)`` or ``Sphere``, or ``ph.manifolds.Torus(2)``.
        log_prob: Maps points, shape ``(B, 3)`` on ``Lorentz`` and ``Sphere``, else ``(B, 2)``, to the log-density with
            respect to Riemannian volume, shape ``(B)``. Called without gradients.
        measure: ``"riemannian"``, or ``"lebesgue"`` for area in the picture.
        extent: ``(left, right, bottom, top)``; by default the whole picture, in the plane the current limits of ``ax``.
        resolution: Number of cells upwards and across; twice as many across on the sphere.
        batch_size: Number of points in one call of ``log_prob``.
        dtype: Of the points; the default dtype if not given.
        device: Of the points.
        **kwargs: For ``ax.pcolormesh``, such as ``cmap``, ``vmax`` or ``norm``.

    Returns:
        The QuadMesh, for ``figure.colorbar``.

    Raises:
        TypeError: If the manifold is none of these.
        ValueError: If ``measure`` is neither, or ``log_prob`` returns another shape or NaN.

    Example:
        >>> from matplotlib.figure import Figure
        >>> M = geoopt.Lorentz()
        >>> normal = hdist.WrappedNormal(geometry.origin(M, 2), torch.ones(2), manifold=M)
        >>> mesh = density(Figure().subplots(), M, normal.log_prob, resolution=51)
        >>> torch.tensor(mesh.get_array().max())  # 1 / (2 pi) at the centre
        tensor(0.1592, dtype=torch.float64)
        >>> mesh.get_label()
        'density with respect to Riemannian volume'
    """
    if measure not in _LABELS:
        raise ValueError(f"measure = {measure!r}, but must be one of {', '.join(_LABELS)}.")
    ax = axes(ax)
    mesh = _Mesh(picture(ax, manifold), ax, extent, resolution, batch_size, dtype=dtype, device=device)
    stretched = measure == "lebesgue" and not mesh.drawn.equal_area
    values = (mesh.log_prob(log_prob) + (mesh.log_volume if stretched else 0.0)).exp()
    style = {"cmap": "Blues", "zorder": Z.DENSITY, "rasterized": True, "label": _LABELS[measure]}
    style |= {} if "norm" in kwargs else {"vmin": 0.0}
    artist = ax.pcolormesh(*(border.numpy() for border in mesh.borders), values.numpy(), **{**style, **kwargs})
    mesh.drawn.clip(artist, ax)
    return artist


def regions(
    ax: Axes | None,
    manifold: Manifold,
    log_prob: Callable[[Tensor], Array],
    masses: Sequence[float] = (0.5, 0.95),
    *,
    extent: Extent | None = None,
    resolution: int = 300,
    batch_size: int = 16384,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **kwargs: Any,
) -> QuadContourSet:
    r"""Draws the boundaries of highest-density regions, :math:`\{x : p(x) \ge c\}` with probability ``mass`` each.

    These are the sets of least Riemannian volume with that probability. The density may be unnormalised, such as a
    joint density as a function of a latent: masses are fractions of the total over the mesh.

    Args:
        ax: Axes to draw on; None is pyplot's current axes.
        manifold: ``geoopt.Lorentz``, ``PoincareBall``, ``Euclidean(1)`` or ``Sphere``, or ``ph.manifolds.Torus(2)``.
        log_prob: Maps points, shape ``(B, 3)`` on ``Lorentz`` and ``Sphere``, else ``(B, 2)``, to the log-density with
            respect to Riemannian volume up to a constant, shape ``(B)``. Called without gradients.
        masses: Probabilities, each between 0 and 1.
        extent: ``(left, right, bottom, top)``; by default the whole picture, in the plane the current limits of ``ax``.
        resolution: Number of cells upwards and across; twice as many across on the sphere.
        batch_size: Number of points in one call of ``log_prob``.
        dtype: Of the points; the default dtype if not given.
        device: Of the points.
        **kwargs: For ``ax.contour``, such as ``colors`` or ``linestyles``.

    Returns:
        The QuadContourSet, with levels in increasing density, so in decreasing mass.

    Raises:
        TypeError: If the manifold is none of these.
        ValueError: If a mass is not between 0 and 1, or ``log_prob`` returns another shape or NaN.

    Example:
        Half of the mass of a standard normal is where its density exceeds :math:`\frac{1}{2\pi} \cdot \frac12`:

        >>> from matplotlib.figure import Figure
        >>> flat = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> extent = (-6, 6, -6, 6)
        >>> contours = regions(Figure().subplots(), geoopt.Euclidean(1), flat.log_prob, [0.5], extent=extent)
        >>> round(2 * torch.pi * float(contours.levels[0]), 2)
        0.5
    """
    wanted = torch.as_tensor(masses, dtype=torch.float64).flatten()
    if not wanted.numel() or not bool(((wanted > 0) & (wanted < 1)).all()):
        raise ValueError(f"masses = {wanted.tolist()}, but each must be in (0, 1).")
    ax = axes(ax)
    mesh = _Mesh(picture(ax, manifold), ax, extent, resolution, batch_size, dtype=dtype, device=device)
    log_values = mesh.log_prob(log_prob)
    outside = log_values.isnan().numpy()
    log_values = log_values.nan_to_num(nan=-math.inf)
    values = (log_values - log_values.max()).exp()
    descending, order = values.flatten().sort(descending=True)
    held = (values * mesh.volume).flatten()[order].cumsum(0)
    # Each level is the density of the cell at which the cumulative mass reaches the wanted one, interpolated.
    levels = torch.tensor(np.interp((wanted * held[-1]).numpy(), held.numpy(), descending.numpy())).unique()
    scale = log_values.max().exp()
    middles = [((border[1:] + border[:-1]) / 2).numpy() for border in mesh.borders]
    style = {"zorder": Z.REGIONS, "linewidths": 1.2} | ({} if "cmap" in kwargs else {"colors": "0.2"})
    heights = np.ma.array((scale * values).numpy(), mask=outside)
    artist = ax.contour(*middles, heights, levels=(scale * levels).numpy(), **{**style, **kwargs})
    mesh.drawn.clip(artist, ax)
    return artist


class _Mesh:
    """Cells that cover a picture, and the points of the manifold at their centres."""

    def __init__(
        self, drawn: Picture, ax: Axes, extent: Extent | None, resolution: int, batch_size: int, **options: Any
    ) -> None:
        checks.check_count("batch_size", batch_size, 1, "it is the number of points in one call")
        self.drawn, self.borders = drawn, drawn.borders(ax, extent, resolution)
        sides = [float(border[1] - border[0]) for border in self.borders]
        centres = torch.stack(torch.meshgrid(*((b[1:] + b[:-1]) / 2 for b in self.borders), indexing="xy"), dim=-1)
        (disk, norms), cell = drawn.in_disk(centres), max(sides)
        self._shown = (norms < drawn.radius + cell).squeeze(-1)
        # A quarter of a cell inside the boundary, points are finite in every dtype; the clip path cuts the rest.
        centres = disk + (centres - disk) * (drawn.radius * (1 - cell / drawn.radius / 4) / norms).clamp(max=1.0)
        #: Of Riemannian volume with respect to Lebesgue measure of the picture, in each cell.
        self.log_volume = drawn.log_volume(centres)
        #: The Riemannian volume of each cell; 0 where its centre is outside the disk.
        self.volume = math.prod(map(abs, sides)) * self.log_volume.exp() * (norms.squeeze(-1) < drawn.radius)
        options["dtype"] = options["dtype"] or torch.get_default_dtype()
        self._batches = drawn.points(centres[self._shown]).to(**options).split(batch_size)

    @torch.no_grad()
    def log_prob(self, log_prob: Callable[[Tensor], Array]) -> Tensor:
        """Returns the log-density in each cell, NaN outside the picture."""
        values = torch.full(self._shown.shape, math.nan, dtype=torch.float64)
        values[self._shown] = torch.cat([_log_density(log_prob, batch) for batch in self._batches])
        return values


def _log_density(log_prob: Callable[[Tensor], Array], x: Tensor) -> Tensor:
    value = tensor_of(log_prob(x), "log_prob(x)")
    if value.shape != x.shape[:-1]:
        raise ValueError(
            f"log_prob maps points {tuple(x.shape)} to {tuple(value.shape)}, but must return {tuple(x.shape[:-1])}; "
            f"draw a batch of distributions one at a time."
        )
    if bool(value.isnan().any()):
        raise ValueError(
            f"log_prob is NaN at {int(value.isnan().sum())} points, first at {x[value.isnan()][0].tolist()}."
        )
    return value.detach().cpu().double()
