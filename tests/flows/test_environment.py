"""`ENVIRONMENT=dev` uses the four `-dev` tables, and the shared tables for the rest."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from artcafe.tables.catalog import TABLES, Environment
from artcafe.tables.engine.writes import ItemKey, Put
from artcafe.tables.sqlite.engine import Sqlite
from tests.platform import running

SEED_TWINS = {"artcafe-agents-dev", "artcafe-tenants-dev", "artcafe-channels-dev", "artcafe-usage-metrics-dev"}
WRITTEN = {"artcafe-agents-dev", "artcafe-tenants-dev", "artcafe-channels-dev", "artcafe-usage-metrics-dev"}
SHARED = {"artcafe-user-tenants", "artcafe-user-tenant-index", "artcafe-channel-subscriptions", "artcafe-Challenges"}
"""The table of challenges contains the row that readiness writes."""


async def test_platform_in_dev_reads_and_writes_the_dev_tables(tmp_path: Path) -> None:
    with running(tmp_path, ["--environment", "dev"]) as platform:
        cast = await platform.tenant_with()
        async with cast.agent() as agent:
            await agent.publish(cast.channels[0], "hello")
    with closing(sqlite3.connect(platform.data / "tables.sqlite")) as db:
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        counts = {name: db.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}  # noqa: S608 (its own names)
    assert names == {table.name_in(Environment.DEV) for table in TABLES}
    assert names >= SEED_TWINS
    assert {name for name, count in counts.items() if count} == WRITTEN | SHARED


async def test_two_environments_on_one_file_share_only_tables_without_a_dev_table(tmp_path: Path) -> None:
    prod = await Sqlite.open(tmp_path / "tables.sqlite", Environment.PROD)
    dev = await Sqlite.open(tmp_path / "tables.sqlite", Environment.DEV)
    try:
        for table in TABLES:
            key = ItemKey("a", "b" if table.sort_key else None)
            item = dict(zip(table.key_attributes, ("a", "b"), strict=False))
            await dev.put(Put(table, item))
            (found,) = await prod.get(table, [key], consistent=True)
            assert found == (None if table.dev_twin else item), table.name
    finally:
        await prod.close()
        await dev.close()
