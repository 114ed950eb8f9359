"""The state of the platform with real servers of a fleet, and a real nats-server that the test stops."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.server import EmbeddedNats
from artcafe.fabric.fabric import Fabric
from artcafe.observe.clock import now
from artcafe.services.platform_state import PlatformState, State, ThisServer
from artcafe.services.readiness import OK, Readiness, checks_of
from artcafe.tables.catalog import Environment
from artcafe.tables.sqlite.engine import Sqlite
from artcafe.tables.store import Store
from tests.fabric.nats_clients import BOUND_S

ACCOUNTS = Accounts(b"s" * 32, "prod")
LONG_S = 4 * BOUND_S


@dataclass
class Fleet:
    """A nats-server and tables, for servers that are made on them."""

    nats: EmbeddedNats
    store: Store

    @asynccontextmanager
    async def server(self, host: str, *, process: int = 1, ends_in_order: bool = True) -> AsyncIterator[PlatformState]:
        """Run a server's part of the state; at the end, without `ends_in_order`, as one that is killed."""
        fabric = Fabric(self.nats.urls, ACCOUNTS, tls=self.nats.tls, is_embedded=True)
        fabric.announcements.listen(lambda _: None)  # Only a server has listeners, and sends heartbeats.
        this = ThisServer(host=host, version="1.2.3", process=process, processes=2, connections=lambda: 5)
        readiness = Readiness(checks_of(self.store, fabric, now))
        async with asyncio.TaskGroup() as group:
            group.create_task(fabric.run())
            await fabric.wait_up(BOUND_S)
            try:
                yield PlatformState(self.store, fabric, readiness, now, this, lambda: 3)
            finally:
                if ends_in_order:
                    await fabric.announcements.announce_end()
                fabric.close()


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    nats, tables = EmbeddedNats(tmp_path / "nats", ACCOUNTS), await Sqlite.open(tmp_path / "tables.sqlite", Environment.PROD)
    await nats.start()
    try:
        yield Fleet(nats, Store(tables))
    finally:
        await tables.close()
        await nats.stop()


async def state_with(server: PlatformState, others: Sequence[str | None], *, silent: bool = False) -> State:
    """Return the state once it has these other servers, by host."""
    async with asyncio.timeout(LONG_S):
        while True:
            state = await server.get()
            found = [each.report.host for each in state.servers[1:] if each.is_silent is silent]
            if found == list(others):
                return state
            await asyncio.sleep(0.05)


async def test_state_has_every_process_of_the_fleet_with_the_one_that_answers_first(fleet: Fleet) -> None:
    async with fleet.server("b") as one, fleet.server("a", process=2) as two, fleet.server("a"):
        state = await state_with(one, ["a", "a"])
        assert (state.is_complete, state.is_nats_connected, state.nats_problem) == (True, True, None)
        assert [(each.report.host, each.report.process) for each in state.servers] == [("b", 1), ("a", 1), ("a", 2)]
        assert state.server == state.servers[0].report.server
        for each in state.servers:
            report = each.report
            assert (report.version, report.processes, report.connections, report.sessions) == ("1.2.3", 2, 5, 3)
            assert report.started_at is not None
            assert report.started_at <= state.time
        assert {each.report.server for each in (await state_with(two, ["a", "b"])).servers} == {
            each.report.server for each in state.servers
        }
    assert set(state.readiness.values()) == {OK}


async def test_server_that_ended_in_order_is_left_out_and_a_killed_one_is_silent_with_unknown_facts(fleet: Fleet) -> None:
    async with fleet.server("one") as one:
        async with fleet.server("ended"):
            await state_with(one, ["ended"])
        await state_with(one, [])
        async with fleet.server("killed", ends_in_order=False):
            await state_with(one, ["killed"])
        state = await state_with(one, [None], silent=True)
        report = state.servers[1].report
        assert (report.version, report.process, report.started_at, report.connections, report.sessions) == (None,) * 5
        assert state.servers[1].heard_at < state.time


async def test_hanging_nats_server_is_unknown_and_not_ready(fleet: Fleet) -> None:
    async with fleet.server("one") as one:
        assert (await one.get()).nats is not None
        assert fleet.nats.pid is not None
        os.kill(fleet.nats.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(LONG_S):
                while True:
                    state = await one.get()
                    if state.nats is None and state.readiness["nats"] != OK:  # A check may be 1 s old.
                        break
        finally:
            os.kill(fleet.nats.pid, signal.SIGCONT)
        assert state.readiness["tables"] == OK
        assert state.servers[0].report.host == "one"


async def test_without_nats_the_list_of_servers_is_not_complete(fleet: Fleet) -> None:
    async with fleet.server("one", ends_in_order=False) as one:
        assert (await one.get()).is_complete
        await fleet.nats.stop()
        async with asyncio.timeout(LONG_S):
            while (state := await one.get()).is_nats_connected or state.nats_problem is None:  # noqa: ASYNC110 (no event)
                await asyncio.sleep(0.05)
        assert (state.is_complete, state.nats) == (False, None)
        assert [each.report.host for each in state.servers] == ["one"]
