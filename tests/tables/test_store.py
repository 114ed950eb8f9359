from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.errors import BadCursor
from artcafe.model import (
    Agent,
    AgentId,
    AgentStatus,
    ChallengeId,
    Channel,
    ChannelId,
    Cursor,
    Epoch,
    Invitation,
    InvitationId,
    LoginChallenge,
    Member,
    Permission,
    Role,
    SkippedRange,
    Subscription,
    SubscriptionStatus,
    Tenant,
    TenantId,
    UserId,
)
from artcafe.rules.pages import FIRST, PageRequest
from artcafe.tables import agent_rows, people_rows, rows
from artcafe.tables.catalog import AGENTS, CHALLENGES, CHANNEL_SUBSCRIPTIONS, TABLES, TENANTS
from artcafe.tables.engine.port import ConditionFailed, Tables
from artcafe.tables.engine.values import Item, Value, normal_item
from artcafe.tables.engine.writes import Add, Assign, ItemKey, Put
from artcafe.tables.store import Store
from artcafe.tables.tenant_store import RecordCount, TenantStore

NOW = datetime(2026, 11, 22, 16, 50, 57, 123_000, tzinfo=UTC)
ACME, OTHER = TenantId("ten_a"), TenantId("ten_b")
AGENT, CHANNEL = AgentId("agt_a"), ChannelId("chn_a")


@pytest.fixture
def store(tables: Tables) -> Store:
    return Store(tables)


@pytest.fixture
async def acme(store: Store) -> TenantStore:
    """Return the store of an existing tenant."""
    await store.transact([store.insert_tenant(tenant(ACME))])
    return store.tenant(ACME)


def tenant(id: TenantId, version: int = 0, agent_count: int = 0, channel_count: int = 0) -> Tenant:
    return Tenant(
        id=id,
        name="Acme",
        limits={"agents": 3},
        created_at=NOW,
        updated_at=NOW,
        version=version,
        agent_count=agent_count,
        channel_count=channel_count,
    )


def agent(id: AgentId = AGENT, tenant_id: TenantId = ACME) -> Agent:
    return Agent(
        tenant_id=tenant_id,
        id=id,
        name="Planner",
        description="Plans.",
        public_key="ssh-ed25519 AAAA",
        capabilities=("plan", "write"),
        status=AgentStatus.DISABLED,
        created_at=NOW,
        updated_at=NOW,
        epoch=3,
        channels=frozenset({CHANNEL}),
        request_hash="h",
    )


def channel(id: ChannelId = CHANNEL, tenant_id: TenantId = ACME) -> Channel:
    return Channel(
        tenant_id=tenant_id, id=id, name="News", description="D", retention_s=60, created_at=NOW, updated_at=NOW, request_hash="h"
    )


def subscription(cursor: Cursor = Cursor(), tenant_id: TenantId = ACME) -> Subscription:  # noqa: B008 (it is frozen)
    return Subscription(
        tenant_id=tenant_id,
        channel_id=CHANNEL,
        agent_id=AGENT,
        status=SubscriptionStatus.PAUSED,
        cursor=cursor,
        start=cursor,
        created_at=NOW,
        updated_at=NOW,
    )


def invitation() -> Invitation:
    return Invitation(
        tenant_id=ACME,
        id=InvitationId("inv_a"),
        address="a@example.com",
        role=Role.ADMIN,
        invited_by="usr:bob",
        created_at=NOW,
        expires_at=NOW + timedelta(hours=72),
    )


def challenge() -> LoginChallenge:
    expires_at = NOW.replace(microsecond=0) + timedelta(seconds=300)
    return LoginChallenge(id=ChallengeId("chl_a"), text="sign me", tenant_id=ACME, agent_id=AGENT, expires_at=expires_at)


async def put(tables: Tables, item: Item) -> None:
    await tables.put(Put(AGENTS, item))


# --- records ---------------------------------------------------------------------------------------------------------


