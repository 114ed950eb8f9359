"""Convert tenants, channels, subscriptions and challenges to items and back.

The stores decide when an item is read or written.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from artcafe.model import (
    Access,
    AgentId,
    ChallengeId,
    Channel,
    ChannelId,
    ChannelType,
    Cursor,
    Epoch,
    LoginChallenge,
    Permission,
    QueueSettings,
    SkippedRange,
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
    handle_attribute,
    handle_of,
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
"""The attribute of an agent, channel or tenant being deleted: everyone except the deletion itself treats it as deleted."""

IS_PRESENT: Final[Condition] = And(Exists("id"), NotEquals(DELETING, True))
"""True if the row exists and is not being deleted: `is_deleting` as a condition of a write. A value other than true, possibly
stored by an older system, does not count."""
TOMBSTONE: Final = "deleted_at"
"""The attribute that marks a tombstone: the remaining record of a deleted tenant."""
SUSPENDED_AT: Final = "suspended_at"
"""The attribute of a suspended tenant for the time of the command that suspended it."""

READ_FLAGS: Final = ("read", "subscribe")
WRITE_FLAGS: Final = ("write", "publish", "manage")
"""The flags in the older system's map of a subscription's permissions."""

SKIPPED: Final = "skipped"
"""The attribute of a subscription for the messages that its cursor was moved over: a map of `epoch`, `after` and `to`."""

REMOVED_TO: Final = "removed_to"
"""The attribute of a channel holding the newest removed message: a map of `epoch` and `seq`."""
DEAD_LETTER: Final = "dead_letter"
IS_DEAD_LETTER: Final = "is_dead_letter"
DEAD_LETTER_OF: Final = "dead_letter_of"
"""The attributes of queues and of dead-letter channels, as in `model.Channel`."""


def tenant_of(item: Item) -> Tenant:
    """Return the tenant in an item. An unknown status comes from an older system and suspends nobody (decision record 15)."""
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
        is_counted=all(is_number(item.get(name)) for name in ("agent_count", "channel_count", "member_count")),
        status=known(TenantStatus, text(item, "status"), TenantStatus.ACTIVE),
        is_deleting=is_deleting(item),
        request_hash=text(item, "request_hash") or None,
    )


def known_channel_of(item: Item) -> Channel | None:
    """Return the channel in an item, or None for a type of a newer version of ArtCafe.

    Delivering it as another type would be wrong, for example a task to every subscriber, so it is treated as missing. Rows of an
    older system may have any type, and are recognised by the lack of `access`.
    """
    kind = text(item, "type")
    is_newer = bool(kind) and kind not in ChannelType._value2member_map_ and "access" in item
    return None if is_newer else channel_of(item)


def channel_of(item: Item) -> Channel:
    """Return the channel in an item. A missing type, and any unknown one of an older system, reads as broadcast."""
    channel_id = text(item, "id")
    kind = known(ChannelType, text(item, "type"), ChannelType.BROADCAST)
    return Channel(
        tenant_id=TenantId(text(item, "tenant_id")),
        id=ChannelId(channel_id),
        handle=handle_of(item),
        name=text(item, "name") or channel_id,
        description=text(item, "description"),
        type=kind,
        access=_access(item.get("access")),
        retention_s=max(number(item, "retention_s"), 0) or None,
        queue=_queue_of(item) if kind is ChannelType.QUEUE else None,
        removed_to=removed_to_of(item),
        created_at=time(item, "created_at"),
        updated_at=time(item, "updated_at"),
        request_hash=text(item, "request_hash") or None,
        dead_letter=_channel_id(item, DEAD_LETTER),
        is_dead_letter=item.get(IS_DEAD_LETTER) is True,
        dead_letter_of=_channel_id(item, DEAD_LETTER_OF),
    )


def _queue_of(item: Item) -> QueueSettings:
    """Return the settings of a queue, with the default for a missing one."""
    default, pauses = QueueSettings(), item.get("back_off")
    return QueueSettings(
        ack_wait_s=number(item, "ack_wait_s") or default.ack_wait_s,
        back_off=tuple(each for each in pauses if isinstance(each, int)) if isinstance(pauses, list) else (),
        max_deliveries=number(item, "max_deliveries") or default.max_deliveries,
        key_ordered=item.get("key_ordered") is True,
    )


def queue_attributes(queue: QueueSettings) -> Item:
    """Return the attributes of a queue's settings."""
    return {
        "ack_wait_s": queue.ack_wait_s,
        "back_off": list(queue.back_off),
        "max_deliveries": queue.max_deliveries,
        "key_ordered": queue.key_ordered,
    }


def _channel_id(item: Item, name: str) -> ChannelId | None:
    found = text(item, name)
    return ChannelId(found) if found else None


def removed_to_of(item: Item, name: str = REMOVED_TO) -> Cursor:
    """Return the newest removed message of a channel."""
    removed = entries_of(item, name)
    epoch = text(removed, "epoch")
    return Cursor(epoch=Epoch(epoch), seq=number(removed, "seq")) if epoch else Cursor()


def removed_before_of(item: Item, name: str = REMOVED_TO) -> datetime | None:
    """Return the time before which the removed messages were stored; None if it is missing or unreadable."""
    return time(entries_of(item, name), "before")


