"""The output of every bench: the machine, and tables in Markdown with medians and ratios. Other modules measure."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from artcafe.fabric.embedded.process import find_binary

LIBRARIES: Final = ("nats-py", "picows", "uvloop", "msgspec", "cryptography")


@dataclass(frozen=True, slots=True)
class Options:
    """Duration and place of the measurement. `seconds` is for each sample; `folder` holds the data, and should be on the disk to
    be measured."""

    folder: Path
    rounds: int = 5
    seconds: float = 0.6
    against: Path | None = None
    """The Python interpreter of another version, for `pairs`."""
    only: Sequence[str] = ()
    """The kinds of work that `pairs` and `scale` measure; none: all."""
    divide: int = 1
    """By what `scale` divides its numbers of agents, channels, subscribers and tenants."""


@dataclass(slots=True)
class Table:
    """One table: rows of text under a title, and the conditions of the measurement."""

    title: str
    columns: Sequence[str]
    notes: Sequence[str] = ()
    rows: list[Sequence[str]] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the table with its cells aligned; all columns but the first to the right."""
        widths = [max(len(row[at]) for row in (self.columns, *self.rows)) for at in range(len(self.columns))]
        rule = [("-" if at == 0 else "-:").rjust(width, "-") for at, width in enumerate(widths)]
        lines = [_line(self.columns, widths), _line(rule, widths), *(_line(row, widths) for row in self.rows)]
        return "\n".join([f"### {self.title}", "", *lines, "", *self.notes, ""])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(zip(cells, widths, strict=True)))
    return f"| {' | '.join(padded)} |"


@dataclass(frozen=True, slots=True)
class Sample:
    """The work done in one interval, and the duration of each piece."""

    count: int
    seconds: float
    latencies_s: Sequence[float] = ()

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    def quantile_ms(self, part: float) -> float:
        """Return the latency that this fraction of all did not exceed."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000


def median_rate(samples: Sequence[Sample]) -> str:
    """Return the median, and in brackets the lowest and highest: they show the effect of other work on the machine."""
    rates = [sample.rate for sample in samples]
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})"


def median_latency(samples: Sequence[Sample]) -> str:
    """Return p50 / p99 in milliseconds, each the median of the rounds."""
    p50, p99 = (statistics.median(sample.quantile_ms(part) for sample in samples) for part in (0.5, 0.99))
    return f"{p50:.2f} / {p99:.2f}"


def median_ratio(samples: Sequence[Sample], others: Sequence[Sample]) -> str:
    """Return the median ratio to the other's rate, each round compared with the same round."""
    return f"{statistics.median(a.rate / b.rate for a, b in zip(samples, others, strict=True)):.2f}×"


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, to a hundredth of a second (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def process_seconds(pid: int) -> float:
    """Return the processor time of a process's threads, in seconds (Linux's schedstat, to the nanosecond)."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process (proc(5), status)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def machine(folder: Path) -> str:
    """Return one line on the machine: without it the figures mean nothing."""
    nats = subprocess.run([find_binary(), "--version"], capture_output=True, check=True, text=True).stdout.split()[-1]
    libraries = ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
    load = "/".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"{os.cpu_count()} cores ({_processor()}), {platform.system()} {platform.release()}, {_file_system(folder)}, "
        f"Python {platform.python_version()}, nats-server {nats.removeprefix('v')}, {libraries}; load before {load}"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _file_system(folder: Path) -> str:
    """Return the type of the file system on which flushes are measured; a tmpfs flushes nothing."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown file system"
    holding = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(holding, key=lambda mount: len(mount[0]), default=("", "unknown file system"))[1]