async def test_every_record_is_read_back_unchanged(store: Store, acme: TenantStore) -> None:
    made = subscription(Cursor(epoch=Epoch("e"), seq=7))
    await acme.transact([acme.insert_agent(agent()), acme.insert_channel(channel()), acme.subscriptions.insert(made)])
    alice = UserId("alice")
    invited = InvitationId("inv_a")
    member = Member(user_id=alice, tenant_id=ACME, role=Role.ADMIN, joined_at=NOW, address="a@example.com", invitation_id=invited)
    people = store.people(ACME)
    await store.transact([*people.insert_member(member), people.insert_invitation(invitation())])
    await store.put_challenge(challenge())
    assert await acme.tenant() == tenant(ACME)
    assert await acme.agent(AGENT) == agent()
    assert await acme.channel(CHANNEL) == channel()
    assert await acme.subscriptions.get(CHANNEL, AGENT) == made
    assert await people.member(alice) == member
    assert await people.all_members() == [member], "and no invitation"
    assert await people.invitation(invited) == invitation()
    assert await people.all_invitations() == [invitation()]
    assert await store.take_challenge("chl_a", "1", NOW) == challenge()


async def test_items_have_every_attribute_of_existing_tables(store: Store, tables: Tables, acme: TenantStore) -> None:
    made = {
        "artcafe-agents": agent_rows.agent_item(agent()),
        "artcafe-tenants": rows.tenant_item(tenant(ACME)),
        "artcafe-channels": rows.channel_item(channel()),
        "artcafe-channel-subscriptions": rows.subscription_item(subscription()),
        "artcafe-Challenges": rows.challenge_item(challenge()),
        "artcafe-user-tenants": people_rows.member_item(
            Member(user_id=UserId("a"), tenant_id=ACME, role=Role.OWNER, joined_at=NOW)
        ),
    }
    for table in TABLES:
        if table.name in made:
            assert {*table.key_attributes, *table.attributes} <= made[table.name].keys(), table.name


async def test_inserting_an_existing_record_fails_and_keeps_it(store: Store, acme: TenantStore) -> None:
    writes = [acme.insert_agent(agent()), acme.insert_channel(channel()), acme.subscriptions.insert(subscription())]
    await acme.transact(writes)
    for write in (*writes, store.insert_tenant(tenant(ACME, version=99))):
        with pytest.raises(ConditionFailed):
            await acme.transact([write])
    found = await acme.tenant()
    assert found is not None
    assert found.version == 0


# --- isolation of tenants --------------------------------------------------------------------------------------------


async def test_foreign_records_are_answered_like_missing_ones(store: Store, acme: TenantStore) -> None:
    await store.transact(
        [
            acme.insert_agent(agent()),
            acme.insert_channel(channel()),
            acme.subscriptions.insert(subscription()),
            acme.claim_key("SHA256:x", AGENT),
        ]
    )
    other = store.tenant(OTHER)
    assert await other.tenant() is None
    assert await other.agent(AGENT) is None
    assert await other.channel(CHANNEL) is None
    assert await other.subscriptions.get(CHANNEL, AGENT) is None
    assert await other.key_owner("SHA256:x") is None
    assert (await other.agents(FIRST)).items == ()
    assert (await other.channels(FIRST)).items == ()
    assert (await other.subscriptions.of_channel(CHANNEL, FIRST)).items == ()
    assert (await other.member_count(), await other.all_agents(), await other.all_channels()) == (0, [], [])


async def test_writes_of_one_tenant_never_reach_another_tenants_rows(store: Store, acme: TenantStore) -> None:
    await acme.transact([acme.insert_agent(agent()), acme.insert_channel(channel()), acme.subscriptions.insert(subscription())])
    other = store.tenant(OTHER)
    for write in (
        other.touch(),
        other.begin_deletion(),
        other.change_agent(agent(), [Assign("name", "Mine")]),
        other.begin_agent_deletion(AGENT),
        other.delete_agent(AGENT),
        other.change_channel(channel(), [Assign("name", "Mine")]),
        other.check_channel(CHANNEL),
        other.begin_channel_deletion(CHANNEL),
        other.delete_channel(CHANNEL),
        other.subscriptions.set_status(CHANNEL, AGENT, SubscriptionStatus.ACTIVE, NOW),
        other.subscriptions.delete(CHANNEL, AGENT, must_exist=True),
        other.subscriptions.enter_channel(AGENT, ChannelId("chn_b")),
        other.subscriptions.leave_channel(AGENT, CHANNEL),
    ):
        with pytest.raises(ConditionFailed):
            await other.transact([write])
    assert not await store.tenant(OTHER).subscriptions.write_cursor(CHANNEL, AGENT, Cursor(epoch=Epoch("e"), seq=9))
    await other.remove_all()
    assert await acme.agent(AGENT) == agent()
    assert await acme.channel(CHANNEL) == channel()
    assert await acme.subscriptions.get(CHANNEL, AGENT) == subscription()


