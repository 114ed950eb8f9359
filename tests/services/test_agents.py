from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

import pytest

from artcafe.errors import (
    AgentNotFound,
    ArtcafeError,
    BadKey,
    Forbidden,
    IdempotencyMismatch,
    Invalid,
    KeyTaken,
    LimitReached,
    TenantNotFound,
)
from artcafe.model import Agent, AgentStatus, Role, UserId, UserPrincipal
from artcafe.rules.pages import PageRequest
from artcafe.tables.catalog import AGENTS, CHANNEL_SUBSCRIPTIONS, CHANNELS, TENANTS, USER_TENANTS
from artcafe.wire.sshkeys import parse_public_key
from tests.services.service_env import Server, new_key, proven, with_role


@pytest.fixture
async def owner(server: Server) -> UserPrincipal:
    return await server.tenant()


async def count(server: Server, owner: UserPrincipal) -> int:
    row = await server.store.tenant(owner.tenant_id).tenant()
    assert row is not None
    return row.agent_count


async def all_agents(server: Server, owner: UserPrincipal, limit: int = 50) -> list[Agent]:
    found: list[Agent] = []
    after = None
    while True:
        page = await server.agents.list(owner, PageRequest(limit, after))
        assert len(page.items) <= limit
        found += page.items
        after = page.next
        if after is None:
            return found


# --- creating --------------------------------------------------------------------------------------------------------


async def test_created_agent_is_read_back_with_every_field(server: Server, owner: UserPrincipal) -> None:
    key = new_key()
    agent = await server.agents.create(
        owner, name="Planner", public_key=f"{key} a comment\n", description="Plans.", capabilities=["plan", "plan", "write"]
    )
    assert await server.another().agents.get(owner, agent.id) == agent
    assert (agent.name, agent.description, agent.capabilities) == ("Planner", "Plans.", ("plan", "write"))
    assert (agent.public_key, agent.status, agent.channels) == (key, AgentStatus.ACTIVE, frozenset())
    assert agent.created_at == agent.updated_at == server.clock()


async def test_two_agents_may_have_the_same_name(server: Server, owner: UserPrincipal) -> None:
    one, other = await server.agent(owner, "Planner"), await server.agent(owner, "Planner")
    assert one.id != other.id


async def test_invalid_agent_field_is_named_and_creates_nothing(server: Server, owner: UserPrincipal) -> None:
    for wrong in (
        server.agents.create(owner, name="", public_key=new_key()),
        server.agents.create(owner, name="A", public_key=new_key(), description="x" * 2000),
        server.agents.create(owner, name="A", public_key=new_key(), capabilities=[""]),
        server.agents.create(owner, name="A", public_key=new_key(), idempotency_key=""),
    ):
        with pytest.raises(Invalid):
            await wrong
    with pytest.raises(BadKey):
        await server.agents.create(owner, name="A", public_key="ssh-dss AAAA")
    assert await all_agents(server, owner) == []
    assert await count(server, owner) == 0


async def test_fifty_concurrent_creates_with_a_limit_of_ten_create_exactly_ten(server: Server, owner: UserPrincipal) -> None:
    item = await server.item(TENANTS, owner.tenant_id)
    assert item is not None
    await server.put(TENANTS, **{**item, "limits": {"agents": 10}})
    made: list[Agent] = []
    refused: list[LimitReached] = []
    servers = [server, server.another()]

    async def create(number: int) -> None:
        try:
            made.append(await servers[number % 2].agent(owner, f"Agent {number}"))
        except LimitReached as exc:
            refused.append(exc)

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(create(number))
    assert (len(made), len(refused)) == (10, 40)
    assert await count(server, owner) == 10
    assert sorted(agent.id for agent in await all_agents(server, owner)) == sorted(agent.id for agent in made)
    assert {(each.limit, each.most, each.used) for each in refused} == {("agents", 10, 10)}


