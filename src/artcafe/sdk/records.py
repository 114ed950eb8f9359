"""Responses of the REST API as frozen structs. Unknown fields of a newer server are ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Self, TypedDict

import msgspec

from artcafe.sdk.encoding import value_of
from artcafe.sdk.messages import Gap, time_of
from artcafe.wire import replies
from artcafe.wire.envelopes import DeadLetter, Redriven


class Home(msgspec.Struct, frozen=True):
    """The response of `GET /v1`: the addresses of a platform."""

    name: str
    version: str
    gateway_url: str
    issuer: str | None = None
    """The identity provider of people; None if the server issues their tokens itself, on its own machine."""
    console_client_id: str | None = None
    """The web console's client id at the issuer; None if it has none."""
    console_scope: str | None = None
    """The scopes that the web console requests at the issuer, separated by spaces; None from an earlier server."""
    terms_version: str | None = None
    """The version of the terms that people must accept; None if there are no terms."""


class MembershipInfo(msgspec.Struct, frozen=True):
    """A tenant of the caller, and the caller's role in it."""

    tenant_id: str
    name: str
    role: str


class OutstandingTerms(msgspec.Struct, frozen=True):
    """Terms that a person has not accepted yet. Until `grace_until` an accepted earlier version is sufficient."""

    version: str
    grace_until: datetime | None = None


class Me(msgspec.Struct, frozen=True):
    """The principal of the token: a person (`user_id`, `tenants`, `terms_outstanding`) or an agent (`agent_id`, `handle`,
    `tenant_id`)."""

    user_id: str | None = None
    tenants: tuple[MembershipInfo, ...] = ()
    terms_outstanding: OutstandingTerms | None = None
    agent_id: str | None = None
    tenant_id: str | None = None
    handle: str | None = None
    is_operator: bool | None = None
    """Whether a person may read the platform's state (`Client.platform_state`); None for an agent, or from an earlier server."""


class TenantInfo(msgspec.Struct, frozen=True):
    id: str
    name: str
    plan: str
    role: str
    limits: Mapping[str, int]
    created_at: datetime | None
    updated_at: datetime | None


class LimitInfo(msgspec.Struct, frozen=True):
    """One limit of a tenant. A `limit` of None is unlimited; `used` and `left` are None if they are unknown or have no meaning.
    `resets_at` is when a limit of a period begins again."""

    name: str
    limit: int | None
    used: int | None
    left: int | None
    resets_at: datetime | None


class LimitsInfo(msgspec.Struct, frozen=True):
    """A tenant's plan and limits."""

    plan: str
    items: tuple[LimitInfo, ...]


class MemberInfo(msgspec.Struct, frozen=True):
    """A person in a tenant. `address` is that of their invitation."""

    user_id: str
    tenant_id: str
    role: str
    joined_at: datetime | None
    address: str | None = None


class InvitationInfo(msgspec.Struct, frozen=True):
    """An invitation into a tenant. Only the response to its creation has the `token`."""

    id: str
    tenant_id: str
    address: str
    role: str
    invited_by: str
    created_at: datetime | None
    expires_at: datetime
    token: str | None = None


class CurrentTerms(msgspec.Struct, frozen=True):
    """The current terms; `version` is None if there are none."""

    version: str | None
    text: str | None = None
    grace_until: datetime | None = None


class TermsAcceptance(msgspec.Struct, frozen=True):
    """A person's acceptance of a version."""

    user_id: str
    version: str
    accepted_at: datetime | None
    ip_address: str


class PresenceInfo(msgspec.Struct, frozen=True):
    """The presence of an agent: whether it is connected, since when, and its status."""

    connected: bool
    status: str | None = None
    since: datetime | None = None


class AgentInfo(msgspec.Struct, frozen=True):
    """An agent. Responses to other agents leave out the last five fields. `presence` is None if it is unknown, `handle` for a row
    of an older system."""

    id: str
    tenant_id: str
    name: str
    handle: str | None = None
    description: str = ""
    capabilities: tuple[str, ...] = ()
    presence: PresenceInfo | None = None
    public_key: str | None = None
    fingerprint: str | None = None
    status: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class AgentKeyInfo(msgspec.Struct, frozen=True):
    """An SSH key of an agent; `first` marks the one in the agent's `public_key`."""

    id: str
    agent_id: str
    public_key: str
    fingerprint: str | None
    first: bool
    status: str
    added_at: datetime | None
    not_after: datetime | None = None


class QueueOptions(TypedDict, total=False):
    """The settings of a `queue` channel. Omitted ones have their defaults, or stay unchanged."""

    ack_wait_s: int | None
    """Seconds to acknowledge or extend a message before another subscriber gets it."""
    back_off: Sequence[int] | None
    """Seconds before the second, third, … delivery of a message that failed; the last one applies to all further ones."""
    max_deliveries: int | None
    """Deliveries of a message before it goes to the dead-letter channel."""
    key_ordered: bool | None
    """Whether messages with the same header `partition` are held one at a time, in order."""
    dead_letter: str | None
    """An existing broadcast channel for dead letters; without one, a channel is made with the queue."""


class ChannelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A channel. `handle` is None for a row of an older system."""

    id: str
    tenant_id: str
    name: str
    handle: str | None = None
    description: str
    type: str
    access: str
    created_at: datetime | None
    updated_at: datetime | None
    retention_s: int | None = None
    """The retention of messages in seconds; None: as long as the tenant's plan allows."""
    first_seq: int | None = None
    last_seq: int | None = None
    messages: int | None = None
    """The oldest and newest stored message (0 without any), and their number. None in a list, in a `live` channel, and while the
    log does not answer."""
    pending: int | None = None
    held: int | None = None
    oldest_seq: int | None = None
    """The messages of a `queue` that were never delivered, those that were and have not ended, and the oldest of both (0 without
    any). None as above, and for other types."""
    ack_wait_s: int | None = None
    """Seconds to acknowledge a message of a `queue`. Channels of other types have none of these four."""
    back_off: tuple[int, ...] | None = None
    """Seconds before the second, third, … delivery of a message that failed."""
    max_deliveries: int | None = None
    """Deliveries of a message before it goes to the dead-letter channel."""
    key_ordered: bool | None = None
    """Whether messages with the same header `partition` are held one at a time, in order."""
    dead_letter: str | None = None
    """The dead-letter channel of a `queue`."""
    dead_letter_of: str | None = None
    """The queue that this dead-letter channel was made with."""


class CursorInfo(msgspec.Struct, frozen=True):
    epoch: str | None
    seq: int


class SubscriptionInfo(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant_id: str
    channel_id: str
    channel_handle: str | None = None
    """None for an inbox, and without a handle."""
    agent_id: str
    agent_handle: str | None = None
    status: str
    permissions: tuple[str, ...]
    cursor: CursorInfo
    created_at: datetime | None
    updated_at: datetime | None
    lag: int | None = None
    """The number of messages above the cursor; None if it is unknown, or the channel has no cursors."""
    last_seen: datetime | None = None
    """When the agent was last known to be connected: now, if it is. None: unknown."""


class ChainInfo(msgspec.Struct, frozen=True):
    """A chain of answers. `status` is `stopped` if a message above a limit was refused since the last release. `messages` counts
    its messages with the first one; the limits are the plan's, once more for each release."""

    id: str
    tenant_id: str
    status: str
    messages: int
    max_messages: int
    max_hops: int
    releases: int


class AuditEntry(msgspec.Struct, frozen=True):
    """An entry of a tenant's audit. `digest` is the hash of all other fields; the next entry has it as `before`."""

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


_KEPT_NAMES: Final = {
    "channel_id": "channel",
    "sender_id": "from",
    "sender_handle": "from_handle",
    "time_text": "time",
    "raw": "data",
    "expires_at_text": "expires_at",
    "deliver_at_text": "deliver_at",
}


class KeptMessage(msgspec.Struct, frozen=True, omit_defaults=True, rename=_KEPT_NAMES):
    """A stored message. Encoding it gives the JSON object of the response."""

    channel_id: str
    seq: int
    message_id: str
    sender_id: str
    """The authenticated publisher: an agent's id, or `usr:` and a person's."""
    time_text: str
    headers: Mapping[str, str]
    raw: msgspec.Raw
    """The data as the published JSON text."""
    reply_to: str | None = None
    caused_by: str | None = None
    """The id of the message that this one answers; None if it answers none."""
    hops: int = 0
    """The number of messages before this one in its chain of answers."""
    chain: str | None = None
    """The id of the first message of its chain of answers; None for that message itself."""
    expires_at_text: str | None = None
    dead_letter: DeadLetter | None = None
    """In a dead-letter channel, the message that this one was in its queue, and why it was moved."""
    redriven: Redriven | None = None
    """The dead letter that this message was, if it was sent back to its queue."""
    channel_handle: str | None = None
    sender_handle: str | None = None
    deliver_at_text: str | None = None

    @classmethod
    def of(cls, past: replies.PastMessage) -> Self:
        """Convert a message of the gateway's history reply."""
        return cls(
            channel_id=past.channel,
            seq=past.seq,
            message_id=past.message_id,
            sender_id=past.sender,
            time_text=past.time,
            headers=past.headers,
            raw=past.data,
            reply_to=past.reply_to,
            caused_by=past.caused_by,
            hops=past.hops,
            chain=past.chain,
            expires_at_text=past.expires_at,
            dead_letter=past.dead_letter,
            redriven=past.redriven,
            channel_handle=past.channel_handle,
            sender_handle=past.sender_handle,
            deliver_at_text=past.deliver_at,
        )

    @property
    def channel(self) -> str:
        """The channel's handle; its id if it has none."""
        return self.channel_handle or self.channel_id

    @property
    def sender(self) -> str:
        """The handle that the publishing agent had then; `sender_id` for a person, and for an agent without a handle."""
        return self.sender_handle or self.sender_id

    @property
    def time(self) -> datetime:
        """The time at which the server accepted it; aware, UTC."""
        return datetime.fromisoformat(self.time_text)

    @property
    def expires_at(self) -> datetime | None:
        """The time from which it is not delivered any more; None if it does not expire."""
        return time_of(self.expires_at_text)

    @property
    def deliver_at(self) -> datetime | None:
        """The time at which it was to be delivered; None if it was not scheduled."""
        return time_of(self.deliver_at_text)

    @property
    def data(self) -> Any:
        """The parsed data: None, bool, int, float, str, list or dict. A number beyond Python's floats becomes inf or -inf."""
        return value_of(self.raw)


class History(msgspec.Struct, frozen=True):
    """A page of a channel's stored messages, the missing part of the requested range, and whether there are more.

    `epoch` identifies the log of the sequences; None before the tenant's first message.
    """

    messages: tuple[KeptMessage, ...]
    gap: Gap | None
    has_more: bool
    epoch: str | None
