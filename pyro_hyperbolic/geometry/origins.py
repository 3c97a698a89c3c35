"""Remembers which tensors were made as the origin, and from which tangent vector others were made.

A prior at the origin is the most common one and needs no isometry: `exp0` and `log0` cost less than half of `exp_at`
and `log_at`. Comparing values instead would be a host-device sync.
"""

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["is_known_origin", "known_tangent", "remember_origin", "remember_tangent"]

_ORIGINS = WeakTensorKeyDictionary()


def remember_origin(x: Tensor, name: str) -> Tensor:
    """Marks ``x`` as the origin of the manifolds whose geometry has that name, and returns it."""
    if not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active():
        _ORIGINS[x] = name
    return x


def is_known_origin(x: Tensor, name: str | None = None) -> bool:
    """Returns whether this tensor object was made by :func:`origin` and has not been edited; ``False`` is inconclusive.

    Always ``False`` for copies, for parameters (they can move), and for tensors made in inference mode (their edits are
    not tracked). Edits through ``.data`` are not tracked either; do not make any.

    Args:
        x: Any tensor; its values are not read.
        name: If given, the name of the geometry of which it must be the origin.

    Returns:
        A Python bool.

    Example:
        >>> o = ph.geometry.origin(geoopt.Lorentz(), 2)
        >>> is_known_origin(o), is_known_origin(o.clone())
        (True, False)
    """
    if torch.compiler.is_compiling() or x not in _ORIGINS or name not in (None, _ORIGINS[x]):
        return False
    return not x.is_inference() and x._version == 0 and not (x.requires_grad and (x.is_leaf or x.retains_grad))


def remember_tangent(x: Tensor, v: Tensor, volume: Tensor) -> Tensor:
    """Attaches ``v`` and ``volume`` to ``x``, where ``(x, volume)`` is ``exp0(v)``, and returns ``x``.

    The inverse of a flow can reach points that overflow, beyond 88 radii in float32. The base distribution then uses
    their tangent vectors.
    """
    if not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active() and not x.is_inference():
        x._known_tangent = (x._version, v, volume)  # type: ignore[attr-defined]
    return x


def known_tangent(x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Returns the tangent vector and log-volume attached by :func:`remember_tangent`, if ``x`` is as it was."""
    known = None if torch.compiler.is_compiling() else getattr(x, "_known_tangent", None)
    if known is None or x.is_inference() or known[0] != x._version or known[1].requires_grad != x.requires_grad:
        return None
    return known[1:]
