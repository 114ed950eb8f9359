"""`artcafe channel redrive` against a running platform, with a worker of the SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cli.manage.shell_user import Person
from tests.platform import Cast, Platform

BOUND_S = 20.0


@pytest.fixture
def cast(platform: Platform) -> Cast:
    return asyncio.run(platform.tenant_with(agents=1))


@pytest.fixture
def person(cast: Cast) -> Person:
    return Person({"URL": cast.url, "TOKEN": cast.token})


async def work(cast: Cast, queue: str, count: int, rejected: Sequence[str]) -> list[str]:
    """Take this many messages of a queue, and reject those with this data. Return the data."""
    found = []
    async with cast.agent() as agent, asyncio.timeout(BOUND_S):
        await agent.subscribe(queue)
        async for message in agent.messages():
            found.append(str(message.data))
            if message.data in rejected:
                await message.nak(dead=True)
            else:
                await message.ack()
            if len(found) == count:
                return found
    raise AssertionError("the messages ended")


async def letters_of(cast: Cast, channel: str, count: int) -> list[int]:
    """Return the sequences of a channel once it has this many messages."""
    async with cast.rest() as rest, asyncio.timeout(BOUND_S):
        while len(found := [each.seq async for each in rest.tenant(cast.tenant).messages.list(channel, after=0)]) < count:  # noqa: ASYNC110 (the server is asked)
            await asyncio.sleep(0.05)
    return found


def test_dead_letters_are_seen_and_sent_back_by_commands(person: Person, cast: Cast) -> None:
    queue = person.run("channel", "create", "orders", "--type", "queue", "--json").json
    assert queue["dead_letter"] is not None
    dead = person.run("channel", "show", "orders.dead", "--json").json
    assert (dead["id"], dead["dead_letter_of"]) == (queue["dead_letter"], queue["id"])
    for data in ('"a"', '"b"', '"c"'):
        assert person.run("channel", "publish", "orders", data).code == 0
    assert asyncio.run(work(cast, queue["id"], 3, "abc")) == ["a", "b", "c"]
    first, second, third = asyncio.run(letters_of(cast, "orders.dead", 3))
    shown = person.run("channel", "history", "orders.dead", "--after", "0").stdout.splitlines()
    assert len(shown) == 3
    assert f"(dead letter: rejected, deliveries 1, from {queue['id']} #" in shown[0]

    redriven = person.run("channel", "redrive", "orders", "--seq", str(first))
    assert redriven.code == 0, redriven.stderr
    assert redriven.stdout.startswith(f"#{first} sent back to {queue['id']} #")
    again = person.run("channel", "redrive", "orders.dead", "--seq", str(first), "--json").json
    assert [each["status"] for each in again] == ["redriven_before"]
    assert person.run("channel", "redrive", "orders", "--seq", "999").code == 3
    assert person.run("channel", "redrive", "orders").code == 2
    assert person.run("channel", "redrive", "orders", "--seq", "1", "--until-failure").code == 2

    with ThreadPoolExecutor(1) as thread:
        worked = thread.submit(lambda: asyncio.run(work(cast, queue["id"], 2, "b")))
        failed = person.run("channel", "redrive", "orders", "--all", "--until-failure")
        assert worked.result(BOUND_S) == ["a", "b"]
    assert failed.code == 6, failed.stderr
    (line,) = failed.stdout.splitlines()
    assert line.startswith(f"#{second} failed again in {queue['id']} #")
    everything = person.run("channel", "redrive", "orders", "--all", "--json").json
    assert [each["status"] for each in everything] == ["redriven", "redriven"]
    assert everything[0]["seq"] == third
    assert sorted(asyncio.run(work(cast, queue["id"], 2, ""))) == ["b", "c"]
    nothing = person.run("channel", "redrive", "orders", "--all")
    assert (nothing.code, nothing.stdout) == (0, "")
    deleted = person.run("channel", "delete", "orders", "--yes")
    assert deleted.code == 0
    assert person.run("channel", "show", "orders.dead").code == 3
