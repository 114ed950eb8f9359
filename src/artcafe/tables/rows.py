"""Records and the items that hold them, in one place. Which item is read or written, and when, is `store`'s.

Items of an older system are read with sound defaults: attributes may be missing or odd, and what is not understood gives no
rights. Nothing here rewrites such an item; an update changes the attributes that it names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, TypeVar

from artcafe.model import (
    Access,
    Agent,
    AgentId,
    AgentKey,
    AgentStatus,
    Challenge,
    ChallengeId,
    Channel,
    ChannelId,
    ChannelType,
    Cursor,
    Epoch,
    Invitation,
    InvitationId,
    KeyStatus,
    Member,
    Permission,
    Role,
    Subscription,
    SubscriptionStatus,
    Tenant,
    TenantId,
    TenantStatus,
    UserId,
)
from artcafe.rules import times
from artcafe.rules.keys import key_id
from artcafe.tables.values import Item, Value

UNKNOWN_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for a time that is missing or unreadable."""

DELETING: Final = "deleting"
"""The attribute of an agent, channel or tenant whose deletion has begun: to everyone but that deletion it is gone."""

BURIED: Final = "deleted_at"
"""The attribute of a tenant of which nothing is left but the record that there was one."""

REMOVED_TO: Final = "removed_to"
"""The attribute of a channel that says how far its messages are gone: a map of `epoch` and `seq`."""

KEYS_VERSION: Final = "keys_version"
"""The attribute of an agent that rises with each change of its keys."""

CLAIM_PREFIX: Final = "~key#"
"""The sort key of a claim in the agents' table is this and a key's fingerprint: which agent of the tenant has that key."""

INVITATION_PREFIX: Final = "~invitation#"
"""The sort key of an invitation in the index of members is this and its id (decision 14). No user's id may begin so."""

_OLDER_ACTIVE: Final = ("", "online", "offline")
_MILLISECONDS_ABOVE: Final = 10**11
"""A number above it, as a time, is in milliseconds: as seconds it would lie after the year 5000."""

StatusT = TypeVar("StatusT", bound=StrEnum)

# --- from items ------------------------------------------------------------------------------------------------------


def tenant_of(item: Item) -> Tenant:
    """A tenant's record. A status that ArtCafe doesn't know is an older system's own, and suspends nobody (decision 15)."""
    tenant_id = text(item, "id")
    limits = item.get("limits")
    own = limits.items() if isinstance(limits, Mapping) else ()
    return Tenant(
        id=TenantId(tenant_id),
        name=text(item, "name") or tenant_id,
        plan=text(item, "plan") or "free",
        limits={name: limit for name, limit in own if isinstance(limit, int) and not isinstance(limit, bool)},
        created_at=time(item, "created_at"),
        updated_at=time(item, "updated_at"),
        version=_number(item, "version"),
        agent_count=_number(item, "agent_count"),
        channel_count=_number(item, "channel_count"),
        member_count=_number(item, "member_count"),
        status=_known(TenantStatus, text(item, "status"), TenantStatus.ACTIVE),
        is_deleting=is_deleting(item),
        request_hash=text(item, "request_hash") or None,
    )


def member_of(item: Item) -> Member:
    """A membership, from either table. A role that ArtCafe doesn't know may read and change nothing: a viewer's."""
    return Member(
        user_id=UserId(text(item, "user_id")),
        tenant_id=TenantId(text(item, "tenant_id")),
        role=_known(Role, text(item, "role"), Role.VIEWER),
        joined_at=time(item, "joined_at"),
        address=text(item, "address") or None,
        invitation_id=InvitationId(text(item, "invitation_id")) if text(item, "invitation_id") else None,
    )


def indexed_member_of(item: Item) -> Member | None:
    """A membership from the index; None for an invitation, which stands in the same table."""
    return None if text(item, "user_id").startswith(INVITATION_PREFIX) else member_of(item)


