"""Messages of one queue a second, each acknowledged: sockets of the gateway, nats-py on the same nats-server, and redis streams.

A backlog of messages of 200 bytes is shared by 1, 4 and 16 workers, each with a window of 64; the time ends when every message
was acknowledged by one worker. Workers run in a process of their own. They take turns within each round.

* gateway: raw sockets, which acknowledge each message by a frame of its own.
* nats-py: pull consumers of one durable consumer with explicit acks, `fetch(64)` and `await message.ack()` of each, on the same
  log.
* redis: a consumer group, `XREADGROUP COUNT 64` and an `XACK` of each, sent together; `appendfsync everysec`.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
from ulid import ULID

from artcafe.data_dir import read_secret
from artcafe.model import ChannelId
from artcafe.rules import subjects
from artcafe.rules.secrets import derive
from bench import report
from bench.bench_env import BenchEnv, bench_env
from bench.deliver import publish_all
from bench.publish import DATA
from bench.queue_workers import GROUP, WorkOrder, resp
from bench.raw_client import Publisher, RawSocket
from bench.report import Options, Sample, Table
from tests.platform import Cast

WORKERS: Final = (1, 4, 16)
WINDOW: Final = 64
MESSAGES: Final = 12_000
START_S: Final = 10.0


async def run(options: Options) -> list[Table]:
    """Return the table."""
    taken: dict[tuple[int, str], list[Sample]] = defaultdict(list)
    async with bench_env(options) as env, _redis(options) as redis:
        cast = await env.platform.tenant_with(agents=2, channels=0)
        line = await env.line(cast, await env.token(cast, 0))
        for number in range(options.rounds + 1):
            for workers in WORKERS:
                for order in await _orders(env, cast, line, redis, workers):
                    sample = await _worked(order)
                    if number:
                        taken[workers, order.kind].append(sample)
    return [_table(options, taken, has_redis=redis is not None)]


def _table(options: Options, taken: dict[tuple[int, str], list[Sample]], *, has_redis: bool) -> Table:
    kinds = ("gateway", "nats", *(("redis",) if has_redis else ()))
    table = Table(
        "Messages of a queue, each acknowledged",
        ["workers", "by", "messages/s", "the gateway's rate to this"],
        [f"Medians (lowest–highest) of {options.rounds} rounds of {MESSAGES:,} messages; ratios within each round."],
    )
    for workers in WORKERS:
        for kind in kinds:
            samples = taken[workers, kind]
            ratio = report.median_ratio(taken[workers, "gateway"], samples)
            table.rows.append((str(workers), kind, report.median_rate(samples), ratio))
    return table


async def _orders(env: BenchEnv, cast: Cast, line: RawSocket, redis: int | None, workers: int) -> list[WorkOrder]:
    """Fill a new queue, and return the work on it, of each kind."""
    async with cast.rest() as rest:
        channel = (await rest.tenant(cast.tenant).channels.create("queue", type="queue")).id
    await publish_all(Publisher(line, channel, DATA), MESSAGES)
    shared: dict[str, Any] = {"expected": MESSAGES, "workers": workers, "window": WINDOW, "tenant": cast.tenant}
    secret = derive(read_secret(env.platform.data / "secret"), "nats")
    token = await env.token(cast, 1)
    found = [
        WorkOrder("gateway", env.platform.gateway_url, channel, token=token, **shared),
        WorkOrder("nats", env.nats_url, subjects.stored(ChannelId(channel)), secret=secret, durable=str(ULID()), **shared),
    ]
    if redis is not None:
        await _fill(redis, channel)
        found.append(WorkOrder("redis", f"127.0.0.1:{redis}", channel, **shared))
    return found


async def _worked(order: WorkOrder) -> Sample:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.queue_workers", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(order))
    process.stdin.close()
    await process.stdout.readline()
    done: dict[str, Any] = msgspec.json.decode(await process.stdout.readline())
    await process.wait()
    if done["count"] != order.expected or done["repeats"]:
        raise RuntimeError(f"{order.expected} messages of {order.kind} were expected once, and done was {done}")
    return Sample(order.expected, done["seconds"])


# --- redis -------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _redis(options: Options) -> AsyncIterator[int | None]:
    """Run redis-server on a free port, which is returned, or None where it is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with TemporaryDirectory(prefix="redis-bench-", dir=options.folder) as folder:
        arguments = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        process = await asyncio.create_subprocess_exec(
            program, *arguments, "--appendonly", "yes", "--appendfsync", "everysec", stdout=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(START_S):
                while not await _answers(port):  # noqa: ASYNC110 (redis is asked)
                    await asyncio.sleep(0.05)
            yield port
        finally:
            process.terminate()
            await process.wait()


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _fill(port: int, key: str) -> None:
    """Add the messages to a stream with a group, with ids of 1-0, 2-0 and so on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    name = key.encode()
    writer.write(resp(b"XGROUP", b"CREATE", name, GROUP.encode(), b"0", b"MKSTREAM"))
    for at in range(1, MESSAGES + 1):
        writer.write(resp(b"XADD", name, b"%d-0" % at, b"d", DATA))
    await writer.drain()
    answers = 0
    while answers < 2 * MESSAGES + 1:
        answers += (await reader.read(1 << 16)).count(b"\r\n")
    writer.close()
