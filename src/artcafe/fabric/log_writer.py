"""Group commit: messages arriving during the commit of one group form the next group.

There is one writer for each tenant and server (design, decision 3). Every write is flushed to disk before it is acknowledged;
sharing that flush makes publishing fast. One group in flight at a time preserves the order of each connection's messages.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from artcafe.errors import (
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
from artcafe.fabric.nats.jetstream import as_batch, check_answer
from artcafe.fabric.pending_publish import PendingPublish
from artcafe.fabric.publish_metrics import PublishMetrics
from artcafe.fabric.queue_rewind import prepare_log
from artcafe.fabric.stored_counts import StoredSegments
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import TenantId
from artcafe.observe.logs import log
from artcafe.observe.tracing import end_with
from artcafe.rules.subjects import Subject
from artcafe.supervision import Supervisor
from artcafe.wire.replies import PublishReply

if TYPE_CHECKING:
    from opentelemetry.trace import Span

BATCH_MESSAGES: Final = 500
"""Messages in one group. NATS accepts 1,000; more than 500 were not faster."""
BATCH_BYTES: Final = 4 << 20
SMALL_GROUP: Final = 12
"""Up to this size, a group is faster as single messages than as a batch, for which nats-server 2.15 creates and removes a store
on disk: n messages sent without waiting in between took n × 0.4 ms, and in the same minute a batch of them 5.5 ms + n × 0.02
ms."""
MAX_QUEUED: Final = 20_000
MAX_QUEUED_BYTES: Final = 64 << 20
"""Above these sizes NATS does not keep up, and further publishes fail at once with `not_stored`."""
RESERVED_PER_SENDER: Final = 16
"""A full queue still accepts a publish of a sender with fewer queued than this, since other senders have filled it."""
PER_TURN: Final = 16
"""How many messages of one sender go into a group before the next sender's turn."""
PUBLISH_TIMEOUT_S: Final = 10.0
"""How long a publish is retried before it fails; less than the SDK's timeout of 30 s."""
CREATION_S: Final = 15.0
"""How much longer while the log is being created: a cluster with a node down may first elect a leader for JetStream and one for
the log, each of which takes up to 9 s."""
ANSWER_TIMEOUT_S: Final = 4.0
RETRY_S: Final = 0.05

REFUSED: Final = "Nats-Rollup: none\r\n"
"""A header that NATS refuses in every stream for its value, whether or not the stream allows roll-ups.

It does so after comparing the ids of the last 10 minutes and before replicating the message. `Nats-Expected-Last-Msg-Id` is
compared after replication: a log with three replicas then did not answer for seconds (nats-server 2.15)."""

DUPLICATE_IN_PROCESS: Final = 10158
"""A replicated stream is storing a message of the same id. A retry finds its outcome."""


StartStore = Callable[[Sequence[str]], "Span | None"]
"""Start the span of a group with these message ids, if one of their publishes is recorded."""


