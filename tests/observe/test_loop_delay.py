from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from artcafe.observe.loop_delay import TICK_S, LoopDelay

BLOCKED_S = 0.6


async def test_work_that_blocks_the_loop_shows_in_the_delay_until_two_windows_have_passed() -> None:
    delays: list[float] = []
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        measuring = group.create_task(LoopDelay(delays.append, window_s=1.0).run())
        await until(lambda: bool(delays))
        began = time.monotonic()
        while time.monotonic() - began < BLOCKED_S:
            """Nothing else runs."""
        await until(lambda: max(delays) >= BLOCKED_S - TICK_S)
        await until(lambda: delays[-1] < BLOCKED_S - TICK_S)  # the worst delay of earlier windows is forgotten
        measuring.cancel()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (the measurement sets no event)
        await asyncio.sleep(0.01)
