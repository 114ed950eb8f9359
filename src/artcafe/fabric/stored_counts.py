"""Count the messages of a log by sender, channel and hour: those that this server stored, and those read from the log.

The hour is that of the time in the envelope, or of a scheduled message that at which it is due. It is stored with the message: it
is the same for every reader, and in a copy of the log. NATS's own time of a message changes when a log is rewritten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from artcafe.fabric.pending_publish import PendingPublish
from artcafe.model import Seq
from artcafe.rules.subjects import Subject
from artcafe.rules.usage import Period, PeriodKind, known_period
from artcafe.wire.envelopes import is_copy, parse_envelope

MAX_SEGMENTS: Final = 4096
"""Segments kept of one log. Beyond them, the oldest are dropped: the meter reads those messages from the log."""
MAX_GROUPS: Final = 20_000
"""Sums kept of one log, by sender, channel and hour; beyond them as above."""
UNKNOWN_HOUR: Final = Period("1970-01-01T00")
"""The hour of a message without a readable time, which ArtCafe never stores."""

_FROM: Final = b'","from":"'
_TIME: Final = b'","time":"'
_ID_END: Final = len('{"message_id":"msg_') + 26
"""Where a message id of ArtCafe's ends in an envelope."""
_SENDER: Final = _ID_END + len(_FROM)
_HOUR: Final = len("2026-11-28T10")

_text: Final = msgspec.json.Decoder(str)

Head = bytes
"""The part of an envelope from its sender to its hour: `agt_…","time":"2026-11-28T10`."""
NOT_COUNTED: Final[Head] = b""
"""The head of dead letters and redriven messages, whose first copy was counted, and of their marks."""


class Sums:
    """The sums of one sender, channel and hour."""

    __slots__ = ("first_seq", "last_seq", "messages", "size_bytes")

    def __init__(self, seq: Seq, size_bytes: int) -> None:
        self.messages, self.size_bytes, self.first_seq, self.last_seq = 1, size_bytes, seq, seq


Counts = dict[tuple[Subject, Head], Sums]


class CountedOrigin(NamedTuple):
    """The sender and hour of a message."""

    sender: str
    hour: Period


def head_of(envelope: bytes) -> Head:
    """Return the head of an envelope, in 0.2 µs for a published message; empty for one that is not counted (`is_copy`).

    No sender contains the text that is searched for, because its quotes are escaped.
    """
    end = envelope.find(_TIME, _SENDER)
    if end >= 0 and envelope.startswith(_FROM, _ID_END):
        return envelope[_SENDER : end + len(_TIME) + _HOUR]
    return _parsed_head(envelope)


def _parsed_head(envelope: bytes) -> Head:
    if is_copy(envelope):
        return NOT_COUNTED
    try:
        parsed = parse_envelope(envelope)
    except msgspec.DecodeError:
        return _TIME + UNKNOWN_HOUR.text.encode()
    # A scheduled message is stored when it is due: its own hour may have been billed.
    return msgspec.json.encode(parsed.sender)[1:-1] + _TIME + (parsed.deliver_at or parsed.time)[:_HOUR].encode()


def origin_of(head: Head) -> CountedOrigin:
    """Return the sender and hour in a head."""
    sender, _, hour = head.rpartition(_TIME)
    period = known_period(hour.decode())
    if period is None or period.kind is not PeriodKind.HOUR:
        period = UNKNOWN_HOUR
    return CountedOrigin(_text.decode(b'"%b"' % sender), period)


def count(counts: Counts, seq: Seq, subject: Subject, envelope: bytes) -> None:
    """Add one message to the counts, unless it is a copy of a counted one, or a scheduled one: that is counted when it is due."""
    if not subject.startswith("ch."):
        return
    key = (subject, head_of(envelope))
    sums = counts.get(key)
    if sums is None:
        if not key[1]:
            return
        counts[key] = Sums(seq, len(envelope))
        return
    sums.messages += 1
    sums.size_bytes += len(envelope)
    sums.last_seq = seq


def merge(counts: Counts, more: Counts) -> None:
    """Add the counts of later messages."""
    for key, added in more.items():
        sums = counts.get(key)
        if sums is None:
            sums = counts[key] = Sums(added.first_seq, 0)
            sums.messages = 0
        sums.messages += added.messages
        sums.size_bytes += added.size_bytes
        sums.last_seq = added.last_seq


@dataclass(slots=True)
class Segment:
    """All messages from one sequence to another, counted."""

    first: Seq
    last: Seq
    counts: Counts = field(default_factory=dict)
    is_sealed: bool = False
    """Whether the meter has seen it; later messages then begin another segment."""


class StoredSegments:
    """The messages that this server stored in a log and nobody has metered yet, in contiguous segments.

    While one server stores all messages of a tenant, its meter needs to read none of them. Messages between the segments were
    stored by other servers, or their outcome is unknown.
    """

    __slots__ = ("_segments",)

    def __init__(self) -> None:
        self._segments: deque[Segment] = deque()

    def __len__(self) -> int:
        return len(self._segments)

    def add(self, first: Seq, stored: Iterable[PendingPublish]) -> None:
        """Note messages that were stored one after the other, from the sequence `first` on."""
        segments = self._segments
        if segments and first <= segments[-1].last:
            segments.clear()  # The log began again.
        if not segments or segments[-1].last + 1 != first or segments[-1].is_sealed:
            segments.append(Segment(first, first - 1))
        segment = segments[-1]
        for segment.last, one in enumerate(stored, first):
            count(segment.counts, segment.last, one.subject, one.envelope)
        if len(segments) > MAX_SEGMENTS:
            segments.popleft()
        if len(segment.counts) > MAX_GROUPS:
            segments.pop()

    def sealed(self) -> list[Segment]:
        """Return the segments so far, which do not change any more."""
        for segment in self._segments:
            segment.is_sealed = True
        return list(self._segments)

    def drop(self, up_to: Seq) -> None:
        """Forget the segments that begin at or before a sequence: they are metered, or must be read from the log."""
        while self._segments and self._segments[0].first <= up_to:
            self._segments.popleft()

    def clear(self) -> None:
        """Forget every segment."""
        self._segments.clear()
