"""What polar couplings promise beyond the laws: what stays, where they fade, how they start."""

import math

import geoopt
import pyro
import pytest
import torch

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from tests.cases import lorentz, shaken

G = ph.geometry
AROUND = torch.linspace(-3, 3, 30, dtype=torch.float64)


def layer(manifold, fixed_angle=math.pi):
    return shaken(HT.polar_coupling([16], 6, 3.0, fixed_angle, manifold))


def ring(radius, angles=AROUND):
    return radius * torch.stack([angles.cos(), angles.sin()], dim=-1)


RAY = torch.linspace(0.2, 6.0, 30, dtype=torch.float64)[:, None] * ring(1.0, torch.ones(1, dtype=torch.float64))


def radius_and_angle(v):
    return v.norm(dim=-1), torch.atan2(v[..., 1], v[..., 0])


def in_the_chart(t, v):
    return G.log0(t.manifold, t(G.exp0(t.manifold, v)))


@pytest.mark.parametrize("k", [1.0, 4.0])
def test_the_fixed_angle_stays_and_so_do_radii_beyond_the_reach(k):
    t = layer(lorentz(k), fixed_angle=1.0)
    _, angle = radius_and_angle(in_the_chart(t, RAY))
    torch.testing.assert_close(angle, torch.ones_like(angle), rtol=0, atol=1e-9)
    radius, angle = radius_and_angle(in_the_chart(t, ring(3.5)))
    torch.testing.assert_close(radius, torch.full_like(radius, 3.5), rtol=1e-12, atol=0)
    assert (angle - AROUND).abs().max() > 0.1  # beyond the reach angles move all the same
    radius, _ = radius_and_angle(in_the_chart(t, ring(1.5)))
    assert (radius - 1.5).abs().max() > 0.1
    assert (radius < 3.0).all()


def test_angles_keep_their_order_around_the_circle():
    angles = torch.linspace(0.5, 0.5 + 2 * math.pi, 400, dtype=torch.float64)[:-1]
    _, found = radius_and_angle(in_the_chart(layer(geoopt.Euclidean(1), fixed_angle=0.5), ring(1.2, angles)))
    assert (((found - found[0]) % (2 * math.pi)).diff() > 0).all()


@pytest.mark.parametrize("r", [1e-2, 1e-4])
def test_it_fades_to_the_identity_towards_the_origin(r):
    """To third order, and to what Pyro's splines are off: the slope at their ends is 0.999 whatever they are told."""
    t, v = layer(lorentz(4.0)), ring(r)
    x = G.exp0(t.manifold, v)
    assert (in_the_chart(t, v) - v).norm(dim=-1).max() < 2e3 * r**3 + 2e-4 * r
    assert t.log_abs_det_jacobian(x, t(x)).abs().max() < 2e4 * r**2 + 3e-3


@pytest.mark.parametrize("seed", range(3))
def test_it_starts_near_the_identity(seed):
    pyro.set_rng_seed(seed)
    v = torch.randn(50, 2)
    t = HT.polar_coupling(manifold=geoopt.Lorentz())
    x = G.exp0(t.manifold, v)
    assert 0 < (in_the_chart(t, v) - v).norm(dim=-1).max() < 0.12
    assert t.log_abs_det_jacobian(x, t(x)).abs().max() < 0.2


def test_from_data_it_starts_as_the_map_to_a_standard_normal_of_radius_and_angle():
    M = lorentz()
    loc = G.exp0(M, torch.tensor([2.0, 1.0], dtype=torch.float64))
    x = hdist.WrappedNormal(loc, torch.tensor([0.8, 0.5], dtype=torch.float64), M).sample((4000,))
    t = HT.polar_coupling(count_bins=32, reach=6.0, manifold=M, data=x).double()
    for network in (t.angular.nn.network, t.radial.nn):  # without what fresh networks add to their biases
        torch.nn.init.zeros_(network.layers[-1].weight)
    radius, angle = radius_and_angle(G.log0(M, t(x)))
    for share in torch.linspace(0.1, 0.9, 9).tolist():
        assert (angle < math.pi * (2 * share - 1)).double().mean().item() == pytest.approx(share, abs=0.01)
        assert (radius < math.sqrt(-2 * math.log(1 - share))).double().mean().item() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(("power", "wave"), [(1.0, 0.0), (2.0, 0.5)])
def test_from_a_changed_standard_normal_it_starts_as_the_way_back(power, wave):
    """In slope too, not only at the knots; from a standard normal, as the identity."""
    M, share = geoopt.Euclidean(1), torch.linspace(0, 1, 66, dtype=torch.float64)[1:-1]
    radii, angles = torch.meshgrid((-2 * (1 - share).log()).sqrt(), math.pi * (2 * share - 1), indexing="ij")
    normal = radii.unsqueeze(-1) * ring(1.0, angles)
    x = (radii**power).unsqueeze(-1) * ring(1.0, angles + wave * (angles.sin() + (2 * angles).sin() / 2))
    slope = (power * radii ** (2 * power - 2) * (1 + wave * (angles.cos() + (2 * angles).cos()))).log()
    t = HT.polar_coupling(count_bins=8, reach=6.0, manifold=M, data=x).double()
    for network in (t.angular.nn.network, t.radial.nn):
        torch.nn.init.zeros_(network.layers[-1].weight)
    y, log_det = t(x), t.log_abs_det_jacobian(x, t(x))
    assert (y - normal)[8:-8].norm(dim=-1).mean() < 0.1
    assert (log_det + slope)[8:-8].abs().mean() < 0.15


@pytest.mark.parametrize(("k", "angle"), [(1.0, 0.0), (4.0, math.pi / 2), (None, 1.0)])
def test_points_on_the_axes(k, angle):
    """One tangent coordinate is exactly zero, of either sign; only at the origin, where both are, is there no angle."""
    M = geoopt.Euclidean(1) if k is None else lorentz(k)
    t = layer(M, angle)
    v = torch.tensor([[1.2, 0.0], [-1.2, 0.0], [0.0, 1.2], [0.0, -1.2]], dtype=torch.float64)
    v = torch.cat([v, -v])
    x, w = G.exp0(M, v), in_the_chart(t, v)
    torch.testing.assert_close(G.log0(M, t.inv(t(x).clone())), v, rtol=0, atol=1e-8)
    for side in (-1e-7, 1e-7):  # there is no seam
        torch.testing.assert_close(in_the_chart(t, v + side * (v == 0)), w, rtol=0, atol=1e-5)
    jacobian = torch.autograd.functional.jacobian(lambda u: in_the_chart(t, u).sum(0), v).movedim(1, 0)
    expected = jacobian.slogdet()[1] + G.log_volume(M, w) - G.log_volume(M, v)
    torch.testing.assert_close(t.log_abs_det_jacobian(x, t(x)), expected, rtol=0, atol=1e-8)