def invitation_of(item: Item) -> Invitation:
    """An invitation's record. Without a readable expiry it has expired."""
    return Invitation(
        tenant_id=TenantId(text(item, "tenant_id")),
        id=InvitationId(text(item, "user_id").removeprefix(INVITATION_PREFIX)),
        address=text(item, "address"),
        role=_known(Role, text(item, "role"), Role.VIEWER),
        invited_by=text(item, "invited_by"),
        created_at=time(item, "created_at"),
        expires_at=time(item, "expires_at"),
        request_hash=text(item, "request_hash") or None,
    )


def agent_of(item: Item) -> Agent | None:
    """An agent's record; None for a claim, which stands in the same table."""
    agent_id = text(item, "id")
    if agent_id.startswith(CLAIM_PREFIX):
        return None
    return Agent(
        tenant_id=TenantId(text(item, "tenant_id")),
        id=AgentId(agent_id),
        name=text(item, "name") or agent_id,
        description=text(item, "description"),
        public_key=text(item, "public_key"),
        capabilities=_texts(item, "capabilities"),
        status=_agent_status(item.get("status")),
        created_at=time(item, "created_at"),
        updated_at=time(item, "updated_at"),
        epoch=_number(item, "epoch"),
        key_serial=_number(item, "key_serial"),
        key_added_at=time(item, "key_added_at") if "key_added_at" in item else None,
        keys=keys_of(item),
        keys_version=_number(item, KEYS_VERSION),
        channels=frozenset(ChannelId(channel_id) for channel_id in entries_of(item, "channels")),
        request_hash=text(item, "request_hash") or None,
    )


def keys_of(item: Item) -> tuple[AgentKey, ...]:
    """The keys of an agent beside its first one, by their serials. One of a status that ArtCafe doesn't know is disabled."""
    keys = [
        AgentKey(
            line=text(entry, "public_key"),
            added_at=time(entry, "added_at"),
            status=_known(KeyStatus, text(entry, "status"), KeyStatus.DISABLED),
            serial=_number(entry, "serial"),
            not_after=time(entry, "not_after") if "not_after" in entry else None,
            request=text(entry, "request") or None,
            request_hash=text(entry, "request_hash") or None,
        )
        for entry in entries_of(item, "keys").values()
        if isinstance(entry, Mapping)
    ]
    return tuple(sorted(keys, key=lambda key: key.serial))


def channel_of(item: Item) -> Channel:
    """A channel's record. A type that ArtCafe doesn't know, or none, is a broadcast."""
    channel_id = text(item, "id")
    return Channel(
        tenant_id=TenantId(text(item, "tenant_id")),
        id=ChannelId(channel_id),
        name=text(item, "name") or channel_id,
        description=text(item, "description"),
        type=_known(ChannelType, text(item, "type"), ChannelType.BROADCAST),
        access=_access(item.get("access")),
        retention_s=max(_number(item, "retention_s"), 0) or None,
        removed_to=removed_to_of(item),
        created_at=time(item, "created_at"),
        updated_at=time(item, "updated_at"),
        request_hash=text(item, "request_hash") or None,
    )


def removed_to_of(item: Item) -> Cursor:
    """How far a channel's messages are gone."""
    removed = entries_of(item, REMOVED_TO)
    epoch = text(removed, "epoch")
    return Cursor(epoch=Epoch(epoch), seq=_number(removed, "seq")) if epoch else Cursor()


def removed_before_of(item: Item) -> datetime | None:
    """The time before which all of them were stored; None where that was not noted, or cannot be read."""
    before = time(entries_of(item, REMOVED_TO), "before")
    return None if before == UNKNOWN_TIME else before


def subscription_of(item: Item) -> Subscription:
    """A subscription's record. None for a status means active; one that ArtCafe doesn't know receives nothing."""
    status = item.get("status")
    return Subscription(
        tenant_id=TenantId(text(item, "tenant_id")),
        channel_id=ChannelId(text(item, "channel_id")),
        agent_id=AgentId(text(item, "agent_id")),
        status=SubscriptionStatus.ACTIVE
        if status is None or status == ""
        else _known(SubscriptionStatus, text(item, "status"), SubscriptionStatus.PAUSED),
        permissions=_permissions(item),
        cursor=Cursor(epoch=Epoch(epoch) if (epoch := text(item, "epoch")) else None, seq=_number(item, "acked_seq")),
        created_at=time(item, "created_at"),
        updated_at=time(item, "updated_at"),
    )