async def test_deleting_an_agent_frees_its_place_under_the_limit(server: Server, owner: UserPrincipal) -> None:
    item = await server.item(TENANTS, owner.tenant_id)
    assert item is not None
    await server.put(TENANTS, **{**item, "limits": {"agents": 1}})
    agent = await server.agent(owner)
    with pytest.raises(LimitReached):
        await server.agent(owner)
    await server.agents.delete(owner, agent.id)
    await server.agent(owner)


async def test_agent_cannot_be_created_in_a_deleted_tenant(server: Server, owner: UserPrincipal) -> None:
    await server.tenants.delete(owner)
    with pytest.raises(TenantNotFound):
        await server.agent(owner)


# --- repeating -------------------------------------------------------------------------------------------------------


async def test_repeated_create_returns_the_same_agent_and_counts_once(server: Server, owner: UserPrincipal) -> None:
    key = new_key()
    first = await server.agents.create(owner, name="Planner", public_key=key, idempotency_key="k")
    again = await server.another().agents.create(owner, name="Planner", public_key=f"{key} comment", idempotency_key="k")
    assert again == first
    assert await count(server, owner) == 1


async def test_repeated_create_succeeds_when_the_limit_is_reached(server: Server, owner: UserPrincipal) -> None:
    item = await server.item(TENANTS, owner.tenant_id)
    assert item is not None
    await server.put(TENANTS, **{**item, "limits": {"agents": 1}})
    key = new_key()
    first = await server.agents.create(owner, name="Planner", public_key=key, idempotency_key="k")
    assert await server.agents.create(owner, name="Planner", public_key=key, idempotency_key="k") == first


async def test_concurrent_repeats_create_one_agent(server: Server, owner: UserPrincipal) -> None:
    key = new_key()
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(server.agents.create(owner, name="Planner", public_key=key, idempotency_key="k")) for _ in range(10)
        ]
    assert len({task.result().id for task in tasks}) == 1
    assert await count(server, owner) == 1


async def test_different_request_with_the_same_idempotency_key_is_refused(server: Server, owner: UserPrincipal) -> None:
    key = new_key()
    await server.agents.create(owner, name="Planner", public_key=key, idempotency_key="k")
    for name, public_key in (("Writer", key), ("Planner", new_key())):
        with pytest.raises(IdempotencyMismatch):
            await server.agents.create(owner, name=name, public_key=public_key, idempotency_key="k")
    assert await count(server, owner) == 1


async def test_idempotency_keys_are_separate_for_each_member_and_tenant(server: Server, owner: UserPrincipal) -> None:
    makers = (owner, with_role(owner, Role.MEMBER), await server.tenant("bob"))
    made = [await server.agents.create(each, name="A", public_key=new_key(), idempotency_key="k") for each in makers]
    assert len({agent.id for agent in made}) == 3


# --- keys ------------------------------------------------------------------------------------------------------------


async def test_key_of_another_agent_of_the_tenant_is_refused(server: Server, owner: UserPrincipal) -> None:
    key = new_key()
    agent = await server.agent(owner, public_key=key)
    other = await server.agent(owner)
    for refused in (
        server.agents.create(owner, name="B", public_key=f"{key} same key, other comment"),
        server.agents.update(owner, other.id, public_key=key),
    ):
        with pytest.raises(KeyTaken) as raised:
            await refused
        assert raised.value.agent == agent.id
    assert await count(server, owner) == 2


async def test_agents_of_two_tenants_may_have_the_same_key(server: Server, owner: UserPrincipal) -> None:
    key = new_key()
    await server.agent(owner, public_key=key)
    await server.agent(await server.tenant("bob"), public_key=key)


async def test_one_of_many_concurrent_creates_with_the_same_key_succeeds(server: Server, owner: UserPrincipal) -> None:
    key = new_key()
    made: list[Agent] = []

    async def create(each: Server) -> None:
        with contextlib.suppress(KeyTaken):
            made.append(await each.agent(owner, public_key=key))

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(create(server.another()))
    assert len(made) == 1
    assert await count(server, owner) == 1


