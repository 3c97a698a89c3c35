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


def module_of_docs(name, monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    module = importlib.import_module(name)
    monkeypatch.delitem(sys.modules, name)
    return module


TUTORIAL = """# %% [markdown]
# # A title
#
# Some text.

# %%
import helper
from matplotlib.figure import Figure

print("six is", helper.six)

# %%
figure = Figure(figsize=(2, 1))
figure.savefig("results/nowhere.png")
"""


def test_a_page_shows_what_a_tutorial_prints_and_draws(tmp_path, monkeypatch):
    pytest.importorskip("myst_nb")
    gallery = module_of_docs("gallery", monkeypatch)
    monkeypatch.setitem(sys.modules, "gallery", gallery)
    percent = module_of_docs("percent", monkeypatch)
    for name in ("FOLDER", "FULL", "BRIEF"):
        monkeypatch.setattr(gallery, name, tmp_path / name)
    gallery.FOLDER.mkdir()
    script, helper = gallery.FOLDER / "small.py", gallery.FOLDER / "helper.py"
    script.write_text(TUTORIAL)
    helper.write_text("six = 6")
    gallery.run("small", gallery.FULL / "small", brief=False)
    _, printed, drawn = percent.reads(f"# small\n{TUTORIAL}").cells
    assert [output.text for output in printed.outputs] == ["six is 6"]
    assert [[*output.data] for output in drawn.outputs] == [["image/png"]]
    made_of = gallery.code("small")
    script.write_text(TUTORIAL.replace("Some text", "Other text"))
    assert gallery.code("small") == made_of
    for file, text in ((script, TUTORIAL.replace("six is", "6 is")), (helper, "six = 7")):
        file.write_text(text)
        assert gallery.code("small") != made_of
    assert gallery.outputs("small") == gallery.BRIEF / "small"  # run again, since the old outputs are of other code
    assert (gallery.BRIEF / "small" / "01.txt").read_text() == "6 is 7\n"


def test_a_tutorial_that_fails_fails_the_build(tmp_path, monkeypatch):
    pytest.importorskip("jupytext")
    gallery = module_of_docs("gallery", monkeypatch)
    monkeypatch.setattr(gallery, "FOLDER", tmp_path)
    (tmp_path / "small.py").write_text("# %%\nx = 1\n\n# %%\nraise ValueError(f'{x} is wrong')\n")
    with pytest.raises(RuntimeError, match=r"small\.py(.|\n)*line 5(.|\n)*1 is wrong"):
        gallery.run("small", tmp_path / "made", brief=True)
    assert not (tmp_path / "made").exists()


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
    check = module_of_docs("check", monkeypatch)
    for name, text in {**SITE, **({file: content} if file else {})}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    pages = {path.relative_to(tmp_path): check.Page(path.read_text()) for path in tmp_path.rglob("*.html")}
    found = check.foreign(tmp_path, pages) + check.broken(tmp_path, pages)
    assert [line.partition(": ")[2] for line in found] == ([message] if message else [])
