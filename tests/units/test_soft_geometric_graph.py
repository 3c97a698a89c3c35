"""Random geometric graphs: the law of independent edges, in every geometry, with padding, batches and Pyro's idioms."""

import itertools
import math

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from tests.cases import MANIFOLDS, TEST_FAILURE_RATE, lorentz
from tests.units.test_distance_matrix import BareManifold

G = ph.geometry
pytestmark = pytest.mark.usefixtures("float64")

#: Each with its dimension.
SPACES = {
    "h1": (lorentz, 1),
    "h2": (lambda: lorentz(4.0), 2),
    "flat": (lambda: geoopt.Euclidean(1), 3),
    **MANIFOLDS,
}


def nodes(name, *shape, seed=1):
    make, n = SPACES[name]
    v = torch.randn(*shape, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (M := make()), G.exp0(M, v)


def graph(name="h2", *shape, radius=1.5, temperature=0.7, **settings):
    M, x = nodes(name, *(shape or (5,)))
    return hdist.SoftGeometricGraph(x, radius, temperature, M, **settings)


def adjacency(n, edges):
    A = torch.zeros(n, n)
    for i, j in edges:
        A[i, j] = A[j, i] = 1.0
    return A


def every_graph(n):
    pairs = list(itertools.combinations(range(n), 2))
    return torch.stack(
        [adjacency(n, itertools.compress(pairs, bits)) for bits in itertools.product((0, 1), repeat=len(pairs))]
    )


@pytest.mark.parametrize("name", SPACES)
def test_edges_are_independent_bernoullis_of_distance(name):
    """Over all graphs of four nodes: an explicit loop over the pairs, mass one, and the mean and entropy."""
    d = graph(name, 4)
    graphs = every_graph(4)
    assert graphs.shape == (64, 4, 4)
    exact = torch.zeros(64)
    for i, j in itertools.combinations(range(4), 2):
        logit = (1.5 - G.distance(d.manifold, d.x[i], d.x[j])) / 0.7
        exact += dist.Bernoulli(logits=logit).log_prob(graphs[:, i, j])
    found = d.log_prob(graphs)
    assert torch.allclose(found, exact, rtol=1e-12)
    mass = found.exp()
    assert torch.allclose(mass.sum(), torch.tensor(1.0), rtol=1e-12)
    mean = (mass[:, None, None] * graphs).sum(0)
    assert torch.allclose(d.probs, mean, rtol=1e-12)
    assert torch.allclose(d.mean, mean, rtol=1e-12)
    assert torch.allclose(d.variance, (mass[:, None, None] * (graphs - mean).square()).sum(0), rtol=1e-12)
    assert torch.allclose(d.entropy(), -(mass * found).sum(), rtol=1e-12)


def test_a_distance_is_all_that_is_needed():
    d = hdist.SoftGeometricGraph(torch.tensor([[0.0, 0.0], [1.0, 2.0]]), 3.0, 1.0, BareManifold(1))
    assert d.probs.tolist() == [[0.0, 0.5], [0.5, 0.0]]
    assert d.edge_logits(torch.tensor([[0, 1]])).tolist() == [0.0]


@pytest.mark.parametrize("name", ["h2", "h2xh2xr"])
def test_samples_follow_the_probabilities(name):
    """The frequency of each edge and of each two, within Bernstein's bound."""
    d = graph(name, 2, 6, mask=torch.arange(6) < torch.tensor([[6], [4]]))
    A = d.sample((draws := 4000,))
    assert A.shape == (draws, 2, 6, 6)
    assert d.support.check(A).all()
    i, j = torch.triu_indices(6, 6, 1)
    edges, p = A[:, 0, i, j], d.probs[0, i, j]
    both = (edges.unsqueeze(-1) * edges.unsqueeze(-2)).mean(0).masked_select(~torch.eye(15, dtype=torch.bool))
    product = torch.outer(p, p).masked_select(~torch.eye(15, dtype=torch.bool))
    found, exact = torch.cat([A.mean(0).flatten(), both]), torch.cat([d.probs.flatten(), product])
    unlikely = math.log(2 * len(exact) / TEST_FAILURE_RATE)
    bound = (2 * exact * (1 - exact) * unlikely / draws).sqrt() + unlikely / (3 * draws)
    assert ((found - exact).abs() <= bound).all()


def test_nodes_have_no_order_and_no_place():
    """Permuted nodes have the permuted graph's density, and translated ones the same."""
    d = graph(radius=torch.tensor(1.2))
    A, order = d.sample(), torch.tensor([3, 0, 4, 1, 2])
    permuted = hdist.SoftGeometricGraph(d.x[order], 1.2, 0.7, d.manifold)
    assert torch.allclose(permuted.log_prob(A[order][:, order]), d.log_prob(A), rtol=1e-13)
    moved = G.translate(d.manifold, G.exp0(d.manifold, torch.tensor([1.0, -2.0])), d.x)
    assert torch.allclose(hdist.SoftGeometricGraph(moved, 1.2, 0.7, d.manifold).logits, d.logits, rtol=1e-12)


def test_padding_changes_nothing():
    """Any points there leave value and gradients as they were, bit for bit; theirs are zero, and so are their edges."""
    (M, x), (_, other) = nodes("h2", 5), nodes("h2", 3, seed=2)
    A = adjacency(5, [(0, 1), (2, 4)])
    padded_A = torch.nn.functional.pad(A, (0, 3, 0, 3))
    found = []
    for extra in (other, x[:3], 3 * [x[0]]):
        x = x.detach().requires_grad_()
        r, t = torch.tensor([1.5, 0.7], requires_grad=True).unbind()
        padding = (torch.stack(list(extra))).detach().requires_grad_()
        d = hdist.SoftGeometricGraph(torch.cat([x, padding]), r, t, M, torch.arange(8) < 5)
        log_prob = d.log_prob(padded_A)
        *gradients, none = torch.autograd.grad(log_prob + d.entropy() + d.probs.sum(), (x, r, t, padding))
        assert none.eq(0).all()
        assert d.sample((20,))[:, :, 5:].eq(0).all()
        found.append([log_prob.detach(), *gradients])
    assert all(torch.equal(a, b) for others in found[1:] for a, b in zip(found[0], others, strict=True))
    bare = hdist.SoftGeometricGraph(x, 1.5, 0.7, M)
    assert torch.allclose(bare.log_prob(A), found[0][0], rtol=1e-13)
    with pytest.raises(ValueError, match="padded nodes"):
        d.log_prob(
            padded_A + torch.nn.functional.pad(torch.zeros(6, 6), (2, 0, 2, 0)).index_fill(0, torch.tensor(7), 1)
        )


def test_far_and_certain_pairs_keep_their_digits():
    """Where probabilities round to 0 and to 1."""
    M = lorentz()
    x = G.exp0(M, torch.tensor([[0.0, 0.0], [1.0, 0.0], [-300.0, 0.0]])).requires_grad_()
    d = hdist.SoftGeometricGraph(x, 3.0, 0.05, M)  # log-odds 40, -5940 and -5960
    full = d.log_prob(1 - torch.eye(3))
    assert torch.allclose(full, torch.tensor(-5940.0 - 5960.0), rtol=1e-14)
    (gradient,) = torch.autograd.grad(full, x)
    assert gradient.isfinite().all()
    one = adjacency(3, [(0, 1)])
    assert torch.allclose(d.log_prob(one), -torch.exp(torch.tensor(-40.0)), rtol=1e-6)


def test_gradients_reach_every_argument():
    """Nodes, radius, temperature and curvature, against differences."""
    A = graph().sample()
    v = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))

    def log_prob(v, radius, temperature, k):
        M = geoopt.Lorentz()
        del M.k
        M.k = k
        d = hdist.SoftGeometricGraph(G.exp0(M, v), radius, temperature, M)
        return d.log_prob(A), d.edge_logits(torch.tensor([[0, 1], [3, 2]]))

    inputs = [value.requires_grad_() for value in (v, torch.tensor(1.5), torch.tensor(0.7), torch.tensor(2.0))]
    assert torch.autograd.gradcheck(log_prob, inputs)


