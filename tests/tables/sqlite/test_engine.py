from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from shutil import copy

import pytest

from artcafe import errors
from artcafe.tables.catalog import AGENTS, CHALLENGES, CHANNELS, TABLES, TENANTS, Environment
from artcafe.tables.engine.conditions import Absent, Less
from artcafe.tables.engine.port import ConditionFailed, Scans, Tables
from artcafe.tables.engine.writes import Add, Assign, Delete, ItemKey, Put, Update
from artcafe.tables.sqlite import file as sqlite_file
from artcafe.tables.sqlite.engine import MAX_KEYS_ON_LOOP, MAX_READS, SCAN_ROWS, Sqlite
from artcafe.tables.sqlite.file import FORMAT, connect

TENANT = ItemKey("ten_1")


@asynccontextmanager
async def opened(path: Path, environment: Environment = Environment.PROD) -> AsyncIterator[Sqlite]:
    engine = await Sqlite.open(path, environment)
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tables.db"


@pytest.fixture
async def engine(path: Path) -> AsyncIterator[Sqlite]:
    async with opened(path) as engine:
        yield engine


async def counted(tables: Tables) -> object:
    (item,) = await tables.get(TENANTS, [TENANT])
    return None if item is None else item["count"]


# --- the file --------------------------------------------------------------------------------------------------------


async def test_written_rows_survive_reopening_the_file(path: Path) -> None:
    async with opened(path) as engine:
        await engine.put(Put(TENANTS, {"id": "ten_1", "name": "née", "rate": Decimal("1.5")}))
    assert not path.with_name("tables.db-wal").exists()
    async with opened(path) as engine:
        assert await engine.get(TENANTS, [TENANT]) == [{"id": "ten_1", "name": "née", "rate": Decimal("1.5")}]


@pytest.mark.parametrize("environment", Environment)
async def test_tables_have_the_names_of_their_environment(path: Path, environment: Environment) -> None:
    async with opened(path, environment):
        pass
    with closing(connect(path)) as db:
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names == {table.name_in(environment) for table in TABLES}


async def test_dev_and_prod_in_one_file_share_only_the_common_tables(path: Path) -> None:
    async with opened(path) as prod, opened(path, Environment.DEV) as dev:
        await prod.put(Put(TENANTS, {"id": "ten_1"}))
        await prod.put(Put(CHALLENGES, {"challenge_id": "chl_1"}))
        assert await dev.get(TENANTS, [TENANT]) == [None]
        assert await dev.get(CHALLENGES, [ItemKey("chl_1")]) == [{"challenge_id": "chl_1"}]


async def test_file_is_readable_only_by_its_owner(path: Path) -> None:
    path.touch(0o644)
    async with opened(path) as engine:
        await engine.put(Put(TENANTS, {"id": "ten_1"}))
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == {"tables.db": 0o600, "tables.db-wal": 0o600, "tables.db-shm": 0o600}


def test_every_commit_is_flushed_to_the_disk(path: Path) -> None:
    with closing(connect(path)) as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)


async def test_row_is_readable_in_the_sqlite_shell(engine: Sqlite, path: Path) -> None:
    await engine.put(Put(TENANTS, {"id": "ten_1", "name": "née", "limits": {"agents": 10}, "on": True, "rate": Decimal("1.5")}))
    with closing(connect(path)) as db:
        (row,) = db.execute('SELECT * FROM "artcafe-tenants"').fetchall()
    assert row == ("ten_1", "", '{"id":"ten_1","name":"née","limits":{"agents":10},"on":true,"rate":{"":["N","1.5"]}}')


async def test_file_of_a_newer_version_is_refused_unchanged(path: Path) -> None:
    async with opened(path):
        pass
    with closing(connect(path)) as db:
        db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    before = path.read_bytes()
    with pytest.raises(errors.StartRefused) as refused:
        await Sqlite.open(path, Environment.PROD)
    assert f"has format {FORMAT + 1}, and this ArtCafe reads formats up to {FORMAT}" in str(refused.value)
    assert "start the newer ArtCafe" in refused.value.remedy
    assert path.read_bytes() == before


async def test_sqlite_file_of_another_program_is_refused_unchanged(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(errors.StartRefused, match="not ArtCafe's"):
        await Sqlite.open(path, Environment.PROD)
    assert path.read_bytes() == before


async def test_file_other_than_a_database_is_refused(path: Path) -> None:
    path.write_bytes(b"this is a letter, not a table file" * 100)
    with pytest.raises(errors.StartRefused, match="cannot be used: file is not a database"):
        await Sqlite.open(path, Environment.PROD)


async def test_path_without_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.StartRefused, match="No such file or directory"):
        await Sqlite.open(tmp_path / "missing" / "tables.db", Environment.PROD)
    with pytest.raises(errors.StartRefused):
        await Sqlite.open(tmp_path, Environment.PROD)


# --- writing ---------------------------------------------------------------------------------------------------------


