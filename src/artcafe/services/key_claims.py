"""Key claims: a row for each key, so no two agents of a tenant have the same key (decision record 6)."""

from __future__ import annotations

from collections.abc import Iterable

from artcafe.errors import KeyTaken
from artcafe.model import Agent, AgentId
from artcafe.rules import keys
from artcafe.tables.engine.writes import Put, Write
from artcafe.tables.tenant_store import TenantStore
from artcafe.wire.sshkeys import PublicKey


async def claim(tenant: TenantStore, key: PublicKey, agent_id: AgentId) -> Put:
    """Return the write to claim the key for the agent. It fails if another agent claims it first. Raises KeyTaken."""
    stale = await owner_without(tenant, key, unless=agent_id)
    return tenant.claim_key(key.fingerprint, agent_id, instead_of=stale)


async def owner_without(tenant: TenantStore, key: PublicKey, unless: AgentId | None = None) -> AgentId | None:
    """Return the owner of a stale claim (the agent is deleted, or has other keys); None if the key is not claimed.

    Raises KeyTaken if an agent other than `unless` has the key, active or not.
    """
    owner = await tenant.key_owner(key.fingerprint)
    if owner is None or owner == unless:
        return owner
    agent = await tenant.agent(owner, also_deleting=True)
    if agent is not None and keys.has(agent, key.line):
        raise KeyTaken(owner)
    return owner


async def release(tenant: TenantStore, agent: Agent, lines: Iterable[str]) -> list[Write]:
    """Return the writes to release the agent's claims to these keys. Of two older agents with one key, only one has a claim."""
    writes: list[Write] = []
    for line in lines:
        key = keys.admitted(line)
        if key is not None and await tenant.key_owner(key.fingerprint) == agent.id:
            writes.append(tenant.release_key(key.fingerprint, agent.id))
    return writes
