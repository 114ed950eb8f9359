"""A socket from its first byte to its `connect`: counted, bounded in bytes and time, then handed over to picows alone."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any, Final, Protocol

from picows import WSAutoPingStrategy, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # it is not in the stub; `ws_create_server` only wraps it

from artcafe.errors import ArtcafeError, TooLarge
from artcafe.gateway.connection import Connection
from artcafe.gateway.protocol_switch import switch_protocol
from artcafe.gateway.upgrade_request import MAX_HEAD_BYTES, UpgradeRefused, UpgradeRequest, parse, refusal
from artcafe.rules.connections import LINGER_BYTES, LINGER_S, CountedConnection
from artcafe.wire.frames import MAX_FRAME_BYTES, SUBPROTOCOL

MAX_BYTES_BEFORE_CONNECT: Final = 8 * 1024
"""Of all frames up to `connect`. A person's token has some KB, the longest signature 3."""
READ_BUFFER_BYTES: Final = 2048
"""An idle socket costs 9.4 KB with it and 23 KB with picows's default (design, decision 6)."""
READ_BYTES: Final = 64 * 1024
"""The most that is read at once. Without it the parser's buffer grew to what the kernel had, some MB a socket."""
READABLE_BYTES: Final = 4 * MAX_FRAME_BYTES
"""A frame that is too large is read up to here, so that it can be answered by 4501 and a sentence; above, picows says 1009."""

_picows: Final = logging.getLogger("picows.server")


class HandshakeEvents(Protocol):
    """Whoever decides about sockets that are not open yet."""

    def enter(self, peer: str | None) -> CountedConnection:
        """Count a connection of this peer. Raises RateLimited or Overloaded."""
        ...

    def linger(self) -> bool:
        """Whether a connection that `enter` refused may stay until its peer has read why."""
        ...

    def stop_lingering(self) -> None:
        """Such a connection is closed."""

    def begin(self, handshake: OpeningHandshake) -> None:
        """A connection has come, of which nothing is known yet."""

    def leave(self, handshake: OpeningHandshake, entry: CountedConnection) -> None:
        """A connection that never became a socket is gone."""

    def upgrade(self, handshake: OpeningHandshake, entry: CountedConnection, asked: UpgradeRequest) -> Connection:
        """Return the socket of an upgrade that is accepted. Raises UpgradeRefused."""
        ...

    def refused(self, peer: str | None, refused: UpgradeRefused) -> None:
        """A peer was refused."""


