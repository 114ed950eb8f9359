"""Supervision of background loops: an unforeseen exception costs one item or one pass, never the loop or the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Final

from artcafe.observe import metrics
from artcafe.observe.logs import log

RESTART_S: Final = 1.0
"""Delay before a failed loop is restarted, so that a loop that fails at once does not occupy a core."""
LOG_EVERY_S: Final = 60.0
"""Failures of one type are logged at most this often, with a traceback, and counted in between, so that an item that fails every
second does not fill the log."""


class Supervisor:
    """The supervisor of one background loop. Each failure is counted in `failures` and the metrics, and logged as `loop.failed`.

    Use `contain` around each item, and `keep` around the whole loop. A failed item must not delay later ones, so `keep` alone is
    not enough for a loop over items. Cancellation passes through both.
    """

    def __init__(self, loop: str) -> None:
        """`loop` is the loop's name in the log."""
        self._loop = loop
        self.failures = 0
        self._counter = metrics.LOOP_FAILURES.of(loop)
        self._logged_at: dict[type[Exception], float] = {}

    def contain(self, *foreseen: type[Exception], **item: object) -> Containment:
        """Suppress exceptions in a `with` block, except for `foreseen` types, which the caller handles.

        Code after the block also runs after a failure; leave the block by `return` or `continue` to prevent that. `item`
        identifies the item in the log.
        """
        return Containment(self, foreseen, item)

    async def keep(self, run: Callable[[], Awaitable[None]], restart_s: float = RESTART_S) -> None:
        """Run a loop until it returns or is cancelled. Restart it `restart_s` after an exception."""
        while True:
            with self.contain():
                await run()
                return
            await asyncio.sleep(restart_s)

    def note(self, exc: Exception, item: dict[str, object]) -> None:
        """Count a failure, and log it unless one of its type has just been logged."""
        self.failures += 1
        self._counter.add()
        now = time.monotonic()
        if now - self._logged_at.get(type(exc), float("-inf")) >= LOG_EVERY_S:
            self._logged_at[type(exc)] = now
            log.error("loop.failed", loop=self._loop, failures=self.failures, **item, exc_info=exc)


class Containment:
    """The context manager of one item. A class, not a generator, so that type checkers know that it suppresses exceptions."""

    __slots__ = ("_foreseen", "_item", "_supervisor")

    def __init__(self, supervisor: Supervisor, foreseen: tuple[type[Exception], ...], item: dict[str, object]) -> None:
        self._supervisor, self._foreseen, self._item = supervisor, foreseen, item

    def __enter__(self) -> None:
        """Nothing is needed to begin."""

    def __exit__(self, _: type[BaseException] | None, exc: BaseException | None, __: TracebackType | None) -> bool:
        """Suppress an unforeseen exception. Cancellation and the end of the process are not subclasses of `Exception`.

        An exception raised by the cleanup of a cancelled task has replaced the cancellation, which is raised again.
        """
        if not isinstance(exc, Exception) or isinstance(exc, self._foreseen):
            return False
        self._supervisor.note(exc, self._item)
        if _is_cancelled():
            raise asyncio.CancelledError from exc
        return True


def _is_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop
        return False
    return task is not None and task.cancelling() > 0


def check_cancelled() -> None:
    """Raise `CancelledError` in a task that was cancelled and still runs, because a library has caught the cancellation.

    A loop that continues after its cancellation would never end, and neither would the server.
    """
    if _is_cancelled():
        raise asyncio.CancelledError


async def keep_all(loops: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
    """Run loops side by side, by name, each under a supervisor of its own, until cancelled or until all have returned."""
    async with asyncio.TaskGroup() as group:
        for name, loop in loops.items():
            group.create_task(Supervisor(name).keep(loop))
