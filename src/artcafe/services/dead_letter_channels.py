"""The dead-letter channels of queues: one is made with each queue, or an existing channel is named for it.

A dead-letter channel is a `broadcast` channel whose row says that it is one. One that was made with a queue is deleted with it; a
channel that a queue names cannot be deleted.
"""

from __future__ import annotations

from typing import Final

from artcafe.errors import ChannelNotFound, Conflict, Invalid
from artcafe.fabric.channel_kinds import KINDS
from artcafe.model import Access, Channel, ChannelId, ChannelType
from artcafe.rules import fields, ids
from artcafe.tables import rows
from artcafe.tables.engine.writes import Assign, Write
from artcafe.tables.tenant_store import TenantStore

SUFFIX: Final = ".dead"


def made_with(queue: Channel) -> Channel:
    """Return the dead-letter channel to create with a queue. A repeat of the request makes the same one.

    Its name, and so its handle, is the queue's handle and `.dead`. It is managed: people read it, and agents to whom a member
    gives a subscription.
    """
    return Channel(
        tenant_id=queue.tenant_id,
        id=ChannelId(ids.derived_id("chn", queue.tenant_id, queue.id, "dead letters")),
        name=(queue.handle or queue.name)[: fields.NAME_CHARS - len(SUFFIX)] + SUFFIX,
        description=f"Dead letters of {queue.handle or queue.id}",
        type=ChannelType.BROADCAST,
        access=Access.MANAGED,
        is_dead_letter=True,
        dead_letter_of=queue.id,
        created_at=queue.created_at,
        updated_at=queue.updated_at,
    )


async def named(tenant: TenantStore, type: ChannelType, text: str) -> tuple[ChannelId, Write]:
    """Return the id of an existing channel by its id or handle, and the write that makes it a dead-letter channel.

    The write fails if the channel is deleted meanwhile. `type` is that of the channel that names it. Raises ChannelNotFound, and
    Invalid for any other channel than `broadcast`.
    """
    if not KINDS[type].is_shared:
        raise Invalid("dead_letter", f"has no meaning for a {type.value} channel; only a queue channel has it")
    channel = await tenant.channel(await tenant.channel_id(text))
    if channel is None:
        raise ChannelNotFound(text)
    kind = KINDS[channel.type]
    if kind.is_shared or not kind.has_log:
        raise Invalid("dead_letter", f"must be a broadcast channel; {text} is a {channel.type.value} channel")
    return channel.id, tenant.change_channel(channel, [Assign(rows.IS_DEAD_LETTER, True)])


async def deleted_with(tenant: TenantStore, channel: Channel) -> list[ChannelId]:
    """Return the channels to delete together: a queue with its own dead-letter channel, unless another queue names that too.

    Raises Conflict for the dead-letter channel of a queue.
    """
    if channel.is_dead_letter:
        if users := await _queues_of(tenant, channel.id):
            raise Conflict(
                f"this is the dead-letter channel of {users[0]}: delete that queue, or give it another dead_letter, first"
            )
        return [channel.id]
    if not KINDS[channel.type].is_shared:
        return [channel.id]
    channels = await tenant.all_channels()
    made = {each.id for each in channels if each.dead_letter_of == channel.id}  # the queue may name another one since
    of_others = {each.dead_letter for each in channels if each.id != channel.id}
    return [channel.id, *sorted(made - of_others)]


async def _queues_of(tenant: TenantStore, dead_letter: ChannelId) -> list[ChannelId]:
    return [channel.id for channel in await tenant.all_channels() if channel.dead_letter == dead_letter]
