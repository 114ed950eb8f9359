"""uvicorn's HTTP protocol, bounded: deadlines for heads and for reading answers, open connections, strict heads, own errors."""

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
from artcafe.observe.logs import Repeated, log
from artcafe.rest import problems
from artcafe.rest.headers import of_every_answer
from artcafe.rest.heads import BadHead, StrictBuffer
from artcafe.rules.connections import LINGER_BYTES, LINGER_S, CountedConnection, OpenConnections
from artcafe.rules.ids import new_id

_LONGEST_PROBLEM: Final = 200


class _UvicornLog(logging.Logger):
    """What uvicorn says of a connection. Its warnings are about what peers send, which `_not_http` counts."""

    def warning(self, msg: object, *_args: object, **_more: Any) -> None:
        log.debug("rest.remark", problem=str(msg))


_uvicorn_log: Final = _UvicornLog("uvicorn.error", logging.WARNING)
_uvicorn_log.parent = logging.getLogger("uvicorn.error")
_not_http: Final = Repeated("rest.not_http")
_refused: Final = Repeated("rest.connection_refused")


class DeadlineProtocol(H11Protocol):
    """Closes a connection whose request line and headers are not complete 10 s after it was opened or they began, and one whose
    peer takes no byte of an answer for 10 s. Refuses a connection that is one too many, and heads that `heads` refuses.

    Between two requests uvicorn's own `timeout_keep_alive` counts; a body's deadline is `rest.bodies`'.
    """

    head_deadline_s: ClassVar[float] = 10.0
    spare_deadline_s: ClassVar[float] = 2.0
    answer_deadline_s: ClassVar[float] = 10.0
    _head_timer: asyncio.TimerHandle | None = None
    _entry: CountedConnection | None = None
    _is_lingering = False
    _discarded = 0
    """Bytes of a connection that was refused."""

    def __init__(self, *args: Any, connections: OpenConnections | None = None, **more: Any) -> None:
        """Without `connections`, any number may be open."""
        super().__init__(*args, **more)
        self._connections = connections or OpenConnections()
        self.conn._receive_buffer = StrictBuffer()
        self.logger = _uvicorn_log

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it too.
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; elsewhere the system's own patience is what there is
            # The kernel's, since it knows of every byte; it counts while the peer's window is closed too (tcp(7)).
            connected = transport.get_extra_info("socket")
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.answer_deadline_s * 1000))
        peer = self.client[0] if self.client else None
        try:
            self._entry = self._connections.enter(peer, may_use_spare=True)
        except ArtcafeError as error:
            _refused.warn(address=peer, problem=str(error))
            self._answer(problems.answer(error, new_id("req")))
            self._linger()
            return
        if self._entry.is_spare:
            self.app_state = {**self.app_state, "is_spare": True}
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if self._entry is None:  # refused, and already answered
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
        """Answer what h11 could not read, in place of uvicorn's plain text. uvicorn calls it while it handles the exception."""
        cause = sys.exception()
        error = cause.error if isinstance(cause, BadHead) else BadRequest(str(cause or msg)[:_LONGEST_PROBLEM])
        _not_http.warn(address=self.client[0] if self.client else None, problem=str(error))
        self._refuse(error)

    def _refuse(self, error: ArtcafeError) -> None:
        """Answer with the error where a whole answer is still possible, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._answer(problems.answer(error, new_id("req")))
        self.transport.close()

    def _linger(self) -> None:
        """Close the connection once the peer has read its answer, as far as there is room for that."""
        self._is_lingering = self._connections.linger()
        if not self._is_lingering:
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    def _answer(self, response: Response) -> None:
        headers = [*response.raw_headers, *of_every_answer(self.scheme), (b"connection", b"close")]
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
