r"""Laws of a transform as a map: inverse, log-determinant, domain, shapes and gradients.

Each takes a transform and points of its domain, and raises :class:`LawViolation` if it is broken. Tolerances follow
from the unit roundoff ``u`` of the dtype and the scaled radius ``r`` of the points: rounding moves a point by
``u * e^r`` across and ``u * r`` along the radius, and a Gram determinant of ambient Jacobians loses ``e^{2r}``. Where
the curvature is unknown or not constant, radii are in units of distance; compact manifolds and factors have radius 0.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.distributions.constraints import Constraint

from .diagnosis import (
    ChartedPoints,
    LawViolation,
    diagnose,
    event_text,
    event_texts,
    fails_in_a_library,
    log_det_mistakes,
    no_empty_batch,
    number_texts,
    smallest,
)
from .oracles import Space, fixed_noise, leaves_of

__all__ = [
    "batch_members_are_independent",
    "gradients_are_finite",
    "gradients_match_differences",
    "inverse_log_det_is_negative",
    "log_det_matches_autograd",
    "round_trip",
    "shapes_broadcast",
    "stays_on_manifold",
]

# Factor over magnified roundoff; flows of several layers and networks stay well below.
_SLACK = 2000.0

_VECTORS = Space(constraints.real_vector)


def round_trip(transform: Transform, x: Tensor) -> None:
    r"""Checks :math:`t^{-1}(t(x)) = x` and :math:`t(t^{-1}(y)) = y`, with fresh tensors to bypass the cache."""
    y = transform(x).detach().clone()
    back = transform.inv(y).detach().clone()
    bound = tolerance(transform, x, y)
    cause = partial(_inverse_mistake, transform, x, y, back, bound)
    domain, codomain = Space(transform.domain), Space(transform.codomain)
    vectors_agree("round_trip", "t.inv(t(x)) = x", x, back, x, bound, cause, of=domain, at=domain)
    vectors_agree("round_trip", "t(t.inv(y)) = y", y, transform(back), y, bound, of=codomain, at=codomain)


def log_det_matches_autograd(transform: Transform, x: Tensor) -> None:
    r"""Checks :math:`\log |\det dt| = \frac12 \log \det G(t \circ c) - \frac12 \log \det G(c)` for a chart ``c``.

    ``G`` is the Gram matrix of the autograd Jacobian in geoopt's ``inner``. So the right side is with respect to
    Riemannian volume of domain and codomain, and uses only values of the transform. Any chart would do: it is
    :math:`\exp_o` or, without a global chart, :math:`\exp_x` at ``x``.
    """
    domain, codomain, y = Space(transform.domain), Space(transform.codomain), transform(x)
    chart, v = domain.chart(domain.events(x))
    before = domain.log_volume(chart, v)[1]
    after = codomain.log_volume(lambda v: transform(chart(v)), v)[1]
    values = (after - before).reshape(domain.batch_of(x)).to(x.dtype)
    formula = "t.log_abs_det_jacobian(x, y) = 1/2 log det G(t c) - 1/2 log det G(c) in a chart c"
    found = transform.log_abs_det_jacobian(x, y)
    _log_dets_agree("log_det_matches_autograd", formula, transform, x, y, values, found, power=2)


def inverse_log_det_is_negative(transform: Transform, x: Tensor) -> None:
    r"""Checks :math:`\log |\det dx/dy| = -\log |\det dy/dx|`, with fresh tensors to bypass the cache."""
    y = transform(x).detach().clone()
    expected = -transform.log_abs_det_jacobian(x.clone(), y.clone())
    found = transform.inv.log_abs_det_jacobian(y, transform.inv(y))
    formula = "t.inv.log_abs_det_jacobian(y, x) = -t.log_abs_det_jacobian(x, y)"
    _log_dets_agree("inverse_log_det_is_negative", formula, transform, x, y, expected, found)


def stays_on_manifold(transform: Transform, x: Tensor) -> None:
    """Checks that every ``t(x)`` is in the codomain and every ``t.inv(t(x))`` in the domain."""
    y = transform(x).detach().clone()
    for what, side, image in (
        ("t(x)", transform.codomain, lambda: y),
        ("t.inv(t(x))", transform.domain, lambda: transform.inv(y).detach()),
    ):
        value = image()
        inside = side.check(value)
        if not bool(inside.all()):
            domain, space = Space(transform.domain), Space(side)
            at = smallest(domain.radius(x), ~inside)
            raise LawViolation(
                "stays_on_manifold",
                f"{what} is on {side}",
                f"x = {event_text(domain.flat(x), at)}",
                f"a point of {side}",
                event_text(space.flat(value), at),
                space.off_manifold_mistake(space.events(value)[at]),
            )


def shapes_broadcast(transform: Transform, x: Tensor) -> None:
    """Checks the shapes of values and log-dets for one event and for one, two and empty batch dimensions."""
    domain, codomain = Space(transform.domain), Space(transform.codomain)
    event = domain.events(x)[0]
    y = transform(event)
    log_det = transform.log_abs_det_jacobian(event, y)
    batch_shape, event_shape = codomain.batch_of(y), y.shape[y.dim() - codomain.event_dim :]
    for batch in ((), (1,), (3,), (2, 3), (0,)):
        many = event.expand((*batch, *event.shape)).clone()
        try:
            image = transform(many)
            found = transform.log_abs_det_jacobian(many, image)
        except Exception as error:
            if 0 not in batch:
                raise
            if fails_in_a_library(error):
                continue  # Pyro's networks reshape with -1, which torch cannot do to an empty tensor
            at = f"x of shape {tuple(many.shape)}"
            raise no_empty_batch("t(x) and its log-det accept an empty batch", at, error) from error
        batches = torch.broadcast_shapes(batch_shape, batch), torch.broadcast_shapes(log_det.shape, batch)
        summed = "the log-determinant is not summed over the event dimension, or is summed over the batch too"
        for formula, shape, expected, cause in (
            ("t(x) has the batch shape of x", image.shape, (*batches[0], *event_shape), "unclear"),
            ("the log-det has the batch shape of x", found.shape, batches[1], summed),
            ("forward_shape(x.shape) = t(x).shape", transform.forward_shape(many.shape), image.shape, "unclear"),
            (
                "inverse_shape gives back the event",
                transform.inverse_shape(image.shape)[-event.dim() :],
                event.shape,
                "unclear",
            ),
        ):
            if tuple(shape) != tuple(expected):
                at = f"x of shape {tuple(many.shape)}"
                raise LawViolation("shapes_broadcast", formula, at, str(tuple(expected)), str(tuple(shape)), cause)


def batch_members_are_independent(transform: Transform, x: Tensor) -> None:
    """Checks that the image and log-det of an event do not depend on the other events of its batch."""
    domain, codomain = Space(transform.domain), Space(transform.codomain)
    many = domain.events(x)
    y = transform(many)
    log_det = transform.log_abs_det_jacobian(many, y)
    events = [event[None].clone() for event in many]
    alone = [(image := transform(event), transform.log_abs_det_jacobian(event, image)) for event in events]
    images, log_dets = zip(*alone, strict=True)
    law, bound = "batch_members_are_independent", tolerance(transform, many, y)
    cause = "a statistic over the batch: a norm, mean or maximum without dim=-1, or batch normalisation"
    expected, found = _without_common_infinities(torch.cat(images), y)
    vectors_agree(law, "t(x)[i] = t(x[i])", expected, found, many, bound, cause, of=codomain, at=domain)
    expected = torch.cat([value.reshape(-1) for value in log_dets])
    expected, found = _without_common_infinities(expected, log_det.expand(expected.shape))
    scalars_agree(law, "the same for the log-det", expected, found, many, bound, cause, at=domain)


def _without_common_infinities(*values: Tensor) -> list[Tensor]:
    """Returns values with 0 where all are infinite or NaN: that breaks a later law, which names the mistake."""
    common = torch.stack([~value.isfinite() for value in values]).all(0)
    return [value.masked_fill(common, 0.0) for value in values]


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


def check_points(law: str, what: str, x: Tensor, constraint: Constraint) -> None:
    """Raises at the first event outside a constraint of points."""
    inside = constraint.check(x)
    if not bool(inside.all()):
        space, at = Space(constraint), int(inside.reshape(-1).int().argmin())
        cause = space.off_manifold_mistake(space.events(x)[at])
        raise LawViolation(law, f"{what} is on {constraint}", what, "a point", event_text(space.flat(x), at), cause)


def scalars_agree(law: str, formula: str, expected: Tensor, found: Tensor, *args: Any, **kwargs: Any) -> None:
    """Raises at the smallest event with ``|found - expected| > bound * (1 + |expected|)``."""
    vectors_agree(law, formula, expected[..., None], found[..., None], *args, **kwargs)


def _log_dets_agree(
    law: str,
    formula: str,
    transform: Transform,
    x: Tensor,
    y: Tensor,
    expected: Tensor,
    found: Tensor,
    *,
    power: int = 1,
) -> None:
    expected, found = expected.detach(), found.detach()
    bound = tolerance(transform, x, y, power=power)

    def cause() -> str:
        rounding = bound * (1 + float(expected.abs().max()))
        points = ChartedPoints.of(transform, x.detach(), y.detach())
        return diagnose(found - expected, log_det_mistakes(points, expected), rounding)

    scalars_agree(law, formula, expected, found, x, bound, cause, at=Space(transform.domain))


def _inverse_mistake(transform: Transform, x: Tensor, y: Tensor, back: Tensor, bound: float) -> str:
    domain = Space(transform.domain)

    def equal(one: Tensor, other: Tensor) -> bool:
        return torch.allclose(domain.comparable(one), domain.comparable(other), rtol=1e-6, atol=bound)

    if x.shape == y.shape:
        if equal(back, y):
            return "the inverse returns its argument"
        with torch.no_grad():
            if bool(transform.domain.check(y).all()) and equal(back, transform(y)):
                return "the inverse applies the forward map: a sign, or a flag that is not passed on"
    if not bool(back.isfinite().all()):
        return "the inverse is NaN or infinite: an overflow, or a logarithm or root outside its domain"
    if not bool(transform.domain.check(back).all()):
        return "the inverse leaves the domain"
    numbers = domain.state if domain.charted else domain.features
    v, found = (numbers(domain.events(value.detach())) for value in (x, back))
    moved = (found - v).abs() > bound * (1 + v.abs())
    blocks = moved.any(0)
    if bool(blocks.any()) and not bool(blocks.all()):
        kept = [i for i, block in enumerate(blocks.tolist()) if not block]
        where = "tangent coordinates" if domain.charted else "features"
        return f"one block is not inverted: {where} {kept} come back, the others do not"
    wrong, size = moved.any(-1), domain.radius(domain.events(x))
    if bool((~wrong).any()) and bool(wrong.any()) and float(size[wrong].min()) > float(size[~wrong].max()):
        return "only points far out do not come back: a clamp, a saturation, or lost digits"
    return "unclear: the inverse belongs to another map"
