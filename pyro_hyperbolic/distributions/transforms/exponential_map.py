r"""The chart at the origin, from R^n to the manifold."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints, transform_to
from torch.distributions.constraints import Constraint

from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions.constraints import OnManifold
from pyro_hyperbolic.geometry import checks

from .base import ManifoldTransform, batch_shapes, tensors_of, with_batch

__all__ = ["ExponentialMap"]


class ExponentialMap(ManifoldTransform):
    r"""Maps tangent coordinates at the origin to the manifold, :math:`y = \exp_o(x)`, from R^n onto all of it.

    .. math:: \log |\det dy/dx| = (n - 1) \log \frac{\sinh r}{r}, \qquad r = |x| / \sqrt k

    from Lebesgue measure to Riemannian volume. This is what ``biject_to(on_manifold(M))`` and ``transform_to`` return,
    so autoguides, HMC and NUTS compute their densities with it.

    Shapes: ``x`` is ``(*, n)``, ``y`` is ``(*, n + 1)``, the log-determinant is ``(*)``.

    Args:
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        cache_size: 1 (default) to remember the last pair, 0 not to.
        validate_args: Whether to check arguments; Pyro's global setting by default.

    Raises:
        ValueError: If ``k <= 0``; on a call, while validating, if a point is off the manifold or the result overflows.

    Example:
        >>> t = ExponentialMap()
        >>> v = torch.tensor([1.0, 0.0])
        >>> x = t(v)
        >>> x, t.log_abs_det_jacobian(v, x)  # log sinh(1)
        (tensor([1.5431, 1.1752, 0.0000]), tensor(0.1614))
    """

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def domain(self) -> Constraint:
        """Vectors of R^n."""
        return constraints.real_vector

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return geometry.kernels(self.manifold).exp0(self.manifold, x)

    def _backward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return geometry.kernels(self.manifold).log0(self.manifold, y)

    def _dependencies(self) -> list[Tensor]:
        return tensors_of(self.manifold)

    def _check_domain(self, x: Tensor) -> None:
        checks.check_vectors(self.manifold, x, "the argument of ExponentialMap")

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Returns ``(*, n + 1)`` for ``(*, n)``."""
        size = geometry.kernels(self.manifold).event_size(shape[-1])
        return with_batch(torch.Size((*shape[:-1], size)), *batch_shapes(self.manifold))

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Returns ``(*, n)`` for ``(*, n + 1)``."""
        dim = geometry.kernels(self.manifold).dim(shape[-1])
        return with_batch(torch.Size((*shape[:-1], dim)), *batch_shapes(self.manifold))

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, ExponentialMap) and geometry.same(self.manifold, other.manifold)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ExponentialMap({checks.describe(self.manifold)})"


@biject_to.register(OnManifold)
@transform_to.register(OnManifold)
def _to_manifold(constraint: OnManifold) -> ExponentialMap:
    return ExponentialMap(constraint.manifold)
