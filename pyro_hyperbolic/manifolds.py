r"""Manifold objects that are PyroModules, so that their curvature can be a Pyro parameter or a latent variable."""

import abc
from typing import Any

import geoopt
import torch
from geoopt.manifolds.base import Manifold
from pyro.nn import PyroModule, PyroParam
from torch import Tensor
from torch.distributions import constraints

from pyro_hyperbolic.geometry import checks

__all__ = ["Lorentz", "is_of_one_run", "resolved"]


class PyroABCMeta(type(PyroModule), abc.ABCMeta):  # type: ignore[misc]
    """The metaclass of abstract classes that can be PyroModules, which have one of their own."""


class Lorentz(geoopt.Lorentz, PyroModule, metaclass=PyroABCMeta):
    r"""The hyperboloid :math:`\{x : \langle x, x \rangle = -k,\ x_0 > 0\}` of curvature :math:`-1/k`, a PyroModule.

    A ``geoopt.Lorentz`` with three differences: ``k`` is a buffer unless it is learnable (so that ``pyro.module`` does
    not complain of a frozen parameter); a learnable ``k`` is a ``PyroParam`` constrained to be positive (geoopt's is
    unconstrained, and an optimiser can drive it below zero); and ``k`` may be assigned ``PyroParam(...)`` or
    ``PyroSample(...)`` like any attribute of a PyroModule.

    Args:
        k: Squared radius, a positive number or tensor, in units of squared distance. Python numbers get the default
            dtype; give a float64 tensor where ``k`` is not exact in float32 and points are float64.
        learnable: Whether ``k`` is a positive parameter.

    Raises:
        TypeError: If ``k`` is not a real number or tensor.
        ValueError: If ``k`` is not positive.

    Example:
        >>> M = Lorentz(k=4.0)
        >>> M.curvature
        tensor(-0.2500)
        >>> M.k = PyroParam(torch.tensor(2.0), constraint=constraints.positive)
        >>> [name for name, _ in M.named_parameters()]
        ['k_unconstrained']
    """

    k: Any  # a Tensor to read; a Tensor, PyroParam or PyroSample to assign

    def __init__(self, k: float | Tensor = 1.0, learnable: bool = False) -> None:
        remedy = "it is the squared radius, curvature is -1/k"
        super().__init__(checks.as_real("k", k, remedy), learnable)
        value = self.k.detach()
        checks.check_positive("k", value, f"{remedy}.", validate=True)
        del self.k
        if learnable:
            self.k = PyroParam(value, constraint=constraints.positive)
        else:
            self.register_buffer("k", value)

    def __getattr__(self, name: str) -> Any:
        # Each read of a PyroParam is a pyro.param statement, and geometry reads k dozens of times in a run of a model.
        # Within one call of a PyroModule (which ends before any optimiser step) it is read once, as a PyroSample is.
        if name != "k" or "_pyro_context" not in self.__dict__:
            return super().__getattr__(name)
        if not self._pyro_context.active:
            if self.is_latent:
                raise RuntimeError(
                    "k is latent (a PyroSample): it has a value only during a call of the PyroModule that owns this "
                    "manifold; build distributions in the model, which keep it, and read it from the trace."
                )
            return super().__getattr__(name)
        key = f"{self._pyro_get_fullname(name)}, grad={torch.is_grad_enabled()}"
        value = self._pyro_context.get(key)
        if value is None:
            value = super().__getattr__(name)
            self._pyro_context.set(key, value)
        return value

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        # A fixed k is the space for which everything else was trained. Ours is kept: theirs can be of another dtype.
        ours, theirs = self._buffers.get("k"), state_dict.get(f"{prefix}k")
        if ours is not None and theirs is not None:
            if not checks.same_value(ours, theirs):
                raise ValueError(
                    f"this state_dict is of Lorentz(k={checks.describe_values(theirs)}), but is loaded into "
                    f"Lorentz(k={checks.describe_values(ours)}), whose k is fixed; build the manifold of the file, or "
                    f"one that is learnable."
                )
            state_dict[f"{prefix}k"] = ours
        super()._load_from_state_dict(state_dict, prefix, *args)

    @classmethod
    def from_curvature(cls, curvature: float | Tensor, learnable: bool = False) -> "Lorentz":
        r"""Returns the hyperboloid of sectional curvature :math:`K < 0`, that of :math:`k = -1/K`.

        Args:
            curvature: Negative, a number or tensor, in units of inverse squared distance.
            learnable: Whether ``k`` is a positive parameter.

        Raises:
            TypeError: If the curvature is not a real number or tensor.
            ValueError: If it is not negative and finite.

        Example:
            >>> Lorentz.from_curvature(-0.25).k
            tensor(4.)
        """
        value = checks.as_real("curvature", curvature, "that of a hyperboloid is negative, -1 for k = 1")
        value = value if isinstance(curvature, Tensor) else value.to(torch.get_default_dtype())
        inside = (value < 0) & value.isfinite()
        if not bool(inside.all()):
            raise ValueError(
                f"curvature = {value[~inside][0].item():.6g}, but that of a hyperboloid is < 0 and finite; for flat "
                f"space use geoopt.Euclidean(1)."
            )
        return cls(-1 / value, learnable)

    @property
    def is_latent(self) -> bool:
        """Whether ``k`` is a ``PyroSample``."""
        return "k" in self.__dict__.get("_pyro_samples", ())

    @property
    def curvature(self) -> Tensor:
        r"""The sectional curvature :math:`K = -1/k`."""
        return -1 / self.k

    def extra_repr(self) -> str:
        """Returns the arguments, for ``repr``."""
        return "k: latent" if self.is_latent else f"k={self.k.detach().tolist()}"


class _AtOneRun(geoopt.Lorentz):
    """A hyperboloid whose ``k`` is the value of a latent variable in one run: a plain tensor, with its gradient."""

    def __init__(self, k: Tensor) -> None:
        super(geoopt.Lorentz, self).__init__()
        self.__dict__["k"] = k


def is_of_one_run(manifold: Manifold) -> bool:
    """Returns whether the manifold, or a factor of it, has the ``k`` of one run of a model in which ``k`` is latent."""
    return any(isinstance(part, _AtOneRun) for part in manifold.modules())


def resolved(manifold: Manifold) -> Manifold:
    """Returns the manifold, with the ``k`` of this run where it is latent: what a distribution must remember."""
    if isinstance(manifold, Lorentz):
        return _AtOneRun(manifold.k) if manifold.is_latent else manifold
    if isinstance(manifold, geoopt.ProductManifold):
        factors = [resolved(factor) for factor in manifold.manifolds]
        if any(new is not old for new, old in zip(factors, manifold.manifolds, strict=True)):
            return geoopt.ProductManifold(*zip(factors, manifold.shapes, strict=True))
    return manifold


#: What ``manifold=None`` means everywhere: the hyperboloid of curvature -1.
STANDARD = Lorentz()
