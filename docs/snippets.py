"""Runs the Python of pages, and writes its output and pictures into them.

python docs/snippets.py docs/getting_started.md ...

The ``python`` blocks of a page run in order, with common names. A ``text`` block right after one is what it prints. A
``diff`` block is a change to an earlier block, which runs again with it; its hunks are separated by lines ``@@``.
"""

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
#: A block of Python or a change, and its output if the page shows it.
BLOCK = re.compile(r"```(python|diff)\n(.*?)```(?:\s*```text\n(.*?)```)?", re.DOTALL)


def run(page: str, short: bool = False) -> list[tuple[str | None, str]]:
    """Runs the blocks of a page, and returns for each the output that is shown and the output of now.

    Args:
        page: The text.
        short: Whether long loops take 3 steps only.
    """
    names, outputs, blocks = {"__name__": "page"}, [], []
    for kind, code, shown in BLOCK.findall(page):
        if kind == "diff":
            code = changed(next(block for block in reversed(blocks) if applies(code, block)), code)
        blocks.append(code)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(re.sub(r"range\(\d{2,}\)", "range(3)", code) if short else code, code, "exec"), names)
        outputs.append((shown or None, re.sub(r" +$", "", printed.getvalue(), flags=re.MULTILINE)))
    return outputs


def hunks(diff: str) -> list[tuple[str, str]]:
    """Returns what each hunk removes and adds, with the lines around."""
    lines = [part.splitlines(keepends=True) for part in re.split(r"^@@.*\n", diff, flags=re.MULTILINE)]
    return [tuple("".join(line[1:] or line for line in part if line[0] != sign) for sign in "+-") for part in lines]


def applies(diff: str, code: str) -> bool:
    """Returns whether the lines of a change are those of a block."""
    return all(code.count(old) == 1 for old, _ in hunks(diff))


def changed(code: str, diff: str) -> str:
    """Returns a block with a change."""
    for old, new in hunks(diff):
        code = code.replace(old, new)
    return code


def write(path: Path) -> None:
    """Writes the outputs into a page, and its pictures into ``images``."""
    page, before = path.read_text(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            printed = iter([found for _, found in run(page)])
        finally:
            os.chdir(before)
        for picture in Path(folder).glob("*.png"):
            shutil.copy(picture, HERE / "images")

    def with_output(block: re.Match[str]) -> str:
        code, found = f"```{block[1]}\n{block[2]}```", next(printed)
        return f"{code}\n\n```text\n{found}```" if found else code

    path.write_text(BLOCK.sub(with_output, page))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write(Path(name))
