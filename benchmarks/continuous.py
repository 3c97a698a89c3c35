"""Densities of a continuous flow, and of Runge-Kutta steps by hand with the integrated divergence: the same field."""

import copy

import geoopt
import pyro.distributions as dist
import torch

import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic import geometry


def by_hand(field, base, x, steps):
    """Returns the log-density by the textbook: tangent coordinates and their divergence, integrated together."""
    space = geometry.chart(field.manifold)

    def slope(v, time):
        with torch.enable_grad():
            v = v.detach().requires_grad_()
            velocity = space.velocity(v, field(space.exp0(v)[0], v.new_tensor(time).expand(len(v))))
            columns = velocity.unbind(-1)
            rows = [torch.autograd.grad(column.sum(), v, retain_graph=True)[0] for column in columns]
        return velocity.detach(), sum(row[:, i] for i, row in enumerate(rows))

    v, volume = space.log0(x)
    total, h = 0.0, -1 / steps
    for i in range(steps):
        time = 1 + i * h
        k1, d1 = slope(v, time)
        k2, d2 = slope(v + h / 2 * k1, time + h / 2)
        k3, d3 = slope(v + h / 2 * k2, time + h / 2)
        k4, d4 = slope(v + h * k3, time + h)
        v = v + h / 6 * (k1 + 2 * (k2 + k3) + k4)
        total = total + h / 6 * (d1 + 2 * (d2 + d3) + d4)
    start, start_volume = space.exp0(v)
    return base.log_prob(start) + total + start_volume - volume


def densities(n, steps, batch, device, compiled=False):
    M = geoopt.Lorentz()
    base = hdist.WrappedNormal(geometry.origin(M, n, device=device), torch.ones(n, device=device))
    flow = HT.continuous_flow(n, M, steps=steps, explicit="inverse").to(device)
    x = base.sample((batch,))
    density = dist.TransformedDistribution(base, [flow], validate_args=False)

    @torch.no_grad()
    def ours():
        return density.log_prob(x)

    @torch.no_grad()
    def theirs():
        return by_hand(flow.field, base, x, steps)

    found = {"RK4 by hand": theirs, "ContinuousFlow": ours}
    if compiled:
        fast = HT.ContinuousFlow(copy.deepcopy(flow.field), M, steps=steps, explicit="inverse")
        fast.compile()
        other = dist.TransformedDistribution(base, [fast], validate_args=False)
        found["ContinuousFlow, compiled"] = torch.no_grad()(lambda: other.log_prob(x))
    return found
