"""Base distributions: mass by quadrature, samplers and gradients by their laws, and mpmath at the extremes."""

import math
import pickle

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from tests.cases import lorentz

G = ph.geometry
SPHERE, TORUS, SO3 = geoopt.Sphere(), ph.manifolds.Torus(2), ph.manifolds.Rotations()
COMPACT = geoopt.ProductManifold((SPHERE, 3), (TORUS, 2), (SO3, (3, 3)))
MIXED = geoopt.ProductManifold((lorentz(4.0), 3), (SPHERE, 3), (SO3, (3, 3)), (geoopt.Euclidean(1), 2))
POLE = torch.tensor([0.0, 0.6, -0.8], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def uniform(manifold=SPHERE, dim=2, **kwargs):
    return hdist.Uniform(manifold, dim, **kwargs)


def mixed(*batch):
    plane = hdist.WrappedNormal(G.origin(lorentz(4.0), 2).expand(*batch, 3), 0.5, lorentz(4.0))
    line = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    return hdist.ProductDistribution(MIXED, [plane, uniform(), uniform(SO3, None), line])


# Uniform


@pytest.mark.parametrize(
    ("manifold", "dim", "volume"),
    [
        (SPHERE, 1, 2 * math.pi),
        (SPHERE, 2, 4 * math.pi),
        (SPHERE, 3, 2 * math.pi**2),
        (TORUS, None, 4 * math.pi**2),
        (SO3, 3, 8 * math.pi**2),
        (COMPACT, None, 128 * math.pi**5),
    ],
)
def test_uniform_density_is_one_over_the_volume(manifold, dim, volume):
    d = uniform(manifold, dim)
    x = d.sample((4,))
    assert torch.allclose(d.log_prob(x), torch.tensor(-math.log(volume)))
    assert torch.allclose(d.entropy(), torch.tensor(math.log(volume)))
    assert d.support.check(x).all()


def test_uniform_has_the_dtype_it_is_given():
    assert uniform(dtype=torch.float32).sample().dtype == torch.float32
    assert uniform().log_prob(POLE.float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ((SPHERE,), ValueError, ["dim", "n = 2"]),
        ((TORUS, 3), ValueError, ["dim = 3", "2 dimensions"]),
        ((SPHERE, 0), ValueError, ["dim = 0", "at least 1"]),
        ((lorentz(), 2), TypeError, ["Lorentz", "infinite volume", "UniformBall"]),
        ((MIXED,), TypeError, ["infinite volume"]),
    ],
)
def test_bad_uniform(arguments, error, parts):
    with pytest.raises(error) as caught:
        hdist.Uniform(*arguments)
    assert all(part in str(caught.value) for part in parts)


# Products


def test_a_product_adds_its_factors():
    d = mixed(3)
    assert (d.batch_shape, d.event_shape, d.has_rsample) == ((3,), (17,), True)
    x = d.sample((4,))
    assert d.support.check(x).all()
    parts = zip(d.factors, d.split(x), strict=True)
    assert torch.allclose(d.log_prob(x), sum(factor.log_prob(part.clone()) for factor, part in parts))
    lone = hdist.ProductDistribution(COMPACT, [uniform(), uniform(TORUS, None), uniform(SO3, None)])
    assert torch.allclose(lone.entropy(), uniform(COMPACT, None).entropy())


def test_a_product_without_reparameterised_factor():
    coin = dist.RelaxedOneHotCategoricalStraightThrough(torch.tensor(1.0), torch.ones(3))
    coin.has_rsample = False
    flat = geoopt.ProductManifold((geoopt.Euclidean(1), 3), (SPHERE, 3))
    d = hdist.ProductDistribution(flat, [coin, uniform()])
    assert not d.has_rsample
    assert d.sample((2,)).shape == (2, 6)


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ((SPHERE, [uniform()]), TypeError, ["Sphere", "product"]),
        ((MIXED, [uniform()]), ValueError, ["1 distributions", "4 factors"]),
        ((geoopt.ProductManifold((SPHERE, 3)), [3.0]), TypeError, ["factor 0", "3.0"]),
        ((geoopt.ProductManifold((SPHERE, 3)), [uniform(SPHERE, 3)]), ValueError, ["(4,)", "(3,)"]),
        ((geoopt.ProductManifold((lorentz(), 3)), [uniform()]), ValueError, ["Sphere", "Lorentz(k=1)"]),
    ],
)
def test_bad_product(arguments, error, parts):
    with pytest.raises(error) as caught:
        hdist.ProductDistribution(*arguments)
    assert all(part in str(caught.value) for part in parts)


# All of them in Pyro

BASES = {
    "uniform-s2": uniform,
    "uniform-torus": lambda: uniform(TORUS, None),
    "uniform-so3": lambda: uniform(SO3, None),
    "uniform-product": lambda: uniform(COMPACT, None),
    "product": mixed,
}
each_base = pytest.mark.parametrize("make", BASES.values(), ids=list(BASES))


@each_base
def test_shapes_expansion_copies(make):
    d = pickle.loads(pickle.dumps(make()))
    e = d.expand([4, 3])
    assert type(e) is type(d)
    assert (e.batch_shape, e.event_shape) == ((4, 3), d.event_shape)
    assert (e.to_event(1).batch_shape, e.expand([2, 4, 3]).batch_shape) == ((4,), (2, 4, 3))
    x = e.sample((5,))
    assert x.shape == (5, 4, 3, *d.event_shape)
    assert len(x.reshape(60, -1).unique(dim=0)) == 60
    assert e.log_prob(x).shape == d.log_prob(x).shape == (5, 4, 3)
    assert torch.allclose(e.log_prob(x), d.log_prob(x))
    assert e.log_prob(x[0, 0, 0]).shape == (4, 3)
    assert type(d).__name__ in repr(d)


@each_base
def test_plates_and_validation(make):
    def model():
        with pyro.plate("draws", 5):
            return pyro.sample("x", make())

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob"].shape == (5,)
    with pytest.raises(ValueError, match="is not on"):
        make().log_prob(1.1 * trace.nodes["x"]["value"] + 4)
