"""`artcafe.sync.Agent` and `Client`: the SDK for programs without asyncio. Their methods block, and functions run in threads.

All of them share one event loop in a background thread (decision 54).
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import queue
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, overload

from artcafe.sdk import agent as asynchronous
from artcafe.sdk.blocking import Blocking, Call, blocking, call, post
from artcafe.sdk.blocking_client import Client, TenantClient
from artcafe.sdk.blocking_messages import (
    Message,
    Messages,
    MessageStream,
    Pulled,
    PulledMessage,
    TrackedReceipt,
    TypedMessage,
)
from artcafe.sdk.consumers import ATTEMPTS, Failure
from artcafe.sdk.messages import Gap, Receipt
from artcafe.sdk.requests import Request
from artcafe.sdk.states import AgentState, StateEvent
from artcafe.wire import frames, replies

__all__ = [
    "Agent",
    "Client",
    "Message",
    "MessageStream",
    "Messages",
    "Pulled",
    "PulledMessage",
    "TenantClient",
    "TrackedReceipt",
    "TypedMessage",
]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_END: Final = object()


def _documented_as(method: Callable[..., Any]) -> Callable[[F], F]:
    """Give a function the docstring and the signature of `method` at run time, and keep its own type."""

    def decorate(function: F) -> F:
        functools.update_wrapper(function, method)
        return function

    return decorate


class Agent(Blocking[asynchronous.Agent]):
    """`artcafe.Agent` for synchronous programs: the same arguments and methods, without `await`.

    It may be used by several threads. Ctrl-C interrupts a blocking call; a message that arrives at that moment goes to the next
    step of its loop. Functions for messages, requests and events are plain functions, which run in threads of their own.
    """

    def __init__(self, url: str | Sequence[str] | None = None, **options: Any) -> None:
        """The options are those of `artcafe.Agent`."""
        super().__init__(asynchronous.Agent(url, **options))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        call(self._inner.__aexit__(kind, exc, traceback))

    @property
    def async_agent(self) -> asynchronous.Agent:
        """The agent with coroutine methods that this one calls. It belongs to the loop in the background."""
        return self._inner

    @property
    def tenant(self) -> str:
        return self._inner.tenant

    @property
    def agent(self) -> str:
        return self._inner.agent

    @property
    def service(self) -> str | None:
        """The name of the service that the agent logs in to; None before the first login if none was given."""
        return self._inner.service

    @property
    def limits(self) -> Mapping[str, replies.LimitState]:
        """The last known state of the tenant's limits, by name."""
        return self._inner.limits

    @property
    def state(self) -> AgentState:
        """The state of the connection."""
        return self._inner.state

    def start(self) -> Self:
        """Log in, and stay connected until `close`, as `artcafe.Agent.start` does."""
        call(self._inner.start())
        return self

    close = blocking(asynchronous.Agent.close)
    aclose = blocking(asynchronous.Agent.aclose)
    subscribe = blocking(asynchronous.Agent.subscribe)
    set_status = blocking(asynchronous.Agent.set_status)
    history = blocking(asynchronous.Agent.history)
    flush = blocking(asynchronous.Agent.flush)
    send = blocking(asynchronous.Agent.send)
    ask = blocking(asynchronous.Agent.ask)
    answer = blocking(asynchronous.Agent.answer)

    @_documented_as(asynchronous.Agent.publish)
    def publish(self, channel: str, data: object, **options: Any) -> Any:
        published = call(self._inner.publish(channel, data, **options))
        return published if isinstance(published, Receipt) else TrackedReceipt(published)

    @_documented_as(asynchronous.Agent.ask_stream)
    def ask_stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()  # The server sends at most `max_replies`.
        asking = Call(_pump(self._inner.ask_stream(*args, **kwargs), answers))
        try:
            while (answer := answers.get()) is not _END:
                yield answer
            asking.result()
        finally:
            asking.cancel()

    @_documented_as(asynchronous.Agent.client)
    def client(self) -> Client:
        return Client.of(call(self._inner.client()))

    @_documented_as(asynchronous.Agent.pull)
    def pull(self, **options: Any) -> Pulled:
        return Pulled(call(self._inner.pull(**options)))

    @overload
    def messages(
        self, *channels: str, start: frames.Start = "cursor", auto_ack: bool = False, gaps: Literal[False] = False
    ) -> Messages[Message]: ...

    @overload
    def messages(
        self, *channels: str, start: frames.Start = "cursor", auto_ack: bool = False, gaps: Literal[True]
    ) -> Messages[Message | Gap]: ...

    @overload
    def messages(
        self, *channels: str, type: type[T], start: frames.Start = "cursor", auto_ack: bool = False, gaps: Literal[False] = False
    ) -> Messages[TypedMessage[T]]: ...

    @overload
    def messages(
        self, *channels: str, type: type[T], start: frames.Start = "cursor", auto_ack: bool = False, gaps: Literal[True]
    ) -> Messages[TypedMessage[T] | Gap]: ...

    def messages(
        self, *channels: str, type: Any = None, start: frames.Start = "cursor", auto_ack: bool = False, gaps: bool = False
    ) -> Messages[Any]:
        """Iterate over messages as `artcafe.Agent.messages` does. `Messages.next` takes a timeout."""

        agent: Any = self._inner  # None of the overloads takes all of these arguments.

        async def begin() -> Messages[Any]:
            items = agent.messages(*channels, type=type, start=start, auto_ack=auto_ack, gaps=gaps)
            return Messages(items, self.tenant, Message if type is None else TypedMessage)

        return call(begin())

    # --- functions of the program, in threads ---

    def on(
        self,
        *channels: str,
        type: Any = None,
        concurrency: int = 1,
        attempts: int = ATTEMPTS,
        start: frames.Start = "cursor",
    ) -> Callable[[F], F]:
        """Handle the messages of these channels with a function in threads, at most `concurrency`, as `artcafe.Agent.on` does."""
        on = functools.partial(self._inner.on, type=type, concurrency=concurrency, attempts=attempts, start=start)
        return functools.partial(self._handle, functools.partial(on, *channels), type)

    def on_direct(self, handler: F | None = None, /, *, type: Any = None, concurrency: int = 1, attempts: int = ATTEMPTS) -> Any:
        """Handle the direct messages of this agent, as `artcafe.Agent.on_direct` does. A decorator."""
        on = functools.partial(self._inner.on_direct, type=type, concurrency=concurrency, attempts=attempts)
        return functools.partial(self._handle, on, type) if handler is None else self._handle(on, type, handler)

    def _handle(self, on: Callable[[], Callable[[Any], Any]], type: Any, handler: F) -> F:
        wrap = Message if type is None else TypedMessage

        async def handle(message: Any) -> None:
            await asyncio.to_thread(handler, wrap(message))

        _check(handler)
        _register(lambda: on()(handle))
        return handler

    def on_failure(self, handler: F) -> F:
        """Give the messages that `on` has given up to this function, as `artcafe.Agent.on_failure` does. A decorator."""

        async def handle(failure: Failure) -> None:
            await asyncio.to_thread(handler, dataclasses.replace(failure, message=Message(failure.message)))

        _check(handler)
        _register(lambda: self._inner.on_failure(handle))
        return handler

    def on_state(self, handler: F) -> F:
        """Call a function with each `StateEvent`, as `artcafe.Agent.on_state` does. A decorator."""

        async def handle(event: StateEvent) -> None:
            await asyncio.to_thread(handler, event)

        _check(handler)
        _register(lambda: self._inner.on_state(handle))
        return handler

    def on_request(self, handler: F) -> F:
        """Answer the requests of others with a function or a generator, as `artcafe.Agent.on_request` does. A decorator."""

        async def answer(request: Request) -> Any:
            return await asyncio.to_thread(handler, request)

        async def answer_several(request: Request) -> AsyncIterator[Any]:
            answers = handler(request)
            try:
                while (found := await asyncio.to_thread(next, answers, _END)) is not _END:
                    yield found
            finally:
                answers.close()

        if not inspect.isgeneratorfunction(handler):
            _check(handler)
        _register(lambda: self._inner.on_request(answer_several if inspect.isgeneratorfunction(handler) else answer))
        return handler

    def run(self, *, signals: bool = True) -> None:
        """Run until the agent is closed, or SIGINT or SIGTERM, as `artcafe.Agent.run` does."""
        is_handling = signals and threading.current_thread() is threading.main_thread()
        with _first_signal(self._inner.end_run) if is_handling else nullcontext():
            call(self._inner.run(signals=False))


def _check(handler: Callable[..., Any]) -> None:
    if inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
        raise TypeError(f"{handler!r} is no plain function: artcafe.sync calls plain functions, artcafe.Agent coroutines")


def _register(register: Callable[[], object]) -> None:
    async def on_the_loop() -> None:
        register()

    call(on_the_loop())


async def _pump(answers: AsyncIterator[Any], into: queue.SimpleQueue[Any]) -> None:
    try:
        async for answer in answers:
            into.put(answer)
    finally:
        into.put(_END)


@contextmanager
def _first_signal(callback: Callable[[], None]) -> Iterator[None]:
    """Let the background loop call `callback` at the first SIGINT or SIGTERM. A second one has its usual effect."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)

    def on_signal(number: int, frame: object) -> None:
        restore()
        post(callback)

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        restore()
