"""The cost of metering: publish throughput with and without it, table writes of a tenant, and the time of a recount.

* publish: two `artcafe up` from this checkout, one with `--meter-s 0`. In each pair, in random order, 256 publishes wait on 16
  sockets for a second or more. The metered one counts every second, 25 times as often as by default, so each sample has a count.
* writes: a tenant's hour in a simulated clock, with a publish in each interval of counting, and one without any.
* recount: a million messages in one log, counted by the meter from the log, as after a crash, and then recounted.

`--seconds` is the duration of each sample; a ratio of rates needs at least 1.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from artcafe.observe.clock import now
from artcafe.rules import subjects, times
from artcafe.rules.usage import PeriodKind, period_of
from artcafe.services.meter import INTERVAL_S
from artcafe.tables.catalog import USAGE_METRICS
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Put, Update, Write
from artcafe.tables.sqlite.engine import Sqlite
from bench import publish
from bench.bench_env import BenchEnv, bench_env
from bench.raw_client import Publisher
from bench.report import Options, Sample, Table, process_seconds
from tests.services.metering_env import Metering, message, metering

SECONDS: Final = 1.5
"""The least duration of a sample: it holds a count of the metered server."""
WAITING: Final = 256
MESSAGES: Final = 1_000_000
AT_ONCE: Final = 10_000
HOUR_S: Final = 3600.0


async def run(options: Options) -> list[Table]:
    """Return the tables of the three measurements."""
    return [await _publishing(options), await _writing(options), await _recounting(options)]


# --- publish ---


@dataclass(slots=True)
class Side:
    """One of the two servers, with its sockets and what was measured."""

    env: BenchEnv
    way: publish.Way
    samples: list[Sample] = field(default_factory=list)
    server_us: list[float] = field(default_factory=list)
    """Processor time of the server for each message, in µs."""

    async def measure(self, seconds: float) -> None:
        """Take one sample."""
        assert self.env.platform.process is not None
        before = process_seconds(self.env.platform.process.pid)
        sample = await self.way(WAITING, seconds)
        used = process_seconds(self.env.platform.process.pid) - before
        self.samples.append(sample)
        self.server_us.append(used / sample.count * 1e6)


async def _publishing(options: Options) -> Table:
    seconds = max(options.seconds, SECONDS)
    async with AsyncExitStack() as stack:
        without, metered = [await _side(options, stack, flag) for flag in ("0", "1")]
        for each in (without, metered):
            await each.way(WAITING, seconds)
        for _ in range(options.rounds):
            for each in random.sample((without, metered), 2):
                await each.measure(seconds)
    ratios = [b.rate / a.rate for a, b in zip(without.samples, metered.samples, strict=True)]
    table = Table(
        f"Stored publishes a second, {WAITING} waiting on 16 sockets, {options.rounds} pairs of {seconds} s",
        ["", "not metered", "metered each second", "ratio, pair by pair"],
    )
    rates = [statistics.median(sample.rate for sample in each.samples) for each in (without, metered)]
    table.rows.append(["publishes/s", *(f"{rate:,.0f}" for rate in rates), _spread(ratios)])
    used = [statistics.median(each.server_us) for each in (without, metered)]
    more = [b / a for a, b in zip(without.server_us, metered.server_us, strict=True)]
    table.rows.append(["server, µs of processor a message", *(f"{each:.1f}" for each in used), _spread(more)])
    return table


async def _side(options: Options, stack: AsyncExitStack, meter_s: str) -> Side:
    env = await stack.enter_async_context(bench_env(options, flags=["--meter-s", meter_s]))
    cast = await env.platform.tenant_with(agents=1, channels=1, subscribed=False)
    token = await env.token(cast)
    publishers = [Publisher(await env.line(cast, token), cast.channels[0], publish.DATA) for _ in range(16)]
    return Side(env, publish.over_gateway(publishers))


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})"


# --- writes ---


class CountingTables(Sqlite):
    """A table engine that counts the writes of usage rows."""

    written = 0

    async def update(self, write: Update) -> Item:
        """Count an update."""
        self._count([write])
        return await super().update(write)

    async def put(self, write: Put) -> None:
        """Count a put."""
        self._count([write])
        await super().put(write)

    async def transact(self, writes: Sequence[Write]) -> None:
        """Count each write of a transaction."""
        self._count(writes)
        await super().transact(writes)

    def _count(self, writes: Sequence[Write]) -> None:
        self.written += sum(write.table is USAGE_METRICS for write in writes)


async def _writing(options: Options) -> Table:
    table = Table("Writes of usage rows for a tenant in an hour", ["", "writes", "transactions of counts"])
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, publishes in (("busy: a publish in every interval", 1), ("idle", 0)):
        with TemporaryDirectory(dir=options.folder) as folder:
            async with metering(Path(folder), engine=CountingTables) as it:
                table.rows.append([name, *map(str, await _hour(it, publishes))])
    return table


async def _hour(it: Metering, publishes: int) -> tuple[int, int]:
    """Return the writes of an hour, and the number of counts among them."""
    (server,), tables = it.servers, it.tables
    assert isinstance(tables, CountingTables)
    await it.publish(server, 1)
    for _ in range(4):  # the first writes of a tenant, and the parts of its first message
        await server.meter.look()
        it.clock.pass_s(130)
    before, state = tables.written, await server.services.store.usage(it.owner.tenant_id).meter()
    for _ in range(int(HOUR_S / INTERVAL_S)):
        await it.publish(server, publishes)
        await server.meter.look()
        it.clock.pass_s(INTERVAL_S)
    after = await server.services.store.usage(it.owner.tenant_id).meter()
    assert state is not None
    assert after is not None
    return tables.written - before, after.revision - state.revision


# --- recount ---


async def _recounting(options: Options) -> Table:
    table = Table(f"A tenant with {MESSAGES:,} stored messages", ["", "seconds", "messages/s", "result"])
    options.folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=options.folder) as folder:
        async with metering(Path(folder), at=now()) as it:
            await _fill(it)
            server = await it.restart(it.servers[0])  # it knows nothing of what was stored
            begun = time.perf_counter()
            await server.meter.catch_up(it.owner.tenant_id)
            table.rows.append(_timed("count by the meter, from the log", time.perf_counter() - begun, "exact"))
            begun = time.perf_counter()
            result = await it.recount(period_of(it.clock(), PeriodKind.MONTH).text)
            said = f"{result.messages_read:,} read, {len(result.differences)} differences"
            table.rows.append(_timed("recount", time.perf_counter() - begun, said))
    return table


def _timed(name: str, seconds: float, result: str) -> list[str]:
    return [name, f"{seconds:.1f}", f"{MESSAGES / seconds:,.0f}", result]


async def _fill(it: Metering) -> None:
    """Store a million messages of 200 bytes of the last hours."""
    (server,) = it.servers
    writer = server.services.fabric.tenant(it.owner.tenant_id).writer
    subject = subjects.stored(it.channels[0].id)
    for start in range(0, MESSAGES, AT_ONCE):
        at = it.clock() - timedelta(hours=6 * (1 - start / MESSAGES))
        body = message("agt_01KARTC0000000000000000000", times.to_text(at), publish.DATA)
        async with asyncio.timeout(60):
            for done in [writer.submit(subject, body, "", None) for _ in range(AT_ONCE)]:
                await done
