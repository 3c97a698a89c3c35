"""Random inputs of every kernel, where formulas break: on rays, at opposite and coincident points, near and far.

Each case is a quantity of ``make_accuracy_table`` at rounded inputs, in one of six arrangements of its two points. Its
value, first and second derivative along a direction are compared with the book's in mpmath. The unit of error is the
limit, what moving the inputs by one unit roundoff does to the exact result, plus one rounding of the result. Up to 28
dependent operations lead from input to result (a coupling in float64), with at most one rounding each: they add up to
about sqrt(28), or 5, if signs are random, and to 28 if they are not. Tests allow 10.

``python -m tests.random_cases`` writes ``tests/data/ray_table.json``, the same for a grid of cases (10 min).
"""

import json
import math
import random
from pathlib import Path
from typing import Any, NamedTuple

import geoopt
import mpmath as mp
import torch

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from tests import make_accuracy_table as book

G = ph.geometry
ARRANGEMENTS = ("generic", "ray", "axis", "opposite", "coincident", "near")
ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24}
NEAR, FAR = {"float64": 1e-8, "float32": 1e-4}, {"float64": 350.0, "float32": 80.0}
BOUND = 3.0
MOVES = 8
PATH = Path(__file__).parent / "data" / "ray_table.json"


def bounded(k, t):
    """The target of a coupling with ``shift_bound``: shortened in the Poincare ball, t / (1 + t_0) there."""
    longest = BOUND / (1 + mp.sqrt(1 + BOUND**2))
    half = [a / (2 * mp.sqrt(k)) for a in t]
    ball = book.times(1 / mp.sqrt(1 + (book.norm(half) / longest) ** 2), half)
    return book.times(2 * mp.sqrt(k) / (1 - book.dot(ball, ball)), ball)


def lift(M, x):
    radius = M.k.sqrt().expand(*x.shape[:-1], 1)
    return torch.cat([ph.numerics.norm(torch.cat([radius, x.double()], dim=-1)).to(x.dtype), x], dim=-1)


def points(function):
    """A kernel of points, given their spatial parts; the spatial part of a point that it returns."""
    return lambda M, *xs: function(M, *(lift(M, x) for x in xs))


def log_prob(M, loc, scale, x):
    return hdist.WrappedNormal(lift(M, loc), scale, M).log_prob(lift(M, x))


def coupled(M, t, x2):
    return G.bind(M).translate_tangent(t, x2, bound=BOUND)


class Quantity(NamedTuple):
    """The library's function, the book's, and the kinds of its inputs: tangent vectors v, points x, scales s."""

    ours: Any
    book: Any
    inputs: str


QUANTITIES = {
    "exp0": Quantity(lambda M, v: G.exp0(M, v)[..., 1:], book.exp0, "v"),
    "log0": Quantity(points(G.log0), book.log0, "x"),
    "log_volume": Quantity(G.log_volume, book.log_volume, "v"),
    "translate": Quantity(points(lambda M, p, x: G.translate(M, p, x)[..., 1:]), book.translate, "xx"),
    "translate_inverse": Quantity(
        points(lambda M, p, x: G.translate(M, p, x, inverse=True)[..., 1:]), book.translate_inverse, "xx"
    ),
    "distance": Quantity(points(G.distance), book.distance, "xx"),
    "squared_distance": Quantity(points(G.squared_distance), lambda k, x, y: book.distance(k, x, y) ** 2, "xx"),
    "exp_at": Quantity(
        lambda M, p, v: ph.charts.from_normal_coordinates(M, v, lift(M, p))[..., 1:],
        lambda k, p, v: book.translate(k, p, book.exp0(k, v)),
        "xv",
    ),
    "log_at": Quantity(points(lambda M, p, x: ph.charts.to_normal_coordinates(M, x, p)), book.log_at, "xx"),
    "log_prob": Quantity(log_prob, book.wrapped_normal_log_prob, "xsx"),
    "translate_tangent": Quantity(
        lambda M, t, v: G.translate_tangent(M, t, v)[0], lambda k, t, v: book.whc(k, t, [0] * len(v), v), "xv"
    ),
    "translate_tangent_log_det": Quantity(
        lambda M, t, v: G.translate_tangent(M, t, v)[1], lambda k, t, v: book.whc_log_det(k, t, [0] * len(v), v), "xv"
    ),
    "coupling": Quantity(
        lambda M, t, v: coupled(M, t, v)[0],
        lambda k, t, v: book.whc(k, bounded(k, t) if len(t) > 1 else t, [0] * len(v), v),
        "xv",
    ),
    "coupling_log_det": Quantity(
        lambda M, t, v: coupled(M, t, v)[1],
        lambda k, t, v: book.whc_log_det(k, bounded(k, t) if len(t) > 1 else t, [0] * len(v), v),
        "xv",
    ),
}


