"""The interface between delivery and a transport's connections, and the limits of every transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from artcafe.delivery.frame_batch import FrameBatch
from artcafe.errors import ArtcafeError
from artcafe.fabric.channel_kinds import ChannelKind
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import ChannelId, Cursor, Epoch
from artcafe.rules.plan_check import AGENT_SUBSCRIPTIONS
from artcafe.wire.replies import Gap

PING_S: Final = 25
"""Seconds between two pings of an idle connection."""
MAX_SUBSCRIPTIONS: Final = AGENT_SUBSCRIPTIONS
"""Highest number of channels on one connection."""


class Encoding(Protocol):
    """How a transport encodes messages, with one instance for all its connections: each message is encoded once per instance."""

    def messages(
        self,
        channel_id: ChannelId,
        handle: str | None,
        kind: ChannelKind,
        epoch: Epoch | None,
        messages: Sequence[StoredMessage],
    ) -> list[bytes]:
        """Return the bytes of each message, ready to be written. `kind.texts` returns the messages as JSON.

        `epoch`: of their sequences; None in a channel without a log.
        """
        ...

    def gap(self, channel_id: ChannelId, gap: Gap, epoch: Epoch | None) -> bytes:
        """Return the bytes of a gap with an end, ready to be written. `epoch`: of its sequences."""
        ...


class Peer(Protocol):
    """One connection of a transport. No method waits: the transport buffers unread bytes, and sets `is_paused` above its bound.

    While `is_paused`, the connection is no member of any feed and gets no messages. The transport takes it out of its feeds
    when it sets `is_paused`, and resumes its deliveries afterwards.
    """

    out: list[FrameBatch]
    """Batches to be written by the current flush. Empty outside of a flush."""
    is_paused: bool
    descriptor: int | None
    """The file descriptor for direct writes, or None: without one, and while the transport buffers bytes. After a change the
    transport calls `Feed.regroup` on each of the connection's feeds."""

    @property
    def encoding(self) -> Encoding:
        """Return the encoding of the transport."""

    def write(self, frames: bytes | memoryview) -> None:
        """Write encoded messages now, after waiting replies and pushes."""

    def feed_soon(self) -> None:
        """Resume every delivery outside its feed, later: the caller may be in the middle of a flush."""

    def close(self, reason: ArtcafeError) -> None:
        """Close the connection for this reason."""

    def send_gap(self, channel_id: ChannelId, gap: Gap, epoch: Epoch | None = None) -> None:
        """Push a gap, before any message written after this call. `epoch`: of the current log."""

    def send_moved(self, channel_id: ChannelId, cursor: Cursor) -> None:
        """Push the start of a delivery after a request has set its cursor, before any message written after this call."""

    def send_error(self, error: ArtcafeError, channels: Sequence[ChannelId] = ()) -> None:
        """Push an error outside any command, with the affected channels."""
