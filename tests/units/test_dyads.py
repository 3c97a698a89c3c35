"""Minibatches of dyads: weighted sums over batches have the mean of the sums over all pairs and over all nodes."""

import itertools
import math

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist

pytestmark = pytest.mark.usefixtures("float64")

NODES = 9
EDGES = torch.tensor([[0, v] for v in range(1, 6)] + [[1, 2], [7, 6]])  # 8 has none
MISSING = torch.tensor([[0, 6], [4, 3]])
ALL = {tuple(pair) for pair in itertools.combinations(range(NODES), 2)}
FREE = ALL - {tuple(sorted(pair)) for pair in torch.cat([EDGES, MISSING]).tolist()}


def sampler(num_edges=3, num_non_edges=5, seed=0):
    return ph.datasets.DyadSampler(EDGES, NODES, num_edges, num_non_edges, missing=MISSING, seed=seed)


def assert_means(values, expected):
    """Checks the mean of the rows of ``values``, within five standard errors."""
    error = values.std(0) / len(values) ** 0.5
    assert ((values.mean(0) - expected).abs() <= 5 * error + 1e-9).all(), (values.mean(0), expected, error)


@pytest.mark.parametrize("sizes", [(3, 5), (None, 5), (3, None), (None, None)])
def test_batches_are_edges_and_uniform_non_edges(sizes):
    batch = sampler(*sizes).sample()
    count = [len(EDGES) if sizes[0] is None else 3, len(FREE) if sizes[1] is None else 5]
    assert batch.labels.tolist() == [1.0] * count[0] + [0.0] * count[1]
    assert torch.equal(batch.nodes[batch.rows], batch.pairs)
    assert batch.nodes.tolist() == sorted(set(batch.pairs.flatten().tolist()))
    assert batch.weights[batch.labels == 1].sum() == pytest.approx(len(EDGES))
    assert batch.weights[batch.labels == 0].sum() == pytest.approx(len(FREE))
    many = sampler(1000, 40_000).sample()
    free, number = many.pairs[many.labels == 0].unique(dim=0, return_counts=True)
    assert {tuple(pair) for pair in free.tolist()} == FREE
    p = 1 / len(FREE)
    assert ((number - 40_000 * p).abs() < 5 * (40_000 * p * (1 - p)) ** 0.5).all()


def test_the_weighted_likelihood_and_its_gradient_are_those_of_all_pairs():
    M, R = geoopt.Lorentz(), torch.tensor(0.5, requires_grad=True)
    v = torch.randn(NODES, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def loss_and_gradient(batch):
        d = ph.geometry.distance(M, *ph.geometry.exp0(M, v)[batch.pairs].unbind(1))
        loss = -(batch.weights * dist.Bernoulli(logits=R - d).log_prob(batch.labels)).sum()
        return torch.cat([loss.reshape(1), *(g.flatten() for g in torch.autograd.grad(loss, [R, v]))]).detach()

    truth = torch.zeros(NODES, NODES).index_put((*EDGES.T,), torch.tensor(1.0))
    truth = truth + truth.mT
    i, j = torch.tensor(sorted(ALL)).T
    seen = torch.tensor([tuple(pair) not in {(0, 6), (3, 4)} for pair in sorted(ALL)])
    logits = R - ph.geometry.distance_matrix(M, ph.geometry.exp0(M, v))[i, j]
    full = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth[i, j], reduction="none")[seen].sum()
    expected = torch.cat([full.reshape(1), *(g.flatten() for g in torch.autograd.grad(full, [R, v]))]).detach()
    draws = sampler()
    assert_means(torch.stack([loss_and_gradient(draws.sample()) for _ in range(200)]), expected)
    # Two processes with seeds of their own, whose gradients DDP averages, are one with a doubled batch.
    two = [sampler(seed=seed).sample() for seed in (1, 2)]
    merged = [torch.cat(each) for each in zip(*two, strict=True)]
    one = ph.datasets.Dyads(*merged)._replace(weights=merged[2] / 2)
    torch.testing.assert_close(sum(map(loss_and_gradient, two)) / 2, loss_and_gradient(one))


def test_with_the_offset_the_score_is_zero_at_the_truth():
    """Of the labels of drawn pairs: edges at the rate of edges, non-edges at theirs."""
    draws = sampler()
    batch, logits = draws.sample(), torch.linspace(-9, 3, 20)
    edge, other = (1 / batch.weights[batch.labels == label][0] for label in (1, 0))
    p, fitted = logits.sigmoid(), (logits + draws.offset).sigmoid()
    torch.testing.assert_close(edge * p * (1 - fitted), other * (1 - p) * fitted)
    assert draws.offset == pytest.approx(math.log((3 / len(EDGES)) / (5 / len(FREE))))


