"""Signals while there is nothing to clean up."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

INTERRUPTED: Final = 130
"""The exit code of Ctrl-C and SIGTERM, numbered as by shells: 128 plus the signal number of SIGINT."""


_is_terminated = False


def let_sigterm_interrupt() -> None:
    """Pass SIGTERM on as SIGINT, for which asyncio cancels the command's task, and remember it (`is_terminated`)."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    global _is_terminated  # noqa: PLW0603 (signals are the process's)
    _is_terminated = True
    signal.raise_signal(signal.SIGINT)


def is_terminated() -> bool:
    """Return whether SIGTERM has arrived. Ask before a long wait: CPython drops a `KeyboardInterrupt` raised in a callback."""
    return _is_terminated


@contextmanager
def signals_end_process() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the process at once inside the block. Use it for imports, which take most of a command's start.

    Python's handler would raise `KeyboardInterrupt`, and CPython drops an exception raised in a callback, such as those of the
    import system's locks: the signal would be lost. In another thread, where no signals arrive, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if is_terminated():
        os._exit(INTERRUPTED)
    handlers = {number: signal.signal(number, lambda *_: os._exit(INTERRUPTED)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
