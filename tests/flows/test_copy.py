"""A laptop's tenant copied to DynamoDB and back: equal checksums, and agents that continue at their position without a missing
message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from artcafe.sdk.agent import Agent
from artcafe.sdk.messages import Gap, Message
from tests.aws import Aws
from tests.forked import run_artcafe
from tests.platform import Cast, Platform

SOON_S = 20.0
FLAGS = ["--cursor-write-s", "0.1"]


def artcafe(*arguments: str | Path, code: int = 0) -> Any:
    """Run a command and return its JSON output."""
    done = run_artcafe(*arguments, "--json", timeout=120)
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


def checksums(report: dict[str, Any]) -> dict[str, tuple[int, str]]:
    """Return each table's number of rows and checksum, which must be equal at both ends."""
    assert all(each["is_equal"] for each in report["tables"])
    return {each["table"]: (each["rows_there"], each["checksum_there"]) for each in report["tables"]}


async def receive(agent: Agent, count: int, *, ack: bool = True) -> tuple[list[object], list[Gap]]:
    """Return the data of the next messages, and the gaps among them."""
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


async def until_cursor_is(cast: Cast, agent: int, seq: int) -> None:
    """Wait until the agent's cursor is in its row."""
    async with cast.rest() as rest, asyncio.timeout(SOON_S):
        while (await rest.tenant(cast.tenant).subscriptions.get(cast.channels[0], cast.agents[agent])).cursor.seq != seq:  # noqa: ASYNC110 (a row tells nobody)
            await asyncio.sleep(0.05)


async def tenant_with_messages(laptop: Platform) -> Cast:
    """Return a tenant with twelve messages. One agent has acknowledged five of them, another was away."""
    cast = await laptop.tenant_with(agents=3)
    async with cast.agent(2) as sender, cast.agent(0) as reader:
        for number in range(1, 13):
            await sender.publish(cast.channels[0], number)
        assert (await receive(reader, 5))[0] == [1, 2, 3, 4, 5]
        await until_cursor_is(cast, 0, 5)
    return cast


async def check_agents_continue_at(cloud: Platform, cast: Cast) -> None:
    """Check that the same agents log in with the same keys and receive their unacknowledged messages and one more."""
    moved = replace(cast, url=cloud.url, token=cloud.token("owner-1@example.com"))
    async with moved.agent(0) as reader, moved.agent(1) as away, moved.agent(2) as sender:
        data, gaps = await receive(reader, 7)
        assert data == list(range(6, 13))
        of_channel = [gap for gap in gaps if gap.channel == moved.channels[0]]  # the inbox has a gap of its own, early or late
        assert [(gap.first, gap.reason) for gap in of_channel] == [(13, "epoch")]  # none of the twelve is missing
        assert (await receive(away, 12))[0] == list(range(1, 13))
        assert (await sender.publish(cast.channels[0], 13)).seq == 13
        assert (await receive(away, 1))[0] == [13]
        await until_cursor_is(moved, 1, 13)


async def check_copied_back(home: Platform, cast: Cast) -> None:
    """Check that the messages published in the cloud were copied back, and that agents continue."""
    returned = replace(cast, url=home.url, token=home.token("owner-1@example.com"))
    async with returned.agent(0) as reader, returned.agent(2) as sender:
        assert (await receive(reader, 1))[0] == [13]
        await sender.publish(cast.channels[0], 14)
        assert (await receive(reader, 1))[0] == [14]
    async with returned.rest() as rest:
        assert [each.data async for each in rest.tenant(cast.tenant).messages.list(cast.channels[0], after=0)] == list(
            range(1, 15)
        )


@contextmanager
def running_platform(platform: Platform) -> Iterator[Platform]:
    """Run the platform within this block; its data is kept."""
    platform.start()
    try:
        yield platform
    finally:
        platform.stop()


@pytest.mark.timeout(240)  # three servers and six commands, each a process
async def test_laptop_tenant_is_copied_to_dynamodb_and_back(tmp_path: Path, aws: Aws) -> None:
    engine = aws.tables_flags()
    laptop, cloud, home = (
        Platform(tmp_path / name, [*FLAGS, *more]) for name, more in (("laptop", []), ("cloud", engine), ("home", []))
    )
    settings = tmp_path / "cloud.toml"
    settings.write_text(f'data_dir = "{cloud.data}"\ntables = "{engine[1]}"\ndynamodb_endpoint = "{engine[3]}"\n')
    artcafe("tables", "apply", *engine, "--yes")
    with running_platform(laptop):
        cast = await tenant_with_messages(laptop)

    # Copy there, and at once back into another folder: the same rows three times.
    there = artcafe("tables", "copy", "--from", laptop.data, "--to", settings)
    assert (there["is_whole"], there["messages"], [each["state"] for each in there["tenants"]]) == (True, 12, ["copied"])
    back = artcafe("tables", "copy", "--from", settings, "--to", tmp_path / "again")
    assert (back["is_whole"], back["messages"]) == (True, 12)
    assert checksums(there) == checksums(back)
    assert checksums(there)["artcafe-agents"][0] == 3 * 3 + 1  # each agent, the claims to its key and handle; a channel's handle
    assert checksums(there)["artcafe-user-tenants"][0] == 1
    repeated = artcafe("tables", "copy", "--from", laptop.data, "--to", settings)
    assert [each["state"] for each in repeated["tenants"]] == ["there"]
    assert checksums(repeated) == checksums(there)

    with running_platform(cloud):
        await check_agents_continue_at(cloud, cast)
    assert artcafe("tables", "check", *engine, "--rows")["findings"] == []
    report = artcafe("tables", "copy", "--from", settings, "--to", home.data)
    assert (report["is_whole"], report["messages"]) == (True, 13)
    with running_platform(home):
        await check_copied_back(home, cast)
