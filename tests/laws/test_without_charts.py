"""The property-test kit on compact manifolds and products with them: correct maps pass, mistakes are found."""

import math
import re

import geoopt
import pyro.distributions as dist
import pytest
import torch

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic.testing import LawViolation
from pyro_hyperbolic.testing.oracles import Space
from tests.cases import lorentz

G = ph.geometry
LOG_DET = "log_det_matches_autograd"
SPHERE, ROTATIONS = geoopt.Sphere(), ph.manifolds.Rotations()
DOUBLE = torch.float64


def double(*values):
    return torch.tensor(values, dtype=DOUBLE)


def uniform(M, *dim, number=8):
    return hdist.Uniform(M, *dim, dtype=DOUBLE).sample((number,))


# ---- Maps whose log-determinants are known, by formulas of their own ----


class OnItself(torch.distributions.Transform):
    """A bijection of a manifold."""

    bijective = True

    def __init__(self, manifold, *arguments, cache_size=0):
        super().__init__(cache_size)
        self.manifold, self.arguments = manifold, arguments

    @property
    def domain(self):
        return hdist.constraints.on_manifold(self.manifold)

    codomain = domain

    def with_cache(self, cache_size=1):
        return type(self)(self.manifold, *self.arguments, cache_size=cache_size)

    def log_abs_det_jacobian(self, x, y):
        return torch.zeros(x.shape[: x.dim() - self.domain.event_dim], dtype=x.dtype)


class Projective(OnItself):
    r"""x -> Ax / |Ax| on a sphere: the volume of a cone in R^(n + 1) is that of its base times |Ax|^(n + 1)."""

    def __init__(self, manifold, matrix, cache_size=0):
        super().__init__(manifold, matrix, cache_size=cache_size)
        self.matrix = matrix

    def _call(self, x):
        y = x @ self.matrix.mT
        return y / y.norm(dim=-1, keepdim=True)

    def _inverse(self, y):
        x = torch.linalg.solve(self.matrix, y.unsqueeze(-1)).squeeze(-1)
        return x / x.norm(dim=-1, keepdim=True)

    def log_abs_det_jacobian(self, x, y):
        stretch = (x @ self.matrix.mT).norm(dim=-1).log()
        return torch.linalg.slogdet(self.matrix).logabsdet - x.size(-1) * stretch


class Rotate(OnItself):
    """R -> Q R."""

    def __init__(self, manifold, matrix, cache_size=0):
        super().__init__(manifold, matrix, cache_size=cache_size)
        self.matrix = matrix

    def _call(self, x):
        return self.matrix @ x

    def _inverse(self, y):
        return self.matrix.mT @ y


class Shear(OnItself):
    """Angles a -> a + amount * sin(a) / 2 after a shift, wrapped."""

    def __init__(self, manifold, shift, amount, cache_size=0):
        super().__init__(manifold, shift, amount, cache_size=cache_size)
        self.shift, self.amount = shift, amount

    def _call(self, x):
        x = x + self.shift
        return wrapped(x + self.amount * x.sin())

    def _inverse(self, y):
        x = y
        for _ in range(60):
            x = x - (x + self.amount * x.sin() - y) / (1 + self.amount * x.cos())
        return wrapped(x - self.shift)

    def log_abs_det_jacobian(self, x, y):
        return (1 + self.amount * (x + self.shift).cos()).log().sum(-1)


class Blocks(OnItself):
    """One map for each factor of a product."""

    def __init__(self, manifold, *parts, cache_size=0):
        super().__init__(manifold, *parts, cache_size=cache_size)
        self.parts = list(parts)

    def split(self, x):
        sizes = [math.prod(shape) for shape in self.manifold.shapes]
        parts = zip(x.split(sizes, -1), self.manifold.shapes, strict=True)
        return [part.unflatten(-1, tuple(shape)) for part, shape in parts]

    def _call(self, x):
        return torch.cat([part(e).flatten(x.dim() - 1) for part, e in zip(self.parts, self.split(x), strict=True)], -1)

    def _inverse(self, y):
        pairs = zip(self.parts, self.split(y), strict=True)
        return torch.cat([part.inv(e).flatten(y.dim() - 1) for part, e in pairs], -1)

    def log_abs_det_jacobian(self, x, y):
        parts = zip(self.parts, self.split(x), self.split(y), strict=True)
        return sum(part.log_abs_det_jacobian(a, b) for part, a, b in parts)


