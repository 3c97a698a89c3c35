"""Distances of all pairs: those of ``distance``, with its accuracy and its derivatives, in every geometry."""

import geoopt
import pyro
import pytest
import torch

import pyro_hyperbolic as ph
from reference import goals, random_cases
from tests.cases import MANIFOLDS, lorentz

G = ph.geometry


def matrix(M, x, y):
    """The distance of one pair, as an entry of a matrix."""
    return G.distance_matrix(M, x.unsqueeze(0), y.unsqueeze(0))[0, 0]


@pytest.mark.parametrize("dtype", goals.U)
def test_error_is_within_10_limits(dtype, monkeypatch):
    """The law of ``distance`` in ``tests/laws/test_accuracy.py``, over the same tables; both derivatives on rays."""
    monkeypatch.setitem(
        goals.CALLS, "distance", ("distance", lambda M, x, y: matrix(M, goals.lift(M, x), goals.lift(M, y)))
    )
    for row, value, found, error in goals.results.__wrapped__("distance", dtype):
        assert error <= 10 * row["limit"] + 4 * goals.U[dtype] * value.item(), (row, found)
    ours = random_cases.QUANTITIES["distance"]._replace(ours=random_cases.points(matrix))
    monkeypatch.setitem(random_cases.QUANTITIES, "distance", ours)
    cases = [row for row in random_cases.table() if (row[0].quantity, row[0].dtype) == ("distance", dtype)]
    cases = [row for row in cases if len(row[0].inputs[0]) > 1][::4]  # on a line it is distance itself
    assert len(cases) == 8
    with pyro.validation_enabled(False):
        for case, exact in cases:
            assert max(found.ratio for found in random_cases.figures(case, exact)) <= 10, case


class Bare(G.Geometry):
    """A manifold of which nothing but the distance is known: points of R^2 with the taxicab metric."""

    name = "Bare"

    def event_shape(self, n):
        return torch.Size((n,))

    def dim(self, shape):
        return shape[-1] if len(shape) else 0

    def contains(self, x):
        return x.isfinite().all(-1)

    def distance(self, x, y):
        return (x - y).abs().sum(-1)

    def squared_distance(self, x, y):
        return self.distance(x, y).square()


class BareManifold(geoopt.Euclidean):
    pass


G.register(BareManifold, Bare)

#: Each with its dimension.
SPACES = {
    **{f"h{n}": (lambda: lorentz(4.0), n) for n in (1, 2, 5)},
    "flat": (lambda: geoopt.Euclidean(1), 3),
    **MANIFOLDS,
}


def sets(name, *shapes, dtype=torch.float64):
    make, n = SPACES[name]
    M, generator = make(), torch.Generator().manual_seed(1)
    return M, *(G.exp0(M, torch.randn(*s, n, generator=generator, dtype=torch.float64).to(dtype)) for s in shapes)


@pytest.mark.parametrize("name", SPACES)
def test_entries_are_distances(name, monkeypatch):
    """Of two sets, whose batches broadcast, and of one, where the matrix is symmetric; in blocks of rows too."""
    M, x, y = sets(name, (2, 1, 5), (3, 4))
    events = len(G.bind(M).event_shape(SPACES[name][1]))
    found = G.distance_matrix(M, x, y)
    gathered = G.distance(M, x.unsqueeze(-events - 1), y.unsqueeze(-events - 2))
    assert found.shape == (2, 3, 5, 4)
    rounding = 1e-12 if "spd" in name else 1e-14
    assert torch.allclose(found, gathered, rtol=rounding, atol=rounding)
    d = G.distance_matrix(M, y)
    monkeypatch.setattr(G.pairs, "_BLOCK", 20)
    assert torch.allclose(G.distance_matrix(M, x, y), found, rtol=rounding, atol=rounding)
    # Functions of functions cannot be computed again in the backward pass.
    assert torch.func.grad(lambda x: G.distance_matrix(M, x, y).sum())(x).isfinite().all()
    assert torch.equal(d, d.mT)
    assert d.diagonal(0, -2, -1).eq(0).all()
    assert G.distance_matrix(M, x[0, 0, :0], y).shape == (3, 0, 4)
    assert G.distance_matrix(M, x, y[0, :0]).shape == (2, 1, 5, 0)


