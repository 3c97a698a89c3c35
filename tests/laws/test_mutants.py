"""Breaks the library and sees a law fail on one of its cases: the cases of tests/cases.py reveal real slips."""

import pytest
import torch

from pyro_hyperbolic.distributions.transforms.coupling import Coupling
from pyro_hyperbolic.geometry.hyperboloid import Hyperboloid
from pyro_hyperbolic.testing import LawViolation, density_laws, map_laws
from tests.cases import DISTRIBUTIONS, TRANSFORMS, points

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
]


@pytest.mark.parametrize(("mutate", "law", "name"), MUTANTS, ids=lambda value: getattr(value, "__name__", value))
def test_the_law_catches_the_mutant(mutate, law, name, monkeypatch):
    case = CASES[name]
    arguments = () if name == WRAPPED else (points(case),)
    law(case.make(), *arguments)  # the correct code passes
    mutate(monkeypatch)
    with pytest.raises(LawViolation) as caught:
        law(case.make(), *arguments)
    assert caught.value.law == law.__name__
    assert caught.value.expected != caught.value.found
