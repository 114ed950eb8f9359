"""CPU profile of the server by `perf`, with the loads of `fanout` and `curve` on one channel.

`perf` samples the server process only, including its time in the kernel. Most of the time is the kernel's work for sockets, so
kernel functions are grouped by purpose, by their names. `perf` is in Debian's package linux-perf. It needs root, or
kernel.perf_event_paranoid of 1 or less.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from bench.bench_env import bench_env
from bench.fanout.load import LoadGenerator, Measurement, SocketGroup
from bench.fanout.servers import ArtCafe
from bench.report import Options, Table

SETTINGS: Final = (
    ("1,000, 64 in flight", 1000, "window", 64),
    ("1,000, one at a time", 1000, "window", 1),
    ("100, at 100,000/s", 100, "rate", 1000),
    ("100, at 1,000,000/s", 100, "rate", 10_000),
)
"""Label, subscribers, and the mode and amount of the load."""
SECONDS: Final = 3.0
HERTZ: Final = 2500
MOST_NAMED: Final = 3
CYTHON: Final = "__pyx_f_6uvloop_4loop_"
"""Cython's prefix of uvloop's names."""

WAKING: Final = "kernel: waking who reads, and switching to it"
COPYING: Final = "kernel: copying the bytes"
CALLING: Final = "kernel: the call itself, and the file layer"
NETWORK: Final = "kernel: TCP, IP and the loopback, both ends"
REST: Final = "kernel: the rest"
KINDS: Final = (
    (
        WAKING,
        re.compile(
            r"wake|raw_spin_unlock_irq|finish_task|schedule|ep_poll|ep_send|epoll|sock_def_readable|select_task|enqueue|dequeue"
        ),
    ),
    (COPYING, re.compile(r"copy|memcpy|memmove|check_object|clear_page|rep_movs")),
    (
        CALLING,
        re.compile(
            r"vfs_|ksys|sys_|syscall|fdget|fput|sock_write|sock_sendmsg|rw_verify|security|apparmor|fsnotify|entry_[A-Z]|do_syscall"
        ),
    ),
    (
        NETWORK,
        re.compile(
            r"tcp|ip_|ip4|ipv4|inet|skb|sk_|net|dev_|loopback|bbr|xmit|backlog|softirq|bh_|napi|sock|qdisc|csum|raw_local|nf_|dst"
        ),
    ),
)
"""Groups of kernel functions by name; the first match counts."""
LIBRARIES: Final = (
    ("libpython", "Python"),
    ("python3", "Python"),
    ("uvloop", "uvloop and picows"),
    ("loop.c", "uvloop and picows"),
    ("picows", "uvloop and picows"),
    ("libc.", "C library"),
)
ROW: Final = re.compile(r"^\s*([\d.]+)%\s+(\S+)\s+\[([.k])\]\s+(\S+)")


async def run(options: Options) -> list[Table]:
    """Return a table with a row for each kind of work and a column for each setting."""
    table = Table("Where the server's processor time goes", ["", *(name for name, *_ in SETTINGS)])
    if shutil.which("perf") is None:
        table.notes = ["There is no `perf` here (Debian: apt-get install linux-perf), so nothing was measured."]
        return [table]
    shares: list[dict[str, float]] = []
    results: list[Measurement] = []
    named: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    async with AsyncExitStack() as stack:
        load = await stack.enter_async_context(LoadGenerator())
        env = await stack.enter_async_context(bench_env(options))
        lines: dict[int, SocketGroup] = {}
        for readers in {readers for _, readers, *_ in SETTINGS}:
            cast = await env.platform.tenant_with(agents=2, channels=0)
            line = lines[readers] = await ArtCafe(env, cast).open_group(readers, 1)
            stack.callback(line.close)
        for _, readers, mode, amount in SETTINGS:
            for each in lines.values():
                each.keep_alive()
            functions, result = await _profiled(load, lines[readers], mode, amount, options.folder)
            share: dict[str, float] = defaultdict(float)
            for (library, function), percent in functions.items():
                kind = _kind(library, function)
                share[kind] += percent
                named[kind][function] += percent / len(SETTINGS)
            shares.append(share)
            results.append(result)
    for kind in sorted(named, key=lambda each: -sum(share[each] for share in shares)):
        most = sorted(named[kind], key=lambda each: -named[kind][each])[:MOST_NAMED]
        table.rows.append((f"{kind} ({', '.join(most)})", *(f"{share[kind]:.1f}%" for share in shares)))
    table.rows.append(("**a delivery, µs**", *(f"{each.cores[0] / each.deliveries_per_s * 1e6:.2f}" for each in results)))
    table.notes = [
        f"`perf record -e cpu-clock -F {HERTZ}` of the server for {SECONDS:.0f} s; in brackets each kind's heaviest functions."
    ]
    return [table]


async def _profiled(
    load: LoadGenerator, line: SocketGroup, mode: str, amount: float, folder: Path
) -> tuple[dict[tuple[str, str], float], Measurement]:
    """Return the percentage of samples by library and function, and the measurement."""
    data = folder / "perf.data"
    order = ("perf", "record", "-q", "-e", "cpu-clock", "-F", str(HERTZ), "-o", data, "-p", str(line.pids[0]))
    recorder = await asyncio.create_subprocess_exec(*order, stdout=DEVNULL, stderr=PIPE)
    try:
        result = await load.run(line, mode, amount, SECONDS, may_lose=True)
    finally:
        if recorder.returncode is None:
            recorder.send_signal(signal.SIGINT)
        _, failed = await recorder.communicate()
    report = ("perf", "report", "-i", data, "--stdio", "--no-children", "--sort", "dso,symbol", "-g", "none")
    reporter = await asyncio.create_subprocess_exec(*report, stdout=PIPE, stderr=DEVNULL)
    output, _ = await reporter.communicate()
    data.unlink(missing_ok=True)
    found = [row for row in map(ROW.match, output.decode().splitlines()) if row]
    if not found:
        raise RuntimeError(f"perf recorded nothing: {failed.decode().strip() or 'no samples'}")
    return {(row[2], row[4].removeprefix(CYTHON)): float(row[1]) for row in found}, result


def _kind(library: str, function: str) -> str:
    if library.startswith("[kernel"):
        return next((kind for kind, names in KINDS if names.search(function)), REST)
    return next((name for part, name in LIBRARIES if part in library), "other libraries")
