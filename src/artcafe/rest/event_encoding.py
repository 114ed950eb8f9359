"""Messages as server-sent events, in the format of the HTML standard, by FastAPI's own formatter.

A message is encoded once for all streams. Its id differs from stream to stream: until a stream writes it, a line with its
position stands before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from artcafe.fabric.channel_kinds import ChannelKind
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import ChannelId, Epoch, Seq
from artcafe.wire import replies
from artcafe.wire.envelopes import channel_text
from artcafe.wire.replies import Gap

IdOf = Callable[[ChannelId, Epoch | None, Seq], str]

_END = b"\n\n"
"""The end of every event, and nowhere in one: each line of data begins with its field's name."""


class ServerSentEvents:
    """The encoding of all streams. Events are `message`, `gap` and those of `delivery.event_stream`."""

    keep_alive = KEEPALIVE_COMMENT

    def messages(
        self,
        channel_id: ChannelId,
        handle: str | None,
        kind: ChannelKind,
        epoch: Epoch | None,
        messages: Sequence[StoredMessage],
    ) -> list[bytes]:
        """Return an event for each message, with its position. One of a channel without a log has none, and so no id."""
        texts = kind.texts(channel_text(channel_id, handle), messages)
        positions = (_position(channel_id, epoch, one.seq) if kind.has_log else b"\n" for one in messages)
        return [position + self.event("message", replies.content(text)) for position, text in zip(positions, texts, strict=True)]

    def gap(self, channel_id: ChannelId, gap: Gap, epoch: Epoch | None) -> bytes:
        """Return the event of a gap, with the position of its end."""
        assert gap.to is not None, "only a stream knows where the next message is"
        return _position(channel_id, epoch, gap.to) + self.event("gap", replies.content(replies.gap(channel_id, gap)))

    def event(self, name: str, data: bytes, id: str | None = None) -> bytes:
        """Return one event with this JSON text, whose lines the format divides."""
        return format_sse_event(event=name, data_str=data.decode(), id=id)

    def with_ids(self, frames: bytes, id_of: IdOf) -> bytes:
        """Return messages and gaps with their ids instead of their positions."""
        return b"".join(_with_ids(frames, id_of))


def _with_ids(frames: bytes, id_of: IdOf) -> Iterator[bytes]:
    for frame in frames.split(_END)[:-1]:
        position, _, event = frame.partition(b"\n")
        yield event
        if position:
            channel, seq, epoch = position.decode().rsplit(" ", 2)
            yield b"\nid: " + id_of(ChannelId(channel), Epoch(epoch) if epoch else None, int(seq)).encode()
        yield _END


def _position(channel_id: ChannelId, epoch: Epoch | None, seq: Seq) -> bytes:
    return f"{channel_id} {seq} {epoch or ''}\n".encode()
