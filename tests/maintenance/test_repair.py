from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artcafe.maintenance.integrity import Defect
from artcafe.maintenance.repair import Repair
from artcafe.model import AgentId, AgentPrincipal, Role, TenantId, UserId
from artcafe.plan_catalogue import shipped
from artcafe.tables import agent_rows
from artcafe.tables.catalog import (
    AGENTS,
    CHANNEL_SUBSCRIPTIONS,
    CHANNELS,
    TABLES,
    TENANTS,
    USER_TENANTS,
    Environment,
)
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Put
from artcafe.tables.sqlite.engine import Sqlite
from artcafe.wire.sshkeys import parse_public_key
from tests.maintenance.test_membership_repair import memberships
from tests.services.service_env import Clock, Logs, Server, new_key

ACME = TenantId("acme")


@pytest.fixture
def repair(server: Server) -> Repair:
    return Repair(server.tables)


async def everything(tables: Sqlite) -> dict[str, list[Item]]:
    found = {table.name: [item async for item in tables.scan(table)] for table in TABLES}
    for item in found[TENANTS.name]:
        item.pop("version", None)  # type: ignore[attr-defined]  # the engine gives fresh dicts
    return found


async def kinds(repair: Repair, *, mended: bool = True) -> list[Defect]:
    return [finding.what for finding in await repair.inspect(ACME, shipped()) if finding.is_fixable is mended]


async def test_rows_written_by_the_services_have_no_defects(server: Server, repair: Repair) -> None:
    owner = await server.tenant()
    agent = await server.agent(owner)
    channel = await server.channels.create(owner, name="News")
    await server.subscriptions.put(owner, channel.id, agent.id)
    await server.agents.update(owner, agent.id, public_key=new_key())
    await server.keys.add(owner, agent.id, public_key=new_key())
    before = await everything(server.tables)
    assert [tenant async for tenant in repair.tenants()] == [owner.tenant_id]
    assert await repair.inspect(owner.tenant_id, shipped()) == []
    assert await repair.fix(owner.tenant_id) == []
    assert await memberships(server) == []
    assert await everything(server.tables) == before


async def test_defects_of_an_older_system_are_found_and_fixed_once(server: Server, repair: Repair) -> None:
    key, others = new_key(), new_key()
    claims = [agent_rows.CLAIM_PREFIX + parse_public_key(each).fingerprint for each in (key, others)]
    await server.put(TENANTS, id=ACME, name="Acme", agent_count=9)
    await server.put(USER_TENANTS, user_id="alice", tenant_id=ACME, role="owner")
    await server.put(CHANNELS, tenant_id=ACME, id="general")
    await server.put(AGENTS, tenant_id=ACME, id="bot", public_key=key, model="m")
    await server.put(AGENTS, tenant_id=ACME, id="other", public_key=others, channels={"general": True, "gone": True})
    await server.put(CHANNEL_SUBSCRIPTIONS, tenant_id=ACME, id="5f1c", channel_id="general", agent_id="bot", note="kept")
    await server.put(AGENTS, tenant_id=ACME, id=f"{agent_rows.CLAIM_PREFIX}SHA256:nobody", agent_id="bot")

    before = await everything(server.tables)
    found = await repair.inspect(ACME, shipped())
    assert await everything(server.tables) == before
    assert {(each.what.value, each.key) for each in found} == {
        ("channel_map", "bot"),
        ("channel_map", "other"),
        ("count", ACME),
        ("handle", "bot"),
        ("handle", "general"),
        ("handle", "other"),
        ("key_claim", f"{agent_rows.CLAIM_PREFIX}SHA256:nobody"),
        *(("key_claim", claim) for claim in claims),
        ("subscription_id", "5f1c"),
    }
    assert len(found) == 12
    mended = await repair.fix(ACME)
    assert sorted(map(str, mended)) == sorted(map(str, found))
    assert (await repair.inspect(ACME, shipped()), await repair.fix(ACME)) == ([], [])

    assert [each.what for each in await memberships(server)] == [Defect.MEMBERSHIP]
    assert await memberships(server) == []
    alice = await server.tenants.enter(UserId("alice"), ACME)
    (subscription,) = (await server.subscriptions.list_of_agent(alice, "bot")).items
    assert (subscription.id, subscription.status.value) == ("general#bot", "active")
    assert (await server.item(CHANNEL_SUBSCRIPTIONS, ACME, "general#bot") or {})["note"] == "kept"
    assert await server.item(CHANNEL_SUBSCRIPTIONS, ACME, "5f1c") is None
    connecting = AgentPrincipal(agent_id=AgentId("bot"), tenant_id=ACME, epoch=0)
    assert [each.channel_id for each in await server.subscriptions.for_connect(connecting.tenant_id, connecting.agent_id)] == [
        "@bot",
        "general",
    ]
    assert (await server.agents.get(alice, "other")).channels == set()
    assert (await server.agents.get(alice, "other")).handle == "other"
    assert (await server.channels.get(alice, "general")).handle == "general"
    assert (await server.item(AGENTS, ACME, "bot") or {})["model"] == "m"
    row = await server.item(TENANTS, ACME)
    assert row is not None
    assert (row["agent_count"], row["channel_count"]) == (2, 1)
    assert [each.user_id for each in await server.store.people(ACME).all_members()] == ["alice"]