async def test_refused_write_does_not_affect_others_in_its_commit(engine: Sqlite) -> None:
    async def put(number: int) -> bool:
        try:
            await engine.put(Put(AGENTS, {"tenant_id": "ten_1", "id": f"agt_{number % 32}"}, Absent("id")))
        except ConditionFailed:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(put(number)) for number in range(64)]
    assert [task.result() for task in tasks] == [True] * 32 + [False] * 32
    assert len((await engine.query(AGENTS, "ten_1", limit=100)).items) == 32


async def test_two_engines_on_one_file_share_a_limit(path: Path) -> None:
    async def add(engine: Sqlite) -> bool:
        try:
            await engine.update(Update(TENANTS, TENANT, [Add("count", 1)], Less("count", 30)))
        except ConditionFailed:
            return False
        return True

    async with opened(path) as one, opened(path) as other:
        await one.put(Put(TENANTS, {"id": "ten_1", "count": 0}))
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            tasks = [group.create_task(add(engine)) for _ in range(25) for engine in (one, other)]
        assert sum(task.result() for task in tasks) == 30
        assert await counted(one) == await counted(other) == 30


async def test_write_of_a_cancelled_caller_is_atomic_and_affects_nobody_else(engine: Sqlite) -> None:
    async def move(number: int) -> None:
        row = {"tenant_id": "ten_1", "id": f"agt_{number:02}"}
        await engine.transact([Put(AGENTS, row), Put(CHANNELS, row)])

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        tasks = [group.create_task(move(number)) for number in range(40)]
        for number in range(0, 40, 2):
            if number % 4:
                await asyncio.sleep(0)
            tasks[number].cancel()
    agents = (await engine.query(AGENTS, "ten_1")).items
    assert agents == (await engine.query(CHANNELS, "ten_1")).items
    assert {f"agt_{number:02}" for number in range(1, 40, 2)} <= {str(item["id"]) for item in agents}


async def test_close_commits_waiting_writes_and_refuses_later_ones(path: Path) -> None:
    engine = await Sqlite.open(path, Environment.PROD)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        writes = [group.create_task(engine.update(Update(TENANTS, TENANT, [Add("count", 1)]))) for _ in range(600)]
        await asyncio.sleep(0)
        closes = [group.create_task(engine.close()) for _ in range(2)]
    assert all(task.done() for task in [*writes, *closes])
    with pytest.raises(errors.Unavailable):
        await engine.put(Put(TENANTS, {"id": "ten_2"}))
    with pytest.raises(errors.Unavailable):
        await engine.get(TENANTS, [TENANT])
    with pytest.raises(errors.Unavailable):
        await engine.query(AGENTS, "ten_1")
    await engine.close()
    async with opened(path) as again:
        assert await counted(again) == 600


@contextmanager
def disk_that_ends_at(size: int) -> Iterator[None]:
    """Limit the size of this process's files, like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_full_disk_refuses_every_write_of_a_commit_and_applies_none(engine: Sqlite, path: Path) -> None:
    async def put(number: int) -> bool:
        try:
            await engine.put(Put(AGENTS, {"tenant_id": "ten_1", "id": f"agt_{number:02}", "name": "x" * 9000}))
        except errors.Unavailable:
            return False
        return True

    await engine.update(Update(TENANTS, TENANT, [Assign("count", 1)]))
    with disk_that_ends_at(path.with_name("tables.db-wal").stat().st_size + 30_000):
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            tasks = [group.create_task(put(number)) for number in range(40)]
        assert not any(task.result() for task in tasks)
        assert (await engine.query(AGENTS, "ten_1")).items == []
        assert await counted(engine) == 1
        assert await put(41)
    assert await put(42)
    assert [item["id"] for item in (await engine.query(AGENTS, "ten_1")).items] == ["agt_41", "agt_42"]


async def test_unexpected_exception_in_a_write_rolls_back_its_commit_and_the_next_runs(engine: Sqlite) -> None:
    broken = Put(TENANTS, {"id": "ten_2"})
    assert isinstance(broken.item, dict)
    broken.item["name"] = object()

    async def mistake(write: Put) -> str:
        with pytest.raises(TypeError) as failed:
            await engine.put(write)
        return str(failed.value)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for write in (Put(TENANTS, {"id": "ten_1", "count": 1}), broken):
            group.create_task(mistake(write))
    assert await counted(engine) is None
    await engine.put(Put(TENANTS, {"id": "ten_1", "count": 2}))
    assert await counted(engine) == 2


async def test_writes_wait_for_another_process_and_reads_do_not(path: Path) -> None:
    async with opened(path) as engine, asyncio.timeout(20):
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with asyncio.TaskGroup() as group:
                write = group.create_task(engine.put(Put(TENANTS, {"id": "ten_1", "count": 1})))
                assert await counted(engine) is None
                assert (await engine.query(AGENTS, "ten_1")).items == []
                assert not write.done()
                other.execute("COMMIT")
        assert await counted(engine) == 1


async def test_write_and_sweep_are_unavailable_while_another_process_writes_too_long(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.2)
    async with opened(path) as engine:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(errors.Unavailable):
                await engine.put(Put(TENANTS, {"id": "ten_1", "count": 1}))
            with pytest.raises(errors.Unavailable):
                await engine.sweep(datetime.now(UTC))
            other.execute("ROLLBACK")
        await engine.put(Put(TENANTS, {"id": "ten_1", "count": 2}))
        assert await engine.sweep(datetime.now(UTC)) == 0
        assert await counted(engine) == 2


# --- kill during a write ---------------------------------------------------------------------------------------------


async def killed_after(acknowledged: int, path: Path, run: str) -> list[str]:
    """Return the ids acknowledged by a writer before it was killed during a write."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.tables.sqlite.killed_writer", str(path), run, stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert writer.stdout is not None
    try:
        ids = [(await asyncio.wait_for(writer.stdout.readline(), 5)).decode().strip() for _ in range(acknowledged)]
    finally:
        writer.send_signal(signal.SIGKILL)
    rest = (await asyncio.wait_for(writer.stdout.read(), 5)).decode()
    await asyncio.wait_for(writer.wait(), 5)
    # The kill may truncate the last line.
    return ids + [line for line in rest.split("\n")[:-1] if line]


