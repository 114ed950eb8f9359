"""Subscribers in a separate process, which only count: `python -m bench.readers` with an order, as JSON, on its stdin.

A message is recognized by the text at the beginning of its frame, in the bytes that the socket returned, so that it costs a
search in memory and no Python code. Still this process shares the cores with the server that it measures.
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
from bench.raw_client import RawSocket, connect, masked

MESSAGE: Final = b'{"message":{'
HEAD: Final = re.compile(rb'.*\{"message":\{"channel":"[^"]+",(?:"channel_handle":"[^"]+",)?"seq":(\d+),', re.DOTALL)
PATIENCE_S: Final = 30.0
"""After this time the counts are printed even if they are too low, which the caller detects."""
RECENT_BYTES: Final = 512
"""Holds the head of the last message, if not all of it."""


class Order(msgspec.Struct):
    """The work: `expected` messages of the channel on each of the sockets; `from_first`: those already stored."""

    url: str
    tenant: str
    token: str
    channel: str
    expected: int
    sockets: int
    from_first: bool = False


class Counter(RawSocket):
    """One subscriber: the number of received messages, and the sequence of the last."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.last_seq = 0
        self.done = asyncio.Event()
        self._expected = -1
        self._recent = b""

    def await_messages(self, expected: int) -> None:
        """Only count from now on."""
        self._expected = expected

    def connection_lost(self, exc: Exception | None) -> None:
        """End the wait for further messages."""
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
    """Print `{}` when every subscriber is subscribed, and at the end the counts, with system-wide monotonic times."""
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