def test_batches_broadcast():
    """Of nodes, radius, temperature, mask and k; member by member, and expanded."""
    ks = torch.tensor([[1.0], [4.0], [0.5]])
    M, mask = geoopt.Lorentz(ks), torch.arange(5) < torch.tensor([[[4]], [[5]]])
    x = G.exp0(M, torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(3)))
    radius, temperature = torch.tensor([1.0, 2.0, 1.5]), torch.tensor([[0.5], [0.9]])
    d = hdist.SoftGeometricGraph(x, radius, temperature, M, mask)
    assert (d.batch_shape, d.event_shape) == ((2, 3), (5, 5))
    A, pairs = d.sample((7,)), torch.tensor([[0, 1], [3, 2], [1, 4]])
    assert (A.shape, d.logits.shape, d.edge_logits(pairs).shape) == ((7, 2, 3, 5, 5), (2, 3, 5, 5), (2, 3, 3))
    assert torch.allclose(d.edge_logits(pairs), d.logits[..., pairs[:, 0], pairs[:, 1]], rtol=1e-12)
    wide = d.expand([4, 2, 3])
    B = wide.sample()
    assert B.shape == (4, 2, 3, 5, 5)
    assert len(B.reshape(24, 25).unique(dim=0)) > 12
    assert torch.allclose(wide.log_prob(B), d.log_prob(B), rtol=1e-12)
    assert wide.edge_logits(pairs).shape == (4, 2, 3, 3)
    assert wide.log_prob(A[0]).shape == wide.entropy().shape == (4, 2, 3)
    for i, j in itertools.product(range(2), range(3)):
        one = hdist.SoftGeometricGraph(x[j], radius[j], temperature[i, 0], lorentz(ks[j].item()), mask[i, 0])
        assert torch.allclose(one.log_prob(A[:, i, j]), d.log_prob(A)[:, i, j], rtol=1e-12)
    origins, one, ones = G.origin(lorentz(), 2).expand(5, 3), torch.tensor(1.0), torch.ones(4)
    for alone in (
        (origins, one, one, geoopt.Lorentz(torch.ones(4, 1))),
        (origins.expand(4, 5, 3), one, one),
        (origins, ones, one),
        (origins, one, ones),
        (origins, one, one, None, torch.ones(4, 5, dtype=torch.bool)),
    ):
        of_one = hdist.SoftGeometricGraph(*alone)
        assert of_one.batch_shape == of_one.sample().shape[:-2] == of_one.log_prob(torch.zeros(5, 5)).shape == (4,)
    shapes = {"x": x.shape, "radius": radius.shape, "temperature": temperature.shape, "mask": mask.shape}
    assert hdist.SoftGeometricGraph.infer_shapes(**shapes) == (d.batch_shape, d.event_shape)


