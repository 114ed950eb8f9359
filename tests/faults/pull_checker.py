"""Check a run of pulls with faults against the contract (section 3, "Pull"), using only its history. No I/O.

A history is what the agents pulled and acknowledged over REST, in order, and the log of the channels at the end. Messages of work
queues are judged by `queue_checker`, each pull being a holder; this module adds what only pulls promise about them.

After a restore each agent's cursor is that of the backup: the highest ack that was answered before it began, or one of those sent
until it was complete (`restores`). Everything above it comes again, and an ack for the lost log counts no longer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.faults.checker import Entry
from tests.faults.queue_checker import NATS_WRITES_S, QueueHistory, Taken, judge_queue
from tests.faults.restores import EPOCH, Restored, RestoreEvent, lives_of
from tests.faults.verdicts import Ruling, Violation

# --- what happened ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PullBegan:
    """An agent sent a pull. No other one of the run has this `number`."""

    number: int
    agent: str
    at: float


@dataclass(frozen=True, slots=True)
class GapSeen:
    """A gap as it was reported to an agent: the messages from `first` to `last`, both included, do not come. None for `last`: an
    unknown number of messages."""

    channel: str
    first: int
    last: int | None
    reason: str

    def has(self, seq: int) -> bool:
        """Whether a message of this log is in the gap. One that reports a replaced log has messages of the lost one only."""
        return self.reason != EPOCH and self.last is not None and self.first <= seq <= self.last


@dataclass(frozen=True, slots=True)
class Pulled:
    """The answer to a pull: the messages of channels other than queues, in order, the gaps, and the epoch of the log."""

    number: int
    items: tuple[Entry, ...]
    gaps: tuple[GapSeen, ...]
    at: float
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class AckSent:
    """An agent sent an ack of everything up to `seq`, with the epoch of a pull or without one; whether the server received it is
    unknown."""

    agent: str
    channel: str
    seq: int
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class AckConfirmed:
    """The server answered that this ack is written."""

    agent: str
    channel: str
    seq: int
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class CursorRead:
    """This cursor was observed in the subscription's row."""

    agent: str
    channel: str
    seq: int
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class TaskConfirmed:
    """The server answered that the ack of a queue message is done. `holder` is that of its `Taken`."""

    seq: int
    at: float
    holder: str = ""


PullEvent = PullBegan | Pulled | AckSent | AckConfirmed | CursorRead | RestoreEvent


@dataclass(frozen=True)
class LostLog:
    """The channels at the end of the log that a restore has replaced: their messages, and when some expired."""

    entries: Sequence[Entry]
    expiry: Mapping[tuple[str, int], float]


@dataclass(frozen=True)
class PullHistory:
    """A run. Every agent is subscribed to every channel of the log from before its first message.

    `expiry`: by channel and sequence, the time from which a message may not come, by the clock of every `at`. `tasks`: the events
    of the queue; `confirmed`: acks of its messages that the server answered as done, each with its place in `tasks.events`.
    `nats_kills`: when nats-server was killed; it writes acks of queue messages within `NATS_WRITES_S`. Both have the monotonic
    clock of `tasks`. `lost_log` is given if the run has a restore.
    """

    events: Sequence[PullEvent]
    log: Sequence[Entry]
    agents: Sequence[str]
    expiry: Mapping[tuple[str, int], float]
    tasks: QueueHistory
    confirmed: Sequence[tuple[int, TaskConfirmed]] = ()
    nats_kills: Sequence[float] = ()
    lost_log: LostLog = LostLog((), {})


# --- what must hold --------------------------------------------------------------------------------------------------


class PullBroken(StrEnum):
    """A violated promise."""

    LOST = "never pulled, and no gap told"
    SKIPPED = "passed over in a pull"
    GAP_NOT_TOLD = "expired, and passed over without a gap"
    FALSE_GAP = "reported as a gap, though it had not expired"
    EXPIRED = "pulled after it had expired"
    REPEATED = "pulled again after the answer that its ack is written"
    DISORDER = "out of order within its channel"
    CHANGED = "not as it is in the log"
    ACKED_BY_READING = "acknowledged by reading"
    TASK_REPEATED = "a queue message, pulled again after the answer that its ack is done"
    RESTORE_NOT_TOLD = "messages of a restored log, without the gap that tells it was replaced"
    OLD_ACK = "an ack for the lost log, or a receipt of it, was accepted after a restore"
    OLD_EPOCH = "a page of a restored log with the epoch of the lost one"


