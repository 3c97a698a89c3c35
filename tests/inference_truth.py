"""Posteriors on H^2 at k = 2 whose evidence, moments and ELBOs are known by quadrature: the truth of inference.

Nothing here is inference. A model is run once with its latents conditioned on a grid, and sums over the grid, weighted
by Riemannian volume, are the integrals; the densities that it sums are held to independent ones in test_accuracy and
test_laws.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from tests.cases import lorentz, point

G = ph.geometry
M = lorentz(2.0)
PRIOR_LOC, PRIOR_SCALE = point(2.0, 0.5, 0.3), torch.tensor([0.8, 1.1], dtype=torch.float64)
BEACON, SEEN_DISTANCE = point(2.0, 0.6, -0.4), torch.tensor(1.4, dtype=torch.float64)
SEEN_COORDINATES = torch.tensor([1.1, -0.7], dtype=torch.float64)


def coordinates_model(seen: Tensor = SEEN_COORDINATES) -> None:
    """A location whose coordinates at the origin are seen in noise: one mode, nearly normal."""
    z = pyro.sample("z", hdist.WrappedNormal(PRIOR_LOC, PRIOR_SCALE, M))
    pyro.sample("x", dist.Normal(G.log0(M, z), 0.3).to_event(1), obs=seen)


def distance_model() -> None:
    """A location whose distance to a beacon is seen in noise: a ring, weighted by the prior."""
    z = pyro.sample("z", hdist.WrappedNormal(PRIOR_LOC, PRIOR_SCALE, M))
    pyro.sample("x", dist.Normal(G.distance(M, z, BEACON), 0.3), obs=SEEN_DISTANCE)


def scale_model() -> None:
    """A hierarchy: the spread of the prior is a latent too."""
    s = pyro.sample("s", dist.LogNormal(torch.tensor(-0.3, dtype=torch.float64), 0.4))
    z = pyro.sample("z", hdist.WrappedNormal(PRIOR_LOC, s.unsqueeze(-1) * PRIOR_SCALE, M))
    pyro.sample("x", dist.Normal(G.log0(M, z), 0.5).to_event(1), obs=SEEN_COORDINATES)


#: A prior of three components: weights, locations, scales.
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
LOCS = torch.stack([point(2.0, 0.5, 0.3), point(2.0, 1.5, -1.2), point(2.0, -0.4, -0.9)])
SCALES = torch.tensor([[0.8, 1.1], [0.4, 0.4], [0.6, 0.9]], dtype=torch.float64)


def components_model() -> None:
    """A location near one of three, chosen by a discrete latent ``c``; its coordinates are seen in noise."""
    c = pyro.sample("c", dist.Categorical(WEIGHTS), infer={"enumerate": "parallel"})
    z = pyro.sample("z", hdist.WrappedNormal(LOCS[c], SCALES[c], M))
    pyro.sample("x", dist.Normal(G.log0(M, z), 0.3).to_event(1), obs=SEEN_COORDINATES)


def mixture_model() -> None:
    """The same without ``c``: a mixture of wrapped normals as the prior."""
    components = hdist.WrappedNormal(LOCS, SCALES, M)
    z = pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(WEIGHTS), components))
    pyro.sample("x", dist.Normal(G.log0(M, z), 0.3).to_event(1), obs=SEEN_COORDINATES)


@dataclass
class Posterior:
    """A model with its posterior on a grid.

    Attributes:
        model: The Pyro model; its latents are ``z`` on H^2 and, if ``log_s`` is given, ``s > 0``.
        centre: Where the grid in normal coordinates is centred.
        reach: Half the side of the grid, in units of distance.
        number: Points along each side.
        log_s: The grid of ``log s``.
    """

    model: Callable[[], None]
    centre: Tensor = field(default_factory=lambda: PRIOR_LOC)
    reach: float = 6.0
    number: int = 301
    log_s: Tensor | None = None

    @cached_property
    def grid(self) -> dict[str, Tensor]:
        """The values of the latents: z of shape (N, 3), s of shape (S, 1) before it."""
        side = torch.linspace(-self.reach, self.reach, self.number, dtype=torch.float64)
        values = {"z": G.translate(M, self.centre, G.exp0(M, torch.cartesian_prod(side, side)))}
        if self.log_s is not None:
            values["s"] = self.log_s.exp().unsqueeze(-1)
        return values

    @cached_property
    def log_measure(self) -> Tensor:
        """The log of the cells' Riemannian volume (times their width in s): the trapezoid rule, spectral here."""
        side = torch.linspace(-self.reach, self.reach, self.number, dtype=torch.float64)
        v = torch.cartesian_prod(side, side)
        r = v.norm(dim=-1).clamp_min(1e-12) / math.sqrt(2.0)  # k = 2; the book's sinh(r) / r, not the library's
        measure = (r.sinh() / r).log() + 2 * math.log(2 * self.reach / (self.number - 1))
        if self.log_s is not None:
            measure = measure + (self.log_s + math.log(float(self.log_s[1] - self.log_s[0]))).unsqueeze(-1)
        return measure

    @cached_property
    def log_joint(self) -> Tensor:
        """The log of the model's joint density on the grid, shape (N,) or (S, N)."""
        trace = pyro.poutine.trace(pyro.poutine.condition(self.model, self.grid)).get_trace()
        trace.compute_log_prob()
        return sum(site["log_prob"] for site in trace.nodes.values() if site["type"] == "sample")

    @cached_property
    def log_evidence(self) -> float:
        """The log of the marginal density of what is observed."""
        return float((self.log_joint + self.log_measure).flatten().logsumexp(0))

    def mean(self, f: Callable[..., Tensor]) -> Tensor:
        """The posterior mean of ``f(z=..., s=...)``, which may have one event dimension."""
        weight = (self.log_joint + self.log_measure).flatten().softmax(0).reshape(self.log_joint.shape)
        value = f(**self.grid)
        if value.dim() > 1 and value.shape[-2] == weight.shape[-1]:
            return (weight.unsqueeze(-1) * value).flatten(0, -2).sum(0)
        return (weight * value).sum()

    def elbo(self, log_q: Tensor) -> Tensor:
        r"""The exact :math:`\int q \log(p / q)` for log-densities of a guide on the grid; differentiable in it."""
        q = (log_q + self.log_measure).exp()
        return (q * (self.log_joint - log_q)).sum()


class MixturePosterior(Posterior):
    """The posterior of z under ``components_model``, by the sum over the components."""

    @cached_property
    def log_joint(self) -> Tensor:
        """The log of the sum of the joint densities with ``c = 0, 1, 2``."""
        parts = []
        for c in range(len(WEIGHTS)):
            data = {**self.grid, "c": torch.tensor(c)}
            trace = pyro.poutine.trace(pyro.poutine.condition(self.model, data)).get_trace()
            trace.compute_log_prob()
            parts.append(sum(site["log_prob"] for site in trace.nodes.values() if site["type"] == "sample"))
        return torch.stack(parts).logsumexp(0)


POSTERIORS = {
    "coordinates": Posterior(coordinates_model),
    "distance": Posterior(distance_model, reach=7.0, number=401),
    "components": MixturePosterior(components_model),
    "scale": Posterior(scale_model, reach=7.0, number=161, log_s=torch.linspace(-2.5, 2.0, 91, dtype=torch.float64)),
}


def moments(z: Tensor, **_: Tensor) -> Tensor:
    """Functions of z to compare means of: normal coordinates at the origin, their squares, distance to the beacon."""
    v = G.log0(M, z)
    return torch.cat([v, v.square(), G.distance(M, z, BEACON).unsqueeze(-1)], -1)