async def test_released_key_can_be_used_again(server: Server, owner: UserPrincipal) -> None:
    first, second, third = new_key(), new_key(), new_key()
    one, two = await server.agent(owner, public_key=first), await server.agent(owner, public_key=second)
    await server.agents.update(owner, one.id, public_key=third)
    await server.agents.update(owner, two.id, public_key=first)
    await server.agents.delete(owner, two.id)
    await server.agent(owner, public_key=first)
    await server.agent(owner, public_key=second)


async def test_agents_that_swap_keys_concurrently_never_share_one(server: Server, owner: UserPrincipal) -> None:
    agents = [await server.agent(owner) for _ in range(4)]
    keys = [new_key() for _ in range(3)]

    async def take(agent: Agent, key: str) -> None:
        with contextlib.suppress(ArtcafeError):
            await server.another().agents.update(owner, agent.id, public_key=key)

    async with asyncio.TaskGroup() as group:
        for agent in agents:
            for key in keys:
                group.create_task(take(agent, key))
    held = [agent.public_key for agent in await all_agents(server, owner)]
    assert len(set(held)) == 4
    store = server.store.tenant(owner.tenant_id)
    for agent in await all_agents(server, owner):
        assert await store.key_owner(parse_public_key(agent.public_key).fingerprint) == agent.id


async def test_stale_claim_of_an_agent_deleted_by_an_older_tool_does_not_block_its_key(
    server: Server, owner: UserPrincipal
) -> None:
    key = new_key()
    agent = await server.agent(owner, public_key=key)
    await server.store.tenant(owner.tenant_id).transact([server.store.tenant(owner.tenant_id).delete_agent(agent.id)])
    other = await server.agent(owner, public_key=key)
    with pytest.raises(KeyTaken):
        await server.agent(owner, public_key=key)
    assert (await server.agents.get(owner, other.id)).public_key == key


# --- reading ---------------------------------------------------------------------------------------------------------


async def test_every_page_size_lists_each_agent_once_in_order_without_claims(server: Server, owner: UserPrincipal) -> None:
    made = sorted([(await server.agent(owner, f"Agent {n}")).id for n in range(7)])
    for limit in (1, 2, 3, 6, 7, 8, 200):
        assert [agent.id for agent in await all_agents(server, owner, limit)] == made


async def test_last_page_has_no_next_cursor(server: Server, owner: UserPrincipal) -> None:
    for _ in range(4):
        await server.agent(owner)
    assert (await server.agents.list(owner, PageRequest(4))).next is None
    assert (await server.agents.list(owner, PageRequest(3))).next is not None


async def test_older_id_sorted_after_the_claims_is_listed(server: Server, owner: UserPrincipal) -> None:
    for id in ("~zz", "агент", "0-first"):
        await server.put(AGENTS, tenant_id=owner.tenant_id, id=id, name=id)
    new = await server.agent(owner)
    for limit in (1, 2, 50):
        listed = [agent.id for agent in await all_agents(server, owner, limit)]
        assert listed == ["0-first", new.id, "~zz", "агент"]


async def test_filters_return_only_matching_agents(server: Server, owner: UserPrincipal) -> None:
    plans = await server.agents.create(owner, name="A", public_key=new_key(), capabilities=["plan"])
    both = await server.agents.create(owner, name="B", public_key=new_key(), capabilities=["plan", "write"])
    await server.agent(owner, "C")
    await server.agents.update(owner, both.id, status=AgentStatus.DISABLED)
    found = await server.agents.list(owner, capability="plan")
    assert {agent.id for agent in found.items} == {plans.id, both.id}
    found = await server.agents.list(owner, capability="plan", status=AgentStatus.ACTIVE)
    assert [agent.id for agent in found.items] == [plans.id]
    assert (await server.agents.list(owner, capability="pla")).items == ()


async def test_selective_filter_reads_until_the_page_is_full(server: Server, owner: UserPrincipal) -> None:
    for number in range(30):
        capabilities = ["rare"] if number % 10 == 9 else []
        await server.agents.create(owner, name=f"{number}", public_key=new_key(), capabilities=capabilities)
    page = await server.agents.list(owner, PageRequest(2), capability="rare")
    assert (len(page.items), page.next) == (2, page.items[1].id)
    page = await server.agents.list(owner, PageRequest(2, page.next), capability="rare")
    assert (len(page.items), page.next) == (1, None)


