"""Limits of the plan on the open connections of an agent, a person and a tenant, over all servers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from artcafe.errors import ArtcafeError, ConnectionLimit, TenantNotFound
from artcafe.fabric.connection_census import ConnectionCensus, Elsewhere
from artcafe.model import Principal, TenantId
from artcafe.rules.plans import Limit, Plans
from artcafe.services.record_cache import RecordCache

K = TypeVar("K")

NOWHERE: Final = Elsewhere(0, {})


@dataclass(slots=True, eq=False)
class _Applicant:
    """A connection waiting for its admission."""

    who: Principal
    refusal: ArtcafeError | None = None
    total: int = 0
    """The open connections of its tenant to all servers, with this one."""


class Connections:
    """Counts the open connections of this server, and admits new ones within the limits over all servers.

    With other servers, one question (`fabric.connection_census`) decides all connections of a tenant that wait, so a storm of
    logins needs few of them. While NATS is away, or for a server that does not answer, the limits apply to what is known.
    """

    def __init__(self, record_cache: RecordCache, plans: Plans, census: ConnectionCensus) -> None:
        self._record_cache, self._plans, self._census = record_cache, plans, census
        self._of_tenant: Counter[TenantId] = Counter()
        self._of_one: Counter[tuple[TenantId, str]] = Counter()
        self._applicants: dict[TenantId, list[_Applicant]] = {}
        census.set_count(self.count)

    async def enter(self, who: Principal) -> int:
        """Count a connection of an agent or a person, and return the number of its tenant's connections to all servers.

        Raises `ConnectionLimit` or `Unavailable`, without counting it.
        """
        plan = await self._plan(who.tenant_id)
        applicant = _Applicant(who)
        if self._census.is_alone:
            self._decide(applicant, plan, NOWHERE)
        else:
            await self._apply(applicant, plan)
        if applicant.refusal is not None:
            raise applicant.refusal
        return applicant.total

    async def _apply(self, applicant: _Applicant, plan: Mapping[Limit, int]) -> None:
        """Wait for a decision over all servers: in the turn of this connection, or of an earlier one of the tenant."""
        tenant_id = applicant.who.tenant_id
        waiting = self._applicants.setdefault(tenant_id, [])
        waiting.append(applicant)
        is_over = False
        try:
            async with self._census.turn(tenant_id, lambda: list({each.who.sender: None for each in waiting})) as elsewhere:
                for each in [each for each in waiting if each.who.sender in elsewhere.of_each]:
                    self._decide(each, plan, elsewhere)
                    waiting.remove(each)
            is_over = True
        finally:
            if applicant in waiting:
                waiting.remove(applicant)
            elif not is_over and applicant.refusal is None:
                self.leave(applicant.who)
            if not waiting and self._applicants.get(tenant_id) is waiting:
                del self._applicants[tenant_id]

    def _decide(self, applicant: _Applicant, plan: Mapping[Limit, int], elsewhere: Elsewhere) -> None:
        """Admit and count a connection, or note why not."""
        who = applicant.who
        key = (who.tenant_id, who.sender)
        of_one = self._of_one.get(key, 0) + elsewhere.of_each.get(who.sender, 0)
        of_tenant = self._of_tenant.get(who.tenant_id, 0) + elsewhere.connections
        if of_one >= plan[Limit.AGENT_CONNECTIONS]:
            applicant.refusal = ConnectionLimit(Limit.AGENT_CONNECTIONS.value, plan[Limit.AGENT_CONNECTIONS], of_one)
        elif of_tenant >= plan[Limit.CONNECTIONS]:
            applicant.refusal = ConnectionLimit(Limit.CONNECTIONS.value, plan[Limit.CONNECTIONS], of_tenant)
        else:
            self._of_one[key] += 1
            self._of_tenant[who.tenant_id] += 1
            applicant.total = of_tenant + 1

    def count(self, tenant_id: TenantId, names: Sequence[str] = ()) -> tuple[int, list[int]]:
        """Return the connections of a tenant to this server, and those of each of these principals."""
        return self._of_tenant.get(tenant_id, 0), [self._of_one.get((tenant_id, name), 0) for name in names]

    async def usage(self, tenant_id: TenantId, name: str) -> tuple[int, int]:
        """Return the connections of a tenant, and of one of its principals, to all answering servers."""
        elsewhere = NOWHERE
        if not self._census.is_alone:
            async with self._census.turn(tenant_id, lambda: [name]) as found:
                elsewhere = found
        here, (of_one,) = self.count(tenant_id, [name])
        return here + elsewhere.connections, of_one + elsewhere.of_each.get(name, 0)

    async def limit(self, tenant_id: TenantId) -> int:
        """Return the limit of the tenant's connections. Raises `Unavailable`."""
        return (await self._plan(tenant_id))[Limit.CONNECTIONS]

    async def _plan(self, tenant_id: TenantId) -> Mapping[Limit, int]:
        """Return the limits from the cache, which is at most seconds old: a login reads no table but the agents'."""
        try:
            tenant = await self._record_cache.tenant(tenant_id)
        except TenantNotFound:  # Just deleted; its sockets are about to be closed.
            tenant = None
        return {limit: self._plans.limit_of(tenant, limit) for limit in (Limit.CONNECTIONS, Limit.AGENT_CONNECTIONS)}

    def leave(self, who: Principal) -> None:
        """Remove a connection counted by `enter`."""
        _decrement(self._of_one, (who.tenant_id, who.sender))
        _decrement(self._of_tenant, who.tenant_id)

    def by_tenant(self) -> Counter[TenantId]:
        """Return the number of connections by tenant with any: the live count, not to be changed."""
        return self._of_tenant

    def __len__(self) -> int:
        return self._of_tenant.total()


def _decrement(counter: Counter[K], key: K) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
