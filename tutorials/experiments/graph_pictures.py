"""Pictures of growth: why edges must be long, real and grown trees side by side, and codes as they appear.

python tutorials/experiments/graph_pictures.py          # writes docs/images/growth*, a minute on one core
"""

import argparse
import math
from pathlib import Path

import geoopt
import graph_generation
import growth
import numpy as np
import pyro
import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

import pyro_hyperbolic as ph
from pyro_hyperbolic import viz

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
BLUE, ORANGE, RED = "#0072B2", "#E69F00", "#D55E00"  # Okabe-Ito
PLANE, DISK = geoopt.Euclidean(1), geoopt.Lorentz(torch.ones((), dtype=torch.float64))


# ---- The theorem ----


def branching(M, length, turn, depth):
    """Returns the nodes of a tree in which edges turn by plus or minus ``turn``, and their parents.

    Three edges leave the root, at equal angles.
    """
    f64 = torch.float64
    origin = ph.geometry.origin(M, 2, dtype=f64)
    angles = torch.arange(3, dtype=f64) * 2 * math.pi / 3 + math.pi / 2
    z = [origin[None], ph.geometry.exp0(M, length * torch.stack([angles.cos(), angles.sin()], -1))]
    last, above, parents = z[1], origin.expand(3, -1), [torch.tensor([-1]), torch.zeros(3, dtype=torch.long)]
    first = 1
    for _ in range(depth - 1):
        back = ph.geometry.log0(M, ph.geometry.translate(M, last, above, inverse=True))
        heading = torch.atan2(-back[:, 1], -back[:, 0])[:, None] + torch.tensor([-turn, turn], dtype=f64)
        step = length * torch.stack([heading.cos(), heading.sin()], -1).flatten(0, 1)
        above, parent = last.repeat_interleave(2, 0), torch.arange(first, first + len(last)).repeat_interleave(2)
        first += len(last)
        last = ph.geometry.translate(M, above, ph.geometry.exp0(M, step))
        z.append(last)
        parents.append(parent)
    return torch.cat(z), torch.cat(parents)


def strangers(M, z, parents):
    """Returns the distances of all pairs of nodes that no edge joins, infinite elsewhere, ``(N, N)``."""
    apart = ph.geometry.distance_matrix(M, z)
    nodes = torch.arange(1, len(z))
    joined = torch.eye(len(z), dtype=torch.bool)
    joined[nodes, parents[1:]] = joined[parents[1:], nodes] = True
    return apart.masked_fill(joined, torch.inf)


