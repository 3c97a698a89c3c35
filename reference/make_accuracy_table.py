"""Writes ``reference/data/accuracy_table.json``: exact results at rounded inputs, by textbook definitions in mpmath.

Usage: ``python reference/make_accuracy_table.py`` (40 s; the same file every time).

The oracle shares no formula with the library: ``exp_p``, ``log_p``, parallel transport and arcosh in ambient
coordinates, at 200 digits because these definitions cancel e^{4r} and more. Each row holds

* ``inputs``: exactly representable in ``dtype``; a point *is* (sqrt(k + |xs|^2), xs), given by its spatial part xs;
* ``value``: the exact result for those inputs (points by their spatial part), to 17 digits (float64) or 10 (float32);
* ``limit``: the largest change of the exact result, in Euclidean norm, over 16 random moves of the inputs, each input
  vector a by u |a| in a random direction (u is the unit roundoff). Isotropic rather than coordinate by coordinate:
  the geometry knows no axes, and for generic directions the two agree.

References:
    Nagano et al., A Wrapped Normal Distribution on Hyperbolic Space for Gradient-Based Learning, 2019, arXiv:1902.02992
    Bose et al., Latent Variable Modelling with Hyperbolic Normalizing Flows, 2020, arXiv:2002.06336
"""

import json
import random
import struct
from pathlib import Path

import mpmath as mp
from mpmath import mpf

SEED = 20200217
DIGITS = 200
SPACES = ((1, 10.0), (1, 0.25), (2, 10.0), (2, 1.0), (2, 0.25), (6, 10.0), (6, 0.25), (64, 1.0))  # n and k = -1/K
UNIT_ROUNDOFF = {"float64": mpf(2) ** -53, "float32": mpf(2) ** -24}
PATH = Path(__file__).parent / "data" / "accuracy_table.json"

dot, norm = mp.fdot, mp.norm  # vectors are lists of mpf


def add(a, b, scale=1):
    return [x + scale * y for x, y in zip(a, b, strict=True)]


def times(scale, a):
    return [scale * x for x in a]


# ---- the hyperboloid by the book: <x, x>_L = -k, time coordinate first ----


def lorentz(a, b):
    return dot(a[1:], b[1:]) - a[0] * b[0]


def lift(k, xs):
    return [mp.sqrt(k + dot(xs, xs)), *xs]


def origin(k, n):
    return lift(k, [mpf(0)] * n)


def exp(k, p, u):
    length = mp.sqrt(max(lorentz(u, u), 0))
    r = length / mp.sqrt(k)
    return add(times(mp.cosh(r), p), u, mp.sinh(r) / r) if r else p


def log(k, p, x):
    cosh = max(-lorentz(p, x) / k, 1)
    w = add(x, p, -cosh)
    length = mp.sqrt(max(lorentz(w, w), 0))
    return times(mp.sqrt(k) * mp.acosh(cosh) / length if length else 0, w)


def transport(k, p, q, u):
    return add(u, add(p, q), lorentz(q, u) / (k - lorentz(p, q)))


# ---- the quantities; points come and go as spatial parts ----


def exp0(k, v):
    return exp(k, origin(k, len(v)), [mpf(0), *v])[1:]


def log0(k, x):
    return log(k, origin(k, len(x)), lift(k, x))[1:]


def log_volume(k, v):
    r = norm(v) / mp.sqrt(k)
    return (len(v) - 1) * mp.log(mp.sinh(r) / r) if r else mpf(0)


def translate(k, p, x):
    o, p = origin(k, len(p)), lift(k, p)
    return exp(k, p, transport(k, o, p, log(k, o, lift(k, x))))[1:]


def log_at(k, p, x):
    """Normal coordinates of x at p, carried to the origin."""
    o, p = origin(k, len(p)), lift(k, p)
    return transport(k, p, o, log(k, p, lift(k, x)))[1:]


def translate_inverse(k, p, x):
    return exp0(k, log_at(k, p, x))


def distance(k, x, y):
    return mp.sqrt(k) * mp.acosh(max(-lorentz(lift(k, x), lift(k, y)) / k, 1))


def wrapped_normal_log_prob(k, loc, scale, x):
    v = log_at(k, loc, x)
    normal = sum(-((a / s) ** 2) / 2 - mp.log(s) - mp.log(2 * mp.pi) / 2 for a, s in zip(v, scale, strict=True))
    return normal - log_volume(k, v)


def whc(k, t, s, x2):
    return log0(k, translate(k, t, exp0(k, [a * mp.exp(b) for a, b in zip(x2, s, strict=True)])))


