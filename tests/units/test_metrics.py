"""Scores: values by hand, and by counting pairs, thresholds, ranks, bins and quadruples one by one."""

import math
from fractions import Fraction
from itertools import combinations

import geoopt
import networkx as nx
import numpy as np
import pytest
import scipy.optimize
import torch

from pyro_hyperbolic import geometry
from pyro_hyperbolic.metrics import (
    average_precision,
    calibration_error,
    coverage,
    distortion,
    gromov_delta,
    mean_average_precision,
    mean_rank,
    roc_auc,
)


def by_pairs(scores, labels):
    """Each pair of a positive and a negative counts one if it is in order, and half if it is tied."""
    up, down = ([s for s, y in zip(scores, labels, strict=True) if y == label] for label in (1, 0))
    return float(Fraction(sum((a > b) * 2 + (a == b) for a in up for b in down), 2 * len(up) * len(down)))


def by_thresholds(scores, labels):
    """The sum over distinct thresholds, from the largest, of the rise of recall times precision."""
    total = found = Fraction(0)
    for threshold in sorted(set(scores), reverse=True):
        called = [y for s, y in zip(scores, labels, strict=True) if s >= threshold]
        total += (sum(called) - found) * Fraction(sum(called), len(called))
        found = sum(called)
    return float(total / sum(labels))


ORACLES = {roc_auc: by_pairs, average_precision: by_thresholds}
each_metric = pytest.mark.parametrize("metric", ORACLES, ids=lambda metric: metric.__name__)

INF = math.inf
#: Scores, labels, area under the ROC curve, average precision.
BY_HAND = {
    "in order": ([0.1, 0.4, 0.8], [0, 0, 1], 1.0, 1.0),
    "in reverse": ([3, 2, 1], [0, 0, 1], 0.0, 1 / 3),
    "scikit-learn's example": ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75, (1 + 2 / 3) / 2),
    "all tied": ([7, 7, 7, 7, 7], [1, 0, 0, 1, 0], 0.5, 2 / 5),
    "a tied pair": ([2, 1, 1, 0], [1, 1, 0, 0], (2 + 1.5) / 4, (1 + 2 / 3) / 2),
    "infinite": ([-INF, INF, INF, 0.0], [0, 1, 0, 1], (1.5 + 1) / 4, (1 / 2 + 2 / 3) / 2),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    scores, labels, auc, precision = BY_HAND[name]
    assert roc_auc(torch.tensor(scores), torch.tensor(labels)).item() == pytest.approx(auc, rel=1e-7)
    assert average_precision(torch.tensor(scores), torch.tensor(labels)).item() == pytest.approx(precision, rel=1e-7)


@each_metric
def test_batches_with_many_ties(metric):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 8, (4, 3, 40), generator=generator).double() - 4
    labels = torch.rand(3, 40, generator=generator) < 0.3
    labels[:, 0], labels[:, 1] = True, False
    found = metric(scores, labels)
    assert found.shape == (4, 3)
    for row, values in zip(scores, found, strict=True):
        expected = [ORACLES[metric](s, y) for s, y in zip(row.tolist(), labels.int().tolist(), strict=True)]
        assert values.tolist() == pytest.approx(expected, rel=1e-14)
    # Only the order of scores matters, and not the order of pairs or the type of labels.
    shuffled = torch.randperm(40, generator=generator)
    again = metric(scores[..., shuffled].exp(), labels[..., shuffled].float())
    torch.testing.assert_close(again, found, rtol=1e-14, atol=0)
    assert metric(scores[:0], labels).shape == (0, 3)


@each_metric
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int32])
def test_dtypes(metric, dtype):
    scores = torch.arange(6).to(dtype).requires_grad_(dtype.is_floating_point)
    found = metric(scores, torch.tensor([0, 1] * 3))
    assert found.dtype == (dtype if dtype.is_floating_point else torch.get_default_dtype())
    assert not found.requires_grad


