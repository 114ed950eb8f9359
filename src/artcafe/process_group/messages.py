"""What a supervisor and its server processes say to each other: JSON lines over a socket pair, one struct for each message."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any, Final, Generic, TypeVar

import msgspec

MAX_LINE_BYTES: Final = 1 << 20
"""Settings with long lists of networks have some KB."""


class Boot(msgspec.Struct, frozen=True, tag="boot"):
    """The first message to a server process: everything that it needs to start."""

    settings: str
    """`config.Settings` as JSON, so that all processes have the same, whatever happens to the file meanwhile."""
    number: int
    """Which of the group it is, from 1 on."""
    processes: int
    url: str
    gateway_url: str
    nats_urls: list[str]
    is_embedded: bool
    column: int
    """Its column in the group's shared limits (`rules.shared_limits`)."""
    columns: int


class NatsMoved(msgspec.Struct, frozen=True, tag="nats_moved"):
    """The embedded nats-server listens somewhere else from now on."""

    urls: list[str]


class Serving(msgspec.Struct, frozen=True, tag="serving"):
    """How many processes of the group serve."""

    count: int


ToProcess = Boot | NatsMoved | Serving


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The process serves."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The process cannot start, for a reason that an operator can remove (`errors.StartRefused`)."""

    problem: str
    remedy: str


class Report(msgspec.Struct, frozen=True, tag="report"):
    """A sign of life, with the number of connections that the process has open."""

    connections: int


class Draining(msgspec.Struct, frozen=True, tag="draining"):
    """The process was told to end by somebody else, and takes no more connections."""


ToSupervisor = Ready | Refused | Report | Draining

Incoming = TypeVar("Incoming")


class Channel(Generic[Incoming]):
    """One end of the socket pair. Belongs to the loop it was opened on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: Any) -> None:
        self._reader, self._writer = reader, writer
        self._decoder: msgspec.json.Decoder[Incoming] = msgspec.json.Decoder(kind)

    @classmethod
    async def open(cls, end: socket.socket, kind: Any) -> Channel[Incoming]:
        """Use a connected socket, which the channel closes. `kind` is the union of the messages that come."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=MAX_LINE_BYTES), kind)

    def send(self, message: ToProcess | ToSupervisor) -> None:
        """Send a message, unless the other end is gone, which its reader notices."""
        if not self._writer.is_closing():
            self._writer.write(msgspec.json.encode(message) + b"\n")

    async def receive(self) -> Incoming | None:
        """Return the next message, or None where the other end has closed, or died."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        return self._decoder.decode(line) if line.endswith(b"\n") else None

    async def messages(self) -> AsyncIterator[Incoming]:
        """Every message, until the other end closes or dies."""
        while (message := await self.receive()) is not None:
            yield message

    def close(self) -> None:
        """Close this end. May be repeated."""
        self._writer.close()
