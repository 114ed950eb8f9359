"""The embedded table engine: the port on one SQLite file, flushed at every commit. `sqlite.file` defines the layout of the file.

Concurrent writes share one commit in one thread (`group_commit`). Conditions are evaluated there, inside the writing transaction,
so that two processes on one file agree. Reads have their own connections and wait for no write.

A few keys are read on the event loop itself, a page in a thread. Measured on 2 busy cores with items of 500 bytes: a get takes 18
µs on the loop, and 110 to 240 µs through a thread; while another thread commits, the medians are 12 and 130 to 360 µs. A page of
200 items takes 1.4 ms and would block the loop for as long; in a thread it takes 0.1 ms more and blocks the loop for 0.08 ms
(p99).
"""

# ruff: noqa: S608 - only the names of the catalog's tables are inserted into SQL.

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

from artcafe import errors
from artcafe.tables.catalog import TABLES, Environment, Table
from artcafe.tables.engine.conditions import Condition
from artcafe.tables.engine.evaluation import holds, outcome
from artcafe.tables.engine.item_json import from_text, to_text
from artcafe.tables.engine.port import ConditionFailed, ItemPage, Query, ScanPage
from artcafe.tables.engine.values import Item, Unstorable
from artcafe.tables.engine.writes import Check, Delete, ItemKey, Put, Update, Write, check_table_key, check_transaction
from artcafe.tables.sqlite import file as sqlite_file
from artcafe.tables.sqlite.group_commit import GroupCommit

NAME = "the table file"
MAX_KEYS_ON_LOOP = 16
MAX_READS = 1024
MAX_PAGE_CHARACTERS = 1024 * 1024
SCAN_ROWS = 500
LOOP_BUSY_S = 0.1

Result = TypeVar("Result")


class _ItemChange(NamedTuple):
    """An item before and after a write."""

    before: Item | None
    after: Item | None


# Return errors as values: an exception set on the future of a cancelled caller would be reported as never retrieved.
_Answer: TypeAlias = list[_ItemChange] | ConditionFailed | Unstorable | sqlite3.Error