@each_metric
def test_large_samples_are_counted_exactly(metric):
    """Ranks of 200,000 scores, whose sum float32 cannot hold."""
    n = 200_000
    scores, labels = torch.arange(n, dtype=torch.float32), torch.arange(n) % 2
    half = n // 2
    exact = {roc_auc: (half + 1) / n, average_precision: sum((i + 1) / (2 * i + 1) for i in range(half)) / half}
    assert metric(scores, labels).item() == pytest.approx(exact[metric], rel=1e-7)


def randint(high, *shape, seed=0):
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def reconstruction(distances, adjacent):
    """Mean rank and MAP as published code has them: node by node, of a source's edges one by one, ties by counting."""
    ranks, precisions = [], []
    for u, (row, near) in enumerate(zip(distances.tolist(), adjacent.tolist(), strict=True)):
        others = [v for v in range(len(row)) if v != u]
        for v in (v for v in others if near[v]):
            ranks.append(1 + sum((row[w] < row[v]) + (row[w] == row[v]) / 2 for w in others if not near[w]))
        if any(near):
            precisions.append(by_thresholds([-row[v] for v in others], [near[v] for v in others]))
    return sum(ranks) / len(ranks), sum(precisions) / len(precisions)


@pytest.mark.parametrize("values", [4, 10**6], ids=["ties", "no ties"])
def test_reconstruction(values):
    distances, adjacent = randint(values, 3, 12, 12).double(), randint(4, 12, 12, seed=1) == 0
    distances[0, 2, 5:8] = INF  # as in a graph in two parts
    adjacent = adjacent.fill_diagonal_(False)
    adjacent[3] = False  # a node without neighbours
    adjacent[4] = torch.arange(12) != 4  # and one without others
    expected = torch.tensor([reconstruction(each, adjacent) for each in distances], dtype=torch.float64)
    rank, precision = mean_rank(distances, adjacent), mean_average_precision(distances, adjacent)
    torch.testing.assert_close(rank, expected[:, 0], rtol=1e-14, atol=0)
    torch.testing.assert_close(precision, expected[:, 1], rtol=1e-14, atol=0)
    # Only the order of distances matters, and the distance of a node to itself is not read.
    distances[0].fill_diagonal_(math.nan)
    torch.testing.assert_close(mean_rank(distances.log1p(), adjacent), rank, rtol=1e-14, atol=0)
    torch.testing.assert_close(mean_average_precision(distances[0], adjacent), precision[0])


def test_blocks_of_rows_combine():
    distances, adjacent = randint(30, 10, 10), randint(3, 10, 10, seed=1) == 0
    adjacent.fill_diagonal_(False)
    nodes = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    for metric, weigh in {mean_rank: torch.sum, mean_average_precision: lambda a: a.any(-1).sum()}.items():
        blocks = [(distances[rows], adjacent[rows], rows) for rows in nodes.split([3, 3, 4])]
        total = sum(metric(*block) * weigh(block[1]) for block in blocks)
        assert (total / weigh(adjacent)).item() == pytest.approx(metric(distances, adjacent).item(), rel=1e-6)


def test_a_tree_in_a_line_is_reconstructed_as_counted_by_hand():
    """The star with leaves at distances 1, 1, 2, directed from leaves to the hub: leaf by leaf ranks 1.5, 1.5, 2.5."""
    x = torch.tensor([0.0, 1.0, -1.0, 2.0])
    distances, hub = (x - x[:, None]).abs(), torch.tensor([[0, 0, 0, 0]] + 3 * [[1, 0, 0, 0]]).bool()
    # Leaf at 1: hub at 1, tied with the leaf at 2. Leaf at -1: alone. Leaf at 2: behind the leaf at 1.
    assert mean_rank(distances, hub).item() == pytest.approx((1.5 + 1 + 2) / 3)
    assert mean_average_precision(distances, hub).item() == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    both = hub | hub.mT
    assert mean_rank(distances, both).item() == pytest.approx((1.5 + 1 + 2 + 3) / 6)
    assert mean_average_precision(distances, both).item() == pytest.approx((1 / 2 + 1 + 1 / 2 + 1) / 4)


