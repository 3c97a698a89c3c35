"""Latents on manifolds without a global chart, in the inference matrix: S^2, T^2, SO(3), and H^2 x S^2.

Truths are sums over grids, as in inference_truth. Volumes are written out here: Gauss-Legendre in the height on the
sphere and in the cosine of the middle Euler angle of rotations, the trapezoid rule in angles.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import geoopt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import infer, poutine
from pyro.infer import HMC, NUTS
from pyro.infer import autoguide as AG
from torch import Tensor

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from tests.pyro.inference_cell import Section
from tests.pyro.inference_checks import (
    STANDARD_ERRORS,
    chain,
    copies,
    fitted,
    importance_weights,
    mean_is,
    posterior_is,
)
from tests.pyro.inference_samplers import JIT, stein_particles
from tests.pyro.inference_truth import PRIOR_LOC, PRIOR_SCALE, G, M, Model, Posterior, log_joint

COMPACT = Section("Compact manifolds")
SPHERE, TORUS, ROTATIONS = geoopt.Sphere(), ph.manifolds.Torus(2), ph.manifolds.Rotations()
MIXED = geoopt.ProductManifold((M, 3), (SPHERE, 3))
NEAR_THE_CUT = torch.tensor([3.0, -2.8], dtype=torch.float64)  # angles
SEEN_FRAME = torch.tensor([[0.2, 0.9], [-0.7, 0.1], [0.8, -0.6]], dtype=torch.float64)
SEEN_BOTH = torch.tensor([1.4, -0.2], dtype=torch.float64)


def sphere_model(k: float = 20.0) -> None:
    """A direction, seen in noise: the posterior is von Mises-Fisher with concentration k, and a known mean."""
    z = pyro.sample("z", hdist.Uniform(SPHERE, 2))
    seen = 0.16 * k * torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64)
    pyro.sample("x", dist.Normal(z, 0.4).to_event(1), obs=seen)


def torus_model() -> None:
    """Two angles: the first and the sum are seen in noise, near where angles jump from pi to -pi."""
    z = pyro.sample("z", hdist.Uniform(TORUS))
    angles = torch.stack([z[..., 0], z[..., 0] + z[..., 1]], -1)
    directions = torch.cat([angles.cos(), angles.sin()], -1)
    pyro.sample("x", dist.Normal(directions, 0.4).to_event(1), obs=torch.cat([NEAR_THE_CUT.cos(), NEAR_THE_CUT.sin()]))


def rotation_model() -> None:
    """A rotation: two of its columns are seen in noise."""
    z = pyro.sample("z", hdist.Uniform(ROTATIONS))
    pyro.sample("x", dist.Normal(z[..., :2], 0.4).to_event(2), obs=SEEN_FRAME)


def mixed_model() -> None:
    """A point of H^2 and a direction, of which only a sum is seen, and the direction once more."""
    prior = hdist.ProductDistribution(MIXED, [hdist.WrappedNormal(PRIOR_LOC, PRIOR_SCALE, M), hdist.Uniform(SPHERE, 2)])
    z = pyro.sample("z", prior)
    place, direction = z[..., :3], z[..., 3:]
    pyro.sample("x", dist.Normal(G.log0(M, place) + direction[..., :2], 0.6).to_event(1), obs=SEEN_BOTH)
    pyro.sample("y", dist.Normal(direction, 0.5).to_event(1), obs=torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64))


def legendre(number: int) -> tuple[Tensor, Tensor]:
    """Nodes in [-1, 1], and the logarithms of their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(number)
    return torch.tensor(nodes), torch.tensor(weights).log()


def angles(number: int) -> Tensor:
    return torch.arange(number, dtype=torch.float64) * 2 * math.pi / number - math.pi


def sphere_grid(number: int = 20) -> tuple[Tensor, Tensor]:
    height, log_weight = legendre(number)
    height, longitude = torch.meshgrid(height, angles(2 * number), indexing="ij")
    radius = (1 - height**2).sqrt()
    z = torch.stack([radius * longitude.cos(), radius * longitude.sin(), height], -1)
    log_measure = log_weight.unsqueeze(-1) + math.log(math.pi / number)
    return z.flatten(0, 1), log_measure.expand(number, 2 * number).flatten()


def torus_grid(number: int = 48) -> tuple[Tensor, Tensor]:
    z = torch.cartesian_prod(angles(number), angles(number))
    return z, torch.full((len(z),), 2 * math.log(2 * math.pi / number))


def rotation_grid(number: int = 14) -> tuple[Tensor, Tensor]:
    """Euler angles: the volume is that of lengths that are angles of rotation, 8 pi^2 in all."""
    cosine, log_weight = legendre(number)
    cosine, a, b = torch.meshgrid(cosine, angles(2 * number), angles(2 * number), indexing="ij")
    z = turn(a, 2) @ turn(cosine.acos(), 1) @ turn(b, 2)
    log_measure = log_weight[:, None, None] + 2 * math.log(math.pi / number)
    return z.flatten(0, 2), log_measure.expand(a.shape).flatten()


