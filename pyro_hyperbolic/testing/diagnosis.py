r"""The report of a broken law: the law, its formula, the smallest failing input, and the likely mistake.

A diagnosis compares the residuals ``found - expected`` at all points with those of a table of known mistakes, none of
which has a free parameter. A mistake is named if it explains every residual to three digits and the points distinguish
it from the others; otherwise the message says "unclear". Mistakes in volume terms are known only where the curvature is
constant and not positive.
"""

import math
import traceback
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Transform

from .oracles import Space

__all__ = [
    "ChartedPoints",
    "LawViolation",
    "NotChecked",
    "diagnose",
    "event_text",
    "event_texts",
    "fails_in_a_library",
    "log_det_mistakes",
    "log_stretch",
    "no_empty_batch",
    "not_checked",
    "number_texts",
    "smallest",
]

#: A mistake must explain the residuals to this relative accuracy.
CONFIDENCE = 1e-3


class LawViolation(AssertionError):
    """A law that does not hold.

    Attributes:
        law: The name of the law, a function of :mod:`pyro_hyperbolic.testing`.
        formula: What should hold.
        at: The smallest failing input.
        expected: The value by the formula.
        found: The value found.
        cause: The known mistake with the same residuals, or a text that begins with "unclear".
    """

    def __init__(self, law: str, formula: str, at: str, expected: str, found: str, cause: str = "unclear") -> None:
        self.law, self.formula, self.at, self.expected, self.found = law, formula, at, expected, found
        self.cause = cause
        super().__init__(
            f"{law}: {formula} does not hold\n"
            f"  smallest failing input: {at}\n"
            f"  expected: {expected}\n"
            f"  found:    {found}\n"
            f"  likely cause: {cause}"
        )


class NotChecked(UserWarning):
    """A law that could not be checked, or not accurately enough to tell."""


def not_checked(law: str, why: str) -> None:
    """Warns that a law was not checked."""
    warnings.warn(f"{law} was not checked: {why}", NotChecked, stacklevel=3)


def fails_in_a_library(error: BaseException) -> bool:
    """Returns whether torch or Pyro, rather than the user's code, is at fault.

    The innermost Python frame is at fault, except for functions of torch that pass on their arguments.
    """
    libraries = ("torch.distributions.", "torch.nn.modules.", "pyro.")
    frames: list[str] = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    at_fault = [name for name in frames if name.startswith(libraries) or not name.startswith("torch.")][-1]
    return at_fault.startswith(libraries)


def no_empty_batch(formula: str, at: str, error: Exception) -> LawViolation:
    """Returns the violation for an error on an empty batch."""
    cause = "an operation that fails on an empty tensor: max, stack, or reshape with -1"
    found = f"{type(error).__name__}: {error}"
    return LawViolation("shapes_broadcast", formula, at, "a result of no events", found, cause)


class ChartedPoints(NamedTuple):
    """The quantities on which mistakes in a log-determinant depend."""

    before: Tensor  # scaled radius |log0 x| / R of the argument; 0 for vectors of R^n
    after: Tensor  # scaled radius of the result; 0 for vectors of R^n
    dim: int
    radius: float  # R = sqrt(k), 1 on Euclidean space

    @classmethod
    def of(cls, transform: Transform, x: Tensor, y: Tensor) -> "ChartedPoints | None":
        """Returns them for points ``x`` and images ``y``; None without a known curvature <= 0."""
        domain, codomain = Space(transform.domain), Space(transform.codomain)
        if domain.curvature is None or codomain.curvature is None:
            return None
        radius = domain.length if domain.curvature else codomain.length
        return cls(domain.scaled_radius(x), codomain.scaled_radius(y), domain.dim(x), radius)


def log_stretch(r: Tensor) -> Tensor:
    """Returns ``log(sinh(r) / r)`` by the textbook form, with its limit at zero."""
    r = r.double()
    far = r + torch.log1p(-torch.exp(-2 * r)) - torch.log(2 * r)
    return torch.where(r < 1e-3, r * r / 6, far)


