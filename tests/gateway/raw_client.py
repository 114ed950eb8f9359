"""Clients without ArtCafe's code: one on `websockets`, and one on bare TCP for behaviour no library allows."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests import ssh_keygen

BOUND_S = 20
PROTOCOL = Subprotocol("artcafe.v1")


class RawClient:
    """One WebSocket: JSON objects in and out, in the order of the wire."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.pushes: list[dict[str, Any]] = []
        self._id = 0

    async def send(self, **frame: object) -> None:
        """Send one frame with these fields."""
        await self.socket.send(json.dumps(frame))

    async def next(self) -> dict[str, Any]:
        """Return the next frame."""
        async with asyncio.timeout(BOUND_S):
            frame: dict[str, Any] = json.loads(await self.socket.recv())
        return frame

    async def say(self, kind: str, **body: object) -> int:
        """Send a command, and return its id."""
        self._id += 1
        await self.send(id=self._id, **{kind: body})
        return self._id

    async def ask(self, kind: str, **body: object) -> dict[str, Any]:
        """Send a command, and return its reply or error. Earlier frames go to `pushes`."""
        id = await self.say(kind, **body)
        while (frame := await self.next()).get("id") != id:
            self.pushes.append(frame)
        reply: dict[str, Any] = frame[kind] if kind in frame else frame["error"]
        return reply

    async def message(self) -> dict[str, Any]:
        """Return the next message, and fail for any other frame."""
        frame = self.pushes.pop(0) if self.pushes else await self.next()
        assert list(frame) == ["message"], frame
        message: dict[str, Any] = frame["message"]
        return message

    async def messages(self, count: int) -> list[Any]:
        """Return the data of the next `count` messages."""
        return [(await self.message())["data"] for _ in range(count)]

    async def ack(self, channel: str, seq: int) -> None:
        """Acknowledge everything up to `seq`."""
        await self.send(ack={"channel": channel, "seq": seq})

    async def login(self, tenant: str, agent: str, key: Path, **more: object) -> dict[str, Any]:
        """Connect by a signature of ssh-keygen."""
        posed = await self.ask("challenge", tenant_id=tenant, agent_id=agent)
        signature = ssh_keygen.sign(key, posed["challenge"].encode())
        return await self.ask("connect", challenge_id=posed["challenge_id"], signature=signature, **more)

    async def is_quiet(self) -> bool:
        """Return whether nothing was pushed: every push sent before now arrives before the reply to a command."""
        assert (await self.ask("unsubscribe", channel="chn_none"))["code"] == "not_subscribed"
        return not self.pushes

    async def closed(self) -> int:
        """Wait for the server's close, and return its code. Earlier frames go to `pushes`."""
        async with asyncio.timeout(BOUND_S):
            try:
                while True:
                    self.pushes.append(json.loads(await self.socket.recv()))
            except ConnectionClosed as exc:
                return exc.rcvd.code if exc.rcvd else 1006


@asynccontextmanager
async def open_client(url: str, trust: ssl.SSLContext | None = None) -> AsyncIterator[RawClient]:
    """Open a WebSocket without a login. `trust`: the TLS context of a wss URL."""
    async with connect(
        url, subprotocols=[PROTOCOL], compression=None, max_size=None, max_queue=None, proxy=None, ssl=trust
    ) as socket:
        yield RawClient(socket)


class BareSocket:
    """A WebSocket on bare TCP. It answers no pings, and reads only on request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, frame: object, opcode: int = 1) -> None:
        """Send a masked frame (RFC 6455, section 5.2), with a zero mask: the payload is unchanged."""
        data = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
        if len(data) < 126:
            size = bytes([0x80 | len(data)])
        else:
            size = b"\xfe" + len(data).to_bytes(2, "big") if len(data) < 65536 else b"\xff" + len(data).to_bytes(8, "big")
        self.writer.write(bytes([0x80 + opcode]) + size + bytes(4) + data)

    async def next(self) -> tuple[int, bytes]:
        """Return the opcode and payload of the next frame."""
        async with asyncio.timeout(BOUND_S):
            opcode, size = await self.reader.readexactly(2)
            if size > 125:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
            return opcode & 0xF, await self.reader.readexactly(size)

    async def text(self) -> dict[str, Any]:
        """Return the next text frame."""
        opcode, payload = await self.next()
        while opcode != 1:
            opcode, payload = await self.next()
        frame: dict[str, Any] = json.loads(payload)
        return frame

    async def login(self, tenant: str, agent: str, key: Path, **more: object) -> None:
        """Connect by a signature of ssh-keygen."""
        self.send({"id": 0, "challenge": {"tenant_id": tenant, "agent_id": agent}})
        posed = (await self.text())["challenge"]
        signature = ssh_keygen.sign(key, posed["challenge"].encode())
        self.send({"id": 1, "connect": {"challenge_id": posed["challenge_id"], "signature": signature, **more}})
        assert "connect" in await self.text()

    def stop_reading(self) -> None:
        """Stop reading from the transport until `go_on_reading`."""
        self.reader._transport.pause_reading()  # type: ignore[attr-defined]  # StreamReader has no public way to stop reading

    def go_on_reading(self) -> None:
        """Resume reading."""
        """Resume reading."""
        self.reader._transport.resume_reading()  # type: ignore[attr-defined]  # as above

    async def closed(self) -> int:
        """Wait for the server's close, and return its code."""
        opcode, payload = await self.next()
        while opcode != 8:
            opcode, payload = await self.next()
        return int.from_bytes(payload[:2], "big")


UPGRADE = (
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
    f"Sec-WebSocket-Protocol: {PROTOCOL}",
)


@asynccontextmanager
async def open_socket(url: str, trust: ssl.SSLContext | None = None) -> AsyncIterator[BareSocket]:
    """Open a bare socket without a login, on TCP, or on TLS with `trust`."""
    answer, client = await _upgrade(url, "/v1/connect", UPGRADE, trust)
    assert answer.startswith("HTTP/1.1 101"), answer
    try:
        yield client
    finally:
        client.writer.transport.abort()


async def http_answer(url: str, path: str = "/v1/connect", lines: tuple[str, ...] = UPGRADE) -> str:
    """Return head and body of the HTTP answer to a refused upgrade."""
    head, client = await _upgrade(url, path, lines)
    try:
        async with asyncio.timeout(BOUND_S):
            return head + (await client.reader.read()).decode()
    finally:
        client.writer.transport.abort()


async def _upgrade(url: str, path: str, lines: tuple[str, ...], trust: ssl.SSLContext | None = None) -> tuple[str, BareSocket]:
    there = urlsplit(url)
    reader, writer = await asyncio.open_connection(there.hostname, there.port, ssl=trust)
    writer.write("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
    async with asyncio.timeout(BOUND_S):
        return (await reader.readuntil(b"\r\n\r\n")).decode(), BareSocket(reader, writer)
