"""nats-py's client with fast paths for bulk traffic. All use of nats-py's private members is in this module and the parser.

nats-py's own paths cost, per message, 11 µs out (checks, regular expressions) and 27 µs in (a dictionary of headers, a queue, a
task): more than everything else that publishing or delivering a message costs this process. These cost 1 and 3 µs.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport

from artcafe.fabric.nats.parser import FastParser
from artcafe.rules.subjects import Subject
from artcafe.supervision import check_cancelled

_VERSION: Final = "NATS/1.0\r\n"
"""The first line of a message's headers."""


class OutgoingMessage(msgspec.Struct, frozen=True):
    """A message to send. `headers` are lines of NATS headers, each with its CRLF, and never contain text of a peer."""

    subject: Subject
    headers: str
    body: bytes

    def encoded(self, reply: str = "") -> bytes:
        """Return the message in the client protocol (docs.nats.io: PUB, HPUB)."""
        headers, body = self.headers, self.body
        if not headers:
            return f"PUB {self.subject} {reply} {len(body)}\r\n".encode() + body + b"\r\n"
        size = len(_VERSION) + len(headers) + len("\r\n")
        head = f"HPUB {self.subject} {reply} {size} {size + len(body)}\r\n{_VERSION}{headers}\r\n"
        return head.encode() + body + b"\r\n"


class IncomingMessage:
    """A received message: its data, its reply subject, and its headers as raw bytes, since few of them are read."""

    __slots__ = ("_head", "data", "reply")

    def __init__(self, data: bytes, head: bytes | None, reply: bytes = b"") -> None:
        self.data, self._head, self.reply = data, head or b"", reply

    def header(self, name: bytes) -> str:
        """Return a header's value, or an empty string."""
        _, found, rest = self._head.partition(b"\r\n%b: " % name)
        return rest.partition(b"\r\n")[0].decode() if found else ""

    def number(self, name: bytes) -> int:
        """Return a header's value as a number, or 0."""
        return int(self.header(name) or 0)

    @property
    def status(self) -> int:
        """The status in the first header line (404, 503, …), or 0."""
        return int(self._head[9:12]) if self._head[8:9] == b" " else 0

    @property
    def description(self) -> str:
        """The text after the status."""
        return self._head.partition(b"\r\n")[0][13:].decode()


FastHandler = Callable[[IncomingMessage], bool]
"""A callback for each message as it is read. Return False to fall back to nats-py, which preserves order. If it raises, the
message is dropped."""


class Endpoints(NamedTuple):
    """Both addresses and ports of a connection, and the client id given by the server."""

    client_id: int
    local: tuple[str, int]
    remote: tuple[str, int]


class PeerProof(Protocol):
    """A check of a new connection's peer against our nats-server (`server_proof.ServerProof`)."""

    async def ready(self) -> None:
        """Wait until `check` can be called. Raise `Unavailable`."""
        ...

    async def check(self, endpoints: Endpoints) -> None:
        """Raise an error of nats-py's if the connection ends elsewhere. Nothing has been sent over it yet."""
        ...


CheckPeer = Callable[[Endpoints], Awaitable[None]]


