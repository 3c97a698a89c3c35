"""What users write, with the types that they see: ``make lint`` checks it with mypy --strict. It is not run."""

import geoopt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from torch import Tensor
from typing_extensions import assert_type

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT

assert_type(ph.__version__, str)
M = ph.manifolds.Lorentz.from_curvature(-0.5, learnable=True)
assert_type(M, ph.manifolds.Lorentz)
k: Tensor = M.k

# Geometry and charts
o = ph.geometry.origin(M, 2)
x = assert_type(ph.geometry.exp0(M, torch.randn(5, 2)), Tensor)
assert_type(ph.geometry.log0(M, x), Tensor)
assert_type(ph.geometry.distance(M, o, x), Tensor)
assert_type(ph.geometry.geodesic(M, o, x, 0.5), Tensor)
assert_type(ph.geometry.frechet_mean(M, x, dim=0), Tensor)
assert_type(ph.charts.to_poincare_ball(M, x), Tensor)

# Distributions
d = hdist.WrappedNormal(o, 0.5, M)
assert_type(d, hdist.WrappedNormal)
assert_type(d.loc + d.scale.sum(), Tensor)
assert_type(d.rsample((3,)), Tensor)
assert_type(d.sample(), Tensor)
assert_type(d.log_prob(x), Tensor)
assert_type(d.expand(torch.Size([5])).mean, Tensor)
assert_type(hdist.WrappedMultivariateNormal(o, scale_tril=torch.eye(2), manifold=M).rsample(), Tensor)
assert_type(hdist.RiemannianNormal(o, 0.5, M).log_prob(x), Tensor)
assert_type(hdist.UniformBall(o, 2.0, M).rsample(), Tensor)
assert_type(hdist.VonMisesFisher(torch.tensor([1.0, 0.0, 0.0]), 3.0).sample((2,)), Tensor)
assert_type(hdist.Uniform(geoopt.Sphere(), 2).sample(), Tensor)
assert_type(hdist.SoftGeometricGraph(x, 1.0, 0.1, M).log_prob(torch.zeros(5, 5)), Tensor)

# Transforms and flows
flow = ph.flows.coupling_flow(2, 4, manifold=M)
assert_type(flow, ph.flows.CouplingFlow)
y = assert_type(flow(x), Tensor)
assert_type(flow.log_abs_det_jacobian(x, y), Tensor)
assert_type(flow.inv(y), Tensor)
conditional = ph.flows.coupling_flow(2, 4, manifold=M, context_dim=3)
assert_type(conditional, ph.flows.ConditionalCouplingFlow)
assert_type(conditional.condition(torch.zeros(3)), ph.flows.CouplingFlow)
assert_type(HT.continuous_flow(2, M), HT.ContinuousFlow)
assert_type(HT.continuous_flow(2, M, context_dim=3).condition(torch.zeros(3))(x), Tensor)
assert_type(ph.flows.flow_matching_loss(HT.continuous_flow(2, M), x, x), Tensor)
assert_type(HT.tangent_coupling(2, manifold=M)(x), Tensor)
assert_type(HT.conditional_wrapped_hyperboloid_coupling(2, 3, manifold=M).condition(torch.zeros(3))(x), Tensor)
assert_type(HT.ExponentialMap(M)(torch.zeros(2)), Tensor)
planes: Tensor = ph.nn.Gyroplanes(2, 7, M)(x)


class Zuko(torch.nn.Module):
    """Of the shape of a zuko flow, whose package mypy does not need."""

    transform: torch.nn.Module
    base: torch.nn.Module


assert_type(ph.flows.from_zuko(Zuko(), M)(x), Tensor)
assert_type(ph.flows.from_zuko(Zuko(), M, context_dim=3).condition(torch.zeros(3)), ph.flows.ZukoFlow)


# A model, its guide, and the posterior
def model(data: Tensor) -> Tensor:
    """Samples a location, and data about it."""
    z: Tensor = pyro.sample("z", hdist.WrappedNormal(ph.geometry.origin(M, 2), 1.0, M))
    with pyro.plate("data", len(data)):
        pyro.sample("x", dist.Independent(dist.Normal(ph.geometry.log0(M, z), 0.5), 1), obs=data)
    return z


guide = ph.infer.AutoWrappedNormal(model)
median: dict[str, Tensor] = guide.median(x)
samples = torch.randn(4, 100, 3)
found = ph.infer.summary({"z": samples}, {"z": M})
assert_type(found, ph.infer.Summary)
assert_type(found["z"].ball.radius, Tensor)
assert_type(ph.infer.summary(samples, M).distance.r_hat, Tensor)

# Numbers that are only read may be arrays
D = np.zeros((4, 4))
edges, lengths = ph.embeddings.neighbour_joining(D)
assert_type(ph.embeddings.tree(M, edges, lengths), Tensor)
assert_type(ph.embeddings.complete_distances(D), Tensor)
assert_type(ph.metrics.roc_auc([0.1, 0.9], [0, 1]), Tensor)
assert_type(ph.metrics.distortion(D, D), Tensor)
assert_type(ph.datasets.split_edges(edges, 6, seed=0).test, Tensor)

# Pictures and tests
ax = Figure().subplots()
ph.viz.frame(ax, M)
ph.viz.points(ax, M, x.numpy(), s=16).set_alpha(0.5)
ph.viz.tree(ax, M, x, [[0, 1]])
ph.viz.density(ax, M, d.log_prob)
ph.testing.assert_transform_laws(flow, x)
ph.testing.assert_distribution_laws(d)
