r"""The uniform distribution on a geodesic ball."""

from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor
from torch.distributions import constraints

from pyro_hyperbolic.distributions.isotropic_distribution import IsotropicDistribution
from pyro_hyperbolic.geometry import chart
from pyro_hyperbolic.numerics import norm

__all__ = ["UniformBall"]


class UniformBall(IsotropicDistribution):
    r"""Uniform distribution on a geodesic ball, :math:`p(x) = 1 / V(\rho)` where :math:`d(x, loc) \le \rho`.

    .. math:: V(\rho) = \omega_{n-1} \int_0^\rho \left(R \sinh \tfrac rR\right)^{n-1} dr, \qquad R = \sqrt k

    with respect to Riemannian volume, where :math:`\omega_{n-1}` is the area of the unit sphere in R^n. In the plane
    :math:`V = 2 \pi k (\cosh(\rho / R) - 1)`. Outside the ball ``log_prob`` is minus infinity; points on its boundary,
    up to rounding, are inside. Samples have exact gradients to ``loc``, ``radius`` and ``k``, but ``log_prob`` does not
    see its boundary move: the gradient of an expectation needs ``rsample``.

    Shapes: ``loc``, ``radius`` and ``k`` broadcast to ``batch_shape``; events are ``(n + 1,)``.

    Args:
        loc: The centre, a point of the manifold, shape ``(*, n + 1)``.
        radius: The radius of the ball, positive, a number or shape ``(*)``, in units of distance.
        manifold: A geoopt manifold of constant curvature: ``Lorentz`` (the default, of curvature -1), ``PoincareBall``
            or ``Euclidean``.
        validate_args: Whether to check arguments and values; Pyro's global setting by default.

    Raises:
        TypeError: If ``loc`` and ``radius`` are not floating point of one dtype, or the curvature is not constant.
        ValueError: If the batch shapes do not broadcast or, while validating, ``loc`` is off the manifold, or
            ``radius`` or ``k`` is not positive.

    Example:
        >>> loc = torch.tensor([1.0, 0.0, 0.0])
        >>> d = UniformBall(loc, 2.0)
        >>> d, -d.log_prob(loc)  # log(2 pi (cosh(2) - 1))
        (UniformBall(loc: (3,), radius: (), Lorentz(k=1)), tensor(2.8539))
        >>> d.log_prob(torch.tensor([4.0, 15**0.5, 0.0]))  # acosh(4) = 2.0634 away
        tensor(-inf)
    """

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.dependent(is_discrete=False, event_dim=1),
        "radius": constraints.positive,
    }
    _size_name = "radius"
    _size_remedy = "it is a distance; pass a network's output through softplus or exp."

    def __init__(
        self,
        loc: Tensor,
        radius: Tensor | float,
        manifold: Manifold | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(loc, radius, manifold, validate_args)

    @property
    def radius(self) -> Tensor:
        """The radius, shape ``(*)``."""
        return self._size.expand(self.batch_shape)

    def entropy(self) -> Tensor:
        """Returns the logarithm of the volume of the ball, shape ``(*)``."""
        return self._log_normaliser().to(self._size.dtype).expand(self.batch_shape)

    def _log_kernel(self, y: Tensor) -> Tensor:
        return torch.zeros_like(y)

    def _log_kernel_at(self, v: Tensor) -> Tensor:
        with torch.no_grad():
            space: Any = chart(self.manifold)  # Nested, since its curvature is constant
            # Rounded points of the boundary are at most 5 times the blur away from it.
            slack = 16 * torch.finfo(v.dtype).eps * space.blur(self._chart.loc, self._size)
            inside = norm(v).squeeze(-1) <= self._size + slack
            return torch.where(inside, 0.0, -torch.inf).to(v.dtype)

    def _interval(self, size: Tensor) -> tuple[Tensor, Tensor]:
        # The logarithm of the density is concave, so it falls at least as fast as its tangent at the boundary.
        one = torch.ones_like(size)
        slope = (self.dim - 1) * size / size.tanh()
        return (one - 40 / slope).clamp_min(0.0), one
