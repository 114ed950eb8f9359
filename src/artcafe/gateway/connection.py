"""One WebSocket: frames in and out, within bounds, from the upgrade to the end. Commands: `gateway.command_dispatcher`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import ClassVar, Final

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from artcafe.assembly import Services
from artcafe.delivery.delivery import Delivery
from artcafe.delivery.frame_batch import FrameBatch
from artcafe.errors import ArtcafeError, BadFrame, Internal, TooLarge
from artcafe.gateway import close_codes, socket_setup
from artcafe.gateway.agent_session import AgentSession
from artcafe.gateway.command_dispatcher import CommandDispatcher
from artcafe.gateway.connection_events import ConnectionEvents
from artcafe.gateway.encoding import WebSocketEncoding, text_frame
from artcafe.gateway.protocol_switch import DiscardProtocol, switch_protocol
from artcafe.gateway.user_session import UserSession
from artcafe.model import ChannelId, Cursor, Epoch
from artcafe.observe import metrics
from artcafe.observe.context import bind_origin
from artcafe.observe.logs import log
from artcafe.rules.open_connections import CountedConnection
from artcafe.wire import frames, receipts, replies
from artcafe.wire.frames import MAX_FRAME_BYTES
from artcafe.wire.replies import Gap
from artcafe.wire.session import ServerSession, ServerState

WRITE_HIGH_BYTES: Final = 256 * 1024
"""Bytes buffered in the process for a peer. Above, its deliveries leave their feeds and are fed from the log at its pace."""

MAX_IN_FLIGHT: Final = 1024
"""Waiting commands and publishes in progress. Above, the socket is not read until half of them are done."""
MAX_IN_FLIGHT_BYTES: Final = 1024 * 1024
"""Bytes of their frames, with the same effect."""

_NO_ADDRESSES: Final[list[str]] = []
"""Shared by connections after their admission."""

WRITTEN_S: Final = 1.0
"""Longest wait of a close frame for unwritten cursors. Less than `listener.DRAIN_S`, after which the socket is aborted."""


class Connection(WSListener):
    """One socket. picows calls the `on_ws_…` methods, `pause_writing` and `resume_writing`."""

    __slots__ = (
        "_direct",
        "_events",
        "_forwarded",
        "_group",
        "_in_flight",
        "_in_flight_bytes",
        "_partial",
        "_read_blocks",
        "_replies",
        "_stream",
        "_transport",
        "_wire",
        "_with_replies",
        "address",
        "counted",
        "deliveries",
        "descriptor",
        "dispatcher",
        "has_answered",
        "is_closed",
        "is_paused",
        "is_reading",
        "out",
    )

    encoding: ClassVar[WebSocketEncoding] = WebSocketEncoding()

    def __init__(
        self,
        services: Services,
        group: asyncio.TaskGroup,
        events: ConnectionEvents,
        counted: CountedConnection,
        forwarded: list[str],
    ) -> None:
        """`forwarded`: the X-Forwarded-For headers of the upgrade."""
        self.counted = counted
        self._group, self._events, self._with_replies = group, events, services.hub.with_replies
        self._wire = ServerSession()
        self._forwarded = forwarded
        self.address: str | None = None
        """The client's address, once it is admitted."""
        self._partial: bytearray | None = None
        self._replies: list[bytes] = []
        self._in_flight = self._in_flight_bytes = self._read_blocks = 0
        self.is_reading = True
        """Whether frames are read from the socket."""
        self.out: list[FrameBatch] = []
        self._direct: int | None = None
        self.descriptor: int | None = None
        """The socket's, for direct writes. None with TLS, and while the transport buffers bytes."""
        self.is_paused = False
        self.is_closed = False
        self.has_answered = True
        """Whether the peer has sent anything since the last ping."""
        self.deliveries: dict[ChannelId, Delivery] = {}
        self.dispatcher = CommandDispatcher(services, self, self.deliveries, self._spawn)

    @property
    def session(self) -> AgentSession | UserSession | None:
        """The session opened by `connect`; None before."""
        return self.dispatcher.session

    # --- callbacks of picows -----------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Prepare the socket after the upgrade, and close it if the client may not stay."""
        self._transport = transport
        for upgrade in (transport.request, transport.response):
            upgrade.headers.clear()  # picows keeps both as long as the socket: a tenth of an idle socket's memory
        self._stream = transport.underlying_transport
        self.descriptor = self._direct = socket_setup.set_up(self._stream)
        self._events.on_open(self)
        try:
            peer = self._stream.get_extra_info("peername")
            self.address = self._events.admit(self.counted, peer[0] if isinstance(peer, tuple) else None, self._forwarded)
            self._forwarded = _NO_ADDRESSES
        except ArtcafeError as fatal:
            self.close(fatal)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handle a frame. Its payload is valid only during this call."""
        self.has_answered = True
        kind = frame.msg_type
        if self.is_closed:
            if kind is WSMsgType.CLOSE:
                transport.disconnect()
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:  # no negotiated extension uses them (RFC 6455, section 5.2)
            self._events.on_protocol_error(self.address, "reserved bits are set")
            self._end(WSCloseCode.PROTOCOL_ERROR, b"reserved bits are set, and no extension was agreed on")
        elif kind is WSMsgType.TEXT and frame.fin and self._partial is None:
            self._receive(frame.get_payload_as_bytes())
        elif kind in (WSMsgType.TEXT, WSMsgType.CONTINUATION):
            self._receive_fragment(frame)
        elif kind is WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
            self._pause_if_full()
        elif kind is WSMsgType.BINARY:
            self.close(BadFrame("it is binary"))
        elif kind is WSMsgType.CLOSE:
            self._end(close_codes.for_reply(frame.get_payload_as_bytes()), is_reply=True)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """End the session: either side has closed the socket, or the network has."""
        self.is_closed = True
        self._direct = None  # the transport closes it after this call, and then the number belongs to another socket
        self._set_descriptor(None)
        try:
            self.dispatcher.end()
        finally:
            self._events.on_close(self)

    def pause_writing(self) -> None:
        """Stop direct writes: the transport buffers bytes, and further ones must follow them."""
        self._set_descriptor(None)

    def resume_writing(self) -> None:
        """Resume direct writes, and the deliveries if they were paused: the transport's buffer is empty."""
        self._set_descriptor(self._direct)
        if self.is_paused:
            self._resume()

    # --- in ----------------------------------------------------------------------------------------------------------

    def _receive_fragment(self, frame: WSFrame) -> None:
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
            command = self._wire.receive(payload)
        except frames.RefusedCommand as refused:
            self.dispatcher.spend_share()
            self.send_error(refused.error, id=refused.id)
        except ArtcafeError as fatal:
            self.close(fatal)
        else:
            self.dispatcher.handle(*command, len(payload))

    @property
    def has_received_connect(self) -> bool:
        """Whether a `connect` was received, authenticated or not."""
        return self._wire.state is not ServerState.FRESH

    def on_protocol_error(self, problem: str) -> None:
        """End the session: picows cannot parse a frame. It sends the close frame after this call, so nothing may be written."""
        if not self.is_closed:
            self._events.on_protocol_error(self.address, problem)
            self._finish()
            switch_protocol(self._stream, DiscardProtocol(self._stream.get_protocol()))

    def adjust_in_flight(self, change: int, size: int) -> None:
        """Adjust the number of commands and publishes in flight, and the bytes of their frames."""
        self._in_flight += change
        self._in_flight_bytes += size
        if not self.is_reading or self._in_flight > MAX_IN_FLIGHT or self._in_flight_bytes > MAX_IN_FLIGHT_BYTES:
            self._update_reading()

    def adjust_read_blocks(self, change: int) -> None:
        """Adjust the number of reasons not to read the socket: a used-up share of the server, or a refusal by a rate limit."""
        self._read_blocks += change
        self._update_reading()

    def _update_reading(self) -> None:
        divisor = 1 if self.is_reading else 2
        has_capacity = self._in_flight <= MAX_IN_FLIGHT // divisor and self._in_flight_bytes <= MAX_IN_FLIGHT_BYTES // divisor
        must_read = self.is_closed or (has_capacity and not self.is_paused and not self._read_blocks)
        if must_read is not self.is_reading:
            self.is_reading = must_read
            if must_read:
                self._stream.resume_reading()
            else:
                self._stream.pause_reading()

    def on_authenticated(self) -> None:
        """Notify the gateway of a successful `connect`."""
        self._events.on_authenticated(self)

    # --- out ---------------------------------------------------------------------------------------------------------

    def send(self, text: bytes) -> None:
        """Send a reply or push with the others of this turn of the event loop, in one system call."""
        if not self._replies:
            self._with_replies.add(self)
            asyncio.get_running_loop().call_soon(self._send_replies)
        self._replies.append(text_frame(text))

    def send_gap(self, channel_id: ChannelId, gap: Gap, epoch: Epoch | None = None) -> None:
        """Push a gap, before any message written later."""
        self.send(replies.gap(channel_id, gap, epoch))

    def send_moved(self, channel_id: ChannelId, cursor: Cursor) -> None:
        """Push the position of a delivery that a request has set, before any message written later."""
        push = receipts.MovedPush(channel=channel_id, epoch=cursor.epoch, cursor=cursor.seq, moves=cursor.moves)
        self.send(receipts.moved(push))

    def send_error(self, error: ArtcafeError, channels: Sequence[ChannelId] = (), *, id: int | None = None) -> None:
        """Send the error reply to a command, or without `id` an error push, and count it."""
        metrics.count_error(error)
        self.send(replies.error(error, id, channels))

    def _send_replies(self) -> None:
        if self._replies:
            self.write(b"")

    def write(self, frames: bytes | memoryview) -> None:
        """Write encoded frames now, after waiting replies: a reply goes before the messages caused by its command."""
        if self._replies:
            replies, self._replies = self._replies, []
            self._with_replies.discard(self)
            frames = b"".join([*replies, frames])
        if not self.is_closed:
            self._stream.write(frames)
            self._pause_if_full()

    def _set_descriptor(self, descriptor: int | None) -> None:
        """Set the descriptor for direct writes, and have the feeds look it up again."""
        if descriptor != self.descriptor:
            self.descriptor = descriptor
            for delivery in self.deliveries.values():
                delivery.feed.regroup()

    def _pause_if_full(self) -> None:
        if self.descriptor is None and not self.is_paused and self.waiting_bytes() > WRITE_HIGH_BYTES:
            self.pause()

    def pause(self) -> None:
        """Take a slow reader's deliveries out of their feeds, with their positions, until it has read the buffered bytes."""
        self.is_paused = True
        self._update_reading()  # else a peer with many commands and no reads would fill our memory with replies
        self._events.on_paused(self, True)
        for delivery in self.deliveries.values():
            delivery.feed.leave(delivery)

    def _resume(self) -> None:
        """Resume reading and the deliveries, from the log."""
        self.is_paused = False
        self.has_answered = True  # reading is a sign of life, and its pong may wait in the unread socket
        self._update_reading()
        self._events.on_paused(self, False)
        self.dispatcher.on_writable()

    def feed_soon(self) -> None:
        """Resume every delivery outside its feed."""
        if self.session is not None:
            self.session.feed_soon()

    def waiting_bytes(self) -> int:
        """Return the number of bytes buffered in this process for the peer."""
        size: int = self._stream.get_write_buffer_size()
        return size

    def ping(self) -> None:
        """Send a ping."""
        self.has_answered = False
        self._transport.send_ping()

    # --- the end -----------------------------------------------------------------------------------------------------

    def close(self, reason: ArtcafeError) -> None:
        """Close the connection with the reason's close code. May be repeated."""
        if self.is_closed:
            return
        self._events.on_error(self, reason)
        self._end(*close_codes.for_error(reason))

    def _end(self, code: int | WSCloseCode, text: bytes = b"", *, is_reply: bool = False) -> None:
        """Send a close frame after the waiting replies and the write of the agent's cursors: its next connection, which may go to
        another server, must resume at them.

        The socket stays open until the peer replies or `listener.DRAIN_S` has passed. Closing it while the peer sends would reset
        the connection, and the peer would never read the code. `is_reply`: the peer closed first.
        """
        self._finish()
        self._update_reading()
        self._events.on_closing(self)
        session = self.session
        if isinstance(session, AgentSession) and session.has_unwritten:
            _ = self._spawn(partial(self._end_written, session, code, text, is_reply))
        else:
            self._send_close(code, text, is_reply)

    async def _end_written(self, session: AgentSession, code: int | WSCloseCode, text: bytes, is_reply: bool) -> None:
        with contextlib.suppress(TimeoutError):  # without the tables it is closed all the same, and messages come again
            async with asyncio.timeout(WRITTEN_S):
                await session.write_cursors()
        if not self._stream.is_closing():
            self._send_close(code, text, is_reply)

    def _send_close(self, code: int | WSCloseCode, text: bytes, is_reply: bool) -> None:
        self._transport.send_close(code, text)  # type: ignore[arg-type]  # any code; the stub names the registered ones
        if is_reply:
            self._transport.disconnect()

    def _finish(self) -> None:
        """Send the waiting replies, then receive and deliver nothing more."""
        self.write(b"")
        self.is_closed = True
        self._wire.close()
        self.dispatcher.end()

    def abort(self) -> None:
        """Close the socket at once, with unread bytes."""
        self.is_closed = True
        self._transport.disconnect(False)

    def _spawn(self, work: Callable[[], Coroutine[None, None, None]]) -> asyncio.Task[None]:
        return self._group.create_task(self._supervise(work))

    async def _supervise(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Close this connection, and no other, after an unexpected error."""
        bind_origin(self.address)
        try:
            await work()
        except Exception:  # noqa: BLE001 (the supervisor of connections: it logs the error once and closes with Internal)
            log.exception("connection.failed")
            self.close(Internal())
