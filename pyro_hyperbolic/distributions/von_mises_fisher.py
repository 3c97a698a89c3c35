r"""The von Mises-Fisher distribution on the sphere in R^3."""

import math

import torch
from torch import Tensor

from pyro_hyperbolic.distributions.axial_distribution import AxialDistribution
from pyro_hyperbolic.numerics import near_log_sinhc

__all__ = ["VonMisesFisher"]


class VonMisesFisher(AxialDistribution):
    r"""Von Mises-Fisher distribution on the sphere, :math:`p(x) = \frac{c}{4 \pi \sinh c}\, e^{c\, loc \cdot x}`.

    The density is with respect to area, and ``c`` is the concentration. Samples invert the CDF of
    :math:`loc \cdot x`, with exact gradients to both arguments. Gradients to ``loc`` are ambient: those of the formula,
    in R^3. Their tangent part is the Riemannian gradient; ``pyro.param(..., constraint=on_manifold(geoopt.Sphere()))``
    takes it by itself.

    Shapes: ``loc`` and ``concentration`` broadcast to ``batch_shape``; events are ``(3,)``.

    Args:
        loc: The mode, a unit vector, shape ``(*, 3)``.
        concentration: Positive, a number or shape ``(*)``; about one over the variance of each coordinate if large.
        validate_args: Whether to check arguments and values; Pyro's global setting by default.

    Raises:
        TypeError: If the arguments are not floating point of one dtype.
        ValueError: If ``loc`` is not in R^3, the batch shapes do not broadcast or, while validating, ``loc`` is not a
            unit vector or the concentration is not positive.

    References:
        *Dispersion on a Sphere*, R. Fisher, Proceedings of the Royal Society A 217, 1953. *Numerically stable sampling
        of the von Mises-Fisher distribution on S^2*, W. Jakob, 2012.

    Example:
        >>> d = VonMisesFisher(torch.tensor([0.0, 0.0, 1.0]), 2.0)
        >>> d, d.log_prob(torch.tensor([0.0, 1.0, 0.0]))  # log(2 / (4 pi sinh(2)))
        (VonMisesFisher(loc: (3,), concentration: (), Sphere()), tensor(-3.1262))
    """

    def __init__(self, loc: Tensor, concentration: Tensor | float, *, validate_args: bool | None = None) -> None:
        super().__init__(loc, concentration, validate_args)
        if self.dim != 2:
            raise ValueError(
                f"loc has shape {tuple(loc.shape)}, but VonMisesFisher is on the sphere in R^3, (*, 3); use "
                f"PowerSpherical in other dimensions."
            )

    def _log_prob(self, value: Tensor) -> Tensor:
        # The chord is accurate where c is large, and loc * x is close to 1.
        chord = value - self._loc
        return _log_peak(self._concentration) - self._concentration * (chord * chord).sum(-1) / 2

    def _half_angle(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        c = self.concentration
        u = torch.rand(shape, dtype=c.dtype, device=c.device)
        sin2 = _half_versine(u, c)
        # The reflection at the equator turns c into -c, and sine into cosine. It is exact near the antipode, which
        # samples reach unless c is large; then its derivatives overflow.
        small = c < 20
        cos2 = torch.where(small, _half_versine(1 - u, -_split(c, small)[0]), 1 - sin2)
        # With u = 0 the sine is 0, whose square root has no derivative; the sine itself has the derivative 0.
        ratio = _half_versine_ratio(u, c).sqrt()
        return u.sqrt() * ratio, cos2.sqrt()

    def mean_versine(self) -> Tensor:
        r"""Returns :math:`E[1 - loc \cdot x] = 1 + 1 / c - \coth c`, shape ``(*)``; accurate for large ``c``."""
        return _mean_versine(self._concentration).expand(self.batch_shape)

    def _divergence_from_uniform(self) -> Tensor:
        # c E[cos] - log(sinh(c) / c), where both terms are of the order of c^2 near 0.
        c = self._concentration
        small = c < 1
        near, _ = _split(c, small)
        return torch.where(
            small,
            near * _small_mean_cosine(near) - near_log_sinhc(near * near),
            math.log(4 * math.pi) + _log_peak(c) - c * _mean_versine(c),
        )


def _split(x: Tensor, small: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the arguments of both branches of a ``where``, with finite results where a branch is not chosen."""
    return x.masked_fill(~small, 0.0), x.masked_fill(small, 1.0)


def _log_peak(c: Tensor) -> Tensor:
    r"""Returns the logarithm of the density at the mode, :math:`\log \frac{c}{2 \pi (1 - e^{-2 c})}`."""
    small = c < 1
    near, far = _split(c, small)
    near_value = near - near_log_sinhc(near * near) - math.log(4 * math.pi)
    return torch.where(small, near_value, far.log() - torch.log(-torch.expm1(-2 * far)) - math.log(2 * math.pi))


def _mean_versine(c: Tensor) -> Tensor:
    r"""Returns :math:`E[1 - loc \cdot x] = 1 + 1 / c - \coth c`."""
    small = c < 1
    near, far = _split(c, small)
    return torch.where(small, 1 - _small_mean_cosine(near), 1 / far + 2 * torch.exp(-2 * far) / torch.expm1(-2 * far))


def _small_mean_cosine(c: Tensor) -> Tensor:
    r"""Returns :math:`\coth c - 1 / c` for ``c <= 1``, a ratio of two series without cancellation."""
    z, above, below = c * c, torch.zeros_like(c), torch.zeros_like(c)
    for j in range(10, 0, -1):  # c cosh(c) - sinh(c) and sinh(c)
        above = above * z + (1 / math.factorial(2 * j) - 1 / math.factorial(2 * j + 1))
        below = below * z + 1 / math.factorial(2 * j + 1)
    return c * above / (1 + z * below)


def _half_versine(u: Tensor, c: Tensor) -> Tensor:
    r"""Returns the quantile of :math:`(1 - loc \cdot x) / 2`, which is :math:`-\log(1 + u (e^{-2c} - 1)) / 2c`."""
    return u * _half_versine_ratio(u, c)


def _half_versine_ratio(u: Tensor, c: Tensor) -> Tensor:
    # The sum 1 - u + u e^(-2c) has no cancellation, where u is nearly 1.
    ratio = _expm1c(-2 * c)
    return ratio * _log1pc(-2 * c * u * ratio, (1 - u) + u * torch.exp(-2 * c))


def _expm1c(y: Tensor) -> Tensor:
    r"""Returns :math:`(e^y - 1) / y`, smooth at 0."""
    small = y.abs() < 0.1
    (near, far), series = _split(y, small), torch.zeros_like(y)
    for j in range(12, 0, -1):
        series = series * near + 1 / math.factorial(j)
    return torch.where(small, series, torch.expm1(far) / far)


def _log1pc(y: Tensor, one_more: Tensor) -> Tensor:
    r"""Returns :math:`\log(1 + y) / y` of ``y`` and ``1 + y``, smooth at 0."""
    small = y.abs() < 0.1
    (near, far), series = _split(y, small), torch.zeros_like(y)
    for j in range(18, 0, -1):
        series = series * -near + 1 / j
    return torch.where(small, series, one_more.log() / far)
