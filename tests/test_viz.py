"""Pictures, by what can be said of them without looking: where the artists are, and which circles the arcs lie on."""

import math

import geoopt
import matplotlib
import numpy as np
import pyro
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection, QuadMesh
from matplotlib.figure import Figure

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from pyro_hyperbolic import viz
from pyro_hyperbolic.geometry import registry
from tests import third_manifolds as third

G = ph.geometry
PLANE = geoopt.Euclidean(1)


def lorentz(k):
    return geoopt.Lorentz(k=torch.tensor(k, dtype=torch.float64))


def circle_of_points(M, r, size=40, seed=0, dtype=torch.float64):
    """Points at scaled radius r, in random directions."""
    angle = 2 * math.pi * torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return G.exp0(M, (r * M.k.sqrt() * torch.stack([angle.cos(), angle.sin()], dim=-1)).to(dtype))


def segments(artist):
    return torch.stack([torch.tensor(segment) for segment in artist.get_segments()])


@pytest.fixture(autouse=True)
def _no_global_settings():
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before


@pytest.fixture
def ax():
    return FigureCanvasAgg(Figure()).figure.subplots()


every_k = pytest.mark.parametrize("k", [1.0, 4.0, 0.25])
every_manifold = pytest.mark.parametrize("manifold", [lorentz(1.0), lorentz(4.0), PLANE], ids=["k=1", "k=4", "plane"])


def draw_everything(ax, M):
    disk = isinstance(M, geoopt.Lorentz)
    v = torch.tensor([[0.0, 0.0], [1.0, 0.5], [-0.3, 0.8]], dtype=torch.float64)
    x = G.exp0(M, v)
    normal = hdist.WrappedNormal(x[1].float(), torch.ones(2), manifold=geoopt.Lorentz(k=M.k.float()) if disk else M)
    return {
        "frame": (viz.frame(ax, M, **({"tiling": (4, 5)} if disk else {"extent": (-2, 2, -2, 2)})), list),
        "points": (viz.points(ax, M, x), PathCollection),
        "geodesics": (viz.geodesics(ax, M, x[:1], x), LineCollection),
        "tree": (viz.tree(ax, M, x, torch.tensor([[0, 1], [0, 2]])), LineCollection),
        "density": (viz.density(ax, M, normal.log_prob, resolution=20), QuadMesh),
    }


@every_manifold
def test_artists_are_returned_and_on_the_given_axes(ax, manifold):
    other = ax.figure.add_axes((0, 0, 0.1, 0.1))
    unused = len(other.get_children())
    for name, (artists, kind) in draw_everything(ax, manifold).items():
        assert isinstance(artists, kind), name
        for artist in artists if kind is list else [artists]:
            assert artist.axes is ax, name
            assert artist in ax.get_children(), name
    assert len(other.get_children()) == unused
    assert ax.get_aspect() == 1
    ax.figure.canvas.draw()  # nothing warns, warnings being errors


@every_k
def test_disk_has_the_radius_of_the_manifold(ax, k):
    M = lorentz(k)
    (circle,) = viz.poincare_disk(ax, M, edgecolor="red", lw=3)
    assert circle.radius == math.sqrt(k)
    assert circle.get_linewidth() == 3
    assert ax.get_xlim() == ax.get_ylim() == pytest.approx((-1.01 * math.sqrt(k), 1.01 * math.sqrt(k)))
    assert not ax.axison


@every_k
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_are_inside_and_at_the_hyperbolic_distance(ax, k, dtype):
    M = lorentz(k)
    for r in (0.5, 4.0, 15.0):
        x = circle_of_points(M, r, dtype=dtype).reshape(4, 10, 3).requires_grad_()
        norms = torch.tensor(viz.points(ax, M, x).get_offsets()).norm(dim=-1)
        assert norms.shape == (40,)
        assert (norms < math.sqrt(k)).all()
        distances = 2 * torch.atanh(norms / math.sqrt(k))
        # The radius of the tangent vector is rounded in its dtype; in the disk, what is left of it before the border.
        atol = torch.finfo(dtype).eps * max(r, 1) + 1e-15 * math.exp(r)
        torch.testing.assert_close(distances, torch.full_like(distances, r), rtol=0, atol=atol)


