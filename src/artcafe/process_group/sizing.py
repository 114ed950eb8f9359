"""The number of server processes a machine can run: by processors and available memory."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from artcafe.errors import StartRefused

PROCESS_BYTES: Final = 128 * 1024 * 1024
"""Memory counted for each process. Measured: 73 MB when idle, and 10 KB more for each idle agent."""
SHARED_BYTES: Final = 256 * 1024 * 1024
"""Memory for the supervisor (70 MB), nats-server (20 MB idle), and the additional process during a rolling restart."""


def count_processes(wanted: int | Literal["auto"], *, root: Path = Path("/")) -> int:
    """Return the number of processes to run. `auto`: one for each processor, as far as memory allows.

    Raises `StartRefused` for more than memory allows. `root` is the parent of `/proc` and `/sys`.
    """
    if wanted == 1:
        return 1
    available = available_bytes(root)
    most = None if available is None else max(1, (available - SHARED_BYTES) // PROCESS_BYTES)
    if wanted == "auto":
        return processors(root) if most is None else min(processors(root), most)
    if most is not None and wanted > most:
        raise StartRefused(
            f"--processes is {wanted}, and memory is left for {most}: {_mb(available)} are available, each process is counted"
            f" with {_mb(PROCESS_BYTES)}, and {_mb(SHARED_BYTES)} are kept for what they share",
            f"ask for {most} or fewer ('auto' takes what processors and memory allow), or give this machine more memory",
        )
    return wanted


def processors(root: Path = Path("/")) -> int:
    """Return the number of usable processors: the CPU affinity, limited by the control group's quota, rounded up."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = (_text(root / "sys/fs/cgroup/cpu.max") or "max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        usable = min(usable, math.ceil(int(quota) / int(period)))
    return max(1, usable)


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory available to new processes: the smaller of the machine's (`MemAvailable`) and the control group's.

    None if the system reports neither.
    """
    machine = _fields(root / "proc/meminfo").get("MemAvailable")
    bounds = [] if machine is None else [machine * 1024]
    bounds += [left for version in _GROUPS if (left := _left_in_group(root / "sys/fs/cgroup", version)) is not None]
    return min(bounds, default=None)


_GROUPS: Final = (
    {"limit": "memory.max", "used": "memory.current", "stat": "memory.stat", "cache": "inactive_file"},
    {"limit": "memory/memory.limit_in_bytes", "used": "memory/memory.usage_in_bytes", "stat": "memory/memory.stat",
     "cache": "total_inactive_file"},
)  # fmt: skip
"""Files of control groups, version 2 and version 1, at their paths inside a container."""


def _left_in_group(group: Path, names: Mapping[str, str]) -> int | None:
    limit, used = (_text(group / names[each]) for each in ("limit", "used"))
    if limit is None or used is None or not limit.isdigit() or not used.isdigit():  # "max": no limit
        return None
    cache = _fields(group / names["stat"]).get(names["cache"], 0)  # The kernel takes it back before it kills anybody.
    return max(0, int(limit) - int(used) + cache)


def _text(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None


def _fields(file: Path) -> dict[str, int]:
    """Parse lines such as `name 12` or `Name: 12 kB`."""
    words = (line.split() for line in (_text(file) or "").splitlines())
    return {each[0].rstrip(":"): int(each[1]) for each in words if len(each) > 1 and each[1].isdigit()}


def _mb(size: int | None) -> str:
    return f"{(size or 0) // (1024 * 1024)} MB"
