"""The named cases that laws run over: every distribution and transform of the library, with its awkward settings."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import geoopt
import pyro.distributions as dist
import pyro.distributions.transforms as T
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import biject_to

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic.testing import density_laws
from pyro_hyperbolic.testing.oracles import Space
from pyro_hyperbolic.testing.sets import SideBySide

#: How often a correct random test may fail, over the whole suite; house rule 14.
TEST_FAILURE_RATE = 2e-5


def lorentz(k: float = 1.0) -> geoopt.Lorentz:
    return geoopt.Lorentz(torch.tensor(k, dtype=torch.float64))


def point(k: float, *v: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return ph.geometry.exp0(lorentz(k), torch.tensor(v, dtype=dtype))


def shaken(module: torch.nn.Module, scale: float = 0.6) -> torch.nn.Module:
    """Moves a flow away from the identity, where a law about its log-determinant would say little."""
    generator = torch.Generator().manual_seed(7)
    for value in module.parameters():
        if value.requires_grad:
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.data = scale * noise / (value.shape[-1] if value.dim() else 1) ** 0.5
    return module.double()


def ball(c: float = 0.5) -> geoopt.PoincareBall:
    return geoopt.PoincareBall(torch.tensor(c, dtype=torch.float64))


#: The other Hadamard manifolds: how to make one, and its dimension. Products have fixed sizes.
MANIFOLDS: dict[str, tuple[Callable[[], geoopt.manifolds.base.Manifold], int]] = {
    "ball": (ball, 3),
    "h2xh2xr": (lambda: geoopt.ProductManifold((lorentz(4.0), 3), (lorentz(0.25), 3), (geoopt.Euclidean(1), 1)), 5),
    "ballxspd": (lambda: geoopt.ProductManifold((ball(2.0), 1), (geoopt.SymmetricPositiveDefinite(), (2, 2))), 4),
    "spd": (geoopt.SymmetricPositiveDefinite, 3),
}

#: Manifolds without a global chart, and their dimensions.
UNCHARTED: dict[str, tuple[Callable[[], geoopt.manifolds.base.Manifold], int]] = {
    "s2": (geoopt.Sphere, 2),
    "t2": (lambda: ph.manifolds.Torus(2), 2),
    "so3": (ph.manifolds.Rotations, 3),
    "h2xs2xr": (lambda: geoopt.ProductManifold((lorentz(4.0), 3), (geoopt.Sphere(), 3), (geoopt.Euclidean(1), 1)), 5),
}


def base_on(manifold: geoopt.manifolds.base.Manifold, dim: int) -> dist.TorchDistribution:
    """Returns the uniform distribution, or wrapped normals where there is none."""
    factors = getattr(manifold, "manifolds", None)
    if factors is not None:
        pairs = zip(factors, ph.geometry.bind(manifold).dims(dim), strict=True)
        return hdist.ProductDistribution(manifold, [base_on(factor, n) for factor, n in pairs])
    if isinstance(ph.geometry.bind(manifold), ph.geometry.Embedded):
        return hdist.Uniform(manifold, dim, dtype=torch.float64)
    loc = _offset(manifold, dim, 0.8)
    return hdist.WrappedNormal(loc, torch.linspace(0.4, 0.8, dim, dtype=torch.float64), manifold)


class TransformCase(NamedTuple):
    name: str
    make: Callable[[], torch.distributions.Transform]
    dim: int
    manifold: geoopt.manifolds.base.Manifold
    length: float = 1.0  # the unit of radii


def _case(
    name: str, dim: int, k: float | None, make: Callable[[geoopt.manifolds.base.Manifold], object]
) -> TransformCase:
    manifold = geoopt.Euclidean(1) if k is None else lorentz(k)
    name = f"{name}-n{dim}-{'flat' if k is None else f'k{k:g}'}"
    return TransformCase(name, lambda: make(manifold), dim, manifold, math.sqrt(k or 1.0))


def _on(name: str, manifold: str, make: Callable[[geoopt.manifolds.base.Manifold, int], object]) -> TransformCase:
    M, dim = MANIFOLDS[manifold][0](), MANIFOLDS[manifold][1]
    return TransformCase(f"{name}-{manifold}", lambda: make(M, dim), dim, M)


def _offset(manifold: geoopt.manifolds.base.Manifold, dim: int, length: float) -> Tensor:
    direction = torch.linspace(-1, 2, dim, dtype=torch.float64) + 0.1
    return ph.geometry.exp0(manifold, length * direction / direction.norm())


def _affine(dim: int) -> dist.transforms.AffineTransform:
    steps = torch.arange(1, dim + 1, dtype=torch.float64)
    return dist.transforms.AffineTransform(0.3 * steps, 0.5 + 0.2 * steps, event_dim=1)


def _conditioned(conditional: torch.nn.Module, context_dim: int) -> torch.distributions.Transform:
    return shaken(conditional).condition(torch.linspace(-1, 1, context_dim, dtype=torch.float64))


def _tc(dim: int, **kwargs: object) -> Callable[[geoopt.manifolds.base.Manifold], object]:
    return lambda M: shaken(HT.tangent_coupling(dim, manifold=M, **kwargs))


def _whc(dim: int, **kwargs: object) -> Callable[[geoopt.manifolds.base.Manifold], object]:
    return lambda M: shaken(HT.wrapped_hyperboloid_coupling(dim, manifold=M, **kwargs))


def _flow(dim: int, layers: int, coupling: Callable[..., HT.Coupling]) -> Callable[..., object]:
    return lambda M: shaken(ph.flows.coupling_flow(dim, layers, coupling, manifold=M), 0.4)


def _set(
    name: str, n: int, M: geoopt.manifolds.base.Manifold, coupling: Callable[..., HT.Coupling], *mask: bool
) -> TransformCase:
    """A flow of sets with an attention network and a mask, as a map of the product of its points."""
    network = partial(HT.AttentionNN, hidden_dim=8, heads=2, layers=1)
    sets = ph.geometry.exp0(M, torch.zeros(len(mask), n, dtype=torch.float64))

    def make() -> SideBySide:
        flow = shaken(ph.flows.coupling_flow(n, 2, partial(coupling, hypernet=network), manifold=M), 0.4)
        return SideBySide(HT.SetTransform(flow, torch.tensor(mask)), sets.shape)

    return TransformCase(f"set-flow-{name}", make, len(mask) * n, make().domain.manifold)


def continuous(manifold: geoopt.manifolds.base.Manifold, n: int, **kwargs: object) -> torch.nn.Module:
    """A small continuous flow, away from the identity."""
    return shaken(HT.continuous_flow(n, manifold, hidden_dims=(4,), **kwargs), 0.3)


def _reflection(*direction: float) -> Callable[[geoopt.manifolds.base.Manifold], object]:
    return lambda M: HT.Reflection(M, torch.tensor(direction, dtype=torch.float64))


#: Maps of a manifold to itself.
AUTOMORPHISMS = [
    *[
        _case("translation", n, k, lambda M, n=n: HT.Translation(M, _offset(M, n, 1.7)))
        for n, k in [(1, 4.0), (2, 1.0), (2, 4.0), (5, 4.0), (3, None)]
    ],
    _case("far-translation", 3, 0.25, lambda M: HT.Translation(M, _offset(M, 3, 4.0))),
    *[_case("reflection", n, k, _reflection(*torch.linspace(-0.9, 2.1, n))) for n, k in [(1, 4.0), (2, 1.0), (5, 4.0)]],
    _case("reflection", 3, None, _reflection(0.3, -0.4, 1.2)),
    _case("reflection-ahead", 3, 4.0, _reflection(2.0, 0.0, 0.0)),  # the identity
    _case("reflection-nearly-ahead", 3, 1.0, _reflection(1.0, 1e-9, -1e-9)),
    _case("reflection-back", 3, 0.25, _reflection(-1.0, 0.0, 0.0)),
    *[_case("tc", n, k, _tc(n)) for n, k in [(2, 1.0), (3, 4.0), (5, 0.25), (2, None)]],
    _case("tc-uneven", 5, 4.0, _tc(5, split_dim=4)),
    *[_case("whc", n, k, _whc(n)) for n, k in [(2, 4.0), (3, 4.0), (4, 1.0), (5, 0.25), (7, 4.0), (3, None)]],
    _case("whc-uneven", 5, 4.0, _whc(5, split_dim=1)),
    _case("whc-unbounded", 4, 2.0, _whc(4, shift_bound=None, log_scale_bound=None)),
    _case("tc-conditional", 3, 4.0, lambda M: _conditioned(HT.conditional_tangent_coupling(3, 2, manifold=M), 2)),
    _case(
        "whc-conditional",
        4,
        4.0,
        lambda M: _conditioned(HT.conditional_wrapped_hyperboloid_coupling(4, 2, manifold=M), 2),
    ),
    _case("flow-tc", 3, 4.0, _flow(3, 3, HT.tangent_coupling)),
    _case("flow-whc", 5, 4.0, _flow(5, 4, HT.wrapped_hyperboloid_coupling)),
    _case("flow-one-layer", 5, 1.0, _flow(5, 1, HT.wrapped_hyperboloid_coupling)),
    _case("flow-realnvp", 4, None, _flow(4, 2, HT.tangent_coupling)),
    _case(
        "flow-conditional",
        3,
        4.0,
        lambda M: _conditioned(ph.flows.coupling_flow(3, 3, manifold=M, context_dim=2), 2),
    ),
    *[
        _case("lifted-affine", n, k, lambda M, n=n: HT.TangentTransform(_affine(n), M))
        for n, k in [(1, 4.0), (3, 0.25)]
    ],
    _case(
        "lifted-spline",
        2,
        4.0,
        lambda M: shaken(HT.TangentTransform(dist.transforms.spline_coupling(2, 1, count_bins=4), M)),
    ),
    _case(
        "lifted-autoregressive",
        3,
        4.0,
        lambda M: shaken(HT.TangentTransform(dist.transforms.affine_autoregressive(3, [16]), M), 1.0),
    ),
    *[_case("polar", 2, k, lambda M: shaken(HT.polar_coupling([16], 6, 2.5, 1.0, manifold=M))) for k in (4.0, None)],
    _case(
        "lifted-stack",
        3,
        1.0,
        lambda M: HT.TangentTransform(
            dist.transforms.ComposeTransform([_affine(3), dist.transforms.Permute(torch.tensor([2, 0, 1]))]), M
        ),
    ),
    *[_on("translation", name, lambda M, n: HT.Translation(M, _offset(M, n, 1.7))) for name in MANIFOLDS],
    *[_on("flow-tc", name, lambda M, n: _flow(n, 2, HT.tangent_coupling)(M)) for name in MANIFOLDS],
    *[_on("lifted-affine", name, lambda M, n: HT.TangentTransform(_affine(n), M)) for name in ("h2xh2xr", "spd")],
    _on("reflection", "ball", lambda M, n: _reflection(0.3, -0.4, 1.2)(M)),
    _on("whc", "ball", lambda M, n: _whc(n)(M)),
    *[
        _on(f"factor{i}", name, lambda M, n, i=i: shaken(HT.factor_coupling(n, i, manifold=M)))
        for name, i in [("h2xh2xr", 0), ("h2xh2xr", 2), ("ballxspd", 1)]
    ],
    _set("whc-n3-k4", 3, lorentz(4.0), HT.wrapped_hyperboloid_coupling, True, True, False),
    _set("realnvp-n2", 2, geoopt.Euclidean(1), HT.tangent_coupling, True, False, True, True),
    _set("tc-h2xh2xr", 5, MANIFOLDS["h2xh2xr"][0](), HT.tangent_coupling, True, True),
]
#: Maps of R^n to a manifold.
CHARTS = [
    *[
        _case("exp0", n, k, HT.ExponentialMap)
        for n, k in [(1, 0.1), (1, 4.0), (2, 1.0), (2, 4.0), (3, 0.1), (3, 4.0), (6, 4.0), (3, None)]
    ],
    *[
        _case("exp-at", n, k, lambda M, n=n: HT.ExponentialMap(M, _offset(M, n, 1.7)))
        for n, k in [(1, 4.0), (2, 1.0), (3, 0.25), (5, 4.0), (3, None)]
    ],
    *[_on("exp0", name, lambda M, n: HT.ExponentialMap(M)) for name in MANIFOLDS],
    *[_on("exp-at", name, lambda M, n: HT.ExponentialMap(M, _offset(M, n, 1.7))) for name in MANIFOLDS],
]
#: Flows of manifolds without a global chart, the cheap ones.
UNCHARTED_FLOWS = [
    TransformCase(
        f"continuous-{name}",
        lambda name=name, kwargs=kwargs: continuous(UNCHARTED[name][0](), UNCHARTED[name][1], **kwargs),
        UNCHARTED[name][1],
        UNCHARTED[name][0](),
    )
    for name, kwargs in {
        "s2": {"num_anchors": 3, "steps": 2},
        "t2": {"field": "dense", "steps": 1},
        "so3": {"field": "dense", "steps": 1},
    }.items()
]
TRANSFORMS = AUTOMORPHISMS + CHARTS + UNCHARTED_FLOWS


class DistributionCase(NamedTuple):
    name: str
    make: Callable[[], dist.TorchDistribution]


def _wrapped(name: str, k: float | None, loc: list[float], scale: object) -> DistributionCase:
    def make() -> dist.TorchDistribution:
        manifold = geoopt.Euclidean(1) if k is None else lorentz(k)
        point = ph.geometry.exp0(manifold, torch.tensor(loc, dtype=torch.float64))
        return hdist.WrappedNormal(point, torch.tensor(scale, dtype=torch.float64), manifold)

    return DistributionCase(name, make)


def _multivariate(name: str, k: float, loc: list[float]) -> DistributionCase:
    def make() -> dist.TorchDistribution:
        n = len(loc)
        factor = torch.eye(n, dtype=torch.float64) + 0.4 * torch.ones(n, n, dtype=torch.float64).tril(-1)
        point = ph.geometry.exp0(lorentz(k), torch.tensor(loc, dtype=torch.float64))
        return hdist.WrappedMultivariateNormal(point, scale_tril=0.6 * factor, manifold=lorentz(k))

    return DistributionCase(name, make)


def _pushed(name: str, n: int, k: float, coupling: Callable[..., HT.Coupling]) -> DistributionCase:
    def make() -> dist.TorchDistribution:
        M = lorentz(k)
        base = hdist.WrappedNormal(_offset(M, n, 0.8), torch.full((n,), 0.7, dtype=torch.float64), M)
        return dist.TransformedDistribution(base, [shaken(ph.flows.coupling_flow(n, 2, coupling, manifold=M))])

    return DistributionCase(name, make)


def _wrapped_on(name: str) -> DistributionCase:
    def make() -> dist.TorchDistribution:
        M, n = MANIFOLDS[name][0](), MANIFOLDS[name][1]
        return hdist.WrappedNormal(_offset(M, n, 1.2), torch.linspace(0.4, 0.8, n, dtype=torch.float64), M)

    return DistributionCase(f"wn-{name}", make)


def _around(name: str, family: Callable[..., dist.TorchDistribution], loc: Tensor, *c: float) -> DistributionCase:
    return DistributionCase(name, lambda: family(loc, torch.tensor(c, dtype=torch.float64)))


def _isotropic(name: str, family: Callable[..., dist.TorchDistribution], k: float, *loc: float) -> DistributionCase:
    size = torch.tensor(0.9, dtype=torch.float64)
    return DistributionCase(name, lambda: family(point(k, *loc), size, lorentz(k)))


_UNIT = torch.tensor([0.0, 0.6, -0.8, 0.0], dtype=torch.float64)
_TURN = torch.tensor([[0.6, 0.0, -0.8], [0.0, 1.0, 0.0], [0.8, 0.0, 0.6]], dtype=torch.float64)

DISTRIBUTIONS = [
    _wrapped("wn-standard", 1.0, [0.0, 0.0], [1.0, 1.0]),
    _wrapped("wn-k4-off-centre", 4.0, [1.5, -2.0], [0.5, 1.2]),
    _wrapped("wn-k0.25-off-centre", 0.25, [0.4, 0.3], [0.3, 0.6]),
    _wrapped("wn-line-k4", 4.0, [1.0], [0.7]),
    _wrapped("wn-5d-k4", 4.0, [0.5, -1.0, 0.2, 0.0, 1.0], [0.5, 1.0, 0.7, 0.3, 0.9]),
    _wrapped("wn-tiny-scale", 1.0, [0.3, 0.2], [1e-3, 1e-3]),
    _wrapped("wn-flat", None, [1.0, -1.0], [0.5, 2.0]),
    _multivariate("wmvn-k4", 4.0, [1.0, -0.5]),
    _multivariate("wmvn-3d", 1.0, [1.0, -0.5, 0.3]),
    _pushed("tc-flow-k4", 2, 4.0, HT.tangent_coupling),
    _pushed("whc-flow-k4", 2, 4.0, HT.wrapped_hyperboloid_coupling),
    _pushed("whc-flow-3d", 3, 1.0, HT.wrapped_hyperboloid_coupling),
    *[_wrapped_on(name) for name in MANIFOLDS],
    _around("vmf", hdist.VonMisesFisher, _UNIT[:3], 0.5, 30.0),
    _around("power-spherical-s1", hdist.PowerSpherical, _UNIT[1:3], 2.0),
    _around("power-spherical-s3", hdist.PowerSpherical, _UNIT, 3.0),
    _around("rotation-fisher", hdist.RotationFisher, _TURN, 1.5),
    _isotropic("rn-k4-off-centre", hdist.RiemannianNormal, 4.0, 1.5, -2.0),
    _isotropic("rn-3d-k4", hdist.RiemannianNormal, 4.0, 0.3, 0.1, -0.2),
    _isotropic("ball-k4", hdist.UniformBall, 4.0, 1.5, -2.0),
    *[
        DistributionCase(f"base-{name}", lambda make=make, n=n: base_on(make(), n))
        for name, (make, n) in UNCHARTED.items()
    ],
]


def points(case: TransformCase, *, radius: float = 3.0, number: int = 6) -> Tensor:
    """Returns points of the case's domain manifold: the origin, 1e-8 from it, and others up to a radius.

    Without a global chart, a point that formulas single out, and random others.
    """
    if case in UNCHARTED_FLOWS:
        with density_laws.seeded(1):
            x = base_on(case.manifold, case.dim).sample((min(number, 3),))
        return torch.cat([Space(hdist.constraints.on_manifold(case.manifold)).special_point(case.dim, x)[None], x])
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(number, case.dim, generator=generator, dtype=torch.float64)
    radii = torch.linspace(0.1, radius, number, dtype=torch.float64)[:, None]
    v = radii * v / v.norm(dim=-1, keepdim=True) * case.length
    v = torch.cat([torch.zeros_like(v[:1]), 1e-8 * v[:1] / v[:1].norm(), v])
    return v if case in CHARTS else ph.geometry.exp0(case.manifold, v)


def _real(d: dist.TorchDistribution) -> dist.TorchDistribution:
    """A continuous law of any other support, pushed to real vectors."""
    pushed = dist.TransformedDistribution(d, [biject_to(d.support).inv])
    return pushed if pushed.event_dim else pushed.to_event(1)


def _mixture(components: dist.TorchDistribution) -> dist.TorchDistribution:
    weights = torch.tensor([0.3, 0.7], dtype=components.sample().dtype).expand(components.batch_shape)
    return dist.MixtureSameFamily(dist.Categorical(weights), components)


def euclidean(dtype: torch.dtype) -> dict[str, Callable[[], dist.TorchDistribution]]:
    """Every distribution of torch and Pyro over real vectors, or that can be made one; in R^2 unless it says so."""
    t = partial(torch.tensor, dtype=dtype)
    loc, scale, factor = t([0.5, -0.3]), t([0.7, 1.2]), t([[0.8, 0.0], [0.3, 0.6]])
    normal = dist.Normal(loc, scale).to_event(1)

    def flow(module: torch.nn.Module) -> dist.TorchDistribution:
        return dist.TransformedDistribution(normal, [shaken(module, 0.3).to(dtype)])

    laws: dict[str, Callable[[], dist.TorchDistribution]] = {
        "AVFMultivariateNormal": lambda: dist.AVFMultivariateNormal(loc, factor, t([[[0.1, 0.2]], [[0.3, 0.1]]])),
        "AffineBeta": lambda: _real(dist.AffineBeta(t(2.0), t(3.0), loc, scale)),
        "AsymmetricLaplace": lambda: dist.AsymmetricLaplace(loc, scale, t(0.7)).to_event(1),
        "Beta": lambda: _real(dist.Beta(1 + scale, 2 + scale)),
        "Cauchy": lambda: dist.Cauchy(t([0.5]), t([0.7])).to_event(1),
        "Chi2": lambda: _real(dist.Chi2(2 + scale)),
        "ContinuousBernoulli": lambda: _real(dist.ContinuousBernoulli(t([0.3, 0.8]))),
        "Dirichlet": lambda: _real(dist.Dirichlet(t([2.0, 3.0, 4.0]))),
        "ExpandedDistribution": lambda: ExpandedDistribution(normal, torch.Size((3,))),
        "Exponential": lambda: _real(dist.Exponential(scale)),
        "FisherSnedecor": lambda: _real(dist.FisherSnedecor(t(5.0), 6 + scale)),
        "FoldedDistribution": lambda: _real(dist.FoldedDistribution(dist.Normal(loc, scale))),
        "Gamma": lambda: _real(dist.Gamma(1 + scale, scale)),
        # With a finite end: torch takes the half-line of the others for an interval, whose bijection is constant.
        "GeneralizedPareto": lambda: _real(dist.GeneralizedPareto(t(0.0), scale, t(-0.2))),
        "Gumbel": lambda: dist.Gumbel(loc, scale).to_event(1),
        "HalfCauchy": lambda: _real(dist.HalfCauchy(scale)),
        "HalfNormal": lambda: _real(dist.HalfNormal(scale)),
        "Independent": lambda: dist.Normal(loc.expand(3, 2), scale).to_event(1),
        "InverseGamma": lambda: _real(dist.InverseGamma(2 + scale, scale)),
        "Kumaraswamy": lambda: _real(dist.Kumaraswamy(1 + scale, 2 + scale)),
        "Laplace": lambda: dist.Laplace(loc, scale).to_event(1),
        "LogNormal": lambda: _real(dist.LogNormal(loc, scale)),
        "Logistic": lambda: dist.Logistic(loc, scale).to_event(1),
        "LogisticNormal": lambda: _real(dist.LogisticNormal(loc, scale)),
        "LowRankMultivariateNormal": lambda: dist.LowRankMultivariateNormal(loc, t([[0.5], [0.2]]), t([0.2, 0.3])),
        "MaskedDistribution": lambda: normal.mask(torch.tensor(True)),
        "MaskedMixture": lambda: dist.MaskedMixture(
            torch.tensor([True, False]), normal.expand([2]), dist.Laplace(loc, scale).to_event(1).expand([2])
        ),
        "MixtureSameFamily": lambda: _mixture(dist.Normal(torch.stack([loc, -loc]), scale).to_event(1)),
        "MultivariateNormal": lambda: dist.MultivariateNormal(loc, scale_tril=factor),
        "MultivariateStudentT": lambda: dist.MultivariateStudentT(t(4.0), loc, factor),
        "Normal": lambda: normal,
        "OMTMultivariateNormal": lambda: dist.OMTMultivariateNormal(loc, factor),
        "Pareto": lambda: _real(dist.Pareto(scale, t(3.0))),
        "RelaxedBernoulli": lambda: _real(dist.RelaxedBernoulli(t(1.5), probs=t([0.3, 0.8]))),
        "RelaxedOneHotCategorical": lambda: _real(dist.RelaxedOneHotCategorical(t(1.5), probs=t([0.3, 0.2, 0.5]))),
        "SkewLogistic": lambda: dist.SkewLogistic(loc, scale, t(0.7)).to_event(1),
        "SoftAsymmetricLaplace": lambda: dist.SoftAsymmetricLaplace(loc, scale, t(0.7)).to_event(1),
        "SoftLaplace": lambda: dist.SoftLaplace(loc, scale).to_event(1),
        "StudentT": lambda: dist.StudentT(t(3.0), loc, scale).to_event(1),
        "TransformedDistribution": lambda: flow(T.affine_coupling(2, [8])),
        "Uniform": lambda: _real(dist.Uniform(-scale, scale)),
        "Weibull": lambda: _real(dist.Weibull(scale, t(2.0))),
    }
    more: dict[str, Callable[[], dist.TorchDistribution]] = {
        "StudentT in R^4": lambda: dist.StudentT(t(3.0), t([0.5, -0.3, 0.1, 0.2]), t(0.7)).to_event(1),
        "a spline flow": lambda: flow(T.spline_coupling(2, 1, [8], count_bins=4, bound=6.0)),
        "an autoregressive flow": lambda: flow(T.affine_autoregressive(2, [8])),
        "a flow of elementwise parts": lambda: dist.TransformedDistribution(normal, [T.AffineTransform(loc, scale)]),
        "an expanded MultivariateNormal": lambda: dist.MultivariateNormal(loc, scale_tril=factor).expand([3]),
        "a batch of mixtures": lambda: _mixture(dist.Normal(t([0.5, -0.3]).expand(3, 2, 2), scale).to_event(1)),
    }
    return {name: make for name, make in laws.items() if hasattr(dist, name) or name == "ExpandedDistribution"} | more


#: The other distributions of torch and Pyro, and why they have no place in that table.
NOT_EUCLIDEAN = {
    "discrete": """Bernoulli BetaBinomial Binomial Categorical DirichletMultinomial DiscreteHMM
        Empirical ExtendedBetaBinomial ExtendedBinomial GammaPoisson Geometric LogNormalNegativeBinomial Multinomial
        NegativeBinomial OneHotCategorical OneOneMatching OneTwoMatching OrderedLogistic Poisson SpanningTree
        ZeroInflatedDistribution ZeroInflatedNegativeBinomial ZeroInflatedPoisson""",
    "events of matrices or paths": """CoalescentTimes CoalescentTimesWithRate GammaGaussianHMM GaussianHMM GaussianMRF
        IndependentHMM LKJ LKJCholesky LKJCorrCholesky LinearHMM Wishart""",
    "a circle or a sphere, though torch calls VonMises real": """ProjectedNormal SineBivariateVonMises SineSkewed
        VonMises VonMises3D""",
    "no density over real vectors": """Delta GroupedNormalNormal ImproperUniform NanMaskedMultivariateNormal
        NanMaskedNormal Unit""",
    "abstract": "Distribution ExponentialFamily Rejector TorchDistribution",
    "straight-through: samples are not those of the density": """OneHotCategoricalStraightThrough
        RelaxedBernoulliStraightThrough RelaxedOneHotCategoricalStraightThrough""",
    "Pyro's sampler takes no sample_shape": """GaussianScaleMixture MixtureOfDiagNormals
        MixtureOfDiagNormalsSharedCovariance""",
    "a density that takes seconds, or is cut off": "Stable StableWithLogProb TruncatedPolyaGamma",
}
