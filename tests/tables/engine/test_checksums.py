from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from artcafe.tables.engine.checksums import Checksum
from artcafe.tables.engine.values import Item, Value, normal_item
from tests.tables.strategies import texts, values, with_types

items = st.dictionaries(texts(least=1), values(), max_size=4).map(normal_item)


def summed(each: Sequence[Item]) -> Checksum:
    checksum = Checksum()
    for item in each:
        checksum.add(item)
    return checksum


def turned(value: Value) -> Value:
    """Return the same value with the names of every map in reverse order."""
    if isinstance(value, dict):
        return {name: turned(value[name]) for name in reversed(value)}
    return [turned(member) for member in value] if isinstance(value, list) else value


@given(st.lists(items, max_size=5), st.randoms())
def test_checksum_ignores_the_order_of_items_and_names(found: list[Item], random: object) -> None:
    others: list[Item] = [{name: turned(item[name]) for name in reversed([*item])} for item in reversed(found)]
    assert summed(found) == summed(others)
    assert summed(found).text == summed(others).text
    assert summed(found).rows == len(found)


@given(items, items)
def test_items_with_another_value_or_type_have_another_checksum(one: Item, other: Item) -> None:
    assert (summed([one]) == summed([other])) is (with_types(dict(one)) == with_types(dict(other)))


def test_checksum_detects_duplicates_and_changed_types() -> None:
    assert summed([{"a": 1}, {"a": 1}]) != summed([])
    assert summed([{"a": 1}]) != summed([{"a": True}])
    assert summed([{"a": 1}]) != summed([{"a": "1"}])
    assert summed([{"a": Decimal("1.5")}]) != summed([{"a": "1.5"}])
    assert summed([{"a": ["x"]}]) != summed([{"a": frozenset({"x"})}])
