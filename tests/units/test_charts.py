"""Charts: round trips, log-volumes against Gram determinants of the Lorentz metric, and what is out of the domain."""

import math

import geoopt
import pytest
import torch

import pyro_hyperbolic as ph
from pyro_hyperbolic import charts
from tests.cases import lorentz

G = ph.geometry
EPS = torch.finfo(torch.float64).eps


def tangents(M, n, radius, size=20, seed=0):
    """Tangent vectors at the origin of scaled norm ``radius``, in random directions."""
    v = torch.randn(size, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return v / v.norm(dim=-1, keepdim=True) * radius * M.k.sqrt()


def at(M, n):
    """A location off the centre, at distance 1.3 sqrt(k)."""
    return G.exp0(M, tangents(M, n, 1.3, size=1, seed=7)[0])


CHARTS = {  # name: to, from, log-volume, how often e^r the chart loses at radius r
    "poincare_ball": (charts.to_poincare_ball, charts.from_poincare_ball, charts.poincare_ball_log_volume, 1),
    "klein": (charts.to_klein, charts.from_klein, charts.klein_log_volume, 2),
    "normal": (charts.to_normal_coordinates, charts.from_normal_coordinates, charts.normal_coordinates_log_volume, 0),
    "normal_at_loc": (
        lambda M, x: charts.to_normal_coordinates(M, x, at(M, x.size(-1) - 1)),
        lambda M, v: charts.from_normal_coordinates(M, v, at(M, v.size(-1))),
        charts.normal_coordinates_log_volume,
        0,
    ),
}
every_chart = pytest.mark.parametrize("chart", CHARTS)
every_ball = pytest.mark.parametrize("chart", ["poincare_ball", "klein"])
every_k = pytest.mark.parametrize("k", [1.0, 4.0, 0.25])
every_n = pytest.mark.parametrize("n", [1, 2, 3])


@every_chart
@every_k
@every_n
def test_round_trip(chart, k, n):
    to, back, _, loss = CHARTS[chart]
    M = lorentz(k)
    for r in (0.0, 1e-8, 0.1, 1.0, 5.0, 15.0):
        x = G.exp0(M, tangents(M, n, r))
        p = to(M, x)
        assert p.shape == (20, n)
        y = back(M, p)
        assert G.contains(M, y).all(), r
        # Rounding p moves the point by u exp(loss r); a translation moves it by u sinh(r) sideways.
        assert G.distance(M, x, y).max() <= 16 * EPS * math.exp(max(loss, 1) * r) * math.sqrt(k), r
        sideways = math.exp(r) if chart == "normal_at_loc" else 1
        assert (to(M, y) - p).norm(dim=-1).max() <= 16 * EPS * (p.norm(dim=-1).max() + math.sqrt(k)) * sideways, r


@every_chart
@every_k
@every_n
def test_log_volume_is_the_gram_determinant_of_the_lorentz_metric(chart, k, n):
    to, back, log_volume, _ = CHARTS[chart]
    M = lorentz(k)
    eta = torch.diag(torch.tensor([-1.0] + [1.0] * n, dtype=torch.float64))
    for r in (0.0, 1e-8, 0.1, 1.0, 5.0):
        for p in to(M, G.exp0(M, tangents(M, n, r, size=2))):
            J = torch.autograd.functional.jacobian(lambda p: back(M, p), p)
            expected = (J.mT @ eta @ J).logdet() / 2
            # The Gram matrix itself cancels exp(2 r), at most exp(2 (r + 1.3)) of it with the centre elsewhere.
            torch.testing.assert_close(log_volume(M, p), expected, rtol=0, atol=64 * EPS * math.exp(2 * r + 2.6))


@every_k
@every_n
def test_radii_of_the_balls(k, n):
    M = lorentz(k)
    for r in (1e-8, 0.3, 3.0, 10.0, 36.0):
        x = G.exp0(M, tangents(M, n, r))
        for to, tanh in ((charts.to_poincare_ball, math.tanh(r / 2)), (charts.to_klein, math.tanh(r))):
            expected = torch.full((20,), math.sqrt(k) * tanh, dtype=torch.float64)
            torch.testing.assert_close(to(M, x).norm(dim=-1), expected, rtol=8 * EPS, atol=0)


@every_k
@every_n
def test_poincare_ball_is_geoopts(k, n):
    M, B = lorentz(k), geoopt.PoincareBall(c=1 / torch.tensor(k, dtype=torch.float64))
    x, y = (G.exp0(M, tangents(M, n, r, seed=s)) for r, s in ((1.5, 1), (0.7, 2)))
    ours, theirs = G.distance(M, x, y), B.dist(charts.to_poincare_ball(M, x), charts.to_poincare_ball(M, y))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)