async def test_impossible_ids_are_answered_without_reading_the_tables(tables: Tables, store: Store) -> None:
    await tables.close()
    view = store.tenant(ACME)
    for id in ("", "\n", "x" * 129, "\ud800"):
        assert await view.agent(id) is None
        assert await view.channel(id) is None
        assert await view.subscriptions.get_many([(id, AGENT), (CHANNEL, id)]) == [None, None]


# --- the tenant's row ------------------------------------------------------------------------------------------------


async def test_touch_increments_the_version_and_keeps_the_rest(acme: TenantStore) -> None:
    for _ in range(3):
        await acme.transact([acme.touch()])
    assert await acme.tenant() == tenant(ACME, version=3)


async def test_count_changes_with_the_version_up_to_its_limit(acme: TenantStore) -> None:
    for _ in range(2):
        await acme.transact([acme.count(RecordCount.AGENTS, 1, limit=2)])
    with pytest.raises(ConditionFailed):
        await acme.transact([acme.count(RecordCount.AGENTS, 1, limit=2)])
    await acme.transact([acme.count(RecordCount.CHANNELS, 1)])
    assert await acme.tenant() == tenant(ACME, version=3, agent_count=2, channel_count=1)
    await acme.transact([acme.count(RecordCount.AGENTS, -1)])
    assert await acme.tenant() == tenant(ACME, version=4, agent_count=1, channel_count=1)


async def test_touch_fails_for_a_tenant_without_counts_or_being_deleted(store: Store, tables: Tables, acme: TenantStore) -> None:
    await tables.put(Put(TENANTS, {"id": OTHER, "name": "Older"}))
    older = store.tenant(OTHER)
    await acme.transact([acme.begin_deletion()])
    for view in (older, acme, store.tenant(TenantId("ten_none"))):
        with pytest.raises(ConditionFailed) as raised:
            await view.transact([view.touch()])
        assert view.is_gone(raised.value.item) is (view is not older)
    await older.set_counts({RecordCount.AGENTS: 2, RecordCount.CHANNELS: 1, RecordCount.MEMBERS: 3})
    await older.set_counts(dict.fromkeys(RecordCount, 7))
    await older.transact([older.touch()])
    found = await older.tenant()
    assert found is not None
    assert (found.agent_count, found.channel_count, found.member_count, found.version) == (2, 1, 3, 1)


async def test_versions_of_many_tenants_are_read_in_one_call(store: Store, tables: Tables, acme: TenantStore) -> None:
    await acme.transact([acme.touch()])
    await tables.put(Put(TENANTS, {"id": "older"}))
    none = TenantId("ten_none")
    older = TenantId("older")
    assert await store.versions([none, ACME, older]) == {none: None, ACME: 1, older: 0}
    assert await store.versions([]) == {}


async def test_membership_in_a_missing_tenant_is_omitted(store: Store, acme: TenantStore) -> None:
    alice = UserId("alice")
    for tenant_id in (ACME, OTHER):
        member = Member(user_id=alice, tenant_id=tenant_id, role=Role.OWNER, joined_at=NOW)
        await store.transact(store.people(tenant_id).insert_member(member))
    page = await store.memberships(alice, FIRST)
    assert [found.id for found, _ in page.items] == [ACME]


async def test_agent_changed_since_the_read_is_not_overwritten(tables: Tables, acme: TenantStore) -> None:
    await put(tables, {"tenant_id": ACME, "id": "older"})
    await acme.transact([acme.insert_agent(agent())])
    for id in (AGENT, "older"):
        read = await acme.agent(id)
        assert read is not None
        rekey = acme.change_agent(read, [Add("epoch", 1)])
        await acme.transact([rekey])
        with pytest.raises(ConditionFailed):
            await acme.transact([rekey])
        changed = await acme.agent(id)
        assert changed is not None
        assert changed.epoch == read.epoch + 1


# --- key claims ------------------------------------------------------------------------------------------------------


