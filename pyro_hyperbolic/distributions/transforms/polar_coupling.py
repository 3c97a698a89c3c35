r"""Polar coupling: splines of the angle and of the radius, in geodesic polar coordinates about the origin."""

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

from .base import TangentModule, without_autocast
from .networks import widths_of

__all__ = ["PolarCoupling", "polar_coupling"]

#: A spline's parameters, unnormalised: widths, heights, slopes.
Parameters = tuple[Tensor, Tensor, Tensor]

#: The radial spline acts where |log(radius / reach) + 2| < 2: from exp(-4) = 0.02 times the reach on.
_BOUND = 2.0
#: Where the slope is one: Pyro's splines add 1e-3 to the softplus of this.
_SLOPE_ONE = math.log(math.expm1(1 - 1e-3))


class PolarCoupling(TangentModule):
    r"""Moves the angle, then the radius, each given the other, :math:`\phi' = h_\rho(\phi),\ \rho' = g_{\phi'}(\rho)`.

    In geodesic polar coordinates of a plane, :math:`x = \exp_o(\rho \cos\phi, \rho \sin\phi)`. Both are monotone
    rational-quadratic splines: ``h`` of the circle, keeping one angle fixed, ``g`` of the logarithm of the radius, up
    to ``reach`` and the identity beyond. With respect to Riemannian volume (at ``k = 1``)

    .. math:: \log |\det dy/dx| = \log h_\rho'(\phi) + \log g_{\phi'}'(\rho) + \log \frac{\sinh \rho'}{\sinh \rho}.

    A hyperbolic disk is nearly all rim, and what is far apart at the rim differs in its angle. A coupling of Cartesian
    tangent coordinates has to cut thin slices out of both; this one spends its knots where the volume is. Towards the
    origin, where there is no angle, it fades to the identity, within a few hundredths of ``reach``, up to 1e-3 in the
    log-determinant: the slope of Pyro's splines at their ends is 0.999.

    Shapes: ``x`` and ``y`` are ``(*, 3)`` (``(*, 2)`` on the Euclidean plane), the log-determinant is ``(*)``.

    Args:
        angular: Maps the radius over ``reach``, ``(*, 1)``, to unnormalised widths and heights ``(*, bins)`` and
            slopes ``(*, bins - 1)`` of the spline of the angle.
        radial: Maps :math:`(\cos\phi', \sin\phi')` to those of the spline of the radius.
        count_bins: Number of bins of both.
        reach: Radius up to which points are moved radially, positive, in units of distance.
        fixed_angle: The angle that ``h`` keeps, in radians, where its slope is one; give the layers of a stack
            different ones.
        manifold: A geoopt manifold; the hyperbolic plane of curvature -1 by default.
        cache_size: 1 (default) to remember the last pair, 0 not to.

    Raises:
        ValueError: If ``reach`` is not positive; on a call, if the manifold is no plane or, while validating, a point
            is off it.

    References:
        Conor Durkan, Artur Bekasov, Iain Murray, George Papamakarios, *Neural Spline Flows*, 2019, arXiv:1906.04032.
        Danilo Jimenez Rezende et al., *Normalizing Flows on Tori and Spheres*, 2020, arXiv:2002.02428 (splines of the
        circle).

    Example:
        Beyond the reach a layer only turns, and moves nothing towards or from the origin:

        >>> t = polar_coupling(count_bins=4, reach=2.0)
        >>> x = geometry.exp0(t.manifold, torch.tensor([[3.0, 4.0]]))
        >>> geometry.log0(t.manifold, t(x)).norm().item()
        5.0
    """

    def __init__(
        self,
        angular: Callable[[Tensor], Parameters],
        radial: Callable[[Tensor], Parameters],
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
        checks.check_count("count_bins", count_bins, 2, "one bin moves nothing")
        checks.check_number("reach", reach, "it is the radius up to which points are moved, 5.0 by default", above=0)
        checks.check_number("fixed_angle", fixed_angle, "it is in radians, math.pi by default")
        self.reach, self.fixed_angle = reach, fixed_angle
        self.angular = ConditionalSpline(_Fading(angular), 1, count_bins, bound=math.pi, order="quadratic")
        self.radial = ConditionalSpline(radial, 1, count_bins, bound=_BOUND, order="quadratic")

    def _tangent_forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        try:
            with without_autocast(v):  # Pyro's splines compute with what the networks return
                return self._moved(v)
        except RuntimeError:  # not looked at beforehand, as in other couplings
            self._check_dtype(v)
            raise

    def _tangent_backward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        try:
            with without_autocast(w):
                return self._moved_back(w)
        except RuntimeError:
            self._check_dtype(w)
            raise

    def _moved(self, v: Tensor) -> tuple[Tensor, Tensor]:
        safe, centre = self._off_centre(v)
        level, angle = self._polar(safe)
        turn = self._turn(level)
        new_angle = turn(angle)
        stretch = self.radial.condition(_direction(new_angle))
        new_level = stretch(level)
        log_det = turn.log_abs_det_jacobian(angle, new_angle) + stretch.log_abs_det_jacobian(level, new_level)
        w = torch.where(centre, v, self._cartesian(new_level, new_angle))
        return w, _planar(log_det, level, new_level, centre)

    def _moved_back(self, w: Tensor) -> tuple[Tensor, Tensor]:
        safe, centre = self._off_centre(w)
        new_level, new_angle = self._polar(safe)
        stretch = self.radial.condition(_direction(new_angle))
        level = stretch.inv(new_level)
        turn = self._turn(level)
        angle = turn.inv(new_angle)
        log_det = turn.log_abs_det_jacobian(angle, new_angle) + stretch.log_abs_det_jacobian(level, new_level)
        v = torch.where(centre, w, self._cartesian(level, angle))
        return v, _planar(log_det, level, new_level, centre)

    def _check_dtype(self, v: Tensor) -> None:
        for network in (self.angular, self.radial):
            checks.check_same_dtype(network=next(network.parameters(), v), points=v)

    def _turn(self, level: Tensor) -> Any:
        return self.angular.condition((level - _BOUND).exp())

    def _off_centre(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the vectors, another one in place of zero, which has no angle, and where that is."""
        if v.size(-1) != 2:
            raise ValueError(
                f"a polar coupling moves points of a plane, but these have n = {v.size(-1)} dimensions; use a "
                f"coupling_flow."
            )
        centre = (v == 0).all(-1, keepdim=True)
        return torch.where(centre, self.reach, v), centre

    def _polar(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log(radius / reach) + bound, and the angle from the one opposite to that which stays."""
        c, s = math.cos(self.fixed_angle - math.pi), math.sin(self.fixed_angle - math.pi)
        first, second = v.split(1, dim=-1)
        angle = torch.atan2(c * second - s * first, c * first + s * second)
        return (torch.hypot(first, second) / self.reach).log() + _BOUND, angle

    def _cartesian(self, level: Tensor, angle: Tensor) -> Tensor:
        return self.reach * (level - _BOUND).exp() * _direction(angle + (self.fixed_angle - math.pi))


class _Fading(torch.nn.Module):
    """The parameters of an angular spline, those of the identity towards the origin."""

    def __init__(self, network: Callable[[Tensor], Parameters]) -> None:
        super().__init__()
        self.network = network

    def forward(self, radius: Tensor) -> Parameters:
        share = -torch.expm1(-(radius * math.exp(2 * _BOUND)).square())
        widths, heights, slopes = self.network(radius)
        return share * widths, share * heights, _SLOPE_ONE + share * (slopes - _SLOPE_ONE)


def _direction(angle: Tensor) -> Tensor:
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def _planar(log_det: Tensor, level: Tensor, new_level: Tensor, centre: Tensor) -> Tensor:
    """Returns the log-determinant with respect to Lebesgue measure, rho^2 d(log rho) d(phi), shape ``(*)``."""
    return torch.where(centre, 0.0, log_det + 2 * (new_level - level)).squeeze(-1)


def polar_coupling(
    hidden_dims: Sequence[int] | None = None,
    count_bins: int = 16,
    reach: float = 5.0,
    fixed_angle: float = math.pi,
    manifold: Manifold | None = None,
    data: Tensor | None = None,
) -> PolarCoupling:
    r"""Builds a :class:`PolarCoupling` of the plane with dense networks; it starts near the identity.

    Given data, it starts as the map that makes their angles uniform, and their radii those of a standard normal, each
    on its own, with its knots at their quantiles. From equal bins it takes a spline long to find narrow modes: at
    distance 6 a blob of radius 0.3 has an angle of 0.001.

    Args:
        hidden_dims: Widths of the hidden layers; ``[64, 64]`` by default.
        count_bins: Number of bins, at least 2.
        reach: Radius up to which points are moved radially, in units of distance.
        fixed_angle: The angle that stays, in radians; give the layers of a stack different ones.
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
    checks.check_count("count_bins", count_bins, 2, "one bin moves nothing")
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
        level, angle = layer._polar(layer._off_centre(geometry.log0(layer.manifold, data))[0])
        share = torch.linspace(0, 1, count_bins + 1, dtype=data.dtype, device=data.device)
        with torch.no_grad():
            normal = (-2 * torch.log1p(-share)).sqrt()  # the radius with that share of a standard normal of the plane
            _start(networks[0], angle.flatten().quantile(share), math.pi * (2 * share - 1), math.pi)
            _start(networks[1], level.flatten().quantile(share), (normal / reach).log() + _BOUND, _BOUND)
    return layer


def _start(network: DenseNN, knots: Tensor, images: Tensor, bound: float) -> None:
    """Sets the biases so that the spline takes knots to images; the ends stay."""
    bins, least = len(knots) - 1, 1e-3  # Pyro's least width and height of a bin, as a share of all
    shares = []
    for ends in (knots, images):
        # Where the first knots are, not a point, is clamped: data beyond the box, where the map is the identity.
        ends = torch.cat([ends.new_tensor([-bound]), ends[1:-1].clamp(-bound, bound), ends.new_tensor([bound])])
        share = (ends.diff() / (2 * bound) - least).clamp(min=least / 10)  # no logarithm of nothing
        shares.append(share / share.sum())
    secants = (least + (1 - least * bins) * shares[1]) / (least + (1 - least * bins) * shares[0])
    slopes = 2 / (1 / secants[1:] + 1 / secants[:-1])  # harmonic mean, as monotone interpolation takes it
    network.layers[-1].bias.copy_(torch.cat([shares[0].log(), shares[1].log(), (slopes - least).expm1().log()]))
