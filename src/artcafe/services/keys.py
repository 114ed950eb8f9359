"""The keys of an agent beside its first one: added, disabled, revoked, so that keys can be exchanged without a break.

What a key has proven ends with it and with nothing else of the agent (decision record 13); another first key, which ends
everything, is `services.agents`'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from artcafe.errors import AgentNotFound, Conflict, Invalid, KeyLimit, KeyNotFound, KeyTaken
from artcafe.model import Agent, AgentKey, KeyStatus, Principal
from artcafe.observe.clock import Clock
from artcafe.rules import access, keys, times
from artcafe.rules.access import Action
from artcafe.rules.idempotency import Request, check_repeat, repeat_of_deleted
from artcafe.rules.pages import FIRST, Page, PageRequest
from artcafe.services import key_claims
from artcafe.services.audit import Audit
from artcafe.services.changes import Changes
from artcafe.tables.agent_rows import KEYS_VERSION, keys_value
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.engine.writes import Assign, Change, Remove, Write
from artcafe.tables.store import Store
from artcafe.tables.tenant_store import TenantStore
from artcafe.wire.sshkeys import PublicKey, parse_public_key

_TRIES: Final = 8
"""Of a change that met another one of the same agent. Each try means that somebody else's went through, so that of any number of
additions at once the last ones have found the agent full, not busy."""


class AgentKeys:
    """What members do with the keys of their tenant's agents."""

    def __init__(self, store: Store, changes: Changes, audit: Audit, clock: Clock) -> None:
        self._store, self._changes, self._audit, self._clock = store, changes, audit, clock

    async def list(self, principal: Principal, agent_id: str, page: PageRequest = FIRST) -> Page[tuple[Agent, AgentKey]]:
        """The agent's keys by their ids, each with the agent. Raises Forbidden and AgentNotFound."""
        access.check(principal, Action.READ_KEYS)
        agent = await _there(self._store.tenant(principal.tenant_id), agent_id)
        found = sorted((keys.key_id(key.line), key) for key in keys.all_of(agent))
        rest = [(id, key) for id, key in found if page.after is None or id > page.after]
        shown = rest[: page.limit]
        return Page(tuple((agent, key) for _, key in shown), shown[-1][0] if len(rest) > page.limit else None)

    async def get(self, principal: Principal, agent_id: str, key_id: str) -> tuple[Agent, AgentKey]:
        """Raises Forbidden, AgentNotFound and KeyNotFound."""
        access.check(principal, Action.READ_KEYS)
        agent = await _there(self._store.tenant(principal.tenant_id), agent_id)
        return agent, _found(agent, key_id)

    async def add(
        self,
        principal: Principal,
        agent_id: str,
        *,
        public_key: str,
        not_after: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> tuple[Agent, AgentKey]:
        """Add a key, active at once, perhaps only until `not_after`. With an idempotency key it may be repeated.

        Raises Forbidden, AgentNotFound, Invalid, BadKey, KeyTaken (also by this agent itself), KeyLimit, IdempotencyMismatch, and
        Conflict when the key of this request was taken from the agent, or others keep changing the agent.
        """
        access.check(principal, Action.CHANGE_AGENTS)
        key, now = parse_public_key(public_key), self._clock()
        if not_after is not None and not_after <= now:
            raise Invalid("not_after", "must lie in the future")
        request = Request(idempotency_key, principal.tenant_id, principal.sender, "keys", agent_id)
        hash = request.hash(key.line, "" if not_after is None else times.to_text(not_after))
        made = AgentKey(
            line=key.line,
            added_at=now,
            serial=0,
            not_after=not_after,
            request=None if hash is None else request.new_id("req"),
            request_hash=hash,
        )
        tenant = self._store.tenant(principal.tenant_id)
        await _there(tenant, agent_id)
        async with self._audit.action(principal, "key.add", agent_id, key=key.fingerprint):
            return await self._add(tenant, agent_id, made, key)

    async def _add(self, tenant: TenantStore, agent_id: str, made: AgentKey, key: PublicKey) -> tuple[Agent, AgentKey]:
        """Gives the agent the key, or finds that it was given it by the same request before."""
        for _ in range(_TRIES):
            agent = await _there(tenant, agent_id)
            first = next((each for each in agent.keys if made.request is not None and each.request == made.request), None)
            if first is not None:
                check_repeat(first.request_hash, made.request_hash)
                return agent, first
            _check_room(agent, key.line)
            # Read behind the agent: a key that goes meanwhile changes its row, and then the write below fails.
            if made.request is not None and await tenant.tombstones.is_there(made.request, self._clock()):
                raise repeat_of_deleted("a key that was taken from the agent")
            made = msgspec.structs.replace(made, serial=agent.keys_version + 1)
            if await self._changed(tenant, agent, [*agent.keys, made], await key_claims.claim(tenant, key, agent.id)):
                return agent, made
        raise _busy(agent_id)

    async def set_status(self, principal: Principal, agent_id: str, key_id: str, status: KeyStatus) -> tuple[Agent, AgentKey]:
        """Disables a key, which ends what it opened, or makes it active again, which brings none of that back. May be repeated.

        Where the first one goes another becomes first. Raises Forbidden, AgentNotFound, KeyNotFound, and Conflict for an agent's
        only lasting key or when others keep changing the agent.
        """

        def changed(agent: Agent, key: AgentKey) -> Sequence[AgentKey]:
            other = msgspec.structs.replace(key, line=keys.canonical(key.line), status=status)
            if status is KeyStatus.ACTIVE:
                other = msgspec.structs.replace(other, serial=agent.keys_version + 1)
            return [*(each for each in agent.keys if each is not key), other]

        action = "key.enable" if status is KeyStatus.ACTIVE else "key.disable"
        return await self._change(principal, action, agent_id, key_id, changed, unless=lambda key: key.status is status)

    async def revoke(self, principal: Principal, agent_id: str, key_id: str) -> None:
        """Takes a key from the agent for good, and ends what it opened. As `set_status` else."""

        def rest(agent: Agent, key: AgentKey) -> Sequence[AgentKey]:
            return [each for each in agent.keys if each is not key]

        await self._change(principal, "key.revoke", agent_id, key_id, rest)

    # --- the transaction ---

    async def _change(
        self,
        principal: Principal,
        action: str,
        agent_id: str,
        key_id: str,
        changed: Callable[[Agent, AgentKey], Sequence[AgentKey]],
        unless: Callable[[AgentKey], bool] = lambda _: False,
    ) -> tuple[Agent, AgentKey]:
        """Gives the agent the keys that `changed` says beside its first one, which the change may be about."""
        access.check(principal, Action.CHANGE_AGENTS)
        tenant = self._store.tenant(principal.tenant_id)
        key = _found(await _there(tenant, agent_id), key_id)
        async with self._audit.action(principal, action, agent_id, key=_fingerprint(key)):
            return await self._exchange(tenant, agent_id, key_id, changed, unless)

    async def _exchange(
        self,
        tenant: TenantStore,
        agent_id: str,
        key_id: str,
        changed: Callable[[Agent, AgentKey], Sequence[AgentKey]],
        unless: Callable[[AgentKey], bool],
    ) -> tuple[Agent, AgentKey]:
        for _ in range(_TRIES):
            agent = await _there(tenant, agent_id)
            key = _found(agent, key_id)
            if unless(key):
                return agent, key
            others, first = changed(agent, key), key not in agent.keys
            is_kept = any(each.line == keys.canonical(key.line) for each in others)
            freed = [] if is_kept else await key_claims.release(tenant, agent, [key.line])
            more: list[Change] = []
            if first:
                heir = _heir(agent)
                others, more = [each for each in others if each is not heir], _promotion(heir)
            if await self._changed(tenant, agent, others, *freed, more=more):
                agent = await _there(tenant, agent_id)
                return agent, keys.find(agent, key_id) or key
        raise _busy(agent_id)

    async def _changed(
        self, tenant: TenantStore, agent: Agent, others: Sequence[AgentKey], *writes: Write, more: Sequence[Change] = ()
    ) -> bool:
        """Make the change and return True, or False when the agent was changed since it was read."""
        tombstones = [tenant.tombstones.put(request, self._clock()) for request in keys.dropped_requests(agent, others)]
        changes = [
            Assign("keys", keys_value(others)),
            Assign(KEYS_VERSION, agent.keys_version + 1),
            *more,
            Assign("updated_at", times.to_text(self._clock())),
        ]
        try:
            await self._changes.commit(tenant, tenant.touch(), tenant.change_agent(agent, changes), *writes, *tombstones)
        except ConditionFailed:
            return False
        return True


def _check_room(agent: Agent, line: str) -> None:
    if keys.has(agent, line):
        raise KeyTaken(agent.id)
    if len(agent.keys) >= keys.MAX_ADDITIONAL:
        raise KeyLimit(keys.MAX_ADDITIONAL)


def _heir(agent: Agent) -> AgentKey:
    heir = keys.successor(agent)
    if heir is None:
        raise Conflict("this is the agent's only active key without an end: add another first, or disable or delete the agent")
    return heir


def _promotion(heir: AgentKey) -> list[Change]:
    """What makes a key the first one, as it is: what it has proven goes on."""
    return [
        Assign("public_key", heir.line),
        Assign("key_serial", heir.serial),
        Remove("key_added_at") if heir.added_at is None else Assign("key_added_at", times.to_text(heir.added_at)),
    ]


def _found(agent: Agent, key_id: str) -> AgentKey:
    key = keys.find(agent, key_id)
    if key is None:
        raise KeyNotFound(key_id)
    return key


async def _there(tenant: TenantStore, agent_id: str) -> Agent:
    agent = await tenant.agent(agent_id)
    if agent is None:
        raise AgentNotFound(agent_id)
    return agent


def _busy(agent_id: str) -> Conflict:
    return Conflict(f"agent {agent_id} is being changed by others at the same time; try again")


def _fingerprint(key: AgentKey) -> str:
    """The key's, or its line's where an older system kept one that is no key today."""
    return keys.fingerprint(key.line) or key.line
