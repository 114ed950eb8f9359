"""Tombstones and the count of a person's tenants: rows removed by their `ttl`, ignored once expired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from artcafe.model import Member, Role, TenantId, UserId
from artcafe.tables.engine.port import ConditionFailed, Tables
from artcafe.tables.ownership_store import OwnershipStore
from artcafe.tables.people_store import PeopleStore
from artcafe.tables.tombstones import KEPT, Tombstones

NOW = datetime.now(UTC)  # DynamoDB removes rows expired in the past.
ALICE = UserId("alice")


async def test_tombstone_is_valid_for_72_hours_in_its_own_tenant(tables: Tables) -> None:
    here, elsewhere = Tombstones(tables, TenantId("ten_1")), Tombstones(tables, TenantId("ten_2"))
    await tables.transact([here.check_absent("agt_1", NOW)])
    for _ in range(2):
        await tables.transact([here.put("agt_1", NOW)])
    for until in (NOW, NOW + KEPT - timedelta(seconds=1)):
        assert await here.is_there("agt_1", until)
        with pytest.raises(ConditionFailed):
            await tables.transact([here.check_absent("agt_1", until)])
    later = NOW + KEPT + timedelta(seconds=1)
    assert not await here.is_there("agt_1", later)
    await tables.transact(
        [here.check_absent("agt_1", later), here.check_absent("agt_2", NOW), elsewhere.check_absent("agt_1", NOW)]
    )
    assert not await elsewhere.is_there("agt_1", NOW)


async def test_tenants_created_by_a_person_are_counted_per_day_up_to_a_limit(tables: Tables) -> None:
    alice, bob = OwnershipStore(tables, ALICE), OwnershipStore(tables, UserId("bob"))
    for _ in range(3):
        await tables.transact([alice.count_created(NOW, 3)])
    with pytest.raises(ConditionFailed):
        await tables.transact([alice.count_created(NOW, 3)])
    assert await alice.created_on(NOW) == 3
    assert await alice.created_on(NOW + timedelta(days=1)) == await bob.created_on(NOW) == 0
    await tables.transact([alice.count_created(NOW + timedelta(days=1), 3), bob.count_created(NOW, 3)])


async def test_only_owned_tenants_are_counted_over_all_pages(tables: Tables) -> None:
    for number in range(130):
        role = Role.OWNER if number % 2 else Role.ADMIN
        member = Member(user_id=ALICE, tenant_id=TenantId(f"ten_{number}"), role=role, joined_at=NOW)
        await tables.transact(PeopleStore(tables, member.tenant_id).insert_member(member))
    assert await OwnershipStore(tables, ALICE).owned(100) == 65
    assert await OwnershipStore(tables, ALICE).owned(10) >= 10
    assert await OwnershipStore(tables, UserId("bob")).owned(10) == 0
