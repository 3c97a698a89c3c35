"""Layouts keep the lengths of edges, and trees are found from distances: against path lengths by networkx."""

import math

import geoopt
import networkx as nx
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide.initialization import init_to_mean, init_to_value

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from pyro_hyperbolic.embeddings import complete_distances, graph, neighbour_joining, path_lengths, tree

G, NAN = ph.geometry, math.nan
LORENTZ = geoopt.Lorentz()


def random_tree(size, seed=0, binary=False):
    """Edges of random lengths, the nodes in random order; of a binary tree the leaves are first."""
    generator = np.random.default_rng(seed)
    if binary:  # join pairs of nodes until three are left
        edges, alive = [], list(range(size))
        for new in range(size, 2 * size - 2):
            generator.shuffle(alive)
            joined = [alive.pop() for _ in range(3 if len(alive) == 3 else 2)]
            edges += [(new, node) for node in joined]
            alive.append(new)
        edges = np.array(edges)
    else:
        edges = np.array([(generator.integers(0, node), node) for node in range(1, size)])
        edges = generator.permutation(size)[edges]
    return edges, 0.1 + generator.random(len(edges))


def paths(edges, lengths):
    """Path lengths by networkx."""
    graph = nx.Graph()
    graph.add_weighted_edges_from(
        (int(a), int(b), float(length)) for (a, b), length in zip(edges, lengths, strict=True)
    )
    rows = dict(nx.all_pairs_dijkstra_path_length(graph))
    return torch.tensor([[rows[i][j] for j in range(len(rows))] for i in range(len(rows))], dtype=torch.float64)


def leaves(size, seed=0):
    return paths(*random_tree(size, seed, binary=True))[:size, :size]


MANIFOLDS = {
    "hyperboloid": (LORENTZ, 2),
    "k = 4, n = 3": (geoopt.Lorentz(k=4.0), 3),
    "n = 7": (LORENTZ, 7),
    "ball": (geoopt.PoincareBall(), 2),
    "plane": (geoopt.Euclidean(1), 2),
    "product": (geoopt.ProductManifold((LORENTZ, 3), (geoopt.Euclidean(1), 2)), 4),
    "SPD": (geoopt.SymmetricPositiveDefinite(), 3),
}
each_manifold = pytest.mark.parametrize("name", MANIFOLDS)


@each_manifold
def test_edges_keep_their_lengths_and_no_path_is_longer(name):
    M, dim = MANIFOLDS[name]
    edges, lengths = random_tree(60)
    leaf = np.bincount(edges.flatten()).argmin().item()
    x = tree(M, edges, lengths, leaf, dim, scale=0.5, dtype=torch.float64)
    n = G.bind(M).dim(x.shape)
    assert n == dim
    assert bool(G.contains(M, x).all())
    found = G.distance_matrix(M, x)
    assert torch.allclose(found[edges[:, 0], edges[:, 1]], torch.tensor(lengths / 2), rtol=0, atol=1e-8)
    assert bool((found <= paths(edges, lengths) / 2 + 1e-8).all())
    assert bool((found + torch.eye(60) > 1e-3).all()), "nodes coincide"


def lost(scale, dim, size=60):
    """The part of path lengths that is lost, on average."""
    edges, lengths = random_tree(size, binary=True)
    expected = scale * paths(edges, lengths)
    found = G.distance_matrix(LORENTZ, tree(LORENTZ, edges, lengths, dim=dim, scale=scale, dtype=torch.float64))
    return ((expected - found).mean() / expected.mean()).item()


def test_what_is_lost_of_a_path_is_bounded_whatever_the_scale():
    assert 4 * lost(4, 2) < 1.2 * 2 * lost(2, 2) < 1.2**2 * lost(1, 2)


def test_more_dimensions_keep_distances_better():
    assert lost(0.5, 5) < lost(0.5, 3) < lost(0.5, 2)


