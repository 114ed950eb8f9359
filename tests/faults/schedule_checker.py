"""Check a run of scheduled and expiring messages with faults against the contract (section 4), using only its history. No I/O.

A history is what the publisher, the people who cancel, and the subscribers saw, in order, and the log of the channel at the end.
Every time is in seconds of the one clock of the machine, because the contract's times are those of a clock.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.faults.pull_checker import GapSeen
from tests.faults.verdicts import Ruling, Violation

# --- what happened ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Published:
    """A message was sent, to be stored now or, with `deliver_at`, at that time. No other message of the run has this `number`,
    which is its data."""

    number: int
    deliver_at: float | None
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer that a message is on disk."""

    number: int
    message_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """The answer that a message was not stored; without this or `Accepted`, its outcome is unknown."""

    number: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The answer that a scheduled message will not be delivered."""

    message_id: str
    at: float


@dataclass(frozen=True, slots=True)
class CancelAttempted:
    """A cancel was sent; without a further event, its outcome is unknown."""

    message_id: str


@dataclass(frozen=True, slots=True)
class CancelTooLate:
    """The answer that a message cannot be cancelled because it was delivered, as `seq`."""

    message_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A subscriber received a message."""

    agent: str
    number: int
    seq: int
    message_id: str
    at: float


@dataclass(frozen=True, slots=True)
class GapPushed:
    """A subscriber was told a gap."""

    agent: str
    gap: GapSeen
    at: float


ScheduleEvent = Published | Accepted | Rejected | Cancelled | CancelAttempted | CancelTooLate | Seen | GapPushed


@dataclass(frozen=True, slots=True)
class Kept:
    """A message of the log."""

    seq: int
    message_id: str
    number: int


@dataclass(frozen=True)
class ScheduleHistory:
    """A run of one channel, read when every scheduled message was due.

    `subscribers`: the agents subscribed from before the first message on, which all received the newest one. `slack_s`: the
    longest time between the check of a message and its arrival. `late_s`: how late a message may be stored, without the time in
    which servers could not reach NATS: `nats_cuts`, from when to when by the time of day.
    """

    events: Sequence[ScheduleEvent]
    log: Sequence[Kept]
    subscribers: Sequence[str]
    slack_s: float = 1.0
    late_s: float = 10.0
    nats_cuts: Sequence[tuple[float, float]] = ()


# --- what must hold --------------------------------------------------------------------------------------------------


class ScheduleBroken(StrEnum):
    """A violated promise."""

    EARLY = "delivered before its deliver_at"
    TWICE = "in the log twice"
    NEVER = "accepted, and never delivered"
    AFTER_CANCEL = "delivered, though its cancel was confirmed"
    FALSE_REFUSAL = "not cancelled as already delivered, which it was not"
    FOREIGN = "in the log, but nobody sent it"
    NOT_REFUSED = "answered as not stored, but in the log"
    DISORDER = "delivered before one that was due earlier"
    LATE = "delivered long after its deliver_at"
    EXPIRED = "delivered after its expires_at"
    NOT_TOLD = "neither delivered nor reported as a gap"
    FALSE_GAP = "reported as expired, and it had not"
    CHANGED = "delivered with another sequence or id than in the log"


def judge_schedule(run: ScheduleHistory) -> Ruling:
    """Return every violation in a run."""
    known = _Known(run)
    rules = (_log, _order, _cancels, _deliveries, _gaps, _completeness)
    amounts = {
        "accepted": len(known.accepted),
        "cancelled": len(known.cancelled),
        "stored": len(run.log),
        "delivered": sum(isinstance(event, Seen) for event in run.events),
        "expired": sum(isinstance(event, GapPushed) for event in run.events),
    }
    return Ruling(amounts, [violation for rule in rules for violation in rule(known)])


class _Known:
    """A history with the indexes that the rules need."""

    def __init__(self, run: ScheduleHistory) -> None:
        self.run = run
        self.sent = {event.number: event for event in run.events if isinstance(event, Published)}
        self.accepted = {event.message_id: event for event in run.events if isinstance(event, Accepted)}
        self.accepted_at = {event.number: event.at for event in self.accepted.values()}
        self.rejected = {event.number for event in run.events if isinstance(event, Rejected)}
        self.cancelled = {event.message_id for event in run.events if isinstance(event, Cancelled)}
        self.tried = {event.message_id for event in run.events if isinstance(event, CancelAttempted)}
        self.at: Mapping[int, Kept] = {kept.seq: kept for kept in run.log}
        self.stored = {kept.message_id: kept for kept in run.log}

    def first_seen(self) -> Mapping[int, Seen]:
        """Return the first arrival of each message, by its number."""
        found: dict[int, Seen] = {}
        for event in self.run.events:
            if isinstance(event, Seen):
                found.setdefault(event.number, event)
        return found


