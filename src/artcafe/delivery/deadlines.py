"""Deadlines of many things with one timer."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from artcafe.supervision import Supervisor

HEAP_SLACK: Final = 1024
"""Most entries of ended things in the heap, beside as many as there are things with a deadline."""

T = TypeVar("T")
IsCurrent = Callable[[float, T], bool]
"""Return whether a thing still has this deadline."""


class Deadlines(Generic[T]):
    """Calls back at each deadline, by the monotonic clock."""

    def __init__(
        self, expire: Callable[[float, T], None], count: Callable[[], int], current: Callable[[], IsCurrent[T]], name: str
    ) -> None:
        """`expire` is called with each deadline that has passed, also with one that was moved. `count` returns the number of
        things, and `current` a check of them that is used at once. `name`: in logs and metrics."""
        self._expire_one, self._count, self._current = expire, count, current
        self._heap: list[tuple[float, int, T]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.supervisor = Supervisor(name)

    def add(self, deadline: float, of: T) -> None:
        """Call `expire` at this deadline."""
        heap = self._heap
        if len(heap) > 2 * self._count() + HEAP_SLACK:
            is_current = self._current()
            heap[:] = [each for each in heap if is_current(each[0], each[2])]
            heapq.heapify(heap)
        heapq.heappush(heap, (deadline, next(self._numbers), of))
        if heap[0][2] is of:
            self._set_timer(deadline)

    def close(self) -> None:
        """Call back no more. May be repeated."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._heap.clear()

    def _set_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, deadline - time.monotonic()), self._expire)

    def _expire(self) -> None:
        self._timer = None
        now, heap = time.monotonic(), self._heap
        with self.supervisor.contain():
            while heap and heap[0][0] <= now:
                deadline, _, of = heapq.heappop(heap)
                self._expire_one(deadline, of)
        if heap:
            self._set_timer(heap[0][0])
