"""The listener of `/metrics`, apart from the public ones: it knows the metrics and nothing else of the server.

It is small and separate because it also runs in the supervisor of several server processes, which does not import FastAPI. Heads
are parsed as strictly as REST's, by the same code.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import h11

from artcafe.errors import Overloaded
from artcafe.observe.exposition import CONTENT_TYPE
from artcafe.observe.logs import ThrottledEvent
from artcafe.rest.heads import BadHead, StrictBuffer
from artcafe.rules.open_connections import CountedConnection, OpenConnections

PATH: Final = "/metrics"
MAX_CONNECTIONS: Final = 16
"""Open connections; further ones are closed at once. Each ends after one response."""
DEADLINE_S: Final = 5.0
"""Longest time of a connection, from its opening until the peer has read the response."""
REUSE_S: Final = 0.1
"""A response is sent again within this time: rendering takes the event loop a millisecond or more, at any rate of scrapes."""

_TEXT: Final = "text/plain; charset=utf-8"


class MetricsListener:
    """Serves the metrics on a listening socket."""

    def __init__(self, listener: socket.socket, render: Callable[[], bytes], *, deadline_s: float = DEADLINE_S) -> None:
        """`render` returns the current metrics in Prometheus's text format."""
        self._listener, self._render, self.deadline_s = listener, render, deadline_s
        self.connections = OpenConnections(most=MAX_CONNECTIONS)
        self.open: set[_Exchange] = set()
        self.not_http = ThrottledEvent("metrics.not_http")
        self._text = b""
        self._rendered_at = float("-inf")

    def text(self) -> bytes:
        """Return the metrics, at most `REUSE_S` old."""
        now = time.monotonic()
        if now - self._rendered_at > REUSE_S:
            self._text, self._rendered_at = self._render(), now
        return self._text

    async def run(self) -> None:
        """Serve until cancelled; then close the listener and every connection."""
        server = await asyncio.get_running_loop().create_server(lambda: _Exchange(self), sock=self._listener)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            for exchange in list(self.open):
                exchange.abort()


class _Exchange(asyncio.Protocol):
    """One connection: a request, its response, and the end."""

    def __init__(self, owner: MetricsListener) -> None:
        self._owner = owner
        self._http = h11.Connection(h11.SERVER)
        self._http._receive_buffer = StrictBuffer()
        self._counted: CountedConnection | None = None
        self._is_answered = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a TCP server passes this type
        """Start the deadline, or close the connection if too many are open."""
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(self._owner.deadline_s, transport.abort)
        self._owner.open.add(self)
        try:
            self._counted = self._owner.connections.enter(None)
        except Overloaded:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Answer once the head is complete. The rest of the input is ignored."""
        if self._is_answered or self._counted is None:
            return
        self._http.receive_data(data)
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as exc:
            peer = self._transport.get_extra_info("peername")
            self._owner.not_http.warn(address=peer[0] if peer else None, problem=str(exc))
            status = exc.error.status if isinstance(exc, BadHead) else exc.error_status_hint
            self._answer(HTTPStatus(status), f"{exc}\n".encode())
            return
        if isinstance(event, h11.Request):
            self._respond(event)

    def _respond(self, request: h11.Request) -> None:
        path = request.target.partition(b"?")[0]
        if path != PATH.encode():
            self._answer(HTTPStatus.NOT_FOUND, f"This listener has {PATH} only.\n".encode())
        elif request.method not in {b"GET", b"HEAD"}:
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED, b"Use GET.\n", ("Allow", "GET, HEAD"))
        else:
            self._answer(HTTPStatus.OK, self._owner.text(), content_type=CONTENT_TYPE)

    def _answer(self, status: HTTPStatus, body: bytes, *more: tuple[str, str], content_type: str = _TEXT) -> None:
        self._is_answered = True
        headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Connection", "close"),
            *more,
        ]
        head = h11.Response(status_code=status.value, reason=status.phrase.encode(), headers=headers)
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self._transport.write(self._http.send(event) or b"")  # h11 omits the body of a response to HEAD
        self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection's place."""
        self._timer.cancel()
        self._owner.open.discard(self)
        if self._counted is not None:
            self._owner.connections.leave(self._counted)
