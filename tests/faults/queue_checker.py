"""Check a run of a work queue with faults against the contract (section 5, sentence 9), using only its history. No I/O.

A history is what the publishers and holders saw, in order and with times, and the dead letters and redriven messages at the end,
when the queue was empty.

After a restore the queue goes on at the oldest task that had not ended at the time of the backup (`restores`). Each task that the
backup has is judged by the acks that the backup may have and by those after the restore.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Final, TypeVar

from tests.faults.restores import SETTLED_S, BackupEnded, Lives, Restored, RestoreEvent, lives_of

T = TypeVar("T")

NATS_WRITES_S: Final = 1.0
"""A longer time than nats-server takes to write the deliveries and acks of a consumer: it gathers those of some milliseconds."""

# --- what happened ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Put:
    """The answer that a task is stored. No other task of the run has this `number`. `key`: None in a queue without order."""

    number: int
    seq: int
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """A holder received a task. `holder` names one connection; `at` is a monotonic time in seconds, as everywhere.

    `asked_at`: when a pull was sent that returned it, before which no hold can have begun.
    """

    holder: str
    seq: int
    number: int
    deliveries: int
    at: float
    key: str | None = None
    asked_at: float | None = None


@dataclass(frozen=True, slots=True)
class Acked:
    """A holder sent an ack; whether the server received it is unknown."""

    holder: str
    seq: int
    at: float


@dataclass(frozen=True, slots=True)
class NakSent:
    """A holder sent a `nak`. Another holder may receive the task before this one receives the confirmation."""

    holder: str
    seq: int
    at: float


@dataclass(frozen=True, slots=True)
class Extended:
    """The server confirmed an `extend`. `asked_at`: when it was sent, if that is known."""

    holder: str
    seq: int
    at: float
    asked_at: float | None = None


@dataclass(frozen=True, slots=True)
class NotHeld:
    """The server refused an ack, a `nak` or an `extend` with `not_held`."""

    holder: str
    seq: int
    at: float


@dataclass(frozen=True, slots=True)
class Left:
    """A holder's connection has ended."""

    holder: str
    at: float


@dataclass(frozen=True, slots=True)
class ReceiptTold:
    """A receipt told its publisher what became of a task: `acked` or `dead_lettered`."""

    seq: int
    state: str
    at: float


