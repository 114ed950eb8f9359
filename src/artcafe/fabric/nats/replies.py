"""Matching the replies on one inbox with the requests that wait for them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

from artcafe.errors import NatsConnectionLost, NoResponder, OurFault
from artcafe.fabric.nats.client import IncomingMessage
from artcafe.rules.subjects import Subject

NO_RESPONDER: Final = 503
"""The status of the reply to a request on a subject without subscribers."""

Callback = Callable[[IncomingMessage | OurFault], None]


class PendingReplies:
    """The requests in flight on one connection. Each has a token, and its replies arrive on the subject `{inbox}.{token}`."""

    def __init__(self) -> None:
        self.inbox = f"_INBOX.{secrets.token_hex(8)}"
        self.waiting: dict[str, Callback] = {}
        """Callbacks by token. Remove a token when its request ends."""
        self.lasting: dict[str, Callback] = {}
        """Callbacks that a lost connection does not fail: their replies may still arrive over the next one."""
        self._tokens = 0

    def expect(self, callback: Callback) -> str:
        """Register a callback for the replies to a new token, and return the token."""
        self._tokens += 1
        token = str(self._tokens)
        self.waiting[token] = callback
        return token

    def open_inbox(self, callback: Callback) -> Subject:
        """Return a new subject whose messages go to `callback`, over this connection and later ones, until `close_inbox`.

        As the reply subject of a message it also gets the report that nobody subscribes (status 503). `callback` must not raise.
        """
        self._tokens += 1
        self.lasting[str(self._tokens)] = callback
        return Subject(f"{self.inbox}.{self._tokens}")

    def close_inbox(self, subject: Subject) -> None:
        """Ignore further messages to a subject of `open_inbox`. May be repeated."""
        self.lasting.pop(subject.rpartition(".")[2], None)

    def expect_one(self) -> tuple[str, asyncio.Future[IncomingMessage]]:
        """Return a new token and the future of its reply, which fails with `NoResponder` or `NatsConnectionLost`."""
        reply: asyncio.Future[IncomingMessage] = asyncio.get_running_loop().create_future()

        def deliver(got: IncomingMessage | OurFault) -> None:
            if reply.done():
                return
            if isinstance(got, OurFault):
                reply.set_exception(got)
            elif got.status == NO_RESPONDER:
                reply.set_exception(NoResponder())
            else:
                reply.set_result(got)

        return self.expect(deliver), reply

    def expect_many(self) -> tuple[str, list[IncomingMessage], asyncio.Future[IncomingMessage]]:
        """Return a new token, the list that collects its replies, and the future of the last reply, which carries a status.

        The future fails with `NoResponder` or `NatsConnectionLost`.
        """
        replies: list[IncomingMessage] = []
        last: asyncio.Future[IncomingMessage] = asyncio.get_running_loop().create_future()

        def deliver(got: IncomingMessage | OurFault) -> None:
            if last.done():
                return
            if isinstance(got, OurFault):
                last.set_exception(got)
            elif (status := got.status) == NO_RESPONDER:
                last.set_exception(NoResponder())
            elif status:
                last.set_result(got)
            else:
                replies.append(got)

        return self.expect(deliver), replies, last

    def deliver(self, token: str, reply: IncomingMessage) -> None:
        """Pass a reply to the callback of its token. Ignore replies to requests that have ended."""
        callback = self.waiting.get(token) or self.lasting.get(token)
        if callback is not None:
            callback(reply)

    def fail_all(self) -> None:
        """Fail every request in flight with `NatsConnectionLost`."""
        waiting, self.waiting = self.waiting, {}
        for callback in waiting.values():
            callback(NatsConnectionLost())


def outcome_of(answer: asyncio.Future[IncomingMessage]) -> IncomingMessage | Exception:
    """Return the reply to a request, or its error; TimeoutError without any."""
    if not answer.done():
        return TimeoutError()
    try:
        return answer.result()
    except OurFault as exc:
        return exc
