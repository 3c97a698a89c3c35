"""Pictures of the sphere and the torus: areas, seams, and where the artists are."""

import math

import geoopt
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection, QuadMesh
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

import pyro_hyperbolic as ph
from pyro_hyperbolic import viz

SPHERE, TORUS = geoopt.Sphere(), ph.manifolds.Torus(2)
PICTURES = {"globe": (SPHERE, None), "mollweide": (SPHERE, "mollweide"), "torus": (TORUS, None)}
#: Radius of the circles, and the rims where they nearly touch.
R = math.sqrt(2)


@pytest.fixture(params=PICTURES)
def drawn(request):
    """Returns axes, the manifold, and random points."""
    M, projection = PICTURES[request.param]
    generator = torch.Generator().manual_seed(0)
    if M is SPHERE:
        x = torch.nn.functional.normalize(torch.randn(30, 3, generator=generator, dtype=torch.float64), dim=-1)
    else:
        x = math.pi * (2 * torch.rand(30, 2, generator=generator, dtype=torch.float64) - 1)
    return FigureCanvasAgg(Figure()).figure.add_subplot(projection=projection), M, x


def positions(ax, M, x):
    return torch.tensor(viz.points(ax, M, x).get_offsets())


def page(ax, p):
    """Positions on the page up to scale, of coordinates of the axes: what a reader sees."""
    transform = ax.transProjection if ax.name == "mollweide" else None
    return torch.tensor(transform.transform(p)) if transform else p


def exp(M, x, u):
    return ph.geometry.complete(M).exp(x, u)


def tangent(M, x, seed=3):
    u = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ph.geometry.complete(M).tangent(x, u)


def log_prob(x):
    return (2 * x).sin().sum(-1)


def test_artists_are_returned_and_on_the_given_axes(drawn):
    ax, M, x = drawn
    artists = [
        (viz.points(ax, M, x), PathCollection),
        (viz.geodesics(ax, M, x[:1], x), LineCollection),
        (viz.tree(ax, M, x, torch.tensor([[0, 1], [0, 2]])), LineCollection),
        (viz.density(ax, M, log_prob, resolution=20), QuadMesh),
        (viz.regions(ax, M, log_prob, resolution=20), QuadContourSet),
        (viz.vectors(ax, M, x, tangent(M, x)), Quiver),
        (viz.vector_field(ax, M, lambda y: tangent(M, y.double()), resolution=4, dtype=torch.float64), Quiver),
        *((artist, object) for artist in viz.frame(ax, M)),
    ]
    for artist, kind in artists:
        assert isinstance(artist, kind)
        assert artist.axes is ax
        assert artist in ax.get_children() or artist in ax.spines.values()
    ax.figure.canvas.draw()  # nothing warns, warnings being errors


def test_areas_are_true(drawn):
    """Of parallelograms of velocities on the page, by differences."""
    ax, M, x = drawn
    u = ph.geometry.complete(M).frame(x)
    h = 1e-5
    columns = [
        (page(ax, positions(ax, M, exp(M, x, h * v))) - page(ax, positions(ax, M, exp(M, x, -h * v)))) / (2 * h)
        for v in u.unbind(-2)
    ]
    areas = torch.linalg.det(torch.stack(columns, -1)).abs()
    # Matplotlib solves Mollweide's equation to 1e-3.
    assert torch.allclose(areas, torch.ones_like(areas), rtol=1e-2 if ax.name == "mollweide" else 1e-6)


def test_arrows_are_velocities(drawn):
    ax, M, x = drawn
    u, h = tangent(M, x), 1e-6
    arrows = viz.vectors(ax, M, x, u)
    found = torch.tensor(np.stack([arrows.U, arrows.V], -1))
    expected = (positions(ax, M, exp(M, x, h * u)) - positions(ax, M, exp(M, x, -h * u))) / (2 * h)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_density_is_where_its_points_are(drawn):
    """The brightest cell is that of the mode, and the density sums to one over the cells."""
    ax, M, x = drawn
    squared = ph.geometry.complete(M).squared_distance
    for mode in x[:4]:
        mesh = viz.density(ax, M, lambda y, mode=mode: -20 * squared(mode, y), resolution=80, dtype=torch.float64)
        row, column = np.unravel_index(int(mesh.get_array().argmax()), mesh.get_array().shape)
        corners = np.asarray(mesh.get_coordinates())
        cell = corners[row + 1, column + 1] - corners[row, column]
        (found,) = positions(ax, M, mode).numpy()
        assert (np.abs(corners[row, column] + cell / 2 - found) <= 1.1 * cell / 2).all()
    uniform = viz.density(ax, M, lambda y: torch.zeros(len(y)), resolution=80).get_array().filled(0.0)
    corners = np.asarray(page(ax, corners.reshape(-1, 2))).reshape(corners.shape)
    one, other = corners[1:, 1:] - corners[:-1, :-1], corners[1:, :-1] - corners[:-1, 1:]  # diagonals of cells
    total = (uniform * np.abs(one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]) / 2).sum()
    assert total == pytest.approx(4 * math.pi if M is SPHERE else 4 * math.pi**2, rel=0.06)


