"""Check the receipts of broadcast messages in a run with faults against the contract (section 4), using only its history. No I/O.

A history is what the publisher was told, and what the recipients themselves saw, in order and with monotonic times in seconds.

After a restore the states are those of the backup (`restores`): acks that it cannot have, and messages that lost connections were
sent, justify nothing any more, whatever message has their sequence now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.faults.restores import SETTLED_S, Restored, RestoreEvent, lives_of
from tests.faults.verdicts import Ruling, Violation

FOREVER: Final = float("inf")
REACHED: Final = {"stored": frozenset[str](), "delivered": frozenset({"delivered", "acked"}), "acked": frozenset({"acked"})}
"""By the requested receipt, the states in which a recipient has reached it."""

# --- what happened ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Followed:
    """The answer that a message is stored whose publisher requested a receipt: `stored`, `delivered` or `acked`."""

    channel: str
    seq: int
    level: str
    receipt_s: float
    at: float


@dataclass(frozen=True, slots=True)
class Arrived:
    """A recipient has a connection from now on."""

    agent: str
    at: float


@dataclass(frozen=True, slots=True)
class Gone:
    """A recipient's connection has ended, or its program is about to end it."""

    agent: str
    at: float


@dataclass(frozen=True, slots=True)
class Read:
    """A recipient received a message."""

    agent: str
    channel: str
    seq: int
    at: float


@dataclass(frozen=True, slots=True)
class AckGiven:
    """A recipient is about to acknowledge everything up to `seq`."""

    agent: str
    channel: str
    seq: int
    at: float


@dataclass(frozen=True, slots=True)
class Claimed:
    """A push, or the answer of a `GET …/receipts` with `is_read`, said what became of a message for a recipient. `at`: when the
    push arrived, or the GET was sent."""

    agent: str
    channel: str
    seq: int
    state: str
    at: float
    is_read: bool = False


@dataclass(frozen=True, slots=True)
class LastPush:
    """The last push about a message."""

    channel: str
    seq: int
    reason: str
    open: int | None
    at: float


@dataclass(frozen=True, slots=True)
class PublisherGone:
    """The publisher's connection has ended, and with it the receipts that it waited for."""

    at: float


ReceiptEvent = Followed | Arrived | Gone | Read | AckGiven | Claimed | LastPush | PublisherGone | RestoreEvent


@dataclass(frozen=True)
class ReceiptHistory:
    """A run. `recipients`: by channel, the agents subscribed from before the first message on.

    `slack_s`: the longest stop of a process, and some seconds for a busy machine. `is_faulted`: acks may have been lost.
    """

    events: Sequence[ReceiptEvent]
    recipients: Mapping[str, Sequence[str]]
    slack_s: float = 5.0
    is_faulted: bool = False


# --- what must hold --------------------------------------------------------------------------------------------------


class ReceiptBroken(StrEnum):
    """A violated promise."""

    FALSE_ACKED = "acked, it says, before the agent acknowledged it"
    FALSE_DELIVERED = "delivered, it says, and it was not sent to a socket of the agent"
    FALSE_AWAY = "away, it says, and the agent was connected"
    NOT_A_RECIPIENT = "a state of an agent that has no subscription"
    FALSE_REACHED = "reached, it says, and a recipient had not"
    NOT_NOTED = "acknowledged in time, and never reported, without a fault"
    MISSING_RECIPIENT = "the last push leaves a recipient out"
    NO_FINAL = "without a last push"
    LATE_FINAL = "the last push came after its deadline"
    TWO_FINALS = "a push after the last one, or on a later connection"
    TAKEN_BACK = "no longer acked, without a fault"
    NOT_FOLLOWED = "a last push about a message whose receipt nobody requested of this log"
    BACKED_UP_ACK = "no longer acked after a restore, though that was reported long before the backup"


AFTER_RESTORE: Final = frozenset({ReceiptBroken.NOT_FOLLOWED, ReceiptBroken.BACKED_UP_ACK})
"""The violations that only a run with a restore has."""


