r"""Targets for density estimation on compact manifolds and a mixed product, with known densities and entropies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import geoopt
import pyro.distributions as dist
import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

import pyro_hyperbolic.distributions as hdist
from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions.constraints import on_manifold
from pyro_hyperbolic.geometry import checks
from pyro_hyperbolic.geometry.rotations import Rotations
from pyro_hyperbolic.geometry.torus import Torus
from pyro_hyperbolic.manifolds import STANDARD

__all__ = ["MANIFOLD_TARGETS", "Board", "ManifoldTarget", "manifold_target"]


@dataclass(frozen=True)
class ManifoldTarget:
    r"""A density with known entropy :math:`H = -E[\log p(x)]`, made by :func:`manifold_target`.

    The KL divergence of a model ``q`` from it is ``-H - E[log q(x)]``, over its samples ``x``.

    Attributes:
        name: Its name.
        manifold: The manifold.
        dim: The intrinsic dimension.
        distribution: The distribution, over points.
        entropy: With respect to Riemannian volume, in nats.
        entropy_error: Its standard error; 0 if it is exact to the digits given.
    """

    name: str
    manifold: Manifold
    dim: int
    distribution: dist.TorchDistribution
    entropy: float
    entropy_error: float = 0.0

    def sample(self, sample_shape: int | Sequence[int] = ()) -> Tensor:
        """Draws points, shape ``(*sample_shape, *event)``, from the global generator."""
        shape = (sample_shape,) if isinstance(sample_shape, int) else sample_shape
        found: Tensor = self.distribution.sample(torch.Size(shape))
        return found

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns the log-density with respect to Riemannian volume, shape ``(*)``."""
        found: Tensor = self.distribution.log_prob(x)
        return found


def manifold_target(name: str, dtype: torch.dtype | None = None) -> ManifoldTarget:
    r"""Returns a target on :math:`S^2`, :math:`T^2`, :math:`SO(3)` or :math:`H^2 \times S^2 \times R`, by name.

    - ``sphere-mixture``: six von Mises-Fisher distributions on a spiral, of concentrations 20, 40 and 80, twice each.
    - ``sphere-board``: uniform on the black cells of a board, 4 bands of height by 8 sectors of longitude.
    - ``torus-board``: uniform on the black cells of a board of 4 by 4.
    - ``rotation-mixture``: four isotropic Fisher distributions, of concentrations 8 and 16.
    - ``product-mixture``: four products of a wrapped normal, a von Mises-Fisher distribution and a normal. Each factor
      alone is a mixture too; which components go together only the product knows.

    Mixtures have equal weights. Entropies of boards are exact, those of the first and of rotations are by quadrature,
    that of the product is by sampling, with its standard error.

    Args:
        name: One of ``MANIFOLD_TARGETS``.
        dtype: Of the samples; the default dtype if not given. Use float64 to score: in float32 about one draw of
            a million from a board rounds across an edge, where the density is 0.

    Returns:
        A :class:`ManifoldTarget`, with ``sample`` and ``log_prob``.

    Raises:
        ValueError: If there is no target of that name.

    Example:
        Half of the sphere is black, an area of 2 pi:

        >>> target = manifold_target("sphere-board", torch.float64)
        >>> x = target.sample(3)
        >>> target.log_prob(x) + target.entropy
        tensor([0., 0., 0.], dtype=torch.float64)
        >>> round(target.entropy, 4)  # log 2 pi
        1.8379
    """
    if not isinstance(name, str) or name not in MANIFOLD_TARGETS:
        raise ValueError(f"name = {checks.shown(name)}, but must be one of {', '.join(MANIFOLD_TARGETS)}.")
    manifold, dim, build, *entropy = MANIFOLD_TARGETS[name]
    return ManifoldTarget(name, manifold, dim, build(checks.floating_dtype(dtype)), *entropy)


