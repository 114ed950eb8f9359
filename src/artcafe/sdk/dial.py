"""Open a connection: find the gateway's address, open the WebSocket, log in.

An exception of the libraries becomes `ConnectionLost` here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidProxy, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from artcafe import errors
from artcafe.errors import ArtcafeError
from artcafe.sdk import addresses
from artcafe.sdk.client import Client
from artcafe.sdk.keys import Signer
from artcafe.sdk.session import ConnectionLost, Phase, Session, end
from artcafe.wire import frames

log = logging.getLogger("artcafe")

OPEN_S: Final = 10.0
LOGIN_S: Final = 15.0
"""The server waits 10 s for a login (contract, section 4); this ends one with a server that does not answer at all."""
MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""Sixteen times the longest frame that is published: room for what newer servers put around it."""
UNREAD_FRAMES: Final = 64
"""Frames that wait in the library before it stops reading the socket."""


@dataclass(slots=True)
class Address:
    """Where a server is: its gateway's address, or its REST address, which names the gateway."""

    url: str
    gateway: str | None = None
    """As far as it is known: what REST names is asked for again when nobody answers there, since it may have moved."""

    def __post_init__(self) -> None:
        self.url = addresses.gateway(self.url) if addresses.is_gateway(self.url) else addresses.rest(self.url)
        if addresses.is_plain(self.url) and not addresses.is_loopback(self.url):
            log.warning(
                "%s is on another machine and not encrypted: whoever is on the way can read and change what is sent, and act as"
                " this agent; use https:// or wss://",
                self.url,
            )

    async def find(self, timeout_s: float) -> str:
        """Return the gateway's address. Raises what `Client` does, and `Invalid` where the way on would be without TLS."""
        if addresses.is_gateway(self.url):
            return self.url
        if self.gateway is None:
            async with Client(self.url, timeout_s=timeout_s) as rest:
                found = addresses.gateway((await rest.home()).gateway_url)
            if addresses.is_plain(found) and not addresses.is_plain(self.url):
                raise errors.Invalid("url", f"{self.url} has TLS, and the gateway that it names has not ({found})")
            self.gateway = found
        return self.gateway


class Dialer:
    """Opens connections to one of several servers: to the one that answered last, and when it does not, to the next."""

    def __init__(self, urls: str | Sequence[str], signer: Signer, *, open_s: float = OPEN_S) -> None:
        self._signer, self._open_s = signer, open_s
        self._addresses = deque(Address(url) for url in addresses.several(urls))

    async def open(self, new_session: Callable[[], Session]) -> tuple[ClientConnection, Session]:
        """Return a connection that is logged in, and its session. Raises `ConnectionLost`, with nothing left open.

        A refused login is raised at once, since the servers are one platform; anything else may be otherwise at the next address.
        """
        failed: list[ConnectionLost] = []
        for _ in range(len(self._addresses)):
            session = new_session()
            try:
                return await self._open(self._addresses[0], session), session
            except ConnectionLost as exc:
                failed.append(exc)
                if not exc.should_reconnect and not isinstance(exc.error, errors.Invalid):
                    raise
            self._addresses.rotate(-1)
        raise ConnectionLost(
            addresses.failures([exc.error for exc in failed]), should_reconnect=any(exc.should_reconnect for exc in failed)
        )

    async def _open(self, address: Address, session: Session) -> ClientConnection:
        try:
            url = await address.find(self._open_s)
            socket = await self._connect(url)
        except ArtcafeError as exc:
            address.gateway = None
            raise ConnectionLost(exc, should_reconnect=exc.temporary) from exc
        try:
            async with asyncio.timeout(LOGIN_S):
                await self._login(socket, session)
        except TimeoutError as exc:
            raise ConnectionLost(errors.Unavailable(f"{url} (it does not answer the login)"), should_reconnect=True) from exc
        finally:
            if session.phase is not Phase.LIVE:
                socket.transport.abort()
        return socket

    async def _connect(self, url: str) -> ClientConnection:
        try:
            socket = await connect(
                url,
                subprotocols=[Subprotocol(frames.SUBPROTOCOL)],
                compression=None,  # The server has none (design, decision 6).
                proxy=None if addresses.is_loopback(url) else True,
                open_timeout=self._open_s,
                max_size=MAX_MESSAGE_BYTES,
                max_queue=UNREAD_FRAMES,
            )
        except (OSError, InvalidHandshake, InvalidProxy, InvalidURI) as exc:
            raise _failure(url, exc) from exc
        if socket.subprotocol != frames.SUBPROTOCOL:
            socket.transport.abort()
            raise errors.Invalid("url", f"{url} is no ArtCafe gateway: it does not speak {frames.SUBPROTOCOL}")
        return socket

    async def _login(self, socket: ClientConnection, session: Session) -> None:
        """Raises `ConnectionLost`, or `KeyUnusable` and `ChallengeRefused` within it."""
        try:
            await socket.send(session.ask(), text=True)
            while session.phase is not Phase.LIVE:
                await receive(socket, session)
                if (challenge := session.to_sign) is not None:
                    await socket.send(session.prove(await self._signer.sign(challenge)), text=True)
        except ConnectionClosed as exc:
            raise ended(exc, session) from exc
        except ArtcafeError as exc:
            raise ConnectionLost(exc, should_reconnect=exc.temporary) from exc


async def receive(socket: ClientConnection, session: Session) -> None:
    """Takes in one frame. Raises `ConnectionClosed`, and what `Session.receive` raises."""
    payload = await socket.recv(decode=False)
    session.receive(payload, asyncio.get_running_loop().time())


def ended(exc: ConnectionClosed, session: Session) -> ConnectionLost:
    """What the end of a connection means. Where the server said nothing, what this end closed it for counts."""
    close = exc.rcvd or exc.sent
    return end(close.code if close else 1006, close.reason if close else "", session.told)


def _failure(url: str, exc: Exception) -> ArtcafeError:
    if isinstance(exc, InvalidStatus):
        status = exc.response.status_code
        if status == 429 or status >= 500:
            return errors.Unavailable(f"{url} (it answered HTTP {status})")
        return errors.Invalid("url", f"{url} is no ArtCafe gateway: it answered HTTP {status}")
    if isinstance(exc, OSError) or (isinstance(exc, InvalidMessage) and isinstance(exc.__cause__, EOFError)):
        return addresses.failure(url, exc)
    return errors.Invalid("url", f"no WebSocket opens at {url}: {exc}")
