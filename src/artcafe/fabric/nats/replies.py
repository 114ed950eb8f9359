"""Matching the replies on one inbox with the requests that wait for them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from artcafe.errors import NatsConnectionLost, NoResponder, OurFault
from artcafe.fabric.nats.client import IncomingMessage

Callback = Callable[[IncomingMessage | OurFault], None]


class PendingReplies:
    """The requests in flight on one connection. Each has a token, and its replies arrive on the subject `{inbox}.{token}`."""

    def __init__(self) -> None:
        self.inbox = f"_INBOX.{secrets.token_hex(8)}"
        self.waiting: dict[str, Callback] = {}
        """Callbacks by token. Remove a token when its request ends."""
        self._tokens = 0

    def expect(self, callback: Callback) -> str:
        """Register a callback for the replies to a new token, and return the token."""
        self._tokens += 1
        token = str(self._tokens)
        self.waiting[token] = callback
        return token

    def expect_one(self) -> tuple[str, asyncio.Future[IncomingMessage]]:
        """Return a new token and the future of its reply, which fails with `NoResponder` or `NatsConnectionLost`."""
        reply: asyncio.Future[IncomingMessage] = asyncio.get_running_loop().create_future()

        def deliver(got: IncomingMessage | OurFault) -> None:
            if reply.done():
                return
            if isinstance(got, OurFault):
                reply.set_exception(got)
            elif got.status == 503:
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
            elif (status := got.status) == 503:
                last.set_exception(NoResponder())
            elif status:
                last.set_result(got)
            else:
                replies.append(got)

        return self.expect(deliver), replies, last

    def deliver(self, token: str, reply: IncomingMessage) -> None:
        """Pass a reply to the callback of its token. Ignore replies to requests that have ended."""
        callback = self.waiting.get(token)
        if callback is not None:
            callback(reply)

    def fail_all(self) -> None:
        """Fail every request in flight with `NatsConnectionLost`."""
        waiting, self.waiting = self.waiting, {}
        for callback in waiting.values():
            callback(NatsConnectionLost())
