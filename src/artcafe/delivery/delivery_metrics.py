"""Counts deliveries: once for each flush, however many channels and subscribers it has."""

from __future__ import annotations

import time
from collections.abc import Mapping

from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import TenantId
from artcafe.observe import metrics

_lag = metrics.DELIVERY_LAG.of()
_all = metrics.DELIVERIES.of()


def count_flush(deliveries: Mapping[TenantId, int], oldest: StoredMessage | None) -> None:
    """Count the deliveries of each tenant in one flush, and the age of its oldest stored message."""
    total = sum(deliveries.values())
    if not total:
        return
    if metrics.CELLS.tenants:
        for tenant_id, count in deliveries.items():
            count_deliveries(tenant_id, count)
    else:
        _all.add(total)
    stored_at = None if oldest is None else oldest.stored_at()
    if stored_at is not None:
        _lag.observe(time.time() - stored_at, total)  # NATS's clock is a wall clock too


def count_deliveries(tenant_id: TenantId, deliveries: int) -> None:
    """Count messages written to sockets of the tenant."""
    metrics.DELIVERIES.of(tenant=tenant_id).add(deliveries)
