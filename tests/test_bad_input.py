"""Bad input: each case works, or raises an error that names the value, the domain and the remedy."""

from collections.abc import Callable
from typing import Any, NamedTuple

import geoopt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from tests.cases import lorentz, point

G = ph.geometry
NAN, INF = float("nan"), float("inf")
M, M4, BATCHED = lorentz(), lorentz(4.0), geoopt.Lorentz(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
E, E0, SPHERE = geoopt.Euclidean(1), geoopt.Euclidean(0), geoopt.Sphere()


def t(*values: Any, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


V, P, P3, P4 = t(0.5, -0.3), point(1.0, 0.5, -0.3), point(1.0, 0.5, -0.3, 0.2), point(4.0, 0.5, -0.3)
OFF, LOWER, NANS, INTS = t(1.0, 0.5, 0.0), t(-1.25, 0.75, 0.0), t(1.0, NAN, 0.0), torch.tensor([1, 0, 0])
FAR = t(500.0, 0.0)
SHEET = "lower sheet|time coordinate must be > 0"
EYE = torch.eye(2, dtype=torch.float64)


def with_k(value: float) -> geoopt.Lorentz:
    manifold = lorentz()
    manifold.k.data.fill_(value)
    return manifold


def at_a_bad_k(make, x):
    manifold = lorentz()
    transform = make(manifold)
    manifold.k.data.fill_(-1.0)
    return transform(x)


def normal(loc=P, scale=1.0, manifold=M, **kwargs):
    return hdist.WrappedNormal(loc, scale, manifold, **kwargs)


def multivariate(loc=P, *args, **kwargs):
    return hdist.WrappedMultivariateNormal(loc, *args, **{"manifold": M, **kwargs})


def tc(dim=2, manifold=M, **kwargs):
    return HT.tangent_coupling(dim, manifold=manifold, **kwargs)


def whc(dim=2, manifold=M, **kwargs):
    return HT.wrapped_hyperboloid_coupling(dim, manifold=manifold, **kwargs)


def conditional(dim=2, context_dim=3):
    return HT.conditional_tangent_coupling(dim, context_dim, manifold=M)


def flow(dim=2, layers=2, manifold=M, **kwargs):
    return ph.flows.coupling_flow(dim, layers, manifold=manifold, **kwargs)


def network(shift=0.0, log_scale=0.0):
    return lambda x1: (x1 + shift, 0 * x1 + log_scale)


def chain(*transforms, base=None):
    return dist.TransformedDistribution(base or normal(), list(transforms))


class Case(NamedTuple):
    """A call and the error it raises: regular expressions that its message matches, for value, domain and remedy."""

    call: Callable[[], object]
    error: type[Exception]
    value: str
    domain: str
    remedy: str


def off(call, name="x", value=r"\(1, 0\.5, 0\)", domain=r"Lorentz\(k=1\).*-k = -1 is needed") -> Case:
    return Case(call, ValueError, f"{name} is not on.*{value}", domain, r"exp0\(M, v\).*M\.projx\(x\).*one dtype")


def nan_point(call, name="x", value=r"\(1, nan, 0\)") -> Case:
    return Case(call, ValueError, f"{name} is not on.*{value}", "Lorentz|Euclidean", "look for a division by zero")


def nan_vector(call, name="v") -> Case:
    return Case(call, ValueError, f"{name} holds NaN or infinity", "finite", "look for")


def overflow(call, value) -> Case:
    return Case(call, ValueError, value, "exceed .*largest torch.float", "float64, a smaller scale, or a larger k")


def flow_overflow(call, value) -> Case:
    return Case(call, ValueError, value, "exceed .*largest torch.float", "learning rate.*fewer layers.*log_scale_bound")


def mixed(call, first, second, kinds=("float64", "float32")) -> Case:
    value = f"{first} is torch.{kinds[0]}.*{second} is torch.{kinds[1]}"
    return Case(call, TypeError, value, "mixed dtypes", r"one dtype with \.to")


def sizes(call, first, second) -> Case:
    return Case(call, ValueError, f"{first}.*{second}", "last dimensions differ", "one manifold of one dimension")


def no_context(call, value) -> Case:
    return Case(call, TypeError, value, "", r"call .condition\(context\)")


def no_kl(call, value) -> Case:
    return Case(call, NotImplementedError, value, "closed form", r"p.rsample.*p.log_prob\(x\) - q.log_prob\(x\)")


def bad_k(call, value="-1") -> Case:
    return Case(call, ValueError, rf"k .*= {value}", "> 0", "squared radius.*curvature is -1/k|constraints.positive")


def bad_split(call, value) -> Case:
    return Case(call, ValueError, f"split_dim = {value}", "at least 1 and less than", "intrinsic")


def no_point(call, name="x", value=r"\(1,\)") -> Case:
    return Case(call, ValueError, f"{name} has shape {value}", r"n >= 1.*\(\*, n \+ 1\)", "to points with exp0")


#: Values out of the domain: an error while validating, no check at all otherwise.
VALUES = {
    # geometry
    "log0, off": off(lambda: G.log0(M, OFF)),
    "log0, of the second of two": off(lambda: G.log0(M, torch.stack([P, OFF])), "x", r"1 of 2 .*\(1, 0\.5, 0\)"),
    "log0, lower sheet": off(lambda: G.log0(M, LOWER), value=r"\(-1\.25, 0\.75, 0\)", domain=SHEET),
    "log0, other k": off(lambda: G.log0(M4, P), value=r"1\.17", domain=r"k=4\).*= -1 where -k = -4 is needed"),
    "log0, rounded to float32": off(lambda: G.log0(M, P.float().double()), value=r"1\.17", domain=r"[1-9.]e-0[789]"),
    "log0, NaN": nan_point(lambda: G.log0(M, NANS)),
    "log0, flat, NaN": nan_point(lambda: G.log0(E, NANS)),
    "log0, k = 0": bad_k(lambda: G.log0(with_k(0.0), P), "0"),
    "exp0, k = -1": bad_k(lambda: G.exp0(with_k(-1.0), V)),
    "exp0, k = NaN": bad_k(lambda: G.exp0(with_k(NAN), V), "nan"),
    "exp0, NaN": nan_vector(lambda: G.exp0(M, t(NAN, 0.0))),
    "exp0, infinite": nan_vector(lambda: G.exp0(M, t(INF, 0.0))),
    "exp0, too far": overflow(lambda: G.exp0(M, t(1000.0, 0.0)), r"v \(.* up to 1000\)"),
    "exp0, too far for float32": overflow(lambda: G.exp0(M, t(100.0, 0.0).float()), r"up to 100\).*float32"),
    "log_volume, NaN": nan_vector(lambda: G.log_volume(M, t(NAN, 0.0))),
    "translate, p off": off(lambda: G.translate(M, OFF, P), "p"),
    "translate, x off": off(lambda: G.translate(M, P, OFF)),
    "translate, NaN": nan_point(lambda: G.translate(M, P, NANS)),
    "translate, too far": overflow(lambda: G.translate(M, G.exp0(M, FAR), G.exp0(M, FAR)), r"up to [1-9]"),
    "translate_tangent, NaN": nan_vector(lambda: G.translate_tangent(M, t(NAN, 0.0), V), "t"),
    "distance, off": off(lambda: G.distance(M, P, OFF), "y"),
    "distance, k = -1": bad_k(lambda: G.distance(with_k(-1.0), P, P)),
    "origin, k = -1": bad_k(lambda: G.origin(with_k(-1.0), 2)),
    # distributions
    "WN, loc off": off(lambda: normal(OFF), "loc"),
    "WN, loc on the lower sheet": off(lambda: normal(LOWER), "loc", r"\(-1\.25, 0\.75, 0\)", SHEET),
    "WN, loc of other k": off(lambda: normal(P, manifold=M4), "loc", r"1\.17", r"k=4\).*-k = -4 is needed"),
    "WN, loc NaN": nan_point(lambda: normal(NANS), "loc"),
    "WN, scale 0": Case(lambda: normal(P, t(1.0, 0.0)), ValueError, r"= 0 \(at 1 of 2", "> 0", "softplus or exp"),
    "WN, scale -1": Case(lambda: normal(P, -1.0), ValueError, r"scale = -1\b", "> 0", "softplus or exp"),
    "WN, scale NaN": Case(lambda: normal(P, NAN), ValueError, "scale = nan", "not NaN", "softplus or exp"),
    "WN, scale infinite": Case(lambda: normal(P, INF), ValueError, "scale = inf", "finite", "softplus or exp"),
    "WN, k = -1": bad_k(lambda: normal(P, 1.0, with_k(-1.0))),
    "WN.log_prob, off": off(lambda: normal().log_prob(OFF), "value"),
    "WN.log_prob, lower sheet": off(lambda: normal().log_prob(LOWER), "value", "-1.25", SHEET),
    "WN.log_prob, NaN": nan_point(lambda: normal().log_prob(NANS), "value"),
    "WN.sample, too far": overflow(lambda: normal(P, 1e4).sample(), "up to [1-9]"),
    "WN.sample, too far for float32": overflow(lambda: normal(P.float(), 500.0).sample(), "up to [1-9].*float32"),
    "WMN, loc off": off(lambda: multivariate(OFF, EYE), "loc"),
    "WMN.log_prob, off": off(lambda: multivariate(P, EYE).log_prob(OFF), "value"),
    "WMN.log_prob, NaN": nan_point(lambda: multivariate(P, EYE).log_prob(NANS), "value"),
    # transforms
    "ExponentialMap, k = -1": bad_k(lambda: HT.ExponentialMap(with_k(-1.0))),
    "ExponentialMap, NaN": nan_vector(lambda: HT.ExponentialMap(M)(t(NAN, 0.0)), "the argument of ExponentialMap"),
    "ExponentialMap, too far": overflow(lambda: HT.ExponentialMap(M)(2 * FAR), "ExponentialMap .* up to 1000"),
    "ExponentialMap.inv, off": off(lambda: HT.ExponentialMap(M).inv(OFF), "ExponentialMap.inv"),
    "Translation, loc off": off(lambda: HT.Translation(M, OFF), "loc"),
    "Translation, loc NaN": nan_point(lambda: HT.Translation(M, NANS), "loc"),
    "Translation, off": off(lambda: HT.Translation(M, P)(OFF), "Translation"),
    "Translation.inv, off": off(lambda: HT.Translation(M, P).inv(OFF), "Translation.inv"),
    "Translation, too far": overflow(lambda: HT.Translation(M, G.exp0(M, FAR))(G.exp0(M, FAR)), "up to [1-9]"),
    "TangentTransform, off": off(
        lambda: HT.TangentTransform(dist.transforms.AffineTransform(0.0, 2.0), M)(OFF), "TangentTransform"
    ),
    "TangentTransform, too far": flow_overflow(
        lambda: HT.TangentTransform(dist.transforms.AffineTransform(0.0, 1e4), M)(P), "TangentTransform"
    ),
    "coupling flow, too far": flow_overflow(
        lambda: ph.flows.CouplingFlow([HT.TangentCoupling(1, network(1e4), M)])(P), "CouplingFlow"
    ),
    "TangentTransform, NaN out": Case(
        lambda: HT.TangentTransform(dist.transforms.AffineTransform(NAN, 2.0), M)(P), ValueError, "NaN", "finite", "."
    ),
    "tangent coupling, off": off(lambda: tc()(OFF), "TangentCoupling"),
    "tangent coupling, inverse, NaN": nan_point(lambda: tc().inv(NANS), "TangentCoupling.inv"),
    "tangent coupling, too far": flow_overflow(lambda: HT.TangentCoupling(1, network(1e4), M)(P), "TangentCoupling"),
    "tangent coupling, network NaN": Case(
        lambda: HT.TangentCoupling(1, network(NAN), M)(P), ValueError, "NaN", "finite", "network|hypernet|parameters"
    ),
    "tangent coupling, context NaN": Case(
        lambda: conditional().condition(t(NAN, 0.0, 0.0))(P), ValueError, "NaN", "finite", "network|context"
    ),
    "wrapped coupling, off": off(lambda: whc()(OFF), "WrappedHyperboloidCoupling"),
    "coupling flow, off": off(lambda: flow()(OFF), "CouplingFlow"),
    "coupling flow, inverse, off": off(lambda: flow().inv(OFF), "CouplingFlow.inv"),
    # chains
    "sample through another k": off(
        lambda: chain(tc(manifold=M4)).sample(), "TangentCoupling", r"1 of 1", r"k=4\).*= -1 where -k = -4"
    ),
    "log_prob through another k": off(
        lambda: chain(tc(manifold=M4)).log_prob(P4), "value", "1 of 1", r"k=1\).*= -4 where -k = -1"
    ),
    "composed with another k": off(
        lambda: dist.transforms.ComposeTransform([HT.ExponentialMap(M), HT.Translation(M4, P4)])(V),
        "Translation",
        r"1\.17",
        r"k=4\).*= -1 where -k = -4",
    ),
    "flow on a normal of R^3": off(
        lambda: chain(tc(), base=dist.Normal(t(9.0, 0.0, 0.0), 0.1).to_event(1)).sample(), "TangentCoupling", "1 of 1"
    ),
    # points of the Poincare ball, where points are expected
    "ball points, log0": Case(
        lambda: G.log0(M, t(0.4, 0.3)), ValueError, r"\(0\.4, 0\.3\)", "-k = -1", r"exp0.*charts.from_poincare_ball"
    ),
    "ball points, WN": Case(
        lambda: normal(t(0.4, 0.3, 0.1)), ValueError, r"loc.*\(0\.4, 0\.3, 0.1\)", "", "exp0.*charts.from_poincare_ball"
    ),
    # constraints and parameters
    "on_manifold, k = 0": bad_k(lambda: hdist.constraints.on_manifold(with_k(0.0)), "0"),
    "pyro.param, off": off(
        lambda: pyro.param("p", OFF, constraint=hdist.constraints.on_manifold(M)), "ExponentialMap.inv"
    ),
}

#: Shapes, dtypes, counts and unknown manifolds: an error whether or not values are validated.
ALWAYS = {
    # mixed dtypes
    "translate, mixed": mixed(lambda: G.translate(M, P, P.float()), "p", "x"),
    "distance, mixed": mixed(lambda: G.distance(M, P, P.float()), "x", "y"),
    "translate_tangent, mixed": mixed(lambda: G.translate_tangent(M, V, V.float()), "t", "v"),
    "WN, mixed": mixed(lambda: normal(P, t(1.0, 1.0).float()), "loc", "scale"),
    "WMN, mixed": mixed(lambda: multivariate(P, EYE.float()), "loc", "covariance_matrix"),
    "WN.log_prob, mixed": mixed(lambda: normal().log_prob(P.float()), "loc", "x|value"),
    "Translation, mixed": mixed(lambda: HT.Translation(M, P)(P.float()), "loc", "x"),
    "coupling, float32 network": mixed(lambda: tc().float()(P), "", "", ("float32", "float64")),
    "coupling, float64 network": mixed(lambda: tc().double()(P.float()), "", ""),
    "coupling flow, float32 networks": mixed(lambda: flow().float()(P), "", "", ("float32", "float64")),
    # wrong last dimension
    "exp0, scalar": Case(lambda: G.exp0(M, t(1.0)[0]), ValueError, r"v has shape \(\)", "n >= 1", r"\(\*, n\)"),
    "exp0, no coordinates": Case(lambda: G.exp0(M, t()), ValueError, r"v has shape \(0,\)", "n >= 1", r"\(\*, n\)"),
    "log0, n = 0": no_point(lambda: G.log0(M, t(1.0))),
    "log0, scalar": no_point(lambda: G.log0(M, t(1.0)[0]), value=r"\(\)"),
    "contains, n = 0": no_point(lambda: G.contains(M, t(1.0))),
    "contains, scalar": no_point(lambda: G.contains(M, t(1.0)[0]), value=r"\(\)"),
    "translate, sizes": sizes(lambda: G.translate(M, P, P3), r"p is \(3,\)", r"x is \(4,\)"),
    "distance, sizes": sizes(lambda: G.distance(M, P, P3), r"x is \(3,\)", r"y is \(4,\)"),
    "translate_tangent, sizes": sizes(lambda: G.translate_tangent(M, t(1.0), V), r"t is \(1,\)", r"v is \(2,\)"),
    "WN, n = 0": no_point(lambda: normal(t(1.0)), "loc"),
    "WN, scalar loc": no_point(lambda: normal(t(1.0)[0]), "loc", r"\(\)"),
    "WN, ambient scale": Case(
        lambda: normal(P, t(1, 1, 1)), ValueError, r"scale has shape \(3,\)", "n = 2 dim", r"\(\*, 2\), or \(\*, 1\)"
    ),
    "WMN, ambient matrix": Case(
        lambda: multivariate(P, torch.eye(3).double()), ValueError, r"\(3, 3\)", "n = 2 dim", r"a matrix \(\*, 2, 2\)"
    ),
    "WMN, vector": Case(lambda: multivariate(P, t(1, 1)), ValueError, r"shape \(2,\)", "n = 2 dim", r"\(\*, 2, 2\)"),
    "Translation, n = 0": no_point(lambda: HT.Translation(M, t(1.0)), "loc"),
    "Translation, sizes": sizes(lambda: HT.Translation(M, P)(P3), r"loc is \(3,\)", r"x is \(4,\)"),
    "ExponentialMap.inv, n = 0": no_point(lambda: HT.ExponentialMap(M).inv(t(1.0)), "ExponentialMap.inv"),
    "coupling, larger points": Case(lambda: tc()(P3), ValueError, r"\(4,\)|n = 3", "split_dim", "points"),
    "coupling, smaller points": Case(lambda: tc(3)(P), ValueError, r"\(3,\)|n = 2", "split_dim", "points"),
    "coupling flow, larger points": Case(lambda: flow()(P3), ValueError, r"\(4,\)|n = 3", "split_dim", "points"),
    "coupling flow, smaller points": Case(lambda: flow(4)(P), ValueError, "dim = 2", "split_dim", "intrinsic"),
    "network, sizes": Case(
        lambda: HT.TangentCoupling(1, lambda x1: (t(0, 0), t(0, 0)), M)(P),
        ValueError,
        r"shift of shape \(2,\)",
        "n - split_dim = 1",
        "param_dims",
    ),
    "network, one output": Case(
        lambda: HT.TangentCoupling(1, lambda x1: x1, M)(P.expand(2, 3)),
        (TypeError, ValueError),
        "hypernet",
        r"\(shift, log_scale\)|two",
        ".",
    ),
    "context, sizes": Case(
        lambda: conditional().condition(t(1, 2, 3, 4))(P), ValueError, r"context.*\(4,\)", "context_dim = 3|3", "."
    ),
    # ranges
    "origin, n = 0": Case(lambda: G.origin(M, 0), ValueError, "n = 0", "at least 1", "intrinsic"),
    "hidden_dims = []": Case(lambda: tc(2, hidden_dims=[]), ValueError, r"hidden_dims = \[\]", "one hidden", r"\[20\]"),
    "hidden_dims = 32": Case(lambda: tc(2, hidden_dims=32), ValueError, "hidden_dims = 32", "one hidden", r"\[20\]"),
    "hidden_dims = [0]": Case(lambda: tc(2, hidden_dims=[0]), ValueError, "hidden_dim = 0", "at least 1", "width"),
    "context_dim = 0": Case(
        lambda: flow(context_dim=0), ValueError, "context_dim = 0", "at least 1", "length of a context vector"
    ),
    "context_dim = -1": Case(
        lambda: HT.conditional_tangent_coupling(2, -1), ValueError, "context_dim = -1", "at least 1", "length"
    ),
    "coupling, a class": Case(
        lambda: flow(coupling=HT.TangentCoupling), TypeError, "TangentCoupling", "build a layer", "HT.tangent_coupling"
    ),
    "conditional, no context": no_context(lambda: conditional()(P), "ConditionalTangentCoupling"),
    "conditional flow, no context": no_context(lambda: flow(context_dim=3)(P), "ConditionalCouplingFlow"),
    "conditional flow, in a distribution": no_context(lambda: chain(flow(context_dim=3)), "ConditionalCouplingFlow"),
    "conditional layer, in a distribution": no_context(lambda: chain(tc(), conditional()), "ConditionalTangent"),
    "conditional flow, lifted": no_context(lambda: HT.TangentTransform(flow(context_dim=3), M), "ConditionalCoupling"),
    "conditional flow, in a flow": no_context(
        lambda: ph.flows.CouplingFlow([tc(), conditional()]), "layer 1.*ConditionalTangentCoupling"
    ),
    "conditional flow of a layer with context": Case(
        lambda: ph.flows.ConditionalCouplingFlow([conditional(), tc()]),
        TypeError,
        "layer 1.*type TangentCoupling",
        "ConditionalCouplings",
        "CouplingFlow",
    ),
    "conditional flow of a translation": Case(
        lambda: ph.flows.ConditionalCouplingFlow([HT.Translation(M, P)]),
        TypeError,
        "Translation",
        "Conditional",
        "Compose",
    ),
    "conditional flow, no layers": Case(
        lambda: ph.flows.ConditionalCouplingFlow([]), ValueError, "no layers", "at least 1", "2"
    ),
    "context, double": mixed(
        lambda: HT.conditional_tangent_coupling(2, 3).float().condition(t(1, 2, 3))(P.float()),
        "network",
        "context",
        ("float32", "float64"),
    ),
    "context, batches": Case(
        lambda: conditional().condition(torch.zeros(3, 3))(P.expand(4, 3)),
        ValueError,
        r"points \(4,\) and context \(3,\)",
        "broadcast",
        "equal",
    ),
    "flow in a distribution, batches": Case(
        lambda: chain(conditional().condition(torch.zeros(3, 3)), base=normal(P.expand(4, 3))),
        ValueError,
        r"points \(4,\) and .*\(3,\)",
        "broadcast",
        "equal",
    ),
    "polar, double points": mixed(
        lambda: HT.polar_coupling([8], 4).float()(P), "network", "points", ("float32", "float64")
    ),
    "polar, double points, inverse": mixed(
        lambda: HT.polar_coupling([8], 4).float().inv(P), "network", "points", ("float32", "float64")
    ),
    "network, outputs None": Case(
        lambda: HT.TangentCoupling(1, lambda x1: (None, None), M)(P), TypeError, r"\(None, None\)", "pair", "DenseNN"
    ),
    # arguments of the right type in the wrong place
    "WN, tangent coordinates for loc": Case(
        lambda: normal(V, t(1, 1)), ValueError, r"loc.*\(2,\).*scale.*\(2,\)", "standard deviations", r"exp0\(M, loc\)"
    ),
    "WN, scale and loc": Case(
        lambda: normal(t(1, 1), P), ValueError, r"loc.*\(2,\).*scale.*\(3,\)", "standard deviations", "swap"
    ),
    "WN, manifold for scale": Case(
        lambda: hdist.WrappedNormal(P, M), TypeError, "scale.*Lorentz", "torch.Tensor", "order.*manifold=M"
    ),
    "WMN, manifold for precision": Case(
        lambda: hdist.WrappedMultivariateNormal(P, EYE, M),
        TypeError,
        "precision_matrix.*Lorentz",
        "torch.Tensor",
        "order.*manifold=M",
    ),
    "exponential map, loc of another dimension": Case(
        lambda: HT.ExponentialMap(M, P)(t(1.0, 2.0, 3.0)), ValueError, r"loc is \(3,\).*\(3,\)", "n \\+ 1", "differ"
    ),
    "a guide of no model": Case(
        lambda: ph.infer.AutoWrappedNormal(3), TypeError, "model = 3", "function", "samples the latents"
    ),
    "coupling, manifold for hypernet": Case(
        lambda: HT.TangentCoupling(1, M), TypeError, "hypernet.*Lorentz", "network", "DenseNN"
    ),
    "kl, two locations": no_kl(lambda: kl_divergence(normal(), normal(G.origin(M, 2))), "WrappedNormal.*WrappedNormal"),
    "kl, two k": no_kl(lambda: kl_divergence(normal(), normal(P4, 1.0, M4)), "k=1.*k=4"),
    "kl, two classes": no_kl(lambda: kl_divergence(normal(), multivariate(P, EYE)), "WrappedNormal.*Multivariate"),
    "distance, batches": Case(
        lambda: G.distance(M, P.expand(3, 3), P.expand(4, 3)),
        ValueError,
        r"x \(3,\) and y \(4,\)",
        "broadcast",
        "equal",
    ),
    "WN, batches": Case(
        lambda: normal(P.expand(3, 3), t(1, 1).expand(4, 2)),
        ValueError,
        r"loc \(3,\) and scale \(4,\)",
        "broadcast",
        "1",
    ),
    "WMN, batches": Case(
        lambda: hdist.WrappedMultivariateNormal(
            P.expand(3, 3), torch.eye(2, dtype=P.dtype).expand(4, 2, 2), manifold=M
        ),
        ValueError,
        r"loc \(3,\) and covariance_matrix \(4,\)",
        "broadcast",
        "equal",
    ),
    "positive curvature": Case(
        lambda: ph.manifolds.Lorentz.from_curvature(0.5), ValueError, "curvature = 0.5", "< 0", "Euclidean"
    ),
    "split_dim = 0": bad_split(lambda: HT.TangentCoupling(0, network(), M), "0"),
    "split_dim = -1": bad_split(lambda: HT.WrappedHyperboloidCoupling(-1, network(), M), "-1"),
    "split_dim = n on a call": bad_split(lambda: HT.TangentCoupling(2, network(), M)(P), "2"),
    "split_dim = n in a builder": bad_split(lambda: tc(3, split_dim=3), "3"),
    "split_dim > n in a builder": bad_split(lambda: whc(3, split_dim=4), "4"),
    "split_dim = 0 in a builder": bad_split(
        lambda: HT.conditional_wrapped_hyperboloid_coupling(3, 2, split_dim=0), "0"
    ),
    "split_dim = 0, conditional": bad_split(lambda: HT.ConditionalTangentCoupling(0, torch.nn.Linear(1, 1), M), "0"),
    "tangent_coupling, dim = 1": Case(lambda: tc(1), ValueError, "dim = 1", "at least 2", "TangentTransform"),
    "conditional, dim = 1": Case(lambda: conditional(1), ValueError, "dim = 1", "at least 2", "TangentTransform"),
    "coupling_flow, dim = 1": Case(lambda: flow(1), ValueError, "dim = 1", "at least 2", "TangentTransform"),
    "coupling_flow, no layers": Case(lambda: flow(2, 0), ValueError, "layers = 0", "at least 1", "2 move every"),
    "CouplingFlow, no layers": Case(lambda: ph.flows.CouplingFlow([]), ValueError, "no layers", "at least 1", "2"),
    "log-scale bound 0": Case(lambda: tc(log_scale_bound=0.0), ValueError, "bound = 0.0", "> 0", "None for no bound"),
    "shift bound NaN": Case(lambda: whc(shift_bound=NAN), ValueError, "shift_bound = nan", "> 0", "None for no bound"),
    "with_cache(2)": Case(lambda: tc().with_cache(2), ValueError, "cache_size = 2", "0 or 1", "."),
    "Lorentz(-1)": bad_k(lambda: ph.manifolds.Lorentz(-1.0)),
    "Lorentz(0)": bad_k(lambda: ph.manifolds.Lorentz(0.0), "0"),
    "Lorentz(NaN)": bad_k(lambda: ph.manifolds.Lorentz(NAN), "nan"),
    "Lorentz of a batch": bad_k(lambda: ph.manifolds.Lorentz(t(1.0, -2.0)), "-2 .at 1 of 2"),
    "Lorentz(inf)": bad_k(lambda: ph.manifolds.Lorentz(INF), "inf"),
    # matrices, transforms and layers that do not fit
    "WMN, no matrix": Case(multivariate, ValueError, "no matrix", "exactly one of", "scale_tril"),
    "WMN, two matrices": Case(
        lambda: multivariate(P, EYE, scale_tril=EYE), ValueError, "'covariance_matrix', 'scale_tril'", "exactly one", ""
    ),
    "lift a sigmoid": Case(
        lambda: HT.TangentTransform(dist.transforms.SigmoidTransform(), M), ValueError, "Sigmoid", "R.n", "bijection"
    ),
    "lift |x|": Case(
        lambda: HT.TangentTransform(torch.distributions.transforms.AbsTransform(), M),
        ValueError,
        "Abs",
        "inver",
        "lift",
    ),
    "lift a map of the manifold": Case(
        lambda: HT.TangentTransform(HT.Translation(M, P), M), ValueError, "Translation", "R.n", "lift a bijection"
    ),
    "lift a network": Case(
        lambda: HT.TangentTransform(torch.nn.Linear(2, 2), M), TypeError, "Linear", "Transform|bijection", "lift"
    ),
    "layers of two curvatures": Case(
        lambda: ph.flows.CouplingFlow([tc(), tc(manifold=M4)]), ValueError, "layer 1.*k=4", "k=1", "one manifold"
    ),
    "layers that do not take turns": Case(
        lambda: ph.flows.CouplingFlow([tc(3, split_dim=d) for d in (1, 2, 2)]),
        ValueError,
        "layer 2 has split_dim = 2",
        "take turns",
        "odd places n - d",
    ),
    "layers that are no couplings": Case(
        lambda: ph.flows.CouplingFlow([HT.Translation(M, P)]), TypeError, "Translation", "Coupling", "Compose"
    ),
    "conditional flow of unknown layers": Case(
        lambda: flow(coupling=lambda *a, **k: tc(*a, **k), context_dim=2),
        ValueError,
        "<lambda>",
        "tangent_coupling, wrapped_hyperboloid_coupling",
        "ConditionalCouplingFlow",
    ),
    "variance": Case(lambda: normal().variance, NotImplementedError, "WrappedNormal", "no variance", "log0"),
    "entropy": Case(lambda: normal().entropy(), NotImplementedError, "WrappedNormal", "entropy", "."),
}

#: What takes a manifold, and what takes coordinates.
TAKES_A_MANIFOLD = {
    "contains": lambda M: G.contains(M, P),
    "origin": lambda M: G.origin(M, 2),
    "exp0": lambda M: G.exp0(M, V),
    "log0": lambda M: G.log0(M, P),
    "log_volume": lambda M: G.log_volume(M, V),
    "translate": lambda M: G.translate(M, P, P),
    "translate_tangent": lambda M: G.translate_tangent(M, V, V),
    "distance": lambda M: G.distance(M, P, P),
    "same": lambda M: G.same(lorentz(), M),
    "to_poincare_ball": lambda M: ph.charts.to_poincare_ball(M, P),
    "from_klein": lambda M: ph.charts.from_klein(M, V),
    "to_normal_coordinates": lambda M: ph.charts.to_normal_coordinates(M, P, P),
    "from_normal_coordinates": lambda M: ph.charts.from_normal_coordinates(M, V, P),
    "WN": lambda M: normal(P, 1.0, M),
    "WMN": lambda M: multivariate(P, EYE, manifold=M),
    "ExponentialMap": lambda M: HT.ExponentialMap(M),
    "Translation": lambda M: HT.Translation(M, P),
    "TangentTransform": lambda M: HT.TangentTransform(dist.transforms.AffineTransform(0.0, 2.0), M),
    "coupling": lambda M: tc(manifold=M),
    "conditional": lambda M: HT.conditional_tangent_coupling(2, 3, manifold=M),
    "coupling flow": lambda M: flow(manifold=M),
    "polar": lambda M: HT.polar_coupling([8], manifold=M),
    "on_manifold": lambda M: hdist.constraints.on_manifold(M),
}
NO_MANIFOLD = {  # what is given: how it is shown, and the remedy
    "class": (geoopt.Lorentz, "the class geoopt.Lorentz", r"geoopt\.Lorentz\(\)"),
    "flat class": (geoopt.Euclidean, "the class geoopt.Euclidean", r"geoopt\.Euclidean\(1\)"),
    "sphere": (geoopt.Sphere(), "Sphere", r"no map of R\^n.*geoopt.Lorentz\(\)"),
    "scaled": (geoopt.Scaled(geoopt.Lorentz()), "Scaled", r"geoopt.Lorentz\(\), or register a geometry"),
    "tensor": (P, r"tensor of shape \(3,\)", r"order.*exp0\(M, v\).*manifold=M"),
    "array": (np.ones((50, 3)), r"numpy.ndarray of shape \(50, 3\)", "order"),
    "number": (2.0, "2.0", r"geoopt.Lorentz\(k=2.0\)"),
    "name": ("lorentz", "'lorentz'", r"geoopt.Lorentz\(\)"),
}
TAKES_COORDINATES = {
    "exp0": lambda x: G.exp0(M, x),
    "log0": lambda x: G.log0(M, x),
    "log_volume": lambda x: G.log_volume(M, x),
    "contains": lambda x: G.contains(M, x),
    "translate, p": lambda x: G.translate(M, x, P),
    "translate, x": lambda x: G.translate(M, P, x),
    "distance, x": lambda x: G.distance(M, x, P),
    "distance, y": lambda x: G.distance(M, P, x),
    "translate_tangent, t": lambda x: G.translate_tangent(M, x, V),
    "translate_tangent, v": lambda x: G.translate_tangent(M, V, x),
    "to_klein": lambda x: ph.charts.to_klein(M, x),
    "from_poincare_ball": lambda x: ph.charts.from_poincare_ball(M, x),
    "to_normal_coordinates, loc": lambda x: ph.charts.to_normal_coordinates(M, P, x),
    "from_normal_coordinates, v": lambda x: ph.charts.from_normal_coordinates(M, x, P),
    "check": lambda x: hdist.constraints.on_manifold(M).check(x),
    "WN, loc": normal,
    "WN, scale": lambda x: normal(P, x),
    "WN.log_prob": lambda x: normal().log_prob(x),
    "WMN, loc": lambda x: multivariate(x, EYE),
    "WMN, matrix": lambda x: multivariate(P, x),
    "Translation, loc": lambda x: HT.Translation(M, x),
    "ExponentialMap": lambda x: HT.ExponentialMap(M)(x),
    "ExponentialMap.inv": lambda x: HT.ExponentialMap(M).inv(x),
    "coupling flow": lambda x: flow()(x),
    "polar.inv": lambda x: HT.polar_coupling([8]).inv(x),
    "polar, data": lambda x: HT.polar_coupling([8], data=x),
    "context": lambda x: conditional().condition(x),
}
NO_COORDINATES = {
    "manifold": (lorentz(), "Lorentz", r"order.*exp0\(M, v\).*manifold=M"),
    "array": (np.ones((5000, 3)), r"numpy.ndarray of shape \(5000, 3\)", "as_tensor"),
    "list": ([1.0] * 5000, r"\[1.0, 1.0, .*\.\.\.\]", "as_tensor"),
    "text": ("1.0", "'1.0'", "tensor"),
    "dtype": (torch.float64, "torch.float64", "tensor"),
    "integers": (torch.ones(3, dtype=torch.long), "torch.int64", r"\.double\(\)"),
    "booleans": (torch.ones(3, dtype=torch.bool), "torch.bool", r"\.double\(\)"),
    "complex": (torch.ones(3, dtype=torch.complex128), "torch.complex128", r"\.real"),
    "8 bits": (torch.ones(3).to(torch.float8_e5m2), "torch.float8_e5m2", r"\.double\(\)"),
}

#: Every other argument of a constructor or a builder.
TAKES_SOMETHING_ELSE = {
    "n": lambda x: G.origin(M, x),
    "dim": tc,
    "layers": lambda x: flow(2, x),
    "context_dim": lambda x: flow(context_dim=x),
    "split_dim": lambda x: HT.TangentCoupling(x, network(), M),
    "hypernet": lambda x: HT.TangentCoupling(1, x, M),
    "conditional hypernet": lambda x: HT.ConditionalTangentCoupling(1, x, M),
    "hidden_dims": lambda x: tc(hidden_dims=x),
    "hidden_dims of a flow": lambda x: flow(hidden_dims=x),
    "log_scale_bound": lambda x: tc(log_scale_bound=x),
    "shift_bound": lambda x: whc(shift_bound=x),
    "coupling": lambda x: flow(coupling=x),
    "layers of a flow": ph.flows.CouplingFlow,
    "layers of a conditional flow": ph.flows.ConditionalCouplingFlow,
    "transform": lambda x: HT.TangentTransform(x, M),
    "polar, hidden_dims": lambda x: HT.polar_coupling(x),
    "polar, count_bins": lambda x: HT.polar_coupling([8], x),
    "polar, reach": lambda x: HT.polar_coupling([8], 4, x),
    "polar, fixed_angle": lambda x: HT.polar_coupling([8], 4, 5.0, x),
    "polar, angular": lambda x: HT.PolarCoupling(x, network(), 4, 5.0),
    "polar, radial": lambda x: HT.PolarCoupling(network(), x, 4, 5.0),
    "k": ph.manifolds.Lorentz,
    "curvature": ph.manifolds.Lorentz.from_curvature,
    "side": ph.datasets.Checkerboard,
    "dtype": ph.datasets.TwoSpirals,
    "target": ph.datasets.density_target,
    "target, dtype": lambda x: ph.datasets.density_target("tree", x),
    "tree, depth": ph.datasets.binary_tree,
    "tree, edge_length": lambda x: ph.datasets.binary_tree(2, x),
    "diffusion, seed": ph.datasets.branching_diffusion,
    "diffusion, depth": lambda x: ph.datasets.branching_diffusion(depth=x),
    "diffusion, noise": lambda x: ph.datasets.branching_diffusion(noise_variance=x),
    "diffusion, test_fraction": lambda x: ph.datasets.branching_diffusion(test_fraction=x),
}
NONSENSE = {
    "class": geoopt.Sphere,
    "text": "abc",
    "list": [object()] * 5000,
    "array": np.full((50, 3), NAN),
    "tensor": torch.full((50, 3), NAN),
    "complex": 1j,
    "dictionary": {"a": 1},
    "manifold": lorentz(),
    "object": object(),
}


def check_error(call: Callable[[], object], *errors: type[Exception]) -> Any:
    """Runs the call; its error must be one of ours, in a few lines. Returns pytest's information about it."""
    with pytest.raises(errors) as info:
        call()
    last = info.traceback[-1]
    assert "pyro_hyperbolic" in str(last.path), f"raised in {last.path}"
    assert "raise " in str(last.statement), f"raised by {last.statement}"
    assert len(str(info.value)) < 500
    return info


@pytest.mark.parametrize("given", NO_MANIFOLD)
@pytest.mark.parametrize("name", TAKES_A_MANIFOLD)
def test_what_is_no_manifold(name, given):
    value, shown, remedy = NO_MANIFOLD[given]
    info = check_error(lambda: TAKES_A_MANIFOLD[name](value), TypeError)
    info.match(f"(?s){shown}.*{remedy}")


@pytest.mark.parametrize("name", TAKES_A_MANIFOLD)
def test_none_is_a_manifold_where_there_is_a_default(name):
    if name in dir(G) or "coordinates" in name or name in ("to_poincare_ball", "from_klein", "on_manifold"):
        check_error(lambda: TAKES_A_MANIFOLD[name](None), TypeError).match(r"None.*geoopt.Lorentz\(\)")
    else:
        TAKES_A_MANIFOLD[name](None)


@pytest.mark.parametrize("name", TAKES_A_MANIFOLD)
def test_matrices_are_no_points(name):
    if name not in ("contains", "same"):  # which ask for the geometry alone
        check_error(lambda: TAKES_A_MANIFOLD[name](E0), ValueError).match(r"ndim = 0.*vectors.*geoopt\.Euclidean\(1\)")


@pytest.mark.parametrize("given", NO_COORDINATES)
@pytest.mark.parametrize("name", TAKES_COORDINATES)
def test_what_are_no_coordinates(name, given):
    value, shown, remedy = NO_COORDINATES[given]
    if name == "context" and given in ("integers", "booleans"):  # one-hot vectors, say
        assert TAKES_COORDINATES[name](value)(P).shape == (3,)
    else:
        check_error(lambda: TAKES_COORDINATES[name](value), TypeError).match(f"(?s){shown}.*{remedy}")


@pytest.mark.parametrize("given", NONSENSE)
@pytest.mark.parametrize("name", TAKES_SOMETHING_ELSE)
def test_nonsense(name, given):
    check_error(lambda: TAKES_SOMETHING_ELSE[name](NONSENSE[given]), TypeError, ValueError)


#: Checked by torch, in its words, which name the parameter, its value and the constraint.
BY_TORCH = {
    "WMN, indefinite": (lambda: multivariate(P, t([1.0, 2.0], [2.0, 1.0])), "covariance_matrix.*PositiveDefinite"),
    "WMN, asymmetric": (lambda: multivariate(P, t([1.0, 0.2], [0.1, 1.0])), "covariance_matrix.*PositiveDefinite"),
    "WMN, NaN": (lambda: multivariate(P, NAN * EYE), "covariance_matrix.*PositiveDefinite"),
    "WMN, negative precision": (lambda: multivariate(P, precision_matrix=-EYE), "precision_matrix.*PositiveDefinite"),
    "WMN, upper factor": (lambda: multivariate(P, scale_tril=t([1, 1], [0, 1])), "scale_tril.*LowerCholesky"),
    "WMN, negative factor": (lambda: multivariate(P, scale_tril=-EYE), "scale_tril.*LowerCholesky"),
    "WN.log_prob, sizes": (lambda: normal().log_prob(P3), r"value must match event_shape.*\[4\].*\[3\]"),
    "WN.log_prob, batches": (lambda: normal(P.expand(3, 3)).log_prob(P.expand(4, 3)), r"broadcastable.*4, 3.*3, 3"),
    "ExponentialMap, cache_size = 2": (lambda: HT.ExponentialMap(M, cache_size=2), "cache_size must be 0 or 1"),
}


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", [*VALUES, *ALWAYS])
def test_an_error_names_the_value_the_domain_and_the_remedy(name):
    case = {**VALUES, **ALWAYS}[name]
    with pytest.raises(case.error) as info:
        case.call()
    for part in (case.value, case.domain, case.remedy):
        info.match(f"(?s){part}")


@pytest.mark.parametrize("name", BY_TORCH)
def test_an_error_of_torch_names_the_argument(name):
    call, fragment = BY_TORCH[name]
    with pytest.raises(ValueError, match=f"(?s){fragment}"):
        call()


@pytest.mark.parametrize("name", VALUES)
def test_values_are_not_checked_without_validation(name):
    with pyro.validation_enabled(False):
        VALUES[name].call()


@pytest.mark.parametrize("name", ALWAYS)
def test_shapes_and_dtypes_are_checked_without_validation(name):
    case = ALWAYS[name]
    with pyro.validation_enabled(False), pytest.raises(case.error):
        case.call()


IN_WORDS = r"not on|> 0|NaN|exceed|Positive|Greater|Real"
#: What checks values, of each class that takes ``validate_args``.
ARGUMENTS = {
    "WN, loc": lambda **kwargs: normal(OFF, **kwargs),
    "WN, scale": lambda **kwargs: normal(P, -1.0, **kwargs),
    "WN, value": lambda **kwargs: normal(P, **kwargs).log_prob(OFF),
    "WN, value of an expanded one": lambda **kwargs: normal(P, **kwargs).expand([2]).log_prob(OFF),
    "WN, k": lambda **kwargs: normal(P, 1.0, with_k(-1.0), **kwargs),
    "WMN, loc": lambda **kwargs: multivariate(OFF, EYE, **kwargs),
    "WMN, value": lambda **kwargs: multivariate(P, EYE, **kwargs).log_prob(OFF),
    "WMN, matrix": lambda **kwargs: multivariate(P, t([1.0, 0.2], [0.1, 1.0]), **kwargs),
    "WMN, k": lambda **kwargs: multivariate(P, EYE, manifold=with_k(-1.0), **kwargs),
    "ExponentialMap, loc": lambda **kwargs: HT.ExponentialMap(M, OFF, **kwargs),
    "ExponentialMap, argument": lambda **kwargs: HT.ExponentialMap(M, **kwargs)(t(NAN, 0.0)),
    "ExponentialMap, result": lambda **kwargs: HT.ExponentialMap(M, **kwargs)(2 * FAR),
    "ExponentialMap, inverse": lambda **kwargs: HT.ExponentialMap(M, **kwargs).inv(OFF),
    "ExponentialMap, k": lambda **kwargs: HT.ExponentialMap(with_k(-1.0), **kwargs),
    "ExponentialMap, k of a later call": lambda **kwargs: at_a_bad_k(lambda M: HT.ExponentialMap(M, **kwargs), V),
    "Translation, k of a later call": lambda **kwargs: at_a_bad_k(lambda M: HT.Translation(M, P, **kwargs), P),
    "Translation, loc": lambda **kwargs: HT.Translation(M, OFF, **kwargs),
    "Translation, argument": lambda **kwargs: HT.Translation(M, P, **kwargs)(OFF),
    "Translation, inverse": lambda **kwargs: HT.Translation(M, P, **kwargs).inv(OFF),
    "Translation, k": lambda **kwargs: HT.Translation(with_k(-1.0), P, **kwargs),
    "on_manifold, k": lambda **kwargs: hdist.constraints.on_manifold(with_k(0.0), **kwargs),
    "Checkerboard, side": lambda **kwargs: ph.datasets.Checkerboard(-1.0, **kwargs),
    "Checkerboard, value": lambda **kwargs: ph.datasets.Checkerboard(0.5, **kwargs).log_prob(t(NAN, 0.0)),
    "TwoSpirals, value": lambda **kwargs: ph.datasets.TwoSpirals(**kwargs).log_prob(t(NAN, 0.0)),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_validate_args_is_stronger_than_the_global_setting(name):
    with (
        pyro.validation_enabled(False),
        pytest.raises(ValueError, match=r"not on|> 0|NaN|exceed|Positive|Greater|Real"),
    ):
        ARGUMENTS[name](validate_args=True)
    with pyro.validation_enabled(True):
        ARGUMENTS[name](validate_args=False)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_without_validate_args_the_global_setting_holds(name):
    with pyro.validation_enabled(False):
        ARGUMENTS[name]()
    with pyro.validation_enabled(True), pytest.raises(ValueError, match=IN_WORDS):
        ARGUMENTS[name]()


def test_the_global_setting_holds_for_what_was_made_before():
    for d in (normal(), normal().expand([2]), multivariate(P, EYE)):
        with pyro.validation_enabled(False):
            d.log_prob(OFF)
        with pytest.raises(ValueError, match="not on Lorentz"):
            d.log_prob(OFF)


@pytest.mark.parametrize("loc", [(), (4,), (3, 1), (0,)])
@pytest.mark.parametrize("scale", [(), (4,), (3, 4), (2, 1, 1), (0,)])
def test_one_scale_for_every_direction(loc, scale):
    """A scale (*, 1) is the scale (*, n) of equal entries, in every batch."""
    if (4,) in (loc[-1:], scale[-1:]) and (0,) in (loc, scale):
        return  # these do not broadcast
    one = 0.5 + torch.rand(*scale, 1)
    x = G.exp0(M, 0.3 * torch.randn(*loc, 2))
    short, long = normal(x, one), normal(x, one.expand(*scale, 2))
    assert short.batch_shape == long.batch_shape == torch.broadcast_shapes(loc, scale)
    value = long.sample((3,))
    assert torch.equal(short.log_prob(value.clone()), long.log_prob(value.clone()))
    # Against the normal density of the tangent vector, less the stretch.
    v = G.log0(M, G.translate(M, x, value, inverse=True))
    expected = dist.Normal(0.0, one).log_prob(v).sum(-1) - G.log_volume(M, v)
    torch.testing.assert_close(short.log_prob(value.clone()), expected, rtol=0, atol=1e-9)


#: Accepted, whatever it may look like: the value is exactly what the second function says.
WORKS = {
    "integer scale": (lambda: normal(P, 2).scale, lambda: t(2, 2)),
    "isotropic scale": (lambda: normal(P, t(2.0)).scale, lambda: t(2, 2)),
    "integer k": (lambda: G.exp0(ph.manifolds.Lorentz(4), V), lambda: P4),
    "float32 k, exact": (lambda: G.exp0(geoopt.Lorentz(torch.tensor(4.0)), V), lambda: P4),
    "learnable integer k": (lambda: ph.manifolds.Lorentz(4, learnable=True).k.detach(), lambda: t(4.0)[0]),
    "float32 points on a float64 k": (lambda: G.log0(M, P.float()).double().round(decimals=6), lambda: V),
    "the origin": (lambda: G.log0(M, G.origin(M, 2)), lambda: t(0, 0)),
    "n = 1": (lambda: G.log0(M, G.exp0(M, t(0.5))), lambda: t(0.5)),
    "a network with a mask": (lambda: HT.TangentCoupling(1, Masked(), M)(P).shape, lambda: torch.Size([3])),
    "k of each point": (lambda: G.exp0(BATCHED, V)[..., 0].square() - BATCHED.k, lambda: _space_squared()),
    "float32 context of a float64 network": (
        lambda: conditional().condition(t(1, 2, 3).float())(P).shape,
        lambda: torch.Size([3]),
    ),
}


class Masked(torch.nn.Module):
    """A network whose first tensor is no floating point number, as in Pyro's masked autoregressive networks."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(1, dtype=torch.bool))
        self.linear = torch.nn.Linear(1, 2, dtype=torch.float64)

    def forward(self, x1):
        return self.linear(x1 * self.mask).chunk(2, -1)


def _space_squared():
    return G.exp0(BATCHED, V)[..., 1:].square().sum(-1)


@pytest.mark.parametrize("name", WORKS)
def test_accepted(name):
    actual, expected = (function() for function in WORKS[name])
    assert torch.allclose(actual, expected, rtol=1e-12) if isinstance(actual, torch.Tensor) else actual == expected


NONE = G.exp0(M, torch.zeros(0, 2, dtype=torch.float64))
CONTEXTS = torch.zeros(0, 3, dtype=torch.float64)
EMPTY = {
    "exp0": (lambda: G.exp0(M, NONE[:, 1:]), (0, 3)),
    "exp0 with an empty k": (lambda: G.exp0(geoopt.Lorentz(torch.ones(0)), V), (0, 3)),
    "log0": (lambda: G.log0(M, NONE), (0, 2)),
    "log0, on a line": (lambda: G.log0(M, NONE[:, :2]), (0, 1)),
    "log0, flat": (lambda: G.log0(E, NONE), (0, 3)),
    "log_volume": (lambda: G.log_volume(M, NONE[:, 1:]), (0,)),
    "translate": (lambda: G.translate(M, P, NONE), (0, 3)),
    "translate, on a line": (lambda: G.translate(M, P[:2] * 0 + t(1, 0), NONE[:, :2]), (0, 2)),
    "translate, empty p": (lambda: G.translate(M, NONE, P), (0, 3)),
    "translate_tangent": (lambda: G.translate_tangent(M, V, NONE[:, 1:])[1], (0,)),
    "distance": (lambda: G.distance(M, P, NONE), (0,)),
    "contains": (lambda: G.contains(M, NONE), (0,)),
    "check": (lambda: hdist.constraints.on_manifold(M).check(NONE), (0,)),
    "WN.sample": (lambda: normal().sample((0,)), (0, 3)),
    "WN.log_prob": (lambda: normal().log_prob(NONE), (0,)),
    "WN, empty loc": (lambda: normal(NONE).log_prob(normal(NONE).rsample((2,))), (2, 0)),
    "WN, empty scale": (lambda: normal(P, torch.ones(0, 2)).rsample(), (0, 3)),
    "WN.expand": (lambda: normal().expand([0, 2]).rsample(), (0, 2, 3)),
    "WN.mean": (lambda: normal(NONE).mean, (0, 3)),
    "WMN.log_prob": (lambda: multivariate(P, EYE).log_prob(NONE), (0,)),
    "WMN, empty loc": (lambda: multivariate(NONE, EYE).rsample((2,)), (2, 0, 3)),
    **{
        f"WMN, empty {name}": (
            lambda name=name: multivariate(P, **{name: EYE.expand(0, 2, 2)}).rsample((2,)),
            (2, 0, 3),
        )
        for name in ("covariance_matrix", "precision_matrix", "scale_tril")
    },
    "WMN.log_prob, empty matrix": (lambda: multivariate(P, EYE.expand(3, 0, 2, 2)).log_prob(P), (3, 0)),
    "WMN.expand": (lambda: multivariate(P, EYE).expand([0, 2]).rsample(), (0, 2, 3)),
    "kl": (lambda: kl_divergence(normal(NONE), normal(NONE, 2.0)), (0,)),
    "kl, WMN": (lambda: kl_divergence(multivariate(NONE, EYE), multivariate(NONE, 2 * EYE)), (0,)),
    "kl of Delta": (lambda: kl_divergence(dist.Delta(NONE, event_dim=1), normal()), (0,)),
    "pyro.param": (lambda: pyro.param("p", NONE, constraint=hdist.constraints.on_manifold(M)), (0, 3)),
    **{
        f"{name}{suffix}": (lambda make=make, use=use: use(make()), shape)
        for name, make in {
            "ExponentialMap.inv": lambda: HT.ExponentialMap(M).inv,
            "Translation": lambda: HT.Translation(M, P),
            "tangent coupling": tc,
            "wrapped coupling": lambda: whc(2),
            "conditional coupling": lambda: conditional().condition(CONTEXTS),
            "coupling flow": flow,
            "conditional flow": lambda: flow(context_dim=3).condition(t(1, 2, 3)),
            "lifted affine": lambda: HT.TangentTransform(dist.transforms.AffineTransform(0.0, 2.0), M),
            "lifted spline": lambda: HT.TangentTransform(dist.transforms.spline_coupling(2, 1), M),
            "lifted autoregressive": lambda: HT.TangentTransform(dist.transforms.affine_autoregressive(2), M),
        }.items()
        for suffix, use, shape in [
            ("", lambda f: f(NONE), (0, 2 if "Exp" in name else 3)),
            (", log-det", lambda f: f.log_abs_det_jacobian(NONE, f(NONE)), (0,)),
            (", round trip", lambda f: f.inv(f(NONE).clone()), (0, 3)),
        ]
    },
    "empty context": (lambda: conditional().condition(CONTEXTS)(P), (0, 3)),
    "empty context of a flow": (lambda: flow(context_dim=3).condition(CONTEXTS)(P), (0, 3)),
}


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_batch_works(name):
    call, shape = EMPTY[name]
    assert call().shape == shape
