"""The commands of a program: as they are submitted, and while they wait for their replies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from artcafe.sdk.outbox import PendingCommand, Reply
from artcafe.wire import frames, replies

CLOSED: Final = "this Agent is closed: use it within its 'async with', or between start() and close()"
OTHER_LOOP: Final = (
    "this Agent runs on another event loop: call it from there (asyncio.run_coroutine_threadsafe submits a call to it)"
)


@dataclass(frozen=True, slots=True)
class OutgoingCommand:
    """A command of the program. `on_reply` is called with the reply before the next frame is handled."""

    kind: str
    body: frames.Body
    on_reply: Callable[[Reply], None] = lambda _: None
    on_part: Callable[[replies.RequestPush], None] | None = None
    """Called with each answer to a request before the last one."""

    @property
    def channel(self) -> str | None:
        """The channel of a `subscribe`; None for other commands."""
        return self.body.channel if isinstance(self.body, frames.Subscribe) else None


@dataclass(frozen=True, slots=True)
class PendingReply:
    """A submitted command, and the future of its reply."""

    command: PendingCommand
    reply: asyncio.Future[Reply]


def retrieve_exception(reply: asyncio.Future[Reply]) -> None:
    """Keep asyncio from logging an error that the loop over messages raises at its next step, or that no caller waits for."""
    if not reply.cancelled():
        reply.exception()


def finish(future: asyncio.Future[Reply], on_reply: Callable[[Reply], None], outcome: Reply | Exception) -> None:
    """Set the outcome of a command, after the effects of its reply."""
    if isinstance(outcome, Exception):
        if not future.done():
            future.set_exception(outcome)
        return
    on_reply(outcome)
    if not future.done():
        future.set_result(outcome)


async def wait(event: asyncio.Event, timeout_s: float | None) -> None:
    """Return when the event is set or the timeout is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
