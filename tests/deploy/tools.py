"""Tools that check the kit: Debian's programs, and those that `make kit` installs into .venv-kit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PLACES = (ROOT / ".venv-kit" / "bin", Path(sys.executable).parent, Path("/usr/sbin"))
"""Searched after the path: nginx is in a folder that only root has on it."""


def find(name: str) -> str | None:
    """Return the program of this name, or None."""
    return shutil.which(name) or next((found for place in PLACES if (found := shutil.which(name, path=str(place)))), None)


def run(*command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    """Run a command that must succeed, and return what it printed on both streams."""
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f"{Path(command[0]).name}: {done.stdout}"
    return done.stdout


def program(name: str) -> str:
    """Return the program of this name, which `require` has found."""
    found = find(name)
    assert found is not None
    return found
