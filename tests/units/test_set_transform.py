"""Flows of sets: equivariance, padding, masks that travel, and a Pyro model of sets of different sizes."""

import copy
import pickle
from functools import partial

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from tests.cases import lorentz, shaken

M4 = lorentz(4.0)
MANIFOLDS = {
    "whc": (M4, 3, HT.wrapped_hyperboloid_coupling),
    "realnvp": (geoopt.Euclidean(1), 2, HT.tangent_coupling),
    "tc-product": (geoopt.ProductManifold((lorentz(2.0), 3), (geoopt.Euclidean(1), 2)), 4, HT.tangent_coupling),
}
MASK = torch.tensor([[True, False, True, True, False], [False, False, False, False, True], [True] * 5, [False] * 5])
AttentionNN = partial(HT.AttentionNN, hidden_dim=8, heads=2)


def set_flow(M=M4, n=3, coupling=HT.wrapped_hyperboloid_coupling, hypernet=AttentionNN, **kwargs):
    flow = ph.flows.coupling_flow(n, 2, partial(coupling, hypernet=hypernet), manifold=M, **kwargs)
    return HT.SetTransform(shaken(flow, 0.4)) if not kwargs else shaken(flow, 0.4)


def sets(*batch, M=M4, n=3, seed=0):
    v = torch.randn(*batch, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ph.geometry.exp0(M, v)


def image(t, x):
    y = t(x)
    return y, t.log_abs_det_jacobian(x, y)


def close(a, b):
    return torch.allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.fixture(params=MANIFOLDS)
def case(request):
    M, n, coupling = MANIFOLDS[request.param]
    return set_flow(M, n, coupling), sets(4, 5, M=M, n=n)


def test_permuted_points_have_permuted_images_and_the_same_log_det(case):
    t, x = case
    order = torch.tensor([3, 0, 4, 1, 2])
    for one, other in ((t, t), (t.condition(MASK), t.condition(MASK[:, order]))):
        y, log_det = image(one, x)
        permuted, same = image(other, x[:, order])
        assert close(permuted, y[:, order])
        assert close(same, log_det)
        assert close(other.inv(permuted.clone()), x[:, order])


def test_points_of_a_set_move_each_other(case):
    t, x = case
    moved = x.clone()
    moved[:, 0] = x[:, 1]
    assert ((t(moved) - t(x))[:, 1:].abs().amax(-1) > 1e-6).all()


GARBAGE = {
    "another point": lambda x: x.flip(0, 1),
    "far": lambda x: ph.geometry.exp0(M4, torch.full_like(x[..., 1:], 1e2)),
    "zeros": torch.zeros_like,
    "NaN": lambda x: torch.full_like(x, torch.nan),
    "infinite": lambda x: torch.full_like(x, torch.inf),
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_padding_changes_nothing(garbage):
    t, x = set_flow(), sets(4, 5)
    real = MASK[..., None]
    x = torch.where(real, x, GARBAGE[garbage](x)).requires_grad_()
    masked = t.condition(MASK)
    for way in (masked, masked.inv):
        y, log_det = image(way, x)
        assert torch.equal(y[~MASK].nan_to_num(7.0), x[~MASK].nan_to_num(7.0))  # as they were, to the bit
        parameters = list(t.parameters())
        total = torch.where(real, y, 0.0).square().sum() + log_det.sum()
        *found, at_x = torch.autograd.grad(total, [*parameters, x])
        alone = [image(t if way is masked else t.inv, x[i][MASK[i]][None].detach().requires_grad_()) for i in range(3)]
        for i, (points, value) in enumerate(alone):
            assert close(points[0], y[i][MASK[i]])
            assert close(value[0], log_det[i])
        assert log_det[3] == 0  # a set without points
        total = sum(points.square().sum() + value.sum() for points, value in alone)
        for a, b in zip(torch.autograd.grad(total, parameters), found, strict=True):
            assert close(a, b)
        assert bool((at_x[~MASK] == 0).all())
        assert bool(at_x.isfinite().all())


@pytest.mark.parametrize("size", [1, 100])
def test_sets_of_any_size(size):
    t = set_flow()
    x = sets(2, size)
    y, log_det = image(t, x)
    assert y.shape == x.shape
    assert log_det.shape == (2,)
    assert torch.allclose(t.inv(y.clone()), x, atol=1e-8)
    assert close(t(x[0]), y[0])


def test_masks_and_sets_broadcast():
    t, x = set_flow(), sets(5)
    y, log_det = image(t.condition(MASK), x)
    assert y.shape == (4, 5, 4)
    assert log_det.shape == (4,)
    assert t.condition(MASK).forward_shape(x.shape) == y.shape
    assert t.condition(MASK[0])(sets(2, 3, 5)).shape == t.condition(MASK[0]).inverse_shape((2, 3, 5, 4)) == (2, 3, 5, 4)
    assert t.condition(MASK[:0])(x).shape == (0, 5, 4)


def test_points_may_be_matrices():
    M = geoopt.SymmetricPositiveDefinite()
    t = set_flow(M, 3, HT.tangent_coupling).condition(MASK)
    x = sets(4, 5, M=M)
    y, log_det = image(t, x)
    assert y.shape == (4, 5, 2, 2)
    assert log_det.shape == (4,)
    assert torch.equal(y[~MASK], x[~MASK])
    assert torch.allclose(t.inv(y.clone()), x)


def test_maps_of_single_points_move_real_points():
    point = HT.Translation(M4, sets(1)[0])
    y, log_det = image(HT.SetTransform(point, MASK), sets(4, 5))
    assert torch.equal(y[MASK], point(sets(4, 5))[MASK])
    assert bool((log_det == 0).all())
    dense = shaken(ph.flows.coupling_flow(3, 2, manifold=M4))
    assert torch.equal(HT.SetTransform(dense, MASK)(sets(4, 5))[MASK], dense(sets(4, 5))[MASK])


def test_a_context_belongs_to_a_point_or_to_a_set():
    conditional, x = set_flow(context_dim=2), sets(4, 5)
    per_set = torch.randn(4, 1, 2, dtype=torch.float64)
    y = HT.SetTransform(conditional.condition(per_set), MASK)(x)
    assert close(y, HT.SetTransform(conditional.condition(per_set.expand(4, 5, 2)), MASK)(x))
    assert not torch.allclose(y[0], HT.SetTransform(conditional.condition(-per_set), MASK)(x)[0])
    garbage = torch.where(MASK[..., None], x, x.flip(0, 1))
    assert close(y[MASK], HT.SetTransform(conditional.condition(per_set), MASK)(garbage)[MASK])
    per_point = torch.randn(4, 5, 2, dtype=torch.float64)
    for network in (conditional, set_flow(context_dim=2, hypernet=None)):
        padded = torch.where(MASK[..., None], per_point, torch.nan).requires_grad_()
        found, exact = (image(HT.SetTransform(network.condition(c), MASK), x) for c in (padded, per_point))
        assert all(map(close, found, exact))
        gradients = torch.autograd.grad(found[0].sum() + found[1].sum(), [padded, *network.parameters()])
        assert all(bool(each.isfinite().all()) for each in gradients)
    many = HT.SetTransform(conditional.condition(torch.zeros(5, 2, dtype=torch.float64)))
    with pytest.raises(ValueError, match=r"context of 5 points.*set of 1"):
        many(sets(4, 1))


def test_the_kit_takes_maps_of_sets():
    layer = HT.tangent_coupling(2, manifold=M4, hypernet=partial(AttentionNN, layers=1))
    t = HT.SetTransform(shaken(layer), MASK[0, :3])
    ph.testing.assert_transform_laws(t, sets(3, 3, n=2))
    t._join = lambda x, y, log_det: (HT.SetTransform._join(t, x, y, log_det)[0], log_det.sum(-1))
    with pytest.raises(ph.testing.LawViolation, match="log_det_matches_autograd"):
        ph.testing.assert_transform_laws(t, sets(3, 3, n=2))


# Masks travel.


def scores(t, x):
    base = hdist.WrappedNormal(ph.geometry.origin(M4, 3), 0.8, M4).expand([5])
    base = base if t.mask is None else base.mask(t.mask)
    return dist.TransformedDistribution(base.to_event(1), [t]).log_prob(x)


def test_own_samples_score_as_stored_points_with_two_masks_at_once():
    t, x = set_flow(), sets(4, 5)
    first, second = t.condition(MASK), t.condition(~MASK)
    y, z = first(x), second(x)
    assert not torch.equal(y, z)
    for own, of in ((y, first), (z, second)):
        assert of.inv(own) is x  # remembered
        assert close(scores(of, own), scores(of, own.clone()))
    mask = MASK.clone()
    edited = t.condition(mask)
    y = edited(x)
    mask[0] = True
    assert close(scores(edited, y), scores(edited, y.clone()))
    edited(x)
    edited.mask = ~MASK
    assert close(edited.inv(y), second.inv(y.clone()))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t)), lambda t: t.with_cache(0)])
