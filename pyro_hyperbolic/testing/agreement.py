"""Whether what was found agrees with what was expected: the comparisons that laws are made of.

Tolerances follow from the unit roundoff ``u`` of the dtype and the scaled radius ``r`` of the points: rounding moves a
point by ``u * e^r`` across and ``u * r`` along the radius, and a Gram determinant of ambient Jacobians loses
``e^{2r}``. Where the curvature is unknown or not constant, radii are in units of distance; compact manifolds and
factors have radius 0.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.distributions.constraints import Constraint

from .diagnosis import LawViolation, event_text, event_texts, smallest
from .oracles import Space

__all__ = ["check_points", "scalars_agree", "tolerance", "vectors_agree"]

# Factor over magnified roundoff; flows of several layers and networks stay well below.
_SLACK = 2000.0

_VECTORS = Space(constraints.real_vector)


def tolerance(transform: Transform, x: Tensor, y: Tensor, *, power: int = 1) -> float:
    """Returns the error that rounding can explain: ``2000 u e^{power r}`` at the largest scaled radius."""
    sides = ((transform.domain, x), (transform.codomain, y))
    radius = max(float(Space(side).scaled_radius(value).max()) for side, value in sides)
    return _SLACK * torch.finfo(x.dtype).eps * float(torch.tensor(power * radius).exp())


def vectors_agree(
    law: str,
    formula: str,
    expected: Tensor,
    found: Tensor,
    x: Tensor,
    bound: float,
    cause: str | Callable[[], str] = "unclear",
    *,
    of: Space = _VECTORS,
    at: Space = _VECTORS,
) -> None:
    """Raises at the smallest event with ``|found - expected| > bound * (1 + max |expected|)``.

    The values are events of the space ``of``, compared by ``of.comparable``, and ``x`` of the space ``at``.
    """
    expected, found = expected.detach(), found.detach()
    if expected.shape != found.shape:
        shapes = tuple(expected.shape), tuple(found.shape)
        raise LawViolation(
            law, formula, f"x of shape {tuple(x.shape)}", str(shapes[0]), str(shapes[1]), "a wrong shape"
        )
    one, other = of.comparable(expected), of.comparable(found)
    error = (other - one).abs().amax(-1)
    wrong = ~((error <= bound * (1 + one.abs().amax(-1))) & error.isfinite())
    if bool(wrong.any()):
        i = smallest(at.radius(x), wrong)
        why = cause if isinstance(cause, str) else cause()
        texts = event_texts(of.flat(expected), of.flat(found), i)
        raise LawViolation(law, formula, f"x = {event_text(at.flat(x), i)}", *texts, why)


def scalars_agree(law: str, formula: str, expected: Tensor, found: Tensor, *args: Any, **kwargs: Any) -> None:
    """Raises at the smallest event with ``|found - expected| > bound * (1 + |expected|)``."""
    vectors_agree(law, formula, expected[..., None], found[..., None], *args, **kwargs)


def check_points(law: str, what: str, x: Tensor, constraint: Constraint) -> None:
    """Raises at the first event outside a constraint of points."""
    inside = constraint.check(x)
    if not bool(inside.all()):
        space, at = Space(constraint), int(inside.reshape(-1).int().argmin())
        cause = space.off_manifold_mistake(space.events(x)[at])
        raise LawViolation(law, f"{what} is on {constraint}", what, "a point", event_text(space.flat(x), at), cause)
