"""Every tutorial runs as a script, briefly, and writes what it says."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
COMMANDS = {
    "hyperbolic_vae.py": [
        ["--epochs", "2"],
        ["--epochs", "1", "--dim", "3", "--posterior", "whc", "--fixed-curvature"],
        ["--epochs", "1", "--data", "MNIST", "--posterior", "normal", "--manifold", "hyperbolic"],
    ],
    "curvature.py": [["--steps", "20", "--samples", "5"]],
    "hyperbolic_location.py": [["--steps", "20", "--samples", "10"]],
    "scale_out.py": [["--epochs", "2"]],
    "scale_out_lightning.py": [["--epochs", "2"]],
    "write_your_own_layer.py": [["--steps", "20"]],
}
TUTORIALS = sorted(path.name for path in (ROOT / "tutorials").glob("*.py"))


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


def test_every_tutorial_is_tested():
    assert sorted(COMMANDS) == TUTORIALS


@pytest.mark.parametrize(
    ("script", "arguments"), [(script, arguments) for script in COMMANDS for arguments in COMMANDS[script]], ids=str
)
def test_a_tutorial_runs(script, arguments, tmp_path):
    if "MNIST" in arguments:
        arguments = [str(small_mnist(tmp_path / "mnist")) if a == "MNIST" else a for a in arguments]
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(ROOT / "tutorials" / script), *arguments]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
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
