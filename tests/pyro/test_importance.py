"""Importance weights of single data."""

import contextlib

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


def test_auxiliary_sites_of_a_guide_count():
    """Of a guide that samples tangent coordinates and maps them."""
    pyro.clear_param_store()
    chart = pyro.infer.autoguide.AutoNormal(model)
    chart(X)
    found = []
    for weights in (vectorized_importance_weights, lambda *args, **kwargs: [ph.infer.log_weights(*args, **kwargs)]):
        pyro.set_rng_seed(0)
        found.append(weights(model, chart, X, num_samples=5, max_plate_nesting=2)[0].sum())
    torch.testing.assert_close(*found)


def test_the_model_may_be_on_another_device():
    x = torch.tensor([0.0, 2.0])

    def plain(x):
        with pyro.plate("data", 2, device="cpu"):
            pyro.sample("z", dist.Normal(x, torch.ones_like(x)))

    with torch.device("meta"):
        assert torch.equal(ph.infer.log_weights(plain, plain, x, num_samples=3), x.new_zeros(3, 2, device="cpu"))


@pytest.mark.parametrize(
    ("other", "settings", "message"),
    [
        (lambda x: pyro.sample("y", dist.Normal(0.0, 1.0)), {"num_samples": 3}, r"\['z'\].*\['y'\].*in both"),
        (lambda x: None, {"num_samples": 3}, r"\['z'\].*\[\]"),
        (guide, {"num_samples": 0}, "num_samples = 0.*at least 1"),
        (guide, {"num_samples": 2.5}, "num_samples = 2.5.*integer"),
    ],
)
def test_what_it_refuses(other, settings, message):
    with (
        pytest.raises((TypeError, ValueError), match=message),
        pytest.warns(UserWarning, match="Found") if settings["num_samples"] == 3 else contextlib.nullcontext(),
    ):
        ph.infer.log_weights(model, other, X, max_plate_nesting=2, **settings)
