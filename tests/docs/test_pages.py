"""The guide pages run as they stand, print what they show, and quote figures that a record holds."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import pictures  # noqa: E402
import snippets  # noqa: E402

PAGES = sorted(path.name for path in DOCS.glob("*.md") if "```text" in path.read_text() and path.name != "testing.md")
#: Pages that train: for `make test` their loops are cut short, and their numbers are not compared.
TRAINS = {"getting_started.md", "from_euclidean_vae.md"}
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?|-?\d+")


def compare(page, outputs, numbers, rel):
    for shown, found in outputs:
        wanted = shown or ""
        assert NUMBER.sub("#", wanted).split() == NUMBER.sub("#", found).split(), f"python docs/snippets.py docs/{page}"
        if numbers:
            expected, values = (list(map(float, NUMBER.findall(text))) for text in (wanted, found))
            assert values == pytest.approx(expected, rel=rel, abs=2e-4), wanted


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_and_prints_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outputs = snippets.run((DOCS / page).read_text(), short=page in TRAINS)
    compare(page, outputs, numbers=page not in TRAINS, rel=5e-3)
    for picture in tmp_path.glob("*.png"):
        assert f"](images/{picture.name})" in (DOCS / page).read_text()
        assert (DOCS / "images" / picture.name).exists()


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(TRAINS))
def test_a_page_that_trains_prints_its_numbers(page, tmp_path, monkeypatch):
    """To 5%: rounding is magnified by training."""
    monkeypatch.chdir(tmp_path)
    compare(page, snippets.run((DOCS / page).read_text()), numbers=True, rel=0.05)


def test_the_distribution_on_the_page_of_the_kit_holds():
    page = (DOCS / "testing.md").read_text()
    exec(re.search(r"```python\n(import .*?)```", page, re.DOTALL)[1], {"__name__": "page"})


def test_the_picture_of_shapes_is_drawn(tmp_path):
    pictures.shapes(tmp_path / "shapes.png")
    assert (tmp_path / "shapes.png").stat().st_size > 20_000


@pytest.mark.parametrize("page", ["choosing.md", "from_euclidean_vae.md"])
def test_figures_are_those_of_the_records(page):
    records = (ROOT / "tutorials" / "experiments" / "README.md").read_text() + (DOCS / "performance.md").read_text()
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", (DOCS / page).read_text(), flags=re.DOTALL)
    missing = [figure for figure in re.findall(r"\d+\.\d+", prose) if not re.search(rf"(?<!\d){figure}(?!\d)", records)]
    assert missing == []


def test_papers_are_those_of_the_docstrings():
    """Every arXiv number of the package is on the page, so that nobody is forgotten."""
    code = "".join(path.read_text() for path in (ROOT / "pyro_hyperbolic").rglob("*.py"))
    cited = set(re.findall(r"arxiv.org/abs/(\d+\.\d+)", (DOCS / "citing.md").read_text()))
    of_code = set(re.findall(r"arXiv:(\d{4}\.\d+)", code))
    assert of_code - cited == {"1408.0250", "2002.04745"}  # a constant, and a choice of layers
