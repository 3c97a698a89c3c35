r"""Laws of transforms. Each takes a transform and points of its domain, and raises AssertionError if it is broken.

Tolerances follow from the unit roundoff ``u`` of the dtype and the radius ``r`` of the points: a point with rounded
coordinates is uncertain by ``u * e^r`` across and ``u * r`` along the radius, and a Gram determinant of ambient
Jacobians loses ``e^{2r}``.
"""

import copy
import pickle
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform

from pyro_hyperbolic import geometry

from .frames import frame, manifold_of, metric, radius_of

__all__ = [
    "deepcopy_pickle_state_dict",
    "does_not_alias_its_input",
    "float32_agrees_with_float64",
    "gradients_are_finite",
    "inverse_log_det_is_negative",
    "log_det_matches_autograd",
    "round_trip",
    "shapes_broadcast",
    "stays_on_manifold",
]

# Over the roundoff that a law's own arithmetic magnifies: flows of several layers and networks stay well below.
_SLACK = 2000.0


def round_trip(transform: Transform, x: Tensor) -> None:
    r"""Checks :math:`t^{-1}(t(x)) = x` and :math:`t(t^{-1}(y)) = y`, with fresh tensors, so that no cache answers."""
    y = transform(x).detach().clone()
    back = transform.inv(y).detach().clone()
    tolerance = _tolerance(transform, x, y, power=1)
    _close("round_trip", "t.inv(t(x)) = x", x, back, x, tolerance)
    _close("round_trip", "t(t.inv(y)) = y", y, transform(back), y, tolerance)


def log_det_matches_autograd(transform: Transform, x: Tensor) -> None:
    r"""Checks :math:`\log |\det dy/dx| = \frac12 \log \det (E^T J^T g J E)` with the autograd Jacobian ``J``.

    ``E`` is an orthonormal frame of the tangent space at ``x``, and ``g`` the ambient metric of the codomain, so the
    right side is with respect to Riemannian volume on both sides and uses nothing of the transform but its values.
    """
    domain, codomain = manifold_of(transform.domain), manifold_of(transform.codomain)
    y = transform(x)
    found = transform.log_abs_det_jacobian(x, y)
    expected = []
    for event in x.reshape(-1, x.size(-1)):
        jacobian = torch.autograd.functional.jacobian(lambda point: transform(point), event.detach())
        pushed = jacobian @ frame(domain, event)
        gram = pushed.mT @ metric(codomain, pushed.size(0), pushed) @ pushed
        expected.append(torch.linalg.slogdet(gram).logabsdet / 2)
    tolerance = _tolerance(transform, x, y, power=2)
    formula = "log_abs_det_jacobian = 1/2 log det(E' J' g J E)"
    _close("log_det_matches_autograd", formula, torch.stack(expected).reshape(x.shape[:-1]), found, x, tolerance)


def inverse_log_det_is_negative(transform: Transform, x: Tensor) -> None:
    r"""Checks :math:`\log |\det dx/dy| = -\log |\det dy/dx|`, each computed afresh from values."""
    y = transform(x).detach().clone()
    forward = transform.log_abs_det_jacobian(x.clone(), y.clone())
    back = transform.inv(y)
    backward = transform.inv.log_abs_det_jacobian(y, back)
    tolerance = _tolerance(transform, x, y, power=1)
    _close("inverse_log_det_is_negative", "t.inv's log-det = -(t's)", -forward, backward, x, tolerance)


def stays_on_manifold(transform: Transform, x: Tensor) -> None:
    """Checks that every ``t(x)`` is in the codomain and every ``t.inv(t(x))`` in the domain."""
    y = transform(x).detach().clone()
    for side, make, what in ((transform.codomain, transform, "t(x)"), (transform.domain, transform.inv, "t.inv(t(x))")):
        value = y if make is transform else make(y)
        inside = side.check(value)
        if not bool(inside.all()):
            at = int((~inside.reshape(-1)).nonzero()[0])
            raise AssertionError(
                f"stays_on_manifold: {what} is not in {side} at x = {_event(x, at)}, it is {_event(value, at)}."
            )


def shapes_broadcast(transform: Transform, x: Tensor) -> None:
    """Checks shapes for a single event, a batch, two batch dimensions and none, against those of the first event."""
    event = x.reshape(-1, x.size(-1))[0]
    y = transform(event)
    log_det = transform.log_abs_det_jacobian(event, y)
    for batch in ((), (1,), (3,), (2, 3), (0,)):
        many = event.expand((*batch, event.size(-1))).clone()
        image = transform(many)
        found = transform.log_abs_det_jacobian(many, image)
        for what, shape, expected in (
            ("t(x)", image.shape, torch.broadcast_shapes(y.shape[:-1], batch) + y.shape[-1:]),
            ("log-det", found.shape, torch.broadcast_shapes(log_det.shape, batch)),
            ("forward_shape", transform.forward_shape(many.shape), image.shape),
            ("inverse_shape", transform.inverse_shape(image.shape)[-1:], many.shape[-1:]),
        ):
            if shape != expected:
                raise AssertionError(
                    f"shapes_broadcast: {what} has shape {tuple(shape)} for x of shape {tuple(many.shape)}, "
                    f"not {tuple(expected)}."
                )
        if many.numel() and not torch.allclose(found, log_det.expand_as(found)):
            raise AssertionError(f"shapes_broadcast: the log-det of a batch {batch} of one event differs from its own.")


