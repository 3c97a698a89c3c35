"""The decoder that reads a point: signed distances to hyperplanes, against the nearest of their points."""

import importlib.util
import sys
from pathlib import Path

import geoopt
import pyro
import pytest
import torch

import pyro_hyperbolic as ph

PATH = Path(__file__).parent.parent / "tutorials" / "hyperbolic_vae.py"


@pytest.fixture(scope="module")
def tutorial():
    settings = pyro.settings.get()
    spec = importlib.util.spec_from_file_location("hyperbolic_vae", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]
    pyro.settings.set(**settings)


def planes_of(tutorial, manifold, dim=2):
    torch.manual_seed(0)
    planes = tutorial.Gyroplanes(dim, 3, manifold).double()
    with torch.no_grad():
        planes.b.copy_(torch.tensor([0.0, 0.7, -2.0]))
    return planes


@pytest.mark.parametrize("k", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("dim", [2, 3])
def test_outputs_are_distances_to_the_nearest_point_of_a_plane(tutorial, dim, k):
    """A plane is exp_o(b u), moved along by all that is perpendicular to u; the nearest point is sought there."""
    M, G = geoopt.Lorentz(torch.tensor(k, dtype=torch.float64)), ph.geometry
    planes = planes_of(tutorial, M, dim)
    x = G.exp0(M, torch.randn(5, dim, dtype=torch.float64) * 1.5)
    length = planes.z.detach().norm(dim=-1, keepdim=True)
    unit = planes.z.detach() / length
    foot = G.exp0(M, planes.b.detach().unsqueeze(-1) * unit)
    across = torch.linalg.svd(unit.unsqueeze(-2)).Vh[:, 1:]  # (planes, dim - 1, dim), perpendicular to u
    at = torch.zeros(5, 3, dim - 1, dtype=torch.float64, requires_grad=True)

    def distance():
        tangent = (at.unsqueeze(-2) @ across).squeeze(-2)
        return G.distance(M, x.unsqueeze(1), G.translate(M, foot, G.exp0(M, tangent)))

    search = torch.optim.LBFGS([at], max_iter=400, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        search.zero_grad()
        loss = distance().sum()
        loss.backward()
        return loss

    search.step(closure)
    found = planes(x) / length.squeeze(-1)
    assert torch.allclose(found.abs(), distance(), atol=1e-6)
    # Positive on the side to which u points: the ray along u crosses the plane at distance b from the origin.
    for t in (-0.3, 0.3):
        along = G.exp0(M, (planes.b.detach().unsqueeze(-1) + t) * unit)
        assert torch.allclose(planes(along).diagonal(), t * length.squeeze(-1))


def test_without_curvature_they_are_a_linear_layer(tutorial):
    planes = planes_of(tutorial, geoopt.Euclidean(1))
    linear = torch.nn.Linear(2, 3).double()
    with torch.no_grad():
        linear.weight.copy_(planes.z)
        linear.bias.copy_(-planes.b * planes.z.norm(dim=-1))
    x = torch.randn(5, 2, dtype=torch.float64)
    assert torch.allclose(planes(x), linear(x))
    # And the limit of little curvature: the outputs of a hyperboloid of radius 1e4.
    M = geoopt.Lorentz(torch.tensor(1e8, dtype=torch.float64))
    assert torch.allclose(planes_of(tutorial, M)(ph.geometry.exp0(M, x)), linear(x), atol=1e-6)
