"""Ordinary Pyro models and guides: each algorithm gives the truth, or an error names the remedy."""

from pathlib import Path

import pytest

from tests.pyro.inference_cell import Cell
from tests.pyro.inference_matrix import CELLS, page

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    "cell",
    [pytest.param(c, id=f"{title}: {c.name}", marks=[pytest.mark.slow] if c.slow else []) for title, c in CELLS],
)
def test_cell(cell: Cell):
    cell.check()


def test_the_page_is_this_table():
    written = (Path(__file__).parents[2] / "docs" / "inference.md").read_text()
    assert written == page(), "run: python -m tests.pyro.inference_matrix > docs/inference.md"


def test_names_are_unique():
    names = [(title, cell.name) for title, cell in CELLS]
    assert len(names) == len(set(names))
    assert {cell.status for _, cell in CELLS} == {"works", "refused", "not in Pyro"}
