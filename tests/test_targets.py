"""Density targets: mass one, samples that follow, entropies in closed form, the recipes of the papers, the tree."""

import contextlib
import math

import geoopt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from pyro_hyperbolic import datasets
from pyro_hyperbolic.testing import NotChecked, density_laws, samples_follow_the_density, total_mass_is_one

G, M = ph.geometry, geoopt.Lorentz()


def target(name):
    return datasets.density_target(name, torch.float64)


def within_five_errors(values, expected):
    """The mean of draws is what it should be: one seed in a million fails."""
    assert abs(values.mean() - expected) <= 5 * values.std() / len(values) ** 0.5


@pytest.mark.parametrize("name", datasets.DENSITY_TARGETS)
def test_mass_one_and_samples_that_follow(name):
    """For the tree the quadrature of the kit says itself that it knows nothing: see below."""
    law = target(name)
    assert law.support.check(law.sample((2, 5))).shape == law.log_prob(law.sample((2, 5))).shape == (2, 5)
    with pytest.warns(NotChecked) if name == "tree" else contextlib.nullcontext():
        total_mass_is_one(law, resolution=200 if name == "spirals" else 400)
        samples_follow_the_density(law)


@pytest.mark.parametrize(
    ("name", "entropy"),
    [
        # The plane's entropy plus the mean log-volume, which depends on the radius alone; Rayleigh's law at scale s.
        ("one_wrapped", (1 + math.log(2 * math.pi * 0.75**2), lambda r: r / 0.75**2 * math.exp(-(r**2) / 1.125), 9.0)),
        # One of the outer four, at distance 3, and the inner: numerically the same as that of each on its own.
        ("checkerboard", (math.log(0.5), None, 0.25)),
        ("big_checkerboard", (math.log(18.0), None, 1.5)),
    ],
)
def test_entropy(name, entropy):
    flat, radial, size = entropy

    def log_stretch(r):
        return math.log(math.sinh(r) / r) if r > 0 else 0.0

    if radial is not None:
        mean_stretch = integrate.quad(lambda r: radial(r) * log_stretch(r), 0, size)[0]
    else:  # by symmetry, one square of each of the three kinds of black squares, at (0, 0), (1, 1) and (0, 2)
        squares = [(0, 0, 2), (1, 1, 2), (0, -2, 4)]
        mean_stretch = sum(
            count / 8 * integrate.dblquad(
                lambda y, x: log_stretch(math.hypot(x, y)) / size**2,
                i * size, (i + 1) * size, j * size, (j + 1) * size,
            )[0]
            for i, j, count in squares
        )  # fmt: skip
    pyro.set_rng_seed(0)
    law = target(name)
    within_five_errors(-law.log_prob(law.sample((50_000,))), flat + mean_stretch)


# ---- the recipes of the papers, drawn with numpy, against densities on cells ----


def board(u, v, coin):
    """Bose et al.: x1 = 4U - 2, x2 = U - 2 Bernoulli + floor(x1) mod 2, over 4."""
    first = 4 * u - 2
    return np.stack([first, v - 2 * coin + np.floor(first) % 2], -1) / 4


def test_checkerboard_is_that_of_the_paper():
    generator = np.random.default_rng(0)
    x = torch.tensor(board(generator.random(1000), generator.random(1000), generator.integers(0, 2, 1000)))
    planar = datasets.Checkerboard(torch.tensor(0.25, dtype=torch.float64))
    torch.testing.assert_close(planar.log_prob(x), torch.full((1000,), math.log(2.0), dtype=torch.float64))
    # The density of half of the square is 2: nothing is left for the other squares, or outside.
    middles = (torch.arange(60, dtype=torch.float64) + 0.5) / 40 - 0.75
    grid = torch.cartesian_prod(middles, middles)
    assert planar.log_prob(grid).exp().sum() / 40**2 == pytest.approx(1.0, abs=1e-12)


