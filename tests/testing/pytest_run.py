"""pytest in a process of its own, in an environment where `artcafe` is installed with the entry points of this source."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from tests.children import plain_environ

ROOT = Path(__file__).parents[2]
RUN_S = 150.0
"""For pytest and a server, on a machine that is busy with other tests."""
UNUSED: Final = [f"-pno:{name}" for name in ("anyio", "cacheprovider", "hypothesispytest", "schemathesis", "xdist")]
"""Plugins that cost two seconds of processor time to import."""


def run_pytest(folder: Path, **files: str) -> str:
    """Run pytest on modules in a folder, and return what it prints, with its exit code as the last line."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    environ = plain_environ() | {"PYTHONPATH": os.pathsep.join([str(_installed(folder)), str(ROOT / "src")])}
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(folder), *UNUSED, str(folder)]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=RUN_S, check=False)
    return f"{done.stdout}{done.stderr}\nexit code {done.returncode}"


def _installed(folder: Path) -> Path:
    """Return a folder for the module search path with the metadata of the source, which precede those of an installation."""
    info = folder / "site" / "artcafe-0.1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: artcafe\nVersion: 0.1.0\n")
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    (info / "entry_points.txt").write_text("[pytest11]\n" + "".join(f"{name} = {target}\n" for name, target in points.items()))
    return info.parent
