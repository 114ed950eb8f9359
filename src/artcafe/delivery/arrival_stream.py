"""A stream that says when something has arrived for an agent, in place of what has arrived. `delivery.streams` opens it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from artcafe.delivery.inbox_stream import InboxStream
from artcafe.delivery.subscriber import Subscriber
from artcafe.fabric.channel_kinds import ChannelKind
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import ChannelId, Cursor, Epoch, Subscription
from artcafe.wire.replies import Gap

PAUSE_S: Final = 0.5
"""Between two arrivals: many messages are one."""
_ARRIVED: Final = b"."


class ArrivalEncoding:
    """The encoding of all such streams: of a message only that there is one."""

    keep_alive = b""

    def messages(
        self,
        channel_id: ChannelId,
        handle: str | None,
        kind: ChannelKind,
        epoch: Epoch | None,
        messages: Sequence[StoredMessage],
    ) -> list[bytes]:
        return [_ARRIVED] * len(messages)

    def gap(self, channel_id: ChannelId, gap: Gap, epoch: Epoch | None) -> bytes:
        return _ARRIVED

    def event(self, name: str, data: bytes, id: str | None = None) -> bytes:
        return b""

    def with_ids(self, frames: bytes, id_of: Callable[[ChannelId, Epoch | None, int], str]) -> bytes:
        return frames


class _NewMessages(Subscriber):
    """Deliveries that begin after a position, or at the cursor in a channel whose cursor is of another log."""

    __slots__ = ("after",)

    after: Cursor

    def start_of(self, row: Subscription) -> Cursor:
        cursor = super().start_of(row)
        if cursor.epoch not in (None, self.after.epoch):
            return cursor
        return Cursor(epoch=self.after.epoch, seq=self.after.seq, moves=cursor.moves)


class ArrivalStream(InboxStream):
    """What arrives for an agent from now on, without its content. All that waits for a slow reader is that something has."""

    _has_arrived = False

    def make_subscriber(self) -> Subscriber:
        self._messages = _NewMessages(self._services, self, self._agent, self.deliveries, self.spawn, None, self, False)
        return self._messages

    async def begin(self, last_event_id: str | None = None) -> None:
        """Begin after the newest message. Raises `Unavailable`."""
        tenant_log = await self._services.fabric.tenant(self._agent.tenant_id).connected_log()
        state = await tenant_log.state()
        self._messages.after = Cursor() if state is None else Cursor(epoch=state.epoch, seq=state.last_seq)
        await super().begin(last_event_id)

    async def arrivals(self) -> AsyncIterator[bool]:
        """Yield True after something has arrived, at most once in `PAUSE_S`, and False after a silence (`wait_written`). It ends
        with the stream."""
        while self.reason is None:
            if self._has_arrived:
                self._has_arrived = False
                yield True
                await asyncio.sleep(PAUSE_S)
                continue
            if not await self.wait_written():
                yield False

    def write(self, frames: bytes | memoryview) -> None:
        self._has_arrived = True
        self._written.set()

    def send_gap(self, channel_id: ChannelId, gap: Gap, epoch: Epoch | None = None) -> None:
        self.write(_ARRIVED)

    def send_moved(self, channel_id: ChannelId, cursor: Cursor) -> None:
        self.write(_ARRIVED)

    def send_event(self, name: str, data: bytes, id: str | None = None) -> None:
        """Send no other event: a problem, such as channels that are not delivered, is nothing that has arrived."""

    def _add(self, events: bytes) -> None:
        self._written.set()  # The stream has ended.
