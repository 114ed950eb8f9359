"""Requests between agents: asking (`ask_stream`), and answering the requests of others (`Answering`)."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from datetime import datetime
from functools import cached_property
from typing import Any, Final, TypeVar

import msgspec

from artcafe.errors import AgentError, NotPending, RequestLost, RequestTimedOut
from artcafe.sdk import encoding, tracing
from artcafe.sdk.commands import OutgoingCommand
from artcafe.sdk.connection import AgentConnection
from artcafe.sdk.outcome import Outcome
from artcafe.wire import frames, replies

log = logging.getLogger("artcafe")

MAX_PENDING: Final = 256
"""Requests of one agent without a last answer; the next caller waits. The server allows as many."""
REPLY_S: Final = 30.0
"""The timeout of passing on one answer."""

T = TypeVar("T")

Handler = Callable[["Request"], Any]
"""A function of the program that answers requests: it returns the answer or an awaitable of it, or is an async generator."""


HandlerT = TypeVar("HandlerT", bound=Handler)


class Request:
    """A request of another agent or a person, to be answered by the function registered with `Agent.on_request`."""

    def __init__(self, pushed: replies.RequestPush) -> None:
        self._pushed = pushed

    def __repr__(self) -> str:
        return f"Request(request_id={self.request_id!r}, sender={self.sender!r})"

    @property
    def request_id(self) -> str:
        return self._pushed.request_id

    @property
    def sender(self) -> str:
        """The authenticated sender: an agent's id, or `usr:` and a person's."""
        return self._pushed.sender

    @property
    def headers(self) -> Mapping[str, str]:
        return self._pushed.headers

    @cached_property
    def deadline(self) -> datetime:
        """The time from which on no answer counts, by the server's clock; aware, UTC."""
        return datetime.fromisoformat(self._pushed.deadline or "9999-12-31T00:00:00Z")

    @property
    def raw(self) -> bytes:
        """The data as the JSON text that the sender sent."""
        return bytes(_data_of(self._pushed))

    @cached_property
    def data(self) -> Any:
        """The data, parsed on first access, as `Message.data`."""
        return encoding.value_of(_data_of(self._pushed))


def _data_of(push: replies.RequestPush) -> msgspec.Raw:
    return push.data if isinstance(push.data, msgspec.Raw) else msgspec.Raw(b"null")


# --- asking --------------------------------------------------------------------------------------------------------------


