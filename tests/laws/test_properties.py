"""Laws over examples that hypothesis searches for: points, radii, curvatures, dimensions, dtypes."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pyro_hyperbolic as ph
from pyro_hyperbolic.testing import gradient_laws, map_laws, strategies

G = ph.geometry
DTYPES = st.sampled_from([torch.float64, torch.float32])
DIMS = st.integers(1, 6)
settings.register_profile("suite", max_examples=60, deadline=None, derandomize=True, print_blob=True)
settings.load_profile("suite")


def limit(M, *values):
    """Rounding that points at these radii allow: u * e^r across the radius, in units of distance."""
    radius = max(float(G.distance(M, G.origin(M, x.size(-1) - 1, dtype=x.dtype), x).max()) for x in values)
    scaled = radius / M.k.sqrt().item()
    return 200 * torch.finfo(values[0].dtype).eps * torch.tensor(scaled).exp().item() * M.k.sqrt().item()


@given(data=st.data(), dtype=DTYPES, dim=DIMS)
def test_distance_is_a_metric_that_translations_keep(data, dtype, dim):
    M = data.draw(strategies.manifolds(dtype=dtype, euclidean=False))
    x, y = data.draw(strategies.point_pairs(M, dim=dim, max_radius=6.0, dtype=dtype))
    p = data.draw(strategies.points(M, dim=dim, max_radius=2.0, dtype=dtype))
    d = G.distance(M, x, y)
    tolerance = limit(M, x, y, p)
    assert d >= 0
    assert G.distance(M, x, x) == 0
    assert (d - G.distance(M, y, x)).abs() <= tolerance
    assert d <= G.distance(M, x, p) + G.distance(M, p, y) + tolerance
    moved = G.translate(M, p, x), G.translate(M, p, y)
    assert (d - G.distance(M, *moved)).abs() <= limit(M, x, y, *moved)


@given(data=st.data(), dim=DIMS)
def test_transforms_obey_their_laws(data, dim):
    M = data.draw(strategies.manifolds())
    t = data.draw(strategies.transforms(M, dim=dim, max_radius=2.0))
    x = data.draw(strategies.points(M, dim=dim, max_radius=2.0, batch_shape=(1, 2)))
    map_laws.round_trip(t, x)
    map_laws.log_det_matches_autograd(t, x)
    map_laws.inverse_log_det_is_negative(t, x)
    gradient_laws.gradients_are_finite(t, x)
