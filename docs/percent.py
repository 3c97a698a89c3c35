"""Reads text tutorials for myst-nb."""

from typing import Any

import jupytext


def reads(text: str) -> Any:
    """Returns the notebook of a script in percent cells, marked as Python so that it is highlighted."""
    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "python"}
    return notebook