@every_k
@pytest.mark.parametrize(("r", "s"), [(0.0, 2.0), (0.5, 0.5), (2.0, 7.0), (15.0, 15.0), (36.0, 36.0), (80.0, 1.0)])
def test_arcs_lie_on_circles_orthogonal_to_the_boundary(ax, k, r, s):
    M = lorentz(k)
    arcs = segments(viz.geodesics(ax, M, circle_of_points(M, r), circle_of_points(M, s, seed=1))) / math.sqrt(k)
    # A circle around c is orthogonal to the unit circle if and only if 2 c.p = |p|^2 + 1 on it; with diameters as the
    # limit, (p, |p|^2 + 1) has rank two along an arc.
    rows = torch.cat([arcs, arcs.square().sum(-1, keepdim=True) + 1], dim=-1)
    assert torch.linalg.svdvals(rows)[:, 2].max() <= 1e-13
    assert (arcs.norm(dim=-1) <= 1 + 1e-15).all()
    # From x to y, exactly, in steps of comparable length that never turn back.
    for end, radius, seed in ((0, r, 0), (-1, s, 1)):
        offsets = torch.tensor(viz.points(ax, M, circle_of_points(M, radius, seed=seed)).get_offsets())
        torch.testing.assert_close(arcs[:, end], offsets / math.sqrt(k), rtol=0, atol=1e-15)
    steps = arcs[:, 1:] - arcs[:, :-1]
    lengths = steps.norm(dim=-1)
    assert (lengths.amax(-1) <= 2.01 * lengths.amin(-1)).all()
    assert ((steps[:, 1:] * steps[:, :-1]).sum(-1) > 0).all()


@pytest.mark.parametrize("r", [0.5, 5.0, 15.0])
def test_arcs_are_shortest(ax, r):
    """Distances along the vertices add up to the distance of the ends, and the arc through two points is unique."""
    M = lorentz(1.0)
    x, y = circle_of_points(M, r), circle_of_points(M, r / 2, seed=1)
    arcs = ph.charts.from_poincare_ball(M, segments(viz.geodesics(ax, M, x, y, samples=9)))
    length = G.distance(M, arcs[:, 1:], arcs[:, :-1]).sum(-1)
    torch.testing.assert_close(length, G.distance(M, x, y), rtol=0, atol=1e-14 * math.exp(r))


def test_degenerate_and_tiny_arcs(ax):
    M = lorentz(1.0)
    x = circle_of_points(M, 3.0)
    same = segments(viz.geodesics(ax, M, x, x, samples=5))
    assert (same - same[:, :1]).abs().max() <= 1e-15
    y = G.translate(M, x, circle_of_points(M, 1e-6, seed=1))
    steps = segments(viz.geodesics(ax, M, x, y, samples=5)).diff(dim=1).norm(dim=-1)
    assert (steps.amax(-1) / steps.amin(-1)).max() < 1.001


def test_euclidean_geodesics_are_straight(ax):
    x, y = torch.tensor([0.0, 1.0]), torch.tensor([2.0, -1.0])
    (line,) = segments(viz.geodesics(ax, PLANE, x, y, samples=3))
    torch.testing.assert_close(line, torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, -1.0]], dtype=torch.float64))


def test_tree_draws_its_edges(ax):
    M = lorentz(1.0)
    x = circle_of_points(M, 1.0, size=4)
    edges = torch.tensor([[0, 1], [2, 1], [3, 0]])
    lines = segments(viz.tree(ax, M, x, edges))
    nodes = torch.tensor(viz.points(ax, M, x).get_offsets())
    torch.testing.assert_close(lines[:, 0], nodes[edges[:, 0]])
    torch.testing.assert_close(lines[:, -1], nodes[edges[:, 1]])
    assert viz.tree(ax, M, x, edges[:0]).get_segments() == []


