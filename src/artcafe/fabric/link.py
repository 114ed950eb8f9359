"""One NATS connection in one account, kept up: requests, publishes and subscriptions that outlive it. What is sent is others' business."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from artcafe.errors import OurFault, Unavailable
from artcafe.observe import log
from artcafe.rules.subjects import Subject

CONNECT_TIMEOUT_S: Final = 2
REPLY_TIMEOUT_S: Final = 5.0
PING_INTERVAL_S: Final = 5
"""A server that hangs (paused, cut off) is left after two unanswered pings, so within 15 s."""
RETRY_MIN_S: Final = 0.05
RETRY_MAX_S: Final = 2.0
PENDING_BYTES: Final = 64 * 1024 * 1024
"""What nats-py buffers before a publish waits for the socket; a full group commit is 4 MiB."""


class Credentials(Protocol):
    """A NATS user: its JWT, and its signature of the server's nonce (base64)."""

    def user_jwt_cb(self) -> bytes: ...
    def signature_cb(self, nonce: str) -> bytes: ...


class LinkLost(OurFault):
    """The connection ended before the answer came: whether the other side acted is unknown."""

    code, text = "link_lost", "the connection to NATS was lost before its answer came"


class NoResponder(OurFault):
    """NATS answered that nobody serves this subject now: nothing happened."""

    code, text = "no_responder", "nothing in NATS answers this request now"


class Follow:
    """A subject that is followed: the subscription of this moment's connection."""

    def __init__(self, subject: Subject, callback: Callable[[Msg], Awaitable[None]]) -> None:
        self._subject, self._callback = subject, callback
        self._now: Subscription | None = None

    async def begin(self, client: Client) -> None:
        self._now = await client.subscribe(self._subject, cb=self._callback)

    async def end(self) -> None:
        if self._now is None:
            return
        try:
            await self._now.unsubscribe()
        except (NatsError, OSError) as exc:  # with its connection gone, so is the subscription
            log.debug("link.unsubscribe_failed", error=repr(exc))


def unreachable() -> Unavailable:
    """What every request becomes while there is no NATS: nothing was sent."""
    return Unavailable("the message log (NATS)")