def test_distortion():
    distances, targets = randint(9, 5, 40).double(), 1 + randint(9, 40, seed=1).double()
    distances[4] = 0.0
    expected = [
        np.mean([abs(a - b) / b for a, b in zip(row, targets.tolist(), strict=True)]) for row in distances.tolist()
    ]
    torch.testing.assert_close(distortion(distances, targets), torch.tensor(expected, dtype=torch.float64))
    rescaled = distortion(distances, targets, rescale=True)
    for row, found in zip(distances, rescaled, strict=True):
        # The minimum of a convex function, by search, and at each of its kinks.
        f = lambda c, row=row: distortion(c * row, targets).item()  # noqa: E731
        kinks = [f(c) for c in (targets / row).tolist() if c < INF] + [f(0.0)]
        assert found.item() == pytest.approx(min(kinks), rel=1e-14)
        assert found.item() <= scipy.optimize.minimize_scalar(f, bounds=(0, 10), method="bounded").fun + 1e-12
    for c in (7, 0.01):
        torch.testing.assert_close(distortion(c * distances, targets, rescale=True), rescaled)
    torch.testing.assert_close(rescaled[4].item(), 1.0)


def test_coverage():
    low, high = torch.tensor([[0.0, 1.0, -INF, 2.0], [0.0, 0.0, 0.0, 0.0]]), torch.tensor([1.0, 2.0, INF, 2.0])
    # Both ends belong to an interval, and intervals may be rays or points.
    assert coverage(low, high, torch.tensor([1.0, 1.0, -1e9, 2.0])).tolist() == [1.0, 0.75]
    assert coverage(low, high, torch.tensor([1.01, 0.99, 5.0, 2.0])).tolist() == [0.5, 0.75]
    z = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    assert coverage(torch.tensor(-1.645).expand(20_000), torch.tensor(1.645).expand(20_000), z).item() == pytest.approx(
        0.9, abs=4.1 * math.sqrt(0.09 / 20_000)
    )


def by_bins(p, y, bins, strategy):
    """The error of exact fractions, bin by bin."""
    p, totals = [Fraction(x) for x in p], {}
    mass = [Fraction(1)] * len(p) if strategy == "quantile" else p
    for a, label in zip(p, y, strict=True):
        at = a
        if strategy != "uniform":
            half = sum(m * ((b < a) * 2 + (b == a)) for m, b in zip(mass, p, strict=True))
            at = half / (2 * sum(mass)) if sum(mass) else Fraction(0)
        b = min(int(at * bins), bins - 1)
        totals[b] = totals.get(b, 0) + label - a
    return float(sum(abs(t) for t in totals.values()) / len(p))


def test_an_empty_batch_has_no_scores():
    none, square = torch.zeros(0, 4), torch.zeros(0, 4, 4)
    pairs = [score(none, none) for score in (roc_auc, average_precision, calibration_error, distortion)]
    ranks = [score(square, square > 0) for score in (mean_average_precision, mean_rank)]
    for found in (*pairs, *ranks, gromov_delta(square), gromov_delta(square, 0), coverage(none, none, none)):
        assert found.shape == (0,)
    assert gromov_delta(torch.zeros(1, 1)).tolist() == 0.0


@pytest.mark.parametrize("strategy", ["uniform", "quantile", "expected"])
def test_calibration_error(strategy):
    p, y = randint(9, 3, 50).double() / 8, randint(2, 50, seed=1)
    p[1] *= (1 - y) / 64  # less than one is expected, and where there is none
    p[2] = 0.0
    for bins in (1, 4, 7):
        found = calibration_error(p, y, bins, strategy).tolist()
        expected = [by_bins(row, y.tolist(), bins, strategy) for row in p.tolist()]
        assert found == pytest.approx(expected, rel=1e-12)
    # Probability by probability, the errors of +0.2 and -0.2 do not cancel but in a bin of their own.
    p, y = torch.tensor([0.3, 0.7]).repeat_interleave(10), torch.cat([torch.arange(10) < 5, torch.arange(10) < 5])
    assert calibration_error(p, y, strategy=strategy).item() == pytest.approx(0.2, rel=1e-6)
    assert calibration_error(p, y, 1, strategy).item() == pytest.approx(0.0, abs=1e-7)


