"""Tasks for a work queue with faults: two publishers, workers that succeed, fail, take long or leave, and a history of all of it.

`queue_checker` judges the history; the tests inject the faults.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from artcafe.sdk.client import Client
from artcafe.sdk.records import ChannelInfo, KeptMessage
from artcafe.sdk.tracked_receipts import TrackedReceipt
from artcafe.wire import frames, replies
from tests.faults import bare_client
from tests.faults.client_view import Pauses
from tests.faults.queue_checker import (
    Acked,
    DeadLetter,
    Event,
    Extended,
    Left,
    NakSent,
    NotHeld,
    Put,
    QueueHistory,
    ReceiptTold,
    Redriven,
    Taken,
)
from tests.faults.restores import lives_of
from tests.platform import Cast, Platform

WORKERS: Final = (0, 1, 2)
PUBLISHER: Final = 3
AGENTS: Final = 4
HELD_AT_ONCE: Final = 4
ACK_WAIT_S: Final = 3
MAX_DELIVERIES: Final = 3
POISON_EVERY: Final = 25
"""Each task of such a number fails at every delivery."""
LEAVES: Final = 0.01
"""The chance of a worker's end when it takes a task."""
PUBLISHERS: Final = 2
FOLLOWED_EVERY: Final = 5
"""The receipts of such tasks are followed to their ends; those of the others tell the state at the beginning."""
RECEIPT_S: Final = 20.0
WAIT_S: Final = 60.0
PAUSE_S: Final = 0.05

_SEQ: Final = re.compile(r"message (\d+) of")


