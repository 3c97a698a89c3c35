"""The subjects of the speed benchmark: callables that map or sample, score and differentiate once.

A "flow" maps points to images and log-determinants. "Sample + log q" is the work of a posterior in a step of
variational inference: a reparameterised batch and its log-density, which may come from a cache. Both include the
gradient in every weight. Each call makes new tensors, as training does.
"""

import math
import warnings
from functools import partial
from operator import attrgetter

import geoopt
import pyro.distributions as dist
import torch

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT

HIDDEN = [128, 128]
FLAT = geoopt.Euclidean(1)


def dense(inputs, outputs):
    sizes = [inputs, *HIDDEN]
    layers = [part for a, b in zip(sizes, HIDDEN, strict=False) for part in (torch.nn.Linear(a, b), torch.nn.ReLU())]
    return torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-1], outputs))


class Floor(torch.nn.Module):
    """RealNVP by hand: no transform, cache or manifold; log-scales are bounded as in our builders and Pyro's."""

    def __init__(self, dim, layers):
        super().__init__()
        split = dim // 2
        sizes = [(split, dim - split), (dim - split, split)]
        self.split = split
        self.nets = torch.nn.ModuleList([dense(a, 2 * b) for a, b in (sizes[i % 2] for i in range(layers))])

    def forward(self, x):
        halves, total = [x[..., : self.split], x[..., self.split :]], 0.0
        for i, net in enumerate(self.nets):
            moving = 1 - i % 2
            shift, log_scale = net(halves[1 - moving]).chunk(2, -1)
            log_scale = 3 * torch.tanh(log_scale / 3)
            halves[moving] = halves[moving] * log_scale.exp() + shift
            total = total + log_scale.sum(-1)
        return torch.cat(halves, -1), total


class Subject:
    """One call draws, scores and differentiates; ``parameters`` are the weights."""

    def __init__(self, sample_and_score, parameters):
        self.sample_and_score, self.parameters = sample_and_score, list(parameters)

    def __call__(self):
        for value in self.parameters:
            value.grad = None
        sample, log_q = self.sample_and_score()
        (sample.sum() + log_q.sum()).backward()


# ---- flows ----


def pushed(push, module, points):
    return Subject(lambda: push(points.detach()), module.parameters())


def by_hand(dim, layers, batch, device):
    floor = Floor(dim, layers).to(device)
    return pushed(floor, floor, torch.randn(batch, dim, device=device))


def through_pyro(transform, points):
    """Maps points and scores them through the interface of Pyro's transforms."""
    transform = transform.to(points.device)

    def push(x):
        y = transform(x)
        return y, transform.log_abs_det_jacobian(x, y)

    return pushed(push, transform, points)


def points_of(manifold, dim, batch, device):
    return ph.geometry.exp0(manifold, torch.randn(batch, dim, device=device))


def sampled_by_hand(dim, batch, layers, device):
    floor = Floor(dim, layers).to(device)

    def sample_and_score():
        v = torch.randn(batch, dim, device=device)
        y, log_det = floor(v)
        return y, -(v * v).sum(-1) / 2 - dim * math.log(2 * math.pi) / 2 - log_det

    return Subject(sample_and_score, floor.parameters())


def sampled(transform, base, batch, device):
    transform = transform.to(device)

    def sample_and_score():
        q = dist.TransformedDistribution(base, [transform])
        y = q.rsample((batch,))
        return y, q.log_prob(y)

    return Subject(sample_and_score, transform.parameters())


def normal(dim, device):
    return dist.Normal(torch.zeros(dim, device=device), torch.ones(dim, device=device)).to_event(1)


def wrapped_normal(dim, device, manifold):
    loc = ph.geometry.origin(manifold, dim, device=device)
    return hdist.WrappedNormal(loc, torch.ones(dim, device=device), manifold)


def stack_of_pyro(builder, dim, layers, device):
    """Alternates Pyro's couplings with permutations that swap the halves (built on the device: ``to`` skips them)."""
    parts = []
    for i in range(layers):
        split = dim // 2 if i % 2 == 0 else dim - dim // 2
        parts += [builder(dim, split_dim=split, hidden_dims=HIDDEN)]
        parts += [dist.transforms.permute(dim, torch.arange(dim, device=device).roll(-split))]
    return dist.transforms.ComposeTransformModule(parts)


def ours(coupling, manifold, dim, layers, batch, device):
    flow = ph.flows.coupling_flow(dim, layers, coupling, HIDDEN, manifold)
    return through_pyro(flow, points_of(manifold, dim, batch, device))


