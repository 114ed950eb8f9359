"""Sets the gauges of a server process every few seconds. Their values are lengths and counts that the server keeps anyway."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from artcafe.assembly import Services
from artcafe.errors import OurFault
from artcafe.gateway.listener import Gateway
from artcafe.model import TenantId
from artcafe.observe import metrics
from artcafe.observe.logs import log
from artcafe.observe.metric_types import Gauge
from artcafe.rules.open_connections import OpenConnections
from artcafe.tables.engine.port import Permissions

SAMPLE_S: Final = 2.0
"""A sample takes 0.2 µs for each channel that is followed."""
NATS_S: Final = 10.0
"""How often NATS is asked for its use. It counts all streams for an answer."""
NATS_WAIT_S: Final = 1.0
"""How long the NATS servers may take to answer."""


class Sampler:
    """The gauges of one server process."""

    def __init__(self, services: Services, gateway: Gateway, connections: OpenConnections, permissions: Permissions) -> None:
        """`connections`: of both listeners. `permissions`: those on the tables."""
        self._services, self._gateway, self._connections, self._permissions = services, gateway, connections, permissions

    async def run(self) -> None:
        """Set the gauges every `SAMPLE_S`, until cancelled."""
        while True:
            self.sample()
            await asyncio.sleep(SAMPLE_S)

    def sample(self) -> None:
        """Set every gauge but those of NATS's own figures."""
        services = self._services
        metrics.CONNECTIONS.of().set(self._connections.count)
        metrics.SOCKETS_CONNECTING.of().set(self._gateway.unauthenticated)
        streams = services.streams.by_tenant()
        _set_by_tenant(metrics.STREAMS, streams)
        _set_by_tenant(metrics.SOCKETS, services.connections.by_tenant() - streams)
        _set_by_tenant(metrics.DELIVERIES_BEHIND, services.hub.behind_by_tenant())
        _set_by_tenant(metrics.QUEUE_HELD, services.queue_hub.held_by_tenant())
        metrics.PULLS_WAITING.of().set(len(services.pulls.waits))
        _set_by_tenant(metrics.REQUESTS_PENDING, services.requests.by_tenant())
        metrics.CHANNEL_FEEDS.of().set(len(services.hub))
        tenants = services.fabric.open_tenants()
        metrics.OPEN_TENANTS.of().set(len(tenants))
        metrics.PUBLISHES_QUEUED.of().set(sum(tenant.writer.queued for tenant in tenants))
        metrics.NATS_UP.of().set(services.fabric.is_up)
        metrics.TABLE_PERMISSIONS_DENIED.of().set(len(self._permissions.denied))

    async def run_nats(self) -> None:
        """Ask NATS for its use every `NATS_S`, until cancelled. Without an answer, no server counts as up."""
        while True:
            try:
                use = await self._services.fabric.jetstream_use(NATS_WAIT_S)
            except OurFault as exc:
                log.debug("metrics.nats_unknown", error=repr(exc))
                metrics.NATS_SERVERS.of().set(0)
            else:
                metrics.NATS_SERVERS.of().set(use.servers)
                if use.servers:
                    metrics.NATS_STREAMS.of().set(use.streams)
                    metrics.NATS_MESSAGES.of().set(use.messages)
                    metrics.NATS_BYTES.of().set(use.stored_bytes)
            await asyncio.sleep(NATS_S)


def _set_by_tenant(gauge: Gauge, counts: Counter[TenantId]) -> None:
    """Set a gauge for each named tenant, and for all others together."""
    named = {tenant: counts[TenantId(tenant)] for tenant in metrics.CELLS.tenants}
    for tenant, count in named.items():
        gauge.of(tenant=tenant).set(count)
    gauge.of().set(counts.total() - sum(named.values()))
