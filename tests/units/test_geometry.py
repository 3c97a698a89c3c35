"""Derivatives at the singular places, gradients to k, dispatch and membership; values are in test_accuracy.py."""

import copy
import pickle

import geoopt
import pytest
import torch

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from tests.cases import lorentz, point

G = ph.geometry
ZERO, A = torch.zeros(3, dtype=torch.float64), torch.tensor([0.6, -1.1, 0.4], dtype=torch.float64)
FAR = 9.0 * A
SCALE = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)


def lift(M, space):
    return torch.cat([(M.k + space.square().sum(-1, keepdim=True)).sqrt(), space], -1)


def log_prob(M, loc, x):
    return hdist.WrappedNormal(lift(M, loc), SCALE.to(x), M, validate_args=False).log_prob(lift(M, x))


def opposite(M, t, v):
    return G.translate_tangent(M, -G.exp0(M, -t)[..., 1:], v)


SINGULAR = {
    "exp0 at v = 0": (G.exp0, ZERO),
    "exp0 far": (G.exp0, FAR),
    "log0 at x = o": (lambda M, x: G.log0(M, lift(M, x)), ZERO),
    "log0 far": (lambda M, x: G.log0(M, lift(M, x)), FAR),
    "log_volume at v = 0": (G.log_volume, ZERO),
    "log_volume on a line": (G.log_volume, ZERO[:1]),
    "translate, p = o": (lambda M, p, x: G.translate(M, lift(M, p), lift(M, x)), ZERO, A),
    "translate, x = o": (lambda M, p, x: G.translate(M, lift(M, p), lift(M, x)), A, ZERO),
    "translate, x = -p": (lambda M, p, x: G.translate(M, lift(M, p), lift(M, x)), A, -A),
    "translate, x = -p, on a line": (lambda M, p, x: G.translate(M, lift(M, p), lift(M, x)), A[:1], -A[:1]),
    "translate, x = p = o, on a line": (lambda M, p, x: G.translate(M, lift(M, p), lift(M, x)), ZERO[:1], ZERO[:1]),
    "translate inverse, x = p": (lambda M, p, x: G.translate(M, lift(M, p), lift(M, x), inverse=True), A, A),
    "squared_distance, x = y": (lambda M, x, y: G.squared_distance(M, lift(M, x), lift(M, y)), A, A),
    "squared_distance, x = y = o": (lambda M, x, y: G.squared_distance(M, lift(M, x), lift(M, y)), ZERO, ZERO),
    "squared_distance on a line": (lambda M, x, y: G.squared_distance(M, lift(M, x), lift(M, y)), A[:1], A[:1]),
    "log_prob, x = mu": (log_prob, A, A),
    "log_prob, mu = o": (log_prob, ZERO, A),
    "log_prob, x = mu = o": (log_prob, ZERO, ZERO),
    "whc, t = 0": (G.translate_tangent, ZERO, A),
    "whc, v = 0": (G.translate_tangent, A, ZERO),
    "whc, t = v = 0": (G.translate_tangent, ZERO, ZERO),
    "whc, t = -v": (opposite, -A, A),
    "whc on a line": (G.translate_tangent, A[:1], ZERO[:1]),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_derivatives_at_singular_places(name):
    """First and second order against differences in float64, in k too; in float32 they are finite."""
    function, *inputs = SINGULAR[name]

    def of_k(k, *arguments):
        M = lorentz()
        del M.k
        M.k = k
        return function(M, *arguments)

    inputs = [torch.tensor(2.0, dtype=torch.float64), *inputs]
    inputs = [value.clone().requires_grad_() for value in inputs]
    assert torch.autograd.gradcheck(of_k, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(of_k, inputs, fast_mode=True)
    inputs = [value.detach().float().requires_grad_() for value in inputs]
    outputs = of_k(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    total = sum(value.sum() for value in outputs)
    first = torch.autograd.grad(total, inputs, create_graph=True, allow_unused=True, materialize_grads=True)
    second = torch.autograd.grad(sum(value.square().sum() for value in first), inputs, materialize_grads=True)
    assert all(bool(value.isfinite().all()) for value in (*first, *second))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 3])
def test_distance_has_a_finite_gradient_where_points_coincide(dtype, dim):
    M = lorentz(2.0)
    x = A[:dim].to(dtype).requires_grad_()
    d = G.distance(M, lift(M, x).to(dtype), lift(M, A[:dim].to(dtype)).to(dtype))
    (gradient,) = torch.autograd.grad(d, x, create_graph=True)
    assert d.item() == 0
    assert gradient.isfinite().all()
    (second,) = torch.autograd.grad(gradient.sum(), x, materialize_grads=True)
    assert second.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_on_a_line_reach_as_far_as_points_do(dtype):
    """One per unit of distance, where torch's asinh has none; and the density's, at a location far out."""
    M, far = lorentz(1.0), 46.0 if dtype == torch.float32 else 354.0
    v = torch.tensor([far], dtype=dtype, requires_grad=True)
    other = G.exp0(M, torch.tensor([-23.0], dtype=dtype))
    (gradient,) = torch.autograd.grad(G.distance(M, G.exp0(M, v), other), v)
    assert gradient.item() == pytest.approx(1.0, rel=1e-5)
    q = hdist.WrappedNormal(G.exp0(M, v), 1.0, M)
    (gradient,) = torch.autograd.grad(q.log_prob(G.exp0(M, v.detach() - 2)), v)
    assert gradient.item() == pytest.approx(-2.0, rel=1e-4)


def test_signed_radii_add_on_a_line():
    """On each side of where formulas change, coordinates of 1, and there."""
    M, t = lorentz(1.0), torch.tensor([-3.0, -1.0, -0.5, 0.5, 1.0, 3.0], dtype=torch.float64)
    r, x = t.asinh(), G.project(M, torch.stack([t, t], -1))
    total = r.unsqueeze(1) + r
    torch.testing.assert_close(G.translate(M, x.unsqueeze(1), x)[..., 1].asinh(), total)
    torch.testing.assert_close(G.exp_at(M, x.unsqueeze(1), r.unsqueeze(-1))[..., 1].asinh(), total)
    torch.testing.assert_close(G.log_at(M, x.unsqueeze(1), x)[..., 0], r - r.unsqueeze(1))


@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 1e30), (torch.float64, 1e200)])
def test_no_tangent_vector_is_too_long(dtype, far):
    """For volumes, and for couplings: a far block moves by the bounded radius of the target, and is finite."""
    M = lorentz(1.0)
    v = torch.tensor([[far, 0.0], [100.0, 0.0], [1500.0, 0.0]], dtype=dtype)
    assert torch.allclose(G.log_volume(M, v) / v[:, 0], v.new_ones(3), rtol=0.1)
    t = torch.tensor([0.3, -0.4], dtype=dtype)
    for shift in (t, far * t):
        for inverse in (False, True):
            w, log_det = G.bind(M).translate_tangent(shift.requires_grad_(), v[1:], inverse, 3.0)
            assert bool(((w.norm(dim=-1) - v[1:].norm(dim=-1)).abs() < 2).all())
            assert bool((log_det.abs() < 3).all())
            gradients = torch.autograd.grad(w.sum() + log_det.sum(), shift)
            assert all(bool(value.isfinite().all()) for value in gradients)


