"""Check a run of pulls with faults against the contract (section 3, "Pull"), using only its history. No I/O.

A history is what the agents pulled and acknowledged over REST, in order, and the log of the channels at the end. Messages of work
queues are judged by `queue_checker`, each pull being a holder; this module adds what only pulls promise about them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.faults.checker import Entry
from tests.faults.queue_checker import QueueHistory, Taken, judge_queue
from tests.faults.verdicts import Ruling, Violation

NATS_WRITES_S: Final = 1.0
"""A longer time than nats-server takes to write the acks of a consumer: it gathers those of some milliseconds."""

# --- what happened ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PullBegan:
    """An agent sent a pull. No other one of the run has this `number`."""

    number: int
    agent: str
    at: float


@dataclass(frozen=True, slots=True)
class GapSeen:
    """A gap as it was reported to an agent: the messages from `first` to `last`, both included, do not come."""

    channel: str
    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class Pulled:
    """The answer to a pull: the messages of channels other than queues, in order, and the gaps."""

    number: int
    items: tuple[Entry, ...]
    gaps: tuple[GapSeen, ...]
    at: float


@dataclass(frozen=True, slots=True)
class AckSent:
    """An agent sent an ack of everything up to `seq`; whether the server received it is unknown."""

    agent: str
    channel: str
    seq: int


@dataclass(frozen=True, slots=True)
class AckConfirmed:
    """The server answered that this ack is written."""

    agent: str
    channel: str
    seq: int


@dataclass(frozen=True, slots=True)
class CursorRead:
    """This cursor was observed in the subscription's row."""

    agent: str
    channel: str
    seq: int


@dataclass(frozen=True, slots=True)
class TaskConfirmed:
    """The server answered that the ack of a queue message is done."""

    seq: int
    at: float


PullEvent = PullBegan | Pulled | AckSent | AckConfirmed | CursorRead


@dataclass(frozen=True)
class PullHistory:
    """A run. Every agent is subscribed to every channel of the log from before its first message.

    `expiry`: by channel and sequence, the time from which a message may not come, by the clock of every `at`. `tasks`: the events
    of the queue; `confirmed`: acks of its messages that the server answered as done, each with its place in `tasks.events`.
    `nats_kills`: when nats-server was killed; it writes acks of queue messages within `NATS_WRITES_S`. Both have the monotonic
    clock of `tasks`.
    """

    events: Sequence[PullEvent]
    log: Sequence[Entry]
    agents: Sequence[str]
    expiry: Mapping[tuple[str, int], float]
    tasks: QueueHistory
    confirmed: Sequence[tuple[int, TaskConfirmed]] = ()
    nats_kills: Sequence[float] = ()


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


def judge_pulls(run: PullHistory) -> Ruling:
    """Return every violation in a run, also those that `judge_queue` finds."""
    walk = _Walk(run)
    for event in run.events:
        walk.note(event)
    queue = judge_queue(run.tasks)
    found = [Violation(each.broken, each.what) for each in queue.findings]
    amounts = {"pulls": walk.pulls, "messages": len(run.log), "pulled": walk.items, "tasks": queue.stored, "dead": queue.dead}
    return Ruling(amounts, [*walk.violations, *walk.lost(), *_repeated_tasks(run), *found])


def _repeated_tasks(run: PullHistory) -> Iterator[Violation]:
    for place, task in run.confirmed:
        if any(abs(task.at - killed) < NATS_WRITES_S for killed in run.nats_kills):
            continue
        for event in run.tasks.events[place:]:
            if isinstance(event, Taken) and event.seq == task.seq:
                yield Violation(PullBroken.TASK_REPEATED, f"{task.seq} to {event.holder}")


@dataclass(slots=True)
class _Pull:
    """A pull that waits for its answer, and by channel the acks that were confirmed before it was sent."""

    agent: str
    confirmed: Mapping[str, int]
    began: float


