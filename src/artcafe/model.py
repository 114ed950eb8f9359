"""The records of ArtCafe, as frozen structs, and the types of their ids. `tables.store` reads and writes them."""

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
"""The prefix of a person's id in places where an agent's id is possible too."""

Epoch = NewType("Epoch", str)
"""The name of one log of a tenant. A log restored or created again has a new epoch; sequences have no meaning across epochs."""

Seq = int
"""A message's sequence in its tenant's log: rises within a channel, may skip numbers, begins at 1."""


class Record(msgspec.Struct, frozen=True):
    """The base of every record: immutable, compared by value.

    The time of an event is None if an older system left no readable one.
    """


class HandleKind(StrEnum):
    """What has a handle. Handles are unique within a tenant and kind."""

    AGENT = "agent"
    CHANNEL = "channel"


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


class TenantStatus(StrEnum):
    """`suspended`: agents are disconnected, and people can read and change nothing, until an operator resumes the tenant."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class AgentStatus(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"


class KeyStatus(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"


class ChannelType(StrEnum):
    """The delivery of a channel. `broadcast`: every message is stored, and delivered to every subscriber. `queue`: every message
    is stored, and delivered to one subscriber at a time until one acknowledges it. `live`: messages are delivered to the
    connected subscribers at most once, and not stored."""

    BROADCAST = "broadcast"
    QUEUE = "queue"
    LIVE = "live"


class Access(StrEnum):
    """Which agents may use a channel. `open`: any may publish, and subscribe itself. `managed`: as a subscription says."""

    OPEN = "open"
    MANAGED = "managed"


class Permission(StrEnum):
    """A right that a subscription gives its agent. In an open channel, publishing requires none."""

    RECEIVE = "receive"
    PUBLISH = "publish"


class SubscriptionStatus(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"


class Tenant(Record, frozen=True, kw_only=True):
    """An organisation. `version` rises with every change of permissions in it; the counts are checked against the limits."""

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
    is_counted: bool = True
    """Whether the counts are known: an older system's row has none until its first change."""
    status: TenantStatus = TenantStatus.ACTIVE
    is_deleting: bool = False
    """Set from the beginning of its deletion, and in the row that is left afterwards."""
    request_hash: str | None = None


class Member(Record, frozen=True, kw_only=True):
    """A user in a tenant. A member who joined by an invitation keeps its id and its e-mail address."""

    user_id: UserId
    tenant_id: TenantId
    role: Role
    joined_at: datetime | None
    address: str | None = None
    invitation_id: InvitationId | None = None


class Invitation(Record, frozen=True, kw_only=True):
    """An invitation to a tenant, valid once until `expires_at`: for one role, and a person with one verified e-mail address."""

    tenant_id: TenantId
    id: InvitationId
    address: str
    role: Role
    invited_by: str
    created_at: datetime | None
    expires_at: datetime
    request_hash: str | None = None


class AgentKey(Record, frozen=True, kw_only=True):
    """One of an agent's SSH keys, valid until `not_after`. `serial` changes whenever the key becomes active; a proof contains it,
    and expires with it. `request` and `request_hash` are those of the request that added the key, if that may be repeated."""

    line: str
    added_at: datetime | None
    status: KeyStatus = KeyStatus.ACTIVE
    serial: int
    not_after: datetime | None = None
    request: str | None = None
    request_hash: str | None = None


class Agent(Record, frozen=True, kw_only=True):
    """A program of a tenant."""

    tenant_id: TenantId
    id: AgentId
    handle: str | None = None
    """May stand where the id stands. None in a row of an older system, until a repair gives it one."""
    name: str
    description: str = ""
    public_key: str
    """The first key."""
    capabilities: tuple[str, ...] = ()
    status: AgentStatus = AgentStatus.ACTIVE
    created_at: datetime | None
    updated_at: datetime | None
    epoch: int = 0
    """The version of its logins, part of its tokens: rises when its status or first key changes. Unrelated to `Epoch`."""
    key_serial: int = 0
    """The serial of the first key."""
    key_added_at: datetime | None = None
    keys: tuple[AgentKey, ...] = ()
    """The keys beside the first one."""
    keys_version: int = 0
    """Rises with each change of any key."""
    channels: frozenset[ChannelId] = frozenset()
    """The channels that it has a subscription to, active or not: found here without an index."""
    inbox: Cursor | None = None
    """The position in its inbox (`rules.inboxes`). None: its inbox is older than its tenant's log."""
    inbox_removed_to: Cursor | None = None
    """The newest removed message of its inbox; None if there is none."""
    request_hash: str | None = None


class Cursor(Record, frozen=True, kw_only=True):
    """A subscription's position: everything up to `seq` in the log of `epoch` is acknowledged, or before its start.

    Without an epoch, the subscription is older than its tenant's log, and its position is 0 in the first log. `moves` counts the
    requests that set the cursor: an ack of a delivery that began before the last one is void.
    """

    epoch: Epoch | None = None
    seq: Seq = 0
    moves: int = 0


class QueueSettings(Record, frozen=True, kw_only=True):
    """How the messages of a `queue` channel are shared among its subscribers. `rules.queues` has the bounds."""

    ack_wait_s: int = 30
    """Seconds in which a subscriber must acknowledge or extend a message before another one gets it."""
    back_off: tuple[int, ...] = ()
    """Seconds before the second, third, … delivery of a message that failed; the last one also before all further ones."""
    max_deliveries: int = 10
    """Deliveries of a message, the first one included, before it goes to the dead-letter channel."""
    key_ordered: bool = False
    """Whether messages with the same header `partition` are held one at a time, in order."""