async def test_unknown_malformed_and_foreign_ids_are_not_found(server: Server, owner: UserPrincipal) -> None:
    foreign = await server.agent(await server.tenant("bob"))
    mine = await server.agent(owner)
    claim = next(item["id"] for item in await server.items(AGENTS, owner.tenant_id) if item["id"] != mine.id)
    assert isinstance(claim, str)
    for id in (foreign.id, "agt_00000000000000000000000000", "", "\n", "x" * 5000, "\ud800", claim):
        for refused in (
            server.agents.get(owner, id),
            server.agents.update(owner, id, name="Mine"),
            server.agents.delete(owner, id),
        ):
            with pytest.raises(AgentNotFound) as raised:
                await refused
            assert raised.value.id == id
    assert len(await server.items(AGENTS, owner.tenant_id)) == 3


async def test_agents_and_viewers_can_read_agents_but_not_change_them(server: Server, owner: UserPrincipal) -> None:
    agent = await server.agent(owner)
    for reader in (proven(agent), with_role(owner, Role.VIEWER)):
        assert await server.agents.get(reader, agent.id) == agent
        assert (await server.agents.list(reader)).items == (agent,)
        for refused in (
            server.agents.create(reader, name="B", public_key=new_key()),
            server.agents.update(reader, agent.id, name="B"),
            server.agents.delete(reader, agent.id),
        ):
            with pytest.raises(Forbidden):
                await refused


# --- changing --------------------------------------------------------------------------------------------------------


async def test_update_changes_only_the_given_fields(server: Server, owner: UserPrincipal) -> None:
    agent = await server.agents.create(owner, name="A", public_key=new_key(), description="D", capabilities=["c"])
    server.clock.pass_s(60)
    changed = await server.agents.update(owner, agent.id, name="B")
    assert (changed.name, changed.description, changed.capabilities) == ("B", "D", ("c",))
    assert (changed.public_key, changed.epoch, changed.updated_at) == (agent.public_key, agent.epoch, server.clock())
    emptied = await server.agents.update(owner, agent.id, description="", capabilities=[])
    assert (emptied.name, emptied.description, emptied.capabilities) == ("B", "", ())


async def test_new_status_or_key_raises_the_epoch_and_an_equal_one_does_not(server: Server, owner: UserPrincipal) -> None:
    agent = await server.agent(owner)
    key = new_key()
    epochs = [
        (await server.agents.update(owner, agent.id, status=AgentStatus.ACTIVE, public_key=agent.public_key)).epoch,
        (await server.agents.update(owner, agent.id, status=AgentStatus.DISABLED)).epoch,
        (await server.agents.update(owner, agent.id, status=AgentStatus.DISABLED)).epoch,
        (await server.agents.update(owner, agent.id, status=AgentStatus.ACTIVE, public_key=key)).epoch,
        (await server.agents.update(owner, agent.id, public_key=f"{key} comment")).epoch,
    ]
    assert [epoch - agent.epoch for epoch in epochs] == [0, 1, 1, 2, 2]


async def test_concurrent_changes_all_take_effect(server: Server, owner: UserPrincipal) -> None:
    agent = await server.agent(owner)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.agents.update(owner, agent.id, name="B"))
        group.create_task(server.another().agents.update(owner, agent.id, description="D"))
        group.create_task(server.another().agents.update(owner, agent.id, status=AgentStatus.DISABLED))
        group.create_task(server.another().agents.update(owner, agent.id, public_key=new_key()))
    changed = await server.agents.get(owner, agent.id)
    assert (changed.name, changed.description, changed.status, changed.epoch) == ("B", "D", AgentStatus.DISABLED, 2)
    assert changed.public_key != agent.public_key


