"""Midpoints: the normalised weighted sum, against geodesics, minimisation, and isometries far from the origin."""

import math

import geoopt
import pytest
import torch

import pyro_hyperbolic as ph

G = ph.geometry
LORENTZ = geoopt.Lorentz()
pytestmark = pytest.mark.usefixtures("float64")

HADAMARD = {
    "hyperboloid": (LORENTZ, 2),
    "k = 4": (geoopt.Lorentz(k=torch.tensor(4.0, dtype=torch.float64)), 3),
    "line": (LORENTZ, 1),
    "ball": (geoopt.PoincareBall(c=torch.tensor(0.25, dtype=torch.float64)), 2),
    "plane": (geoopt.Euclidean(1), 2),
    "product": (geoopt.ProductManifold((LORENTZ, 3), (geoopt.PoincareBall(), 2)), 4),
}
COMPACT = {
    "sphere": (geoopt.Sphere(), (4,)),
    "torus": (ph.manifolds.Torus(2), (2,)),
    "rotations": (ph.manifolds.Rotations(), (3, 3)),
    "with a sphere": (geoopt.ProductManifold((geoopt.Sphere(), 3), (LORENTZ, 3)), (6,)),
}


def points(name, *batch, spread=1.0):
    if name in HADAMARD:
        M, n = HADAMARD[name]
        return M, G.exp0(M, spread * torch.randn(*batch, n))
    M, event = COMPACT[name]
    return M, G.project(M, torch.randn(*batch, *event) + 0.5)


@pytest.mark.parametrize("name", HADAMARD | COMPACT)
def test_of_two_points_it_is_the_middle_of_the_geodesic(name):
    M, x = points(name, 2, 5)
    assert (G.distance(M, G.midpoint(M, x), G.geodesic(M, x[0], x[1], 0.5)) < 1e-7).all()
    assert (G.distance(M, G.midpoint(M, x, torch.tensor([0.0, 2.0])), x[1]) < 1e-7).all()


@pytest.mark.parametrize("name", ["hyperboloid", "k = 4", "line", "ball"])
def test_it_minimises_the_mean_of_cosh(name):
    M, x = points(name, 6, spread=2.0)
    w = torch.rand(6)
    root = G.bind(M).curvature().neg().sqrt()
    m = G.midpoint(M, x, w)
    v = torch.zeros(G.bind(M).dim(x.shape), requires_grad=True)
    mean = (w * (root * G.distance(M, G.exp_at(M, m, v), x)).cosh()).sum()
    assert torch.autograd.grad(mean, v)[0].norm() < 1e-9 * mean.item()


@pytest.mark.parametrize("name", HADAMARD)
def test_it_moves_with_the_points(name):
    M, x = points(name, 5)
    p = points(name)[1]
    moved = G.midpoint(M, G.translate(M, p, x))
    assert G.distance(M, moved, G.translate(M, p, G.midpoint(M, x))) < 1e-7


@pytest.mark.parametrize(("r", "dtype"), [(8.0, torch.float64), (16.0, torch.float64), (4.0, torch.float32)])
def test_far_out_nothing_but_coordinates_is_rounded(r, dtype):
    v = torch.randn(7, 3)
    p = G.exp0(LORENTZ, torch.tensor([r, 0.0, 0.0]))
    x = G.exp_at(LORENTZ, p, v).to(dtype)
    found = G.log_at(LORENTZ, p, G.project(LORENTZ, G.midpoint(LORENTZ, G.project(LORENTZ, x)).double()))
    error = (found - G.log0(LORENTZ, G.midpoint(LORENTZ, G.exp0(LORENTZ, v)))).norm()
    assert error < 8 * torch.finfo(dtype).eps * math.exp(r)


@pytest.mark.parametrize("r", [30.0, 300.0])
def test_points_at_one_place_or_opposite_places(r):
    x = G.exp0(LORENTZ, torch.tensor([[r, 0.0], [r, 0.0], [-r, 0.0], [-r, 0.0]]))
    assert G.distance(LORENTZ, G.midpoint(LORENTZ, x[:2]), x[0]) < 1e-12 * r
    assert torch.equal(G.midpoint(LORENTZ, x[1:3]), G.origin(LORENTZ, 2).double())


def test_dimensions_batches_of_k_and_gradients():
    M = geoopt.Lorentz(k=torch.tensor([0.5, 1.0, 2.0]))
    x = G.exp0(M, torch.randn(4, 3, 2))  # a batch of k is of the last dimension
    found = G.midpoint(M, x)
    assert found.shape == (3, 3)
    one = geoopt.Lorentz(k=torch.tensor(2.0))
    assert torch.allclose(found[2], G.midpoint(one, x[:, 2]))
    assert torch.allclose(G.midpoint(one, x[:, 2:].transpose(0, 1), dim=1)[0], found[2])

    x, w = G.exp0(one, torch.randn(3, 3, 3, 2)), torch.rand(3, 3)  # weights broadcast as the batch does, then average
    for mean in (G.midpoint, G.frechet_mean):
        assert torch.equal(mean(one, x, w, dim=1), mean(one, x, w.expand(3, 3, 3), dim=1))

    def of(v, w):
        return G.log0(one, G.midpoint(one, G.exp0(one, v), w))

    assert torch.autograd.gradcheck(of, (torch.randn(4, 3).requires_grad_(), torch.rand(4).requires_grad_()))


def test_bad_input():
    with pytest.raises(TypeError, match="SymmetricPositiveDefinite has no midpoint in closed form; use frechet_mean"):
        G.midpoint(geoopt.SymmetricPositiveDefinite(), torch.eye(2).expand(3, 2, 2))
    third, rotations = 0.3 + 2 * math.pi * torch.arange(3) / 3, ph.manifolds.Rotations()
    flips = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]).diag_embed()
    for M, x in [
        (geoopt.Sphere(), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])),
        (geoopt.Sphere(), torch.stack([third.cos(), third.sin()], -1)),  # the sum is about 1e-16
        (ph.manifolds.Torus(2), torch.stack([third - 3, torch.zeros(3)], -1)),
        (rotations, G.exp_at(rotations, torch.eye(3), torch.ones(3)) @ flips),
    ]:
        with pytest.raises(ValueError, match="antipodes"):
            G.midpoint(M, x)
    with pytest.raises(ValueError, match="dim = 1, but x of shape"):
        G.midpoint(LORENTZ, torch.tensor([[1.0, 0.0]]), dim=1)
    for weights in ([0.0, 0.0], [1.0, -0.5]):
        with pytest.raises(ValueError, match="nonnegative with a positive finite sum"):
            G.midpoint(LORENTZ, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor(weights))
    with pytest.raises(ValueError, match=r"weights has shape \(2, 1\).*\(1,\)"):
        G.midpoint(LORENTZ, torch.tensor([[1.0, 0.0]]), torch.ones(2, 1))
