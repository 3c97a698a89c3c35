"""Density targets: mass one, samples that follow, the recipes of the papers, the tree."""

import contextlib
import math

import geoopt
import numpy as np
import pyro
import pytest
import torch

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from pyro_hyperbolic import datasets
from pyro_hyperbolic.testing import NotChecked
from pyro_hyperbolic.testing.density_laws import Nodes, samples_follow_the_density, total_mass_is_one

G, M = ph.geometry, geoopt.Lorentz()


def target(name):
    return datasets.density_target(name, torch.float64)


@pytest.mark.parametrize("name", datasets.DENSITY_TARGETS)
def test_mass_one_and_samples_that_follow(name):
    """For the tree the quadrature of the kit says itself that it knows nothing; see below."""
    law = target(name)
    assert law.support.check(law.sample((2, 5))).shape == law.log_prob(law.sample((2, 5))).shape == (2, 5)
    with pytest.warns(NotChecked) if name == "tree" else contextlib.nullcontext():
        nodes = Nodes.of(law, 120 if name == "spirals" else 200, seed=0)
        total_mass_is_one(law, nodes=nodes)
        samples_follow_the_density(law, nodes=nodes)


# ---- The recipes of the papers ----


def test_checkerboard_is_that_of_the_paper():
    """Bose et al.: x1 = 4U - 2, x2 = U - 2 Bernoulli + floor(x1) mod 2, over 4."""
    generator = np.random.default_rng(0)
    u, v, coin = generator.random(1000), generator.random(1000), generator.integers(0, 2, 1000)
    x = torch.tensor(np.stack([4 * u - 2, v - 2 * coin + np.floor(4 * u - 2) % 2], -1) / 4)
    planar = datasets.Checkerboard(torch.tensor(0.25, dtype=torch.float64))
    torch.testing.assert_close(planar.log_prob(x), torch.full((1000,), math.log(2.0), dtype=torch.float64))
    # The density of half of the square is 2: nothing is left for the other squares, or outside.
    middles = (torch.arange(60, dtype=torch.float64) + 0.5) / 40 - 0.75
    assert planar.log_prob(torch.cartesian_prod(middles, middles)).exp().sum() / 40**2 == pytest.approx(1.0, abs=1e-12)


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
        ("checkerboard", [0.125, 0.125], 2.0),
        ("big_checkerboard", [0.75, 0.75], 1 / 18),
    ],
)
def test_peaks(name, centre, peak):
    """In the middle of a component its own density, over the stretch there if it is pushed from the plane."""
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


# ---- The tree ----


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


# ---- Objects ----


def test_targets_have_the_dtype_asked_for():
    for name in datasets.DENSITY_TARGETS:
        for dtype in (torch.float32, torch.float64):
            law = datasets.density_target(name, dtype)
            x = law.sample((3,))
            assert x.dtype == law.log_prob(x).dtype == dtype
        assert datasets.density_target(name).sample().dtype == torch.get_default_dtype()


def test_there_is_no_such_target():
    with pytest.raises(ValueError, match=r"ring.*wrapped, mixture, spirals"):
        datasets.density_target("ring")
    with pytest.raises(ValueError, match="side"):
        datasets.Checkerboard(-1.0)