def test_an_origin_made_under_vmap_is_a_plain_point():
    """It is not remembered there, and the map is that of any location."""
    M = geoopt.Lorentz()
    found = []

    def through(v):
        o = G.origin(M, 2)
        found.append(G.is_known_origin(o))
        return HT.ExponentialMap(M, o + 0 * G.exp0(M, v), validate_args=False)(v)

    v = torch.randn(4, 2)
    assert torch.allclose(torch.vmap(through)(v), G.exp0(M, v), atol=1e-6)
    assert found == [False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", [0.0, 1e-8, 1.0, 8.0, 20.0, 40.0, 60.0, 80.0])
@pytest.mark.parametrize("k", [1.0, 0.25, 10.0])
def test_membership_is_relative(dtype, radius, k):
    """Correctly rounded points pass at every radius in both dtypes; an error of 0.1% in the time fails, as does NaN."""
    M = lorentz(k)
    v = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 5.0]], dtype=torch.float64) / 5 * radius * k**0.5
    x = G.exp0(M, v.to(dtype))
    assert G.contains(M, x).all()
    for factor in (1.001, 0.999, -1.0, float("nan"), float("inf")):
        wrong = x.clone()
        wrong[..., 0] *= factor
        assert not G.contains(M, wrong).any()
    assert (G.log0(M, x).norm(dim=-1) / (radius * k**0.5) - 1).abs().max() < 1e-5 if radius else True


