"""Posteriors on H^2 at k = 2 whose evidence, moments and ELBOs are known by quadrature: the truth of inference.

Nothing here is inference. The log-joint density of a model is summed over a grid, weighted by Riemannian volume. The
densities themselves are compared with independent ones in test_accuracy and test_laws.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
from tests.cases import lorentz, point

Model = Callable[..., object]

G = ph.geometry
M = lorentz(2.0)
PRIOR_LOC, PRIOR_SCALE = point(2.0, 0.5, 0.3), torch.tensor([0.8, 1.1], dtype=torch.float64)
FAR_LOC = point(2.0, 2.5, 1.5)
BEACON, SEEN_DISTANCE = point(2.0, 0.6, -0.4), torch.tensor(1.4, dtype=torch.float64)
SEEN_COORDINATES = torch.tensor([1.1, -0.7], dtype=torch.float64)
POINTS = torch.stack([point(2.0, 1.0, 0.2), point(2.0, -0.5, 0.4), point(2.0, 0.3, -1.0)])


def wrapped_prior() -> hdist.WrappedNormal:
    return hdist.WrappedNormal(PRIOR_LOC, PRIOR_SCALE, M)


def coordinates_model(seen: Tensor = SEEN_COORDINATES) -> None:
    """A location whose coordinates at the origin are seen in noise: one mode, nearly normal."""
    z = pyro.sample("z", wrapped_prior())
    pyro.sample("x", dist.Normal(G.log0(M, z), 0.3).to_event(1), obs=seen)


def distance_model() -> None:
    """A location whose distance to a beacon is seen in noise: a ring, weighted by the prior."""
    z = pyro.sample("z", wrapped_prior())
    pyro.sample("x", dist.Normal(G.distance(M, z, BEACON), 0.3), obs=SEEN_DISTANCE)


def far_model() -> None:
    """A wide posterior far from the origin, where the chart stretches volume by 1.9: its log-determinant is seen."""
    z = pyro.sample("z", hdist.WrappedNormal(FAR_LOC, PRIOR_SCALE, M))
    pyro.sample("x", dist.Normal(G.distance(M, z, BEACON), 0.8), obs=torch.tensor(3.0, dtype=torch.float64))


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


def wide_guide() -> None:
    """A proposal that covers the posterior of coordinates_model, elsewhere than the prior."""
    pyro.sample("z", hdist.WrappedNormal(point(2.0, 1.0, -0.5), torch.tensor([0.45, 0.5]), M))


def log_joint(model: Model, **latents: Tensor) -> Tensor:
    """The log-joint density of a model at a batch of values of its latents."""
    trace = poutine.trace(poutine.condition(model, latents)).get_trace()
    trace.compute_log_prob()
    return sum(site["log_prob"] for site in trace.nodes.values() if site["type"] == "sample")


def log_stretch(v: Tensor) -> Tensor:
    """The textbook's log sinh(r) / r, between Lebesgue measure in the chart and Riemannian volume, n = 2 and k = 2."""
    r = v.norm(dim=-1).clamp_min(1e-12) / math.sqrt(2.0)
    return (r.sinh() / r).log()


@dataclass
class Posterior:
    """A model with its posterior on a grid.

    Attributes:
        model: The Pyro model; its latents are ``z`` on H^2 and, if ``log_s`` is given, ``s > 0``.
        components: The values of a discrete latent ``c``, which is summed out; none by default.
        centre: Where the grid in normal coordinates is centred.
        reach: Half the side of the grid, in units of distance.
        number: Points along each side.
        log_s: The grid of ``log s``.
    """

    model: Model
    components: int = 0
    centre: Tensor = field(default_factory=lambda: PRIOR_LOC)
    reach: float = 6.0
    number: int = 121
    log_s: Tensor | None = None

    @cached_property
    def _chart(self) -> Tensor:
        side = torch.linspace(-self.reach, self.reach, self.number, dtype=torch.float64)
        return torch.cartesian_prod(side, side)

    @cached_property
    def grid(self) -> dict[str, Tensor]:
        """The values of the latents: z of shape (N, 3), s of shape (S, 1) before it."""
        z = {"z": G.translate(M, self.centre, G.exp0(M, self._chart))}
        return z if self.log_s is None else {**z, "s": self.log_s.exp().unsqueeze(-1)}

    @cached_property
    def log_measure(self) -> Tensor:
        """The log of the cells' Riemannian volume (times their width in s): the trapezoid rule, spectral here."""
        measure = log_stretch(self._chart) + 2 * math.log(2 * self.reach / (self.number - 1))
        if self.log_s is None:
            return measure
        return measure + (self.log_s + (self.log_s[1] - self.log_s[0]).log()).unsqueeze(-1)

    @cached_property
    def log_joint(self) -> Tensor:
        """The log of the model's joint density on the grid, shape (N,) or (S, N)."""
        if not self.components:
            return log_joint(self.model, **self.grid)
        parts = [log_joint(self.model, c=torch.tensor(c), **self.grid) for c in range(self.components)]
        return torch.stack(parts).logsumexp(0)

    @cached_property
    def log_evidence(self) -> float:
        """The log of the marginal density of what is observed."""
        return float((self.log_joint + self.log_measure).flatten().logsumexp(0))

    def mean(self, f: Callable[..., Tensor]) -> Tensor:
        """The posterior mean of a function ``f(z=..., s=...)`` of shape (N, d)."""
        weight = (self.log_joint + self.log_measure - self.log_evidence).exp()
        return weight.reshape(-1, len(self._chart)).sum(0) @ f(**self.grid)

    def elbo(self, log_q: Tensor) -> Tensor:
        r"""The exact :math:`\int q \log(p / q)` for log-densities of a guide on the grid; differentiable in it."""
        q = (log_q + self.log_measure).exp()
        return (q * (self.log_joint - log_q)).sum()


POSTERIORS = {
    "coordinates": Posterior(coordinates_model),
    "distance": Posterior(distance_model, reach=7.0, number=161),
    "far": Posterior(far_model, centre=FAR_LOC),
    "components": Posterior(components_model, components=3),
    "scale": Posterior(scale_model, reach=7.0, log_s=torch.linspace(-2.0, 1.8, 39, dtype=torch.float64)),
}


def moments(z: Tensor, **_: Tensor) -> Tensor:
    """Functions of z to compare means of: normal coordinates at the origin, their squares, distance to the beacon."""
    v = G.log0(M, z)
    return torch.cat([v, v.square(), G.distance(M, z, BEACON).unsqueeze(-1)], -1)
