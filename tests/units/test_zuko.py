"""Flows of zuko on manifolds: the laws, the direction, parameters, contexts, and what cannot be lifted."""

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from tests.cases import ball, lorentz, shaken

zuko = pytest.importorskip("zuko")
pytestmark = pytest.mark.usefixtures("float64")
SMALL = {"transforms": 2, "hidden_features": (16,)}


@pytest.fixture(autouse=True)
def _validation():
    pyro.enable_validation(True)  # zuko's import turns it off


def points(M, *batch, dim=3):
    return ph.geometry.exp0(M, torch.randn(*batch, dim))


@pytest.mark.parametrize(("name", "M"), [("MAF", lorentz(4.0)), ("NSF", ball()), ("NICE", lorentz(0.25))])
def test_laws(name, M):
    flow = ph.flows.from_zuko(getattr(zuko.flows, name)(3, **SMALL), M)
    ph.testing.assert_transform_laws(shaken(flow), points(M, 8))
    assert flow(points(M, 0)).shape == flow.inv(points(M, 2, 0)).shape[1:] == (0, *points(M, 1).shape[1:])


def test_a_flow_of_coordinates_obeys_the_laws_too():
    """Whose log-determinants are those of each coordinate."""
    each = zuko.lazy.UnconditionalTransform(zuko.transforms.MonotonicAffineTransform, torch.zeros(3), torch.zeros(3))
    flow = zuko.lazy.Flow(each, zuko.flows.NSF(3, **SMALL).base)
    M = lorentz(4.0)
    ph.testing.assert_transform_laws(shaken(ph.flows.from_zuko(flow, M)), points(M, 8))


def test_a_conditioned_flow_obeys_the_laws_too():
    M = lorentz(4.0)
    flow = shaken(ph.flows.from_zuko(zuko.flows.MAF(2, context=3, **SMALL), M, context_dim=3))
    ph.testing.assert_transform_laws(flow.condition(torch.tensor([1.0, -2.0, 0.5])), points(M, 8, dim=2))
    x, contexts = points(M, 5, dim=2), torch.randn(4, 1, 3)
    many = flow.condition(contexts)
    assert many.forward_shape(x.shape) == many(x).shape == (4, 5, 3)
    torch.testing.assert_close(many(x)[2], flow.condition(contexts[2, 0])(x))


def test_in_flat_space_it_is_zukos_own_density_and_sampler():
    flow = shaken(zuko.flows.MAF(3, **SMALL))
    base = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    lifted = dist.TransformedDistribution(base, [ph.flows.from_zuko(flow, geoopt.Euclidean(1))])
    x = torch.randn(6, 3)
    torch.testing.assert_close(lifted.log_prob(x), flow().log_prob(x))
    samples = []
    for each in (lifted, flow()):
        pyro.set_rng_seed(0)
        samples.append(each.rsample((4,)))
    torch.testing.assert_close(*samples)


def test_the_two_directions_can_be_exchanged():
    M, flow = lorentz(4.0), shaken(zuko.flows.MAF(2, **SMALL))
    fast_sampler = ph.flows.from_zuko(zuko.lazy.Flow(flow.transform.inv, flow.base), M)
    x = points(M, 5, dim=2)
    torch.testing.assert_close(fast_sampler(x), ph.flows.from_zuko(flow, M).inv(x))


def test_draws_that_zuko_would_clip_raise():
    """Gaussianization flows are inverted between -10 and 10 only."""
    lifted = ph.flows.from_zuko(zuko.flows.GF(2, transforms=1), geoopt.Euclidean(1))
    for parameter in lifted.parameters():
        parameter.data.zero_()
    x = torch.tensor([[0.5, -2.0], [30.0, 0.0]])
    torch.testing.assert_close(lifted.inv(lifted(x[:1]).clone()), x[:1], atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match=r"1 of 2.*10.*NSF"):
        lifted(x)


@pytest.mark.parametrize("path", ["guide", "density"])
def test_training_reaches_every_parameter_of_the_flow(path):
    M, flow = lorentz(), shaken(zuko.flows.NSF(2, **SMALL))
    lifted = ph.flows.from_zuko(flow, M)
    origin = ph.geometry.origin(M, 2)
    d = dist.TransformedDistribution(hdist.WrappedNormal(origin, 1.0, M), [lifted])
    data = points(M, 50, dim=2)

    def model():
        pyro.sample("z", hdist.WrappedNormal(data[0], 0.5, M))

    def guide():
        pyro.module("flow", lifted)
        pyro.sample("z", d)

    loss = pyro.infer.Trace_ELBO().differentiable_loss(model, guide) if path == "guide" else -d.log_prob(data).mean()
    loss.backward()
    assert {*lifted.parameters()} == {*flow.parameters()}
    assert all(value.grad.abs().sum() > 0 for value in flow.parameters())


def test_own_samples_are_scored_without_the_inverse(monkeypatch):
    M = lorentz()
    lifted = ph.flows.from_zuko(zuko.flows.NSF(2, **SMALL), M)
    d = dist.TransformedDistribution(hdist.WrappedNormal(ph.geometry.origin(M, 2), 1.0, M), [lifted])
    x = d.rsample((3,))
    with monkeypatch.context() as patch:
        patch.setattr(ph.flows.ZukoFlow, "_backward", None)
        own = d.log_prob(x)
    torch.testing.assert_close(own, d.log_prob(x.clone()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ph.flows.from_zuko(zuko.flows.NCSF(2)), "all of R.n.*NSF"),  # angles
        (lambda: ph.flows.from_zuko(zuko.flows.SOSPF(2)), "all of R.n.*NSF"),  # a bound between its layers
        (lambda: ph.flows.from_zuko(zuko.flows.NSF(3))(points(geoopt.Lorentz(), 5, 7, dim=2)), "n = 2.*features=2"),
        (lambda: ph.flows.from_zuko(HT.ExponentialMap()), "HT.TangentTransform"),
        (
            lambda: ph.flows.from_zuko(zuko.flows.NSF(2, 3))(points(geoopt.Lorentz(), 2, dim=2)),
            "no context.*context_dim",
        ),
        (
            lambda: ph.flows.from_zuko(zuko.flows.NSF(2), context_dim=3).condition(torch.ones(5, 1, 3))(
                points(geoopt.Lorentz(), 2, dim=2)
            ),
            "context of 3 numbers.*context=0",
        ),
        (
            lambda: ph.flows.from_zuko(zuko.flows.NSF(2).float())(points(geoopt.Lorentz(), 2, dim=2)),
            r"float64 points.*\.to\(",
        ),
        (
            lambda: ph.flows.from_zuko(HT.TangentTransform(dist.transforms.AffineTransform(0.0, 2.0))),
            "HT.TangentTransform",
        ),
        (lambda: ph.flows.from_zuko(zuko.flows.NSF), "zuko.lazy.Flow"),
        (lambda: ph.flows.from_zuko(zuko.flows.NSF(2, 3), context_dim=3)(torch.ones(3)), r"condition\(context\)"),
        (lambda: ph.flows.from_zuko(zuko.flows.NSF(2, 3), context_dim=3).condition(torch.ones(2)), "context_dim = 3"),
        (lambda: ph.flows.from_zuko(zuko.flows.NSF(2, 3), context_dim=3).condition(torch.tensor(1.0)), r"\(\).*\*, 3"),
        (lambda: ph.flows.from_zuko(zuko.flows.NSF(2), context_dim=0), "context_dim = 0.*at least 1"),
    ],
)
def test_what_cannot_be_lifted(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