def test_in_a_model():
    """Observed in a plate, masked, made one event, and drawn by Predictive."""
    M, v = lorentz(), torch.randn(4, 5, 2)
    d = hdist.SoftGeometricGraph(G.exp0(M, v), 1.0, 0.5, M)
    A = d.sample()

    def model(A=None):
        radius = pyro.sample("radius", dist.LogNormal(0.0, 0.3))
        with pyro.plate("graphs", 4):
            return pyro.sample("A", hdist.SoftGeometricGraph(d.x, radius, 0.5, M), obs=A)

    trace = pyro.poutine.trace(pyro.poutine.condition(model, {"radius": torch.tensor(1.0)})).get_trace(A)
    trace.compute_log_prob()
    assert torch.allclose(trace.nodes["A"]["log_prob"], d.log_prob(A))
    assert pyro.infer.Predictive(model, num_samples=3)()["A"].shape == (3, 4, 5, 5)
    assert torch.equal(d.mask(torch.arange(4) < 2).log_prob(A), d.log_prob(A) * (torch.arange(4) < 2))
    assert torch.allclose(d.to_event(1).log_prob(A), d.log_prob(A).sum())
    guide = pyro.infer.autoguide.AutoNormal(model)
    assert pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO()).step(A) > 0
    assert not d.has_rsample
    assert not d.has_enumerate_support
    with pytest.raises(NotImplementedError):
        d.enumerate_support()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16])
def test_zeros_and_ones_of_every_dtype(dtype):
    """Unsigned integers have no -1."""
    d = graph()
    A = adjacency(5, [(0, 1), (2, 4)])
    assert torch.equal(d.log_prob(A.to(dtype)), d.log_prob(A))


