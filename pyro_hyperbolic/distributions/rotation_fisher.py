r"""The isotropic Fisher distribution of rotations."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_hyperbolic.distributions.concentrated_distribution import ConcentratedDistribution
from pyro_hyperbolic.distributions.radial_law import RadialLaw
from pyro_hyperbolic.geometry.rotations import RotationGroup, Rotations
from pyro_hyperbolic.numerics import norm

__all__ = ["RotationFisher"]

_ROTATIONS = Rotations()
_LOG_VOLUME = RotationGroup(_ROTATIONS).log_total_volume(3)


class RotationFisher(ConcentratedDistribution):
    r"""Isotropic Fisher distribution of rotations, :math:`p(X) \propto e^{c \operatorname{tr}(loc^\top X)}`.

    .. math:: \log p(X) = c \operatorname{tr}(loc^\top X) - c - \log 8 \pi^2 - \log\big(I_0(2c) - I_1(2c)\big)

    with respect to Riemannian volume, :math:`8 \pi^2` in all where lengths are angles; ``c`` is the concentration. The
    trace is :math:`1 + 2 \cos\theta` at angle :math:`\theta` from ``loc``. The normaliser and the CDF of the angle are
    Gauss-Legendre sums in float64. Samples are by inverse CDF, with exact gradients to both arguments. Gradients to
    ``loc`` are ambient: those of the formula, in the space of matrices.

    Shapes: ``loc`` and ``concentration`` broadcast to ``batch_shape``; events are ``(3, 3)``.

    Args:
        loc: The mode, a rotation, shape ``(*, 3, 3)``.
        concentration: Positive, a number or shape ``(*)``; half of one over the variance of each angle if large.
        validate_args: Whether to check arguments and values; Pyro's global setting by default.

    Raises:
        TypeError: If the arguments are not floating point of one dtype.
        ValueError: If the batch shapes do not broadcast or, while validating, ``loc`` is not a rotation or the
            concentration is not positive.

    References:
        *The von Mises-Fisher Matrix Distribution in Orientation Statistics*, C. Khatri, K. Mardia, Journal of the Royal
        Statistical Society B 39, 1977.

    Example:
        >>> d = RotationFisher(torch.eye(3), 1e-6)
        >>> d, d.log_prob(torch.eye(3))  # nearly uniform: -log(8 pi^2)
        (RotationFisher(loc: (3, 3), concentration: (), Rotations()), tensor(-4.3689))
    """

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.dependent(is_discrete=False, event_dim=2),
        "concentration": constraints.positive,
    }

    def __init__(self, loc: Tensor, concentration: Tensor | float, *, validate_args: bool | None = None) -> None:
        super().__init__(_ROTATIONS, loc, concentration, validate_args)

    def _log_prob(self, value: Tensor) -> Tensor:
        # tr(loc^T X) - 3 = -|X - loc|^2 / 2 is accurate near loc.
        chord = value - self._loc
        normaliser = (_law(self._concentration.double()).log_normaliser() + _LOG_VOLUME).to(chord.dtype)
        return -self._concentration * (chord * chord).sum((-2, -1)) / 2 - normaliser

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Returns points of shape ``sample_shape + batch_shape + event_shape``, differentiable in the parameters."""
        sample_shape, loc = torch.Size(sample_shape), self.loc
        c = self.concentration.double()
        u = torch.rand(*c.shape, sample_shape.numel(), dtype=torch.float64, device=c.device)
        angle = _law(c).quantile(u).movedim(-1, 0).reshape(sample_shape + c.shape).to(loc.dtype)
        axis = torch.randn(*angle.shape, 3, dtype=loc.dtype, device=loc.device)
        return RotationGroup(_ROTATIONS).exp(loc, angle.unsqueeze(-1) * (axis / norm(axis)))

    def _divergence_from_uniform(self) -> Tensor:
        c = self._concentration.double()
        law = _law(c)
        return -law.log_normaliser() - c * law.expectation(_versine)


def _versine(angle: Tensor) -> Tensor:
    r"""Returns :math:`(3 - \operatorname{tr} X) = 2 (1 - \cos\theta)`."""
    return 4 * (angle / 2).sin().square()


def _law(c: Tensor) -> RadialLaw:
    r"""Returns the law of the angle, :math:`\frac{1 - \cos t}{\pi} e^{-2 c (1 - \cos t)}`, of mass 1 if c = 0."""

    def log_density(t: Tensor) -> Tensor:
        versine = _versine(t)
        return (versine / (2 * math.pi)).log() - c.unsqueeze(-1) * versine

    # Beyond the end of the interval, exp(-c versine) is below exp(-45). Detached, since no_grad lets forward-mode
    # derivatives pass, and that of asin at 1 is infinite.
    upper = 2 * torch.asin((45 / (4 * c.detach())).clamp(max=1.0).sqrt())
    return RadialLaw(log_density, torch.zeros_like(upper), upper)