class Channel(Record, frozen=True, kw_only=True):
    """A named, ordered log of messages in a tenant.

    Messages older than `retention_s` seconds are removed, oldest first; None: the maximum of the tenant's plan. Messages up to
    `removed_to` are removed, or about to be: it is written before the removal. Only a `queue` channel has `queue`.
    """

    tenant_id: TenantId
    id: ChannelId
    handle: str | None = None
    """May stand where the id stands. None in a row of an older system, until a repair gives it one."""
    name: str
    description: str = ""
    type: ChannelType = ChannelType.BROADCAST
    access: Access = Access.OPEN
    retention_s: int | None = None
    queue: QueueSettings | None = None
    removed_to: Cursor = Cursor()
    created_at: datetime | None
    updated_at: datetime | None
    request_hash: str | None = None
    dead_letter: ChannelId | None = None
    """The dead-letter channel of a queue."""
    is_dead_letter: bool = False
    """Whether a queue names this channel, or did: it may have dead letters."""
    dead_letter_of: ChannelId | None = None
    """The queue that this dead-letter channel was made with."""

    @property
    def ack_wait_s(self) -> int | None:
        return None if self.queue is None else self.queue.ack_wait_s

    @property
    def back_off(self) -> tuple[int, ...] | None:
        return None if self.queue is None else self.queue.back_off

    @property
    def max_deliveries(self) -> int | None:
        return None if self.queue is None else self.queue.max_deliveries

    @property
    def key_ordered(self) -> bool | None:
        return None if self.queue is None else self.queue.key_ordered


class SkippedRange(Record, frozen=True, kw_only=True):
    """Messages that a request moved the cursor over, above `after` and up to `to`, in the log of `epoch`: not acknowledged."""

    epoch: Epoch
    after: Seq
    to: Seq


class Subscription(Record, frozen=True, kw_only=True):
    """A row by which an agent receives a channel; in a managed channel, it contains the agent's permissions.

    `start` is the position at its creation, or a lower one that the cursor was moved to since. `acked_at` is when the last ack
    was written; older rows have none.
    """

    tenant_id: TenantId
    channel_id: ChannelId
    agent_id: AgentId
    status: SubscriptionStatus = SubscriptionStatus.ACTIVE
    permissions: frozenset[Permission] = frozenset({Permission.RECEIVE})
    cursor: Cursor = Cursor()
    start: Cursor = Cursor()
    skipped: SkippedRange | None = None
    acked_at: datetime | None = None
    created_at: datetime | None
    updated_at: datetime | None

    @property
    def id(self) -> str:
        return subscription_id(self.channel_id, self.agent_id)

    def allows(self, permission: Permission) -> bool:
        """Return whether the subscription gives its agent this permission now."""
        return self.status is SubscriptionStatus.ACTIVE and permission in self.permissions


def subscription_id(channel_id: ChannelId, agent_id: AgentId) -> str:
    """Return `{channel_id}#{agent_id}`: one query by prefix finds a channel's subscribers, a repeated creation the same id."""
    return f"{channel_id}#{agent_id}"


class Acceptance(Record, frozen=True, kw_only=True):
    """A person's acceptance of a version of the terms: when, and from which observed address."""

    user_id: UserId
    version: str
    accepted_at: datetime | None
    ip_address: str


class LoginChallenge(Record, frozen=True, kw_only=True):
    """A login begun over REST. `text` is exactly the text that the agent signs."""

    id: ChallengeId
    text: str
    tenant_id: TenantId
    agent_id: AgentId
    expires_at: datetime


class TenantChange(Record, frozen=True, kw_only=True):
    """The rows of one tenant that one transaction changed. With `is_whole`, anything in the tenant may have changed.

    `raised` is the transaction's increase of the tenant's version; 0 if unknown.
    """

    tenant_id: TenantId
    is_whole: bool = False
    agents: tuple[AgentId, ...] = ()
    channels: tuple[ChannelId, ...] = ()
    subscriptions: tuple[tuple[ChannelId, AgentId], ...] = ()
    users: tuple[UserId, ...] = ()
    raised: int = 0

    @property
    def may_change_limits(self) -> bool:
        """Return whether the tenant's plan or limits may have changed: such a change names no other row."""
        return self.is_whole or not (self.agents or self.channels or self.subscriptions or self.users)


class UserPrincipal(Record, frozen=True, kw_only=True):
    """An authenticated person acting in one tenant by one membership."""

    user_id: UserId
    tenant_id: TenantId
    role: Role
    is_suspended: bool = False
    """Whether the tenant is suspended: the person can read, and change nothing."""

    @property
    def sender(self) -> str:
        return USER_PREFIX + self.user_id


class AgentPrincipal(Record, frozen=True, kw_only=True):
    """An authenticated agent. `epoch` is `Agent.epoch` at the time of the proof; a later one in its record ends this principal.

    So does the end of the key used in the proof, whose serial is `key`. `until` is that key's expiry.
    """

    agent_id: AgentId
    tenant_id: TenantId
    epoch: int
    key: int = 0
    until: datetime | None = None

    @property
    def sender(self) -> str:
        return self.agent_id


Principal = UserPrincipal | AgentPrincipal


class Outcome(StrEnum):
    """The outcome of an audited action. `intended` is recorded before a change, one of the others after it."""

    INTENDED = "intended"
    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """The change may have been made: the answer was lost."""


class Entry(Record, frozen=True, kw_only=True):
    """One entry of an audit: the actor, the action, its target, the time and the address.

    `number` counts from 1 without gaps. `before` is the digest of the previous entry (`rules.audit_chain`), so that changing,
    removing or inserting an entry is detectable. `intent` is the number of the entry whose outcome this one records.
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