def subscription_of(item: Item) -> Subscription:
    """Return the subscription in an item. A status of None means active; an unknown status receives nothing."""
    status = item.get("status")
    return Subscription(
        tenant_id=TenantId(text(item, "tenant_id")),
        channel_id=ChannelId(text(item, "channel_id")),
        agent_id=AgentId(text(item, "agent_id")),
        status=SubscriptionStatus.ACTIVE
        if status is None or status == ""
        else known(SubscriptionStatus, text(item, "status"), SubscriptionStatus.PAUSED),
        permissions=_permissions(item),
        cursor=Cursor(epoch=_epoch(item, "epoch"), seq=number(item, "acked_seq"), moves=number(item, "moves")),
        start=Cursor(epoch=_epoch(item, "start_epoch"), seq=number(item, "start_seq")),
        skipped=_skipped(item),
        acked_at=time(item, "acked_at"),
        created_at=time(item, "created_at"),
        updated_at=time(item, "updated_at"),
    )


def _epoch(item: Item, name: str) -> Epoch | None:
    return Epoch(epoch) if (epoch := text(item, name)) else None


def _skipped(item: Item) -> SkippedRange | None:
    skipped = entries_of(item, SKIPPED)
    epoch = _epoch(skipped, "epoch")
    return None if epoch is None else SkippedRange(epoch=epoch, after=number(skipped, "after"), to=number(skipped, "to"))


def skipped_value(skipped: SkippedRange) -> Value:
    """Return the value of a subscription's `skipped` attribute."""
    return {"epoch": skipped.epoch, "after": skipped.after, "to": skipped.to}


def challenge_of(item: Item) -> LoginChallenge:
    """Return the challenge in an item. Without a readable expiry it is expired."""
    return LoginChallenge(
        id=ChallengeId(text(item, "challenge_id")),
        text=text(item, "challenge"),
        tenant_id=TenantId(text(item, "tenant_id")),
        agent_id=AgentId(text(item, "agent_id")),
        expires_at=expiry(item, "expires_at"),
    )


def is_deleting(item: Item) -> bool:
    """Return whether the record is being deleted."""
    return item.get(DELETING) is True


def tenant_item(tenant: Tenant) -> Item:
    """Return the item of a new tenant."""
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
    """Return the tombstone of a deleted tenant."""
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
    """Return the item of a new channel."""
    return {
        "tenant_id": channel.tenant_id,
        "id": channel.id,
        **handle_attribute(channel.handle),
        "name": channel.name,
        "description": channel.description,
        "type": channel.type.value,
        "access": channel.access.value,
        **({} if channel.retention_s is None else {"retention_s": channel.retention_s}),
        **({} if channel.queue is None else queue_attributes(channel.queue)),
        **time_attribute("created_at", channel.created_at),
        **time_attribute("updated_at", channel.updated_at),
        **hash_attribute(channel.request_hash),
        **dead_letter_attributes(channel),
    }


def dead_letter_attributes(channel: Channel) -> dict[str, Value]:
    """Return the attributes of a queue's dead-letter channel, and of a dead-letter channel's queue."""
    names = {DEAD_LETTER: channel.dead_letter, DEAD_LETTER_OF: channel.dead_letter_of}
    found: dict[str, Value] = {name: id for name, id in names.items() if id is not None}
    return found | ({IS_DEAD_LETTER: True} if channel.is_dead_letter else {})


def subscription_item(subscription: Subscription) -> Item:
    """Return the item of a new subscription. `acked_seq` advances from `start_seq`, which only a move to below it changes."""
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
        **({} if epoch is None else {"epoch": epoch, "start_epoch": epoch}),
    }


def removed_to_value(removed_to: Cursor, before: datetime | None) -> Value:
    """Return the value of a channel's `removed_to` attribute."""
    position: dict[str, Value] = {"epoch": removed_to.epoch, "seq": removed_to.seq}
    return position if before is None else {**position, "before": times.to_text(before)}


def challenge_item(challenge: LoginChallenge) -> Item:
    """Return the item of a new challenge; its times are whole seconds, as DynamoDB's TTL requires."""
    return {
        "challenge_id": challenge.id,
        "challenge": challenge.text,
        "tenant_id": challenge.tenant_id,
        "agent_id": challenge.agent_id,
        "expires_at": times.to_text(challenge.expires_at),
        "ttl": int(challenge.expires_at.timestamp()),
    }


def _access(value: Value) -> Access:
    """Return a channel's access: open for None, as for every channel of an older system.

    Managed, the stricter one, for an unknown value.
    """
    return Access.OPEN if value is None or value == Access.OPEN else Access.MANAGED


def _permissions(item: Item) -> frozenset[Permission]:
    """Return the permissions of a subscription: receive, if the row has none.

    The older system kept a map of flags and never enforced it. In such a map the agent may receive unless `read` and `subscribe`
    are denied, and publish if one of `write`, `publish` and `manage` is granted.
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
    """Return whether a flag in the older system's permission map is set: it wrote 1, people wrote true."""
    return flag is True or (is_number(flag) and flag == 1)
