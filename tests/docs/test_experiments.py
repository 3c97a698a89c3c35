"""What the experiments' tables rest on: statistics, runs that are trained together, the published estimator."""

import functools
import json
import math
import sys
from pathlib import Path

import geoopt
import networkx
import pyro
import pytest
import scipy.integrate
import scipy.stats
import torch

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions.transforms as HT

FOLDER = Path(__file__).parents[2] / "tutorials" / "experiments"


@pytest.fixture(scope="module", autouse=True)
def _scripts_are_importable():
    before, settings = list(sys.path), pyro.settings.get()
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path[:] = before
    pyro.settings.set(**settings)


def test_the_page_is_what_the_records_say():
    """README.md was written from the committed records."""
    import report

    assert (FOLDER / "README.md").read_text() == report.page(FOLDER / "runs"), "run tutorials/experiments/report.py"


# ---- Records, from which a second start goes on ----

FIELDS = {"model": "TC, gyroplanes", "dim": 2, "seeds": [0, 1]}
WHOLE = json.dumps({**FIELDS, "scores": {"80": [math.nan, 1.0]}})
BROKEN = {  # what is in the file, and what of it the message shows
    "empty": (b"", ""),
    "cut": (WHOLE[:-9].encode(), ""),
    "not text": (b"\xff\xfe{}", ""),
    "a list": (b"[1]", r"\[1\]"),
    "another script's": (b'{"kl": 0.1}', "model"),
    "another job": (WHOLE.replace('"dim": 2', '"dim": 4').encode(), "dim.*4"),
    "another budget": (WHOLE.replace("[0, 1]", "[0]").encode(), r"seeds.*\[0\]"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_record_of_a_job_is_not_done(tmp_path, case):
    import records

    jobs, (content, shown) = {"TC, gyroplanes-2": FIELDS}, BROKEN[case]
    assert records.missing(tmp_path, jobs) == jobs
    records.write(tmp_path, "TC, gyroplanes-2", json.loads(WHOLE))
    assert records.missing(tmp_path, jobs) == {}
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{file}.*{shown}.*(delete|move)"):
        records.missing(tmp_path, jobs)
    if case not in ("another job", "another budget"):
        with pytest.raises(ValueError, match=rf"{file}.*(delete|move)"):
            records.read(tmp_path, ["scores"])


@pytest.mark.parametrize("fault", ["json", "replace"])
def test_a_record_is_written_whole_or_not_at_all(tmp_path, fault, monkeypatch):
    import records

    records.write(tmp_path, "a", {"old": 1})
    if fault == "replace":
        monkeypatch.setattr(Path, "replace", lambda *_: 1 / 0)
        monkeypatch.setattr("os.replace", lambda *_: 1 / 0)
    with pytest.raises((TypeError, ZeroDivisionError)):
        records.write(tmp_path, "a", {"new": 2, "bad": object() if fault == "json" else 0})
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert records.read(tmp_path) == {"a": {"old": 1}}


def test_intervals_are_those_of_scipy():
    import report

    values, others = [1.0, 2.5, 0.3, 4.0, 2.2], [0.5, 2.0, 0.1, 3.0, 2.0]
    for found, test in (
        (report.interval(values), scipy.stats.ttest_1samp(values, 0.0)),
        (report.interval(report.paired(values, others)), scipy.stats.ttest_rel(values, others)),
    ):
        assert (found[0] - found[1], found[0] + found[1]) == pytest.approx(test.confidence_interval(0.95))


def test_failed_runs_are_counted_not_dropped_unseen():
    import report

    assert report.text_of([1.0, 1.0, math.nan]) == "1.00 ± 0.00 (1 failed)"
    assert report.text_of([math.nan]) == "1 failed"


def small_vae(manifold, coupling=None, dim=4, gyroplanes=False):
    from runs_together import PlanesVAE, hyperbolic_vae

    return (PlanesVAE if gyroplanes else hyperbolic_vae.VAE)(5, dim, manifold, coupling, hidden_dim=6)


@pytest.mark.parametrize("gyroplanes", [False, True])
@pytest.mark.parametrize("coupling", [None, HT.tangent_coupling, HT.wrapped_hyperboloid_coupling])
def test_runs_together_are_those_apart(coupling, gyroplanes):
    """With the same noise, two runs in one have the losses and gradients, step for step, of each alone."""
    from runs_together import together

    def make(manifold):
        return small_vae(manifold, coupling, gyroplanes=gyroplanes).double()

    def step(vae, optimizer, x, noise):
        posterior = vae.posterior(x)
        wrapped = posterior.base_dist if vae.flow else posterior
        z = wrapped.transforms[0](wrapped.scale * noise)
        z = vae.flow(z) if vae.flow else z
        trace = pyro.poutine.trace(pyro.poutine.condition(vae.model, {"z": z})).get_trace(x)
        loss = posterior.log_prob(z).sum() - trace.log_prob_sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    M = ph.manifolds.Lorentz
    x, noise = torch.randn(2, 2, 7, 5, dtype=torch.float64), torch.randn(3, 2, 7, 4, dtype=torch.float64)
    both = together(make, M(torch.ones(2, 1, dtype=torch.float64), learnable=True), [3, 4])
    alone = [together(make, M(torch.ones(1, 1, dtype=torch.float64), learnable=True), [seed]) for seed in (3, 4)]
    optimizers = [torch.optim.Adam(vae.parameters(), lr=1e-2) for vae in (both, *alone)]
    for i in range(3):
        found = step(both, optimizers[0], x[0], noise[i])
        expected = [step(alone[j], optimizers[1 + j], x[0][j : j + 1], noise[i][j : j + 1]) for j in (0, 1)]
        assert math.isclose(found, sum(expected), rel_tol=1e-9)
    for name, value in both.named_parameters():
        apart = torch.cat([dict(vae.named_parameters())[name] for vae in alone])
        assert torch.allclose(value, apart, rtol=1e-6, atol=1e-9), name


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_a_run_that_fails_takes_no_other_with_it():
    """Where the first of two runs has become NaN, the second is what it would have been."""
    from runs_together import score, together

    def trained(weight):
        manifold = ph.manifolds.Lorentz(torch.ones(2, 1), learnable=True)
        vae = together(lambda M: small_vae(M, HT.wrapped_hyperboloid_coupling), manifold, [3, 4])
        with torch.no_grad():
            vae.encoder.layers[0].weight[0] *= weight
        pyro.set_rng_seed(0)
        x, optimizer = torch.randn(2, 7, 5), torch.optim.Adam(vae.parameters())
        # As in all epochs but the first, which looks at every value.
        with pyro.validation_enabled(False):
            for _ in range(2):
                optimizer.zero_grad()
                pyro.infer.Trace_ELBO()(vae.model, vae.guide)(x).backward()
                optimizer.step()
        return score(vae, x)["likelihood"]

    sound, failed = trained(1.0), trained(math.nan)
    assert failed.isnan().tolist() == [True, False]
    assert failed[1] == sound[1]


def test_one_run_together_is_the_tutorial_s_vae():
    """Initial weights are those of a single VAE made from the seed."""
    from runs_together import together

    merged = together(small_vae, geoopt.Euclidean(1), [3, 4])
    x = torch.randn(2, 7, 5)
    for j, seed in enumerate((3, 4)):
        pyro.set_rng_seed(seed)
        single = small_vae(geoopt.Euclidean(1))
        assert torch.allclose(merged.posterior(x).mean[j], single.posterior(x[j]).mean, atol=1e-6)
        z = torch.randn(4, 2, 7, 4)  # four samples for each point
        assert torch.allclose(merged.decoder(z)[:, j], single.decoder(z[:, j]), atol=1e-6)


def test_the_published_estimator_is_too_low_by_the_volume():
    """By E[(n - 1)(log R + log(sinh r / r))] where all importance weights are one: here the posterior is the prior."""
    from runs_together import score

    vae = small_vae(ph.manifolds.Lorentz(4.0), dim=3)
    with torch.no_grad():
        for network in (vae.encoder, vae.decoder):
            for value in network.parameters():
                value.zero_()
        # softplus of this is one: guide and prior are the same.
        vae.encoder.layers[-1].bias[3:] = math.log(math.e - 1)
    pyro.set_rng_seed(0)
    found = score(vae, torch.zeros(20, 5), num_samples=2000)
    assert torch.allclose(found["likelihood"], torch.tensor(-2.5 * math.log(2 * math.pi)), atol=1e-4)

    def density(r):  # of |v| / 2 for v normal in three dimensions
        return math.sqrt(2 / math.pi) * 8 * r**2 * math.exp(-2 * r**2)

    def extra(r):
        return (2 * math.sinh(r) / r) ** 2 if r else 4.0

    # log E[exp(-extra)], what the estimator averages; the textbook's integral.
    mean = scipy.integrate.quad(lambda r: density(r) / extra(r), 0, 10)[0]
    assert abs(float(found["published"] - found["likelihood"]) - math.log(mean)) < 0.01


def test_the_control_with_a_flat_code_decodes_what_the_curved_one_does():
    """Densities of code and data, with respect to the measure of each: they differ by the volume of exp_o."""
    from runs_together import FlatCode, curvature_of

    M = ph.manifolds.Lorentz(torch.tensor(2.0), learnable=True)
    pyro.set_rng_seed(0)
    curved = small_vae(M, dim=3, gyroplanes=True)
    pyro.set_rng_seed(0)
    flat = FlatCode(5, 3, M, hidden_dim=6)
    v, x = torch.randn(4, 3), torch.randn(4, 5)

    def log_joint(vae, z):
        trace = pyro.poutine.trace(pyro.poutine.condition(vae.model, {"z": z})).get_trace(x)
        trace.compute_log_prob()
        return trace.nodes["z"]["log_prob"] + trace.nodes["x"]["log_prob"]

    volume = ph.geometry.log_volume(M, v)
    assert torch.allclose(log_joint(flat, v), log_joint(curved, ph.geometry.exp0(M, v)) + volume, atol=1e-4)
    assert curvature_of(flat) == curvature_of(curved) == -0.5
    assert isinstance(flat.posterior(x).manifold, geoopt.Euclidean)


# ---- Generated graphs ----


def random_trees(count, seed=0, nodes=(4, 12)):
    return [(len(edges) + 1, edges) for edges in ph.datasets.random_trees(seed, count, nodes)]


@pytest.fixture
def grown(monkeypatch):
    """A model of growth that was trained for a few steps on small trees."""
    import growth

    def make(dim=3, coupling=HT.tangent_coupling, **options):
        orders = [growth.order_of(graph, torch.Generator().manual_seed(0)) for graph in random_trees(20)]
        model = growth.Growth(growth.space(True, dim, **options), coupling, hidden=16)
        growth.fit_policy(model, orders, 50)
        growth.fit_flow(model, 20, batch=32)
        growth.fit_edges(model, orders[:3], 20)
        return model

    return make


@pytest.mark.parametrize("row", ["growth-whc", "growth-euclidean-32", "galton-watson", "floor", "nearest-tc"])
@pytest.mark.parametrize("data", ["trees", "lobsters"])
def test_a_row_writes_its_samples(row, data, tmp_path, monkeypatch):
    import graph_generation
    import set_flows

    monkeypatch.setattr(set_flows, "fit", functools.partial(set_flows.fit, code_steps=2))
    small = {"trees": lambda seed, count: ph.datasets.random_trees(seed, count, (4, 9))}
    small["lobsters"] = lambda seed, count: [torch.tensor([[0, 1], [1, 2], [1, 3]])] * count
    for name, value in (("DATA", small), ("ORDERS", 1), ("STEPS", {"policy": 5, "flow": 2, "edges": 2, "one-shot": 2})):
        monkeypatch.setattr(graph_generation, name, value)
    options = ["--row", row, "--data", data, "--seed", "3", "--samples", "5", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["graph_generation.py", *options])
    graph_generation.main()
    samples = json.loads((tmp_path / "samples.json").read_text())
    assert len(samples) == 5
    for sample in samples:
        assert all(0 <= u < v < sample["nodes"] for u, v in sample["edges"])
        if row in ("galton-watson", "floor", "nearest-tc"):  # by construction
            assert len(sample["edges"]) == sample["nodes"] - 1


@pytest.mark.slow
def test_the_theorem_is_drawn(tmp_path):
    import graph_pictures

    graph_pictures.theorem(tmp_path / "theorem.png")
    assert (tmp_path / "theorem.png").stat().st_size > 10_000


def test_orders_of_growth_are_the_tree_from_the_middle_of_a_longest_path():
    import growth
    import networkx

    generator = torch.Generator().manual_seed(0)
    for nodes, edges in random_trees(10):
        tree = networkx.Graph(edges.tolist())
        parents, path = growth.order_of((nodes, edges), generator)
        again = networkx.Graph([(i, parent) for i, parent in enumerate(parents) if i])
        assert networkx.is_isomorphic(tree, again)
        assert path == networkx.diameter(tree) + 1
        assert networkx.eccentricity(again, 0) == path // 2
        assert all(parent < i for i, parent in enumerate(parents))


def test_edges_longer_than_the_closing_length_never_close_up():
    """A path that always turns the same way is a product of isometries of the half-plane: it returns if elliptic."""
    import growth

    for angle in (0.5, math.pi / 2, 2.0):
        turn = (math.pi - angle) / 2  # rotations by an angle turn by half of it in SL(2)
        for factor, returns in ((0.999, True), (1.001, False)):
            length = factor * growth.closing_length(angle, k=4.0) / 2 / 2
            boost = torch.tensor([[math.exp(length), 0], [0, math.exp(-length)]])
            rotation = torch.tensor([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
            assert ((boost @ rotation).trace().abs() < 2) == returns
    square = 2 * math.acosh(math.sqrt(2) * math.cos(math.pi / 6))  # side of the right-angled hexagon
    assert square < growth.closing_length(math.pi / 2)


def test_samples_of_a_code_have_the_density_it_states(grown):
    """The mean of 1 / p over the samples in a ball is its volume, at a parent and in a frame off the origin."""
    pyro.set_rng_seed(0)
    model = grown(dim=3)
    M, radius = model.space.manifold, 0.5
    slot = torch.zeros(20_000, dtype=torch.long)
    ahead = torch.tensor([0.3, -2.0, 1.0], dtype=torch.float64)
    parent = ph.geometry.exp0(M, torch.tensor([1.0, 0.2, -0.4], dtype=torch.float64))
    law = model.code(slot, ahead, parent)
    z = law.sample()
    centre = ph.geometry.frechet_mean(M, z)
    near = ph.geometry.distance(M, z, centre) < radius
    volume = torch.where(near, (-law.log_prob(z)).exp(), 0.0)
    exact = math.pi * (math.sinh(2 * radius) - 2 * radius)
    assert abs(volume.mean() - exact) < 5 * volume.std() / len(z) ** 0.5


def test_a_grown_code_has_the_density_of_its_place_in_the_frame_of_its_parent(grown):
    """Pulled back by Lorentz matrices: a boost to the parent and a reflection."""
    model = grown(dim=3, coupling=HT.wrapped_hyperboloid_coupling)
    M, slot = model.space.manifold, torch.tensor([0, 1, 3])
    ahead = torch.randn(3, 3, dtype=torch.float64)
    parent = ph.geometry.exp0(M, torch.randn(3, 3, dtype=torch.float64))
    z = model.code(slot, ahead, parent).sample()
    eye, y = torch.eye(3, dtype=torch.float64), []
    for p, f, point in zip(parent, ahead, z, strict=True):
        s = p[1:]
        boost = torch.cat([p[None], torch.cat([s[:, None], eye + torch.outer(s, s) / (1 + p[0])], 1)])
        u = eye[0] - f / f.norm()
        reflection = torch.block_diag(eye[:1, :1], eye - 2 * torch.outer(u, u) / (u @ u))
        y.append(torch.linalg.solve(boost @ reflection, point))
    expected = model.code(slot).log_prob(M.projx(torch.stack(y)))  # solve leaves the manifold by its rounding
    assert torch.allclose(model.code(slot, ahead, parent).log_prob(z), expected, rtol=1e-9)


def test_charts_measure_what_one_chart_measures(monkeypatch):
    """The distances of all pairs in their last common chart and in the first, where that has the digits."""
    import growth

    monkeypatch.setattr(growth, "CHART", 1)
    orders = [growth.order_of(graph, torch.Generator().manual_seed(0)) for graph in random_trees(8, nodes=(8, 14))]
    space = growth.space(True, 3, noise=0.1)
    atlas = growth.embed(space, orders)
    assert int(atlas.level.max()) >= 4
    M, root = space.manifold, atlas.points[:, :, 0]
    for row, order in enumerate(orders):
        for i in range(1, len(order.parents)):
            pairs = atlas.pairs(torch.tensor([row]), torch.tensor([i]), i)[0]
            expected = ph.geometry.distance(M, root[row, i], root[row, :i])
            assert torch.allclose(ph.geometry.distance(M, pairs[:, 0], pairs[:, 1]), expected, atol=1e-6)


def test_scores_of_known_graphs():
    import graph_scores
    import networkx

    def graph(edges, nodes=None):
        edges = torch.tensor(edges)
        return (nodes or int(edges.max()) + 1, edges)

    path, cycle = graph([[0, 1], [1, 2], [2, 3]]), graph([[0, 1], [1, 2], [0, 2]])
    spider = graph([[0, 1], [1, 2], [2, 3], [0, 4], [4, 5], [5, 6], [0, 7], [7, 8], [8, 9]])  # three legs of three
    apart = graph([[0, 1], [1, 2], [0, 2]], nodes=4)  # the edges of a tree, but a triangle and a node
    rows = [path, cycle, spider, apart, path]
    scores = graph_scores.score(rows, [spider], [path], "lobsters", wanted=[4] * 5)
    expected = {"valid": 0.4, "tree": 0.6, "vun": 0.2, "unique": 0.8, "novel": 0.8, "components": 1.2}
    expected |= {"nodes": 5.0, "triangles": 0.4, "largest_valid": 0.4, "disconnected": 0.2, "cyclic": 0.4}
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert graph_scores.mmds([graph_scores.adjacency(path)], [graph_scores.adjacency(path)])["degree"] == 0
    matrix = graph_scores.adjacency(cycle)
    assert graph_scores.triangles(matrix) == sum(networkx.triangles(networkx.from_numpy_array(matrix)).values()) / 3
    # Degree histograms (0, 1/2, 1/2) and (0, 0, 1): total variation 1/2.
    found = graph_scores.mmds([graph_scores.adjacency(path)], [matrix])["degree"]
    assert found == pytest.approx(2 - 2 * math.exp(-1 / 8))


def test_trees_have_one_signature_exactly_if_they_are_isomorphic():
    import graph_scores
    import networkx

    trees = random_trees(40, nodes=(5, 7))
    found = graph_scores.signatures([graph_scores.adjacency(tree) for tree in trees])
    graphs = [networkx.Graph(edges.tolist()) for _, edges in trees]
    for i, first in enumerate(graphs):
        assert [networkx.is_isomorphic(first, other) for other in graphs] == [found[i] == other for other in found]


# ---- One-shot generation ----


@pytest.mark.usefixtures("float64")
def test_a_flow_of_sets_draws_graphs_of_the_training_sizes():
    import networkx
    import set_flows

    graphs = [(len(edges) + 1, edges) for edges in ph.datasets.random_trees(0, 6, nodes=(2, 9))]
    shares = []
    M = geoopt.Lorentz(torch.tensor(1.0))
    model = set_flows.fit(graphs, M, 3, HT.wrapped_hyperboloid_coupling, 0, 2, shares.append, code_steps=2)
    assert shares == [0.25, 0.5, 0.75, 1.0]
    assert {nodes for nodes, _ in model.sample(9)} <= {nodes for nodes, _ in graphs}
    drawn = [model.sample(torch.tensor([1, 7, 4]), seed=3, decoder=way) for way in ("edges", "edges", "nearest")]
    assert [nodes for nodes, _ in drawn[0]] == [1, 7, 4]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(*drawn[:2], strict=True))
    for nodes, edges in drawn[2]:
        graph = networkx.empty_graph(nodes)
        graph.add_edges_from(edges.tolist())
        assert networkx.is_tree(graph)


@pytest.mark.usefixtures("float64")
def test_free_codes_learn_the_edges():
    import set_flows

    graphs = [(len(edges) + 1, edges) for edges in ph.datasets.random_trees(0, 4, nodes=(2, 9))]
    model = set_flows.SetModel(geoopt.Lorentz(torch.tensor(1.0)), 3, HT.tangent_coupling, [1])
    codes, mask = set_flows.fit_codes(model, graphs, 60)
    edges = model.decoder(codes, model.radius, model.temperature, mask).probs > 0.5
    assert torch.equal(edges, set_flows.padded(graphs)[0] > 0)


@pytest.mark.usefixtures("float64")
def test_pointers_are_laid_out_as_whole_trees_with_free_edges():
    import networkx
    import set_flows
    import set_pointers

    graphs = [(len(edges) + 1, edges) for edges in ph.datasets.random_trees(0, 4, nodes=(5, 9))]
    model = set_pointers.PointerModel(geoopt.Lorentz(torch.tensor(1.0)), 3, HT.tangent_coupling, [1])
    codes, mask = set_flows.fit_codes(model, graphs, 60)
    found = set_flows.nearest(model.manifold, codes, mask)
    wanted = set_flows.padded([set_pointers.tree(parents) for parents in model.rooted(graphs)])[0]
    assert (found * wanted).sum() >= 0.9 * wanted.sum()
    whole = 0
    for nodes, edges in model.sample(torch.tensor([1, *9 * [20]]), seed=0):
        graph = networkx.empty_graph(nodes)
        graph.add_edges_from(edges.tolist())
        whole += networkx.is_tree(graph)
    assert whole >= 9  # of 10; the rate is 0.98 for 60 nodes


# ---- Link prediction ----


def small_graph():
    """Returns a graph with triangles, features, and a split of its edges."""
    import link_prediction

    edges = torch.tensor(sorted(networkx.barabasi_albert_graph(40, 3, seed=0).edges))
    graph = link_prediction.Graph(40, edges, torch.randn(40, 3, generator=torch.Generator().manual_seed(0)))
    return link_prediction, graph, link_prediction.Split.of(graph, 0)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("name", ["N-VAE", "WHC"])
def test_predictions_know_nothing_of_the_test_edges(name):
    """With other test pairs, those of validation get the same probabilities; with other training edges they do not."""
    script, graph, split = small_graph()
    setting = script.Setting(2, 0.01, 0.4, epochs=3)

    def validated(split):
        found, _ = script.trained(graph, split, setting, name, seed=0)
        return found[: 2 * len(split.val)]

    everything = torch.combinations(torch.arange(40))  # draws for all nodes, whatever the pairs
    split = split._replace(matched=everything)
    found = validated(split)
    assert torch.equal(found, validated(split._replace(test=split.test_negatives, test_negatives=split.test)))
    assert not torch.equal(found, validated(split._replace(train=split.train[1:])))


@pytest.mark.filterwarnings("ignore:Sparse")
def test_rules_are_those_of_networkx():
    script, graph, split = small_graph()
    training = networkx.Graph(split.train.tolist())
    training.add_nodes_from(range(40))
    expected = [value for *_, value in networkx.adamic_adar_index(training, split.pairs.tolist())]
    assert script.adamic_adar(graph, split).tolist() == pytest.approx(expected, rel=1e-5)
    expected = [value for *_, value in networkx.preferential_attachment(training, split.pairs.tolist())]
    assert script.preferential_attachment(graph, split).tolist() == expected
    A = torch.from_numpy(networkx.to_numpy_array(training, range(40)))
    series = (torch.eye(40) - 0.01 * A).inverse()[tuple(split.pairs.T)]
    assert torch.allclose(script.katz(graph, split, length=9).double(), series, rtol=1e-4)


def test_degrees_tell_nothing_of_degree_matched_negatives():
    """On a tree, where they tell most uniform ones: many a test edge has a leaf that is cut off."""
    import link_prediction as script

    (edges,) = ph.datasets.random_trees(0, 1, nodes=(400, 400))
    graph = script.Graph(400, edges, torch.eye(400))
    split = script.Split.of(graph, 0)
    scores = split.scores(script.degree_rule(graph, split))
    assert scores["auc"] > 0.7
    assert abs(scores["matched_auc"] - 0.5) < 0.05


def test_points_of_the_roc_curve():
    """The share of positives above all but so many negatives; among ties a share of them."""
    import link_prediction as script

    rates = script.roc(torch.tensor([0.9, 0.35, 0.1]), torch.tensor([0.8, 0.4, 0.3, 0.2]))
    assert [rates[0], rates[20], rates[-1]] == pytest.approx([1 / 3, 1 / 3, 1.0])  # none, one or all of the negatives
    assert script.roc(torch.ones(5), torch.ones(1600)) == pytest.approx(script.RATES.tolist(), abs=1e-3)


def test_a_table_goes_on_from_its_records(tmp_path):
    """With the rows that a split lacks; a record of other settings is refused."""
    import link_prediction as script
    import records

    record = {"dataset": "dis1", "seed": 101, "setting": script.SETTINGS["dis1"]._asdict(), "rows": {"TC": {}}}
    records.write(tmp_path, "dis1-101", record)
    assert script.unfinished(tmp_path, ["dis1"], ["TC", "WHC"], 2) == [
        ("dis1", 101, ["WHC"]),
        ("dis1", 102, ["TC", "WHC"]),
    ]
    records.write(tmp_path, "dis1-101", {**record, "setting": {**record["setting"], "beta": 1.0}})
    with pytest.raises(ValueError, match=r"dis1-101.json.*'beta': 1.0.*delete"):
        script.unfinished(tmp_path, ["dis1"], ["TC"])


# ---- Products of curved spaces ----


def test_distances_of_a_tree_and_a_cycle_are_those_of_their_product():
    import mixed_curvature as script

    pyro.set_rng_seed(0)
    chosen = torch.randperm(80)
    u, v = chosen // 8, chosen % 8
    pyro.set_rng_seed(0)
    found = script.tree_and_cycle(80, 0, ())
    (edges,) = ph.datasets.random_trees(0, 1, nodes=(10, 10))
    graphs = networkx.Graph(edges.tolist()), networkx.cycle_graph(8)
    tree, cycle = (torch.from_numpy(networkx.floyd_warshall_numpy(graph, sorted(graph))) for graph in graphs)
    assert torch.allclose(found**2, tree[u][:, u] ** 2 + cycle[v][:, v] ** 2)


@pytest.fixture(scope="module")
def product_found():
    """Returns a product that was fitted to distances in H2 x S2."""
    import mixed_curvature as script

    setting = script.Setting(seeds=(0,), points=12, restarts=4, kept=1, steps=(60, 90))
    D, train = script.observed("planted", 0, setting)
    return script, setting, D, train, script.fit("H2 x S2", D[None], train[None], setting)[0]


def test_the_product_is_found_with_its_radii(product_found):
    script, _, D, train, model = product_found
    intervals = script.intervals(model, 0, D, train)
    assert ((intervals[:, 0] < torch.tensor([1.0, 1.2])) & (torch.tensor([1.0, 1.2]) < intervals[:, 1])).all()


def test_intervals_of_radii_are_those_of_nonlinear_regression(product_found):
    """With the Jacobian by finite differences of the textbook distances."""
    script, _, D, train, model = product_found
    i, j = script.pairs(12)

    def distances(theta):
        (r, R), v, y = theta[:2].exp(), theta[2:26].reshape(12, 2), theta[26:].reshape(12, 3)
        length = v.norm(dim=-1, keepdim=True)
        x = torch.cat([(length / r).cosh(), (length / r).sinh() * v / length], -1)
        y = y / y.norm(dim=-1, keepdim=True)
        flat = x[i, 0] * x[j, 0] - (x[i, 1:] * x[j, 1:]).sum(-1)
        return torch.hypot(r * flat.acosh(), R * (y[i] * y[j]).sum(-1).acos())[train]

    x = model.x_unconstrained.detach()[0]
    theta = torch.cat([model.log_radii().detach()[0], x[:, :2].flatten(), x[:, 2:].flatten()])
    assert torch.allclose(distances(theta), model.distances().detach()[0, train])
    J = torch.stack([distances(theta + h) - distances(theta - h) for h in 1e-5 * torch.eye(len(theta)).double()], -1)
    J, freedom = J / 2e-5, int(train.sum()) - torch.linalg.matrix_rank(J / 2e-5, rtol=1e-6)
    variance = (D[train] - distances(theta)).square().sum() / freedom
    error = (variance * torch.linalg.pinv(J.mT @ J, rtol=1e-9).diagonal()[:2]).sqrt()
    half = scipy.stats.t.ppf(0.975, freedom) * error
    expected = torch.stack([theta[:2] - half, theta[:2] + half], -1).exp()
    assert torch.allclose(script.intervals(model, 0, D, train), expected, rtol=1e-4)


def test_embeddings_know_nothing_of_held_out_distances(product_found):
    script, setting, D, train, _ = product_found
    found = []
    for distances in (D, torch.where(train, D, 10 * D)):
        pyro.set_rng_seed(0)
        short = setting._replace(steps=(3, 4))
        found.append(script.fit("H2 x S2", distances[None], train[None], short)[0].distances())
    assert torch.equal(*found)


# ---- Flows on manifolds ----


MANIFOLDS = {
    "sphere": (geoopt.Sphere(), lambda n: torch.nn.functional.normalize(torch.randn(n, 3), dim=-1)),
    "torus": (ph.manifolds.Torus(2), lambda n: math.pi * (2 * torch.rand(n, 2) - 1)),
    "plane": (geoopt.Lorentz(), lambda n: ph.geometry.exp0(geoopt.Lorentz(), torch.randn(n, 2))),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", MANIFOLDS)
def test_a_mixture_has_mass_one_and_a_grid_measures_it(name):
    import kernels
    import manifolds

    pyro.set_rng_seed(0)
    M, draw = MANIFOLDS[name]
    mixture = kernels.Mixture(
        M, draw(5), torch.tensor([1.0, 2.0, 5.0, 9.0, 3.0]), uniform=0.0 if name == "plane" else 0.1
    )
    points, weights = manifolds.grid(M, 3000, 8.0)
    assert abs((kernels.log_prob(mixture, points).exp() * weights).sum() - 1) < 1e-3


@pytest.mark.usefixtures("float64")
def test_a_mixture_samples_its_density():
    import kernels

    pyro.set_rng_seed(0)
    M, draw = MANIFOLDS["sphere"]
    mixture = kernels.Mixture(M, draw(3), torch.tensor([500.0, 50.0, 5.0]), torch.tensor([2.0, 0.0, 1.0]), uniform=0.3)
    x, base = mixture.sample(4000), ph.distributions.Uniform(M, 2)
    ratio = (
        base.log_prob(x) - mixture.log_prob(x)
    ).exp()  # of mean one; 0.3 of the draws are uniform, so it is bounded
    assert ratio.max() < 1 / 0.3
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / 4000**0.5


@pytest.mark.usefixtures("float64")
def test_of_a_species_with_few_distances_the_nearest_stays():
    import distances as script

    D, _ = script.phylogeny.made_by(0, n=9)
    i, j = torch.triu_indices(9, 9, 1)
    known = torch.ones(36, dtype=torch.bool)
    known[20] = False
    for star in range(9):
        kept, own = script.phylogeny.few(D, known, star, 4), (i == star) | (j == star)
        assert (kept & own).sum() == 4
        assert D[i, j][kept & own].min() == D[i, j][known & own].min()
        assert torch.equal(kept[~own], known[~own])
        assert torch.equal(script.phylogeny.few(D, known, star, 99), known)
        assert torch.equal(script.phylogeny.few(D, known & ~own, star, 4), known & ~own)


@pytest.mark.usefixtures("float64")
def test_a_kernel_density_finds_its_bandwidth():
    """The data are bumps of precision 100 about known points; from these points, that is the best precision."""
    import kernels

    pyro.set_rng_seed(0)
    M, draw = MANIFOLDS["sphere"]
    loc = draw(40)
    valid = kernels.bump(M, loc, torch.full((40,), 100.0)).sample((50,)).flatten(0, 1)
    assert 70 < kernels.kernel_density(M, loc, valid).precision[0] < 140


def test_a_partial_table_says_what_is_missing(tmp_path):
    import manifolds
    import records

    done = manifolds.Run("compact", "torus-board", "flow", 11)
    scores = {"kl": 0.125, "kl_error": 0.01, "mass": 1.0, "mass_error": 0.001, "seconds": 120.0}
    records.write(tmp_path / "manifolds", done.name, {**done.fields, **scores})
    page = manifolds.section(tmp_path)
    assert "compact, flow: 1 of 15" in page
    assert "planar, flow: 0 of 27" in page
    assert "| torus-board | continuous flow | 120 | 0.1250 |" in page
    assert "-1.86" not in page  # recalled from a paper, not read there
    other = {**done.fields, "setting": {**done.fields["setting"], "rate": 1.0}}
    with pytest.raises(ValueError, match="setting"):
        records.missing(tmp_path / "manifolds", {done.name: other})


# ---- Networks ----


def test_graphs_of_networks_are_those_of_networkx(tmp_path):
    import networks
    import numpy

    assert networks.karate(None).tolist() == sorted(map(list, networkx.karate_club_graph().edges))
    tree = networkx.DiGraph([(2, 0), (2, 1), (1, 3), (3, 4)])
    distances = dict(networkx.all_pairs_shortest_path_length(tree.to_undirected()))
    names = ["lion.0", "cat.0", "carnivore.0", "cub.0", "kitten.0"]
    (tmp_path / "phylo").mkdir()
    D = numpy.array([[distances[i][j] for j in range(5)] for i in range(5)], dtype=float)
    numpy.savez(tmp_path / "phylo" / "wordnet_carnivores.npz", distances=D, names=numpy.array(names))
    found = networks.carnivores(tmp_path).tolist()
    assert sorted(map(tuple, found)) == sorted(networkx.transitive_closure(tree.reverse()).edges)
    (tmp_path / "wordnet").mkdir()
    (tmp_path / "wordnet" / "data.noun").write_text(
        "  1 A licence.\n"
        "00000010 03 n 01 entity 0 001 ~ 00000020 n 0000 | is @ 00000040\n"
        "00000020 05 n 0b " + "cat 0 " * 11 + "002 @ 00000010 n 0000 ~i 00000030 n 0000 | a gloss\n"
        "00000030 05 n 01 Tom 0 002 @i 00000020 n 0000 #p 00000040 n 0000 | an instance\n"
        "00000040 05 n 01 kitten 0 002 @ 00000010 n 0000 @ 00000020 n 0000 | two hypernyms\n"
    )
    assert networks.nouns(tmp_path).tolist() == [[1, 0], [2, 0], [2, 1], [3, 0], [3, 1]]


@pytest.mark.usefixtures("float64")
def test_a_ranking_knows_all_right_answers():
    """Of random nodes, which are hypernyms or the word itself; scores of blocks are those of the matrix."""
    import networks

    edges, n, M = torch.tensor([(i, j) for i in range(9) for j in range(i) if (i + j) % 3]), 9, geoopt.Lorentz()
    edges = edges[torch.randperm(len(edges))]
    closure = {*map(tuple, edges.tolist())} | {(i, i) for i in range(n)}
    for _ in range(20):
        nodes, u, v, others, right = networks.Ranking(edges, n, M, True, 2, batch=5, others=6).sample()
        assert all((nodes[i].item(), nodes[j].item()) in closure for i, j in zip(u, v, strict=True))
        assert right.tolist() == [[(nodes[i].item(), nodes[j].item()) in closure for j in others] for i in u]
    centre = {"z": ph.geometry.exp0(M, torch.randn(n, 2)), "T": torch.tensor(2.0), "a": torch.randn(n)}
    truth = torch.zeros(n, n, dtype=torch.bool).index_put(tuple(edges.T), torch.tensor(True))
    apart = ph.geometry.distance_matrix(M, centre["z"]) / 2.0 - centre["a"]
    found = networks.reconstruction(M, centre, edges, pairs=2 * n)
    assert found["map"] == pytest.approx(ph.metrics.mean_average_precision(apart, truth).item())
    assert found["rank"] == pytest.approx(ph.metrics.mean_rank(apart, truth).item())


@pytest.mark.usefixtures("float64")
def test_a_model_of_a_network_sees_no_hidden_dyad():
    import networks

    edges, n = networks.karate(None), 34
    everything = {tuple(edge) for edge in edges.tolist()}
    splits = [networks.split(edges, n, seed) for seed in (0, 1)]
    assert not torch.equal(splits[0][1], splits[1][1])
    for train, hidden, labels in splits:
        assert len(hidden) == 56  # a tenth of 561
        assert {tuple(pair) for pair in hidden[labels].tolist()} | {
            tuple(pair) for pair in train.tolist()
        } == everything
    for pairs in (None, 4.0):
        drawn, labels, weights = networks.Batches(splits, n, pairs).sample()
        assert weights.sum(-1).tolist() == pytest.approx([505.0, 505.0])
        for row, label, (train, hidden, _) in zip(drawn, labels, splits, strict=True):
            seen = {tuple(pair) for pair in row.tolist()}
            assert not seen & {tuple(pair) for pair in hidden.tolist()}
            assert {tuple(pair) for pair in row[label == 1].tolist()} == {tuple(pair) for pair in train.tolist()}
            assert len(row) == 505 or len(row) == round(4 * max(len(each[0]) for each in splits))


@pytest.mark.usefixtures("float64")
def test_the_elbo_of_a_network_is_that_of_pyro():
    """Two runs at once, summed by hand over all dyads that are not hidden."""
    import networks

    edges, n, M = networks.karate(None), 34, geoopt.Lorentz(torch.tensor(1.0))
    splits = [networks.split(edges, n, seed) for seed in (0, 1)]
    network = networks.Network(n, M, True, 2, (2,))
    starts = [
        networks.start_of(M, train, n, 2, place) for (train, *_), place in zip(splits, networks.STARTS, strict=True)
    ]
    start = {site: torch.stack([each[site] for each in starts]) for site in starts[0]}
    batches = networks.Batches(splits, n)
    guide = networks.fit(network, batches.sample, start, 2, 0.1, lambda share: None)
    pyro.set_rng_seed(0)
    found = networks.elbos(network, guide, splits, 1)
    pyro.set_rng_seed(0)
    expected = -pyro.infer.Trace_ELBO().loss(network.model, guide, *batches.sample())
    assert found.sum().item() == pytest.approx(expected)


def test_reliability_adds_up():
    import networks

    p, y = torch.tensor([0.5, 0.1, 0.9, 0.5]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    sums = torch.tensor(networks.reliability(p, y))
    assert sums.sum(-1).tolist() == pytest.approx([2.0, 2.0, 4.0])
    assert sums[0].max() <= 1.0  # no bin has half of the edges that are expected


# ---- Distances with holes ----

NEWICK = "((A:1,B:2):0.5,(C:1.5,'D x':0.25)inner:1,E:3);"


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("suffix", [".nwk", ".csv", ".npz"])
def test_a_file_of_distances_is_read(suffix, tmp_path):
    """Path lengths of a tree in Newick's format are networkx's; csv and npz hold the same matrix."""
    import distances as script
    import numpy as np

    branches = {("r", "1"): 0.5, ("1", "A"): 1, ("1", "B"): 2, ("r", "2"): 1, ("2", "C"): 1.5, ("2", "D x"): 0.25}
    tree, names = networkx.Graph(), ["A", "B", "C", "D x", "E"]
    tree.add_weighted_edges_from([(*ends, length) for ends, length in {**branches, ("r", "E"): 3}.items()])
    lengths = dict(networkx.all_pairs_dijkstra_path_length(tree))
    expected = torch.tensor([[lengths[a][b] for b in names] for a in names]).double()
    file = tmp_path / f"D{suffix}"
    if suffix == ".nwk":
        file.write_text(NEWICK)
    elif suffix == ".csv":
        expected[0, 1] = expected[1, 0] = math.nan
        rows = [
            [name, *("" if math.isnan(x) else str(x) for x in row.tolist())]
            for name, row in zip(names, expected, strict=True)
        ]
        file.write_text("\n".join(",".join(row) for row in [["", *names], *rows]))
    else:
        np.savez(file, distances=expected.numpy(), names=np.array(names))
    D, found = script.phylogeny.read(file)
    assert found == names
    assert torch.allclose(D, expected, equal_nan=True)


TABLES = {
    "of R": '"","A","B","C"\n"A",0,NA,3\n"B",NA,0,4\n"C",3,4,0\n\n',
    "of Excel": "\ufeffA,B,C\n0,,3\n,0,4\n3,4,0\n",
    "of one triangle": ",A,B,C\nA,,,\nB,,,\nC,3,4,\n",
}
NO_TABLES = {
    "A,B,C,D\n0,1,2,1\n1,0,3\n": "found 2 rows of 3 or 4 cells below 4 names",
    "A;B\n0;1\n1;0\n": "with commas: found 2 rows of 1 cells below 1 names",
    "A,B,C\n0,1,2\n1,0,3\n": "not the names above",
    ",A,B\nB,0,1\nA,1,0\n": "not the names above",
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_tables_of_other_programs_are_read(text, tmp_path):
    import distances as script

    (tmp_path / "D.csv").write_text(text, encoding="utf-8")
    D, names = script.phylogeny.read(tmp_path / "D.csv")
    assert names == ["A", "B", "C"]
    assert torch.equal(D[[0, 2, 1], [2, 0, 2]], torch.tensor([3.0, 3.0, 4.0], dtype=D.dtype))
    assert D[0, 1].isnan()
    assert D[1, 0].isnan()


@pytest.mark.parametrize(("text", "message"), NO_TABLES.items())
def test_a_file_that_is_no_square_table_is_refused(text, message, tmp_path):
    import distances as script

    (tmp_path / "D.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        script.phylogeny.read(tmp_path / "D.csv")
    (tmp_path / "D.txt").write_text(text)
    with pytest.raises(ValueError, match="no tree in Newick's format"):
        script.phylogeny.read(tmp_path / "D.txt")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("manifold", ["euclidean", "hyperbolic"])
def test_models_know_nothing_of_hidden_distances(manifold, monkeypatch):
    import distances as script

    monkeypatch.setattr(script, "STEPS", 4)
    monkeypatch.setattr(script, "DRAWS", 3)
    D, _ = script.phylogeny.made_by(0, n=9)
    _, hidden = script.phylogeny.hide(D, 0.3, 0)
    i, j = torch.triu_indices(9, 9, 1)[:, hidden]
    other = D.clone()
    other[i, j] = other[j, i] = 7 * D[i, j]
    found = [script.run(each, manifold, True, 2, "student", [0], lambda _: None) for each in (D, other)]
    for key in ("elbo", "fit"):
        assert found[0][key] == pytest.approx(found[1][key])
    assert found[0]["score"] != pytest.approx(found[1]["score"])


@pytest.mark.usefixtures("float64")
def test_rivals_without_a_model_are_exact_on_a_tree():
    """Where the others tell the distance: A and C are no siblings."""
    import distances as script

    D, _ = script.phylogeny.newick(NEWICK)
    seen = torch.ones(10, dtype=torch.bool)
    seen[1] = False
    assert script.anchors(D, seen, ~seen) == pytest.approx(dict.fromkeys(script.anchors(D, seen, ~seen), 0.0), abs=1e-9)


def test_a_fit_is_saved_for_the_next_run(tmp_path):
    """With the same arguments and seed only; what follows draws the same numbers."""
    import distances as script

    calls = []

    def function(x, name):
        calls.append(name)
        return x + torch.rand(2)

    x, folder = torch.arange(2.0), tmp_path / "new"
    found = [(script.phylogeny.once(folder, 0, function, x, "a"), torch.rand(1)) for _ in range(2)]
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    for seed, *arguments in ((0, x + 1, "a"), (1, x, "a"), (0, x, "b")):
        script.phylogeny.once(folder, seed, function, *arguments)
    assert calls == ["a", "a", "a", "b"]


@pytest.mark.usefixtures("float64")
def test_scores_of_known_draws():
    """With one draw the predictive distribution is the noise: a log-density by scipy, and 90% of it in the interval."""
    import distances as script

    df, sigma, log_D = 4.0, 0.1, 0.3 + 0.1 * torch.from_numpy(scipy.stats.t(4.0).rvs(4000, random_state=0))
    draws = torch.full((200, 4000), 0.3), torch.full((200, 1), sigma)
    _, score, covered = script.phylogeny.scores(draws, log_D, df)
    assert torch.allclose(score, torch.from_numpy(scipy.stats.t(df, 0.3, sigma).logpdf(log_D)))
    assert abs(covered.mean() - 0.9) < 0.02
