"""Subscriptions in the older system's format: a map of flags instead of a list of permissions."""

from __future__ import annotations

from pathlib import Path

import pytest

from artcafe.model import Access
from artcafe.tables.catalog import CHANNEL_SUBSCRIPTIONS
from artcafe.tables.engine.values import Value
from artcafe.tables.engine.writes import Assign, ItemKey, Update
from tests.gateway.gateway_app import GatewayApp, gateway_app


async def write_permissions(it: GatewayApp, permissions: Value) -> None:
    """Write permissions into the agent's subscription directly, without our services."""
    key = ItemKey(it.owner.tenant_id, f"{it.channel.id}#{it.agent.id}")
    await it.tables.update(Update(CHANNEL_SUBSCRIPTIONS, key, [Assign("permissions", permissions)]))
    it.services.invalidation.notify(it.owner.tenant_id)


@pytest.mark.parametrize(
    "permissions",
    [
        {"read": 1, "write": 0, "publish": 0, "subscribe": 1, "manage": 0},
        {"read": True, "write": False},
        {"publish": 1},
        {},
        None,
    ],
)
async def test_older_subscription_is_delivered_with_and_without_a_command(tmp_path: Path, permissions: Value) -> None:
    async with gateway_app(tmp_path) as it:
        await write_permissions(it, permissions)
        async with it.connected() as raw:
            await it.publish(b"1")
            assert (await raw.message())["seq"] == 1
            assert (await raw.ask("subscribe", channel=it.channel.id))["last"] == 1


async def test_older_subscription_without_permissions_receives_nothing_and_subscribe_gives_the_reason(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        await write_permissions(it, dict.fromkeys(("read", "write", "publish", "subscribe", "manage"), 0))
        async with it.connected() as raw:
            await it.publish(b"1")
            refused = await raw.ask("subscribe", channel=it.channel.id)
            assert (refused["code"], refused["temporary"]) == ("forbidden", False)
            assert "lacks the permission 'receive'" in refused["message"]
            assert "managed" not in refused["message"]
            assert await raw.is_quiet()


@pytest.mark.parametrize(("flag", "may"), [("write", True), ("publish", True), ("manage", True), ("read", False)])
async def test_older_publish_permission_applies_to_a_managed_channel(tmp_path: Path, flag: str, may: bool) -> None:
    async with gateway_app(tmp_path) as it:
        await write_permissions(it, {flag: 1})
        await it.services.channels.update(it.owner, it.channel.id, access=Access.MANAGED)
        async with it.connected() as raw:
            reply = await raw.ask("publish", channel=it.channel.id, data=1)
            assert ("seq" in reply) is may, reply
