r"""Vector fields of continuous flows: networks of a point and a time, which return a tangent vector.

A field is a module called as ``field(x, t)``, or ``field(x, t, context)``: points ``(*, *event)``, times ``(*)`` in
[0, 1] and contexts ``(*, c)``. It returns tangent vectors ``(*, m)`` as :class:`geometry.Complete` has them, and must
be smooth: a kink would be a kink of the flow's density.
"""

import math
from collections.abc import Sequence

import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic import geometry
from pyro_hyperbolic.geometry import Complete, Embedded, Hadamard, checks
from pyro_hyperbolic.geometry.autocast import autocasts
from pyro_hyperbolic.manifolds import or_standard

from .base import register_if_learnable
from .networks import start_near_zero, widths_of

__all__ = ["AnchorField", "DenseField", "MixtureField", "VectorField", "farthest_points"]

#: The number of frequencies of the time features.
_TIMES = 4


class VectorField(torch.nn.Module):
    """Abstract base of the fields of this library: they know their manifold, dimension and context."""

    manifold: Manifold
    network: torch.nn.Sequential

    def __init__(self, dim: int, manifold: Manifold | None, context_dim: int | None) -> None:
        super().__init__()
        manifold = or_standard(manifold)
        checks.check_count("dim", dim, 1, "it is the intrinsic dimension")
        if context_dim is not None:
            checks.check_count("context_dim", context_dim, 1, "it is the length of a context vector")
        geometry.complete(manifold).event_shape(dim)
        self.dim, self.context_dim = dim, context_dim
        self.__dict__["manifold"] = manifold
        register_if_learnable(self, manifold)

    @property
    def _space(self) -> Complete:
        return geometry.complete(self.manifold)

    def _space_of(self, x: Tensor) -> Complete:
        """Returns the geometry, or raises unless points have the dimension and the dtype of the field."""
        space, network = self._space, next(self.network.parameters())
        if space.dim(x.shape) != self.dim:
            raise ValueError(
                f"points have shape {tuple(x.shape)}, but the field was built for dim = {self.dim}, points "
                f"(*, {', '.join(map(str, space.event_shape(self.dim)))})."
            )
        if not autocasts(x):
            checks.check_same_dtype(field=network, points=x)
        return space

    def _joined(self, parts: list[Tensor], t: Tensor, context: Tensor | None) -> Tensor:
        """Returns the argument of the network: features of the point, of the time, and the context."""
        found = 0 if context is None else context.size(-1)
        if found != (self.context_dim or 0):
            raise ValueError(
                f"the context has {found} coordinates, but the field was built for context_dim = {self.context_dim}; "
                f"build it for contexts of this length."
            )
        batch = parts[0].shape[:-1]
        parts = [*parts, time_features(t).expand(*batch, 2 * _TIMES + 1)]
        if context is not None:
            parts.append(context.to(parts[0].dtype).expand(*batch, found))
        return torch.cat(parts, -1)


