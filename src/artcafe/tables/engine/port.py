"""The tables as the rest of ArtCafe sees them: six verbs, and what is read, written, paged and refused.

One port, two engines: DynamoDB, and SQLite for the embedded default. Whatever DynamoDB refuses by rule (an item above
400 KB, one item twice in a transaction) is refused here, when the request is built, and so by both. What a row means is
no matter of this module: the typed view of a tenant stands above it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from artcafe.tables.catalog import Table
from artcafe.tables.engine import conditions
from artcafe.tables.engine.conditions import Condition
from artcafe.tables.engine.values import MOST_PARTITION_KEY_BYTES, MOST_SORT_KEY_BYTES, Item, check_key
from artcafe.tables.engine.writes import Delete, ItemKey, Put, Update, Write


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
