"""The typed view of the tables: records shared by all tenants, and access to each tenant's own store.

`rows` and `people_rows` convert records to items.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from artcafe.model import (
    LoginChallenge,
    Member,
    Tenant,
    TenantId,
    UserId,
)
from artcafe.rules.pages import Page, PageRequest
from artcafe.tables import full_rows, people_rows, rows
from artcafe.tables.acceptance_store import AcceptanceStore
from artcafe.tables.catalog import (
    CHALLENGES,
    TABLES,
    TENANTS,
    USAGE_METRICS,
    USER_TENANTS,
)
from artcafe.tables.console_code_store import ConsoleCodeStore
from artcafe.tables.counting_servers import CountingServers
from artcafe.tables.engine.conditions import Absent
from artcafe.tables.engine.port import Tables
from artcafe.tables.engine.writes import ItemKey, Put, Write
from artcafe.tables.ownership_store import OwnershipStore
from artcafe.tables.people_store import PeopleStore
from artcafe.tables.platform_store import PlatformStore
from artcafe.tables.single_use import take_once
from artcafe.tables.tenant_store import TenantStore
from artcafe.tables.usage_rows import METER, MeterState, meter_state_of
from artcafe.tables.usage_run_store import UsageRunStore
from artcafe.tables.usage_store import UsageStore
from artcafe.tables.wake_rows import WakeStore

HEALTH_KEY: Final = "health"
"""The key of the health check's row; every id of ArtCafe has a prefix, so none can collide with it."""
HEALTH_TTL_S: Final = 60


class Store:
    """The typed view of the tables. A tenant's records are reached through `tenant`; every read sees all earlier writes."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def tenant(self, tenant_id: TenantId) -> TenantStore:
        """Return the store of one tenant. The id comes from a proven principal, or from one about to be proven."""
        return TenantStore(self._tables, tenant_id)

    def people(self, tenant_id: TenantId) -> PeopleStore:
        """Return the store of one tenant's people; the id as in `tenant`."""
        return PeopleStore(self._tables, tenant_id)

    def wakes(self, tenant_id: TenantId) -> WakeStore:
        """Return the store of the wake policies of one tenant's agents; the id as in `tenant`."""
        return WakeStore(self._tables, tenant_id)

    def acceptances(self, user_id: UserId) -> AcceptanceStore:
        """Return the store of one person's acceptances of the terms."""
        return AcceptanceStore(self._tables, user_id)

    def ownership(self, user_id: UserId) -> OwnershipStore:
        """Return the store that counts one person's tenants."""
        return OwnershipStore(self._tables, user_id)

    def usage(self, tenant_id: TenantId) -> UsageStore:
        """Return the store of one tenant's usage; the id as in `tenant`."""
        return UsageStore(self._tables, tenant_id)

    def usage_runs(self, tenant_id: TenantId) -> UsageRunStore:
        """Return the store of what servers counted for one tenant; the id as in `tenant`."""
        return UsageRunStore(self._tables, tenant_id)

    def platform(self) -> PlatformStore:
        """Return the store of the operator's requests."""
        return PlatformStore(self._tables)

    def console_codes(self) -> ConsoleCodeStore:
        """Return the store of the console's codes."""
        return ConsoleCodeStore(self._tables)

    def counting_servers(self) -> CountingServers:
        """Return the store of the servers that count usage."""
        return CountingServers(self._tables)

    async def transact(self, writes: Sequence[Write]) -> None:
        """Apply all writes or none. Raises ConditionFailed, and RowFull if a row is full."""
        with full_rows.reported():
            await self._tables.transact(writes)

    # --- tenants ---

    def insert_tenant(self, tenant: Tenant) -> Put:
        """Return the write of a new tenant; fails if its id is taken."""
        return Put(TENANTS, rows.tenant_item(tenant), Absent("id"))

    async def memberships(self, user_id: UserId, page_request: PageRequest) -> Page[tuple[Tenant, Member]]:
        """Return a page of the user's tenants, ordered by id.

        Omits withdrawn memberships, and those in missing or deleted tenants.
        """
        page = await self._tables.query(
            USER_TENANTS, user_id, after=page_request.after, limit=page_request.limit, consistent=True
        )
        members = [member for item in page.items if (member := people_rows.member_of(item)) is not None]
        tenants = await self.tenants([member.tenant_id for member in members]) if members else {}
        both = [(tenants[member.tenant_id], member) for member in members]
        return Page(tuple((tenant, member) for tenant, member in both if tenant is not None), page.next)

    async def tenants(self, tenant_ids: Sequence[TenantId]) -> dict[TenantId, Tenant | None]:
        """Return each tenant, or None if it does not exist any more."""
        items = await self._tables.get(TENANTS, [ItemKey(tenant_id) for tenant_id in tenant_ids], consistent=True)
        found = (None if item is None or rows.TOMBSTONE in item else rows.tenant_of(item) for item in items)
        return dict(zip(tenant_ids, found, strict=True))

    async def meters(self, tenant_ids: Sequence[TenantId]) -> dict[TenantId, MeterState | None]:
        """Return the state of each tenant's meter, or None if nothing of the tenant was ever counted."""
        keys = [ItemKey(tenant_id, METER) for tenant_id in tenant_ids]
        items = await self._tables.get(USAGE_METRICS, keys, consistent=True) if keys else []
        found = (None if item is None else meter_state_of(item) for item in items)
        return dict(zip(tenant_ids, found, strict=True))

    async def versions(self, tenant_ids: Sequence[TenantId]) -> dict[TenantId, int | None]:
        """Return the version of each tenant, or None if it does not exist any more."""
        found = await self.tenants(tenant_ids)
        return {tenant_id: None if tenant is None else tenant.version for tenant_id, tenant in found.items()}

    # --- health ---

    async def check_health(self, now: datetime) -> None:
        """Write a row as a login does, and read from every table. Raises `Unavailable` for the first unusable table."""
        ends = int(now.timestamp()) + HEALTH_TTL_S
        await self._tables.put(Put(CHALLENGES, {"challenge_id": HEALTH_KEY, "ttl": ends}))
        for table in TABLES:
            await self._tables.get(table, [ItemKey(HEALTH_KEY, None if table.sort_key is None else HEALTH_KEY)])

    # --- challenges ---

    async def put_challenge(self, challenge: LoginChallenge) -> None:
        """Store a challenge until it is taken or expires."""
        await self._tables.put(Put(CHALLENGES, rows.challenge_item(challenge)))

    async def take_challenge(self, challenge_id: str, attempt: str, now: datetime) -> LoginChallenge | None:
        """Redeem a challenge for this attempt, on any server; return None if it is missing, expired or already redeemed.

        An engine retrying after a lost answer passes the same `attempt` and gets the challenge again.
        """
        item = await take_once(self._tables, challenge_id, attempt, now)
        return None if item is None else rows.challenge_of(item)
