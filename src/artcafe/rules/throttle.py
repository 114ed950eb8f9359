"""How often somebody may do something: token buckets by key, in bounded memory. What the keys are is the caller's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

MAX_KEYS: Final = 65_536
"""Some 15 MB. Beyond it whoever was seen longest ago is forgotten, which is as if their bucket were full."""


class Buckets:
    """Each key may spend `rate_per_s` on average and `burst` at once. A rate of 0 bounds nothing."""

    def __init__(self, rate_per_s: float, burst: float, max_keys: int = MAX_KEYS) -> None:
        self._rate, self._burst, self._most = rate_per_s, burst, max_keys
        self._spent: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        """By key, what is spent and not regained, and when that was so. What is not here has spent nothing."""

    def take(self, key: Hashable, now: float) -> float:
        """0 where the key may go on, at the cost of 1; else the seconds until it may, at no cost. `now` is monotonic."""
        if not self._rate:
            return 0.0
        spent = self._spent_by(key, now)
        if spent + 1 > self._burst:
            return (spent + 1 - self._burst) / self._rate
        self._keep(key, spent + 1, now)
        return 0.0

    def charge(self, key: Hashable, cost: float, now: float) -> None:
        """Spends more, whether or not it is there, but no more than what two bursts are."""
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
