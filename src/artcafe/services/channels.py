"""Channels of a tenant. `messaging` publishes to them; `subscriptions` has their receivers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from functools import partial
from typing import Final, Protocol

import msgspec

from artcafe.errors import ChannelNotFound, Conflict, HandleTaken, Invalid, LimitReached, TenantNotFound
from artcafe.fabric.channel_kinds import KINDS
from artcafe.model import Access, AgentPrincipal, Channel, ChannelId, ChannelType, Principal, QueueSettings, Tenant, TenantId
from artcafe.observe.clock import Clock
from artcafe.rules import access as rules
from artcafe.rules import fields, handles, queues, times
from artcafe.rules.access import Action
from artcafe.rules.idempotency import KeyedRequest, check_repeat, repeat_of_deleted
from artcafe.rules.pages import DEFAULT_LIMIT, FIRST, Page, PageRequest, each_page
from artcafe.rules.plans import Limit, Plans
from artcafe.rules.queues import QueueChange
from artcafe.services import dead_letter_channels, handle_claims
from artcafe.services.audit import Audit
from artcafe.services.changes import Changes
from artcafe.services.late_messages import purge_late
from artcafe.services.subscriptions import end
from artcafe.tables import rows
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.engine.writes import Assign, Change, Remove, Write
from artcafe.tables.store import Store
from artcafe.tables.tenant_store import RecordCount, TenantStore

_TRIES: Final = 5
"""Attempts at a change that conflicts with other changes of the channel's handle. Each failure means that another succeeded."""


class ChannelLogs(Protocol):
    """Stores the messages of channels."""

    async def purge(self, tenant_id: TenantId, channel_id: ChannelId) -> None:
        """Delete every message of the channel. May be repeated, and does nothing for a channel without messages."""
        ...

    async def is_queue_done(self, tenant_id: TenantId, channel_id: ChannelId) -> bool:
        """Return whether every message of a queue channel has ended. Raises `Unavailable`."""
        ...


class Keep(Enum):
    """Marks a missing argument, where None is a value."""

    AS_IT_IS = auto()


