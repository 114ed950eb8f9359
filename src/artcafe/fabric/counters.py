"""Exact counters shared by all servers: JetStream's own (nats-server 2.12, ADR-49), in the memory of NATS (decision record 41).

A counter is a subject; an addition is a published message whose acknowledgement carries the new total. NATS applies the additions
to a subject one after the other, also in a cluster, so each total is returned once: if 50 servers add 1 at once to a counter at
0, exactly one of them gets 10.

A counter expires when nothing was added for a time, and all counters are lost when the last NATS server of a cluster ends: then
every limit that is counted here begins anew. No row and no message depends on a counter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from artcafe.errors import ArtcafeError, LogRefused, NoResponder, QuotaFull
from artcafe.fabric.nats.client import IncomingMessage, OutgoingMessage
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.fabric.nats.jetstream import JetStream, check_answer, stream_message
from artcafe.observe.logs import log
from artcafe.rules.subjects import DAILY_COUNTERS, RECENT_COUNTERS, Subject

TIMEOUT_S: Final = 2.0
MAX_COUNTERS: Final = 1000
"""NATS's limit of subjects in one read."""


class CounterStream(NamedTuple):
    """A stream of counters with a common expiry."""

    name: str
    subjects: Subject
    expiry_s: int
    """A counter expires when nothing was added to it for this long."""
    max_bytes: int
    """Limit of NATS's memory, at about 150 bytes a counter. Above it the counters unused for longest are removed."""


RECENT: Final = CounterStream("counters-recent", RECENT_COUNTERS, 180, 16 << 20)
DAILY: Final = CounterStream("counters-daily", DAILY_COUNTERS, 24 * 3600, 32 << 20)
STREAMS: Final = (RECENT.name, DAILY.name)


class _Acknowledgement(msgspec.Struct):
    """The answer to an addition. `error` has the form of JetStream's API errors."""

    val: str = ""
    error: dict[str, object] | None = None


class _Total(msgspec.Struct):
    """The body that NATS stores for a counter."""

    val: str


_acknowledgement = msgspec.json.Decoder(_Acknowledgement)
_total = msgspec.json.Decoder(_Total)


class Counters:
    """The counters of one stream in the platform's account. Every method raises `Unavailable` while NATS is away.

    The caller decides what happens then, since a limit may fail open or closed.
    """

    def __init__(
        self,
        connection: NatsConnection,
        stream: CounterStream,
        renew_account: Callable[[], Awaitable[None]],
        *,
        replicas: int = 1,
    ) -> None:
        """`renew_account` pushes the platform account's JWT to NATS: one of an older version forbids streams in memory.

        `replicas` applies if the stream is created now.
        """
        self._connection, self._stream, self._renew_account, self.replicas = connection, stream, renew_account, replicas
        self._jetstream = JetStream(connection)
        self._creating = asyncio.Lock()

    async def add(self, counter: Subject, amount: int, *, timeout_s: float = TIMEOUT_S) -> int:
        """Add to a counter and return its new total; a negative amount subtracts. A missing counter is 0.

        Raises `Unavailable` if nothing was added, and `NatsConnectionLost` or `TimeoutError` if that is unknown: repeating the
        call then may add twice.
        """
        (total,) = await self.add_each([(counter, amount)], timeout_s=timeout_s)
        if isinstance(total, Exception):
            raise total
        return total

    async def add_each(
        self, additions: Sequence[tuple[Subject, int]], *, timeout_s: float = TIMEOUT_S
    ) -> list[int | ArtcafeError | TimeoutError]:
        """Add to several counters in one write, in this order. Return each new total, or the exception that `add` would raise.

        Raises `Unavailable` or `NatsConnectionLost` instead if that happened to all of them.
        """
        messages = [OutgoingMessage(counter, f"Nats-Incr: {amount:+d}\r\n", b"") for counter, amount in additions]
        answers = await self._connection.request_each(messages, timeout_s=timeout_s)
        missing = [index for index, answer in enumerate(answers) if isinstance(answer, NoResponder)]
        if missing:  # no stream, or one without a leader; nothing was added
            await self._create()
            again = await self._connection.request_each([messages[index] for index in missing], timeout_s=timeout_s)
            for index, answer in zip(missing, again, strict=True):
                answers[index] = answer
        return [_outcome(answer) for answer in answers]

    async def totals(self, counters: list[Subject]) -> dict[Subject, int]:
        """Return the totals of at most `MAX_COUNTERS` counters; a missing counter has none.

        In a cluster the answer may be that of a replica that lacks the additions of the last moments.
        """
        found = await self._jetstream.get_direct(self._stream.name, {"multi_last": counters})
        return {each.subject: int(_total.decode(each.data).val) for each in map(stream_message, found)}

    async def raise_replicas(self) -> None:
        """Raise the stream's number of replicas, never lower it. Ignore a missing stream. May be repeated."""
        await self._jetstream.raise_replicas(self._stream.name, self.replicas)

    async def _create(self) -> None:
        """Create the stream unless it exists. May be repeated, also concurrently."""
        async with self._creating:
            # NATS checks the memory of a stream before its name, so creating it again could be refused for lack of memory.
            if await self._jetstream.info(self._stream.name) is not None:
                return
            try:
                await self._jetstream.create(self._config())
            except (LogRefused, QuotaFull) as exc:
                if await self._jetstream.info(self._stream.name) is not None:  # created by another server meanwhile
                    return
                log.info("counters.account_renewed", stream=self._stream.name, reason=str(exc))
                await self._renew_account()
                await self._jetstream.create(self._config())

    def _config(self) -> dict[str, object]:
        return {
            "name": self._stream.name,
            "subjects": [self._stream.subjects],
            "allow_msg_counter": True,
            "allow_direct": True,
            "storage": "memory",  # A flush to disk for each addition would cost more than the publish that it counts.
            "retention": "limits",  # Counters require it, and `discard: old`.
            "discard": "old",
            "max_msgs_per_subject": 1,
            "max_age": self._stream.expiry_s * 1_000_000_000,
            "max_bytes": self._stream.max_bytes,
            "num_replicas": self.replicas,
        }


def _outcome(answer: IncomingMessage | Exception) -> int | ArtcafeError | TimeoutError:
    if isinstance(answer, NoResponder):
        return unreachable()
    if isinstance(answer, ArtcafeError | TimeoutError):
        return answer
    if isinstance(answer, Exception):
        raise answer
    read = _acknowledgement.decode(answer.data)
    try:
        check_answer({"error": read.error} if read.error else {})
    except NoResponder:  # a cluster that is not ready
        return unreachable()
    except ArtcafeError as exc:
        return exc
    return int(read.val)
