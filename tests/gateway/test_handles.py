"""Handles in frames, and connections that name missing channels."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from artcafe.gateway import command_dispatcher
from tests.gateway.gateway_app import GatewayApp, gateway_app
from tests.gateway.raw_client import RawClient, open_client


async def connect(it: GatewayApp, raw: RawClient) -> None:
    token = it.services.tokens.mint(it.principal, it.clock())
    assert "session_id" in await raw.ask("connect", access_token=token, tenant_id=it.owner.tenant_id)


async def test_handle_names_a_channel_in_every_frame_and_messages_show_it(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, open_client(it.url) as raw:
        await connect(it, raw)
        handle, id = it.channel.handle, it.channel.id
        subscribed = await raw.ask("subscribe", channel=handle)
        assert subscribed["channel"] == id
        await raw.ask("publish", channel=handle, data=1)
        message = await raw.message()
        assert (message["channel"], message["channel_handle"]) == (id, handle)
        assert (message["from"], message["from_handle"]) == (it.agent.id, it.agent.handle)
        await raw.send(ack={"channel": handle, "seq": message["seq"]})
        kept = (await raw.ask("history", channel=handle))["messages"]
        assert [(each["channel"], each["channel_handle"]) for each in kept] == [(id, handle)]

        await it.services.channels.update(it.owner, id, handle="renamed")
        await raw.ask("publish", channel="renamed", data=2)
        assert (await raw.message())["channel_handle"] == "renamed"
        assert (await raw.ask("publish", channel=handle, data=3))["code"] == "channel_not_found"
        assert await raw.ask("unsubscribe", channel="renamed") == {"channel": id}
        assert not any("error" in push for push in raw.pushes)


async def test_connection_that_names_missing_channels_is_slowed_and_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_dispatcher, "MISSES", 2)
    monkeypatch.setattr(command_dispatcher, "MISS_PACE_S", 0.1)
    async with gateway_app(tmp_path) as it, open_client(it.url) as raw:
        await connect(it, raw)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(6):
            assert (await raw.ask("publish", channel=f"missing-{number}", data=1))["code"] == "channel_not_found"
        assert loop.time() - began >= 0.25  # a lower bound: the first three are answered without a pause
        assert (await raw.ask("publish", channel=it.channel.handle, data=1))["seq"] == 1
