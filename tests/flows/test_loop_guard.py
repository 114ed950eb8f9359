"""Agents that answer each other, through real servers and the SDK, until the loop guard stops them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack
from importlib.resources import files

import pytest
from msgspec import Raw

from artcafe import errors
from artcafe.sdk import encoding
from artcafe.sdk.agent import Agent
from artcafe.sdk.messages import Message
from artcafe.sdk.records import AuditEntry, KeptMessage
from artcafe.wire.frames import MAX_FRAME_BYTES, Publish
from tests import ssh_keygen
from tests.casts import recast
from tests.conftest import Require
from tests.platform import Cast, running

log = logging.getLogger("transcript")

BOUND_S = 20
HOPS, CHAIN_MESSAGES = 9, 30


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, require: Require) -> Iterator[Cast]:
    """Return a tenant of a platform whose plan allows few answers."""
    require("ssh-keygen", ssh_keygen.PRESENT)
    folder = tmp_path_factory.mktemp("guarded")
    shipped = files("artcafe").joinpath("plans.toml").read_text("utf-8")
    few = shipped.replace("hops = 100 ", f"hops = {HOPS} ")
    few = few.replace("chain_messages = 10_000 ", f"chain_messages = {CHAIN_MESSAGES} ")
    assert few != shipped
    (folder / "plans.toml").write_text(few)
    with running(folder, ["--plans-file", str(folder / "plans.toml")]) as platform:
        yield asyncio.run(platform.tenant_with())


class Transcript:
    """What agents saw, in order."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names
        self.lines: list[str] = []

    def note(self, who: str, text: str) -> None:
        for id, name in self._names.items():
            text = text.replace(id, name)
        self.lines.append(f"{who}: {text}")


async def answer(
    agent: Agent, name: str, listens: str, answers: str, seen: Transcript, stopped: asyncio.Future[errors.LoopStopped]
) -> None:
    """Answer each message of a channel in another one, as a program does that knows nothing of chains."""
    async for message in agent.messages(listens, auto_ack=True):
        seen.note(name, f"received {message.data} (hops {message.hops}, chain {message.chain})")
        try:
            await agent.publish(answers, message.data + 1)
        except errors.LoopStopped as exc:
            seen.note(name, f"LoopStopped: {exc}")
            stopped.set_result(exc)


async def stop_of(cast: Cast, chain: str) -> list[AuditEntry]:
    """Return what the member sees: the stops of a chain in the audit, once they are written."""
    async with cast.rest() as rest, asyncio.timeout(BOUND_S):
        found: list[AuditEntry] = []
        while not found:
            await asyncio.sleep(0.05)
            found = [
                each async for each in rest.tenant(cast.tenant).audit.list(action="chain.stop") if each.facts["chain"] == chain
            ]
        return found


async def kept(cast: Cast) -> list[KeptMessage]:
    """Return every message of the channels."""
    async with cast.rest() as rest:
        return [
            message for channel in cast.channels async for message in rest.tenant(cast.tenant).messages.list(channel, after=0)
        ]


