r"""The two standard toy densities of the plane, checkerboard and spirals, with exact logarithms."""

import math
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_hyperbolic.geometry import checks

__all__ = ["Checkerboard", "TwoSpirals"]


class Checkerboard(dist.TorchDistribution):
    r"""Uniform on black squares, :math:`p(x) = [\lfloor x_1/s \rfloor + \lfloor x_2/s \rfloor \text{ even}] / (8 s^2)`.

    With respect to Lebesgue measure. The board is :math:`[-2s, 2s)^2`. The density jumps at the borders of squares;
    ``log_prob`` is minus infinity on white squares.

    Args:
        side: Side ``s`` of a square, positive, a 0-dim tensor or a number.

    Raises:
        ValueError: If ``side`` is not positive.

    References:
        Avishek Joey Bose, Ariella Smofsky, Renjie Liao, Prakash Panangaden, William L. Hamilton, *Latent Variable
        Modelling with Hyperbolic Normalizing Flows*, 2020, arXiv:2002.06336.

    Example:
        >>> board = Checkerboard(0.25)
        >>> board.log_prob(torch.tensor([[0.1, 0.1], [0.1, 0.3]])).exp()
        tensor([2., 0.])
        >>> board.entropy()  # log of the black area, 1/2
        tensor(-0.6931)
    """

    arg_constraints = {"side": constraints.positive}  # noqa: RUF012
    support = constraints.real_vector

    def __init__(self, side: float | Tensor, validate_args: bool | None = None) -> None:
        self.side = checks.as_floating("side", side, "it is the side of a square")
        if self.side.dim():
            raise ValueError(f"side has shape {tuple(self.side.shape)}, but all squares have one side; give a number.")
        super().__init__(torch.Size(), torch.Size([2]), validate_args=validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws a column, a row of its parity, and a point of that square."""
        shape = torch.Size(sample_shape)
        options: dict[str, Any] = {"dtype": self.side.dtype, "device": self.side.device}
        column = torch.randint(-2, 2, shape, device=self.side.device)
        row = 2 * torch.randint(-1, 1, shape, device=self.side.device) + column % 2
        return self.side * (torch.stack([column, row], dim=-1) + torch.rand((*shape, 2), **options))

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Returns :math:`\log p` with respect to Lebesgue measure, shape ``(*)``."""
        if self._validate_args:
            self._validate_sample(value)
        cell = (value / self.side).floor()
        inside = ((cell >= -2) & (cell < 2)).all(-1) & (cell.sum(-1) % 2 == 0)
        return torch.where(inside, -self.entropy(), -math.inf)

    def entropy(self) -> Tensor:
        """Returns the logarithm of the area of the black squares."""
        return (8 * self.side.square()).log()


#: Nodes on the curve, for which the integral is exact to rounding: the narrowest integrand, near the outer end, has a
#: standard deviation of 0.05 in m, and nodes there are at most 0.02 apart. Tests compare with 2000 nodes.
_NODES = 256


class TwoSpirals(dist.TorchDistribution):
    r"""Two spirals, :math:`x = \pm(-m \cos m + U'/2,\ m \sin m + U''/2) / 20 + \varepsilon / 40`.

    Here :math:`m = 3 \pi \sqrt U` with uniform U, U', U'' and a standard normal :math:`\varepsilon`. Given m the two
    coordinates are independent, each a uniform convolved with a normal,
    :math:`[\Phi(t/\sigma) - \Phi((t - a)/\sigma)] / a`. The density, with respect to Lebesgue measure of the plane, is
    the integral of their product over m, computed by Gauss-Legendre quadrature to rounding, also far from the spirals.

    References:
        A. J. Bose et al., 2020, arXiv:2002.06336.

    Example:
        It is symmetric about the origin:

        >>> spirals = TwoSpirals()
        >>> spirals.log_prob(torch.tensor([[0.2, 0.1], [-0.2, -0.1]]))
        tensor([-0.3020, -0.3020])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = constraints.real_vector
    #: Range of the offsets; standard deviation of the noise.
    _offset, _noise = 0.5 / 20, 0.025

    def __init__(self, dtype: torch.dtype | None = None, validate_args: bool | None = None) -> None:
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        m = torch.tensor(1.5 * math.pi * (nodes + 1))
        # The density of m is 2 m / (3 pi)^2 on (0, 3 pi), of half-width 1.5 pi; each sign has probability 1/2.
        log_weights = torch.tensor(1.5 * math.pi * weights).log() + (2 * m / (3 * math.pi) ** 2).log() - math.log(2)
        dtype = checks.floating_dtype(dtype)
        self._curve, self._log_weights = self._at(m).to(dtype), log_weights.to(dtype)
        super().__init__(torch.Size(), torch.Size([2]), validate_args=validate_args)

    @staticmethod
    def _at(m: Tensor) -> Tensor:
        return torch.stack([-m * m.cos(), m * m.sin()], dim=-1) / 20

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws by the formula."""
        shape = torch.Size(sample_shape)
        options: dict[str, Any] = {"dtype": self._curve.dtype, "device": self._curve.device}
        m = 3 * math.pi * torch.rand(shape, **options).sqrt()
        sign = 2.0 * torch.randint(0, 2, (*shape, 1), **options) - 1
        offset, noise = torch.rand((*shape, 2), **options), torch.randn((*shape, 2), **options)
        return sign * (self._at(m) + self._offset * offset) + self._noise * noise

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Returns :math:`\log p` with respect to Lebesgue measure, shape ``(*)``."""
        if self._validate_args:
            self._validate_sample(value)
        # In pieces, to bound memory: each point meets every node twice.
        pieces = value.reshape(value.shape[:-1].numel(), 2).split(4096)
        log_probs = [self._log_prob(piece) for piece in pieces]
        return torch.cat(log_probs).reshape(value.shape[:-1])

    def _log_prob(self, x: Tensor) -> Tensor:
        t = torch.stack([x, -x]).unsqueeze(-2) - self._curve - self._offset / 2  # (2, B, nodes, 2)
        # Reflected to the tail where both distribution functions are small, so that their difference does not cancel.
        upper = torch.special.log_ndtr((self._offset / 2 - t.abs()) / self._noise)
        lower = torch.special.log_ndtr((-self._offset / 2 - t.abs()) / self._noise)
        given_m = (upper + (-torch.expm1(lower - upper)).log() - math.log(self._offset)).sum(-1)
        return (given_m + self._log_weights).logsumexp(-1).logsumexp(0)