@pytest.mark.parametrize(("p", "q"), [(3, 7), (4, 5), (7, 3), (5, 4), (6, 6)])
def test_tiling(ax, p, q):
    M = lorentz(4.0)
    _, grid = viz.poincare_disk(ax, M, tiling=(p, q))
    ends = segments(grid)[:, [0, -1]]
    x = ph.charts.from_poincare_ball(M, ends)
    # Law of cosines in the triangle of angles pi/p (at a centre), pi/q (at a corner) and a right one.
    half = 2 * math.acosh(math.cos(math.pi / p) / math.sin(math.pi / q))
    torch.testing.assert_close(
        G.distance(M, x[:, 0], x[:, 1]), torch.full((len(x),), 2 * half, dtype=torch.float64), rtol=1e-9, atol=0
    )
    # Every corner near the centre has q edges, each drawn once.
    corners = ends[ends.norm(dim=-1) < 2 * 0.75].round(decimals=6) + 0.0
    _, counts = corners.unique(dim=0, return_counts=True)
    assert len(counts) >= 1
    assert (counts == q).all()


@every_manifold
def test_density_is_with_respect_to_riemannian_volume(ax, manifold):
    disk = isinstance(manifold, geoopt.Lorentz)
    calls = []

    def log_prob(x):
        calls.append(x)
        assert not torch.is_grad_enabled()
        return torch.full((len(x),), -1.0, requires_grad=True)

    viz.frame(ax, manifold, **({} if disk else {"extent": (-2, 2, -1, 1)}))
    mesh = viz.density(ax, manifold, log_prob, resolution=30, batch_size=64, dtype=torch.float64, cmap="magma")
    values = torch.tensor(mesh.get_array().filled(math.nan))
    assert values.shape == (30, 30)
    torch.testing.assert_close(values[values.isfinite()], torch.full_like(values[values.isfinite()], math.exp(-1)))
    assert max(map(len, calls)) == 64
    assert all(G.contains(manifold, x).all() for x in calls)
    assert values.isfinite().all() != disk  # the corners of the square are outside of the disk, and blank
    if disk:
        assert 0.75 * math.pi / 4 < values.isfinite().double().mean() < 0.9


def test_density_has_its_values_where_the_points_are(ax):
    M = geoopt.Lorentz()
    loc = G.exp0(M, torch.tensor([0.8, -0.4]))
    mesh = viz.density(ax, M, hdist.WrappedNormal(loc, torch.full((2,), 0.2), manifold=M).log_prob, resolution=101)
    row, column = divmod(int(mesh.get_array().argmax()), 101)
    (found,) = viz.points(ax, M, loc).get_offsets()
    cell = 2 / 101
    assert found.tolist() == pytest.approx([-1 + (column + 0.5) * cell, -1 + (row + 0.5) * cell], abs=cell)


def test_keywords_reach_the_artists_under_all_their_names(ax):
    M = lorentz(1.0)
    x = circle_of_points(M, 1.0, size=3)
    lines = viz.geodesics(ax, M, x, x.roll(1, 0), lw=2, array=[0.0, 0.5, 1.0], cmap="viridis", label="edges")
    ax.figure.canvas.draw()
    assert lines.get_linewidth() == [2]
    assert len({tuple(colour) for colour in lines.get_edgecolor().tolist()}) == 3
    assert viz.geodesics(ax, M, x, x, colors="red").get_color()[0].tolist() == [1, 0, 0, 1]
    assert viz.points(ax, M, x, c=[0.0, 0.5, 1.0], lw=2, edgecolors="k").get_linewidth() == [2]
    assert viz.points(ax, M, x).get_linewidth() == [0]
    assert viz.points(ax, M, x, marker="x").get_linewidth()[0] > 0