def whc_log_det(k, t, s, x2):
    """log|det d v2 / d x2|, Lebesgue: scale, volume stretch of exp0, isometry (0), volume stretch of log0."""
    scaled = [a * mp.exp(b) for a, b in zip(x2, s, strict=True)]
    return sum(s) + log_volume(k, scaled) - log_volume(k, whc(k, t, s, x2))


# ---- rounding and limits ----


def rounded(dtype, a):
    code = {"float64": "d", "float32": "f"}[dtype]
    return [mpf(struct.unpack(code, struct.pack(code, float(x)))[0]) for x in a]


def change(a, b):
    return norm(add(a, b, -1)) if isinstance(a, list) else abs(a - b)


def limit(f, k, inputs, dtype, rng):
    u, value = UNIT_ROUNDOFF[dtype], f(k, *inputs)
    moves = [[add(a, direction(rng, len(a)), u * norm(a)) for a in inputs] for _ in range(16)]
    return max(change(f(k, *moved), value) for moved in moves)


# ---- the cases: generators of (name, inputs) ----


def direction(rng, n):
    a = [mpf(rng.gauss(0, 1)) for _ in range(n)]
    return times(1 / norm(a), a)


def point(k, r, e):
    return times(mp.sqrt(k) * mp.sinh(r), e)


def radii(dtype):
    return (
        ("1e-8", "1e-4", "0.1", "1", "5", "20", "40") if dtype == "float64" else ("1e-4", "0.1", "1", "5", "15", "30")
    )


def tangent_cases(rng, dtype, n, k):
    for r in ("0", *radii(dtype)):
        yield f"r = {r}", [times(mp.sqrt(k) * mpf(r), direction(rng, n))]


def point_cases(rng, dtype, n, k):
    return ((name, [exp0(k, v)]) for name, [v] in tangent_cases(rng, dtype, n, k))


def pair_cases(rng, dtype, n, k):
    tiny, far = radii(dtype)[0], radii(dtype)[-1]
    for r, s in (
        *((0, 0), (0, 2), (2, 0), (1, 2), (tiny, tiny), (tiny, 3), (3, tiny)),
        *((far, tiny), (far, 1), (1, far), (far, far), (far, 15), (5, far)),
    ):
        yield f"radii {r}, {s}", [point(k, mpf(r), direction(rng, n)), point(k, mpf(s), direction(rng, n))]
    e = direction(rng, n)
    yield "far, same direction", [point(k, mpf(far), e), point(k, mpf(far) - 2, e)]
    yield "far, opposite directions", [point(k, mpf(far), e), point(k, 2 - mpf(far), e)]
    for r in ("0.5", "5", far) if n <= 6 else (far,):
        p = rounded(dtype, point(k, mpf(r), direction(rng, n)))
        for sign, name in ((1, "p"), (-1, "-p")):
            yield f"x = {name} at r = {r}", [p, times(sign, p)]
            for gap in ("1e-8", "1e-4") if dtype == "float64" else ("1e-6", "1e-3"):
                near = add(times(sign, p), direction(rng, n), mpf(gap) * norm(p))
                yield f"x = {name} to {gap} at r = {r}", [p, near]


def log_prob_cases(rng, dtype, n, k):
    def scale():
        return [mpf(rng.uniform(0.3, 1.5)) for _ in range(n)]

    loc = rounded(dtype, point(k, 2, direction(rng, n)))
    yield "loc at the origin", [times(0, loc), scale(), loc]
    yield "x at the origin", [loc, scale(), times(0, loc)]
    yield "x = loc", [loc, scale(), loc]
    for r in (2, 5, 10, 15, 20, 25) if dtype == "float64" else (2, 5, 10):
        for _ in range(4 if n <= 6 else 2):
            loc = rounded(dtype, point(k, r, direction(rng, n)))
            sigma = rounded(dtype, scale())
            v = [s * rng.gauss(0, 1) for s in sigma]
            yield f"loc at r = {r}", [loc, sigma, translate(k, loc, exp0(k, v))]


def whc_cases(rng, dtype, n, k):
    tiny, far = radii(dtype)[0], radii(dtype)[-1]
    for r, s in ((0, 0), (0, 2), (3, 0), (tiny, tiny), (tiny, 3), (3, tiny), (1, 2), (3, 3), (3, 10), (3, far)):
        t, x2 = point(k, mpf(r), direction(rng, n)), times(mp.sqrt(k) * mpf(s), direction(rng, n))
        yield f"radii {r}, {s}", [t, [mpf(rng.uniform(-1, 1)) for _ in range(n)], x2]
    for r in ("0.1", "1", "3"):
        x2 = rounded(dtype, times(mp.sqrt(k) * mpf(r), direction(rng, n)))
        yield f"t = -v at r = {r}", [times(-1, exp0(k, x2)), times(0, x2), x2]


