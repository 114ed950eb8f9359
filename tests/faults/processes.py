"""Processes that are ended or stopped from outside, by number."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
    pid_file = platform.data / "nats" / "nats.pid"
    pid = pid_file.read_text()
    os.kill(int(pid), signal.SIGKILL)
    # It is made empty first, and written then.
    wait_for(lambda: pid_file.read_text() not in {"", pid}, "another nats-server")


def kill_both(platform: Platform) -> None:
    """kill -9 of the server and its nats-server."""
    os.kill(platform.nats_pid, signal.SIGKILL)
    platform.kill()


class Frozen:
    """Processes that are stopped: none of their threads runs, nor is in the kernel for them."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids

    def stop(self) -> None:
        """Returns when all stand still."""
        self._signal(signal.SIGSTOP)
        wait_for(lambda: self._are("T"), "all threads stopped")

    def go_on(self) -> None:
        """Lets those that still are there go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Returns when none of them is left."""
        self._signal(signal.SIGKILL)
        wait_for(lambda: self._are("ZX"), "their end")

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _are(self, states: str) -> bool:
        return all(state in states for pid in self._pids for state in _states(pid))


def _states(pid: int) -> Iterator[str]:
    """The state of each thread of a process (proc(5)): T is stopped, D waits for a disk, Z and X have ended."""
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            yield task.read_text().rpartition(")")[2].split()[0]
        except OSError:  # it ended between the two looks
            continue


@contextmanager
def frozen(*pids: int) -> Iterator[Frozen]:
    """Stops these, and lets them go on at the end."""
    users = Frozen(*pids)
    try:
        users.stop()
        yield users
    finally:
        users.go_on()
