"""Counts what is delivered: once for each flush and channel, however many subscribers it has."""

from __future__ import annotations

import time
from collections.abc import Sequence

from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import TenantId
from artcafe.observe import metrics

_lag = metrics.DELIVERY_LAG.of()


def count_flush(tenant_id: TenantId, messages: Sequence[StoredMessage], deliveries: int) -> None:
    """Count the deliveries of a channel's messages in one flush, and the age of the oldest of them."""
    if not deliveries:
        return
    count_deliveries(tenant_id, deliveries)
    stored_at = messages[0].stored_at()
    if stored_at is not None:
        _lag.observe(time.time() - stored_at, deliveries)  # NATS's clock is a wall clock too


def count_deliveries(tenant_id: TenantId, deliveries: int) -> None:
    """Count messages written to sockets of the tenant."""
    metrics.DELIVERIES.of(tenant=tenant_id).add(deliveries)
