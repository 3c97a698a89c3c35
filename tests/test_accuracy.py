"""Accuracy against mpmath: every row of ``data/accuracy_table.json``, and the goals of the design, a test each.

The "limit" of a row is what one unit roundoff u in the inputs does to the exact result: no formula can promise less.
Each test prints its worst figure and where it was found: ``pytest tests/test_accuracy.py -rP``.
"""

import json
import math
import random
from functools import cache, partial
from pathlib import Path

import geoopt
import mpmath as mp
import pyro
import pytest
import torch

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from tests import random_cases

G = ph.geometry
U = {"float64": 2.0**-53, "float32": 2.0**-24}
NEAR, FAR = {"float64": 1e-8, "float32": 1e-4}, {"float64": 40.0, "float32": 30.0}  # radii over sqrt(k)
SPACES = [(n, k) for n in (2, 6, 64) for k in (10.0, 1.0, 0.25)]
both_dtypes = pytest.mark.parametrize("dtype", U)


def lorentz(k):
    return geoopt.Lorentz(k=torch.tensor(k, dtype=torch.float64))


def lift(M, xs):
    """The point with spatial part xs; its time coordinate in float64, then rounded."""
    return torch.cat([(M.k + xs.double().square().sum(-1, keepdim=True)).sqrt().to(xs.dtype), xs], dim=-1)


def log_prob(M, loc, scale, x):
    return hdist.WrappedNormal(lift(M, loc), scale, manifold=M).log_prob(lift(M, x))


def whc(M, t, s, x2, part=0, inverse=False):
    answer = G.translate_tangent(M, -t if inverse else t, x2 * s.exp(), inverse=inverse)[part]
    return answer + s.sum() if part else answer


def worst(figures):
    """The largest of (figure, where) pairs, NaN above all; printed for ``-rP``."""
    figure, where = max(((math.inf if math.isnan(f) else f, where) for f, where in figures), key=lambda pair: pair[0])
    print(f"{figure:.3g} at {where}")
    return figure, where


# ---- the table ----

CALLS = {  # quantity: whose rows, how the library computes it
    "exp0": ("exp0", G.exp0),
    "log0": ("log0", lambda M, x: G.log0(M, lift(M, x))),
    "log_volume": ("log_volume", G.log_volume),
    "translate": ("translate", lambda M, p, x: G.translate(M, lift(M, p), lift(M, x))),
    "translate_inverse": ("translate_inverse", lambda M, p, x: G.translate(M, lift(M, p), lift(M, x), inverse=True)),
    "distance": ("distance", lambda M, x, y: G.distance(M, lift(M, x), lift(M, y))),
    "log_prob": ("wrapped_normal_log_prob", log_prob),
    "whc": ("whc", whc),
    "whc_log_det": ("whc_log_det", partial(whc, part=1)),
    # T_t is the inverse of T_{-t}: the same rows hold the inverse to account.
    "whc_inverse": ("whc", partial(whc, inverse=True)),
    "whc_inverse_log_det": ("whc_log_det", partial(whc, part=1, inverse=True)),
}
POINTS = ("exp0", "translate", "translate_inverse")
VECTORS_AND_DISTANCE = (*POINTS, "log0", "whc", "whc_inverse", "distance")


@cache
def table():
    return json.loads((Path(__file__).parent / "data" / "accuracy_table.json").read_text())["cases"]


@cache
def results(quantity, dtype):
    """(row, value, found, error) for every row, in float64; ``found`` keeps the time coordinate of a point."""
    source, function = CALLS[quantity]
    answers = []
    for row in table():
        if (row["quantity"], row["dtype"]) == (source, dtype):
            inputs = [torch.tensor(a, dtype=getattr(torch, dtype)) for a in row["inputs"].values()]
            found = function(lorentz(row["k"]), *inputs).double()
            value = torch.tensor(row["value"], dtype=torch.float64)
            error = (found[1:] if quantity in POINTS else found) - value
            answers.append((row, value, found, error.norm().item()))
    assert answers
    return answers


def describe(row, found, error):
    inputs = ", ".join(f"{name} = {a[:6]}" for name, a in row["inputs"].items())
    return (
        f"{row['quantity']} {row['dtype']} k = {row['k']:g}, {row['case']}: {inputs}; expected {row['value']}, found "
        f"{found.tolist()}, error {error:.3g}, limit {row['limit']:.3g}"
    )


