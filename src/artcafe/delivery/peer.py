"""What a door implements to have messages delivered to its connections, and the limits that every door keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from artcafe.delivery.frame_batch import FrameBatch
from artcafe.errors import ArtcafeError
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import ChannelId, Epoch
from artcafe.wire.replies import Gap

PING_S: Final = 25
"""Seconds between two checks that an idle connection still has a peer."""
MAX_SUBSCRIPTIONS: Final = 128
"""Channels that one connection may receive."""


class Encoding(Protocol):
    """How a door writes messages. A door has one instance for all its connections: each message is encoded once per instance."""

    def messages(self, channel_id: ChannelId, messages: Sequence[StoredMessage], *, is_live: bool) -> list[bytes]:
        """Return the bytes of each message, ready to be written. Messages of a `live` channel have no sequence."""
        ...


class Peer(Protocol):
    """One connection of a door. No method waits: what the peer does not take at once, the door buffers and sets `is_paused`.

    While `is_paused`, the connection is no member of any feed and gets no messages. The door takes it out of its feeds when it
    sets `is_paused`, and resumes its deliveries afterwards.
    """

    out: list[FrameBatch]
    """Batches that the current flush is about to write. Empty outside of a flush."""
    is_paused: bool
    descriptor: int | None
    """The file descriptor that may be written to directly, or None while the door buffers bytes or where there is none. The door
    calls `Feed.regroup` on each of its feeds when this changes."""

    @property
    def encoding(self) -> Encoding:
        """Return the encoding of the door."""

    def write(self, frames: bytes | memoryview) -> None:
        """Write encoded messages now, behind the replies and pushes that wait."""

    def feed_soon(self) -> None:
        """Resume the deliveries that are no members of their feed, without calling back at once."""

    def close(self, reason: ArtcafeError) -> None:
        """Close the connection for this reason."""

    def send_gap(self, channel_id: ChannelId, gap: Gap, epoch: Epoch | None = None) -> None:
        """Push a gap before any message that is written after this call. `epoch`: of the log that is read now."""

    def send_error(self, error: ArtcafeError, channels: Sequence[ChannelId] = ()) -> None:
        """Push an error that answers no command, and the channels that it concerns."""
