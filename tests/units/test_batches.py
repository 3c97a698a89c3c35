"""A batch has the values of its members: every public function of geometry, metrics and summaries, in ranks 0, 1, 2."""

from functools import partial

import geoopt
import pytest
import torch
from torch import Tensor

import pyro_hyperbolic as ph
from pyro_hyperbolic.infer import summary
from tests.cases import MANIFOLDS, UNCHARTED, base_on, lorentz

G, metrics = ph.geometry, ph.metrics
pytestmark = pytest.mark.usefixtures("float64")

SPACES = {"h3": (lambda: lorentz(4.0), 3), "flat": (lambda: geoopt.Euclidean(1), 3), **MANIFOLDS, **UNCHARTED}
#: The arguments of each function of points, as they are named below.
ARGUMENTS = {
    "contains": "spoilt",
    "distance": "x y",
    "distance_matrix": "sets pair",
    "exp0": "v",
    "exp_at": "x u",
    "geodesic": "x y t",
    "log0": "x",
    "log_at": "x y",
    "log_volume": "v",
    "midpoint": "sets weights",
    "project": "near",
    "squared_distance": "x y",
    "translate": "x y",
    "translate_tangent": "v t_vector",
}
#: What is not a function of points; means of batches have a test in ``test_manifolds.py``.
OTHERS = {"Complete", "Embedded", "Geometry", "Hadamard", "Nested", "bind", "chart", "complete", "is_known_origin"}
OTHERS |= {"frechet_mean", "known_tangent", "origin", "register", "remember_tangent", "same"}
SCORES = {  # name: a function of scores or distances, and then of what they are compared with
    "roc_auc": (metrics.roc_auc, "scores labels"),
    "average_precision": (metrics.average_precision, "scores labels"),
    **{
        f"calibration_error, {strategy}": (partial(metrics.calibration_error, bins=4, strategy=strategy), "p labels")
        for strategy in ("uniform", "quantile", "expected")
    },
    "coverage": (metrics.coverage, "scores high p"),
    "distortion": (metrics.distortion, "p high"),
    "distortion, rescaled": (partial(metrics.distortion, rescale=True), "p high"),
    "gromov_delta": (metrics.gromov_delta, "distances"),
    "gromov_delta, base": (partial(metrics.gromov_delta, base=1), "distances"),
    "mean_average_precision": (metrics.mean_average_precision, "distances adjacent"),
    "mean_rank": (metrics.mean_rank, "distances adjacent"),
}


def same_in_all_ranks(function, inputs, *, broadcast=True, bound=1e-11):
    """Of inputs of batch shape ``(2, 3)``, of a row and of members; and of batch shapes ``(2, 1)`` and ``(3)``."""
    close = partial(torch.testing.assert_close, rtol=bound, atol=bound)

    def values(*args):
        found = function(*args)
        return [found] if isinstance(found, Tensor) else list(found)

    first, *rest = inputs
    wholes = [(inputs, values(*inputs))]
    if rest and broadcast:
        shared = first[:, :1], *(value[0] for value in rest)
        wholes.append(
            ([first[:, :1].expand_as(first), *(value[:1].expand_as(value) for value in rest)], values(*shared))
        )
    for expanded, whole in wholes:
        for at in [1, (0, 1), (0, 2), (1, 0)]:
            close(values(*(value[at] for value in expanded)), [value[at] for value in whole])


def points(M, n):
    """The arguments of functions of points, of batch shape ``(2, 3)``."""
    base, space = base_on(M, n), G.bind(M)
    x, y = base.sample((2, 2, 3))
    found = {"x": x, "y": y, "sets": base.sample((2, 3, 4)), "pair": base.sample((2, 3, 2)), "t": torch.rand(2, 3)}
    found |= {"v": torch.randn(2, 3, n), "t_vector": torch.randn(2, 3, n), "weights": torch.rand(2, 3, 4)}
    found["spoilt"] = x.clone()
    found["spoilt"][0, 1] = torch.nan
    found["near"] = x + 1e-3 * torch.randn_like(x)
    found["u"] = found["v"] if isinstance(space, G.Hadamard) else G.log_at(M, x, y)
    return found


@pytest.mark.parametrize("name", SPACES)
def test_functions_of_points(name):
    M, n = SPACES[name][0](), SPACES[name][1]
    space, inputs = G.bind(M), points(M, n)
    charted = isinstance(space, G.Hadamard)
    missing = set() if isinstance(space, G.Nested) else {"translate_tangent"}
    missing |= {"midpoint"} if "spd" in name else set()
    missing |= set() if charted else {"exp0", "log0", "log_volume", "translate"}
    for function, arguments in ARGUMENTS.items():
        if function not in missing:
            call = partial(getattr(G, function), M, **({"dim": -1} if function == "midpoint" else {}))
            # Weights have the shape of points, and vectors are tangent at one point.
            broadcast = function != "midpoint" and (charted or function != "exp_at")
            same_in_all_ranks(call, [inputs[key] for key in arguments.split()], broadcast=broadcast)


@pytest.mark.parametrize("name", SCORES)
def test_metrics(name):
    labels = torch.rand(2, 3, 12) < 0.4
    labels[..., 0], labels[..., 1] = True, False
    inputs = {"scores": torch.randint(-4, 4, (2, 3, 12)) / 4.0, "labels": labels, "p": torch.randint(9, (2, 3, 12)) / 8}
    inputs["high"], x = 1 + torch.rand(2, 3, 12), torch.randn(2, 3, 7, 2)
    adjacent = torch.rand(2, 3, 7, 7) < 0.5
    adjacent.diagonal(0, -2, -1).fill_(False)
    inputs |= {"distances": torch.cdist(x, x), "adjacent": adjacent}
    function, arguments = SCORES[name]
    same_in_all_ranks(function, [inputs[key] for key in arguments.split()])


@pytest.mark.parametrize("name", ["h3", "flat", "s2", "so3"])
def test_summaries(name):
    M, n = SPACES[name][0](), SPACES[name][1]
    event = G.bind(M).event_dim

    def numbers(x):
        found = summary(x.movedim((-2 - event, -1 - event), (0, 1)), M)
        return [found.ball.center, found.ball.radius.movedim(0, -1), *found.distance, *found.tangent]

    same_in_all_ranks(numbers, [base_on(M, n).sample((2, 3, 2, 8))], bound=1e-7)


def test_no_function_is_left_out():
    assert {*ARGUMENTS} | OTHERS == {*G.__all__}
    assert {name.split(",")[0] for name in SCORES} == {*metrics.__all__}


@pytest.mark.parametrize("name", [name for name in SPACES if name != "flat"])
def test_an_error_describes_the_first_event_off_the_manifold(name):
    M, n = SPACES[name][0](), SPACES[name][1]
    x = base_on(M, n).sample((3,))
    off = x[1:] + 30 * torch.randn_like(x[1:])

    def described(points):
        with pytest.raises(ValueError, match="off, the first is") as caught:
            G.distance(M, points, points)
        return str(caught.value).partition("off, the first is")[2]

    assert described(torch.cat([x[:1], off])) == described(off[:1])
