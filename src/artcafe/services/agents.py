"""Agents of a tenant and their first keys. Login with a key is in `login`; additional keys are in `keys`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from artcafe.errors import AgentNotFound, Conflict, HandleTaken, LimitReached, TenantNotFound
from artcafe.model import Agent, AgentId, AgentKey, AgentStatus, ChannelId, Cursor, Principal, TenantId
from artcafe.observe.clock import Clock
from artcafe.rules import access, fields, handles, inboxes, keys, times
from artcafe.rules.access import Action
from artcafe.rules.idempotency import KeyedRequest, check_repeat, repeat_of_deleted
from artcafe.rules.pages import FIRST, Page, PageRequest
from artcafe.rules.plans import Limit, Plans
from artcafe.services import handle_claims, key_claims
from artcafe.services.audit import Audit
from artcafe.services.changes import Changes
from artcafe.services.late_messages import purge_late
from artcafe.tables.agent_rows import KEYS_VERSION, keys_value
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.engine.writes import Assign, Change, Write
from artcafe.tables.store import Store
from artcafe.tables.tenant_store import RecordCount, TenantStore
from artcafe.wire.sshkeys import PublicKey, parse_public_key

_TRIES: Final = 5
"""Attempts at a change that conflicts with other changes of the same agent. Each failure means that another change succeeded."""
_DELETES_AT_ONCE: Final = 100


class InboxLogs(Protocol):
    """Stores the messages of inboxes."""

    async def position(self, tenant_id: TenantId) -> Cursor:
        """Return the end of the tenant's log. Raises Unavailable."""
        ...

    async def purge(self, tenant_id: TenantId, channel_id: ChannelId) -> None:
        """Delete every message of an inbox. May be repeated. Raises Unavailable."""
        ...