@both_dtypes
@pytest.mark.parametrize("quantity", CALLS)
def test_error_is_within_20_limits(quantity, dtype):
    figure, where = worst(
        (error / (20 * row["limit"] + 4 * U[dtype] * max(1.0, value.norm().item())), describe(row, found, error))
        for row, value, found, error in results(quantity, dtype)
    )
    assert figure <= 1, where


@both_dtypes
@pytest.mark.parametrize("quantity", VECTORS_AND_DISTANCE)
def test_vectors_and_distance_are_within_10_limits(quantity, dtype):
    # The floor is 4u of the result, its own rounding in the last operations: a distance of 40 is determined to u by
    # its end points, but held to 40 u. No absolute floor.
    figure, where = worst(
        (error / (10 * row["limit"] + 4 * U[dtype] * value.norm().item() or math.ulp(0)), describe(row, found, error))
        for row, value, found, error in results(quantity, dtype)
    )
    assert figure <= 1, where


@both_dtypes
@pytest.mark.parametrize("quantity", VECTORS_AND_DISTANCE)
def test_zero_is_exact(quantity, dtype):
    """exp0(0), T_p(-p), distance(x, x), ...: what the table has as 0 is found as 0."""
    zeros = [(row, found, error) for row, value, found, error in results(quantity, dtype) if not value.any()]
    figure, where = worst((error, describe(row, found, error)) for row, found, error in zeros)
    assert figure == 0, where


@both_dtypes
@pytest.mark.parametrize("quantity", POINTS)
def test_found_points_are_on_the_manifold(quantity, dtype):
    """The time coordinate belongs to the spatial part, however inaccurate that has to be."""
    answers = [(row, found.to(getattr(torch, dtype)), error) for row, _, found, error in results(quantity, dtype)]
    outside = [describe(*answer) for answer in answers if not G.contains(lorentz(answer[0]["k"]), answer[1])]
    assert len(outside) == 0, f"{len(outside)} of {len(answers)} are not, the first: {outside[0]}"


@both_dtypes
@pytest.mark.parametrize(
    "quantity", [name for name, (_, _, kinds) in random_cases.QUANTITIES.items() if len(kinds) > 1]
)
def test_rays_are_within_10_limits(quantity, dtype):
    """On rays, at opposite and coincident points, on a line too; the value, and both derivatives."""
    rows = [row for row in random_cases.table() if (row[0].quantity, row[0].dtype) == (quantity, dtype)]
    assert len(rows) == 54
    with pyro.validation_enabled(False):
        figure, where = worst(
            (found.ratio, f"{case.arrangement}, {case.radii}, n = {len(case.inputs[0])}, k = {case.k:g}: {found}")
            for case, exact in rows
            for found in random_cases.figures(case, exact)
        )
    assert figure <= 10, where


#: Of the 20,000, those that failed once: a target of a coupling 79 radii away in float32, and second derivatives of
#: tangent vectors from 30 radii on in float64.
FAILED_ONCE = [2499, 8124, 16041, 13497]


@pytest.mark.parametrize("seeds", [*(range(i, i + 12) for i in range(0, 48, 12)), FAILED_ONCE], ids=lambda s: s[0])
def test_random_cases_are_within_10_limits(seeds):
    """A sample of the 20,000 of ``benchmarks/accuracy_sweep.py``."""
    with pyro.validation_enabled(False):
        figure, where = worst(
            (found.ratio, f"seed {seed}: {found}")
            for seed in seeds
            for found in random_cases.figures(random_cases.random_case(random.Random(seed)))
        )
    assert figure <= 10, where


@pytest.mark.parametrize(("quantity", "arrangement"), [("translate_tangent", "opposite"), ("log_at", "ray")])
def test_second_derivatives_about_a_far_target_are_within_10_limits(quantity, arrangement):
    """What passes behind a far point turns by exp(r), and the radius of its image changes as fast."""
    with pyro.validation_enabled(False):
        figure, where = worst(
            (found.ratio, f"radii {r}, {s}: {found}")
            for r, s in ((60.0, 3.0), (60.0, 9.0), (300.0, 3.0), (300.0, 9.0))
            for seed in range(3)
            for found in random_cases.figures(
                random_cases.make_case(random.Random(seed), quantity, "float64", arrangement, 3, 1.0, r, s)
            )
        )
    assert figure <= 10, where


