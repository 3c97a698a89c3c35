r"""Laws of symmetric transforms: maps that commute with isometries, and maps of products that act by factors."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Transform

from .agreement import scalars_agree, tolerance, vectors_agree
from .oracles import Space

__all__ = ["factors_are_independent", "is_equivariant"]


def is_equivariant(transform: Transform, isometry: Callable[[Tensor], Tensor], x: Tensor) -> None:
    r"""Checks :math:`t(g x) = g\, t(x)` and :math:`\log |\det dt|(g x) = \log |\det dt|(x)` for an isometry ``g``.

    Args:
        transform: A transform of a manifold to itself.
        isometry: A map of points to points that keeps distances, such as a ``Translation``.
        x: Points, shape ``(*, *event)``.

    Raises:
        LawViolation: If the transform does not commute with the isometry.

    Example:
        Scaling of vectors commutes with a quarter turn:

        >>> scaling = dist.transforms.AffineTransform(0.0, 2.0, event_dim=1)
        >>> is_equivariant(scaling, lambda x: torch.stack([-x[..., 1], x[..., 0]], -1), torch.randn(8, 2))
    """
    law, domain, codomain = "is_equivariant", Space(transform.domain), Space(transform.codomain)
    moved = isometry(x.clone()).detach()
    y, of_moved = transform(x), transform(moved)
    bound = max(tolerance(transform, x, y), tolerance(transform, moved, of_moved))
    cause = "a coordinate, axis or point is singled out"
    vectors_agree(law, "t(g(x)) = g(t(x))", isometry(y.detach()), of_moved, x, bound, cause, of=codomain, at=domain)
    expected, found = transform.log_abs_det_jacobian(x, y), transform.log_abs_det_jacobian(moved, of_moved)
    scalars_agree(law, "the log-dets at g(x) and x are equal", expected, found, x, bound, cause, at=domain)


def factors_are_independent(transform: Transform, x: Tensor) -> None:
    r"""Checks that a transform of a product acts on each factor by itself: :math:`t(x)_i = t_i(x_i)`.

    The image of a factor must not depend on the other factors, and the log-determinant must be a sum over factors.

    Args:
        transform: A transform of a product of manifolds to itself.
        x: Two or more points, shape ``(*, *event)``.

    Raises:
        LawViolation: If a factor depends on another.
        TypeError: If the domain is not a product.

    Example:
        >>> M = geoopt.ProductManifold((geoopt.Euclidean(1), 1), (geoopt.Sphere(), 3))
        >>> class Shift(dist.transforms.AffineTransform):
        ...     domain = codomain = hdist.constraints.on_manifold(M)
        >>> x = torch.cat([torch.randn(8, 1), hdist.Uniform(geoopt.Sphere(), 2).sample((8,))], -1)
        >>> factors_are_independent(Shift(torch.tensor([1.0, 0.0, 0.0, 0.0]), 1.0, event_dim=1), x)
    """
    law, domain, codomain = "factors_are_independent", Space(transform.domain), Space(transform.codomain)
    one = domain.events(x.detach())
    other, y = one.roll(1, 0), transform(one)
    bound = tolerance(transform, one, y)
    total = transform.log_abs_det_jacobian(one, y) + transform.log_abs_det_jacobian(other, transform(other))
    images = codomain.factors(y)
    for i, _ in enumerate(images):
        mixed, rest = domain.exchange_factor(one, other, i), domain.exchange_factor(other, one, i)
        image = transform(mixed)
        (space, expected), (_, found) = images[i], codomain.factors(image)[i]
        formula, cause = f"factor {i} of t(x) depends on factor {i} of x only", "a layer that mixes factors"
        vectors_agree(law, formula, expected, found, one, bound, cause, of=space, at=domain)
        parts = transform.log_abs_det_jacobian(mixed, image) + transform.log_abs_det_jacobian(rest, transform(rest))
        formula = f"the log-det is a term of factor {i} plus one of the others"
        scalars_agree(law, formula, *torch.broadcast_tensors(total, parts), one, bound, cause, at=domain)
