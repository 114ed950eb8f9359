"""The wake policies of agents: set, read and removed by members. `services.waker` sends the webhooks."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from artcafe.errors import AgentNotFound, Conflict
from artcafe.model import AgentId, Principal
from artcafe.observe.clock import Clock
from artcafe.rules import access, wake, webhook_signatures, webhook_targets
from artcafe.rules.access import Action
from artcafe.rules.wake import WakePolicy, WakeState
from artcafe.rules.webhook_targets import Network
from artcafe.services.audit import Audit
from artcafe.services.changes import Changes
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.engine.writes import Assign
from artcafe.tables.store import Store
from artcafe.tables.wake_rows import TENANT_MARK, WakeRow

_TRIES: Final = 5
"""Attempts at a change that conflicts with a webhook that is being sent."""


class ShownPolicy(NamedTuple):
    """A policy with its state, and the new secret if one was made."""

    agent_id: AgentId
    policy: WakePolicy | None
    state: WakeState
    secret: str | None = None


class WakePolicies:
    """Operations of members on the wake policies of their tenant's agents."""

    def __init__(
        self, store: Store, changes: Changes, audit: Audit, clock: Clock, key: bytes, networks: Sequence[Network]
    ) -> None:
        """`key` derives the secrets. `networks`: those that webhooks may be sent to besides public addresses."""
        self._store, self._changes, self._audit, self._clock = store, changes, audit, clock
        self._key, self._networks = key, networks

    async def get(self, principal: Principal, agent_id: str) -> ShownPolicy:
        """Return an agent's policy, None without one, and the webhooks it has sent. Raises Forbidden and AgentNotFound."""
        access.check(principal, Action.READ_WAKE)
        row = await self._require_row(principal, agent_id)
        return ShownPolicy(row.agent.id, row.policy, row.state)

    async def put(
        self,
        principal: Principal,
        agent_id: str,
        *,
        url: str,
        interval_s: int,
        quiet_hours: str | None,
        enabled: bool,
        new_secret: bool,
    ) -> ShownPolicy:
        """Set an agent's policy. Returns a secret if it had none, or with `new_secret`: it is not shown again.

        The policy forgets its failures; messages that it has announced are not announced again. May be repeated, but for
        `new_secret`. Raises Forbidden, AgentNotFound, Invalid, and Conflict after `_TRIES` conflicts.
        """
        access.check(principal, Action.CHANGE_AGENTS)
        target = webhook_targets.parse(url, self._networks)
        wake.check_interval(interval_s)
        quiet_hours = None if quiet_hours is None else wake.check_quiet_hours(quiet_hours)
        await self._require_row(principal, agent_id)
        facts = {"host": target.host, "interval_s": str(interval_s), "enabled": str(enabled).lower()}
        async with self._audit.action(principal, "agent.wake", agent_id, **facts):
            for _ in range(_TRIES):
                row = await self._require_row(principal, agent_id)
                salts, rotated_at = _salts(row.policy, self._clock(), is_new=new_secret)
                policy = WakePolicy(
                    url=url,
                    interval_s=interval_s,
                    quiet_hours=quiet_hours,
                    is_enabled=enabled,
                    salts=salts,
                    rotated_at=rotated_at,
                )
                if await self._changed(principal, row, policy):
                    is_made = row.policy is None or row.policy.salts != policy.salts
                    secret = (
                        webhook_signatures.secret_text(webhook_signatures.secret_of(self._key, policy.salts[0]))
                        if is_made
                        else None
                    )
                    return ShownPolicy(row.agent.id, policy, _renewed(row.state), secret)
            raise _busy(agent_id)

    async def remove(self, principal: Principal, agent_id: str) -> None:
        """Remove an agent's policy. May be repeated. Raises Forbidden, AgentNotFound, and Conflict after `_TRIES` conflicts."""
        access.check(principal, Action.CHANGE_AGENTS)
        await self._require_row(principal, agent_id)
        async with self._audit.action(principal, "agent.wake_remove", agent_id):
            for _ in range(_TRIES):
                row = await self._require_row(principal, agent_id)
                if row.policy is None or await self._changed(principal, row, None):
                    return
            raise _busy(agent_id)

    async def _changed(self, principal: Principal, row: WakeRow, policy: WakePolicy | None) -> bool:
        """Write a policy, or None. Return False if the state was written since it was read."""
        tenant = self._store.tenant(principal.tenant_id)
        change = self._store.wakes(principal.tenant_id).change(row.agent.id, _renewed(row.state), policy)
        try:
            await self._changes.commit(tenant, tenant.touch(Assign(TENANT_MARK, True)), change)
        except ConditionFailed:
            return False
        return True

    async def _require_row(self, principal: Principal, agent_id: str) -> WakeRow:
        row = await self._store.wakes(principal.tenant_id).get(agent_id)
        if row is None:
            raise AgentNotFound(agent_id)
        return row


def _renewed(state: WakeState) -> WakeState:
    """Return a state without failures and without a webhook under way."""
    return WakeState(serial=state.serial, notified=state.notified, sent_at=state.sent_at)


def _salts(policy: WakePolicy | None, now: datetime, *, is_new: bool) -> tuple[tuple[str, ...], datetime | None]:
    """Return the salts of a changed policy, and when its secret replaced another one."""
    if policy is None:
        return (secrets.token_hex(16),), None
    return ((secrets.token_hex(16), policy.salts[0]), now) if is_new else (policy.salts, policy.rotated_at)


def _busy(agent_id: str) -> Conflict:
    return Conflict(f"the wake policy of agent {agent_id} is being changed by other requests at the same time; try again")
