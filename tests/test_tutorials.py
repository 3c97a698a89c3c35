"""Every tutorial runs as a script, briefly, and writes what it says."""

import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tutorials"
SCRIPTS = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.py"))
#: What a script is given besides --out; those that stand here more than once are run so often.
ARGUMENTS = {
    "hyperbolic_vae.py": [
        [],
        ["--dim", "3", "--posterior", "whc", "--fixed-curvature"],
        ["--epochs", "1", "--data", "MNIST", "--posterior", "normal", "--manifold", "hyperbolic"],
    ],
    "experiments/vae_mnist.py": [["--data", "MNIST"]],
}
#: Modules that scripts import, which do nothing by themselves.
MODULES = {"experiments/records.py", "experiments/runs_together.py"}
SECONDS = 40  # of a processor: briefly is a quarter of that where nothing else runs


def small_mnist(folder: Path) -> Path:
    """Writes the four files with a few random images."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for part, number in (("train", 30), ("t10k", 20)):
        images = torch.randint(0, 256, (number, 28, 28), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, 10, (number,), generator=generator, dtype=torch.uint8)
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, values.dim()]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
            with gzip.open(folder / f"{part}-{kind}-ubyte.gz", "wb") as file:
                file.write(header + values.numpy().tobytes())
    return folder


def seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize(
    ("script", "arguments"),
    [(script, arguments) for script in SCRIPTS for arguments in ARGUMENTS.get(script, [[]])],
    ids=str,
)
def test_a_script_runs(script, arguments, tmp_path):
    """Whatever is in the folder runs as it is, in less than a minute under SMOKE_TEST."""
    arguments = [str(small_mnist(tmp_path / "mnist")) if a == "MNIST" else a for a in arguments]
    out = (
        []
        if script in MODULES
        else ["--out", str(tmp_path / "README.md" if script.endswith("report.py") else tmp_path)]
    )
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(FOLDER / script), *arguments, *out]
    environment = {**os.environ, "SMOKE_TEST": "1", "OMP_NUM_THREADS": "1"}
    before = seconds_of_children()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert seconds_of_children() - before < SECONDS
    if script in MODULES:
        return
    if script.startswith("experiments/vae"):
        records = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
        assert len(records) == (12 if "bdp" in script else 2)
        before = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*.json"))]
        subprocess.run(command, capture_output=True, timeout=300, check=True, env=environment)
        assert [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*.json"))] == before  # it resumes
        return
    if script == "experiments/report.py":
        assert "VAEs on MNIST" in (tmp_path / "README.md").read_text()
        return
    if script == "experiments/density_estimation.py":
        assert "| tree |" in done.stdout
        return
    if script == "write_your_own_layer.py":
        assert "volume terms are dropped" in done.stdout
        assert done.stdout.count("every law holds") == 2
        assert (tmp_path / "posterior.png").exists()
        return
    if script == "curvature.py":
        assert done.stdout.count("posterior by") == 2
        assert (tmp_path / "curvature.png").exists()
        return
    if script == "hyperbolic_location.py":
        assert done.stdout.count("evidence") == 3
        assert (tmp_path / "location.png").exists()
        return
    if script.startswith("scale_out"):
        assert "1 process" in done.stdout
        assert (tmp_path / "vae.pt").exists()
        return
    rows = json.loads((tmp_path / "results.json").read_text())
    assert len(rows) == (5 if "--posterior" not in arguments else 1)
    for row in rows:
        # The importance-weighted bound is the tighter of the two.
        assert row["elbo"] < row["likelihood"] < 0
    assert (tmp_path / "embedding.png").exists() == ("--dim" not in arguments)
