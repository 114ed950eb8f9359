"""A wire between a client and a server that can be cut, left dead, or made to lose what the server says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

CHUNK_BYTES = 65536


class Relay:
    """Passes TCP connections on to the server at `target` (a URL); `url` is the same address on this side of the wire."""

    def __init__(self, target: str) -> None:
        parsed = urlsplit(target)
        self._host, self._server_port = parsed.hostname or "", parsed.port or 0
        self._target = parsed
        self._writers: set[asyncio.StreamWriter] = set()
        self._listener: asyncio.Server | None = None
        self.port = 0
        self.is_deaf = False
        """What the server says is lost from here on."""
        self.connections = 0
        """How many there were in all."""

    @property
    def url(self) -> str:
        return self._target._replace(netloc=f"127.0.0.1:{self.port}").geturl()

    async def open(self) -> None:
        """Listens: the first time on a free port, then on that one again."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    def shut(self) -> None:
        """Takes no further connections."""
        if self._listener is not None:
            self._listener.close()

    def cut(self) -> None:
        """Breaks every connection without a word."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there_reader, there_writer = await asyncio.open_connection(self._host, self._server_port)
        self._writers |= {writer, there_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, there_writer, is_answer=False))
                group.create_task(self._pass(there_reader, writer, is_answer=True))
        finally:
            for each in (writer, there_writer):
                each.transport.abort()
                self._writers.discard(each)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                if not (is_answer and self.is_deaf):
                    writer.write(data)
                    await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            writer.transport.abort()


@asynccontextmanager
async def relayed(target: str) -> AsyncIterator[Relay]:
    """A relay that is open, and is cut and shut in the end."""
    relay = Relay(target)
    await relay.open()
    try:
        yield relay
    finally:
        relay.shut()
        relay.cut()
