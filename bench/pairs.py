"""Two versions of the server under the same load, in turns: rates and processor time as the ratios of pairs.

`--against PYTHON` names the interpreter of another checkout's virtual environment. Its `artcafe up` and this checkout's both run,
each with a nats-server of its own, and only the server being measured has work. In each pair the order is random, so that other
work on the machine slows both alike, and each version is started first in half of the rounds. Both get their load from this
checkout's clients.

* publish: 1, 16 and 256 stored publishes waiting, on one socket and spread over 16.
* fan-out: 1,000 subscribers, with 64 messages in flight and with one, on one channel and on ten.
* backlog: 20,000 stored messages, read by a new socket.
* login: agents over REST and on a socket, one and 16 at a time.

`--only fan-out` measures that kind alone.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from artcafe.model import ChannelId
from bench import deliver, login, publish
from bench.bench_env import BenchEnv, bench_env
from bench.fanout.load import LoadGenerator, SocketGroup
from bench.fanout.servers import ArtCafe
from bench.raw_client import Publisher
from bench.readers import Order
from bench.report import Options, Sample, Table, process_seconds

KINDS: Final = ("publish", "fan-out", "backlog", "login")
READERS: Final = 1000
FANOUT_S: Final = 0.8


@dataclass(frozen=True, slots=True)
class Measured:
    """One measured interval: the rate per second, and the processor time of each in seconds."""

    rate: float
    server_s: float
    nats_s: float


Work = Callable[[], Awaitable[Measured]]


class Server:
    """One version's server, and the kinds of work it can be given, by name."""

    def __init__(self, env: BenchEnv, load: LoadGenerator, stack: AsyncExitStack, options: Options) -> None:
        self._env, self._load, self._stack, self._seconds = env, load, stack, options.seconds
        self.lines: list[SocketGroup] = []
        self.works: dict[str, Work] = {}

    async def prepare(self, kinds: Sequence[str], others: list[SocketGroup]) -> None:
        """Create the objects that each kind of work needs. `others` are the other server's sockets: connecting takes longer than
        its pings allow them to be silent."""
        if "publish" in kinds:
            await self._prepare_publish()
        if "fan-out" in kinds:
            await self._prepare_fanout(others)
        if "backlog" in kinds:
            await self._prepare_backlog()
        if "login" in kinds:
            await self._prepare_login()

    async def _prepare_publish(self) -> None:
        cast = await self._env.platform.tenant_with(agents=1, channels=1, subscribed=False)
        token = await self._env.token(cast)
        publishers = [Publisher(await self._env.line(cast, token), cast.channels[0], publish.DATA) for _ in range(16)]
        for sockets, way in ((1, publish.over_gateway(publishers[:1])), (16, publish.over_gateway(publishers))):
            for waiting in (1, 16, 256):
                name = f"publish, {waiting} waiting, {sockets} socket{'s'[: sockets - 1]}"
                self.works[name] = partial(self._measure, partial(way, waiting, self._seconds))

    async def _prepare_fanout(self, others: list[SocketGroup]) -> None:
        cast = await self._env.platform.tenant_with(agents=3, channels=0)
        peer = ArtCafe(self._env, cast)
        for channels in (1, 10):
            line = await peer.open_group(READERS, channels)
            self._stack.callback(line.close)
            self.lines.append(line)
            for each in (*others, *self.lines):
                each.keep_alive()
            for window in (64, 1):
                name = f"fan-out, {window} in flight, {channels} channel{'s'[: channels - 1]}"
                self.works[name] = partial(self._fan_out, line, window)

    async def _fan_out(self, line: SocketGroup, window: int) -> Measured:
        result = await self._load.run(line, "window", window, FANOUT_S)
        server, nats = (cores / result.deliveries_per_s for cores in result.cores)
        return Measured(result.deliveries_per_s, server, nats)

    async def _prepare_backlog(self) -> None:
        cast, publisher, token = await deliver.publishing_tenant(self._env)
        await deliver.publish_all(publisher, deliver.BACKLOG)
        channel = ChannelId(cast.channels[0])
        order = Order(self._env.platform.gateway_url, cast.tenant, token, channel, deliver.BACKLOG, 1, from_first=True)
        self.works["backlog"] = partial(self._measure, partial(deliver.by_gateway, order))

    async def _prepare_login(self) -> None:
        crowd = login.Crowd(self._env, await self._env.platform.tenant_with(agents=login.AGENTS, channels=0))
        for count in (1, 16):
            self.works[f"login over REST, {count} at once"] = partial(self._measure, partial(self._rest_logins, crowd, count))
            self.works[f"login on a socket, {count} at once"] = partial(self._measure, partial(self._socket_logins, crowd, count))

    async def _rest_logins(self, crowd: login.Crowd, count: int) -> Sample:
        connections = [await login.Http.open(self._env.platform.url) for _ in range(count)]
        try:
            return await login.sample([partial(crowd.over_rest, each) for each in connections], self._seconds)
        finally:
            for each in connections:
                each.close()

    async def _socket_logins(self, crowd: login.Crowd, count: int) -> Sample:
        try:
            return await login.sample([crowd.on_a_socket] * count, self._seconds)
        finally:
            crowd.leave()

    async def _measure(self, work: Callable[[], Awaitable[Sample]]) -> Measured:
        platform = self._env.platform
        assert platform.process is not None
        pids = (platform.process.pid, platform.nats_pid)
        before = [process_seconds(pid) for pid in pids]
        sample = await work()
        server, nats = (process_seconds(pid) - start for pid, start in zip(pids, before, strict=True))
        return Measured(sample.rate, server / sample.count, nats / sample.count)


