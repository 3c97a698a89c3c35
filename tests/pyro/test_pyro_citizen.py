"""Pyro's idioms work with these distributions, constraints and manifolds; inference itself is in test_inference."""

import math

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.reparam import TransformReparam
from pyro.nn import PyroModule, PyroParam, PyroSample, pyro_method
from torch.distributions import biject_to, constraints, kl_divergence, transform_to

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic.testing import assert_constraint_laws, noise
from tests.cases import lorentz, shaken

G = ph.geometry
M, FLAT = lorentz(2.0), geoopt.Euclidean(1)
on_manifold = hdist.constraints.on_manifold
each_manifold = pytest.mark.parametrize("manifold", [M, FLAT], ids=["k2", "flat"])


pytestmark = pytest.mark.usefixtures("float64")


def numbers(low, high, *shape):
    return torch.linspace(low, high, math.prod(shape)).reshape(shape)


def locs(*batch, manifold=M):
    return G.exp0(manifold, numbers(-1.5, 1.4, *batch, 2))


def scales(*batch):
    return numbers(0.4, 0.9, *batch, 2)


def flow(manifold=M):
    f = ph.flows.coupling_flow(2, 2, hidden_dims=[8], manifold=manifold).double()
    for layer in f.layers:  # its networks only, not a learnable curvature
        shaken(layer.nn, 0.4)
    return f


def wrapped(loc, scale, manifold=M):
    return hdist.WrappedNormal(loc, scale, manifold)


def wrapped_full(loc, scale, manifold=M):
    tril = torch.diag_embed(scale) + 0.2 * torch.ones(2, 2).tril(-1)
    return hdist.WrappedMultivariateNormal(loc, scale_tril=tril, manifold=manifold)


def pushed(loc, scale, manifold=M):
    return dist.TransformedDistribution(wrapped(loc, scale, manifold), [flow(manifold)])


FAMILIES = {"WN": wrapped, "WMN": wrapped_full, "flow": pushed}
each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))

MANY = geoopt.Lorentz(torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64))
#: How a batch of three comes about: location, scale, manifold.
BATCHES = {
    "loc": lambda: (locs(3), scales(), M),
    "scale": lambda: (locs(), scales(3), M),
    "both": lambda: (locs(3), scales(3), M),
    "crosswise": lambda: (locs(3), scales(1), M),
    "k": lambda: (G.exp0(MANY, torch.tensor([0.3, -0.2])), scales(), MANY),
    "flat": lambda: (locs(3, manifold=FLAT), scales(), FLAT),
}


# Batches


@pytest.mark.parametrize("batch", BATCHES)
@each_family
def test_a_batch_is_of_single_distributions(family, batch):
    """Member i has the density of the distribution of the i-th arguments, and noise of its own; also in plates."""
    loc, scale, manifold = BATCHES[batch]()
    d = family(loc, scale, manifold)
    noise.batch_members_have_own_noise(d, num_samples=64)

    def model():
        with pyro.plate("draws", 5, dim=-2), pyro.plate("members", 3, dim=-1):
            return pyro.sample("x", d)

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    x, log_prob = trace.nodes["x"]["value"], trace.nodes["x"]["log_prob"]
    assert log_prob.shape == (5, 3)
    for i in range(3):
        single = lorentz(float(MANY.k[i])) if manifold is MANY else manifold
        one = family(loc.expand(3, -1)[i], scale.expand(3, 2)[i], single)
        assert torch.allclose(one.log_prob(x[:, i].clone()), log_prob[:, i], atol=1e-9)


@each_family
def test_expand(family):
    """The class, the parameters and the density stay; each member has its own noise."""
    d = family(locs(), scales())
    e = d.expand([4, 3])
    assert type(e) is type(d)
    assert (e.batch_shape, e.event_shape, e.expand([2, 4, 3]).batch_shape) == ((4, 3), (3,), (2, 4, 3))
    x = e.rsample()
    assert x.reshape(12, 3).unique(dim=0).shape == (12, 3)
    assert torch.allclose(e.log_prob(x), d.log_prob(x.clone()), atol=1e-9)
    if family is not pushed:
        assert e.mean.shape == (4, 3, 3)
        assert e.manifold is d.manifold
        assert e.scale.shape == (4, 3, 2) if family is wrapped else e.covariance_matrix.shape == (4, 3, 2, 2)