def test_spirals_follow_the_formula_of_the_paper():
    """The density against the integral of the normal's over m, U' and U'', a sum over a grid of three dimensions."""
    m, weight = np.polynomial.legendre.leggauss(400)
    m, weight = 1.5 * np.pi * (m + 1), 1.5 * np.pi * weight * 2 / (9 * np.pi**2) * 1.5 * np.pi * (m + 1)
    u, of_u = np.polynomial.legendre.leggauss(8)
    u, of_u = (u + 1) / 2, of_u / 2
    first = (-np.cos(m) * m)[:, None, None] + 0.5 * u[None, :, None] + 0 * u
    second = (np.sin(m) * m)[:, None, None] + 0.5 * u[None, None, :] + 0 * u[:, None]
    weights = weight[:, None, None] * of_u[:, None] * of_u
    x = torch.tensor([[0.0, 0.0], [0.2, 0.1], [-0.44, 0.02], [0.3, -0.3], [0.05, 0.6]], dtype=torch.float64)
    found = datasets.TwoSpirals(torch.float64).log_prob(x).exp()
    for point, value in zip(x.numpy(), found.numpy(), strict=True):
        density = 0.0
        for sign in (1, -1):
            squares = (point[0] - sign * first / 20) ** 2 + (point[1] - sign * second / 20) ** 2
            density += 0.5 * (weights * np.exp(-squares / (2 * 0.025**2))).sum() / (2 * np.pi * 0.025**2)
        assert value == pytest.approx(density, rel=1e-6)


def test_spirals_integrate_to_one_in_the_plane():
    side = torch.linspace(-0.8, 0.8, 200, dtype=torch.float64)
    x = torch.cartesian_prod(side, side)
    mass = datasets.TwoSpirals(torch.float64).log_prob(x).exp().sum() * (side[1] - side[0]) ** 2
    assert mass.item() == pytest.approx(1.0, abs=1e-9)


def test_spirals_are_finite_far_out():
    far = datasets.TwoSpirals(torch.float64).log_prob(torch.tensor([5.0, -7.0], dtype=torch.float64))
    # Not quite half of the square of the distance to the nearest point, in standard deviations of the noise.
    assert -0.5 * (8.7 / 0.025) ** 2 < far < -0.5 * (8.0 / 0.025) ** 2


@pytest.mark.parametrize(
    ("name", "centre", "peak"),
    [
        ("mixture", [1 / math.sqrt(2), 0.0], 0.25 / (2 * math.pi * (0.125 / math.sqrt(2)) ** 2)),
        ("five_gaussians", [0.0, -3.0], 0.2 / (2 * math.pi * 0.25)),
        ("wrapped", [-1.0, 1.0], 1 / (2 * math.pi * 0.25)),
        ("one_wrapped", [-1.0, 1.0], 1 / (2 * math.pi * 0.75**2)),
    ],
)
def test_peaks(name, centre, peak):
    """At a centre there is one component, with the density of its normal over the stretch there, if it is pushed."""
    v = torch.tensor(centre, dtype=torch.float64)
    stretch = 1.0 if "wrapped" in name else math.sinh(v.norm()) / v.norm().item()
    assert target(name).log_prob(G.exp0(M, v)).exp().item() == pytest.approx(peak / stretch, rel=1e-6)


def test_wrapped_is_long_along_the_first_axis():
    """By 1 and 1/4: steps of one standard deviation from the mode cost exp(-1/2) each, beside the stretch."""
    v = torch.tensor([[1.0, 0.0], [0.0, 0.25]], dtype=torch.float64)
    loc = G.exp0(M, torch.tensor([-1.0, 1.0], dtype=torch.float64))
    costs = target("wrapped").log_prob(loc) - target("wrapped").log_prob(G.translate(M, loc, G.exp0(M, v)))
    expected = [0.5 + math.log(math.sinh(r) / r) for r in (1.0, 0.25)]
    torch.testing.assert_close(costs, torch.tensor(expected, dtype=torch.float64))


def test_four_wrapped_has_its_long_axes():
    """Along its long axis a component falls off five times slower; at (1.3, 1.3) that is the second, by transport."""
    law = target("four_wrapped")
    for space, along in (((1.3, 1.3), 1), ((-1.3, -1.3), 1), ((-1.3, 1.3), 0), ((1.3, -1.3), 0)):
        loc = torch.tensor([math.sqrt(1 + 2 * 1.3**2), *space], dtype=torch.float64)
        alone = hdist.WrappedNormal(loc, torch.tensor([1.5, 0.3] if along == 0 else [0.3, 1.5]).double())
        step = torch.zeros(2, dtype=torch.float64)
        step[along] = 2.0
        x = G.translate(M, loc, G.exp0(M, torch.stack([step, -step])))
        assert (law.log_prob(x) >= alone.log_prob(x) - math.log(4)).all()
        assert law.log_prob(x).max() <= alone.log_prob(x).max()


# ---- the tree ----


