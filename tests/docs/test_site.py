"""What the site promises before it is built: each public name is on a page of the reference, links lead to files.

`make docs` builds the pages and runs docs/check.py on them, which is tested here on a small site.
"""

import importlib
import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = {}
for page in (DOCS / "api").glob("*.md"):
    text = page.read_text()
    (module,) = re.findall(r"\{module\} (\S+)", text)
    REFERENCE[module] = " ".join(re.findall(r"```\{names\}\n([\s\S]*?)```", text)).split()


@pytest.mark.parametrize("module", REFERENCE)
def test_every_public_name_is_in_the_reference_once(module):
    public = importlib.import_module(module)
    names = {name for name in getattr(public, "__all__", REFERENCE[module]) if f"{module}.{name}" not in REFERENCE}
    assert sorted(REFERENCE[module]) == sorted(names)


def test_every_public_module_has_a_page():
    import pyro_hyperbolic as ph

    assert {f"pyro_hyperbolic.{name}" for name in (*ph.__all__, "viz")} <= {*REFERENCE}


SITE = {
    "index.html": '<a href="sub/page.html#there">x</a> <img src="picture.png"> <a href="https://example.org">x</a>',
    "sub/page.html": '<p id="there"></p> <a href="../index.html">x</a> <link href="../style.css">',
    "style.css": "p { background: url(picture.png) }",
    "picture.png": "",
}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (None, "", None),
        ("index.html", '<a href="gone.html">x</a>', "gone.html leads nowhere"),
        ("index.html", '<a href="sub/page.html#gone">x</a>', "sub/page.html#gone leads nowhere"),
        ("index.html", '<img src="gone.png">', "gone.png leads nowhere"),
        ("index.html", '<script src="https://cdn.example.org/x.js">', "fetches https://cdn.example.org/x.js"),
        ("style.css", "@font-face { src: url('//fonts.example.org/x.woff') }", "fetches //fonts.example.org/x.woff"),
    ],
)
def test_the_check_of_the_site_finds_faults(tmp_path, monkeypatch, file, content, message):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(DOCS)
    check = importlib.import_module("check")
    monkeypatch.delitem(sys.modules, "check")
    for name, text in {**SITE, **({file: content} if file else {})}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    pages = {path.relative_to(tmp_path): check.Page(path.read_text()) for path in tmp_path.rglob("*.html")}
    found = check.foreign(tmp_path, pages) + check.broken(tmp_path, pages)
    assert [line.partition(": ")[2] for line in found] == ([message] if message else [])
