"""Every tutorial runs as a script, briefly, and writes what it says."""

import gzip
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import scipy.sparse
import torch

from tutorials.experiments import records

FOLDER = Path(__file__).parents[2] / "tutorials"
#: Modules that scripts import, and scripts that test_scale_out.py and test_experiments.py run, or the last test here.
ELSEWHERE = {
    *("mnist.py", "workers.py", "experiments/records.py", "experiments/runs_together.py"),
    *("scale_out.py", "scale_out_lightning.py"),
    *("continuous_flow.py", "earth.py", "product_vae.py", "bring_your_own_manifold.py"),
    *(
        "experiments/set_flows.py",
        "experiments/set_pointers.py",
        "experiments/growth.py",
        "experiments/graph_scores.py",
        "experiments/graph_pictures.py",
        "experiments/kernels.py",
    ),
}
SCRIPTS = sorted({str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.py")} - ELSEWHERE)
#: The rows of link prediction that its picture shows.
DRAWN = ("N-VAE", "H-VAE", "RealNVP", "TC", "WHC", "degrees")
#: What a script is given besides --out; those that stand here more than once are run so often.
ARGUMENTS = {
    "hyperbolic_vae.py": [
        [],
        ["--epochs", "1", "--data", "MNIST", "--posterior", "whc", "--manifold", "hyperbolic", "--fixed-curvature"],
    ],
    "hyperbolic_location.py": [["--steps", "10"]],
    "curvature.py": [["--steps", "10", "--samples", "5"]],
    "experiments/vae_mnist.py": [["--data", "MNIST", "--processes", "1"]],
    "experiments/vae_bdp.py": [["--processes", "1"]],
    "experiments/link_prediction.py": [
        ["--graph", "GRAPHS", "--dataset", "dis2", "--rows", *DRAWN, "published decoder", "--picture", "PICTURE"],
        ["--graph", "GRAPHS", "--dataset", "dis2", "--model", "WHC", "--split-seed", "7"],
    ],
    "experiments/graph_generation.py": [
        ["--rows", "floor", "--data", "trees", "--seed", "0", "--samples", "3", "--processes", "1"]
    ],
    "experiments/mixed_curvature.py": [["--data", "planted", "--spaces", "E4", "H2 x S2", "--picture", "PICTURE"]],
    "experiments/manifolds.py": [["--tables", "compact", "--targets", "sphere-mixture", "--processes", "1"]],
    "experiments/density_estimation.py": [["--runs", "table", "--flows", "TC", "polar", "--processes", "1"]],
}
#: What a script prints, and the picture that it draws.
PRINTED = {
    "experiments/density_estimation.py": (["| tree |"], None),
    "experiments/manifolds.py": (["| sphere-mixture | continuous flow |"], None),
    "experiments/report.py": ([], "README.md"),
    "write_your_own_layer.py": (["volume terms are dropped", *2 * ["every law holds"]], "posterior.png"),
    "curvature.py": (2 * ["posterior by"], "curvature.png"),
    "hyperbolic_location.py": (3 * ["evidence"], "location.png"),
    "hyperbolic_vae.py": ([], "embedding.png"),
    "graph_vae.py": (["AUC of hidden edges"], "graph_vae.png"),
}
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


def small_graphs(folder: Path) -> Path:
    """Writes a random tree of 60 nodes under the names of both graphs, with features of the second."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    parents = [int(torch.randint(v, (), generator=generator)) for v in range(1, 60)]
    for name in ("diseases.csv", "disease_lp.edges.csv"):
        (folder / name).write_text("\n".join(f"{u},{v}" for v, u in enumerate(parents, 1)))
    features = scipy.sparse.csr_matrix(torch.randn(60, 3, generator=generator).numpy())
    scipy.sparse.save_npz(folder / "disease_lp.feats.npz", features)
    return folder


def seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def finish_most_jobs(folder: Path) -> None:
    """Writes records of all models of vae_bdp.py but one of each class."""
    script = (FOLDER / "experiments" / "vae_bdp.py").read_text()
    models = re.findall(r'^    "(.+)": \((?:True|False)', script, re.MULTILINE)
    for name in {*models} - {"WHC, gyroplanes", "N-VAE, gyroplanes", "TC, as published"}:
        records.write(folder, f"{name}-2", {"model": name, "dim": 2, "seeds": [0, 1], "finished": "before"})


@pytest.mark.parametrize(
    ("script", "arguments"),
    [(script, arguments) for script in SCRIPTS for arguments in ARGUMENTS.get(script, [[]])],
    ids=str,
)
def test_a_script_runs(script, arguments, tmp_path):
    """Under SMOKE_TEST in less than a minute; an experiment goes on from the records that are there."""
    made = {"MNIST": (small_mnist, "mnist"), "GRAPHS": (small_graphs, "graphs"), "PICTURE": (Path, "roc.png")}
    arguments = [str(made[a][0](tmp_path / made[a][1])) if a in made else a for a in arguments]
    printed, written = PRINTED.get(script, ([], None))
    out = tmp_path / written if script.endswith("report.py") else tmp_path
    if script.endswith("vae_bdp.py"):
        finish_most_jobs(tmp_path)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(FOLDER / script), *arguments, "--out", str(out)]
    environment = {**os.environ, "SMOKE_TEST": "1", "OMP_NUM_THREADS": "1"}
    before = seconds_of_children()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert seconds_of_children() - before < SECONDS
    for text in printed:
        assert done.stdout.count(text) >= printed.count(text)
    assert written is None or (tmp_path / written).exists()
    if script.startswith("experiments/vae"):
        found = records.read(tmp_path)
        assert len(found) == (12 if "bdp" in script else 2)
        assert sum("finished" in record for record in found.values()) == (9 if "bdp" in script else 0)
    if script.endswith("link_prediction.py"):
        if "--model" in arguments:
            scores = json.loads((tmp_path / "scores.json").read_text())
            assert len(scores["pairs"]) == len(scores["labels"]) == len(scores["probabilities"]) == 10
            assert [*scores["labels"], *scores["matched_labels"]] == 2 * (5 * [1] + 5 * [0])
        else:
            assert (tmp_path / "roc.png").exists()
            assert {*records.read(tmp_path)} == {"dis2-101", "dis2-102"}
    if script == "hyperbolic_vae.py":
        rows = json.loads((tmp_path / "results.json").read_text())
        assert len(rows) == (1 if arguments else 5)
        # The importance-weighted bound is the tighter of the two.
        assert all(row["elbo"] < row["likelihood"] < 0 for row in rows)


def test_tutorials_of_manifolds_run_in_one_process(tmp_path):
    """Importing the libraries once."""
    (tmp_path / "places.csv").write_text("lat,long\n" + "\n".join(f"{i / 2},{3 * i}" for i in range(100)))
    runs = {
        "continuous_flow.py": ["--out", str(tmp_path)],
        "earth.py": [str(tmp_path / "places.csv"), "--distinct", "--out", str(tmp_path)],
        "product_vae.py": ["--out", str(tmp_path)],
        "bring_your_own_manifold.py": ["--out", str(tmp_path)],
    }
    script = f"""
import runpy, sys
sys.path.insert(0, {str(FOLDER)!r})
for name, arguments in {runs!r}.items():
    sys.argv = [name, *arguments]
    runpy.run_path(f"{FOLDER}/{{name}}", run_name="__main__")
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    environment = {**os.environ, "SMOKE_TEST": "1", "OMP_NUM_THREADS": "1"}
    before = seconds_of_children()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert seconds_of_children() - before < SECONDS
    for text in ("continuous  2 steps", "100 events at 100 places", "kernel density", "h2,s2", "every law holds"):
        assert text in done.stdout
    for picture in ("continuous_flow.png", "earth.png", "product_vae.png", "half_plane.png"):
        assert (tmp_path / picture).exists()
