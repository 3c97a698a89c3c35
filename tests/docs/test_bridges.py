"""The examples of docs/bridges.md, each with its library, run as they stand."""

import re
from pathlib import Path

import pyro
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "bridges.md").read_text()
#: What each example imports first, in order.
LIBRARIES = ("zuko", "torch_geometric", "pandas", "arviz")
EXAMPLES = dict(zip(LIBRARIES, re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL), strict=True))


@pytest.fixture(autouse=True)
def _validation():
    yield
    pyro.enable_validation(True)  # zuko's import turns it off


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.filterwarnings("ignore")  # those of other libraries
def test_the_example_runs(library, capsys):
    pytest.importorskip(library, exc_type=ImportError)
    names: dict = {}
    exec(compile(EXAMPLES[library], "bridges.md", "exec"), names)
    if "losses" in names:
        assert sum(names["losses"][-20:]) < sum(names["losses"][:20])
    if library == "pandas":
        assert names["edges"].shape == (5, 2)
        assert len(names["ax"].collections) == 2
    if library == "arviz":
        assert "z_distance" in capsys.readouterr().out
