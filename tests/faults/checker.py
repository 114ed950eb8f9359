"""Check a run with faults against the contract (section 5, sentences 1 to 7 and 11), using only its history. No I/O.

A history is what the clients saw, in order, and the contents of the log at the end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TypeVar

T = TypeVar("T")

# --- what happened ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sent:
    """The first time a publish was sent. `data` is its JSON text, which no other publish of the run has.

    `line` identifies an ordered sequence of publishes: an SDK agent over all its connections, or one bare connection. `number`
    rises within it.
    """

    line: str
    number: int
    sender: str
    channel: str
    data: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """The answer that a publish was stored. A second one answers the same publish, repeated with its key."""

    line: str
    number: int
    seq: int
    message_id: str | None
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer that a publish was not stored; `code` is the error's."""

    line: str
    number: int
    code: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The answer `outcome_unknown`, or no answer."""

    line: str
    number: int


@dataclass(frozen=True, slots=True)
class Joined:
    """A subscriber has a new connection. `connection` rises; the SDK counts as one connection, because it hides reconnects."""

    agent: str
    connection: int


@dataclass(frozen=True, slots=True)
class Began:
    """A subscriber subscribed on an open connection: the channel is delivered again, from above `cursor`."""

    agent: str
    connection: int
    channel: str
    cursor: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as it was delivered."""

    channel: str
    seq: int
    prev: int | None
    message_id: str
    sender: str
    data: str


@dataclass(frozen=True, slots=True)
class Got:
    """A subscriber received a message."""

    agent: str
    connection: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class Missed:
    """A subscriber received a gap. Nothing is removed in these runs, so any gap is wrong."""

    agent: str
    connection: int
    channel: str
    reason: str


@dataclass(frozen=True, slots=True)
class Acked:
    """A subscriber acknowledged everything up to `seq`; whether the server received it is unknown."""

    agent: str
    connection: int
    channel: str
    seq: int


@dataclass(frozen=True, slots=True)
class Written:
    """This cursor was observed in the subscription's row."""

    agent: str
    channel: str
    seq: int


Event = Sent | Stored | Refused | Unknown | Joined | Began | Got | Missed | Acked | Written


@dataclass(frozen=True)
class History:
    """A run: its events in order, the log as a new agent read it from the first message on, and the channels that each agent was
    subscribed to before the first publish.

    `is_retried`: the platform was unavailable for longer than the server retries, so a publish with a key may have been refused
    and published again, after others sent at the same time; and a publish with an unknown outcome may have been stored later.
    """

    events: Sequence[Event]
    log: Sequence[Entry]
    subscribers: Mapping[str, Sequence[str]]
    is_retried: bool = False

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]


# --- what must hold --------------------------------------------------------------------------------------------------


class Broken(StrEnum):
    """A violated promise."""

    LOST = "acknowledged, but not in the log"
    DOUBLED = "in the log twice"
    NOT_KNOWN = "published again with its key, and not recognised"
    CHANGED = "not what was sent or acknowledged"
    FOREIGN = "in the log, but nobody sent it"
    NOT_REFUSED = "answered as not stored, but in the log"
    DISORDER = "out of order in the log"
    PREV = "names a wrong predecessor"
    NOT_IN_LOG = "delivered, but not in the log"
    REPEATED = "delivered again on one connection, or at or below a written acknowledgement"
    SKIPPED = "skipped in its delivery"
    GAP = "reported as a gap, though nothing was removed"


@dataclass(frozen=True, slots=True)
class Finding:
    broken: Broken
    what: str

    def __str__(self) -> str:
        return f"{self.what}: {self.broken}"


@dataclass(frozen=True)
class Verdict:
    """The violations found, and the amount of data checked."""

    published: int
    acknowledged: int
    unknown: int
    refused: int
    repeats: int
    deliveries: int
    findings: Sequence[Finding] = field(default=())

    @cached_property
    def counts(self) -> Counter[Broken]:
        return Counter(finding.broken for finding in self.findings)

    def __str__(self) -> str:
        shown = "\n".join(map(str, self.findings[:20]))
        return f"{len(self.findings)} broken promises among {self.published} publishes ({dict(self.counts)})\n{shown}"


