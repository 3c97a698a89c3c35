"""The README is short, its example runs as it stands, its commands and files exist, and the overview is complete."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README, OVERVIEW = ((ROOT / name).read_text() for name in ("README.md", "docs/overview.md"))


def test_the_example_trains_prints_and_draws(tmp_path, monkeypatch, capsys):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    monkeypatch.chdir(tmp_path)
    example, drawing = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    losses = names["losses"]
    assert sum(losses[-20:]) < sum(losses[:20])
    assert "mean" in capsys.readouterr().out
    exec(compile(drawing, "README.md", "exec"), names)
    pyplot.close()
    assert (tmp_path / "posterior.png").stat().st_size > 5000
    assert len([line for line in example.splitlines() if line.strip()]) <= 20


def test_it_is_short():
    assert len(README.split()) <= 700


def test_the_commands_and_files_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path


def test_every_public_transform_and_distribution_is_in_the_overview():
    import pyro_hyperbolic.distributions as hdist
    import pyro_hyperbolic.distributions.transforms as HT

    bases = {
        "Coupling",
        "ConditionalCoupling",
        "ManifoldTransform",
        "TangentModule",
        "VectorField",
        "WrappedDistribution",
    }
    for name in {*HT.__all__, *hdist.__all__} - bases - {"constraints", "transforms"}:
        if not name.lower().startswith("conditional"):
            assert f"`{name}" in OVERVIEW, name
