"""Subscribers in a process of their own, which only count: `python -m bench.readers` with an order, as JSON, on its stdin.

A message is found by the text that its frame begins with, in whatever the socket gave at once, so that it costs a search in
memory and no Python. Still this process shares the cores with the server that it measures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import time
from typing import Final

import msgspec
import uvloop

from artcafe.wire import frames
from bench.wire import Line, connect, masked

MESSAGE: Final = b'{"message":{'
HEAD: Final = re.compile(rb'.*\{"message":\{"channel":"[^"]+","seq":(\d+),', re.DOTALL)
PATIENCE_S: Final = 30.0
"""Then what has come is told, for whoever ordered it to find that it is too little."""
RECENT_BYTES: Final = 512
"""Holds the head of the last message, if not all of it."""


class Order(msgspec.Struct):
    """What to read: `expected` messages of the channel on each of the sockets; `from_first`: those that it has."""

    url: str
    tenant: str
    token: str
    channel: str
    expected: int
    sockets: int
    from_first: bool = False


class Counter(Line):
    """One subscriber: how many messages came, and the sequence of the last."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.last_seq = 0
        self.done = asyncio.Event()
        self._expected = -1
        self._recent = b""

    def await_messages(self, expected: int) -> None:
        """From here on, only counts."""
        self._expected = expected

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits for more need not."""
        super().connection_lost(exc)
        self.done.set()

    def data_received(self, data: bytes) -> None:
        if self._expected < 0:
            super().data_received(data)
            return
        self.count += (self._recent[1 - len(MESSAGE) :] + data).count(MESSAGE)
        self._recent = (self._recent + data[-RECENT_BYTES:])[-RECENT_BYTES:]
        if self.count >= self._expected and (head := HEAD.match(self._recent)):
            self.last_seq = int(head[1])
            self.done.set()


async def read(order: Order) -> None:
    """Prints `{}` when everybody listens, and in the end what was read, with times on the clock that all processes share."""
    sockets: list[Counter] = []
    for _ in range(order.sockets):
        socket = await connect(order.url, order.tenant, order.token, Counter)
        assert isinstance(socket, Counter)
        socket.await_messages(order.expected)
        sockets.append(socket)
    begun = time.monotonic()
    if order.from_first:
        for socket in sockets:
            socket.transport.write(masked(frames.command("subscribe", frames.Subscribe(order.channel, start="first"), 1)))
    print("{}", flush=True)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            for socket in sockets:
                await socket.done.wait()
    ended = time.monotonic()
    sockets[0].transport.write(masked(frames.command("ack", frames.Ack(order.channel, sockets[0].last_seq))))
    last = {socket.last_seq for socket in sockets}
    print(json.dumps({"begun": begun, "ended": ended, "count": sum(each.count for each in sockets), "last": sorted(last)}))
    for socket in sockets:
        socket.transport.close()
    await asyncio.sleep(0)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(read(msgspec.json.decode(sys.stdin.buffer.read(), type=Order)))
