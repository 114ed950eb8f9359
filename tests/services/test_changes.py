from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial

import pytest

from artcafe.errors import TenantNotFound, Unavailable
from artcafe.model import AgentId, TenantId
from artcafe.services.changes import Changes
from artcafe.tables.catalog import TENANTS
from artcafe.tables.port import Assign, ConditionFailed, Key, Update
from artcafe.tables.tenant_store import Count
from artcafe.tables.values import Value
from tests.services.world import Server

WAIT_S = 5


async def test_every_watcher_is_called_with_the_tenant_in_the_order_they_came(server: Server) -> None:
    called: list[tuple[int, TenantId]] = []

    def note(number: int, tenant_id: TenantId) -> None:
        called.append((number, tenant_id))

    for number in range(3):
        server.changes.watch(partial(note, number))
    server.changes.tell(TenantId("ten_a"))
    assert called == [(0, "ten_a"), (1, "ten_a"), (2, "ten_a")]


async def test_what_was_changed_here_is_announced_and_what_another_server_changed_is_not(server: Server) -> None:
    announced: list[TenantId] = []
    changes, told = Changes(server.audit, announced.append), list[TenantId]()
    changes.watch(told.append)
    tenant = server.store.tenant((await server.tenant()).tenant_id)
    await changes.commit(tenant, tenant.touch())
    assert (announced, told) == ([tenant.id], [tenant.id])
    await changes.look(server.store, [tenant.id], {})
    changes.hear(TenantId("ten_b"))
    assert (announced, told) == ([tenant.id], [tenant.id, tenant.id, "ten_b"])


async def test_a_commit_raises_the_version_and_tells(server: Server) -> None:
    tenant = server.store.tenant((await server.tenant()).tenant_id)
    before = await server.store.versions([tenant.id])
    await server.changes.commit(tenant, tenant.touch())
    assert (await server.store.versions([tenant.id]))[tenant.id] == (before[tenant.id] or 0) + 1
    assert server.told == [tenant.id]


async def test_a_commit_whose_condition_failed_changes_nothing_and_names_the_write(server: Server) -> None:
    tenant = server.store.tenant((await server.tenant()).tenant_id)
    before = await server.store.versions([tenant.id])
    with pytest.raises(ConditionFailed) as raised:
        await server.changes.commit(tenant, tenant.touch(), tenant.delete_agent(AgentId("agt_none")))
    assert set(raised.value.failed) == {1}
    with pytest.raises(ConditionFailed) as raised:
        await server.changes.commit(tenant, tenant.count(Count.AGENTS, 1, limit=0))
    assert set(raised.value.failed) == {0}
    assert await server.store.versions([tenant.id]) == before


async def test_a_commit_in_a_tenant_that_is_not_there_says_so(server: Server) -> None:
    tenant = server.store.tenant(TenantId("ten_none"))
    with pytest.raises(TenantNotFound):
        await server.changes.commit(tenant, tenant.touch())


async def test_a_commit_whose_outcome_is_unknown_is_told_too(server: Server) -> None:
    tenant = server.store.tenant((await server.tenant()).tenant_id)
    await server.tables.close()
    with pytest.raises(Unavailable):
        await server.changes.commit(tenant, tenant.touch())
    assert server.told == [tenant.id]


async def test_another_servers_change_is_told_at_the_next_look(server: Server) -> None:
    one, two = [(await server.tenant(name)).tenant_id for name in ("alice", "bob")]
    other = server.another()
    seen = await other.changes.look(other.store, [one, two, one], {})
    assert other.told == [one, two], "a tenant is told when it is first seen: it may have changed since it was kept"
    other.told.clear()
    seen = await other.changes.look(other.store, [one, two], seen)
    assert other.told == []
    tenant = server.store.tenant(one)
    await server.changes.commit(tenant, tenant.touch())
    seen = await other.changes.look(other.store, [one, two], seen)
    assert other.told == [one]


@pytest.mark.parametrize("changed", [{"plan": "team"}, {"limits": {"connections": 3}}, {"status": "suspended"}])
async def test_what_an_operator_writes_into_the_row_is_told_at_the_next_look_though_the_version_stays(
    server: Server, changed: Mapping[str, Value]
) -> None:
    tenant_id = (await server.tenant()).tenant_id
    seen = await server.changes.look(server.store, [tenant_id], {})
    before = await server.directory.tenant(tenant_id)
    await server.tables.update(Update(TENANTS, Key(tenant_id), [Assign(name, value) for name, value in changed.items()]))
    assert await server.directory.tenant(tenant_id) is before
    server.told.clear()
    await server.changes.look(server.store, [tenant_id], seen)
    assert server.told == [tenant_id]
    after = await server.directory.tenant(tenant_id)
    assert after.version == before.version
    assert {name: getattr(after, name) for name in changed} == changed


async def test_a_tenant_that_went_away_is_told(server: Server) -> None:
    owner = await server.tenant()
    other = server.another()
    seen = await other.changes.look(other.store, [owner.tenant_id], {})
    await server.tenants.delete(owner)
    other.told.clear()
    seen = await other.changes.look(other.store, [owner.tenant_id], seen)
    assert other.told == [owner.tenant_id]
    assert seen == {owner.tenant_id: None}


async def test_a_tenant_served_again_is_told_again(server: Server) -> None:
    tenant_id = (await server.tenant()).tenant_id
    seen = await server.changes.look(server.store, [tenant_id], {})
    seen = await server.changes.look(server.store, [], seen)
    assert seen == {}


async def test_an_older_tenant_without_a_version_is_watched_like_any_other(server: Server) -> None:
    await server.put(TENANTS, id="acme")
    acme = TenantId("acme")
    other = server.another()
    seen = await other.changes.look(other.store, [acme], {})
    other.told.clear()
    tenant = server.store.tenant(acme)
    await server.changes.commit(tenant, tenant.touch())
    await other.changes.look(other.store, [acme], seen)
    assert other.told == [acme]


async def test_it_looks_again_and_again_also_after_the_tables_were_away(server: Server) -> None:
    tenant_id = (await server.tenant()).tenant_id
    other = server.another()
    asked, told = asyncio.Queue[int](), asyncio.Event()
    rounds = 0

    def served() -> Iterable[TenantId]:
        nonlocal rounds
        rounds += 1
        asked.put_nowait(rounds)
        if rounds == 2:
            raise Unavailable("the tables")
        return [tenant_id]

    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        running = group.create_task(other.changes.run(other.store, served, period_s=0.001))
        while await asked.get() < 3:
            pass
        other.changes.watch(lambda _: told.set())
        tenant = server.store.tenant(tenant_id)
        await server.changes.commit(tenant, tenant.touch())
        await told.wait()
        running.cancel()


async def test_a_watcher_or_an_id_that_raises_keeps_no_other_tenant_from_being_told(server: Server) -> None:
    tenant_id, told = (await server.tenant()).tenant_id, list[TenantId]()
    changes, impossible = Changes(server.audit), TenantId("x" * 2049)

    def fail(tenant_id: TenantId) -> None:
        raise ValueError(tenant_id)

    changes.watch(fail)
    changes.watch(told.append)
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        running = group.create_task(changes.run(server.store, lambda: [impossible, tenant_id], 0))
        while not told:  # noqa: ASYNC110 (a list tells nobody)
            await asyncio.sleep(0)
        running.cancel()
    assert told == [tenant_id]
    assert changes.supervisor.failures >= 2
