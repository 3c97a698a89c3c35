r"""Manifolds that are PyroModules, so that their curvature can be a Pyro parameter or a latent variable."""

import abc
from typing import Any

import geoopt
import torch
from geoopt.manifolds.base import Manifold
from pyro.nn import PyroModule, PyroParam
from torch import Tensor
from torch.distributions import constraints, transform_to

from pyro_hyperbolic.geometry import checks
from pyro_hyperbolic.geometry.rotations import Rotations
from pyro_hyperbolic.geometry.torus import Torus

__all__ = [
    "Lorentz",
    "PoincareBall",
    "Product",
    "Rotations",
    "Torus",
    "has_sampled_parameters",
    "with_sampled_parameters",
]


class PyroABCMeta(type(PyroModule), abc.ABCMeta):  # type: ignore[misc]
    """Combines the metaclasses of ``ABC`` and ``PyroModule``."""


class OneParameter(PyroModule, metaclass=PyroABCMeta):
    """A manifold with one positive parameter: a buffer, a PyroParam or a PyroSample."""

    _parameter: str

    def _set_parameter(self, value: Tensor, learnable: bool) -> None:
        if learnable:
            setattr(self, self._parameter, PyroParam(value, constraint=constraints.positive))
        else:
            self.register_buffer(self._parameter, value)

    def _repr_arguments(self) -> str:
        name = self._parameter
        return f"{name}: latent" if self.is_latent else f"{name}={getattr(self, name).detach().tolist()}"

    @property
    def is_latent(self) -> bool:
        """Whether the parameter is a ``PyroSample``."""
        return self._parameter in self.__dict__.get("_pyro_samples", ())

    def __getattr__(self, name: str) -> Any:
        # Each read of a PyroParam is a pyro.param statement, and one run of a model reads it dozens of times. Cache it
        # during a PyroModule call, as Pyro does with a PyroSample; the call ends before any optimiser step.
        if name != self._parameter or "_pyro_context" not in self.__dict__:
            return super().__getattr__(name)
        if not self._pyro_context.active:
            if self.is_latent:
                raise RuntimeError(
                    f"{name} is latent (a PyroSample) and has a value only during a call of the PyroModule that owns "
                    f"this manifold; build distributions inside the model, and read {name} from the trace."
                )
            return super().__getattr__(name)
        key = f"{self._pyro_get_fullname(name)}, grad={torch.is_grad_enabled()}"
        value = self._pyro_context.get(key)
        if value is None:
            value = super().__getattr__(name)
            self._pyro_context.set(key, value)
        return value

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        # Everything else was trained on a fixed parameter, so the values must agree. Ours is kept for its dtype.
        name = self._parameter
        ours, theirs = self._buffers.get(name), state_dict.get(f"{prefix}{name}")
        if ours is not None and theirs is not None:
            if not checks.same_value(ours, theirs):
                raise ValueError(
                    f"this state_dict was saved from {type(self).__name__}({name}={checks.describe_values(theirs)}), "
                    f"but is loaded into {type(self).__name__}({name}={checks.describe_values(ours)}), whose {name} is "
                    f"fixed; build the manifold with the saved {name}, or with learnable=True."
                )
            state_dict[f"{prefix}{name}"] = ours
        free = f"{name}_unconstrained"
        if free in self._parameters and theirs is not None and f"{prefix}{free}" not in state_dict:
            value = transform_to(constraints.positive).inv(state_dict.pop(f"{prefix}{name}"))
            state_dict[f"{prefix}{free}"] = value
        super()._load_from_state_dict(state_dict, prefix, *args)


