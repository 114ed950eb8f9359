"""A followed subject, whichever connections carry it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from artcafe.fabric.nats.client import FastClient, FastHandler
from artcafe.observe.logs import log
from artcafe.rules.subjects import Subject

FOLLOW_BYTES: Final = 16 * 1024 * 1024
"""What waits of one followed subject while its callback is busy. More is dropped, and shows as a gap to whoever fills gaps."""


class SubjectSubscription:
    """A subject that is followed, on this moment's connection and, while one replaces another, perhaps on both."""

    def __init__(self, subject: Subject, callback: Callable[[Msg], Awaitable[None]], take: FastHandler | None = None) -> None:
        self._subject, self._callback, self._take = subject, callback, take
        self._on: dict[FastClient, Subscription] = {}
        self._is_over = False

    async def begin(self, client: FastClient) -> None:
        """Follows on one more connection. Raises what nats-py raises."""
        self._on = {each: subscription for each, subscription in self._on.items() if not each.is_closed}
        self._on[client] = await client.subscribe(self._subject, cb=self._callback, pending_bytes_limit=FOLLOW_BYTES)
        if self._take is not None:
            client.add_fast_path(self._on[client], self._take)
        if self._is_over:  # while we waited
            await self.end()

    async def end(self) -> None:
        """Follows no more. May be repeated."""
        self._is_over = True
        while self._on:
            client, subscription = self._on.popitem()
            client.remove_fast_path(subscription)
            try:
                await subscription.unsubscribe()
            except (NatsError, OSError) as exc:  # with its connection gone, so is the subscription
                log.debug("nats.unsubscribe_failed", error=repr(exc))