@pytest.mark.parametrize("letters", ["AB", "ABC"])
async def test_agents_that_answer_each_other_are_stopped_at_the_budget(home: Cast, letters: str) -> None:
    """A → B → A, and A → B → C → A: each agent listens to its own channel and answers in that of the next."""
    count = len(letters)
    cast = await recast(home, agents=count, channels=count, subscribed=False)
    seen, stopped = Transcript(dict(zip(cast.agents, letters, strict=True))), asyncio.get_running_loop().create_future()
    async with asyncio.timeout(BOUND_S), AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        agents = [await stack.enter_async_context(cast.agent(number)) for number in range(count)]
        for agent, channel in zip(agents, cast.channels, strict=True):
            await agent.subscribe(channel)
        tasks = [
            group.create_task(answer(agent, letter, channel, following, seen, stopped))
            for agent, letter, channel, following in zip(
                agents, letters, cast.channels, cast.channels[1:] + cast.channels[:1], strict=True
            )
        ]
        first = await agents[-1].publish(cast.channels[0], 0)
        error = await stopped
        for task in tasks:
            task.cancel()
    chain = first.message_id or ""
    audited, messages = await stop_of(cast, chain), await kept(cast)
    async with cast.rest() as rest:
        state, released = await rest.tenant(cast.tenant).chains.get(chain), await rest.tenant(cast.tenant).chains.release(chain)
    seen.note("the member", f"{audited[0].action} {audited[0].outcome} by {audited[0].actor}: {dict(audited[0].facts)}")
    seen.note("the member", str(state))
    seen.note("the member", str(released))
    log.info("\n%s", "\n".join(seen.lines))
    assert (error.chain, error.hops, error.limit, error.most) == (chain, HOPS + 1, "hops", HOPS)
    assert sorted((each.data, each.hops) for each in messages) == [(number, number) for number in range(HOPS + 1)]
    assert {each.chain for each in messages if each.hops} == {chain}
    assert (state.status, state.messages, state.max_hops, state.max_messages) == ("stopped", HOPS + 1, HOPS, CHAIN_MESSAGES)
    assert (released.status, released.releases, released.max_hops) == ("active", 1, 2 * HOPS)
    assert len(audited) == 1


async def test_agents_that_answer_each_message_twice_are_stopped_by_the_number_of_messages(home: Cast) -> None:
    cast = await recast(home, agents=2)
    (channel,) = cast.channels
    stops: list[errors.LoopStopped] = []

    async def double(agent: Agent) -> None:
        async for message in agent.messages(auto_ack=True):
            if message.sender_id != agent.agent:
                await twice(agent, message.data)

    async def twice(agent: Agent, data: int) -> None:
        for _ in range(2):
            try:
                await agent.publish(channel, data + 1)
            except errors.LoopStopped as exc:
                stops.append(exc)

    async with asyncio.timeout(BOUND_S), cast.agent(0) as one, cast.agent(1) as other, asyncio.TaskGroup() as group:
        tasks = [group.create_task(double(agent)) for agent in (one, other)]
        first = await one.publish(channel, 0)
        while len(stops) < 10:  # noqa: ASYNC110 (two programs count)
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
    assert len(await kept(cast)) == CHAIN_MESSAGES
    assert {(each.chain, each.limit, each.most) for each in stops} == {(first.message_id, "chain_messages", CHAIN_MESSAGES)}
    assert len(await stop_of(cast, first.message_id or "")) == 1


# --- what the SDK names as the cause -------------------------------------------------------------------------------------


async def test_task_for_each_message_names_its_own_message_after_the_loop_has_gone_on(home: Cast) -> None:
    cast = await recast(home, channels=2)
    source, target = cast.channels
    go_on = asyncio.Event()

    async def handle(agent: Agent, message: Message) -> None:
        await go_on.wait()
        await agent.publish(target, message.data)

    async with asyncio.timeout(BOUND_S), cast.agent() as agent:
        receipts = [await agent.publish(source, number) for number in range(3)]
        async with asyncio.TaskGroup() as group:
            async for message in agent.messages(source, auto_ack=True):
                group.create_task(handle(agent, message))
                if message.data == 2:
                    break
            await agent.publish(target, "after the loop")
            go_on.set()
        answers = (await agent.history(target, after=0)).messages
    expected: list[tuple[object, str | None]] = [(number, receipt.message_id) for number, receipt in enumerate(receipts)]
    assert [(each.data, each.caused_by) for each in answers] == [("after the loop", None), *expected]


