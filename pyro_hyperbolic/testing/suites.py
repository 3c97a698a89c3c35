r"""All laws at once, for a user's own transform, distribution or constraint."""

from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints, transform_to
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import IndependentTransform

from . import density_laws, gradient_laws, map_laws, noise, object_laws
from .agreement import check_points, vectors_agree
from .diagnosis import LawViolation, fails_in_a_library, no_empty_batch
from .oracles import Space, base_of, fixed_noise
from .sets import SideBySide, is_of_sets

__all__ = ["assert_constraint_laws", "assert_distribution_laws", "assert_transform_laws"]

# In order of importance: a wrong shape or a point off the manifold makes the later laws meaningless.
_AT_ANY_RADIUS: list[Callable[[Transform, Tensor], None]] = [
    map_laws.stays_on_manifold,
    object_laws.does_not_alias_its_input,
    map_laws.batch_members_are_independent,
    map_laws.round_trip,
    map_laws.log_det_matches_autograd,
    map_laws.inverse_log_det_is_negative,
    gradient_laws.gradients_are_finite,
]


def assert_transform_laws(transform: Transform, x: Tensor, *, thorough: bool = False) -> None:
    r"""Checks every law of a transform at points of its domain; raises at the first law that fails.

    Works for any ``torch.distributions.Transform``: from a manifold to itself, from R^n to a manifold or back, and on
    R^n. The manifolds are those of ``transform.domain`` and ``transform.codomain``; they may be compact, such as
    spheres, or products. A transform of scalars, such as ``ELUTransform``, is applied to each coordinate. A transform
    of sets of N points, such as ``SetTransform``, is checked as one of points of the product of N manifolds.

    Args:
        transform: A bijection without a batch shape.
        x: Points of the domain, ``(*, n + 1)`` on the hyperboloid, ``(*, n)`` in R^n, or sets of them. Points at many
            radii improve the diagnosis; k != 1 reveals mistakes with the radius. Uses the first 8, or all if thorough.
        thorough: Whether to use all points, and points at half and twice their distance from the origin as well, if
            there is one.

    Raises:
        LawViolation: An AssertionError that names the law, the formula, the smallest failing input, the expected and
            the found value, and the likely cause.
        ValueError: If there are no points, one is outside the domain, or the transform has a batch shape.

    Warns:
        NotChecked: If a law cannot be checked, such as copies of a transform that cannot be copied.

    Example:
        >>> M = geoopt.Lorentz(k=4.0)
        >>> x = geometry.exp0(M, torch.randn(8, 3, dtype=torch.float64))
        >>> assert_transform_laws(HT.wrapped_hyperboloid_coupling(3, manifold=M).double(), x)
    """
    if transform.domain.event_dim == 0:
        transform = IndependentTransform(transform, 1)
    if is_of_sets(transform):
        sets = Space(transform.domain).events(x)
        transform, x = SideBySide(transform, sets.shape[1:]), sets.flatten(1)
    domain, codomain = Space(transform.domain), Space(transform.codomain)
    points = domain.events(x.detach())
    points = points if thorough else points[:8]
    if len(points) == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}, but the laws need at least one point; give 8.")
    if not bool(transform.domain.check(points).all()):
        remedy = "geometry.exp0" if domain.charted else "geometry.project"
        raise ValueError(f"x is not in the domain {transform.domain} of the transform; make points with {remedy}.")
    copies = object_laws.possible_copies(transform)  # before anything is cached
    batch_shape = codomain.batch_of(transform(points[0].clone()))
    if batch_shape:
        raise ValueError(
            f"the transform has batch shape {tuple(batch_shape)}, from its k or a parameter, but must have none; "
            f"check each member by itself."
        )
    for law in (map_laws.shapes_broadcast, *_AT_ANY_RADIUS, gradient_laws.gradients_match_differences):
        law(transform, points.clone())
    object_laws.deepcopy_pickle_state_dict(transform, points.clone(), possible=copies)
    object_laws.cache_survives_an_optimiser_step(transform, points.clone())
    object_laws.float32_agrees_with_float64(transform, points.clone())
    if thorough and domain.charted:
        chart, v = domain.chart(points)
        for scale in (0.5, 2.0):
            for law in _AT_ANY_RADIUS:
                law(transform, chart(scale * v).detach().clone())


