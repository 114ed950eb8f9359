"""One tenant's connection, log and live state on this server."""

from __future__ import annotations

import asyncio
import time

from artcafe.fabric.channel_readers import ChannelReaders
from artcafe.fabric.log_writer import LogWriter
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.outcome_exchange import OutcomeExchange
from artcafe.fabric.position_exchange import PositionExchange
from artcafe.fabric.presence_registry import PresenceRegistry
from artcafe.fabric.request_exchange import RequestExchange
from artcafe.fabric.scheduled_messages import ScheduledMessages
from artcafe.fabric.tenant_log import TenantLog
from artcafe.fabric.work_queue import WorkQueue
from artcafe.model import TenantId
from artcafe.supervision import Supervisor


class TenantFabric:
    """One tenant's part of NATS: its connection, log, log writer, channel readers, presence registry and requests.

    Methods that need NATS wait for the connection and raise `Unavailable` after 5 s without one.
    """

    def __init__(
        self,
        tenant_id: TenantId,
        connection: NatsConnection,
        writer: LogWriter,
        log: TenantLog,
        presence: PresenceRegistry,
        requests: RequestExchange,
        positions: PositionExchange,
        outcomes: OutcomeExchange,
    ) -> None:
        self.tenant_id = tenant_id
        self.connection, self.writer, self.log, self.presence, self.requests = connection, writer, log, presence, requests
        self.readers = ChannelReaders(log)
        self.scheduled = ScheduledMessages(log)
        self.work_queues: set[WorkQueue] = set()
        """The queue channels with subscribers on this server."""
        self.positions, self.outcomes = positions, outcomes
        self.used_at = time.monotonic()
        self.is_uncounted = False
        """Whether this server's meter has work here. The tenant stays open meanwhile, so that nothing must be read again."""
        self.leave = asyncio.Event()
        """Set to end `run`."""

    async def run(self) -> None:
        """Run the tenant's loops until `leave` is set."""
        async with asyncio.TaskGroup() as group:
            # The writer is not restarted: it has answered everything it accepted, and accepts no more. Its exception ends `run`.
            loops = (
                ("connection", self.connection.run),
                ("readers", self.readers.run),
                ("presence", self.presence.run),
                ("requests", self.requests.run),
                ("positions", self.positions.run),
                ("outcomes", self.outcomes.run),
            )
            parts = [group.create_task(Supervisor(name).keep(loop)) for name, loop in loops]
            parts.append(group.create_task(self.writer.run()))
            await self.leave.wait()
            for part in parts[1:]:
                part.cancel()
            self.connection.close()

    @property
    def is_used(self) -> bool:
        """Whether this server follows a channel or the presence of the tenant, holds a connection of one of its agents, stores
        one of its messages, or has messages to meter."""
        is_followed = len(self.readers) > 0 or bool(self.work_queues)
        is_present = len(self.presence) > 0 or self.presence.is_watched
        return is_followed or is_present or self.is_uncounted or not self.writer.is_idle

    async def connected_log(self) -> TenantLog:
        """Return the log once NATS is connected."""
        await self.connection.wait_up()
        return self.log