def test_sectors_grow_as_numbers_of_leaves_to_two_thirds():
    # Behind nodes 1, 2 and 3 are 1, 8 and 27 leaves, so sectors are 1, 4 and 9 of 14 parts, from middle to middle.
    edges = [(0, 1), (0, 2), (0, 3), *((2, leaf) for leaf in range(4, 12)), *((3, leaf) for leaf in range(12, 39))]
    v = G.log0(LORENTZ, tree(LORENTZ, edges, root=0, dtype=torch.float64))[1:4]
    angles = torch.atan2(v[:, 1], v[:, 0])
    between = (angles[[1, 2, 0]] - angles) % (2 * math.pi)
    torch.testing.assert_close(between, torch.tensor([5.0, 13.0, 10.0]).double() * math.pi / 14)


@pytest.mark.parametrize("dim", [3, 5])
def test_directions_fill_all_dimensions(dim):
    star = torch.tensor([(0, leaf) for leaf in range(1, 30)])
    spread = torch.linalg.svdvals(G.log0(LORENTZ, tree(LORENTZ, star, dim=dim)))
    assert spread[-1] > 0.9 * spread[0]
    # The three edges at a node are in a plane, which turns from node to node.
    spread = torch.linalg.svdvals(G.log0(LORENTZ, tree(LORENTZ, random_tree(200, binary=True)[0], dim=dim, scale=0.1)))
    assert spread[-1] > 0.1 * spread[0]


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_few_edges_are_as_far_apart_as_can_be(dim):
    star = [(0, leaf) for leaf in range(1, dim + 2)]
    v = G.log0(LORENTZ, tree(LORENTZ, star, dim=dim, dtype=torch.float64))[1:]
    cosines = (v @ v.T)[~torch.eye(dim + 1, dtype=torch.bool)]
    assert torch.allclose(cosines, torch.tensor(-1.0 / dim, dtype=torch.float64), atol=0.01)  # a regular simplex
    x = tree(LORENTZ, star, root=1, dim=dim)
    assert torch.allclose(G.distance(LORENTZ, x[0], x[1:]), torch.ones(()))


def test_the_root_is_at_the_origin_by_default_the_middle_of_the_longest_path():
    path = [(3, 0), (0, 2), (2, 1)]
    for root, lengths, at in [(1, None, 1), (None, [1, 1, 5], 2), (None, [9, 1, 1], 0)]:
        x = tree(LORENTZ, path, lengths, root)
        assert torch.equal(x[at], G.origin(LORENTZ, 2))
    for dim in (2, 3):
        assert torch.equal(tree(LORENTZ, [], dim=dim), G.origin(LORENTZ, dim).unsqueeze(0))


def test_edges_of_no_length_leave_directions_as_they_are():
    spider = [(0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6)]
    x = tree(LORENTZ, spider, [2.0, 0.0, 2.0, 2.0, 0.0, 2.0], root=0, dtype=torch.float64)
    assert G.distance(LORENTZ, x[3], x[6]).item() == pytest.approx(8.0)


@pytest.mark.parametrize("size", [2, 3, 4, 30])
def test_neighbour_joining_finds_a_tree_from_its_path_lengths(size):
    D = leaves(size) if size > 2 else torch.tensor([[0.0, 0.7], [0.7, 0.0]]).double()
    edges, lengths = neighbour_joining(D)
    assert edges.shape == (2 * size - 3, 2)
    assert bool((lengths >= 0).all())
    assert torch.allclose(paths(edges, lengths)[:size, :size], D, rtol=1e-13, atol=0)
    assert torch.allclose(path_lengths(edges, lengths), paths(edges, lengths), rtol=1e-13, atol=0)


def test_neighbour_joining_is_not_misled_by_long_branches():
    edges, lengths = random_tree(30, binary=True)
    D = paths(edges, lengths**6)[:30, :30]  # the nearest leaves are rarely siblings
    assert torch.allclose(path_lengths(*neighbour_joining(D))[:30, :30], D, rtol=0, atol=1e-13)


