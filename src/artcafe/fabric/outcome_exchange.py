"""Ask the servers of a fleet who holds messages of queues, and who has acknowledged them lately.

A server asks for receipts, and for queue messages after a lost connection to NATS. A server that has delivered from a queue of
the tenant has one subject in the tenant's account; for any other one NATS reports at once that nobody answers. Nothing is stored,
and an answer may be lost (decision records 64 and 74).
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
    """Messages by channel and sequence, in the log of this epoch. `with_waiting`: the answer also has messages that wait for a
    holder."""

    epoch: Epoch | None
    wanted: dict[ChannelId, list[Seq]]
    with_waiting: bool = False


class KnownOutcome(msgspec.Struct, frozen=True, array_like=True):
    """A message held by an agent, or acknowledged lately. `agent` is empty for a message that waits for a holder."""

    channel: ChannelId
    seq: Seq
    agent: AgentId
    is_acked: bool


ReadOutcomes = Callable[[OutcomeQuestion], Sequence[KnownOutcome]]
"""Return the outcomes that this server knows."""

_encode = msgspec.json.Encoder().encode
_questions = msgspec.json.Decoder(OutcomeQuestion)
_answers = msgspec.json.Decoder(list[KnownOutcome])


def _nothing(_: OutcomeQuestion) -> Sequence[KnownOutcome]:
    return ()


class OutcomeExchange(ServerExchange):
    """One tenant's questions about queue messages, and this server's answers once it has delivered from a queue."""

    def __init__(self, connection: NatsConnection, server: str) -> None:
        """`server` is this server's unique name."""
        super().__init__(connection, server, "outcomes", subjects.outcomes(server))
        self.read: ReadOutcomes = _nothing

    async def ask(self, question: OutcomeQuestion, servers: Collection[str]) -> tuple[list[KnownOutcome], bool]:
        """Ask these servers. Return the outcomes they know, and whether none of them has failed to answer. Raise nothing."""
        body = _encode(question)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._ask_one(server, body)) for server in servers]
        answers = [each.result() for each in asked]
        return [known for answer in answers for known in answer or ()], None not in answers

    async def _ask_one(self, server: str, body: bytes) -> list[KnownOutcome] | None:
        """Return the outcomes known to a server, or None if it did not answer."""
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
