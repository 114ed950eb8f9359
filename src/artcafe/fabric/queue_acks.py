"""Acks of queue messages: their bodies, and sending them in batches."""

from __future__ import annotations

import asyncio
import time
from typing import Final, NamedTuple

from artcafe.errors import NatsConnectionLost, NoResponder, Unavailable
from artcafe.fabric.nats.client import OutgoingMessage
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.rules.subjects import Subject

BATCH: Final = 1024
"""Acks in one write to NATS, of which the last one is answered."""
ANSWER_S: Final = 4.0

ACK: Final = b"+ACK"
TERM: Final = b"+TERM"
PROGRESS: Final = b"+WPI"


def nak_body(delay_s: float) -> bytes:
    """Return the body that gives a message back, to be delivered again after a time."""
    return b'-NAK {"delay":%d}' % int(delay_s * 1e9) if delay_s > 0 else b"-NAK"


class _Outgoing(NamedTuple):
    """An ack or nak to be sent. It is dropped after `until` of the monotonic clock, unless it is None."""

    subject: Subject
    body: bytes
    until: float | None


class QueueAcks:
    """The acks and naks of one queue that wait to be sent, in their order."""

    __slots__ = ("_connection", "_outgoing", "_put", "_sent", "_waiting")

    def __init__(self, connection: NatsConnection) -> None:
        self._connection = connection
        self._outgoing: list[_Outgoing] = []
        self._put = self._sent = 0
        """How many were put, and how many of them are confirmed or dropped."""
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        """Callers of `flushed`, with the number that they wait for."""

    def __len__(self) -> int:
        return len(self._outgoing)

    def put(self, subject: Subject, body: bytes, until: float | None) -> None:
        """Add one to be sent, unless that is possible only after `until` of the monotonic clock."""
        self._outgoing.append(_Outgoing(subject, body, until))
        self._put += 1

    def clear(self) -> None:
        """Drop all."""
        self._count_sent(len(self._outgoing))
        self._outgoing.clear()

    async def send(self, behind: bytes = b"") -> None:
        """Send the next ones in one write, and the encoded messages `behind` them. Return once NATS has processed the acks.

        Acks without an answer are sent again, which changes nothing if they arrived; naks are not, because another subscriber
        may hold the message since.
        """
        now = time.monotonic()
        taken = self._outgoing[:BATCH]
        del self._outgoing[:BATCH]
        due = [each for each in taken if each.until is None or now < each.until]
        self._count_sent(len(taken) - len(due))
        if not due:
            if behind:
                await self._connection.send_encoded(behind)
            return
        acks = [OutgoingMessage(each.subject, "", each.body) for each in due]
        try:
            await self._connection.request_last(acks, behind=behind, timeout_s=ANSWER_S)
        except Unavailable:
            self._outgoing[:0] = due
            raise
        except (NatsConnectionLost, TimeoutError, NoResponder):
            kept = [each for each in due if each.until is None]
            self._outgoing[:0] = kept
            self._count_sent(len(due) - len(kept))
            raise
        self._count_sent(len(due))

    async def flushed(self) -> None:
        """Return once all of them so far are confirmed or dropped. Raise `Unavailable` after `ANSWER_S`."""
        if self._sent >= self._put:
            return
        flushed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._put, flushed))
        try:
            async with asyncio.timeout(ANSWER_S):
                await flushed
        except TimeoutError as exc:
            raise unreachable() from exc

    def _count_sent(self, count: int) -> None:
        self._sent += count
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for number, flushed in waiting:
            if number > self._sent:
                self._waiting.append((number, flushed))
            elif not flushed.done():
                flushed.set_result(None)