class DenseField(VectorField):
    r"""A dense network of the point and the time, :math:`V(x, t) = P_x\, \operatorname{net}(\phi(x), t)`.

    :math:`\phi` are smooth coordinates of the point, ``geometry.Complete.features``, and :math:`P_x` is the projection
    to the tangent space. It needs no data, unlike :class:`AnchorField`. Train it in large batches.

    Shapes: points ``(*, *event)`` and times ``(*)`` to tangent vectors ``(*, m)``.

    Args:
        dim: Intrinsic dimension ``n``.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        hidden_dims: Widths of the hidden layers.
        context_dim: Length of a context vector; None for no context.
        frequencies: Number of random Fourier features :math:`\cos \omega \cdot \phi, \sin \omega \cdot \phi` that are
            added to :math:`\phi`; they help where the density has edges.
        frequency_scale: Standard deviation of the coordinates of :math:`\omega`. A pair for one that grows
            geometrically from the first frequency to the last: for densities with details of many sizes.

    Raises:
        TypeError: If a size is not an integer, or a scale is no number.
        ValueError: If a size or a scale is out of range.

    References:
        *Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains*, M. Tancik et al.,
        2020, arXiv:2006.10739.

    Example:
        >>> field = DenseField(2, geoopt.Sphere())
        >>> x = torch.tensor([0.0, 0.0, 1.0])
        >>> field(x, torch.tensor(0.5)) @ x  # tangent
        tensor(0., grad_fn=<DotBackward0>)
    """

    def __init__(
        self,
        dim: int,
        manifold: Manifold | None = None,
        hidden_dims: Sequence[int] | None = None,
        context_dim: int | None = None,
        frequencies: int = 0,
        frequency_scale: float | tuple[float, float] = 2.0,
    ) -> None:
        super().__init__(dim, manifold, context_dim)
        checks.check_count("frequencies", frequencies, 0, "it counts random Fourier features")
        scales = _scales(frequency_scale, frequencies)
        space = self._space
        with torch.no_grad():
            size = _count_features(space, random_states(space, dim, 1)[0])
        self.frequencies: Tensor
        self.register_buffer("frequencies", scales * torch.randn(size, frequencies))
        inputs = size + 2 * frequencies + 2 * _TIMES + 1 + (context_dim or 0)
        self.network = dense(inputs, widths_of(hidden_dims, [128, 128]), space.vector_size(dim))

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns the tangent vectors."""
        space = self._space_of(x)
        features = space.features(x)
        phases = features @ self.frequencies
        return space.tangent(x, self.network(self._joined([features, phases.cos(), phases.sin()], t, context)))


class AnchorField(VectorField):
    r"""Points towards learned anchors, :math:`V(x, t) = P_x(\sum_j w_j g_j \log_x(a_j) + f)`.

    .. math:: w = \operatorname{softmax}_j(l_j - \beta_j d(x, a_j)^2)

    with ``l``, ``g`` and ``f`` outputs of one network of the time, the distances to the anchors, and the point. The
    optimum of flow matching is :math:`E[\log_x(x_1) | x_t = x] / (1 - t)`, and for a mixture of blobs that is such a
    softmax; on compact manifolds, where :math:`\log_x` jumps, the chord replaces it
    (``geometry.Complete.towards``). Each blob needs an anchor, so let data start them.

    Shapes: points ``(*, *event)`` and times ``(*)`` to tangent vectors ``(*, m)``.

    Args:
        dim: Intrinsic dimension ``n``.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        anchors: Points ``(J, *event)`` at which the anchors start, such as :func:`farthest_points` of data; or a number
            of random points, 48 by default. Anchors are learned.
        hidden_dims: Widths of the hidden layers.
        context_dim: Length of a context vector; None for no context.
        equivariant: Whether the network reads distances alone, and there is no ``f``: an isometry that moves points
            and anchors then moves the flow.

    Raises:
        TypeError: If a size is not an integer.
        ValueError: If a size is out of range, or an anchor is off the manifold.

    Example:
        >>> M = geoopt.Lorentz()
        >>> field = AnchorField(2, M, geometry.exp0(M, torch.tensor([[-1.0, 0.0], [1.0, 0.0]])))
        >>> field(geometry.origin(M, 2), torch.tensor(0.5)).norm() < 0.1  # starts near zero
        tensor(True)
    """

    def __init__(
        self,
        dim: int,
        manifold: Manifold | None = None,
        anchors: Tensor | int = 48,
        hidden_dims: Sequence[int] | None = None,
        context_dim: int | None = None,
        equivariant: bool = False,
    ) -> None:
        super().__init__(dim, manifold, context_dim)
        space = self._space
        with torch.no_grad():
            if isinstance(anchors, Tensor):
                states = _states_of(space, dim, anchors)
            else:
                checks.check_count("anchors", anchors, 1, "give points, or the number of random points")
                states = random_states(space, dim, anchors)
            near = _nearest(space, states)
            features = _count_features(space, states[0])
        count, size = len(states), space.vector_size(dim)
        self.equivariant = equivariant
        self.anchors = torch.nn.Parameter(states.clone())
        #: log beta; beta starts at one over the squared distance to the nearest other anchor, so units do not matter.
        self.log_sharpness = torch.nn.Parameter(-2 * near.log())
        place, free = (0, 0) if equivariant else (features, size)
        self._outputs = [count, count, free]
        inputs = count + place + 2 * _TIMES + 1 + (context_dim or 0)
        self.network = dense(inputs, widths_of(hidden_dims, [128, 128]), sum(self._outputs))

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns the tangent vectors."""
        space = self._space_of(x)
        batch = (1,) * (x.dim() - space.event_dim)
        anchors = space.point(space.retract(self.anchors).unflatten(0, (-1, *batch)))[0]
        square, combine = space.attraction(x, anchors)
        length = (1 + square).sqrt().movedim(0, -1)  # smooth where the distance is zero
        features = [length] if self.equivariant else [length, space.features(x)]
        logits, gains, free = self.network(self._joined(features, t, context)).split(self._outputs, -1)
        weights = (logits - self.log_sharpness.exp() * square.movedim(0, -1)).softmax(-1) * gains
        found = combine(weights.movedim(-1, 0))
        return found if self.equivariant else found + space.tangent(x, free)


