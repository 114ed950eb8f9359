"""Receipts: the outcome of a message for each recipient, pushed to its publisher until it is settled or the deadline is over.

Nothing is stored for a message. While a receipt waits, its recipients' rows, presence and positions are looked up again, less and
less often; nothing is asked when nobody waits (decision record 52).
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from artcafe.errors import OurFault
from artcafe.fabric.channel_kinds import KINDS
from artcafe.fabric.fabric import Fabric
from artcafe.model import AgentId, ChannelId, Epoch, Permission, Seq, Subscription, TenantChange, TenantId
from artcafe.observe.logs import log
from artcafe.rules import times
from artcafe.rules.start_position import LogLineage
from artcafe.services.delivery_states import FINAL, SENT, DeliveryState, is_recipient
from artcafe.services.queue_outcomes import MessageOutcome, QueueOutcomes
from artcafe.services.recipients import Look, Recipients
from artcafe.services.record_cache import RecordCache
from artcafe.supervision import Supervisor
from artcafe.wire import frames, receipts, replies

FIRST_S: Final = 0.05
SLOWEST_S: Final = 1.0
SLOWER: Final = 1.5
"""Time between two looks, and how it grows as long as no other receipt begins."""
PER_RECIPIENT_S: Final = 20e-6
"""Least time between two looks for each recipient looked up, so that they take a small part of the event loop."""
ROWS_S: Final = 2.0
"""How long the subscriptions of a channel are used before they are read again. A change on any server ends it earlier."""
MAX_RECEIPTS: Final = 2000
MAX_OPEN: Final = 5000
"""Receipts of a tenant that a server follows at once, and their recipients. Further ones end at once with `too_many`."""
PER_PUSH: Final = 200
"""Recipients in one push: at most some 20 KB."""

Push = Callable[[receipts.ReceiptPush], None]


@dataclass(slots=True, eq=False)
class FollowedReceipt:
    """A message and its recipients, followed for its publisher."""

    tenant_id: TenantId
    channel_id: ChannelId
    channel: str
    """The channel as the publisher named it."""
    seq: Seq
    message_id: str | None
    level: frames.ReceiptLevel
    deadline: float
    push: Push
    expires_at: datetime | None = None
    epoch: Epoch | None = None
    states: dict[AgentId, DeliveryState] | None = None
    """The last known state of each recipient; None before the first look."""
    is_of_queue: bool = False
    outcome: MessageOutcome | None = None
    """In a queue, whose message has one state: the last known one."""

    def is_open(self, state: DeliveryState) -> bool:
        """Return whether the publisher waits for more than this state."""
        if self.level == "stored":
            return False
        return state not in (SENT if self.level == "delivered" else FINAL)

    def open_agents(self) -> list[AgentId]:
        return [agent_id for agent_id, state in (self.states or {}).items() if self.is_open(state)]

    def end(self, reason: str) -> None:
        """Push the end without any recipient."""
        self.push(self._part([], None, reason))

    def report_outcome(self, outcome: MessageOutcome, reason: str | None) -> None:
        """Push the state of a message of a queue. With a reason it is the end."""
        self.outcome = outcome
        shown = receipts.Recipient(outcome.agent, outcome.state.value, reason=outcome.reason)
        self.push(self._part([shown], int(self.is_open(outcome.state)), reason))

    def report(self, changed: list[receipts.Recipient], reason: str | None) -> None:
        """Push changed recipients in parts; the last one is the end if there is a reason."""
        count = len(self.open_agents())
        starts = range(0, len(changed), PER_PUSH) if changed else range(1 if reason else 0)
        for start in starts:
            self.push(self._part(changed[start : start + PER_PUSH], count, reason if start == starts[-1] else None))

    def _part(self, recipients: list[receipts.Recipient], count: int | None, reason: str | None) -> receipts.ReceiptPush:
        return receipts.ReceiptPush(
            channel=self.channel,
            seq=self.seq,
            message_id=self.message_id,
            receipt=self.level,
            recipients=recipients,
            open=count,
            final=reason is not None,
            reason=reason,
            queue=self.is_of_queue,
        )


@dataclass(slots=True)
class _ChannelRows:
    rows: dict[AgentId, Subscription] | None
    read_at: float


@dataclass(slots=True, eq=False)
class _TenantReceipts:
    """The waiting receipts of one tenant, and the rows of their channels."""

    tenant_id: TenantId
    waiting: dict[FollowedReceipt, None] = field(default_factory=dict)
    rows: dict[ChannelId, _ChannelRows] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    changes: int = 0


class Receipts:
    """The receipts for publishers on this server."""

    def __init__(self, fabric: Fabric, record_cache: RecordCache, recipients: Recipients, queue_outcomes: QueueOutcomes) -> None:
        self._fabric, self._record_cache = fabric, record_cache
        self._recipients, self._queue_outcomes = recipients, queue_outcomes
        self._tenants: dict[TenantId, _TenantReceipts] = {}
        self._begun: list[_TenantReceipts] = []
        self._has_begun = asyncio.Event()
        self.supervisor = Supervisor("receipts")

    def follow(
        self, tenant_id: TenantId, name: str, publish: frames.Publish, reply: replies.PublishReply, push: Push
    ) -> FollowedReceipt | None:
        """Push the outcome of a message stored in the channel with this id or handle, until a final push. Return None if that
        was pushed at once."""
        assert publish.receipt is not None
        channel = self._record_cache.peek_destination(tenant_id, name)
        deadline = time.monotonic() + (publish.receipt_s or frames.RECEIPT_S)
        channel_id = ChannelId(name) if channel is None else channel.id
        seq = reply.seq
        assert seq is not None, "a receipt is requested in channels with a log only"
        receipt = FollowedReceipt(tenant_id, channel_id, publish.channel, seq, reply.message_id, publish.receipt, deadline, push)
        tenant = self._tenants.get(tenant_id)
        receipt.expires_at = None if publish.expires_at is None else times.from_text(publish.expires_at)
        if channel is None or (tenant is not None and len(tenant.waiting) >= MAX_RECEIPTS):
            receipt.end("unavailable" if channel is None else "too_many")
            return None
        receipt.is_of_queue = KINDS[channel.type].is_shared
        if tenant is None:
            tenant = self._tenants[tenant_id] = _TenantReceipts(tenant_id)
            self._begun.append(tenant)
            self._has_begun.set()
        tenant.waiting[receipt] = None
        tenant.news.set()
        return receipt

    def cancel(self, receipt: FollowedReceipt) -> None:
        """Follow a receipt no more, because its publisher has left. May be repeated."""
        tenant = self._tenants.get(receipt.tenant_id)
        if tenant is not None:
            tenant.waiting.pop(receipt, None)

    def on_change(self, change: TenantChange) -> None:
        """Read the changed subscriptions again before the next look."""
        tenant = self._tenants.get(change.tenant_id)
        if tenant is not None:
            tenant.changes += 1
            tenant.rows.clear()

    async def run(self) -> None:
        """Follow the receipts of each tenant with any, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._has_begun.wait()
                self._has_begun.clear()
                begun, self._begun = self._begun, []
                for tenant in begun:
                    group.create_task(self._serve(tenant))

    async def _serve(self, tenant: _TenantReceipts) -> None:
        """Look until no receipt of the tenant waits."""
        pause_s = FIRST_S
        while tenant.waiting:
            looked_up = 0
            with self.supervisor.contain(tenant=tenant.tenant_id):
                looked_up = await self._try_look(tenant)
            if not tenant.waiting:
                break
            least_s = max(pause_s, looked_up * PER_RECIPIENT_S)
            soonest = min(receipt.deadline for receipt in tenant.waiting) - time.monotonic()
            await asyncio.sleep(max(FIRST_S, min(least_s, soonest)))
            pause_s = FIRST_S if tenant.news.is_set() else min(SLOWEST_S, pause_s * SLOWER)
            tenant.news.clear()
        del self._tenants[tenant.tenant_id]

    async def _try_look(self, tenant: _TenantReceipts) -> int:
        try:
            return await self._look(tenant)
        except OurFault as exc:
            log.debug("receipts.wait", tenant=tenant.tenant_id, error=repr(exc))
            for receipt in [each for each in tenant.waiting if time.monotonic() >= each.deadline]:
                del tenant.waiting[receipt]
                receipt.end("unavailable")
            return 0

    async def _look(self, tenant: _TenantReceipts) -> int:
        """Look up the recipients of every waiting receipt, and push changes. Return the number looked up."""
        now = time.monotonic()
        lineage = await self._lineage(tenant.tenant_id)
        of_queues = [receipt for receipt in tenant.waiting if receipt.is_of_queue]
        receipts = [receipt for receipt in tenant.waiting if not receipt.is_of_queue]
        if of_queues:
            await self._look_at_queues(tenant, of_queues, lineage, now)
        is_last = {receipt.channel_id for receipt in receipts if now >= receipt.deadline}
        rows = {
            channel_id: await self._rows(tenant, channel_id, 0.0 if channel_id in is_last else ROWS_S)
            for channel_id in {receipt.channel_id for receipt in receipts}
        }
        wanted: defaultdict[ChannelId, set[AgentId]] = defaultdict(set)
        count = len(of_queues)
        for receipt in receipts:
            found = rows[receipt.channel_id]
            agents = [] if found is None else _agents(receipt, found, lineage)
            if found is None or receipt.epoch not in (None, lineage.epoch) or count + len(agents) > MAX_OPEN:
                tenant.waiting.pop(receipt, None)
                receipt.end("too_many" if receipt.epoch in (None, lineage.epoch) else "unavailable")
                continue
            receipt.epoch = lineage.epoch
            count += len(agents)
            wanted[receipt.channel_id].update(agents)
        look = await self._recipients.look(tenant.tenant_id, wanted)
        for receipt in receipts:
            found = rows[receipt.channel_id]
            if receipt in tenant.waiting and found is not None:
                self._update(tenant, receipt, found, look, lineage, is_over=now >= receipt.deadline)
        return count

    async def _look_at_queues(
        self, tenant: _TenantReceipts, waiting: Sequence[FollowedReceipt], lineage: LogLineage, now: float
    ) -> None:
        """Look up the messages of queues, and push changes; at the deadline, also open ones."""
        wanted: defaultdict[ChannelId, dict[Seq, datetime | None]] = defaultdict(dict)
        for receipt in waiting:
            is_deleted = await self._record_cache.find_channel(tenant.tenant_id, receipt.channel_id) is None
            if is_deleted or receipt.epoch not in (None, lineage.epoch):
                tenant.waiting.pop(receipt, None)
                receipt.end("unavailable")
                continue
            receipt.epoch = lineage.epoch
            wanted[receipt.channel_id][receipt.seq] = receipt.expires_at
        found = await self._queue_outcomes.look(tenant.tenant_id, lineage.epoch, wanted)
        for receipt in waiting:
            if receipt not in tenant.waiting:
                continue
            outcome = found[receipt.channel_id, receipt.seq]
            is_over, is_open = now >= receipt.deadline, receipt.is_open(outcome.state)
            if is_over or not is_open:
                tenant.waiting.pop(receipt, None)
            if is_over or not is_open or outcome != receipt.outcome:
                receipt.report_outcome(outcome, "reached" if not is_open else "deadline" if is_over else None)

    def _update(
        self,
        tenant: _TenantReceipts,
        receipt: FollowedReceipt,
        rows: dict[AgentId, Subscription],
        look: Look,
        lineage: LogLineage,
        *,
        is_over: bool,
    ) -> None:
        """Push the changed recipients of a receipt; at the deadline, also the open ones."""
        before = receipt.states
        states = dict(before or {})
        has_expired = receipt.expires_at is not None and look.now >= receipt.expires_at
        for agent_id in _agents(receipt, rows, lineage):
            state = _next_state(states.get(agent_id), rows.get(agent_id), receipt.seq, look, lineage)
            is_known = DeliveryState.DELIVERED in (states.get(agent_id), None if has_expired else state)
            states[agent_id] = DeliveryState.EXPIRED if has_expired and not is_known else state
        receipt.states = states
        still_open = receipt.open_agents()
        reason = "reached" if not still_open else "deadline" if is_over else None
        if reason is not None:
            tenant.waiting.pop(receipt, None)
        reported = {agent_id for agent_id, state in states.items() if before is None or before.get(agent_id) != state}
        if is_over:
            reported.update(still_open)
        receipt.report([_shown(agent_id, states[agent_id], rows.get(agent_id), look) for agent_id in sorted(reported)], reason)

    async def _lineage(self, tenant_id: TenantId) -> LogLineage:
        state = await (await self._fabric.tenant(tenant_id).connected_log()).state()
        return LogLineage(None) if state is None else state.lineage

    async def _rows(self, tenant: _TenantReceipts, channel_id: ChannelId, max_age_s: float) -> dict[AgentId, Subscription] | None:
        """Return the channel's subscriptions by agent, or None if there are too many to follow."""
        known = tenant.rows.get(channel_id)
        if known is not None and time.monotonic() - known.read_at < max_age_s:
            return known.rows
        changes, read_at = tenant.changes, time.monotonic()
        found = await self._recipients.subscriptions(tenant.tenant_id, channel_id)
        if changes == tenant.changes:  # else it may have changed during the read
            tenant.rows[channel_id] = _ChannelRows(found, read_at)
        return found


def _agents(receipt: FollowedReceipt, rows: dict[AgentId, Subscription], lineage: LogLineage) -> list[AgentId]:
    """Return the agents to look up: at first all recipients, then the open ones."""
    if receipt.states is None:
        active = {agent_id: row for agent_id, row in rows.items() if row.allows(Permission.RECEIVE)}
        return [agent_id for agent_id, row in active.items() if is_recipient(row, receipt.seq, lineage)]
    return receipt.open_agents()


def _next_state(
    before: DeliveryState | None, row: Subscription | None, seq: Seq, look: Look, lineage: LogLineage
) -> DeliveryState:
    if row is None:  # The subscription has ended.
        return before if before is DeliveryState.DELIVERED else DeliveryState.SKIPPED
    state = look.state(row, seq, lineage)
    # A position is lost with its socket; sent messages stay sent.
    return before if before is DeliveryState.DELIVERED and state not in FINAL else state


def _shown(agent_id: AgentId, state: DeliveryState, row: Subscription | None, look: Look) -> receipts.Recipient:
    seen = look.last_seen(row) if state is DeliveryState.AWAY and row is not None else None
    return receipts.Recipient(agent_id, state.value, None if seen is None else times.to_text(seen))
