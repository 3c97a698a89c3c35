r"""The isometry that carries the origin to a point."""

from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic import geometry
from pyro_hyperbolic.geometry import checks

from .base import LEARN_LOC_HINT, ManifoldTransform, with_batch

__all__ = ["Translation"]


class Translation(ManifoldTransform):
    r"""Moves every point by the isometry that carries the origin to ``loc``, :math:`y = T_{loc}\, x`, log-det 0.

    :math:`T_p \circ \exp_o = \exp_p \circ \mathrm{PT}_{o \to p}`. On the hyperboloid this is the Lorentz boost to
    ``p``, on Euclidean space ``x + p``.

    Shapes: ``x``, ``y`` and ``loc`` are ``(*, n + 1)`` and broadcast; the log-determinant is ``(*)``.

    Args:
        manifold: A geoopt manifold; ``None`` for the hyperboloid of curvature -1.
        loc: The image of the origin, shape ``(*, n + 1)``.
        cache_size: 1 (default) to cache the last pair, 0 to cache nothing.
        validate_args: Whether to check ``loc`` and arguments; Pyro's global setting by default.

    Raises:
        TypeError: If ``loc`` is not a floating point tensor; on a call, if the dtypes differ.
        ValueError: If, while validating, ``loc`` or an argument is off the manifold.

    Example:
        >>> p = torch.tensor([1.25, 0.75])  # at distance log 2 from the origin
        >>> t = Translation(None, p)
        >>> t(p), t.inv(p)
        (tensor([2.1250, 1.8750]), tensor([1., 0.]))
    """

    def __init__(
        self, manifold: Manifold | None, loc: Tensor, *, cache_size: int = 1, validate_args: bool | None = None
    ) -> None:
        super().__init__(manifold, cache_size=cache_size, validate_args=validate_args)
        checks.check_points(self.manifold, loc, "loc", validate=validate_args, advice=LEARN_LOC_HINT)
        self.loc = loc

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._translate(x, inverse=False)

    def _backward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._translate(y, inverse=True)

    def _translate(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        checks.check_same_dtype(loc=self.loc, x=x)
        checks.check_same_size(loc=self.loc, x=x)
        space = self._geometry
        y = space.translate(self.loc, x, inverse)
        return y, y.new_zeros(()).expand(space.batch_of(y.shape))

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Returns ``shape``, with its batch part broadcast with the batch shapes of ``loc`` and ``k``."""
        space = self._geometry
        batches = [space.batch_of(self.loc.shape), *space.batch_shapes()]
        return with_batch(shape, *batches, event_dim=space.event_dim)

    inverse_shape = forward_shape

    def __eq__(self, other: Any) -> bool:
        return (
            isinstance(other, Translation)
            and geometry.same(self.manifold, other.manifold)
            and (self.loc is other.loc or torch.equal(self.loc, other.loc))
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        manifold = checks.describe(self.manifold)
        return f"Translation({manifold}, loc: {tuple(self.loc.shape)})"
