"""Summaries of posterior draws: known quantiles, chains that agree and chains that do not, what ArviZ gets."""

import math
import re
import sys
from types import SimpleNamespace

import geoopt
import numpy as np
import pyro
import pytest
import torch
from pyro.infer import MCMC, NUTS
from pyro.ops import stats

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from pyro_hyperbolic import geometry
from pyro_hyperbolic.infer import summary, to_arviz
from tests.cases import lorentz, point

pytestmark = pytest.mark.usefixtures("float64")

M = lorentz(4.0)
#: The radius of the ball that holds a fraction p of a wrapped normal of scale 1 in the plane, Rayleigh's quantile.
RADIUS = {p: math.sqrt(-2 * math.log(1 - p)) for p in (0.5, 0.95)}
SPD = geoopt.SymmetricPositiveDefinite()
MIXED = geoopt.ProductManifold((geoopt.Sphere(), 3), (geoopt.Lorentz(), 3))
NORTH = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
#: Manifolds, a point of each, and how far from it draws are.
POINTS = {
    "Lorentz, k = 4": (M, point(4.0, 3.0, -5.0), 0.5),
    "PoincareBall": (geoopt.PoincareBall(), torch.tensor([0.3, 0.4, -0.2], dtype=torch.float64), 0.5),
    "Euclidean": (geoopt.Euclidean(1), torch.tensor([7.0], dtype=torch.float64), 2.0),
    "SPD": (SPD, torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64), 0.5),
    "Sphere": (geoopt.Sphere(), NORTH, 0.4),
    "Torus": (ph.manifolds.Torus(2), torch.tensor([3.1, 0.0], dtype=torch.float64), 0.5),
    "Rotations": (ph.manifolds.Rotations(), torch.eye(3, dtype=torch.float64), 0.4),
    "a product": (MIXED, torch.cat([NORTH, point(1.0, 1.0, 0.5)]), 0.4),
    "a product, wide in the plane": (
        MIXED,
        torch.cat([NORTH, point(1.0, 1.0, 0.5)]),
        torch.tensor([0.4, 0.4, 0.4, 4.0, 4.0], dtype=torch.float64),
    ),
}


def draws(manifold, p, scale, *shape, seed=0):
    """Normal vectors at a point, on the manifold."""
    space = geometry.complete(manifold)
    u = torch.randn(*shape, space.vector_size(space.dim(p.shape)), generator=torch.Generator().manual_seed(seed))
    return geometry.exp_at(manifold, p, space.tangent(p, scale * u.double()))


