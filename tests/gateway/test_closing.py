"""The end of a connection: acknowledged cursors are written before the close frame is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from artcafe.gateway.agent_session import AgentSession
from artcafe.model import AgentStatus
from artcafe.tables.catalog import CHANNEL_SUBSCRIPTIONS
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Update
from artcafe.tables.sqlite.engine import Sqlite
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import BOUND_S, BareSocket, RawClient


class SlowCursorSqlite(Sqlite):
    """The embedded engine with delayed or failing writes of cursors."""

    is_away = False

    async def update(self, write: Update) -> Item:
        """Write later, or never while `is_away` is set."""
        if write.table is CHANNEL_SUBSCRIPTIONS:
            await asyncio.sleep(0.05)
            while self.is_away:  # noqa: ASYNC110 (the flag has no event)
                await asyncio.sleep(0.01)
        return await super().update(write)


@asynccontextmanager
async def acknowledged(folder: Path) -> AsyncIterator[tuple[GatewayApp, RawClient]]:
    """Connect an agent that has acknowledged two of three messages."""
    async with gateway_app(folder, engine=SlowCursorSqlite) as it, it.connected() as raw:
        for number in range(3):
            await it.publish(b"%d" % number)
        assert await raw.messages(3) == [0, 1, 2]
        await raw.ack(it.channel.id, 2)
        assert await raw.is_quiet()
        yield it, raw


async def written(it: GatewayApp) -> int:
    return (await it.services.subscriptions.get(it.owner, it.channel.id, it.agent.id)).cursor.seq


async def test_cursor_is_written_before_the_reply_to_a_close(tmp_path: Path) -> None:
    async with acknowledged(tmp_path) as (it, raw):
        assert await written(it) == 0
        await raw.socket.close()
        assert await written(it) == 2


@pytest.mark.parametrize("ends", ["revocation", "bad frame", "closing time"])
async def test_cursor_is_written_before_the_server_closes(tmp_path: Path, ends: str) -> None:
    async with acknowledged(tmp_path) as (it, raw):
        if ends == "revocation":
            await it.services.agents.update(it.owner, it.agent.id, status=AgentStatus.DISABLED)
            assert await raw.closed() == 4503
        elif ends == "bad frame":
            await raw.socket.send("no JSON")
            assert await raw.closed() == 4501
        else:
            async with asyncio.TaskGroup() as group:
                group.create_task(it.gateway.drain())
                assert await raw.closed() == 4000
        assert await written(it) == 2


async def test_connection_closes_while_the_tables_are_away(tmp_path: Path) -> None:
    async with acknowledged(tmp_path) as (it, raw):
        assert isinstance(it.tables, SlowCursorSqlite)
        it.tables.is_away = True
        async with asyncio.timeout(BOUND_S):
            await raw.socket.close()
        it.tables.is_away = False
        await until(lambda: not it.gateway.connections())


async def test_reconnect_during_the_write_of_a_cursor_resumes_after_it(tmp_path: Path) -> None:
    """The new connection reads the row before the write, and uses it afterwards."""
    async with acknowledged(tmp_path) as (it, raw):
        row = await it.services.subscriptions.get(it.owner, it.channel.id, it.agent.id)
        assert row.cursor.seq == 0
        await raw.socket.close()
        await until(lambda: not it.services.cursors.has_unwritten(it.owner.tenant_id, it.agent.id))
        assert it.services.cursors.newest(row).seq == 2
        async with it.connected() as again:
            assert await again.messages(1) == [2]
            assert await again.is_quiet()


async def test_drain_answers_publishes_in_flight_before_the_close(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected_socket() as raw:
        await it.caught_up()
        (connection,) = it.gateway.connections()
        for number in range(500):
            raw.send({"id": 10 + number, "publish": {"channel": it.channel.id, "data": number, "key": f"key {number}"}})
        await until(lambda: isinstance(connection.session, AgentSession) and connection.session._replies.in_flight > 100)
        async with asyncio.TaskGroup() as group:
            group.create_task(it.gateway.drain())
            answered = [frame["publish"]["seq"] for frame in await frames_before_close(raw) if "publish" in frame]
        stored = [one.seq for one in await it.services.fabric.tenant(it.owner.tenant_id).log.after(it.channel.id, 0, most=1000)]
        assert len(stored) > 100
        assert answered == stored


async def frames_before_close(raw: BareSocket) -> list[dict[str, Any]]:
    """Return the frames up to the server's close with 4000."""
    found: list[dict[str, Any]] = []
    while True:
        opcode, payload = await raw.next()
        if opcode == 8:
            assert payload[:2] == (4000).to_bytes(2, "big")
            return found
        if opcode == 1:
            found.append(json.loads(payload))
