"""Matrices of distances, from files or made by a seed; starts, scores and pictures of their models."""

import csv
import hashlib
import math
import re

import geoopt
import numpy as np
import pyro
import pyro.distributions as dist
import scipy.cluster.hierarchy
import scipy.sparse
import torch
from matplotlib.figure import Figure
from pyro import poutine
from pyro.poutine.util import site_is_subsample

import pyro_hyperbolic as ph
from pyro_hyperbolic import viz

# ---- Data ----

MISSING = {"", "NA", "-", "?"}


def read(path, seed=0):
    """Returns a matrix of distances, NaN where one is missing, and the names; without a path one made by the seed."""
    if path is None:
        return made_by(seed)
    if path.suffix == ".npz":
        with np.load(path) as file:
            return torch.from_numpy(file["distances"].astype(float)), [str(name).strip() for name in file["names"]]
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as file:  # Excel begins with a mark of the encoding
            return table([row for row in csv.reader(file) if any(row)])
    text = path.read_text()
    if "(" not in text:
        raise ValueError("this is no .npz, no .csv, and no tree in Newick's format")
    return newick(text)


def read_arguments(parser):
    """Returns what ``--data`` and ``--seed`` of a command line give, and the number of its ``--species``."""
    args = parser.parse_args()
    try:
        D, names = read(args.data, args.seed)
        if not (D > 0).any():
            raise ValueError("no distance is greater than zero: has the tree branch lengths?")
    except (OSError, ValueError) as error:
        parser.error(f"--data {args.data}: {error}")
    if args.species not in (None, *names):
        parser.error(f"--species {args.species} is not among {', '.join(names)}")
    return D, names, names.index(args.species or names[0])


def table(rows):
    """Returns the distances of a square table and its names, which are in the first row, and may be in a column."""
    (head, *rows), n = rows, len(rows) - 1
    if not n <= len(head) <= n + 1 or any(len(row) not in (n, n + 1) for row in rows):
        cells = " or ".join(map(str, sorted({len(row) for row in rows})))
        raise ValueError(f"needs a square table, with commas: found {n} rows of {cells} cells below {len(head)} names")
    names = [name.strip() for name in head[-n:]]
    if [row[0].strip() for row in rows if len(row) > n] not in ([], names):
        raise ValueError("needs a square table: the first cells of its rows are not the names above, in their order")
    cells = [[cell.strip() for cell in row[-n:]] for row in rows]
    D = torch.tensor([[math.nan if c in MISSING else float(c) for c in row] for row in cells], dtype=torch.float64)
    return D.where(~D.isnan(), D.mT), names  # one triangle is enough


def newick(text):
    """Returns the distances between the leaves of a tree in Newick's format, and their names."""
    parents, node, edges, lengths, names = [], 0, [], [], {}
    for mark, name, length in re.findall(r"([(),])|'?([^(),:;'\s][^(),:;']*)'?|:\s*([^(),:;\s]+)", text):
        if mark == ")":
            node = parents.pop()
        elif mark:
            parents += [node] if mark == "(" else []
            node = len(edges) + 1
            edges.append((parents[-1], node))
            lengths.append(0.0)
        elif name:
            names[node] = name
        elif node:
            lengths[node - 1] = float(length)
    leaves = sorted({child for _, child in edges} - {parent for parent, _ in edges})
    return ph.embeddings.path_lengths(edges, lengths)[leaves][:, leaves], [names.get(i, str(i)) for i in leaves]


def made_by(seed, n=40, noise=0.03):
    """Returns distances between the leaves of a random tree with log-normal noise: lineages merge in random pairs."""
    generator = np.random.default_rng(seed)
    D, depth, lineages = np.zeros((n, n)), 0.0, [[i] for i in range(n)]
    while len(lineages) > 1:
        depth += generator.exponential(1 / len(lineages))
        first, second = (lineages.pop(generator.integers(len(lineages))) for _ in range(2))
        D[np.ix_(first, second)] = 2 * depth
        lineages.append(first + second)
    error = np.exp(noise * np.triu(generator.standard_normal((n, n)), 1))
    return torch.from_numpy((D + D.T) * error * error.T), [f"species {i}" for i in range(n)]