AFTER_RESTORE: Final = frozenset({PullBroken.RESTORE_NOT_TOLD, PullBroken.OLD_ACK, PullBroken.OLD_EPOCH})
"""The violations that only a run with a restore has."""


def judge_pulls(run: PullHistory) -> Ruling:
    """Return every violation in a run, also those that `judge_queue` finds."""
    walk = _Walk(run)
    for event in run.events:
        walk.note(event)
    queue = judge_queue(run.tasks)
    found = [Violation(each.broken, each.what) for each in queue.findings]
    amounts = {"pulls": walk.pulls, "messages": len(run.log), "pulled": walk.items, "tasks": queue.stored, "dead": queue.dead}
    return Ruling(amounts, [*walk.violations, *walk.lost(), *_wrong_acks(run), *found])


def _wrong_acks(run: PullHistory) -> Iterator[Violation]:
    """Yield acks of queue messages that had no effect, and those of messages of a lost log that had one.

    `judge_queue` says which tasks may come again after a restore.
    """
    restored_at = next((at for at, event in enumerate(run.tasks.events) if isinstance(event, Restored)), len(run.tasks.events))
    old = {event.holder for event in run.tasks.events[:restored_at] if isinstance(event, Taken)}
    for place, task in run.confirmed:
        if place > restored_at and task.holder in old:
            yield Violation(PullBroken.OLD_ACK, f"{task.seq} of {task.holder}")
        if any(abs(task.at - killed) < NATS_WRITES_S for killed in run.nats_kills):
            continue
        for event in run.tasks.events[place : restored_at if place <= restored_at else None]:
            if isinstance(event, Taken) and event.seq == task.seq:
                yield Violation(PullBroken.TASK_REPEATED, f"{task.seq} to {event.holder}")


@dataclass(slots=True)
class _Pull:
    """A pull that waits for its answer, and by channel the acks that were confirmed before it was sent."""

    agent: str
    confirmed: Mapping[str, int]
    began: float
    acked_since: Collection[str]
    """The channels of which the agent had acknowledged anything since the restore of their log."""


Place = tuple[str, str]
"""An agent and a channel."""


