"""End or stop processes from outside, by process id."""

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

WAIT_S: Final = 60.0
"""The server waits 10 s before it restarts a nats-server that has died several times."""
ROLLING_RESTART_S: Final = 110.0
"""Two processes start and drain one after the other; each start takes several seconds of processor time."""


def wait_for(holds: Callable[[], bool], what: str, within_s: float = WAIT_S) -> None:
    """Poll until the condition holds. Fail after `within_s`."""
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, f"not within {within_s} s: {what}"
        threading.Event().wait(0.01)  # another process sends no notification


def kill_nats(platform: Platform) -> None:
    """Kill nats-server with SIGKILL; return when the server has started another."""
    pid_file = platform.data / "nats" / "nats.pid"
    pid = pid_file.read_text()
    os.kill(int(pid), signal.SIGKILL)
    # The file is created empty, and written afterwards.
    wait_for(lambda: pid_file.read_text() not in {"", pid}, "another nats-server")


def kill_both(platform: Platform) -> None:
    """Kill the server and its nats-server with SIGKILL."""
    os.kill(platform.nats_pid, signal.SIGKILL)
    platform.kill()


class Frozen:
    """Stopped processes: none of their threads runs, in user space or in the kernel."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids

    def stop(self) -> None:
        """Stop them; return when all threads are stopped."""
        self._signal(signal.SIGSTOP)
        wait_for(lambda: self._are("T"), "all threads stopped")

    def go_on(self) -> None:
        """Let the processes that still exist continue."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill them; return when none is left."""
        self._signal(signal.SIGKILL)
        wait_for(lambda: self._are("ZX"), "their end")

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _are(self, states: str) -> bool:
        return all(state in states for pid in self._pids for state in _states(pid))


def _states(pid: int) -> Iterator[str]:
    """Yield the state of each thread of a process (proc(5)): T is stopped, D waits for a disk, Z and X have ended."""
    with suppress(OSError):  # the process has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # the thread has ended since
                yield (task / "stat").read_text().rpartition(")")[2].split()[0]


@contextmanager
def frozen(*pids: int) -> Iterator[Frozen]:
    """Stop these processes, and let them continue at the end."""
    users = Frozen(*pids)
    try:
        users.stop()
        yield users
    finally:
        users.go_on()