@pytest.mark.parametrize(
    ("cls", "shapes", "expected"),
    [
        (hdist.WrappedNormal, {"loc": (3,), "scale": (2,)}, ((), (3,))),
        (hdist.WrappedNormal, {"loc": (5, 1, 3), "scale": (4, 2)}, ((5, 4), (3,))),
        (hdist.WrappedNormal, {"loc": (5, 3), "scale": ()}, ((5,), (3,))),
        (hdist.WrappedMultivariateNormal, {"loc": (5, 3), "scale_tril": (2, 2)}, ((5,), (3,))),
        (hdist.WrappedMultivariateNormal, {"loc": (3,), "covariance_matrix": (4, 2, 2)}, ((4,), (3,))),
    ],
)
def test_infer_shapes(cls, shapes, expected):
    assert cls.infer_shapes(**{name: torch.Size(shape) for name, shape in shapes.items()}) == expected


# Supports


@each_family
def test_support(family):
    d = family(locs(), scales())
    assert d.has_rsample
    assert d.support.event_dim == 1
    assert d.support == on_manifold(lorentz(2.0))
    assert hash(d.support) == hash(on_manifold(lorentz(2.0)))
    assert d.support not in (on_manifold(lorentz(1.0)), on_manifold(FLAT))
    x = d.sample()
    candidates = torch.stack([x, 1.001 * x, x * float("nan"), -x])
    assert d.support.check(candidates).tolist() == [True, False, False, False]


@pytest.mark.parametrize("manifold", [M, ph.manifolds.Lorentz(2.0, learnable=True), FLAT], ids=repr)
def test_constraints_are_registered(manifold):
    """Both registries give the exponential map, whose log-determinant is with respect to Riemannian volume."""
    v = torch.tensor([0.3, -1.2])
    x = G.exp0(manifold, v).detach()
    outside = x * (float("nan") if manifold is FLAT else 1.01)
    assert_constraint_laws(on_manifold(manifold), x, outside)
    for registry in (biject_to, transform_to):
        t = registry(on_manifold(manifold))
        assert t == HT.ExponentialMap(manifold)
        assert t.domain.event_dim == 1
        assert torch.allclose(t(v), x)
        assert torch.allclose(t.log_abs_det_jacobian(v, t(v)), G.log_volume(manifold, v))


#: Each makes a transform that equals itself, and none of the others.
TRANSFORMS = [
    lambda: HT.ExponentialMap(geoopt.Euclidean(1)),
    lambda: HT.ExponentialMap(lorentz(1.0)),
    lambda: HT.ExponentialMap(lorentz(2.0)),
    lambda: HT.ExponentialMap(lorentz(2.0), locs()),
    lambda: HT.ExponentialMap(lorentz(2.0), locs(3)[1]),
    lambda: HT.Translation(lorentz(2.0), locs()),
    lambda: HT.Translation(lorentz(2.0), locs(3)[1]),
    lambda: HT.Translation(lorentz(4.0), locs(manifold=lorentz(4.0))),
    lambda: HT.Reflection(lorentz(2.0), locs()),
    lambda: HT.Reflection(lorentz(2.0), locs(3)[1]),
    lambda: HT.Reflection(lorentz(4.0), locs()),
]


def test_equality_is_by_value():
    """Of manifold and location; torch's KL rule relies on it."""
    some, others = ([make() for make in TRANSFORMS] for _ in range(2))
    for i, one in enumerate(some):
        assert [one == other for other in others] == [i == j for j in range(len(others))]
        assert [one.inv == other.inv for other in others] == [i == j for j in range(len(others))]


# Divergences, means, reparametrisation


@pytest.mark.parametrize("family", [wrapped, wrapped_full])
@each_manifold
def test_mean_and_mode_are_fresh_copies(family, manifold):
    """An optimiser that edits what it was given does not move the distribution."""
    d, t = family(locs(manifold=manifold), scales(), manifold), biject_to(on_manifold(manifold))
    assert torch.equal(d.mean, d.loc)
    assert torch.equal(d.mode, d.loc)
    for value in (d.mean, d.mode, t.inv(d.mean), t(t.inv(d.mean))):
        value.fill_(7.0)
    assert torch.equal(d.loc, locs(manifold=manifold))


