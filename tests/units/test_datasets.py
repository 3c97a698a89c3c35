"""Datasets: functions of a seed alone, their statistics, and files that are not what they claim."""

import math

import pytest
import torch

from pyro_hyperbolic import datasets

# ---- The branching diffusion process ----


def test_shapes_of_the_paper():
    data = datasets.branching_diffusion(seed=3)
    assert data.x.shape == (315, 50)
    assert data.node.bincount().tolist() == [5] * 63
    assert data.depth.bincount().tolist() == [5 * 2**d for d in range(6)]
    assert (len(data.train), len(data.test)) == (220, 95)
    assert torch.equal(torch.cat([data.train, data.test]).sort()[0], torch.arange(315))


@pytest.mark.parametrize(("branching", "depth"), [(2, 5), (3, 3), (1, 4), (4, 0)])
def test_tree(branching, depth):
    data = datasets.branching_diffusion(branching=branching, depth=depth, dim=3, observations=2)
    assert len(data.nodes) == sum(branching**d for d in range(depth + 1))
    assert data.parent[0] == -1
    parent, child = data.edges.unbind(-1)
    assert (parent < child).all()
    assert torch.equal(data.node_depth[child], data.node_depth[parent] + 1)
    children = parent.bincount(minlength=len(data.nodes))
    assert torch.equal(children, torch.where(data.node_depth < depth, branching, 0))


def test_data_are_a_function_of_the_seed_alone():
    state = torch.get_rng_state()
    a, b, c = (datasets.branching_diffusion(seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))
    assert not torch.equal(a.x, c.x)
    assert not torch.equal(a.train, c.train)


def test_the_split_does_not_move_the_data():
    a, b, c = (datasets.branching_diffusion(test_fraction=share) for share in (0.3, 0.0, torch.tensor([0.3])))
    assert torch.equal(a.test, c.test)
    assert torch.equal(a.x, b.x)
    assert len(b.test) == 0
    assert len(datasets.branching_diffusion(test_fraction=1.0).train) == 0


def test_dtype_is_the_default_and_the_numbers_are_the_same():
    single = datasets.branching_diffusion()
    torch.set_default_dtype(torch.float64)
    try:
        double = datasets.branching_diffusion()
    finally:
        torch.set_default_dtype(torch.float32)
    assert (single.x.dtype, double.x.dtype) == (torch.float32, torch.float64)
    assert torch.equal(single.x, double.x.float())


def assert_normal(values, variance):
    """Mean and variance of N(0, variance), each within 5 standard errors: one seed in a million fails."""
    n = values.numel()
    assert abs(values.mean()) <= 5 * math.sqrt(variance / n)
    assert abs(values.square().mean() - variance) <= 5 * variance * math.sqrt(2 / n)


@pytest.mark.parametrize("noise_variance", [0.1, 2.0])
def test_steps_and_noise_are_normal(noise_variance):
    data = datasets.branching_diffusion(seed=5, noise_variance=noise_variance)
    torch.testing.assert_close(data.x.mean(0), torch.zeros(50), rtol=0, atol=1e-6)
    torch.testing.assert_close(data.x.square().mean(0), torch.ones(50))
    nodes, x = data.nodes * data.scale + data.mean, data.x * data.scale + data.mean
    torch.testing.assert_close(nodes[0], torch.zeros(50), rtol=0, atol=1e-5)
    parent, child = data.edges.unbind(-1)
    assert_normal(nodes[child] - nodes[parent], 1.0)
    assert_normal(x - nodes[data.node], noise_variance)
    # Siblings move independently of each other, and so do coordinates.
    steps = (nodes[child] - nodes[parent]).view(31, 2, 50)
    assert abs((steps[:, 0] * steps[:, 1]).mean()) <= 5 / math.sqrt(31 * 50)
    assert abs((steps[..., 1:] * steps[..., :-1]).mean()) <= 5 / math.sqrt(62 * 49)


@pytest.mark.parametrize(
    "arguments",
    [
        {"dim": 0},
        {"depth": -1},
        {"branching": 0},
        {"observations": 0},
        {"noise_variance": -0.1},
        {"noise_variance": math.nan},
        {"test_fraction": 95},
    ],
    ids=str,
)
def test_arguments_out_of_range(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        datasets.branching_diffusion(**arguments)
    with pytest.raises(ValueError, match="variance"):
        datasets.branching_diffusion(depth=0, noise_variance=0.0)
