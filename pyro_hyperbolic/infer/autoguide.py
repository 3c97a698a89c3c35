r"""Autoguides that know where their latents are: a wrapped normal at a learned location for each site on a manifold."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import pyro
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
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.messenger import Messenger, block_messengers
from pyro.poutine.runtime import get_plates
from pyro.poutine.seed_messenger import SeedMessenger
from pyro.poutine.subsample_messenger import SubsampleMessenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint

from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions import WrappedDistribution, WrappedMultivariateNormal, WrappedNormal
from pyro_hyperbolic.distributions.constraints import OnManifold
from pyro_hyperbolic.geometry import checks

__all__ = ["AutoWrappedMultivariateNormal", "AutoWrappedNormal", "GeodesicBall"]


_TO_MEAN = init_to_mean(fallback=init_to_feasible)

#: The stretch of volume per dimension, log(sinh(r) / r) at r = 1, beyond which an anchor follows.
_STRETCH = math.log(math.sinh(1.0))

#: Supports made of another. Before torch 2.8 a mixture has that of its components, without a constraint round it.
_LAYERS = tuple(
    getattr(constraints, name) for name in ("independent", "MixtureSameFamilyConstraint") if hasattr(constraints, name)
)


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

    A site on a manifold, in any number of plates and of any curvature, gets a wrapped normal with a location and scales
    of its own; every other site what ``AutoNormal`` gives it. The guides of Pyro are normal in the chart at the
    *origin*, where a round posterior at distance ``r`` is thinner than it is long by ``sinh(r) / r``, and bent: they
    miss it from ``r = 5`` or so. This one does not see where the origin is.

    It is used as ``AutoNormal`` is: under any ELBO, ``TraceEnum_ELBO`` included; in an ``AutoGuideList``; on a model
    from which ``poutine.block`` hides or exposes sites. Each run of the guide also runs the model, to learn of the
    priors and plates of that run: a *latent* curvature works, since locations are stored in coordinates and each run
    has them on its own manifold; so do plates whose batch the model is given, and ``obs_mask``, as masks of the model
    hold for the guide's sites too. Other handlers of the model leave the guide's sites and parameters alone.

    Locations are learned in normal coordinates about an anchor, ``loc = T_anchor exp_o(v)``, so that a step of any
    optimiser by ``v`` is a step of length ``|v|`` wherever the anchor is; whenever ``|v|`` exceeds ``sqrt(k)`` the
    anchor follows, which changes the coordinates and not the location (that at the ``k`` of the run, if ``k`` is
    latent). Optimisers that compare points of several steps, such as ``LBFGS``, do not stand that; under
    ``JitTrace_ELBO`` the anchor stays where its first step is.

    **Initialisation.** By default each site starts at its prior's mean. Latents of *one* prior that interact by their
    distances only then start at one point. There every distance is zero and so is its gradient: a saddle, which the
    noise of a guide leaves slowly. Pass ``init_loc_fn=init_to_sample``, or ``init_to_value(values={...})``.

    Args:
        model: A Pyro model.
        init_loc_fn: Initialisation per site, any of ``pyro.infer.autoguide.initialization``: the prior's mean by
            default.
        init_scale: Initial standard deviation, in tangent coordinates (units of distance) or unconstrained ones.
        amortized_plates: Names of plates over which parameters are shared.
        create_plates: A function of the model's arguments that returns plates, as for ``AutoNormal``. Needed only
            where the plates of the model are not to be used.

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
    """

    _model: tuple[Callable[..., Any], ...]
    prototype_trace: Any

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        init_loc_fn: Callable[..., Any] = _TO_MEAN,
        init_scale: float = 0.1,
        amortized_plates: Sequence[str] = (),
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        if not 0 < init_scale < math.inf:
            raise ValueError(f"init_scale = {init_scale}, but it must be positive and finite.")
        checks.check_callable("model", model, "it samples the latents, as the model of any Pyro guide")
        if _is_seeded(model):
            raise ValueError(
                "The model is wrapped in poutine.seed. The guide runs the model and draws meanwhile, so all its draws "
                "would be the same: call pyro.set_rng_seed once before training instead."
            )
        super().__init__(model, create_plates=create_plates)
        self.init_loc_fn = init_loc_fn
        self.amortized_plates = (amortized_plates,) if isinstance(amortized_plates, str) else tuple(amortized_plates)
        self._init_scale = init_scale
        self._seen: dict[str, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        # AutoGuide leaves out its model, also of the guide that is copied; this guide runs it.
        return {**self.__dict__, "master": None}

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Draws from the guide, given the arguments of the model; returns the values of the latent sites."""
        if self.prototype_trace is None:
            self._setup_prototype(*args, **kwargs)
        own = self.master is None and self.create_plates is None
        return self._run(_Drawing(self, {} if own else self._create_plates(*args, **kwargs)), args, kwargs)

    def get_posterior(self, name: str, prior: Any) -> Any:
        """Returns the posterior of a site, given its prior under the values of the sites before it."""
        manifold = _manifold_of(prior.support)
        if manifold is not None:
            return self._wrapped(name, manifold).to_event(prior.event_dim - geometry.bind(manifold).event_dim)
        transform = biject_to(prior.support)
        base = dist.Normal(self._parameter("locs", name), self._parameter("scales", name))
        return dist.TransformedDistribution(base.to_event(transform.domain.event_dim), [transform.with_cache()])

    @pyro_method
    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Returns the location of each site on a manifold, and the median of every other one.

        Where the model subsamples a plate, those of all its members.
        """
        return self._summary(self._medians, args, kwargs)

    @pyro_method
    @torch.no_grad()
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
        levels = torch.as_tensor(quantiles, dtype=torch.float64).flatten()
        if not bool(((levels > 0) & (levels < 1)).all()):
            raise ValueError(f"quantiles = {levels.tolist()}, but each must be in (0, 1).")
        return self._summary(partial(self._balls_or_intervals, levels), args, kwargs)

    def _summary(self, report: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
        if self.prototype_trace is None:
            self._setup_prototype(*args, **kwargs)
        return self._run(_Summary(self, report), args, kwargs)

    def _run(self, run: "_Run", args: Any, kwargs: Any) -> dict[str, Any]:
        with run:
            self.model(*args, **kwargs)
        return run.found

    def _point(self, name: str, prior: Any) -> Tensor:
        manifold = _manifold_of(prior.support)
        if manifold is not None:
            return self._loc(name, manifold)
        return biject_to(prior.support)(self._parameter("locs", name))

    def _medians(self, name: str, prior: Any, batch: Sequence[int]) -> Tensor:
        return _expanded(self._point(name, prior), batch, prior.event_dim).clone()  # of the parameter, often

    def _balls_or_intervals(self, levels: Tensor, name: str, prior: Any, batch: Sequence[int]) -> Tensor | GeodesicBall:
        manifold = _manifold_of(prior.support)
        if manifold is not None:
            center, radius = _balls(self._wrapped(name, manifold), levels)
            per_point = prior.event_dim - geometry.bind(manifold).event_dim
            return GeodesicBall(
                _expanded(center, batch, prior.event_dim), _expanded(radius, batch, per_point, leading=1)
            )
        loc, scale = self._parameter("locs", name), self._parameter("scales", name)
        noise = dist.Normal(0.0, 1.0).icdf(levels).to(loc).reshape(-1, *(1 for _ in loc.shape))
        return _expanded(biject_to(prior.support)(loc + scale * noise), batch, prior.event_dim, leading=1)

    def _wrapped(self, name: str, manifold: Manifold) -> WrappedDistribution:
        return WrappedNormal(self._loc(name, manifold), self._parameter("scales", name), manifold)

    def _loc(self, name: str, manifold: Manifold) -> Tensor:
        """Returns the location, a point of the manifold of this run's prior."""
        if torch.is_grad_enabled() and not checks.tracing():
            self._follow(name, manifold)
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
        self.prototype_trace.remove_node("_INPUT")  # the data, which are not the guide's to keep and pickle
        try:
            for name, site in self.prototype_trace.iter_stochastic_nodes():
                self._initialise(name, site)
        except Exception:
            self.prototype_trace = None
            raise

    def _initialise(self, name: str, site: Any) -> None:
        """Makes the parameters of a site, at the value that it has in the prototype."""
        prior, value, manifold = site["fn"], site["value"], _manifold_of(site["fn"].support)
        try:
            value = value.expand(prior.shape())
        except RuntimeError:
            raise ValueError(
                f"The initial value of {name!r} has shape {tuple(value.shape)}, which does not expand to the shape of "
                f"its prior, {tuple(prior.shape())}. Make points of normal coordinates by geometry.exp0(manifold, v)."
            ) from None
        if manifold is None:
            with helpful_support_errors(site):
                start = biject_to(prior.support).inv(value)
        else:
            start = geometry.log0(manifold, value)
        event_dim = prior.event_dim + start.dim() - value.dim()
        start = self._of_plates(start, event_dim, site["cond_indep_stack"])
        scale = torch.full_like(start, self._init_scale)
        if manifold is not None:
            deep_setattr(self, f"anchors.{name}", PyroParam(start, event_dim=event_dim))
            # A parameter, so that it is saved, loaded and subsampled with the others; not one for an optimiser.
            self._stored("anchors", name).requires_grad_(False)
            start = torch.zeros_like(start)
        deep_setattr(self, f"locs.{name}", PyroParam(start, event_dim=event_dim))
        deep_setattr(self, f"scales.{name}", PyroParam(scale, constraint=constraints.positive, event_dim=event_dim))

    def _of_plates(self, value: Tensor, event_dim: int, frames: Sequence[Any]) -> Tensor:
        """Returns initial values for all members of subsampled plates, and one for those of an amortised plate."""
        for frame in frames:
            dim, full_size = frame.dim - event_dim, frame.full_size or frame.size
            if frame.name in self.amortized_plates:
                value = value.mean(dim, keepdim=True)
            elif frame.size != full_size:
                value = periodic_repeat(value, full_size, dim).contiguous()
        while value.dim() > event_dim and value.size(0) == 1:
            value = value.squeeze(0)
        return value

    @torch.no_grad()
    def _follow(self, name: str, manifold: Manifold) -> None:
        """Moves each anchor to its location where the chart about it stretches; the locations stay where they are."""
        anchor, v = self._stored("anchors", name), self._stored("locs", name)
        # At most once after each step of the optimiser: later runs share these tensors with graphs still to go back.
        seen = self._seen.get(name)
        if seen is not None and torch.equal(seen.to(v), v):  # v may have moved to another device
            return
        space = geometry.chart(manifold)
        # A curvature of each particle, or of the members of a subsample, is not one of each anchor.
        batches = [batch for batch in space.batch_shapes() if batch]
        subsampled = any(_is_subsampled(frame) for frame in get_plates())
        if not batches or (not subsampled and all(_expands_to(batch, v.shape[:-1]) for batch in batches)):
            far = space.log_volume(v) > _STRETCH * max(v.size(-1) - 1, 1)
            if bool(far.any()):
                moved, _ = space.log0(space.translate(space.exp0(anchor)[0], space.exp0(v)[0]))
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
        init_loc_fn: Initialisation per site, as for :class:`AutoWrappedNormal`: the prior's mean by default.
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
        manifold = _manifold_of(site["fn"].support)
        if manifold is not None:
            scale = self._stored("scales", name)
            tril = torch.eye(scale.size(-1), dtype=scale.dtype, device=scale.device).repeat(*scale.shape[:-1], 1, 1)
            event_dim = site["fn"].event_dim - geometry.bind(manifold).event_dim + 2
            value = PyroParam(tril, constraint=constraints.unit_lower_cholesky, event_dim=event_dim)
            deep_setattr(self, f"scale_trils.{name}", value)


class _Run(Messenger):
    """A run of the model as a run of the guide: it lets out what the guide says, and keeps in what the model says.

    Entered before the model's own handlers, it sees messages last of them all. Sites that the guide has no posterior
    for stay inside, so that no handler of the guide (a trace, importance weights, Predictive) takes them for its own:
    observed sites, those blocked from the guide, and those that are latent in this run only.
    """

    def __init__(self, guide: AutoWrappedNormal) -> None:
        super().__init__()
        self.guide = guide
        self.found: dict[str, Any] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            self._subsample(msg)
        elif msg["is_observed"] or msg["name"] not in self.guide.prototype_trace.nodes:
            msg["stop"] = True
        else:
            self._latent(msg)

    def _subsample(self, msg: Any) -> None:
        raise NotImplementedError

    def _latent(self, msg: Any) -> None:
        raise NotImplementedError

    @contextmanager
    def _outside(self, *, plates: bool) -> Iterator[list[Messenger]]:
        """Runs statements of the guide out of the reach of the model's handlers, in its plates or not."""
        inside = False

        def is_of_the_model(messenger: Messenger) -> bool:  # asked from the outermost to the innermost
            nonlocal inside
            inside = inside or messenger is self
            return inside and not (plates and isinstance(messenger, IndepMessenger))

        with block_messengers(is_of_the_model) as blocked:
            yield blocked


class _Drawing(_Run):
    """Draws from the posteriors. With plates, those of an ``AutoGuideList``, the model takes their subsamples."""

    def __init__(self, guide: AutoWrappedNormal, plates: dict[str, Any]) -> None:
        super().__init__(guide)
        self.plates = plates
        self.known: set[str] = set()
        self.replaced: set[str] = set()

    def _subsample(self, msg: Any) -> None:
        name = msg["name"]
        self.known.add(name)
        if name in self.plates:
            msg["value"] = self.plates[name].indices
        # Plates that the list has announced, or of observations only, are not the guide's to announce.
        msg["stop"] = bool(self.plates) or name not in self.guide._prototype_frames

    def _latent(self, msg: Any) -> None:
        name, prior = msg["name"], msg["fn"]
        self._match_hidden_plates()
        replaced = [frame.name for frame in msg["cond_indep_stack"] if frame.name in self.replaced]
        if replaced and _is_batched(_manifold_of(prior.support)):
            raise ValueError(
                f"The model has a curvature for each member of plate {replaced[0]!r}, which poutine.block hides from "
                f"the guide: expose {replaced[0]!r} too."
            )
        with self._outside(plates=True):
            posterior = self.guide.get_posterior(name, prior)
        if posterior.batch_shape != prior.batch_shape:
            posterior = posterior.expand(prior.batch_shape)
        scale = 1.0  # that of the plates, and not of poutine.scale: a tempered model has an entropy as any other
        for frame in msg["cond_indep_stack"]:
            scale = scale * (frame.full_size or frame.size) / frame.size
        msg.update(fn=posterior, scale=scale, infer={}, value=None, done=False)
        self.found[name] = None  # known to be the guide's, whatever its own handlers hide

    def _match_hidden_plates(self) -> None:
        """Gives plates that ``poutine.block`` hides from the guide the subsample that the model will see in its run."""
        with self._outside(plates=False) as inner:
            for plate in inner:
                if isinstance(plate, SubsampleMessenger) and plate.size > 0 and plate.name not in self.known:
                    self.known.add(plate.name)
                    own = plate.indices
                    if plate.name in self.plates:
                        plate._indices = self.plates[plate.name].indices
                    else:
                        plate._indices = pyro.plate(plate.name, plate.size, subsample=own, dim=plate.dim).indices
                    if not torch.equal(own, plate.indices):
                        self.replaced.add(plate.name)

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] in self.found:
            self.found[msg["name"]] = msg["value"]


class _Summary(_Run):
    """Sets each site to its median, and finds what is reported of its posterior. No statement gets out."""

    def __init__(self, guide: AutoWrappedNormal, report: Callable[..., Any]) -> None:
        super().__init__(guide)
        self.report = report

    def _subsample(self, msg: Any) -> None:
        msg["stop"] = True

    def _latent(self, msg: Any) -> None:
        name, prior = msg["name"], msg["fn"]
        subsampled = [frame for frame in msg["cond_indep_stack"] if _is_subsampled(frame)]
        if _is_batched(_manifold_of(prior.support)):
            subsampled = []  # the other members may have other curvatures
        batch = list(prior.batch_shape)
        for frame in subsampled:
            batch[frame.dim] = frame.full_size
        with self._outside(plates=not subsampled):
            self.found[name] = self.report(name, prior, batch)
        with self._outside(plates=True):
            value = self.guide._point(name, prior)
        msg.update(value=_expanded(value, prior.batch_shape, prior.event_dim), stop=True)


def _initial_value(init_loc_fn: Callable[..., Any], site: Any) -> Tensor:
    try:
        return init_loc_fn(site)
    except NotImplementedError:  # torch knows no bijection to the support of a mixture, for which strategies ask
        if _manifold_of(site["fn"].support) is None:
            raise
        return site["fn"].sample()


def _is_seeded(model: Any) -> bool:
    # Pyro's handlers make nested partials of (handler, function); a seed is on no stack, where one could see it.
    while isinstance(model, partial):
        if any(isinstance(arg, SeedMessenger) for arg in model.args):
            return True
        model = model.args[1] if len(model.args) > 1 else model.func
    return False


def _is_batched(manifold: Manifold | None) -> bool:
    return manifold is not None and any(geometry.bind(manifold).batch_shapes())


def _is_subsampled(frame: Any) -> bool:
    return bool(frame.vectorized and frame.full_size is not None and frame.full_size != frame.size)


def _manifold_of(support: Constraint) -> Manifold | None:
    """Returns the manifold of a support that is one: of independent copies, or of the components of a mixture."""
    while isinstance(support, _LAYERS):
        support = support.base_constraint
    return support.manifold if isinstance(support, OnManifold) else None


def _expands_to(batch: torch.Size, full: torch.Size) -> bool:
    return len(batch) <= len(full) and all(i in (1, j) for i, j in zip(batch[::-1], full[::-1], strict=False))


def _expanded(value: Tensor, batch: Sequence[int], event_dim: int, leading: int = 0) -> Tensor:
    """Returns the value with its batch, between leading and event dimensions, expanded."""
    before, after = value.shape[:leading], value.shape[value.dim() - event_dim :]
    within = value.shape[leading : value.dim() - event_dim]
    value = value.reshape([*before, *(1 for _ in range(len(batch) - len(within))), *within, *after])
    return value.expand([*before, *batch, *after])


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
