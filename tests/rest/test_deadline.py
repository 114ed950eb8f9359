from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.server import ServerState

from artcafe.rest.deadline import DeadlineProtocol
from artcafe.rest.headers import HEADERS
from artcafe.rules.open_connections import OpenConnections
from tests.rest.rest_app import BOUND_S

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


class Patient(Hasty):
    head_deadline_s = BOUND_S


Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter, list[Hasty]]


@asynccontextmanager
async def connection(
    answer: str = "here", connections: OpenConnections | None = None, protocol: type[Hasty] = Hasty
) -> AsyncIterator[Wire]:
    config = uvicorn.Config(PlainTextResponse(answer), log_config=None, timeout_keep_alive=BOUND_S)
    loop = asyncio.get_running_loop()
    protocols: list[Hasty] = []

    def accept() -> Hasty:
        protocols.append(protocol(config, ServerState(), {}, connections=connections))
        return protocols[-1]

    server = await loop.create_server(accept, "127.0.0.1", 0)
    async with asyncio.timeout(BOUND_S), server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            yield reader, writer, protocols
        finally:
            writer.close()


@pytest.mark.parametrize("sent", [b"", REQUEST[:-2]], ids=["nothing", "incomplete head"])
async def test_connection_without_a_complete_head_is_closed(sent: bytes) -> None:
    async with connection() as (reader, writer, _):
        writer.write(sent)
        assert await reader.read() == b""


async def test_incomplete_second_request_is_closed() -> None:
    async with connection() as (reader, writer, _):
        writer.write(REQUEST)
        assert (await reader.readuntil(b"here")).startswith(b"HTTP/1.1 200 ")
        writer.write(REQUEST[:10])
        assert await reader.read() == b""


async def test_only_the_keep_alive_timeout_applies_between_requests() -> None:
    async with connection(protocol=Patient) as (reader, writer, protocols):
        for _ in range(2):
            writer.write(REQUEST)
            assert (await reader.readuntil(b"here")).startswith(b"HTTP/1.1 200 ")
            assert not protocols[0].is_awaiting_head


async def test_connection_above_the_limit_gets_429_and_a_freed_place_is_reused() -> None:
    connections = OpenConnections(most=4, most_per_address=2)
    async with connection(connections=connections, protocol=Patient) as (one, writer, protocols):
        address = writer.get_extra_info("peername")
        other, other_writer = await asyncio.open_connection(*address)
        for each, sender in ((one, writer), (other, other_writer)):
            sender.write(REQUEST)
            await each.readuntil(b"here")
        third, third_writer = await asyncio.open_connection(*address)
        head, _, body = (await third.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nretry-after: 1\r\n" in head
        assert all(name in head for name, _ in HEADERS)
        assert json.loads(body)["code"] == "too_fast"
        third_writer.close()
        other_writer.close()
        while connections.count == 2:  # noqa: ASYNC110 (the awaited state has no event)
            await asyncio.sleep(0.001)
        fourth, fourth_writer = await asyncio.open_connection(*address)
        fourth_writer.write(REQUEST)
        assert (await fourth.readuntil(b"here")).startswith(b"HTTP/1.1 200 ")
        assert len(protocols) == 4
        for open_ in (writer, fourth_writer):
            open_.close()
        while connections.count:  # noqa: ASYNC110 (as above)
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("size", [32 << 20, 1 << 20], ids=["more than all buffers", "less than all buffers"])
async def test_connection_that_reads_no_response_is_closed(size: int) -> None:
    async with connection("x" * size) as (reader, writer, protocols):
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # StreamReader has no public way to stop reading
        writer.write(REQUEST)
        while not protocols[0].is_gone:  # noqa: ASYNC110 (the awaited state has no event)
            await asyncio.sleep(0.001)