async def test_invitations_and_tombstones_are_not_defects(server: Server, repair: Repair) -> None:
    owner, gone = await server.tenant(), await server.tenant()
    await server.invitations.create(owner, address="bob@example.com", role=Role.OWNER)
    await server.tenants.delete(gone)
    before = await everything(server.tables)
    for tenant_id in (owner.tenant_id, gone.tenant_id):
        assert (await repair.inspect(tenant_id, shipped()), await repair.fix(tenant_id)) == ([], [])
    assert await memberships(server) == []
    assert await everything(server.tables) == before


async def test_second_row_for_the_same_channel_and_agent_is_deleted(server: Server, repair: Repair) -> None:
    await server.put(TENANTS, id=ACME, agent_count=1, channel_count=1, member_count=0)
    await server.put(CHANNELS, tenant_id=ACME, id="c")
    await server.put(AGENTS, tenant_id=ACME, id="a", channels={"c": True})
    for id, note in (("1", "one"), ("c#a", "right"), ("2", "two")):
        await server.put(CHANNEL_SUBSCRIPTIONS, tenant_id=ACME, id=id, channel_id="c", agent_id="a", note=note)
    assert await kinds(repair) == [Defect.SUBSCRIPTION_ID] * 2 + [Defect.HANDLE] * 2
    await repair.fix(ACME)
    assert [item["note"] for item in await server.items(CHANNEL_SUBSCRIPTIONS, ACME)] == ["right"]


async def test_defects_for_a_person_are_reported_and_left(server: Server, repair: Repair) -> None:
    key = new_key()
    await server.put(TENANTS, id=ACME, agent_count=4, channel_count=0)
    for id in ("a", "b", "team/bot", "x" * 300):
        await server.put(AGENTS, tenant_id=ACME, id=id, **({"public_key": key} if id in "ab" else {}))
    await server.put(CHANNEL_SUBSCRIPTIONS, tenant_id=ACME, id="?", status="active")
    await repair.fix(ACME)
    before = await everything(server.tables)
    assert sorted(await kinds(repair, mended=False)) == [
        Defect.ADDRESS,
        Defect.KEY,
        Defect.KEY,
        Defect.KEY_CLAIM,
        Defect.SUBSCRIPTION_ID,
    ]
    assert await kinds(repair) == []
    await repair.fix(ACME)
    assert await everything(server.tables) == before


async def test_tenant_with_an_interrupted_deletion_is_only_reported(server: Server, repair: Repair) -> None:
    await server.put(TENANTS, id=ACME, deleting=True)
    await server.put(AGENTS, tenant_id=ACME, id="a", public_key=new_key())
    assert await kinds(repair, mended=False) == [Defect.DELETION]
    assert await repair.fix(ACME) == []
    assert (await repair.inspect(TenantId("none"), shipped()), await repair.fix(TenantId("none"))) == ([], [])