class Sqlite:
    """A table engine on one file, created by `Sqlite.open`. Belongs to the loop it was opened on."""

    def __init__(self, path: Path, environment: Environment) -> None:
        """Called by `open`, after preparing the file."""
        self._statements = {table: _Statements(table.name_in(environment)) for table in TABLES}
        self._write_db = sqlite_file.connect(path, 0)  # `begin_write` waits.
        self._page_db = sqlite_file.connect(path)
        self._loop_db = sqlite_file.connect(path, LOOP_BUSY_S)
        self._reads = 0
        self._pages = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pages")
        self._writes = GroupCommit[Sequence[Write], _Answer](NAME, self._commit)
        self._open = True

    @classmethod
    async def open(cls, path: Path, environment: Environment) -> Sqlite:
        """Open a file; create the file and its tables if missing. Raises `errors.StartRefused` like `sqlite.file.prepare`."""
        await asyncio.to_thread(sqlite_file.prepare, path, environment)
        return cls(path, environment)

    async def get(self, table: Table, keys: Sequence[ItemKey], *, consistent: bool = False) -> list[Item | None]:
        """Read items as `Tables.get` does; always consistent."""
        for key in keys:
            check_table_key(table, key)
        if len(keys) > MAX_KEYS_ON_LOOP:
            return await self._in_thread(lambda: [self._read(self._page_db, table, key) for key in keys])
        self._check_open()
        with _translated_errors():
            return [self._read(self._loop_db, table, key) for key in keys]

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
        """Query as `Tables.query` does; always consistent."""
        query = Query(table, partition, prefix, after, limit, descending, where, consistent)
        return await self._in_thread(partial(self._page, query))

    async def scan_page(
        self, table: Table, *, after: str | None = None, limit: int = 1000, where: Condition | None = None
    ) -> ItemPage:
        """Scan a page as `Tables.scan_page` does, in the order of the keys."""
        return await self._in_thread(partial(self._page_of_table, ScanPage(table, after, limit, where)))

    async def put(self, write: Put) -> None:
        """Write an item as `Tables.put` does."""
        await self._submit([write])

    async def update(self, write: Update) -> Item:
        """Update an item as `Tables.update` does."""
        (done,) = await self._submit([write])
        assert done.after is not None, "an update leaves an item"
        return done.after

    async def delete(self, write: Delete) -> Item | None:
        """Delete an item as `Tables.delete` does."""
        (done,) = await self._submit([write])
        return done.before

    async def transact(self, writes: Sequence[Write]) -> None:
        """Apply the writes as `Tables.transact` does."""
        check_transaction(writes)
        await self._submit(list(writes))

    async def scan(self, table: Table) -> AsyncIterator[Item]:
        """Scan a table as `Scans.scan` does."""
        last: tuple[str, str] | None = ("", "")
        while last is not None:
            items, last = await self._in_thread(partial(self._scan_batch, table, last))
            for item in items:
                yield item

    async def sweep(self, now: datetime) -> int:
        """Remove expired rows, as DynamoDB does by itself; return their number. May be repeated."""

        def remove() -> int:
            tables = self._statements.items()
            sqlite_file.begin_write(self._write_db)
            try:
                removed = sum(self._sweep_table(statements.sweep(table.ttl), now) for table, statements in tables if table.ttl)
                self._write_db.execute("COMMIT")
            finally:
                self._end_unfinished()
            return removed

        with _translated_errors():
            return await self._writes.run_exclusive(remove)

    @property
    def denied(self) -> list[str]:
        """Return nothing: the file was opened, so this process may use it."""
        return []

    async def try_permissions(self, scanned: Sequence[Table], only: Collection[str] | None = None) -> None:
        """Try nothing: a file has no permissions of its own."""

    async def retry_denied(self) -> None:
        """Try nothing, as `try_permissions`."""

    async def close(self) -> None:
        """Close the engine as `Tables.close` does."""
        self._open = False
        await self._writes.close(self._close_file)

    # --- on the loop ---

    async def _submit(self, writes: Sequence[Write]) -> list[_ItemChange]:
        answer = await self._writes.submit(writes)
        if isinstance(answer, sqlite3.Error):
            raise errors.Unavailable(NAME) from answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _in_thread(self, read: Callable[[], Result]) -> Result:
        """Run a read in the thread. Refuse it if `MAX_READS` are waiting: it would be late, and delay the others."""
        self._check_open()
        if self._reads >= MAX_READS:
            raise errors.Unavailable(NAME)
        self._reads += 1
        try:
            with _translated_errors():
                return await asyncio.get_running_loop().run_in_executor(self._pages, read)
        finally:
            self._reads -= 1

    def _check_open(self) -> None:
        if not self._open:
            raise errors.Unavailable(NAME)

    # --- in the commit thread ---

    def _commit(self, batch: list[Sequence[Write]]) -> list[_Answer]:
        """Apply a batch in one transaction.

        A write with a false condition changes nothing and does not affect the others; if the file fails, no write is applied.
        """
        db = self._write_db
        try:
            sqlite_file.begin_write(db)
            answers = [self._apply(writes) for writes in batch]
            db.execute("COMMIT")
        except sqlite3.Error as exc:
            return [exc] * len(batch)
        else:
            return answers
        finally:
            self._end_unfinished()

    def _end_unfinished(self) -> None:
        if self._write_db.in_transaction:
            with suppress(sqlite3.Error):
                self._write_db.execute("ROLLBACK")

    def _apply(self, writes: Sequence[Write]) -> _Answer:
        """Decide everything before the first write, so that a refusal needs no savepoint."""
        try:
            done = self._evaluate(writes)
        except (ConditionFailed, Unstorable) as refusal:
            return refusal
        for write, (_, after) in zip(writes, done, strict=True):
            if not isinstance(write, Check):
                self._store(write.table, write.key, after)
        return done

    def _evaluate(self, writes: Sequence[Write]) -> list[_ItemChange]:
        before: list[Item | None] = []
        failed: dict[int, Item | None] = {}
        for index, write in enumerate(writes):
            guard = write.guard
            blind = isinstance(write, Put) and guard is None
            before.append(None if blind else self._read(self._write_db, write.table, write.key))
            if guard is not None and not holds(guard, before[index]):
                failed[index] = before[index]
        if failed:
            raise ConditionFailed(failed)
        return [_ItemChange(old, outcome(write, old)) for write, old in zip(writes, before, strict=True)]

    def _store(self, table: Table, key: ItemKey, item: Item | None) -> None:
        statements = self._statements[table]
        if item is None:
            self._write_db.execute(statements.delete, (key.partition, key.sort or ""))
        else:
            self._write_db.execute(statements.put, (key.partition, key.sort or "", to_text(item)))

    def _sweep_table(self, statement: str, now: datetime) -> int:
        return self._write_db.execute(statement, (int(now.timestamp()),)).rowcount

    def _close_file(self) -> None:
        """Close the readers first: the last connection to close moves the write-ahead log into the file."""
        self._pages.shutdown()
        for db in (self._page_db, self._loop_db, self._write_db):
            db.close()

    # --- on any connection ---

    def _read(self, db: sqlite3.Connection, table: Table, key: ItemKey) -> Item | None:
        row = db.execute(self._statements[table].get, (key.partition, key.sort or "")).fetchone()
        return None if row is None else from_text(row[0])

    def _page(self, query: Query) -> ItemPage:
        with closing(self._page_db.execute(*self._statements[query.table].page(query))) as rows:
            return _page_of(rows, query.limit, query.where)

    def _page_of_table(self, asked: ScanPage) -> ItemPage:
        sql = self._statements[asked.table].scan_page
        with closing(self._page_db.execute(sql, (asked.after or "", asked.limit))) as rows:
            return _page_of(rows, asked.limit, asked.where)

    def _scan_batch(self, table: Table, last: tuple[str, str]) -> tuple[list[Item], tuple[str, str] | None]:
        rows = self._page_db.execute(self._statements[table].scan, (*last, SCAN_ROWS)).fetchall()
        items: list[Item] = [from_text(text) for _, _, text in rows]
        return items, rows[-1][:2] if len(rows) == SCAN_ROWS else None