async def test_acknowledged_writes_survive_a_kill_and_transactions_are_atomic(path: Path, tmp_path: Path) -> None:
    acknowledged: list[str] = []
    for run in ("one", "two", "three"):
        acknowledged += await killed_after(200, path, run)
        # The log left by a power cut is read by a process without another one's shared memory.
        folder = tmp_path / run
        folder.mkdir()
        for name in ("tables.db", "tables.db-wal"):
            copy(path.with_name(name), folder / name)
        async with opened(folder / "tables.db") as engine:
            agents = [str(item["id"]) async for item in engine.scan(AGENTS)]
            channels = [str(item["id"]) async for item in engine.scan(CHANNELS)]
            assert set(acknowledged) <= set(agents)
            assert agents == channels
            assert await counted(engine) == len(agents)


# --- operators' reads, and expiry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, SCAN_ROWS, SCAN_ROWS + 1])
async def test_scan_reads_every_item_once(engine: Sqlite, count: int) -> None:
    scans: Scans = engine
    keys = [ItemKey(f"ten_{number % 7}", f"agt_{number}") for number in range(count)]
    for start in range(0, count, 100):
        await engine.transact([Put(AGENTS, {"tenant_id": key.partition, "id": key.sort}) for key in keys[start : start + 100]])
    found = [ItemKey(str(item["tenant_id"]), str(item["id"])) async for item in scans.scan(AGENTS)]
    assert len(found) == count
    assert set(found) == set(keys)


async def test_reads_of_few_and_many_keys_return_the_same(engine: Sqlite) -> None:
    keys = [ItemKey(f"ten_{number}") for number in range(MAX_KEYS_ON_LOOP + 1)]
    await engine.transact([Put(TENANTS, {"id": key.partition}) for key in keys[::2]])
    many = await engine.get(TENANTS, keys)
    assert many == [(await engine.get(TENANTS, [key]))[0] for key in keys]
    assert many.count(None) == MAX_KEYS_ON_LOOP // 2


async def test_too_many_waiting_reads_refuse_the_next_at_once_and_serve_the_waiting(engine: Sqlite) -> None:
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        reads = [group.create_task(engine.query(AGENTS, "ten_1")) for _ in range(MAX_READS)]
        await asyncio.sleep(0)
        with pytest.raises(errors.Unavailable, match="the table file"):
            await engine.query(AGENTS, "ten_1")
    assert {len(read.result().items) for read in reads} == {0}
    assert (await engine.query(AGENTS, "ten_1")).next is None


async def test_sweep_removes_only_expired_rows(engine: Sqlite) -> None:
    now = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    times = {"past": now - timedelta(seconds=1), "due": now, "ahead": now + timedelta(seconds=1)}
    for name, time in times.items():
        await engine.put(Put(CHALLENGES, {"challenge_id": name, "ttl": int(time.timestamp())}))
    await engine.put(Put(CHALLENGES, {"challenge_id": "timeless"}))
    await engine.put(Put(CHALLENGES, {"challenge_id": "text", "ttl": "1"}))
    await engine.put(Put(TENANTS, {"id": "ten_1", "ttl": 1}))
    assert await engine.sweep(now) == 2
    assert await engine.sweep(now) == 0
    assert {item["challenge_id"] async for item in engine.scan(CHALLENGES)} == {"ahead", "timeless", "text"}
    assert await engine.get(TENANTS, [TENANT]) == [{"id": "ten_1", "ttl": 1}]
    await engine.delete(Delete(TENANTS, TENANT))
