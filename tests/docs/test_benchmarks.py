"""The benchmarks run, briefly under SMOKE_TEST, and write what they say."""

import json
from pathlib import Path

import pyro
import pytest

from tests.docs.scripts import run

FOLDER = Path(__file__).parents[2] / "benchmarks"
#: Modules of speed.py.
PARTS = {"continuous.py", "measure.py", "subjects.py", "vaes.py"}
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if path.name not in PARTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_runs(script, tmp_path):
    run(FOLDER / script, "--out", tmp_path, log=tmp_path / "log")
    name = script.removesuffix(".py")
    facts = json.loads((tmp_path / f"{name}.json").read_text())
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    if name == "accuracy":
        assert all(row["worst"] <= row["goal"] for row in facts["goals"])
        assert len(facts["goals"]) == 22
    elif name == "accuracy_sweep":
        assert {order["over"] for order in facts["orders"].values()} == {0}
        assert facts["orders"]["value"]["cases"] >= 15
    elif name == "networks":
        cells = {(row["nodes"], row["way"], row["manifold"]) for row in facts["rows"]}
        assert len(cells) == len(facts["rows"]) == 12
        assert all(row["seconds"] > 0 for row in facts["rows"])
    else:
        assert facts["machine"]["torch"]
        rows = {(row["part"], row["subject"]): row for row in facts["rows"]}
        assert rows["flow", "floor"]["value"] == 1
        assert rows["flow", "TC"]["syncs"] == 0
        assert rows["sample + log q", "WHC"]["must"] == 2.5
        assert rows["operations", "TC"]["value"] <= 72
        assert rows["SVI step", "VAE, WrappedNormal"]["value"] > 0


def test_a_part_alone_is_drawn(tmp_path):
    """What was not asked for leaves its axes empty."""
    run(FOLDER / "speed.py", "--parts", "kernel", "--out", tmp_path, log=tmp_path / "log")
    assert {row["part"] for row in json.loads((tmp_path / "speed.json").read_text())["rows"]} == {"kernel"}
    assert (tmp_path / "speed.png").exists()


@pytest.mark.parametrize("part", ["flows", "samples", "distributions", "anatomy", "maps"])
def test_subjects_run_on_another_device(part, monkeypatch):
    """On torch's meta device, which refuses what is left on the CPU, and to read a value: as a GPU, without one.

    (But for splines, in which torch needs values.)
    """
    monkeypatch.syspath_prepend(str(FOLDER))
    import subjects

    arguments = (6, 5, "meta") if part in ("distributions", "maps") else (6, 2, 5, "meta")
    names = [name for name in subjects.FLOWS if "spline" not in name]
    with pyro.validation_enabled(False):
        made = subjects.flows(names, *arguments) if part == "flows" else getattr(subjects, part)(*arguments)
        for subject in made.values():
            sample, log_q = subject.sample_and_score()
            assert sample.device.type == log_q.device.type == "meta"
            (sample.sum() + log_q.sum()).backward()
            assert all(value.grad.device.type == "meta" for value in subject.parameters)
