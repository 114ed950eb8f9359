"""The engine port: reads, queries, writes and their errors. Every engine implements it.

There are two engines: DynamoDB, and SQLite as the embedded default. DynamoDB's fixed limits (an item above 400 KB, an item
written twice in a transaction) are checked when the request is built, so that both engines refuse the same requests. The meaning
of rows is defined above this module, in the typed view of a tenant.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from artcafe.tables.catalog import Table
from artcafe.tables.engine import conditions
from artcafe.tables.engine.conditions import Condition
from artcafe.tables.engine.values import MAX_PARTITION_KEY_BYTES, MAX_SORT_KEY_BYTES, Item, check_key
from artcafe.tables.engine.writes import Delete, ItemKey, Put, Update, Write


class ConditionFailed(Exception):
    """A condition was false, and nothing was changed.

    Never sent to a peer: the caller of the write knows what its condition means.

    `failed` maps the index of each failed write (0 for a single write) to the item before the write, or to None if it did not
    exist. A transaction lists at least one failed write; DynamoDB may not list all of them.
    """

    def __init__(self, failed: Mapping[int, Item | None]) -> None:
        super().__init__(f"the condition of write {', '.join(map(str, failed))} did not hold")
        self.failed = failed

    @property
    def item(self) -> Item | None:
        """Return the item of the first failed write."""
        return self.failed[min(self.failed)]


@dataclass(frozen=True, slots=True)
class ItemPage:
    """A page of a query. Pass `next` as `after` of the following query; None means the end of the partition."""

    items: list[Item]
    next: str | None


@dataclass(frozen=True, slots=True)
class Query:
    """The checked arguments of `Tables.query`. Raises ValueError or `Unstorable` for arguments DynamoDB would refuse."""

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
            raise ValueError(f"{self.table.name} has no sort key and cannot be paged")
        check_key(self.partition, self.table.partition_key, MAX_PARTITION_KEY_BYTES)
        for text in filter(None, (self.prefix, self.after)):
            check_key(text, self.table.sort_key, MAX_SORT_KEY_BYTES)
        if self.after is not None and not (self.after and self.after.startswith(self.prefix)):
            raise ValueError(f"after: {self.after!r} does not begin with the prefix {self.prefix!r}")
        if self.limit < 1:
            raise ValueError("limit: a page reads at least 1 item")
        _check_filter(self.table, self.where)


@dataclass(frozen=True, slots=True)
class ScanPage:
    """The checked arguments of `Tables.scan_page`. Raises ValueError or `Unstorable` for arguments DynamoDB would refuse."""

    table: Table
    after: str | None = None
    limit: int = 1000
    where: Condition | None = None

    def __post_init__(self) -> None:
        if self.table.sort_key is not None:
            raise ValueError(f"{self.table.name} has a sort key and can only be scanned whole")
        if self.after is not None:
            check_key(self.after, self.table.partition_key, MAX_PARTITION_KEY_BYTES)
        if self.limit < 1:
            raise ValueError("limit: a page reads at least 1 item")
        _check_filter(self.table, self.where)


def _check_filter(table: Table, where: Condition | None) -> None:
    conditions.check_condition(where)
    keys = [path for path in conditions.paths_in(where) if conditions.attribute_of(path) in table.key_attributes]
    if keys:
        raise ValueError(f"where: {conditions.text_of(keys[0])} is a key attribute, not allowed in a filter")


class Tables(Protocol):
    """The verbs of an engine. Every call raises `errors.Unavailable` if the engine is unreachable or overloaded.

    A write with a lost answer (`errors.Unanswered`) or a cancelled caller may have been applied, and then completely. So every
    write must be safe to retry.

    A write raises `Unstorable` if only its result is too large.
    """

    async def get(self, table: Table, keys: Sequence[ItemKey], *, consistent: bool = False) -> list[Item | None]:
        """Return the items in the order of `keys`, None for missing ones. The items are not read at one moment.

        `consistent` sees every acknowledged write, at twice DynamoDB's price; without it, a read may be stale.
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
        """Return one page of a partition, ordered by the UTF-8 bytes of the sort key, ascending or descending.

        Starts after the sort key `after`, which need not exist. `limit` counts the items *read*: `where` filters them afterwards,
        and 1 MB ends a page early, so a page may hold fewer items, or even be empty, with a `next`. `next` is the sort key of the
        last item read. A caller that wants n items repeats the query until it has them or `next` is None.
        """
        ...

    async def scan_page(
        self, table: Table, *, after: str | None = None, limit: int = 1000, where: Condition | None = None
    ) -> ItemPage:
        """Return one page of a whole table without a sort key, in the engine's own order. For operators' requests only: it reads,
        and pays for, rows of all tenants.

        Starts after the key `after`, which need not exist; `limit`, `where`, 1 MB and `next` are those of `query`. The read is
        consistent.
        """
        ...

    async def put(self, write: Put) -> None:
        """Write an item. Raises `ConditionFailed`."""
        ...

    async def update(self, write: Update) -> Item:
        """Update an item and return it. Raises `ConditionFailed`."""
        ...

    async def delete(self, write: Delete) -> Item | None:
        """Delete an item and return its previous value. Raises `ConditionFailed`."""
        ...

    async def transact(self, writes: Sequence[Write]) -> None:
        """Apply 1 to 100 writes atomically; every condition sees the items before the transaction.

        Raises `ConditionFailed`, and ValueError for the errors of `check_transaction`.
        """
        ...

    async def close(self) -> None:
        """Close the engine after answering every accepted write; later calls raise `Unavailable`. May be repeated."""
        ...


class Scans(Protocol):
    """Full scans, for operators' commands (export, copy, repair) only: a scan reads, and pays for, a whole table."""

    def scan(self, table: Table) -> AsyncIterator[Item]:
        """Yield every item, in no order. Concurrent writes may or may not be included."""
        ...


class Permissions(Protocol):
    """The permissions of this process on the tables, which the engine's owner grants; a file has none."""

    @property
    def denied(self) -> list[str]:
        """The permissions that calls were denied, as text, until a call with them succeeds. Such a call raises `TablesDenied`."""
        ...

    async def try_permissions(self, scanned: Sequence[Table], only: Collection[str] | None = None) -> None:
        """Try every permission of a server, and to scan these tables; `denied` has those that it lacks. Nothing is changed.

        `only`: those of them to try, as `denied` names them.
        """
        ...

    async def retry_denied(self) -> None:
        """Try the denied permissions again."""
        ...


class Engine(Tables, Scans, Permissions, Protocol):
    """An engine with full scans, for operators' commands, and permissions."""