class _Walk:
    """What each agent has pulled and acknowledged, by the events so far."""

    def __init__(self, run: PullHistory) -> None:
        self._run = run
        self._channels: dict[str, list[Entry]] = defaultdict(list)
        for entry in run.log:
            self._channels[entry.channel].append(entry)
        self._at = {(entry.channel, entry.seq): entry for entry in run.log}
        self._waiting: dict[int, _Pull] = {}
        self._sent: dict[tuple[str, str], int] = defaultdict(int)
        self._confirmed: dict[tuple[str, str], int] = defaultdict(int)
        self._got: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self._gaps: dict[tuple[str, str], list[GapSeen]] = defaultdict(list)
        self.pulls = self.items = 0
        self.violations: list[Violation] = []

    def note(self, event: PullEvent) -> None:
        """Note what an event changes."""
        match event:
            case PullBegan(number, agent, at):
                confirmed = {channel: self._confirmed[agent, channel] for channel in self._channels}
                self._waiting[number] = _Pull(agent, confirmed, at)
            case Pulled():
                self._take(self._waiting.pop(event.number), event)
            case AckSent(agent, channel, seq):
                self._sent[agent, channel] = max(self._sent[agent, channel], seq)
            case AckConfirmed(agent, channel, seq):
                self._confirmed[agent, channel] = max(self._confirmed[agent, channel], seq)
            case CursorRead(agent, channel, seq):
                if seq > self._sent[agent, channel]:
                    self._find(PullBroken.ACKED_BY_READING, f"{agent} at {channel} {seq}, acked {self._sent[agent, channel]}")

    def _find(self, broken: PullBroken, what: str) -> None:
        self.violations.append(Violation(broken, what))

    def _take(self, pull: _Pull, pulled: Pulled) -> None:
        self.pulls += 1
        self.items += len(pulled.items)
        for gap in pulled.gaps:
            self._gaps[pull.agent, gap.channel].append(gap)
            self._check_gap(pull, gap, pulled)
        for channel in {item.channel for item in pulled.items}:
            items = [item for item in pulled.items if item.channel == channel]
            gaps = [gap for gap in pulled.gaps if gap.channel == channel]
            self._check_items(pull, items, pulled)
            self._check_holes(pull, channel, items, gaps)
        self._got[pull.agent].update((item.channel, item.seq) for item in pulled.items)

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
            if self._run.expiry.get((item.channel, item.seq), pull.began) < pull.began:
                self._find(PullBroken.EXPIRED, what)
            last = item.seq

    def _check_holes(self, pull: _Pull, channel: str, items: Sequence[Entry], gaps: Sequence[GapSeen]) -> None:
        """Check that between the highest ack and the last message of a pull nothing is missing without a gap."""
        shown = {item.seq for item in items}
        for entry in self._between(channel, self._sent[pull.agent, channel], max(shown)):
            if entry.seq in shown or any(gap.first <= entry.seq <= gap.last for gap in gaps):
                continue
            what = f"{channel} {entry.seq} to {pull.agent}"
            if (channel, entry.seq) in self._got[pull.agent]:
                self._find(PullBroken.ACKED_BY_READING, what)
            else:
                self._find(PullBroken.GAP_NOT_TOLD if (channel, entry.seq) in self._run.expiry else PullBroken.SKIPPED, what)

    def _between(self, channel: str, after: int, until: int) -> Sequence[Entry]:
        entries = self._channels[channel]
        first = bisect_right(entries, after, key=lambda entry: entry.seq)
        return entries[first : bisect_right(entries, until, key=lambda entry: entry.seq)]

    def _check_gap(self, pull: _Pull, gap: GapSeen, pulled: Pulled) -> None:
        for entry in self._between(gap.channel, gap.first - 1, gap.last):
            if self._run.expiry.get((gap.channel, entry.seq), pulled.at + 1) > pulled.at:
                self._find(PullBroken.FALSE_GAP, f"{gap.channel} {entry.seq} to {pull.agent}, {gap.reason}")

    def lost(self) -> Iterator[Violation]:
        """Yield the messages that an agent never got and was told no gap of."""
        for agent in self._run.agents:
            for entry in self._run.log:
                place, gaps = (entry.channel, entry.seq), self._gaps[agent, entry.channel]
                if place not in self._got[agent] and not any(gap.first <= entry.seq <= gap.last for gap in gaps):
                    yield Violation(PullBroken.LOST, f"{entry.channel} {entry.seq} to {agent}")
