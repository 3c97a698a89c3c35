r"""Laws of a geometry: :math:`\log_x \exp_x u = u`, distances, speeds and frames, against each other and ``inner``.

For those who register a manifold of their own. Rounding is that of :mod:`~pyro_hyperbolic.testing.agreement`, and grows
near the cut locus, where a logarithm turns fast.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic import distributions as hdist
from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions.constraints import on_manifold

from . import density_laws
from .agreement import check_points, scalars_agree, vectors_agree
from .oracles import Space, fixed_noise, gradient_of

__all__ = ["assert_geometry_laws"]


def assert_geometry_laws(manifold: Manifold, x: Tensor) -> None:
    r"""Checks every law of the geometry registered for a manifold at some points, in float64 and float32.

    - ``exp_and_log_agree``: :math:`\log_x \exp_x u = u` and :math:`|u| = d(x, \exp_x u)`, for lengths from 1e-8 to 1e-4
      before the cut locus.
    - ``geodesics_have_constant_speed``: :math:`|u|`, in geoopt's ``inner``.
    - ``tangents_are_projected``: ``tangent`` is a projection onto ``n`` dimensions, in which logarithms lie.
    - ``states_agree``: ``state`` inverts ``point``, whose log-volume is that of the Gram determinant along ``frame``;
      ``velocity`` is that of ``exp``, and rows of ``frame`` are orthogonal.
    - ``towards_is_smooth``: ``towards`` agrees with ``log`` nearby, and its gradients are finite everywhere.
    - ``gradients_are_finite``: the derivative of :math:`\log_x \exp_x` is the identity, also at zero.
    - Of a compact manifold: ``project`` maps onto it, and ``uniform`` samples it with total mass 1, so
      ``log_total_volume`` is that of ``inner``.

    Args:
        manifold: A geoopt manifold whose geometry is registered.
        x: Points, shape ``(N, *event)``, in float64.

    Raises:
        LawViolation: An AssertionError that names the law, what was expected and found, and the likely cause.
        TypeError: If the geometry has no exponential map.

    Example:
        >>> assert_geometry_laws(geoopt.Sphere(), torch.eye(3, dtype=torch.float64))
    """
    found, space = geometry.complete(manifold), Space(on_manifold(manifold))
    for dtype in (torch.float64, torch.float32):
        points = space.point(space.state(space.events(x)).to(dtype)).detach()
        check_points("exp_and_log_agree", "point(state(x))", points, on_manifold(manifold))
        (noise,) = fixed_noise(points.new_empty(len(points), space.dim(points)))
        d = torch.nn.functional.normalize(noise)
        cut = space.cut_distance(points, d, 3 * space.length if space.charted else 100.0)
        for law in (_tangent, _exp_and_log, _speed, _states, _towards, _gradients):
            law(found, space, points, d, cut)
    if isinstance(found, geometry.Embedded):
        projected = found.project(*fixed_noise(x))
        check_points("stays_on_manifold", "project(x)", projected, on_manifold(manifold))
        uniform = hdist.Uniform(manifold, space.dim(x), dtype=torch.float64)
        nodes = density_laws.Nodes.of(uniform, resolution=150)
        density_laws.total_mass_is_one(uniform, nodes=nodes)
        density_laws.samples_follow_the_density(uniform, nodes=nodes)


def _bound(space: Space, x: Tensor, y: Tensor) -> float:
    growth = (space.scaled_radius(x) + space.scaled_radius(y)).max().exp()
    return 2000 * torch.finfo(x.dtype).eps * float(growth)


def _lengths(cut: Tensor) -> list[tuple[Tensor, float]]:
    """Returns lengths of tangent vectors, and how much rounding grows because of the cut locus."""
    few = [torch.full_like(cut, r) for r in (0.0, 1e-8, 1e-4)]
    return [(r, 1 + 1 / float((cut - r).min())) for r in (*few, 0.3 * cut, 0.9 * cut, cut - 1e-4)]


def _exp_and_log(found: Any, space: Space, x: Tensor, d: Tensor, cut: Tensor) -> None:
    law = "exp_and_log_agree"
    for r, growth in _lengths(cut):
        v = r[:, None] * d
        y = space.exp_at(x, v)
        check_points(law, "exp(x, u)", y, on_manifold(space.manifold))
        bound = _bound(space, x, y)
        cause = "digits lost near zero, or another length of tangent vectors"
        vectors_agree(law, "log(x, exp(x, u)) = u", v, space.log_at(x, y), x, growth * bound, cause, at=space)
        for formula, distance in (("d(x, exp(x, u))", found.distance(x, y)), ("d(exp(x, u), x)", found.distance(y, x))):
            scalars_agree(law, f"{formula} = |u|", r, distance, x, bound, cause, at=space)
        scalars_agree(law, "d(x, y)^2", r * r, found.squared_distance(x, y), x, bound * (1 + float(r.max())), at=space)
        u = found.log(x, y)
        vectors_agree(law, "exp(x, log(x, y)) = y", y, found.exp(x, u), x, bound, cause, of=space, at=space)
        law_of_u, formula = "tangents_are_projected", "tangent(x, log(x, y)) = log(x, y)"
        vectors_agree(law_of_u, formula, u, found.tangent(x, u), x, bound, at=space)


def _speed(found: Any, space: Space, x: Tensor, d: Tensor, cut: Tensor) -> None:
    for r in (torch.zeros_like(cut), cut):
        y, velocity = _rate(space, lambda s: space.exp_at(x, s[:, None] * d), r)
        squared = space.inner(y.double(), velocity.double(), velocity.double())
        law, formula = "geodesics_have_constant_speed", "<dx/dt, dx/dt> = |u|^2 along exp(x, t u)"
        cause = "exp is not that of geoopt's inner, or its derivative is wrong at zero"
        # Inner products lose another e^r.
        bound = _bound(space, x, y) * float(space.scaled_radius(y).max().exp())
        scalars_agree(law, formula, torch.ones_like(squared), squared, x, bound, cause, at=space)


def _tangent(found: Any, space: Space, x: Tensor, d: Tensor, cut: Tensor) -> None:
    law, size = "tangents_are_projected", found.vector_size(space.dim(x))
    eye = torch.eye(size, dtype=x.dtype)
    projection = found.tangent(x.unsqueeze(-1 - space.event_dim), eye).expand(len(x), size, size)
    bound = 2000 * torch.finfo(x.dtype).eps
    flat, again = projection.flatten(1), (projection @ projection).flatten(1)
    vectors_agree(law, "tangent(x, tangent(x, u)) = tangent(x, u)", flat, again, x, bound, at=space)
    trace = projection.diagonal(dim1=-2, dim2=-1).sum(-1)
    vectors_agree(law, "tangent(x, .) is symmetric", flat, projection.mT.flatten(1), x, bound, at=space)
    scalars_agree(law, "tangent(x, .) has rank n", torch.full_like(trace, space.dim(x)), trace, x, bound, at=space)


def _states(found: Any, space: Space, x: Tensor, d: Tensor, cut: Tensor) -> None:
    law, (s, _) = "states_agree", found.state(x)
    y, log_volume = found.point(s)
    bound = _bound(space, x, x)
    vectors_agree(law, "point(state(x)) = x", x, y, x, bound, of=space, at=space)
    vectors_agree(law, "retract(state(x)) = state(x)", s, found.retract(s), x, bound, at=space)
    frame, n = found.frame(s), space.dim(x)
    products = frame @ frame.mT
    diagonal = torch.diag_embed(products.diagonal(dim1=-2, dim2=-1))
    vectors_agree(law, "rows of frame(s) are orthogonal", diagonal.flatten(1), products.flatten(1), x, bound, at=space)

    def pushed(velocity: Tensor) -> Tensor:
        return _rate(space, lambda t: found.point(s + t[:, None] * velocity)[0], torch.zeros_like(cut))[1]

    moved = torch.stack([pushed(frame[:, i]).double() for i in range(n)], 1)
    gram = space.inner(y.double()[:, None, None], moved[:, :, None], moved[:, None])
    expected = torch.linalg.slogdet(gram).logabsdet / 2
    cause = "the frame is not orthonormal in geoopt's inner, or the log-volume is wrong"
    lost = bound * float(space.scaled_radius(x).max().exp())
    scalars_agree(law, "1/2 log det G(frame)", expected, log_volume.double(), x, lost, cause, at=space)
    u = found.log(x, space.exp_at(x, d))
    velocity = pushed(found.velocity(s, u))
    expected = _rate(space, lambda t: found.exp(x, t[:, None] * u), torch.zeros_like(cut))[1]
    one, other = space.flat(expected), space.flat(velocity)
    vectors_agree(law, "velocity(s, u) is that of exp(x, t u)", one, other, x, bound, at=space)


def _rate(space: Space, path: Callable[[Tensor], Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the points of a path at times ``(N,)``, and their velocities in the space of coordinates."""
    t = t.clone().requires_grad_()
    y = path(t)
    rates = [gradient_of(column.sum(), t) for column in space.flat(y).T]
    return y.detach(), torch.stack(rates).T.reshape(y.shape)


