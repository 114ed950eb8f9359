"""Rows of an older system with arbitrary values: every operation works, and unknown attributes stay."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TypeGuard

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from artcafe.errors import RowFull
from artcafe.model import AgentStatus, UserId
from artcafe.rules import ids, inboxes
from artcafe.tables.catalog import (
    AGENTS,
    CHANNELS,
    TENANTS,
    USER_TENANT_INDEX,
    USER_TENANTS,
    Environment,
    Table,
)
from artcafe.tables.engine.values import MAX_ITEM_BYTES, Item, Value, size_of
from artcafe.tables.engine.writes import Put
from artcafe.tables.sqlite.engine import Sqlite
from tests.services.service_env import Clock, Logs, Server, new_key
from tests.tables.strategies import texts, values

OURS = {
    AGENTS: ("epoch", "channels", "request_hash"),
    TENANTS: ("version", "agent_count", "channel_count", "member_count", "status", "request_hash"),
    CHANNELS: ("access", "retention_s", "removed_to", "request_hash"),
}
"""What we keep beside the seed's attributes: an older system may have used the same words for something else."""
NOT_OURS = ("model", "tags", "organisation", "last_seen", "ttl", "owner")


def rows_of(table: Table) -> st.SearchStrategy[Mapping[str, Value]]:
    names = (*table.attributes, *OURS[table], *NOT_OURS)
    # Fractional epochs are left out: they have no whole successor.
    return st.dictionaries(st.sampled_from(names), values().filter(lambda value: not isinstance(value, Decimal)), max_size=8)


odd_ids = texts(least=1).filter(ids.is_possible).filter(lambda id: not id.startswith(("~key#", inboxes.PREFIX)))
"""`artcafe tables check --rows` reports channels with an id like that of an inbox."""


def is_number(value: Value) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def stays(before: Item, after: Item | None) -> bool:
    """Return whether all unchanged and unknown attributes are as before."""
    assert after is not None
    return all(after.get(name) == value for name, value in before.items() if name in NOT_OURS)


@settings(max_examples=60)
@given(rows_of(TENANTS), rows_of(AGENTS), rows_of(CHANNELS), odd_ids, odd_ids, odd_ids)
@example(
    {"version": "2.1", "deleting": False}, {"channels": ["general"], "epoch": "n"}, {"deleting": ""}, "acme", "bot", "general"
)
@example({"agent_count": 7, "channel_count": 5, "member_count": 2, "status": "trial"}, {}, {}, "t", "a", "c")
@example({"agent_count": 7, "channel_count": 5}, {}, {}, "t", "a", "c")
@example({"agent_count": "3"}, {"status": "offline", "deleting": None}, {}, "a.b", "*", ">")
@example({"channel_count": 1}, {}, {}, "tenant one", "bot@example.com", "número 1")
async def test_every_operation_works_on_older_rows_and_keeps_unknown_attributes(
    tenant: Mapping[str, Value],
    agent: Mapping[str, Value],
    channel: Mapping[str, Value],
    tenant_id: str,
    agent_id: str,
    channel_id: str,
) -> None:
    older = {
        TENANTS: {**tenant, "limits": {}, "id": tenant_id},
        AGENTS: {**agent, "tenant_id": tenant_id, "id": agent_id},
        CHANNELS: {**channel, "tenant_id": tenant_id, "id": channel_id},
    }
    with tempfile.TemporaryDirectory() as folder:
        tables = await Sqlite.open(Path(folder) / "tables.db", Environment.PROD)
        try:
            server = Server(tables, Clock(), Logs())
            for table, item in older.items():
                await tables.put(Put(table, item))
            for table in (USER_TENANTS, USER_TENANT_INDEX):
                await server.put(table, user_id="alice", tenant_id=tenant_id, role="owner")
            alice = await server.tenants.enter(UserId("alice"), tenant_id)

            await server.tenants.update(alice, name="Acme")
            read = await server.agents.get(alice, agent_id)
            for status in (AgentStatus.DISABLED, AgentStatus.ACTIVE):
                read = await server.agents.update(alice, agent_id, status=status, name="Bot", public_key=new_key())
            assert (read.status, read.name) == (AgentStatus.ACTIVE, "Bot")
            await server.channels.update(alice, channel_id, name="News")
            await server.subscriptions.put(alice, channel_id, agent_id)
            (found,) = (await server.subscriptions.list_of_agent(alice, agent_id)).items
            assert (found.channel_id, found.agent_id) == (channel_id, agent_id)

            for table, item in older.items():
                after = await server.item(table, tenant_id, None if table is TENANTS else str(item["id"]))
                assert stays(item, after), table.name

            await server.agents.delete(alice, agent_id)
            await server.channels.delete(alice, channel_id)
            row = await server.item(TENANTS, tenant_id)
            assert row is not None
            # Numbers in all counts are trusted: `artcafe tables check` compares them with the rows.
            counts = [tenant.get("agent_count"), tenant.get("channel_count"), tenant.get("member_count")]
            left = [count for count in counts if is_number(count)]
            agents, channels, members = (left[0] - 1, left[1] - 1, left[2]) if len(left) == 3 else (0, 0, 1)
            assert (row["agent_count"], row["channel_count"], row["member_count"]) == (agents, channels, members)
        finally:
            await tables.close()


@pytest.mark.parametrize("table", [TENANTS, AGENTS, CHANNELS])
async def test_change_of_a_full_row_is_refused_with_a_clear_message(server: Server, table: Table) -> None:
    rows: dict[Table, dict[str, Value]] = {
        TENANTS: {"id": "acme", "name": "A"},
        AGENTS: {"tenant_id": "acme", "id": "bot", "name": "B", "channels": {}},
        CHANNELS: {"tenant_id": "acme", "id": "general", "name": "C"},
    }
    for of, row in rows.items():
        room = MAX_ITEM_BYTES - sum(len(name) + size_of(value) for name, value in row.items()) - len("notes")
        await server.put(of, **row, **({"notes": "x" * (room - 100)} if of is table else {}))
    for of in (USER_TENANTS, USER_TENANT_INDEX):
        await server.put(of, user_id="alice", tenant_id="acme", role="owner")
    alice = await server.tenants.enter(UserId("alice"), "acme")
    before = await server.item(table, "acme", None if table is TENANTS else str(rows[table]["id"]))

    async def change(name: str) -> object:
        if table is TENANTS:
            return await server.tenants.update(alice, name=name)
        if table is AGENTS:
            return await server.agents.update(alice, "bot", description=name * 16)
        return await server.channels.update(alice, "general", description=name * 16)

    with pytest.raises(RowFull, match="nothing was changed"):
        await change("x" * 64)
    after = await server.item(table, "acme", None if table is TENANTS else str(rows[table]["id"]))
    assert before is not None
    assert after is not None
    assert {name: after.get(name) for name in before} == before  # The tenant's row got its counts.