class QueueLoad:
    """Traffic on one queue of one tenant, from `working_on` until `end`."""

    def __init__(
        self,
        platform: Platform,
        cast: Cast,
        queue: ChannelInfo,
        seed: int,
        ack_wait_s: int,
        first: int = 1,
        keys: int = 0,
    ) -> None:
        """`first`: the number of its first task, and of its first connection. Two of three tasks have one of `keys` keys, in a
        queue that orders them."""
        self._keys = keys
        self._platform, self.cast, self.queue = platform, cast, queue
        self._chance, self._ack_wait_s = random.Random(seed), ack_wait_s
        self.events: list[Event] = []
        self.lost_letters: Sequence[DeadLetter] = ()
        """The dead letters of the log that a restore has replaced; the test sets them."""
        self.pauses = Pauses()
        self.slowest_s = 0.0
        """The longest time that a publish waited for its answer."""
        self._numbers = itertools.count(first)
        self._connections = itertools.count(first)
        self._stopping = False
        self._publishers: list[asyncio.Task[None]] = []
        self._workers: list[asyncio.Task[None]] = []

    # --- what a test does ---

    async def done(self, more: int) -> None:
        """Wait until this many more tasks were acknowledged."""
        goal = self._acks() + more
        await self._until(lambda: self._acks() >= goal, f"{more} more acknowledged tasks")

    def _acks(self) -> int:
        return sum(isinstance(event, Acked) for event in self.events)

    async def _until(self, holds: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + WAIT_S
        while not holds():
            for task in (*self._publishers, *self._workers):
                if task.done() and not task.cancelled() and (failure := task.exception()):
                    raise failure
            assert time.monotonic() < until, f"no {what} within {WAIT_S} s:\n{self._platform.log()[-2000:]}"
            await asyncio.sleep(PAUSE_S)

    async def end(self, *, is_faulted: bool, slack_s: float = 2.0) -> QueueHistory:
        """Stop the publishers, let the workers empty the queue, redrive half of the dead letters, and return the history."""
        self._stopping = True
        await asyncio.wait(self._publishers)
        await self._empty()
        async with self.cast.rest() as rest:
            letters = await self.letters(rest)
            for letter in letters[::2]:
                for _ in range(2):  # a repeat sends nothing
                    await rest.tenant(self.cast.tenant).dead_letters.redrive(self.queue.id, letter.seq)
            await self._empty()
            letters = await self.letters(rest)
            redriven = [
                Redriven(each.seq, each.redriven.seq)
                for each in await self._kept(rest, self.queue.id)
                if each.redriven is not None
            ]
        for task in self._workers:
            task.cancel()
        ends = MAX_DELIVERIES, self._ack_wait_s, slack_s, is_faulted
        return QueueHistory(self.events, letters, redriven, *ends, self.lost_letters)

    async def _empty(self) -> None:
        """Wait until every task in the queue is acknowledged or a dead letter. What remains after `WAIT_S` is lost."""
        until = time.monotonic() + WAIT_S
        async with self.cast.rest() as rest:
            while time.monotonic() < until:
                stored = {each.seq for each in await self._kept(rest, self.queue.id)}
                refused = {(event.holder, event.seq) for event in self.events if isinstance(event, NotHeld)}
                lives = lives_of(self.events)
                acked = {
                    event.seq
                    for event in (*lives.possible, *lives.after)
                    if isinstance(event, Acked) and (event.holder, event.seq) not in refused
                }
                if stored <= acked | {each.task for each in await self.letters(rest)}:
                    await asyncio.sleep(self._ack_wait_s)  # a wrong delivery would come now
                    return
                await asyncio.sleep(0.5)

    async def letters(self, rest: Client) -> list[DeadLetter]:
        """Return the dead letters of the queue, as they are now."""
        assert self.queue.dead_letter is not None
        kept = await self._kept(rest, self.queue.dead_letter)
        return [
            DeadLetter(each.seq, each.dead_letter.seq, each.dead_letter.reason, each.dead_letter.deliveries)
            for each in kept
            if each.dead_letter is not None
        ]

    async def _kept(self, rest: Client, channel: str) -> list[KeptMessage]:
        return [each async for each in rest.tenant(self.cast.tenant).messages.list(channel, after=0)]

    async def begin(self, group: asyncio.TaskGroup) -> None:
        """Subscribe the workers, and start all traffic."""
        async with self.cast.rest() as rest:
            for number in WORKERS:
                await rest.tenant(self.cast.tenant).subscriptions.create(self.queue.id, self.cast.agents[number])
        self._publishers = [group.create_task(self._publish()) for _ in range(PUBLISHERS)]
        self._workers = [group.create_task(self._work(number)) for number in WORKERS]

    def stop(self) -> None:
        """Stop everything at once."""
        for task in (*self._publishers, *self._workers):
            task.cancel()

    # --- publishing ---

    async def _publish(self) -> None:
        """Publish tasks with keys, so that each is stored once whatever fails."""
        async with self.cast.agent(PUBLISHER) as agent, asyncio.TaskGroup() as followers:
            while not self._stopping:
                number, sent_at = next(self._numbers), time.monotonic()
                key = f"key {number % self._keys}" if self._keys and number % 3 else None
                headers = None if key is None else {"partition": key}
                tracked = await agent.publish(
                    self.queue.id,
                    {"n": number},
                    key=f"task {number}",
                    headers=headers,
                    timeout_s=WAIT_S,
                    receipt="acked" if number % FOLLOWED_EVERY == 0 else "stored",
                    receipt_s=RECEIPT_S,
                )
                self.slowest_s = max(self.slowest_s, time.monotonic() - sent_at)
                assert tracked.seq is not None
                self.events.append(Put(number, tracked.seq, key))
                followers.create_task(self._follow(tracked, tracked.seq))
                await asyncio.sleep(0.01)

    async def _follow(self, tracked: TrackedReceipt, seq: int) -> None:
        """Record what a receipt tells of the end of a task, until it ends itself, at the latest with its connection."""
        async for told in tracked:
            if told.state in ("acked", "dead_lettered"):
                self.events.append(ReceiptTold(seq, told.state, time.monotonic()))

    # --- working ---

    async def _work(self, number: int) -> None:
        """Work on one connection after another."""
        while True:
            holder = f"{self.cast.agents[number]}/{next(self._connections)}"
            try:
                async with bare_client.connected(self._platform.a_gateway(), self.cast, number, HELD_AT_ONCE) as agent:
                    try:
                        while await self._take(agent, holder):
                            pass
                        agent.abort()
                    finally:
                        self.events.append(Left(holder, time.monotonic()))
            except bare_client.GONE:
                await asyncio.sleep(PAUSE_S)

    async def _take(self, agent: bare_client.BareClient, holder: str) -> bool:
        """Handle one frame. Return whether to go on."""
        frame = await agent.receive()
        if frame.error is not None:
            self._refused(frame.error, holder)
        if frame.message is not None and frame.message.seq is not None:
            return await self._do(agent, holder, frame.message, frame.message.seq)
        if frame.extend is not None:
            self.events.append(Extended(holder, frame.extend.seq, time.monotonic()))
            await self._ack(agent, holder, frame.extend.seq)
        return True

    def _refused(self, error: replies.ErrorBody, holder: str) -> None:
        seq = _SEQ.search(error.message)
        if error.code == "not_held" and seq is not None:
            self.events.append(NotHeld(holder, int(seq[1]), time.monotonic()))

    async def _do(self, agent: bare_client.BareClient, holder: str, message: replies.Message, seq: int) -> bool:
        """Do a task: most succeed, some fail, are forgotten, or end the worker. Return whether the worker goes on."""
        number = int(re.search(rb"\d+", bytes(message.data))[0])  # type: ignore[index]  # every task has a number
        self.pauses.note(holder.partition("/")[0])
        key = (message.headers or {}).get("partition")
        self.events.append(Taken(holder, seq, number, message.deliveries or 0, time.monotonic(), key))
        is_new = message.redriven is None
        fate = self._chance.random()
        if number % POISON_EVERY == 0 and is_new:
            await self._nak(agent, holder, seq, 0.0)
        elif fate < LEAVES and is_new:
            return False
        elif fate < 0.1 and is_new:
            await self._nak(agent, holder, seq, self._chance.choice([0.0, 0.2]))
        elif fate < 0.12 and is_new:
            pass  # forgotten: its deadline passes
        elif fate < 0.2:
            await agent.send("extend", frames.Extend(self.queue.id, seq), agent.new_id())  # acknowledged when that is answered
        else:
            await self._ack(agent, holder, seq)
        return True

    async def _nak(self, agent: bare_client.BareClient, holder: str, seq: int, delay_s: float) -> None:
        self.events.append(NakSent(holder, seq, time.monotonic()))
        await agent.send("nak", frames.Nak(self.queue.id, seq, delay_s), agent.new_id())

    async def _ack(self, agent: bare_client.BareClient, holder: str, seq: int) -> None:
        self.events.append(Acked(holder, seq, time.monotonic()))
        await agent.ack(self.queue.id, seq)


@asynccontextmanager
async def working_on(platform: Platform, seed: int, *, ack_wait_s: int = ACK_WAIT_S, keys: int = 0) -> AsyncIterator[QueueLoad]:
    """Run traffic on a queue of a new tenant, ordered by this many keys; it ends with this block."""
    cast = await platform.tenant_with(agents=AGENTS, channels=0)
    async with cast.rest() as rest:
        queue = await rest.tenant(cast.tenant).channels.create(
            "tasks",
            type="queue",
            ack_wait_s=ack_wait_s,
            max_deliveries=MAX_DELIVERIES,
            back_off=[0],
            key_ordered=keys > 0,
        )
    async with running(QueueLoad(platform, cast, queue, seed, ack_wait_s, keys=keys)) as load:
        yield load


@asynccontextmanager
async def running(load: QueueLoad) -> AsyncIterator[QueueLoad]:
    """Run the traffic of a load; it ends with this block."""
    async with asyncio.TaskGroup() as group:
        try:
            await load.begin(group)
            yield load
        finally:
            load.stop()
