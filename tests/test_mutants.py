"""Breaks the code and watches the laws fail: each mutant names the law that must catch it."""

from collections.abc import Callable

import pytest
import torch

from pyro_hyperbolic.distributions.transforms.base import TangentModule
from pyro_hyperbolic.distributions.transforms.coupling import Coupling
from pyro_hyperbolic.distributions.transforms.tangent_coupling import TangentCoupling
from pyro_hyperbolic.geometry import hyperboloid
from pyro_hyperbolic.geometry.hyperboloid import Hyperboloid, time_of
from pyro_hyperbolic.testing import density_laws, map_laws
from tests.cases import AUTOMORPHISMS, CHARTS, DISTRIBUTIONS, points

CASES = {case.name: case for case in AUTOMORPHISMS + CHARTS}
WRAPPED = next(case for case in DISTRIBUTIONS if case.name == "wn-k4-off-centre")
exp0, exp_at, log0, log_at = Hyperboloid.exp0, Hyperboloid.exp_at, Hyperboloid.log0, Hyperboloid.log_at
translate_tangent = Hyperboloid.translate_tangent
forward, backward = TangentModule._forward, TangentModule._backward


def patch_charts(patch, wrong):
    """Puts ``wrong(geometry, log_volume, n)`` in place of the log-volume of every chart."""

    def patched(name, kernel, size):
        def mutant(self, *arguments):
            result, log_volume = kernel(self, *arguments)
            return result, wrong(self, log_volume, arguments[-1].size(-1) - size)

        patch.setattr(Hyperboloid, name, mutant)

    for name, kernel, size in (("exp0", exp0, 0), ("exp_at", exp_at, 0), ("log0", log0, 1), ("log_at", log_at, 1)):
        patched(name, kernel, size)


def n_for_n_minus_one(patch):
    patch_charts(patch, lambda self, log_volume, n: log_volume * n / max(n - 1, 1))


def log_det_of_the_scale_dropped(patch):
    couple = TangentCoupling._move
    patch.setattr(TangentCoupling, "_move", lambda *args: (couple(*args)[0], args[2].new_zeros(())))


def log_det_of_the_chart_dropped(patch):
    patch.setattr(
        TangentModule,
        "_forward",
        lambda self, x: (forward(self, x)[0], self._tangent_forward(self._geometry.log0(x)[0])[1]),
    )
    patch.setattr(TangentModule, "_log_det_at", lambda self, x: self._forward(x)[1])


def transport_skipped(patch):
    def mutant(self, p, x, inverse=False):
        radius = self.radius(x)
        space = x[..., 1:] - p[..., 1:] if inverse else x[..., 1:] + p[..., 1:]
        return torch.cat([radius * time_of(space / radius), space], dim=-1)

    def exp_at(self, p, v):
        x, log_volume = exp0(self, v)
        return mutant(self, p, x), log_volume

    patch.setattr(Hyperboloid, "translate", mutant)
    patch.setattr(Hyperboloid, "exp_at", exp_at)
    patch.setattr(Hyperboloid, "log_at", lambda self, p, x: log0(self, mutant(self, p, x, True)))


def radius_forgotten(patch):
    patch.setattr(Hyperboloid, "radius", lambda self, like: torch.ones((), dtype=like.dtype))
    # The check of membership is the only one that still knows k.
    patch.setattr(
        Hyperboloid,
        "contains",
        lambda self, x: (x[..., 0] ** 2 - x[..., 1:].square().sum(-1) - self.k).abs() < 1e-6 * x[..., 0] ** 2,
    )


def radius_counted_twice(patch):
    patch_charts(patch, lambda self, log_volume, n: log_volume + (n - 1) * self.k.sqrt().log())


def sign_of_the_inverse_flipped(patch):
    def mutant(self, t, v, inverse=False, bound=None):
        return translate_tangent(self, t, v, False, bound)

    patch.setattr(Hyperboloid, "translate_tangent", mutant)


def sign_of_the_inverse_log_det_flipped(patch):
    def mutant(self, y):
        x, log_det = backward(self, y)
        return x, -log_det

    patch.setattr(TangentModule, "_backward", mutant)


