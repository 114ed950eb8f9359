"""Replacing the protocol of an open transport."""

from __future__ import annotations

import asyncio
from typing import Any, Final

_SCRATCH: Final = bytearray(64 * 1024)
"""One buffer for all discarded bytes of all sockets."""


def switch_protocol(transport: asyncio.Transport, protocol: asyncio.BufferedProtocol) -> None:
    """Have the protocol read from here on. Reading is restarted: uvloop looks only then whether a protocol has its own buffer."""
    transport.pause_reading()
    transport.set_protocol(protocol)
    transport.resume_reading()


class DiscardProtocol(asyncio.BufferedProtocol):
    """Discards everything after an unparsable frame. The parser would buffer, log and answer all of it."""

    __slots__ = ("_replaced",)

    def __init__(self, replaced: Any) -> None:
        """`replaced`: the parser. It still writes, and handles the end of the connection."""
        self._replaced = replaced

    def get_buffer(self, _sizehint: int) -> bytearray:
        """Return the shared buffer."""
        return _SCRATCH

    def buffer_updated(self, nbytes: int) -> None:
        """Discard the bytes."""

    def eof_received(self) -> bool:
        """Return False: the transport closes itself."""
        return False

    def pause_writing(self) -> None:
        """Pass on."""
        self._replaced.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self._replaced.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on."""
        self._replaced.connection_lost(exc)
