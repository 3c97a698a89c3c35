r"""Laws of distributions: :math:`\int p\, dvol = 1` over Riemannian volume, and samples that follow the density."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from .diagnosis import LawViolation, event_text, not_checked, number_texts, smallest
from .oracles import Space, gradient_of, leaves_of

__all__ = [
    "Nodes",
    "own_samples_score_as_stored_points",
    "rsample_gradient_is_unbiased",
    "samples_follow_the_density",
    "total_mass_is_one",
]

#: The rate at which a correct distribution may fail a random law.
FAILURE_RATE = 2e-5

#: Above this error of the mass an integral is inconclusive: the density is not concentrated around its centre.
_INCONCLUSIVE = 0.2


def total_mass_is_one(
    distribution: dist.TorchDistribution, *, resolution: int = 200, seed: int = 0, nodes: "Nodes | None" = None
) -> None:
    r"""Checks :math:`\int p\, dvol = 1` with respect to Riemannian volume.

    In one and two dimensions by quadrature in polar coordinates, to 1e-3, or five times the change with fewer angles,
    or five times the mass in the outermost sixth of the radius. In higher dimensions by importance sampling, to five
    standard errors. On compact manifolds radii end at the cut locus, where geodesics cease to be shortest. Volumes come
    from geoopt's ``inner``, which is rounding noise beyond scaled radius 14 of the hyperboloid: the tolerance includes
    five times the fraction of samples there. If it exceeds 0.2, or a fifth of a larger mass, the law warns that it was
    not checked. ``nodes`` can be shared with :func:`samples_follow_the_density`.
    """
    nodes = nodes or Nodes.of(distribution, resolution, seed)
    mass, deviation = nodes.integral(torch.ones_like(nodes.weights))
    error = 5 * deviation
    if math.isfinite(mass) and error > _INCONCLUSIVE * max(1.0, mass):
        not_checked("total_mass_is_one", f"the integral over {distribution} is known only to {error:.2g}")
        return
    if not abs(mass - 1) <= error < math.inf:
        raise LawViolation(
            "total_mass_is_one",
            "the integral of exp(log_prob) over Riemannian volume is 1",
            str(distribution),
            f"1, to {error:.2g}",
            f"{mass:.6g}",
            _mass_mistake(mass, error, nodes.dim, Space(distribution.support)),
        )


def samples_follow_the_density(
    distribution: dist.TorchDistribution,
    *,
    num_samples: int = 10_000,
    resolution: int = 200,
    seed: int = 0,
    nodes: "Nodes | None" = None,
) -> None:
    r"""Checks that ``sample`` and ``rsample`` follow the density; a correct one fails for one seed in fifty thousand.

    Compares the means of 24 random waves :math:`\cos(\omega \cdot v + \phi)` over the samples, in normal coordinates
    :math:`v = \log_c x` at their centre, with the integrals of the waves over the density. The statistic is
    the largest deviation in standard errors, with Bonferroni correction. (Pyro's nearest-neighbour test rejects a
    quarter of all correct densities at p = 0.01, because nearest neighbours come in pairs.)

    Warns if the integrals are too inaccurate to tell, as :func:`total_mass_is_one` does.
    """
    nodes = nodes or Nodes.of(distribution, resolution, seed)
    p_value, error = _goodness_of_fit(distribution, num_samples, nodes, seed)
    if not p_value > FAILURE_RATE:
        expected, found = number_texts(FAILURE_RATE, p_value)
        raise LawViolation(
            "samples_follow_the_density",
            f"{num_samples} samples follow exp(log_prob)",
            str(distribution),
            f"a p-value above {expected}",
            found,
            "unclear: sample and log_prob belong to different distributions; check log_prob with total_mass_is_one",
        )
    if 5 * error > _INCONCLUSIVE:
        why = f"integrals over {distribution} are known only to {5 * error:.2g}"
        not_checked("samples_follow_the_density", why)


def _goodness_of_fit(
    distribution: dist.TorchDistribution, num_samples: int, nodes: "Nodes", seed: int
) -> tuple[float, float]:
    """Returns the p-value and the error of the integrals behind it."""
    space, dim = Space(distribution.support), nodes.dim
    with seeded(seed), torch.no_grad():
        samples = [distribution.sample((num_samples,))]
        like: dict[str, Any] = {"dtype": samples[0].dtype, "device": samples[0].device}
        frequencies, phases = torch.randn(dim, 24, **like), 6.3 * torch.rand(24, **like)
        if distribution.has_rsample:
            samples.append(distribution.rsample((num_samples,)))
    coordinates = space.log_at(nodes.centre, samples[0])
    spread = _spread(coordinates)

    def waves(x: Tensor) -> Tensor:
        return ((space.log_at(nodes.centre, x) / spread) @ frequencies + phases).cos()

    observed, over_nodes, deviations = [waves(x) for x in samples], waves(nodes.x), []
    for j in range(24):
        expected, error = nodes.integral(over_nodes[:, j])
        for wave in observed:
            deviation = float(wave[:, j].var() / num_samples + error**2) ** 0.5
            deviations.append(abs(float(wave[:, j].mean()) - expected) / deviation)
    # One NaN among the samples makes all numbers NaN.
    p_value = min(1.0, len(deviations) * math.erfc(max(deviations) / 2**0.5)) if math.isfinite(sum(deviations)) else 0.0
    return p_value, nodes.integral(torch.ones_like(nodes.weights))[1]


def own_samples_score_as_stored_points(distribution: dist.TorchDistribution, *, seed: int = 0) -> None:
    """Checks ``log_prob(x) = log_prob(x.clone())`` for samples ``x``: with and without the cache."""
    with seeded(seed):
        x = distribution.rsample((20,)) if distribution.has_rsample else distribution.sample((20,))
    found, expected = distribution.log_prob(x).detach(), distribution.log_prob(x.detach().clone()).detach()
    space = Space(distribution.support)
    growth = float(space.scaled_radius(x).max().exp())
    point = x.detach().clone().requires_grad_()
    spread = 1 + float(gradient_of(distribution.log_prob(point).sum(), point).abs().max())
    bound = 2000 * torch.finfo(x.dtype).eps * growth * spread
    error = (found - expected).abs()
    wrong = ~((error <= bound * (1 + expected.abs())) & error.isfinite())
    if bool(wrong.any()):
        at = smallest(space.radius(x), wrong)
        raise LawViolation(
            "own_samples_score_as_stored_points",
            "log_prob(x) = log_prob(x.clone()) for x = rsample()",
            f"x = {event_text(space.flat(x), at)}",
            *number_texts(float(expected.reshape(-1)[at]), float(found.reshape(-1)[at])),
            "unclear: the cached path and the inverse disagree",
        )


def rsample_gradient_is_unbiased(
    distribution: dist.TorchDistribution, *, num_samples: int = 20_000, seed: int = 0
) -> None:
    r"""Checks :math:`\nabla_\theta E f(x)` from reparameterised samples against the score-function estimator.

    For a bounded smooth ``f`` and every leaf :math:`\theta` on which ``log_prob`` depends. The two must agree within
    5.5 standard errors of their difference, or more if many numbers are compared.
    """
    leaves = leaves_of(distribution.log_prob(distribution.sample()))
    if not distribution.has_rsample or not leaves:
        return
    space = Space(distribution.support)

    def f(x: Tensor) -> Tensor:
        v = space.features(x)
        weights = torch.linspace(0.5, 1.0, v.size(-1), dtype=v.dtype, device=v.device)
        return torch.tanh(v @ weights).reshape(len(x), -1).sum(-1)

    blocks = 50
    differences: list[list[Tensor]] = []
    with seeded(seed):
        for _ in range(blocks):
            x = distribution.rsample((num_samples // blocks,))
            mean = f(x).mean()
            pathwise = (
                torch.autograd.grad(mean, leaves, materialize_grads=True, retain_graph=True)
                if mean.requires_grad
                else [torch.zeros_like(leaf) for leaf in leaves]
            )
            point = x.detach().clone()
            value = f(point).detach()
            log_prob = distribution.log_prob(point).reshape(len(point), -1).sum(-1)
            score = torch.autograd.grad(
                ((value - value.mean()) * log_prob).mean() * len(point) / (len(point) - 1), leaves, retain_graph=True
            )
            differences.append([a - b for a, b in zip(pathwise, score, strict=True)])
    limit = max(5.5, _student_quantile(FAILURE_RATE / sum(leaf.numel() for leaf in leaves), blocks - 1))
    for i, leaf in enumerate(leaves):
        stacked = torch.stack([block[i] for block in differences]).detach()
        mean, deviation = stacked.mean(0), stacked.std(0) / blocks**0.5
        wrong = ~(mean.abs() <= limit * deviation + 1e-6)
        if bool(wrong.any()):
            raise LawViolation(
                "rsample_gradient_is_unbiased",
                "the gradient of E f(rsample()) equals the score-function gradient",
                f"the parameter of shape {tuple(leaf.shape)} of {distribution}",
                "a difference of zero",
                f"{float(mean[wrong].abs().max()):.3g}, {float((mean.abs() / deviation)[wrong].max()):.1f} errors",
                "a detached tensor, or sample and log_prob depend on a parameter in different ways",
            )


def normal_quantile(rate: float) -> float:
    """Returns the value that the absolute value of a standard normal exceeds at that rate."""
    return -float(torch.special.ndtri(torch.tensor(rate / 2, dtype=torch.float64)))


def _student_quantile(rate: float, degrees: int) -> float:
    """Returns the value that the absolute value of Student's t exceeds at that rate, to a thousandth.

    References:
        D. L. Wallace, *Bounds on Normal Approximations to Student's and the Chi-Square Distributions*, 1959.
    """
    z = normal_quantile(rate) * (8 * degrees + 3) / (8 * degrees + 1)
    return (degrees * math.expm1(z * z / degrees)) ** 0.5


class Nodes(NamedTuple):
    """Points and weights that turn integrals over a density into sums."""

    x: Tensor
    weights: Tensor
    centre: Tensor
    dim: int
    angles: int  # per ring; 0 for random points
    least_error: float

    def integral(self, values: Tensor) -> tuple[float, float]:
        """Returns the integral of ``values`` (at most 1) over the density, and its standard error."""
        terms = self.weights * values
        errors = [self.least_error, 2e-4]  # smooth densities converge spectrally; kinks of a flow leave about 1e-4
        if self.angles == 0:
            errors.append(float(terms.std()) * len(terms) ** 0.5)
        elif self.angles > 2:
            # Quarters of the angles disagree if there are modes too far out for the angles to resolve.
            quarters = 4 * terms.view(-1, self.angles // 4, 4).sum((0, 1))
            errors.append(float((quarters - terms.sum()).abs().max()))
        return float(terms.sum()), max(errors)

    @classmethod
    def of(cls, distribution: dist.TorchDistribution, resolution: int, seed: int = 0) -> "Nodes":
        """Builds nodes in polar coordinates about the centre of some samples, with volumes from geoopt's ``inner``.

        In one and two dimensions: Gauss-Legendre in the radius, trapezoids in the angle. Above: random directions, and
        radii from a wider distribution than that of the samples. They reach 1.5 times as far as the farthest sample:
        if the mass beyond r falls as 1 / r or faster, less than five times the mass of the outermost sixth is missed.
        """
        space = Space(distribution.support)
        with seeded(seed):
            samples = distribution.sample((2000,)).detach()
            dim = space.dim(samples)
            centre = space.point(space.state(space.centre(samples)).double()).detach()
            away = space.log_at(centre.to(samples), samples).detach().double()
            # Coordinates in units of the spread of the samples; a circle of directions must stay one.
            spread = _spread(away) if dim > 2 else away.new_ones(dim)
            away = (away / spread).norm(dim=-1)
            middle, reach = away.median(), 1.5 * away.max()
            if dim <= 2:
                # The cut locus of a torus has corners: twice the angles give its area to 1e-3, not 8e-3.
                finer = 1 if space.charted else 2
                radius, weights = _radii(float(middle), float(reach), resolution // finer, away)
                log_weights = weights.log()[:, None]
                number = 2 if dim == 1 else 4 * math.ceil(finer * resolution / 4)
                angles = 2 * math.pi * torch.arange(number, dtype=away.dtype, device=away.device) / number
                directions = torch.stack([angles.cos(), angles.sin()], dim=-1)[:, :dim]
                log_weights = log_weights + (math.log(2 * math.pi / number) if dim == 2 else 0.0)
                # Shrunk to end at the cut locus.
                shrunk = space.cut_distance(centre, directions, float(reach)) / reach
                radius, log_weights = radius[:, None] * shrunk, log_weights + shrunk.log()
            else:
                number = 0
                radius, log_density = _random_radii(dim, middle, reach, away)
                directions = torch.randn(20_000, dim, dtype=samples.dtype, device=samples.device).double()
                directions = (directions / directions.norm(dim=-1, keepdim=True))[:, None]
                log_area = math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
                log_weights = log_area - math.log(len(directions)) - log_density + spread.log().sum()
        v = (radius[..., None] * directions).reshape(-1, dim) * spread
        beyond_the_cut = space.beyond_the_cut(centre, v) if dim > 2 else torch.zeros_like(v[:, 0], dtype=torch.bool)
        x, log_volume, loss = space.log_volume(lambda v: space.exp_at(centre, v), v)
        # Where volumes are rounding noise, weights are 0, and the error includes the fraction of samples there.
        lost = ~(loss <= 1e-3 / torch.finfo(torch.float64).eps)
        x[lost] = centre
        x, radius = x.to(samples), radius.expand(-1, len(v) // len(radius)).reshape(-1)
        with torch.no_grad():
            log_density = torch.cat([distribution.log_prob(chunk) for chunk in x.split(40_000)])
        log_weights = log_weights.expand(-1, len(v) // len(log_weights)).reshape(-1) + (dim - 1) * radius.log()
        weights = (log_weights + log_volume + log_density).exp().masked_fill(lost | beyond_the_cut, 0.0)
        beyond = float((away > radius[lost].min()).double().mean()) if bool(lost.any()) else 0.0
        outermost = float(weights[radius > reach / 1.2].sum())
        return cls(x, weights, centre.to(samples), dim, number, outermost + beyond)


def _spread(v: Tensor) -> Tensor:
    """Returns the standard deviations of coordinates ``(N, n)``, from quantiles, which heavy tails have too."""
    low, high = v.quantile(torch.tensor([0.05, 0.95], dtype=v.dtype, device=v.device), dim=0)
    return (high - low) / 3.29


def _radii(middle: float, reach: float, resolution: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns nodes and weights on [0, reach]: Gauss-Legendre on panels, each as long as all before it together.

    A normal needs four. Heavy tails have most of their mass in a small part of their reach.
    """
    edges = [0.0, max(middle, 1e-9 * reach)]
    while edges[-1] < reach:
        edges.append(2 * edges[-1])
    edges[-1] = reach
    number = max(10, math.ceil(resolution / (len(edges) - 1)))
    nodes, weights = (like.new_tensor(each) for each in np.polynomial.legendre.leggauss(number))
    low, high = like.new_tensor(edges[:-1])[:, None], like.new_tensor(edges[1:])[:, None]
    return ((low + high) / 2 + (high - low) / 2 * nodes).reshape(-1), ((high - low) / 2 * weights).reshape(-1)


