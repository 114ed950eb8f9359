"""One NATS connection in one account, kept up: requests, publishes and subscriptions that outlive it. What is sent is others'."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoServersError, SlowConsumerError

from artcafe.errors import NatsConnectionLost, NoResponder, OurFault, Unavailable
from artcafe.fabric.nats.client import Endpoints, FastClient, FastHandler, IncomingMessage, OutgoingMessage, PeerProof
from artcafe.fabric.nats.subscription import SubjectSubscription
from artcafe.observe.logs import log
from artcafe.rules.subjects import Subject

CONNECT_TIMEOUT_S: Final = 2
REPLY_TIMEOUT_S: Final = 5.0
PING_INTERVAL_S: Final = 5
"""A server that hangs (paused, cut off) is left after two unanswered pings, so within 15 s."""
RETRY_MIN_S: Final = 0.05
RETRY_MAX_S: Final = 2.0
PENDING_BYTES: Final = 64 * 1024 * 1024
"""What nats-py buffers before a publish waits for the socket; a full group commit is 4 MiB."""
CLOSE_TIMEOUT_S: Final = 2.0
"""A server that hangs takes nothing any more, and nats-py wants to send it what is left; and it waits for ever for the end of a
TLS connection whose certificate it did not believe."""


class Credentials(Protocol):
    """A NATS user: its JWT, and its signature of the server's nonce (base64)."""

    def user_jwt_cb(self) -> bytes: ...
    def signature_cb(self, nonce: str) -> bytes: ...


def unreachable() -> Unavailable:
    """What every request becomes while there is no NATS: nothing was sent."""
    return Unavailable("the message log (NATS)")


