"""Continuous flows: the laws on every manifold, mutants, Newton's method, fields and flow matching."""

import math

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.integrate import solve_ivp

import pyro_hyperbolic as ph
import pyro_hyperbolic.distributions as hdist
import pyro_hyperbolic.distributions.transforms as HT
from pyro_hyperbolic import geometry
from pyro_hyperbolic.distributions.transforms import runge_kutta
from pyro_hyperbolic.distributions.transforms.fields import random_states
from pyro_hyperbolic.distributions.transforms.runge_kutta import Steps
from pyro_hyperbolic.geometry import hyperboloid, product
from pyro_hyperbolic.testing import LawViolation, assert_transform_laws, gradient_laws, map_laws
from tests.cases import ball, lorentz, shaken

MANIFOLDS = {
    "h2": (lambda: lorentz(2.0), 2),
    "h3": (lambda: lorentz(1.0), 3),
    "flat": (lambda: geoopt.Euclidean(1), 2),
    "ball": (ball, 2),
    "h2xh2xr": (lambda: product_of(lorentz(4.0), 3, lorentz(0.25), 3, geoopt.Euclidean(1), 1), 5),
    "s2": (geoopt.Sphere, 2),
    "t3": (lambda: ph.manifolds.Torus(3), 3),
    "so3": (ph.manifolds.Rotations, 3),
    "h2xs2xr": (lambda: product_of(lorentz(2.0), 3, geoopt.Sphere(), 3, geoopt.Euclidean(1), 1), 5),
}


def product_of(*parts):
    return geoopt.ProductManifold(*zip(parts[::2], parts[1::2], strict=True))


def points(M, n, count=8, seed=0):
    generator = torch.random.get_rng_state()
    torch.manual_seed(seed)
    space = geometry.complete(M)
    x = space.point(space.retract(random_states(space, n, count).double() / 2))[0]
    torch.random.set_rng_state(generator)
    return x


def make(name, scale=0.5, **kwargs):
    M, n = MANIFOLDS[name][0](), MANIFOLDS[name][1]
    settings = {"steps": 1, "hidden_dims": [8], "num_anchors": 4, **kwargs}
    return shaken(HT.continuous_flow(n, M, **settings), scale), points(M, n, 3)


