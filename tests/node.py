"""Node.js in tests: install the tools of a folder from its lock, and run commands there."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.children import started_with_parent

FIRST: Final = 20
NAME: Final = f"Node.js {FIRST} or newer with npm"
INSTALL_S: Final = 300.0


def is_there(first: int = FIRST) -> bool:
    """Return whether npm and a Node.js of this major version or a newer one are here."""
    if shutil.which("npm") is None or (node := shutil.which("node")) is None:
        return False
    version = subprocess.run((node, "--version"), capture_output=True, text=True, check=False).stdout
    return version.startswith("v") and int(version[1:].partition(".")[0]) >= first


def run(folder: Path, command: Sequence[str], timeout_s: float, environ: Mapping[str, str], *, may_fail: bool = False) -> str:
    """Run a command in the folder, and return its output. Ends its whole process group after `timeout_s`."""
    process = started_with_parent(
        command, cwd=folder, env=dict(environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        output = process.communicate(timeout=timeout_s)[0].decode()
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"{' '.join(command)} did not end:\n{process.communicate()[0].decode()[-5000:]}")
    assert may_fail or process.returncode == 0, f"{' '.join(command)} failed:\n{_failures(output)}"
    return output


def _failures(output: str) -> str:
    """Return each failure in an output of `node --test` (TAP) with the lines behind it, and the end of the output."""
    lines = output.splitlines()
    failed = [number for number, line in enumerate(lines) if line.lstrip().startswith("not ok")]
    return "\n".join([*(line for number in failed for line in lines[number : number + 40]), "…", output[-5_000:]])


def install(folder: Path, environ: Mapping[str, str]) -> None:
    """Install the folder's packages from its lock, unless these versions are installed. One worker of the tests at a time."""
    installed, lock = folder / "node_modules" / ".package-lock.json", folder / "package-lock.json"
    with lock.open() as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            run(folder, ("npm", "ci"), INSTALL_S, environ)
