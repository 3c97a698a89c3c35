"""Pictures, by what can be said of them without looking: where the artists are, and which circles the arcs lie on."""

import math

import geoopt
import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection, QuadMesh
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from pyro_hyperbolic import viz
from tests.cases import ball, lorentz

G = ph.geometry
PLANE, EXTENT = geoopt.Euclidean(1), (-2, 2, -2, 2)
EDGES = torch.tensor([[0, 1], [0, 2]])


@pytest.fixture(autouse=True)
def _no_global_settings():
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before


@pytest.fixture
def ax():
    return FigureCanvasAgg(Figure()).figure.subplots()


each_k = pytest.mark.parametrize("k", [4.0, 0.25])
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
each_manifold = pytest.mark.parametrize("M", [lorentz(4.0), PLANE], ids=["disk", "plane"])


def test_drawing_leaves_a_curvature_alone(ax):
    M = ph.manifolds.PoincareBall(torch.tensor(2.0, dtype=torch.float64))
    viz.points(ax, M, torch.zeros(1, 2, dtype=torch.float64))
    assert M.c == 2.0


def ring(M, r, size=40, seed=0, dtype=torch.float64):
    """Points at scaled radius r, in random directions."""
    angle = 2 * math.pi * torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return G.exp0(M, (r * M.k.sqrt() * torch.stack([angle.cos(), angle.sin()], dim=-1)).to(dtype))


def positions(ax, M, x):
    return torch.tensor(viz.points(ax, M, x).get_offsets())


def segments(lines):
    return torch.stack([torch.tensor(segment) for segment in lines.get_segments()])


def directions(arrows):
    return torch.tensor(np.stack([arrows.U, arrows.V], -1))


