"""Fan-out at fixed rates to 100 subscribers: CPU cost and latency, compared with nats-server's WebSocket.

Messages carry the time at which they were due, so the latency includes any delay of the publisher behind a slow server. Stored
channels are published to on a socket of the gateway, with the cost of storing included: their rows are printed without a ratio.
"""

from __future__ import annotations

import itertools
import random
import statistics
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import Final

from bench.bench_env import bench_env
from bench.fanout.load import LoadGenerator, Measurement, SocketGroup
from bench.fanout.servers import ArtCafe, FanoutServer, nats_web_socket
from bench.report import Options, Table

READERS: Final = 100
RATES: Final = (100_000, 200_000, 1_000_000, 3_000_000)
STORED_RATES: Final = (100_000, 200_000, 1_000_000)
SECONDS: Final = 1.5


async def run(options: Options) -> list[Table]:
    """Return a table with a row for each rate and server, and a table of ratios."""
    async with AsyncExitStack() as stack:
        load = await stack.enter_async_context(LoadGenerator())
        env = await stack.enter_async_context(bench_env(options))
        cast = await env.platform.tenant_with(agents=2, channels=0)
        stored = await env.platform.tenant_with(agents=2, channels=0)
        servers: list[FanoutServer] = [
            ArtCafe(env, cast),
            await stack.enter_async_context(nats_web_socket(options.folder)),
            ArtCafe(env, stored, kind="broadcast", by_gateway=True),
        ]
        lines: dict[str, SocketGroup] = {}
        for server in servers:
            line = lines[server.name] = await server.open_group(READERS, 1)
            stack.callback(line.close)
        taken: dict[tuple[int, str], list[Measurement]] = defaultdict(list)
        rates, names = list(RATES), list(lines)
        for _ in range(options.rounds):
            random.shuffle(rates)
            random.shuffle(names)
            for rate, name in itertools.product(rates, names):  # servers take turns at each rate
                if name == servers[2].name and rate not in STORED_RATES:
                    continue
                for each in lines.values():
                    each.keep_alive()
                seconds = max(SECONDS, options.seconds)
                taken[rate, name].append(await load.run(lines[name], "rate", rate / READERS, seconds, may_lose=True))
    table = Table(
        f"{READERS} subscribers, one channel, at a rate",
        ["deliveries/s asked", "of", "given", "lost", "cores: all", "server", "NATS", "load", "p50, ms", "p99, ms"],
        [f"Medians of {options.rounds} rounds. p99 in brackets: lowest–highest."],
    )
    table.rows = [_row(rate, name, taken[rate, name]) for rate, name in itertools.product(RATES, lines) if taken[rate, name]]
    ours, theirs = (each.name for each in servers[:2])
    return [table, _ratios({rate: list(zip(taken[rate, ours], taken[rate, theirs], strict=True)) for rate in RATES})]


def _ratios(rounds: dict[int, list[tuple[Measurement, Measurement]]]) -> Table:
    """Return the ratios of both servers at the same rate, round by round."""
    table = Table(
        "ArtCafe, its nats-server included, to nats-server's WebSocket at the same rate",
        ["deliveries/s asked", "CPU of a delivery", "p50", "p99", "rounds with less CPU", "with a lower p99"],
        ["Median of each round's ratio: below 1 is less."],
    )
    for rate, pairs in rounds.items():
        cpu, p50, p99 = (
            statistics.median(a / b for a, b in each)
            for each in (
                [(ours.cpu_us, theirs.cpu_us) for ours, theirs in pairs],
                [(ours.p50_us, theirs.p50_us) for ours, theirs in pairs],
                [(ours.p99_us, theirs.p99_us) for ours, theirs in pairs],
            )
        )
        less = sum(ours.cpu_us < theirs.cpu_us for ours, theirs in pairs)
        lower = sum(ours.p99_us < theirs.p99_us for ours, theirs in pairs)
        table.rows.append(
            (f"{rate:,}", f"{cpu:.2f}×", f"{p50:.2f}×", f"{p99:.2f}×", f"{less} of {len(pairs)}", f"{lower} of {len(pairs)}")
        )
    return table


def _row(rate: int, name: str, results: list[Measurement]) -> tuple[str, ...]:
    p99 = [each.p99_us / 1000 for each in results]
    lost = sum(each.missing for each in results) / sum(each.published * READERS for each in results)
    return (
        f"{rate:,}",
        name,
        f"{statistics.median(each.deliveries_per_s for each in results):,.0f}",
        f"{lost:.2%}" if lost else "none",
        f"{statistics.median(each.all_cores for each in results):.2f}",
        f"{statistics.median(each.cores[0] for each in results):.2f}",
        f"{statistics.median(each.cores[1] for each in results):.2f}" if len(results[0].cores) > 1 else "",
        f"{statistics.median(each.load_cores for each in results):.2f}",
        f"{statistics.median(each.p50_us for each in results) / 1000:.2f}",
        f"{statistics.median(p99):.2f} ({min(p99):.2f}–{max(p99):.2f})",
    )
