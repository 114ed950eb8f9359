"""Tests of the checker of work queues: it accepts correct runs, and finds every planted fault."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.faults.queue_checker import (
    AFTER_RESTORE,
    Acked,
    DeadLetter,
    Event,
    Extended,
    Left,
    NakSent,
    NotHeld,
    Put,
    QueueBroken,
    QueueHistory,
    QueueVerdict,
    ReceiptTold,
    Redriven,
    Taken,
    judge_queue,
)

MAX_DELIVERIES, ACK_WAIT_S = 3, 10.0
TASKS: Final = 12


def key_of(number: int) -> str | None:
    """Return the key of a task: one of two, or none."""
    return (None, "a", "b")[number % 3]


@dataclass
class Model:
    """A queue that keeps every promise, driven by random choices."""

    chance: random.Random
    events: list[Event] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    redriven: list[Redriven] = field(default_factory=list)
    at: float = 0.0
    seq: int = 0
    holders: int = 0

    def put(self, number: int) -> int:
        self.seq += 1
        self.events.append(Put(number, self.seq, key_of(number)))
        return self.seq

    def work_off(self, seq: int, number: int, *, may_fail: bool = True) -> None:
        """Deliver a task until it is acknowledged or dead."""
        for deliveries in range(1, MAX_DELIVERIES + 1):
            self.at += self.chance.uniform(0.01, 1)
            self.holders += 1
            holder = f"worker {self.holders}"
            self.events.append(Taken(holder, seq, number, deliveries, self.at, key_of(number)))
            if self.chance.random() < 0.2:
                self.at += self.chance.uniform(0.1, ACK_WAIT_S - 3)
                self.events.append(Extended(holder, seq, self.at))
            self.at += self.chance.uniform(0.01, 1)
            if self._ends_by(self.chance.choice(["ack", "nak", "leave", "deadline"]) if may_fail else "ack", holder, seq):
                return
        self.seq += 1
        self.letters.append(DeadLetter(self.seq, seq, "max_deliveries", MAX_DELIVERIES))
        if self.chance.random() < 0.3:
            self.events.append(ReceiptTold(seq, "dead_lettered", self.at))
        if self.chance.random() < 0.5:
            letter = self.seq
            self.seq += 1
            self.redriven.append(Redriven(self.seq, letter))
            self.work_off(self.seq, number, may_fail=False)

    def _ends_by(self, how: str, holder: str, seq: int) -> bool:
        match how:
            case "ack":
                self.events.append(Acked(holder, seq, self.at))
                if self.chance.random() < 0.3:
                    self.events.append(ReceiptTold(seq, "acked", self.at))
                return True
            case "nak":
                self.events.append(NakSent(holder, seq, self.at))
            case "leave":
                self.events.append(Left(holder, self.at))
            case "deadline":
                self.at += ACK_WAIT_S
                if self.chance.random() < 0.5:
                    self.events += [Acked(holder, seq, self.at), NotHeld(holder, seq, self.at)]
        return False


def run_of(chance: random.Random) -> QueueHistory:
    model = Model(chance)
    for number in range(TASKS):
        model.work_off(model.put(number), number)
    return QueueHistory(model.events, model.letters, model.redriven, MAX_DELIVERIES, ACK_WAIT_S)


# --- planted faults ------------------------------------------------------------------------------------------------------------


def pick(chance: random.Random, places: Sequence[int]) -> int:
    assume(places)
    return chance.choice(places)


def some(run: QueueHistory, chance: random.Random, kind: type[Event]) -> int:
    return pick(chance, [at for at, event in enumerate(run.events) if isinstance(event, kind)])


def without(run: QueueHistory, *removed: int) -> QueueHistory:
    return replace(run, events=[event for at, event in enumerate(run.events) if at not in removed])


def give_a_second_holder(run: QueueHistory, chance: random.Random) -> QueueHistory:
    """A task goes to another holder a moment after it was taken by one that stays."""
    left = {event.holder for event in run.events if isinstance(event, Left)}
    places = [at for at, event in enumerate(run.events) if isinstance(event, Taken) and event.holder not in left]
    at = pick(chance, places)
    taken = run.events[at]
    assert isinstance(taken, Taken)
    second = replace(taken, holder="intruder", at=taken.at + 0.001)
    return replace(run, events=[*run.events[: at + 1], second, *run.events[at + 1 :]])


def lose_a_task_after_its_nak(run: QueueHistory, chance: random.Random) -> QueueHistory:
    """Nothing is heard of a task after it was given back."""
    at = some(run, chance, NakSent)
    seq = run.events[at].seq  # type: ignore[union-attr]  # of a NakSent
    later = [each for each in range(at + 1, len(run.events)) if getattr(run.events[each], "seq", None) == seq]
    return replace(without(run, *later), letters=[each for each in run.letters if each.task != seq])


def lose_a_stored_task(run: QueueHistory, chance: random.Random) -> QueueHistory:
    seq = run.events[some(run, chance, Put)].seq  # type: ignore[union-attr]  # of a Put
    its = [at for at, event in enumerate(run.events) if getattr(event, "seq", None) == seq and not isinstance(event, Put)]
    return replace(without(run, *its), letters=[each for each in run.letters if each.task != seq])


def deliver_after_its_ack(run: QueueHistory, chance: random.Random) -> QueueHistory:
    refused = {event.seq for event in run.events if isinstance(event, NotHeld)}
    places = [at for at, event in enumerate(run.events) if isinstance(event, Acked) and event.seq not in refused]
    at = pick(chance, places)
    acked = run.events[at]
    assert isinstance(acked, Acked)
    number = next(event.number for event in run.events if isinstance(event, Taken) and event.seq == acked.seq)
    again = Taken("late", acked.seq, number, 2, acked.at + ACK_WAIT_S)
    return replace(run, events=[*run.events[: at + 1], again, *run.events[at + 1 :]])


def deliver_another_task(run: QueueHistory, chance: random.Random) -> QueueHistory:
    redriven = {each.seq for each in run.redriven}
    places = [at for at, each in enumerate(run.events) if isinstance(each, Taken) and each.seq not in redriven]
    at = pick(chance, places)
    taken = run.events[at]
    assert isinstance(taken, Taken)
    changed = replace(taken, number=taken.number + 1)
    return replace(run, events=[*run.events[:at], changed, *run.events[at + 1 :]])


def some_letter(run: QueueHistory, chance: random.Random) -> int:
    return pick(chance, range(len(run.letters)))


def move_a_task_early(run: QueueHistory, chance: random.Random) -> QueueHistory:
    at = some_letter(run, chance)
    early = replace(run.letters[at], deliveries=MAX_DELIVERIES - 1)
    return replace(run, letters=[*run.letters[:at], early, *run.letters[at + 1 :]])


def move_a_task_twice(run: QueueHistory, chance: random.Random) -> QueueHistory:
    letter = run.letters[some_letter(run, chance)]
    return replace(run, letters=[*run.letters, replace(letter, seq=10_000)])


def move_an_acknowledged_task(run: QueueHistory, chance: random.Random) -> QueueHistory:
    refused = {event.seq for event in run.events if isinstance(event, NotHeld)}
    acked = [event.seq for event in run.events if isinstance(event, Acked) and event.seq not in refused]
    letter = DeadLetter(10_000, pick(chance, acked), "max_deliveries", MAX_DELIVERIES)
    return replace(run, letters=[*run.letters, letter])


def move_what_was_never_stored(run: QueueHistory, _: random.Random) -> QueueHistory:
    return replace(run, letters=[*run.letters, DeadLetter(10_000, 9_999, "rejected", 1)])


def redrive_twice(run: QueueHistory, chance: random.Random) -> QueueHistory:
    assume(run.redriven)
    return replace(run, redriven=[*run.redriven, replace(chance.choice(run.redriven), seq=10_000)])


def hold_a_key_twice(run: QueueHistory, chance: random.Random) -> QueueHistory:
    """The holder of a task with a key stays, and gets another task of that key a moment later."""
    left = {event.holder for event in run.events if isinstance(event, Left)}
    places = [
        at for at, each in enumerate(run.events) if isinstance(each, Taken) and each.key is not None and each.holder not in left
    ]
    at = pick(chance, places)
    taken = run.events[at]
    assert isinstance(taken, Taken)
    second = replace(taken, seq=9_998, number=9_998, at=taken.at + 0.001, holder=chance.choice([taken.holder, "another"]))
    return replace(run, events=[*run.events[: at + 1], second, *run.events[at + 1 :]])


def overtake_within_a_key(run: QueueHistory, chance: random.Random) -> QueueHistory:
    """A task is delivered, for the first time, before an earlier one of its key."""
    dead = {each.task for each in run.letters}
    puts = [each for each in run.of(Put) if each.key is not None and each.seq not in dead]
    pairs = [(first, later) for first in puts for later in run.of(Put) if later.key == first.key and later.seq > first.seq]
    assume(pairs)
    first, later = chance.choice(pairs)
    at = next(at for at, each in enumerate(run.events) if isinstance(each, Taken) and each.seq == first.seq)
    early = Taken("early", later.seq, later.number, 1, 0.0, later.key)
    return replace(run, events=[*run.events[:at], early, *run.events[at:]])


def claim_an_ack(run: QueueHistory, chance: random.Random) -> QueueHistory:
    """A receipt says `acked` before anybody acknowledged."""
    at = some(run, chance, Put)
    put = run.events[at]
    assert isinstance(put, Put)
    return replace(run, events=[*run.events[: at + 1], ReceiptTold(put.seq, "acked", 0.0), *run.events[at + 1 :]])


def claim_a_death(run: QueueHistory, chance: random.Random) -> QueueHistory:
    dead = {each.task for each in run.letters}
    alive = [event.seq for event in run.events if isinstance(event, Put) and event.seq not in dead]
    return replace(run, events=[*run.events, ReceiptTold(pick(chance, alive), "dead_lettered", 1e9)])


PlantFault = Callable[[QueueHistory, random.Random], QueueHistory]
PLANTED: Final[Sequence[tuple[PlantFault, QueueBroken]]] = [
    (give_a_second_holder, QueueBroken.TWO_HOLDERS),
    (lose_a_task_after_its_nak, QueueBroken.LOST),
    (lose_a_stored_task, QueueBroken.LOST),
    (deliver_after_its_ack, QueueBroken.AFTER_ACK),
    (deliver_another_task, QueueBroken.CHANGED),
    (move_a_task_early, QueueBroken.EARLY_DEAD),
    (move_a_task_twice, QueueBroken.DEAD_TWICE),
    (move_an_acknowledged_task, QueueBroken.DEAD_AND_ACKED),
    (move_what_was_never_stored, QueueBroken.UNKNOWN_ORIGIN),
    (redrive_twice, QueueBroken.REDRIVEN_TWICE),
    (hold_a_key_twice, QueueBroken.KEY_TWICE),
    (overtake_within_a_key, QueueBroken.KEY_ORDER),
    (claim_an_ack, QueueBroken.FALSE_RECEIPT),
    (claim_a_death, QueueBroken.FALSE_RECEIPT),
]


@settings(max_examples=50)
@given(st.integers(0))
def test_correct_run_of_a_queue_has_no_findings(seed: int) -> None:
    verdict = judge_queue(run_of(random.Random(seed)))
    assert not verdict.findings, str(verdict)
    assert verdict.stored == TASKS


@pytest.mark.parametrize(("plant", "broken"), PLANTED, ids=lambda each: getattr(each, "__name__", ""))
@settings(max_examples=15)
@given(st.integers(0))
def test_planted_fault_of_a_queue_is_found(plant: PlantFault, broken: QueueBroken, seed: int) -> None:
    chance = random.Random(seed)
    verdict = judge_queue(plant(run_of(chance), chance))
    assert broken in verdict.counts, str(verdict)


def test_refused_ack_of_an_earlier_holder_leaves_the_task_acknowledged() -> None:
    events: list[Event] = [Put(1, 1), Taken("late", 1, 1, 1, 0.0), Taken("heir", 1, 1, 2, 20.0), Acked("heir", 1, 21.0)]
    events += [Acked("late", 1, 22.0), NotHeld("late", 1, 22.0)]
    assert not judge_queue(QueueHistory(events, [], [], MAX_DELIVERIES, ACK_WAIT_S)).findings


PULLED: Final[Sequence[Event]] = [Put(1, 1), Taken("one", 1, 1, 1, 7.0, None, 0.0)]
"""A task that was asked for at 0 s, and read by its starved holder at 7 s."""


def judge_pulled(*more: Event, nats_kills: Sequence[float] = ()) -> QueueVerdict:
    events = [*PULLED, *more, Acked("other", 1, 100.0)]
    return judge_queue(QueueHistory(events, [], [], MAX_DELIVERIES, ACK_WAIT_S, slack_s=0.0, nats_kills=nats_kills))


def test_pulled_task_that_was_read_late_has_its_deadline_by_the_time_of_the_pull() -> None:
    assert not judge_pulled(Taken("other", 1, 1, 2, ACK_WAIT_S, None, 8.0)).findings


@pytest.mark.parametrize("slack_s", [0.0, 5.0])
def test_pulled_task_has_one_holder_until_its_deadline_whatever_the_slack(slack_s: float) -> None:
    early = Taken("other", 1, 1, 2, ACK_WAIT_S - 0.1, None, 8.0)
    run = QueueHistory([*PULLED, early, Acked("other", 1, 100.0)], [], [], MAX_DELIVERIES, ACK_WAIT_S, slack_s=slack_s)
    assert QueueBroken.TWO_HOLDERS in judge_queue(run).counts


def test_deadline_of_an_extended_task_counts_from_the_request() -> None:
    extended = Extended("one", 1, 12.0, 8.0)
    assert QueueBroken.TWO_HOLDERS in judge_pulled(extended, Taken("other", 1, 1, 2, 17.9, None, 17.0)).counts
    assert not judge_pulled(extended, Taken("other", 1, 1, 2, 18.0, None, 17.0)).findings


@pytest.mark.parametrize(("killed", "is_excused"), [(-0.1, False), (7.9, True), (8.1, False)])
def test_delivery_is_forgotten_only_by_a_kill_of_nats_just_after_it(killed: float, is_excused: bool) -> None:
    verdict = judge_pulled(Taken("other", 1, 1, 2, 9.0, None, 8.5), nats_kills=[killed])
    assert (QueueBroken.TWO_HOLDERS not in verdict.counts) is is_excused


def test_every_violation_is_planted() -> None:
    assert {broken for _, broken in PLANTED} == set(QueueBroken) - AFTER_RESTORE
