"""The inference matrix: every cell, and the page of the docs that is made of them.

``python -m tests.inference_matrix > docs/inference.md`` writes the page; test_inference checks that it is this one.
"""

from itertools import groupby

from tests import inference_guides, inference_samplers
from tests.inference_cell import Cell

CELLS: list[Cell] = [*inference_guides.CELLS, *inference_samplers.CELLS]

PREAMBLE = """# Inference

This page lists every inference algorithm of Pyro 1.9.2, run on models with hyperbolic latents (H^2 at `k = 2`). Each
row is a test. The column *truth* says what its result is compared with.

- *works*: it gives the right answer, not only runs.
- *refused*: it raises an error that names the remedy.
- *not in Pyro*: Pyro cannot do it; the note has the reason and the workaround.

`python -m tests.inference_matrix > docs/inference.md` writes this page from the table that the tests run.
"""


def page() -> str:
    """The page, in Markdown."""
    parts = [PREAMBLE]
    for section, cells in groupby(CELLS, key=lambda cell: cell.section):
        rows = [f"| {cell.name} | {cell.status} | {cell.truth} | {cell.note} |" for cell in cells]
        parts.append("\n".join([f"## {section}\n", "| what | | truth | note |", "|---|---|---|---|", *rows, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