class Case(NamedTuple):
    """One quantity at rounded inputs, with a direction of differentiation and a cotangent."""

    quantity: str
    arrangement: str
    dtype: str
    k: float
    radii: tuple[float, ...]
    inputs: list[Any]
    directions: list[Any]
    cotangent: list[Any]


class Figure(NamedTuple):
    """The error of the value (order 0) or a derivative, and over the limit plus one rounding, of the largest part."""

    order: int
    ratio: float
    found: float
    exact: float
    error: float
    limit: float
    rounding: float


def random_case(rng: random.Random) -> Case:
    dtype = rng.choice(["float64", "float32"])
    quantity = rng.choice(list(QUANTITIES))
    arrangement = rng.choice(ARRANGEMENTS)
    n = rng.choices([rng.randint(1, 8), 64, 1024], [96, 3, 1])[0]
    [k] = book.rounded("float32", [10 ** rng.uniform(-6, 6)])

    def radius():
        if rng.random() < 0.4:
            return 10 ** rng.uniform(math.log10(NEAR[dtype]), 1)
        return rng.uniform(0, FAR[dtype])

    return make_case(rng, quantity, dtype, arrangement, n, k, radius(), radius())


def grid_cases():
    """Yields every quantity of two points on rays, opposite and coincident, at every radius in both dtypes."""
    for quantity, (_, _, kinds) in QUANTITIES.items():
        for dtype in ROUNDOFF if len(kinds) > 1 else ():
            far = FAR[dtype]
            radii = [(far, 0.6 * far), (0.3 * far, 0.7 * far), (0.5 * far, 0.5 * far - 2), (20.0, 17.0)]
            radii += [(23.0, 9.0), (1.0, 5.0), (0.0, 2.0), (NEAR[dtype], 1.0)]
            for n, arrangements in (1, ("ray", "opposite", "coincident")), (3, ARRANGEMENTS[1:5]):
                for arrangement in arrangements:
                    for r, s in radii:
                        if arrangement == "coincident" and r == 0:
                            continue  # two origins, where nothing moves by a part of itself
                        rng = random.Random(f"{quantity} {dtype} {arrangement} {n} {r} {s}")
                        yield make_case(rng, quantity, dtype, arrangement, n, rng.choice([0.25, 1.0, 10.0]), r, s)


def make_case(rng, quantity, dtype, arrangement, n, k, r, s) -> Case:
    kinds, k = QUANTITIES[quantity].inputs, mp.mpf(k)
    sign = rng.choice([-1, 1])
    if arrangement in ("coincident", "near"):
        s = r
    if "translate" in quantity or quantity == "exp_at":
        reach = r + s
        if reach > FAR[dtype] and not (quantity == "exp_at" and arrangement == "opposite"):
            r, s = r * FAR[dtype] / reach, s * FAR[dtype] / reach  # the image is a point too
    e = _axis(rng, n) if arrangement == "axis" else book.direction(rng, n)
    gap = mp.mpf(10) ** rng.uniform(math.log10(NEAR[dtype]), -1) if arrangement == "near" else 0
    along = {
        "generic": lambda: book.direction(rng, n),
        "ray": lambda: e,
        "axis": lambda: book.times(sign, e),
        "opposite": lambda: book.times(-1, e),
        "coincident": lambda: book.times(sign, e),
        "near": lambda: book.add(book.times(sign, e), book.direction(rng, n), gap),
    }[arrangement]()
    inputs = []
    for i, kind in enumerate(kinds):
        if kind == "s":
            inputs.append([mp.sqrt(k) * mp.mpf(rng.uniform(0.3, 1.5)) for _ in range(n)])
            continue
        radius, direction = (r, e) if i == 0 else (s, along)
        inputs.append(book.times(mp.sqrt(k) * (mp.mpf(radius) if kind == "v" else mp.sinh(mp.mpf(radius))), direction))
    inputs = [book.rounded(dtype, a) for a in inputs]
    if arrangement == "coincident" and len(kinds) > 1 and kinds[0] == kinds[-1]:
        inputs[-1] = book.times(sign, inputs[0])
    directions = [book.rounded(dtype, _direction(rng, a, k)) for a in inputs]
    cotangent = book.rounded(dtype, book.direction(rng, n))
    return Case(quantity, arrangement, dtype, float(k), (r, s), inputs, directions, cotangent)