def _page_of(rows: Iterable[tuple[str, str]], limit: int, where: Condition | None) -> ItemPage:
    """Return a page of rows, each a key and a text: ends at `limit` rows or about 1 MB, like a page of DynamoDB."""
    items: list[Item] = []
    characters = 0
    for read, (key, text) in enumerate(rows, 1):
        item = from_text(text)
        if where is None or holds(where, item):
            items.append(item)
        characters += len(text)
        if read == limit or characters >= MAX_PAGE_CHARACTERS:
            return ItemPage(items, next=key)
    return ItemPage(items, next=None)


class _Statements:
    """The SQL of one table. Its name comes from the catalog, never from a caller."""

    def __init__(self, name: str) -> None:
        self.get = f'SELECT item FROM "{name}" WHERE partition = ? AND sort = ?'
        self.put = f'INSERT INTO "{name}" VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET item = excluded.item'
        self.delete = f'DELETE FROM "{name}" WHERE partition = ? AND sort = ?'
        self._name = name
        self.scan = (
            f'SELECT partition, sort, item FROM "{name}" WHERE (partition, sort) > (?, ?) ORDER BY partition, sort LIMIT ?'
        )
        self.scan_page = f'SELECT partition, item FROM "{name}" WHERE partition > ? ORDER BY partition LIMIT ?'
        self._rows = f'SELECT sort, item FROM "{name}" WHERE partition = ? AND sort'

    def sweep(self, ttl: str) -> str:
        """Return the SQL that deletes expired rows, with the current time in seconds as its argument."""
        return f'DELETE FROM "{self._name}" WHERE {sqlite_file.expiry_of(ttl)} <= ?'

    def page(self, query: Query) -> tuple[str, tuple[object, ...]]:
        """Return the SQL and arguments of a page. Text compares by its UTF-8 bytes: SQLite's BINARY collation in a UTF-8 file."""
        low, high = (">=", query.prefix), ("<", _upper_bound(query.prefix))
        if query.after is not None and query.descending:
            high = ("<", query.after)
        elif query.after is not None:
            low = (">", query.after)
        order = "DESC" if query.descending else "ASC"
        sql = f"{self._rows} {low[0]} ? AND sort {high[0]} ? ORDER BY sort {order} LIMIT ?"
        return sql, (query.partition, low[1], high[1], query.limit)


def _upper_bound(prefix: str) -> str | bytes:
    """Return the upper bound of all text with the prefix: the next value in order. A blob is greater than all text."""
    for end in range(len(prefix), 0, -1):
        code = ord(prefix[end - 1]) + 1
        if code <= 0x10FFFF:
            # Skip the surrogates, which have no UTF-8.
            return prefix[: end - 1] + chr(0xE000 if code == 0xD800 else code)
    return b""


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise errors.Unavailable(NAME) from exc