@every_k
def test_geodesics_are_straight_in_the_klein_ball(k):
    M = lorentz(k)
    x, v = at(M, 2), tangents(M, 2, 1.0)
    a, b, c = (charts.to_klein(M, G.translate(M, x.expand(20, 3), G.exp0(M, t * v))) for t in (-0.5, 0.4, 2.0))
    area = torch.linalg.det(torch.stack([b - a, c - a], dim=-1))
    assert area.abs().max() <= 16 * EPS * k


@pytest.mark.parametrize("chart", ["poincare_ball", "klein", "normal"])
@pytest.mark.parametrize("r", [20.0, 40.0, 80.0])
def test_far_points_in_float32_stay_finite(chart, r):
    M = geoopt.Lorentz()
    p = CHARTS[chart][0](M, G.exp0(M, tangents(M, 3, r).float()))
    expected = r if chart == "normal" else 1.0
    torch.testing.assert_close(p.norm(dim=-1), torch.full((20,), expected), rtol=1e-6, atol=0)


@every_ball
def test_the_time_coordinate_is_not_read(chart):
    to = CHARTS[chart][0]
    M = lorentz(1.0)
    x = G.exp0(M, tangents(M, 2, 2.0))
    x_off = x * torch.tensor([1 + 8 * EPS, 1, 1])
    assert torch.equal(to(M, x), to(M, x_off))


@every_ball
@every_n
def test_gradients_to_coordinates_and_k(chart, n):
    to, back, log_volume, _ = CHARTS[chart]

    def there(v, k):
        M = geoopt.Lorentz()
        del M.k  # a Parameter; what replaces it may be any tensor
        M.k = k
        p = to(M, G.exp0(M, v))
        return p, back(M, p), log_volume(M, p)

    k = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    for r in (0.0, 0.8):
        v = tangents(lorentz(1.7), n, r, size=2).requires_grad_()
        assert torch.autograd.gradcheck(there, (v, k), fast_mode=True)
        assert torch.autograd.gradgradcheck(there, (v, k), fast_mode=True)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (charts.from_poincare_ball, "Poincaré"),
        (charts.poincare_ball_log_volume, "Poincaré"),
        (charts.from_klein, "Klein"),
        (charts.klein_log_volume, "Klein"),
    ],
)
def test_outside_of_the_ball(function, name):
    M = lorentz(4.0)
    inside = torch.tensor([1.0, 1.7], dtype=torch.float64)  # norm 1.97, outside of the unit ball
    assert function(M, inside).isfinite().all()
    for p in (torch.tensor([[0.0, 0.0], [1.0, 1.8]]), torch.tensor([2.0, 0.0])):
        with pytest.raises(ValueError, match=rf"= 1.*1 of .*open {name} ball of Lorentz\(k=4\).*; rescale"):
            function(M, p.double())
    with pytest.raises(ValueError, match="NaN or infinity"):
        function(M, torch.tensor([math.nan, 0.0]))
    with pytest.raises(TypeError, match=r"dtype torch\.int64"):
        function(M, torch.tensor([0, 0]))
    with pytest.raises(TypeError, match=r"charts of geoopt\.Lorentz.*normal coordinates"):
        function(geoopt.Euclidean(1), torch.zeros(2))


def test_what_rounds_to_the_boundary_is_an_error_on_the_way_back():
    M = geoopt.Lorentz()
    for to, back, r in (
        (charts.to_poincare_ball, charts.from_poincare_ball, 20.0),
        (charts.to_klein, charts.from_klein, 12.0),
    ):
        p = to(M, G.exp0(M, torch.tensor([r])))
        with pytest.raises(ValueError, match=r"torch\.float32 cannot tell"):
            back(M, p)


@every_ball
def test_off_the_manifold(chart):
    with pytest.raises(ValueError, match="is not on Lorentz"):
        CHARTS[chart][0](lorentz(1.0), torch.tensor([1.0, 1.0], dtype=torch.float64))


def test_normal_coordinates_on_euclidean_space_are_differences():
    M = geoopt.Euclidean(1)
    x, loc = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0])
    torch.testing.assert_close(charts.to_normal_coordinates(M, x, loc), x - loc)
    torch.testing.assert_close(charts.from_normal_coordinates(M, x - loc, loc), x)
    assert charts.normal_coordinates_log_volume(M, x) == 0