#: (dtype, distance of loc from the origin over sqrt(k), error over max(1, |log_prob|)).
LOG_PROB_GOALS = [
    ("float64", *pair) for pair in ((2, 2e-14), (5, 3e-13), (10, 1e-10), (15, 1e-8), (20, 2e-6), (25, 3e-4))
]
LOG_PROB_GOALS += [("float32", *pair) for pair in ((2, 1e-5), (5, 3e-4), (10, 3e-2))]


@pytest.mark.parametrize(("dtype", "radius", "goal"), LOG_PROB_GOALS)
def test_goal_log_prob(dtype, radius, goal):
    """error / max(1, |log_prob|) of stored samples, loc at distance ``radius * sqrt(k)`` from the origin."""
    figure, where = worst(
        (error / max(1.0, abs(value.item())), describe(row, found, error))
        for row, value, found, error in results("log_prob", dtype)
        if row["case"] == f"loc at r = {radius}"
    )
    assert figure <= goal, where


SCALARS = {
    "sinhc": lambda z: mp.sinh(mp.sqrt(z)) / mp.sqrt(z),
    "log_sinhc": lambda z: mp.log(mp.sinh(mp.sqrt(z)) / mp.sqrt(z)),
    "asinhc": lambda w: mp.asinh(mp.sqrt(w)) / mp.sqrt(w),
    "asinh": mp.asinh,
}


@both_dtypes
@pytest.mark.parametrize("name", SCALARS)
def test_scalar_functions_and_their_derivatives(name, dtype):
    """Per relative change of the argument, from the smallest to the largest that have a value."""
    with mp.workdps(60):
        largest = {"sinhc": 1e3, "log_sinhc": 1e30, "asinhc": 1e30, "asinh": 1e35}[name]
        for size in (1e-30, 1e-8, 5e-3, 0.0101, 0.3, 0.99, 1.01, 2.0, 30.0, 1e5, 1e20, largest):
            if size > largest:
                continue
            z = torch.tensor(size, dtype=getattr(torch, dtype), requires_grad=True)
            orders = [getattr(ph.numerics, name)(z)]
            for _ in range(2):
                (derivative,) = torch.autograd.grad(orders[-1], z, create_graph=True, materialize_grads=True)
                orders.append(derivative)
            exact = [
                mp.diff(SCALARS[name], mp.mpf(z.item()), i, h=mp.mpf(z.item()) * mp.mpf("1e-18")) for i in range(3)
            ]
            scale = max(abs(value * mp.mpf(size) ** i) for i, value in enumerate(exact))
            for i, (found, value) in enumerate(zip(orders, exact, strict=True)):
                error = abs(mp.mpf(found.item()) - value) * mp.mpf(size) ** i
                if abs(value) < torch.finfo(z.dtype).tiny:
                    continue  # out of range
                assert error <= 40 * U[dtype] * scale, (size, i, found.item(), float(value))


@both_dtypes
@pytest.mark.parametrize("name", ["sinhc", "log_sinhc", "asinhc"])
def test_series_are_long_enough_for_both_derivatives(name, dtype):
    """Each derivative over its own size, where the series ends."""
    z = torch.tensor({"log_sinhc": 0.99}.get(name, 9.9e-3), dtype=getattr(torch, dtype), requires_grad=True)
    value = getattr(ph.numerics, name)(z)
    with mp.workdps(60):
        for i in range(3):
            exact = float(mp.diff(SCALARS[name], mp.mpf(z.item()), i))
            assert value.item() == pytest.approx(exact, rel=20 * U[dtype])
            (value,) = torch.autograd.grad(value, z, create_graph=True)


