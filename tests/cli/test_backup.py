"""`artcafe backup` and `artcafe restore` as a shell runs them. What agents are told then is tests/flows/test_restore.py's."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from artcafe.folder import DataFolder
from tests.platform import Cast, Platform, running

REFUSED = 3


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        printed: dict[str, Any] = json.loads(self.out)
        return printed


def artcafe(*arguments: str | Path, **environ: str) -> Done:
    env = {name: value for name, value in os.environ.items() if not name.startswith("ARTCAFE_")} | environ
    command = [sys.executable, "-m", "artcafe", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
    return Done(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Home:
    """A platform that runs, with a tenant in which ten messages are stored."""

    platform: Platform
    cast: Cast

    @property
    def data(self) -> Path:
        return self.platform.data


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with running(tmp_path_factory.mktemp("home")) as platform:
        cast = asyncio.run(platform.tenant_with())
        asyncio.run(publish(cast, range(10)))
        yield Home(platform, cast)


@pytest.fixture(scope="module")
def archive(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("archive") / "backup.tar"
    assert artcafe("backup", "--data-dir", home.data, file).code == 0
    return file


async def publish(cast: Cast, numbers: range) -> None:
    async with cast.rest() as rest:
        for number in numbers:
            await rest.publish(cast.tenant, cast.channels[0], number)


async def stored(cast: Cast, url: str) -> list[object]:
    """The data of the first messages, as a platform at another address has them."""
    moved = Cast(cast.tenant, cast.agents, cast.channels, cast.keys, url, cast.token)
    async with moved.agent() as agent, asyncio.timeout(10):
        messages = agent.messages(cast.channels[0], start="first")
        return [(await anext(messages)).data for _ in range(10)]


def test_a_running_server_is_saved_and_goes_on_and_what_is_restored_runs_beside_it(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    done = artcafe("backup", "--data-dir", home.data, file)
    assert done.code == 0
    assert re.match(r"Saved 10 messages in 1 log, \d+ entr(y|ies) of the audit and \d+ rows of tables to ", done.out)
    assert "goes on" in done.err
    assert "holds the secret" in done.err
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


def test_a_stopped_folder_is_saved_too_and_what_was_saved_can_be_saved_again(archive: Path, tmp_path: Path) -> None:
    folder, again = tmp_path / "folder", tmp_path / "again.tar"
    made = artcafe("restore", archive, "--data-dir", folder, "--json").json
    saved = artcafe("backup", "--data-dir", folder, again, "--json")
    assert "goes on" not in saved.err
    assert {name: saved.json[name] for name in ("logs", "messages", "audit_entries", "rows", "environment")} == {
        name: made[name] for name in ("logs", "messages", "audit_entries", "rows", "environment")
    }
    assert (saved.json["messages"], saved.json["rows"]["artcafe-agents"]) == (10, 2)  # The agent and the claim to its key.
    assert artcafe("restore", again, "--data-dir", tmp_path / "third").code == 0


def test_without_the_secret_a_backup_is_restored_with_the_one_it_was_made_with(home: Home, tmp_path: Path) -> None:
    file, folder = tmp_path / "backup.tar", tmp_path / "folder"
    done = artcafe("backup", "--data-dir", home.data, "--without-secret", file)
    assert (done.code, "holds the secret" in done.err) == (0, False)
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


def test_a_folder_that_has_something_in_it_is_left_alone_and_an_empty_one_is_taken(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    refused = artcafe("restore", archive, "--data-dir", tmp_path / "full", "--json")
    assert refused.code == REFUSED
    assert json.loads(refused.err.splitlines()[-1])["error"]["code"] == "archive_refused"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["note"]

    (tmp_path / "empty").mkdir()
    assert artcafe("restore", archive, "--data-dir", tmp_path / "empty").code == 0
    assert (tmp_path / "empty" / "tables.sqlite").exists()


def test_a_damaged_archive_makes_no_folder(archive: Path, tmp_path: Path) -> None:
    spoiled = bytearray(archive.read_bytes())
    spoiled[spoiled.index(b"SQLite format 3") + 5000] ^= 1
    (tmp_path / "spoiled.tar").write_bytes(spoiled)
    (tmp_path / "short.tar").write_bytes(archive.read_bytes()[:-12_000])
    for name in ("spoiled.tar", "short.tar", "none.tar"):
        refused = artcafe("restore", tmp_path / name, "--data-dir", tmp_path / "folder")
        assert refused.code == REFUSED
        assert "Traceback" not in refused.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["short.tar", "spoiled.tar"]


def test_what_is_no_data_folder_is_not_saved_and_not_made(home: Home, tmp_path: Path) -> None:
    for refused in (
        artcafe("backup", "--data-dir", tmp_path / "none", tmp_path / "backup.tar"),
        artcafe("backup", "--data-dir", home.data, tmp_path / "backup.tar", ARTCAFE_ENVIRONMENT="dev"),
        artcafe("backup", "--data-dir", home.data, tmp_path / "backup.tar", ARTCAFE_NATS_URLS="nats://127.0.0.1:1"),
        artcafe("backup", "--data-dir", home.data, tmp_path / "none" / "backup.tar"),
    ):
        assert (refused.code, "Traceback" in refused.err) == (REFUSED, False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_server_is_only_starting_can_be_saved_a_little_later(tmp_path: Path) -> None:
    folder = DataFolder.take(tmp_path / "data")
    (tmp_path / "data" / "secret").touch(mode=0o600)
    (tmp_path / "data" / "secret").write_bytes(b"0" * 64)
    try:
        done = artcafe("backup", "--data-dir", tmp_path / "data", tmp_path / "backup.tar")
    finally:
        folder.release()
    assert (done.code, "only starting" in done.err) == (4, True)


def test_the_help_of_both_has_an_example() -> None:
    for command in ("backup", "restore"):
        done = artcafe(command, "--help")
        assert (done.code, f"artcafe {command} " in done.out.split("Example:")[1]) == (0, True)