def turn(angle: Tensor, axis: int) -> Tensor:
    """The rotation about a coordinate axis."""
    generator = torch.linalg.cross(torch.eye(3), torch.eye(3)[axis].expand(3, 3))
    return torch.linalg.matrix_exp(angle[..., None, None] * generator.mT)


def mixed_grid() -> tuple[Tensor, Tensor]:
    plane, (direction, log_measure) = Posterior(mixed_model, reach=4.0, number=31), sphere_grid(7)
    pairs = torch.cartesian_prod(torch.arange(31**2), torch.arange(len(direction)))
    z = torch.cat([plane.grid["z"][pairs[:, 0]], direction[pairs[:, 1]]], -1)
    return z, plane.log_measure[pairs[:, 0]] + log_measure[pairs[:, 1]]


@dataclass
class Truth:
    """A posterior of ``z`` on a grid, as inference_truth.Posterior."""

    model: Model
    manifold: geoopt.manifolds.base.Manifold
    make_grid: Callable[[], tuple[Tensor, Tensor]]
    #: How many vectors are one point.
    sheets: int = 1

    @cached_property
    def grid(self) -> tuple[Tensor, Tensor]:
        return self.make_grid()

    @cached_property
    def log_mass(self) -> Tensor:
        z, log_measure = self.grid
        return log_joint(self.model, z=z) + log_measure

    @cached_property
    def log_evidence(self) -> float:
        return float(self.log_mass.logsumexp(0))

    def moments(self, z: Tensor) -> Tensor:
        """Coordinates of R^q, their squares, and products of neighbours."""
        m = G.complete(self.manifold).features(z)
        return torch.cat([m, m.square(), m[..., 1:] * m[..., :-1]], -1)

    @cached_property
    def mean(self) -> Tensor:
        return self.log_mass.softmax(0) @ self.moments(self.grid[0])

    def lifted(self, wrap: Callable[[Model], Model] = lambda model: model) -> Model:
        return poutine.reparam(wrap(self.model), config={"z": ph.infer.LiftReparam()})


TRUTHS = {
    "S^2": Truth(sphere_model, SPHERE, sphere_grid),
    "T^2": Truth(torus_model, TORUS, torus_grid),
    "SO(3)": Truth(rotation_model, ROTATIONS, rotation_grid, sheets=2),
    "H^2 x S^2": Truth(mixed_model, MIXED, mixed_grid),
}


def samples_by(name: str, kernel: Callable[..., object], number: int, draws: int = 10) -> None:
    """One chain over many copies, as in inference_samplers."""
    truth = TRUTHS[name]
    model = truth.lifted(partial(copies, number=number))
    z = infer.Predictive(model, chain(kernel(model), draws, 20), return_sites=["z"])()["z"]
    mean_is(truth.moments(z).mean(0), truth.mean)


def divergence_by(name: str, make: Callable[[Model], Model], bound: float) -> None:
    """The Kullback-Leibler divergence from the posterior is what an ELBO lacks of the evidence: small, not negative.

    Of q and -q, which are one rotation, a guide covers one, which halves the evidence that it can reach.
    """
    truth = TRUTHS[name]
    model = truth.lifted()
    log_weights = importance_weights(model, fitted(model, make(model), 150, 0.1), 2000)[0]
    divergence = truth.log_evidence - math.log(truth.sheets) - log_weights
    assert divergence.mean() > -STANDARD_ERRORS * divergence.std() / len(divergence) ** 0.5
    assert divergence.mean() < bound, f"divergence {divergence.mean():.3f}"


def modes_by_the_book() -> dict[str, Tensor]:
    u, _, vh = torch.linalg.svd(SEEN_FRAME, full_matrices=False)
    columns = u @ vh
    frame = torch.cat([columns, torch.linalg.cross(columns[:, :1], columns[:, 1:], dim=0)], -1)
    first, both = NEAR_THE_CUT
    return {
        "S^2": torch.tensor([0.6, 0.0, -0.8]),
        "T^2": torch.stack([first, both - first + 2 * math.pi]),
        "SO(3)": frame,
    }


def finds_modes(lift: bool) -> None:
    for name, mode in modes_by_the_book().items():
        pyro.clear_param_store()
        model = TRUTHS[name].lifted() if lift else TRUTHS[name].model
        guide = fitted(model, AG.AutoDelta(model), 160, 0.2, particles=1)
        z = infer.Predictive(model, guide=guide, num_samples=1, return_sites=["z"])()["z"][0]
        away = G.distance(TRUTHS[name].manifold, z.detach(), mode)
        assert away < 0.02, f"{name}: {away:.3f} from the mode"


