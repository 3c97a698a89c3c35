"""Importance weights of single data."""

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.importance import vectorized_importance_weights

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist

M = geoopt.Lorentz()
X = torch.tensor([[0.3, -1.0, 2.0], [0.0, 0.7, -0.4]])


def model(x, size=None):
    with pyro.plate("runs", len(x), dim=-2), pyro.plate("data", x.size(-1), subsample_size=size, dim=-1) as index:
        z = pyro.sample("z", hdist.WrappedNormal(ph.geometry.origin(M, 2), 1.0, M))
        pyro.sample("x", dist.Normal(ph.geometry.log0(M, z)[..., 0], 0.5), obs=x[:, index])


def guide(x, size=None):
    with pyro.plate("runs", len(x), dim=-2), pyro.plate("data", x.size(-1), subsample_size=size, dim=-1) as index:
        loc = ph.geometry.exp0(M, torch.stack([0.7 * x[:, index], 0 * x[:, index]], -1))
        pyro.sample("z", hdist.WrappedNormal(loc, 0.6, M))


@pytest.mark.parametrize("samples", [1, 400])
def test_weights_of_data_sum_to_those_of_the_model(samples):
    pyro.set_rng_seed(0)
    expected, *_ = vectorized_importance_weights(model, guide, X, num_samples=samples, max_plate_nesting=2)
    pyro.set_rng_seed(0)
    found = ph.infer.log_weights(model, guide, X, num_samples=samples, max_plate_nesting=2)
    assert found.shape == (samples, 2, 3)
    torch.testing.assert_close(found.sum((1, 2)).sum(), expected.sum())
    if samples > 1:
        evidence = dist.Normal(0.0, (1 + 0.5**2) ** 0.5).log_prob(X)  # the first tangent coordinate is N(0, 1)
        torch.testing.assert_close(found.exp().mean(0).log(), evidence, atol=0.25, rtol=0)


def test_a_subsample_is_refused():
    with pytest.raises(ValueError, match=r"scaled by 1\.5.*batch"):
        ph.infer.log_weights(model, guide, X, 2, num_samples=3, max_plate_nesting=2)
