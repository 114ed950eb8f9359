"""Requests between agents with faults: two askers, and two agents that answer, one of them on two sockets.

`request_checker` judges what they saw.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from artcafe.wire import frames, replies
from tests.faults import bare_client
from tests.faults.request_checker import (
    Asked,
    AskerLeft,
    Closed,
    Ended,
    Handled,
    Opened,
    PartReceived,
    PartSent,
    RequestEvent,
    RequestHistory,
    Withdrawn,
    judge_requests,
)
from tests.faults.traffic import PAUSE_S, Traffic
from tests.faults.verdicts import Ruling

ASKERS: Final = (0, 1)
SOCKETS: Final = (2, 3, 3)
"""The agents that answer, once for each socket."""
AT_ONCE: Final = 6
PACE_S: Final = 0.04
SLACK_S: Final = 5.0
TIMEOUTS_S: Final = (1.0, 3.0)
MOST_PARTS: Final = 4
CANCELS: Final = 0.05
LEAVES: Final = 0.01
FORGETS: Final = 0.03
ANSWERS_LATE: Final = 0.1
ANSWERS_ON: Final = 0.05
"""The chances of a request's cancel, of a socket's end at a request, of no answer, of one after a while, and of one too many."""


class _Question(msgspec.Struct, frozen=True):
    """The data of a request."""

    number: int
    parts: int


class _Part(msgspec.Struct, frozen=True):
    """The data of an answer."""

    of: int
    part: int


@dataclass
class _Asker:
    """One connection of an asker."""

    connection: bare_client.BareClient
    waiting: dict[int, Asked] = field(default_factory=dict)
    """Requests without an end, by the id of their command."""


class RequestTraffic(Traffic):
    """Requests in one tenant. A step is a request that has ended."""

    name = "requests"
    agents = 4

    async def prepare(self) -> None:
        self.events: list[RequestEvent] = []
        self._numbers, self._connections = itertools.count(1), itertools.count(1)
        self._ids: dict[str, int] = {}
        """The number of each request that a socket holds, by its id."""
        self._askers: list[_Asker] = []

    @property
    def all_events(self) -> list[RequestEvent]:
        return self.events

    def work(self) -> Sequence[Coroutine[None, None, None]]:
        return [*(self._answer(agent) for agent in SOCKETS), *(self._ask(agent) for agent in ASKERS)]

    async def end(self, *, is_faulted: bool, stopped_s: float = 0.0) -> Ruling:
        del is_faulted  # Only a nats-server that servers cannot reach excuses something: an agent that is away.
        self.is_stopping = True
        await self.until(lambda: not any(asker.waiting for asker in self._askers), "end of every request")
        self.stop()
        return judge_requests(RequestHistory(self.events, SLACK_S + stopped_s, self.nats_cuts, self.nats_kills))

    # --- asking ---

    async def _ask(self, number: int) -> None:
        """Ask on one connection after another."""
        while not self.is_stopping:
            asker: _Asker | None = None
            try:
                async with bare_client.connected(self.platform.a_gateway(), self.cast, number) as connection:
                    asker = _Asker(connection)
                    self._askers.append(asker)
                    async with asyncio.TaskGroup() as group:
                        sending = group.create_task(self._send(asker))
                        group.create_task(self._receive(asker, sending))
            except* bare_client.GONE:
                await asyncio.sleep(PAUSE_S)
            finally:
                if asker is not None:
                    self._askers.remove(asker)
                    self.events += [AskerLeft(asked.number, time.monotonic()) for asked in asker.waiting.values()]

    async def _send(self, asker: _Asker) -> None:
        while not self.is_stopping:
            await asyncio.sleep(PACE_S)
            if len(asker.waiting) >= AT_ONCE:
                continue
            agent, parts = self.cast.agents[self.chance.choice(SOCKETS)], self.chance.randrange(1, MOST_PARTS)
            asked = Asked(next(self._numbers), agent, self.chance.choice(TIMEOUTS_S), parts, time.monotonic())
            id = asker.connection.new_id()
            asker.waiting[id] = asked
            self.events.append(asked)
            data = msgspec.Raw(msgspec.json.encode(_Question(asked.number, parts)))
            await asker.connection.send("request", frames.Request(agent, data, asked.timeout_s, max_replies=parts), id)
            if self.chance.random() < CANCELS:
                await asyncio.sleep(PACE_S)
                await asker.connection.cancel(id)

    async def _receive(self, asker: _Asker, sending: asyncio.Task[None]) -> None:
        while asker.waiting or not sending.done():
            try:
                async with asyncio.timeout(PAUSE_S):
                    frame = await asker.connection.receive()
            except TimeoutError:
                continue
            if frame.id is not None and frame.id in asker.waiting:
                self._take(asker, frame.id, frame)

    def _take(self, asker: _Asker, id: int, frame: replies.Incoming) -> None:
        """Record an answer to a request, and its end."""
        number, at, answer = asker.waiting[id].number, time.monotonic(), frame.request
        if answer is not None and isinstance(answer.data, msgspec.Raw):
            part = msgspec.json.decode(bytes(answer.data), type=_Part)
            self.events.append(PartReceived(number, part.of, part.part, at))
        if answer is None or not answer.more:
            error = frame.error
            code, delivered = ("answered", None) if error is None else (error.code, error.delivered)
            self.events.append(Ended(number, code, delivered, at))
            self.progress += 1
            del asker.waiting[id]

    # --- answering ---

    async def _answer(self, number: int) -> None:
        """Answer requests on one connection after another."""
        agent = self.cast.agents[number]
        while True:
            socket = f"{agent}/{next(self._connections)}"
            try:
                async with bare_client.connected(self.platform.a_gateway(), self.cast, number) as connection:
                    self.events.append(Opened(socket, agent, time.monotonic()))
                    try:
                        async with asyncio.TaskGroup() as group:
                            await self._handle_all(connection, socket, group)
                    finally:
                        self.events.append(Closed(socket, time.monotonic()))
            except* bare_client.GONE:
                await asyncio.sleep(PAUSE_S)

    async def _handle_all(self, connection: bare_client.BareClient, socket: str, group: asyncio.TaskGroup) -> None:
        while True:
            frame = await connection.receive()
            if frame.cancel is not None:
                self.events.append(Withdrawn(self._ids[frame.cancel.request_id], socket, time.monotonic()))
            if frame.request is None or not isinstance(frame.request.data, msgspec.Raw):
                continue
            question = msgspec.json.decode(bytes(frame.request.data), type=_Question)
            self._ids[frame.request.request_id] = question.number
            self.events.append(Handled(question.number, socket, time.monotonic()))
            fate = self.chance.random()
            if fate < LEAVES:
                connection.abort()
                raise ConnectionError("this socket leaves")
            if fate > LEAVES + FORGETS:
                is_late = fate < LEAVES + FORGETS + ANSWERS_LATE
                await self._reply(connection, socket, frame.request.request_id, question, group if is_late else None)

    async def _reply(
        self,
        connection: bare_client.BareClient,
        socket: str,
        request_id: str,
        question: _Question,
        later: asyncio.TaskGroup | None,
    ) -> None:
        """Send the answers to a request, now or after a while."""
        if later is not None:
            later.create_task(self._reply_late(connection, socket, request_id, question))
            return
        parts = question.parts + (self.chance.random() < ANSWERS_ON)
        for part in range(1, parts + 1):
            self.events.append(PartSent(question.number, socket, part, time.monotonic()))
            data = msgspec.Raw(msgspec.json.encode(_Part(question.number, part)))
            await connection.send("reply", frames.Reply(request_id, data, more=part < parts), connection.new_id())

    async def _reply_late(self, connection: bare_client.BareClient, socket: str, request_id: str, question: _Question) -> None:
        await asyncio.sleep(self.chance.choice([0.05, 0.5, 2.0]))
        await self._reply(connection, socket, request_id, question, None)
