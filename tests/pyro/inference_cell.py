"""The rows of the inference matrix: what works (or is refused), how that was checked, and the test that checks it."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple


class Cell(NamedTuple):
    """One row of the inference matrix: a line of the docs and a test.

    Attributes:
        name: What is used, in Pyro's own words, as Markdown.
        truth: What the result is compared with, in a few words.
        check: The test; raises AssertionError.
        status: ``works``; ``refused`` if an error names the remedy; ``not in Pyro`` if Pyro 1.9.2 cannot do it.
        slow: Whether only ``make test-all`` runs it.
        note: The reason and the workaround, or a caution; empty if there is none.
    """

    name: str
    truth: str
    check: Callable[[], None]
    status: str = "works"
    slow: bool = False
    note: str = ""


class Section:
    """A heading of the page, such as ``Autoguides``, with its cells in order."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.cells: list[Cell] = []

    def add(
        self, name: str, truth: str, check: Callable, *args: Any, status="works", slow=False, **kwargs: Any
    ) -> None:
        """Adds a cell, whose test is ``check(*args, **kwargs)``."""
        self.cells.append(Cell(name, truth, partial(check, *args, **kwargs), status, slow))

    def cell(self, name: str, truth: str, **options: Any) -> Callable[[Callable], Callable]:
        """Makes the decorated function the test of a new cell."""
        return lambda check: self.add(name, truth, check, **options) or check

    def note(self, text: str) -> None:
        """Adds a note to the last cell."""
        self.cells[-1] = self.cells[-1]._replace(note=text)