def _random_radii(dim: int, middle: Tensor, reach: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns 20,000 radii, shape ``(N, 1)``, and their log-density.

    Half come from a gamma distribution somewhat wider than the samples, half from one with Cauchy tails, so that
    weights are bounded for light and for heavy tails. Radii beyond ``reach`` get weight 0.
    """
    shape = torch.as_tensor(dim / 1.5, dtype=like.dtype, device=like.device)
    gamma = torch.distributions.Gamma(shape, shape / (1.3 * middle))
    inside = reach / (middle + reach)
    u = inside * torch.rand(10_000, 1, dtype=like.dtype, device=like.device)
    radius = torch.cat([gamma.sample((10_000, 1)), middle * u / (1 - u)])
    heavy = (middle / (middle + radius).square() / inside).log()
    log_density = torch.logaddexp(gamma.log_prob(radius), heavy) - math.log(2)
    return radius.clamp_max(reach), torch.where(radius > reach, torch.inf, log_density)


def _mass_mistake(mass: float, error: float, dim: int, space: Space) -> str:
    if not math.isfinite(mass) or mass <= 0:
        return "NaN or infinity in log_prob"
    if space.curvature is None:
        return "unclear: is the density normalised, and over the manifold, not over angles or other coordinates?"
    radius = space.length
    known = {
        "off by (n - 1) log R: a radius counted twice": (dim - 1) * math.log(radius),
        "off by n log R: units of the radius": dim * math.log(radius),
        "off by n/2 log 2 pi: the normal's constant": dim / 2 * math.log(2 * math.pi),
        "a constant factor: off by log 2": math.log(2),
        "a constant factor: off by n log 2": dim * math.log(2),
    }
    found = math.log(mass)
    near = {name for name, value in known.items() if abs(value) > 0 and abs(abs(found) - abs(value)) <= 3 * error}
    if len(near) == 1:
        return near.pop()
    return "unclear: " + ("; ".join(sorted(near)) or "not by a known constant; check log_prob, or log_abs_det_jacobian")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global generators, and restores their state afterwards."""
    state = pyro.util.get_rng_state()
    pyro.set_rng_seed(seed)
    try:
        yield
    finally:
        pyro.util.set_rng_state(state)
