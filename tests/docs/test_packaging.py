"""What an installation promises: dependencies are declared, and an extra that is missing is named."""

import ast
import importlib
import json
import re
import sys
from pathlib import Path

import pytest

import pyro_hyperbolic as ph
from tests.docs.names_at_floors import FILES, RECORD, names_used

ROOT = Path(__file__).parents[2]
tomllib = pytest.importorskip("tomllib")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
#: Packages of this repository, and scripts that import each other.
LOCAL = {"pyro_hyperbolic"} | {file.stem for file in (ROOT / "tutorials").rglob("*.py")}
DISTRIBUTIONS = {"pyro": "pyro-ppl"}


def floors(*extras):
    """The requirements of the package, or of it with extras, as ``{name: floor}``."""
    found = dict(requirement.split(">=") for requirement in PROJECT["dependencies"])
    for extra in extras:
        for requirement in PROJECT["optional-dependencies"][extra]:
            own = re.match(r"pyro-hyperbolic\[(.*)\]", requirement)
            found |= floors(*own[1].split(",")) if own else dict([requirement.split(">=")])
    return found


def imports(file):
    """The distributions that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names:
            if name not in LOCAL:
                yield DISTRIBUTIONS.get(name, name)


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("pyro_hyperbolic", []),
        ("pyro_hyperbolic/infer", ["arviz"]),
        ("pyro_hyperbolic/viz", ["viz"]),
        ("pyro_hyperbolic/testing", ["testing"]),
        ("tutorials", ["tutorials", "anndata"]),
    ],
)
def test_every_import_is_declared(folder, extras):
    own = {ROOT / "pyro_hyperbolic" / name for name in ("viz", "testing", "infer")}
    for file in (ROOT / folder).rglob("*.py"):
        if folder != "pyro_hyperbolic" or not own & {*file.parents}:
            assert {*imports(file)} <= {*floors(*extras)}, file


def version(text):
    return [int(part) for part in f"{text}.0.0".split(".")[:3]]


def test_the_floors_are_those_that_are_tested():
    """By `make test-floors`, with these versions; the README says the same of the dependencies that it names."""
    lines = (ROOT / "constraints-floors.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line)
    for name, floor in floors("testing", "tutorials", "zuko").items():
        assert version(tested[name]) == version(floor), name
    for name in ("mpmath", "pytest", "pytest-xdist"):
        assert version(tested[name]) == version(floors("dev")[name]), name
    readme = (ROOT / "README.md").read_text()
    for name, floor in re.findall(r"\b(torch|pyro-ppl|geoopt) >= ([\d.]*\d)", readme):
        assert version(floor) == version(tested[name]), name


def test_every_name_is_in_the_lowest_versions():
    """`make test-floors` says so too, but takes long and gigabytes."""
    known = json.loads(RECORD.read_text())
    tested = (ROOT / "constraints-floors.txt").read_text().splitlines()
    assert {f"{name}=={version}" for name, version in known.pop("versions").items()} <= {*tested}, "see names_at_floors"
    names = {module: {*text.split()} for module, text in known.items()}
    for file in FILES:
        for module, name in names_used(file, known):
            assert name[0] == "_" or name in names.get(module, ()), f"{file}: {module}.{name} is newer than the floor"


def test_there_is_one_version():
    """That of pyproject.toml; `make` installs again after a change of it."""
    assert ph.__version__ == PROJECT["version"]
    assert f"\nversion: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_page_on_pypi_has_no_paths():
    """It is the README, but PyPI has no other file of the repository."""
    page = (ROOT / "README.md").read_text()
    for each in PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        page = re.sub(each["pattern"], each["replacement"], page)
    assert re.findall(r"\]\((?!https://)", page) == []
    assert "Wrapped normals, normalizing flows" in page
    assert "```python\nimport" in page


OPTIONAL = {"viz": (ph, "matplotlib", "viz"), "strategies": (ph.testing, "hypothesis", "testing")}


@pytest.mark.parametrize("name", OPTIONAL)
def test_optional_modules_are_attributes(name, monkeypatch):
    parent, _, _ = OPTIONAL[name]
    monkeypatch.delattr(parent, name, raising=False)
    assert name in dir(parent)
    assert getattr(parent, name) is importlib.import_module(f"{parent.__name__}.{name}")
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = parent.nothing_of_that_name


@pytest.mark.parametrize("name", OPTIONAL)
def test_without_an_optional_dependency_the_extra_is_named(name, monkeypatch):
    parent, dependency, extra = OPTIONAL[name]
    module = f"{parent.__name__}.{name}"
    for loaded in [key for key in sys.modules if f"{key}.".startswith((f"{dependency}.", f"{module}."))]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, dependency, None)
    monkeypatch.delattr(parent, name, raising=False)
    remedy = re.escape(f'pip install "pyro-hyperbolic[{extra}]"')
    assert not hasattr(parent, name)  # so that help and completion go on
    with pytest.raises(AttributeError, match=f"{dependency}.*{remedy}"):
        getattr(parent, name)
    with pytest.raises(ImportError, match=f"{dependency}.*{remedy}"):
        importlib.import_module(module)
    exec(f"from {parent.__name__} import *", {})


#: Besides the files of the manifolds themselves, these may name one: distributions, targets and pictures on it.
#: A product distribution knows on which manifold Pyro's own laws are.
NAMES_A_MANIFOLD = (
    "geometry/",
    "charts.py",
    "manifolds.py",
    "polar_coupling.py",
    "factor_coupling.py",
    "axial_distribution.py",
    "product_distribution.py",
    "rotation_fisher.py",
    "manifold_targets.py",
    "viz/choice.py",
    "viz/compact.py",
)


def test_a_fact_about_a_manifold_stands_in_its_file():
    package = Path(ph.__file__).parent
    facts = r"Lorentz|hyperboloid|Poincar|\bn \+ 1|\[\.\.\., :?1:?\]|time coordinate"
    facts += r"|\bSphere|\bTorus|\bRotations|RotationGroup|FlatTorus|quaternion"
    for path in package.rglob("*.py"):
        name = str(path.relative_to(package))
        if name == "testing/strategies.py" or any(part in name for part in NAMES_A_MANIFOLD):
            continue
        code = re.sub(r'r?"""(.|\n)*?"""', "", path.read_text())
        code = re.sub(r"(?i)wrapped_?hyperboloid_?coupling|geoopt.Euclidean\(1\)|1 on Euclidean space", "", code)
        code = code.replace("such as geoopt.Sphere()", "")
        found = re.findall(rf".*(?:{facts}).*", code)
        assert not found, (name, found)