def _axis(rng, n):
    axis = rng.randrange(n)
    return [mp.mpf(rng.choice([-1, 1]) if i == axis else 0) for i in range(n)]


def _direction(rng, a, k):
    """A direction as long as the input: its own, or any."""
    length = book.norm(a) or mp.sqrt(k)
    if rng.random() < 0.5 and book.norm(a):
        return book.times(rng.choice([-1, 1]), a)
    return book.times(length, book.direction(rng, len(a)))


class Exact(NamedTuple):
    """The value and both derivatives, contracted; their sizes, before; and their limits."""

    values: list[list[float]]
    sizes: list[float]
    limits: list[float]


def exact(case: Case, seed: int = 0) -> Exact:
    with mp.workdps(int(150 + 6 * 0.44 * sum(case.radii))):
        values, sizes, limits = _exact(case, random.Random(seed))
        return Exact([[float(a) for a in value] for value in values], *map(_floats, (sizes, limits)))


def figures(case: Case, known: Exact | None = None) -> list[Figure]:
    """Returns the figures of the value and of both derivatives."""
    values, sizes, limits = exact(case) if known is None else known
    result: list[Figure] = []
    u, size, limit = ROUNDOFF[case.dtype], 0.0, 0.0
    logarithm = case.quantity.endswith(("log_det", "log_prob"))
    for order, (ours, value) in enumerate(zip(_found(case), values, strict=True)):
        if logarithm:  # of ratios near one in each dimension, whose derivatives are as large as the radii
            size = max(size, 4.0 * len(case.inputs[0]) * (1.0 if order == 0 else 1 + max(case.radii)))
        # Directions are as long as the inputs: a derivative has the units of the value, and no more digits.
        size, limit = max(size, sizes[order]), max(limit, limits[order])
        if not size < min(1e-2 * torch.finfo(getattr(torch, case.dtype)).max, 1e100):
            break  # a derivative is of the order of exp(2 r), and its parts of its square
        error = math.hypot(*(a - b for a, b in zip(ours, value, strict=True)))
        rounding = (order + 1) * u * size  # the derivative of a product has as many terms
        unit = limit + rounding
        ratio = math.inf if math.isnan(error) else error / unit if unit else math.inf if error else 0.0
        result.append(Figure(order, ratio, sum(ours), sum(value), error, limit, rounding))
    return result


def _floats(numbers):
    """Numbers whose derivatives can be out of range: those are infinite."""
    return [float(a) if abs(a) < 1e300 else math.inf for a in numbers]


def _exact(case, rng):
    function, k = QUANTITIES[case.quantity].book, mp.mpf(case.k)
    h = mp.exp(-sum(case.radii)) * mp.mpf(10) ** -25  # a derivative on a ray holds for an angle of exp(-r)
    u = ROUNDOFF[case.dtype]

    def at(inputs, directions, step):
        value = function(k, *(book.add(a, d, step) for a, d in zip(inputs, directions, strict=True)))
        return value if isinstance(value, list) else [value]

    def jet(inputs, directions):
        value, up, down = (at(inputs, directions, step) for step in (mp.mpf(0), h, -h))
        return (
            value,
            book.times(1 / (2 * h), book.add(up, down, -1)),
            book.times(1 / h**2, book.add(book.add(up, down), value, -2)),
        )

    def contracted(value, *derivatives):
        return [value, *([book.dot(a, case.cotangent) if len(a) > 1 else a[0]] for a in derivatives)]

    whole = jet(case.inputs, case.directions)
    exact, sizes = contracted(*whole), [book.norm(a) for a in whole]
    # What is summed over the inputs, and over the coordinates of each, can cancel.
    for i, a in enumerate(case.inputs):
        for direction in (case.directions[i], book.times(book.norm(case.directions[i]), book.direction(rng, len(a)))):
            alone = [direction if j == i else book.times(0, b) for j, b in enumerate(case.inputs)]
            sizes = [max(size, book.norm(part)) for size, part in zip(sizes, jet(case.inputs, alone), strict=True)]
    limits = [mp.mpf(0)] * 3
    for moved in _moves(case, rng, u):
        directions = [book.add(d, book.direction(rng, len(d)), u * book.norm(d)) for d in case.directions]
        found = contracted(*jet(moved, directions))
        limits = [max(c, book.norm(book.add(a, b, -1))) for c, a, b in zip(limits, found, exact, strict=True)]
    return exact, sizes, limits