def test_copies_keep_the_mask(copied):
    t, x = set_flow().condition(MASK), sets(4, 5)
    y = t(x)
    assert torch.equal(copied(t)(x), y)


def test_masks_are_no_part_of_a_state_dict_and_the_space_is():
    t = set_flow()
    assert t.state_dict().keys() == t.condition(MASK).state_dict().keys()
    assert {id(p) for p in t.parameters()} == {id(p) for p in t.condition(MASK).parameters()} != set()
    with pytest.raises(ValueError, match=r"k=4.*k=1"):
        set_flow(lorentz(1.0)).load_state_dict(t.state_dict())


BAD = {
    "dtype": (lambda t: t.condition(MASK.double()), TypeError, r"float64.*boolean.*mask\.bool"),
    "list": (lambda t: t.condition([True]), TypeError, "boolean tensor"),
    "scalar": (lambda t: t.condition(torch.tensor(True)), ValueError, r"no dimension.*\(\*, N\)"),
    "size": (lambda t: t.condition(MASK[:, :1])(sets(4, 5)), ValueError, r"sets of 1 points.*have 5.*\(\*, 5\)"),
    "batch": (lambda t: t.condition(MASK)(sets(3, 5)), ValueError, r"sets \(3,\).*mask \(4,\).*broadcast"),
    "shape": (lambda t: t.condition(MASK).forward_shape((4, 6, 4)), ValueError, r"5 points.*have 6"),
    "one point": (lambda t: t(sets(1)[0]), ValueError, "maps sets of N points"),
    "off": (lambda t: t.condition(MASK)(torch.ones(4, 5, 4).double()), ValueError, r"9 of 20 events are off"),
    "a set transform": (HT.SetTransform, TypeError, "points of a manifold to itself.*compose"),
    "a chart": (lambda t: HT.SetTransform(HT.ExponentialMap()), TypeError, "points of a manifold to itself"),
    "no context": (lambda t: HT.SetTransform(set_flow(context_dim=2)), TypeError, r"call \.condition\(context\)"),
    "a network": (lambda t: HT.tangent_coupling(2, hypernet=AttentionNN(1, [1, 1])), TypeError, "must make a network"),
    "two networks": (lambda t: HT.tangent_coupling(2, [8], hypernet=AttentionNN), ValueError, r"\[8\].*drop one"),
    "heads": (lambda t: HT.AttentionNN(1, [1, 1], 32, 5), ValueError, "hidden_dim = 32.*heads = 5"),
    "outputs": (lambda t: HT.AttentionNN(1, [1, 0]), ValueError, "param_dims = 0.*at least 1"),
    "one output": (lambda t: HT.AttentionNN(1, 2), TypeError, "param_dims = 2.*list"),
    "input": (lambda t: HT.AttentionNN(2, [1])(torch.ones(4, 3)), ValueError, r"\(4, 3\).*input_dim = 2"),
    "context": (lambda t: HT.AttentionNN(2, [1], context_dim=3)(torch.ones(4, 2)), ValueError, "context_dim = 3"),
    "a network without a mask": (
        lambda t: HT.SetTransform(HT.TangentCoupling(1, torch.nn.Linear(1, 2).double(), M4), MASK)(sets(4, 5)),
        TypeError,
        r"Linear.*mask=.*mask=None",
    ),
    "no sets": (lambda t: t.flow(sets(1)[0]), ValueError, r"\(1,\).*SetTransform"),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_name_the_value_and_the_remedy(name):
    act, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        act(set_flow())


class MeanNN(pyro.nn.DenseNN):
    """A subclass of Pyro's dense network that mixes points."""

    def __init__(self, input_dim, param_dims):
        super().__init__(2 * input_dim, [8], param_dims)
        self.input_dim = input_dim

    def forward(self, x, mask=None):
        mask = torch.ones(x.shape[:-1], dtype=torch.bool) if mask is None else mask
        weight = mask.unsqueeze(-1).to(x.dtype)
        mean = (weight * x).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True).clamp(min=1)
        return super().forward(torch.cat([x, mean.expand_as(x)], -1))


