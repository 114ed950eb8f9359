"""Two server processes against one: logins a second, and the fan-out to 1,000 sockets, beside nats-server's WebSocket and redis.

Both platforms run at the same time and are measured in turns. The load shares the machine's processors with what it measures: of
two processors, two server processes have what the load, nats-server and the supervisor leave. So each row says how many
processors each used, and what a delivery or a login costs.
"""

from __future__ import annotations

import os
import random
import statistics
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Final, NamedTuple

from bench.bench_env import BenchEnv, bench_env
from bench.fanout.load import LoadGenerator, Measurement, SocketGroup
from bench.fanout.servers import NO_REDIS, ArtCafe, FanoutServer, nats_web_socket, redis
from bench.login import AGENTS, Crowd, Http, Login, sample
from bench.report import Options, Sample, Table, cpu_seconds, median_latency, median_rate, median_ratio

PROCESSES: Final = 2
READERS: Final = 1000
WINDOWS: Final = (64, 1)
SECONDS: Final = 0.8
AT_ONCE: Final = 16

ONE, SEVERAL = "one process", f"{PROCESSES} processes"


async def run(options: Options) -> list[Table]:
    """A table for the logins, and one for each window of the fan-out."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(bench_env(options))
        several = await stack.enter_async_context(bench_env(options, flags=["--processes", str(PROCESSES)]))
        platforms = {ONE: one, SEVERAL: several}
        logins = await _logins(platforms, options)
        return [logins, *await _fan_out(platforms, options, stack)]


# --- logins ----------------------------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """The logins of a stretch of time, and the processors that were busy with them."""

    sample: Sample
    server: float
    mine: float


async def _logins(platforms: dict[str, BenchEnv], options: Options) -> Table:
    crowds = {name: Crowd(on, await on.platform.tenant_with(agents=AGENTS, channels=0)) for name, on in platforms.items()}
    https = {name: [await Http.open(on.platform.url) for _ in range(AT_ONCE)] for name, on in platforms.items()}
    taken: dict[tuple[str, str], list[Cost]] = defaultdict(list)
    for _ in range(options.rounds):
        for name in random.sample(list(platforms), len(platforms)):
            crowd, pids = crowds[name], platforms[name].server_pids()
            rest: list[Login] = [partial(crowd.over_rest, http) for http in https[name]]
            taken["over REST", name].append(await _cost(pids, partial(sample, rest, options.seconds)))
            on_sockets = partial(sample, [crowd.on_a_socket] * AT_ONCE, options.seconds)
            taken["on a socket", name].append(await _cost(pids, on_sockets))
            crowd.leave()
    for each in (http for opened in https.values() for http in opened):
        each.close()
    return _login_table(taken, options)


async def _cost(pids: list[int], measured: Callable[[], Awaitable[Sample]]) -> Cost:
    server, mine = sum(map(cpu_seconds, pids)), cpu_seconds(os.getpid())
    found = await measured()
    return Cost(found, sum(map(cpu_seconds, pids)) - server, cpu_seconds(os.getpid()) - mine)


def _login_table(taken: dict[tuple[str, str], list[Cost]], options: Options) -> Table:
    table = Table(
        f"Logins, {AT_ONCE} at once",
        ["", "logins/s", f"{SEVERAL} to this", "p50 / p99, ms", "CPU of a login, ms", "cores: servers", "load"],
        [f"Medians (lowest–highest) of {options.rounds} rounds, in turns. The load is this process, on one processor."],
    )
    for (road, name), costs in taken.items():
        samples = [each.sample for each in costs]
        several = [each.sample for each in taken[road, SEVERAL]]
        table.rows.append(
            [
                f"{road}, {name}",
                median_rate(samples),
                median_ratio(several, samples),
                median_latency(samples),
                f"{statistics.median(1000 * each.server / each.sample.count for each in costs):.2f}",
                f"{statistics.median(each.server / each.sample.seconds for each in costs):.2f}",
                f"{statistics.median(each.mine / each.sample.seconds for each in costs):.2f}",
            ]
        )
    return table


# --- the fan-out -----------------------------------------------------------------------------------------------------------


async def _fan_out(platforms: dict[str, BenchEnv], options: Options, stack: AsyncExitStack) -> list[Table]:
    load = await stack.enter_async_context(LoadGenerator())
    servers: dict[str, FanoutServer] = {}
    for name, on in platforms.items():
        servers[name] = ArtCafe(on, await on.platform.tenant_with(agents=2, channels=0))
    servers["nats-server WebSocket"] = await stack.enter_async_context(nats_web_socket(options.folder))
    pubsub = await stack.enter_async_context(redis(options.folder))
    if pubsub is not None:
        servers[pubsub.name] = pubsub
    groups: dict[str, SocketGroup] = {}
    for name, server in servers.items():
        group = groups[name] = await server.open_group(READERS, 1)
        stack.callback(group.close)
    taken: dict[tuple[int, str], list[Measurement]] = defaultdict(list)
    for _ in range(options.rounds):
        for window in WINDOWS:
            for name in random.sample(list(groups), len(groups)):
                for each in groups.values():
                    each.keep_alive()
                taken[window, name].append(await load.run(groups[name], "window", window, max(SECONDS, options.seconds)))
    tables = [_fan_out_table(window, {name: taken[window, name] for name in groups}, options) for window in WINDOWS]
    if pubsub is None:
        tables[-1].notes = [NO_REDIS]
    return tables


def _fan_out_table(window: int, taken: dict[str, list[Measurement]], options: Options) -> Table:
    table = Table(
        f"{READERS:,} subscribers of one channel, {'one at a time' if window == 1 else f'{window} under way'}",
        ["", "deliveries/s", f"{SEVERAL} to this", "CPU of a delivery, µs", "cores: servers", "NATS", "load"],
        [f"Medians (lowest–highest) of {options.rounds} rounds, in turns. The load is one process of its own."],
    )
    for name, results in taken.items():
        rates = [each.deliveries_per_s for each in results]
        ratios = [a.deliveries_per_s / b.deliveries_per_s for a, b in zip(taken[SEVERAL], results, strict=True)]
        nats = [each.cores[1] if len(each.cores) > 1 else 0.0 for each in results]
        servers = [each.all_cores - of_nats for each, of_nats in zip(results, nats, strict=True)]
        table.rows.append(
            [
                name,
                f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})",
                f"{statistics.median(ratios):.2f}×",
                f"{statistics.median(each.cpu_us for each in results):.2f}",
                f"{statistics.median(servers):.2f}",
                f"{statistics.median(nats):.2f}" if any(nats) else "",
                f"{statistics.median(each.load_cores for each in results):.2f}",
            ]
        )
    return table
