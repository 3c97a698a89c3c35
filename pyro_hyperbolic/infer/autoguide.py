r"""Autoguides with a wrapped normal at a learned location for each site on a manifold."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from geoopt.manifolds.base import Manifold
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoGuide
from pyro.infer.autoguide.initialization import InitMessenger, init_to_feasible, init_to_mean
from pyro.infer.autoguide.utils import deep_setattr, helpful_support_errors
from pyro.nn import PyroParam
from pyro.nn.module import pyro_method
from pyro.ops.tensor_utils import periodic_repeat
from pyro.poutine.runtime import get_plates
from pyro.poutine.seed_messenger import SeedMessenger
from torch import Tensor
from torch.distributions import biject_to

from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions import WrappedDistribution, WrappedMultivariateNormal, WrappedNormal
from pyro_hyperbolic.geometry import checks
from pyro_hyperbolic.geometry.remedies import tensor_remedy

from .guide_runs import AllSampled, GuideRun, SampleRun, SummaryRun, expand, is_subsampled, manifold_of

__all__ = ["AutoWrappedMultivariateNormal", "AutoWrappedNormal", "GeodesicBall"]


_INIT_TO_MEAN = init_to_mean(fallback=init_to_feasible)

#: An anchor moves to its location if the log-volume per dimension exceeds this, log(sinh(r) / r) at r = 1.
_MAX_LOG_VOLUME = math.log(math.sinh(1.0))


class GeodesicBall(NamedTuple):
    r"""The points within a distance of a centre, :math:`\{x : d(x, \text{center}) \le \text{radius}\}`.

    Attributes:
        center: Shape ``(*, n + 1)``.
        radius: In units of distance, shape ``(q, *)`` for ``q`` quantiles.
    """

    center: Tensor
    radius: Tensor


class AutoWrappedNormal(AutoGuide):
    r"""Guide with :math:`q(z) = \operatorname{WrappedNormal}(loc_z, scale_z)` at sites on manifolds, Normal elsewhere.

    A site on a manifold, in any number of plates and of any curvature, gets a wrapped normal with its own location and
    scales. Every other site gets what ``AutoNormal`` gives it. Pyro's autoguides are normal in the chart at the
    *origin*, where a round posterior at distance ``r`` is bent, and longer than wide by a factor ``sinh(r) / r``, so
    they fail from ``r = 5`` or so. This guide works at any distance from the origin.

    Use it like ``AutoNormal``: with any ELBO, ``TraceEnum_ELBO`` included, in an ``AutoGuideList``, or on a model in
    which ``poutine.block`` hides sites. Each run of the guide also runs the model up to its last latent, and uses the
    priors, plates and masks of that run, so a *latent* curvature, plates sized by the model's arguments, and
    ``obs_mask`` all work. Other handlers in the model do not affect the guide's sites and parameters.

    Locations are learned in normal coordinates about an anchor, ``loc = T_anchor exp_o(v)``, so that an optimiser step
    ``v`` has length ``|v|`` at any distance from the origin. When ``|v|`` exceeds ``sqrt(k)``, the anchor moves to the
    location. The coordinates change, the location does not (at the ``k`` of that run, if ``k`` is latent). This breaks
    optimisers that compare the parameters of several steps, such as ``LBFGS``. Under ``JitTrace_ELBO`` the anchor never
    moves.

    **Initialisation.** By default each site starts at its prior's mean. Latents with the *same* prior that interact
    only through their distances then all start at one point. Every distance and its gradient are zero there, a saddle
    that the guide's noise leaves slowly, and often for a poor optimum. The start decides: pass a layout of
    ``ph.embeddings`` as ``init_loc_fn=init_to_value(values={"z": start}, fallback=init_to_median)``, both functions of
    ``pyro.infer.autoguide.initialization``. The fallback is for all other sites, and uniform if not given.

    Args:
        model: A Pyro model.
        init_loc_fn: A strategy of ``pyro.infer.autoguide.initialization`` for each site; the prior's mean by default.
        init_scale: Initial standard deviation, in tangent coordinates (units of distance) or unconstrained ones.
        amortized_plates: Names of plates over which parameters are shared.
        create_plates: A function of the model's arguments that returns plates, as for ``AutoNormal``. Needed only to
            replace the model's own plates.

    Raises:
        ValueError: If ``init_scale`` is not positive and finite, or the model is wrapped in ``poutine.seed``.

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

        Locations of a guide that starts at the layout of a tree:

        >>> from pyro.infer.autoguide.initialization import init_to_value
        >>> start = ph.embeddings.tree(M, [[0, 1], [0, 2]], [3.0, 4.0])
        >>> def prior():
        ...     with pyro.plate("nodes", 3):
        ...         pyro.sample("z", hdist.WrappedNormal(geometry.origin(M, 2), torch.tensor(3.0), M))
        >>> pyro.clear_param_store()  # or the new guide takes the parameters of the one above
        >>> loc = AutoWrappedNormal(prior, init_loc_fn=init_to_value(values={"z": start})).median()["z"]
        >>> geometry.distance(M, loc[:1], loc).round(decimals=4)
        tensor([0., 3., 4.])
    """

    _model: tuple[Callable[..., Any], ...]
    prototype_trace: Any

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        init_loc_fn: Callable[..., Any] = _INIT_TO_MEAN,
        init_scale: float = 0.1,
        amortized_plates: Sequence[str] = (),
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        init_scale = checks.check_number("init_scale", init_scale, "give a standard deviation", above=0)
        checks.check_callable("model", model, "it samples the latents, as the model of any Pyro guide")
        checks.check_callable("init_loc_fn", init_loc_fn, "use one of pyro.infer.autoguide.initialization")
        if create_plates is not None:
            checks.check_callable("create_plates", create_plates, "it returns plates, as for AutoNormal")
        if isinstance(amortized_plates, str):
            amortized_plates = (amortized_plates,)
        remedy = "give the names of plates"
        amortized_plates = checks.check_list("amortized_plates", amortized_plates, remedy)
        if not all(isinstance(name, str) for name in amortized_plates):
            raise TypeError(f"amortized_plates = {checks.shown(amortized_plates)}, but must be strings; {remedy}.")
        if _is_seeded(model):
            raise ValueError(
                "the model is wrapped in poutine.seed, but the guide draws its samples while it runs the model, so all "
                "draws would be the same; call pyro.set_rng_seed once before training instead."
            )
        super().__init__(model, create_plates=create_plates)
        self.init_loc_fn = init_loc_fn
        self.amortized_plates = tuple(amortized_plates)
        self._init_scale = init_scale
        self._last_checked: dict[str, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        # AutoGuide's method drops the model, even from the original; this guide needs it.
        return {**self.__dict__, "master": None}

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Samples the latent sites, given the arguments of the model, and returns their values."""
        if self.prototype_trace is None:
            self._setup_prototype(*args, **kwargs)
        uses_model_plates = self.master is None and self.create_plates is None
        plates = {} if uses_model_plates else self._create_plates(*args, **kwargs)
        return self._run(SampleRun(self, plates), args, kwargs)

    def get_posterior(self, name: str, prior: Any) -> Any:
        """Returns the posterior of a site, given its prior in this run."""
        manifold = manifold_of(prior.support)
        if manifold is not None:
            return self._wrapped(name, manifold).to_event(prior.event_dim - geometry.bind(manifold).event_dim)
        transform = biject_to(prior.support)
        base = dist.Normal(self._parameter("locs", name), self._parameter("scales", name))
        return dist.TransformedDistribution(base.to_event(transform.domain.event_dim), [transform.with_cache()])

    @pyro_method
    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Returns the location of each site on a manifold, and the median of every other site.

        If the model subsamples a plate, all members of the plate are included.
        """
        return self._summary(self._median_of, args, kwargs)

    @pyro_method
    @torch.no_grad()
    def quantiles(self, quantiles: Sequence[float] | Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:
        r"""Returns geodesic balls for sites on manifolds, and the quantiles of ``AutoNormal`` for other sites.

        Points of a manifold have no order. The ball of quantile ``q`` is centred at the location and contains
        probability ``q``: its radius :math:`\rho` satisfies :math:`P(d(z, loc) \le \rho) = q`, to within 0.002 (by 4096
        quasi-random points). If the prior of a site depends on other latents, these are set to their medians.

        Args:
            quantiles: Numbers between 0 and 1, exclusive.
            *args: Arguments of the model.
            **kwargs: Arguments of the model.

        Returns:
            For each latent site a :class:`GeodesicBall` or a tensor of shape ``(len(quantiles), *)``.

        Raises:
            ValueError: If a quantile is not between 0 and 1.
        """
        levels = torch.as_tensor(quantiles, dtype=torch.float64).flatten()
        if not bool(((levels > 0) & (levels < 1)).all()):
            raise ValueError(f"quantiles = {levels.tolist()}, but each must be in (0, 1).")
        return self._summary(partial(self._quantiles_of, levels), args, kwargs)

    def _summary(self, report: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
        if self.prototype_trace is None:
            self._setup_prototype(*args, **kwargs)
        return self._run(SummaryRun(self, report), args, kwargs)

    def _run(self, run: GuideRun, args: Any, kwargs: Any) -> dict[str, Any]:
        with suppress(AllSampled), run:
            self.model(*args, **kwargs)
        return run.results

    def _center_of(self, name: str, prior: Any) -> Tensor:
        manifold = manifold_of(prior.support)
        if manifold is not None:
            return self._loc(name, manifold)
        return biject_to(prior.support)(self._parameter("locs", name))

    def _median_of(self, name: str, prior: Any, batch: Sequence[int]) -> Tensor:
        return expand(self._center_of(name, prior), batch, prior.event_dim).clone()  # it may be the parameter itself

    def _quantiles_of(self, levels: Tensor, name: str, prior: Any, batch: Sequence[int]) -> Tensor | GeodesicBall:
        manifold = manifold_of(prior.support)
        if manifold is not None:
            center, radius = _balls(self._wrapped(name, manifold), levels)
            radius_event_dim = prior.event_dim - geometry.bind(manifold).event_dim
            return GeodesicBall(
                expand(center, batch, prior.event_dim), expand(radius, batch, radius_event_dim, leading=1)
            )
        loc, scale = self._parameter("locs", name), self._parameter("scales", name)
        noise = dist.Normal(0.0, 1.0).icdf(levels).to(loc).reshape(-1, *(1 for _ in loc.shape))
        return expand(biject_to(prior.support)(loc + scale * noise), batch, prior.event_dim, leading=1)

    def _wrapped(self, name: str, manifold: Manifold) -> WrappedDistribution:
        return WrappedNormal(self._loc(name, manifold), self._parameter("scales", name), manifold)

    def _loc(self, name: str, manifold: Manifold) -> Tensor:
        """Returns the location on the manifold of this run's prior."""
        if torch.is_grad_enabled() and not checks.tracing():
            self._move_anchor(name, manifold)
        anchor, v = self._parameter("anchors", name), self._parameter("locs", name)
        space = geometry.chart(manifold)
        return space.translate(space.exp0(anchor.detach())[0], space.exp0(v)[0])

    @torch.no_grad()
    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        model = self._model
        self._model = (InitMessenger(partial(_initial_value, self.init_loc_fn))(model[0]),)
        try:
            super()._setup_prototype(*args, **kwargs)
        finally:
            self._model = model
        self.prototype_trace.remove_node("_INPUT")  # the data, which would be kept and pickled with the guide
        try:
            for name, site in self.prototype_trace.iter_stochastic_nodes():
                self._initialise(name, site)
        except Exception:
            self.prototype_trace = None
            raise

    def _initialise(self, name: str, site: Any) -> None:
        """Creates the parameters of a site from its value in the prototype."""
        prior, value, manifold = site["fn"], site["value"], manifold_of(site["fn"].support)
        if not isinstance(value, Tensor):
            raise TypeError(
                f"the initial value of {name!r} is {checks.shown(value)}, but must be a torch.Tensor; "
                f"{tensor_remedy(value)}."
            )
        try:
            value = value.expand(prior.shape())
        except RuntimeError:
            raise ValueError(
                f"the initial value of {name!r} has shape {tuple(value.shape)}, which does not expand to the shape of "
                f"its prior, {tuple(prior.shape())}; map tangent coordinates to points with geometry.exp0(M, v)."
            ) from None
        if manifold is None:
            with helpful_support_errors(site):
                start = biject_to(prior.support).inv(value)
        else:
            start = geometry.log0(manifold, value)
        event_dim = prior.event_dim + start.dim() - value.dim()
        start = self._expand_to_plates(start, event_dim, site["cond_indep_stack"])
        scale = torch.full_like(start, self._init_scale)
        if manifold is not None:
            deep_setattr(self, f"anchors.{name}", PyroParam(start, event_dim=event_dim))
            # A parameter, so that it is saved, loaded and subsampled like the others, but not optimised.
            self._full_parameter("anchors", name).requires_grad_(False)
            start = torch.zeros_like(start)
        deep_setattr(self, f"locs.{name}", PyroParam(start, event_dim=event_dim))
        deep_setattr(self, f"scales.{name}", PyroParam(scale, constraint=constraints.positive, event_dim=event_dim))

    def _expand_to_plates(self, value: Tensor, event_dim: int, frames: Sequence[Any]) -> Tensor:
        """Returns initial values for all members of subsampled plates, and one value for each amortised plate."""
        for frame in frames:
            dim, full_size = frame.dim - event_dim, frame.full_size or frame.size
            if frame.name in self.amortized_plates:
                value = value.mean(dim, keepdim=True)
            elif frame.size != full_size:
                value = periodic_repeat(value, full_size, dim).contiguous()
        return value

    @torch.no_grad()
    def _move_anchor(self, name: str, manifold: Manifold) -> None:
        """Moves each anchor to its location if that is far; the locations do not change."""
        anchor, v = self._full_parameter("anchors", name), self._full_parameter("locs", name)
        # At most once per optimiser step: the graphs of earlier runs in this step hold these tensors.
        last = self._last_checked.get(name)
        if last is not None and torch.equal(last.to(v), v):  # v may have moved to another device
            return
        space = geometry.chart(manifold)
        # A batch of k over particles, or over a subsample, does not match the anchors.
        batches = [batch for batch in space.batch_shapes() if batch]
        subsampled = any(is_subsampled(frame) for frame in get_plates())
        if not batches or (not subsampled and all(_expands_to(batch, v.shape[:-1]) for batch in batches)):
            far = space.log_volume(v) > _MAX_LOG_VOLUME * max(v.size(-1) - 1, 1)
            if bool(far.any()):
                moved, _ = space.log0(space.translate(space.exp0(anchor)[0], space.exp0(v)[0]))
                anchor.copy_(torch.where(far.unsqueeze(-1), moved, anchor))
                v.masked_fill_(far.unsqueeze(-1), 0.0)
        self._last_checked[name] = v.clone()

    def _parameter(self, kind: str, name: str) -> Tensor:
        return attrgetter(f"{kind}.{name}")(self)

    def _full_parameter(self, kind: str, name: str) -> Tensor:
        """Returns the whole tensor that the optimiser edits, even in a subsampled plate."""
        return attrgetter(f"{kind}.{name}_unconstrained")(self)