def sign_of_the_chart_terms_flipped(patch):
    """Defect 1 of the paper's code: the wrong sign on every exp and log term."""

    def mutant(self, x):
        y, log_det = forward(self, x)
        volume_at_w = self._geometry.log0(y)[1]
        volume_at_v = self._geometry.log0(x)[1]
        return y, log_det - 2 * (volume_at_w - volume_at_v)

    patch.setattr(TangentModule, "_forward", mutant)
    patch.setattr(TangentModule, "_log_det_at", lambda self, x: mutant(self, x)[1])


def target_off_the_manifold_at_odd_n(patch):
    """Defect 2 of the paper's code: at odd n the time of ``t`` belongs to a vector of another size."""

    def mutant(bound, t, diameter):
        half = (1 + time_of(2 * t[..., :-1] / diameter)) / 2
        return t / (diameter * half), 1 / half

    patch.setattr(hyperboloid, "_in_ball_to", mutant)


def bound_of_the_scale_only_forward(patch):
    """A realistic slip: the log-scale is bounded on the way there and not on the way back."""
    outputs = Coupling._outputs

    def unbounded(self, space, y1, y2):
        bound, self.log_scale_bound = self.log_scale_bound, None
        try:
            return self._move_back(space, y2, *outputs(self, y1, y2))
        finally:
            self.log_scale_bound = bound

    patch.setattr(Coupling, "inverse_block", unbounded)


def _transform(law: Callable, name: str) -> Callable[[], None]:
    return lambda: law(CASES[name].make(), points(CASES[name]))


MUTANTS = [
    (n_for_n_minus_one, "log_det_matches_autograd", _transform(map_laws.log_det_matches_autograd, "exp0-n2-k4")),
    (n_for_n_minus_one, "total_mass_is_one", lambda: density_laws.total_mass_is_one(WRAPPED.make())),
    (
        log_det_of_the_scale_dropped,
        "log_det_matches_autograd",
        _transform(map_laws.log_det_matches_autograd, "tc-n3-k4"),
    ),
    (
        log_det_of_the_chart_dropped,
        "log_det_matches_autograd",
        _transform(map_laws.log_det_matches_autograd, "whc-n3-k4"),
    ),
    (transport_skipped, "log_det_matches_autograd", _transform(map_laws.log_det_matches_autograd, "translation-n2-k4")),
    (transport_skipped, "total_mass_is_one", lambda: density_laws.total_mass_is_one(WRAPPED.make())),
    (radius_forgotten, "stays_on_manifold", _transform(map_laws.stays_on_manifold, "exp0-n2-k4")),
    (radius_counted_twice, "log_det_matches_autograd", _transform(map_laws.log_det_matches_autograd, "exp0-n3-k4")),
    (radius_counted_twice, "total_mass_is_one", lambda: density_laws.total_mass_is_one(WRAPPED.make())),
    (
        radius_counted_twice,
        "samples_follow_the_density",
        lambda: density_laws.samples_follow_the_density(WRAPPED.make()),
    ),
    (sign_of_the_inverse_flipped, "round_trip", _transform(map_laws.round_trip, "whc-n5-k0.25")),
    (
        sign_of_the_inverse_log_det_flipped,
        "inverse_log_det_is_negative",
        _transform(map_laws.inverse_log_det_is_negative, "whc-n3-k4"),
    ),
    (
        sign_of_the_chart_terms_flipped,
        "log_det_matches_autograd",
        _transform(map_laws.log_det_matches_autograd, "tc-n3-k4"),
    ),
    (target_off_the_manifold_at_odd_n, "round_trip", _transform(map_laws.round_trip, "whc-n5-k0.25")),
    (bound_of_the_scale_only_forward, "round_trip", _transform(map_laws.round_trip, "tc-n3-k4")),
]


@pytest.mark.parametrize(("mutate", "law", "check"), MUTANTS, ids=[f"{m[0].__name__}-{m[1]}" for m in MUTANTS])
def test_the_law_catches_the_mutant(mutate, law, check, monkeypatch):
    check()  # the correct code passes
    with monkeypatch.context() as patch:
        mutate(patch)
        with pytest.raises(AssertionError, match=law) as caught:
            check()
        assert caught.value.expected != caught.value.found