def _log(known: _Known) -> Iterator[Violation]:
    """Check that every accepted message is in the log, once, unless it was cancelled."""
    for id, times in Counter(kept.message_id for kept in known.run.log).items():
        if times > 1:
            yield Violation(ScheduleBroken.TWICE, id)
    for number, times in Counter(kept.number for kept in known.run.log).items():
        if times > 1:
            yield Violation(ScheduleBroken.TWICE, f"message {number}")
    for kept in known.run.log:
        if kept.number not in known.sent:
            yield Violation(ScheduleBroken.FOREIGN, f"{kept}")
        elif kept.number in known.rejected:
            yield Violation(ScheduleBroken.NOT_REFUSED, f"{kept}")
    for id, accepted in known.accepted.items():
        if id not in known.stored and id not in known.tried | known.cancelled:
            yield Violation(ScheduleBroken.NEVER, f"message {accepted.number}, {known.sent[accepted.number]}")


def _order(known: _Known) -> Iterator[Violation]:
    """Check that no message is before one that was due earlier, and accepted in time to be before it."""
    latest: Published | None = None
    for kept in known.run.log:
        sent = known.sent.get(kept.number)
        if sent is None or sent.deliver_at is None:
            continue
        if latest is None or latest.deliver_at is None or sent.deliver_at >= latest.deliver_at:
            latest = sent
        elif known.accepted_at.get(kept.number, latest.deliver_at) + known.run.slack_s < latest.deliver_at:
            early_s = latest.deliver_at - sent.deliver_at
            yield Violation(
                ScheduleBroken.DISORDER, f"message {latest.number} before {kept.number}, {kept.seq}, by {early_s:.6f} s"
            )


def _cancels(known: _Known) -> Iterator[Violation]:
    for id in known.cancelled & known.stored.keys():
        yield Violation(ScheduleBroken.AFTER_CANCEL, f"message {known.stored[id].number}, {known.stored[id].seq}")
    for event in known.run.events:
        if isinstance(event, CancelTooLate) and (event.seq not in known.at or known.at[event.seq].message_id != event.message_id):
            yield Violation(ScheduleBroken.FALSE_REFUSAL, f"{event.message_id} as {event.seq}")


def _deliveries(known: _Known) -> Iterator[Violation]:
    for event in known.run.events:
        if not isinstance(event, Seen):
            continue
        what, sent = f"message {event.number} to {event.agent}", known.sent.get(event.number)
        if known.at.get(event.seq) != Kept(event.seq, event.message_id, event.number):
            yield Violation(ScheduleBroken.CHANGED, f"{what}, as {event.seq}")
        if sent is not None and sent.deliver_at is not None and event.at < sent.deliver_at:
            yield Violation(ScheduleBroken.EARLY, f"{what}, {sent.deliver_at - event.at:.3f} s")
        if sent is not None and sent.expires_at is not None and event.at > sent.expires_at + known.run.slack_s:
            yield Violation(ScheduleBroken.EXPIRED, f"{what}, by {event.at - sent.expires_at:.3f} s")
    for number, seen in known.first_seen().items():
        due = known.sent[number].deliver_at if number in known.sent else None
        if due is None:
            continue
        since = max(due, known.accepted_at.get(number, due))
        cut_s = sum(max(0.0, min(ended, seen.at) - max(began, since)) for began, ended in known.run.nats_cuts)
        if seen.at - since - cut_s > known.run.late_s:
            yield Violation(ScheduleBroken.LATE, f"message {number}, {seen.at - due:.1f} s, of these {cut_s:.1f} s without NATS")


def _gaps(known: _Known) -> Iterator[Violation]:
    for event in known.run.events:
        if not isinstance(event, GapPushed):
            continue
        for seq in range(event.gap.first, event.gap.last + 1):
            sent = known.sent.get(known.at[seq].number) if seq in known.at else None
            if sent is not None and (sent.expires_at is None or sent.expires_at > event.at):
                yield Violation(ScheduleBroken.FALSE_GAP, f"message {sent.number} to {event.agent}, {event.gap.reason}")


def _completeness(known: _Known) -> Iterator[Violation]:
    """Check that every subscriber received each message, or was told a gap."""
    got: dict[str, set[int]] = defaultdict(set)
    for event in known.run.events:
        if isinstance(event, Seen):
            got[event.agent].add(event.seq)
        elif isinstance(event, GapPushed):
            got[event.agent].update(range(event.gap.first, event.gap.last + 1))
    for agent in known.run.subscribers:
        for kept in known.run.log:
            if kept.seq not in got[agent]:
                yield Violation(ScheduleBroken.NOT_TOLD, f"message {kept.number}, {kept.seq} to {agent}")
