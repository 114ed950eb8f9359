"""Moving the cursor of a subscription to a chosen position, forward or back. Connected sockets continue there."""

from __future__ import annotations

from typing import Final, Literal

from artcafe.errors import Conflict, Invalid, SubscriptionNotFound
from artcafe.fabric.channel_kinds import KINDS
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.log_state import LogState
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import AgentId, Cursor, Principal, Seq, SkippedRange, Subscription
from artcafe.observe.clock import Clock
from artcafe.rules import access, inboxes
from artcafe.rules.access import Action
from artcafe.services.audit import Audit
from artcafe.services.changes import Changes
from artcafe.services.history import LogPosition
from artcafe.services.record_cache import RecordCache
from artcafe.services.retention import Retention
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.store import Store

MoveTarget = LogPosition | Literal["first", "last"]
"""A sequence up to which everything counts as acknowledged, or the position before the first message stored at a time or later,
before the oldest stored message (`first`), or after the newest (`last`)."""

_TRIES: Final = 3


class CursorMoves:
    """Sets cursors, for members and for an agent's own subscriptions."""

    def __init__(
        self,
        store: Store,
        changes: Changes,
        audit: Audit,
        clock: Clock,
        record_cache: RecordCache,
        fabric: Fabric,
        retention: Retention,
    ) -> None:
        self._store, self._changes, self._audit, self._clock = store, changes, audit, clock
        self._record_cache, self._fabric, self._retention = record_cache, fabric, retention

    async def move(self, principal: Principal, channel_id: str, agent_id: str, target: MoveTarget) -> Subscription:
        """Set the cursor, and return the subscription. Every delivery of it begins again there, within 5 s on every server.

        Acks of messages sent before the move change nothing any more. May be repeated. Raises Forbidden, SubscriptionNotFound,
        Invalid for a sequence above the newest message and for a channel without cursors, Conflict and Unavailable.
        """
        access.check(principal, Action.CHANGE_SUBSCRIPTION, AgentId(agent_id))
        subscriptions = self._store.tenant(principal.tenant_id).subscriptions
        for _ in range(_TRIES):
            before = await subscriptions.get(channel_id, agent_id)
            if before is None:
                raise SubscriptionNotFound(agent_id)
            if inboxes.owner_of(before.channel_id) is not None:
                raise Invalid("cursor", "of an inbox cannot be moved")
            if await self._try_move(principal, before, await self._cursor_at(before, target)):
                moved = await subscriptions.get(channel_id, agent_id)
                if moved is None:
                    raise SubscriptionNotFound(agent_id)
                return moved
        raise Conflict(f"the cursor of agent {agent_id} in channel {channel_id} is being moved by other requests; try again")

    async def _cursor_at(self, subscription: Subscription, target: MoveTarget) -> Cursor:
        channel = await self._record_cache.channel(subscription.tenant_id, subscription.channel_id)
        if not KINDS[channel.type].has_cursors:
            raise Invalid("cursor", f"has no meaning for a {channel.type.value} channel, whose subscriptions have no cursor")
        tenant_log = await self._fabric.tenant(subscription.tenant_id).connected_log()
        state = await tenant_log.state()
        if state is None:
            if isinstance(target, int) and target > 0:
                raise _above(target, 0)
            return Cursor()
        return Cursor(epoch=state.epoch, seq=await self._seq(subscription, tenant_log, state, target))

    async def _seq(self, subscription: Subscription, tenant_log: TenantLog, state: LogState, target: MoveTarget) -> Seq:
        if target == "last":
            return state.last_seq
        if target == "first":
            return state.lineage.to_seq(await self._retention.removed_to(subscription.tenant_id, subscription.channel_id))
        if isinstance(target, int):
            if target > state.last_seq:
                raise _above(target, state.last_seq)
            return target
        if target > self._clock():  # NATS reads a time after 2262 as one in the past.
            return state.last_seq
        first = await tenant_log.since(subscription.channel_id, target)
        return state.last_seq if first is None else first - 1

    async def _try_move(self, principal: Principal, before: Subscription, to: Cursor) -> bool:
        """Write the cursor. Return False if another request moved it since the row was read."""
        tenant = self._store.tenant(principal.tenant_id)
        start = to if before.start.epoch in (None, to.epoch) and to.seq < before.start.seq else before.start
        update = tenant.subscriptions.move_cursor(before, to, start, skipped_by(before, to), self._clock())
        facts = {"from": str(before.cursor.seq), "to": str(to.seq)}
        try:
            # Also for an agent's own subscription: unlike a pause, a move can make messages never arrive.
            async with self._audit.action(principal, "subscription.move", before.id, **facts):
                await self._changes.commit(tenant, tenant.touch(), update)
        except ConditionFailed:
            return False
        return True


def skipped_by(before: Subscription, to: Cursor) -> SkippedRange | None:
    """Return the messages skipped by a move to `to`: not acknowledged, though below the cursor.

    One range covers all moves, so it may include messages that were acknowledged between two of them, and never the reverse.
    """
    if to.epoch is None:
        return None
    known = before.skipped if before.skipped is not None and before.skipped.epoch == to.epoch else None
    after, end = (to.seq, to.seq) if known is None else (known.after, min(known.to, to.seq))
    if before.cursor.epoch in (None, to.epoch) and before.cursor.seq < to.seq:
        after, end = min(after, before.cursor.seq), to.seq
    return SkippedRange(epoch=to.epoch, after=after, to=end) if after < end else None


def _above(seq: Seq, last: Seq) -> Invalid:
    return Invalid("cursor", f"is {seq}, above the newest message of the tenant's log, {last}; give a lower one, or last")
