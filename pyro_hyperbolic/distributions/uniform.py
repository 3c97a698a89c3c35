r"""The uniform distribution on a compact manifold."""

from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic.distributions.manifold_distribution import ManifoldDistribution
from pyro_hyperbolic.geometry import Embedded, bind, checks

__all__ = ["Uniform"]


class Uniform(ManifoldDistribution):
    r"""Uniform distribution on a compact manifold, :math:`p(x) = 1 / \operatorname{vol} M`.

    .. math:: \operatorname{vol} S^n = \frac{2 \pi^{(n + 1)/2}}{\Gamma((n + 1) / 2)}, \qquad
        \operatorname{vol} T^n = (2 \pi)^n, \qquad \operatorname{vol} SO(3) = 8 \pi^2

    with respect to Riemannian volume; on a product of compact manifolds volumes multiply. It is the base of flows on
    these manifolds.

    Args:
        manifold: ``geoopt.Sphere``, ``ph.manifolds.Torus``, ``ph.manifolds.Rotations``, or a product of these.
        dim: Intrinsic dimension ``n``. Needed for the sphere only; the other manifolds have their own.
        batch_shape: Batch shape.
        dtype: Dtype of samples; the default dtype by default.
        device: Device of samples.
        validate_args: Whether to check values; Pyro's global setting by default.

    Raises:
        TypeError: If the manifold is not a compact one, or ``dim`` is not an integer.
        ValueError: If ``dim`` is missing, or the manifold has another dimension.

    Example:
        >>> d = Uniform(geoopt.Sphere(), 2)
        >>> d, d.log_prob(torch.tensor([0.0, 0.6, 0.8]))  # -log(4 pi)
        (Uniform(Sphere(), dim=2), tensor(-2.5310))
    """

    def __init__(
        self,
        manifold: Manifold,
        dim: int | None = None,
        batch_shape: Any = (),
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        validate_args: bool | None = None,
    ) -> None:
        space = checks.check_manifold(manifold, validate=validate_args)
        if not isinstance(space, Embedded):
            raise TypeError(
                f"{checks.describe(space)} has infinite volume, so no distribution on it is uniform; use a compact "
                f"manifold, such as geoopt.Sphere(), or UniformBall, WrappedNormal or RiemannianNormal."
            )
        own = space.only_dim()
        if dim is None and own is None:
            raise ValueError(
                f"dim is missing: {space.name} does not fix a dimension; pass dim=2 for points {space.coordinates} "
                f"with n = 2."
            )
        dim = own if dim is None else dim
        checks.check_count("dim", dim, 1, "it is the intrinsic dimension, 2 for the sphere in R^3")  # type: ignore[arg-type]
        if own not in (None, dim):
            raise ValueError(f"dim = {dim}, but {checks.describe(space)} has {own} dimensions; leave dim out.")
        #: The intrinsic dimension.
        self.dim: int = dim  # type: ignore[assignment]
        self._log_volume = space.log_total_volume(self.dim)
        self._like = torch.empty((), dtype=checks.floating_dtype(dtype), device=device)
        try:
            batch = torch.Size(batch_shape)
        except TypeError:
            raise TypeError(
                f"batch_shape = {checks.shown(batch_shape)}, but must be a tuple of integers; for 5 points pass (5,)."
            ) from None
        self._finish(manifold, batch, space.event_shape(self.dim), validate_args)

    def _log_prob(self, value: Tensor) -> Tensor:
        # A flow that has diverged to NaN has no density.
        return (0.0 * value).flatten(value.dim() - self.event_dim).sum(-1) - self._log_volume

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Returns points of shape ``sample_shape + batch_shape + event_shape``."""
        space: Embedded = bind(self.manifold)  # type: ignore[assignment]
        return space.uniform(torch.Size(sample_shape) + self.batch_shape, self.dim, self._like)

    def entropy(self) -> Tensor:
        r"""Returns :math:`\log \operatorname{vol} M`, shape ``(*)``."""
        return self._like.new_full(self.batch_shape, self._log_volume)

    def factors(self) -> list["Uniform"]:
        """Returns the uniform distributions on the factors of a product, or this one alone."""
        space = bind(self.manifold)
        return [
            Uniform(factor.manifold, n, self.batch_shape, dtype=self._like.dtype, device=self._like.device)
            for factor, n in zip(space.factors, space.dims(self.dim), strict=True)
        ]

    def __repr__(self) -> str:
        batch = f", batch_shape={tuple(self.batch_shape)}" if self.batch_shape else ""
        return f"Uniform({checks.describe(self.manifold)}, dim={self.dim}{batch})"