def challenge_of(item: Item) -> Challenge:
    """A challenge's record. Without a readable expiry it has expired."""
    return Challenge(
        id=ChallengeId(text(item, "challenge_id")),
        text=text(item, "challenge"),
        tenant_id=TenantId(text(item, "tenant_id")),
        agent_id=AgentId(text(item, "agent_id")),
        expires_at=time(item, "expires_at"),
    )


def entries_of(item: Item, name: str) -> Mapping[str, Value]:
    """The map of that name, or an empty one."""
    value = item.get(name)
    return value if isinstance(value, Mapping) else {}


def is_deleting(item: Item) -> bool:
    """Whether the thing's deletion has begun."""
    return item.get(DELETING) is True


def is_number(value: Value) -> bool:
    """Whether an engine can add to it."""
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


# --- to items --------------------------------------------------------------------------------------------------------


def tenant_item(tenant: Tenant) -> Item:
    """The item of a new tenant."""
    return {
        "id": tenant.id,
        "name": tenant.name,
        "plan": tenant.plan,
        "limits": dict(tenant.limits),
        "created_at": times.to_text(tenant.created_at),
        "updated_at": times.to_text(tenant.updated_at),
        "version": tenant.version,
        "agent_count": tenant.agent_count,
        "channel_count": tenant.channel_count,
        "member_count": tenant.member_count,
        **_hash(tenant.request_hash),
    }


def buried_item(tenant: Tenant, by: UserId, now: datetime) -> Item:
    """What is kept of a tenant that was deleted."""
    return {
        "id": tenant.id,
        "name": tenant.name,
        "plan": tenant.plan,
        "created_at": times.to_text(tenant.created_at),
        "updated_at": times.to_text(now),
        "version": tenant.version + 1,
        DELETING: True,
        BURIED: times.to_text(now),
        "deleted_by": by,
        **_hash(tenant.request_hash),
    }


def member_item(member: Member) -> Item:
    """The item of a membership, the same in both tables."""
    return {
        "user_id": member.user_id,
        "tenant_id": member.tenant_id,
        "role": member.role.value,
        "joined_at": times.to_text(member.joined_at),
        **({} if member.address is None else {"address": member.address}),
        **({} if member.invitation_id is None else {"invitation_id": member.invitation_id}),
    }


def invitation_item(invitation: Invitation) -> Item:
    """The item of a new invitation."""
    return {
        "tenant_id": invitation.tenant_id,
        "user_id": INVITATION_PREFIX + invitation.id,
        "address": invitation.address,
        "role": invitation.role.value,
        "invited_by": invitation.invited_by,
        "created_at": times.to_text(invitation.created_at),
        "expires_at": times.to_text(invitation.expires_at),
        **_hash(invitation.request_hash),
    }


def agent_item(agent: Agent) -> Item:
    """The item of a new agent."""
    return {
        "tenant_id": agent.tenant_id,
        "id": agent.id,
        "name": agent.name,
        "description": agent.description,
        "public_key": agent.public_key,
        "capabilities": agent.capabilities,
        "status": agent.status.value,
        "created_at": times.to_text(agent.created_at),
        "updated_at": times.to_text(agent.updated_at),
        "epoch": agent.epoch,
        "channels": dict.fromkeys(agent.channels, True),
        **_hash(agent.request_hash),
    }


def keys_value(keys: Iterable[AgentKey]) -> Value:
    """What stands in an agent's `keys`: a map by their ids."""
    return {key_id(key.line): _key_entry(key) for key in keys}


def _key_entry(key: AgentKey) -> Value:
    entry: dict[str, Value] = {
        "public_key": key.line,
        "added_at": times.to_text(key.added_at),
        "status": key.status.value,
        "serial": key.serial,
    }
    if key.not_after is not None:
        entry["not_after"] = times.to_text(key.not_after)
    if key.request is not None:
        entry["request"] = key.request
    return {**entry, **_hash(key.request_hash)}


