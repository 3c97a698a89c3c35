"""What Sphinx reads: Markdown whose links mean what they mean in the repository, and pages of public names."""

import inspect
import os
import re
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Tutorials with a page; the other files of their folder are modules that they import.
TUTORIALS = re.findall(r"^(?:.*<)?tutorials/(\w+)>?$", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE)
#: Files outside docs/ that have a page.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "tutorials/experiments/README.md": "experiments.md",
} | {f"tutorials/{name}.py": f"tutorials/{name}.py" for name in TUTORIALS}
#: Public modules, each with its page in docs/api.
MODULES = [
    found
    for page in sorted((ROOT / "docs/api").glob("*.md"))
    for found in re.findall(r"\{module\} (\S+)", page.read_text())
]

INCLUDE = r"```\{include\} (\S+)\n((?::.*\n)*)```"


def link(match: re.Match, file: str) -> str:
    """Returns a link of a file of the repository as a link of the site; a file without a page is only named."""
    text, target, fragment = match.groups()
    if not target or ":" in target or target.startswith("/"):
        return match[0]
    path = Path(os.path.normpath(ROOT / Path(file).parent / target))
    if not path.exists():
        return match[0]  # the build warns of it
    name = str(path.relative_to(ROOT))
    if (name, fragment) in SECTIONS:
        return f"[{text}](/{SECTIONS[name, fragment]}{fragment})"
    page = PAGES.get(name, name.removeprefix("docs/") if name.startswith("docs/") else None)
    return f"[{text}](/{page}{fragment or ''})" if page else text


def links(text: str, file: str) -> str:
    """Returns the text of a file of the repository with the links of the site."""
    return re.sub(r"\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)", lambda match: link(match, file), text)


def included(file: str, argument: str, lines: str) -> tuple[str, str]:
    """Returns the file that a page of docs/ includes, and the part of it, with headings one level up."""
    name = os.path.normpath(Path(file).parent / argument)
    text, options = (ROOT / name).read_text(), dict(re.findall(r":([a-z-]+): (.+)\n", lines))
    start, end = text.index(options.get("start-at", "")), text.find(options.get("end-before", "\0"))
    text = text[start : end if end >= 0 else None]
    return name, re.sub(r"^#(#+ )", r"\1", text, flags=re.MULTILINE) if text.startswith("## ") else text


#: In which page a heading of a file is, if several pages include parts of it.
SECTIONS = {}
for page in (ROOT / "docs" / "experiments").glob("*.md"):
    name, text = included(f"docs/experiments/{page.name}", *re.search(INCLUDE, page.read_text()).groups())
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        SECTIONS[name, f"#{slug}"] = f"experiments/{page.name}"


def entry(module: str, name: str) -> str:
    """Returns the directive that documents a name."""
    each = getattr(import_module(module), name)
    if isinstance(each, dict):
        return f".. py:data:: {name}\n\n   A dict with the keys {', '.join(f'``{key}``' for key in each)}.\n"
    if inspect.ismodule(each):
        return f".. automodule:: {module}.{name}\n\n.. currentmodule:: {module}\n"
    if inspect.isclass(each):
        return f".. autoclass:: {name}\n   :members:\n   :show-inheritance:\n"
    return f".. autofunction:: {name}\n"


def directives(body: str) -> str:
    """Returns directives in reStructuredText, fenced for Markdown."""
    return f"```{{eval-rst}}\n{body}\n```"


def api(text: str) -> str:
    """Expands ``{module}``, the head of a page of names, and its groups ``{names}``: tables first, then the entries."""
    if not (head := re.search(r"```\{module\} (\S+)\n```", text)):
        return text
    module, tables = head[1], ""
    for title, names in re.findall(r"^## (.+)\n(?:(?!^## )[\s\S])*?```\{names\}\n([\s\S]*?)```", text, re.MULTILINE):
        rows = [name for name in names.split() if not isinstance(getattr(import_module(module), name), dict)]
        tables += f".. rubric:: {title}\n\n.. autosummary::\n   :nosignatures:\n\n   " + "\n   ".join(rows) + "\n\n"
    text = text.replace(head[0], directives(f".. automodule:: {module}\n\n{tables}"))

    def entries(match: re.Match) -> str:
        body = "\n".join(entry(module, name) for name in match[1].split())
        return directives(f".. currentmodule:: {module}\n\n{body}")

    return re.sub(r"```\{names\}\n([\s\S]*?)```", entries, text)


def cards(match: re.Match) -> str:
    """Expands ``{gallery}``, lines of a tutorial and what it is about, to cards with their pictures."""
    found = ""
    for name, about in re.findall(r"^(\w+): (.+(?:\n  .+)*)", match[1], re.MULTILINE):
        title = (ROOT / "tutorials" / f"{name}.py").read_text().split("\n")[1].removeprefix("# # ")
        found += f"""
:::{{grid-item-card}} {title}
:img-top: /tutorials/thumbnails/{name}.png
:img-alt: The picture of this tutorial
:link: /tutorials/{name}
:link-type: doc

{about}
:::
"""
    return f"::::{{grid}} 1 2 2 3\n:gutter: 3\n{found}::::"


def read(app, docname: str, content: list[str]) -> None:
    """Sphinx's event ``source-read``."""
    file = f"{docname}.py" if docname.startswith("tutorials/") else f"docs/{docname}.md"

    def include(match: re.Match) -> str:
        name, text = included(file, *match.groups())
        return links(text, name)

    text = re.sub(INCLUDE, include, links(content[0], file))
    # A cell of a table breaks before the sign only.
    text = re.sub(r"^\|.*$", lambda row: row[0].replace(" ± ", " ±\u00a0"), text, flags=re.MULTILINE)
    text = re.sub(r"```\{gallery\}\n([\s\S]*?)```", cards, text)
    mark = f"# {Path(docname).name}\n" if docname.startswith("tutorials/") else ""  # for percent.py
    content[0] = mark + api(text)
