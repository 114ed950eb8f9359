"""`python -m artcafe.testing.process up …`: an `artcafe` command that ends when the process that started it has ended.

Its standard input is a pipe from there, which the kernel closes even if that process was killed.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()
    runpy.run_module("artcafe", run_name="__main__", alter_sys=True)