def by_quadruples(distances):
    """Half the difference of the two largest of three sums."""
    d, found = distances.tolist(), 0.0
    for w, x, y, z in combinations(range(len(d)), 4):
        sums = sorted([d[w][x] + d[y][z], d[w][y] + d[x][z], d[w][z] + d[x][y]])
        found = max(found, (sums[2] - sums[1]) / 2)
    return found


def shortest_paths(graph):
    return torch.tensor(nx.floyd_warshall_numpy(graph))


def test_gromov_delta_of_any_metrics():
    x = torch.randn(2, 3, 11, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distances = torch.cdist(x, x, p=1)
    delta = gromov_delta(distances)
    assert delta.shape == (2, 3)
    expected = [by_quadruples(each) for each in distances.flatten(0, 1)]
    assert delta.flatten().tolist() == pytest.approx(expected, rel=1e-12)
    at_points = torch.stack([gromov_delta(distances, w) for w in range(11)])
    torch.testing.assert_close(at_points.amax(0), delta)
    assert bool((2 * at_points >= delta * (1 - 1e-12)).all())
    torch.testing.assert_close(gromov_delta(3 * distances), 3 * delta)
    torch.testing.assert_close(gromov_delta(distances * (1 + 1e-15 * distances.sign().triu())), delta)


@pytest.mark.parametrize("n", [3, 4, 6])
def test_gromov_delta_counts_broken_triangle_inequalities(n):
    sides = torch.rand(20, n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64).triu(1) ** 6
    sides = sides + sides.mT
    at_points = torch.stack([gromov_delta(sides, w) for w in range(n)])
    torch.testing.assert_close(gromov_delta(sides), at_points.amax(0))


def test_gromov_delta_of_graphs():
    tree = nx.random_labeled_tree(40, seed=0)
    nx.set_edge_attributes(tree, {edge: 1 + i % 7 for i, edge in enumerate(tree.edges)}, "weight")
    assert gromov_delta(shortest_paths(tree)) == 0
    assert gromov_delta(shortest_paths(nx.complete_graph(6))) == 0
    for n in range(3, 14):  # n // 4, but half less after each multiple of 4
        assert gromov_delta(shortest_paths(nx.cycle_graph(n))).item() == n // 4 - (n % 4 == 1) / 2
    assert gromov_delta(shortest_paths(nx.grid_2d_graph(4, 5))).item() == 3
    assert gromov_delta(torch.zeros(1, 1), 0) == gromov_delta(torch.zeros(1, 1)) == 0


@pytest.mark.parametrize("k", [1.0, 4.0])
def test_gromov_delta_of_the_hyperbolic_plane(k):
    """At most sqrt(k) log 2, which far squares approach: theirs is the difference of a diagonal and a side."""
    M = geoopt.Lorentz(torch.tensor(k, dtype=torch.float64))
    bound = math.sqrt(k) * math.log(2)
    square = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    for r in (1.0, 2.0, 8.0):
        corners = geometry.exp0(M, math.sqrt(k) * r * square)
        delta = gromov_delta(geometry.distance_matrix(M, corners)).item()
        assert delta == pytest.approx(math.sqrt(k) * (2 * r - math.acosh(math.cosh(r) ** 2)), rel=1e-9)
        assert delta <= bound
    assert delta == pytest.approx(bound, rel=1e-6)
    v = torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert bound / 2 < gromov_delta(geometry.distance_matrix(M, geometry.exp0(M, 5 * v))).item() <= bound


def test_results_have_the_dtype_of_the_first_argument_and_no_gradient():
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    for dtype in (torch.float16, torch.float32, torch.float64, torch.int64):
        y = x.to(dtype).requires_grad_(dtype.is_floating_point)
        for found in (
            mean_rank(y, x.bool()),
            mean_average_precision(y, x.bool()),
            distortion(y, x + 1),
            coverage(y, x, x),
            calibration_error(y, x),
            gromov_delta(y),
        ):
            assert found.dtype == (dtype if dtype.is_floating_point else torch.get_default_dtype())
            assert not found.requires_grad
