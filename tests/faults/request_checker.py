"""Check a run of requests between agents with faults against the contract (section 4, "A request"). No I/O.

A history is what the askers and the answering sockets saw, in order and with monotonic times in seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.faults.restores import Restored, RestoreEvent
from tests.faults.verdicts import Ruling, Violation

FOREVER: Final = float("inf")
RECONNECT_S: Final = 5.0
"""A server notices at once that its nats-server was killed, and is connected to another one within this time."""

# --- what happened ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """An agent sent a request. No other one of the run has this `number`, which is also in its data."""

    number: int
    agent: str
    timeout_s: float
    max_replies: int
    at: float


@dataclass(frozen=True, slots=True)
class Opened:
    """A socket of an agent that takes requests is connected; `socket` names this one connection."""

    socket: str
    agent: str
    at: float


@dataclass(frozen=True, slots=True)
class Closed:
    """A socket has ended, or its program is about to end it."""

    socket: str
    at: float


@dataclass(frozen=True, slots=True)
class Handled:
    """A socket received a request."""

    number: int
    socket: str
    at: float


@dataclass(frozen=True, slots=True)
class PartSent:
    """A socket sent an answer; its data names the request and its place, from 1."""

    number: int
    socket: str
    part: int
    at: float


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A socket was told that a request needs no answer any more."""

    number: int
    socket: str
    at: float


@dataclass(frozen=True, slots=True)
class PartReceived:
    """The asker of `number` received an answer, with the request and place in its data."""

    number: int
    of: int
    part: int
    at: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The asker was told the end of a request: `answered`, or the error's code. `delivered` is the error's."""

    number: int
    outcome: str
    delivered: bool | None
    at: float


@dataclass(frozen=True, slots=True)
class AskerLeft:
    """The asker's connection ended before the end of a request."""

    number: int
    at: float


RequestEvent = Asked | Opened | Closed | Handled | PartSent | Withdrawn | PartReceived | Ended | AskerLeft | RestoreEvent


@dataclass(frozen=True)
class RequestHistory:
    """A run. `slack_s`: how late an end may come, and how long servers may take to notice a socket: the longest stop of a
    process, and some seconds for a busy machine. `nats_cuts`: from when to when servers could not reach NATS; an agent on such a
    server is away for the others until the connection is back. `nats_kills`: when a nats-server was killed, which cuts servers
    that were connected to it, for at most `RECONNECT_S`. All are of the monotonic clock."""

    events: Sequence[RequestEvent]
    slack_s: float = 5.0
    nats_cuts: Sequence[tuple[float, float]] = ()
    nats_kills: Sequence[float] = ()


# --- what must hold --------------------------------------------------------------------------------------------------


class RequestBroken(StrEnum):
    """A violated promise."""

    HANDLED_TWICE = "one request, delivered twice"
    WRONG_AGENT = "delivered to another agent than the one that was asked"
    NOT_ASKED = "delivered, but nobody asked"
    FOREIGN_ANSWER = "answered with the answer to another request"
    NOT_SENT = "answered with an answer that nobody sent"
    OUT_OF_ORDER = "answers out of order, or one of them twice"
    TOO_MANY = "more answers than max_replies"
    AFTER_WITHDRAWAL = "an answer, sent after its sender was told of the cancel, was passed on"
    LATE = "ended after its deadline"
    NO_END = "without a last answer or error"
    TWO_ENDS = "answered after its end, or ended twice"
    FALSE_AWAY = "agent_away, though a socket of the agent was connected"
    FALSE_DELIVERED = "the error says wrongly whether the request was delivered"
    STORED = "handled or answered after a restore, though it was sent before, and nothing of a request is stored"


AFTER_RESTORE: Final = frozenset({RequestBroken.STORED})
"""The violations that only a run with a restore has."""


def judge_requests(run: RequestHistory) -> Ruling:
    """Return every violation in a run."""
    walk = _Walk(run)
    for event in run.events:
        walk.note(event)
    violations = [*walk.violations, *walk.without_end(), *walk.errors()]
    answered = sum(each.outcome == "answered" for each in walk.ends.values())
    amounts = {"requests": len(walk.asked), "handled": len(walk.handled), "answered": answered}
    return Ruling(amounts | {"errors": len(walk.ends) - answered}, violations)