class MixtureField(VectorField):
    r"""The field that turns a wrapped normal into a mixture, :math:`V(x, t) = \sum_j w_j (k_j + g_j \log_x c_j) + f`.

    On a manifold with a global chart the target :math:`c_j = \exp_o(t\, a_j)` moves from the origin to the component
    :math:`a_j`, of scale :math:`\sigma_j`; :math:`k_j` is the velocity at x of the isometries that carry it; and

    .. math:: w_j \propto \pi_j e^{l_j} p(x; c_j, v_j), \quad
        g_j = \frac{(1 - t) s^2 - t \sigma_j^2}{v_j}, \quad v_j = (1 - t)^2 s^2 + t^2 \sigma_j^2 .

    with ``p`` the density of a wrapped normal of variance ``v``. Without ``l`` and ``f`` it carries
    ``WrappedNormal(o, s)`` to the mixture of ``WrappedNormal(a, sigma)`` with weights :math:`\pi`. A network of the
    point, the time and the distances to the targets gives ``l`` and ``f``, so that the flow can learn any density. On
    compact factors targets do not move, ``k`` is zero, and the chord replaces log, which jumps there.

    Shapes: points ``(*, *event)`` and times ``(*)`` to tangent vectors ``(*, m)``.

    Args:
        dim: Intrinsic dimension ``n``.
        manifold: A geoopt manifold; the hyperboloid of curvature -1 by default.
        data: Points ``(N, *event)``. Components start at their clusters: the farthest points, moved by Lloyd's
            algorithm. All of them are learned.
        components: The number of components; fewer if there are fewer points.
        base_scale: The scale ``s`` at which the base is expected, about the origin; it is learned too.
        hidden_dims: Widths of the hidden layers.
        context_dim: Length of a context vector; None for no context.

    Raises:
        TypeError: If a size is not an integer.
        ValueError: If a size or the scale is out of range, or a point is off the manifold.

    Example:
        Two places, and a point between them that moves up with both:

        >>> field = MixtureField(2, geoopt.Euclidean(1), torch.tensor([[-3.0, 4.0], [3.0, 4.0]]), hidden_dims=[8])
        >>> field(torch.tensor([0.0, 0.0]), torch.tensor(0.0)).detach().round()
        tensor([0., 4.])
    """

    def __init__(
        self,
        dim: int,
        manifold: Manifold | None,
        data: Tensor,
        components: int = 48,
        base_scale: float = 1.0,
        hidden_dims: Sequence[int] | None = None,
        context_dim: int | None = None,
    ) -> None:
        super().__init__(dim, manifold, context_dim)
        checks.check_number("base_scale", base_scale, "it is the scale of the base", above=0)
        space = self._space
        with torch.no_grad():
            states, shares, scales = _clusters(self.manifold, data, components)
            features = _count_features(space, states[0])
        count, size = len(states), space.vector_size(dim)
        self.anchors = torch.nn.Parameter(states)
        self.log_weights = torch.nn.Parameter(shares.log())
        self.log_scales = torch.nn.Parameter(scales.log())
        self.log_base_scale = torch.nn.Parameter(torch.tensor(float(base_scale)).log())
        self._outputs = [count, size]
        inputs = count + features + 2 * _TIMES + 1 + (context_dim or 0)
        self.network = dense(inputs, widths_of(hidden_dims, [128, 128]), sum(self._outputs))

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns the tangent vectors."""
        space = self._space_of(x)
        lists = (-1, *(1,) * (x.dim() - space.event_dim))
        states = space.retract(self.anchors.unflatten(0, lists))
        square, log_volume, guide = space.guidance(x, states, t)
        length = (1 + square).sqrt().movedim(0, -1)  # smooth where the distance is zero
        logits, free = self.network(self._joined([length, space.features(x)], t, context)).split(self._outputs, -1)
        base, own = (2 * self.log_base_scale).exp(), (2 * self.log_scales).exp().view(lists)
        variance = (1 - t) ** 2 * base + t**2 * own
        prior = self.log_weights.view(lists) - self.dim / 2 * variance.log()
        weights = (prior - square / (2 * variance) - log_volume + logits.movedim(-1, 0)).softmax(0)
        return guide(weights, ((1 - t) * base - t * own) / variance) + space.tangent(x, free)


def _count_features(space: Complete, state: Tensor) -> int:
    return space.features(space.point(state)[0]).size(-1)


def _scales(scale: float | tuple[float, float], count: int) -> Tensor:
    """Returns the scale of each of ``count`` frequencies, geometric between a pair."""
    remedy = "it is the scale of frequencies; give a number, or a pair"
    pair = checks.check_list("frequency_scale", scale, remedy, 2) if isinstance(scale, (tuple, list)) else [scale] * 2
    low, high = (math.log(checks.check_number("frequency_scale", value, remedy, above=0)) for value in pair)
    return torch.linspace(low, high, count, dtype=torch.float64).exp().to(torch.get_default_dtype())


def time_features(t: Tensor) -> Tensor:
    r"""Returns :math:`t, \cos \pi j t, \sin \pi j t` for ``j = 1 .. 4``, shape ``(*, 9)``."""
    t = t.unsqueeze(-1)
    phases = math.pi * torch.arange(1, _TIMES + 1, dtype=t.dtype, device=t.device) * t
    return torch.cat([t, phases.cos(), phases.sin()], -1)


def farthest_points(manifold: Manifold, x: Tensor, count: int) -> Tensor:
    """Returns at most ``count`` of the points, each the farthest from those before it; equal points once.

    Args:
        manifold: A geoopt manifold.
        x: Points, shape ``(N, *event)``. The first is taken first.
        count: The number of points.

    Raises:
        ValueError: If there is no point, or one is off the manifold.

    Example:
        >>> farthest_points(geoopt.Euclidean(1), torch.tensor([[0.0], [1.0], [5.0], [5.0]]), 2)
        tensor([[0.],
                [5.]])
    """
    space = geometry.complete(manifold)
    checks.check_count("count", count, 1, "it is a number of points")
    checks.check_set(space, x, "anchors")
    x = x.detach()
    if x.dim() != space.event_dim + 1 or not len(x):
        raise ValueError(f"anchors have shape {tuple(x.shape)}, but must be a list of points, one or more.")
    chosen, apart = [0], space.distance(x, x[0])
    while len(chosen) < count and float(apart.max()) > 0:
        chosen.append(int(apart.argmax()))
        last = x[chosen[-1]]
        equal = (x == last).flatten(1).all(-1)  # whose distance may round to more than zero
        apart = torch.minimum(apart, space.distance(x, last).masked_fill(equal, 0.0))
    return x[chosen]


def _clusters(manifold: Manifold, x: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns states ``(J, p)``, shares and scales of clusters: farthest points, then Lloyd's algorithm."""
    space = geometry.complete(manifold)
    centres = farthest_points(manifold, x, count)
    for _ in range(4):
        nearest = space.distance_matrix(x, centres).argmin(-1)
        members = [x[nearest == j] for j in range(len(centres))]
        # A cluster that has lost its points stays, so that the sizes of parameters depend on no data.
        members = [own if len(own) else centres[j : j + 1] for j, own in enumerate(members)]
        last, centres = centres, torch.stack([_mean(space, own) for own in members])
    n = space.dim(x.shape)
    pairs = zip(members, last, strict=True)
    scales = torch.stack([space.squared_distance(own, centre).mean() / n for own, centre in pairs]).sqrt()
    # A cluster of one place has no scale of its own.
    middle = scales.median() if bool(scales.median() > 0) else scales.max()
    middle = middle if bool(middle > 0) else torch.ones_like(middle)
    scales = torch.where(scales > 0.05 * middle, scales, middle)
    shares = torch.tensor([float(len(own)) for own in members]) / len(x)
    default = torch.get_default_dtype()
    return space.state(last)[0].to(default), shares.to(default), scales.to(default)