def test_errors_name_the_remedy(ax):
    M = geoopt.Lorentz()
    for n, remedy in ((3, r"log0\(M, x\)\[\.\.\., :2\]"), (1, "histogram")):
        x = G.origin(M, n)
        with pytest.raises(ValueError, match=rf"n = {n} dimensions.*n = 2.*{remedy}"):
            viz.points(ax, M, x)
    with pytest.raises(ValueError, match=r"n = 3.*log0\(M, x\)\[\.\.\., :2\]"):
        viz.points(ax, PLANE, torch.zeros(3))
    with pytest.raises(ValueError, match="is not on Lorentz"):
        viz.points(ax, M, torch.ones(3))
    with pytest.raises(TypeError, match=r"Sphere.*geoopt\.Lorentz"):
        viz.frame(ax, geoopt.Sphere())
    with pytest.raises(TypeError, match="use plane or frame"):
        viz.poincare_disk(ax, PLANE)
    with pytest.raises(ValueError, match="one curvature"):
        viz.poincare_disk(ax, geoopt.Lorentz(k=torch.ones(2)))
    with pytest.raises(ValueError, match=r"tiling = \(4, 4\).*1/p \+ 1/q < 1/2"):
        viz.poincare_disk(ax, M, tiling=(4, 4))
    x = G.origin(M, 2).expand(3, 3)
    with pytest.raises(ValueError, match="samples = 1"):
        viz.geodesics(ax, M, x, x, samples=1)
    with pytest.raises(ValueError, match=r"transpose a \(2, E\)"):
        viz.tree(ax, M, x, torch.tensor([[0, 1, 2], [0, 1, 2]]))
    with pytest.raises(ValueError, match=r"nodes 0\.\.3, but x has 3"):
        viz.tree(ax, M, x, torch.tensor([[0, 3]]))
    with pytest.raises(ValueError, match="draw a batch of distributions one at a time"):
        viz.density(ax, M, lambda x: x)
    with pytest.raises(ValueError, match="log_prob is NaN at"):
        viz.density(ax, M, lambda x: x[:, 0] * math.nan)


def read_only(x):
    array = x.numpy().copy()
    array.flags.writeable = False
    return array


