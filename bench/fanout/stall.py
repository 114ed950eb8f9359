"""One stalled reader: the messages it receives in the end, and the latency of the 100 others meanwhile.

It reads and acknowledges for 2 s, then reads nothing for 5 s or for 30 s. The gateway closes a stalled socket with 4008 after
10 s. Then it reads again, reconnects if it was closed, and continues up to the last message. The load generator checks the
messages of the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import re
import socket
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Final

from artcafe.wire import frames
from bench.bench_env import BenchEnv, bench_env
from bench.fanout.load import WARM_S, LoadGenerator, Measurement, SocketGroup
from bench.fanout.servers import ArtCafe, command
from bench.report import Options, Table

READERS: Final = 100
RATES: Final = {"live": 1000, "broadcast": 500}
"""Messages per second."""
STALLS_S: Final = (0.0, 5.0, 30.0)
ROUNDS: Final = 3
"""Highest number of rounds: one takes two minutes, and five would exceed the limit of a bench."""
BEFORE_S: Final = 2.0
AFTER_S: Final = 3.0
QUIET_S: Final = 2.0
ACK_EVERY: Final = 100
CLOSE: Final = 0x88
MESSAGE: Final = re.compile(rb'"channel":"([^"]+)","seq":(\d+|null).*"\^(\d{10}):')


class StalledReader:
    """One reader in its own thread. `sockets`: the message numbers received on each of its sockets."""

    def __init__(self, connected: socket.socket, again: Callable[[], socket.socket]) -> None:
        self._connected, self._again = connected, again
        self._buffer = b""
        self.sockets: list[list[int]] = [[]]
        self.codes: list[int] = []
        self.is_over = threading.Event()

    def run(self, stall_s: float) -> None:
        """Reads, stalls, reads on; returns when nothing comes any more after `is_over`."""
        if stall_s:
            self._read(time.monotonic() + BEFORE_S)
            self.is_over.wait(stall_s)
        while self._read(math.inf):
            self._connected.close()
            self._connected, self._buffer = self._again(), b""
            self.sockets.append([])

    def _read(self, until: float) -> bool:
        """Reads until this time, or until it is quiet after `is_over`, or closed; True where it was closed."""
        while time.monotonic() < until:
            self._connected.settimeout(min(QUIET_S, max(until - time.monotonic(), 0.001)))
            try:
                more = self._connected.recv(1 << 18)
            except TimeoutError:
                if self.is_over.is_set():
                    return False
                continue
            except ConnectionResetError:
                more = b""
            if not more:
                return True
            self._buffer += more
            for kind, payload in self._frames():
                if kind == CLOSE:
                    self.codes.append(int.from_bytes(payload[:2], "big"))
                elif found := MESSAGE.search(payload):
                    self._take(found)
        return False

    def _take(self, found: re.Match[bytes]) -> None:
        self.sockets[-1].append(int(found[3]))
        if found[2] != b"null" and len(self.sockets[-1]) % ACK_EVERY == 0:
            with contextlib.suppress(OSError):  # the socket is closed, with unread bytes
                self._connected.sendall(command("ack", frames.Ack(found[1].decode(), int(found[2]))))

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        at, data = 0, self._buffer
        while len(data) - at >= 4:
            size, start = data[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(data[start : start + 2], "big"), start + 2
            if start + size > len(data):
                break
            yield data[at], data[start : start + size]
            at = start + size
        self._buffer = data[at:]

    def summary(self, result: Measurement) -> str:
        """Describe the received messages."""
        got = [number for numbers in self.sockets for number in numbers]
        ordered = all(a < b for numbers in self.sockets for a, b in itertools.pairwise(numbers))
        text = f"{len(set(got)):,} of {result.published:,}, {'in order' if ordered else 'OUT OF ORDER'}"
        if repeats := len(got) - len(set(got)):
            text += f", {repeats:,} of them twice"
        text += "".join(f", closed with {code}" for code in self.codes)
        return f"{text}; {len(self.sockets)} socket{'s' if len(self.sockets) > 1 else ''}"


async def run(options: Options) -> list[Table]:
    """Return a table with a row for each type of channel and length of the stall."""
    columns = ["channel", "messages/s", "stall, s", "others' p50, ms", "p99, ms", "to no stall", "slowest, ms", "others missed"]
    table = Table(f"One of {READERS + 1} readers stalls", [*columns, "the reader got"])
    rounds = min(ROUNDS, options.rounds)
    taken: dict[tuple[str, float], list[tuple[Measurement, StalledReader]]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        load = await stack.enter_async_context(LoadGenerator())
        env = await stack.enter_async_context(bench_env(options))
        for _, kind, stall_s in itertools.product(range(rounds), RATES, STALLS_S):
            taken[kind, stall_s].append(await _stalled(load, env, kind, stall_s))
    for (kind, stall_s), found in taken.items():
        table.rows.append(_row(kind, stall_s, found, [result for result, _ in taken[kind, STALLS_S[0]]]))
    table.notes = [f"Medians of {rounds} rounds; of the slowest, the slowest. What the reader got is the last round's."]
    return [table]


def _row(
    kind: str,
    stall_s: float,
    found: Sequence[tuple[Measurement, StalledReader]],
    without: Sequence[Measurement],
) -> tuple[str, ...]:
    results = [result for result, _ in found]
    last, reader = found[-1]
    return (
        kind,
        f"{RATES[kind]:,}",
        f"{stall_s:.0f}",
        f"{statistics.median(each.p50_us for each in results) / 1000:.2f}",
        f"{statistics.median(each.p99_us for each in results) / 1000:.2f}",
        f"{statistics.median(each.p99_us / other.p99_us for each, other in zip(results, without, strict=True)):.2f}×",
        f"{max(each.max_us for each in results) / 1000:.0f}",
        f"{sum(each.missing for each in results):,}",
        reader.summary(last),
    )


async def _stalled(load: LoadGenerator, env: BenchEnv, kind: str, stall_s: float) -> tuple[Measurement, StalledReader]:
    cast = await env.platform.tenant_with(agents=2, channels=0)
    server = ArtCafe(env, cast, kind=kind, by_gateway=kind != "live")
    line = await server.open_group(READERS + 1, 1)
    reader = StalledReader(line.readers[-1], server.again)
    others = SocketGroup(line.publisher, line.readers[:-1], line.messages, line.pids, line.alive_reader, line.alive_publisher)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(asyncio.to_thread(reader.run, stall_s))
        try:
            seconds = BEFORE_S + max(stall_s, 5.0) + AFTER_S - WARM_S
            result = await load.run(others, "rate", RATES[kind], seconds, may_lose=True)
        finally:
            reader.is_over.set()
        await reading
    line.close()
    return result, reader
