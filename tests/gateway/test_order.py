from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from artcafe.model import Channel
from tests.gateway.gateway_app import GatewayApp, gateway_app
from tests.gateway.raw_client import RawClient

COUNT = 300


async def others(it: GatewayApp, raw: RawClient, count: int, **how: object) -> list[Channel]:
    """Return the fixture's channel and further ones, all received by the socket."""
    more = [await it.services.channels.create(it.owner, name=f"more {number}") for number in range(count)]
    for channel in more:
        await raw.ask("subscribe", channel=channel.id, **how)
    return [it.channel, *more]


async def publish_in_turn(it: GatewayApp, channels: list[Channel]) -> list[int]:
    async with asyncio.TaskGroup() as group:
        storing = [group.create_task(it.publish(b"0", channels[number % len(channels)])) for number in range(COUNT)]
    return sorted(task.result() for task in storing)


@pytest.mark.parametrize("window", [None, 1000])
@pytest.mark.promise("5b")
async def test_socket_gets_messages_of_all_channels_in_stored_order(tmp_path: Path, window: int | None) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await raw.ask("subscribe", channel=it.channel.id, max_unacked=window)
        channels = await others(it, raw, 4, max_unacked=window)
        for channel in channels:  # from here on each delivery has caught up
            await it.publish(b"0", channel)
            await raw.message()
        stored = await publish_in_turn(it, channels)
        assert [(await raw.message())["seq"] for _ in stored] == stored


@pytest.mark.promise("5b")
async def test_sockets_with_different_channels_get_their_messages_in_stored_order(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as all_of_them, it.connected() as one_less:
        channels = await others(it, all_of_them, 4)
        for channel in channels[1:]:  # may be delivered already, since the agent is the same
            await one_less.ask("subscribe", channel=channel.id)
        await one_less.ask("unsubscribe", channel=channels[-1].id)
        for raw in (all_of_them, one_less):
            raw.pushes.clear()
        for channel in channels:
            seq = await it.publish(b"0", channel)
            assert (await all_of_them.message())["seq"] == seq
            if channel is not channels[-1]:
                assert (await one_less.message())["seq"] == seq
        stored = await publish_in_turn(it, channels)
        assert [(await all_of_them.message())["seq"] for _ in stored] == stored
        theirs = [await one_less.message() for _ in range(COUNT * 4 // 5)]
        seqs = [message["seq"] for message in theirs]
        assert seqs == sorted(set(seqs))
        assert channels[-1].id not in {message["channel"] for message in theirs}
