r"""Weighted means: their arguments, and the Fréchet mean."""

import torch
from torch import Tensor

from .base import Complete, Geometry, Hadamard
from .checks import check_batches, check_floating, check_same_dtype, shown, validating

__all__ = ["along", "mean"]

#: Far above what is needed: Newton's method takes five to ten steps, backtracking a few more.
_MAX_STEPS = 100
#: Without a global chart: points that are tried as starting points, and steps from the best one.
_STARTS, _MAX_LOCAL_STEPS = 64, 1000


def along(geometry: Geometry, x: Tensor, weights: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
    """Returns checked points with the dimension ``dim`` first, and weights that sum to one over it and broadcast."""
    batch_dim = x.dim() - geometry.event_dim
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise TypeError(f"dim = {shown(dim)}, but must be an integer, one of the {batch_dim} batch dimensions of x.")
    if not -batch_dim <= dim < batch_dim:
        raise ValueError(
            f"dim = {dim}, but x of shape {tuple(x.shape)} has {batch_dim} batch dimensions; choose one of them."
        )
    dim %= batch_dim
    if x.size(dim) == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}, but the mean of no points is undefined; pass at least 1.")
    return x.movedim(dim, 0), _normalised_weights(x, weights, dim, geometry.batch_of(x.shape))


def mean(geometry: Complete, x: Tensor, w: Tensor) -> Tensor:
    """Returns the Fréchet mean over the first dimension; see :func:`geometry.frechet_mean`.

    Without a global chart it is a local one, without gradients. Each factor of a product has its own, because squared
    distances add up.
    """
    if len(geometry.factors) > 1:
        parts = zip(geometry.factors, geometry.split(x), strict=True)
        return geometry.join([mean(factor, part, w) for factor, part in parts])
    return _global_mean(geometry, x, w) if isinstance(geometry, Hadamard) else _local_mean(geometry, x, w)


