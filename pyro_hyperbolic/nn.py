r"""Network layers that read points of a manifold."""

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions.constraints import on_manifold
from pyro_hyperbolic.distributions.transforms.base import register_if_learnable
from pyro_hyperbolic.distributions.transforms.saved_space import SavesSpace
from pyro_hyperbolic.geometry import checks
from pyro_hyperbolic.manifolds import or_standard
from pyro_hyperbolic.numerics import asinh, norm, sinhc

__all__ = ["Gyroplanes"]


class Gyroplanes(SavesSpace):
    r"""Signed distances to learned hyperplanes, :math:`y_j = |w_j|\, d_\pm(x, H_j)`: a linear layer for points.

    The hyperplane :math:`H_j` is perpendicular at :math:`\exp_o(b_j u_j)` to the geodesic from the origin along
    :math:`u_j = w_j / |w_j|`. With :math:`v = \log_o x`, :math:`r = |v|` and radius of curvature :math:`R`,

    .. math:: d_\pm(x, H) = R \operatorname{asinh}\left(
        \frac{\langle u, v \rangle}{r} \sinh \frac rR \cosh \frac bR - \cosh \frac rR \sinh \frac bR \right),

    positive on the side of :math:`u`. Without curvature this is ``torch.nn.Linear``:
    :math:`y = \langle w, v \rangle - b |w|`. The two terms are computed in float64, and cancel near a hyperplane: the
    error is about ``1e-16 R exp((r + |b|) / R) / cosh(d / R)``.

    Shapes: points of ``dim`` dimensions (on the hyperboloid ``(*, dim + 1)``) to ``(*, out_dim)``.

    Args:
        dim: Intrinsic dimension ``n`` of the points.
        out_dim: Number of hyperplanes.
        manifold: A geoopt manifold of constant curvature, ``K <= 0``: ``Lorentz``, ``PoincareBall`` or ``Euclidean``;
            the hyperboloid of curvature -1 by default.

    Attributes:
        weight: The vectors ``w``, shape ``(out_dim, dim)``, initialised as those of ``torch.nn.Linear``.
        offset: The signed distances ``b`` of the hyperplanes from the origin, shape ``(out_dim,)``.

    Raises:
        TypeError: If the curvature of the manifold is not constant.
        ValueError: If a size is less than 1; when called, if points have another dimension or are off the manifold.

    References:
        *Hyperbolic Neural Networks*, O. Ganea, G. Bécigneul, T. Hofmann, 2018, arXiv:1805.09112.

        *Continuous Hierarchical Representations with Poincaré Variational Auto-Encoders*, E. Mathieu, C. Le Lan,
        C. J. Maddison, R. Tomioka, Y. W. Teh, 2019, arXiv:1901.06033.

    Example:
        >>> layer = ph.nn.Gyroplanes(2, 1)
        >>> layer.weight.data, layer.offset.data = torch.tensor([[3.0, 0.0]]), torch.tensor([0.5])
        >>> layer(geometry.exp0(geoopt.Lorentz(), torch.tensor([2.0, 0.0]))).item()  # 3 (2 - 0.5)
        4.5
    """

    def __init__(self, dim: int, out_dim: int, manifold: Manifold | None = None) -> None:
        super().__init__()
        checks.check_count("dim", dim, 1, "it is the intrinsic dimension of the points")
        checks.check_count("out_dim", out_dim, 1, "it is the number of hyperplanes")
        self._on_manifold = on_manifold(or_standard(manifold))
        space = geometry.chart(self.manifold)
        if not getattr(self.manifold, "is_latent", False) and space.curvature() is None:
            raise TypeError(
                f"the curvature of {checks.describe(space)} is not constant, so distances to hyperplanes have no "
                f"closed form; feed log0(M, x) to torch.nn.Linear instead."
            )
        register_if_learnable(self, self.manifold)
        linear = torch.nn.Linear(dim, out_dim)
        self.weight, self.offset = linear.weight, linear.bias

    @property
    def manifold(self) -> Manifold:
        """The geoopt manifold of the points."""
        return self._on_manifold.manifold

    def forward(self, x: Tensor) -> Tensor:
        """Returns the weighted distances of points, shape ``(*, out_dim)``."""
        v = geometry.log0(self.manifold, x)
        checks.check_same_dtype(layer=self.weight, points=x)
        if v.size(-1) != self.weight.size(-1):
            raise ValueError(
                f"points have n = {v.size(-1)} dimensions, but the layer was built for dim = {self.weight.size(-1)}."
            )
        length = norm(self.weight).squeeze(-1)
        b: Tensor = self.offset
        unit = self.weight / length.masked_fill(length == 0, 1.0).unsqueeze(-1)
        if b.dim() > 1:  # several layers, stacked: the points of each have a batch dimension
            length, b = length.unsqueeze(-2), b.unsqueeze(-2)
        space = geometry.chart(self.manifold)
        curvature = space.curvature()
        assert curvature is not None
        if not space.parameters() and curvature == 0:
            return v @ self.weight.mT - b * length
        # In float64, because the two terms grow as exp(r + |b|) and cancel near a hyperplane.
        wide = v.dtype if v.device.type == "mps" else torch.float64
        radius = (-curvature.to(wide)).rsqrt()
        radius = radius.unsqueeze(-1) if radius.dim() else radius  # a 0-dim tensor works on every device
        v, b = v.to(wide) / radius, b.to(wide) / radius
        r2 = v.square().sum(-1, keepdim=True)
        cosh = 1 + r2 * sinhc(r2 / 4).square() / 2  # smooth at the origin, unlike cosh(r)
        sinh = (v @ unit.to(wide).mT) * sinhc(r2) * b.cosh() - cosh * b.sinh()
        return (length * radius * asinh(sinh)).to(x.dtype)

    def extra_repr(self) -> str:
        """Returns the sizes and the manifold, for ``repr``."""
        out_dim, dim = self.weight.shape[-2:]
        return f"dim={dim}, out_dim={out_dim}, manifold={checks.describe(self.manifold)}"