def wrapped(x):
    return torch.atan2(x.sin(), x.cos())


def matrix(n):
    generator = torch.Generator().manual_seed(n)
    return torch.eye(n, dtype=DOUBLE) + 0.3 * torch.randn(n, n, generator=generator, dtype=DOUBLE)


def euler(angles):
    """Rotations R_z(a) R_y(b) R_z(c); Haar measure is sin(b) da db dc, 8 pi^2 in all."""
    a, b, c = angles.unbind(-1)
    zero, one = torch.zeros_like(a), torch.ones_like(a)

    def about_z(t):
        return torch.stack([t.cos(), -t.sin(), zero, t.sin(), t.cos(), zero, zero, zero, one], -1).unflatten(-1, (3, 3))

    about_y = torch.stack([b.cos(), zero, b.sin(), zero, one, zero, -b.sin(), zero, b.cos()], -1).unflatten(-1, (3, 3))
    return about_z(a) @ about_y @ about_z(c)


def product():
    factors = ((lorentz(4.0), 3), (SPHERE, 3), (ROTATIONS, (3, 3)), (ph.manifolds.Torus(2), 2))
    return geoopt.ProductManifold(*factors)


def blocks(kind=Blocks):
    M = product()
    affine = dist.transforms.AffineTransform(double(0.3, 0.1), double(0.5, 1.5), event_dim=1)
    lifted = HT.TangentTransform(affine, M.manifolds[0])
    torus = Shear(M.manifolds[3], double(3.0, 1.0), double(0.5, -0.4))
    return kind(M, lifted, Projective(SPHERE, matrix(3)), Rotate(ROTATIONS, euler(double(1.0, 2.0, 3.0))), torus)


def on_product(number=8):
    hyperbolic = G.exp0(lorentz(4.0), torch.randn(number, 2, dtype=DOUBLE))
    parts = [hyperbolic, uniform(SPHERE, 2), uniform(ROTATIONS).flatten(1), uniform(ph.manifolds.Torus(2))]
    return torch.cat(parts, -1)


def shear(kind, n):
    return kind(ph.manifolds.Torus(n), torch.linspace(3.0, -2.0, n, dtype=DOUBLE), double(*[0.5, -0.4, 0.3][:n]))


CORRECT = {
    **{f"sphere {n}": lambda n=n: (Projective(SPHERE, matrix(n + 1)), uniform(SPHERE, n)) for n in (1, 2, 3)},
    **{f"torus {n}": lambda n=n: (shear(Shear, n), uniform(ph.manifolds.Torus(n))) for n in (1, 2, 3)},
    "rotations": lambda: (Rotate(ROTATIONS, euler(double(1.0, 2.0, 3.0))), uniform(ROTATIONS)),
    "product": lambda: (blocks(), on_product()),
}


@pytest.mark.parametrize("name", CORRECT)
def test_a_correct_map_passes(name):
    transform, x = CORRECT[name]()
    ph.testing.assert_transform_laws(transform, x, thorough=True)


def test_poles_and_the_cut_locus_pass():
    axes = torch.cat([torch.eye(3, dtype=DOUBLE), -torch.eye(3, dtype=DOUBLE)])
    ph.testing.assert_transform_laws(Projective(SPHERE, matrix(3)), axes)
    ph.testing.assert_transform_laws(shear(Shear, 2), double(-math.pi, math.pi, 0.0, 1e-8).reshape(2, 2))
    turns = torch.stack([torch.eye(3, dtype=DOUBLE), *(2 * row.outer(row) - torch.eye(3) for row in axes[:3])])
    ph.testing.assert_transform_laws(Rotate(ROTATIONS, turns[1]), turns)


