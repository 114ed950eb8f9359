"""Plans as data: a catalogue, and the limits that a tenant has by its plan and its own row. The services do the counting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from artcafe.errors import Invalid, LimitExceeded
from artcafe.model import Channel, Tenant
from artcafe.rules import fields


class Limit(StrEnum):
    """A number set by a tenant's plan; the value is its name in the catalogue, and in the `limits` of the tenant's row."""

    AGENTS = "agents"
    """Agents of the tenant, connected or not."""
    CHANNELS = "channels"
    MEMBERS = "members"
    CONNECTIONS = "connections"
    """Open sockets of the tenant's agents and people, at about 10 KB of a server's memory each."""
    AGENT_CONNECTIONS = "agent_connections"
    """Open sockets of one agent or person, so that a runaway agent leaves room for the others."""
    AGENT_SUBSCRIPTIONS = "agent_subscriptions"
    """Subscriptions of one agent, active or paused."""
    MESSAGES_A_MINUTE = "messages_a_minute"
    """Publishes accepted from the tenant in a minute."""
    MESSAGES_A_MONTH = "messages_a_month"
    """Messages stored in a calendar month of UTC."""
    MESSAGE_BYTES = "message_bytes"
    """The size of a message's `data`."""
    STORAGE_BYTES = "storage_bytes"
    """The disk space for all messages of the tenant; publishes are refused when it is full."""
    RETENTION_S = "retention_s"
    """The maximum age of a message in seconds; a channel may have less."""
    API_CALLS_A_MINUTE = "api_calls_a_minute"
    """REST requests of the tenant's people and agents in a minute."""
    HOPS = "hops"
    """The length of a chain of messages that answer each other."""
    CHAIN_MESSAGES = "chain_messages"
    """All messages of such a chain, with its branches."""


UNLIMITED: Final = 2**53
"""The number of a limit that a plan does not set: no count reaches it, so comparisons need no special case, and it is the largest
number that is exact as JSON in every language. The server's own limits apply beside it."""

DEFAULT_PLAN: Final = "free"
"""The plan of rows that name none (an older system's)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan of the catalogue. `limits` has a number for every `Limit`."""

    name: str
    title: str
    description: str
    self_serve: bool
    """Whether a tenant's owner may choose the plan; an operator may give any."""
    limits: Mapping[Limit, int]


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """All limits of a tenant. Those that every publish compares are attributes too: the hash of an enum's member costs 0.1 µs."""

    numbers: Mapping[Limit, int]
    message_bytes: int
    """Never above the protocol's own limit."""

    def __getitem__(self, limit: Limit) -> int:
        return self.numbers[limit]


@dataclass(frozen=True, slots=True)
class Plans:
    """The catalogue of an installation. `default` is the plan of new tenants, and of rows whose plan is not in the catalogue."""

    plans: Mapping[str, Plan]
    default: str

    @classmethod
    def of(cls, *plans: Plan, default: str | None = None) -> Plans:
        """Return a catalogue of these plans; by default, the first one is the default plan."""
        return cls(MappingProxyType({plan.name: plan for plan in plans}), default or plans[0].name)

    def __contains__(self, name: object) -> bool:
        return name in self.plans

    def __iter__(self) -> Iterator[Plan]:
        return iter(self.plans.values())

    def plan_of(self, tenant: Tenant) -> Plan:
        """Return the plan that applies to the tenant: the one its row names, or the default one if that is unknown."""
        return self.plans.get(tenant.plan) or self.plans[self.default]

    def limit_of(self, tenant: Tenant | None, limit: Limit) -> int:
        """Return a tenant's limit: from its row, otherwise from its plan. None stands for a tenant that was just deleted."""
        if tenant is None:
            return self.plans[self.default].limits[limit]
        own = tenant.limits.get(limit.value)
        return own if own is not None else self.plan_of(tenant).limits[limit]

    def limits_of(self, tenant: Tenant) -> TenantLimits:
        """Return all limits of a tenant."""
        numbers = {limit: self.limit_of(tenant, limit) for limit in Limit}
        return TenantLimits(MappingProxyType(numbers), min(numbers[Limit.MESSAGE_BYTES], fields.MESSAGE_BYTES))

    def check_retention(self, seconds: int, tenant: Tenant) -> int:
        """Return the retention of a channel in seconds. Raises Invalid below 1, and LimitExceeded above the tenant's limit."""
        if seconds < 1:
            raise Invalid("retention_s", "must be at least 1; null for the most that this tenant's plan keeps")
        most = self.limit_of(tenant, Limit.RETENTION_S)
        if seconds > most:
            raise LimitExceeded(Limit.RETENTION_S.value, most, seconds)
        return seconds

    def retention_of(self, channel: Channel, tenant: Tenant) -> int:
        """Return the retention of the channel in seconds: its own setting, unless the plan now allows less."""
        most = self.limit_of(tenant, Limit.RETENTION_S)
        return most if channel.retention_s is None else min(channel.retention_s, most)
