"""The plans' limits as data, and the limits that hold for a tenant. The store counts; this module only says how much."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from artcafe.errors import Invalid
from artcafe.model import Channel, Tenant


class Limit(StrEnum):
    """A number that a tenant's plan sets, by the name it has in the `limits` of the tenant's row."""

    AGENTS = "agents"
    CHANNELS = "channels"
    MEMBERS = "members"
    RETENTION_S = "retention_s"
    """The age at which messages are removed at the latest, in seconds; a channel may have less."""
    STORAGE_BYTES = "storage_bytes"
    """What the tenant's messages may take on disk together; when it is full, publishes are refused."""
    CONNECTIONS = "connections"
    """Sockets of the tenant's agents on one server, at some 10 KB of its memory each."""
    AGENT_CONNECTIONS = "agent_connections"
    """Those of one agent, so that one that runs wild leaves room for the others."""


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
    """The tenant's limit: the one in its row, else its plan's. A plan that this version does not know counts as the free one."""
    own = tenant.limits.get(limit.value)
    return own if own is not None else PLANS.get(tenant.plan, PLANS[DEFAULT_PLAN])[limit]


def check_retention(seconds: int, tenant: Tenant) -> int:
    """How long a channel of the tenant shall keep its messages. Raises Invalid where the plan does not let it."""
    most = limit_of(tenant, Limit.RETENTION_S)
    if not 1 <= seconds <= most:
        raise Invalid("retention_s", f"must be from 1 to {most}, the most that this tenant's plan keeps; null for just that")
    return seconds


def retention_of(channel: Channel, tenant: Tenant) -> int:
    """How many seconds the channel keeps its messages: its own choice, unless the plan has come to allow less."""
    most = limit_of(tenant, Limit.RETENTION_S)
    return most if channel.retention_s is None else min(channel.retention_s, most)
