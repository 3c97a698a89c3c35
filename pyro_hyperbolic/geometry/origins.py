"""What is known of a tensor without a look at its values: that it is the origin, or of which tangent vector it is.

A prior at the origin is the commonest of all, and needs no isometry: `exp0` and `log0` are less than half of the price
of `exp_at` and `log_at`. Reading the values to find out would make a GPU wait.
"""

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["is_known_origin", "known_tangent", "remember_origin", "remember_tangent"]

_MADE = WeakTensorKeyDictionary()


def remember_origin(x: Tensor) -> Tensor:
    """Returns ``x``, which was made as the origin of a manifold."""
    if not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active():
        _MADE[x] = None
    return x


def is_known_origin(x: Tensor) -> bool:
    """Returns whether this very tensor was made by :func:`origin` and has not been edited: no copy of it counts.

    Nor does a parameter: its gradient is that of a point which can move. Nor does a tensor of inference mode, whose
    edits are not counted; those through ``.data`` are counted of no tensor, and must not be made to an origin.

    Args:
        x: Any tensor; its values are not read.

    Returns:
        Whether it is known. False says nothing: it may well be the origin.

    Example:
        >>> o = ph.geometry.origin(geoopt.Lorentz(), 2)
        >>> is_known_origin(o), is_known_origin(o.clone())
        (True, False)
    """
    if torch.compiler.is_compiling() or x not in _MADE:
        return False
    return not x.is_inference() and x._version == 0 and not (x.requires_grad and (x.is_leaf or x.retains_grad))


def remember_tangent(x: Tensor, v: Tensor, volume: Tensor) -> Tensor:
    """Returns ``x``, which with ``volume`` is ``exp0(v)``, and can be out of range where ``v`` is not.

    The inverse of a flow gives such points, in float32 beyond 88 radii, to a base distribution, which needs their
    tangent vectors only.
    """
    if not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active() and not x.is_inference():
        x._known_tangent = (x._version, v, volume)  # type: ignore[attr-defined]
    return x


def known_tangent(x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Returns the tangent vector of which this very tensor was made and the log-volume there, if they are known."""
    known = None if torch.compiler.is_compiling() else getattr(x, "_known_tangent", None)
    return None if known is None or x.is_inference() or known[0] != x._version else known[1:]
