"""How far the servers of a fleet have delivered to a tenant's agents: asked for only while a server follows receipts.

Cursors and the positions of sockets are in the memory of the server that holds the socket. A question names channels and agents;
every server that holds one of them answers with their positions. Nothing is stored, and an answer may be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from artcafe.errors import OurFault
from artcafe.fabric.nats.client import IncomingMessage
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.server_exchange import ANSWER_S, ServerExchange
from artcafe.model import AgentId, ChannelId, Epoch, Seq
from artcafe.observe.logs import log
from artcafe.rules.subjects import POSITIONS_ASK

MAX_SOCKETS: Final = 8
"""Positions of one agent in one channel that a server answers with."""

Wanted = Mapping[ChannelId, Collection[AgentId]]


class AgentPosition(msgspec.Struct, frozen=True, array_like=True):
    """An agent in a channel on one server: the last ack known there, and for each socket the messages that it was sent: those
    above the first number, up to the second."""

    channel: ChannelId
    agent: AgentId
    epoch: Epoch | None
    acked: Seq
    sent: list[tuple[Seq, Seq]]


class PositionQuestion(msgspec.Struct, frozen=True, array_like=True):
    server: str
    wanted: dict[ChannelId, list[AgentId]]


class PositionAnswer(msgspec.Struct, frozen=True, array_like=True):
    server: str
    positions: list[AgentPosition]


ReadPositions = Callable[[Wanted], Sequence[AgentPosition]]

_encode = msgspec.json.Encoder().encode
_questions = msgspec.json.Decoder(PositionQuestion)
_answers = msgspec.json.Decoder(PositionAnswer)


def _nothing(_: Wanted) -> Sequence[AgentPosition]:
    return ()


class PositionExchange(ServerExchange):
    """Where the agents of a tenant are in their channels. A server answers once it has held one of them."""

    def __init__(self, connection: NatsConnection, server: str) -> None:
        """`server` is this server's unique name."""
        super().__init__(connection, server, "position_exchange", POSITIONS_ASK)
        self.read: ReadPositions = _nothing
        """Reads the positions on this server."""

    async def ask(self, wanted: Wanted, servers: Collection[str]) -> tuple[list[AgentPosition], set[str]]:
        """Return the positions of agents on these servers, and the names of those that answered. Raise nothing."""
        answered: set[str] = set()
        positions: list[AgentPosition] = []

        def take(message: IncomingMessage) -> bool:
            with self.supervisor.contain():
                answer = _answers.decode(message.data)
                answered.add(answer.server)
                positions.extend(answer.positions)
            return answered.issuperset(servers)

        question = PositionQuestion(self._server, {channel_id: list(agents) for channel_id, agents in wanted.items()})
        try:
            await self._connection.request_all(POSITIONS_ASK, _encode(question), within_s=ANSWER_S, is_enough=take)
        except OurFault as exc:
            log.debug("position_exchange.not_asked", error=repr(exc))
        return positions, answered

    def _answer(self, question: bytes) -> bytes | None:
        asked = _questions.decode(question)
        if asked.server == self._server:
            return None
        return _encode(PositionAnswer(self._server, list(self.read(asked.wanted))))