@both_dtypes
@pytest.mark.parametrize("n", [1, 2, 3, 64])
def test_triangles_with_the_origin(n, dtype):
    """|r_x - r_y| <= d(x, y) <= r_x + r_y, to rounding, for any pair: most of these are on one ray."""
    generator = torch.Generator().manual_seed(n)
    r, s = FAR[dtype] * 2 * torch.rand(2, 1000, 1, generator=generator, dtype=torch.float64)
    e, f = torch.nn.functional.normalize(torch.randn(2, 1000, n, generator=generator, dtype=torch.float64), dim=-1)
    f = torch.where(torch.rand(1000, 1, generator=generator) < 0.2, f, e)
    M = lorentz(1.0)
    x, y = (G.exp0(M, v.to(getattr(torch, dtype))) for v in (r * e, s * f))
    d, (r, s) = G.distance(M, x, y).double(), (G.log0(M, p).double().norm(dim=-1) for p in (x, y))
    rounding = 8 * U[dtype] * (r + s)
    assert bool(((r - s).abs() <= d + rounding).all())
    assert bool((d <= r + s + rounding).all())
    assert torch.equal(
        G.squared_distance(M, x, y).double().sqrt() <= r + s + rounding, torch.ones(1000, dtype=torch.bool)
    )


@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 2])
def test_an_axis_is_exact(n, name):
    """Both radii survive where a coordinate in the ball is 1 for both points: the faults as they were reported."""
    dtype, M = getattr(torch, name), lorentz(1.0)
    far = 80.0 if name == "float32" else 340.0

    def axis(r):
        return torch.tensor([r, 0.0][:n], dtype=dtype)

    for r, s in ((30.0, 20.0), (50.0, 45.0), (40.0, 36.0), (far, far - 10), (23.0, -9.0)):
        x, y = G.exp0(M, axis(r)), G.exp0(M, axis(s))
        near = {"rtol": 20 * U[name], "atol": 20 * U[name] * far}
        assert torch.allclose(G.distance(M, x, y), axis(r - s)[0], **near)
        assert torch.allclose(G.log0(M, G.translate(M, x, y, inverse=True)), axis(s - r), **near)
        assert torch.allclose(ph.charts.to_normal_coordinates(M, y, x), axis(s - r), **near)
        for start, end in ((r, s), (r, 0.1 * r)):
            back = ph.charts.from_normal_coordinates(M, axis(end - start), x)
            assert torch.allclose(G.log0(M, back), axis(end), **near)
        exact = -((r - s) ** 2) / 2 - n / 2 * math.log(2 * math.pi) - (n - 1) * log_sinhc(abs(r - s))
        assert math.isclose(log_prob_at(M, x, y).item(), exact, rel_tol=1e-5)
        w, _ = G.translate_tangent(M, -x[1:], axis(s))
        assert torch.allclose(w, axis(s - r), **near)


def log_sinhc(r):
    return r + math.log1p(-math.exp(-2 * r)) - math.log(2 * r)


def log_prob_at(M, loc, x):
    return hdist.WrappedNormal(loc, 1.0, M).log_prob(x)


# ---- the other goals: random cases made on the fly ----


