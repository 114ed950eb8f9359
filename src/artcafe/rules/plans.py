"""The limits of the plans, and the limits of a tenant. The stores do the counting."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from artcafe.errors import Invalid
from artcafe.model import Channel, Tenant


class Limit(StrEnum):
    """A number set by a tenant's plan; the value is its name in the `limits` of the tenant's row."""

    AGENTS = "agents"
    CHANNELS = "channels"
    MEMBERS = "members"
    RETENTION_S = "retention_s"
    """The maximum age of a message in seconds; a channel may have less."""
    STORAGE_BYTES = "storage_bytes"
    """The disk space for all messages of the tenant; publishes are refused when it is full."""
    CONNECTIONS = "connections"
    """Sockets of the tenant's agents on one server, at about 10 KB of its memory each."""
    AGENT_CONNECTIONS = "agent_connections"
    """Sockets of one agent, so that a runaway agent leaves room for the others."""


DEFAULT_PLAN: Final = "free"
PLANS: Final[Mapping[str, Mapping[Limit, int]]] = {
    DEFAULT_PLAN: {
        Limit.AGENTS: 100,
        Limit.CHANNELS: 100,
        Limit.MEMBERS: 100,
        Limit.RETENTION_S: 30 * 24 * 3600,
        Limit.STORAGE_BYTES: 10 << 30,
        Limit.CONNECTIONS: 2000,
        Limit.AGENT_CONNECTIONS: 1000,
    },
}


def limit_of(tenant: Tenant, limit: Limit) -> int:
    """Return the tenant's limit: from its row, otherwise from its plan. An unknown plan counts as the free one."""
    own = tenant.limits.get(limit.value)
    return own if own is not None else PLANS.get(tenant.plan, PLANS[DEFAULT_PLAN])[limit]


def check_retention(seconds: int, tenant: Tenant) -> int:
    """Return the retention of a channel in seconds. Raises Invalid if the tenant's plan does not allow it."""
    most = limit_of(tenant, Limit.RETENTION_S)
    if not 1 <= seconds <= most:
        raise Invalid("retention_s", f"must be from 1 to {most}, the most that this tenant's plan keeps; null for just that")
    return seconds


def retention_of(channel: Channel, tenant: Tenant) -> int:
    """Return the retention of the channel in seconds: its own setting, unless the plan now allows less."""
    most = limit_of(tenant, Limit.RETENTION_S)
    return most if channel.retention_s is None else min(channel.retention_s, most)