def channel_item(channel: Channel) -> Item:
    """The item of a new channel."""
    return {
        "tenant_id": channel.tenant_id,
        "id": channel.id,
        "name": channel.name,
        "description": channel.description,
        "type": channel.type.value,
        "access": channel.access.value,
        **({} if channel.retention_s is None else {"retention_s": channel.retention_s}),
        "created_at": times.to_text(channel.created_at),
        "updated_at": times.to_text(channel.updated_at),
        **_hash(channel.request_hash),
    }


def subscription_item(subscription: Subscription) -> Item:
    """The item of a new subscription. `start_seq` stays as it began; `acked_seq` moves on from there."""
    epoch = subscription.cursor.epoch
    return {
        "tenant_id": subscription.tenant_id,
        "id": subscription.id,
        "channel_id": subscription.channel_id,
        "agent_id": subscription.agent_id,
        "status": subscription.status.value,
        "permissions": sorted(permission.value for permission in subscription.permissions),
        "start_seq": subscription.cursor.seq,
        "acked_seq": subscription.cursor.seq,
        "created_at": times.to_text(subscription.created_at),
        "updated_at": times.to_text(subscription.updated_at),
        **({} if epoch is None else {"epoch": epoch}),
    }


def removed_to_value(removed_to: Cursor, before: datetime | None) -> Value:
    """What stands in a channel's `removed_to`."""
    place: dict[str, Value] = {"epoch": removed_to.epoch, "seq": removed_to.seq}
    return place if before is None else {**place, "before": times.to_text(before)}


def challenge_item(challenge: Challenge) -> Item:
    """The item of a new challenge; its times are whole seconds, as the table's TTL wants them."""
    return {
        "challenge_id": challenge.id,
        "challenge": challenge.text,
        "tenant_id": challenge.tenant_id,
        "agent_id": challenge.agent_id,
        "expires_at": times.to_text(challenge.expires_at),
        "ttl": int(challenge.expires_at.timestamp()),
    }


# --- attributes ------------------------------------------------------------------------------------------------------


def _hash(request_hash: str | None) -> Item:
    return {} if request_hash is None else {"request_hash": request_hash}


def text(item: Item, name: str) -> str:
    """The text of that name, or none."""
    value = item.get(name)
    return value if isinstance(value, str) else ""


def _texts(item: Item, name: str) -> tuple[str, ...]:
    value = item.get(name)
    if isinstance(value, AbstractSet):
        return tuple(sorted(member for member in value if isinstance(member, str)))
    return tuple(member for member in value if isinstance(member, str)) if isinstance(value, list) else ()


def _number(item: Item, name: str) -> int:
    value = item.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def time(item: Item, name: str) -> datetime:
    """RFC 3339, or what older systems wrote: the same without a zone, meaning UTC, or a number since 1970."""
    value = item.get(name)
    try:
        if isinstance(value, str):
            return _time_of_text(value)
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            return datetime.fromtimestamp(float(value / 1000 if value > _MILLISECONDS_ABOVE else value), UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return UNKNOWN_TIME


def _time_of_text(text: str) -> datetime:
    try:
        return times.from_text(text)
    except ValueError:
        return times.from_text(text + "Z")


def _agent_status(value: Value) -> AgentStatus:
    """Older rows told in it whether the agent was connected; what nobody knows, or is no text, may not log in."""
    if value is None:
        return AgentStatus.ACTIVE
    is_active = isinstance(value, str) and (value in _OLDER_ACTIVE or value == AgentStatus.ACTIVE)
    return AgentStatus.ACTIVE if is_active else AgentStatus.DISABLED


def _access(value: Value) -> Access:
    """None means open, as every channel of an older system is; what nobody knows is managed, the one that lets fewer in."""
    return Access.OPEN if value is None or value == Access.OPEN else Access.MANAGED


def _permissions(item: Item) -> frozenset[Permission]:
    if "permissions" not in item:
        return frozenset({Permission.RECEIVE})
    return frozenset(Permission(text) for text in _texts(item, "permissions") if text in Permission._value2member_map_)


def _known(kind: type[StatusT], text: str, otherwise: StatusT) -> StatusT:
    return kind(text) if text in kind._value2member_map_ else otherwise
