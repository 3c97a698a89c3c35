"""Manifolds without a global chart: sphere, torus, rotations, and products with them."""

import copy
import math
import pickle

import geoopt
import mpmath as mp
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
    size = space.vector_size(space.dim(x.shape))
    u = space.tangent(x, space.tangent(x, torch.randn(*space.batch_of(x.shape), size, dtype=x.dtype)))
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


# ---- Accuracy ----


def exact_log(name, x, y):
    """The logarithm and distance of rounded points, by mpmath, in 40 digits."""
    with mp.workdps(40):
        if name == "torus":
            u = mp.matrix([b - a - 2 * mp.pi * mp.nint((b - a) / (2 * mp.pi)) for a, b in zip(x, y, strict=True)])
            return u, mp.norm(u)
        x, y = mp.matrix(x), mp.matrix(y)
        if name == "rotations":
            for _ in range(2):  # Newton's method for the nearest rotation
                x, y = (z * (3 * mp.eye(3) - z.T * z) / 2 for z in (x, y))
            z = x.T * y
            side = mp.matrix([z[2, 1] - z[1, 2], z[0, 2] - z[2, 0], z[1, 0] - z[0, 1]]) / 2
            angle = mp.atan2(mp.norm(side), (z[0, 0] + z[1, 1] + z[2, 2] - 1) / 2)
        else:
            x, y = x / mp.norm(x), y / mp.norm(y)
            cos = mp.fdot(x, y)
            side = y - cos * x
            angle = mp.atan2(mp.norm(side), cos)
        return side * (angle / mp.norm(side) if angle else 1), angle


