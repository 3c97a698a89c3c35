"""Runs of a model as its guide, up to its last latent: handlers that give each latent site its posterior."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from geoopt.manifolds.base import Manifold
from pyro.distributions import constraints
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.messenger import Messenger, block_messengers
from pyro.poutine.subsample_messenger import SubsampleMessenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions.constraints import Constraint

from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions.constraints import OnManifold

__all__ = ["AllSampled", "GuideRun", "SampleRun", "SummaryRun", "expand", "is_subsampled", "manifold_of"]

#: Constraints that wrap another one. Before torch 2.8 a mixture has the support of its components, unwrapped.
_WRAPPERS = tuple(
    getattr(constraints, name) for name in ("independent", "MixtureSameFamilyConstraint") if hasattr(constraints, name)
)


class AllSampled(BaseException):  # no Exception, which a model may catch
    """Ends a run of the model after its last latent: what follows costs time, and can have plates that clash."""


class GuideRun(Messenger):
    """Runs the model as the guide: handlers outside it see the guide's statements only.

    It is entered before the model's own handlers, so it sees messages after them. It stops sites that have no posterior
    (observed, hidden from the guide, or latent in this run only), so that handlers of the guide, such as a trace,
    importance weights or Predictive, do not see them.
    """

    def __init__(self, guide: Any) -> None:
        super().__init__()
        self.guide = guide
        self.results: dict[str, Any] = {}
        self.latents = {name for name, _ in guide.prototype_trace.iter_stochastic_nodes()}

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            self._handle_subsample(msg)
        elif msg["is_observed"] or msg["name"] not in self.guide.prototype_trace.nodes:
            msg["stop"] = True
        else:
            self._handle_latent(msg)

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] in self.latents and self.results.keys() >= self.latents:
            raise AllSampled

    def _handle_subsample(self, msg: Any) -> None:
        raise NotImplementedError

    def _handle_latent(self, msg: Any) -> None:
        raise NotImplementedError

    @contextmanager
    def _block_model_handlers(self, *, keep_plates: bool) -> Iterator[list[Messenger]]:
        """Hides the model's handlers, and unless ``keep_plates`` its plates, from statements of the guide."""
        inside = False

        def is_blocked(messenger: Messenger) -> bool:  # called from the outermost to the innermost
            nonlocal inside
            inside = inside or messenger is self
            return inside and not (keep_plates and isinstance(messenger, IndepMessenger))

        with block_messengers(is_blocked) as blocked:
            yield blocked


class SampleRun(GuideRun):
    """Samples from the posteriors. The plates of an ``AutoGuideList`` set the subsamples of the model."""

    def __init__(self, guide: Any, plates: dict[str, Any]) -> None:
        super().__init__(guide)
        self.plates = plates
        self.known_plates: set[str] = set()
        self.replaced_plates: set[str] = set()

    def _handle_subsample(self, msg: Any) -> None:
        name = msg["name"]
        self.known_plates.add(name)
        if name in self.plates:
            msg["value"] = self.plates[name].indices
        # The guide emits neither plates that the AutoGuideList has emitted, nor plates of observations only.
        msg["stop"] = bool(self.plates) or name not in self.guide._prototype_frames

    def _handle_latent(self, msg: Any) -> None:
        name, prior = msg["name"], msg["fn"]
        self._match_hidden_plates()
        replaced = [frame.name for frame in msg["cond_indep_stack"] if frame.name in self.replaced_plates]
        if replaced and _is_batched(manifold_of(prior.support)):
            raise ValueError(
                f"the model has a curvature for each member of plate {replaced[0]!r}, which poutine.block hides from "
                f"the guide; expose {replaced[0]!r} too."
            )
        with self._block_model_handlers(keep_plates=True):
            posterior = self.guide.get_posterior(name, prior)
        if posterior.batch_shape != prior.batch_shape:
            posterior = posterior.expand(prior.batch_shape)
        scale = 1.0  # plates scale the entropy of the guide; poutine.scale in the model does not
        for frame in msg["cond_indep_stack"]:
            scale = scale * (frame.full_size or frame.size) / frame.size
        msg.update(fn=posterior, scale=scale, infer={}, value=None, done=False)
        self.results[name] = None  # marks a site of the guide, for _pyro_post_sample

    def _match_hidden_plates(self) -> None:
        """Gives plates that ``poutine.block`` hides from the guide the subsample that the model will use."""
        with self._block_model_handlers(keep_plates=False) as blocked:
            for plate in blocked:
                if isinstance(plate, SubsampleMessenger) and plate.size > 0 and plate.name not in self.known_plates:
                    self.known_plates.add(plate.name)
                    own = plate.indices
                    if plate.name in self.plates:
                        plate._indices = self.plates[plate.name].indices
                    else:
                        plate._indices = pyro.plate(plate.name, plate.size, subsample=own, dim=plate.dim).indices
                    if not torch.equal(own, plate.indices):
                        self.replaced_plates.add(plate.name)

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] in self.results:
            self.results[msg["name"]] = msg["value"]
        super()._pyro_post_sample(msg)


class SummaryRun(GuideRun):
    """Sets each site to its median, and collects a report of its posterior. All messages are stopped."""

    def __init__(self, guide: Any, report: Callable[..., Any]) -> None:
        super().__init__(guide)
        self.report = report

    def _handle_subsample(self, msg: Any) -> None:
        msg["stop"] = True

    def _handle_latent(self, msg: Any) -> None:
        name, prior = msg["name"], msg["fn"]
        subsampled = [frame for frame in msg["cond_indep_stack"] if is_subsampled(frame)]
        if _is_batched(manifold_of(prior.support)):
            subsampled = []  # the curvatures of the other members are not known
        batch = list(prior.batch_shape)
        for frame in subsampled:
            batch[frame.dim] = frame.full_size
        with self._block_model_handlers(keep_plates=not subsampled):
            self.results[name] = self.report(name, prior, batch)
        with self._block_model_handlers(keep_plates=True):
            value = self.guide._center_of(name, prior)
        msg.update(value=expand(value, prior.batch_shape, prior.event_dim), stop=True)


def manifold_of(support: Constraint) -> Manifold | None:
    """Returns the manifold of a support, looking into independent copies and mixtures, or None."""
    while isinstance(support, _WRAPPERS):
        support = support.base_constraint
    return support.manifold if isinstance(support, OnManifold) else None


def _is_batched(manifold: Manifold | None) -> bool:
    return manifold is not None and any(geometry.bind(manifold).batch_shapes())


def is_subsampled(frame: Any) -> bool:
    """Returns whether a plate holds a subsample."""
    return bool(frame.vectorized and frame.full_size is not None and frame.full_size != frame.size)


def expand(value: Tensor, batch: Sequence[int], event_dim: int, leading: int = 0) -> Tensor:
    """Returns ``value`` with its batch dimensions, between ``leading`` and event dimensions, expanded."""
    before, after = value.shape[:leading], value.shape[value.dim() - event_dim :]
    within = value.shape[leading : value.dim() - event_dim]
    value = value.reshape([*before, *(1 for _ in range(len(batch) - len(within))), *within, *after])
    return value.expand([*before, *batch, *after])
