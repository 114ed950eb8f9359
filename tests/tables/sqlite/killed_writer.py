"""Write rows to a table file and print each acknowledged one, until killed.

Run as `python -m tests.tables.sqlite.killed_writer FILE RUN`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from artcafe.tables.catalog import AGENTS, CHANNELS, TENANTS, Environment
from artcafe.tables.engine.conditions import Absent
from artcafe.tables.engine.writes import Add, ItemKey, Put, Update
from artcafe.tables.sqlite.engine import Sqlite


async def write(tables: Sqlite, run: str, worker: int) -> None:
    """Write three rows in one transaction repeatedly, printing its id once acknowledged."""
    number = 0
    while True:
        row = {"tenant_id": "ten_1", "id": f"{run}_{worker}_{number}"}
        await tables.transact(
            [Put(AGENTS, row, Absent("id")), Put(CHANNELS, row), Update(TENANTS, ItemKey("ten_1"), [Add("count", 1)])]
        )
        sys.stdout.write(row["id"] + "\n")
        sys.stdout.flush()
        number += 1


async def main(path: Path, run: str) -> None:
    tables = await Sqlite.open(path, Environment.PROD)
    async with asyncio.TaskGroup() as group:
        for worker in range(16):
            group.create_task(write(tables, run, worker))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
