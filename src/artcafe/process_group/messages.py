"""Messages between a supervisor and its server processes: JSON lines over a socket pair, one struct for each message."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any, Final, Generic, TypeVar

import msgspec

MAX_LINE_BYTES: Final = 1 << 20
"""Settings with long lists of networks have some KB."""


class Boot(msgspec.Struct, frozen=True, tag="boot"):
    """The first message to a server process: everything it needs to start."""

    settings: str
    """`config.Settings` as JSON: all processes have the same settings, even if the file has changed since."""
    number: int
    """Number of the process in its group, from 1 on."""
    processes: int
    url: str
    gateway_url: str
    nats_urls: list[str]
    is_embedded: bool
    denied: list[str]
    """The permissions on the tables that the supervisor was denied."""
    column: int
    """Its column in the group's shared limits (`rules.shared_limits`) and metrics (`process_group.group_metrics`)."""
    columns: int
    metrics_layout: int
    """The supervisor's `observe.metrics.LAYOUT`."""


class NatsMoved(msgspec.Struct, frozen=True, tag="nats_moved"):
    """The embedded nats-server listens somewhere else from now on."""

    urls: list[str]


class Serving(msgspec.Struct, frozen=True, tag="serving"):
    """The number of processes in the group that serve now."""

    count: int


ToProcess = Boot | NatsMoved | Serving


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The process serves."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The process cannot start until an operator changes something (`errors.StartRefused`)."""

    problem: str
    remedy: str


class Report(msgspec.Struct, frozen=True, tag="report"):
    """Heartbeat of a process, with the number of its open connections."""

    connections: int


class Draining(msgspec.Struct, frozen=True, tag="draining"):
    """The process drains because of a signal from outside the group, and takes no more connections."""


ToSupervisor = Ready | Refused | Report | Draining

Incoming = TypeVar("Incoming")


class MessageChannel(Generic[Incoming]):
    """One end of the socket pair. Belongs to the loop it was opened on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: Any) -> None:
        self._reader, self._writer = reader, writer
        self._decoder: msgspec.json.Decoder[Incoming] = msgspec.json.Decoder(kind)

    @classmethod
    async def open(cls, end: socket.socket, kind: Any) -> MessageChannel[Incoming]:
        """Use a connected socket; the channel closes it. `kind` is the union of incoming messages."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=MAX_LINE_BYTES), kind)

    def send(self, message: ToProcess | ToSupervisor) -> None:
        """Send a message. Drop it if the other end is gone: the reader notices that."""
        if not self._writer.is_closing():
            self._writer.write(msgspec.json.encode(message) + b"\n")

    async def receive(self) -> Incoming | None:
        """Return the next message, or None if the other end has closed or died."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        return self._decoder.decode(line) if line.endswith(b"\n") else None

    async def messages(self) -> AsyncIterator[Incoming]:
        """Iterate over messages until the other end closes or dies."""
        while (message := await self.receive()) is not None:
            yield message

    def close(self) -> None:
        """Close this end. May be repeated."""
        self._writer.close()
