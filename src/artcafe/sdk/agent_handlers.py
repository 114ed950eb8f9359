"""Functions of the program as handlers of messages and events. `Agent` inherits it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, overload

from artcafe.sdk.agent_lifecycle import AgentLifecycle
from artcafe.sdk.consumers import ATTEMPTS, FailureHandler, MessageHandler, Registration, check_function
from artcafe.sdk.messages import Message
from artcafe.sdk.states import AgentState, StateHandler
from artcafe.sdk.typed import TypedMessage, reader_of
from artcafe.wire import frames

log = logging.getLogger("artcafe")

T = TypeVar("T")
R = TypeVar("R")
FailureHandlerT = TypeVar("FailureHandlerT", bound=FailureHandler)
StateHandlerT = TypeVar("StateHandlerT", bound=StateHandler)


class HandlingAgent(AgentLifecycle):
    """The part of `Agent` that calls functions of the program."""

    @property
    def state(self) -> AgentState:
        """The state of the connection."""
        return self._connection.state

    @overload
    def on(
        self, *channels: str, concurrency: int = 1, attempts: int = ATTEMPTS, start: frames.Start = "cursor"
    ) -> Callable[[Callable[[Message], R]], Callable[[Message], R]]: ...

    @overload
    def on(
        self, *channels: str, type: type[T], concurrency: int = 1, attempts: int = ATTEMPTS, start: frames.Start = "cursor"
    ) -> Callable[[Callable[[TypedMessage[T]], R]], Callable[[TypedMessage[T]], R]]: ...

    def on(
        self,
        *channels: str,
        type: Any = None,
        concurrency: int = 1,
        attempts: int = ATTEMPTS,
        start: frames.Start = "cursor",
    ) -> Callable[[Any], Any]:
        """Handle the messages of these channels with a function, while the agent is connected. A decorator.

        The function, plain or a coroutine function, gets a `Message`, which is acknowledged when it returns. Up to `concurrency`
        messages are handled at once; with 1, in order. If it raises, the exception is logged, and then:

        - a message of a `queue` is given back (`Message.nak`), and delivered again after the queue's back-off, or moved to its
          dead letters after its `max_deliveries`;
        - any other message stays unacknowledged and is tried again here, after 0.1 to 15 s. With `concurrency=1` no later
          message of its channel is handled before. After `attempts` the function of `on_failure` gets it, if there is one.

        With `type` the message's `data` is a value of that type: a msgspec struct, a dataclass, a pydantic model, or any other
        type that msgspec reads. A message that does not match goes to the queue's dead letters at once, or to `on_failure`.

        Starting the agent subscribes, and raises for example `ChannelNotFound`. A function registered later is subscribed in the
        background, and an error of that is raised by `run`. A second function for the same channels replaces the first. Closing
        the agent waits until the messages that are being handled are done.
        """

        def register(function: MessageHandler) -> MessageHandler:
            read = None if type is None else reader_of(type)
            self._consume(Registration(tuple(dict.fromkeys(channels)), function, concurrency, attempts, start, read))
            return function

        return register

    @overload
    def on_direct(self, handler: Callable[[Message], R], /) -> Callable[[Message], R]: ...

    @overload
    def on_direct(
        self, /, *, concurrency: int = 1, attempts: int = ATTEMPTS
    ) -> Callable[[Callable[[Message], R]], Callable[[Message], R]]: ...

    @overload
    def on_direct(
        self, /, *, type: type[T], concurrency: int = 1, attempts: int = ATTEMPTS
    ) -> Callable[[Callable[[TypedMessage[T]], R]], Callable[[TypedMessage[T]], R]]: ...

    def on_direct(
        self, handler: MessageHandler | None = None, /, *, type: Any = None, concurrency: int = 1, attempts: int = ATTEMPTS
    ) -> Any:
        """Handle the direct messages of this agent, those in its inbox, as `on` handles those of channels. A decorator."""
        register = self.on(frames.INBOX_PREFIX, type=type, concurrency=concurrency, attempts=attempts)
        return register if handler is None else register(handler)

    def on_failure(self, handler: FailureHandlerT) -> FailureHandlerT:
        """Give the messages that `on` has given up to this function, as a `Failure`. A decorator.

        The message is acknowledged when it returns. If it raises, the message is tried again. Loops over `messages` with a type
        call it too. Messages of queues do not come here: they go to the queue's dead letters. Without such a function a message
        is tried again until it succeeds.
        """
        check_function(handler)
        self._on_failure = handler
        return handler

    def on_state(self, handler: StateHandlerT) -> StateHandlerT:
        """Call a function with each `StateEvent`: `connected`, `lost`, `gap`, `revoked`, `failed`. A decorator.

        Several functions are called in the order of their registration, one event after the other. An exception is logged.
        """
        check_function(handler)
        self._state_handlers.append(handler)
        return handler

    async def run(self, *, signals: bool = True) -> None:
        """Start the agent if it is not started, and return when it is closed, or after SIGINT or SIGTERM.

        The agent is closed at the end if this call has started it: messages that are being handled are waited for, unless this
        call is cancelled. Raises the error that ends the connection, and that of a function which could not subscribe. A second
        signal has its usual effect. With `signals=False`, or outside of the main thread, signals have their usual effect.
        """
        if not self._is_running():
            async with self:
                await self._wait_for_end(signals)
        else:
            await self._wait_for_end(signals)

    def end_run(self) -> None:
        """Let `run` return, on the agent's event loop. `run` closes the agent if it has started it."""
        self._ended.set()

    async def _wait_for_end(self, signals: bool) -> None:
        self._connection.check_loop()
        ended = self._ended
        with _first_signal(ended.set if signals else None):
            await ended.wait()
        failure = self._subscribe_error or self._connection.failure
        if failure is not None:
            raise failure


@contextmanager
def _first_signal(callback: Callable[[], None] | None) -> Iterator[None]:
    """Call `callback` at the first SIGINT or SIGTERM during the block. Do nothing where the event loop cannot handle signals."""
    loop, before = asyncio.get_running_loop(), dict[signal.Signals, Any]()

    def restore() -> None:
        while before:
            number, handler = before.popitem()
            loop.remove_signal_handler(number)
            if handler is not None:
                signal.signal(number, handler)

    def on_signal(name: str) -> None:
        log.info("%s: the agent is closing", name)
        restore()
        if callback is not None:
            callback()

    for number in (signal.SIGINT, signal.SIGTERM) if callback is not None else ():
        handler = signal.getsignal(number)
        try:
            loop.add_signal_handler(number, on_signal, number.name)
        except (NotImplementedError, RuntimeError, ValueError):  # Windows, or another thread than the main one.
            break
        before[number] = handler
    try:
        yield
    finally:
        restore()