def test_support_names_what_is_wrong():
    d = graph()
    A = adjacency(5, [(0, 1), (2, 4)])
    wrong = [("not symmetric", A.triu()), ("diagonal", A + torch.eye(5))]
    wrong += [("other than 0 and 1", entry * A) for entry in (0.5, -1.0, 2.0, math.nan)]
    assert d.support.check(torch.stack([A, *(value for _, value in wrong)])).tolist() == [True] + 6 * [False]
    wrong += [("shape of an adjacency matrix", value) for value in (A[:4, :4], torch.zeros(6, 6))]
    assert d.support.event_dim == 2
    assert d.support.is_discrete
    for what, value in wrong:
        with pytest.raises(ValueError, match=what):
            d.log_prob(value)


def test_errors():
    M, x = nodes("h2", 5)
    make = hdist.SoftGeometricGraph
    off = 2 * x
    for call, error, parts in [
        (lambda: make(x, 0.0, 1.0, M), ValueError, ("radius = 0", "> 0", "softplus")),
        (lambda: make(x, 1.0, torch.tensor([0.1, -2.0]), M), ValueError, ("temperature = -2", "> 0", "softplus")),
        (lambda: make(x, 1.0, True, M), TypeError, ("temperature is True",)),
        (lambda: make(x, torch.tensor(1.0, dtype=torch.float32), 1.0, M), TypeError, ("radius is torch.float32",)),
        (lambda: make(off, 1.0, 1.0, M), ValueError, ("x is not on", "exp0")),
        (lambda: make(x[0], 1.0, 1.0, M), ValueError, ("one point",)),
        (lambda: make(x, 1.0, 1.0, M, torch.ones(5)), TypeError, ("mask", "float64", "mask.bool()")),
        (lambda: make(x, 1.0, 1.0, M, torch.ones(4, dtype=torch.bool)), ValueError, ("mask", "(4,)", "5 nodes")),
        (lambda: make(x, 1.0, 1.0, M, torch.ones(6, dtype=torch.bool)), ValueError, ("mask", "(6,)", "5 nodes")),
        (lambda: make(x, 1.0, 1.0, M, torch.tensor(True)), ValueError, ("mask", "()", "5 nodes")),
        (lambda: make(x.expand(2, 5, 3), torch.ones(3), 1.0, M), ValueError, ("x (2,)", "radius (3,)")),
        (lambda: make(x, 1.0, 1.0, M).edge_logits(torch.tensor([[0.0, 1.0]])), TypeError, ("pairs", "int64")),
        (lambda: make(x, 1.0, 1.0, M).edge_logits(torch.tensor([0, 1])), ValueError, ("pairs", "(2,)", "(E, 2)")),
        (lambda: make(x, 1.0, 1.0, M).edge_logits(torch.tensor([[0, 1, 2]])), ValueError, ("(1, 3)", "(E, 2)")),
        (
            lambda: make(x, 1.0, 1.0, M).edge_logits(torch.tensor([[0, 5]])),
            ValueError,
            ("holds 5", "0 to 4", "renumber"),
        ),
        (lambda: make(x, 1.0, 1.0, M).edge_logits(torch.tensor([[-1, 2]])), ValueError, ("holds -1", "0 to 4")),
        (lambda: make(x, 1.0, 1.0, M).log_prob([[0.0]]), TypeError, ("value is [[0.0]]", "torch.as_tensor")),
        (lambda: make(x, 1.0, 1.0, M).log_prob(torch.zeros(5, 5) + 0j), TypeError, ("complex", "adjacency matrix")),
    ]:
        with pytest.raises(error) as info:
            call()
        assert all(part in str(info.value) for part in parts), info.value
    assert make(x, 1.0, 1.0, M).edge_logits(torch.zeros(0, 2, dtype=torch.int64)).shape == (0,)
    with pyro.validation_enabled(False):
        with pytest.raises(IndexError):  # of torch
            make(x, 1.0, 1.0, M).edge_logits(torch.tensor([[0, 5]]))
        assert make(off, -1.0, 1.0, M).log_prob(torch.zeros(5, 5)).isfinite()
        with pytest.raises(ValueError, match="radius"):
            make(x, -1.0, 1.0, M, validate_args=True)
