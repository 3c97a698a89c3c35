r"""Functions on the manifold: densities, and the regions that hold most of one."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from geoopt.manifolds.base import Manifold
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.contour import QuadContourSet
from matplotlib.patches import Circle
from torch import Tensor

from pyro_hyperbolic import charts

from .pictures import Array, Z, is_ball, is_disk, on_cpu, tensor_of

__all__ = ["density", "regions"]

_LABELS = {
    "riemannian": "density with respect to Riemannian volume",
    "lebesgue": "density with respect to Lebesgue measure of the picture",
}


def density(
    ax: Axes,
    manifold: Manifold,
    log_prob: Callable[[Tensor], Array],
    *,
    measure: str = "riemannian",
    extent: tuple[float, float, float, float] | None = None,
    resolution: int = 300,
    batch_size: int = 16384,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **kwargs: Any,
) -> QuadMesh:
    r"""Draws :math:`\exp(\texttt{log\_prob}(x))`, the density with respect to Riemannian volume, as a coloured mesh.

    Equal colours mean equal density on the manifold: a distribution far from the origin has the colours that it would
    have there, and only looks smaller. Cells outside of the disk are left blank; those cut by the boundary show the
    density just inside.

    Measured by the area of the picture instead, ``measure="lebesgue"``, the same law is denser by the factor
    :math:`4 / (1 - |p|^2/k)^2`, without bound towards the rim: how many samples one sees in a part of the picture. Its
    mode is another one. The artist's label says which measure it is:
    ``figure.colorbar(mesh, label=mesh.get_label())``.

    Args:
        ax: Axes to draw on.
        manifold: ``geoopt.Lorentz`` or ``geoopt.Euclidean(1)``.
        log_prob: Maps points ``(B, 3)``, or ``(B, 2)`` in the plane, to ``(B)``, with respect to Riemannian volume;
            called without gradients.
        measure: ``"riemannian"``, or ``"lebesgue"`` for the measure of the disk's own coordinates.
        extent: ``(left, right, bottom, top)``; the whole disk, or the present limits of ``ax`` in the plane.
        resolution: Cells along each side.
        batch_size: Points in one call of ``log_prob``.
        dtype: Of the points; the default dtype if not given.
        device: Of the points.
        **kwargs: For ``ax.pcolormesh``, such as ``cmap``, ``vmax`` or ``norm``.

    Returns:
        The QuadMesh, which ``figure.colorbar`` takes.

    Raises:
        TypeError: If the manifold is neither.
        ValueError: If ``measure`` is neither, or ``log_prob`` returns another shape, or NaN.

    Example:
        >>> from matplotlib.figure import Figure
        >>> M = geoopt.Lorentz()
        >>> normal = hdist.WrappedNormal(geometry.origin(M, 2), torch.ones(2), manifold=M)
        >>> mesh = density(Figure().subplots(), M, normal.log_prob, resolution=51)
        >>> torch.tensor(mesh.get_array().max())  # 1 / (2 pi) in the middle
        tensor(0.1592, dtype=torch.float64)
        >>> mesh.get_label()
        'density with respect to Riemannian volume'
    """
    if measure not in _LABELS:
        raise ValueError(f"measure = {measure!r}, but must be one of {', '.join(_LABELS)}.")
    mesh = _Mesh(ax, manifold, extent, resolution, batch_size, dtype, device)
    values = (mesh.log_prob(log_prob) + (mesh.log_volume if measure == "lebesgue" else 0.0)).exp()
    style = {"cmap": "Blues", "zorder": Z.DENSITY, "rasterized": True, "label": _LABELS[measure]}
    style |= {} if "norm" in kwargs else {"vmin": 0.0}
    artist = ax.pcolormesh(*(border.numpy() for border in mesh.borders), values.numpy(), **{**style, **kwargs})
    if math.isfinite(mesh.radius):
        artist.set_clip_path(Circle((0.0, 0.0), mesh.radius, transform=ax.transData))
    return artist


def regions(
    ax: Axes,
    manifold: Manifold,
    log_prob: Callable[[Tensor], Array],
    masses: Sequence[float] = (0.5, 0.95),
    *,
    extent: tuple[float, float, float, float] | None = None,
    resolution: int = 300,
    batch_size: int = 16384,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **kwargs: Any,
) -> QuadContourSet:
    r"""Draws the borders of the highest-density regions, :math:`\{x : p(x) \ge c\}` of probability ``mass`` each.

    With respect to Riemannian volume: the smallest sets of that probability. The density may be unnormalised, a joint
    density as a function of a latent for one: masses are shares of what the mesh holds.

    Args:
        ax: Axes to draw on.
        manifold: ``geoopt.Lorentz`` or ``geoopt.Euclidean(1)``.
        log_prob: Maps points ``(B, 3)``, or ``(B, 2)`` in the plane, to ``(B)``; called without gradients.
        masses: Probabilities, each between 0 and 1.
        extent: ``(left, right, bottom, top)``; the whole disk, or the present limits of ``ax`` in the plane.
        resolution: Cells along each side.
        batch_size: Points in one call of ``log_prob``.
        dtype: Of the points; the default dtype if not given.
        device: Of the points.
        **kwargs: For ``ax.contour``, such as ``colors`` or ``linestyles``.

    Returns:
        The QuadContourSet, its levels from the lowest density (the largest mass) up.

    Raises:
        TypeError: If the manifold is neither.
        ValueError: If a mass is not between 0 and 1, or ``log_prob`` returns another shape, or NaN.

    Example:
        Half of a normal of scale 1 is denser than :math:`\frac{1}{2\pi} \cdot \frac12` in the plane:

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
    mesh = _Mesh(ax, manifold, extent, resolution, batch_size, dtype, device)
    log_values = mesh.log_prob(log_prob).nan_to_num(nan=-math.inf)
    values = (log_values - log_values.max()).exp()
    descending, order = values.flatten().sort(descending=True)
    held = (values * mesh.volume).flatten()[order].cumsum(0)
    # The density at which the cells so far hold the mass; interpolated, or the levels would jump from cell to cell.
    levels = torch.tensor(np.interp((wanted * held[-1]).numpy(), held.numpy(), descending.numpy())).unique()
    scale = log_values.max().exp()
    middles = [((border[1:] + border[:-1]) / 2).numpy() for border in mesh.borders]
    style = {"zorder": Z.REGIONS, "linewidths": 1.2} | ({} if "cmap" in kwargs else {"colors": "0.2"})
    return ax.contour(*middles, (scale * values).numpy(), levels=(scale * levels).numpy(), **{**style, **kwargs})


