"""Group commit: what waits while one group is in flight makes up the next. Tells each message where it was stored.

One loop a tenant and server (design, decision 3): with every write flushed to disk before its acknowledgement, sharing the flush
is what makes publishing fast, and one group in flight at a time is what keeps a connection's messages in order.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from artcafe.errors import (
    KeyReused,
    LogRefused,
    NatsConnectionLost,
    NoResponder,
    NotStored,
    OurFault,
    OutcomeUnknown,
    QuotaFull,
    Unavailable,
)
from artcafe.fabric.nats.client import IncomingMessage, OutgoingMessage
from artcafe.fabric.nats.jetstream import check_answer
from artcafe.fabric.tenant_log import TenantLog
from artcafe.observe.logs import log
from artcafe.rules.subjects import Subject
from artcafe.supervision import Supervisor
from artcafe.wire.envelopes import parse_envelope
from artcafe.wire.replies import PublishReply

BATCH_MESSAGES: Final = 500
"""NATS takes 1,000; more than 500 gained nothing."""
BATCH_BYTES: Final = 4 << 20
SMALL_GROUP: Final = 12
"""So many are quicker one by one than as a batch, for which nats-server 2.15 makes and removes a store on disk: n messages took
n × 0.4 ms when sent without waiting in between, and in the same minute a batch of them 5.5 ms + n × 0.02 ms."""
WAITING_MESSAGES: Final = 20_000
WAITING_BYTES: Final = 64 << 20
"""When so much waits, NATS is not keeping up, and a publish is refused at once with `not_stored` instead of growing the queue."""
RESERVED_PER_SENDER: Final = 16
"""Of a sender that has fewer waiting, a publish is taken all the same: it is not the one who fills the queue."""
IN_TURN: Final = 16
"""Messages of one sender that go into a group before it is another's turn."""
PUBLISH_TIMEOUT_S: Final = 10.0
"""How long a message is tried before its publisher is told; less than the 30 s after which the SDK gives up."""
BEGIN_S: Final = 15.0
"""How much longer, where the log is being made: a cluster with a node down may elect a leader for JetStream and one for the log
first, each of which takes up to 9 s."""
ANSWER_S: Final = 4.0
PAUSE_S: Final = 0.05

DUPLICATE_IN_BATCH: Final = 10201
DUPLICATE_IN_PROCESS: Final = 10158
"""A replicated stream is just storing the same id: its outcome will be known in a moment."""


@dataclass(slots=True, eq=False)
class PendingPublish:
    """A message on its way. `duplicates` are repeats of the same key that came while it waited.

    `may_be_stored` once it was sent and no answer came: from then on nobody may say that it was not stored.
    """

    subject: Subject
    envelope: bytes
    message_id: str
    dedupe_id: str | None
    done: asyncio.Future[PublishReply]
    until: float
    may_be_stored: bool = False
    duplicates: tuple[PendingPublish, ...] = ()

    @property
    def id_header(self) -> str:
        """The line of NATS headers that makes a repeat of its key known; none without a key."""
        return f"Nats-Msg-Id: {self.dedupe_id}\r\n" if self.dedupe_id else ""

    def stored(self, seq: int) -> None:
        """It stands at `seq`, and its duplicates are repeats of it."""
        if not self.done.done():
            self.done.set_result(PublishReply(seq, self.message_id, duplicate=False))
        for duplicate in self.duplicates:
            duplicate.repeats(self.envelope, seq)

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
        """It ends with an error, and its duplicates with it."""
        if self.may_be_stored and isinstance(error, NotStored):
            error = OutcomeUnknown()
        for one in (self, *self.duplicates):
            if not one.done.done():
                one.done.set_exception(error)


