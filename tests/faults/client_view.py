"""What the clients of a load saw during a fault: the pauses of its receivers, and the reconnects of its agents with the SDK."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple


class ClientView(NamedTuple):
    """The messages of one kind of traffic, and how long its clients waited: a publisher for an answer, a receiver for the next
    message. `repeated` counts deliveries of messages of a broadcast channel after the first, and of tasks after their ack."""

    acknowledged: int
    deliveries: int
    lost: int
    repeated: int
    other: int
    slowest_publish_s: float
    longest_pause_s: float
    reconnects: int


class Pauses:
    """The longest time in which a receiver got nothing, since `restart`. A receiver that gets nothing at all is not counted."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._last: dict[str, float] = {}
        self._longest_s = 0.0

    def restart(self) -> None:
        """Forget everything before now."""
        self._since, self._last, self._longest_s = time.monotonic(), {}, 0.0

    def note(self, receiver: str) -> None:
        """Note that a receiver got a message now."""
        now = time.monotonic()
        self._longest_s = max(self._longest_s, now - self._last.get(receiver, self._since))
        self._last[receiver] = now

    def longest_s(self) -> float:
        """Return the longest pause of any receiver, those included that last until now."""
        now = time.monotonic()
        return max([self._longest_s, *(now - last for last in self._last.values())])


@dataclass
class Reconnects:
    """How often agents with the SDK have connected again."""

    count: int = 0


@contextmanager
def sdk_reconnects() -> Iterator[Reconnects]:
    """Count the reconnects of every agent with the SDK in this process, within this block."""
    seen, logger = Reconnects(), logging.getLogger("artcafe")
    before = logger.level

    def count(record: logging.LogRecord) -> bool:
        seen.count += record.getMessage() == "connected again"
        return True

    logger.setLevel(logging.INFO)
    logger.addFilter(count)
    try:
        yield seen
    finally:
        logger.removeFilter(count)
        logger.setLevel(before)