def theorem(file):
    """Draws one rule in two spaces, and the nearest pair without an edge as a function of the edge length."""
    figure = Figure(figsize=(12.6, 4.3), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    length = 1.25 * growth.closing_length(2 * math.pi / 3)
    for ax, M, depth, step in ((axes[0], PLANE, 6, 1.0), (axes[1], DISK, 6, length)):
        z, parents = branching(M, step, math.pi / 3, depth)
        edges = torch.stack([parents[1:], torch.arange(1, len(z))], -1)
        viz.frame(ax, M)
        viz.tree(ax, M, z, edges, color=BLUE, linewidth=1.6)
        near = strangers(M, z, parents)
        wrong = (near.triu(1) + torch.full_like(near, torch.inf).tril()) < 1.001 * step
        hit = wrong.any(0) | wrong.any(1)
        viz.points(ax, M, z, color=BLUE, s=9)
        if hit.any():
            viz.points(ax, M, z[hit], facecolor="none", edgecolor=RED, s=70, linewidth=1.4, zorder=3)
        count = int(wrong.sum())
        title = "$E^2$" if M is PLANE else f"$H^2$, edges 1.25 $\\tau^*$ = {step:.2f}"
        ax.set_title(f"{title}:\n{len(z)} nodes, {count} false edges")
    bisectors(axes[1], length)
    lengths = torch.linspace(0.1, 2.5, 5 if graph_generation.SMOKE else 97).tolist()
    for degrees, colour, style in ((120, BLUE, "-"), (90, ORANGE, "--")):
        turn = math.pi - math.radians(degrees)
        ratio = [strangers(DISK, *branching(DISK, step, turn, 8)).min().item() / step for step in lengths]
        axes[2].plot(lengths, ratio, style, color=colour, linewidth=2, label=f"angles of {degrees}°")
        star = growth.closing_length(math.radians(degrees))
        axes[2].axvline(star, color=colour, linestyle=":", linewidth=1.6)
        axes[2].annotate(f"$\\tau^*$ = {star:.2f}", (star + 0.04, 1.2), color=colour, fontsize=11)
    axes[2].axhline(1, color="0.4", linewidth=0.8)
    axes[2].set(xlabel="edge length $\\tau$ in $H^2$", ylabel="nearest pair without an edge, in edges", ylim=(0, None))
    axes[2].set_title("Edges longer than $\\tau^*$ never close up")
    axes[2].legend(frameon=False, loc="upper left")
    figure.savefig(file, dpi=110)


def bisectors(ax, length):
    """Draws the perpendicular bisectors of the edges of a path, which are nested."""
    z, parents = branching(DISK, length, math.pi / 3, 6)
    path, here = [], len(z) - 20
    while here > 0:
        path.append((int(parents[here]), here))
        here = int(parents[here])
    for p, q in path:
        v = ph.geometry.log_at(DISK, z[p], z[q])
        middle = ph.geometry.exp_at(DISK, z[p], v / 2)
        back = ph.geometry.log0(DISK, ph.geometry.translate(DISK, middle, z[p], inverse=True))
        side = 8 * torch.stack([-back[1], back[0]]) / back.norm()
        ends = [ph.geometry.translate(DISK, middle, ph.geometry.exp0(DISK, s)) for s in (side, -side)]
        viz.geodesics(ax, DISK, *ends, color=RED, linewidth=1.2, linestyle="--")


# ---- Real and grown ----


def layout(graph):
    """Returns positions of a tree's nodes: stress is minimised from a radial start, ``(nodes, 2)``."""
    nodes, edges = graph
    hops = np.full((nodes, nodes), np.inf)
    np.fill_diagonal(hops, 0)
    u, v = edges.numpy().T
    hops[u, v] = hops[v, u] = 1
    for k in range(nodes):
        hops = np.minimum(hops, hops[:, k : k + 1] + hops[k])
    hops = torch.tensor(np.where(np.isfinite(hops), hops, 2 * np.sqrt(nodes)))
    gram = hops**2 - (hops**2).mean(0) - (hops**2).mean(1, keepdim=True) + (hops**2).mean()
    values, vectors = torch.linalg.eigh(-gram / 2)
    x = (vectors[:, -2:] * values[-2:].clamp(min=1e-6).sqrt() + 0.1 * torch.randn(nodes, 2)).requires_grad_()
    optimizer, pairs = torch.optim.Adam([x], 0.1), hops > 0
    for _ in range(400):
        apart = (x[:, None] - x).square().sum(-1).masked_fill(~pairs, 1.0).sqrt()
        loss = ((apart - hops)[pairs] ** 2 / hops[pairs] ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return x.detach().numpy()


def on_disk(atlas, row, graph):
    """Returns a picture of codes on the disk: points whose distances are close to half of theirs, ``(nodes, 3)``."""
    nodes, _ = graph
    everyone = torch.arange(nodes)
    pairs = atlas.pairs(torch.full((nodes,), row), everyone, nodes)
    wanted = ph.geometry.distance(atlas.space.manifold, pairs[..., 0, :], pairs[..., 1, :]) / 2
    start = torch.tensor(layout(graph))
    v = (start - start[0]) / 4
    v.requires_grad_()
    optimizer, upper = torch.optim.Adam([v], 0.03), torch.ones(nodes, nodes, dtype=torch.bool).triu(1)
    for _ in range(500):
        apart = ph.geometry.distance_matrix(DISK, ph.geometry.exp0(DISK, v))
        loss = ((apart - wanted)[upper] / wanted[upper]).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    z = ph.geometry.exp0(DISK, v.detach())
    return ph.geometry.translate(DISK, z[0], z, inverse=True)  # the root in the middle


def side_by_side(file, model, train, shown=4):
    """Draws real trees of about 50 nodes in the upper two rows, grown ones in the lower: as graphs, and their codes."""
    kept = {}
    grown = model.sample(torch.full((shown,), 50), watch=lambda batch, atlas: kept.update(atlas=atlas))
    real = sorted(train, key=lambda graph: abs(graph[0] - 50))[:shown]
    orders = [growth.order_of(graph, torch.Generator().manual_seed(1)) for graph in real]
    edges = [torch.tensor([[parent, i] for i, parent in enumerate(order.parents) if i]) for order in orders]
    drawn = [(len(order.parents), pairs) for order, pairs in zip(orders, edges, strict=True)]
    figure = Figure(figsize=(3 * shown, 12.4), layout="constrained")
    grid = figure.subplots(4, shown)
    embedded = growth.embed(model.space, orders)
    for half, name, graphs, atlas in ((0, "real", drawn, embedded), (2, "grown", grown, kept["atlas"])):
        colour, style = (BLUE, "-") if name == "real" else (RED, "--")
        for column, graph in enumerate(graphs):
            flat, disk = grid[half, column], grid[half + 1, column]
            place = layout(graph)
            lines = LineCollection(place[graph[1].numpy()], color=colour, linewidth=1.6, linestyle=style)
            flat.add_collection(lines)
            flat.scatter(*place.T, s=16, color="0.15", zorder=3)
            flat.set_title(f"{name}, {graph[0]} nodes")
            flat.set(aspect="equal", xticks=[], yticks=[])
            flat.set_frame_on(False)
            z = on_disk(atlas, column, graph)
            viz.poincare_disk(disk, DISK)
            viz.tree(disk, DISK, z, graph[1], color=colour, linewidth=1.4, linestyle=style)
            viz.points(disk, DISK, z, s=12, color="0.15", zorder=3)
    figure.savefig(file, dpi=70)


def animation(file, model, nodes=60, seed=3):
    """Writes a GIF of codes that appear one by one, with the edges drawn between them."""
    pyro.set_rng_seed(seed)
    kept = {}
    (graph,) = model.sample(torch.tensor([nodes]), watch=lambda batch, atlas: kept.update(atlas=atlas))
    z = on_disk(kept["atlas"], 0, graph)
    figure = Figure(figsize=(3.6, 3.6), layout="constrained")
    ax = figure.subplots()

    def frame(count):
        ax.clear()
        viz.poincare_disk(ax, DISK)
        edges = graph[1][graph[1].max(1).values < count]
        if len(edges):
            viz.tree(ax, DISK, z, edges, color=BLUE, linewidth=1.2)
        viz.points(ax, DISK, z[:count], s=12, color="0.15")
        viz.points(ax, DISK, z[count - 1 : count], s=45, color=RED)

    frames = [*range(1, graph[0] + 1), *[graph[0]] * 12]
    FuncAnimation(figure, frame, frames).save(file, writer=PillowWriter(fps=6), dpi=70)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=IMAGES)
    parser.add_argument("--only", choices=["theorem", "trees"])
    args = parser.parse_args()
    graph_generation.prepare()
    if args.only != "trees":
        theorem(args.out / "growth_theorem.png")
    if args.only != "theorem":
        model = graph_generation.trained("growth-whc", "trees", 0).model
        side_by_side(args.out / "growth_trees.png", model, graph_generation.load("trees", 0)[0])
        animation(args.out / "growth.gif", model)


if __name__ == "__main__":
    main()