def assert_distribution_laws(distribution: dist.TorchDistribution, *, thorough: bool = False) -> None:
    r"""Checks every law of a distribution on a manifold: shapes, support, mass one, samples, noise, caches, gradients.

    Densities of batches are checked member by member: the first two, or all if thorough. ``has_rsample`` may be False.
    The laws do not require what torch or Pyro cannot do, such as an empty sample shape of a mixture.

    Args:
        distribution: A distribution with support ``on_manifold(M)`` or real vectors.
        thorough: Whether to check every member of a batch, with more samples and a finer quadrature.

    Raises:
        LawViolation: An AssertionError that names the law, what was expected and found, and the likely cause.
        ValueError: If the events are not points or real vectors, or the batch is empty.

    Warns:
        NotChecked: If the integral of the density is too inaccurate: very heavy tails, or parts that are far apart.

    Example:
        >>> assert_distribution_laws(hdist.WrappedNormal(torch.tensor([1.25, 0.75, 0.0]), torch.ones(2)))
    """
    _check_events(distribution)
    object_laws.arguments_satisfy_their_constraints(distribution)
    _check_shapes(distribution)
    noise.batch_members_have_own_noise(distribution)
    density_laws.own_samples_score_as_stored_points(distribution)
    density_laws.rsample_gradient_is_unbiased(distribution, num_samples=50_000 if thorough else 5_000)
    members = torch.Size(distribution.batch_shape).numel()
    for i in range(members if thorough else min(members, 2)):
        member = _Member(distribution, i)
        nodes = density_laws.Nodes.of(member, resolution=400 if thorough else 150)
        density_laws.total_mass_is_one(member, nodes=nodes)
        density_laws.samples_follow_the_density(member, num_samples=40_000 if thorough else 7_000, nodes=nodes)


def assert_constraint_laws(constraint: Constraint, inside: Tensor, outside: Tensor) -> None:
    """Checks that ``check`` separates inside from outside for each event, and ``biject_to`` maps onto the inside.

    Without a global chart there is no bijection, so only ``transform_to`` must map onto the inside.

    Args:
        constraint: A constraint of points of a manifold, or of vectors of R^n.
        inside: Points that satisfy it, shape ``(*, *event)``.
        outside: Points that do not, of the same form.

    Raises:
        LawViolation: If the law does not hold.

    Example:
        >>> M = geoopt.Lorentz()
        >>> points = geometry.exp0(M, torch.randn(5, 2))
        >>> assert_constraint_laws(hdist.constraints.on_manifold(M), points, 1.01 * points)
    """
    law, space = "constraint_tells_inside_from_outside", Space(constraint)
    for value, wanted, what in ((inside, True, "inside"), (outside, False, "outside")):
        found = constraint.check(value)
        batch_shape = space.batch_of(value)
        if found.shape != batch_shape:
            expected = str(tuple(batch_shape))
            cause = "one boolean for the whole batch, or one for each coordinate"
            raise LawViolation(law, "check has the batch shape", what, expected, str(tuple(found.shape)), cause)
        if not bool((found == wanted).all()):
            at = int((found != wanted).reshape(-1).nonzero()[0])
            event = str(space.events(value)[at].tolist())
            raise LawViolation(law, f"check(x) is {wanted} {what}", event, str(wanted), str(not wanted))
    if bool(constraint.check(torch.full_like(inside, torch.nan)).any()):
        raise LawViolation(law, "NaN is outside", "NaN", "False", "True", "a comparison that NaN passes")
    if not space.charted:
        transform = transform_to(constraint)
        z = transform.inv(inside).detach()
        for found in (transform(z), transform(*fixed_noise(z))):
            check_points("stays_on_manifold", "transform_to(constraint)(z)", found, constraint)
        vectors_agree(law, "t(t.inv(x)) = x", inside, transform(z), inside, 1e-6, of=space, at=space)
        return
    for registry in (biject_to, transform_to):
        map_laws.stays_on_manifold(registry(constraint), registry(constraint).inv(inside).detach().clone())


