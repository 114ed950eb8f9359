"""Tests of the fault tests' checker: it accepts correct runs, and finds every planted fault."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.checker import (
    Acked,
    Began,
    Broken,
    Entry,
    Event,
    Got,
    History,
    Joined,
    Refused,
    Sent,
    Stored,
    Unknown,
    Written,
    judge,
)
from tests.faults.planted_faults import PLANTED_FAULTS, PlantFault

T = TypeVar("T")

AGENTS = ("agt_a", "agt_b")
CHANNELS = ("chn_x", "chn_y")


@dataclass
class Reader:
    """A subscriber of the model: its received and acknowledged messages, and the written part of its acks, by channel."""

    agent: str
    connection: int = 0
    sent: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    acked: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    written: dict[str, int] = field(default_factory=lambda: defaultdict(int))


class Model:
    """A platform that keeps every promise, driven by random choices."""

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
            self.chance.choice((*moves, self.acknowledge, self.write, self.reconnect, self.resubscribe, self.repeat))()
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

    def resubscribe(self) -> None:
        reader, channel = self.chance.choice(self.readers), self.chance.choice(CHANNELS)
        cursor = self.chance.choice((reader.written, reader.acked))[channel]
        reader.sent[channel] = cursor
        self.events.append(Began(reader.agent, reader.connection, channel, cursor))


@st.composite
def runs(draw: st.DrawFn) -> tuple[History, random.Random]:
    """Draw a correct run, long enough to plant any fault, and the random source that chooses the place."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    return Model(chance).run(draw(st.integers(120, 250))), chance


@settings(max_examples=100)
@given(runs())
def test_correct_run_has_no_violations(made: tuple[History, random.Random]) -> None:
    run, _ = made
    verdict = judge(run)
    assert not verdict.findings, str(verdict)
    assert verdict.published == verdict.acknowledged + verdict.unknown + verdict.refused


@pytest.mark.parametrize("plant", PLANTED_FAULTS, ids=lambda plant: plant.__name__)
def test_planted_fault_is_found_at_any_place_of_a_run(plant: PlantFault) -> None:
    @settings(max_examples=20)
    @given(runs())
    def check(made: tuple[History, random.Random]) -> None:
        verdict = judge(plant(*made))
        assert PLANTED_FAULTS[plant] in verdict.counts, str(verdict)

    check()


def test_every_kind_of_violation_is_planted() -> None:
    assert set(PLANTED_FAULTS.values()) == set(Broken)


def test_repeat_after_a_lost_ack_is_counted_and_is_no_violation() -> None:
    sent = [Sent("agt_a/1", number, "agt_a", "chn_x", str(number)) for number in (1, 2)]
    entries = [Entry("chn_x", 1, None, "msg_1", "agt_a", "1"), Entry("chn_x", 2, 1, "msg_2", "agt_a", "2")]
    stored = [Stored("agt_a/1", number, number, f"msg_{number}") for number in (1, 2)]
    first: list[Event] = [Joined("agt_b", 0), *(Got("agt_b", 0, entry) for entry in entries), Acked("agt_b", 0, "chn_x", 2)]
    again: list[Event] = [Joined("agt_b", 1), *(Got("agt_b", 1, entry) for entry in entries)]
    verdict = judge(History([*sent, *stored, *first, *again], entries, {"agt_b": ["chn_x"]}))
    assert (verdict.findings, verdict.repeats) == ([], 2)


@pytest.mark.parametrize(("key", "is_retried", "is_green"), [("k", True, True), ("k", False, False), (None, True, False)])
@pytest.mark.promise("4c")
def test_only_publishes_with_a_key_may_be_refused_and_stored_after_others_sent_with_them(
    key: str | None, is_retried: bool, is_green: bool
) -> None:
    sent = [Sent("agt_a/1", number, "agt_a", "chn_x", str(number), key and f"{key}{number}") for number in (1, 2)]
    log = [Entry("chn_x", 1, None, "msg_2", "agt_a", "2"), Entry("chn_x", 2, 1, "msg_1", "agt_a", "1")]
    stored = [Stored("agt_a/1", 2, 1, "msg_2"), Stored("agt_a/1", 1, 2, "msg_1")]
    verdict = judge(History([*sent, *stored], log, {}, is_retried))
    assert (not verdict.findings) == is_green
