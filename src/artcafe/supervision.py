"""The supervisor of background loops: an unforeseen exception costs one item or one pass, never the loop and never the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Final

from artcafe.observe.logs import log

RESTART_S: Final = 1.0
"""Pause before a loop that raised starts again, so that one that fails at once does not take a core."""
LOG_EVERY_S: Final = 60.0
"""Failures of one type are logged at most this often, with a traceback, and counted in between: an item that fails every second
must not fill the log."""


class Supervisor:
    """Supervises one background loop. Each failure is counted in `failures`, and logged as `loop.failed`.

    `contain` goes around each item and `keep` around the whole loop. An item that fails must not keep the ones behind it waiting,
    so `keep` alone is not enough for a loop over items. Cancellation passes through both.
    """

    def __init__(self, loop: str) -> None:
        """`loop` names the loop in the log."""
        self._loop = loop
        self.failures = 0
        self._logged_at: dict[type[Exception], float] = {}

    def contain(self, *foreseen: type[Exception], **item: object) -> Containment:
        """Suppress any exception in a `with` block but the `foreseen` types, which the caller handles.

        What follows the block runs after a failure too; leave the block by `return` or `continue` where it must not. `item` names
        the item in the log.
        """
        return Containment(self, foreseen, item)

    async def keep(self, run: Callable[[], Awaitable[None]], restart_s: float = RESTART_S) -> None:
        """Run a loop until it returns or is cancelled. Start it again `restart_s` after it raised."""
        while True:
            with self.contain():
                await run()
                return
            await asyncio.sleep(restart_s)

    def note(self, exc: Exception, item: dict[str, object]) -> None:
        """Count a failure, and log it unless one of its type was logged a moment ago."""
        self.failures += 1
        now = time.monotonic()
        if now - self._logged_at.get(type(exc), float("-inf")) >= LOG_EVERY_S:
            self._logged_at[type(exc)] = now
            log.error("loop.failed", loop=self._loop, failures=self.failures, **item, exc_info=exc)


class Containment:
    """The block around one item. It is a class of its own and not a generator so that type checkers know that it suppresses."""

    __slots__ = ("_foreseen", "_item", "_supervisor")

    def __init__(self, supervisor: Supervisor, foreseen: tuple[type[Exception], ...], item: dict[str, object]) -> None:
        self._supervisor, self._foreseen, self._item = supervisor, foreseen, item

    def __enter__(self) -> None:
        """Nothing is needed to begin."""

    def __exit__(self, _: type[BaseException] | None, exc: BaseException | None, __: TracebackType | None) -> bool:
        """Suppress an unforeseen exception. Cancellation and the end of the process are no `Exception`."""
        if not isinstance(exc, Exception) or isinstance(exc, self._foreseen):
            return False
        self._supervisor.note(exc, self._item)
        return True


async def keep_all(loops: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
    """Run loops side by side, by name, each under a supervisor of its own, until cancelled or until all have returned."""
    async with asyncio.TaskGroup() as group:
        for name, loop in loops.items():
            group.create_task(Supervisor(name).keep(loop))
