"""The state of an agent's connection, and the events that the program may handle (`Agent.on_state`)."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from artcafe import errors
from artcafe.sdk.messages import Gap
from artcafe.sdk.outcome import Outcome

log = logging.getLogger("artcafe")

AgentState = Literal["closed", "connecting", "connected", "lost", "revoked", "failed"]
"""`closed`: not started, or closed again. `connecting`: before the first login of a start. `lost`: reconnecting. `revoked` and
`failed`: an error ended the connection for good, and every call raises it."""

MAX_EVENTS: Final = 1024
"""Events that wait for the program's functions. Beyond that, the oldest one is dropped with a warning."""


@dataclass(frozen=True, slots=True)
class StateEvent:
    """A change of an agent's connection.

    `kind`: `connected`, at the first login and after each reconnect; `lost`, with the `error`: the agent reconnects by itself;
    `gap`: messages of a channel will not come; `revoked`, with the `error`: the agent or its tenant lost access, or its login was
    refused; `failed`, with the `error`: the connection has ended for good for another reason.
    """

    kind: Literal["connected", "lost", "gap", "revoked", "failed"]
    error: Exception | None = None
    gap: Gap | None = None


StateHandler = Callable[[StateEvent], Any]
"""A function of the program, or a coroutine function. Its result is ignored."""


def final_kind(error: Exception) -> Literal["revoked", "failed"]:
    """Return the event of an error that ends the connection for good."""
    is_revoked = isinstance(error, errors.Revoked | errors.BadCredentials | errors.TenantSuspended)
    return "revoked" if is_revoked else "failed"


class StateEvents:
    """Calls the program's functions for each event of one start, in order, in a task of its own."""

    def __init__(self, handlers: list[StateHandler]) -> None:
        """`handlers` may grow later."""
        self._handlers = handlers
        self._waiting: asyncio.Queue[StateEvent | None] = asyncio.Queue()

    def put(self, event: StateEvent) -> None:
        """Call the functions soon."""
        if self._handlers:
            if self._waiting.qsize() >= MAX_EVENTS:
                log.warning("a function for state events is too slow: %r was dropped", self._waiting.get_nowait())
            self._waiting.put_nowait(event)

    def end(self) -> None:
        """End `run` after the events so far."""
        self._waiting.put_nowait(None)

    async def run(self) -> None:
        """Call the functions until `end`. An exception of theirs is logged."""
        while (event := await self._waiting.get()) is not None:
            for handler in list(self._handlers):
                outcome = Outcome()
                with outcome:
                    result = handler(event)
                    if inspect.isawaitable(result):
                        await result
                if outcome.error is not None:
                    log.error("a function for state events failed at %r", event, exc_info=outcome.error)