def lifted_spline(dim, layers, batch, device):
    M = ph.manifolds.Lorentz()
    flow = HT.TangentTransform(stack_of_pyro(dist.transforms.spline_coupling, dim, layers, device), M)
    return through_pyro(flow, points_of(M, dim, batch, device))


def of_pyro(builder, dim, layers, batch, device):
    return through_pyro(stack_of_pyro(builder, dim, layers, device), torch.randn(batch, dim, device=device))


def zuko_flow(dim, layers, batch, device):
    import zuko

    flow = zuko.flows.RealNVP(features=dim, transforms=layers, hidden_features=HIDDEN).to(device)
    return Subject(lambda: flow().rsample_and_log_prob((batch,)), flow.parameters())


def normflows_flow(dim, layers, batch, device):
    import normflows

    parts = []
    for _ in range(layers):
        network = normflows.nets.MLP([(dim + 1) // 2, *HIDDEN, 2 * (dim // 2)], init_zeros=True)
        parts += [normflows.flows.AffineCouplingBlock(network), normflows.flows.Permute(dim, mode="swap")]
    base = normflows.distributions.base.DiagGaussian(dim, trainable=False)
    flow = normflows.NormalizingFlow(base, parts).to(device)
    return Subject(lambda: flow.sample(batch), flow.parameters())


FLOWS = {
    "floor": by_hand,
    "TC": partial(ours, HT.tangent_coupling, ph.manifolds.Lorentz()),
    "WHC": partial(ours, HT.wrapped_hyperboloid_coupling, ph.manifolds.Lorentz()),
    "ours on Euclidean(1)": partial(ours, HT.tangent_coupling, FLAT),
    "Pyro affine_coupling": partial(of_pyro, dist.transforms.affine_coupling),
    "Pyro spline_coupling": partial(of_pyro, dist.transforms.spline_coupling),
    "lifted spline": lifted_spline,
}


def flows(names, dim, layers, batch, device):
    """Returns the named subjects."""
    return {name: FLOWS[name](dim, layers, batch, device) for name in names}


#: Libraries that sample and score in one call, so that only "sample + log q" can be compared.
PEERS = {"zuko RealNVP": zuko_flow, "normflows RealNVP": normflows_flow}


def samples(dim, layers, batch, device):
    """Returns the "sample + log q" subjects."""
    M = ph.manifolds.Lorentz()
    subjects = {"floor": sampled_by_hand(dim, batch, layers, device)}
    for name, coupling in (("TC", HT.tangent_coupling), ("WHC", HT.wrapped_hyperboloid_coupling)):
        flow = ph.flows.coupling_flow(dim, layers, coupling, HIDDEN, M)
        subjects[name] = sampled(flow, wrapped_normal(dim, device, M), batch, device)
    stack = stack_of_pyro(dist.transforms.affine_coupling, dim, layers, device)
    subjects["Pyro affine_coupling"] = sampled(stack, normal(dim, device), batch, device)
    return subjects


def peers(dim, layers, batch, device):
    """Returns "sample + log q" for other flows, and for libraries that are installed."""
    stack = stack_of_pyro(dist.transforms.spline_coupling, dim, layers, device)
    subjects = {
        "floor": sampled_by_hand(dim, batch, layers, device),
        "Pyro spline_coupling": sampled(stack, normal(dim, device), batch, device),
    }
    for name, make in PEERS.items():
        try:
            subjects[name] = make(dim, layers, batch, device)
        except ImportError as error:
            warnings.warn(f"{name} is skipped: {error}", stacklevel=2)
    return subjects


def anatomy(dim, layers, batch, device):
    """Returns TC's "sample + log q", built up step by step from geometry functions to Pyro distributions."""
    M = ph.manifolds.Lorentz()
    space, constant = ph.geometry.bind(M), dim * math.log(2 * math.pi) / 2
    flow = ph.flows.coupling_flow(dim, layers, HT.tangent_coupling, HIDDEN, M).to(device)
    base = wrapped_normal(dim, device, M)
    gauss = base.base_dist

    def density(v):
        return -(v * v).sum(-1) / 2 - constant

    def with_layers():
        v = torch.randn(batch, dim, device=device)
        w, log_det = flow._tangent_forward(v)
        return w, density(v) - log_det

    def with_exp0():
        v = torch.randn(batch, dim, device=device)
        w, log_det = flow._tangent_forward(v)
        y, volume = space.exp0(w)
        return y, density(v) - log_det - volume

    def with_points_in():
        v = torch.randn(batch, dim, device=device)
        x, volume = space.exp0(v)
        y, log_det = flow._forward(x)
        return y, density(v) - volume - log_det

    def with_normal():
        v = gauss.rsample((batch,))
        x, volume = space.exp0(v)
        y, log_det = flow._forward(x)
        return y, gauss.log_prob(v) - volume - log_det

    def with_wrapped_normal():
        x = base.rsample((batch,))
        y, log_det = flow._forward(x)
        return y, base.log_prob(x) - log_det

    def with_transforms():
        x = base.rsample((batch,))
        y = flow(x)
        return y, base.log_prob(x) - flow.log_abs_det_jacobian(x, y)

    steps = {
        "layers alone": with_layers,
        "+ exp0 at the end": with_exp0,
        "+ exp0 and log0 before: points in": with_points_in,
        "+ Pyro's Normal": with_normal,
        "+ WrappedNormal": with_wrapped_normal,
        "+ cache and checks of the flow": with_transforms,
    }
    subjects = {"floor": sampled_by_hand(dim, batch, layers, device)}
    subjects |= {name: Subject(step, flow.parameters()) for name, step in steps.items()}
    return subjects | {"+ TransformedDistribution": sampled(flow, base, batch, device)}


# ---- distributions ----


def distributions(dim, batch, device):
    """Returns subjects that sample and score with gradients in location and scale."""
    M = ph.manifolds.Lorentz()

    def subject(make, stored=False, curved=True):
        loc = torch.randn(batch, dim, device=device)
        loc = (ph.geometry.exp0(M, loc) if curved else loc).requires_grad_()
        scale = torch.ones(batch, dim, device=device).requires_grad_()

        def sample_and_score():
            d = make(loc, scale)
            x = d.rsample()
            return x, d.log_prob(x.clone() if stored else x)

        return Subject(sample_and_score, [loc, scale])

    def wrapped(loc, scale):
        return hdist.WrappedNormal(loc, scale, M)

    def wrapped_full(loc, scale):
        return hdist.WrappedMultivariateNormal(loc, scale_tril=scale.diag_embed(), manifold=M)

    return {
        "Normal": subject(lambda loc, scale: dist.Normal(loc, scale).to_event(1), curved=False),
        "MultivariateNormal": subject(
            lambda loc, scale: dist.MultivariateNormal(loc, scale_tril=scale.diag_embed()), curved=False
        ),
        "WrappedNormal, own sample": subject(wrapped),
        "WrappedNormal, stored point": subject(wrapped, stored=True),
        "WrappedMultivariateNormal, own sample": subject(wrapped_full),
    }


# ---- compiled ----


def compiled(dim, layers, batch, device):
    """Returns the compiled floor, and our flows compiled by their ``compile``, without graph breaks."""
    M = ph.manifolds.Lorentz()
    v, floor = torch.randn(batch, dim, device=device), Floor(dim, layers).to(device)
    options = {"fullgraph": True, "dynamic": False}
    subjects = {"floor": pushed(floor, floor, v), "floor, compiled": pushed(torch.compile(floor, **options), floor, v)}
    for name, coupling in (("TC", HT.tangent_coupling), ("WHC", HT.wrapped_hyperboloid_coupling)):
        flow = ph.flows.coupling_flow(dim, layers, coupling, HIDDEN, M).to(device)
        flow.compile(**options)
        subjects[f"{name}, compiled"] = through_pyro(flow, ph.geometry.exp0(M, v))
    return subjects


# ---- kernels ----


def maps(dim, batch, device):
    """Returns the basic geometry functions, value and volume, with gradients in all arguments."""
    M = ph.manifolds.Lorentz()
    p, x = (points_of(M, dim, batch, device) for _ in range(2))
    v, t = torch.randn(2, batch, dim, device=device)

    def subject(kernel, *tensors):
        leaves = [value.clone().requires_grad_() for value in tensors]
        return Subject(lambda: kernel(ph.geometry.bind(M))(*leaves), leaves)

    return {
        "exp0": subject(attrgetter("exp0"), v),
        "log0": subject(attrgetter("log0"), x),
        "exp_at": subject(attrgetter("exp_at"), p, v),
        "log_at": subject(attrgetter("log_at"), p, x),
        "translate_tangent": subject(lambda space: partial(space.translate_tangent, bound=3.0), t, v),
    }
