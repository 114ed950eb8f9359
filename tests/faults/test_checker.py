"""The checker of the fault tests, tested: runs that are in order stay green, and whatever is broken in one turns it red."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.faults.checker import (
    Acked,
    Broken,
    Entry,
    Event,
    Got,
    History,
    Joined,
    Missed,
    Refused,
    Sent,
    Stored,
    Unknown,
    Written,
    judge,
)

T = TypeVar("T")

AGENTS = ("agt_a", "agt_b")
CHANNELS = ("chn_x", "chn_y")


@dataclass
class Reader:
    """A subscriber of the model: what it was sent and acknowledged, and what is written of that, by channel."""

    agent: str
    connection: int = 0
    sent: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    acked: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    written: dict[str, int] = field(default_factory=lambda: defaultdict(int))


class Model:
    """A platform that keeps every promise, moved by chance."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.events: list[Event] = []
        self.log: list[Entry] = []
        self.seq = self.lines = 0
        self.current: dict[str, str] = {}
        self.waiting: dict[str, list[Sent]] = defaultdict(list)
        self.readers = [Reader(agent) for agent in AGENTS]
        for reader in self.readers:
            self.events.append(Joined(reader.agent, reader.connection))

    def run(self, steps: int) -> History:
        moves = (self.publish, self.publish, self.answer, self.answer, self.deliver, self.deliver, self.deliver)
        for _ in range(steps):
            self.chance.choice((*moves, self.acknowledge, self.write, self.reconnect, self.repeat))()
        while any(self.waiting.values()):
            self.answer()
        for reader in self.readers:
            for channel in CHANNELS:
                while self.next_for(reader, channel):
                    self.deliver_to(reader, channel)
        return History(self.events, self.log, dict.fromkeys(AGENTS, CHANNELS))

    def publish(self) -> None:
        agent = self.chance.choice(AGENTS)
        if agent not in self.current or self.chance.random() < 0.1:
            self.lines += 1
            self.current[agent] = f"{agent}/{self.lines}"
        number, line = len(self.events), self.current[agent]
        sent = Sent(line, number, agent, self.chance.choice(CHANNELS), f'{{"by":"{line}","n":{number}}}', f"{line} {number}")
        self.events.append(sent)
        self.waiting[line].append(sent)

    def answer(self) -> None:
        lines = [line for line, waiting in self.waiting.items() if waiting]
        if not lines:
            return
        sent = self.waiting[self.chance.choice(lines)].pop(0)
        outcome = self.chance.choice("ssssur")
        if outcome == "r":
            self.events.append(Refused(sent.line, sent.number, "not_stored"))
            return
        if outcome == "u" and self.chance.random() < 0.5:
            self.events.append(Unknown(sent.line, sent.number))
            return
        entry = self.store(sent)
        is_known = outcome == "s"
        self.events.append(
            Stored(sent.line, sent.number, entry.seq, entry.message_id) if is_known else Unknown(sent.line, sent.number)
        )

    def store(self, sent: Sent) -> Entry:
        self.seq += self.chance.choice((1, 1, 2))
        before = [entry.seq for entry in self.log if entry.channel == sent.channel]
        entry = Entry(sent.channel, self.seq, before[-1] if before else None, f"msg_{self.seq}", sent.sender, sent.data)
        self.log.append(entry)
        return entry

    def repeat(self) -> None:
        answered = [event for event in self.events if isinstance(event, Stored)]
        if answered:
            self.events.append(replace(self.chance.choice(answered), duplicate=True))

    def next_for(self, reader: Reader, channel: str) -> Entry | None:
        return next((entry for entry in self.log if entry.channel == channel and entry.seq > reader.sent[channel]), None)

    def deliver(self) -> None:
        self.deliver_to(self.chance.choice(self.readers), self.chance.choice(CHANNELS))

    def deliver_to(self, reader: Reader, channel: str) -> None:
        if entry := self.next_for(reader, channel):
            reader.sent[channel] = entry.seq
            self.events.append(Got(reader.agent, reader.connection, entry))

    def acknowledge(self) -> None:
        reader, channel = self.chance.choice(self.readers), self.chance.choice(CHANNELS)
        if reader.sent[channel] > reader.acked[channel]:
            reader.acked[channel] = reader.sent[channel]
            self.events.append(Acked(reader.agent, reader.connection, channel, reader.sent[channel]))

    def write(self) -> None:
        reader, channel = self.chance.choice(self.readers), self.chance.choice(CHANNELS)
        reader.written[channel] = reader.acked[channel]
        self.events.append(Written(reader.agent, channel, reader.acked[channel]))

    def reconnect(self) -> None:
        reader = self.chance.choice(self.readers)
        reader.connection += 1
        self.events.append(Joined(reader.agent, reader.connection))
        for channel in CHANNELS:
            reader.sent[channel] = self.chance.choice((reader.written, reader.acked))[channel]
            reader.acked[channel] = max(reader.acked[channel], reader.sent[channel])


