r"""Distributions of a radius on an interval, given up to a constant: normaliser and inverse CDF by quadrature."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["RadialLaw"]

_POINTS = 16


def _legendre(x: Tensor) -> list[Tensor]:
    """Returns the Legendre polynomials of degrees 0 to 16 at ``x``."""
    found = [torch.ones_like(x), x]
    for m in range(1, _POINTS):
        found.append(((2 * m + 1) * x * found[m] - m * found[m - 1]) / (m + 1))
    return found


_NODES, _WEIGHTS = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(_POINTS))
_WEIGHTS = _WEIGHTS / 2  # of sum 1
#: From the masses of the nodes of a panel to the Legendre coefficients of its density.
_COEFFICIENTS = torch.stack([(2 * m + 1) * p for m, p in enumerate(_legendre(_NODES)[:_POINTS])], -1)


class RadialLaw:
    r"""The law of a radius with density proportional to :math:`e^{\ell(r)}` on an interval, in float64.

    The interval is cut into panels of 16 Gauss-Legendre nodes. The normaliser takes 6 panels, which is exact to
    rounding if the density is analytic and changes by no more than :math:`e^7` in a panel. The CDF takes 12, and in
    each panel the polynomial through the nodes.

    Args:
        log_density: Returns :math:`\ell(r)` for radii ``(*, m)``, up to a constant; differentiable in its parameters.
        lower: Start of the interval, shape ``(*)``, float64, without gradients.
        upper: End of the interval, shape ``(*)``, float64, without gradients.
    """

    def __init__(self, log_density: Callable[[Tensor], Tensor], lower: Tensor, upper: Tensor) -> None:
        self._log_density, self._lower, self._upper = log_density, lower.unsqueeze(-1), upper.unsqueeze(-1)

    def log_normaliser(self) -> Tensor:
        r"""Returns :math:`\log \int e^{\ell(r)}\, dr`, shape ``(*)``."""
        return self._log_masses(6)[1].logsumexp(-1)

    def expectation(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns the mean of a function of the radius, shape ``(*)``."""
        radii, log_masses = self._log_masses(6)
        return (log_masses.softmax(-1) * function(radii)).sum(-1)

    def quantile(self, u: Tensor) -> Tensor:
        r"""Returns the radii at which the CDF is ``u``, both ``(*, N)``, with exact first derivatives.

        Newton's method solves ``F(r) = u``. Its last step has the derivatives :math:`-\partial_\theta F / F'` of the
        implicit function theorem.
        """
        panels = 12
        mass = self._log_masses(panels)[1].softmax(-1).unflatten(-1, (panels, _POINTS))
        series = mass @ _COEFFICIENTS.to(mass)
        ends = pad(mass.sum(-1).cumsum(-1), (1, 0))
        panel = torch.searchsorted(ends[..., 1:-1].detach().contiguous(), u.contiguous(), right=True)
        ahead = u - ends.gather(-1, panel)
        series = series.gather(-2, panel.unsqueeze(-1).expand(*panel.shape, _POINTS))
        with torch.no_grad():
            x = 2 * ahead / mass.sum(-1).gather(-1, panel) - 1
            low, high = torch.full_like(x, -1.0), torch.ones_like(x)
            for _ in range(12):  # bisection where Newton's step leaves the bracket
                cdf, density = _integrated(series, x)
                low, high = torch.where(cdf < ahead, x, low), torch.where(cdf < ahead, high, x)
                step = x - 2 * (cdf - ahead) / density
                x = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
        cdf, density = _integrated(series, x)
        x = x - 2 * (cdf - ahead) / density.detach()
        return self._lower + (self._upper - self._lower) * (panel + (1 + x) / 2) / panels

    def _log_masses(self, panels: int) -> tuple[Tensor, Tensor]:
        """Returns the nodes, and the logarithms of their masses up to a common constant, both ``(*, 16 panels)``."""
        width = (self._upper - self._lower) / panels
        start = torch.arange(panels, dtype=width.dtype, device=width.device).unsqueeze(-1)
        radii = self._lower + width * (start + (1 + _NODES.to(width)) / 2).flatten()
        return radii, self._log_density(radii) + width.log() + _WEIGHTS.log().to(width).repeat(panels)


def _integrated(series: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns :math:`\frac12 \int_{-1}^x g` and :math:`g(x)` of a Legendre series ``(*, 16)``."""
    p = _legendre(x)
    a = series.unbind(-1)
    cdf, density = a[0] * (1 + x) / 2, a[0].expand(x.shape)
    for m in range(1, _POINTS):
        cdf = cdf + a[m] * ((p[m + 1] - p[m - 1]) / (4 * m + 2))
        density = density + a[m] * p[m]
    return cdf, density
