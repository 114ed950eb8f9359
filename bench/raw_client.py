"""Raw WebSocket clients of the gateway, with as little Python work as possible, so that the server is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, cast
from urllib.parse import urlsplit

from artcafe.wire import frames

OPEN_S: Final = 10.0
_UPGRADE: Final = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Protocol: {frames.SUBPROTOCOL}\r\n\r\n"
)


def masked(payload: bytes) -> bytes:
    """Return a client's text frame (RFC 6455, section 5.2) under a mask of zeros, which changes no byte and so costs nothing."""
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
    return head + bytes(4) + payload


class RawSocket(asyncio.Protocol):
    """One socket: passes each frame's payload to `on_frame`, and answers pings."""

    def __init__(self) -> None:
        self.on_frame: Callable[[bytes], None] = lambda _: None
        self._buffer = b""
        self._upgraded = False
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transport is one without declaring it

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_exception(exc or ConnectionResetError("the gateway hung up"))

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        at, end = 0, len(data)
        if not self._upgraded:
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self._buffer = data
                return
            self._upgraded = True
            self._opened.set_result(None)
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(data[start : start + 2], "big"), start + 2
            if start + size > end or start > end:
                break
            if data[at] == 0x81:
                self.on_frame(data[start : start + size])
            elif data[at] == 0x89:
                self.transport.write(b"\x8a\x80" + bytes(4))
            at = start + size
        self._buffer = data[at:]

    async def upgrade(self, path: str, host: str) -> None:
        self.transport.write(_UPGRADE.format(path=path, host=host).encode())
        async with asyncio.timeout(OPEN_S):
            await self._opened

    async def ask(self, payload: bytes) -> bytes:
        """Send a command and return the next frame with an id."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.on_frame = lambda payload: answer.set_result(payload) if payload.startswith(b'{"id"') else None
        self.transport.write(masked(payload))
        async with asyncio.timeout(OPEN_S):
            payload = await answer
        if b'"error"' in payload:
            raise RuntimeError(payload.decode())
        return payload

    def close(self) -> None:
        self.transport.abort()


async def connect(url: str, tenant: str, token: str, line: type[RawSocket] = RawSocket) -> RawSocket:
    """Open a socket authenticated by a token."""
    parts = urlsplit(url)
    _, protocol = await asyncio.get_running_loop().create_connection(line, parts.hostname or "", parts.port or 0)
    await protocol.upgrade(parts.path, parts.netloc)
    await protocol.ask(frames.command("connect", frames.Connect(access_token=token, tenant_id=tenant), 0))
    return protocol


class Publisher:
    """Keeps a number of publishes waiting on one socket: each answer triggers the next one, sent with the others of its loop
    turn."""

    def __init__(self, line: RawSocket, channel: str, data: bytes) -> None:
        self._line = line
        self._body = b',"publish":{"channel":"%b","data":%b}}' % (channel.encode(), data)
        self._started: dict[int, float] = {}
        self._out: list[bytes] = []
        self._ids = 0
        self._more: Callable[[], bool] = lambda: False
        self._drained = asyncio.Event()
        self._refused: bytes | None = None
        self.latencies_s: list[float] = []

    async def run(self, waiting: int, more: Callable[[], bool]) -> None:
        """Publish as long as `more` returns true, then wait for the outstanding answers.

        Raise `RuntimeError` with the gateway's first error.
        """
        self._more = more
        self.latencies_s = []
        self._drained.clear()
        self._line.on_frame = self._answered
        for _ in range(waiting):
            self._publish()
        self._send()
        await self._drained.wait()
        if self._refused is not None:
            raise RuntimeError(self._refused.decode())

    def _publish(self) -> None:
        if self._more():
            self._ids += 1
            self._started[self._ids] = time.perf_counter()
            self._out.append(masked(b'{"id":%d%b' % (self._ids, self._body)))

    def _answered(self, payload: bytes) -> None:
        if not payload.startswith(b'{"id"'):
            return  # a message, if this agent receives its own publishes
        if b'"error"' in payload:
            self._refused = payload
            self._drained.set()
            return
        id = int(payload[6 : payload.index(b",", 6)])
        self.latencies_s.append(time.perf_counter() - self._started.pop(id))
        if not self._out:
            asyncio.get_running_loop().call_soon(self._send)
        self._publish()

    def _send(self) -> None:
        if self._out:
            out, self._out = self._out, []
            self._line.transport.write(b"".join(out))
        elif not self._started:
            self._drained.set()