class LogWriter:
    """The one writer of a tenant's log on this server."""

    def __init__(
        self,
        log: TenantLog,
        *,
        timeout_s: float = PUBLISH_TIMEOUT_S,
        max_messages: int = WAITING_MESSAGES,
        max_group: Callable[[], int] = lambda: BATCH_MESSAGES,
    ) -> None:
        """`max_group` is asked before each group, and may say less than `BATCH_MESSAGES`."""
        self._log, self._patience_s, self._most_messages = log, timeout_s, max_messages
        self._most_a_group = max_group
        self._spared = min(RESERVED_PER_SENDER, max_messages)
        self._waiting: OrderedDict[str, deque[PendingPublish]] = OrderedDict()
        """By sender, who take turns."""
        self._waiting_messages = self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._exists = False
        self._is_over = False
        self.supervisor = Supervisor("writer")

    def submit(
        self, subject: Subject, envelope: bytes, message_id: str, dedupe_id: str | None, sender: str = ""
    ) -> asyncio.Future[PublishReply]:
        """Queue a message. The messages of one sender are stored in the order of the calls, and senders take turns.

        The future ends with the reply once the message is flushed to disk (or committed by a majority), or with `NotStored`,
        `QuotaFull` or `KeyReused` (it was not stored), or `OutcomeUnknown`.
        """
        done: asyncio.Future[PublishReply] = asyncio.get_running_loop().create_future()
        queue = self._waiting.get(sender)
        is_full = self._waiting_messages >= self._most_messages or self._waiting_bytes >= WAITING_BYTES
        if self._is_over or (is_full and queue is not None and len(queue) >= self._spared):
            done.set_exception(NotStored())
            return done
        if queue is None:
            queue = self._waiting[sender] = deque()
        queue.append(PendingPublish(subject, envelope, message_id, dedupe_id, done, time.monotonic() + self._patience_s))
        self._waiting_messages += 1
        self._waiting_bytes += len(envelope)
        self._wake.set()
        return done

    def close(self) -> None:
        """Refuses what comes from here on, and what waits. May be repeated."""
        self._is_over = True
        for queue in self._waiting.values():
            for waiting in queue:
                waiting.fail(NotStored())
        self._waiting.clear()
        self._waiting_messages = self._waiting_bytes = 0

    async def run(self) -> None:
        """Commits group after group until cancelled; what is left then is answered, never forgotten."""
        group: list[PendingPublish] = []
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while group := self._take():
                    with self.supervisor.contain(messages=len(group)):
                        await self._commit(group)
                        continue
                    for waiting in group:
                        waiting.fail(OutcomeUnknown())
        finally:
            for waiting in group:
                waiting.fail(OutcomeUnknown())
            self.close()

    def _take(self) -> list[PendingPublish]:
        """Return the next group: what each sender has waiting, in order, a few of each in turn. A repeat of a key joins its first
        as a duplicate."""
        most = min(self._most_a_group(), BATCH_MESSAGES)
        group: list[PendingPublish] = []
        firsts: dict[str, PendingPublish] = {}
        size = taken = 0
        while self._waiting and len(group) < most and size < BATCH_BYTES:
            sender, queue = self._waiting.popitem(last=False)
            for _ in range(min(IN_TURN, len(queue), most - len(group))):
                one = queue.popleft()
                taken += 1
                size += len(one.envelope)
                first = one if one.dedupe_id is None else firsts.setdefault(one.dedupe_id, one)
                if first is one:
                    group.append(one)
                else:
                    first.duplicates = (*first.duplicates, one)
                if size >= BATCH_BYTES:
                    break
            if queue:
                self._waiting[sender] = queue
        self._waiting_messages -= taken
        self._waiting_bytes -= size
        return group

    async def _commit(self, group: list[PendingPublish]) -> None:
        """Settles every member of a group, trying again as long as that is safe and their patience lasts."""
        while group:
            try:
                await self._log.connection.wait_up(max(0.0, group[0].until - time.monotonic()))
                if not self._exists:
                    await self._log.ensure()
                    self._exists = True
                await (self._store_few(group) if self._are_few(group) else self._store_many(group))
                return
            except (NatsConnectionLost, TimeoutError):
                group = self._known_unknowns(group)
            except (NoResponder, Unavailable) as exc:
                self._exists = False
                group = self._out_of_patience(group, exc)
                await asyncio.sleep(PAUSE_S)
            except (LogRefused, QuotaFull) as exc:
                self._refuse(group, exc)
                return

    @staticmethod
    def _known_unknowns(group: list[PendingPublish]) -> list[PendingPublish]:
        """After a lost answer: only a message with a key may be sent again; of the others the outcome stays unknown."""
        again = []
        for one in group:
            one.may_be_stored = True
            if one.dedupe_id is not None and time.monotonic() < one.until:
                again.append(one)
            else:
                one.fail(OutcomeUnknown())
        return again

    def _out_of_patience(self, group: list[PendingPublish], exc: OurFault) -> list[PendingPublish]:
        """After a request that nobody took: nothing was stored, so all may be tried again while patience lasts."""
        more_s = BEGIN_S if self._log.is_beginning else 0.0
        if time.monotonic() < group[0].until + more_s and not self._is_over:
            return group
        log.warning("publish.unavailable", error=str(exc), messages=len(group))
        for one in group:
            one.fail(NotStored())
        return []

    @staticmethod
    def _refuse(group: list[PendingPublish], exc: LogRefused | QuotaFull) -> None:
        log.warning("publish.refused", error=str(exc), messages=len(group))
        for one in group:
            one.fail(exc if isinstance(exc, QuotaFull) else NotStored())

    def _are_few(self, group: list[PendingPublish]) -> bool:
        # Between servers a message may get lost that a later one overtakes, and there a batch is held in memory and costs little.
        return len(group) <= (SMALL_GROUP if self._log.replicas == 1 else 1)

    async def _store_few(self, group: list[PendingPublish]) -> None:
        """Each message for itself, without waiting in between. Leaves in `group` those that may be tried again, and raises why.

        What stands before one that was answered is not tried again: it would come behind it.
        """
        messages = [OutgoingMessage(one.subject, one.id_header, one.envelope) for one in group]
        problem: Exception | None = None
        again: list[PendingPublish] = []
        for one, outcome in zip(tuple(group), await self._log.connection.request_each(messages, timeout_s=ANSWER_S), strict=True):
            try:
                await self._settle(one, outcome)
            except (NatsConnectionLost, TimeoutError, NoResponder, Unavailable) as exc:
                again.append(one)
                if problem is None or isinstance(exc, NatsConnectionLost | TimeoutError):  # of which the outcome is unknown
                    problem = exc
                continue
            for earlier in again:
                earlier.fail(OutcomeUnknown())
            problem, again = None, []
        group[:] = again
        if problem is not None:
            raise problem

    async def _settle(self, one: PendingPublish, outcome: IncomingMessage | Exception) -> None:
        """Tells a message what NATS answered to it. Raises what it got instead of an answer."""
        if isinstance(outcome, Exception):
            raise outcome
        answer = decode(outcome)
        if (answer.get("error") or {}).get("err_code") == DUPLICATE_IN_PROCESS:
            raise NoResponder()  # nothing was stored by this try, and the next one will find the first's outcome
        try:
            check_answer(answer)
        except (LogRefused, QuotaFull) as exc:
            self._refuse([one], exc)
            return
        if not answer.get("duplicate"):
            one.stored(answer["seq"])
            return
        first = await self._log.read(answer["seq"])
        for repeat in (one, *one.duplicates):
            repeat.repeats(first, answer["seq"])

    async def _store_many(self, group: list[PendingPublish]) -> None:
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

    async def _send_batch(self, group: list[PendingPublish]) -> IncomingMessage:
        batch = f"Nats-Batch-Id: {secrets.token_hex(8)}\r\nNats-Batch-Sequence: "
        messages = [
            OutgoingMessage(one.subject, f"{one.id_header}{batch}{position}\r\n", one.envelope)
            for position, one in enumerate(group, 1)
        ]
        last = messages[-1]
        messages[-1] = last._replace(headers=f"{last.headers}Nats-Batch-Commit: 1\r\n")
        return await self._log.connection.request_last(messages, timeout_s=ANSWER_S)


def decode(msg: IncomingMessage) -> dict[str, Any]:
    """JetStream's answer to a publish."""
    answer: dict[str, Any] = msgspec.json.decode(msg.data)
    return answer


def same_content(first: bytes, second: bytes) -> bool:
    """Whether two envelopes say the same, apart from the id and time that each was given. JSON is compared as JSON."""
    a, b = parse_envelope(first), parse_envelope(second)
    if (a.headers, a.reply_to) != (b.headers, b.reply_to):
        return False
    return bytes(a.data) == bytes(b.data) or _canonical(a.data) == _canonical(b.data)


def _canonical(data: msgspec.Raw) -> bytes:
    """The JSON without what means nothing, so that in Python's eyes equal values (1, 1.0, true) stay apart."""
    try:
        return msgspec.json.encode(msgspec.json.decode(data), order="deterministic")
    except msgspec.DecodeError:
        return bytes(data)  # JSON with a number that Python cannot hold, such as 1e999
