"""Wake policies in agents' rows, on every engine."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from artcafe.model import Agent, AgentId, Cursor, Epoch, Tenant, TenantId
from artcafe.rules.wake import WakePolicy, WakeState
from artcafe.tables import rows
from artcafe.tables.catalog import TENANTS
from artcafe.tables.engine.port import ConditionFailed, Tables
from artcafe.tables.engine.writes import Assign, Put
from artcafe.tables.store import Store
from artcafe.tables.wake_rows import TENANT_MARK, marks_tenant

NOW = datetime(2026, 11, 22, 16, 50, 57, 123_000, tzinfo=UTC)
ACME, OTHER = TenantId("ten_a"), TenantId("ten_b")
AGENT = AgentId("agt_a")
POLICY = WakePolicy(
    url="https://hooks.example.com",
    interval_s=300,
    quiet_hours="22:00-06:00",
    is_enabled=False,
    salts=("new", "old"),
    rotated_at=NOW,
    problem="status 500",
)
STATE = WakeState(
    notified=Cursor(epoch=Epoch("E1"), seq=7),
    sent_at=NOW,
    webhook_id="whk_1",
    up_to=9,
    epoch=Epoch("E2"),
    due_at=NOW,
    failures=3,
    failure="status 500",
)


@pytest.fixture
async def store(tables: Tables) -> Store:
    """Return a store with a tenant and two agents."""
    await tables.put(Put(TENANTS, rows.tenant_item(Tenant(id=ACME, name="Acme", created_at=NOW, updated_at=NOW))))
    made = Store(tables)
    for id in (AGENT, AgentId("agt_b")):
        agent = Agent(tenant_id=ACME, id=id, name="agent", public_key="ssh-ed25519 AAAA", created_at=NOW, updated_at=NOW)
        await made.transact([made.tenant(ACME).insert_agent(agent)])
    return made


async def test_policy_and_state_are_returned_as_they_were_written(store: Store) -> None:
    wakes = store.wakes(ACME)
    assert [row.policy for row in [await wakes.get(AGENT)] if row is not None] == [None]
    tenant = store.tenant(ACME)
    assert not marks_tenant(await tenant.item())
    await store.transact([tenant.touch(Assign(TENANT_MARK, True)), wakes.change(AGENT, STATE, POLICY)])
    assert marks_tenant(await tenant.item())
    row = await wakes.get(AGENT)
    assert row is not None
    assert (row.agent.id, row.policy, row.state) == (AGENT, POLICY, msgspec.structs.replace(STATE, serial=1))
    assert await wakes.with_policies() == [row]
    assert await tenant.agent(AGENT) == row.agent

    await store.transact([wakes.change(AGENT, WakeState(serial=1), None)])
    assert await wakes.with_policies() == []
    row = await wakes.get(AGENT)
    assert row is not None
    assert (row.policy, row.state) == (None, WakeState(serial=2))


async def test_of_two_writes_of_a_state_that_was_read_once_one_succeeds(store: Store) -> None:
    wakes = store.wakes(ACME)
    for serial in range(2):
        await store.transact([wakes.change_state(AGENT, WakeState(serial=serial))])
        for late in (WakeState(serial=serial), WakeState(serial=serial + 2)):
            with pytest.raises(ConditionFailed):
                await store.transact([wakes.change_state(AGENT, late)])


async def test_foreign_unknown_and_deleted_agents_have_no_policy_and_get_none(store: Store) -> None:
    tenant = store.tenant(ACME)
    await store.transact([tenant.begin_agent_deletion(AGENT)])
    for wakes, agent in (
        (store.wakes(ACME), AGENT),
        (store.wakes(OTHER), AgentId("agt_b")),
        (store.wakes(ACME), AgentId("agt_c")),
    ):
        assert await wakes.get(agent) is None
        with pytest.raises(ConditionFailed):
            await store.transact([wakes.change(agent, WakeState(), POLICY)])
