"""Tests of the checker of receipts: it accepts correct runs, and finds every planted fault."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.planting import some, with_event, with_events, without
from tests.faults.receipt_checker import (
    AFTER_RESTORE,
    AckGiven,
    Arrived,
    Claimed,
    Followed,
    Gone,
    LastPush,
    PublisherGone,
    Read,
    ReceiptBroken,
    ReceiptEvent,
    ReceiptHistory,
    judge_receipts,
)

SLACK_S: Final = 1.0
RECEIPT_S: Final = 30.0
CHANNEL: Final = "news"
AGENTS: Final = ("ann", "bob")
AWAY: Final = "eve"
MESSAGES: Final = 30


def run_of(chance: random.Random) -> ReceiptHistory:
    """Return a run without a fault: two agents that stay, one that is away, and receipts of each level."""
    events: list[ReceiptEvent] = [Arrived(agent, 0.0) for agent in AGENTS]
    at = 10.0
    for seq in range(1, MESSAGES + 1):
        at += 5 * SLACK_S
        level = chance.choice(["stored", "delivered", "acked"])
        events.append(Followed(CHANNEL, seq, level, RECEIPT_S, at))
        if level == "stored":
            events.append(LastPush(CHANNEL, seq, "reached", None, at))
        elif chance.random() < 0.1:
            events.append(PublisherGone(at))
        else:
            events += _receipt(seq, level, at, is_acked=level == "acked" or chance.random() < 0.5)
    return ReceiptHistory(events, {CHANNEL: [*AGENTS, AWAY]}, SLACK_S)


def _receipt(seq: int, level: str, at: float, *, is_acked: bool) -> list[ReceiptEvent]:
    events: list[ReceiptEvent] = [Claimed(AWAY, CHANNEL, seq, "away", at)]
    for agent in AGENTS:
        events += [Claimed(agent, CHANNEL, seq, "delivered", at), Read(agent, CHANNEL, seq, at)]
        if is_acked:
            events.append(AckGiven(agent, CHANNEL, seq, at))
            events += [Claimed(agent, CHANNEL, seq, "acked", at, is_read) for is_read in (False, True)]
    return [*events, LastPush(CHANNEL, seq, "deadline", 1, at + RECEIPT_S)]


# --- planted faults ------------------------------------------------------------------------------------------------------------


def claim_an_ack_before_it(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    _, acked = some(chance, events, AckGiven)
    return without(events, lambda event: isinstance(event, AckGiven) and event.agent == acked.agent and event.seq >= acked.seq)


def claim_a_delivery_that_never_came(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    at, _ = some(chance, events, Read)
    return [*events[:at], *events[at + 1 :]]


def call_a_connected_agent_away(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    at, claimed = some(chance, events, Claimed, lambda each: each.state == "delivered")
    return with_event(events, at, replace(claimed, state="away"))


def report_a_stranger(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    at, claimed = some(chance, events, Claimed)
    return with_events(events, at, replace(claimed, agent="mallory"))


def claim_to_be_reached(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    at, last = some(chance, events, LastPush, lambda each: each.reason == "deadline")
    return with_event(events, at, replace(last, reason="reached", open=0))


def overlook_an_ack(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    followed = {event.seq for event in events if isinstance(event, Followed) and event.level == "acked"}
    _, acked = some(chance, events, AckGiven, lambda each: each.seq in followed)

    def tells(event: ReceiptEvent) -> bool:
        is_told = isinstance(event, Claimed) and event.state == "acked"
        return is_told and (event.agent, event.seq) == (acked.agent, acked.seq)  # type: ignore[union-attr]  # a Claimed

    return without(events, tells)


def leave_a_recipient_out(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    _, claimed = some(chance, events, Claimed, lambda each: each.state == "away")
    return without(events, lambda event: event is claimed)


def never_end(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    later = max((at for at, event in enumerate(events) if isinstance(event, PublisherGone)), default=-1)
    at, _ = some(chance, events, LastPush, lambda each: events.index(each) > later)
    return [*events[:at], *events[at + 1 :]]


def end_late(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    at, last = some(chance, events, LastPush)
    return with_event(events, at, replace(last, at=last.at + RECEIPT_S + 10))


def end_twice(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    at, last = some(chance, events, LastPush)
    return with_events(events, at, last)


def push_on_another_connection(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    at, last = some(chance, events, LastPush)
    return with_events(events, at - 1, PublisherGone(last.at))


def take_an_ack_back(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    at, claimed = some(chance, events, Claimed, lambda each: each.state == "acked")
    return with_events(events, at, replace(claimed, state="pending", at=claimed.at + 0.1, is_read=True))


def forget_that_the_socket_broke(events: Sequence[ReceiptEvent], chance: random.Random) -> list[ReceiptEvent]:
    """A connection that ended long before a message cannot have been sent it."""
    _, claimed = some(chance, events, Claimed, lambda each: each.state == "away")
    at = next(at for at, event in enumerate(events) if event is claimed)
    return [Arrived(AWAY, 0.0), Gone(AWAY, 1.0), *with_event(events, at, replace(claimed, state="delivered"))]


PlantFault = Callable[[Sequence[ReceiptEvent], random.Random], list[ReceiptEvent]]
PLANTED: Final[Sequence[tuple[PlantFault, ReceiptBroken]]] = [
    (claim_an_ack_before_it, ReceiptBroken.FALSE_ACKED),
    (claim_a_delivery_that_never_came, ReceiptBroken.FALSE_DELIVERED),
    (forget_that_the_socket_broke, ReceiptBroken.FALSE_DELIVERED),
    (call_a_connected_agent_away, ReceiptBroken.FALSE_AWAY),
    (report_a_stranger, ReceiptBroken.NOT_A_RECIPIENT),
    (claim_to_be_reached, ReceiptBroken.FALSE_REACHED),
    (overlook_an_ack, ReceiptBroken.NOT_NOTED),
    (leave_a_recipient_out, ReceiptBroken.MISSING_RECIPIENT),
    (never_end, ReceiptBroken.NO_FINAL),
    (end_late, ReceiptBroken.LATE_FINAL),
    (end_twice, ReceiptBroken.TWO_FINALS),
    (push_on_another_connection, ReceiptBroken.TWO_FINALS),
    (take_an_ack_back, ReceiptBroken.TAKEN_BACK),
]


@settings(max_examples=50)
@given(st.integers(0))
def test_correct_run_of_receipts_has_no_violations(seed: int) -> None:
    ruling = judge_receipts(run_of(random.Random(seed)))
    assert not ruling.violations, str(ruling)
    assert ruling.amounts["receipts"] == MESSAGES


@pytest.mark.parametrize(("plant", "broken"), PLANTED, ids=lambda each: getattr(each, "__name__", ""))
@settings(max_examples=15)
@given(st.integers(0))
def test_planted_fault_of_a_receipt_is_found(plant: PlantFault, broken: ReceiptBroken, seed: int) -> None:
    chance = random.Random(seed)
    run = run_of(chance)
    ruling = judge_receipts(replace(run, events=plant(run.events, chance)))
    assert broken in ruling.counts, str(ruling)


def test_every_violation_of_a_receipt_is_planted() -> None:
    assert {broken for _, broken in PLANTED} == set(ReceiptBroken) - AFTER_RESTORE
