"""The delay of the event loop: how late a timer runs, since everything in a server waits for the same loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

TICK_S: Final = 0.25
WINDOW_S: Final = 15.0
"""The worst delay is kept for one to two windows: a scrape every 15 s, the usual interval, misses none."""


class LoopDelay:
    """Measures the delay of the loop that runs it."""

    def __init__(self, record: Callable[[float], None], *, window_s: float = WINDOW_S) -> None:
        """`record` is called after each measurement with the worst delay, in seconds, of this window and the one before."""
        self._record, self._window_s = record, window_s

    async def run(self) -> None:
        """Measure every `TICK_S`, until cancelled."""
        before = worst = 0.0
        began = time.monotonic()
        while True:
            due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            if now - began >= self._window_s:
                before, worst, began = worst, 0.0, now
            worst = max(worst, now - due)
            self._record(max(before, worst))
