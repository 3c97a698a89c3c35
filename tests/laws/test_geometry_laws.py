"""The laws of geometries: every kind of manifold obeys them, and each slip breaks the law that it should."""

import math

import geoopt
import pytest
import torch

import pyro_hyperbolic as ph
from pyro_hyperbolic.distributions.constraints import on_manifold
from pyro_hyperbolic.geometry.product import CompactProduct, MixedProduct
from pyro_hyperbolic.geometry.rotations import RotationGroup
from pyro_hyperbolic.geometry.sphere import Sphere
from pyro_hyperbolic.geometry.torus import FlatTorus
from pyro_hyperbolic.testing import LawViolation, density_laws
from pyro_hyperbolic.testing.oracles import Space
from tests.cases import MANIFOLDS, UNCHARTED, base_on, lorentz
from tests.half_space import HalfSpace

SPACES = {
    **UNCHARTED,
    "s1": (geoopt.Sphere, 1),
    "h2": (lambda: lorentz(4.0), 2),
    "half-space": (HalfSpace, 2),
    "ballxspd": MANIFOLDS["ballxspd"],
    "s1xt1": (lambda: geoopt.ProductManifold((geoopt.Sphere(), 2), (ph.manifolds.Torus(1), 1)), 2),
}


def laws(name):
    make, n = SPACES[name]
    M = make()
    with density_laws.seeded(0):
        ph.testing.assert_geometry_laws(M, base_on(M, n).sample((4,)))


@pytest.mark.parametrize("name", SPACES)
def test_a_geometry_obeys_its_laws(name):
    laws(name)


@pytest.mark.parametrize("name", SPACES)
def test_the_hessian_of_squared_distances_is_twice_the_metric(name):
    """In normal coordinates at equal points: the origin, where eigenvalues are equal, and another point."""
    make, n = SPACES[name]
    space = Space(on_manifold(make()))
    x = space.special_point(n, torch.empty((), dtype=torch.float64))
    v = torch.linspace(-0.5, 0.8, n, dtype=torch.float64)
    for p in (x, space.exp_at(x, v)):
        square = lambda v, p=p: ph.geometry.squared_distance(space.manifold, space.exp_at(p, v), p)  # noqa: E731
        hessian = torch.autograd.functional.hessian(square, 0 * v)
        assert torch.allclose(hessian, 2 * torch.eye(n, dtype=torch.float64))


@pytest.mark.parametrize("name", ["s2", "so3", "h2"])
def test_axes_and_half_turns_and_points_far_out_obey_the_laws(name):
    axes = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    turns = torch.stack([torch.eye(3).double(), *(2 * axis.outer(axis) - torch.eye(3) for axis in axes[:3])])
    far = ph.geometry.exp0(lorentz(4.0), 12 * axes[2:, :2])  # and the origin
    ph.testing.assert_geometry_laws(SPACES[name][0](), {"s2": axes, "so3": turns, "h2": far}[name])


def geoopt_log(self, x, y):
    """It is 44 times too long at a distance of 1e-5."""
    return geoopt.Sphere().logmap(x, y)


def dropped(self, x):
    """A product that forgets the volume of its first factor."""
    pairs = [factor.point(part) for factor, part in self._zip(self._states(x))]
    return self.join([point for point, _ in pairs]), sum(volume for _, volume in pairs[1:])


def root(z):
    """Returns zero, whose gradient is NaN where z = 0 up to rounding."""
    return 0 * (z * (z.abs() > 1e-7)).square().sum(-1, keepdim=True).sqrt()


