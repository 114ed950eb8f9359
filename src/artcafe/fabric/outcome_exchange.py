"""What the servers of a fleet know of messages of queues: who holds them, and who acknowledged them lately.

It is asked for only while a server looks up receipts. Each server that has delivered a queue of the tenant has one subject in the
tenant's account. Another one has none, so that NATS reports at once that it knows nothing. Nothing is stored, and an answer may
be lost (decision record 64).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec
from nats.aio.msg import Msg

from artcafe.errors import NoResponder, OurFault
from artcafe.fabric.nats.client import OutgoingMessage
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.model import AgentId, ChannelId, Epoch, Seq
from artcafe.observe.logs import log
from artcafe.rules import subjects
from artcafe.rules.subjects import Subject
from artcafe.supervision import Supervisor

ANSWER_S: Final = 0.5
"""Longest wait for another server. What one without an answer by then holds is unknown."""
RETRY_S: Final = 0.2


class OutcomeQuestion(msgspec.Struct, frozen=True, array_like=True):
    """Messages by channel and sequence, in the log of this epoch."""

    epoch: Epoch | None
    wanted: dict[ChannelId, list[Seq]]


class KnownOutcome(msgspec.Struct, frozen=True, array_like=True):
    """A message that an agent holds, or has acknowledged lately."""

    channel: ChannelId
    seq: Seq
    agent: AgentId
    is_acked: bool


ReadOutcomes = Callable[[OutcomeQuestion], Sequence[KnownOutcome]]

_encode = msgspec.json.Encoder().encode
_questions = msgspec.json.Decoder(OutcomeQuestion)
_answers = msgspec.json.Decoder(list[KnownOutcome])


def _nothing(_: OutcomeQuestion) -> Sequence[KnownOutcome]:
    return ()


class OutcomeExchange:
    """One tenant's questions to the other servers, and this server's answers once it has delivered a queue of the tenant."""

    def __init__(self, connection: NatsConnection, server: str) -> None:
        """`server` is this server's unique name."""
        self._connection, self._server = connection, server
        self._wanted = asyncio.Event()
        self.read: ReadOutcomes = _nothing
        """Reads what this server knows."""
        self.supervisor = Supervisor("outcomes")

    def answer_others(self) -> None:
        """Answer from now on, because this server delivers a queue of the tenant. May be repeated."""
        self._wanted.set()

    async def run(self) -> None:
        """Subscribe to questions, over this connection and later ones. Retry until it succeeds."""
        await self._wanted.wait()
        while True:
            try:
                await self._connection.wait_up()
                await self._connection.subscribe(subjects.outcomes(self._server), self._on_question)
            except OurFault as exc:
                log.debug("outcomes.disconnected", error=repr(exc))
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def ask(self, question: OutcomeQuestion, servers: Collection[str]) -> tuple[list[KnownOutcome], bool]:
        """Return what these servers know, and whether each of them has answered or knows nothing. Raise nothing."""
        body = _encode(question)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._ask_one(server, body)) for server in servers]
        answers = [each.result() for each in asked]
        return [known for answer in answers for known in answer or ()], None not in answers

    async def _ask_one(self, server: str, body: bytes) -> list[KnownOutcome] | None:
        """Return what a server knows, or None without an answer."""
        try:
            answer = await self._connection.request(subjects.outcomes(server), body, timeout_s=ANSWER_S)
            return _answers.decode(answer.data)
        except NoResponder:
            return []
        except (OurFault, TimeoutError, msgspec.DecodeError) as exc:
            log.debug("outcomes.no_answer", server=server, error=repr(exc))
            return None

    async def _on_question(self, msg: Msg) -> None:
        with self.supervisor.contain():
            answer = _encode(list(self.read(_questions.decode(msg.data))))
            try:
                await self._connection.send(OutgoingMessage(Subject(msg.reply), "", answer))
            except OurFault as exc:  # The other server stops waiting.
                log.debug("outcomes.not_answered", error=repr(exc))