QUANTITIES = {  # name: function, names of its inputs, cases
    "exp0": (exp0, ("v",), tangent_cases),
    "log0": (log0, ("x",), point_cases),
    "log_volume": (log_volume, ("v",), tangent_cases),
    "translate": (translate, ("p", "x"), pair_cases),
    "translate_inverse": (translate_inverse, ("p", "x"), pair_cases),
    "distance": (distance, ("x", "y"), pair_cases),
    "wrapped_normal_log_prob": (wrapped_normal_log_prob, ("loc", "scale", "x"), log_prob_cases),
    "whc": (whc, ("t", "s", "x2"), whc_cases),
    "whc_log_det": (whc_log_det, ("t", "s", "x2"), whc_cases),
}


def rows(quantity, dtype):
    function, names, cases = QUANTITIES[quantity]
    for n, k in SPACES:
        rng = random.Random(f"{SEED} {quantity} {dtype} {n} {k}")  # its own stream: a new quantity moves no old number
        every_other = slice(1, None, 2) if n == 64 else slice(None)  # keeps the file below 1 MB
        for case, inputs in list(cases(rng, dtype, n, k))[every_other]:
            inputs = [rounded(dtype, a) for a in inputs]
            value = function(mpf(k), *inputs)
            value = [written(dtype, x) for x in value] if isinstance(value, list) else written(dtype, value)
            yield {
                "quantity": quantity,
                "dtype": dtype,
                "k": k,
                "case": case,
                "inputs": {name: [written(dtype, x) for x in a] for name, a in zip(names, inputs, strict=True)},
                "value": value,
                "limit": float(mp.nstr(limit(function, mpf(k), inputs, dtype, rng), 3)),
            }


def written(dtype, x):
    """float32 to 10 digits, enough to read the same number back; below 1e-60 is noise of an exact zero, as T_p(-p)."""
    return 0.0 if abs(x) < mpf("1e-60") else float(x) if dtype == "float64" else float(f"{float(x):.10g}")


# ---- the oracle against itself ----


def boost(k, p, x):
    """T_p by the matrix of the Lorentz group, [[p0, p'], [p, R I + p p' / (R + p0)]] / R."""
    radius, p, x = mp.sqrt(k), lift(k, p), lift(k, x)
    return add(x[1:], p[1:], (dot(p[1:], x[1:]) / (radius + p[0]) + x[0]) / radius)


def check_oracle():
    """Identities that tie the definitions to each other, and the log-det to a Jacobian by differences."""
    rng, step = random.Random(SEED), mpf("1e-60")
    for k in map(mpf, (10, 1, 0.25)):
        for r, s in ((1, 2), (40, 40), (40, 1), (mpf("1e-8"), 30), (3, 15)):
            p, v = point(k, r, direction(rng, 3)), times(mp.sqrt(k) * s, direction(rng, 3))
            x = exp0(k, v)
            y = translate(k, p, x)
            pairs = [(log0(k, x), v), (boost(k, p, x), y), ([distance(k, p, y)], [norm(v)])]
            pairs += [(translate_inverse(k, p, y), x), (translate(k, times(-1, p), y), x)]
            assert all(change(a, b) <= mpf("1e-40") * norm(b) for a, b in pairs), (k, r, s)
        t, sigma, x2 = point(k, 2, direction(rng, 3)), [mpf("0.3"), mpf(-1), mpf("0.7")], times(3, direction(rng, 3))
        moved = [[x + step * (i == j) for j, x in enumerate(x2)] for i in range(3)]
        jacobian = [times(1 / step, add(whc(k, t, sigma, m), whc(k, t, sigma, x2), -1)) for m in moved]
        assert abs(mp.log(mp.det(mp.matrix(jacobian))) - whc_log_det(k, t, sigma, x2)) < mpf("1e-40")


def main():
    check_oracle()
    header = {
        "what": "exact results at rounded inputs; the docstring of the script says what value and limit mean",
        "made_by": "reference/make_accuracy_table.py",
        "digits": DIGITS,
        "seed": SEED,
        "unit_roundoff": {dtype: float(u) for dtype, u in UNIT_ROUNDOFF.items()},
    }
    lines = [json.dumps(row, separators=(",", ":")) for q in QUANTITIES for d in UNIT_ROUNDOFF for row in rows(q, d)]
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text('{"header":' + json.dumps(header) + ',\n"cases":[\n' + ",\n".join(lines) + "\n]}\n")
    print(f"{PATH}: {len(lines)} cases, {PATH.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    with mp.workdps(DIGITS):
        main()
