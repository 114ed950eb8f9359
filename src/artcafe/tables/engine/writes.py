"""Writes, and the changes of an update, checked when they are built.

DynamoDB's limits are checked here, so that they hold on every engine: an item has at most 400 KB, a transaction at most 100
writes and each item once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias

from artcafe.tables.catalog import Table
from artcafe.tables.engine import conditions
from artcafe.tables.engine.conditions import Absent, And, Condition, Exists, OfKind, Or, Path
from artcafe.tables.engine.values import (
    MAX_PARTITION_KEY_BYTES,
    MAX_SORT_KEY_BYTES,
    Item,
    Unstorable,
    Value,
    ValueKind,
    check_key,
    normal,
    normal_item,
    normal_number,
    size_of,
)

MAX_CHANGES = 25
MAX_WRITES = 100
MAX_TRANSACTION_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ItemKey:
    """The primary key of an item; `sort` is None if and only if the table has no sort key."""

    partition: str
    sort: str | None = None


@dataclass(frozen=True, slots=True)
class _Assigned:
    path: Path
    value: Value

    def __post_init__(self) -> None:
        where = conditions.text_of(self.path)
        object.__setattr__(self, "value", normal(self.value, where, conditions.level_of(self.path)))


@dataclass(frozen=True, slots=True)
class Assign(_Assigned):
    """Set the value at the path."""


@dataclass(frozen=True, slots=True)
class AssignIfAbsent(_Assigned):
    """Set the value at the path unless it has one."""


@dataclass(frozen=True, slots=True)
class Add:
    """Add `number` to the number at the path; a missing value counts as 0, any other type fails the write's condition.

    Not safe to retry: a retry after a lost answer counts twice. Combine it with a condition made false by the first attempt.
    """

    path: Path
    number: int | Decimal

    def __post_init__(self) -> None:
        where = conditions.text_of(self.path)
        if isinstance(self.number, bool) or not isinstance(self.number, int | Decimal):
            raise TypeError(f"{where}: only an int or a Decimal is added, not {type(self.number).__name__}")
        object.__setattr__(self, "number", normal_number(self.number, where))


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the value at the path."""

    path: Path


Change: TypeAlias = Assign | AssignIfAbsent | Add | Remove


@dataclass(frozen=True, slots=True)
class Put:
    """Write a whole item, replacing any existing one. `item` contains the table's key; it is converted to normal form."""

    table: Table
    item: Item
    when: Condition | None = None
    key: ItemKey = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "item", normal_item(self.item))
        object.__setattr__(self, "key", key_of(self.table, self.item))
        conditions.check_condition(self.when)

    @property
    def guard(self) -> Condition | None:
        return self.when


@dataclass(frozen=True, slots=True)
class Update:
    """Apply changes to one item atomically; creates a missing item with its key unless `when` or a rule below forbids it.

    A change of an entry (attribute, name) requires the attribute to be a map. An update consisting only of removals requires an
    existing item. Otherwise the write fails like a false condition (`guard` includes both rules), so that all engines agree:
    DynamoDB alone would return a validation error, or in one case nothing. Key attributes cannot change, and no path may contain
    another.
    """

    table: Table
    key: ItemKey
    changes: Sequence[Change]
    when: Condition | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "changes", tuple(self.changes))
        check_table_key(self.table, self.key)
        conditions.check_condition(self.when)
        if not 1 <= len(self.changes) <= MAX_CHANGES:
            raise ValueError(f"an update of {len(self.changes)} changes; it must have 1 to {MAX_CHANGES}")
        _check_paths(self.table, [change.path for change in self.changes])

    @property
    def guard(self) -> Condition | None:
        """Return the condition an engine enforces: `when`, and the requirements of the changes."""
        maps = dict.fromkeys(change.path[0] for change in self.changes if isinstance(change.path, tuple))
        needed: list[Condition] = [OfKind(name, ValueKind.MAP) for name in maps]
        sums = [change.path for change in self.changes if isinstance(change, Add)]
        needed += [Or(Absent(path), OfKind(path, ValueKind.NUMBER)) for path in sums]
        if all(isinstance(change, Remove) for change in self.changes):
            needed.append(Exists(self.table.partition_key))
        if self.when is not None:
            needed.append(self.when)
        return And(*needed) if len(needed) > 1 else needed[0] if needed else None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an item, existing or not, unless `when` forbids it."""

    table: Table
    key: ItemKey
    when: Condition | None = None

    def __post_init__(self) -> None:
        check_table_key(self.table, self.key)
        conditions.check_condition(self.when)

    @property
    def guard(self) -> Condition | None:
        return self.when


@dataclass(frozen=True, slots=True)
class Check:
    """Change nothing, but fail the transaction unless `when` is true."""

    table: Table
    key: ItemKey
    when: Condition

    def __post_init__(self) -> None:
        check_table_key(self.table, self.key)
        conditions.check_condition(self.when)

    @property
    def guard(self) -> Condition:
        return self.when


Write: TypeAlias = Put | Update | Delete | Check


def check_transaction(writes: Sequence[Write]) -> None:
    """Raise ValueError for transactions DynamoDB refuses: no write, more than 100, more than 4 MB, or one item twice."""
    if not 1 <= len(writes) <= MAX_WRITES:
        raise ValueError(f"a transaction of {len(writes)} writes; it must have 1 to {MAX_WRITES}")
    seen: set[tuple[str, ItemKey]] = set()
    for write in writes:
        item = (write.table.name, write.key)
        if item in seen:
            raise ValueError(f"a transaction writes one item of {write.table.name} twice")
        seen.add(item)
    size = sum(size_of(write.item) for write in writes if isinstance(write, Put))
    if size > MAX_TRANSACTION_BYTES:
        raise Unstorable("transaction", f"{size} bytes; it has at most {MAX_TRANSACTION_BYTES}")


def key_of(table: Table, item: Item) -> ItemKey:
    """Return the key of an item. Raises ValueError if it is missing, otherwise the errors of `values.check_key`."""
    for name in table.key_attributes:
        if name not in item:
            raise ValueError(f"an item of {table.name} has no {name!r}")
    partition = check_key(item[table.partition_key], table.partition_key, MAX_PARTITION_KEY_BYTES)
    if table.sort_key is None:
        return ItemKey(partition)
    return ItemKey(partition, check_key(item[table.sort_key], table.sort_key, MAX_SORT_KEY_BYTES))


def check_table_key(table: Table, key: ItemKey) -> None:
    """Raise ValueError for a missing or unexpected sort key, otherwise the errors of `values.check_key`."""
    check_key(key.partition, table.partition_key, MAX_PARTITION_KEY_BYTES)
    if (key.sort is None) != (table.sort_key is None):
        raise ValueError(f"{table.name} has {'no' if table.sort_key is None else 'a'} sort key")
    if table.sort_key is not None:
        check_key(key.sort, table.sort_key, MAX_SORT_KEY_BYTES)


def _check_paths(table: Table, paths: Sequence[Path]) -> None:
    """Raise ValueError for a path to a key attribute and for overlapping paths, which DynamoDB refuses."""
    attributes = {path for path in paths if isinstance(path, str)}
    if len(set(paths)) < len(paths) or any(path[0] in attributes for path in paths if isinstance(path, tuple)):
        raise ValueError("an update's paths overlap")
    for path in paths:
        conditions.check_path(path)
        if conditions.attribute_of(path) in table.key_attributes:
            raise ValueError(f"{conditions.text_of(path)} is a key attribute of {table.name} and cannot change")