async def test_key_is_claimed_once_and_released_by_its_owner(acme: TenantStore) -> None:
    mine, theirs = AgentId("agt_a"), AgentId("agt_b")
    await acme.transact([acme.claim_key("SHA256:x", mine)])
    await acme.transact([acme.claim_key("SHA256:x", mine)])
    for refused in (acme.claim_key("SHA256:x", theirs), acme.release_key("SHA256:x", theirs)):
        with pytest.raises(ConditionFailed):
            await acme.transact([refused])
    assert await acme.key_owner("SHA256:x") == mine
    await acme.transact([acme.claim_key("SHA256:x", theirs, instead_of=mine)])
    assert await acme.key_owner("SHA256:x") == theirs
    await acme.transact([acme.release_key("SHA256:x", theirs)])
    assert await acme.key_owner("SHA256:x") is None
    await acme.transact([acme.release_key("SHA256:x", theirs)])


async def test_key_claims_do_not_affect_pages_of_agents(acme: TenantStore) -> None:
    for number in range(60):
        await acme.transact([acme.claim_key(f"SHA256:{number:03}", AGENT)])
    for id in ("a", "b", "~z", "é"):
        await acme.transact([acme.insert_agent(agent(AgentId(id)))])
    assert [each.id for each in (await acme.agents(PageRequest(10))).items] == ["a", "b", "~z", "é"]
    page = await acme.agents(PageRequest(2))
    assert ([each.id for each in page.items], page.next) == (["a", "b"], "b")
    page = await acme.agents(PageRequest(2, page.next))
    assert ([each.id for each in page.items], page.next) == (["~z", "é"], None)


# --- subscriptions and cursors ---------------------------------------------------------------------------------------


async def test_sort_key_of_another_channel_is_refused(acme: TenantStore) -> None:
    with pytest.raises(BadCursor):
        await acme.subscriptions.of_channel(CHANNEL, PageRequest(10, "chn_b#agt_a"))


async def test_channel_map_changes_entry_by_entry(acme: TenantStore) -> None:
    await acme.transact([acme.insert_agent(agent())])
    await acme.transact([acme.subscriptions.enter_channel(AGENT, ChannelId("chn_b"))])
    await acme.transact([acme.subscriptions.leave_channel(AGENT, CHANNEL)])
    found = await acme.agent(AGENT)
    assert found is not None
    assert found.channels == {"chn_b"}


async def test_channel_map_is_added_to_an_older_agent_and_kept_if_it_exists(
    store: Store, tables: Tables, acme: TenantStore
) -> None:
    await acme.transact([acme.insert_agent(agent())])
    await put(tables, {"tenant_id": ACME, "id": "older"})
    with pytest.raises(ConditionFailed):
        await acme.transact([acme.subscriptions.enter_channel(AgentId("older"), CHANNEL)])
    for id in (AGENT, AgentId("older")):
        await acme.subscriptions.ensure_channel_map(id)
        await acme.transact([acme.subscriptions.enter_channel(id, ChannelId("chn_b"))])
    with pytest.raises(ConditionFailed):
        await acme.subscriptions.ensure_channel_map(AgentId("agt_none"))
    assert await acme.agent("agt_none") is None
    kept, given_now = await acme.agent(AGENT), await acme.agent("older")
    assert kept is not None
    assert given_now is not None
    assert kept.channels == {"chn_b", CHANNEL}
    assert given_now.channels == {"chn_b"}


async def test_cursor_advances_or_changes_epoch_and_never_moves_back(store: Store, acme: TenantStore) -> None:
    await acme.transact([acme.subscriptions.insert(subscription(Cursor(epoch=Epoch("e1"), seq=10)))])
    steps = [
        ("e1", 9, False),
        ("e1", 10, False),
        ("e1", 12, True),
        ("e1", 11, False),
        ("e2", 3, True),
        ("e2", 4, True),
        ("e2", 2, False),
    ]
    for epoch, seq, moves in steps:
        assert (
            await store.tenant(ACME).subscriptions.write_cursor(CHANNEL, AGENT, Cursor(epoch=Epoch(epoch), seq=seq)) is moves
        ), (epoch, seq)
    assert not await store.tenant(ACME).subscriptions.write_cursor(CHANNEL, AGENT, Cursor())
    found = await acme.subscriptions.get(CHANNEL, AGENT)
    assert found is not None
    assert (found.cursor, found.start) == (Cursor(epoch=Epoch("e2"), seq=4), Cursor(epoch=Epoch("e1"), seq=10))


