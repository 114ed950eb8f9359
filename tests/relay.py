"""A TCP relay between a client and a server that can break connections, hold bytes back, or lose the server's answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

CHUNK_BYTES = 65536


class Relay:
    """Passes TCP connections on to the server at `target` (a URL); `url` is the relay's own address."""

    def __init__(self, target: str) -> None:
        parsed = urlsplit(target)
        self._host, self._server_port = parsed.hostname or "", parsed.port or 0
        self._target = parsed
        self._writers: set[asyncio.StreamWriter] = set()
        self._listener: asyncio.Server | None = None
        self.port = 0
        self.is_deaf = False
        """The server's answers are lost from now on."""
        self.connections = 0
        """The number of connections so far."""
        self._is_open = {False: asyncio.Event(), True: asyncio.Event()}
        """Whether bytes pass, by direction: True for bytes from the server."""
        self.release()

    @property
    def url(self) -> str:
        return self._target._replace(netloc=f"127.0.0.1:{self.port}").geturl()

    async def open(self) -> None:
        """Listen: the first time on a free port, then on the same one again."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    def shut(self) -> None:
        """Accept no further connections."""
        if self._listener is not None:
            self._listener.close()

    def hold(self, *, requests: bool = True, answers: bool = True) -> None:
        """Hold back bytes from the client (`requests`), from the server (`answers`), or both, like a network that drops packets:
        connections stay open, and their bytes arrive after `release`."""
        for is_answer, is_held in ((False, requests), (True, answers)):
            if is_held:
                self._is_open[is_answer].clear()

    def release(self) -> None:
        """Let bytes pass in both directions."""
        for event in self._is_open.values():
            event.set()

    def cut(self) -> None:
        """Break every connection without a close."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there_reader, there_writer = await asyncio.open_connection(self._host, self._server_port)
        except OSError:
            writer.transport.abort()
            return
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
                await self._is_open[is_answer].wait()
                if (lost := reader.exception()) is not None:  # held bytes are lost with a connection that was reset
                    raise lost
                if not (is_answer and self.is_deaf):
                    writer.write(data)
                    await writer.drain()
            await self._is_open[is_answer].wait()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            await self._is_open[is_answer].wait()
            writer.transport.abort()


@asynccontextmanager
async def relayed(target: str) -> AsyncIterator[Relay]:
    """Run a relay within this block; it is cut and closed at the end."""
    relay = Relay(target)
    await relay.open()
    try:
        yield relay
    finally:
        relay.shut()
        relay.release()
        relay.cut()