class LogWriter:
    """The single writer of a tenant's log on this server. Senders take turns in each group."""

    def __init__(
        self,
        log: TenantLog,
        *,
        timeout_s: float = PUBLISH_TIMEOUT_S,
        max_messages: int = MAX_QUEUED,
        max_group: Callable[[], int] = lambda: BATCH_MESSAGES,
        stored: StoredSegments | None = None,
        tenant_id: TenantId | None = None,
        start_store: StartStore | None = None,
    ) -> None:
        """`max_group` is called before each group, and may return less than `BATCH_MESSAGES`. `stored` notes each stored message
        for the meter; `tenant_id` is for the metrics. `start_store` starts the span of a group."""
        self._metrics = PublishMetrics(tenant_id, timeout_s)
        self._new_future = asyncio.get_running_loop().create_future
        """Made once: `get_running_loop` calls `getpid` each time (Python 3.11), a tenth of the processor time of a publish."""
        self._log, self._timeout_s, self._max_messages = log, timeout_s, max_messages
        self._max_group, self.stored = max_group, stored
        self._reserved = min(RESERVED_PER_SENDER, max_messages)
        self._queues: OrderedDict[str, deque[PendingPublish]] = OrderedDict()
        """One queue for each sender, in the order of their turns."""
        self._queued = self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._is_over = False
        self._committing: list[PendingPublish] = []
        """The group that is being stored, or the rest of it."""
        self._start_store = start_store
        self._commit_group = self._commit if start_store is None else self._commit_traced
        self.supervisor = Supervisor("writer")

    def submit(
        self,
        subject: Subject,
        envelope: bytes,
        message_id: str,
        dedupe_id: str | None,
        sender: str = "",
        *,
        has_seq: bool = True,
    ) -> asyncio.Future[PublishReply]:
        """Queue a message. The messages of one sender are stored in the order of the calls, and senders take turns.

        The future returns the reply once the message is flushed to disk, or committed by a majority. It raises `NotStored`,
        `QuotaFull` or `KeyReused` if the message was not stored, and `OutcomeUnknown` if that is uncertain.
        """
        done: asyncio.Future[PublishReply] = self._new_future()
        queue = self._queues.get(sender)
        is_full = self._queued >= self._max_messages or self._queued_bytes >= MAX_QUEUED_BYTES
        if self._is_over or (is_full and queue is not None and len(queue) >= self._reserved):
            done.set_exception(NotStored())
            self._metrics.failed(NotStored())
            return done
        if queue is None:
            queue = self._queues[sender] = deque()
        deadline = time.monotonic() + self._timeout_s
        queue.append(PendingPublish(subject, envelope, message_id, dedupe_id, done, deadline, has_seq))
        self._queued += 1
        self._queued_bytes += len(envelope)
        self._wake.set()
        return done

    @property
    def queued(self) -> int:
        """The number of publishes that wait for a group commit."""
        return self._queued

    @property
    def is_idle(self) -> bool:
        """Whether every accepted publish has its outcome."""
        return self._queued == 0 and not self._committing

    async def settle(self) -> None:
        """Wait until every publish that was accepted before this call has its outcome."""
        waiting = [each.done for some in (*self._queues.values(), self._committing) for each in some]
        if waiting:
            await asyncio.wait(waiting)

    async def find_repeat(
        self, subject: Subject, envelope: bytes, message_id: str, dedupe_id: str, *, has_seq: bool = True
    ) -> asyncio.Future[PublishReply] | None:
        """Return the outcome of `submit` if a message of this key is stored, or None if none is. Store nothing in either case.

        A publish of the same key that is still being stored is not found. Raise `NotStored` without an answer.
        """
        done: asyncio.Future[PublishReply] = self._new_future()
        one = PendingPublish(subject, envelope, message_id, dedupe_id, done, 0.0, has_seq)
        message = OutgoingMessage(subject, f"{one.id_header}{REFUSED}", b"")
        try:
            answer = decode(await self._log.connection.request_last([message], timeout_s=ANSWER_TIMEOUT_S))
            if not answer.get("duplicate"):
                return None
            one.resolve_repeat(await self._log.read(answer["seq"]), answer["seq"])
        except NoResponder:
            return None  # Nothing was ever stored.
        except (NatsConnectionLost, TimeoutError) as exc:
            raise NotStored from exc
        return done

    def close(self) -> None:
        """Fail the queued publishes and all later ones. May be repeated."""
        self._is_over = True
        for queue in self._queues.values():
            for waiting in queue:
                self._fail(waiting, NotStored())
        self._queues.clear()
        self._queued = self._queued_bytes = 0

    async def run(self) -> None:
        """Commit group after group until cancelled. Every publish left then gets an outcome."""
        group: list[PendingPublish] = []
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while group := self._next_group():
                    self._committing = group
                    with self.supervisor.contain(messages=len(group)):
                        await self._commit_group(group)
                        continue
                    for waiting in group:
                        self._fail(waiting, OutcomeUnknown())
                self._committing = []
        finally:
            for waiting in group:
                self._fail(waiting, OutcomeUnknown())
            self.close()

    def _next_group(self) -> list[PendingPublish]:
        """Return the next group: each sender's publishes in order, a few of each in turn. A repeat of a key becomes a duplicate
        of the first."""
        most = min(self._max_group(), BATCH_MESSAGES)
        group: list[PendingPublish] = []
        firsts: dict[str, PendingPublish] = {}
        size = taken = 0
        while self._queues and len(group) < most and size < BATCH_BYTES:
            sender, queue = self._queues.popitem(last=False)
            for _ in range(min(PER_TURN, len(queue), most - len(group))):
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
                self._queues[sender] = queue
        self._queued -= taken
        self._queued_bytes -= size
        return group

    async def _commit(self, group: list[PendingPublish]) -> None:
        """Store a group and resolve its members. Retry while a retry is safe and their deadline has not passed."""
        while group:
            try:
                await self._log.connection.wait_up(max(0.0, group[0].deadline - time.monotonic()))
                if not self._log.is_prepared:
                    await prepare_log(self._log)
                await (self._store_singly(group) if self._is_small(group) else self._store_batch(group))
                return
            except (NatsConnectionLost, TimeoutError):
                group = self._fail_unkeyed(group)
            except (NoResponder, Unavailable) as exc:
                self._log.is_prepared = False
                group = self._fail_expired(group, exc)
                await asyncio.sleep(RETRY_S)
            except (LogRefused, QuotaFull) as exc:
                self._refuse(group, exc)
                return

    async def _commit_traced(self, group: list[PendingPublish]) -> None:
        """Commit a group within a span, if a publish in it is recorded."""
        assert self._start_store is not None
        span = self._start_store([one.message_id for one in group])
        outcomes = [one.done for one in group]  # A retry removes members from `group`.
        try:
            await self._commit(group)
        finally:
            if span is not None:
                end_with(span, outcomes)

    def _fail_unkeyed(self, group: list[PendingPublish]) -> list[PendingPublish]:
        """After a lost answer, fail the publishes without a key as `OutcomeUnknown`. Return the others, which can be retried
        safely."""
        again = []
        for one in group:
            one.may_be_stored = True
            if one.dedupe_id is not None and time.monotonic() < one.deadline:
                again.append(one)
            else:
                self._fail(one, OutcomeUnknown())
        return again

    def _fail_expired(self, group: list[PendingPublish], exc: OurFault) -> list[PendingPublish]:
        """Return the group for a retry, since a request without a responder stored nothing. Fail it after its deadline."""
        more_s = CREATION_S if self._log.is_beginning else 0.0
        if time.monotonic() < group[0].deadline + more_s and not self._is_over:
            return group
        log.warning("publish.unavailable", error=str(exc), messages=len(group))
        for one in group:
            self._fail(one, NotStored())
        return []

    def _fail(self, one: PendingPublish, error: Exception) -> None:
        self._metrics.failed(*one.fail(error))

    def _refuse(self, group: list[PendingPublish], exc: LogRefused | QuotaFull) -> None:
        log.warning("publish.refused", error=str(exc), messages=len(group))
        if isinstance(exc, QuotaFull):
            exc.most = self._log.max_bytes
        for one in group:
            self._fail(one, exc if isinstance(exc, QuotaFull) else NotStored())

    def _is_small(self, group: list[PendingPublish]) -> bool:
        # In a cluster, a message can be lost between servers while a later one arrives; and there a batch is in memory, and
        # cheap.
        return len(group) <= (SMALL_GROUP if self._log.replicas == 1 else 1)

    async def _store_singly(self, group: list[PendingPublish]) -> None:
        """Store messages singly, without waiting in between. Keep in `group` those to be retried, and raise the reason.

        A message before a stored one is not retried, since it would be stored after it.
        """
        messages = [OutgoingMessage(one.subject, one.id_header, one.envelope) for one in group]
        problem: Exception | None = None
        again: list[PendingPublish] = []
        for one, outcome in zip(
            tuple(group), await self._log.connection.request_each(messages, timeout_s=ANSWER_TIMEOUT_S), strict=True
        ):
            try:
                await self._resolve(one, outcome)
            except (NatsConnectionLost, TimeoutError, NoResponder, Unavailable) as exc:
                again.append(one)
                if problem is None or isinstance(exc, NatsConnectionLost | TimeoutError):  # the outcome is unknown
                    problem = exc
                continue
            for earlier in again:
                self._fail(earlier, OutcomeUnknown())
            problem, again = None, []
        group[:] = again
        if problem is not None:
            raise problem

    async def _resolve(self, one: PendingPublish, outcome: IncomingMessage | Exception) -> None:
        """Resolve a publish by NATS's answer. Raise the outcome if it is an exception."""
        if isinstance(outcome, Exception):
            raise outcome
        answer = decode(outcome)
        if (answer.get("error") or {}).get("err_code") == DUPLICATE_IN_PROCESS:
            raise NoResponder()  # This attempt stored nothing; the next one finds the outcome of the first.
        try:
            check_answer(answer)
        except (LogRefused, QuotaFull) as exc:
            self._refuse([one], exc)
            return
        if not answer.get("duplicate"):
            if self.stored is not None:
                self.stored.add(answer["seq"], (one,))
            one.resolve(answer["seq"])
            self._metrics.stored([one])
            return
        first = await self._log.read(answer["seq"])
        for repeat in (one, *one.duplicates):
            repeat.resolve_repeat(first, answer["seq"])
            self._metrics.repeated(repeat)

    async def _store_batch(self, group: list[PendingPublish]) -> None:
        """Store a group as one atomic batch. NATS rejects a whole batch for one bad message, such as a repeated key, and stores
        none of it; its halves are then committed in order, until the bad message is alone."""
        answer = decode(await self._send_batch(group))
        if answer.get("error") is None:
            first = answer["seq"] - answer["count"] + 1
            if self.stored is not None:
                self.stored.add(first, group)
            for at, one in enumerate(group, first):
                one.resolve(at)
            self._metrics.stored(group)
            return
        log.debug("publish.batch_rejected", error=answer["error"].get("description"), messages=len(group))
        middle = len(group) // 2
        await self._commit(group[:middle])
        await self._commit(group[middle:])

    async def _send_batch(self, group: list[PendingPublish]) -> IncomingMessage:
        messages = as_batch((one.subject, one.id_header, one.envelope) for one in group)
        return await self._log.connection.request_last(messages, timeout_s=ANSWER_TIMEOUT_S)


def decode(msg: IncomingMessage) -> dict[str, Any]:
    """Parse JetStream's answer to a publish."""
    answer: dict[str, Any] = msgspec.json.decode(msg.data)
    return answer
