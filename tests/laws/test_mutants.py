"""Breaks the library and sees a law fail on one of its cases: the cases of tests/cases.py reveal real slips."""

import math
from functools import reduce

import geoopt
import numpy as np
import pytest
import torch

from pyro_hyperbolic.distributions.transforms.coupling import Coupling
from pyro_hyperbolic.distributions.transforms.runge_kutta import Steps
from pyro_hyperbolic.geometry import hyperboloid, product
from pyro_hyperbolic.geometry.hyperboloid import Hyperboloid
from pyro_hyperbolic.geometry.rotations import RotationGroup
from pyro_hyperbolic.geometry.sphere import Sphere
from pyro_hyperbolic.testing import LawViolation, density_laws, map_laws
from tests.cases import DISTRIBUTIONS, TRANSFORMS, points
from tests.textbook import Dilation, exp, log

CASES = {case.name: case for case in TRANSFORMS + DISTRIBUTIONS}


def volumes(patch, wrong):
    """Puts ``wrong(log_volume, n, k)`` in place of the log-volume of every chart of the hyperboloid."""
    for name in ("exp0", "exp_at", "log0", "log_at"):
        right, extra = getattr(Hyperboloid, name), "log" in name  # points have one coordinate more

        def chart(self, *args, right=right, extra=extra):
            result, log_volume = right(self, *args)
            return result, wrong(log_volume, args[-1].size(-1) - extra, self.k)

        patch.setattr(Hyperboloid, name, chart)


def n_for_n_minus_one(patch):
    volumes(patch, lambda log_volume, n, k: log_volume * n / max(n - 1, 1))


def volumes_dropped(patch):
    volumes(patch, lambda log_volume, n, k: 0 * log_volume)


def sign_of_the_volumes_flipped(patch):
    """Defect 1 of the paper's code."""
    volumes(patch, lambda log_volume, n, k: -log_volume)


def radius_counted_twice(patch):
    volumes(patch, lambda log_volume, n, k: log_volume + (n - 1) * k.sqrt().log())


def radius_forgotten(patch):
    def contains(self, x):  # which alone still knows k
        return (x[..., 0] ** 2 - x[..., 1:].square().sum(-1) - self.k).abs() < 1e-6 * x[..., 0] ** 2

    patch.setattr(Hyperboloid, "radius", lambda self, like: torch.ones((), dtype=like.dtype))
    patch.setattr(Hyperboloid, "contains", contains)


def transport_skipped(patch):
    def translate(self, p, x, inverse=False):
        space = x[..., 1:] - p[..., 1:] if inverse else x[..., 1:] + p[..., 1:]
        return torch.cat([(self.k + space.square().sum(-1, keepdim=True)).sqrt(), space], dim=-1)

    def exp_at(self, p, v):
        x, log_volume = self.exp0(v)
        return translate(self, p, x), log_volume

    patch.setattr(Hyperboloid, "translate", translate)
    patch.setattr(Hyperboloid, "exp_at", exp_at)
    patch.setattr(Hyperboloid, "log_at", lambda self, p, x: self.log0(translate(self, p, x, True)))


def sign_of_the_inverse_flipped(patch):
    right = Hyperboloid.translate_tangent
    wrong = lambda self, t, v, inverse=False, bound=None: right(self, t, v, False, bound)  # noqa: E731
    patch.setattr(Hyperboloid, "translate_tangent", wrong)


def scale_dropped_from_the_log_det(patch):
    right = Coupling.forward_block
    patch.setattr(Coupling, "forward_block", lambda *args: (right(*args)[0], torch.zeros(())))


def sign_of_the_inverse_log_det_flipped(patch):
    right = Coupling.inverse_block
    patch.setattr(Coupling, "inverse_block", lambda *args: (right(*args)[0], -right(*args)[1]))


def scale_bounded_on_the_way_there_only(patch):
    right = Coupling.inverse_block

    def unbounded(self, *args):
        with pytest.MonkeyPatch.context() as one:
            one.setattr(self, "log_scale_bound", None)
            return right(self, *args)

    patch.setattr(Coupling, "inverse_block", unbounded)


