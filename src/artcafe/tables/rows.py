"""Tenants, channels, subscriptions and challenges as items, and back. Which item is read or written, and when, is `store`'s.

Items of an older system are read with sound defaults: what is not understood gives no rights. Nothing here rewrites such an
item; an update changes the attributes that it names. Agents are `agent_rows`', people `people_rows`', single attributes
`attributes`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from artcafe.model import (
    Access,
    AgentId,
    Challenge,
    ChallengeId,
    Channel,
    ChannelId,
    ChannelType,
    Cursor,
    Epoch,
    Permission,
    Subscription,
    SubscriptionStatus,
    Tenant,
    TenantId,
    TenantStatus,
    UserId,
)
from artcafe.rules import times
from artcafe.tables import limit_rows
from artcafe.tables.attributes import (
    entries_of,
    expiry,
    hash_attribute,
    is_number,
    known,
    number,
    text,
    texts,
    time,
    time_attribute,
)
from artcafe.tables.engine.conditions import And, Condition, Exists, NotEquals
from artcafe.tables.engine.values import Item, Value

DELETING: Final = "deleting"
"""The attribute of an agent, channel or tenant whose deletion has begun: to everyone but that deletion it is gone."""

IS_PRESENT: Final[Condition] = And(Exists("id"), NotEquals(DELETING, True))
"""The row exists and is not being deleted, as a condition of a write; the counterpart of `is_deleting`. An older system may
have stored any other value than true there."""
TOMBSTONE: Final = "deleted_at"
"""The attribute of a tenant of which nothing is left but the record that there was one."""

READ_FLAGS: Final = ("read", "subscribe")
WRITE_FLAGS: Final = ("write", "publish", "manage")
"""The names in the older system's map of a subscription's permissions."""

REMOVED_TO: Final = "removed_to"
"""The attribute of a channel that says how far its messages are gone: a map of `epoch` and `seq`."""


def tenant_of(item: Item) -> Tenant:
    """A tenant's record. A status that ArtCafe doesn't know is an older system's own, and suspends nobody (decision 15)."""
    tenant_id = text(item, "id")
    return Tenant(
        id=TenantId(tenant_id),
        name=text(item, "name") or tenant_id,
        plan=limit_rows.plan_of(item),
        limits=limit_rows.limits_of(item),
        created_at=time(item, "created_at"),
        updated_at=time(item, "updated_at"),
        version=number(item, "version"),
        agent_count=number(item, "agent_count"),
        channel_count=number(item, "channel_count"),
        member_count=number(item, "member_count"),
        status=known(TenantStatus, text(item, "status"), TenantStatus.ACTIVE),
        is_deleting=is_deleting(item),
        request_hash=text(item, "request_hash") or None,
    )


def channel_of(item: Item) -> Channel:
    """A channel's record. A type that ArtCafe doesn't know, or none, is a broadcast."""
    channel_id = text(item, "id")
    return Channel(
        tenant_id=TenantId(text(item, "tenant_id")),
        id=ChannelId(channel_id),
        name=text(item, "name") or channel_id,
        description=text(item, "description"),
        type=known(ChannelType, text(item, "type"), ChannelType.BROADCAST),
        access=_access(item.get("access")),
        retention_s=max(number(item, "retention_s"), 0) or None,
        removed_to=removed_to_of(item),
        created_at=time(item, "created_at"),
        updated_at=time(item, "updated_at"),
        request_hash=text(item, "request_hash") or None,
    )


def removed_to_of(item: Item) -> Cursor:
    """How far a channel's messages are gone."""
    removed = entries_of(item, REMOVED_TO)
    epoch = text(removed, "epoch")
    return Cursor(epoch=Epoch(epoch), seq=number(removed, "seq")) if epoch else Cursor()


def removed_before_of(item: Item) -> datetime | None:
    """The time before which all of them were stored; None where that was not noted, or cannot be read."""
    return time(entries_of(item, REMOVED_TO), "before")


def subscription_of(item: Item) -> Subscription:
    """A subscription's record. None for a status means active; one that ArtCafe doesn't know receives nothing."""
    status = item.get("status")
    return Subscription(
        tenant_id=TenantId(text(item, "tenant_id")),
        channel_id=ChannelId(text(item, "channel_id")),
        agent_id=AgentId(text(item, "agent_id")),
        status=SubscriptionStatus.ACTIVE
        if status is None or status == ""
        else known(SubscriptionStatus, text(item, "status"), SubscriptionStatus.PAUSED),
        permissions=_permissions(item),
        cursor=Cursor(epoch=Epoch(epoch) if (epoch := text(item, "epoch")) else None, seq=number(item, "acked_seq")),
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
        expires_at=expiry(item, "expires_at"),
    )


def is_deleting(item: Item) -> bool:
    """Whether the thing's deletion has begun."""
    return item.get(DELETING) is True


def tenant_item(tenant: Tenant) -> Item:
    """The item of a new tenant."""
    return {
        "id": tenant.id,
        "name": tenant.name,
        "plan": tenant.plan,
        "limits": dict(tenant.limits),
        **time_attribute("created_at", tenant.created_at),
        **time_attribute("updated_at", tenant.updated_at),
        "version": tenant.version,
        "agent_count": tenant.agent_count,
        "channel_count": tenant.channel_count,
        "member_count": tenant.member_count,
        **hash_attribute(tenant.request_hash),
    }


def tombstone_item(tenant: Tenant, by: UserId, now: datetime) -> Item:
    """What is kept of a tenant that was deleted."""
    return {
        "id": tenant.id,
        "name": tenant.name,
        "plan": tenant.plan,
        **time_attribute("created_at", tenant.created_at),
        "updated_at": times.to_text(now),
        "version": tenant.version + 1,
        DELETING: True,
        TOMBSTONE: times.to_text(now),
        "deleted_by": by,
        **hash_attribute(tenant.request_hash),
    }


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
        **time_attribute("created_at", channel.created_at),
        **time_attribute("updated_at", channel.updated_at),
        **hash_attribute(channel.request_hash),
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
        **time_attribute("created_at", subscription.created_at),
        **time_attribute("updated_at", subscription.updated_at),
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


def _access(value: Value) -> Access:
    """None means open, as every channel of an older system is; what nobody knows is managed, the one that lets fewer in."""
    return Access.OPEN if value is None or value == Access.OPEN else Access.MANAGED


def _permissions(item: Item) -> frozenset[Permission]:
    """Return what a subscription lets its agent do: receive where the row says nothing about it.

    The older system kept a map of flags that it never enforced; in it an agent receives unless `read` and `subscribe` are
    refused, and publishes if one of `write`, `publish` and `manage` is granted.
    """
    value = item.get("permissions")
    if value is None:
        return frozenset({Permission.RECEIVE})
    if isinstance(value, Mapping):
        reading = [value[flag] for flag in READ_FLAGS if flag in value]
        receives = not reading or any(map(is_granted, reading))
        publishes = any(is_granted(value.get(flag)) for flag in WRITE_FLAGS)
        granted = {Permission.RECEIVE: receives, Permission.PUBLISH: publishes}
        return frozenset(permission for permission, is_given in granted.items() if is_given)
    return frozenset(Permission(text) for text in texts(item, "permissions") if text in Permission._value2member_map_)


def is_granted(flag: Value) -> bool:
    """Return whether a flag in the older system's map of permissions is true: it wrote 1, and people true."""
    return flag is True or (is_number(flag) and flag == 1)
