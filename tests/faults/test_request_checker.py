"""Tests of the checker of requests: it accepts correct runs, and finds every planted fault."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.planting import some, with_event, with_events, without
from tests.faults.request_checker import (
    AFTER_RESTORE,
    RECONNECT_S,
    Asked,
    AskerLeft,
    Closed,
    Ended,
    Handled,
    Opened,
    PartReceived,
    PartSent,
    RequestBroken,
    RequestEvent,
    RequestHistory,
    Withdrawn,
    judge_requests,
)

SLACK_S: Final = 1.0
AGENTS: Final = ("scout", "clerk")
REQUESTS: Final = 30
AWAY: Final = "absent"


def run_of(chance: random.Random) -> RequestHistory:
    """Return a run without a fault: sockets that stay, one that leaves in the middle, and requests that end in every way."""
    events: list[RequestEvent] = [Opened(f"{agent}/{n}", agent, 0.0) for agent in AGENTS for n in (1, 2)]
    at = 10.0
    for number in range(REQUESTS):
        at += 3 * SLACK_S
        if number == REQUESTS // 2:
            events.append(Closed("clerk/2", at))
            at += 3 * SLACK_S
        agent = chance.choice([*AGENTS, AWAY])
        asked = Asked(number, agent, 2.0, chance.randrange(1, 4), at)
        events.append(asked)
        if agent == AWAY:
            events.append(Ended(number, "agent_away", False, at))
        else:
            events += _answered(chance, asked)
    return RequestHistory(events, SLACK_S)


def _answered(chance: random.Random, asked: Asked) -> list[RequestEvent]:
    number, at = asked.number, asked.at
    socket = f"{asked.agent}/1"
    handled = Handled(number, socket, at)
    match chance.choice(["answered", "timed out", "cancelled", "asker left"]):
        case "answered":
            parts = range(1, asked.max_replies + 1)
            sent = [PartSent(number, socket, part, at) for part in parts]
            received = [PartReceived(number, number, part, at) for part in parts]
            return [handled, *sent, *received, Ended(number, "answered", None, at)]
        case "timed out":
            late = at + asked.timeout_s + 0.1
            return [
                handled,
                Withdrawn(number, socket, late),
                Ended(number, "timed_out", True, late),
                PartSent(number, socket, 1, late),
            ]
        case "cancelled":
            return [handled, Ended(number, "cancelled", True, at), Withdrawn(number, socket, at)]
        case _:
            return [handled, AskerLeft(number, at), Withdrawn(number, socket, at)]


# --- planted faults ------------------------------------------------------------------------------------------------------------


def deliver_twice(events: Sequence[RequestEvent], chance: random.Random) -> list[RequestEvent]:
    at, handled = some(chance, events, Handled)
    return with_events(events, at, replace(handled, socket=handled.socket.replace("/1", "/2")))


def deliver_to_another_agent(events: Sequence[RequestEvent], chance: random.Random) -> list[RequestEvent]:
    at, handled = some(chance, events, Handled)
    other = "clerk/1" if handled.socket.startswith("scout") else "scout/1"
    return with_event(events, at, replace(handled, socket=other))


def deliver_what_nobody_asked(events: Sequence[RequestEvent], chance: random.Random) -> list[RequestEvent]:
    at, handled = some(chance, events, Handled)
    return with_events(events, at, replace(handled, number=1_000))


def swap_an_answer(events: Sequence[RequestEvent], chance: random.Random) -> list[RequestEvent]:
    at, received = some(chance, events, PartReceived)
    return with_event(events, at, replace(received, of=received.number + 1))


def invent_an_answer(events: Sequence[RequestEvent], chance: random.Random) -> list[RequestEvent]:
    _, received = some(chance, events, PartReceived)
    return without(events, lambda event: isinstance(event, PartSent) and event.number == received.number)


def swap_two_answers(events: Sequence[RequestEvent], chance: random.Random) -> list[RequestEvent]:
    at, later = some(chance, events, PartReceived, lambda each: each.part > 1)
    earlier = events[at - 1]
    return with_event(with_event(events, at, earlier), at - 1, later)


def answer_too_often(events: Sequence[RequestEvent], chance: random.Random) -> list[RequestEvent]:
    at, asked = some(chance, events, Asked, lambda each: each.max_replies > 1)
    some(chance, events, PartReceived, lambda each: (each.number, each.part) == (asked.number, asked.max_replies))
    return with_event(events, at, replace(asked, max_replies=asked.max_replies - 1))


def pass_on_after_a_cancel(events: Sequence[RequestEvent], chance: random.Random) -> list[RequestEvent]:
    _, received = some(chance, events, PartReceived)
    at, sent = some(chance, events, PartSent, lambda each: (each.number, each.part) == (received.number, received.part))
    return with_events(events, at, Withdrawn(sent.number, sent.socket, sent.at - 0.1))


def end_late(events: Sequence[RequestEvent], chance: random.Random) -> list[RequestEvent]:
    at, ended = some(chance, events, Ended)
    return with_event(events, at, replace(ended, at=ended.at + 10))


def never_end(events: Sequence[RequestEvent], chance: random.Random) -> list[RequestEvent]:
    at, _ = some(chance, events, Ended)
    return [*events[:at], *events[at + 1 :]]


def end_twice(events: Sequence[RequestEvent], chance: random.Random) -> list[RequestEvent]:
    at, ended = some(chance, events, Ended)
    return with_events(events, at, replace(ended, outcome="timed_out"))


def answer_after_the_end(events: Sequence[RequestEvent], chance: random.Random) -> list[RequestEvent]:
    at, ended = some(chance, events, Ended, lambda each: each.outcome == "timed_out")
    return with_events(events, at, PartReceived(ended.number, ended.number, 1, ended.at))


def call_a_connected_agent_away(events: Sequence[RequestEvent], chance: random.Random) -> list[RequestEvent]:
    _, asked = some(chance, events, Asked, lambda each: each.agent != AWAY)
    kept = without(events, lambda event: event is not asked and getattr(event, "number", None) == asked.number)
    return with_events(kept, kept.index(asked), Ended(asked.number, "agent_away", False, asked.at))


def deny_a_delivery(events: Sequence[RequestEvent], chance: random.Random) -> list[RequestEvent]:
    at, ended = some(chance, events, Ended, lambda each: each.delivered is True)
    return with_event(events, at, replace(ended, delivered=False))


def claim_a_delivery(events: Sequence[RequestEvent], chance: random.Random) -> list[RequestEvent]:
    at, ended = some(chance, events, Ended, lambda each: each.delivered is False)
    return with_event(events, at, replace(ended, delivered=True))


PlantFault = Callable[[Sequence[RequestEvent], random.Random], list[RequestEvent]]
PLANTED: Final[Sequence[tuple[PlantFault, RequestBroken]]] = [
    (deliver_twice, RequestBroken.HANDLED_TWICE),
    (deliver_to_another_agent, RequestBroken.WRONG_AGENT),
    (deliver_what_nobody_asked, RequestBroken.NOT_ASKED),
    (swap_an_answer, RequestBroken.FOREIGN_ANSWER),
    (invent_an_answer, RequestBroken.NOT_SENT),
    (swap_two_answers, RequestBroken.OUT_OF_ORDER),
    (answer_too_often, RequestBroken.TOO_MANY),
    (pass_on_after_a_cancel, RequestBroken.AFTER_WITHDRAWAL),
    (end_late, RequestBroken.LATE),
    (never_end, RequestBroken.NO_END),
    (end_twice, RequestBroken.TWO_ENDS),
    (answer_after_the_end, RequestBroken.TWO_ENDS),
    (call_a_connected_agent_away, RequestBroken.FALSE_AWAY),
    (deny_a_delivery, RequestBroken.FALSE_DELIVERED),
    (claim_a_delivery, RequestBroken.FALSE_DELIVERED),
]


@settings(max_examples=50)
@given(st.integers(0))
def test_correct_run_of_requests_has_no_violations(seed: int) -> None:
    ruling = judge_requests(run_of(random.Random(seed)))
    assert not ruling.violations, str(ruling)
    assert ruling.amounts["requests"] == REQUESTS


@pytest.mark.parametrize(("plant", "broken"), PLANTED, ids=lambda each: getattr(each, "__name__", ""))
@settings(max_examples=15)
@given(st.integers(0))
def test_planted_fault_of_a_request_is_found(plant: PlantFault, broken: RequestBroken, seed: int) -> None:
    chance = random.Random(seed)
    run = run_of(chance)
    ruling = judge_requests(replace(run, events=plant(run.events, chance)))
    assert broken in ruling.counts, str(ruling)


@pytest.mark.parametrize("is_during", [True, False])
@settings(max_examples=10)
@given(st.integers(0))
def test_connected_agent_may_be_away_only_while_servers_cannot_reach_nats(is_during: bool, seed: int) -> None:
    chance = random.Random(seed)
    run = run_of(chance)
    events = call_a_connected_agent_away(run.events, chance)
    (at,) = [event.at for event in events if isinstance(event, Ended) and event not in run.events]
    cut = (at - 1, at) if is_during else (at - 100, at - 99)
    killed = at - 1 if is_during else at - RECONNECT_S - 1
    for faulted in (replace(run, events=events, nats_cuts=[cut]), replace(run, events=events, nats_kills=[killed, at + 1])):
        assert (RequestBroken.FALSE_AWAY in judge_requests(faulted).counts) is not is_during


def test_every_violation_of_a_request_is_planted() -> None:
    assert {broken for _, broken in PLANTED} == set(RequestBroken) - AFTER_RESTORE
