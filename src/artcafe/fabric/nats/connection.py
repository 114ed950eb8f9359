"""A connection to NATS in one account: requests, publishes, and subscriptions that survive a lost connection."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoServersError, SlowConsumerError

from artcafe.errors import NatsConnectionLost, OurFault, Unavailable
from artcafe.fabric.nats.client import Endpoints, FastClient, FastHandler, IncomingMessage, OutgoingMessage, PeerProof
from artcafe.fabric.nats.liveness import Liveness
from artcafe.fabric.nats.replies import NO_RESPONDER, PendingReplies, outcome_of
from artcafe.fabric.nats.subscription import SubjectSubscription
from artcafe.observe import metrics
from artcafe.observe.logs import log
from artcafe.rules.subjects import Subject

CONNECT_TIMEOUT_S: Final = 2
REPLY_TIMEOUT_S: Final = 5.0
RETRY_MIN_S: Final = 0.05
RETRY_MAX_S: Final = 2.0
PENDING_BYTES: Final = 64 * 1024 * 1024
"""How much nats-py buffers before a publish waits for the socket. A full group commit is 4 MiB."""
CLOSE_TIMEOUT_S: Final = 2.0
"""Limit of closing a connection. nats-py tries to send its buffer to a server that hangs and no longer reads, and waits without
limit for the end of a TLS connection after it rejected the certificate."""


class Credentials(Protocol):
    """A NATS user: its JWT, and its signature of the server's nonce in base64."""

    def user_jwt_cb(self) -> bytes: ...
    def signature_cb(self, nonce: str) -> bytes: ...


def unreachable() -> Unavailable:
    """Return the error of a request that was not sent because NATS is not connected."""
    return Unavailable("the message log (NATS)")


