"""Requests between the servers of one tenant, over core NATS in its account. Nothing is stored, and no message is sent twice.

Each server with agents of the tenant has one subscription, not one for each agent: the asking server chooses another server by
the presence of the agent (`presence_registry`), and that one chooses the connection. A server that has ended has no subscription,
so NATS reports at once that nobody can take the request. Answers go to an inbox of the asking server's connection, which outlives
a lost connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Literal

import msgspec
from nats.aio.msg import Msg

from artcafe.errors import OurFault
from artcafe.fabric.nats.client import IncomingMessage, OutgoingMessage
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.model import AgentId
from artcafe.rules import subjects
from artcafe.rules.subjects import Subject
from artcafe.supervision import Supervisor

CancelReason = Literal["cancelled", "asker_away", "timed_out", "max_replies"]
RefusalReason = Literal["away", "busy", "left"]
"""No connection of the agent takes requests; each has as many as it takes; the connection with the request has ended."""


NULL: Final = msgspec.Raw(b"null")


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """A request to an agent on the receiving server."""

    request_id: str
    answers: str
    """The inbox of the asking server for the answers."""
    agent: AgentId
    sender: str
    timeout_s: float
    headers: Mapping[str, str] | None
    max_replies: int
    data: msgspec.Raw


class Withdraw(msgspec.Struct, frozen=True, array_like=True, tag="withdraw"):
    """A request that needs no answer any more."""

    request_id: str
    reason: CancelReason


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """An answer of the agent: data, or its error as code and message. Without both it only ends the answers."""

    has_more: bool
    has_data: bool
    data: msgspec.Raw = NULL
    error: tuple[str, str] | None = None


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag="refusal"):
    """The end of a request without a last answer."""

    reason: RefusalReason


Incoming = Ask | Withdraw
Outcome = Answer | Refusal

_encode: Final = msgspec.json.Encoder().encode
_incoming: Final = msgspec.json.Decoder(Incoming)
_outcomes: Final = msgspec.json.Decoder(Outcome)

OnOutcome = Callable[[Outcome | OurFault], None]
"""Receives each answer or refusal, or the fault because of which the request was not sent."""


class RequestExchange:
    """One tenant's requests from this server to others, and from others to this server."""

    def __init__(self, connection: NatsConnection, server: str, on_incoming: Callable[[Incoming], None]) -> None:
        """`server` is this server's unique name. `on_incoming` is called with what other servers send."""
        self._connection, self._server, self._on_incoming = connection, server, on_incoming
        self._is_open = False
        self._unsent: list[tuple[bytes, OnOutcome | None]] = []
        self._due = asyncio.Event()
        self.supervisor = Supervisor("requests")

    @property
    def is_up(self) -> bool:
        """Whether messages can be sent now."""
        return self._connection.is_up

    async def open(self) -> None:
        """Take the requests of other servers from here on, over this connection and later ones. May be repeated. Raise
        `Unavailable`."""
        if not self._is_open:
            await self._connection.subscribe(subjects.requests(self._server), self._fall_back, self._take)
            self._is_open = True

    async def run(self) -> None:
        """Send messages until cancelled, those of a turn of the event loop in one write."""
        while True:
            await self._due.wait()
            self._due.clear()
            unsent, self._unsent = self._unsent, []
            try:
                await self._connection.send_encoded(b"".join(encoded for encoded, _ in unsent))
            except OurFault as exc:
                for _, on_outcome in unsent:
                    with self.supervisor.contain():
                        if on_outcome is not None:
                            on_outcome(exc)

    # --- the asking server --------------------------------------------------------------------------------------------

    def open_inbox(self, on_outcome: OnOutcome) -> Subject:
        """Return an inbox for the answers to one request. NATS's report that nobody takes the request is a refusal."""

        def deliver(got: IncomingMessage | OurFault) -> None:
            with self.supervisor.contain():
                if isinstance(got, OurFault):
                    on_outcome(got)
                elif got.status == 503:
                    on_outcome(Refusal("away"))
                else:
                    on_outcome(_outcomes.decode(got.data))

        return self._connection.replies.open_inbox(deliver)

    def close_inbox(self, inbox: Subject) -> None:
        """Ignore further answers. May be repeated."""
        self._connection.replies.close_inbox(inbox)

    def ask(self, server: str, ask: Ask, on_outcome: OnOutcome) -> None:
        """Send a request to a server. `on_outcome` gets the fault if it was not sent, or if that is uncertain."""
        message = OutgoingMessage(subjects.requests(server), "", _encode(ask))
        self._post(message.encoded(ask.answers), on_outcome)

    def withdraw(self, server: str, withdraw: Withdraw) -> None:
        """Notify a server that a request needs no answer any more."""
        self._post(OutgoingMessage(subjects.requests(server), "", _encode(withdraw)).encoded(), None)

    # --- the answering server -----------------------------------------------------------------------------------------

    def answer(self, inbox: str, outcome: Outcome) -> None:
        """Send an answer or a refusal to the asking server. Raise `Unavailable` without a connection: nothing was sent."""
        if not self._connection.is_up:
            raise unreachable()
        self._post(OutgoingMessage(Subject(inbox), "", _encode(outcome)).encoded(), None)

    def _post(self, encoded: bytes, on_outcome: OnOutcome | None) -> None:
        self._unsent.append((encoded, on_outcome))
        self._due.set()

    async def _fall_back(self, msg: Msg) -> None:
        self._take(IncomingMessage(msg.data, None))

    def _take(self, incoming: IncomingMessage) -> bool:
        with self.supervisor.contain():
            self._on_incoming(_incoming.decode(incoming.data))
        return True