def test_tree_has_equal_edges_that_meet_at_120_degrees():
    nodes, edges = datasets.binary_tree(depth=4, edge_length=1.8)
    assert G.contains(M, nodes).all()
    lengths = G.distance(M, *nodes[edges].unbind(1))
    torch.testing.assert_close(lengths, torch.full((30,), 1.8, dtype=torch.float64), rtol=1e-12, atol=0)
    for node in range(15):
        near = [b if a == node else a for a, b in edges.tolist() if node in (a, b)]
        v = G.log0(M, G.translate(M, nodes[node].expand(len(near), 3), nodes[near], inverse=True)) / 1.8
        cosines = (v @ v.mT)[~torch.eye(len(near), dtype=torch.bool)]
        torch.testing.assert_close(cosines, torch.full_like(cosines, -0.5), rtol=0, atol=1e-9)


def test_tree_never_meets_itself():
    nodes, _ = datasets.binary_tree(depth=6)
    apart = G.distance(M, nodes[:, None], nodes[None])
    others = apart[~torch.eye(len(nodes), dtype=torch.bool)]
    assert others.min() == pytest.approx(1.8)
    assert G.distance(M, nodes, G.origin(M, 2, dtype=torch.float64)).max() == pytest.approx(9.8, abs=0.2)


def mass_by_parts(log_prob, nodes, reach=4.0, rings=60, angles=60):
    """The sum over nodes of integrals of the density times a smooth share of the node, in polar coordinates there."""
    knots, weights = np.polynomial.legendre.leggauss(rings)
    radius = torch.tensor(reach * (knots + 1) / 2)[:, None]
    angle = 2 * math.pi * torch.arange(angles, dtype=torch.float64) / angles
    v = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).reshape(-1, 2)
    cells = (torch.tensor(weights)[:, None] * reach / 2 * radius.sinh() * (2 * math.pi / angles)).expand(-1, angles)
    total = 0.0
    for i, node in enumerate(nodes):
        x = G.translate(M, node.expand(len(v), 3), G.exp0(M, v))
        share = (-2 * G.distance(M, x[:, None], nodes[None]).square()).softmax(-1)[:, i]
        total += (log_prob(x).exp() * share * cells.reshape(-1)).sum().item()
    return total


def test_mass_of_the_tree_is_one():
    nodes, _ = datasets.binary_tree()
    assert mass_by_parts(target("tree").log_prob, nodes) == pytest.approx(1.0, abs=1e-6)


def test_single_precision_loses_little_of_the_tree():
    law = target("tree")
    pyro.set_rng_seed(0)
    x = law.sample((2000,))
    stored = G.exp0(M, G.log0(M, x).float())
    error = (datasets.density_target("tree").log_prob(stored).double() - law.log_prob(x)).abs()
    assert error.mean() < 2e-3


# ---- what the targets are as objects ----


def test_targets_have_the_dtype_asked_for():
    for name in datasets.DENSITY_TARGETS:
        for dtype in (torch.float32, torch.float64):
            law = datasets.density_target(name, dtype)
            x = law.sample((3,))
            assert x.dtype == law.log_prob(x).dtype == dtype
        assert datasets.density_target(name).sample().dtype == torch.get_default_dtype()


def test_there_is_no_such_target():
    with pytest.raises(ValueError, match="name = 'ring', but must be one of wrapped, mixture, spirals"):
        datasets.density_target("ring")
    with pytest.raises(ValueError, match="side"):
        datasets.Checkerboard(-1.0)


class Shifted(datasets.TwoSpirals):
    """Samples are off by the width of the noise: nearly the same picture."""

    def sample(self, sample_shape=()):
        return super().sample(sample_shape) + 0.025


class Doubled(datasets.TwoSpirals):
    """The two arms are added and not averaged."""

    def log_prob(self, value):
        return super().log_prob(value) + math.log(2)


def test_broken_spirals_are_found():
    for broken, law in ((Shifted, samples_follow_the_density), (Doubled, total_mass_is_one)):
        lifted = dist.TransformedDistribution(broken(torch.float64), [hdist.transforms.ExponentialMap(M)])
        with pytest.raises(ph.testing.LawViolation):
            law(lifted)


def test_the_quadrature_of_the_kit_knows_what_it_does_not_know():
    """On rings about one centre the leaves of the tree are too small to find: the error must say so, as it does."""
    mass, error = density_laws.total_mass(target("tree"), resolution=200)
    assert abs(mass - 1) > 0.1
    assert abs(mass - 1) < 5 * error
