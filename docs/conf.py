"""Sphinx configuration; the docstrings, the text tutorials and the repository's Markdown are the source."""

import abc
import inspect
import shutil
import sys
import urllib.request
from importlib import import_module
from pathlib import Path
from typing import Generic

import numpy.typing
from docutils import nodes

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


class ArrayLike:
    """Stands for NumPy's type in signatures, where that is written out as five lines of protocols."""


ArrayLike.__module__ = "numpy.typing"
numpy.typing.ArrayLike = ArrayLike

import gallery  # noqa: E402  # in this folder
import sources  # noqa: E402

import pyro_hyperbolic  # noqa: E402

# Sphinx reads below this folder only; the copies are ignored by git.
shutil.rmtree(HERE / "tutorials", ignore_errors=True)
(HERE / "tutorials" / "thumbnails").mkdir(parents=True)
for name in sources.TUTORIALS:
    shutil.copy2(HERE.parent / "tutorials" / f"{name}.py", HERE / "tutorials")
    gallery.thumbnail(name, HERE / "tutorials" / "thumbnails" / f"{name}.png")

project = "pyro_hyperbolic"
author = "The pyro_hyperbolic developers"
copyright = f"{author}. Apache-2.0"
release = version = pyro_hyperbolic.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
extensions += ["sphinx.ext.intersphinx", "sphinx.ext.mathjax", "sphinx-mathjax-offline", "sphinx_copybutton"]
extensions += ["sphinx_design", "myst_nb"]
exclude_patterns = ["_build", "*.py", "jupyter_execute"]

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
templates_path = []
html_theme_options = {"navigation_with_keys": True}

add_module_names = False
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autosummary_generate = False
napoleon_use_ivar = True

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # percent.py adds the outputs that gallery.py has
nb_custom_formats = {".py": "percent.reads"}
copybutton_exclude = ".linenos, .gp, .go"  # copies what was typed of a doctest

nitpicky = True
# Names of other packages: links to their pages where a network is there, plain text where none is.
FOREIGN = (
    "torch|pyro|geoopt|numpy|scipy|networkx|matplotlib|hypothesis|arviz|xarray|lightning|typing|collections|abc|os"
)
nitpick_ignore_regex = [("py:.*", rf"({FOREIGN})(\..*)?"), ("py:class", "_DependentProperty|.*density_laws.Nodes")]
INVENTORIES = {
    "python": "https://docs.python.org/3/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "pyro": "https://docs.pyro.ai/en/stable/",
    "geoopt": "https://geoopt.readthedocs.io/en/latest/",
    "matplotlib": "https://matplotlib.org/stable/",
}


def inventory(name, url):
    """Returns a fresh copy of the inventory of a site, or None without a network."""
    file = HERE / "_build" / "inventories" / f"{name}.inv"
    try:
        with urllib.request.urlopen(f"{url}objects.inv", timeout=5) as answer:
            content = answer.read()
    except OSError:
        return None
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return str(file)


found = {name: (url, inventory(name, url)) for name, url in INVENTORIES.items()}
intersphinx_mapping = {name: entry for name, entry in found.items() if entry[1]}

#: Where a public object is defined, and the public path at which it is documented.
PUBLIC = {}
for module in map(import_module, sources.MODULES):
    for name in getattr(module, "__all__", ()):
        each = getattr(module, name)
        if inspect.isclass(each) or inspect.isfunction(each):
            PUBLIC[f"{each.__module__}.{each.__qualname__}"] = f"{module.__name__}.{name}"


def at_public_path(app, env, node, contnode):
    """Resolves a reference by private path, as types of arguments have it."""
    target = node.get("reftarget", "")
    for private, public in PUBLIC.items():
        if target == private or target.startswith(f"{private}."):
            domain, target = env.get_domain("py"), public + target[len(private) :]
            return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], target, node, contnode)
    return None


def public_bases(app, name, obj, options, bases):
    """Shows the nearest bases that have an entry or belong to another package."""
    i = 0
    while i < len(bases):
        base = bases[i]
        path = f"{getattr(base, '__module__', '')}.{getattr(base, '__qualname__', '')}"
        if path.startswith("pyro_hyperbolic.") and path not in PUBLIC:
            bases[i : i + 1] = [each for each in base.__bases__ if each not in (*bases, object, abc.ABC, Generic)]
        else:
            i += 1


def without_return_type(app, domain, objtype, content):
    """Drops ``Return type: Tensor`` below a sentence on what is returned."""
    for fields in content.findall(nodes.field_list):
        named = {field[0].astext(): field for field in fields}
        if named.keys() & {"returns", "return"} and (kind := named.get("rtype")) and kind[1].astext() == "Tensor":
            fields.remove(kind)


def setup(app):
    """Called by Sphinx."""
    app.connect("object-description-transform", without_return_type, priority=900)
    app.connect("autodoc-process-bases", public_bases)
    app.connect("source-read", sources.read)
    app.connect("missing-reference", at_public_path)
