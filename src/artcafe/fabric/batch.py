"""Group commit: what waits while one atomic batch is in flight makes up the next. Answers each message with where it was stored.

One loop a tenant and server (design, decision 3): with every write flushed to disk before its acknowledgement, sharing the flush is
what makes publishing fast, and one batch in flight at a time is what keeps a connection's messages in order.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from nats.aio.msg import Msg

from artcafe.errors import KeyReused, NotStored, OurFault, OutcomeUnknown, QuotaFull, Unavailable
from artcafe.fabric.link import LinkLost, NoResponder
from artcafe.fabric.streams import LogRefused, TenantLog, refusal
from artcafe.observe import log
from artcafe.rules.subjects import Subject
from artcafe.wire.frames import PublishReply, parse_envelope

BATCH_MESSAGES: Final = 500
"""NATS takes 1,000; more than 500 gained nothing."""
BATCH_BYTES: Final = 4 << 20
WAITING_MESSAGES: Final = 20_000
WAITING_BYTES: Final = 64 << 20
"""When so much waits, NATS is not keeping up, and a publish is refused at once with `not_stored` instead of growing the queue."""
PATIENCE_S: Final = 10.0
"""How long a message is tried before its publisher is told; less than the 30 s after which the SDK gives up."""
ANSWER_S: Final = 4.0
PAUSE_S: Final = 0.05

DUPLICATE_IN_BATCH: Final = 10201
DUPLICATE_IN_PROCESS: Final = 10158
"""A replicated stream is just storing the same id: its outcome will be known in a moment."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A message on its way. `twins` are repeats of the same key that came while it waited."""

    subject: Subject
    envelope: bytes
    message_id: str
    dedupe_id: str | None
    done: asyncio.Future[PublishReply]
    until: float
    twins: list[Waiting] = field(default_factory=list)

    def headers(self) -> dict[str, str]:
        return {"Nats-Msg-Id": self.dedupe_id} if self.dedupe_id else {}

    def stored(self, seq: int) -> None:
        """It stands at `seq`, and its twins are repeats of it."""
        if not self.done.done():
            self.done.set_result(PublishReply(seq, self.message_id, duplicate=False))
        for twin in self.twins:
            twin.repeats(self.envelope, seq)

    def repeats(self, first: bytes | None, seq: int) -> None:
        """Its key was used before: for the message of envelope `first` at `seq`, or for one that has been removed since, of
        which nothing but the sequence is left to tell."""
        if self.done.done():
            return
        if first is None:
            self.done.set_result(PublishReply(seq, None, duplicate=True))
        elif same_content(first, self.envelope):
            self.done.set_result(PublishReply(seq, parse_envelope(first).message_id, duplicate=True))
        else:
            self.done.set_exception(KeyReused())

    def fail(self, error: Exception) -> None:
        for one in (self, *self.twins):
            if not one.done.done():
                one.done.set_exception(error)


