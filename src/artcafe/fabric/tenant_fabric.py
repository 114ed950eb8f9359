"""One tenant's connection, log and live state on this server."""

from __future__ import annotations

import asyncio
import time

from artcafe.fabric.channel_readers import ChannelReader, ChannelReaders, ChannelSink, LiveChannelReader
from artcafe.fabric.log_writer import LogWriter
from artcafe.fabric.nats.client import OutgoingMessage
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.presence_registry import PresenceRegistry
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import ChannelId, TenantId
from artcafe.rules import subjects
from artcafe.supervision import Supervisor


class TenantFabric:
    """One tenant's part of NATS: its connection, log, log writer, channel readers and presence registry.

    Methods that need NATS wait for the connection and raise `Unavailable` after 5 s without one.
    """

    def __init__(
        self, tenant_id: TenantId, connection: NatsConnection, writer: LogWriter, log: TenantLog, presence: PresenceRegistry
    ) -> None:
        self.tenant_id = tenant_id
        self.connection, self.writer, self.log, self.presence = connection, writer, log, presence
        self.readers = ChannelReaders(log)
        self.used_at = time.monotonic()
        self.leave = asyncio.Event()
        """Set to end `run`."""

    async def run(self) -> None:
        """Run the tenant's loops until `leave` is set."""
        async with asyncio.TaskGroup() as group:
            # The writer is not restarted: it has answered everything it accepted, and accepts no more. Its exception ends `run`.
            loops = ("connection", self.connection.run), ("readers", self.readers.run), ("presence", self.presence.run)
            parts = [group.create_task(Supervisor(name).keep(loop)) for name, loop in loops]
            parts.append(group.create_task(self.writer.run()))
            await self.leave.wait()
            for part in parts[1:]:
                part.cancel()
            self.connection.close()

    @property
    def is_used(self) -> bool:
        """Whether this server follows a channel or the presence of the tenant, or holds a connection of one of its agents."""
        return len(self.readers) > 0 or len(self.presence) > 0 or self.presence.is_watched

    async def connected_log(self) -> TenantLog:
        """Return the log once NATS is connected."""
        await self.connection.wait_up()
        return self.log

    async def follow(
        self, channel_id: ChannelId, sink: ChannelSink, *, is_live: bool = False
    ) -> ChannelReader | LiveChannelReader:
        """Follow a channel for `sink`, beginning after its newest message. `is_live`: nothing of the channel is stored."""
        await self.connection.wait_up()
        follow = self.readers.follow_live if is_live else self.readers.follow
        return await follow(channel_id, sink)

    async def publish_live(self, channel_id: ChannelId, envelope: bytes) -> None:
        """Send a message to a channel's current subscribers, at most once. Raise `NatsConnectionLost` if that is uncertain."""
        await self.connection.wait_up()
        await self.connection.send(OutgoingMessage(subjects.live(channel_id), "", envelope))
