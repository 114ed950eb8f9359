"""Workers of one queue in a separate process, which acknowledge each message: `python -m bench.queue_workers` with an order, as
JSON, on its stdin.

The raw workers of the gateway and of redis cost as little Python as possible: they find sequences in the bytes of their sockets.
Those of nats-py use its pull consumers as its documentation does: `fetch`, and `ack` of each message.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Literal, cast

import msgspec
import nats
import uvloop
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from artcafe.fabric.accounts import Accounts
from artcafe.fabric.tenant_log import STREAM
from artcafe.model import TenantId
from artcafe.wire import frames
from bench.raw_client import RawSocket, connect, masked

PATIENCE_S: Final = 30.0
"""After this time the counts are printed even if they are too low, which the caller detects."""
GROUP: Final = "workers"


class WorkOrder(msgspec.Struct):
    """The work: `expected` messages of one queue, shared by a number of workers, each with this window or size of a fetch."""

    kind: Literal["gateway", "nats", "redis"]
    url: str
    queue: str
    """The channel, the subject or the stream's key."""
    expected: int
    workers: int
    window: int
    tenant: str = ""
    token: str = ""
    secret: bytes = b""
    durable: str = ""


class Progress:
    """The messages acknowledged by all workers. `repeats` are those received more than once."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self.seen: set[int] = set()
        self.repeats = 0
        self.done = asyncio.Event()

    def add(self, seqs: list[int]) -> None:
        before = len(self.seen)
        self.seen.update(seqs)
        self.repeats += len(seqs) - (len(self.seen) - before)
        if len(self.seen) >= self._expected:
            self.done.set()


# --- the gateway -------------------------------------------------------------------------------------------------------

_HEAD: Final = re.compile(rb'\{"message":\{"channel":"[^"]+",(?:"channel_handle":"[^"]+",)?"seq":(\d+),"prev":null,"deliveries":')


class GatewayWorker(RawSocket):
    """One socket that acknowledges every message at once."""

    def __init__(self) -> None:
        super().__init__()
        self.progress: Progress | None = None
        self.channel = b""
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        if self.progress is None:
            super().data_received(data)
            return
        data = self._rest + data
        found = list(_HEAD.finditer(data))
        if not found:
            self._rest = data
            return
        self._rest = data[found[-1].end() :][-512:]
        seqs = [each[1] for each in found]
        self.transport.write(b"".join([masked(b'{"ack":{"channel":"%b","seq":%b}}' % (self.channel, seq)) for seq in seqs]))
        self.progress.add([int(seq) for seq in seqs])


async def _gateway(order: WorkOrder, progress: Progress, _group: asyncio.TaskGroup) -> Callable[[], Awaitable[None]]:
    sockets: list[GatewayWorker] = []
    for _ in range(order.workers):
        socket = await connect(order.url, order.tenant, order.token, GatewayWorker)
        assert isinstance(socket, GatewayWorker)
        socket.progress, socket.channel = progress, order.queue.encode()
        sockets.append(socket)

    async def begin() -> None:
        body = frames.Subscribe(order.queue, max_unacked=order.window)
        for socket in sockets:
            socket.transport.write(masked(frames.command("subscribe", body, 1)))

    return begin


# --- nats-py -----------------------------------------------------------------------------------------------------------


async def _nats(order: WorkOrder, progress: Progress, group: asyncio.TaskGroup) -> Callable[[], Awaitable[None]]:
    user = Accounts(order.secret, "prod").user(TenantId(order.tenant))
    client = await nats.connect(order.url, user_jwt_cb=user.user_jwt_cb, signature_cb=user.signature_cb)
    stream = client.jetstream()
    config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, deliver_policy=DeliverPolicy.ALL, ack_wait=36, max_ack_pending=65_536)
    pull = partial(stream.pull_subscribe, order.queue, durable=order.durable, stream=STREAM, config=config)
    pullers = [await pull() for _ in range(order.workers)]

    async def work(at: int) -> None:
        while not progress.done.is_set():
            try:
                messages = await pullers[at].fetch(order.window, timeout=1)
            except TimeoutError:
                continue
            for message in messages:
                await message.ack()
            progress.add([message.metadata.sequence.stream for message in messages])

    async def begin() -> None:
        for at in range(order.workers):
            group.create_task(work(at))

    return begin


# --- redis -------------------------------------------------------------------------------------------------------------

_ENTRY: Final = re.compile(rb"\*2\r\n\$\d+\r\n(\d+)-0\r\n")


class RedisWorker(asyncio.Protocol):
    """One connection that reads from a consumer group, and acknowledges every message at once, in the bytes of RESP."""

    def __init__(self, order: WorkOrder, progress: Progress, name: int) -> None:
        self._progress = progress
        self._key = order.queue.encode()
        count, key = b"%d" % order.window, self._key
        self._read = resp(b"XREADGROUP", b"GROUP", GROUP.encode(), b"w%d" % name, b"COUNT", count, b"STREAMS", key, b">")
        self._data = b""
        self._is_reading = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transport is one without declaring it

    def begin(self) -> None:
        self._is_reading = True
        self.transport.write(self._read)

    def data_received(self, data: bytes) -> None:
        """An answer to a read ends with the last entry's value; the answers to acks are integers."""
        self._data += data
        if not self._data.endswith(b"\r\n") or not self._is_whole():
            return
        data, self._data = self._data, b""
        ids = _ENTRY.findall(data)
        if ids:
            acks = [resp(b"XACK", self._key, GROUP.encode(), b"%b-0" % id) for id in ids]
            self._expected_acks = len(ids)
            self.transport.write(b"".join([*acks, self._read]))
            self._progress.add([int(id) for id in ids])

    _expected_acks = 0

    def _is_whole(self) -> bool:
        """Return whether the answers to the acks and to the read after them have arrived."""
        acks, data = 0, self._data
        while data.startswith(b":"):
            end = data.find(b"\r\n")
            acks, data = acks + 1, data[end + 2 :]
        if acks < self._expected_acks or not data:
            return False
        if data.startswith(b"*-1"):
            return True
        words = re.match(rb"\*1\r\n\*2\r\n\$\d+\r\n[^\r]+\r\n\*(\d+)\r\n", data)
        return words is not None and data.count(b"-0\r\n") == int(words[1])


