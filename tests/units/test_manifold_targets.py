"""Targets on compact manifolds and a product: mass one, entropies by quadrature, samples that follow."""

import math

import geoopt
import numpy as np
import pyro
import pytest
import torch
from scipy.integrate import quad

import pyro_hyperbolic as ph
from pyro_hyperbolic.datasets import MANIFOLD_TARGETS, Board, manifold_target

torch64 = {"dtype": torch.float64}


def gauss(number):
    return (torch.tensor(value) for value in np.polynomial.legendre.leggauss(number))


def angles(number):
    return 2 * math.pi * (torch.arange(number, **torch64) + 0.5) / number - math.pi


def of_sphere(number):
    """Gauss-Legendre in height, trapezoid in longitude, weights of area."""
    z, weights = gauss(number)
    turn, radius = angles(2 * number), (1 - z * z).sqrt()[:, None]
    x = torch.stack([radius * turn.cos(), radius * turn.sin(), z[:, None].expand(-1, 2 * number)], dim=-1)
    return x.reshape(-1, 3), (weights * math.pi / number).repeat_interleave(2 * number)


def of_torus(number):
    turn = angles(number)
    return torch.cartesian_prod(turn, turn), torch.full((number**2,), (2 * math.pi / number) ** 2, **torch64)


def of_rotations(number):
    """Turns about z, y and z: volume is the product of the angles' and of the cosine's in between."""
    z, weights = gauss(number)
    turn = angles(number)

    def about(angle, i, j):
        turns = torch.eye(3, **torch64).repeat(number, 1, 1)
        turns[:, i, i] = turns[:, j, j] = angle.cos()
        turns[:, i, j], turns[:, j, i] = -angle.sin(), angle.sin()
        return turns

    x = about(turn, 0, 1)[:, None, None] @ about(z.acos(), 2, 0)[:, None] @ about(turn, 0, 1)
    cells = weights[:, None].expand(number, number, number) * (2 * math.pi / number) ** 2
    return x.reshape(-1, 3, 3), cells.reshape(-1)


def of_bands(number):
    """Midpoints in height and longitude, of equal areas."""
    turn, z = angles(2 * number), (angles(number) / math.pi)[:, None]
    radius = (1 - z * z).sqrt()
    x = torch.stack([radius * turn.cos(), radius * turn.sin(), z.expand(-1, 2 * number)], dim=-1)
    return x.reshape(-1, 3), torch.full((2 * number**2,), 2 * math.pi / number**2, **torch64)


#: Nodes, and how many: as many in every cell of a board.
QUADRATURE = {
    "sphere-mixture": (of_sphere, 100),
    "sphere-board": (of_bands, 48),
    "torus-board": (of_torus, 48),
    "rotation-mixture": (of_rotations, 32),
}


@pytest.mark.parametrize("name", QUADRATURE)
def test_mass_entropy_and_means(name):
    """By quadrature; the mean of the embedded samples within five standard errors."""
    nodes, number = QUADRATURE[name]
    x, weights = nodes(number)
    target = manifold_target(name, torch.float64)
    log_p = target.log_prob(x)
    mass = weights * log_p.exp()
    assert mass.sum() == pytest.approx(1.0, abs=1e-8)
    assert -(mass * log_p)[mass > 0].sum() == pytest.approx(target.entropy, abs=1e-7)
    pyro.set_rng_seed(0)
    assert_means(target, lambda x: features(target, x), (mass[:, None] * features(target, x)).sum(0))


def features(target, x):
    """Smooth functions on the flat space around the manifold."""
    x = torch.cat([x.cos(), x.sin()], -1) if target.name == "torus-board" else x.flatten(1)
    waves = torch.randn(20, x.size(-1), generator=torch.Generator().manual_seed(1), **torch64)
    return (2 * x @ waves.mT).cos()


def assert_means(target, function, expected, size=20_000):
    x = target.sample(size)
    assert ph.geometry.contains(target.manifold, x).all()
    found = torch.cat([function(x), target.log_prob(x)[:, None]], -1)
    expected = torch.cat([expected, torch.tensor([-target.entropy], **torch64)])
    error = found.std(0) / size**0.5 + 1e-3
    assert ((found.mean(0) - expected).abs() < 5 * error).all()


@pytest.mark.parametrize(("name", "columns", "rows"), [("sphere-board", 8, 4), ("torus-board", 4, 4)])
def test_boards_alternate(name, columns, rows):
    first, second = (math.pi * ((2 * torch.arange(n, **torch64) + 1) / n - 1) for n in (columns, rows))
    x = torch.cartesian_prod(first, second)
    if name == "sphere-board":
        turn, z = x[:, 0], x[:, 1] / math.pi
        radius = (1 - z * z).sqrt()
        x = torch.stack([radius * turn.cos(), radius * turn.sin(), z], dim=-1)
    black = manifold_target(name, torch.float64).log_prob(x).reshape(columns, rows).isfinite()
    assert torch.equal(black, torch.arange(columns)[:, None] % 2 == torch.arange(rows) % 2)


def test_entropy_of_the_product():
    """Components hardly overlap, so it is log 4 and the entropies of the factors, those by quadrature."""
    s, k = 0.5, 20.0
    normal = 0.5 * math.log(2 * math.pi * math.e * s**2)
    stretch = quad(lambda r: r / s**2 * math.exp(-(r**2) / (2 * s**2)) * math.log(math.sinh(r) / r), 1e-9, 10)[0]
    cap = quad(lambda z: -k * math.exp(k * (z - 1)) * (math.log(k / (2 * math.pi)) + k * (z - 1)), -1, 1)[0]
    target = manifold_target("product-mixture", torch.float64)
    assert target.entropy == pytest.approx(3 * normal + stretch + cap + math.log(4), abs=2e-6)
    pyro.set_rng_seed(0)
    assert_means(target, lambda x: x[:, :0], torch.empty(0, **torch64))


def test_factors_of_the_product_depend_on_each_other():
    """The half of the line says in which pair of quadrants the point is."""
    pyro.set_rng_seed(0)
    x = manifold_target("product-mixture", torch.float64).sample(4000)
    assert ((x[:, 6] > 0) == (x[:, 1] * x[:, 2] < 0)).double().mean() > 0.7


def test_targets_are_distributions_in_the_dtype_asked_for():
    for name in MANIFOLD_TARGETS:
        for dtype in (torch.float32, torch.float64):
            target = manifold_target(name, dtype)
            x = target.sample((2, 3))
            assert x.dtype == target.log_prob(x).dtype == dtype
            assert target.log_prob(x).shape == (2, 3)
            assert torch.equal(target.distribution.log_prob(x), target.log_prob(x))
            assert target.distribution.support.check(x).all()
            assert ph.geometry.bind(target.manifold).dim(x.shape) == target.dim


def test_there_is_no_such_target():
    with pytest.raises(ValueError, match=r"ring.*sphere-mixture, sphere-board"):
        manifold_target("ring")
    with pytest.raises(TypeError, match=r"Lorentz.*use one"):
        Board(geoopt.Lorentz(), (4, 4))
    with pytest.raises(TypeError, match="Torus"):
        Board(ph.manifolds.Torus(3), (4, 4))
    with pytest.raises(ValueError, match=r"\(3, 4\).*use 4"):
        Board(geoopt.Sphere(), (3, 4))
    with pytest.raises(ValueError, match=r"value|manifold"):
        Board(geoopt.Sphere(), (8, 4), validate_args=True).log_prob(torch.ones(3))
