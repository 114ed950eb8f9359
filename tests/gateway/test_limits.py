"""Limits of the plan on a socket: the error frame names the limit, and a change applies to open sockets."""

from __future__ import annotations

from pathlib import Path

from artcafe.model import ChannelType
from artcafe.tables.catalog import TENANTS
from artcafe.tables.engine.writes import Assign, ItemKey, Update
from tests.gateway.gateway_app import GatewayApp, gateway_app


async def limit(it: GatewayApp, **own: int) -> None:
    """Change the tenant's own limits, as another server does."""
    await it.tables.update(Update(TENANTS, ItemKey(it.owner.tenant_id), [Assign("limits", own)]))
    it.services.invalidation.notify(it.owner.tenant_id)


async def test_message_of_the_limit_is_stored_and_one_byte_more_is_refused_with_the_limit(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        assert (await raw.ask("publish", channel=it.channel.id, data="x" * 500))["seq"] == 1
        await limit(it, message_bytes=10)
        assert (await raw.ask("publish", channel=it.channel.id, data="x" * 8))["seq"] == 2
        refused = await raw.ask("publish", channel=it.channel.id, data="x" * 9)
        assert (refused["code"], refused["temporary"]) == ("limit_reached", False)
        assert refused["limit"] == {"name": "message_bytes", "limit": 10, "used": 11, "left": 0, "resets_at": None}
        await limit(it, message_bytes=11)
        assert (await raw.ask("publish", channel=it.channel.id, data="x" * 9))["seq"] == 3


async def test_message_of_a_live_channel_has_the_same_limit(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        live = await it.services.channels.create(it.owner, name="live", type=ChannelType.LIVE)
        await limit(it, message_bytes=10)
        assert (await raw.ask("publish", channel=live.id, data="x" * 8))["seq"] is None
        assert (await raw.ask("publish", channel=live.id, data="x" * 9))["code"] == "limit_reached"


async def test_subscription_above_the_limit_is_refused_on_the_socket(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        more = await it.services.channels.create(it.owner, name="more")
        await limit(it, agent_subscriptions=1)
        refused = await raw.ask("subscribe", channel=more.id)
        assert refused["limit"] == {"name": "agent_subscriptions", "limit": 1, "used": 1, "left": 0, "resets_at": None}
        assert "cursor" in await raw.ask("subscribe", channel=it.channel.id)


async def test_full_storage_names_its_limit(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await limit(it, storage_bytes=2000)
        answers = [await raw.ask("publish", channel=it.channel.id, data="x" * 500) for _ in range(5)]
        assert answers[-1]["code"] == "quota_full"
        assert answers[-1]["limit"] == {"name": "storage_bytes", "limit": 2000, "used": None, "left": None, "resets_at": None}