def test_kl_of_delta_includes_its_log_density():
    """Chart autoguides keep the density of their auxiliary variable there."""
    q, p = dist.Delta(locs(), log_density=torch.tensor(0.7), event_dim=1), wrapped(locs(), scales())
    assert torch.allclose(kl_divergence(q, p), 0.7 - p.log_prob(locs()))


@pytest.mark.parametrize(
    ("family", "tangent"),
    [
        (wrapped, lambda d: dist.Normal(0.0, d.scale).to_event(1)),
        (wrapped_full, lambda d: dist.MultivariateNormal(torch.zeros(2), scale_tril=d.scale_tril)),
    ],
)
def test_kl_of_the_same_location(family, tangent):
    """That of the normals of the tangent space."""
    p, q = (family(locs(), scale) for scale in (scales(), 1.5 * scales().flip(0)))
    assert torch.allclose(kl_divergence(p, q), kl_divergence(tangent(p), tangent(q)))


@each_family
def test_transform_reparam(family):
    """The latent becomes its normal base: the joint density moves by the Jacobian only."""
    d = family(locs(), scales())
    model = pyro.poutine.reparam(lambda: pyro.sample("z", d), {"z": TransformReparam()})
    trace = pyro.poutine.trace(model).get_trace()
    x, z = trace.nodes["z_base"]["value"], trace.nodes["z"]["value"]
    log_det = 0.0
    for t in d.transforms:
        log_det, x = log_det + t.log_abs_det_jacobian(x, t(x)), t(x)
    assert torch.allclose(x, z)
    assert torch.allclose(trace.log_prob_sum() - log_det, d.log_prob(z.clone()))


# Curvature as a parameter


class Embedding(PyroModule):
    """A model with a learnable curvature that the flow of its guide shares."""

    def __init__(self, k=2.0):
        super().__init__()
        self.manifold = ph.manifolds.Lorentz(torch.tensor(k), learnable=True)
        self.flow = flow(self.manifold)
        self.scale = PyroParam(torch.ones(2), constraint=constraints.positive)

    def latent(self, *transforms):
        base = wrapped(G.origin(self.manifold, 2), self.scale, self.manifold)
        return pyro.sample("z", dist.TransformedDistribution(base, list(transforms)) if transforms else base)

    @pyro_method
    def model(self):
        distance = G.distance(self.manifold, self.latent(), G.origin(self.manifold, 2))
        pyro.sample("x", dist.Normal(distance, 0.1), obs=torch.tensor(1.0))

    @pyro_method
    def guide(self):
        self.latent(self.flow)


class Half(PyroModule):
    """The model or the guide of an embedding as a module of its own, as Trace_ELBO()(model, guide) wants them."""

    def __init__(self, whole, part):
        super().__init__()
        self.whole, self.part = whole, part

    def forward(self):
        return getattr(self.whole, self.part)()


