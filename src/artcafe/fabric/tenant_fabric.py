"""One tenant's part of NATS on this server."""

from __future__ import annotations

import asyncio
import time

from artcafe.fabric.channel_readers import ChannelReaders
from artcafe.fabric.log_writer import LogWriter
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.presence_registry import PresenceRegistry
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import TenantId
from artcafe.supervision import Supervisor


class TenantFabric:
    """One tenant's part of NATS on this server: its connection, its log, the one writer, the followed channels, who is there."""

    def __init__(
        self, tenant_id: TenantId, connection: NatsConnection, writer: LogWriter, log: TenantLog, presence: PresenceRegistry
    ) -> None:
        self.tenant_id = tenant_id
        self.connection, self.writer, self.log, self.presence = connection, writer, log, presence
        self.readers = ChannelReaders(log)
        self.used_at = time.monotonic()
        self.leave = asyncio.Event()

    async def run(self) -> None:
        """Serves the tenant until told to leave."""
        async with asyncio.TaskGroup() as group:
            # The writer is not started again: what it had taken is answered, and it takes no more. Its end is the room's.
            loops = ("link", self.connection.run), ("tail", self.readers.run), ("roster", self.presence.run)
            parts = [group.create_task(Supervisor(name).keep(loop)) for name, loop in loops]
            parts.append(group.create_task(self.writer.run()))
            await self.leave.wait()
            for part in parts[1:]:
                part.cancel()
            self.connection.close()

    @property
    def is_used(self) -> bool:
        """Whether somebody follows a channel of the tenant here or its presence, or an agent of it is connected here."""
        return len(self.readers) > 0 or len(self.presence) > 0 or self.presence.is_watched
