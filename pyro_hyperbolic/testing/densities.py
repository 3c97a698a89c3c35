r"""Laws of distributions: mass one with respect to Riemannian volume, and samples that follow the density."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from geoopt.manifolds.base import Manifold
from torch import Tensor

from pyro_hyperbolic import charts, geometry

from .frames import frame, manifold_of, scaled_radius
from .violations import LawViolation, event_text

__all__ = [
    "goodness_of_fit",
    "own_samples_score_as_stored_points",
    "rsample_gradient_is_unbiased",
    "samples_follow_the_density",
    "total_mass",
    "total_mass_is_one",
]

#: How often a correct distribution may fail a random law.
FAILURE_RATE = 2e-5


def total_mass_is_one(distribution: dist.TorchDistribution, *, resolution: int = 200, seed: int = 0) -> None:
    r"""Checks :math:`\int p\, dvol = 1` with respect to Riemannian volume.

    By quadrature in polar coordinates in one and two dimensions, where the error is below 1e-3 or what fewer angles
    change, and by importance sampling above, where it is five standard errors. Where that exceeds 0.2 nothing is known,
    and the law passes.
    """
    manifold, dim = _space(distribution)
    mass, deviation = total_mass(distribution, resolution=resolution, seed=seed)
    error = 5 * deviation
    if error > 0.2:
        return  # the estimate says nothing: the density is too far from a cloud around its centre
    if not abs(mass - 1) <= error:
        raise LawViolation(
            "total_mass_is_one",
            "the integral of exp(log_prob) over Riemannian volume is 1",
            str(distribution),
            f"1, to {error:.2g}",
            f"{mass:.6g}",
            _mass_mistake(mass, error, dim, _radius(manifold)),
        )


def total_mass(distribution: dist.TorchDistribution, *, resolution: int = 400, seed: int = 0) -> tuple[float, float]:
    r"""Returns :math:`\int p\, dvol` and its error: quadrature in one and two dimensions, else importance sampling."""
    nodes = _Nodes.of(distribution, resolution, seed)
    return nodes.integral(torch.ones_like(nodes.weights))


def goodness_of_fit(distribution: dist.TorchDistribution, *, num_samples: int = 10_000, seed: int = 0) -> float:
    r"""Returns the p-value of the hypothesis that samples follow the density.

    The means of 24 random waves :math:`\cos(\omega \cdot v + \phi)` over samples, in normal coordinates
    :math:`v = \log_o T_c^{-1} x` at their centre, against the integrals of the waves over the density; the largest
    deviation in standard errors, with Bonferroni's correction. (Pyro's nearest-neighbour test rejects one correct
    density in four at p = 0.01, because nearest neighbours come in pairs.)
    """
    manifold, dim = _space(distribution)
    with _seeded(seed):
        samples = distribution.sample((num_samples,))
        like: dict[str, Any] = {"dtype": samples.dtype, "device": samples.device}
        frequencies, phases = torch.randn(dim, 24, **like), 6.3 * torch.rand(24, **like)
    nodes = _Nodes.of(distribution, 200, seed)
    coordinates = charts.to_normal_coordinates(manifold, samples, nodes.centre)
    spread = coordinates.std(0)

    def waves(x: Tensor) -> Tensor:
        v = charts.to_normal_coordinates(manifold, x, nodes.centre)
        return ((v / spread) @ frequencies + phases).cos()

    observed, over_nodes, worst = waves(samples), waves(nodes.x), 0.0
    for j in range(24):
        expected, error = nodes.integral(over_nodes[:, j])
        deviation = float(observed[:, j].var() / num_samples + error**2) ** 0.5
        worst = max(worst, abs(float(observed[:, j].mean()) - expected) / deviation)
    return min(1.0, 24 * math.erfc(worst / 2**0.5)) if math.isfinite(worst) else 0.0


def samples_follow_the_density(
    distribution: dist.TorchDistribution, *, num_samples: int = 10_000, seed: int = 0
) -> None:
    """Checks that samples follow the density; a correct one fails for one seed in fifty thousand."""
    p_value = goodness_of_fit(distribution, num_samples=num_samples, seed=seed)
    if not p_value > FAILURE_RATE:
        raise LawViolation(
            "samples_follow_the_density",
            f"{num_samples} samples follow exp(log_prob)",
            str(distribution),
            f"a p-value above {FAILURE_RATE:g}",
            f"{p_value:.2g}",
            "unclear: sample and log_prob are of two distributions; total_mass_is_one tells whether log_prob is of one",
        )


def own_samples_score_as_stored_points(distribution: dist.TorchDistribution, *, seed: int = 0) -> None:
    """Checks that a sample scored at once, from a cache, has the density that its stored coordinates have."""
    with _seeded(seed):
        x = distribution.rsample((20,)) if distribution.has_rsample else distribution.sample((20,))
    found, expected = distribution.log_prob(x).detach(), distribution.log_prob(x.detach().clone()).detach()
    manifold = manifold_of(distribution.support)
    growth = float(scaled_radius(manifold, x).max().exp())
    spread = 1 + float(_log_prob_gradient(distribution, x).abs().max())
    bound = 2000 * torch.finfo(x.dtype).eps * growth * spread
    wrong = ~((found - expected).abs() <= bound * (1 + expected.abs()))
    if bool(wrong.any()):
        at = int(wrong.reshape(-1).nonzero()[0])
        raise LawViolation(
            "own_samples_score_as_stored_points",
            "log_prob(x) = log_prob(x.clone()) for x = rsample()",
            f"x = {event_text(x, at)}",
            f"{expected.reshape(-1)[at]:.8g}",
            f"{found.reshape(-1)[at]:.8g}",
            "unclear: the cached path and the inverse disagree",
        )


def rsample_gradient_is_unbiased(
    distribution: dist.TorchDistribution, *, num_samples: int = 20_000, seed: int = 0
) -> None:
    r"""Checks :math:`\nabla_\theta E f(x)` by reparameterised samples against the score-function estimator.

    In every leaf :math:`\theta` that requires a gradient and on which ``log_prob`` depends, for a bounded smooth ``f``;
    the two agree within 5.5 standard errors of their difference. Without such leaves there is nothing to check.
    """
    leaves = _leaves(distribution.log_prob(distribution.sample()))
    if not distribution.has_rsample or not leaves:
        return
    manifold, dim = _space(distribution)
    weights = torch.linspace(0.5, 1.0, dim, dtype=leaves[0].dtype, device=leaves[0].device)

    def f(x: Tensor) -> Tensor:
        return torch.tanh(geometry.kernels(manifold).log0(manifold, x)[0] @ weights).reshape(len(x), -1).sum(-1)

    blocks = 50
    differences: list[list[Tensor]] = []
    with _seeded(seed):
        for _ in range(blocks):
            x = distribution.rsample((num_samples // blocks,))
            mean = f(x).mean()
            pathwise = (
                torch.autograd.grad(mean, leaves, allow_unused=True, retain_graph=True)
                if mean.requires_grad
                else [None] * len(leaves)
            )
            point = x.detach().clone()
            value = f(point).detach()
            log_prob = distribution.log_prob(point).reshape(len(point), -1).sum(-1)
            score = torch.autograd.grad(
                ((value - value.mean()) * log_prob).mean() * len(point) / (len(point) - 1), leaves, retain_graph=True
            )
            differences.append([-b if a is None else a - b for a, b in zip(pathwise, score, strict=True)])
    for i, leaf in enumerate(leaves):
        stacked = torch.stack([block[i] for block in differences]).detach()
        mean, deviation = stacked.mean(0), stacked.std(0) / blocks**0.5
        wrong = mean.abs() > 5.5 * deviation + 1e-6
        if bool(wrong.any()):
            raise LawViolation(
                "rsample_gradient_is_unbiased",
                "the gradient of E f(rsample()) is that of the score function",
                f"the parameter of shape {tuple(leaf.shape)} of {distribution}",
                "a difference of zero",
                f"{float(mean[wrong].abs().max()):.3g}, {float((mean.abs() / deviation)[wrong].max()):.1f} errors",
                "a detached tensor, or sample and log_prob depend on a parameter in different ways",
            )


def _flat(manifold: Manifold) -> bool:
    return "k" not in geometry.kernels(manifold).parameters(manifold)


def _gauss_legendre(number: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns nodes and weights on [-1, 1], eigenvalues of the Jacobi matrix (Golub and Welsch, 1969)."""
    i = torch.arange(1, number, dtype=torch.float64)
    off = i / (4 * i * i - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes.to(like), (2 * vectors[0] ** 2).to(like)


class _Nodes(NamedTuple):
    """Points and weights with which integrals over a density become sums."""

    x: Tensor
    weights: Tensor
    centre: Tensor
    angles: int  # on each ring; 0 for random points

    def integral(self, values: Tensor) -> tuple[float, float]:
        """Returns the integral of ``values`` over the density, and its standard error."""
        terms = self.weights * values
        if self.angles == 0:
            error = float(terms.std()) * len(terms) ** 0.5
        elif self.angles == 2:
            error = 0.0
        else:
            # What each quarter of the angles says: nothing else tells of modes too far out for the angles to find.
            quarters = 4 * terms.view(-1, self.angles // 4, 4).sum((0, 1))
            error = float((quarters - terms.sum()).abs().max())
        # Spectrally accurate for a smooth density; a flow's kinks leave some 1e-4.
        return float(terms.sum()), max(error, 2e-4)

    @classmethod
    def of(cls, distribution: dist.TorchDistribution, resolution: int, seed: int) -> "_Nodes":
        """Builds them in polar coordinates about the centre of some samples, with the textbook volume element.

        In one and two dimensions Gauss-Legendre in the radius and trapezoids in the angle, out to 1.5 times the
        farthest sample; above, random directions, and radii from a gamma law somewhat wider than the samples' own.
        """
        manifold, dim = _space(distribution)
        with _seeded(seed):
            samples = distribution.sample((2000,))
            centre = geometry.exp0(manifold, geometry.log0(manifold, samples).mean(0))
            away = geometry.distance(manifold, centre, samples)
            if dim <= 2:
                nodes, weights = _gauss_legendre(resolution, samples)
                reach = 1.5 * away.max()
                radius = (reach * (nodes + 1) / 2)[:, None]
                log_weights = (weights * reach / 2).log()[:, None]
                number = 2 if dim == 1 else 4 * math.ceil(resolution / 4)
                angles = 2 * math.pi * torch.arange(number, dtype=samples.dtype, device=samples.device) / number
                directions = torch.stack([angles.cos(), angles.sin()], dim=-1)[:, :dim]
                log_weights = log_weights + (math.log(2 * math.pi / number) if dim == 2 else 0.0)
            else:
                number = 0
                shape = torch.as_tensor(dim / 1.5, dtype=samples.dtype, device=samples.device)
                proposal = torch.distributions.Gamma(shape, shape / (1.3 * away.mean()))
                radius = proposal.sample((20_000, 1))
                directions = torch.randn(20_000, dim, dtype=samples.dtype, device=samples.device)
                directions = directions / directions.norm(dim=-1, keepdim=True)
                log_area = math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
                log_weights = log_area - proposal.log_prob(radius) - math.log(20_000)
        # dvol = (R sinh(rho / R))^(n-1) d rho d Omega, and cosh(rho / R) c + R sinh(rho / R) E u is the point.
        tangent = directions @ frame(manifold, centre).mT
        tangent = tangent if dim <= 2 else tangent[:, None]
        if _flat(manifold):
            circle, x = radius, centre + radius[..., None] * tangent
        else:
            unit = manifold.k.detach().to(samples.dtype).sqrt()
            circle = unit * (radius / unit).sinh()
            moved = (radius / unit).cosh()[..., None] * centre + circle[..., None] * tangent
            time = (unit**2 + moved[..., 1:].square().sum(-1, keepdim=True)).sqrt()
            x = torch.cat([time, moved[..., 1:]], dim=-1)
        log_weights = (log_weights + (dim - 1) * circle.log()).expand(x.shape[:-1]).reshape(-1)
        x = x.reshape(-1, x.size(-1))
        with torch.no_grad():
            log_density = torch.cat([distribution.log_prob(chunk) for chunk in x.split(40_000)])
        return cls(x, (log_weights + log_density).exp(), centre, number)


def _space(distribution: dist.TorchDistribution) -> tuple[Manifold, int]:
    manifold = manifold_of(distribution.support)
    return manifold, geometry.kernels(manifold).dim(distribution.event_shape[-1])


def _radius(manifold: Manifold) -> float:
    return 1.0 if _flat(manifold) else float(manifold.k.detach().sqrt().max())


def _mass_mistake(mass: float, error: float, dim: int, radius: float) -> str:
    if not math.isfinite(mass) or mass <= 0:
        return "NaN or infinity in log_prob"
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
    return "unclear: " + ("; ".join(sorted(near)) or "not by a known constant; check log_abs_det_jacobian")


def _log_prob_gradient(distribution: dist.TorchDistribution, x: Tensor) -> Tensor:
    point = x.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(distribution.log_prob(point).sum(), point)
    return gradient


def _leaves(output: Tensor) -> list[Tensor]:
    """Returns the leaves that require a gradient and on which ``output`` depends."""
    stack, seen, leaves = [output.grad_fn], set(), []
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        stack.extend(parent for parent, _ in node.next_functions)
    return leaves


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draws with a seed of its own, and leaves the global generators as they were."""
    state = pyro.util.get_rng_state()
    pyro.set_rng_seed(seed)
    try:
        yield
    finally:
        pyro.util.set_rng_state(state)
