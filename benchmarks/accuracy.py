"""Accuracy against mpmath: whether the goals are met, and the errors of the public functions and of geoopt's.

The "limit" of a quantity is its change under one unit roundoff in the inputs: what rounding them has cost before any
formula. A formula in their precision can do no better; float64 arithmetic on float32 points adds less. Prints two
tables, and writes ``accuracy.json`` and ``accuracy.png`` to ``--out``. The exact values are those of the tests, from
``reference/make_accuracy_table.py``.
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path

import geoopt
import mpmath
import pyro
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))
from reference import goals
from reference.goals import G, U

SMOKE_TEST = os.environ.get("SMOKE_TEST") == "1"


def padded(v):
    """Returns a tangent vector at the origin in ambient coordinates, as geoopt takes it."""
    return torch.cat([torch.zeros_like(v[..., :1]), v], -1)


def geoopt_log_prob(M, loc, scale, x):
    """Returns the log-density of a wrapped normal, as a user of geoopt would write it."""
    loc, x = goals.lift(M, loc), goals.lift(M, x)
    v = M.transp0back(loc, M.logmap(loc, x))[..., 1:]
    r = v.norm(dim=-1) / M.k.sqrt()
    return torch.distributions.Normal(0, scale).log_prob(v).sum(-1) - (v.size(-1) - 1) * (r.sinh() / r).log()


#: Each quantity by geoopt's functions; the isometry is log, parallel transport, exp.
GEOOPT = {
    "exp0": lambda M, v: M.expmap0(padded(v)),
    "log0": lambda M, x: M.logmap0(goals.lift(M, x))[..., 1:],
    "translate": lambda M, p, x: M.expmap(goals.lift(M, p), M.transp0(goals.lift(M, p), M.logmap0(goals.lift(M, x)))),
    "distance": lambda M, x, y: M.dist(goals.lift(M, x), goals.lift(M, y)),
    "log_prob": geoopt_log_prob,
}
OVER_LIMIT = 10  # the goal for vector functions and distance
TITLES = {
    "exp0": "exponential map at the origin",
    "log0": "logarithm at the origin",
    "translate": "isometry to a point",
    "distance": "distance",
    "log_prob": "log-density of a wrapped normal",
}


def errors(quantity, dtype):
    """Returns the size, the limit, our error and geoopt's for each row of the table."""
    found = []
    for row, value, _, ours in goals.results(quantity, dtype)[:: 10 if SMOKE_TEST else 1]:
        inputs = [torch.tensor(a, dtype=getattr(torch, dtype)) for a in row["inputs"].values()]
        M = goals.lorentz(row["k"])
        M.k.data = M.k.data.to(inputs[0].dtype)
        with torch.no_grad():
            theirs = GEOOPT[quantity](M, *inputs).double()
        theirs = theirs[1:] if quantity in goals.POINTS else theirs
        theirs = (theirs - value).norm().item()
        size = max(value.norm().item(), 1.0 if quantity == "log_prob" else 0.0)
        if size == 0:
            continue  # exactly zero; a test checks that ours is too
        found.append({"size": size, "limit": row["limit"], "ours": ours, "geoopt": theirs})
    return found


def figures_of_goals():
    """Yields the goals: quantity, dtype, worst error, goal."""
    size = 20 if SMOKE_TEST else 400
    for measure, wanted in track(goals.GOALS, "goals", transient=True):
        for dtype, goal in wanted.items():
            with mpmath.workdps(120):
                worst = max(measure(M, *vectors) for _, M, *vectors in goals.cases(dtype, size))
            yield measure.__name__.replace("_", " "), dtype, worst, goal
    worst = max(goals.whc_gradient(M, *vectors) for _, M, *vectors in goals.cases("float32", size))
    yield "whc gradient", "float32", worst, goals.WHC_GRADIENT_GOAL
    for dtype, radius, goal in goals.LOG_PROB_GOALS:
        rows = [row for row in goals.results("log_prob", dtype) if row[0]["case"] == f"loc at r = {radius}"]
        worst = max(error / max(1.0, abs(value.item())) for _, value, _, error in rows)
        yield f"wrapped normal log_prob, loc at {radius}", dtype, worst, goal


# ---- the picture: worst error over many directions, by radius ----

