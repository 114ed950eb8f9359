"""kill -9 while poisoned messages move to the dead-letter channel and two operators send them back: each moves once each time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TypeVar

import msgspec
import pytest

from artcafe.errors import NotHeld, OurFault
from artcafe.sdk.client import Client
from artcafe.sdk.records import KeptMessage
from artcafe.wire.envelopes import DeadLetter, Redriven
from tests.faults.letters import findings
from tests.faults.test_kill import VICTIMS, kill
from tests.platform import Cast, Platform, running

MOST = 2
"""Deliveries of a message."""
TASKS = 30
SETTLE_S = 60.0

T = TypeVar("T")


def message(seq: int, **more: object) -> KeptMessage:
    text = {"channel": "chn_q", "seq": seq, "message_id": f"msg_{seq}", "from": "agt_a", "time": "2026-11-28T10:00:00Z"}
    return msgspec.structs.replace(msgspec.convert({**text, "headers": {}, "data": msgspec.Raw(b"1")}, KeptMessage), **more)


def letter(seq: int, of: int, deliveries: int = MOST) -> KeptMessage:
    origin = DeadLetter("chn_q", of, f"msg_{of}", "max_deliveries", deliveries, "2026-11-28T10:00:01Z")
    return message(seq, dead_letter=origin)


def back(seq: int, of: int) -> KeptMessage:
    return message(seq, redriven=Redriven("chn_d", of, "msg_1", 1, "usr:a", "2026-11-28T10:00:02Z"))


GOOD = ([message(1), back(4, 2)], [letter(2, 1), letter(6, 4)])


def test_checker_accepts_messages_that_moved_once_each_time() -> None:
    assert findings(*GOOD, MOST) == []


@pytest.mark.parametrize(
    ("queue", "letters", "fault"),
    [
        ([*GOOD[0], message(9)], GOOD[1], "queue #9 has no letter"),
        (GOOD[0], [*GOOD[1], letter(9, 1)], "queue #1 has 2 letters"),
        (GOOD[0], [letter(2, 1, 1), letter(6, 4)], "letter #2 was moved after 1 deliveries"),
        ([*GOOD[0], back(7, 2)], [*GOOD[1], letter(9, 7)], "letter #2 was sent back 2 times"),
        (GOOD[0], [letter(2, 1), message(6)], "letter #6 has no origin"),
        ([message(1, raw=msgspec.Raw(b"2")), back(4, 2)], GOOD[1], "letter #2 differs from queue #1"),
        ([message(1), back(4, 2), back(7, 3)], [*GOOD[1], letter(9, 7)], "queue #7 differs from letter #3"),
    ],
)
def test_checker_finds_a_planted_fault(queue: list[KeptMessage], letters: list[KeptMessage], fault: str) -> None:
    assert fault in findings(queue, letters, MOST)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("platform")) as platform:
        yield platform


async def until_done(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call until it succeeds."""
    async with asyncio.timeout(SETTLE_S):
        while True:
            with contextlib.suppress(OurFault):
                return await call()
            await asyncio.sleep(0.1)


async def refuse_everything(cast: Cast, queue: str) -> None:
    """Take every message of the queue, and give it back at once."""
    async with cast.agent() as agent:
        await agent.subscribe(queue)
        async for each in agent.messages():
            with contextlib.suppress(NotHeld, OurFault):
                await each.nak(0)


async def everything_in(rest: Client, cast: Cast, channel: str) -> list[KeptMessage]:
    async def read() -> list[KeptMessage]:
        return [each async for each in rest.tenant(cast.tenant).messages.list(channel, after=0)]

    return await until_done(read)


async def settled(rest: Client, cast: Cast, queue: str, dead: str) -> tuple[list[KeptMessage], list[KeptMessage]]:
    """Wait until every message of the queue has a letter, and return both."""
    async with asyncio.timeout(SETTLE_S):
        while True:
            messages, letters = await everything_in(rest, cast, queue), await everything_in(rest, cast, dead)
            if len({each.dead_letter.seq for each in letters if each.dead_letter is not None}) >= len(messages):
                return messages, letters
            await asyncio.sleep(0.5)


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.promise("9b")
async def test_kills_move_each_poisoned_message_once_and_redrive_each_letter_once(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1)
    async with cast.rest() as rest:
        made = await rest.tenant(cast.tenant).channels.create("poison", type="queue", ack_wait_s=1, max_deliveries=MOST)
        queue, dead = made.id, made.dead_letter
        assert dead is not None

        async def redrive() -> None:
            async for _ in rest.tenant(cast.tenant).dead_letters.redrive_all(queue):
                pass

        async with asyncio.TaskGroup() as group:
            worker = group.create_task(refuse_everything(cast, queue))
            for number in range(TASKS):
                await until_done(partial(rest.tenant(cast.tenant).messages.publish, queue, number, key=f"task {number}"))
            for victim in VICTIMS * 2:
                async with asyncio.TaskGroup() as operators:
                    for _ in range(2):
                        operators.create_task(until_done(redrive))
                    await asyncio.sleep(0.05)
                    await kill(platform, victim)
                await settled(rest, cast, queue, dead)
            messages, letters = await settled(rest, cast, queue, dead)
            worker.cancel()
    assert len(messages) > 3 * TASKS, "letters were sent back"
    assert findings(messages, letters, MOST) == [], f"{len(messages)} messages, {len(letters)} letters"