async def test_program_names_another_message_or_none(home: Cast) -> None:
    cast = await recast(home, channels=2)
    source, target = cast.channels
    async with asyncio.timeout(BOUND_S), cast.agent() as agent:
        receipts = [await agent.publish(source, number) for number in range(2)]
        messages = agent.messages(source)
        first, second = await anext(messages), await anext(messages)
        await agent.publish(target, "handled")
        await agent.publish(target, "first", caused_by=first)
        await agent.publish(target, "by id", caused_by=first.message_id)
        await agent.publish(target, "none", caused_by=None)
        answers = (await agent.history(target, after=0)).messages
        with pytest.raises(errors.CauseNotFound):
            await agent.publish(target, "unknown", caused_by="msg_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2")
    one, two = (receipt.message_id for receipt in receipts)
    assert second.message_id == two
    assert [(each.data, each.caused_by, each.hops) for each in answers] == [
        ("handled", two, 1),
        ("first", one, 1),
        ("by id", one, 1),
        ("none", None, 0),
    ]


async def test_answer_to_a_message_that_is_gone_begins_a_new_chain_with_a_warning(
    home: Cast, caplog: pytest.LogCaptureFixture
) -> None:
    cast = await recast(home, channels=2)
    source, target = cast.channels
    async with asyncio.timeout(BOUND_S), cast.agent() as agent:
        await agent.publish(source, "soon gone")
        message = await anext(messages := agent.messages(source))
        async with cast.rest() as rest:
            await rest.tenant(cast.tenant).channels.delete(source)
        with caplog.at_level(logging.WARNING, logger="artcafe"):
            await agent.publish(target, "answer")
        with pytest.raises(errors.CauseNotFound):
            await agent.publish(target, "answer", caused_by=message)
        (answer,) = (await agent.history(target, after=0)).messages
        del messages
    assert (answer.data, answer.caused_by) == ("answer", None)
    assert "begins a new chain" in caplog.text


async def test_answer_that_fills_its_frame_begins_a_new_chain_with_a_warning(
    home: Cast, caplog: pytest.LogCaptureFixture
) -> None:
    cast = await recast(home, channels=2)
    source, target = cast.channels

    def fits(size: int) -> bool:
        return encoding.fits("publish", Publish(target, Raw(b'"%b"' % (b"x" * size)), "k"), MAX_FRAME_BYTES)

    largest = next(size for size in range(MAX_FRAME_BYTES, 0, -1) if fits(size))
    async with asyncio.timeout(BOUND_S), cast.agent() as agent:
        await agent.publish(source, "question")
        message = await anext(messages := agent.messages(source))
        with caplog.at_level(logging.WARNING, logger="artcafe"):
            await agent.publish(target, "x" * largest, key="k")
        with pytest.raises(errors.TooLarge):
            await agent.publish(target, "x" * largest, key="l", caused_by=message)
        (answer,) = (await agent.history(target, after=0)).messages
        del messages
    assert (len(answer.data), answer.caused_by) == (largest, None)
    assert "begins a new chain" in caplog.text


async def test_answers_and_other_messages_of_one_connection_keep_their_order(home: Cast) -> None:
    cast = await recast(home)
    (channel,) = cast.channels
    async with asyncio.timeout(BOUND_S), cast.agent() as agent:
        first = await agent.publish(channel, "first")
        async with asyncio.TaskGroup() as group:
            for number in range(CHAIN_MESSAGES - 1):
                for data, cause in ((2 * number, first.message_id), (2 * number + 1, None)):
                    group.create_task(agent.publish(channel, data, caused_by=cause))
    assert [each.data for each in await kept(cast)] == ["first", *range(2 * CHAIN_MESSAGES - 2)]


async def test_live_message_is_the_cause_of_its_answer(home: Cast) -> None:
    cast = await recast(home)
    async with cast.rest() as rest, asyncio.timeout(BOUND_S), cast.agent() as agent:
        live = (await rest.tenant(cast.tenant).channels.create("live", type="live")).id
        await agent.subscribe(live)
        first = await agent.publish(live, "hello")
        await anext(messages := agent.messages(live))
        await agent.publish(cast.channels[0], "answer")
        (answer,) = (await agent.history(cast.channels[0], after=0)).messages
        del messages
    assert (answer.caused_by, answer.hops, answer.chain) == (first.message_id, 1, first.message_id)