@st.composite
def runs(draw: st.DrawFn) -> tuple[History, random.Random]:
    """A run in order that is long enough to break anything in it, and the chance that says where."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    return Model(chance).run(draw(st.integers(120, 250))), chance


# --- what can be broken in a run -------------------------------------------------------------------------------------

Plant = Callable[[History, random.Random], History]


def with_event(run: History, at: int, *events: Event) -> History:
    return replace(run, events=[*run.events[:at], *events, *run.events[at + 1 :]])


def pick(chance: random.Random, places: Sequence[T]) -> T:
    """Any of them; a run that has none is not one to try this on."""
    assume(places)
    return chance.choice(places)


def some(run: History, chance: random.Random, kind: type[Event]) -> int:
    """Where an event of this kind stands."""
    return pick(chance, [at for at, event in enumerate(run.events) if isinstance(event, kind)])


def relinked(log: list[Entry]) -> list[Entry]:
    """The log with every `prev` right."""
    last: dict[str, int] = {}
    found = []
    for entry in log:
        found.append(replace(entry, prev=last.get(entry.channel)))
        last[entry.channel] = entry.seq
    return found


def lose_an_acknowledged_message(run: History, chance: random.Random) -> History:
    stored = run.events[some(run, chance, Stored)]
    assert isinstance(stored, Stored)
    return replace(run, log=relinked([entry for entry in run.log if entry.seq != stored.seq]))


def lose_the_end_of_the_log(run: History, chance: random.Random) -> History:
    last = max(event.seq for event in run.of(Stored))
    return replace(run, log=[entry for entry in run.log if entry.seq < last])


def put_another_in_its_place(run: History, chance: random.Random) -> History:
    """A log that lost its end gives the same sequences again."""
    stored = run.events[some(run, chance, Stored)]
    assert isinstance(stored, Stored)
    other = Sent("agt_late/1", 0, "agt_late", "chn_x", '"late"')
    log = [
        replace(entry, sender="agt_late", data='"late"', message_id="msg_late") if entry.seq == stored.seq else entry
        for entry in run.log
    ]
    channel = next(entry.channel for entry in run.log if entry.seq == stored.seq)
    return replace(run, events=[replace(other, channel=channel), *run.events], log=log)


def acknowledge_what_was_not_stored(run: History, chance: random.Random) -> History:
    unstored = [
        (at, event)
        for at, event in enumerate(run.events)
        if isinstance(event, Refused) or (isinstance(event, Unknown) and event.number not in numbers_in(run))
    ]
    at, event = pick(chance, unstored)
    return with_event(run, at, Stored(event.line, event.number, run.log[-1].seq + 1, "msg_none"))


def numbers_in(run: History) -> set[int]:
    data = {entry.data for entry in run.log}
    return {sent.number for sent in run.of(Sent) if sent.data in data}


def store_a_message_twice(run: History, chance: random.Random) -> History:
    entry = pick(chance, run.log)
    again = replace(entry, seq=run.log[-1].seq + 1, message_id="msg_again")
    return replace(run, log=relinked([*run.log, again]))


def store_what_was_refused(run: History, chance: random.Random) -> History:
    refused = run.events[some(run, chance, Refused)]
    assert isinstance(refused, Refused)
    sent = next(sent for sent in run.of(Sent) if sent.number == refused.number)
    entry = Entry(sent.channel, run.log[-1].seq + 1, None, "msg_refused", sent.sender, sent.data)
    return replace(run, log=relinked([*run.log, entry]))


def forget_a_key(run: History, chance: random.Random) -> History:
    at = some(run, chance, Stored)
    stored = run.events[at]
    assert isinstance(stored, Stored)
    return replace(run, events=[*run.events, replace(stored, duplicate=False)])


def tell_another_sequence(run: History, chance: random.Random) -> History:
    at = some(run, chance, Stored)
    stored = run.events[at]
    assert isinstance(stored, Stored)
    sent = next(sent for sent in run.of(Sent) if sent.number == stored.number)
    other = pick(chance, [entry for entry in run.log if entry.channel == sent.channel and entry.seq != stored.seq])
    return with_event(run, at, replace(stored, seq=other.seq))


def tell_another_id(run: History, chance: random.Random) -> History:
    at = some(run, chance, Stored)
    stored = run.events[at]
    assert isinstance(stored, Stored)
    return with_event(run, at, replace(stored, message_id="msg_other"))


def change_a_messages_data(run: History, chance: random.Random) -> History:
    changed = pick(chance, run.log)
    return replace(run, log=[replace(entry, data='"torn') if entry is changed else entry for entry in run.log])


def change_a_messages_sender(run: History, chance: random.Random) -> History:
    changed = pick(chance, run.log)
    other = AGENTS[changed.sender == AGENTS[0]]
    return replace(run, log=[replace(entry, sender=other) if entry is changed else entry for entry in run.log])


def swap_two_messages_of_a_line(run: History, chance: random.Random) -> History:
    """They change places, with their ids and their answers."""
    sent = {each.data: each for each in run.of(Sent)}
    lines: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in run.log:
        lines[sent[entry.data].line, entry.channel].append(entry)
    first, second = chance.sample(pick(chance, [each for each in lines.values() if len(each) > 1]), 2)
    swapped = {
        first.seq: replace(first, data=second.data, message_id=second.message_id),
        second.seq: replace(second, data=first.data, message_id=first.message_id),
    }
    return moved(run, swapped)


def store_a_message_too_early(run: History, chance: random.Random) -> History:
    """One that was sent after another was acknowledged stands before it."""
    sent_at = {event.data: at for at, event in enumerate(run.events) if isinstance(event, Sent)}
    answered_at = {event.seq: at for at, event in enumerate(run.events) if isinstance(event, Stored) and not event.duplicate}
    pairs = [
        (first, second)
        for first in run.log
        for second in run.log
        if first.channel == second.channel and answered_at.get(first.seq, len(run.events)) < sent_at[second.data]
    ]
    first, second = pick(chance, pairs)
    late, early = run.log[-1].seq + 1, replace(second, seq=first.seq, prev=first.prev)
    return moved(run, {first.seq: early, second.seq: replace(first, seq=late)}, {first.seq: late, second.seq: first.seq})


def moved(run: History, entries: dict[int, Entry], seqs: dict[int, int] | None = None) -> History:
    """The run with other messages at some sequences; answers follow their messages."""
    log = relinked(sorted((entries.get(entry.seq, entry) for entry in run.log), key=lambda entry: entry.seq))
    at = {entry.message_id: entry.seq for entry in log}
    events = [
        replace(event, seq=at[event.message_id]) if isinstance(event, Stored) and event.message_id else event
        for event in run.events
    ]
    return replace(run, log=log, events=events)


def name_a_wrong_predecessor(run: History, chance: random.Random) -> History:
    at = some(run, chance, Got)
    got = run.events[at]
    assert isinstance(got, Got)
    wrong = chance.choice((None if got.entry.prev else 1, got.entry.seq, got.entry.seq + 1))
    return with_event(run, at, replace(got, entry=replace(got.entry, prev=wrong)))


def break_the_logs_chain(run: History, chance: random.Random) -> History:
    at = chance.randrange(len(run.log))
    entry = run.log[at]
    return replace(run, log=[*run.log[:at], replace(entry, prev=entry.seq), *run.log[at + 1 :]])


def deliver_other_data(run: History, chance: random.Random) -> History:
    at = some(run, chance, Got)
    got = run.events[at]
    assert isinstance(got, Got)
    return with_event(run, at, replace(got, entry=replace(got.entry, data="null")))


def deliver_what_is_not_in_the_log(run: History, chance: random.Random) -> History:
    got = run.events[some(run, chance, Got)]
    assert isinstance(got, Got)
    ghost = replace(got, entry=replace(got.entry, seq=run.log[-1].seq + 1))
    return replace(run, events=[*run.events, ghost])


def leave_out_a_message(run: History, chance: random.Random) -> History:
    """It is delivered on no connection."""
    got = run.events[some(run, chance, Got)]
    assert isinstance(got, Got)
    kept = [
        event for event in run.events if not (isinstance(event, Got) and (event.agent, event.entry) == (got.agent, got.entry))
    ]
    return replace(run, events=kept)


def leave_out_a_message_of_one_connection(run: History, chance: random.Random) -> History:
    """It came on another one, which does not mend that this one went on without it."""
    connections: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    for at, event in enumerate(run.events):
        if isinstance(event, Got):
            connections[event.agent, event.connection, event.entry.channel].append(at)
    places = pick(chance, [each for each in connections.values() if len(each) > 2])
    return with_event(run, pick(chance, places[1:-1]))


def swap_two_deliveries(run: History, chance: random.Random) -> History:
    places: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    for at, event in enumerate(run.events):
        if isinstance(event, Got):
            places[event.agent, event.connection, event.entry.channel].append(at)
    first, second = chance.sample(pick(chance, [each for each in places.values() if len(each) > 1]), 2)
    events = list(run.events)
    events[first], events[second] = events[second], events[first]
    return replace(run, events=events)


def repeat_on_the_same_connection(run: History, chance: random.Random) -> History:
    at = some(run, chance, Got)
    return with_event(run, at, run.events[at], run.events[at])


def repeat_what_was_acknowledged_and_written(run: History, chance: random.Random) -> History:
    got = run.events[some(run, chance, Got)]
    assert isinstance(got, Got)
    agent, channel, seq = got.agent, got.entry.channel, got.entry.seq
    return replace(
        run,
        events=[
            *run.events,
            Acked(agent, 99, channel, seq),
            Written(agent, channel, seq),
            Joined(agent, 100),
            replace(got, connection=100),
        ],
    )


def tell_of_a_gap(run: History, chance: random.Random) -> History:
    return with_event(run, some(run, chance, Got), Missed(AGENTS[0], 0, CHANNELS[0], "epoch"))


PLANTS: dict[Plant, Broken] = {
    lose_an_acknowledged_message: Broken.LOST,
    lose_the_end_of_the_log: Broken.LOST,
    put_another_in_its_place: Broken.LOST,
    acknowledge_what_was_not_stored: Broken.LOST,
    store_a_message_twice: Broken.DOUBLED,
    store_what_was_refused: Broken.NOT_REFUSED,
    forget_a_key: Broken.NOT_KNOWN,
    tell_another_sequence: Broken.CHANGED,
    tell_another_id: Broken.CHANGED,
    change_a_messages_data: Broken.FOREIGN,
    change_a_messages_sender: Broken.FOREIGN,
    swap_two_messages_of_a_line: Broken.DISORDER,
    store_a_message_too_early: Broken.DISORDER,
    break_the_logs_chain: Broken.PREV,
    name_a_wrong_predecessor: Broken.PREV,
    deliver_other_data: Broken.CHANGED,
    deliver_what_is_not_in_the_log: Broken.NOT_IN_LOG,
    leave_out_a_message: Broken.SKIPPED,
    leave_out_a_message_of_one_connection: Broken.SKIPPED,
    swap_two_deliveries: Broken.REPEATED,
    repeat_on_the_same_connection: Broken.REPEATED,
    repeat_what_was_acknowledged_and_written: Broken.REPEATED,
    tell_of_a_gap: Broken.GAP,
}


@settings(max_examples=100)
@given(runs())
def test_a_run_in_order_is_green(made: tuple[History, random.Random]) -> None:
    run, _ = made
    verdict = judge(run)
    assert not verdict.findings, str(verdict)
    assert verdict.published == verdict.acknowledged + verdict.unknown + verdict.refused


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_what_is_broken_at_any_place_of_a_run_is_found(plant: Plant) -> None:
    @settings(max_examples=20)
    @given(runs())
    def check(made: tuple[History, random.Random]) -> None:
        verdict = judge(plant(*made))
        assert PLANTS[plant] in verdict.counts, str(verdict)

    check()


def test_every_kind_of_broken_promise_is_planted() -> None:
    assert set(PLANTS.values()) == set(Broken)


def test_a_repeat_behind_a_lost_acknowledgement_is_counted_and_is_no_fault() -> None:
    sent = [Sent("agt_a/1", number, "agt_a", "chn_x", str(number)) for number in (1, 2)]
    entries = [Entry("chn_x", 1, None, "msg_1", "agt_a", "1"), Entry("chn_x", 2, 1, "msg_2", "agt_a", "2")]
    stored = [Stored("agt_a/1", number, number, f"msg_{number}") for number in (1, 2)]
    first: list[Event] = [Joined("agt_b", 0), *(Got("agt_b", 0, entry) for entry in entries), Acked("agt_b", 0, "chn_x", 2)]
    again: list[Event] = [Joined("agt_b", 1), *(Got("agt_b", 1, entry) for entry in entries)]
    verdict = judge(History([*sent, *stored, *first, *again], entries, {"agt_b": ["chn_x"]}))
    assert (verdict.findings, verdict.repeats) == ([], 2)


@pytest.mark.parametrize(("key", "is_retried", "is_green"), [("k", True, True), ("k", False, False), (None, True, False)])
def test_only_what_has_a_key_may_be_refused_and_stand_behind_what_left_with_it(
    key: str | None, is_retried: bool, is_green: bool
) -> None:
    sent = [Sent("agt_a/1", number, "agt_a", "chn_x", str(number), key and f"{key}{number}") for number in (1, 2)]
    log = [Entry("chn_x", 1, None, "msg_2", "agt_a", "2"), Entry("chn_x", 2, 1, "msg_1", "agt_a", "1")]
    stored = [Stored("agt_a/1", 2, 1, "msg_2"), Stored("agt_a/1", 1, 2, "msg_1")]
    verdict = judge(History([*sent, *stored], log, {}, is_retried))
    assert (not verdict.findings) == is_green
