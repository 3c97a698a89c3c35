"""Every tutorial and experiment runs as a script, briefly, and writes what it says."""

import gzip
import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import scipy.sparse
import torch

from tests.docs.scripts import run
from tutorials.experiments import records

FOLDER = Path(__file__).parents[2] / "tutorials"
#: Modules that scripts import, and scripts that test_scale_out.py runs.
MODULES = {"mnist.py", "vae_data.py", "phylogeny.py", "cells.py", "scale_out.py", "scale_out_lightning.py"} | {
    f"experiments/{name}.py"
    for name in (
        *("records", "runs_together", "set_flows", "set_pointers", "growth", "graph_scores", "graph_pictures"),
        "kernels",
    )
}
#: The rows of link prediction that its picture shows.
DRAWN = ("N-VAE", "H-VAE", "RealNVP", "TC", "WHC", "degrees")
MNIST, GRAPHS, PLACES, HOLES, PICTURE = (object() for _ in range(5))


class Run(NamedTuple):
    """What a script is given besides --out, what it prints, and the file that it writes."""

    arguments: tuple = ()
    printed: tuple[str, ...] = ()
    written: str | None = None


RUNS = {
    "bring_your_own_manifold.py": [Run((), ("every law holds",), "half_plane.png")],
    "continuous_flow.py": [Run((), ("continuous  2 steps",), "continuous_flow.png")],
    "curvature.py": [Run(("--steps", 10, "--samples", 5), 2 * ("posterior by",), "curvature.png")],
    "earth.py": [Run((PLACES, "--distinct"), ("100 events at 100 places", "kernel density"), "earth.png")],
    "graph_vae.py": [Run((), ("AUC of hidden edges",), "graph_vae.png")],
    "hyperbolic_location.py": [Run(("--steps", 10, "--samples", 10), 3 * ("evidence",), "location.png")],
    "hyperbolic_vae.py": [
        Run(("--processes", 1), 5 * ("log-likelihood",), "embedding.png"),
        Run(("--processes", 1, "--epochs", 1, "--data", MNIST, "--models", "WHC"), ("curvature",), "WHC.pt"),
        Run(("--processes", 1, "--epochs", 1, "--manifold", "h2,h2,e2"), ("curvature -1.00, -1.00",), "h2,h2,e2.pt"),
    ],
    "product_vae.py": [Run((), ("h2,s2",), "product_vae.png")],
    "single_cell.py": [Run((), ("hyperbolic", "20 components"), "cells.png")],
    "tree_from_distances.py": [
        Run(("--manifold", "hyperbolic"), ("log score",), "tree.png"),
        Run(("--manifold", "hyperbolic", "--data", HOLES, "--missing", 0, "--known", 9), ("written to",), "points.csv"),
    ],
    "write_your_own_layer.py": [Run((), ("volume terms are dropped", *2 * ("every law holds",)), "posterior.png")],
    "experiments/density_estimation.py": [
        Run(("--runs", "table", "--flows", "TC", "polar", "--processes", 1), ("| tree |",))
    ],
    "experiments/graph_generation.py": [
        Run(("--rows", "floor", "--data", "trees", "--seed", 0, "--samples", 3, "--processes", 1))
    ],
    "experiments/link_prediction.py": [
        Run(
            ("--graph", GRAPHS, "--dataset", "dis2", "--rows", *DRAWN, "published decoder", "--picture", PICTURE),
            written="picture.png",
        ),
        Run(("--graph", GRAPHS, "--dataset", "dis2", "--model", "WHC", "--split-seed", 7), written="scores.json"),
    ],
    "experiments/manifolds.py": [
        Run(
            ("--tables", "compact", "--targets", "sphere-mixture", "--processes", 1),
            ("| sphere-mixture | continuous flow |",),
        )
    ],
    "experiments/distances.py": [Run(("--processes", 1), (), "made-hyperbolic-pendants-2-student.json")],
    "experiments/mixed_curvature.py": [
        Run(("--data", "planted", "--spaces", "E4", "H2 x S2", "--picture", PICTURE), written="picture.png")
    ],
    "experiments/networks.py": [
        Run(("--picture", PICTURE), ("| karate club | 2 | H + sociality |", "NUTS"), "picture.png")
    ],
    "experiments/report.py": [Run(written="README.md")],
    "experiments/single_cells.py": [Run()],
    "experiments/vae_bdp.py": [Run(("--processes", 1))],
    "experiments/vae_mnist.py": [Run(("--data", MNIST, "--processes", 1))],
}
SCRIPTS = sorted({str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.py")} - MODULES)
SECONDS = 15  # of a processor: briefly is a third of that


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


def places(file: Path) -> Path:
    file.write_text("lat,long\n" + "\n".join(f"{i / 2},{3 * i}" for i in range(100)))
    return file


def holes(file: Path) -> Path:
    """Writes distances between seven points of a line, one of which is missing."""
    rows = [[name, *(str(abs(i - j)) for j in range(7))] for i, name in enumerate("ABCDEFG")]
    rows[1][4] = rows[3][2] = "NA"
    file.write_text("\n".join(",".join(row) for row in [["", *"ABCDEFG"], *rows]))
    return file


MADE = {
    MNIST: (small_mnist, "mnist"),
    GRAPHS: (small_graphs, "graphs"),
    PLACES: (places, "places.csv"),
    HOLES: (holes, "holes.csv"),
    PICTURE: (Path, "picture.png"),
}


def finish_most_jobs(folder: Path) -> None:
    """Writes records of all models of vae_bdp.py but one of each class."""
    script = (FOLDER / "experiments" / "vae_bdp.py").read_text()
    models = re.findall(r'^    "(.+)": \((?:True|False)', script, re.MULTILINE)
    for name in {*models} - {"WHC, gyroplanes", "N-VAE, gyroplanes", "TC, as published"}:
        records.write(folder, f"{name}-2", {"model": name, "dim": 2, "seeds": [0, 1], "finished": "before"})


@pytest.mark.parametrize(
    ("script", "case"),
    [pytest.param(name, case, id=f"{name}-{i}") for name in SCRIPTS for i, case in enumerate(RUNS.get(name, [Run()]))],
)
def test_a_script_runs(script, case, tmp_path):
    """Under SMOKE_TEST in seconds; an experiment goes on from the records that are there."""
    out, log = tmp_path / "out", tmp_path / "log"
    out.mkdir()
    arguments = [MADE[a][0](out / MADE[a][1]) if a in MADE else a for a in case.arguments]
    if script.endswith("vae_bdp.py"):
        finish_most_jobs(out)
    done = run(FOLDER / script, *arguments, "--out", out / "README.md" if "report" in script else out, log=log)
    assert done.seconds < SECONDS
    for text in case.printed:
        assert done.output.count(text) >= case.printed.count(text)
    assert case.written is None or (out / case.written).exists()
    if script.startswith("experiments/vae"):
        found = records.read(out)
        assert len(found) == (12 if "bdp" in script else 2)
        assert sum("finished" in record for record in found.values()) == (9 if "bdp" in script else 0)
    elif case.written == "points.csv":
        head, *rows = (out / "predictions.csv").read_text().split()
        assert head == "i,j,median,lower,upper,first,second,known"
        assert [row.split(",")[:2] + row.split(",")[5:] for row in rows] == [["1", "3", "B", "D", ""]]
        assert (out / "points.csv").read_text().count("\n") == 1 + 7
    elif case.written == "scores.json":
        scores = json.loads((out / "scores.json").read_text())
        assert len(scores["pairs"]) == len(scores["labels"]) == len(scores["probabilities"]) == 10
        assert [*scores["labels"], *scores["matched_labels"]] == 2 * (5 * [1] + 5 * [0])
    elif script.endswith("link_prediction.py"):
        assert {*records.read(out)} == {"dis2-101", "dis2-102"}
    elif script == "hyperbolic_vae.py":
        # The importance-weighted bound is the tighter of the two.
        assert all(float(a) < float(b) < 0 for a, b in re.findall(r"ELBO (\S+), log-likelihood (\S+)", done.output))
