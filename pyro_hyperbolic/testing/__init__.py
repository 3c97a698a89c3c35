r"""Laws that every transform and distribution on a manifold obeys, as functions that raise AssertionError."""

from .densities import samples_follow_the_density, total_mass_is_one
from .laws import (
    deepcopy_pickle_state_dict,
    does_not_alias_its_input,
    float32_agrees_with_float64,
    gradients_are_finite,
    inverse_log_det_is_negative,
    log_det_matches_autograd,
    round_trip,
    shapes_broadcast,
    stays_on_manifold,
)

__all__ = [
    "deepcopy_pickle_state_dict",
    "does_not_alias_its_input",
    "float32_agrees_with_float64",
    "gradients_are_finite",
    "inverse_log_det_is_negative",
    "log_det_matches_autograd",
    "round_trip",
    "samples_follow_the_density",
    "shapes_broadcast",
    "stays_on_manifold",
    "total_mass_is_one",
]