def test_a_negative_length_is_set_to_zero_and_the_path_is_kept():
    D = torch.tensor([[0, 1, 9, 9], [1, 0, 5, 5], [9, 5, 0, 4], [9, 5, 4, 0]])
    edges, lengths = neighbour_joining(D)
    assert bool((lengths >= 0).all())
    assert 0.0 in lengths.tolist()
    assert path_lengths(edges, lengths)[0, 1].item() == 1.0
    for D in torch.rand(5, 12, 12).double() ** 10:  # far from a tree: distances to new nodes are negative, too
        D = D.triu(1)
        assert bool((neighbour_joining(D + D.T)[1] >= 0).all())


def test_four_points_restore_each_distance_of_a_tree_except_between_siblings():
    edges, lengths = random_tree(12, binary=True)
    D, hops = paths(edges, lengths)[:12, :12], path_lengths(edges)[:12, :12]
    for i, j in (hops.triu(1) > 2).nonzero().tolist():
        observed = torch.ones(12, 12, dtype=torch.bool)
        observed[i, j] = observed[j, i] = False
        filled = complete_distances(D.masked_fill(~observed, NAN))
        assert torch.allclose(filled, D, rtol=1e-13, atol=0)
        assert torch.equal(filled, complete_distances(D.masked_fill(~observed, 0.0), observed))


@pytest.mark.parametrize("kind", [torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.float, torch.Tensor.half])
def test_halves_that_differ_by_rounding_are_the_same_distances(kind):
    eps = {torch.Tensor.float: 2.0**-23, torch.Tensor.half: 2.0**-10}.get(kind, 2.0**-52)
    D = torch.full((4, 4), 1.0, dtype=torch.float64).fill_diagonal_(0.0)
    for use in (complete_distances, neighbour_joining):
        use(kind(D + 2 * eps * D.triu()))
        with pytest.raises(ValueError, match=r"pass \(D \+ D.T\) / 2"):
            use(kind(D + 100 * eps * D.triu()))


def test_a_diagonal_of_holes_is_zero():
    D, eye = leaves(4), torch.eye(4, dtype=torch.bool)
    holes = D.masked_fill(eye, NAN)
    for filled in (complete_distances(holes), complete_distances(holes, ~eye), complete_distances(D + 7 * eye, ~eye)):
        assert torch.allclose(filled, D, rtol=1e-15, atol=0)


def test_a_chain_of_distances_fills_all_by_upper_bounds():
    D = leaves(8)
    chain = torch.eye(8, dtype=torch.bool) | torch.diag(torch.ones(7), 1).bool()
    filled = complete_distances(D, chain | chain.T)
    assert bool((filled >= D - 1e-12).all())
    assert filled[0, 7].item() == pytest.approx(torch.diag(D, 1).sum().item())
    with pytest.raises(ValueError, match="no chain of observed distances joins 0 and 4"):
        complete_distances(D, torch.block_diag(torch.ones(4, 4), torch.ones(4, 4)).bool())


def test_nothing_is_filled_in_below_zero():
    D = torch.ones(4, 4).fill_diagonal_(0.0)
    D[2, 3] = D[3, 2] = 9.0  # against the triangle inequality
    D[0, 1] = D[1, 0] = NAN
    assert complete_distances(D)[0].tolist() == [0.0, 0.0, 1.0, 1.0]


