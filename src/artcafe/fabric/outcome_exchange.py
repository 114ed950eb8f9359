"""What the servers of a fleet know of messages of queues: who holds them, and who acknowledged them lately.

It is asked for only while a server looks up receipts. Each server that has delivered a queue of the tenant has one subject in the
tenant's account. Another one has none, so that NATS reports at once that it knows nothing. Nothing is stored, and an answer may
be lost (decision record 64).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

import msgspec

from artcafe.errors import NoResponder, OurFault
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.server_exchange import ANSWER_S, ServerExchange
from artcafe.model import AgentId, ChannelId, Epoch, Seq
from artcafe.observe.logs import log
from artcafe.rules import subjects


class OutcomeQuestion(msgspec.Struct, frozen=True, array_like=True):
    """Messages by channel and sequence, in the log of this epoch. `with_waiting`: also those that a server has, and that wait for
    a holder there."""

    epoch: Epoch | None
    wanted: dict[ChannelId, list[Seq]]
    with_waiting: bool = False


class KnownOutcome(msgspec.Struct, frozen=True, array_like=True):
    """A message that an agent holds, or has acknowledged lately. `agent` is empty for one that waits for a holder."""

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


class OutcomeExchange(ServerExchange):
    """What the servers know of a tenant's queues. A server answers once it has delivered one of them."""

    def __init__(self, connection: NatsConnection, server: str) -> None:
        """`server` is this server's unique name."""
        super().__init__(connection, server, "outcomes", subjects.outcomes(server))
        self.read: ReadOutcomes = _nothing
        """Reads what this server knows."""

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

    def _answer(self, question: bytes) -> bytes:
        return _encode(list(self.read(_questions.decode(question))))
