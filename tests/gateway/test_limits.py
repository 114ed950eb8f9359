"""Limits on the socket: refused publishes, and the pushes at 80 % and 100 %."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.gateway.gateway_app import GatewayApp, gateway_app
from tests.gateway.raw_client import RawClient


async def outcomes(raw: RawClient, channel: str, count: int) -> list[dict[str, Any]]:
    """Publish messages one after the other. Return the replies and the pushes of limits, in their order."""
    found: list[dict[str, Any]] = []
    for number in range(count):
        id = await raw.say("publish", channel=channel, data=number)
        while True:
            frame = await raw.next()
            if "message" in frame:
                continue
            found.append(frame)
            if frame.get("id") == id:
                break
    return found


def stored(frames: list[dict[str, Any]]) -> int:
    return sum("publish" in frame for frame in frames)


async def limited(it: GatewayApp, **limits: int) -> None:
    """Set limits before anything was counted."""
    await it.set_limits(**limits)


async def test_publish_above_the_limit_is_refused_with_the_limit_its_use_and_a_wait(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await limited(it, messages_a_minute=3)
        frames = await outcomes(raw, it.channel.id, 5)
        assert stored(frames) == 3
        errors = [frame["error"] for frame in frames if "error" in frame]
        assert len(errors) == 2
        for error in errors:
            assert (error["code"], error["temporary"]) == ("too_fast", True)
            assert 0 < error["retry_after_s"] <= 63
            state = error["limit"]
            assert (state["name"], state["limit"], state["used"], state["left"]) == ("messages_a_minute", 3, 3, 0)
            assert state["resets_at"] > it.clock().isoformat()[:19]
        history = await it.services.history.page(it.owner, it.channel.id, None, None, 50)
        assert len(history.messages) == 3


async def test_limits_are_pushed_once_at_80_and_100_percent_to_the_connection_that_uses_them(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw, it.connected() as other:
        await limited(it, messages_a_minute=10)
        frames = await outcomes(raw, it.channel.id, 12)
        pushes = [frame["limits"] for frame in frames if "limits" in frame]
        assert [(push["percent"], push["name"], push["limit"], push["used"], push["left"]) for push in pushes] == [
            (80, "messages_a_minute", 10, 8, 2),
            (100, "messages_a_minute", 10, 10, 0),
        ]
        assert await other.messages(10) == list(range(10))
        assert await other.is_quiet()
        late = [frame["limits"]["percent"] for frame in await outcomes(other, it.channel.id, 1) if "limits" in frame]
        assert late == [100]


async def test_raised_limit_applies_to_an_open_connection(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await limited(it, messages_a_minute=2)
        assert stored(await outcomes(raw, it.channel.id, 4)) == 2
        await limited(it, messages_a_minute=5)
        assert stored(await outcomes(raw, it.channel.id, 6)) == 3


async def test_messages_of_a_month_are_limited(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await limited(it, messages_a_month=4)
        frames = await outcomes(raw, it.channel.id, 6)
        assert stored(frames) == 4
        assert [frame["error"]["limit"]["name"] for frame in frames if "error" in frame] == ["messages_a_month"] * 2
        assert [frame["limits"]["percent"] for frame in frames if "limits" in frame] == [100]


async def test_connection_that_uses_80_percent_of_the_limit_is_notified(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        await limited(it, connections=5)
        async with it.connected(), it.connected(), it.connected() as third, it.connected() as fourth, it.connected() as fifth:
            assert await third.is_quiet()
            for raw, used in ((fourth, 4), (fifth, 5)):
                push = (await raw.next())["limits"]
                assert (push["name"], push["limit"], push["used"], push["percent"]) == ("connections", 5, used, used * 20)
