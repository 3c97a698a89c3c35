r"""The property-test kit: laws that every transform and distribution on a manifold obeys.

A broken law raises :class:`LawViolation`, an AssertionError that names the law, the failing input and the likely cause.
``pyro_hyperbolic.testing.strategies`` generates points and distributions for hypothesis. It needs the extra
``testing``, and is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .density_laws import (
    own_samples_score_as_stored_points,
    rsample_gradient_is_unbiased,
    samples_follow_the_density,
    total_mass_is_one,
)
from .diagnosis import LawViolation, NotChecked
from .geometry_laws import assert_geometry_laws
from .gradient_laws import gradients_are_finite, gradients_match_differences
from .map_laws import (
    batch_members_are_independent,
    inverse_log_det_is_negative,
    log_det_matches_autograd,
    round_trip,
    shapes_broadcast,
    stays_on_manifold,
)
from .noise import batch_members_have_own_noise
from .object_laws import (
    arguments_satisfy_their_constraints,
    cache_survives_an_optimiser_step,
    conditioning_is_respected,
    deepcopy_pickle_state_dict,
    does_not_alias_its_input,
    float32_agrees_with_float64,
)
from .suites import assert_constraint_laws, assert_distribution_laws, assert_transform_laws
from .symmetry_laws import factors_are_independent, is_equivariant

if TYPE_CHECKING:
    from . import strategies as strategies

__all__ = [
    "LawViolation",
    "NotChecked",
    "arguments_satisfy_their_constraints",
    "assert_constraint_laws",
    "assert_distribution_laws",
    "assert_geometry_laws",
    "assert_transform_laws",
    "batch_members_are_independent",
    "batch_members_have_own_noise",
    "cache_survives_an_optimiser_step",
    "conditioning_is_respected",
    "deepcopy_pickle_state_dict",
    "does_not_alias_its_input",
    "factors_are_independent",
    "float32_agrees_with_float64",
    "gradients_are_finite",
    "gradients_match_differences",
    "inverse_log_det_is_negative",
    "is_equivariant",
    "log_det_matches_autograd",
    "own_samples_score_as_stored_points",
    "round_trip",
    "rsample_gradient_is_unbiased",
    "samples_follow_the_density",
    "shapes_broadcast",
    "stays_on_manifold",
    "total_mass_is_one",
]


def __getattr__(name: str) -> Any:
    if name == "strategies":
        try:
            return importlib.import_module(".strategies", __name__)
        except ImportError as error:  # hasattr, help and completion expect an AttributeError
            raise AttributeError(str(error)) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "strategies"})
