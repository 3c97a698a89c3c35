"""Events on the earth: files that are read, and refused; splits without leaks."""

import geoopt
import pytest
import torch

import pyro_hyperbolic as ph
from pyro_hyperbolic.datasets import earth, split_points


def file_of(folder, content):
    path = folder / "places.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_places_are_points_of_the_sphere(tmp_path):
    """The axes are at (0, 0), (0, 90) and the north pole."""
    x = earth(file_of(tmp_path, "0,0\n0,90\n90,77\n0,-90\n-90,0\n0,180\n"))
    axes = torch.eye(3, dtype=torch.float64)
    assert torch.allclose(x, torch.cat([axes, -axes[[1, 2, 0]]]), rtol=0, atol=1e-15)
    assert ph.geometry.contains(geoopt.Sphere(), x).all()


@pytest.mark.parametrize(
    "content",
    [
        "12.5,-70.25\n-3,5\n",
        "# Longo, Latini and others\n# another, with, commas\nLATITUDE,LONGITUDE\r\n12.5,-70.25\r\n\r\n-3,5\r\n",
        '\ufefflat,long\n"12.5", 289.75\n-3.0,365e0\n'.replace("365e0", "5e0"),
    ],
    ids=["bare", "names and comments", "marks, quotes and whole turns"],
)
def test_layouts(content, tmp_path):
    """Angles between places, by the haversine formula."""
    x = earth(file_of(tmp_path, content))
    lat, long = torch.tensor([[12.5, -3.0], [-70.25, 5.0]], dtype=torch.float64).deg2rad()
    haversine = (lat.diff() / 2).sin() ** 2 + lat.cos().prod() * (long.diff() / 2).sin() ** 2
    assert torch.allclose(ph.geometry.distance(geoopt.Sphere(), x[:1], x[1:]), 2 * haversine.sqrt().asin())


def test_equal_places_are_equal_points(tmp_path):
    x = earth(file_of(tmp_path, "10,180\n10,-180\n20,-70\n20,290\n90,3\n90,4\n5,0\n5,360\n-90,1\n"))
    assert len(x.unique(dim=0)) == 5
    # In floating point 359.9 - 360 is not -0.1.
    tenths = [f"1,{'-' * (i > 0)}{i / 10}\n1,{(3600 - i) / 10}\n" for i in range(1800)]
    assert len(earth(file_of(tmp_path, "".join(tenths))).unique(dim=0)) == 1800


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        ("lat,long\n91,0\n", ("line 2", "'91,0'", "[-90, 90]", "latitude first")),
        ("10,400\n", ("line 1", "longitude", "[-180, 360]")),
        ("10,nan\n", ("line 1", "longitude")),
        ("longitude,latitude\n10,20\n", ("line 1", "swap")),
        ("X,Y\n10,20\n", ("line 1", "swap")),
        ("id,lat\n10,20\n", ("line 1", "latitude must come first")),
        ("# long, lat (degrees)\n10,20\n", ("line 1", "swap")),
        ("# x, y\n10,20\n", ("line 1", "swap")),
        ("lat,long\nlat,long\n1,2\n", ("line 2", "two numbers")),
        ("1,2\n1,2,3\n", ("line 2", "'1,2,3'", "two columns")),
        ("1 2\n", ("line 1", "latitude,longitude")),
        (b"\x89PNG\r\n\x1a\n", ("line 1", "two numbers")),
        ("# only a comment\nlat,long\n", ("no places", "latitude,longitude")),
    ],
)
def test_a_file_of_something_else(content, fragments, tmp_path):
    with pytest.raises(ValueError, match=r"places\.csv") as info:
        earth(file_of(tmp_path, content))
    assert all(fragment in str(info.value) for fragment in fragments)


def test_no_file(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(FileNotFoundError, match="csv file of latitudes"):
            earth(path)
    with pytest.raises(TypeError, match="path"):
        earth(None)


# ---- Splits ----

PLACES = torch.randn(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
#: Place i is there 1 + i % 7 times.
EVENTS = PLACES.repeat_interleave(1 + torch.arange(100) % 7, dim=0)


def counts(x):
    """Returns how often each place is there."""
    return (x[:, None] == PLACES).all(-1).sum(0)


@pytest.mark.parametrize("distinct", [False, True])
def test_parts_are_all_of_the_points(distinct):
    state = torch.get_rng_state()
    split, again, other = (split_points(EVENTS, seed, distinct=distinct) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(sum(map(counts, split)), counts(EVENTS))
    assert all(map(torch.equal, split, again))
    assert not torch.equal(counts(split.test), counts(other.test))
    sizes = [int((counts(part) > 0).sum()) if distinct else len(part) for part in split]
    total = 100 if distinct else len(EVENTS)
    assert sizes == [total - 2 * (total // 10), total // 10, total // 10]


def test_no_place_is_in_two_parts():
    there = torch.stack([counts(part) > 0 for part in split_points(EVENTS, 3, distinct=True)])
    assert (there.sum(0) == 1).all()
    # At random a test point is nearly always a training point too, where each place has several copies.
    split = split_points(EVENTS, 3)
    assert (counts(split.train)[counts(split.test) > 0] > 0).float().mean() > 0.8


def test_events_of_any_shape_and_fractions():
    split = split_points(torch.randn(100, 3, 3), 0, val=0.29, test=0.0)
    assert [part.shape for part in split] == [(71, 3, 3), (29, 3, 3), (0, 3, 3)]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"val": -0.1}, ValueError, "val = -0.1.*fraction"),
        ({"val": 0.5, "test": 0.5}, ValueError, "hold out 100 of 100.*smaller"),
        ({"seed": 0.5}, TypeError, "seed"),
        ({"x": PLACES[0]}, ValueError, r"\(3,\).*event"),
        ({"x": torch.arange(5)}, TypeError, "x"),
    ],
)
def test_splits_that_cannot_be(arguments, error, words):
    with pytest.raises(error, match=words):
        split_points(**{"x": PLACES, "seed": 0, **arguments})
