from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests import ssh_keygen
from tests.cli.manage.test_manage import Person
from tests.platform import Platform


@pytest.fixture
def person(platform: Platform) -> Person:
    cast = asyncio.run(platform.tenant_with(agents=0, channels=0))
    return Person({"URL": cast.url, "TOKEN": cast.token})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three keys, and a file that is none."""
    for name in ("ann", "ben", "cleo"):
        ssh_keygen.make_key(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a key")
    return tmp_path


def test_a_folder_of_public_keys_becomes_agents_once(person: Person, folder: Path) -> None:
    made = person.run("agent", "import", str(folder), "--capability", "search", "--json").json
    assert [(row["name"], row["outcome"]) for row in made] == [(name, "registered") for name in ("ann", "ben", "cleo")]

    ssh_keygen.make_key(folder / "dan")
    again = person.run("agent", "import", str(folder), "--json").json
    assert [row["outcome"].partition(":")[0] for row in again] == ["passed over"] * 3 + ["registered"]
    assert made[0]["id"] in again[0]["outcome"]

    agents = person.run("agent", "list", "--json").json
    assert sorted(each["name"] for each in agents) == ["ann", "ben", "cleo", "dan"]
    assert [each["capabilities"] for each in agents if each["name"] == "ann"] == [["search"]]


def test_a_key_that_is_refused_keeps_no_other_out(person: Person, folder: Path) -> None:
    (folder / "bad.pub").write_text("ssh-ed25519 AAAA nobody")
    done = person.run("agent", "import", str(folder))
    assert done.code == 3
    assert "bad" in done.stdout
    assert "refused: public_key" in done.stdout
    assert len(person.run("agent", "list", "--json").json) == 3


def test_nothing_is_registered_where_a_file_is_no_public_key(person: Person, folder: Path) -> None:
    (folder / "bad.pub").write_text("-----BEGIN OPENSSH PRIVATE KEY-----")  # the words alone
    done = person.run("agent", "import", str(folder))
    assert (done.code, "is the private half" in done.stderr) == (2, True)
    assert person.run("agent", "list", "--json").json == []


def test_a_folder_without_public_keys_is_named(person: Person, tmp_path: Path) -> None:
    done = person.run("agent", "import", str(tmp_path))
    assert (done.code, f"there are no .pub files in {str(tmp_path)!r}" in done.stderr) == (2, True)
