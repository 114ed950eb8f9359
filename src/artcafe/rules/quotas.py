"""What many callers share, such as memory or open connections: so much in all, and so much for any one of them."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum


class QuotaExceeded(Enum):
    """Why nothing was taken."""

    KEY = "this key holds all that one may"
    TOTAL = "everything is taken"


class Quota:
    """At most `total` may be held by all keys together, and `per_key` by each. A bound of 0 bounds nothing."""

    __slots__ = ("_by_key", "_held", "_per_key", "_total")

    def __init__(self, total: int, per_key: int) -> None:
        self._total, self._per_key = total, per_key
        self._held = 0
        self._by_key: dict[Hashable, int] = {}
        """What each key holds. A key that holds nothing is not here, so this is never larger than what is held."""

    @property
    def held(self) -> int:
        """What all keys hold together."""
        return self._held

    def take(self, key: Hashable, amount: int = 1) -> QuotaExceeded | None:
        """Take `amount` for the key, to be given back by `release`; or take nothing, and return why."""
        mine = self._by_key.get(key, 0) + amount
        if self._per_key and mine > self._per_key:
            return QuotaExceeded.KEY
        if self._total and self._held + amount > self._total:
            return QuotaExceeded.TOTAL
        self._held += amount
        self._by_key[key] = mine
        return None

    def release(self, key: Hashable, amount: int = 1) -> None:
        """Give back what the key took."""
        mine = self._by_key[key] - amount
        assert mine >= 0, f"{key!r} gave back more than it took"
        self._held -= amount
        if mine:
            self._by_key[key] = mine
        else:
            del self._by_key[key]