def test_a_distance_is_all_that_is_needed():
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    assert G.distance_matrix(BareManifold(1), x).tolist() == [[0.0, 3.0], [3.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SPACES)
def test_coincident_points(name, dtype):
    """They are at distance zero, with zero gradients and finite second derivatives: at the origin, near and far."""
    make, n = SPACES[name]
    M = make()
    v = torch.randn(3, n, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = G.exp0(M, (torch.tensor([[0.0], [1e-3], [2.0]], dtype=torch.float64) * v).to(dtype)).requires_grad_()
    d = G.distance_matrix(M, x, x.detach().clone())
    assert d.diagonal(0, -2, -1).eq(0).all()
    (gradient,) = torch.autograd.grad(d.diagonal(0, -2, -1).sum(), x, retain_graph=True)
    assert gradient.eq(0).all()
    assert G.distance_matrix(M, x[:1].expand_as(x)).eq(0).all()  # all at the origin
    (first,) = torch.autograd.grad(d.sum(), x, create_graph=True)
    assert first.isfinite().all()
    if name not in ("spd", "ballxspd"):  # its functions of matrices have one derivative
        (second,) = torch.autograd.grad(first.square().sum(), x)
        assert second.isfinite().all()


@pytest.mark.parametrize("block", [15, None])
@pytest.mark.parametrize("name", ["h2", "ball", "flat"])
def test_derivatives(name, block, monkeypatch):
    """First and second order against differences, in the parameters too: on a ray, at one radius, at the origin.

    Large matrices are computed in blocks of rows, again in the backward pass.
    """
    if block:
        monkeypatch.setattr(G.pairs, "_BLOCK", block)
    make, n = SPACES[name]
    e = torch.eye(n, dtype=torch.float64)
    v = torch.stack([e[0], 0.4 * e[0], e[1], 0.0 * e[0], 0.3 * e[0] - e[1]])
    parameters = [p.detach().clone().requires_grad_() for p in G.bind(make()).parameters().values()]

    def upper(v, *values):
        M = make()
        for key, value in zip(G.bind(M).parameters(), values, strict=True):
            M = sampled(M, key, value)
        d = G.distance_matrix(M, G.exp0(M, v))
        return d[tuple(torch.triu_indices(5, 5, 1))]

    def sampled(M, key, value):
        found = geoopt.Lorentz() if key == "k" else ph.manifolds.PoincareBall()
        if key == "k":
            del found.k
        setattr(found, key, value)
        return found

    with pyro.validation_enabled(False):
        assert torch.autograd.gradcheck(upper, (v.requires_grad_(), *parameters), fast_mode=True)
        assert torch.autograd.gradgradcheck(upper, (v, *parameters), fast_mode=True)


def test_a_batch_of_k_is_a_batch_of_manifolds():
    """With one manifold for each set, in the dimension that takes distances one by one as well."""
    ks = torch.tensor([[0.5], [2.0], [10.0]], dtype=torch.float64)
    for n in (1, 3):
        v = torch.randn(2, 3, 4, n, dtype=torch.float64)
        M = geoopt.Lorentz(ks)
        together = G.distance_matrix(M, G.exp0(M, v))
        assert together.shape == (2, 3, 4, 4)
        for i, k in enumerate(ks):
            one = lorentz(k.item())
            assert torch.allclose(together[:, i], G.distance_matrix(one, G.exp0(one, v[:, i])), rtol=1e-14, atol=0)


@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 80.0), (torch.float64, 350.0)])
def test_rays_are_exact(dtype, far):
    """Far out, in front of and behind the origin, with gradients of one per unit of distance."""
    radii = torch.tensor([far, far - 10, 1.0, 0.0, -5.0, -far], dtype=dtype, requires_grad=True)
    d = G.distance_matrix(lorentz(), G.exp0(lorentz(), radii.unsqueeze(-1) * torch.eye(3, dtype=dtype)[0]))
    exact = (radii.unsqueeze(-1) - radii).abs().detach()
    assert torch.allclose(d, exact, rtol=20 * torch.finfo(dtype).eps, atol=20 * torch.finfo(dtype).eps * far)
    (gradient,) = torch.autograd.grad(d.triu().sum(), radii)
    assert torch.allclose(gradient, torch.tensor([5.0, 3.0, 1.0, -1.0, -3.0, -5.0], dtype=dtype), rtol=1e-4)


