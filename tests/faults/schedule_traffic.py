"""Scheduled and expiring messages with faults: publishers, a person who cancels, a subscriber, and one that comes and goes.

`schedule_checker` judges what they saw.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from artcafe.errors import AlreadyDelivered, ArtcafeError, OurFault, OutcomeUnknown, ScheduledNotFound
from artcafe.sdk.agent import Agent
from artcafe.sdk.client import Client
from artcafe.wire import replies
from tests.faults import bare_client
from tests.faults.pull_checker import GapSeen
from tests.faults.restores import Restored, RestoreEvent, Stage
from tests.faults.schedule_checker import (
    Accepted,
    CancelAttempted,
    Cancelled,
    CancelTooLate,
    GapPushed,
    Kept,
    Published,
    Rejected,
    ScheduleEvent,
    ScheduleHistory,
    Seen,
    judge_schedule,
)
from tests.faults.traffic import PAUSE_S, WAIT_S, Traffic
from tests.faults.verdicts import Ruling

PUBLISHERS: Final = (0, 1)
LISTENER, GUEST = 2, 3
PACE_S: Final = 0.03
AHEAD_S: Final = (0.1, 3.0)
IS_NOW, EXPIRES, CANCELS = 0.3, 0.3, 0.2
"""The chances that a message is not scheduled, that it expires, and that a scheduled one is cancelled."""
BEYOND_S: Final = 45.0
"""How long before its time a message is scheduled that a backup and its restore are to happen to meanwhile."""
OF_BACKUP, OF_LOST_LOG = 6, 3
"""How many such messages are scheduled before a backup, and after it."""
EXPIRES_IN_S: Final = (0.1, 0.6)
ACKS: Final = 0.3
STAYS_S: Final = 0.5
AWAY_S: Final = (0.3, 2.5)
"""How long the guest stays, and is away."""
SLACK_S: Final = 1.0
LATE_S: Final = 10.0


class ScheduleTraffic(Traffic):
    """Scheduled messages in one tenant. A step is a message that the subscriber who stays has received."""

    name = "scheduled messages"
    agents = 4

    async def prepare(self) -> None:
        self.events: list[ScheduleEvent] = []
        self.pauses: list[tuple[float, float]] = []
        """From when to when nobody stores scheduled messages, besides `nats_cuts`; the test adds to it."""
        self.lost_log: Sequence[Kept] = ()
        self._of_backup: Sequence[str] = ()
        self._of_lost_log: Sequence[str] = ()
        self._numbers = itertools.count(1)
        self._newest = dict.fromkeys((LISTENER, GUEST), 0)
        async with self.cast.rest() as rest:
            self.channel = (await rest.tenant(self.cast.tenant).channels.create("reminders")).id
            for number in (LISTENER, GUEST):
                await rest.tenant(self.cast.tenant).subscriptions.create(self.channel, self.cast.agents[number])

    @property
    def all_events(self) -> list[ScheduleEvent]:
        return self.events

    def work(self) -> Sequence[Coroutine[None, None, None]]:
        self._publishing = len(PUBLISHERS)
        return [*(self._publish(number) for number in PUBLISHERS), *(self._listen(number) for number in (LISTENER, GUEST))]

    async def end(self, *, is_faulted: bool, stopped_s: float = 0.0) -> Ruling:
        """Wait until every scheduled message is due, and the subscribers have the last message."""
        del is_faulted  # No fault excuses any of the rules.
        self.is_stopping = True
        await self.until(lambda: not self._publishing, "end of the publishers")
        async with self.cast.rest() as rest:
            await self._until_none_is_scheduled(rest)
            last = await self._publish_one(rest)
            await self.until(lambda: min(self._newest.values()) >= last, "last message at both subscribers")
            self.stop()
            log = await self._read_log(rest)
        subscribers = [self.cast.agents[LISTENER], self.cast.agents[GUEST]]
        to_time_of_day = time.time() - time.monotonic()
        pauses = [(began + to_time_of_day, ended + to_time_of_day) for began, ended in (*self.nats_cuts, *self.pauses)]
        # The checker leaves the pauses out, so that the longest one does not count a second time.
        late_s = LATE_S + max(0.0, stopped_s - max((ended - began for began, ended in pauses), default=0.0))
        times = SLACK_S + stopped_s, late_s, pauses
        return judge_schedule(ScheduleHistory(self.events, log, subscribers, *times, self.lost_log, self.restored_at))

    def mark(self, event: RestoreEvent) -> None:
        super().mark(event)
        if isinstance(event, Restored):
            self._newest = dict.fromkeys(self._newest, 0)  # sequences are assigned again

    async def reach(self, stage: Stage) -> None:
        """Schedule messages that the backup has, cancel half of them after it, and schedule others that it does not have. After
        the restore, cancel one of the first again, and those of the lost log."""
        async with self.cast.rest() as rest:
            match stage:
                case Stage.BEFORE_BACKUP:
                    self._of_backup = await self._schedule(OF_BACKUP)
                case Stage.AFTER_BACKUP:
                    for id in self._of_backup[::2]:
                        await self._cancel_now(rest, id)
                    self._of_lost_log = await self._schedule(OF_LOST_LOG)
                case Stage.AFTER_RESTORE:
                    for id in (*self._of_backup[:1], *self._of_lost_log):
                        await self._cancel_now(rest, id)

    async def _schedule(self, count: int) -> list[str]:
        """Schedule messages beyond the backup, and return their ids."""
        found: list[str] = []
        async with self.cast.agent(PUBLISHERS[0]) as agent:
            for _ in range(count):
                at = round(time.time() + BEYOND_S + 0.1 * self.chance.random(), 3)
                id = await self._send(agent, Published(next(self._numbers), at, None))
                assert id is not None
                found.append(id)
        return found

    async def read_lost(self, rest: Client) -> None:
        self.lost_log = await self._read_log(rest)

    async def _read_log(self, rest: Client) -> list[Kept]:
        return [
            Kept(each.seq, each.message_id, int(bytes(each.raw)))
            async for each in rest.tenant(self.cast.tenant).messages.list(self.channel, after=0)
        ]

    async def _until_none_is_scheduled(self, rest: Client) -> None:
        """Wait until every scheduled message is delivered or cancelled. What remains after `WAIT_S` is missing in the log."""
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            if not [each async for each in rest.tenant(self.cast.tenant).scheduled.list(self.channel)]:
                return
            await asyncio.sleep(5 * PAUSE_S)

    async def _publish_one(self, rest: Client) -> int:
        number = next(self._numbers)
        self.events.append(Published(number, None, None))
        stored = await rest.tenant(self.cast.tenant).messages.publish(self.channel, number)
        assert stored.seq is not None
        assert stored.message_id is not None
        self.events.append(Accepted(number, stored.message_id, time.time()))
        return stored.seq

    # --- publishing, and cancelling ---

    async def _publish(self, number: int) -> None:
        """Publish with keys; an unknown outcome stays unknown."""
        async with self.cast.agent(number) as agent, self.cast.rest() as rest, asyncio.TaskGroup() as cancels:
            while not self.is_stopping:
                sent = self._next()
                id = await self._send(agent, sent)
                if id is not None and sent.deliver_at is not None and self.chance.random() < CANCELS:
                    cancels.create_task(self._cancel(rest, id, sent.deliver_at))
                await asyncio.sleep(PACE_S)
        self._publishing -= 1

    def _next(self) -> Published:
        now, chance = time.time(), self.chance
        # The server keeps the order of whole milliseconds.
        at = None if chance.random() < IS_NOW else round(now + chance.uniform(*AHEAD_S), 3)
        ends = (at or now) + chance.uniform(*EXPIRES_IN_S) if chance.random() < EXPIRES else None
        return Published(next(self._numbers), at, ends)

    async def _send(self, agent: Agent, sent: Published) -> str | None:
        """Publish a message, and return its id; None if it was not stored, or that is unknown."""
        self.events.append(sent)
        at, until = _moment(sent.deliver_at), _moment(sent.expires_at)
        try:
            stored = await agent.publish(
                self.channel, sent.number, key=f"{sent.number}", timeout_s=WAIT_S, deliver_at=at, expires_at=until
            )
        except OutcomeUnknown:
            return None
        except ArtcafeError:
            self.events.append(Rejected(sent.number))
            return None
        assert stored.message_id is not None
        self.events.append(Accepted(sent.number, stored.message_id, time.time()))
        return stored.message_id

    async def _cancel(self, rest: Client, id: str, due: float) -> None:
        """Cancel a message, at any time before it is due or just after."""
        await asyncio.sleep(max(0.0, self.chance.uniform(0, due + 0.3 - time.time())))
        await self._cancel_now(rest, id)

    async def _cancel_now(self, rest: Client, id: str) -> None:
        """Cancel a message; repeat it until the answer is known."""
        self.events.append(CancelAttempted(id))
        while True:
            try:
                await rest.tenant(self.cast.tenant).scheduled.cancel(self.channel, id)
            except AlreadyDelivered as exc:
                self.events.append(CancelTooLate(id, exc.seq))
            except ScheduledNotFound:
                self.events.append(CancelTooLate(id, 0))
            except (OurFault, OutcomeUnknown):
                await asyncio.sleep(PAUSE_S)
                continue
            else:
                self.events.append(Cancelled(id, time.time()))
            return

    # --- receiving ---

    async def _listen(self, number: int) -> None:
        """Receive on one connection after another; the guest leaves each after a while."""
        while True:
            try:
                async with bare_client.connected(self.platform.a_gateway(), self.cast, number) as connection:
                    is_short = number == GUEST and not self.is_stopping
                    async with asyncio.timeout(STAYS_S if is_short else None):
                        while True:
                            await self._take(connection, number, await connection.receive())
            except bare_client.GONE:
                await asyncio.sleep(self.chance.uniform(*AWAY_S) if number == GUEST else PAUSE_S)

    async def _take(self, connection: bare_client.BareClient, number: int, frame: replies.Incoming) -> None:
        """Record a message or a gap, and acknowledge some messages."""
        agent, now, message = self.cast.agents[number], time.time(), frame.message
        if frame.gap is not None and frame.gap.channel == self.channel:  # the agent's inbox is in a restored log, too
            gap = GapSeen(self.channel, frame.gap.from_, frame.gap.to, frame.gap.reason)
            self.events.append(GapPushed(agent, gap, now))
            self._newest[number] = max(self._newest[number], gap.last or 0)
        if message is None or message.seq is None:
            return
        data = msgspec.json.decode(bytes(message.data), type=int)
        self.events.append(Seen(agent, data, message.seq, message.message_id, now))
        self._newest[number] = max(self._newest[number], message.seq)
        self.progress += number == LISTENER
        if self.chance.random() < ACKS:
            await connection.ack(self.channel, message.seq)


def _moment(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)
