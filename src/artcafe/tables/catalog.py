"""The nine tables as data: the single source for creating, checking, exporting and reading tables.

Names, key attributes, the case of `artcafe-Challenges` and the list of retired tables match the existing tables of operators,
which must work unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Environment(StrEnum):
    """The set of table names in use.

    `DEV` has four tables of its own and shares the others with `PROD`, as in the existing tables.
    """

    PROD = "prod"
    DEV = "dev"


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table.

    Keys are strings; `attributes` lists the attributes of existing tables in addition to the keys, and rows may have more.

    `ttl` names the expiry attribute (seconds since 1970). DynamoDB removes an expired row up to days late, so readers must
    compare the time themselves. Tables compare by identity: each has a single instance.
    """

    name: str
    partition_key: str
    sort_key: str | None
    attributes: tuple[str, ...]
    purpose: str
    dev_twin: str | None = None
    ttl: str | None = None
    ttl_is_optional: bool = False
    """Whether the table is complete without its time to live: the tables of the first system do not have it, and only grow."""

    @property
    def key_attributes(self) -> tuple[str, ...]:
        return (self.partition_key,) if self.sort_key is None else (self.partition_key, self.sort_key)

    def name_in(self, environment: Environment) -> str:
        if environment is Environment.DEV and self.dev_twin is not None:
            return self.dev_twin
        return self.name


AGENTS = Table(
    name="artcafe-agents",
    partition_key="tenant_id",
    sort_key="id",
    attributes=("name", "description", "public_key", "capabilities", "status", "created_at", "updated_at"),
    purpose="every agent of a tenant, with its public SSH key",
    dev_twin="artcafe-agents-dev",
)
TENANTS = Table(
    name="artcafe-tenants",
    partition_key="id",
    sort_key=None,
    attributes=("name", "plan", "limits", "created_at", "updated_at"),
    purpose="every tenant, with its plan and limits",
    dev_twin="artcafe-tenants-dev",
)
USER_TENANTS = Table(
    name="artcafe-user-tenants",
    partition_key="user_id",
    sort_key="tenant_id",
    attributes=("role", "joined_at"),
    purpose="the tenants a user is a member of, with the role",
)
USER_TENANT_INDEX = Table(
    name="artcafe-user-tenant-index",
    partition_key="tenant_id",
    sort_key="user_id",
    attributes=("role", "joined_at"),
    purpose="the members of a tenant: the same memberships, keyed by tenant",
)
CHANNELS = Table(
    name="artcafe-channels",
    partition_key="tenant_id",
    sort_key="id",
    attributes=("name", "description", "type", "created_at", "updated_at"),
    purpose="every channel of a tenant",
    dev_twin="artcafe-channels-dev",
)
CHANNEL_SUBSCRIPTIONS = Table(
    name="artcafe-channel-subscriptions",
    partition_key="tenant_id",
    sort_key="id",
    attributes=("channel_id", "agent_id", "status"),
    purpose="which agent receives which channel; the id is the channel's, '#' and the agent's",
)
USAGE_METRICS = Table(
    name="artcafe-usage-metrics",
    partition_key="tenant_id",
    sort_key="metric_id",
    attributes=("name", "value", "timestamp", "period"),
    purpose="what a tenant used in each hour, day and month, and how far its messages are counted",
    dev_twin="artcafe-usage-metrics-dev",
    ttl="ttl",
    ttl_is_optional=True,
)
TERMS_ACCEPTANCE = Table(
    name="artcafe-terms-acceptance",
    partition_key="user_id",
    sort_key="version",
    attributes=("accepted_at", "ip_address"),
    purpose="which version of the terms a user accepted, when and from where",
)
CHALLENGES = Table(
    name="artcafe-Challenges",
    partition_key="challenge_id",
    sort_key=None,
    attributes=("challenge", "tenant_id", "agent_id", "expires_at", "ttl"),
    purpose="login challenges of agents, for 5 minutes",
    ttl="ttl",
)

TABLES: tuple[Table, ...] = (
    AGENTS,
    TENANTS,
    USER_TENANTS,
    USER_TENANT_INDEX,
    CHANNELS,
    CHANNEL_SUBSCRIPTIONS,
    USAGE_METRICS,
    TERMS_ACCEPTANCE,
    CHALLENGES,
)

TAGS: Mapping[str, str] = {"application": "artcafe"}
"""Tags of every table created or exported by ArtCafe, in addition to its environment."""


def tags_of(name: str) -> Mapping[str, str]:
    """Return the tags of a table by its name. Tables shared by both environments count as production."""
    is_twin = any(name == table.dev_twin for table in TABLES)
    return {**TAGS, "environment": (Environment.DEV if is_twin else Environment.PROD).value}


@dataclass(frozen=True, slots=True)
class RetiredTable:
    """A table of an older system, which may still exist. ArtCafe never creates, reads or requires it."""

    name: str
    replaced_by: str


RETIRED: tuple[RetiredTable, ...] = (
    RetiredTable("artcafe-ssh-keys", "the public_key of each row in artcafe-agents"),
    RetiredTable("artcafe-subscribers", "artcafe-channel-subscriptions"),
    RetiredTable("artcafe-subscriptions", "artcafe-channel-subscriptions"),
    RetiredTable("artcafe-organizations", "artcafe-tenants"),
    RetiredTable("artcafe-users", "the identity provider, which holds the users"),
    RetiredTable("artcafe-user-tenants-index", "artcafe-user-tenant-index (this name was a typo)"),
    RetiredTable("artcafe-ssh-keys-dev", "the public_key of each row in artcafe-agents-dev"),
)
