"""Stored publishes a second, each flushed to disk before it is answered: ArtCafe, nats-py alone, and nats-server's limit.

Every way keeps 1, 4, 16 or 256 publishes of 200 bytes waiting and sends the next when one is answered, on one nats-server with
`sync_interval: always`. They take turns within each round, in a changing order, so that other work on the machine affects all
alike.

* nats-py: `await js.publish(…)` in as many tasks as wait, to a stream with nothing but subjects; with and without an id.
* group commit: the log writer's `submit` in as many tasks as wait, as a server calls it; with and without a key.
* end to end: `artcafe up` in a separate process, the publishes spread over 1 or 16 raw WebSockets from this one. Three processes
  share the cores then, including this client.
* the least gateway: the same client and log writer with a server between them that does only what no gateway in Python can leave
  out (`bench.least_gateway`): how much processor time of `artcafe up` is for checks, limits, metrics and ids.
* nats-server alone: the messages of group commit (a batch, or a few in a row) encoded in one go, one group after another, on a
  bare socket. No client that works this way can be faster, so it distinguishes a slow machine from a slow program.
* the disk alone: the flushes that the same groups cause in nats-server 2.15, made by this process in the same folder and nothing
  else: for a batch two small new files and their folder, the staged batch, and the log; for a few messages the log each time. On
  a file system that flushes at no cost (`--folder /dev/shm/bench`) the remaining costs show.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import random
import shutil
import sys
import time
from asyncio.subprocess import Process
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import msgspec
from nats.js import JetStreamContext

from artcafe.fabric.log_writer import SMALL_GROUP
from artcafe.fabric.nats.client import OutgoingMessage
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.model import ChannelId, TenantId
from artcafe.rules import subjects
from artcafe.wire import envelopes, frames
from bench import report
from bench.bench_env import BenchEnv, bench_env
from bench.raw_client import Publisher, connect
from bench.report import Options, Sample, Table

WAITING: Final = (1, 4, 16, 256)
DATA: Final = b'"%b"' % (b"x" * 198)
WARM_UP_S: Final = 0.2

Way = Callable[[int, float], Awaitable[Sample]]
"""Publishes with this many waiting for this many seconds."""

Taken = dict[tuple[str, int], list[Sample]]
"""The samples of each way and number of waiting publishes."""


class Used(NamedTuple):
    """Processor time in seconds, by process, and the number of messages it was used for."""

    client: float
    server: float
    nats: float
    messages: int = 0

    @classmethod
    def by(cls, env: BenchEnv, least: Process) -> Used:
        """Return the time used until now. Of `artcafe up` and the least gateway one works at a time."""
        assert env.platform.process is not None
        server = report.cpu_seconds(env.platform.process.pid) + report.cpu_seconds(least.pid)
        return cls(time.process_time(), server, report.cpu_seconds(env.platform.nats_pid))

    def since(self, before: Used, messages: int) -> Used:
        """Return the time used since then, for this many messages."""
        return Used(self.client - before.client, self.server - before.server, self.nats - before.nats, messages)


NATS_PY: Final = "nats-py alone"
LIMIT: Final = "nats-server alone"
DISK: Final = "the disk alone"


async def run(options: Options) -> list[Table]:
    """Return rates, ratios, latencies and processor time of every way."""
    taken: Taken = defaultdict(list)
    used: dict[str, list[Used]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        env = await stack.enter_async_context(bench_env(options))
        least = await stack.enter_async_context(_least_gateway(env, "bench-least"))
        ways = await _ways(env, least, stack)
        turns, numbers = list(ways.items()), list(WAITING)
        for number in range(options.rounds + 1):
            random.shuffle(turns)
            random.shuffle(numbers)
            for waiting, (name, way) in itertools.product(
                numbers, turns
            ):  # ways with the same number waiting are measured one right after the other
                before = Used.by(env, least)
                sample = await way(waiting, options.seconds if number else WARM_UP_S)
                if number:
                    taken[name, waiting].append(sample)
                if number and waiting == WAITING[-1]:
                    used[name].append(Used.by(env, least).since(before, sample.count))
    names = list(ways)
    return [_rates(taken, names), _ratios(taken, names), _latencies(taken, names), _processors(used, names)]


async def _ways(env: BenchEnv, least: Process, stack: AsyncExitStack) -> dict[str, Way]:
    js = (await stack.enter_async_context(env.nats_py("bench-nats-py"))).jetstream()
    await js.add_stream(name="plain", subjects=["ch.>"])
    bare = await stack.enter_async_context(_bare_nats(env, "bench-limit"))
    cast = await env.platform.tenant_with(agents=1, channels=1, subscribed=False)
    token = await env.token(cast)
    publishers = [Publisher(await env.line(cast, token), cast.channels[0], DATA) for _ in range(16)]
    assert least.stdout is not None
    port = int(await least.stdout.readline())
    beside = [Publisher(await connect(f"ws://127.0.0.1:{port}/", "", ""), cast.channels[0], DATA) for _ in range(16)]
    return {
        NATS_PY: _nats_py(js, keyed=False),
        f"{NATS_PY}, with ids": _nats_py(js, keyed=True),
        "group commit": _group_commit(await env.tenant_fabric("bench-ours"), keyed=False),
        "group commit, with keys": _group_commit(await env.tenant_fabric("bench-ours-keyed"), keyed=True),
        "end to end, 1 socket": over_gateway(publishers[:1]),
        "end to end, 16 sockets": over_gateway(publishers),
        "the least gateway, 1 socket": over_gateway(beside[:1]),
        "the least gateway, 16 sockets": over_gateway(beside),
        LIMIT: bare,
        DISK: _disk(stack.enter_context(TemporaryDirectory(prefix="flushes-", dir=env.platform.data))),
    }


async def _closed_loop(publish: Callable[[int], Awaitable[object]], waiting: int, seconds: float) -> Sample:
    """Run as many tasks as wait, each publishing again when it is answered."""
    latencies: list[float] = []
    numbers = itertools.count()
    start = time.perf_counter()

    async def publisher() -> None:
        while (begun := time.perf_counter()) - start < seconds:
            await publish(next(numbers))
            latencies.append(time.perf_counter() - begun)

    async with asyncio.TaskGroup() as group:
        for _ in range(waiting):
            group.create_task(publisher())
    return Sample(len(latencies), time.perf_counter() - start, latencies)


def _envelope() -> bytes:
    publish = frames.Publish("chn_01KARTC0000000000000000000", msgspec.Raw(DATA))
    return envelopes.envelope(
        publish,
        message_id="msg_01KARTC0000000000000000000",
        sender="agt_01KARTC0000000000000000000",
        time="2026-11-22T17:00:00.000Z",
    )


SUBJECT: Final = subjects.stored(ChannelId("chn_01KARTC0000000000000000000"))


def _nats_py(js: JetStreamContext, *, keyed: bool) -> Way:
    body, samples = _envelope(), itertools.count()

    async def way(waiting: int, seconds: float) -> Sample:
        sample = next(samples)

        async def publish(number: int) -> None:
            await js.publish(SUBJECT, body, headers={"Nats-Msg-Id": f"{sample}-{number}".zfill(32)} if keyed else None)

        return await _closed_loop(publish, waiting, seconds)

    return way


def _group_commit(tenant_fabric: TenantFabric, *, keyed: bool) -> Way:
    body, samples = _envelope(), itertools.count()

    async def way(waiting: int, seconds: float) -> Sample:
        sample = next(samples)

        async def publish(number: int) -> None:
            await tenant_fabric.writer.submit(SUBJECT, body, "msg_x", f"{sample}-{number}".zfill(32) if keyed else None)

        return await _closed_loop(publish, waiting, seconds)

    return way


def over_gateway(publishers: list[Publisher]) -> Way:
    """Return the way over the gateway: waiting publishes are spread over the publishers' sockets."""

    async def way(waiting: int, seconds: float) -> Sample:
        used = publishers[: min(waiting, len(publishers))]
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for publisher in used:
                group.create_task(publisher.run(waiting // len(used), lambda: time.perf_counter() - start < seconds))
        elapsed = time.perf_counter() - start
        latencies = [each for publisher in used for each in publisher.latencies_s]
        return Sample(len(latencies), elapsed, latencies)

    return way


@asynccontextmanager
async def _least_gateway(env: BenchEnv, tenant: str) -> AsyncIterator[Process]:
    await env.tenant_fabric(tenant)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.least_gateway", env.nats_url, env.platform.data, tenant, stdin=pipe, stdout=pipe
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


@asynccontextmanager
async def _bare_nats(env: BenchEnv, tenant: str) -> AsyncIterator[Way]:
    await (await env.tenant_fabric(tenant)).log.ensure()
    user = env.accounts.user(TenantId(tenant))
    host, port = env.nats_url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    nonce = json.loads((await reader.readline()).split(b" ", 1)[1])["nonce"]
    signature = base64.urlsafe_b64encode(base64.b64decode(user.signature_cb(nonce))).decode().rstrip("=")
    proof = {"jwt": user.user_jwt_cb().decode(), "sig": signature, "verbose": False, "headers": True, "no_responders": True}
    writer.write(b"CONNECT %b\r\nSUB _INBOX.bench 1\r\n" % json.dumps(proof).encode())
    body, numbers = _envelope(), itertools.count()

    async def way(waiting: int, seconds: float) -> Sample:
        latencies: list[float] = []
        start = time.perf_counter()
        while (begun := time.perf_counter()) - start < seconds:
            writer.write(_single(body) * waiting if waiting <= SMALL_GROUP else _batch(body, waiting, next(numbers)))
            for _ in range(waiting if waiting <= SMALL_GROUP else 1):
                while not (line := await reader.readline()).startswith(b"MSG"):
                    if line.startswith(b"PING"):
                        writer.write(b"PONG\r\n")
                answer = json.loads(await reader.readexactly(int(line.split()[-1]) + 2))
                assert "seq" in answer, answer
            latencies.append(time.perf_counter() - begun)
        return Sample(len(latencies) * waiting, time.perf_counter() - start, latencies)

    try:
        yield way
    finally:
        writer.close()


def _disk(folder: str) -> Way:
    """Make the flushes of nats-server 2.15 for a group, as strace shows them."""
    body, log = _envelope(), Path(folder) / "log"

    def group(waiting: int) -> None:
        if waiting <= SMALL_GROUP:
            for _ in range(waiting):
                _append(log, body)
            return
        staged = Path(folder) / "batch"
        staged.mkdir()
        for name in ("meta.inf", "meta.sum"):
            _append(staged / f"{name}.tmp", body)
            (staged / f"{name}.tmp").rename(staged / name)
            _flush_folder(staged)
        for file in (staged / "1.blk", log):
            _append(file, body * waiting)
        shutil.rmtree(staged)

    async def way(waiting: int, seconds: float) -> Sample:
        latencies: list[float] = []
        start = time.perf_counter()
        while (begun := time.perf_counter()) - start < seconds:
            await asyncio.to_thread(group, waiting)
            latencies.append(time.perf_counter() - begun)
        return Sample(len(latencies) * waiting, time.perf_counter() - start, latencies)

    return way


def _append(file: Path, data: bytes) -> None:
    with file.open("ab", buffering=0) as out:
        out.write(data)
        os.fsync(out.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _single(body: bytes) -> bytes:
    return b"PUB %b _INBOX.bench %d\r\n%b\r\n" % (SUBJECT.encode(), len(body), body)


def _batch(body: bytes, size: int, number: int) -> bytes:
    headers = [f"Nats-Batch-Id: {number}\r\nNats-Batch-Sequence: {position}\r\n" for position in range(1, size + 1)]
    last = OutgoingMessage(SUBJECT, f"{headers.pop()}Nats-Batch-Commit: 1\r\n", body)
    return b"".join([*(OutgoingMessage(SUBJECT, each, body).encoded() for each in headers), last.encoded("_INBOX.bench")])


def _rates(taken: Taken, ways: list[str]) -> Table:
    table = Table(
        "Stored publishes a second",
        ["", *(f"{waiting} waiting" for waiting in WAITING)],
        ["Median of the rounds (lowest–highest). 200 bytes of data, flushed to disk before the answer."],
    )
    table.rows = [(name, *(report.median_rate(taken[name, waiting]) for waiting in WAITING)) for name in ways]
    return table


def _ratios(taken: Taken, ways: list[str]) -> Table:
    table = Table(
        "The same as ratios",
        ["", *(f"{waiting} waiting: to nats-py, to the limit" for waiting in WAITING)],
        [f'Median of each round\'s ratio to "{NATS_PY}" and to "{LIMIT}" in the same round.'],
    )
    for name in ways:
        cells = [
            f"{report.median_ratio(taken[name, each], taken[NATS_PY, each])}, "
            f"{report.median_ratio(taken[name, each], taken[LIMIT, each])}"
            for each in WAITING
        ]
        table.rows.append((name, *cells))
    return table


def _latencies(taken: Taken, ways: list[str]) -> Table:
    table = Table(
        "Latency of a stored publish, p50 / p99 in ms",
        ["", *(f"{waiting} waiting" for waiting in WAITING)],
        ["Medians of the rounds. For the last two rows: of a whole group."],
    )
    table.rows = [(name, *(report.median_latency(taken[name, waiting]) for waiting in WAITING)) for name in ways]
    return table


def _processors(used: dict[str, list[Used]], ways: list[str]) -> Table:
    table = Table(
        f"Processor time of a stored publish with {WAITING[-1]} waiting, in µs",
        ["", "this process", "the server", "nats-server"],
        ["All rounds together. Other work on the machine affects these less than the rates."],
    )
    for name in ways:
        messages = sum(each.messages for each in used[name])
        spent = (sum(each[at] for each in used[name]) for at in range(3))
        table.rows.append((name, *(f"{seconds / messages * 1e6:.1f}" for seconds in spent)))
    return table
