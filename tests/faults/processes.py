"""Processes that are ended or stopped from outside, by number."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.platform import Platform

WAIT_S: Final = 30.0
"""The server waits 10 s before it starts a nats-server again that has died several times."""


def wait_for(holds: Callable[[], bool], what: str) -> None:
    """Looks again and again. Fails after `WAIT_S`."""
    until = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until, f"not within {WAIT_S} s: {what}"
        threading.Event().wait(0.01)  # Nothing tells when another process has come so far.


def kill_nats(platform: Platform) -> None:
    """kill -9 of nats-server; returns when the server has started another."""
    pid = platform.nats_pid
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: platform.nats_pid != pid, "another nats-server")


def kill_both(platform: Platform) -> None:
    """kill -9 of the server and its nats-server."""
    os.kill(platform.nats_pid, signal.SIGKILL)
    platform.kill()


class Frozen:
    """Processes that are stopped: none of their threads runs, nor is in the kernel for them."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids

    def stop(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: all(state == "T" for pid in self._pids for state in _states(pid)), "all threads stopped")

    def go_on(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """Returns when none of them is left."""
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: all(state in "ZX" for pid in self._pids for state in _states(pid)), "their end")


def _states(pid: int) -> Iterator[str]:
    """The state of each thread of a process (proc(5)): T is stopped, D waits for a disk, Z has ended."""
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            yield task.read_text().rpartition(")")[2].split()[0]
        except OSError:  # it ended between the two looks
            continue


@contextmanager
def frozen(*pids: int) -> Iterator[Frozen]:
    """Stops these, and lets them go on at the end if they still are there."""
    users = Frozen(*pids)
    users.stop()
    try:
        yield users
    finally:
        for pid in pids:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGCONT)
