"""Graphs: pure functions of a seed, the laws that they are drawn from, files of edges, and splits without leaks."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch

from pyro_hyperbolic.datasets import edge_list, lobsters, random_trees, split_edges
from tests.cases import TEST_FAILURE_RATE


def assert_frequencies(counts, probabilities):
    """By a chi-square test. Cells that expect less than 5 are merged into one."""
    counts, expected = np.asarray(counts), np.asarray(probabilities) * np.sum(counts)
    few = expected < 5
    counts, expected = (np.append(x[~few], x[few].sum()) if few.any() else x for x in (counts, expected))
    assert scipy.stats.chisquare(counts, expected).pvalue > TEST_FAILURE_RATE


def degrees_of(edges, n=0):
    return edges.flatten().bincount(minlength=n)


def is_tree(edges):
    """Connected, by a search from node 0, with one edge less than nodes."""
    adjacent = torch.eye(len(edges) + 1, dtype=torch.bool)
    adjacent[edges[:, 0], edges[:, 1]] = adjacent[edges[:, 1], edges[:, 0]] = True
    reached = adjacent[0]
    while (further := adjacent[reached].any(0)).sum() > reached.sum():
        reached = further
    return bool(reached.all())


def without_leaves(edges):
    return edges[(degrees_of(edges)[edges] > 1).all(-1)]


# ---- Trees and lobsters ----

DRAWN = {
    "trees": lambda seed, count: random_trees(seed, count),
    "small trees": lambda seed, count: random_trees(seed, count, nodes=(2, 3)),
    "lobsters": lambda seed, count: lobsters(seed, count),
    "geometric lobsters": lambda seed, count: lobsters(seed, count, legs="geometric"),
    "paths": lambda seed, count: lobsters(seed, count, p1=0.0, p2=0.0, legs="geometric"),
}


@pytest.mark.parametrize("name", DRAWN)
def test_graphs_are_trees_and_functions_of_the_seed_alone(name):
    state = torch.get_rng_state()
    one, same, other = DRAWN[name](1, 12), DRAWN[name](1, 15), DRAWN[name](2, 12)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, one, same))  # the first of 15
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(one, other, strict=True))
    for edges in one:
        assert edges.dtype == torch.long
        assert edges.tolist() == sorted([u, v] for u, v in edges.tolist() if u < v)
        assert is_tree(edges)
    assert DRAWN[name](1, 0) == []


def test_labelled_trees_are_equally_likely():
    """The 125 trees of 5 nodes, by Cayley's formula."""
    counts = Counter(str(tree.tolist()) for tree in random_trees(3, 2000, nodes=(5, 5)))
    assert len(counts) == 125
    assert_frequencies(list(counts.values()), [1 / 125] * 125)


def test_sizes_of_trees_are_uniform_and_inclusive():
    counts = Counter(len(tree) + 1 for tree in random_trees(4, 500, nodes=(2, 6)))
    assert_frequencies([counts[n] for n in range(2, 7)], [0.2] * 5)


def by_coins(p1, p2, legs, rng):
    """A lobster as networkx draws it, one coin after the other; its number of nodes, leaves and largest degree."""
    again = {"one": 1, "geometric": 1000}[legs]
    while True:
        spine = int(160 * rng.random() + 0.5)
        degrees = [(node > 0) + (node < spine - 1) for node in range(spine)]
        for node in range(spine):
            for _ in itertools.takewhile(lambda _: rng.random() < p1, range(again)):
                leaves = sum(1 for _ in itertools.takewhile(lambda _: rng.random() < p2, range(again)))
                degrees[node] += 1
                degrees += [1 + leaves] + [1] * leaves
        if 10 <= len(degrees) <= 100:
            return len(degrees), degrees.count(1), max(degrees)


