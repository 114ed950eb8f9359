"""Pulls over REST with faults: a publisher, and two agents without sockets that share a queue and follow a channel.

`pull_checker` judges what they saw.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import msgspec

from artcafe.errors import ArtcafeError
from artcafe.sdk.client import Client
from artcafe.sdk.http import HttpClient, path_of
from artcafe.sdk.keys import load_signer
from artcafe.sdk.records import KeptMessage
from artcafe.sdk.rest_login import log_in
from artcafe.sdk.retries import Retries
from artcafe.wire import replies
from tests.faults.checker import Entry
from tests.faults.pull_checker import (
    AckConfirmed,
    AckSent,
    CursorRead,
    GapSeen,
    LostLog,
    PullBegan,
    Pulled,
    PullEvent,
    PullHistory,
    TaskConfirmed,
    judge_pulls,
)
from tests.faults.queue_checker import Acked, DeadLetter, Event, Extended, NakSent, NotHeld, Put, QueueHistory, Taken
from tests.faults.restores import BackupEnded, Restored, RestoreEvent, lives_of
from tests.faults.traffic import PAUSE_S, WAIT_S, Traffic
from tests.faults.verdicts import Ruling

PUBLISHER: Final = 0
PULLERS: Final = (1, 1, 2)
"""The agents that pull, once for each of their pulls at a time."""
ACK_WAIT_S: Final = 3
MAX_DELIVERIES: Final = 6
PACE_S: Final = 0.02
EXPIRES: Final = 0.1
EXPIRES_IN_S: Final = (0.05, 0.3)
LEFT: Final = 0.3
"""The chances of an expiry of a message, and of a channel of a page that is not acknowledged."""
REQUEST_S: Final = 10.0
SLACK_S: Final = 2.0


class _PulledItem(replies.Message, frozen=True, kw_only=True):
    receipt: str | None = None


class _Gap(msgspec.Struct, frozen=True, rename={"first": "from", "last": "to"}):
    channel: str
    first: int
    last: int | None
    reason: str
    after: int


class _PullAnswer(msgspec.Struct, frozen=True):
    items: list[_PulledItem]
    gaps: list[_Gap]
    epoch: str | None


class _Outcome(msgspec.Struct, frozen=True):
    error: replies.ErrorBody | None = None


@dataclass
class _LastPage:
    """What an agent remembers of its pulls: the newest message, the epoch, and its newest tasks."""

    news: int | None = None
    epoch: str | None = None
    holder: str = ""
    tasks: Sequence[_PulledItem] = ()


class PullTraffic(Traffic):
    """Pulls in one tenant. A step is a pull that returned messages."""

    name = "pulls"
    agents = 3

    async def prepare(self) -> None:
        self.events: list[PullEvent] = []
        self.tasks: list[Event] = []
        self.confirmed: list[tuple[int, TaskConfirmed]] = []
        self._lost_log, self._lost_tasks = LostLog((), {}), list[Put]()
        self._lost_letters: Sequence[DeadLetter] = ()
        self._restores = 0
        self._numbers, self._pulls = itertools.count(1), itertools.count(1)
        async with self.cast.rest() as rest:
            self.news = (await rest.tenant(self.cast.tenant).channels.create("news")).id
            self.queue = await rest.tenant(self.cast.tenant).channels.create(
                "tasks", type="queue", ack_wait_s=ACK_WAIT_S, max_deliveries=MAX_DELIVERIES, back_off=[0]
            )
            for agent in sorted({self.cast.agents[number] for number in PULLERS}):
                for channel in (self.news, self.queue.id):
                    await rest.tenant(self.cast.tenant).subscriptions.create(channel, agent)

    @property
    def all_events(self) -> list[PullEvent]:
        return self.events

    def mark(self, event: RestoreEvent) -> None:
        super().mark(event)
        self.tasks.append(event)
        self._restores += isinstance(event, Restored)

    async def read_lost(self, rest: Client) -> None:
        log = await self._kept(rest, self.news)
        self._lost_log = LostLog(self._chained(log), self._expiry(log))
        self._lost_tasks = await self._puts(rest)
        self._lost_letters = await self._letters(rest)

    def work(self) -> Sequence[Coroutine[None, None, None]]:
        return [self._publish(), self._observe(), *(self._pull_on(number) for number in PULLERS)]

    async def end(self, *, is_faulted: bool, stopped_s: float = 0.0) -> Ruling:
        self.is_stopping = True
        until = time.monotonic() + WAIT_S
        async with self.cast.rest() as rest:
            # What remains at the end is lost.
            while not await self._is_drained(rest) and time.monotonic() < until:  # noqa: ASYNC110 - another process has no event
                await asyncio.sleep(10 * PAUSE_S)
            await asyncio.sleep(1.0)  # a wrong repeat would come now
            self.stop()
            log, letters = await self._kept(rest, self.news), await self._letters(rest)
            puts = await self._puts(rest)
        tasks, confirmed = self._with_puts(puts)
        slack_s = SLACK_S + stopped_s
        queue = QueueHistory(
            tasks, letters, [], MAX_DELIVERIES, ACK_WAIT_S, slack_s, is_faulted, self._lost_letters, self.nats_kills
        )
        agents = self.cast.agents[1:]
        seen = self.events, self._chained(log), agents, self._expiry(log)
        return judge_pulls(PullHistory(*seen, queue, confirmed, self.nats_kills, self._lost_log))

    def _with_puts(self, puts: Sequence[Put]) -> tuple[list[Event], list[tuple[int, TaskConfirmed]]]:
        """Return the events of the queue with its tasks, each among the events of the log that has it, and the confirmed acks."""
        restored = next((each for each in self.tasks if isinstance(each, Restored)), None)
        if restored is None:
            return [*puts, *self.tasks], [(place + len(puts), task) for place, task in self.confirmed]
        at, first = self.tasks.index(restored) + 1, len(self._lost_tasks)
        new = [put for put in puts if put.seq > restored.last_seq]
        places = [place + first + (len(new) if place >= at else 0) for place, _ in self.confirmed]
        confirmed = [(place, task) for place, (_, task) in zip(places, self.confirmed, strict=True)]
        return [*self._lost_tasks, *self.tasks[:at], *new, *self.tasks[at:]], confirmed

    def _expiry(self, log: Sequence[KeptMessage]) -> dict[tuple[str, int], float]:
        return {(self.news, each.seq): each.expires_at.timestamp() for each in log if each.expires_at is not None}

    def _chained(self, log: Sequence[KeptMessage]) -> list[Entry]:
        """Return the log as it is delivered: each message with the one before it."""
        seqs = [None, *(each.seq for each in log)]
        return [
            Entry(self.news, each.seq, prev, each.message_id, each.sender_id, bytes(each.raw).decode())
            for prev, each in zip(seqs, log, strict=False)
        ]

    async def _is_drained(self, rest: Client) -> bool:
        """Whether every message is acknowledged by each agent, and every task by one, or a dead letter."""
        news, lives = await self._kept(rest, self.news), lives_of(self.events)
        done = {(event.agent, event.seq) for event in lives.after if isinstance(event, AckConfirmed)}
        last = news[-1].seq if news else 0
        ended = self._ended() | {letter.task for letter in await self._letters(rest)}
        return all((agent, last) in done for agent in self.cast.agents[1:] if last) and ended >= {
            put.seq for put in await self._puts(rest)
        }

    def _ended(self) -> set[int]:
        """Return the tasks whose ack was confirmed: after a restore, or so early that the backup may have it."""
        places = [at for at, event in enumerate(self.tasks) if isinstance(event, BackupEnded | Restored)]
        ended_at, restored_at = places[-2:] if len(places) > 1 else (0, 0)
        return {task.seq for place, task in self.confirmed if place <= ended_at or place > restored_at}

    async def _puts(self, rest: Client) -> list[Put]:
        return [Put(_number_of(each), each.seq) for each in await self._kept(rest, self.queue.id)]

    async def _kept(self, rest: Client, channel: str) -> list[KeptMessage]:
        return [each async for each in rest.tenant(self.cast.tenant).messages.list(channel, after=0)]

    async def _letters(self, rest: Client) -> list[DeadLetter]:
        assert self.queue.dead_letter is not None
        return [
            DeadLetter(each.seq, each.dead_letter.seq, each.dead_letter.reason, each.dead_letter.deliveries)
            for each in await self._kept(rest, self.queue.dead_letter)
            if each.dead_letter is not None
        ]

    # --- publishing, and observing ---

    async def _publish(self) -> None:
        """Publish messages and tasks with keys; the log says in the end which are stored."""
        async with self.cast.agent(PUBLISHER) as agent:
            while not self.is_stopping:
                number = next(self._numbers)
                try:
                    await agent.publish(self.queue.id, {"n": number}, key=f"task {number}", timeout_s=WAIT_S)
                    ends = self._some_expiry()
                    await agent.publish(self.news, {"n": number}, key=f"news {number}", timeout_s=WAIT_S, expires_at=ends)
                except ArtcafeError:
                    pass  # such as a message that had expired when it could be stored
                await asyncio.sleep(PACE_S)

    def _some_expiry(self) -> datetime | None:
        if self.chance.random() > EXPIRES:
            return None
        return datetime.now(UTC) + timedelta(seconds=self.chance.uniform(*EXPIRES_IN_S))

    async def _observe(self) -> None:
        """Read the cursors, which move by acks only."""
        async with self.cast.rest() as rest:
            while True:
                await asyncio.sleep(10 * PAUSE_S)
                try:
                    rows = [each async for each in rest.tenant(self.cast.tenant).subscriptions.list(self.news)]
                except ArtcafeError:
                    continue
                self.events += [CursorRead(row.agent_id, self.news, row.cursor.seq, row.cursor.epoch) for row in rows]

    # --- pulling ---

    async def _pull_on(self, number: int) -> None:
        """Pull again and again, and acknowledge parts of each page; at the end, all of it. Nothing is sent twice, except with
        another token."""
        agent, signer = self.cast.agents[number], load_signer(self.cast.keys[number])
        restores, last = self._restores, _LastPage()
        async with HttpClient(self.platform.url, None, REQUEST_S, partial(Retries, 0, 0)) as http:
            http.renew = partial(log_in, http, self.cast.tenant, agent, signer)
            while True:
                try:
                    if restores != self._restores:
                        await self._acknowledge_lost(http, agent, last, is_alone=PULLERS.count(number) == 1)
                        restores = self._restores
                    await self._pull(http, agent, last)
                except ArtcafeError:
                    await asyncio.sleep(PAUSE_S)

    async def _acknowledge_lost(self, http: HttpClient, agent: str, last: _LastPage, *, is_alone: bool) -> None:
        """Acknowledge what this agent had pulled last of a log that was replaced since, as an agent does that noticed nothing."""
        if last.news is not None:
            # Without an epoch it counts as soon as another pull of this agent has acknowledged something of the new log.
            for epoch in (last.epoch, None) if is_alone else (last.epoch,):
                await self._ack_news(http, agent, last.news, epoch)
        for each in last.tasks:
            await self._ack_task(http, agent, last.holder, each)

    async def _pull(self, http: HttpClient, agent: str, last: _LastPage) -> None:
        pull = next(self._pulls)
        self.events.append(PullBegan(pull, agent, time.time()))
        wait_s, limit = self.chance.choice([0, 1]), self.chance.choice([1, 5, 50])
        asked_at = time.monotonic()
        page = await http.read(_PullAnswer, self._path(agent, "inbox"), {"wait_s": wait_s, "limit": limit})
        tasks, news = _split(page.items)
        items = tuple(_entry_of(each) for each in news)
        gaps = tuple(GapSeen(each.channel, each.first, each.last, each.reason) for each in page.gaps if each.channel == self.news)
        holder = f"{agent}/{pull}"
        self.tasks += [
            Taken(holder, _seq_of(each), _number_of(each), each.deliveries or 0, time.monotonic(), None, asked_at)
            for each in tasks
        ]
        self.events.append(Pulled(pull, items, gaps, time.time(), page.epoch))
        if news:
            last.epoch, last.news = page.epoch, _seq_of(news[-1])
        if tasks:
            last.holder, last.tasks = holder, tasks
        self.progress += bool(page.items)
        await self._acknowledge(http, agent, page, news)
        await self._settle(http, agent, holder, tasks)
        await asyncio.sleep(PAUSE_S)

    async def _acknowledge(self, http: HttpClient, agent: str, page: _PullAnswer, news: Sequence[_PulledItem]) -> None:
        """Acknowledge the messages of the broadcast channel up to one of them, or none of them.

        The gap of the agent's inbox, which a restore has replaced too, is never acknowledged: pulls must wait nevertheless.
        """
        gaps = [gap for gap in page.gaps if gap.channel == self.news]
        if not (news or gaps) or (self.chance.random() < LEFT and not self.is_stopping):
            return
        ends = [_seq_of(each) for each in news] or [gap.after for gap in gaps]
        seq = max([*ends, *(gap.after for gap in gaps)]) if self.is_stopping else self.chance.choice(ends)
        await self._ack_news(http, agent, seq, page.epoch)

    async def _ack_news(self, http: HttpClient, agent: str, seq: int, epoch: str | None) -> None:
        self.events.append(AckSent(agent, self.news, seq, epoch))
        (error,) = await self._post(http, agent, "acks", [{"channel": self.news, "seq": seq}], epoch)
        if error is None:
            self.events.append(AckConfirmed(agent, self.news, seq, epoch))

    async def _settle(self, http: HttpClient, agent: str, holder: str, tasks: Sequence[_PulledItem]) -> None:
        """Acknowledge the tasks of a pull, except some that are given back, extended or forgotten."""
        for each in tasks:
            seq, entry = _seq_of(each), {"channel": each.channel, "seq": each.seq, "receipt": each.receipt}
            fate = 1.0 if self.is_stopping else self.chance.random()
            if fate < 0.05:
                continue
            if fate < 0.15:
                self.tasks.append(NakSent(holder, seq, time.monotonic()))
                (error,) = await self._post(http, agent, "naks", [{**entry, "delay_s": 0}])
            elif fate < 0.2:
                asked_at = time.monotonic()
                (error,) = await self._post(http, agent, "extends", [entry])
                if error is None:
                    self.tasks.append(Extended(holder, seq, time.monotonic(), asked_at))
            else:
                await self._ack_task(http, agent, holder, each)
                continue
            if error == "not_held":
                self.tasks.append(NotHeld(holder, seq, time.monotonic()))

    async def _ack_task(self, http: HttpClient, agent: str, holder: str, task: _PulledItem) -> None:
        seq, entry = _seq_of(task), {"channel": task.channel, "seq": task.seq, "receipt": task.receipt}
        self.tasks.append(Acked(holder, seq, time.monotonic()))
        (error,) = await self._post(http, agent, "acks", [entry])
        if error is None:
            self.confirmed.append((len(self.tasks), TaskConfirmed(seq, time.monotonic(), holder)))
        elif error == "not_held":
            self.tasks.append(NotHeld(holder, seq, time.monotonic()))

    async def _post(
        self, http: HttpClient, agent: str, kind: str, entries: Sequence[object], epoch: str | None = None
    ) -> Sequence[str | None]:
        """Return the error code of each entry, or None if it is done."""
        body = {kind: entries} | ({} if epoch is None else {"epoch": epoch})
        outcomes = (await http.send(dict[str, list[_Outcome]], "POST", self._path(agent, "acks"), body))[kind]
        return [None if each.error is None else each.error.code for each in outcomes]

    def _path(self, agent: str, what: str) -> str:
        return path_of(self.cast.tenant, "agents", agent, what)


def _split(items: Sequence[_PulledItem]) -> tuple[list[_PulledItem], list[_PulledItem]]:
    """Return the queue messages of a page, and the others."""
    return [each for each in items if each.receipt is not None], [each for each in items if each.receipt is None]


def _seq_of(message: replies.Message) -> int:
    assert message.seq is not None
    return message.seq


def _number_of(message: replies.Message | KeptMessage) -> int:
    text = message.raw if isinstance(message, KeptMessage) else message.data
    number = msgspec.json.decode(bytes(text))["n"]
    assert isinstance(number, int)
    return number


def _entry_of(item: _PulledItem) -> Entry:
    data = bytes(item.data).decode()
    return Entry(item.channel, _seq_of(item), item.prev, item.message_id, item.sender, data)
