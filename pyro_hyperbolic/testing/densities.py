r"""Laws of distributions: mass one with respect to Riemannian volume, and samples that follow the density."""

import math

import pyro.distributions as dist
import torch
from geoopt.manifolds.base import Manifold
from pyro.distributions.testing.gof import auto_goodness_of_fit
from torch import Tensor

from pyro_hyperbolic import geometry

from .frames import frame, manifold_of

__all__ = ["goodness_of_fit", "samples_follow_the_density", "total_mass", "total_mass_is_one"]


def total_mass(distribution: dist.TorchDistribution, *, resolution: int = 400) -> float:
    r"""Returns :math:`\int p\, dvol` of an unbatched density on H^1, H^2, R^1 or R^2, by quadrature.

    In polar coordinates about the centre of some samples, :math:`dvol = R \sinh(\rho / R)\, d\rho\, d\theta`:
    Gauss-Legendre in the radius, trapezoids in the angle (spectrally accurate on a circle), out to 1.5 times the
    farthest sample.
    """
    manifold = manifold_of(distribution.support)
    samples = distribution.sample((2000,))
    centre, reach = _centre_and_reach(manifold, samples)
    nodes, weights = _gauss_legendre(resolution, samples)
    radius = reach * (nodes + 1) / 2
    weights = weights * reach / 2
    if geometry.kernels(manifold).dim(samples.size(-1)) == 1:
        angles = samples.new_tensor([0.0, math.pi])
        weights = weights[:, None] * samples.new_ones(2)
    else:
        angles = 2 * math.pi * torch.arange(resolution, dtype=samples.dtype) / resolution
        circle = radius if _flat(manifold) else _r(manifold, samples) * (radius / _r(manifold, samples)).sinh()
        weights = (weights * circle)[:, None] * samples.new_full((resolution,), 2 * math.pi / resolution)
    directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
    directions = directions[:, :1] if weights.size(-1) == 2 else directions
    x = _geodesics(manifold, centre, radius, directions)
    with torch.no_grad():
        density = torch.cat([distribution.log_prob(chunk) for chunk in x.reshape(-1, x.size(-1)).split(40_000)]).exp()
    return float((density.reshape(weights.shape) * weights).sum())


def total_mass_is_one(distribution: dist.TorchDistribution, *, tolerance: float = 1e-4, resolution: int = 400) -> None:
    r"""Checks :math:`\int p\, dvol = 1` with respect to Riemannian volume, in one or two dimensions."""
    mass = total_mass(distribution, resolution=resolution)
    if not abs(mass - 1) <= tolerance:
        raise AssertionError(
            f"total_mass_is_one: the density of {distribution} integrates to {mass:.6f} with respect to Riemannian "
            f"volume, off by {mass - 1:.3g} where {tolerance:g} is quadrature."
        )


def goodness_of_fit(distribution: dist.TorchDistribution, *, num_samples: int = 20_000) -> float:
    r"""Returns the p-value of a nearest-neighbour test of samples against the density, in normal coordinates.

    With :math:`v = \log_o T_c^{-1} x` at the centre ``c`` of the samples, the density with respect to Lebesgue measure
    ``dv`` is :math:`p(x)\, |\det d\exp_o|_v`. (In ambient or Poincaré coordinates balls are distorted, and the test
    rejects correct densities.)
    """
    manifold = manifold_of(distribution.support)
    samples = distribution.sample((num_samples,))
    centre, _ = _centre_and_reach(manifold, samples)
    v = geometry.log0(manifold, geometry.translate(manifold, centre, samples, inverse=True))
    with torch.no_grad():
        log_density = distribution.log_prob(samples.clone()) + geometry.log_volume(manifold, v)
    spread = v.std(0)  # nearest neighbours are sought in balls: make the cloud round
    return float(auto_goodness_of_fit(v / spread, (log_density + spread.log().sum()).exp()))


def samples_follow_the_density(
    distribution: dist.TorchDistribution, *, num_samples: int = 20_000, failure_rate: float = 2e-5
) -> None:
    """Checks that samples follow the density; a correct one fails with probability ``failure_rate``."""
    p_value = goodness_of_fit(distribution, num_samples=num_samples)
    if not p_value > failure_rate:
        raise AssertionError(
            f"samples_follow_the_density: {num_samples} samples of {distribution} do not follow its density, "
            f"p = {p_value:.2g} where {failure_rate:g} is chance."
        )


def _flat(manifold: Manifold) -> bool:
    return "k" not in geometry.kernels(manifold).parameters(manifold)


def _r(manifold: Manifold, like: Tensor) -> Tensor:
    return manifold.k.detach().to(like.dtype).sqrt()


def _centre_and_reach(manifold: Manifold, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Returns roughly the middle of the samples and 1.5 times the distance of the farthest."""
    centre = geometry.exp0(manifold, geometry.log0(manifold, samples).mean(0))
    return centre, 1.5 * geometry.distance(manifold, centre, samples).max()


def _geodesics(manifold: Manifold, centre: Tensor, radius: Tensor, directions: Tensor) -> Tensor:
    """Returns the points ``cosh(rho/R) c + R sinh(rho/R) E u``, shape (radii, directions, n + 1): textbook formula."""
    tangent = directions @ frame(manifold, centre).mT
    if _flat(manifold):
        return centre + radius[:, None, None] * tangent
    r = (radius / _r(manifold, centre))[:, None, None]
    x = r.cosh() * centre + _r(manifold, centre) * r.sinh() * tangent
    space = x[..., 1:]
    time = (manifold.k.detach().to(x.dtype) + (space * space).sum(-1, keepdim=True)).sqrt()
    return torch.cat([time, space], dim=-1)


def _gauss_legendre(number: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns nodes and weights on [-1, 1], eigenvalues of the Jacobi matrix (Golub and Welsch, 1969)."""
    i = torch.arange(1, number, dtype=torch.float64)
    off = i / (4 * i * i - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes.to(like), (2 * vectors[0] ** 2).to(like)
