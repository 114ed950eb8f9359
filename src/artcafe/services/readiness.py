"""Whether this server can do what agents need of it now: store a publish, and log one in. Both are tried."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from artcafe.errors import ArtcafeError
from artcafe.fabric.fabric import Fabric
from artcafe.observe.clock import Clock
from artcafe.observe.logs import log
from artcafe.tables.store import Store

OK: Final = "ok"
CHECK_S: Final = 2.0
FRESH_S: Final = 1.0
"""Whoever asks oftener gets the last answer, so that questions, which need no token, cost no more than this."""


class Readiness:
    """The state of every part that this server needs."""

    def __init__(self, store: Store, fabric: Fabric, clock: Clock) -> None:
        self._parts: Mapping[str, Callable[[], Awaitable[None]]] = {
            "tables": lambda: store.check_health(clock()),
            "nats": lambda: fabric.check_storage(CHECK_S),
        }
        self._states: dict[str, str] = {}
        self._checked_at = -FRESH_S
        self._checking = asyncio.Lock()

    async def states(self) -> Mapping[str, str]:
        """Return `ok` or what is wrong, by part: at most 1 s old, and after at most 2 s. Any number may ask at once."""
        async with self._checking:
            if time.monotonic() - self._checked_at >= FRESH_S:
                async with asyncio.TaskGroup() as group:
                    checks = {name: group.create_task(_state(part())) for name, part in self._parts.items()}
                states = {name: check.result() for name, check in checks.items()}
                if states != self._states:
                    log.info("server.ready" if set(states.values()) == {OK} else "server.not_ready", **states)
                self._states, self._checked_at = states, time.monotonic()
            return self._states


async def _state(check: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(CHECK_S):
            await check
    except ArtcafeError as exc:
        return str(exc)
    except TimeoutError:
        return f"nothing was stored within {CHECK_S:.0f} s: is its disk full or locked, or are most of its servers away?"
    return OK
