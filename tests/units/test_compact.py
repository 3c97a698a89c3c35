"""Manifolds without a global chart: sphere, torus, rotations, and products with them."""

import copy
import pickle

import geoopt
import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch.distributions import biject_to, transform_to

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from tests.cases import lorentz

G = ph.geometry
on_manifold = hdist.constraints.on_manifold
SPHERE, ROTATIONS = geoopt.Sphere(), ph.manifolds.Rotations()


def torus(n):
    return ph.manifolds.Torus(n)


def mixed():
    return geoopt.ProductManifold((lorentz(2.0), 3), (SPHERE, 3), (torus(2), 2), (ROTATIONS, (3, 3)))


#: How to make a manifold, and its dimension.
COMPACT = {
    "circle": (geoopt.Sphere, 1),
    "sphere": (geoopt.Sphere, 2),
    "s5": (geoopt.Sphere, 5),
    "torus": (lambda: torus(2), 2),
    "rotations": (ph.manifolds.Rotations, 3),
    "mixed": (mixed, 9),
    "nested": (lambda: geoopt.ProductManifold((geoopt.Euclidean(1), 2), (mixed(), 17)), 11),
}

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(params=COMPACT)
def space(request):
    make, n = COMPACT[request.param]
    return make(), n


def points(M, n, *shape):
    """Random points."""
    to = transform_to(on_manifold(M))
    return to(torch.randn(*shape, G.bind(M).state_size(n)))


def tangents(M, x, length=1.0):
    """Random tangent vectors at points, of that length."""
    space = G.bind(M)
    u = space.tangent(x, torch.randn(*space.batch_of(x.shape), space.vector_size(space.dim(x.shape))))
    return length * u / u.norm(dim=-1, keepdim=True)


# ---- Maps ----


def test_public_maps(space):
    """exp and log are inverse; geodesics have constant speed; squares, matrices and numbers agree."""
    M, n = space
    x = points(M, n, 4)
    v = tangents(M, x, 1.3)
    y = G.exp_at(M, x, v)
    assert G.contains(M, y).all()
    assert torch.allclose(G.log_at(M, x, y), v)
    assert torch.allclose(G.distance(M, x, y), torch.full((4,), 1.3))
    assert torch.allclose(G.squared_distance(M, x, y), torch.full((4,), 1.69))
    assert torch.allclose(G.distance(M, x, G.geodesic(M, x, y, 0.25)), torch.full((4,), 0.325))
    matrix = G.distance_matrix(M, x)
    assert torch.allclose(matrix, G.distance(M, x.unsqueeze(1), x), atol=1e-12)
    assert torch.equal(matrix, matrix.mT)
    assert (matrix.diagonal() == 0).all()
    assert torch.allclose(G.project(M, y + 1e-9 * torch.randn_like(y)), y, atol=1e-8)


def test_wrong_arguments_name_the_remedy(space):
    M, n = space
    x = points(M, n, 3)
    v = tangents(M, x)
    with pytest.raises(ValueError, match=r"dimensions differ.*\(3, \d+\).*tangent vectors"):
        G.exp_at(M, x, torch.cat([v, v], -1))
    with pytest.raises(TypeError, match="float32"):
        G.exp_at(M, x, v.float())
    with pytest.raises(ValueError, match=r"NaN"):
        G.exp_at(M, x, v * torch.nan)
    with pytest.raises(ValueError, match="is not on") as info:
        G.distance(M, x, x + 4.0)
    assert "project" in str(info.value) or "factor 0" in str(info.value)
    with pytest.raises(ValueError, match="in n >= 1 dimensions") as info:
        G.log_at(M, x, torch.tensor(1.0))
    assert "exp0" not in str(info.value)


@pytest.mark.parametrize(
    "call", [G.origin, G.exp0, lambda M, _: G.log0(M, torch.ones(3)), lambda M, _: biject_to(on_manifold(M))]
)
def test_what_needs_a_chart_says_what_works(space, call):
    M, n = space
    with pytest.raises(TypeError, match=r"no global chart.*continuous_flow.*LiftReparam.*transform_to"):
        call(M, n if call is G.origin else torch.ones(n))


# ---- Constraints ----


def test_constraints_are_values(space):
    """Equal, with equal hashes, after copying and pickling; not equal to those of other manifolds."""
    M, _ = space
    support = on_manifold(M)
    for other in (on_manifold(copy.deepcopy(M)), pickle.loads(pickle.dumps(support))):
        assert other == support
        assert hash(other) == hash(support)
    assert [key for key, (make, _) in COMPACT.items() if on_manifold(make()) == support]
    assert on_manifold(torus(5)) != support


def test_parameters_stay_on_the_manifold(space):
    M, n = space
    goal = points(M, n)
    start = G.exp_at(M, goal, tangents(M, goal))
    pyro.clear_param_store()

    def model():
        pyro.factor("f", -G.squared_distance(M, pyro.param("p", start, constraint=on_manifold(M)), goal))

    svi = SVI(model, lambda: None, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(50):
        svi.step()
    assert G.contains(M, pyro.param("p"))
    assert G.distance(M, pyro.param("p"), goal) < 0.2


def test_the_projection_is_a_right_inverse_of_its_section(space):
    M, n = space
    to, x = transform_to(on_manifold(M)), points(M, n, 2, 3)
    z = to.inv(x)
    assert torch.allclose(to(z), x)
    assert to.forward_shape(z.shape) == x.shape
    assert to.inverse_shape(x.shape) == z.shape
    assert to == copy.deepcopy(to) == pickle.loads(pickle.dumps(to))
    with pytest.raises(NotImplementedError, match="LiftReparam"):
        to.log_abs_det_jacobian(z, x)
    with pytest.raises(ValueError, match="nearest"):
        to(z * torch.nan)