def resp(*words: bytes) -> bytes:
    """Return a command in redis's protocol."""
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


async def _redis(order: WorkOrder, progress: Progress, _group: asyncio.TaskGroup) -> Callable[[], Awaitable[None]]:
    host, _, port = order.url.partition(":")
    workers: list[RedisWorker] = []
    for at in range(order.workers):
        _, worker = await asyncio.get_running_loop().create_connection(
            lambda at=at: RedisWorker(order, progress, at),  # type: ignore[misc]  # mypy infers no type for the default
            host,
            int(port),
        )
        workers.append(worker)

    async def begin() -> None:
        for worker in workers:
            worker.begin()

    return begin


KINDS: Final = {"gateway": _gateway, "nats": _nats, "redis": _redis}


async def work(order: WorkOrder) -> None:
    """Print `{}` when every worker is connected, and at the end the counts, with the duration of the work."""
    progress = Progress(order.expected)
    async with asyncio.TaskGroup() as group:
        begin = await KINDS[order.kind](order, progress, group)
        print("{}", flush=True)
        started = time.perf_counter()
        await begin()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await progress.done.wait()
        seconds = time.perf_counter() - started
        progress.done.set()
    await asyncio.sleep(0.2)  # the last acks
    print(json.dumps({"seconds": seconds, "count": len(progress.seen), "repeats": progress.repeats}), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(msgspec.json.decode(sys.stdin.buffer.read(), type=WorkOrder)))