M, N, DIRECTIONS = goals.lorentz(1.0), 3, 4 if SMOKE_TEST else 24
POINTS = 12 if SMOKE_TEST else 61


def radii(title, dtype):
    """Returns radii, logarithmic for round trips, which lose digits near the origin, else linear."""
    near, far = goals.NEAR[dtype], goals.FAR[dtype]
    if near_origin(title):
        return torch.logspace(math.log10(near), math.log10(far), POINTS)
    return torch.linspace(0.5, far, POINTS)


def near_origin(title):
    return title.startswith("round trip")


def exact_distance(x, y):
    """Returns the distance of the points with spatial parts ``x`` and ``y``."""
    return mpmath.acosh(mpmath.sqrt(1 + mpmath.fdot(x, x)) * mpmath.sqrt(1 + mpmath.fdot(y, y)) - mpmath.fdot(x, y))


def exact_log_prob(loc, x):
    """Returns the log-density of a wrapped normal of scale 1, a function of the distance."""
    d = exact_distance(loc, x)
    stretch = mpmath.log(mpmath.sinh(d) / d) if d else mpmath.mpf(0)
    return -(d**2) / 2 - N * mpmath.log(2 * mpmath.pi) / 2 - (N - 1) * stretch


def pairs(radius, dtype, apart):
    """Returns the spatial parts of points at a radius, and of points at distance ``apart`` from them."""
    generator = torch.Generator().manual_seed(0)
    v, w = torch.randn(2, DIRECTIONS, N, generator=generator, dtype=torch.float64)
    x = G.exp0(M, radius * v / v.norm(dim=-1, keepdim=True))
    y = G.translate(M, x, G.exp0(M, apart * w / w.norm(dim=-1, keepdim=True)))
    return (point[..., 1:].to(getattr(torch, dtype)) for point in (x, y))


def worst_errors(exact, ours, theirs, radius, dtype, apart):
    """Returns the worst of our errors, geoopt's errors and the limit, relative to max(1, size)."""
    x, y = pairs(radius, dtype, apart)
    manifold = geoopt.Lorentz(torch.tensor(1.0, dtype=x.dtype))
    u, worst = U[dtype], [0.0, 0.0, 0.0]
    values = [function(manifold, x, y).double().tolist() for function in (ours, theirs)]
    for i, (a, b) in enumerate(zip(x.double().tolist(), y.double().tolist(), strict=True)):
        value = exact(a, b)
        size = max(1.0, abs(value))
        moved = [exact([c * (1 + u * (-1) ** k) for k, c in enumerate(a)], b), exact(a, [c * (1 + u) for c in b])]
        found = [abs(values[0][i] - value), abs(values[1][i] - value), sum(abs(m - value) for m in moved) + u * size]
        worst = [max(w, float(f / size) if mpmath.isfinite(f) else math.inf) for w, f in zip(worst, found, strict=True)]
    return worst


