r"""The isometry that fixes the origin and carries the first axis to a direction."""

from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic import geometry
from pyro_hyperbolic.geometry import Nested, checks
from pyro_hyperbolic.numerics import householder

from .base import ManifoldTransform, with_batch

__all__ = ["Reflection"]


class Reflection(ManifoldTransform):
    r"""Turns the first axis to a direction, :math:`y = \exp_o(H \log_o x)` with :math:`H e_1 = f`, log-det 0.

    .. math:: H = I - 2 u u^\top, \qquad u = \frac{e_1 - f}{|e_1 - f|}, \qquad f = \frac{d}{|d|}

    for ``d = direction``: a reflection of the tangent space at the origin, and an isometry that is its own inverse. It
    is computed in coordinates, without logarithms: on the hyperboloid ``H`` acts on the spatial part, and the time
    coordinate is unchanged.

    ``H`` is accurate for every direction, and the identity at :math:`f = e_1`, where its derivative with respect to the
    direction is defined as zero. It is not continuous there: directions at a small angle :math:`\theta` from
    :math:`e_1` have different mirrors, and derivatives grow like :math:`1/\theta`. The image of :math:`e_1` is
    continuous.

    With :class:`Translation` it makes a law in a moving frame: ``TransformedDistribution(base, [Reflection(M, f),
    Translation(M, p)])`` is ``base`` around ``p``, with its first axis in direction ``f``.

    Shapes: ``direction`` is ``(*, n)``, ``x`` and ``y`` are ``(*, n + 1)``, batch shapes broadcast; the log-determinant
    is ``(*)``.

    Args:
        manifold: A geoopt manifold of constant curvature; ``None`` for the hyperboloid of curvature -1.
        direction: Tangent coordinates at the origin, of any length but zero, shape ``(*, n)``.
        cache_size: 1 (default) to cache the last pair, 0 to cache nothing.
        validate_args: Whether to check ``direction`` and arguments; Pyro's global setting by default.

    Raises:
        TypeError: If the curvature of the manifold is not constant, so that a reflection of the tangent space is not an
            isometry; if ``direction`` is not a floating point tensor; on a call, if the dtypes differ.
        ValueError: If, while validating, ``direction`` is zero or not finite; on a call, if the dimensions differ or,
            while validating, an argument is off the manifold.

    References:
        Alston S. Householder, *Unitary Triangularization of a Nonsymmetric Matrix*, Journal of the ACM 5, 1958.

    Example:
        >>> t = Reflection(None, torch.tensor([3.0, 4.0]))
        >>> t(torch.tensor([1.25, 0.75, 0.0]))
        tensor([1.2500, 0.4500, 0.6000])

        A child at distance 1 straight ahead of its parent, which is itself 1 from the origin:

        >>> M, f = geoopt.Lorentz(), torch.tensor([0.0, 1.0])
        >>> ahead = hdist.WrappedNormal(geometry.exp0(M, torch.tensor([1.0, 0.0])), torch.tensor(0.1))
        >>> parent = geometry.exp0(M, f)
        >>> child = dist.TransformedDistribution(ahead, [Reflection(M, f), HT.Translation(M, parent)])
        >>> x = geometry.exp0(M, 2 * f)  # the mode
        >>> (child.log_prob(x) - ahead.log_prob(ahead.loc)).abs() < 1e-3
        tensor(True)
    """

    def __init__(
        self, manifold: Manifold | None, direction: Tensor, *, cache_size: int = 1, validate_args: bool | None = None
    ) -> None:
        super().__init__(manifold, cache_size=cache_size, validate_args=validate_args)
        if not isinstance(geometry.bind(self.manifold), Nested):
            raise TypeError(
                f"the manifold is {checks.describe(self.manifold)}, but a reflection of the tangent space is an "
                f"isometry only where the curvature is constant; lift an orthogonal map by HT.TangentTransform("
                f"pyro.distributions.transforms.Householder(n), M), with its log-determinant, or reflect a factor."
            )
        checks.check_vectors(self.manifold, direction, "direction", validate=validate_args)
        if checks.validating(validate_args):
            length = direction.detach().abs().amax(-1)
            fine = (length > 0) & length.isfinite()
            if not bool(fine.all()):
                raise ValueError(
                    f"direction is zero, NaN or infinite at {int((~fine).sum())} of {fine.numel()} places, first "
                    f"{direction[~fine][0].tolist()}, but must be a vector of finite positive length; pass e_1 for the "
                    f"identity."
                )
        self.direction = direction

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._reflect(x)

    def _backward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._reflect(y)

    def _reflect(self, x: Tensor) -> tuple[Tensor, Tensor]:
        space: Any = self._geometry  # Nested, checked in the constructor
        checks.check_same_dtype(direction=self.direction, x=x)
        n = self.direction.size(-1)
        if not checks.tracing() and space.dim(x.shape) != n:
            raise ValueError(
                f"the dimensions differ: direction is {tuple(self.direction.shape)}, but the argument "
                f"{tuple(x.shape)}; points of {checks.describe(space)} must be {space.coordinates}, with n = {n}."
            )
        shape = self.forward_shape(x.shape)
        y = space.reflect(householder(self.direction), x).expand(shape)
        return y, y.new_zeros(()).expand(space.batch_of(y.shape))

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Returns ``shape``, with its batch part broadcast with the batch shapes of ``direction`` and ``k``."""
        space = self._geometry
        return with_batch(shape, self.direction.shape[:-1], *space.batch_shapes(), event_dim=space.event_dim)

    inverse_shape = forward_shape

    def __eq__(self, other: Any) -> bool:
        return (
            isinstance(other, Reflection)
            and geometry.same(self.manifold, other.manifold)
            and (self.direction is other.direction or torch.equal(self.direction, other.direction))
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        manifold = checks.describe(self.manifold)
        return f"Reflection({manifold}, direction: {tuple(self.direction.shape)})"
