r"""What transforms on manifolds share: one method for value and log-determinant, one cache, one argument check."""

import copy
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from geoopt.manifolds.base import Manifold
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import _InverseTransform

from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions.constraints import OnManifold, on_manifold
from pyro_hyperbolic.geometry import Hadamard, checks
from pyro_hyperbolic.manifolds import PyroABCMeta, or_standard

from .own_sample import OwnSample
from .saved_space import SavesSpace

__all__ = ["ManifoldTransform", "ModuleTransform", "TangentModule"]

if TYPE_CHECKING:  # torch's own is untyped

    class Inverse(Transform):
        """The inverse of a transform, a view of it."""

        def __init__(self, transform: Transform) -> None: ...

        def __call__(self, x: Tensor) -> Tensor:
            """Returns the point that is mapped to ``x``."""

else:
    Inverse = _InverseTransform

#: For users whose optimiser, or reparametrisation of R^n, has moved a location off the manifold.
LEARN_LOC_HINT = (
    "learn a location by pyro.param(..., constraint=on_manifold(M)), which any optimiser can move, or by geoopt's "
    "RiemannianAdam if it is a ManifoldParameter, and decentre it by TransformReparam, not LocScaleReparam"
)


class ManifoldTransform(Transform, metaclass=PyroABCMeta):
    """Abstract base of bijections between manifolds, with log-determinants with respect to Riemannian volume.

    A subclass implements ``_forward`` and ``_backward``. Each returns the value *and* the log-determinant, so neither
    is computed twice. Domain and codomain are the manifold by default.

    The cache holds one pair ``(x, y)``. It answers only for a tensor that this transform made: ``inv(y)`` for a ``y``
    from the forward pass, so scoring an own sample needs no inverse and loses no digits. It answers only while ``x``,
    ``y`` and everything that the map depends on are unchanged. Nothing is remembered where that cannot be known: if a
    network is a closure, or an instance of a class of your own. Such a class can set ``is_self_contained = True`` if
    its output depends on its attributes alone. One change can go unseen: an edit in place through ``.data``, not made
    by an optimiser, while values are not validated.
    """

    bijective = True
    #: Whether ``_forward`` and ``_backward`` take ``mask=``: networks may mix the points of a set along dimension -2.
    takes_mask = False
    #: Whether the transform is only defined on manifolds with a global chart.
    _needs_chart = True
    _overflow_remedy = checks.OVERFLOW_REMEDY

    def __init__(
        self, manifold: Manifold | None = None, *, cache_size: int = 1, validate_args: bool | None = None
    ) -> None:
        self._on_manifold = on_manifold(or_standard(manifold), validate_args=validate_args)
        (geometry.chart if self._needs_chart else geometry.complete)(self.manifold)
        self._validate_args = validate_args
        self._own_sample = OwnSample()
        super().__init__(cache_size=cache_size)

    @property
    def manifold(self) -> Manifold:
        """The geoopt manifold on which this transform acts."""
        return self._on_manifold.manifold

    @property
    def _geometry(self) -> Hadamard:
        """The geometry of the manifold, bound for one call."""
        return geometry.chart(self.manifold)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def domain(self) -> Constraint:
        """The manifold."""
        return self._on_manifold

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def codomain(self) -> Constraint:
        """The manifold."""
        return self._on_manifold

    @abstractmethod
    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ``y`` and ``log |det dy/dx|``, shape ``(*)``."""

    @abstractmethod
    def _backward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns a new tensor ``x`` and the log-determinant of the *forward* map there, ``log |det dy/dx|``."""

    def _check_domain(self, x: Tensor, *, validate: bool) -> None:
        """Raises unless ``x`` has the shape, and if ``validate`` the values, of points of the domain."""
        space = checks.check_manifold(self.manifold, validate=validate)
        checks.check_points(space, x, f"the argument of {type(self).__name__}", validate=validate)

    def _check_codomain(self, y: Tensor, *, validate: bool) -> None:
        """Raises unless ``y`` has the shape, and if ``validate`` the values, of points of the codomain."""
        space = checks.check_manifold(self.manifold, validate=validate)
        checks.check_points(space, y, f"the argument of {type(self).__name__}.inv", validate=validate)

    def _checked(self, x: Tensor, *, inverse: bool, checked: bool = False) -> tuple[Tensor, Tensor]:
        """Returns the map at ``x`` with its log-determinant; argument, parameters and result share one sync."""
        map_, check = (self._backward, self._check_codomain) if inverse else (self._forward, self._check_domain)
        if not checked:
            check(x, validate=False)
        if not checks.validating(self._validate_args):
            return map_(x)
        side = self.codomain if inverse else self.domain
        try:
            value, log_det = map_(x)
            known = geometry.known_tangent(value)
            image = self._real(value if known is None else known[0])
            conditions = [image.isfinite().all(), *geometry.bind(self.manifold).parameters_are_positive()]
            inside = _event_constraint(side)
            if isinstance(inside, OnManifold):
                conditions.append(inside.check(self._real(x)).all())
            fine = checks.all_hold(conditions)
        except Exception:
            check(x, validate=True)  # a bad argument is the better message
            raise
        if not fine:
            if not checked:
                check(x, validate=True)
            name = f"the argument of {type(self).__name__}{'.inv' if inverse else ''}"
            checks.check_finite_result(name, self._real(x), image, validate=True, remedy=self._overflow_remedy)
        return value, log_det

    def _real(self, x: Tensor) -> Tensor:
        """Returns ``x`` with every part that may hold anything, such as padding, replaced by points of the manifold."""
        return x

    def __call__(self, x: Tensor) -> Tensor:
        """Returns ``y`` at ``x``."""
        pair = self._own_sample.recall(self, x=x)
        return self._call(x) if pair is None else pair.y

    def _call(self, x: Tensor) -> Tensor:
        y, log_det = self._checked(x, inverse=False)
        self._remember(x, y, log_det, forward=True)
        return y

    def _inv_call(self, y: Tensor) -> Tensor:
        pair = self._own_sample.recall(self, y=y)
        if pair is not None:
            return pair.x
        x, log_det = self._checked(y, inverse=True)
        self._remember(x, y, log_det, forward=False)
        return x

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ``inv(y)`` and ``log |det dy/dx|`` there, for a ``y`` that the caller has already checked.

        Remembers nothing: the caller scores ``y`` once.
        """
        pair = self._own_sample.recall(self, y=y)
        if pair is not None:
            return pair.x, pair.log_det
        return self._checked(y, inverse=True, checked=True)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        r"""Returns :math:`\log |\det dy/dx|` with respect to Riemannian volume on both sides, shape ``(*)``."""
        pair = self._own_sample.recall(self, x=x, y=y)
        return self._log_det_at(x, y) if pair is None else pair.log_det

    def _log_det_at(self, x: Tensor, y: Tensor) -> Tensor:
        return self._forward(x)[1]

    @property
    def inv(self) -> "Inverse":
        """The inverse transform, a view of this one."""
        # torch keeps it in an attribute: a reference cycle, so that each scored batch would wait for the collector.
        return Inverse(self)

    def with_cache(self, cache_size: int = 1) -> "ManifoldTransform":
        """Returns this transform with that cache size; a copy shares every parameter."""
        if cache_size not in (0, 1):
            raise ValueError(f"cache_size = {cache_size}, but must be 0 or 1.")
        if cache_size == self._cache_size:
            return self
        new = copy.copy(self)
        new._cache_size = cache_size
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_own_sample": OwnSample()}

    def _remember(self, x: Tensor, y: Tensor, log_det: Tensor, *, forward: bool) -> None:
        if self._cache_size:
            self._own_sample.remember(self, x, y, log_det, forward=forward)


#: The methods of a module that are compiled: pure functions of one tensor and the parameters.
_COMPILED = ("_forward", "_backward")


class ModuleTransform(ManifoldTransform, SavesSpace, TransformModule):
    """Abstract base of transforms that are modules: their parameters are registered, and they can be compiled."""

    def __init__(self, manifold: Manifold | None = None, *, cache_size: int = 1) -> None:
        super().__init__(manifold, cache_size=cache_size)
        register_if_learnable(self, self.manifold)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the map and its inverse with ``torch.compile``, each with its log-determinant, in place.

        This overrides ``torch.nn.Module.compile``, which compiles a method that transforms do not call. The cache and
        the checks are not compiled, nor are copies of the transform.

        Args:
            *args: For ``torch.compile``.
            **kwargs: For ``torch.compile``; ``fullgraph=True`` works for couplings and flows of them.
        """
        for name in _COMPILED:
            self.__dict__.pop(name, None)
            self.__dict__[name] = torch.compile(getattr(self, name), *args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name not in _COMPILED}

    def __repr__(self) -> str:
        return torch.nn.Module.__repr__(self)