@torch.no_grad()
def _local_mean(geometry: Complete, x: Tensor, w: Tensor) -> Tensor:
    """Returns a local minimum of the mean squared distance, from the best of some points."""
    dtype, x, w = x.dtype, x.double(), w.double()
    starts = x[:: -(-len(x) // _STARTS)]
    spread = torch.stack([(w * geometry.squared_distance(start, x)).sum(0) for start in starts])
    best = spread.argmin(0)
    m = starts.gather(0, best.reshape(*best.shape, *(1,) * geometry.event_dim).expand(1, *x.shape[1:])).squeeze(0)
    # Each step shortens the gradient by a factor that is small if points are close. Where curvature is negative it
    # could be too long.
    for _ in range(_MAX_LOCAL_STEPS):
        u = (w.unsqueeze(-1) * geometry.log(m, x)).sum(0)
        m = geometry.exp(m, u)
        if bool((torch.linalg.vector_norm(u, dim=-1) <= 64 * torch.finfo(u.dtype).eps).all()):
            break
    return geometry.project(m.to(dtype))


def _global_mean(geometry: Hadamard, x: Tensor, w: Tensor) -> Tensor:
    """Returns the minimum of the mean squared distance."""
    dtype, x, w = x.dtype, x.double(), w.double()
    with torch.no_grad():
        u = _minimiser(geometry, x.detach(), w.detach())
    # One more Newton step, now differentiable, has the gradient of the minimiser (implicit function theorem).
    m = geometry.exp0(u)[0]
    mean_log = (w.unsqueeze(-1) * geometry.log_at(m, x)[0]).sum(0)
    hessian = _hessian(geometry, m.detach(), x.detach(), w.detach())
    step = torch.linalg.solve(hessian, mean_log.unsqueeze(-1)).squeeze(-1)
    return geometry.exp0(geometry.log0(geometry.exp_at(m, step)[0])[0].to(dtype))[0]


def _normalised_weights(x: Tensor, weights: Tensor | None, dim: int, batch: torch.Size) -> Tensor:
    """Returns weights that sum to one over the first dimension and broadcast with ``x.movedim(dim, 0)``."""
    if weights is None:
        return x.new_full((x.size(dim),) + (1,) * (len(batch) - 1), 1 / x.size(dim))
    check_floating("weights", weights)
    check_same_dtype(weights=weights, x=x)
    if weights.dim() == 0:
        raise ValueError(
            "weights has no dimensions, but must have one weight for each point; pass None for equal weights."
        )
    if weights.dim() == 1:
        weights = weights.reshape((-1,) + (1,) * (len(batch) - dim - 1))
    if check_batches(weights=weights.shape, x=batch) != batch:
        raise ValueError(
            f"weights has shape {tuple(weights.shape)}, but the batch shape of x is {tuple(batch)}; expand x to it."
        )
    weights = weights.expand(batch).movedim(dim, 0)
    total = weights.sum(0)
    if validating() and not bool(((weights >= 0).all() & (total > 0) & total.isfinite()).all()):
        raise ValueError(
            f"weights has minimum {weights.min().item():.6g} and sums to {total.min().item():.6g}, but must be "
            f"nonnegative with a positive finite sum; use softplus or exp, or None for equal weights."
        )
    return weights / total


def _minimiser(geometry: Hadamard, x: Tensor, w: Tensor) -> Tensor:
    """Returns ``log0`` of the mean, by Newton's method with backtracking, from the point of largest weight."""
    batch = torch.broadcast_shapes(w.shape[1:], geometry.batch_of(x.shape)[1:], *geometry.batch_shapes())
    event = x.shape[x.dim() - geometry.event_dim :]
    first = w.expand(len(x), *batch).argmax(0).reshape(1, *batch, *(1 for _ in event)).expand(1, *batch, *event)
    m = x.expand(len(x), *batch, *event).gather(0, first)[0]
    value = (w * geometry.squared_distance(m, x)).sum(0)
    for _ in range(_MAX_STEPS):
        mean_log = (w.unsqueeze(-1) * geometry.log_at(m, x)[0]).sum(0)
        step = torch.linalg.solve(_hessian(geometry, m, x, w), mean_log.unsqueeze(-1)).squeeze(-1)
        # Newton's predicted decrease. Below rounding no comparison of values can choose a step length.
        converged = (mean_log * step).sum(-1).abs() <= 8 * torch.finfo(value.dtype).eps * value
        size = torch.ones_like(value)
        for _ in range(_MAX_STEPS):
            moved = geometry.exp_at(m, size.unsqueeze(-1) * step)[0]
            new = (w * geometry.squared_distance(moved, x)).sum(0)
            worse = ~(new <= value) & ~converged
            if not bool(worse.any()):
                break
            size = torch.where(worse, size / 2, size)
        better = new < value
        at = better.reshape(better.shape + (1,) * geometry.event_dim)
        m, value = torch.where(at, moved, m), torch.where(better, new, value)
        if not bool(better.any()):
            break
    return geometry.log0(m)[0]


@torch.no_grad()
def _hessian(geometry: Hadamard, m: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """Returns the Hessian of half the mean squared distance in normal coordinates at ``m``, shape ``(*, n, n)``.

    Central differences of the gradient, which need nothing beyond ``exp0`` and ``log_at``. ``m`` is carried to the
    origin first: then the frames at nearby points are those that geodesics carry from ``m``, and do not turn. At the
    mean the differences are exact to 1e-9 in float64; elsewhere the Hessian only sets the direction of a step.
    """
    x = geometry.translate(m, x, inverse=True)
    spread = (w * geometry.log0(x)[0].square().sum(-1)).sum(0).sqrt()
    step = (torch.finfo(x.dtype).eps ** (1 / 3) * (1 + spread)).unsqueeze(-1)

    def mean_log(v: Tensor) -> Tensor:
        return (w.unsqueeze(-1) * geometry.log_at(geometry.exp0(v)[0], x)[0]).sum(0)

    unit = torch.eye(geometry.dim(m.shape), dtype=x.dtype, device=x.device)
    columns = [(mean_log(-step * e) - mean_log(step * e)) / (2 * step) for e in unit]
    hessian = torch.stack(columns, -1)
    return (hessian + hessian.mT) / 2
