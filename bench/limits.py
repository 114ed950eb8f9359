"""Limits of rates over two servers, and their cost for others.

Deviation: on each of two servers a client keeps publishes waiting for a tenant with a limit of 60, 600 or 6,000 messages a
minute; how many were stored in the first minute, and at most in any 60 s. The three tenants flood at the same time.

Flood: a tenant publishes on 8 sockets from another process, always above its limit; another tenant's agent publishes one message
after another, with and without the flood, in turns on the same server.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
import uvloop

from artcafe.sdk.keys import load_signer
from bench import report
from bench.bench_env import UNBOUNDED, bench_env
from bench.neighbours import DATA, SETTLE_S, Order, quiet_agent, sample
from bench.raw_client import RawSocket, connect, masked
from bench.report import Options, Sample, Table
from tests.children import plain_environ
from tests.fleet import Fleet, running_fleet
from tests.platform import Cast, Platform

LIMITS: Final = (60, 600, 6000)
FLOOD_S: Final = 130.0
WINDOW_S: Final = 60.0
WAITING: Final = 16
"""Publishes that a client keeps waiting on one socket."""
PAUSE_S: Final = 0.02
"""Before a refused publish is followed by the next one: the clients of a bench must not use up the machine."""
TOLERATED: Final = 10.0
"""Percent, as the contract promises."""
FLOOD_LIMIT: Final = 6000
FLOOD_SOCKETS: Final = 8
EXHAUST_S: Final = 6.0
FLOOD_WAITING: Final = 128


class Flood:
    """Publishes on one socket without regard for refusals."""

    def __init__(self, line: RawSocket, channel: str, pause_s: float) -> None:
        self._line, self._pause_s = line, pause_s
        self._body = b',"publish":{"channel":"%b","data":%b}}' % (channel.encode(), DATA)
        self._ids = 0
        self._is_over = False
        self.stored_at: list[float] = []
        self.refused = 0

    def begin(self, waiting: int) -> None:
        """Keep this many publishes waiting until `end`."""
        self._line.on_frame = self._answered
        for _ in range(waiting):
            self._publish()

    def end(self) -> None:
        self._is_over = True
        self._line.close()

    def _publish(self) -> None:
        if not self._is_over:
            self._ids += 1
            self._line.transport.write(masked(b'{"id":%d%b' % (self._ids, self._body)))

    def _answered(self, payload: bytes) -> None:
        if not payload.startswith(b'{"id"'):
            return
        if b'"error"' not in payload:
            self.stored_at.append(time.perf_counter())
            self._publish()
            return
        self.refused += 1
        asyncio.get_running_loop().call_later(self._pause_s, self._publish)


async def run(options: Options) -> list[Table]:
    """Return the deviation, and the latency beside a flood. `--only flood` measures the second one alone."""
    tables = [] if "flood" in options.only else [await deviation(options)]
    return [*tables, await beside_a_flood(options)]


async def deviation(options: Options) -> Table:
    """Measure how many messages two servers accept of three tenants with different limits."""
    table = Table(
        "Messages stored under a flood on two servers",
        ["limit a minute", "in the first 60 s", "deviation", "at most in any 60 s", "deviation", "refused"],
    )
    with (
        TemporaryDirectory(prefix="artcafe-bench-", dir=options.folder) as folder,
        running_fleet(Path(folder), flags=UNBOUNDED, python=sys.executable) as fleet,
    ):
        casts = {limit: await fleet.tenant_with(subscribed=False) for limit in LIMITS}
        for limit, cast in casts.items():
            await asyncio.to_thread(set_limits, fleet, cast, f"messages_a_minute={limit}")
        floods = {limit: [await flooding(server, cast, PAUSE_S) for server in fleet.servers] for limit, cast in casts.items()}
        begun = time.perf_counter()
        for each in floods.values():
            for flood in each:
                flood.begin(WAITING)
        await asyncio.sleep(FLOOD_S)
        for each in floods.values():
            for flood in each:
                flood.end()
    for limit, each in floods.items():
        stored = sorted(at - begun for flood in each for at in flood.stored_at)
        first, most = bisect_left(stored, WINDOW_S), most_in_a_window(stored)
        refused = sum(flood.refused for flood in each)
        table.rows.append([f"{limit:,}", f"{first:,}", percent(first, limit), f"{most:,}", percent(most, limit), f"{refused:,}"])
    return table


def most_in_a_window(times: Sequence[float]) -> int:
    """Return the most events in any 60 s."""
    return max((bisect_left(times, at + WINDOW_S) - index for index, at in enumerate(times)), default=0)


def percent(count: int, limit: int) -> str:
    """Return the deviation from the limit, marked if it is above the tolerated one."""
    deviation = (count - limit) * 100 / limit
    return f"{deviation:+.1f} %{'' if abs(deviation) <= TOLERATED else ' (!)'}"


async def flooding(server: Platform, cast: Cast, pause_s: float) -> Flood:
    """Connect the tenant's agent to one server."""
    async with cast.rest() as rest:
        rest.token = None
        token = (await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[0]))).access_token
    return Flood(await connect(server.gateway_url, cast.tenant, token), cast.channels[0], pause_s)


