"""Sphinx configuration; the docstrings and the text tutorials are the source."""

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
# Sphinx reads below this folder only; the copies are ignored by git.
# Modules that the tutorials import, and the experiments, which have a page of their own with their records.
ignored = shutil.ignore_patterns("__*", "mnist.py", "workers.py", "phylogeny.py", "cells.py", "experiments")
shutil.copytree(HERE.parent / "tutorials", HERE / "tutorials", dirs_exist_ok=True, ignore=ignored)

project = "pyro_hyperbolic"
author = "The pyro_hyperbolic developers"
html_theme = "furo"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "myst_nb"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_use_ivar = True
myst_enable_extensions = ["dollarmath"]
exclude_patterns = ["_build", "*.py", "jupyter_execute"]
# Tutorials are executed by the tests; here their text is rendered.
nb_execution_mode = "off"
nb_custom_formats = {".py": "percent.reads"}
suppress_warnings = ["myst.header", "myst.xref_missing", "mystnb.unknown_mime_type"]