def test_what_put_a_point_off_the_hyperboloid_is_named():
    M, (time, *space) = lorentz(0.25), point(0.25, 0.3, -0.2).tolist()
    causes = {
        "lower sheet": [-time, *space],
        "a tangent vector": [0.0, *space],
        "sqrt(k) is forgotten": point(1.0, *space).tolist(),
        "k is the squared radius": point(0.25**2, *space).tolist(),
        "curvature is -1/k": point(4.0, *space).tolist(),
        "unclear: <x, x> is -2.25, not -0.25": [3 * time, *(3 * x for x in space)],
    }
    for cause, x in causes.items():
        assert cause in G.bind(M).mistake(torch.tensor(x, dtype=torch.float64))
    assert G.bind(geoopt.Lorentz(torch.ones(2))).mistake(point(4.0, 0.0)) == "unclear"


def test_euclidean_space_is_the_flat_limit():
    """As k grows the hyperboloid's spatial coordinates become Euclidean, to first order in 1/k."""
    flat, nearly = geoopt.Euclidean(1), lorentz(1e12)
    v, w = torch.randn(2, 5, 3, dtype=torch.float64)
    x, y = G.exp0(nearly, v), G.exp0(nearly, w)
    assert torch.allclose(G.translate(nearly, x, y)[..., 1:], G.translate(flat, v, w), atol=1e-9)
    assert torch.allclose(G.distance(nearly, x, y), G.distance(flat, v, w), atol=1e-9)
    for t in (v, w):
        there, log_det = G.translate_tangent(nearly, t, w)
        assert torch.allclose(there, w + t, atol=1e-9)
        assert log_det.abs().max() < 1e-9


def test_a_new_geometry_is_registered_by_type_and_found_for_subclasses(monkeypatch):
    class Mine(geoopt.Lorentz):
        pass

    assert type(G.bind(Mine())) is type(G.bind(geoopt.Lorentz()))
    monkeypatch.setattr(G.registry, "_GEOMETRIES", dict(G.registry._GEOMETRIES))
    G.register(Mine, type(G.bind(geoopt.Euclidean(1))))
    assert G.log0(Mine(), torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]


def test_same_compares_by_value():
    assert G.same(geoopt.Lorentz(2.0), ph.manifolds.Lorentz(2.0))
    assert not G.same(geoopt.Lorentz(2.0), geoopt.Lorentz(2.1))
    assert not G.same(geoopt.Lorentz(1.0), geoopt.Euclidean(1))


@pytest.mark.parametrize("radius", [0.0, 1e-4, 1e-2, 1.0])
def test_second_derivatives_in_float32_are_those_of_float64(radius):
    """Of a log-density, near its mode too, where sinh(r) / r of a float32 radius would have no digit of them."""
    M = lorentz(2.0)

    def log_prob(v):
        x = G.exp0(M, v)
        return hdist.WrappedNormal(G.exp0(M, A[:3].to(v.dtype)), 1.5, M).log_prob(x)

    v = A[:3] + radius * torch.tensor([0.6, -0.8, 0.0], dtype=torch.float64)
    narrow, wide = (torch.autograd.functional.hessian(log_prob, v.to(dtype)) for dtype in (torch.float32, v.dtype))
    assert (narrow - wide).abs().max() < 1e-4 * wide.abs().max()


