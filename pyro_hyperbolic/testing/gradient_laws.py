r"""Laws of the gradients of a transform and its log-determinant: finite, and those of the values."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform

from .agreement import tolerance
from .diagnosis import LawViolation, event_text, number_texts
from .oracles import Space, fixed_noise, leaves_of

__all__ = ["gradients_are_finite", "gradients_match_differences"]


def gradients_are_finite(transform: Transform, x: Tensor) -> None:
    """Checks that gradients of values and log-determinants with respect to argument and parameters are finite.

    Of the transform at ``x`` and at the origin, if there is one, and of its inverse at the images. (The image of the
    origin is where formulas fail: for a translation, it coincides with the location.)
    """
    domain = Space(transform.domain)
    parameters = [p for p in getattr(transform, "parameters", list)() if p.requires_grad]
    every = domain.events(x)
    if domain.charted:
        every = torch.cat([every, domain.exp0(torch.zeros_like(domain.chart(every[:1])[1])).detach()])
    # All at once; one by one only to find the smallest failing point.
    if _all_gradients_are_finite(transform, every, parameters):
        return
    radii = domain.radius(every)
    for i in radii.argsort().tolist():
        point, near = every[i : i + 1], domain.charted and float(radii[i]) < 1e-3
        for name, way, start in (("t", transform, point), ("t.inv", transform.inv, transform(point))):
            event = start.detach().clone().requires_grad_()
            end = way(event)
            for what, output in ((f"{name}(x)", end), (f"{name}'s log-det", way.log_abs_det_jacobian(event, end))):
                _check_gradients(what, output, event, parameters, near)


def gradients_match_differences(transform: Transform, x: Tensor) -> None:
    r"""Checks :math:`\frac{d}{ds} f(x + s u, \theta + s \eta)` by autograd against differences, for random directions.

    ``f`` is the value and the log-determinant of the transform and of its inverse; :math:`\theta` are all leaves that
    they depend on. A part under ``no_grad``, or computed from a detached tensor, trains a flow wrongly. Checked in
    float64 only, because differences are too inaccurate in float32, and away from the origin, if there is one.
    """
    space = Space(transform.domain)
    away = space.radius(x) > 1e-3 if space.charted else torch.ones_like(space.radius(x), dtype=torch.bool)
    if x.dtype != torch.float64 or not bool(away.any()):
        return
    points = x.detach()[away]
    image = transform(points.clone()).detach()
    bound = tolerance(transform, points, image)
    for name, way, start in (("t", transform, points), ("t.inv", transform.inv, image)):
        domain, codomain = Space(way.domain), Space(way.codomain)
        chart, v = domain.chart(start)
        v = v.clone().requires_grad_()

        def outputs(way: Any = way, chart: Any = chart, to: Space = codomain, v: Tensor = v) -> list[Tensor]:
            event = chart(v.clone())
            end = way(event)
            numbers = to.comparable(end)
            weights = torch.linspace(0.5, 1.0, numbers.size(-1), dtype=end.dtype)
            return [(numbers @ weights).sum(), way.log_abs_det_jacobian(event, end).sum()]

        found = outputs()
        moved = [v, *(leaf for leaf in leaves_of(found[0] + found[1]) if leaf is not v)]
        directions = [noise / noise.norm() for noise in fixed_noise(*moved)]
        derivatives = [_directional(output, moved, directions) for output in found]
        best = [(math.inf, math.nan)] * len(found)  # error beyond the bound, difference
        for step in (1e-5, 1e-6, 1e-7):  # near a kink of a network or a knot of a spline, only a smaller step is right
            for i, value in enumerate(_differences(outputs, moved, directions, step)):
                most = (1e-5 + bound / step) * (1 + abs(value) + float(found[i].detach().abs()))
                best[i] = min(best[i], (abs(derivatives[i] - value) - most, value))
            if all(error <= 0 for error, _ in best):
                break
        for i, what in enumerate((f"{name}(x)", f"{name}'s log-det")):
            error, value = best[i]
            if not error <= 0:
                raise LawViolation(
                    "gradients_match_differences",
                    f"the derivative of {what} by autograd equals its finite difference",
                    f"all of x, of shape {tuple(points.shape)}, and all leaves, along one direction",
                    *number_texts(value, derivatives[i]),
                    "a part under no_grad, a detached tensor, or a custom backward",
                )


def _directional(output: Tensor, leaves: list[Tensor], directions: list[Tensor]) -> float:
    if not output.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(output, leaves, retain_graph=True, allow_unused=True)
    pairs = zip(gradients, directions, strict=True)
    return sum(float((gradient * direction).sum()) for gradient, direction in pairs if gradient is not None)


def _differences(
    outputs: Callable[[], list[Tensor]], leaves: list[Tensor], directions: list[Tensor], step: float
) -> list[float]:
    """Returns central differences of all outputs, and restores the leaves."""
    kept, ends = [leaf.detach().clone() for leaf in leaves], []
    try:
        for size in (step, -step):
            with torch.no_grad():
                for leaf, value, direction in zip(leaves, kept, directions, strict=True):
                    leaf.copy_(value + size * direction)
            ends.append([float(output.detach()) for output in outputs()])
    finally:
        with torch.no_grad():
            for leaf, value in zip(leaves, kept, strict=True):
                leaf.copy_(value)
    return [(ahead - behind) / (2 * step) for ahead, behind in zip(*ends, strict=True)]


def _all_gradients_are_finite(transform: Transform, points: Tensor, parameters: list[Tensor]) -> bool:
    for way, start in ((transform, points), (transform.inv, transform(points))):
        events = start.detach().clone().requires_grad_()
        ends = way(events)
        outputs = [value.sum() for value in (ends, way.log_abs_det_jacobian(events, ends)) if value.requires_grad]
        for output in outputs:
            gradients = torch.autograd.grad(output, [events, *parameters], retain_graph=True, allow_unused=True)
            if not all(gradient is None or bool(gradient.isfinite().all()) for gradient in gradients):
                return False
    return True


def _check_gradients(what: str, output: Tensor, event: Tensor, parameters: list[Tensor], near: bool) -> None:
    if not output.requires_grad:
        return
    for gradient in torch.autograd.grad(output.sum(), [event, *parameters], retain_graph=True, allow_unused=True):
        if gradient is None or bool(gradient.isfinite().all()):
            continue
        raise LawViolation(
            "gradients_are_finite",
            f"the gradient of {what} is finite",
            f"x = {event_text(event.flatten()[None], 0)}",
            "finite numbers",
            str(gradient.reshape(-1)[:6].tolist()),
            "a norm, or a division by zero, at the origin: use functions of the squared norm (numerics.sinhc)"
            if near
            else "an overflow, or 0 * infinity in the untaken branch of a `where`",
        )