class _Walk:
    """What each agent has pulled and acknowledged, by the events so far."""

    def __init__(self, run: PullHistory) -> None:
        self._run, self._lives = run, lives_of(run.events)
        is_lost = self._lives.restored is not None
        self._read(*(run.lost_log.entries, run.lost_log.expiry) if is_lost else (run.log, run.expiry))
        self._waiting: dict[int, _Pull] = {}
        self._sent: dict[Place, int] = defaultdict(int)
        self._confirmed: dict[Place, int] = defaultdict(int)
        self._got: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self._gaps: dict[Place, list[GapSeen]] = defaultdict(list)
        self._old_epochs: set[str | None] = set()
        """The epochs of the logs before a restore."""
        self._old_got: dict[str, set[tuple[str, int]]] = defaultdict(set)
        """What each agent had pulled or was told of the messages before a restore that the backup has."""
        self._old_sent: dict[Place, int] = defaultdict(int)
        """The highest ack that a restored cursor may have."""
        self._told: set[Place] = set()
        """Who was told that the log of a channel was replaced."""
        self._acked_since: set[Place] = set()
        """Who has acknowledged something of a restored log."""
        self.pulls = self.items = 0
        self.violations: list[Violation] = []

    def _read(self, log: Sequence[Entry], expiry: Mapping[tuple[str, int], float]) -> None:
        """Compare pulls with this log from now on."""
        self._expiry = expiry
        self._channels: dict[str, list[Entry]] = defaultdict(list)
        for entry in log:
            self._channels[entry.channel].append(entry)
        self._at = {(entry.channel, entry.seq): entry for entry in log}

    def note(self, event: PullEvent) -> None:
        """Note what an event changes."""
        match event:
            case PullBegan(number, agent, at):
                confirmed = {channel: self._confirmed[agent, channel] for channel in self._channels}
                acked_since = {channel for of, channel in self._acked_since if of == agent}
                self._waiting[number] = _Pull(agent, confirmed, at, acked_since)
            case Pulled():
                self._take(self._waiting.pop(event.number), event)
            case AckSent(agent, channel, seq, epoch):
                if self._counts((agent, channel), epoch):
                    self._sent[agent, channel] = max(self._sent[agent, channel], seq)
            case AckConfirmed():
                self._confirm(event)
            case CursorRead(agent, channel, seq, epoch):
                sent = self._old_sent[agent, channel] if epoch in self._old_epochs else self._sent[agent, channel]
                if seq > sent:
                    self._find(PullBroken.ACKED_BY_READING, f"{agent} at {channel} {seq}, acked {sent}")
            case Restored():
                self._restore(event.last_seq)
            case _:
                pass

    def _counts(self, place: Place, epoch: str | None) -> bool:
        """Whether an ack may count: after a restore it needs the epoch of the new log, or an earlier ack that had it."""
        return not self._old_epochs or (place in self._acked_since if epoch is None else epoch not in self._old_epochs)

    def _confirm(self, ack: AckConfirmed) -> None:
        place = ack.agent, ack.channel
        if not self._counts(place, ack.epoch):
            self._find(PullBroken.OLD_ACK, f"{ack.channel} {ack.seq} of {ack.agent}, epoch {ack.epoch}")
            return
        if self._old_epochs:
            self._acked_since.add(place)
        self._confirmed[place] = max(self._confirmed[place], ack.seq)

    def _restore(self, last_seq: int) -> None:
        """Go back to what the backup has."""
        self._old_epochs = {event.epoch for event in self._lives.first if isinstance(event, Pulled)} - {None}
        self._confirmed, self._sent = defaultdict(int), defaultdict(int)
        for event in self._lives.before:
            if isinstance(event, AckConfirmed):
                place, seq = (event.agent, event.channel), min(event.seq, last_seq)
                self._confirmed[place] = max(self._confirmed[place], seq)
        for event in self._lives.possible:
            if isinstance(event, AckSent):
                place = event.agent, event.channel
                self._old_sent[place] = max(self._old_sent[place], event.seq)
                self._sent[place] = max(self._sent[place], min(event.seq, last_seq))
        for agent in self._run.agents:
            gaps = [gap for channel in self._channels for gap in self._gaps[agent, channel]]
            told = {(gap.channel, seq) for gap in gaps for seq in range(gap.first, (gap.last or gap.first) + 1)}
            self._old_got[agent] = {each for each in self._got[agent] | told if each[1] <= last_seq}
        self._got.clear()
        self._gaps.clear()
        self._read(self._run.log, self._run.expiry)

    def _find(self, broken: PullBroken, what: str) -> None:
        self.violations.append(Violation(broken, what))

    def _take(self, pull: _Pull, pulled: Pulled) -> None:
        self.pulls += 1
        self.items += len(pulled.items)
        if pulled.epoch in self._old_epochs:
            self._find(PullBroken.OLD_EPOCH, f"pull {pulled.number} of {pull.agent}")
        for gap in pulled.gaps:
            self._gaps[pull.agent, gap.channel].append(gap)
            if gap.reason == EPOCH:
                self._check_restored(pull, gap)
            else:
                self._check_gap(pull, gap, pulled)
        for channel in {item.channel for item in pulled.items}:
            items = [item for item in pulled.items if item.channel == channel]
            gaps = [gap for gap in pulled.gaps if gap.channel == channel]
            self._check_items(pull, items, pulled)
            self._check_holes(pull, channel, items, gaps)
        self._got[pull.agent].update((item.channel, item.seq) for item in pulled.items)

    def _check_restored(self, pull: _Pull, gap: GapSeen) -> None:
        """Check a gap that says that the log was replaced: until an ack of the new log, from the first lost message on."""
        restored, place, what = self._lives.restored, (pull.agent, gap.channel), f"{gap} to {pull.agent}"
        if restored is None or not self._old_epochs:
            self._find(PullBroken.FALSE_GAP, f"{what}, and the log was not replaced")
            return
        self._told.add(place)
        most = max(restored.last_seq, self._old_sent[place]) + 1
        if gap.channel in pull.acked_since:
            self._find(PullBroken.FALSE_GAP, f"{what}, after an ack of the new log")
        if gap.last is not None or not restored.last_seq < gap.first <= most:
            self._find(PullBroken.FALSE_GAP, f"{what}, not from {restored.last_seq + 1} on")

    def _check_items(self, pull: _Pull, items: Sequence[Entry], pulled: Pulled) -> None:
        last = 0
        for item in items:
            what = f"{item.channel} {item.seq} to {pull.agent}, pull {pulled.number}"
            if item.seq <= last:
                self._find(PullBroken.DISORDER, what)
            if item.seq <= pull.confirmed[item.channel]:
                self._find(PullBroken.REPEATED, f"{what}, confirmed {pull.confirmed[item.channel]}")
            if self._at.get((item.channel, item.seq)) != item:
                self._find(PullBroken.CHANGED, f"{what}: {item}, not {self._at.get((item.channel, item.seq))}")
            if self._expiry.get((item.channel, item.seq), pull.began) < pull.began:
                self._find(PullBroken.EXPIRED, what)
            last = item.seq
        if self._old_epochs and items and (pull.agent, items[0].channel) not in self._told:
            self._find(PullBroken.RESTORE_NOT_TOLD, f"{items[0].channel} to {pull.agent}, pull {pulled.number}")

    def _check_holes(self, pull: _Pull, channel: str, items: Sequence[Entry], gaps: Sequence[GapSeen]) -> None:
        """Check that between the highest ack and the last message of a pull nothing is missing without a gap."""
        shown = {item.seq for item in items}
        for entry in self._between(channel, self._sent[pull.agent, channel], max(shown)):
            if entry.seq in shown or any(gap.has(entry.seq) for gap in gaps):
                continue
            what = f"{channel} {entry.seq} to {pull.agent}"
            if (channel, entry.seq) in self._got[pull.agent]:
                self._find(PullBroken.ACKED_BY_READING, what)
            else:
                self._find(PullBroken.GAP_NOT_TOLD if (channel, entry.seq) in self._expiry else PullBroken.SKIPPED, what)

    def _between(self, channel: str, after: int, until: int) -> Sequence[Entry]:
        entries = self._channels[channel]
        first = bisect_right(entries, after, key=lambda entry: entry.seq)
        return entries[first : bisect_right(entries, until, key=lambda entry: entry.seq)]

    def _check_gap(self, pull: _Pull, gap: GapSeen, pulled: Pulled) -> None:
        for entry in self._between(gap.channel, gap.first - 1, gap.last or gap.first):
            if self._expiry.get((gap.channel, entry.seq), pulled.at + 1) > pulled.at:
                self._find(PullBroken.FALSE_GAP, f"{gap.channel} {entry.seq} to {pull.agent}, {gap.reason}")

    def lost(self) -> Iterator[Violation]:
        """Yield the messages that an agent never got and was told no gap of. After a restore those above the cursor of the backup
        have to come again."""
        last_seq = 0 if self._lives.restored is None else self._lives.restored.last_seq
        for agent in self._run.agents:
            for entry in self._run.log:
                place, gaps = (entry.channel, entry.seq), self._gaps[agent, entry.channel]
                if place in self._got[agent] or any(gap.has(entry.seq) for gap in gaps):
                    continue
                is_acked = entry.seq <= min(self._old_sent[agent, entry.channel], last_seq)
                if not (is_acked and place in self._old_got[agent]):
                    yield Violation(PullBroken.LOST, f"{entry.channel} {entry.seq} to {agent}")
            for channel in self._channels if self._old_epochs else ():
                if (agent, channel) not in self._told:
                    yield Violation(PullBroken.RESTORE_NOT_TOLD, f"{channel} to {agent}")
