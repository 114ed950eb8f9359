"""`artcafe backup` and `artcafe restore` in their own processes. tests/flows/test_restore.py tests deliveries after a restore."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from artcafe.cli.operate import staging_dir
from artcafe.cli.operate.archive import create_archive, open_archive
from artcafe.data_dir import DataDir
from artcafe.fabric import scheduled_minutes
from artcafe.observe.clock import now
from artcafe.sdk.client import Client
from tests.children import ended_with_parent, plain_environ
from tests.faults.processes import wait_for
from tests.forked import run_artcafe
from tests.platform import Cast, Platform, running

REFUSED = 3
SOON_S = 20.0
"""For a delivery on a machine that is busy with other tests: far less than the minute until a server looks through open logs."""


@dataclass(frozen=True)
class BackupResult:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        printed: dict[str, Any] = json.loads(self.out)
        return printed


def artcafe(*arguments: str | Path, **environ: str) -> BackupResult:
    done = run_artcafe(*arguments, env=plain_environ() | environ)
    return BackupResult(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class PopulatedPlatform:
    """A running platform with a tenant and ten stored messages."""

    platform: Platform
    cast: Cast

    @property
    def data(self) -> Path:
        return self.platform.data


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PopulatedPlatform]:
    with running(tmp_path_factory.mktemp("home")) as platform:
        cast = asyncio.run(platform.tenant_with())
        asyncio.run(publish(cast, range(10)))
        yield PopulatedPlatform(platform, cast)


@pytest.fixture(scope="module")
def archive(home: PopulatedPlatform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("archive") / "backup.tar"
    assert artcafe("backup", "--data-dir", home.data, file).code == 0
    return file


async def publish(cast: Cast, numbers: range) -> None:
    async with cast.rest() as rest:
        for number in numbers:
            await rest.tenant(cast.tenant).messages.publish(cast.channels[0], number)


async def stored(cast: Cast, url: str) -> list[object]:
    """Return the data of the first ten messages, read from a platform at `url`."""
    moved = Cast(cast.tenant, cast.agents, cast.channels, cast.keys, url, cast.token)
    async with moved.agent() as agent, asyncio.timeout(10):
        messages = agent.messages(cast.channels[0], start="first")
        return [(await anext(messages)).data for _ in range(10)]


def test_backup_of_a_running_server_restores_to_a_second_server(home: PopulatedPlatform, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    done = artcafe("backup", "--data-dir", home.data, file)
    assert done.code == 0
    assert re.match(r"Saved 10 messages in 1 log, \d+ audit entr(y|ies) and \d+ table rows to ", done.out)
    assert "keeps running" in done.err
    assert "contains the secret" in done.err
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["backup.tar"]

    restored = Platform(tmp_path / "beside")
    done = artcafe("restore", file, "--data-dir", restored.data)
    assert (done.code, done.out.splitlines()[1]) == (0, f"Start it:  artcafe up --data-dir {restored.data}")
    assert restored.data.stat().st_mode & 0o777 == 0o700
    restored.start()
    try:
        assert asyncio.run(stored(home.cast, restored.url)) == list(range(10))
        assert asyncio.run(stored(home.cast, home.platform.url)) == list(range(10))
    finally:
        restored.stop()


def test_backup_of_a_stopped_restored_folder_equals_the_first_backup(archive: Path, tmp_path: Path) -> None:
    folder, again = tmp_path / "folder", tmp_path / "again.tar"
    made = artcafe("restore", archive, "--data-dir", folder, "--json").json
    saved = artcafe("backup", "--data-dir", folder, again, "--json")
    assert "keeps running" not in saved.err
    assert {name: saved.json[name] for name in ("logs", "messages", "audit_entries", "rows", "environment")} == {
        name: made[name] for name in ("logs", "messages", "audit_entries", "rows", "environment")
    }
    # The agent, and the claims to its key, its handle and the handle of the channel.
    assert (saved.json["messages"], saved.json["rows"]["artcafe-agents"]) == (10, 4)
    assert artcafe("restore", again, "--data-dir", tmp_path / "third").code == 0


def without_scheduled_minutes(archive: Path, to: Path) -> None:
    """Write the archive again without the platform's minutes of scheduled messages, which were saved before the first one."""
    with open_archive(archive) as source, create_archive(to) as out:
        streams = [each for each in source.manifest.streams if each.saved.name != scheduled_minutes.STREAM]
        assert len(streams) == len(source.manifest.streams) - 1
        kept = msgspec.structs.replace(source.manifest, streams=streams)
        for each in kept.parts:
            with out.part(each.name) as part:
                for chunk in source.chunks(each):
                    part.write(chunk)
        out.finish(kept)


