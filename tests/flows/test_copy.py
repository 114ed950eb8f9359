"""A laptop's tenant on DynamoDB and back again: equal checksums, and agents that go on where they were, with nothing missing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from artcafe.sdk.agent import Agent
from artcafe.sdk.messages import Gap, Message
from tests.aws import Aws
from tests.platform import Cast, Platform

SOON_S = 20.0
FLAGS = ["--cursor-write-s", "0.1"]


def artcafe(*arguments: str | Path, code: int = 0) -> Any:
    """What a command printed as JSON."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ARTCAFE_")}
    command = [sys.executable, "-m", "artcafe", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, env=environ)
    assert done.returncode == code, done.stderr.decode() + done.stdout.decode()
    return json.loads(done.stdout)


def checksums(told: dict[str, Any]) -> dict[str, tuple[int, str]]:
    """Each table's rows and checksum, which are the same at both ends."""
    assert all(each["is_equal"] for each in told["tables"])
    return {each["table"]: (each["rows_there"], each["checksum_there"]) for each in told["tables"]}


async def heard(agent: Agent, count: int, *, ack: bool = True) -> tuple[list[object], list[Gap]]:
    """The data of the next messages, and the gaps among them."""
    data: list[object] = []
    gaps: list[Gap] = []
    messages: AsyncIterator[Message | Gap] = agent.messages(gaps=True)
    async with asyncio.timeout(SOON_S):
        while len(data) < count:
            item = await anext(messages)
            if isinstance(item, Gap):
                gaps.append(item)
                continue
            data.append(item.data)
            if ack:
                await item.ack()
    return data, gaps


async def written(cast: Cast, agent: int, seq: int) -> None:
    """Returns when the agent's cursor is in its row."""
    async with cast.rest() as rest, asyncio.timeout(SOON_S):
        while (await rest.subscription(cast.tenant, cast.channels[0], cast.agents[agent])).cursor.seq != seq:  # noqa: ASYNC110 (a row tells nobody)
            await asyncio.sleep(0.05)


async def said_on(laptop: Platform) -> Cast:
    """A tenant with twelve messages. One agent has dealt with five of them, another was away."""
    cast = await laptop.tenant_with(agents=3)
    async with cast.agent(2) as sender, cast.agent(0) as reader:
        for number in range(1, 13):
            await sender.publish(cast.channels[0], number)
        assert (await heard(reader, 5))[0] == [1, 2, 3, 4, 5]
        await written(cast, 0, 5)
    return cast


async def goes_on_at(cloud: Platform, cast: Cast) -> None:
    """The same agents log in with the same keys, get what they had not acknowledged, and one more message."""
    moved = replace(cast, url=cloud.url, token=cloud.token("owner-1@example.com"))
    async with moved.agent(0) as reader, moved.agent(1) as away, moved.agent(2) as sender:
        data, gaps = await heard(reader, 7)
        assert data == list(range(6, 13))
        assert [(gap.first, gap.reason) for gap in gaps] == [(13, "epoch")]  # Nothing of the twelve is missing.
        assert (await heard(away, 12))[0] == list(range(1, 13))
        assert (await sender.publish(cast.channels[0], 13)).seq == 13
        assert (await heard(away, 1))[0] == [13]
        await written(moved, 1, 13)


async def is_at_home_in(home: Platform, cast: Cast) -> None:
    """What was said there came along, and everything goes on."""
    returned = replace(cast, url=home.url, token=home.token("owner-1@example.com"))
    async with returned.agent(0) as reader, returned.agent(2) as sender:
        assert (await heard(reader, 1))[0] == [13]
        await sender.publish(cast.channels[0], 14)
        assert (await heard(reader, 1))[0] == [14]
    async with returned.rest() as rest:
        assert [each.data async for each in rest.history(cast.tenant, cast.channels[0], after=0)] == list(range(1, 15))


@contextmanager
def started(platform: Platform) -> Iterator[Platform]:
    """Up for as long as this lasts; its data stays."""
    platform.start()
    try:
        yield platform
    finally:
        platform.stop()


@pytest.mark.timeout(240)  # Three servers and six commands, each a process.
async def test_a_laptops_tenant_goes_to_dynamodb_and_back(tmp_path: Path, aws: Aws) -> None:
    engine = aws.tables_flags()
    laptop, cloud, home = (
        Platform(tmp_path / name, [*FLAGS, *more]) for name, more in (("laptop", []), ("cloud", engine), ("home", []))
    )
    settings = tmp_path / "cloud.toml"
    settings.write_text(f'data_dir = "{cloud.data}"\ntables = "{engine[1]}"\ndynamodb_endpoint = "{engine[3]}"\n')
    artcafe("tables", "apply", *engine, "--yes")
    with started(laptop):
        cast = await said_on(laptop)

    # There, and at once back into another folder: three times the same rows.
    there = artcafe("tables", "copy", "--from", laptop.data, "--to", settings)
    assert (there["is_whole"], there["messages"], [each["state"] for each in there["tenants"]]) == (True, 12, ["copied"])
    back = artcafe("tables", "copy", "--from", settings, "--to", tmp_path / "again")
    assert (back["is_whole"], back["messages"]) == (True, 12)
    assert checksums(there) == checksums(back)
    assert checksums(there)["artcafe-agents"][0] == 6  # Each agent with the claim to its key.
    assert checksums(there)["artcafe-user-tenants"][0] == 1
    repeated = artcafe("tables", "copy", "--from", laptop.data, "--to", settings)
    assert [each["state"] for each in repeated["tenants"]] == ["there"]
    assert checksums(repeated) == checksums(there)

    with started(cloud):
        await goes_on_at(cloud, cast)
    assert artcafe("tables", "check", *engine, "--rows")["findings"] == []
    told = artcafe("tables", "copy", "--from", settings, "--to", home.data)
    assert (told["is_whole"], told["messages"]) == (True, 13)
    with started(home):
        await is_at_home_in(home, cast)
