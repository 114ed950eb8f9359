"""The tables as the rest of ArtCafe sees them: six verbs, and what is read, written, paged and refused.

One port, two engines: DynamoDB, and SQLite for the embedded default. Whatever DynamoDB refuses by rule (an item above
400 KB, one item twice in a transaction) is refused here, when the request is built, and so by both. What a row means is
no matter of this module: the typed view of a tenant stands above it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol, TypeAlias

from artcafe.tables.catalog import Table
from artcafe.tables.engine import conditions
from artcafe.tables.engine.conditions import Absent, And, Condition, Exists, OfKind, Or, Path
from artcafe.tables.engine.values import (
    MOST_PARTITION_KEY_BYTES,
    MOST_SORT_KEY_BYTES,
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

MOST_CHANGES = 25
MOST_WRITES = 100
MOST_TRANSACTION_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ItemKey:
    """An item's place in a table; `sort` is None exactly where the table has no sort key."""

    partition: str
    sort: str | None = None


# --- what an update changes ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Assigned:
    path: Path
    value: Value

    def __post_init__(self) -> None:
        where = conditions.text_of(self.path)
        object.__setattr__(self, "value", normal(self.value, where, conditions.level_of(self.path)))


@dataclass(frozen=True, slots=True)
class Assign(_Assigned):
    """The path holds this value afterwards."""


@dataclass(frozen=True, slots=True)
class AssignIfAbsent(_Assigned):
    """The path keeps what it holds, and holds this value if it held nothing."""


@dataclass(frozen=True, slots=True)
class Add:
    """The number at the path grows by `number`; nothing there counts as 0, and what is no number fails the write's condition.

    Not safe to repeat: an answer that got lost and is asked for again counts twice. Tie it to a condition that the first
    time makes false.
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
    """The path holds nothing afterwards."""

    path: Path


Change: TypeAlias = Assign | AssignIfAbsent | Add | Remove

# --- writes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Put:
    """The whole item, in place of any that stood there. `item` has the table's key attributes and is kept in normal form."""

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
    """Changes to one item, all of them or none; a missing item is created with its key, unless `when` or a rule below forbids it.

    A change to an entry (attribute, name) needs the attribute to be a map already. An update that only removes needs the
    item. Where these do not hold, the write fails as a false condition does (`guard` states the whole of it), so that every
    engine agrees: left to itself, DynamoDB would answer a validation error, or in one case nothing. Key attributes do not
    change, and no path stands in another.
    """

    table: Table
    key: ItemKey
    changes: Sequence[Change]
    when: Condition | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "changes", tuple(self.changes))
        check_table_key(self.table, self.key)
        conditions.check_condition(self.when)
        if not 1 <= len(self.changes) <= MOST_CHANGES:
            raise ValueError(f"an update of {len(self.changes)} changes; it has 1 to {MOST_CHANGES}")
        _check_paths(self.table, [change.path for change in self.changes])

    @property
    def guard(self) -> Condition | None:
        """`when` and what the changes need: the condition an engine enforces."""
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
    """The item is gone afterwards, whether or not it was there, unless `when` forbids."""

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
    """Changes nothing: the transaction it stands in fails unless `when` holds."""

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


class ConditionFailed(Exception):
    """A condition did not hold, and nothing was changed. Never told to a peer: whoever wrote the condition knows what it means.

    `failed` has the writes whose condition was false, by their index (0 for a single write), and each item as it was (None
    where there was none). A transaction names at least one of them, and DynamoDB need not name all.
    """

    def __init__(self, failed: Mapping[int, Item | None]) -> None:
        super().__init__(f"the condition of write {', '.join(map(str, failed))} did not hold")
        self.failed = failed

    @property
    def item(self) -> Item | None:
        """The item of the first write that failed."""
        return self.failed[min(self.failed)]


@dataclass(frozen=True, slots=True)
class ItemPage:
    """`next` goes into the following query's `after`; None says that nothing follows."""

    items: list[Item]
    next: str | None


@dataclass(frozen=True, slots=True)
class Query:
    """The arguments of `Tables.query`, checked; raises ValueError or `Unstorable` for what DynamoDB refuses."""

    table: Table
    partition: str
    prefix: str = ""
    after: str | None = None
    limit: int = 50
    descending: bool = False
    where: Condition | None = None
    consistent: bool = False

    def __post_init__(self) -> None:
        if self.table.sort_key is None:
            raise ValueError(f"{self.table.name} has no sort key: there is nothing to page through")
        check_key(self.partition, self.table.partition_key, MOST_PARTITION_KEY_BYTES)
        for text in filter(None, (self.prefix, self.after)):
            check_key(text, self.table.sort_key, MOST_SORT_KEY_BYTES)
        if self.after is not None and not (self.after and self.after.startswith(self.prefix)):
            raise ValueError(f"after: {self.after!r} does not begin with the prefix {self.prefix!r}")
        if self.limit < 1:
            raise ValueError("limit: a page reads at least 1 item")
        conditions.check_condition(self.where)
        keys = [path for path in conditions.paths_in(self.where) if conditions.attribute_of(path) in self.table.key_attributes]
        if keys:
            raise ValueError(f"where: {conditions.text_of(keys[0])} is a key attribute, and a filter has none")


