from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from tests.cli.manage.shell_user import WAIT_S, Person, interrupt
from tests.platform import Cast, Platform


@pytest.fixture
def cast(platform: Platform) -> Cast:
    return asyncio.run(platform.tenant_with(agents=0))


@pytest.fixture
def person(cast: Cast) -> Person:
    return Person({"URL": cast.url, "TOKEN": cast.token})


def publish(person: Person, cast: Cast, *numbers: int) -> None:
    for number in numbers:
        assert person.run("channel", "publish", cast.channels[0], str(number)).code == 0


@contextmanager
def following(person: Person, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "artcafe", "channel", "history", *arguments, "--follow", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=person.surroundings(), text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_follow_prints_stored_messages_oldest_first_then_new_ones(person: Person, cast: Cast) -> None:
    publish(person, cast, 0, 1, 2)
    with following(person, cast.channels[0], "--limit", "2") as process:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["data"] for _ in range(2)] == [1, 2]
        publish(person, cast, 3, 4)
        assert [json.loads(process.stdout.readline())["data"] for _ in range(2)] == [3, 4]
        interrupt(process)
        assert process.wait(WAIT_S) == 130


def test_follow_starts_in_an_empty_channel(person: Person, cast: Cast) -> None:
    with following(person, cast.channels[0]) as process:
        assert process.stdout is not None
        publish(person, cast, 7)
        assert json.loads(process.stdout.readline())["data"] == 7


def test_follow_and_before_exclude_each_other(person: Person, cast: Cast) -> None:
    refused = person.run("channel", "history", cast.channels[0], "--follow", "--before", "9")
    assert (refused.code, "--follow and --before exclude each other" in refused.stderr) == (2, True)


def test_history_accepts_offsets_and_dates(person: Person, cast: Cast) -> None:
    publish(person, cast, 0, 1)
    for after in ("1h", f"{datetime.now(UTC):%Y-%m-%d}"):
        found = person.run("channel", "history", cast.channels[0], "--after", after, "--json").json
        assert [each["data"] for each in found] == [0, 1]
    assert person.run("channel", "history", cast.channels[0], "--before", "1h", "--json").json == []
    refused = person.run("channel", "history", cast.channels[0], "--after", "yesterday")
    assert (refused.code, "'yesterday' is not a valid time; use for example 1h" in refused.stderr) == (2, True)
