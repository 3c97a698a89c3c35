"""The benchmarks run, briefly under SMOKE_TEST, and write what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
#: Modules of speed.py.
PARTS = {"measure.py", "subjects.py", "vaes.py"}
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if path.name not in PARTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_runs(script, tmp_path):
    command = [sys.executable, "-W", "ignore", str(FOLDER / script), "--out", str(tmp_path)]
    environment = {**os.environ, "SMOKE_TEST": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    name = script.removesuffix(".py")
    facts = json.loads((tmp_path / f"{name}.json").read_text())
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    if name == "accuracy":
        assert all(row["worst"] <= row["goal"] for row in facts["goals"])
        assert len(facts["goals"]) == 22
    else:
        assert facts["machine"]["torch"]
        rows = {(row["part"], row["subject"]): row for row in facts["rows"]}
        assert rows["flow", "floor"]["value"] == 1
        assert rows["flow", "TC"]["waits"] == 0
        assert rows["sample + log q", "WHC"]["must"] == 2.5
        assert rows["operations", "TC"]["value"] <= 60
        assert rows["SVI step", "VAE, WrappedNormal"]["value"] > 0
