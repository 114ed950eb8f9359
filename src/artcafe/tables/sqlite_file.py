"""The table file: how it is made, recognised and connected to. What is read from it and written to it is `sqlite`'s."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from artcafe import errors
from artcafe.tables.catalog import TABLES, Environment

FORMAT = 1
APPLICATION_ID = int.from_bytes(b"ArtC")
BUSY_S = 5.0


def prepare(path: Path, environment: Environment) -> None:
    """Makes the file (mode 0600) and the tables of this environment where they are missing; may be repeated.

    Raises `errors.StartRefused` for a file that is a newer ArtCafe's, another program's or none at all, and for a place
    where no file can be.
    """
    try:
        _make(path)
        with closing(connect(path)) as db:
            _recognise(db, path)
            _lay_out(db, path, environment)
    except (OSError, sqlite3.Error) as exc:
        raise errors.StartRefused(
            f"the table file {path} cannot be used: {exc}", "check that its folder is there and yours, and that the file is whole"
        ) from exc


def connect(path: Path, busy_s: float = BUSY_S) -> sqlite3.Connection:
    """A connection in autocommit that flushes every commit to the disk; waits `busy_s` for a lock of another process.

    `synchronous` is FULL because NORMAL lost 5 of 1,000 acknowledged commits at a power cut, and FULL none.
    """
    # The engine hands each connection to one thread at a time; only opening and closing happen elsewhere.
    db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA synchronous = FULL")
    return db


def _make(path: Path) -> None:
    """SQLite gives its two side files the mode of this one."""
    # An existing file is not opened here: closing any descriptor of it would drop the locks this process has on it.
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
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {FORMAT}")
    db.execute("COMMIT")
