"""Restore of yesterday's backup under connected agents: what each was told."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from artcafe.sdk.agent import Agent
from artcafe.sdk.messages import Gap, Message
from tests.gateway.raw_client import RawClient, open_client
from tests.platform import Cast, Platform, running

SOON_S = 30.0
"""Until an SDK has come back: it waits up to 15 s between its tries."""


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """One of its own, since it is broken; what is acknowledged is written at once."""
    with running(tmp_path / "platform", ["--cursor-write-s", "0.1"]) as platform:
        yield platform


def artcafe(*arguments: str | Path) -> dict[str, Any]:
    """What a command printed as JSON."""
    done = subprocess.run([sys.executable, "-m", "artcafe", *arguments, "--json"], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def restore_yesterdays(platform: Platform, backup: Path) -> None:
    """What an operator does: stops the server, restores beside it, and starts on what was restored."""
    platform.stop()
    platform.data.rename(platform.folder / f"lost {time.monotonic_ns()}")
    artcafe("restore", backup, "--data-dir", platform.data)
    platform.start()


class Ear:
    """An agent with the SDK that stays connected, and what it was told."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.heard: list[object] = []
        self._messages = agent.messages(gaps=True)

    async def hear(self, count: int, *, acks: bool = True) -> list[object]:
        """The data of the next messages, and gaps as they are."""
        found: list[object] = []
        async with asyncio.timeout(SOON_S):
            for _ in range(count):
                item = await anext(self._messages)
                found.append(item if isinstance(item, Gap) else item.data)
                if acks and isinstance(item, Message):
                    await item.ack()
        return found


async def written(cast: Cast, agent: int, seq: int) -> None:
    """Returns when the agent's cursor is in its row."""
    async with cast.rest() as rest, asyncio.timeout(SOON_S):
        while (await rest.subscription(cast.tenant, cast.channels[0], cast.agents[agent])).cursor.seq != seq:  # noqa: ASYNC110 (a row tells nobody)
            await asyncio.sleep(0.05)


@pytest.mark.timeout(180)  # The server and the commands are started nine times.
async def test_restore_of_yesterdays_backup_under_connected_agents(platform: Platform, tmp_path: Path) -> None:
    cast = await platform.tenant_with(agents=6)
    (channel,) = cast.channels
    async with AsyncExitStack() as stack:
        level, behind, ahead, chooser, sender = [Ear(await stack.enter_async_context(cast.agent(number))) for number in range(5)]
        await chooser.agent.subscribe(channel, "first")

        # Yesterday: ten messages. One agent has dealt with all, one with three.
        for number in range(1, 11):
            await sender.agent.publish(channel, number, key=f"key {number}")
        for ear in (level, ahead, chooser):
            assert await ear.hear(10) == list(range(1, 11))
        assert await behind.hear(3) == [1, 2, 3]
        assert await behind.hear(7, acks=False) == list(range(4, 11))
        for agent, seq in ((0, 10), (1, 3), (2, 10)):
            await written(cast, agent, seq)
        told = artcafe("backup", "--data-dir", platform.data, tmp_path / "yesterday.tar")
        assert (told["logs"], told["messages"], told["with_secret"]) == (1, 10, True)

        # Today: five more, which everyone got, and one has dealt with.
        for number in range(11, 16):
            await sender.agent.publish(channel, number)
        for ear in (level, behind, chooser):
            assert await ear.hear(5, acks=False) == list(range(11, 16))
        assert await ahead.hear(5) == list(range(11, 16))
        await written(cast, 2, 15)

        await asyncio.to_thread(restore_yesterdays, platform, tmp_path / "yesterday.tar")

        # The log ends at 10 again. Everyone is told that what came later is gone, before anything else.
        gone = Gap(channel, 11, None, "epoch")
        assert await level.hear(1) == [gone]
        assert await ahead.hear(1) == [gone]
        assert await behind.hear(8) == [gone, *range(4, 11)]  # What it had not acknowledged yesterday comes again.
        assert await chooser.hear(11) == [Gap(channel, 16, None, "epoch"), *range(1, 11)]  # Its own place meant the old log.

        # Sequences are given again, and reach everyone: nobody takes them for what had them before.
        receipts = [await sender.agent.publish(channel, f"new {number}") for number in (1, 2)]
        assert [receipt.seq for receipt in receipts] == [11, 12]
        for ear in (level, behind, ahead, chooser):
            assert await ear.hear(2, acks=ear is not level) == ["new 1", "new 2"]

        # A key of yesterday is still known.
        again = await sender.agent.publish(channel, 10, key="key 10")
        assert (again.seq, again.duplicate) == (10, True)

        # Who acknowledged in the new log hears of it no more. Who was away all the time does, and gets everything.
        await written(cast, 2, 12)
        async with open_client(platform.gateway_url) as raw:
            await raw.login(cast.tenant, cast.agents[2], cast.keys[2])
            assert await raw.is_quiet()
        async with open_client(platform.gateway_url) as raw:
            await raw.login(cast.tenant, cast.agents[5], cast.keys[5])
            await _hears_everything(raw, channel)

        # The same backup again: an equal gap, in yet another log, in which sequence 11 is another message once more.
        await asyncio.to_thread(restore_yesterdays, platform, tmp_path / "yesterday.tar")
        await sender.agent.publish(channel, "newer")
        for ear in (level, ahead):
            assert await ear.hear(2) == [gone, "newer"]


async def _hears_everything(raw: RawClient, channel: str) -> None:
    gap = (await raw.next())["gap"]
    assert len(gap.pop("epoch")) == 26
    assert gap == {"channel": channel, "from": 11, "to": None, "reason": "epoch"}
    messages = [await raw.message() for _ in range(12)]
    assert [message["seq"] for message in messages] == list(range(1, 13))
    assert [message["prev"] for message in messages] == [None, *range(1, 12)]
    assert messages[-1]["data"] == "new 2"


@pytest.mark.timeout(120)  # The server is started three times.
async def test_files_that_were_put_back_under_an_agent_that_was_ahead_of_them(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2)
    (channel,) = cast.channels
    copy = platform.folder / "copy"
    async with AsyncExitStack() as stack:
        ahead, sender = [Ear(await stack.enter_async_context(cast.agent(number))) for number in range(2)]
        for number in range(1, 11):
            await sender.agent.publish(channel, number)
        assert await ahead.hear(10) == [*range(1, 11)]
        await written(cast, 0, 10)
        await asyncio.to_thread(put, platform, platform.data, copy)

        for number in range(11, 33):
            await sender.agent.publish(channel, number)
        assert await ahead.hear(22) == [*range(11, 33)]
        await asyncio.to_thread(put, platform, copy, platform.data)

        # The epoch is the same, and so are the sequences; the messages are not.
        receipts = [await sender.agent.publish(channel, f"new {number}") for number in range(11, 33)]
        assert [receipt.seq for receipt in receipts] == [*range(11, 33)]
        assert await ahead.hear(23) == [Gap(channel, 11, None, "epoch"), *(f"new {number}" for number in range(11, 33))]


def put(platform: Platform, source: Path, target: Path) -> None:
    """Stops the server, copies the files of its data folder, and starts it."""
    platform.stop()
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    platform.start()