def _moves(case, rng, u):
    """Yields the inputs moved by u, in any direction, on a common ray, and outwards."""
    for _ in range(MOVES):
        yield [book.add(a, book.direction(rng, len(a)), u * book.norm(a)) for a in case.inputs]
    if len(case.inputs) > 1:
        yield from _moves_near_a_ray(case, rng, u)
    # In n dimensions any direction changes the radius by about ``u / sqrt(n)`` of itself, its own rounding by u.
    for sign in (1, -1):
        yield [*(book.times(1 + u, a) for a in case.inputs[:-1]), book.times(1 + sign * u, case.inputs[-1])]


def _moves_near_a_ray(case, rng, u):
    """Yields two far points nearer to one ray and onto it, where they are that near.

    There the exact result changes at every scale of the angle between ``exp(-r)`` and u.
    """
    first, last = case.inputs[0], case.inputs[-1]
    if not book.norm(first) or not book.norm(last):
        return
    for sign in (-1, 1):
        on_a_ray = book.times(sign * book.norm(last) / book.norm(first), first)
        if book.norm(book.add(on_a_ray, last, -1)) <= 2 * u * book.norm(last):
            yield [*case.inputs[:-1], on_a_ray]
            for i in range(MOVES):
                angle = mp.exp(-sum(case.radii) * i / MOVES) * u
                yield [*case.inputs[:-1], book.add(on_a_ray, book.direction(rng, len(last)), angle * book.norm(last))]


def _found(case):
    dtype = getattr(torch, case.dtype)
    M = geoopt.Lorentz(torch.tensor(case.k, dtype=torch.float64))
    inputs = [torch.tensor([float(x) for x in a], dtype=dtype) for a in case.inputs]
    directions = [torch.tensor([float(x) for x in a], dtype=dtype) for a in case.directions]
    step = torch.zeros((), dtype=dtype, requires_grad=True)
    value = QUANTITIES[case.quantity].ours(M, *(a + step * d for a, d in zip(inputs, directions, strict=True)))
    value = value.reshape(-1)
    cotangent = torch.tensor([float(x) for x in case.cotangent], dtype=dtype) if len(value) > 1 else value.new_ones(1)
    orders = [value.detach()]
    scalar = (value * cotangent).sum()
    for last in (False, True):
        scalar = (
            torch.autograd.grad(scalar, step, create_graph=not last, allow_unused=True)[0]
            if scalar.requires_grad
            else None
        )
        scalar = torch.zeros((), dtype=dtype) if scalar is None else scalar
        orders.append(scalar.detach().reshape(1))
    return [a.double().tolist() for a in orders]


def table() -> list[tuple[Case, Exact]]:
    """Returns the grid of cases with what is exact there."""
    return [(Case(**row["case"]), Exact(**row["exact"])) for row in json.loads(PATH.read_text())]


def main():
    rows = []
    for case in grid_cases():
        numbers = {name: [[float(x) for x in a] for a in getattr(case, name)] for name in ("inputs", "directions")}
        numbers["cotangent"] = [float(x) for x in case.cotangent]
        rows.append(
            json.dumps({"case": case._asdict() | numbers, "exact": exact(case)._asdict()}, separators=(",", ":"))
        )
    PATH.write_text("[\n" + ",\n".join(rows) + "\n]\n")
    print(f"{PATH}: {len(rows)} cases, {PATH.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