async def beside_a_flood(options: Options) -> Table:
    """Measure one agent's publishes with and without a flood of another tenant above its limit."""
    taken: dict[str, list[Sample]] = defaultdict(list)
    stored = refused = 0
    async with bench_env(options) as env:
        ours, theirs = await env.platform.tenant_with(subscribed=False), await env.platform.tenant_with(subscribed=False)
        await asyncio.to_thread(set_limits, env.platform, theirs, f"messages_a_minute={FLOOD_LIMIT}")
        quiet = await quiet_agent(env, ours)
        order = Order(env.platform.gateway_url, theirs.tenant, await env.token(theirs), theirs.channels[0])
        with flooded(order):
            await asyncio.sleep(EXHAUST_S)  # Below its limit a busy tenant is measured by `neighbours`.
        for _ in range(options.rounds):
            await asyncio.sleep(SETTLE_S)
            taken["alone"].append(await sample(quiet))
            with flooded(order) as counts:
                await asyncio.sleep(SETTLE_S)
                taken["beside the flood"].append(await sample(quiet))
            stored, refused = stored + counts["stored"], refused + counts["refused"]
    note = f"The flood stored {stored:,} messages, and was refused {refused:,} times."
    ways = list(taken)
    ratio = p99(taken[ways[1]]) / p99(taken[ways[0]])
    table = Table("Publishes one after another, p50 / p99 in ms", ["a quiet agent of another tenant", *ways, "p99"], [note])
    table.rows.append(["", *(report.median_latency(taken[way]) for way in ways), f"{ratio:.2f}×"])
    return table


async def flood_until_told(order: Order) -> None:
    """Flood on every socket until stdin ends. Print `{}` at the beginning, and the counts at the end."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), over.set)
    lines = [await connect(order.url, order.tenant, order.token) for _ in range(FLOOD_SOCKETS)]
    floods = [Flood(line, order.channel, 0.0) for line in lines]
    for flood in floods:
        flood.begin(FLOOD_WAITING)
    print("{}", flush=True)
    await over.wait()
    counts = {"stored": sum(len(each.stored_at) for each in floods), "refused": sum(each.refused for each in floods)}
    for flood in floods:
        flood.end()
    print(json.dumps(counts))


@contextmanager
def flooded(order: Order) -> Iterator[dict[str, int]]:
    """Flood from a process of its own within this block; the dict has its counts afterwards."""
    counts: dict[str, int] = {}
    with subprocess.Popen([sys.executable, "-m", "bench.limits"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        process.stdin.flush()
        process.stdout.readline()
        yield counts
        out, _ = process.communicate()
    counts.update(json.loads(out))


def p99(samples: Sequence[Sample]) -> float:
    """Return the median of the rounds."""
    ordered = sorted(sample.quantile_ms(0.99) for sample in samples)
    return ordered[len(ordered) // 2]


def set_limits(platform: Platform, cast: Cast, *changes: str) -> None:
    """Set limits of the tenant's own, as the operator does. Servers apply them within 5 s."""
    member = platform.servers[0] if isinstance(platform, Fleet) else platform
    flags = member._flags
    given = {f"ARTCAFE_{name[2:].replace('-', '_').upper()}": value for name, value in zip(flags[::2], flags[1::2], strict=True)}
    command = [sys.executable, "-m", "artcafe", "tenant", "limits", cast.tenant, *changes, "--data-dir", str(member.data)]
    subprocess.run(command, check=True, capture_output=True, env={**plain_environ(), **given, "PATH": os.environ["PATH"]})


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(flood_until_told(msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)))