class Lorentz(geoopt.Lorentz, OneParameter):
    r"""The hyperboloid :math:`\{x : \langle x, x \rangle = -k,\ x_0 > 0\}` of curvature :math:`-1/k`, a PyroModule.

    It differs from ``geoopt.Lorentz`` in three ways. A fixed ``k`` is a buffer, so ``pyro.module`` does not warn about
    a frozen parameter. A learnable ``k`` is a ``PyroParam`` constrained to be positive; an optimiser can drive geoopt's
    below zero. And ``k`` can be assigned a ``PyroParam(...)`` or ``PyroSample(...)``.

    Args:
        k: Squared radius, a positive number or tensor, in units of squared distance. Python numbers get the default
            dtype; for float64 points, pass a float64 tensor if ``k`` is not exact in float32.
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

    _parameter = "k"
    k: Any  # a Tensor to read; a Tensor, PyroParam or PyroSample to assign

    def __init__(self, k: float | Tensor = 1.0, learnable: bool = False) -> None:
        remedy = "it is the squared radius, the curvature is -1/k"
        value = checks.as_floating("k", k, remedy).detach().clone()
        checks.check_positive("k", value, f"{remedy}.", validate=True)
        super().__init__()
        del self.k
        self._set_parameter(value, learnable)

    extra_repr = OneParameter._repr_arguments

    @classmethod
    def from_curvature(cls, curvature: float | Tensor, learnable: bool = False) -> "Lorentz":
        r"""Returns the hyperboloid of sectional curvature :math:`K < 0`, with :math:`k = -1/K`.

        Args:
            curvature: Negative number or tensor, in units of inverse squared distance.
            learnable: Whether ``k`` is a positive parameter.

        Raises:
            TypeError: If the curvature is not a real number or tensor.
            ValueError: If it is not negative and finite.

        Example:
            >>> Lorentz.from_curvature(-0.25).k
            tensor(4.)
        """
        value = checks.as_floating("curvature", curvature, "a hyperboloid has negative curvature, -1 for k = 1")
        inside = (value < 0) & value.isfinite()
        if not bool(inside.all()):
            raise ValueError(
                f"curvature = {value[~inside][0].item():.6g}, but must be < 0 and finite on a hyperboloid; for flat "
                f"space use geoopt.Euclidean(1)."
            )
        return cls(-1 / value, learnable)

    @property
    def curvature(self) -> Tensor:
        r"""The sectional curvature :math:`K = -1/k`."""
        return -1 / self.k


class PoincareBall(geoopt.PoincareBall, OneParameter):
    r"""The Poincaré ball :math:`\{p : |p| < 1/\sqrt c\}` of curvature :math:`-c`, a PyroModule.

    Like ``k`` of :class:`Lorentz`, ``c`` is a buffer if fixed, a positive ``PyroParam`` if learnable, and can be
    assigned a ``PyroParam(...)`` or ``PyroSample(...)``. It is exact: geoopt's ball stores :math:`\log(e^c - 1)`, so
    that in float32 its ``c`` is 5% off at 1e-6 and infinite above 88, and overwrites a tensor that it is given.

    Args:
        c: Minus the curvature, a positive number or tensor, in units of inverse squared distance.
        learnable: Whether ``c`` is a positive parameter.

    Raises:
        TypeError: If ``c`` is not a real number or tensor.
        ValueError: If ``c`` is not positive.

    Example:
        >>> B = PoincareBall(c=0.25, learnable=True)
        >>> B.c.item(), [name for name, _ in B.named_parameters()]
        (0.25, ['c_unconstrained'])
    """

    _parameter = "c"

    def __init__(self, c: float | Tensor = 1.0, learnable: bool = False) -> None:
        remedy = "the curvature is -c"
        value = checks.as_floating("c", c, remedy).detach().clone()
        checks.check_positive("c", value, f"{remedy}.", validate=True)
        super().__init__()
        del self.isp_c
        self._set_parameter(value, learnable)

    extra_repr = OneParameter._repr_arguments

    @property
    def c(self) -> Any:
        """Minus the curvature."""
        return self.__getattr__("c")

    @c.setter
    def c(self, value: Any) -> None:
        self._buffers["c"] = value  # Module.__setattr__ finds parameters first, but not a buffer behind a property

    @property
    def curvature(self) -> Tensor:
        r"""The sectional curvature :math:`-c`."""
        return -self.c


class Product(geoopt.ProductManifold, PyroModule, metaclass=PyroABCMeta):
    r"""A product of manifolds, :math:`M_1 \times \dots \times M_m`, a PyroModule.

    A ``geoopt.ProductManifold`` whose factors can have learnable or latent parameters.

    Args:
        *factors: Pairs of a manifold and the size of its points: ``n + 1`` for :class:`Lorentz`, ``n`` for
            :class:`PoincareBall` and ``geoopt.Euclidean(1)``, ``(m, m)`` for matrices.

    Raises:
        ValueError: If there are no factors, or a size does not fit its manifold.

    Example:
        >>> M = Product((Lorentz(learnable=True), 3), (geoopt.Euclidean(1), 2))
        >>> geometry.origin(M, 4)
        tensor([1., 0., 0., 0., 0.], grad_fn=<CatBackward0>)
        >>> [name for name, _ in M.named_parameters()]
        ['manifolds.0.k_unconstrained']
    """

    def __init__(self, *factors: tuple[Manifold, Any]) -> None:
        super().__init__(*factors)
        self.manifolds: torch.nn.ModuleList = PyroModule[torch.nn.ModuleList](list(self.manifolds))


class _SampledLorentz(geoopt.Lorentz):
    """A hyperboloid whose ``k`` is the sampled value of a latent variable, a plain tensor with its gradient."""

    def __init__(self, k: Tensor) -> None:
        super(geoopt.Lorentz, self).__init__()
        self.__dict__["k"] = k


class _SampledPoincareBall(PoincareBall):
    """A ball whose ``c`` is the sampled value of a latent variable."""

    def __init__(self, c: Tensor) -> None:
        super().__init__()
        self._buffers["c"] = c


def has_sampled_parameters(manifold: Manifold) -> bool:
    """Returns whether the curvature of the manifold, or of a factor, is the sampled value of a latent variable."""
    if isinstance(manifold, geoopt.ProductManifold):
        return any(has_sampled_parameters(factor) for factor in manifold.manifolds)
    return isinstance(manifold, (_SampledLorentz, _SampledPoincareBall))


def with_sampled_parameters(manifold: Manifold) -> Manifold:
    """Returns the manifold with latent curvatures replaced by their sampled values, for a distribution to keep."""
    if isinstance(manifold, OneParameter) and manifold.is_latent:
        return _SampledLorentz(manifold.k) if isinstance(manifold, Lorentz) else _SampledPoincareBall(manifold.c)
    if isinstance(manifold, geoopt.ProductManifold):
        factors = [with_sampled_parameters(factor) for factor in manifold.manifolds]
        if any(new is not old for new, old in zip(factors, manifold.manifolds, strict=True)):
            return geoopt.ProductManifold(*zip(factors, manifold.shapes, strict=True))
    return manifold


#: The hyperboloid of curvature -1.
STANDARD = Lorentz()


def or_standard(manifold: Manifold | None) -> Manifold:
    """Returns the manifold, or the hyperboloid of curvature -1 for None."""
    return STANDARD if manifold is None else manifold
