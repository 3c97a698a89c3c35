"""Runs tutorials cell by cell, and keeps what they print and the pictures that they save, for their pages.

    python docs/gallery.py              # at full size, those whose code has changed since; minutes each
    python docs/gallery.py earth
    python docs/gallery.py --all        # before a release

Outputs at full size are kept in docs/outputs. A tutorial whose code has changed since is run by the build of the
documentation itself, under SMOKE_TEST, in seconds, and its page says so.
"""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import jupytext
import nbformat

DOCS = Path(__file__).resolve().parent
FOLDER = DOCS.parent / "tutorials"
FULL, BRIEF = DOCS / "outputs", DOCS / "_build" / "outputs"
#: Pixels of a picture: twice the width of a page's text.
WIDTH = 1472


def cells(text: str) -> nbformat.NotebookNode:
    """Returns the notebook of a script in percent cells."""
    return jupytext.reads(text, fmt="py:percent")


def code(name: str) -> str:
    """Returns a hash of the code of a tutorial and of the modules in its folder that it imports."""
    text = (FOLDER / f"{name}.py").read_text()
    parts = [cell.source for cell in cells(text).cells if cell.cell_type == "code"]
    parts += [
        code(each) for each in re.findall(r"^(?:from|import) (\w+)", text, re.M) if (FOLDER / f"{each}.py").exists()
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def record(folder: Path) -> dict:
    """Returns what is known of the run whose outputs are in a folder; nothing if there is none."""
    file = folder / "run.json"
    return json.loads(file.read_text()) if file.exists() else {}


def save(figure, path: Path) -> None:
    """Saves a picture at twice the width of a page, in 256 colours: a third of the bytes."""
    import PIL.Image

    dpi = min(WIDTH / figure.get_figwidth(), 200)
    figure.pyro_hyperbolic_savefig(path, dpi=dpi, format="png", bbox_inches="tight")
    with PIL.Image.open(path) as image:
        image.convert("RGB").quantize(256, dither=PIL.Image.Dither.NONE).save(path, optimize=True)


def execute(name: str, folder: Path, brief: bool) -> None:
    """Runs a tutorial in this process, which must be a fork; writes texts and pictures named by the cell."""
    import matplotlib.figure
    import torch

    torch.set_num_threads(1)
    os.environ.pop("SMOKE_TEST", None)
    os.environ.update({"SMOKE_TEST": "1"} if brief else {}, COLUMNS="96")
    script = FOLDER / f"{name}.py"
    sys.argv, sys.path[0:0] = [str(script)], [str(FOLDER)]
    os.chdir(folder / "work")
    figure_class = matplotlib.figure.Figure
    figure_class.pyro_hyperbolic_savefig = figure_class.savefig
    shown: list[Path] = []

    def savefig(figure, *_, **__):
        shown.append(folder / f"{number:02}-{len(shown)}.png")
        save(figure, shown[-1])

    figure_class.savefig = savefig
    text = script.read_text()
    # By its other name too, as multiprocessing has it: by that a tutorial's own processes name its classes.
    main = sys.modules["__main__"] = sys.modules["__mp_main__"] = type(sys)("__main__")
    main.__file__ = str(script)
    for number, cell in enumerate(cells(text).cells):
        if cell.cell_type == "code":
            padding = "\n" * text[: text.index(cell.source)].count("\n")  # so that errors name the line
            with open(folder / f"{number:02}.txt", "w") as file, contextlib.redirect_stdout(file):
                exec(compile(padding + cell.source, str(script), "exec"), vars(main))


def run(name: str, folder: Path, brief: bool) -> None:
    """Runs a tutorial in a process of its own, and keeps its outputs in a folder."""
    import pyro_hyperbolic

    def child() -> None:
        warnings.simplefilter("ignore")
        sys.stderr = open(made / "stderr", "w")  # noqa: SIM115  # progress bars, and the error if there is one
        os.dup2(sys.stderr.fileno(), 2)
        execute(name, made, brief)

    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary)
        (made / "work").mkdir()
        process = multiprocessing.get_context("fork").Process(target=child)
        found = {"code": code(name), "version": pyro_hyperbolic.__version__}  # as it is read, not as it is left
        before = os.times()
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"tutorials/{name}.py failed: {(made / 'stderr').read_text()[-3000:]}")
        after = os.times()
        seconds = after.children_user - before.children_user + after.children_system - before.children_system
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in made.iterdir():
            if file.suffix in (".txt", ".png") and file.stat().st_size:
                shutil.copy(file, folder)
        (folder / "run.json").write_text(json.dumps({**found, "seconds": round(seconds)}) + "\n")


def outputs(name: str) -> Path:
    """Returns the folder of outputs of a tutorial as it stands; runs it briefly if there is none."""
    if record(FULL / name).get("code") == code(name):
        return FULL / name
    if record(BRIEF / name).get("code") != code(name):
        run(name, BRIEF / name, brief=True)
    return BRIEF / name


def thumbnail(name: str, file: Path) -> None:
    """Writes the last picture of a tutorial, small."""
    import PIL.Image

    for path in sorted(outputs(name).glob("*.png"))[-1:]:
        with PIL.Image.open(path) as image:
            image.convert("RGB").resize((480, 480 * image.height // image.width)).save(file, optimize=True)


def main() -> None:
    """Runs at full size what is asked for."""
    from sources import TUTORIALS

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", help="by default all whose code has changed")
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    for name in args.names or TUTORIALS:
        if args.names or args.all or record(FULL / name).get("code") != code(name):
            run(name, FULL / name, brief=False)
            print(f"{name}: {record(FULL / name)['seconds']} s")


if __name__ == "__main__":
    main()
