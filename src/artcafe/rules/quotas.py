"""Quotas for a shared resource, such as memory or open connections: in total, and per key."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum


class QuotaExceeded(Enum):
    """The limit that was reached."""

    KEY = "the limit of the key"
    TOTAL = "the limit of all keys together"


class Quota:
    """Limits the amount held by all keys together to `total`, and by each key to `per_key`. A limit of 0 means no limit."""

    __slots__ = ("_by_key", "_held", "_per_key", "_total")

    def __init__(self, total: int, per_key: int) -> None:
        self._total, self._per_key = total, per_key
        self._held = 0
        self._by_key: dict[Hashable, int] = {}
        """The amount held per key. Keys holding nothing are removed, so the dict is never larger than the amount held."""

    @property
    def held(self) -> int:
        """Return the amount held by all keys together."""
        return self._held

    def take(self, key: Hashable, amount: int = 1) -> QuotaExceeded | None:
        """Take `amount` for the key, until `release`; or take nothing and return the limit reached."""
        mine = self._by_key.get(key, 0) + amount
        if self._per_key and mine > self._per_key:
            return QuotaExceeded.KEY
        if self._total and self._held + amount > self._total:
            return QuotaExceeded.TOTAL
        self._held += amount
        self._by_key[key] = mine
        return None

    def release(self, key: Hashable, amount: int = 1) -> None:
        """Return an amount taken by the key."""
        mine = self._by_key[key] - amount
        assert mine >= 0, f"{key!r} gave back more than it took"
        self._held -= amount
        if mine:
            self._by_key[key] = mine
        else:
            del self._by_key[key]