@pytest.mark.parametrize(("p1", "p2", "legs"), [(0.8, 0.3, "one"), (0.3, 0.5, "geometric")])
def test_lobsters_follow_the_law_of_networkx(p1, p2, legs):
    found, rng = lobsters(5, 400, p1, p2, legs), random.Random(5)
    drawn = [by_coins(p1, p2, legs, rng) for _ in found]
    degrees = [degrees_of(edges) for edges in found]
    ours, theirs = np.array([(len(d), int((d == 1).sum()), int(d.max())) for d in degrees]), np.array(drawn)
    for statistic in (lambda n, ends, most: n, lambda n, ends, most: ends / n, lambda n, ends, most: most):
        assert scipy.stats.ks_2samp(statistic(*ours.T), statistic(*theirs.T)).pvalue > TEST_FAILURE_RATE
    assert (max(d.max() for d in degrees) == 3) == (legs == "one")
    for edges in found[:30]:
        assert (degrees_of(without_leaves(without_leaves(edges))) <= 2).all()


def test_lobsters_have_10_to_100_nodes():
    """Without legs they are paths, of any such length equally often."""
    sizes = np.bincount([len(edges) + 1 for edges in lobsters(6, 910, p1=0.0)], minlength=101)
    assert_frequencies(sizes[10:], [1 / 91] * 91)
    assert sizes[10] > 0
    assert sizes[100] > 0


def test_lobsters_that_are_nearly_all_rejected():
    with pytest.raises(ValueError, match=r"p1 = 0.999999999.*p2 = 0.0.*smaller"):
        lobsters(0, 1, p1=1 - 1e-9, p2=0.0, legs="geometric")


# ---- Files of edges ----


@pytest.mark.parametrize(
    "text",
    [
        "0,1\n1,2\n0,12",
        "\ufeffsource,target\r\n 1, 0\r\n\r\n12,0\r\n1,2\r\n",
        '"u","v"\n2,1\n1,2\n1,2\n0,12\n1,0\n',
        "node_1,node_2,weight\n0,1\n1,2\n0,12\n",
    ],
)
def test_a_file_of_edges(tmp_path, text):
    (tmp_path / "graph.csv").write_text(text, "utf-8")
    for path in (tmp_path / "graph.csv", str(tmp_path / "graph.csv")):
        assert edge_list(path).tolist() == [[0, 1], [0, 12], [1, 2]]


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (b"0,1\n1,x\n", ("line 2", "'1,x'", "integers")),
        (b"u,v\n0,1\nu,v\n", ("line 3", "'u,v'")),
        (b"0,1.0\n", ("line 1", "'0,1.0'", "integers")),
        (b"0,1\n-1,2\n", ("line 2", "'-1,2'", "from 0")),
        (b"0,1,0.5\n", ("line 1", "two nodes")),
        (b"0 1\n", ("line 1", "'0 1'", "u,v")),
        (b"0,99999999999999999999\n", ("line 1", "integers")),
        (b"0,1\n3,3\n", ("line 2", "'3,3'", "loop")),
        (b"PK\x03\x04\xff\xfe" + bytes(range(128, 256)) * 99, ("line 1", "integers")),
        (b"u,v\n\n", ("no edges",)),
    ],
)
def test_a_file_that_is_no_list_of_edges(tmp_path, content, fragments):
    (tmp_path / "graph.csv").write_bytes(content)
    with pytest.raises(ValueError, match="(?s)" + ".*".join(fragments)) as info:
        edge_list(tmp_path / "graph.csv")
    assert len(str(info.value)) < 400


