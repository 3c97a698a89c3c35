r"""Saves the manifold of a module in its ``state_dict``: on another manifold the weights would load, but be wrong."""

import warnings
from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic import geometry
from pyro_hyperbolic.geometry import checks

__all__ = ["SavesSpace"]

_KEY = "_extra_state"


class SavesSpace(torch.nn.Module):
    """A module whose ``state_dict`` holds the name and the fixed parameters of its manifold, as extra state.

    Learnable parameters are in the ``state_dict`` anyway; latent ones are not saved. Loading onto another manifold
    raises before any weight of this module is loaded. A file without a manifold loads with a warning. A module with
    learnable curvature also loads weights of a fixed curvature equal to its current one.
    """

    manifold: Manifold

    def __setattr__(self, name: str, value: Any) -> None:
        # torch registers a module past a property without a setter, and the old manifold would stay in use.
        if name == "manifold":
            raise AttributeError(f"the manifold of a {type(self).__name__} is fixed; build another on that manifold.")
        super().__setattr__(name, value)

    def get_extra_state(self) -> dict[str, Any]:
        """Returns the name of the geometry and its fixed parameters."""
        is_fixed = not any(value.requires_grad for value in self.manifold.parameters())
        space = self._current_space() if is_fixed else {"manifold": geometry.bind(self.manifold).name}
        return {**space, **self._settings()}

    def _settings(self) -> dict[str, Tensor]:
        """Returns the numbers besides weights and manifold without which the map is another one; none by default."""
        return {}

    def _current_space(self) -> dict[str, Any]:
        manifold = self.manifold
        space = geometry.bind(manifold)
        found = {} if getattr(manifold, "is_latent", False) else space.parameters()
        return {"manifold": space.name, **{name: value.detach().clone() for name, value in found.items()}}

    def set_extra_state(self, state: Any) -> None:
        """Does nothing: loading compares the manifold, and never changes it."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        ours, key = self.get_extra_state(), prefix + _KEY
        if key not in state_dict:
            warnings.warn(
                f"this state_dict does not say on which manifold {prefix.rstrip('.') or 'it'} was trained; it is "
                f"loaded onto {describe_space(ours)}: check that this is right, and save it again.",
                stacklevel=2,
            )
            state_dict[key] = ours  # torch passes a copy; with the key set, nothing is reported missing
        elif not any(
            is_same_space(space, state_dict[key]) for space in (ours, self._current_space() | self._settings())
        ):
            learnable = any(value.requires_grad for value in self.manifold.parameters())
            remedy = "; a learnable curvature may start at a fixed one of the file" if learnable else ""
            raise ValueError(
                f"this state_dict is of {type(self).__name__} on {describe_space(state_dict[key])}, but is loaded onto "
                f"{describe_space(ours)}, where its densities would be wrong; build the module on the manifold, and "
                f"with the settings, of the file{remedy}."
            )
        elif ours.keys() != state_dict[key].keys():  # what is learnable here was fixed, at the value that it has now
            for path, module in self.named_modules(remove_duplicate=False):
                if module is self.manifold:
                    state_dict.update(module.state_dict(prefix=f"{prefix}{path}."))
        super()._load_from_state_dict(state_dict, prefix, *args)


def describe_space(state: Any) -> str:
    """Returns the description of a saved space, as ``Lorentz(k=1)``."""
    if not isinstance(state, dict) or "manifold" not in state:
        return repr(state)
    fixed = {name: value for name, value in state.items() if name != "manifold"}
    if not fixed:
        return f"{state['manifold']} with learnable or latent parameters"
    values = ", ".join(f"{name}={checks.describe_values(value)}" for name, value in fixed.items())
    return f"{state['manifold']}({values})"


def is_same_space(ours: Any, theirs: Any) -> bool:
    """Returns whether two saved spaces are equal up to float32 rounding, since modules are cast to other dtypes."""
    if not isinstance(theirs, dict) or ours.keys() != theirs.keys() or ours["manifold"] != theirs["manifold"]:
        return False
    return all(checks.same_value(value, theirs[name]) for name, value in ours.items() if name != "manifold")