def test_lebesgue_density_of_an_equal_area_picture_is_the_riemannian_one(drawn):
    ax, M, _ = drawn
    one, other = (
        viz.density(ax, M, log_prob, measure=measure, resolution=10).get_array().filled(0.0)
        for measure in ("riemannian", "lebesgue")
    )
    assert (one == other).all()


def test_regions_hold_their_masses(drawn):
    """Of a density proportional to exp(h), where h is uniform in [-1, 1]."""
    ax, M, _ = drawn
    height = (lambda y: y[:, 2]) if M is SPHERE else (lambda y: y[:, 1] / math.pi)
    contours = viz.regions(ax, M, lambda y: height(y).double(), [0.25, 0.75], resolution=100)
    assert contours.levels.tolist() == pytest.approx(
        [math.e - mass * 2 * math.sinh(1) for mass in (0.75, 0.25)], rel=0.01
    )


def test_geodesics_go_on_behind_a_seam(drawn):
    """Their vertices are on the geodesic; on both sides of a gap they are next to each other on the manifold."""
    ax, M, x = drawn
    x, y = x[:15], x[15:]
    lines = [torch.tensor(path.vertices) for path in viz.geodesics(ax, M, x, y, samples=33).get_paths()]
    space = ph.geometry.complete(M)
    f = torch.linspace(0, 1, 33, dtype=torch.float64)[:, None]
    cuts = 0
    for line, start, u in zip(lines, x, space.log(x, y), strict=True):
        expected = positions(ax, M, space.exp(start.expand(33, -1), f * u))
        gaps = line.isnan().any(-1).nonzero().flatten().tolist()
        kept = torch.ones(len(line), dtype=torch.bool)
        for gap in gaps:
            kept[gap - 1 : gap + 2] = False
            assert at_a_seam(ax, M, line[gap - 1], line[gap + 1])
        assert torch.allclose(line[kept], expected, atol=1e-12)
        steps = page(ax, line).diff(dim=0).norm(dim=-1)
        assert steps[steps.isfinite()].max() < 0.6
        cuts += len(gaps)
    assert cuts >= 2


def at_a_seam(ax, M, p, q):
    """Returns whether two places are the same place of two edges, from (p, q) in either order."""
    if ax.name == "mollweide":
        return abs(abs(p[0] - q[0]) - 2 * math.pi) < 1e-6 and abs(p[1] - q[1]) < 1e-6
    if M is TORUS:
        apart = (p - q).abs()
        return bool(((apart < 1e-6) | ((apart - 2 * math.pi).abs() < 1e-6)).all())
    centres = torch.tensor([[math.copysign(1.03 * R, value[0]), 0.0] for value in (p, q)], dtype=p.dtype)
    rim = torch.stack([p, q]) - centres
    mirrored = rim[1] * torch.tensor([-1.0, 1.0], dtype=p.dtype)
    return bool((rim.norm(dim=-1) - R).abs().max() < 1e-6 and (rim[0] - mirrored).abs().max() < 1e-6)


def test_hemispheres_are_as_documented():
    """Longitude 0 is in the middle, 90 degrees east the centre of the right circle, north is up."""
    ax = Figure().subplots()
    west, east, _ = viz.globe(ax, SPHERE)
    for step, lines in ((30.0, 16), (60.0, 8), (90.0, 4), (120.0, 4), (180.0, 2)):
        *_, grid = viz.globe(Figure().subplots(), SPHERE, step=step)
        assert len(grid.get_paths()) == lines
    p = positions(ax, SPHERE, [[0.0, 1.0, 0.0], [0.0, -1.0, 0.0], [1.0, 1e-9, 0.0], [0.0, 0.6, 0.8], [-0.6, 0.8, 0.0]])
    assert p[:2].tolist() == [list(east.center), list(west.center)]
    assert p[2].tolist() == pytest.approx([east.center[0] - R, 0.0])
    assert p[3, 1] > 0.5
    assert p[4, 0] > east.center[0]


def test_glued_sides_have_the_same_marks():
    ax = Figure().subplots()
    _, _, _, _, single, double, _ = viz.torus_square(ax, TORUS)
    assert sorted(single.get_ydata()) == pytest.approx([-math.pi, math.pi])
    assert np.unique(double.get_xdata()).tolist() == pytest.approx([-math.pi, math.pi])
    assert len(double.get_xdata()) == 4