def test_no_file_of_edges(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(FileNotFoundError, match="csv file of edges"):
            edge_list(path)


# ---- Splits ----

TREE = random_trees(0, 1, nodes=(101, 101))[0]
COMPLETE, BIPARTITE = torch.combinations(torch.arange(12)), torch.cartesian_prod(torch.arange(6), torch.arange(6, 12))
SPLITS = {
    "tree": (TREE, 101, {}),
    "tree, matched": (TREE, 101, {"matched": True}),
    "isolated nodes, matched": (TREE, 200, {"val": 0.29, "matched": True}),
    "bipartite, matched": (BIPARTITE, 12, {"val": 0.29, "matched": True}),
    "every pair without an edge": (COMPLETE[6:], 12, {"val": 1 / 60, "test": 5 / 60}),
    "nothing held out": (TREE, 101, {"val": 0.0, "test": 0.0, "matched": True}),
}


def split_of(name, seed=0):
    edges, num_nodes, options = SPLITS[name]
    return split_edges(edges, num_nodes, seed, **options)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", SPLITS)
def test_a_split(name, seed):
    edges, num_nodes, options = SPLITS[name]
    split, shares = split_of(name, seed), {"val": 0.05, "test": 0.1, **options}
    held_out = [math.floor(len(edges) * shares[part] + 1e-9) for part in ("val", "test")]
    assert [len(part) for part in split] == [len(edges) - sum(held_out), *held_out, *held_out]
    assert torch.equal(torch.cat(split[:3]).unique(dim=0), edges.unique(dim=0))
    graph, negatives = (list(map(tuple, x.tolist())) for x in (edges, torch.cat(split[3:])))
    assert len(set(negatives)) == len(negatives)
    assert set(graph).isdisjoint(negatives)
    assert all(0 <= u < v < num_nodes for u, v in negatives)


def test_a_split_is_a_function_of_the_seed_and_the_set_of_edges():
    state = torch.get_rng_state()
    one = split_of("tree")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, one, split_edges(TREE.flip(0, 1).int(), 101, 0)))
    assert all(map(torch.equal, one[:3], split_of("tree, matched")[:3]))
    assert not any(map(torch.equal, one, split_of("tree", seed=1)))


def test_held_out_edges_and_negatives_are_uniform():
    """A ring of 6 nodes has 6 edges and 9 other pairs."""
    ring = torch.tensor([[u, (u + 1) % 6] for u in range(6)])
    splits = [split_edges(ring, 6, seed, val=1 / 6, test=1 / 6) for seed in range(500)]
    for part, number in (("val", 6), ("test", 6), ("val_negatives", 9), ("test_negatives", 9)):
        counts = Counter(str(getattr(split, part).tolist()) for split in splits)
        assert_frequencies(list(counts.values()), [1 / number] * number)


@pytest.mark.parametrize("name", ["tree, matched", "isolated nodes, matched", "bipartite, matched"])
def test_matched_negatives_have_the_degrees_of_their_edges(name):
    """Each keeps the end of smaller training degree; no node that is free has a degree closer to the other end's."""
    edges, num_nodes, *_ = SPLITS[name]
    split = split_of(name, seed=4)
    degrees = degrees_of(split.train, num_nodes)
    negatives = torch.cat([split.val_negatives, split.test_negatives])
    taken = set(map(tuple, torch.cat([edges, negatives]).tolist()))
    exact = 0
    for (u, v), pair in zip(torch.cat([split.val, split.test]).tolist(), negatives.tolist(), strict=True):
        (kept,) = {u, v} & set(pair)
        (replaced,), (other,) = {u, v} - {kept}, set(pair) - {kept}
        assert degrees[kept] <= degrees[replaced]
        free = [w for w in range(num_nodes) if w != kept and (min(w, kept), max(w, kept)) not in taken]
        off = (degrees - degrees[replaced]).abs()
        assert all(off[other] <= off[w] for w in free)
        exact += int(off[other] == 0)
    assert exact > 0


def test_coins_decide_between_nodes_of_equal_degree():
    """Two of 20 separate edges are held out: a negative of the first keeps either end, and takes either of the second.

    A node of training degree 0 is in one of them.
    """
    pairs = torch.arange(40).reshape(20, 2)
    kept, taken = 0, 0
    for seed in range(100):
        split = split_edges(pairs, 40, seed, val=0.0, matched=True)
        (first, second), negative = split.test.tolist(), split.test_negatives[0].tolist()
        assert len(set(negative) & set(first)) == len(set(negative) & set(second)) == 1
        kept, taken = kept + (first[0] in negative), taken + (second[0] in negative)
    assert all(scipy.stats.binomtest(count, 100).pvalue > TEST_FAILURE_RATE for count in (kept, taken))