class _Member:
    """One member of a batch of distributions, with the interface that the density laws need."""

    def __init__(self, distribution: dist.TorchDistribution, index: int) -> None:
        self._distribution, self._index = distribution, index
        self.event_shape, self.support = distribution.event_shape, distribution.support
        self.has_rsample = distribution.has_rsample
        self._others: Tensor | None = None
        own = Space(self.support).member(index, distribution.batch_shape)
        if own is not None:
            # Each member has its own manifold: a point of one is off the others, which get samples of their own.
            self.support = own
            with density_laws.seeded(0):
                self._others = distribution.sample()

    def sample(self, shape: tuple[int, ...]) -> Tensor:
        return self._select(self._distribution.sample(torch.Size(shape)), shape)

    def rsample(self, shape: tuple[int, ...]) -> Tensor:
        return self._select(self._distribution.rsample(torch.Size(shape)), shape)

    def _select(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return x.reshape(*shape, -1, *self.event_shape).select(len(shape), self._index)

    def log_prob(self, x: Tensor) -> Tensor:
        batch, event = self._distribution.batch_shape, self.event_shape
        shape = x.shape[: x.dim() - len(event)]
        if self._others is None:
            many = x.reshape(*shape, *(1 for _ in batch), *event).expand(*shape, *batch, *event)
        else:
            many = self._others.expand(*shape, *self._others.shape).clone()
            many.view(*shape, -1, *event).select(len(shape), self._index).copy_(x)
        return self._distribution.log_prob(many).reshape(*shape, -1)[..., self._index]

    def __repr__(self) -> str:
        batched = f"member {self._index} of " if self._distribution.batch_shape else ""
        return f"{batched}{self._distribution}"


def _check_events(distribution: dist.TorchDistribution) -> None:
    shape = tuple(distribution.event_shape)
    try:
        support = distribution.support
    except NotImplementedError as error:
        raise ValueError(f"{distribution} has no support, but the laws need one; define it.") from error
    base = base_of(support)
    if len(shape) != (support.event_dim if hasattr(base, "manifold") else 1):
        remedy = "call .to_event(1)" if not shape else "check it before .to_event"
        raise ValueError(f"the events have shape {shape}, but the laws apply to vectors or points; {remedy}.")
    if not hasattr(base, "manifold") and not isinstance(base, type(constraints.real)):
        raise ValueError(
            f"the support is {support}, but the laws apply to on_manifold(M) or real vectors; push the distribution "
            f"through biject_to(support).inv."
        )
    if 0 in distribution.batch_shape:
        batch_shape = tuple(distribution.batch_shape)
        raise ValueError(f"the batch shape is {batch_shape}, but the laws need a member; give a batch of two.")


def _check_shapes(distribution: dist.TorchDistribution) -> None:
    for shape in ((), (3,), (2, 3), (0,)):
        try:
            _check_sample_shapes(distribution, shape)
        except Exception as error:
            if 0 not in shape:
                raise
            # torch cannot draw zero samples of a multinomial, for example.
            if not fails_in_a_library(error):
                raise no_empty_batch(f"d.log_prob(d.sample({shape}))", str(distribution), error) from error


def _check_sample_shapes(distribution: dist.TorchDistribution, shape: tuple[int, ...]) -> None:
    law, space = "shapes_broadcast", Space(distribution.support)
    x = distribution.sample(torch.Size(shape))
    expected = torch.Size(shape) + distribution.batch_shape + distribution.event_shape
    if x.shape != expected:
        raise LawViolation(law, f"sample({shape}).shape", str(distribution), str(tuple(expected)), str(tuple(x.shape)))
    found = distribution.log_prob(x).shape
    expected = torch.Size(shape) + distribution.batch_shape
    if found != expected:
        cause = "log_prob is not summed over the event, or is summed over the batch too"
        raise LawViolation(law, "log_prob(x).shape", str(distribution), str(tuple(expected)), str(tuple(found)), cause)
    inside = distribution.support.check(x)
    if inside.shape == x.shape:  # a support of scalars
        inside = inside.all(-1)
    if not bool(inside.all()):
        event, *_ = space.events(x)[~inside.reshape(-1)]
        law, cause = "stays_on_manifold", space.off_manifold_mistake(event)
        at = str(event.tolist())
        raise LawViolation(law, f"samples are on {distribution.support}", str(distribution), "a point", at, cause)