@pytest.mark.parametrize("explicit", ["forward", "inverse"])
def test_value_inverse_and_log_det(explicit):
    flow, x = make("h2", explicit=explicit)
    map_laws.round_trip(flow, x)
    map_laws.log_det_matches_autograd(flow, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", MANIFOLDS)
def test_laws_where_the_inverse_is_explicit(name):
    """The other direction is in the tables of tests/laws."""
    flow, x = make(name, explicit="inverse", field="dense")
    assert_transform_laws(flow, x)


class Textbook(HT.ContinuousFlow):
    """Integrates the divergence in the coordinates of the state, and the field backwards for the inverse."""

    def _follow(self, x, *, explicit):
        space = self._space
        s, volume = space.state(x)
        reverse = explicit == (self.explicit == "inverse")
        steps = Steps(space, self.field, self.steps, reverse=reverse)
        total = 0.0
        for begin, finish in steps.times:
            h, slopes, traces = finish - begin, [], []
            for fraction in (0, 0.5, 0.5, 1):
                at = s + fraction * h * slopes[-1] if slopes else s
                slope, jacobian = self._slope(steps, at, begin + fraction * h)
                slopes.append(slope)
                traces.append(jacobian.diagonal(dim1=-2, dim2=-1).sum(-1))
            s, total = (
                base + h / 6 * (each[0] + 2 * each[1] + 2 * each[2] + each[3])
                for base, each in ((s, slopes), (total, traces))
            )
        y, end = space.point(s)
        return y, total + end - volume

    def _slope(self, steps, s, time):
        with torch.enable_grad():
            s = s if s.requires_grad else s.detach().requires_grad_()
            velocity = steps._velocity(s, time)
            rows = [torch.autograd.grad(part.sum(), s, create_graph=True)[0] for part in velocity.unbind(-1)]
        return velocity, torch.stack(rows, -2)


@pytest.mark.parametrize("law", [map_laws.round_trip, map_laws.log_det_matches_autograd])
def test_a_divergence_that_is_integrated_breaks_laws(law):
    flow, x = make("h2", steps=4)
    exact = flow.log_abs_det_jacobian(x, flow(x))
    textbook = Textbook(flow.field, flow.manifold, steps=4)
    assert (textbook.log_abs_det_jacobian(x, textbook(x)) - exact).abs().max() < 1e-3  # nearly right
    with pytest.raises(LawViolation):
        law(textbook, x)


def volume_of_one_factor_dropped(patch):
    right = product._sum
    patch.setattr(product, "_sum", lambda values: right(list(values)[1:]))


def volume_of_the_end_dropped(patch):
    right = hyperboloid.Hyperboloid.exp0
    patch.setattr(hyperboloid.Hyperboloid, "point", lambda self, s: (right(self, s)[0], s.new_zeros(s.shape[:-1])))


@pytest.mark.parametrize(
    ("mutate", "name"),
    [
        (volume_of_one_factor_dropped, "h2xh2xr"),
        (volume_of_one_factor_dropped, "h2xs2xr"),
        (volume_of_the_end_dropped, "h2"),
    ],
)
def test_the_log_det_law_catches(mutate, name, monkeypatch):
    flow, x = make(name, field="dense")
    map_laws.log_det_matches_autograd(flow, x)
    mutate(monkeypatch)
    with pytest.raises(LawViolation):
        map_laws.log_det_matches_autograd(flow, x)


def test_implicit_gradients_that_are_dropped_are_noticed(monkeypatch):
    flow, x = make("s2", field="dense")
    right = Steps._solve

    def detached(self, *args):
        s, close = right(self, *args)
        return s.detach(), close

    monkeypatch.setattr(Steps, "_solve", detached)
    with pytest.raises(LawViolation):
        gradient_laws.gradients_match_differences(flow, x)


@pytest.mark.parametrize("name", MANIFOLDS)
def test_attraction_is_the_sum_of_vectors(name):
    M, n = MANIFOLDS[name][0](), MANIFOLDS[name][1]
    space, x, y = geometry.complete(M), points(M, n, 4), points(M, n, 3, seed=1).unsqueeze(1)
    weights = torch.linspace(-1, 2, 12, dtype=torch.float64).view(3, 4)
    square, combine = space.attraction(x, y)
    u, expected = space.towards(x, y)
    torch.testing.assert_close(square, expected, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(combine(weights), (weights.unsqueeze(-1) * u).sum(0), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("radii", [(1e-3, 2e-3), (10.0, 9.0), (15.0, 14.0), (80.0, 1.0), (45.0, -45.0), (80.0, -9.0)])
@pytest.mark.parametrize("n", [1, 2])
def test_attraction_of_single_precision_far_out(radii, n):
    """Against differences of signed radii on one ray: value and gradient are right where squares of points overflow."""
    M = lorentz(4.0)
    space = geometry.complete(M)
    ray = torch.tensor([1.0, 0.0])[:n]
    r = torch.tensor(radii[0], requires_grad=True)
    x, y = (geometry.exp0(M, 2 * each * ray) for each in (r, torch.tensor([[radii[1]]])))
    square, combine = space.attraction(x, y)
    end = 4 * radii[1] * ray.unsqueeze(0)  # the target is there at t = 1/2, and moves by it per unit of time
    same, _, guide = space.guidance(x, end, torch.tensor(0.5))
    expected = 2 * (radii[1] - radii[0])
    for found, along, drift in (
        (square, combine(torch.ones(1)) @ ray, 0.0),
        (same, guide(torch.ones(1), torch.ones(1)) @ ray, 4 * radii[1]),
    ):
        assert math.isclose(found.item(), expected**2, rel_tol=1e-5, abs_tol=1e-6)
        assert math.isclose(along.item() - drift, expected, rel_tol=1e-4, abs_tol=1e-6 * (1 + abs(drift)))
        (slope,) = torch.autograd.grad(along, r, retain_graph=True)
        assert math.isclose(slope.item(), -2, rel_tol=1e-3)


def test_the_flow_solves_its_equation_to_fourth_order():
    r"""Against scipy, in ambient coordinates: :math:`\dot x = \sum_i f_i E_i`, the boost frame at ``k = 1``."""
    M = geoopt.Lorentz()
    field = shaken(HT.DenseField(2, M, [6]), 0.5)
    x = points(M, 2, 1)[0]

    def slope(time, x):
        x = torch.from_numpy(x)
        f = field(x, x.new_tensor(time)).detach()
        inner = x[1:] @ f
        return torch.cat([inner[None], f + x[1:] * inner / (1 + x[0])]).numpy()

    end = torch.from_numpy(solve_ivp(slope, (0, 1), x.numpy(), rtol=1e-11, atol=1e-12).y[:, -1])
    errors = [(HT.ContinuousFlow(field, M, steps=steps)(x) - end).norm().item() for steps in (8, 16)]
    assert errors[1] < 1e-4
    assert 10 < errors[0] / errors[1] < 25


class Whirl(torch.nn.Module):
    """A field that turns by more than any single step can follow."""

    def forward(self, x, t):
        return 50 * torch.stack([(3 * x[..., 1]).sin(), (3 * x[..., 0]).cos()], -1)


def test_newton_goes_on_where_two_rounds_are_not_enough(monkeypatch):
    """For maps that are stretched unevenly, but not folded."""
    x = torch.linspace(-2, 2, 41, dtype=torch.float64).unsqueeze(-1)
    flow = HT.ContinuousFlow(lambda x, t: 0.6 * torch.sin(3 * x), geoopt.Euclidean(1), steps=1)
    y = flow(x)
    torch.testing.assert_close(flow.inv(y.clone()), x, rtol=0, atol=1e-14)
    monkeypatch.setattr(runge_kutta, "_MOST_ROUNDS", 2)
    with pytest.raises(ValueError, match="no inverse"):
        flow.inv(y.clone())


@pytest.mark.parametrize("explicit", ["forward", "inverse"])
def test_newton_that_does_not_converge_says_so(explicit):
    M = geoopt.Euclidean(1)
    flow = HT.ContinuousFlow(Whirl(), M, steps=1, explicit=explicit)
    with pytest.raises(ValueError, match=r"step 1 of 1 has no inverse.*\(correction .*\d\).*more steps="):
        (flow.inv if explicit == "forward" else flow)(points(M, 2))


@pytest.mark.parametrize(("explicit", "step"), [("forward", 3), ("inverse", 1)])
def test_the_step_that_fails_is_named(explicit, step):
    """The one of three that ends at time 1, where the field whirls, or mirrors the plane in an axis."""
    M, axis = geoopt.Euclidean(1), torch.tensor([-36.0 if explicit == "forward" else 36.0, 0.0])

    def whirl(x, t):
        return Whirl()(x, t) * (t > 0.7).unsqueeze(-1)

    def mirror(x, t):
        return axis * x * (t == 1).unsqueeze(-1)

    for field, what in ((whirl, "is not injective|has no inverse"), (mirror, "is not injective")):
        flow = HT.ContinuousFlow(field, M, steps=3, explicit=explicit)
        for side in (flow, flow.inv):
            with pytest.raises(ValueError, match=f"step {step} of 3 ({what}).* of 8 points"):
                side(points(M, 2))


class Push(torch.nn.Module):
    """A field along one of the axes, which folds the map where it falls too fast for the step."""

    def __init__(self, size, vector_size):
        super().__init__()
        self.size, self.axis = size, torch.eye(vector_size, dtype=torch.float64)[0]

    def forward(self, x, t):
        u = self.size * (3 * x[..., 0] + t).sin().unsqueeze(-1) * self.axis
        return u if x.size(-1) > len(self.axis) else u - (u * x).sum(-1, keepdim=True) * x


def orientations(flow, x):
    """The sign of the Jacobian at each point: of tangent vectors and the position, in the space around the manifold."""
    space = geometry.complete(flow.manifold)
    steps = Steps(space, flow.field, flow.steps, reverse=flow.explicit == "inverse")

    def follow(s):
        s = space.retract(s)
        for begin, finish in steps.times:
            s = steps._step(s, begin, finish)
        return space.point(s)[0]

    def determinant(map_, s):
        columns = torch.autograd.functional.jacobian(lambda s: map_(s).sum(0), s).movedim(1, 0) @ space.frame(s).mT
        return torch.linalg.det(torch.cat([columns, map_(s).unsqueeze(-1)], -1))

    s = space.state(x)[0]
    return determinant(follow, s).sign() * determinant(lambda s: space.point(space.retract(s))[0], s).sign()


@pytest.mark.parametrize("explicit", ["forward", "inverse"])
@pytest.mark.parametrize(("M", "size"), [(geoopt.Lorentz(), 1.0), (geoopt.Sphere(), 2.0)], ids=["h2", "s2"])
def test_a_step_that_folds_is_refused(M, size, explicit):
    x, field = points(M, 2, 40), Push(size, geometry.complete(M).vector_size(2))
    coarse, fine = (HT.ContinuousFlow(field, M, steps=steps, explicit=explicit) for steps in (1, 16))
    folded = orientations(coarse, x) < 0
    assert 0 < folded.sum() < 40
    with pytest.raises(
        ValueError, match=rf"step 1 of 1 is not injective.*{folded.sum()} of 40 points; use more steps="
    ):
        (coarse if explicit == "forward" else coarse.inv)(x)
    with pytest.raises(ValueError, match="step 1 of 1 "):
        (coarse.inv if explicit == "forward" else coarse)(x)
    with pyro.validation_enabled(False):
        log_det = (coarse._forward if explicit == "forward" else coarse._backward)(x)[1]
    assert torch.equal(log_det.isnan(), folded)
    assert (orientations(fine, x) > 0).all()
    (fine if explicit == "forward" else fine.inv)(x)


def test_a_step_that_runs_away_asks_for_more_steps():
    M = geoopt.Lorentz()

    def field(x, t):
        return 3 * x[..., 1:] * x[..., :1] ** 2

    x = geometry.exp0(M, torch.tensor([[0.1, 0.0], [2.0, 0.0], [0.1, 0.0]], dtype=torch.float64))
    for explicit in ("forward", "inverse"):
        flow = HT.ContinuousFlow(field, M, steps=2, explicit=explicit)
        for direction in (flow, flow.inv):
            with pytest.raises(ValueError, match=r"step \d of 2 .* of 3 points; use more steps="):
                direction(x)
    for time in (0.0, 1.0):
        flow = HT.ContinuousFlow(lambda x, t: (x[..., 1:].mT / (t != time)).mT, M, steps=1)  # noqa: B023
        with pytest.raises(ValueError, match=f"at time {time:.0f}, .*NaN in its parameters"):
            (flow.inv if time else flow)(x[1:2])


class Folding(torch.nn.Module):
    """A field that a single step follows back over its own trace, on the line and on the circle."""

    def forward(self, x, t):
        wave = 1.5 * torch.sin(6 * x[..., :1])
        return wave if x.size(-1) == 1 else wave * torch.stack([-x[..., 1], x[..., 0]], -1)


@pytest.mark.parametrize("M", [geoopt.Euclidean(1), geoopt.Sphere()], ids=["line", "circle"])
@pytest.mark.parametrize("explicit", ["forward", "inverse"])
def test_a_step_that_folds_says_so(M, explicit):
    """Its mass would be more than 1, by as much as is covered three times."""
    angle = torch.linspace(-1, 1, 41, dtype=torch.float64)
    x = angle.unsqueeze(-1) if isinstance(M, geoopt.Euclidean) else torch.stack([angle.cos(), angle.sin()], -1)
    folding = HT.ContinuousFlow(Folding(), M, steps=1, explicit=explicit)
    fine = HT.ContinuousFlow(Folding(), M, steps=16, explicit=explicit)
    for side in (False, True):
        with pytest.raises(ValueError, match=r"step 1 of 1 .*of 41 points; use more steps="):
            (folding.inv if side else folding)(x)
        (fine.inv if side else fine)(x)
    with pyro.validation_enabled(False):
        lost = folding.log_abs_det_jacobian(x, x) if explicit == "forward" else folding.inverse_and_log_det(x)[1]
    assert 0 < lost.isnan().sum() < 41


def test_own_samples_are_scored_without_newton(monkeypatch):
    flow, _ = make("h2")
    base = hdist.WrappedNormal(geometry.origin(flow.manifold, 2), torch.ones(2, dtype=torch.float64), flow.manifold)
    d = dist.TransformedDistribution(base, [flow])
    monkeypatch.setattr(Steps, "implicit", None)
    y = d.rsample((3,))
    assert d.log_prob(y).isfinite().all()


class OwnField(torch.nn.Module):
    """A user's class, of which nothing is remembered."""

    def forward(self, x, t):
        return 0.3 * (x[..., 1:] + t.unsqueeze(-1)).sin()


@pytest.mark.usefixtures("float64")
def test_data_are_scored_without_newton_in_the_explicit_direction(monkeypatch):
    monkeypatch.setattr(Steps, "implicit", None)
    M = lorentz(1.0)
    base = hdist.WrappedNormal(geometry.origin(M, 2), torch.ones(2), M)
    flow = HT.ContinuousFlow(OwnField(), M, steps=2, explicit="inverse")
    assert dist.TransformedDistribution(base, [flow]).log_prob(points(M, 2)).isfinite().all()


def test_the_inverse_has_second_derivatives():
    flow, _ = make("s2", field="dense", steps=1)
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def of_angle(theta):
        turned = torch.stack([theta.cos(), theta.sin(), 0 * theta])
        return flow.inv.log_abs_det_jacobian(turned, flow.inv(turned))

    assert torch.autograd.gradgradcheck(of_angle, (theta,))


def test_batches_of_curvatures_and_contexts():
    M = geoopt.Lorentz(torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64))
    conditional = shaken(HT.continuous_flow(2, M, steps=2, hidden_dims=[6], num_anchors=3, context_dim=1), 0.5)
    contexts = torch.tensor([[[0.0]], [[1.0]], [[2.0]]], dtype=torch.float64)
    flow, x = conditional.condition(contexts), geometry.exp0(M, torch.ones(3, 2, dtype=torch.float64))
    y = flow(x)
    assert y.shape == flow.forward_shape(x.shape) == (3, 3, 3)
    alone = shaken(HT.continuous_flow(2, lorentz(4.0), steps=2, hidden_dims=[6], num_anchors=3, context_dim=1), 0.5)
    torch.testing.assert_close(alone.condition(contexts[2, 0])(x[1]), y[2, 1])
    assert (y[0] - y[1]).norm() > 0.01


def test_a_flow_needs_its_context():
    conditional = HT.continuous_flow(2, num_anchors=3, context_dim=2)
    with pytest.raises(TypeError, match="condition"):
        conditional(geometry.origin(geoopt.Lorentz(), 2))
    with pytest.raises(ValueError, match="context_dim = 2"):
        conditional.condition(torch.zeros(3))
    with pytest.raises(TypeError, match="condition"):
        ph.flows.flow_matching_loss(conditional, *2 * [geometry.origin(geoopt.Lorentz(), 2)])


def test_flow_matching_broadcasts_with_contexts():
    M = geoopt.Sphere()
    flow = shaken(HT.continuous_flow(2, M, context_dim=3, hidden_dims=[4], num_anchors=3), 0.5)
    x0, x1 = points(M, 2, 5), points(M, 2, 5, seed=1)
    contexts = torch.randn(4, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = ph.flows.flow_matching_loss(flow.condition(contexts), x0, x1, 0.3)
    one = ph.flows.flow_matching_loss(flow.condition(contexts[2, 0]), x0, x1, 0.3)
    assert found.shape == (4, 5)
    torch.testing.assert_close(found[2], one)
    with pytest.raises(ValueError, match=r"\(5,\).*\(4,\)"):
        ph.flows.flow_matching_loss(flow.condition(contexts[:, 0]), x0, x1)


def test_a_field_on_another_manifold_is_refused():
    for M, other in ((geoopt.Lorentz(), lorentz(4.0)), (geoopt.Sphere(), geoopt.Lorentz())):
        with pytest.raises(ValueError, match="one manifold"):
            HT.continuous_flow(2, M, field=HT.DenseField(2, other, [4]))


@pytest.mark.parametrize("field", ["anchor", "dense"])
def test_points_of_another_dimension_or_dtype_are_refused(field):
    flow = HT.continuous_flow(2, geoopt.Lorentz(), field=field, hidden_dims=[4], steps=1)
    with pytest.raises(TypeError, match=r"torch\.float32, points is torch\.float64"):
        flow(points(geoopt.Lorentz(), 2))
    with pytest.raises(ValueError, match=r"\(8, 4\).*dim = 2.*\(\*, 3\)"):
        flow(points(geoopt.Lorentz(), 3).float())


@pytest.mark.parametrize("name", ["s2", "h2"])
def test_flows_can_be_vmapped(name, monkeypatch):
    flow, x = make(name)
    y = flow(x).detach()
    torch.testing.assert_close(torch.func.vmap(flow)(x), y)
    torch.testing.assert_close(torch.func.vmap(flow.inv)(y.clone()), x)
    monkeypatch.setattr(runge_kutta, "EXACT_DIM", 1)
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: x.new_ones(shape))
    estimated = HT.ContinuousFlow(flow.field, flow.manifold, steps=1, hutchinson_terms=2)
    torch.testing.assert_close(torch.func.vmap(estimated._forward)(x), estimated._forward(x))


def test_anchors_start_far_apart():
    M = geoopt.Lorentz()
    v = torch.tensor([[0.0, 0.0], [0.1, 0.0], [3.0, 0.0], [0.0, -2.0], [2.9, 0.1], [0.0, 0.0]])
    x = geometry.exp0(M, v)
    flow = HT.continuous_flow(2, M, anchors=x, num_anchors=3)
    torch.testing.assert_close(flow.field.anchors.detach(), v[[0, 2, 3]])
    assert len(HT.continuous_flow(2, M, anchors=x).field.anchors) == 5  # equal points once
    for own, nearest in ((x[[0, 2, 5]], (1.0, 3.0, 1.0)), (x[2:3], (1.0,))):  # 1 where none is apart
        sharpness = HT.AnchorField(2, M, own).log_sharpness.exp()
        torch.testing.assert_close(sharpness.detach(), torch.tensor(nearest) ** -2)
    own = points(geoopt.Sphere(), 2).float()  # whose states are the points themselves
    assert HT.AnchorField(2, geoopt.Sphere(), own).anchors.data_ptr() != own.data_ptr()
    assert (flow(x) - x).norm() < 0.3 * x.norm()  # starts near the identity


def test_a_field_of_distances_commutes_with_isometries():
    M = lorentz(4.0)
    p, x = points(M, 2, 1, seed=3)[0], points(M, 2, 3)
    field = shaken(HT.AnchorField(2, M, points(M, 2, 3, seed=1), [6], equivariant=True), 0.5)
    moved = shaken(HT.AnchorField(2, M, points(M, 2, 3, seed=1), [6], equivariant=True), 0.5)
    anchors = geometry.translate(M, p, geometry.exp0(M, field.anchors))
    moved.anchors.data = geometry.log0(M, anchors).detach()
    # A step in tangent coordinates does not commute, but what the steps converge to does, in fourth order.
    gaps = []
    for steps in (10, 20):
        here, there = (HT.ContinuousFlow(each, M, steps=steps) for each in (field, moved))
        with torch.no_grad():
            expected, found = geometry.translate(M, p, here(x)), there(geometry.translate(M, p, x))
        gaps.append(geometry.distance(M, expected, found))
    assert (gaps[1] < gaps[0] / 8).all()
    u, v = field(x, x[:, 0] * 0 + 0.3), moved(geometry.translate(M, p, x), x[:, 0] * 0 + 0.3)
    torch.testing.assert_close(u.norm(dim=-1), v.norm(dim=-1), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", MANIFOLDS)
@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_flow_matching_asks_for_the_velocity_of_a_path(name, t):
    """From ``x0`` to ``x1``; where the space is compact or flat, along the geodesic."""
    M, n = MANIFOLDS[name][0](), MANIFOLDS[name][1]
    space, x0, x1 = geometry.complete(M), points(M, n, 5), points(M, n, 5, seed=1)
    seen = {}

    def field(x, t):
        seen["x"] = x
        return torch.zeros(*t.shape, space.vector_size(n), dtype=torch.float64)

    loss = ph.flows.flow_matching_loss(HT.ContinuousFlow(field, M), x0, x1, t)
    x, h = seen["x"], 1e-5
    if t in (0.0, 1.0):
        torch.testing.assert_close(x, x1 if t else x0)
    times = torch.full((5,), t, dtype=torch.float64)
    before, after = (space.log(x, space.path(x0, x1, times + step)[0]) for step in (-h, h))
    velocity = space.path(x0, x1, times)[1]
    torch.testing.assert_close(velocity, (after - before) / (2 * h), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(loss, velocity.square().sum(-1))
    if isinstance(M, (geoopt.Sphere, geoopt.Euclidean, ph.manifolds.Torus, ph.manifolds.Rotations)):
        torch.testing.assert_close(loss, space.squared_distance(x0, x1))  # of constant speed


@pytest.mark.parametrize("name", ["h2", "h3", "ball", "h2xh2xr"])
def test_a_wrapped_normal_stays_one_on_paths_to_one_point(name):
    """Seen from the target, points shrink towards it in a straight line."""
    M, n = MANIFOLDS[name][0](), MANIFOLDS[name][1]
    space, x0, x1 = geometry.chart(M), points(M, n, 5), points(M, n, 1, seed=1)
    t = torch.full((5,), 0.7, dtype=torch.float64)
    target = geometry.exp0(M, 0.7 * geometry.log0(M, x1))
    seen = geometry.log_at(M, target, space.path(x0, x1.expand_as(x0), t)[0])
    torch.testing.assert_close(seen, 0.3 * geometry.log0(M, x0))


@pytest.mark.parametrize("name", ["s2", "t3", "so3"])
def test_guidance_without_a_chart_is_the_sum_of_pulls(name):
    M, n = MANIFOLDS[name][0](), MANIFOLDS[name][1]
    space, x, ends = geometry.complete(M), points(M, n, 4), points(M, n, 3, seed=1).unsqueeze(1)
    weights, gains = torch.rand(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    square, log_volume, guide = space.guidance(x, space.state(ends)[0], torch.tensor(0.5))
    u, expected = space.towards(x, ends)
    torch.testing.assert_close(square, expected)
    torch.testing.assert_close(guide(weights, gains), ((weights * gains).unsqueeze(-1) * u).sum(0))
    assert not log_volume.any()


@pytest.mark.parametrize("name", ["h2", "h3", "flat", "ball"])
def test_guidance_is_the_sum_of_pulls_and_drifts(name):
    """The generic form: targets as points, and derivatives of isometries."""
    M, n = MANIFOLDS[name][0](), MANIFOLDS[name][1]
    space, x, s = geometry.chart(M), points(M, n, 4), geometry.log0(M, points(M, n, 3, seed=1)).unsqueeze(1)
    t, weights, gains = torch.rand(9, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))[:3]
    square, log_volume, guide = space.guidance(x, s, t[0])
    targets = geometry.exp0(M, t[0].unsqueeze(-1) * s)
    u, expected = space.towards(x, targets)
    v = geometry.log_at(M, targets, x.expand(3, *x.shape))
    torch.testing.assert_close(log_volume, geometry.log_volume(M, v), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(square, expected, rtol=1e-11, atol=1e-13)
    drift = geometry.Hadamard.drift(space, x.expand(3, *x.shape), s)
    found = (weights.unsqueeze(-1) * (drift + gains.unsqueeze(-1) * u)).sum(0)
    torch.testing.assert_close(guide(weights, gains), found, rtol=1e-11, atol=1e-11)


def test_an_anchor_field_is_its_formula():
    """With a network that returns constants."""
    M = lorentz(2.0)
    space, a, x = geometry.complete(M), points(M, 2, 3, seed=1), points(M, 2, 1)[0]
    field = without_network(HT.AnchorField(2, M, a, [4]).double())
    logits, gains, free = points(geoopt.Euclidean(1), 3, 3)
    with torch.no_grad():
        field.network[-1].bias.copy_(torch.cat([logits, gains, free[:2]]))
    weights = gains * (logits - field.log_sharpness.exp() * geometry.distance(M, x, a) ** 2).softmax(-1)
    expected = weights @ space.log(x.expand_as(a), a) + space.tangent(x, free[:2])
    torch.testing.assert_close(field(x, x.new_tensor(0.3)), expected, atol=1e-6, rtol=1e-6)


def mixture(name, data, **kwargs):
    M, n = MANIFOLDS[name][0](), MANIFOLDS[name][1]
    return M, n, HT.MixtureField(n, M, data, hidden_dims=[8], **kwargs).double()


def without_network(field):
    with torch.no_grad():
        field.network[-1].weight.zero_()
        field.network[-1].bias.zero_()
    return field


def test_a_mixture_field_carries_a_wrapped_normal_to_the_mixture():
    """Up to the error of the steps."""
    M = lorentz(2.0)
    loc = geometry.exp0(M, torch.tensor([[2.0, 0.0], [-1.0, 1.5]], dtype=torch.float64))
    scale, shares = loc.new_tensor([0.4, 0.8]), loc.new_tensor([0.3, 0.7])
    field = without_network(HT.MixtureField(2, M, loc, 2, base_scale=0.9, hidden_dims=[4]).double())
    with torch.no_grad():
        field.log_weights.copy_(shares.log())
        field.log_scales.copy_(scale.log())
    flow = HT.ContinuousFlow(field, M, steps=16, explicit="inverse")
    base = hdist.WrappedNormal(geometry.origin(M, 2, dtype=torch.float64), loc.new_full((2,), 0.9), M)
    components = hdist.WrappedNormal(geometry.exp0(M, field.anchors.detach()), scale.unsqueeze(-1).expand(2, 2), M)
    x = torch.cat([loc, points(M, 2, 4)])
    with torch.no_grad():
        found = dist.TransformedDistribution(base, [flow]).log_prob(x)
    expected = dist.MixtureSameFamily(dist.Categorical(shares), components).log_prob(x)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)


def test_a_mixture_field_is_the_conditional_expectation_of_a_flat_mixture():
    """E[x1 - x0 | x_t] by Bayes' rule, for x0 normal and x1 from a mixture of two normals; and what a network adds."""
    loc = torch.tensor([[2.0, 0.0, 0.5], [-1.0, 1.0, 0.0]], dtype=torch.float64)
    scale, shares, free = loc.new_tensor([0.3, 0.6]), loc.new_tensor([0.25, 0.75]), loc.new_tensor([0.1, 0.2, -0.3])
    field = HT.MixtureField(3, geoopt.Euclidean(1), loc, 2, base_scale=1.2, hidden_dims=[4]).double()
    with torch.no_grad():
        without_network(field).anchors.copy_(loc)
        field.network[-1].bias.copy_(torch.cat([shares.log(), free]))
        field.log_weights.zero_()
        field.log_scales.copy_(scale.log())
    t, *x = torch.randn(4, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x, t = torch.stack(x, -1), t.sigmoid()
    at, own = t[:, None], scale.square()
    variance, mean = (1 - at) ** 2 * 1.2**2 + at**2 * own, at.unsqueeze(-1) * loc
    density = shares * dist.Normal(mean, variance.sqrt().unsqueeze(-1)).to_event(1).log_prob(x.unsqueeze(1)).exp()
    slope = (at * own - (1 - at) * 1.2**2) / variance  # covariance of x1 - x0 and x_t, over the variance of x_t
    velocity = loc + slope.unsqueeze(-1) * (x.unsqueeze(1) - mean)
    expected = (density.unsqueeze(-1) * velocity).sum(1) / density.sum(1, keepdim=True) + free
    torch.testing.assert_close(field(x, t), expected, atol=1e-6, rtol=1e-6)


def test_components_start_at_clusters():
    M = geoopt.Euclidean(1)
    data = torch.tensor([-5.0, -5.2, -4.8, 4.0, 3.0, 9.0, 20.0, 20.1, 30.0, 30.6]).unsqueeze(-1) * torch.ones(2)
    field = HT.MixtureField(2, M, data, components=5)
    anchors, order = field.anchors.detach().sort(0)
    torch.testing.assert_close(anchors[:, 1], torch.tensor([-5.0, 3.5, 9.0, 20.05, 30.3]))
    shares, scales = (each.detach().exp()[order[:, 0]] for each in (field.log_weights, field.log_scales))
    torch.testing.assert_close(shares, torch.tensor([0.3, 0.2, 0.1, 0.2, 0.2]))
    # A place without a scale has the median of all five.
    torch.testing.assert_close(scales, torch.tensor([0.08 / 3, 0.25, 0.08 / 3, 0.0025, 0.09]).sqrt(), rtol=1e-4, atol=0)
    one = HT.MixtureField(2, M, data[:1])
    assert (one.anchors.tolist(), one.log_scales.tolist()) == ([[-5.0, -5.0]], [0.0])  # 1 where none has a scale
    most_alone = HT.MixtureField(2, M, data[5:], components=4)
    torch.testing.assert_close(most_alone.log_scales.detach().exp(), torch.tensor(4 * [0.05]), rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="anchors="):
        HT.continuous_flow(1, M, field="mixture")


def test_fields_are_smooth_at_their_anchors():
    M = lorentz(2.0)
    x, data = geometry.origin(M, 2, dtype=torch.float64), geometry.exp0(M, torch.tensor([[0.0, 0.0], [2.0, 1.0]]))
    for field in (HT.AnchorField(2, M, data, [4]), HT.MixtureField(2, M, data, hidden_dims=[4])):
        at = x.clone().requires_grad_()
        found = shaken(field.double())(at, x.new_zeros(()))
        assert torch.autograd.grad(found.sum(), at)[0].isfinite().all()


def test_mixtures_are_invertible_and_take_contexts():
    M, n = MANIFOLDS["h2xs2xr"][0](), 5
    x = points(M, n, 6)
    conditional = HT.continuous_flow(n, M, x.float(), 3, [6], steps=2, field="mixture", context_dim=1)
    conditional = shaken(conditional, 0.1)
    first, second = (conditional.condition(torch.full((1,), value, dtype=torch.float64)) for value in (0.0, 1.0))
    map_laws.round_trip(first, x[:2])
    assert (first(x[0]) - second(x[0])).norm() > 1e-6


def test_flow_matching_has_gradients_in_curvature_and_field():
    M = ph.manifolds.Lorentz(2.0, learnable=True).double()
    flow = shaken(HT.continuous_flow(2, M, field="dense", hidden_dims=[6]), 0.5)
    v = torch.linspace(-1, 1, 8, dtype=torch.float64).view(2, 2, 2)

    def loss():
        return ph.flows.flow_matching_loss(flow, geometry.exp0(M, v[0]), geometry.exp0(M, v[1]), 0.3).sum()

    parameters = list(flow.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    for value, gradient in zip(parameters, gradients, strict=True):
        kept, step = value.detach().clone(), torch.full_like(value, 1e-6)
        ends = []
        for sign in (1, -1):
            value.data = kept + sign * step
            ends.append(loss().item())
        value.data = kept
        assert gradient.sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_flow_matching_finds_a_wrapped_normal():
    torch.manual_seed(0)
    M = geoopt.Lorentz()
    p = geometry.exp0(M, torch.tensor([0.8, 0.0]))
    base, target = (
        hdist.WrappedNormal(geometry.origin(M, 2), torch.ones(2)),
        hdist.WrappedNormal(p, torch.full((2,), 0.5)),
    )
    flow = HT.continuous_flow(2, M, field="dense", hidden_dims=[64, 64], steps=8)
    adam = torch.optim.Adam(flow.parameters(), 5e-3)
    steps = 2500
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        loss = ph.flows.flow_matching_loss(flow, base.sample((512,)), target.sample((512,))).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    q, x = dist.TransformedDistribution(base, [flow]), target.sample((4000,))
    with torch.no_grad():
        log_ratio = target.log_prob(x) - q.log_prob(x)
    # The mean of r - 1 - log r has the same expectation as -log r, and little noise.
    assert ((-log_ratio).expm1() + log_ratio).mean() < 1e-3


@pytest.mark.parametrize("explicit", ["forward", "inverse"])
def test_svi_with_the_flow_as_guide_and_as_density(explicit):
    torch.manual_seed(0)
    M = geoopt.Lorentz()
    flow = HT.continuous_flow(2, M, field="dense", hidden_dims=[8], steps=2, explicit=explicit)
    base = hdist.WrappedNormal(geometry.origin(M, 2), torch.ones(2))
    other = hdist.WrappedNormal(geometry.exp0(M, torch.tensor([1.0, 0.0])), torch.full((2,), 0.5))
    flowing = dist.TransformedDistribution(base, [flow])
    data = other.sample((64,))

    def model():
        if explicit == "forward":  # the posterior is `other`
            pyro.sample("x", other)
        else:
            pyro.module("flow", flow)
            with pyro.plate("data", 64):
                pyro.sample("x", flowing, obs=data)

    def guide():
        if explicit == "forward":
            pyro.module("flow", flow)
            pyro.sample("x", flowing)

    pyro.clear_param_store()
    svi = pyro.infer.SVI(
        model,
        guide,
        pyro.optim.Adam({"lr": 0.05}),
        pyro.infer.Trace_ELBO(32, vectorize_particles=True) if explicit == "forward" else pyro.infer.Trace_ELBO(),
    )
    losses = [svi.step() for _ in range(12)]
    assert math.fsum(losses[-3:]) < math.fsum(losses[:3])


@pytest.mark.parametrize("context_dim", [None, 2])
@pytest.mark.parametrize("other", [{"steps": 3}, {"explicit": "inverse"}])
def test_a_file_of_another_map_is_refused(context_dim, other):
    flow = HT.continuous_flow(2, geoopt.Sphere(), steps=2, num_anchors=2, context_dim=context_dim)
    same, another = (
        HT.continuous_flow(2, geoopt.Sphere(), num_anchors=2, context_dim=context_dim, **{"steps": 2, **options})
        for options in ({}, other)
    )
    same.load_state_dict(flow.state_dict())
    assert flow.state_dict()["_extra_state"]["forward explicit"] == 1
    with pytest.raises(ValueError, match=next(iter(other)).replace("explicit", "forward explicit")):
        another.load_state_dict(flow.state_dict())


# ---- Estimates of the log-determinant in many dimensions ----


@pytest.mark.parametrize("name", ["h2", "s2", "so3", "h2xs2xr"])
def test_the_mean_over_noise_is_the_log_determinant(name, monkeypatch):
    """Over axes in place of noise the mean is exact, and so is its gradient; only the tail of the series is left."""
    monkeypatch.setattr(runge_kutta, "EXACT_DIM", 1)
    exact, x = make(name, 0.3, steps=2, explicit="inverse")
    M, size = exact.manifold, geometry.complete(exact.manifold).vector_size(MANIFOLDS[name][1])
    estimated = HT.ContinuousFlow(exact.field, M, steps=2, explicit="inverse", hutchinson_terms=20)
    axes = size**0.5 * torch.eye(size)
    monkeypatch.setattr(torch, "randn", lambda *shape, dtype, device: axes.to(dtype).unsqueeze(1).expand(shape))
    (y, log_det), (same, estimates) = exact._backward(x), estimated._backward(x.expand(size, *x.shape))
    assert torch.allclose(same, y.expand_as(same), atol=1e-12)
    assert torch.allclose(estimates.mean(0), log_det, atol=1e-8)
    parameters = list(exact.parameters())
    wanted, found = (torch.autograd.grad(each.sum(), parameters) for each in (log_det, estimates.mean(0)))
    for a, b in zip(wanted, found, strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_an_estimate_is_a_series_and_refused_where_it_gains_nothing_or_diverges(monkeypatch):
    with pytest.raises(ValueError, match=r"n = 2 dimensions.* use hutchinson_terms=0"):
        HT.continuous_flow(2, geoopt.Sphere(), num_anchors=1, hutchinson_terms=4)(torch.eye(3)[0])
    flow, x = HT.ContinuousFlow(lambda x, t: 2 * x, geoopt.Euclidean(1), steps=1, hutchinson_terms=4), torch.ones(17)
    with pytest.raises(ValueError, match=r"too long for its series.*steps"):
        flow(x)
    with pytest.raises(ValueError, match="at time 0, "):
        HT.ContinuousFlow(lambda x, t: x / t.unsqueeze(-1), geoopt.Euclidean(1), steps=1, hutchinson_terms=4)(x)
    with pyro.validation_enabled(False):
        assert flow.log_abs_det_jacobian(x, flow(x)).isnan()
    short = HT.ContinuousFlow(lambda x, t: x / 2, geoopt.Euclidean(1), steps=1, hutchinson_terms=3)
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.ones(shape))
    b = 1 / 2 + 1 / 8 + 1 / 48 + 1 / 384  # the step multiplies by 1 + b
    assert short.log_abs_det_jacobian(x, short(x)).item() == pytest.approx(17 * (b - b**2 / 2 + b**3 / 3))


def test_random_fourier_features_are_of_the_features_of_points():
    M = lorentz()
    field, seen = HT.DenseField(2, M, [4], frequencies=500, frequency_scale=3.0).double(), []
    field.network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    x = points(M, 2)
    field(x, torch.tensor(0.5))
    features = geometry.complete(M).features(x)
    phases = features @ field.frequencies
    expected = torch.cat([features, phases.cos(), phases.sin()], -1)
    torch.testing.assert_close(seen[0][:, : expected.size(-1)], expected)
    assert field.frequencies.std().item() == pytest.approx(3.0, rel=0.1)
    scales = HT.DenseField(2, M, [4], frequencies=501, frequency_scale=(0.1, 10.0)).frequencies.square().log() / 2
    middles = scales.unflatten(-1, (3, 167)).mean((0, 2))  # of the logarithms of normal draws, (log 2 + gamma) / 2 less
    expected = torch.tensor([-1.0, 0.0, 1.0]) * math.log(10) * 2 / 3 - (math.log(2) + 0.5772) / 2
    torch.testing.assert_close(middles, expected, atol=0.25, rtol=0)


@pytest.mark.parametrize(
    "manifold", [geoopt.Sphere(), ph.manifolds.Torus(2), ph.manifolds.Rotations(), lorentz()], ids=str
)
def test_fields_are_those_of_each_member_of_any_batch(manifold):
    space, n = geometry.complete(manifold), 3 if isinstance(manifold, ph.manifolds.Rotations) else 2
    field = shaken(HT.AnchorField(n, manifold, 5, [4]).double(), 0.3)
    x = space.point(random_states(space, n, 6).double())[0]
    found = field(x, torch.tensor(0.3).double())
    nested = field(x.reshape(3, 1, 2, *x.shape[1:]), torch.tensor(0.3).double())
    torch.testing.assert_close(nested.reshape(found.shape), found)
    torch.testing.assert_close(field(x[4], torch.tensor(0.3).double()), found[4])
