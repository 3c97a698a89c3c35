"""Fixtures that every test can use. Seeds and Pyro's stores are reset before each test by the conftest.py above."""

import pytest

collect_ignore = ["docs/typed_program.py"]  # for mypy; doctest-modules would run it


@pytest.fixture
def float64():
    """The default dtype, for modules whose functions make tensors of it: ``usefixtures("float64")``."""
    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