def test_a_hierarchy_is_found_in_its_closure():
    heap = nx.balanced_tree(3, 4, create_using=nx.DiGraph)
    edges = torch.tensor(list(nx.transitive_closure(heap).edges))
    x = graph(LORENTZ, edges.flip(1), dtype=torch.float64)
    behind = torch.tensor([1 + len(nx.descendants(heap, node)) for node in range(len(heap))]).double()
    depth = 2 * (len(heap) / behind).log()
    assert (G.log0(LORENTZ, x).norm(dim=-1) < depth + 1e-9).all()
    parents = torch.tensor(list(heap.edges))
    lengths = depth[parents[:, 1]] - depth[parents[:, 0]]
    assert torch.allclose(G.distance(LORENTZ, x[parents[:, 0]], x[parents[:, 1]]), lengths)
    for M, dim in (MANIFOLDS["plane"], MANIFOLDS["SPD"], MANIFOLDS["product"]):  # as if k = 1
        x = graph(M, edges, dim=dim, dtype=torch.float64)
        assert torch.allclose(G.distance_matrix(M, x)[tuple(parents.T)], lengths)
    x = graph(LORENTZ, edges, dtype=torch.float64)
    far = graph(geoopt.Lorentz(k=9.0), edges, dtype=torch.float64)
    assert torch.allclose(G.distance_matrix(geoopt.Lorentz(k=9.0), far), 3 * G.distance_matrix(LORENTZ, x), atol=1e-6)


@pytest.mark.parametrize("dim", [2, 3])
def test_near_nodes_of_a_graph_have_edges(dim):
    karate = nx.karate_club_graph()
    scores = -G.distance_matrix(LORENTZ, graph(LORENTZ, list(karate.edges), dim=dim))
    i, j = torch.triu_indices(34, 34, 1)
    labels = torch.tensor(nx.to_numpy_array(karate, weight=None))[i, j]
    assert ph.metrics.roc_auc(scores[i, j], labels) > 0.85


def test_loops_repeated_edges_and_lone_nodes_do_not_disturb():
    edges = [(0, 1), (0, 2), (3, 2)]
    x = graph(LORENTZ, edges, 6)
    assert x.shape == (6, 3)
    assert torch.equal(x, graph(LORENTZ, [*edges, (1, 0), (0, 2), (5, 5)]))
    assert (G.distance_matrix(LORENTZ, x) + torch.eye(6) > 0.5).all()
    assert graph(LORENTZ, []).shape == (1, 3)


