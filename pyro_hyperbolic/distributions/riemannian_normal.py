r"""The Riemannian normal: the exponential of the squared distance, normalised."""

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor
from torch.distributions import constraints

from pyro_hyperbolic.distributions.isotropic_distribution import IsotropicDistribution

__all__ = ["RiemannianNormal"]


class RiemannianNormal(IsotropicDistribution):
    r"""Riemannian normal on hyperbolic space, :math:`\log p(x) = -\frac{d(x, loc)^2}{2 s^2} - \log Z(s)`.

    .. math:: Z(s) = \omega_{n-1} \int_0^\infty e^{-r^2 / 2 s^2} \left(R \sinh \tfrac rR\right)^{n-1} dr,
        \qquad R = \sqrt k

    with respect to Riemannian volume, where :math:`\omega_{n-1}` is the area of the unit sphere in R^n. Among all
    densities of one mean squared distance to ``loc`` it has the largest entropy. In flat space it is the isotropic
    normal; for ``s`` much smaller than ``R`` it comes close to it.

    The normaliser and the CDF of the radius are Gauss-Legendre sums in float64, accurate to rounding for every ``s``
    and ``n``. Samples are by inverse CDF, with exact gradients to ``loc``, ``scale`` and ``k``. The typical radius is
    :math:`(n - 1) s^2 / R` if that is more than ``s``, so wide distributions are far away: see the limits of
    coordinates in :class:`~pyro_hyperbolic.distributions.WrappedNormal`.

    Shapes: ``loc``, ``scale`` and ``k`` broadcast to ``batch_shape``; events are ``(n + 1,)``.

    Args:
        loc: Location, a point of the manifold, shape ``(*, n + 1)``.
        scale: The scale ``s > 0``, a number or shape ``(*)``, in units of distance.
        manifold: A geoopt manifold of constant curvature: ``Lorentz`` (the default, of curvature -1), ``PoincareBall``
            or ``Euclidean``.
        validate_args: Whether to check arguments and values; Pyro's global setting by default.

    Raises:
        TypeError: If ``loc`` and ``scale`` are not floating point of one dtype, or the curvature is not constant.
        ValueError: If the batch shapes do not broadcast or, while validating, ``loc`` is off the manifold, or ``scale``
            or ``k`` is not positive.

    References:
        *Riemannian Gaussian Distributions on the Space of Symmetric Positive Definite Matrices*, S. Said, L. Bombrun,
        Y. Berthoumieu, J. Manton, 2015, arXiv:1507.01760. *Continuous Hierarchical Representations with Poincaré
        Variational Auto-Encoders*, E. Mathieu, C. Le Lan, C. Maddison, R. Tomioka, Y. W. Teh, 2019, arXiv:1901.06033.

    Example:
        In the plane, :math:`Z = 2 \pi s \sqrt{\pi / 2}\, e^{s^2 / 2} \operatorname{erf}(s / \sqrt 2)`:

        >>> loc = torch.tensor([1.25, 0.75, 0.0])
        >>> d = RiemannianNormal(loc, 1.0)
        >>> d, d.log_prob(loc)
        (RiemannianNormal(loc: (3,), scale: (), Lorentz(k=1)), tensor(-2.1820))
    """

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.dependent(is_discrete=False, event_dim=1),
        "scale": constraints.positive,
    }
    _size_name = "scale"
    _size_remedy = "it is the standard deviation in flat space; pass a network's output through softplus or exp."

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor | float,
        manifold: Manifold | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(loc, scale, manifold, validate_args)

    @property
    def scale(self) -> Tensor:
        """The scale, shape ``(*)``."""
        return self._size.expand(self.batch_shape)

    @property
    def mode(self) -> Tensor:
        """The mode with respect to Riemannian volume, a copy of ``loc``."""
        return self.loc.clone()

    def entropy(self) -> Tensor:
        r"""Returns :math:`\log Z(s) + E[d(x, loc)^2] / 2 s^2`, shape ``(*)``."""
        law = self._law(self._size.double())
        found = self._log_normaliser() + law.expectation(torch.square) / 2
        return found.to(self._size.dtype).expand(self.batch_shape)

    def _log_kernel(self, y: Tensor) -> Tensor:
        return -y * y / 2

    def _log_kernel_at(self, v: Tensor) -> Tensor:
        return -(v / self._size.unsqueeze(-1)).square().sum(-1) / 2

    def _interval(self, size: Tensor) -> tuple[Tensor, Tensor]:
        # Nine widths on either side of the mode. Above it the density falls at least as fast as exp(-y^2 / 2).
        n = self.dim
        if n == 1:
            return torch.zeros_like(size), torch.full_like(size, 9.0)
        # The mode solves y tanh(size y) = (n - 1) size. The start is its limit for small sizes, a lower bound.
        mode = torch.full_like(size, (n - 1) ** 0.5)
        for _ in range(6):
            tanh = (size * mode).tanh()
            slope = tanh + size * mode * (1 - tanh * tanh)
            mode = mode - (mode * tanh - (n - 1) * size) / slope
        width = (1 + (n - 1) * (size / (size * mode).sinh()).square()).rsqrt()
        return (mode - 9 * width).clamp_min(0.0), mode + 9