class NatsConnection:
    """A connection that comes back by itself as long as `run` runs.

    nats-py's own reconnecting is off: it sends again what it had buffered, and gives up for good on errors it does not know. A
    lost connection is replaced by a new one instead, so a request is either answered or fails with `NatsConnectionLost`, and
    nothing is sent twice behind the caller's back.
    """

    def __init__(
        self,
        name: str,
        urls: Sequence[str],
        credentials: Callable[[], Credentials],
        admit: Callable[[], Awaitable[None]] | None = None,
        *,
        ping_s: float = PING_INTERVAL_S,
        tls: ssl.SSLContext | None = None,
        proof: PeerProof | None = None,
    ) -> None:
        """`urls` is read anew for each connection, since the embedded nats-server may come back on another port.

        `admit` makes NATS know the account; it is called when NATS refuses the credentials. `tls` checks the certificates of
        `tls://` servers; None: as the system does. With `proof` connections are plain, and each is proven before
        anything is sent over it.
        """
        self.name, self._ping_s, self._tls, self._proof = name, ping_s, tls, proof
        self._urls, self._credentials, self._admit = urls, credentials, admit
        self._client: FastClient | None = None
        self._up = asyncio.Event()
        self._lost = asyncio.Event()
        self._closing = asyncio.Event()
        self.problem: str | None = None
        """Why the last try to connect failed, in the words of whoever refused."""
        self._inbox = f"_INBOX.{secrets.token_hex(8)}"
        self._waiting: dict[str, Callable[[IncomingMessage | OurFault], None]] = {}
        self._tokens = 0
        self._follows: set[SubjectSubscription] = set()
        self._on_up: list[Callable[[], None]] = []

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

    async def check(self, timeout_s: float) -> None:
        """Raises `Unavailable` unless the server answers within the time."""
        await self.wait_up(timeout_s)
        try:
            await self._round_trip(timeout_s)
        except (NatsConnectionLost, TimeoutError) as exc:
            raise unreachable() from exc

    async def _round_trip(self, timeout_s: float) -> None:
        """Returns when the server has taken what was sent so far. nats-py's `flush` waits 10 s for a lost connection's answer."""
        token, answer = self._expect_one()
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(OutgoingMessage(Subject(f"{self._inbox}.{token}"), "", b"").encoded())
                await answer
        finally:
            self._waiting.pop(token, None)

    def on_up(self, callback: Callable[[], None]) -> None:
        """Calls back after each new connection, with the subscriptions in place, and where one dropped what came too fast: what
        was missed can be read now."""
        self._on_up.append(callback)

    async def run(self) -> None:
        """Keeps the connection up until `close`."""
        delay_s = RETRY_MIN_S
        while not self._closing.is_set():
            try:
                client = await self._connect()
                delay_s = RETRY_MIN_S
                await self._until_lost(client)
            except (NatsError, OSError, TimeoutError, OurFault) as exc:
                log.debug("nats.connect_failed", connection=self.name, error=repr(exc))
                if not isinstance(exc, NoServersError):  # of which it has told why, server by server
                    self.problem = _words(exc)
            finally:
                await self._drop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s * random.uniform(0.5, 1.0)):  # noqa: S311 - spreads reconnects, no secret
                    await self._closing.wait()
            delay_s = min(delay_s * 2, RETRY_MAX_S)

    def close(self) -> None:
        """Ends the connection, and then `run`. May be repeated."""
        self._closing.set()
        self._lost.set()

    async def _until_lost(self, client: FastClient) -> None:
        # nats-py tells of a connection that it gave up only once its last bytes are out, which a server that hangs never takes.
        while not (client.is_closed or self._lost.is_set()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._ping_s):
                    await self._lost.wait()

    async def _connect(self) -> FastClient:
        self._lost.clear()
        try:
            client = await self._dial()
        except NatsError as exc:
            if self._admit is None or "authorization" not in str(exc).lower():
                raise
            await self._admit()
            client = await self._dial()
        self._client = client
        await client.open_inbox()
        for follow in list(self._follows):  # one that ends meanwhile sees to that itself, and new ones come only when it is up
            await follow.begin(client)
        await client.flush()
        self._up.set()
        log.debug("nats.up", connection=self.name)
        self._tell_up()
        return client

    def _tell_up(self) -> None:
        for on_up in self._on_up:
            on_up()

    async def _dial(self) -> FastClient:
        """A connected client. nats-py leaves the socket of one that was refused open; it is closed here."""
        prove, urls = None, list(self._urls)
        if self._proof is not None:
            await self._proof.ready()
            prove, urls = self._proof.check, [url.replace("tls://", "nats://") for url in self._urls]
        user, client, connected = self._credentials(), FastClient(self._inbox, self._answer, prove), False

        async def on_closed() -> None:
            if connected:
                self._lost.set()

        async def on_error(exc: Exception) -> None:
            log.debug("nats.error", connection=self.name, error=repr(exc))
            self.problem = _words(exc)
            if isinstance(exc, SlowConsumerError):  # it dropped what was followed: to be looked for as after a new connection
                self._tell_up()

        try:
            await client.connect(
                urls,
                name=f"artcafe {self.name}",
                allow_reconnect=False,
                reconnect_time_wait=0,  # and these two make a refused connect fail at once, instead of 60 tries 2 s apart
                max_reconnect_attempts=1,
                connect_timeout=CONNECT_TIMEOUT_S,
                ping_interval=self._ping_s,  # type: ignore[arg-type]  # it only sleeps for so long
                max_outstanding_pings=2,
                pending_size=PENDING_BYTES,
                tls=self._tls,
                user_jwt_cb=user.user_jwt_cb,
                signature_cb=user.signature_cb,
                error_cb=on_error,
                closed_cb=on_closed,
            )
            # What a lost connection has not carried must not arrive when the network is back: its publishers have been told that
            # the outcome is unknown, and have published more.
            client.keep_unsent(False)
            connected = True
        finally:
            if not connected:
                await self._close(client)
        return client

    async def _drop(self) -> None:
        """Ends what is left of the connection; everything that waits for an answer hears that it is lost."""
        self._up.clear()
        client, self._client = self._client, None
        waiting, self._waiting = self._waiting, {}
        for deliver in waiting.values():
            deliver(NatsConnectionLost())
        if client is None:
            return
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
        except (NatsError, OSError, TimeoutError) as exc:
            log.debug("nats.close_failed", connection=self.name, error=repr(exc))

    def client(self) -> FastClient:
        """The connection of this moment. Raises `Unavailable` when there is none: nothing was sent."""
        if self._client is None or not self._up.is_set() or self._client.is_closed:
            raise unreachable()
        return self._client

    def ends(self) -> Endpoints:
        """The ends of this moment's connection. Raises `Unavailable` when there is none."""
        return self.client().ends()

    async def subscribe(
        self, subject: Subject, callback: Callable[[Msg], Awaitable[None]], take: FastHandler | None = None
    ) -> SubjectSubscription:
        """Follows a subject, over every connection to come, until the handle's `end`; in force when this returns.

        What comes is offered to `take` as it is read; what that does not take goes to `callback`, one after the other.

        Raises `Unavailable` when there is no connection now, and follows nothing then.
        """
        client = self.client()
        follow = SubjectSubscription(subject, callback, take)
        self._follows.add(follow)  # first, so that a connection that replaces this one meanwhile knows of it
        try:
            await follow.begin(client)
            await self._round_trip(REPLY_TIMEOUT_S)
        except BaseException as exc:
            await self.unsubscribe(follow)
            if isinstance(exc, NatsError | OSError | TimeoutError | NatsConnectionLost):
                raise unreachable() from exc
            raise
        return follow

    async def unsubscribe(self, follow: SubjectSubscription) -> None:
        """Ends a following. May be repeated."""
        self._follows.discard(follow)
        await follow.end()

    async def send(self, message: OutgoingMessage) -> None:
        """Sends without an answer. Raises `Unavailable` when it was not sent, `NatsConnectionLost` when that is unknown."""
        await self._send(message.encoded())

    async def _send(self, protocol: bytes) -> None:
        client = self.client()
        try:
            await client.send(protocol)
        except (NatsError, OSError) as exc:
            raise NatsConnectionLost() from exc

    async def request(self, subject: Subject, body: bytes, *, timeout_s: float = REPLY_TIMEOUT_S) -> IncomingMessage:
        """One request, one answer.

        Raises `Unavailable` (not sent), `NoResponder` (nobody took it), `NatsConnectionLost` or `TimeoutError` (unknown).
        """
        return await self.request_last([OutgoingMessage(subject, "", body)], timeout_s=timeout_s)

    async def request_last(self, messages: Sequence[OutgoingMessage], *, timeout_s: float = REPLY_TIMEOUT_S) -> IncomingMessage:
        """Sends messages in one piece, the last of them a request. Raises as `request` does for that one."""
        token, answer = self._expect_one()
        encoded = [one.encoded() for one in messages[:-1]]
        encoded.append(messages[-1].encoded(f"{self._inbox}.{token}"))
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(b"".join(encoded))
                return await answer
        finally:
            self._waiting.pop(token, None)

    async def request_each(
        self, messages: Sequence[OutgoingMessage], *, timeout_s: float = REPLY_TIMEOUT_S
    ) -> list[IncomingMessage | Exception]:
        """Sends messages in one piece, each of them a request. Returns each one's answer, or what `request` would have raised.

        Raises `Unavailable` (nothing was sent), or `NatsConnectionLost`.
        """
        expected = [self._expect_one() for _ in messages]
        try:
            encoded = (one.encoded(f"{self._inbox}.{token}") for one, (token, _) in zip(messages, expected, strict=True))
            await self._send(b"".join(encoded))
            await asyncio.wait([answer for _, answer in expected], timeout=timeout_s)
            return [_outcome(answer) for _, answer in expected]
        finally:
            for token, _ in expected:
                self._waiting.pop(token, None)

    def _expect_one(self) -> tuple[str, asyncio.Future[IncomingMessage]]:
        """A token to be answered at, and the answer, or one of the errors of `request`."""
        answer: asyncio.Future[IncomingMessage] = asyncio.get_running_loop().create_future()

        def deliver(got: IncomingMessage | OurFault) -> None:
            if answer.done():
                return
            if isinstance(got, OurFault):
                answer.set_exception(got)
            elif got.status == 503:
                answer.set_exception(NoResponder())
            else:
                answer.set_result(got)

        return self._expect(deliver), answer

    async def request_many(
        self, subject: Subject, body: bytes, *, timeout_s: float = REPLY_TIMEOUT_S
    ) -> tuple[list[IncomingMessage], IncomingMessage]:
        """One request, many answers, ended by one that carries a status: `(answers, the ending one)`. Raises as `request`."""
        got: list[IncomingMessage] = []
        ended: asyncio.Future[IncomingMessage] = asyncio.get_running_loop().create_future()

        def deliver(one: IncomingMessage | OurFault) -> None:
            if ended.done():
                return
            if isinstance(one, OurFault):
                ended.set_exception(one)
            elif (status := one.status) == 503:
                ended.set_exception(NoResponder())
            elif status:
                ended.set_result(one)
            else:
                got.append(one)

        token = self._expect(deliver)
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(OutgoingMessage(subject, "", body).encoded(f"{self._inbox}.{token}"))
                return got, await ended
        finally:
            self._waiting.pop(token, None)

    def _expect(self, deliver: Callable[[IncomingMessage | OurFault], None]) -> str:
        self._tokens += 1
        token = str(self._tokens)
        self._waiting[token] = deliver
        return token

    def _answer(self, token: str, answer: IncomingMessage) -> None:
        deliver = self._waiting.get(token)
        if deliver is not None:
            deliver(answer)


def _words(exc: Exception) -> str:
    said = exc.strerror if isinstance(exc, OSError) else None
    return said or str(exc) or "no answer in time"


def _outcome(answer: asyncio.Future[IncomingMessage]) -> IncomingMessage | Exception:
    if not answer.done():
        return TimeoutError()
    try:
        return answer.result()
    except OurFault as exc:
        return exc