class TangentModule(ModuleTransform):
    r"""Abstract base of :math:`\exp_o \circ f \circ \log_o` for a bijection ``f`` of the tangent space, as a module.

    A subclass implements ``f`` and its inverse in tangent coordinates, with log-determinants with respect to Lebesgue
    measure. The volume stretch of both charts is added here.
    """

    _overflow_remedy = (
        "a trained flow stretches too much: lower the learning rate, use fewer layers or a smaller log_scale_bound; "
        "where the map is meant to reach so far, use float64 or a larger k"
    )

    @abstractmethod
    def _tangent_forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ``w = f(v)`` and ``log |det dw/dv|`` with respect to Lebesgue measure."""

    @abstractmethod
    def _tangent_backward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ``v`` and the log-determinant of the *forward* map there, ``log |det dw/dv|``."""

    def _forward(self, x: Tensor, **mask: Tensor) -> tuple[Tensor, Tensor]:
        space = self._geometry
        v, volume_at_v = space.overflow_safe_log(x)
        w, log_det = self._tangent_forward(v, **mask)
        y, volume_at_w = space.exp0(w)
        return y, log_det + volume_at_w - volume_at_v

    def _log_det_at(self, x: Tensor, y: Tensor, **mask: Tensor) -> Tensor:
        space = self._geometry
        v, volume_at_v = space.overflow_safe_log(x)
        w, log_det = self._tangent_forward(v, **mask)
        return log_det + space.log_volume(w) - volume_at_v

    def _backward(self, y: Tensor, **mask: Tensor) -> tuple[Tensor, Tensor]:
        space = self._geometry
        w, volume_at_w = space.overflow_safe_log(y)
        v, log_det = self._tangent_backward(w, **mask)
        # The point can overflow where its tangent vector and volume do not, and a base distribution scores these.
        x, volume_at_v = space.exp0(v)
        return geometry.remember_tangent(x, v, volume_at_v), log_det + volume_at_w - volume_at_v

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Returns the shape of ``y`` for an ``x`` of that shape."""
        space = self._geometry
        return with_batch(shape, *space.batch_shapes(), event_dim=space.event_dim)

    inverse_shape = forward_shape


def register_if_learnable(module: torch.nn.Module, manifold: Manifold) -> None:
    """Makes a manifold of learnable curvature a submodule, so that its parameters are the module's.

    A frozen parameter in a module makes ``pyro.module`` warn at every step. A fixed ``k`` has no dimensions and works
    on every device.
    """
    if any(value.requires_grad for value in manifold.parameters()):
        module._modules["manifold"] = manifold


def with_batch(shape: torch.Size, *batches: torch.Size, event_dim: int = 1) -> torch.Size:
    """Returns ``shape``, event dimensions last, with its batch part broadcast with ``batches``."""
    split = len(shape) - event_dim
    return broadcast(shape[:split], *batches) + shape[split:]


def broadcast(*shapes: torch.Size) -> torch.Size:
    """Returns what the batch shapes of points and of parameters broadcast to, or raises."""
    return checks.check_batches(**{f"parameter {i}" if i else "points": shape for i, shape in enumerate(shapes)})


def _event_constraint(constraint: Constraint) -> Constraint:
    """Returns the constraint of one event, behind ``independent``."""
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return constraint
