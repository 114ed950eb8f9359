"""The opening handshake of a socket: counted, and bounded in bytes and time up to `connect`; then picows reads by itself."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any, Final, Protocol

from picows import WSAutoPingStrategy, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # missing in the stub; `ws_create_server` only wraps it

from artcafe.errors import ArtcafeError, TooLarge
from artcafe.gateway.connection import Connection
from artcafe.gateway.protocol_switch import switch_protocol
from artcafe.gateway.upgrade_request import MAX_HEAD_BYTES, UpgradeRefused, UpgradeRequest, parse, refusal
from artcafe.observe import metrics
from artcafe.rules.open_connections import LINGER_BYTES, LINGER_S, CountedConnection
from artcafe.wire.frames import MAX_FRAME_BYTES, SUBPROTOCOL

MAX_BYTES_BEFORE_CONNECT: Final = 8 * 1024
"""Bytes of all frames up to `connect`. A person's token has a few KB, the longest signature 3."""
READ_BUFFER_BYTES: Final = 2048
"""An idle socket costs 9.4 KB with it and 23 KB with picows's default (design, decision 6)."""
READ_BYTES: Final = 64 * 1024
"""Longest read. Without it the parser's buffer grew to the size of the kernel's, a few MB per socket."""
READABLE_BYTES: Final = 4 * MAX_FRAME_BYTES
"""Too large frames up to this size are read and answered with 4501 and a reason. Above, picows closes with 1009."""

_picows: Final = logging.getLogger("picows.server")


class HandshakeEvents(Protocol):
    """The gateway, as connections notify it before they are upgraded."""

    def count_connection(self, peer: str | None) -> CountedConnection:
        """Count a connection from this address. Raises RateLimited or Overloaded."""
        ...

    def try_linger(self) -> bool:
        """Return whether a refused connection may stay open until its peer has read the refusal."""
        ...

    def stop_lingering(self) -> None:
        """A lingering connection is closed."""

    def on_begin(self, handshake: OpeningHandshake) -> None:
        """A connection was counted and may send its upgrade."""

    def on_abandoned(self, handshake: OpeningHandshake, counted: CountedConnection) -> None:
        """A counted connection was closed before its upgrade."""

    def accept(self, handshake: OpeningHandshake, counted: CountedConnection, request: UpgradeRequest) -> Connection:
        """Return the connection of an accepted upgrade. Raises UpgradeRefused."""
        ...

    def on_refused(self, peer: str | None, refused: UpgradeRefused) -> None:
        """A connection was refused."""