ANGLES = [1e-8, 1e-4, 1e-2, 1.0, 1.5707, 1.5709, 2.0, 3.0, torch.pi - 1e-3, torch.pi - 1e-6]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("space", ["circle", "sphere", "s5", "torus", "rotations"], indirect=True)
def test_logarithms_are_those_of_the_rounded_points(space, dtype, request):
    """To four roundings of a coordinate, divided by the sine that is left of it near the cut locus of a sphere."""
    (M, n), name, u = space, request.node.callspec.params["space"], torch.finfo(dtype).eps
    for angle in ANGLES:
        x = points(M, n, 8).to(dtype)
        v = tangents(M, x, angle)
        y = G.exp_at(M, x, v)
        assert G.contains(M, y).all()
        exact = [exact_log(name, a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
        logs = torch.tensor([[float(c) for c in log] for log, _ in exact])
        distances = torch.tensor([float(d) for _, d in exact])
        left = math.sin(angle) / angle if name in ("circle", "sphere", "s5") else 1.0
        found = G.log_at(M, x, y)
        error = (found - logs).abs().amax(-1)
        if angle > 3:  # of the two logarithms near the cut locus, rounding may have chosen the other
            error = torch.minimum(error, (found + logs).abs().amax(-1))
        assert (error <= 4 * u * max(1, angle) / left).all(), angle
        assert ((G.distance(M, x, y) - distances).abs() <= 4 * u * max(1, angle)).all(), angle
        assert ((G.squared_distance(M, x, y) - distances**2).abs() <= 16 * u * max(angle, angle**2)).all(), angle
        if angle < 3.141:
            assert ((v - found).norm(dim=-1) <= 10 * u * max(1, angle) / left).all(), angle


@pytest.mark.parametrize("space", ["circle", "sphere", "s5", "torus", "rotations"], indirect=True)
def test_small_steps_from_a_round_point_lose_no_digit(space):
    """From a point whose coordinates are exact, log(exp(v)) is v to 1e-13 from 1e-8 on, the coordinates being exact."""
    M, n = space
    x = torch.eye(3) if n == 3 else torch.eye(n + 1)[0] if M.name == "Sphere" else torch.zeros(n)
    for angle in ANGLES[:-1]:
        v = tangents(M, x.expand(50, *x.shape), angle)
        error = (G.log_at(M, x, G.exp_at(M, x, v)) - v).norm(dim=-1)
        assert (error <= 1e-13 * angle * (1 if angle < 3 else 10)).all(), angle


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coincident_points(space, dtype):
    """Are no distance apart, to the last bit."""
    M, n = space
    x = G.project(M, points(M, n, 500).to(dtype))
    assert G.distance(M, x, x.clone()).abs().max() == 0
    assert G.squared_distance(M, x, x.clone()).abs().max() == 0
    assert G.log_at(M, x, x.clone()).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_do_not_drift(dtype):
    """Over 200 steps the defect stays at that of one rounding of the coordinates."""
    x, R = G.project(SPHERE, torch.randn(20, 3, dtype=dtype)), G.project(ROTATIONS, torch.randn(20, 3, 3, dtype=dtype))
    for _ in range(200):
        x, R = G.bind(SPHERE).exp(x, tangents(SPHERE, x)), G.bind(ROTATIONS).exp(R, tangents(ROTATIONS, R))
    assert (x.double().norm(dim=-1) - 1).abs().max() <= 2 * torch.finfo(dtype).eps
    assert (R.double().mT @ R.double() - torch.eye(3)).abs().max() <= 4 * torch.finfo(dtype).eps


def test_antipodes():
    """Are pi apart, along one of the shortest geodesics, with finite derivatives."""
    for M, n in ((SPHERE, 2), (ROTATIONS, 3), (torus(2), 2)):
        x = points(M, n, 50)
        v = tangents(M, x, torch.pi)
        y = -x if M is SPHERE else G.exp_at(M, x, v if M is ROTATIONS else torch.full_like(x, torch.pi))
        far = G.bind(M).distance(x, y)
        assert torch.allclose(far, torch.full((50,), torch.pi * (2**0.5 if n == 2 and M is not SPHERE else 1)))
        assert (G.distance(M, G.exp_at(M, x, G.log_at(M, x, y)), y) < 1e-14).all()
        leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
        space = G.bind(M)
        for f in (space.distance, space.squared_distance, lambda a, b: space.log(a, b).sum(-1)):  # noqa: B023
            first = torch.autograd.grad(f(*leaves).sum(), leaves, create_graph=True)
            assert all(bool(g.isfinite().all()) for g in first)


def at(M, x):
    """Points near ``x``, as a smooth function of as many numbers as a state has."""
    space = G.bind(M)
    s = space.state(x)[0]
    return lambda v: space.point(space.retract(s + v))[0]


#: Functions of a point and a tangent vector or a second point, and the angle between these.
DERIVATIVES = {
    "exp at 0": (lambda g, x, u: g.exp(x, g.tangent(x, u)), 0.0),
    "exp": (lambda g, x, u: g.exp(x, g.tangent(x, u)), 2.0),
    "log at x": (lambda g, x, y: g.log(x, y), 0.0),
    "log": (lambda g, x, y: g.log(x, y), 2.0),
    "log near the cut locus": (lambda g, x, y: g.log(x, y), 3.1),
    "towards": (lambda g, x, y: g.towards(x, y), 0.0),
    "squared distance at x": (lambda g, x, y: g.squared_distance(x, y), 0.0),
    "squared distance near the cut locus": (lambda g, x, y: g.squared_distance(x, y), 3.1),
    "distance": (lambda g, x, y: g.distance(x, y), 0.3),
    "distance near the cut locus": (lambda g, x, y: g.distance(x, y), 3.1),
    "project": (lambda g, x, y: g.project(x + 0.3 * y), 1.0),
    "project a point": (lambda g, x, y: g.project(x), 1.0),
    "velocity": (lambda g, x, y: g.velocity(g.state(x)[0], g.log(x, y)), 1.0),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives(name):
    """First and second, in reverse and forward mode, against differences, nested and batched, on all factors."""
    M, (function, angle) = mixed(), DERIVATIVES[name]
    g, x = G.bind(M), points(M, 9)
    v = torch.cat([tangents(factor, part, angle) for factor, part in zip(M.manifolds, g.split(x), strict=True)], -1)
    moves = name.startswith("exp")
    second = v if moves else at(M, G.exp_at(M, x, v))

    def f(a, b):
        return function(g, at(M, x)(a), second + b if moves else second(b))

    inputs = (torch.zeros(g.state_size(9), requires_grad=True), torch.zeros(g.state_size(9), requires_grad=True))
    inputs = inputs[: 1 + (name != "project a point")]
    inputs = (inputs[0], torch.zeros_like(v).requires_grad_()) if moves else inputs

    def total(*inputs):
        found = f(*inputs, *(torch.zeros_like(inputs[0]),) * (2 - len(inputs)))
        found = torch.cat([part.flatten() for part in (found if isinstance(found, tuple) else (found,))])
        return (found * torch.linspace(0.5, 1.5, found.numel())).sum()

    assert torch.autograd.gradcheck(total, inputs, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(total, inputs, fast_mode=True, atol=1e-4)
    directions = tuple(torch.randn(3, value.numel()) for value in inputs)

    def along(*d):
        once = lambda *at: torch.func.jvp(total, at, d)[1]  # noqa: E731
        return torch.func.jvp(once, tuple(value.detach() for value in inputs), d)[1]

    first = torch.autograd.grad(total(*inputs), inputs, create_graph=True)
    for d, found in zip(zip(*directions, strict=True), torch.vmap(along)(*directions), strict=True):
        slope = sum((one * other).sum() for one, other in zip(first, d, strict=True))
        twice = torch.autograd.grad(slope, inputs, retain_graph=True)
        expected = sum((one * other).sum() for one, other in zip(twice, d, strict=True))
        assert torch.allclose(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives_are_finite_in_float32(name):
    M, (function, angle) = mixed(), DERIVATIVES[name]
    g, x = G.bind(M), points(M, 9)
    v = torch.cat([tangents(factor, part, angle) for factor, part in zip(M.manifolds, g.split(x), strict=True)], -1)
    second = (v if name.startswith("exp") else G.exp_at(M, x, v)).float().requires_grad_()
    x = x.float().requires_grad_()
    found = function(g, x, second)
    found = sum(part.sum() for part in (found if isinstance(found, tuple) else (found,)))
    first = torch.autograd.grad(found, (x, second), create_graph=True, materialize_grads=True)
    twice = torch.autograd.grad(sum(g.square().sum() for g in first), (x, second), materialize_grads=True)
    assert all(bool(value.isfinite().all()) for value in (*first, *twice))


def test_the_hessian_of_the_squared_distance_is_twice_the_metric(space):
    M, n = space
    x, space = points(M, n), G.bind(space[0])

    def energy(v):
        return space.squared_distance(x, space.exp(x, space.tangent(x, v)))

    size = space.vector_size(n)
    tangent = space.tangent(x.expand(size, *x.shape), torch.eye(size))  # the projector to the tangent space
    hessian = torch.autograd.functional.hessian(energy, torch.zeros(size))
    assert torch.allclose(hessian, 2 * tangent, atol=1e-10)


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