def test_a_network_of_ones_own_sees_the_mask():
    layer = HT.TangentCoupling(1, shaken(MeanNN(1, [2, 2])), M4)
    x = sets(4, 5)
    y = HT.SetTransform(layer, MASK)(x)
    for i in range(3):
        assert close(HT.SetTransform(layer)(x[i][MASK[i]]), y[i][MASK[i]])


# Attention.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_starts_near_the_identity(dtype):
    M = geoopt.Lorentz(torch.tensor(1.0, dtype=dtype))
    flow = ph.flows.coupling_flow(4, 4, partial(HT.wrapped_hyperboloid_coupling, hypernet=HT.AttentionNN), manifold=M)
    x = sets(2, 7, M=M, n=4).to(dtype)
    y = HT.SetTransform(flow.to(dtype))(x)
    assert y.dtype == dtype
    assert 0 < ph.geometry.distance(M, x, y).max() < 0.1


def test_attention_has_second_derivatives():
    network = AttentionNN(2, [1, 1]).double()
    x = torch.randn(3, 2, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda x: network(x, mask=MASK[0, :3]), x.requires_grad_())


# In Pyro.


def test_a_pyro_model_of_padded_sets_is_that_of_sets_one_by_one():
    t, x, mask = set_flow(), sets(3, 5), MASK[:3]

    def model(x, mask):
        pyro.module("sets", t)
        scale = pyro.param("scale", torch.full((3,), 0.8, dtype=torch.float64), constraint=dist.constraints.positive)
        base = hdist.WrappedNormal(ph.geometry.origin(M4, 3), scale, M4).expand(mask.shape).mask(mask).to_event(1)
        with pyro.plate("graphs", len(mask)):
            return pyro.sample("z", dist.TransformedDistribution(base, [t.condition(mask)]), obs=x)

    def loss_and_gradients(batches):
        pyro.clear_param_store()
        losses = [Trace_ELBO().differentiable_loss(model, lambda *_: None, *batch) for batch in batches]
        parameters = [
            value.unconstrained() if hasattr(value, "unconstrained") else value
            for value in (pyro.param(name) for name in pyro.get_param_store())
        ]
        return sum(losses), torch.autograd.grad(sum(losses), parameters)

    alone = [(x[i][mask[i]][None], mask[i][mask[i]][None]) for i in range(3)]
    (found, gradients), (expected, others) = loss_and_gradients([(x, mask)]), loss_and_gradients(alone)
    assert close(found, expected)
    assert all(close(a, b) for a, b in zip(gradients, others, strict=True))
    pyro.clear_param_store()
    svi = SVI(model, lambda *_: None, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    first = svi.step(x, mask)
    assert min(svi.step(x, mask) for _ in range(10)) < first
    z = pyro.poutine.uncondition(model)(x, mask)
    assert z.shape == x.shape
    assert bool(ph.geometry.contains(M4, z).all())