@pytest.mark.promise("s4", "r7")
async def test_message_scheduled_while_the_backup_was_made_is_delivered_after_a_restore(tmp_path: Path) -> None:
    """The backup may have a scheduled message without its minute, which is in a stream of the platform and was saved before."""
    saved, archive = tmp_path / "saved.tar", tmp_path / "backup.tar"
    with running(tmp_path / "home") as home:
        cast = await home.tenant_with(agents=1)
        async with cast.agent() as agent:
            due = now() + timedelta(seconds=2)
            stored = await agent.publish(cast.channels[0], "later", deliver_at=due)
        done = await asyncio.to_thread(artcafe, "backup", "--data-dir", home.data, saved)
        assert done.code == 0
    without_scheduled_minutes(saved, archive)
    restored = Platform(tmp_path / "restored")
    done = await asyncio.to_thread(artcafe, "restore", archive, "--data-dir", restored.data)
    assert done.code == 0
    await asyncio.to_thread(restored.start)
    try:
        async with Client(restored.url, cast.token) as rest:
            async with asyncio.timeout(SOON_S):
                while await delivered(rest, cast) != [stored.message_id]:  # noqa: ASYNC110 (a log tells nobody over REST)
                    await asyncio.sleep(0.1)
    finally:
        await asyncio.to_thread(restored.stop)


async def delivered(rest: Client, cast: Cast) -> list[str]:
    return [each.message_id async for each in rest.tenant(cast.tenant).messages.list(cast.channels[0], after=0)]


def test_backup_without_secret_requires_the_original_secret_to_restore(home: PopulatedPlatform, tmp_path: Path) -> None:
    file, folder = tmp_path / "backup.tar", tmp_path / "folder"
    done = artcafe("backup", "--data-dir", home.data, "--without-secret", file)
    assert (done.code, "contains the secret" in done.err) == (0, False)
    secret = (home.data / "secret").read_bytes()
    assert secret not in file.read_bytes()

    refused = artcafe("restore", file, "--data-dir", folder)
    assert (refused.code, "--secret-file" in refused.err) == (REFUSED, True)
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_bytes(b"0" * 64)
    refused = artcafe("restore", file, "--data-dir", folder, "--secret-file", wrong)
    assert (refused.code, "is not the secret" in refused.err) == (REFUSED, True)
    assert not folder.exists()
    assert artcafe("restore", file, "--data-dir", folder, "--secret-file", home.data / "secret").code == 0
    assert (folder / "secret").read_bytes() == secret
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.tar", "folder", "wrong"]