class AutoWrappedMultivariateNormal(AutoWrappedNormal):
    r"""Guide with :math:`q(z) = \operatorname{WrappedMultivariateNormal}(loc_z, L_z)` at sites on manifolds.

    Like :class:`AutoWrappedNormal`, but with a full covariance in the tangent coordinates of each location,
    :math:`L = \operatorname{diag}(scale) L'` with ``L'`` unit lower triangular. Other sites are Normal; different sites
    are independent.

    Args:
        model: A Pyro model.
        init_loc_fn: An initialisation strategy for each site; the prior's mean by default.
        init_scale: Initial standard deviation, in tangent coordinates (units of distance) or unconstrained ones.
        amortized_plates: Names of plates over which parameters are shared.
        create_plates: A function of the model's arguments that returns plates, as for ``AutoNormal``.
    """

    def _wrapped(self, name: str, manifold: Manifold) -> WrappedDistribution:
        loc = self._loc(name, manifold)
        scale_tril = self._parameter("scales", name).unsqueeze(-1) * self._parameter("scale_trils", name)
        return WrappedMultivariateNormal(loc, scale_tril=scale_tril, manifold=manifold)

    def _initialise(self, name: str, site: Any) -> None:
        super()._initialise(name, site)
        manifold = manifold_of(site["fn"].support)
        if manifold is not None:
            scale = self._full_parameter("scales", name)
            tril = torch.eye(scale.size(-1), dtype=scale.dtype, device=scale.device).repeat(*scale.shape[:-1], 1, 1)
            event_dim = site["fn"].event_dim - geometry.bind(manifold).event_dim + 2
            value = PyroParam(tril, constraint=constraints.unit_lower_cholesky, event_dim=event_dim)
            deep_setattr(self, f"scale_trils.{name}", value)


