"""nats-py's client with short ways out and in for what comes in bulk. Whatever private part of nats-py is used is used here.

Its own ways cost, for each message, 11 µs out (checks, regular expressions) and 27 µs in (a dictionary of headers, a queue, a
task), more than everything else that publishing or delivering it costs this process; these cost 1 and 3.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport

from artcafe.fabric.nats.parser import FastParser
from artcafe.rules.subjects import Subject


class OutgoingMessage(NamedTuple):
    """A message to send. `headers` are lines as NATS has them, each with its CRLF: made here, never a peer's text."""

    subject: Subject
    headers: str
    body: bytes

    def encoded(self, reply: str = "") -> bytes:
        """The message as it goes over the wire (docs.nats.io, client protocol: PUB, HPUB)."""
        if not self.headers:
            return b"%b%b\r\n" % (f"PUB {self.subject} {reply} {len(self.body)}\r\n".encode(), self.body)
        head = f"NATS/1.0\r\n{self.headers}\r\n"
        line = f"HPUB {self.subject} {reply} {len(head)} {len(head) + len(self.body)}\r\n{head}"
        return b"%b%b\r\n" % (line.encode(), self.body)


class IncomingMessage:
    """A message that came: its data, and its headers as the bytes that they came as, since few of them are read."""

    __slots__ = ("_head", "data")

    def __init__(self, data: bytes, head: bytes | None) -> None:
        self.data, self._head = data, head or b""

    def header(self, name: bytes) -> str:
        """A header's value; empty where there is none."""
        _, found, rest = self._head.partition(b"\r\n%b: " % name)
        return rest.partition(b"\r\n")[0].decode() if found else ""

    def number(self, name: bytes) -> int:
        """A header's value as a number; 0 where there is none."""
        return int(self.header(name) or 0)

    @property
    def status(self) -> int:
        """NATS's status of an answer that carries one (404, 503, …), else 0."""
        return int(self._head[9:12]) if self._head[8:9] == b" " else 0

    @property
    def description(self) -> str:
        """What stands behind the status."""
        return self._head.partition(b"\r\n")[0][13:].decode()


FastHandler = Callable[[IncomingMessage], bool]
"""Called as a message is read. Return False to fall back to nats-py, which preserves order. Where it raises, the message is
dropped."""


class Endpoints(NamedTuple):
    """A connection's two ends, each an address and a port, and the number that the server gave it."""

    client_id: int
    local: tuple[str, int]
    remote: tuple[str, int]


class PeerProof(Protocol):
    """What makes sure that a new connection ends at our nats-server, as `fabric.nats.server_proof.ServerProof` does."""

    async def ready(self) -> None:
        """Wait until that can be done. Raises `Unavailable`."""
        ...

    async def check(self, ends: Endpoints) -> None:
        """Raise an error of nats-py's where the connection ends elsewhere. Nothing has been sent over it yet."""
        ...


CheckPeer = Callable[[Endpoints], Awaitable[None]]


class VerifiedClient(Client):
    """A client that sends nothing before it knows to whom: `tls://` is TLS whatever the server says, and `prove` comes first.

    nats-py follows the server's INFO, which comes unencrypted: one without `tls_required` made it go on in plain text.
    """

    def __init__(self, prove: CheckPeer | None = None) -> None:
        super().__init__()
        self._prove = prove

    def ends(self) -> Endpoints:
        """The ends of the connection that there is."""
        local, remote = (self._writer().get_extra_info(name)[:2] for name in ("sockname", "peername"))
        return Endpoints(self._client_id or 0, local, remote)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """What nats-py calls with an INFO, at first before it encrypts or sends anything."""
        await super()._process_info(info, initial_connection)
        if not initial_connection:
            return
        self._client_id = info.get("client_id")
        assert self._current_server is not None, "connect comes first"
        if self._current_server.uri.scheme == "tls":
            self._server_info["tls_required"] = True
        if self._prove is not None:
            await self._prove(self.ends())

    async def _process_connect_init(self) -> None:
        await super()._process_connect_init()
        if not isinstance(self._transport, TcpTransport):
            return
        # What nats-py encrypts asyncio takes for plain, and would log a warning about it each time a server ends a connection.
        protocol = self._writer().transport.get_protocol()
        if self._writer().get_extra_info("sslcontext") is not None and hasattr(protocol, "_over_ssl"):
            protocol._over_ssl = True

    def _writer(self) -> asyncio.StreamWriter:
        assert isinstance(self._transport, TcpTransport), "WebSockets are not proven"
        assert self._transport._io_writer is not None, "connect comes first"
        return self._transport._io_writer


class FastClient(VerifiedClient):
    """A client whose requests are its owner's to match with their answers."""

    def __init__(self, inbox: str, answer: Callable[[str, IncomingMessage], None], prove: CheckPeer | None = None) -> None:
        """`answer` gets what comes for `inbox.{token}`, with the token; it must not raise."""
        super().__init__(prove)
        self._short_inbox, self._short_answer = inbox, answer
        self._short_prefix = f"{inbox}.".encode()
        self._short_takes: dict[int, FastHandler] = {}
        self._ps = FastParser(self, self)

    async def open_inbox(self) -> None:
        """Begins to listen for answers."""
        await self.subscribe(f"{self._short_inbox}.*")

    def keep_unsent(self, is_kept: bool) -> None:
        """Choose whether the kernel still sends, once the connection is closed, what the server has not taken (SO_LINGER)."""
        with contextlib.suppress(OSError):  # the connection has gone already
            sock = self._writer().get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", not is_kept, 0))

    def abort(self) -> None:
        """Break the connection; what waits here to be sent is discarded. May be repeated."""
        self._writer().transport.abort()

    async def send(self, protocol: bytes) -> None:
        """Sends encoded messages, whole ones; these are the two calls that nats-py's `publish` ends with."""
        await self._send_command(protocol)
        await self._flush_pending()

    def add_fast_path(self, subscription: Subscription, take: FastHandler) -> None:
        """Has `take` offered what comes for a subscription."""
        self._short_takes[subscription._id] = take

    def remove_fast_path(self, subscription: Subscription) -> None:
        """The subscription has ended."""
        self._short_takes.pop(subscription._id, None)

    def take(self, sid: int, subject: bytes, data: bytes, headers: bytes | None) -> bool:
        """Takes a message the short way, or leaves it by False."""
        take = self._short_takes.get(sid)
        if take is not None and take(IncomingMessage(data, headers)):
            return True
        if subject.startswith(self._short_prefix):
            self._short_answer(subject[len(self._short_prefix) :].decode(), IncomingMessage(data, headers))
            return True
        return False

    async def leave(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """What the short way left, in nats-py's."""
        await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]  # it takes None, and says so not

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """What nats-py's parser calls with each message behind something that is none."""
        if not self.take(sid, subject, data, headers):
            await self.leave(sid, subject, reply, data, headers)