class VerifiedClient(Client):
    """A client that verifies the server before it sends: `tls://` is always TLS, and `check_peer` runs first.

    nats-py obeys the server's INFO, which arrives unencrypted: without `tls_required` in it, nats-py continues in plain text.

    It also takes a cancellation for the end of a wait of its own: in `close` and `flush`, and in each `asyncio.wait_for` of
    Python 3.11 whose result arrives at the same moment. The methods here raise such a cancellation again.
    """

    def __init__(self, check_peer: CheckPeer | None = None, on_lost: Callable[[], None] = lambda: None) -> None:
        """`on_lost` is called when the connection ends, before anything is awaited for that. It may be called again."""
        super().__init__()
        self._check_peer, self.on_lost = check_peer, on_lost

    async def connect(self, *args: Any, **options: Any) -> None:
        """Connect as nats-py does."""
        await super().connect(*args, **options)
        check_cancelled()

    async def close(self) -> None:
        """Close the connection as nats-py does."""
        await super().close()
        check_cancelled()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        """Close the connection as nats-py does, which first writes its buffer. If the connection is lost, uvloop refuses that,
        and nats-py would not end its subscriptions: the buffer is dropped. A server that hangs never reads it, so `on_lost` is
        called first."""
        self.on_lost()
        transport = self._transport
        if isinstance(transport, TcpTransport) and transport._io_writer is not None and transport._io_writer.is_closing():
            self._pending, self._pending_data_size = [], 0
        await super()._close(status, do_cbs)

    async def request(self, *args: Any, **options: Any) -> Msg:
        """Send a request as nats-py does, and return its reply."""
        reply = await super().request(*args, **options)
        check_cancelled()
        return reply

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        flushed = await super()._flush_pending(force_flush)
        check_cancelled()
        return flushed

    async def flush(self, timeout: int = 10) -> None:  # noqa: ASYNC109 - nats-py's parameter
        """Wait until the server has processed everything sent so far, as nats-py does."""
        await super().flush(timeout)
        check_cancelled()

    def endpoints(self) -> Endpoints:
        """Return the endpoints of the connection."""
        local, remote = (self._writer().get_extra_info(name)[:2] for name in ("sockname", "peername"))
        return Endpoints(self._client_id or 0, local, remote)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Handle an INFO. nats-py calls this first before it encrypts or sends anything."""
        await super()._process_info(info, initial_connection)
        if not initial_connection:
            return
        self._client_id = info.get("client_id")
        assert self._current_server is not None, "connect comes first"
        if self._current_server.uri.scheme == "tls":
            self._server_info["tls_required"] = True
        if self._check_peer is not None:
            await self._check_peer(self.endpoints())

    async def _process_connect_init(self) -> None:
        await super()._process_connect_init()
        if not isinstance(self._transport, TcpTransport):
            return
        # asyncio takes nats-py's upgraded connection for a plain one, and would log a warning each time a server closes it.
        protocol = self._writer().transport.get_protocol()
        if self._writer().get_extra_info("sslcontext") is not None and hasattr(protocol, "_over_ssl"):
            protocol._over_ssl = True

    def _writer(self) -> asyncio.StreamWriter:
        assert isinstance(self._transport, TcpTransport), "WebSocket connections to NATS are not supported"
        assert self._transport._io_writer is not None, "connect comes first"
        return self._transport._io_writer


class FastClient(VerifiedClient):
    """A client whose owner matches replies with requests."""

    def __init__(
        self,
        inbox: str,
        on_reply: Callable[[str, IncomingMessage], None],
        check_peer: CheckPeer | None = None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_reply` is called with the token and message of each reply to `inbox.{token}`; it must not raise."""
        super().__init__(check_peer, on_lost)
        self._fast_inbox, self._fast_on_reply = inbox, on_reply
        self._fast_prefix = f"{inbox}.".encode()
        self._fast_handlers: dict[int, FastHandler] = {}
        self._ps = self._fast_parser = FastParser(self, self)
        self._fast_pings = 0
        self.remote = ("", 0)
        """The address and port of the server, once it is connected."""

    async def connect(self, *args: Any, **options: Any) -> None:
        """Connect as nats-py does."""
        await super().connect(*args, **options)
        self.remote = self.endpoints().remote

    async def open_inbox(self) -> None:
        """Subscribe to the replies."""
        await self.subscribe(f"{self._fast_inbox}.*")

    def keep_unsent(self, is_kept: bool) -> None:
        """Choose whether the kernel still sends the unread rest after the connection is closed (SO_LINGER)."""
        with contextlib.suppress(OSError):  # the connection is closed already
            sock = self._writer().get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", not is_kept, 0))

    def abort(self) -> None:
        """Close the connection at once and discard its send buffer. May be repeated."""
        self._writer().transport.abort()

    async def send(self, protocol: bytes) -> None:
        """Send whole encoded messages, by the two calls at the end of nats-py's `publish`."""
        if self._fast_parser.has_received:
            self._expect()
        await self._send_command(protocol)
        await self._flush_pending()

    # --- liveness (`liveness.Liveness`) -------------------------------------------------------------------------------

    @property
    def is_expecting(self) -> bool:
        """Whether something was sent, and nothing was received since."""
        return not self._fast_parser.has_received

    @property
    def unanswered(self) -> int:
        """The number of pings since the server last sent anything."""
        return self._fast_pings if self.is_expecting else 0

    def ping(self) -> None:
        """Send a PING, without waiting for its answer."""
        writer = self._writer()
        if writer.is_closing():
            self.on_lost()
            return
        if not self.is_expecting:
            self._expect()
        self._fast_pings += 1
        self._pongs.append(asyncio.get_running_loop().create_future())  # nats-py counts the answers
        writer.write(b"PING\r\n")

    def _expect(self) -> None:
        self._fast_parser.has_received, self._fast_pings = False, 0

    async def _ping_interval(self) -> None:
        """Replace nats-py's loop of pings, one for each connection."""

    # --- messages -----------------------------------------------------------------------------------------------------

    def add_fast_path(self, subscription: Subscription, handler: FastHandler) -> None:
        """Offer the messages of a subscription to `handler` first."""
        self._fast_handlers[subscription._id] = handler

    def remove_fast_path(self, subscription: Subscription) -> None:
        """Remove the handler of an ended subscription."""
        self._fast_handlers.pop(subscription._id, None)

    def handle(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> bool:
        """Handle a message on a fast path; return False without one."""
        handler = self._fast_handlers.get(sid)
        if handler is not None and handler(IncomingMessage(data, headers, reply)):
            return True
        if subject.startswith(self._fast_prefix):
            self._fast_on_reply(subject[len(self._fast_prefix) :].decode(), IncomingMessage(data, headers))
            return True
        return False

    async def fall_back(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """Handle a message through nats-py."""
        await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]  # it accepts None, undeclared

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """Handle a message from nats-py's own parser, which takes over after any line other than a message."""
        if not self.handle(sid, subject, reply, data, headers):
            await self.fall_back(sid, subject, reply, data, headers)