class OpeningHandshake(asyncio.Protocol):
    """Reads the upgrade, then passes on to picows what comes, until `connect` was heard. From there on picows reads by itself."""

    __slots__ = (
        "_bytes",
        "_connection",
        "_deadline_s",
        "_door",
        "_entry",
        "_head",
        "_is_lingering",
        "_is_over",
        "_peer",
        "_timer",
        "_transport",
        "_ws",
    )

    def __init__(self, door: HandshakeEvents, deadline_s: float) -> None:
        self._door, self._deadline_s = door, deadline_s
        self._head = bytearray()
        self._bytes = 0
        self._entry: CountedConnection | None = None
        self._connection: Connection | None = None
        self._ws: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_lingering = False
        self._is_over = False
        """Whether whatever comes is passed over."""

    # --- the transport's side ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a TCP server makes no other
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._peer: str | None = peer[0] if isinstance(peer, tuple) else None
        try:
            self._entry = self._door.enter(self._peer)
        except ArtcafeError as error:
            self._is_lingering = self._door.linger()
            self._refuse(refusal(error))
            if not self._is_lingering:
                self._transport.close()
            return
        self._door.begin(self)
        self._wait(self._deadline_s)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            self._discard(len(data))
            return
        if self._ws is not None:
            self._pass_on(data)
            return
        self._head += data
        try:
            end = self._end_of_head()
            if end is not None:
                assert self._entry is not None
                asked = parse(bytes(self._head[:end]))
                self._open(self._door.upgrade(self, self._entry, asked), asked, bytes(self._head[end + 4 :]))
        except UpgradeRefused as refused:
            self._refuse(refused)

    def eof_received(self) -> bool:
        return False  # the transport closes itself

    def pause_writing(self) -> None:
        if self._ws is not None:
            self._ws.pause_writing()

    def resume_writing(self) -> None:
        if self._ws is not None:
            self._ws.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self._ws is not None:
            self._ws.connection_lost(exc)
        elif self._entry is not None:
            self._door.leave(self, self._entry)
        elif self._is_lingering:
            self._door.stop_lingering()

    # --- the HTTP part -----------------------------------------------------------------------------------------------

    def _end_of_head(self) -> int | None:
        """Where the head ends; None while it is not complete. Raises UpgradeRefused for one that is too large, or is no HTTP."""
        if self._head[0] <= 0x20:  # a peer that speaks TLS, say: it would never end a line
            raise UpgradeRefused(HTTPStatus.BAD_REQUEST, "This is no request of HTTP/1.1.", is_noise=True)
        end = self._head.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES + 4)
        if end >= 0:
            return end
        if len(self._head) > MAX_HEAD_BYTES:
            text = f"The request's head is larger than {MAX_HEAD_BYTES} bytes; are there cookies in it?"
            raise UpgradeRefused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text)
        return None

    def _refuse(self, refused: UpgradeRefused) -> None:
        self._is_over = True
        self._head.clear()
        self._door.refused(self._peer, refused)
        self._transport.write(refused.answer())
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._wait(LINGER_S)

    def _discard(self, size: int) -> None:
        """Pass over what a refused peer still sends, and abort the connection if it goes on sending."""
        self._bytes += size
        if self._bytes > LINGER_BYTES:
            self.abort()

    def abort(self) -> None:
        """Close the connection: its time is over, or the server's."""
        self._transport.abort()

    def _wait(self, deadline_s: float) -> None:
        self._stop_waiting()
        self._timer = asyncio.get_running_loop().call_later(deadline_s, self.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- frames up to `connect` --------------------------------------------------------------------------------------

    def _open(self, connection: Connection, asked: UpgradeRequest, tail: bytes) -> None:
        """Make the parser, let it answer the upgrade, and give it what came behind."""
        self._stop_waiting()
        self._head.clear()
        self._connection = connection
        self._ws = _parser(connection)
        self._ws.connection_made(self._transport)
        self._feed(memoryview(asked.canonical()))
        if tail:
            self._pass_on(tail)

    def _pass_on(self, data: bytes) -> None:
        """Give the parser what came. It keeps unfinished frames, so there is a bound on what comes before `connect`."""
        connection = self._connection
        assert connection is not None
        left = memoryview(data)
        while left and self._is_reading():
            left = self._feed(left)
            if self._bytes > MAX_BYTES_BEFORE_CONNECT and not connection.has_heard_connect:
                connection.close(TooLarge("what comes before connect", MAX_BYTES_BEFORE_CONNECT))
                self._is_over = True
        if connection.has_heard_connect and self._is_reading():
            self._is_over = True
            switch_protocol(self._transport, self._ws)
            if not connection.is_reading:
                self._transport.pause_reading()

    def _is_reading(self) -> bool:
        """Whether what comes is still this protocol's: the socket puts another in its place when a frame cannot be parsed."""
        return not self._is_over and self._transport.get_protocol() is self

    def _feed(self, data: memoryview) -> memoryview:
        """Give the parser as much as it has room for; return the rest."""
        room = self._ws.get_buffer(-1)
        size = min(len(room), len(data))
        room[:size] = data[:size]
        self._bytes += size
        self._ws.buffer_updated(size)
        return data[size:]


class _Parser(WSProtocol):  # type: ignore[misc]  # it is not in the stub
    """picows's protocol. It doubles its buffer whenever a read fills it, and keeps it: reads are bounded, and so it is."""

    __slots__ = ()

    def get_buffer(self, sizehint: int) -> memoryview:
        room: memoryview = super().get_buffer(sizehint)
        return room[:READ_BYTES]


class _PicowsLogger:
    """What picows takes for its logger: one for each socket, so that the socket hears of frames that cannot be parsed."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def isEnabledFor(self, _level: int) -> bool:  # noqa: N802 (logging's name)
        return False

    def info(self, *_args: object) -> None:
        """It tells of every socket that comes and goes, as the gateway does."""

    log = info

    def warning(self, text: str, *args: object) -> None:
        _picows.warning(text, *args)

    def error(self, text: str, *args: object) -> None:
        """Before it closes the socket, for a frame that breaks the protocol: `args` has code and reason."""
        self._connection.broken(text % args)

    def exception(self, text: str, *args: object) -> None:
        """An error of ours, in a callback of the socket."""
        _picows.exception(text, *args)


def _parser(connection: Connection) -> Any:
    """Return picows's protocol for a socket, with what `ws_create_server` would make it with."""

    def accept(_request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        accepted = WSUpgradeResponse.create_101_response(extra_headers={"Sec-WebSocket-Protocol": SUBPROTOCOL})
        return WSUpgradeResponseWithListener(accepted, connection)

    return _Parser(
        None,  # host and port
        None,  # path
        False,  # not the client's side
        accept,
        _PicowsLogger(connection),
        True,  # an exception of ours ends the socket
        None,  # no deadline for the upgrade: it is complete
        False,  # no pings of its own
        0,
        0,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # no pongs of its own: it would answer for ever, whether or not the peer takes the answers
        READABLE_BYTES,
        None,  # no further headers
        READ_BUFFER_BYTES,
    )
