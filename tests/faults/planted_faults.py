"""Faults to plant into the history of a run, each at a random place. `test_checker` plants them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from hypothesis import assume

from tests.faults.checker import (
    Acked,
    Began,
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
)

T = TypeVar("T")

PlantFault = Callable[[History, random.Random], History]


def with_event(run: History, at: int, *events: Event) -> History:
    return replace(run, events=[*run.events[:at], *events, *run.events[at + 1 :]])


def pick(chance: random.Random, places: Sequence[T]) -> T:
    """Return a random place; skip a run that has none."""
    assume(places)
    return chance.choice(places)


def some(run: History, chance: random.Random, kind: type[Event]) -> int:
    """Return the position of a random event of this kind."""
    return pick(chance, [at for at, event in enumerate(run.events) if isinstance(event, kind)])


def relinked(log: list[Entry]) -> list[Entry]:
    """Return the log with every `prev` corrected."""
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


def reuse_a_lost_sequence(run: History, chance: random.Random) -> History:
    """A log that lost its end assigns the same sequences again."""
    stored = run.events[some(run, chance, Stored)]
    assert isinstance(stored, Stored)
    other = Sent("agt_late/1", 0, "agt_late", "chn_x", '"late"')
    log = [
        replace(entry, sender="agt_late", data='"late"', message_id="msg_late") if entry.seq == stored.seq else entry
        for entry in run.log
    ]
    channel = next(entry.channel for entry in run.log if entry.seq == stored.seq)
    return replace(run, events=[replace(other, channel=channel), *run.events], log=log)


def acknowledge_an_unstored_message(run: History, chance: random.Random) -> History:
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


def store_a_refused_message(run: History, chance: random.Random) -> History:
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


def answer_with_a_wrong_sequence(run: History, chance: random.Random) -> History:
    at = some(run, chance, Stored)
    stored = run.events[at]
    assert isinstance(stored, Stored)
    sent = next(sent for sent in run.of(Sent) if sent.number == stored.number)
    other = pick(chance, [entry for entry in run.log if entry.channel == sent.channel and entry.seq != stored.seq])
    return with_event(run, at, replace(stored, seq=other.seq))


def answer_with_a_wrong_id(run: History, chance: random.Random) -> History:
    at = some(run, chance, Stored)
    stored = run.events[at]
    assert isinstance(stored, Stored)
    return with_event(run, at, replace(stored, message_id="msg_other"))


def change_a_messages_data(run: History, chance: random.Random) -> History:
    changed = pick(chance, run.log)
    return replace(run, log=[replace(entry, data='"torn') if entry is changed else entry for entry in run.log])


def change_a_messages_sender(run: History, chance: random.Random) -> History:
    changed = pick(chance, run.log)
    return replace(run, log=[replace(entry, sender="agt_other") if entry is changed else entry for entry in run.log])


def swap_two_messages_of_a_line(run: History, chance: random.Random) -> History:
    """Two messages swap places, with their ids and their answers."""
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
    """A message sent after another was acknowledged comes before it."""
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
    """Return the run with other messages at some sequences; answers follow their messages."""
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


def deliver_a_message_missing_in_the_log(run: History, chance: random.Random) -> History:
    got = run.events[some(run, chance, Got)]
    assert isinstance(got, Got)
    ghost = replace(got, entry=replace(got.entry, seq=run.log[-1].seq + 1))
    return replace(run, events=[*run.events, ghost])


def leave_out_a_message(run: History, chance: random.Random) -> History:
    """A message is delivered on no connection."""
    got = run.events[some(run, chance, Got)]
    assert isinstance(got, Got)
    kept = [
        event for event in run.events if not (isinstance(event, Got) and (event.agent, event.entry) == (got.agent, got.entry))
    ]
    return replace(run, events=kept)


def turns(run: History) -> list[list[int]]:
    """Return the positions of consecutive deliveries of each channel on one connection, without a new subscribe between them."""
    places: dict[tuple[str, int, str, int], list[int]] = defaultdict(list)
    subscribed = Counter[tuple[str, str]]()
    for at, event in enumerate(run.events):
        if isinstance(event, Began):
            subscribed[event.agent, event.channel] += 1
        if isinstance(event, Got):
            turn = subscribed[event.agent, event.entry.channel]
            places[event.agent, event.connection, event.entry.channel, turn].append(at)
    return list(places.values())


def leave_out_a_message_of_one_connection(run: History, chance: random.Random) -> History:
    """A message skipped on one connection is delivered on another, which does not make up for it."""
    places = pick(chance, [each for each in turns(run) if len(each) > 2])
    return with_event(run, pick(chance, places[1:-1]))


def swap_two_deliveries(run: History, chance: random.Random) -> History:
    first, second = chance.sample(pick(chance, [each for each in turns(run) if len(each) > 1]), 2)
    events = list(run.events)
    events[first], events[second] = events[second], events[first]
    return replace(run, events=events)


def repeat_on_the_same_connection(run: History, chance: random.Random) -> History:
    at = some(run, chance, Got)
    return with_event(run, at, run.events[at], run.events[at])


def repeat_an_acknowledged_message(run: History, chance: random.Random) -> History:
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


def begin_after_an_unacknowledged_message(run: History, chance: random.Random) -> History:
    got = run.events[some(run, chance, Got)]
    assert isinstance(got, Got)
    return replace(run, events=[*run.events, Began(got.agent, 99, got.entry.channel, run.log[-1].seq + 1)])


def begin_below_the_written_cursor(run: History, chance: random.Random) -> History:
    written = pick(chance, [event for event in run.of(Written) if event.seq])
    return replace(run, events=[*run.events, Began(written.agent, 99, written.channel, written.seq - 1)])


def report_a_gap(run: History, chance: random.Random) -> History:
    return with_event(run, some(run, chance, Got), Missed("agt_a", 0, "chn_x", "epoch"))


PLANTED_FAULTS: Final[Mapping[PlantFault, Broken]] = {
    lose_an_acknowledged_message: Broken.LOST,
    lose_the_end_of_the_log: Broken.LOST,
    reuse_a_lost_sequence: Broken.LOST,
    acknowledge_an_unstored_message: Broken.LOST,
    store_a_message_twice: Broken.DOUBLED,
    store_a_refused_message: Broken.NOT_REFUSED,
    forget_a_key: Broken.NOT_KNOWN,
    answer_with_a_wrong_sequence: Broken.CHANGED,
    answer_with_a_wrong_id: Broken.CHANGED,
    change_a_messages_data: Broken.FOREIGN,
    change_a_messages_sender: Broken.FOREIGN,
    swap_two_messages_of_a_line: Broken.DISORDER,
    store_a_message_too_early: Broken.DISORDER,
    break_the_logs_chain: Broken.PREV,
    name_a_wrong_predecessor: Broken.PREV,
    deliver_other_data: Broken.CHANGED,
    deliver_a_message_missing_in_the_log: Broken.NOT_IN_LOG,
    leave_out_a_message: Broken.SKIPPED,
    leave_out_a_message_of_one_connection: Broken.SKIPPED,
    swap_two_deliveries: Broken.REPEATED,
    repeat_on_the_same_connection: Broken.REPEATED,
    repeat_an_acknowledged_message: Broken.REPEATED,
    begin_after_an_unacknowledged_message: Broken.SKIPPED,
    begin_below_the_written_cursor: Broken.REPEATED,
    report_a_gap: Broken.GAP,
}