def test_neighbours_far_out_on_a_ray_have_gradients():
    """Their directions are equal to the bit."""
    radii = torch.tensor([600.0, 599.5, 350.0, 349.9999], dtype=torch.float64, requires_grad=True)
    d = G.distance_matrix(
        lorentz(1.0), G.exp0(lorentz(1.0), radii.unsqueeze(-1) * torch.eye(3, dtype=torch.float64)[0])
    )
    (gradient,) = torch.autograd.grad(d.triu().sum(), radii)
    assert torch.allclose(gradient, torch.tensor([3.0, 1.0, -1.0, -3.0], dtype=torch.float64), rtol=1e-6)


def test_near_pairs_on_a_line_keep_their_digits():
    """There rounding moves points along the line only, far out too."""
    for M, error in [(lorentz(), 1e-15), (geoopt.Euclidean(1), 0.0)]:
        x = G.exp0(M, torch.tensor([[14.0], [14.0 + 1e-6], [-3.0]], dtype=torch.float64))
        assert torch.allclose(G.distance_matrix(M, x), G.distance(M, x.unsqueeze(1), x), rtol=0, atol=error)


def test_a_cluster_near_the_origin_keeps_its_digits():
    """Where 1 / x_0 has one rounding, larger than these distances."""
    M = lorentz(1.0)
    v = torch.tensor([[1.5e-8, 0.0], [1.5e-8 * (1 + 1e-4), 0.0], [1.5e-8, 1e-14]], dtype=torch.float64)
    exact = torch.linalg.vector_norm(v.unsqueeze(1) - v, dim=-1)
    assert torch.allclose(G.distance_matrix(M, G.exp0(M, v)), exact, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e30), (torch.float64, 1e200), (torch.float64, 1e-200)])
def test_flat_squares_stay_in_range(dtype, size):
    x = size * torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=dtype)
    assert torch.allclose(G.distance_matrix(geoopt.Euclidean(1), x)[0, 1] / size, torch.tensor(5.0, dtype=dtype))


def test_errors():
    M, x = lorentz(), G.exp0(lorentz(), torch.zeros(3, 2, dtype=torch.float64))
    for call, error, parts in [
        (lambda: G.distance_matrix(M, x[0]), ValueError, ("(3,)", "one point", "x.unsqueeze(0)")),
        (lambda: G.distance_matrix(M, x, x[0]), ValueError, ("y has shape", "y.unsqueeze(0)")),
        (lambda: G.distance_matrix(geoopt.Lorentz(torch.ones(3)), x), ValueError, ("k of", "(3,)", "unsqueeze(-1)")),
        (lambda: G.distance_matrix(M, 2 * x), ValueError, ("x is not on", "exp0(M, v)")),
        (lambda: G.distance_matrix(M, x, x[:, :2]), ValueError, ("(3, 2)",)),
        (lambda: G.distance_matrix(M, x, x.float()), TypeError, ("float32", "float64")),
        (lambda: G.distance_matrix(M, x.expand(2, 3, 3), x.expand(5, 3, 3)), ValueError, ("(2,)", "(5,)")),
    ]:
        with pytest.raises(error) as info:
            call()
        assert all(part in str(info.value) for part in parts), info.value
