"""Adoption of a tenant of an older system: count its rows, and claim its agents' keys."""

from __future__ import annotations

from artcafe.errors import BadKey
from artcafe.rules.keys import all_of
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.tenant_store import RecordCount, TenantStore
from artcafe.wire.sshkeys import parse_public_key


async def adopt(tenant: TenantStore) -> None:
    """Write the counts of the tenant's agents, channels and members, and a claim for each agent's keys. May be repeated.

    The counts are exact: every transaction of ours that adds a row requires them, so none adds a row before they are written. Of
    two agents with the same key the first one claims it; both keep working.
    """
    agents = await tenant.all_agents()
    for agent in agents:
        for each in all_of(agent):
            try:
                fingerprint = parse_public_key(each.line).fingerprint
                await tenant.transact([tenant.claim_key(fingerprint, agent.id)])
            except (BadKey, ConditionFailed):
                continue
    channels, members = len(await tenant.all_channels()), await tenant.member_count()
    await tenant.set_counts({RecordCount.AGENTS: len(agents), RecordCount.CHANNELS: channels, RecordCount.MEMBERS: members})