def sine_for_hyperbolic_sine(patch):
    """The volume of the sphere, r / sin r for r / sinh r."""
    patch.setattr(hyperboloid, "log_sinhc", lambda z: (z.sqrt() / math.pi).sinc().abs().log())


def volume_of_a_factor_dropped(patch):
    patch.setattr(product, "_sum", lambda values: reduce(torch.add, [v for i, v in enumerate(values) if i != 1]))


def volume_of_quaternions(patch):
    patch.setattr(RotationGroup, "log_total_volume", lambda self, n: math.log(math.pi**2))


def volume_of_one(patch):
    patch.setattr(RotationGroup, "log_total_volume", lambda self, n: 0.0)


def volume_of_the_circle(patch):
    patch.setattr(Sphere, "log_total_volume", lambda self, n: math.log(2 * math.pi))


def frame_of_the_start_at_the_end(patch):
    right = Steps._step_and_jacobian
    wrong = lambda self, s, begin, finish, base=None: right(self, s, begin, finish, s.detach())  # noqa: E731
    patch.setattr(Steps, "_step_and_jacobian", wrong)


def log_det_of_the_steps_dropped(patch):
    right = Steps._log_det

    def none(self, jacobians):
        fine, log_det = right(self, jacobians)
        return fine, 0 * log_det

    patch.setattr(Steps, "_log_det", none)


def one_step_less_on_the_way_back(patch):
    right = Steps.implicit

    def implicit(self, s):
        self.times = self.times[1:]
        return right(self, s)

    patch.setattr(Steps, "implicit", implicit)


WRAPPED = "wn-k4-off-centre"
MUTANTS = [
    (n_for_n_minus_one, map_laws.log_det_matches_autograd, "exp0-n2-k4"),
    (n_for_n_minus_one, density_laws.total_mass_is_one, WRAPPED),
    (volumes_dropped, map_laws.log_det_matches_autograd, "whc-n3-k4"),
    (sign_of_the_volumes_flipped, map_laws.log_det_matches_autograd, "tc-n3-k4"),
    (radius_counted_twice, map_laws.log_det_matches_autograd, "exp0-n3-k4"),
    (radius_counted_twice, density_laws.total_mass_is_one, WRAPPED),
    (radius_counted_twice, density_laws.samples_follow_the_density, WRAPPED),
    (radius_forgotten, map_laws.stays_on_manifold, "exp0-n2-k4"),
    (transport_skipped, map_laws.log_det_matches_autograd, "translation-n2-k4"),
    (transport_skipped, density_laws.total_mass_is_one, WRAPPED),
    (sign_of_the_inverse_flipped, map_laws.round_trip, "whc-n5-k0.25"),
    (scale_dropped_from_the_log_det, map_laws.log_det_matches_autograd, "tc-n3-k4"),
    (sign_of_the_inverse_log_det_flipped, map_laws.inverse_log_det_is_negative, "whc-n3-k4"),
    (scale_bounded_on_the_way_there_only, map_laws.round_trip, "tc-n3-k4"),
    (sine_for_hyperbolic_sine, map_laws.log_det_matches_autograd, "exp0-n3-k4"),
    (sine_for_hyperbolic_sine, density_laws.total_mass_is_one, WRAPPED),
    (volume_of_a_factor_dropped, map_laws.log_det_matches_autograd, "exp0-h2xh2xr"),
    (volume_of_a_factor_dropped, density_laws.total_mass_is_one, "wn-h2xh2xr"),
    (volume_of_quaternions, density_laws.total_mass_is_one, "base-so3"),
    (volume_of_one, density_laws.total_mass_is_one, "base-so3"),
    (volume_of_the_circle, density_laws.total_mass_is_one, "base-s2"),
    (frame_of_the_start_at_the_end, map_laws.log_det_matches_autograd, "continuous-s2"),
    (log_det_of_the_steps_dropped, map_laws.log_det_matches_autograd, "continuous-t2"),
    (one_step_less_on_the_way_back, map_laws.round_trip, "continuous-s2"),
]


