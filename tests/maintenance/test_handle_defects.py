"""Handles that rows of an older system lack, and damaged handles and claims, found and fixed."""

from __future__ import annotations

import pytest

from artcafe.maintenance.integrity import Defect
from artcafe.maintenance.repair import Repair
from artcafe.model import HandleKind, TenantId, UserPrincipal
from artcafe.plan_catalogue import shipped
from artcafe.tables.catalog import AGENTS, CHANNEL_SUBSCRIPTIONS, CHANNELS, TENANTS
from artcafe.tables.engine.values import Item
from artcafe.tables.handle_claims import claim_item, claim_key
from tests.services.service_env import Server, new_key

ACME = TenantId("acme")


@pytest.fixture
def repair(server: Server) -> Repair:
    return Repair(server.tables)


async def handles(server: Server, tenant_id: str = ACME) -> dict[str, object]:
    """Return the handle of each agent and channel, by id."""
    items = [*await server.items(AGENTS, tenant_id), *await server.items(CHANNELS, tenant_id)]
    return {str(item["id"]): item.get("handle") for item in items if not str(item["id"]).startswith("~")}


async def claims(server: Server, tenant_id: str = ACME) -> dict[str, object]:
    """Return the owner of each claim of a handle."""
    items = await server.items(AGENTS, tenant_id)
    found = [item for item in items if str(item["id"]).startswith("~key#handle#")]
    return {str(item["id"]).removeprefix("~key#handle#"): item.get("agent_id") or item.get("channel_id") for item in found}


async def fixed(repair: Repair, tenant_id: TenantId = ACME) -> list[tuple[str, str]]:
    """Fix the tenant, check that nothing is left, and return the table and key of each finding about handles."""
    found = await repair.inspect(tenant_id, shipped())
    done = await repair.fix(tenant_id)
    assert sorted(map(str, done)) == sorted(str(each) for each in found if each.is_fixable)
    assert [each for each in await repair.inspect(tenant_id, shipped()) if each.is_fixable] == []
    return sorted((each.table, each.key) for each in done if each.what is Defect.HANDLE)


async def older(server: Server) -> None:
    """Write a tenant of an older system: agents and channels with names of all kinds, and no handles."""
    await server.put(TENANTS, id=ACME, name="Acme")
    for id, name in (("uuid-1", "Bot"), ("uuid-2", "bot"), ("bot", "Third"), ("A B", None), ("x#y", "計画")):
        named = {} if name is None else {"name": name}
        await server.put(AGENTS, tenant_id=ACME, id=id, public_key=new_key(), **named)
    for id, name in (("c1", "News"), ("c2", "News"), ("news", "Other")):
        await server.put(CHANNELS, tenant_id=ACME, id=id, name=name)
    # This map is fixed too, in another write of the same row.
    await server.put(CHANNEL_SUBSCRIPTIONS, tenant_id=ACME, id="c1#uuid-1", channel_id="c1", agent_id="uuid-1")


async def test_rows_of_an_older_system_get_handles_from_their_names(server: Server, repair: Repair) -> None:
    await older(server)
    assert len(await fixed(repair)) == 8
    assert await handles(server) == {
        "A B": "a-b",
        "bot": "third",
        "uuid-1": "bot-2",  # another agent's id is "bot", and an id wins
        "uuid-2": "bot-3",
        "x#y": "agent",
        "c1": "news-2",
        "c2": "news-3",
        "news": "other",
    }
    found = await claims(server)
    assert {f"{kind}#{handle}" for kind, handle in (key.split("#") for key in found)} == set(found)
    assert found["agent#bot-2"] == "uuid-1"
    assert found["channel#other"] == "news"
    assert len(found) == 8
    assert (await server.record_cache.agent(ACME, "bot-2")).id == "uuid-1"
    assert (await server.record_cache.channel(ACME, "news")).id == "news"


async def test_rows_of_an_older_system_work_by_id_until_then(server: Server) -> None:
    await older(server)
    assert (await server.record_cache.agent(ACME, "uuid-1")).handle is None
    assert (await server.record_cache.channel(ACME, "c1")).handle is None
    assert await server.record_cache.find_channel(ACME, "other") is None


async def sound(server: Server) -> tuple[UserPrincipal, str, str]:
    """Create a tenant with two channels, `news` and `tasks`, and return its owner and their ids."""
    owner = await server.tenant()
    return (
        owner,
        (await server.channels.create(owner, name="News")).id,
        (await server.channels.create(owner, name="Tasks")).id,
    )


async def row(server: Server, owner: UserPrincipal, id: str) -> Item:
    found = await server.item(CHANNELS, owner.tenant_id, id)
    assert found is not None
    return found


async def test_claims_without_a_row_are_deleted_and_missing_ones_are_written(server: Server, repair: Repair) -> None:
    owner, news, tasks = await sound(server)
    tenant_id = owner.tenant_id
    await server.put(AGENTS, **claim_item(tenant_id, HandleKind.CHANNEL, "gone", "chn_gone"))
    await server.put(AGENTS, **claim_item(tenant_id, HandleKind.AGENT, "bot", "agt_gone"))
    await server.put(AGENTS, tenant_id=tenant_id, id=claim_key(tenant_id, HandleKind.AGENT, "x").sort)
    await server.put(AGENTS, **claim_item(tenant_id, HandleKind.CHANNEL, "news", tasks))  # that of `news`
    assert [key for _, key in await fixed(repair, tenant_id)] == [
        f"~key#handle#{rest}" for rest in ("agent#bot", "agent#x", "channel#gone", "channel#news")
    ]
    assert await claims(server, tenant_id) == {"channel#news": news, "channel#tasks": tasks}


async def test_handle_of_two_rows_stays_with_the_one_that_claimed_it(server: Server, repair: Repair) -> None:
    owner, news, tasks = await sound(server)
    tenant_id = owner.tenant_id
    await server.put(CHANNELS, **{**await row(server, owner, news), "handle": "tasks"})
    assert await fixed(repair, tenant_id) == [(AGENTS.name, "~key#handle#channel#news"), (CHANNELS.name, news)]
    assert await handles(server, tenant_id) == {news: "news-2", tasks: "tasks"}
    assert await claims(server, tenant_id) == {"channel#news-2": news, "channel#tasks": tasks}


async def test_row_that_lost_its_handle_gets_the_one_that_it_has_claimed(server: Server, repair: Repair) -> None:
    owner, news, tasks = await sound(server)
    for wrong in (None, 5, "Not a handle"):
        damaged = {name: value for name, value in (await row(server, owner, news)).items() if name != "handle"}
        await server.put(CHANNELS, **damaged, **({} if wrong is None else {"handle": wrong}))
        assert await fixed(repair, owner.tenant_id) == [(CHANNELS.name, news)]
        assert await handles(server, owner.tenant_id) == {news: "news", tasks: "tasks"}


async def test_rows_in_deletion_keep_their_handles(server: Server, repair: Repair) -> None:
    owner, news, tasks = await sound(server)
    await server.put(CHANNELS, **{**await row(server, owner, news), "deleting": True})
    assert await fixed(repair, owner.tenant_id) == []
    assert await claims(server, owner.tenant_id) == {"channel#news": news, "channel#tasks": tasks}
