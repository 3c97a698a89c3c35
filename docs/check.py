"""Checks the built site: links lead somewhere, no other server is asked for anything, public names have entries.

python docs/check.py docs/_build
"""

import re
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.util.inventory import InventoryFile

#: Elements whose source the browser fetches by itself, unlike links that a reader may follow.
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src"}


class Page(HTMLParser):
    """The identifiers of a page, its links, and what it fetches."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: set[str] = {"", "top"}
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called by the parser."""
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a":
            self.links.append(values.get("href", ""))
        if (source := values.get(FETCHED.get(tag, ""))) and values.get("rel") not in ("canonical", "next", "prev"):
            self.fetched.append(source)


def foreign(site: Path, pages: dict[Path, Page]) -> list[str]:
    """Returns what pages and style sheets fetch from other servers."""
    found = [f"{path}: fetches {url}" for path, page in pages.items() for url in page.fetched if urlsplit(url).netloc]
    for path in site.rglob("*.css"):
        urls = re.findall(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")\s]+)", path.read_text())
        found += [f"{path.relative_to(site)}: fetches {url}" for url in urls]
    return found


def broken(site: Path, pages: dict[Path, Page]) -> list[str]:
    """Returns links within the site, and pictures, that lead nowhere."""
    found = []
    for path, page in pages.items():
        for url in page.links + page.fetched:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (site / path.parent / unquote(parts.path)).resolve() if parts.path else site / path
            name = target.relative_to(site.resolve()) if parts.path else path
            known = pages.get(name)
            if not target.is_file() or (known and unquote(parts.fragment) not in known.ids):
                found.append(f"{path}: {url} leads nowhere")
    return found


def undocumented(site: Path, modules: list[str]) -> list[str]:
    """Returns public names without an entry."""
    entries = set()
    for kind, names in InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data.items():
        entries |= {*names} if kind.startswith("py:") else set()
    names = [f"{module}.{name}" for module in modules for name in getattr(import_module(module), "__all__", ())]
    return [f"objects.inv: {name} has no entry" for name in names if name not in entries]


def main(site: Path) -> int:
    """Prints the faults; returns 1 if there are any."""
    from sources import MODULES

    pages = {path.relative_to(site): Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found = foreign(site, pages) + broken(site, pages) + undocumented(site, ["pyro_hyperbolic", *MODULES])
    print("\n".join(found) or f"{len(pages)} pages: every link leads somewhere, nothing is fetched from elsewhere")
    return len(found) > 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
