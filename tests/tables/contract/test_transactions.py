"""Transactions: all writes or none."""

from __future__ import annotations

import asyncio

import pytest

from artcafe.tables.catalog import AGENTS, TENANTS, USER_TENANT_INDEX, USER_TENANTS
from artcafe.tables.engine.conditions import Absent, And, Equals, Exists, GreaterOrEqual, Less
from artcafe.tables.engine.port import ConditionFailed, Tables
from artcafe.tables.engine.values import Item, Unstorable
from artcafe.tables.engine.writes import Add, Assign, Change, Check, Delete, ItemKey, Put, Remove, Update, Write

TENANT = ItemKey("ten_1")


def member(user: str, role: str) -> list[Write]:
    row = {"user_id": user, "tenant_id": "ten_1", "role": role}
    return [Put(USER_TENANTS, row), Put(USER_TENANT_INDEX, row)]


async def tenant(tables: Tables) -> Item | None:
    (item,) = await tables.get(TENANTS, [TENANT], consistent=True)
    return item


async def agents(tables: Tables) -> list[str]:
    return [str(item["id"]) for item in (await tables.query(AGENTS, "ten_1", limit=200, consistent=True)).items]


async def test_transaction_applies_all_writes(tables: Tables) -> None:
    await tables.put(Put(TENANTS, {"id": "ten_1", "old": True}))
    await tables.put(Put(AGENTS, {"tenant_id": "ten_1", "id": "agt_9"}))
    changes: list[Change] = [Add("agent_count", 1), Remove("old")]
    await tables.transact(
        [
            Put(AGENTS, {"tenant_id": "ten_1", "id": "agt_1"}, Absent("id")),
            Update(TENANTS, TENANT, changes, Exists("id")),
            Delete(AGENTS, ItemKey("ten_1", "agt_9")),
            Check(AGENTS, ItemKey("ten_1", "agt_8"), Absent("id")),
            *member("usr_1", "owner"),
        ]
    )
    assert await tenant(tables) == {"id": "ten_1", "agent_count": 1}
    assert await agents(tables) == ["agt_1"]
    assert await tables.get(USER_TENANTS, [ItemKey("usr_1", "ten_1")]) == await tables.get(
        USER_TENANT_INDEX, [ItemKey("ten_1", "usr_1")]
    )


@pytest.mark.parametrize(
    "failing",
    [
        Check(TENANTS, TENANT, Equals("plan", "paid")),
        Put(TENANTS, {"id": "ten_1"}, Absent("id")),
        Update(TENANTS, TENANT, [Assign("plan", "paid")], Exists("nothing")),
        Update(TENANTS, TENANT, [Assign(("limits", "agents"), 1)]),
        Delete(TENANTS, TENANT, Absent("plan")),
    ],
    ids=lambda write: type(write).__name__,
)
@pytest.mark.parametrize("at", [0, 1, 2])
async def test_one_false_condition_undoes_the_transaction_and_is_named(tables: Tables, failing: Write, at: int) -> None:
    row = {"id": "ten_1", "plan": "free"}
    await tables.put(Put(TENANTS, row))
    writes = member("usr_1", "owner")
    writes.insert(at, failing)
    with pytest.raises(ConditionFailed) as refused:
        await tables.transact(writes)
    assert refused.value.failed == {at: row}
    assert await tenant(tables) == row
    assert await tables.get(USER_TENANTS, [ItemKey("usr_1", "ten_1")]) == [None]
    assert await tables.get(USER_TENANT_INDEX, [ItemKey("ten_1", "usr_1")]) == [None]


async def test_unstorable_result_undoes_the_transaction(tables: Tables) -> None:
    await tables.put(Put(TENANTS, {"id": "ten_1", "count": 10**50}))
    with pytest.raises(Unstorable):
        await tables.transact([*member("usr_1", "owner"), Update(TENANTS, TENANT, [Add("count", 1)])])
    assert await tenant(tables) == {"id": "ten_1", "count": 10**50}
    assert await tables.get(USER_TENANTS, [ItemKey("usr_1", "ten_1")]) == [None]


async def test_transaction_of_a_hundred_writes_is_applied(tables: Tables) -> None:
    await tables.transact([Put(AGENTS, {"tenant_id": "ten_1", "id": f"agt_{number:03}"}) for number in range(100)])
    assert await agents(tables) == [f"agt_{number:03}" for number in range(100)]


@pytest.mark.parametrize("count", [0, 101])
async def test_transaction_of_no_or_too_many_writes_is_refused(tables: Tables, count: int) -> None:
    with pytest.raises(ValueError, match=f"of {count} writes"):
        await tables.transact([Put(AGENTS, {"tenant_id": "ten_1", "id": f"agt_{number}"}) for number in range(count)])
    assert await agents(tables) == []


async def test_transaction_with_one_item_twice_is_refused(tables: Tables) -> None:
    with pytest.raises(ValueError, match="twice"):
        await tables.transact([Update(TENANTS, TENANT, [Add("a", 1)]), Update(TENANTS, TENANT, [Add("b", 1)])])
    assert await tenant(tables) is None


async def test_fifty_concurrent_creates_with_a_limit_of_ten_create_exactly_ten(tables: Tables) -> None:
    await tables.put(Put(TENANTS, {"id": "ten_1", "agent_count": 0}))

    async def create(number: int) -> ConditionFailed | None:
        writes: list[Write] = [
            Put(AGENTS, {"tenant_id": "ten_1", "id": f"agt_{number:02}"}, Absent("id")),
            Update(TENANTS, TENANT, [Add("agent_count", 1), Add("version", 1)], And(Exists("id"), Less("agent_count", 10))),
        ]
        try:
            await tables.transact(writes)
        except ConditionFailed as refused:
            return refused
        return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(create(number)) for number in range(50)]
    refusals = [task.result() for task in tasks]
    made = [f"agt_{number:02}" for number, refused in enumerate(refusals) if refused is None]
    assert len(made) == 10
    assert await agents(tables) == made
    full = {"id": "ten_1", "agent_count": 10, "version": 10}
    assert await tenant(tables) == full
    assert [refused.failed for refused in refusals if refused is not None] == [{1: full}] * 40


async def test_crossing_transactions_have_a_serial_result(tables: Tables) -> None:
    """Transfer credit between two rows concurrently: the total is constant, and no row becomes negative."""
    rows = [ItemKey("ten_a"), ItemKey("ten_b")]
    for key in rows:
        await tables.put(Put(TENANTS, {"id": key.partition, "credit": 5}))

    async def move(source: ItemKey, target: ItemKey) -> bool:
        take = Update(TENANTS, source, [Add("credit", -1)], GreaterOrEqual("credit", 1))
        try:
            await tables.transact([take, Update(TENANTS, target, [Add("credit", 1)])])
        except ConditionFailed:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        there = [group.create_task(move(*rows)) for _ in range(40)]
        back = [group.create_task(move(*rows[::-1])) for _ in range(20)]
    moved = sum(task.result() for task in there) - sum(task.result() for task in back)
    found = await tables.get(TENANTS, rows, consistent=True)
    assert [item["credit"] for item in found if item is not None] == [5 - moved, 5 + moved]
    assert -5 <= moved <= 5
