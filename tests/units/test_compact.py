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
from tests.cases import ball, lorentz
from tests.half_space import HalfSpace

G = ph.geometry
on_manifold = hdist.constraints.on_manifold
SPHERE, ROTATIONS, TORUS = geoopt.Sphere(), ph.manifolds.Rotations(), ph.manifolds.Torus(2)


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


def test_a_mean_that_may_not_be_unique_is_refused(space):
    M, n = space
    with pytest.raises(TypeError, match=r"more than one mean.*squared_distance"):
        G.frechet_mean(M, points(M, n, 3))


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_angles_of_many_turns(dtype):
    """Are on the torus, the angle of their sine and cosine; far out as near as rounded turns can be."""
    for turns in (3, 1e2, 1e6):
        x = 2 * math.pi * turns * torch.randn(20_000, 2, dtype=dtype)
        y = G.project(TORUS, x)
        assert G.contains(TORUS, y).all()
        apart = G.distance(TORUS, y.double(), torch.atan2(x.double().sin(), x.double().cos()))
        assert (apart <= 2 * torch.finfo(dtype).eps * (1 + x.double().norm(dim=-1))).all()
    (slope,) = torch.autograd.grad(G.project(TORUS, x.requires_grad_()).sum(), x)
    assert (slope == 1).all()


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


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_antipodes_up_to_rounding(n, dtype):
    """The difference of points is rounding error there, but log is tangent and as long as the distance."""
    x = points(SPHERE, n, 200).to(dtype)
    x = G.project(SPHERE, x)
    eps = torch.finfo(dtype).eps
    for y in (G.project(SPHERE, -1.7 * x), -x * (1 + 8 * eps), G.exp_at(SPHERE, x, G.log_at(SPHERE, x, -x))):
        u = G.log_at(SPHERE, x, y)
        assert torch.allclose(u.norm(dim=-1), G.distance(SPHERE, x, y), rtol=16 * eps)
        assert ((u * x).sum(-1).abs() <= 64 * eps).all()


def at(M, x):
    """Points near ``x``, as a smooth function of as many numbers as a state has."""
    space = G.bind(M)
    s = space.state(x)[0]
    return lambda v: space.point(space.retract(s + v))[0]


#: Functions of a point and a tangent vector or a second point, and the angle between these.
DERIVATIVES = {
    "exp at 0": (lambda g, x, u: [g.exp(x, g.tangent(x, u))], 0.0),
    "exp": (lambda g, x, u: [g.exp(x, g.tangent(x, u))], 2.0),
    "log at x": (lambda g, x, y: [g.log(x, y), *g.towards(x, y), g.squared_distance(x, y)], 0.0),
    "log": (lambda g, x, y: [u := g.log(x, y), g.distance(x, y), g.velocity(g.state(x)[0], u)], 2.0),
    "log near the cut locus": (lambda g, x, y: [g.log(x, y), g.distance(x, y), g.squared_distance(x, y)], 3.1),
    "project": (lambda g, x, y: [g.project(x), g.project(x * torch.linspace(0.5, 1.5, x.size(-1)).to(x) + 0.3 * y)], 1),
}


