"""Messages as WebSocket text frames."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from artcafe.fabric.channel_kinds import ChannelKind
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import ChannelId, Epoch
from artcafe.rules import times
from artcafe.services.tenant_rate import Notice
from artcafe.wire import replies
from artcafe.wire.envelopes import channel_text
from artcafe.wire.replies import Gap


def text_frame(payload: bytes) -> bytes:
    """Return an unmasked WebSocket text frame, as a server sends it (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return b"%c%c%b" % (0x81, size, payload)
    if size < 65536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)


class WebSocketEncoding:
    """The gateway's encoding of messages: one text frame each."""

    __slots__ = ()

    def messages(
        self,
        channel_id: ChannelId,
        handle: str | None,
        kind: ChannelKind,
        _epoch: Epoch | None,
        messages: Sequence[StoredMessage],
    ) -> list[bytes]:
        """Return the text frame of each message. Frames have no epoch: `subscribe` has answered it."""
        return [text_frame(text) for text in kind.texts(channel_text(channel_id, handle), messages)]

    def gap(self, channel_id: ChannelId, gap: Gap, _epoch: Epoch | None) -> bytes:
        """Return the text frame of a gap push."""
        return text_frame(replies.gap(channel_id, gap))


def limits_push(notice: Notice) -> replies.LimitsPush:
    """Return the push of a notice."""
    usage = notice.usage
    resets_at = times.to_text(datetime.fromtimestamp(usage.resets_at, UTC))
    return replies.LimitsPush(notice.limit.value, usage.limit, usage.used, usage.left, resets_at, notice.percent)
