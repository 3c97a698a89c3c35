r"""Unconstrained latents for manifolds without a global chart: a point is the direction of a normal vector."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from geoopt.manifolds.base import Manifold
from pyro.distributions import constraints
from pyro.infer.reparam.reparam import Reparam
from torch import Tensor

from pyro_hyperbolic import geometry

from .guide_runs import manifold_of

__all__ = ["LiftReparam"]


class LiftReparam(Reparam):
    r"""Samples a latent point as the direction of a vector, :math:`x = z / |z|`, so that NUTS and autoguides apply.

    On a sphere or another compact manifold ``M`` no bijection from :math:`\mathbb R^q` exists, so ``NUTS`` and most
    autoguides reject a latent ``x`` there. This reparametrisation replaces it by ``x_lift``, an unconstrained ``z`` of
    ``b`` vectors :math:`z_i \in \mathbb R^m`, whose directions determine ``x``, with the density

    .. math:: p(x(z)) \operatorname{vol}(M) \prod_{i=1}^b \frac{|z_i|^2}{m} \mathcal N(z_i; 0, I)

    with respect to Lebesgue measure. It is exact: ``x`` has the density ``p`` with respect to Riemannian volume, and
    the lengths, chi distributed with ``m + 2`` degrees of freedom, are independent of it.

    =========================  ======================  =========================================
    manifold                   shape of ``x_lift``     ``x``
    =========================  ======================  =========================================
    ``geoopt.Sphere()``        ``(*, n + 1)``          ``z / |z|``
    ``manifolds.Torus(n)``     ``(*, 2 n)``            angles of ``n`` vectors in the plane
    ``manifolds.Rotations()``  ``(*, 4)``              rotation of the quaternion ``z / |z|``
    product                    concatenated            by factors, ``exp0(M, z)`` where defined
    =========================  ======================  =========================================

    Observed sites and sites with a global chart are left unchanged, so ``config=lambda site: LiftReparam()`` lifts all
    sites that need it. Read posteriors of ``x``: of ``x_lift`` only directions have a meaning. The quaternions ``z``
    and ``-z`` are one rotation; a guide near one of them has an evidence that is lower by log 2.

    Raises:
        NotImplementedError: If the geometry of the manifold does not define a lift.

    References:
        George Marsaglia, *Choosing a Point from the Surface of a Sphere*, 1972.
        Stan Development Team, *Stan Reference Manual*, section "Unit vector".

    Example:
        >>> M = geoopt.Sphere()
        >>> def model():
        ...     return pyro.sample("x", hdist.Uniform(M, 2))
        >>> lifted = pyro.poutine.reparam(model, config={"x": LiftReparam()})
        >>> trace = pyro.poutine.trace(lifted).get_trace()
        >>> z, x = trace.nodes["x_lift"]["value"], trace.nodes["x"]["value"]
        >>> z / z.norm() - x
        tensor([0., 0., 0.])
    """

    def apply(self, msg: Any) -> Any:
        """Samples ``x_lift`` and makes ``x`` deterministic, as Pyro's reparametrisations do."""
        fn, value = msg["fn"], msg["value"]
        manifold = manifold_of(fn.support)
        if msg["is_observed"] or manifold is None or isinstance(geometry.bind(manifold), geometry.Hadamard):
            return msg
        space = geometry.complete(manifold)
        z = pyro.sample(
            f"{msg['name']}_lift",
            _lifted(fn, manifold),
            obs=None if value is None else space.lift(value),
            infer={"is_observed": False},
        )
        if value is None:
            value = space.lifted(z)[0]
        return {"fn": dist.Delta(value, event_dim=fn.event_dim).mask(False), "value": value, "is_observed": True}


def _lifted(fn: Any, manifold: Manifold) -> Any:
    """Returns the distribution of ``z`` for that of ``x``, copied and masked in the same way."""
    if isinstance(fn, torch.distributions.Independent):
        return _lifted(fn.base_dist, manifold).to_event(fn.reinterpreted_batch_ndims)
    if isinstance(fn, dist.MaskedDistribution):
        return _lifted(fn.base_dist, manifold).mask(fn._mask)
    return _Lifted(fn, manifold)


class _Lifted(dist.TorchDistribution):
    r"""The distribution of :math:`z` above points: density :math:`w(z)\, p(x(z))`, see ``Complete.lifted``."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - as torch declares it
    support = constraints.real_vector

    def __init__(self, points: Any, manifold: Manifold) -> None:
        self.points, self.manifold = points, manifold
        space = geometry.complete(manifold)
        size = space.lift_size(space.dim(points.event_shape))
        super().__init__(points.batch_shape, torch.Size((size,)))

    @property
    def has_rsample(self) -> bool:
        return bool(self.points.has_rsample)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_Lifted":
        return _Lifted(self.points.expand(batch_shape), self.manifold)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 - as torch declares it
        return geometry.complete(self.manifold).lift(self.points.rsample(sample_shape), random=True)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            return geometry.complete(self.manifold).lift(self.points.sample(sample_shape), random=True)

    def log_prob(self, z: Tensor) -> Tensor:
        x, log_weight = geometry.complete(self.manifold).lifted(z)
        found: Tensor = self.points.log_prob(x) + log_weight
        return found
