"""Additional keys of an agent: add, disable and revoke, so that keys can be rotated without an interruption.

Tokens and sockets are bound to the key that opened them: they end with that key, and others stay (decision record 13).
`services.agents` replaces the first key, which ends all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from artcafe.errors import Conflict, Invalid, KeyLimit, KeyNotFound, KeyTaken
from artcafe.model import Agent, AgentKey, KeyStatus, Principal
from artcafe.observe.clock import Clock
from artcafe.rules import access, keys, times
from artcafe.rules.access import Action
from artcafe.rules.idempotency import KeyedRequest, check_repeat, repeat_of_deleted
from artcafe.rules.pages import FIRST, Page, PageRequest
from artcafe.services import key_claims
from artcafe.services.agents import require_agent
from artcafe.services.audit import Audit
from artcafe.services.changes import Changes
from artcafe.tables.agent_rows import KEYS_VERSION, keys_value
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.engine.writes import Assign, Change, Remove, Write
from artcafe.tables.store import Store
from artcafe.tables.tenant_store import TenantStore
from artcafe.wire.sshkeys import PublicKey, parse_public_key

_TRIES: Final = 8
"""Attempts at a change that conflicts with other changes of the same agent. Each failure means that another change succeeded. So
of any number of concurrent additions, the last ones fail because the agent has its maximum of keys, not because it is busy."""


class AgentKeys:
    """Operations of members on the keys of their tenant's agents."""

    def __init__(self, store: Store, changes: Changes, audit: Audit, clock: Clock) -> None:
        self._store, self._changes, self._audit, self._clock = store, changes, audit, clock

    async def list(self, principal: Principal, agent_id: str, page_request: PageRequest = FIRST) -> Page[tuple[Agent, AgentKey]]:
        """Return a page of the agent's keys in id order, each with the agent. Raises Forbidden and AgentNotFound."""
        access.check(principal, Action.READ_KEYS)
        agent = await require_agent(self._store.tenant(principal.tenant_id), agent_id)
        found = sorted((keys.key_id(key.line), key) for key in keys.all_of(agent))
        rest = [(id, key) for id, key in found if page_request.after is None or id > page_request.after]
        shown = rest[: page_request.limit]
        return Page(tuple((agent, key) for _, key in shown), shown[-1][0] if len(rest) > page_request.limit else None)

    async def get(self, principal: Principal, agent_id: str, key_id: str) -> tuple[Agent, AgentKey]:
        """Return an agent and one of its keys. Raises Forbidden, AgentNotFound and KeyNotFound."""
        access.check(principal, Action.READ_KEYS)
        agent = await require_agent(self._store.tenant(principal.tenant_id), agent_id)
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
        """Add a key, active at once, until `not_after` if given. With an idempotency key the request may be repeated.

        Raises Forbidden, AgentNotFound, Invalid, BadKey, KeyTaken (also if this agent has it), KeyLimit, IdempotencyMismatch, and
        Conflict if the key of this request was removed from the agent, or after `_TRIES` conflicts.
        """
        access.check(principal, Action.CHANGE_AGENTS)
        key, now = parse_public_key(public_key), self._clock()
        if not_after is not None and not_after <= now:
            raise Invalid("not_after", "must lie in the future")
        request = KeyedRequest(idempotency_key, principal.tenant_id, principal.sender, "keys", agent_id)
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
        await require_agent(tenant, agent_id)
        async with self._audit.action(principal, "key.add", agent_id, key=key.fingerprint):
            return await self._add(tenant, agent_id, made, key)

    async def _add(self, tenant: TenantStore, agent_id: str, made: AgentKey, key: PublicKey) -> tuple[Agent, AgentKey]:
        """Add the key, or return the one added by an earlier attempt of the same request."""
        for _ in range(_TRIES):
            agent = await require_agent(tenant, agent_id)
            first = next((each for each in agent.keys if made.request is not None and each.request == made.request), None)
            if first is not None:
                check_repeat(first.request_hash, made.request_hash)
                return agent, first
            _check_room(agent, key.line)
            # Read after the agent: removing a key in between changes the agent's row, and the write below fails.
            if made.request is not None and await tenant.tombstones.is_there(made.request, self._clock()):
                raise repeat_of_deleted("a key that was taken from the agent")
            made = msgspec.structs.replace(made, serial=agent.keys_version + 1)
            if await self._changed(tenant, agent, [*agent.keys, made], await key_claims.claim(tenant, key, agent.id)):
                return agent, made
        raise _busy(agent_id)

    async def set_status(self, principal: Principal, agent_id: str, key_id: str, status: KeyStatus) -> tuple[Agent, AgentKey]:
        """Disable a key with the tokens and sockets it opened, or enable it again, without restoring those. May be repeated.

        If the first key is disabled, another becomes the first. Raises Forbidden, AgentNotFound, KeyNotFound, and Conflict for
        the agent's only active key without an end, or after `_TRIES` conflicts.
        """

        def changed(agent: Agent, key: AgentKey) -> Sequence[AgentKey]:
            other = msgspec.structs.replace(key, line=keys.canonical(key.line), status=status)
            if status is KeyStatus.ACTIVE:
                other = msgspec.structs.replace(other, serial=agent.keys_version + 1)
            return [*(each for each in agent.keys if each is not key), other]

        action = "key.enable" if status is KeyStatus.ACTIVE else "key.disable"
        return await self._change(principal, action, agent_id, key_id, changed, unless=lambda key: key.status is status)

    async def revoke(self, principal: Principal, agent_id: str, key_id: str) -> None:
        """Remove a key from the agent, and end the tokens and sockets it opened. Otherwise as `set_status`."""

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
        """Set the agent's additional keys to the result of `changed`. The changed key may be the first one."""
        access.check(principal, Action.CHANGE_AGENTS)
        tenant = self._store.tenant(principal.tenant_id)
        key = _found(await require_agent(tenant, agent_id), key_id)
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
            agent = await require_agent(tenant, agent_id)
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
                agent = await require_agent(tenant, agent_id)
                return agent, keys.find(agent, key_id) or key
        raise _busy(agent_id)

    async def _changed(
        self, tenant: TenantStore, agent: Agent, others: Sequence[AgentKey], *writes: Write, more: Sequence[Change] = ()
    ) -> bool:
        """Commit the change. Return False if the agent was changed since it was read."""
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
    """Return the changes to make a key the first one and keep its serial, so its tokens and sockets stay valid."""
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


def _busy(agent_id: str) -> Conflict:
    return Conflict(f"agent {agent_id} is being changed by other requests at the same time; try again")


def _fingerprint(key: AgentKey) -> str:
    """Return the key's fingerprint, or its line if it is a key of an older system that is not accepted today."""
    return keys.fingerprint(key.line) or key.line