class _Walk:
    """What is known of each request and socket, by the events so far."""

    def __init__(self, run: RequestHistory) -> None:
        self._run = run
        self.asked: dict[int, Asked] = {}
        self.handled: dict[int, Handled] = {}
        self.ends: dict[int, Ended] = {}
        self._left: set[int] = set()
        self._lost: set[int] = set()
        """The requests that were sent before a restore."""
        self._sockets: dict[str, Opened] = {}
        self._closed: dict[str, float] = {}
        self._sent: dict[tuple[int, int], PartSent] = {}
        self._withdrawn: dict[tuple[int, str], float] = {}
        self._parts: dict[int, list[int]] = defaultdict(list)
        self.violations: list[Violation] = []

    def note(self, event: RequestEvent) -> None:
        """Note what an event changes."""
        match event:
            case Asked():
                self.asked[event.number] = event
            case Handled():
                self._handle(event)
            case PartSent():
                self._sent.setdefault((event.number, event.part), event)
            case Withdrawn():
                self._withdrawn.setdefault((event.number, event.socket), event.at)
            case PartReceived():
                self._receive(event)
            case Ended():
                self._end(event)
            case AskerLeft():
                self._left.add(event.number)
            case _:
                self._note_servers(event)

    def _note_servers(self, event: RequestEvent) -> None:
        """Note what happens to connections and servers."""
        match event:
            case Opened():
                self._sockets[event.socket] = event
            case Closed():
                self._closed.setdefault(event.socket, event.at)
            case Restored():
                self._lost = set(self.asked)
            case _:
                pass

    def _find(self, broken: RequestBroken, number: int, what: str = "") -> None:
        self.violations.append(Violation(broken, f"request {number}{what}"))

    def _handle(self, handled: Handled) -> None:
        asked = self.asked.get(handled.number)
        if asked is None:
            self._find(RequestBroken.NOT_ASKED, handled.number)
        elif self._sockets[handled.socket].agent != asked.agent:
            self._find(RequestBroken.WRONG_AGENT, handled.number, f", to {handled.socket}")
        if handled.number in self.handled:
            self._find(RequestBroken.HANDLED_TWICE, handled.number, f", to {handled.socket}")
        if handled.number in self._lost:
            self._find(RequestBroken.STORED, handled.number, f", handled by {handled.socket}")
        self.handled[handled.number] = handled

    def _receive(self, received: PartReceived) -> None:
        number, parts = received.number, self._parts[received.number]
        sent = self._sent.get((received.of, received.part))
        if number in self._lost:
            self._find(RequestBroken.STORED, number, f", part {received.part}")
        if received.of != number:
            self._find(RequestBroken.FOREIGN_ANSWER, number, f", of {received.of}")
        elif sent is None:
            self._find(RequestBroken.NOT_SENT, number, f", part {received.part}")
        elif sent.at > self._withdrawn.get((number, sent.socket), FOREVER):
            self._find(RequestBroken.AFTER_WITHDRAWAL, number, f", part {received.part}")
        if parts and received.part <= parts[-1]:
            self._find(RequestBroken.OUT_OF_ORDER, number, f", part {received.part} after {parts[-1]}")
        parts.append(received.part)
        if len(parts) > self.asked[number].max_replies:
            self._find(RequestBroken.TOO_MANY, number, f", {len(parts)}")
        if number in self.ends:
            self._find(RequestBroken.TWO_ENDS, number)
        self._check_time(number, received.at)

    def _end(self, ended: Ended) -> None:
        if ended.number in self.ends:
            self._find(RequestBroken.TWO_ENDS, ended.number)
        self.ends[ended.number] = ended
        self._check_time(ended.number, ended.at)

    def _check_time(self, number: int, at: float) -> None:
        asked = self.asked[number]
        if at > asked.at + asked.timeout_s + self._run.slack_s:
            self._find(RequestBroken.LATE, number, f", after {at - asked.at:.1f} s of {asked.timeout_s} s")

    def without_end(self) -> Iterator[Violation]:
        """Yield the requests that never ended, though their asker stayed."""
        for number in self.asked:
            if number not in self.ends and number not in self._left:
                yield Violation(RequestBroken.NO_END, f"request {number}")

    def errors(self) -> Iterator[Violation]:
        """Yield the errors that are not true."""
        for number, ended in self.ends.items():
            asked, stayed = self.asked[number], list(self._stayed(number))
            if ended.outcome == "agent_away" and not ended.delivered and stayed and not self._is_cut(ended.at):
                yield Violation(RequestBroken.FALSE_AWAY, f"request {number}, {asked.agent} on {stayed}")
            if ended.delivered is False and number in self.handled:
                yield Violation(RequestBroken.FALSE_DELIVERED, f"request {number}, {ended.outcome}, not delivered")
            if ended.delivered is True and number not in self.handled and self._all_stayed(number):
                yield Violation(RequestBroken.FALSE_DELIVERED, f"request {number}, {ended.outcome}, delivered")

    def _is_cut(self, at: float) -> bool:
        """Whether a server may have had no connection to NATS."""
        if any(killed <= at <= killed + RECONNECT_S for killed in self._run.nats_kills):
            return True
        return any(began <= at <= ended + self._run.slack_s for began, ended in self._run.nats_cuts)

    def _stayed(self, number: int) -> Iterator[str]:
        """Yield the sockets of the asked agent that were certainly connected while a request waited."""
        asked, until = self.asked[number], self.ends[number].at + self._run.slack_s
        for name, opened in self._sockets.items():
            is_before = opened.at + self._run.slack_s < asked.at
            if opened.agent == asked.agent and is_before and self._closed.get(name, FOREVER) > until:
                yield name

    def _all_stayed(self, number: int) -> bool:
        """Whether no socket of the asked agent ended while a request waited, or soon before or afterwards."""
        asked, slack_s = self.asked[number], self._run.slack_s
        since, until = asked.at - slack_s, self.ends[number].at + slack_s
        names = [name for name, opened in self._sockets.items() if opened.agent == asked.agent]
        return not any(since <= self._closed.get(name, FOREVER) <= until for name in names)