def tangent(M, x, seed=3):
    """Tangent coordinates at points, and the ambient vectors."""
    v = torch.randn(*x.shape[:-1], 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    return v, torch.autograd.functional.jvp(lambda t: G.translate(M, x, G.exp0(M, t * v)), zero, one)[1]


def normal(M):
    loc = G.exp0(M, torch.tensor([0.8, -0.4], dtype=torch.float64))
    return hdist.WrappedNormal(loc, torch.tensor([0.3, 0.5], dtype=torch.float64), M)


DRAW = {
    "frame": lambda ax, M, x: viz.frame(ax, M, **({"extent": EXTENT} if M is PLANE else {"tiling": (4, 5)})),
    "points": lambda ax, M, x: viz.points(ax, M, x),
    "geodesics": lambda ax, M, x: viz.geodesics(ax, M, x[:1], x),
    "tree": lambda ax, M, x: viz.tree(ax, M, x, EDGES),
    "density": lambda ax, M, x: viz.density(ax, M, normal(M).log_prob, resolution=20, dtype=torch.float64),
    "regions": lambda ax, M, x: viz.regions(ax, M, normal(M).log_prob, extent=EXTENT, dtype=torch.float64),
    "vectors": lambda ax, M, x: viz.vectors(ax, M, x, tangent(M, x)[1]),
}
KINDS = dict(
    zip(DRAW, [list, PathCollection, LineCollection, LineCollection, QuadMesh, QuadContourSet, Quiver], strict=True)
)


@each_manifold
@pytest.mark.parametrize("name", DRAW)
def test_artists_are_returned_and_on_the_given_axes(ax, M, name):
    other = ax.figure.add_axes((0, 0, 0.1, 0.1))
    unused = len(other.get_children())
    artists = DRAW[name](ax, M, G.exp0(M, torch.tensor([[0.0, 0.0], [1.0, 0.5], [-0.3, 0.8]], dtype=torch.float64)))
    assert isinstance(artists, KINDS[name])
    for artist in artists if isinstance(artists, list) else [artists]:
        assert artist.axes is ax
        assert artist in ax.get_children()
    assert len(other.get_children()) == unused
    ax.figure.canvas.draw()  # nothing warns, warnings being errors


# ---- Points, arcs and the disk ----


@each_k
def test_disk_has_the_radius_of_the_manifold(ax, k):
    (circle,) = viz.poincare_disk(ax, lorentz(k), edgecolor="red", lw=3)
    assert circle.radius == math.sqrt(k)
    assert circle.get_linewidth() == 3
    assert ax.get_xlim() == ax.get_ylim()
    assert ax.get_xlim()[1] == pytest.approx(math.sqrt(k), rel=0.02)
    assert ax.get_aspect() == 1
    assert not ax.axison


@each_k
@each_dtype
@pytest.mark.parametrize("r", [0.5, 4.0, 15.0])
def test_points_are_inside_and_at_the_hyperbolic_distance(ax, k, dtype, r):
    M = lorentz(k)
    x = ring(M, r, dtype=dtype).reshape(4, 10, 3).requires_grad_()
    norms = positions(ax, M, x).norm(dim=-1) / math.sqrt(k)
    assert norms.shape == (40,)
    assert (norms < 1).all()
    # The radius of the tangent vector is rounded in its dtype; in the disk, what is left of it before the border.
    atol = torch.finfo(dtype).eps * max(r, 1) + 1e-15 * math.exp(r)
    assert torch.allclose(2 * torch.atanh(norms), torch.tensor(r).double(), rtol=0, atol=atol)


@each_k
@pytest.mark.parametrize(("r", "s"), [(0.0, 2.0), (0.5, 0.5), (2.0, 7.0), (36.0, 36.0), (80.0, 1.0)])
def test_arcs_lie_on_circles_orthogonal_to_the_boundary(ax, k, r, s):
    M = lorentz(k)
    x, y = ring(M, r), ring(M, s, seed=1)
    arcs = segments(viz.geodesics(ax, M, x, y)) / math.sqrt(k)
    # A circle around c is orthogonal to the unit circle if and only if 2 c.p = |p|^2 + 1 on it; with diameters as the
    # limit, (p, |p|^2 + 1) has rank two along an arc.
    rows = torch.cat([arcs, arcs.square().sum(-1, keepdim=True) + 1], dim=-1)
    assert torch.linalg.svdvals(rows)[:, 2].max() <= 1e-13
    assert (arcs.norm(dim=-1) <= 1 + 1e-15).all()
    for end, at in ((0, x), (-1, y)):
        assert torch.allclose(arcs[:, end], positions(ax, M, at) / math.sqrt(k), rtol=0, atol=1e-15)
    # In steps of comparable length that never turn back.
    steps = arcs.diff(dim=1)
    lengths = steps.norm(dim=-1)
    assert (lengths.amax(-1) <= 2.01 * lengths.amin(-1)).all()
    assert ((steps[:, 1:] * steps[:, :-1]).sum(-1) > 0).all()


def test_arcs_are_shortest(ax):
    """Distances along the vertices add up to the distance of the ends."""
    M = lorentz(4.0)
    x, y = ring(M, 5.0), ring(M, 2.0, seed=1)
    arcs = ph.charts.from_poincare_ball(M, segments(viz.geodesics(ax, M, x, y, samples=9)))
    assert torch.allclose(G.distance(M, arcs[:, 1:], arcs[:, :-1]).sum(-1), G.distance(M, x, y), rtol=0, atol=1e-11)


def test_tiny_arcs_have_even_steps(ax):
    M = lorentz(1.0)
    x = ring(M, 3.0)
    y = G.translate(M, x, ring(M, 1e-6, seed=1))
    steps = segments(viz.geodesics(ax, M, x, y, samples=5)).diff(dim=1).norm(dim=-1)
    assert (steps.amax(-1) / steps.amin(-1)).max() < 1.001
    assert segments(viz.geodesics(ax, M, x, x, samples=5)).diff(dim=1).abs().max() <= 1e-15


def test_euclidean_geodesics_are_straight(ax):
    (line,) = segments(viz.geodesics(ax, PLANE, [0.0, 1.0], [2.0, -1.0], samples=3))
    assert line.tolist() == [[0.0, 1.0], [1.0, 0.0], [2.0, -1.0]]


def test_tree_draws_its_edges(ax):
    M = lorentz(1.0)
    x, edges = ring(M, 1.0, size=4), torch.tensor([[0, 1], [2, 1], [3, 0]])
    assert torch.allclose(segments(viz.tree(ax, M, x, edges))[:, [0, -1]], positions(ax, M, x)[edges])
    assert viz.tree(ax, M, x, edges[:0]).get_segments() == []


@pytest.mark.parametrize(("p", "q"), [(3, 7), (4, 5), (7, 3)])
def test_tiling(ax, p, q):
    M = lorentz(4.0)
    _, grid = viz.poincare_disk(ax, M, tiling=(p, q))
    ends = segments(grid)[:, [0, -1]]
    x = ph.charts.from_poincare_ball(M, ends)
    # Law of cosines in the triangle of angles pi/p (at a centre), pi/q (at a corner) and a right one.
    half = 2 * math.acosh(math.cos(math.pi / p) / math.sin(math.pi / q))
    assert torch.allclose(G.distance(M, x[:, 0], x[:, 1]), torch.tensor(2 * half, dtype=x.dtype), rtol=1e-9)
    # Every corner near the centre has q edges, each drawn once.
    corners = ends[ends.norm(dim=-1) < 2 * 0.75].round(decimals=6) + 0.0
    assert (corners.unique(dim=0, return_counts=True)[1] == q).all()
    assert len(corners) >= q


# ---- Densities ----


@each_manifold
def test_density_is_with_respect_to_riemannian_volume(ax, M):
    calls = []

    def log_prob(x):
        calls.append(x)
        assert not torch.is_grad_enabled()
        return torch.full((len(x),), -1.0, requires_grad=True)

    mesh = viz.density(ax, M, log_prob, resolution=30, batch_size=64, dtype=torch.float64, cmap="magma", extent=EXTENT)
    values = torch.tensor(mesh.get_array().filled(math.nan))
    assert values.shape == (30, 30)
    assert torch.allclose(values[values.isfinite()], torch.tensor(math.exp(-1)).double())
    assert max(map(len, calls)) == 64
    assert all(G.contains(M, x).all() for x in calls)
    shown = values.isfinite().double().mean()
    assert shown == 1 if M is PLANE else 0.75 * math.pi / 4 < shown < 0.9  # corners outside of the disk are blank


def test_density_has_its_values_where_the_points_are(ax):
    M, cell = lorentz(1.0), 2 / 101
    mesh = viz.density(ax, M, normal(M).log_prob, resolution=101, dtype=torch.float64)
    row, column = divmod(int(mesh.get_array().argmax()), 101)
    (found,) = positions(ax, M, normal(M).loc)
    assert found.tolist() == pytest.approx([-1 + (column + 0.5) * cell, -1 + (row + 0.5) * cell], abs=cell)


@each_k
def test_lebesgue_density_sums_to_one_over_the_area_of_the_picture(ax, k):
    M, cell = lorentz(k), (2 * math.sqrt(k) / 200) ** 2
    sums = {}
    for measure in ("riemannian", "lebesgue"):
        mesh = viz.density(ax, M, normal(M).log_prob, measure=measure, resolution=200, dtype=torch.float64)
        assert measure in mesh.get_label().lower()
        sums[measure] = mesh.get_array().filled(0.0)
    assert sums["lebesgue"].sum() * cell == pytest.approx(1.0, abs=1e-4)
    for row, column in ((100, 100), (60, 130)):
        square = (-1 + 0.01 * (row + 0.5)) ** 2 + (-1 + 0.01 * (column + 0.5)) ** 2  # of the middle of the cell
        ratio = sums["lebesgue"][row, column] / sums["riemannian"][row, column]
        assert ratio == pytest.approx(4 / (1 - square) ** 2, rel=1e-9)


def test_lebesgue_density_is_the_same_in_the_plane(ax):
    arguments = {"extent": (-3, 3, -3, 3), "resolution": 20, "dtype": torch.float64}
    one, other = (
        viz.density(ax, PLANE, normal(PLANE).log_prob, measure=measure, **arguments).get_array()
        for measure in ("riemannian", "lebesgue")
    )
    assert (one == other).all()


@pytest.mark.parametrize("radius", [0.0, 1.5])
@each_dtype
def test_regions_hold_their_masses(ax, radius, dtype):
    """The border of the region of mass m is where the density is that of the m-quantile of draws, anywhere in H^2."""
    M = geoopt.Lorentz(torch.tensor(2.0, dtype=dtype))
    loc = G.exp0(M, radius * torch.tensor([0.6, 0.8], dtype=dtype))
    d = hdist.WrappedNormal(loc, torch.tensor([0.4, 0.7], dtype=dtype), M)
    contours = viz.regions(ax, M, lambda x: d.log_prob(x) - 3.0, [0.9, 0.5], dtype=dtype)
    draws = d.log_prob(d.sample((20_000,))).double() - 3.0
    found = (draws > torch.tensor(contours.levels).log()[:, None]).double().mean(-1)
    assert found.tolist() == pytest.approx([0.9, 0.5], abs=0.02)
    assert len(contours.get_paths()) == 2


# ---- Arrows ----


@each_k
@pytest.mark.parametrize("r", [0.0, 4.0, 12.0])
def test_arrows_are_velocities_of_the_picture(ax, k, r):
    M = lorentz(k)
    x = ring(M, r)
    v, u = tangent(M, x)
    arrows = viz.vectors(ax, M, x, u)
    # Lengths of the conformal factor, |dp| = |u| (1 - |p|^2 / k) / 2 = |u| / (2 cosh^2(r / 2)), in the metric of M.
    lengths = v.norm(dim=-1) / (2 * math.cosh(r / 2) ** 2)
    assert torch.allclose(directions(arrows).norm(dim=-1), lengths, rtol=1e-13 * math.exp(2 * r) + 1e-12, atol=0)
    if r <= 4:
        ahead, behind = (positions(ax, M, G.translate(M, x, G.exp0(M, step * v))) for step in (1e-6, -1e-6))
        assert torch.allclose(directions(arrows), (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-8)
    assert torch.allclose(torch.tensor(arrows.XY), positions(ax, M, x))


@each_dtype
def test_a_vector_field_reaches_the_rim(ax, dtype):
    """The gradient of the distance from the origin is a unit vector outwards, near the boundary too."""
    M = lorentz(4.0)

    def outwards(x):
        assert x.dtype == dtype
        size = x[:, 1:].norm(dim=-1, keepdim=True)
        return torch.cat([size, x[:, :1] * x[:, 1:] / size], dim=-1) / 2

    arrows = viz.vector_field(ax, M, outwards, resolution=40, dtype=dtype, scale=1)
    p = torch.tensor(arrows.XY)
    assert 1.9 < p.norm(dim=-1).max() < 2 - 0.4 * 0.1
    expected = p / p.norm(dim=-1, keepdim=True) * (1 - p.square().sum(-1, keepdim=True) / 4) / 2
    assert torch.allclose(directions(arrows), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("M", [lorentz(4.0), ball(0.25), PLANE, "native"], ids=["disk", "ball", "plane", "native"])
def test_a_vector_field_fits_its_grid_and_its_colours_are_lengths(ax, M):
    """The field of logs to the origin: lengths are distances from it."""
    straight = M in (PLANE, "native")
    if M == "native":
        viz.native_disk(ax, M := lorentz(4.0), 2.0)

    def inwards(x):
        return M.logmap(x, G.origin(M, 2).to(x).expand_as(x))

    arrows = viz.vector_field(ax, M, inwards, resolution=9, extent=EXTENT, dtype=torch.float64)
    p, sizes = torch.tensor(arrows.XY), directions(arrows).norm(dim=-1)
    r = p.norm(dim=-1)
    away = r > 1e-9
    assert away.sum() == len(p) - 1
    assert torch.allclose(sizes, 0.8 * 4 / 9 * away.double())
    assert torch.allclose(torch.linalg.vecdot(directions(arrows)[away], p[away]), -(sizes * r)[away])
    lengths = torch.tensor(arrows.get_array())
    assert torch.allclose(lengths, r if straight else 4 * torch.atanh(r / 2), rtol=1e-6, atol=1e-6)
    assert (M is PLANE) or (r + sizes / 2).max() < 2  # inside
    assert viz.vector_field(ax, M, inwards, resolution=3, extent=EXTENT, color="red").get_array() is None


def test_arrows_of_the_plane(ax):
    arrows = viz.vectors(ax, PLANE, torch.zeros(3, 2), torch.tensor([[1.0, 2.0]]).expand(3, 2), color="red")
    assert directions(arrows).tolist() == [[1.0, 2.0]] * 3
    assert viz.vector_field(ax, PLANE, lambda x: 0 * x + 1, extent=(0, 1, 0, 1), resolution=4).N == 16


# ---- Rulers ----


@each_k
def test_ticks_of_the_scale_bar_are_evenly_apart(ax, k):
    M = lorentz(k)
    lines, *labels = viz.scale_bar(ax, M, 0.5, angle=60.0, color="red")
    _, *ticks = [torch.tensor(line) for line in lines.get_segments()]
    middles = torch.stack(ticks).mean(1)
    x = ph.charts.from_poincare_ball(M, torch.cat([torch.zeros(1, 2).double(), middles]))
    assert torch.allclose(G.distance(M, x[1:], x[:-1]), torch.tensor(0.5).double(), atol=1e-9)
    assert torch.allclose(torch.atan2(middles[:, 1], middles[:, 0]), torch.tensor(math.pi / 3).double())
    assert [label.get_text() for label in labels] == [f"{0.5 * (j + 1):g}" for j in range(len(ticks))] + ["∞"]
    assert 1 - 2 * middles.norm(dim=-1).max() / math.sqrt(k) < 0  # near the rim


def test_scale_bars_of_straight_pictures(ax):
    viz.plane(ax, extent=(-4, 6, -1, 1))
    (bar, *_), (label,) = (artists := viz.scale_bar(ax, PLANE, 2.0))[0].get_segments(), artists[1:]
    assert np.linalg.norm(bar[1] - bar[0]) == pytest.approx(2.0)
    assert label.get_text() == "2"
    assert (ax.get_xlim(), ax.get_ylim()) == ((-4, 6), (-1, 1))
    viz.native_disk(ax, M1, 3.0)
    lines, *labels = viz.scale_bar(ax, M1)
    assert [label.get_text() for label in labels] == ["1", "2", "3"]
    assert np.linalg.norm(np.mean(lines.get_segments()[3], 0)) == pytest.approx(3.0)


def test_a_rim_tick_for_each_point_on_the_rim(ax):
    M = lorentz(4.0)
    x = torch.cat([ring(M, 5.9, size=3), ring(M, 6.1, size=4), ring(M, 40.0, size=1), G.origin(M, 2)[None].double()])
    inner = segments(viz.rim_ticks(ax, M, x, color="red"))
    assert len(inner) == 5
    assert (inner.norm(dim=-1) > 2).all()
    assert torch.allclose(
        torch.nn.functional.normalize(inner[:, 0], dim=-1), torch.nn.functional.normalize(positions(ax, M, x)[3:8])
    )
    assert viz.rim_ticks(ax, M, x[:3]).get_segments() == []


# ---- What is given ----


def test_without_axes_the_current_ones_are_drawn_on():
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    ax = pyplot.figure().subplots()
    M = lorentz(1.0)
    x = ring(M, 1.0, size=3)
    for draw in DRAW.values():
        artists = draw(None, M, x)
        assert (artists[0] if isinstance(artists, list) else artists).axes is ax
    for draw in (viz.native_disk, viz.scale_bar):
        assert all(artist.axes is ax for artist in draw(None, M))
    assert viz.vector_field(None, M, lambda x: 0 * x, resolution=3).axes is ax
    assert viz.rim_ticks(None, M, x).axes is ax
    assert viz.plane(None)[0].axes is ax
    pyplot.close()


def test_keywords_reach_the_artists_under_all_their_names(ax):
    M = lorentz(1.0)
    x = ring(M, 1.0, size=3)
    lines = viz.geodesics(ax, M, x, x.roll(1, 0), lw=2, array=[0.0, 0.5, 1.0], cmap="viridis", label="edges")
    ax.figure.canvas.draw()
    assert lines.get_linewidth() == [2]
    assert len({tuple(colour) for colour in lines.get_edgecolor().tolist()}) == 3
    assert viz.geodesics(ax, M, x, x, colors="red").get_color()[0].tolist() == [1, 0, 0, 1]
    assert viz.points(ax, M, x, c=[0.0, 0.5, 1.0], lw=2, edgecolors="k").get_linewidth() == [2]
    assert viz.points(ax, M, x, marker="x").get_linewidth()[0] > 0


def read_only(x):
    array = x.numpy().copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "of",
    [
        read_only,
        lambda x: x.numpy()[::-1].copy()[::-1],
        lambda x: x.numpy().astype(x.numpy().dtype.newbyteorder(">")),
        lambda x: x.tolist(),
        lambda x: list(x.numpy()),
        lambda x: list(x.clone().requires_grad_(x.is_floating_point())),
    ],
    ids=["read only", "reversed", "big-endian", "list", "list of arrays", "list of tensors"],
)
def test_arrays_are_drawn_as_tensors_are(ax, of):
    M = lorentz(4.0)
    x, y = ring(M, 1.0, size=3), ring(M, 2.0, size=3, seed=1)

    def drawn(of):
        return [
            positions(ax, M, of(x)),
            segments(viz.geodesics(ax, M, of(x), of(y))),
            segments(viz.tree(ax, M, of(x), of(EDGES))),
            directions(viz.vectors(ax, M, of(x), of(tangent(M, x)[1]))),
            torch.tensor(viz.density(ax, M, lambda x: of(-x[:, 0]), resolution=5).get_array().filled(0.0)),
            directions(viz.vector_field(ax, PLANE, lambda x: of(2 * x), extent=(0, 1, 0, 1), resolution=2)),
        ]

    for found, expected in zip(drawn(of), drawn(lambda x: x), strict=True):
        assert torch.allclose(found, expected, rtol=1e-6, atol=1e-6)  # numbers of Python have the default dtype


@pytest.mark.parametrize("x", [None, "point", [[1.0, 0.0], [1.0]], [1 + 2j, 0.0, 0.0], np.array([1, 0, 0])], ids=str)
def test_what_is_no_array_of_coordinates(ax, x):
    with pytest.raises(TypeError, match=r"^x .*torch"):
        viz.points(ax, lorentz(1.0), x)


def test_the_ball_is_drawn_as_the_hyperboloid(ax):
    B, M = ball(0.25), lorentz(4.0)
    v = torch.randn(5, 2, dtype=torch.float64)
    assert torch.allclose(positions(ax, B, G.exp0(B, v)), positions(ax, M, G.exp0(M, v)))
    lines = [segments(viz.geodesics(ax, each, *G.exp0(each, v[:2]))) for each in (B, M)]
    assert torch.allclose(*lines)
    meshes = [viz.density(ax, each, normal(each).log_prob, resolution=20, dtype=torch.float64) for each in (B, M)]
    assert np.allclose(*(mesh.get_array() for mesh in meshes), rtol=1e-4, atol=1e-6)


M1 = geoopt.Lorentz()
X1 = G.origin(M1, 2).expand(3, 3)
X3 = ring(lorentz(1.0), 1.0, size=3)
WRONG = {
    "the manifold first": (lambda ax: viz.points(M1, X1, X1), TypeError, "Lorentz.*Axes.*None"),
    "a scale bar of the sphere": (lambda ax: viz.scale_bar(ax, geoopt.Sphere()), TypeError, "Sphere.*frame"),
    "a scale bar without length": (lambda ax: viz.scale_bar(ax, M1, 0.0), ValueError, "length = 0"),
    "too many ticks": (lambda ax: viz.scale_bar(ax, M1, 1e-3), ValueError, "length = 0.001.*larger"),
    "a rim of the plane": (lambda ax: viz.rim_ticks(ax, PLANE, X1[:, 1:]), TypeError, "Euclidean"),
    "three dimensions": (lambda ax: viz.points(ax, M1, G.origin(M1, 3)), ValueError, r"n = 3.*log0.*:2\]"),
    "one dimension": (lambda ax: viz.points(ax, M1, G.origin(M1, 1)), ValueError, "n = 1.*histogram"),
    "a flat space of three": (lambda ax: viz.points(ax, PLANE, torch.zeros(3)), ValueError, r"n = 3.*:2\]"),
    "off the manifold": (lambda ax: viz.points(ax, M1, torch.ones(3)), ValueError, "is not on Lorentz"),
    "rotations": (lambda ax: viz.frame(ax, ph.manifolds.Rotations()), TypeError, "Rotations"),
    "a disk of the sphere": (lambda ax: viz.poincare_disk(ax, geoopt.Sphere()), TypeError, "Sphere.*frame"),
    "a globe of the plane": (lambda ax: viz.globe(ax, PLANE), TypeError, "Euclidean.*frame"),
    "a square of the sphere": (lambda ax: viz.torus_square(ax, geoopt.Sphere()), TypeError, "Sphere.*frame"),
    "meridians without a step": (lambda ax: viz.globe(ax, geoopt.Sphere(), step=0), ValueError, "step = 0.*degrees"),
    "a torus of three": (lambda ax: viz.points(ax, ph.manifolds.Torus(3), torch.zeros(3)), ValueError, r"Torus\(2\)"),
    "a sphere of three": (lambda ax: viz.points(ax, geoopt.Sphere(), torch.eye(4)), ValueError, r"n = 3.*:3\]"),
    "a product": (lambda ax: viz.frame(ax, geoopt.ProductManifold((M1, 3))), TypeError, "factors"),
    "a disk of the plane": (lambda ax: viz.poincare_disk(ax, PLANE), TypeError, "plane or frame"),
    "two curvatures": (lambda ax: viz.poincare_disk(ax, geoopt.Lorentz(torch.ones(2))), ValueError, r"\(2,\)"),
    "a Euclidean tiling": (lambda ax: viz.poincare_disk(ax, M1, tiling=(4, 4)), ValueError, r"\(4, 4\).*\(3, 7\)"),
    "arcs of one point": (lambda ax: viz.geodesics(ax, M1, X1, X1, samples=1), ValueError, "samples = 1.*2"),
    "half a sample": (lambda ax: viz.geodesics(ax, M1, X1, X1, samples=2.5), TypeError, "samples = 2.5.*integer"),
    "no cells": (lambda ax: viz.density(ax, M1, lambda x: x[:, 0], resolution=0), ValueError, "resolution = 0.*1"),
    "no batch": (lambda ax: viz.regions(ax, M1, lambda x: x[:, 0], batch_size=0), ValueError, "batch_size = 0.*1"),
    "edges of shape (2, E)": (lambda ax: viz.tree(ax, M1, X1, EDGES.new_zeros(2, 3)), ValueError, "transpose"),
    "no such node": (lambda ax: viz.tree(ax, M1, X1, EDGES + 1), ValueError, r"1\.\.3.*3"),
    "a batch of densities": (lambda ax: viz.density(ax, M1, lambda x: x), ValueError, "one at a time"),
    "NaN": (lambda ax: viz.density(ax, M1, lambda x: x[:, 0] * math.nan), ValueError, "NaN at"),
    "no such measure": (
        lambda ax: viz.density(ax, M1, lambda x: x[:, 0], measure="haar"),
        ValueError,
        "haar.*lebes",
    ),
    "no mass": (lambda ax: viz.regions(ax, M1, lambda x: x[:, 0], [0.5, math.nan]), ValueError, r"nan.*\(0, 1\)"),
    "no masses": (lambda ax: viz.regions(ax, M1, lambda x: x[:, 0], []), ValueError, r"\(0, 1\)"),
    "not tangent": (lambda ax: viz.vectors(ax, lorentz(1.0), X3, X3), ValueError, "3 of 3.*proju"),
    "one vector of three": (lambda ax: viz.vectors(ax, M1, X1, X1[:1]), ValueError, r"\(1, 3\).*\(3, 3\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_error_names_the_value_and_the_remedy(ax, name):
    call, error, words = WRONG[name]
    with pytest.raises(error, match=words):
        call(ax)


# ---- The disk in which radius is distance ----


@each_k
@each_dtype
@pytest.mark.parametrize("r", [0.5, 15.0, 60.0])
def test_in_the_native_disk_radius_is_distance(ax, k, dtype, r):
    M = lorentz(k)
    viz.native_disk(ax, M, 60 * math.sqrt(k))
    norms = positions(ax, M, ring(M, r, dtype=dtype)).norm(dim=-1)
    assert torch.allclose(norms, torch.tensor(r * math.sqrt(k)).double(), rtol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("M", [lorentz(4.0), ball(0.25)], ids=["hyperboloid", "ball"])
def test_geodesics_of_the_native_disk_are_shortest_paths(ax, M):
    viz.native_disk(ax, M)
    x, y = (
        G.exp0(M, 6.0 * torch.randn(5, 2, generator=torch.Generator().manual_seed(seed)).double()) for seed in (0, 1)
    )
    y[0] = x[0]
    v = segments(viz.geodesics(ax, M, x, y))
    along = G.exp0(M, v).movedim(1, 0)
    apart, f = G.distance(M, x, y), torch.linspace(0, 1, 65).double().unsqueeze(-1)
    assert torch.allclose(G.distance(M, x, along), f * apart, atol=1e-6)
    assert torch.allclose(G.distance(M, along, y), (1 - f) * apart, atol=1e-6)


def test_far_points_of_the_native_disk_meet_at_the_origin(ax):
    M = lorentz(1.0)
    viz.native_disk(ax, M, 400.0)
    ends = G.exp0(M, torch.tensor([[400.0, 0.0], [-400.0, 0.0], [0.0, 400.0]], dtype=torch.float64))
    straight, bent = segments(viz.geodesics(ax, M, ends[:1], ends[1:]))
    assert torch.allclose(straight[:, 0], torch.linspace(400, -400, 65).double(), atol=1e-9)
    assert bent.norm(dim=-1).min() == pytest.approx(math.log(1 + math.sqrt(2)), abs=1e-9)  # of two ideal points


def test_densities_and_arrows_follow_the_native_disk(ax):
    M, prior = lorentz(4.0), normal(lorentz(4.0))
    viz.native_disk(ax, M, 12.0)
    mesh = viz.density(ax, M, prior.log_prob, measure="lebesgue", resolution=200, dtype=torch.float64)
    assert np.nansum(mesh.get_array()) * (24 / 200) ** 2 == pytest.approx(1, abs=1e-3)
    x = ring(M, 2.0, size=4)
    v, u = tangent(M, x)
    arrows = viz.vectors(ax, M, x, u)
    step = 1e-6
    expected = (G.log0(M, G.exp_at(M, x, step * v)) - G.log0(M, x)) / step
    assert torch.allclose(directions(arrows), expected, atol=1e-4)


def test_circles_of_the_native_disk(ax):
    circles, *labels = viz.native_disk(ax, PLANE, 3.0, step=1.0, color="red")
    assert [label.get_text() for label in labels] == ["1", "2", "3"]
    radii = [np.linalg.norm(circle, axis=-1) for circle in circles.get_segments()]
    assert np.allclose(radii, [[1.0], [2.0], [3.0]])
    assert torch.equal(positions(ax, PLANE, [[1.0, 2.0]]), torch.tensor([[1.0, 2.0]]).double())
    with pytest.raises(TypeError, match="use frame"):
        viz.native_disk(ax, geoopt.Sphere())
    with pytest.raises(ValueError, match="radius = 0"):
        viz.native_disk(ax, PLANE, 0.0)