class Board(dist.TorchDistribution):
    r"""Uniform on black cells of equal area, :math:`p(x) = [i(x) + j(x) \text{ even}]\, 2 / \mathrm{vol}(M)`.

    With respect to Riemannian volume. On :math:`T^2` the cell ``(i, j)`` is that of the two angles, on :math:`S^2` that
    of longitude and of height ``z``, since :math:`d\lambda\, dz` is area there (Archimedes). The density jumps at the
    edges; ``log_prob`` is minus infinity on white cells.

    Args:
        manifold: ``geoopt.Sphere()`` or ``ph.manifolds.Torus(2)``.
        cells: Numbers of cells along the first and the second coordinate, both even.
        dtype: Of the samples; the default dtype if not given.
        validate_args: Whether to check points; Pyro's global setting by default.

    Raises:
        TypeError: If the manifold is neither.
        ValueError: If a number of cells is not even and positive: the board would not close up.

    Example:
        >>> board = Board(geoopt.Sphere(), (8, 4))
        >>> board.log_prob(torch.tensor([[0.8, 0.6, 0.0], [0.8, -0.6, 0.0]])).exp()  # 1 / (2 pi) = 0.1592
        tensor([0.1592, 0.0000])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(
        self,
        manifold: Manifold,
        cells: tuple[int, int],
        dtype: torch.dtype | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(manifold, geoopt.Sphere) and not (isinstance(manifold, Torus) and manifold.n == 2):
            raise TypeError(
                f"boards are on geoopt.Sphere() and Torus(2), but the manifold is {checks.shown(manifold)}; use one."
            )
        first, second = cells = tuple(checks.check_list("cells", cells, "give a pair of numbers, such as (8, 4)", 2))
        for number in (first, second):
            checks.check_count("cells", number, 2, "it is the number of cells along a coordinate")
            if number % 2:
                raise ValueError(f"cells = {cells}, but colours alternate around an even number; use {number + 1}.")
        self.manifold, self.cells, self.dtype = manifold, cells, checks.floating_dtype(dtype)
        self._round = isinstance(manifold, geoopt.Sphere)
        super().__init__(torch.Size(), torch.Size([3 if self._round else 2]), validate_args=validate_args)

    @property
    def support(self) -> Any:
        """The manifold."""
        return on_manifold(self.manifold)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws the first cell, the second of its parity, and a point of that cell."""
        shape = torch.Size(sample_shape)
        first = torch.randint(self.cells[0], shape)
        second = 2 * torch.randint(self.cells[1] // 2, shape) + first % 2
        u = torch.stack([first, second], dim=-1) + torch.rand((*shape, 2), dtype=self.dtype)
        u = 2 * u / torch.tensor(self.cells) - 1  # in the square [-1, 1]^2
        if not self._round:
            return math.pi * u
        turns, z = u.unbind(-1)
        angle, radius = math.pi * turns, ((1 - z) * (1 + z)).sqrt()
        x = torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=-1)
        return x / x.norm(dim=-1, keepdim=True)

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Returns :math:`\log p` with respect to Riemannian volume, shape ``(*)``."""
        if self._validate_args:
            self._validate_sample(value)
        u = value / math.pi
        if self._round:
            x, y, z = value.unbind(-1)
            u = torch.stack([torch.atan2(y, x) / math.pi, z], dim=-1)
        cell = ((u + 1) / 2 * torch.tensor(self.cells, device=value.device)).floor()
        return torch.where(cell.sum(-1) % 2 == 0, -self.entropy().to(value), -math.inf)

    def entropy(self) -> Tensor:
        """Returns the logarithm of the black area."""
        return torch.tensor(math.log(2 * math.pi if self._round else 2 * math.pi**2), dtype=self.dtype)


_SPHERE, _TORUS, _ROTATIONS = geoopt.Sphere(), Torus(2), Rotations()
_PRODUCT = geoopt.ProductManifold((STANDARD, 3), (geoopt.Sphere(), 3), (geoopt.Euclidean(1), 1))


def _mixture(components: dist.TorchDistribution) -> dist.TorchDistribution:
    weights = torch.ones(components.batch_shape, dtype=components.sample().dtype)
    return dist.MixtureSameFamily(dist.Categorical(weights), components)


def _spiral(number: int, dtype: torch.dtype) -> Tensor:
    """Returns points on the sphere, even in height and turned by the golden angle each."""
    i = torch.arange(number, dtype=torch.float64)
    z, angle = 1 - (2 * i + 1) / number, math.pi * (3 - math.sqrt(5)) * i
    radius = (1 - z * z).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=-1).to(dtype)


def _sphere_mixture(dtype: torch.dtype) -> dist.TorchDistribution:
    concentration = torch.tensor(2 * [20.0, 40.0, 80.0], dtype=dtype)
    return _mixture(hdist.VonMisesFisher(_spiral(6, dtype), concentration))


def _rotation_mixture(dtype: torch.dtype) -> dist.TorchDistribution:
    """Centred at the identity and at turns by 2 radians about three points of a spiral."""
    turns = torch.cat([torch.zeros(1, 3, dtype=torch.float64), 2 * _spiral(3, torch.float64)])
    loc = geometry.complete(_ROTATIONS).exp(torch.eye(3, dtype=torch.float64), turns)
    return _mixture(hdist.RotationFisher(loc.to(dtype), torch.tensor(2 * [8.0, 16.0], dtype=dtype)))


def _product_mixture(dtype: torch.dtype) -> dist.TorchDistribution:
    """Four products, whose locations are a square of H^2, a spiral of S^2 and an interval of R."""
    corners = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]], dtype=torch.float64)
    line = torch.tensor([[-1.5], [0.5], [-0.5], [1.5]], dtype=dtype)
    planes = hdist.WrappedNormal(geometry.exp0(STANDARD, corners).to(dtype), torch.tensor(0.5, dtype=dtype))
    spheres = hdist.VonMisesFisher(_spiral(4, dtype), torch.full((4,), 20.0, dtype=dtype))
    lines = dist.Normal(line, torch.full_like(line, 0.5)).to_event(1)
    return _mixture(hdist.ProductDistribution(_PRODUCT, [planes, spheres, lines]))


#: Manifold, dimension, builder, entropy and its standard error if it is not exact. Tests compute the entropies.
MANIFOLD_TARGETS: dict[str, tuple[Any, ...]] = {
    "sphere-mixture": (_SPHERE, 2, _sphere_mixture, 0.93905496),
    "sphere-board": (_SPHERE, 2, lambda dtype: Board(_SPHERE, (8, 4), dtype), math.log(2 * math.pi)),
    "torus-board": (_TORUS, 2, lambda dtype: Board(_TORUS, (4, 4), dtype), math.log(2 * math.pi**2)),
    "rotation-mixture": (_ROTATIONS, 3, _rotation_mixture, 1.00168010),
    "product-mixture": (_PRODUCT, 5, _product_mixture, 3.486599, 1e-6),
}
