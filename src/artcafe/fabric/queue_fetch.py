"""Requests for the messages of a queue apart from those of its `WorkQueue`: for a pull, which comes and goes.

A request is withdrawn by the end of its subscription: NATS sends nothing to one without interest. The requests of a `WorkQueue`
stay for seconds, and would bring messages for a pull that is over.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final

from nats.aio.msg import Msg

from artcafe.errors import NatsConnectionLost, NoResponder
from artcafe.fabric.nats.client import IncomingMessage, OutgoingMessage
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.fabric.nats.subscription import SubjectSubscription
from artcafe.fabric.queue_acks import ANSWER_S
from artcafe.fabric.queue_consumer import PULL_S
from artcafe.fabric.work_queue import TIMED_OUT, QueuedMessage, WorkQueue, parse
from artcafe.rules.subjects import Subject

NO_MESSAGES: Final = 404
"""The status with which NATS ends a request without a wait for a queue without messages."""
MIN_BYTES: Final = 128 * 1024
"""No message is larger: of its data at most 64 KiB."""
RENEW_S: Final = PULL_S + 0.5
"""After this a request has ended, even if its end was lost with the connection."""


class QueueFetch:
    """One request for messages at a time. `take` gets each message as it arrives, and `on_end` is called at a request's end."""

    def __init__(self, queue: WorkQueue, take: Callable[[QueuedMessage], None], on_end: Callable[[], None]) -> None:
        self._queue, self._connection, self._take, self._on_end = queue, queue.connection, take, on_end
        self._inbox = Subject(self._connection.new_inbox())
        self._subscription: SubjectSubscription | None = None
        self._wanted = 0
        self._asked_at = float("-inf")
        self._ended: asyncio.Future[int] | None = None
        self._description = ""

    @property
    def is_open(self) -> bool:
        """Whether a request may still bring messages."""
        return self._wanted > 0 and self.open_s > 0

    @property
    def open_s(self) -> float:
        """The seconds until the request has ended, even if its end was lost."""
        return max(0.0, self._asked_at + RENEW_S - time.monotonic()) if self._wanted else math.inf

    async def now(self, most: int, most_bytes: int) -> None:
        """Take at most `most` of the messages that wait now, and about `most_bytes`. Raise `Unavailable`."""
        for is_repeat in (False, True):
            await self._queue.wait_consumer(again=is_repeat)
            self._ended = asyncio.get_running_loop().create_future()
            await self._request(b'{"batch":%d,"max_bytes":%d,"no_wait":true}' % (most, max(MIN_BYTES, most_bytes)), most)
            try:
                async with asyncio.timeout(ANSWER_S):
                    status = await self._ended
            except TimeoutError as exc:
                raise unreachable() from exc
            finally:
                self._ended = None
            if status in (0, NO_MESSAGES, TIMED_OUT) or "MaxBytes" in self._description:
                return
        raise unreachable()

    async def begin(self, most: int, most_bytes: int) -> None:
        """Take at most `most` messages, and about `most_bytes`, as they come, until `on_end` is called, at the latest after
        `PULL_S`. Raise `Unavailable`."""
        await self._queue.wait_consumer()
        body = b'{"batch":%d,"max_bytes":%d,"expires":%d}' % (most, max(MIN_BYTES, most_bytes), int(PULL_S * 1e9))
        await self._request(body, most)

    async def end(self) -> None:
        """Withdraw the request. Messages that are on their way are taken before the return."""
        subscription, self._subscription, self._wanted = self._subscription, None, 0
        if subscription is not None:
            await self._connection.drain(subscription)

    async def _request(self, body: bytes, most: int) -> None:
        if self._subscription is None:
            self._subscription = await self._connection.subscribe(self._inbox, _on_slow_message, self._on_message)
        self._wanted, self._asked_at = most, time.monotonic()
        try:
            await self._connection.send_encoded(OutgoingMessage(self._queue.pull_subject, "", body).encoded(self._inbox))
        except NatsConnectionLost as exc:
            raise unreachable() from exc

    def _on_message(self, message: IncomingMessage) -> bool:
        if not message.reply:
            self._description = message.description
            self._finish(message.status)
            return True
        self._wanted = max(0, self._wanted - 1)
        # Read late, the message may have been delivered long ago, but no later than the request's end.
        self._take(parse(message, min(time.monotonic(), self._asked_at + PULL_S)))
        if not self._wanted:
            self._finish(0)
        return True

    def _finish(self, status: int) -> None:
        self._wanted = 0
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(status)
        self._on_end()


async def settle(connection: NatsConnection, ack_subject: Subject, body: bytes) -> None:
    """Send an ack of a message that another server pulled. Return once NATS has confirmed it. Raise `Unavailable`."""
    try:
        await connection.request(ack_subject, body, timeout_s=ANSWER_S)
    except (NatsConnectionLost, NoResponder, TimeoutError) as exc:
        raise unreachable() from exc


async def _on_slow_message(_: Msg) -> None:
    raise AssertionError("the fast path takes every message")