def wrong(kind, **methods):
    return type(f"Wrong{kind.__name__}", (kind,), methods)


def projective(**methods):
    return lambda: (wrong(Projective, **methods)(SPHERE, matrix(3)), uniform(SPHERE, 2))


def turned(**methods):
    return lambda: (wrong(Rotate, **methods)(ROTATIONS, euler(double(1.0, 2.0, 3.0))), uniform(ROTATIONS))


def sheared(**methods):
    return lambda: (shear(wrong(Shear, **methods), 2), uniform(ph.manifolds.Torus(2)))


def of_blocks(**methods):
    return lambda: (blocks(wrong(Blocks, **methods)), on_product())


MUTANTS = {
    "log-det dropped": (
        projective(log_abs_det_jacobian=lambda self, x, y: 0 * x[..., 0]),
        LOG_DET,
        "dropped",
    ),
    "log-det of the inverse": (
        projective(log_abs_det_jacobian=lambda self, x, y: -Projective.log_abs_det_jacobian(self, x, y)),
        LOG_DET,
        "inverse map",
    ),
    "n for n + 1": (
        projective(
            log_abs_det_jacobian=lambda self, x, y: (
                Projective.log_abs_det_jacobian(self, x, y) + (x @ self.matrix.mT).norm(dim=-1).log()
            )
        ),
        LOG_DET,
        "unclear",
    ),
    "not normalised": (projective(_call=lambda self, x: x @ self.matrix.mT), "stays_on_manifold", ""),
    "inverse is forward": (projective(_inverse=lambda self, y: self._call(y)), "round_trip", "forward"),
    "inverse from the right": (turned(_inverse=lambda self, y: y @ self.matrix.mT), "round_trip", "unclear"),
    "no rotation": (turned(_call=lambda self, x: 1.001 * self.matrix @ x), "stays_on_manifold", ""),
    "angles not wrapped": (sheared(_call=lambda self, x: x + self.shift), "stays_on_manifold", ""),
    "inverse is the identity": (sheared(_inverse=lambda self, y: y.clone()), "round_trip", "argument"),
    "not one to one": (sheared(_call=lambda self, x: wrapped(2 * x)), "round_trip", ""),
    "one factor's log-det dropped": (
        of_blocks(
            log_abs_det_jacobian=lambda self, x, y: (
                Blocks.log_abs_det_jacobian(self, x, y) - self.parts[3].log_abs_det_jacobian(self.split(x)[3], None)
            )
        ),
        LOG_DET,
        "unclear",
    ),
    "one factor not inverted": (
        of_blocks(_inverse=lambda self, y: torch.cat([Blocks._inverse(self, y)[..., :-2], y[..., -2:]], -1)),
        "round_trip",
        "one block.*features",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_is_found_and_named(name):
    make, law, cause = MUTANTS[name]
    transform, x = make()
    with pytest.raises(LawViolation) as caught:
        ph.testing.assert_transform_laws(transform, x)
    assert caught.value.law == law
    assert re.search(cause, caught.value.cause)
    assert caught.value.expected != caught.value.found


def test_a_density_of_angles_is_found_and_named():
    class OfAngles(hdist.Uniform):
        def log_prob(self, value):
            return super().log_prob(value) + 0.5 * torch.log1p(-value[..., 2].square())

    with pytest.raises(LawViolation) as caught:
        ph.testing.assert_distribution_laws(OfAngles(geoopt.Sphere(), 2, dtype=torch.float64))
    assert caught.value.law == "total_mass_is_one"
    assert float(caught.value.found) == pytest.approx(math.pi / 4, rel=1e-3)
    assert caught.value.cause == (
        "unclear: is the density normalised, and over the manifold, not over angles or other coordinates?"
    )


# ---- Volumes by hand, on the manifolds whose metric is the package's own ----


def test_volumes_of_rotations_are_those_of_euler_angles():
    angles = double(0.3, 0.2, -1.0, -2.0, 1.5, 0.4, 3.0, 3.0, 2.0).reshape(3, 3)
    log_volume = Space(hdist.constraints.on_manifold(ROTATIONS)).log_volume(euler, angles)[1]
    assert torch.allclose(log_volume, angles[:, 1].sin().log(), atol=1e-12)


def test_volumes_of_the_torus_are_those_of_angles():
    log_volume = Space(hdist.constraints.on_manifold(ph.manifolds.Torus(2))).log_volume(wrapped, double(3.0, 2.0)[None])
    assert log_volume[1].abs() < 1e-12
    assert log_volume[2] == pytest.approx(1)


def test_volumes_of_the_hyperboloid_cancel_to_one_in_cosh_2r():
    M = lorentz(4.0)
    found = Space(hdist.constraints.on_manifold(M)).log_volume(lambda v: G.exp0(M, v), double(6.0, 0.0)[None])
    assert found[2].item() == pytest.approx(math.cosh(6.0))


def test_volumes_of_a_mixed_product_are_products():
    M = geoopt.ProductManifold((ROTATIONS, (3, 3)), (SPHERE, 2))
    coordinates = double(0.3, 0.2, -1.0, 1.0)[None]

    def chart(v):
        return torch.cat([euler(v[:, :3]).flatten(1), v[:, 3:].cos(), v[:, 3:].sin()], -1)

    log_volume = Space(hdist.constraints.on_manifold(M)).log_volume(chart, coordinates)[1]
    assert torch.allclose(log_volume, coordinates[:, 1].sin().log(), atol=1e-12)


# ---- Symmetry ----


def test_a_map_commutes_with_the_isometries_it_should():
    x = uniform(ROTATIONS)
    transform, _ = CORRECT["rotations"]()
    ph.testing.is_equivariant(transform, lambda R: R @ euler(double(0.5, 1.0, 2.0)), x)
    with pytest.raises(LawViolation, match="singled out"):
        ph.testing.is_equivariant(transform, lambda R: euler(double(0.5, 1.0, 2.0)) @ R, x)


def test_a_log_det_that_an_isometry_changes_is_found():
    class Leaning(Rotate):
        def log_abs_det_jacobian(self, x, y):
            return x[..., 0, 0]

    leaning = Leaning(ROTATIONS, torch.eye(3, dtype=DOUBLE))
    with pytest.raises(LawViolation, match="log-dets"):
        ph.testing.is_equivariant(leaning, lambda R: R @ euler(double(0.5, 1.0, 2.0)), uniform(ROTATIONS))


def mixing(self, x):
    y = Blocks._call(self, x)
    return torch.cat([y[..., :-1], wrapped(y[..., -1:] + 1e-6 * x[..., :1])], -1)


def mixing_backwards(self, x):
    y = Blocks._call(self, x)
    on_sphere = y[..., 3:6] + 1e-6 * x[..., -1:]
    return torch.cat([y[..., :3], on_sphere / on_sphere.norm(dim=-1, keepdim=True), y[..., 6:]], -1)


def log_det_of_a_pair(self, x, y):
    return Blocks.log_abs_det_jacobian(self, x, y) + 1e-6 * x[..., 0] * x[..., -1]


@pytest.mark.parametrize(
    "methods", [{"_call": mixing}, {"_call": mixing_backwards}, {"log_abs_det_jacobian": log_det_of_a_pair}]
)
def test_factors_that_depend_on_each_other_are_found(methods):
    ph.testing.factors_are_independent(blocks(), on_product())
    with pytest.raises(LawViolation, match="mixes"):
        ph.testing.factors_are_independent(blocks(wrong(Blocks, **methods)), on_product())


def test_a_law_of_products_refuses_other_manifolds_by_name():
    with pytest.raises(TypeError, match="Sphere"):
        ph.testing.factors_are_independent(*CORRECT["sphere 2"]())
