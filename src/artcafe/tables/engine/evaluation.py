"""Evaluate conditions and apply writes with DynamoDB's semantics, for an engine without its own expressions.

Pure functions: no argument is modified.
"""

from __future__ import annotations

from decimal import Decimal
from enum import Enum
from typing import TypeGuard, assert_never

from artcafe.tables.engine.conditions import (
    Absent,
    And,
    Condition,
    Contains,
    Equals,
    Exists,
    FewerThan,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Not,
    NotEquals,
    OfKind,
    Or,
    Path,
    text_of,
)
from artcafe.tables.engine.values import Item, Value, added, check_item_size, kind_of
from artcafe.tables.engine.writes import Add, Assign, AssignIfAbsent, Change, Check, Delete, Put, Remove, Update, Write


class _Missing(Enum):
    """Marks a missing value; None is a valid value."""

    MISSING = 0


def holds(condition: Condition, item: Item | None) -> bool:
    """Return whether the condition is true for the item; None is treated as an item without attributes."""
    match condition:
        case And(conditions):
            return all(holds(each, item) for each in conditions)
        case Or(conditions):
            return any(holds(each, item) for each in conditions)
        case Not(inner):
            return not holds(inner, item)
        case NotEquals(path, value):
            return not holds(Equals(path, value), item)
        case Absent(path):
            return _at(item, path) is _Missing.MISSING
        case _:
            found = _at(item, condition.path)
            return found is not _Missing.MISSING and _matches(condition, found)


def outcome(write: Write, old: Item | None) -> Item | None:
    """Return the item after a write whose condition held. Raises `Unstorable` if the result is too large."""
    match write:
        case Put():
            return write.item
        case Update():
            return _updated(write, old)
        case Delete():
            return None
        case Check():
            return old
        case _:
            assert_never(write)


def equal(one: Value, other: Value) -> bool:
    """Return whether two values have the same type and are equal.

    Python's own == treats True as 1, also inside lists and maps.
    """
    kind = kind_of(one)
    if kind is not kind_of(other):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(member, other[name]) for name, member in one.items())
    return one == other


def _matches(
    test: Exists | OfKind | FewerThan | Equals | Contains | Less | LessOrEqual | Greater | GreaterOrEqual, found: Value
) -> bool:
    match test:
        case Exists():
            return True
        case OfKind(_, kind):
            return kind_of(found) is kind
        case FewerThan(_, number):
            return isinstance(found, dict) and len(found) < number
        case Equals(_, value):
            return equal(found, value)
        case Contains(_, value):
            return _contains(found, value)
        case Less(_, value):
            return _order(found, value) == -1
        case LessOrEqual(_, value):
            return _order(found, value) in (-1, 0)
        case Greater(_, value):
            return _order(found, value) == 1
        case GreaterOrEqual(_, value):
            return _order(found, value) in (0, 1)
        case _:
            assert_never(test)


def _at(item: Item | None, path: Path) -> Value | _Missing:
    if item is None:
        return _Missing.MISSING
    if isinstance(path, str):
        return item.get(path, _Missing.MISSING)
    attribute, entry = path
    entries = item.get(attribute)
    return entries.get(entry, _Missing.MISSING) if isinstance(entries, dict) else _Missing.MISSING


def _contains(whole: Value, part: Value) -> bool:
    match whole:
        case str():
            return isinstance(part, str) and part in whole
        case list() | frozenset():
            return any(equal(member, part) for member in whole)
        case _:
            return False


def _order(one: Value, other: Value) -> int | None:
    """Compare two values: -1, 0 or 1, or None if their types differ.

    Python orders text by code points, which is also the order of the UTF-8 bytes.
    """
    if isinstance(one, str) and isinstance(other, str):
        return (one > other) - (one < other)
    if isinstance(one, bytes) and isinstance(other, bytes):
        return (one > other) - (one < other)
    if _is_number(one) and _is_number(other):
        return (one > other) - (one < other)
    return None


def _is_number(value: Value) -> TypeGuard[int | Decimal]:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _updated(update: Update, old: Item | None) -> Item:
    table, key = update.table, update.key
    new: dict[str, Value] = dict(old) if old is not None else {table.partition_key: key.partition}
    if old is None and table.sort_key is not None:
        new[table.sort_key] = key.sort
    for change in update.changes:
        _apply(change, new, _at(old, change.path))
    check_item_size(new)
    return new


def _apply(change: Change, item: dict[str, Value], found: Value | _Missing) -> None:
    match change:
        case Assign(path, value):
            _set(item, path, value)
        case AssignIfAbsent(path, value):
            if found is _Missing.MISSING:
                _set(item, path, value)
        case Add(path, number):
            before = 0 if isinstance(found, _Missing) else found
            assert isinstance(before, int | Decimal), "an update's guard has the number"
            _set(item, path, added(before, number, text_of(path)))
        case Remove(path):
            _set(item, path, _Missing.MISSING)
        case _:
            assert_never(change)


def _set(item: dict[str, Value], path: Path, value: Value | _Missing) -> None:
    """Set or remove the value at the path. Copies a map first, so that the original item keeps its own."""
    if isinstance(path, tuple):
        attribute, entry = path
        entries = item[attribute]
        assert isinstance(entries, dict), "an update's guard has the map"
        item[attribute] = entries = dict(entries)
        item, path = entries, entry
    if isinstance(value, _Missing):
        item.pop(path, None)
    else:
        item[path] = value
