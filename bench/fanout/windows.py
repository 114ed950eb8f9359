"""Fan-out in closed loops: 64 messages in flight, and one at a time, to 1,000 subscribers, on one channel and on ten."""

from __future__ import annotations

import itertools
import random
import statistics
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from bench.bench_env import bench_env
from bench.fanout.load import LoadGenerator, Measurement, SocketGroup
from bench.fanout.servers import NO_REDIS, ArtCafe, FanoutServer, fastapi, nats_web_socket, redis
from bench.report import Options, Table

READERS: Final = 1000
CHANNELS: Final = (1, 10)
WINDOWS: Final = (64, 1)
SECONDS: Final = 0.8
"""Shortest sample: a window of 64,000 deliveries takes a tenth of it on the slowest server."""

Taken = dict[tuple[str, int, int], list[Measurement]]


async def run(options: Options) -> list[Table]:
    """Return a table for each window and number of channels."""
    async with AsyncExitStack() as stack:
        load = await stack.enter_async_context(LoadGenerator())
        env = await stack.enter_async_context(bench_env(options))
        cast = await env.platform.tenant_with(agents=len(CHANNELS) + 1, channels=0)
        pubsub = await stack.enter_async_context(redis(options.folder))
        servers: list[FanoutServer] = [
            ArtCafe(env, cast),
            await stack.enter_async_context(nats_web_socket(options.folder)),
            *([pubsub] if pubsub is not None else []),
            await stack.enter_async_context(fastapi(options.folder)),
        ]
        lines: dict[tuple[str, int], SocketGroup] = {}
        for server, channels in itertools.product(servers, CHANNELS):
            line = lines[server.name, channels] = await server.open_group(READERS, channels)
            stack.callback(line.close)
        taken = await _rounds(load, lines, options)
    tables = [
        _table(taken, window, channels, [each.name for each in servers])
        for window, channels in itertools.product(WINDOWS, CHANNELS)
    ]
    if pubsub is None:
        tables[-1].notes = [NO_REDIS]
    return tables


async def _rounds(load: LoadGenerator, lines: dict[tuple[str, int], SocketGroup], options: Options) -> Taken:
    """Measure the servers in turns, so that other load of the machine affects all of them equally."""
    taken: Taken = defaultdict(list)
    settings = list(itertools.product(WINDOWS, CHANNELS))
    turns = list(lines.items())
    for _ in range(options.rounds):
        random.shuffle(settings)
        for window, channels in settings:
            random.shuffle(turns)
            for name, line in ((name, line) for (name, of), line in turns if of == channels):
                for each in lines.values():
                    each.keep_alive()
                taken[name, window, channels].append(await load.run(line, "window", window, max(SECONDS, options.seconds)))
    return taken


def _table(taken: Taken, window: int, channels: int, names: Sequence[str]) -> Table:
    ours = taken[names[0], window, channels]
    in_flight = "one at a time" if window == 1 else f"{window} in flight"
    table = Table(
        f"{READERS:,} subscribers, {in_flight}, {'one channel' if channels == 1 else f'{channels} channels a socket'}",
        [
            "",
            "deliveries/s",
            "ArtCafe to this",
            "CPU of a delivery, µs",
            "this to ArtCafe",
            "cores: server",
            "NATS",
            "load",
            "bytes",
        ],
    )
    for name in names:
        results = taken[name, window, channels]
        rates = [each.deliveries_per_s for each in results]
        ratio = statistics.median(a.deliveries_per_s / b.deliveries_per_s for a, b in zip(ours, results, strict=True))
        table.rows.append(
            (
                name,
                f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})",
                f"{ratio:.2f}×",
                f"{statistics.median(each.cpu_us for each in results):.2f}",
                f"{statistics.median(b.cpu_us / a.cpu_us for a, b in zip(ours, results, strict=True)):.2f}×",
                f"{statistics.median(each.cores[0] for each in results):.2f}",
                f"{statistics.median(each.cores[1] for each in results):.2f}" if len(results[0].cores) > 1 else "",
                f"{statistics.median(each.load_cores for each in results):.2f}",
                f"{results[0].bytes:.0f}",
            )
        )
    return table