def judge(history: History) -> Verdict:
    """Return every violation in a run."""
    run = _Run(history)
    rules = (_log, _answers, _order_of_lines, _order_of_answers, _deliveries, _connections, _completeness)
    return Verdict(
        published=len(run.sent),
        acknowledged=len({(stored.line, stored.number) for stored in history.of(Stored)}),
        unknown=len(history.of(Unknown)),
        refused=len(history.of(Refused)),
        repeats=_repeats(history),
        deliveries=len(history.of(Got)),
        findings=[finding for rule in rules for finding in rule(run)],
    )


class _Run:
    """A history with the indexes that the rules need."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.sent = {(sent.line, sent.number): sent for sent in history.of(Sent)}
        self.by_data = {sent.data: sent for sent in self.sent.values()}
        self.at = {(entry.channel, entry.seq): entry for entry in history.log}
        self.in_log = {entry.data for entry in history.log}
        self.channels: dict[str, list[Entry]] = defaultdict(list)
        for entry in history.log:
            self.channels[entry.channel].append(entry)

    def above(self, channel: str, seq: int) -> Entry | None:
        """Return a channel's first message above a sequence."""
        entries = self.channels[channel]
        at = bisect_right(entries, seq, key=lambda entry: entry.seq)
        return entries[at] if at < len(entries) else None


def _name(entry: Entry) -> str:
    return f"{entry.channel} {entry.seq} ({entry.data[:60]})"


def _log(run: _Run) -> Iterator[Finding]:
    """Check that the log holds the published messages, each once, as a chain."""
    seen: set[str] = set()
    for entries in run.channels.values():
        for before, entry in zip([None, *entries], entries, strict=False):
            sent = run.by_data.get(entry.data)
            if sent is None or (sent.sender, sent.channel) != (entry.sender, entry.channel):
                yield Finding(Broken.FOREIGN, _name(entry))
            if entry.data in seen:
                yield Finding(Broken.DOUBLED, _name(entry))
            if before is not None and before.seq >= entry.seq:
                yield Finding(Broken.DISORDER, _name(entry))
            if entry.prev != (before.seq if before else None):
                yield Finding(Broken.PREV, f"{_name(entry)}, prev {entry.prev}")
            seen.add(entry.data)


def _answers(run: _Run) -> Iterator[Finding]:
    """Check that acknowledged messages are where the answer says, refused ones are absent, and repeats are recognized."""
    first: dict[tuple[str, int], Stored] = {}
    for stored in run.history.of(Stored):
        sent = run.sent[stored.line, stored.number]
        before = first.setdefault((stored.line, stored.number), stored)
        if before is not stored and (stored.seq, stored.duplicate) != (before.seq, True):
            yield Finding(Broken.NOT_KNOWN, f"{sent.channel} {before.seq} ({sent.data[:60]}), now {stored.seq}")
        entry = run.at.get((sent.channel, stored.seq))
        if entry is None:
            yield Finding(Broken.LOST, f"{sent.channel} {stored.seq} ({sent.data[:60]})")
        elif (entry.data, entry.message_id) != (sent.data, stored.message_id):
            broken = Broken.CHANGED if sent.data in run.in_log or entry.message_id == stored.message_id else Broken.LOST
            yield Finding(broken, f"{_name(entry)}, acknowledged as {stored.message_id} ({sent.data[:60]})")
    for refused in run.history.of(Refused):
        sent = run.sent[refused.line, refused.number]
        if sent.data in run.in_log:
            yield Finding(Broken.NOT_REFUSED, f"{sent.data[:60]}, {refused.code}")


def _order_of_lines(run: _Run) -> Iterator[Finding]:
    """Check that publishes of one line are in their channel in the order in which they were sent."""
    last: dict[tuple[str, str], int] = {}
    unknown = {(event.line, event.number) for event in run.history.of(Unknown)}
    for entry in run.history.log:
        sent = run.by_data.get(entry.data)
        if sent is None or (run.history.is_retried and (sent.key or (sent.line, sent.number) in unknown)):
            continue
        if last.get((sent.line, sent.channel), -1) > sent.number:
            yield Finding(Broken.DISORDER, _name(entry))
        last[sent.line, sent.channel] = sent.number