def round_trip(radius, dtype):
    """Returns our and geoopt's worst relative error of log0(exp0(v)), and the limit."""
    v = torch.randn(DIRECTIONS, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v = (radius * v / v.norm(dim=-1, keepdim=True)).to(getattr(torch, dtype))
    manifold = geoopt.Lorentz(torch.tensor(1.0, dtype=v.dtype))
    theirs = manifold.logmap0(manifold.expmap0(padded(v)))[..., 1:]
    found = [((w - v).norm(dim=-1) / v.norm(dim=-1)).max().item() for w in (G.log0(M, G.exp0(M, v)), theirs)]
    return [*(error if math.isfinite(error) else math.inf for error in found), U[dtype]]


def scored(log_prob):
    return lambda manifold, loc, x: log_prob(manifold, loc, torch.ones(N, dtype=loc.dtype), x)


CURVES = {
    "round trip log0(exp0(v)), relative": round_trip,
    "distance of points 1 apart": lambda radius, dtype: worst_errors(
        exact_distance,
        lambda manifold, x, y: G.distance(manifold, goals.lift(manifold, x), goals.lift(manifold, y)),
        GEOOPT["distance"],
        radius,
        dtype,
        1.0,
    ),
    "log-density of a wrapped normal": lambda radius, dtype: worst_errors(
        exact_log_prob, scored(goals.log_prob), scored(geoopt_log_prob), radius, dtype, 1.0
    ),
}


#: Colours of Okabe and Ito, dashes beside them.
STYLES = {
    "pyro_hyperbolic": {"color": "#0072B2"},
    "geoopt": {"color": "#D55E00", "linestyle": "-."},
    "limit of rounded points": {"color": "0.4", "linestyle": "--"},
}


def curves():
    """Returns the errors at each radius, for each curve and dtype."""
    cells = [(title, dtype) for title in CURVES for dtype in U]
    with mpmath.workdps(80), torch.no_grad():
        return {
            (title, dtype): [(r, *CURVES[title](r, dtype)) for r in radii(title, dtype).tolist()]
            for title, dtype in track(cells, "along the radius", transient=True)
        }


def picture(found, path):
    """Draws errors and the limit against the radius, in both precisions."""
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    axes = figure.subplots(2, len(CURVES), sharey="row")
    for (title, dtype), rows in found.items():
        ax = axes[list(U).index(dtype)][list(CURVES).index(title)]
        radius, *series = zip(*rows, strict=True)
        for (name, style), y in zip(STYLES.items(), series, strict=True):
            # Exact results are drawn at half the unit roundoff; results with no correct digit, or NaN, at the top.
            drawn = [min(max(error, U[dtype] / 2), 1e3) for error in y]
            ax.plot(radius, drawn, linewidth=1.8, label=name, zorder=1 if name.startswith("limit") else 2, **style)
        ax.axhspan(1, 1e3, color="0.93", linewidth=0, zorder=0)
        ax.set(xscale="log" if near_origin(title) else "linear", yscale="log", ylim=(U[dtype] / 4, 1e3))
        ax.spines[["top", "right"]].set_visible(False)
    for ax, letter, title in zip(axes.flat, "abcdef", [*CURVES] * 2, strict=True):
        ax.set_title(f"({letter}) {title}", fontsize=11, loc="left")
        ax.set_xlabel("distance from the origin, over sqrt(k)")
    for row, dtype in zip(axes, U, strict=True):
        row[0].set_ylabel(f"error in {str(dtype).removeprefix('torch.')}")
    axes[0][1].text(1, 30, "no correct digit", color="0.3", fontsize=9, va="center")
    axes[1][2].legend(frameon=False, loc=(0.37, 0.18))  # where no line is
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    reached = list(figures_of_goals())
    table = Table("quantity", "dtype", "worst", "goal", "", title="accuracy goals")
    for name, dtype, worst, goal in reached:
        table.add_row(name, dtype, f"{worst:.1e}", f"{goal:.0e}", "[green]met" if worst <= goal else "[red]NOT MET")
    Console().print(table)
    with pyro.validation_enabled(False):
        found = {(q, dtype): errors(q, dtype) for q in track(GEOOPT, "with geoopt", transient=True) for dtype in U}
    columns = ("quantity", "dtype", "ours: median", "worst", "goal", "", "geoopt: median", "worst")
    table = Table(*columns, title="error over limit + u")
    for (quantity, dtype), rows in found.items():
        cells = []
        for name in ("ours", "geoopt"):
            over = sorted(
                row[name] / (row["limit"] + U[dtype] * row["size"]) if math.isfinite(row[name]) else math.inf
                for row in rows
            )
            cells += [f"{over[len(over) // 2]:.1g}", f"{over[-1]:.1g}"]
            if name == "ours":
                cells += [f"{OVER_LIMIT}", "[green]met" if over[-1] <= OVER_LIMIT else "[red]NOT MET"]
        table.add_row(TITLES[quantity], dtype, *cells)
    Console().print(table)
    with pyro.validation_enabled(False):
        along = curves()
    facts = {
        "goals": [dict(zip(("quantity", "dtype", "worst", "goal"), row, strict=True)) for row in reached],
        "errors": [{"quantity": q, "dtype": dtype, "rows": rows} for (q, dtype), rows in found.items()],
        "curves": [{"title": title, "dtype": dtype, "rows": rows} for (title, dtype), rows in along.items()],
    }
    (args.out / "accuracy.json").write_text(json.dumps(facts))
    picture(along, args.out / "accuracy.png")
    print(f"figures: {args.out / 'accuracy.json'}; picture: {args.out / 'accuracy.png'}")


if __name__ == "__main__":
    main()
