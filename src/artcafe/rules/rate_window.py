"""The use of one rate limit by one tenant, as one server sees it: a window of 60 s that slides by slots of 3 s.

The servers share one counter for each slot. A server reserves several units of the current slot at once and spends them without
asking, so a publish costs one decrement. What a slot reserved counts until the slot has left the window: for 60 to 63 s after the
use. So no 60 s anywhere see more than the limit, also across the border of two minutes, and a tenant that always wants more gets
at least 60/63 of it. What a server reserved and did not spend it gives back at the end of the slot.

The window of a calendar month is the meter's total and the slots that the meter has not counted yet.

No I/O, and no clock: `services.rate_limits` has both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 60
SLOT_S: Final = 3
SLOTS: Final = WINDOW_S // SLOT_S
"""Whole slots that count beside the current one."""
RESERVED_SHARE: Final = 16
"""All servers together reserve in advance at most one in this many of the units left, so that none is missing elsewhere."""
LEAST_AHEAD: Final = 256
"""Units reserved in advance if that is far from the limit: a burst waits for none, and what is not spent is given back."""
LENT_SHARE: Final = 32
"""All servers together spend at most one in this many units of the limit before they have asked for them."""
LEAST_ROOM_TO_LEND: Final = 2
"""A server spends before it asks while at least one in this many units of the limit is free, as far as it knows."""
MOST_SLOTS: Final = 1200
"""Slots kept for the meter: an hour. Of a meter that is further behind, the month misses the messages between."""


@dataclass(frozen=True, slots=True)
class Monthly:
    """The limit of a calendar month: what the meter has counted, up to which time, and when the next month begins (epoch
    seconds)."""

    limit: int
    metered: int
    as_of: float
    resets_at: float


@dataclass(frozen=True, slots=True)
class WindowUsage:
    """The state of a limit. `resets_at`: when units become free (epoch seconds), or now if nothing is used."""

    limit: int
    used: int
    resets_at: float

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used)

    @property
    def percent(self) -> int:
        """The used share, rounded down; 100 if the limit is 0."""
        return 100 if self.used >= self.limit else self.used * 100 // self.limit


def resets_at(oldest: int | None, now: float) -> float:
    """Return when units become free (epoch seconds): when the oldest slot with a use leaves the window."""
    return now if oldest is None else max(now, (oldest + SLOTS + 1) * SLOT_S)


class RateWindow:
    """A limit's units on this server: reserved ones, and the totals of all servers by slot."""

    __slots__ = (
        "_lent",
        "_reserved",
        "_stale_from",
        "_totals",
        "is_closed",
        "limit",
        "low",
        "monthly",
        "recent",
        "slot",
        "tokens",
    )

    def __init__(self, limit: int, slot: int) -> None:
        self.limit, self.slot = limit, slot
        self.monthly: Monthly | None = None
        self.tokens = 0
        """Units reserved in the current slot and not spent. Whoever spends one decrements it."""
        self.low = 0
        """The number of tokens at which to reserve more."""
        self.is_closed = False
        """Whether the limit was reached in this slot: nothing is asked for until the next one."""
        self._lent = 0
        """Units spent and not reserved yet, also those of a slot that ended meanwhile: the next reservation includes them."""
        self.recent = 0
        """Units spent here in the previous slot."""
        self._reserved = 0
        """Units granted to this server in this slot, spent or not."""
        self._totals: dict[int, int] = {}
        """Units reserved by all servers, by slot, as far as is known."""
        self._stale_from: int | None = None
        """The first earlier slot whose total may have changed since it was read. None before the first read."""

    # --- the state ----------------------------------------------------------------------------------------------------

    def _before(self) -> int:
        """Return the units of the window's slots before the current one."""
        return sum(total for slot, total in self._totals.items() if self.slot - SLOTS <= slot < self.slot)

    def _unmetered(self) -> int:
        assert self.monthly is not None
        first = self.monthly.as_of / SLOT_S
        return sum(total for slot, total in self._totals.items() if slot < self.slot and slot + 1 > first)

    @property
    def room(self) -> int:
        """Return the units left in the current slot for all servers, before its own total."""
        room = self.limit - self._before()
        if self.monthly is not None:
            room = min(room, self.monthly.limit - self.monthly.metered - self._unmetered())
        return room

    def usage(self, now: float) -> WindowUsage:
        """Return the use of the limit per minute. What this server reserved and has not spent is not used."""
        used = max(0, self._before() + self._totals.get(self.slot, 0) + self._lent - self.tokens)
        counted = (slot for slot, total in self._totals.items() if total > 0 and slot >= self.slot - SLOTS)
        return WindowUsage(self.limit, used, resets_at(min(counted, default=None), now))

    def monthly_usage(self) -> WindowUsage | None:
        """Return the use of the limit per month, or None without one."""
        if self.monthly is None:
            return None
        used = self.monthly.metered + self._unmetered() + self._totals.get(self.slot, 0) + self._lent - self.tokens
        return WindowUsage(self.monthly.limit, max(0, used), self.monthly.resets_at)

    def is_idle(self) -> bool:
        """Return whether nothing here matters any more: no use in the window, and nothing unmetered."""
        return not any(self._totals.values()) and not self._lent

    @property
    def unspent(self) -> int:
        """The units of the counter's total that are reserved and not spent here; negative if more are spent than reserved."""
        return self.tokens - self._lent

    # --- time ---------------------------------------------------------------------------------------------------------

    def advance(self, slot: int) -> int:
        """Begin a slot. Return the units to give back to the counter of the slot that ended."""
        unspent, ended = self.tokens, self.slot
        self.recent = self._reserved - unspent if slot == ended + 1 else 0
        self._totals[ended] = max(0, self._totals.get(ended, 0) - unspent)
        self.slot, self.tokens, self.low, self._reserved, self.is_closed = slot, 0, 0, 0, False
        last = self.slot - SLOTS
        if self.monthly is not None:
            last = max(min(last, math.floor(self.monthly.as_of / SLOT_S)), self.slot - MOST_SLOTS)
        self._totals = {each: count for each, count in self._totals.items() if each >= last and count}
        return unspent

    def slots_to_read(self, *, is_alone: bool) -> list[int]:
        """Return the earlier slots whose totals this server must read, because other servers may have added to them.

        A window that is new reads all of them. Later, a server that runs alone reads none.
        """
        if self._stale_from is None:
            return list(range(self.slot - SLOTS, self.slot))
        return [] if is_alone else list(range(max(self._stale_from, self.slot - SLOTS), self.slot))

    def learn(self, totals: dict[int, int]) -> None:
        """Take the totals of the slots of `slots_to_read`, as read from the counters."""
        self._totals.update(totals)
        self._stale_from = self.slot - 1  # Units of the last slot may still be given back.

    def change_limit(self, limit: int) -> None:
        """Apply another limit from the next reservation on."""
        self.limit, self.is_closed = limit, False

    # --- reservations -------------------------------------------------------------------------------------------------

    def can_lend(self, servers: int) -> bool:
        """Return whether a unit may be spent (`charge`) before it is reserved: far fewer than the limit are used."""
        if self.is_closed or self._lent >= self.limit // (LENT_SHARE * max(2, servers)):
            return False
        return (self.room - self._totals.get(self.slot, 0)) * LEAST_ROOM_TO_LEND >= self.limit

    def charge(self) -> None:
        """Count a unit that was spent without a reservation."""
        self._lent += 1

    def wanted(self, waiting: int, servers: int) -> int:
        """Return how many units to reserve: those lent, those that callers wait for, and some in advance by the recent use."""
        room = max(0, self.room - self._totals.get(self.slot, 0))
        recent = max(self.recent, self._reserved, waiting)
        ahead = min(room // (RESERVED_SHARE * max(1, servers)), max(LEAST_AHEAD, recent))
        return max(0, self._lent + waiting + ahead - self.tokens)

    def grant(self, amount: int, total: int) -> int:
        """Take the answer to a reservation: the counter's total after `amount` was added. Return the units to give back.

        The units granted are in `tokens`. The limit is reached by the reservation that gets fewer than it asked for.
        """
        before = total - amount
        granted = max(0, min(amount, self.room - before))
        spent = min(self._lent, amount)  # What was lent is spent, also beyond the limit.
        kept = max(granted, spent)
        self._totals[self.slot] = before + kept
        self.tokens += kept - spent
        self._reserved += kept
        self._lent -= spent
        self.is_closed = granted < amount
        self.low = self.tokens // 2
        return amount - kept

    def grant_alone(self, amount: int) -> None:
        """Reserve while the counters are away: then each server applies the limit to its own use."""
        self.grant(amount, self._totals.get(self.slot, 0) + amount)
