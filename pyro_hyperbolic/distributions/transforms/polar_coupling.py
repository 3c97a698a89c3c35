r"""Polar coupling: splines of the angle and the radius, in geodesic polar coordinates about the origin."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from pyro.distributions.transforms import ConditionalSpline
from pyro.nn import DenseNN
from torch import Tensor

from pyro_hyperbolic import geometry
from pyro_hyperbolic.geometry import checks
from pyro_hyperbolic.geometry.autocast import without_autocast

from .base import TangentModule
from .networks import widths_of

__all__ = ["PolarCoupling", "polar_coupling"]

#: Unnormalised widths, heights and slopes of a spline.
SplineParameters = tuple[Tensor, Tensor, Tensor]

#: The radial spline acts on |log(radius / reach) + 2| < 2, from 0.02 reach to reach.
_BOUND = 2.0
#: The parameter for slope one: Pyro's splines have the slope softplus(parameter) + 1e-3.
_SLOPE_ONE = math.log(math.expm1(1 - 1e-3))


class PolarCoupling(TangentModule):
    r"""Moves the angle, then the radius, each given the other, :math:`\phi' = h_\rho(\phi),\ \rho' = g_{\phi'}(\rho)`.

    In geodesic polar coordinates of a plane, :math:`x = \exp_o(\rho \cos\phi, \rho \sin\phi)`. Both maps are monotone
    rational-quadratic splines. ``h`` acts on the circle and fixes one angle. ``g`` acts on the logarithm of the radius,
    and is the identity beyond ``reach``. With respect to Riemannian volume (at ``k = 1``)

    .. math:: \log |\det dy/dx| = \log h_\rho'(\phi) + \log g_{\phi'}'(\rho) + \log \frac{\sinh \rho'}{\sinh \rho}.

    Most of a hyperbolic disk is near its rim, where distant points differ in their angle. A coupling of Cartesian
    tangent coordinates must resolve thin slices of both; this one has its knots where the volume is. The angle is
    undefined at the origin, so the map fades to the identity there, within a few hundredths of ``reach``. (Its
    log-determinant fades to 1e-3 only, since Pyro's splines end with slope 0.999.)

    Shapes: ``x`` and ``y`` are ``(*, 3)`` (``(*, 2)`` on the Euclidean plane), the log-determinant is ``(*)``.

    Args:
        angular: Maps the radius over ``reach``, ``(*, 1)``, to unnormalised widths and heights ``(*, bins)`` and
            slopes ``(*, bins - 1)`` of the spline of the angle.
        radial: Maps :math:`(\cos\phi', \sin\phi')` to the same parameters of the spline of the radius.
        count_bins: Number of bins of each spline.
        reach: Radius up to which points move radially, positive, in units of distance.
        fixed_angle: The angle that ``h`` fixes, in radians; its slope there is one. Use different angles for the layers
            of a stack.
        manifold: A geoopt manifold; the hyperbolic plane of curvature -1 by default.
        cache_size: 1 (default) to cache the last pair, 0 to cache nothing.

    Raises:
        ValueError: If ``reach`` is not positive; on a call, if the manifold is not a plane or, while validating, a
            point is off it.

    References:
        Conor Durkan, Artur Bekasov, Iain Murray, George Papamakarios, *Neural Spline Flows*, 2019, arXiv:1906.04032.
        Danilo Jimenez Rezende et al., *Normalizing Flows on Tori and Spheres*, 2020, arXiv:2002.02428 (splines of the
        circle).

    Example:
        Beyond ``reach`` only the angle changes:

        >>> t = polar_coupling(count_bins=4, reach=2.0)
        >>> x = geometry.exp0(t.manifold, torch.tensor([[3.0, 4.0]]))
        >>> geometry.log0(t.manifold, t(x)).norm().item()
        5.0
    """

    def __init__(
        self,
        angular: Callable[[Tensor], SplineParameters],
        radial: Callable[[Tensor], SplineParameters],
        count_bins: int,
        reach: float,
        fixed_angle: float = math.pi,
        manifold: Manifold | None = None,
        *,
        cache_size: int = 1,
    ) -> None:
        super().__init__(manifold, cache_size=cache_size)
        for name, network in {"angular": angular, "radial": radial}.items():
            checks.check_callable(name, network, "give a network that returns widths, heights and slopes")
        checks.check_count("count_bins", count_bins, 2, "a spline of one bin is the identity")
        checks.check_number("reach", reach, "points move radially up to this radius, 5.0 by default", above=0)
        checks.check_number("fixed_angle", fixed_angle, "it is in radians, math.pi by default")
        self.reach, self.fixed_angle = reach, fixed_angle
        self.angular = ConditionalSpline(_FadingNetwork(angular), 1, count_bins, bound=math.pi, order="quadratic")
        self.radial = ConditionalSpline(radial, 1, count_bins, bound=_BOUND, order="quadratic")

    def _tangent_forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        try:
            with without_autocast(v):  # Pyro's splines compute in the dtype that the networks return
                return self._apply_splines(v)
        except RuntimeError:  # dtypes are checked only on failure, as in other couplings
            self._check_dtype(v)
            raise

    def _tangent_backward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        try:
            with without_autocast(w):
                return self._invert_splines(w)
        except RuntimeError:
            self._check_dtype(w)
            raise

    def _apply_splines(self, v: Tensor) -> tuple[Tensor, Tensor]:
        nonzero, at_origin = self._replace_zeros(v)
        log_radius, angle = self._to_polar(nonzero)
        h = self._angular_spline(log_radius)
        new_angle = h(angle)
        g = self.radial.condition(_unit_vector(new_angle))
        new_log_radius = g(log_radius)
        log_det = h.log_abs_det_jacobian(angle, new_angle) + g.log_abs_det_jacobian(log_radius, new_log_radius)
        w = torch.where(at_origin, v, self._from_polar(new_log_radius, new_angle))
        return w, _lebesgue_log_det(log_det, log_radius, new_log_radius, at_origin)

    def _invert_splines(self, w: Tensor) -> tuple[Tensor, Tensor]:
        nonzero, at_origin = self._replace_zeros(w)
        new_log_radius, new_angle = self._to_polar(nonzero)
        g = self.radial.condition(_unit_vector(new_angle))
        log_radius = g.inv(new_log_radius)
        h = self._angular_spline(log_radius)
        angle = h.inv(new_angle)
        log_det = h.log_abs_det_jacobian(angle, new_angle) + g.log_abs_det_jacobian(log_radius, new_log_radius)
        v = torch.where(at_origin, w, self._from_polar(log_radius, angle))
        return v, _lebesgue_log_det(log_det, log_radius, new_log_radius, at_origin)

    def _check_dtype(self, v: Tensor) -> None:
        for network in (self.angular, self.radial):
            checks.check_same_dtype(network=next(network.parameters(), v), points=v)

    def _angular_spline(self, log_radius: Tensor) -> Any:
        return self.angular.condition((log_radius - _BOUND).exp())

    def _replace_zeros(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ``v`` with zero vectors, which have no angle, replaced, and a mask of them."""
        if v.size(-1) != 2:
            raise ValueError(
                f"a polar coupling moves points of a plane, but these have n = {v.size(-1)} dimensions; use a "
                f"coupling_flow."
            )
        at_origin = (v == 0).all(-1, keepdim=True)
        return torch.where(at_origin, self.reach, v), at_origin

    def _to_polar(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log(radius / reach) + bound, and the angle from the direction opposite to the fixed one."""
        c, s = math.cos(self.fixed_angle - math.pi), math.sin(self.fixed_angle - math.pi)
        first, second = v.split(1, dim=-1)
        angle = torch.atan2(c * second - s * first, c * first + s * second)
        return (torch.hypot(first, second) / self.reach).log() + _BOUND, angle

    def _from_polar(self, log_radius: Tensor, angle: Tensor) -> Tensor:
        return self.reach * (log_radius - _BOUND).exp() * _unit_vector(angle + (self.fixed_angle - math.pi))


class _FadingNetwork(torch.nn.Module):
    """A network of angular spline parameters, which fade to those of the identity towards the origin."""

    def __init__(self, network: Callable[[Tensor], SplineParameters]) -> None:
        super().__init__()
        self.network = network

    def forward(self, radius: Tensor) -> SplineParameters:
        weight = -torch.expm1(-(radius * math.exp(2 * _BOUND)).square())
        widths, heights, slopes = self.network(radius)
        return weight * widths, weight * heights, _SLOPE_ONE + weight * (slopes - _SLOPE_ONE)


def _unit_vector(angle: Tensor) -> Tensor:
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def _lebesgue_log_det(log_det: Tensor, log_radius: Tensor, new_log_radius: Tensor, at_origin: Tensor) -> Tensor:
    """Returns the log-determinant with respect to Lebesgue measure, rho^2 d(log rho) d(phi), shape ``(*)``."""
    return torch.where(at_origin, 0.0, log_det + 2 * (new_log_radius - log_radius)).squeeze(-1)


def polar_coupling(
    hidden_dims: Sequence[int] | None = None,
    count_bins: int = 16,
    reach: float = 5.0,
    fixed_angle: float = math.pi,
    manifold: Manifold | None = None,
    data: Tensor | None = None,
) -> PolarCoupling:
    r"""Builds a :class:`PolarCoupling` of the plane with dense networks; it starts near the identity.

    Given ``data``, it starts near the map that gives them uniform angles and the radii of a standard normal, with knots
    at their quantiles. From equal bins, a spline takes long to find narrow modes: at distance 6, a blob of radius 0.3
    spans an angle of 0.001.

    Args:
        hidden_dims: Widths of the hidden layers; ``[64, 64]`` by default.
        count_bins: Number of bins, at least 2.
        reach: Radius up to which points move radially, in units of distance.
        fixed_angle: The fixed angle, in radians. Use different angles for the layers of a stack.
        manifold: A geoopt manifold; the hyperbolic plane of curvature -1 by default.
        data: Points to start from, shape ``(B, 3)``.

    Returns:
        A :class:`PolarCoupling`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> x = hdist.WrappedNormal(torch.tensor([1.25, 0.75, 0.0]), 0.2).sample((1000,))  # on the right
        >>> t = polar_coupling(count_bins=8, data=x)
        >>> v = geometry.log0(t.manifold, t(x))
        >>> (v[:, 0] < 0).float().mean().round(decimals=1)
        tensor(0.5000)
    """
    checks.check_count("count_bins", count_bins, 2, "a spline of one bin is the identity")
    widths = widths_of(hidden_dims, [64, 64])
    networks = []
    for context_dim in (1, 2):
        network = DenseNN(context_dim, widths, [count_bins, count_bins, count_bins - 1], torch.nn.ReLU())
        with torch.no_grad():
            network.layers[-1].weight.mul_(0.1)
            network.layers[-1].bias.zero_()
            network.layers[-1].bias[2 * count_bins :] = _SLOPE_ONE
        networks.append(network)
    layer = PolarCoupling(networks[0], networks[1], count_bins, reach, fixed_angle, manifold)
    if data is not None:
        checks.check_manifold(layer.manifold)
        checks.check_points(layer.manifold, data, "data")
        log_radius, angle = layer._to_polar(layer._replace_zeros(geometry.log0(layer.manifold, data))[0])
        q = torch.linspace(0, 1, count_bins + 1, dtype=data.dtype, device=data.device)
        with torch.no_grad():
            normal = (-2 * torch.log1p(-q)).sqrt()  # quantiles of the radius of a standard normal in the plane
            _set_knots(networks[0], angle.flatten().quantile(q), math.pi * (2 * q - 1), math.pi)
            _set_knots(networks[1], log_radius.flatten().quantile(q), (normal / reach).log() + _BOUND, _BOUND)
    return layer


def _set_knots(network: DenseNN, knots: Tensor, images: Tensor, bound: float) -> None:
    """Sets the biases so that the spline maps ``knots`` to ``images``, and each end to itself."""
    minimum = 1e-3  # Pyro's minimum width and height of a bin, as a fraction of the total
    sizes = []
    for edges in (knots, images):
        # Clamping knots clamps no point: beyond the bound the map is the identity.
        edges = torch.cat([edges.new_tensor([-bound]), edges[1:-1].clamp(-bound, bound), edges.new_tensor([bound])])
        sizes.append((edges.diff() / (2 * bound)).clamp(min=1.1 * minimum))  # more than it, for the logarithm
    secants = sizes[1] / sizes[0]
    slopes = 2 / (1 / secants[1:] + 1 / secants[:-1])  # harmonic mean, as in monotone interpolation
    logs = [(size - minimum).log() for size in sizes]
    network.layers[-1].bias.copy_(torch.cat([*logs, (slopes - minimum).expm1().log()]))
