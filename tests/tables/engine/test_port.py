from __future__ import annotations

from typing import Any

import pytest

from artcafe.tables.catalog import AGENTS, CHANNELS, TENANTS
from artcafe.tables.engine.conditions import Absent, And, Equals, Exists, OfKind, Or, Path
from artcafe.tables.engine.port import ConditionFailed, Query
from artcafe.tables.engine.values import Item, Unstorable, ValueKind
from artcafe.tables.engine.writes import (
    MAX_CHANGES,
    Add,
    Assign,
    AssignIfAbsent,
    Change,
    Check,
    Delete,
    ItemKey,
    Put,
    Remove,
    Update,
    check_transaction,
)

KEY = ItemKey("ten_1", "agt_1")


def test_put_takes_its_key_from_the_item() -> None:
    assert Put(AGENTS, {"tenant_id": "ten_1", "id": "agt_1"}).key == KEY
    assert Put(TENANTS, {"id": "ten_1"}).key == ItemKey("ten_1")


@pytest.mark.parametrize("item", [{"tenant_id": "ten_1"}, {"id": "agt_1"}, {}], ids=str)
def test_item_without_its_key_is_refused(item: Item) -> None:
    with pytest.raises(ValueError, match="artcafe-agents has no"):
        Put(AGENTS, item)


@pytest.mark.parametrize(
    "key",
    [ItemKey("", "a"), ItemKey("t", ""), ItemKey("t" * 2049, "a"), ItemKey("t", "é" * 513), ItemKey("\ud800", "a")],
    ids=lambda key: repr(key)[:40],
)
def test_every_write_refuses_a_key_out_of_bounds(key: ItemKey) -> None:
    with pytest.raises(Unstorable):
        Put(AGENTS, {"tenant_id": key.partition, "id": key.sort})
    with pytest.raises(Unstorable):
        Update(AGENTS, key, [Assign("name", "a")])
    with pytest.raises(Unstorable):
        Delete(AGENTS, key)
    with pytest.raises(Unstorable):
        Check(AGENTS, key, Exists("id"))


def test_key_of_the_maximum_length_is_accepted() -> None:
    Delete(AGENTS, ItemKey("t" * 2048, "é" * 512))


def test_key_must_be_text() -> None:
    with pytest.raises(TypeError, match=r"^id: a key is text"):
        Put(AGENTS, {"tenant_id": "ten_1", "id": 7})


def test_sort_key_is_required_exactly_if_the_table_has_one() -> None:
    with pytest.raises(ValueError, match="artcafe-agents has a sort key"):
        Delete(AGENTS, ItemKey("ten_1"))
    with pytest.raises(ValueError, match="artcafe-tenants has no sort key"):
        Delete(TENANTS, ItemKey("ten_1", "x"))


def test_update_has_1_to_25_changes() -> None:
    Update(AGENTS, KEY, [Assign(f"a{number}", 1) for number in range(MAX_CHANGES)])
    for count in (0, MAX_CHANGES + 1):
        with pytest.raises(ValueError, match=f"an update of {count} changes"):
            Update(AGENTS, KEY, [Assign(f"a{number}", 1) for number in range(count)])


@pytest.mark.parametrize(
    "changes",
    [
        [Assign("a", 1), Add("a", 1)],
        [Assign(("a", "x"), 1), Remove(("a", "x"))],
        [Assign("a", {}), Assign(("a", "x"), 1)],
        [Remove(("a", "x")), AssignIfAbsent("a", {})],
    ],
    ids=str,
)
def test_overlapping_paths_are_refused(changes: list[Change]) -> None:
    with pytest.raises(ValueError, match="overlap"):
        Update(AGENTS, KEY, changes)


@pytest.mark.parametrize("path", ["tenant_id", "id", ("id", "x")], ids=str)
def test_key_attribute_cannot_change(path: Path) -> None:
    with pytest.raises(ValueError, match="key attribute"):
        Update(AGENTS, KEY, [Remove(path)])


@pytest.mark.parametrize("number", [True, "1", 1.5, None], ids=repr)
def test_only_numbers_can_be_added(number: Any) -> None:
    with pytest.raises(TypeError, match=r"^limits\.agents: only"):
        Add(("limits", "agents"), number)


def test_change_normalises_its_value_at_the_level_of_its_path() -> None:
    deep: Any = "bottom"
    for _ in range(30):
        deep = (deep,)
    assert isinstance(Assign(("a", "x"), deep).value, list)
    with pytest.raises(Unstorable, match="32 levels"):
        Assign(("a", "x"), [deep])


def test_guard_of_an_update_combines_condition_and_change_requirements() -> None:
    when = Equals("status", "active")
    assert Update(AGENTS, KEY, [Assign("name", "a")]).guard is None
    assert Update(AGENTS, KEY, [Assign("name", "a")], when).guard == when
    assert Update(AGENTS, KEY, [Assign(("c", "x"), 1), Remove(("c", "y"))]).guard == OfKind("c", ValueKind.MAP)
    assert Update(AGENTS, KEY, [Remove("name")]).guard == Exists("tenant_id")
    counted = Or(Absent("n"), OfKind("n", ValueKind.NUMBER))
    assert Update(AGENTS, KEY, [Add("n", 1), Remove("name")], when).guard == And(counted, when)


def test_query_starts_after_a_key_within_its_prefix() -> None:
    Query(AGENTS, "ten_1", prefix="agt_", after="agt_1")
    for after in ("", "chn_1"):
        with pytest.raises(ValueError, match="does not begin with the prefix"):
            Query(AGENTS, "ten_1", prefix="agt_", after=after)


def test_query_needs_a_sort_key_and_a_limit_of_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Query(AGENTS, "ten_1", limit=0)
    with pytest.raises(ValueError, match="artcafe-tenants has no sort key"):
        Query(TENANTS, "ten_1")
    with pytest.raises(Unstorable):
        Query(AGENTS, "")
    with pytest.raises(Unstorable):
        Query(AGENTS, "ten_1", prefix="x" * 1025)


def test_filter_cannot_use_a_key_attribute() -> None:
    with pytest.raises(ValueError, match="id is a key attribute"):
        Query(AGENTS, "ten_1", where=And(Exists("name"), Equals("id", "agt_1")))


def test_transaction_has_1_to_100_writes_and_each_item_once() -> None:
    keys = [ItemKey("ten_1", f"agt_{number}") for number in range(101)]
    check_transaction([Delete(AGENTS, key) for key in keys[:100]])
    for count in (0, 101):
        with pytest.raises(ValueError, match=f"a transaction of {count} writes"):
            check_transaction([Delete(AGENTS, key) for key in keys[:count]])
    with pytest.raises(ValueError, match="one item of artcafe-agents twice"):
        check_transaction([Delete(AGENTS, KEY), Check(AGENTS, KEY, Exists("name"))])
    check_transaction([Delete(AGENTS, KEY), Delete(CHANNELS, KEY)])


def test_transaction_holds_4_megabytes() -> None:
    large = [Put(AGENTS, {"tenant_id": "ten_1", "id": f"agt_{number}", "name": "x" * 400_000}) for number in range(11)]
    check_transaction(large[:10])
    with pytest.raises(Unstorable, match="transaction: "):
        check_transaction(large)


def test_failed_condition_has_the_write_and_the_item_but_not_in_its_message() -> None:
    failed = ConditionFailed({3: None, 1: {"secret": "s"}})
    assert failed.item == {"secret": "s"}
    assert str(failed) == "the condition of write 3, 1 did not hold"
