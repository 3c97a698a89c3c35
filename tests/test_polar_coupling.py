"""What polar couplings promise beyond the laws: what stays, where they fade, how they start."""

import math
import re

import geoopt
import pyro
import pytest
import torch

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from tests.cases import lorentz, shaken

G = ph.geometry


def layer(manifold, **arguments):
    return shaken(HT.polar_coupling([16], 6, manifold=manifold, **{"reach": 3.0, **arguments}))


def polar(manifold, x):
    v = G.log0(manifold, x)
    return v.norm(dim=-1), torch.atan2(v[:, 1], v[:, 0])


def directions(angles):
    angles = torch.as_tensor(angles, dtype=torch.float64)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


@pytest.mark.parametrize("k", [1.0, 4.0])
def test_the_fixed_angle_and_what_is_beyond_the_reach_stay(k):
    M, angle = lorentz(k), 1.0
    t = layer(M, fixed_angle=angle)
    radius, found = polar(M, t(G.exp0(M, torch.linspace(0.2, 6.0, 30).double()[:, None] * directions([angle]))))
    torch.testing.assert_close(found, torch.full_like(found, angle), rtol=0, atol=1e-9)
    x = G.exp0(M, 3.5 * directions(torch.linspace(-3, 3, 30)))
    radius, found = polar(M, t(x))
    torch.testing.assert_close(radius, torch.full_like(radius, 3.5), rtol=1e-12, atol=0)
    assert (found - polar(M, x)[1]).abs().max() > 0.1  # beyond the reach angles move all the same
    within, _ = polar(M, t(G.exp0(M, 1.5 * directions(torch.linspace(-3, 3, 30)))))
    assert (within - 1.5).abs().max() > 0.1
    assert (within < 3.0).all()


def test_angles_keep_their_order_around_the_circle():
    t = layer(geoopt.Euclidean(1), fixed_angle=0.5)
    angles = torch.linspace(0.5, 0.5 + 2 * math.pi, 400, dtype=torch.float64)[:-1]
    _, found = polar(geoopt.Euclidean(1), t(1.2 * directions(angles)))
    turned = (found - found[0]) % (2 * math.pi)
    assert (turned.diff() > 0).all()


def test_it_fades_to_the_identity_towards_the_origin():
    """To third order, and to what Pyro's splines are off: the slope at their ends is 0.999 whatever they are told."""
    M = lorentz(4.0)
    t = layer(M)
    for r in (1e-2, 1e-3, 1e-4):
        v = r * directions(torch.linspace(-3, 3, 20))
        x = G.exp0(M, v)
        y = t(x)
        assert (G.log0(M, y) - v).norm(dim=-1).max() < 2e3 * r**3 + 2e-4 * r
        assert t.log_abs_det_jacobian(x, y).abs().max() < 2e4 * r**2 + 3e-3


def test_it_starts_near_the_identity():
    M = geoopt.Lorentz()
    v = torch.randn(50, 2)
    for seed in range(5):
        pyro.set_rng_seed(seed)
        moved = G.log0(M, HT.polar_coupling(manifold=M)(G.exp0(M, v))) - v
        assert 0 < moved.norm(dim=-1).max() < 0.12


def test_from_data_it_starts_as_the_map_to_a_standard_normal_of_radius_and_angle():
    M = lorentz(1.0)
    pyro.set_rng_seed(0)
    loc = G.exp0(M, torch.tensor([2.0, 1.0], dtype=torch.float64))
    x = hdist.WrappedNormal(loc, torch.tensor([0.8, 0.5], dtype=torch.float64), M).sample((4000,))
    t = HT.polar_coupling(count_bins=32, reach=6.0, manifold=M, data=x).double()
    for network in (t.angular.nn.network, t.radial.nn):  # without what fresh networks add to their biases
        torch.nn.init.zeros_(network.layers[-1].weight)
    radius, angle = polar(M, t(x))
    for share in torch.linspace(0.1, 0.9, 9).tolist():
        assert (angle < math.pi * (2 * share - 1)).double().mean().item() == pytest.approx(share, abs=0.01)
        assert (radius < math.sqrt(-2 * math.log(1 - share))).double().mean().item() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("k", [1.0, 4.0, None])
@pytest.mark.parametrize("angle", [1.0, 0.0, math.pi / 2])
def test_points_on_the_axes(k, angle):
    """One tangent coordinate is exactly zero: only at the origin, where both are, is there no angle."""
    M = geoopt.Euclidean(1) if k is None else lorentz(k)
    t = layer(M, fixed_angle=angle)
    v = torch.tensor([[1.2, 0.0], [-1.2, 0.0], [0.0, 1.2], [0.0, -1.2]], dtype=torch.float64)
    v = torch.cat([v, -0.0 + v.flip(0).neg()])  # with zeros of both signs
    x = G.exp0(M, v)
    y = t(x)
    w, back = G.log0(M, y), G.log0(M, t.inv(y.clone()))
    torch.testing.assert_close(back, v, rtol=0, atol=1e-8)
    log_det = t.log_abs_det_jacobian(x, y)
    for i in range(len(v)):
        # From both sides of the axis: there is no seam but at the fixed angle, which stays, and is none.
        for side in (-1e-7, 1e-7):
            near = v[i] + side * (v[i] == 0)
            torch.testing.assert_close(G.log0(M, t(G.exp0(M, near))), w[i], rtol=0, atol=1e-5)
        J = torch.autograd.functional.jacobian(lambda u: G.log0(M, t(G.exp0(M, u))), v[i])
        expected = J.det().abs().log() + G.log_volume(M, w[i]) - G.log_volume(M, v[i])
        torch.testing.assert_close(log_det[i], expected, rtol=0, atol=1e-8)


def test_errors():
    for name, value in {"reach": 0.0, "count_bins": 1, "fixed_angle": math.inf, "hidden_dims": []}.items():
        with pytest.raises(ValueError, match=rf"{name} = {re.escape(str(value))}"):
            HT.polar_coupling(**{name: value})
    M = geoopt.Lorentz()
    with pytest.raises(ValueError, match="points of a plane, but these have n = 3"):
        HT.polar_coupling(manifold=M)(G.origin(M, 3))
