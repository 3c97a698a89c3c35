r"""Hypothesis strategies for manifolds, points, distributions and transforms. Needs the extra ``testing``.

Ranges are keyword arguments and plain values, never strategies. Examples are constructed, not filtered. They include
the origin, points 1e-8 from it, the largest radius, and (in :func:`point_pairs`) coincident, nearly coincident,
antipodal and nearly antipodal pairs. They shrink towards ``k = 1``, the origin and round numbers. Points can also be
those of compact manifolds, such as ``geoopt.Sphere()``, and of products with them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import geoopt
import pyro.distributions as dist
import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor
from torch.distributions import Transform

from pyro_hyperbolic import distributions as hdist
from pyro_hyperbolic import flows, geometry
from pyro_hyperbolic.distributions import transforms as HT
from pyro_hyperbolic.distributions.constraints import on_manifold

from .oracles import Space

try:
    from hypothesis import strategies as st
except ImportError as error:
    message = 'pyro_hyperbolic.testing.strategies needs hypothesis: pip install "pyro-hyperbolic[testing]"'
    raise ImportError(message) from error

__all__ = ["manifolds", "point_pairs", "points", "scales", "tangent_vectors", "transforms", "wrapped_normals"]

# Relative displacements, from total cancellation to nearly none.
_NEARBY = (0.0, 1e-8, 1e-4, 1e-1)


def manifolds(
    *, min_k: float = 0.1, max_k: float = 10.0, euclidean: bool = True, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[Manifold]:
    """Generates ``geoopt.Lorentz(k)`` with ``min_k <= k <= max_k`` in ``dtype``, and ``geoopt.Euclidean(1)``.

    Raises:
        ValueError: If the range of ``k`` is empty or not positive.

    Example:
        A test in three lines, called at once. The chart preserves volume at the origin, for every curvature:

        >>> from hypothesis import given
        >>> @given(manifolds())
        ... def test_no_stretch_at_the_origin(M):
        ...     assert geometry.log_volume(M, torch.zeros(2)) == 0
        >>> test_no_stretch_at_the_origin()
    """
    if not 0 < min_k <= max_k < math.inf:
        raise ValueError(f"min_k = {min_k} and max_k = {max_k}, but must satisfy 0 < min_k <= max_k < infinity.")
    ks = st.just(min(max(1.0, min_k), max_k)) | st.floats(min_k, max_k)
    curved: st.SearchStrategy[Manifold] = ks.map(lambda k: geoopt.Lorentz(torch.tensor(k, dtype=dtype)))
    return curved | st.builds(lambda: geoopt.Euclidean(1)) if euclidean else curved


def tangent_vectors(
    manifold: Manifold,
    *,
    dim: int,
    max_radius: float = 10.0,
    batch_shape: Sequence[int] = (),
    dtype: torch.dtype = torch.float64,
) -> st.SearchStrategy[Tensor]:
    """Generates tangent coordinates at the origin, ``|v| <= max_radius * sqrt(k)``, shape ``(*batch_shape, dim)``."""
    number = math.prod(batch_shape)
    one = st.tuples(_directions(dim), _radii(max_radius))
    several = st.lists(one, min_size=number, max_size=number)

    def build(rows: list[tuple[Tensor, float]]) -> Tensor:
        unit = Space(on_manifold(manifold)).length
        vectors = [direction * (radius * unit) for direction, radius in rows]
        stacked = torch.stack(vectors) if vectors else torch.zeros(0, dim, dtype=torch.float64)
        return stacked.reshape(*batch_shape, dim).to(dtype)

    return several.map(build)


def points(
    manifold: Manifold,
    *,
    dim: int,
    max_radius: float = 10.0,
    batch_shape: Sequence[int] = (),
    dtype: torch.dtype = torch.float64,
) -> st.SearchStrategy[Tensor]:
    """Generates points up to ``max_radius * sqrt(k)`` from the origin, shape ``(*batch_shape, *event)``.

    Without a global chart, up to ``max_radius`` along a geodesic from one special point, such as the end of the first
    axis or the identity.
    """
    vectors = tangent_vectors(manifold, dim=dim, max_radius=max_radius, batch_shape=batch_shape, dtype=dtype)
    space = Space(on_manifold(manifold))
    if space.charted:
        return vectors.map(lambda v: geometry.exp0(manifold, v))
    return vectors.map(lambda v: space.exp_at(space.special_point(dim, v), v))


def point_pairs(
    manifold: Manifold, *, dim: int, max_radius: float = 10.0, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[tuple[Tensor, Tensor]]:
    """Generates two points: independent, or coincident or antipodal up to a relative displacement of at most 0.1.

    Without a global chart, antipodal points are those at the cut locus of the other.
    """
    space = Space(on_manifold(manifold))
    if not space.charted:
        x = points(manifold, dim=dim, max_radius=max_radius, dtype=dtype)
        near = st.tuples(x, st.booleans(), st.sampled_from(_NEARBY), _directions(dim)).map(
            lambda drawn: _near_or_at_the_cut(space, *drawn)
        )
        return st.tuples(x, x) | near
    v = tangent_vectors(manifold, dim=dim, max_radius=max_radius, dtype=dtype)
    related = st.tuples(v, st.sampled_from([1.0, -1.0]), st.sampled_from(_NEARBY), _directions(dim)).map(
        lambda drawn: (drawn[0], drawn[1] * (drawn[0] + drawn[2] * drawn[0].norm() * drawn[3].to(dtype)))
    )
    pairs = st.tuples(v, v) | related
    return pairs.map(lambda pair: (geometry.exp0(manifold, pair[0]), geometry.exp0(manifold, pair[1])))


def _near_or_at_the_cut(
    space: Space, x: Tensor, cut: bool, displacement: float, direction: Tensor
) -> tuple[Tensor, Tensor]:
    direction = direction.to(x)
    radius = float(space.cut_distance(x, direction[None], 10.0)) * (1 - displacement) if cut else displacement
    return x, space.exp_at(x, radius * direction)


def scales(
    *, dim: int, min_scale: float = 1e-2, max_scale: float = 3.0, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[Tensor]:
    """Generates standard deviations between ``min_scale`` and ``max_scale``, shape ``(dim,)``."""
    one = st.just(min(max(1.0, min_scale), max_scale)) | st.floats(min_scale, max_scale)
    return st.lists(one, min_size=dim, max_size=dim).map(lambda values: torch.tensor(values, dtype=dtype))


def wrapped_normals(
    manifold: Manifold,
    *,
    dim: int,
    max_radius: float = 5.0,
    min_scale: float = 1e-2,
    max_scale: float = 2.0,
    dtype: torch.dtype = torch.float64,
) -> st.SearchStrategy[hdist.WrappedDistribution]:
    """Generates ``WrappedNormal`` and ``WrappedMultivariateNormal`` with locations up to ``max_radius * sqrt(k)``."""
    locs = points(manifold, dim=dim, max_radius=max_radius, dtype=dtype)
    widths = scales(dim=dim, min_scale=min_scale, max_scale=max_scale, dtype=dtype)
    factors = st.tuples(widths, _directions(dim)).map(
        lambda drawn: drawn[0].diag() + min_scale * drawn[1].to(dtype).expand(dim, dim).tril(-1)
    )
    diagonal = st.builds(lambda loc, scale: hdist.WrappedNormal(loc, scale, manifold), locs, widths)
    full = st.builds(
        lambda loc, factor: hdist.WrappedMultivariateNormal(loc, scale_tril=factor, manifold=manifold), locs, factors
    )
    return diagonal | full


def transforms(
    manifold: Manifold, *, dim: int, max_radius: float = 5.0, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[Transform]:
    """Generates translations, lifted affine maps, and couplings and flows with random weights.

    Translations and affine maps move the origin by at most ``max_radius * sqrt(k)``.
    """
    translations = points(manifold, dim=dim, max_radius=max_radius, dtype=dtype).map(
        lambda loc: HT.Translation(manifold, loc)
    )
    affine = st.tuples(
        tangent_vectors(manifold, dim=dim, max_radius=max_radius, dtype=dtype),
        scales(dim=dim, min_scale=0.2, dtype=dtype),
    ).map(lambda drawn: HT.TangentTransform(dist.transforms.AffineTransform(*drawn, event_dim=1), manifold))
    if dim < 2:
        return translations | affine
    builders: list[Callable[..., Any]] = [
        HT.tangent_coupling,
        HT.wrapped_hyperboloid_coupling,
        lambda dim, manifold: flows.coupling_flow(dim, 3, manifold=manifold),
    ]
    networks = st.builds(
        lambda builder, seed: _with_random_parameters(builder(dim, manifold=manifold), seed, dtype),
        st.sampled_from(builders),
        st.integers(0, 65_535),
    )
    return translations | affine | networks


def _with_random_parameters(module: Any, seed: int, dtype: torch.dtype) -> Any:
    generator = torch.Generator().manual_seed(seed)
    module.to(dtype)
    for value in module.parameters():
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        # Rows shorter than 1: a flow of longer ones magnifies rounding.
        value.data = (0.6 * torch.nn.functional.normalize(noise, dim=-1)).to(dtype)
    return module


def _radii(max_radius: float) -> st.SearchStrategy[float]:
    special = [radius for radius in (0.0, 1e-8, 1.0) if radius <= max_radius]
    return st.sampled_from([*special, max_radius]) | st.floats(0.0, max_radius)


def _directions(dim: int) -> st.SearchStrategy[Tensor]:
    """Generates unit vectors, including axes and diagonals; they shrink to the first axis."""
    components = st.lists(st.integers(-100, 100), min_size=dim, max_size=dim)

    def build(values: list[int]) -> Tensor:
        v = torch.tensor(values, dtype=torch.float64)
        if not any(values):
            v[0] = 1.0
        return v / v.norm()

    return components.map(build)
