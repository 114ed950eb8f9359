"""Tests of the checker of pulls: it accepts correct runs, and finds every planted fault."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.checker import Entry
from tests.faults.planting import pick, some, with_event, with_events
from tests.faults.pull_checker import (
    AFTER_RESTORE,
    AckConfirmed,
    AckSent,
    CursorRead,
    GapSeen,
    PullBegan,
    PullBroken,
    Pulled,
    PullEvent,
    PullHistory,
    TaskConfirmed,
    judge_pulls,
)
from tests.faults.queue_checker import Acked, Put, QueueBroken, QueueHistory, Taken

AGENTS: Final = ("cron", "lambda")
CHANNELS: Final = ("news", "alerts")
MESSAGES: Final = 30
EXPIRES_AT: Final = 5.0
BEGINS_AT: Final = 10.0
"""When the pulls begin: every message with an expiry has expired."""
TASKS: Final = 5


def run_of(chance: random.Random) -> PullHistory:
    """Return a run without a fault: each agent pulls pages, acknowledges some, and in the end all."""
    log = [Entry(channel, seq, seq - 1 or None, f"{channel}-{seq}", "ann", "{}") for channel in CHANNELS for seq in _seqs()]
    expiry = {(entry.channel, entry.seq): EXPIRES_AT for entry in log if chance.random() < 0.2}
    events: list[PullEvent] = []
    for agent in AGENTS:
        events += _pulls(chance, agent, log, expiry, first=len(events))
    return PullHistory(events, log, AGENTS, expiry, _tasks(), [(3 * TASKS, TaskConfirmed(1, 1.0))])


def _seqs() -> range:
    return range(1, MESSAGES + 1)


def _tasks() -> QueueHistory:
    """Return a queue whose tasks are pulled and acknowledged in turn."""
    events = [
        event for n in range(1, TASKS + 1) for event in (Put(n, n), Taken(f"cron/{n}", n, n, 1, n), Acked(f"cron/{n}", n, n))
    ]
    return QueueHistory(events, [], [], 3, 10.0)


def _pulls(
    chance: random.Random, agent: str, log: Sequence[Entry], expiry: Container[tuple[str, int]], first: int
) -> list[PullEvent]:
    events: list[PullEvent] = []
    cursor = dict.fromkeys(CHANNELS, 0)
    at, number = BEGINS_AT, first * 100
    while any(place < MESSAGES for place in cursor.values()):
        at, number = at + 1, number + 1
        items: list[Entry] = []
        gaps: list[GapSeen] = []
        pages = {
            channel: [entry for entry in log if entry.channel == channel and entry.seq > cursor[channel]][:8]
            for channel in cursor
        }
        for channel, page in pages.items():
            items += [entry for entry in page if (channel, entry.seq) not in expiry]
            gaps += [GapSeen(channel, e.seq, e.seq, "expired") for e in page if (channel, e.seq) in expiry]
        events += [PullBegan(number, agent, at), Pulled(number, tuple(items), tuple(gaps), at + 0.1)]
        for channel, page in pages.items():
            if page and chance.random() < 0.6:
                cursor[channel] = chance.choice(page).seq
                acked = AckSent(agent, channel, cursor[channel]), AckConfirmed(agent, channel, cursor[channel])
                events += [*acked, CursorRead(agent, channel, cursor[channel])]
    return events


# --- planted faults ------------------------------------------------------------------------------------------------------------

Page = tuple[int, Pulled]


def some_page(
    run: PullHistory, chance: random.Random, channel: str | None = None, messages: int = 3
) -> tuple[int, Pulled, Entry]:
    """Return a pull with several messages of a channel, and one of them that is neither the first nor the last."""
    pages: list[tuple[int, Pulled, Entry]] = []
    for at, event in enumerate(run.events):
        if isinstance(event, Pulled):
            for name in CHANNELS:
                items = [item for item in event.items if item.channel == name]
                pages += [(at, event, item) for item in items[1:-1] if len(items) >= messages]
    return pick(chance, pages)


def leave_out(pulled: Pulled, entry: Entry) -> Pulled:
    return replace(pulled, items=tuple(item for item in pulled.items if item != entry))


def lose_a_message(run: PullHistory, chance: random.Random) -> PullHistory:
    entry = pick(chance, [entry for entry in run.log if (entry.channel, entry.seq) not in run.expiry])
    return replace(run, events=[leave_out(event, entry) if isinstance(event, Pulled) else event for event in run.events])


def skip_a_message(run: PullHistory, chance: random.Random) -> PullHistory:
    """The first pull passes a message over."""
    at = next(at for at, event in enumerate(run.events) if isinstance(event, Pulled))
    pulled = run.events[at]
    assert isinstance(pulled, Pulled)
    inner = pick(
        chance, [item for item in pulled.items if any(e.channel == item.channel and e.seq > item.seq for e in pulled.items)]
    )
    return replace(run, events=with_event(run.events, at, leave_out(pulled, inner)))


def conceal_a_gap(run: PullHistory, chance: random.Random) -> PullHistory:
    gaps = [
        (at, event, gap)
        for at, event in enumerate(run.events)
        if isinstance(event, Pulled)
        for gap in event.gaps
        if any(item.channel == gap.channel and item.seq > gap.first for item in event.items)
    ]
    at, pulled, gap = pick(chance, gaps)
    kept = tuple(each for each in pulled.gaps if each != gap)
    return replace(run, events=with_event(run.events, at, replace(pulled, gaps=kept)))


def invent_a_gap(run: PullHistory, chance: random.Random) -> PullHistory:
    at, pulled, entry = some_page(run, chance)
    gap = GapSeen(entry.channel, entry.seq, entry.seq, "expired")
    return replace(run, events=with_event(run.events, at, replace(pulled, gaps=(*pulled.gaps, gap))))


def show_an_expired_message(run: PullHistory, chance: random.Random) -> PullHistory:
    _, _, entry = some_page(run, chance)
    return replace(run, expiry={**run.expiry, (entry.channel, entry.seq): EXPIRES_AT})


def pull_again_after_an_ack(run: PullHistory, chance: random.Random) -> PullHistory:
    at, acked = some(chance, run.events, AckConfirmed)
    entry = next(entry for entry in run.log if (entry.channel, entry.seq) == (acked.channel, acked.seq))
    again = PullBegan(9_999, acked.agent, BEGINS_AT), Pulled(9_999, (entry,), (), BEGINS_AT)
    return replace(run, events=with_events(run.events, at, *again))


def swap_messages(run: PullHistory, chance: random.Random) -> PullHistory:
    at, pulled, entry = some_page(run, chance)
    return replace(
        run, events=with_event(run.events, at, replace(leave_out(pulled, entry), items=(*leave_out(pulled, entry).items, entry)))
    )


def change_a_message(run: PullHistory, chance: random.Random) -> PullHistory:
    at, pulled, entry = some_page(run, chance)
    changed = tuple(replace(item, data="[]") if item == entry else item for item in pulled.items)
    return replace(run, events=with_event(run.events, at, replace(pulled, items=changed)))


def acknowledge_by_reading(run: PullHistory, chance: random.Random) -> PullHistory:
    """A pull begins above messages that were only pulled before."""
    at, pulled, entry = some_page(run, chance)
    agent = next(event.agent for event in run.events if isinstance(event, PullBegan) and event.number == pulled.number)
    last = max((item for item in pulled.items if item.channel == entry.channel), key=lambda item: item.seq)
    again = PullBegan(9_999, agent, BEGINS_AT), Pulled(9_999, (last,), (), BEGINS_AT)
    return replace(run, events=with_events(run.events, at, *again))


def move_a_cursor_by_reading(run: PullHistory, _: random.Random) -> PullHistory:
    return replace(run, events=with_events(run.events, 1, CursorRead(AGENTS[0], CHANNELS[0], 1)))


def take_from_a_holder(run: PullHistory, chance: random.Random) -> PullHistory:
    """A queue message is pulled by two at once."""
    at, taken = some(chance, run.tasks.events, Taken)
    second = replace(taken, holder="lambda/1")
    return replace(run, tasks=replace(run.tasks, events=with_events(run.tasks.events, at, second)))


def pull_a_task_again(run: PullHistory, _: random.Random) -> PullHistory:
    again = Taken("lambda/1", 1, 1, 2, 100.0)
    return replace(run, tasks=replace(run.tasks, events=[*run.tasks.events, again], is_faulted=True))


PlantFault = Callable[[PullHistory, random.Random], PullHistory]
PLANTED: Final[Sequence[tuple[PlantFault, PullBroken | QueueBroken]]] = [
    (lose_a_message, PullBroken.LOST),
    (skip_a_message, PullBroken.SKIPPED),
    (conceal_a_gap, PullBroken.GAP_NOT_TOLD),
    (invent_a_gap, PullBroken.FALSE_GAP),
    (show_an_expired_message, PullBroken.EXPIRED),
    (pull_again_after_an_ack, PullBroken.REPEATED),
    (swap_messages, PullBroken.DISORDER),
    (change_a_message, PullBroken.CHANGED),
    (acknowledge_by_reading, PullBroken.ACKED_BY_READING),
    (move_a_cursor_by_reading, PullBroken.ACKED_BY_READING),
    (take_from_a_holder, QueueBroken.TWO_HOLDERS),
    (pull_a_task_again, PullBroken.TASK_REPEATED),
]


@settings(max_examples=50)
@given(st.integers(0))
def test_correct_run_of_pulls_has_no_violations(seed: int) -> None:
    ruling = judge_pulls(run_of(random.Random(seed)))
    assert not ruling.violations, str(ruling)
    assert ruling.amounts["messages"] == len(CHANNELS) * MESSAGES


@pytest.mark.parametrize(("plant", "broken"), PLANTED, ids=lambda each: getattr(each, "__name__", ""))
@settings(max_examples=15)
@given(st.integers(0))
def test_planted_fault_of_a_pull_is_found(plant: PlantFault, broken: PullBroken | QueueBroken, seed: int) -> None:
    chance = random.Random(seed)
    ruling = judge_pulls(plant(run_of(chance), chance))
    assert broken in ruling.counts, str(ruling)


def test_ack_of_a_task_just_before_a_kill_of_nats_may_be_lost() -> None:
    again = pull_a_task_again(run_of(random.Random(0)), random.Random(0))
    assert not judge_pulls(replace(again, nats_kills=[1.2])).violations


def test_every_violation_of_a_pull_is_planted() -> None:
    assert {broken for _, broken in PLANTED} >= set(PullBroken) - AFTER_RESTORE
