"""Starting and closing an agent. `Agent` inherits it.

The background of an agent (its connection, and the handlers of the program) runs in one task of its own. So an agent may be
started in one task and closed in another one, as notebooks and ASGI lifespans do (decision 54).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self

from artcafe.sdk.client import Client
from artcafe.sdk.commands import CLOSED
from artcafe.sdk.connection import AgentConnection
from artcafe.sdk.consumers import Consumer, FailureHandler, Registration
from artcafe.sdk.outcome import Outcome
from artcafe.sdk.requests import Answering
from artcafe.sdk.states import StateEvents, StateHandler

log = logging.getLogger("artcafe")

STARTED: Final = "this Agent is started already: close() it before it is started again"


class AgentLifecycle:
    """The life of an agent: started and closed, any number of times."""

    _registrations: dict[tuple[str, ...], Registration]
    """The functions for messages of this start and of later ones, by their channels."""
    _state_handlers: list[StateHandler]

    _close_timeout_s: float
    _connection: AgentConnection
    """Of the current start, of the last one, or of the first one to come."""
    _new_connection: Callable[[asyncio.TaskGroup], tuple[AgentConnection, Answering]]
    _answering: Answering
    _consumers: dict[tuple[str, ...], Consumer]
    """The running functions for messages, by their channels."""
    _events: StateEvents
    _ended: asyncio.Event
    """The background has ended, or `run` is to return."""
    _subscribe_error: Exception | None = None
    """Why a function that was registered later gets no messages."""
    _on_failure: FailureHandler | None = None
    _group: asyncio.TaskGroup
    """For the background alone, which enters it."""
    _background: asyncio.Task[None] | None = None
    """None before the first start, and after a close."""
    _beside: set[asyncio.Task[None]]
    """Tasks that end with the connection."""
    _is_used: bool = False
    """Whether the connection belongs to an earlier start."""
    _client: Client | None = None
    """The REST client, logged in at its first use."""

    async def start(self) -> Self:
        """Log in, and stay connected until `close`. `async with agent:` does both.

        Returns after the first login. Raises the error that prevents it: `Unavailable` if no server answers within
        `connect_timeout_s`; RuntimeError if the agent is started already. A closed agent may be started again, also on another
        event loop. It continues at its cursors, like a new program: messages that were not acknowledged are delivered again.
        """
        if self._is_running():
            raise RuntimeError(STARTED)
        self._renew()
        loop = self._connection.loop = asyncio.get_running_loop()
        # The task belongs to the agent, not to a task group of the caller: it outlives the task that starts it.
        background = self._run_background(self._group, self._connection, self._events, self._ended)
        self._background = loop.create_task(background, name=f"artcafe {self!r}")
        is_open = False
        try:
            await self._connection.wait_open()
            for registration in list(self._registrations.values()):
                await self._begin(registration)
            is_open = True
        finally:
            if not is_open:
                await self._stop()
        return self

    async def close(self) -> None:
        """Send the acks, wait for publishes of other tasks, and close the connection, in at most `close_timeout_s` altogether.

        Any task of the agent's event loop may call it. May be repeated. Raises an unexpected error of the background, which the
        agent's calls have raised since it happened.
        """
        background = self._background
        await self._close(is_draining=True)
        if background is not None and not background.cancelled() and (error := background.exception()) is not None:
            raise error

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None:
            await self.close()
        else:
            await self._close(is_draining=False)

    async def aclose(self) -> None:
        """Close the connections of `pull` and `client`. Closing the agent does it too. May be repeated."""
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)

    async def _close(self, *, is_draining: bool) -> None:
        if self._is_running():
            self._connection.check_loop()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._close_timeout_s):
                    if is_draining and self._is_running():
                        await self._drain_consumers()
                        await self._connection.drain()
                    self._connection.leave()
                    if self._is_running() and self._background is not None:
                        await asyncio.wait([self._background])
        finally:
            await self.aclose()
            await self._stop()

    async def _stop(self) -> None:
        """End the background at once. May be repeated."""
        background = self._background
        if background is not None and self._is_running():
            self._connection.leave()
            background.cancel()
            await asyncio.wait([background])
        if self._background is background:
            self._background = None

    async def _run_background(
        self, group: asyncio.TaskGroup, connection: AgentConnection, events: StateEvents, ended: asyncio.Event
    ) -> None:
        try:
            async with group:
                group.create_task(events.run())
                try:
                    await connection.run()
                finally:
                    events.end()
                    for consumer in self._consumers.values():
                        consumer.stop()
                    for task in self._beside:
                        task.cancel()
                    ended.set()
        except BaseExceptionGroup as exc:
            connection.fail(exc)
            raise
        finally:
            ended.set()

    def _run_beside(self, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Run work of the library, which must not raise, until it ends or the agent is closed.

        Return False if the agent is not started.
        """
        if not self._is_running():
            return False
        task = self._group.create_task(work())
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return True

    # --- functions for messages ---

    def _consume(self, registration: Registration) -> None:
        """Let a function handle messages from now on, in place of another one for the same channels."""
        others = [each for each in self._registrations if each != registration.channels]
        if taken := {name for each in others for name in each}.intersection(registration.channels):
            raise ValueError(f"another function handles {', '.join(sorted(taken))} already: a message goes to one function")
        is_running = self._is_running()
        if is_running:
            self._connection.check_loop()
        self._registrations[registration.channels] = registration
        if is_running and self._connection.is_open:
            self._group.create_task(self._begin_later(registration))

    async def _begin(self, registration: Registration) -> None:
        """Subscribe, and handle messages in the background. Raises the server's error."""
        replaced = self._consumers.get(registration.channels)
        if replaced is not None:
            replaced.stop()
        consumer = Consumer(self._connection, registration, lambda: self._on_failure)
        await consumer.subscribe()
        self._consumers[registration.channels] = consumer
        self._group.create_task(consumer.run(self._group))

    async def _begin_later(self, registration: Registration) -> None:
        outcome = Outcome()
        with outcome:
            await self._begin(registration)
        if outcome.error is not None:
            log.error("%r gets no messages: %s", registration.function, outcome.error)
            self._subscribe_error = self._subscribe_error or outcome.error
            self._ended.set()

    async def _drain_consumers(self) -> None:
        for consumer in self._consumers.values():
            consumer.stop()
        for consumer in list(self._consumers.values()):
            await consumer.drain()

    def _renew(self) -> None:
        """Replace the connection of an earlier start. The service that it logged in to stays the only one."""
        if self._is_used:
            service = self._connection.service
            self._group = asyncio.TaskGroup()
            self._connection, self._answering = self._new_connection(self._group)
            self._connection.service = service
        self._consumers, self._ended, self._subscribe_error = {}, asyncio.Event(), None
        self._events, self._beside = StateEvents(self._state_handlers), set()
        self._connection.on_event = self._events.put
        self._is_used = True

    def _is_running(self) -> bool:
        """Return whether the background runs. Not on an event loop that was closed under it."""
        if self._background is None or self._background.done():
            return False
        return not self._background.get_loop().is_closed()

    def _check_entered(self) -> None:
        if not self._is_used:  # A closed connection raises by itself, and ends loops over messages.
            raise RuntimeError(CLOSED)
        self._connection.check_loop()
