r"""The space of a module in its ``state_dict``: weights trained in one space are wrong in another, yet they fit."""

import warnings
from typing import Any

import torch
from geoopt.manifolds.base import Manifold

from pyro_hyperbolic import geometry
from pyro_hyperbolic.geometry import checks

__all__ = ["SavesSpace"]

_KEY = "_extra_state"


class SavesSpace(torch.nn.Module):
    """A module whose ``state_dict`` holds the name and the fixed parameters of its manifold, as extra state.

    A parameter that is learnable is in the ``state_dict`` by itself, and one that is latent in no space. Loading into
    another space raises before anything of this module is loaded; a file without the space loads with a warning. (A
    module whose curvature is learnable takes weights of the fixed curvature that it has at the time.)
    """

    manifold: Manifold

    def get_extra_state(self) -> dict[str, Any]:
        """Returns the name of the geometry, and its parameters that are fixed."""
        is_fixed = not any(value.requires_grad for value in self.manifold.parameters())
        return self._space() if is_fixed else {"manifold": geometry.bind(self.manifold).name}

    def _space(self) -> dict[str, Any]:
        manifold = self.manifold
        space = geometry.bind(manifold)
        found = {} if getattr(manifold, "is_latent", False) else space.parameters()
        return {"manifold": space.name, **{name: value.detach().clone() for name, value in found.items()}}

    def set_extra_state(self, state: Any) -> None:
        """Does nothing: the space is compared before the module is loaded, and is never changed."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        ours, key = self.get_extra_state(), prefix + _KEY
        if key not in state_dict:
            warnings.warn(
                f"this state_dict does not say in which space {prefix.rstrip('.') or 'it'} was trained; it is loaded "
                f"into {spoken(ours)}: check that it is the same, and save it anew.",
                stacklevel=2,
            )
            state_dict[key] = ours  # of a copy that torch made: nothing is missing then
        elif not (is_same_space(ours, state_dict[key]) or is_same_space(self._space(), state_dict[key])):
            raise ValueError(
                f"this state_dict is of {type(self).__name__} on {spoken(state_dict[key])}, but is loaded into one on "
                f"{spoken(ours)}: its densities would be those of another space; build the module on the manifold of "
                f"the file."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def spoken(state: Any) -> str:
    """Returns the words for a saved space, ``Lorentz(k=1)``."""
    if not isinstance(state, dict) or "manifold" not in state:
        return repr(state)
    fixed = {name: value for name, value in state.items() if name != "manifold"}
    if not fixed:
        return f"{state['manifold']} of learnable or latent parameters"
    values = ", ".join(f"{name}={checks.describe_values(value)}" for name, value in fixed.items())
    return f"{state['manifold']}({values})"


def is_same_space(ours: Any, theirs: Any) -> bool:
    """Returns whether two saved spaces are one: up to float32 rounding, since modules are cast and moved."""
    if not isinstance(theirs, dict) or ours.keys() != theirs.keys() or ours["manifold"] != theirs["manifold"]:
        return False
    return all(checks.same_value(value, theirs[name]) for name, value in ours.items() if name != "manifold")