async def test_every_change_raises_the_tenants_version_and_is_published(server: Server, owner: UserPrincipal) -> None:
    async def version() -> int:
        row = await server.store.tenant(owner.tenant_id).tenant()
        assert row is not None
        return row.version

    before = await version()
    agent = await server.agent(owner)
    created = await version()
    await server.agents.update(owner, agent.id, status=AgentStatus.DISABLED)
    disabled = await version()
    await server.agents.delete(owner, agent.id)
    assert before < created < disabled < await version()
    server.changed.clear()
    await server.agent(owner)
    assert server.changed == [owner.tenant_id]


# --- deleting --------------------------------------------------------------------------------------------------------


async def test_deleted_agent_leaves_no_rows(server: Server, owner: UserPrincipal) -> None:
    agent, stays = await server.agent(owner), await server.agent(owner)
    channels = [await server.channels.create(owner, name=f"C{n}") for n in range(3)]
    for channel in channels:
        await server.subscriptions.put(owner, channel.id, agent.id)
    kept, _ = await server.subscriptions.put(owner, channels[0].id, stays.id)
    await server.agents.delete(owner, agent.id)
    with pytest.raises(AgentNotFound):
        await server.agents.get(owner, agent.id)
    assert [item["id"] for item in await server.items(CHANNEL_SUBSCRIPTIONS, owner.tenant_id)] == [kept.id]
    left = {str(item["id"]).rpartition("#")[0] for item in await server.items(AGENTS, owner.tenant_id)}
    assert left == {"", "~key", "~key#handle#agent", "~key#handle#channel"}
    assert not [item for item in await server.items(AGENTS, owner.tenant_id) if item.get("agent_id") == agent.id]
    assert await count(server, owner) == 1
    with pytest.raises(AgentNotFound):
        await server.agents.delete(owner, agent.id)


async def test_concurrent_deletes_of_an_agent_count_once(server: Server, owner: UserPrincipal) -> None:
    agent, _ = await server.agent(owner), await server.agent(owner)
    outcomes: list[str] = []

    async def delete() -> None:
        try:
            await server.another().agents.delete(owner, agent.id)
        except AgentNotFound:
            outcomes.append("not found")
        else:
            outcomes.append("deleted")

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(delete())
    assert "deleted" in outcomes
    assert await count(server, owner) == 1


async def test_interrupted_deletion_hides_the_row_and_a_repeat_completes_it(server: Server, owner: UserPrincipal) -> None:
    agent = await server.agent(owner)
    channel = await server.channels.create(owner, name="News")
    await server.subscriptions.put(owner, channel.id, agent.id)
    store = server.store.tenant(owner.tenant_id)
    await store.transact([store.begin_agent_deletion(agent.id)])
    with pytest.raises(AgentNotFound):
        await server.agents.get(owner, agent.id)
    with pytest.raises(AgentNotFound):
        await server.subscriptions.put(owner, channel.id, agent.id)
    assert await all_agents(server, owner) == []
    await server.agents.delete(owner, agent.id)
    assert await count(server, owner) == 0
    (left,) = await server.items(AGENTS, owner.tenant_id)
    assert left["channel_id"] == channel.id  # the claim of its handle
    assert await server.items(CHANNEL_SUBSCRIPTIONS, owner.tenant_id) == []


# --- an older system's rows ------------------------------------------------------------------------------------------


@pytest.fixture
async def older(server: Server) -> UserPrincipal:
    """A tenant with the existing tables' attributes only, as an older system left it."""
    await server.put(TENANTS, id="acme", name="Acme", plan="free", limits={"agents": 3})
    await server.put(USER_TENANTS, user_id="alice", tenant_id="acme", role="owner")
    await server.put(CHANNELS, tenant_id="acme", id="general", name="General")
    return await server.tenants.enter(UserId("alice"), "acme")