class Channels:
    """Operations of members on the channels of their tenant."""

    def __init__(self, store: Store, changes: Changes, audit: Audit, clock: Clock, fabric: ChannelLogs, plans: Plans) -> None:
        self._store, self._changes, self._audit, self._clock, self._fabric = store, changes, audit, clock, fabric
        self._plans = plans

    async def create(
        self,
        principal: Principal,
        *,
        name: str,
        handle: str | None = None,
        description: str = "",
        type: ChannelType = ChannelType.BROADCAST,
        access: Access = Access.OPEN,
        retention_s: int | None = None,
        queue: QueueChange = queues.UNCHANGED,
        dead_letter: str | None = None,
        idempotency_key: str | None = None,
    ) -> Channel:
        """Create a channel. With an idempotency key the request may be repeated, and returns the same channel.

        Without a `handle` the channel gets a free one made from its name. `retention_s`: seconds to keep a message; None uses the
        plan's. `queue`: the settings of a `queue` channel that differ from the defaults. `dead_letter`: the id or handle of an
        existing channel for its dead letters; None makes one with it. Raises Forbidden, Invalid, ChannelNotFound for the
        dead-letter channel, HandleTaken, LimitReached (also for a longer retention than the plan's), IdempotencyMismatch if the
        key belongs to another request, and Conflict if the channel of this request was deleted.
        """
        rules.check(principal, Action.CHANGE_CHANNELS)
        name, description = fields.name(name), fields.description(description)
        given = None if handle is None else handles.check(handle)
        request = KeyedRequest(idempotency_key, principal.tenant_id, principal.sender, "channels")
        settings = _queue_settings(queue, type, QueueSettings() if KINDS[type].is_shared else None)
        hashed = () if settings is None else (msgspec.json.encode(settings).decode(), *filter(None, (dead_letter,)))
        now = self._clock()
        channel = Channel(
            tenant_id=principal.tenant_id,
            id=ChannelId(request.new_id("chn")),
            handle=given,
            name=name,
            description=description,
            type=type,
            access=access,
            retention_s=retention_s,
            queue=settings,
            created_at=now,
            updated_at=now,
            request_hash=request.hash(
                name, description, type.value, access.value, str(retention_s), *hashed, *handles.hashed(given)
            ),
        )
        async with self._audit.action(principal, "channel.create", channel.id, name=name, access=access.value):
            return await self._insert(self._store.tenant(principal.tenant_id), channel, dead_letter)

    async def list(self, principal: Principal, page_request: PageRequest = FIRST) -> Page[Channel]:
        """Return a page of the tenant's channels in id order; for an agent, of the visible ones. Raises Forbidden."""
        rules.check(principal, Action.READ_CHANNELS)
        tenant = self._store.tenant(principal.tenant_id)
        if not isinstance(principal, AgentPrincipal):
            return await tenant.channels(page_request)
        agent = await tenant.agent(principal.agent_id)
        subscribed = frozenset() if agent is None else frozenset(agent.channels)
        return await tenant.channels(page_request, lambda channel: channel.access is Access.OPEN or channel.id in subscribed)

    async def get(self, principal: Principal, channel_id: str) -> Channel:
        """Return a channel. Raises Forbidden, and ChannelNotFound also for a managed channel without a subscription of the agent
        that asks."""
        rules.check(principal, Action.READ_CHANNELS)
        tenant = self._store.tenant(principal.tenant_id)
        channel = await _require_channel(tenant, channel_id)
        if not isinstance(principal, AgentPrincipal) or channel.access is Access.OPEN:
            return channel
        if await tenant.subscriptions.get(channel.id, principal.agent_id) is None:
            rules.check_may_find(principal, channel_id)
        return channel

    async def update(
        self,
        principal: Principal,
        channel_id: str,
        *,
        name: str | None = None,
        handle: str | None = None,
        description: str | None = None,
        access: Access | None = None,
        retention_s: int | Keep | None = Keep.AS_IT_IS,
        queue: QueueChange = queues.UNCHANGED,
        dead_letter: str | None = None,
    ) -> Channel:
        """Change the given fields; a `retention_s` of None restores the plan's. May be repeated.

        Raises Forbidden, ChannelNotFound (also for the `dead_letter` channel), Invalid, HandleTaken, and Conflict after `_TRIES`
        changes of its handle by others, or for `key_ordered` of a queue with messages that have not ended.
        """
        rules.check(principal, Action.CHANGE_CHANNELS)
        changes: list[Change] = []
        handle = None if handle is None else handles.check(handle)
        if name is not None:
            changes.append(Assign("name", fields.name(name)))
        if description is not None:
            changes.append(Assign("description", fields.description(description)))
        if access is not None:
            changes.append(Assign("access", access.value))
        tenant = self._store.tenant(principal.tenant_id)
        channel = await _require_channel(tenant, channel_id)
        if not isinstance(retention_s, Keep):
            changes.append(self._retention(retention_s, channel.type, await _row(tenant)))
        settings = _queue_settings(queue, channel.type, channel.queue)
        if settings is not None and settings != channel.queue:
            await self._check_ordered(channel, settings)
            changes += [Assign(name, value) for name, value in rows.queue_attributes(settings).items()]
        beside: list[Write] = []
        if dead_letter is not None:
            dead_letter_id, write = await dead_letter_channels.named(tenant, channel.type, dead_letter)
            changes.append(Assign(rows.DEAD_LETTER, dead_letter_id))
            beside.append(write)
        if not changes and handle in (None, channel.handle):
            return channel
        changes.append(Assign("updated_at", times.to_text(self._clock())))
        async with self._audit.action(principal, "channel.change", channel.id, **_facts(access, handle)):
            for _ in range(_TRIES):
                if await self._changed(tenant, await _require_channel(tenant, channel_id), changes, beside, handle):
                    return await _require_channel(tenant, channel_id)
            raise Conflict(f"channel {channel_id} is being changed by other requests at the same time; try again")

    async def _check_ordered(self, channel: Channel, settings: QueueSettings) -> None:
        """Raise Conflict if messages that have not ended would become ordered: some later ones may have ended before them."""
        was_ordered = channel.queue is not None and channel.queue.key_ordered
        if settings.key_ordered and not was_ordered and not await self._fabric.is_queue_done(channel.tenant_id, channel.id):
            raise Conflict(
                f"channel {channel.id} has messages that are not acknowledged: switch key_ordered on once none is left, or create"
                " another channel with it"
            )

    async def delete(self, principal: Principal, channel_id: str) -> None:
        """Delete the channel with its subscriptions and messages; a queue also with the dead-letter channel that was made with
        it, unless another queue names that too.

        Raises Forbidden, ChannelNotFound, and Conflict for the dead-letter channel of a queue. A repeat continues an interrupted
        deletion.
        """
        rules.check(principal, Action.CHANGE_CHANNELS)
        tenant = self._store.tenant(principal.tenant_id)
        channel = await tenant.channel(channel_id, also_deleting=True)
        if channel is None:
            raise ChannelNotFound(channel_id)
        async with self._audit.action(principal, "channel.delete", channel_id):
            deleted = await dead_letter_channels.deleted_with(tenant, channel)
            try:
                await self._changes.commit(tenant, tenant.touch(), *map(tenant.begin_channel_deletion, deleted))
                # Read again: once marked as deleting, a channel gets no further handle.
                found = [await tenant.channel(each, also_deleting=True) for each in deleted]
                await self._remove(tenant, [each for each in found if each is not None])
            except ConditionFailed as failed:
                raise ChannelNotFound(channel_id) from failed

    # --- the transactions ---

    async def _changed(
        self, tenant: TenantStore, channel: Channel, changes: Sequence[Change], beside: Sequence[Write], handle: str | None
    ) -> bool:
        """Commit the changes, and the writes beside them. Return False if the channel was deleted or got another handle since it
        was read."""
        claims: list[Write] = []
        if handle not in (None, channel.handle):
            changes = [*changes, Assign("handle", handle)]
            claims = await handle_claims.exchange(tenant, channel, handle)
        try:
            await self._changes.commit(tenant, tenant.touch(), tenant.change_channel(channel, changes), *beside, *claims)
        except ConditionFailed:
            return False
        return True

    async def _remove(self, tenant: TenantStore, channels: Sequence[Channel]) -> None:
        """Delete the rows and messages of channels marked as deleting."""
        writes: list[Write] = []
        for channel in channels:
            await _remove_subscriptions(tenant, channel.id)
            await self._fabric.purge(tenant.id, channel.id)
            writes += [tenant.delete_channel(channel.id), *await handle_claims.release(tenant, channel)]
            if channel.request_hash is not None:  # Else a repeat of the request would create it again.
                writes.append(tenant.tombstones.put(channel.id, self._clock()))
        await self._changes.commit(tenant, tenant.count(RecordCount.CHANNELS, -len(channels)), *writes)
        await purge_late(self._fabric, tenant.id, [channel.id for channel in channels])

    async def _insert(self, tenant: TenantStore, channel: Channel, dead_letter: str | None) -> Channel:
        row = await _row(tenant)
        self._retention(channel.retention_s, channel.type, row)
        limit = self._plans.limit_of(row, Limit.CHANNELS)
        checks: list[Write] = []
        if channel.request_hash is not None:
            checks.append(tenant.tombstones.check_absent(channel.id, self._clock()))
        if dead_letter is not None:
            dead_letter_id, write = await dead_letter_channels.named(tenant, channel.type, dead_letter)
            channel = msgspec.structs.replace(channel, dead_letter=dead_letter_id)
            checks.append(write)
        for attempt in range(handle_claims.TRIES):
            try:
                made, claims = await _with_handles(tenant, channel, attempt)
                counted = tenant.count(RecordCount.CHANNELS, len(made), limit - len(made) + 1)
                await self._changes.commit(tenant, counted, *map(tenant.insert_channel, made), *checks, *claims)
            except (ConditionFailed, HandleTaken) as failed:
                # Check for a repeat first: its first attempt may have reached the limit, and claimed the handle.
                existing = await self._existing(tenant, channel)
                if existing is not None:
                    return existing
                if isinstance(failed, HandleTaken):
                    raise
                if 0 in failed.failed:
                    raise LimitReached(
                        Limit.CHANNELS.value, limit, tenant.count_in(failed.failed[0], RecordCount.CHANNELS)
                    ) from failed
            else:
                return made[0]
        raise Conflict("the channel or its handle is being changed by another request at the same time; try again")

    async def _existing(self, tenant: TenantStore, channel: Channel) -> Channel | None:
        """Return the channel created by an earlier attempt of the same request, or None.

        Raises IdempotencyMismatch if another request created it, and Conflict if it was deleted.
        """
        existing = await tenant.channel(channel.id)
        if existing is not None:
            check_repeat(existing.request_hash, channel.request_hash)
        elif await tenant.tombstones.is_there(channel.id, self._clock()):
            raise repeat_of_deleted("a channel that was deleted")
        return existing

    def _retention(self, seconds: int | None, type: ChannelType, tenant: Tenant) -> Change:
        """Return the change of a channel's retention. Raises Invalid and LimitExceeded."""
        if seconds is None:
            return Remove("retention_s")
        if not KINDS[type].has_log:
            raise Invalid("retention_s", f"has no meaning for a {type.value} channel, which stores nothing")
        return Assign("retention_s", self._plans.check_retention(seconds, tenant))


