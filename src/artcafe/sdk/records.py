"""What REST answers, as frozen structs. A field that a newer server added is passed over. Asking is `sdk.client`'s."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

import msgspec

from artcafe.sdk.encoding import value_of
from artcafe.sdk.messages import Gap
from artcafe.wire import replies


class Home(msgspec.Struct, frozen=True):
    """What `GET /v1` says: where everything is."""

    name: str
    version: str
    gateway_url: str
    issuer: str | None = None
    """Where people log in; None where the server vouches for them itself, on its own machine."""
    terms_version: str | None = None
    """What people must accept; None where there is nothing to accept."""


class Token(msgspec.Struct, frozen=True):
    """What a login brings. `expires_in` counts seconds from now."""

    access_token: str
    token_type: str
    expires_in: int

    def __repr__(self) -> str:
        return f"Token(expires_in={self.expires_in})"


class MembershipInfo(msgspec.Struct, frozen=True):
    """A tenant that the caller is in, and as what."""

    tenant_id: str
    name: str
    role: str


class OutstandingTerms(msgspec.Struct, frozen=True):
    """Terms that a person has still to accept; until `grace_until` whoever accepted an earlier version goes on without them."""

    version: str
    grace_until: datetime | None = None


class Me(msgspec.Struct, frozen=True):
    """Who holds the token: a person (`user_id`, `tenants`, `terms_outstanding`) or an agent (`agent_id`, `tenant_id`)."""

    user_id: str | None = None
    tenants: tuple[MembershipInfo, ...] = ()
    terms_outstanding: OutstandingTerms | None = None
    agent_id: str | None = None
    tenant_id: str | None = None


class TenantInfo(msgspec.Struct, frozen=True):
    id: str
    name: str
    plan: str
    role: str
    limits: Mapping[str, int]
    created_at: datetime | None
    updated_at: datetime | None


class MemberInfo(msgspec.Struct, frozen=True):
    """A person in a tenant; `address` is that of the invitation they came by."""

    user_id: str
    tenant_id: str
    role: str
    joined_at: datetime | None
    address: str | None = None


class InvitationInfo(msgspec.Struct, frozen=True):
    """A way into a tenant. `token` is known only to whoever has just made it."""

    id: str
    tenant_id: str
    address: str
    role: str
    invited_by: str
    created_at: datetime | None
    expires_at: datetime
    token: str | None = None


class CurrentTerms(msgspec.Struct, frozen=True):
    """What people accept; no version where there is nothing to accept."""

    version: str | None
    text: str | None = None
    grace_until: datetime | None = None


class TermsAcceptance(msgspec.Struct, frozen=True):
    """That a person has accepted a version."""

    user_id: str
    version: str
    accepted_at: datetime | None
    ip_address: str


class PresenceInfo(msgspec.Struct, frozen=True):
    """Whether an agent is connected now, since when, and the status that it has set."""

    connected: bool
    status: str | None = None
    since: datetime | None = None


class AgentInfo(msgspec.Struct, frozen=True):
    """An agent as its tenant's members see it; to other agents the last five are not shown. `presence` is None where it is
    unknown."""

    id: str
    tenant_id: str
    name: str
    description: str = ""
    capabilities: tuple[str, ...] = ()
    presence: PresenceInfo | None = None
    public_key: str | None = None
    fingerprint: str | None = None
    status: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class AgentKeyInfo(msgspec.Struct, frozen=True):
    """An SSH key that an agent may log in with; `first` marks the one that the agent shows as its `public_key`."""

    id: str
    agent_id: str
    public_key: str
    fingerprint: str | None
    first: bool
    status: str
    added_at: datetime | None
    not_after: datetime | None = None


class ChannelInfo(msgspec.Struct, frozen=True):
    id: str
    tenant_id: str
    name: str
    description: str
    type: str
    access: str
    created_at: datetime | None
    updated_at: datetime | None
    retention_s: int | None = None
    """For how many seconds a message is kept; None: as long as the tenant's plan has it."""


class CursorInfo(msgspec.Struct, frozen=True):
    epoch: str | None
    seq: int


class SubscriptionInfo(msgspec.Struct, frozen=True):
    id: str
    tenant_id: str
    channel_id: str
    agent_id: str
    status: str
    permissions: tuple[str, ...]
    cursor: CursorInfo
    created_at: datetime | None
    updated_at: datetime | None


class AuditEntry(msgspec.Struct, frozen=True):
    """One line of a tenant's audit. `digest` is made of all the other fields, and named by the next entry as its `before`."""

    number: int
    id: str
    time: datetime
    action: str
    actor: str
    outcome: str
    target: str | None
    facts: Mapping[str, str]
    address: str | None
    request_id: str | None
    intent: int | None
    before: str
    digest: str


class KeptMessage(msgspec.Struct, frozen=True, omit_defaults=True, rename={"sender": "from", "time_text": "time", "raw": "data"}):
    """A message that a channel keeps. Encoded, it is the JSON object that it was in the answer."""

    channel: str
    seq: int
    message_id: str
    sender: str
    """Who published it, proven to the server: an agent's id, or `usr:` and a person's."""
    time_text: str
    headers: Mapping[str, str]
    raw: msgspec.Raw
    """The data as the JSON text that was published."""
    reply_to: str | None = None

    @classmethod
    def of(cls, past: replies.PastMessage) -> Self:
        """The message as the gateway told of it."""
        return cls(
            channel=past.channel,
            seq=past.seq,
            message_id=past.message_id,
            sender=past.sender,
            time_text=past.time,
            headers=past.headers,
            raw=past.data,
            reply_to=past.reply_to,
        )

    @property
    def time(self) -> datetime:
        """When the server took it in; aware, UTC."""
        return datetime.fromisoformat(self.time_text)

    @property
    def data(self) -> Any:
        """The data, parsed: None, bool, int, float, str, list or dict. A number that no float holds is inf or -inf."""
        return value_of(self.raw)


class History(msgspec.Struct, frozen=True):
    """A page of what a channel keeps: its messages, which of those asked for are gone and why, and whether more are there.
    `epoch` names the life of the log that the sequences are in; None before the tenant's first message."""

    messages: tuple[KeptMessage, ...]
    gap: Gap | None
    has_more: bool
    epoch: str | None