class Tables(Protocol):
    """What an engine does. Every call raises `errors.Unavailable` when the engine cannot be reached or is overloaded.

    A write whose answer was lost (`errors.Unanswered`), or whose caller was cancelled, may have been made; if so, it was made
    whole. So every write is built to be safe to repeat.

    Raises `Unstorable` also at the write itself, where only the outcome is too large.
    """

    async def get(self, table: Table, keys: Sequence[ItemKey], *, consistent: bool = False) -> list[Item | None]:
        """The items in the order of `keys`, None for those that are not there. Not one snapshot, and not all at one moment.

        `consistent` sees every write that was answered before, at twice DynamoDB's price; without it, a read may be late.
        """
        ...

    async def query(
        self,
        table: Table,
        partition: str,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int = 50,
        descending: bool = False,
        where: Condition | None = None,
        consistent: bool = False,
    ) -> ItemPage:
        """One page of a partition in the order of the sort key's UTF-8 bytes, or backwards.

        Begins behind the sort key `after`, which need not exist. `limit` counts the items *read*: `where` then leaves some
        out, and 1 MB ends a page early, so a page may hold fewer, or none, while `next` says that there is more. `next` is
        the sort key of the last item read. Whoever wants n items asks again until it has them or `next` is None.
        """
        ...

    async def put(self, write: Put) -> None:
        """Raises `ConditionFailed`."""
        ...

    async def update(self, write: Update) -> Item:
        """The item as it is now. Raises `ConditionFailed`."""
        ...

    async def delete(self, write: Delete) -> Item | None:
        """The item as it was. Raises `ConditionFailed`."""
        ...

    async def transact(self, writes: Sequence[Write]) -> None:
        """All of 1 to 100 writes at one moment, or none; every condition sees the items as they were before.

        Raises `ConditionFailed`, and ValueError for writes that `check_transaction` refuses.
        """
        ...

    async def close(self) -> None:
        """Returns when every write accepted so far is answered; whatever is asked later is `Unavailable`. May be repeated."""
        ...


class Scans(Protocol):
    """For an operator's commands (export, copy, repair) and for no request: a scan reads, and pays for, a whole table."""

    def scan(self, table: Table) -> AsyncIterator[Item]:
        """Every item, in no order; what is written meanwhile may or may not be among them."""
        ...


class Engine(Tables, Scans, Protocol):
    """An engine as operators' commands use it, which may read all of it."""


def check_transaction(writes: Sequence[Write]) -> None:
    """Raises ValueError for what DynamoDB refuses: no write or more than 100, one item twice, more than 4 MB."""
    if not 1 <= len(writes) <= MOST_WRITES:
        raise ValueError(f"a transaction of {len(writes)} writes; it has 1 to {MOST_WRITES}")
    seen: set[tuple[str, ItemKey]] = set()
    for write in writes:
        place = (write.table.name, write.key)
        if place in seen:
            raise ValueError(f"a transaction writes one item of {write.table.name} twice")
        seen.add(place)
    size = sum(size_of(write.item) for write in writes if isinstance(write, Put))
    if size > MOST_TRANSACTION_BYTES:
        raise Unstorable("transaction", f"{size} bytes; it has at most {MOST_TRANSACTION_BYTES}")


def key_of(table: Table, item: Item) -> ItemKey:
    """The key that stands in an item; raises ValueError where it has none, else as `values.check_key` does."""
    for name in table.key_attributes:
        if name not in item:
            raise ValueError(f"an item of {table.name} has no {name!r}")
    partition = check_key(item[table.partition_key], table.partition_key, MOST_PARTITION_KEY_BYTES)
    if table.sort_key is None:
        return ItemKey(partition)
    return ItemKey(partition, check_key(item[table.sort_key], table.sort_key, MOST_SORT_KEY_BYTES))


def check_table_key(table: Table, key: ItemKey) -> None:
    """Raises ValueError for a sort key that the table has not, or lacks, else as `values.check_key` does."""
    check_key(key.partition, table.partition_key, MOST_PARTITION_KEY_BYTES)
    if (key.sort is None) != (table.sort_key is None):
        raise ValueError(f"{table.name} has {'no' if table.sort_key is None else 'a'} sort key")
    if table.sort_key is not None:
        check_key(key.sort, table.sort_key, MOST_SORT_KEY_BYTES)


def _check_paths(table: Table, paths: Sequence[Path]) -> None:
    """DynamoDB refuses an update that changes a key, or one path twice or inside another."""
    attributes = {path for path in paths if isinstance(path, str)}
    if len(set(paths)) < len(paths) or any(path[0] in attributes for path in paths if isinstance(path, tuple)):
        raise ValueError("an update's paths overlap")
    for path in paths:
        conditions.check_path(path)
        if conditions.attribute_of(path) in table.key_attributes:
            raise ValueError(f"{conditions.text_of(path)} is a key attribute of {table.name} and does not change")