class GroupCommit:
    """The one writer of a tenant's log on this server."""

    def __init__(self, log: TenantLog) -> None:
        self._log = log
        self._waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._exists = False

    def submit(
        self, subject: Subject, envelope: bytes, message_id: str, dedupe_id: str | None
    ) -> asyncio.Future[PublishReply]:
        """Puts a message in the queue, in the order of the calls.

        The future ends with the reply once the message is flushed to disk (or committed by a majority), or with `NotStored`,
        `QuotaFull` or `KeyReused` (it was not stored), or `OutcomeUnknown`.
        """
        done: asyncio.Future[PublishReply] = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= WAITING_MESSAGES or self._waiting_bytes >= WAITING_BYTES:
            done.set_exception(NotStored())
            return done
        self._waiting.append(Waiting(subject, envelope, message_id, dedupe_id, done, time.monotonic() + PATIENCE_S))
        self._waiting_bytes += len(envelope)
        self._wake.set()
        return done

    async def run(self) -> None:
        """Commits group after group until cancelled; what is left then is answered, never forgotten."""
        group: list[Waiting] = []
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while group := self._take():
                    await self._commit(group)
        finally:
            for waiting in group:
                waiting.fail(OutcomeUnknown())
            for waiting in self._waiting:
                waiting.fail(NotStored())

    def _take(self) -> list[Waiting]:
        """The next group, in order; a repeat of a key joins its first as a twin."""
        group: list[Waiting] = []
        firsts: dict[str, Waiting] = {}
        size = 0
        while self._waiting and len(group) < BATCH_MESSAGES and size < BATCH_BYTES:
            one = self._waiting.popleft()
            size += len(one.envelope)
            if one.dedupe_id is not None:
                first = firsts.setdefault(one.dedupe_id, one)
                if first is not one:
                    first.twins.append(one)
                    continue
            group.append(one)
        self._waiting_bytes -= size
        return group

    async def _commit(self, group: list[Waiting]) -> None:
        """Settles every member of a group, trying again as long as that is safe and their patience lasts."""
        while group:
            try:
                await self._log.link.wait_up(max(0.0, group[0].until - time.monotonic()))
                if not self._exists:
                    await self._log.ensure()
                    self._exists = True
                await (self._store_one(group[0]) if len(group) == 1 else self._store_many(group))
                return
            except (LinkLost, TimeoutError):
                group = self._known_unknowns(group)
            except (NoResponder, Unavailable) as exc:
                self._exists = False
                group = self._out_of_patience(group, exc)
                await asyncio.sleep(PAUSE_S)
            except (LogRefused, QuotaFull) as exc:
                log.warning("publish.refused", error=str(exc), messages=len(group))
                for one in group:
                    one.fail(exc if isinstance(exc, QuotaFull) else NotStored())
                return

    @staticmethod
    def _known_unknowns(group: list[Waiting]) -> list[Waiting]:
        """After a lost answer: only a message with a key may be sent again; of the others the outcome stays unknown."""
        again = []
        for one in group:
            if one.dedupe_id is not None and time.monotonic() < one.until:
                again.append(one)
            else:
                one.fail(OutcomeUnknown())
        return again

    @staticmethod
    def _out_of_patience(group: list[Waiting], exc: OurFault) -> list[Waiting]:
        """After a request that nobody took: nothing was stored, so all may be tried again while patience lasts."""
        if time.monotonic() < group[0].until:
            return group
        log.warning("publish.unavailable", error=str(exc), messages=len(group))
        for one in group:
            one.fail(NotStored())
        return []

    async def _store_one(self, one: Waiting) -> None:
        msg = await self._log.link.request(one.subject, one.envelope, one.headers(), timeout_s=ANSWER_S)
        answer = decode(msg)
        if (answer.get("error") or {}).get("err_code") == DUPLICATE_IN_PROCESS:
            raise NoResponder()  # nothing was stored by this try, and the next one will find the first's outcome
        refusal(answer)
        if not answer.get("duplicate"):
            one.stored(answer["seq"])
            return
        first = await self._log.read(answer["seq"])
        for repeat in (one, *one.twins):
            repeat.repeats(first.envelope if first else None, answer["seq"])

    async def _store_many(self, group: list[Waiting]) -> None:
        """One atomic batch. A rejected one was not stored at all: it is halved, in order, so that what was wrong with one
        message (a repeated key rejects a whole batch) is found without failing the rest."""
        answer = decode(await self._send_batch(group))
        if answer.get("error") is None:
            first = answer["seq"] - answer["count"] + 1
            for at, one in enumerate(group, first):
                one.stored(at)
            return
        log.debug("publish.batch_rejected", error=answer["error"].get("description"), messages=len(group))
        middle = len(group) // 2
        await self._commit(group[:middle])
        await self._commit(group[middle:])

    async def _send_batch(self, group: list[Waiting]) -> Msg:
        link, batch = self._log.link, secrets.token_hex(8)
        for position, one in enumerate(group[:-1], 1):
            await link.publish(one.subject, one.envelope, {**one.headers(), "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(position)})
        last = group[-1]
        commit = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(len(group)), "Nats-Batch-Commit": "1"}
        return await link.request(last.subject, last.envelope, {**last.headers(), **commit}, timeout_s=ANSWER_S)


def decode(msg: Msg) -> dict[str, Any]:
    answer: dict[str, Any] = msgspec.json.decode(msg.data)
    return answer


def same_content(first: bytes, second: bytes) -> bool:
    """Whether two envelopes say the same, apart from the id and time that each was given. JSON is compared as JSON."""
    a, b = parse_envelope(first), parse_envelope(second)
    if (a.headers, a.reply_to) != (b.headers, b.reply_to):
        return False
    return bytes(a.data) == bytes(b.data) or msgspec.json.decode(a.data) == msgspec.json.decode(b.data)
