"""Base distributions: mass by quadrature, samplers and gradients by their laws, and mpmath at the extremes."""

import contextlib
import math
import pickle
from functools import partial

import geoopt
import mpmath as mp
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, stats
from torch.distributions import kl_divergence

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from tests.cases import TEST_FAILURE_RATE, lorentz, point, shaken

G = ph.geometry
SPHERE, TORUS, SO3 = geoopt.Sphere(), ph.manifolds.Torus(2), ph.manifolds.Rotations()
COMPACT = geoopt.ProductManifold((SPHERE, 3), (TORUS, 2), (SO3, (3, 3)))
MIXED = geoopt.ProductManifold((lorentz(4.0), 3), (SPHERE, 3), (SO3, (3, 3)), (geoopt.Euclidean(1), 2))
POLE = torch.tensor([0.0, 0.6, -0.8], dtype=torch.float64)


pytestmark = pytest.mark.usefixtures("float64")


def uniform(manifold=SPHERE, dim=2, **kwargs):
    return hdist.Uniform(manifold, dim, **kwargs)


def mixed(*batch):
    plane = hdist.WrappedNormal(G.origin(lorentz(4.0), 2).expand(*batch, 3), 0.5, lorentz(4.0))
    line = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    return hdist.ProductDistribution(MIXED, [plane, uniform(), uniform(SO3, None), line])


# Uniform


@pytest.mark.parametrize(
    ("manifold", "dim", "volume"),
    [
        (SPHERE, 1, 2 * math.pi),
        (SPHERE, 2, 4 * math.pi),
        (SPHERE, 3, 2 * math.pi**2),
        (TORUS, None, 4 * math.pi**2),
        (SO3, 3, 8 * math.pi**2),
        (COMPACT, None, 128 * math.pi**5),
    ],
)
def test_uniform_density_is_one_over_the_volume(manifold, dim, volume):
    d = uniform(manifold, dim)
    x = d.sample((4,))
    assert torch.allclose(d.log_prob(x), torch.tensor(-math.log(volume)))
    assert torch.allclose(d.entropy(), torch.tensor(math.log(volume)))
    assert d.support.check(x).all()


def test_uniform_has_the_dtype_it_is_given():
    assert uniform(dtype=torch.float32).sample().dtype == torch.float32
    assert uniform().log_prob(POLE.float()).dtype == torch.float32


# Products


def test_a_product_adds_its_factors():
    d = mixed(3)
    assert (d.batch_shape, d.event_shape, d.has_rsample) == ((3,), (17,), True)
    x = d.sample((4,))
    assert d.support.check(x).all()
    parts = zip(d.factors, d.split(x), strict=True)
    assert torch.allclose(d.log_prob(x), sum(factor.log_prob(part.clone()) for factor, part in parts))
    lone = hdist.ProductDistribution(COMPACT, [uniform(), uniform(TORUS, None), uniform(SO3, None)])
    assert torch.allclose(lone.entropy(), uniform(COMPACT, None).entropy())


def test_a_product_without_reparameterised_factor():
    coin = dist.RelaxedOneHotCategoricalStraightThrough(torch.tensor(1.0), torch.ones(3))
    coin.has_rsample = False
    flat = geoopt.ProductManifold((geoopt.Euclidean(1), 3), (SPHERE, 3))
    d = hdist.ProductDistribution(flat, [coin, uniform()])
    assert not d.has_rsample
    assert d.sample((2,)).shape == (2, 6)


def test_a_product_of_distributions_of_pyro():
    circles, ball = dist.VonMises(torch.zeros(2), 1.0).to_event(1), dist.ProjectedNormal(torch.ones(3))
    d = hdist.ProductDistribution(geoopt.ProductManifold((TORUS, 2), (SPHERE, 3)), [circles.expand([4]), ball])
    x = d.sample()
    assert torch.allclose(d.log_prob(x), circles.log_prob(x[:, :2]) + ball.log_prob(x[:, 2:]))
    d = hdist.ProductDistribution(d.manifold, [circles.expand([4]), ball.expand([3, 1])])
    x = d.sample()
    assert x.shape == (3, 4, 5)
    assert [len(part.flatten(0, 1).unique(dim=0)) for part in d.split(x)] == [12, 12]


# Densities