def cases(dtype, size=400):
    """Per (n, k): tangent vectors v at radii NEAR..FAR and w at 0..3; points p at NEAR..FAR and t at 0..3, by xs."""
    for n, k in SPACES:
        generator = torch.Generator().manual_seed(n)
        uniform, logarithmic, small = torch.rand(3, size, 1, generator=generator, dtype=torch.float64)
        near, far = NEAR[dtype], FAR[dtype]
        radii = torch.cat([far * uniform[: size // 2], near * (far / near) ** logarithmic[size // 2 :]])
        shuffled = radii[torch.randperm(size, generator=generator)]
        directions = torch.randn(4, size, n, generator=generator, dtype=torch.float64)
        lengths = k**0.5 * torch.stack([radii, shuffled.sinh(), 3 * small, (3 * small.flip(0)).sinh()])
        vectors = directions / directions.norm(dim=-1, keepdim=True) * lengths
        yield f"n = {n}, k = {k:g}, {dtype}", lorentz(k), *vectors.to(getattr(torch, dtype))


def relative(found, exact, floor=0.0):
    """Largest error of a batch, relative to the norm of the exact result or to ``floor`` where that is larger."""
    exact = torch.as_tensor(exact, dtype=torch.float64)
    return ((found.double() - exact).norm(dim=-1) / exact.norm(dim=-1).clamp(min=floor)).max().item()


def exp0_log0_round_trip(M, v, p, w, t):
    return relative(G.log0(M, G.exp0(M, v)), v)


def log_volume(M, v, p, w, t):
    v = v[:100]
    radii = [mp.norm(a) / mp.sqrt(M.k.item()) for a in v.tolist()]
    exact = [[float((v.size(-1) - 1) * mp.log(mp.sinh(r) / r))] for r in radii]
    return relative(G.log_volume(M, v).unsqueeze(-1), exact)


def from_translate(M, v, p, w, t):
    """T_p(exp0(w)) in two steps."""
    return boosted(M, p, w, G.translate(M, lift(M, p[:60]), G.exp0(M, w[:60])))


def from_normal_coordinates(M, v, p, w, t):
    """T_p(exp0(w)) in one, as wrapped normals are sampled."""
    return boosted(M, p, w, ph.charts.from_normal_coordinates(M, w[:60], lift(M, p[:60])))


def boosted(M, p, w, found):
    """The error of T_p(exp0(w)), |w| <= 3 sqrt(k), all n + 1 coordinates, against the boost."""

    def boost(k, p, w):
        radius, length, p0 = mp.sqrt(k), mp.norm(w), mp.sqrt(k + mp.norm(p) ** 2)
        x0, x = radius * mp.cosh(length / radius), [radius * mp.sinh(length / radius) / length * a for a in w]
        along = (mp.fdot(p, x) / (radius + p0) + x0) / radius
        return [float((p0 * x0 + mp.fdot(p, x)) / radius), *(float(a + b * along) for a, b in zip(x, p, strict=True))]

    pairs = zip(p[:60].tolist(), w[:60].tolist(), strict=True)
    return relative(found, [boost(M.k.item(), *pair) for pair in pairs])


def normal_coordinates_round_trip(M, v, p, w, t):
    """About a centre at distance up to 3 sqrt(k); relative to max(|v|, sqrt(k)), as :func:`whc_round_trip`."""
    loc = lift(M, t)
    x = ph.charts.from_normal_coordinates(M, v, loc)
    return relative(ph.charts.to_normal_coordinates(M, x, loc), v, floor=M.k.item() ** 0.5)


def whc_round_trip(M, v, p, w, t):
    """Relative to max(|v|, sqrt(k)): what lies between is at distance up to 3 sqrt(k), and rounded."""
    there = G.translate_tangent(M, t, v)[0]
    return relative(G.translate_tangent(M, t, there, inverse=True)[0], v, floor=M.k.item() ** 0.5)


GOALS = [
    (exp0_log0_round_trip, {"float64": 1e-15, "float32": 5e-7}),
    (log_volume, {"float64": 1e-15, "float32": 5e-7}),
    (from_translate, {"float64": 5e-15, "float32": 2e-6}),
    (from_normal_coordinates, {"float64": 5e-15, "float32": 2e-6}),
    (normal_coordinates_round_trip, {"float64": 2e-14, "float32": 1e-5}),
    (whc_round_trip, {"float64": 2e-14, "float32": 1e-5}),
]


@both_dtypes
@pytest.mark.parametrize(("measure", "goals"), GOALS)
def test_goal(measure, goals, dtype):
    with mp.workdps(120):
        figure, where = worst((measure(M, *vectors), name) for name, M, *vectors in cases(dtype))
    assert figure <= goals[dtype], where


def whc_gradient(M, v, p, w, t):
    """float32 against float64 autograd: a random cotangent of v2 plus the log-det, in (t, v) jointly, to r = 40."""

    def gradient(dtype):
        inputs = [a.to(dtype).requires_grad_() for a in (t, v * 4 / 3)]
        v2, log_det = G.translate_tangent(M, *inputs)
        cotangent = torch.randn(v.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return torch.cat(torch.autograd.grad((v2 * cotangent).sum() + log_det.sum(), inputs), dim=-1)

    return relative(gradient(torch.float32), gradient(torch.float64))


WHC_GRADIENT_GOAL = 2e-5


def test_goal_whc_gradient():
    figure, where = worst((whc_gradient(M, *vectors), name) for name, M, *vectors in cases("float32"))
    assert figure <= WHC_GRADIENT_GOAL, where
