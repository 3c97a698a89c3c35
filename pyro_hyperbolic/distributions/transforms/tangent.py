r"""Transforms of R^n, lifted to a manifold."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

import torch
from geoopt.manifolds.base import Manifold
from pyro.distributions.conditional import ConditionalTransform
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.distributions.constraints import Constraint

from pyro_hyperbolic.geometry import checks
from pyro_hyperbolic.geometry.autocast import without_autocast

from .base import TangentModule

__all__ = ["TangentTransform"]


class TangentTransform(TangentModule):
    r"""Lifts a transform ``f`` of R^n to the manifold, :math:`y = \exp_o(f(\log_o(x)))`.

    .. math:: \log |\det dy/dx| = \log |\det df| + (n - 1) [\log \operatorname{sinhc}|w| - \log \operatorname{sinhc}|v|]

    at :math:`v = \log_o x`, :math:`w = f(v)` and ``k = 1``, with respect to Riemannian volume. Every Pyro bijection
    (splines, autoregressive and planar flows, affine maps, stacks of them) becomes a flow on the manifold.

    Shapes: ``x`` and ``y`` are ``(*, n + 1)``, the log-determinant is ``(*)``.

    Args:
        transform: A bijection of R^n, whose domain and codomain are real, with event dimension 0 or 1. A module becomes
            a submodule.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        cache_size: 1 (default) to cache the last pair, 0 to cache nothing.

    Raises:
        ValueError: If ``transform`` is not a bijection of R^n; on a call, while validating, if a point is off the
            manifold.

    Example:
        Twice the distance from the origin, in the hyperbolic plane:

        >>> t = TangentTransform(dist.transforms.AffineTransform(0.0, 2.0))
        >>> x = geometry.exp0(t.manifold, torch.tensor([1.0, 0.0]))
        >>> geometry.log0(t.manifold, t(x)).round(decimals=4)
        tensor([2., 0.])
        >>> t.log_abs_det_jacobian(x, t(x))  # 2 log 2 + log(sinh(2) / 2) - log sinh(1)
        tensor(1.8201)
    """

    def __init__(self, transform: Transform, manifold: Manifold | None = None, *, cache_size: int = 1) -> None:
        super().__init__(manifold, cache_size=cache_size)
        if not isinstance(transform, Transform) or isinstance(transform, ConditionalTransform):
            remedy = (
                "call .condition(context) first"
                if isinstance(transform, ConditionalTransform)
                else "lift a bijection of R^n, not a network"
            )
            raise TypeError(
                f"transform = {checks.shown(transform)}, but must be a torch.distributions.Transform; {remedy}."
            )
        if not transform.bijective:
            raise ValueError(f"{transform} has no inverse, but a flow needs one; lift a bijection of R^n.")
        for side in (transform.domain, transform.codomain):
            if not is_real_vector(side):
                raise ValueError(
                    f"{transform} maps {transform.domain} to {transform.codomain}, but tangent coordinates are all of "
                    f"R^n (event dimension 0 or 1); lift a bijection of R^n."
                )
        self.transform = transform

    def _tangent_forward(self, v: Tensor) -> tuple[Tensor, Tensor]:
        with _exclusive(self.transform), without_autocast(v):
            w = self.transform(v)
            return w, self._log_det(v, w)

    def _tangent_backward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        with _exclusive(self.transform), without_autocast(w):
            v = self.transform.inv(w)
            return v, self._log_det(v, w)

    def _log_det(self, v: Tensor, w: Tensor) -> Tensor:
        log_det = self.transform.log_abs_det_jacobian(v, w)
        log_det = log_det if self.transform.domain.event_dim else log_det.expand(w.shape).sum(-1)
        return log_det.expand(w.shape[:-1])

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Returns the shape of ``y`` for an ``x`` of shape ``shape``."""
        return self._shape(shape, self.transform.forward_shape)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Returns the shape of ``x`` for a ``y`` of shape ``shape``."""
        return self._shape(shape, self.transform.inverse_shape)

    def _shape(self, shape: torch.Size, tangent_shape: Callable[[torch.Size], torch.Size]) -> torch.Size:
        space = self._geometry
        batch = space.batch_of(shape)
        tangent = tangent_shape(torch.Size((*batch, space.dim(shape))))
        return super().forward_shape(tangent[:-1] + shape[len(batch) :])


def is_real_vector(constraint: Constraint) -> bool:
    """Returns whether a constraint admits all of R or R^n."""
    event_dim = constraint.event_dim
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return event_dim <= 1 and isinstance(constraint, type(constraints.real))


#: Pyro's and torch's transforms store their last call in attributes, which other threads would overwrite.
_lock = threading.RLock()


def _reset_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # another thread may hold the lock while this one forks
    os.register_at_fork(after_in_child=_reset_lock)


@contextlib.contextmanager
def _exclusive(transform: Transform) -> Iterator[None]:
    """Locks out other threads while the transform is used, and clears its caches afterwards."""
    with _lock:
        try:
            yield
        finally:
            _clear_caches(transform)


def _clear_caches(transform: Transform) -> None:
    """Clears the caches of a transform and its parts, which would outlive optimiser steps and prevent copies."""
    stack, seen = [transform], set()
    while stack:
        part = stack.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        for name, value in list(vars(part).items()):
            if name.startswith("_cache") and name != "_cache_size":
                setattr(part, name, (None, None) if isinstance(value, tuple) else None)
            elif isinstance(value, Transform):
                stack.append(value)
            elif isinstance(value, list):
                stack.extend(item for item in value if isinstance(item, Transform))
        if isinstance(part, torch.nn.Module):
            stack.extend(child for child in part.children() if isinstance(child, Transform))
