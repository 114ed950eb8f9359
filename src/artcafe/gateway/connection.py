"""One socket: frames in and out, within bounds, from its upgrade to its end. What is said on it is `gateway.conversation`'s."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket as sockets
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Final, Protocol

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from artcafe.delivery.frame_batch import FrameBatch, text_frame
from artcafe.errors import ArtcafeError, BadFrame, Internal, TooLarge
from artcafe.gateway.conversation import Conversation
from artcafe.gateway.desk import Desk
from artcafe.gateway.protocol_switch import DiscardProtocol, switch_protocol
from artcafe.observe.context import bind_origin
from artcafe.observe.logs import log
from artcafe.rules.connections import CountedConnection
from artcafe.wire import frames, replies
from artcafe.wire.frames import MAX_FRAME_BYTES
from artcafe.wire.session import Session, State

WRITE_HIGH_BYTES: Final = 256 * 1024
"""A socket whose peer has this much still to take leaves the live set and is fed from the log at its own pace."""
NOTSENT_LOWAT_BYTES: Final = 64 * 1024
"""Without it the kernel swallowed 3 MB before the transport noticed a reader that had stopped (design, decision 6)."""

MOST_UNDER_WAY: Final = 1024
"""Commands that wait and publishes that are not stored yet. When reached, the socket is not read until half are done."""
MOST_BYTES_UNDER_WAY: Final = 1024 * 1024
"""Of the frames of the same; likewise."""

_NONE: Final[list[str]] = []
"""Of every socket that was admitted."""

_SENDABLE: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
"""The registered close codes (IANA) but for those that only an end itself may see."""

WRITTEN_S: Final = 1.0
"""How long a close frame waits until cursors are written; less than `listener.DRAIN_S`, after which the socket is cut off."""

CLOSE_REASON_BYTES: Final = 123
"""A control frame holds 125 bytes, two of them the code (RFC 6455, section 5.5)."""


class ConnectionEvents(Protocol):
    """Whoever watches over all connections."""

    def admit(self, entry: CountedConnection, peer: str | None, forwarded: list[str]) -> str:
        """The address of a socket that may stay, behind whichever proxies. Raises RateLimited."""
        ...

    def came(self, connection: Connection) -> None:
        """The socket is open."""

    def proven(self, connection: Connection) -> None:
        """An agent has proven who it is."""

    def stalled(self, connection: Connection, is_stalled: bool) -> None:
        """The peer has stopped taking what it is sent, or goes on."""

    def closing(self, connection: Connection) -> None:
        """The connection was closed from this side; the peer may be slow to take that."""

    def broken(self, address: str | None, problem: str) -> None:
        """A peer sent a frame that breaks the WebSocket protocol."""

    def closed_for(self, connection: Connection, reason: ArtcafeError) -> None:
        """The server closed the connection, for this reason."""

    def gone(self, connection: Connection) -> None:
        """The socket is gone."""


class Connection(WSListener):
    """One socket. picows calls the `on_ws_…` methods and `pause_writing`, `resume_writing`."""

    __slots__ = (
        "_direct",
        "_door",
        "_forwarded",
        "_group",
        "_holds",
        "_partial",
        "_replies",
        "_session",
        "_stream",
        "_talking",
        "_transport",
        "_under_way",
        "_under_way_bytes",
        "address",
        "conversation",
        "descriptor",
        "entry",
        "has_answered",
        "is_closed",
        "is_paused",
        "is_reading",
        "out",
    )

    def __init__(
        self, desk: Desk, group: asyncio.TaskGroup, door: ConnectionEvents, entry: CountedConnection, forwarded: list[str]
    ) -> None:
        """`entry`: how it is counted. `forwarded`: what its upgrade said in X-Forwarded-For."""
        self.entry = entry
        self._group, self._door, self._talking = group, door, desk.hub.talking
        self._session = Session()
        self._forwarded = forwarded
        self.address: str | None = None
        """Where the peer is, once it was admitted."""
        self._partial: bytearray | None = None
        self._replies: list[bytes] = []
        self._under_way = self._under_way_bytes = self._holds = 0
        self.is_reading = True
        """Whether frames are taken in now."""
        self.out: list[FrameBatch] = []
        self._direct: int | None = None
        self.descriptor: int | None = None
        """The socket's, for who writes past the transport. None while bytes wait there, and with TLS."""
        self.is_paused = False
        self.is_closed = False
        self.has_answered = True
        """Whether anything came from the peer since it was last pinged."""
        self.conversation = Conversation(desk, self, self._spawn)

    # --- picows's side -----------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The upgrade is done."""
        self._transport = transport
        for upgrade in (transport.request, transport.response):
            upgrade.headers.clear()  # picows keeps both as long as the socket, and they were a tenth of what an idle one costs
        self._stream = transport.underlying_transport
        sock = self._stream.get_extra_info("socket")
        if hasattr(sockets, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)
        is_tls = self._stream.get_extra_info("ssl_object") is not None
        if not is_tls and os.name == "posix":  # elsewhere a socket is no file
            self.descriptor = self._direct = sock.fileno()
        # The first byte that waits is told: a transport of TLS tells when it has so many, one of TCP when it has more.
        self._stream.set_write_buffer_limits(high=1 if is_tls else 0)
        self._door.came(self)
        try:
            peer = self._stream.get_extra_info("peername")
            self.address = self._door.admit(self.entry, peer[0] if isinstance(peer, tuple) else None, self._forwarded)
            self._forwarded = _NONE
        except ArtcafeError as fatal:
            self.close(fatal)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A frame has come. Its payload dies when this returns."""
        self.has_answered = True
        kind = frame.msg_type
        if self.is_closed:
            if kind is WSMsgType.CLOSE:
                transport.disconnect()
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:  # no extension is agreed on that could use them (RFC 6455, section 5.2)
            self._door.broken(self.address, "reserved bits are set")
            self._end(WSCloseCode.PROTOCOL_ERROR, b"reserved bits are set, and no extension was agreed on")
        elif kind is WSMsgType.TEXT and frame.fin and self._partial is None:
            self._receive(frame.get_payload_as_bytes())
        elif kind in (WSMsgType.TEXT, WSMsgType.CONTINUATION):
            self._receive_part(frame)
        elif kind is WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
            self._pause_or_not()
        elif kind is WSMsgType.BINARY:
            self.close(BadFrame("it is binary"))
        elif kind is WSMsgType.CLOSE:
            self._end(_answer_to_close(frame.get_payload_as_bytes()), is_answer=True)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The socket is gone, whoever ended it."""
        self.is_closed = True
        self._direct = None  # the transport closes it behind this call, and then the number is another socket's
        self._use(None)
        try:
            self.conversation.end()
        finally:
            self._door.gone(self)

    def pause_writing(self) -> None:
        """The peer has not taken all it was sent: what comes goes behind that, into the transport."""
        self._use(None)

    def resume_writing(self) -> None:
        """The peer has taken what was waiting."""
        self._use(self._direct)
        if self.is_paused:
            self._go_on()

    # --- in ----------------------------------------------------------------------------------------------------------

    def _receive_part(self, frame: WSFrame) -> None:
        is_first = frame.msg_type is WSMsgType.TEXT
        if is_first is not (self._partial is None):
            self.close(BadFrame("its fragments are out of order"))
            return
        partial = self._partial = self._partial or bytearray()
        partial += frame.get_payload_as_bytes()
        if len(partial) > MAX_FRAME_BYTES:
            self.close(TooLarge("the frame", MAX_FRAME_BYTES))
        elif frame.fin:
            self._partial = None
            self._receive(bytes(partial))

    def _receive(self, payload: bytes) -> None:
        try:
            command = self._session.receive(payload)
        except frames.Refused as refused:
            self.conversation.spend()
            self.send(replies.error(refused.error, refused.id))
        except ArtcafeError as fatal:
            self.close(fatal)
        else:
            self.conversation.hear(*command, len(payload))

    @property
    def has_heard_connect(self) -> bool:
        """Whether a `connect` has come, proven or not."""
        return self._session.state is not State.FRESH

    def broken(self, problem: str) -> None:
        """picows cannot read on. It sends the close frame behind this call and ends the socket: nothing may come between."""
        if self.is_closed:
            return
        self._door.broken(self.address, problem)
        self._finish()
        switch_protocol(self._stream, DiscardProtocol(self._stream.get_protocol()))

    def count(self, change: int, size: int) -> None:
        """Adjust the number of commands and publishes in flight, and of the bytes of their frames."""
        self._under_way += change
        self._under_way_bytes += size
        if not self.is_reading or self._under_way > MOST_UNDER_WAY or self._under_way_bytes > MOST_BYTES_UNDER_WAY:
            self._read_or_not()

    def hold(self, change: int) -> None:
        """Adjust how many reasons there are to read nothing: its principal's share of the server is used up."""
        self._holds += change
        self._read_or_not()

    def _read_or_not(self) -> None:
        share = 1 if self.is_reading else 2
        has_room = self._under_way <= MOST_UNDER_WAY // share and self._under_way_bytes <= MOST_BYTES_UNDER_WAY // share
        is_willing = self.is_closed or (has_room and not self.is_paused and not self._holds)
        if is_willing is self.is_reading:
            return
        self.is_reading = is_willing
        if is_willing:
            self._stream.resume_reading()
        else:
            self._stream.pause_reading()

    def proven(self) -> None:
        """The agent on this socket has proven who it is."""
        self._door.proven(self)

    # --- out ---------------------------------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Sends a reply or push with the others of this loop turn: one system call for all of them."""
        if not self._replies:
            self._talking.add(self)
            asyncio.get_running_loop().call_soon(self._send_replies)
        self._replies.append(text_frame(frame))

    def _send_replies(self) -> None:
        if self._replies:
            self.write(b"")

    def write(self, frames: bytes | memoryview) -> None:
        """Sends encoded frames now, behind the replies that wait: what answers a command comes before what it set off."""
        if self._replies:
            replies, self._replies = self._replies, []
            self._talking.discard(self)
            frames = b"".join([*replies, frames])
        if not self.is_closed:
            self._stream.write(frames)
            self._pause_or_not()

    def _use(self, descriptor: int | None) -> None:
        """Lets the feeds know how this socket is written to."""
        if descriptor == self.descriptor:
            return
        self.descriptor = descriptor
        for delivery in self.conversation.deliveries.values():
            delivery.feed.regroup()

    def _pause_or_not(self) -> None:
        if self.descriptor is None and not self.is_paused and self.waiting_bytes() > WRITE_HIGH_BYTES:
            self.pause()

    def pause(self) -> None:
        """The peer takes less than it is sent: its deliveries leave the live set, knowing what they were sent, until it has taken
        what waits."""
        self.is_paused = True
        self._read_or_not()  # or a peer that asks and never listens would fill our memory with answers
        self._door.stalled(self, True)
        for delivery in self.conversation.deliveries.values():
            delivery.feed.leave(delivery)

    def _go_on(self) -> None:
        """Its deliveries go on from the log."""
        self.is_paused = False
        self.has_answered = True  # taking bytes is a sign of life, and its pong may be among what was not read
        self._read_or_not()
        self._door.stalled(self, False)
        self.conversation.resumed()

    def feed_soon(self) -> None:
        """A delivery of this socket has left the live set: go on from the log."""
        self.conversation.feed_soon()

    def waiting_bytes(self) -> int:
        """What the peer has still to take, of what this process keeps for it."""
        size: int = self._stream.get_write_buffer_size()
        return size

    def ping(self) -> None:
        """Asks the peer for a sign of life."""
        self.has_answered = False
        self._transport.send_ping()

    def close(self, reason: ArtcafeError) -> None:
        """Ends the connection with the reason's close code. May be repeated."""
        if self.is_closed:
            return
        self._door.closed_for(self, reason)
        text = str(reason).encode()[:CLOSE_REASON_BYTES].decode(errors="ignore")
        self._end(reason.close if reason.close is not None else Internal.close, text.encode())

    def _end(self, code: int | WSCloseCode, text: bytes = b"", *, is_answer: bool = False) -> None:
        """Send a close frame, behind the replies that wait and once what the agent acknowledged is written: its next connection,
        perhaps to another server, must go on behind that.

        The socket stays until the peer has answered it, or the door loses patience: closing it over what the peer is just
        sending would reset the connection, and the peer would never read the code. With `is_answer` the peer closed first.
        """
        self._finish()
        self._read_or_not()
        self._door.closing(self)
        if self.conversation.has_unwritten:
            _ = self._spawn(partial(self._end_written, code, text, is_answer))
        else:
            self._send_close(code, text, is_answer)

    async def _end_written(self, code: int | WSCloseCode, text: bytes, is_answer: bool) -> None:
        with contextlib.suppress(TimeoutError):  # without the tables it is closed all the same, and messages come again
            async with asyncio.timeout(WRITTEN_S):
                await self.conversation.write_cursors()
        if not self._stream.is_closing():
            self._send_close(code, text, is_answer)

    def _send_close(self, code: int | WSCloseCode, text: bytes, is_answer: bool) -> None:
        self._transport.send_close(code, text)  # type: ignore[arg-type]  # any code; the stub names the registered ones
        if is_answer:
            self._transport.disconnect()

    def _finish(self) -> None:
        """Send the replies that wait; nothing is received or delivered any more."""
        self.write(b"")
        self.is_closed = True
        self._session.close()
        self.conversation.end()

    def abort(self) -> None:
        """Ends the connection without waiting for the peer to take what was sent."""
        self.is_closed = True
        self._transport.disconnect(False)

    def _spawn(self, work: Callable[[], Coroutine[None, None, None]]) -> asyncio.Task[None]:
        return self._group.create_task(self._supervise(work))

    async def _supervise(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """The supervisor of a connection: what nobody foresaw ends this connection and no other."""
        bind_origin(self.address)
        try:
            await work()
        except Exception:  # noqa: BLE001 (the supervisor of connections: logged here once, and the peer is told)
            log.exception("connection.failed")
            self.close(Internal())


def _answer_to_close(payload: bytes) -> int:
    """Return the code that answers a close frame: its own, if it may stand in one (RFC 6455, section 7.4)."""
    if not payload:
        return WSCloseCode.OK.value  # one without a code
    code = int.from_bytes(payload[:2], "big")
    is_sendable = code in _SENDABLE or 3000 <= code <= 4999
    return code if is_sendable else WSCloseCode.PROTOCOL_ERROR.value
