"""Readiness of a server: each required part (tables, NATS) is checked by using it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from artcafe.errors import ArtcafeError
from artcafe.fabric.fabric import Fabric
from artcafe.observe.clock import Clock
from artcafe.observe.logs import log
from artcafe.tables.engine.port import Permissions
from artcafe.tables.store import Store

OK: Final = "ok"
CHECK_S: Final = 2.0
FRESH_S: Final = 1.0
"""A result is reused for this long: requests for it need no token, and must not cost more than one check a second."""

PERMISSIONS: Final = "permissions"
"""The part for permissions on the tables. A server that lacks one is ready: others have the same policy, and may lack it for one
rare call. The check of the tables needs those that matter most."""

Checks = Mapping[str, Callable[[], Awaitable[None]]]
"""By part: a check that uses the part once, and raises an `ArtcafeError` where it does not work."""


def unready(states: Mapping[str, str]) -> list[str]:
    """Return the parts without which a server must get no requests."""
    return [part for part, state in states.items() if state != OK and part != PERMISSIONS]


def checks_of(store: Store, fabric: Fabric, clock: Clock) -> Checks:
    """Return the checks of a server: the tables can be read and written, and NATS stores a message."""
    return {"tables": lambda: store.check_health(clock()), "nats": lambda: fabric.check_storage(CHECK_S)}


class Readiness:
    """Checks every required part of this server."""

    def __init__(self, checks: Checks, permissions: Permissions | None = None) -> None:
        """`permissions`: those on the tables, if they have any."""
        self._checks, self._permissions = checks, permissions
        self._states: dict[str, str] = {}
        self._checked_at = -FRESH_S
        self._checking = asyncio.Lock()

    async def states(self) -> Mapping[str, str]:
        """Return `ok` or the problem, by part: at most 1 s old, and within 2 s. Concurrent calls share one check."""
        async with self._checking:
            if time.monotonic() - self._checked_at >= FRESH_S:
                async with asyncio.TaskGroup() as group:
                    running = {name: group.create_task(_state(check())) for name, check in self._checks.items()}
                    permitted = group.create_task(_permitted(self._permissions)) if self._permissions is not None else None
                states = {name: check.result() for name, check in running.items()}
                if permitted is not None:
                    states[PERMISSIONS] = permitted.result()
                if states != self._states:
                    log.info("server.not_ready" if unready(states) else "server.ready", **states)
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


async def _permitted(permissions: Permissions) -> str:
    """Return `ok`, or the permissions that are still denied."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CHECK_S):
            await permissions.retry_denied()
    denied = permissions.denied
    return f"denied: {', '.join(denied)}" if denied else OK
