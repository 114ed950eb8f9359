"""The counted events of one audit within a minute, in bounded memory; `services.audit_counters` has one for each audit.

An actor who cannot be believed must not use up what is kept for others, and no success may be lost behind failures. So successes
have no bound on actors (each is an agent or a member that exists), failures of known actors have one, and failures in the name of
actors who may not exist have a smaller one of their own. What is above a bound is still counted, without what tells it apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple

from artcafe.model import Outcome, TenantId

MOST_UNKNOWN: Final = 100
"""Actors who may not exist that are counted apart, for each action; the rest are counted together, as `OTHERS`."""
MOST_KNOWN: Final = 1_000
"""Known actors whose failures are counted apart, for each action."""
MOST_VARIANTS: Final = 20
"""Addresses and facts that are counted apart for one actor and action; the rest are counted together, without either."""
OTHERS: Final = "others"


class Event(NamedTuple):
    """Something that may happen again, just so."""

    tenant_id: TenantId | None
    action: str
    actor: str
    outcome: Outcome
    address: str | None
    facts: tuple[tuple[str, str], ...]


class Counted:
    """How often an event happened since it was last written, and when first and last."""

    __slots__ = ("count", "first", "last")

    def __init__(self, first: datetime, count: int = 1, last: datetime | None = None) -> None:
        self.count, self.first, self.last = count, first, last or first

    def add(self, more: Counted) -> None:
        """Add what was counted elsewhere. What was written already has no part in `first`."""
        self.first = min(self.first, more.first) if self.count else more.first
        self.count, self.last = self.count + more.count, max(self.last, more.last)


class Counts:
    """The events of one tenant, or of the platform, since the minute began."""

    def __init__(self) -> None:
        self._counted: dict[Event, Counted] = {}
        self._variants: dict[tuple[str, Outcome, bool], dict[str, int]] = {}
        """By action, outcome and whether the actor is known: how many events of each actor are counted apart."""
        self._fresh: dict[Event, None] = {}

    def __len__(self) -> int:
        return len(self._counted)

    def __iter__(self) -> Iterator[tuple[Event, Counted]]:
        """Yield the events that happened since they were last written."""
        return ((event, counted) for event, counted in self._counted.items() if counted.count)

    @property
    def is_fresh(self) -> bool:
        """Whether something happened for the first time in this minute and is not written yet."""
        return bool(self._fresh)

    def add(self, event: Event, counted: Counted, *, is_known: bool = True, is_urgent: bool = True) -> None:
        """Count an event. The first of its kind is fresh, unless it is not urgent. `is_known`: the actor exists."""
        event = self._bounded(event, is_known)
        known = self._counted.get(event)
        if known is not None:
            known.add(counted)
            return
        self._counted[event] = counted
        if is_urgent:
            self._fresh[event] = None

    def take_fresh(self) -> list[tuple[Event, Counted]]:
        """Take the fresh events out, each as it is counted now; what happens later is counted from zero."""
        taken = []
        for event in self._fresh:
            known = self._counted[event]
            taken.append((event, Counted(known.first, known.count, known.last)))
            known.count = 0
        self._fresh.clear()
        return taken

    def _bounded(self, event: Event, is_known: bool) -> Event:
        if event in self._counted:
            return event
        variants = self._variants.setdefault((event.action, event.outcome, is_known), {})
        if event.actor not in variants and self._is_full(event, variants, is_known):
            event = event._replace(actor=OTHERS, address=None, facts=())
        elif variants.get(event.actor, 0) >= MOST_VARIANTS:
            event = event._replace(address=None, facts=())
        variants[event.actor] = variants.get(event.actor, 0) + 1
        return event

    @staticmethod
    def _is_full(event: Event, variants: dict[str, int], is_known: bool) -> bool:
        if event.outcome is Outcome.DONE:
            return False
        return len(variants) >= (MOST_KNOWN if is_known else MOST_UNKNOWN)