def test_an_origin_is_known_by_identity():
    """No copy, no view, nothing that was or will be moved is taken for the origin; what is, is the same map."""
    M = ph.manifolds.Lorentz(torch.tensor(2.0, dtype=torch.float64), learnable=True)
    o = G.origin(M, 3)
    assert G.is_known_origin(o)
    others = {
        "a clone": o.clone(),
        "a deep copy": copy.deepcopy(o.detach()),
        "a pickled one": pickle.loads(pickle.dumps(o.detach())),
        "expanded": o.expand(2, 4),
        "a parameter": torch.nn.Parameter(G.origin(M, 3)),
        "a leaf that wants gradients": G.origin(geoopt.Lorentz(), 3).requires_grad_(),
        "values alone": lift(M, torch.zeros(3, dtype=torch.float64)),
    }
    edited, read = G.origin(geoopt.Lorentz(), 3), G.origin(M, 3)
    edited.copy_(G.exp0(geoopt.Lorentz(), torch.ones(3)))
    read.retain_grad()
    with torch.inference_mode():
        unseen = G.origin(geoopt.Lorentz(), 3)
        unseen.copy_(edited)
    others |= {"edited where edits are not counted": unseen}
    others |= {"edited": edited, "edited and copied": copy.deepcopy(edited), "one whose gradient is kept": read}
    assert [name for name, value in others.items() if G.is_known_origin(value)] == []


@pytest.mark.parametrize("k", [2.0, [0.5, 2.0, 10.0]])
@pytest.mark.parametrize("dim", [1, 3])
def test_a_wrapped_normal_at_a_known_origin_is_one_at_any_origin(k, dim):
    """Samples, densities and gradients in k, on the fast path and on that of an isometry to the same place."""
    x = torch.randn(5, 3, dim, dtype=torch.float64)
    found = {}
    for known in (True, False):
        ks = torch.tensor(k, dtype=torch.float64).requires_grad_()
        M = geoopt.Lorentz()
        del M.k
        M.k = ks
        loc = G.origin(M, dim)
        d = hdist.WrappedNormal(loc if known else loc.clone(), torch.full((dim,), 0.7, dtype=torch.float64), M)
        torch.manual_seed(0)
        z = d.rsample((5, 3) if ks.dim() == 0 else (5,))
        log_p = d.log_prob(G.exp0(M, x))
        (gradient,) = torch.autograd.grad(log_p.sum() + z.sum(), ks)
        found[known] = [z, log_p, d.log_prob(z), gradient]
    for ours, expected in zip(found[True], found[False], strict=True):
        assert ours.shape == expected.shape
        assert torch.allclose(ours, expected, rtol=1e-12, atol=1e-12)


def test_an_origin_of_many_k_keeps_its_batch_on_a_manifold_of_one():
    many = G.origin(geoopt.Lorentz(torch.tensor([1.0, 1.0])), 3)
    v = torch.randn(3)
    assert HT.ExponentialMap(geoopt.Lorentz(), many)(v).shape == (2, 4)


def test_a_location_that_starts_at_the_origin_can_leave_it():
    M = geoopt.Lorentz()
    loc = G.origin(M, 2).requires_grad_()
    hdist.WrappedNormal(loc, torch.ones(2), M).log_prob(G.exp0(M, torch.tensor([1.0, 0.0]))).backward()
    assert loc.grad[1] > 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    """Values are those of float64 at the rounded arguments, and the largest radii overflow to infinity."""
    v, w = torch.tensor([0.6, -1.1, 0.4], dtype=dtype), torch.tensor([-1.0, 0.5, 2.0], dtype=dtype)
    M = lorentz(1.0)
    x, y = G.exp0(M, v), G.exp0(M, w)
    u = torch.finfo(dtype).eps
    assert torch.allclose(x.double(), G.exp0(M, v.double()), rtol=2 * u)
    assert torch.allclose(G.log0(M, x).double(), v.double(), rtol=4 * u)
    for found in (G.distance(M, x, y), G.distance_matrix(M, torch.stack([x, y]))[0, 1]):
        assert torch.allclose(found.double(), G.distance(M, *(lift(M, p[1:].double()) for p in (x, y))), rtol=4 * u)
    with pytest.raises(ValueError, match="too far out"):
        G.exp0(M, 100 * v)
