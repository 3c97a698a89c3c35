"""The inference matrix: every cell, and the page of the docs that they make.

``python -m tests.pyro.inference_matrix > docs/inference.md`` writes the page; test_inference compares it.
"""

from tests.pyro.inference_cell import Cell
from tests.pyro.inference_compact import COMPACT
from tests.pyro.inference_effects import EFFECTS, PITFALLS
from tests.pyro.inference_guides import AUTOGUIDES, ELBOS, HAND_WRITTEN
from tests.pyro.inference_samplers import REPARAMETRISATION, SAMPLERS

SECTIONS = [AUTOGUIDES, HAND_WRITTEN, ELBOS, SAMPLERS, REPARAMETRISATION, COMPACT, EFFECTS, PITFALLS]
CELLS: list[tuple[str, Cell]] = [(section.title, cell) for section in SECTIONS for cell in section.cells]

PREAMBLE = """# Inference

This page lists every inference algorithm of Pyro 1.9.2, run on models with hyperbolic latents (H^2 at `k = 2`), and
the main ones on models with latents on compact manifolds. Each row is a test. The column *truth* says what its result
is compared with.

- *works*: it gives the right answer, not only runs.
- *refused*: it raises an error that names the remedy.
- *not in Pyro*: Pyro cannot do it; the note has the reason and the workaround.

`python -m tests.pyro.inference_matrix > docs/inference.md` writes this page from the table that the tests run.
"""


def page() -> str:
    """The page, in Markdown."""
    parts = [PREAMBLE]
    for section in SECTIONS:
        rows = [f"| {cell.name} | {cell.status} | {cell.truth} | {cell.note} |" for cell in section.cells]
        parts.append("\n".join([f"## {section.title}\n", "| what | | truth | note |", "|---|---|---|---|", *rows, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