async def test_move_sets_the_cursor_back_and_voids_acks_of_before(store: Store, acme: TenantStore) -> None:
    epoch, subscriptions = Epoch("e1"), store.tenant(ACME).subscriptions
    before = subscription(Cursor(epoch=epoch, seq=10))
    await acme.transact([acme.subscriptions.insert(before)])
    assert await subscriptions.write_cursor(CHANNEL, AGENT, Cursor(epoch=epoch, seq=20), NOW)

    to = Cursor(epoch=epoch, seq=5)
    skipped = SkippedRange(epoch=epoch, after=1, to=2)
    await acme.transact([subscriptions.move_cursor(before, to, to, skipped, NOW)])
    found = await subscriptions.get(CHANNEL, AGENT)
    assert found is not None
    assert (found.cursor, found.start) == (Cursor(epoch=epoch, seq=5, moves=1), to)
    assert (found.skipped, found.acked_at) == (skipped, NOW)

    assert not await subscriptions.write_cursor(CHANNEL, AGENT, Cursor(epoch=epoch, seq=21))
    assert not await subscriptions.write_cursor(CHANNEL, AGENT, Cursor(epoch=Epoch("e2"), seq=1))
    assert await subscriptions.write_cursor(CHANNEL, AGENT, Cursor(epoch=epoch, seq=6, moves=1))
    with pytest.raises(ConditionFailed):  # It was moved since `before` was read.
        await acme.transact([subscriptions.move_cursor(before, to, to, None, NOW)])


async def test_ack_and_move_at_once_leave_the_cursor_at_or_above_the_move(store: Store, acme: TenantStore) -> None:
    epoch, subscriptions = Epoch("e"), store.tenant(ACME).subscriptions
    before = subscription(Cursor(epoch=epoch, seq=50))
    await acme.transact([acme.subscriptions.insert(before)])
    to = Cursor(epoch=epoch, seq=10)
    async with asyncio.TaskGroup() as group:
        for seq in range(51, 57):
            group.create_task(subscriptions.write_cursor(CHANNEL, AGENT, Cursor(epoch=epoch, seq=seq)))
        group.create_task(acme.transact([subscriptions.move_cursor(before, to, to, None, NOW)]))
    found = await subscriptions.get(CHANNEL, AGENT)
    assert found is not None
    assert found.cursor == Cursor(epoch=epoch, seq=10, moves=1)


async def test_cursor_older_than_its_log_takes_the_first_epoch(store: Store, tables: Tables, acme: TenantStore) -> None:
    await acme.transact([acme.subscriptions.insert(subscription())])
    older: Item = {"tenant_id": OTHER, "id": f"{CHANNEL}#{AGENT}", "channel_id": CHANNEL, "agent_id": AGENT}
    await tables.put(Put(CHANNEL_SUBSCRIPTIONS, older))
    for view in (acme, store.tenant(OTHER)):
        cursor = Cursor(epoch=Epoch("e1"), seq=1)
        assert await store.tenant(view.id).subscriptions.write_cursor(CHANNEL, AGENT, cursor)
        found = await view.subscriptions.get(CHANNEL, AGENT)
        assert found is not None
        assert found.cursor == cursor


async def test_cursor_of_a_deleted_subscription_creates_no_row(store: Store, tables: Tables, acme: TenantStore) -> None:
    assert not await store.tenant(ACME).subscriptions.write_cursor(CHANNEL, AGENT, Cursor(epoch=Epoch("e"), seq=1))
    assert await tables.get(CHANNEL_SUBSCRIPTIONS, [ItemKey(ACME, f"{CHANNEL}#{AGENT}")]) == [None]


async def test_highest_of_concurrent_cursors_wins(store: Store, acme: TenantStore) -> None:
    await acme.transact([acme.subscriptions.insert(subscription(Cursor(epoch=Epoch("e"), seq=0)))])
    async with asyncio.TaskGroup() as group:
        for seq in (7, 3, 20, 11, 19, 1):
            group.create_task(store.tenant(ACME).subscriptions.write_cursor(CHANNEL, AGENT, Cursor(epoch=Epoch("e"), seq=seq)))
    found = await acme.subscriptions.get(CHANNEL, AGENT)
    assert found is not None
    assert found.cursor.seq == 20


# --- challenges ------------------------------------------------------------------------------------------------------


