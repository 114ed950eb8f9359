"""Restore yesterday's backup while agents are connected, and check the messages and gaps of each."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from artcafe import sync
from artcafe.sdk.agent import Agent
from artcafe.sdk.messages import Gap, Message
from tests.forked import run_artcafe
from tests.gateway.raw_client import RawClient, open_client
from tests.platform import Cast, Platform, running
from tests.prometheus import scrape, value

SOON_S = 30.0
"""For an SDK to reconnect: it waits up to 15 s between attempts."""


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """Return a platform for one test, which damages it; acks are written at once."""
    with running(tmp_path / "platform", ["--cursor-write-s", "0.1"]) as platform:
        yield platform


def artcafe(*arguments: str | Path) -> dict[str, Any]:
    """Run a command and return its JSON output."""
    done = run_artcafe(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def restore_yesterdays(platform: Platform, backup: Path) -> None:
    """Act as an operator: stop the server, restore next to it, and start on the restored folder."""
    platform.stop()
    platform.data.rename(platform.folder / f"lost {time.monotonic_ns()}")
    artcafe("restore", backup, "--data-dir", platform.data)
    platform.start()


class ListeningAgent:
    """An agent with the SDK that stays connected, and the errors that it logged."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.received: list[object] = []
        self._messages = agent.messages(gaps=True)

    async def receive(self, count: int, *, acks: bool = True) -> list[object]:
        """Return the data of the next messages, and gaps unchanged."""
        found: list[object] = []
        async with asyncio.timeout(SOON_S):
            while len(found) < count:
                item = await anext(self._messages)
                if item.channel.startswith("@"):  # The agent's inbox is of the restored log too.
                    continue
                found.append(item if isinstance(item, Gap) else item.data)
                if acks and isinstance(item, Message):
                    await item.ack()
        return found


async def until_cursor_is(cast: Cast, agent: int, seq: int) -> None:
    """Wait until the agent's cursor is in its row."""
    async with cast.rest() as rest, asyncio.timeout(SOON_S):
        while (await rest.tenant(cast.tenant).subscriptions.get(cast.channels[0], cast.agents[agent])).cursor.seq != seq:  # noqa: ASYNC110 (a row tells nobody)
            await asyncio.sleep(0.05)


@pytest.mark.timeout(180)  # the server and the commands are started nine times
@pytest.mark.promise("8c", "r2", "r3")
async def test_restoring_yesterdays_backup_while_agents_are_connected(platform: Platform, tmp_path: Path) -> None:
    cast = await platform.tenant_with(agents=6)
    (channel,) = cast.channels
    async with AsyncExitStack() as stack:
        level, behind, ahead, chooser, sender = [
            ListeningAgent(await stack.enter_async_context(cast.agent(number))) for number in range(5)
        ]
        await chooser.agent.subscribe(channel, "first")

        # Yesterday: ten messages. One agent has acknowledged all, one three.
        for number in range(1, 11):
            await sender.agent.publish(channel, number, key=f"key {number}")
        for listening in (level, ahead, chooser):
            assert await listening.receive(10) == list(range(1, 11))
        assert await behind.receive(3) == [1, 2, 3]
        assert await behind.receive(7, acks=False) == list(range(4, 11))
        for agent, seq in ((0, 10), (1, 3), (2, 10)):
            await until_cursor_is(cast, agent, seq)
        report = artcafe("backup", "--data-dir", platform.data, tmp_path / "yesterday.tar")
        assert (report["logs"], report["messages"], report["with_secret"]) == (1, 10, True)

        # Today: five more, which every agent received, and one has acknowledged.
        for number in range(11, 16):
            await sender.agent.publish(channel, number)
        for listening in (level, behind, chooser):
            assert await listening.receive(5, acks=False) == list(range(11, 16))
        assert await ahead.receive(5) == list(range(11, 16))
        await until_cursor_is(cast, 2, 15)

        await asyncio.to_thread(restore_yesterdays, platform, tmp_path / "yesterday.tar")

        # The log ends at 10 again. Every agent first gets a gap for the later messages.
        gone = Gap("channel-0", 11, None, "epoch")
        assert await level.receive(1) == [gone]
        assert await ahead.receive(1) == [gone]
        assert await behind.receive(8) == [gone, *range(4, 11)]  # unacknowledged yesterday, so delivered again
        assert await chooser.receive(11) == [
            Gap("channel-0", 16, None, "epoch"),
            *range(1, 11),
        ]  # its position belonged to the old log

        # Sequences are assigned again, and reach every agent: none mistakes them for the earlier messages.
        receipts = [await sender.agent.publish(channel, f"new {number}") for number in (1, 2)]
        assert [receipt.seq for receipt in receipts] == [11, 12]
        for listening in (level, behind, ahead, chooser):
            assert await listening.receive(2, acks=listening is not level) == ["new 1", "new 2"]

        # A key of yesterday is still known.
        again = await sender.agent.publish(channel, 10, key="key 10")
        assert (again.seq, again.duplicate) == (10, True)

        # An agent that acknowledged in the new log gets no further gap. The agent that was away all the time gets one, and every
        # message.
        await until_cursor_is(cast, 2, 12)
        async with open_client(platform.gateway_url) as raw:
            await raw.login(cast.tenant, cast.agents[2], cast.keys[2])
            await raw.is_quiet()
            # The inbox may yield its gap once more: nothing was acknowledged in the new log of the inbox.
            assert not [push for push in raw.pushes if f"@{cast.agents[2]}" not in json.dumps(push)]
        async with open_client(platform.gateway_url) as raw:
            await raw.login(cast.tenant, cast.agents[5], cast.keys[5])
            await _hears_everything(raw, channel)

        # The same backup again: an equal gap, in a third log, in which sequence 11 is yet another message.
        await asyncio.to_thread(restore_yesterdays, platform, tmp_path / "yesterday.tar")
        await sender.agent.publish(channel, "newer")
        for listening in (level, ahead):
            assert await listening.receive(2) == [gone, "newer"]


