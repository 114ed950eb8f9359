"""A publish waiting to be stored, and its outcome."""

from __future__ import annotations

import asyncio

import msgspec

from artcafe.errors import KeyReused, NotStored, OutcomeUnknown
from artcafe.rules.subjects import Subject
from artcafe.wire.envelopes import parse_envelope
from artcafe.wire.replies import PublishReply
from artcafe.wire.trace_context import without_trace


class PendingPublish(msgspec.Struct, eq=False):
    """A message in the queue or in flight. `duplicates` are repeats of its key received meanwhile.

    `has_seq`: False for a scheduled message, whose publisher gets no sequence. `may_be_stored` is set once it was sent without an
    answer; its outcome can no longer be `NotStored` then. `deadline` is monotonic.
    """

    subject: Subject
    envelope: bytes
    message_id: str
    dedupe_id: str | None
    done: asyncio.Future[PublishReply]
    deadline: float
    has_seq: bool = True
    may_be_stored: bool = False
    duplicates: tuple[PendingPublish, ...] = ()

    @property
    def id_header(self) -> str:
        """The NATS header line for detecting a repeat of its key; empty without a key."""
        return f"Nats-Msg-Id: {self.dedupe_id}\r\n" if self.dedupe_id else ""

    def resolve(self, seq: int) -> None:
        """Report that it is stored at `seq`, and its duplicates as repeats of it."""
        if not self.done.done():
            self.done.set_result(PublishReply(seq if self.has_seq else None, self.message_id, duplicate=False))
        for duplicate in self.duplicates:
            duplicate.resolve_repeat(self.envelope, seq)

    def resolve_repeat(self, first: bytes | None, seq: int) -> None:
        """Report an earlier use of its key, by the message of envelope `first` at `seq`.

        Without `first`, the earlier message has been removed, and only its sequence is known. Other content fails with
        `KeyReused`.
        """
        if self.done.done():
            return
        shown = seq if self.has_seq else None
        if first is None:
            self.done.set_result(PublishReply(shown, None, duplicate=True))
        elif same_content(first, self.envelope):
            self.done.set_result(PublishReply(shown, parse_envelope(first).message_id, duplicate=True))
        else:
            self.done.set_exception(KeyReused())

    def fail(self, error: Exception) -> tuple[Exception, int]:
        """Fail it and its duplicates. Return their error, and how many had no outcome before."""
        if self.may_be_stored and isinstance(error, NotStored):
            error = OutcomeUnknown()
        waiting = [one for one in (self, *self.duplicates) if not one.done.done()]
        for one in waiting:
            one.done.set_exception(error)
        return error, len(waiting)


def same_content(first: bytes, second: bytes) -> bool:
    """Return whether two envelopes are equal apart from message id, time and trace context. JSON is compared by value."""
    a, b = parse_envelope(first), parse_envelope(second)
    if (a.reply_to, a.expires_at, a.deliver_at) != (b.reply_to, b.expires_at, b.deliver_at):
        return False
    if without_trace(a.headers) != without_trace(b.headers):
        return False
    return bytes(a.data) == bytes(b.data) or _canonical(a.data) == _canonical(b.data)


def _canonical(data: msgspec.Raw) -> bytes:
    """Return JSON without insignificant differences, as text: values equal in Python (1, 1.0, true) must stay distinct."""
    try:
        return msgspec.json.encode(msgspec.json.decode(data), order="deterministic")
    except msgspec.DecodeError:
        return bytes(data)  # JSON with a number that Python cannot hold, such as 1e999
