r"""Autoguides that know where their latents are: a wrapped normal at a learned location for each site on a manifold."""

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from geoopt.manifolds.base import Manifold
from pyro.distributions import constraints
from pyro.infer.autoguide.effect import AutoNormalMessenger
from pyro.infer.autoguide.initialization import init_to_feasible, init_to_mean
from pyro.infer.autoguide.utils import deep_setattr
from pyro.nn import PyroParam
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint

from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions import WrappedDistribution, WrappedMultivariateNormal, WrappedNormal
from pyro_hyperbolic.distributions.constraints import OnManifold
from pyro_hyperbolic.geometry import checks

__all__ = ["AutoWrappedMultivariateNormal", "AutoWrappedNormal", "GeodesicBall"]


#: The supports that have the manifold within: torch before 2.8 gives a mixture that of its components.
_WRAPPERS = (constraints.independent, getattr(constraints, "MixtureSameFamilyConstraint", constraints.independent))
_TO_MEAN = init_to_mean(fallback=init_to_feasible)

#: The stretch of volume per dimension, log(sinh(r) / r) at r = 1 on the hyperboloid, beyond which an anchor follows.
_STRETCH = math.log(math.sinh(1.0))


class GeodesicBall(NamedTuple):
    r"""The points within a distance of a centre, :math:`\{x : d(x, \text{center}) \le \text{radius}\}`.

    Attributes:
        center: Shape ``(*, n + 1)``.
        radius: In units of distance, shape ``(q, *)`` for ``q`` quantiles.
    """

    center: Tensor
    radius: Tensor