def _mean(space: Complete, x: Tensor) -> Tensor:
    """Returns the mean of points, by three steps of its fixed-point iteration."""
    mean = x[0]
    for _ in range(3):
        mean = space.exp(mean, space.log(mean.expand_as(x), x).mean(0))
    return mean


def dense(inputs: int, widths: list[int], outputs: int) -> torch.nn.Sequential:
    """Returns a smooth dense network whose outputs start near zero."""
    layers: list[torch.nn.Module] = []
    for width in widths:
        layers += [torch.nn.Linear(inputs, width), torch.nn.SiLU()]
        inputs = width
    last = torch.nn.Linear(inputs, outputs)
    start_near_zero(last)
    return torch.nn.Sequential(*layers, last)


def random_states(space: Complete, dim: int, count: int) -> Tensor:
    """Returns random states ``(count, p)``: uniform on compact factors, normal of scale 2 in tangent coordinates."""
    if isinstance(space, Hadamard):
        return 2 * torch.randn(count, dim)
    if isinstance(space, Embedded):
        return space.state(space.uniform(torch.Size((count,)), dim, torch.empty(())))[0]
    if len(space.factors) > 1:
        parts = zip(space.factors, space.dims(dim), strict=True)
        return torch.cat([random_states(factor, n, count) for factor, n in parts], -1)
    raise TypeError(f"{space.name} has no random points; give anchors=.")


def _states_of(space: Complete, dim: int, points: Tensor) -> Tensor:
    """Returns the states of a list of points in the default dtype, or raises."""
    checks.check_points(space, points, "anchors")
    if points.shape[1:] != space.event_shape(dim) or not len(points):
        raise ValueError(
            f"anchors have shape {tuple(points.shape)}, but must be a list of points of n = {dim} dimensions, "
            f"(J, {', '.join(map(str, space.event_shape(dim)))})."
        )
    return space.state(points)[0].to(torch.get_default_dtype())


def _nearest(space: Complete, states: Tensor) -> Tensor:
    """Returns the distance of each anchor to the nearest other one, or 1 where that is zero or unknown."""
    if len(states) == 1 or any(space.batch_shapes()):
        return torch.ones(len(states))
    points = space.point(states)[0]
    apart = space.distance_matrix(points, points)
    near = apart.fill_diagonal_(math.inf).amin(-1)
    return near.masked_fill(near == 0, 1.0)
