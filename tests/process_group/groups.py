"""Groups of server processes as an operator runs them, and their processes seen from outside."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx2

from tests.faults.processes import wait_for
from tests.plain_http import NO_AUTHORITIES
from tests.platform import Platform

PROCESSES = ["--processes", "2"]


def worker_pids(platform: Platform) -> dict[int, int]:
    """The server processes of a platform that run now: pids by number."""
    assert platform.process is not None
    return workers_of(platform.process.pid)


def workers_of(supervisor: int) -> dict[int, int]:
    found = {}
    for pid in children_of(supervisor):
        words = command_of(pid)
        if "artcafe.process_group.worker" in words:
            found[int(words[-1])] = pid
    return found


def children_of(pid: int) -> list[int]:
    """Read them from /proc: a `ps` for each look, every 10 ms, would slow down the servers that a test waits for."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(each) for thread in threads for each in (thread / "children").read_text().split()]
    except OSError:  # the process has ended
        return []


def command_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not waited for yet counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def readiness(url: str) -> dict[str, object]:
    """What `/health/ready` answers, whatever its status."""
    return dict(httpx2.get(f"{url}/health/ready", timeout=10, verify=NO_AUTHORITIES).json())


def wait_until_all_serve(platform: Platform) -> None:
    wait_for(lambda: readiness(platform.url).get("processes") == "ok", "every process serves")


def kill(pid: int) -> None:
    """kill -9; returns when it is gone."""
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_running(pid), f"the end of process {pid}")


def events(platform: Platform, name: str) -> list[str]:
    """The lines of the log with this event."""
    return [line for line in platform.log().splitlines() if f" {name} " in f"{line} "]
