"""What the stages between NATS and the holders of a queue share: each keeps delivered messages until it places them.

The stages are `other_holders` and `key_gate`, in this order. `queue_feed` passes messages through them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

from artcafe.fabric.work_queue import QueuedMessage

FRESH_S: Final = 0.5
"""A message taken longer ago is extended before a holder gets it, and the holder has the whole ack deadline."""
ANSWER_S: Final = 4.0
"""Longest wait for a pass of a stage's loop."""

Place = Callable[[QueuedMessage], None]
"""Give a message to the next stage, or to a holder."""
StartTask = Callable[[Coroutine[Any, Any, None]], object]
"""Run a coroutine in a task, which ends at the latest when the server stops."""


class Passes:
    """The passes of a stage's loop over its messages."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def note(self) -> None:
        """Wake the waiters after a pass."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Return once `holds` returns True after a pass, or after `ANSWER_S`."""
        if holds():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                while not holds():
                    await self._event.wait()
