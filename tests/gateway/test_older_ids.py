"""Ids of an older system with JSON's special characters: every frame and page of history stays valid JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import pytest

from artcafe.model import AgentId, Channel, ChannelType
from artcafe.tables.catalog import AGENTS, CHANNELS
from artcafe.tables.engine.writes import Put
from tests.gateway.gateway_app import GatewayApp, gateway_app
from tests.gateway.raw_client import open_client

ODD: Final = 'jobs "EU" \\ 1'


async def put_channel(it: GatewayApp, type: ChannelType) -> Channel:
    """Write a channel with quotes and backslashes in its id, as an older system may have."""
    row = {"tenant_id": it.owner.tenant_id, "id": ODD, "name": "Jobs", "type": type.value}
    await it.tables.put(Put(CHANNELS, row))
    return await it.services.channels.get(it.owner, ODD)


@pytest.mark.parametrize("type", list(ChannelType))
async def test_messages_of_a_channel_id_with_quotes_and_backslashes_arrive(tmp_path: Path, type: ChannelType) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        channel = await put_channel(it, type)
        await raw.ask("subscribe", channel=ODD)
        await it.say(b"1", channel)
        assert (await raw.message())["channel"] == ODD


async def test_backlog_and_history_of_a_channel_id_with_quotes_are_valid_json(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        channel = await put_channel(it, ChannelType.BROADCAST)
        await it.say(b"1", channel)
        await raw.ask("subscribe", channel=ODD, **{"from": "first"})
        message = await raw.message()
        assert (message["channel"], message["data"]) == (ODD, 1)
        (past,) = (await raw.ask("history", channel=ODD))["messages"]
        assert (past["channel"], past["data"]) == (ODD, 1)


async def test_agent_id_with_quotes_and_backslashes_is_sent_unchanged(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await it.tables.put(Put(AGENTS, {"tenant_id": it.owner.tenant_id, "id": ODD, "public_key": ""}))
        principal = msgspec.structs.replace(it.principal, agent_id=AgentId(ODD))
        token = it.services.tokens.mint(principal, it.clock())
        async with open_client(it.url) as other:
            await other.ask("connect", access_token=token)
            await other.ask("publish", channel=it.channel.id, data=1)
        assert (await raw.message())["from"] == ODD
