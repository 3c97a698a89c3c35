"""The inference matrix: every cell, and the page of the docs that is made of them.

``python -m tests.inference_matrix > docs/inference.md`` writes the page; test_inference checks that it is this one.
"""

from itertools import groupby

from tests import inference_guides, inference_samplers
from tests.inference_cell import Cell

CELLS: list[Cell] = [*inference_guides.CELLS, *inference_samplers.CELLS]

PREAMBLE = """# Inference

Every way of doing inference in Pyro 1.9.2, on models with hyperbolic latents (H^2 at `k = 2`). Each row is a test:
*truth* says what the outcome is held against. *Works* means that it gives the right answer, not that it runs;
*refused*, that an error names the remedy; *not in Pyro*, that the note has the reason and the way round. The page is
written by `python -m tests.inference_matrix > docs/inference.md` from the table that the tests run.
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
