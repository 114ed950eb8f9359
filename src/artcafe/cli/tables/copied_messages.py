"""The messages of one tenant in `artcafe tables copy`: copied, and woken in the target."""

from __future__ import annotations

from typing import NamedTuple

from artcafe.cli.tables.copy_ends import CopyEnd
from artcafe.cli.terminal.progress import Progress
from artcafe.errors import TablesRefused
from artcafe.fabric import log_rewrite, snapshots, stream_copy
from artcafe.fabric.log_rewrite import LogNames
from artcafe.fabric.scheduled_messages import ScheduledMessages
from artcafe.fabric.scheduled_minutes import ScheduledMinutes, minute_of
from artcafe.fabric.stream_copy import ForeignStream
from artcafe.fabric.tenant_log import TenantLog
from artcafe.maintenance.id_mapping import IdMapping, NewIds
from artcafe.model import ChannelType, QueueSettings, TenantId
from artcafe.rules import inboxes
from artcafe.tables.store import Store


class CopiedMessages(NamedTuple):
    """The numbers of copied messages, of scheduled ones in a copy with new ids, and of those published meanwhile."""

    messages: int = 0
    scheduled: int = 0
    later: int = 0


async def copy_messages(
    here: CopyEnd, there: CopyEnd, tenant_id: TenantId, mapping: IdMapping, progress: Progress
) -> CopiedMessages:
    """Copy a tenant's messages from one NATS to another, or under new ids to the same one."""
    if here.log_identity == there.log_identity and not isinstance(mapping, NewIds):
        return CopiedMessages()  # Source and target use the same NATS: the messages are there already.
    replicas = await there.connector.replica_count()
    copy_id = mapping.tenant_id(tenant_id)
    async with here.connector.connect(tenant_id) as source, there.connector.connect(copy_id) as target:
        if isinstance(mapping, NewIds):
            names = await _new_names(here, tenant_id, mapping)
            rewritten, made = await log_rewrite.rewrite_log(source, target, names, replicas, progress.messages)
            mapping.map_position, mapping.end = made.translate, made.end
            found = [rewritten]
        else:
            try:
                found = [
                    await stream_copy.copy_stream(source, target, name, replicas) for name in await snapshots.stream_names(source)
                ]
            except ForeignStream as exc:
                raise TablesRefused(
                    f"the target has other messages of a tenant {tenant_id} already ({exc.stream})",
                    "copy to an installation without them, or use --new-ids",
                ) from exc
            progress.messages(sum(each.messages for each in found))
        later = 0
        for each in found:
            now = await snapshots.current(source, each.stream)
            later += max(0, now.last_seq - each.last_seq) if now is not None else 0
    return CopiedMessages(sum(each.messages for each in found), sum(each.scheduled for each in found), later)


async def _new_names(here: CopyEnd, tenant_id: TenantId, mapping: NewIds) -> LogNames:
    tenant = Store(here.engine).tenant(tenant_id)
    channels = await tenant.all_channels()
    ids = [each.id for each in channels] + [inboxes.inbox_of(each.id) for each in await tenant.all_agents()]
    queues = {each.id: each.queue or QueueSettings() for each in channels if each.type is ChannelType.QUEUE}
    return LogNames({id: mapping.channel(id) for id in ids}, mapping.sender, queues)


async def wake(there: CopyEnd, copy_id: TenantId) -> None:
    """Let the target's servers know when the copy's scheduled messages are due, also if nobody uses the tenant until then.

    After its row exists: a server forgets the minutes of an unknown tenant. May be repeated.
    """
    async with there.connector.connect(copy_id) as target:
        scheduled = ScheduledMessages(TenantLog(target))
        await scheduled.refresh()
    minutes = {minute_of(each) for each in scheduled.times()}
    if not minutes:
        return
    async with there.connector.connect(None) as platform:
        stored = ScheduledMinutes(platform, replicas=await there.connector.replica_count())
        for minute in sorted(minutes):
            await stored.put(copy_id, minute)
