"""Copies of messages between the channels of a tenant, each stored once: dead letters, and redriven messages.

A copy is stored in one atomic batch with a mark, whose subject names the original. NATS refuses the batch if that subject has a
message. So the log has one copy of an original, also if the copy is repeated, on several servers at once, at any later time, or
after an unanswered attempt (decision record 47).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from artcafe.errors import LogRefused, NatsConnectionLost, NoResponder, Unavailable
from artcafe.fabric.log_writer import ANSWER_TIMEOUT_S, BATCH_BYTES, RETRY_S, decode
from artcafe.fabric.marks import find_mark, find_marks
from artcafe.fabric.nats.connection import unreachable
from artcafe.fabric.nats.jetstream import StreamMessage, as_batch, check_answer
from artcafe.fabric.queue_rewind import prepare_log
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import Seq
from artcafe.rules.subjects import Subject
from artcafe.wire.envelopes import mark_envelope, parse_head

MOST_COPIES: Final = 100
"""Copies in one batch, each with its mark; NATS accepts 1,000 messages in a batch."""
TIMEOUT_S: Final = 10.0
"""How long a batch is repeated."""
_UNMARKED: Final = "Nats-Expected-Last-Subject-Sequence: 0\r\n"
"""A header by which NATS stores a message only as the first of its subject."""


class MarkedCopy(NamedTuple):
    """A copy to store, and its mark: the subject that names the original, the id of the copy, who makes it and when."""

    subject: Subject
    envelope: bytes
    mark: Subject
    message_id: str
    sender: str
    time: str

    def mark_text(self) -> bytes:
        """Return the envelope of the mark, whose `mark` is the kind in its subject: `dead` or `redriven`."""
        return mark_envelope(self.mark.split(".")[-2], self.message_id, self.sender, self.time)


class StoredCopy(NamedTuple):
    """The copy of an original: its sequence and id, and whether this call stored it and not an earlier one."""

    seq: Seq
    message_id: str
    is_new: bool


async def store_copies(log: TenantLog, copies: Sequence[MarkedCopy]) -> list[StoredCopy]:
    """Store each copy, in order, unless its original has one already. Return the copy of each original. May be repeated, also at
    the same time.

    Raise `Unavailable`, `LogRefused` or `QuotaFull`: the first copies may be stored then, and a repeat finds them.
    """
    deadline = time.monotonic() + TIMEOUT_S
    stored: list[StoredCopy] = []
    for group in _groups(copies):
        stored += await _store(log, group, deadline)
    return stored


def _groups(copies: Sequence[MarkedCopy]) -> list[list[MarkedCopy]]:
    groups: list[list[MarkedCopy]] = []
    size_bytes = 0
    for copy in copies:
        size_bytes += len(copy.envelope)
        if not groups or len(groups[-1]) >= MOST_COPIES or size_bytes > BATCH_BYTES:
            groups.append([])
            size_bytes = len(copy.envelope)
        groups[-1].append(copy)
    return groups


async def _store(log: TenantLog, group: Sequence[MarkedCopy], deadline: float) -> list[StoredCopy]:
    """Store a group as a batch; if NATS refuses that, only those copies that do not exist."""
    while True:
        try:
            await log.connection.wait_up(max(0.0, deadline - time.monotonic()))
            if not log.is_prepared:
                await prepare_log(log)
            first = await _store_batch(log, group)
            return [StoredCopy(first + 2 * at, copy.message_id, True) for at, copy in enumerate(group)]
        except LogRefused:
            if len(group) > 1:
                return await _store_missing(log, group, deadline)
            mark = await find_mark(log, group[0].mark)
            if mark is not None:
                return [_found(group[0], mark)]
            if time.monotonic() >= deadline:
                raise
        except (NatsConnectionLost, TimeoutError, NoResponder, Unavailable) as exc:
            if time.monotonic() >= deadline:
                raise unreachable() from exc
        await asyncio.sleep(RETRY_S)  # Another server may be storing the same copy at this moment.


async def _store_missing(log: TenantLog, group: Sequence[MarkedCopy], deadline: float) -> list[StoredCopy]:
    """Store those copies of a refused group whose marks are not found. If none is found, store its halves in order: the replica
    that was asked may lag, and then the copy that exists is alone at last."""
    marks = await find_marks(log, [copy.mark for copy in group])
    missing = [copy for copy in group if copy.mark not in marks]
    if not marks:
        middle = len(group) // 2
        return await _store(log, group[:middle], deadline) + await _store(log, group[middle:], deadline)
    stored = iter(await _store(log, missing, deadline) if missing else ())
    return [_found(copy, marks[copy.mark]) if copy.mark in marks else next(stored) for copy in group]


async def _store_batch(log: TenantLog, group: Sequence[MarkedCopy]) -> Seq:
    """Send a batch, and return the sequence of its first message. Each copy is followed by its mark."""
    messages: list[tuple[Subject, str, bytes]] = []
    for copy in group:
        messages.append((copy.subject, "", copy.envelope))
        messages.append((copy.mark, _UNMARKED, copy.mark_text()))
    answer = decode(await log.connection.request_last(as_batch(messages), timeout_s=ANSWER_TIMEOUT_S))
    check_answer(answer)
    first: Seq = answer["seq"] - answer["count"] + 1
    return first


def _found(copy: MarkedCopy, mark: StreamMessage) -> StoredCopy:
    """Return the copy that an original has already. It is stored just before its mark."""
    message_id = parse_head(mark.data).message_id
    return StoredCopy(mark.seq - 1, message_id, message_id == copy.message_id)