@pytest.mark.parametrize(("mutate", "law", "name"), MUTANTS, ids=lambda value: getattr(value, "__name__", value))
def test_the_law_catches_the_mutant(mutate, law, name, monkeypatch):
    case = CASES[name]
    arguments = () if case in DISTRIBUTIONS else (points(case),)
    law(case.make(), *arguments)  # the correct code passes
    mutate(monkeypatch)
    with pytest.raises(LawViolation) as caught:
        law(case.make(), *arguments)
    assert caught.value.law == law.__name__
    assert caught.value.expected != caught.value.found


# ---- The textbook log-determinant of a continuous flow, the integral of a divergence ----


class Integrated(Dilation):
    """A dilation on k = 1 in unit time, v(t) = exp(t * log_scale) v, whose log-determinant is an integral."""

    def __init__(self, cache_size=0):
        super().__init__(1.0, cache_size=cache_size)

    def velocity(self, x):
        v = log(x, 1.0)
        return torch.func.jvp(lambda v: exp(v, 1.0), (v,), (self.log_scale * v,))[1]

    def log_abs_det_jacobian(self, x, y):
        nodes, weights = map(x.new_tensor, np.polynomial.legendre.leggauss(16))
        v = log(x, 1.0)
        paths = [exp((t * self.log_scale).exp() * v, 1.0) for t in (nodes + 1) / 2]
        return sum(weight / 2 * self.divergence(point) for weight, point in zip(weights, paths, strict=True))

    def divergence(self, x):
        return self.in_frames(x, x.size(-1) - 2)

    def in_frames(self, x, power):
        """The sum of E_i(f_i) + f_i div(E_i) in the frames E_i of the boosts, of divergence (n - 1) x_i / (1 + x_0)."""
        frame = frame_of_boosts(x)
        total = power * (self.components(x) * x[..., 1:]).sum(-1) / (1 + x[..., 0])
        for i in range(frame.size(-2)):
            total = total + torch.func.jvp(self.components, (x,), (frame[..., i, :],))[1][..., i]
        return total

    def components(self, x):
        form = torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=x.dtype)
        return (frame_of_boosts(x) @ (form * self.velocity(x)).unsqueeze(-1)).squeeze(-1)


def frame_of_boosts(x):
    space = x[..., 1:]
    eye = torch.eye(space.size(-1), dtype=x.dtype)
    return torch.cat(
        [space.unsqueeze(-1), eye + space.unsqueeze(-1) * space.unsqueeze(-2) / (1 + x[..., :1, None])], -1
    )


def ambient_trace(self, x):
    """The usual form on spheres, tr D(V o projx), which is wrong on the hyperboloid."""
    field, axes = lambda x: self.velocity(geoopt.Lorentz().projx(x)), torch.eye(x.size(-1), dtype=x.dtype)
    return sum(torch.func.jvp(field, (x,), (axis.expand_as(x),))[1][..., i] for i, axis in enumerate(axes))


INTEGRALS = {
    "in frames": (None, True),
    "n for n - 1 in div E_i": (lambda self, x: self.in_frames(x, x.size(-1) - 1), False),
    "ambient trace with projx": (ambient_trace, False),
}


@pytest.mark.parametrize("name", INTEGRALS)
def test_an_integrated_divergence_is_right_in_frames_only(name):
    divergence, right = INTEGRALS[name]
    kind = Integrated if right else type("Wrong", (Integrated,), {"divergence": divergence})
    v = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if right:
        map_laws.log_det_matches_autograd(kind(), exp(v, 1.0))
        return
    with pytest.raises(LawViolation) as caught:
        map_laws.log_det_matches_autograd(kind(), exp(v, 1.0))
    assert caught.value.law == "log_det_matches_autograd"