SLIPS = {  # the slip, where it shows, and the law it breaks
    "logarithm of geoopt": (Sphere, "log", geoopt_log, "s2", "exp_and_log_agree"),
    "distance by the cosine": (
        Sphere, "distance", lambda self, x, y: torch.where(
            (chord := (y - x).norm(dim=-1)) < 1e-6, chord, (x * y).sum(-1).acos()), "s2", "exp_and_log_agree"),
    "angles not wrapped": (FlatTorus, "log", lambda self, x, y: y - x, "t2", "exp_and_log_agree"),
    "exponential off the sphere": (
        Sphere, "exp", lambda self, x, u, exp=Sphere.exp: 1.001 * exp(self, x, u), "s2", "exp_and_log_agree"),
    "no projection onto the sphere": (
        Sphere, "project", lambda self, x, project=Sphere.project: (1 + 1e-2 * (x.size(0) == 4)) * project(self, x),
        "s2", "stays_on_manifold"),
    "vectors of half the length": (
        RotationGroup, "exp", lambda self, x, u, exp=RotationGroup.exp: exp(self, x, u / 2), "so3",
        "exp_and_log_agree"),
    "no projection": (Sphere, "tangent", lambda self, x, u: u + 0 * x, "s2", "tangents_are_projected"),
    "a frame twice as long": (
        Sphere, "frame", lambda self, s, frame=Sphere.frame: 2 * frame(self, s), "s2", "states_agree"),
    "velocity of the other way": (
        RotationGroup, "velocity", lambda self, s, u, velocity=RotationGroup.velocity: -velocity(self, s, u), "so3",
        "states_agree"),
    "a product that drops a volume": (MixedProduct, "point", dropped, "h2xs2xr", "states_agree"),
    "a product as large as its first factor": (
        CompactProduct, "log_total_volume", lambda self, n: self.factors[0].log_total_volume(1), "s1xt1",
        "total_mass_is_one"),
    "another metric": (
        geoopt.Sphere, "inner", lambda self, x, u, v=None, *, keepdim=False: 4 * (u * v).sum(-1, keepdim=keepdim), "s2",
        "geodesics_have_constant_speed"),
    "no speed at zero": (
        Sphere, "exp", lambda self, x, u, exp=Sphere.exp: exp(self, x, u + root(u)), "s2",
        "geodesics_have_constant_speed"),
    "an outward logarithm at zero": (
        Sphere, "log", lambda self, x, y, log=Sphere.log: (
            log(self, x, y) + (x.dtype.itemsize == 8) * (y == x).all(-1, keepdim=True) * x), "s2",
        "tangents_are_projected"),
    "a direction of length 1": (
        Sphere, "towards", lambda self, x, y: ((y - x) / (y - x).norm(dim=-1, keepdim=True), (y - x).square().sum(-1)),
        "s2", "towards_is_smooth"),
    "digits lost near the antipode": (
        Sphere, "log", lambda self, x, y, log=Sphere.log: log(
            self, x, torch.where((x * y).sum(-1, keepdim=True) < -0.99, y.float().to(y), y)), "s2",
        "exp_and_log_agree"),
    "a square twice as large": (
        Sphere, "towards", lambda self, x, y, towards=Sphere.towards: (
            towards(self, x, y)[0], 2 * towards(self, x, y)[1]), "s2", "towards_is_smooth"),
    "a root at the point": (
        Sphere, "towards", lambda self, x, y, towards=Sphere.towards: (
            towards(self, x + root(y - x), y)[0], towards(self, x, y)[1]), "s2", "towards_is_smooth"),
    "a root at the cut locus": (
        Sphere, "towards", lambda self, x, y, towards=Sphere.towards: (
            towards(self, x, y)[0], towards(self, x + root(y + x), y)[1]), "s2", "towards_is_smooth"),
    "a root in features": (
        Sphere, "features", lambda self, y: y + root(y[..., :1] - y[0, 0]), "s2", "towards_is_smooth"),
    "half of the logarithm detached": (
        Sphere, "log", lambda self, x, y, log=Sphere.log: log(self, x, y.lerp(y.detach(), 0.5)), "s2",
        "gradients_are_finite"),
    "a norm at zero": (
        RotationGroup, "squared_distance", lambda self, x, y: self.log(x, y).square().sum(-1).sqrt() ** 2, "so3",
        "gradients_are_finite"),
    "volume of quaternions": (
        RotationGroup, "log_total_volume", lambda self, n: math.log(math.pi**2), "so3", "total_mass_is_one"),
    "volume off by half a percent": (
        FlatTorus, "log_total_volume", lambda self, n: n * math.log(2 * math.pi) + 0.005, "t2", "total_mass_is_one"),
    "volume of one": (RotationGroup, "log_total_volume", lambda self, n: 0.0, "so3", "total_mass_is_one"),
}  # fmt: skip


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_breaks_a_law(name, monkeypatch):
    kind, method, wrong, space, law = SLIPS[name]
    monkeypatch.setattr(kind, method, wrong)
    with pytest.raises(LawViolation) as caught:
        laws(space)
    assert caught.value.law == law
