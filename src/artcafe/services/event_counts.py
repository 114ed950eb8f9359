"""Counts of one audit's events within a minute, in bounded memory. `services.audit_counters` has one instance for each audit.

An unauthenticated actor must not use up the memory for others, and failures must not hide a success. So the number of actors is
unlimited for successes (each actor is an existing agent or member), limited for failures of known actors, and limited separately
and lower for failures of actors that may not exist. Events above a limit are still counted, merged without their details.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple

from artcafe.model import Outcome, TenantId

MOST_UNKNOWN: Final = 100
"""Actors that may not exist with counts of their own, for each action; the rest are merged as `OTHERS`."""
MOST_KNOWN: Final = 1_000
"""Known actors with failure counts of their own, for each action."""
MOST_VARIANTS: Final = 20
"""Combinations of address and facts counted separately for an actor and action; the rest are merged without either."""
OTHERS: Final = "others"


class Event(NamedTuple):
    """An event without its time; equal events are counted together."""

    tenant_id: TenantId | None
    action: str
    actor: str
    outcome: Outcome
    address: str | None
    facts: tuple[tuple[str, str], ...]


class Counted:
    """Number of occurrences of an event since it was last written, and the times of the first and the last."""

    __slots__ = ("count", "first", "last")

    def __init__(self, first: datetime, count: int = 1, last: datetime | None = None) -> None:
        self.count, self.first, self.last = count, first, last or first

    def add(self, more: Counted) -> None:
        """Add other occurrences. `first` ignores written occurrences."""
        self.first = min(self.first, more.first) if self.count else more.first
        self.count, self.last = self.count + more.count, max(self.last, more.last)


class Counts:
    """Event counts of one tenant, or of the platform, in the current minute."""

    def __init__(self) -> None:
        self._counted: dict[Event, Counted] = {}
        self._variants: dict[tuple[str, Outcome, bool], dict[str, int]] = {}
        """By action, outcome and whether the actor is known: the number of separate counts of each actor."""
        self._fresh: dict[Event, None] = {}

    def __len__(self) -> int:
        return len(self._counted)

    def __iter__(self) -> Iterator[tuple[Event, Counted]]:
        """Yield the events with unwritten occurrences."""
        return ((event, counted) for event, counted in self._counted.items() if counted.count)

    @property
    def is_fresh(self) -> bool:
        """Whether an event occurred for the first time in this minute and is not written yet."""
        return bool(self._fresh)

    def add(self, event: Event, counted: Counted, *, is_known: bool = True, is_urgent: bool = True) -> None:
        """Count an event. Its first occurrence is fresh, unless it is not urgent. `is_known`: the actor exists."""
        event = self._bounded(event, is_known)
        known = self._counted.get(event)
        if known is not None:
            known.add(counted)
            return
        self._counted[event] = counted
        if is_urgent:
            self._fresh[event] = None

    def take_fresh(self) -> list[tuple[Event, Counted]]:
        """Return the fresh events with their counts, and reset those counts to zero."""
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