ARRAYS = {  # whatever has the numbers of a tensor, and no gradient to keep
    "array": lambda x: x.numpy(),
    "read only": read_only,
    "reversed": lambda x: x.numpy()[::-1].copy()[::-1],
    "big-endian": lambda x: x.numpy().astype(x.numpy().dtype.newbyteorder(">")),
    "list": lambda x: x.tolist(),
    "list of arrays": lambda x: list(x.numpy()),
    "list of tensors": lambda x: list(x.clone().requires_grad_(x.is_floating_point())),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_are_drawn_as_tensors_are(ax, kind):
    of, M = ARRAYS[kind], lorentz(4.0)
    x, y = circle_of_points(M, 1.0, size=3), circle_of_points(M, 2.0, size=3, seed=1)
    u, edges = tangent(M, x)[1], torch.tensor([[0, 1], [0, 2]])
    drawn = viz.points(ax, M, of(x)).get_offsets()
    # Numbers of Python have no dtype, and so get the default one.
    rtol = 1e-6 if kind == "list" else 0
    np.testing.assert_allclose(drawn, viz.points(ax, M, x).get_offsets(), rtol=rtol)
    for found, expected in (
        (viz.geodesics(ax, M, of(x), of(y)), viz.geodesics(ax, M, x, y)),
        (viz.tree(ax, M, of(x), of(edges)), viz.tree(ax, M, x, edges)),
    ):
        np.testing.assert_allclose(segments(found), segments(expected), rtol=rtol, atol=rtol)
    found, expected = viz.vectors(ax, M, of(x), of(u)), viz.vectors(ax, M, x, u)
    np.testing.assert_allclose([found.U, found.V], [expected.U, expected.V], rtol=rtol, atol=rtol)
    found, expected = (
        viz.density(ax, M, log_prob, resolution=5).get_array().filled(0.0)
        for log_prob in (lambda x: of(-x[:, 0]), lambda x: -x[:, 0])
    )
    np.testing.assert_array_equal(found, expected)
    field = viz.vector_field(ax, PLANE, lambda x: of(2 * x), extent=(0, 1, 0, 1), resolution=2)
    np.testing.assert_array_equal(field.U, [0.5, 0.5, 1.5, 1.5])


@pytest.mark.parametrize(
    "x", [None, "point", [[1.0, 0.0, 0.0], [1.0]], [1 + 2j, 0.0, 0.0], np.array([1, 0, 0])], ids=str
)
def test_what_is_no_array_of_coordinates(ax, x):
    with pytest.raises(TypeError, match=r"^x (is|has).*torch"):
        viz.points(ax, lorentz(1.0), x)


@pytest.mark.parametrize("radius", [0.0, 1.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_regions_hold_their_masses(radius, dtype):
    """The border of the region of mass m is where the density is that of the m-quantile of draws, anywhere in H^2."""
    manifold = geoopt.Lorentz(torch.tensor(2.0, dtype=dtype))
    loc = G.exp0(manifold, radius * torch.tensor([0.6, 0.8], dtype=dtype))
    d = hdist.WrappedNormal(loc, torch.tensor([0.4, 0.7], dtype=dtype), manifold)
    masses = [0.9, 0.5]
    contours = viz.regions(Figure().subplots(), manifold, lambda x: d.log_prob(x) - 3.0, masses, dtype=dtype)
    pyro.set_rng_seed(0)
    draws = d.log_prob(d.sample((20_000,))).double().exp()
    found = (draws > torch.tensor(contours.levels).unsqueeze(-1) * math.exp(3.0)).double().mean(-1)
    assert torch.allclose(found, torch.tensor(masses, dtype=torch.float64), atol=0.02)
    assert len(contours.get_paths()) == 2


@pytest.mark.parametrize("masses", [[], [0.0], [1.0], [0.5, float("nan")]])
def test_regions_of_no_mass(masses):
    with pytest.raises(ValueError, match=r"masses = .* must be in \(0, 1\)"):
        viz.regions(Figure().subplots(), geoopt.Lorentz(), lambda x: x.sum(-1), masses)


@every_k
def test_lebesgue_density_sums_to_one_over_the_area_of_the_picture(ax, k):
    """And the one with respect to Riemannian volume does not; both say which they are."""
    M = lorentz(k)
    loc = G.exp0(M, torch.tensor([0.7, -0.4], dtype=torch.float64) * math.sqrt(k))
    d = hdist.WrappedNormal(loc, torch.tensor([0.3, 0.4], dtype=torch.float64) * math.sqrt(k), M)
    cell = (2 * math.sqrt(k) / 200) ** 2
    sums = {}
    for measure in ("riemannian", "lebesgue"):
        mesh = viz.density(ax, M, d.log_prob, measure=measure, resolution=200, dtype=torch.float64)
        assert measure in mesh.get_label().lower()
        sums[measure] = mesh.get_array().filled(0.0)
    assert sums["lebesgue"].sum() * cell == pytest.approx(1.0, abs=1e-6)
    # The metric of the disk is 4 |dp|^2 / (1 - |p|^2 / k)^2: areas are four times as large in the middle.
    for row, column in ((100, 100), (100, 140), (60, 130)):
        square = (-1 + 0.01 * (row + 0.5)) ** 2 + (-1 + 0.01 * (column + 0.5)) ** 2  # of the middle of the cell
        ratio = sums["lebesgue"][row, column] / sums["riemannian"][row, column]
        assert ratio == pytest.approx(4 / (1 - square) ** 2, rel=1e-9)
    with pytest.raises(ValueError, match="measure = 'haar', but must be one of riemannian, lebesgue"):
        viz.density(ax, M, d.log_prob, measure="haar")


def test_lebesgue_density_is_the_same_in_the_plane(ax):
    d = hdist.WrappedNormal(torch.zeros(2), torch.ones(2), PLANE)
    one, other = (
        viz.density(ax, PLANE, d.log_prob, measure=measure, extent=(-3, 3, -3, 3), resolution=20).get_array()
        for measure in ("riemannian", "lebesgue")
    )
    assert (one == other).all()


def tangent(M, x, seed=3):
    """Tangent vectors at points: velocities of the boosted straight lines through the origin."""
    v = torch.randn(*x.shape[:-1], 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def at(t):
        return G.translate(M, x, G.exp0(M, t * v))

    return v, torch.autograd.functional.jvp(at, torch.zeros((), dtype=torch.float64), torch.ones(()).double())[1]


@every_k
@pytest.mark.parametrize("r", [0.0, 0.5, 4.0, 12.0])
def test_arrows_are_velocities_of_the_picture(ax, k, r):
    M = lorentz(k)
    x = circle_of_points(M, r)
    v, u = tangent(M, x)
    arrows = viz.vectors(ax, M, x, u)
    found = torch.tensor([*zip(arrows.U, arrows.V, strict=True)])
    # Lengths of the conformal factor, |dp| = |u| (1 - |p|^2 / k) / 2 = |u| / (2 cosh^2(r / 2)), in the metric of M.
    factor = 1 / (2 * math.cosh(r / 2) ** 2)
    torch.testing.assert_close(
        found.norm(dim=-1), factor * v.norm(dim=-1), rtol=1e-13 * math.exp(2 * r) + 1e-12, atol=0
    )
    if r <= 4:  # and the directions of differences of points that are drawn
        step = 1e-6
        ends = [
            torch.tensor(viz.points(ax, M, G.translate(M, x, G.exp0(M, s * v))).get_offsets()) for s in (step, -step)
        ]
        torch.testing.assert_close(found, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-8)
    positions = torch.tensor(arrows.XY)
    torch.testing.assert_close(positions, torch.tensor(viz.points(ax, M, x).get_offsets()))
    ax.figure.canvas.draw()


def test_arrows_of_the_plane_and_errors(ax):
    x, u = torch.zeros(3, 2), torch.tensor([[1.0, 2.0]]).expand(3, 2)
    arrows = viz.vectors(ax, PLANE, x, u, color="red")
    assert arrows.U.tolist() == [1.0] * 3
    assert arrows.V.tolist() == [2.0] * 3
    M = lorentz(1.0)
    points = circle_of_points(M, 1.0, size=3)
    with pytest.raises(ValueError, match=r"3 of 3 vectors are not tangent.*proju"):
        viz.vectors(ax, M, points, points)
    with pytest.raises(ValueError, match="give each point its vector"):
        viz.vectors(ax, M, points, points[:1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_vector_field_reaches_the_rim(ax, dtype):
    """The gradient of the distance from the origin is a unit vector outwards, near the boundary too."""
    M = lorentz(4.0)

    def outwards(x):
        assert x.dtype == dtype
        size = x[:, 1:].norm(dim=-1, keepdim=True)
        return torch.cat([size, x[:, :1] * x[:, 1:] / size], dim=-1) / 2

    arrows = viz.vector_field(ax, M, outwards, resolution=40, dtype=dtype)
    p, dp = torch.tensor(arrows.XY), torch.tensor([*zip(arrows.U, arrows.V, strict=True)])
    radius = p.norm(dim=-1)
    assert 1.9 < radius.max() < 0.98 * 2
    along = (p * dp).sum(-1) / radius
    expected = (1 - radius.square() / 4) / 2
    torch.testing.assert_close(along, expected, rtol=1e-3 if dtype == torch.float32 else 1e-10, atol=0)
    torch.testing.assert_close(dp.norm(dim=-1), along, rtol=1e-3, atol=0)
    plane = viz.vector_field(ax, PLANE, lambda x: 0 * x + 1, extent=(0, 1, 0, 1), resolution=4)
    assert plane.N == 16


def test_the_ball_is_drawn_as_the_hyperboloid():
    B, M = geoopt.PoincareBall(torch.tensor(0.25)), geoopt.Lorentz(k=4.0)
    v = torch.randn(5, 2)
    found, expected = (
        viz.points(Figure().subplots(), manifold, ph.geometry.exp0(manifold, v)).get_offsets() for manifold in (B, M)
    )
    assert np.allclose(found, expected, atol=1e-6)
    ax = Figure().subplots()
    viz.frame(ax, B)
    viz.geodesics(ax, B, *ph.geometry.exp0(B, v[:2]))
    d = hdist.WrappedNormal(ph.geometry.exp0(B, v[0]), 0.5, B)
    flat = hdist.WrappedNormal(ph.geometry.exp0(M, v[0]), 0.5, M)
    meshes = [viz.density(Figure().subplots(), q.manifold, q.log_prob, resolution=20) for q in (d, flat)]
    assert np.allclose(*(mesh.get_array() for mesh in meshes), rtol=1e-4, atol=1e-6)
    with pytest.raises(TypeError, match="factors of a product"):
        viz.points(ax, geoopt.ProductManifold((M, 3)), torch.zeros(1, 3))


def test_a_registered_surface_of_constant_curvature_is_drawn(ax, monkeypatch):
    monkeypatch.setitem(registry._GEOMETRIES, third.HalfSpace, third.KnownHalfSpaceGeometry)
    v = torch.randn(5, 2, dtype=torch.float64)
    found, expected = (viz.points(ax, M, G.exp0(M, v)).get_offsets() for M in (third.HalfSpace(), lorentz(1.0)))
    np.testing.assert_allclose(found, expected, atol=1e-14)