def gradients_are_finite(transform: Transform, x: Tensor) -> None:
    """Checks that the gradients of value and log-determinant are finite, in ``x`` and in every parameter."""
    point = x.detach().clone().requires_grad_()
    y = transform(point)
    log_det = transform.log_abs_det_jacobian(point, y)
    leaves = [point, *(p for p in getattr(transform, "parameters", list)() if p.requires_grad)]
    for what, output in (("t(x)", y), ("log-det", log_det)):
        if not output.requires_grad:
            continue
        gradients = torch.autograd.grad(output.sum(), leaves, retain_graph=True, allow_unused=True)
        for gradient in gradients:
            if gradient is not None and not bool(gradient.isfinite().all()):
                raise AssertionError(f"gradients_are_finite: a gradient of {what} is not finite for x = {x.tolist()}.")


def does_not_alias_its_input(transform: Transform, x: Tensor) -> None:
    """Checks that no result shares memory with its argument: optimisers edit parameters in place."""
    y = transform(x).detach().clone()
    for what, argument, value in (("t(x)", x, transform(x)), ("t.inv(y)", y, transform.inv(y))):
        if value.untyped_storage().data_ptr() == argument.untyped_storage().data_ptr():
            raise AssertionError(f"does_not_alias_its_input: {what} shares memory with its argument; return a copy.")


def deepcopy_pickle_state_dict(transform: Transform, x: Tensor) -> None:
    """Checks that copies made after a forward pass work, agree, and share nothing with the original."""
    y = transform(x)
    copies: dict[str, Any] = {
        "copy.deepcopy": copy.deepcopy(transform),
        "pickle": pickle.loads(pickle.dumps(transform)),
        "with_cache(0)": transform.with_cache(0),
    }
    if isinstance(transform, torch.nn.Module):
        loaded = copy.deepcopy(transform)
        for value in loaded.parameters():
            value.data.zero_()
        loaded.load_state_dict(transform.state_dict())
        copies["load_state_dict"] = loaded
    for name, other in copies.items():
        if not torch.equal(other(x), y):
            raise AssertionError(f"deepcopy_pickle_state_dict: the transform after {name} gives another value.")


def float32_agrees_with_float64(transform: Transform, x: Tensor) -> None:
    """Checks that in float32 value and log-determinant are those of float64, up to float32 rounding."""
    single = copy.deepcopy(transform)
    if isinstance(single, torch.nn.Module):
        single.float()
    for name, value in list(vars(single).items()):
        if isinstance(value, Tensor) and value.is_floating_point():
            setattr(single, name, value.float())
    x32 = x.float()
    exact = x32.double()
    if isinstance(transform.domain, type(transform.codomain)) or exact.size(-1) == x.size(-1):
        # The rounded point, put back on the manifold in double.
        domain = manifold_of(transform.domain)
        exact = geometry.exp0(domain, geometry.log0(domain, x32).double()) if domain.name != "Euclidean" else exact
        x32 = exact.float()
    y32, y64 = single(x32), transform(exact)
    if y32.dtype != torch.float32:
        raise AssertionError(f"float32_agrees_with_float64: t(x) has dtype {y32.dtype} for x of float32.")
    tolerance = _SLACK * torch.finfo(torch.float32).eps * (1 + _growth(transform, exact, y64, 1))
    _close("float32_agrees_with_float64", "t(x.float()) = t(x)", y64, y32.double(), exact, tolerance)
    found = single.log_abs_det_jacobian(x32, y32).double()
    expected = transform.log_abs_det_jacobian(exact, y64)
    _close("float32_agrees_with_float64", "the log-det in float32", expected, found, exact, tolerance)


def _growth(transform: Transform, x: Tensor, y: Tensor, power: int) -> float:
    radii = radius_of(manifold_of(transform.domain), x), radius_of(manifold_of(transform.codomain), y)
    return float(torch.tensor(power * max(radii)).exp())


def _tolerance(transform: Transform, x: Tensor, y: Tensor, power: int) -> float:
    return _SLACK * torch.finfo(x.dtype).eps * _growth(transform, x, y, power)


def _close(law: str, formula: str, expected: Tensor, found: Tensor, x: Tensor, tolerance: float) -> None:
    """Raises at the worst event; the error of a vector is relative to its length."""
    expected, found = expected.detach(), found.detach()
    vector = expected.shape == x.shape or expected.dim() == x.dim()
    error, size = (found - expected).abs(), expected.abs()
    if vector:
        error, size = error.amax(-1), size.amax(-1)
    excess = (error / (1 + size)).reshape(-1)
    if excess.numel() == 0 or bool((excess <= tolerance).all()):
        return
    at = int(excess.nan_to_num(nan=torch.inf).argmax())
    raise AssertionError(
        f"{law}: {formula} fails at x = {_event(x, at)}: expected {_event(expected, at, vector)}, "
        f"found {_event(found, at, vector)}, off by {error.reshape(-1)[at]:.3g} where {tolerance:.3g} is rounding."
    )


def _event(value: Tensor, at: int, vector: bool = True) -> str:
    flat = value.detach().reshape(-1, value.size(-1)) if vector else value.detach().reshape(-1)
    return str(flat[at].tolist())