@pytest.mark.parametrize(
    ("status", "read"),
    [
        ("active", AgentStatus.ACTIVE),
        ("online", AgentStatus.ACTIVE),
        ("offline", AgentStatus.ACTIVE),
        ("busy", AgentStatus.ACTIVE),
        ("error", AgentStatus.ACTIVE),
        ("", AgentStatus.ACTIVE),
        (None, AgentStatus.ACTIVE),
        ("disabled", AgentStatus.DISABLED),
        ("suspended", AgentStatus.DISABLED),
        ("Active", AgentStatus.DISABLED),
        (True, AgentStatus.DISABLED),
        (1, AgentStatus.DISABLED),
    ],
)
async def test_older_liveness_status_means_active_and_any_other_means_disabled(
    server: Server, older: UserPrincipal, status: str | bool | int | None, read: AgentStatus
) -> None:
    await server.put(AGENTS, tenant_id="acme", id="bot", name="Bot", public_key=new_key(), status=status)
    assert (await server.agents.get(older, "bot")).status is read


async def test_agent_with_only_the_first_systems_attributes_is_read(server: Server, older: UserPrincipal) -> None:
    await server.put(
        AGENTS,
        tenant_id="acme",
        id="0b7f1c6e-3c1c-4a36-9d3b-2f7a1f0f5a11",
        name="Bot",
        description="Older",
        public_key=new_key(),
        capabilities=["plan"],
        status="online",
        created_at="2025-05-24T10:00:00.123456",
        updated_at=1_748_080_800,
    )
    await server.put(AGENTS, tenant_id="acme", id="bare")
    older_agent, bare = await all_agents(server, older)
    assert (older_agent.name, older_agent.capabilities, older_agent.epoch) == ("Bot", ("plan",), 0)
    assert older_agent.created_at == datetime(2025, 5, 24, 10, 0, 0, 123_456, tzinfo=UTC)
    assert older_agent.updated_at == datetime(2025, 5, 24, 10, tzinfo=UTC)
    assert (bare.name, bare.public_key, bare.capabilities, bare.created_at) == ("bare", "", (), None)


async def test_unknown_attributes_survive_a_change(server: Server, older: UserPrincipal) -> None:
    await server.put(
        AGENTS, tenant_id="acme", id="bot", name="Bot", public_key=new_key(), status="online", model="gpt", tags=frozenset({"a"})
    )
    before = await server.item(AGENTS, "acme", "bot")
    await server.agents.update(older, "bot", name="Robot")
    after = await server.item(AGENTS, "acme", "bot")
    assert before is not None
    assert after is not None
    assert {name: value for name, value in after.items() if name not in ("name", "updated_at")} == {
        name: value for name, value in before.items() if name != "name"
    }


async def test_agents_of_an_older_system_count_under_the_limit(server: Server, older: UserPrincipal) -> None:
    for id in ("one", "two"):
        await server.put(AGENTS, tenant_id="acme", id=id, name=id, public_key=new_key())
    outcomes: list[bool] = []

    async def create() -> None:
        try:
            await server.another().agent(older)
        except LimitReached:
            outcomes.append(False)
        else:
            outcomes.append(True)

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(create())
    assert sorted(outcomes) == [False] * 4 + [True]
    assert await count(server, older) == 3
    row = await server.store.tenant(older.tenant_id).tenant()
    assert row is not None
    assert row.channel_count == 1


async def test_key_of_an_older_agent_is_claimed_for_it(server: Server, older: UserPrincipal) -> None:
    key, shared = new_key(), new_key()
    await server.put(AGENTS, tenant_id="acme", id="bot", name="Bot", public_key=f"{key} bot@host\n")
    for id in ("twin-1", "twin-2"):
        await server.put(AGENTS, tenant_id="acme", id=id, name=id, public_key=shared)
    await server.agents.delete(older, "twin-2")
    for taken in (key, shared):
        with pytest.raises(KeyTaken):
            await server.agent(older, public_key=taken)
    await server.agents.update(older, "bot", public_key=new_key())
    assert (await server.agent(older, public_key=key)).public_key == key


async def test_deleting_an_older_agent_lowers_the_count(server: Server, older: UserPrincipal) -> None:
    await server.put(AGENTS, tenant_id="acme", id="bot", name="Bot", public_key="not a key")
    await server.put(AGENTS, tenant_id="acme", id="stays", name="Stays")
    await server.agents.delete(older, "bot")
    assert [agent.id for agent in await all_agents(server, older)] == ["stays"]
    assert await count(server, older) == 1
