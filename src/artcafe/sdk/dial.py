"""Opening a connection: the gateway's address, the WebSocket, the login. Whatever the libraries raise becomes `Lost` here."""

from __future__ import annotations

import asyncio
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidProxy, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from artcafe import errors
from artcafe.errors import ArtcafeError
from artcafe.sdk import addresses
from artcafe.sdk.keys import Signer
from artcafe.sdk.rest import Rest
from artcafe.sdk.session import Lost, Phase, Session, end
from artcafe.wire import frames

OPEN_S: Final = 10.0
LOGIN_S: Final = 15.0
"""The server waits 10 s for a login (contract, section 4); this ends one with a server that does not answer at all."""
MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""Sixteen times the longest frame that is published: room for what newer servers put around it."""
UNREAD_FRAMES: Final = 64
"""Frames that wait in the library before it stops reading the socket."""


class Dialer:
    """Opens connections to the gateway that `url` is, or names where it is the REST address."""

    def __init__(self, url: str, signer: Signer, *, open_s: float = OPEN_S) -> None:
        self._signer, self._open_s = signer, open_s
        self._gateway = addresses.gateway(url) if addresses.is_gateway(url) else None
        self._rest = None if self._gateway else addresses.rest(url)

    async def open(self, session: Session) -> ClientConnection:
        """A connection that is logged in. Raises `Lost`, with nothing left open."""
        try:
            url = await self._find()
            socket = await self._connect(url)
        except ArtcafeError as exc:
            if self._rest:
                self._gateway = None  # It may have moved.
            raise Lost(exc, comes_back=exc.temporary) from exc
        try:
            async with asyncio.timeout(LOGIN_S):
                await self._login(socket, session)
        except TimeoutError as exc:
            raise Lost(errors.Unavailable(f"{url} (it does not answer the login)"), comes_back=True) from exc
        finally:
            if session.phase is not Phase.LIVE:
                socket.transport.abort()
        return socket

    async def _find(self) -> str:
        if self._gateway is None:
            assert self._rest is not None
            async with Rest(self._rest, timeout_s=self._open_s) as rest:
                self._gateway = addresses.gateway((await rest.home()).gateway_url)
        return self._gateway

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
        """Raises `Lost`, or `KeyUnusable` and `ChallengeRefused` within it."""
        try:
            await socket.send(session.ask(), text=True)
            while session.phase is not Phase.LIVE:
                await receive(socket, session)
                if (challenge := session.to_sign) is not None:
                    await socket.send(session.prove(await self._signer.sign(challenge)), text=True)
        except ConnectionClosed as exc:
            raise ended(exc, session) from exc
        except ArtcafeError as exc:
            raise Lost(exc, comes_back=exc.temporary) from exc


async def receive(socket: ClientConnection, session: Session) -> None:
    """Takes in one frame. Raises `ConnectionClosed`, and what `Session.receive` raises."""
    payload = await socket.recv(decode=False)
    session.receive(payload, asyncio.get_running_loop().time())


def ended(exc: ConnectionClosed, session: Session) -> Lost:
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