def all_of(parts):
    return torch.cat([part.flatten() for part in parts])


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
    inputs = (inputs[0], torch.zeros_like(v).requires_grad_()) if moves else inputs

    def total(*inputs):
        found = all_of(f(*inputs))
        return found @ torch.linspace(0.5, 1.5, found.numel())

    assert torch.autograd.gradcheck(total, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(total, inputs, fast_mode=True, atol=1e-4)
    directions = tuple(torch.randn(2, value.numel()) for value in inputs)

    def along(*d):
        once = lambda *at: torch.func.jvp(total, at, d)[1]  # noqa: E731
        return torch.func.jvp(once, tuple(value.detach() for value in inputs), d)

    first = torch.autograd.grad(total(*inputs), inputs, create_graph=True)
    for d, *found in zip(zip(*directions, strict=True), *torch.vmap(along)(*directions), strict=True):
        slope = sum((one * other).sum() for one, other in zip(first, d, strict=True))
        twice = torch.autograd.grad(slope, inputs, retain_graph=True)
        expected = [slope, sum((one * other).sum() for one, other in zip(twice, d, strict=True))]
        assert torch.allclose(torch.stack(found), torch.stack(expected), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives_are_finite_in_float32(name):
    M, (function, angle) = mixed(), DERIVATIVES[name]
    g, x = G.bind(M), points(M, 9)
    v = torch.cat([tangents(factor, part, angle) for factor, part in zip(M.manifolds, g.split(x), strict=True)], -1)
    second = (v if name.startswith("exp") else G.exp_at(M, x, v)).float().requires_grad_()
    x = x.float().requires_grad_()
    found = all_of(function(g, x, second)).sum()
    first = torch.autograd.grad(found, (x, second), create_graph=True, materialize_grads=True)
    twice = torch.autograd.grad(sum(g.square().sum() for g in first), (x, second), materialize_grads=True)
    assert all(bool(value.isfinite().all()) for value in (*first, *twice))


# ---- Manifold objects ----


@pytest.mark.parametrize("space", ["torus", "rotations", "mixed", "nested"], indirect=True)
def test_optimisers_of_geoopt(space):
    """Stay on the manifold and reach a goal; objects check points and vectors, and agree with our maps."""
    M, n = space
    goal = points(M, n)
    p = geoopt.ManifoldParameter(G.exp_at(M, goal, tangents(M, goal)), manifold=M)
    optimiser = geoopt.optim.RiemannianAdam([p], lr=0.1, stabilize=10)
    for _ in range(50):
        optimiser.zero_grad()
        G.squared_distance(M, p, goal).backward()
        optimiser.step()
    assert G.contains(M, p)
    assert G.distance(M, p, goal) < 0.3


@pytest.mark.parametrize("space", ["torus", "rotations"], indirect=True)
def test_objects_are_geoopt_manifolds(space):
    M, n = space
    event = G.bind(M).event_shape(n)
    x, y = M.random(5, *event), M.random(5, *event)
    v, w = (M.proju(x, torch.randn_like(x)) for _ in range(2))
    assert x.shape == (5, *event)
    for each in (x, M.projx(x + 0.1 * torch.randn_like(x)), M.expmap(x, v), M.origin(5, *event)):
        M.assert_check_point_on_manifold(each)
        assert G.contains(M, each).all()
    for each in (v, M.logmap(x, y)):
        M.assert_check_vector_on_tangent(x, each)
    assert torch.allclose(M.dist(x, y), G.distance(M, x, y))
    pair = x.expand(2, *x.shape)
    for keep in (M.dist(pair, y, keepdim=True), M.inner(pair, v, keepdim=True)):
        assert keep.shape == (2, 5, *(1 for _ in event))
    assert torch.allclose(M.norm(x, M.logmap(x, y)), M.dist(x, y))
    assert torch.allclose(M.expmap(x, M.logmap(x, y)), y)
    moved = M.transp(x, y, v)
    M.assert_check_vector_on_tangent(y, moved)
    assert torch.allclose(M.inner(y, moved, M.transp(x, y, w)), M.inner(x, v, w))
    assert torch.allclose(M.transp(x, y, M.logmap(x, y)), -M.logmap(y, x))  # a geodesic is parallel to itself
    with pytest.raises(ValueError, match="shape"):
        M.assert_check_point(torch.zeros(4))
    if isinstance(M, ph.manifolds.Torus):
        outside = [M.origin(5, *event) + 3.2]
    else:  # scaled, reflected to rounding, and turned by what is no angular velocity
        outside = [1.2 * x, x * torch.tensor([4e-6 - 1, 1.0, 1.0])]
        with pytest.raises(ValueError, match="skew"):
            M.assert_check_vector_on_tangent(x, x)
    for each in outside:
        with pytest.raises(ValueError, match="angles|rotation"):  # noqa: RUF043
            M.assert_check_point_on_manifold(each)
    uniform = G.complete(M).features(M.random(2000, *event))  # coordinates of uniform unit vectors
    assert uniform.mean(0).abs().max() < 4.5 / 2000**0.5
    function = lambda z: G.squared_distance(M, z, y).sum()  # noqa: E731
    gradient = M.egrad2rgrad(x, torch.autograd.functional.jacobian(function, x))
    assert torch.allclose(gradient, -2 * M.logmap(x, y))


def test_transport_of_rotations_is_parallel():
    """Along a geodesic, divided into many steps, it is what projections of tangent matrices tend to."""
    x = points(ROTATIONS, 3)
    u, v = tangents(ROTATIONS, x, 2.0), x @ torch.tensor([[0.0, -1.0, 2.0], [1.0, 0.0, 0.5], [-2.0, -0.5, 0.0]])
    y, moved, steps = G.exp_at(ROTATIONS, x, u), v, 200
    for i in range(1, steps + 1):
        moved = ROTATIONS.proju(G.exp_at(ROTATIONS, x, u * i / steps), moved)
    assert torch.allclose(ROTATIONS.transp(x, y, v), moved, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_nearest_rotation(dtype):
    """Of any matrix is that of its singular vectors; of a matrix with more than one there is an error."""
    x = torch.randn(200, 3, 3, dtype=dtype)
    x[:50] = points(ROTATIONS, 3, 50).to(dtype) + 1e-3 * x[:50]
    u, s, vh = torch.linalg.svd(x)
    sign = torch.linalg.det(u @ vh)
    expected = torch.cat([u[..., :2], u[..., 2:] * sign[..., None, None]], -1) @ vh
    gap = s[:, 1] + sign * s[:, 2]
    bound = 64 * torch.finfo(dtype).eps * s[:, 0] / gap
    found = G.project(ROTATIONS, x)
    assert ((found - expected).norm(dim=(-2, -1)) <= bound).all()
    for size in (1e-30, 1e6, 1e30):
        assert torch.allclose(found, G.project(ROTATIONS, size * x), atol=1e4 * torch.finfo(dtype).eps)
    for bad in (
        torch.full((3, 3), math.nan),
        torch.full((3, 3), math.inf),
        torch.zeros(3, 3),
        torch.diag(torch.tensor([1.0, 0.0, 0.0])),
        torch.diag(torch.tensor([2.0, 1.0, -1.0])),
    ):
        with pytest.raises(ValueError, match=r"no nearest point on Rotations.*singular values"):
            G.project(ROTATIONS, bad.to(dtype))
        with pytest.raises(ValueError, match="no nearest point on Rotations"):
            G.project(ROTATIONS, found[0] @ bad.to(dtype) @ found[1])
    with pytest.raises(ValueError, match=r"Sphere.* 2 of 3 events, the first is \(0, 0, 0\).*not zero"):
        G.project(SPHERE, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [math.nan, 0.0, 0.0]]))


# ---- Velocities ----

CURVED = {
    "hyperboloid": (lorentz(2.0), 3),
    "line": (lorentz(2.0), 1),
    "half-space": (HalfSpace(), 2),
    "many": (geoopt.Lorentz(torch.tensor([0.5, 1.0, 3.0, 9.0], dtype=torch.float64)), 3),
    "ball": (ball(0.7), 3),
    "flat": (geoopt.Euclidean(1), 2),
    "spd2": (geoopt.SymmetricPositiveDefinite(), 3),
    "spd3": (geoopt.SymmetricPositiveDefinite(), 6),
}


@pytest.mark.parametrize("name", CURVED)
def test_velocities_of_tangent_coordinates(name):
    """Are the derivative of log_o(exp_x(u)), smooth in all modes, at the origin and at equal eigenvalues too."""
    M, n = CURVED[name]
    g, u = G.bind(M), torch.randn(4, n)
    for r in (0.0, 5.0) if name == "half-space" else (0.0, 1e-8, 0.28, 5.0):
        s = torch.randn(4, n)
        s = r * s / s.norm(dim=-1, keepdim=True)
        found = g.velocity(s, u)
        assert torch.allclose(found, G.Hadamard.velocity(g, s, u), rtol=1e-11, atol=1e-12)
        if name == "many":
            continue
        for member, other in zip(found, torch.vmap(g.velocity)(s, u), strict=True):
            assert torch.allclose(member, other)
        function = lambda s, u=u: g.velocity(s, u).sum()  # noqa: E731
        hessian = torch.autograd.functional.hessian(lambda s, u=u: g.velocity(s, u[0]).sum(), s[0])
        assert hessian.isfinite().all()
        twice = torch.func.jacfwd(torch.func.jacfwd(lambda s, u=u: g.velocity(s, u[0]).sum()))(s[0])
        assert torch.allclose(twice, hessian, atol=1e-10)
        forward = name != "half-space"  # its velocity is itself a derivative, which torch.func alone nests
        assert torch.autograd.gradcheck(function, s.requires_grad_(), fast_mode=True, check_forward_ad=forward)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_velocities_far_out_are_finite(dtype):
    s = torch.tensor([[80.0, 0.0], [600.0, 0.0], [1e6, 0.0]], dtype=dtype, requires_grad=True)
    v = G.bind(lorentz()).velocity(s, torch.ones_like(s))
    assert torch.allclose(v, torch.tensor([1.0, 0.0], dtype=dtype).expand(3, 2))
    assert torch.autograd.grad(v.sum(), s)[0].isfinite().all()
    x = torch.tensor([64.0, -64.0, 0.0], dtype=dtype)
    v = G.bind(geoopt.SymmetricPositiveDefinite()).velocity(x, torch.ones_like(x))
    assert v.tolist() == pytest.approx([1.0, 1.0, 64 / math.sinh(64.0)], rel=256 * torch.finfo(dtype).eps, abs=0.0)


@pytest.mark.parametrize(
    "v",
    [[0.0] * 6, [3.0, 3.0, -2.0, 0.0, 0.0, 1.0], *([3.0, 3.0 + d, 3.0 - d, d, 0.0, 0.0] for d in (1e-8, 1e-3, 1.0))],
)
def test_derivatives_of_matrix_functions(v):
    """First and second, in reverse and forward mode, at equal and nearly equal eigenvalues too."""
    g, v = G.bind(geoopt.SymmetricPositiveDefinite()), torch.tensor(v, requires_grad=True)
    p, direction = g.exp0(torch.linspace(-0.5, 0.8, 6))[0], torch.linspace(1.0, -1.0, 6)

    def f(v):
        x = g.exp0(v)[0]
        log, log_volume = g.log0(x)
        return torch.cat(
            [log, g.log(p, x), g.log(x, p), g.exp(x, direction).flatten(-2) / 10, log_volume[..., None]], -1
        )

    assert torch.autograd.gradcheck(f, v, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, v, fast_mode=True, atol=1e-4)
    twice = torch.func.jacfwd(torch.func.jacfwd(lambda v: f(v).square().sum()))(v.detach())
    both = torch.autograd.functional.hessian(lambda v: f(v).square().sum(), torch.stack([direction, v]))
    assert torch.allclose(twice, both[1, :, 1], rtol=1e-9)


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
    for _ in range(30):
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


# ---- Products ----


def test_errors_name_the_factor():
    M = mixed()
    x = points(M, 9)
    for i, (part, words) in enumerate(
        [(slice(0, 3), "Lorentz"), (slice(3, 6), "norm"), (slice(6, 8), "wrap"), (slice(8, 17), "determinant")]
    ):
        bad = x.clone()
        bad[part] += 5.0
        with pytest.raises(ValueError, match=rf"factor {i}, .*{words}"):
            G.distance(M, bad, x)
    with pytest.raises(ValueError, match=r"k of factor 0.*= -1"):
        on_manifold(geoopt.ProductManifold((geoopt.Lorentz(k=-1.0), 3), (SPHERE, 3)))


def test_batches_and_gradients_of_curvatures():
    """A batch of k is a batch of products; a learnable k gets its gradient, and is a parameter of a new object."""
    k = torch.tensor([0.5, 1.0, 4.0], requires_grad=True)

    def product(k):
        hyperboloid = geoopt.Lorentz()
        del hyperboloid.k
        hyperboloid.k = k
        return geoopt.ProductManifold((hyperboloid, 3), (SPHERE, 3))

    s, t, u = torch.randn(3, 5), torch.randn(3, 5), torch.randn(3, 5)
    s, t = (torch.cat([each[:, :2], torch.nn.functional.normalize(each[:, 2:], dim=-1)], -1) for each in (s, t))

    def maps(k, *s):
        g = G.bind(product(k))
        x, y = (g.point(each)[0] for each in s[:2])
        v = g.tangent(x, s[2])
        return [g.exp(x, v), g.log(x, y), g.distance(x, y), g.state(x)[0], g.velocity(s[0], v), g.project(x)]

    together = maps(k, s, t, u)
    for i in range(3):
        for one, other in zip(maps(k[i], s[i], t[i], u[i]), together, strict=True):
            assert torch.allclose(one, other[i])
    (gradient,) = torch.autograd.grad(together[2].sum(), k)
    assert (gradient != 0).all()
    g = G.bind(product(k))
    assert G.same(g.with_parameters(g.parameters()), product(k.detach()))
    learned = ph.manifolds.Product((ph.manifolds.Lorentz(learnable=True), 3), (SPHERE, 3))
    assert [name for name, _ in learned.named_parameters()] == ["manifolds.0.k_unconstrained"]


def test_products_are_equal_by_their_factors():
    pairs = [(torus(2), 2), (SPHERE, 3)], [(SPHERE, 3), (torus(2), 2)], [(torus(2), 2), (SPHERE, 4)], [(torus(3), 3)]
    products = [geoopt.ProductManifold(*factors) for factors in pairs]
    assert [[G.same(a, b) for a in products] for b in products] == torch.eye(4, dtype=torch.bool).tolist()
    flat = [geoopt.ProductManifold((geoopt.Euclidean(1), n), (geoopt.Euclidean(1), 5 - n)) for n in (2, 3)]
    assert not G.same(*flat)
