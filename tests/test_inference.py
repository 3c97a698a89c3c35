"""Ordinary Pyro models and guides: each way of doing inference gives the truth, or says why it cannot."""

from pathlib import Path

import pyro
import pytest
import torch

from tests.inference_cell import Cell
from tests.inference_matrix import CELLS, page


@pytest.fixture(autouse=True)
def _fresh():
    torch.set_default_dtype(torch.float64)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    pyro.clear_param_store()
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "cell",
    [pytest.param(c, id=f"{c.section}: {c.name}", marks=[pytest.mark.slow] if c.slow else []) for c in CELLS],
)
def test_cell(cell: Cell):
    """What the page says of it holds."""
    cell.check()


def test_the_page_is_this_table():
    """docs/inference.md was written from the cells above."""
    written = (Path(__file__).parents[1] / "docs" / "inference.md").read_text()
    assert written == page(), "run: python -m tests.inference_matrix > docs/inference.md"


def test_names_are_unique():
    """A row that stands twice would be two promises of one thing."""
    names = [(cell.section, cell.name) for cell in CELLS]
    assert len(names) == len(set(names))
    assert {cell.status for cell in CELLS} <= {"works", "refused", "not in Pyro"}
