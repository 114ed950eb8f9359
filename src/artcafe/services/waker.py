"""Wake agents that are away: a webhook announces waiting messages, without their data (decision record 60).

Publishing knows nothing of it. For the tenants that are open here and have policies, this server compares the log with the
cursors of agents that are connected nowhere, once a second and only after the log has grown. Before it sends, it writes a claim
into the agent's row, which one of several servers can do. What was not answered with success is tried again, by this server or,
after the claim's end, by another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from artcafe.errors import ArtcafeError, OurFault
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.log_state import LogState
from artcafe.model import Agent, AgentId, AgentStatus, Cursor, Seq, TenantChange, TenantId, TenantStatus
from artcafe.observe import metrics
from artcafe.observe.clock import Clock
from artcafe.observe.logs import log
from artcafe.rules import ids, subjects, wake, webhook_signatures
from artcafe.rules.subjects import Subject
from artcafe.rules.wake import MAX_FAILURES, WakePolicy, WakeState
from artcafe.services.audit import Audit
from artcafe.services.changes import Changes
from artcafe.services.waiting_messages import WaitingChannel, WaitingMessages, body_of
from artcafe.services.watched_tenant import FAR, WatchedTenant
from artcafe.services.webhook_sender import WebhookAnswer, WebhookSender
from artcafe.supervision import Supervisor
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.store import Store
from artcafe.tables.wake_rows import WakeRow, marks_tenant

LOOK_S: Final = 1.0
"""Seconds between two looks at the open tenants with policies."""
LOOK: Final = timedelta(seconds=LOOK_S)
AWAY: Final = timedelta(seconds=5)
"""How long an agent that has left is given to reconnect before it is woken for what it had not acknowledged."""
LEASE: Final = timedelta(seconds=60)
"""How long a claim is valid: longer than an attempt takes."""
OTHERS: Final = timedelta(seconds=5)
"""How long a server leaves a webhook to the one that is first for its tenant, which may not have the tenant open."""
SETTLING_S: Final = 5.0
"""How long after its start, or the end of another server, a server looks for tenants that only that one had open."""
AT_ONCE: Final = 64
AT_ONCE_IN_TENANT: Final = 2
"""Webhooks under way from this server, and to one tenant: an endpoint that does not answer holds up its own tenant alone."""
READS_AT_ONCE: Final = 4
HELD: Final = timedelta(seconds=10)
"""How often the queues of an agent are looked at whose messages are held without a connection, or wait for a later delivery."""
CHANNELS_AT_ONCE: Final = 500
ACTOR: Final = "server"
"""The actor in the audit when the server disables a policy."""


class _Webhook(NamedTuple):
    """A webhook to send: its id, the announced position, and its body."""

    id: str
    up_to: Seq
    body: bytes


class Waker:
    """Sends the webhooks of the tenants open on this server."""

    def __init__(
        self,
        store: Store,
        fabric: Fabric,
        waiting: WaitingMessages,
        changes: Changes,
        audit: Audit,
        clock: Clock,
        key: bytes,
        sender: WebhookSender,
    ) -> None:
        """`key` derives the secrets (`rules.webhook_signatures.secret_of`)."""
        self._store, self._fabric, self._waiting = store, fabric, waiting
        self._changes, self._audit, self._clock, self._key, self._sender = changes, audit, clock, key, sender
        self._tenants: dict[TenantId, WatchedTenant] = {}
        self._reads = asyncio.Semaphore(READS_AT_ONCE)
        self._sending = 0
        self._peers: set[str] = set()
        self._is_search_due = True
        self.supervisor = Supervisor("waker")

    def tenants(self) -> set[TenantId]:
        """Return the tenants with policies in memory."""
        return {tenant_id for tenant_id, watched in self._tenants.items() if watched.agents}

    def on_change(self, change: TenantChange) -> None:
        """Read changed policies and subscriptions again."""
        watched = self._tenants.get(change.tenant_id)
        if watched is None:
            return
        if watched.is_marked and not change.is_whole:
            watched.changed.update(change.agents, (agent_id for _, agent_id in change.subscriptions))
        elif change.is_whole or change.agents:  # An agent may have got the tenant's first policy.
            watched.is_read = False

    async def run(self) -> None:
        """Look at the open tenants until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._search_again())
            while True:
                with self.supervisor.contain():
                    self._look(group)
                await asyncio.sleep(LOOK_S)

    def _look(self, group: asyncio.TaskGroup) -> None:
        opened = {each.tenant_id: each for each in self._fabric.open_tenants()}
        for tenant_id, watched in list(self._tenants.items()):
            if opened.get(tenant_id) is not watched.tenant_fabric:
                del self._tenants[tenant_id]
        for tenant_id, tenant_fabric in opened.items():
            watched = self._tenants.get(tenant_id) or self._tenants.setdefault(tenant_id, WatchedTenant(tenant_fabric))
            if not watched.is_busy and not watched.is_idle:
                watched.is_busy = True
                group.create_task(self._work(watched, group))

    async def _work(self, watched: WatchedTenant, group: asyncio.TaskGroup) -> None:
        try:
            with self.supervisor.contain(tenant=watched.id):
                await self._try_step(watched, group)
        finally:
            watched.is_busy = False

    async def _try_step(self, watched: WatchedTenant, group: asyncio.TaskGroup) -> None:
        try:
            await self._refresh(watched)
            if watched.agents:
                await self._step(watched, group)
        except OurFault as exc:
            watched.stir()
            log.debug("waker.waits", tenant=watched.id, error=str(exc))

    # --- agents with policies ----------------------------------------------------------------------------------------

    async def _refresh(self, watched: WatchedTenant) -> None:
        """Read the policies of a tenant, or the changed ones. Raises `Unavailable`."""
        async with self._reads:
            wakes = self._store.wakes(watched.id)
            if not watched.is_read:
                watched.is_read, watched.changed = True, set()  # A change during the read makes it due again.
                try:
                    watched.is_marked = marks_tenant(await self._store.tenant(watched.id).item())
                    found = await wakes.with_policies() if watched.is_marked else []
                except OurFault:
                    watched.is_read = False
                    raise
                for agent_id in list(watched.agents):
                    watched.forget(agent_id)
                for row in found:
                    await self._take(watched, row, row.agent.id)
            while watched.changed:
                agent_id = watched.changed.pop()
                try:
                    await self._take(watched, await wakes.get(agent_id), agent_id)
                except OurFault:
                    watched.changed.add(agent_id)
                    raise
        watched.watch_presence()

    async def _take(self, watched: WatchedTenant, row: WakeRow | None, agent_id: AgentId) -> None:
        """Look after an agent if it has an enabled policy. Raises `Unavailable`."""
        if row is None or row.policy is None or not row.policy.is_enabled or row.agent.status is not AgentStatus.ACTIVE:
            watched.forget(agent_id)
        else:
            watched.set(row.agent, await self._waiting.channels_of(row.agent))

    async def _search_again(self) -> None:
        """Search at the start, and whenever another server has ended, which may have had tenants open that no other one has."""
        while True:
            await asyncio.sleep(SETTLING_S)
            peers = self._fabric.announcements.peers()
            self._is_search_due = self._is_search_due or bool(self._peers - peers)
            self._peers = peers
            if self._is_search_due:
                with self.supervisor.contain(), contextlib.suppress(OurFault):
                    await self._search()
                    self._is_search_due = False

    async def _search(self) -> None:
        """Open the tenants with policies for which this server is the first. Raises `Unavailable`."""
        for tenant_id in await self._fabric.log_ends():
            if tenant_id not in self._tenants and self._fabric.is_first_for(tenant_id):
                async with self._reads:
                    is_marked = marks_tenant(await self._store.tenant(tenant_id).item())
                if is_marked:
                    self._fabric.tenant(tenant_id, is_needed=False)

    # --- one look at a tenant ----------------------------------------------------------------------------------------

    async def _step(self, watched: WatchedTenant, group: asyncio.TaskGroup) -> None:
        """Begin the due webhooks, and note when to look again. Raises `Unavailable`."""
        tenant_log = await watched.tenant_fabric.connected_log()
        state = await tenant_log.state()
        if state is None:
            return
        if watched.looked_at == (state.epoch, state.last_seq) and not watched.is_stirred and self._clock() < watched.due_at:
            return
        if not await watched.tenant_fabric.presence.is_known():
            return
        if watched.looked_at[0] != state.epoch:
            watched.seen.clear()
        watched.is_stirred = False
        channels = sorted({channel for received in watched.channels.values() for some in received for channel in some})
        ends: dict[Subject, Seq] = {}
        for start in range(0, len(channels), CHANNELS_AT_ONCE):
            ends |= await tenant_log.last_seqs(channels[start : start + CHANNELS_AT_ONCE])
        due = [await self._consider(watched, agent, ends, state, group) for agent in list(watched.agents.values())]
        watched.due_at = min(due, default=FAR)
        watched.looked_at = (state.epoch, state.last_seq)

    async def _consider(
        self, watched: WatchedTenant, agent: Agent, ends: dict[Subject, Seq], state: LogState, group: asyncio.TaskGroup
    ) -> datetime:
        """Begin an agent's webhook if it is due. Return when to look again, unless something stirs before."""
        presence, now = watched.tenant_fabric.presence, self._clock()
        if agent.id in watched.sending or presence.find(agent.id) is not None:
            return FAR
        received = watched.channels[agent.id]
        idle_queues, is_known = await self._waiting.idle_queues(watched.id, received.queues)
        if not is_known:
            watched.stir()
        watched.note_idle_queues(agent.id, idle_queues, now + AWAY)
        newest = max(ends.get(subjects.stored(channel), 0) for channel in (*received.with_cursors, *idle_queues))
        if newest <= watched.seen.get(agent.id, 0):
            return FAR
        left_at = presence.left_at(agent.id)
        at = max(watched.not_before.get(agent.id, now), now if left_at is None else left_at + AWAY)
        if now < at:
            return at
        row = await self._store.wakes(watched.id).get(agent.id)
        if row is None or row.policy is None or not row.policy.is_enabled:
            watched.forget(agent.id)
            return FAR
        at = watched.not_before[agent.id] = _due_at(row.policy, row.state, now)
        if now < at:
            watched.noticed.pop(agent.id, None)
            return at
        if not self._fabric.is_first_for(watched.id) and now < (at := watched.noticed.setdefault(agent.id, now) + OTHERS):
            return at
        if self._sending >= AT_ONCE or len(watched.sending) >= AT_ONCE_IN_TENANT or not await self._is_active(watched.id):
            return now + LOOK
        return await self._begin(watched, row, row.policy, state, newest, group)

    async def _is_active(self, tenant_id: TenantId) -> bool:
        tenant = await self._store.tenant(tenant_id).tenant()
        return tenant is not None and tenant.status is TenantStatus.ACTIVE and not tenant.is_deleting

    async def _begin(
        self,
        watched: WatchedTenant,
        row: WakeRow,
        policy: WakePolicy,
        state: LogState,
        newest: Seq,
        group: asyncio.TaskGroup,
    ) -> datetime:
        """Claim an agent's webhook and send it, if unannounced messages wait."""
        idle_queues = watched.idle_queues[row.agent.id]
        waiting, has_held = await self._waiting.of(row.agent, state, row.state.notified, idle_queues, watched.tenant_fabric.log)
        watched.noticed.pop(row.agent.id, None)
        now = self._clock()
        if not waiting:
            if row.state.webhook_id is not None:  # The agent has acknowledged the announced messages: never announce them again.
                await self._write(watched.id, row.agent.id, msgspec.structs.replace(row.state, webhook_id=None, due_at=None))
            if has_held:
                return now + HELD
            watched.seen[row.agent.id] = newest
            return FAR
        webhook = self._webhook(watched, row, state, waiting, now)
        claim = msgspec.structs.replace(
            row.state, webhook_id=webhook.id, up_to=webhook.up_to, epoch=state.epoch, due_at=now + LEASE
        )
        if self._sending >= AT_ONCE:  # Another tenant's began during the reads.
            return now + LOOK
        watched.sending.add(row.agent.id)
        self._sending += 1
        is_claimed = False
        try:
            is_claimed = await self._write(watched.id, row.agent.id, claim)
        finally:
            if not is_claimed:
                self._end(watched, row.agent.id)
        if not is_claimed:
            return now + LOOK
        claim = msgspec.structs.replace(claim, serial=claim.serial + 1)
        group.create_task(self._send(watched, row.agent.id, policy, claim, webhook))
        return FAR

    def _webhook(
        self, watched: WatchedTenant, row: WakeRow, state: LogState, waiting: list[WaitingChannel], now: datetime
    ) -> _Webhook:
        """Return the webhook waiting for another attempt, if its messages still wait, or else a new one."""
        before = row.state
        if before.webhook_id is not None and before.epoch == state.epoch and waiting[0].first <= before.up_to:
            id, up_to = before.webhook_id, before.up_to
        else:
            id, up_to = ids.new_id("whk"), max(state.last_seq, *(each.seq for each in waiting))
        known = watched.bodies.get(row.agent.id)
        body = known[1] if known is not None and known[0] == id else body_of(row.agent, waiting, now)
        watched.bodies[row.agent.id] = (id, body)
        return _Webhook(id, up_to, body)

    async def _write(self, tenant_id: TenantId, agent_id: AgentId, state: WakeState) -> bool:
        """Write a state. Return False if another one was written since it was read."""
        try:
            await self._store.transact([self._store.wakes(tenant_id).change_state(agent_id, state)])
        except ConditionFailed:
            return False
        return True

    # --- sending -----------------------------------------------------------------------------------------------------

    async def _send(
        self, watched: WatchedTenant, agent_id: AgentId, policy: WakePolicy, claim: WakeState, webhook: _Webhook
    ) -> None:
        try:
            with self.supervisor.contain(tenant=watched.id, agent=agent_id):
                now = self._clock()
                secrets = [webhook_signatures.secret_of(self._key, salt) for salt in wake.salts_at(policy, now)]
                headers = webhook_signatures.signed_headers(secrets, webhook.id, now, webhook.body)
                started = time.perf_counter()
                answer = await self._sender.send(policy.url, headers, webhook.body)
                metrics.WEBHOOK_SECONDS.of().observe(time.perf_counter() - started)
                metrics.WEBHOOKS.of("sent" if answer.problem is None else "failed").add()
                log.debug("webhook.sent", tenant=watched.id, agent=agent_id, webhook=webhook.id, problem=answer.problem)
                await self._settle(watched, agent_id, policy, claim, answer)
        finally:
            self._end(watched, agent_id)

    def _end(self, watched: WatchedTenant, agent_id: AgentId) -> None:
        watched.sending.discard(agent_id)
        self._sending -= 1
        watched.stir()

    async def _settle(
        self, watched: WatchedTenant, agent_id: AgentId, policy: WakePolicy, claim: WakeState, answer: WebhookAnswer
    ) -> None:
        """Write the outcome of an attempt. If that fails, the claim's end leads to another attempt."""
        now = self._clock()
        try:
            if answer.problem is None:
                watched.bodies.pop(agent_id, None)
                notified = Cursor(epoch=claim.epoch, seq=claim.up_to)
                await self._write(watched.id, agent_id, WakeState(serial=claim.serial, notified=notified, sent_at=now))
                return
            failures = claim.failures + 1
            due_at = now + timedelta(seconds=max(wake.retry_s(failures), wake.retry_after_s(answer.retry_after, now)))
            failed = msgspec.structs.replace(claim, failures=failures, failure=answer.problem, due_at=due_at)
            if answer.is_gone or failures >= MAX_FAILURES:
                await self._disable(watched.id, agent_id, policy, failed)
            else:
                await self._write(watched.id, agent_id, failed)
        except ArtcafeError as exc:  # Such as a tenant suspended meanwhile.
            log.debug("webhook.not_settled", tenant=watched.id, agent=agent_id, error=str(exc))

    async def _disable(self, tenant_id: TenantId, agent_id: AgentId, policy: WakePolicy, state: WakeState) -> None:
        """Disable a policy after failures for too long, unless it was changed meanwhile. Raises `Unavailable`."""
        problem = f"{state.failures} failed attempts, the last one: {state.failure}"
        disabled = msgspec.structs.replace(policy, is_enabled=False, problem=problem)
        tenant = self._store.tenant(tenant_id)
        log.info("webhook.disabled", tenant=tenant_id, agent=agent_id, problem=problem)
        with contextlib.suppress(ConditionFailed):
            async with self._audit.change(tenant_id, ACTOR, "agent.wake_disable", agent_id, problem=problem):
                change = self._store.wakes(tenant_id).change(agent_id, state, disabled)
                await self._changes.commit(tenant, tenant.touch(), change)
                metrics.WAKES_DISABLED.of().add()


def _due_at(policy: WakePolicy, state: WakeState, now: datetime) -> datetime:
    """Return when a policy allows the next attempt."""
    if state.webhook_id is not None:
        at = state.due_at or now
    else:
        at = now if state.sent_at is None else state.sent_at + timedelta(seconds=policy.interval_s)
    at = max(at, now)
    return wake.quiet_until(policy.quiet_hours, at) or at
