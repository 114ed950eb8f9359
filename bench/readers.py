"""Subscribers in a process of their own, that only count: `python -m bench.readers` takes orders on stdin, a JSON object a line.

A frame is found by the text that each begins with, in what the socket gave at once, so a message costs a memory search and
no Python; still this process shares the cores with the server it measures.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Final

import msgspec
import uvloop

from artcafe.wire import frames
from bench.wire import Line, connect, masked

MESSAGE: Final = b'{"message":{'
SEQ: Final = b',"seq":'


class Order(msgspec.Struct):
    """What to read: `expected` messages on each of `sockets` logged-in sockets; with a channel, from its first message on."""

    url: str
    tenant: str
    token: str
    expected: int
    sockets: int = 1
    from_first: str | None = None


class Counter(Line):
    """One subscriber: how many messages came, and the sequence of the last."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.last_seq = 0
        self.expected = -1
        self.done = asyncio.Event()
        self._tail = b""

    def data_received(self, data: bytes) -> None:
        """Counts what has begun in this piece; as a `Line` until `expected` is set."""
        if self.expected < 0:
            super().data_received(data)
            return
        data = self._tail + data
        self.count += data.count(MESSAGE)
        begun = data.rfind(MESSAGE)
        if begun >= 0 and (at := data.find(SEQ, begun)) >= 0 and (end := data.find(b",", at + len(SEQ))) > 0:
            self.last_seq = int(data[at + len(SEQ) : end])
        self._tail = data[-len(MESSAGE) + 1 :]
        if self.count >= self.expected:
            self.done.set()

    def await_messages(self, expected: int) -> None:
        """From here on, only counts."""
        self.count, self.expected = 0, expected
        self._tail = b""


async def read(order: Order) -> None:
    """Prints `{}` when everybody listens, and what was read in the end: times on the clock that all processes share."""
    sockets = [await connect(order.url, order.tenant, order.token, Counter) for _ in range(order.sockets)]
    for socket in sockets:
        assert isinstance(socket, Counter)
        socket.await_messages(order.expected)
        if order.from_first is not None:
            wanted = frames.Subscribe(order.from_first, start="first")
            socket.transport.write(masked(frames.command("subscribe", wanted, 1)))
    begun = time.monotonic()
    print("{}", flush=True)
    for socket in sockets:
        await socket.done.wait()
    print(json.dumps({"begun": begun, "ended": time.monotonic(), "counts": [socket.count for socket in sockets]}), flush=True)
    for socket in sockets:
        socket.close()
