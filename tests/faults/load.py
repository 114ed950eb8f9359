"""Traffic for a platform with faults: publishers and subscribers of both kinds, and a history of everything they see.

`checker` judges the history; the tests inject the faults.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import msgspec

from artcafe.errors import ArtcafeError, OutcomeUnknown
from artcafe.sdk.agent import Agent
from artcafe.sdk.messages import Message
from artcafe.wire import frames, replies
from tests.faults import bare_client
from tests.faults.checker import (
    Acked,
    Entry,
    Event,
    Got,
    History,
    Joined,
    Missed,
    Refused,
    Sent,
    Stored,
    Unknown,
    Written,
)
from tests.faults.client_view import Pauses
from tests.platform import Cast, Platform

CHANNELS: Final = 2
SDK_PUBLISHERS: Final = (0, 1)
BARE_PUBLISHERS: Final = (2, 3)
SDK_LISTENER, BARE_LISTENER, AWAY, NEWCOMER = 4, 5, 6, 7
LISTENERS: Final = (SDK_LISTENER, BARE_LISTENER, AWAY)
AGENTS: Final = 8

WINDOW: Final = 8
"""Publishes of one agent in flight at once."""
PAD: Final = "x" * 120
ACK_EVERY: Final = 5
BEFORE_AWAY: Final = 20
AT_FIRST: Final = 0
"""The connection that the absent agent had before the fault; others count from 1."""
REPEATS: Final = 25

WAIT_S: Final = 30.0
"""For a platform that restarts on a machine that is busy with other tests."""
RETRY_S: Final = 0.05


class Load:
    """Traffic in one tenant, from `running_on` until `end`."""

    pace_s = 0.0
    """Delay of each publisher before it sends; 0: it sends as fast as it gets answers."""
    wait_s = WAIT_S

    def __init__(self, platform: Platform, cast: Cast) -> None:
        self._platform, self.cast = platform, cast
        self.events: list[Event] = []
        self.stored = self.unknown = 0
        self.refused: list[replies.ErrorBody] = []
        self._open: dict[tuple[str, int], Sent] = {}
        """Publishes without an answer."""
        self._sent_at: dict[tuple[str, int], float] = {}
        self.slowest_s = 0.0
        """The longest time that a publish waited for its outcome."""
        self.pauses = Pauses()
        self._keyed: dict[tuple[str, int], Sent] = {}
        self._answered_now: set[str] = set()
        """Publishers that had a publish stored since this set was last cleared."""
        self._numbers = 0
        self._highest: dict[tuple[str, str], int] = {}
        """Received messages of each listener, by agent and channel."""
        self._moved = asyncio.Event()
        self._stopping = False
        self._publishers: list[asyncio.Task[None]] = []
        self._listeners: list[asyncio.Task[None]] = []

    # --- what a test does ---

    async def acknowledged(self, more: int) -> None:
        """Wait until this many more publishes have been acknowledged."""
        target = self.stored + more
        await self.until(lambda: self.stored >= target, f"{more} more acknowledged publishes")

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until a condition of this load holds. Fail after `wait_s`."""
        try:
            async with asyncio.timeout(self.wait_s):
                while not holds():
                    self._check_running()
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            raise AssertionError(f"no {what} within {self.wait_s} s:\n{self._platform.log()[-2000:]}") from None

    async def mid_publish(self) -> None:
        """Wait until every publisher has had an answer from now on, and all have publishes in flight."""
        everybody = {self.cast.agents[number] for number in (*SDK_PUBLISHERS, *BARE_PUBLISHERS)}
        self._answered_now.clear()
        await self.until(
            lambda: everybody == self._answered_now == {sent.sender for sent in self._open.values()},
            "publishes of every publisher",
        )

    async def note_cursors(self) -> None:
        """Record which acks are written."""
        async with self.cast.rest() as rest:
            for channel in self.cast.channels:
                async for row in rest.tenant(self.cast.tenant).subscriptions.list(channel):
                    self._record(Written(row.agent_id, channel, row.cursor.seq))

    async def end(self, *, is_retried: bool = False) -> History:
        """Reconnect the absent agent while traffic continues, stop the publishers, and return the history when every subscriber
        has everything in the log. `is_retried` is the history's."""
        self._listeners.append(self._group.create_task(self._listen_bare(AWAY, None)))
        await self.acknowledged(100)
        await self._end_publishing()
        await self._publish_again()
        log = await self._read_log()
        await self._until_level({entry.channel: entry.seq for entry in log})
        for task in self._listeners:
            task.cancel()
        return History(self.events, log, self._subscribers(), is_retried)

    def _subscribers(self) -> dict[str, Sequence[str]]:
        """Return the channels that each agent was subscribed to before the first publish."""
        return {self.cast.agents[number]: self.listened for number in LISTENERS}

    async def end_of_publishing(self) -> History:
        """Like `end`, for the publishers only: their answers, and the contents of the log."""
        await self._end_publishing()
        told = [event for event in self.events if isinstance(event, Sent | Stored | Refused | Unknown)]
        return History(told, await self._read_log(), {})

    async def _end_publishing(self) -> None:
        self._stopping = True
        async with asyncio.timeout(2 * self.wait_s):
            await asyncio.wait(self._publishers)
        self._check_running()
        assert not self._open, "every publish has an outcome"

    @property
    def listened(self) -> Sequence[str]:
        """Return the channels that the listeners are subscribed to."""
        return self.cast.channels

    async def begin(self, group: asyncio.TaskGroup) -> None:
        """Subscribe the listeners, and start all traffic; on return, one agent has connected and left."""
        self._group = group
        async with self.cast.rest() as rest:
            for channel in self.listened:
                for number in LISTENERS:
                    await rest.tenant(self.cast.tenant).subscriptions.create(channel, self.cast.agents[number])
        self._listeners = [group.create_task(self._listen_sdk()), group.create_task(self._listen_bare(BARE_LISTENER, 64))]
        self._publishers = [
            *(group.create_task(self._publish_sdk(number)) for number in SDK_PUBLISHERS),
            *(group.create_task(self._publish_bare(number)) for number in BARE_PUBLISHERS),
        ]
        await self._come_and_leave()

    def stop(self) -> None:
        """Stop everything at once."""
        for task in (*self._publishers, *self._listeners):
            task.cancel()

    # --- publishing ---

    def _next(self, line: str, number: int, *, keyed: bool) -> Sent:
        """Return the next message of a line, recorded as sent by an agent now."""
        return self._next_of(line, self.cast.agents[number], is_keyed=keyed)

    def _next_of(self, line: str, sender: str, *, is_keyed: bool) -> Sent:
        """Return the next message of a line, recorded as sent now."""
        self._numbers += 1
        data = msgspec.json.encode({"line": line, "n": self._numbers, "pad": PAD}).decode()
        channel = random.choice(self.cast.channels)
        sent = Sent(line, self._numbers, sender, channel, data, f"key {self._numbers}" if is_keyed else None)
        self._open[sent.line, sent.number] = sent
        self._sent_at[sent.line, sent.number] = asyncio.get_running_loop().time()
        self._record(sent)
        return sent

    def _answered(self, sent: Sent, answer: replies.PublishReply | replies.ErrorBody | None) -> None:
        """Record an answer. An error that does not say whether the message was stored counts as no answer."""
        self._open.pop((sent.line, sent.number), None)
        took_s = asyncio.get_running_loop().time() - self._sent_at.pop((sent.line, sent.number))
        self.slowest_s = max(self.slowest_s, took_s)
        match answer:
            case replies.PublishReply(seq, message_id, duplicate):
                self.stored += 1
                self._answered_now.add(sent.sender)
                if sent.key is not None:
                    self._keyed[sent.line, sent.number] = sent
                self._record(Stored(sent.line, sent.number, _place(seq), message_id, duplicate))
            case replies.ErrorBody(code) if code not in {"outcome_unknown", "internal"}:
                self.refused.append(answer)
                self._record(Refused(sent.line, sent.number, code))
            case _:
                self.unknown += 1
                self._record(Unknown(sent.line, sent.number))

    async def _publish_sdk(self, number: int) -> None:
        places = asyncio.Semaphore(WINDOW)
        async with self.cast.agent(number) as agent, asyncio.TaskGroup() as group:
            while not self._stopping:
                await asyncio.sleep(self.pace_s)
                await places.acquire()
                group.create_task(self._publish_one(agent, number, places))

    async def _publish_one(self, agent: Agent, number: int, places: asyncio.Semaphore) -> None:
        sent = self._next(self.cast.agents[number], number, keyed=True)
        try:
            receipt = await agent.publish(sent.channel, msgspec.Raw(sent.data.encode()), key=sent.key)
        except OutcomeUnknown:
            self._answered(sent, None)
        except ArtcafeError as exc:
            self._answered(sent, replies.ErrorBody(exc.code, str(exc), exc.temporary))
        else:
            self._answered(sent, replies.PublishReply(receipt.seq, receipt.message_id, receipt.duplicate))
        finally:
            places.release()

    async def _publish_bare(self, number: int) -> None:
        """Publish without keys, on one connection after another."""
        connection = 0
        while not self._stopping:
            connection += 1
            waiting: dict[int, Sent] = {}
            try:
                async with bare_client.connected(self._platform.a_gateway(), self.cast, number) as agent:
                    await self._publish_on(agent, number, f"{self.cast.agents[number]}/{connection}", waiting)
            except bare_client.GONE:
                await asyncio.sleep(RETRY_S)
            finally:
                for sent in waiting.values():
                    self._answered(sent, None)

    async def _publish_on(self, agent: bare_client.BareClient, number: int, line: str, waiting: dict[int, Sent]) -> None:
        while waiting or not self._stopping:
            while len(waiting) < WINDOW and not self._stopping:
                await asyncio.sleep(self.pace_s)
                id, sent = agent.new_id(), self._next(line, number, keyed=False)
                waiting[id] = sent
                await agent.send("publish", frames.Publish(sent.channel, msgspec.Raw(sent.data.encode())), id)
            frame = await agent.receive()
            if frame.id is not None:
                self._answered(waiting.pop(frame.id), frame.publish or frame.error)

    async def _publish_again(self) -> None:
        """Repeat some of the stored publishes with their keys: the answers must be the same."""
        some = random.sample(list(self._keyed.values()), min(REPEATS, len(self._keyed)))
        for number in SDK_PUBLISHERS:
            async with self.cast.agent(number) as agent:
                for sent in [each for each in some if each.sender == self.cast.agents[number]]:
                    found = await agent.publish(sent.channel, msgspec.Raw(sent.data.encode()), key=sent.key)
                    self._record(Stored(sent.line, sent.number, _place(found.seq), found.message_id, found.duplicate))

    # --- receiving ---

    async def _listen_sdk(self) -> None:
        async with self.cast.agent(SDK_LISTENER) as agent:
            self._record(Joined(agent.agent, 0))
            async for item in agent.messages(gaps=True):
                if isinstance(item, Message):
                    entry = Entry(
                        item.channel_id, _place(item.seq), item.prev, item.message_id, item.sender_id, item.raw.decode()
                    )
                    self._got(agent.agent, 0, entry)
                    await item.ack()
                    self._record(Acked(agent.agent, 0, item.channel_id, entry.seq))
                else:
                    self._record(Missed(agent.agent, 0, item.channel, item.reason))

    async def _listen_bare(self, number: int, max_unacked: int | None) -> None:
        connection = 0
        while True:
            connection += 1
            self._record(Joined(self.cast.agents[number], connection))
            try:
                async with bare_client.connected(self._platform.a_gateway(), self.cast, number, max_unacked) as agent:
                    while True:
                        await self._take(agent, number, connection)
            except bare_client.GONE:
                await asyncio.sleep(RETRY_S)

    async def _take(self, agent: bare_client.BareClient, number: int, connection: int) -> None:
        """Record one frame, and acknowledge some messages."""
        frame, name = await agent.receive(), self.cast.agents[number]
        if frame.gap is not None:
            self._record(Missed(name, connection, frame.gap.channel, frame.gap.reason))
        if frame.message is not None:
            entry = entry_of(frame.message)
            self._got(name, connection, entry)
            if len(self.events) % ACK_EVERY == 0:
                self._record(Acked(name, connection, entry.channel, entry.seq))
                await agent.ack(entry.channel, entry.seq)

    async def _come_and_leave(self) -> None:
        """Connect an agent, receive some messages, acknowledge the last of each channel and leave; wait until that is written."""
        name, last = self.cast.agents[AWAY], dict[str, int]()
        self._record(Joined(name, AT_FIRST))
        async with asyncio.timeout(self.wait_s), bare_client.connected(self._platform.a_gateway(), self.cast, AWAY) as agent:
            for _ in range(BEFORE_AWAY):
                entry = await self._next_message(agent)
                self._got(name, AT_FIRST, entry)
                last[entry.channel] = entry.seq
            for channel, seq in last.items():
                self._record(Acked(name, AT_FIRST, channel, seq))
                await agent.ack(channel, seq)
        wanted = {Written(name, channel, seq) for channel, seq in last.items()}
        for _ in range(100):
            await self.note_cursors()
            if wanted <= set(self.events):
                return
            await asyncio.sleep(RETRY_S)
        raise AssertionError("an agent's acks were not written when it left")

    async def _read_log(self) -> list[Entry]:
        """Return the contents of the log, as delivered to an agent that never connected before."""
        log: list[Entry] = []
        async with asyncio.timeout(self.wait_s):
            for channel in self.cast.channels:
                async with bare_client.connected(self._platform.a_gateway(), self.cast, NEWCOMER) as agent:
                    reply = await agent.subscribe(channel, "first")
                    while _place(reply.last) > (log[-1].seq if log and log[-1].channel == channel else 0):
                        entry = await self._next_message(agent)
                        if entry.channel == channel:
                            log.append(entry)
        return log

    @staticmethod
    async def _next_message(agent: bare_client.BareClient) -> Entry:
        while (frame := await agent.receive()).message is None:
            pass
        return entry_of(frame.message)

    async def _until_level(self, newest: dict[str, int]) -> None:
        """Wait until every listener has received the newest message. A listener that does not has missed some, which the checker
        reports."""
        goal = {
            (agent, channel): newest[channel]
            for agent, channels in self._subscribers().items()
            for channel in channels
            if channel in newest
        }
        try:
            async with asyncio.timeout(self.wait_s):
                while any(self._highest.get(place, 0) < seq for place, seq in goal.items()):
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            pass

    def _got(self, agent: str, connection: int, entry: Entry) -> None:
        place = (agent, entry.channel)
        self._highest[place] = max(self._highest.get(place, 0), entry.seq)
        self._record(Got(agent, connection, entry))
        self.pauses.note(agent)

    def _record(self, event: Event) -> None:
        self.events.append(event)
        self._moved.set()

    def _check_running(self) -> None:
        for task in (*self._publishers, *self._listeners):
            if task.done() and not task.cancelled() and (failure := task.exception()):
                raise failure


def _place(seq: int | None) -> int:
    """Return a sequence in a channel that stores messages."""
    assert seq is not None
    return seq


def entry_of(message: replies.Message) -> Entry:
    data = bytes(message.data).decode()
    return Entry(message.channel, _place(message.seq), message.prev, message.message_id, message.sender, data)


AnyLoad = TypeVar("AnyLoad", bound=Load)


@asynccontextmanager
async def running_on(platform: Platform) -> AsyncIterator[Load]:
    """Run traffic in a new tenant; it ends with this block."""
    cast = await platform.tenant_with(agents=AGENTS, channels=CHANNELS, subscribed=False)
    async with running(Load(platform, cast)) as load:
        yield load


@asynccontextmanager
async def running(load: AnyLoad) -> AsyncIterator[AnyLoad]:
    """Run the traffic of a load; it ends with this block."""
    async with asyncio.TaskGroup() as group:
        try:
            await load.begin(group)
            yield load
        finally:
            load.stop()