async def ask_stream(
    connection: AgentConnection, slots: asyncio.Semaphore, body: frames.Request, timeout_s: float
) -> AsyncGenerator[Any, None]:
    """Send a request once, and yield the data of its answers as they arrive. Raises the error that ends them.

    The request is cancelled at the server if the iterator is closed early, or after `timeout_s` in all. `slots` limits the
    requests that wait.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + timeout_s
    answers: asyncio.Queue[replies.RequestPush | None] = asyncio.Queue()  # The server sends at most `max_replies`.
    await _within(slots.acquire(), ends_at, timeout_s)
    try:
        pending = connection.submit(OutgoingCommand("request", body, on_part=answers.put_nowait))
        pending.reply.add_done_callback(lambda _: answers.put_nowait(None))
        try:
            while (part := await _within(answers.get(), ends_at, timeout_s)) is not None:
                yield encoding.value_of(_data_of(part))
            last = pending.reply.result()
            assert isinstance(last, replies.RequestPush)
            if isinstance(last.data, msgspec.Raw):
                yield encoding.value_of(last.data)
        finally:
            connection.cancel(pending)
    finally:
        slots.release()


async def _within(awaitable: Awaitable[T], ends_at: float, timeout_s: float) -> T:
    """Await until the end of a request. Raises `RequestTimedOut`."""
    try:
        async with asyncio.timeout_at(ends_at):
            return await awaitable
    except TimeoutError:
        raise RequestTimedOut(timeout_s) from None


# --- answering -----------------------------------------------------------------------------------------------------------


class Answering:
    """Answers pushed requests with the program's function, each in a task of its own, of the agent's task group.

    It is a `session.PushedRequests`.
    """

    def __init__(
        self, connection: AgentConnection, group: asyncio.TaskGroup, max_requests: int, handler: Handler | None = None
    ) -> None:
        """`max_requests`: how many requests are answered at once."""
        self._connection, self._group, self._max_requests = connection, group, max_requests
        self._handler = handler
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """The tasks of unanswered requests, by request id."""

    @property
    def max_requests(self) -> int:
        """How many requests the connection takes: none without a handler."""
        return self._max_requests if self._handler is not None else 0

    def register(self, handler: Handler) -> None:
        """Answer with this function from now on, also on the connection that is open."""
        self._handler = handler
        if self._connection.is_open:
            self._connection.submit(OutgoingCommand("accept", frames.Accept(self._max_requests)))

    def on_push(self, frame: replies.Incoming) -> None:
        """Handle a `request` or `cancel` push."""
        if frame.request is not None:
            request = Request(frame.request)
            task = self._tasks[request.request_id] = self._group.create_task(self._answer(request))
            task.add_done_callback(lambda _: self._tasks.pop(request.request_id, None))
        elif frame.cancel is not None and (answering := self._tasks.get(frame.cancel.request_id)) is not None:
            answering.cancel()

    def on_connection_lost(self) -> None:
        """Cancel every running handler: its answer could not be passed on."""
        for task in list(self._tasks.values()):
            task.cancel()

    async def answer(self, request_id: str, data: object, error: AgentError | None) -> None:
        """Answer a request in place of its handler, which is cancelled once the answer has left. Raises `NotPending`."""
        handler = self._tasks.get(request_id)
        if handler is None:
            raise NotPending
        if error is None:
            await self._send(self._reply(request_id, data, has_more=False))
        else:
            await self._send(_refusal(request_id, error))
        handler.cancel()

    async def _answer(self, request: Request) -> None:
        """Answer one request. A failure becomes an answer or a log line: it must not end the agent."""
        outcome = Outcome()
        with outcome, tracing.start_answering(request):
            await self._run(request)
        error = outcome.error
        if error is None:
            return
        if isinstance(error, AgentError):
            refusal = _refusal(request.request_id, error)
        elif isinstance(error, NotPending | RequestLost):
            log.debug("the answer to %r came too late: %s", request, error)
            return
        else:
            log.error("the handler of requests failed at %r", request, exc_info=error)
            failed = AgentError("failed", f"the agent failed to answer ({type(error).__name__})")
            refusal = _refusal(request.request_id, failed)
        late = Outcome()
        with late:
            await self._send(refusal)
        if late.error is not None:
            log.debug("the error of %r was not passed on: %s", request, late.error)

    async def _run(self, request: Request) -> None:
        if self._handler is None:
            raise AgentError("no_handler", "this connection of the agent answers no requests")
        answers = self._handler(request)
        if isinstance(answers, AsyncGenerator):
            async with aclosing(answers):
                async for answer in answers:
                    await self._send(self._reply(request.request_id, answer, has_more=True))
            await self._send(frames.Reply(request.request_id))
        else:
            answer = await answers if inspect.isawaitable(answers) else answers
            await self._send(self._reply(request.request_id, answer, has_more=False))

    def _reply(self, request_id: str, answer: object, *, has_more: bool) -> frames.Reply:
        depth = self._connection.limits.get("json_depth", frames.MAX_DEPTH)
        return frames.Reply(request_id, encoding.data_text(answer, depth), more=has_more)

    async def _send(self, reply: frames.Reply) -> None:
        await self._connection.request(OutgoingCommand("reply", reply), REPLY_S)


def _refusal(request_id: str, error: AgentError) -> frames.Reply:
    fault = frames.AgentFault(error.agent_code, error.message[: frames.AGENT_MESSAGE_CHARS])
    return frames.Reply(request_id, error=fault)


class RequestingAgent:
    """The part of `Agent` for requests."""

    agent: str
    _connection: AgentConnection
    _answering: Answering
    _request_slots: asyncio.Semaphore
    _request_handler: Handler | None = None
    """Answers the requests of this start and of later ones."""

    def _check_entered(self) -> None:
        """Raise RuntimeError outside of the agent's block."""
        raise NotImplementedError

    async def ask(self, agent: str, data: object, *, timeout_s: float = 30.0, headers: Mapping[str, str] | None = None) -> Any:
        """Send a request to an agent of the tenant, by its handle or id, and return the data of its answer.

        The request is sent at most once: nothing is repeated after an error, except that a refusal by a rate limit is waited for.
        Raises a `RequestFault`, whose `was_delivered` says whether the agent was sent the request: `AgentAway` at once if it is
        not connected or disconnects, `AgentBusy`, `AgentError` (with `agent_code`) if it answers with an error, `RequestTimedOut`
        after `timeout_s` (at most 120), `RequestLost` if this connection is lost. Raises `AgentNotFound` and other errors of the
        server before it is sent, `Invalid`, `TooLarge` and TypeError for `data` as `publish` does. The request is cancelled if
        this call is. It begins no chain of answers, and belongs to none.
        """
        async with aclosing(self.ask_stream(agent, data, timeout_s=timeout_s, headers=headers, max_replies=1)) as answers:
            async for answer in answers:
                return answer
        raise AgentError("no_answer", "the agent ended its answers without one")

    async def ask_stream(
        self,
        agent: str,
        data: object,
        *,
        timeout_s: float = 30.0,
        headers: Mapping[str, str] | None = None,
        max_replies: int = frames.MAX_REPLIES,
    ) -> AsyncGenerator[Any, None]:
        """Send a request as `ask` does, and yield the data of each of its answers, at most `max_replies` (1,000), as it arrives.

        `timeout_s` is for all answers. Leaving the loop early cancels the request; use `contextlib.aclosing` to do it at once.
        """
        if not 0 < timeout_s <= frames.MAX_TIMEOUT_S:
            raise ValueError(f"timeout_s must be above 0 and at most {frames.MAX_TIMEOUT_S}")
        self._check_entered()
        limits = self._connection.limits
        text = encoding.data_text(data, limits.get("json_depth", frames.MAX_DEPTH))
        body = frames.Request(agent, text, max(frames.MIN_TIMEOUT_S, timeout_s), headers, max_replies)
        with tracing.start_request(agent, headers, self.agent) as span:
            size = limits.get("frame_bytes", frames.MAX_FRAME_BYTES)
            traced = span.add_context(headers, lambda merged: encoding.fits("request", _with_headers(body, merged), size))
            body = body if traced is headers else _with_headers(body, traced)
            async with aclosing(ask_stream(self._connection, self._request_slots, body, timeout_s)) as answers:
                async for answer in answers:
                    yield answer

    def on_request(self, handler: HandlerT) -> HandlerT:
        """Answer the requests of others with `handler`, from now on. A decorator, for use inside or outside of the agent's block.

        The handler gets a `Request`. Its result is the answer: a value as for `publish`, an awaitable of one, or an async
        generator of several answers. It raises `AgentError(code, message)` to answer with an error of its own; another exception
        is logged and answered as the error `failed`. Up to `max_requests` handlers run at once, each in a task of its own, which
        is cancelled when its answer is not needed any more. Without a handler the agent takes no requests: others get
        `AgentAway`.
        """
        self._request_handler = handler
        self._answering.register(handler)
        return handler

    async def answer(self, request_id: str, data: object = None, *, error: AgentError | None = None) -> None:
        """Answer a request whose handler has not answered yet, with `data` or with an `error`; its handler is cancelled.

        For programs whose answers come from another task than the handler: it waits, for example on an `asyncio.Event`. When this
        returns, the answer has left the server. Raises `NotPending` if the request was answered, cancelled or has timed out, and
        `Invalid`, `TooLarge` and TypeError for `data` as `publish` does; then it can still be answered.
        """
        self._check_entered()
        await self._answering.answer(request_id, data, error)


def _with_headers(body: frames.Request, headers: Mapping[str, str] | None) -> frames.Request:
    return msgspec.structs.replace(body, headers=headers)
