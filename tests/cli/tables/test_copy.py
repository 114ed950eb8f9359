"""`artcafe tables copy` between two data folders: interrupted, refused, and with new ids.

tests/flows/test_copy.py copies to DynamoDB and back, with agents.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from artcafe.cli.tables.copy_ends import load_settings, open_end
from artcafe.fabric.scheduled_minutes import ScheduledMinutes
from artcafe.sdk.messages import Message
from artcafe.tables.catalog import TABLES
from tests.cli.tables.shell import run
from tests.platform import Cast, Platform, running

DIFFERENT, REFUSED, USAGE = 5, 3, 2


@dataclass(frozen=True)
class StoppedFolder:
    """The data folder of a stopped server, with a tenant, its eleven stored messages and a scheduled one."""

    data: Path
    cast: Cast


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> StoppedFolder:
    with running(tmp_path_factory.mktemp("home"), ["--cursor-write-s", "0.1"]) as platform:
        cast = asyncio.run(filled(platform))
    return StoppedFolder(platform.data, cast)


async def filled(platform: Platform) -> Cast:
    cast = await platform.tenant_with(agents=2, channels=2)
    async with cast.agent(0) as agent, cast.rest() as rest:
        for number in range(10):
            sent = await agent.publish(cast.channels[number % 2], number)
        assert sent.seq == 10
        await rest.tenant(cast.tenant).messages.publish(cast.channels[0], "from a person")
        await rest.tenant(cast.tenant).messages.publish(cast.channels[1], "later", delay_s=7200)
        await rest.tenant(cast.tenant).channels.delete((await rest.tenant(cast.tenant).channels.create("gone")).id)
    return cast


def rows(folder: Path) -> dict[str, list[tuple[str, ...]]]:
    """Return all rows of all tables of a folder."""
    with closing(sqlite3.connect(folder / "tables.sqlite")) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: db.execute(f'SELECT * FROM "{name}" ORDER BY 1, 2').fetchall() for name in sorted(names)}  # noqa: S608 (its own)


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "tables.sqlite")) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def test_copy_includes_all_rows_and_messages(home: StoppedFolder, tmp_path: Path) -> None:
    done = run("copy", "--from", home.data, "--to", tmp_path / "there", "--json")
    assert done.code == 0
    assert (done.json["is_whole"], done.json["messages"]) == (True, 12)
    assert {each["table"]: each["rows_there"] for each in done.json["tables"]} == {
        "artcafe-agents": 8,
        "artcafe-channels": 2,
        "artcafe-channel-subscriptions": 4,
        "artcafe-usage-metrics": done.json["tables"][3]["rows"],
        "artcafe-user-tenant-index": 1,
        "artcafe-user-tenants": 1,
        "artcafe-tenants": 1,
        "artcafe-terms-acceptance": 0,
    }
    here, there = rows(home.data), rows(tmp_path / "there")
    here["artcafe-Challenges"] = there["artcafe-Challenges"] = []
    assert there == here


def test_copy_includes_acceptances_and_unlisted_members_and_counts_other_rows(home: StoppedFolder, tmp_path: Path) -> None:
    data = tmp_path / "here"
    shutil.copytree(home.data, data)
    rows_here: dict[str, list[dict[str, object]]] = {
        "artcafe-terms-acceptance": [{"user_id": "hal@example.com", "version": "1"}, {"user_id": "ida", "version": "1"}],
        "artcafe-user-tenants": [{"user_id": "unlisted", "tenant_id": home.cast.tenant, "role": "member", "active": 0}],
        "artcafe-agents": [{"tenant_id": "gone", "id": "a"}, {"tenant_id": "gone", "id": "b"}],
        "artcafe-usage-metrics": [{"tenant_id": "system", "metric_id": "2025-05-24"}],
    }
    keys = {table.name: table.key_attributes for table in TABLES}
    for table, items in rows_here.items():
        for item in items:
            partition, sort = (str(item[name]) for name in keys[table])
            text = json.dumps(item, separators=(",", ":"))
            change(data, f"INSERT INTO \"{table}\" VALUES ('{partition}', '{sort}', '{text}')")  # noqa: S608 (its own)
    done = run("copy", "--from", data, "--to", tmp_path / "there", "--json")
    assert (done.code, done.json["is_whole"]) == (0, True)
    left = {each["table"]: each["left_behind"] for each in done.json["tables"] if each["left_behind"]}
    assert left == {"artcafe-agents": 2, "artcafe-usage-metrics": 1}
    there = rows(tmp_path / "there")
    for table in ("artcafe-terms-acceptance", "artcafe-user-tenants"):
        assert there[table] == rows(data)[table], table
    again = run("copy", "--from", data, "--to", tmp_path / "there")
    assert again.code == 0
    assert "2 rows of artcafe-agents not copied" in again.err

    alone = run("copy", "--from", data, "--to", tmp_path / "alone", "--tenant", home.cast.tenant, "--json")
    assert {each["left_behind"] for each in alone.json["tables"]} == {0}
    assert rows(tmp_path / "alone")["artcafe-user-tenants"] == rows(data)["artcafe-user-tenants"]


def test_repeated_copy_completes_an_unfinished_tenant_and_removes_stale_rows(home: StoppedFolder, tmp_path: Path) -> None:
    there = tmp_path / "there"
    assert run("copy", "--from", home.data, "--to", there).code == 0
    whole = rows(there)
    # The state after a kill before the tenant's own row was written, with later changes in the source.
    change(
        there,
        'DELETE FROM "artcafe-tenants"',
        'DELETE FROM "artcafe-channels" WHERE sort = (SELECT max(sort) FROM "artcafe-channels")',
        'INSERT INTO "artcafe-agents"'
        " SELECT partition, sort || 'x', json_set(item, '$.id', sort || 'x') FROM \"artcafe-agents\"",
        "UPDATE \"artcafe-channel-subscriptions\" SET item = json_set(item, '$.status', 'paused')",
    )
    done = run("copy", "--from", home.data, "--to", there, "--json")
    assert (done.code, done.json["tenants"][0]["state"], done.json["messages"]) == (0, "copied", 12)
    assert rows(there) == whole


def test_killed_copy_continues_when_repeated(home: StoppedFolder, tmp_path: Path) -> None:
    data, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(home.data, data)
    change(
        data,
        "WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 4000)"
        " INSERT INTO \"artcafe-agents\" SELECT partition, 'agt_' || value,"
        " json_object('tenant_id', partition, 'id', 'agt_' || value) FROM \"artcafe-tenants\", n",
    )
    command = [sys.executable, "-m", "artcafe", "tables", "copy", "--from", str(data), "--to", str(there), "--json"]
    output = tmp_path / "output"
    with (
        output.open("wb") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True) as process,
    ):
        until = time.monotonic() + 30
        while _agents(there) < 200:
            assert process.poll() is None, f"the copy ended before it could be killed: {output.read_text()}"
            assert time.monotonic() < until
            threading.Event().wait(0.005)
        process.kill()
    assert rows(there)["artcafe-tenants"] == []
    assert 200 <= _agents(there) < 4004
    done = run("copy", "--from", data, "--to", there, "--json")
    assert (done.code, done.json["is_whole"], done.json["messages"]) == (0, True, 12)
    assert rows(there)["artcafe-agents"] == rows(data)["artcafe-agents"]


def _agents(folder: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{folder / 'tables.sqlite'}?mode=ro", uri=True)) as db:
            count: int = db.execute('SELECT count(*) FROM "artcafe-agents"').fetchone()[0]
    except sqlite3.OperationalError:
        return 0  # The file does not exist yet.
    return count


def test_copy_reports_existing_tenants_and_leaves_them_unchanged(home: StoppedFolder, tmp_path: Path) -> None:
    there = tmp_path / "there"
    assert run("copy", "--from", home.data, "--to", there).code == 0
    assert run("copy", "--from", home.data, "--to", there, "--json").json["tenants"][0]["state"] == "there"
    change(there, "UPDATE \"artcafe-tenants\" SET item = json_set(item, '$.name', 'Theirs')")
    before = rows(there)
    done = run("copy", "--from", home.data, "--to", there, "--json")
    assert (done.code, done.json["is_whole"], done.json["tenants"][0]["state"]) == (DIFFERENT, False, "different")
    assert rows(there) == before
    assert "exists in the target and differs" in run("copy", "--from", home.data, "--to", there).err


def test_copy_never_overwrites_messages_of_another_log(home: StoppedFolder, tmp_path: Path) -> None:
    there, third = tmp_path / "there", tmp_path / "third"
    for target in (there, third):
        assert run("copy", "--from", home.data, "--to", target).code == 0
    change(there, 'DELETE FROM "artcafe-tenants"')
    before = rows(there)
    done = run("copy", "--from", third, "--to", there)
    assert (done.code, "has other messages" in done.err, rows(there)) == (REFUSED, True, before)


def test_copy_to_the_same_tables_is_refused(home: StoppedFolder, tmp_path: Path) -> None:
    data, settings = tmp_path / "prod", tmp_path / "dev.toml"
    shutil.copytree(home.data, data)
    settings.write_text(f'environment = "dev"\ndata_dir = "{tmp_path / "dev"}"\ntables = "sqlite:{data / "tables.sqlite"}"\n')
    for target, reason in ((data, "the same tables"), (settings, "shared by both environments")):
        done = run("copy", "--from", data, "--to", target)
        assert (done.code, reason in done.err) == (REFUSED, True), done.err


def test_copy_refuses_invalid_ends_tenants_and_options(home: StoppedFolder, tmp_path: Path) -> None:
    assert run("copy", "--from", tmp_path / "none", "--to", tmp_path / "there").code == REFUSED
    assert run("copy", "--from", home.data, "--to", tmp_path / "there", "--tenant", "ten_none").code == REFUSED
    assert run("copy", "--from", home.data, "--to", tmp_path / "there", "--label", "x").code == USAGE
    (tmp_path / "wrong.toml").write_text('tabels = "sqlite:x"\n')
    done = run("copy", "--from", tmp_path / "wrong.toml", "--to", tmp_path / "there", "--json")
    assert (done.code, done.error) == (REFUSED, "tables_refused")


def test_copy_with_new_ids_coexists_with_the_original(home: StoppedFolder, tmp_path: Path) -> None:
    data = tmp_path / "prod"
    shutil.copytree(home.data, data)
    before = rows(data)
    settings, ids = tmp_path / "dev.toml", tmp_path / "ids.json"
    settings.write_text(
        f'environment = "dev"\ndata_dir = "{tmp_path / "dev" / "data"}"\ntables = "sqlite:{data / "tables.sqlite"}"\n'
    )
    done = run("copy", "--from", data, "--to", settings, "--new-ids", "--ids", ids, "--json")
    assert (done.code, done.json["is_whole"], done.json["messages"]) == (0, True, 11)
    (tenant,) = json.loads(ids.read_text())
    assert (tenant["tenant_id"], tenant["scheduled"]) == (home.cast.tenant, 1)
    assert asyncio.run(tenants_to_wake(settings)) == {tenant["copy_id"]}
    assert run("copy", "--from", data, "--to", settings, "--new-ids", "--json").json["tenants"][0]["state"] == "there"
    other = run("copy", "--from", data, "--to", settings, "--new-ids", "--label", "again", "--json").json["tenants"][0]
    assert (other["state"], other["copy_id"] != tenant["copy_id"]) == ("copied", True)
    after = rows(data)
    assert all(set(before[name]) <= set(after[name]) for name in before)
    metered = set(after["artcafe-usage-metrics-dev"]) - set(before.get("artcafe-usage-metrics-dev", ()))
    usage = [json.loads(item) for *_, item in metered]
    assert [(row["metric_id"], row["begun"], row["seq"]) for row in usage] == [("meter", 11, 11)] * 2, "counted in the original"
    assert run("check", "--rows", "--tables", f"sqlite:{data / 'tables.sqlite'}", "--environment", "dev").code == 0

    platform = Platform(tmp_path / "dev", ["--environment", "dev", "--tables", f"sqlite:{data / 'tables.sqlite'}"])
    platform.start()
    try:
        asyncio.run(check_copied_agents(platform, home.cast, tenant))
    finally:
        platform.stop()


async def tenants_to_wake(settings: Path) -> set[str]:
    """Return the tenants that a server there opens by itself, when their scheduled messages are due."""
    end = open_end(load_settings(settings, "--to"), print, is_source=False)
    async with end as there, there.connector.connect(None) as platform:
        minutes = ScheduledMinutes(platform)
        await minutes.refresh()
        return set(minutes.by_tenant())


async def check_copied_agents(platform: Platform, cast: Cast, tenant: dict[str, dict[str, str]]) -> None:
    """Check that the copied agents log in with the same keys, and receive the messages with their new ids as senders."""
    copy = replace(
        cast,
        tenant=str(tenant["copy_id"]),
        agents=[tenant["agents"][agent] for agent in cast.agents],
        channels=[tenant["channels"][channel] for channel in cast.channels],
        url=platform.url,
        token=platform.token("owner-1@example.com"),
    )
    async with copy.agent(1) as agent, asyncio.timeout(20):
        messages = agent.messages()
        found: list[Message] = [await anext(messages) for _ in range(11)]
    by_channel = {channel: [each.data for each in found if each.channel_id == channel] for channel in copy.channels}
    assert by_channel == {copy.channels[0]: [0, 2, 4, 6, 8, "from a person"], copy.channels[1]: [1, 3, 5, 7, 9]}
    async with copy.rest() as rest:
        (later,) = [each async for each in rest.tenant(copy.tenant).scheduled.list(copy.channels[1])]
        assert later.data == "later"
    assert {each.sender_id for each in found} == {copy.agents[0], "usr:owner-1@example.com"}
