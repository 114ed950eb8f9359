"""Print which bundled packages of npm lack a notice, and exit with 1 if any does:

    python deploy/release/notices.py FOLDER NOTICES

FOLDER has the package-lock.json of the bundle, NOTICES is the file beside the bundle. Each package that is not for development
alone must be named on a line of its own there, with its licence below.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def bundled(folder: Path) -> dict[str, Path]:
    """Return the packages that a bundle may contain, by name, with the folder of each."""
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    return {
        path.rpartition("node_modules/")[2]: folder / path
        for path, package in packages.items()
        if "node_modules/" in path and not package.get("dev") and not package.get("devOptional")
    }


def missing(folder: Path, notices: str) -> list[str]:
    """Return the packages without a notice: their name on a line, and the text of their licence if they are installed."""
    lines, words = notices.splitlines(), " ".join(notices.split())
    return [
        name
        for name, installed in sorted(bundled(folder).items())
        if not any(line == name or line.startswith((f"{name}@", f"{name} ")) for line in lines) or not _contains(words, installed)
    ]


def _contains(words: str, installed: Path) -> bool:
    licences = [" ".join(file.read_text().split()) for file in sorted(installed.glob("LICEN[CS]E*"))]
    return not licences or any(licence in words for licence in licences)


def main() -> None:
    """Check the files of the command line."""
    found = missing(Path(sys.argv[1]), Path(sys.argv[2]).read_text())
    if found:
        sys.exit(f"{sys.argv[2]} has no notice for {', '.join(found)}")
    print(f"{sys.argv[2]} has a notice for each of {', '.join(sorted(bundled(Path(sys.argv[1]))))}")


if __name__ == "__main__":
    main()