def _towards(found: Any, space: Space, x: Tensor, d: Tensor, cut: Tensor) -> None:
    law, step = "towards_is_smooth", 1e-3
    near = space.exp_at(x, step * d)
    (vector, squared), u = found.towards(x, near), found.log(x, near)
    bound = step**2 + _bound(space, x, near)
    vectors_agree(law, "towards(x, y) = log(x, y) nearby", u, vector, x, bound, at=space)
    scalars_agree(law, "its square is d(x, y)^2 nearby", torch.linalg.vecdot(u, u), squared, x, bound * step, at=space)
    for r in (torch.zeros_like(cut), cut):
        y = space.exp_at(x, r[:, None] * d).detach()
        _check_finite(law, "towards(x, y)", space, x, lambda y: found.towards(x, y)[0], y)
        _check_finite(law, "its square", space, x, lambda y: found.towards(x, y)[1], y)
        _check_finite(law, "features(y)", space, x, found.features, y)


def _check_finite(
    law: str, what: str, space: Space, x: Tensor, function: Callable[[Tensor], Tensor], y: Tensor
) -> None:
    y = y.clone().requires_grad_()
    gradient = gradient_of(function(y).sum(), y)
    zero = torch.zeros_like(space.flat(gradient))
    cause = "a norm or a division by zero: use functions of squares"
    finite = torch.where(space.flat(gradient).isfinite(), 0.0, torch.nan)
    vectors_agree(law, f"the gradient of {what} is finite", zero, finite, x, 0.5, cause, at=space)


def _gradients(found: Any, space: Space, x: Tensor, d: Tensor, cut: Tensor) -> None:
    law, n = "gradients_are_finite", space.dim(x)
    for r, growth in _lengths(cut)[:-1]:
        v = (r[:, None] * d).requires_grad_()
        y = space.exp_at(x, v)
        back = space.log_at(x, y)
        rows = [gradient_of(column.sum(), v) for column in back.T]
        eye = torch.eye(n, dtype=v.dtype).expand(len(v), n, n).flatten(1)
        formula, cause = "d log(x, exp(x, u)) / du = 1", "a norm at zero, or a part under no_grad"
        bound = growth * _bound(space, x, y)
        vectors_agree(law, formula, eye, torch.stack(rows, 1).flatten(1), x, bound, cause, at=space)
    for what, function in (("log(x, y)", found.log), ("d(x, y)^2", found.squared_distance)):
        _check_finite(law, f"{what} at y = x", space, x, functools.partial(function, x), x)
