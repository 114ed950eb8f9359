"""Child processes that end with the test run, even if it is killed."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

PR_SET_PDEATHSIG: Final = 1
"""From Linux's prctl(2)."""


def ended_with_parent(command: Sequence[str | Path]) -> list[str | Path]:
    """Return the command, run so that the kernel sends it SIGTERM when its parent ends.

    A test run that is killed cannot run its fixtures' cleanup, and the children have sessions of their own, which a terminal's
    Ctrl-C does not reach. `setpriv` (util-linux) sets the signal and then becomes the command, so the process id stays the same.
    If it is missing, as on macOS, the command runs unchanged.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--", *command] if setpriv else list(command)


def plain_environ() -> dict[str, str]:
    """Return this process's variables without those of ArtCafe."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ARTCAFE_")}


_starter: Final = ThreadPoolExecutor(1, thread_name_prefix="children")


def started_with_parent(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
    """Start a command as in `ended_with_parent`, from a thread that lasts as long as this process.

    The kernel's parent is the *thread*: a server started by `asyncio.to_thread` would end with that test's event loop.
    """

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(ended_with_parent(command), **options)

    return _starter.submit(start).result()


def interrupt_with_parent() -> None:
    """Have the kernel interrupt this process, like Ctrl-C, when its parent ends. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