def _initial_value(init_loc_fn: Callable[..., Any], site: Any) -> Tensor:
    try:
        return init_loc_fn(site)
    except NotImplementedError:  # the strategy needs biject_to, which torch does not define for mixtures
        return site["fn"].sample()


def _is_seeded(model: Any) -> bool:
    # Pyro's handlers wrap a function in nested partials of (handler, function).
    while isinstance(model, partial):
        if any(isinstance(arg, SeedMessenger) for arg in model.args):
            return True
        model = model.args[1] if len(model.args) > 1 else model.func
    return False


def _expands_to(batch: torch.Size, full: torch.Size) -> bool:
    try:
        return torch.broadcast_shapes(batch, full) == full
    except RuntimeError:
        return False


def _balls(posterior: WrappedDistribution, levels: Tensor) -> GeodesicBall:
    full = isinstance(posterior, WrappedMultivariateNormal)
    scale_tril = posterior.scale_tril if full else torch.diag_embed(posterior.scale)
    uniform = torch.quasirandom.SobolEngine(scale_tril.size(-1), scramble=True, seed=0).draw(4096, dtype=torch.float64)
    noise = dist.Normal(0.0, 1.0).icdf(uniform).to(scale_tril)
    # One batch member at a time, to save memory.
    radii = [
        (noise @ each.mT).norm(dim=-1).quantile(levels.to(noise))
        for each in scale_tril.reshape(-1, *scale_tril.shape[-2:])
    ]
    radius = torch.stack(radii, -1).reshape(-1, *scale_tril.shape[:-2])
    return GeodesicBall(posterior.mean, radius)