class _Mesh:
    """Cells that cover a picture, and the points of the manifold in their middles."""

    def __init__(
        self,
        ax: Axes,
        manifold: Manifold,
        extent: tuple[float, float, float, float] | None,
        resolution: int,
        batch_size: int,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> None:
        disk, flat = is_disk(manifold), on_cpu(manifold)
        self.radius = flat.k.sqrt().item() if disk else math.inf
        if extent is None:
            extent = (
                (-self.radius, self.radius, -self.radius, self.radius) if disk else (*ax.get_xlim(), *ax.get_ylim())
            )
        self.borders = [torch.linspace(*side, resolution + 1, dtype=torch.float64) for side in (extent[:2], extent[2:])]
        cell = max(float(border[1] - border[0]) for border in self.borders)
        centres = torch.stack(torch.meshgrid(*((b[1:] + b[:-1]) / 2 for b in self.borders), indexing="xy"), dim=-1)
        norms = centres.norm(dim=-1, keepdim=True)
        self._shown = norms.squeeze(-1) < self.radius + cell
        #: Of each cell, with respect to Riemannian volume; 0 where its middle is outside of the disk.
        self.volume = torch.full(self._shown.shape, float((self.borders[0][1] - self.borders[0][0]).abs()))
        self.volume = self.volume.double() * (self.borders[1][1] - self.borders[1][0]).abs()
        #: Of Riemannian volume with respect to Lebesgue measure, where the density is taken.
        self.log_volume = torch.zeros(self._shown.shape, dtype=torch.float64)
        if disk:
            inside = (1 - (norms.squeeze(-1) / self.radius).square()).clamp(min=0.0)
            self.volume = torch.where(inside > 0, 4 * self.volume / inside.square(), 0.0)
            # A quarter of a cell inside, the time coordinate is finite in every dtype; a clip cuts what sticks out.
            centres = centres * (self.radius * (1 - cell / self.radius / 4) / norms).clamp(max=1.0)
            self.log_volume = charts.poincare_ball_log_volume(flat, centres)
        x = centres[self._shown]
        x = charts.from_poincare_ball(flat, x) if disk and not is_ball(manifold) else x
        self._batches = x.to(device=device, dtype=dtype or torch.get_default_dtype()).split(batch_size)

    @torch.no_grad()
    def log_prob(self, log_prob: Callable[[Tensor], Array]) -> Tensor:
        """Returns the log-density in each cell, NaN where there is no picture."""
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