async def _hears_everything(raw: RawClient, channel: str) -> None:
    gap = (await raw.next())["gap"]
    assert len(gap.pop("epoch")) == 26
    assert gap == {"channel": channel, "from": 11, "to": None, "reason": "epoch"}
    messages = [await raw.message() for _ in range(12)]
    assert [message["seq"] for message in messages] == list(range(1, 13))
    assert [message["prev"] for message in messages] == [None, *range(1, 12)]
    assert messages[-1]["data"] == "new 2"


@pytest.mark.timeout(120)  # the server and the commands are started four times
@pytest.mark.promise("p4a", "p21", "r2")
async def test_agents_that_pull_wait_for_messages_after_a_restore(platform: Platform, tmp_path: Path) -> None:
    cast = await platform.tenant_with(agents=4)
    async with cast.rest() as rest:
        await rest.tenant(cast.tenant).messages.publish(cast.channels[0], "of the backup")
    for number in range(4):
        async with pulling(cast, number) as agent:
            await (await agent.pull()).ack()
    artcafe("backup", "--data-dir", platform.data, tmp_path / "backup.tar")
    await asyncio.to_thread(restore_yesterdays, platform, tmp_path / "backup.tar")

    await pull_by_hand(platform, cast)
    await pull_with_the_sdk(platform, cast)
    await asyncio.to_thread(pull_without_asyncio, cast)
    await publish(cast, cast.channels[0], "new")
    await asyncio.to_thread(pull_on_the_command_line, cast)


async def pull_by_hand(platform: Platform, cast: Cast) -> None:
    """Pull as a script that acknowledges messages only. There are none, so that nothing ends the gaps."""
    async with pulling(cast, 0) as agent, httpx2.AsyncClient(trust_env=False, timeout=SOON_S) as curl:
        curl.headers["Authorization"] = f"Bearer {(await agent.client()).token}"
        me = f"{cast.url}/v1/tenants/{cast.tenant}/agents/{cast.agents[0]}"
        lost = {f"@{cast.agents[0]}", cast.channels[0]}
        for wait_s in (0, 0.1):
            page = (await curl.get(f"{me}/inbox", params={"wait_s": wait_s})).json()
            assert (page["items"], page["more"], lost_in(page)) == ([], False, lost)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(curl.get(f"{me}/inbox", params={"wait_s": 25}))
            await pull_waits(platform)
            await publish(cast, f"@{cast.agents[0]}", "hello")
        page = waiting.result().json()
        assert [item["data"] for item in page["items"]] == ["hello"]
        assert lost_in(page) == lost
        acks = [{"channel": gap["channel"], "seq": gap["after"]} for gap in page["gaps"]]
        done = await curl.post(f"{me}/acks", json={"acks": acks, "epoch": page["epoch"]})
        assert [each["error"] for each in done.json()["acks"]] == [None, None]
        page = (await curl.get(f"{me}/inbox", params={"wait_s": 25})).json()
        assert ([item["data"] for item in page["items"]], page["gaps"]) == (["hello"], [])


