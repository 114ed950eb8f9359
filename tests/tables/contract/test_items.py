"""Items are read back unchanged on every engine."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artcafe.tables.catalog import AGENTS, CHALLENGES, TABLES, TENANTS, Table
from artcafe.tables.engine.conditions import Absent, Exists
from artcafe.tables.engine.port import Tables
from artcafe.tables.engine.values import Item, Unstorable, Value, normal_item
from artcafe.tables.engine.writes import Assign, Delete, ItemKey, Put, Remove, Update
from tests.tables.strategies import names, texts, values, with_types

# All examples of a test share the engine; each example writes its own item.
on_one_engine = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


async def one(tables: Tables, table: Table, key: ItemKey) -> Item | None:
    (item,) = await tables.get(table, [key], consistent=True)
    return item


@on_one_engine
@given(attributes=st.dictionaries(names(), values(), max_size=4))
async def test_every_value_is_read_back_unchanged(tables: Tables, attributes: dict[str, Value]) -> None:
    item = {**attributes, "tenant_id": "ten_1", "id": "agt_1"}
    await tables.put(Put(AGENTS, item))
    back = await one(tables, AGENTS, ItemKey("ten_1", "agt_1"))
    assert back is not None
    assert with_types(dict(back)) == with_types(item)
    assert with_types(dict(back), exact=True) == with_types(normal_item(item), exact=True)


@on_one_engine
@given(value=values())
async def test_assigned_value_is_read_back_unchanged(tables: Tables, value: Value) -> None:
    changes = [Assign("whole", value), Assign("map", {"entry": value}), Assign("list", [value])]
    new = await tables.update(Update(AGENTS, ItemKey("ten_1", "agt_1"), changes))
    assert with_types([new["whole"], new["map"], new["list"]]) == with_types([value, {"entry": value}, [value]])
    assert await one(tables, AGENTS, ItemKey("ten_1", "agt_1")) == new


@on_one_engine
@given(partition=texts(least=1), sort=texts(least=1), entry=texts(least=1))
async def test_any_text_can_be_a_key_and_a_name(tables: Tables, partition: str, sort: str, entry: str) -> None:
    key = ItemKey(partition, sort)
    await tables.put(Put(AGENTS, {"tenant_id": partition, "id": sort, "map": {}}))
    await tables.update(Update(AGENTS, key, [Assign(("map", entry), entry)]))
    assert await one(tables, AGENTS, key) == {"tenant_id": partition, "id": sort, "map": {entry: entry}}
    assert (await tables.query(AGENTS, partition, prefix=sort)).items
    await tables.delete(Delete(AGENTS, key, Exists("id")))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
async def test_every_table_holds_items(tables: Tables, table: Table) -> None:
    item = dict.fromkeys(table.key_attributes, "x")
    await tables.put(Put(table, item))
    assert await one(tables, table, ItemKey("x", "x" if table.sort_key else None)) == item


async def test_items_are_returned_in_key_order_with_none_for_missing_ones(tables: Tables) -> None:
    for number in (1, 2, 3):
        await tables.put(Put(TENANTS, {"id": f"ten_{number}", "name": f"n{number}"}))
    keys = [ItemKey("ten_3"), ItemKey("ten_9"), ItemKey("ten_1"), ItemKey("ten_3")]
    names = [None if item is None else item["name"] for item in await tables.get(TENANTS, keys)]
    assert names == ["n3", None, "n1", "n3"]
    assert await tables.get(TENANTS, []) == []


async def test_more_keys_than_fit_one_request_are_read(tables: Tables) -> None:
    for start in range(0, 200, 100):
        await tables.transact([Put(TENANTS, {"id": f"ten_{number}"}) for number in range(start, start + 100)])
    found = await tables.get(TENANTS, [ItemKey(f"ten_{number}") for number in range(250)], consistent=True)
    assert found == [{"id": f"ten_{number}"} for number in range(200)] + [None] * 50


async def test_invalid_key_is_refused_when_reading(tables: Tables) -> None:
    with pytest.raises(Unstorable):
        await tables.get(TENANTS, [ItemKey("")])
    with pytest.raises(ValueError, match="has a sort key"):
        await tables.get(AGENTS, [ItemKey("ten_1")])


async def test_tables_are_independent(tables: Tables) -> None:
    await tables.put(Put(TENANTS, {"id": "same"}))
    assert await one(tables, CHALLENGES, ItemKey("same")) is None


async def test_item_of_400_kilobytes_is_stored_and_an_update_cannot_exceed_it(tables: Tables) -> None:
    key = ItemKey("ten_1")
    await tables.put(Put(TENANTS, {"id": "ten_1", "name": "x" * 409_000}))
    with pytest.raises(Unstorable):
        await tables.update(Update(TENANTS, key, [Assign("plan", "y" * 1000)]))
    before = await one(tables, TENANTS, key)
    assert before is not None
    assert "plan" not in before
    await tables.update(Update(TENANTS, key, [Assign("plan", "y" * 1000), Remove("name")], Absent("plan")))
    assert await one(tables, TENANTS, key) == {"id": "ten_1", "plan": "y" * 1000}
