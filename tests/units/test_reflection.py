"""Reflections: accurate for every direction, with derivatives, and a law in a moving frame."""

import math

import geoopt
import mpmath
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.autograd.functional import hessian, jacobian

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic.numerics import householder, reflect
from tests.cases import ball, lorentz, shaken

G = ph.geometry


def t(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


def textbook(d, w):
    """The mirror image of ``w`` in the plane between e_1 and ``d``, by the definition, in 500 digits."""
    d, w = ([mpmath.mpf(x) for x in each.tolist()] for each in (d, w))
    u = [-x / mpmath.norm(d) for x in d]
    u[0] += 1
    square = mpmath.fsum(x * x for x in u)
    along = mpmath.fdot(u, w) / square if square else 0
    return [x - 2 * along * y for x, y in zip(w, u, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_reflections_are_accurate_for_every_direction(n, dtype):
    """Close to e_1, opposite to it, at right angles, and of any length: to 8 eps of the length of the vector."""
    generator, eps = torch.Generator().manual_seed(n), torch.finfo(dtype).eps
    largest = -math.log10(torch.finfo(dtype).tiny) - 2
    for angle in (0.0, *(10.0 ** -t(1.0, 4.0, 9.0, 15.5, 160.0)).tolist(), 1.0, math.pi / 2, 3.0, math.pi):
        for length in (1.0, 10.0**-largest, 10.0**largest):
            others = torch.randn(n - 1, generator=generator, dtype=torch.float64)
            d = length * torch.cat([t(math.cos(angle)), math.sin(angle) * others / others.norm()]).to(dtype)
            if not d.any():  # on a line, cos(pi / 2) underflows
                continue
            w = torch.randn(n, generator=generator, dtype=torch.float64).to(dtype)
            with mpmath.workdps(500):
                exact = t(*(float(x) for x in textbook(d, w)))
            error = (reflect(householder(d), w).double() - exact).abs().max()
            assert error <= 8 * eps * w.norm(), (angle, length)


SPACES = {"hyperboloid": lorentz(4.0), "ball": ball(), "flat": geoopt.Euclidean(1)}


@pytest.mark.parametrize("name", SPACES)
def test_a_reflection_is_an_isometry_that_turns_the_first_axis(name):
    M, f, v = SPACES[name], t(-0.6, 0.0, 0.8), torch.randn(6, 3, dtype=torch.float64)
    reflection, x, origin = HT.Reflection(M, 5 * f), G.exp0(M, v), G.exp0(M, 0 * f)
    y = reflection(x)
    assert bool(G.contains(M, y).all())
    torch.testing.assert_close(G.distance(M, y, y.flip(0)), G.distance(M, x, x.flip(0)))
    torch.testing.assert_close(reflection.inv(y.clone()), x)
    for r in (1e-8, 1.0, 15.0):
        e1 = t(r, 0.0, 0.0)
        torch.testing.assert_close(reflection(G.exp0(M, e1)), G.exp0(M, r * f), rtol=1e-14, atol=1e-14 * r)
    assert torch.equal(reflection(origin), origin)
    assert torch.equal(HT.Reflection(M, t(3.0, 0.0, 0.0))(x), x)


def test_derivatives_with_respect_to_the_direction():
    """Those of the definition, also where a coordinate of the direction is zero; at e_1, where there are none, zero."""
    w = t(0.3, -1.2, 0.7)

    def image(d):
        return reflect(householder(d), w)

    def by_definition(d):
        u = torch.eye(3, dtype=torch.float64)[0] - d / d.norm()
        return w - 2 * (u @ w) / (u @ u) * u

    for d in (t(0.5, 0.2, -1.0), t(-0.5, 0.2, 1.0), t(0.0, 2.0, 0.0), t(0.0, 1.0, -1.0), t(-2.0, 0.0, 0.0)):
        for derivative in (jacobian, lambda f, d: hessian(lambda d: f(d) @ t(1.0, -2.0, 3.0), d)):
            torch.testing.assert_close(derivative(image, d), derivative(by_definition, d), rtol=1e-12, atol=1e-12)
    assert torch.equal(jacobian(image, t(2.0, 0.0, 0.0)), torch.zeros(3, 3).double())
    for near in (1e-8, 1e-160, 1e-300):
        assert bool(jacobian(image, t(1.0, near, 0.0)).isfinite().all())


def test_a_law_in_a_moving_frame():
    """Children of two parents: a conditional flow in the frame of each, scored by undoing the frame by hand."""
    M, directions, slots = lorentz(), t([0.3, -1.0, 0.2], [-1.0, 0.0, 0.0]), t([0.0, 1.0], [1.0, 0.0])
    parents = G.exp0(M, t([1.0, 2.0, -0.5], [0.0, 0.3, 0.0]))
    base = hdist.WrappedNormal(G.origin(M, 3), t(0.3, 0.4, 0.5), M)
    flow = shaken(ph.flows.coupling_flow(3, 2, manifold=M, context_dim=2)).condition(slots)
    children = dist.TransformedDistribution(base, [flow, HT.Reflection(M, directions), HT.Translation(M, parents)])
    assert (children.batch_shape, children.event_shape) == ((2,), (4,))

    pyro.set_rng_seed(0)
    z = pyro.poutine.trace(lambda: pyro.sample("z", children)).get_trace().nodes["z"]["value"].detach().clone()
    v = G.log0(M, G.translate(M, parents, z, inverse=True))
    e1 = torch.eye(3, dtype=torch.float64)[0]
    u = e1 - directions / directions.norm(dim=-1, keepdim=True)
    mirrors = torch.eye(3) - 2 * u[:, :, None] * u[:, None] / (u * u).sum(-1)[:, None, None]
    y = G.exp0(M, (mirrors @ v[..., None])[..., 0])
    torch.testing.assert_close(children.log_prob(z), dist.TransformedDistribution(base, [flow]).log_prob(y))
