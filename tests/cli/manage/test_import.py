from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests import ssh_keygen
from tests.cli.manage.shell_user import Person
from tests.platform import Platform


@pytest.fixture
def person(platform: Platform) -> Person:
    cast = asyncio.run(platform.tenant_with(agents=0, channels=0))
    return Person({"URL": cast.url, "TOKEN": cast.token})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of three key pairs and another file."""
    for name in ("ann", "ben", "cleo"):
        ssh_keygen.make_key(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a key")
    return tmp_path


def test_import_registers_an_agent_per_public_key_once(person: Person, folder: Path) -> None:
    made = person.run("agent", "import", str(folder), "--capability", "search", "--json").json
    assert [(row["name"], row["outcome"]) for row in made] == [(name, "registered") for name in ("ann", "ben", "cleo")]

    ssh_keygen.make_key(folder / "dan")
    again = person.run("agent", "import", str(folder), "--json").json
    assert [row["outcome"].partition(":")[0] for row in again] == ["skipped"] * 3 + ["registered"]
    assert made[0]["id"] in again[0]["outcome"]

    agents = person.run("agent", "list", "--json").json
    assert sorted(each["name"] for each in agents) == ["ann", "ben", "cleo", "dan"]
    assert [each["capabilities"] for each in agents if each["name"] == "ann"] == [["search"]]


def test_refused_key_does_not_stop_the_import_of_others(person: Person, folder: Path) -> None:
    (folder / "bad.pub").write_text("ssh-ed25519 AAAA nobody")
    done = person.run("agent", "import", str(folder))
    assert done.code == 3
    assert "bad" in done.stdout
    assert "refused: public_key" in done.stdout
    assert len(person.run("agent", "list", "--json").json) == 3


def test_import_registers_nothing_if_a_file_is_not_a_public_key(person: Person, folder: Path) -> None:
    (folder / "bad.pub").write_text("-----BEGIN OPENSSH PRIVATE KEY-----")  # Only the header, without a key.
    done = person.run("agent", "import", str(folder))
    assert (done.code, "is a private key" in done.stderr) == (2, True)
    assert person.run("agent", "list", "--json").json == []


def test_import_of_a_folder_without_public_keys_names_it(person: Person, tmp_path: Path) -> None:
    done = person.run("agent", "import", str(tmp_path))
    assert (done.code, f"{str(tmp_path)!r} contains no .pub files" in done.stderr) == (2, True)
