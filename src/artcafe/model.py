"""The records that ArtCafe keeps, as frozen structs, and the ids that name them. How a record is stored is `tables.store`'s."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import NewType

import msgspec

TenantId = NewType("TenantId", str)
UserId = NewType("UserId", str)
AgentId = NewType("AgentId", str)
ChannelId = NewType("ChannelId", str)
ChallengeId = NewType("ChallengeId", str)
KeyId = NewType("KeyId", str)
InvitationId = NewType("InvitationId", str)

USER_PREFIX = "usr:"
"""Before a person's id, where agents could be meant too."""

Epoch = NewType("Epoch", str)
"""Names one life of a tenant's log. A restored log, or one begun anew, has another; sequences mean nothing across epochs."""

Seq = int
"""A message's sequence in its tenant's log: rises in a channel, may skip numbers, begins at 1."""


class Record(msgspec.Struct, frozen=True):
    """What every record is: immutable, compared by value.

    The time of an event is None where an older system left none that can be read.
    """


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


class TenantStatus(StrEnum):
    """`suspended`: its agents are out, and its people read and change nothing, until an operator resumes it."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class AgentStatus(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"


class KeyStatus(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"


class ChannelType(StrEnum):
    """How a channel delivers. `broadcast`: every subscriber gets every message, stored. `live`: those who are there get it, at
    most once, and nothing is stored."""

    BROADCAST = "broadcast"
    LIVE = "live"


class Access(StrEnum):
    """Who of a tenant's agents may use a channel. `open`: any may publish, and subscribe itself. `managed`: those for whom a
    member made a subscription, and as its permissions say."""

    OPEN = "open"
    MANAGED = "managed"


class Permission(StrEnum):
    """What a subscription lets its agent do. In an open channel publishing needs none."""

    RECEIVE = "receive"
    PUBLISH = "publish"


class SubscriptionStatus(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"


class Tenant(Record, frozen=True, kw_only=True):
    """An organisation. `version` rises with every change of who may do what in it; the counts stand under the limits."""

    id: TenantId
    name: str
    plan: str = "free"
    limits: Mapping[str, int] = {}
    created_at: datetime | None
    updated_at: datetime | None
    version: int = 0
    agent_count: int = 0
    channel_count: int = 0
    member_count: int = 0
    status: TenantStatus = TenantStatus.ACTIVE
    is_deleting: bool = False
    """From the moment that its deletion begins; what is left of it afterwards says so too."""
    request_hash: str | None = None


class Member(Record, frozen=True, kw_only=True):
    """A user in a tenant. Who came by an invitation keeps its id, and the address that it was for."""

    user_id: UserId
    tenant_id: TenantId
    role: Role
    joined_at: datetime | None
    address: str | None = None
    invitation_id: InvitationId | None = None


class Invitation(Record, frozen=True, kw_only=True):
    """A way into a tenant that is open until `expires_at`, once, with one role, for whoever has proven one e-mail address."""

    tenant_id: TenantId
    id: InvitationId
    address: str
    role: Role
    invited_by: str
    created_at: datetime | None
    expires_at: datetime
    request_hash: str | None = None


class AgentKey(Record, frozen=True, kw_only=True):
    """One of an agent's SSH keys, good until `not_after`. `serial` is new whenever it becomes active: a proof names it, and ends
    with it. `request` and its hash are those of the request that added it, where that may be repeated."""

    line: str
    added_at: datetime | None
    status: KeyStatus = KeyStatus.ACTIVE
    serial: int
    not_after: datetime | None = None
    request: str | None = None
    request_hash: str | None = None


class Agent(Record, frozen=True, kw_only=True):
    """A program of a tenant. `epoch` rises when its first key or its status changes and is in every token of it; `channels` maps
    the channels it has a subscription to, active or not, so that they are found without an index.

    `public_key` is its first key, with the serial `key_serial`; `keys` are the others, and `keys_version` rises with each change
    of any.
    """

    tenant_id: TenantId
    id: AgentId
    name: str
    description: str = ""
    public_key: str
    capabilities: tuple[str, ...] = ()
    status: AgentStatus = AgentStatus.ACTIVE
    created_at: datetime | None
    updated_at: datetime | None
    epoch: int = 0
    key_serial: int = 0
    key_added_at: datetime | None = None
    keys: tuple[AgentKey, ...] = ()
    keys_version: int = 0
    channels: frozenset[ChannelId] = frozenset()
    request_hash: str | None = None


class Cursor(Record, frozen=True, kw_only=True):
    """How far a subscription has come: everything up to `seq` in the log of `epoch` is acknowledged or before its start.

    No epoch means a subscription that is older than its tenant's log: its cursor is 0 in whatever log comes first.
    """

    epoch: Epoch | None = None
    seq: Seq = 0


class Channel(Record, frozen=True, kw_only=True):
    """A named, ordered log of messages in a tenant.

    Messages older than `retention_s` seconds are removed, oldest first; None: as old as the tenant's plan allows. Up to
    `removed_to` they are gone, or about to be: it is written before anything is removed.
    """

    tenant_id: TenantId
    id: ChannelId
    name: str
    description: str = ""
    type: ChannelType = ChannelType.BROADCAST
    access: Access = Access.OPEN
    retention_s: int | None = None
    removed_to: Cursor = Cursor()
    created_at: datetime | None
    updated_at: datetime | None
    request_hash: str | None = None


class Subscription(Record, frozen=True, kw_only=True):
    """The row that says an agent receives a channel, or in a managed one, what it may do there."""

    tenant_id: TenantId
    channel_id: ChannelId
    agent_id: AgentId
    status: SubscriptionStatus = SubscriptionStatus.ACTIVE
    permissions: frozenset[Permission] = frozenset({Permission.RECEIVE})
    cursor: Cursor = Cursor()
    created_at: datetime | None
    updated_at: datetime | None

    @property
    def id(self) -> str:
        return subscription_id(self.channel_id, self.agent_id)

    def allows(self, permission: Permission) -> bool:
        """Whether it lets its agent do that now."""
        return self.status is SubscriptionStatus.ACTIVE and permission in self.permissions


def subscription_id(channel_id: ChannelId, agent_id: AgentId) -> str:
    """`{channel_id}#{agent_id}`: one query by prefix answers who receives a channel, and making it twice makes it once."""
    return f"{channel_id}#{agent_id}"


class Acceptance(Record, frozen=True, kw_only=True):
    """That a person has accepted a version of the terms, when, and from the address that was observed."""

    user_id: UserId
    version: str
    accepted_at: datetime | None
    ip_address: str


class Challenge(Record, frozen=True, kw_only=True):
    """A login begun over REST. `text` is exactly what the agent signs."""

    id: ChallengeId
    text: str
    tenant_id: TenantId
    agent_id: AgentId
    expires_at: datetime


class TenantChange(Record, frozen=True, kw_only=True):
    """The rows of one tenant that one transaction changed. With `is_whole` anything in the tenant may have changed.

    `raised` is by how much the transaction raised the tenant's version; 0 where that is unknown.
    """

    tenant_id: TenantId
    is_whole: bool = False
    agents: tuple[AgentId, ...] = ()
    channels: tuple[ChannelId, ...] = ()
    subscriptions: tuple[tuple[ChannelId, AgentId], ...] = ()
    users: tuple[UserId, ...] = ()
    raised: int = 0


class UserPrincipal(Record, frozen=True, kw_only=True):
    """A proven person acting in one tenant with one membership."""

    user_id: UserId
    tenant_id: TenantId
    role: Role
    is_suspended: bool = False
    """The tenant is: this person reads in it, and no more."""

    @property
    def sender(self) -> str:
        return USER_PREFIX + self.user_id


class AgentPrincipal(Record, frozen=True, kw_only=True):
    """A proven agent. `epoch` is the agent's at the time of the proof; a later epoch in its record ends this principal.

    So does the end of the key that proved it, whose serial is `key`; `until` is when that ends by itself.
    """

    agent_id: AgentId
    tenant_id: TenantId
    epoch: int
    key: int = 0
    until: datetime | None = None

    @property
    def sender(self) -> str:
        return str(self.agent_id)


Principal = UserPrincipal | AgentPrincipal


class Outcome(StrEnum):
    """What became of something that is in the audit. `intended` stands before a change, one of the others behind it."""

    INTENDED = "intended"
    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """It may have been made: the answer of what makes it was lost."""


class Entry(Record, frozen=True, kw_only=True):
    """One line of an audit: who did what to what, when and from where.

    `number` counts from 1 without a hole; `before` is the digest of the entry before (`rules.chain`), so that none can be
    changed, removed or put between others unseen. `intent` is the number of the entry whose outcome this one tells.
    """

    number: int
    id: str
    time: datetime
    action: str
    actor: str
    outcome: Outcome
    target: str | None = None
    facts: Mapping[str, str] = {}
    address: str | None = None
    request_id: str | None = None
    intent: int | None = None
    before: str
