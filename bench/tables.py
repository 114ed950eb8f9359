"""Durable puts and gets a second of the embedded table engine, compared with plain sqlite3 on the same disk.

Every put is committed and flushed before it is answered. 1, 16 or 64 callers wait for an answer and then send the next put; items
of about 450 bytes, and ids that rise like ULIDs. The ways take turns within each round.

* the port: each put builds its checked `Put`, with the condition that it is the first of its id.
* plain, one a commit: sqlite3 with the same file settings, no conditions, no checks and no event loop.
* plain, grouped: the same with as many puts per commit as callers wait; no engine on SQLite can be faster.

`python -m bench.tables [FOLDER]` runs it alone; the folder must be on a disk, because a file system in memory flushes nothing.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Final

from artcafe.tables.catalog import AGENTS, Environment
from artcafe.tables.engine.conditions import Absent
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import ItemKey, Put
from artcafe.tables.sqlite.engine import Sqlite
from artcafe.tables.sqlite.file import connect, prepare
from bench import report
from bench.report import Options, Sample, Table

WAITING: Final = (1, 16, 64)
PUT: Final = 'INSERT INTO "artcafe-agents" VALUES (?, ?, ?)'
GET: Final = 'SELECT item FROM "artcafe-agents" WHERE partition = ? AND sort = ?'
GETS_A_LOOK: Final = 100
"""Gets between two checks of the clock."""

numbers = count()


async def run(options: Options) -> list[Table]:
    """Return rates and ratios of puts and of gets."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        tables = await Sqlite.open(Path(folder, "artcafe.db"), Environment.PROD)
        prepare(Path(folder, "plain.db"), Environment.PROD)
        with closing(connect(Path(folder, "plain.db"))) as plain:
            found = [await puts(options, tables, plain), await gets(options, tables, plain)]
        await tables.close()
    return found


async def puts(options: Options, tables: Sqlite, plain: sqlite3.Connection) -> Table:
    """Return one row for each number of waiting callers."""
    table = Table(
        "Durable puts a second", ("waiting", "the port", "plain, one a commit", "plain, grouped", "ratio", "ratio, grouped")
    )
    for waiting in WAITING:
        ours, single, grouped = [], [], []
        for _ in range(options.rounds):
            ours.append(await port_puts(tables, waiting, options.seconds))
            single.append(plain_puts(plain, 1, options.seconds))
            grouped.append(plain_puts(plain, waiting, options.seconds))
        rates = [report.median_rate(samples) for samples in (ours, single, grouped)]
        table.rows.append((str(waiting), *rates, report.median_ratio(ours, single), report.median_ratio(ours, grouped)))
    return table


async def gets(options: Options, tables: Sqlite, plain: sqlite3.Connection) -> Table:
    """Return one row: one key at a time, each item parsed."""
    item = agent(next(numbers))
    key = ItemKey(str(item["tenant_id"]), str(item["id"]))
    await tables.put(Put(AGENTS, item))
    plain.execute(PUT, (key.partition, key.sort, json.dumps(item)))
    ours, others = [], []
    for _ in range(options.rounds):
        ours.append(await port_gets(tables, key, options.seconds))
        others.append(plain_gets(plain, key, options.seconds))
    row = (report.median_rate(ours), report.median_rate(others), report.median_ratio(ours, others))
    return Table("Gets a second", ("the port", "plain", "ratio"), rows=[row])


def agent(number: int) -> Item:
    """Return an agent's row, much as the store writes it."""
    return {
        "tenant_id": "ten_01JD0000000000000000000000",
        "id": f"agt_{number:026}",
        "name": f"planner {number}",
        "description": "plans what the others do",
        "public_key": "ssh-ed25519 " + "A" * 68,
        "capabilities": ["plan", "act"],
        "status": "active",
        "channels": {"chn_01JD0000000000000000000001": True},
        "created_at": "2026-11-22T10:00:00Z",
        "updated_at": "2026-11-22T10:00:00Z",
    }


async def port_puts(tables: Sqlite, waiting: int, seconds: float) -> Sample:
    """Run this many callers, each putting one item after the other."""
    done, start = 0, time.perf_counter()

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() - start < seconds:
            await tables.put(Put(AGENTS, agent(next(numbers)), Absent("id")))
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(waiting):
            group.create_task(caller())
    return Sample(done, time.perf_counter() - start)


def plain_puts(db: sqlite3.Connection, a_commit: int, seconds: float) -> Sample:
    """Make this many puts per commit."""

    def commit() -> int:
        db.execute("BEGIN IMMEDIATE")
        for _ in range(a_commit):
            item = agent(next(numbers))
            db.execute(PUT, (item["tenant_id"], item["id"], json.dumps(item)))
        db.execute("COMMIT")
        return a_commit

    return repeated(commit, seconds)


async def port_gets(tables: Sqlite, key: ItemKey, seconds: float) -> Sample:
    """Run one caller, one key at a time."""
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(GETS_A_LOOK):
            await tables.get(AGENTS, [key])
        done += GETS_A_LOOK
    return Sample(done, time.perf_counter() - start)


def plain_gets(db: sqlite3.Connection, key: ItemKey, seconds: float) -> Sample:
    """Run only the statement and the parser."""

    def get() -> int:
        for _ in range(GETS_A_LOOK):
            json.loads(db.execute(GET, (key.partition, key.sort)).fetchone()[0])
        return GETS_A_LOOK

    return repeated(get, seconds)


def repeated(work: Callable[[], int], seconds: float) -> Sample:
    """Repeat `work` and add up its counts."""
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        done += work()
    return Sample(done, time.perf_counter() - start)


def main() -> None:
    """Print the machine and the tables."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/bench")
    folder.mkdir(parents=True, exist_ok=True)
    print(report.machine(folder), end="\n\n", flush=True)
    for table in asyncio.run(run(Options(folder))):
        print(table.markdown())


if __name__ == "__main__":
    main()
