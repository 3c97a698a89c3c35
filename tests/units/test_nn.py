"""Layers that read points."""

import geoopt
import pyro
import pytest
import torch

import pyro_hyperbolic as ph
from tests.cases import ball, lorentz

G = ph.geometry
CURVED = {"k0.5": lorentz(0.5), "k1": lorentz(), "k4": lorentz(4.0), "ball": ball(2.0)}


def planes_on(manifold, dim=2):
    torch.manual_seed(0)
    planes = ph.nn.Gyroplanes(dim, 3, manifold).double()
    with torch.no_grad():
        planes.offset.copy_(torch.tensor([0.0, 0.7, -2.0]))
    return planes


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("name", CURVED)
def test_outputs_are_distances_to_the_nearest_point_of_a_plane(name, dim):
    """The plane is searched for the nearest point: exp at the foot of all vectors perpendicular to u."""
    M = CURVED[name]
    planes = planes_on(M, dim)
    x = G.exp0(M, torch.randn(5, dim, dtype=torch.float64))
    length = planes.weight.detach().norm(dim=-1, keepdim=True)
    unit = planes.weight.detach() / length
    foot = G.exp0(M, planes.offset.detach().unsqueeze(-1) * unit)
    across = torch.linalg.svd(unit.unsqueeze(-2)).Vh[:, 1:]  # (planes, dim - 1, dim), perpendicular to u
    at = torch.zeros(5, 3, dim - 1, dtype=torch.float64, requires_grad=True)

    def distance():
        return G.distance(M, x.unsqueeze(1), G.exp_at(M, foot, (at.unsqueeze(-2) @ across).squeeze(-2)))

    if dim > 1:
        search = torch.optim.LBFGS([at], max_iter=400, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

        def closure():
            search.zero_grad()
            loss = distance().sum()
            loss.backward()
            return loss

        search.step(closure)
    assert torch.allclose((planes(x) / length.squeeze(-1)).abs(), distance(), atol=1e-6)
    # Positive on the side of u: the ray along u crosses the plane at distance b from the origin.
    for t in (-0.3, 0.3):
        along = G.exp0(M, (planes.offset.detach().unsqueeze(-1) + t) * unit)
        assert torch.allclose(planes(along).diagonal(), t * length.squeeze(-1))


def test_without_curvature_it_is_a_linear_layer():
    planes, linear = planes_on(geoopt.Euclidean(1)), torch.nn.Linear(2, 3).double()
    with torch.no_grad():
        linear.weight.copy_(planes.weight)
        linear.bias.copy_(-planes.offset * planes.weight.norm(dim=-1))
    x = torch.randn(5, 2, dtype=torch.float64)
    assert torch.allclose(planes(x), linear(x))
    nearly_flat = lorentz(1e8)
    assert torch.allclose(planes_on(nearly_flat)(G.exp0(nearly_flat, x)), linear(x), atol=1e-6)


@pytest.mark.parametrize("name", [*CURVED, "flat"])
def test_batch_shapes(name):
    M = CURVED.get(name, geoopt.Euclidean(1))
    planes, x = planes_on(M), G.exp0(M, torch.randn(4, 5, 2, dtype=torch.float64))
    assert planes(x).shape == (4, 5, 3)
    assert torch.allclose(planes(x[0, 0]), planes(x)[0, 0])
    assert planes(x[:0]).shape == (0, 5, 3)


def test_layers_are_stacked():
    """As a plate of layers with priors has them: each has its own points."""
    M = lorentz(2.0)
    planes, x = planes_on(M), G.exp0(M, torch.randn(2, 5, 2, dtype=torch.float64))
    stacked = {"weight": torch.randn(2, 3, 2, dtype=torch.float64), "offset": torch.randn(2, 3, dtype=torch.float64)}
    found = torch.func.functional_call(planes, stacked, x)
    for i in range(2):
        each = {name: value[i] for name, value in stacked.items()}
        torch.testing.assert_close(found[i], torch.func.functional_call(planes, each, x[i]))


def test_gradients_are_right_at_the_origin():
    M = lorentz(2.0)
    planes = planes_on(M)

    def outputs(v):
        return planes(G.exp0(M, v))

    assert torch.autograd.gradcheck(outputs, torch.zeros(1, 2, dtype=torch.float64, requires_grad=True))


def test_a_learnable_or_batched_curvature():
    M = ph.manifolds.Lorentz(2.0, learnable=True)
    layer = ph.nn.Gyroplanes(2, 3, M)
    layer(G.exp0(M, torch.randn(4, 2))).sum().backward()
    assert [p.grad is not None for p in layer.parameters()] == [True] * 3
    k = torch.tensor([0.5, 4.0], dtype=torch.float64)
    v = torch.randn(5, 2, 2, dtype=torch.float64)
    found = planes_on(geoopt.Lorentz(k))(G.exp0(geoopt.Lorentz(k), v))
    for i in range(2):
        single = geoopt.Lorentz(k[i])
        assert torch.allclose(found[:, i], planes_on(single)(G.exp0(single, v[:, i])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("r", "b"), [(80.0, 10.0), (80.0, -5.0), (1.0, 40.0), (9.0, 9.0)])
def test_far_points_and_far_planes(r, b, dtype):
    """On the axis of a plane distances are differences, on both sides of the origin, with the gradient 1."""
    layer = ph.nn.Gyroplanes(2, 1, lorentz()).to(dtype)
    layer.weight.data, layer.offset.data = torch.tensor([[1.0, 0.0]], dtype=dtype), torch.tensor([b], dtype=dtype)
    for sign in (1, -1):
        v = torch.tensor([sign * r, 0.0], dtype=dtype, requires_grad=True)
        found = layer(G.exp0(lorentz(), v))
        assert found.item() == pytest.approx(sign * r - b, rel=1e-5, abs=1e-5 if dtype == torch.float32 else 1e-7)
        (gradient,) = torch.autograd.grad(found.sum(), v)
        assert gradient[0].item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_k_of_another_dtype_or_device(dtype):
    for k in (torch.tensor(3.0), torch.tensor(3.0, dtype=torch.float64)):
        M = geoopt.Lorentz(k)
        layer = ph.nn.Gyroplanes(2, 1, M).to(dtype)
        exact = ph.nn.Gyroplanes(2, 1, lorentz(3.0)).double()
        exact.load_state_dict(layer.state_dict())
        v = torch.tensor([1.0, -2.0], dtype=dtype)
        error = layer(G.exp0(M, v)) - exact(G.exp0(lorentz(3.0), v.double()))
        assert error.abs().item() < 40 * max(torch.finfo(dtype).eps, torch.finfo(k.dtype).eps)


def test_a_layer_on_another_device_than_k():
    with pyro.validation_enabled(False):
        layer = ph.nn.Gyroplanes(2, 1, geoopt.Lorentz(3.0)).to("meta")
        assert layer(torch.empty(5, 3, device="meta")).shape == (5, 1)


@pytest.mark.parametrize("scale", [0.0, 1e-25, 1e25])
def test_weights_of_any_length(scale):
    layer = ph.nn.Gyroplanes(2, 3)
    layer.weight.data *= scale
    layer(G.exp0(geoopt.Lorentz(), torch.ones(2))).sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_bad_input():
    with pytest.raises(TypeError, match=r"Lorentz.*not constant.*torch\.nn\.Linear"):
        ph.nn.Gyroplanes(4, 2, geoopt.ProductManifold((lorentz(), 3), (lorentz(), 3)))
    with pytest.raises(ValueError, match="n = 3 dimensions, but the layer was built for dim = 2"):
        ph.nn.Gyroplanes(2, 4)(G.origin(geoopt.Lorentz(), 3).expand(5, 7, 4))
    with pytest.raises(TypeError, match=r"float32.*float64.*\.to"):
        ph.nn.Gyroplanes(2, 2)(G.origin(geoopt.Lorentz(), 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="out_dim = 0"):
        ph.nn.Gyroplanes(2, 0)
    with pytest.raises(ValueError, match=r"Lorentz\(k=1\).*Lorentz\(k=2\)"):
        ph.nn.Gyroplanes(2, 3, lorentz(2.0)).load_state_dict(ph.nn.Gyroplanes(2, 3).state_dict())