SQUARE = torch.ones(3, 3) - torch.eye(3)
BAD = {
    "a cycle": (lambda: tree(LORENTZ, [(0, 1), (1, 2), (2, 0)]), ValueError, "tree"),
    "a gap": (lambda: tree(LORENTZ, [(0, 1), (1, 3)]), ValueError, "nodes 0 to 3.*0 to 2; number them from 0"),
    "an edge twice": (lambda: tree(LORENTZ, [(0, 1), (1, 0)]), ValueError, "2 of 3 nodes.*spanning tree"),
    "an edge index": (lambda: tree(LORENTZ, [[0, 1, 2], [1, 2, 3]]), ValueError, "transpose"),
    "a negative length": (lambda: tree(LORENTZ, [(0, 1)], [-1.0]), ValueError, "-1, but must be >= 0"),
    "two lengths": (lambda: tree(LORENTZ, [(0, 1)], [1.0, 2.0]), ValueError, "1 edges"),
    "a root outside": (lambda: tree(LORENTZ, [(0, 1)], root=2), ValueError, "root = 2.*0 to 1"),
    "one dimension": (lambda: tree(LORENTZ, [(0, 1)], dim=1), ValueError, "dim = 1.*at least 2"),
    "no scale": (lambda: tree(LORENTZ, [(0, 1)], scale=0.0), ValueError, "scale = 0.0.*> 0"),
    "too far": (lambda: tree(LORENTZ, [(0, 1)], [100.0]), ValueError, "distance 100 .*smaller scale"),
    "a sphere": (lambda: tree(geoopt.Sphere(), [(0, 1)]), TypeError, "chart"),
    "a batch of k": (lambda: tree(geoopt.Lorentz(torch.ones(2)), [(0, 1)]), ValueError, "not a batch"),
    "a batch of k, of a graph": (lambda: graph(geoopt.Lorentz(torch.ones(2)), [(0, 1)]), ValueError, "not a batch"),
    "edges of floats": (lambda: tree(LORENTZ, [(0.0, 1.0)]), ValueError, r"edges.long\(\)"),
    "a hole called observed": (
        lambda: complete_distances(SQUARE * NAN, SQUARE > 0),
        ValueError,
        r"D\[0, 1\] = nan.*set observed to False",
    ),
    "a node too many": (lambda: graph(LORENTZ, [(0, 3)], 3), ValueError, "nodes 0 to 3, but there are 3"),
    "a negative node": (lambda: graph(LORENTZ, [(0, -1)]), ValueError, "nodes -1 to 0.*renumber"),
    "one point": (lambda: neighbour_joining(torch.zeros(1, 1)), ValueError, "n >= 2"),
    "wide": (lambda: neighbour_joining(SQUARE[:2]), ValueError, r"\(2, 3\)"),
    "tall": (lambda: neighbour_joining(SQUARE[:, :2]), ValueError, r"\(3, 2\)"),
    "NaN": (
        lambda: neighbour_joining(SQUARE.clone().fill_diagonal_(NAN)),
        ValueError,
        r"D\[0, 0\] = nan.*complete_distances",
    ),
    "a negative distance": (lambda: neighbour_joining(-SQUARE), ValueError, "-1, but distances must be >= 0"),
    "asymmetric": (lambda: neighbour_joining(SQUARE.triu()), ValueError, "symmetric.*D.T"),
    "a diagonal": (lambda: neighbour_joining(torch.ones(3, 3)), ValueError, "diagonal.*set it to 0"),
    "names": (lambda: neighbour_joining([["a"]]), TypeError, "matrix of distances"),
    "an asymmetric mask": (lambda: complete_distances(SQUARE, SQUARE.triu() > 0), ValueError, "observed.T"),
    "a mask of numbers": (lambda: complete_distances(SQUARE, SQUARE), TypeError, "booleans"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


# ---- Starts of guides ----


def distances_model(D):
    scale = torch.tensor(3.0)
    i, j = torch.triu_indices(len(D), len(D), 1)
    with pyro.plate("leaves", len(D)):
        z = pyro.sample("z", hdist.WrappedNormal(G.origin(LORENTZ, 2), scale, LORENTZ))
    with pyro.plate("pairs", len(i)):
        pyro.sample("D", dist.Normal(G.distance_matrix(LORENTZ, z)[i, j], 0.3), obs=D[i, j])


@pytest.mark.parametrize("guide", [ph.infer.AutoWrappedNormal, ph.infer.AutoWrappedMultivariateNormal])
def test_a_guide_starts_at_a_layout(guide):
    edges, lengths = random_tree(12, binary=True)
    D, start = path_lengths(edges, lengths)[:12, :12].float(), tree(LORENTZ, edges, lengths)[:12]
    auto = guide(distances_model, init_loc_fn=init_to_value(values={"z": start}))
    assert G.distance(LORENTZ, auto.median(D)["z"], start).max() < 1e-4


def test_from_a_layout_a_guide_ends_nearer_than_from_the_mean_of_the_prior():
    edges, lengths = random_tree(12, binary=True)
    D, start = 2 * path_lengths(edges, lengths)[:12, :12].float(), tree(LORENTZ, edges, lengths, scale=2.0)[:12]
    errors = []
    for init in (init_to_value(values={"z": start}), init_to_mean):
        pyro.clear_param_store()
        guide = ph.infer.AutoWrappedNormal(distances_model, init_loc_fn=init)
        svi = SVI(distances_model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
        for _ in range(25):
            svi.step(D)
        errors.append((G.distance_matrix(LORENTZ, guide.median(D)["z"]) - D).abs().mean().item())
    assert errors[0] < errors[1] / 2, errors
