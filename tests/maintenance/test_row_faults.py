"""Rows that cannot work are reported for a person, and a repair leaves them unchanged."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from artcafe.maintenance.integrity import Defect
from artcafe.maintenance.repair import Repair
from artcafe.model import TenantId
from artcafe.plan_catalogue import shipped
from artcafe.tables.catalog import (
    AGENTS,
    CHANNEL_SUBSCRIPTIONS,
    CHANNELS,
    TENANTS,
    USER_TENANT_INDEX,
    USER_TENANTS,
    Table,
)
from artcafe.tables.engine.values import Value
from tests.maintenance.test_membership_repair import memberships
from tests.services.service_env import Server, new_key

ACME = TenantId("acme")
KEY = new_key()
PEM = rsa.generate_private_key(65537, 2048).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505 (an older key, which is refused)
SHORT = WEAK.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

Row = Mapping[str, Value]


@pytest.fixture
async def tenant(server: Server) -> Server:
    """Write a sound tenant of an older system with an agent, a channel and a subscription."""
    await server.put(TENANTS, id=ACME, agent_count=1, channel_count=1, member_count=0)
    await server.put(AGENTS, tenant_id=ACME, id="a", public_key=KEY, channels={"c": True})
    await server.put(CHANNELS, tenant_id=ACME, id="c", status="active")
    await server.put(CHANNEL_SUBSCRIPTIONS, tenant_id=ACME, id="c#a", channel_id="c", agent_id="a")
    await Repair(server.tables).fix(ACME)
    assert await Repair(server.tables).inspect(ACME, shipped()) == []
    return server


AGENT = {"tenant_id": ACME, "id": "a", "handle": "a", "channels": {"c": True}, "public_key": KEY}
CHANNEL = {"tenant_id": ACME, "id": "c", "handle": "c"}
SUBSCRIPTION = {"tenant_id": ACME, "id": "c#a", "channel_id": "c", "agent_id": "a"}
TENANT = {"id": ACME, "agent_count": 1, "channel_count": 1, "member_count": 0}
FLAGS = ("read", "write", "publish", "subscribe", "manage")


@pytest.mark.parametrize(
    ("table", "row", "what", "message"),
    [
        (AGENTS, {**AGENT, "public_key": None}, Defect.KEY, "empty"),
        (AGENTS, {**AGENT, "public_key": SHORT}, Defect.KEY, "1024 bits"),
        (AGENTS, {**AGENT, "public_key": PEM}, Defect.KEY, "PEM"),
        (AGENTS, {**AGENT, "public_key": f"{KEY}\n{new_key()}\n"}, Defect.KEY, "several lines"),
        (AGENTS, {**AGENT, "public_key": f"no-pty {KEY}"}, Defect.KEY, "options"),
        (AGENTS, {**AGENT, "status": "asleep"}, Defect.STATUS, "disabled"),
        (CHANNELS, {**CHANNEL, "status": "archived"}, Defect.STATUS, "archived"),
        (CHANNEL_SUBSCRIPTIONS, {**SUBSCRIPTION, "permissions": dict.fromkeys(FLAGS, 0)}, Defect.PERMISSIONS, "neither"),
        (CHANNEL_SUBSCRIPTIONS, {**SUBSCRIPTION, "permissions": ["fly"]}, Defect.PERMISSIONS, "neither"),
        (CHANNEL_SUBSCRIPTIONS, {**SUBSCRIPTION, "status": "off"}, Defect.STATUS, "receives nothing"),
        (TENANTS, {**TENANT, "subscription_plan": "basic"}, Defect.PLAN, "basic"),
        (TENANTS, {**TENANT, "limits": {"max_ssh_keys": 5}}, Defect.LIMIT, "max_ssh_keys"),
        (TENANTS, {**TENANT, "max_agents": -1}, Defect.LIMIT, "max_agents"),
        (TENANTS, {**TENANT, "status": "trial"}, Defect.STATUS, "trial"),
    ],
)
async def test_row_that_cannot_work_is_reported_and_left(
    tenant: Server, table: Table, row: Row, what: Defect, message: str
) -> None:
    await tenant.put(table, **row)
    repair = Repair(tenant.tables)
    await repair.fix(ACME)
    (found,) = await repair.inspect(ACME, shipped())
    assert (found.what, found.table, found.key, found.is_fixable) == (what, table.name, row["id"], False)
    assert message in found.message
    assert await tenant.item(table, ACME, None if table is TENANTS else str(row["id"])) == row


@pytest.mark.parametrize(("channel", "agent"), [("c", "gone"), ("gone", "a")])
async def test_subscription_of_a_deleted_agent_or_channel_is_reported(tenant: Server, channel: str, agent: str) -> None:
    id = f"{channel}#{agent}"
    await tenant.put(CHANNEL_SUBSCRIPTIONS, tenant_id=ACME, id=id, channel_id=channel, agent_id=agent)
    (found,) = await Repair(tenant.tables).inspect(ACME, shipped())
    assert (found.what, found.key, found.is_fixable) == (Defect.ORPHAN, id, False)
    assert "there is no" in found.message


async def test_agent_id_like_a_persons_is_reported(tenant: Server) -> None:
    await tenant.put(AGENTS, tenant_id=ACME, id="usr:alice@example.com", public_key=new_key())
    await Repair(tenant.tables).fix(ACME)
    (found,) = await Repair(tenant.tables).inspect(ACME, shipped())
    assert (found.what, found.key) == (Defect.ADDRESS, "usr:alice@example.com")


async def test_channel_with_an_id_like_an_inboxs_is_reported(tenant: Server) -> None:
    await tenant.put(CHANNELS, tenant_id=ACME, id="@home")
    await Repair(tenant.tables).fix(ACME)
    (found,) = await Repair(tenant.tables).inspect(ACME, shipped())
    assert (found.what, found.key) == (Defect.ADDRESS, "@home")


async def test_rows_of_an_unknown_tenant_are_reported(tenant: Server) -> None:
    gone = await tenant.tenant()
    await tenant.tenants.delete(gone)
    for tenant_id in (gone.tenant_id, "never"):
        await tenant.put(AGENTS, tenant_id=tenant_id, id="a", public_key=KEY)
        await tenant.put(CHANNELS, tenant_id=tenant_id, id="c")
        await tenant.put(CHANNEL_SUBSCRIPTIONS, tenant_id=tenant_id, id="c#a", channel_id="c", agent_id="a")
        await tenant.put(USER_TENANTS, tenant_id=tenant_id, user_id="dan", role="owner")
    found = await Repair(tenant.tables).orphans()
    tables = (AGENTS, CHANNELS, CHANNEL_SUBSCRIPTIONS, USER_TENANTS)
    assert sorted((each.tenant_id, each.table) for each in found) == sorted(
        (tenant_id, table.name) for tenant_id in (gone.tenant_id, "never") for table in tables
    )
    assert {each.key for each in found} == {"a", "c", "c#a", "dan"}
    assert not any(each.is_fixable for each in found)


async def test_unknown_role_is_reported(tenant: Server) -> None:
    for table in (USER_TENANTS, USER_TENANT_INDEX):
        await tenant.put(table, user_id="fay", tenant_id=ACME, role="user")
    for _ in range(2):
        (found,) = await memberships(tenant)
        assert (found.what, found.is_fixable, "'user'" in found.message) == (Defect.ROLE, False, True)
