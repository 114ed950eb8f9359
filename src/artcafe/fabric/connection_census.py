"""The open connections of a tenant on the other servers, asked for in turns, so that a limit over all servers is exact.

A server that wants to admit connections asks all others, and admits while their counts and its own stay within the limit. Two
servers that ask about one tenant at once do so one after the other, by the algorithm of Ricart and Agrawala (1981): each question
has a logical time, and a server with an earlier question of its own answers a later one only when it has decided. Nothing is
stored, so the connections of a server that has ended count no more as soon as it does not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

import msgspec
from nats.aio.msg import Msg

from artcafe.errors import OurFault
from artcafe.fabric.nats.client import OutgoingMessage
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.model import TenantId
from artcafe.observe.logs import log
from artcafe.rules.subjects import CENSUS, census_answers
from artcafe.supervision import Supervisor

ANSWER_S: Final = 0.5
"""How long to wait for the other servers. The connections of a server without an answer by then are not counted."""
SUSPECT_S: Final = 5.0
"""How long a server that did not answer is not waited for, unless it is heard. `announcements` notices its end before."""
RETRY_S: Final = 0.2

Count = Callable[[TenantId, Sequence[str]], tuple[int, list[int]]]
"""Return the open connections of a tenant on this server, and of each of these principals of it."""


class CensusQuestion(msgspec.Struct, frozen=True, array_like=True):
    """A server's question about a tenant and some of its principals. `number` and `server` order all questions."""

    number: int
    server: str
    tenant_id: TenantId
    names: list[str]

    @property
    def order(self) -> tuple[int, str]:
        return self.number, self.server


class CensusAnswer(msgspec.Struct, frozen=True, array_like=True):
    """The connections on the answering server: of the tenant, and of each principal in the question's order."""

    to: int
    server: str
    connections: int
    of_each: list[int]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The connections on all other servers: of a tenant, and of the principals asked for."""

    connections: int
    of_each: Mapping[str, int]


_encode = msgspec.json.Encoder().encode
_questions = msgspec.json.Decoder(CensusQuestion)
_answers = msgspec.json.Decoder(CensusAnswer)


class _Round:
    """This server's question in progress, and the questions of others to answer when it has decided."""

    def __init__(self, question: CensusQuestion, awaited: set[str]) -> None:
        self.question, self.awaited = question, awaited
        self.answers: list[CensusAnswer] = []
        self.deferred: list[CensusQuestion] = []
        self.complete = asyncio.Event()

    def take(self, answer: CensusAnswer) -> None:
        if answer.server in self.awaited:
            self.awaited.remove(answer.server)
            self.answers.append(answer)
            if not self.awaited:
                self.complete.set()

    def elsewhere(self) -> Elsewhere:
        names = self.question.names
        counts = [sum(answer.of_each[index] for answer in self.answers) for index in range(len(names))]
        return Elsewhere(sum(answer.connections for answer in self.answers), dict(zip(names, counts, strict=True)))


class ConnectionCensus:
    """This server's questions to the others, and its answers."""

    def __init__(
        self, connection: NatsConnection, server: str, peers: Callable[[], set[str]], *, answer_s: float = ANSWER_S
    ) -> None:
        """`connection` is in the platform's account; `server` is this server's unique name; `peers` returns those of the others
        that run."""
        self._connection, self._server, self._peers, self._answer_s = connection, server, peers, answer_s
        self._count: Count = lambda _, names: (0, [0] * len(names))
        self._number = 0
        self._rounds: dict[TenantId, _Round] = {}
        self._by_number: dict[int, _Round] = {}
        self._turns: WeakValueDictionary[TenantId, asyncio.Lock] = WeakValueDictionary()
        """The turns of a tenant among the callers of this server, while one of them needs it."""
        self._suspects: dict[str, float] = {}
        self._is_listening = False
        self.supervisor = Supervisor("connection_census")

    def set_count(self, count: Count) -> None:
        """Answer the others by `count`."""
        self._count = count

    @property
    def is_alone(self) -> bool:
        """Whether no other server is known to run."""
        return not self._peers()

    async def run(self) -> None:
        """Listen to the other servers, over this connection and later ones. Retry until it succeeds."""
        while not self._is_listening:
            try:
                await self._connection.wait_up()
                await self._connection.subscribe(census_answers(self._server), self._on_answer)
                await self._connection.subscribe(CENSUS, self._on_question)
                self._is_listening = True
            except OurFault as exc:
                log.debug("connection_census.disconnected", error=repr(exc))
                await asyncio.sleep(RETRY_S)

    @asynccontextmanager
    async def turn(self, tenant_id: TenantId, names: Callable[[], list[str]]) -> AsyncIterator[Elsewhere]:
        """Hold the fleet's turn for a tenant, and yield its connections elsewhere.

        `names` is called when the turn begins; without any, nobody is asked. What the block admits is seen by the next turn, on
        any server. While NATS is away nothing is counted elsewhere.
        """
        async with self._turns.setdefault(tenant_id, asyncio.Lock()):
            asked = names()
            if not asked:
                yield Elsewhere(0, {})
                return
            self._number += 1
            question = CensusQuestion(self._number, self._server, tenant_id, asked)
            now = time.monotonic()
            self._suspects = {peer: until for peer, until in self._suspects.items() if until > now}
            begun = _Round(question, self._peers() - self._suspects.keys())
            self._rounds[tenant_id] = self._by_number[question.number] = begun
            try:
                await self._ask(begun)
                yield begun.elsewhere()
            finally:
                del self._rounds[tenant_id], self._by_number[question.number]
                for deferred in begun.deferred:
                    await self._answer(deferred)

    async def _ask(self, begun: _Round) -> None:
        if not begun.awaited:
            return
        try:
            await self._connection.send(OutgoingMessage(CENSUS, "", _encode(begun.question)))
            async with asyncio.timeout(self._answer_s):
                await begun.complete.wait()
        except OurFault as exc:
            log.debug("connection_census.not_asked", error=repr(exc))
        except TimeoutError:
            log.info("connection_census.no_answer", servers=sorted(begun.awaited))
            until = time.monotonic() + SUSPECT_S
            self._suspects.update(dict.fromkeys(begun.awaited, until))

    async def _on_question(self, msg: Msg) -> None:
        with self.supervisor.contain():
            question = _questions.decode(msg.data)
            if question.server == self._server:
                return
            self._suspects.pop(question.server, None)
            self._number = max(self._number, question.number)
            mine = self._rounds.get(question.tenant_id)
            if mine is not None and mine.question.order < question.order:
                mine.deferred.append(question)
            else:
                await self._answer(question)

    async def _answer(self, question: CensusQuestion) -> None:
        connections, of_each = self._count(question.tenant_id, question.names)
        answer = CensusAnswer(question.number, self._server, connections, of_each)
        with contextlib.suppress(OurFault):  # the other server stops waiting
            await self._connection.send(OutgoingMessage(census_answers(question.server), "", _encode(answer)))

    async def _on_answer(self, msg: Msg) -> None:
        with self.supervisor.contain():
            answer = _answers.decode(msg.data)
            self._suspects.pop(answer.server, None)
            begun = self._by_number.get(answer.to)
            if begun is not None:
                begun.take(answer)
