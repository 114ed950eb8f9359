from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from artcafe.tables.engine.checksums import Checksum
from artcafe.tables.engine.values import Item, Value, normal_item
from tests.tables.strategies import texts, told_apart, values

items = st.dictionaries(texts(least=1), values(), max_size=4).map(normal_item)


def summed(each: Sequence[Item]) -> Checksum:
    checksum = Checksum()
    for item in each:
        checksum.add(item)
    return checksum


def turned(value: Value) -> Value:
    """The same value with every map's names in the other order."""
    if isinstance(value, dict):
        return {name: turned(value[name]) for name in reversed(value)}
    return [turned(member) for member in value] if isinstance(value, list) else value


@given(st.lists(items, max_size=5), st.randoms())
def test_neither_the_order_of_items_nor_that_of_names_counts(found: list[Item], random: object) -> None:
    others: list[Item] = [{name: turned(item[name]) for name in reversed([*item])} for item in reversed(found)]
    assert summed(found) == summed(others)
    assert summed(found).text == summed(others).text
    assert summed(found).rows == len(found)


@given(items, items)
def test_items_that_differ_in_a_value_or_its_type_have_other_sums(one: Item, other: Item) -> None:
    assert (summed([one]) == summed([other])) is (told_apart(dict(one)) == told_apart(dict(other)))


def test_what_is_there_twice_or_of_another_type_is_seen() -> None:
    assert summed([{"a": 1}, {"a": 1}]) != summed([])
    assert summed([{"a": 1}]) != summed([{"a": True}])
    assert summed([{"a": 1}]) != summed([{"a": "1"}])
    assert summed([{"a": Decimal("1.5")}]) != summed([{"a": "1.5"}])
    assert summed([{"a": ["x"]}]) != summed([{"a": frozenset({"x"})}])
