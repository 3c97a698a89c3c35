r"""Maps of sets of points, whose size may differ: a mask says which points of a padded set are real."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyro_hyperbolic.distributions.constraints import OnManifold
from pyro_hyperbolic.geometry import checks

from .base import ManifoldTransform, ModuleTransform, with_batch

__all__ = ["SetTransform"]


class SetTransform(ModuleTransform):
    r"""Maps a set of points jointly, :math:`\{x_i\} \mapsto \{f_i(x_1, \ldots, x_N)\}`, one event of dimension 2.

    A coupling with an attention network (:class:`AttentionNN`) moves each point given all the others. Its own batch
    shape claims independent points; here the set is one event, and with respect to Riemannian volume

    .. math:: \log |\det dy/dx| = \textstyle\sum_{i\ \text{real}} \log |\det \partial y_i / \partial x_i|,

    the sum of the flow's log-determinants: each layer moves one block of every point, given the other blocks of all.
    Networks without positions make the map equivariant under permutations.

    Sets of different sizes are padded. Where ``mask`` is False, a point is returned as it is, and the others do not see
    it. ``condition(mask)`` returns the same map at another mask, with the same parameters; many can be used at a time.
    The base distribution must not count padded points either: mask it *before* making a set one event,
    ``WrappedNormal(...).expand([N]).mask(mask).to_event(1)``. Pad data with points of the manifold (the origin):
    validating distributions check them.

    Shapes: ``x`` and ``y`` are ``(*, N, n + 1)``, the log-determinant is ``(*)``.

    Args:
        flow: A map of the manifold to itself. Networks of a coupling or a :func:`~pyro_hyperbolic.flows.coupling_flow`
            take ``mask=``, as :class:`AttentionNN` does; Pyro's dense networks need not. A conditional flow at a
            context: ``(*, N, c)``, one for each point, or ``(*, 1, c)``, one for each set.
        mask: Boolean tensor ``(*, N)``, True for real points, which broadcasts with ``x``; by default all are real.
        cache_size: 1 (default) to cache the last pair, 0 to cache nothing.

    Raises:
        TypeError: If ``flow`` does not map a manifold to itself, or ``mask`` is not boolean; on a call, if a network
            takes no ``mask=``.
        ValueError: If ``mask`` does not fit the shape of ``x``; on a call, while validating, if a real point is off the
            manifold.

    References:
        *Graph Normalizing Flows*, J. Liu, A. Kumar, J. Ba, J. Kiros, K. Swersky, 2019, arXiv:1905.13177.

    Example:
        A set of three points, the last of which is padding:

        >>> from functools import partial
        >>> flow = ph.flows.coupling_flow(2, 4, partial(HT.tangent_coupling, hypernet=HT.AttentionNN))
        >>> sets = SetTransform(flow)
        >>> t = sets.condition(torch.tensor([True, True, False]))
        >>> x = hdist.WrappedNormal(geometry.origin(t.manifold, 2), torch.ones(2)).sample((3,))
        >>> y = t(x)
        >>> torch.equal(y[2], x[2]), torch.allclose(y[:2], sets(x[:2]), atol=1e-6)
        (True, True)
        >>> t.log_abs_det_jacobian(x, y).shape
        torch.Size([])
    """

    mask: Tensor | None

    def __init__(self, flow: ManifoldTransform, mask: Tensor | None = None, *, cache_size: int = 1) -> None:
        super().__init__(_checked(flow).manifold, cache_size=cache_size)
        if mask is not None:
            _check_mask(mask)
        self.flow = flow
        self.register_buffer("mask", mask, persistent=False)  # moves to devices, and is no part of a state_dict

    def condition(self, mask: Tensor | None) -> "SetTransform":
        """Returns this map at ``mask``, with the same parameters; None for no padding."""
        return SetTransform(self.flow, mask, cache_size=self._cache_size)

    @constraints.dependent_property(is_discrete=False, event_dim=2)
    def domain(self) -> Constraint:
        """Sets of points of the manifold."""
        return constraints.independent(self._on_manifold, 1)

    @constraints.dependent_property(is_discrete=False, event_dim=2)
    def codomain(self) -> Constraint:
        """Sets of points of the manifold."""
        return constraints.independent(self._on_manifold, 1)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.flow._forward(self._real(x), **self._options())
        return self._join(x, y, log_det)

    def _backward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.flow._backward(self._real(y), **self._options())
        return self._join(y, x, log_det)

    def _options(self) -> dict[str, Any]:
        return {"mask": self.mask} if self.mask is not None and self.flow.takes_mask else {}

    def _join(self, padded: Tensor, image: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the images of real points with the others as they were, and the sum over real points."""
        axis = -1 - self._on_manifold.event_dim
        if image.size(axis) != padded.size(axis):
            raise ValueError(
                f"a context of {image.size(axis)} points does not fit a set of {padded.size(axis)}; a context is "
                f"(*, N, context_dim) with that N, or (*, 1, context_dim) for a whole set."
            )
        log_det = log_det.expand(image.shape[: axis + 1])
        if self.mask is None:
            return image, log_det.sum(-1)
        return torch.where(self._events(self.mask), image, padded), torch.where(self.mask, log_det, 0.0).sum(-1)

    def _real(self, x: Tensor) -> Tensor:
        if self.mask is None:
            return x
        space = self._geometry
        origin = space.origin(space.dim(x.shape), x.dtype, x.device)
        return torch.where(self._events(self.mask), x, origin)

    def _events(self, mask: Tensor) -> Tensor:
        return mask.reshape(*mask.shape, *(1 for _ in range(self._on_manifold.event_dim)))

    def _check_domain(self, x: Tensor, *, validate: bool) -> None:
        self._check_sets(x, "the argument of SetTransform", validate)

    def _check_codomain(self, y: Tensor, *, validate: bool) -> None:
        self._check_sets(y, "the argument of SetTransform.inv", validate)

    def _check_sets(self, x: Tensor, name: str, validate: bool) -> None:
        space = checks.check_manifold(self.manifold, validate=validate)
        checks.check_shape(space, x, name)
        self._check_fit(space.batch_of(x.shape))
        if validate:
            checks.check_points(space, self._real(x), name, validate=True)

    def _check_fit(self, points: torch.Size) -> None:
        if len(points) == 0:
            raise ValueError("got one point, but a set transform maps sets of N points; add a dimension for N.")
        if self.mask is None:
            return
        if self.mask.shape[-1] != points[-1]:
            raise ValueError(
                f"mask has shape {tuple(self.mask.shape)}, for sets of {self.mask.size(-1)} points, but the sets have "
                f"{points[-1]}; give .condition(mask) a mask (*, {points[-1]})."
            )
        checks.check_batches(sets=points[:-1], mask=self.mask.shape[:-1])

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Returns ``shape``, with its batch part broadcast with those of the flow and the mask."""
        space = self._geometry
        self._check_fit(space.batch_of(shape))
        batches = [] if self.mask is None else [self.mask.shape]
        return with_batch(torch.Size(self.flow.forward_shape(shape)), *batches, event_dim=space.event_dim)

    inverse_shape = forward_shape


def _checked(flow: Any) -> ManifoldTransform:
    """Returns the flow, or raises unless it maps points of a manifold to itself."""
    if isinstance(flow, ManifoldTransform) and isinstance(flow.domain, OnManifold) and flow.domain == flow.codomain:
        return flow
    remedy = (
        "call .condition(context) first"
        if hasattr(flow, "condition") and not isinstance(flow, SetTransform)
        else "compose set transforms, one of each part"
    )
    raise TypeError(
        f"flow = {checks.shown(flow)}, but must map points of a manifold to itself, as coupling flows and translations "
        f"do; {remedy}."
    )


def _check_mask(mask: Any) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = f"dtype {mask.dtype}" if isinstance(mask, Tensor) else checks.shown(mask)
        raise TypeError(f"mask has {found}, but must be a boolean tensor, True for real points; give mask.bool().")
    if mask.dim() == 0:
        raise ValueError("mask has no dimension, but must be (*, N), one value for each point.")