async def test_challenge_can_be_taken_again_by_the_same_attempt(store: Store) -> None:
    await store.put_challenge(challenge())
    assert await store.take_challenge("chl_a", "1", NOW) == challenge()
    assert await store.take_challenge("chl_a", "2", NOW) is None
    assert await store.take_challenge("chl_a", "1", NOW) == challenge()


async def test_one_of_many_concurrent_attempts_takes_the_challenge(store: Store) -> None:
    await store.put_challenge(challenge())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(store.take_challenge("chl_a", str(n), NOW)) for n in range(20)]
    assert sum(task.result() is not None for task in tasks) == 1


async def test_expired_challenge_is_missing_even_before_its_row_is_removed(store: Store, tables: Tables) -> None:
    await store.put_challenge(challenge())
    assert await store.take_challenge("chl_a", "1", challenge().expires_at) is None
    (row,) = await tables.get(CHALLENGES, [ItemKey("chl_a")], consistent=True)
    assert row is not None
    assert "used_by" not in row
    assert await store.take_challenge("chl_a", "1", challenge().expires_at - timedelta(milliseconds=1)) is not None


async def test_taking_a_missing_challenge_creates_no_row(store: Store, tables: Tables) -> None:
    assert await store.take_challenge("chl_none", "1", NOW) is None
    assert await tables.get(CHALLENGES, [ItemKey("chl_none")], consistent=True) == [None]


# --- removed messages of a channel -----------------------------------------------------------------------------------


async def test_removal_is_recorded_and_never_moves_backwards_in_a_log(acme: TenantStore) -> None:
    first, second = Epoch("e1"), Epoch("e2")
    await acme.transact([acme.insert_channel(channel())])
    assert await acme.removed_to(CHANNEL) == Cursor()
    for epoch, seq, then in [(first, 5, 5), (first, 9, 9), (first, 9, 9), (first, 8, 9), (second, 2, 2), (second, 3, 3)]:
        assert await acme.note_removed(CHANNEL, Cursor(epoch=epoch, seq=seq))
        assert await acme.removed_to(CHANNEL) == Cursor(epoch=epoch, seq=then)
    found = await acme.channel(CHANNEL)
    assert found is not None
    assert (found.removed_to, found.retention_s) == (Cursor(epoch=second, seq=3), 60)


async def test_removal_is_recorded_with_the_time_of_the_removed_messages(acme: TenantStore) -> None:
    await acme.transact([acme.insert_channel(channel())])
    assert await acme.removal(CHANNEL) == (Cursor(), None)
    for seq, before in [(5, None), (6, NOW)]:
        place = Cursor(epoch=Epoch("e"), seq=seq)
        assert await acme.note_removed(CHANNEL, place, before)
        assert await acme.removal(CHANNEL) == (place, before)


async def test_removal_is_not_recorded_for_a_deleted_or_foreign_channel(store: Store, acme: TenantStore) -> None:
    await acme.transact([acme.insert_channel(channel())])
    place = Cursor(epoch=Epoch("e"), seq=1)
    assert not await store.tenant(OTHER).note_removed(CHANNEL, place)
    assert await store.tenant(OTHER).removed_to(CHANNEL) == Cursor()
    await acme.transact([acme.begin_channel_deletion(CHANNEL)])
    assert not await acme.note_removed(CHANNEL, place)
    await acme.transact([acme.delete_channel(CHANNEL)])
    assert not await acme.note_removed(CHANNEL, place)
    assert await acme.channel(CHANNEL, also_deleting=True) is None


# --- unexpected items ------------------------------------------------------------------------------------------------

values: st.SearchStrategy[Value] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.decimals(-(10**20), 10**20, places=3),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.binary(max_size=8),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=3),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5), st.integers(-5, 5), max_size=3),
    st.frozensets(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), min_size=1, max_size=3),
)
NAMES = sorted(
    {name for table in TABLES for name in table.attributes}
    | {"epoch", "version", "channels", "acked_seq", "request_hash", "retention_s", "removed_to"}
)


