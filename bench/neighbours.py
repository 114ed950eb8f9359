"""What one busy agent costs others: the latency of publishes one after another, beside an agent that publishes on 8 sockets.

The busy agent keeps 1,024 publishes waiting on each of its sockets, from a process of its own. The quiet ones publish a message,
wait for its answer, and publish the next: one agent of another tenant, and one of the busy agent's own. Without the busy agent,
beside a process that only computes, and beside the busy agent, in turns: on a machine with few cores a process that computes
costs latency too, and no server can give that back.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

import msgspec
import uvloop

from bench import report
from bench.report import Options, Sample, Table
from bench.stage import Stage, stage
from bench.wire import Publisher, connect
from tests.platform import Cast

SOCKETS: Final = 8
WAITING: Final = 1024
SETTLE_S: Final = 1.0
SAMPLE_S: Final = 4.0
DATA: Final = b'"%b"' % (b"x" * 198)


class Order(msgspec.Struct):
    """What the busy agent is to do until its stdin is closed."""

    url: str
    tenant: str
    token: str
    channel: str


async def publish_much(order: Order) -> None:
    """Publish on every socket until stdin ends. Print `{}` when that begins, and in the end how many a second were stored."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), over.set)
    lines = [await connect(order.url, order.tenant, order.token) for _ in range(SOCKETS)]
    publishers = [Publisher(line, order.channel, DATA) for line in lines]
    begun = time.perf_counter()
    print("{}", flush=True)
    async with asyncio.TaskGroup() as group:
        for publisher in publishers:
            group.create_task(publisher.run(WAITING, lambda: not over.is_set()))
    stored = sum(len(publisher.latencies_s) for publisher in publishers)
    print(json.dumps({"rate": stored / (time.perf_counter() - begun)}))


@contextmanager
def busy(order: Order, rates: list[float]) -> Iterator[None]:
    """The busy agent publishes within; `rates` gains how many a second."""
    command = [sys.executable, "-m", "bench.neighbours"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        process.stdin.flush()
        process.stdout.readline()
        yield
        out, _ = process.communicate()
    rates.append(json.loads(out)["rate"])


@contextmanager
def computing() -> Iterator[None]:
    """A process takes a core within."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def run(options: Options) -> list[Table]:
    """Latencies of both quiet agents, each way."""
    taken: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    rates: list[float] = []
    async with stage(options) as here:
        ours = await here.platform.tenant_with(agents=2, subscribed=False)
        theirs = await here.platform.tenant_with(subscribed=False)
        quiet = {"of another tenant": await quiet_agent(here, theirs), "of the same tenant": await quiet_agent(here, ours, 1)}
        order = Order(here.platform.gateway_url, ours.tenant, await here.token(ours), ours.channels[0])
        ways: dict[str, Callable[[], AbstractContextManager[None]]] = {
            "alone": nullcontext,
            "beside a process that computes": computing,
            "beside the busy agent": lambda: busy(order, rates),
        }
        for _ in range(options.rounds):
            for way, begin in ways.items():
                with begin():
                    await asyncio.sleep(SETTLE_S)
                    for name, publisher in quiet.items():
                        taken[way, name].append(await sample(publisher))
    note = f"The busy agent stored {statistics.median(rates):,.0f} messages a second meanwhile."
    table = Table("Publishes one after another, p50 / p99 in ms", ["a quiet agent", *ways], [note])
    for name in quiet:
        table.rows.append([name, *(report.median_latency(taken[way, name]) for way in ways)])
    return [table]


async def quiet_agent(here: Stage, cast: Cast, agent: int = 0) -> Publisher:
    """An agent of the cast on one socket."""
    return Publisher(await here.line(cast, await here.token(cast, agent)), cast.channels[0], DATA)


async def sample(publisher: Publisher) -> Sample:
    """How long each publish took, one after another."""
    start = time.perf_counter()
    await publisher.run(1, lambda: time.perf_counter() - start < SAMPLE_S)
    return Sample(len(publisher.latencies_s), time.perf_counter() - start, publisher.latencies_s)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(publish_much(msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)))
