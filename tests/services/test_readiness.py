"""Readiness with a real nats-server, and a real table file that the test locks and damages."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from artcafe.fabric import storage_probe
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.server import EmbeddedNats
from artcafe.fabric.fabric import Fabric
from artcafe.observe.clock import now
from artcafe.services import readiness
from artcafe.services.readiness import OK, Readiness, checks_of
from artcafe.tables.catalog import TABLES, Environment, Table
from artcafe.tables.sqlite.engine import Sqlite
from artcafe.tables.store import Store
from tests.fabric.nats_clients import BOUND_S, connected

ACCOUNTS = Accounts(b"s" * 32, "prod")
READY = {"tables": OK, "nats": OK}


@dataclass
class CheckedServer:
    """The parts that readiness checks."""

    nats: EmbeddedNats
    file: Path
    readiness: Readiness

    async def stored(self) -> int:
        """Return the number of messages that checks have stored."""
        async with connected(self.nats.url, ACCOUNTS.platform_user()) as platform:
            return (await platform.jetstream().stream_info(storage_probe.STREAM)).state.last_seq


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[CheckedServer]:
    nats, file = EmbeddedNats(folder / "nats", ACCOUNTS), folder / "tables.sqlite"
    await nats.start()
    tables = await Sqlite.open(file, Environment.PROD)
    try:
        async with asyncio.TaskGroup() as group:
            fabric = Fabric(nats.urls, ACCOUNTS, tls=nats.tls, is_embedded=True)
            group.create_task(fabric.run())
            await fabric.wait_up(BOUND_S)
            yield CheckedServer(nats, file, Readiness(checks_of(Store(tables), fabric, now)))
            fabric.close()
    finally:
        await tables.close()
        await nats.stop()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[CheckedServer]:
    async with running(tmp_path) as server:
        yield server


async def changed(server: CheckedServer, part: str) -> str:
    """Wait until a part is not ok, and return its state. The other part must stay ok."""
    async with asyncio.timeout(4 * BOUND_S):
        while True:
            states = dict(await server.readiness.states())
            state = states.pop(part)
            assert set(states.values()) == {OK}
            if state != OK:
                return state
            await asyncio.sleep(0.1)


async def test_concurrent_requests_share_one_check(server: CheckedServer) -> None:
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(server.readiness.states()) for _ in range(100)]
    assert [dict(each.result()) for each in asked] == [READY] * 100
    assert await server.stored() == 1


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
async def test_server_with_a_missing_table_is_not_ready(server: CheckedServer, table: Table) -> None:
    assert await server.readiness.states() == READY
    with closing(sqlite3.connect(server.file)) as db:
        db.execute(f'DROP TABLE "{table.name}"')
    assert "the table file cannot be reached" in await changed(server, "tables")


async def test_server_with_a_locked_table_file_is_not_ready_until_it_is_unlocked(server: CheckedServer) -> None:
    with closing(sqlite3.connect(server.file, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        assert "within 2 s" in await changed(server, "tables")
    async with asyncio.timeout(4 * BOUND_S):
        while await server.readiness.states() != READY:  # noqa: ASYNC110 (no event to wait on)
            await asyncio.sleep(0.1)


async def test_server_with_a_hanging_nats_server_is_not_ready(server: CheckedServer) -> None:
    assert await server.readiness.states() == READY
    assert server.nats.pid is not None
    os.kill(server.nats.pid, signal.SIGSTOP)
    try:
        assert "within 2 s" in await changed(server, "nats")
    finally:
        os.kill(server.nats.pid, signal.SIGCONT)


async def test_later_request_checks_again(server: CheckedServer) -> None:
    assert await server.readiness.states() == READY
    server.readiness._checked_at -= readiness.FRESH_S
    assert await server.readiness.states() == READY
    assert await server.stored() == 2
