r"""Summaries of posterior draws on manifolds: means that are points, balls, and diagnostics of identified numbers."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple, overload

import torch
from geoopt.manifolds.base import Manifold
from pyro.ops import stats
from torch import Tensor

from pyro_hyperbolic import geometry
from pyro_hyperbolic.geometry import Complete, checks, means
from pyro_hyperbolic.geometry.remedies import tensor_remedy

from .autoguide import GeodesicBall

__all__ = ["Diagnostics", "SiteSummary", "Summary", "summary", "to_arviz"]

#: Enough pairs of points to see chains that disagree; all pairs of up to 63 points.
_MAX_PAIRS = 2000
#: Four times the numbers in the temporary matrices of Pyro's effective sample size, draws^2 for each quantity.
_CHUNK = 16_000_000


class Diagnostics(NamedTuple):
    r"""Effective sample size and split :math:`\hat R`, as in the table of ``mcmc.summary()``.

    Attributes:
        n_eff: ``pyro.ops.stats.effective_sample_size``, one for each quantity.
        r_hat: ``pyro.ops.stats.split_gelman_rubin``, one for each quantity. Infinite if chains are stuck apart, NaN if
            all draws are equal.
    """

    n_eff: Tensor
    r_hat: Tensor


class SiteSummary(NamedTuple):
    r"""Summary of the draws of one site, printed as a table with a row for each of its points.

    In the table ``tangent`` and ``pairs`` are the smallest ``n_eff`` and the largest ``r_hat`` of a point.

    Attributes:
        ball: Centre: Fréchet mean of the draws, shape ``(*, *event)``. Radius: distances to it within which the
            fractions ``probs`` of the draws lie, shape ``(q, *)``.
        distance: Of the distances to the mean, shape ``(*)``.
        tangent: Of tangent coordinates at the mean, shape ``(*, n)``.
        pairs: Of the distances between points of a batch, shape ``(P,)``; in a batch of curvatures, of those on one
            manifold.
        pair_index: The pairs, shape ``(P, 2)``: numbers of points, in the order of the flattened batch.
        probs: The fractions of the radii.
        title: What was summarised.
    """

    ball: GeodesicBall
    distance: Diagnostics
    tangent: Diagnostics
    pairs: Diagnostics
    pair_index: Tensor
    probs: tuple[float, ...]
    title: str

    def __repr__(self) -> str:
        batch = self.distance.r_hat.shape
        if 0 in batch:  # of a plate without members
            return self.title
        columns = [("", "", [f"[{','.join(map(str, at))}]" if at else "" for at in product(*map(range, batch))])]
        columns.append(("mean", "", [_shown(x) for x in self.ball.center.reshape(batch.numel(), -1)]))
        radius = self.ball.radius.reshape(len(self.probs), -1)
        columns += [(f"{p:.0%}", "", [f"{r:#.3g}" for r in row]) for p, row in zip(self.probs, radius, strict=True)]
        kinds = {"distance": self.distance, "tangent": self.tangent, "pairs": self._pairs_of_points()}
        for name, (n_eff, r_hat) in kinds.items():
            if name != "pairs" or len(self.pair_index):
                columns.append((name, "n_eff", [f"{x:.0f}" for x in n_eff.reshape(batch.numel(), -1).amin(-1)]))
                columns.append(("", "r_hat", [f"{x:.2f}" for x in r_hat.reshape(batch.numel(), -1).amax(-1)]))
        lines = zip(*([top, under, *cells] for top, under, cells in columns), strict=True)
        width = [max(len(cell) for cell in (top, under, *cells)) for top, under, cells in columns]
        rows = ["  ".join(f"{cell:>{w}}" for cell, w in zip(line, width, strict=True)).rstrip() for line in lines]
        return "\n".join([self.title, *rows])

    def _pairs_of_points(self) -> Diagnostics:
        """Returns the worst diagnostics of the pairs of each point; NaN if it has none."""
        number = self.distance.r_hat.numel()
        n_eff, r_hat = (x.new_full((number,), torch.nan) for x in self.pairs)
        for point in self.pair_index.unique().tolist():
            of_point = (self.pair_index == point).any(-1)
            n_eff[point], r_hat[point] = self.pairs.n_eff[of_point].amin(), self.pairs.r_hat[of_point].amax()
        return Diagnostics(n_eff, r_hat)


class Summary(dict[str, SiteSummary]):
    """Summaries by name of site, printed one below the other."""

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self.values()))


@overload
def summary(
    samples: Tensor,
    manifold: Manifold,
    *,
    group_by_chain: bool = ...,
    probs: Sequence[float] = ...,
    pairs: Tensor | None = ...,
) -> SiteSummary: ...
@overload
def summary(
    samples: Any,
    manifold: Mapping[str, Manifold],
    *,
    group_by_chain: bool = ...,
    probs: Sequence[float] = ...,
    pairs: Tensor | None = ...,
) -> Summary: ...
def summary(
    samples: Any,
    manifold: Manifold | Mapping[str, Manifold],
    *,
    group_by_chain: bool = True,
    probs: Sequence[float] = (0.5, 0.95),
    pairs: Tensor | None = None,
) -> SiteSummary | Summary:
    r"""Returns the Fréchet mean :math:`m` of draws, radii of balls about it, ESS and :math:`\hat R` of :math:`d(x, m)`.

    ``mcmc.summary()`` averages coordinates, and a mean of coordinates is not a point. Its diagnostics are of
    coordinates, too, which on the hyperboloid grow like ``exp(r)``. Here they are, with Pyro's own functions, of

    - *distances* to the mean, and *tangent* coordinates at the mean (normal coordinates, or components in an
      orthonormal frame), for a point that its prior or its data locate;
    - distances of *pairs* of points, for a site in a plate. Where data are about distances only, the points of all
      draws may be moved by an isometry: chains that agree may differ in coordinates, and the mean of a chain that
      has converged means nothing. Then read ``pairs`` alone.

    On a manifold without a global chart, such as a sphere, the mean is a local one, reached from the best of 64 draws
    by at most 1000 steps :math:`m \leftarrow \exp_m(\overline{\log_m x})`. It is the only one nearby if the draws lie
    within a quarter of a closed geodesic of one point.

    Args:
        samples: Draws of one site, shape ``(chains, draws, *, *event)``, an ``MCMC`` that has run, or the dictionary of
            ``mcmc.get_samples(group_by_chain=True)``. At least 4 draws, for :math:`\hat R` splits chains.
        manifold: The manifold of a tensor of draws. Otherwise a dictionary ``{"z": M}`` of the manifolds of the sites
            to summarise.
        group_by_chain: Whether the first dimension of tensors is that of chains, as in Pyro; if not it is that of
            draws of one chain, such as those of ``Predictive``.
        probs: Fractions of the draws in the balls.
        pairs: Pairs of points, integers of shape ``(P, 2)``: numbers in the flattened batch. By default all pairs of up
            to 63 points, and otherwise about 2000, equally many and at least 2 with each point; in a batch of
            curvatures only those of one curvature. Time grows with ``P * chains * draws``, and the square of ``draws``.

    Returns:
        A :class:`SiteSummary` of a tensor, or a :class:`Summary`, a dictionary of them. Both print as tables. Radii are
        in units of distance.

    Raises:
        TypeError: If samples are neither, or ``manifold`` is not a manifold for a tensor and a dictionary otherwise.
        ValueError: If a shape is not that of chains of draws of points, there are fewer than 4 draws, a site is
            missing, a number is out of range or, while validating, a draw is off the manifold.

    References:
        Andrew Gelman et al., *Bayesian Data Analysis*, third edition, 2013 (section 11.4: split R-hat, ESS).
        Bijan Afsari, *Riemannian Lp Center of Mass: Existence, Uniqueness, and Convexity*, 2011 (means on spheres).

    Example:
        Two chains in a plate of two points, the second one moved by an isometry. Data about distances cannot tell the
        chains apart, and neither can the distance of the pair, while tangent coordinates do:

        >>> M = geoopt.Lorentz()
        >>> x = geometry.exp0(M, 0.3 * torch.randn(2, 250, 2, 2))
        >>> x[1] = geometry.translate(M, geometry.exp0(M, torch.tensor([1.0, 0.0])), x[1])
        >>> summary(x, M)
        Lorentz(k=1), 2 chains of 250 draws
                       mean    50%   95%  distance         tangent         pairs
                                             n_eff  r_hat    n_eff  r_hat  n_eff  r_hat
        [0]  (1.12, 0.51, 0.02)  0.600  1.09       434   1.00        1   2.30    483   1.00
        [1]  (1.13, 0.53, 0.00)  0.576  1.10       566   1.00        1   2.13    483   1.00
    """
    remedy = "pass fractions such as (0.5, 0.95)"
    probs = tuple(checks.check_number("probs", p, remedy, above=0.0) for p in checks.check_list("probs", probs, remedy))
    if not probs or max(probs) >= 1:
        raise ValueError(f"probs = {probs}, but must be fractions between 0 and 1; {remedy}.")
    if isinstance(samples, Tensor):
        return _summarise("", _by_chain("samples", samples, group_by_chain), manifold, probs, pairs)
    draws, manifolds = _sites(samples, manifold, group_by_chain)
    found = Summary()
    for name, space in manifolds.items():
        found[name] = _summarise(name, _by_chain(name, draws[name], True), space, probs, pairs)
    return found


def _summarise(name: str, x: Tensor, manifold: Any, probs: tuple[float, ...], pairs: Tensor | None) -> SiteSummary:
    about, chains = _about_mean(name, x, manifold, pairs), f"{len(x)} chain{'s' * (len(x) > 1)}"
    radius = stats.quantile(about.distance.flatten(0, 1), list(probs), dim=0).to(x.dtype)
    return SiteSummary(
        ball=GeodesicBall(about.mean, radius),
        distance=_diagnose(about.distance),
        tangent=_diagnose(about.tangent),
        pairs=_diagnose(about.apart),
        pair_index=about.pair_index,
        probs=probs,
        title=f"{name}{': ' * bool(name)}{checks.describe(manifold)}, {chains} of {x.size(1)} draws",
    )


def to_arviz(
    samples: Any,
    manifold: Manifold | Mapping[str, Manifold],
    *,
    group_by_chain: bool = True,
    pairs: Tensor | None = None,
) -> Any:
    r"""Returns ArviZ data with points :math:`x`, tangent coordinates :math:`\log_m x` and distances :math:`d(x, m)`.

    Of a site ``z`` the posterior gets, besides ``z`` itself,

    ================  ===========================================  =====================================
    ``z_tangent``     tangent coordinates at the Fréchet mean      ``(chain, draw, *, n)``
    ``z_distance``    distances to the Fréchet mean                ``(chain, draw, *)``
    ``z_pairs``       distances of pairs of points of a batch      ``(chain, draw, z_pair)``
    ================  ===========================================  =====================================

    and ``constant_data`` the mean, ``z_mean``. Sites without a manifold are stored as they are. Summarise without the
    coordinates of points: ``az.summary(data, var_names=["~z"])``, or only what is identified if data are about
    distances, ``var_names=["z_pairs"]``. The frame of ``z_tangent`` is that of :func:`summary`.

    Args:
        samples: As for :func:`summary`; a tensor is stored under the name ``x``.
        manifold: As for :func:`summary`.
        group_by_chain: As for :func:`summary`.
        pairs: As for :func:`summary`.

    Returns:
        A ``DataTree`` of ArviZ 1, an ``InferenceData`` of ArviZ 0.

    Raises:
        ImportError: If ArviZ is not installed.
        TypeError: As for :func:`summary`.
        ValueError: As for :func:`summary`, or if there are samples of one of these names.
    """
    try:
        import arviz
    except ImportError as error:
        raise ImportError('to_arviz needs ArviZ: pip install "pyro-hyperbolic[arviz]"') from error
    if isinstance(samples, Tensor):
        samples, manifold = {"x": _by_chain("samples", samples, group_by_chain)}, {"x": manifold}
        group_by_chain = True
    draws, manifolds = _sites(samples, manifold, group_by_chain)
    posterior = {name: value.detach().cpu().numpy() for name, value in draws.items()}
    groups: dict[str, dict[str, Any]] = {"posterior": posterior, "constant_data": {}}
    dims, coords = {}, {}
    for name, space in manifolds.items():
        about = _about_mean(name, _by_chain(name, draws[name], True), space, pairs)
        taken = {f"{name}_{each}" for each in ("tangent", "distance", "pairs")} & posterior.keys()
        if taken:
            raise ValueError(
                f"there are samples of {min(taken)!r} already, which is what to_arviz calls numbers of the site "
                f"{name!r}; rename the site {min(taken)!r}, or leave its samples out."
            )
        posterior[f"{name}_tangent"] = about.tangent.cpu().numpy()
        posterior[f"{name}_distance"] = about.distance.cpu().numpy()
        groups["constant_data"][f"{name}_mean"] = about.mean.cpu().numpy()
        if len(about.pair_index):
            posterior[f"{name}_pairs"] = about.apart.cpu().numpy()
            dims[f"{name}_pairs"] = [f"{name}_pair"]
            coords[f"{name}_pair"] = [f"{i}-{j}" for i, j in about.pair_index.tolist()]
    if arviz.__version__.startswith("0."):
        return arviz.from_dict(**groups, dims=dims, coords=coords)
    return arviz.from_dict(groups, dims=dims, coords=coords)


class _AboutMean(NamedTuple):
    """The mean ``(*, *event)``, and numbers of each draw ``(chains, draws, ...)`` in float64."""

    mean: Tensor
    distance: Tensor
    tangent: Tensor
    apart: Tensor
    pair_index: Tensor


@torch.no_grad()
def _about_mean(name: str, x: Tensor, manifold: Any, pairs: Tensor | None) -> _AboutMean:
    space = checks.check_complete(manifold)
    checks.check_points(space, x, name or "samples")
    flat = x.detach().flatten(0, 1)
    mean = means.mean(space, *means.along(space, flat, None, dim=0))
    center, flat = mean.double(), flat.double()
    u = _components(space, center, space.log(center, flat))
    points = flat.reshape(len(flat), -1, *x.shape[x.dim() - space.event_dim :])
    members = _members(space, space.batch_of(x.shape)[2:])
    index = _pairs(points.size(1), pairs, members).to(x.device)
    i, j = index.mT
    if members:
        space = geometry.complete(space.with_parameters({each: value[i] for each, value in members.items()}))
    apart = [space.distance(part[:, i], part[:, j]) for part in points.split(256)]
    chains = x.shape[:2]
    return _AboutMean(
        mean,
        torch.linalg.vector_norm(u, dim=-1).unflatten(0, chains),
        u.unflatten(0, chains),
        torch.cat(apart).unflatten(0, chains),
        index,
    )


def _members(space: Complete, batch: torch.Size) -> dict[str, Tensor]:
    """Returns the parameters of the manifold of each point of a batch, shape ``(N,)``; none if it is one manifold."""
    own = space.parameters()
    many = any(value.numel() > 1 for value in own.values())
    return {name: value.expand(batch).flatten() for name, value in own.items()} if many else {}


def _components(space: Complete, m: Tensor, u: Tensor) -> Tensor:
    """Returns the components ``(*, n)`` of tangent vectors ``(*, m)`` at ``m`` in an orthonormal frame."""
    n = space.dim(m.shape)
    if u.size(-1) == n:
        return u  # they are components already
    projection = space.tangent(m.unsqueeze(-1 - space.event_dim), torch.eye(u.size(-1), dtype=u.dtype, device=u.device))
    # Principal axes of an ellipsoid on the tangent space, after the normals with eigenvalue 0. All eigenvalues of the
    # projection itself are equal, and rounding of m would turn its eigenvectors.
    axes = torch.arange(1, u.size(-1) + 1, dtype=u.dtype, device=u.device)
    frame = torch.linalg.eigh(projection * axes @ projection.mT)[1][..., -n:]
    return (u.unsqueeze(-2) @ frame).squeeze(-2)


def _diagnose(values: Tensor) -> Diagnostics:
    """Returns diagnostics of numbers ``(chains, draws, *)``."""
    flat = values.reshape(*values.shape[:2], -1)
    parts = flat.split(max(1, _CHUNK // flat.size(1) ** 2), -1) if flat.numel() else ()
    found = [torch.cat([f(part) for part in parts]) if parts else flat.new_zeros(0) for f in _STATISTICS]
    return Diagnostics(*(each.reshape(values.shape[2:]) for each in found))


_STATISTICS = (stats.effective_sample_size, stats.split_gelman_rubin)


def _pairs(number: int, pairs: Tensor | None, members: dict[str, Tensor]) -> Tensor:
    """Returns checked pairs; by default all, or each point with those at equally spaced steps round the list.

    Only those of equal parameters: points of two manifolds have no distance.
    """
    found = _some_pairs(number) if pairs is None else pairs
    if not isinstance(found, Tensor) or found.dtype != torch.int64:
        raise TypeError(
            f"pairs = {checks.shown(pairs)}, but must be a tensor of integers (P, 2); use "
            f"torch.as_tensor(pairs).long()."
        )
    if found.dim() != 2 or found.size(-1) != 2 or bool(((found < 0) | (found >= number)).any()):
        raise ValueError(
            f"pairs = {checks.describe_values(found)}, shape {tuple(found.shape)}, but must be (P, 2), numbers of "
            f"the {number} points from 0 to {number - 1}."
        )
    for name, value in members.items():
        one, other = value.cpu()[found.cpu()].unbind(-1)
        differ = one != other
        if pairs is not None and bool(differ.any()):
            i, j = found[differ][0].tolist()
            raise ValueError(
                f"pairs holds ({i}, {j}), points of two manifolds, of which {name} is {one[differ][0].item():.6g} and "
                f"{other[differ][0].item():.6g}, but these have no distance; leave the pair out."
            )
        found = found[~differ]
    return found


def _some_pairs(number: int) -> Tensor:
    if number * (number - 1) // 2 <= _MAX_PAIRS:
        return torch.combinations(torch.arange(number))
    steps = torch.linspace(1, (number - 1) // 2, max(1, _MAX_PAIRS // number)).long()
    first = torch.arange(number).repeat_interleave(len(steps))
    return torch.stack([first, (first + steps.repeat(number)) % number], -1)


def _sites(samples: Any, manifold: Any, group_by_chain: bool) -> tuple[dict[str, Tensor], dict[str, Manifold]]:
    """Returns draws of all sites with a dimension of chains, and the manifolds by site."""
    if hasattr(samples, "get_samples"):
        samples, group_by_chain = samples.get_samples(group_by_chain=True), True
    if not isinstance(samples, Mapping):
        raise TypeError(
            f"samples = {checks.shown(samples)}, but must be a tensor, a dictionary of them, or an MCMC that has run; "
            f"pass mcmc.get_samples(group_by_chain=True)."
        )
    if not isinstance(manifold, Mapping):
        raise TypeError(
            f"manifold = {checks.shown(manifold)}, but draws of several sites need a dictionary of manifolds by site; "
            f'pass {{"{next(iter(samples), "z")}": M}}.'
        )
    for name in manifold:
        if name not in samples:
            raise ValueError(
                f"there are no samples of the site {name!r}, but of {sorted(samples)}; choose one of these."
            )
    for name, value in samples.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is {checks.shown(value)}, but must be a torch.Tensor; {tensor_remedy(value)}.")
    return {name: value if group_by_chain else value.unsqueeze(0) for name, value in samples.items()}, dict(manifold)


def _by_chain(name: str, x: Any, group_by_chain: bool) -> Tensor:
    checks.check_floating(name, x)
    x = x if group_by_chain else x.unsqueeze(0)
    if x.dim() < 3 or x.size(1) < 4 or x.size(0) < 1:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}, but must be (chains, draws, *, event) with at least 4 draws; pass "
            f"mcmc.get_samples(group_by_chain=True), or group_by_chain=False if the first dimension is that of draws."
        )
    return x


def _shown(x: Tensor) -> str:
    values = [f"{round(value, 2) + 0.0:.{'2f' if abs(value) < 10_000 else '2e'}}" for value in x[:4].tolist()]
    return f"({', '.join(values + ['...'] * (len(x) > 4))})"