@pytest.mark.parametrize("sizes", [(2, 2), (None, 1), (1, None)])
def test_node_weights_are_inverse_probabilities(sizes):
    draws = sampler(*sizes)
    seen = torch.zeros(500, NODES)
    for row in seen:
        batch = draws.sample()
        row[batch.nodes] = 1.0
    torch.testing.assert_close(batch.node_weights, 1 / draws.node_probabilities[batch.nodes])
    assert_means(seen, draws.node_probabilities)
    with_edges = EDGES.unique()
    if sizes[0] is None:
        assert (draws.node_probabilities[with_edges] == 1).all()


def test_node_probabilities_count_batches():
    """Of all batches of one edge and one non-edge, exactly."""
    batches = [torch.cat([edge, torch.tensor(free)]).unique() for edge in EDGES for free in FREE]
    expected = torch.cat(batches).bincount(minlength=NODES).double() / len(batches)
    torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(sampler(1, 1).node_probabilities, expected, rtol=1e-15, atol=0)
    assert sampler(None, None).node_probabilities.dtype == torch.float64
    assert ph.datasets.DyadSampler(EDGES, NODES, missing=torch.empty(0, 2)).offset == 0


@pytest.mark.parametrize("weighted", [True, False])
def test_the_divergence_of_weighted_nodes_is_that_of_all(weighted):
    """Exact divergences, of a plate of nodes that are endpoints; with the plate's own scale hubs count too often."""
    loc = torch.linspace(3.0, 0.0, NODES)  # hubs are far from the prior

    def model(nodes):
        with pyro.plate("nodes", NODES, subsample=nodes):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    def guide(nodes):
        with pyro.plate("nodes", NODES, subsample=nodes):
            pyro.sample("z", dist.Normal(loc if nodes is None else loc[nodes], 1.0))

    def loss(batch):
        weights = batch.node_weights * len(batch.nodes) / NODES
        with ph.infer.scale_sites({"z": weights} if weighted else {}):
            return TraceMeanField_ELBO().loss(model, guide, batch.nodes)

    draws = sampler(2, 2)
    with pyro.validation_enabled(False):
        losses = torch.tensor([loss(draws.sample()) for _ in range(150)])
    full = torch.tensor(TraceMeanField_ELBO().loss(model, guide, None))
    if weighted:
        assert_means(losses, full)
    else:
        assert losses.mean() > full + 5 * losses.std() / len(losses) ** 0.5


@pytest.mark.parametrize("kind", [ph.infer.AutoWrappedNormal, AutoNormal])
def test_sites_are_scaled_in_model_and_guide(kind):
    M = geoopt.Lorentz()

    def model(nodes):
        pyro.sample("s", dist.LogNormal(0.0, 1.0))
        with pyro.plate("nodes", NODES, subsample=nodes):
            pyro.sample("z", hdist.WrappedNormal(ph.geometry.origin(M, 2), torch.ones(2), M))

    batch, guide = sampler().sample(), kind(model)
    weights = batch.node_weights * len(batch.nodes) / NODES
    Trace_ELBO().loss(model, guide, batch.nodes)
    with ph.infer.scale_sites({"z": weights}):
        q = poutine.trace(guide).get_trace(batch.nodes)
        p = poutine.trace(poutine.replay(model, trace=q)).get_trace(batch.nodes)
    for trace in (q, p):
        torch.testing.assert_close(trace.nodes["z"]["scale"], batch.node_weights)
        assert trace.nodes["s"]["scale"] == 1


def test_bad_input():
    make = ph.datasets.DyadSampler
    with pytest.raises(ValueError, match=r"num_edges = 0.*None for all"):
        make(EDGES, NODES, 0)
    with pytest.raises(ValueError, match=r"holds \(0, 6\)|\(7, 6\)"):
        make(EDGES, 6)
    with pytest.raises(ValueError, match=r"again"):
        make(EDGES, NODES, missing=torch.tensor([[1, 0]]))
    with pytest.raises(ValueError, match=r"3 nodes.*no non-edge"):
        make(torch.tensor([[0, 1], [0, 2], [1, 2]]), 3)
    for scale in (torch.tensor([1.0, -0.5]), torch.tensor([1.0, 0.0]), -0.5, 0.0):
        with pytest.raises(ValueError, match=r"'z'.* (-0.5|0|0.0), but must be > 0"):
            ph.infer.scale_sites({"z": scale})
    for scale in (math.inf, math.nan):
        with pytest.raises(ValueError, match=r"'z'.*finite"):
            ph.infer.scale_sites({"z": torch.tensor([1.0, scale])})
    with pytest.raises(TypeError, match=r"dictionary"):
        ph.infer.scale_sites(2.0)