async def run(options: Options) -> list[Table]:
    """Return one table: the other version's figure, this version's, and the median ratio of the pairs."""
    if options.against is None:
        raise RuntimeError("pairs compares with another version: name its interpreter, --against ../before/.venv/bin/python")
    kinds = options.only or KINDS
    if unknown := set(kinds) - set(KINDS):
        raise RuntimeError(f"unknown kind of work {', '.join(sorted(unknown))}; pairs measures {', '.join(KINDS)}")
    taken: dict[tuple[str, int], list[Measured]] = defaultdict(list)
    names: list[str] = []
    # Of two equal servers, the one started first has up to 1.1 times the fan-out: each version is first in half of the rounds.
    for order, rounds in (((0, 1), options.rounds - options.rounds // 2), ((1, 0), options.rounds // 2)):
        if rounds:
            names = await _run_rounds(options, kinds, order, rounds, taken)
    return [_table(names, taken, options)]


async def _run_rounds(
    options: Options, kinds: Sequence[str], order: tuple[int, int], rounds: int, taken: dict[tuple[str, int], list[Measured]]
) -> list[str]:
    """Start both versions in this order, 0 being the other one, measure them in pairs, and return the kinds of work."""
    assert options.against is not None, "run has checked it"
    pythons = options.against, Path(sys.executable)
    async with AsyncExitStack() as stack:
        load = await stack.enter_async_context(LoadGenerator())
        servers: dict[int, Server] = {}
        for side in order:
            server = Server(await stack.enter_async_context(bench_env(options, pythons[side])), load, stack, options)
            await server.prepare(kinds, [line for other in servers.values() for line in other.lines])
            servers[side] = server
        names = list(servers[0].works)
        for number in range(rounds + 1):
            for name in random.sample(names, len(names)):
                for side in random.sample((0, 1), 2):
                    for line in (line for server in servers.values() for line in server.lines):
                        line.keep_alive()
                    measured = await servers[side].works[name]()
                    if number:  # the first round only warms up
                        taken[name, side].append(measured)
        return names


def _table(names: list[str], taken: dict[tuple[str, int], list[Measured]], options: Options) -> Table:
    table = Table(
        "This version against another",
        ["", "a second: before", "now", "now to before", "server CPU of each, µs: before", "now", "now to before", "NATS CPU"],
        [f"Medians of {options.rounds} rounds. A ratio is the median of the pairs' ratios, in brackets the lowest and highest."],
    )
    for name in names:
        before, now = taken[name, 0], taken[name, 1]
        rates = [[each.rate for each in side] for side in (before, now)]
        server = [[each.server_s * 1e6 for each in side] for side in (before, now)]
        nats = [[each.nats_s for each in side] for side in (before, now)]
        table.rows.append(
            (
                name,
                *(f"{statistics.median(side):,.0f}" for side in rates),
                _ratio(*rates),
                *(f"{statistics.median(side):.2f}" for side in server),
                _ratio(*server),
                _ratio(*nats),
            )
        )
    return table


def _ratio(before: list[float], now: list[float]) -> str:
    ratios = [second / first for first, second in zip(before, now, strict=True) if first]
    return f"{statistics.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else "–"