class AutoWrappedNormal(AutoNormalMessenger):
    r"""Guide with :math:`q(z) = \operatorname{WrappedNormal}(loc_z, scale_z)` at sites on manifolds, Normal elsewhere.

    A site on a manifold, in any number of plates and of any curvature, gets a wrapped normal with a location and scales
    of its own; every other site what ``AutoNormal`` gives it. The guides of Pyro are normal in the chart at the
    *origin*, where a round posterior at distance ``r`` is thinner than it is long by ``sinh(r) / r``, and bent: they
    miss it from ``r = 5`` or so. This one does not see where the origin is.

    Locations are learned in normal coordinates about an anchor, ``loc = T_anchor exp_o(v)``, so that a step of any
    optimiser by ``v`` is a step of length ``|v|`` wherever the anchor is; whenever ``|v|`` exceeds ``sqrt(k)`` the
    anchor follows, which changes the coordinates and not the location. (Optimisers that compare points of several
    steps, such as ``LBFGS``, do not stand that; under ``JitTrace_ELBO`` the anchor stays where its first step is.)

    A *latent* curvature works: locations are stored in coordinates, and each run has them on its own manifold.

    Args:
        model: A Pyro model.
        init_loc_fn: Initialisation per site, as for ``AutoNormalMessenger``: the prior's mean by default.
        init_scale: Initial standard deviation, in tangent coordinates (units of distance) or unconstrained ones.
        amortized_plates: Names of plates over which parameters are shared, as for ``AutoNormalMessenger``.

    Example:
        >>> M, beacon = geoopt.Lorentz(), geometry.exp0(geoopt.Lorentz(), torch.tensor([6.0, 0.0]))
        >>> def model():
        ...     z = pyro.sample("z", hdist.WrappedNormal(geometry.origin(M, 2), torch.tensor(3.0), M))
        ...     pyro.sample("x", hdist.WrappedNormal(z, torch.tensor(0.3), M), obs=beacon)
        >>> guide = AutoWrappedNormal(model)
        >>> svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), pyro.infer.Trace_ELBO())
        >>> losses = [svi.step() for _ in range(250)]
        >>> bool(geometry.distance(M, guide.quantiles([0.95])["z"].center, beacon) < 0.3)  # one step: 0.07
        True
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        init_loc_fn: Callable[..., Any] = _TO_MEAN,
        init_scale: float = 0.1,
        amortized_plates: tuple[str, ...] = (),
    ) -> None:
        super().__init__(model, init_loc_fn=init_loc_fn, init_scale=init_scale, amortized_plates=amortized_plates)
        self.amortized_plates: tuple[str, ...] = amortized_plates
        self._seen: dict[str, Tensor] = {}
        self._hidden: dict[str, Any] = {}
        self._quantiles: tuple[Tensor, dict[str, Any]] | None = None

    def get_posterior(self, name: str, prior: Any) -> Any:
        """Returns the posterior of a site, given its prior under the values of the sites before it."""
        if self._computing_median or _manifold_of(prior.support) is None:
            return super().get_posterior(name, prior)
        posterior = self._wrapped(name, prior)
        return posterior.to_event(prior.event_dim - 1)

    # A guide that runs the model shows its observed sites to every handler outside; Pyro's importance weights trace the
    # guide, and would divide by the likelihood. So others see these sites as auxiliary and without a density, and the
    # guide's own trace, from which the ELBOs take the model's, has them as they are.
    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        if msg["is_observed"] and not site_is_subsample(msg):
            self._hidden[msg["name"]] = msg["infer"]
            msg.update(fn=msg["fn"].mask(False), infer={**msg["infer"], "is_auxiliary": True})

    def _pyro_post_sample(self, msg: Any) -> None:
        infer = self._hidden.pop(msg["name"], None)
        if infer is not None:
            msg.update(fn=msg["fn"].base_dist, infer=infer)
        super()._pyro_post_sample(msg)

    def _wrapped(self, name: str, prior: Any) -> WrappedDistribution:
        manifold = _manifold_of(prior.support)
        return WrappedNormal(self._loc(name, prior), self._parameter("scales", name), manifold)

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Returns the location of each site on a manifold, and the median of every other one."""
        return super().median(*args, **kwargs)

    def quantiles(self, quantiles: Sequence[float] | Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:
        r"""Returns, for each site on a manifold, the geodesic balls about its location that hold such parts of it.

        A manifold has no order, so no quantiles of coordinates: the ball of quantile ``q`` has the radius
        :math:`\rho` with :math:`q(d(z, loc) \le \rho) = q`, by 4096 quasi-random points, whose ball holds ``q`` to
        within 0.002. Every other site has the quantiles of ``AutoNormal``. Where the prior of a site depends on other
        latents, these are at their medians.

        Args:
            quantiles: Numbers between 0 and 1, exclusive.
            *args: Arguments of the model.
            **kwargs: Arguments of the model.

        Returns:
            For each latent site a :class:`GeodesicBall` or a tensor of shape ``(len(quantiles), *)``.

        Raises:
            ValueError: If a quantile is not between 0 and 1.
        """
        wanted = torch.as_tensor(quantiles, dtype=torch.get_default_dtype()).flatten()
        if not bool(((wanted > 0) & (wanted < 1)).all()):
            raise ValueError(f"quantiles = {wanted.tolist()}, but each must be in (0, 1).")
        self._quantiles = wanted, {}
        try:
            self.median(*args, **kwargs)
            return self._quantiles[1]
        finally:
            self._quantiles = None

    def _get_posterior_median(self, name: str, prior: Any) -> Tensor:
        on_manifold = _manifold_of(prior.support) is not None
        median = self._loc(name, prior) if on_manifold else super()._get_posterior_median(name, prior)
        if self._quantiles is not None:
            levels, found = self._quantiles
            found[name] = (
                _balls(self._wrapped(name, prior), levels) if on_manifold else self._interval(name, prior, levels)
            )
        return median

    def _interval(self, name: str, prior: Any, levels: Tensor) -> Tensor:
        loc, scale = self._get_params(name, prior)
        levels = levels.to(loc).reshape(-1, *(1 for _ in loc.shape))
        return biject_to(prior.support)(dist.Normal(loc, scale).icdf(levels))

    def _loc(self, name: str, prior: Any) -> Tensor:
        """Returns the location, a point of the prior's manifold; makes the parameters of the site if it is new."""
        manifold = _manifold_of(prior.support)
        try:
            anchor, v = self._parameter("anchors", name), self._parameter("locs", name)
        except AttributeError:
            self._initialise(name, prior, manifold)
            anchor, v = self._parameter("anchors", name), self._parameter("locs", name)
        if torch.is_grad_enabled() and not checks.tracing():
            self._follow(name, manifold)
            anchor, v = self._parameter("anchors", name), self._parameter("locs", name)
        kernels = geometry.kernels(manifold)
        start, step = kernels.exp0(manifold, anchor.detach())[0], kernels.exp0(manifold, v)[0]
        return kernels.translate(manifold, start, step, False)

    @torch.no_grad()
    def _initialise(self, name: str, prior: Any, manifold: Manifold) -> None:
        event_dim = prior.event_dim
        try:
            value = self.init_loc_fn({"name": name, "fn": prior}).detach()
        except NotImplementedError:  # torch knows no bijection to the support of a mixture, for which strategies ask
            value = prior.sample()
        tangent, _ = geometry.kernels(manifold).log0(manifold, value)
        anchor = self._adjust_plates(tangent, event_dim)
        deep_setattr(self, f"anchors.{name}", PyroParam(anchor, event_dim=event_dim))
        deep_setattr(self, f"locs.{name}", PyroParam(torch.zeros_like(anchor), event_dim=event_dim))
        scale = torch.full_like(anchor, self._init_scale)
        deep_setattr(self, f"scales.{name}", PyroParam(scale, constraint=constraints.positive, event_dim=event_dim))
        # A parameter, so that it is saved, loaded and subsampled with the others; not one for an optimiser.
        self._stored("anchors", name).requires_grad_(False)

    def _adjust_plates(self, value: Tensor, event_dim: int) -> Tensor:
        # Pyro looks for the plates outside of the model among names, as frames, and finds none: a first run in a plate
        # of particles would make parameters for each of them.
        amortized: tuple[str, ...] = self.amortized_plates
        self.amortized_plates = (*amortized, *self._outer_plates)
        try:
            return super()._adjust_plates(value, event_dim)
        finally:
            self.amortized_plates = amortized

    @torch.no_grad()
    def _follow(self, name: str, manifold: Manifold) -> None:
        """Moves each anchor to its location where the chart about it stretches; the locations stay where they are."""
        anchor, v = self._stored("anchors", name), self._stored("locs", name)
        # At most once after each step of the optimiser: later runs share these tensors with graphs still to go back.
        seen = self._seen.get(name)
        if seen is not None and torch.equal(seen, v):
            return
        kernels = geometry.kernels(manifold)
        batches = [value.shape for value in kernels.parameters(manifold).values() if value.numel() > 1]
        if all(_expands_to(batch, v.shape[:-1]) for batch in batches):  # else: of particles, or of a subsample
            far = kernels.log_volume(manifold, v) > _STRETCH * max(v.size(-1) - 1, 1)
            if bool(far.any()):
                start, step = kernels.exp0(manifold, anchor)[0], kernels.exp0(manifold, v)[0]
                moved, _ = kernels.log0(manifold, kernels.translate(manifold, start, step, False))
                anchor.copy_(torch.where(far.unsqueeze(-1), moved, anchor))
                v.masked_fill_(far.unsqueeze(-1), 0.0)
        self._seen[name] = v.clone()

    def _parameter(self, kind: str, name: str) -> Tensor:
        return attrgetter(f"{kind}.{name}")(self)

    def _stored(self, kind: str, name: str) -> Tensor:
        """Returns the tensor that the optimiser edits, whole also in a subsampled plate."""
        return attrgetter(f"{kind}.{name}_unconstrained")(self)


class AutoWrappedMultivariateNormal(AutoWrappedNormal):
    r"""Guide with :math:`q(z) = \operatorname{WrappedMultivariateNormal}(loc_z, L_z)` at sites on manifolds.

    As :class:`AutoWrappedNormal`, with a full covariance in the tangent coordinates of each location,
    :math:`L = \operatorname{diag}(scale) L'` with ``L'`` unit lower triangular; other sites are Normal, and sites are
    independent of each other.

    Args:
        model: A Pyro model.
        init_loc_fn: Initialisation per site, as for ``AutoNormalMessenger``: the prior's mean by default.
        init_scale: Initial standard deviation, in tangent coordinates (units of distance) or unconstrained ones.
        amortized_plates: Names of plates over which parameters are shared, as for ``AutoNormalMessenger``.
    """

    def _wrapped(self, name: str, prior: Any) -> WrappedDistribution:
        loc = self._loc(name, prior)
        scale_tril = self._parameter("scales", name).unsqueeze(-1) * self._parameter("scale_trils", name)
        return WrappedMultivariateNormal(loc, scale_tril=scale_tril, manifold=_manifold_of(prior.support))

    @torch.no_grad()
    def _initialise(self, name: str, prior: Any, manifold: Manifold) -> None:
        super()._initialise(name, prior, manifold)
        scale = self._stored("scales", name)
        tril = torch.eye(scale.size(-1), dtype=scale.dtype, device=scale.device).repeat(*scale.shape[:-1], 1, 1)
        value = PyroParam(tril, constraint=constraints.unit_lower_cholesky, event_dim=prior.event_dim + 1)
        deep_setattr(self, f"scale_trils.{name}", value)


def _manifold_of(support: Constraint) -> Manifold | None:
    """Returns the manifold of a support that is one: of independent copies, or of the components of a mixture."""
    while isinstance(support, _WRAPPERS):
        support = support.base_constraint
    return support.manifold if isinstance(support, OnManifold) else None


def _expands_to(batch: torch.Size, full: torch.Size) -> bool:
    return len(batch) <= len(full) and all(i in (1, j) for i, j in zip(batch[::-1], full[::-1], strict=False))


def _balls(posterior: WrappedDistribution, levels: Tensor) -> GeodesicBall:
    full = isinstance(posterior, WrappedMultivariateNormal)
    scale_tril = posterior.scale_tril if full else torch.diag_embed(posterior.scale)
    uniform = torch.quasirandom.SobolEngine(scale_tril.size(-1), scramble=True, seed=0).draw(4096, dtype=torch.float64)
    noise = dist.Normal(0.0, 1.0).icdf(uniform).to(scale_tril)
    # One member of the batch at a time: 4096 points of each at once would be large.
    radii = [
        (noise @ each.mT).norm(dim=-1).quantile(levels.to(noise))
        for each in scale_tril.reshape(-1, *scale_tril.shape[-2:])
    ]
    radius = torch.stack(radii, -1).reshape(-1, *scale_tril.shape[:-2])
    return GeodesicBall(posterior.mean, radius)
