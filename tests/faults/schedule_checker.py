"""Check a run of scheduled and expiring messages with faults against the contract (section 4), using only its history. No I/O.

A history is what the publisher, the people who cancel, and the subscribers saw, in order, and the log of the channel at the end.
Every time is in seconds of the one clock of the machine, because the contract's times are those of a clock.

A restore (`restores`) makes two logs of a run. Each is judged by what was seen of it; the second one by what the backup has, too:
messages that it has scheduled are delivered, again if they were delivered or cancelled after the backup, and later ones are lost.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from tests.faults.pull_checker import GapSeen
from tests.faults.restores import EPOCH, Lives, RestoreEvent, lives_of
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


ScheduleEvent = Published | Accepted | Rejected | Cancelled | CancelAttempted | CancelTooLate | Seen | GapPushed | RestoreEvent


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
    longest time between the check of a message and its arrival. `late_s`: how late a message may be stored, without the
    `pauses` in which nobody stores one, from when to when by the time of day: NATS cannot be reached, or a server was killed and
    the others have not noticed. `lost_log` and `restored_at` (by the same clock) are given if the run has a restore.
    """

    events: Sequence[ScheduleEvent]
    log: Sequence[Kept]
    subscribers: Sequence[str]
    slack_s: float = 1.0
    late_s: float = 10.0
    pauses: Sequence[tuple[float, float]] = ()
    lost_log: Sequence[Kept] = ()
    restored_at: float = 0.0


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
    NOT_IN_BACKUP = "in a restored log, though the backup cannot have had it"
    RESTORE_NOT_TOLD = "a restored log, and no gap told that it was replaced"
    FALSE_RESTORE = "a gap that told of a replaced log, wrongly"


AFTER_RESTORE: Final = frozenset({ScheduleBroken.NOT_IN_BACKUP, ScheduleBroken.RESTORE_NOT_TOLD, ScheduleBroken.FALSE_RESTORE})
"""The violations that only a run with a restore has."""


def judge_schedule(run: ScheduleHistory) -> Ruling:
    """Return every violation in a run."""
    lives = lives_of(run.events)
    known = _Known(run, lives)
    rules = (_log, _promised, _order, _cancels, _deliveries, _gaps, _completeness, _restore)
    violations = [violation for rule in rules for violation in rule(known)]
    if lives.restored is not None:
        # What is missing at its end may be missing because it was stopped.
        lost = _Known(replace(run, events=lives.first, log=run.lost_log), Lives(after=lives.first))
        violations += [violation for rule in (_log, _order, _cancels, _deliveries, _gaps) for violation in rule(lost)]
    events = run.events
    amounts = {
        "accepted": sum(isinstance(event, Accepted) for event in events),
        "cancelled": len({event.message_id for event in events if isinstance(event, Cancelled)}),
        "stored": len({(kept.seq, kept.message_id) for kept in (*run.log, *run.lost_log)}),
        "delivered": sum(isinstance(event, Seen) for event in events),
        "expired": sum(isinstance(event, GapPushed) and event.gap.reason != EPOCH for event in events),
    }
    return Ruling(amounts, violations)


class _Known:
    """A log and what was seen of it, with the indexes that the rules need. Of a restored log: what happened to it, and what the
    backup has of the earlier one."""

    def __init__(self, run: ScheduleHistory, lives: Lives[ScheduleEvent]) -> None:
        self.run, self.lives, self.events = run, lives, lives.after
        self.last_seq = 0 if lives.restored is None else lives.restored.last_seq
        everything = [*lives.first, *lives.after]
        self.sent = {event.number: event for event in everything if isinstance(event, Published)}
        self.accepted = {event.message_id: event for event in everything if isinstance(event, Accepted)}
        """Also those that the backup does not have."""
        self.promised = {event.message_id for event in (*lives.before, *lives.after) if isinstance(event, Accepted)}
        self.accepted_at = {event.number: event.at for event in self.accepted.values()}
        self.rejected = {event.number for event in everything if isinstance(event, Rejected)}
        self.cancelled = {event.message_id for event in (*lives.before, *lives.after) if isinstance(event, Cancelled)}
        """Those whose cancel holds, also in a restored log."""
        tries = (*lives.possible, *lives.after)
        self.tried = {event.message_id for event in tries if isinstance(event, CancelAttempted | Cancelled)}
        self.at: Mapping[int, Kept] = {kept.seq: kept for kept in run.log}
        self.stored = {kept.message_id: kept for kept in run.log}

    def first_seen(self) -> Mapping[int, Seen]:
        """Return the first arrival of each message that is not of the backup, by its number."""
        found: dict[int, Seen] = {}
        for event in self.events:
            if isinstance(event, Seen) and event.seq > self.last_seq:
                found.setdefault(event.number, event)
        return found


def _log(known: _Known) -> Iterator[Violation]:
    """Check that every message in the log is there once, and was sent and not refused."""
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


def _promised(known: _Known) -> Iterator[Violation]:
    """Check that every accepted message is in the log, unless it was cancelled."""
    for id in known.promised:
        if id not in known.stored and id not in known.tried:
            accepted = known.accepted[id]
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
    for event in known.events:
        if not isinstance(event, CancelTooLate):
            continue
        is_true = event.seq in known.at and known.at[event.seq].message_id == event.message_id
        is_lost = not event.seq and event.message_id in known.accepted and event.message_id not in known.promised
        if not (is_true or is_lost):
            yield Violation(ScheduleBroken.FALSE_REFUSAL, f"{event.message_id} as {event.seq}")


