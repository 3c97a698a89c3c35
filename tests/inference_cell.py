"""A promise about inference: what works (or is refused), how that was checked, and the test that checks it."""

from collections.abc import Callable
from typing import NamedTuple


class Cell(NamedTuple):
    """One row of the inference matrix: a line of the docs and a test.

    Attributes:
        section: The heading under which it stands, such as ``Autoguides``.
        name: What is used, in Pyro's own words, as Markdown: ``` `AutoNormal` ```.
        status: ``works``; ``refused`` if an error names the remedy; ``not in Pyro`` if Pyro 1.9.2 cannot.
        truth: What the outcome is held against, a few words: ``evidence and moments by quadrature``.
        check: The test; raises AssertionError.
        note: The reason and the way round, or a caution; empty if there is none.
        slow: Whether ``make test`` leaves it to ``make test-all``.
    """

    section: str
    name: str
    status: str
    truth: str
    check: Callable[[], None]
    note: str = ""
    slow: bool = False
