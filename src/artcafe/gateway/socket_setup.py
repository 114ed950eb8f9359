"""Options of a socket and its transport, to bound the buffers of a slow reader."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

NOTSENT_LOWAT_BYTES: Final = 64 * 1024
"""Without it the kernel buffered 3 MB before the transport noticed a slow reader (design, decision 6)."""


def set_up(stream: asyncio.Transport) -> int | None:
    """Set the options, and return the descriptor for direct writes: None with TLS, and where a socket is not a file."""
    sock = stream.get_extra_info("socket")
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)
    is_tls = stream.get_extra_info("ssl_object") is not None
    # Pause at the first buffered byte: a TLS transport calls `pause_writing` at the mark, a TCP transport above it.
    stream.set_write_buffer_limits(high=1 if is_tls else 0)
    if is_tls or os.name != "posix":
        return None
    descriptor: int = sock.fileno()
    return descriptor