# --- meanwhile -------------------------------------------------------------------------------------------------------


async def test_fix_during_concurrent_changes_loses_nothing(server: Server, repair: Repair) -> None:
    owner = await server.tenant()
    channel = await server.channels.create(owner, name="News")
    agents = [await server.agent(owner, f"{n}") for n in range(4)]
    for n in range(30):
        await server.put(CHANNEL_SUBSCRIPTIONS, tenant_id=owner.tenant_id, id=f"old-{n}", channel_id=channel.id, agent_id=f"a{n}")
        await server.put(AGENTS, tenant_id=owner.tenant_id, id=f"a{n}", public_key=new_key())

    async def work() -> None:
        for agent in agents:
            await server.subscriptions.put(owner, channel.id, agent.id)
            await server.subscriptions.delete(owner, channel.id, agent.id)
            await server.subscriptions.put(owner, channel.id, agent.id)

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        group.create_task(repair.fix(owner.tenant_id))
    assert await repair.inspect(owner.tenant_id, shipped()) == []
    assert {each.agent_id for each in (await server.subscriptions.list_of_channel(owner, channel.id)).items} == {
        *(agent.id for agent in agents),
        *(f"a{n}" for n in range(30)),
    }


names = st.sampled_from(["a", "b", "c", "c#a", "a#b"])
KEYS = [new_key() for _ in range(2)]
agents = st.dictionaries(
    names,
    st.fixed_dictionaries(
        {}, optional={"public_key": st.sampled_from([*KEYS, "x"]), "channels": st.dictionaries(names, st.just(True))}
    ),
)
subscriptions = st.dictionaries(st.sampled_from(["a#b", "b#a", "c#a#b", "1", "2", "3"]), st.tuples(names, names))
counts = st.none() | st.integers(0, 5) | st.just("many")


@settings(max_examples=80)
@given(agents, st.sets(names), subscriptions, counts, counts, st.dictionaries(st.sampled_from(["SHA256:x", "SHA256:y"]), names))
async def test_one_fix_repairs_any_generated_defects(
    agents: dict[str, Item],
    channels: set[str],
    subscriptions: dict[str, tuple[str, str]],
    agent_count: str | int | None,
    channel_count: str | int | None,
    claims: dict[str, str],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tables = await Sqlite.open(Path(folder) / "tables.db", Environment.PROD)
        try:
            server = Server(tables, Clock(), Logs())
            told = {"agent_count": agent_count, "channel_count": channel_count}
            await server.put(TENANTS, id=ACME, **{name: count for name, count in told.items() if count is not None})
            for agent_id, attributes in agents.items():
                await tables.put(Put(AGENTS, {**attributes, "tenant_id": ACME, "id": agent_id}))
            for channel_id in channels:
                await server.put(CHANNELS, tenant_id=ACME, id=channel_id)
            for id, (channel_id, agent_id) in subscriptions.items():
                await server.put(CHANNEL_SUBSCRIPTIONS, tenant_id=ACME, id=id, channel_id=channel_id, agent_id=agent_id)
            for fingerprint, agent_id in claims.items():
                await server.put(AGENTS, tenant_id=ACME, id=agent_rows.CLAIM_PREFIX + fingerprint, agent_id=agent_id)
            repair = Repair(tables)
            found = [finding for finding in await repair.inspect(ACME, shipped()) if finding.is_fixable]
            assert {str(each) for each in await repair.fix(ACME)} >= set(map(str, found))
            assert [finding for finding in await repair.inspect(ACME, shipped()) if finding.is_fixable] == []
            assert await repair.fix(ACME) == []
            pairs = {(item["channel_id"], item["agent_id"]) for item in await server.items(CHANNEL_SUBSCRIPTIONS, ACME)}
            assert pairs == set(subscriptions.values())
            for agent in await server.store.tenant(ACME).all_agents():
                assert agent.channels == {c for c, a in pairs if a == agent.id and c in channels}
        finally:
            await tables.close()
