"""The socket as sessions use it, and the limits announced by `connect`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from artcafe.delivery.peer import MAX_SUBSCRIPTIONS, Peer
from artcafe.errors import ArtcafeError
from artcafe.model import ChannelId
from artcafe.wire import frames

LIMITS: Final = {
    "frame_bytes": frames.MAX_FRAME_BYTES,
    "json_depth": frames.MAX_DEPTH,
    "subscriptions": MAX_SUBSCRIPTIONS,
}


class ClientSocket(Peer, Protocol):
    """One WebSocket, with its buffers and bounds. No method waits."""

    def send(self, text: bytes) -> None:
        """Send the text of a reply or push, together with the others of this turn of the event loop."""

    def send_error(self, error: ArtcafeError, channels: Sequence[ChannelId] = (), *, id: int | None = None) -> None:
        """Send the error reply to a command, or without `id` an error push, and count it in the metrics."""

    def waiting_bytes(self) -> int:
        """Return the number of bytes buffered for the peer."""

    def adjust_in_flight(self, change: int, size: int) -> None:
        """Adjust the number of commands in flight and the bytes of their frames. Above the bounds the socket is not read."""

    def adjust_read_blocks(self, change: int) -> None:
        """Adjust the number of reasons not to read the socket."""

    def on_authenticated(self) -> None:
        """Note a successful `connect`: from here on revocations apply to the connection."""
