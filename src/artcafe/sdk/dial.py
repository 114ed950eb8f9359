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
from artcafe.sdk.session import ConnectionLost, Session, lost_by_close
from artcafe.wire import frames

log = logging.getLogger("artcafe")

OPEN_S: Final = 10.0
LOGIN_S: Final = 15.0
"""The server waits 10 s for a login (contract, section 4); this limit is for a server that never replies."""
MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""Sixteen times the longest published frame: room for fields of newer servers."""
UNREAD_FRAMES: Final = 64
"""Frames that the WebSocket library buffers before it stops reading the socket."""


@dataclass(slots=True)
class ServerAddress:
    """The address of a server's gateway, or of its REST API. The gateway's address is then read from REST."""

    url: str
    gateway: str | None = None
    """The gateway's address, once it is known. After a failed connection REST is queried again: the gateway may have moved."""

    def __post_init__(self) -> None:
        self.url = addresses.gateway(self.url) if addresses.is_gateway(self.url) else addresses.rest(self.url)
        if addresses.is_plain(self.url) and not addresses.is_loopback(self.url):
            log.warning(
                "%s is on another machine and not encrypted: others on the network path can read and change the traffic and act"
                " as this agent; use https:// or wss://",
                self.url,
            )

    async def find(self, timeout_s: float) -> str:
        """Return the gateway's address. Raises as `Client` does, and `Invalid` if a REST address with TLS names a gateway
        without."""
        if addresses.is_gateway(self.url):
            return self.url
        if self.gateway is None:
            async with Client(self.url, timeout_s=timeout_s) as rest:
                found = addresses.gateway((await rest.home()).gateway_url)
            if addresses.is_plain(found) and not addresses.is_plain(self.url):
                raise errors.Invalid("url", f"{self.url} has TLS, but the gateway that it names has not ({found})")
            self.gateway = found
        return self.gateway


class Dialer:
    """Opens connections to one of several servers: the last one that answered, and after a failure the next."""

    def __init__(self, urls: str | Sequence[str], signer: Signer, *, open_s: float = OPEN_S) -> None:
        self._signer, self._open_s = signer, open_s
        self._addresses = deque(ServerAddress(url) for url in addresses.several(urls))

    async def open(self, new_session: Callable[[], Session]) -> tuple[ClientConnection, Session]:
        """Return a logged-in connection and its session. Raises `ConnectionLost`, with no socket left open.

        A refused login is raised at once, since the servers are one platform. After any other failure the next address is tried.
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

    async def _open(self, address: ServerAddress, session: Session) -> ClientConnection:
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
            if not session.is_connected:
                socket.transport.abort()
        return socket

    async def _connect(self, url: str) -> ClientConnection:
        try:
            socket = await connect(
                url,
                subprotocols=[Subprotocol(frames.SUBPROTOCOL)],
                compression=None,  # The server does not compress (design, decision 6).
                proxy=None if addresses.is_loopback(url) else True,
                open_timeout=self._open_s,
                max_size=MAX_MESSAGE_BYTES,
                max_queue=UNREAD_FRAMES,
            )
        except (OSError, InvalidHandshake, InvalidProxy, InvalidURI) as exc:
            raise _failure(url, exc) from exc
        if socket.subprotocol != frames.SUBPROTOCOL:
            socket.transport.abort()
            raise errors.Invalid("url", f"{url} is not an ArtCafe gateway: it does not speak {frames.SUBPROTOCOL}")
        return socket

    async def _login(self, socket: ClientConnection, session: Session) -> None:
        """Log in. Raises `ConnectionLost`, also for `KeyUnusable` and `ChallengeRefused`."""
        try:
            await socket.send(session.request_challenge(), text=True)
            while not session.is_connected:
                await receive(socket, session)
                if (challenge := session.to_sign) is not None:
                    await socket.send(session.prove(await self._signer.sign(challenge)), text=True)
        except ConnectionClosed as exc:
            raise lost_by(exc, session) from exc
        except ArtcafeError as exc:
            raise ConnectionLost(exc, should_reconnect=exc.temporary) from exc


async def receive(socket: ClientConnection, session: Session) -> None:
    """Receive and handle one frame. Raises `ConnectionClosed`, and as `Session.receive` does."""
    payload = await socket.recv(decode=False)
    session.receive(payload, asyncio.get_running_loop().time())


def lost_by(exc: ConnectionClosed, session: Session) -> ConnectionLost:
    """Return the meaning of a connection's end: by the server's close frame, or else by that of this client."""
    close = exc.rcvd or exc.sent
    return lost_by_close(close.code if close else 1006, close.reason if close else "", session.last_error)


def _failure(url: str, exc: Exception) -> ArtcafeError:
    if isinstance(exc, InvalidStatus):
        status = exc.response.status_code
        if status == 429 or status >= 500:
            return errors.Unavailable(f"{url} (it answered HTTP {status})")
        return errors.Invalid("url", f"{url} is not an ArtCafe gateway: it answered HTTP {status}")
    if isinstance(exc, OSError) or (isinstance(exc, InvalidMessage) and isinstance(exc.__cause__, EOFError)):
        return addresses.failure(url, exc)
    return errors.Invalid("url", f"no WebSocket opens at {url}: {exc}")
