"""Rate limits: token buckets by key, in bounded memory. The caller chooses the keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

MAX_KEYS: Final = 65_536
"""About 15 MB. Above it the least recently used key is dropped, as if its bucket were full."""


class Buckets:
    """Token buckets: each key may spend `rate_per_s` on average and `burst` at once. A rate of 0 means no limit."""

    def __init__(self, rate_per_s: float, burst: float, max_keys: int = MAX_KEYS) -> None:
        self._rate, self._burst, self._most = rate_per_s, burst, max_keys
        self._spent: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        """The amount spent and not yet refilled, and its time, by key. A missing key has spent nothing."""

    def take(self, key: Hashable, now: float) -> float:
        """Spend 1 and return 0, or return the seconds until that is possible without spending. `now` is monotonic."""
        if not self._rate:
            return 0.0
        spent = self._spent_by(key, now)
        if spent + 1 > self._burst:
            return (spent + 1 - self._burst) / self._rate
        self._keep(key, spent + 1, now)
        return 0.0

    def charge(self, key: Hashable, cost: float, now: float) -> None:
        """Spend `cost` even beyond the burst, up to two bursts in total."""
        if self._rate:
            self._keep(key, min(self._spent_by(key, now) + cost, 2 * self._burst), now)

    def __len__(self) -> int:
        return len(self._spent)

    def _spent_by(self, key: Hashable, now: float) -> float:
        spent, at = self._spent.get(key, (0.0, now))
        return max(0.0, spent - (now - at) * self._rate)

    def _keep(self, key: Hashable, spent: float, now: float) -> None:
        self._spent[key] = (spent, now)
        self._spent.move_to_end(key)
        if len(self._spent) > self._most:
            self._spent.popitem(last=False)
