"""Puts, updates and deletes: results, return values and refusals."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from artcafe.tables.catalog import AGENTS, TENANTS
from artcafe.tables.engine.conditions import Absent, Equals, Exists, Less
from artcafe.tables.engine.port import ConditionFailed, Tables
from artcafe.tables.engine.values import Item, Unstorable
from artcafe.tables.engine.writes import Add, Assign, AssignIfAbsent, Change, Delete, ItemKey, Put, Remove, Update

KEY = ItemKey("ten_1", "agt_1")
AGENT: Item = {"tenant_id": "ten_1", "id": "agt_1", "name": "planner", "channels": {"chn_1": True}, "count": 1}


async def stored(tables: Tables) -> Item | None:
    (item,) = await tables.get(AGENTS, [KEY], consistent=True)
    return item


async def test_put_replaces_the_whole_item(tables: Tables) -> None:
    await tables.put(Put(AGENTS, AGENT))
    await tables.put(Put(AGENTS, {"tenant_id": "ten_1", "id": "agt_1", "status": "active"}))
    assert await stored(tables) == {"tenant_id": "ten_1", "id": "agt_1", "status": "active"}


async def test_conditional_create_applies_once(tables: Tables) -> None:
    create = Put(AGENTS, AGENT, Absent("id"))
    await tables.put(create)
    with pytest.raises(ConditionFailed) as refused:
        await tables.put(Put(AGENTS, {**AGENT, "name": "another"}, Absent("id")))
    assert refused.value.failed == {0: AGENT}
    assert await stored(tables) == AGENT


async def test_update_creates_a_missing_item_with_its_key(tables: Tables) -> None:
    new = await tables.update(Update(AGENTS, KEY, [Assign("name", "planner"), Add("count", 2)]))
    assert new == {"tenant_id": "ten_1", "id": "agt_1", "name": "planner", "count": 2} == await stored(tables)
    assert await tables.update(Update(TENANTS, ItemKey("ten_1"), [Add("count", 1)])) == {"id": "ten_1", "count": 1}


async def test_update_with_a_false_condition_is_refused_with_the_item(tables: Tables) -> None:
    with pytest.raises(ConditionFailed) as refused:
        await tables.update(Update(AGENTS, KEY, [Assign("name", "x")], Exists("id")))
    assert refused.value.failed == {0: None}
    assert await stored(tables) is None
    await tables.put(Put(AGENTS, AGENT))
    with pytest.raises(ConditionFailed) as refused:
        await tables.update(Update(AGENTS, KEY, [Assign("name", "x")], Less("count", 1)))
    assert refused.value.item == AGENT == await stored(tables)


@pytest.mark.parametrize(
    ("changes", "differences"),
    [
        ([Assign("name", None)], {"name": None}),
        ([AssignIfAbsent("name", "x"), AssignIfAbsent("plan", "y")], {"plan": "y"}),
        ([Add("count", -3), Add("other", Decimal("0.5"))], {"count": -2, "other": Decimal("0.5")}),
        ([Add("count", Decimal("0.5"))], {"count": Decimal("1.5")}),
        ([Remove("count"), Remove("nothing")], {"count": ...}),
        ([Assign(("channels", "chn_2"), {"a": 1})], {"channels": {"chn_1": True, "chn_2": {"a": 1}}}),
        ([Assign(("channels", "chn_1"), 1), AssignIfAbsent(("channels", "chn_2"), 2)], {"channels": {"chn_1": 1, "chn_2": 2}}),
        ([AssignIfAbsent(("channels", "chn_1"), 1), Add(("channels", "n"), 1)], {"channels": {"chn_1": True, "n": 1}}),
        ([Remove(("channels", "chn_1")), Remove(("channels", "chn_9"))], {"channels": {}}),
        ([Assign("channels", [])], {"channels": []}),
    ],
    ids=str,
)
async def test_change_affects_only_its_path(tables: Tables, changes: list[Change], differences: dict[str, object]) -> None:
    await tables.put(Put(AGENTS, AGENT))
    new = await tables.update(Update(AGENTS, KEY, changes))
    expected = {name: value for name, value in {**AGENT, **differences}.items() if value is not ...}
    assert new == expected
    assert await stored(tables) == expected


@pytest.mark.parametrize(
    "change",
    [
        Assign(("name", "x"), 1),
        Assign(("nothing", "x"), 1),
        AssignIfAbsent(("count", "x"), 1),
        Remove(("nothing", "x")),
        Add("name", 1),
        Add(("channels", "chn_1"), 1),
    ],
    ids=str,
)
async def test_change_of_a_wrong_type_fails_like_a_condition(tables: Tables, change: Change) -> None:
    await tables.put(Put(AGENTS, AGENT))
    with pytest.raises(ConditionFailed) as refused:
        await tables.update(Update(AGENTS, KEY, [change, Assign("status", "active")]))
    assert refused.value.failed == {0: AGENT}
    assert await stored(tables) == AGENT


@pytest.mark.parametrize("change", [Remove("name"), Remove(("channels", "x")), Assign(("channels", "x"), 1)], ids=str)
async def test_removals_and_map_entries_never_create_an_item(tables: Tables, change: Change) -> None:
    with pytest.raises(ConditionFailed) as refused:
        await tables.update(Update(AGENTS, KEY, [change]))
    assert refused.value.failed == {0: None}
    assert await stored(tables) is None


async def test_inexact_sum_is_refused_and_changes_nothing(tables: Tables) -> None:
    await tables.put(Put(AGENTS, {**AGENT, "count": 10**50}))
    with pytest.raises(Unstorable):
        await tables.update(Update(AGENTS, KEY, [Assign("name", "x"), Add("count", 1)]))
    assert await stored(tables) == {**AGENT, "count": 10**50}


async def test_delete_returns_the_previous_item_and_can_be_repeated(tables: Tables) -> None:
    await tables.put(Put(AGENTS, AGENT))
    assert await tables.delete(Delete(AGENTS, KEY)) == AGENT
    assert await tables.delete(Delete(AGENTS, KEY)) is None
    assert await stored(tables) is None


async def test_delete_with_a_false_condition_is_refused(tables: Tables) -> None:
    await tables.put(Put(AGENTS, AGENT))
    with pytest.raises(ConditionFailed) as refused:
        await tables.delete(Delete(AGENTS, KEY, Equals("name", "another")))
    assert refused.value.failed == {0: AGENT}
    assert await stored(tables) == AGENT
    with pytest.raises(ConditionFailed):
        await tables.delete(Delete(AGENTS, ItemKey("ten_1", "agt_2"), Exists("id")))


async def test_concurrent_additions_are_all_counted(tables: Tables) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(64):
            group.create_task(tables.update(Update(AGENTS, KEY, [Add("count", 1)])))
    item = await stored(tables)
    assert item is not None
    assert item["count"] == 64


async def test_one_of_many_concurrent_creates_wins_and_the_others_get_its_item(tables: Tables) -> None:
    async def create(number: int) -> Item | None:
        try:
            await tables.put(Put(AGENTS, {**AGENT, "number": number}, Absent("id")))
        except ConditionFailed as refused:
            return refused.item
        return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(create(number)) for number in range(32)]
    answers = [task.result() for task in tasks]
    made = {**AGENT, "number": answers.index(None)}
    assert await stored(tables) == made
    assert answers.count(None) == 1
    assert answers.count(made) == 31