class Link:
    """A connection that comes back by itself as long as `run` runs.

    nats-py's own reconnecting is off: it sends again what it had buffered, and gives up for good on errors it does not know. A
    lost connection is replaced by a new one instead, so a request is either answered or fails with `LinkLost`, and nothing is
    sent twice behind the caller's back.
    """

    def __init__(
        self,
        name: str,
        urls: Sequence[str],
        credentials: Callable[[], Credentials],
        admit: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`admit` makes NATS know the account; it is called when NATS refuses the credentials."""
        self.name = name
        self._urls, self._credentials, self._admit = list(urls), credentials, admit
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._lost = asyncio.Event()
        self._closing = False
        self._inbox = f"_INBOX.{secrets.token_hex(8)}"
        self._waiting: dict[str, Callable[[Msg | OurFault], None]] = {}
        self._tokens = 0
        self._follows: set[Follow] = set()
        self._on_up: list[Callable[[], Awaitable[None]]] = []

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    async def wait_up(self, timeout_s: float = REPLY_TIMEOUT_S) -> None:
        """Raises `Unavailable` when there is no connection within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            raise unreachable() from None

    def on_up(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Calls back after each new connection, with the subscriptions in place: what was missed can be read now."""
        self._on_up.append(callback)

    async def run(self) -> None:
        """Keeps the connection up until `close`."""
        delay_s = RETRY_MIN_S
        while not self._closing:
            try:
                await self._connect()
                delay_s = RETRY_MIN_S
                await self._lost.wait()
            except (NatsError, OSError, TimeoutError, OurFault) as exc:
                log.debug("link.connect_failed", link=self.name, error=repr(exc))
            finally:
                self._drop()
            if not self._closing:
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects, no secret
                delay_s = min(delay_s * 2, RETRY_MAX_S)

    async def close(self) -> None:
        self._closing = True
        self._lost.set()
        if self._client is not None and not self._client.is_closed:
            await self._client.close()

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
        await client.subscribe(f"{self._inbox}.*", cb=self._on_reply, pending_msgs_limit=0, pending_bytes_limit=0)
        for follow in self._follows:
            await follow.begin(client)
        await client.flush()
        self._up.set()
        log.debug("link.up", link=self.name)
        for on_up in self._on_up:
            await on_up()

    async def _dial(self) -> Client:
        """A connected client. nats-py leaves the socket of one that was refused open; it is closed here."""
        user, client, connected = self._credentials(), Client(), False

        async def on_closed() -> None:
            if connected:
                self._lost.set()

        async def on_error(exc: Exception) -> None:
            log.debug("link.error", link=self.name, error=repr(exc))

        try:
            await client.connect(
                self._urls,
                name=f"artcafe {self.name}",
                allow_reconnect=False,
                reconnect_time_wait=0,  # and these two make a refused connect fail at once, instead of 60 tries 2 s apart
                max_reconnect_attempts=1,
                connect_timeout=CONNECT_TIMEOUT_S,
                ping_interval=PING_INTERVAL_S,
                max_outstanding_pings=2,
                pending_size=PENDING_BYTES,
                user_jwt_cb=user.user_jwt_cb,
                signature_cb=user.signature_cb,
                error_cb=on_error,
                closed_cb=on_closed,
            )
            connected = True
        finally:
            if not connected:
                await client.close()
        return client

    def _drop(self) -> None:
        """Forgets the connection; everything that waits for an answer hears that it is lost."""
        self._up.clear()
        self._client = None
        waiting, self._waiting = self._waiting, {}
        for deliver in waiting.values():
            deliver(LinkLost())

    def client(self) -> Client:
        """The connection of this moment. Raises `Unavailable` when there is none: nothing was sent."""
        if self._client is None or not self._up.is_set() or self._client.is_closed:
            raise unreachable()
        return self._client

    async def subscribe(self, subject: Subject, callback: Callable[[Msg], Awaitable[None]]) -> Follow:
        """Follows a subject, over every connection to come, until the handle's `end`; in force when this returns.

        Raises `Unavailable` when there is no connection now, and follows nothing then.
        """
        client = self.client()
        follow = Follow(subject, callback)
        try:
            await follow.begin(client)
            await client.flush()
        except (NatsError, OSError, TimeoutError) as exc:
            raise unreachable() from exc
        self._follows.add(follow)
        if client is not self._client:  # it was replaced while we waited, and the new one does not know of us
            await follow.begin(self.client())
        return follow

    async def unsubscribe(self, follow: Follow) -> None:
        self._follows.discard(follow)
        await follow.end()

    async def publish(self, subject: Subject, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Sends without an answer. Raises `Unavailable` when it was not sent, `LinkLost` when that is unknown."""
        await self._send(subject, body, headers, reply="")

    async def _send(self, subject: str, body: bytes, headers: Mapping[str, str] | None, reply: str) -> None:
        client = self.client()
        try:
            await client.publish(subject, body, reply=reply, headers=dict(headers) if headers else None)
        except (NatsError, OSError) as exc:
            raise LinkLost() from exc

    async def request(
        self, subject: Subject, body: bytes, headers: Mapping[str, str] | None = None, *, timeout_s: float = REPLY_TIMEOUT_S
    ) -> Msg:
        """One request, one answer.

        Raises `Unavailable` (not sent), `NoResponder` (nobody took it), `LinkLost` or `TimeoutError` (unknown).
        """
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

        def deliver(got: Msg | OurFault) -> None:
            if answer.done():
                return
            if isinstance(got, OurFault):
                answer.set_exception(got)
            elif status_of(got) == 503:
                answer.set_exception(NoResponder())
            else:
                answer.set_result(got)

        token = self._expect(deliver)
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(subject, body, headers, f"{self._inbox}.{token}")
                return await answer
        finally:
            self._waiting.pop(token, None)

    async def request_many(self, subject: Subject, body: bytes, *, timeout_s: float = REPLY_TIMEOUT_S) -> tuple[list[Msg], Msg]:
        """One request, many answers, ended by one that carries a status: `(answers, the ending one)`. Raises as `request`."""
        got: list[Msg] = []
        ended: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

        def deliver(one: Msg | OurFault) -> None:
            if ended.done():
                return
            if isinstance(one, OurFault):
                ended.set_exception(one)
            elif (status := status_of(one)) == 503:
                ended.set_exception(NoResponder())
            elif status:
                ended.set_result(one)
            else:
                got.append(one)

        token = self._expect(deliver)
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(subject, body, None, f"{self._inbox}.{token}")
                return got, await ended
        finally:
            self._waiting.pop(token, None)

    def _expect(self, deliver: Callable[[Msg | OurFault], None]) -> str:
        self._tokens += 1
        token = str(self._tokens)
        self._waiting[token] = deliver
        return token

    async def _on_reply(self, msg: Msg) -> None:
        deliver = self._waiting.get(msg.subject.rpartition(".")[2])
        if deliver is not None:
            deliver(msg)


def status_of(msg: Msg) -> int:
    """NATS's status of an answer that carries one (404, 503, …), else 0."""
    return int(msg.headers.get("Status", 0)) if msg.headers else 0
