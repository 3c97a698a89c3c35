r"""Laws of a transform as a map: inverse, log-determinant, domain and shapes.

Each takes a transform and points of its domain, and raises :class:`LawViolation` if it is broken.
"""

from functools import partial

import torch
from torch import Tensor
from torch.distributions import Transform

from .agreement import scalars_agree, tolerance, vectors_agree
from .diagnosis import (
    ChartedPoints,
    LawViolation,
    diagnose,
    event_text,
    fails_in_a_library,
    log_det_mistakes,
    no_empty_batch,
    smallest,
)
from .oracles import Space

__all__ = [
    "batch_members_are_independent",
    "inverse_log_det_is_negative",
    "log_det_matches_autograd",
    "round_trip",
    "shapes_broadcast",
    "stays_on_manifold",
]


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