def step_of_svi(whole):
    SVI(whole.model, whole.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step()


def step_of_svi_with_pyro_module(whole):
    def model():
        pyro.module("manifold", whole.manifold)
        whole.model()

    def guide():
        pyro.module("flow", whole.flow)
        whole.guide()

    SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step()


def step_of_torch(whole):
    elbo = Trace_ELBO()(Half(whole, "model"), Half(whole, "guide"))
    elbo().backward()
    torch.optim.Adam(elbo.parameters(), lr=0.01).step()


@pytest.mark.parametrize(
    ("step", "local"),
    [(step_of_svi, False), (step_of_svi_with_pyro_module, False), (step_of_torch, False), (step_of_torch, True)],
)
def test_a_shared_curvature_steps_once(step, local):
    """One Adam step of size lr moves k_unconstrained by lr, though model, guide and flow all hold the manifold."""
    with pyro.settings.context(module_local_params=local):
        whole = Embedding()
        before = whole.manifold.k_unconstrained.detach().clone()
        step(whole)
    moved = (whole.manifold.k_unconstrained.detach() - before).abs()
    assert torch.allclose(moved, torch.tensor(0.01), rtol=1e-3)
    assert sum("k_unconstrained" in name for name, _ in whole.named_parameters()) == 1


def test_a_learnable_curvature_stays_positive():
    """Under a large learning rate; the flow follows it."""
    whole = Embedding(0.05)
    svi = SVI(whole.model, whole.guide, pyro.optim.Adam({"lr": 0.3}), Trace_ELBO())
    assert all(math.isfinite(svi.step()) for _ in range(20))
    assert whole.manifold.k > 0
    assert whole.manifold.k != 0.05
    assert G.contains(whole.manifold, whole.flow(G.origin(whole.manifold, 2))).all()


@each_family
def test_gradients_reach_the_curvature(family):
    """Through log_prob of points that move with k, and through rsample, against central differences."""
    v, loc = torch.tensor([0.7, -0.4]), torch.tensor([0.3, 0.2])

    def scored(manifold):
        return family(G.exp0(manifold, loc), scales(), manifold).log_prob(G.exp0(manifold, v))

    def drawn(manifold):
        pyro.set_rng_seed(1)
        return G.log0(manifold, family(G.exp0(manifold, loc), scales(), manifold).rsample()).sum()

    for f in (scored, drawn):
        manifold = ph.manifolds.Lorentz(torch.tensor(2.0), learnable=True)
        gradient = torch.autograd.grad(f(manifold), manifold.k_unconstrained)[0]
        up, down = (f(ph.manifolds.Lorentz(torch.tensor(2.0 * math.exp(h)))).detach() for h in (1e-5, -1e-5))
        assert gradient.abs() > 1e-4
        assert torch.allclose(gradient, (up - down) / 2e-5, rtol=1e-6, atol=1e-9)


# Curvature as a latent


class Curved(PyroModule):
    def __init__(self):
        super().__init__()
        self.manifold = ph.manifolds.Lorentz()
        self.manifold.k = PyroSample(dist.LogNormal(0.0, 0.5))

    def forward(self):
        z = pyro.sample("z", wrapped(G.origin(self.manifold, 2), torch.ones(2), self.manifold))
        return self.manifold.k, z


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_latent_curvature():
    """M.k = PyroSample(prior): k is a site, and conditioning on it fixes the geometry."""
    trace = pyro.poutine.trace(Curved()).get_trace()
    assert {"manifold.k", "z"} <= set(trace.nodes)
    assert "Lorentz(k=" in repr(trace.nodes["z"]["fn"])
    k, z = pyro.poutine.condition(Curved(), {"manifold.k": torch.tensor(3.0)})()
    assert k == 3.0
    assert on_manifold(lorentz(3.0)).check(z)
    draws = Predictive(Curved(), num_samples=5)()
    assert on_manifold(geoopt.Lorentz(draws["manifold.k"].flatten())).check(draws["z"].reshape(5, 3)).all()
    d, z = trace.nodes["z"]["fn"], trace.nodes["z"]["value"]
    for validated in (True, False):  # MCMC validates nothing
        with (
            pyro.validation_enabled(validated),
            pytest.raises(ValueError, match=r"value.*k is latent.*TransformReparam"),
        ):
            d.log_prob(torch.stack([z, 2 * z]))
    with pyro.validation_enabled(False):
        found, lost = d.log_prob(torch.stack([z, math.nan * z]))  # a trajectory that diverges
    assert found == d.log_prob(z)
    assert lost.isnan()
    compiled = pytest.raises(ValueError, match=r"a compiled sampler.*WrappedNormal.*TransformReparam")
    with pyro.validation_enabled(False), compiled:
        torch.jit.trace(d.log_prob, z)


def test_classes_know_the_dimensions_of_their_events():
    """As Pyro asks of a class, before there is an object."""
    kinds = [hdist.WrappedNormal, hdist.WrappedMultivariateNormal, hdist.VonMisesFisher, hdist.RiemannianNormal]
    assert {kind.support.event_dim for kind in kinds} == {1}
    assert not any(kind.support.is_discrete for kind in kinds)


def test_shapes_are_inferred_of_a_scale_that_is_a_number():
    assert hdist.WrappedNormal.infer_shapes(loc=torch.Size([4, 3]), scale=torch.Size([])) == ((4,), (3,))