def judge_receipts(run: ReceiptHistory) -> Ruling:
    """Return every violation in a run."""
    walk = _Walk(run)
    for event in run.events:
        walk.note(event)
    claims = sum(isinstance(event, Claimed) for event in run.events)
    receipts = sum(isinstance(event, Followed) for event in run.events)
    amounts = {"receipts": receipts, "states": claims, "reached": walk.reached, "cut off": walk.all_cut_off}
    return Ruling(amounts, [*walk.violations, *walk.without_end(), *walk.false_deliveries()])


Place = tuple[str, int]


class _Walk:
    """What each recipient has done, and what the publisher knows of it, by the events so far."""

    def __init__(self, run: ReceiptHistory) -> None:
        self._run, self._lives = run, lives_of(run.events)
        self.followed: dict[Place, Followed] = {}
        self._cut_off: set[Place] = set()
        self._cut_off_before = 0
        """How many receipts had been cut off in the log that a restore has replaced."""
        self.reached = 0
        self._finals: set[Place] = set()
        self._states: dict[Place, dict[str, Claimed]] = defaultdict(dict)
        """The last state that a push had, by message and agent."""
        self._acks: dict[tuple[str, str], list[AckGiven]] = defaultdict(list)
        self._acked: dict[tuple[str, Place], float] = {}
        """When an agent was first reported to have acknowledged a message."""
        self._delivered: list[Claimed] = []
        self._read: set[tuple[str, Place]] = set()
        self._backed_up: set[tuple[str, Place]] = set()
        """The acks that a restored log has certainly."""
        self._stays: dict[str, list[list[float]]] = defaultdict(list)
        """By agent, the times of its connections: from, to."""
        for event in run.events:
            match event:
                case Arrived(agent, at):
                    self._stays[agent].append([at, FOREVER])
                case Gone(agent, at):
                    self._stays[agent][-1][1] = min(at, self._stays[agent][-1][1])
                case _:
                    pass
        self.violations: list[Violation] = []

    def note(self, event: ReceiptEvent) -> None:
        """Note what an event changes."""
        match event:
            case Followed():
                self.followed[event.channel, event.seq] = event
            case Read():
                self._read.add((event.agent, (event.channel, event.seq)))
            case AckGiven():
                self._acks[event.agent, event.channel].append(event)
            case Claimed():
                self._claim(event)
            case LastPush():
                self._end(event)
            case PublisherGone():
                self._cut_off |= self.followed.keys() - self._finals
            case Restored():
                self._restore(event.last_seq)
            case _:
                pass

    @property
    def all_cut_off(self) -> int:
        """The number of receipts that ended with their connections."""
        return self._cut_off_before + len(self._cut_off)

    def _restore(self, last_seq: int) -> None:
        """Go back to the acks that the backup may have. Every connection has ended, and every receipt with it."""
        self.violations += self.false_deliveries()
        self._cut_off |= self.followed.keys() - self._finals
        self._cut_off_before = len(self._cut_off)
        for each in (self.followed, self._cut_off, self._finals, self._states, self._acks, self._read, self._delivered):
            each.clear()
        for event in self._lives.possible:
            if isinstance(event, AckGiven):
                ack = AckGiven(event.agent, event.channel, min(event.seq, last_seq), event.at)
                self._acks[event.agent, event.channel].append(ack)
        assert self._lives.began is not None
        written_at = self._lives.began.at - SETTLED_S
        acked = {who for who, at in self._acked.items() if at < written_at}
        self._backed_up = {(agent, place) for agent, place in acked if place[1] <= last_seq}
        self._acked.clear()

    def _find(self, broken: ReceiptBroken, place: Place, what: str) -> None:
        self.violations.append(Violation(broken, f"{place[0]} {place[1]}, {what}"))

    def _claim(self, claimed: Claimed) -> None:
        place, agent = (claimed.channel, claimed.seq), claimed.agent
        if agent not in self._run.recipients[claimed.channel]:
            self._find(ReceiptBroken.NOT_A_RECIPIENT, place, agent)
        if claimed.state == "acked":
            if not any(ack.seq >= claimed.seq for ack in self._acks[agent, claimed.channel]):
                self._find(ReceiptBroken.FALSE_ACKED, place, agent)
            self._acked.setdefault((agent, place), claimed.at)
        elif self._acked.get((agent, place), FOREVER) < claimed.at and claimed.state != "unknown" and not self._run.is_faulted:
            self._find(ReceiptBroken.TAKEN_BACK, place, f"{agent}: {claimed.state}")
        if (agent, place) in self._backed_up and claimed.state not in ("acked", "unknown"):
            self._find(ReceiptBroken.BACKED_UP_ACK, place, f"{agent}: {claimed.state}")
        if claimed.state == "delivered":
            self._delivered.append(claimed)
        if claimed.state == "away" and self._was_connected(agent, claimed.at):
            self._find(ReceiptBroken.FALSE_AWAY, place, agent)
        if not claimed.is_read:
            if place in self._finals | self._cut_off:
                self._find(ReceiptBroken.TWO_FINALS, place, agent)
            self._states[place][agent] = claimed

    def _was_connected(self, agent: str, at: float) -> bool:
        slack_s = self._run.slack_s
        return any(began + slack_s < at < ended - slack_s for began, ended in self._stays[agent])

    def _end(self, final: LastPush) -> None:
        place = final.channel, final.seq
        if place in self._finals | self._cut_off:
            self._find(ReceiptBroken.TWO_FINALS, place, final.reason)
        self._finals.add(place)
        followed = self.followed.get(place)
        if followed is None:
            self._find(ReceiptBroken.NOT_FOLLOWED, place, final.reason)
            return
        if final.at > followed.at + followed.receipt_s + self._run.slack_s:
            self._find(ReceiptBroken.LATE_FINAL, place, f"after {final.at - followed.at:.1f} s")
        if followed.level == "stored":
            return
        states, recipients = self._states[place], self._run.recipients[final.channel]
        if final.reason == "reached":
            self.reached += 1
            for agent in recipients:
                if agent not in states or states[agent].state not in REACHED[followed.level]:
                    self._find(ReceiptBroken.FALSE_REACHED, place, f"{agent}: {states.get(agent)}")
        elif final.reason == "deadline":
            for agent in recipients:
                self._check_open(place, final, agent, states.get(agent))

    def _check_open(self, place: Place, final: LastPush, agent: str, last: Claimed | None) -> None:
        """Check what the last push at the deadline leaves open."""
        if last is None:
            self._find(ReceiptBroken.MISSING_RECIPIENT, place, agent)
        elif last.state != "acked" and not self._run.is_faulted and self.followed[place].level == "acked":
            acks = [ack.at for ack in self._acks[agent, place[0]] if ack.seq >= place[1]]
            if acks and min(acks) < final.at - self._run.slack_s:
                self._find(ReceiptBroken.NOT_NOTED, place, f"{agent}: {last.state}")

    def without_end(self) -> Iterator[Violation]:
        """Yield the receipts that never ended, though the publisher stayed."""
        for place in self.followed.keys() - self._finals - self._cut_off:
            yield Violation(ReceiptBroken.NO_FINAL, f"{place[0]} {place[1]}")

    def false_deliveries(self) -> Iterator[Violation]:
        """Yield the messages that an agent never read, though a push reported them as sent to a socket that did not end then."""
        for claimed in self._delivered:
            place, slack_s = (claimed.channel, claimed.seq), self._run.slack_s
            broke = any(abs(ended - claimed.at) <= slack_s for _, ended in self._stays[claimed.agent])
            if (claimed.agent, place) not in self._read and not broke:
                yield Violation(ReceiptBroken.FALSE_DELIVERED, f"{place[0]} {place[1]}, {claimed.agent}")
