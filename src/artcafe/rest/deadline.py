"""uvicorn's HTTP protocol with limits: timeouts for heads and responses, a connection limit, strict heads, and JSON errors."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from typing import Any, ClassVar, Final

import h11
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from artcafe.errors import ArtcafeError, BadRequest
from artcafe.observe import metrics
from artcafe.observe.logs import ThrottledEvent, log
from artcafe.rest import problems
from artcafe.rest.headers import response_headers
from artcafe.rest.heads import BadHead, StrictBuffer
from artcafe.rules.ids import new_id
from artcafe.rules.open_connections import LINGER_BYTES, LINGER_S, CountedConnection, OpenConnections

_LONGEST_PROBLEM: Final = 200


class _UvicornLog(logging.Logger):
    """uvicorn's logger for connections, with warnings as debug lines: they concern input of peers, counted by `_not_http`."""

    def warning(self, msg: object, *_args: object, **_more: Any) -> None:
        log.debug("rest.remark", problem=str(msg))


_uvicorn_log: Final = _UvicornLog("uvicorn.error", logging.WARNING)
_uvicorn_log.parent = logging.getLogger("uvicorn.error")
_not_http: Final = ThrottledEvent("rest.not_http")
_refused: Final = ThrottledEvent("rest.connection_refused")


class DeadlineProtocol(H11Protocol):
    """HTTP protocol with timeouts, a connection limit and strict heads.

    It closes a connection if a head is not complete 10 s after it started or the connection opened, or if the peer reads no byte
    of a response for 10 s. It refuses connections above the limit, and heads refused by `heads`. Between requests uvicorn's
    `timeout_keep_alive` applies; `rest.bodies` has the timeout of a body.
    """

    head_deadline_s: ClassVar[float] = 10.0
    spare_deadline_s: ClassVar[float] = 2.0
    answer_deadline_s: ClassVar[float] = 10.0
    _head_timer: asyncio.TimerHandle | None = None
    _entry: CountedConnection | None = None
    _is_lingering = False
    _discarded = 0
    """Discarded bytes of a refused connection."""

    def __init__(self, *args: Any, connections: OpenConnections | None = None, **more: Any) -> None:
        """Limit open connections by `connections`; None for no limit."""
        super().__init__(*args, **more)
        self._connections = connections or OpenConnections()
        self.conn._receive_buffer = StrictBuffer()
        self.logger = _uvicorn_log

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it too.
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux only; other systems use their default timeout.
            # The kernel's timer sees every acknowledged byte, also while the peer's window is closed (tcp(7)).
            connected = transport.get_extra_info("socket")
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.answer_deadline_s * 1000))
        peer = self.client[0] if self.client else None
        try:
            self._entry = self._connections.enter(peer, may_use_spare=True)
        except ArtcafeError as error:
            _refused.warn(address=peer, problem=str(error))
            metrics.count_error(error)
            self._answer(problems.answer(error, new_id("req")))
            self._linger()
            return
        self.app_state = {**self.app_state, "transport": transport}
        if self._entry.is_spare:
            self.app_state["is_spare"] = True
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if self._entry is None:  # The connection was refused and answered.
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.transport.abort()
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._await_head()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self._entry is not None:
            self._connections.leave(self._entry)
        elif self._is_lingering:
            self._connections.stop_lingering()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Send an error for a request that h11 cannot parse. uvicorn calls this inside its exception handler."""
        cause = sys.exception()
        error = cause.error if isinstance(cause, BadHead) else BadRequest(str(cause or msg)[:_LONGEST_PROBLEM])
        _not_http.warn(address=self.client[0] if self.client else None, problem=str(error))
        self._refuse(error)

    def _refuse(self, error: ArtcafeError) -> None:
        """Send the error if no response has started, and close the connection."""
        metrics.count_error(error)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._answer(problems.answer(error, new_id("req")))
        self.transport.close()

    def _linger(self) -> None:
        """Close the connection after the peer had time to read the response, or at once if too many connections linger."""
        self._is_lingering = self._connections.try_linger()
        if not self._is_lingering:
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    def _answer(self, response: Response) -> None:
        headers = [*response.raw_headers, *response_headers(self.scheme), (b"connection", b"close")]
        events = (
            h11.Response(status_code=response.status_code, headers=headers),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        )
        for event in events:
            self.transport.write(self.conn.send(event) or b"")

    def _await_head(self) -> None:
        if self._head_timer is None:
            is_spare = self._entry is not None and self._entry.is_spare
            deadline_s = self.spare_deadline_s if is_spare else self.head_deadline_s
            self._head_timer = self.loop.call_later(deadline_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