def flow_guide() -> None:
    flow = HT.continuous_flow(2, SPHERE, num_anchors=8, hidden_dims=[16], steps=4)

    def guide() -> None:
        pyro.module("flow", flow)
        pyro.sample("z", dist.TransformedDistribution(hdist.Uniform(SPHERE, 2), [flow]))

    truth = TRUTHS["S^2"]
    log_weights, trace = importance_weights(truth.model, fitted(truth.model, guide, 150, 0.05, particles=32))
    posterior_is(log_weights, trace.nodes["z"]["value"], truth.log_evidence, truth.mean, 0.5, truth.moments)


def needs_a_lift() -> None:
    """Each error names the remedy, also for a product with one factor that has no chart."""
    guides = (
        AG.AutoNormal,
        AG.AutoDiagonalNormal,
        AG.AutoMultivariateNormal,
        AG.AutoLaplaceApproximation,
        AG.AutoStructured,
        AG.AutoGaussian,
        AG.AutoNormalMessenger,
        ph.infer.AutoWrappedNormal,
        ph.infer.AutoWrappedMultivariateNormal,
    )
    for truth, make in itertools.product((TRUTHS["S^2"], TRUTHS["H^2 x S^2"]), guides):
        with pytest.raises(TypeError, match="LiftReparam"):
            make(truth.model)()
    for kernel in (NUTS, HMC):
        with pytest.raises(TypeError, match="LiftReparam"):
            chain(kernel(sphere_model), 3, 3)
    with pytest.raises(TypeError, match="LiftReparam"):
        stein_particles(sphere_model, infer.RBFSteinKernel(), 1)


def averages_to_the_truth(number: int = 300) -> None:
    """Calibration: a posterior draw and the truth have one joint law with the data. The spread of noise is latent."""

    def model(x: Tensor | None = None) -> Tensor:
        with pyro.plate("data sets", number):
            s = pyro.sample("s", dist.LogNormal(-0.7, 0.3))
            z = pyro.sample("z", hdist.Uniform(SPHERE, 2))
            return pyro.sample("x", dist.Normal(z, s.unsqueeze(-1)).to_event(1), obs=x)

    model = poutine.reparam(model, config=lambda site: ph.infer.LiftReparam())
    sites = poutine.trace(model).get_trace().nodes
    seen, truth = sites["x"]["value"], sites["z"]["value"]
    start = AG.init_to_value(values={name: sites[name]["value"] for name in ("s", "z", "z_lift")})
    samples = chain(NUTS(model, init_strategy=start, **JIT), 10, 15, seen)
    z = infer.Predictive(model, samples, return_sites=["z"])(seen)["z"]
    mean_is((z.square() - truth.square()).mean(0), 0.0)
    mean_is(((z - truth) * seen).mean(0), 0.0)


for name, copied in {"S^2": 300, "T^2": 200, "SO(3)": 200, "H^2 x S^2": 150}.items():
    truth = "moments by quadrature"
    slow = name == "H^2 x S^2"
    COMPACT.add(f"`LiftReparam`, `NUTS`, {name}", truth, samples_by, name, partial(NUTS, **JIT), copied, slow=slow)
COMPACT.note("The factor H^2 is sampled in its chart.")
CALIBRATED = "calibration: posteriors are like the truths"
COMPACT.add("`LiftReparam`, `NUTS`, a hierarchy on S^2", CALIBRATED, averages_to_the_truth, slow=True)
for name, bound in {"S^2": 0.3, "T^2": 1.2, "SO(3)": 0.5, "H^2 x S^2": 0.5}.items():
    truth = "Kullback-Leibler divergence, from the evidence by quadrature"
    COMPACT.add(f"`LiftReparam`, `AutoNormal`, {name}", truth, divergence_by, name, AG.AutoNormal, bound)
    COMPACT.note(f"It is below {bound}.")
COMPACT.add("`AutoDelta`", "the mode in closed form", finds_modes, False)
COMPACT.note("`transform_to` projects onto the manifold; any optimiser of Pyro works.")
COMPACT.add("`LiftReparam`, `AutoDelta`", "the mode in closed form", finds_modes, True)
WITHOUT = "`NUTS`, `HMC`, `SVGD`, other autoguides, without `LiftReparam`"
COMPACT.add(WITHOUT, "the message", needs_a_lift, status="refused")
COMPACT.note("No bijection from R^n exists: use `LiftReparam`, or write a guide.")
BY_A_FLOW = "`continuous_flow` of `Uniform`, as guide, S^2"
COMPACT.add(BY_A_FLOW, "evidence and moments by quadrature", flow_guide, slow=True)