Z_AXIS = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
TURNED = torch.tensor([[0.6, -0.8, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def sphere_nodes(order=64):
    """Points of the sphere and areas: Gauss-Legendre in z, trapezoids in longitude."""
    z, w = (torch.as_tensor(each) for each in np.polynomial.legendre.leggauss(order))
    angle = 2 * math.pi * torch.arange(2 * order) / (2 * order)
    z, angle = z[:, None].expand(-1, 2 * order), angle.expand(order, -1)
    x = torch.stack([(1 - z * z).sqrt() * angle.cos(), (1 - z * z).sqrt() * angle.sin(), z], -1)
    return x, (w * math.pi / order)[:, None].expand(-1, 2 * order)


def rotation_nodes(order=16):
    """Rotations and volumes: Euler angles ZYZ, of volume sin(beta)."""
    z, w = (torch.as_tensor(each) for each in np.polynomial.legendre.leggauss(order))
    angle = 2 * math.pi * torch.arange(2 * order) / (2 * order)
    a, z, c = torch.meshgrid(angle, z, angle, indexing="ij")
    zero, one = torch.zeros_like(a), torch.ones_like(a)

    def about_z(t):
        rows = [t.cos(), -t.sin(), zero, t.sin(), t.cos(), zero, zero, zero, one]
        return torch.stack(rows, -1).unflatten(-1, (3, 3))

    s = (1 - z * z).sqrt()
    tilt = torch.stack([z, zero, s, zero, one, zero, -s, zero, z], -1).unflatten(-1, (3, 3))
    return about_z(a) @ tilt @ about_z(c), (w * (math.pi / order) ** 2)[:, None].expand(a.shape)


def total(d, x, volume):
    return float((d.log_prob(x).exp() * volume).sum())


@pytest.mark.parametrize("c", [1e-6, 0.7, 1.0, 3.0, 20.0])
def test_mass_is_one(c):
    x, area = sphere_nodes()
    assert abs(total(hdist.VonMisesFisher(POLE, c), x, area) - 1) < 1e-12
    # A power that is not an integer is not analytic at the antipode.
    assert abs(total(hdist.PowerSpherical(POLE, c), x, area) - 1) < (1e-12 if c == round(c) else 1e-7)
    x, volume = rotation_nodes()
    assert abs(total(hdist.RotationFisher(TURNED, min(c, 3.0)), x, volume) - 1) < 1e-12


PEAKS = {  # log p at loc
    "vmf": (
        lambda c, like: hdist.VonMisesFisher(Z_AXIS.to(like), c.to(like)),
        lambda c: c + mp.log(c / (4 * mp.pi * mp.sinh(c))),
    ),
    "power2": (
        lambda c, like: hdist.PowerSpherical(Z_AXIS.to(like), c.to(like)),
        lambda c: c * mp.log(2) - mp.log(2 ** (2 + c) * mp.pi * mp.gamma(1 + c) / mp.gamma(2 + c)),
    ),
    "power3": (
        lambda c, like: hdist.PowerSpherical(torch.eye(4).to(like)[1], c.to(like)),
        lambda c: mp.loggamma(c + 3) - mp.loggamma(c + 1.5) - 1.5 * mp.log(4 * mp.pi),
    ),
    "power1": (
        lambda c, like: hdist.PowerSpherical(torch.eye(2).to(like)[1], c.to(like)),
        lambda c: mp.loggamma(c + 1) - mp.loggamma(c + 0.5) - mp.log(4 * mp.pi) / 2,
    ),
    "fisher": (
        lambda c, like: hdist.RotationFisher(TURNED.to(like), c.to(like)),
        lambda c: 2 * c - mp.log(8 * mp.pi**2) - mp.log(mp.besseli(0, 2 * c) - mp.besseli(1, 2 * c)),
    ),
}


@pytest.mark.parametrize("name", PEAKS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("c", [1e-6, 0.3, 0.999, 7.0, 1e3, 1e6])
def test_peak_and_its_derivative_at_every_concentration(name, dtype, c):
    make, exact = PEAKS[name]
    eps = torch.finfo(dtype).eps
    concentration = torch.tensor(c, dtype=dtype, requires_grad=True)
    d = make(concentration, torch.zeros((), dtype=dtype))
    found = d.log_prob(d.loc)
    (slope,) = torch.autograd.grad(found, concentration)
    with mp.workdps(60):
        c = mp.mpf(concentration.item())
        value, derivative = float(exact(c)), float(mp.diff(exact, c))
    assert abs(found.item() - value) <= 8 * eps * max(1, abs(value))
    assert abs(slope.item() - derivative) <= 32 * eps * derivative


@pytest.mark.parametrize("c", [0.7, 1e3, 1e6])
def test_the_density_falls_as_it_should_near_and_far_from_the_mode(c):
    """By the angle from loc, up to the antipode; a rounded point is as uncertain as its coordinates."""
    axis = torch.tensor([0.0, 0.0, 1.0])
    for angle in (1e-3, 1.0, 1.6, 3.0):
        turn = torch.tensor([[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]])
        arc = torch.tensor([math.sin(angle), 0.0, math.cos(angle)])
        with mp.workdps(40):
            chord, cosine = 2 * mp.sin(mp.mpf(angle) / 2) ** 2, mp.log(mp.cos(mp.mpf(angle) / 2)) * 2
        for d, x, expected in (
            (hdist.VonMisesFisher(axis, c), arc, -c * chord),
            (hdist.PowerSpherical(axis, c), arc, c * cosine),
            (hdist.RotationFisher(torch.eye(3), c), torch.cat([turn, axis[None]]), -2 * c * chord),
        ):
            found = d.log_prob(x) - d.log_prob(d.loc)
            eps = torch.finfo(torch.float64).eps
            assert abs(found.item() - float(expected)) <= 4 * eps * (1 + c * angle + abs(float(expected)))


@pytest.mark.parametrize("c", [1e-6, 2.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_samples_at_extreme_concentrations(c, dtype):
    """Are on the manifold, with finite gradients; far from the mode by the root of the mean squared chord."""
    for name, (make, _) in PEAKS.items():
        concentration = torch.tensor(c, dtype=dtype, requires_grad=True)
        d = make(concentration, torch.zeros((), dtype=dtype))
        x = d.rsample((4000,))
        assert d.support.check(x).all()
        versine = ((x - d.loc) ** 2).flatten(1).sum(-1) / 2
        (slope,) = torch.autograd.grad(versine.mean(), concentration)
        assert slope.isfinite()
        if name == "vmf" and c < 1e-3:  # the cosine of a draw moves by (1 - cosine^2) / 2
            assert torch.allclose(slope, -(versine * (2 - versine)).mean() / 2, rtol=1e-4)
        # For log p = f(c) + c * statistic the mean of the statistic is -f'(c); of a power it is a logarithm.
        if "power" not in name:
            (mean,) = torch.autograd.grad(d.log_prob(d.loc), concentration)
            assert abs(versine.mean() - mean) < 4.5 * versine.std() / 4000**0.5 + 8 * torch.finfo(dtype).eps


# Samplers


def cosines(d, number=20_000):
    """The cosine of the angle to loc, and the angle about it."""
    x = d.sample((number,))
    across = G.bind(SPHERE).frame(d.loc) @ (x - d.loc).unsqueeze(-1)
    return (x * d.loc).sum(-1), torch.atan2(across[:, 1, 0], across[:, 0, 0])


def assert_follows(values, cdf):
    assert stats.kstest(values.detach().numpy(), cdf).pvalue > TEST_FAILURE_RATE


@pytest.mark.parametrize("c", [1e-3, 3.0, 300.0])
def test_von_mises_fisher_samples(c):
    cosine, around = cosines(hdist.VonMisesFisher(POLE, c))
    assert_follows(cosine, lambda t: (np.exp(c * (t - 1)) - np.exp(-2 * c)) / -np.expm1(-2 * c))
    assert_follows(around, stats.uniform(-math.pi, 2 * math.pi).cdf)


@pytest.mark.parametrize("c", [1e-3, 3.0, 3.9999, 7.6, 19.9, 28.8, 39.9, 959.4])
def test_the_least_and_the_greatest_draw(c, monkeypatch):
    """Near the mode and the antipode a sample keeps its distance and its norm, and has a finite gradient."""
    for u in (0.0, 1 - 1e-6, 1 - 2**-24):
        monkeypatch.setattr(torch, "rand", lambda shape, u=u, **kwargs: torch.full(shape, u, **kwargs))
        concentration = torch.tensor(c, dtype=torch.float32, requires_grad=True)
        x = hdist.VonMisesFisher(Z_AXIS.float(), concentration).rsample()
        with mp.workdps(30):
            u = torch.tensor(u, dtype=torch.float32).item()
            cosine = lambda c, u=u: 1 + mp.log1p(u * mp.expm1(-2 * c)) / c  # noqa: E731
            at = mp.mpf(concentration.item())
            lengths = [float(mp.sqrt(2 * (1 + sign * cosine(at)))) for sign in (-1, 1)]
            slope = float(mp.diff(cosine, at))
        for end, expected in zip((Z_AXIS.float(), -Z_AXIS.float()), lengths, strict=True):
            assert abs((x - end).norm() - expected) <= 1e-3 * expected + 1e-6
        assert abs(x.norm() - 1) < 8 * torch.finfo(x.dtype).eps
        found, rest = (torch.autograd.grad(part, concentration, retain_graph=True)[0] for part in (x[2], x.sum()))
        assert found.item() == pytest.approx(slope, rel=1e-3, abs=1e-6)
        assert rest.isfinite()


@pytest.mark.parametrize("c", [1e-3, 0.4, 3.0, 300.0])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_power_spherical_samples(n, c):
    loc = torch.full((n + 1,), (n + 1) ** -0.5)
    x = hdist.PowerSpherical(loc, c).sample((20_000,))
    assert_follows((1 + x @ loc) / 2, stats.beta(c + n / 2, n / 2).cdf)
    if n == 2:
        assert_follows(cosines(hdist.PowerSpherical(loc, c))[1], stats.uniform(-math.pi, 2 * math.pi).cdf)


@pytest.mark.parametrize("c", [1e-3, 0.4, 3.0, 300.0])
def test_rotation_fisher_samples(c):
    d = hdist.RotationFisher(TURNED, c)
    turn = G.bind(SO3).log(d.loc, d.sample((20_000,)))
    t = np.linspace(0, math.pi, 200_001)
    cdf = np.cumsum(np.exp(2 * c * (np.cos(t) - 1)) * (1 - np.cos(t)))
    assert_follows(turn.norm(dim=-1), lambda angle: np.interp(angle, t, cdf / cdf[-1]))
    assert_follows(turn[:, 0] / turn.norm(dim=-1), stats.uniform(-1, 2).cdf)  # Archimedes


RADIAL = [(n, s, k) for n, s, k in [(1, 0.7, 1.0), (2, 0.05, 4.0), (2, 2.0, 1.0), (3, 1.0, 0.25), (9, 0.5, 2.0)]]


@pytest.mark.parametrize(("n", "s", "k"), RADIAL)
@pytest.mark.parametrize("family", [hdist.RiemannianNormal, hdist.UniformBall])
def test_radii_and_directions(family, n, s, k):
    M = lorentz(k)
    loc = G.exp0(M, torch.linspace(-0.5, 0.7, n))
    v = G.log_at(M, loc, family(loc, s, M).sample((20_000,)))
    end = s if family is hdist.UniformBall else (n - 1) * s * s / k**0.5 + 12 * s
    r = np.linspace(0, end, 200_001)
    density = np.exp(-((r / s) ** 2) / 2) if family is hdist.RiemannianNormal else np.ones_like(r)
    density = density * (np.sinh(r / k**0.5) / np.sinh(end / k**0.5)) ** (n - 1)
    cdf = integrate.cumulative_trapezoid(density, r, initial=0.0)
    assert_follows(v.norm(dim=-1), lambda radius: np.interp(radius, r, cdf / cdf[-1]))
    if n == 3:
        assert_follows(v[:, 1] / v.norm(dim=-1), stats.uniform(-1, 2).cdf)


# Gradients of samples


@pytest.mark.parametrize(
    "make",
    [
        lambda a: hdist.VonMisesFisher(POLE, a),
        *[lambda a, n=n: hdist.PowerSpherical(torch.eye(n + 1)[0], a) for n in (1, 2, 3, 6)],
        lambda a: hdist.RotationFisher(TURNED, a),
        *[lambda a, n=n: hdist.RiemannianNormal(G.origin(lorentz(2.0), n), a, lorentz(2.0)) for n in (1, 3)],
        *[lambda a, n=n: hdist.UniformBall(G.origin(lorentz(2.0), n), a, lorentz(2.0)) for n in (1, 3)],
    ],
)
@pytest.mark.parametrize("size", [0.01, 1.3, 6.0])
def test_samples_move_as_their_gradients_say(make, size):
    """With the noise fixed, a sample is a smooth function of the argument; the law of samples is tested above."""

    def sample(log_size):
        pyro.set_rng_seed(3)
        return make(log_size.exp()).rsample((6,))

    assert torch.autograd.gradcheck(sample, torch.tensor(math.log(size), requires_grad=True), atol=1e-6, rtol=1e-5)


def test_gradients_to_k():
    def sample(k, family):
        pyro.set_rng_seed(3)
        M = ph.manifolds.Lorentz()
        M.k = k
        d = family(G.origin(M, 3), torch.tensor(0.8), M)
        return d.rsample((4,)), d.log_prob(G.exp0(M, torch.tensor([0.2, 0.1, 0.0])))

    for family in (hdist.RiemannianNormal, hdist.UniformBall):
        assert torch.autograd.gradcheck(lambda k, f=family: sample(k, f), torch.tensor(2.0, requires_grad=True))


@pytest.mark.parametrize("make", [hdist.VonMisesFisher, hdist.PowerSpherical])
@pytest.mark.parametrize("loc", [Z_AXIS, torch.eye(3, dtype=torch.float64)[0], POLE])
def test_samples_follow_loc(make, loc):
    """E[x] = a loc, so its derivative along a tangent vector u is a u: also where the frame of the sampler jumps."""
    raw = loc.clone().requires_grad_()
    x = make(raw / raw.norm(), 3.0).rsample((20_000,))
    u = G.bind(SPHERE).frame(loc)[0]
    (slope,) = torch.autograd.grad((x @ u).mean(), raw)
    length = (x.detach() @ loc).mean()
    assert abs(slope @ u - length) < 1e-9  # not random: the rotation moves the mean as a vector
    assert abs(slope @ loc) < 1e-12


def test_rotations_follow_loc():
    turn = torch.zeros(3, requires_grad=True)
    x = hdist.RotationFisher(G.bind(SO3).exp(TURNED, turn), 2.0).rsample((20_000,))
    (slope,) = torch.autograd.grad(x.mean(0)[0, 1], turn)
    # E[X] = a loc exp(turn), whose derivative is a loc hat(e_i).
    length = (x.detach() * TURNED).sum((-2, -1)).mean() / 3
    expected = length * torch.stack([TURNED[0, 2], 0 * TURNED[0, 0], -TURNED[0, 0]])
    assert torch.allclose(slope, expected, atol=0.03)


# Riemannian normal


@pytest.mark.parametrize("n", [2, 3, 5, 16, 64])
@pytest.mark.parametrize("s", [0.01, 0.1, 1.0, 2.0, 5.0])
def test_normaliser_of_the_riemannian_normal(n, s):
    """To 1e-12 of mpmath in log Z, or of its rounding where log Z is large; k = 4."""
    M = lorentz(4.0)
    o = G.origin(M, n)
    found = -float(hdist.RiemannianNormal(o, 2 * s, M).log_prob(o.clone()))
    with mp.workdps(25):
        s = mp.mpf(s)
        peak = mp.findroot(lambda r: r * mp.tanh(r) - (n - 1) * s * s, max(s * mp.sqrt(n - 1), (n - 1) * s * s))
        log_density = lambda r: -r * r / (2 * s * s) + (n - 1) * mp.log(2 * mp.sinh(r))  # noqa: E731
        top = log_density(peak)
        edges = [peak + 2 * j * s for j in range(-6, 7) if peak + 2 * j * s > 0]
        mass = mp.quad(lambda r: mp.exp(log_density(r) - top), [mp.mpf(10) ** -30, *edges])
        expected = float(top + mp.log(2 * mass * 2 * mp.pi ** (n / mp.mpf(2)) / mp.gamma(n / mp.mpf(2))))
    assert abs(found - expected) <= 1e-12 + 4 * torch.finfo(torch.float64).eps * abs(expected)


def test_moments_are_derivatives_of_the_normaliser():
    """d log Z / ds = E[r^2] / s^3, in both dtypes; in the plane Z has a closed form, whose gradients are known."""
    for dtype in (torch.float64, torch.float32):
        s, k = (torch.tensor(value, dtype=dtype, requires_grad=True) for value in (0.8, 3.0))
        M = ph.manifolds.Lorentz()
        M.k = k
        o = G.origin(M, 2, dtype=dtype)
        found = -hdist.RiemannianNormal(o, s, M).log_prob(o.clone())
        q = s / k.sqrt()
        closed = math.log(2 * math.pi * math.sqrt(math.pi / 2)) + (k.sqrt() * s).log() + q * q / 2
        closed = closed + torch.erf(q / 2**0.5).log()
        wanted = torch.autograd.grad(closed, (s, k))
        for a, b in zip(torch.autograd.grad(found, (s, k), retain_graph=True), wanted, strict=True):
            assert torch.allclose(a, b, rtol=64 * torch.finfo(dtype).eps)
        entropy = hdist.RiemannianNormal(o, s, M).expand([3]).entropy()
        assert torch.allclose(entropy, (closed + s * wanted[0] / 2).expand(3), rtol=64 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(("n", "s"), [(2, 300.0), (3, 1.0), (1001, 0.1)])
def test_volumes_of_balls(n, s):
    """To 1e-12 of mpmath in the logarithm, or of its rounding; k = 4."""
    M = lorentz(4.0)
    found = float(hdist.UniformBall(G.origin(M, n), 2 * s, M).entropy())
    with mp.workdps(25):
        edges = [max(s - 10 * j * mp.tanh(s) / (n - 1), 0) for j in range(6, -1, -1)]
        share = mp.quad(lambda r: (mp.sinh(r) / mp.sinh(s)) ** (n - 1), edges)
        area = 2 * mp.pi ** (n / mp.mpf(2)) / mp.gamma(n / mp.mpf(2)) * (2 * mp.sinh(s)) ** (n - 1)
        expected = float(mp.log(area * 2 * share))
    assert abs(found - expected) <= 1e-12 + 4 * torch.finfo(torch.float64).eps * abs(expected)


def test_flat_limits():
    """As k grows the law becomes the normal, and the ball that of R^n; in Euclidean space they are these."""
    x = torch.tensor([0.3, -0.5, 0.1])
    normal = dist.Normal(torch.zeros(3), 0.7).to_event(1)
    ball = -math.log(4 * math.pi / 3 * 0.7**3)
    for M in (lorentz(1e16), geoopt.Euclidean(1)):
        o, y = G.origin(M, 3, dtype=torch.float64), G.exp0(M, x)
        assert torch.allclose(hdist.RiemannianNormal(o, 0.7, M).log_prob(y), normal.log_prob(x), atol=1e-12)
        assert abs(hdist.UniformBall(o, 0.7, M).log_prob(y) - ball) < 1e-12


def test_the_ball_of_poincare_is_that_of_the_hyperboloid():
    """Densities with respect to volume agree at points of the same tangent coordinates."""
    v, hyperboloid, disc = torch.tensor([0.4, -0.9]), lorentz(2.0), geoopt.PoincareBall(torch.tensor(0.5))
    for family in (hdist.RiemannianNormal, hdist.UniformBall):
        a, b = (family(G.exp0(M, v / 3), 1.3, M).log_prob(G.exp0(M, v)) for M in (hyperboloid, disc))
        assert abs(a - b) < 1e-12


def test_outside_of_the_ball():
    M = lorentz(4.0)
    o = G.origin(M, 2)
    d = hdist.UniformBall(o, 1.5, M)
    x = G.exp0(M, torch.tensor([[1.4999, 0.0], [1.5, 0.0], [0.0, 1.5001]]))
    volume = 2 * math.pi * 4 * (math.cosh(0.75) - 1)
    assert torch.allclose(d.log_prob(x).exp() * volume, torch.tensor([1.0, 1.0, 0.0]))
    assert torch.allclose(d.entropy().exp(), torch.tensor(volume))
    far = hdist.UniformBall(G.origin(lorentz(), 9).float(), 8.0)
    assert far.log_prob(far.sample((20_000,)).clone()).isfinite().all()  # rounded coordinates


@pytest.mark.parametrize(
    ("M", "away", "radius", "dtype", "beyond"),
    [
        (lorentz(), 0.0, 14.0, torch.float32, 1e-5),  # from the origin distances keep their digits
        (lorentz(4.0), 0.0, 60.0, torch.float64, 1e-14),
        (lorentz(), 8.0, 1.0, torch.float32, 0.05),
        (lorentz(0.25), 7.0, 0.01, torch.float64, 1e-6),
        (geoopt.PoincareBall(), 3.0, 0.5, torch.float32, 1e-3),
        (geoopt.PoincareBall(), 15.0, 1.0, torch.float64, 1e-6),
        (geoopt.Euclidean(1), 1e3, 1e-3, torch.float32, 3.0),
    ],
)
def test_the_boundary_of_the_ball_is_as_sharp_as_coordinates_are(M, away, radius, dtype, beyond):
    u = torch.randn(5000, 2, dtype=dtype)
    u = radius * u / u.norm(dim=-1, keepdim=True)
    loc = G.exp0(M, torch.tensor([0.6 * away, 0.8 * away], dtype=dtype))
    d = hdist.UniformBall(loc, radius, M)
    assert d.log_prob(G.exp_at(M, loc, u)).isfinite().all()
    assert (d.log_prob(G.exp_at(M, loc, (1 + beyond) * u)) == -math.inf).all()


# Divergences


@pytest.mark.parametrize("c", [1e-4, 0.9, 4.0, 50.0])
def test_divergences(c):
    x, area = sphere_nodes()
    flat, other = uniform(), hdist.VonMisesFisher(Z_AXIS, 5.0)
    pairs = [(hdist.VonMisesFisher(POLE, c), q) for q in (flat, other)]
    pairs.append((hdist.PowerSpherical(POLE, max(4.0, c)), flat))  # p log p is smooth enough at the antipode
    x_so3, volume = rotation_nodes()
    turned = [(hdist.RotationFisher(TURNED, min(c, 2.0)), uniform(SO3, None))]
    for (p, q), points, weights in [(pair, x, area) for pair in pairs] + [(pair, x_so3, volume) for pair in turned]:
        log_ratio = p.log_prob(points) - q.log_prob(points)
        expected = float((p.log_prob(points).exp() * log_ratio * weights).sum())
        assert abs(kl_divergence(p, q) - expected) < 1e-12 * max(1, expected)
        entropy = -float((p.log_prob(points).exp() * p.log_prob(points) * weights).sum())
        assert abs(p.entropy() - entropy) < 1e-12 * max(1, abs(entropy))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_entropy_of_power_sphericals(n):
    """By quadrature over the angle to loc, as is the divergence from the uniform distribution."""
    z, w = (torch.as_tensor(each) for each in np.polynomial.legendre.leggauss(80))
    angle = math.pi / 2 * (1 + z)
    area = 2 * math.pi ** (n / 2) / math.gamma(n / 2) * angle.sin() ** (n - 1) * w * math.pi / 2
    loc, other = torch.eye(n + 1)[:2]
    points = angle.cos()[:, None] * loc + angle.sin()[:, None] * other
    for c in (0.9, 4.0, 50.0):
        d = hdist.PowerSpherical(loc, c)
        log_p = d.log_prob(points)
        entropy, uniform_entropy = -(log_p.exp() * log_p * area).sum(), hdist.Uniform(SPHERE, n).entropy()
        assert abs(d.entropy() - entropy) < 1e-9
        assert abs(kl_divergence(d, hdist.Uniform(SPHERE, n)) - (uniform_entropy - entropy)) < 1e-9


def test_divergences_vanish_with_the_concentration():
    """Quadratically, without cancellation: c^2 / 6 for von Mises-Fisher."""
    for dtype in (torch.float64, torch.float32):
        d = hdist.VonMisesFisher(Z_AXIS.to(dtype), 1e-5)
        assert torch.allclose(kl_divergence(d, uniform()) / 1e-10, torch.tensor(1 / 6, dtype=dtype))
        for n in (1, 2, 3, 30, 301):
            loc, c = torch.eye(n + 1, dtype=dtype)[0], torch.tensor(0.03, dtype=dtype)
            found = float(kl_divergence(hdist.PowerSpherical(loc, c), uniform(dim=n)))
            with mp.workdps(40):
                rise = lambda c, n=n: mp.loggamma(c + n) - mp.loggamma(c + mp.mpf(n) / 2)  # noqa: E731
                a = mp.mpf(c.item())
                exact = float(rise(a) - rise(0) - a * (mp.psi(0, a + n) - mp.psi(0, a + mp.mpf(n) / 2)))
            assert abs(found - exact) <= 4 * torch.finfo(dtype).eps * exact + 1e-12
    d = hdist.VonMisesFisher(Z_AXIS, 2.0)
    assert abs(kl_divergence(d, d.expand([2]))).max() < 1e-15


def test_divergences_of_products_add():
    three = geoopt.ProductManifold((SPHERE, 3), (SO3, (3, 3)))
    p = hdist.ProductDistribution(three, [hdist.VonMisesFisher(POLE, 2.0), hdist.RotationFisher(TURNED, torch.ones(4))])
    q = hdist.ProductDistribution(three, [uniform(), uniform(SO3, None)])
    expected = p.factors[0].divergence_from_uniform() + p.factors[1].divergence_from_uniform()
    assert torch.allclose(kl_divergence(p, q), expected)
    assert torch.allclose(kl_divergence(p, uniform(three, None)), expected)
    assert kl_divergence(uniform(batch_shape=(3,)), uniform()).tolist() == [0.0] * 3
    with pytest.raises(ValueError, match="one manifold"):
        kl_divergence(p.factors[0], uniform(SO3, None))
    with pytest.raises(ValueError, match="one manifold"):
        kl_divergence(uniform(), uniform(SPHERE, 3))


# All of them in Pyro

BASES = {
    "uniform-s2": uniform,
    "uniform-torus": lambda: uniform(TORUS, None),
    "uniform-so3": lambda: uniform(SO3, None),
    "uniform-product": lambda: uniform(COMPACT, None),
    "product": mixed,
    "vmf": lambda: hdist.VonMisesFisher(POLE, 3.0),
    "power-spherical": lambda: hdist.PowerSpherical(torch.eye(4)[2], torch.tensor(3.0)),
    "rotation-fisher": lambda: hdist.RotationFisher(TURNED, 2.0),
    "riemannian-normal": lambda: hdist.RiemannianNormal(G.origin(lorentz(4.0), 3), 0.7, lorentz(4.0)),
    "uniform-ball": lambda: hdist.UniformBall(G.origin(lorentz(4.0), 3), 0.7, lorentz(4.0)),
}
each_base = pytest.mark.parametrize("make", BASES.values(), ids=list(BASES))


@each_base
def test_shapes_expansion_copies(make):
    d = pickle.loads(pickle.dumps(make()))
    e = d.expand([4, 3])
    assert type(e) is type(d)
    assert (e.batch_shape, e.event_shape) == ((4, 3), d.event_shape)
    assert (e.to_event(1).batch_shape, e.expand([2, 4, 3]).batch_shape) == ((4,), (2, 4, 3))
    x = e.sample((5,))
    assert x.shape == (5, 4, 3, *d.event_shape)
    assert len(x.reshape(60, -1).unique(dim=0)) == 60
    assert e.log_prob(x).shape == d.log_prob(x).shape == (5, 4, 3)
    assert torch.allclose(e.log_prob(x), d.log_prob(x))
    assert e.log_prob(x[0, 0, 0]).shape == (4, 3)
    assert type(d).__name__ in repr(d)


@each_base
def test_centres_are_copies_of_loc(make):
    d = make()
    for name in ("mean", "mode") if hasattr(d, "loc") else ():
        with contextlib.suppress(NotImplementedError):
            centre = getattr(d, name)
            assert torch.equal(centre, d.loc)
            assert centre.data_ptr() != d.loc.data_ptr()
            assert name == "mean" or (d.log_prob(centre) >= d.log_prob(d.sample((100,)))).all()


@each_base
def test_plates_and_validation(make):
    def model():
        with pyro.plate("draws", 5):
            return pyro.sample("x", make())

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob"].shape == (5,)
    with pytest.raises(ValueError, match="is not on"):
        make().log_prob(1.1 * trace.nodes["x"]["value"] + 4)
    with pyro.validation_enabled(False):  # as in MCMC, which must not take NaN for a point
        assert not make().log_prob(torch.nan * trace.nodes["x"]["value"]).isfinite().any()


M = lorentz(2.0)
#: Families with a location and a size: a location, and a starting point some way off.
AROUND = {
    "vmf": (hdist.VonMisesFisher, POLE, torch.tensor([0.8, 0.6, 0.0], dtype=torch.float64)),
    "power-spherical": (hdist.PowerSpherical, POLE, torch.tensor([0.8, 0.6, 0.0], dtype=torch.float64)),
    "rotation-fisher": (hdist.RotationFisher, TURNED, torch.eye(3, dtype=torch.float64)),
    "riemannian-normal": (partial(hdist.RiemannianNormal, manifold=M), point(2.0, 0.3, 0.1), point(2.0, -0.3, 0.2)),
    "uniform-ball": (partial(hdist.UniformBall, manifold=M), point(2.0, 0.3, 0.1), point(2.0, -0.3, 0.2)),
}
each_family = pytest.mark.parametrize(("family", "loc", "start"), AROUND.values(), ids=list(AROUND))


@each_family
def test_arguments_broadcast_and_keep_their_gradients(family, loc, start):
    size = torch.tensor([[0.5], [1.0], [2.0]], requires_grad=True)
    locs = torch.stack([loc, loc]).requires_grad_()
    d = family(locs, size).expand([4, 3, 2])
    name = list(d.arg_constraints)[1]
    assert d.loc.shape == (4, 3, 2, *loc.shape)
    assert getattr(d, name).shape == (4, 3, 2)
    assert type(d).infer_shapes(loc=locs.shape, **{name: size.shape}) == ((3, 2), loc.shape)
    assert type(d).infer_shapes(loc=loc.shape, **{name: ()}) == ((), loc.shape)
    x = d.rsample()
    assert x.shape == (4, 3, 2, *loc.shape)
    by_loc, by_size = torch.autograd.grad(x[..., 0].square().sum(), (locs, size))
    assert by_loc.count_nonzero() > 0
    assert by_size.count_nonzero() == 3
    assert torch.autograd.grad(d.log_prob(x.detach()).sum(), size)[0].count_nonzero() == 3
    single = family(loc, size[1].item())
    assert torch.allclose(d.log_prob(x)[:, 1], single.log_prob(x[:, 1].clone()), atol=1e-9)

    def score(size):
        return family(loc, size).log_prob(start)

    assert torch.allclose(torch.vmap(score)(size), score(size))
    assert torch.allclose(torch.func.jacfwd(score)(size), torch.func.jacrev(score)(size))


@each_family
def test_float32_agrees_with_float64(family, loc, start):
    d, single = family(loc, 0.8), family(loc.float(), 0.8)
    x = single.sample((50,))
    assert (x.dtype, single.log_prob(x).dtype) == (torch.float32, torch.float32)
    pyro.enable_validation(False)  # rounded points
    assert torch.allclose(d.log_prob(x.double()), single.log_prob(x).double(), atol=1e-5)


@pytest.mark.parametrize("name", [name for name in AROUND if "ball" not in name])  # flat where it is finite
def test_a_location_is_learned(name):
    """By any optimiser, from a pyro.param with the support as constraint."""
    family, loc, start = AROUND[name]
    data = family(loc, 0.5 if "normal" in name else 20.0).sample((200,))

    def model():
        at = pyro.param("loc", start, constraint=family(loc, 1.0).support)
        size = pyro.param("size", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", 200):
            pyro.sample("x", family(at, size), obs=data)

    svi = pyro.infer.SVI(model, lambda: None, pyro.optim.Adam({"lr": 0.2}), pyro.infer.Trace_ELBO())
    for _ in range(40):
        svi.step()
    support = family(loc, 1.0).support
    assert support.check(pyro.param("loc"))
    assert G.distance(support.manifold, pyro.param("loc").detach(), loc) < 0.15


def test_base_of_a_flow_and_guide_of_a_site():
    """A flow from a Riemannian normal scores its own samples as stored points; a guide of it trains with its k."""
    flow = shaken(ph.flows.coupling_flow(2, 2, hidden_dims=[8], manifold=M), 0.4)
    base = hdist.RiemannianNormal(G.origin(M, 2), 0.6, M)
    pushed = dist.TransformedDistribution(base, [flow])
    x = pushed.rsample((6,))
    assert torch.allclose(pushed.log_prob(x), pushed.log_prob(x.clone()), atol=1e-9)

    learned = ph.manifolds.Lorentz(torch.tensor(2.0), learnable=True)
    o = G.origin(learned, 2)
    d = hdist.RiemannianNormal(o, 0.6, learned)
    x = d.rsample((3,))
    (grad,) = torch.autograd.grad(
        (d.log_prob(x) - hdist.WrappedNormal(o, 1.0, learned).log_prob(x)).sum(), learned.k_unconstrained
    )
    assert grad.isfinite()
    assert grad != 0


def test_each_member_has_its_own_k():
    many = geoopt.Lorentz(torch.tensor([0.5, 4.0]))
    for family in (hdist.RiemannianNormal, hdist.UniformBall):
        d = family(G.origin(many, 2), 0.7, many)
        x = d.sample((5,))
        for i, k in enumerate([0.5, 4.0]):
            assert torch.allclose(
                d.log_prob(x)[:, i], family(G.origin(lorentz(k), 2), 0.7, lorentz(k)).log_prob(x[:, i].clone())
            )


def test_far_samples_are_scored_and_overflow_is_an_error():
    """Own samples by their tangent vectors: around r = 50, where stored points have lost all digits."""
    d = hdist.RiemannianNormal(G.origin(lorentz(), 3), 5.0)
    entropy = -d.log_prob(d.rsample((4000,)))
    assert abs(entropy.mean() - 103.4) < 1
    with pytest.raises(ValueError, match="scale"):
        hdist.RiemannianNormal(G.origin(lorentz(), 30), 8.0).sample()


def of_one_factor(manifold, size, factor):
    return lambda: hdist.ProductDistribution(geoopt.ProductManifold((manifold, size)), [factor()])


def normal():
    return dist.Normal(torch.zeros(3), 1.0).to_event(1)


def angles():
    return dist.VonMises(torch.zeros(3), 1.0).to_event(1)


def directions():
    return dist.ProjectedNormal(torch.ones(3))


FACTOR = ["factor 0", "Real"]
BAD = {
    "no dim": (lambda: hdist.Uniform(SPHERE), ValueError, ["dim", "n = 2"]),
    "dim 3 of 2": (lambda: hdist.Uniform(TORUS, 3), ValueError, ["dim = 3", "2 dimensions"]),
    "dim 0": (lambda: hdist.Uniform(SPHERE, 0), ValueError, ["dim = 0", "at least 1"]),
    "no volume": (lambda: hdist.Uniform(lorentz(), 2), TypeError, ["Lorentz", "infinite volume", "UniformBall"]),
    "no volume of a factor": (lambda: hdist.Uniform(MIXED), TypeError, ["infinite volume"]),
    "no product": (lambda: hdist.ProductDistribution(SPHERE, [uniform()]), TypeError, ["Sphere", "product"]),
    "1 of 4": (lambda: hdist.ProductDistribution(MIXED, [uniform()]), ValueError, ["1 distributions", "4 factors"]),
    "a number": (of_one_factor(SPHERE, 3, lambda: 3.0), TypeError, ["factor 0", "3.0"]),
    "a larger sphere": (of_one_factor(SPHERE, 3, lambda: uniform(SPHERE, 3)), ValueError, ["(4,)", "(3,)"]),
    "a sphere": (of_one_factor(lorentz(), 3, uniform), ValueError, ["Sphere", "Lorentz(k=1)"]),
    "vectors on H": (of_one_factor(lorentz(), 3, normal), ValueError, [*FACTOR, "Lorentz(k=1)"]),
    "vectors on S": (of_one_factor(SPHERE, 3, normal), ValueError, [*FACTOR, "Sphere"]),
    "vectors on T": (of_one_factor(ph.manifolds.Torus(3), 3, normal), ValueError, [*FACTOR, "Torus"]),
    "angles on H": (of_one_factor(geoopt.PoincareBall(), 3, angles), ValueError, [*FACTOR, "PoincareBall"]),
    "angles on S": (of_one_factor(SPHERE, 3, angles), ValueError, [*FACTOR, "Sphere"]),
    "angles on R": (of_one_factor(geoopt.Euclidean(1), 3, angles), ValueError, [*FACTOR, "Euclidean"]),
    "directions on H": (of_one_factor(lorentz(), 3, directions), ValueError, ["factor 0", "Sphere", "Lorentz(k=1)"]),
    "directions on T": (of_one_factor(ph.manifolds.Torus(3), 3, directions), ValueError, ["factor 0", "Torus"]),
    "directions on R": (of_one_factor(geoopt.Euclidean(1), 3, directions), ValueError, ["factor 0", "Euclidean"]),
    "counts": (
        of_one_factor(geoopt.Euclidean(1), 2, lambda: dist.Poisson(torch.ones(2)).to_event(1)),
        ValueError,
        ["factor 0", "Integer"],
    ),
    "concentration 0": (lambda: hdist.VonMisesFisher(POLE, 0.0), ValueError, ["concentration = 0", "> 0", "Uniform"]),
    "loc off": (lambda: hdist.PowerSpherical(2 * POLE, 1.0), ValueError, ["loc is not on Sphere", "norm 2"]),
    "vmf on S^3": (lambda: hdist.VonMisesFisher(torch.eye(4)[0], 1.0), ValueError, ["(4,)", "PowerSpherical"]),
    "a vector as rotation": (lambda: hdist.RotationFisher(POLE, 1.0), ValueError, ["(3,)", "(*, 3, 3)"]),
    "no rotation": (lambda: hdist.RotationFisher(2 * TURNED, 1.0), ValueError, ["loc is not on Rotations"]),
    "dtypes": (lambda: hdist.RotationFisher(TURNED.float(), torch.ones(())), TypeError, ["mixed dtypes"]),
    "scale -1": (lambda: hdist.RiemannianNormal(point(1.0, 0.2), -1.0), ValueError, ["scale = -1", "softplus"]),
    "spd": (
        lambda: hdist.RiemannianNormal(torch.eye(2), 1.0, geoopt.SymmetricPositiveDefinite()),
        TypeError,
        ["constant curvature", "WrappedNormal"],
    ),
    "sphere": (lambda: hdist.UniformBall(POLE, 1.0, SPHERE), TypeError, ["Sphere"]),
    "batches": (
        lambda: hdist.UniformBall(point(1.0, 0.2).expand(2, 2), torch.ones(3)),
        ValueError,
        ["loc (2,)", "radius (3,)", "broadcast"],
    ),
    "value": (lambda: hdist.VonMisesFisher(POLE, 1.0).log_prob(2 * POLE), ValueError, ["value is not on Sphere"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    make, error, parts = BAD[name]
    with pytest.raises(error) as caught:
        make()
    assert all(part in str(caught.value) for part in parts), caught.value