def log_det_mistakes(points: ChartedPoints | None, expected: Tensor) -> Mapping[str, Tensor]:
    """Returns the residuals ``found - expected`` of each known mistake."""
    of_signs = {
        "the log-determinant is dropped: zero is returned": -expected.double(),
        "wrong sign: the log-determinant of the inverse map is returned": -2 * expected.double(),
        "the log-determinant is counted twice": expected.double(),
    }
    if points is None:
        return of_signs
    n, log_radius = points.dim, math.log(points.radius)
    before, after = log_stretch(points.before), log_stretch(points.after)
    unscaled = log_stretch(points.radius * points.after) - log_stretch(points.radius * points.before)
    one, stretch = torch.ones_like(before), after - before
    return of_signs | {
        "the chart's volume terms are dropped: Lebesgue measure of tangent coordinates, not Riemannian volume": (
            (1 - n) * stretch
        ),
        "wrong sign of the volume terms (n - 1) log(sinh r / r)": 2 * (1 - n) * stretch,
        "the volume terms are counted twice": (n - 1) * stretch,
        "off by one power of sinh r / r: n instead of n - 1": stretch,
        "off by one power of sinh r / r: n - 2 instead of n - 1": -stretch,
        "the volume term of the result is dropped": (1 - n) * after,
        "the volume term of the argument is dropped": (n - 1) * before,
        "the volume term of the result has the wrong sign": 2 * (1 - n) * after,
        "the volume term of the argument has the wrong sign": 2 * (n - 1) * before,
        "the radius is forgotten in the volume terms: r is |v| / sqrt(k)": (n - 1) * (unscaled - stretch),
        "off by (n - 1) log R: a radius counted twice": (n - 1) * log_radius * one,
        "off by -(n - 1) log R: a radius counted twice": (1 - n) * log_radius * one,
        "off by n log R: units of the radius": n * log_radius * one,
        "off by -n log R: units of the radius": -n * log_radius * one,
    }


def diagnose(residual: Tensor, mistakes: Mapping[str, Tensor], rounding: float) -> str:
    """Returns the mistake with these residuals, or "unclear" and what is known."""
    residual = residual.detach().reshape(-1).double()
    if not bool(residual.isfinite().all()):
        return "NaN or infinity: an overflow, a logarithm or root outside its domain, or a map without gradients"
    size = float(residual.abs().max())
    bound = max(CONFIDENCE * size, rounding)
    shapes = {name: value.detach().reshape(-1).double() for name, value in mistakes.items()}
    # Mistakes without residuals at these points explain nothing.
    fits = {name: value for name, value in shapes.items() if float(value.abs().max()) > 10 * rounding}
    fitting = [name for name, value in fits.items() if float((residual - value).abs().max()) <= bound]
    constant = float(residual.max() - residual.min()) <= bound
    if len(residual) < 3:
        return "unclear: three points or more are needed to tell mistakes apart"
    same = [name for name in fitting if float((shapes[name] - shapes[fitting[0]]).abs().max()) <= rounding]
    if fitting and len(same) == len(fitting):
        # For example, at n = 2 dropping the volume terms is the same as using the power n - 2.
        return fitting[0] + (f" (here the same as: {'; '.join(fitting[1:])})" if len(fitting) > 1 else "")
    if fitting:
        return "unclear: these points cannot distinguish: " + "; ".join(fitting)
    if constant:
        return f"unclear: a constant factor, every log-determinant is off by {float(residual.mean()):.4g}"
    if bool((residual.abs() <= 10 * rounding).any()):
        return "unclear: correct only at some points (perhaps at the origin)"
    return "unclear: no known mistake has these residuals"


def smallest(radii: Tensor, wrong: Tensor) -> int:
    """Returns the index of the failing event nearest to the origin, among flattened events; the first of several."""
    failing = wrong.reshape(-1).nonzero().reshape(-1)
    return int(failing[radii.reshape(-1)[failing].argmin()])


def event_text(value: Tensor, at: int, digits: int = 8) -> str:
    """Returns one event as text: a number if it has one coordinate."""
    numbers = [f"{number:.{digits}g}" for number in value.detach().reshape(-1, value.size(-1))[at].tolist()]
    return numbers[0] if len(numbers) == 1 else f"({', '.join(numbers)})"


def event_texts(expected: Tensor, found: Tensor, at: int) -> tuple[str, str]:
    """Returns an event of each as text, with enough digits to distinguish them."""
    for number in range(8, 18):  # 17 digits distinguish any two float64 numbers
        one, other = event_text(expected, at, number), event_text(found, at, number)
        if one != other:
            return one, other
    return "finite numbers", other  # same digits but no agreement: NaN or infinity


def number_texts(expected: float, found: float) -> tuple[str, str]:
    """Returns two numbers as text, with enough digits to distinguish them."""
    one, other = (torch.tensor([value], dtype=torch.float64) for value in (expected, found))
    return event_texts(one, other, 0)
