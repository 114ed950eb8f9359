"""Tests of the checker of scheduled and expiring messages: it accepts correct runs, and finds every planted fault."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.planting import pick, some, with_event, with_events, without
from tests.faults.pull_checker import GapSeen
from tests.faults.schedule_checker import (
    AFTER_RESTORE,
    Accepted,
    CancelAttempted,
    Cancelled,
    CancelTooLate,
    GapPushed,
    Kept,
    Published,
    Rejected,
    ScheduleBroken,
    ScheduleEvent,
    ScheduleHistory,
    Seen,
    judge_schedule,
)

AGENTS: Final = ("ann", "bob")
MESSAGES: Final = 30
BEGIN: Final = 1_000.0


def run_of(chance: random.Random) -> ScheduleHistory:
    """Return a run without a fault: scheduled messages, some cancelled, some expired before their delivery."""
    events: list[ScheduleEvent] = []
    log: list[Kept] = []
    for number in range(MESSAGES):
        id, due = f"msg_{number}", BEGIN + 60 * number
        is_expiring = chance.random() < 0.3
        deliver_at = due if chance.random() < 0.8 else None
        events.append(Published(number, deliver_at, due + 5 if is_expiring else None))
        if chance.random() < 0.1:
            events.append(Rejected(number))
            continue
        events.append(Accepted(number, id, due - 55 if deliver_at else due))
        if deliver_at is not None and chance.random() < 0.2:
            events += [CancelAttempted(id), Cancelled(id, due - 1)]
            continue
        seq = len(log) + 1
        log.append(Kept(seq, id, number))
        for agent in AGENTS:
            if is_expiring and chance.random() < 0.5:
                events.append(GapPushed(agent, GapSeen("news", seq, seq, "expired"), due + 6))
            else:
                events.append(Seen(agent, number, seq, id, due + 0.5))
        if deliver_at is not None and chance.random() < 0.2:
            events += [CancelAttempted(id), CancelTooLate(id, seq)]
    return ScheduleHistory(events, log, AGENTS)


# --- planted faults ------------------------------------------------------------------------------------------------------------


def deliver_early(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    due = {event.number for event in run.events if isinstance(event, Published) and event.deliver_at is not None}
    at, seen = some(chance, run.events, Seen, lambda each: each.number in due)
    return replace(run, events=with_event(run.events, at, replace(seen, at=seen.at - 1)))


def deliver_late(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    due = {event.number for event in run.events if isinstance(event, Published) and event.deliver_at is not None}
    _, seen = some(chance, run.events, Seen, lambda each: each.number in due)
    late = [
        replace(event, at=event.at + 30) if isinstance(event, Seen) and event.message_id == seen.message_id else event
        for event in run.events
    ]
    return replace(run, events=late)


def store_twice(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    kept = pick(chance, run.log)
    return replace(run, log=[*run.log, replace(kept, seq=9_999)])


def store_again_with_another_id(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    kept = pick(chance, run.log)
    return replace(run, log=[*run.log, replace(kept, seq=9_999, message_id="msg_other")])


def never_deliver(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    tried = {event.message_id for event in run.events if isinstance(event, CancelAttempted)}
    kept = pick(chance, [kept for kept in run.log if kept.message_id not in tried])
    return replace(run, log=[each for each in run.log if each != kept])


def deliver_after_a_cancel(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    _, cancelled = some(chance, run.events, Cancelled)
    number = int(cancelled.message_id.removeprefix("msg_"))
    return replace(run, log=[*run.log, Kept(9_999, cancelled.message_id, number)])


def refuse_a_cancel(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    at, cancelled = some(chance, run.events, Cancelled)
    return replace(run, events=with_event(run.events, at, CancelTooLate(cancelled.message_id, 1)))


def store_what_nobody_sent(run: ScheduleHistory, _: random.Random) -> ScheduleHistory:
    return replace(run, log=[*run.log, Kept(9_999, "msg_9999", 9_999)])


def store_what_was_refused(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    _, rejected = some(chance, run.events, Rejected)
    return replace(run, log=[*run.log, Kept(9_999, f"msg_{rejected.number}", rejected.number)])


def swap_two_in_the_log(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    due = {event.number for event in run.events if isinstance(event, Published) and event.deliver_at is not None}
    places = [at for at in range(len(run.log) - 1) if {run.log[at].number, run.log[at + 1].number} <= due]
    at = pick(chance, places)
    return replace(run, log=[*run.log[:at], run.log[at + 1], run.log[at], *run.log[at + 2 :]])


def deliver_expired(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    at, pushed = some(chance, run.events, GapPushed)
    kept = next(kept for kept in run.log if kept.seq == pushed.gap.first)
    seen = Seen(pushed.agent, kept.number, kept.seq, kept.message_id, pushed.at + 1)
    return replace(run, events=with_event(run.events, at, seen))


def conceal_a_gap(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    _, pushed = some(chance, run.events, GapPushed)
    return replace(run, events=without(run.events, lambda event: event is pushed))


def invent_a_gap(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    at, seen = some(chance, run.events, Seen)
    gap = GapPushed(seen.agent, GapSeen("news", seen.seq, seen.seq, "expired"), seen.at)
    return replace(run, events=with_events(run.events, at, gap))


def deliver_as_another_sequence(run: ScheduleHistory, chance: random.Random) -> ScheduleHistory:
    at, seen = some(chance, run.events, Seen)
    return replace(run, events=with_event(run.events, at, replace(seen, seq=seen.seq + 1)))


PlantFault = Callable[[ScheduleHistory, random.Random], ScheduleHistory]
PLANTED: Final[Sequence[tuple[PlantFault, ScheduleBroken]]] = [
    (deliver_early, ScheduleBroken.EARLY),
    (deliver_late, ScheduleBroken.LATE),
    (store_twice, ScheduleBroken.TWICE),
    (store_again_with_another_id, ScheduleBroken.TWICE),
    (never_deliver, ScheduleBroken.NEVER),
    (deliver_after_a_cancel, ScheduleBroken.AFTER_CANCEL),
    (refuse_a_cancel, ScheduleBroken.FALSE_REFUSAL),
    (store_what_nobody_sent, ScheduleBroken.FOREIGN),
    (store_what_was_refused, ScheduleBroken.NOT_REFUSED),
    (swap_two_in_the_log, ScheduleBroken.DISORDER),
    (deliver_expired, ScheduleBroken.EXPIRED),
    (conceal_a_gap, ScheduleBroken.NOT_TOLD),
    (invent_a_gap, ScheduleBroken.FALSE_GAP),
    (deliver_as_another_sequence, ScheduleBroken.CHANGED),
]


@settings(max_examples=50)
@given(st.integers(0))
def test_correct_run_of_scheduled_messages_has_no_violations(seed: int) -> None:
    ruling = judge_schedule(run_of(random.Random(seed)))
    assert not ruling.violations, str(ruling)
    assert ruling.amounts["stored"] + ruling.amounts["cancelled"] == ruling.amounts["accepted"]


@pytest.mark.parametrize(("plant", "broken"), PLANTED, ids=lambda each: getattr(each, "__name__", ""))
@settings(max_examples=15)
@given(st.integers(0))
def test_planted_fault_of_a_scheduled_message_is_found(plant: PlantFault, broken: ScheduleBroken, seed: int) -> None:
    chance = random.Random(seed)
    ruling = judge_schedule(plant(run_of(chance), chance))
    assert broken in ruling.counts, str(ruling)


def test_every_violation_of_a_scheduled_message_is_planted() -> None:
    assert {broken for _, broken in PLANTED} == set(ScheduleBroken) - AFTER_RESTORE


@pytest.mark.parametrize("is_during", [True, False])
@settings(max_examples=10)
@given(st.integers(0))
def test_pauses_make_no_message_late_and_count_once_where_they_overlap(is_during: bool, seed: int) -> None:
    chance = random.Random(seed)
    run = deliver_late(run_of(chance), chance)
    seen = [event.at for event in run.events if isinstance(event, Seen)]
    cut = (min(seen) - 1_000, max(seen)) if is_during else (max(seen), max(seen) + 1_000)
    assert (ScheduleBroken.LATE in judge_schedule(replace(run, pauses=[cut])).counts) is not is_during
    brief = [(at, at + 0.1) for at in seen] * 1_000
    assert ScheduleBroken.LATE in judge_schedule(replace(run, pauses=brief)).counts
