"""Reads text tutorials for myst-nb, with the outputs that gallery.py has of them."""

import base64
from pathlib import Path

import gallery  # in this folder
from nbformat import v4

ABOUT = {
    True: "*Printed and drawn by a run at full size: {seconds} s of one processor core, version {version}.*",
    False: """```{{note}}
Printed and drawn by a trial run of {seconds} s, which shows that the code works. Its numbers are not those of trained
models: `make gallery` runs tutorials at full size.
```""",
}


def reads(text: str) -> v4.nbbase.NotebookNode:
    """Returns the notebook of a tutorial, whose name is the first line."""
    head, _, text = text.partition("\n")
    name = head.removeprefix("# ")
    notebook, folder = gallery.cells(text), gallery.outputs(name)
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "python"}
    title, _, rest = notebook.cells[0].source.partition("\n")
    about = ABOUT[folder.parent == gallery.FULL].format(**gallery.record(folder))
    script = f"Script: {{download}}`{name}.py`."
    notebook.cells[0].source = f"{title}\n\n{about}\n\n{script}\n{rest}"
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            cell.outputs = [*texts(folder, number), *pictures(folder, number)]
            cell.metadata["mystnb"] = {"image": {"alt": f"{title.removeprefix('# ')}: the picture of this tutorial"}}
    return notebook


def texts(folder: Path, number: int) -> list:
    """Returns what a cell printed."""
    return [
        v4.new_output("stream", name="stdout", text=file.read_text().strip("\n"))
        for file in folder.glob(f"{number:02}.txt")
    ]


def pictures(folder: Path, number: int) -> list:
    """Returns the pictures that a cell saved."""
    files = sorted(folder.glob(f"{number:02}-*.png"))
    contents = [base64.b64encode(file.read_bytes()).decode() for file in files]
    return [v4.new_output("display_data", data={"image/png": content}) for content in contents]
