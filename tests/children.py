"""Child processes that end when the test run does, whatever ends it."""

from __future__ import annotations

import ctypes
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1
"""From Linux's prctl(2)."""


def ended_with_parent(command: Sequence[str | Path]) -> list[str | Path]:
    """Return the command, run so that the kernel sends it SIGTERM when its parent ends.

    A test run that is killed cannot run its fixtures' cleanup, and the children have sessions of their own, which a terminal's
    Ctrl-C does not reach. `setpriv` (util-linux) sets the signal and then becomes the command, so the process id stays the same.
    Where it is missing, as on macOS, the command runs as it is.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--", *command] if setpriv else list(command)


def interrupt_with_parent() -> None:
    """Have the kernel interrupt this process, as Ctrl-C does, when its parent ends. On Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
