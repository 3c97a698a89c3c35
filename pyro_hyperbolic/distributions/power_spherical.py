r"""The power spherical distribution on spheres of any dimension."""

import math

import torch
from torch import Tensor

from pyro_hyperbolic.distributions.axial_distribution import AxialDistribution

__all__ = ["PowerSpherical"]


class PowerSpherical(AxialDistribution):
    r"""Power spherical distribution on the sphere, :math:`p(x) \propto (1 + loc \cdot x)^c`.

    .. math:: \log p(x) = c \log \cos^2 \tfrac\theta2 - \tfrac n2 \log 4\pi
        + \log \frac{\Gamma(c + n)}{\Gamma(c + n/2)}, \qquad \cos\theta = loc \cdot x

    with respect to Riemannian volume, where ``c`` is the concentration. It is close to von Mises-Fisher of half the
    concentration, with a closed form in every dimension. :math:`\cos^2(\theta/2)` is a Beta variable, made of
    exponential variables and, in odd dimensions, one uniform angle: samples have exact gradients to both arguments.
    Gradients to ``loc`` are ambient, as for :class:`~pyro_hyperbolic.distributions.VonMisesFisher`.

    Shapes: ``loc`` and ``concentration`` broadcast to ``batch_shape``; events are ``(n + 1,)``.

    Args:
        loc: The mode, a unit vector, shape ``(*, n + 1)``.
        concentration: Positive, a number or shape ``(*)``; about two over the variance of each coordinate if large.
        validate_args: Whether to check arguments and values; Pyro's global setting by default.

    Raises:
        TypeError: If the arguments are not floating point of one dtype.
        ValueError: If the batch shapes do not broadcast or, while validating, ``loc`` is not a unit vector or the
            concentration is not positive.

    References:
        *The Power Spherical distribution*, N. De Cao, W. Aziz, 2020, arXiv:2006.04437. *Polar Generation of Random
        Variates with the t-Distribution*, R. Bailey, Mathematics of Computation 62, 1994.

    Example:
        >>> d = PowerSpherical(torch.tensor([0.0, 0.0, 1.0]), 1.0)
        >>> d, d.log_prob(torch.tensor([0.0, 1.0, 0.0]))  # (1 + cos) / (4 pi) is the density
        (PowerSpherical(loc: (3,), concentration: (), Sphere()), tensor(-2.5310))
    """

    def __init__(self, loc: Tensor, concentration: Tensor | float, *, validate_args: bool | None = None) -> None:
        super().__init__(loc, concentration, validate_args)

    def _log_prob(self, value: Tensor) -> Tensor:
        # The square of the half angle's cosine, from the shorter chord: to loc, or to its antipode.
        near = (value * self._loc).sum(-1, keepdim=True) >= 0
        chord = torch.where(near, value - self._loc, value + self._loc)
        quarter, near = (chord * chord).sum(-1) / 4, near.squeeze(-1)
        log_cos2 = torch.where(
            near, torch.log1p(-quarter.masked_fill(~near, 0.0)), quarter.masked_fill(near, 1.0).log()
        )
        c, n = self._concentration, self.dim
        return c * log_cos2 + _log_rise(c, n)[0] - n / 2 * math.log(4 * math.pi)

    def _half_angle(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        # cos^2 is Beta(c + n/2, n/2). Beta(a, b + b') is the product of Beta(a, b) and Beta(a + b, b'); Beta(a, 1) is
        # exp(-E / a), and Beta(a, 1/2) follows from Bailey's polar form of Student's t.
        a, like = self.concentration + self.dim / 2, self._concentration
        minus_log = torch.zeros(shape, dtype=like.dtype, device=like.device)
        if self.dim % 2:
            u, e = torch.rand_like(minus_log), torch.empty_like(minus_log).exponential_()
            minus_log = torch.log1p(torch.expm1(e / a) * torch.cos(math.pi * u).square())
            a = a + 0.5
        for j in range(self.dim // 2):
            minus_log = minus_log + torch.empty_like(minus_log).exponential_() / (a + j)
        return (-torch.expm1(-minus_log)).sqrt(), torch.exp(-minus_log / 2)

    def _divergence_from_uniform(self) -> Tensor:
        # In float64: of terms as large as n a divergence of the order of c^2 / n is left.
        c, n = self._concentration.double(), self.dim
        value, slope = _log_rise(c, n)
        at_zero = _log_rise(torch.zeros_like(c), n)[0]
        return value - at_zero - c * slope


def _log_rise(c: Tensor, n: int) -> tuple[Tensor, Tensor]:
    r"""Returns :math:`\log \frac{\Gamma(c + n)}{\Gamma(c + n/2)}` and its derivative, to rounding at every ``c``."""
    a, half = c + n / 2, n % 2
    steps = torch.arange(n // 2, dtype=c.dtype, device=c.device) + half / 2
    factors = a.unsqueeze(-1) + steps
    value, slope = factors.log().sum(-1), (1 / factors).sum(-1)
    if half:
        extra = _log_half_rise(a)
        value, slope = value + extra[0], slope + extra[1]
    return value, slope


#: Coefficients of 1 / a^m, m = 1, 3, ...: (2^-m - 2) B_{m+1} / (m (m + 1)), with Bernoulli numbers.
_HALF_RISE = [
    (2.0**-m - 2) * b / (m * (m + 1))
    for m, b in zip(range(1, 15, 2), [1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6], strict=True)
]


def _log_half_rise(a: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns :math:`\log \frac{\Gamma(a + 1/2)}{\Gamma(a)}` and its derivative: Stirling's series at ``a + 8``."""
    steps = torch.arange(8, dtype=a.dtype, device=a.device)
    below = a.unsqueeze(-1) + steps
    w = 1 / (a + 8)
    value = -w.log() / 2 - torch.log1p(1 / (2 * below)).sum(-1)
    slope = w / 2 + (1 / (2 * below * (below + 0.5))).sum(-1)
    for i, coefficient in enumerate(_HALF_RISE):
        m = 2 * i + 1
        value, slope = value + coefficient * w**m, slope - m * coefficient * w ** (m + 1)
    return value, slope
