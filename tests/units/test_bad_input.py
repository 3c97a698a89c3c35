"""Bad input raises an error that names the value, the domain and the remedy."""

import re
import traceback
from functools import partial

import geoopt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.reparam import LocScaleReparam
from torch.distributions import kl_divergence

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from tests.cases import lorentz, point, shaken

G, charts, data = ph.geometry, ph.charts, ph.datasets
on_manifold = hdist.constraints.on_manifold
NAN, INF = float("nan"), float("inf")
M, M4, MANY = lorentz(), lorentz(4.0), geoopt.Lorentz(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
FLAT, SPD = geoopt.Euclidean(1), geoopt.SymmetricPositiveDefinite()
SPHERE, TORUS, ROTATIONS = geoopt.Sphere(), ph.manifolds.Torus(2), ph.manifolds.Rotations()


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


V, P, P3, P4 = t(0.5, -0.3), point(1.0, 0.5, -0.3), point(1.0, 0.5, -0.3, 0.2), point(4.0, 0.5, -0.3)
OFF, NANS, FAR, BEYOND = t(1.0, 0.5, 0.0), t(1.0, NAN, 0.0), point(1.0, 500.0, 0.0), t(1000.0, 0.0)
EYE = torch.eye(2, dtype=torch.float64)
PRODUCT = geoopt.ProductManifold((M, 3), (FLAT, 1))
MIXED = geoopt.ProductManifold((geoopt.Lorentz(t(1.0, 4.0)), 3), (SPHERE, 2))
ON_BOTH = torch.stack([P, point(4.0, 0.5, -0.3)])
RING = torch.tensor([[u, (u + 1) % 6] for u in range(6)])
DIST = t([0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0])  # of a path of three nodes
DRAWS = point(1.0, 0.5, -0.3).expand(2, 5, 4, 3)
FIELD = HT.ContinuousFlow(lambda x, t: x, FLAT)
MATRICES = dist.transforms.AffineTransform(0.0, 2.0, event_dim=2)


pytestmark = pytest.mark.usefixtures("float64")


normal = partial(hdist.WrappedNormal, manifold=M)
multivariate = partial(hdist.WrappedMultivariateNormal, manifold=M)
tc = partial(HT.tangent_coupling, manifold=M)
conditional = partial(HT.conditional_tangent_coupling, manifold=M)
flow = partial(ph.flows.coupling_flow, manifold=M)
polar = partial(HT.polar_coupling, [8], manifold=M)


def with_k(value):
    return geoopt.Lorentz(t(value)[0])


def at_a_bad_k(make, x):
    manifold = lorentz()
    transform = make(manifold)
    manifold.k.data.fill_(-1.0)
    return transform(x)


def shifted(shift):
    return HT.TangentCoupling(1, lambda x1: (x1 + shift, 0 * x1), M)


def scaled(factor, manifold=M, shift=0.0):
    return HT.TangentTransform(dist.transforms.AffineTransform(shift, factor), manifold)


def through(*transforms, loc=P):
    return dist.TransformedDistribution(normal(loc, 1.0), list(transforms))


def batch(value, *shape):
    return value.expand(*shape, *value.shape)


def wrong(call, errors, *fragments):
    """Says what is wrong with the error of a call, whose message must hold each fragment; None if nothing is."""
    try:
        call()
    except Exception as error:
        message = str(error)
        if not isinstance(error, errors):
            return f"{type(error).__name__}: {message}"
        missing = [part for part in fragments if not re.search(rf"(?<!\w){re.escape(part)}(?!\w)", message)]
        return f"{missing} not in: {message}" if missing or len(message) > 600 else None
    return "no error"


def all_wrong(call, errors, values, *common):
    """Says what is wrong with the errors of a call with each value, given as ``name: (value, *fragments)``."""
    found = {name: wrong(partial(call, value), errors, *common, *parts) for name, (value, *parts) in values.items()}
    return {name: what for name, what in found.items() if what}


def is_ours(error):
    """Whether an error is raised by a statement of the package, not by something that it calls."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return "pyro_hyperbolic" in last.filename and "raise " in last.line


# One argument at a time

#: What takes a point of M, by the name that messages give to the argument.
POINTS = {
    "log0: x": partial(G.log0, M),
    "translate: p": lambda x: G.translate(M, x, P),
    "translate: x": partial(G.translate, M, P),
    "distance: x": lambda x: G.distance(M, x, P),
    "distance: y": partial(G.distance, M, P),
    "to_klein: x": partial(charts.to_klein, M),
    "to_normal_coordinates: x": lambda x: charts.to_normal_coordinates(M, x, P),
    "WN: loc": lambda x: normal(x, 1.0),
    "WN: value": lambda x: normal(P, 1.0).log_prob(x),
    "WMN: loc": lambda x: multivariate(x, EYE),
    "WMN: value": lambda x: multivariate(P, EYE).log_prob(x),
    "chart: loc": partial(HT.ExponentialMap, M),
    "inverse: ExponentialMap.inv": HT.ExponentialMap(M).inv,
    "translation: loc": partial(HT.Translation, M),
    "call: Translation": HT.Translation(M, P),
    "inverse: Translation.inv": HT.Translation(M, P).inv,
    "call: Reflection": HT.Reflection(M, V),
    "call: TangentTransform": scaled(2.0),
    "call: WrappedHyperboloidCoupling": HT.wrapped_hyperboloid_coupling(2, manifold=M).double(),
    "call: CouplingFlow": flow(2, 2).double(),
    "inverse: CouplingFlow.inv": flow(2, 2).double().inv,
    "inverse: PolarCoupling.inv": polar().double().inv,
    "polar: data": lambda x: polar(data=x),
}
PROJECT = ("Lorentz(k=1)", "exp0(M, v)", "M.projx(x)")
#: Each with what a message must hold. Values are checked while validating, shapes always.
NO_POINTS = {
    "off": (OFF, "(1, 0.5, 0)", "off by -0.11", *PROJECT),
    "lower sheet": (t(-1.25, 0.75, 0.0), "(-1.25, 0.75, 0)", "x_0 > 0", *PROJECT),
    "another k": (P4, "-4", "-k = -1", *PROJECT),
    "NaN": (NANS, "(1, nan, 0)"),
}
NO_POINT_SHAPES = {"n = 0": (t(1.0), "(1,)", "n >= 1", "exp0"), "scalar": (t(1.0)[0], "()", "n >= 1", "exp0")}

VECTORS = {
    "exp0: v": lambda v: G.exp0(M, v),
    "log_volume: v": lambda v: G.log_volume(M, v),
    "translate_tangent: t": lambda v: G.translate_tangent(M, v, V),
    "translate_tangent: v": lambda v: G.translate_tangent(M, V, v),
    "from_normal_coordinates: v": lambda v: charts.from_normal_coordinates(M, v, P),
    "call: ExponentialMap": lambda v: HT.ExponentialMap(M)(v),
    "reflection: direction": partial(HT.Reflection, M),
}
NO_VECTORS = {"NaN": (t(NAN, 0.0), "NaN"), "infinite": (t(INF, 0.0),)}
NO_VECTOR_SHAPES = {"scalar": (t(1.0)[0], "()", "n >= 1"), "no coordinates": (t(), "(0,)", "n >= 1")}

OTHER_TENSORS = {
    "contains: x": lambda x: G.contains(M, x),
    "check: x": lambda x: on_manifold(M).check(x),
    "from_poincare_ball: p": lambda x: charts.from_poincare_ball(M, x),
    "WN: scale": lambda x: normal(P, x),
    "WMN: covariance_matrix": lambda x: multivariate(P, x),
    "condition: context": lambda x: conditional(2, 3).condition(x),
    "condition a field: context": lambda x: HT.continuous_flow(2, M, field="dense", context_dim=3).condition(x),
}
NO_TENSORS = {
    "manifold": (lorentz(), "Lorentz", "exp0(M, v)", "manifold=M"),
    "array": (np.ones((5000, 3)), "numpy.ndarray", "(5000, 3)", "torch.as_tensor"),
    "list": ([1.0] * 5000, "[1.0, 1.0", "torch.as_tensor"),
    "text": ("1.0", "'1.0'", "tensor"),
    "dtype": (torch.float64, "torch.float64", "tensor"),
    "integers": (torch.ones(3, dtype=torch.long), "torch.int64", ".double()"),
    "booleans": (torch.ones(3, dtype=torch.bool), "torch.bool", ".double()"),
    "complex": (torch.ones(3, dtype=torch.complex128), "torch.complex128", ".real"),
    "8 bits": (torch.ones(3).to(torch.float8_e5m2), "torch.float8_e5m2", ".double()"),
}


@pytest.mark.parametrize("argument", [*POINTS, *VECTORS])
def test_a_value_out_of_the_domain(argument):
    """An error while validating; without validation only shapes are checked."""
    call, name = {**POINTS, **VECTORS}[argument], argument.split(": ")[1]
    values, shapes = (NO_POINTS, NO_POINT_SHAPES) if argument in POINTS else (NO_VECTORS, NO_VECTOR_SHAPES)
    assert all_wrong(call, ValueError, {**values, **shapes}, name) == {}
    with pyro.validation_enabled(False):
        for x, *_ in values.values():
            call(x)
        assert all_wrong(call, ValueError, {what: (x,) for what, (x, *_) in shapes.items()}) == {}


@pytest.mark.parametrize("argument", [*POINTS, *VECTORS, *OTHER_TENSORS])
def test_what_is_no_tensor_of_real_numbers(argument):
    call, name = {**POINTS, **VECTORS, **OTHER_TENSORS}[argument], argument.split(": ")[1]
    one_hot = {"integers", "booleans"} if name == "context" else {}
    values = {what: row for what, row in NO_TENSORS.items() if what not in one_hot}
    assert all_wrong(call, TypeError, values, name) == {}


#: What takes a manifold; None is one where there is a default.
DEFAULT = {
    "WN": lambda M: normal(P, 1.0, manifold=M),
    "WMN": lambda M: multivariate(P, EYE, manifold=M),
    "ExponentialMap": lambda M: HT.ExponentialMap(M),
    "Translation": lambda M: HT.Translation(M, P),
    "Reflection": lambda M: HT.Reflection(M, V),
    "TangentTransform": lambda M: scaled(2.0, M),
    "coupling": lambda M: tc(2, manifold=M),
    "conditional": lambda M: conditional(2, 3, manifold=M),
    "coupling flow": lambda M: flow(2, 2, manifold=M),
    "polar": lambda M: polar(manifold=M),
}
NO_DEFAULT = {
    "origin": lambda M: G.origin(M, 2),
    "exp0": lambda M: G.exp0(M, V),
    "log0": lambda M: G.log0(M, P),
    "translate": lambda M: G.translate(M, P, P),
    "translate_tangent": lambda M: G.translate_tangent(M, V, V),
    "distance": lambda M: G.distance(M, P, P),
    "to_poincare_ball": lambda M: charts.to_poincare_ball(M, P),
    "from_klein": lambda M: charts.from_klein(M, V),
    "to_normal_coordinates": lambda M: charts.to_normal_coordinates(M, P, P),
    "from_normal_coordinates": lambda M: charts.from_normal_coordinates(M, V, P),
    "on_manifold": lambda M: on_manifold(M),
}
ANY_SETTINGS = {"contains": lambda M: G.contains(M, P), "same": lambda M: G.same(lorentz(), M)}
NO_MANIFOLDS = {
    "class": (geoopt.Lorentz, "the class geoopt.Lorentz", "geoopt.Lorentz()"),
    "flat class": (geoopt.Euclidean, "the class geoopt.Euclidean", "geoopt.Euclidean(1)"),
    "stiefel": (geoopt.Stiefel(), "CanonicalStiefel", "geoopt.Lorentz()"),
    "scaled": (geoopt.Scaled(geoopt.Lorentz()), "Scaled", "geoopt.Lorentz()"),
    "tensor": (P, "(3,)", "exp0(M, v)", "manifold=M"),
    "array": (np.ones((50, 3)), "numpy.ndarray", "(50, 3)", "manifold=M"),
    "number": (2.0, "2.0", "geoopt.Lorentz(k=2.0)"),
    "name": ("lorentz", "'lorentz'", "geoopt.Lorentz()", "geoopt.Euclidean or"),
}


@pytest.mark.parametrize("name", [*DEFAULT, *NO_DEFAULT, *ANY_SETTINGS])
def test_what_is_no_manifold(name):
    call = {**DEFAULT, **NO_DEFAULT, **ANY_SETTINGS}[name]
    assert all_wrong(call, TypeError, NO_MANIFOLDS) == {}
    if name in DEFAULT:
        call(None)
    else:
        assert wrong(lambda: call(None), TypeError, "None", "geoopt.Lorentz()") is None
    if name not in ANY_SETTINGS:
        assert wrong(lambda: call(geoopt.Euclidean(0)), ValueError, "ndim = 0", "geoopt.Euclidean(1)") is None
        assert wrong(lambda: call(with_k(-1.0)), ValueError, "k", "= -1", "curvature") is None
    with pyro.validation_enabled(False):
        call(with_k(-1.0))


#: Every other argument of a constructor or a builder: what takes it, with which others, and its name.
ARGUMENTS = [
    (HT.tangent_coupling, {"dim": 2}, ["dim", "hidden_dims", "split_dim", "log_scale_bound"]),
    (HT.wrapped_hyperboloid_coupling, {"dim": 2}, ["shift_bound"]),
    (HT.TangentCoupling, {"split_dim": 1, "hypernet": torch.sin}, ["split_dim", "hypernet"]),
    (HT.ConditionalTangentCoupling, {"split_dim": 1}, ["hypernet"]),
    (HT.TangentTransform, {}, ["transform"]),
    (HT.polar_coupling, {}, ["hidden_dims", "count_bins", "reach", "fixed_angle"]),
    (HT.PolarCoupling, {"radial": torch.sin, "count_bins": 4, "reach": 5.0}, ["angular"]),
    (ph.flows.coupling_flow, {"dim": 2, "layers": 2}, ["layers", "coupling", "hidden_dims", "context_dim"]),
    (ph.flows.CouplingFlow, {}, ["layers"]),
    (ph.flows.ConditionalCouplingFlow, {}, ["layers"]),
    (ph.manifolds.Lorentz, {}, ["k"]),
    (ph.manifolds.Lorentz.from_curvature, {}, ["curvature"]),
    (ph.manifolds.PoincareBall, {}, ["c"]),
    (ph.manifolds.Torus, {}, ["n"]),
    (G.origin, {"manifold": M, "n": 2}, ["n", "dtype"]),
    (G.geodesic, {"manifold": M, "x": P, "y": P}, ["t"]),
    (data.Checkerboard, {}, ["side"]),
    (data.TwoSpirals, {}, ["dtype"]),
    (data.density_target, {"name": "tree"}, ["name", "dtype"]),
    (data.binary_tree, {"depth": 2}, ["depth", "edge_length"]),
    (data.branching_diffusion, {}, ["seed", "depth", "noise_variance", "test_fraction"]),
    (data.random_trees, {"seed": 0, "count": 1}, ["seed", "count", "nodes"]),
    (data.lobsters, {"seed": 0, "count": 1}, ["p1", "p2", "legs"]),
    (ph.metrics.roc_auc, {"scores": t(0, 1), "labels": t(0, 1)}, ["scores", "labels"]),
    (ph.metrics.mean_rank, {"distances": DIST, "adjacent": DIST == 1}, ["distances", "adjacent", "nodes"]),
    (ph.metrics.distortion, {"distances": t(1, 2), "targets": t(1, 2)}, ["distances", "targets", "rescale"]),
    (ph.metrics.coverage, {"lower": t(0), "upper": t(1), "values": t(2)}, ["lower", "upper", "values"]),
    (
        ph.metrics.calibration_error,
        {"probabilities": t(0, 1), "labels": t(0, 1)},
        ["probabilities", "labels", "bins", "strategy"],
    ),
    (ph.metrics.gromov_delta, {"distances": DIST}, ["distances", "base"]),
    (ph.infer.summary, {"samples": DRAWS, "manifold": M}, ["samples", "manifold", "probs", "pairs"]),
    (data.split_edges, {"edges": RING, "num_nodes": 6, "seed": 0}, ["edges", "num_nodes", "seed", "val", "test"]),
    (data.DyadSampler, {"edges": RING, "num_nodes": 6}, ["edges", "num_nodes", "num_edges", "missing", "seed"]),
    (ph.embeddings.tree, {"manifold": M, "edges": RING[:2]}, ["edges", "lengths", "root", "dim", "scale", "dtype"]),
    (ph.embeddings.graph, {"manifold": M, "edges": RING}, ["edges", "num_nodes", "dim"]),
    (ph.infer.log_weights, {"model": print, "guide": print, "num_samples": 1}, ["model", "guide", "max_plate_nesting"]),
    (data.split_points, {"x": V[None], "seed": 0}, ["x", "seed", "val", "distinct"]),
    (data.Board, {"manifold": geoopt.Sphere(), "cells": (2, 2)}, ["manifold", "cells"]),
    (ph.embeddings.complete_distances, {"D": DIST}, ["D", "observed"]),
    (hdist.Uniform, {"manifold": geoopt.Sphere(), "dim": 2}, ["dim", "batch_shape"]),
    (HT.continuous_flow, {"dim": 2}, ["anchors", "num_anchors", "hidden_dims", "steps", "field", "explicit"]),
    (ph.flows.flow_matching_loss, {"flow": FIELD, "x0": V, "x1": V}, ["flow", "x0", "x1", "t"]),
    (ph.infer.AutoWrappedNormal, {"model": print}, ["model", "init_loc_fn", "init_scale", "create_plates"]),
]
NONSENSE = {
    "class": geoopt.Sphere,
    "text": "abc",
    "list": [object()] * 5000,
    "array": np.full((50, 3), NAN),
    "tensor": torch.full((50, 3), NAN),
    "complex": 1j,
    "object": object(),
}


@pytest.mark.parametrize(("make", "others", "names"), ARGUMENTS, ids=[make.__name__ for make, *_ in ARGUMENTS])
def test_nonsense(make, others, names):
    """A short error of our own."""
    calls = {f"{name}, {what}": partial(make, **{**others, name: x}) for name in names for what, x in NONSENSE.items()}
    for name, call in calls.items():
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        assert len(str(caught.value)) <= 600, name
        assert is_ours(caught.value), name


#: What takes a count, its name in errors, and the least that it may be.
COUNTS = [
    (lambda n: HT.DenseField(2, M, [4], n), "context_dim", 1),
    (lambda n: HT.DenseField(2, M, [4], None, n), "frequencies", 0),
    (lambda n: HT.DenseField(n, M, [4]), "dim", 1),
    (lambda n: HT.AnchorField(2, M, n, [4]), "anchors", 1),
    (lambda n: HT.farthest_points(M, P[None], n), "count", 1),
    (lambda n: HT.continuous_flow(2, M, num_anchors=n), "num_anchors", 1),
    (lambda n: HT.continuous_flow(2, M, field="dense", steps=n), "steps", 1),
    (lambda n: HT.continuous_flow(2, M, field="dense", hutchinson_terms=n), "hutchinson_terms", 0),
    (lambda n: HT.AttentionNN(n, [1], 4, 1), "input_dim", 1),
    (lambda n: HT.AttentionNN(1, [n], 4, 1), "param_dims", 1),
    (lambda n: HT.AttentionNN(1, [1], n, 1), "hidden_dim", 1),
    (lambda n: HT.AttentionNN(1, [1], 4, n), "heads", 1),
    (lambda n: HT.AttentionNN(1, [1], 4, 1, n), "layers", 1),
    (lambda n: HT.AttentionNN(1, [1], 4, 1, 1, n), "context_dim", 0),
    (lambda n: HT.factor_coupling(n, 0, manifold=PRODUCT), "dim", 2),
    (lambda n: HT.factor_coupling(3, n, manifold=PRODUCT), "index", 0),
    (lambda n: polar(count_bins=n), "count_bins", 2),
    (lambda n: HT.PolarCoupling(torch.sin, torch.sin, n, 1.0), "count_bins", 2),
    (lambda n: tc(n), "dim", 2),
    (lambda n: tc(2, [n]), "hidden_dim", 1),
    (lambda n: tc(2, split_dim=n), "split_dim", 1),
    (lambda n: conditional(2, n), "context_dim", 1),
    (lambda n: flow(n, 1), "dim", 2),
    (lambda n: flow(2, n), "layers", 1),
    (lambda n: hdist.Uniform(geoopt.Sphere(), n), "dim", 1),
    (lambda n: ph.nn.Gyroplanes(n, 1, M), "dim", 1),
    (lambda n: ph.nn.Gyroplanes(1, n, M), "out_dim", 1),
    (partial(ph.metrics.gromov_delta, DIST), "base", 0),
    (partial(data.random_trees, 0), "count", 0),
    (data.binary_tree, "depth", 0),
    (lambda n: ph.embeddings.tree(M, RING[:2], root=n), "root", 0),
]


def test_counts_have_a_least_value():
    for make, name, least in COUNTS:
        if name != "dim" or least == 1:  # that of the product is given
            make(least)
        assert wrong(lambda: make(least - 1), ValueError, f"{name} = {least - 1}", f"at least {least}") is None, name  # noqa: B023


def graph(*shape, **kwargs):
    return hdist.SoftGeometricGraph(batch(P, *shape, 2), 1.0, 1.0, M, **kwargs)


def scaled_loc():
    with pyro.poutine.reparam(config={"z": LocScaleReparam(0.5)}):
        pyro.sample("z", normal(P, 1.0))


# Rows of a call and of what its message must hold

K, SOFTPLUS, CAST = ("k", "curvature"), ("softplus", "exp"), ("float32", "float64", ".to(...)")
OVERFLOW = ("float64", "scale", "k")
#: Values out of their domain: a ValueError while validating, no check at all otherwise.
VALUES = {
    "second of two": (lambda: G.log0(M, torch.stack([P, OFF])), "1 of 2", "(1, 0.5, 0)"),
    "two of three": (lambda: G.log0(M, torch.stack([P, OFF, 2 * P])), "2 of 3", "(1, 0.5, 0)", "<x, x> = -0.75"),
    "many coordinates": (lambda: G.log0(M, t(*[1.0] * 10)), "(1, 1, 1, 1, 1, 1, ...)"),
    "off the ball": (
        lambda: G.log0(ph.manifolds.PoincareBall(t(4.0, 1.0)), t([0.6, 0.8], [3.0, 4.0])),
        *("2 of 2", "|p| = 1,", "1/sqrt(c) = 0.5"),
    ),
    "off the sphere": (lambda: G.distance(SPHERE, 2 * EYE, EYE), "2 of 2", "norm 2", "normalise"),
    "off the torus": (lambda: G.distance(TORUS, t(0, 4), t(0, 0)), "(0, 4)", "outside [-pi, pi]", "wrap"),
    "no rotation": (
        lambda: G.distance(ROTATIONS, torch.diag(t(2, 1, 1)), torch.eye(3)),
        *("|X^T X - I| = 3 and determinant 2;", "project(M, x)"),
    ),
    "many k": (lambda: G.log0(geoopt.Lorentz(t(1.0, 2.0)), t(1.25, 0.75)), "1 of 2", "-k = -2", "exp0(M, v)"),
    "many k, all off": (
        lambda: G.log0(geoopt.Lorentz(t(1.0, 2.0)), t([1.3, 0.5], [1.25, 0.75])),
        *("2 of 2", "<x, x> = -1.44 where -k = -1 is", "off by 0.16 of itself"),
    ),
    "a factor of many k": (
        lambda: G.exp_at(MIXED, torch.cat([ON_BOTH, 2 * EYE], -1), torch.zeros(2, 4).double()),
        *("2 of 2", "factor 1, Sphere", "norm 2"),
    ),
    "many k of a factor": (
        lambda: G.exp_at(MIXED, torch.cat([ON_BOTH.flip(0), EYE], -1), torch.zeros(2, 4).double()),
        *("2 of 2", "factor 0, Lorentz", "<x, x> = -4 where -k = -1 is"),
    ),
    "rounded to float32": (lambda: G.log0(M4, P4.float().double()), "Lorentz(k=4)", "dtype"),
    "flat, NaN": (lambda: G.log0(FLAT, NANS), "Euclidean()", "(1, nan, 0)"),
    "ball points, log0": (lambda: G.log0(M, t(0.4, 0.3)), "(0.4, 0.3)", "charts.from_poincare_ball(M, p)"),
    "pyro.param": (lambda: pyro.param("p", OFF, constraint=on_manifold(M)), "ExponentialMap.inv", *PROJECT),
    "k = 0": (lambda: on_manifold(with_k(0.0)), "= 0, but", *K),
    "k = -1 of a factor": (
        lambda: G.exp0(geoopt.ProductManifold((with_k(-1.0), 3), (FLAT, 1)), t(0.0, 0.0, 0.0)),
        *("= -1", *K),
    ),
    "k = NaN": (lambda: on_manifold(with_k(NAN)), "= nan", *K),
    "exp0, too far": (lambda: G.exp0(M, BEYOND), "1000", *OVERFLOW),
    "exp0, too far for float32": (lambda: G.exp0(M, t(100.0, 0.0).float()), "100", "torch.float32", *OVERFLOW),
    "translate, too far": (lambda: G.translate(M, FAR, FAR), *OVERFLOW),
    "ExponentialMap, too far": (lambda: HT.ExponentialMap(M)(BEYOND), "ExponentialMap", "1000", *OVERFLOW),
    "WN.sample, too far for float32": (lambda: normal(P.float(), 500.0).sample(), "torch.float32", *OVERFLOW),
    "lifted, too far": (lambda: scaled(1e4)(P), "TangentTransform", "log_scale_bound"),
    "coupling, too far": (lambda: shifted(1e4)(P), "TangentCoupling", "log_scale_bound"),
    "flow, too far": (lambda: ph.flows.CouplingFlow([shifted(1e4)])(P), "CouplingFlow", "log_scale_bound"),
    "coupling, NaN": (lambda: shifted(NAN)(P), "NaN", "network"),
    "reflection, no direction": (lambda: HT.Reflection(M, t([1, 0], [0, 0])), "1 of 2", "[0.0, 0.0]", "e_1"),
    "context NaN": (lambda: conditional(2, 3).condition(t(NAN, 0.0, 0.0))(P), "NaN", "context"),
    "scale 0": (lambda: normal(P, t(1.0, 0.0)), "scale", "= 0", "1 of 2", *SOFTPLUS),
    "scale -1": (lambda: normal(P, -1.0), "scale = -1", *SOFTPLUS),
    "scale infinite": (lambda: normal(P, INF), "scale = inf", *SOFTPLUS),
    "sample through another k": (lambda: through(tc(2, manifold=M4)).sample(), "TangentCoupling", "k=4", "-1", "-4"),
    "log_prob through another k": (lambda: through(tc(2, manifold=M4)).log_prob(P4), "value", "k=1", "-4", "-1"),
    "exp_at, not tangent": (lambda: G.exp_at(geoopt.Sphere(), EYE[0], EYE[0]), "normal part", "up to 1"),
    "flow matching, t": (lambda: ph.flows.flow_matching_loss(HT.continuous_flow(2, M), P, P, t(2.0)), "2", "[0, 1]"),
    "flow matching, t < 0": (
        lambda: ph.flows.flow_matching_loss(HT.continuous_flow(2, M), P, P, t(-0.5)),
        "-0.5",
        "[0, 1]",
    ),
    "composed with another k": (lambda: HT.Translation(M4, P4)(HT.ExponentialMap(M)(V)), "Translation", "k=4", "-1"),
}
BATCHES = ("(3,)", "(4,)")
#: ValueErrors whether or not values are validated: shapes, counts, what does not fit.
SHAPES = {
    "translate, sizes": (lambda: G.translate(M, P, P3), "(3,)", "(4,)", "dimension"),
    "translate_tangent, sizes": (lambda: G.translate_tangent(M, t(1.0), V), "(1,)", "(2,)", "dimension"),
    "contains, n = 0": (lambda: G.contains(M, t(1.0)), "(1,)", "n >= 1", "exp0"),
    "ambient scale": (lambda: normal(P, t(1, 1, 1)), "scale", "(3,)", "n = 2", "(*, 2)", "(*, 1)"),
    "ambient matrix": (lambda: multivariate(P, torch.eye(3)), "(3, 3)", "n = 2", "(*, 2, 2)"),
    "tangent coordinates for loc": (lambda: normal(V, t(1, 1)), "loc", "scale", "(2,)", "exp0(M, loc)"),
    "scale and loc": (lambda: normal(t(1, 1).expand(4, 2), P), "loc", "(4, 2)", "scale", "(3,)", "swap"),
    "no matrix": (lambda: multivariate(P), "covariance_matrix", "precision_matrix", "scale_tril"),
    "two matrices": (lambda: multivariate(P, EYE, scale_tril=EYE), "'covariance_matrix', 'scale_tril'"),
    "layer, larger points": (lambda: tc(2)(batch(P3, 5, 7)), "n = 3", "dim = 2", "split_dim"),
    "flow, smaller points": (lambda: flow(4, 2)(batch(P, 5, 7)), "n = 2", "dim = 4", "split_dim"),
    "polar of three dimensions": (lambda: polar()(batch(P3, 5, 7)), "n = 3", "coupling_flow"),
    "reflection, sizes": (lambda: HT.Reflection(M, V)(P3), "direction", "(2,)", "(4,)", "n = 2"),
    "reflection, batches": (lambda: HT.Reflection(M, batch(V, 3))(batch(P, 4)), *BATCHES, "unsqueeze"),
    "network, sizes": (lambda: HT.TangentCoupling(1, lambda _: (V, V), M)(P), "shift", "(2,)", "= 1", "param_dims"),
    "network, sizes in a batch": (
        lambda: HT.TangentCoupling(1, lambda _: (t([1] * 5), t([1])), M)(batch(P, 1)),
        *("shift", "(1, 5)", "= 1"),
    ),
    "network, sizes of one output": (
        lambda: HT.TangentCoupling(1, lambda x1: (batch(V, 5, 7), x1), M)(batch(P3, 5, 7)),
        *("log_scale", "(5, 7, 1)", "= 2"),
    ),
    "context, sizes": (lambda: conditional(2, 3).condition(t(1, 2)), "context", "(2,)", "context_dim = 3", "(*, 3)"),
    "context, more": (lambda: conditional(2, 3).condition(t(1, 2, 3, 4)), "(4,)", "context_dim = 3", "(*, 3)"),
    "context, a number": (lambda: conditional(2, 3).condition(t(1)[0]), "()", "context_dim = 3", "(*, 3)"),
    "context of a field, batches": (
        lambda: HT.continuous_flow(2, M, field="dense", context_dim=1).condition(torch.zeros(3, 1))(batch(P, 4)),
        "context (3,)",
        "points (4,)",
    ),
    "context, batches": (
        lambda: conditional(2, 3).condition(batch(t(1, 2, 3), 3))(batch(P, 2, 4)),
        "context (3,)",
        "(2, 4)",
    ),
    "distance, batches": (lambda: G.distance(M, batch(P, 3), batch(P, 4)), "x (3,)", "y (4,)", "unsqueeze"),
    "WN, batches": (lambda: normal(batch(P, 3), batch(V, 4)), "loc (3,)", "scale (4,)", "unsqueeze"),
    "WMN, batches": (lambda: multivariate(batch(P, 3), batch(EYE, 4)), "loc (3,)", "covariance_matrix (4,)"),
    "n = 0": (lambda: G.origin(M, 0), "n = 0", "at least 1"),
    "hidden_dims = []": (lambda: tc(2, []), "hidden_dims = []", "[20]"),
    "hidden_dims = 32": (lambda: tc(2, 32), "hidden_dims = 32", "[20]"),
    "context_dim = 0": (lambda: conditional(2, 0), "context_dim = 0", "at least 1"),
    "split_dim = 0": (lambda: HT.TangentCoupling(0, torch.sin, M), "split_dim = 0", "at least 1"),
    "split_dim = n, called": (lambda: HT.TangentCoupling(2, torch.sin, M)(P), "split_dim = 2", "dim = 2"),
    "split_dim = n, built": (lambda: tc(3, split_dim=3), "split_dim = 3", "dim = 3"),
    "layer, dim = 1": (lambda: tc(1), "dim = 1", "at least 2", "TangentTransform"),
    "flow, dim = 1": (lambda: flow(1, 2), "dim = 1", "at least 2", "TangentTransform"),
    "layers = 0": (lambda: flow(2, 0), "layers = 0", "at least 1"),
    "no layers": (lambda: ph.flows.CouplingFlow([]), "layers", "at least 1"),
    "log_scale_bound = 0": (lambda: tc(2, log_scale_bound=0.0), "log_scale_bound = 0.0", "None"),
    "shift_bound = NaN": (lambda: HT.wrapped_hyperboloid_coupling(2, shift_bound=NAN), "shift_bound = nan", "None"),
    "reach = 0": (lambda: polar(reach=0.0), "reach = 0.0"),
    "count_bins = 1": (lambda: polar(count_bins=1), "count_bins = 1", "at least 2"),
    "fixed_angle infinite": (lambda: polar(fixed_angle=INF), "fixed_angle = inf", "radians"),
    "cache_size = 2": (lambda: HT.ExponentialMap(M, cache_size=2), "cache_size", "0 or 1"),
    "Lorentz(0)": (lambda: ph.manifolds.Lorentz(0.0), "= 0", *K),
    "Lorentz(inf)": (lambda: ph.manifolds.Lorentz(INF), "= inf", *K),
    "Lorentz of a batch": (lambda: ph.manifolds.Lorentz(t(1.0, -2.0)), "= -2", "1 of 2", *K),
    "positive curvature": (lambda: ph.manifolds.Lorentz.from_curvature(0.5), "curvature = 0.5", "geoopt.Euclidean(1)"),
    "lift a sigmoid": (lambda: HT.TangentTransform(dist.transforms.SigmoidTransform(), M), "SigmoidTransform", "R^n"),
    "lift a map of M": (lambda: HT.TangentTransform(HT.Translation(M, P), M), "Translation", "R^n"),
    "lift matrices": (
        lambda: HT.TangentTransform(dist.transforms.AffineTransform(0.0, 2.0, event_dim=2), M),
        "event dimension 0 or 1",
        "R^n",
    ),
    "a triangular n": (lambda: HT.ExponentialMap(SPD).forward_shape((4,)), "n = 4", "10"),
    "two curvatures": (lambda: ph.flows.CouplingFlow([tc(2), tc(2, manifold=M4)]), "layer 1", "k=4", "k=1"),
    "splits": (
        lambda: ph.flows.CouplingFlow([tc(3, split_dim=d) for d in (1, 2, 2)]),
        *("layer 2", "split_dim = 2", "layer 0 has 1"),
    ),
    "trees of one node": (lambda: data.random_trees(0, 1, nodes=(1, 5)), "least", "= 1", "at least 2"),
    "trees, largest first": (lambda: data.random_trees(0, 1, nodes=(9, 5)), "largest", "= 5", "at least 9"),
    "trees, count": (lambda: data.random_trees(0, -1), "count = -1", "at least 0"),
    "lobsters, p1": (lambda: data.lobsters(0, 1, p1=1.0), "p1 = 1.0", "below 1"),
    "lobsters, p2": (lambda: data.lobsters(0, 1, p2=-0.1), "p2 = -0.1", "at least 0"),
    "lobsters, legs": (lambda: data.lobsters(0, 1, legs="two"), "legs = 'two'", '"one"', '"geometric"'),
    "split, a node": (lambda: data.split_edges(RING, 5, 0), "(4, 5)", "0 to 4", "num_nodes"),
    "split, a negative node": (lambda: data.split_edges(RING - 1, 6, 0), "(-1, 0)", "0 to 5", "from 0"),
    "split, seed": (lambda: data.split_edges(RING, 6, 2**64), f"seed = {2**64}", f"at most {2**64 - 1}"),
    "split, a loop": (lambda: data.split_edges(RING // 2, 6, 0), "(0, 0)", "loops", "remove it"),
    "split, an edge twice": (lambda: data.split_edges(torch.cat([RING, RING[:2].flip(-1)]), 6, 0), "2 of 8", "once"),
    "split, shape": (lambda: data.split_edges(RING.T, 6, 0), "(2, 6)", "(E, 2)"),
    "split, no edges": (lambda: data.split_edges(RING[:0], 6, 0), "(0, 2)", "E >= 1"),
    "split, val": (lambda: data.split_edges(RING, 6, 0, val=-0.1), "val = -0.1", "at least 0"),
    "split, nothing to train on": (lambda: data.split_edges(RING, 6, 0, 0.5, 0.5), "6 of 6 edges", "smaller"),
    "split, a full graph": (
        lambda: data.split_edges(torch.combinations(torch.arange(6)), 6, 0, 0.0, 0.1),
        *("1 pairs without an edge", "has 0", "smaller fractions"),
    ),
    "split, no match": (
        lambda: data.split_edges(torch.combinations(torch.arange(6))[1:], 6, 4, 0.0, 0.1, matched=True),
        *("to match", "matched=False"),
    ),
    "split points, seed": (lambda: data.split_points(DIST, 2**64), f"seed = {2**64}", f"at most {2**64 - 1}"),
    "missing, a node": (lambda: data.DyadSampler(RING, 6, missing=RING + 1), "missing", "(5, 6)", "0 to 5"),
    "missing, an edge": (lambda: data.DyadSampler(RING, 6, missing=RING[:1]), "edges with missing", "again"),
    "geodesic, batches": (lambda: G.geodesic(M, batch(P, 3), P, torch.zeros(4)), "points (3,)", "t (4,)", "unsqueeze"),
    "times, batches": (
        lambda: ph.flows.flow_matching_loss(FIELD, batch(V, 3), batch(V, 3), torch.zeros(4)),
        *("points (3,)", "t (4,)", "unsqueeze"),
    ),
    **{
        f"scores {tuple(x.shape)}, labels {tuple(y.shape)}": (
            lambda x=x, y=y: ph.metrics.roc_auc(x, y),
            *(f"scores has shape {tuple(x.shape)}", f"labels {tuple(y.shape)}", "(*, N)"),
        )
        for x, y in ((t(1, 2, 3), t(0, 1)), (t(1, 2), t(0, 1, 1)), (t(1)[0], t(0, 1)), (t(1, 2), t(1)[0]))
    },
    "scores, NaN": (lambda: ph.metrics.average_precision(t(1, NAN), t(0, 1)), "scores", "nan"),
    "scores, batches": (lambda: ph.metrics.roc_auc(t(0, 1).expand(3, 2), t(0, 1).expand(4, 2)), *BATCHES),
    "labels, -1": (lambda: ph.metrics.roc_auc(t(1, 2), t(-1, 1)), "labels", "-1", "0 or 1"),
    "labels, all equal": (
        lambda: ph.metrics.average_precision(t(1, 2, 3), t([0, 1, 1], [1, 1, 1])),
        "3 positives among 3",
    ),
    "labels, none": (lambda: ph.metrics.roc_auc(t(), t()), "0 positives among 0"),
    "ranks, sizes": (lambda: ph.metrics.mean_rank(DIST, DIST[:2] == 1), "(3, 3)", "(2, 3)", "nodes"),
    "ranks, a block": (lambda: ph.metrics.mean_rank(DIST[:2], DIST[:2] == 1), "2 rows of 3 nodes", "nodes, (2,)"),
    "ranks, no such node": (
        lambda: ph.metrics.mean_average_precision(DIST[:2], DIST[:2] == 1, torch.tensor([1, 3])),
        *("nodes = 1..3", "0 to 2"),
    ),
    "ranks, a node below 0": (
        lambda: ph.metrics.mean_rank(DIST[:2], DIST[:2] == 1, torch.tensor([-1, 0])),
        *("nodes = -1..0", "0 to 2"),
    ),
    "ranks, its own neighbour": (lambda: ph.metrics.mean_rank(DIST, DIST < 2), "adjacent", "fill_diagonal_(False)"),
    "ranks, no edge": (lambda: ph.metrics.mean_rank(DIST, DIST > 2), "adjacent", "needs an edge"),
    "ranks, NaN": (lambda: ph.metrics.mean_rank((1.5 - DIST).log(), DIST == 1), "distances", "nan"),
    "distortion, target 0": (lambda: ph.metrics.distortion(t(1, 2), t(1, 0)), "targets", "holds 0", "> 0"),
    "distortion, negative": (lambda: ph.metrics.distortion(t(1, -1), t(1, 1)), "distances", "-1", ">= 0"),
    "distortion, no pairs": (lambda: ph.metrics.distortion(t(), t()), "distances", "(0,)", "nothing"),
    "coverage, swapped": (lambda: ph.metrics.coverage(t(1, 2), t(3, 1), t(0, 0)), "lower", "holds 2", "swap"),
    "coverage, numbers": (lambda: ph.metrics.coverage(0.0, 1.0, 0.5), "values ()", "(*, N)"),
    "coverage, sizes": (lambda: ph.metrics.coverage(t(1), t(3), t(0, 0)), "values (2,)", "(*, N)"),
    "coverage, NaN": (lambda: ph.metrics.coverage(t(1), t(3), t(NAN)), "values", "nan"),
    "calibration, logits": (lambda: ph.metrics.calibration_error(t(1, -1), t(0, 1)), "-1", "[0, 1]", "sigmoid"),
    "calibration, labels": (lambda: ph.metrics.calibration_error(t(1, 0), t(0, 2)), "labels", "2", "0 or 1"),
    "calibration, bins": (lambda: ph.metrics.calibration_error(t(1), t(1), 0), "bins = 0", "at least 1"),
    "calibration, strategy": (lambda: ph.metrics.calibration_error(t(1), t(1), 3, "mass"), "'mass'", "'quantile'"),
    **{
        f"delta, {tuple(x.shape)}": (lambda x=x: ph.metrics.gromov_delta(x), f"{tuple(x.shape)}", "(*, N, N)")
        for x in (DIST[:2], DIST[:, :2], DIST[0], DIST[:0, :0])
    },
    "delta, asymmetric": (lambda: ph.metrics.gromov_delta(DIST + DIST.triu()), "D - D.mT", "1", "(D + D.mT) / 2"),
    "delta, diagonal": (lambda: ph.metrics.gromov_delta(DIST + 1), "diagonal", "1", "fill_diagonal_(0)"),
    "delta, of scores": (lambda: ph.metrics.gromov_delta(-DIST), "distances", "holds -1", ">= 0", "minus scores"),
    "delta, a hole": (lambda: ph.metrics.gromov_delta(1 / (DIST - 1)), "inf", "shortest paths"),
    "delta, base": (lambda: ph.metrics.gromov_delta(DIST, 3), "base = 3", "below 3"),
    "summary, no points": (lambda: ph.infer.summary(DRAWS[..., 0, 0], M), "(2, 5)", "(chains, draws", "group_by_chain"),
    "summary, no chains": (lambda: ph.infer.summary(DRAWS[:0], M), "(0, 5, 4, 3)", "(chains, draws"),
    "summary, 3 draws": (lambda: ph.infer.summary(DRAWS[:, :3], M), "(2, 3, 4, 3)", "at least 4 draws"),
    "summary, no site": (lambda: ph.infer.summary({"z": DRAWS}, {"y": M}), "'y'", "['z']"),
    "summary, probs": (lambda: ph.infer.summary(DRAWS, M, probs=(0.5, 1)), "1.0", "between 0 and 1"),
    "summary, pairs": (lambda: ph.infer.summary(DRAWS, M, pairs=torch.tensor([[0, 4]])), "0..4", "4 points", "0 to 3"),
    "summary, pairs below 0": (lambda: ph.infer.summary(DRAWS, M, pairs=torch.tensor([[-1, 0]])), "-1..0", "0 to 3"),
    "summary, sets of pairs": (
        lambda: ph.infer.summary(DRAWS, M, pairs=torch.zeros(1, 1, 2, dtype=torch.int64)),
        *("shape (1, 1, 2)", "(P, 2)"),
    ),
    "summary, no pairs of three": (
        lambda: ph.infer.summary(DRAWS, M, pairs=torch.zeros(0, 3, dtype=torch.int64)),
        *("<empty of shape (0, 3)>", "(P, 2)"),
    ),
    "with_cache(2)": (lambda: HT.ExponentialMap(M).with_cache(2), "cache_size = 2", "0 or 1"),
    "explicit": (lambda: HT.continuous_flow(2, M, explicit="sideways"), "'sideways'", "forward"),
    "field, context": (lambda: HT.AnchorField(2, M, 3, [4], 3)(P, t(0.5)[0], V), "2", "context_dim = 3"),
    "field, size": (lambda: HT.AnchorField(2, M, 3, [4])(P3, t(0.5)[0]), "(4,)", "dim = 2", "(*, 3)"),
    "one anchor": (lambda: HT.farthest_points(M, P[None, None], 2), "(1, 1, 3)", "list of points"),
    "no data": (lambda: HT.farthest_points(M, batch(P, 0), 2), "(0, 3)", "one or more"),
    "anchors, sizes": (lambda: HT.AnchorField(2, M, P3.expand(4, 4)), "(4, 4)", "n = 2", "(J, 3)"),
    "anchors, no list": (lambda: HT.AnchorField(2, M, P), "(3,)", "n = 2", "(J, 3)"),
    "anchors, none": (lambda: HT.AnchorField(2, M, batch(P, 0)), "(0, 3)", "n = 2", "(J, 3)"),
    "mixture field, no data": (lambda: HT.continuous_flow(2, M, field="mixture"), "'mixture'", "anchors="),
    "no torus": (lambda: ph.manifolds.Torus(0), "n = 0", "at least 1"),
    "product, n": (lambda: G.origin(PRODUCT, 4), "3 dimensions", "4 were requested"),
    "frequencies, scale": (lambda: HT.DenseField(2, M, [4], frequency_scale=-1.0), "-1.0", "> 0"),
    "frequencies, scales": (lambda: HT.DenseField(2, M, [4], frequency_scale=(1.0, 2.0, 3.0)), "3 entries", "pair"),
    "torus, n": (lambda: HT.DenseField(3, ph.manifolds.Torus(2)), "Torus(2)", "3 were requested"),
    "rotations, n": (lambda: HT.DenseField(2, ph.manifolds.Rotations()), "3 dimensions", "2 were requested"),
    "a part of a sphere": (lambda: hdist.Uniform(geoopt.Sphere(EYE), 1), "intersection", "geoopt.Sphere()"),
    "lift what has no inverse": (lambda: HT.TangentTransform(dist.transforms.AbsTransform(), M), "no inverse"),
    "mask, sizes": (lambda: ph.embeddings.complete_distances(DIST, DIST[:2] == 1), "(2, 3)", "(3, 3)"),
    "unknown conditional": (lambda: flow(2, 2, lambda: None, context_dim=2), "ConditionalCouplingFlow"),
}
NO_CONTEXT = ("ConditionalTangentCoupling", ".condition(context)")
NO_CONTEXT_OF_A_FLOW = ("ConditionalCouplingFlow", ".condition(context)")
#: TypeErrors: mixed dtypes, and arguments in the wrong place.
TYPES = {
    "translate, mixed": (lambda: G.translate(M, P, P.float()), "p", "x", *CAST),
    "translate_tangent, mixed": (lambda: G.translate_tangent(M, V, V.float()), "t", "v", *CAST),
    "WN, mixed": (lambda: normal(P, V.exp().float()), "loc", "scale", *CAST),
    "WMN, mixed": (lambda: multivariate(P, EYE.float()), "loc", "covariance_matrix", *CAST),
    "WN.log_prob, mixed": (lambda: normal(P, 1.0).log_prob(P.float()), "loc", *CAST),
    "Translation, mixed": (lambda: HT.Translation(M, P)(P.float()), "loc", "x", *CAST),
    "split, edges of bytes": (lambda: data.split_edges(RING.byte(), 6, 0), "torch.uint8", "int64", "edges.long()"),
    "split, matched": (lambda: data.split_edges(RING, 6, 0, matched="no"), "matched = 'no'", "True or False"),
    "split, edges of floats": (lambda: data.split_edges(RING.double(), 6, 0), "torch.float64", "integers"),
    "edges, no path": (lambda: data.edge_list(RING), "path", "(6, 2)", "pathlib.Path"),
    "Reflection, mixed": (lambda: HT.Reflection(M, V)(P.float()), "direction", "x", *CAST),
    "Reflection of matrices": (lambda: HT.Reflection(SPD, V), "curvature", "HT.TangentTransform", "Householder"),
    "Reflection of a product": (lambda: HT.Reflection(PRODUCT, V), "Lorentz(2) x Euclidean(1)", "factor"),
    "layer, mixed": (lambda: tc(2)(P.float()), "network", "points", *CAST),
    "flow, mixed": (lambda: flow(2, 2).float()(P), "network", "points", *CAST),
    "context, mixed": (lambda: conditional(2, 2).float().condition(V)(P.float()), "network", "context", *CAST),
    "polar, mixed": (lambda: polar().float()(P), "network", "points", *CAST),
    "polar, mixed, back": (lambda: polar().float().inv(P), "network", "points", *CAST),
    "manifold for scale": (lambda: hdist.WrappedNormal(P, M), "scale", "Lorentz", "manifold=M"),
    "manifold for precision": (lambda: multivariate(P, EYE, M), "precision_matrix", "Lorentz", "manifold=M"),
    "manifold for hypernet": (lambda: HT.TangentCoupling(1, M), "hypernet", "Lorentz", "network"),
    "network, one output": (lambda: HT.TangentCoupling(1, torch.sin, M)(P), "hypernet", "(shift, log_scale)"),
    "network, None": (lambda: HT.TangentCoupling(1, lambda _: (None, None), M)(P), "(None, None)", "param_dims"),
    "no context": (lambda: conditional(2, 3)(P), *NO_CONTEXT),
    "no context, flow": (lambda: flow(2, 2, context_dim=3)(P), *NO_CONTEXT_OF_A_FLOW),
    "no context, in a distribution": (lambda: through(flow(2, 2, context_dim=3)), *NO_CONTEXT_OF_A_FLOW),
    "no context, layer 1": (lambda: ph.flows.CouplingFlow([tc(2), conditional(2, 3)]), "layer 1", *NO_CONTEXT),
    "context of no use": (lambda: ph.flows.ConditionalCouplingFlow([tc(2)]), "layer 0", "CouplingFlow"),
    "no coupling": (lambda: ph.flows.CouplingFlow([HT.Translation(M, P)]), "Translation", "ComposeTransformModule"),
    "lift a network": (lambda: HT.TangentTransform(torch.nn.Linear(2, 2), M), "Linear", "bijection"),
    "field": (lambda: HT.continuous_flow(2, M, field="x"), "'x'", "'anchor', 'mixture', 'dense'"),
    "compile a function": (lambda: HT.ContinuousFlow(torch.sub, M).compile(), "field = ", "module"),
    "WHC on SPD": (
        lambda: HT.WrappedHyperboloidCoupling(1, torch.sin, SPD),
        "smaller",
        "tangent_coupling",
    ),
    "translate_tangent on SPD": (lambda: G.translate_tangent(SPD, t(1, 0, 0), t(0, 1, 0)), "Nested", "translate(M"),
    "mean, dim": (lambda: G.frechet_mean(M, batch(P, 4), dim="0"), "dim = '0'", "1 batch dimensions"),
    "summary, one manifold for sites": (lambda: ph.infer.summary({"z": DRAWS}, M), "Lorentz", '{"z": M}'),
    "summary, of a list": (lambda: ph.infer.summary([DRAWS], {"z": M}), "samples = ", "get_samples"),
    "a number of NumPy": (lambda: ph.embeddings.graph(M, RING, np.int64(6)), "num_nodes", "at least 1", "int(...)"),
    "distances, sparse": (lambda: ph.metrics.gromov_delta(DIST.to_sparse()), "sparse", "distances.to_dense()"),
    "scores, too large": (
        lambda: ph.metrics.roc_auc(np.array([2**64 - 1], "uint64"), t(1)),
        f"above {2**63 - 1}",
    ),
    "plates, no names": (lambda: ph.infer.AutoWrappedNormal(print, amortized_plates=[1]), "[1]", "names of plates"),
    "a guide of no model": (lambda: ph.infer.AutoWrappedNormal(3), "model = 3", "function"),
}
ESTIMATE = ("p.rsample", "p.log_prob(x) - q.log_prob(x)")
#: What has no closed form.
UNDEFINED = {
    "kl, two locations": (lambda: kl_divergence(normal(P, 1.0), normal(G.origin(M, 2), 1.0)), *ESTIMATE),
    "kl, two k": (lambda: kl_divergence(normal(P, 1.0), normal(P4, 1.0, manifold=M4)), "k=1", "k=4", *ESTIMATE),
    "kl, two classes": (lambda: kl_divergence(normal(P, 1.0), multivariate(P, EYE)), "WrappedNormal", *ESTIMATE),
    "variance": (lambda: normal(P, 1.0).variance, "log0(M, translate(M, loc, x, inverse=True))"),
    "variance of a ball": (lambda: hdist.UniformBall(P, 1.0).variance, "UniformBall", "squared_distance"),
    "mean of a uniform": (lambda: hdist.Uniform(geoopt.Sphere(), 2).mean, "Uniform", "ph.infer.summary"),
    "LocScaleReparam": (lambda: scaled_loc(), "WrappedNormal on Lorentz(k=1)", "'z'", "TransformReparam"),
    "log-det of a projection": (lambda: HT.Projection(geoopt.Sphere()).log_abs_det_jacobian(P, P), "LiftReparam"),
    "entropy": (lambda: normal(P, 1.0).entropy(), "-d.log_prob(d.rsample((1000,))).mean(0)"),
}
#: ValueErrors while validating; torch may raise another one without. Some are its own.
WHILE_VALIDATING = {
    "indefinite": (lambda: multivariate(P, t([1.0, 2.0], [2.0, 1.0])), "covariance_matrix", "PositiveDefinite"),
    "asymmetric": (lambda: multivariate(P, t([1.0, 0.2], [0.1, 1.0])), "covariance_matrix", "PositiveDefinite"),
    "NaN": (lambda: multivariate(P, NAN * EYE), "covariance_matrix", "PositiveDefinite"),
    "upper factor": (lambda: multivariate(P, scale_tril=t([1, 1], [0, 1])), "scale_tril", "LowerCholesky"),
    "summary, off M": (lambda: ph.infer.summary({"z": DRAWS + 1}, {"z": M}), "z is not on Lorentz(k=1)"),
    "k, batches": (lambda: G.log0(MANY, torch.ones(4, 3)), "x (4,)", "k", "(3,)", "unsqueeze"),
    "a product": (lambda: G.log0(geoopt.ProductManifold((M, 3), (FLAT, 2)), torch.zeros(3)), "(*, 5)", "(3,)"),
    "an indefinite matrix": (lambda: G.log0(SPD, t([2.0, 0.0], [0.0, -1.0])), "eigenvalue -1"),
    "a skew matrix": (lambda: G.log0(SPD, t([2.0, 0.5], [0.25, 1.0])), "= 0.25", "(x + x.mT) / 2"),
    "event shape": (lambda: normal(P, 1.0).log_prob(P3), "event_shape", "[4]", "[3]"),
    "batch shape of a graph": (lambda: graph(3).log_prob(torch.zeros(4, 2, 2)), "value (4,)", "distribution (3,)"),
    "batch shape": (lambda: normal(batch(P, 3), 1.0).log_prob(batch(P, 4)), "value (4,)", "distribution (3,)"),
}
ERRORS = [(VALUES, ValueError), (SHAPES, ValueError), (TYPES, TypeError), (UNDEFINED, NotImplementedError)]
ERRORS += [(WHILE_VALIDATING, ValueError)]


@pytest.mark.parametrize(
    ("table", "error", "name"), [pytest.param(*row, name, id=name) for row in ERRORS for name in row[0]]
)
def test_error(table, error, name):
    """Values are checked while validating only, everything else always."""
    call, *fragments = table[name]
    assert wrong(call, error, *fragments) is None
    with pyro.validation_enabled(False):
        if table is VALUES:
            call()
        elif table is not WHILE_VALIDATING:
            assert wrong(call, error) is None


# validate_args

#: What checks values, of each class that takes ``validate_args``.
CHECKED = {
    "WN, loc": lambda **kwargs: normal(OFF, 1.0, **kwargs),
    "WN, scale": lambda **kwargs: normal(P, -1.0, **kwargs),
    "WN, k": lambda **kwargs: normal(P, 1.0, **{"manifold": with_k(-1.0), **kwargs}),
    "WN, value": lambda **kwargs: normal(P, 1.0, **kwargs).log_prob(OFF),
    "WN, value of an expanded one": lambda **kwargs: normal(P, 1.0, **kwargs).expand([2]).log_prob(OFF),
    "WMN, value": lambda **kwargs: multivariate(P, EYE, **kwargs).log_prob(OFF),
    "WMN, matrix": lambda **kwargs: multivariate(P, t([1.0, 0.2], [0.1, 1.0]), **kwargs),
    "ExponentialMap, loc": lambda **kwargs: HT.ExponentialMap(M, OFF, **kwargs),
    "ExponentialMap, argument": lambda **kwargs: HT.ExponentialMap(M, **kwargs)(t(NAN, 0.0)),
    "ExponentialMap, result": lambda **kwargs: HT.ExponentialMap(M, **kwargs)(BEYOND),
    "ExponentialMap, inverse": lambda **kwargs: HT.ExponentialMap(M, **kwargs).inv(OFF),
    "ExponentialMap, k of a later call": lambda **kwargs: at_a_bad_k(lambda M: HT.ExponentialMap(M, **kwargs), V),
    "Translation, k of a later call": lambda **kwargs: at_a_bad_k(lambda M: HT.Translation(M, P, **kwargs), P),
    "Translation, loc": lambda **kwargs: HT.Translation(M, OFF, **kwargs),
    "Translation, argument": lambda **kwargs: HT.Translation(M, P, **kwargs)(OFF),
    "Reflection, direction": lambda **kwargs: HT.Reflection(M, 0 * V, **kwargs),
    "Reflection, argument": lambda **kwargs: HT.Reflection(M, V, **kwargs)(OFF),
    "on_manifold, k": lambda **kwargs: on_manifold(with_k(0.0), **kwargs),
    "Checkerboard, side": lambda **kwargs: data.Checkerboard(-1.0, **kwargs),
    "Checkerboard, value": lambda **kwargs: data.Checkerboard(0.5, **kwargs).log_prob(t(NAN, 0.0)),
    "SoftGeometricGraph, value": lambda **kwargs: graph(**kwargs).log_prob(torch.full((2, 2), 0.5)),
    "TwoSpirals, value": lambda **kwargs: data.TwoSpirals(**kwargs).log_prob(t(NAN, 0.0)),
}


@pytest.mark.parametrize("name", CHECKED)
def test_validate_args_is_stronger_than_the_global_setting(name):
    call = CHECKED[name]
    with pyro.validation_enabled(False):
        assert wrong(lambda: call(validate_args=True), ValueError) is None
        call()
    with pyro.validation_enabled(True):
        assert wrong(call, ValueError) is None
        call(validate_args=False)


def test_the_global_setting_holds_for_what_was_made_before():
    for d in (normal(P, 1.0), normal(P, 1.0).expand([2]), multivariate(P, EYE)):
        with pyro.validation_enabled(False):
            d.log_prob(OFF)
        assert wrong(lambda d=d: d.log_prob(OFF), ValueError, *PROJECT) is None


# What works

ONE, TWO = t([0.5], [0.7], [1.1]), t([0.5, 0.5], [0.7, 0.7], [1.1, 1.1])
CENTRES = torch.stack([P, G.origin(M, 2)]).unsqueeze(1)


def context_of(dtype):
    return shaken(conditional(2, 2)).condition(torch.tensor([0, 1], dtype=dtype))(P)


#: The value is exactly what the second function says.
WORKS = {
    "integer scale": (lambda: normal(P, 2).scale, lambda: t(2, 2)),
    "isotropic scales": (lambda: normal(CENTRES, ONE).log_prob(P), lambda: normal(CENTRES, TWO).log_prob(P)),
    "integer k": (lambda: G.exp0(ph.manifolds.Lorentz(4), V), lambda: P4),
    "float32 k, exact": (lambda: G.exp0(geoopt.Lorentz(torch.tensor(4.0)), V), lambda: P4),
    "float32 points, float64 k": (lambda: G.log0(M, P.float()).double().round(decimals=6), lambda: V),
    "float32 context": (lambda: context_of(torch.float32), lambda: context_of(torch.float64)),
    "integer context": (lambda: context_of(torch.long), lambda: context_of(torch.float64)),
}


@pytest.mark.parametrize("name", WORKS)
def test_what_works(name):
    actual, expected = (function() for function in WORKS[name])
    assert torch.allclose(actual, expected, rtol=1e-12)


NONE, CONTEXTS = P.expand(0, 3), torch.zeros(0, 3, dtype=torch.float64)
#: Beside the forward maps, for which this is a law.
EMPTY = {
    "exp0 with an empty k": (lambda: G.exp0(geoopt.Lorentz(torch.ones(0)), V), (0, 3)),
    "log0": (lambda: G.log0(M, NONE), (0, 2)),
    "log0, flat": (lambda: G.log0(FLAT, NONE), (0, 3)),
    "log_volume": (lambda: G.log_volume(M, NONE), (0,)),
    "translate_tangent": (lambda: G.translate_tangent(M, P, NONE)[1], (0,)),
    "distance": (lambda: G.distance(M, P, NONE), (0,)),
    "WN": (lambda: normal(NONE, 1.0).log_prob(normal(NONE, 1.0).rsample((2,))), (2, 0)),
    "WN, empty scale": (lambda: normal(P, torch.ones(0, 2)).rsample(), (0, 3)),
    "WMN": (lambda: multivariate(NONE, EYE).log_prob(multivariate(NONE, EYE).rsample((2,))), (2, 0)),
    "WMN, empty matrix": (lambda: multivariate(P, batch(EYE, 3, 0)).log_prob(P), (3, 0)),
    "WMN, empty precision": (lambda: multivariate(P, precision_matrix=batch(EYE, 0)).rsample((2,)), (2, 0, 3)),
    "WMN.expand": (lambda: multivariate(P, EYE).expand([0, 2]).rsample(), (0, 2, 3)),
    "kl, WMN": (lambda: kl_divergence(multivariate(NONE, EYE), multivariate(NONE, 2 * EYE)), (0,)),
    "kl of Delta": (lambda: kl_divergence(dist.Delta(NONE, event_dim=1), normal(P, 1.0)), (0,)),
    "pyro.param": (lambda: pyro.param("p", NONE, constraint=on_manifold(M)), (0, 3)),
    "context": (lambda: conditional(2, 3).condition(CONTEXTS)(P), (0, 3)),
    "context of a flow": (lambda: flow(2, 2, context_dim=3).condition(CONTEXTS).inv(P), (0, 3)),
    "Translation.inv": (lambda: HT.Translation(M, P).inv(NONE), (0, 3)),
    "Reflection.inv": (lambda: HT.Reflection(M, V).inv(NONE), (0, 3)),
    "Reflection, no directions": (lambda: HT.Reflection(M, V.expand(0, 2))(P), (0, 3)),
    "flow.inv": (lambda: flow(3, 2).inv(P3.expand(0, 4)), (0, 4)),
}


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_batch(name):
    call, shape = EMPTY[name]
    assert call().shape == shape