Event = Put | Taken | Acked | NakSent | Extended | NotHeld | Left | ReceiptTold | RestoreEvent


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of the dead-letter channel: its sequence there, that of the task in the queue, and why it was moved."""

    seq: int
    task: int
    reason: str
    deliveries: int


@dataclass(frozen=True, slots=True)
class Redriven:
    """A message of the queue that is a redriven dead letter: its sequence, and that of the letter."""

    seq: int
    letter: int


@dataclass(frozen=True)
class QueueHistory:
    """A run. The queue was empty at its end.

    `slack_s`: the longest time from NATS's delivery of a task to its holder; no deadline of a holder is nearer than the ack
    deadline less this. The deadline of a task that was asked for is no nearer than the ack deadline after that, however late
    its holder read it. `nats_kills`: when nats-server was killed; it may forget a delivery of the last `NATS_WRITES_S`.
    `is_faulted`: acks may have been lost with a server or with NATS. `lost_letters`: the dead letters at the end of the log
    that a restore has replaced.
    """

    events: Sequence[Event]
    letters: Sequence[DeadLetter]
    redriven: Sequence[Redriven]
    max_deliveries: int
    ack_wait_s: float
    slack_s: float = 2.0
    is_faulted: bool = False
    lost_letters: Sequence[DeadLetter] = ()
    nats_kills: Sequence[float] = ()

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]


# --- what must hold --------------------------------------------------------------------------------------------------


class QueueBroken(StrEnum):
    """A violated promise."""

    LOST = "stored, but neither acknowledged nor a dead letter"
    TWO_HOLDERS = "held by two at once"
    CHANGED = "delivered as another task than the one stored there"
    AFTER_ACK = "delivered again after its ack, without a fault"
    EARLY_DEAD = "a dead letter before its last allowed delivery"
    DEAD_TWICE = "a dead letter twice"
    DEAD_AND_ACKED = "a dead letter, though it was acknowledged in time, without a fault"
    REDRIVEN_TWICE = "redriven twice"
    UNKNOWN_ORIGIN = "a dead letter or redriven message of nothing"
    KEY_TWICE = "held while another task of its key was"
    KEY_ORDER = "held before an earlier task of its key had ended"
    FALSE_RECEIPT = "a receipt says so, and it is not true"
    BACKED_UP_ACK = "comes again after a restore, though it and every older task had ended before the backup"


AFTER_RESTORE: Final = frozenset({QueueBroken.BACKED_UP_ACK})
"""The violations that only a run with a restore has."""


@dataclass(frozen=True, slots=True)
class QueueFinding:
    broken: QueueBroken
    what: str

    def __str__(self) -> str:
        return f"{self.what}: {self.broken}"


@dataclass(frozen=True)
class QueueVerdict:
    """The violations found, and the amount of data checked."""

    stored: int
    deliveries: int
    acked: int
    dead: int
    redelivered: int
    findings: Sequence[QueueFinding] = field(default=())

    @cached_property
    def counts(self) -> Counter[QueueBroken]:
        return Counter(finding.broken for finding in self.findings)

    def __str__(self) -> str:
        shown = "\n".join(map(str, self.findings[:20]))
        return f"{len(self.findings)} broken promises among {self.stored} tasks ({dict(self.counts)})\n{shown}"


def judge_queue(run: QueueHistory) -> QueueVerdict:
    """Return every violation in a run."""
    walk = _Walk(run)
    for event in run.events:
        walk.note(event)
    acked, findings = set(walk.acked), walk.findings
    findings += [*_lost(walk.stored, run, acked), *_letters(run, walk, acked), *_redriven(run), *_receipts(run, walk)]
    taken = run.of(Taken)
    tasks = {(each.seq, each.number) for each in taken}
    return QueueVerdict(
        len(run.of(Put)), len(taken), len(acked), len({each.task for each in run.letters}), len(taken) - len(tasks), findings
    )


@dataclass(frozen=True, slots=True)
class _Hold:
    """When a hold began at the latest, or was extended, and at the earliest, if that is known."""

    at: float
    asked_at: float | None


class _Walk:
    """Who holds and who has acknowledged what, by the events so far."""

    def __init__(self, run: QueueHistory) -> None:
        self._run, self._lives = run, lives_of(run.events)
        self._lefts = {each.holder: each.at for each in run.of(Left)}
        self._dead = {each.task for each in (run.lost_letters if self._lives.restored else run.letters)}
        self.stored: dict[int, int | None] = {}
        """The number of the task at each sequence; None for a redriven one."""
        self._of_key: dict[str, list[int]] = defaultdict(list)
        """The stored tasks of each key, in order."""
        self._store(self._lives.first if self._lives.restored else run.events)
        if self._lives.restored is None:
            self.stored |= dict.fromkeys((each.seq for each in run.redriven), None)
        self._key_of: dict[int, str | None] = {}
        self._taken: set[int] = set()
        self._since: dict[int, dict[str, _Hold]] = defaultdict(dict)
        """By task and holder."""
        self.acked: dict[int, set[str]] = {}
        """By task, the holders whose acks were not refused."""
        self.acked_before: set[int] = set()
        """The tasks that were acknowledged when a restore replaced their log."""
        self._backed_up: dict[int, set[str]] = {}
        """`acked`, as the backup may have it at most."""
        self.floor = 0
        """After a restore: up to here every task had certainly ended when the backup began."""
        self._repeatable: set[int] = set()
        """The tasks that may come again because of a restore only, although they were acknowledged."""
        self._lost_holders: set[str] = set()
        """The holders of the replaced log, whose acks no longer count."""
        self.findings: list[QueueFinding] = []

    def _store(self, events: Sequence[Event]) -> None:
        for put in sorted((each for each in events if isinstance(each, Put)), key=lambda each: each.seq):
            self.stored[put.seq] = put.number
            if put.key is not None:
                self._of_key[put.key].append(put.seq)

    def note(self, event: Event) -> None:
        """Note what an event changes."""
        match event:
            case Taken():
                self._take(event)
            case Acked() if event.holder not in self._lost_holders:
                self.acked.setdefault(event.seq, set()).add(event.holder)
                self._repeatable.discard(event.seq)
                self._since[event.seq].pop(event.holder, None)
            case NotHeld():
                self._refuse(self.acked, event)
                self._refuse(self._backed_up, event)
                self._since[event.seq].pop(event.holder, None)
            case NakSent():
                self._since[event.seq].pop(event.holder, None)
            case Extended() if event.holder in self._since[event.seq]:
                self._since[event.seq][event.holder] = _Hold(event.at, event.asked_at)
            case Left():
                for holders in self._since.values():
                    holders.pop(event.holder, None)
            case BackupEnded():
                self._backed_up = {seq: set(holders) for seq, holders in self.acked.items()}
            case Restored():
                self._restore(event.last_seq)
            case _:
                pass

    def _restore(self, last_seq: int) -> None:
        """Forget everything that the backup does not have, and every hold."""
        self.acked_before = set(self.acked)
        self.acked = {seq: holders for seq, holders in self._backed_up.items() if holders and seq <= last_seq}
        self._repeatable = set(self.acked)
        self._lost_holders = {each.holder for each in self._lives.first if isinstance(each, Taken)}
        self._dead = {each.task for each in self._run.letters}
        self.stored = {seq: number for seq, number in self.stored.items() if seq <= last_seq}
        self._of_key = defaultdict(list, {key: [seq for seq in seqs if seq <= last_seq] for key, seqs in self._of_key.items()})
        self.floor = _floor(self._run, self._lives, self.stored)
        self._store(self._lives.after)
        self.stored |= dict.fromkeys((each.seq for each in self._run.redriven), None)
        self._since.clear()
        self._taken.clear()

    @property
    def backed_up(self) -> set[int]:
        """The tasks whose acks the backup may have."""
        return set(self._backed_up)

    @staticmethod
    def _refuse(acked: dict[int, set[str]], refused: NotHeld) -> None:
        holders = acked.get(refused.seq, set())
        holders.discard(refused.holder)
        if not holders:
            acked.pop(refused.seq, None)

    def _take(self, taken: Taken) -> None:
        stored = self.stored.get(taken.seq)
        if stored is not None and stored != taken.number:
            self.findings.append(QueueFinding(QueueBroken.CHANGED, f"task {taken.number} at {taken.seq}"))
        for other in self._others(taken):
            self.findings.append(QueueFinding(QueueBroken.TWO_HOLDERS, f"{taken.seq} by {other} and {taken.holder}"))
        if taken.seq <= self.floor:
            self.findings.append(QueueFinding(QueueBroken.BACKED_UP_ACK, f"{taken.seq} to {taken.holder}"))
        if taken.seq in self.acked and not (self._run.is_faulted or taken.seq in self._repeatable):
            self.findings.append(QueueFinding(QueueBroken.AFTER_ACK, f"{taken.seq} to {taken.holder}"))
        if taken.key is not None:
            self._check_key(taken, taken.key)
        self._key_of[taken.seq] = taken.key
        self._taken.add(taken.seq)
        self._since[taken.seq][taken.holder] = _Hold(taken.at, taken.asked_at)

    def _check_key(self, taken: Taken, key: str) -> None:
        """Compare a delivery with the other tasks of its key."""
        held = [seq for seq, holders in self._since.items() if holders and seq != taken.seq and self._key_of.get(seq) == key]
        for seq in held:
            for other in self._others(taken, seq):
                what = f"{taken.seq} by {taken.holder}, and {seq} by {other}, both of {key}"
                self.findings.append(QueueFinding(QueueBroken.KEY_TWICE, what))
        if taken.seq in self._taken:
            return
        for seq in self._of_key[key]:
            if seq < taken.seq and seq not in self.acked and seq not in self._dead:
                self.findings.append(QueueFinding(QueueBroken.KEY_ORDER, f"{taken.seq} before {seq}, both of {key}"))

    def _others(self, taken: Taken, seq: int | None = None) -> list[str]:
        """Return who certainly holds a task, by default the one taken, when another holder gets that one.

        A holder whose connection is about to end may have lost it already: the server notices the end first.
        """
        run, found = self._run, []
        for holder, hold in self._since[taken.seq if seq is None else seq].items():
            is_due = self._is_due(hold, taken.at)
            is_leaving = self._lefts.get(holder, float("inf")) <= taken.at + run.slack_s
            is_other = holder != taken.holder or seq is not None
            if is_other and not is_due and not is_leaving:
                found.append(holder)
        return found

    def _is_due(self, hold: _Hold, at: float) -> bool:
        """Return whether a hold may have ended by this time. The server counts from its beginning there: a holder that read it
        late has less of it left."""
        run = self._run
        if hold.asked_at is None:
            return at >= hold.at + run.ack_wait_s - run.slack_s
        is_forgotten = any(hold.asked_at <= killed <= hold.at + NATS_WRITES_S for killed in run.nats_kills)
        return at >= hold.asked_at + run.ack_wait_s or is_forgotten


def _floor(run: QueueHistory, lives: Lives[Event], stored: Iterable[int]) -> int:
    """Return up to which sequence every task of a backup had ended `SETTLED_S` before it began, as far as the history shows.

    A restore may deliver the others again: NATS lists no acks above the oldest task that has not ended, and the backup of a queue
    in use is restored from there (`fabric.queue_rewind`).
    """
    assert lives.began is not None
    early = [event for event in lives.before if not isinstance(event, Put) and event.at <= lives.began.at - SETTLED_S]
    refused = {(event.holder, event.seq) for event in lives.first if isinstance(event, NotHeld)}
    ended = {event.seq for event in early if isinstance(event, Acked) and (event.holder, event.seq) not in refused}
    newest = max((event.seq for event in early if isinstance(event, Taken)), default=0)
    ended |= {letter.task for letter in run.letters if letter.seq < newest}
    floor = 0
    for seq in sorted(stored):
        if seq not in ended:
            break
        floor = seq
    return floor


def _lost(stored: Iterable[int], run: QueueHistory, acked: set[int]) -> list[QueueFinding]:
    done = acked | {each.task for each in run.letters}
    return [QueueFinding(QueueBroken.LOST, f"task at {seq}") for seq in stored if seq not in done]


def _letters(run: QueueHistory, walk: _Walk, acked: set[int]) -> list[QueueFinding]:
    findings, lives = list[QueueFinding](), lives_of(run.events)
    known = {*walk.stored, *(each.seq for each in lives.after if isinstance(each, Taken))}
    last_seq = 0 if lives.restored is None else lives.restored.last_seq
    for letter in run.letters:
        what = f"task at {letter.task}, letter {letter.seq}"
        if letter.task not in known:
            findings.append(QueueFinding(QueueBroken.UNKNOWN_ORIGIN, what))
        if letter.reason == "max_deliveries" and letter.deliveries < run.max_deliveries:
            findings.append(QueueFinding(QueueBroken.EARLY_DEAD, what))
        is_again = walk.floor < letter.task <= last_seq
        if letter.task in acked and not (run.is_faulted or is_again):
            findings.append(QueueFinding(QueueBroken.DEAD_AND_ACKED, what))
    twice = [task for task, times in Counter(each.task for each in run.letters).items() if times > 1]
    return findings + [QueueFinding(QueueBroken.DEAD_TWICE, f"task at {task}") for task in twice]


def _redriven(run: QueueHistory) -> list[QueueFinding]:
    letters = {each.seq for each in run.letters}
    counted = Counter(each.letter for each in run.redriven)
    return [
        *(QueueFinding(QueueBroken.REDRIVEN_TWICE, f"letter {letter}") for letter, times in counted.items() if times > 1),
        *(QueueFinding(QueueBroken.UNKNOWN_ORIGIN, f"letter {letter}") for letter in counted if letter not in letters),
    ]


def _receipts(run: QueueHistory, walk: _Walk) -> list[QueueFinding]:
    """Compare each receipt with what had happened before it."""
    findings, sent, has_restore = list[QueueFinding](), set[int](), lives_of(run.events).restored is not None
    acked = walk.acked_before if has_restore else set(walk.acked)
    dead = {each.task for each in (run.lost_letters if has_restore else run.letters)}
    for event in run.events:
        if isinstance(event, Acked):
            sent.add(event.seq)
        elif isinstance(event, Restored):
            acked, dead = set(walk.acked), {each.task for each in run.letters}
            sent = {seq for seq in sent & walk.backed_up if seq <= event.last_seq}
        if not isinstance(event, ReceiptTold):
            continue
        is_true = event.seq in (sent & acked) if event.state == "acked" else event.seq in dead
        if not is_true:
            findings.append(QueueFinding(QueueBroken.FALSE_RECEIPT, f"{event.state}: {event.seq}"))
    return findings
