"""Messages that expire: a gap takes the place of an expired one, and the history keeps it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw as Json

from artcafe.errors import Invalid, KeyReused
from artcafe.model import ChannelType
from artcafe.rules import times
from artcafe.wire.frames import Publish
from artcafe.wire.replies import PublishReply
from tests.gateway.gateway_app import GatewayApp, gateway_app
from tests.gateway.raw_client import RawClient

LIFE = timedelta(seconds=60)


def expiring(it: GatewayApp, data: bytes, key: str | None = None, life: timedelta = LIFE) -> Publish:
    return Publish(it.channel.id, Json(data), key, expires_at=times.to_text(it.clock() + life))


async def publish(it: GatewayApp, message: Publish) -> PublishReply:
    return await it.services.messaging.publish(it.owner, message.channel, message)


async def frame(raw: RawClient) -> dict[str, Any]:
    return raw.pushes.pop(0) if raw.pushes else await raw.next()


def gap(it: GatewayApp, first: int, last: int) -> dict[str, Any]:
    return {"gap": {"channel": it.channel.id, "from": first, "to": last, "reason": "expired"}}


@pytest.mark.promise("8e", "e2", "e3", "e4")
async def test_gap_takes_the_place_of_expired_messages_in_a_backlog_and_history_keeps_them(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        await it.publish(b"1")
        for data in (b"2", b"3"):
            await publish(it, expiring(it, data))
        await it.publish(b"4")
        async with it.connected() as raw:
            assert [(await raw.message())["data"] for _ in range(4)] == [1, 2, 3, 4], "none has expired yet"

        it.clock.ahead = LIFE
        async with it.connected(max_unacked=1) as raw:
            assert (await raw.message())["seq"] == 1
            assert await frame(raw) == gap(it, 2, 3)
            assert await raw.is_quiet(), "the window is full, and the gap takes no place in it"
            await raw.ack(it.channel.id, 1)
            last = await raw.message()
            assert (last["seq"], last["prev"]) == (4, 3)
        async with it.connected() as raw:
            assert await frame(raw) == gap(it, 2, 3), "an unacknowledged gap is repeated"
            assert (await raw.message())["seq"] == 4
            await raw.ack(it.channel.id, 4)
            past = await raw.ask("history", channel=it.channel.id, after=0)
            assert [each["data"] for each in past["messages"]] == [1, 2, 3, 4]
            assert [("expires_at" in each) for each in past["messages"]] == [False, True, True, False]
        async with it.connected() as raw:
            assert await raw.is_quiet(), "an ack of a later message is one of the gap"


@pytest.mark.promise("e2", "e3")
async def test_message_that_expires_before_the_fan_out_is_a_gap_that_needs_no_ack(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as plain, it.connected(max_unacked=1) as windowed:
        await it.caught_up()
        message = expiring(it, b"1")
        _, stored = await it.services.messaging.submit(it.owner, message.channel, message)
        it.clock.ahead = LIFE  # The message is on its way to the log.
        await stored
        await it.publish(b"2")
        for raw in (plain, windowed):
            assert await frame(raw) == gap(it, 1, 1)
            found = await raw.message()
            assert (found["seq"], found["prev"], found["data"]) == (2, 1, 2)


@pytest.mark.promise("e1")
async def test_expiry_is_checked_when_a_message_is_published(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        live = await it.services.channels.create(it.owner, name="live", type=ChannelType.LIVE)
        for message, problem in (
            (expiring(it, b"1", life=timedelta()), "which has passed"),
            (Publish(it.channel.id, Json(b"1"), expires_at="tomorrow"), "RFC 3339"),
            (Publish(live.id, Json(b"1"), expires_at="2036-11-22T16:50:57Z"), "stores nothing"),
        ):
            with pytest.raises(Invalid, match=problem) as refused:
                await publish(it, message)
            assert refused.value.field == "expires_at"
        async with it.connected() as raw:
            answer = await raw.ask("publish", channel=it.channel.id, data=1, expires_at="2016-11-22T16:50:57Z")
            assert answer["code"] == "invalid"

        message = expiring(it, b"1", "one-key")
        first = await publish(it, message)
        it.clock.ahead = LIFE
        again = await publish(it, message)
        assert (again.seq, again.message_id, again.duplicate) == (first.seq, first.message_id, True), "a repeat after the expiry"
        with pytest.raises(KeyReused):
            await publish(it, expiring(it, b"1", "one-key"))
        with pytest.raises(KeyReused):
            await publish(it, Publish(it.channel.id, Json(b"1"), "one-key"))
        async with asyncio.timeout(20), it.connected() as raw:
            assert await frame(raw) == gap(it, 1, 1)
