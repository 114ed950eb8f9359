"""Round trips of requests between two agents, and of nats-py's `request` on core NATS, on the same nats-server.

One side asks and keeps 1, 16 or 64 requests of 200 bytes waiting; the other one answers each with the same data. Both run in this
process, and take turns within each round. Everything else is in other processes.

* gateway: two raw sockets at one server: the request goes through its memory alone.
* two servers: the same with the sockets at two servers of a fleet: the request and its answer go over core NATS.
* SDK: `await agent.ask(…)` and `@agent.on_request`, at one server.
* nats-py: `await client.request(…)` and a subscription with a callback that responds, of two clients.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from artcafe.sdk.agent import Agent
from artcafe.sdk.keys import load_signer
from artcafe.sdk.requests import Request
from bench import report
from bench.bench_env import UNBOUNDED, BenchEnv, bench_env
from bench.publish import DATA
from bench.raw_client import RawSocket, connect, masked
from bench.report import Options, Sample, Table
from tests.fleet import running_fleet
from tests.platform import Cast, Platform

WAITING: Final = (1, 16, 64)
WARM_UP_S: Final = 0.2
PRESENCE_S: Final = 5.0
NATS_PY: Final = "nats-py"

RoundTrip = Callable[[], Awaitable[object]]


async def run(options: Options) -> list[Table]:
    """Return the rates and durations of round trips."""
    taken: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    options.folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        env = await stack.enter_async_context(bench_env(options))
        folder = stack.enter_context(TemporaryDirectory(prefix="artcafe-fleet-", dir=options.folder))
        fleet = stack.enter_context(running_fleet(Path(folder), flags=UNBOUNDED, python=sys.executable))
        cast, elsewhere = await env.platform.tenant_with(agents=2, channels=0), await fleet.tenant_with(agents=2, channels=0)
        ways: dict[str, RoundTrip] = {
            "gateway": await _sockets(env.platform, env.platform, cast),
            "two servers": await _sockets(fleet.servers[0], fleet.servers[1], elsewhere),
            "SDK": await _agents(env, stack),
            NATS_PY: await _nats_py(env, stack),
        }
        for number, waiting in itertools.product(range(options.rounds + 1), WAITING):
            for name, way in random.sample(list(ways.items()), len(ways)):
                sample = await _sample(way, waiting, options.seconds if number else WARM_UP_S)
                if number:
                    taken[name, waiting].append(sample)
    return [_table(options, taken, list(ways))]


def _table(options: Options, taken: dict[tuple[str, int], list[Sample]], names: list[str]) -> Table:
    table = Table(
        "Round trips of requests",
        ["by", "waiting", "requests/s", "p50 / p99, ms", "p50 to nats-py's"],
        [f"Medians of {options.rounds} rounds of {options.seconds:g} s; ratios within each round."],
    )
    for waiting, name in itertools.product(WAITING, names):
        samples = taken[name, waiting]
        pairs = zip(samples, taken[NATS_PY, waiting], strict=True)
        ratio = statistics.median(one.quantile_ms(0.5) / other.quantile_ms(0.5) for one, other in pairs)
        cells = report.median_rate(samples), report.median_latency(samples), f"{ratio:.2f}×"
        table.rows.append((name, str(waiting), *cells))
    return table


async def _sample(ask: RoundTrip, waiting: int, seconds: float) -> Sample:
    """Keep this many round trips waiting for this long."""
    latencies: list[float] = []
    begun = time.perf_counter()

    async def keep_asking() -> None:
        while (started := time.perf_counter()) < begun + seconds:
            await ask()
            latencies.append(time.perf_counter() - started)

    async with asyncio.TaskGroup() as group:
        for _ in range(waiting):
            group.create_task(keep_asking())
    return Sample(len(latencies), time.perf_counter() - begun, latencies)


# --- raw sockets -------------------------------------------------------------------------------------------------------


async def _sockets(asking: Platform, answering: Platform, cast: Cast) -> RoundTrip:
    asker, answerer = [
        await connect(server.gateway_url, cast.tenant, await _token(server, cast, number))
        for number, server in enumerate((asking, answering))
    ]
    answerer.on_frame = lambda frame: _answer(answerer, frame)
    pair = SocketPair(asker, cast.agents[1])
    async with asyncio.timeout(PRESENCE_S):
        while b'"error"' in await pair.answer():  # noqa: ASYNC110 (the presence of the agent arrives a moment later)
            await asyncio.sleep(0.02)
    return pair.ask


async def _token(server: Platform, cast: Cast, number: int) -> str:
    async with cast.rest() as rest:
        rest.token = None
        return (await rest.login(cast.tenant, cast.agents[number], load_signer(cast.keys[number]))).access_token


def _answer(line: RawSocket, frame: bytes) -> None:
    """Answer a pushed request with its own data, without parsing."""
    if frame.startswith(b'{"request"'):
        request_id = frame[frame.index(b'"ask_') : frame.index(b'","from"') + 1]
        data = frame[frame.index(b'"data":') : -2]
        line.transport.write(masked(b'{"id":1,"reply":{"request_id":%b,%b}}' % (request_id, data)))


class SocketPair:
    """Sends requests on one socket, and matches the answers by their ids."""

    def __init__(self, line: RawSocket, agent: str) -> None:
        self._line = line
        self._body = b',"request":{"agent":"%b","data":%b}}' % (agent.encode(), DATA)
        self._ids = 10
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        line.on_frame = self._on_frame

    async def ask(self) -> None:
        """Send a request, and wait for its answer. Raise `RuntimeError` for an error."""
        frame = await self.answer()
        if b'"error"' in frame:
            raise RuntimeError(frame.decode())

    async def answer(self) -> bytes:
        """Send a request, and return the frame of its answer or error."""
        self._ids += 1
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[self._ids] = answer
        self._line.transport.write(masked(b'{"id":%d%b' % (self._ids, self._body)))
        return await answer

    def _on_frame(self, frame: bytes) -> None:
        if frame.startswith(b'{"id":'):
            self._waiting.pop(int(frame[6 : frame.index(b",")])).set_result(frame)


# --- the SDK, and nats-py ----------------------------------------------------------------------------------------------


async def _agents(env: BenchEnv, stack: AsyncExitStack) -> RoundTrip:
    cast = await env.platform.tenant_with(agents=2, channels=0)
    answerer: Agent = cast.agent(1)
    answerer.on_request(_same)
    await stack.enter_async_context(answerer)
    asker: Agent = await stack.enter_async_context(cast.agent(0))
    data = DATA.decode()[1:-1]
    return lambda: asker.ask(cast.agents[1], data)


def _same(request: Request) -> object:
    return request.data


async def _nats_py(env: BenchEnv, stack: AsyncExitStack) -> RoundTrip:
    asker, answerer = [await stack.enter_async_context(env.nats_py("bench-requests")) for _ in range(2)]

    async def respond(msg: Msg) -> None:
        await msg.respond(msg.data)

    await answerer.subscribe("ask", cb=respond)
    await answerer.flush()
    return lambda: _request(asker)


async def _request(client: Client) -> object:
    return await client.request("ask", DATA, timeout=30)
