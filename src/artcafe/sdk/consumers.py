"""Functions of the program that handle messages: each runs as a consumer of its channels (decision 55).

A message is acknowledged when its function returns. After an exception a queue gets it back (`nak`), and a message of any other
channel is tried again here, with a back-off, before its successors.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from artcafe.errors import ArtcafeError, NotHeld, PayloadMismatch
from artcafe.sdk import backoff
from artcafe.sdk.commands import wait
from artcafe.sdk.connection import AgentConnection
from artcafe.sdk.iteration import Messages
from artcafe.sdk.messages import Message
from artcafe.sdk.outcome import Outcome
from artcafe.sdk.typed import Reader, typed
from artcafe.wire import frames

log = logging.getLogger("artcafe")

ATTEMPTS: Final = 5
"""Attempts at a message of a channel that is no queue, before the function for failures gets it."""

MessageHandler = Callable[[Any], object]
"""A function that handles a message: its result is ignored, and awaited if it is awaitable."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A message that its function could not handle, for the function of `Agent.on_failure`. `attempts` is 0 if its data did not
    match the function's type (`errors.PayloadMismatch`)."""

    message: Message
    error: Exception
    attempts: int


FailureHandler = Callable[[Failure], object]


@dataclass(frozen=True, slots=True)
class Registration:
    """A function and the channels whose messages it handles."""

    channels: tuple[str, ...]
    function: MessageHandler
    concurrency: int
    attempts: int
    start: frames.Start
    read: Reader | None

    def __post_init__(self) -> None:
        if not self.channels:
            raise ValueError("name the channels whose messages the function handles")
        if self.concurrency < 1 or self.attempts < 1:
            raise ValueError("concurrency and attempts must be at least 1")
        check_function(self.function)


def check_function(function: Callable[..., object]) -> None:
    """Raise TypeError for a generator: calling it would run nothing."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function!r} is a generator: a handler is a function or a coroutine function, whose result is ignored")


class Consumer:
    """One function at work, for one start of the agent."""

    def __init__(self, connection: AgentConnection, registration: Registration, on_failure: Callable[[], FailureHandler | None]):
        """`on_failure` returns the current function for failures."""
        self._connection, self._registration, self._on_failure = connection, registration, on_failure
        self._messages: Messages[Message] = Messages(
            connection, registration.channels, registration.start, auto_ack=False, gaps=False
        )
        self._slots = asyncio.Semaphore(registration.concurrency)
        self._closing = asyncio.Event()
        self._taking: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def subscribe(self) -> None:
        """Subscribe to the channels. Raises the server's error, such as `ChannelNotFound`."""
        await self._messages.subscribe()

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Handle messages until `stop` or the end of the connection, at most `concurrency` at once."""
        self._taking = asyncio.current_task()
        outcome = Outcome()
        with outcome:
            while not self._closing.is_set():
                await self._slots.acquire()
                try:
                    message = await anext(self._messages)
                except StopAsyncIteration:
                    break
                task = group.create_task(self._process(message))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        if outcome.error is not None:  # The connection has stored it, and every call raises it.
            log.debug("%r handles no more messages: %s", self._registration.function, outcome.error)

    def stop(self) -> None:
        """Take no more messages, and try none again. May be repeated."""
        self._closing.set()
        if self._taking is not None:
            self._taking.cancel()

    async def drain(self) -> None:
        """Stop, and return when the messages that are being handled are done."""
        self.stop()
        if running := self._running - {asyncio.current_task()}:
            await asyncio.wait(running)

    async def _process(self, message: Message) -> None:
        try:
            await self._handle(message)
        finally:
            self._slots.release()

    async def _handle(self, message: Message) -> None:
        """Handle one message until it is acknowledged or given back, or the agent closes."""
        attempts = tries = 0
        while True:
            handled, error = await self._attempt(message)
            tries += 1
            attempts += not isinstance(error, PayloadMismatch)
            if error is None:
                await handled.ack()
                return
            log.error("%r failed at %r (attempt %d)", self._registration.function, message, attempts, exc_info=error)
            if handled.is_settled:
                return
            if message.deliveries is not None:
                await self._contain(message.nak(dead=isinstance(error, PayloadMismatch)), "was not given back")
                return
            if await self._has_given_up(Failure(handled, error, attempts), attempts):
                await message.ack()
                return
            await wait(self._closing, backoff.delay_s(tries))
            if self._closing.is_set():
                return

    async def _attempt(self, message: Message) -> tuple[Message, Exception | None]:
        outcome = Outcome()
        with outcome, message.processing():
            message = typed(message, self._registration.read) if self._registration.read is not None else message
            result = self._registration.function(message)
            if inspect.isawaitable(result):
                await result
        return message, outcome.error

    async def _has_given_up(self, failure: Failure, attempts: int) -> bool:
        """Return whether the function for failures has taken the message. Without one, it is tried again for ever."""
        function = self._on_failure()
        if function is None or (0 < attempts < self._registration.attempts):
            return False
        return await self._contain(_call(function, failure), "was not taken by the function for failures")

    async def _contain(self, call: Coroutine[Any, Any, None], what: str) -> bool:
        """Return whether a call succeeds; log its exception."""
        outcome = Outcome()
        with outcome:
            await call
        if isinstance(outcome.error, NotHeld):
            log.debug("a message of %r is held by another agent by now: %s", self._registration.channels, outcome.error)
        elif outcome.error is not None:
            is_ours = isinstance(outcome.error, ArtcafeError)
            log.error("a message of %r %s", self._registration.channels, what, exc_info=None if is_ours else outcome.error)
        return outcome.error is None


async def validated(message: Message, read: Reader, on_failure: FailureHandler | None) -> Message | None:
    """Return a message with validated data, for a loop over messages. None if another place has it: the dead letters of a
    queue, or the function for failures. Otherwise raises `PayloadMismatch`. May be repeated.
    """
    try:
        return typed(message, read)
    except PayloadMismatch as exc:
        if message.deliveries is None and on_failure is None:
            raise
        log.warning("%s", exc)
        failure = Failure(message, exc, 0)
    if message.deliveries is not None:
        with contextlib.suppress(NotHeld):
            await message.nak(dead=True)
    elif on_failure is not None:
        await _call(on_failure, failure)
        await message.ack()
    return None


async def _call(function: FailureHandler, failure: Failure) -> None:
    result = function(failure)
    if inspect.isawaitable(result):
        await result