def test_restore_refuses_a_non_empty_folder_and_fills_an_empty_one(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    refused = artcafe("restore", archive, "--data-dir", tmp_path / "full", "--json")
    assert refused.code == REFUSED
    assert json.loads(refused.err.splitlines()[-1])["error"]["code"] == "archive_refused"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["note"]

    (tmp_path / "empty").mkdir()
    assert artcafe("restore", archive, "--data-dir", tmp_path / "empty").code == 0
    assert (tmp_path / "empty" / "tables.sqlite").exists()


def test_killed_restore_stops_its_nats_server_and_the_next_restore_removes_its_folder(archive: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, "-m", "artcafe", "restore", archive, "--data-dir", tmp_path / "folder"]
    with subprocess.Popen(ended_with_parent(command), stderr=subprocess.DEVNULL) as process:
        draft = tmp_path / f".folder.{process.pid}"
        pid_file = draft / "data" / "nats" / "nats.pid"
        wait_for(lambda: pid_file.exists() and pid_file.read_text() != "", "a nats-server")
        process.kill()
    child = pid_file.read_text()
    wait_for(lambda: "nats-server" not in command_of(child), "the end of that nats-server")
    assert (draft / "data" / "secret").exists()

    done = artcafe("restore", archive, "--data-dir", tmp_path / "folder")
    assert (done.code, f"removed {draft}" in done.err) == (0, True)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def command_of(pid: str) -> str:
    """Return the command line of a process; empty after its end."""
    return subprocess.run(["ps", "-o", "command=", "-p", pid], capture_output=True, text=True, check=False).stdout


def test_staging_folders_of_running_commands_and_other_targets_are_kept(tmp_path: Path) -> None:
    said: list[str] = []
    target, dead = tmp_path / "backup.tar", subprocess.Popen(["true"])
    dead.wait()
    holder = [sys.executable, "-c", HOLDER, str(target)]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        held = Path(other.stdout.readline().strip())
        old, running = tmp_path / f".backup.tar.{dead.pid}", tmp_path / f".backup.tar.{os.getppid()}"
        foreign = tmp_path / f".other.tar.{dead.pid}"
        kept = {held, running, foreign}
        for each in {old, *kept} - {held}:
            each.write_text("without a lock, as by an earlier version")
        with staging_dir.create(target, said.append) as folder:
            assert folder.stat().st_mode & 0o777 == 0o700
            assert set(tmp_path.iterdir()) == {folder, *kept}
        other.kill()
    assert [str(old) in text for text in said] == [True]
    with staging_dir.create(target, said.append) as folder:
        assert set(tmp_path.iterdir()) == {folder, *kept} - {held}


HOLDER = """
import sys
from pathlib import Path
from artcafe.cli.operate import staging_dir
with staging_dir.create(Path(sys.argv[1]), print) as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""
"""A process that holds a staging folder of the same target until it is killed."""


def test_damaged_archive_creates_no_folder(archive: Path, tmp_path: Path) -> None:
    spoiled = bytearray(archive.read_bytes())
    spoiled[spoiled.index(b"SQLite format 3") + 5000] ^= 1
    (tmp_path / "spoiled.tar").write_bytes(spoiled)
    (tmp_path / "short.tar").write_bytes(archive.read_bytes()[:-12_000])
    for name in ("spoiled.tar", "short.tar", "none.tar"):
        refused = artcafe("restore", tmp_path / name, "--data-dir", tmp_path / "folder")
        assert refused.code == REFUSED
        assert "Traceback" not in refused.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["short.tar", "spoiled.tar"]


def test_backup_refuses_other_folders_and_creates_nothing(home: PopulatedPlatform, tmp_path: Path) -> None:
    for refused in (
        artcafe("backup", "--data-dir", tmp_path / "none", tmp_path / "backup.tar"),
        artcafe("backup", "--data-dir", home.data, tmp_path / "backup.tar", ARTCAFE_ENVIRONMENT="dev"),
        artcafe("backup", "--data-dir", home.data, tmp_path / "backup.tar", ARTCAFE_NATS_URLS="nats://127.0.0.1:1"),
        artcafe("backup", "--data-dir", home.data, tmp_path / "none" / "backup.tar"),
    ):
        assert (refused.code, "Traceback" in refused.err) == (REFUSED, False)
    assert list(tmp_path.iterdir()) == []


def test_backup_of_a_folder_with_a_starting_server_is_a_temporary_error(tmp_path: Path) -> None:
    folder = DataDir.acquire(tmp_path / "data")
    (tmp_path / "data" / "secret").touch(mode=0o600)
    (tmp_path / "data" / "secret").write_bytes(b"0" * 64)
    try:
        done = artcafe("backup", "--data-dir", tmp_path / "data", tmp_path / "backup.tar")
    finally:
        folder.release()
    assert (done.code, "still starting" in done.err) == (4, True)


def test_help_of_both_commands_has_an_example() -> None:
    for command in ("backup", "restore"):
        done = artcafe(command, "--help")
        assert (done.code, f"artcafe {command} " in done.out.split("Example:")[1]) == (0, True)