@given(st.dictionaries(st.sampled_from(NAMES), values))
def test_any_row_of_an_older_system_can_be_read(attributes: dict[str, Value]) -> None:
    item = normal_item({**attributes, "tenant_id": "t", "id": "i", "user_id": "u", "challenge_id": "c"})
    read = agent_rows.agent_of(item)
    assert read is not None
    assert read.name
    for record in (read, rows.tenant_of(item), rows.channel_of(item), rows.subscription_of(item)):
        assert record.created_at is None or record.created_at.tzinfo is not None
    assert people_rows.stated_member_of(item).role in Role
    assert rows.challenge_of(item).expires_at.tzinfo is not None


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2025-05-24T10:00:00Z", "2025-05-24T10:00:00+00:00"),
        ("2025-05-24T12:00:00.5+02:00", "2025-05-24T10:00:00.500000+00:00"),
        ("2025-05-24T10:00:00.123456", "2025-05-24T10:00:00.123456+00:00"),
        (1_748_080_800, "2025-05-24T10:00:00+00:00"),
        (Decimal("1748080800.25"), "2025-05-24T10:00:00.250000+00:00"),
        (1_748_080_800_000, "2025-05-24T10:00:00+00:00"),
        ("yesterday", None),
        ("", None),
        (None, None),
        (True, None),
        (10**30, None),
        (-(10**30), None),
    ],
)
def test_times_are_read_in_every_format_of_older_systems(written: Value, read: str | None) -> None:
    created_at = rows.channel_of({"tenant_id": "t", "id": "i", "created_at": written}).created_at
    assert created_at == (None if read is None else datetime.fromisoformat(read))


def test_unreadable_expiry_counts_as_expired() -> None:
    key = {"public_key": "k", "not_after": "some day"}
    (found,) = agent_rows.keys_of({"keys": {"key_1": key}})
    assert found.not_after is not None
    assert found.not_after.year == 1970
    assert rows.challenge_of({}).expires_at.year == 1970
    assert people_rows.invitation_of({"expires_at": None}).expires_at.year == 1970


@pytest.mark.parametrize(
    ("written", "read"),
    [(["a", 7, "b"], ("a", "b")), (frozenset({"b", "a"}), ("a", "b")), ("a,b", ()), (None, ()), ({"a": 1}, ())],
)
def test_capabilities_are_a_list_or_a_set_of_texts(written: Value, read: tuple[str, ...]) -> None:
    found = agent_rows.agent_of({"tenant_id": "t", "id": "i", "capabilities": written})
    assert found is not None
    assert found.capabilities == read


RECEIVE, PUBLISH = Permission.RECEIVE, Permission.PUBLISH


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"read": 1, "write": 0, "publish": 0, "subscribe": 1, "manage": 0}, {RECEIVE}),
        ({"read": 1, "write": 1, "publish": 1, "subscribe": 1, "manage": 0}, {RECEIVE, PUBLISH}),
        ({"read": True, "write": False}, {RECEIVE}),
        ({"read": 0, "subscribe": 1}, {RECEIVE}),
        ({"read": 0, "manage": True}, {PUBLISH}),
        ({"read": 0, "write": 0, "publish": 0, "subscribe": 0, "manage": 0}, set()),
        ({"read": "1", "write": "yes", "publish": 2}, set()),
        ({"publish": Decimal(1)}, {RECEIVE, PUBLISH}),
        ({}, {RECEIVE}),
        (None, {RECEIVE}),
        (["publish", "fly"], {PUBLISH}),
        (frozenset({"receive", "publish"}), {RECEIVE, PUBLISH}),
        ([], set()),
        ("receive", set()),
        (1, set()),
    ],
)
def test_permissions_are_a_list_or_an_older_map_of_flags(written: Value, read: set[Permission]) -> None:
    found = rows.subscription_of({"tenant_id": "t", "channel_id": "c", "agent_id": "a", "permissions": written})
    assert found.permissions == read


def test_unknown_role_reads_as_viewer() -> None:
    roles = {
        role: people_rows.stated_member_of({"role": role}).role
        for role in ("owner", "admin", "member", "viewer", "Owner", "root", "", None)
    }
    assert [roles[role] for role in ("owner", "admin", "member", "viewer")] == [Role.OWNER, Role.ADMIN, Role.MEMBER, Role.VIEWER]
    assert {roles[role] for role in ("Owner", "root", "", None)} == {Role.VIEWER}


def test_limit_other_than_an_integer_is_ignored() -> None:
    limits: Value = {"agents": 5, "channels": "many", "messages": True, "bytes": Decimal("1.5")}
    assert rows.tenant_of({"id": "t", "limits": limits}).limits == {"agents": 5}
