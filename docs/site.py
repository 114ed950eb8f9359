#!/usr/bin/env python3
"""Copy the pages of the manual to the folder that the site is built from, with links that lead somewhere on it.

`make site` runs it. The pages stay where they are, since tests and people read them there. Some belong to the site from elsewhere
in the repository (OUTSIDE). A link to any other file, such as a test, becomes text: the site has no copy of it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"

OUTSIDE: Final = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "clients/typescript/README.md": "typescript.md",
    "examples/README.md": "examples.md",
    "README.md": "index.md",
}
"""Pages outside of `docs`, and their names on the site. The README has no page: the index stands in its place."""

LINK: Final = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCED: Final = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def write_source(target: Path) -> None:
    """Write the folder anew."""
    shutil.rmtree(target, ignore_errors=True)
    pages = site_pages()
    for page, name in pages.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(linked(page, pages))
    shutil.copytree(DOCS / "assets", target / "assets")


def site_pages() -> dict[Path, str]:
    """Return the pages of the site: the file of each, and its name there."""
    inside = {page: page.relative_to(DOCS).as_posix() for page in sorted(DOCS.rglob("*.md"))}
    outside = {ROOT / page: name for page, name in OUTSIDE.items() if name not in inside.values()}
    return inside | outside


def linked(page: Path, pages: dict[Path, str]) -> str:
    """Return the text of a page with its links changed for its place on the site. Fenced code stays as it is."""
    parts = FENCED.split(page.read_text())
    parts[::2] = [LINK.sub(lambda found: _link(found, page, pages), text) for text in parts[::2]]
    return "".join(parts)


def _link(found: re.Match[str], page: Path, pages: dict[Path, str]) -> str:
    text, (path, _, anchor) = found[1], found[2].partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return found[0]
    file = (page.parent / path).resolve()
    if file.is_dir():
        file /= "README.md"
    name = pages.get(file) or OUTSIDE.get(os.path.relpath(file, ROOT))
    if name is None:
        return text
    target = os.path.relpath(name, Path(pages[page]).parent)
    return f"[{text}]({target}#{anchor})" if anchor else f"[{text}]({target})"


if __name__ == "__main__":
    write_source(Path(sys.argv[1]))
