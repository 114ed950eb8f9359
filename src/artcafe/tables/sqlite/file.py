"""The table file: creating, recognising and opening it. `sqlite.engine` reads and writes its rows."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from artcafe import errors
from artcafe.data_dir import disk_remedy
from artcafe.tables.catalog import TABLES, Environment, Table

FORMAT = 1
APPLICATION_ID = int.from_bytes(b"ArtC")
BUSY_S = 5.0
POLL_S = 0.0002
_never = threading.Event()
"""Never set: `wait` on it sleeps."""


def prepare(path: Path, environment: Environment) -> None:
    """Create the file (mode 0600) and the tables of this environment if missing; may be repeated.

    Raises `errors.StartRefused` for a file of a newer ArtCafe or another program, a file that is not a database, and a path where
    no file can be created.
    """
    try:
        _make(path)
        with closing(connect(path)) as db:
            _recognise(db, path)
            _lay_out(db, path, environment)
    except (OSError, sqlite3.Error) as exc:
        raise errors.StartRefused(
            f"the table file {path} cannot be used: {exc}",
            disk_remedy(path, exc) or "check that its folder exists and belongs to you, and that the file is not damaged",
        ) from exc


def connect(path: Path, busy_s: float = BUSY_S) -> sqlite3.Connection:
    """Open a connection in autocommit mode, flushing every commit to disk; waits `busy_s` for another process's lock.

    `synchronous` is FULL because NORMAL lost 5 of 1,000 acknowledged commits in a power cut, and FULL lost none.
    """
    # The engine uses each connection in one thread at a time; only opening and closing happen elsewhere.
    db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA synchronous = FULL")
    return db


def begin_write(db: sqlite3.Connection) -> None:
    """Begin a write transaction, waiting up to `BUSY_S` for another process's. Raises sqlite3.Error.

    `db` must be opened with `busy_s=0`. SQLite itself waits 1 to 100 ms between attempts and misses the gaps between two
    commits of a busy process: with four processes of 16 writers each, the slowest commit took 750 ms, and takes 60 ms this way.
    """
    until = time.monotonic() + BUSY_S
    while True:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            _never.wait(POLL_S)
        else:
            return


def copy(path: Path, to: Path) -> None:
    """Copy a table file, possibly in use, as of one moment to a new file of mode 0600, with SQLite's online backup API.

    Raises `errors.StartRefused` for a file of another program or a newer ArtCafe, and if it cannot be read or written completely.
    """
    try:
        with closing(_existing(path)) as source:
            _recognise(source, path)
            _make(to)
            with closing(connect(to)) as target:
                source.backup(target)
                ((found,),) = target.execute("PRAGMA integrity_check(1)").fetchall()
                target.execute("PRAGMA journal_mode = DELETE")  # into a single file
    except (OSError, sqlite3.Error) as exc:
        raise errors.StartRefused(f"the table file {path} cannot be copied to {to}: {exc}", "make room on the disk") from exc
    if found != "ok":
        raise errors.StartRefused(f"the table file {path} is damaged: {found}", "restore an older backup")


def expiry_of(ttl: str) -> str:
    """Return the SQL expression of an item's expiry attribute. Its text must be equal in the index and in every use of it."""
    return f"""json_extract(item, '$."{ttl}"')"""


def rows(path: Path) -> dict[str, int]:
    """Return the number of rows of each table in the file. Raises `errors.StartRefused` like `copy`."""
    return {name: count for name, ((count,),) in _each(path, "SELECT count(*)").items()}


def partitions(path: Path, table: Table, environment: Environment) -> list[str]:
    """Return the partition keys of a table, in order. Raises `errors.StartRefused` like `copy`."""
    return [key for (key,) in _each(path, "SELECT DISTINCT partition").get(table.name_in(environment), [])]


def _each(path: Path, select: str) -> dict[str, list[Any]]:
    """Run the query for each of ArtCafe's tables in the file."""
    try:
        with closing(_existing(path)) as db:
            _recognise(db, path)
            there = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            ours = {table.name_in(environment) for table in TABLES for environment in Environment}
            return {name: db.execute(f'{select} FROM "{name}" ORDER BY 1').fetchall() for name in sorted(ours & there)}
    except (OSError, sqlite3.Error) as exc:
        raise errors.StartRefused(
            f"the table file {path} cannot be read: {exc}", "check that it is not damaged and belongs to you"
        ) from exc


def _existing(path: Path) -> sqlite3.Connection:
    """Open an existing file; SQLite would create a missing one empty."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return connect(path)


def _make(path: Path) -> None:
    """Create the file with its mode; SQLite gives its two side files the same."""
    # Do not open an existing file: closing any descriptor of it would drop this process's locks on it.
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        path.chmod(0o600)


def _recognise(db: sqlite3.Connection, path: Path) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != APPLICATION_ID:
        raise errors.StartRefused(f"{path} is an SQLite file, but not ArtCafe's", "give another file or another --data-dir")
    if version > FORMAT:
        raise errors.StartRefused(
            f"{path} has format {version}, and this ArtCafe reads formats up to {FORMAT}",
            "start the newer ArtCafe that wrote it, or give another --data-dir",
        )


def _lay_out(db: sqlite3.Connection, path: Path, environment: Environment) -> None:
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise errors.StartRefused(
            f"{path} is on a file system without shared memory, which SQLite's log needs", "give a --data-dir on a local disk"
        )
    db.execute("BEGIN IMMEDIATE")
    for table in TABLES:
        db.execute(
            f'CREATE TABLE IF NOT EXISTS "{table.name_in(environment)}"'
            " (partition TEXT NOT NULL, sort TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (partition, sort)) WITHOUT ROWID"
        )
        if table.ttl is not None:
            # Without an index, the sweep of each minute would parse every row, of years of usage, while no other write proceeds.
            db.execute(
                f'CREATE INDEX IF NOT EXISTS "{table.name_in(environment)} expiry"'
                f' ON "{table.name_in(environment)}" ({expiry_of(table.ttl)}) WHERE {expiry_of(table.ttl)} IS NOT NULL'
            )
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {FORMAT}")
    db.execute("COMMIT")