def _order_of_answers(run: _Run) -> Iterator[Finding]:
    """Check that a message acknowledged before another was sent comes before it, whoever sent them."""
    stands = {entry.data: entry.seq for entry in run.history.log}
    highest: dict[str, int] = defaultdict(int)
    for event in run.history.events:
        if isinstance(event, Stored):
            channel = run.sent[event.line, event.number].channel
            highest[channel] = max(highest[channel], event.seq)
        elif isinstance(event, Sent) and stands.get(event.data, highest[event.channel] + 1) <= highest[event.channel]:
            yield Finding(Broken.DISORDER, f"{event.channel} {stands[event.data]} ({event.data[:60]}), {highest[event.channel]}")


def _deliveries(run: _Run) -> Iterator[Finding]:
    """Check that delivered messages equal those in the log."""
    for got in run.history.of(Got):
        entry = run.at.get((got.entry.channel, got.entry.seq))
        if entry is None:
            yield Finding(Broken.NOT_IN_LOG, f"to {got.agent}: {_name(got.entry)}")
        elif entry.prev != got.entry.prev:
            yield Finding(Broken.PREV, f"to {got.agent}: {_name(got.entry)}, prev {got.entry.prev}, not {entry.prev}")
        elif entry != got.entry:
            yield Finding(Broken.CHANGED, f"to {got.agent}: {_name(got.entry)}, not {_name(entry)}")
    for missed in run.history.of(Missed):
        yield Finding(Broken.GAP, f"to {missed.agent}: {missed.channel}, {missed.reason}")


@dataclass(slots=True)
class _Position:
    """A subscriber's position in a channel. `floor` and `ceiling` are the range after which this connection may begin: a cursor
    observed in the row, and the highest ack so far."""

    written: int = 0
    acked: int = 0
    floor: int = 0
    ceiling: int = 0
    last: int | None = None


def _connections(run: _Run) -> Iterator[Finding]:
    """Check that a connection begins after an acked message, no earlier than the last written cursor, and skips nothing."""
    places: dict[tuple[str, str], _Position] = defaultdict(_Position)
    for event in run.history.events:
        match event:
            case Joined(agent):
                for (who, _), place in places.items():
                    if who == agent:
                        place.floor, place.ceiling, place.last = place.written, place.acked, None
            case Began(agent, _, channel, _):
                yield from _beginning(places[agent, channel], event)
            case Written(agent, channel, seq):
                place = places[agent, channel]
                place.written = max(place.written, seq)
            case Acked(agent, _, channel, seq):
                place = places[agent, channel]
                place.acked = max(place.acked, seq)
            case Got(agent, _, entry):
                yield from _turn(run, places[agent, entry.channel], event)
            case _:
                pass


def _beginning(place: _Position, began: Began) -> Iterator[Finding]:
    """Check that a delivery begins between the written cursor and the last ack."""
    if began.cursor > place.acked:
        yield Finding(Broken.SKIPPED, f"to {began.agent}: {began.channel} begins at {began.cursor}, acknowledged {place.acked}")
    if began.cursor < place.written:
        yield Finding(Broken.REPEATED, f"to {began.agent}: {began.channel} begins at {began.cursor}, written {place.written}")
    place.last = began.cursor


def _turn(run: _Run, place: _Position, got: Got) -> Iterator[Finding]:
    """Check that this message is the next one of its connection."""
    entry, last = got.entry, place.last
    if entry.seq <= (place.floor if last is None else last):
        yield Finding(Broken.REPEATED, f"to {got.agent}, connection {got.connection}: {_name(entry)}")
    due = run.above(entry.channel, place.ceiling if last is None else last)
    if due is not None and due.seq < entry.seq:
        yield Finding(Broken.SKIPPED, f"to {got.agent}, connection {got.connection}: {_name(due)}")
    place.last = max(last or 0, entry.seq)


def _completeness(run: _Run) -> Iterator[Finding]:
    """Check that every subscriber received everything, on any connection."""
    got: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for event in run.history.of(Got):
        got[event.agent].add((event.entry.channel, event.entry.seq))
    for agent, channels in run.history.subscribers.items():
        for channel in channels:
            for entry in run.channels[channel]:
                if (channel, entry.seq) not in got[agent]:
                    yield Finding(Broken.SKIPPED, f"to {agent}: {_name(entry)}")


def _repeats(history: History) -> int:
    """Count messages that a subscriber received more than once."""
    times = Counter((got.agent, got.entry.channel, got.entry.seq) for got in history.of(Got))
    return sum(count - 1 for count in times.values())