class OpeningHandshake(asyncio.Protocol):
    """Reads the upgrade request, then passes bytes to picows up to `connect`. From there on picows reads the transport itself."""

    __slots__ = (
        "_bytes",
        "_connection",
        "_counted",
        "_deadline_s",
        "_events",
        "_head",
        "_is_lingering",
        "_is_over",
        "_peer",
        "_timer",
        "_transport",
        "_ws",
    )

    def __init__(self, events: HandshakeEvents, deadline_s: float) -> None:
        self._events, self._deadline_s = events, deadline_s
        self._head = bytearray()
        self._bytes = 0
        self._counted: CountedConnection | None = None
        self._connection: Connection | None = None
        self._ws: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_lingering = False
        self._is_over = False
        """Whether further bytes are discarded."""

    # --- callbacks of the transport ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a TCP server passes this type
        """Count the connection and start its deadline, or refuse it."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._peer: str | None = peer[0] if isinstance(peer, tuple) else None
        try:
            self._counted = self._events.count_connection(self._peer)
        except ArtcafeError as error:
            metrics.count_error(error)
            self._is_lingering = self._events.try_linger()
            self._refuse(refusal(error))
            if not self._is_lingering:
                self._transport.close()
            return
        self._events.on_begin(self)
        self._start_timer(self._deadline_s)

    def data_received(self, data: bytes) -> None:
        """Read the request's head, then pass on to the parser."""
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
                assert self._counted is not None
                request = parse(bytes(self._head[:end]))
                self._open(self._events.accept(self, self._counted, request), request, bytes(self._head[end + 4 :]))
        except UpgradeRefused as refused:
            self._refuse(refused)

    def eof_received(self) -> bool:
        """Return False: the transport closes itself."""
        return False

    def pause_writing(self) -> None:
        """Pass on to the parser."""
        if self._ws is not None:
            self._ws.pause_writing()

    def resume_writing(self) -> None:
        """Pass on to the parser."""
        if self._ws is not None:
            self._ws.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the gateway, or the parser after the upgrade."""
        self._stop_timer()
        if self._ws is not None:
            self._ws.connection_lost(exc)
        elif self._counted is not None:
            self._events.on_abandoned(self, self._counted)
        elif self._is_lingering:
            self._events.stop_lingering()

    # --- the HTTP part -----------------------------------------------------------------------------------------------

    def _end_of_head(self) -> int | None:
        """Return the end of the head, or None while it is incomplete. Raises UpgradeRefused if it is too large or not HTTP."""
        if self._head[0] <= 0x20:  # such as a TLS hello, without any line end
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
        self._events.on_refused(self._peer, refused)
        self._transport.write(refused.answer())
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._start_timer(LINGER_S)

    def _discard(self, size: int) -> None:
        """Discard further bytes of a refused peer, and abort the connection above `LINGER_BYTES`."""
        self._bytes += size
        if self._bytes > LINGER_BYTES:
            self.abort()

    def abort(self) -> None:
        """Close the connection at once: at its deadline, or when the server shuts down."""
        self._transport.abort()

    def _start_timer(self, deadline_s: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(deadline_s, self.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- frames up to `connect` --------------------------------------------------------------------------------------

    def _open(self, connection: Connection, request: UpgradeRequest, tail: bytes) -> None:
        """Make the parser, let it answer the upgrade, and pass on the bytes after the request."""
        self._stop_timer()
        self._head.clear()
        self._connection = connection
        self._ws = _parser(connection)
        self._ws.connection_made(self._transport)
        self._feed(memoryview(request.canonical()))
        if tail:
            self._pass_on(tail)

    def _pass_on(self, data: bytes) -> None:
        """Pass bytes to the parser, up to `MAX_BYTES_BEFORE_CONNECT`: it buffers incomplete frames."""
        connection = self._connection
        assert connection is not None
        left = memoryview(data)
        while left and self._is_reading():
            left = self._feed(left)
            if self._bytes > MAX_BYTES_BEFORE_CONNECT and not connection.has_received_connect:
                connection.close(TooLarge("what comes before connect", MAX_BYTES_BEFORE_CONNECT))
                self._is_over = True
        if connection.has_received_connect and self._is_reading():
            self._is_over = True
            switch_protocol(self._transport, self._ws)
            if not connection.is_reading:
                self._transport.pause_reading()

    def _is_reading(self) -> bool:
        """Whether this protocol still reads the transport: the connection replaces it when a frame cannot be parsed."""
        return not self._is_over and self._transport.get_protocol() is self

    def _feed(self, data: memoryview) -> memoryview:
        """Pass on as much as fits the parser's buffer, and return the rest."""
        room = self._ws.get_buffer(-1)
        size = min(len(room), len(data))
        room[:size] = data[:size]
        self._bytes += size
        self._ws.buffer_updated(size)
        return data[size:]


class _Parser(WSProtocol):  # type: ignore[misc]  # missing in the stub
    """picows's protocol with bounded reads: it doubles its buffer whenever a read fills it, and never shrinks it."""

    __slots__ = ()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return at most `READ_BYTES` of the buffer."""
        room: memoryview = super().get_buffer(sizehint)
        return room[:READ_BYTES]


class _PicowsLogger:
    """The logger of one socket's parser: picows reports an unparsable frame only by a log line."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def isEnabledFor(self, _level: int) -> bool:  # noqa: N802 (logging's name)
        """Return False: no debug lines are wanted."""
        return False

    def info(self, *_args: object) -> None:
        """Drop the line: the gateway logs connects and disconnects itself."""

    log = info

    def warning(self, text: str, *args: object) -> None:
        """Log the line."""
        _picows.warning(text, *args)

    def error(self, text: str, *args: object) -> None:
        """Notify the connection of a protocol error, before picows closes it. `args`: code and reason."""
        self._connection.on_protocol_error(text % args)

    def exception(self, text: str, *args: object) -> None:
        """Log an exception in one of our callbacks."""
        _picows.exception(text, *args)


def _parser(connection: Connection) -> Any:
    """Return picows's protocol for a socket, with the arguments of `ws_create_server`."""

    def accept(_request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        accepted = WSUpgradeResponse.create_101_response(extra_headers={"Sec-WebSocket-Protocol": SUBPROTOCOL})
        return WSUpgradeResponseWithListener(accepted, connection)

    return _Parser(
        None,  # host and port
        None,  # path
        False,  # not the client's side
        accept,
        _PicowsLogger(connection),
        True,  # an exception in a callback ends the socket
        None,  # no deadline for the upgrade: it is complete
        False,  # no pings of its own
        0,
        0,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # no pongs of its own: it would answer every ping, even without reads by the peer
        READABLE_BYTES,
        None,  # no further headers
        READ_BUFFER_BYTES,
    )