class NatsConnection:
    """A connection that is replaced whenever it is lost, as long as `run` runs.

    nats-py's own reconnecting is off: it resends its buffer, and stops for good on errors it does not know. Here a new connection
    replaces a lost one, so a request is either answered or fails with `NatsConnectionLost`, and no message is sent a second time
    without the caller's knowledge (decision record 1).
    """

    def __init__(
        self,
        name: str,
        urls: Sequence[str],
        credentials: Callable[[], Credentials],
        admit: Callable[[], Awaitable[None]] | None = None,
        *,
        liveness: Liveness | None = None,
        tls: ssl.SSLContext | None = None,
        proof: PeerProof | None = None,
    ) -> None:
        """`urls` is read again for each connection, since the embedded nats-server may restart on another port.

        `admit` registers the account with NATS, after NATS has refused the credentials. `tls` verifies the certificates of
        `tls://` servers; None uses the system's authorities. With `proof`, connections are plain, and each is verified before
        anything is sent over it. `liveness` detects that the server hangs, best for all connections of a process together.
        """
        self.name, self._tls, self._proof = name, tls, proof
        self._liveness = Liveness() if liveness is None else liveness
        self._urls, self._credentials, self._admit = urls, credentials, admit
        self._client: FastClient | None = None
        self._up = asyncio.Event()
        self.is_up = self._was_up = False
        """Whether `_up` is set, for readers of each message."""
        self.reconnected_at: float | None = None
        """When the last connection replaced a lost one, by the monotonic clock."""
        self._lost = asyncio.Event()
        self._closing = asyncio.Event()
        self.problem: str | None = None
        """The error text of the last failed attempt to connect."""
        self.replies = PendingReplies()
        self._subscriptions: set[SubjectSubscription] = set()
        self._on_up: list[Callable[[], None]] = []

    async def wait_up(self, timeout_s: float = REPLY_TIMEOUT_S) -> None:
        """Wait for the connection. Raise `Unavailable` after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            raise unreachable() from None

    async def check(self, timeout_s: float) -> None:
        """Raise `Unavailable` unless the server answers within `timeout_s`."""
        await self.wait_up(timeout_s)
        try:
            await self._round_trip(timeout_s)
        except (NatsConnectionLost, TimeoutError) as exc:
            raise unreachable() from exc

    async def _round_trip(self, timeout_s: float) -> None:
        """Wait until the server has processed everything sent so far. nats-py's `flush` waits 10 s on a lost connection."""
        token, answer = self.replies.expect_one()
        try:
            async with asyncio.timeout(timeout_s):
                await self.send_encoded(OutgoingMessage(Subject(f"{self.replies.inbox}.{token}"), "", b"").encoded())
                await answer
        finally:
            self.replies.waiting.pop(token, None)

    def on_up(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each new connection, once its subscriptions are active, and after a subscription overflowed.

        Messages may have been missed then, and can be read from the log.
        """
        self._on_up.append(callback)

    def off_up(self, callback: Callable[[], None]) -> None:
        """End the calls of a callback given to `on_up`."""
        self._on_up.remove(callback)

    @staticmethod
    def new_inbox() -> Subject:
        """Return a new subject for replies that nobody else knows."""
        return Subject(f"_INBOX.{secrets.token_hex(8)}")

    async def run(self) -> None:
        """Keep the connection up until `close`."""
        delay_s = RETRY_MIN_S
        while not self._closing.is_set():
            try:
                await self._connect()
                delay_s = RETRY_MIN_S
                await self._lost.wait()
                if not self._closing.is_set():
                    metrics.NATS_LOST.of().add()
            except (NatsError, OSError, TimeoutError, OurFault) as exc:
                log.debug("nats_connection.connect_failed", connection=self.name, error=repr(exc))
                if not isinstance(exc, NoServersError):  # `on_error` has recorded the reason of each server before
                    self.problem = _message(exc)
            finally:
                await self._drop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s * random.uniform(0.5, 1.0)):  # noqa: S311 - spreads reconnects, no secret
                    await self._closing.wait()
            delay_s = min(delay_s * 2, RETRY_MAX_S)

    def close(self) -> None:
        """Close the connection and end `run`. May be repeated."""
        self._closing.set()
        self._lost.set()

    async def _connect(self) -> None:
        self._lost.clear()
        try:
            client = await self._dial()
        except NatsError as exc:
            if self._admit is None or "authorization" not in str(exc).lower():
                raise
            await self._admit()
            client = await self._dial()
        self._client = client
        self._liveness.add(client)
        await client.open_inbox()
        # A copy: a subscription that ends meanwhile unsubscribes itself, and new ones begin only while the connection is up.
        for subscription in list(self._subscriptions):
            await subscription.begin(client)
        await client.flush()
        self.reconnected_at = time.monotonic() if self._was_up else None
        self._was_up = True
        self._up.set()
        self.is_up = True
        log.debug("nats_connection.up", connection=self.name)
        self._notify_up()

    def _notify_up(self) -> None:
        for on_up in list(self._on_up):
            on_up()

    async def _dial(self) -> FastClient:
        """Return a connected client. nats-py leaves the socket of a refused connection open; it is closed here."""
        check_peer, urls = None, list(self._urls)
        if self._proof is not None:
            await self._proof.ready()
            check_peer, urls = self._proof.check, [url.replace("tls://", "nats://") for url in self._urls]
        user, connected = self._credentials(), False

        def on_lost() -> None:
            if connected:
                self._lost.set()

        client = FastClient(self.replies.inbox, self.replies.deliver, check_peer, on_lost)

        async def on_error(exc: Exception) -> None:
            log.debug("nats_connection.error", connection=self.name, error=repr(exc))
            self.problem = _message(exc)
            if isinstance(exc, SlowConsumerError):  # nats-py dropped messages: readers must check the log as after a reconnect
                self._notify_up()

        try:
            await client.connect(
                urls,
                name=f"artcafe {self.name}",
                allow_reconnect=False,
                reconnect_time_wait=0,  # These two make a refused connection fail at once, instead of 60 attempts 2 s apart.
                max_reconnect_attempts=1,
                connect_timeout=CONNECT_TIMEOUT_S,
                pending_size=PENDING_BYTES,
                tls=self._tls,
                user_jwt_cb=user.user_jwt_cb,
                signature_cb=user.signature_cb,
                error_cb=on_error,
            )
            # Bytes that a lost connection has not delivered must not arrive when the network is back: their publishers have
            # received "outcome unknown", and have published more since.
            client.keep_unsent(False)
            connected = True
        finally:
            if not connected:
                await self._close(client)
        return client

    async def _drop(self) -> None:
        """Close the rest of the connection. Every request in flight fails with `NatsConnectionLost`."""
        self._up.clear()
        self.is_up = False
        client, self._client = self._client, None
        self.replies.fail_all()
        if client is None:
            return
        self._liveness.discard(client)
        if self._closing.is_set():
            client.keep_unsent(True)
        else:
            client.abort()
        if not client.is_closed:
            await self._close(client)

    async def _close(self, client: FastClient) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await client.close()
        except (NatsError, OSError, TimeoutError, RuntimeError) as exc:  # RuntimeError: uvloop's, when the transport is closed
            log.debug("nats_connection.close_failed", connection=self.name, error=repr(exc))

    def client(self) -> FastClient:
        """Return the current client. Raise `Unavailable` without one: nothing was sent."""
        if self._client is None or not self.is_up or self._client.is_closed:
            raise unreachable()
        return self._client

    def endpoints(self) -> Endpoints:
        """Return the endpoints of the current connection. Raise `Unavailable` without one."""
        return self.client().endpoints()

    async def subscribe(
        self, subject: Subject, callback: Callable[[Msg], Awaitable[None]], fast: FastHandler | None = None
    ) -> SubjectSubscription:
        """Subscribe to a subject over this and every later connection, until `unsubscribe`. Return once it is active.

        Each message is offered to `fast` as it is read; messages it declines go to `callback`, one after the other.

        Raise `Unavailable` without a connection; there is no subscription then.
        """
        client = self.client()
        subscription = SubjectSubscription(subject, callback, fast)
        self._subscriptions.add(subscription)  # First, so that a connection that replaces this one meanwhile includes it.
        try:
            await subscription.begin(client)
            await self._round_trip(REPLY_TIMEOUT_S)
        except BaseException as exc:
            await self.unsubscribe(subscription)
            if isinstance(exc, NatsError | OSError | TimeoutError | NatsConnectionLost):
                raise unreachable() from exc
            raise
        return subscription

    async def unsubscribe(self, subscription: SubjectSubscription) -> None:
        """End a subscription. May be repeated."""
        self._subscriptions.discard(subscription)
        await subscription.end()

    async def drain(self, subscription: SubjectSubscription) -> None:
        """End a subscription after handling the messages that are on their way, for at most `CLOSE_TIMEOUT_S`."""
        self._subscriptions.discard(subscription)
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await subscription.drain()
        await subscription.end()

    async def send(self, message: OutgoingMessage) -> None:
        """Send without waiting for an answer. Raise `Unavailable` (not sent) or `NatsConnectionLost` (unknown)."""
        await self.send_encoded(message.encoded())

    async def send_encoded(self, protocol: bytes) -> None:
        """Send encoded messages in one write. Raise as `send` does."""
        client = self.client()
        try:
            await client.send(protocol)
        except (NatsError, OSError) as exc:
            raise NatsConnectionLost() from exc

    async def request(self, subject: Subject, body: bytes, *, timeout_s: float = REPLY_TIMEOUT_S) -> IncomingMessage:
        """Send a request and return its reply.

        Raise `Unavailable` (not sent), `NoResponder` (no subscriber), `NatsConnectionLost` or `TimeoutError` (unknown).
        """
        return await self.request_last([OutgoingMessage(subject, "", body)], timeout_s=timeout_s)

    async def request_last(
        self, messages: Sequence[OutgoingMessage], *, behind: bytes = b"", timeout_s: float = REPLY_TIMEOUT_S
    ) -> IncomingMessage:
        """Send messages in one write, the last of them as a request. Raise as `request` does for that one.

        `behind`: encoded messages to send after them.
        """
        token, answer = self.replies.expect_one()
        encoded = [one.encoded() for one in messages[:-1]]
        encoded += [messages[-1].encoded(f"{self.replies.inbox}.{token}"), behind]
        try:
            async with asyncio.timeout(timeout_s):
                await self.send_encoded(b"".join(encoded))
                return await answer
        finally:
            self.replies.waiting.pop(token, None)

    async def request_each(
        self, messages: Sequence[OutgoingMessage], *, timeout_s: float = REPLY_TIMEOUT_S
    ) -> list[IncomingMessage | Exception]:
        """Send messages in one write, each as a request. Return each reply, or the exception that `request` would have raised.

        Raise `Unavailable` (nothing was sent) or `NatsConnectionLost`.
        """
        inbox, expected = self.replies.inbox, [self.replies.expect_one() for _ in messages]
        try:
            encoded = (one.encoded(f"{inbox}.{token}") for one, (token, _) in zip(messages, expected, strict=True))
            await self.send_encoded(b"".join(encoded))
            await asyncio.wait([answer for _, answer in expected], timeout=timeout_s)
            return [outcome_of(answer) for _, answer in expected]
        finally:
            for token, _ in expected:
                self.replies.waiting.pop(token, None)

    async def request_many(
        self, subject: Subject, body: bytes, *, timeout_s: float = REPLY_TIMEOUT_S
    ) -> tuple[list[IncomingMessage], IncomingMessage]:
        """Send a request that has many replies, the last of which carries a status. Return `(replies, last)`.

        Raise as `request`.
        """
        token, replies, last = self.replies.expect_many()
        try:
            async with asyncio.timeout(timeout_s):
                await self.send_encoded(OutgoingMessage(subject, "", body).encoded(f"{self.replies.inbox}.{token}"))
                return replies, await last
        finally:
            self.replies.waiting.pop(token, None)

    async def request_all(
        self, subject: Subject, body: bytes, *, within_s: float, is_enough: Callable[[IncomingMessage], bool] = lambda _: False
    ) -> list[IncomingMessage]:
        """Send a request that any number of servers answer. Return the replies within this time, or up to one that `is_enough`.

        Raise `Unavailable` (not sent) or `NatsConnectionLost`.
        """
        replies, enough = list[IncomingMessage](), asyncio.Event()

        def take(got: IncomingMessage | OurFault) -> None:
            if isinstance(got, IncomingMessage) and got.status != NO_RESPONDER:
                replies.append(got)
                if is_enough(got):
                    enough.set()

        token = self.replies.expect(take)
        try:
            await self.send_encoded(OutgoingMessage(subject, "", body).encoded(f"{self.replies.inbox}.{token}"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await enough.wait()
            return replies
        finally:
            self.replies.waiting.pop(token, None)


def _message(exc: Exception) -> str:
    text = exc.strerror if isinstance(exc, OSError) else None
    return text or str(exc) or "no answer in time"
