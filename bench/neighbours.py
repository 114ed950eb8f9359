"""The effect of one busy agent on others: the latency of consecutive publishes, while an agent publishes on 8 sockets.

The busy agent keeps 1,024 publishes waiting on each of its sockets, from a separate process. The quiet agents publish a message,
wait for its answer, and publish the next: one agent of another tenant, and one of the busy agent's own. Three cases in turns:
without the busy agent, next to a process that only computes, and next to the busy agent; on a machine with few cores a computing
process costs latency too, which no server can avoid.
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
from bench.bench_env import BenchEnv, bench_env
from bench.raw_client import Publisher, connect
from bench.report import Options, Sample, Table
from tests.platform import Cast

SOCKETS: Final = 8
WAITING: Final = 1024
SETTLE_S: Final = 1.0
SAMPLE_S: Final = 4.0
DATA: Final = b'"%b"' % (b"x" * 198)


class Order(msgspec.Struct):
    """The busy agent's work until its stdin is closed."""

    url: str
    tenant: str
    token: str
    channel: str


async def publish_much(order: Order) -> None:
    """Publish on every socket until stdin ends. Print `{}` at the beginning, and at the end the number stored per second."""
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
    """Run the busy agent within this block; append its rate per second to `rates`."""
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
    """Run a process that occupies a core within this block."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def run(options: Options) -> list[Table]:
    """Return the latencies of both quiet agents in each case."""
    taken: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    rates: list[float] = []
    async with bench_env(options) as env:
        ours = await env.platform.tenant_with(agents=2, subscribed=False)
        theirs = await env.platform.tenant_with(subscribed=False)
        quiet = {"of another tenant": await quiet_agent(env, theirs), "of the same tenant": await quiet_agent(env, ours, 1)}
        order = Order(env.platform.gateway_url, ours.tenant, await env.token(ours), ours.channels[0])
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


async def quiet_agent(env: BenchEnv, cast: Cast, agent: int = 0) -> Publisher:
    """Connect an agent of the tenant on one socket."""
    return Publisher(await env.line(cast, await env.token(cast, agent)), cast.channels[0], DATA)


async def sample(publisher: Publisher) -> Sample:
    """Return the duration of each of several consecutive publishes."""
    start = time.perf_counter()
    await publisher.run(1, lambda: time.perf_counter() - start < SAMPLE_S)
    return Sample(len(publisher.latencies_s), time.perf_counter() - start, publisher.latencies_s)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(publish_much(msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)))
