"""Laws over examples that hypothesis searches for: points, radii, curvatures, dimensions, dtypes."""

import geoopt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pyro_hyperbolic as ph
from pyro_hyperbolic.testing import map_laws, strategies

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
def test_log0_inverts_exp0(data, dtype, dim):
    M = data.draw(strategies.manifolds(dtype=dtype))
    v = data.draw(strategies.tangent_vectors(M, dim=dim, max_radius=30.0, batch_shape=(2,), dtype=dtype))
    back = G.log0(M, G.exp0(M, v))
    assert back.dtype == dtype
    assert torch.allclose(back, v, rtol=10 * torch.finfo(dtype).eps, atol=1e-30)


@given(data=st.data(), dtype=DTYPES, dim=DIMS)
def test_a_translation_carries_the_origin_to_p_and_back(data, dtype, dim):
    M = data.draw(strategies.manifolds(dtype=dtype, euclidean=False))
    p = data.draw(strategies.points(M, dim=dim, max_radius=30.0, dtype=dtype))
    o = G.origin(M, dim)
    eps = torch.finfo(dtype).eps
    assert torch.allclose(G.translate(M, p, o), p, rtol=10 * eps, atol=10 * eps)
    assert G.distance(M, G.translate(M, p, p, inverse=True), o) <= limit(M, p)


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


@given(data=st.data(), dtype=DTYPES, dim=DIMS)
def test_results_are_on_the_manifold(data, dtype, dim):
    M = data.draw(strategies.manifolds(dtype=dtype))
    x, y = data.draw(strategies.point_pairs(M, dim=dim, max_radius=20.0, dtype=dtype))
    assert G.contains(M, x).all()
    assert G.contains(M, G.translate(M, x, y)).all()
    assert G.contains(M, G.translate(M, x, y, inverse=True)).all()


@given(data=st.data(), dim=DIMS)
def test_transforms_obey_their_laws(data, dim):
    M = data.draw(strategies.manifolds())
    t = data.draw(strategies.transforms(M, dim=dim, max_radius=2.0))
    x = data.draw(strategies.points(M, dim=dim, max_radius=2.0, batch_shape=(2,)))
    map_laws.round_trip(t, x)
    map_laws.log_det_matches_autograd(t, x)
    map_laws.inverse_log_det_is_negative(t, x)
    map_laws.gradients_are_finite(t, x)


@given(data=st.data(), dim=DIMS)
def test_own_samples_score_as_stored_points(data, dim):
    M = data.draw(strategies.manifolds())
    d = data.draw(strategies.wrapped_normals(M, dim=dim, max_radius=3.0, min_scale=0.1, max_scale=1.0))
    x = d.rsample((5,))
    radius = geoopt.Euclidean(1).norm(None, G.log0(M, x)).max().item()
    stored = d.log_prob(x.clone())
    tolerance = 1e-10 * torch.tensor(radius / (M.k.item() ** 0.5 if hasattr(M, "k") else 1.0)).exp().item()
    assert torch.allclose(d.log_prob(x), stored, rtol=1e-9, atol=tolerance)
