"""A subscription to one subject that outlives the connection carrying it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from artcafe.fabric.nats.client import FastClient, FastHandler
from artcafe.observe.logs import log
from artcafe.rules.subjects import Subject

BUFFER_BYTES: Final = 16 * 1024 * 1024
"""How much of one subject is buffered while its callback is busy. nats-py drops the rest, and readers of a log fill that gap."""


class SubjectSubscription:
    """A subscription on the current connection and, while one connection replaces another, possibly on both."""

    def __init__(self, subject: Subject, callback: Callable[[Msg], Awaitable[None]], fast: FastHandler | None = None) -> None:
        self.subject, self._callback, self._fast = subject, callback, fast
        self._on: dict[FastClient, Subscription] = {}
        self._is_over = False

    async def begin(self, client: FastClient) -> None:
        """Subscribe on one more connection. Raise nats-py's errors."""
        self._on = {each: subscription for each, subscription in self._on.items() if not each.is_closed}
        self._on[client] = await client.subscribe(self.subject, cb=self._callback, pending_bytes_limit=BUFFER_BYTES)
        if self._fast is not None:
            client.add_fast_path(self._on[client], self._fast)
        if self._is_over:  # `end` was called during the await
            await self.end()

    async def drain(self) -> None:
        """Unsubscribe on every connection, after handling the messages that are on their way. Raise nats-py's errors."""
        self._is_over = True
        for client, subscription in list(self._on.items()):
            await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py declares no type
            client.remove_fast_path(subscription)
            self._on.pop(client, None)

    async def end(self) -> None:
        """Unsubscribe on every connection. May be repeated."""
        self._is_over = True
        while self._on:
            client, subscription = self._on.popitem()
            client.remove_fast_path(subscription)
            try:
                await subscription.unsubscribe()
            except (NatsError, OSError) as exc:  # a subscription ends with its connection
                log.debug("nats_connection.unsubscribe_failed", error=repr(exc))