def hide(D, share, seed):
    """Returns which pairs ``i < j`` are seen, and which of the known ones are hidden.

    A distance of zero has no logarithm, and counts as missing.
    """
    known = (D[tuple(torch.triu_indices(len(D), len(D), 1))] > 0).nonzero().squeeze(-1)
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
    seen, hidden = torch.zeros(2, len(D) * (len(D) - 1) // 2, dtype=torch.bool)
    count = round(share * len(known))
    hidden[known[order[:count]]], seen[known[order[count:]]] = True, True
    return seen, hidden


def few(D, known, star, count):
    """Returns the known pairs without most of those of one node, whose nearest, and others at random, stay."""
    i, j = torch.triu_indices(len(D), len(D), 1)
    own = (known & ((i == star) | (j == star))).nonzero().squeeze(-1)
    own = own[D[i, j][own].argsort()]
    kept = known.clone()
    kept[own[1 + torch.randperm(max(len(own) - 1, 0))[count - 1 :]]] = False
    return kept


# ---- Starts ----


def completed(D, seen):
    """Returns the matrix with all pairs filled in that are not seen."""
    i, j = torch.triu_indices(len(D), len(D), 1)[:, seen]
    gaps = torch.full_like(D, math.nan).fill_diagonal_(0.0)
    gaps[i, j] = gaps[j, i] = D[i, j]
    return ph.embeddings.complete_distances(gaps)


def layout(edges, lengths, n, dim, radius):
    """Returns tangent coordinates of a layout in the hyperbolic space of curvature -1, and what a unit is in lengths.

    The longest path gets twice the radius.
    """
    unit = ph.embeddings.path_lengths(edges, lengths).max() / (2 * radius)
    M = geoopt.Lorentz()
    points = ph.embeddings.tree(M, edges, lengths, dim=dim, scale=1 / unit.item(), dtype=torch.float64)
    return ph.geometry.log0(M, points[:n]), unit


def scaling(edges, lengths, n, dim, spread):
    """Returns coordinates by classical scaling, of standard deviation ``spread``, and what a unit is in lengths."""
    squares = ph.embeddings.path_lengths(edges, lengths)[:n, :n].square()
    squares = squares - squares.mean(0) - squares.mean(1, keepdim=True) + squares.mean()
    values, vectors = torch.linalg.eigh(-squares / 2)
    v = vectors[:, -dim:] * values[-dim:].clamp(min=1e-6).sqrt()
    return v * (spread / v.std()), v.std() / spread


#: The runs of a manifold: where they start, and the squared radius ``k`` of their hyperbolic space.
STARTS = {
    "euclidean": ((scaling, 1.0, math.inf), (layout, 3.0, math.inf), (layout, 10.0, math.inf)),
    "hyperbolic": ((scaling, 1.0, 10.0), (layout, 3.0, 100.0), (layout, 10.0, 1.0)),
}


def start_of(name, D, seen, pendant, dim):
    """Returns the manifold of the runs, and initial latents, by the tree of neighbour joining.

    If the model has pendant branches, those of the tree are left out of its layout.
    """
    n = len(D)
    edges, lengths = ph.embeddings.neighbour_joining(completed(D, seen))
    leaves = edges[:, 1] < n
    a = torch.zeros(n, dtype=torch.float64).index_put((edges[leaves, 1],), lengths[leaves])
    inner = lengths * ~(leaves & pendant)
    places = [place(edges, inner, n, dim, size) for place, size, _ in STARTS[name]]
    v, unit = map(torch.stack, zip(*places, strict=True))
    k = torch.tensor([[k] for *_, k in STARTS[name]], dtype=torch.float64)
    M = geoopt.Euclidean(1) if name == "euclidean" else geoopt.Lorentz(k)
    start = {"z": ph.geometry.exp0(M, v), "c": unit, "s": v.square().mean((1, 2)).sqrt(), "sigma": 0.1 + 0 * unit}
    start = {site: value.unsqueeze(-1) if value.dim() == 1 else value for site, value in start.items()}
    return M, start | ({"a": a.clamp(min=0.02).expand(len(k), n)} if pendant else {})


def one_of(M, run):
    """Returns the manifold of one run."""
    return type(M)(M.k[run]) if hasattr(M, "k") else M


# ---- Posteriors and scores ----


def once(folder, seed, function, *args):
    """Returns ``function(*args)`` after setting the seed, from a file of the folder if it was called so before."""
    parts = [a.numpy().tobytes() if isinstance(a, torch.Tensor) else repr(a).encode() for a in (*args, seed)]
    file = folder / f"fit-{hashlib.sha256(b','.join(parts)).hexdigest()[:16]}.pt"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pyro.set_rng_seed(seed)
        torch.save(function(*args), file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)  # complete or not there
    pyro.set_rng_seed(seed)  # what follows draws the same
    return torch.load(file, weights_only=False)


@torch.no_grad()
def posterior(tree, guide, log_D, seen, num_samples):
    """Returns the ELBO of each run, and draws of ``log d`` and ``sigma``, shapes ``(num_samples, runs, *)``."""
    elbo, draws = 0.0, []
    for _ in range(num_samples):
        q = poutine.trace(guide).get_trace()
        p = poutine.trace(poutine.replay(tree.model, trace=q)).get_trace(log_D, seen)
        for trace, weight in ((p, 1 / num_samples), (q, -1 / num_samples)):
            trace.compute_log_prob()
            random = [site for site in trace.nodes.values() if site["type"] == "sample" and not site_is_subsample(site)]
            elbo += weight * sum(site["log_prob"].sum(-1) for site in random)
        draws.append((p.nodes["log d"]["value"], p.nodes["sigma"]["value"]))
    return elbo, *map(torch.stack, zip(*draws, strict=True))


def quantiles(draws, df):
    """Returns lower ends, medians and upper ends of 90% intervals of ``log D``, by draws of ``log d`` and ``sigma``."""
    predicted = dist.StudentT(df, *draws).sample((5,)).flatten(0, 1)
    if not predicted.numel():  # no pairs, of which torch has no quantile
        return predicted.new_empty(3, 0)
    return predicted.quantile(torch.tensor([0.05, 0.5, 0.95]).to(predicted), dim=0)


def scores(draws, log_D, df=4.0):
    """Returns the relative error of the median, log score in nats, and coverage of the 90% interval, of each pair."""
    lower, median, upper = quantiles(draws, df)
    density = dist.StudentT(df, *draws).log_prob(log_D).logsumexp(0) - math.log(len(draws[0]))
    return torch.expm1(median - log_D).abs(), density, ((lower <= log_D) & (log_D <= upper)).to(log_D)


def write(file, names, D, chosen, draws, df=4.0):
    """Writes medians and 90% intervals of the distances of chosen pairs, in the file's units, beside known ones."""
    pairs, (log_d, sigma) = torch.triu_indices(len(D), len(D), 1)[:, chosen], draws
    ends = [[names[i] for i in side.tolist()] for side in pairs]
    known = [value if value > 0 else "" for value in D[tuple(pairs)].tolist()]
    lower, median, upper = quantiles((log_d[:, chosen], sigma), df).exp().tolist()
    with file.open("w", newline="") as out:
        rows = zip(*pairs.tolist(), median, lower, upper, *ends, known, strict=True)
        csv.writer(out).writerows([("i", "j", "median", "lower", "upper", "first", "second", "known"), *rows])


def write_points(file, M, names, median, z, unit):
    """Writes where the points are and how well they are known, in the file's units.

    ``x`` and ``y`` are those of the picture, up to units: directions and distances from the centre are true. A ball of
    the radius holds 90% of the draws ``z`` of a point. A pendant branch is a posterior median.
    """
    scale = median["c"] * unit
    v = scale * ph.geometry.log0(M, median["z"])
    radius = scale * ph.geometry.distance(M, z, median["z"]).quantile(0.9, dim=0)
    pendant = (unit * median["a"]).tolist() if "a" in median else len(names) * [""]
    with file.open("w", newline="") as out:
        rows = zip(names, *v.T.tolist(), radius.tolist(), pendant, strict=True)
        csv.writer(out).writerows([("name", "x", "y", "radius", "pendant"), *rows])


# ---- The picture ----

#: Okabe and Ito, without yellow, which is pale in text.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000"]


def picture(file, M, D, names, median, z, log_d, star):
    """Draws the posterior on a disk whose radius is hyperbolic distance.

    Clouds are draws ``z`` of the points, coloured lines pendant branches, to scale but not in direction. Grey is the
    tree of neighbour joining of the predicted distances, with its inner nodes at midpoints of their neighbours. Colours
    are clusters of all known distances.
    """
    n, pairs = len(D), tuple(torch.triu_indices(len(D), len(D), 1))
    clusters = scipy.cluster.hierarchy.linkage(completed(D, D[pairs] > 0)[pairs], "average")
    groups = scipy.cluster.hierarchy.fcluster(clusters, len(COLOURS), "maxclust") - 1
    nodes, edges = grown(M, median["z"], log_d.median(0).values.exp())
    v = ph.geometry.log0(M, median["z"])
    lengths = median["a"] / median["c"] if "a" in median else torch.zeros(n)
    angles, order = torch.atan2(v[:, 1], v[:, 0]).sort()
    apart = angles - 2 * math.pi * torch.arange(n) / n
    turn = torch.atan2(apart.sin().sum(), apart.cos().sum()).item()  # names, evenly spaced, are near their points
    reach = (v.norm(dim=-1) + 1.2 * lengths).max().item()
    figure = Figure(figsize=(7.6, 8.0), layout="constrained")
    ax = figure.subplots()
    rings, *numbers = viz.native_disk(ax, M, reach, color="0.85", label="distance from the origin")
    tree = viz.tree(ax, M, nodes, edges, color="0.55", linewidth=1.0, label="neighbour-joining tree")
    drawn = [ph.geometry.log0(M, nodes)]
    for rank, node in enumerate(order.tolist()):
        angle = turn + 2 * math.pi * rank / n
        place = reach * torch.tensor([math.cos(angle), math.sin(angle)])
        out = place - v[node]
        end = v[node] + lengths[node] * out / out.norm()
        drawn += [torch.lerp(v[node], end, t).unsqueeze(0) for t in np.linspace(0, 1, 20)] + [place.unsqueeze(0)]
        colour, flip = COLOURS[groups[node]], math.cos(angle) < 0
        style = {"alpha": 0.5, "s": 8} if node == star else {"alpha": 0.08, "s": 4}
        viz.points(ax, M, z[:, node], color=colour, linewidth=0, **style)
        ax.plot(*torch.stack([v[node], end]).T, color=colour, linewidth=1.6)
        ax.plot(*torch.stack([end, 0.99 * place]).T, color=colour, linewidth=0.4, linestyle=":")
        style = {"fontsize": 11, "weight": "bold"} if node == star else {"fontsize": min(8.0, 600 / n)}
        style |= {"rotation": math.degrees(angle) + 180 * flip, "rotation_mode": "anchor", "va": "center"}
        ax.text(*(1.01 * place), names[node], color=colour, ha="right" if flip else "left", **style)
    where_there_is_room(numbers, torch.cat(drawn))
    draws = ax.scatter([], [], color="0.2", s=9, alpha=0.5, linewidth=0, label="draws of a species")
    (branch,) = ax.plot([], [], color="0.2", linewidth=1.6, label="its pendant branch")
    figure.legend(handles=[draws, branch, tree, rings], loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(file, dpi=150, bbox_inches="tight")


def where_there_is_room(numbers, drawn):
    """Moves the numbers of the rings to the direction in which they are farthest from what is drawn."""
    radii = torch.tensor([number.get_position()[1] for number in numbers])
    turns = torch.linspace(0, 2 * math.pi, 361)
    spots = torch.stack([turns.cos(), turns.sin()], -1).unsqueeze(1) * radii.unsqueeze(-1)
    best = torch.cdist(spots.to(drawn), drawn).amin((1, 2)).argmax()
    for number, spot in zip(numbers, spots[best].tolist(), strict=True):
        number.set(position=spot, zorder=3)  # above the dotted lines


def grown(M, leaves, distances, rounds=50):
    """Returns the nodes and the edges of the neighbour-joining tree of distances of pairs, for points of its leaves."""
    n = len(leaves)
    D = torch.zeros(n, n, dtype=distances.dtype)
    D[tuple(torch.triu_indices(n, n, 1))] = distances
    edges, _ = ph.embeddings.neighbour_joining(D + D.T)
    ends = torch.cat([edges, edges.flip(1)])
    around = ends[ends[:, 0].argsort(stable=True), 1][n:].view(n - 2, 3)  # leaves come first, with one neighbour each
    nodes = torch.cat([leaves, ph.geometry.origin(M, 2, dtype=leaves.dtype).expand(n - 2, *leaves.shape[1:])])
    for _ in range(rounds):
        nodes = torch.cat([leaves, ph.geometry.midpoint(M, nodes[around], dim=1)])
    return nodes, edges
