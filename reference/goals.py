"""What the library's accuracy is compared with: the table of exact results, and the goals of the design."""

import json
from functools import cache, partial
from pathlib import Path

import geoopt
import mpmath as mp
import torch

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist

G = ph.geometry
U = {"float64": 2.0**-53, "float32": 2.0**-24}
NEAR, FAR = {"float64": 1e-8, "float32": 1e-4}, {"float64": 40.0, "float32": 30.0}  # radii over sqrt(k)
SPACES = [(n, k) for n in (2, 6, 64) for k in (10.0, 1.0, 0.25)]


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


#: (dtype, distance of loc from the origin over sqrt(k), error over max(1, |log_prob|)).
LOG_PROB_GOALS = [
    ("float64", *pair) for pair in ((2, 2e-14), (5, 3e-13), (10, 1e-10), (15, 1e-8), (20, 2e-6), (25, 3e-4))
]
LOG_PROB_GOALS += [("float32", *pair) for pair in ((2, 1e-5), (5, 3e-4), (10, 3e-2))]


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


def whc_gradient(M, v, p, w, t):
    """float32 against float64 autograd: a random cotangent of v2 plus the log-det, in (t, v) jointly, to r = 40."""

    def gradient(dtype):
        inputs = [a.to(dtype).requires_grad_() for a in (t, v * 4 / 3)]
        v2, log_det = G.translate_tangent(M, *inputs)
        cotangent = torch.randn(v.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return torch.cat(torch.autograd.grad((v2 * cotangent).sum() + log_det.sum(), inputs), dim=-1)

    return relative(gradient(torch.float32), gradient(torch.float64))


WHC_GRADIENT_GOAL = 2e-5
