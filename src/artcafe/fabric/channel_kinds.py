"""The kinds of channels: how the messages of each `ChannelType` are published, followed and encoded.

No other module compares channel types. A new type gets its object in `KINDS`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from artcafe.fabric.channel_readers import ChannelReader, ChannelSink, LiveChannelReader
from artcafe.fabric.nats.client import OutgoingMessage
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import ChannelId, ChannelType
from artcafe.observe import metrics
from artcafe.rules import subjects
from artcafe.wire.envelopes import live_frame, message_frame, queue_frame
from artcafe.wire.replies import PublishReply


class ChannelKind(ABC):
    """What distinguishes the channels of one type. Every method raises `Unavailable` after 5 s without NATS."""

    has_log: ClassVar[bool]
    """Whether messages are stored: only then are there sequences, cursors, a backlog, gaps, history and retention."""
    has_cursors: ClassVar[bool]
    """Whether each subscription has a cursor of its own, moved by acks."""

    is_shared: ClassVar[bool] = False
    """Whether each message goes to one subscriber at a time (`work_queue`), and not to all of them."""

    @abstractmethod
    async def submit(
        self,
        tenant_fabric: TenantFabric,
        channel_id: ChannelId,
        envelope: bytes,
        message_id: str,
        dedupe_id: str | None,
        sender: str,
    ) -> asyncio.Future[PublishReply]:
        """Send a message, and return the future of its outcome."""

    @abstractmethod
    async def follow(
        self, tenant_fabric: TenantFabric, channel_id: ChannelId, sink: ChannelSink
    ) -> ChannelReader | LiveChannelReader:
        """Follow a channel for `sink`, beginning after its newest message."""

    @abstractmethod
    def texts(self, channel: bytes, messages: Sequence[StoredMessage]) -> list[bytes]:
        """Return each message as the JSON text of a push. `channel` is its `wire.envelopes.channel_text`."""


class LoggedKind(ChannelKind):
    """Channels with messages in the tenant's log: `broadcast`."""

    has_log = True
    has_cursors = True

    async def submit(
        self,
        tenant_fabric: TenantFabric,
        channel_id: ChannelId,
        envelope: bytes,
        message_id: str,
        dedupe_id: str | None,
        sender: str,
    ) -> asyncio.Future[PublishReply]:
        return tenant_fabric.writer.submit(subjects.stored(channel_id), envelope, message_id, dedupe_id, sender)

    async def follow(self, tenant_fabric: TenantFabric, channel_id: ChannelId, sink: ChannelSink) -> ChannelReader:
        await tenant_fabric.connection.wait_up()
        return await tenant_fabric.readers.follow(channel_id, sink)

    def texts(self, channel: bytes, messages: Sequence[StoredMessage]) -> list[bytes]:
        return [message_frame(channel, one.seq, one.prev, one.envelope) for one in messages]


class QueueKind(LoggedKind):
    """Channels with messages in the log whose subscribers share them. People who watch one see every message."""

    has_cursors = False
    is_shared = True

    def texts(self, channel: bytes, messages: Sequence[StoredMessage]) -> list[bytes]:
        return [
            queue_frame(channel, one.seq, one.deliveries, one.envelope)
            if one.deliveries
            else message_frame(channel, one.seq, one.prev, one.envelope)
            for one in messages
        ]


class LiveKind(ChannelKind):
    """Channels without stored messages: present subscribers get each message at most once, and keys are ignored."""

    has_log = False
    has_cursors = False

    async def submit(
        self,
        tenant_fabric: TenantFabric,
        channel_id: ChannelId,
        envelope: bytes,
        message_id: str,
        dedupe_id: str | None,
        sender: str,
    ) -> asyncio.Future[PublishReply]:
        """Send a message to the channel's present subscribers. Raises `NatsConnectionLost` if that is uncertain."""
        await tenant_fabric.connection.wait_up()
        tenant_fabric.readers.recent_live.add(channel_id, envelope)
        await tenant_fabric.connection.send(OutgoingMessage(subjects.live(channel_id), "", envelope))
        metrics.PUBLISHES.of("sent", tenant=tenant_fabric.tenant_id).add()
        sent: asyncio.Future[PublishReply] = asyncio.get_running_loop().create_future()
        sent.set_result(PublishReply(None, message_id, duplicate=False))
        return sent

    async def follow(self, tenant_fabric: TenantFabric, channel_id: ChannelId, sink: ChannelSink) -> LiveChannelReader:
        await tenant_fabric.connection.wait_up()
        return await tenant_fabric.readers.follow_live(channel_id, sink)

    def texts(self, channel: bytes, messages: Sequence[StoredMessage]) -> list[bytes]:
        return [live_frame(channel, one.envelope) for one in messages]


LOGGED: Final = LoggedKind()
LIVE: Final = LiveKind()
KINDS: Final[Mapping[ChannelType, ChannelKind]] = {
    ChannelType.BROADCAST: LOGGED,
    ChannelType.QUEUE: QueueKind(),
    ChannelType.LIVE: LIVE,
}
"""The kind of each type. A test compares the keys with `ChannelType`."""