@pytest.mark.parametrize("name", POINTS)
def test_on_any_manifold(name):
    """The mean is where vectors to the draws sum to zero; tangent coordinates have the lengths of the distances."""
    manifold, p, scale = POINTS[name]
    x = draws(manifold, p, scale, 2, 60, 2)
    found = summary(x, manifold)
    m, n = found.ball.center, geometry.bind(manifold).dim(p.shape)
    assert m.shape == (2, *p.shape)
    assert bool(geometry.contains(manifold, m).all())
    assert geometry.log_at(manifold, m, x.flatten(0, 1)).mean(0).abs().max() < 1e-8
    assert geometry.distance(manifold, m, p).max() < 4.5 * torch.as_tensor(scale).max() * math.sqrt(n / 120)
    distances = geometry.distance(manifold, m, x)
    assert (distances <= found.ball.radius[1]).sum((0, 1)).tolist() == [114, 114]
    assert found.tangent.r_hat.shape == found.tangent.n_eff.shape == (2, n)
    about = ph.infer.posterior._about_mean("", x, manifold, None)
    torch.testing.assert_close(about.tangent.norm(dim=-1), distances, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(about.apart[..., 0], geometry.distance(manifold, x[:, :, 0], x[:, :, 1]))
    assert found.pair_index.tolist() == [[0, 1]]
    column = summary(x.unsqueeze(3), manifold)  # a batch of two dimensions
    torch.testing.assert_close(column.tangent.n_eff.squeeze(1), found.tangent.n_eff)
    for kind, values in ((found.distance, distances), (found.tangent, about.tangent), (found.pairs, about.apart)):
        torch.testing.assert_close(kind.r_hat, stats.split_gelman_rubin(values))
        torch.testing.assert_close(kind.n_eff, stats.effective_sample_size(values))


def test_balls_and_effective_sizes_of_independent_draws():
    """Radii have Rayleigh's quantiles, and n_eff is the number of draws; both up to known noise."""
    loc = point(4.0, 3.0, -5.0)
    x = hdist.WrappedNormal(loc, torch.tensor([0.7, 0.7]), M).sample((4, 1000))
    found = summary(x, M)
    for p, radius in zip(RADIUS, found.ball.radius / 0.7, strict=True):
        density = (1 - p) * RADIUS[p]  # of Rayleigh's law at its quantile
        assert radius.item() == pytest.approx(RADIUS[p], abs=4.5 * math.sqrt(p * (1 - p) / 4000) / density)
    assert geometry.distance(M, found.ball.center, loc).item() < 4.5 * 0.7 * math.sqrt(2 / 4000)
    for kind in (found.distance, found.tangent):
        assert kind.n_eff.sub(4000).abs().max() < 800
        assert kind.r_hat.sub(1).abs().max() < 0.01
    text = repr(found)
    assert text.startswith("Lorentz(k=4), 4 chains of 1000 draws\n")
    assert f"{found.ball.radius[1].item():#.3g}" in text
    assert f"{found.distance.n_eff.item():.0f}" in text


@pytest.mark.parametrize(("n", "shown"), [(3, r"\(\S+, \S+, \S+, \S+\) "), (4, r"\(\S+, \S+, \S+, \S+, \.\.\.\) ")])
def test_four_coordinates_of_a_point_are_shown(n, shown):
    assert re.search(shown, repr(summary(draws(M, point(4.0, *[0.0] * n), 0.5, 1, 9), M)))


def test_chains_that_disagree():
    x = draws(M, point(4.0, 1.0, 0.0), 0.3, 2, 200, 2)
    assert summary(x, M).tangent.r_hat.max() < 1.05
    apart = torch.stack([x[0], geometry.translate(M, point(4.0, 0.0, 2.0), x[1])])
    moved = summary(apart, M)
    assert moved.tangent.r_hat.max() > 1.5
    # An isometry is not seen by distances of pairs, a chain in which one point has wandered off is.
    assert moved.pairs.r_hat.max() < 1.05
    apart[1, :, 1] = geometry.translate(M, point(4.0, 3.0, 0.0), apart[1, :, 1])
    assert summary(apart, M).pairs.r_hat.max() > 1.5
    # Chains that do not move at all, in two places.
    stuck = x[:, :1].expand(2, 50, 2, 3)
    assert summary(stuck, M).tangent.r_hat.max() > 1e6
    # A chain that drifts: each half has its own mean.
    v = torch.linspace(-1, 1, 200).double().reshape(200, 1) + 0.1 * torch.randn(2, 200, 2).double()
    assert summary(geometry.exp0(M, v), M).tangent.r_hat.min() > 1.1


def test_nuts():
    """Two chains, started apart, of a posterior with a known ball: a wrapped normal off the origin."""
    H, loc = lorentz(), point(1.0, 1.0, 0.0)

    def model():
        return pyro.sample("z", hdist.WrappedNormal(loc, torch.tensor([0.5, 0.5]), H))

    runs = []
    for start in ([-1.0, 0.0], [2.0, 2.0]):
        kernel = NUTS(model, step_size=0.4, adapt_step_size=False, adapt_mass_matrix=False, max_tree_depth=2)
        runs.append(MCMC(kernel, 50, 10, {"z": torch.tensor(start)}, disable_progbar=True))
        runs[-1].run()
    both = torch.cat([run.get_samples(group_by_chain=True)["z"] for run in runs])
    found = summary({"z": both}, {"z": H})["z"]
    assert found.tangent.r_hat.max() < 1.1
    assert found.distance.r_hat < 1.1
    noise = math.sqrt(0.25 / found.distance.n_eff.clamp(max=100).item()) / (0.5 * RADIUS[0.5])
    assert found.ball.radius[0].item() / 0.5 == pytest.approx(RADIUS[0.5], abs=4.5 * noise)
    one = summary(runs[0], {"z": H})
    assert repr(one) == repr(summary(runs[0].get_samples(), {"z": H}, group_by_chain=False))
    assert repr(one).startswith("z: Lorentz(k=1), 1 chain of 50 draws\n")


def test_pairs():
    """All of few points, about 2000 of many, equally many of each; or those that were asked for."""
    for number, each in ((62, 61), (64, 62), (90, 44), (2001, 2)):
        index = summary(torch.randn(1, 4, number, 1), geoopt.Euclidean(1)).pair_index
        assert index.flatten().bincount().tolist() == [each] * number
        assert len({frozenset(pair) for pair in index.tolist()}) == len(index)
    x = draws(M, point(4.0, 1.0, 0.0), 0.3, 2, 8, 3, 30)
    chosen = summary(x, M, pairs=torch.tensor([[3, 40], [40, 7]]), probs=[0.9])
    apart = geometry.distance(M, x[:, :, 0, [3, 7]], x[:, :, 1, 10:11])
    torch.testing.assert_close(chosen.pairs.r_hat, stats.split_gelman_rubin(apart))
    assert chosen.tangent.r_hat.shape == (3, 30, 2)
    assert chosen.ball.radius.shape == (1, 3, 30)
    # A row for each point, with the worst of its pairs.
    table = repr(chosen).splitlines()
    assert len(table) == 93
    (a, b), (c, d) = (x.tolist() for x in chosen.pairs)
    assert {row.split()[0]: " ".join(row.split()[-2:]) for row in table[3:] if "nan" not in row} == {
        "[0,3]": f"{a:.0f} {c:.2f}",
        "[0,7]": f"{b:.0f} {d:.2f}",
        "[1,10]": f"{min(a, b):.0f} {max(c, d):.2f}",
    }


def test_pairs_are_of_points_on_one_manifold():
    """In a batch of curvatures, member by member; points of two manifolds have no distance."""
    many = geoopt.Lorentz(torch.tensor([[1.0], [4.0]]))
    x = geometry.exp0(many, torch.randn(2, 20, 2, 3, 2))
    found = summary(x, many)
    assert found.pair_index.tolist() == [[0, 1], [0, 2], [1, 2], [3, 4], [3, 5], [4, 5]]
    for row, part in zip((0, 1), found.pairs.r_hat.split(3), strict=True):
        alone = summary(x[:, :, row], lorentz([1.0, 4.0][row]))
        torch.testing.assert_close(part, alone.pairs.r_hat)
        torch.testing.assert_close(found.ball.center[row], alone.ball.center)
    with pytest.raises(ValueError, match=r"\(1, 5\).*k is 1 and 4.*leave the pair out"):
        summary(x, many, pairs=torch.tensor([[0, 1], [1, 5], [5, 0]]))
    columns = geoopt.Lorentz(torch.tensor([1.0, 4.0]))
    assert "pairs" not in repr(summary(geometry.exp0(columns, torch.randn(1, 9, 2, 2)), columns))


def test_samples_that_are_not_tensors_and_a_plate_without_members(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", Told(1))
    for call in (summary, to_arviz):
        with pytest.raises(TypeError, match=r"z is a numpy.ndarray.*torch.as_tensor"):
            call({"z": np.zeros((8, 3))}, {"z": M}, group_by_chain=False)
    with pytest.raises(ValueError, match=r"'z_pairs' already.*rename"):
        to_arviz({"z": point(4.0, 1.0, 0.0).expand(1, 8, 3), "z_pairs": torch.zeros(1, 8)}, {"z": M})
    assert repr(summary(torch.zeros(1, 8, 0, 3), M)) == "Lorentz(k=4), 1 chain of 8 draws"


def test_float32_far_out():
    x = draws(M, point(4.0, 8.0, 6.0), 0.5, 2, 100)
    found, exact = summary(x.float(), M), summary(x, M)
    assert found.ball.center.dtype == found.ball.radius.dtype == torch.float32
    # Coordinates are rounded, to distances of eps sinh(r) at r = 5.
    torch.testing.assert_close(found.ball.radius.double(), exact.ball.radius, rtol=0, atol=1e-4)


def test_of_numbers_they_are_the_usual_ones(monkeypatch):
    """On a line: the mean, quantiles of |x - mean|, and Pyro's own diagnostics of x, though one point at a time."""
    monkeypatch.setattr(ph.infer.posterior, "_CHUNK", 1)
    x = torch.randn(3, 40, 2, 1)
    found = summary(x, geoopt.Euclidean(1), probs=(0.2,))
    torch.testing.assert_close(found.ball.center, x.mean((0, 1)))
    distances = (x - x.mean((0, 1))).abs().squeeze(-1).flatten(0, 1)
    torch.testing.assert_close(found.ball.radius[0], distances.quantile(0.2, 0))
    usual = pyro.infer.mcmc.util.summary({"x": x})["x"]
    torch.testing.assert_close(found.tangent.n_eff, usual["n_eff"])
    torch.testing.assert_close(found.tangent.r_hat, usual["r_hat"])


class Told:
    """In place of ArviZ: what it was told, by the call of either major version."""

    def __init__(self, major):
        self.__version__ = f"{major}.3.0"

    def from_dict(self, groups=None, *, dims, coords, **by_name):
        assert (groups is None) == (self.__version__[0] == "0")
        return SimpleNamespace(dims=dims, coords=coords, **(groups or by_name))


@pytest.mark.parametrize("major", [0, 1])
def test_to_arviz(major, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", Told(major))
    samples = {"z": draws(M, point(4.0, 1.0, 0.0), 0.3, 2, 20, 3), "c": torch.rand(2, 20)}
    data = to_arviz(samples, {"z": M})
    shapes = {name: value.shape for name, value in data.posterior.items()}
    expected = {"z": (3, 3), "c": (), "z_tangent": (3, 2), "z_distance": (3,), "z_pairs": (3,)}
    assert shapes == {name: (2, 20, *shape) for name, shape in expected.items()}
    mean = torch.from_numpy(data.constant_data["z_mean"])
    torch.testing.assert_close(mean, summary(samples, {"z": M})["z"].ball.center)
    v = torch.from_numpy(data.posterior["z_tangent"])
    torch.testing.assert_close(geometry.exp_at(M, mean, v), samples["z"])
    assert data.dims == {"z_pairs": ["z_pair"]}
    assert data.coords == {"z_pair": ["0-1", "0-2", "1-2"]}
    one = to_arviz(samples["z"][0, :, 0], M, group_by_chain=False)
    assert {*one.posterior} == {"x", "x_tangent", "x_distance"}
    assert one.posterior["x"].shape == (1, 20, 3)


def test_arviz_reads_the_same_diagnostics():
    arviz = pytest.importorskip("arviz", exc_type=ImportError)
    samples = {"z": draws(M, point(4.0, 1.0, 0.0), 0.3, 4, 300, 2), "c": torch.rand(4, 300)}
    table = arviz.summary(to_arviz(samples, {"z": M}), var_names=["~z"], round_to="none")
    found = summary(samples, {"z": M})["z"]
    rows = ["c", "z_distance[0]", "z_distance[1]", "z_pairs[0-1]"]
    rows += [f"z_tangent[{i}, {j}]" for i in range(2) for j in range(2)]
    assert sorted(table.index) == sorted(rows)
    # ArviZ ranks draws first, so it agrees up to noise.
    ours = torch.cat([found.distance.r_hat, found.pairs.r_hat, found.tangent.r_hat.flatten()])
    np.testing.assert_allclose(table.loc[rows[1:], "r_hat"].astype(float), ours, atol=0.02)


def test_without_arviz_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r'pip install "pyro-hyperbolic\[arviz\]"'):
        to_arviz(torch.zeros(1, 4, 3), M)
