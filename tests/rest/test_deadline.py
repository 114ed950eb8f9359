from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.server import ServerState

from artcafe.rest.deadline import DeadlineProtocol
from tests.rest.house import BOUND_S

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Hasty(DeadlineProtocol):
    head_deadline_s = 0.01
    answer_deadline_s = 0.2
    is_gone = False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.is_gone = True

    @property
    def is_awaiting_head(self) -> bool:
        return self._head_timer is not None


Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter, list[Hasty]]


@asynccontextmanager
async def connection(answer: str = "here") -> AsyncIterator[Wire]:
    config = uvicorn.Config(PlainTextResponse(answer), log_config=None, timeout_keep_alive=BOUND_S)
    loop = asyncio.get_running_loop()
    protocols: list[Hasty] = []

    def accept() -> Hasty:
        protocols.append(Hasty(config, ServerState(), {}))
        return protocols[-1]

    server = await loop.create_server(accept, "127.0.0.1", 0)
    async with asyncio.timeout(BOUND_S), server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            yield reader, writer, protocols
        finally:
            writer.close()


@pytest.mark.parametrize("sent", [b"", REQUEST[:-2]], ids=["nothing", "half a head"])
async def test_a_connection_that_never_asks_is_closed(sent: bytes) -> None:
    async with connection() as (reader, writer, _):
        writer.write(sent)
        assert await reader.read() == b""


async def test_a_second_request_that_never_ends_is_closed() -> None:
    async with connection() as (reader, writer, _):
        writer.write(REQUEST)
        assert (await reader.readuntil(b"here")).startswith(b"HTTP/1.1 200 ")
        writer.write(REQUEST[:10])
        assert await reader.read() == b""


async def test_between_requests_only_the_keep_alive_timeout_counts() -> None:
    async with connection() as (reader, writer, protocols):
        for _ in range(2):
            writer.write(REQUEST)
            assert (await reader.readuntil(b"here")).startswith(b"HTTP/1.1 200 ")
            assert not protocols[0].is_awaiting_head


@pytest.mark.parametrize("size", [32 << 20, 1 << 20], ids=["more than all buffers hold", "what the buffers hold"])
async def test_a_peer_that_takes_no_answer_is_closed(size: int) -> None:
    async with connection("x" * size) as (reader, writer, protocols):
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # StreamReader has no public way to stop reading
        writer.write(REQUEST)
        while not protocols[0].is_gone:  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.001)
