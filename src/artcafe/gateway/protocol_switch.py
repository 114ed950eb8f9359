"""Changing who reads a transport while it is open."""

from __future__ import annotations

import asyncio
from typing import Any, Final

_SCRATCH: Final = bytearray(64 * 1024)
"""One buffer for everything that is passed over, on all sockets."""


def switch_protocol(transport: asyncio.Transport, protocol: asyncio.BufferedProtocol) -> None:
    """Let the protocol read from here on. uvloop decides where reading begins whether it reads into a protocol's own buffer."""
    transport.pause_reading()
    transport.set_protocol(protocol)
    transport.resume_reading()


class DiscardProtocol(asyncio.BufferedProtocol):
    """Takes the place of a parser that cannot read on. Else it would keep, log and answer all that still comes."""

    __slots__ = ("_replaced",)

    def __init__(self, replaced: Any) -> None:
        self._replaced = replaced

    def get_buffer(self, _sizehint: int) -> bytearray:
        return _SCRATCH

    def buffer_updated(self, nbytes: int) -> None:
        """Nobody reads it."""

    def eof_received(self) -> bool:
        return False  # the transport closes itself

    def pause_writing(self) -> None:
        self._replaced.pause_writing()

    def resume_writing(self) -> None:
        self._replaced.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._replaced.connection_lost(exc)
