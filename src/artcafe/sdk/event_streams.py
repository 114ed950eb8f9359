"""Streams of messages over HTTP, which continue after a lost connection: `MessageCalls.follow` and `PullInbox.follow`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import NoReturn, Self, TypeVar

import msgspec
from httpx2 import ServerSentEvent

from artcafe.errors import ArtcafeError, CredentialsExpired, Invalid, Unavailable
from artcafe.sdk import backoff
from artcafe.sdk.http import HttpClient
from artcafe.sdk.messages import Gap, Message, warn_of
from artcafe.wire import faults, replies

log = logging.getLogger("artcafe")

T = TypeVar("T")


def _refuse_ack(message: Message, is_cumulative: bool) -> NoReturn:
    raise RuntimeError("a stream acknowledges nothing: use client.tenant(…).inbox(agent).ack(message.channel_id, message.seq)")


class _Error(msgspec.Struct, frozen=True):
    code: str
    message: str
    temporary: bool = False


class _Gap(msgspec.Struct, frozen=True, rename={"first": "from", "last": "to"}):
    channel: str
    first: int
    last: int | None
    reason: str


class MessageStream:
    """The messages of a channel, or of an agent's inbox, as they come. An endless iterator of `Message` and `Gap`.

    A connection that is lost, or that the server closes for a while, is opened again with back-off, and no message that is stored
    is skipped or repeated. The first connection raises as `Client` does; later, a final end is raised, such as `Revoked` or
    `ChannelNotFound`. A step may be cancelled, for example by a timeout: the next step continues.

    Nothing is acknowledged, and `Message.ack` raises RuntimeError.
    """

    def __init__(self, http: HttpClient, path: str, query: Mapping[str, int], last_id: str | None) -> None:
        self._http, self._path, self._query = http, path, query
        self.last_id = last_id
        """The position after the last item, for another stream. None before the first event."""
        self._events: AsyncGenerator[ServerSentEvent, None] | None = None
        self._failures = 0
        """Connections in a row that have brought nothing."""
        self._is_opened = False

    def __repr__(self) -> str:
        return f"MessageStream({self._path!r}, last_id={self.last_id!r})"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message | Gap:
        while True:
            event = await self._next_event()
            item = None if event is None else await self._item(event)
            if item is not None:
                self._failures = 0
                return item

    async def aclose(self) -> None:
        """Close the connection. The next step would open another one."""
        events, self._events = self._events, None
        if events is not None:
            await events.aclose()

    async def _next_event(self) -> ServerSentEvent | None:
        """Return the next event; None after the connection was lost, when it may be opened again."""
        events = self._events or self._http.events(self._path, self._query, self.last_id)
        self._events = None  # Until it has yielded: a cancelled step closes the connection.
        try:
            event = await anext(events, None)
        except ArtcafeError as exc:
            if not self._is_opened or not exc.temporary or isinstance(exc, CredentialsExpired):
                raise
            await self._wait(exc)
            return None
        if event is None:
            await self._wait(Unavailable(f"{self._http.url} (it closed the stream)"))
            return None
        self._events, self._is_opened = events, True
        self.last_id = event.id or self.last_id
        return event

    async def _item(self, event: ServerSentEvent) -> Message | Gap | None:
        """Return the message or gap of an event. After a temporary end, wait until the stream may be opened again; raise a final
        one."""
        match event.event:
            case "message":
                return Message(self._decode(event, replies.Message), 0, 0, _refuse_ack)
            case "gap":
                pushed = self._decode(event, _Gap)
                gap = Gap(pushed.channel, pushed.first, pushed.last, pushed.reason)
                warn_of(gap)
                return gap
            case "problem" | "end":
                await self._report(self._decode(event, _Error), is_end=event.event == "end")
        return None  # `start` and `moved`, whose ids count, and what a newer server may send.

    async def _report(self, error: _Error, *, is_end: bool) -> None:
        if not is_end:
            log.warning("the server reports: %s", error.message)
            return
        await self.aclose()
        fault = faults.fault_of(error.code, error.message, None)
        if not error.temporary:
            raise fault
        await self._wait(fault)

    def _decode(self, event: ServerSentEvent, type: type[T]) -> T:
        try:
            return msgspec.json.decode(event.data, type=type)
        except msgspec.DecodeError as exc:
            raise Invalid("url", f"{self._http.url} sent a {event.event!r} event that is not one of ArtCafe's ({exc})") from exc

    async def _wait(self, reason: ArtcafeError) -> None:
        self._failures += 1
        delay_s = backoff.delay_s(self._failures)
        log.warning("%s; following again in %.1f s", str(reason).partition(";")[0], delay_s)
        await asyncio.sleep(delay_s)
