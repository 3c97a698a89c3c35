"""Descriptions of wrong arguments, and guesses at what was meant, for error messages."""

import reprlib
from typing import Any

import geoopt
import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor
from torch.distributions import Distribution

__all__ = ["manifold_remedy", "shown", "tensor_remedy"]

_ORDER = (
    "check the order of the arguments: functions in geometry and charts take the manifold first, as in exp0(M, v); "
    "distributions and couplings take it by name, manifold=M"
)


def shown(value: Any) -> str:
    """Returns a short description of ``value``; arrays are reduced to type and shape."""
    if isinstance(value, type):
        return f"the class {value.__module__.partition('.')[0]}.{value.__name__}"
    if isinstance(value, Tensor):
        return (
            f"a {'' if value.layout == torch.strided else 'sparse '}{value.dtype} tensor of shape {tuple(value.shape)}"
        )
    if isinstance(value, (torch.nn.Module, Distribution)):
        return f"an object of type {type(value).__name__}"
    if getattr(value, "ndim", 0) and hasattr(value, "shape"):
        return f"a {type(value).__module__}.{type(value).__name__} of shape {tuple(value.shape)}"
    return reprlib.repr(value)


def manifold_remedy(value: Any) -> str:
    """Returns what to write instead of ``value`` where a manifold is needed, or ``""`` if there is no guess."""
    if isinstance(value, type) and issubclass(value, Manifold):
        return f"make an instance, geoopt.{value.__name__}({'1' if value is geoopt.Euclidean else ''})"
    if isinstance(value, geoopt.Stiefel | geoopt.BirkhoffPolytope):
        return (
            "no map of R^n is a bijection onto it, so a density or a guide in a chart would be wrong; use a manifold "
            "with a global chart, such as geoopt.Lorentz()"
        )
    if value is None:
        return "pass geoopt.Lorentz(); only distributions, transforms and flows take None for it"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"for a squared radius k write geoopt.Lorentz(k={value})"
    return _ORDER if isinstance(value, Tensor) or hasattr(value, "__array__") else ""


def tensor_remedy(value: Any) -> str:
    """Returns what to write instead of ``value`` where a tensor is needed."""
    if isinstance(value, Manifold) or (isinstance(value, type) and issubclass(value, Manifold)):
        return _ORDER
    for method in ("to_numpy", "toarray"):  # DataFrames; sparse matrices
        if hasattr(value, method):
            return f"wrap it in torch.as_tensor(x.{method}())"
    if isinstance(value, (int, float, list, tuple)) or hasattr(value, "__array__"):
        return "wrap it in torch.as_tensor(...)"
    return "pass a tensor of coordinates"