def _deliveries(known: _Known) -> Iterator[Violation]:
    for event in known.events:
        if not isinstance(event, Seen):
            continue
        what, sent = f"message {event.number} to {event.agent}", known.sent.get(event.number)
        if known.at.get(event.seq) != Kept(event.seq, event.message_id, event.number):
            yield Violation(ScheduleBroken.CHANGED, f"{what}, as {event.seq}")
        if sent is not None and sent.deliver_at is not None and event.at < sent.deliver_at:
            yield Violation(ScheduleBroken.EARLY, f"{what}, {sent.deliver_at - event.at:.3f} s")
        if sent is not None and sent.expires_at is not None and event.at > sent.expires_at + known.run.slack_s:
            yield Violation(ScheduleBroken.EXPIRED, f"{what}, by {event.at - sent.expires_at:.3f} s")
    served_at = 0.0 if known.lives.restored is None else known.run.restored_at
    for number, seen in known.first_seen().items():
        due = known.sent[number].deliver_at if number in known.sent else None
        if due is None:
            continue
        since = max(due, known.accepted_at.get(number, due), served_at)
        paused_s = _paused_s(known.run.pauses, since, seen.at)
        if seen.at - since - paused_s > known.run.late_s:
            yield Violation(ScheduleBroken.LATE, f"message {number}, {seen.at - due:.1f} s, of these {paused_s:.1f} s in pauses")


def _paused_s(pauses: Sequence[tuple[float, float]], since: float, until: float) -> float:
    """Return how many seconds of a time are in pauses, which may overlap."""
    paused_s = 0.0
    for began, ended in sorted(pauses):
        first, last = max(began, since), min(ended, until)
        if last > first:
            paused_s, since = paused_s + last - first, last
    return paused_s


def _gaps(known: _Known) -> Iterator[Violation]:
    for event in known.events:
        if not isinstance(event, GapPushed) or event.gap.reason == EPOCH:
            continue
        for seq in range(event.gap.first, (event.gap.last or event.gap.first) + 1):
            sent = known.sent.get(known.at[seq].number) if seq in known.at else None
            if sent is not None and (sent.expires_at is None or sent.expires_at > event.at):
                yield Violation(ScheduleBroken.FALSE_GAP, f"message {sent.number} to {event.agent}, {event.gap.reason}")


def _completeness(known: _Known) -> Iterator[Violation]:
    """Check that every subscriber received each message, or was told a gap."""
    got: dict[str, set[int]] = defaultdict(set)
    for event in known.lives.first:
        got[_agent_of(event)].update(seq for seq in _told(event) if seq <= known.last_seq)
    for event in known.events:
        got[_agent_of(event)].update(_told(event))
    for agent in known.run.subscribers:
        for kept in known.run.log:
            if kept.seq not in got[agent]:
                yield Violation(ScheduleBroken.NOT_TOLD, f"message {kept.number}, {kept.seq} to {agent}")


def _agent_of(event: ScheduleEvent) -> str:
    return event.agent if isinstance(event, Seen | GapPushed) else ""


def _told(event: ScheduleEvent) -> Iterable[int]:
    """Return the sequences that a subscriber received by an event, or was told to be gone."""
    if isinstance(event, Seen):
        return (event.seq,)
    if isinstance(event, GapPushed) and event.gap.reason != EPOCH:
        return range(event.gap.first, (event.gap.last or event.gap.first) + 1)
    return ()


def _restore(known: _Known) -> Iterator[Violation]:
    """Check what the backup brought back, and that each subscriber was told that the log was replaced, before anything of it."""
    restored, told = known.lives.restored, set[str]()
    if restored is not None:
        yield from _not_in_backup(known)
    for event in known.events:
        if isinstance(event, GapPushed) and event.gap.reason == EPOCH:
            told.add(event.agent)
            if restored is None or event.gap.last is not None or event.gap.first <= known.last_seq:
                yield Violation(ScheduleBroken.FALSE_RESTORE, f"{event.gap} to {event.agent}")
        elif restored is not None and isinstance(event, Seen) and event.agent not in told:
            yield Violation(ScheduleBroken.RESTORE_NOT_TOLD, f"message {event.number}, {event.seq} to {event.agent}")
    for agent in known.run.subscribers if restored is not None else ():
        if agent not in told:
            yield Violation(ScheduleBroken.RESTORE_NOT_TOLD, f"{agent}")
    for event in known.lives.first:
        if isinstance(event, GapPushed) and event.gap.reason == EPOCH:
            yield Violation(ScheduleBroken.FALSE_RESTORE, f"{event.gap} to {event.agent}, before the restore")


def _not_in_backup(known: _Known) -> Iterator[Violation]:
    """Yield the messages that were accepted before the restore, and that the backup cannot have brought into the log."""
    lives = known.lives
    sent_late = {event.number for event in lives.lost if isinstance(event, Published)}
    accepted = {event.number for event in lives.first if isinstance(event, Accepted)}
    for kept in known.run.log:
        sent = known.sent.get(kept.number)
        if kept.seq <= known.last_seq:
            is_wrong = kept.number in sent_late
        else:  # stored since: what was only scheduled in the backup, and publishes that were repeated without an answer before
            is_wrong = kept.number in accepted and (kept.number in sent_late or sent is None or sent.deliver_at is None)
        if is_wrong:
            yield Violation(ScheduleBroken.NOT_IN_BACKUP, f"message {kept.number}, {kept.seq}")