def _queue_settings(change: QueueChange, type: ChannelType, settings: QueueSettings | None) -> QueueSettings | None:
    """Return a channel's settings as a queue with a change, or None for another type. Raises Invalid."""
    if settings is not None:
        return change.apply_to(settings)
    for name in change.given:
        raise Invalid(name, f"has no meaning for a {type.value} channel; only a queue channel has it")
    return None


def _facts(access: Access | None, handle: str | None) -> dict[str, str]:
    """Return the audit facts of a change."""
    facts = {"access": None if access is None else access.value, "handle": handle}
    return {fact: text for fact, text in facts.items() if text is not None}


async def _with_handles(tenant: TenantStore, channel: Channel, attempt: int) -> tuple[list[Channel], list[Write]]:
    """Return a new channel with its handle, and behind it the dead-letter channel of a queue that names none; and the claims of
    their handles. Raises HandleTaken."""
    named, claim = await handle_claims.choose(tenant, channel, attempt)
    if channel.queue is None or channel.dead_letter is not None:
        return [named], [claim]
    made, its_claim = await handle_claims.choose(tenant, dead_letter_channels.made_with(named), attempt)
    return [msgspec.structs.replace(named, dead_letter=made.id), made], [claim, its_claim]


async def _row(tenant: TenantStore) -> Tenant:
    row = await tenant.tenant()
    if row is None:
        raise TenantNotFound(tenant.id)
    return row


async def _require_channel(tenant: TenantStore, channel_id: str) -> Channel:
    channel = await tenant.channel(channel_id)
    if channel is None:
        raise ChannelNotFound(channel_id)
    return channel


async def _remove_subscriptions(tenant: TenantStore, channel_id: ChannelId) -> None:
    """Delete the subscriptions to a channel marked as deleting. It takes no new ones."""
    async for page in each_page(partial(tenant.subscriptions.of_channel, channel_id), DEFAULT_LIMIT):
        for subscription in page.items:
            await end(tenant, subscription, tenant.transact)