async def pull_with_the_sdk(platform: Platform, cast: Cast) -> None:
    """Pull with the SDK, which acknowledges the gaps that it has got: the next pull waits without them."""
    async with pulling(cast, 1) as agent:
        pulled = await agent.pull(wait_s=0.1)
        assert (len(pulled), {gap.reason for gap in pulled.gaps}, len(pulled.gaps)) == (0, {"epoch"}, 2)
        async with asyncio.TaskGroup() as group:
            next_pull = group.create_task(agent.pull(wait_s=25))
            await pull_waits(platform)
            await publish(cast, f"@{cast.agents[1]}", "hello")
        assert ([each.data for each in next_pull.result()], next_pull.result().gaps) == (["hello"], ())


def pull_without_asyncio(cast: Cast) -> None:
    agent = sync.Agent(cast.url, tenant=cast.tenant, agent=cast.agents[2], key=cast.keys[2])
    try:
        pulled = agent.pull(wait_s=0.1)
        assert ([each.data for each in pulled], len(pulled.gaps)) == ([], 2)
        pulled = agent.pull(wait_s=0.1)
        assert ([each.data for each in pulled], pulled.gaps) == ([], ())
    finally:
        agent.aclose()


def pull_on_the_command_line(cast: Cast) -> None:
    """Pull and acknowledge by two commands: the first names the epoch, which the second must send."""
    options = ["--url", cast.url, "--tenant", cast.tenant, "--agent", cast.agents[3], "--key", str(cast.keys[3])]

    def run(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
        done = run_artcafe("agent", *arguments, *options)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")], done.stderr

    code, printed, _ = run("pull", cast.channels[0], "--json")
    (gap, message) = printed
    assert (code, gap["gap"]["reason"], message["data"]) == (0, "epoch", "new")
    assert f"artcafe agent ack … --epoch {gap['epoch']}" in run("pull", cast.channels[0])[2]
    seq = str(message["seq"])
    code, _, problem = run("ack", cast.channels[0], seq)
    assert (code != 0, "send the epoch" in problem) == (True, True)
    assert run("ack", cast.channels[0], seq, "--epoch", gap["epoch"])[0] == 0
    assert run("pull", cast.channels[0], "--json")[1] == []


def lost_in(page: dict[str, Any]) -> set[str]:
    assert {gap["reason"] for gap in page["gaps"]} <= {"epoch"}
    return {gap["channel"] for gap in page["gaps"]}


@asynccontextmanager
async def pulling(cast: Cast, number: int) -> AsyncIterator[Agent]:
    """Yield an agent that is not connected."""
    agent = cast.agent(number)
    try:
        yield agent
    finally:
        await agent.aclose()


async def publish(cast: Cast, channel: str, data: object) -> None:
    async with cast.rest() as rest:
        await rest.tenant(cast.tenant).messages.publish(channel, data)


async def pull_waits(platform: Platform) -> None:
    """Wait until the server has a waiting pull, by its metrics, which it samples every 2 s."""
    async with asyncio.timeout(SOON_S):
        while value(await asyncio.to_thread(scrape, platform.metrics_url), "artcafe_pulls_waiting") < 1:
            pass


@pytest.mark.timeout(120)  # the server is started three times
async def test_data_files_put_back_below_an_agents_cursor_yield_a_gap(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2)
    (channel,) = cast.channels
    copy = platform.folder / "copy"
    async with AsyncExitStack() as stack:
        ahead, sender = [ListeningAgent(await stack.enter_async_context(cast.agent(number))) for number in range(2)]
        for number in range(1, 11):
            await sender.agent.publish(channel, number)
        assert await ahead.receive(10) == [*range(1, 11)]
        await until_cursor_is(cast, 0, 10)
        await asyncio.to_thread(restore_files, platform, platform.data, copy)

        for number in range(11, 33):
            await sender.agent.publish(channel, number)
        assert await ahead.receive(22) == [*range(11, 33)]
        await asyncio.to_thread(restore_files, platform, copy, platform.data)

        # The epoch is the same, and so are the sequences; the messages differ.
        receipts = [await sender.agent.publish(channel, f"new {number}") for number in range(11, 33)]
        assert [receipt.seq for receipt in receipts] == [*range(11, 33)]
        assert await ahead.receive(23) == [Gap("channel-0", 11, None, "epoch"), *(f"new {number}" for number in range(11, 33))]


def restore_files(platform: Platform, source: Path, target: Path) -> None:
    """Stop the server, copy the files of its data folder, and start it."""
    platform.stop()
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    platform.start()
