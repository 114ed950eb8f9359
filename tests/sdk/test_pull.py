"""Pulls from a server that does not take the acks of their gaps."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from artcafe.sdk.client import Client

GAP = {"channel": "@agt_1", "from": 1, "to": None, "reason": "epoch", "after": 0}
TASK = {
    "channel": "tasks",
    "seq": 5,
    "prev": None,
    "message_id": "msg_1",
    "from": "agt_2",
    "time": "2026-11-29T10:00:00Z",
    "headers": {},
}
PAGE = {"items": [TASK | {"data": 1, "receipt": "sealed"}], "gaps": [GAP], "more": False, "epoch": "log"}
AWAY = {"code": "unavailable", "message": "the tables cannot be reached", "temporary": True}


@asynccontextmanager
async def server(acks: tuple[str, object]) -> AsyncIterator[str]:
    """Run a server with a page for every pull, and this status and body for every ack; yield its URL."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        status, body = ("200 OK", PAGE) if head.startswith(b"GET") else acks
        text = json.dumps(body)
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    "acks",
    [
        ("503 Service Unavailable", {"code": "unavailable", "detail": "the tables cannot be reached"}),
        ("200 OK", {"acks": [{"channel": "@agt_1", "seq": 0, "error": AWAY}], "naks": [], "extends": []}),
    ],
)
async def test_pull_returns_its_messages_although_the_ack_of_a_gap_fails(
    acks: tuple[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "artcafe"):
        async with server(acks) as url, Client(url, "token", max_retry_s=0) as rest:
            pulled = await rest.tenant("ten_1").inbox("agt_1").pull()
    assert [(message.data, message.receipt) for message in pulled] == [(1, "sealed")], "this agent holds it"
    assert [gap.channel for gap in pulled.gaps] == ["@agt_1"]
    assert "the gap of @agt_1 comes again" in caplog.text