class Agents:
    """Operations of members on the agents of their tenant, and the reads allowed to agents."""

    def __init__(self, store: Store, changes: Changes, audit: Audit, clock: Clock, plans: Plans, logs: InboxLogs) -> None:
        self._store, self._changes, self._audit, self._clock, self._plans = store, changes, audit, clock, plans
        self._logs = logs

    async def create(
        self,
        principal: Principal,
        *,
        name: str,
        public_key: str,
        handle: str | None = None,
        description: str = "",
        capabilities: Iterable[str] = (),
        idempotency_key: str | None = None,
    ) -> Agent:
        """Create an agent with this key. With an idempotency key the request may be repeated, and returns the same agent.

        Without a `handle` it gets a free one made from its name. Raises Forbidden, Invalid, BadKey, KeyTaken, HandleTaken,
        LimitReached, IdempotencyMismatch if the idempotency key belongs to another request, and Conflict if the agent of this
        request was deleted.
        """
        access.check(principal, Action.CHANGE_AGENTS)
        name, description, named = fields.name(name), fields.description(description), fields.capabilities(capabilities)
        key = parse_public_key(public_key)
        given = None if handle is None else handles.check(handle)
        request = KeyedRequest(idempotency_key, principal.tenant_id, principal.sender, "agents")
        now = self._clock()
        position = await self._logs.position(principal.tenant_id)
        agent = Agent(
            tenant_id=principal.tenant_id,
            id=AgentId(request.new_id("agt")),
            handle=given,
            name=name,
            description=description,
            public_key=key.line,
            capabilities=named,
            created_at=now,
            updated_at=now,
            inbox=position if position.epoch else None,
            request_hash=request.hash(name, description, key.line, *named, *handles.hashed(given)),
        )
        async with self._audit.action(principal, "agent.create", agent.id, name=name, key=key.fingerprint):
            return await self._insert(self._store.tenant(principal.tenant_id), agent, key)

    async def list(
        self,
        principal: Principal,
        page_request: PageRequest = FIRST,
        *,
        status: AgentStatus | None = None,
        capability: str | None = None,
        only: Callable[[Agent], bool] = lambda _: True,
    ) -> Page[Agent]:
        """Return a page of the tenant's agents in id order, filtered by status, capability and `only`. Raises Forbidden.

        `only` filters by facts outside the rows, such as presence.
        """
        access.check(principal, Action.READ_AGENTS)

        def matches(agent: Agent) -> bool:
            return status in (None, agent.status) and (capability is None or capability in agent.capabilities) and only(agent)

        return await self._store.tenant(principal.tenant_id).agents(page_request, matches)

    async def get(self, principal: Principal, agent_id: str) -> Agent:
        """Return an agent. Raises Forbidden and AgentNotFound."""
        access.check(principal, Action.READ_AGENTS)
        return await require_agent(self._store.tenant(principal.tenant_id), agent_id)

    async def update(
        self,
        principal: Principal,
        agent_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        capabilities: Sequence[str] | None = None,
        status: AgentStatus | None = None,
        public_key: str | None = None,
        handle: str | None = None,
    ) -> Agent:
        """Change the given fields. A new status or first key raises the agent's epoch: its tokens become invalid and its sockets
        are closed, whichever key they were opened with. Its additional keys stay (`services.keys`).

        May be repeated. Raises Forbidden, AgentNotFound, Invalid, BadKey, KeyTaken, HandleTaken, and Conflict after `_TRIES`
        conflicts.
        """
        access.check(principal, Action.CHANGE_AGENTS)
        changes: list[Change] = []
        if name is not None:
            changes.append(Assign("name", fields.name(name)))
        if description is not None:
            changes.append(Assign("description", fields.description(description)))
        if capabilities is not None:
            changes.append(Assign("capabilities", fields.capabilities(capabilities)))
        key = None if public_key is None else parse_public_key(public_key)
        handle = None if handle is None else handles.check(handle)
        tenant = self._store.tenant(principal.tenant_id)
        await require_agent(tenant, agent_id)
        async with self._audit.action(principal, "agent.change", agent_id, **_facts(name, handle, status, key)):
            for _ in range(_TRIES):
                if await self._changed(tenant, await require_agent(tenant, agent_id), changes, status, key, handle):
                    return await require_agent(tenant, agent_id)
            raise Conflict(f"agent {agent_id} is being changed by other requests at the same time; try again")

    async def delete(self, principal: Principal, agent_id: str) -> None:
        """Delete the agent, its subscriptions and the messages of its inbox. Its tokens become invalid, its sockets are closed.

        A repeat continues an interrupted deletion. Raises Forbidden, AgentNotFound and Unavailable.
        """
        access.check(principal, Action.CHANGE_AGENTS)
        tenant = self._store.tenant(principal.tenant_id)
        if await tenant.agent(agent_id, also_deleting=True) is None:
            raise AgentNotFound(agent_id)
        async with self._audit.action(principal, "agent.delete", agent_id):
            try:
                await self._changes.commit(tenant, tenant.touch(), tenant.begin_agent_deletion(AgentId(agent_id)))
                # Read again: once marked as deleting, an agent gets no further keys or channels.
                agent = await tenant.agent(agent_id, also_deleting=True)
                if agent is not None:
                    await self._remove(tenant, agent)
            except ConditionFailed as failed:
                raise AgentNotFound(agent_id) from failed

    # --- the transactions ---

    async def _insert(self, tenant: TenantStore, agent: Agent, key: PublicKey) -> Agent:
        row = await tenant.tenant()
        if row is None:
            raise TenantNotFound(tenant.id)
        limit = self._plans.limit_of(row, Limit.AGENTS)
        checks: list[Write] = []
        if agent.request_hash is not None:
            checks.append(tenant.tombstones.check_absent(agent.id, self._clock()))
        claim = tenant.claim_key(key.fingerprint, agent.id)
        for attempt in range(handle_claims.TRIES):
            try:
                named, handle_claim = await handle_claims.choose(tenant, agent, attempt)
                writes = [tenant.insert_agent(named), *checks, claim, handle_claim]
                await self._changes.commit(tenant, tenant.count(RecordCount.AGENTS, 1, limit), *writes)
            except (ConditionFailed, HandleTaken) as failed:
                # Check for a repeat first: its first attempt may have reached the limit, and claimed the key and the handle.
                existing = await self._existing(tenant, agent)
                if existing is not None:
                    return existing
                if isinstance(failed, HandleTaken):
                    raise
                if 0 in failed.failed:
                    raise LimitReached(
                        Limit.AGENTS.value, limit, tenant.count_in(failed.failed[0], RecordCount.AGENTS)
                    ) from failed
                stale = await key_claims.owner_without(tenant, key)
                claim = tenant.claim_key(key.fingerprint, agent.id, instead_of=stale)
            else:
                return named
        raise Conflict("the agent or its key is being changed by another request at the same time; try again")

    async def _existing(self, tenant: TenantStore, agent: Agent) -> Agent | None:
        """Return the agent created by an earlier attempt of the same request, or None.

        Raises IdempotencyMismatch if another request created it, and Conflict if it was deleted.
        """
        existing = await tenant.agent(agent.id)
        if existing is not None:
            check_repeat(existing.request_hash, agent.request_hash)
        elif await tenant.tombstones.is_there(agent.id, self._clock()):
            raise repeat_of_deleted("an agent that was deleted")
        return existing

    async def _changed(
        self,
        tenant: TenantStore,
        agent: Agent,
        changes: Sequence[Change],
        status: AgentStatus | None,
        key: PublicKey | None,
        handle: str | None,
    ) -> bool:
        """Commit the changes. Return False if the agent was changed since it was read."""
        proofs: list[Change] = []
        claimed: list[Write] = []
        if handle not in (None, agent.handle):
            changes = [*changes, Assign("handle", handle)]
            claimed += await handle_claims.exchange(tenant, agent, handle)
        if status is not None and status is not agent.status:
            proofs.append(Assign("status", status.value))
        if key is not None and key != keys.admitted(agent.public_key):
            others = [each for each in agent.keys if keys.canonical(each.line) != key.line]
            proofs += self._first(agent, key, others)
            claimed.append(await key_claims.claim(tenant, key, agent.id))
            claimed += await key_claims.release(tenant, agent, [agent.public_key])
            claimed += [tenant.tombstones.put(request, self._clock()) for request in keys.dropped_requests(agent, others)]
        if proofs:
            # Assign and not `Add`: the update requires the epoch that was read, and an older system's may not be a number.
            proofs.append(Assign("epoch", agent.epoch + 1))
        if not (changes or proofs):
            return True
        changes = [*changes, *proofs, Assign("updated_at", times.to_text(self._clock()))]
        try:
            await self._changes.commit(tenant, tenant.touch(), tenant.change_agent(agent, changes), *claimed)
        except ConditionFailed:
            return False
        return True

    def _first(self, agent: Agent, key: PublicKey, others: Sequence[AgentKey]) -> Sequence[Change]:
        """Return the changes for another first key, with `others` as additional keys."""
        version = agent.keys_version + 1
        return [
            Assign("public_key", key.line),
            Assign("key_serial", version),
            Assign("key_added_at", times.to_text(self._clock())),
            Assign("keys", keys_value(others)),
            Assign(KEYS_VERSION, version),
        ]

    async def _remove(self, tenant: TenantStore, agent: Agent) -> None:
        """Delete the rows of an agent marked as deleting."""
        channels = sorted(agent.channels)
        for start in range(0, len(channels), _DELETES_AT_ONCE):
            some = channels[start : start + _DELETES_AT_ONCE]
            await tenant.transact([tenant.subscriptions.delete(channel_id, agent.id) for channel_id in some])
        await self._logs.purge(tenant.id, inboxes.inbox_of(agent.id))
        writes = await key_claims.release(tenant, agent, [key.line for key in keys.all_of(agent)])
        writes += await handle_claims.release(tenant, agent)
        if agent.request_hash is not None:  # Else a repeat of the request would create it again.
            writes.append(tenant.tombstones.put(agent.id, self._clock()))
        await self._changes.commit(tenant, tenant.count(RecordCount.AGENTS, -1), tenant.delete_agent(agent.id), *writes)
        await purge_late(self._logs, tenant.id, [inboxes.inbox_of(agent.id)])


async def require_agent(tenant: TenantStore, agent_id: str) -> Agent:
    """Return an agent. Raises AgentNotFound."""
    agent = await tenant.agent(agent_id)
    if agent is None:
        raise AgentNotFound(agent_id)
    return agent


def _facts(name: str | None, handle: str | None, status: AgentStatus | None, key: PublicKey | None) -> dict[str, str]:
    """Return the audit facts of a change."""
    facts: dict[str, str | None] = {
        "name": name,
        "handle": handle,
        "status": None if status is None else status.value,
        "key": None if key is None else key.fingerprint,
    }
    return {fact: text for fact, text in facts.items() if text is not None}
